"""STOMP clients against the broker under test: stomp.py, raw sockets, and other protocols on the other side."""

import subprocess
import threading
import time

import pika
import pytest
import stomp

import brokers
from stomp_wire import Closed, Stomp, encode

CLASSES = {'1.0': stomp.StompConnection10, '1.1': stomp.StompConnection11, '1.2': stomp.StompConnection12}


class Listener(stomp.ConnectionListener):
    def __init__(self):
        self.frames = []
        self.changed = threading.Condition()

    def _add(self, kind, frame):
        with self.changed:
            self.frames.append((kind, frame.headers if frame else None, frame.body if frame else None))
            self.changed.notify_all()

    def on_message(self, frame):
        self._add('message', frame)

    def on_receipt(self, frame):
        self._add('receipt', frame)

    def on_error(self, frame):
        self._add('error', frame)

    def on_disconnected(self):
        self._add('disconnected', None)

    def wait(self, kind, count=1, timeout=10):
        def found():
            return [f for f in self.frames if f[0] == kind]
        with self.changed:
            assert self.changed.wait_for(lambda: len(found()) >= count, timeout), (kind, count, self.frames)
        return found()


def connect(port, version='1.2', **kw):
    connection = CLASSES[version]([('127.0.0.1', port)], **({} if version == '1.0' else {'vhost': '/'}), **kw)
    listener = Listener()
    connection.set_listener('', listener)
    connection.connect('guest', 'guest', wait=True)
    return connection, listener


def raw(broker, version='1.2', **headers):
    client = Stomp(broker.stomp_port)
    assert client.connect(version, **headers).command == 'CONNECTED'
    return client


def pika_channel(broker):
    connection = pika.BlockingConnection(pika.ConnectionParameters('127.0.0.1', broker.port))
    return connection.channel()


# ---- stomp.py

@pytest.mark.parametrize('version', CLASSES)
def test_stomp_py_sends_and_receives(millrace, version):
    connection, seen = connect(millrace.stomp_port, version)
    queue = '/queue/py-%s' % version
    connection.subscribe(queue, id='1', ack='client-individual', headers={'receipt': 'subscribed'})
    seen.wait('receipt')
    connection.send(queue, 'grüße', persistent='true', receipt='sent', headers={'mine': 'a:b\\c' if version != '1.0' else 'ab'})
    (_, headers, body), = seen.wait('message')
    assert body == 'grüße' and headers['persistent'] == 'true' and headers['destination'] == queue
    assert headers['mine'] == ('a:b\\c' if version != '1.0' else 'ab')
    if version == '1.0':
        connection.ack(headers['message-id'], receipt='acked')
    elif version == '1.1':
        connection.ack(headers['message-id'], '1', receipt='acked')
    else:
        connection.ack(headers['ack'], receipt='acked')
    seen.wait('receipt', 3)
    connection.disconnect(receipt='bye')
    seen.wait('disconnected')
    connection, seen = connect(millrace.stomp_port, version)
    connection.subscribe(queue, id='1', ack='auto')
    connection.send(queue, 'next')
    assert seen.wait('message')[0][2] == 'next'
    connection.disconnect()


def test_stomp_py_transactions(millrace):
    connection, seen = connect(millrace.stomp_port)
    connection.subscribe('/queue/py-tx', id='1', ack='auto')
    for name, end in (('kept', connection.commit), ('dropped', connection.abort), ('last', connection.commit)):
        transaction = connection.begin()
        connection.send('/queue/py-tx', name, transaction=transaction)
        end(transaction)
    assert [f[2] for f in seen.wait('message', 2)] == ['kept', 'last']
    connection.disconnect()


def test_stomp_py_heartbeats(millrace):
    connection, seen = connect(millrace.stomp_port, heartbeats=(300, 300))
    began = time.monotonic()
    with seen.changed:
        assert not seen.changed.wait_for(lambda: seen.frames, 1.5), seen.frames
    assert connection.is_connected() and time.monotonic() - began > 1.4
    connection.disconnect()


def test_stomp_py_hears_what_is_wrong(millrace):
    connection, seen = connect(millrace.stomp_port)
    connection.send('/exchange/not-there/key', 'x', receipt='r')
    _, headers, body = seen.wait('error')[0]
    assert headers['message'] == 'not_found' and headers['receipt-id'] == 'r' and 'not-there' in body
    seen.wait('disconnected')


# ---- raw

