"""Kafka clients in trouble: connections that are cut, brokers that are killed, requests that end in their midst.

MILLRACE_KAFKA_SEED chooses where connections are cut, MILLRACE_KAFKA_KILLS (6) how often the broker is killed.
"""

import os
import random
import struct
import threading
import time

import confluent_kafka
import kafka
import pytest

import brokers
import kafka_clients
import kafka_wire
from conftest import TARGET
from kafka_clients import Proxy, made, until

pytestmark = pytest.mark.skipif(TARGET == 'rabbitmq', reason='RabbitMQ does not speak Kafka')
if TARGET == 'rabbitmq':
    collect_ignore = [__file__]

SEED = brokers.seed('MILLRACE_KAFKA_SEED')
KILLS = int(os.environ.get('MILLRACE_KAFKA_KILLS', '6' if TARGET == 'millrace' else '2'))
QUICK = {'acks': 'all', 'linger.ms': 1, 'retry.backoff.ms': 10, 'reconnect.backoff.ms': 1, 'reconnect.backoff.max.ms': 20,
         'message.timeout.ms': 60000, 'topic.metadata.refresh.fast.interval.ms': 10, 'log_level': 0}


class Confirmed:
    """What a producer was told: {(partition, offset): value}."""

    def __init__(self):
        self.at, self.failed = {}, []

    def __call__(self, error, message):
        if error:
            self.failed.append((message.value(), str(error)))
        else:
            place = message.partition(), message.offset()
            assert place not in self.at, '%r was given to %r and %r' % (place, self.at[place], message.value())
            self.at[place] = message.value()


def everything(port, name, partitions):
    """{partition: [values]}; offsets begin with 0 and have no holes."""
    out = {}
    with kafka_wire.Wire(port) as w:
        for p in range(partitions):
            records = kafka_wire.read_all(w, name, p)
            assert [r['offset'] for r in records] == list(range(len(records))), p
            out[p] = [r['value'] for r in records]
    return out


def test_a_numbered_producer_writes_once_though_its_connections_are_cut():
    """Cut after requests were sent and before their answers came, in their midst, in the login; each record is there exactly
    once and in order."""
    print('MILLRACE_KAFKA_SEED=%d' % SEED)
    chance = random.Random(SEED)
    limits = [chance.choice((chance.randrange(1, 500), chance.randrange(500, 5000), chance.randrange(5000, 30000))) for _ in range(60)]
    with Proxy(limits) as proxy:
        broker = kafka_clients.start(TARGET, advertised=proxy.port)
        try:
            made(broker, 'cut', 3)
            proxy.to(broker.kafka_port)
            told = Confirmed()
            p = confluent_kafka.Producer(dict(QUICK, **{'bootstrap.servers': '127.0.0.1:%d' % proxy.port, 'enable.idempotence': True,
                                                        'batch.num.messages': 20}))
            sent = {i: [] for i in range(3)}
            for i in range(3000):
                value = b'%d' % i + b'.' * chance.randrange(100)
                sent[i % 3].append(value)
                p.produce('cut', value, partition=i % 3, on_delivery=told)
                if i % 50 == 0:
                    p.poll(0.005)
            assert p.flush(60) == 0
            assert told.failed == []
            assert proxy.cuts >= 20, proxy.cuts
            there = everything(broker.kafka_port, 'cut', 3)
            assert there == sent
            assert told.at == {(q, o): v for q in there for o, v in enumerate(there[q])}
        finally:
            broker.remove()


