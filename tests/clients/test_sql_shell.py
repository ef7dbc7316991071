"""`millrace sql`: what it sends, what it shows, how it ends; on a terminal of its own, against something that answers like POST /sql."""

import json
import queue
import signal
import subprocess

import pytest

import sql_shell
from sql_shell import FakeSql, Said, Terminal

COLUMNS = [('id', 'text'), ('n', 'bigint')]
MISSING = {'error': {'code': '42P01', 'message': 'no stream "ordres"', 'line': 2, 'column': 15, 'hint': 'orders?',
                     'text': 'ERROR: no stream "ordres"\n  SELECT * FROM ordres\n                ^\norders?\n'}}


@pytest.fixture
def fake():
    f = FakeSql()
    f.answers['SELECT 1'] = Said.table(COLUMNS, ['a', 1], ['long text', 1000], [None, None])
    f.answers['CREATE STREAM s'] = Said({'done': 'CREATE STREAM', 'name': 's'})
    f.answers['BAD'] = Said(MISSING, status=400)
    yield f
    f.close()


def run(fake, *args, given=None, **env):
    """(exit code, standard output, standard error)"""
    done = subprocess.run([sql_shell.binary(), 'sql', '--host', '127.0.0.1:%d' % fake.port, *args], input=given, capture_output=True, timeout=60,
                          stdin=subprocess.DEVNULL if given is None else None, env=sql_shell.environment(**env))
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_a_table(fake):
    code, out, err = run(fake, '-c', 'SELECT 1')
    assert code == 0 and err == '(3 rows)\n'
    assert out == (' id        |    n\n'
                   '-----------+------\n'
                   ' a         |    1\n'
                   ' long text | 1000\n'
                   ' NULL      | NULL\n')


def test_what_values_look_like(fake):
    """All digits, characters of any width; nothing that a terminal would obey; a row that is taken back."""
    fake.answers['SELECT 2'] = Said('{"statement":0,"columns":[{"name":"x \\"y\\"","type":"json"},{"name":"d","type":"numeric(38,2)"}]}',
                                    '{"row":["\\u001b[31mred\\n\\u009b",123456789012345678901234567890123456.78]}',
                                    '{"row":[{"a":[1,null]},-0.10]}', '{"row":["日本é",true]}', '{"row":["x",1.50],"change":"-"}',
                                    '{"done":"SELECT","rows":4}')
    out = run(fake, '-c', 'SELECT 2')[1].splitlines()
    assert out[0] == ' %-17s | %39s' % ('x "y"', 'd')
    assert out[2] == ' \\x1b[31mred\\n\\x9b | 123456789012345678901234567890123456.78'
    assert out[3].startswith(' {"a":[1,null]} ') and out[3].endswith(' -0.10')
    assert out[4].startswith(' 日本é ') and out[4].endswith('| true')
    assert out[5].startswith('-x ') and out[5].endswith(' 1.50')


def test_csv_and_json(fake):
    fake.answers['SELECT 2'] = Said.table([('a', 'json')], ['x"y'], [None], [[1, {'b': 2}]])
    assert run(fake, '--csv', '-c', 'SELECT 1;SELECT 2') == (0, '"id","n"\r\n"a",1\r\n"long text",1000\r\n,\r\n\r\n"a"\r\n"x""y"\r\n\r\n"[1,{""b"":2}]"\r\n', '')
    code, out, err = run(fake, '--json', '-c', 'SELECT 1; CREATE STREAM s')
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and err == '' and lines[1] == {'row': ['a', 1]} and lines[-1] == {'done': 'CREATE STREAM', 'name': 's'} and len(lines) == 6


def test_the_first_error_ends_it(fake):
    code, out, err = run(fake, '-c', 'CREATE STREAM s;BAD;SELECT 1')
    assert code == 1 and out == '' and fake.asked == ['CREATE STREAM s;', 'BAD;']
    assert err == 'CREATE STREAM s\nERROR 42P01' + MISSING['error']['text'][len('ERROR'):]
    code, out, err = run(fake, '-c', 'BAD', '-c', 'SELECT 1')
    assert code == 1 and out == ''
    code, out, err = run(fake, '--json', '-c', 'BAD')
    assert code == 1 and json.loads(out) == MISSING


