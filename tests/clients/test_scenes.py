"""One event in several protocols, each end with a client that people use: paho, pika, stomp.py, python3-kafka and kcat.  Bodies are bytes
that no text is, headers and properties are looked at in both directions; docs/mapping.md and docs/mapping-stomp.md say what is right.

And a house: what Home Assistant and its devices do with a broker, over restarts of it."""

import itertools
import json
import struct
import subprocess

import paho.mqtt.client as mqtt
import pika
import pytest
import stomp

import brokers
from conftest import TARGET
from kafka_clients import made, producer, read
from test_mqtt import Client
from test_stomp import Listener

pytestmark = pytest.mark.skipif(TARGET != 'millrace', reason='no other broker speaks all of them')

BINARY = bytes(range(256)) * 3 + b'\0\n\r\xff'
WAIT = 20
numbers = itertools.count(1)


@pytest.fixture
def name():
    return 'scene%d' % next(numbers)


@pytest.fixture
def device(broker):
    """Makes MQTT clients, which are gone at the end."""
    clients = []

    def make(*a, **kw):
        clients.append(Client(broker.mqtt_port, *a, **kw))
        return clients[-1]
    yield make
    for c in clients:
        c.close()


@pytest.fixture
def amqp(broker):
    """A channel of pika with confirms."""
    connection = pika.BlockingConnection(pika.ConnectionParameters('127.0.0.1', broker.port))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.basic_qos(prefetch_count=100)
    yield channel
    connection.close()


@pytest.fixture
def stomper(broker):
    """stomp.py, whose bodies stay bytes: (connection, listener)."""
    connection = stomp.StompConnection12([('127.0.0.1', broker.stomp_port)], vhost='/', auto_decode=False)
    seen = Listener()
    connection.set_listener('', seen)
    connection.connect('guest', 'guest', wait=True)
    yield connection, seen
    connection.disconnect()


def taken(channel, queue, count, **arguments):
    """So many deliveries of a queue or a stream, not acknowledged: [(method, properties, body)]."""
    out = []
    for delivery in channel.consume(queue, inactivity_timeout=WAIT, arguments=arguments):
        assert delivery[0], '%d of %d messages came' % (len(out), count)
        out.append(delivery)
        if len(out) == count:
            return out
    raise AssertionError('the consumer was cancelled')


def sent(stomper, destination, body, **headers):
    """SEND, and its receipt."""
    connection, seen = stomper
    receipts = len([f for f in seen.frames if f[0] == 'receipt'])
    connection.send(destination, body, receipt='r%d' % receipts, headers={k.replace('_', '-'): v for k, v in headers.items()})
    seen.wait('receipt', receipts + 1)


def kcat(broker, topic, count):
    """The values that kcat reads of a topic from its beginning, byte by byte."""
    done = subprocess.run(['kcat', '-b', '127.0.0.1:%d' % broker.kafka_port, '-C', '-t', topic, '-o', 'beginning', '-c', str(count), '-q', '-D', '',
                           '-f', '%R%s'], stdout=subprocess.PIPE, timeout=60, check=True)
    out, rest = [], done.stdout
    while rest:
        length, = struct.unpack('>i', rest[:4])
        out.append(rest[4:4 + length])
        rest = rest[4 + length:]
    return out


def headers_of(record):
    """The headers of a record, without the one in which the broker keeps the rest of a message."""
    return [h for h in record.headers if h[0] != 'mr-amqp']


# ------------------------------------------------------------------------------------------ MQTT, AMQP, STOMP
def test_a_reading_is_a_job_and_its_dead_letter_is_read_by_stomp(name, device, amqp, stomper):
    """A device publishes; a worker takes what is good and refuses what is not; an operator sees that with STOMP."""
    connection, seen = stomper
    dead, jobs = name + '-dead', name + '-jobs'
    amqp.queue_declare(dead, durable=True)
    amqp.queue_declare(jobs, durable=True, arguments={'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': dead})
    amqp.queue_bind(jobs, 'amq.topic', name + '.#')
    sensor = device()
    for i in range(20):
        sensor.publish('%s/hall/v1.%d' % (name, i), BINARY + b'%d' % i, 1 + i % 2, ContentType='application/x', CorrelationData=b'c%d' % i,
                       ResponseTopic=name + '/answers', UserProperty=[('unit', '°C'), ('number', str(i))])
    for i, (method, p, body) in enumerate(taken(amqp, jobs, 20)):
        assert (method.exchange, method.routing_key) == ('amq.topic', '%s.hall.v1/%d' % (name, i))
        assert (body, p.delivery_mode, p.content_type, p.correlation_id) == (BINARY + b'%d' % i, 2, 'application/x', 'c%d' % i)
        assert (p.reply_to, p.headers['unit'], p.headers['number']) == (name + '.answers', '°C', str(i))
        if i % 4:
            amqp.basic_ack(method.delivery_tag)
        else:
            amqp.basic_reject(method.delivery_tag, requeue=False)
    connection.subscribe('/amq/queue/' + dead, id='1', ack='client-individual')
    letters = seen.wait('message', 5, WAIT)
    for i, (_, headers, body) in zip(range(0, 20, 4), letters):
        assert body == BINARY + b'%d' % i
        wanted = {'content-type': 'application/x', 'correlation-id': 'c%d' % i, 'persistent': 'true', 'unit': '°C', 'number': str(i),
                  'x-first-death-queue': jobs, 'x-first-death-reason': 'rejected', 'x-first-death-exchange': 'amq.topic'}
        assert {n: headers.get(n) for n in wanted} == wanted
        connection.ack(headers['ack'])
    assert amqp.queue_declare(jobs, passive=True).method.message_count == 0