@pytest.mark.parametrize('idempotent', [True, False])
def test_nothing_confirmed_is_lost_when_the_broker_is_killed(idempotent):
    """kill -9 in the middle of acks=all; offsets are dense, and each confirmed record is where it was confirmed to be.  A numbered
    producer's records are there exactly once and in order, confirmed or not."""
    print('MILLRACE_KAFKA_SEED=%d' % SEED)
    chance = random.Random(SEED)
    broker = kafka_clients.start(TARGET)
    try:
        made(broker, 'killed', 2)
        told = Confirmed()
        p = confluent_kafka.Producer(dict(QUICK, **{'bootstrap.servers': '127.0.0.1:%d' % broker.kafka_port, 'enable.idempotence': idempotent,
                                                    'batch.num.messages': 30}))
        sent, ends = {0: [], 1: []}, threading.Event()

        def produce():
            i = 0
            while not ends.is_set():
                value = b'%d' % i + b'.' * chance.randrange(200)
                try:
                    p.produce('killed', value, partition=i % 2, on_delivery=told)
                except BufferError:
                    p.poll(0.1)
                    continue
                sent[i % 2].append(value)
                i += 1
                p.poll(0 if i % 20 else 0.001)
        thread = threading.Thread(target=produce, daemon=True)
        thread.start()
        try:
            for _ in range(KILLS):
                goal = len(told.at) + chance.randrange(50, 800)
                until(lambda: len(told.at) >= goal or not thread.is_alive(), 60)
                broker.kill9()
                broker.start()
        finally:
            ends.set()
            thread.join(30)
        assert p.flush(90) == 0
        assert told.failed == []
        there = everything(broker.kafka_port, 'killed', 2)
        for (partition, offset), value in told.at.items():
            assert there[partition][offset] == value, (partition, offset)
        if idempotent:
            assert there == sent
        else:
            assert all(set(sent[q]) == set(there[q]) for q in sent)
        # And once more from the files alone.
        broker.kill9()
        broker.start()
        assert everything(broker.kafka_port, 'killed', 2) == there
    finally:
        broker.remove()


def test_numbers_of_producers_are_known_after_a_kill(broker):
    """A batch that is sent again after a restart is answered with its offset, and a pid is never given out twice."""
    made(broker, 'numbers')
    # Kafka forgets a producer by the time in its batches, and a day is enough.
    now = int(time.time() * 1000)
    with kafka_wire.Wire(broker.kafka_port) as w:
        pids = [until(lambda: (a := w.call('init_producer_id', 4, transactional_id=None, transaction_timeout_ms=1000))['error_code'] == 0 and a)
                ['producer_id'] for _ in range(3)]
        first = kafka_wire.batch(['a', 'b'], timestamp=now, pid=pids[0], epoch=0, sequence=0)
        second = kafka_wire.batch(['c'], timestamp=now, pid=pids[0], epoch=0, sequence=2)
        assert [kafka_wire.produce(w, 'numbers', b)['base_offset'] for b in (first, second)] == [0, 2]
    broker.kill9()
    broker.start()
    with kafka_wire.Wire(broker.kafka_port) as w:
        until(lambda: kafka_wire.produce(w, 'numbers', second)['base_offset'] == 2)
        if TARGET == 'millrace':
            # Kafka has forgotten all but the last.
            assert kafka_wire.produce(w, 'numbers', first)['base_offset'] == 0
        assert kafka_wire.produce(w, 'numbers', kafka_wire.batch(['e'], timestamp=now, pid=pids[0], epoch=0, sequence=4))['error_code'] == 45
        assert kafka_wire.produce(w, 'numbers', kafka_wire.batch(['d'], timestamp=now, pid=pids[0], epoch=0, sequence=3))['base_offset'] == 3
        answer = until(lambda: (a := w.call('init_producer_id', 4, transactional_id=None, transaction_timeout_ms=1000))['error_code'] == 0 and a)
        assert answer['producer_id'] not in pids


def test_a_request_in_pieces_and_many_behind_one_another(broker):
    made(broker, 'pieces')
    one = kafka_wire.request('metadata', 9, 5, topics=[{'name': 'pieces'}])
    whole = struct.pack('>i', len(one)) + one
    with kafka_wire.Wire(broker.kafka_port) as w:
        for byte in whole:
            w.raw(bytes([byte]))
        assert kafka_wire.response('metadata', 9, w.frame())[1]['topics'][0]['name'] == 'pieces'
    with kafka_wire.Wire(broker.kafka_port, timeout=60) as w:
        # More than a broker keeps for one connection: it reads on when the client does.
        sender = threading.Thread(target=w.raw, args=(whole * 5000,), daemon=True)
        sender.start()
        for _ in range(5000):
            assert kafka_wire.response('metadata', 9, w.frame())[0] == 5
        sender.join(10)
        assert not sender.is_alive()