def test_files_and_places(fake, tmp_path):
    path = tmp_path / 'views.sql'
    path.write_text('-- a; comment\nCREATE STREAM s;\n\n  SELECT 1\n;\nBAD;SELECT 1\n')
    code, out, err = run(fake, '-f', str(path))
    assert code == 1 and '%s:7: ERROR 42P01: no stream' % path in err
    assert fake.asked == ['-- a; comment\nCREATE STREAM s;', 'SELECT 1\n;', 'BAD;']
    code, _, err = run(fake, '-f', str(tmp_path / 'none'))
    assert code == 1 and 'cannot be read' in err
    assert run(fake, '-c', '  -- nothing')[0] == 0 and len(fake.asked) == 3


def test_standard_input_runs_what_is_whole(fake):
    p = subprocess.Popen([sql_shell.binary(), 'sql', '--host', '127.0.0.1:%d' % fake.port, '--csv'], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                         env=sql_shell.environment())
    fake.answers['SELECT\n1'] = fake.answers['SELECT 1']
    p.stdin.write(b'SELECT\n1')
    p.stdin.write(b';\nSELECT ')
    p.stdin.flush()
    assert [p.stdout.readline() for _ in range(4)][1] == b'"a",1\r\n'
    p.stdin.write(b"';' -- no end")
    p.stdin.close()
    assert p.wait(20) == 0 and fake.asked == ['SELECT\n1;', "SELECT ';' -- no end"]
    p.stdout.close()


def test_who_and_where(fake):
    run(fake, '-c', 'SELECT 1')
    run(fake, '-c', 'SELECT 1', '--user', 'anna', '--password', 's:cret', '--vhost', 'a/b c')
    run(fake, '-c', 'SELECT 1', MILLRACE_USER='env', MILLRACE_PASSWORD='x')
    (path, head), (path2, head2), (_, head3) = fake.heads
    assert path == '/sql' and 'Authorization' not in head and head['Content-Type'] == 'application/sql'
    assert head2['Authorization'] == 'Basic YW5uYTpzOmNyZXQ=' and path2 == '/sql?vhost=%61%2F%62%20%63'
    assert head3['Authorization'] == 'Basic ZW52Ong='


def test_nobody_there(fake):
    fake.close()
    code, _, err = run(fake, '-c', 'SELECT 1')
    assert code == 69 and 'cannot connect' in err


@pytest.mark.parametrize('args', [['x'], ['--csv', '--json'], ['--host', ':1'], ['--port-offset', 'x'], ['--colour']])
def test_usage(fake, args):
    assert run(fake, *args)[0] == 64


def test_a_query_without_end(fake):
    """Its rows are there when they come; the end of the process is that of the query."""
    rows = queue.Queue()
    fake.answers['SELECT live'] = Said({'statement': 0, 'columns': [{'name': 'n', 'type': 'bigint'}]}, live=rows)
    for form in ((), ('--csv',), ('--json',)):
        fake.gone.clear()
        p = subprocess.Popen([sql_shell.binary(), 'sql', '--host', '127.0.0.1:%d' % fake.port, '-c', 'SELECT live', *form], stdout=subprocess.PIPE,
                             env=sql_shell.environment(), preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))   # tests in the background ignore it
        for n in (41, 4200):
            rows.put({'row': [n]})
            while str(n).encode() not in p.stdout.readline():
                pass
        p.send_signal(signal.SIGINT)
        assert p.wait(20) == -signal.SIGINT and fake.gone.wait(20)
        p.stdout.close()


# ---- on a terminal ---------------------------------------------------------------------------------

@pytest.fixture
def shell(fake):
    terminals = []

    def start(*args, **kw):
        t = Terminal(sql_shell.binary(), 'sql', '--host', '127.0.0.1:%d' % fake.port, *args, **kw)
        terminals.append(t)
        t.see('millrace> ')
        return t
    yield start
    for t in terminals:
        t.close()


def test_statements_of_several_lines(fake, shell):
    t = shell()
    t.type('SELECT 1; CREATE\n')
    t.see('(3 rows)')
    t.see('-> ')
    fake.answers['CREATE\nSTREAM s'] = fake.answers['CREATE STREAM s']
    t.type('STREAM s;\n')
    t.see('CREATE STREAM s')
    t.type('BAD;\n')
    t.see('ERROR 42P01: no stream "ordres"')
    assert '      ^' in t.see('orders?')
    t.type('\\q\n')
    assert t.end() == 0 and fake.asked == ['SELECT 1;', 'CREATE\nSTREAM s;', 'BAD;']


