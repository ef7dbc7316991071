"""`millrace bench nexmark` against a real broker: it makes what it says, counts right, finds what is wrong, and leaves nothing behind."""

import json
import subprocess

import pytest

from test_sql import run


def bench(broker, *words, code=0):
    done = subprocess.run([broker.binary, 'bench', 'nexmark', '--port-offset', str(broker.offset), '--json', '--quiet', *words],
                          capture_output=True, timeout=120, text=True)
    assert done.returncode == code, done.stderr + done.stdout
    return json.loads(done.stdout) if done.stdout else done.stderr


def nothing_is_left(broker):
    for what in ('STREAMS', 'VIEWS', 'QUERIES'):
        assert [line for line in run(broker, 'SHOW ' + what) if 'row' in line] == []
    left = subprocess.run([broker.binary, 'list', 'queues', '--data', broker.data], capture_output=True, text=True, check=True)
    assert 'nexmark' not in left.stdout


def test_queries(broker):
    """A projection, a filter, a join that is kept for ever and a changelog with a key."""
    told = bench(broker, '--queries', 'q0,q2,q20,q17', '--events', '5000', '--pid', str(broker.process.pid))
    assert told['load']['events'] == 5000
    bids = 5000 * 46 // 50
    assert told['q0']['rows_in'] == 5000 and told['q0']['rows_out'] == told['q0']['records_out'] == told['q0']['rows_wanted'] == bids
    assert 0 < told['q2']['rows_out'] == told['q2']['rows_wanted'] < bids
    assert 0 < told['q20']['rows_out'] < bids and told['q20']['state_bytes'] > 0 and 'rows_wanted' not in told['q20']
    assert told['q17']['records_out'] == bids < told['q17']['rows_out']    # an update is one record of two rows
    for name in ('q0', 'q2', 'q20', 'q17'):
        assert told[name]['rate'] > 0 and told[name]['broker_cpu_s'] >= told[name]['sql_cpu_s'] > 0
        assert told[name]['faults'] == told[name]['late'] == 0
    nothing_is_left(broker)


def test_patterns(broker):
    """Nexmark's CEP queries, of which nothing is known without asking; what they give is compared in tests/sql/test_match.py."""
    names = ['cep0', 'cep1', 'cep2', 'cep3']
    told = bench(broker, '--queries', ','.join(names), '--events', '60000')
    for name in names:
        assert told[name]['rows_in'] == 60000 and 0 < told[name]['rows_out'] == told[name]['records_out']
        assert told[name]['faults'] == told[name]['late'] == 0 < told[name]['state_bytes']
    assert told['cep1']['rows_out'] <= told['cep2']['rows_out']
    nothing_is_left(broker)


def test_the_same_seed_makes_the_same_events(broker):
    words = ['--queries', 'q2,q14', '--events', '3000']
    a, b, c, d = (bench(broker, *words, *more) for more in ([], [], ['--seed', '7'], ['--out-of-order', '100', '--batch', '7']))
    counts = [(told['load']['bytes'], told['q2']['rows_out'], told['q14']['rows_out']) for told in (a, b, c, d)]
    assert counts[0] == counts[1] == counts[3] != counts[2]


def test_latency(broker):
    told = bench(broker, '--scenario', 'latency', '--rate', '2000', '--events', '16001', '--warmup', '0')
    assert told['flow']['windows'] == 4 and told['flow']['windows_missing'] == 0
    assert told['window latency']['max_us'] >= told['row latency']['p50_us'] > 0
    nothing_is_left(broker)


def test_what_is_there_is_not_touched(broker):
    run(broker, "CREATE STREAM bids (id BIGINT); CREATE VIEW bid AS SELECT id FROM bids")
    assert 'there is a bid already' in bench(broker, '--queries', 'q0', '--events', '10', code=1)
    run(broker, 'DROP VIEW bid; DROP STREAM bids')


def test_a_query_that_fails_is_told(broker):
    told = bench(broker, '--queries', 'q20,q0', '--events', '20000', '--state-memory', '65536', code=2)
    assert 'memory' in told['q20']['failed'] and told['q0']['rows_out'] == told['q0']['rows_wanted']
    nothing_is_left(broker)


@pytest.mark.parametrize('words', [['--queries', 'q99'], ['--queries', 'q0,q0'], ['--scenario', 'latency', '--events', '10'],
                                   ['--scenario', 'latency', '--out-of-order', '5'], ['--name', "a'b"], ['--events', '-1'], ['nonsense']])
def test_wrong_usage(broker, words):
    assert 'millrace bench nexmark' in bench(broker, *words, code=64)
