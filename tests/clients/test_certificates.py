"""Whom a client's certificate names is logged in, over MQTT (paho), STOMP (stomp.py), and both within WebSockets; test_tls.py has AMQP and
Kafka.  And new certificates under load of all four drop nobody."""

import json
import os
import queue
import select
import shutil
import ssl
import subprocess
import threading

import confluent_kafka
import paho.mqtt.client as mqtt
import pika
import pytest
import stomp

import brokers
from conftest import TARGET
from test_stomp import Listener
from test_tls import Authority, context, kafka_settings, name_shown, pika_over, start
from websocket_wire import Refused, WebSocket

pytestmark = pytest.mark.skipif(TARGET != 'millrace', reason='the settings are those of millrace')
WAIT = 20


@pytest.fixture(scope='module')
def ca(tmp_path_factory):
    made = Authority(tmp_path_factory.mktemp('certificates'))
    for name, alternative in (('localhost', 'DNS:localhost,IP:127.0.0.1'), ('alice', None), ('nobody', None), ('guest', None)):
        made.sign(name, alternative=alternative)
    stranger = Authority(made.folder, 'stranger-ca')
    stranger.sign('mallory', subject='/CN=alice')
    return made


@pytest.fixture(scope='module')
def broker(ca):
    started = start(ca, tls__client_ca=ca.pem, tls__client_certificates='request', mqtt__anonymous='', stomp__anonymous='', kafka__anonymous='')
    started.mqtt_tls_port, started.stomp_tls_port = 8883 + started.offset, 61614 + started.offset
    started.cli('user', 'add', 'alice', 'never-said')
    started.cli('permission', 'set', 'alice', '.*', '.*', '.*')
    yield started
    started.remove()


class Device:
    """paho over TLS; .code is what CONNACK said, or None when it never came to that."""

    def __init__(self, ca, port, certificate=None, user=None, version=mqtt.MQTTv5, transport='tcp'):
        self.messages, self.answers, self.lost = queue.Queue(), queue.Queue(), []
        self.c = c = mqtt.Client('', protocol=version, transport=transport)
        if transport == 'websockets':
            c.ws_set_options(path='/ws/mqtt')
        c.tls_set(ca.pem, *([ca.path(certificate + '.crt'), ca.path(certificate + '.key')] if certificate else []))
        if user:
            c.username_pw_set(*user)
        c.on_connect = lambda _c, _u, _f, rc, *_p: self.answers.put(int(getattr(rc, 'value', rc)))
        c.on_subscribe = lambda *_: self.answers.put('subscribed')
        c.on_message = lambda _c, _u, m: self.messages.put(m.payload)
        c.on_disconnect = lambda _c, _u, rc, *_p: (self.lost.append(rc), self.answers.put(None))
        c.connect('localhost', port)
        self.code = None
        if certificate == 'mallory':
            while c.loop(1) == 0:          # in this thread: what TLS says is to be seen here
                pass
            return
        c.loop_start()
        self.code = self.answers.get(timeout=WAIT)

    def round(self, topic, payload, qos=1):
        self.c.publish(topic, payload, qos)
        assert self.messages.get(timeout=WAIT) == payload

    def subscribe(self, topic):
        self.c.subscribe(topic, 1)
        assert self.answers.get(timeout=WAIT) == 'subscribed'

    def close(self):
        self.c.disconnect()
        self.c.loop_stop()


def connections(broker):
    """{(peer, protocol, user)} of who is connected."""
    return {(c['peer'], c['protocol'], c['user']) for c in json.loads(broker.cli('list', 'connections', '--json'))}


def is_there(broker, protocol, user):
    return any(p.startswith(protocol) and u == user for _, p, u in connections(broker))


@pytest.mark.parametrize('version', [mqtt.MQTTv311, mqtt.MQTTv5])
@pytest.mark.parametrize('where, transport', [('mqtt_tls_port', 'tcp'), ('mqtt_port', 'tcp'), ('tls_port', 'tcp'), ('http_port', 'websockets')])
def test_mqtt(ca, broker, version, where, transport):
    """On MQTT's ports, and where it visits."""
    d = Device(ca, getattr(broker, where), 'alice', version=version, transport=transport)
    assert d.code == 0 and is_there(broker, 'MQTT', 'alice')
    d.subscribe('certificates/%s' % where)
    d.round('certificates/%s' % where, bytes(range(256)) * 400)
    d.close()


