"""TLS with real clients: pika, kcat, librdkafka and openssl; who is refused; logins by certificate; reload under load; one port
that takes everything."""

import base64
import http.client
import os
import queue
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time

import confluent_kafka
import paho.mqtt.client as mqtt
import pika
import pytest

import brokers
from conftest import TARGET
from stomp_wire import Stomp

pytestmark = pytest.mark.skipif(TARGET != 'millrace', reason='the settings are those of millrace')


# ---------------------------------------------------------------------------------------------------- certificates
def openssl(*words, stdin=''):
    done = subprocess.run(['openssl', *words], input=stdin, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


class Authority:
    """A CA in a folder, and what it signs: NAME.pem holds key and certificate."""

    def __init__(self, folder, name='ca'):
        self.folder, self.name = folder, name
        openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-subj', '/CN=' + name,
                '-keyout', self.path(name + '.key'), '-out', self.path(name + '.pem'))

    def path(self, name):
        return os.path.join(str(self.folder), name)

    @property
    def pem(self):
        return self.path(self.name + '.pem')

    def sign(self, name, subject=None, alternative=None, days=2):
        request, extensions = self.path(name + '.csr'), self.path(name + '.ext')
        openssl('req', '-new', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', subject or '/CN=' + name,
                '-keyout', self.path(name + '.key'), '-out', request)
        with open(extensions, 'w') as f:
            f.write('subjectAltName=%s\n' % (alternative or 'DNS:' + name))
        openssl('x509', '-req', '-in', request, '-CA', self.pem, '-CAkey', self.path(self.name + '.key'), '-CAcreateserial',
                '-days', str(days), '-extfile', extensions, '-out', self.path(name + '.crt'))
        with open(self.path(name + '.pem'), 'w') as out:
            for part in ('.key', '.crt'):
                with open(self.path(name + part)) as f:
                    out.write(f.read())
        return self.path(name + '.pem')


def start(ca, *sets, certificate='localhost', **settings):
    """A broker with TLS; tls_ settings by keyword."""
    args = ['--set=tls.certificate=' + ca.path(certificate + '.pem')]
    args += ['--set=%s=%s' % (k.replace('__', '.'), v) for k, v in settings.items()]
    broker = brokers.Millrace(args=(*args, *sets)).start()
    broker.tls_port, broker.kafka_tls_port = 5671 + broker.offset, 9093 + broker.offset
    return broker


@pytest.fixture(scope='module')
def ca(tmp_path_factory):
    made = Authority(tmp_path_factory.mktemp('tls'))
    made.sign('localhost', alternative='DNS:localhost,IP:127.0.0.1')
    made.sign('other', alternative='DNS:other.example')
    made.sign('alice')
    made.sign('nobody')
    made.sign('guest')
    return made


@pytest.fixture(scope='module')
def broker(ca):
    started = start(ca, tls__client_ca=ca.pem, tls__client_certificates='request', kafka__anonymous='', log__level='debug')
    started.cli('user', 'add', 'alice', 'never-said')
    started.cli('permission', 'set', 'alice', '.*', '.*', '.*')
    yield started
    started.remove()


def context(ca, certificate=None):
    made = ssl.create_default_context(cafile=ca.pem)
    if certificate:
        made.load_cert_chain(ca.path(certificate + '.pem'))
    return made


def pika_over(ca, port, certificate=None, credentials=None, **kw):
    return pika.BlockingConnection(pika.ConnectionParameters(
        'localhost', port, ssl_options=pika.SSLOptions(context(ca, certificate), 'localhost'), socket_timeout=10,
        blocked_connection_timeout=20, credentials=credentials or pika.PlainCredentials('guest', 'guest'), **kw))


# ------------------------------------------------------------------------------------------------------------ AMQP
def test_messages_of_every_size(ca, broker):
    sizes = [0, 1, 100, 4095, 16383, 16384, 16385, 65536, 131072, 1000003, 9000001]
    with pika_over(ca, broker.tls_port) as c:
        ch = c.channel()
        ch.confirm_delivery()
        ch.queue_declare('tls-sizes')
        for n in sizes:
            ch.basic_publish('', 'tls-sizes', os.urandom(1) * n, pika.BasicProperties(headers={'n': n}))
        for n in sizes:
            _, properties, body = ch.basic_get('tls-sizes', auto_ack=True)
            assert properties.headers['n'] == n and len(body) == n and len(set(body)) <= 1


