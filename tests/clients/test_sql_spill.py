"""A query that keeps more than its memory goes on in a file: over kill -9, with what SHOW QUERIES and EXPLAIN tell; a file that may not grow ends it by name."""

import json
import os
import random

import brokers
from brokers import wait_until
from test_durability import open_channel, publish
from test_sql import queries, rows, run

STREAM = "CREATE STREAM s (id BIGINT, k TEXT) WITH (topic = 'in', partitions = 1);"
GROUPS = 'SELECT k, COUNT(*) AS n, SUM(id) AS total FROM s GROUP BY k'
VIEW = f"CREATE MATERIALIZED VIEW sums WITH (state_memory = '128 KiB') AS {GROUPS}"
KEYS = 2500


def events(chance, count):
    return [json.dumps({'id': i, 'k': 'key of some length, number %d' % chance.randrange(KEYS)}).encode() for i in range(count)]


def sums(broker):
    return queries(broker)['sums']


def test_more_than_its_memory_over_kill_9():
    chance = random.Random(3)
    b = brokers.Millrace(args=('--set', 'sql.snapshot_rows=900'))
    try:
        b.start()
        run(b, STREAM + VIEW)
        for _ in range(4):
            publish(open_channel(b), '', 'in', *events(chance, 2000))
            wait_until(lambda: sums(b)['spilled_bytes'] > 0, 30, 'what it keeps is in its file')
            b.kill9()
            b.start()
        publish(open_channel(b), '', 'in', *events(chance, 2000))
        wait_until(lambda: sums(b)['rows_in'] > 0 and sums(b)['lag'] == 0, 30, 'it has read all')
        told = sums(b)
        assert told['state'] == 'RUNNING' and told['state_bytes'] <= 128 * 1024 < told['spilled_bytes'], told
        expected = sorted(rows(b, GROUPS))
        assert len(expected) > KEYS * 9 // 10 and sum(row[1] for row in expected) == 10000
        wait_until(lambda: sorted(rows(b, 'SELECT * FROM sums')) == expected, 30, 'the view has all')
        assert not os.path.exists(os.path.join(b.data, 'sql.scratch'))
        assert ['aggregate', None, 'in memory or on disk'] in rows(b, 'EXPLAIN ' + GROUPS)
    finally:
        b.remove()


def test_a_file_that_may_not_grow_ends_the_query_by_name():
    chance = random.Random(4)
    b = brokers.Millrace(args=('--set', 'sql.scratch_bytes=65536'))
    try:
        b.start()
        run(b, STREAM + VIEW)
        w = open_channel(b)
        publish(w, '', 'in', *events(chance, 4000))
        wait_until(lambda: sums(b)['state'] == 'FAILED', 30, 'it has ended')
        assert 'what it keeps beyond its memory has no room on the disk' in sums(b)['reason']
        publish(w, '', 'in', *events(chance, 1))    # the broker goes on
        assert len(rows(b, 'SELECT id FROM s')) == 4001
    finally:
        b.remove()
