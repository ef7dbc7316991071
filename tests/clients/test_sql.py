"""Continuous SQL in a running broker: queries over what clients publish, statements by POST /sql, and kill -9 while they run."""

import http.client
import json
import os
import random
import subprocess
import threading

import pytest

import brokers
import wire
from brokers import wait_until
from test_durability import everything, open_channel, publish
from test_sql_http import ask


@pytest.fixture
def broker(fresh_millrace):
    return fresh_millrace


def run(broker, text):
    """The lines of statements that have to succeed."""
    status, _, lines = ask(broker, text)
    assert status == 200 and 'error' not in lines[-1], lines
    return lines


def rows(broker, text):
    return [line['row'] for line in run(broker, text) if 'row' in line]


def queries(broker):
    lines = run(broker, 'SHOW QUERIES')
    names = [c['name'] for c in lines[0]['columns']]
    return {row[0]: dict(zip(names, row)) for row in (line['row'] for line in lines if 'row' in line)}


STREAM = '''CREATE STREAM s (id BIGINT, k TEXT, ts TIMESTAMP, WATERMARK FOR ts) WITH (topic = 'in', partitions = 1);'''
WINDOWS = '''SELECT k, window_end, COUNT(*) AS n, MIN(id) AS first FROM TUMBLE(s, ts, INTERVAL '1' SECOND)
             GROUP BY k, window_start, window_end'''