def test_every_cut(millrace):
    """A conversation in two pieces, cut at each byte, is answered as in one."""
    talk = encode('STOMP', {'accept-version': '1.2', 'host': '/'}, eol='\r\n') + b'\n' + \
        encode('SUBSCRIBE', {'id': '1', 'destination': '/topic/cut', 'receipt': 's'}) + \
        encode('SEND', {'destination': '/topic/cut', 'content-length': '5', 'a': 'b\\cc'}, b'1\x0023\n') + \
        encode('DISCONNECT', {'receipt': 'bye'})

    def play(cut):
        client = Stomp(millrace.stomp_port)
        client.raw(talk[:cut])
        client.socket.setsockopt(6, 1, 1)
        client.raw(talk[cut:])
        frames = client.ended()
        client.close()
        session = frames[0]['session']
        return [repr(f).replace(session, 'SESSION') for f in frames]
    whole = play(len(talk))
    assert len(whole) == 4 and whole[-1].startswith('RECEIPT') and 'bye' in whole[-1]
    for cut in range(0, len(talk), 1):
        assert play(cut) == whole, cut


def test_half_open_clients_go(fresh_millrace):
    silent = Stomp(fresh_millrace.stomp_port)
    beats = Stomp(fresh_millrace.stomp_port)
    beats.connect(heart_beat='200,0')
    began = time.monotonic()
    assert beats.ended() == [] and 0.3 < time.monotonic() - began < 2
    silent.raw(b'CONNECT\n' + b'x:y\n' * 5000)
    with pytest.raises((Closed, ConnectionResetError, BrokenPipeError, AssertionError)):
        while True:
            assert silent.next().command != 'ERROR'


def test_large_bodies(millrace):
    client = raw(millrace)
    body = bytes(range(256)) * 15000
    client.send('SUBSCRIBE', {'id': '1', 'destination': '/queue/large', 'ack': 'client'})
    client.send('SEND', {'destination': '/queue/large', 'content-length': len(body), 'persistent': 'true'}, body)
    assert client.wait('MESSAGE').body == body
    client.send('SEND', {'destination': '/queue/large', 'content-length': 5 << 20})
    assert b'larger' in client.wait('ERROR').body


def test_who_may_come(millrace):
    assert Stomp(millrace.stomp_port).connect(login=None, passcode=None).command == 'CONNECTED'
    assert b"user 'guest'" in Stomp(millrace.stomp_port).connect(passcode='wrong').body
    assert b"'mr-closed' access denied" in Stomp(millrace.stomp_port).connect(host='mr-closed').body
    assert Stomp(millrace.stomp_port).connect(host='mr-other').command == 'CONNECTED'
    some = Stomp(millrace.stomp_port)
    some.connect(login='mr-some', passcode='some-secret')
    some.send('SEND', {'destination': '/queue/not-mine'})
    error = some.wait('ERROR')
    assert error['message'] == 'access_refused' and b'refused for user' in error.body


def test_any_port(millrace):
    """STOMP is recognised on AMQP's port."""
    client = Stomp(millrace.port)
    assert client.connect().command == 'CONNECTED'
    client.send('DISCONNECT', {'receipt': 'bye'})
    assert client.wait('RECEIPT')['receipt-id'] == 'bye'


def test_selectors(millrace):
    client = raw(millrace)
    client.send('SUBSCRIBE', {'id': 'q', 'destination': '/queue/select', 'selector': "n > 5 AND kind IN ('a','b')"})
    client.send('SUBSCRIBE', {'id': 't', 'destination': '/topic/select', 'selector': 'n BETWEEN 1 AND 3'})
    for n in range(10):
        for destination in ('/queue/select', '/topic/select'):
            client.send('SEND', {'destination': destination, 'n': n, 'kind': 'abc'[n % 3]}, str(n))
    seen = client.sync()
    assert [f.body for f in seen if f['subscription'] == 'q'] == [b'6', b'7', b'9']
    assert [f.body for f in seen if f['subscription'] == 't'] == [b'1', b'2', b'3']
    client.send('SUBSCRIBE', {'id': 'rest', 'destination': '/queue/select'})
    assert [f.body for f in client.messages(7)] == [b'%d' % n for n in (0, 1, 2, 3, 4, 5, 8)]
    ch = pika_channel(millrace)
    ch.queue_declare('select-amqp', durable=True)
    ch.basic_publish('', 'select-amqp', b'no', pika.BasicProperties(headers={'n': 1}))
    ch.basic_publish('', 'select-amqp', b'yes', pika.BasicProperties(headers={'n': 2}))
    got = next(ch.consume('select-amqp', arguments={'x-selector': 'n = 2'}, inactivity_timeout=5))
    assert got[2] == b'yes'


# ---- other protocols

