"""Transactions with a real client, librdkafka: what readers see of them, who is fenced, and what is left of one that a kill -9 hits."""

import itertools
import os
import random
import re
import threading
import time

import confluent_kafka
import pytest
from confluent_kafka import KafkaException, TopicPartition

import kafka_clients
import kafka_wire
from conftest import TARGET
from kafka_clients import COMPRESSIONS, at, made, until

pytestmark = pytest.mark.skipif(TARGET == 'rabbitmq', reason='RabbitMQ does not speak Kafka')
if TARGET == 'rabbitmq':
    collect_ignore = [__file__]

numbers = itertools.count(1)
WAIT = 30
KILLS = 4


@pytest.fixture
def topic(broker):
    return made(broker, 'txn-%d' % next(numbers), 2)


def producer(broker, name, **settings):
    p = confluent_kafka.Producer({'bootstrap.servers': at(broker), 'transactional.id': name, 'linger.ms': 5, 'reconnect.backoff.ms': 10,
                                  'reconnect.backoff.max.ms': 100, 'retry.backoff.ms': 10, 'log_level': 0,
                                  **{k.replace('_', '.'): v for k, v in settings.items()}})
    p.init_transactions(WAIT)
    return p


def consumer(broker, group='nobody', committed=True, **settings):
    return confluent_kafka.Consumer({'bootstrap.servers': at(broker), 'group.id': group, 'auto.offset.reset': 'earliest', 'enable.auto.commit': False,
                                     'isolation.level': 'read_committed' if committed else 'read_uncommitted', 'enable.partition.eof': True, 'fetch.wait.max.ms': 20,
                                     'reconnect.backoff.ms': 10, 'reconnect.backoff.max.ms': 100, 'log_level': 0,
                                     **{k.replace('_', '.'): v for k, v in settings.items()}})


def seen(broker, topic, committed=True, partition=0, offset=0):
    """The values that a reader gets of a partition, up to the end that is told to it."""
    c = consumer(broker, committed=committed)
    try:
        c.assign([TopicPartition(topic, partition, offset)])
        out = []
        while True:
            m = c.poll(WAIT)
            assert m is not None, out
            if m.error():
                assert m.error().code() == confluent_kafka.KafkaError._PARTITION_EOF, m.error()
                return out
            out.append(m.value())
    finally:
        c.close()


def write(p, topic, values, partition=0):
    for v in values:
        p.produce(topic, v, partition=partition)
    assert p.flush(WAIT) == 0


def fatal_or_fenced(error):
    code = error.value.args[0].code()
    return code in (confluent_kafka.KafkaError._FENCED, confluent_kafka.KafkaError.INVALID_PRODUCER_EPOCH, confluent_kafka.KafkaError._FATAL,
                    confluent_kafka.KafkaError.PRODUCER_FENCED)


# ------------------------------------------------------------------------------------------------------------ what is seen
@pytest.mark.parametrize('compression', [c or 'none' for c in COMPRESSIONS])
def test_committed_and_aborted(broker, topic, compression):
    p = producer(broker, topic, compression_type=compression)
    p.begin_transaction()
    write(p, topic, [b'a%d' % i for i in range(100)])
    write(p, topic, [b'other'], partition=1)
    assert seen(broker, topic) == [] and seen(broker, topic, partition=1) == []
    assert seen(broker, topic, committed=False) == [b'a%d' % i for i in range(100)]
    p.commit_transaction(WAIT)
    assert seen(broker, topic) == [b'a%d' % i for i in range(100)]
    assert seen(broker, topic, partition=1) == [b'other']
    p.begin_transaction()
    write(p, topic, [b'b%d' % i for i in range(100)])
    p.abort_transaction(WAIT)
    p.begin_transaction()
    write(p, topic, [b'c'])
    p.commit_transaction(WAIT)
    assert seen(broker, topic) == [b'a%d' % i for i in range(100)] + [b'c']
    assert seen(broker, topic, offset=150) == [b'c']        # from within what was aborted
    assert seen(broker, topic, committed=False) == [b'a%d' % i for i in range(100)] + [b'b%d' % i for i in range(100)] + [b'c']


def test_transactions_that_overlap(broker, topic):
    """What is committed first is seen first when nothing older is open."""
    one, two = producer(broker, topic + '1'), producer(broker, topic + '2')
    plain = kafka_clients.librdkafka(broker)
    one.begin_transaction()
    two.begin_transaction()
    write(one, topic, [b'1'])
    write(plain, topic, [b'plain'])
    write(two, topic, [b'2'])
    two.commit_transaction(WAIT)
    assert seen(broker, topic) == []
    one.abort_transaction(WAIT)
    assert seen(broker, topic) == [b'plain', b'2']


