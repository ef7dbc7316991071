"""Delayed retry: what a consumer sees who gives messages back, across kill -9.

About Millrace alone: RabbitMQ has it from 4.3 on. docs/queue-arguments.md is the promise.
"""

import json
import random
import time

import pika
import pytest

from conftest import TARGET

pytestmark = pytest.mark.skipif(TARGET == 'rabbitmq', reason='queue arguments of Millrace')
if TARGET == 'rabbitmq':
    collect_ignore = [__file__]

DURABLE = pika.BasicProperties(delivery_mode=2)
LATE = 60       # seconds that a busy machine may take for anything


def connect(broker):
    connection = pika.BlockingConnection(pika.ConnectionParameters(broker.host, broker.port))
    channel = connection.channel()
    channel.confirm_delivery()
    return connection, channel


def declare(channel, **arguments):
    channel.queue_declare('q', durable=True, arguments={'x-' + k.replace('_', '-'): v for k, v in arguments.items()})


def put(channel, *texts):
    for text in texts:
        channel.basic_publish('', 'q', text, DURABLE)


def take(channel, wait=LATE):
    """The next message, within that time: (tag, text, properties), or None."""
    until = time.monotonic() + wait
    while True:
        method, properties, body = channel.basic_get('q')
        if method:
            return method.delivery_tag, body.decode(), properties
        if time.monotonic() >= until:
            return None


def listed(broker):
    [row] = [r for r in json.loads(broker.cli('list', 'queues', '--json')) if r['name'] == 'q']
    return tuple(int(row[key]) for key in ('messages', 'messages_ready', 'messages_unacknowledged', 'messages_delayed'))


def test_backs_off_and_lets_others_pass(fresh_millrace):
    connection, channel = connect(fresh_millrace)
    declare(channel, delayed_retry_min=300, delayed_retry_multiplier=2)
    put(channel, 'poison', 'fine')
    began = None
    for returns in range(4):
        tag, text, properties = take(channel)
        assert text == 'poison' and (properties.headers or {}).get('x-delivery-count', 0) == returns
        assert returns == 0 or time.monotonic() - began > 0.3 * 2 ** (returns - 1) - 0.01
        began = time.monotonic()
        channel.basic_nack(tag)
        if returns == 0:
            assert take(channel)[1] == 'fine'
            assert listed(fresh_millrace) in ((2, 0, 1, 1), (2, 1, 1, 0))       # on a slow machine it is back
    assert take(channel, 0) is None
    connection.close()


def test_a_consumer_is_given_what_is_due(fresh_millrace):
    connection, channel = connect(fresh_millrace)
    declare(channel, delayed_retry_type='failed', delayed_retry_min=200, delivery_limit=3,
            dead_letter_exchange='', dead_letter_routing_key='dead')
    channel.queue_declare('dead')
    put(channel, 'a')
    seen = []
    for method, properties, body in channel.consume('q', inactivity_timeout=LATE):
        seen.append(time.monotonic())
        channel.basic_reject(method.delivery_tag)
        if len(seen) == 4:
            break
    channel.cancel()
    pauses = [b - a for a, b in zip(seen, seen[1:])]
    assert all(pause > 0.2 * n - 0.01 for n, pause in enumerate(pauses, 1)), pauses
    method, properties, body = channel.basic_get('dead', auto_ack=True)
    assert body == b'a' and properties.headers['x-death'][0]['reason'] == 'delivery_limit'
    connection.close()


def test_a_delay_survives_kill_9(fresh_millrace):
    connection, channel = connect(fresh_millrace)
    declare(channel, delayed_retry_min=3600 * 1000)
    put(channel, *map(str, range(20)))
    taken = [take(channel) for _ in range(20)]
    for tag, text, _ in taken:
        if int(text) % 2:
            channel.basic_nack(tag)
    put(channel, 'last')        # confirmed: the returns before it are on disk
    fresh_millrace.kill9()
    fresh_millrace.start()
    assert listed(fresh_millrace) == (21, 11, 0, 10)
    connection, channel = connect(fresh_millrace)
    texts = []
    while (message := take(channel, 0)):
        texts.append(message[1])
    assert texts == [str(n) for n in range(0, 20, 2)] + ['last']
    assert channel.queue_purge('q').method.message_count == 10
    connection.close()


@pytest.mark.parametrize('paged', [False, True], ids=['in memory', 'in pages'])
def test_random_sequences(fresh_millrace, paged):
    """Messages are given back for no time to speak of or for an hour (by whether they are rejected), and the broker is killed:
    what is delayed for an hour never shows, everything else is there, in order."""
    chance = random.Random(11)
    if paged:
        fresh_millrace.args += ('--set', 'paging.bytes=64K', '--set', 'paging.page_bytes=8K')
        fresh_millrace.restart()
    connection, channel = connect(fresh_millrace)
    declare(channel, delayed_retry_type='failed', delayed_retry_min=3600 * 1000, delivery_limit=-1)
    ready, held, delayed, filler = [], {}, set(), '.' * (3000 if paged else 5)
    for i in range(400):
        what = chance.randrange(20)
        if what < 8:
            put(channel, '%d%s' % (i, filler))
            ready.append(i)
        elif what < 13:
            message = take(channel, 0)
            assert (int(message[1].rstrip('.')) if message else None) == (ready[0] if ready else None)
            if message:
                held[ready.pop(0)] = message[0]
        elif what < 18 and held:
            number = chance.choice(list(held))
            tag = held.pop(number)
            if what < 15:
                channel.basic_reject(tag)
                delayed.add(number)
            elif what == 15:
                channel.basic_nack(tag)
                ready = sorted(ready + [number])
            else:
                channel.basic_ack(tag)
        elif what == 19 and i % 3 == 0:
            put(channel, '%d%s' % (i, filler))
            fresh_millrace.kill9()
            fresh_millrace.start()
            connection, channel = connect(fresh_millrace)
            ready = sorted(ready + [i] + list(held))
            held = {}
    row = listed(fresh_millrace)
    assert row[0] == len(ready) + len(held) + len(delayed) and row[2] == len(held)
    texts = []
    while (message := take(channel, 0)):
        texts.append(int(message[1].rstrip('.')))
    assert texts == ready and delayed
    assert listed(fresh_millrace)[3] == len(delayed)
    connection.close()
