"""docs/sql.md: what it says is so.

The statements of a section, those in comments too, are one file for `millrace test`; a table of statements that are refused names what each is told; the table of
functions is the program's."""

import os
import re
import subprocess

import pytest

import brokers

BINARY = os.path.abspath(os.environ.get('MILLRACE_BIN', os.path.join(brokers.ROOT, 'build', 'millrace')))
TEXT = open(os.path.join(brokers.ROOT, 'docs', 'sql.md'), encoding='utf-8').read()
SECTIONS = {part.split('\n', 1)[0]: part for part in re.split(r'^## ', TEXT, flags=re.M)[1:]}
BLOCK = re.compile(r'^```sql\n(.*?)^```$|^<!-- test:\n(.*?)^-->$', re.M | re.S)


def statements(section):
    return ''.join(a or b for a, b in BLOCK.findall(SECTIONS[section]))


def trial(tmp_path, text):
    path = tmp_path / 'example.sql'
    path.write_text(text)
    return subprocess.run([BINARY, 'test', str(path)], capture_output=True, timeout=60, text=True)


@pytest.mark.parametrize('section', [name for name in SECTIONS if '```sql' in SECTIONS[name]])
def test_examples(section, tmp_path):
    text = statements(section)
    count = len(re.findall(r'^ASSERT', text, re.M))
    assert count > 0, 'nothing is asserted'
    done = trial(tmp_path, text)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == '%d passed, 0 failed' % count


def test_comments_behind_selects_say_what_is_shown(tmp_path):
    """SELECT …; -- (1, 'a'), (2, 'b'): what the table has, read as rows."""
    for section in SECTIONS:
        text = statements(section)
        for found in re.finditer(r'^(SELECT [^;]*;) +-- (\([^:\n]*)', text, re.M):
            select, rows = found.groups()
            lines = trial(tmp_path, text[:found.end(1)]).stdout.splitlines()
            begin = max(i for i, line in enumerate(lines) if re.fullmatch(r'-+(\+-+)*', line))
            shown = [[cell.strip() for cell in line.split('|')] for line in lines[begin + 1:-1]]
            wanted = [[cell.strip().strip("'") for cell in row.split(',')] for row in re.findall(r'\(([^)]*)\)', rows)]
            assert sorted(shown) == sorted(wanted), (section, select)


def refused():
    section = SECTIONS['What is refused today']
    return re.search(r'^<!-- refused:\n(.*?)^-->$', section, re.M | re.S).group(1), re.findall(r'^\| `(.*?)` \| (.*) \|$', section, re.M)


def test_what_is_refused(tmp_path):
    before, rows = refused()
    assert len(rows) > 15
    for statement, message in rows:
        done = trial(tmp_path, before + statement + ';\n')
        assert done.returncode == 1 and done.stderr.split(': ', 2)[2].split('\n')[0] == message.replace('\\|', '|'), (statement, done.stderr)


def test_functions_are_those_of_the_program():
    table = re.search(r'<!-- functions -->\n(.*?)<!-- end of functions -->', TEXT, re.S).group(1)
    reference = subprocess.run([BINARY, 'reference'], capture_output=True, text=True, check=True).stdout
    section = reference.split('## SQL functions and operators\n', 1)[1].split('\n## ', 1)[0]
    assert table.strip() == section.strip(), 'run: millrace reference, and copy the table'


def test_links():
    def anchor(heading):
        return re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')
    anchors = {anchor(name) for name in SECTIONS}
    for target in re.findall(r'\]\(([^)]+)\)', TEXT):
        if target.startswith('#'):
            assert target[1:] in anchors, target
        else:
            assert os.path.exists(os.path.join(brokers.ROOT, 'docs', target.split('#')[0])), target
