"""MQTT with the clients that people use: paho and mosquitto's own; beside AMQP; and over crashes of the broker."""

import queue
import re
import shutil
import socket
import subprocess

import pytest

import brokers

pika = pytest.importorskip('pika')
mqtt = pytest.importorskip('paho.mqtt.client')
packettypes = pytest.importorskip('paho.mqtt.packettypes')
properties = pytest.importorskip('paho.mqtt.properties')
subscribeoptions = pytest.importorskip('paho.mqtt.subscribeoptions')

WAIT = 20


def props(kind, **kw):
    p = properties.Properties(getattr(packettypes.PacketTypes, kind))
    for name, value in kw.items():
        for one in value if isinstance(value, list) else [value]:
            setattr(p, name, one)
    return p


class Client:
    """A paho client whose events are waited for."""

    def __init__(self, port, client_id='', version=mqtt.MQTTv5, clean=True, expiry=None, will=None, keepalive=60, user=None):
        self.messages, self.events = queue.Queue(), queue.Queue()
        kw = {} if version == mqtt.MQTTv5 else {'clean_session': clean}
        self.c = c = mqtt.Client(client_id, protocol=version, **kw)
        self.version = version
        c.on_connect = lambda _c, _u, flags, rc, *_p: self.events.put(('connect', int(getattr(rc, 'value', rc)), flags['session present']))
        c.on_message = lambda _c, _u, m: self.messages.put(m)
        c.on_subscribe = lambda _c, _u, _mid, codes, *_p: self.events.put(('subscribe', [getattr(r, 'value', r) for r in codes]))
        c.on_unsubscribe = lambda *_a: self.events.put(('unsubscribe',))
        c.on_publish = lambda _c, _u, mid: self.events.put(('publish', mid))
        c.on_disconnect = lambda _c, _u, rc, *_p: self.events.put(('disconnect', int(getattr(rc, 'value', rc))))
        if user:
            c.username_pw_set(*user)
        if will:
            c.will_set(**will)
        more = {}
        if version == mqtt.MQTTv5:
            more = {'clean_start': clean, 'properties': props('CONNECT', SessionExpiryInterval=expiry) if expiry is not None else None}
        c.connect('127.0.0.1', port, keepalive, **more)
        c.loop_start()
        self.connected = self.event('connect')

    def event(self, kind):
        while True:
            e = self.events.get(timeout=WAIT)
            if e[0] == kind:
                return e

    def subscribe(self, topic, qos=0, **options):
        if self.version == mqtt.MQTTv5:
            sub_props = options.pop('properties', None)
            self.c.subscribe(topic, options=subscribeoptions.SubscribeOptions(qos=qos, **options), properties=sub_props)
        else:
            self.c.subscribe(topic, qos)
        return self.event('subscribe')[1]

    def publish(self, topic, payload, qos=0, retain=False, **p):
        kw = {'properties': props('PUBLISH', **p)} if p else {}
        info = self.c.publish(topic, payload, qos, retain, **kw)
        info.wait_for_publish(WAIT)
        assert info.is_published()

    def message(self):
        return self.messages.get(timeout=WAIT)

    def nothing(self):
        """Nothing has come that was sent before this call: one more message makes the round."""
        self.subscribe('test/fence/%d' % id(self))
        self.publish('test/fence/%d' % id(self), 'fence')
        assert self.message().payload == b'fence'

    def close(self, **kw):
        self.c.disconnect(**kw)
        self.c.loop_stop()

    def vanish(self):
        """The network is gone: no DISCONNECT."""
        self.c.loop_stop()
        self.c._sock_close()


@pytest.fixture
def client(broker):
    made = []

    def make(*a, **kw):
        made.append(Client(broker.mqtt_port, *a, **kw))
        return made[-1]
    yield make
    for c in made:
        c.close()