def test_connections_that_end_in_the_midst_of_everything(broker):
    """Half requests, fetches that wait, answers that nobody reads: the broker goes on, and writes nothing but whole batches."""
    made(broker, 'midst')
    batch = kafka_wire.batch(['x' * 1000])
    asked = kafka_wire.request('produce', 9, 1, acks=-1, timeout_ms=1000, topic_data=[
        {'name': 'midst', 'partition_data': [{'index': 0, 'records': batch}]}])
    whole = struct.pack('>i', len(asked)) + asked
    for cut in (1, 3, 4, 7, 30, 100, len(whole) - 1):
        w = kafka_wire.Wire(broker.kafka_port)
        w.raw(whole[:cut])
        w.close()
    waiting = []
    for _ in range(50):
        w = kafka_wire.Wire(broker.kafka_port)
        w.send('fetch', 12, max_wait_ms=600000, min_bytes=1, max_bytes=1000, topics=[
            {'topic': 'midst', 'partitions': [{'partition': 0, 'fetch_offset': 0, 'partition_max_bytes': 1000}]}])
        waiting.append(w)
    for w in waiting[:25]:
        w.close()
    with kafka_wire.Wire(broker.kafka_port) as w:
        assert kafka_wire.produce(w, 'midst', batch)['base_offset'] == 0
        for other in waiting[25:]:
            assert other.receive()['responses'][0]['partitions'][0]['high_watermark'] == 1
            other.close()
        # Sent, and not waited for: written whole or not at all.
        for _ in range(20):
            other = kafka_wire.Wire(broker.kafka_port)
            other.raw(whole)
            other.close()
        unread = kafka_wire.Wire(broker.kafka_port)
        for _ in range(50):
            unread.send('fetch', 12, max_wait_ms=0, min_bytes=0, max_bytes=1 << 20, topics=[
                {'topic': 'midst', 'partitions': [{'partition': 0, 'fetch_offset': 0, 'partition_max_bytes': 1 << 20}]}])
        unread.close()
        records = kafka_wire.read_all(w, 'midst')
        assert 1 <= len(records) <= 21 and {r['value'] for r in records} == {b'x' * 1000}


def test_a_topic_that_is_deleted_under_its_clients(broker):
    made(broker, 'gone')
    with kafka_wire.Wire(broker.kafka_port) as w, kafka_wire.Wire(broker.kafka_port) as other:
        kafka_wire.produce(w, 'gone', kafka_wire.batch(['x']))
        w.send('fetch', 12, max_wait_ms=20000, min_bytes=1, max_bytes=1000, topics=[
            {'topic': 'gone', 'partitions': [{'partition': 0, 'fetch_offset': 1, 'partition_max_bytes': 1000}]}])
        began = time.monotonic()
        assert other.call('delete_topics', 5, topic_names=['gone'], timeout_ms=10000)['responses'][0]['error_code'] == 0
        until(lambda: kafka_wire.produce(other, 'gone', kafka_wire.batch(['y']))['error_code'] == 3)
        if TARGET == 'millrace':
            # Kafka leaves it waiting until its time is over.
            assert w.receive()['responses'][0]['partitions'][0]['error_code'] in (3, 6)
            assert time.monotonic() - began < 10


def test_a_consumer_of_python_kafka_survives_restarts():
    broker = kafka_clients.start(TARGET)
    try:
        made(broker, 'goes-on')
        consumer = kafka.KafkaConsumer(bootstrap_servers='127.0.0.1:%d' % broker.kafka_port, auto_offset_reset='earliest', fetch_max_wait_ms=50,
                                       reconnect_backoff_ms=10, reconnect_backoff_max_ms=100, retry_backoff_ms=10)
        consumer.assign([kafka.TopicPartition('goes-on', 0)])
        seen = []
        for i in range(2):
            with kafka_wire.Wire(broker.kafka_port) as w:
                until(lambda: kafka_wire.produce(w, 'goes-on', kafka_wire.batch(['%d' % i]))['error_code'] == 0)

            def polled():
                seen.extend(r for part in consumer.poll(timeout_ms=50).values() for r in part)
                return len(seen) > i
            until(polled, 30)
            broker.kill9()
            broker.start()
        assert [(r.offset, r.value) for r in seen] == [(0, b'0'), (1, b'1')]
        consumer.close()
    finally:
        broker.remove()
