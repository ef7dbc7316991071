"""The HTTP listener and WebSockets, by clients that are not ours: http.client, python3-websockets behind websocket_wire.py; and bytes
that no library would send.  What is in the frames is AMQP here; other protocols have their own tests with transport=websockets."""

import email.utils
import http.client
import json
import os
import re
import select
import socket
import ssl
import struct
import threading
import time
import zlib

import paho.mqtt.client as mqtt
import pytest
from websockets.frames import Opcode

import brokers
import websocket_wire
import wire
from websocket_wire import Refused, Web, WebSocket, raw_frame


def get(broker, path, method='GET', body=None, headers=None, connection=None):
    c = connection or http.client.HTTPConnection('127.0.0.1', broker.http_port, timeout=10)
    c.request(method, path, body, headers or {})
    answer = c.getresponse()
    text = answer.read()
    if not connection:
        c.close()
    return answer.status, answer.headers, text


# ---- HTTP ----------------------------------------------------------------------------------------

def test_paths(millrace):
    status, headers, text = get(millrace, '/')
    assert status == 200 and headers['Content-Type'].startswith('text/plain') and b'Millrace' in text
    assert get(millrace, '/health')[0::2] == (200, b'{"status":"ok"}\n')
    status, headers, text = get(millrace, '/api/overview')
    assert status == 404 and json.loads(text)['error'] == 'not_found' and headers['Content-Type'] == 'application/json'
    assert get(millrace, '/health', 'HEAD')[2] == b''
    status, headers, _ = get(millrace, '/health', 'DELETE')
    assert status == 405 and headers['Allow'] == 'GET, HEAD'
    assert abs(time.time() - http_time(headers['Date'])) < 100


def http_time(text):
    return email.utils.parsedate_to_datetime(text).timestamp()


def test_one_connection_for_many_requests(millrace):
    c = http.client.HTTPConnection('127.0.0.1', millrace.http_port, timeout=10)
    for i in range(200):
        if i % 3 == 2:
            assert get(millrace, '/x', 'POST', iter([b'some', b'chunks' * i]), connection=c)[0] == 404
        elif i % 3:
            assert get(millrace, '/health', 'PUT', b'x' * i, connection=c)[0] == 405
        else:
            assert get(millrace, '/health', connection=c)[0] == 200
        assert c.sock is not None                           # it was not closed in between
    c.close()


@pytest.mark.parametrize('request_bytes, status', [
    (b'GET / HTTP/1.1\r\n\r\n', 400),
    (b'GET / HTTP/1.1\nHost: a\n\n', 400),
    (b'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n', 400),
    (b'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!', 400),
    (b'GET / HTTP/1.1\r\nHost: a\r\nX: ' + b'y' * 20000 + b'\r\n\r\n', 431),
    (b'GET /' + b'y' * 9000 + b' HTTP/1.1\r\nHost: a\r\n\r\n', 414),
    (b'GET / HTTP/2.0\r\nHost: a\r\n\r\n', 505),
])
def test_malformed_requests_end_the_connection(millrace, request_bytes, status):
    with socket.create_connection(('127.0.0.1', millrace.http_port), timeout=10) as s:
        s.sendall(request_bytes + b'GET /health HTTP/1.1\r\nHost: a\r\n\r\n')
        said = b''
        while True:
            more = s.recv(65536)
            if not more:
                break
            said += more
    assert said.startswith(b'HTTP/1.1 %d ' % status) and said.count(b'HTTP/1.1 ') <= 2 and b'200 OK' not in said


# ---- AMQP within a WebSocket ---------------------------------------------------------------------

def open_web(broker, **kw):
    w = Web(broker.http_port, **kw)
    w.open()
    w.channel(1)
    return w


def publish_and_get(w, queue, bodies):
    w.call(1, 'queue.declare', queue=queue)
    w.call(1, 'confirm.select')
    for body in bodies:
        w.publish(1, '', queue, body, headers={'n': len(body)})
        assert w.take(1, ['basic.ack']).name == 'basic.ack'
    w.call(1, 'basic.consume', queue=queue, no_ack=True, consumer_tag='c')
    for body in bodies:
        message = w.take(1, ['basic.deliver'])
        assert message.body == body and message.properties['headers'] == {'n': wire.V('I', len(body))}
    assert w.call(1, 'basic.cancel', consumer_tag='c').name == 'basic.cancel-ok'
    w.call(1, 'queue.delete', queue=queue)


