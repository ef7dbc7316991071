"""POST /sql by http.client and curl's habits: who is let in, what is refused and how, and bytes that no library would send."""

import base64
import csv
import http.client
import io
import json
import os
import socket

import pika
import pytest

import brokers

SQL = {'Content-Type': 'application/sql'}


def ask(broker, text, headers=None, path='/sql', method='POST', connection=None, timeout=30):
    """(status, headers, lines)"""
    c = connection or http.client.HTTPConnection('127.0.0.1', broker.http_port, timeout=timeout)
    c.request(method, path, text, {**SQL, **(headers or {})})
    answer = c.getresponse()
    lines = answer.read().decode().splitlines()
    if not connection:
        c.close()
    return answer.status, answer.headers, [json.loads(line) for line in lines]


def as_user(name, password):
    return {'Authorization': 'Basic ' + base64.b64encode(('%s:%s' % (name, password)).encode()).decode()}


def refusal(broker, *args, **kw):
    """(status, SQLSTATE, message) of an answer that is nothing but an error."""
    status, headers, lines = ask(broker, *args, **kw)
    assert headers['Content-Type'] == 'application/json' and len(lines) == 1
    return status, lines[0]['error']['code'], lines[0]['error']['message']


@pytest.mark.parametrize('headers, path, method, status, code', [
    ({}, '/sql', 'GET', 405, '0A000'), ({}, '/sql', 'PUT', 405, '0A000'),
    ({'Content-Type': 'application/x-www-form-urlencoded'}, '/sql', 'POST', 415, '0A000'),
    ({'Origin': 'https://evil.example'}, '/sql', 'POST', 403, '42501'), ({'Origin': 'null'}, '/sql', 'POST', 403, '42501'),
    ({'Origin': 'https://evil.example', **as_user('guest', 'guest')}, '/sql', 'POST', 403, '42501'),
    ({'Authorization': 'Bearer abc'}, '/sql', 'POST', 401, '28000'), (as_user('guest', 'wrong'), '/sql', 'POST', 401, '28000'),
    (as_user('nobody', 'x'), '/sql', 'POST', 401, '28000'),
    ({'X-Vhost': 'mr-closed', **as_user('mr-perm', 'perm-secret')}, '/sql', 'POST', 403, '42501'),
    ({}, '/sql?vhost=there-is-none', 'POST', 403, '42501'), ({}, '/sql?format=csv', 'POST', 400, '08P01'),
    ({'Content-Type': 'application/json'}, '/sql', 'POST', 400, '08P01'),
])
def test_refused(millrace, headers, path, method, status, code):
    c = http.client.HTTPConnection('127.0.0.1', millrace.http_port, timeout=30)
    got = refusal(millrace, 'SELECT 1', headers, path, method, connection=c)
    assert got[:2] == (status, code) and got[2]
    assert c.sock is not None                               # and the next request is answered on the same connection
    c.request('GET', '/health')
    assert c.getresponse().read() == b'{"status":"ok"}\n'
    c.close()


def test_other_paths_are_not_there(millrace):
    assert ask(millrace, 'SELECT 1', path='/sql/x')[0] == 404


def test_401_says_how(millrace):
    _, headers, _ = ask(millrace, 'SELECT 1', as_user('guest', 'wrong'))
    assert headers['WWW-Authenticate'].startswith('Basic ')


def test_nobody_without_a_name_where_the_setting_says_so():
    broker = brokers.Millrace(args=('--set', 'http.anonymous='))
    try:
        broker.start()
        assert refusal(broker, 'SELECT 1')[0] == 401
        assert ask(broker, 'SELECT 1', as_user('guest', 'guest'))[0] != 401
    finally:
        broker.remove()


@pytest.mark.parametrize('chunked', [False, True])
def test_a_text_that_is_too_long(millrace, chunked):
    text = b' ' * ((1 << 20) + 1)
    head = b'POST /sql HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n'
    frame = b'Transfer-Encoding: chunked\r\n\r\n%x\r\n' % len(text) if chunked else b'Content-Length: %d\r\n\r\n' % len(text)
    with socket.create_connection(('127.0.0.1', millrace.http_port), timeout=30) as s:
        s.sendall(head + frame)
        assert b'HTTP/1.1 413 ' in s.recv(1000)