def test_stomp_and_amqp_reach_a_device(name, device, amqp, stomper):
    """The other way round: what STOMP and AMQP clients send to a topic, with every header that has a place there."""
    sub = device()
    sub.subscribe(name + '/+', 2)
    sent(stomper, '/topic/%s.from-stomp' % name, BINARY, persistent='true', content_type='text/x', correlation_id='co', type='ty', app_id='app',
         amqp_message_id='id', reply_to='/topic/elsewhere', mine='größe:1')
    m = sub.message()
    assert (m.topic, m.payload, m.qos, m.properties.ContentType) == (name + '/from-stomp', BINARY, 1, 'text/x')
    assert m.properties.CorrelationData == b'co'
    assert sorted(m.properties.UserProperty) == [('mine', 'größe:1'), ('x-amqp-app-id', 'app'), ('x-amqp-message-id', 'id'), ('x-amqp-type', 'ty')]
    amqp.basic_publish('amq.topic', name + '.from/amqp', BINARY, pika.BasicProperties(
        delivery_mode=2, reply_to=name + '.answers', expiration='100000', headers={'text': 'words', 'number': -7, 'yes': True, 'utf8': 'ä'.encode(), 'octets': b'\xff'}))
    m = sub.message()
    assert (m.topic, m.payload, m.properties.ResponseTopic) == (name + '/from.amqp', BINARY, name + '/answers')
    assert 90 < m.properties.MessageExpiryInterval <= 100
    assert sorted(m.properties.UserProperty) == [('number', '-7'), ('text', 'words'), ('utf8', 'ä'), ('yes', 'true')]
    sent(stomper, '/topic/%s.not-persistent' % name, BINARY)
    m = sub.message()
    assert (m.payload, m.qos) == (BINARY, 0)


# ----------------------------------------------------------------------------------------------- Kafka and MQTT
def records(broker, topic, keys):
    p = producer(broker)
    for n, key in enumerate(keys):
        p.send(topic, BINARY + b'%d' % n, key=key.encode(), headers=[('text', 'größe'.encode()), ('n', b'%d' % n), ('octets', b'\xff\0')])
    p.flush()
    p.close()


def is_record(m, n):
    """What an MQTT client sees of such a record: headers that are text are user properties."""
    assert m.payload == BINARY + b'%d' % n and m.qos == 1
    user = dict(m.properties.UserProperty)
    assert {k: user.get(k) for k in ('text', 'n', 'octets')} == {'text': 'größe', 'n': str(n), 'octets': None} and 'x-amqp-timestamp' in user


def test_records_reach_one_device(broker, name, device, amqp):
    """A session's queue is bound to the stream: also what is written while the device is away waits for it."""
    made(broker, name)
    orders = device('dev-' + name, clean=False, expiry=1000)
    orders.subscribe(name + '/new/#', 1)
    records(broker, name, ['%s.new.%d' % (name, n) for n in range(3)])
    amqp.queue_bind('mqtt-subscription-dev-%sqos1' % name, 'amq.stream.' + name, name + '.new.*', arguments={'x-stream-offset': 'first'})
    for n in range(3):
        m = orders.message()
        assert m.topic == '%s/new/%d' % (name, n)
        is_record(m, n)
    orders.close()
    records(broker, name, [name + '.new.away', name + '.old', name + '.new.v1/2'])
    orders = device('dev-' + name, clean=False, expiry=1000)
    assert orders.connected[2] == 1
    for n, topic in ((0, name + '/new/away'), (2, name + '/new/v1.2')):
        m = orders.message()
        assert m.topic == topic
        is_record(m, n)
    orders.nothing()
    device('dev-' + name, clean=True)    # takes the session over, and ends it