BODIES = [b'', b'x', b'\xff' * 125, bytes(range(256)) * 256, bytes(range(250)) * 14000]      # the last: 3.5 MB


@pytest.mark.parametrize('fragment', [0, 1000, 65536])
def test_messages_of_every_size(millrace, fragment):
    w = open_web(millrace, fragment=fragment)
    publish_and_get(w, 'ws-%d' % fragment, BODIES)
    w.close()


def test_every_byte_a_frame(millrace):
    w = open_web(millrace, fragment=1)
    publish_and_get(w, 'ws-bytes', [b'hello', b'y' * 700])
    w.close()


def test_as_over_tcp(millrace):
    """What a client is told of its connection does not depend on what is around it."""
    web, tcp = Web(millrace.http_port), wire.Wire('127.0.0.1', millrace.port)
    assert web.start() == tcp.start()
    web.close(), tcp.close()


def test_a_wrong_password_is_told(millrace):
    w = Web(millrace.http_port)
    w.start()
    answer = w.login('guest', 'wrong', properties={'capabilities': {'authentication_failure_close': True}})
    assert answer.name == 'connection.close' and answer.reply_code == 403
    w.send_method(0, 'connection.close-ok')
    assert w.sock.closed_with() == 1000


def test_close_on_both_levels(millrace):
    w = open_web(millrace)
    w.send_method(0, 'connection.close', reply_code=200, reply_text='bye')
    assert w.take(0, ['connection.close-ok']).name == 'connection.close-ok'
    assert w.sock.closed_with() == 1000


def test_what_was_not_acknowledged_comes_back(millrace):
    first = open_web(millrace)
    first.call(1, 'queue.declare', queue='ws-back')
    first.publish(1, '', 'ws-back', b'once')
    first.call(1, 'basic.consume', queue='ws-back', consumer_tag='c')
    assert first.take(1, ['basic.deliver']).redelivered is False
    first.sock.sock.sendall(raw_frame(0x82, b'\x01\x00\x01', length=5000))         # cut within a frame
    first.sock.close()
    second = open_web(millrace)
    brokers.wait_until(lambda: second.call(1, 'queue.declare', queue='ws-back', passive=True).message_count == 1, 10, 'requeued')
    second.call(1, 'basic.consume', queue='ws-back', consumer_tag='c')
    assert second.take(1, ['basic.deliver']).redelivered is True
    second.call(1, 'queue.delete', queue='ws-back')
    second.close()


def test_a_reader_that_sleeps(millrace):
    """Its messages wait in the broker as those of a TCP client do, and come whole and in order when it wakes up."""
    count, body = 60, bytes(range(250)) * 400
    reader = open_web(millrace, timeout=30)
    reader.call(1, 'queue.declare', queue='ws-slow')
    reader.call(1, 'basic.consume', queue='ws-slow', no_ack=True, consumer_tag='c')
    writer = millrace.wire(30)
    writer.channel(1)
    writer.call(1, 'confirm.select')
    for i in range(count):
        writer.publish(1, '', 'ws-slow', struct.pack('>I', i) + body)
    acked = 0
    while acked < count:
        ack = writer.take(1, ['basic.ack'])
        acked = ack.delivery_tag if ack.multiple else acked + 1
    for i in range(count):
        assert reader.take(1, ['basic.deliver']).body == struct.pack('>I', i) + body
    reader.call(1, 'queue.delete', queue='ws-slow')
    reader.close(), writer.close()


def test_many_at_once(millrace):
    clients = [open_web(millrace) for _ in range(100)]
    for i, w in enumerate(clients):
        w.call(1, 'queue.declare', queue='ws-many-%d' % i, exclusive=True)
        w.publish(1, '', 'ws-many-%d' % ((i * 7) % 100), b'%d' % i) if i * 7 < 100 else None
    for w in clients:
        w.close()


def test_on_any_port(millrace):
    """Every port recognises HTTP, and so WebSockets."""
    w = Web(millrace.port)
    w.open()
    w.close()
    assert http.client.HTTPConnection('127.0.0.1', millrace.kafka_port, timeout=10).request('GET', '/health') is None


# ---- the handshake -------------------------------------------------------------------------------