@pytest.mark.parametrize('version', [mqtt.MQTTv311, mqtt.MQTTv5])
def test_mqtt_without_the_right_one(ca, broker, version):
    refused = (0x86, 0x87) if version == mqtt.MQTTv5 else (4, 5)
    for certificate, user, good in (('nobody', None, False), (None, None, False), (None, ('guest', 'wrong'), False), ('alice', ('guest', 'wrong'), False),
                                    ('nobody', ('guest', 'guest'), True), (None, ('guest', 'guest'), True)):
        d = Device(ca, broker.mqtt_tls_port, certificate, user, version)
        assert d.code == 0 if good else d.code in refused, (certificate, user, d.code)
        d.close()
    with pytest.raises((ssl.SSLError, OSError)):      # of another authority: TLS itself fails, at the latest when something is read
        Device(ca, broker.mqtt_tls_port, 'mallory', None, version)


class OneAtATime:
    """
    A TLS connection for two threads. Python's are for one at a time, and stomp.py reads in one while it sends in another: what was sent may
    never leave, or an "internal error" ends the connection, whatever the server is.
    """

    def __init__(self, connection):
        self.connection, self.lock = connection, threading.Lock()

    def __getattr__(self, name):
        return getattr(self.connection, name)

    def recv(self, size):
        while True:
            with self.lock:
                self.connection.settimeout(0)
                try:
                    return self.connection.recv(size)
                except ssl.SSLWantReadError:
                    waiting = select.poll()
                    waiting.register(self.connection.fileno(), select.POLLIN)
                finally:
                    self.connection.settimeout(WAIT)
            waiting.poll(100)                                   # who closes it in the meantime wakes nobody

    def sendall(self, data):
        with self.lock:
            self.connection.sendall(data)

    def unwrap(self):
        with self.lock:
            return self.connection.unwrap()


def stomper(ca, port, certificate=None, user=None):
    """A stomp.py connection over TLS, and its listener."""
    c = stomp.StompConnection12([('localhost', port)], vhost='/', reconnect_attempts_max=3)
    c.set_ssl([('localhost', port)], ca_certs=ca.pem, cert_validator=None,
              **({'key_file': ca.path(certificate + '.key'), 'cert_file': ca.path(certificate + '.crt')} if certificate else {}))
    connect = c.transport.attempt_connection

    def attempt_connection():
        connect()
        c.transport.socket = OneAtATime(c.transport.socket)
    c.transport.attempt_connection = attempt_connection
    seen = Listener()
    c.set_listener('', seen)
    c.connect(*(user or ()), wait=True)
    return c, seen


@pytest.mark.parametrize('where', ['stomp_tls_port', 'stomp_port', 'tls_port'])
def test_stomp(ca, broker, where):
    c, seen = stomper(ca, getattr(broker, where), 'alice')
    assert is_there(broker, 'STOMP', 'alice')
    c.subscribe('/queue/certificates', id='1', ack='auto')
    c.send('/queue/certificates', 'hello' * 10000)
    assert seen.wait('message')[0][2] == 'hello' * 10000
    c.disconnect()


def test_stomp_without_the_right_one(ca, broker):
    for certificate, user in (('nobody', None), (None, None), (None, ('guest', 'wrong')), ('mallory', None)):
        with pytest.raises((stomp.exception.StompException, OSError)):   # TLS, a refused login, or a socket that is gone meanwhile
            stomper(ca, broker.stomp_tls_port, certificate, user)
    c, _ = stomper(ca, broker.stomp_tls_port, 'nobody', ('guest', 'guest'))
    assert c.is_connected()
    c.disconnect()


def test_pages_do_not_borrow_a_certificate(ca, broker):
    """Browsers show it whatever page asks: one from elsewhere is refused."""
    for origin, good in (('https://localhost', True), ('https://evil.example', False), (None, True)):
        try:
            w = WebSocket(15676 + broker.offset, '/ws/mqtt', ['mqtt'], origin, tls=context(ca, 'alice'))
            assert good and w.protocol == 'mqtt'
            w.close()
        except Refused as e:
            assert not good and e.status == 403


# ------------------------------------------------------------------------------------------------------ reload under load
class Load(threading.Thread):
    """Does one thing again and again on one connection, and counts."""

    def __init__(self, name, open_it):
        super().__init__(name=name)
        self.open_it, self.count, self.failure, self.over = open_it, 0, None, threading.Event()
        self.start()

    def run(self):
        try:
            once, close = self.open_it()
            while not self.over.is_set():
                once(self.count)
                self.count += 1
            close()
        except Exception as e:  # what a thread raises has to reach the test
            self.failure = e


