"""A query that keeps more than its memory goes on in a file: over kill -9, with what SHOW QUERIES and EXPLAIN tell; a file that may not grow ends it by name; a
snapshot of it takes little memory."""

import collections
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


LONG, MANY = 2000, 15000     # bytes of a key, keys: 30 MB of state


def kept(broker):
    """Bytes of memory but for messages and what waits for the disk."""
    return broker.status()['memory_other']


def counts(broker):
    return queries(broker)['counts']


def counted(broker):
    """What holds in the end, of the rows that came and went."""
    net = collections.Counter()
    for line in run(broker, 'SELECT id, n, _op FROM told'):
        if 'row' in line:
            net[tuple(line['row'][:2])] += -1 if line['row'][2] == '-' else 1
    return {row: n for row, n in net.items() if n}


def test_a_snapshot_of_much_takes_little_memory_over_kill_9():
    """While state of 30 MB is saved, of which 4 MB are in memory, the broker keeps less than half of it; killed while it is saved again, the query comes to
    the same answer."""
    b = brokers.Millrace(args=('--set', 'sql.snapshot_rows=%d' % MANY))
    body = [json.dumps({'id': i, 'k': '%d ' % i + chr(97 + i % 26) * LONG}).encode() for i in range(MANY)]
    short = json.dumps({'id': -1, 'k': 'short'}).encode()
    try:
        b.start()
        run(b, STREAM + "CREATE STREAM counts WITH (state_memory = '4 MiB', partitions = 1) AS SELECT MIN(id) AS id, COUNT(*) AS n FROM s GROUP BY k EMIT CHANGES;"
                        "CREATE STREAM told (id BIGINT, n BIGINT, _op TEXT) WITH (topic = 'counts')")
        w = open_channel(b)
        publish(w, '', 'in', *body[:-1])
        wait_until(lambda: counts(b)['rows_in'] == MANY - 1, 60, 'it has read all but one')
        assert counts(b)['spilled_bytes'] > LONG * MANY * 3 // 4
        before, most = kept(b), []
        publish(w, '', 'in', body[-1])      # now it is saved …
        wait_until(lambda: counts(b)['rows_in'] == MANY, 60, 'it has read all')
        publish(w, '', 'in', short)         # … and before it has been, nothing is taken
        wait_until(lambda: most.append(kept(b)) or counts(b)['rows_in'] == MANY + 1, 60, 'it is saved')
        assert max(most) - before < LONG * MANY // 2, (before, most)
        publish(w, '', 'in', *[short] * MANY)
        wait_until(lambda: counts(b)['rows_in'] >= 2 * MANY, 60, 'it has read those')
        b.kill9()                           # it is saved again
        b.start()
        wait_until(lambda: counts(b)['state'] == 'RUNNING' and counts(b)['lag'] == 0, 60, 'it goes on')
        expected = {(i, 1): 1 for i in range(MANY)} | {(-1, MANY + 1): 1}
        wait_until(lambda: counted(b) == expected, 60, 'all is counted once')
        assert counts(b)['reason'] is None and not os.path.exists(os.path.join(b.data, 'sql.scratch'))
    finally:
        b.remove()