def test_consuming_at_speed(ca, broker):
    count = 5000
    with pika_over(ca, broker.tls_port) as c:
        ch = c.channel()
        ch.queue_declare('tls-many')
        for i in range(count):
            ch.basic_publish('', 'tls-many', b'%d' % i)
        got = []
        for _, _, body in ch.consume('tls-many', auto_ack=True, inactivity_timeout=20):
            got.append(int(body))
            if len(got) == count:
                break
        assert got == list(range(count))


def test_a_certificate_is_a_login(ca, broker):
    external = pika.credentials.ExternalCredentials()
    with pika_over(ca, broker.tls_port, 'alice', external) as c:
        c.channel().queue_declare('tls-alice', exclusive=True)
        assert re.search(r'\balice\b', broker.cli('list', 'connections'))
    for certificate in ('nobody', None):
        with pytest.raises(pika.exceptions.AMQPConnectionError):
            pika_over(ca, broker.tls_port, certificate, external)
    with pika_over(ca, broker.tls_port, 'nobody') as c:  # a password is good with any certificate
        assert c.is_open


def test_external_is_offered_to_who_has_a_certificate(ca, broker):
    for certificate, offered in (('alice', True), (None, False)):
        with socket.create_connection(('localhost', broker.tls_port), 10) as plain:
            with context(ca, certificate).wrap_socket(plain, server_hostname='localhost') as s:
                s.sendall(b'AMQP\0\0\x09\x01')
                start_method = s.recv(4096)
                assert b'PLAIN' in start_method and (b'EXTERNAL' in start_method) == offered


# ----------------------------------------------------------------------------------------------------------- Kafka
def kafka_settings(ca, port, certificate=None, **more):
    settings = {'bootstrap.servers': 'localhost:%d' % port, 'security.protocol': 'SSL', 'ssl.ca.location': ca.pem,
                'reconnect.backoff.ms': 10, 'reconnect.backoff.max.ms': 50, 'log_level': 0}
    if certificate:
        settings.update({'ssl.certificate.location': ca.path(certificate + '.pem'), 'ssl.key.location': ca.path(certificate + '.key')})
    return {**settings, **more}


def test_kafka_by_certificate(ca, broker):
    """Small and large records, fetched from memory and from files, whose pieces are copied through TLS."""
    values = [b'%d' % i for i in range(2000)] + [os.urandom(500000) for _ in range(6)]
    delivered = []
    producer = confluent_kafka.Producer(kafka_settings(ca, broker.kafka_tls_port, 'alice', **{'linger.ms': 5}))
    for value in values:
        producer.produce('tls-topic', value, on_delivery=lambda e, m: delivered.append(e))
        producer.poll(0)
    producer.flush(30)
    assert delivered == [None] * len(values)
    consumer = confluent_kafka.Consumer(kafka_settings(ca, broker.kafka_tls_port, 'alice', **{
        'group.id': 'tls', 'auto.offset.reset': 'earliest'}))
    consumer.subscribe(['tls-topic'])
    got = []
    deadline = time.monotonic() + 40
    while len(got) < len(values) and time.monotonic() < deadline:
        got += [m.value() for m in consumer.consume(500, 1) if not m.error()]
    consumer.close()
    assert got == values


def test_kafka_without_the_right_certificate(ca, broker):
    for certificate in ('nobody', None):
        client = confluent_kafka.Producer(kafka_settings(ca, broker.kafka_tls_port, certificate))
        with pytest.raises(confluent_kafka.KafkaException):
            client.list_topics(timeout=1.5)
    sasl = kafka_settings(ca, broker.kafka_tls_port, **{'security.protocol': 'SASL_SSL', 'sasl.mechanism': 'SCRAM-SHA-512',
                                                        'sasl.username': 'guest', 'sasl.password': 'guest'})
    assert confluent_kafka.Producer(sasl).list_topics(timeout=20).brokers


def test_kcat(ca, broker):
    words = ['-X', 'security.protocol=ssl', '-X', 'ssl.ca.location=' + ca.pem, '-X', 'ssl.certificate.location=' + ca.path('alice.pem'),
             '-X', 'ssl.key.location=' + ca.path('alice.key'), '-b', 'localhost:%d' % broker.kafka_tls_port]
    subprocess.run(['kcat', *words, '-P', '-t', 'tls-kcat'], input=b'one\ntwo\n', timeout=30, check=True)
    done = subprocess.run(['kcat', *words, '-C', '-t', 'tls-kcat', '-o', 'beginning', '-e', '-q'], capture_output=True, timeout=30, check=True)
    assert done.stdout == b'one\ntwo\n'