def test_ctrl_c_stops_the_query_and_not_the_shell(fake, shell):
    rows = queue.Queue()
    fake.answers['SELECT live'] = Said({'statement': 0, 'columns': [{'name': 'n', 'type': 'bigint'}]}, live=rows)
    fake.answers['SELECT silent'] = Said(live=queue.Queue())
    t = shell()
    t.type('SELECT live;\n')
    rows.put({'row': [4711]})
    t.see('4711')
    t.type('\x03')
    t.see('(stopped after 1 row)')
    assert fake.gone.wait(20)
    fake.gone.clear()
    t.see('millrace> ')
    t.type('SELECT silent;\n')
    t.see('silent;')
    while 'SELECT silent;' not in fake.asked:
        t.more(0.01)
    t.type('\x03')
    t.see('(stopped after 0 rows)')
    assert fake.gone.wait(20)
    t.see('millrace> ')
    t.type('half of a\n')
    t.see('-> ')
    t.type('x\x03')                     # and what is being typed is thrown away
    t.see('^C')
    t.see('millrace> ')
    t.type('SELECT 1;\n')
    t.see('(3 rows)')
    t.see('millrace> ')
    assert t.leave() == 0


def test_ctrl_d_typed_ahead(fake, shell):
    """Before the prompt, and while a statement runs, the terminal is not the shell's: the key comes as a NUL, and still ends it."""
    early = Terminal(sql_shell.binary(), 'sql', '--host', '127.0.0.1:%d' % fake.port)
    early.type('\x04')
    assert early.end() == 0
    early.close()
    rows = queue.Queue()
    fake.answers['SELECT live'] = Said(live=rows)
    t = shell()
    t.type('SELECT live;\n')
    while 'SELECT live;' not in fake.asked:
        t.more(0.01)
    t.type('\x04')
    rows.put(None)
    assert t.end() == 0 and fake.asked == ['SELECT live;']


def test_ctrl_space_quotes_nothing(fake, shell):
    t = shell()
    t.type('\0')
    assert t.leave() == 0


def test_history(fake, shell, tmp_path):
    env = sql_shell.environment(TERM='xterm', MILLRACE_HISTORY=str(tmp_path / 'history'))
    t = shell(env=env)
    t.type('SELECT\n')
    t.see('-> ')
    t.type('1;\n')
    t.see('millrace> ')
    assert t.leave() == 0 and (tmp_path / 'history').stat().st_mode & 0o777 == 0o600
    t = shell(env=env)
    t.type('\x1b[A\n')                   # the line before
    t.see('(3 rows)')
    assert fake.asked == ['SELECT\n1;', 'SELECT 1;']


def test_completion(fake, shell):
    fake.answers['SHOW STREAMS'] = Said.table([('name', 'text')], ['orders'], ['order-items'])
    fake.answers['SHOW VIEWS'] = Said.table([('name', 'text')], ['Total sum'])
    t = shell()
    t.type('sel\t')
    t.see('select ')
    fake.answers['select 1'] = fake.answers['SELECT 1']
    t.type('1;\n')
    t.see('(3 rows)')
    t.see('millrace> ')
    t.type('SELECT * FROM tot\tWHERE')
    t.see('SELECT * FROM tot')
    t.type(';\n')
    t.see('millrace> ')
    assert fake.asked[-1] == 'SELECT * FROM "Total sum" WHERE;'
    t.type('TABLE ord\t')                # several, and words of the language
    assert 'orders ' in t.see('ORDINALITY')
    t.see('millrace> TABLE ord')
    fake.answers['TABLE orders '] = fake.answers['SELECT 1']
    t.type('ers\t;\n')
    t.see('(3 rows)')
    assert fake.asked[-1] == 'TABLE orders ;'


def test_words_of_the_shell(fake, shell):
    fake.answers['SHOW STREAMS'] = Said.table([('name', 'text')], ['orders'])
    fake.answers['SHOW TABLES'] = Said({'error': {'code': '0A000', 'message': 'hushed'}}, status=400)
    fake.answers['DESCRIBE orders'] = Said.table([('column', 'text'), ('type', 'text')], ['id', 'bigint'])
    t = shell()
    for typed, seen in (('\\?', '\\d NAME'), ('\\d', 'STREAMS\n name'), ('\\d orders', 'bigint'), ('\\nix', 'ERROR: there is no \\nix'),
                        ('\\csv\nSELECT 1;', '"a",1'), ('\\json\nSELECT 1;', '{"row":["a",1]}'), ('\\table\nSELECT 1;', '(3 rows)')):
        t.type(typed + '\n')
        t.see(seen)
        assert 'hushed' not in t.see('millrace> ')
    t.type('\\q\n')
    assert t.end() == 0