def in_order(messages, count):
    """m0, m1, … with QoS 1, 2, 1, …: paho shows those of QoS 2 when they are released, so each kind has an order of its own."""
    for qos in (1, 2):
        assert [m.payload for m in messages if m.qos == qos] == [b'm%d' % i for i in range(qos - 1, count, 2)]
    assert len(messages) == count


def channel(broker):
    return pika.BlockingConnection(pika.ConnectionParameters('127.0.0.1', broker.port)).channel()


VERSIONS = [mqtt.MQTTv31, mqtt.MQTTv311, mqtt.MQTTv5]


@pytest.mark.parametrize('version', VERSIONS)
@pytest.mark.parametrize('qos', [0, 1, 2])
def test_publish_and_subscribe(client, version, qos):
    sub, pub = client('s%d%d' % (version, qos), version), client('p%d%d' % (version, qos), version)
    assert sub.subscribe('t%d%d/+/#' % (version, qos), qos) == [qos]
    for i in range(50):
        pub.publish('t%d%d/a/b' % (version, qos), 'm%d' % i, qos)
    for i in range(50):
        m = sub.message()
        assert (m.payload, m.qos, m.retain, m.dup) == (b'm%d' % i, qos, False, False)


def test_large_message(client):
    c = client()
    c.subscribe('large', 1)
    for qos in (0, 1):
        body = bytes(range(256)) * 8192
        c.publish('large', body, qos)
        assert c.message().payload == body


def test_retained(client):
    pub = client()
    for i, qos in enumerate((0, 1, 2)):
        pub.publish('ret/%d/state' % i, 'v%d' % i, qos, True)
    pub.publish('ret/3/state', 'gone', 1, True)
    pub.publish('ret/3/state', b'', 1, True)
    for qos in (0, 1, 2):
        sub = client()
        sub.subscribe('ret/+/state', qos)
        got = {(m.topic, m.payload, m.qos, m.retain) for m in (sub.message() for _ in range(3))}
        assert got == {('ret/%d/state' % i, b'v%d' % i, min(i, qos), True) for i in range(3)}
        sub.nothing()
    for i in range(3):
        pub.publish('ret/%d/state' % i, b'', 1, True)


def test_properties_come_through(client):
    sub, pub = client(), client()
    for qos in (0, 1):
        sub.subscribe('props/%d' % qos, qos, properties=props('SUBSCRIBE', SubscriptionIdentifier=7))
        pub.publish('props/%d' % qos, 'x', qos, PayloadFormatIndicator=1, MessageExpiryInterval=100, ContentType='text/x', ResponseTopic='re/1.2',
                    CorrelationData=b'\0\xff', UserProperty=[('b', '2'), ('a', '1'), ('a', '1')])
        p = sub.message().properties
        assert (p.PayloadFormatIndicator, p.ContentType, p.ResponseTopic, p.CorrelationData) == (1, 'text/x', 're/1.2', b'\0\xff')
        assert p.UserProperty == [('b', '2'), ('a', '1'), ('a', '1')]
        assert 0 < p.MessageExpiryInterval <= 100 and p.SubscriptionIdentifier == [7]


def test_will(client):
    watch = client()
    watch.subscribe('will/#', 1)
    gone = client('dies', will={'topic': 'will/dies', 'payload': 'x', 'qos': 1, 'retain': True})
    gone.vanish()
    assert watch.message().payload == b'x'
    client('leaves', will={'topic': 'will/leaves', 'payload': 'y', 'qos': 1}).close()
    watch.nothing()
    late = client()
    late.subscribe('will/dies')
    assert late.message().retain
    late.publish('will/dies', b'', 0, True)


def test_take_over(client):
    old = client('twice')
    new = client('twice')
    assert old.event('disconnect')[1] == 0x8e
    old.c.loop_stop()
    new.nothing()


def test_offline_session(client):
    c = client('away', clean=False, expiry=1000)
    assert c.connected == ('connect', 0, 0)
    c.subscribe('off/+', 2)
    c.close()
    pub = client()
    for i in range(20):
        pub.publish('off/x', 'm%d' % i, 1 + i % 2)
    c = client('away', clean=False, expiry=1000)
    assert c.connected == ('connect', 0, 1)
    in_order([c.message() for _ in range(20)], 20)
    c.close()
    assert client('away', clean=True).connected[2] == 0


