"""POST /sql by http.client and curl's habits: who is let in, what is refused and how, and bytes that no library would send."""

import base64
import http.client
import json
import socket

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
