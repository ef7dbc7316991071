"""Stores of MQTT's clients and Kafka's share groups that older brokers wrote: they open for ever, with exactly what was in them.

golden/clients.py made them: a session with its subscriptions, messages and packet ids, a publisher in the middle of QoS 2, retained values,
wills, a share group that has read some, and what is set of it (records 77, 78 and 96 to 100). The same bytes are read by docs/formats in
test_formats.py.
"""

import importlib.util
import json
import os
import tarfile

import pytest

from conftest import TARGET
from test_golden import GOLDEN
from test_golden import make as plain_make
from test_stores import check

pytestmark = pytest.mark.skipif(TARGET != 'millrace', reason='stores of Millrace')
if TARGET != 'millrace':
    collect_ignore = [__file__]

FOLDER = os.path.join(GOLDEN, 'clients')
STORES = sorted(name[:-len('.tar.xz')] for name in os.listdir(FOLDER) if name.endswith('.tar.xz'))

spec = importlib.util.spec_from_file_location('golden_clients', os.path.join(GOLDEN, 'clients.py'))
make = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make)


@pytest.fixture(params=STORES)
def store(request, tmp_path):
    with tarfile.open(os.path.join(FOLDER, request.param + '.tar.xz')) as archive:
        archive.extractall(tmp_path)
    with open(os.path.join(FOLDER, request.param + '.json'), encoding='utf-8') as f:
        return str(tmp_path / 'data'), json.load(f)


def test_clients_find_what_they_left(store, broker_on):
    data, expected = store
    assert len(expected['mqtt']['messages']) == 3 and len(expected['mqtt']['retained']) == 3      # the test tests something
    assert [row[:2] for row in expected['share']['acquired']] == [[2, 2], [4, 4]]
    assert make.plain(make.look(broker_on(data))) == expected


def test_clients_find_it_after_a_compaction(store, broker_on):
    data, expected = store
    broker = broker_on(data, make.SETTINGS)
    plain_make.tool(broker.binary, 'compact', '--data', broker.data)
    assert broker.stop()[0] == 0
    broker.start()
    assert make.plain(make.look(broker)) == expected


def test_the_store_is_good(store):
    data, _ = store
    code, report = check(data)
    assert code == 0 and report['verdict'] == 'good'