def test_to_amqp_and_back(millrace):
    """Every property, both ways."""
    ch = pika_channel(millrace)
    client = raw(millrace)
    client.send('SEND', {'destination': '/queue/to-amqp', 'content-type': 'text/plain', 'content-encoding': 'identity',
                         'persistent': 'true', 'priority': '7', 'correlation-id': 'c', 'reply-to': '/queue/back',
                         'expiration': '60000', 'amqp-message-id': 'm', 'timestamp': '1700000000', 'type': 't',
                         'user-id': 'guest', 'app-id': 'app', 'mine': 'grün\\c1', 'receipt': 'r', 'content-length': 3}, b'a\0b')
    client.wait('RECEIPT')
    method, p, body = ch.basic_get('to-amqp', auto_ack=True)
    assert body == b'a\0b' and method.routing_key == 'to-amqp'
    assert (p.content_type, p.content_encoding, p.delivery_mode, p.priority) == ('text/plain', 'identity', 2, 7)
    assert (p.correlation_id, p.reply_to, p.expiration, p.message_id) == ('c', '/queue/back', '60000', 'm')
    assert (p.timestamp, p.type, p.user_id, p.app_id) == (1700000000, 't', 'guest', 'app')
    assert p.headers == {'mine': 'grün:1'}
    ch.basic_publish('', 'to-amqp', body, p)
    client.send('SUBSCRIBE', {'id': '1', 'destination': '/amq/queue/to-amqp'})
    frame = client.wait('MESSAGE')
    assert frame.body == b'a\0b'
    for name, value in (('content-type', 'text/plain'), ('persistent', 'true'), ('priority', '7'), ('correlation-id', 'c'),
                        ('reply-to', '/queue/back'), ('expiration', '60000'), ('amqp-message-id', 'm'), ('type', 't'),
                        ('timestamp', '1700000000'), ('user-id', 'guest'), ('app-id', 'app'), ('mine', 'grün:1')):
        assert frame[name] == value, name
    ch.basic_publish('', 'to-amqp', b'x', pika.BasicProperties(headers={'int': 5, 'neg': -2 ** 40, 'yes': True, 'list': [1],
                                                                       'destination': 'lie'}))
    frame = client.wait('MESSAGE')
    assert (frame['int'], frame['neg'], frame['yes']) == ('5', str(-2 ** 40), 'true')
    assert frame['list'] is None and frame['destination'] == '/queue/to-amqp'


def test_amqp_topic(millrace):
    client = raw(millrace)
    client.send('SUBSCRIBE', {'id': '1', 'destination': '/topic/sensor.*', 'receipt': 's'})
    client.wait('RECEIPT')
    ch = pika_channel(millrace)
    ch.basic_publish('amq.topic', 'sensor.a', b'1')
    ch.basic_publish('amq.topic', 'sensor.a.b', b'2')
    ch.basic_publish('amq.topic', 'sensor.c', b'3')
    assert [(f['destination'], f.body) for f in client.messages(2)] == [('/topic/sensor.a', b'1'), ('/topic/sensor.c', b'3')]


def test_stomp_to_stream_to_kcat(millrace):
    ch = pika_channel(millrace)
    ch.queue_declare('stomp-stream', durable=True, arguments={'x-queue-type': 'stream'})
    client = raw(millrace)
    for n in range(3):
        client.send('SEND', {'destination': '/amq/queue/stomp-stream', 'n': n, 'receipt': n}, 'record %d' % n)
        assert client.wait('RECEIPT')['receipt-id'] == str(n)
    done = subprocess.run(['kcat', '-b', '127.0.0.1:%d' % millrace.kafka_port, '-C', '-t', 'stomp-stream', '-o', 'beginning',
                           '-e', '-q', '-f', '%o %s %h\n'], stdout=subprocess.PIPE, timeout=30, check=True)
    lines = done.stdout.decode().splitlines()
    assert [line.split(' n=')[0].rsplit(',', 1)[0][:10] for line in lines] == ['0 record 0', '1 record 1', '2 record 2']
    assert all('n=%d' % n in line for n, line in enumerate(lines))
    client.send('SUBSCRIBE', {'id': '1', 'destination': '/amq/queue/stomp-stream', 'ack': 'client', 'prefetch-count': '10',
                              'x-stream-offset': 'offset=1'})
    assert [(f['x-stream-offset'], f.body) for f in client.messages(2)] == [('1', b'record 1'), ('2', b'record 2')]