def test_who_is_not_let_in_keeps_its_body(millrace):
    """Who has to log in hears so before the body, and need not send it."""
    with socket.create_connection(('127.0.0.1', millrace.http_port), timeout=30) as s:
        s.sendall(b'POST /sql HTTP/1.1\r\nHost: a\r\nAuthorization: Basic Zzpn\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n')
        said = b''
        while more := s.recv(65536):
            said += more
    assert said.startswith(b'HTTP/1.1 401 ') and b'100 Continue' not in said


# ---- statements ------------------------------------------------------------------------------------

@pytest.fixture
def stream(millrace, request):
    """A stream of this test's own, its name, and who publishes rows to it."""
    name = 'sh_' + request.node.name.split('[')[0][5:35]
    connection = pika.BlockingConnection(pika.ConnectionParameters('127.0.0.1', millrace.port))
    channel = connection.channel()
    channel.confirm_delivery()

    def publish(*rows):
        for row in rows:
            channel.basic_publish('', name, row if isinstance(row, bytes) else json.dumps(row).encode())
    assert ask(millrace, 'CREATE STREAM %s (id BIGINT, word TEXT)' % name)[2] == [{'done': 'CREATE STREAM', 'name': name}]
    publish.name = name
    yield publish
    connection.close()
    assert ask(millrace, 'DROP STREAM ' + name)[2] == [{'done': 'DROP STREAM', 'name': name}]


def rows_of(lines):
    return [line['row'] for line in lines if 'row' in line]


def test_rows(millrace, stream):
    stream({'id': 1, 'word': 'one'}, {'id': 2, 'word': 'zwei "2"\n'}, {'id': 3})
    status, headers, lines = ask(millrace, 'SELECT id, word FROM %s; SELECT count(*) AS n FROM %s' % (stream.name, stream.name))
    assert status == 200 and headers['Content-Type'] == 'application/x-ndjson' and headers['Transfer-Encoding'] == 'chunked'
    assert lines == [{'statement': 0, 'columns': [{'name': 'id', 'type': 'BIGINT'}, {'name': 'word', 'type': 'TEXT'}]},
                     {'row': [1, 'one']}, {'row': [2, 'zwei "2"\n']}, {'row': [3, None]}, {'done': 'SELECT', 'rows': 3},
                     {'statement': 1, 'columns': [{'name': 'n', 'type': 'BIGINT'}]}, {'row': [3]}, {'done': 'SELECT', 'rows': 1}]


def test_a_body_of_json(millrace, stream):
    stream({'id': 7, 'word': 'é'})
    body = json.dumps({'sql': "SELECT id FROM %s WHERE word = 'é'" % stream.name, 'options': {}})
    assert rows_of(ask(millrace, body, {'Content-Type': 'application/json'})[2]) == [[7]]


def test_csv(millrace, stream):
    words = ['plain', 'a "quote", and a comma', 'two\r\nlines', '', 'κόσμε', 'x' * 70000, None]
    stream(*({'id': i, 'word': w} for i, w in enumerate(words)))
    c = http.client.HTTPConnection('127.0.0.1', millrace.http_port, timeout=30)
    c.request('POST', '/sql', 'SELECT id, word FROM ' + stream.name, {**SQL, 'Accept': 'text/csv'})
    answer = c.getresponse()
    assert answer.headers['Content-Type'] == 'text/csv; charset=utf-8'
    assert list(csv.reader(io.StringIO(answer.read().decode(), newline=''))) == [['id', 'word']] + [[str(i), w or ''] for i, w in enumerate(words)]
    c.close()


def test_an_error_says_where(millrace, stream):
    status, headers, lines = ask(millrace, 'SELECT id,\n  wort FROM ' + stream.name)
    assert status == 400 and headers['Content-Type'] == 'application/json' and len(lines) == 1
    error = lines[0]['error']
    assert (error['code'], error['line'], error['column']) == ('42703', 2, 3) and 'word' in error['hint'] and '^~~~' in error['text']
    status, _, lines = ask(millrace, 'SELECT id FROM %s; SELECT nix FROM %s; SELECT id FROM %s' % (3 * (stream.name,)))
    assert status == 200 and lines[-2] == {'done': 'SELECT', 'rows': 0} and lines[-1]['error']['code'] == '42703'
    status, _, lines = ask(millrace, 'SELECT id FROM %s; SELEKT 1' % stream.name)       # what is no SQL at all is seen first
    assert status == 400 and lines[0]['error']['code'] == '42601'


