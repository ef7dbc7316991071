"""What the documents and the manual page say of the program, held against the program: settings, commands, options, exit codes, and where links lead."""

import fnmatch
import functools
import glob
import os
import re
import subprocess

import pytest

from brokers import ROOT
from sql_shell import binary, environment

DOCUMENTS = sorted(path for pattern in ('README.md', 'docs/**/*.md', 'src/**/README.md', 'bench/**/*.md', 'tests/**/*.md', 'examples/**/*.md', 'packaging/**/*.md')
                   for path in glob.glob(pattern, root_dir=ROOT, recursive=True))
NO_SETTINGS = re.compile(r'^message\.timestamp\.type$|^stomp\.default_user$'      # of Kafka, of RabbitMQ
                         r'|^sql\.(reason|offset|error|query|stream|partition)$'    # headers of a record that failed
                         r'|\.(md|c|h|def|py|json|sql)$')


def read(path):
    with open(os.path.join(ROOT, path)) as file:
        return file.read()


@functools.lru_cache(None)
def said(*args):
    done = subprocess.run([binary(), *args], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, env=environment())
    assert done.returncode == 0, done.stderr
    return done.stdout


def settings():
    reference = said('reference')
    return set(re.findall(r'^\| `([a-z_.]+)` \|', reference[reference.index('## Settings'):reference.index('## Errors')], re.M))


def commands():
    return re.findall(r'^  ([a-z]+) ', said('help'), re.M)


def anchors(text):
    heads = (re.sub(r'\[([^]]*)\]\([^)]*\)', r'\1', head).strip().lower() for head in re.findall(r'^#+ (.*)$', text, re.M))
    return {re.sub(r'[^\w\- ]', '', head).replace(' ', '-') for head in heads}


def test_there_is_something_to_read():
    assert len(DOCUMENTS) > 40 and len(settings()) > 80 and len(commands()) > 20


@pytest.mark.parametrize('path', DOCUMENTS)
def test_links_lead_somewhere(path):
    for link in re.findall(r'\]\(([^)\s]+)\)', re.sub(r'```.*?```', '', read(path), flags=re.S)):
        if re.match(r'https?:', link):
            continue
        file, _, anchor = link.partition('#')
        target = os.path.normpath(os.path.join(os.path.dirname(path), file)) if file else path
        assert os.path.exists(os.path.join(ROOT, target)), link
        assert not anchor or anchor in anchors(read(target)), link


@pytest.mark.parametrize('path', [*DOCUMENTS, 'man/millrace.1'])
def test_settings_exist(path):
    known = settings()
    groups = {name.split('.')[0] for name in known if '.' in name}
    for name in re.findall(r'(?<![\w./$-])([a-z_]+\.[a-z_]+(?:\.[a-z_]+)?)(?![\w.(/-])', read(path)):
        assert name.split('.')[0] not in groups or name in known or NO_SETTINGS.search(name), name


@pytest.mark.parametrize('path', [*DOCUMENTS, 'man/millrace.1'])
def test_commands_and_options_exist(path):
    known = commands()
    for words in re.findall(r'(?:^|[`\s/])millrace ([a-z|]+\b[^`\n#;&)]*)', read(path).replace('\\-', '-'), re.M):
        for command in words.split()[0].split('|'):
            options = re.findall(r'(?<!\S)(--[a-z-]+)', words.split(' | ')[0])
            if command not in known:
                assert not options, 'millrace ' + words
                continue
            own = [command, *(words.split()[1:2] if command == 'bench' else [])]
            for option in options:
                assert re.search(option + r'\b', said(*own, '--help')), 'millrace %s: %s' % (words, option)


def test_the_manual_page_has_every_command_and_exit_code():
    page = read('man/millrace.1').replace('\\-', '-')
    own = page[page.index('.SH COMMANDS'):page.index('.SH OPTIONS')]
    for command in commands():
        assert command == 'help' or re.search(r'^\.BR? .*\b%s\b' % command, own, re.M), command
    reference = said('reference')
    for code, text in re.findall(r'^\| (\d+) \| (.*) \|$', reference[reference.index('## Exit codes'):], re.M):
        assert '.B %s\n%s.\n' % (code, text[0].upper() + text[1:]) in page, code


@pytest.mark.parametrize('path', [path for path in DOCUMENTS if path.startswith('src/')])
def test_a_folder_s_page_names_its_files(path):
    """Those that are in the program: `name`, or `name*` for several."""
    folder = os.path.join(ROOT, os.path.dirname(path))
    named = [re.sub(r'\.(c|h|def)$', '', name) for name in re.findall(r'`([a-z0-9_*.]+)`', read(path))]
    for file in sorted(os.listdir(folder)):
        stem = file[:-2]
        if file.endswith('.c') and not stem.endswith('_test'):
            assert any(fnmatch.fnmatch(stem, name) for name in named), file
