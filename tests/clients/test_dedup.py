"""Deduplication windows: what a publisher sees who repeats what was not confirmed, across kill -9.

About Millrace alone: RabbitMQ has it as a plug-in that Debian does not ship. docs/queue-arguments.md is the promise.
"""

import json
import random
import time

import pika
import pytest

import wire
from conftest import TARGET
from test_durability import bodies, everything, ok, open_channel

pytestmark = pytest.mark.skipif(TARGET == 'rabbitmq', reason='queue arguments of Millrace')
if TARGET == 'rabbitmq':
    collect_ignore = [__file__]

HEADER = 'x-deduplication-header'


def connect(broker):
    connection = pika.BlockingConnection(pika.ConnectionParameters(broker.host, broker.port))
    channel = connection.channel()
    channel.confirm_delivery()
    return connection, channel


def put(channel, queue, key, body, exchange='', **headers):
    properties = pika.BasicProperties(delivery_mode=2, headers=dict({HEADER: key}, **headers))
    channel.basic_publish(exchange, queue, body, properties, mandatory=True)


def got(channel, queue):
    out = []
    while True:
        method, _, body = channel.basic_get(queue, auto_ack=True)
        if not method:
            return out
        out.append(body.decode())


def test_a_window_survives_kill_9(fresh_millrace):
    connection, channel = connect(fresh_millrace)
    channel.queue_declare('timed', durable=True, arguments={'x-message-deduplication': True, 'x-cache-ttl': 600000})
    channel.queue_declare('there', durable=True, arguments={'x-message-deduplication': True})
    for queue in ('timed', 'there'):
        for number in range(300):
            put(channel, queue, 'k%d' % (number % 100), str(number))
        assert got(channel, queue)[:3] == ['0', '1', '2']
        put(channel, queue, 'k7', 'again')
    assert got(channel, 'timed') == []
    fresh_millrace.kill9()
    fresh_millrace.start()
    connection, channel = connect(fresh_millrace)
    put(channel, 'timed', 'k3', 'again')
    put(channel, 'there', 'k7', 'a duplicate')
    put(channel, 'there', 'k3', 'new')
    assert got(channel, 'timed') == [] and got(channel, 'there') == ['again', 'new']
    connection.close()


