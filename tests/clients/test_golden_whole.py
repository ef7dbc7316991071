"""A store with every type of record and every kind of file, as an older broker wrote it: it opens for ever, with all that was in it.

golden/whole.py made it. A type of record that is in no golden store fails here, until somebody makes one that has it. The files of streams in it
are read by docs/formats/streams.md, without the broker's code; records and pages by test_formats.py.
"""

import importlib.util
import json
import os
import shutil
import tarfile

import pytest

import kafka_wire
from conftest import TARGET
from test_formats import BLOCK, RECORDS, Cursor, block, crc32c, put_together, read, read_journal, superblock
from test_golden import GOLDEN, contains
from test_stores import check

pytestmark = pytest.mark.skipif(TARGET != 'millrace', reason='stores of Millrace')
if TARGET != 'millrace':
    collect_ignore = [__file__]

FOLDER = os.path.join(GOLDEN, 'whole')
STORES = sorted(name[:-len('.tar.xz')] for name in os.listdir(FOLDER) if name.endswith('.tar.xz'))
EXCEPTIONS = set()              # types of records that need not be in a golden store, each with its reason

spec = importlib.util.spec_from_file_location('golden_whole', os.path.join(GOLDEN, 'whole.py'))
make = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make)


@pytest.fixture(scope='module', params=STORES)
def store(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    with tarfile.open(os.path.join(FOLDER, request.param + '.tar.xz')) as archive:
        archive.extractall(folder)
    with open(os.path.join(FOLDER, request.param + '.json'), encoding='utf-8') as f:
        data, expected = str(folder / 'data'), json.load(f)
    expected['make'] = make.make.expected_now(data, expected['make'])
    return data, expected


def compare(found, expected):
    found = make.clients.plain(found)
    assert set(found) == set(expected) and all(expected.values())       # the test tests something
    for kind, things in expected['make'].pop('definitions').items():
        assert contains(found['make']['definitions'][kind], things), kind
    del found['make']['definitions']
    for what, things in expected.items():
        assert found[what] == things, what


def test_all_is_found(store, broker_on):
    data, expected = store
    compare(make.look(broker_on(data, make.READER)), json.loads(json.dumps(expected)))


def test_all_is_found_after_a_compaction(store, broker_on):
    """Which writes in this broker's words what the older one said; and once more after a stop."""
    data, expected = store
    broker = broker_on(data, (*make.SETTINGS, *make.READER))
    broker.cli('compact')
    assert broker.stop()[0] == 0
    broker.start()
    compare(make.look(broker), json.loads(json.dumps(expected)))


def test_it_is_good(store):
    code, report = check(store[0])
    assert code == 0 and report['verdict'] == 'good'


# ---- by the documents

@pytest.fixture(scope='module')
def records(store):
    """Every record, those within transactions too, by name."""
    found = {}

    def note(r):
        found.setdefault(r['record'], []).append(r)
        for inner in r.get('records', [r['inner']] if 'inner' in r else []):
            note(inner)
    for r in put_together(read_journal(store[0])[1]):
        note(r)
    return found


def test_every_type_of_record_is_there(records):
    missing = {name for name, _ in RECORDS.values()} - set(records) - EXCEPTIONS
    assert not missing, 'in no golden store: %s; golden/whole.py says how to make one' % ', '.join(sorted(missing))


def test_what_records_of_streams_say(records):
    names = {r['name'].decode(): r['id'] for r in records['QUEUE_PUT']}
    streams = {r['queue']: r for r in records['STREAM']}
    full = streams[names['full']]
    [whole] = full['sealed']
    assert (full['start'], whole['base'], whole['end'], full['end']) == (0, 0, full['base'], 5)
    again, over = [r for r in records['REWRITTEN'] if r['queue'] == names['keyed']]
    assert (again['generation'], again['base'], over['bytes']) == (1, 0, 0) and again['end'] == over['dirty']
    assert {b['pid'] for r in records['BATCH'] for b in kafka_wire.batches(r['batch'])} > {-1}
    assert [r['start'] for r in records['STREAM_TRIM'] if r['queue'] == names['trimmed']] == [2]
    rows = [row for r in records['ISOLATION'] if r['queue'] == names['ledger'] for row in r['rows']]
    assert [row[0] for row in rows] == ['open', 'aborted']


def files_of_streams(data):
    for name in sorted(os.listdir(os.path.join(data, 'str'))):
        yield name, [int(part, 16) for part in name.split('-')] + [0] * (3 - name.count('-'))


def index_of(content):
    """(where the batches end, offset behind the last record, highest time) of a sealed file that is whole; None: it is open."""
    t = Cursor(content[-64:])
    if len(content) < BLOCK + 64 or t.u(4) != 0x4d525349:
        return None
    entries, end, behind, _, highest = t.u(4), t.u(8), t.u(8), t.u(8), t.u(8)
    assert not any(content[-24:-8]) and int.from_bytes(content[-4:], 'big') == crc32c(content[-64:-4])
    rows = content[end:-64]
    assert len(rows) == 16 * entries and int.from_bytes(content[-8:-4], 'big') == crc32c(rows) and 0 < entries <= 8192
    at = [(int.from_bytes(rows[i:i + 4], 'big'), int.from_bytes(rows[i + 4:i + 8], 'big')) for i in range(0, len(rows), 16)]
    assert at == sorted(at) and at[0] == (0, BLOCK)
    return end, behind, highest


def test_files_of_streams(store):
    """Header, batches, index and trailer; every kind of file: open, sealed, and made by a compaction."""
    data, _ = store
    uuid, kinds = superblock(data)[8], set()
    for name, (stream, partition, base, generation) in files_of_streams(data):
        content = read(data, 'str', name)
        head = block('stream', content[:BLOCK], 0x4d525354)
        assert (head[6], head[8], head[24], head[32], head[36], head[40]) == (0, uuid, stream, partition, generation, base), name
        index = index_of(content)
        found = kafka_wire.batches(content[BLOCK:index[0] if index else None])
        assert found and found[0]['base'] == base, name
        for one, after in zip(found, found[1:]):
            assert after['base'] == one['base'] + one['last_delta'] + 1, name
        if index:
            assert index[1] == found[-1]['base'] + found[-1]['last_delta'] + 1, name
            assert index[2] == max(one['max_timestamp'] for one in found), name
        kinds.add('rewritten' if generation else 'sealed' if index else 'open')
    assert kinds == {'open', 'sealed', 'rewritten'}


def test_kinds_of_files(store):
    """A file of another kind wants a golden store that has it, and a page of docs/formats."""
    data, _ = store
    assert {name for name in os.listdir(data) if name != 'LOCK'} == {'superblock.a', 'superblock.b', 'wal', 'seg', 'str'}
    assert {name[:2] for name in os.listdir(os.path.join(data, 'wal'))} == {'w-', 'f-'}
    assert {name[:2] for name in os.listdir(os.path.join(data, 'seg'))} == {'s-'}