def test_shared_subscription(client):
    subs = [client() for _ in range(3)]
    for s in subs:
        s.subscribe('$share/workers/jobs/+', 1)
    pub = client()
    for i in range(60):
        pub.publish('jobs/a', 'j%d' % i, 1)
    got = []
    while len(got) < 60:
        for s in subs:
            while not s.messages.empty():
                got.append(s.messages.get().payload)
    assert sorted(got) == sorted(b'j%d' % i for i in range(60))


def test_a_shared_message_of_qos_2_has_one_member():
    """What a member may have seen is completed when he comes back, over a kill -9 of the broker too, and is nobody else's (4.8.2)."""
    b = brokers.Millrace()
    filter_ = '$share/workers/jobs/#'
    try:
        b.start()
        first = Client(b.mqtt_port, 'first', clean=False, expiry=10000)
        first.subscribe(filter_, 2)
        sent = queue.Queue()
        first.c._handle_publish = lambda: sent.put(1) or mqtt.MQTT_ERR_SUCCESS  # it has read them, and never says PUBREC
        pub = Client(b.mqtt_port)
        for i in range(10):
            pub.publish('jobs/a', 'j%d' % i, 2)
        for _ in range(10):
            sent.get(timeout=WAIT)
        first.vanish()
        second = Client(b.mqtt_port, 'second', clean=False, expiry=10000)
        second.subscribe(filter_, 2)
        pub.publish('jobs/a', 'for the second', 2)
        assert second.message().payload == b'for the second'
        b.kill9()
        second.vanish()
        pub.vanish()
        b.start()
        second = Client(b.mqtt_port, 'second', clean=False, expiry=10000)
        first = Client(b.mqtt_port, 'first', clean=False, expiry=10000)
        assert first.connected == ('connect', 0, 1)
        assert [first.message().payload for _ in range(10)] == [b'j%d' % i for i in range(10)]
        first.nothing()
        second.nothing()
        for c in (first, second):
            c.close()
    finally:
        b.remove()


def test_what_the_broker_notes_is_not_to_be_forged(broker, client):
    """x-mqtt-share is what the broker writes on what moves from a share group; of anybody else it means nothing."""
    ch = channel(broker)
    c = client()
    c.subscribe('forged/#', 1, properties=props('SUBSCRIBE', SubscriptionIdentifier=7))
    c.subscribe('$share/workers/forged/#', 2, properties=props('SUBSCRIBE', SubscriptionIdentifier=8))
    c.c.unsubscribe('$share/workers/forged/#')
    c.event('unsubscribe')
    for share in ('workers/forged.#', 'x', ''):
        ch.basic_publish('amq.topic', 'forged.a', b'x', pika.BasicProperties(delivery_mode=2, headers={'x-mqtt-publish-qos': 2, 'x-mqtt-share': share}))
        m = c.message()
        assert (m.qos, m.properties.SubscriptionIdentifier) == (1, [7])


