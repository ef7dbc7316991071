"""Kafka's messages as python3-kafka writes them: our decoder reads the same values, our encoder the same bytes.

Random values for every message and version that both know; no broker is started. The field lists of python3-kafka were
written by other people from the same protocol.
"""

import importlib
import json
import os
import random
import subprocess

import pytest

from kafka.protocol import types
from kafka.protocol.struct import Struct

import brokers

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FILTER = os.path.join(os.environ.get('MILLRACE_BUILD', os.path.join(TOP, 'build', 'release')), 'tests', 'clients', 'kafka_codec')
SEED = brokers.seed('MILLRACE_KAFKA_SEED')
MODULES = 'admin commit fetch group metadata offset produce'.split()
# Where python3-kafka 2.0.2 departs from the protocol, and from Kafka's own message descriptions.
WRONG = {
    'DescribeAclsRequest_v2': 'flexible, but written without compact lengths',
    'DescribeAclsResponse_v2': 'the same',
    'DescribeGroupsResponse_v3': 'authorized operations after all groups instead of in each',
    'GroupCoordinatorResponse_v1': 'no throttle time',
    'OffsetRequest_v4': 'a leader epoch of 8 bytes',
    'OffsetRequest_v5': 'the same',
    'ProduceResponse_v8': 'record errors after all partitions instead of in each',
}
BITS = {types.Int8: 8, types.Int16: 16, types.Int32: 32, types.Int64: 64}


def messages():
    for name in MODULES:
        module = importlib.import_module('kafka.protocol.' + name)
        for title, cls in sorted(vars(module).items()):
            if isinstance(cls, type) and issubclass(cls, Struct) and '_v' in title and hasattr(cls, 'API_KEY'):
                way = title.split('_v')[0]
                for word in ('Request', 'Response'):
                    if way.endswith(word) and title not in WRONG:
                        yield title, cls, word.lower()


def draw(kind, chance):
    """(value for python3-kafka, the same as the filter prints it)"""
    if isinstance(kind, types.Array):
        element = kind.array_of
        # FetchRequest 7 to 11 name a class where an object must be, so that python3-kafka itself can only write it empty.
        unusable = isinstance(element, types.Schema) and types.String in element.fields
        both = [draw(element, chance) for _ in range(0 if unusable else chance.randrange(4))]
        return [a for a, _ in both], [b for _, b in both]
    if isinstance(kind, types.Schema):
        both = [draw(field, chance) for field in kind.fields]
        return tuple(a for a, _ in both), [b for _, b in both]
    if isinstance(kind, types.String):
        text = chance.choice(['', 'a', 'orders', 'größe', 'x' * 200])
        return text, text.encode().hex()
    if kind is types.Bytes:
        value = chance.randbytes(chance.choice([0, 1, 100]))
        return value, value.hex()
    if kind is types.Boolean:
        value = chance.random() < 0.5
        return value, value
    bits = BITS[kind]
    value = chance.choice([0, 1, -1, -(1 << bits - 1), (1 << bits - 1) - 1, chance.randrange(-(1 << bits - 1), 1 << bits - 1)])
    return value, value


def flat(value):
    """The values in the order of the wire: names are python3-kafka's own, and it sees a struct where there is none."""
    if isinstance(value, dict):
        value = list(value.values())
    return [v for part in value for v in flat(part)] if isinstance(value, list) else [value]


def through_filter(lines):
    done = subprocess.run([FILTER], input='\n'.join(lines) + '\n', text=True, stdout=subprocess.PIPE, check=True, timeout=60)
    return done.stdout.splitlines()


def test_values_and_bytes_are_those_of_python_kafka():
    print('MILLRACE_KAFKA_SEED=%d' % SEED)
    chance = random.Random(SEED)
    cases = []
    for title, cls, way in messages():
        for _ in range(30):
            ours, printed = draw(cls.SCHEMA, chance)
            message = cls(*ours)  # kept: its encode holds it only weakly
            cases.append((title, cls, way, message.encode(), printed))
    answers = iter(through_filter('%s %d %d %s' % (way, cls.API_KEY, cls.API_VERSION, wire.hex())
                                  for _, cls, way, wire, _ in cases))
    compared, unknown = set(), set()
    for title, cls, way, wire, printed in cases:
        answer = next(answers)
        if answer == 'unknown':
            unknown.add(title)
            continue
        assert not answer.startswith('refused'), (title, wire.hex(), answer)
        again = next(answers)
        assert flat(json.loads(answer)) == flat(printed), (title, wire.hex())
        assert bytes.fromhex(again) == wire, title
        compared.add(title)
    print('%d messages compared; not spoken: %s' % (len(compared), ' '.join(sorted(unknown))))
    for title in ('ProduceRequest_v3', 'ProduceResponse_v7', 'FetchRequest_v11', 'FetchResponse_v4', 'MetadataRequest_v0',
                  'MetadataResponse_v5', 'JoinGroupRequest_v2', 'OffsetCommitRequest_v3', 'CreateTopicsRequest_v0'):
        assert title in compared
    # Those that Kafka 4 speaks no more, which Produce and Fetch refuse here too.
    assert 'ProduceRequest_v2' in unknown and 'FetchRequest_v3' in unknown


@pytest.mark.parametrize('line, answer', [
    ('request 0 2 0001', 'unknown'),
    ('request 12 0 0001670000000500016100', 'refused 4'),
    ('request 3 1 7fffffff', 'refused 1'),
])
def test_the_filter_refuses(line, answer):
    assert through_filter([line]) == [answer]
