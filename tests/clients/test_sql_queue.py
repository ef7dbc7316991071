"""Queries that take messages from queues and dead-letter queues: what pika has published has its effect once, whatever is killed when."""

import json
import random

import pika
import pytest

import brokers
from brokers import wait_until
from test_sql import queries, rows, run
from test_sql_http import as_user, ask


@pytest.fixture
def broker(fresh_millrace):
    return fresh_millrace


def channel_to(broker):
    connection = pika.BlockingConnection(pika.ConnectionParameters('127.0.0.1', broker.port))
    channel = connection.channel()
    channel.confirm_delivery()
    return connection, channel


def publish(channel, queue, ids):
    for i in ids:
        body = json.dumps({'id': i, 'k': 'k%d' % (i % 5)}) if i % 50 != 49 else 'no json %d' % i
        channel.basic_publish('', queue, body, pika.BasicProperties(delivery_mode=2))


def drained(channel, queue):
    """The bodies of all that waits in it."""
    got = []
    for method, _, body in channel.consume(queue, inactivity_timeout=0.5, auto_ack=True):
        if not method:
            break
        got.append(body)
    channel.cancel()
    return got


def waiting(broker, queue):
    connection, channel = channel_to(broker)
    try:
        return channel.queue_declare(queue, passive=True).method.message_count
    finally:
        connection.close()


JOBS = "CREATE STREAM jobs (id BIGINT, k TEXT) FROM QUEUE 'jobs' WITH (prefetch = 100);"


def test_kill_9_loses_and_repeats_no_message(broker):
    """A queue into a stream, by way of that stream into windows, and another queue into a queue; messages that are none are dead letters."""
    run(broker, JOBS + 'CREATE STREAM done AS SELECT id, k FROM jobs; CREATE MATERIALIZED VIEW counts AS SELECT k, COUNT(*) AS n FROM done GROUP BY k;'
                       "CREATE STREAM tasks (id BIGINT) FROM QUEUE 'tasks'; CREATE SINK results WITH (queue = 'results') AS SELECT id FROM tasks WHERE id % 3 = 0")
    chance, published = random.Random(5), 0
    for _ in range(4):
        connection, channel = channel_to(broker)
        for _ in range(chance.randrange(1, 4)):
            ids = range(published, published + 100)
            publish(channel, 'jobs', ids)
            publish(channel, 'tasks', ids)
            published += 100
        broker.kill9()
        broker.start()
    good = [i for i in range(published) if i % 50 != 49]
    wait_until(lambda: len(rows(broker, 'SELECT id FROM done')) >= len(good), 30, 'all has been taken')
    wait_until(lambda: waiting(broker, 'jobs') == waiting(broker, 'tasks') == 0 and queries(broker)['done']['lag'] == queries(broker)['results']['lag'] == 0,
               30, 'and is acknowledged')
    assert sorted(row[0] for row in rows(broker, 'SELECT id FROM done')) == good
    wait_until(lambda: sum(row[1] for row in rows(broker, 'SELECT * FROM counts')) == len(good), 30, 'what is made of it')
    run(broker, "CREATE STREAM letters (what TEXT) WITH (topic = 'done.dlq', format = 'raw')")
    assert sorted(row[0] for row in rows(broker, 'SELECT what FROM letters')) == sorted('no json %d' % i for i in range(published) if i % 50 == 49)
    connection, channel = channel_to(broker)
    assert sorted(json.loads(body)['id'] for body in drained(channel, 'results')) == [i for i in good if i % 3 == 0]
    connection.close()


def test_a_dead_letter_queue_is_read(broker):
    """What a consumer has rejected, with the reason that the broker gave it."""
    connection, channel = channel_to(broker)
    channel.queue_declare('dead', durable=True)
    channel.queue_declare('work', durable=True, arguments={'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': 'dead'})
    publish(channel, 'work', range(4))
    for method, _, _ in channel.consume('work'):
        channel.basic_reject(method.delivery_tag, requeue=False)
        if method.delivery_tag == 4:
            break
    channel.cancel()
    run(broker, "CREATE STREAM dead (id BIGINT) FROM QUEUE 'dead';"
                "CREATE STREAM why AS SELECT id, _headers ->> 'x-first-death-reason' AS reason, _headers ->> 'x-first-death-queue' AS queue FROM dead")
    wait_until(lambda: rows(broker, 'SELECT * FROM why') == [[i, 'rejected', 'work'] for i in range(4)], 20, 'four of them')
    connection.close()