@pytest.mark.parametrize('path, offered, chosen', [
    ('/ws', None, None), ('/', None, None), ('/ws/amqp', None, None), ('/ws', ['amqp'], 'amqp'), ('/ws', ['x', 'amqp'], 'amqp'),
])
def test_subprotocols(millrace, path, offered, chosen):
    w = WebSocket(millrace.http_port, path, offered)
    assert w.protocol == chosen
    w.send(wire.PROTOCOL_HEADER)
    assert w.frame().data[7:11] == struct.pack('>HH', 10, 10)      # connection.start
    w.close()


@pytest.mark.parametrize('kw, status', [
    ({'subprotocols': ['soap']}, 400), ({'path': '/other'}, 404), ({'origin': 'https://evil.example'}, 403), ({'origin': 'null'}, 403),
])
def test_refused(millrace, kw, status):
    with pytest.raises(Refused) as e:
        WebSocket(millrace.http_port, **kw)
    assert e.value.status == status and json.loads(e.value.body)['reason']


def test_a_page_of_this_machine_may(millrace):
    WebSocket(millrace.http_port, origin='http://localhost:3000').close()


def test_origins_that_are_allowed():
    broker = brokers.Millrace(args=('--set', 'websocket.origins=https://a.example https://b.example:8443'))
    try:
        broker.start()
        WebSocket(broker.http_port, origin='https://b.example:8443').close()
        WebSocket(broker.http_port).close()                 # no browser
        for origin in ('https://a.example:8443', 'http://a.example', 'http://localhost'):
            with pytest.raises(Refused):
                WebSocket(broker.http_port, origin=origin)
    finally:
        broker.remove()


# ---- permessage-deflate (RFC 7692) ---------------------------------------------------------------

def records(n):
    return b''.join(b'{"device":%d,"temperature":%d.%d,"state":"%s"}\n' % (i * 7919 % 211, i * 31 % 40, i % 10, b'on' if i % 3 else b'off')
                    for i in range(n))


CUTS = [0, 1, 3]
RELEASE = os.environ.get('MILLRACE_FLAVOUR', 'release') == 'release'      # sanitizers keep what was freed
PACKS = {}                                                  # as the library offers it, and Chromium: client_max_window_bits


@pytest.mark.parametrize('packs, fragment', [
    (PACKS, 0), (PACKS, 1), (PACKS, 1000), ({'server_max_window_bits': 9, 'client_max_window_bits': 9}, 0),
    ({'client_max_window_bits': None, 'server_no_context_takeover': True}, 0),
])
def test_packed_messages(millrace, packs, fragment):
    w = open_web(millrace, packs=packs, fragment=fragment)
    assert len(w.sock.packed) == 1
    bodies = [b'', b'x', records(40)] if fragment == 1 else [b'', b'x', records(40), os.urandom(100000), records(10000), bytes(1000000)]
    publish_and_get(w, 'ws-packed-%d' % fragment, bodies)
    assert fragment == 1 or w.sock.came < sum(map(len, bodies)) / 4
    w.close()


def test_packed_stomp(millrace):
    s = Stomp(15674 + millrace.offset, subprotocols=['v12.stomp'], packs=PACKS)
    destination = '/queue/ws-packed-%s' % os.urandom(4).hex()
    s.send('SUBSCRIBE', id='0', destination=destination)
    for body in (b'hello', 'κόσμε 🐘'.encode() * 20000, records(3000)):
        s.send('SEND', body, destination=destination, content_length=len(body))
        assert s.next()[2] == body
    assert set(s.kinds) == {Opcode.TEXT} and s.ws.came < 60000
    s.ws.close()


class Tunnel(threading.Thread):
    """For clients that know no compression: a TCP port behind which bytes go through a WebSocket that packs."""

    def __init__(self, port, **kw):
        super().__init__(daemon=True)
        self.ws = WebSocket(port, packs=PACKS, **kw)
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.listener.settimeout(10)
        self.port, self.sent = self.listener.getsockname()[1], 0
        self.start()

    def run(self):
        peer, _ = self.listener.accept()
        with self.listener, peer, self.ws:
            while True:
                for ready in select.select([peer, self.ws.sock], [], [])[0]:
                    if ready is peer:
                        data = peer.recv(65536)
                        self.ws.send(data) if data else None
                    else:
                        data = self.ws.recv(0)
                        peer.sendall(data)
                        self.sent += len(data)
                    if not data:
                        return