def test_a_table_is_as_wide_as_the_terminal(fake, shell):
    fake.answers['SELECT wide'] = Said.table([('a', 'text'), ('b', 'text'), ('n', 'bigint')], ['x' * 100, 'y' * 30, 7], ['s', 't', 8])
    fake.answers['SELECT many'] = Said.table([('column%d' % i, 'bigint') for i in range(30)], list(range(30)))
    t = shell(columns=60)
    t.type('SELECT wide;\n')
    lines = t.see('(2 rows)').splitlines()
    assert max(len(line) for line in lines if '|' in line) <= 60 and any('x…' in line for line in lines)
    assert any(line.endswith('| 7') for line in lines) and any('y' * 20 in line for line in lines)
    t.type('SELECT many;\n')
    lines = t.see('(1 row)').splitlines()
    assert max(len(line) for line in lines if '|' in line) <= 60 and any(line.endswith('…') for line in lines)


def test_colours_are_for_terminals(fake):
    def shown(*args, **env):
        t = Terminal(sql_shell.binary(), 'sql', '--host', '127.0.0.1:%d' % fake.port, '-c', 'SELECT 1;BAD', env=sql_shell.environment(TERM='xterm', **env))
        t.end()
        raw, _ = t.raw, t.close()
        return raw
    assert '\x1b[2mNULL' in shown() and '\x1b[31mERROR' in shown()
    assert '\x1b[' not in shown(NO_COLOR='1')
    assert '\x1b[' not in ''.join(run(fake, '-c', 'SELECT 1;BAD')[1:])


# ---- on a real broker ------------------------------------------------------------------------------

def of(broker, *args):
    return [sql_shell.binary(), 'sql', '--port-offset', str(broker.offset), *args]


def test_a_broker(millrace, tmp_path):
    """From the first statement to the last, through a file, arguments and a terminal."""
    def sql(*args, given=None):
        done = subprocess.run(of(millrace, *args), input=given, capture_output=True, timeout=60, env=sql_shell.environment())
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def publish(row):
        subprocess.run([millrace.binary, 'pub', '--port-offset', str(millrace.offset), 'shell_orders', row], check=True, capture_output=True)
    path = tmp_path / 'made.sql'
    path.write_text('CREATE STREAM shell_orders (\n  id TEXT,\n  total NUMERIC(20,2)\n);\n\n-- what is dear\n'
                    'CREATE VIEW shell_dear AS\n  SELECT id, total FROM shell_orders WHERE total > 100;\n')
    assert sql('-f', str(path)) == (0, '', 'CREATE STREAM shell_orders\nCREATE VIEW shell_dear\n')
    code, _, err = sql('-f', str(path))
    assert code == 1 and err.startswith('%s:1: ERROR 42P07: ' % path)
    code, _, err = sql('-c', 'SELECT id, totl FROM shell_orders')
    assert code == 1 and 'LINE 1: SELECT id, totl FROM' in err and '\n                   ^~~~\n' in err and 'total' in err
    publish('{"id": "a", "total": 99.5}')
    publish('{"id": "b", "total": 1234567890123456.78}')
    table = ' id | %19s\n----+---------------------\n b  | 1234567890123456.78\n' % 'total'
    assert sql('-q', '-c', 'SELECT * FROM shell_dear') == (0, table, '')
    assert sql('--csv', given=b'SELECT id FROM shell_orders') == (0, '"id"\r\n"a"\r\n"b"\r\n', '')
    t = Terminal(*of(millrace))
    t.see('millrace> ')
    t.type('SELECT id FROM shell_orders\n')
    t.see('-> ')
    t.type('EMIT CHANGES;\n')
    t.see('\n b')
    publish('{"id": "live", "total": 1}')
    t.see('\n live')
    t.type('\x03')
    t.see('(stopped after 3 rows)')
    t.see('millrace> ')
    t.type('\\d\n')
    t.see('shell_orders')
    t.see('millrace> ')
    t.type('DROP VIEW shell_d\t;\n')
    t.see('DROP VIEW shell_dear\n')
    t.see('millrace> ')
    t.type('DROP STREAM shell_orders; SELECT id FROM shell_orders;\n')
    t.see('DROP STREAM shell_orders\n')
    t.see('ERROR 42')
    t.see('millrace> ')
    assert t.leave() == 0
    t.close()