def test_a_duplicate_is_no_unroutable_message_and_is_counted(fresh_millrace):
    connection, channel = connect(fresh_millrace)
    channel.queue_declare('q', durable=True, arguments={'x-message-deduplication': True, HEADER: 'order-id'})
    channel.exchange_declare('in', 'fanout')
    channel.exchange_declare('inner', 'topic')
    channel.exchange_bind('inner', 'in')
    channel.queue_bind('q', 'inner', '#')
    for i in range(4):
        put(channel, 'x', 'same', str(i), 'in', **{'order-id': i // 2})    # mandatory: a return would raise
    assert got(channel, 'q') == ['0', '2']
    [listed] = json.loads(fresh_millrace.cli('list', 'queues', '--json'))
    assert int(listed['duplicates']) == 2 and int(listed['deduplication_keys']) == 0
    connection.close()


def test_transactions(fresh_millrace):
    connection, channel = connect(fresh_millrace)
    channel.queue_declare('q', durable=True, arguments={'x-message-deduplication': True, 'x-cache-ttl': 600000})
    tx = connection.channel()
    tx.tx_select()
    put(tx, 'q', 'a', 'rolled back')
    tx.tx_rollback()
    put(tx, 'q', 'a', 'first')
    put(tx, 'q', 'a', 'second')
    put(channel, 'q', 'b', 'before the commit')
    put(tx, 'q', 'b', 'third')
    tx.tx_commit()
    fresh_millrace.kill9()
    fresh_millrace.start()
    connection, channel = connect(fresh_millrace)
    put(channel, 'q', 'a', 'after')
    assert got(channel, 'q') == ['before the commit', 'first']
    connection.close()


def test_the_time_of_a_key_comes(fresh_millrace):
    connection, channel = connect(fresh_millrace)
    channel.queue_declare('q', durable=True, arguments={'x-message-deduplication': True, 'x-cache-ttl': 3000})
    put(channel, 'q', 'a', '1')
    put(channel, 'q', 'a', '2')
    fresh_millrace.restart()
    connection, channel = connect(fresh_millrace)
    count, until = 1, time.monotonic() + 30
    while count == 1 and time.monotonic() < until:      # it is let in when its time has come, and not before
        put(channel, 'q', 'a', 'later')
        count = channel.queue_declare('q', passive=True).method.message_count
    assert got(channel, 'q') == ['1', 'later']
    connection.close()


# ---- each message exactly once, whoever dies ----

ROUNDS = 8
WINDOW = 150


def confirms(w, count, done=()):
    """Sequence numbers that are confirmed, up to all of them or until the connection dies."""
    done = set(done)
    try:
        while len(done) < count:
            m = w.take(1, ('basic.ack',))
            done |= set(range(len(done) + 1 if m.multiple else m.delivery_tag, m.delivery_tag + 1))
    except (OSError, wire.WireError):
        pass
    return done


@pytest.mark.parametrize('arguments', [{'x-cache-ttl': 600000}, {}], ids=['for a time', 'while it is there'])
def test_exactly_once(fresh_millrace, arguments):
    """A publisher is cut off by kill -9 and repeats what was not confirmed; so does a compaction now and then."""
    chance = random.Random(7)
    fresh_millrace.args += ('--set', 'journal.compact_bytes=1M')
    fresh_millrace.restart()
    w = open_channel(fresh_millrace)
    ok(w.call(1, 'queue.declare', queue='q', durable=True, arguments=dict(arguments, **{'x-message-deduplication': True})))
    for round_number in range(ROUNDS):
        first = round_number * WINDOW
        waiting = list(range(first, first + WINDOW))
        body = b'%d ' % first + b'.' * 3000
        for number in waiting:
            w.publish(1, '', 'q', b'%d %s' % (number, body), delivery_mode=2, headers={HEADER: str(number)})
        early = confirms(w, 1) if chance.randrange(2) else set()
        fresh_millrace.kill9()
        sure = {first + tag - 1 for tag in confirms(w, WINDOW, early)}
        fresh_millrace.start()
        w = open_channel(fresh_millrace)
        again = [n for n in waiting if n not in sure] + chance.sample(range(first), min(first, 20))     # and some of long ago
        for number in again:
            w.publish(1, '', 'q', b'%d %s' % (number, body), delivery_mode=2, headers={HEADER: str(number)})
        assert len(confirms(w, len(again))) == len(again)
        w.close()
        w = open_channel(fresh_millrace)
    numbers = [int(text.split()[0]) for text in bodies(everything(w, 'q'))]
    assert sorted(numbers) == list(range(ROUNDS * WINDOW))
    w.close()


# ---- random sequences against a model ----

SPAN = 3600 * 1000


class Model:
    """What the queue holds and which keys count."""

    def __init__(self, timed, size):
        self.timed, self.size, self.queue, self.keys, self.unacked = timed, size, [], {}, []

    def publish(self, key, body):
        if key is not None and key in self.keys:
            return
        if key is not None:
            while len(self.keys) >= self.size:
                del self.keys[next(iter(self.keys))]
            self.keys[key] = body
        self.queue.append((key, body))

    def gone(self, item):
        if not self.timed and self.keys.get(item[0]) == item[1]:
            del self.keys[item[0]]


def number(item):
    return int(item[1].rstrip('.'))


@pytest.mark.parametrize('seed', range(6))
def test_random_sequences(fresh_millrace, seed):
    chance = random.Random(seed)
    timed = seed % 2 == 0
    size = chance.choice((3, 5, 1000)) if timed else 1000
    arguments = {'x-message-deduplication': True, 'x-cache-size': size}
    if timed:
        arguments['x-cache-ttl'] = SPAN
    if seed % 3 == 0:
        fresh_millrace.args += ('--set', 'paging.bytes=64K', '--set', 'paging.page_bytes=8K')
        fresh_millrace.restart()
    connection, channel = connect(fresh_millrace)
    channel.queue_declare('q', durable=True, arguments=arguments)
    m = Model(timed, size)
    filler = '.' * (4000 if seed % 3 == 0 else 10)
    for i in range(250):
        what = chance.randrange(20)
        if what < 12:
            key = chance.choice((None, 'a', 'b', 'c', 'd', 5, 'e', '5', True, 'f' * 300))
            body = '%d%s' % (i, filler)
            headers = None if key is None else {HEADER: key}
            channel.basic_publish('', 'q', body, pika.BasicProperties(delivery_mode=2, headers=headers))
            m.publish('a boolean' if key is True else key, body)
        elif what < 15:
            method, _, body = channel.basic_get('q')
            assert (body.decode() if method else None) == (m.queue[0][1] if m.queue else None)
            if method:
                m.unacked.append((method.delivery_tag, m.queue.pop(0)))
        elif what < 17 and m.unacked:
            tag, item = m.unacked.pop(chance.randrange(len(m.unacked)))
            channel.basic_ack(tag)
            m.gone(item)
        elif what < 18 and m.unacked:
            tag, item = m.unacked.pop()
            channel.basic_nack(tag)
            m.queue.append(item)
            m.queue.sort(key=number)
        elif what == 18 and chance.random() < 0.3:
            channel.queue_purge('q')
            for item in m.queue:
                m.gone(item)
            m.queue = []
        elif what == 19 and chance.random() < 0.3:
            channel.basic_publish('', 'q', str(i), pika.BasicProperties(delivery_mode=2))
            fresh_millrace.kill9()      # that was confirmed: the acks before it are on disk too
            fresh_millrace.start()
            connection, channel = connect(fresh_millrace)
            m.queue += [(None, str(i))] + [item for _, item in m.unacked]
            m.queue.sort(key=number)
            m.unacked = []
            assert got(channel, 'q') == [item[1] for item in m.queue]
            for item in m.queue:
                m.gone(item)
            m.queue = []
        assert channel.queue_declare('q', passive=True).method.message_count == len(m.queue)
    connection.close()