# ------------------------------------------------------------------------------------------------------ what is refused
def s_client(ca, port, *words):
    done = subprocess.run(['openssl', 's_client', '-connect', 'localhost:%d' % port, '-CAfile', ca.pem, '-brief', '-verify_return_error', *words],
                          input='', capture_output=True, text=True, timeout=30, check=False)
    return done.returncode == 0, done.stderr


@pytest.mark.parametrize('words, good, says', [
    (('-tls1', '-cipher', 'ALL:@SECLEVEL=0'), False, 'protocol version'),
    (('-tls1_1', '-cipher', 'ALL:@SECLEVEL=0'), False, 'protocol version'),
    (('-tls1_2',), True, 'TLSv1.2'),
    (('-tls1_3',), True, 'TLSv1.3'),
    (('-tls1_2', '-cipher', 'ECDHE-ECDSA-AES128-SHA256'), False, 'handshake failure'),
    (('-tls1_2', '-cipher', 'ECDHE-ECDSA-AES256-SHA'), False, 'handshake failure'),
    (('-tls1_2', '-cipher', 'AES128-GCM-SHA256'), False, 'handshake failure'),
    (('-tls1_2', '-cipher', 'NULL:@SECLEVEL=0'), False, 'handshake failure'),
    (('-tls1_2', '-cipher', 'ECDHE-ECDSA-AES256-GCM-SHA384'), True, 'AES256-GCM'),
    (('-tls1_2', '-cipher', 'ECDHE-ECDSA-CHACHA20-POLY1305'), True, 'CHACHA20'),
])
def test_versions_and_ciphers(ca, broker, words, good, says):
    done, text = s_client(ca, broker.tls_port, *words)
    assert done == good and says in text, text


def test_newest_version_only(ca):
    broker = start(ca, tls__min_version='1.3')
    try:
        assert s_client(ca, broker.tls_port, '-tls1_3')[0]
        assert not s_client(ca, broker.tls_port, '-tls1_2')[0]
    finally:
        broker.remove()


def test_required_certificates(ca):
    stranger = Authority(os.path.dirname(ca.pem), 'stranger-ca')
    stranger.sign('mallory')
    broker = start(ca, tls__client_ca=ca.pem, tls__client_certificates='require', tls__user_from='distinguished_name')
    try:
        broker.cli('user', 'add', 'CN=alice', 'x')
        broker.cli('permission', 'set', 'CN=alice', '.*', '.*', '.*')
        external = pika.credentials.ExternalCredentials()
        with pika_over(ca, broker.tls_port, 'alice', external) as c:
            assert c.is_open
        for certificate in (None, 'mallory'):
            with pytest.raises((pika.exceptions.AMQPConnectionError, ssl.SSLError, OSError)):
                pika_over(ca, broker.tls_port, certificate)
        log = brokers.wait_until(lambda: re.search(r'tls_failed.*advice="[^"]+"', broker.log_tail()), 5, 'no line in the log')
        assert 'peer=' in log[0]
    finally:
        broker.remove()