def test_records_reach_every_subscriber(broker, name, device, amqp):
    """A queue that is bound to the stream and keeps nothing sends every record on to an exchange: wildcards, QoS 0 and all."""
    made(broker, name)
    one, two = device(), device()
    one.subscribe(name + '/#', 1)
    two.subscribe(name + '/b/+', 0)
    amqp.queue_declare(name + '-bridge', durable=True, arguments={'x-message-ttl': 0, 'x-dead-letter-exchange': 'amq.topic'})
    amqp.queue_bind(name + '-bridge', 'amq.stream.' + name, '#', arguments={'x-stream-offset': 'first'})
    records(broker, name, ['%s.%s.%d' % (name, 'ab'[n % 2], n) for n in range(100)])
    for n in range(100):
        m = one.message()
        assert m.topic == '%s/%s/%d' % (name, 'ab'[n % 2], n)
        is_record(m, n)
    assert [two.message().payload for _ in range(50)] == [BINARY + b'%d' % n for n in range(1, 100, 2)]
    amqp.queue_delete(name + '-bridge')


def test_what_devices_publish_is_a_topic_of_kafka(broker, name, device, amqp):
    amqp.queue_declare(name, durable=True, arguments={'x-queue-type': 'stream'})
    amqp.queue_bind(name, 'amq.topic', name + '.#')
    sensor = device()
    for n in range(5):
        sensor.publish('%s/v1.2/%d' % (name, n), BINARY + b'%d' % n, n % 3, n == 4, ContentType='t/x', UserProperty=[('unit', '°C'), ('n', str(n))])
    got = read(broker, name, 5)
    for n, r in enumerate(got):
        assert (r.key, r.value) == (('%s.v1/2.%d' % (name, n)).encode(), BINARY + b'%d' % n)
        assert headers_of(r)[:2] == [('unit', '°C'.encode()), ('n', b'%d' % n)]
    assert kcat(broker, name, 5) == [r.value for r in got]
    # An AMQP reader of the stream still sees all of it.
    method, p, body = taken(amqp, name, 5, **{'x-stream-offset': 'first'})[2]
    assert (method.routing_key, p.content_type, p.headers['unit'], p.headers['x-mqtt-publish-qos'], body) == (
        name + '.v1/2.2', 't/x', '°C', 2, BINARY + b'2')
    sensor.publish('%s/v1.2/4' % name, b'', 1, True)


# ---------------------------------------------------------------------------------------------- STOMP and Kafka
def test_what_stomp_sends_is_replayed_by_kcat(broker, name, amqp, stomper):
    """By the stream's name and by a topic that it is bound to; twice, after a kill -9 too."""
    connection, seen = stomper
    amqp.queue_declare(name, durable=True, arguments={'x-queue-type': 'stream'})
    amqp.queue_bind(name, 'amq.topic', name + '.*')
    for n in range(6):
        sent(stomper, '/topic/%s.%d' % (name, n) if n % 2 else '/amq/queue/' + name, BINARY + b'%d' % n, persistent='true', content_type='text/x',
             mine='größe: %d' % n)
    values = [BINARY + b'%d' % n for n in range(6)]
    assert kcat(broker, name, 6) == values
    for n, r in enumerate(read(broker, name, 6)):
        assert (r.key, r.value) == (('%s.%d' % (name, n)).encode() if n % 2 else None, values[n])
        assert headers_of(r) == [('mine', ('größe: %d' % n).encode())]
    connection.subscribe('/amq/queue/' + name, id='1', ack='client', headers={'x-stream-offset': 'first', 'prefetch-count': '10'})
    for n, (_, headers, body) in enumerate(seen.wait('message', 6, WAIT)):
        assert (body, headers['mine'], headers['content-type'], headers['x-stream-offset']) == (values[n], 'größe: %d' % n, 'text/x', str(n))