def test_what_is_held_comes_back(broker):
    """A query that is paused, dropped or has failed leaves what it has not used, marked as redelivered; consumers and queries share a queue."""
    connection, channel = channel_to(broker)
    run(broker, JOBS + "CREATE STREAM strict WITH (on_error = 'fail') AS SELECT id FROM jobs")
    publish(channel, 'jobs', range(48))
    wait_until(lambda: len(rows(broker, 'SELECT id FROM strict')) == 48, 20, 'its rows')
    publish(channel, 'jobs', [49, 50])
    wait_until(lambda: queries(broker)['strict']['state'] == 'FAILED', 20, 'it fails at what is no JSON')
    assert queries(broker)['strict']['lag'] == 0 and 'jobs/0, offset 49' in queries(broker)['strict']['reason']
    wait_until(lambda: waiting(broker, 'jobs') == 2, 20, 'both are back')
    method, _, body = channel.basic_get('jobs', auto_ack=True)
    assert method.redelivered and body == b'no json 49'
    run(broker, 'RESUME strict')
    wait_until(lambda: len(rows(broker, 'SELECT id FROM strict')) == 49, 20, 'it goes on')
    run(broker, 'PAUSE strict')
    publish(channel, 'jobs', [51])
    assert [json.loads(body)['id'] for body in drained(channel, 'jobs')] == [51]
    connection.close()


def test_rights_are_the_owners(broker):
    broker.cli('user', 'add', 'ann', 'secret')
    broker.cli('permission', 'set', 'ann', '^mine', '.*', '^(mine|done)')
    assert 'may not read jobs' in ask(broker, JOBS, as_user('ann', 'secret'))[2][-1]['error']['message']
    mine = "CREATE STREAM mine (id BIGINT) FROM QUEUE 'mine'; CREATE STREAM mine_done AS SELECT id FROM mine"
    assert 'error' not in ask(broker, mine, as_user('ann', 'secret'))[2][-1]
    wait_until(lambda: queries(broker)['mine_done']['state'] == 'RUNNING', 10, 'it consumes')
    broker.cli('permission', 'set', 'ann', '^mine', '.*', '^done')
    connection, channel = channel_to(broker)
    publish(channel, 'mine', [1])
    connection.close()
    broker.restart()
    wait_until(lambda: queries(broker)['mine_done']['state'] == 'FAILED', 10, 'a right that has been taken away')
    assert queries(broker)['mine_done']['reason'] == 'its owner may not read the queue mine'


def test_who_holds_too_long_fails_by_name():
    """A query that cannot write keeps what it has taken no longer than any consumer may; then it is back, and nothing of it was written."""
    broker = brokers.Millrace(args=('--set', 'consumer.timeout=400'))
    try:
        broker.start()
        connection, channel = channel_to(broker)
        channel.queue_declare('small', durable=True, arguments={'x-max-length': 1, 'x-overflow': 'reject-publish'})
        run(broker, JOBS + "CREATE SINK results WITH (queue = 'small') AS SELECT id FROM jobs")
        publish(channel, 'jobs', [1])
        wait_until(lambda: waiting(broker, 'small') == 1, 20, 'the first has room')
        publish(channel, 'jobs', [2, 3])
        wait_until(lambda: queries(broker)['results']['state'] == 'FAILED', 20, 'the others have none')
        assert 'delivery acknowledgement on channel 1 timed out' in queries(broker)['results']['reason']
        wait_until(lambda: waiting(broker, 'jobs') == 2, 20, 'they are back')
        assert waiting(broker, 'small') == 1
        connection.close()
    finally:
        broker.remove()
