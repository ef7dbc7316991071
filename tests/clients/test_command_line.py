"""The command line as somebody types it who makes mistakes: what is said, and the exit code."""

import json
import os
import subprocess

import pytest

from sql_shell import Terminal, binary, environment

FAILED, USAGE, NO_BROKER, FOLDER, CONFIG = 1, 64, 69, 73, 78


def run(*args, given=None, **kw):
    done = subprocess.run([binary(), *args], input=given, stdout=kw.pop('stdout', subprocess.PIPE), stderr=subprocess.PIPE,
                          stdin=None if given is not None else subprocess.DEVNULL, timeout=60, env=environment(), text=True, **kw)
    return done.returncode, done.stdout, done.stderr


WRONG = [
    ('', USAGE, 'usage: millrace COMMAND'),
    ('frobnicate', USAGE, 'there is no command frobnicate'),
    ('user', USAGE, 'usage: millrace user add NAME [PASSWORD]\n'),
    ('user frob', USAGE, 'there is no user frob\n'),
    ('list queues extra', USAGE, 'list queues takes other arguments\nmillrace: usage: millrace list queues\n'),
    ('permission set anna', USAGE, 'permission set takes other arguments'),
    ('policy set p .* {} --priority high', USAGE, '--priority takes a whole number, not high'),
    ('bench', USAGE, 'usage: millrace bench amqp'),
    ('bench frob', USAGE, 'there is no bench frob'),
    ('serve --set foo=1', CONFIG, 'there is no setting foo; millrace reference lists them'),
    ('serve --set listen.ampq=', CONFIG, 'did you mean listen.amqp?'),
    ('inspect nothing', FOLDER, 'nothing cannot be read: it is not a data folder'),
    ('check nothing', FOLDER, 'nothing cannot be read: it is not a data folder'),
    ('status --data nothing', NO_BROKER, 'no broker is running on nothing: start one'),
    ('backup copy --data nothing', NO_BROKER, 'no broker is running on nothing'),
    ('pub', USAGE, 'which queue or stream?'),
    ('pub --protocol mqtt --create t m', USAGE, '--create and --partition mean nothing there'),
    ('pub --protocol mqtt --exchange e m', USAGE, 'MQTT has topics'),
    ('sql --host localhost:1', NO_BROKER, 'cannot connect to localhost port 1: Connection refused'),
    ('reference --data x', USAGE, "unrecognized option '--data'"),
    ('pub --host localhost:1 q m', NO_BROKER, 'cannot connect to localhost port 1: Connection refused'),
]


@pytest.mark.parametrize('line,code,said', WRONG)
def test_wrong(line, code, said, tmp_path):
    got, out, err = run(*line.split(), cwd=tmp_path)
    assert got == code and said in err and out == ''
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize('line', ['help', '--help', '-h', 'help serve', 'bench --help', 'bench kafka --help', 'user --help', '--version'])
def test_help(line):
    code, out, err = run(*line.split())
    assert code == 0 and err == '' and out.startswith('millrace 0' if line == '--version' else ('usage:', 'Usage:'))


@pytest.mark.parametrize('command', ['check', 'inspect', 'salvage', 'reference'])
def test_files_have_no_ports(command):
    code, out, _ = run(command, '--help')
    assert code == 0 and '--port-offset' not in out and ('--data' in out) == (command != 'reference')
    assert '--port-offset' in run('serve', '--help')[1]


def test_output_that_is_lost_is_said():
    with open('/dev/full', 'w') as full:
        code, _, err = run('reference', stdout=full)
    assert code == FAILED and 'standard output cannot be written to' in err


def test_what_an_administrator_mistypes(millrace):
    def ask(*args, given=None):
        return run(*args, '--data', millrace.data, given=given)
    assert ask('alarm', 'raise', 'foo')[0] == FAILED
    assert 'the alarms are memory, disk' in ask('alarm', 'raise', 'memory', 'foo')[2]
    assert json.loads(ask('status', '--json')[1])[0]['alarms'] == ''
    for wrong in ('abc', '12x', '0', '99999999999999999999'):
        code, _, err = ask('connection', 'close', wrong)
        assert code == USAGE and wrong + ' is not the id of a connection' in err
    assert ask('connection', 'close', '4711')[2] == 'millrace: NOT_FOUND - there is no connection 4711\n'
    assert ask('user', 'add', 'carla', given='')[0] == USAGE
    assert ask('user', 'add', 'carla', given='secret\n')[0] == 0