def test_records_are_read_by_stomp(broker, name, amqp, stomper):
    """From the stream itself, and as jobs of a queue that is bound to it."""
    connection, seen = stomper
    made(broker, name)
    records(broker, name, ['k%d' % n for n in range(4)])
    amqp.queue_declare(name + '-jobs', durable=True)
    amqp.queue_bind(name + '-jobs', 'amq.stream.' + name, '#', arguments={'x-stream-offset': 'first'})
    for kind, destination, more in (('stream', name, {'x-stream-offset': 'first', 'prefetch-count': '10'}), ('jobs', name + '-jobs', {})):
        connection.subscribe('/amq/queue/' + destination, id=kind, ack='client-individual', headers=more)
        got = [f for f in seen.wait('message', 4 if kind == 'stream' else 8, WAIT) if f[1]['subscription'] == kind]
        for n, (_, headers, body) in enumerate(got):
            assert body == BINARY + b'%d' % n
            assert {k: headers.get(k) for k in ('text', 'n', 'octets')} == {'text': 'größe', 'n': str(n), 'octets': None}
            assert 'timestamp' in headers
            connection.ack(headers['ack'])
        connection.unsubscribe(kind)


def test_replay_after_kill_9(name):
    """STOMP sends with receipts, the broker is killed, kcat replays."""
    broker = brokers.Millrace()
    try:
        broker.start()
        channel = pika.BlockingConnection(pika.ConnectionParameters('127.0.0.1', broker.port)).channel()
        channel.queue_declare(name, durable=True, arguments={'x-queue-type': 'stream'})
        connection = stomp.StompConnection12([('127.0.0.1', broker.stomp_port)], vhost='/', auto_decode=False, reconnect_attempts_max=1)
        seen = Listener()
        connection.set_listener('', seen)
        connection.connect('guest', 'guest', wait=True)
        for n in range(50):
            sent((connection, seen), '/amq/queue/' + name, BINARY + b'%d' % n, persistent='true')
        broker.kill9()
        broker.start()
        assert kcat(broker, name, 50) == [BINARY + b'%d' % n for n in range(50)]
    finally:
        broker.remove()


# ----------------------------------------------------------------------------------------------------- a house
NODES, BRIDGED = 40, 1880      # nodes announce three sensors each, a bridge (as zigbee2mqtt is one) announces its devices'
DISCOVERY = ('homeassistant/+/+/config', 'homeassistant/+/+/+/config')


def announced():
    """Topic and payload of each discovery message: 2,000 of them."""
    objects = [('sensor/node%d/%s' % (n, kind), 'node%d' % n) for n in range(NODES) for kind in ('temperature', 'humidity', 'battery')]
    objects += [('%s/0x%016x' % (('light', 'switch', 'binary_sensor', 'climate')[n % 4], n), 'zigbee2mqtt/bridge') for n in range(BRIDGED)]
    return {'homeassistant/%s/config' % o: json.dumps({
        'unique_id': o.replace('/', '_'), 'state_topic': '%s/%s' % (owner, o), 'availability_topic': owner + '/status', 'device_class': 'temperature',
        'unit_of_measurement': '°C', 'device': {'identifiers': [owner], 'manufacturer': 'Äcme', 'sw_version': '1.2.3'}}, ensure_ascii=False).encode()
        for o, owner in objects}


class House:
    """A broker, and who is connected to it."""

    def __init__(self, broker, version):
        self.broker, self.version = broker, version
        self.clients = {}

    def come(self, client_id, **kw):
        self.clients[client_id] = c = Client(self.broker.mqtt_port, client_id, self.version, **kw)
        return c

    def node(self, n):
        """A device, its will, its birth."""
        topic = 'node%d/status' % n
        c = self.come('node%d' % n, clean=False, expiry=None if self.version != mqtt.MQTTv5 else 3600,
                      will={'topic': topic, 'payload': 'offline', 'qos': 1, 'retain': True})
        c.publish(topic, 'online', 1, True)
        return c

    def home_assistant(self):
        c = self.come('home-assistant', clean=False, expiry=None if self.version != mqtt.MQTTv5 else 3600,
                      will={'topic': 'homeassistant/status', 'payload': 'offline', 'qos': 1, 'retain': True})
        return c

    def away(self):
        """Everybody's network is gone. They end side by side: a thread of paho's looks up once a second."""
        for c in self.clients.values():
            c.c._thread_terminate = True
        for c in self.clients.values():
            c.vanish()
        self.clients = {}

    def retained(self, *filters, least=0):
        """What a new client finds: {topic: payload}, each once, all marked as retained. They come in slices, and something new may come between two of
        them: what is published last says the end only when there are few, or at least that many have come."""
        c = Client(self.broker.mqtt_port, '', self.version)
        for f in filters:
            c.subscribe(f, 1)
        c.subscribe('house/fence', 1)
        c.publish('house/fence', 'now', 1)
        found, fenced = {}, False
        for m in iter(c.message, None):
            if m.topic == 'house/fence':
                fenced = True
            else:
                assert m.retain and m.topic not in found, m.topic
                found[m.topic] = m.payload
            if fenced and len(found) >= least:
                break
        c.close()
        return found