def test_what_a_member_was_not_sent_goes_to_others(broker, client):
    """One that reads nothing has its socket and its queue full. When it goes, what never was on its way to it is the group's (4.8.2); only
    what was handed to its connection, 256 KiB at most beside its socket, is nobody's."""
    def text(s):
        return len(s).to_bytes(2, 'big') + s
    filter_, numbers = '$share/workers/large/#', set(range(400))
    keeper = client('keeper', clean=False, expiry=1000)     # the group outlives its connection
    keeper.subscribe(filter_, 2)
    keeper.close()
    pub = client()
    pub.subscribe('first/has/gone')
    for sent in [pub.c.publish('large/a', b'<%d>' % i + bytes(1 << 16), 2) for i in sorted(numbers)]:
        sent.wait_for_publish(WAIT)
    with socket.create_connection(('127.0.0.1', broker.mqtt_port), WAIT) as first:
        connect = text(b'MQTT') + b'\5\6\0\0\0' + text(b'') + b'\0' + text(b'first/has/gone') + text(b'')
        subscribe = b'\0\1\0' + text(filter_.encode()) + b'\2'
        first.sendall(b'\x10' + bytes([len(connect)]) + connect + b'\x82' + bytes([len(subscribe)]) + subscribe)
        data = b''
        while b'<' not in data:     # some of it is on its way
            data += first.recv(1 << 16) or pytest.fail('it was closed')
        second = client()
        second.subscribe(filter_, 2)
        first.shutdown(socket.SHUT_WR)
        while more := first.recv(1 << 20):
            data += more
    sent = {int(n) for n in re.findall(rb'<(\d+)>', data)}
    pub.message()
    pub.publish('large/a', b'<-1>', 2)
    got = []
    while not got or got[-1] != -1:
        got.append(int(second.message().payload.strip(b'\0')[1:-1]))
    assert sent and not sent & set(got) and len(got) == len(set(got)), (len(sent), len(got), sent & set(got))
    assert len(numbers - sent - set(got)) < 10, (len(sent), len(got), sorted(numbers - sent - set(got)), len(data))


@pytest.mark.parametrize('user,code', [(('guest', 'guest'), 0), (('guest', 'wrong'), 134), (('/:guest', 'guest'), 0), (('nowhere:guest', 'guest'), 135)])
def test_logins(broker, client, user, code):
    c = client(user=user)
    assert c.connected[1] == code


def test_to_and_from_amqp(broker, client):
    ch = channel(broker)
    q = ch.queue_declare('', exclusive=True).method.queue
    ch.queue_bind(q, 'amq.topic', 'house.#')
    c = client()
    c.subscribe('house/+/temp', 1)
    c.publish('house/k.1/temp', '21', 1, ContentType='text/plain', CorrelationData=b'corr', ResponseTopic='re/ply', MessageExpiryInterval=60,
              UserProperty=[('unit', 'C')])
    assert c.message().topic == 'house/k.1/temp'
    for _ in range(1000):
        method, p, body = ch.basic_get(q, auto_ack=True)
        if method:
            break
    assert (method.routing_key, body, p.delivery_mode) == ('house.k/1.temp', b'21', 2)
    assert (p.content_type, p.correlation_id, p.reply_to, p.expiration, p.headers) == ('text/plain', 'corr', 're.ply', '60000', {'unit': 'C'})
    ch.basic_publish('amq.topic', 'house.a.temp', b'22', pika.BasicProperties(delivery_mode=2, content_type='x/y', message_id='m1', type='t',
                                                                              headers={'n': 5, 'b': True, 's': 'text', 'deep': {'x': 1}}))
    m = c.message()
    assert (m.topic, m.payload, m.qos) == ('house/a/temp', b'22', 1)
    assert m.properties.ContentType == 'x/y'
    assert sorted(m.properties.UserProperty) == [('b', 'true'), ('n', '5'), ('s', 'text'), ('x-amqp-message-id', 'm1'), ('x-amqp-type', 't')]


def test_queue_and_stream_see_every_publish(broker, client):
    ch = channel(broker)
    ch.queue_declare('mq-work', durable=True)
    ch.queue_declare('mq-log', durable=True, arguments={'x-queue-type': 'stream'})
    for q in ('mq-work', 'mq-log'):
        ch.queue_bind(q, 'amq.topic', 'plant.#')
    c = client()
    for i in range(10):
        c.publish('plant/%d' % i, 'p%d' % i, 1)
    got = []
    for _method, _p, body in ch.consume('mq-work', auto_ack=True, inactivity_timeout=WAIT):
        got.append(body)
        if len(got) == 10:
            break
    ch.cancel()
    assert got == [b'p%d' % i for i in range(10)]
    ch.basic_qos(prefetch_count=100)
    for method, _p, body in ch.consume('mq-log', arguments={'x-stream-offset': 'first'}, inactivity_timeout=WAIT):
        got.remove(body)
        ch.basic_ack(method.delivery_tag)
        if not got:
            break
    for q in ('mq-work', 'mq-log'):
        channel(broker).queue_delete(q)


