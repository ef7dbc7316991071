"""Data folders of a stopped broker: `millrace check` says what is wrong and where.

About Millrace alone. The damage of every class of byte is in tests/sim/rot.c; here are real files, real processes and
what a person sees.
"""

import json
import os
import shutil
import subprocess
import threading

import pytest

import brokers
from conftest import TARGET
from test_durability import ok, open_channel
from test_paging import SIZE, body, consume, depth, number_of, publish  # noqa: F401

pytestmark = pytest.mark.skipif(TARGET == 'rabbitmq', reason='tools of Millrace')
if TARGET == 'rabbitmq':
    collect_ignore = [__file__]

SETTINGS = ('--set', 'paging.bytes=64K', '--set', 'paging.page_bytes=16K', '--set', 'journal.file_bytes=1M')
GOOD, USAGE, DAMAGED, FOREIGN, FOLDER, BUSY = 0, 64, 65, 66, 73, 75


def millrace(*words, binary=None):
    binary = binary or os.path.abspath(os.environ.get('MILLRACE_BIN', os.path.join(brokers.ROOT, 'build', 'millrace')))
    return subprocess.run([binary, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, timeout=120)


def check(data):
    """(exit code, what --json says)"""
    done = millrace('check', '--json', '--data', data)
    return done.returncode, json.loads(done.stdout)


def bad(report, weights=('damage', 'flaw')):
    return [f for f in report['findings'] if f['weight'] in weights]


def names(folder):
    return sorted(os.listdir(folder))


def flip(path, offset, mask=0x40):
    with open(path, 'r+b') as f:
        f.seek(offset)
        byte = f.read(1)[0]
        f.seek(offset)
        f.write(bytes([byte ^ mask]))


def contents(data):
    """Every byte of a folder."""
    found = {}
    for folder, _, files in os.walk(data):
        for name in files:
            path = os.path.join(folder, name)
            if not name.endswith('.sock'):
                with open(path, 'rb') as f:
                    found[os.path.relpath(path, data)] = f.read()
    return found


@pytest.fixture(scope='module')
def stopped(tmp_path_factory):
    """A data folder with pages, a short queue and a half-consumed one; stopped cleanly."""
    broker = brokers.Millrace(args=SETTINGS)
    try:
        broker.start()
        w = open_channel(broker)
        for queue in ('long', 'short'):
            ok(w.call(1, 'queue.declare', queue=queue, durable=True))
        publish(w, 'long', 0, 500)
        publish(w, 'short', 500, 5)
        assert consume(w, 'long', 60) == list(range(60))
        w.close()
        assert broker.stop()[0] == 0
        kept = str(tmp_path_factory.mktemp('stopped') / 'data')
        shutil.copytree(broker.data, kept)
        yield kept
    finally:
        broker.remove()


@pytest.fixture
def data(stopped, tmp_path):
    """A copy to break."""
    shutil.copytree(stopped, tmp_path / 'data')
    return str(tmp_path / 'data')


def segment(data):
    return os.path.join(data, 'seg', names(os.path.join(data, 'seg'))[0])


def journal(data):
    return os.path.join(data, 'wal', [n for n in names(os.path.join(data, 'wal')) if n.startswith('w-')][0])


def live_page(data):
    """Somewhere in a page of the second half of the segment: the first pages are consumed."""
    with open(segment(data), 'rb') as f:
        bytes_ = f.read()
    return bytes_.index(b'MRPG', len(bytes_) // 2) + 100


def test_a_good_store_is_called_good(data):
    before = contents(data)
    code, report = check(data)
    assert code == GOOD and report['verdict'] == 'good' and bad(report) == []
    assert report['totals']['messages'] == 445 and report['totals']['queues'] == 2
    assert report['totals']['pages'] > 10 and report['totals']['page_messages'] > 300
    assert contents(data) == before                    # nothing was changed
    done = millrace('check', data)
    assert done.returncode == GOOD and done.stdout.splitlines()[-1].startswith('good: ') and done.stderr == ''


def test_a_killed_broker_leaves_a_good_store():
    broker = brokers.Millrace(args=SETTINGS)
    try:
        broker.start()
        w = open_channel(broker)
        ok(w.call(1, 'queue.declare', queue='q', durable=True))
        publish(w, 'q', 0, 500)
        broker.kill9()
        code, report = check(broker.data)
        assert code == GOOD and report['totals']['messages'] == 500, report
    finally:
        broker.remove()


def test_a_running_broker_is_left_alone():
    broker = brokers.Millrace()
    try:
        broker.start()
        done = millrace('check', '--data', broker.data)
        assert done.returncode == BUSY and 'a broker is running' in done.stderr and done.stdout == ''
    finally:
        broker.remove()


def test_what_is_no_data_folder(tmp_path):
    assert millrace('check', '--data', str(tmp_path / 'absent')).returncode == FOLDER
    assert names(tmp_path) == []
    (tmp_path / 'letter').write_text('hello')
    done = millrace('check', '--data', str(tmp_path))
    assert done.returncode == FOLDER and 'not a data folder' in done.stderr


def test_a_damaged_page_is_named_with_its_queue_and_messages(data):
    at = live_page(data)
    flip(segment(data), at)
    code, report = check(data)
    found, = bad(report)
    assert code == DAMAGED and report['verdict'] == 'damaged'
    assert found['file'] == 'seg/' + os.path.basename(segment(data))
    assert found['offset'] == at - 100 and found['bytes'] > 4096
    assert found['vhost'] == '/' and found['queue'] == 'long'
    assert 0 < found['messages'] <= found['last_position'] - found['first_position'] + 1
    assert 'salvage' in found['advice']
    text = millrace('check', data).stdout
    assert "queue 'long' in vhost '/', positions" in text and text.splitlines()[-1].startswith('DAMAGED: 1 places')


def test_a_missing_segment_is_named(data):
    name = os.path.basename(segment(data))
    os.unlink(segment(data))
    code, report = check(data)
    assert code == DAMAGED and any(f['what'] == 'the file is missing' and f['file'] == 'seg/' + name for f in bad(report))
    assert report['totals']['lost_page_messages'] > 300


def test_damage_in_the_journal_names_the_records(data):
    flip(journal(data), 4096 + 70)
    code, report = check(data)
    found = bad(report, ('damage',))
    assert code == DAMAGED and found[0]['file'] == 'wal/' + os.path.basename(journal(data))
    assert found[0]['offset'] == 4096 and found[0]['last_lsn'] >= found[0]['first_lsn'] > 0


def test_one_superblock_is_a_flaw_and_mended_by_a_start(data):
    flip(os.path.join(data, 'superblock.a'), 60)
    code, report = check(data)
    found, = bad(report)
    assert code == DAMAGED and report['verdict'] == 'flawed' and found['file'] == 'superblock.a'
    broker = brokers.Millrace(args=SETTINGS)
    try:
        shutil.copytree(data, broker.data)
        broker.start()
        assert broker.stop()[0] == 0
        assert check(broker.data)[0] == GOOD
    finally:
        broker.remove()


def test_strange_files_are_noted_only(data):
    for name in ('notes.txt', 'wal/readme', 'seg/s-00000000000000ff'):
        with open(os.path.join(data, name), 'w') as f:
            f.write('x')
    code, report = check(data)
    assert code == GOOD
    noted = {f['file'] for f in report['findings']}
    assert noted == {'notes.txt', 'wal/readme', 'seg/s-00000000000000ff'}


# ---- salvage

@pytest.fixture
def revive(broker_on):
    """A broker on a given folder."""
    return lambda data: broker_on(data, SETTINGS)


def groups(data):
    """(file, offset) of every group that a start would read"""
    found, path = [], None
    for line in millrace('inspect', data, '--groups').stdout.splitlines():
        words = line.split()
        if words[:1] == ['file'] and words[1].startswith('w-'):
            path = os.path.join(data, 'wal', words[1])
        if words[:2] == ['group', 'at']:
            found.append((path, int(words[2])))
    return found


def salvage(data, to, *words):
    done = millrace('salvage', '--json', '--data', data, '--to', to, *words)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_salvage_of_a_good_store_is_all_of_it(data, tmp_path, revive):
    before = contents(data)
    to = str(tmp_path / 'new')
    code, report = salvage(data, to)
    assert code == GOOD and report['copied']['messages'] == 445
    assert contents(data) == before
    assert not os.path.exists(to + '.partial')
    assert check(to)[0] == GOOD
    w = open_channel(revive(to))
    assert depth(w, 'long') == 440 and depth(w, 'short') == 5
    assert consume(w, 'long', 440) == list(range(60, 500))
    w.close()


def test_salvage_leaves_out_exactly_the_damaged_page(data, tmp_path, revive):
    flip(segment(data), live_page(data))
    code, report = salvage(data, str(tmp_path / 'new'))
    found, = bad(report)
    assert code == DAMAGED and report['totals']['lost_pages'] == 1
    lost = set(range(found['first_position'], found['last_position'] + 1))
    assert len(lost) == found['messages'] == report['totals']['lost_page_messages']
    w = open_channel(revive(str(tmp_path / 'new')))
    numbers = consume(w, 'long', 440 - len(lost))
    assert depth(w, 'long') == 0 and numbers == sorted(numbers)
    first = set(range(60, 500)) - set(numbers)      # positions begin at 1, our numbers at 0
    assert len(first) == len(lost) and {n - min(first) for n in first} == {n - min(lost) for n in lost}
    w.close()


def test_salvage_where_the_broker_refuses_to_start(data, tmp_path, revive):
    """Damage in the journal below what was acknowledged, a segment that is gone, and no superblock."""
    broker = brokers.Millrace()                      # what is new stays in the journal
    try:
        shutil.copytree(data, broker.data)
        broker.start()
        w = open_channel(broker)
        ok(w.call(1, 'queue.declare', queue='late', durable=True))
        publish(w, 'late', 0, 10)
        first = len(groups(broker.data))             # the next one begins with message 10
        for number in range(10, 40, 10):
            publish(w, 'late', number, 10)
        broker.kill9()
        path, offset = groups(broker.data)[first]
        flip(path, offset + 80)
        with pytest.raises(brokers.StartError):
            broker.start()
        code, report = salvage(broker.data, str(tmp_path / 'new'))
        assert code == DAMAGED and report['totals']['lost_records'] > 0
        assert any(f.get('queue') == 'late' and f['messages'] == f['last_position'] - f['first_position'] + 1
                   for f in bad(report)), report
        broken = str(tmp_path / 'broken')
        shutil.copytree(broker.data, broken, ignore=shutil.ignore_patterns('*.sock'))
    finally:
        broker.remove()
    w = open_channel(revive(str(tmp_path / 'new')))
    assert consume(w, 'long', 440) == list(range(60, 500))
    left = depth(w, 'late')
    assert 0 < left < 40
    assert set(consume(w, 'late', left)) < set(range(40))
    w.close()
    os.unlink(os.path.join(broken, 'superblock.a'))
    os.unlink(os.path.join(broken, 'superblock.b'))
    os.unlink(segment(broken))
    code, report = salvage(broken, str(tmp_path / 'poor'))
    assert code == DAMAGED and report['totals']['lost_page_messages'] > 300
    w = open_channel(revive(str(tmp_path / 'poor')))
    assert depth(w, 'late') == left                  # short queues are in pages, too: that one is lost with them
    w.close()


def test_salvage_never_writes_over_anything(data, tmp_path):
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'letter').write_text('hello')
    assert millrace('salvage', '--data', data, '--to', str(tmp_path / 'full')).returncode == FOLDER
    assert millrace('salvage', '--data', data).returncode == USAGE
    (tmp_path / 'new.partial').mkdir()
    (tmp_path / 'new.partial' / 'letter').write_text('hello')
    done = millrace('salvage', '--data', data, '--to', str(tmp_path / 'new'))
    assert done.returncode == FOLDER and 'in the way' in done.stderr
    assert (tmp_path / 'new.partial' / 'letter').read_text() == 'hello'
    os.unlink(tmp_path / 'new.partial' / 'letter')
    shutil.copytree(data, tmp_path / 'new.partial', dirs_exist_ok=True)     # an earlier attempt was interrupted
    assert salvage(data, str(tmp_path / 'new'))[0] == GOOD
    assert check(str(tmp_path / 'new'))[0] == GOOD


# ---- backup

def backup(broker, to, *words):
    done = millrace('backup', '--json', '--data', broker.data, to, *words)
    assert done.returncode == GOOD, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def busy():
    """A broker with a backlog in pages, a compacted journal, and a publisher that goes on all the time."""
    broker = brokers.Millrace(args=SETTINGS + ('--set', 'journal.compact_every=40'))
    stop = threading.Event()
    confirmed = []

    def go_on():
        w = open_channel(broker)
        number = 10000
        while not stop.is_set():
            publish(w, 'live', number, 10)
            number += 10
            confirmed.append(number)
            assert [number_of(w.call(1, 'basic.get', queue='long', no_ack=True).body)]
        w.close()
    try:
        broker.start()
        w = open_channel(broker)
        for queue in ('long', 'live'):
            ok(w.call(1, 'queue.declare', queue=queue, durable=True))
        publish(w, 'long', 0, 6000)
        w.close()
        thread = threading.Thread(target=go_on)
        thread.start()
        broker.confirmed = confirmed
        yield broker
        stop.set()
        thread.join(30)
        assert broker.process.poll() is None
    finally:
        stop.set()
        broker.remove()


@pytest.mark.parametrize('words', [(), ('--copy',)], ids=['links', 'copies'])
def test_a_backup_of_a_busy_broker(busy, tmp_path, revive, words):
    brokers.wait_until(lambda: len(busy.confirmed) > 20, 20, 'the publisher')
    for attempt in range(3):
        to = str(tmp_path / ('backup%d' % attempt))
        before = busy.confirmed[-1]
        result = backup(busy, to, *words)
        after = busy.confirmed[-1] + 10
        assert not os.path.exists(to + '.partial')
        assert (result['files_linked'] > 0) == (not words) or result['files_copied'] <= 1, result
        code, report = check(to)
        assert code == GOOD, report
        w = open_channel(revive(to))
        live = consume(w, 'live', depth(w, 'live'))
        assert live == list(range(10000, 10000 + len(live)))
        assert before <= 10000 + len(live) <= after + 10       # all that was confirmed before, nothing of later
        left = depth(w, 'long')
        rest = consume(w, 'long', left)
        assert rest == list(range(6000 - left, 6000))
        w.close()


def test_a_backup_shares_nothing_that_is_written(busy, tmp_path, revive):
    """The original goes on, the copy is used, and neither disturbs the other."""
    to = str(tmp_path / 'backup')
    backup(busy, to)
    was = contents(to)
    inodes = {stat.st_ino for path, stat in brokers.stats(busy.data) if not os.path.relpath(path, busy.data).startswith('seg')}
    assert not inodes & {stat.st_ino for _, stat in brokers.stats(to)}
    count = len(busy.confirmed)
    brokers.wait_until(lambda: len(busy.confirmed) > count + 100, 30, 'the publisher')
    assert contents(to) == was
    w = open_channel(revive(to))
    publish(w, 'long', 6000, 500)
    assert len(consume(w, 'long', depth(w, 'long'))) > 5000
    w.close()
    assert len(busy.confirmed) > count


def test_an_interrupted_backup_leaves_nothing_that_looks_whole(busy, tmp_path):
    to = str(tmp_path / 'backup')
    command = [busy.binary, 'backup', '--data', busy.data, '--copy', '--rate', '1', to]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        brokers.wait_until(lambda: os.path.isdir(to + '.partial/wal') and names(to + '.partial/wal'), 20, 'the copy')
    finally:
        process.kill()
        process.wait()
    assert not os.path.exists(to)
    assert not [n for n in names(to + '.partial') if n.startswith('superblock')]
    assert check_of(to + '.partial') != GOOD
    backup(busy, to)                                 # the next one goes on over it, and the broker holds nothing any more
    assert check(to)[0] == GOOD
    w = open_channel(busy)
    ok(w.call(1, 'queue.purge', queue='live'))
    w.close()


def check_of(data):
    return millrace('check', '--data', data).returncode


def test_where_no_backup_is_made(data, tmp_path):
    done = millrace('backup', '--data', data, str(tmp_path / 'backup'))
    assert done.returncode == 69 and 'no broker' in done.stderr and not os.path.exists(tmp_path / 'backup.partial')
    assert millrace('backup', '--data', data).returncode == USAGE
    assert millrace('backup', '--data', data, '--rate', 'x', 'y').returncode == USAGE


# ---- scrub

def status(broker):
    return json.loads(millrace('status', '--json', '--data', broker.data).stdout)[0]


@pytest.fixture
def scrubbed():
    """A broker that reads its old files every second, with two segments."""
    broker = brokers.Millrace(args=SETTINGS + ('--set', 'scrub.every=1', '--set', 'scrub.rate=1G'))
    try:
        broker.start()
        w = open_channel(broker)
        ok(w.call(1, 'queue.declare', queue='long', durable=True))
        publish(w, 'long', 0, 500)
        w.close()
        broker.restart()
        w = open_channel(broker)
        publish(w, 'long', 500, 500)
        w.close()
        yield broker
    finally:
        broker.remove()


def log_of(broker):
    with open(os.path.join(broker.folder, 'log'), encoding='utf-8') as f:
        return f.read()


def test_the_scrub_finds_what_rots(scrubbed):
    brokers.wait_until(lambda: status(scrubbed)['scrub_rounds'] > 1, 30, 'a round of the scrub')
    assert status(scrubbed)['scrub_damaged'] == 0 and status(scrubbed)['scrub_bytes'] > 1 << 20
    assert 'scrub_damage' not in log_of(scrubbed)
    files = names(os.path.join(scrubbed.data, 'seg'))
    at = live_page(scrubbed.data)
    flip(segment(scrubbed.data), at)
    brokers.wait_until(lambda: status(scrubbed)['scrub_damaged'] > 0, 30, 'the scrub to find it')
    line, = [text for text in log_of(scrubbed).splitlines() if 'scrub_damage' in text][:1]
    for word in ('seg/s-0000000000000001', 'offset=%d' % (at - 100), 'queue=long', 'vhost=/', 'first_position=', 'salvage'):
        assert word in line, (word, line)
    assert names(os.path.join(scrubbed.data, 'seg')) == files       # nothing is removed
    flip(segment(scrubbed.data), at)
    rounds, damaged = status(scrubbed)['scrub_rounds'], status(scrubbed)['scrub_damaged']
    brokers.wait_until(lambda: status(scrubbed)['scrub_rounds'] > rounds + 2, 30, 'more rounds')
    assert status(scrubbed)['scrub_damaged'] <= damaged + 1
    w = open_channel(scrubbed)
    assert consume(w, 'long', 1000) == list(range(1000))
    w.close()


def test_the_scrub_minds_damage_of_live_messages_only(scrubbed):
    """Bytes that nobody needs any more may rot; an old journal file may not."""
    w = open_channel(scrubbed)
    assert consume(w, 'long', 300) == list(range(300))
    w.close()
    with open(segment(scrubbed.data), 'rb') as f:
        first = f.read().index(b'MRPG') + 100
    flip(segment(scrubbed.data), first)
    rounds = status(scrubbed)['scrub_rounds']
    brokers.wait_until(lambda: status(scrubbed)['scrub_rounds'] > rounds + 1, 30, 'two rounds')
    assert status(scrubbed)['scrub_damaged'] == 0, log_of(scrubbed)
    path, offset = groups(scrubbed.data)[1]
    flip(path, offset + 70)
    brokers.wait_until(lambda: status(scrubbed)['scrub_damaged'] > 0, 30, 'the scrub to find it')
    assert 'file=wal/' + os.path.basename(path) in log_of(scrubbed)
    assert scrubbed.stop()[0] == 0


def test_the_scrub_can_be_switched_off():
    broker = brokers.Millrace(args=('--set', 'scrub.rate=0', '--set', 'scrub.every=1'))
    try:
        broker.start()
        assert status(broker)['scrub_rounds'] == 0
        assert broker.stop()[0] == 0
    finally:
        broker.remove()


# ---- inspect

def test_inspect_in_json_says_what_check_says(data):
    lines = [json.loads(line) for line in millrace('inspect', '--json', data).stdout.splitlines()]
    kinds = {}
    for line in lines:
        kinds.setdefault(line['kind'], []).append(line)
    totals = check(data)[1]['totals']
    whole, = kinds['journal']
    assert not whole['damaged'] and len(kinds['group']) == whole['groups'] == totals['groups']
    assert len(kinds['record']) == whole['records'] == totals['records']
    assert all(record['text'] and record['bytes'] for record in kinds['record'])
    newest = max(kinds['superblock'], key=lambda s: s['generation'])
    assert newest['clean'] and newest['tail_offset'] == whole['end_offset'] and len(newest['uuid']) == 32
    assert {s['uuid'] for s in kinds['segment']} == {newest['uuid']}
    assert len(kinds['page']) == kinds['segments'][0]['pages'] >= totals['pages']
    flip(journal(data), 4096 + 70)
    done = millrace('inspect', '--json', data)
    assert done.returncode == DAMAGED and json.loads([t for t in done.stdout.splitlines() if '"journal"' in t][0])['damaged']