def test_a_reader_waits_for_the_end(broker, topic):
    p = producer(broker, topic)
    c = consumer(broker, fetch_min_bytes=10000, fetch_wait_max_ms=20000, enable_partition_eof=False)
    c.assign([TopicPartition(topic, 0, 0)])
    p.begin_transaction()
    write(p, topic, [b'x' * 1000] * 50)
    assert c.poll(0.3) is None
    began = time.monotonic()
    p.commit_transaction(WAIT)
    got = [c.poll(WAIT) for _ in range(50)]
    assert all(m is not None and not m.error() for m in got)
    assert time.monotonic() - began < 15       # the end wakes it, not its time
    c.close()


# ------------------------------------------------------------------------------------------------------------ who may write
def test_the_older_producer_is_fenced(broker, topic):
    old = producer(broker, topic)
    old.begin_transaction()
    write(old, topic, [b'old'])
    young = producer(broker, topic)
    young.begin_transaction()
    write(young, topic, [b'young'])
    with pytest.raises(KafkaException) as error:
        old.commit_transaction(WAIT)
    assert fatal_or_fenced(error), error.value
    young.commit_transaction(WAIT)
    assert seen(broker, topic) == [b'young']


def test_who_takes_too_long_is_aborted(broker, topic):
    p = producer(broker, topic, transaction_timeout_ms=1000)
    p.begin_transaction()
    write(p, topic, [b'late'])
    plain = kafka_clients.librdkafka(broker)
    write(plain, topic, [b'plain'])
    until(lambda: seen(broker, topic) == [b'plain'], 40)    # Kafka looks every ten seconds
    with pytest.raises(KafkaException):
        p.commit_transaction(WAIT)
    assert seen(broker, topic) == [b'plain']


# ------------------------------------------------------------------------------------------- consume, transform, produce
def transform(broker, source, target, group, name, until_seen, restart=()):
    """Reads source, writes each value to target with what was read in one transaction; every third one is aborted and done again."""
    p, c = producer(broker, name), consumer(broker, group, enable_partition_eof=False)
    c.subscribe([source])
    turns, restarting, over = 0, None, threading.Event()
    while len(seen_all(broker, target)) < until_seen:
        messages = [m for m in c.consume(7, 1) if not m.error()]
        if not messages:
            continue
        turns += 1
        if turns in restart:
            if restarting:
                restarting.wait()
            restarting = broker_restart(broker, over)
        try:
            p.begin_transaction()
            for m in messages:
                p.produce(target, m.value(), partition=m.partition())
            p.send_offsets_to_transaction(c.position(c.assignment()), c.consumer_group_metadata(), WAIT)
            if turns % 3 == 2:
                p.abort_transaction(WAIT)
                back(c)
            else:
                p.commit_transaction(WAIT)
        except KafkaException as e:
            if e.args[0].txn_requires_abort():
                p.abort_transaction(WAIT)
            else:
                p = producer(broker, name)
            back(c)
    c.close()
    return turns, over


def back(c):
    """To where the group is."""
    for t in c.committed(c.assignment(), WAIT):
        c.seek(TopicPartition(t.topic, t.partition, max(t.offset, 0)))


def broker_restart(broker, over):
    """Meanwhile; the event says when it is back. A broker dies with the thread that has started it, so that one stays until `over`."""
    ready = threading.Event()

    def go():
        broker.kill9()
        broker.start()
        ready.set()
        over.wait()
    threading.Thread(target=go, daemon=True).start()
    return ready


def seen_all(broker, topic):
    return seen(broker, topic) + seen(broker, topic, partition=1)


def filled(broker, topic, count):
    p = kafka_clients.librdkafka(broker)
    for i in range(count):
        p.produce(topic, b'%d' % i, partition=i % 2)
    assert p.flush(WAIT) == 0


def test_consume_transform_produce(broker, topic):
    target = made(broker, topic + '-out', 2)
    filled(broker, topic, 60)
    assert transform(broker, topic, target, topic + '-g', topic, 60)[0] > 3
    assert seen(broker, target) == [b'%d' % i for i in range(0, 60, 2)]
    assert seen(broker, target, partition=1) == [b'%d' % i for i in range(1, 60, 2)]
    assert len(seen_all(broker, target)) == 60