def test_packed_mqtt(millrace):
    """paho's MQTT through a WebSocket that packs both ways."""
    tunnel = Tunnel(15675 + millrace.offset, subprotocols=['mqtt'])
    got, ready = [], []
    client = mqtt.Client('ws-packed-%s' % os.urandom(4).hex())
    client.username_pw_set('guest', 'guest')
    client.on_message = lambda _c, _u, m: got.append(m.payload)
    client.on_subscribe = lambda *_: ready.append(1)
    client.connect('127.0.0.1', tunnel.port)
    client.loop_start()
    try:
        topic = 'ws/packed/%s' % os.urandom(4).hex()
        client.subscribe(topic, 2)
        brokers.wait_until(lambda: ready, 10, 'subscribed')
        sent = [b'm' * n for n in (0, 10, 600)] + [records(n) for n in (20, 2000, 20000)]
        for i, payload in enumerate(sent):
            client.publish(topic, payload, i % 3)
        brokers.wait_until(lambda: len(got) == len(sent), 20, 'all messages')
        assert sorted(got) == sorted(sent)
        assert tunnel.ws.came < tunnel.sent / 2
    finally:
        client.disconnect()
        client.loop_stop()
        tunnel.join(10)


@pytest.mark.parametrize('setting, tls, packed', [
    ('never', False, False), ('without_tls', True, False), ('always', True, True),
])
def test_who_may_pack(setting, tls, packed):
    broker = brokers.Millrace(args=('--dev-tls', '--set', 'websocket.compression=' + setting))
    try:
        broker.start()
        trust = ssl.create_default_context(cafile=os.path.join(broker.data, 'dev-tls', 'ca.pem')) if tls else None
        w = open_web(broker, tls=trust, packs=PACKS)
        assert bool(w.sock.packed) == packed
        publish_and_get(w, 'ws-who', [b'', records(1000)])
        w.close()
    finally:
        broker.remove()


def deflated(data, before=b''):
    z = zlib.compressobj(9, zlib.DEFLATED, -12, zdict=before)
    return (z.compress(data) + z.flush(zlib.Z_SYNC_FLUSH))[:-4]


BEGIN = deflated(wire.PROTOCOL_HEADER)
LOOKS_BACK = deflated(wire.PROTOCOL_HEADER, wire.PROTOCOL_HEADER)            # at the message before


@pytest.mark.parametrize('cut', CUTS)
@pytest.mark.parametrize('data, code', [
    (raw_frame(0xe2, BEGIN), 1002), (raw_frame(0xd2, BEGIN), 1002), (raw_frame(0xc9), 1002), (raw_frame(0xc8), 1002),
    (raw_frame(0x42, BEGIN[:3]) + raw_frame(0xc0, BEGIN[3:]), 1002), (raw_frame(0x02, b'AM') + raw_frame(0xc0, b'QP'), 1002),
    (raw_frame(0xc2, b'\xff'), 1002), (raw_frame(0xc2, b'\0\x10'), 1002), (raw_frame(0xc2, LOOKS_BACK), 1002),
    (raw_frame(0xc2, BEGIN, mask=None), 1002), (raw_frame(0xc1, BEGIN), 1003), (raw_frame(0xc2, b'', length=1 << 62), 1009),
])
def test_rules_of_packing(millrace, data, code, cut):
    w = WebSocket(millrace.http_port, packs=PACKS)
    w.sock.sendall(raw_frame(0xc2, b'\0'))                  # a message of nothing
    for i in range(0, len(data), cut or len(data)):
        w.sock.sendall(data[i:i + (cut or len(data))])
    assert w.closed_with() == code
    w.close()
    assert get(millrace, '/health')[0] == 200


def test_every_byte_a_packed_frame(millrace):
    """The same message in frames of a byte each, with pings between."""
    w = WebSocket(millrace.http_port, packs=PACKS)
    data = deflated(wire.PROTOCOL_HEADER)
    w.sock.sendall(raw_frame(0x42))
    for i in range(len(data)):
        w.sock.sendall(raw_frame(0x00, data[i:i + 1]) + raw_frame(0x89, b'%d' % i))
    w.sock.sendall(raw_frame(0x80))
    frames = [w.frame() for _ in range(len(data) + 1)]
    assert [f.data for f in frames if f.opcode == Opcode.PONG] == [b'%d' % i for i in range(len(data))]
    assert [f.data[7:11] for f in frames if f.opcode == Opcode.BINARY] == [struct.pack('>HH', 10, 10)]
    w.close()


