"""Partitions that a stream gets while queries read it, by Kafka's CreatePartitions, under load and kill -9."""

import random

import pytest
from confluent_kafka import admin as confluent_admin

from brokers import wait_until
from kafka_clients import at
from test_durability import open_channel, publish
from test_sql import Load, event, queries, rows, run


@pytest.fixture
def broker(fresh_millrace):
    return fresh_millrace


STREAM = "CREATE STREAM s (id BIGINT, k TEXT) WITH (topic = 'in', partitions = 1);"


def create_partitions(broker, count):
    admin = confluent_admin.AdminClient({'bootstrap.servers': at(broker)})
    admin.create_partitions([confluent_admin.NewPartitions('in', count)])['in'].result(20)


def put(w, first, count):
    """Ten with one key, so that they go to all partitions."""
    for i in range(first, first + count, 10):
        publish(w, '', 'in', *[event(n) for n in range(i, i + 10)], headers={'x-stream-key': 'key %d' % i})


def test_partitions_under_load_and_kill_9(broker):
    """Whatever a query remembers, it reads each record of each partition once, from the first on."""
    run(broker, STREAM + 'CREATE STREAM plain AS SELECT id FROM s;'
                         'CREATE STREAM counted AS SELECT id, COUNT(*) AS n FROM s GROUP BY id EMIT CHANGES')
    chance, upto = random.Random(5), 0
    for count in (2, 3, 7, 8):
        load = Load(broker, upto, put, 50)
        wait_until(lambda: load.next > upto + 100, 30, 'there is some load')
        create_partitions(broker, count)
        seen, more = load.next, chance.randrange(0, 300)
        wait_until(lambda: load.next >= seen + more, 30, 'it goes on')
        broker.kill9()
        upto = load.stop()
        broker.start()
    put(open_channel(broker), upto, 1500)               # so that each partition has some
    read = sorted(row[0] for row in rows(broker, 'SELECT id FROM s'))
    assert {row[0] for row in rows(broker, 'SELECT DISTINCT _partition FROM s')} == set(range(8))
    wait_until(lambda: all(q['lag'] == 0 and q['state'] == 'RUNNING' for q in queries(broker).values()), 30, 'all is read')
    wait_until(lambda: len(rows(broker, 'SELECT id FROM counted')) >= len(read), 30, 'its rows are there')
    assert sorted(row[0] for row in rows(broker, 'SELECT id FROM plain')) == read
    assert sorted(rows(broker, 'SELECT id, n FROM counted')) == [[i, 1] for i in read]


def test_partitions_are_read_at_once(broker):
    """No start, no PAUSE: who follows a stream has the first record of a new partition, too."""
    run(broker, STREAM + 'CREATE STREAM out AS SELECT id FROM s')
    w = open_channel(broker)
    publish(w, '', 'in', event(0))
    wait_until(lambda: rows(broker, 'SELECT id FROM out') == [[0]], 10, 'the query runs')
    create_partitions(broker, 4)
    put(w, 1, 400)
    wait_until(lambda: sorted(rows(broker, 'SELECT id FROM out')) == [[i] for i in range(401)], 10, 'what is in all of them')
    assert len(rows(broker, 'SELECT DISTINCT _partition FROM s')) == 4