@pytest.mark.skipif(TARGET != 'millrace', reason='kills the broker')
def test_consume_transform_produce_across_kill9(fresh_broker):
    source, target = made(fresh_broker, 'in', 2), made(fresh_broker, 'out', 2)
    filled(fresh_broker, source, 80)
    turns, over = transform(fresh_broker, source, target, 'g', 't', 80, restart=(2, 5, 8))
    assert turns > 8
    assert seen(fresh_broker, target) == [b'%d' % i for i in range(0, 80, 2)]
    assert seen(fresh_broker, target, partition=1) == [b'%d' % i for i in range(1, 80, 2)]
    over.set()


# ------------------------------------------------------------------------------------------------------------------ kill -9
@pytest.mark.skipif(TARGET != 'millrace', reason='kills the broker')
def test_kill9_between_writing_and_the_end(fresh_broker):
    """A transaction that was open goes on behind a kill -9; one that was ended stays so."""
    topic = made(fresh_broker, 'killed')
    p = producer(fresh_broker, 't')
    wanted = []
    for turn in range(KILLS):
        p.begin_transaction()
        values = [b'%d %d' % (turn, i) for i in range(20)]
        write(p, topic, values)
        fresh_broker.kill9()
        fresh_broker.start()
        assert seen(fresh_broker, topic) == wanted
        if turn % 2:
            p.abort_transaction(WAIT)
        else:
            p.commit_transaction(WAIT)
            wanted += values
        fresh_broker.kill9()
        fresh_broker.start()
        assert seen(fresh_broker, topic) == wanted


@pytest.mark.skipif(TARGET != 'millrace', reason='only Millrace has queues')
@pytest.mark.parametrize('compression', ['none', 'zstd'])
def test_a_bound_queue_gets_what_is_committed_once(fresh_broker, compression):
    from test_kafka_amqp import Amqp
    topic = made(fresh_broker, 'fed')
    with Amqp(fresh_broker) as amqp:
        queue = amqp.fed(topic)
    wanted = []
    p = producer(fresh_broker, 't', compression_type=compression)
    for turn in range(KILLS):
        p.begin_transaction()
        write(p, topic, [b'aborted %d %d' % (turn, i) for i in range(30)])
        p.abort_transaction(WAIT)
        p.begin_transaction()
        values = [b'committed %d %d' % (turn, i) for i in range(30)]
        write(p, topic, values)
        p.commit_transaction(WAIT)
        wanted += values
        fresh_broker.kill9()
        fresh_broker.start()
    p.begin_transaction()
    write(p, topic, [b'open'])
    with Amqp(fresh_broker) as amqp:
        assert [b for _, _, b in amqp.get(queue, len(wanted))] == wanted
        p.abort_transaction(WAIT)
        p.begin_transaction()
        write(p, topic, [b'last'])
        p.commit_transaction(WAIT)
        assert [b for _, _, b in amqp.get(queue, 1)] == [b'last']
        assert amqp.channel.queue_declare(queue, durable=True, passive=True).method.message_count == 0


def abort_in_each(w, topic, parts):
    """Aborts transactions of one record in each partition until one is refused: how many there were, and the error."""
    x = w.call('init_producer_id', 4, transactional_id='filler', transaction_timeout_ms=60000, producer_id=-1, producer_epoch=-1)
    who = {'producer_id': x['producer_id'], 'producer_epoch': x['producer_epoch']}
    for turn in itertools.count():
        added = w.call('add_partitions_to_txn', 3, v3_and_below_transactional_id='filler', v3_and_below_topics=[{'name': topic, 'partitions': list(range(parts))}],
                       **{'v3_and_below_' + k: v for k, v in who.items()})
        errors = {p['partition_error_code'] for p in added['results_by_topic_v3_and_below'][0]['results_by_partition']}
        if errors != {0}:
            return turn, errors
        data = kafka_wire.batch(['x'], pid=x['producer_id'], epoch=x['producer_epoch'], sequence=turn, attributes=0x10)
        done = w.call('produce', 9, transactional_id='filler', acks=-1, timeout_ms=10000, topic_data=[{
            'name': topic, 'partition_data': [{'index': i, 'records': data} for i in range(parts)]}])
        assert all(p['error_code'] == 0 for p in done['responses'][0]['partition_responses']), done
        assert w.call('end_txn', 3, transactional_id='filler', committed=False, **who)['error_code'] == 0