@pytest.mark.parametrize('sets, says', [
    (['tls.certificate=gone.pem'], 'tls.certificate: the file gone.pem cannot be read: No such file'),
    (['tls.certificate={localhost}.crt'], 'there is no private key in'),
    (['tls.certificate={localhost}.key', 'tls.key={localhost}.crt'], 'the wrong way round'),
    (['tls.certificate={localhost}.crt', 'tls.key={other}.key'], 'is not that of the first certificate'),
    (['tls.certificate={localhost}.pem', 'tls.key={localhost}.key {other}.key'], 'tls.key has more files'),
    (['tls.certificate={localhost}.pem {other}.pem', 'tls.key={localhost}.key'], 'tls.key has fewer files'),
    (['tls.certificate={localhost}.pem', 'tls.client_certificates=require'], 'without tls.client_ca'),
    (['tls.certificate={localhost}.pem', 'tls.ciphers=HIGH'], 'is not allowed'),
    (['tls.certificate={localhost}.pem', 'tls.dev=true'], 'use one of both'),
    (['tls.client_certificates=require'], 'tls.certificate is empty'),
    (['listen.amqp_tls=127.0.0.1:7777'], 'listen.amqp_tls is set, and tls.certificate is empty'),
])
def test_complaints(ca, tmp_path, sets, says):
    names = {n: ca.path(n) for n in ('localhost', 'other')}
    binary = os.path.join(brokers.ROOT, 'build', 'millrace') if 'MILLRACE_BIN' not in os.environ else os.environ['MILLRACE_BIN']
    done = subprocess.run([binary, 'serve', '--data', str(tmp_path / 'data'), '--port-offset', str(brokers.free_offset()),
                           *['--set=' + s.format(**names) for s in sets]], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 78 and says in done.stderr, done.stderr


# ---------------------------------------------------------------------------------------------- several hosts, reload
def name_shown(ca, port, host=None):
    words = ['-servername', host] if host else ['-noservername']
    done = subprocess.run(['openssl', 's_client', '-connect', 'localhost:%d' % port, '-CAfile', ca.pem, *words], input='',
                          capture_output=True, text=True, timeout=30, check=False)
    return re.search(r'subject=CN = (\S+)', done.stdout)[1]


def test_hosts(ca):
    broker = start(ca, '--set=tls.certificate=%s %s' % (ca.path('localhost.pem'), ca.path('other.pem')))
    try:
        assert [name_shown(ca, broker.tls_port, h) for h in (None, 'localhost', 'other.example', 'third.example')] == [
            'localhost', 'localhost', 'other', 'localhost']
    finally:
        broker.remove()


def test_reload_under_load_drops_nobody(ca, tmp_path):
    mine = Authority(tmp_path)
    mine.sign('first', subject='/CN=first', alternative='DNS:localhost')
    mine.sign('second', subject='/CN=second', alternative='DNS:localhost')
    shutil.copy(mine.path('first.pem'), mine.path('now.pem'))
    broker = start(mine, certificate='now')
    failures, counts, stop = [], [0] * 4, threading.Event()

    def load(number):
        try:
            with pika_over(mine, broker.tls_port) as c:
                ch = c.channel()
                ch.confirm_delivery()
                queue = ch.queue_declare('', exclusive=True).method.queue
                while not stop.is_set():
                    ch.basic_publish('', queue, b'x' * 3000)
                    assert ch.basic_get(queue, auto_ack=True)[2] == b'x' * 3000
                    counts[number] += 1
        except Exception as e:  # what a thread raises has to reach the test
            failures.append(e)
    threads = [threading.Thread(target=load, args=(i,)) for i in range(len(counts))]
    try:
        for t in threads:
            t.start()
        brokers.wait_until(lambda: failures or min(counts) > 5, 30, 'no load')
        assert name_shown(mine, broker.tls_port) == 'first'
        shutil.copy(mine.path('second.pem'), mine.path('now.pem'))
        broker.cli('reload')
        assert name_shown(mine, broker.tls_port) == 'second'
        with open(mine.path('now.pem'), 'w') as f:
            f.write('rubbish')
        with pytest.raises(brokers.StartError, match='is no PEM file'):
            broker.cli('reload')
        assert name_shown(mine, broker.tls_port) == 'second'
        shutil.copy(mine.path('first.pem'), mine.path('now.pem'))
        broker.process.send_signal(signal.SIGHUP)
        brokers.wait_until(lambda: name_shown(mine, broker.tls_port) == 'first', 10, 'SIGHUP did nothing')
        before = list(counts)
        brokers.wait_until(lambda: failures or all(n > b + 5 for n, b in zip(counts, before)), 30, 'the load has stopped')
    finally:
        stop.set()
        for t in threads:
            t.join(30)
        broker.remove()
    assert failures == []


def test_dev_tls(tmp_path):
    broker = brokers.Millrace(args=('--dev-tls', '--set', 'tls.client_certificates=request')).start()
    try:
        folder = os.path.join(broker.data, 'dev-tls')
        tls = ssl.create_default_context(cafile=folder + '/ca.pem')
        tls.load_cert_chain(folder + '/client.pem')
        with open(folder + '/ca.pem') as f:
            first = f.read()
        for _ in range(2):
            with pika.BlockingConnection(pika.ConnectionParameters(
                    'localhost', 5671 + broker.offset, ssl_options=pika.SSLOptions(tls, 'localhost'),
                    credentials=pika.credentials.ExternalCredentials())) as c:
                c.channel().queue_declare('dev', exclusive=True)
            broker.restart()  # the same ones again
        with open(folder + '/ca.pem') as f:
            assert f.read() == first
        assert {oct(os.stat(os.path.join(folder, n)).st_mode & 0o777) for n in os.listdir(folder)} == {'0o600'}
    finally:
        broker.remove()


def test_dev_tls_asks_for_no_certificate():
    """A browser that is asked for one, and has none, opens no wss:."""
    for words, asked in ((), False), (('--set', 'tls.client_certificates=request'), True):
        broker = brokers.Millrace(args=('--dev-tls', *words)).start()
        try:
            said = subprocess.run(['openssl', 's_client', '-connect', 'localhost:%d' % (5671 + broker.offset), '-CAfile',
                                   os.path.join(broker.data, 'dev-tls', 'ca.pem'), '-verify_return_error'],
                                  stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20).stdout
            assert 'Verification: OK' in said
            assert ('Acceptable client certificate CA names' in said) == asked
        finally:
            broker.remove()


# ---------------------------------------------------------------------------------------------------- one port for all
def test_every_port_takes_everything(ca, broker):
    for port in (broker.port, broker.kafka_port):
        with pika.BlockingConnection(pika.ConnectionParameters('localhost', port)) as c:
            c.channel().queue_declare('any', exclusive=True)
        with pika_over(ca, port) as c:
            c.channel().queue_declare('any', exclusive=True)
        settings = kafka_settings(ca, port, 'alice')
        assert confluent_kafka.Producer(settings).list_topics(timeout=20).brokers
        sasl = {'bootstrap.servers': 'localhost:%d' % port, 'security.protocol': 'SASL_PLAINTEXT', 'sasl.mechanism': 'PLAIN',
                'sasl.username': 'guest', 'sasl.password': 'guest', 'log_level': 0}
        listed = confluent_kafka.Producer(sasl).list_topics(timeout=20)
        assert [b.port for b in listed.brokers.values()] == [port]  # and clients are told to come back here


def without_a_login(broker, protocol, port, user=None):
    """Whether a client of that protocol is let in on that port, as user or as nobody."""
    if protocol == 'kafka':
        settings = {'bootstrap.servers': 'localhost:%d' % port, 'log_level': 0}
        if user:
            settings.update({'security.protocol': 'SASL_PLAINTEXT', 'sasl.mechanism': 'PLAIN', 'sasl.username': user, 'sasl.password': 'changed'})
        try:
            return bool(confluent_kafka.Producer(settings).list_topics(timeout=20 if user or port == broker.kafka_port else 1).brokers)
        except confluent_kafka.KafkaException:
            return False
    if protocol == 'sql':
        login = {'Authorization': 'Basic ' + base64.b64encode(('%s:changed' % user).encode()).decode()} if user else {}
        client = http.client.HTTPConnection('localhost', port, timeout=20)
        client.request('POST', '/sql', 'SHOW STREAMS;', {'Content-Type': 'application/sql', **login})
        try:
            return client.getresponse().status != 401
        finally:
            client.close()
    if protocol == 'stomp':
        client = Stomp(port)
        try:
            return client.connect(login=user, passcode=user and 'changed').command == 'CONNECTED'
        finally:
            client.close()
    answers = queue.Queue()
    client = mqtt.Client('', transport='websockets' if protocol == 'web' else 'tcp')
    client.on_connect = lambda _c, _u, _f, code: answers.put(code)
    client.ws_set_options(path='/ws/mqtt')
    if user:
        client.username_pw_set(user, 'changed')
    client.connect('localhost', port)
    client.loop_start()
    try:
        return answers.get(timeout=20) == 0
    finally:
        client.disconnect()
        client.loop_stop()


def test_who_visits_has_to_log_in():
    """A proxy on this machine, in front of one port, lets nobody in who could not have come by that port's own protocol."""
    broker = brokers.Millrace(args=('--set=default_pass=changed',))
    broker.reachable = lambda: 'ready' in broker.log_tail()
    try:
        broker.start()
        web_mqtt = 15675 + broker.offset
        ports = (broker.port, broker.kafka_port, broker.mqtt_port, broker.stomp_port, broker.http_port, web_mqtt)
        own = {'kafka': broker.kafka_port, 'mqtt': broker.mqtt_port, 'stomp': broker.stomp_port, 'web': web_mqtt, 'sql': broker.http_port}
        for protocol, usual in own.items():
            for port in ports:
                assert without_a_login(broker, protocol, port) == (port == usual), (protocol, port)
                assert without_a_login(broker, protocol, port, 'guest'), (protocol, port)
        refused = len(ports) * len(own) - len(own)
        assert 1 <= broker.log_tail().count('visitor_refused') < refused        # one a second at most
    finally:
        broker.remove()


@pytest.mark.parametrize('protocol', ['kafka', 'mqtt', 'stomp', 'sql', 'web'])
def test_the_log_says_who_was_refused(protocol):
    fresh = brokers.Millrace().start()
    try:
        port = fresh.port if protocol != 'web' else fresh.http_port
        assert not without_a_login(fresh, protocol, port)
        deadline = time.monotonic() + 20                        # it is said when the connection has ended
        while 'visitor_refused' not in fresh.log_tail() and time.monotonic() < deadline:
            time.sleep(0.02)
        line = [line for line in fresh.log_tail().splitlines() if 'visitor_refused' in line]
        assert line and 'protocol=' in line[0], fresh.log_tail()       # a client that tries again is told of again, by each loop
    finally:
        fresh.remove()


def test_visitors_may_be_trusted():
    broker = brokers.Millrace(args=('--set=listen.visitors_anonymous=true',)).start()
    try:
        for protocol in ('mqtt', 'stomp', 'web', 'sql'):
            assert without_a_login(broker, protocol, broker.port) and without_a_login(broker, protocol, broker.http_port)
        assert confluent_kafka.Producer({'bootstrap.servers': 'localhost:%d' % broker.port}).list_topics(timeout=20).brokers
    finally:
        broker.remove()


def test_one_byte_at_a_time(ca, broker):
    with socket.create_connection(('localhost', broker.port), 10) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b'AMQP\0\0\x09\x01':
            s.sendall(bytes([byte]))
        assert b'AMQPLAIN' in s.recv(4096)


def test_unknown_bytes_are_named(broker):
    for port, first in ((broker.port, b'SSH-2.0-x\r\n'), (broker.kafka_port, b'\xff\xff\xff\xff\xff\xff')):
        with socket.create_connection(('localhost', port), 10) as s:
            s.sendall(first)
            said = b''
            while True:
                try:
                    more = s.recv(4096)
                except ConnectionResetError:
                    break
                if not more:
                    break
                said += more
            assert said == (b'AMQP\0\0\x09\x01' if port == broker.port else b'')
    brokers.wait_until(lambda: 'protocol_unknown' in broker.log_tail() and 'SSH-2.0-x' in broker.log_tail(), 5, 'nothing in the log')


def test_ports_may_keep_to_their_own(ca):
    broker = start(ca, listen__any_protocol='false')
    try:
        with pika_over(ca, broker.port) as c:  # TLS around the port's own protocol
            assert c.is_open
        client = confluent_kafka.Producer({'bootstrap.servers': 'localhost:%d' % broker.port, 'log_level': 0})
        with pytest.raises(confluent_kafka.KafkaException):
            client.list_topics(timeout=1.5)
    finally:
        broker.remove()


def test_what_listens_nowhere_is_spoken_nowhere(ca):
    broker = start(ca, listen__kafka='', listen__kafka_tls='')
    try:
        client = confluent_kafka.Producer({'bootstrap.servers': 'localhost:%d' % broker.port, 'log_level': 0})
        with pytest.raises(confluent_kafka.KafkaException):
            client.list_topics(timeout=1.5)
    finally:
        broker.remove()


def test_silence_ends(ca):
    broker = start(ca, amqp__handshake_timeout='300')
    try:
        for port in (broker.port, broker.kafka_port, broker.tls_port):
            with socket.create_connection(('localhost', port), 10) as s:
                began = time.monotonic()
                assert s.recv(1) == b''
                assert 0.2 < time.monotonic() - began < 5
    finally:
        broker.remove()


def test_a_client_that_never_reads_holds_up_nobody(ca, broker):
    """Its bytes stay where they are; others go on; the broker stops in time all the same."""
    with pika_over(ca, broker.tls_port) as c:
        ch = c.channel()
        ch.queue_declare('tls-deaf', auto_delete=False)
        for _ in range(60):
            ch.basic_publish('', 'tls-deaf', b'z' * 500000)
        deaf = pika_over(ca, broker.tls_port)
        deaf_channel = deaf.channel()
        deaf_channel.basic_consume('tls-deaf', lambda *_: None, auto_ack=True)
        began = time.monotonic()
        ch.queue_declare('tls-beside', exclusive=True)
        for i in range(200):
            ch.basic_publish('', 'tls-beside', b'%d' % i)
        assert time.monotonic() - began < 10
        deaf._impl._transport.abort()
        ch.queue_delete('tls-deaf')