def peak_bytes(broker):
    with open('/proc/%d/status' % broker.process.pid) as f:
        return int(re.search(r'VmHWM:\s+(\d+) kB', f.read())[1]) * 1024


@pytest.mark.parametrize('megabytes, code', [(8, None), (24, 1009)])
def test_a_bomb(fresh_millrace, megabytes, code):
    """Some kilobytes that become megabytes of heartbeats: unpacked as far as they are read, up to the limit of a message."""
    z = zlib.compressobj(9, zlib.DEFLATED, -12)
    beats = b'\x08\0\0\0\0\0\0\xce' * (1 << 17)
    bomb = b''.join(z.compress(beats) for _ in range(megabytes)) + z.flush(zlib.Z_SYNC_FLUSH)[:-4]
    clients = [open_web(fresh_millrace, packs=PACKS) for _ in range(3)]
    before = peak_bytes(fresh_millrace)
    for w in clients:
        w.sock.sock.sendall(raw_frame(0xc2, bomb))
    for w in clients:
        if code:
            assert w.sock.closed_with() == code
        else:
            w.call(1, 'queue.declare', exclusive=True)
        w.sock.close()
    assert get(fresh_millrace, '/health')[0] == 200
    assert not RELEASE or peak_bytes(fresh_millrace) < before + (8 << 20)


def test_packing_costs_the_silent_nothing(fresh_millrace):
    """What a connection that has packed and unpacked holds afterwards is what one holds that never did."""
    def held():
        return fresh_millrace.status()['memory_connections']

    def grown(packs):
        brokers.wait_until(lambda: fresh_millrace.cli('list', 'connections', '--json').strip() == '[]', 10, 'closed')
        before = held()
        clients = [open_web(fresh_millrace, packs=packs) for _ in range(30)]
        for i, w in enumerate(clients):
            publish_and_get(w, 'ws-silent-%d' % i, [records(100)])
        after = held()
        for w in clients:
            w.close()
        return (after - before) / len(clients)
    grown(PACKS)                                            # what the loop keeps for all
    assert grown(PACKS) < grown(None) + 300


# ---- what RFC 6455 and Autobahn ask of a server --------------------------------------------------

def end_of(w, data):
    """Sends raw bytes; what the server's close frame said."""
    w.sock.sendall(data)
    return w.closed_with()


@pytest.mark.parametrize('cut', CUTS)
@pytest.mark.parametrize('data, code', [
    (raw_frame(0x82, b'AMQP', mask=None), 1002),
    (raw_frame(0xc2, b'AMQP'), 1002), (raw_frame(0xa2), 1002), (raw_frame(0x92), 1002),
    (raw_frame(0x83), 1002), (raw_frame(0x87), 1002), (raw_frame(0x8b), 1002), (raw_frame(0x8f, b'x'), 1002),
    (raw_frame(0x89, b'x' * 126), 1002), (raw_frame(0x09, b'x'), 1002), (raw_frame(0x08, b''), 1002),
    (raw_frame(0x80, b'x'), 1002), (raw_frame(0x02, b'AM') + raw_frame(0x82, b'QP'), 1002),
    (raw_frame(0x81, b'text'), 1003), (raw_frame(0x01, b'text'), 1003),
    (raw_frame(0x82, b'', length=1 << 62), 1009), (raw_frame(0x82, b'', length=20 << 20), 1009),
    (raw_frame(0x88, b'x'), 1002), (raw_frame(0x88, b'\x03\xe7'), 1002), (raw_frame(0x88, b'\x03\xec'), 1002),
    (raw_frame(0x88, b'\x03\xed'), 1002), (raw_frame(0x88, b'\x03\xee'), 1002), (raw_frame(0x88, b'\x04\x4c'), 1002),
    (raw_frame(0x88, b'\x07\xd0'), 1002), (raw_frame(0x88, b'\x0b\xb7'), 1002), (raw_frame(0x88, b'\x03\xe8\xce\xba\xe1'), 1007),
    (raw_frame(0x88, b'\x03\xe8bye'), 1000), (raw_frame(0x88, b'\x0b\xb8'), 3000), (raw_frame(0x88, b'\x13\x87'), 4999),
    (raw_frame(0x88), 1005),         # 1005: no code at all
])
def test_rules(millrace, data, code, cut):
    w = WebSocket(millrace.http_port)
    if cut:
        for i in range(0, len(data), cut):
            w.sock.sendall(data[i:i + cut])
        assert w.closed_with() == code
    else:
        assert end_of(w, data + raw_frame(0x89, b'unheard')) == code
    assert all(f.opcode == Opcode.CLOSE for f in w.events)
    w.close()
    assert get(millrace, '/health')[0] == 200