def test_rights(millrace, stream):
    stream({'id': 1})
    assert ask(millrace, 'SELECT id FROM ' + stream.name, as_user('mr-none', 'none-secret'))[0] == 403
    lines = ask(millrace, 'SELECT id FROM ' + stream.name, as_user('mr-perm', 'perm-secret'))[2]
    assert 'error' in lines[-1] and not rows_of(lines)
    lines = ask(millrace, 'CREATE STREAM sh_not_mine (id BIGINT)', as_user('mr-perm', 'perm-secret'))[2]
    assert 'error' in lines[-1]


def test_at_every_byte(millrace, stream):
    """A request cut anywhere, and one behind the other."""
    stream({'id': 5, 'word': 'w'})
    text = ('SELECT id FROM ' + stream.name).encode()
    one = b'POST /sql HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n'
    known, chunked = one + b'Content-Length: %d\r\n\r\n' % len(text) + text, one + b'Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n' % (len(text), text)
    both = known + chunked
    with socket.create_connection(('127.0.0.1', millrace.http_port), timeout=30) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for cut in range(1, len(both)):
            s.sendall(both[:cut])
            s.sendall(both[cut:])
            said = b''
            while said.count(b'0\r\n\r\n') < 2:
                said += s.recv(65536)
            assert said.count(b'HTTP/1.1 200 OK') == 2 and said.count(b'{"row":[5]}\n') == 2, cut


def test_a_client_of_http_1_0(millrace, stream):
    stream({'id': 9})
    text = b'SELECT id FROM ' + stream.name.encode()
    with socket.create_connection(('127.0.0.1', millrace.http_port), timeout=30) as s:
        s.sendall(b'POST /sql HTTP/1.0\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s' % (len(text), text))
        said = b''
        while more := s.recv(65536):
            said += more
    head, _, body = said.partition(b'\r\n\r\n')
    assert b'chunked' not in head and [json.loads(line) for line in body.splitlines()][1:] == [{'row': [9]}, {'done': 'SELECT', 'rows': 1}]


# ---- queries that do not end -----------------------------------------------------------------------

class Live:
    def __init__(self, broker, text, headers=None):
        self.c = http.client.HTTPConnection('127.0.0.1', broker.http_port, timeout=30)
        self.c.request('POST', '/sql', text, {**SQL, **(headers or {})})
        self.answer = self.c.getresponse()
        self.first = self.line()

    def line(self):
        return json.loads(self.answer.readline())

    def close(self):
        self.answer.close()
        self.c.close()


def test_rows_come_when_they_are_there(millrace, stream):
    live = Live(millrace, 'SELECT id FROM %s EMIT CHANGES' % stream.name)
    assert live.first['columns'] == [{'name': 'id', 'type': 'BIGINT'}]
    for i in range(20):
        stream({'id': i})
        assert live.line() == {'row': [i]}
    live.close()


def test_who_goes_away_stops_the_query(millrace, stream):
    """More of them, one after the other, than may run at a time."""
    for i in range(200):
        live = Live(millrace, 'SELECT id FROM %s EMIT CHANGES' % stream.name)
        assert 'columns' in live.first, i
        live.close()


# What a sanitizer keeps of freed memory, and around the rest, is not the broker's.
ROOM = (60 if os.environ.get('MILLRACE_FLAVOUR', 'release') == 'release' else 1500) << 20


def test_a_reader_that_sleeps(millrace, stream):
    """What it does not read is not kept for it, and it gets all of it when it wakes up."""
    count, word = 300, 'y' * 50000
    stream(*({'id': i, 'word': word} for i in range(count)))
    live = Live(millrace, 'SELECT id, word FROM %s EMIT CHANGES' % stream.name)
    before = millrace.rss_bytes()
    others = [Live(millrace, 'SELECT id, word FROM %s EMIT CHANGES' % stream.name) for _ in range(8)]
    for _ in range(30):                                     # the broker has had every chance
        assert ask(millrace, 'SELECT count(*) FROM ' + stream.name)[2][1] == {'row': [count]}
        assert millrace.rss_bytes() - before < ROOM
    for i in range(count):
        assert live.line() == {'row': [i, word]}
    live.close()
    for other in others:
        other.close()


def test_a_user_that_is_deleted(millrace, stream):
    millrace.cli('user', 'add', 'sh-gone', 'secret')
    millrace.cli('permission', 'set', 'sh-gone', '.*', '.*', '.*')
    live = Live(millrace, 'SELECT id FROM %s EMIT CHANGES' % stream.name, as_user('sh-gone', 'secret'))
    assert 'columns' in live.first
    millrace.cli('user', 'delete', 'sh-gone')
    assert live.line()['error']['code'] == '57P01' and live.answer.readline() == b''
    live.close()
