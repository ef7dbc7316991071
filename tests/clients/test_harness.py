"""The tests test: the codec loses nothing, the comparison sees every kind of difference, a skip under CI fails."""

import copy
import decimal
import os
import subprocess
import sys

import pytest

import cases
import script
import spec
import wire
from cases import row
from conftest import HERE
from script import V, closing, publish, queue


def test_codec_round_trip_of_every_method():
    sample = {'octet': 7, 'short': 60000, 'long': 4000000000, 'longlong': 2**63, 'timestamp': 2**40, 'shortstr': 'süß',
              'longstr': 'x' * 70000, 'bit': True, 'table': {'k': V('l', -2**40)}}
    for m in spec.METHODS.values():
        values = {f.name: sample[f.type] for f in m.fields}
        payload = wire.encode_method(m.name, **values)
        name, fields = wire.decode_method(payload)
        assert name == m.name and fields == {k: v for k, v in values.items() if not k.startswith('_')}, m.name
        for cut in range(4, len(payload), max(1, len(payload) // 50)):
            if m.fields:
                with pytest.raises(wire.WireError):
                    wire.decode_method(payload[:cut])


def test_codec_round_trip_of_every_table_type():
    table = {'t': V('t', True), 'b': V('b', -5), 'B': V('B', 200), 's': V('s', -300), 'u': V('u', 60000), 'I': V('I', -70000),
             'i': V('i', 4000000000), 'l': V('l', -2**60), 'f': V('f', 1.5), 'd': V('d', 2.25), 'D': V('D', decimal.Decimal('1.25')),
             'S': V('S', 'text'), 'x': V('x', b'\0\1'), 'T': V('T', 77), 'V': V('V', None),
             'A': V('A', [V('I', 1), V('F', {'deep': V('A', [])})]), 'F': V('F', {})}
    assert wire.decode_table(wire.Reader(wire.encode_table(table))) == table
    header = wire.decode_header(wire.encode_header(5, {'headers': table, 'priority': 3, 'timestamp': 9}))
    assert header.properties == {'headers': table, 'priority': 3, 'timestamp': 9} and header.body_size == 5


ROW = row('sample', queue('{u}q'), publish('', '{u}q'), queue('x', durable=True).err(406, 'PRECONDITION_FAILED - …'))
GOOD = [[['queue.declare-ok', {'queue': '{u}q', 'message_count': 0, 'consumer_count': 0}]], [],
        closing('channel', 406, 'PRECONDITION_FAILED - no', 'queue.declare'), []]


def changed(path, value):
    answers = copy.deepcopy(GOOD)
    place = answers
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return answers


def test_comparison_accepts_the_same():
    assert script.compare(ROW, GOOD, copy.deepcopy(GOOD), True) == []


@pytest.mark.parametrize('path,value', [
    ((0, 0, 0), 'queue.bind-ok'), ((0, 0, 1, 'message_count'), 1), ((2, 0, 1, 'reply_code'), 404), ((2, 0, 1, 'reply_text'), 'PRECONDITION_FAILED - other'),
    ((2, 0, 1, 'method_id'), 20), ((2, 0, 0), 'connection.close'), ((1,), [['basic.deliver', {}]]), ((2,), ['timeout']), ((2,), []),
    ((3,), [['leftover', 'a', 1, ['basic.cancel', {}]]])], ids=str)
def test_comparison_sees(path, value):
    assert script.compare(ROW, GOOD, changed(path, value), True)


def test_comparison_sees_a_table_type():
    """Types inside headers count: a long is not an int, and x-death is compared entry by entry."""
    one = script._plain({'headers': {'x-death': V('A', [V('F', {'count': V('l', 1), 'queue': V('S', 'q')})])}})
    two = script._plain({'headers': {'x-death': V('A', [V('F', {'count': V('I', 1), 'queue': V('S', 'q')})])}})
    assert script._newer(one, None) != script._newer(two, None)


def test_a_listed_difference_must_be_there():
    """What Millrace shall answer differently is demanded, not merely allowed."""
    r = row('differs', queue('q').differs(closing('channel', 406, ..., 'queue.declare'), 'a reason'))
    rabbit, millrace = [GOOD[0], []], [closing('channel', 406, 'PRECONDITION_FAILED - x', 'queue.declare'), []]
    assert script.compare(r, rabbit, millrace, True) == []
    assert script.compare(r, rabbit, rabbit, True)
    assert script.compare(r, rabbit, millrace, False)       # RabbitMQ against itself knows no such difference


def test_last_death_headers_must_agree():
    death = {'x-death': {'A': [{'F': {'reason': 'S:expired', 'queue': 'S:q', 'exchange': 'S:'}}]}}
    right = dict(death, **{'x-last-death-reason': 'S:expired', 'x-last-death-queue': 'S:q', 'x-last-death-exchange': 'S:'})
    wrong = dict(right, **{'x-last-death-queue': 'S:other'})
    assert script._newer(right, None) == script._newer(death, None) != script._newer(wrong, None)


def test_row_names_are_unique_and_many():
    assert len({r.name for r in cases.all_rows()}) == len(cases.all_rows()) > 700


def test_a_skip_under_ci_is_a_failure(tmp_path):
    (tmp_path / 'conftest.py').write_text(open(os.path.join(HERE, 'conftest.py')).read().replace('__file__', repr(os.path.join(HERE, 'conftest.py'))))
    (tmp_path / 'test_x.py').write_text('import pytest\ndef test_a():\n    pytest.skip("not here")\n')
    results = {}
    for ci in ('true', ''):
        done = subprocess.run([sys.executable, '-m', 'pytest', '-q', '-rs', '-p', 'no:cacheprovider', str(tmp_path)], env=dict(os.environ, CI=ci),
                              stdout=subprocess.PIPE, text=True)
        results[ci] = done.returncode, done.stdout
    assert results['true'][0] == 1 and 'not here' in results['true'][1], results
    assert results[''][0] == 0 and '1 skipped' in results[''][1], results
