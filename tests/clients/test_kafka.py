"""Millrace through the Kafka clients that Debian ships: python3-kafka, python3-confluent-kafka and kcat (both on librdkafka).

    MILLRACE_TARGET=kafka /usr/bin/python3 -m pytest tests/clients/test_kafka*.py     # a real Kafka: tests the tests
"""

import json
import os
import time

import confluent_kafka
import kafka
import pytest
from kafka import TopicPartition

import kafka_wire
from conftest import TARGET
from kafka_clients import COMPRESSIONS, at, kcat, librdkafka, made, producer, read, read_librdkafka, until, write

pytestmark = pytest.mark.skipif(TARGET == 'rabbitmq', reason='RabbitMQ does not speak Kafka')
if TARGET == 'rabbitmq':
    collect_ignore = [__file__]

WHEN = 1700000000000


# ------------------------------------------------------------------------------------------------- produce and consume
@pytest.mark.parametrize('compression', COMPRESSIONS)
@pytest.mark.parametrize('client', ['python3-kafka', 'librdkafka', 'kcat'])
def test_each_client_reads_what_each_writes(broker, topic, client, compression):
    made(broker, topic)
    values = [b'record %d ' % i + b'abc' * 100 for i in range(50)]
    write(broker, client, topic, values, compression)
    assert [r.value for r in read(broker, topic, 50)] == values
    assert [(r.offset(), r.value()) for r in read_librdkafka(broker, topic, 50)] == list(enumerate(values))
    assert kcat(broker, '-C', '-t', topic, '-p', '0', '-o', 'beginning', '-c', '50').encode().split(b'\n')[:-1] == values
    # That it was compressed at all: an old librdkafka does not when it takes the broker for an older one.
    with kafka_wire.Wire(broker.kafka_port) as w:
        got = kafka_wire.batches(kafka_wire.fetch(w, topic, 0)['records'])
    assert {b['attributes'] & 7 for b in got} == {COMPRESSIONS[compression]}


RECORDS = [
    dict(key=b'k1', value=b'with all', headers=[('h', b'1'), ('h', b'2'), ('empty', b''), ('bytes', bytes(range(256)))], timestamp_ms=WHEN),
    dict(key=None, value=b'no key', headers=[], timestamp_ms=WHEN + 1),
    dict(key=b'dead', value=None, headers=[], timestamp_ms=WHEN + 5),
    dict(key=b'', value=b'', headers=[], timestamp_ms=WHEN - 1000),
    dict(key='größe'.encode(), value=b'\0' * 1000, headers=[('n', b'x' * 1000)], timestamp_ms=0),
]


@pytest.mark.parametrize('compression', COMPRESSIONS)
def test_keys_headers_timestamps_and_null_values(broker, topic, compression):
    made(broker, topic)
    p = producer(broker, compression_type=compression, linger_ms=50)
    sent = [p.send(topic, partition=0, **r) for r in RECORDS]
    p.flush()
    assert [s.get(1).timestamp for s in sent] == [r['timestamp_ms'] for r in RECORDS]
    p.close()
    got = read(broker, topic, len(RECORDS))
    assert [dict(key=g.key, value=g.value, headers=g.headers, timestamp_ms=g.timestamp) for g in got] == RECORDS
    assert {g.timestamp_type for g in got} == {0}
    for mine, theirs in zip(RECORDS, read_librdkafka(broker, topic, len(RECORDS))):
        assert (theirs.key(), theirs.value(), theirs.headers() or []) == (mine['key'], mine['value'], mine['headers'])
        assert theirs.timestamp() == (confluent_kafka.TIMESTAMP_CREATE_TIME, mine['timestamp_ms'])


def test_headers_and_null_values_of_librdkafka(broker, topic):
    made(broker, topic)
    p = librdkafka(broker)
    p.produce(topic, None, key='dead', headers={'a': 'b', 'null': None}, timestamp=WHEN)
    p.produce(topic, b'', key=None, headers=[('a', b'1'), ('a', b'2')])
    assert p.flush(20) == 0
    first, second = read(broker, topic, 2)
    assert (first.key, first.value, first.headers, first.timestamp) == (b'dead', None, [('a', b'b'), ('null', None)], WHEN)
    assert (second.key, second.value, second.headers) == (None, b'', [('a', b'1'), ('a', b'2')])
    assert abs(second.timestamp - time.time() * 1000) < 60000


@pytest.mark.parametrize('acks', [0, 1, 'all'])
def test_acks(broker, topic, acks):
    made(broker, topic)
    p = kafka.KafkaProducer(bootstrap_servers=at(broker), acks=acks)
    offsets = [p.send(topic, b'%d' % i).get(10).offset for i in range(20)]
    p.close()
    assert offsets == ([-1] * 20 if acks == 0 else list(range(20)))
    assert [r.value for r in read(broker, topic, 20)] == [b'%d' % i for i in range(20)]