def test_a_policy_with_a_setting_that_nobody_knows(millrace, tmp_path):
    """As RabbitMQ does it, for imported definitions, too; its settings that mean nothing here are taken."""
    wrong = "'max-lenght' is not a recognised policy setting; did you mean 'max-length'?"
    ignored = "its setting 'ha-mode' has no meaning here"
    definitions = tmp_path / 'definitions.json'
    for key, said in (('max-lenght', wrong), ('ha-mode', ignored), ('max-length', '')):
        policy = {'vhost': '/', 'name': 'typed', 'pattern': '^typed$', 'apply-to': 'queues', 'definition': {key: 1}, 'priority': 0}
        definitions.write_text(json.dumps({'policies': [policy]}))
        for line in (('policy', 'set', 'typed', '^typed$', json.dumps({key: 1})), ('definitions', 'import', str(definitions))):
            code, _, err = run(*line, '--data', millrace.data)
            assert (code != 0) == (said == wrong) and said in err and bool(err) == bool(said), (line, code, err)
    assert run('policy', 'clear', 'typed', '--data', millrace.data)[0] == 0


def test_connections_are_those_of_clients(fresh_millrace):
    """SQL's sessions, that of $SYS and administration's own are no connections."""
    code, _, err = run('sql', '--host', 'localhost:%d' % fresh_millrace.http_port, '-c',
                       'CREATE STREAM seen (n BIGINT); CREATE STREAM kept AS SELECT * FROM seen;')
    assert code == 0, err
    w = fresh_millrace.wire()
    rows = json.loads(fresh_millrace.cli('list', 'connections', '--json'))
    totals = json.loads(fresh_millrace.cli('list', 'totals', '--json'))[0]
    assert [r['protocol'] for r in rows] == ['AMQP 0-9-1'] and totals['connections'] == 1
    assert totals['sessions'] > 1, totals       # there are some that are not shown
    w.close()


def test_a_copy_does_not_lie_in_what_is_copied(fresh_millrace, tmp_path):
    data, link = fresh_millrace.data, str(tmp_path / 'link')
    os.symlink(data, link)
    before = sorted(os.listdir(data))
    for to in (data + '/copy', data + '/wal/../deep/copy', link + '/copy', data):
        code, _, err = run('backup', to, '--data', data)
        assert code == USAGE and 'lies in the data folder' in err, (to, err)
    assert run('backup', 'copy', '--data', '.', cwd=data)[0] == USAGE
    assert run('backup', data + '-copy', '--data', data)[0] == 0        # beside it, and its name begins alike
    assert sorted(os.listdir(data)) == before
    fresh_millrace.stop()
    code, _, err = run('salvage', data, '--to', data + '/new')
    assert code == USAGE and 'lies in the data folder' in err and not os.path.exists(data + '/new')


def test_exported_definitions_are_private_and_whole(millrace, tmp_path):
    def export(to, **kw):
        return run('definitions', 'export', str(to), '--data', millrace.data, **kw)
    old, link = tmp_path / 'old.json', tmp_path / 'link.json'
    old.write_text('old')
    old.chmod(0o644)
    link.symlink_to(old)
    (tmp_path / 'new.json.partial').write_text('of an interrupted one')
    for path in (tmp_path / 'new.json', old, link):
        with open(old) as reader:
            was = reader.read()
            assert export(path)[0] == 0
            assert reader.read() == '' and was          # who was reading it is not given half of another
        assert path.stat().st_mode & 0o777 == 0o600 and 'password_hash' in path.read_text()
        assert json.loads(path.read_text()) == json.loads(run('definitions', 'export', '--data', millrace.data)[1])
    assert link.is_symlink() and sorted(p.name for p in tmp_path.iterdir()) == ['link.json', 'new.json', 'old.json']
    code, _, err = export(tmp_path / 'nowhere' / 'x.json')
    assert code == FAILED and 'cannot be written: No such file' in err
    code, out, _ = export('/dev/stdout')
    assert code == 0 and json.loads(out) and os.path.exists('/dev/stdout') and not os.path.exists('/dev/stdout.partial')


def test_a_typed_password_is_not_shown(millrace):
    t = Terminal(binary(), 'user', 'add', 'dora', '--data', millrace.data)
    t.see('password: ')
    t.type('geheim\n')
    assert t.end() == 0 and 'geheim' not in t.raw
    t.close()
    assert 'dora' in millrace.cli('user', 'list')