def test_dead_letters_come_by_stomp(millrace):
    client = raw(millrace)
    client.send('SUBSCRIBE', {'id': 'd', 'destination': '/queue/st-dead'})
    client.send('SUBSCRIBE', {'id': 'w', 'destination': '/queue/st-work', 'ack': 'client-individual',
                              'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': 'st-dead'})
    client.send('SEND', {'destination': '/queue/st-work'}, 'bad')
    frame = client.wait('MESSAGE')
    client.send('NACK', {'id': frame['ack'], 'requeue': 'false'})
    frame = client.wait('MESSAGE')
    assert (frame['subscription'], frame.body, frame['x-first-death-reason']) == ('d', b'bad', 'rejected')


# ---- faults

def test_receipts_survive_kill9(fresh_millrace):
    """What had its receipt is there after kill -9; a transaction is there whole or not at all."""
    client = raw(fresh_millrace)
    receipts = set()
    for n in range(300):
        client.send('SEND', {'destination': '/queue/safe', 'persistent': 'true', 'receipt': 's%d' % n}, 's%d' % n)
    for n in range(20):
        client.send('BEGIN', {'transaction': 't%d' % n})
        for part in 'abc':
            client.send('SEND', {'destination': '/queue/safe', 'persistent': 'true', 'transaction': 't%d' % n}, 't%d%s' % (n, part))
        client.send('COMMIT', {'transaction': 't%d' % n, 'receipt': 't%d' % n})
    while len(receipts) < 250:
        receipts.add(client.wait('RECEIPT')['receipt-id'])
    fresh_millrace.kill9()
    fresh_millrace.start()
    client = raw(fresh_millrace)
    client.send('SUBSCRIBE', {'id': '1', 'destination': '/queue/safe', 'receipt': 'all'})
    seen = set()
    try:
        while True:
            frame = client.next(1)
            if frame.command == 'MESSAGE':
                seen.add(frame.body.decode())
    except TimeoutError:
        pass
    for receipt in receipts:
        assert (receipt if receipt[0] == 's' else receipt + 'a') in seen, receipt
    for n in range(20):
        assert sum('t%d%s' % (n, part) in seen for part in 'abc') in (0, 3), n


def test_acked_and_unacked_over_kill9(fresh_millrace):
    client = raw(fresh_millrace)
    client.send('SUBSCRIBE', {'id': '1', 'destination': '/queue/acks', 'ack': 'client-individual'})
    for n in range(10):
        client.send('SEND', {'destination': '/queue/acks', 'persistent': 'true'}, str(n))
    for frame in client.messages(10)[:6]:
        client.send('ACK', {'id': frame['ack'], 'receipt': frame.body.decode()})
    for _ in range(6):
        client.wait('RECEIPT')
    fresh_millrace.kill9()
    fresh_millrace.start()
    client = raw(fresh_millrace)
    client.send('SUBSCRIBE', {'id': '1', 'destination': '/queue/acks'})
    frames = client.messages(4)
    assert [f.body for f in frames] == [b'6', b'7', b'8', b'9'] and {f['redelivered'] for f in frames} == {'true'}
    assert client.quiet() is None


def test_broker_stops(fresh_millrace):
    client = raw(fresh_millrace)
    client.send('SEND', {'destination': '/queue/stop', 'persistent': 'true', 'receipt': 'r'}, 'x')
    client.wait('RECEIPT')
    code, seconds = fresh_millrace.stop()
    assert code == 0 and seconds < 5
    assert client.ended()[-1]['message'] == 'connection_forced'


# ---- ActiveMQ's dialect

@pytest.fixture(scope='module')
def activemq_dialect():
    broker = brokers.Millrace()
    port = brokers.free_port()
    broker.args += ('--set=listen.stomp_activemq=127.0.0.1:%d' % (port - broker.offset),)
    broker.start()
    broker.activemq_port = port
    yield broker
    broker.remove()


def test_activemq_client(activemq_dialect):
    connection = stomp.StompConnection11([('127.0.0.1', activemq_dialect.activemq_port)])
    seen = Listener()
    connection.set_listener('', seen)
    connection.connect('guest', 'guest', wait=True, headers={'client-id': 'py'})
    connection.subscribe('/topic/prices.>', id='1', ack='auto', headers={'activemq.prefetchSize': '1', 'selector': 'n > 1'})
    connection.subscribe('/queue/orders', id='2', ack='auto')
    connection.send('/topic/prices.eu.de,/queue/orders', 'both', headers={'n': '2', 'persistent': 'true'})
    connection.send('/topic/prices.eu', 'not selected', headers={'n': '1'})
    connection.send('/queue/orders', 'later', headers={'AMQ_SCHEDULED_DELAY': '300'})
    connection.send('/queue/orders', 'now')
    assert [f[2] for f in seen.wait('message', 4)] == ['both', 'both', 'now', 'later']
    connection.disconnect()
