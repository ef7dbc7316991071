"""The rows of kafka_cases.py against Millrace, held against what a real Kafka answered (kafka_rows.py)."""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

import brokers
import kafka_rows
import kafka_wire

WORKERS = 4
ROWS = kafka_rows.all_rows()


@pytest.fixture(scope='module')
def answers(request):
    """All rows that were chosen, several at a time: most of a row is waiting."""
    rows = [item.callspec.params['row'] for item in request.session.items
            if getattr(item, 'callspec', None) and isinstance(item.callspec.params.get('row'), kafka_rows.Row)]
    # As kafka_peer.py sets up Kafka.
    broker = brokers.Millrace(args=['--set=kafka.group_delay=0', '--set=kafka.group_session_min=100']).start()
    logins = [r for r in rows if r.name.startswith('sasl')]
    shut = brokers.Millrace(args=['--set=kafka.anonymous=']).start() if logins else None
    try:
        with ThreadPoolExecutor(WORKERS) as pool:
            played = pool.map(lambda r: kafka_rows.Player(broker.kafka_port, r.unique).play(r), [r for r in rows if r not in logins])
            out = dict(zip([r.name for r in rows if r not in logins], played))
            out.update((r.name, kafka_rows.Player(shut.kafka_port, r.unique).play(r)) for r in logins)
            yield out
        assert broker.process.poll() is None, broker.log_tail()
    finally:
        broker.remove()
        if shut:
            shut.remove()


@pytest.fixture(scope='module')
def golden():
    return kafka_rows.golden()


@pytest.mark.parametrize('row', ROWS, ids=lambda r: r.name)
def test_row(row, answers, golden):
    if os.environ.get('MILLRACE_SHOW'):
        for step, answer in zip(row.steps, answers[row.name]):
            print('%s\n        %s' % (step, json.dumps(answer)))
    bad = kafka_rows.compare(row, golden.get(row.name), answers[row.name])
    if bad:
        pytest.fail('\n  '.join([row.name, *bad]), pytrace=False)


def test_every_row_is_recorded_and_no_answer_without_a_row(golden):
    assert {r.name for r in kafka_rows.all_rows()} == set(golden)
    # What Kafka did not answer at all is no answer to be held against.
    assert not [name for name, answers in golden.items() for a in answers if isinstance(a, str) and a.startswith(('error: ', 'never: '))]


def test_a_difference_is_found(golden):
    """The comparison itself: every kind of change in an answer is seen, what is left out is not."""
    row = next(r for r in kafka_rows.all_rows() if r.name == 'produce v9')
    right = golden[row.name]
    assert kafka_rows.compare(row, right, right) == []
    for change in (lambda a: a[3]['responses'][0]['partition_responses'][0].update(base_offset=1), lambda a: a[3].pop('responses'),
                   lambda a: a[5]['responses'][0]['partitions'][0]['records'].pop(), lambda a: a[5].update(extra=0), lambda a: a.pop(),
                   lambda a: a.__setitem__(1, 'never')):
        changed = json.loads(json.dumps(right))
        change(changed)
        assert kafka_rows.compare(row, right, changed), changed
    changed = json.loads(json.dumps(right))
    changed[3]['responses'][0]['partition_responses'][0]['error_message'] = 'other words'
    assert kafka_rows.compare(row, right, changed) == []


def test_the_wire_reads_what_it_writes():
    """Each request and answer, in each version, of nothing but defaults."""
    for name, (_, first, last, _, flexible) in kafka_wire.APIS.items():
        for version in range(first, last + 1):
            for way in ('_request', '_response'):
                wire = kafka_wire.Writer(version, version >= flexible).struct(name + way, {})
                reader = kafka_wire.Reader(wire, version, version >= flexible)
                reader.struct(name + way)
                reader.end()