def test_sys(broker, client):
    c = client()
    c.subscribe('$SYS/broker/#')
    got = {}
    while len(got) < 37:
        m = c.message()
        got[m.topic] = m.payload.decode()
    assert got['$SYS/broker/version'].startswith('millrace version ') and got['$SYS/broker/uptime'].endswith(' seconds')
    assert '$SYS/broker/load/bytes/sent/15min' in got
    c.publish('$SYS/broker/version', 'mine', 0, True)
    with pytest.raises(queue.Empty):
        while c.messages.get_nowait().payload != b'mine':
            pass
    other = client()
    other.subscribe('#')
    other.nothing()
    ch = channel(broker)
    q = ch.queue_declare('', exclusive=True).method.queue
    ch.queue_bind(q, 'amq.topic', '#')
    assert ch.queue_declare(q, passive=True).method.message_count == 0


@pytest.mark.parametrize('loops', [1, 3])
def test_many_loops(loops):
    """Fan-out and a clean end, whatever the number of loops."""
    b = brokers.Millrace(args=('--set', 'loops=%d' % loops))
    try:
        b.start()
        subs = [Client(b.mqtt_port) for _ in range(12)]
        for s in subs:
            s.subscribe('fan/#', 0)
        pub = Client(b.mqtt_port)
        for i in range(100):
            pub.publish('fan/out', 'f%d' % i)
        for s in subs:
            assert [s.message().payload for _ in range(100)] == [b'f%d' % i for i in range(100)]
        code, _seconds = b.stop()
        assert code == 0
        for s in [*subs, pub]:
            s.c.loop_stop()
    finally:
        b.remove()


def test_mosquitto_clients(broker):
    if not shutil.which('mosquitto_sub'):
        pytest.skip('mosquitto-clients are not installed')
    port = str(broker.mqtt_port)
    subprocess.run(['mosquitto_pub', '-p', port, '-t', 'ms/a', '-m', 'kept', '-r', '-q', '1'], check=True, timeout=WAIT)
    for version in ('311', '5'):
        got = subprocess.run(['mosquitto_sub', '-p', port, '-V', version, '-t', 'ms/#', '-q', '2', '-v', '-C', '1', '-W', '15'], stdout=subprocess.PIPE,
                             check=True, timeout=WAIT)
        assert got.stdout == b'ms/a kept\n'


# ------------------------------------------------------------------------------------------------------------ over crashes
def test_kill_9(tmp_path):
    """Sessions, what waits for them, retained values and wills are there right after a restart; QoS 2 comes once."""
    b = brokers.Millrace()
    try:
        b.start()
        sub = Client(b.mqtt_port, 'keeps', clean=False, expiry=10000)
        sub.subscribe('crash/#', 2)
        sub.close()
        willed = Client(b.mqtt_port, 'willed', expiry=10000, will={'topic': 'crash/will', 'payload': 'last', 'qos': 1})
        pub = Client(b.mqtt_port)
        for i in range(50):
            pub.publish('crash/m', 'm%d' % i, 1 + i % 2)
        pub.publish('kept/a', 'value', 1, True)
        b.kill9()
        willed.vanish()
        pub.vanish()
        b.start()
        late = Client(b.mqtt_port)
        late.subscribe('kept/+')
        assert late.message().payload == b'value'
        sub = Client(b.mqtt_port, 'keeps', clean=False, expiry=10000)
        assert sub.connected == ('connect', 0, 1)
        got = [sub.message() for _ in range(51)]
        assert [m.payload for m in got if m.topic == 'crash/will'] == [b'last']
        in_order([m for m in got if m.topic == 'crash/m'], 50)
        sub.nothing()
        for c in (late, sub):
            c.close()
    finally:
        b.remove()