@pytest.mark.skipif(TARGET != 'millrace', reason='Kafka keeps them on disk')
def test_a_topic_full_of_aborted_ones():
    """A topic has a share of the memory for aborted transactions: the rest is for others, readers notice nothing, and old records that go make room."""
    parts = 128
    broker = kafka_clients.start(TARGET, args=('--set=kafka.transactions_bytes_max=1MiB',))
    try:
        full, free = made(broker, 'full', parts), made(broker, 'free')
        p = producer(broker, 'bad')
        p.begin_transaction()
        write(p, full, [b'x'])
        p.abort_transaction(WAIT)
        with kafka_wire.Wire(broker.kafka_port) as w:
            turns, errors = abort_in_each(w, full, parts)
        assert 30 < turns < 45 and errors == {44}       # 48 bytes each, of a quarter of the limit; POLICY_VIOLATION
        p.begin_transaction()
        p.produce(full, b'x', partition=0)
        with pytest.raises(KafkaException) as error:
            p.commit_transaction(WAIT)
        assert error.value.args[0].txn_requires_abort(), error.value
        p.abort_transaction(WAIT)
        p.begin_transaction()
        write(p, free, [b'x'])                          # it goes on elsewhere
        p.commit_transaction(WAIT)
        assert seen(broker, free) == [b'x'] and seen(broker, full) == []
        until(lambda: b'aborted_full' in open(os.path.join(broker.folder, 'log'), 'rb').read())
        totals = dict(re.findall(r'(\w+) +(\d+)', broker.cli('list', 'totals')))
        assert int(totals['transactions_refused']) > 0 and 0 < int(totals['transaction_bytes']) < 1048576 / 2
        broker.kill9()
        broker.start()
        with kafka_wire.Wire(broker.kafka_port) as w:
            assert abort_in_each(w, full, parts) == (0, {44})
            done = w.call('delete_records', 1, timeout_ms=10000, topics=[{'name': full, 'partitions': [{'partition_index': i, 'offset': -1} for i in range(parts)]}])
        assert all(r['error_code'] == 0 for r in done['topics'][0]['partitions'])
        p = producer(broker, 'bad')
        p.begin_transaction()
        write(p, full, [b'x'], partition=parts - 1)
        p.commit_transaction(WAIT)
        assert seen(broker, full, partition=parts - 1) == [b'x']
    finally:
        broker.remove()


@pytest.mark.parametrize('compression', ['none', 'zstd'])
def test_compaction_drops_what_was_aborted(compression):
    """Of a compacted topic: values that were committed count as any, those that were aborted go, and so do the values that they would have replaced not."""
    args = ('--set=keyed.every=1',) if TARGET == 'millrace' else ()
    broker = kafka_clients.start(TARGET, args=args, settings='log.cleaner.backoff.ms=200\n')
    try:
        name = made(broker, 'compacted', 1, cleanup_policy='compact', segment_bytes=1048576, min_cleanable_dirty_ratio='0.01')
        p, last, n = producer(broker, 'keeper', compression_type=compression), {}, 0
        filler = random.Random(1).randbytes(20000)      # 100 KB a transaction, ten of which are a file
        for n in range(60):
            values = {b'k%d' % (n * 7 % 13 + i): b'%d-%d' % (n, i) + filler[n:] + filler[:n] for i in range(5)}
            p.begin_transaction()
            for key, value in values.items():
                p.produce(name, value, key=key)
            if n % 3 == 1:
                p.flush(WAIT)
                p.abort_transaction(WAIT)
            else:
                p.commit_transaction(WAIT)
                last.update(values)
        p.begin_transaction()
        p.produce(name, b'open', key=b'k0')         # nothing behind this one is decided
        p.flush(WAIT)

        def rows(committed):
            c, out = consumer(broker, committed=committed), []
            c.assign([TopicPartition(name, 0, 0)])
            while True:
                m = c.poll(WAIT)
                assert m is not None, len(out)
                if m.error():
                    c.close()
                    return out
                out.append((m.key(), m.value()))
        aborted = {b'%d-' % i for i in range(60) if i % 3 == 1}
        until(lambda: sum(v.split(b'-')[0] + b'-' in aborted for _, v in rows(False)) < 40, seconds=60)    # of 100; some are in the open file
        assert dict(rows(True)) == last
        assert len(rows(True)) < 120                    # of 200: old values have gone as well
        p.commit_transaction(WAIT)
        assert dict(rows(True)) == {**last, b'k0': b'open'}
        if TARGET == 'millrace':
            broker.kill9()
            broker.start()
            assert dict(rows(True)) == {**last, b'k0': b'open'}
    finally:
        broker.remove()
