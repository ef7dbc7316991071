"""One stream, two protocols: what a Kafka client writes an AMQP client reads, and the other way round."""

import time

import kafka
import pika
import pytest

import kafka_wire
from conftest import TARGET
from kafka_clients import COMPRESSIONS, at, made, producer, read, read_librdkafka, until

pytestmark = pytest.mark.skipif(TARGET != 'millrace', reason='neither RabbitMQ nor Kafka speaks both')
if TARGET != 'millrace':
    collect_ignore = [__file__]

WHEN = 1700000000000


class Amqp:
    """A connection of pika with confirms; get() waits for messages of a queue or a stream."""

    def __init__(self, broker):
        self.connection = pika.BlockingConnection(pika.ConnectionParameters('127.0.0.1', broker.port))
        self.channel = self.connection.channel()
        self.channel.confirm_delivery()
        self.channel.basic_qos(prefetch_count=100)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.connection.is_open:
            self.connection.close()

    def stream(self, name, partitions=1):
        self.channel.queue_declare(name, durable=True, arguments={'x-queue-type': 'stream', 'x-stream-partitions': partitions})
        return name

    def fed(self, name, offset='first', key='#'):
        """A queue that gets every record of a stream."""
        queue = self.channel.queue_declare('fed-' + name, durable=True).method.queue
        self.channel.queue_bind(queue, 'amq.stream.' + name, key, arguments={'x-stream-offset': offset})
        return queue

    def get(self, queue, count, **arguments):
        """[(method, properties, body)], acknowledged."""
        out = []
        for method, properties, body in self.channel.consume(queue, inactivity_timeout=20, arguments=arguments):
            assert method is not None, '%d of %d messages came' % (len(out), count)
            self.channel.basic_ack(method.delivery_tag)
            out.append((method, properties, body))
            if len(out) == count:
                break
        self.channel.cancel()
        return out