def load_amqp(ca, port):
    def open_it():
        c = pika_over(ca, port)
        ch = c.channel()
        ch.confirm_delivery()
        name = ch.queue_declare('', exclusive=True).method.queue

        def once(n):
            ch.basic_publish('', name, b'%d' % n + b'x' * 3000)
            assert ch.basic_get(name, auto_ack=True)[2] == b'%d' % n + b'x' * 3000
        return once, c.close
    return open_it


def load_mqtt(ca, port, number):
    def open_it():
        d = Device(ca, port, 'alice')
        d.subscribe('load/%d' % number)

        def once(n):
            d.round('load/%d' % number, b'%d' % n + b'y' * 3000)
            assert not d.lost
        return once, d.close
    return open_it


def load_stomp(ca, port, number):
    def open_it():
        c, seen = stomper(ca, port, 'alice')
        destination = '/queue/load-%d' % number
        c.subscribe(destination, id='1', ack='auto')

        def once(n):
            c.send(destination, '%d' % n + 'z' * 3000)
            seen.wait('message', n + 1, WAIT)
            assert not [f for f in seen.frames if f[0] in ('error', 'disconnected')]
        return once, c.disconnect
    return open_it


def load_kafka(ca, port):
    def open_it():
        errors, delivered = [], queue.Queue()
        p = confluent_kafka.Producer(kafka_settings(ca, port, 'alice', **{'error_cb': errors.append}))

        def once(n):
            p.produce('load', b'%d' % n + b'w' * 3000, on_delivery=lambda e, m: delivered.put(e))
            assert p.flush(WAIT) == 0 and delivered.get(timeout=WAIT) is None and not errors
        return once, lambda: None
    return open_it


def test_reload_under_load_of_every_protocol(tmp_path):
    """Twenty reloads, the certificate another one each time; connections, their messages and their logins go on."""
    mine = Authority(tmp_path)
    for name in ('first', 'second'):
        mine.sign(name, subject='/CN=' + name, alternative='DNS:localhost,IP:127.0.0.1')
    mine.sign('alice')
    shutil.copy(mine.path('first.pem'), mine.path('now.pem'))
    broker = start(mine, certificate='now', tls__client_ca=mine.pem, tls__client_certificates='request')
    loads = []
    try:
        broker.cli('user', 'add', 'alice', 'x')
        broker.cli('permission', 'set', 'alice', '.*', '.*', '.*')
        for n in range(2):
            loads += [Load('amqp', load_amqp(mine, broker.tls_port)), Load('mqtt', load_mqtt(mine, 8883 + broker.offset, n)),
                      Load('stomp', load_stomp(mine, 61614 + broker.offset, n)), Load('kafka', load_kafka(mine, broker.kafka_tls_port))]

        def moved(by):
            before = [load.count for load in loads]
            brokers.wait_until(lambda: any(load.failure for load in loads) or all(load.count >= b + by for load, b in zip(loads, before)), 60,
                               'somebody stands still: %s' % [(load.name, load.count) for load in loads])
            assert [load.failure for load in loads if load.failure] == []
        moved(3)
        before = connections(broker)
        assert len(before) >= len(loads)
        for n in range(20):
            name = ('second', 'first')[n % 2]
            shutil.copy(mine.path(name + '.pem'), mine.path('now.pem'))
            broker.cli('reload')
            assert name_shown(mine, broker.tls_port) == name
            moved(1)
        moved(5)
        assert connections(broker) >= before          # the very same ones
    finally:
        for load in loads:
            load.over.set()
        for load in loads:
            load.join(30)
        broker.remove()
    assert [(load.name, load.failure) for load in loads if load.failure] == []


# --------------------------------------------------------------------------------------------- millrace pub, sub, tail
PROTOCOLS = ('amqp', 'kafka', 'mqtt', 'stomp')