def states(offline):
    return {'node%d/status' % n: b'offline' if n in offline else b'online' for n in range(NODES)}


@pytest.fixture(params=[mqtt.MQTTv311, mqtt.MQTTv5], ids=['3.1.1', '5.0'])
def house(request):
    started = brokers.Millrace()
    made_house = House(started, request.param)
    try:
        started.start()
        yield made_house
    finally:
        made_house.away()
        started.remove()


def test_a_house(house):
    """Discovery, availability and commands over a clean restart and a kill -9."""
    wanted = announced()
    assert len(wanted) == 2000
    bridge = house.come('zigbee2mqtt', will={'topic': 'zigbee2mqtt/bridge/status', 'payload': 'offline', 'qos': 1, 'retain': True})
    bridge.publish('zigbee2mqtt/bridge/status', 'online', 1, True)
    nodes = [house.node(n) for n in range(NODES)]
    for topic, payload in wanted.items():
        own = topic.split('/')[2]
        (nodes[int(own[4:])] if own.startswith('node') else bridge).publish(topic, payload, 1, True)
    ha = house.home_assistant()
    assert ha.connected == ('connect', 0, 0)
    ha.subscribe('node0/set/#', 1)
    assert house.retained(*DISCOVERY, least=len(wanted)) == wanted
    # A device is taken away, another one is announced anew, two nodes leave: one says so itself, one is cut off.
    gone = 'homeassistant/light/0x%016x/config' % 0
    bridge.publish(gone, b'', 1, True)
    del wanted[gone]
    changed = 'homeassistant/switch/0x%016x/config' % 1
    wanted[changed] = b'{"name": "kitchen"}'
    bridge.publish(changed, wanted[changed], 1, True)
    nodes[1].publish('node1/status', 'offline', 1, True)
    nodes[1].close()
    watch = house.come('watch')
    watch.subscribe('node2/status', 1)
    assert watch.message().payload == b'online'
    nodes[2].vanish()
    assert watch.message().payload == b'offline'
    assert house.retained('+/status') == states({1, 2})

    # The broker is stopped and started: a will is not lost by that, nor is it said twice, and the session waits.
    house.broker.stop()
    house.away()
    house.broker.start()
    assert house.retained(*DISCOVERY, least=len(wanted)) == wanted
    found = brokers.wait_until(lambda: (lambda f: f if b'online' not in f.values() else None)(house.retained('+/status', 'zigbee2mqtt/bridge/status')),
                               WAIT, 'wills of those who have not come back')
    assert found == {**states(range(NODES)), 'zigbee2mqtt/bridge/status': b'offline', 'homeassistant/status': b'offline'}
    for n in range(NODES):
        house.node(n)
    assert house.retained('+/status') == {**states({}), 'homeassistant/status': b'offline'}
    house.clients['node5'].publish('node0/set/from-5', 'while it is away', 1)
    ha = house.home_assistant()
    assert ha.connected == ('connect', 0, 1)
    m = ha.message()
    assert (m.topic, m.payload, m.retain) == ('node0/set/from-5', b'while it is away', False)
    ha.publish('homeassistant/status', 'online', 1, True)
    for f in DISCOVERY:
        ha.subscribe(f, 1)
    found = [ha.message() for _ in wanted]
    assert {m.topic: m.payload for m in found} == wanted and all(m.retain for m in found)
    ha.nothing()
    # What is announced from now on comes once, and not as a retained value.
    house.clients['node7'].publish('homeassistant/sensor/node7/new/config', '{}', 1, True)
    m = ha.message()
    assert (m.topic, m.retain) == ('homeassistant/sensor/node7/new/config', False)
    wanted[m.topic] = b'{}'

    # And killed.
    house.broker.kill9()
    house.away()
    house.broker.start()
    assert house.retained(*DISCOVERY, least=len(wanted)) == wanted
    brokers.wait_until(lambda: house.retained('+/status') == {**states(range(NODES)), 'homeassistant/status': b'offline'}, WAIT, 'wills after kill -9')
    house.node(3)
    assert house.retained('node3/status') == {'node3/status': b'online'}
    ha = house.home_assistant()
    assert ha.connected == ('connect', 0, 1)
    house.clients['node3'].publish('homeassistant/sensor/node3/late/config', '{}', 1, True)
    m = ha.message()
    if m.dup:        # whose acknowledgement was not on disk yet
        assert m.topic == 'homeassistant/sensor/node7/new/config'
        m = ha.message()
    assert m.topic == 'homeassistant/sensor/node3/late/config'