def event(i):
    return json.dumps({'id': i, 'k': 'k%d' % (i % 5), 'ts': '2026-01-01 00:%02d:%02d.%03d' % (i // 60000, i // 1000 % 60, i % 1000)}).encode()


def test_streams_queues_and_views(broker):
    run(broker, STREAM + "CREATE SINK alarms WITH (queue = 'alarms') AS SELECT id FROM s WHERE id >= 8;"
                         "CREATE VIEW few AS SELECT id, k FROM s WHERE id < 3; CREATE STREAM all_ AS SELECT id FROM s")
    w = open_channel(broker)
    publish(w, '', 'in', *[event(i) for i in range(10)], b'no json')
    assert rows(broker, 'SELECT id FROM few') == [[0], [1], [2]]
    wait_until(lambda: queries(broker)['all_']['rows_in'] == 11, 10, 'the query has read all')
    wait_until(lambda: rows(broker, 'SELECT id FROM all_') == [[i] for i in range(10)], 10, 'its rows are there')
    got = []
    wait_until(lambda: got.extend(json.loads(m.body) for m in everything(w, 'alarms')) or len(got) == 2, 10, 'two alarms')
    assert got == [{'id': 8}, {'id': 9}]
    run(broker, 'DROP SINK alarms; DROP VIEW few; DROP STREAM all_; DROP STREAM s')
    assert queries(broker) == {}


def test_a_query_is_followed_while_events_come(broker):
    run(broker, STREAM)
    c = http.client.HTTPConnection('127.0.0.1', broker.http_port, timeout=30)
    c.request('POST', '/sql', 'SELECT k, COUNT(*) AS n FROM s GROUP BY k EMIT CHANGES', {'Content-Type': 'application/sql'})
    answer = c.getresponse()
    assert json.loads(answer.readline())['columns'][1] == {'name': 'n', 'type': 'BIGINT'}
    w = open_channel(broker)
    publish(w, '', 'in', event(0))
    assert json.loads(answer.readline()) == {'row': ['k0', 1]}
    publish(w, '', 'in', event(5))
    assert json.loads(answer.readline()) == {'row': ['k0', 1], 'change': '-'}
    assert json.loads(answer.readline()) == {'row': ['k0', 2]}
    c.close()


def test_kill_9_loses_and_repeats_nothing(broker):
    """Windows into a stream, a filter into a queue; what they have written in the end is what one look at the input gives."""
    run(broker, STREAM + 'CREATE STREAM windows AS ' + WINDOWS + ";CREATE SINK sevens WITH (queue = 'sevens') AS SELECT id FROM s WHERE id % 7 = 0")
    chance, i = random.Random(17), 0
    for _ in range(6):
        w = open_channel(broker)
        for _ in range(chance.randrange(1, 8)):
            publish(w, '', 'in', *[event(n) for n in range(i, i + 400)])
            i += 400
        for n in range(i, i + 50):
            w.publish(1, '', 'in', event(n), delivery_mode=2)    # these are or are not there
        i += 50
        broker.kill9()
        broker.start()
    expected = sorted(rows(broker, WINDOWS))
    assert sum(row[2] for row in expected) >= i - 6 * 50
    wait_until(lambda: len(rows(broker, 'SELECT * FROM windows')) >= len(expected), 30, 'every window is complete')
    assert sorted(rows(broker, 'SELECT k, window_end, n, first FROM windows')) == expected
    sevens = sorted(json.loads(m.body)['id'] for m in everything(open_channel(broker), 'sevens'))
    assert sevens == sorted(row[0] for row in rows(broker, 'SELECT id FROM s WHERE id % 7 = 0'))


def test_tables_and_materialized_views_over_kill_9(broker):
    """A view and what is made of it hold what one look at the input gives; rows that go are gone, whatever is killed when."""
    run(broker, STREAM + 'CREATE MATERIALIZED VIEW sums AS SELECT k, COUNT(*) AS n, SUM(id) AS total FROM s GROUP BY k;'
                         'CREATE MATERIALIZED VIEW few AS SELECT id % 50 AS m, COUNT(*) AS n FROM s GROUP BY id % 50 HAVING COUNT(*) < 21;'
                         'CREATE MATERIALIZED VIEW counts AS SELECT n, COUNT(*) AS ks FROM sums GROUP BY n HAVING COUNT(*) > 0;'
                         'CREATE TABLE names (k TEXT PRIMARY KEY, name TEXT);'
                         "INSERT INTO names VALUES ('k0', 'zero'), ('k1', 'one'), ('k1', 'uno')")
    for i in range(3):
        publish(open_channel(broker), '', 'in', *[event(n) for n in range(i * 340, (i + 1) * 340)])
        broker.kill9()
        broker.start()
    sums = sorted(rows(broker, 'SELECT k, COUNT(*) AS n, SUM(id) AS total FROM s GROUP BY k'))
    assert sum(row[1] for row in sums) == 1020
    wait_until(lambda: sorted(rows(broker, 'SELECT * FROM sums')) == sums, 30, 'the view has all')
    few = sorted(rows(broker, 'SELECT id % 50 AS m, COUNT(*) AS n FROM s GROUP BY id % 50 HAVING COUNT(*) < 21'))
    assert 0 < len(few) < 50
    wait_until(lambda: sorted(rows(broker, 'SELECT * FROM few')) == few, 30, 'what has too many is gone')
    wait_until(lambda: rows(broker, 'SELECT * FROM counts') == [[204, 5]], 30, 'a view of a view')
    assert sorted(rows(broker, 'SELECT name, n FROM sums JOIN names USING (k) WITH (state_ttl = \'none\')')) == [['uno', 204], ['zero', 204]]
    run(broker, 'DROP MATERIALIZED VIEW counts; DROP MATERIALIZED VIEW sums; CREATE MATERIALIZED VIEW sums AS SELECT DISTINCT k FROM s')
    wait_until(lambda: len(rows(broker, 'SELECT * FROM sums')) == 5, 30, 'another of the same name begins anew')


def put(w, first, count):
    publish(w, '', 'in', *[event(n) for n in range(first, first + count)])


class Load:
    """Events by a producer of its own, each acknowledged before the next ones, until it is stopped or the broker goes."""

    def __init__(self, broker, first, put=put, count=100):
        self.broker, self.next, self.stopped = broker, first, False
        self.put, self.count = put, count
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        try:
            w = open_channel(self.broker)
            while not self.stopped:
                self.put(w, self.next, self.count)
                self.next += self.count
        except (OSError, AssertionError, wire.WireError):
            pass                                        # it was killed
        self.next += self.count                         # those that were on their way are or are not there

    def stop(self):
        self.stopped = True
        self.thread.join()
        return self.next


def try_to_run(broker, text):
    try:
        ask(broker, text)
    except (OSError, http.client.HTTPException, ValueError):
        pass                                            # it was killed


def versions_of(broker, query):
    """(what s has, what the query wrote): ids, and behind them which version gave the row."""
    return [row[0] for row in rows(broker, 'SELECT id FROM s')], rows(broker, 'SELECT id, version FROM ' + query)


@pytest.mark.parametrize('select', ['SELECT id, %d AS version FROM s', 'SELECT MAX(id) AS id, %d AS version FROM s GROUP BY id'])
def test_replaced_in_place_under_load(broker, select):
    """Each row once, from the version that was there, while a producer goes on and the broker is killed in the middle of it."""
    run(broker, STREAM + 'CREATE STREAM out AS ' + select % 0)
    publish(open_channel(broker), '', 'in', *[event(n) for n in range(20000)])
    upto, states = 20000, set()
    for version in range(1, 7):
        load = Load(broker, upto)
        if version % 2:                                 # it is killed meanwhile; what was entered goes on by itself
            statement = threading.Thread(target=try_to_run, args=(broker, 'CREATE OR REPLACE STREAM out AS ' + select % version))
            statement.start()
            for _ in range(version // 2):
                states |= {row['state'] for name, row in queries(broker).items() if name != 'out'}
            broker.kill9()
            statement.join()
            upto = load.stop()
            broker.start()
            load = Load(broker, upto)
            wait_until(lambda: set(queries(broker)) == {'out'}, 30, 'it has taken its place')
        else:
            run(broker, 'CREATE OR REPLACE STREAM out AS ' + select % version)
        seen = load.next
        wait_until(lambda: load.next > seen + 100, 10, 'some events came behind the switch')
        upto = load.stop()
    read, written = versions_of(broker, 'out')
    wait_until(lambda: len(rows(broker, 'SELECT id FROM out')) >= len(read), 30, 'it has read all')
    read, written = versions_of(broker, 'out')
    assert [row[0] for row in written] == read
    versions = [row[1] for row in written]
    assert versions == sorted(versions) and set(versions) >= {0, 2, 4, 6}
    assert states <= {'BUILDING'}


def test_a_new_version_that_fails_leaves_the_old_one(broker):
    run(broker, STREAM + 'CREATE STREAM out AS SELECT id, 0 AS version FROM s')
    w = open_channel(broker)
    publish(w, '', 'in', *[event(n) for n in range(10)], b'no json')
    status, _, lines = ask(broker, "CREATE OR REPLACE STREAM out WITH (on_error = 'fail') AS SELECT id, 1 AS version FROM s")
    assert 'out is not replaced: in/0, offset 10: a text that is no JSON' in lines[-1]['error']['message'], (status, lines)
    publish(w, '', 'in', event(10))
    wait_until(lambda: rows(broker, 'SELECT id, version FROM out') == [[n, 0] for n in range(11)], 10, 'the old one goes on')
    shown = queries(broker)
    assert shown['out']['state'] == 'RUNNING' and shown['amq.sql.next.out']['state'] == 'FAILED'
    run(broker, 'DROP QUERY "amq.sql.next.out"')
    assert set(queries(broker)) == {'out'}


def test_queries_share_packed_batches(broker):
    """What clients compress (batches of some megabytes, unpacked) is read once for queries that stand at the same place: each row once for each of them,
    also when one of them writes so much that it falls behind, and over kill -9."""
    run(broker, STREAM + "CREATE STREAM sevens WITH (partitions = 1) AS SELECT id FROM s WHERE id % 7 = 0;"
                         "CREATE STREAM wide WITH (partitions = 1) AS SELECT id, repeat(k, 150) AS text FROM s;"
                         "CREATE STREAM sums WITH (partitions = 1) AS SELECT k, COUNT(*) AS n FROM s GROUP BY k")
    for i, codec in enumerate(('zstd', 'lz4', 'gzip', 'snappy')):
        events = b'\n'.join(event(n) for n in range(i * 15000, (i + 1) * 15000))
        subprocess.run(['kcat', '-P', '-b', '127.0.0.1:%d' % broker.kafka_port, '-t', 'in', '-z', codec, '-X', 'acks=all', '-X', 'linger.ms=300',
                        '-X', 'message.max.bytes=8000000', '-X', 'batch.num.messages=20000', '-X', 'batch.size=4000000'],
                       input=events, check=True, timeout=60)
        if codec == 'gzip':
            broker.kill9()
            broker.start()
    wait_until(lambda: all(q['state'] == 'RUNNING' and q['lag'] == 0 and q['rows_in'] for q in queries(broker).values()), 60, 'all have read all')
    wait_until(lambda: rows(broker, 'SELECT COUNT(*) AS n FROM wide') == [[60000]], 60, 'each row once')
    assert rows(broker, 'SELECT COUNT(DISTINCT id) AS n, MAX(id) AS most FROM wide') == [[60000, 59999]]
    assert rows(broker, 'SELECT COUNT(*) AS n, SUM(id) AS total FROM sevens') == [[8572, sum(range(0, 60000, 7))]]
    assert sorted(rows(broker, 'SELECT k, MAX(n) AS n FROM sums GROUP BY k')) == [['k%d' % i, 12000] for i in range(5)]


def test_where_the_time_of_a_query_goes(broker):
    """For a second, while it runs and has something to do."""
    run(broker, STREAM + 'CREATE STREAM sums AS SELECT k, SUM(id) AS total FROM s GROUP BY k')
    w = open_channel(broker)

    def operators():
        c = http.client.HTTPConnection('127.0.0.1', broker.http_port, timeout=30)
        c.request('POST', '/sql', 'EXPLAIN ANALYZE QUERY sums', {'Content-Type': 'application/sql'})
        publish(w, '', 'in', *[event(i) for i in range(500)])
        lines = [json.loads(line) for line in c.getresponse().read().splitlines()]
        c.close()
        names = [column['name'] for column in lines[0]['columns']]
        return {line['row'][0]: dict(zip(names, line['row'])) for line in lines if 'row' in line}

    wait_until(lambda: operators()['aggregate']['ns'] > 0, 30, 'some of it came in that second')
    last = operators()
    assert last['scan']['reads'] == 's' and last['scan']['rows_in'] >= 500 and last['output']['rows_in'] > 0
    assert last['aggregate']['state_bytes'] > 0


def test_sql_switched_off():
    b = brokers.Millrace(args=('--set', 'sql=false'))
    try:
        b.start()
        assert ask(b, 'SHOW QUERIES')[0] == 503
    finally:
        b.remove()


def test_an_idle_broker_has_no_thread_for_it(broker):
    def threads():
        return [open('/proc/%d/task/%s/comm' % (broker.process.pid, t)).read().strip()
                for t in os.listdir('/proc/%d/task' % broker.process.pid)]
    assert 'sql' not in threads()
    run(broker, STREAM)
    assert 'sql' in threads()
    broker.restart()
    wait_until(lambda: 'sql' in threads(), 10, 'statements have it started')