def millrace(broker, *words, given=None):
    done = subprocess.run([broker.binary, words[0], '--port-offset', str(broker.offset), *words[1:]], input=given, capture_output=True, timeout=60,
                          env={k: v for k, v in os.environ.items() if not k.startswith('MILLRACE_')}, check=False)
    return done.returncode, done.stdout, done.stderr.decode()


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_messages_by_hand(ca, broker, protocol):
    """Each protocol on its TLS port, by a certificate, by a password, and with whoever answers; bodies of half a megabyte."""
    name = 'by-hand-' + protocol
    c = pika.BlockingConnection(pika.ConnectionParameters('127.0.0.1', broker.port))
    c.channel().queue_declare(name, durable=True, arguments={'x-queue-type': 'stream'} if protocol == 'kafka' else None)
    c.channel().queue_bind(name, 'amq.topic', name)
    c.close()
    with open(ca.path('body'), 'wb') as f:
        f.write(os.urandom(500000))
    with open(ca.path('body'), 'rb') as f:
        body = f.read()
    by_file, by_two = ('--cert', ca.path('alice.pem')), ('--cert', ca.path('alice.crt'), '--key', ca.path('alice.key'))
    for words in (('--ca', ca.pem, *by_file), ('--ca', ca.pem, *by_two, '--host', 'localhost'), ('--ca', ca.pem, '--user', 'guest', '--password', 'guest'),
                  ('--insecure', *by_file)):
        code, _, err = millrace(broker, 'pub', '--protocol', protocol, *words, *(['-t'] if protocol == 'mqtt' else []), name, 'first', '-f', ca.path('body'))
        assert code == 0, err
        reader = ['tail', name, '-n', '2'] if protocol == 'kafka' else ['sub', name]
        code, out, err = millrace(broker, *reader, '--protocol', 'amqp' if protocol == 'mqtt' else protocol, *words, '-c', '2', '--wait', '20', '--raw')
        assert code == 0 and out.split(b'\n', 1)[0] in (b'first', body[:out.find(b'\n')]), err
        assert sorted(out) == sorted(b'first\n' + body + b'\n')


def test_retained_by_hand(ca, broker):
    words = ('--protocol', 'mqtt', '--ca', ca.pem, '--cert', ca.path('alice.pem'), '-t', 'by-hand/kept')
    assert millrace(broker, 'pub', *words, 'value')[0] == 1         # nobody subscribes now: it went nowhere
    assert millrace(broker, 'pub', *words, '--retain', 'value')[0] == 0
    code, out, _ = millrace(broker, 'sub', *words, '-c', '1', '--wait', '20', '--json')
    assert code == 0 and json.loads(out)['payload'] == 'value' and json.loads(out)['retain']
    millrace(broker, 'pub', *words, '--retain', '')
    assert millrace(broker, 'sub', *words, '-c', '1', '--wait', '0.5')[1] == b''
    code, _, err = millrace(broker, 'pub', 'a-queue', '--retain', 'x')
    assert code == 64 and '--protocol mqtt' in err


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_by_hand_who_is_refused(ca, broker, protocol):
    """What is wrong is said: the server is not trusted, has another name, or does not know us; the port has no TLS."""
    to = ['-t', 'by-hand'] if protocol == 'mqtt' else ['by-hand']
    for words, says in ((('--tls',), '--ca says whom to trust'),
                        (('--ca', ca.path('stranger-ca.pem')), 'certificate'),
                        (('--ca', ca.pem, '--host', 'localhost.localdomain:1'), 'cannot'),
                        (('--ca', ca.pem, '--user', 'alice', '--password', 'wrong'), ''),
                        (('--ca', ca.pem, '--cert', ca.path('nobody.pem')), ''),
                        (('--ca', ca.path('gone.pem')), 'gone.pem cannot be read: No such file'),
                        (('--cert', ca.path('alice.crt')), '--key: there is no private key'),
                        (('--ca', ca.path('alice.key')), '--ca: '),
                        (('--key', ca.path('alice.key')), '--cert says which')):
        code, _, err = millrace(broker, 'pub', '--protocol', protocol, *words, *to, 'x')
        assert code in (1, 69, 78) and says in err and err.count('\n') == 1, (words, code, err)


def test_by_hand_with_certificates_for_trying_out(tmp_path):
    """The lines that people paste: no host, so 127.0.0.1."""
    started = brokers.Millrace(args=('--dev-tls', '--set', 'tls.client_certificates=request')).start()
    try:
        folder = started.data + '/dev-tls'
        for protocol in ('amqp', 'stomp', 'kafka'):
            code, _, err = millrace(started, 'pub', '--protocol', protocol, '--ca', folder + '/ca.pem', '--cert', folder + '/client.pem', '--create',
                                    'dev-' + protocol, 'x')
            assert code == 0, err
    finally:
        started.remove()