def test_pings(millrace):
    w = WebSocket(millrace.http_port)
    for payload in (b'', b'hello', b'\xff' * 125):
        w.sock.sendall(raw_frame(0x89, payload))
        frame = w.frame()
        assert (frame.opcode, frame.data) == (Opcode.PONG, payload)
    w.sock.sendall(raw_frame(0x8a, b'unasked') + raw_frame(0x02, b'AM') + raw_frame(0x89, b'between') + raw_frame(0x00, b'') +
                   raw_frame(0x80, b'QP\0\0\x09\x01'))
    assert [w.frame().opcode, w.frame().opcode] == [Opcode.PONG, Opcode.BINARY]
    w.close()


def test_the_server_pings_who_is_silent():
    broker = brokers.Millrace(args=('--set', 'websocket.ping=100'))
    try:
        broker.start()
        w = WebSocket(broker.http_port)
        w.send(wire.PROTOCOL_HEADER)
        assert [w.frame().opcode for _ in range(4)] == [Opcode.BINARY] + 3 * [Opcode.PING]
        w.close()
    finally:
        broker.remove()


def test_the_broker_stops(fresh_millrace):
    w = open_web(fresh_millrace)
    ends = [WebSocket(fresh_millrace.http_port) for _ in range(3)]
    fresh_millrace.process.terminate()
    close = w.take(0, ['connection.close'])
    assert close.reply_code == 320
    w.send_method(0, 'connection.close-ok')
    assert w.sock.closed_with() == 1001
    for idle in ends:
        assert idle.closed_with() == 1001
    assert fresh_millrace.process.wait(10) == 0


def test_within_tls():
    """wss: on its own port, and on the plain one."""
    broker = brokers.Millrace(args=('--dev-tls',))
    try:
        broker.start()
        tls = ssl.create_default_context(cafile=os.path.join(broker.data, 'dev-tls', 'ca.pem'))
        for port in (broker.http_port - 1, broker.http_port):
            with WebSocket(port, tls=tls) as idle:
                assert idle.protocol is None
            w = Web(port, tls=tls)
            w.open()
            w.channel(1)
            publish_and_get(w, 'ws-tls', [b'', b'x' * 300000])
            w.close()
    finally:
        broker.remove()


def test_without_http():
    broker = brokers.Millrace(args=('--set', 'listen.http=', '--set', 'listen.web_stomp=', '--set', 'listen.web_mqtt='))
    try:
        broker.start()
        with pytest.raises(ConnectionRefusedError):
            WebSocket(broker.http_port)
        with socket.create_connection(('127.0.0.1', broker.port), timeout=10) as s:       # nor on another's port
            s.sendall(b'GET /health HTTP/1.1\r\nHost: a\r\n\r\n')
            assert s.recv(100)[:4] == b'AMQP'
    finally:
        broker.remove()


def test_three_loops():
    broker = brokers.Millrace(args=('--set', 'loops=3'))
    try:
        broker.start()
        clients = [open_web(broker) for _ in range(6)]
        for i, w in enumerate(clients):
            publish_and_get(w, 'ws-loops-%d' % i, [b'x' * i, b'y' * 200000])
        for w in clients:
            w.close()
    finally:
        broker.remove()


# ---- other protocols within WebSockets -----------------------------------------------------------

def stomp(command, body=b'', **headers):
    head = ''.join('%s:%s\n' % (k.replace('_', '-'), v) for k, v in headers.items())
    return ('%s\n%s\n' % (command, head)).encode() + body + b'\0'


class Stomp:
    """A STOMP client that sends one frame a message and joins what comes."""

    def __init__(self, port, text=True, **kw):
        self.ws, self.text, self.kinds, self.bytes = WebSocket(port, **kw), text, [], b''
        self.send('CONNECT', accept_version='1.2', host='/', login='guest', passcode='guest')
        assert self.next()[0] == 'CONNECTED'

    def send(self, command, body=b'', **headers):
        self.ws.send(stomp(command, body, **headers), self.text)

    def next(self):
        while True:
            self.bytes = self.bytes.lstrip(b'\n')
            head, sep, rest = self.bytes.partition(b'\n\n')
            lines = head.decode().split('\n')
            headers = dict(line.split(':', 1) for line in lines[1:])
            length = int(headers.get('content-length', -1)) if sep else -1
            end = length if length >= 0 else rest.find(b'\0') if sep else -1
            if end >= 0 and len(rest) > end:
                self.bytes = rest[end + 1:]
                return lines[0], headers, rest[:end]
            frame = self.ws.frame()
            if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
                self.kinds.append(frame.opcode)
                self.bytes += frame.data


