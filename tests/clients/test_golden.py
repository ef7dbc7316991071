"""Stores that older brokers wrote: they open for ever, with exactly what was in them.

golden/v1-* were written by the first broker with pages (format version 1 of journal, records and segments), golden/make.py says how.
A change that cannot read one of them, or reads something else out of it, fails here. A new format version adds files of its own
and leaves these alone. test_formats.py reads the same bytes by docs/formats/*, without any code of the broker's.
"""

import importlib.util
import json
import os
import tarfile

import pytest

from conftest import TARGET
from test_stores import check

pytestmark = pytest.mark.skipif(TARGET == 'rabbitmq', reason='stores of Millrace')
if TARGET == 'rabbitmq':
    collect_ignore = [__file__]

GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'golden')
STORES = sorted(name[:-len('.tar.xz')] for name in os.listdir(GOLDEN) if name.endswith('.tar.xz'))

spec = importlib.util.spec_from_file_location('golden_make', os.path.join(GOLDEN, 'make.py'))
make = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make)


def contains(whole, part):
    """Newer brokers may say more about a thing, never less or something else."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and contains(whole[key], part[key]) for key in part)
    if isinstance(part, list):
        return isinstance(whole, list) and len(whole) == len(part) and all(any(contains(w, p) for w in whole) for p in part)
    return whole == part


@pytest.fixture(params=STORES)
def store(request, tmp_path):
    with tarfile.open(os.path.join(GOLDEN, request.param + '.tar.xz')) as archive:
        archive.extractall(tmp_path, filter='data') if hasattr(tarfile, 'data_filter') else archive.extractall(tmp_path)
    with open(os.path.join(GOLDEN, request.param + '.json'), encoding='utf-8') as f:
        return str(tmp_path / 'data'), json.load(f)


def compare(found, expected):
    assert found['messages'] == expected['messages']
    for queue, messages in expected['queues'].items():
        assert found['queues'][queue] == messages, queue
    assert set(found['queues']) == set(expected['queues'])
    for kind, things in expected['definitions'].items():
        assert contains(found['definitions'][kind], things), (kind, found['definitions'][kind], things)


def test_an_old_store_opens_with_all_that_was_in_it(store, broker_on):
    data, expected = store
    assert len(expected['queues']['paged']) == 44 and len(expected['queues']['large']) == 1     # the test tests something
    compare(make.look(broker_on(data)), make.expected_now(data, expected))


def test_an_old_store_stays_whole(store, broker_on):
    """Compacted and paged again by this broker, stopped, started."""
    data, expected = store
    broker = broker_on(data, make.SETTINGS)
    make.tool(broker.binary, 'compact', '--data', broker.data)
    assert broker.stop()[0] == 0
    make.tool(broker.binary, 'check', broker.data)
    broker.start()
    compare(make.look(broker), make.expected_now(data, expected))


def test_an_old_store_is_good(store):
    data, expected = store
    code, report = check(data)
    assert code == 0 and report['verdict'] == 'good' and report['totals']['messages'] == expected['messages']