def test_large_records_and_many_partitions(broker, topic):
    made(broker, topic, 12)
    p = librdkafka(broker, message_max_bytes=2000000)
    big = os.urandom(900000)
    for i in range(24):
        p.produce(topic, big[:1000 * i] if i < 23 else big, partition=i % 12)
    assert p.flush(30) == 0
    for i in range(12):
        wanted = [1000 * i, 1000 * (i + 12) if i + 12 < 23 else len(big)]
        assert [len(r.value) for r in read(broker, topic, 2, i, fetch_max_bytes=1000, max_partition_fetch_bytes=1000)] == wanted


def test_a_consumer_waits_and_gets_the_next_at_once(broker, topic):
    made(broker, topic)
    consumer = kafka.KafkaConsumer(bootstrap_servers=at(broker), fetch_max_wait_ms=30000)
    consumer.assign([TopicPartition(topic, 0)])
    consumer.seek_to_beginning()
    assert consumer.position(TopicPartition(topic, 0)) == 0
    p = producer(broker)
    for i in range(20):
        assert consumer.poll(timeout_ms=0) == {}
        began = time.monotonic()
        p.send(topic, b'%d' % i)
        got = until(lambda: consumer.poll(timeout_ms=5000))
        assert [r.value for r in got[TopicPartition(topic, 0)]] == [b'%d' % i]
        assert time.monotonic() - began < 5
    p.close()
    consumer.close()


# ----------------------------------------------------------------------------------------------------- offsets and time
def test_seek_by_time_and_offsets(broker, topic):
    made(broker, topic, 2)
    p = producer(broker)
    for i in range(100):
        p.send(topic, b'%d' % i, partition=0, timestamp_ms=WHEN + 1000 * i)
        if i % 10 == 9:
            p.flush()
    p.close()
    full, empty = TopicPartition(topic, 0), TopicPartition(topic, 1)
    consumer = kafka.KafkaConsumer(bootstrap_servers=at(broker), consumer_timeout_ms=10000)
    consumer.assign([full, empty])
    assert consumer.beginning_offsets([full, empty]) == {full: 0, empty: 0}
    assert consumer.end_offsets([full, empty]) == {full: 100, empty: 0}
    for when, offset in ((0, 0), (WHEN, 0), (WHEN + 1, 1), (WHEN + 55000, 55), (WHEN + 98999, 99), (WHEN + 99000, 99)):
        found = consumer.offsets_for_times({full: when, empty: when})
        assert (found[full].offset, found[full].timestamp, found[empty]) == (offset, WHEN + 1000 * offset, None), when
        consumer.seek(full, offset)
        assert next(consumer).value == b'%d' % offset
    assert consumer.offsets_for_times({full: WHEN + 99001}) == {full: None}
    consumer.close()
    c = confluent_kafka.Consumer({'bootstrap.servers': at(broker), 'group.id': 'none'})
    found = c.offsets_for_times([confluent_kafka.TopicPartition(topic, 0, WHEN + 41500)], timeout=10)
    assert found[0].offset == 42
    assert c.get_watermark_offsets(confluent_kafka.TopicPartition(topic, 0), timeout=10) == (0, 100)
    c.close()
    assert kcat(broker, '-C', '-t', topic, '-p', '0', '-o', 's@%d' % (WHEN + 97500), '-e') == '98\n99\n'
    assert kcat(broker, '-C', '-t', topic, '-p', '0', '-o', '-3', '-e') == '97\n98\n99\n'


def test_an_offset_out_of_range_resets(broker, topic):
    made(broker, topic)
    p = producer(broker)
    p.send(topic, b'only').get(10)
    p.close()
    for reset, offset in (('earliest', 77), ('earliest', 1 << 40)):
        consumer = kafka.KafkaConsumer(bootstrap_servers=at(broker), auto_offset_reset=reset, consumer_timeout_ms=10000)
        consumer.assign([TopicPartition(topic, 0)])
        consumer.seek(TopicPartition(topic, 0), offset)
        assert next(consumer).value == b'only'
        consumer.close()


# ------------------------------------------------------------------------------------------------- topics and unknowns
def test_kcat_lists_the_metadata(broker, topic):
    made(broker, topic, 3)
    told = json.loads(kcat(broker, '-L', '-J', '-t', topic))
    assert [t['topic'] for t in told['topics']] == [topic] and len(told['topics'][0]['partitions']) == 3
    assert [b['name'] for b in told['brokers']] == [at(broker)]


@pytest.mark.parametrize('client', ['python3-kafka', 'librdkafka', 'kcat'])
def test_a_topic_is_made_when_somebody_writes_to_it(broker, topic, client):
    write(broker, client, topic, [b'first', b'second'], None)
    assert [r.value for r in read(broker, topic, 2)] == [b'first', b'second']


def test_unknown_things_of_clients(broker, topic):
    made(broker, topic)
    p = librdkafka(broker)
    failed = []
    p.produce(topic, b'x', partition=9, on_delivery=lambda e, _: failed.append(e.code()))
    p.flush(20)
    assert failed == [confluent_kafka.KafkaError._UNKNOWN_PARTITION]
    consumer = kafka.KafkaConsumer(bootstrap_servers=at(broker))
    assert consumer.partitions_for_topic(topic) == {0}
    assert topic in consumer.topics()
    consumer.close()