@pytest.mark.parametrize('where, kw', [
    (15674, {'subprotocols': ['v12.stomp']}), (15674, {}), (15672, {'subprotocols': ['v11.stomp', 'v12.stomp']}), (15672, {'path': '/ws/stomp'}),
])
def test_stomp(millrace, where, kw):
    s = Stomp(where + millrace.offset, **kw)
    destination = '/queue/ws-stomp-%s' % os.urandom(4).hex()
    s.send('SUBSCRIBE', id='0', destination=destination)
    for body in ('hello κόσμε'.encode(), b'x' * 200000, '🐘'.encode() * 50000):
        s.send('SEND', body, destination=destination, content_length=len(body))
        command, headers, got = s.next()
        assert (command, got) == ('MESSAGE', body)
    assert set(s.kinds) == {Opcode.TEXT}
    s.send('DISCONNECT', receipt='bye')
    assert s.next()[:2] == ('RECEIPT', {'receipt-id': 'bye'})
    assert s.ws.closed_with() == 1000


def test_stomp_what_is_no_text(millrace):
    """A body that is not UTF-8 leaves in binary frames, also to a client that sends text; to one that sends binary all does."""
    s = Stomp(15674 + millrace.offset)
    s.send('SUBSCRIBE', id='0', destination='/queue/ws-stomp-binary')
    w = millrace.wire()
    w.channel(1)
    w.publish(1, '', 'ws-stomp-binary', b'\xff\xfe\0\x01')
    assert s.next()[2] == b'\xff\xfe\0\x01'
    assert s.kinds[-1] == Opcode.BINARY
    other = Stomp(15674 + millrace.offset, text=False)
    assert set(other.kinds) == {Opcode.BINARY}
    w.call(1, 'queue.delete', queue='ws-stomp-binary')
    for c in (s.ws, other.ws, w):
        c.close()


def test_stomp_text_that_is_none(millrace):
    s = Stomp(15674 + millrace.offset)
    s.ws.sock.sendall(raw_frame(0x81, b'SEND\ndestination:/queue/x\n\n\xff\0'))
    assert s.ws.closed_with() == 1007


@pytest.mark.parametrize('where, path', [(15675, '/ws'), (15672, '/ws'), (15672, '/ws/mqtt'), (1883, '/')])
def test_mqtt(millrace, where, path):
    """paho.mqtt's own WebSockets, QoS 0 to 2, small and large."""
    messages, ready = [], []
    client = mqtt.Client('ws-%s' % os.urandom(4).hex(), transport='websockets')
    client.ws_set_options(path=path)
    client.username_pw_set('guest', 'guest')
    client.on_message = lambda _c, _u, m: messages.append((m.topic, m.payload, m.qos))
    client.on_subscribe = lambda *_: ready.append(1)
    client.connect('127.0.0.1', where + millrace.offset)
    client.loop_start()
    topic = 'ws/%s' % os.urandom(4).hex()
    try:
        brokers.wait_until(client.is_connected, 10, 'connected')
        client.subscribe(topic + '/#', 2)
        brokers.wait_until(lambda: ready, 10, 'subscribed')
        sent = [('%s/%d' % (topic, qos), b'%d' % n + b'm' * size, qos) for n, (qos, size) in
                enumerate((q, s) for q in (0, 1, 2) for s in (0, 100, 70000, 300000))]
        for t, payload, qos in sent:
            client.publish(t, payload, qos)
        brokers.wait_until(lambda: len(messages) == len(sent), 20, 'all messages')
        assert sorted(messages) == sorted(sent)
    finally:
        client.disconnect()
        client.loop_stop()


def test_mqtt_is_binary(millrace):
    w = WebSocket(15675 + millrace.offset, subprotocols=['mqtt'])
    assert w.protocol == 'mqtt'
    w.send(b'text', text=True)
    assert w.closed_with() == 1003