@pytest.mark.parametrize('compression', COMPRESSIONS)
def test_kafka_records_arrive_in_an_amqp_queue(broker, topic, compression):
    """Key, headers, timestamp and value; no value is no body."""
    made(broker, topic)
    p = producer(broker, compression_type=compression, linger_ms=50)
    p.send(topic, b'value', key=b'key', headers=[('name', b'header'), ('bytes', b'\xff\0'), ('twice', b'1'), ('twice', b'2')], timestamp_ms=WHEN)
    p.send(topic, b'bare', timestamp_ms=WHEN + 5000)
    p.send(topic, None, key=b'dead', timestamp_ms=WHEN + 9000)
    p.send(topic, b'x' * 300000, key=b'k' * 300, timestamp_ms=WHEN)
    p.flush()
    p.close()
    with Amqp(broker) as amqp:
        first, second, third, fourth = amqp.get(amqp.fed(topic), 4)
        method, properties, body = first
        assert (body, method.routing_key, properties.timestamp) == (b'value', 'key', WHEN // 1000)
        assert {k: properties.headers[k] for k in ('name', 'bytes', 'twice')} == {'name': b'header', 'bytes': b'\xff\0', 'twice': b'2'}
        assert (second[2], second[0].routing_key, second[1].timestamp) == (b'bare', '', WHEN // 1000 + 5)
        assert (third[2], third[0].routing_key) == (b'', 'dead')
        assert fourth[2] == b'x' * 300000 and fourth[0].routing_key == 'k' * 255
        # The stream itself, from the beginning: the same, with offsets.
        again = amqp.get(topic, 4, **{'x-stream-offset': 'first'})
        assert [b for _, _, b in again] == [b for _, _, b in (first, second, third, fourth)]
        assert [p.headers['x-stream-offset'] for _, p, _ in again] == [0, 1, 2, 3]
        # From within the batch.
        assert [b for _, _, b in amqp.get(topic, 2, **{'x-stream-offset': 1})] == [b'bare', b'']


def test_a_queue_is_fed_as_batches_come(broker, topic):
    made(broker, topic)
    with Amqp(broker) as amqp:
        queue = amqp.fed(topic)
        p = producer(broker)
        for i in range(50):
            p.send(topic, b'%d' % i).get(10)
            if i % 10 == 9:
                assert [b for _, _, b in amqp.get(queue, 10)] == [b'%d' % n for n in range(i - 9, i + 1)]
        p.close()


def test_amqp_messages_are_read_by_kafka_consumers(broker, topic):
    with Amqp(broker) as amqp:
        amqp.stream(topic)
        amqp.channel.exchange_declare(topic + '-x', 'topic')
        amqp.channel.queue_bind(topic, topic + '-x', 'order.#')
        began = int(time.time() * 1000)
        amqp.channel.basic_publish('', topic, b'plain')
        amqp.channel.basic_publish(topic + '-x', 'order.new', b'routed', pika.BasicProperties(headers={'text': 'words', 'number': 7}, message_id='m'))
        amqp.channel.basic_publish('', topic, b'keyed', pika.BasicProperties(headers={'x-stream-key': 'the key'}, delivery_mode=2))
        amqp.channel.basic_publish('', topic, b'', pika.BasicProperties(headers={'x-stream-key': 'dead'}))
        amqp.channel.basic_publish('', topic, b'y' * 300000)
        got = read(broker, topic, 5)
        assert [(r.offset, r.key, r.value) for r in got] == [(0, None, b'plain'), (1, b'order.new', b'routed'), (2, b'the key', b'keyed'),
                                                             (3, b'dead', None), (4, None, b'y' * 300000)]
        assert all(began - 1000 <= r.timestamp <= time.time() * 1000 + 1000 for r in got)
        assert dict(got[1].headers)['text'] == b'words'
        assert [m.value() for m in read_librdkafka(broker, topic, 5)] == [r.value for r in got]
        # And they are still what they were for an AMQP reader.
        again = amqp.get(topic, 2, **{'x-stream-offset': 'first'})[1]
        assert (again[0].exchange, again[0].routing_key, again[1].message_id, again[1].headers['number']) == (topic + '-x', 'order.new', 'm', 7)


def test_a_waiting_kafka_consumer_gets_an_amqp_message_at_once(broker, topic):
    with Amqp(broker) as amqp, kafka_wire.Wire(broker.kafka_port, timeout=60) as w:
        amqp.stream(topic)
        for i in range(10):
            w.send('fetch', 12, max_wait_ms=50000, min_bytes=1, max_bytes=100000, topics=[
                {'topic': topic, 'partitions': [{'partition': 0, 'fetch_offset': i, 'partition_max_bytes': 100000}]}])
            began = time.monotonic()
            amqp.channel.basic_publish('', topic, b'%d' % i)
            one = kafka_wire.batches(w.receive()['responses'][0]['partitions'][0]['records'])
            assert [r['value'] for b in one for r in b['records'] if r['offset'] == i] == [b'%d' % i]
            assert time.monotonic() - began < 10


def test_both_write_and_both_read_the_same(broker, topic):
    """Writers of both protocols at the same time, a kill -9 at the end: one order of offsets, the same for all."""
    made(broker, topic, 2)
    with Amqp(broker) as amqp, kafka_wire.Wire(broker.kafka_port) as w:
        expected = {0: [], 1: []}
        for i in range(300):
            if i % 3 == 0:
                amqp.channel.basic_publish('', topic, b'amqp %d' % i, pika.BasicProperties(headers={'x-stream-partition': i % 2}))
            else:
                assert kafka_wire.produce(w, topic, kafka_wire.batch(['kafka %d' % i] * (i % 4 + 1)), i % 2)['error_code'] == 0
        for p in expected:
            expected[p] = [(r['offset'], r['value']) for r in kafka_wire.read_all(w, topic, p)]
            assert [o for o, _ in expected[p]] == list(range(len(expected[p])))
        values = [v for p in expected for _, v in expected[p]]
        wanted = [v for i in range(300) for v in ([b'amqp %d' % i] if i % 3 == 0 else [b'kafka %d' % i] * (i % 4 + 1))]
        assert sorted(values) == sorted(wanted)
        fed = sorted(b for _, _, b in amqp.get(amqp.fed(topic), len(wanted)))
        assert fed == sorted(wanted)
    broker.kill9()
    broker.start()
    with Amqp(broker), kafka_wire.Wire(broker.kafka_port) as w:
        for p in expected:
            assert [(r['offset'], r['value']) for r in kafka_wire.read_all(w, topic, p)] == expected[p]
        assert [(r.offset, r.value) for r in read(broker, topic, len(expected[0]))] == expected[0]


def test_offsets_by_time_in_a_stream_of_both(broker, topic):
    with Amqp(broker) as amqp:
        amqp.stream(topic)
        amqp.channel.basic_publish('', topic, b'one')
        middle = until(lambda: int(time.time() * 1000) + 2)
        until(lambda: time.time() * 1000 > middle + 2)
        p = producer(broker)
        p.send(topic, b'two').get(10)
        p.close()
        consumer = kafka.KafkaConsumer(bootstrap_servers=at(broker))
        partition = kafka.TopicPartition(topic, 0)
        assert consumer.offsets_for_times({partition: middle})[partition].offset == 1
        assert consumer.offsets_for_times({partition: 0})[partition].offset == 0
        consumer.close()


def test_a_stream_deleted_by_amqp_is_gone_for_kafka(broker, topic):
    with Amqp(broker) as amqp, kafka_wire.Wire(broker.kafka_port) as w:
        amqp.stream(topic)
        assert kafka_wire.produce(w, topic, kafka_wire.batch(['x']))['error_code'] == 0
        amqp.channel.queue_delete(topic)
        assert kafka_wire.produce(w, topic, kafka_wire.batch(['x']))['error_code'] == 3
        got = w.call('metadata', 9, topics=[{'name': topic}], allow_auto_topic_creation=False)
        assert got['topics'][0]['error_code'] == 3
        # A queue that is no stream is no topic.
        amqp.channel.queue_declare(topic)
        assert kafka_wire.produce(w, topic, kafka_wire.batch(['x']))['error_code'] in (3, 17, 36)
        assert topic not in [t['name'] for t in w.call('metadata', 9, topics=None)['topics']]
        amqp.channel.queue_delete(topic)
