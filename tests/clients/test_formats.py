"""The files of a store read by docs/formats/*.md alone: no code of the broker's, offsets and types from the tables there.

A change of an encoding, of a checksum's seed, or of a table that is not made on both sides fails here: for the golden stores, which never
change, and for a store that this broker has just written.
"""

import json
import os
import re
import struct
import tarfile

import pytest

import brokers
from conftest import TARGET
from test_durability import ok, open_channel, publish
from test_golden import GOLDEN, STORES, make

pytestmark = pytest.mark.skipif(TARGET == 'rabbitmq', reason='files of Millrace')
if TARGET == 'rabbitmq':
    collect_ignore = [__file__]

BLOCK = 4096
DOCS = os.path.join(brokers.ROOT, 'docs', 'formats')


# ---- CRC-32C

def crc_table():
    table = []
    for i in range(256):
        for _ in range(8):
            i = i >> 1 ^ (0x82f63b78 if i & 1 else 0)
        table.append(i)
    return table


TABLE = crc_table()


def crc32c(data, crc=0):
    crc ^= 0xffffffff
    for byte in data:
        crc = TABLE[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xffffffff


def test_the_check_value():
    assert crc32c(b'123456789') == 0xe3069283


# ---- tables of the documents

def doc(name):
    with open(os.path.join(DOCS, name), encoding='utf-8') as f:
        return f.read()


def table_below(text, title):
    """[(offset, type, field)] of the first table of offsets behind the title"""
    rows, begun = [], False
    for line in text[text.index(title):].splitlines():
        cells = [c.strip() for c in line.strip('|').split('|')] if line.startswith('|') else None
        if cells and cells[0] == 'offset':
            begun = True
        elif cells and begun and cells[0].isdigit():
            rows.append((int(cells[0]), cells[1], cells[2]))
        elif begun and not cells:
            return rows
    return rows


WIDTHS = {'u8': 1, 'u16': 2, 'u32': 4, 'u64': 8, '16 B': 16, '16': 16}
TABLES = {
    'super': table_below(doc('journal.md'), '### 1.1 Superblock'),
    'file': table_below(doc('journal.md'), '### 1.2 File header'),
    'group': table_below(doc('journal.md'), '### 1.3 Group'),
    'record': table_below(doc('journal.md'), '### 1.4 Record'),
    'segment': table_below(doc('segments.md'), '**File header**'),
    'page': table_below(doc('segments.md'), '**Page**'),
    'stream': table_below(doc('streams.md'), '**File header**'),
}


def fields(kind, data):
    """Values by offset."""
    found = {}
    for offset, form, _ in TABLES[kind]:
        if form in WIDTHS:
            raw = data[offset:offset + WIDTHS[form]]
            found[offset] = raw if WIDTHS[form] == 16 else int.from_bytes(raw, 'big')
    return found


def test_the_tables_leave_no_hole():
    for kind, rows in TABLES.items():
        assert len(rows) > 1, kind
        for (offset, form, field), (after, _, _) in zip(rows, rows[1:]):
            assert form in WIDTHS or after == BLOCK - 4 or form == '…', (kind, field)
            assert form not in WIDTHS or offset + WIDTHS[form] == after or after == BLOCK - 4, (kind, field)


def block(kind, data, magic):
    """A whole block with its CRC."""
    f = fields(kind, data)
    assert f[0] == magic and f[4] == 1 and f[4092] == crc32c(data[:4092]), kind
    end = max(offset + WIDTHS[form] for offset, form, _ in TABLES[kind] if form in WIDTHS and offset < 4092)
    assert data[end:4092] == bytes(4092 - end)
    return f


# ---- bytes

class Cursor:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        assert self.at + n <= len(self.data), 'the record is too short'
        self.at += n
        return self.data[self.at - n:self.at]

    def u(self, n):
        return int.from_bytes(self.take(n), 'big')

    def v(self):
        value = shift = 0
        while True:
            byte = self.u(1)
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def rest(self):
        return self.take(len(self.data) - self.at)

    def left(self):
        return len(self.data) - self.at


READ = {'u8': lambda c: c.u(1), 'u64': lambda c: c.u(8), 'v': Cursor.v, 's8': lambda c: c.take(c.u(1)),
        's32': lambda c: c.take(c.u(4))}


def records_of_the_document():
    rows = re.findall(r'^\| (\d+) \| ([A-Z_]+) \| (.*) \|$', doc('records.md'), re.M)
    return {int(number): (name, text) for number, name, text in rows}


RECORDS = records_of_the_document()
NUMBERS = {name: number for number, (name, _) in RECORDS.items()}


def test_the_document_has_every_record():
    with open(os.path.join(brokers.ROOT, 'src', 'core', 'records.def'), encoding='utf-8') as f:
        rows = re.findall(r'^RECORD\((\w+), (\d+), "(.*)"\)$', f.read(), re.M)
    assert {int(n): (name, text) for name, n, text in rows} == RECORDS


def message(c, like=None):
    """like: the one whose words (all but the body) it has."""
    if like:
        return dict(like, body=c.take(c.v()))
    m = {'flags': c.u(1), 'priority': c.u(1), 'expiration': c.v() - 1}
    exchange, key, properties, body = c.u(1), c.u(1), c.v(), c.v()
    m.update(exchange=c.take(exchange), key=c.take(key), properties=c.take(properties), body=c.take(body))
    return m


def enqueue(c):
    what = c.u(1)
    r = {'what': what, 'id': c.v()}
    assert what < 8
    if what & 4:
        r['from'] = (c.v(), c.v())
    r['targets'] = [(c.v(), c.v(), c.v(), c.v()) for _ in range(c.v())]
    if what & 2:
        r['message'] = message(c)
    return r


def runs(c):
    return [(c.v(), c.v()) for _ in range(c.v())]


def page(c):
    names = ('queue', 'lane', 'segment', 'offset', 'length', 'first', 'span', 'messages', 'bytes', 'deadline')
    r = {name: c.v() for name in names}
    r['dead'] = runs(c)
    if c.left():
        r['arrival'] = c.v()                                    # of the hidden queue
    return r


def tx(c):
    inner = []
    while c.left():
        inner.append(record(c.take(c.u(4))))
    return {'records': inner}


def mqtt_client(c):
    r = {'client': c.v(), 'vhost': c.take(c.u(1)), 'id': c.take(c.u(1)), 'expiry': c.v()}
    if r['expiry']:
        r.update(left=c.v(), user=c.take(c.u(1)), exchange=c.take(c.u(1)), durable=c.u(1), will=c.take(c.u(4)))
    if r.get('will'):
        w = Cursor(r['will'])
        r['will'] = {'flags': w.u(1), 'delay': w.u(4), 'key': w.take(w.u(1)), 'properties': w.take(w.u(4)), 'body': w.rest()}
    return r


def mqtt_id(c):
    r = {'client': c.v(), 'what': c.u(1), 'id': c.v()}
    if r['what'] == 2:
        r['from'] = (c.v(), c.v())
    return r


def retained(c):
    r = {'vhost': c.take(c.u(1)), 'exchange': c.take(c.u(1)), 'key': c.take(c.u(1)), 'expires': c.v(), 'flags': c.u(1)}
    if r['flags']:
        r.update(properties=c.take(c.u(4)), body=c.rest())
    return r


def share(c):
    r = {'vhost': c.take(c.u(1)), 'group': c.take(c.u(1)), 'stream': c.v(), 'partition': c.v(), 'what': c.u(1), 'start': c.v(), 'rows': []}
    while c.left():
        r['rows'].append((c.v(), c.v(), c.u(1), c.v()))
    return r


def group_config(c):
    r = {'vhost': c.take(c.u(1)), 'group': c.take(c.u(1)), 'settings': {}}
    while c.left():
        which = c.u(1)
        r['settings'][which] = (c.u(8), c.take(c.u(1)))
    return r


def repeated(c, *names):
    """Rows to the end of the record, each of so many varints."""
    rows = []
    while c.left():
        rows.append({name: c.v() for name in names})
    return rows


def counted(c, *names):
    return [{name: c.v() for name in names} for _ in range(c.v())]


def stream(c):
    r = {name: c.v() for name in ('queue', 'partition', 'start', 'end', 'base', 'bytes', 'time', 'highest')}
    r['sealed'] = counted(c, 'base', 'end', 'bytes', 'time', 'highest')
    if c.left():
        r['dirty'] = c.v()
        r['generations'] = [c.v() for _ in r['sealed']]
    return r


def producers(c):
    r = {'queue': c.v(), 'partition': c.v(), 'producers': []}
    while c.left():
        r['producers'].append({'id': c.v(), 'epoch': c.v(), 'batches': counted(c, 'first', 'last', 'offset', 'accepted')})
    return r


def offset_rows(c):
    rows = []
    while c.left():
        rows.append({name: c.v() for name in ('stream', 'partition', 'offset', 'epoch', 'committed')})
        rows[-1]['metadata'] = c.take(c.u(4))
    return rows


def group(c):
    r = {'vhost': c.take(c.u(1)), 'group': c.take(c.u(1)), 'what': c.u(1), 'empty since': c.v(), 'generation': c.v()}
    r.update({name: c.take(c.u(1)) for name in ('type', 'protocol', 'leader')}, members=[])
    while c.left():
        m = {name: c.take(c.u(1)) for name in ('id', 'instance', 'client', 'host')}
        m.update(session=c.v(), rebalance=c.v(), protocols=[], assignment=None)
        protocols = Cursor(c.take(c.u(4)))
        while protocols.left():
            m['protocols'].append((protocols.take(protocols.u(1)), protocols.take(protocols.u(4))))
        m['assignment'] = c.take(c.u(4))
        r['members'].append(m)
    return r


def txn(c):
    r = {'vhost': c.take(c.u(1)), 'id': c.take(c.u(4))}
    r.update({name: c.v() for name in ('producer', 'epoch', 'state', 'timeout', 'began', 'used')}, partitions=counted(c, 'queue', 'partition'))
    if c.left():
        r['again'] = (c.v(), c.v())
    return r


def isolation(c):
    r = {'queue': c.v(), 'partition': c.v(), 'instead': c.u(1), 'rows': []}
    while c.left():
        r['rows'].append(('open', c.v(), c.v(), c.v()) if c.u(1) else ('aborted', c.v(), c.v(), c.v(), c.v()))
    return r


def window(c):
    r = {'queue': c.v(), 'keys': []}
    while c.left():
        r['keys'].append((c.take(16), c.v(), c.v()))
    return r


def sql_object(c):
    r = {'id': c.v(), 'vhost': c.take(c.u(1)), 'name': c.take(c.u(1)), 'owner': c.take(c.u(1)), 'kind': c.u(1), 'state': c.u(1), 'step': c.v()}
    lengths = {name: c.v() for name in ('text', 'settings', 'reason', 'trail')}
    return dict(r, **{name: c.take(length) for name, length in lengths.items()})


SPECIAL = {
    'QUEUE_ARGS': lambda c: {'queue': c.v(), 'arguments': c.take(c.u(4))},
    'STREAM': stream,
    'STREAM_TRIM': lambda c: {'queue': c.v(), 'partition': c.v(), 'start': c.v()},
    'REWRITTEN': lambda c: {name: c.v() for name in ('queue', 'partition', 'dirty', 'base', 'end', 'bytes', 'time', 'highest', 'generation')},
    'BATCH': lambda c: {'queue': c.v(), 'partition': c.v(), 'offset': c.v(), 'accepted': c.v(), 'batch': c.rest()},
    'PRODUCERS': producers,
    'OFFSETS': lambda c: {'vhost': c.take(c.u(1)), 'group': c.take(c.u(1)), 'rows': offset_rows(c)},
    'GROUP': group,
    'TXN': txn,
    'TXN_ADD': lambda c: {'producer': c.v(), 'at': c.v(), 'queue': c.v(), 'partition': c.v()},
    'TXN_OFFSETS': lambda c: {'producer': c.v(), 'at': c.v(), 'group': c.take(c.u(1)), 'rows': offset_rows(c)},
    'ISOLATION': isolation,
    'WINDOW': window,
    'RETRY': lambda c: {'queue': c.v(), 'position': c.v(), 'returns': c.v(), 'not before': c.v()},
    'SQL_OBJECT': sql_object,
    'SQL_STATE': lambda c: {'id': c.v(), 'state': c.u(1), 'reason': c.rest()},
    'QUERY_STEP': lambda c: {'id': c.v(), 'step': c.v(), 'instead': c.u(1), 'trail': c.rest()},
    'MQTT_CLIENT': mqtt_client,
    'MQTT_ID': mqtt_id,
    'MQTT_ONCE': lambda c: {'client': c.v(), 'id': c.v(), 'inner': record(c.rest())},
    'RETAINED': retained,
    'SHARE': share,
    'GROUP_CONFIG': group_config,
    'PIECE': lambda c: {'number': c.v(), 'bytes': c.rest()},
    'COMMIT': lambda c: {'number': c.v(), 'bytes': c.rest()},
    'TX': tx,
    'ENQUEUE': enqueue,
    'KEYED': lambda c: dict(accepted=c.v(), **enqueue(c)),
    'SECRET': lambda c: {'bytes': c.take(32)},
    'REMOVE': lambda c: {'queue': c.v(), 'runs': runs(c)},
    'PAGE': page,
}


def by_words(c, text):
    """Fields as the table says them: `v id, s8 vhost, …`"""
    found = {}
    for part in text.split(', '):
        form, _, name = part.partition(' ')
        found[name] = READ[form](c)
    return found


def record(data):
    """Decodes to its last byte."""
    c = Cursor(data)
    name, text = RECORDS[c.u(1)]
    if name == 'CHECKPOINT':
        text = 'u64 first'
    if name == 'BINDING_DELETE':
        text = RECORDS[NUMBERS['BINDING_PUT']][1]
    if name == 'MARK':
        text = 'v queue, v below'
    r = SPECIAL[name](c) if name in SPECIAL else by_words(c, text)
    assert c.left() == 0, (name, data)
    return dict(r, record=name)


# ---- a store

def read(*path):
    with open(os.path.join(*path), 'rb') as f:
        return f.read()


def seed(uuid, number, epoch):
    return crc32c(uuid + struct.pack('>QI', number, epoch))


def superblock(data):
    copies = [block('super', read(data, name), 0x4d525342) for name in ('superblock.a', 'superblock.b')
              if os.path.exists(os.path.join(data, name))]
    for f in copies:
        assert f[6] < 2 and f[36] == 0
    return max(copies, key=lambda f: f[24])


def read_journal(data):
    """Every record from the start lsn to the end, by lsn, as sections 1 to 4 of journal.md say."""
    top = superblock(data)
    uuid, seq, start = top[8], top[48], top[40]
    found, lsn, chain, epoch = {}, None, None, 0
    while True:
        path = os.path.join(data, 'wal', 'w-%016x' % seq)
        if not os.path.exists(path):
            break
        content = read(path)
        try:
            head = block('file', content[:BLOCK], 0x4d525746)
        except AssertionError:
            break                               # made ahead
        assert head[8] == uuid and head[24] == seq and head[48] == head[40] - 1 and head[32] >= epoch
        assert lsn is None or (head[40], head[36]) == (lsn, chain)
        lsn, chain, at, epoch = head[40], head[4092], BLOCK, head[32]
        while at + BLOCK <= len(content):
            group = fields('group', content[at:at + 64])
            length = group[16]
            whole = content[at:at + (64 + length + BLOCK - 1) // BLOCK * BLOCK]
            base = seed(uuid, group[52], group[40])
            if group[0] != 0x4d524750 or group[60] != crc32c(whole[:60], base):
                break
            assert group[4] == 1 and group[8] == lsn and group[44] == chain and group[52] == seq and group[24] < lsn
            assert group[48] == crc32c(whole[64:], base) and (group[6] == 1) == (length == group[20] == 0)
            assert group[40] >= epoch and whole[64 + length:] == bytes(len(whole) - 64 - length)
            body = Cursor(whole[64:64 + length])
            for _ in range(group[20]):
                size, zero = body.u(4), body.u(4)
                assert zero == 0 and size <= 512 * 1024
                bytes_ = body.take(size)
                if lsn >= start:
                    found[lsn] = bytes_
                lsn += 1
            assert body.left() == 0
            chain, epoch, at = group[60], group[40], at + len(whole)
        tail = (seq, at)
        seq += 1
    if top[6] & 1:
        assert (top[64], top[72]) == tail and top[56] == lsn - 1
    assert top[56] < lsn
    return uuid, found


def put_together(found):
    """Pieces become the record they are."""
    pieces = b''
    for _, data in sorted(found.items()):
        r = record(data)
        if r['record'] in ('PIECE', 'COMMIT'):
            pieces = (b'' if r['number'] == 0 else pieces) + r['bytes']
            yield r
            if r['record'] == 'COMMIT':
                yield record(pieces)
        else:
            yield r


def read_page(data, uuid, p):
    content = read(data, 'seg', 's-%016x' % p['segment'])
    head = block('segment', content[:BLOCK], 0x4d525347)
    assert head[6] == 0 and head[8] == uuid and head[24] == p['segment']
    data = content[p['offset']:p['offset'] + p['length']]
    f = fields('page', data)
    base = seed(uuid, p['segment'], p['offset'])
    assert f[0] == 0x4d525047 and f[4] == p['length'] - 48 and f[8] == p['queue'] and f[16] == p['lane']
    assert f[17] in (0, 1) and f[18] == 0 and f[20] == p['messages'] and (f[24], f[32]) == (p['first'], p['first'] + p['span'])
    assert f[44] == crc32c(data[:44], base) and f[40] == crc32c(data[48:], base)
    c, position, deadline, words, found = Cursor(data[48:]), f[24], 0, None, {}
    for i in range(f[20]):
        out = c.u(1) if f[17] else 0
        assert out < 16 and not (out & 8 and i == 0)
        position += (i > 0) if out & 1 else c.v()
        deadline = deadline if out & 2 else c.v()
        returns = 0 if out & 4 else c.v()
        found[position] = words = dict(message(c, words if out & 8 else None), deadline=deadline, returns=returns)
    assert c.left() == 0 and position == f[32]
    return found


class Where:
    """A message that lies in the page of this record."""

    def __init__(self, page):
        self.page = page


def read_store(data):
    """(kinds of record seen, {queue name: {position: body}})"""
    uuid, found = read_journal(data)
    kinds, names, queues, bodies, pages = set(), {}, {}, {}, {}

    def apply(r):
        kinds.add(r['record'])
        if r['record'] == 'TX':
            for inner in r['records']:
                apply(inner)
        elif r['record'] == 'QUEUE_PUT':
            names[r['id']] = r['name'].decode()
        elif r['record'] == 'ENQUEUE':
            if 'message' in r:
                bodies[r['id']] = r['message']['body']
            if 'from' in r:
                queues.get(r['from'][0], {}).pop(r['from'][1], None)
            for queue, position, deadline, returns in r['targets']:
                assert returns < 100 and (deadline == 0 or 10 ** 12 < deadline < 10 ** 14)
                queues.setdefault(queue, {})[position] = bodies.get(r['id'])
        elif r['record'] == 'REMOVE':
            for first, count in r['runs']:
                for position in range(first, first + count):
                    queues.get(r['queue'], {}).pop(position, None)
        elif r['record'] == 'PAGE':
            for position in range(r['first'], r['first'] + r['span'] + 1):
                if not any(first <= position < first + count for first, count in r['dead']):
                    queues.setdefault(r['queue'], {})[position] = Where(r)

    def body_of(where, position):
        """Only where it lies at last: a page that has moved may have lost its file."""
        if not isinstance(where, Where):
            return where
        place = where.page['segment'], where.page['offset']
        if place not in pages:
            pages[place] = read_page(data, uuid, where.page)
        m = pages[place][position]
        if m['body'].startswith(b'page '):
            assert (m['flags'], m['priority'], m['expiration'], m['deadline']) == (1, 0, -1, 0) and m['returns'] < 100
        return m['body']

    for r in put_together(found):
        apply(r)
    queues = {q: {position: body_of(where, position) for position, where in messages.items()}
              for q, messages in queues.items()}
    return kinds, {names[q]: messages for q, messages in queues.items() if q in names}


def must_hold(data, expected):
    kinds, queues = read_store(data)
    for queue in ('paged', 'plain', 'tx', 'dead'):
        want = [m['body'] for m in expected['queues'][queue]]
        assert [body.decode() for _, body in sorted(queues[queue].items())] == want, queue
    assert len(queues['large']) == 1 and len(list(queues['large'].values())[0]) == 1200000
    return kinds


@pytest.mark.parametrize('name', STORES)
def test_a_golden_store_by_the_documents(name, tmp_path):
    with tarfile.open(os.path.join(GOLDEN, name + '.tar.xz')) as archive:
        archive.extractall(tmp_path)
    with open(os.path.join(GOLDEN, name + '.json'), encoding='utf-8') as f:
        kinds = must_hold(str(tmp_path / 'data'), json.load(f))
    if name.endswith('-killed'):
        missing = {n for n, (_, _) in RECORDS.items() if n < 64} - {NUMBERS[k] for k in kinds}
        assert {RECORDS[n][0] for n in missing} <= {'CHECKPOINT', 'POLICY_DELETE', 'PERMISSION_DELETE', 'EXCHANGE_DELETE',
                                                    'QUEUE_DELETE', 'BINDING_DELETE', 'QUEUE_ARGS', 'QUEUE_IDS', 'SECRET'}, missing  # the last three are younger


def test_what_this_broker_writes_by_the_documents():
    broker = brokers.Millrace(args=make.SETTINGS)
    try:
        broker.start()
        make.fill(broker)
        broker.kill9()
        with open(os.path.join(GOLDEN, STORES[-1] + '.json'), encoding='utf-8') as f:
            kinds = must_hold(broker.data, json.load(f))
        assert {'ENQUEUE', 'PAGE', 'TX', 'PIECE', 'COMMIT', 'RETURN', 'MARK', 'REMOVE', 'QUEUE_PUT', 'USER_DELETE'} <= kinds
    finally:
        broker.remove()


def test_delayed_messages_in_pages_by_the_documents():
    """One TX per page: new positions as they are due, the old ones gone; returns say in which order they came."""
    bodies = ['%4d %s' % (i, '.' * 2000) for i in range(100)]
    broker = brokers.Millrace(args=('--set', 'paging.bytes=64K', '--set', 'paging.page_bytes=16K'))
    try:
        broker.start()
        w = open_channel(broker)
        ok(w.call(1, 'exchange.declare', exchange='late', type='x-delayed-message', durable=True,
                  arguments={'x-delayed-type': 'direct'}))
        for i, body in enumerate(bodies):
            publish(w, 'late', 'nobody', body, headers={'x-delay': 3600000 + 60000 * (i % 3)})
        brokers.wait_until(lambda: any(s.st_size > 16384 for _, s in brokers.stats(os.path.join(broker.data, 'seg'))), 10, 'a page')
        w.close()
        broker.kill9()
        uuid, found = read_journal(broker.data)
        written = [r['records'] for r in put_together(found) if r['record'] == 'TX' and r['records'][0]['record'] == 'PAGE']
        assert written
        for put, gone in written:
            assert gone['record'] == 'REMOVE' and gone['queue'] == put['queue'] and put['dead'] == []
            assert sum(count for _, count in gone['runs']) == put['messages'] == put['span'] + 1
            inside = [m for _, m in sorted(read_page(broker.data, uuid, put).items())]
            order = [(m['deadline'], m['returns']) for m in inside]
            assert order == sorted(order) and all(m['returns'] % 2 == 0 for m in inside)
            assert (put['deadline'], put['arrival'] * 2) == order[0]
        _, queues = read_store(broker.data)
        assert sorted(body.decode() for body in queues[''].values()) == bodies
    finally:
        broker.remove()


# ---- what clients leave

CLIENTS = {'MQTT_CLIENT', 'MQTT_SUB', 'MQTT_ID', 'MQTT_ONCE', 'RETAINED', 'SHARE', 'GROUP_CONFIG'}


def clients_of(data):
    """{kind: records} of MQTT's clients and share groups, in order."""
    found = {kind: [] for kind in CLIENTS}
    for _, content in sorted(read_journal(data)[1].items()):
        name = RECORDS[content[0]][0]
        if name in CLIENTS:
            found[name].append(record(content))
    return found


def sets_of(found, client):
    """Packet ids of a client: received, releasing."""
    sets = {0: set(), 2: set()}
    rows = [(r, 0) for r in found['MQTT_ONCE']] + [(r, r['what']) for r in found['MQTT_ID']]
    for r, what in rows:
        if r['client'] == client:
            (sets[what & 2].discard if what & 1 else sets[what & 2].add)(r['id'])
    return sets[0], sets[2]


def offsets_of(shares):
    """Of the one partition of the one share group: {offset: (state, deliveries)}; what lies below its start is done with."""
    offsets, start = {}, 0
    for r in shares:
        assert (r['vhost'], r['group'], r['partition']) == (b'/', b'gs', 0) and r['what'] < 2
        offsets, start = ({} if r['what'] else offsets), max(start, r['start'])
        for first, count, state, deliveries in r['rows']:
            assert state in (0, 2)
            offsets.update((offset, (state, deliveries)) for offset in range(first, first + count))
    return {**offsets, **{offset: (2, 0) for offset in range(start)}}


@pytest.mark.parametrize('name', ['v1-clean', 'v1-killed'])
def test_a_golden_store_of_clients_by_the_documents(name, tmp_path):
    with tarfile.open(os.path.join(GOLDEN, 'clients', name + '.tar.xz')) as archive:
        archive.extractall(tmp_path)
    found = clients_of(str(tmp_path / 'data'))
    assert CLIENTS - {'MQTT_ONCE'} <= {kind for kind, rows in found.items() if rows}
    clients = {r['id']: r for r in found['MQTT_CLIENT']}
    golden, publisher = clients[b'golden'], clients[b'publisher']
    assert golden['expiry'] == 2 ** 32 and golden['durable'] == 1 and golden['will'] == b''
    assert (golden['user'], golden['exchange'], golden['vhost']) == (b'guest', b'amq.topic', b'/')
    assert clients[b'mourned']['will']['body'] == b'gone' and clients[b'mourned']['durable'] == 0
    assert clients[b'patient']['will']['delay'] == 2 ** 32 - 1 and clients[b'patient']['will']['key'] == b'w.late'
    subs = {(r['pattern'], r['group'], r['options + 1 (0: gone)'] - 1 & 3) for r in found['MQTT_SUB'] if r['client'] == golden['client']}
    assert subs == {(b't.#', b'', 2), (b'zero.*', b'', 0), (b'j', b'g', 1)}
    assert sets_of(found, publisher['client'])[0] == {7}
    assert sets_of(found, golden['client'])[1] == {3}
    values = {r['key']: r for r in found['RETAINED']}
    bodies = {key: r.get('body') for key, r in values.items() if r['flags']}
    assert bodies == {b'r.a': b'kept', b'r.b': b'again', b'lasting': b'for long'}
    assert 2 * 10 ** 12 < values[b'lasting']['expires'] < 7 * 10 ** 12 and not values[b'r.a']['expires']
    assert {which: text for which, (_, text) in found['GROUP_CONFIG'][-1]['settings'].items()} == {1: b'earliest', 4: b'7'}
    offsets = offsets_of(found['SHARE'])
    assert offsets[2] == (0, 1) and {offset for offset, (state, _) in offsets.items() if state == 2} == {0, 1, 3}
    if name.endswith('-killed'):
        assert [r['inner']['record'] for r in found['MQTT_ONCE']] == ['ENQUEUE', 'ENQUEUE'] and b'r.c' in values
