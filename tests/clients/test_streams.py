"""Streams: what was written is read back whole and in order, whatever happens in between.

About Millrace alone. MILLRACE_STREAM_RECORDS (100000) and MILLRACE_STREAM_KILLS (20) make the short forms long: 1000000 and 200.
"""

import datetime
import multiprocessing
import os
import random
import struct
import subprocess
import threading
import time
import zlib

import pika
import pytest

import brokers
import wire
from conftest import TARGET
from test_durability import ok

pytestmark = pytest.mark.skipif(TARGET == 'rabbitmq', reason='settings of Millrace')
if TARGET == 'rabbitmq':
    collect_ignore = [__file__]

RECORDS = int(os.environ.get('MILLRACE_STREAM_RECORDS', '100000'))
KILLS = int(os.environ.get('MILLRACE_STREAM_KILLS', '20'))
SEED = brokers.seed('MILLRACE_STREAM_SEED')
SIZE = 100
HEAD = struct.Struct('>QQ')


def body(number, size=SIZE, mark=0):
    """A record that says which it is and is protected by a checksum."""
    text = HEAD.pack(number, mark) + bytes([number % 251]) * (size - HEAD.size - 4)
    return text + struct.pack('>I', zlib.crc32(text))


def number_of(text, size=SIZE):
    assert len(text) == size and zlib.crc32(text[:-4]) == struct.unpack('>I', text[-4:])[0], 'a damaged body'
    return HEAD.unpack_from(text)[0]


def started(*settings, **kw):
    broker = brokers.Millrace(args=sum((('--set', s) for s in ('journal.compact_bytes=1M',) + settings), ()), **kw)
    return broker.start()


@pytest.fixture
def broker():
    """It compacts its journal often, so that what streams hold lies in their files."""
    broker = started()
    yield broker
    broker.remove()


def open_channel(broker, confirm=True):
    w = broker.wire(timeout=60)
    w.channel(1)
    if confirm:
        ok(w.call(1, 'confirm.select'))
    return w


def declare(w, name, **args):
    return ok(w.call(1, 'queue.declare', queue=name, durable=True, arguments=dict({'x-queue-type': 'stream'}, **args)))


def files(broker, ends=''):
    folder = os.path.join(broker.data, 'str')
    return sorted(f for f in os.listdir(folder) if f.endswith(ends)) if os.path.isdir(folder) else []


def bytes_of_files(broker):
    return sum(stat.st_size for _, stat in brokers.stats(os.path.join(broker.data, 'str')))


def publish(w, exchange, key, bodies, batch=500, **properties):
    """With confirms, a batch at a time."""
    for start in range(0, len(bodies), batch):
        some = bodies[start:start + batch]
        w.send_bytes(b''.join(w.encode_content(1, wire.encode_method('basic.publish', exchange=exchange, routing_key=key), b,
                                               dict(properties, delivery_mode=2)) for b in some))
        w.published = getattr(w, 'published', 0) + len(some)
        while w.take(1, ('basic.ack',)).delivery_tag < w.published:
            pass


def read(broker, name, count, offset, prefetch=1000, **args):
    """[(offset, partition, body)] of that many records."""
    w = broker.wire(timeout=60)
    w.channel(1)
    ok(w.call(1, 'basic.qos', prefetch_count=prefetch))
    ok(w.call(1, 'basic.consume', queue=name, arguments=dict({'x-stream-offset': offset}, **args)))
    out = []
    for i in range(1, count + 1):
        m = w.take(1, ('basic.deliver',))
        headers = m.properties['headers']
        out.append((headers['x-stream-offset'].value, headers['x-stream-partition'].value if 'x-stream-partition' in headers else 0, m.body))
        if i % (prefetch // 2) == 0:
            w.send_method(1, 'basic.ack', delivery_tag=m.delivery_tag, multiple=True)
    w.close()
    return out


def read_all(broker, name, last):
    """What is there, up to that offset: read again when retention has taken something away meanwhile."""
    for _ in range(20):
        got = []
        w = broker.wire(timeout=60)
        w.channel(1)
        ok(w.call(1, 'basic.qos', prefetch_count=1000))
        ok(w.call(1, 'basic.consume', queue=name, arguments={'x-stream-offset': 'first'}))
        while not got or got[-1][0] < last:
            m = w.take(1, ('basic.deliver',))
            got.append((m.properties['headers']['x-stream-offset'].value, 0, m.body))
            if len(got) % 500 == 0:
                w.send_method(1, 'basic.ack', delivery_tag=m.delivery_tag, multiple=True)
        w.close()
        if count_of(broker, name) == len(got):
            return got
    raise AssertionError('retention never rests')


def count_of(broker, name):
    w = open_channel(broker, confirm=False)
    n = ok(w.call(1, 'queue.declare', queue=name, passive=True)).message_count
    w.close()
    return n


# ---- through pika ----

def pika_channel(port):
    connection = pika.BlockingConnection(pika.ConnectionParameters('127.0.0.1', port, heartbeat=0))
    return connection, connection.channel()


def pika_write(port, first, count):
    """Transactions of a thousand: what is committed is on disk."""
    connection, channel = pika_channel(port)
    channel.tx_select()
    for number in range(first, first + count):
        channel.basic_publish('', 'events', body(number), pika.BasicProperties(delivery_mode=2, headers={'n': number}))
        if number % 1000 == 999:
            channel.tx_commit()
    channel.tx_commit()
    connection.close()


def pika_read(port, offset, first, count, answer):
    """A process of its own: every record from `first` on, its offset, its header and its checksum."""
    try:
        connection, channel = pika_channel(port)
        channel.basic_qos(prefetch_count=1000)
        wanted = first
        for method, properties, text in channel.consume('events', arguments={'x-stream-offset': offset}):
            got = (properties.headers['x-stream-offset'], properties.headers['n'], number_of(text))
            if got != (wanted, wanted, wanted):
                raise AssertionError('%s instead of %d' % (got, wanted))
            wanted += 1
            if wanted % 500 == 0 or wanted == first + count:
                channel.basic_ack(method.delivery_tag, multiple=True)
            if wanted == first + count:
                break
        connection.close()
        answer.put((offset, wanted - first))
    except BaseException as e:      # the process that waits must learn of it, whatever it is
        answer.put((offset, repr(e)))


def three_readers(port, *readers):
    """At once: [(offset to begin at, the number that is there, how many)]."""
    answer = multiprocessing.Queue()
    processes = [multiprocessing.Process(target=pika_read, args=(port, offset, first, count, answer)) for offset, first, count in readers]
    for p in processes:
        p.start()
    got = sorted((answer.get(timeout=600) for _ in processes), key=str)
    for p in processes:
        p.join()
    assert got == sorted(((offset, count) for offset, _, count in readers), key=str)


def test_written_and_read_through_pika_with_restarts_in_between(broker):
    third = RECORDS // 3
    connection, channel = pika_channel(broker.port)
    channel.queue_declare('events', durable=True, arguments={'x-queue-type': 'stream', 'x-stream-max-segment-size-bytes': 2000000})
    connection.close()
    pika_write(broker.port, 0, third)
    broker.kill9()
    broker.start()
    assert count_of(broker, 'events') == third
    pika_write(broker.port, third, third)
    broker.restart()
    second = int(time.time()) + 1       # times of AMQP are seconds
    brokers.wait_until(lambda: time.time() >= second, 5, 'the next second')
    pika_write(broker.port, 2 * third, RECORDS - 2 * third)
    assert count_of(broker, 'events') == RECORDS
    assert len(files(broker)) >= 2
    since = datetime.datetime.utcfromtimestamp(second)
    three_readers(broker.port, ('first', 0, RECORDS), (RECORDS // 2, RECORDS // 2, RECORDS - RECORDS // 2), (since, 2 * third, RECORDS - 2 * third))
    broker.kill9()
    broker.start()
    three_readers(broker.port, ('first', 0, third), (2 * third, 2 * third, RECORDS - 2 * third), (since, 2 * third, 1000))


# ---- retention ----

def test_retention_by_size_deletes_files(broker):
    limit, segment, count, size = 2 << 20, 256 << 10, 12000, 1000
    w = open_channel(broker)
    declare(w, 'events', **{'x-max-length-bytes': limit, 'x-stream-max-segment-size-bytes': segment})
    first = 0
    for start in range(0, count, count // 4):
        publish(w, '', 'events', [body(n, size) for n in range(start, start + count // 4)])
        brokers.wait_until(lambda: bytes_of_files(broker) < limit + (1 << 20) + 2 * segment, 10, 'old files to go')
        w.close()
        broker.kill9() if start // (count // 4) % 2 else broker.stop()
        broker.start()
        w = open_channel(broker)
        got = read_all(broker, 'events', start + count // 4 - 1)
        left = len(got)
        assert got[0][0] >= first and left * size > limit / 4, 'what was gone came back, or too much is gone'
        first = got[0][0]
        assert [g[0] for g in got] == list(range(start + count // 4 - left, start + count // 4)) == [number_of(g[2], size) for g in got]
    assert first > count / 2
    assert read(broker, 'events', 1, 5)[0][0] == first       # what is gone begins where the rest begins
    assert len(files(broker)) <= limit // segment + 3
    w.close()


def test_retention_by_age_deletes_files(broker):
    w = open_channel(broker)
    declare(w, 'events', **{'x-max-age': '1s', 'x-stream-max-segment-size-bytes': 65536})
    publish(w, '', 'events', [body(n, 1000) for n in range(1000)], batch=20)
    before = files(broker)
    assert len(before) > 5
    brokers.wait_until(lambda: len(set(before) & set(files(broker))) <= 1, 20, 'old files to go')
    publish(w, '', 'events', [body(1000, 1000)])
    got = read_all(broker, 'events', 1000)
    left = len(got)
    assert 1 <= left < 200
    assert [g[0] for g in got] == list(range(1001 - left, 1001)) == [number_of(g[2], 1000) for g in got]
    ok(w.call(1, 'queue.delete', queue='events'))
    brokers.wait_until(lambda: files(broker) == [], 10, 'the files of a deleted stream to go')
    w.close()


# ---- compaction ----

UPDATES, KEYS = 100000, 100


def test_the_last_value_of_each_key_is_kept():
    """Updates of a few keys: what is superseded goes, offsets stay, and so do the last values, over kill -9 and restarts."""
    broker = started('keyed.every=1')
    try:
        connection, channel = pika_channel(broker.port)
        channel.confirm_delivery()
        channel.queue_declare('table', durable=True, arguments={
            'x-queue-type': 'stream', 'x-cleanup-policy': 'compact', 'x-stream-max-segment-size-bytes': 65536})
        channel.exchange_declare('updates', 'topic', durable=True)
        channel.queue_bind('table', 'updates', '#')
        connection.close()
        w = open_channel(broker)
        last, most = {}, 0
        for start in range(0, UPDATES, UPDATES // 10):
            numbers = range(start, start + UPDATES // 10)
            w.send_bytes(b''.join(w.encode_content(1, wire.encode_method(
                'basic.publish', exchange='updates', routing_key='key.%d' % (n * 7919 % KEYS)), body(n), {'delivery_mode': 2}) for n in numbers))
            while w.take(1, ('basic.ack',)).delivery_tag < UPDATES // 10:
                pass
            last.update(('key.%d' % (n * 7919 % KEYS), n) for n in numbers)
            most = max(most, bytes_of_files(broker))
            w.close()
            if start == UPDATES // 2:
                broker.kill9()
                broker.start()
            w = open_channel(broker)
        compacted = [f for f in files(broker) if len(f) > 38]
        brokers.wait_until(lambda: bytes_of_files(broker) < most / 8, 30, 'superseded records to go')
        assert compacted or [f for f in files(broker) if len(f) > 38]
        w.close()
        broker.stop()
        broker.start()
        connection, channel = pika_channel(broker.port)
        channel.basic_qos(prefetch_count=1000)
        seen, at = {}, -1
        for method, properties, text in channel.consume('table', arguments={'x-stream-offset': 'first'}):
            offset = properties.headers['x-stream-offset']
            assert offset > at and offset == number_of(text), 'offsets do not change'
            at = offset
            seen[method.routing_key] = number_of(text)
            channel.basic_ack(method.delivery_tag)
            if at == UPDATES - 1:
                break
        connection.close()
        assert seen == last
        assert at == UPDATES - 1
        # in a gap the next record follows
        assert read(broker, 'table', 1, 5)[0][0] > 5
        broker.stop()
        for tool in ('check', 'inspect'):
            done = subprocess.run([broker.binary, tool, broker.data], capture_output=True, text=True, check=False)
            assert done.returncode == 0 and 'generation' in done.stdout + 'generation' * (tool == 'check'), (tool, done.stdout[-500:], done.stderr)
    finally:
        broker.remove()


# ---- damage ----

def test_damage_stops_readers_there_and_is_told(broker):
    count, size = 6000, 1000
    w = open_channel(broker)
    declare(w, 'events', **{'x-stream-max-segment-size-bytes': 200000})
    publish(w, '', 'events', [body(n, size) for n in range(count)])
    w.close()

    def only_in_files():                # what the journal still has is written again by a start
        broker.cli('compact')
        broker.restart()
        return int(broker.log_tail().rsplit(' records=', 1)[1].split()[0]) < 50
    brokers.wait_until(only_in_files, 30, 'a compaction that is over before the stop')
    assert broker.stop()[0] == 0
    names = files(broker)
    assert len(names) >= 3
    path = os.path.join(broker.data, 'str', names[1])
    with open(path, 'r+b') as f:        # a bit of a body in the second file
        f.seek(100000)
        byte = f.read(1)[0]
        f.seek(100000)
        f.write(bytes([byte ^ 4]))
    broker.start()
    w = broker.wire(timeout=60)
    w.channel(1)
    ok(w.call(1, 'basic.qos', prefetch_count=count))
    ok(w.call(1, 'basic.consume', queue='events', arguments={'x-stream-offset': 'first'}))
    got = []
    try:
        while True:
            m = w.take(1, ('basic.deliver',), 1)
            got.append((m.properties['headers']['x-stream-offset'].value, number_of(m.body, size)))
    except wire.Timeout:
        pass
    assert names[1] in broker.log_tail() and 'stream_damaged' in broker.log_tail()
    second, third = (int(name.split('-')[2], 16) for name in names[1:3])
    assert got == [(n, n) for n in range(len(got))] and second <= len(got) < third
    w.close()
    assert [number_of(g[2], size) for g in read(broker, 'events', count - third, third)] == list(range(third, count))
    w = open_channel(broker)            # it goes on
    publish(w, '', 'events', [body(count, size)])
    assert read(broker, 'events', 1, count)[0][0] == count
    w.close()

    broker.stop()
    os.rename(path, path + '.away')
    with pytest.raises(brokers.StartError):
        broker.start()
    assert names[1] in broker.log_tail() and 'events' in broker.log_tail()
    os.rename(path + '.away', path)
    broker.start()
    assert count_of(broker, 'events') == count + 1


# ---- partitions ----

def test_partitions(broker):
    count, parts = 12000, 4
    w = open_channel(broker)
    declare(w, 'events', **{'x-stream-partitions': parts, 'x-stream-max-segment-size-bytes': 200000})
    for start in range(0, count, 3000):
        for key in range(6):        # each key is somewhere, and whole
            publish(w, '', 'events', [body(n, mark=key) for n in range(start, start + 3000) if n % 6 == key], headers={'x-stream-key': 'k%d' % key})
        w.close()
        broker.kill9() if start % 2000 else broker.restart()
        if broker.process.poll() is not None:
            broker.start()
        w = open_channel(broker)
    w.close()
    assert count_of(broker, 'events') == count
    got = read(broker, 'events', count, 'first')
    home, seen = {}, {}
    for offset, part, text in got:
        number, key = number_of(text), HEAD.unpack_from(text)[1]
        assert home.setdefault(key, part) == part, 'a key in two partitions'
        assert seen.setdefault(('offset', part), -1) == offset - 1, 'offsets of a partition are dense'
        assert seen.setdefault(('key', key), key - 6) == number - 6, 'records of a key in their order'
        seen['offset', part], seen['key', key] = offset, number
    assert sum(seen[s] + 1 for s in seen if s[0] == 'offset') == count
    for part in set(home.values()):     # each alone, from the middle
        end = seen['offset', part] + 1
        alone = read(broker, 'events', end - end // 2, end // 2, **{'x-stream-partition': part})
        assert alone == [g for g in got if g[1] == part][end // 2:]


# ---- large records ----

def test_large_records():
    broker, size = started('message.bytes_max=32M'), 20 << 20
    try:
        w = open_channel(broker)
        declare(w, 'events')
        declare(w, 'small')
        ok(w.call(1, 'queue.declare', queue='fed', durable=True))
        ok(w.call(1, 'queue.bind', queue='fed', exchange='amq.stream.events'))
        for number in range(3):
            publish(w, '', 'events', [body(number, size)])
            publish(w, '', 'small', [body(number)])
        w.close()
        for _ in range(2):
            assert [number_of(g[2], size) for g in read(broker, 'events', 3, 'first', prefetch=2)] == [0, 1, 2]
            assert [number_of(g[2]) for g in read(broker, 'small', 3, 0)] == [0, 1, 2]
            broker.kill9()
            broker.start()
        w = open_channel(broker)
        for number in range(3):
            fed = brokers.wait_until(lambda: (lambda m: m if m.name == 'basic.get-ok' else None)(
                ok(w.call(1, 'basic.get', queue='fed', no_ack=True))), 20, 'the record in the queue')
            assert number_of(fed.body, size) == number
        w.close()
    finally:
        broker.remove()


# ---- queues that are fed from streams ----

def test_what_a_stream_keeps_a_fed_queue_keeps(broker):
    """A record is on disk whatever its publisher thought of it, and so it is in a durable queue that gets it."""
    w = open_channel(broker)
    declare(w, 'events')
    for start in (0, 1000):         # the first half is read from a file, the second from memory
        w.send_bytes(b''.join(w.encode_content(1, wire.encode_method('basic.publish', routing_key='events'), body(n), {'delivery_mode': 1})
                              for n in range(start, start + 1000)))
        while w.take(1, ('basic.ack',)).delivery_tag < 1000:
            pass
        if start == 0:
            w.close()
            broker.restart()
            w = open_channel(broker)
    ok(w.call(1, 'queue.declare', queue='fed', durable=True))
    ok(w.call(1, 'queue.bind', queue='fed', exchange='amq.stream.events', arguments={'x-stream-offset': 'first'}))
    brokers.wait_until(lambda: ok(w.call(1, 'queue.declare', queue='fed', passive=True)).message_count == 2000, 10, 'the records in the queue')
    w.close()
    broker.kill9()
    broker.start()
    w = open_channel(broker)
    for number in range(2000):
        m = ok(w.call(1, 'basic.get', queue='fed', no_ack=True))
        assert m.name == 'basic.get-ok' and number_of(m.body) == number and m.properties == {'delivery_mode': 1}
    w.close()


# ---- under kill -9 ----

class Publisher(threading.Thread):
    """Publishes numbers, none twice, through the fanout exchange both streams are bound to, until the connection ends."""

    def __init__(self, broker, first):
        super().__init__(daemon=True)
        self.w = open_channel(broker)
        self.first, self.sent, self.confirmed, self.error = first, 0, 0, None

    def run(self):
        method = wire.encode_method('basic.publish', exchange='all')
        try:
            while True:
                n = random.randrange(1, 100)
                first = self.first + self.sent
                self.sent += n          # before they leave: some may have arrived
                self.w.sock.sendall(b''.join(self.w.encode_content(1, method, body(i), {'delivery_mode': 2}) for i in range(first, first + n)))
                while self.confirmed < self.sent - 400:
                    self.confirmed = self.w.take(1, ('basic.ack',)).delivery_tag
        except (wire.WireError, OSError):
            pass                        # that is how it ends
        except BaseException as e:
            self.error = e


class Consumer(threading.Thread):
    """Takes from a queue. With transactions a record that was committed must never come again; without, one that comes again
    must say so."""

    def __init__(self, broker, queue, found, transactions):
        super().__init__(daemon=True)
        self.w, self.queue, self.found, self.tx = open_channel(broker, confirm=False), queue, found, transactions
        self.error, self.open, self.taken = None, [], 0
        if transactions:
            ok(self.w.call(1, 'tx.select'))
        ok(self.w.call(1, 'basic.qos', prefetch_count=300))
        ok(self.w.call(1, 'basic.consume', queue=queue))

    def settle(self, tag):
        self.w.send_method(1, 'basic.ack', delivery_tag=tag, multiple=True)
        if self.tx:
            self.w.send_method(1, 'tx.commit')
            self.w.take(1, ('tx.commit-ok',))
        for number in self.open:
            self.found[number] = True
        self.open = []

    def take(self, timeout):
        m = self.w.take(1, ('basic.deliver',), timeout)
        number = number_of(m.body)
        if self.found.get(number) is True and self.tx:
            raise AssertionError('%s: record %d came again, and its ack was committed' % (self.queue, number))
        if number in self.found and not m.redelivered:
            raise AssertionError('%s: record %d is twice in the queue' % (self.queue, number))
        if number in self.open:
            raise AssertionError('%s: record %d twice in one connection' % (self.queue, number))
        self.found.setdefault(number, False)
        self.open.append(number)
        self.taken += 1
        return m.delivery_tag

    def run(self):
        try:
            while True:
                tag = self.take(60)
                if len(self.open) >= 100:
                    self.settle(tag)
        except (wire.Eof, OSError):
            pass
        except BaseException as e:
            self.error = e

    def rest(self):
        """Everything that is left, until the queue has nothing and gets nothing."""
        while True:
            try:
                tag = self.take(2)
            except wire.Timeout:
                return
            if len(self.open) >= 100:
                self.settle(tag)


def prepare_feeding(broker):
    """Two streams get the same; one keeps little, one has partitions. A queue follows each."""
    w = open_channel(broker)
    ok(w.call(1, 'exchange.declare', exchange='all', type='fanout', durable=True))
    declare(w, 'short', **{'x-max-length-bytes': 200000, 'x-stream-max-segment-size-bytes': 65536})
    declare(w, 'parts', **{'x-stream-partitions': 3, 'x-stream-max-segment-size-bytes': 100000})
    for name in ('short', 'parts'):
        ok(w.call(1, 'queue.bind', queue=name, exchange='all'))
        ok(w.call(1, 'queue.declare', queue='q-' + name, durable=True))
        ok(w.call(1, 'queue.bind', queue='q-' + name, exchange='amq.stream.' + name, arguments={'x-stream-offset': 'first'}))
    w.close()


def one_life(broker, first, found):
    """Everybody works until enough is confirmed and some more time is over, then kill -9. Returns the publisher."""
    publisher = Publisher(broker, first)
    consumers = [Consumer(broker, 'q-short', found['short'], True), Consumer(broker, 'q-parts', found['parts'], False)]
    for t in [publisher] + consumers:
        t.start()
    enough = random.randrange(200, 4000)
    brokers.wait_until(lambda: publisher.confirmed >= enough or not publisher.is_alive(), 60, 'the load', pause=random.uniform(0.001, 0.05))
    broker.kill9()
    for t in [publisher] + consumers:
        t.join(60)
        assert not t.is_alive()
        if t.error:
            raise t.error
    return publisher


def test_a_fed_queue_gets_every_record_once_across_kills():
    random.seed(SEED)
    print('MILLRACE_STREAM_SEED=%d' % SEED)
    broker = started()
    try:
        prepare_feeding(broker)
        found, committed, first = {'short': {}, 'parts': {}}, set(), 0
        for _ in range(KILLS):
            publisher = one_life(broker, first, found)
            committed |= set(range(first, first + publisher.confirmed))
            first += publisher.sent
            broker.start()
        for name, tx in (('short', True), ('parts', False)):
            Consumer(broker, 'q-' + name, found[name], tx).rest()
        stream = read(broker, 'parts', count_of(broker, 'parts'), 'first')
        records = [number_of(g[2]) for g in stream]
        assert len(set(records)) == len(records)
        assert committed <= set(records), 'a confirmed record is lost'
        for name in found:
            assert set(found[name]) == set(records), '%s: %d records lost, %d from nowhere' % (
                name, len(set(records) - set(found[name])), len(set(found[name]) - set(records)))
        # retention has been at work; it waited for the queue, and only for it
        assert count_of(broker, 'short') < min(10000, len(records) / 2)
        print('%d kills, %d records confirmed, %d in the streams, each once in both queues' % (KILLS, len(committed), len(records)))
    finally:
        broker.remove()


# ---- everything at once ----

class Restless(threading.Thread):
    """Does something at random with a few streams and queues, again and again; an error that a channel ends with is fine."""

    def __init__(self, broker, seed, until):
        super().__init__(daemon=True)
        self.broker, self.random, self.until, self.error, self.done, self.published = broker, random.Random(seed), until, None, {}, 0

    def stream(self):
        return self.random.choice(('s1', 's2', 's3'))

    def queue(self):
        return self.random.choice(('q1', 'q2'))

    def open(self, message):
        if message.name.endswith('.close'):
            assert message.reply_code in (320, 403, 404, 406, 540), message
            raise wire.Eof('refused')
        return message

    def call(self, w, method, **fields):
        return self.open(w.call(1, method, **fields))

    def declare(self, w):
        args = {'s1': {'x-max-length-bytes': 200000}, 's2': {'x-stream-partitions': 3}, 's3': {'x-max-age': '1s'}}
        name = self.stream()
        self.call(w, 'queue.declare', queue=name, durable=True, arguments=dict(
            {'x-queue-type': 'stream', 'x-stream-max-segment-size-bytes': 65536}, **args[name]))
        self.call(w, 'queue.declare', queue=self.queue(), durable=True)
        self.call(w, 'queue.bind', queue=name, exchange='amq.fanout')

    def delete(self, w):
        if self.random.random() < 0.3:
            self.call(w, 'queue.delete', queue=self.random.choice((self.stream(), self.queue())))

    def publish(self, w):
        n = self.random.choice((1, 5, 100))
        exchange, key = self.random.choice((('', self.stream()), ('amq.fanout', 'a.b')))
        self.call(w, 'confirm.select')
        size = self.random.choice((40, 1000, 1000, 20000))
        w.send_bytes(b''.join(w.encode_content(1, wire.encode_method('basic.publish', exchange=exchange, routing_key=key), body(i, size),
                                               {'delivery_mode': self.random.choice((1, 2))}) for i in range(n)))
        while self.open(w.take(1, ('basic.ack',))).delivery_tag < n:
            pass
        self.published += n

    def transaction(self, w):
        self.call(w, 'tx.select')
        for i in range(self.random.randrange(1, 30)):
            w.publish(1, '', self.random.choice((self.stream(), self.queue())), body(i), delivery_mode=2)
        self.call(w, self.random.choice(('tx.commit', 'tx.rollback')))

    def follow(self, w):
        self.call(w, 'queue.bind', queue=self.queue(), exchange='amq.stream.' + self.stream(), routing_key=self.random.choice(('', '#', 'a.*')),
                  arguments={'x-stream-offset': self.random.choice(('first', 'next', 'last', 3))})

    def leave(self, w):
        self.call(w, 'queue.unbind', queue=self.queue(), exchange='amq.stream.' + self.stream(), routing_key=self.random.choice(('', '#', 'a.*')))

    def take(self, w):
        self.call(w, 'basic.qos', prefetch_count=50)
        self.call(w, 'basic.consume', queue=self.queue())
        self.swallow(w, self.random.randrange(1, 300), None)

    def read(self, w):
        tx = self.random.random() < 0.2
        if tx:
            self.call(w, 'tx.select')
        self.call(w, 'basic.qos', prefetch_count=self.random.choice((1, 50, 1000)))
        name, offset = self.stream(), self.random.choice(('first', 'next', 'last', 10, '1h', wire.V('T', int(time.time()) - 1)))
        args = {'x-stream-offset': offset}
        if name == 's2' and (offset == 10 or self.random.random() < 0.5):
            args['x-stream-partition'] = self.random.randrange(3)
        self.call(w, 'basic.consume', queue=name, arguments=args)
        self.swallow(w, self.random.randrange(1, 1000), {}, tx)

    def swallow(self, w, n, places, tx=False):
        try:
            for i in range(n):
                m = self.open(w.take(1, ('basic.deliver', 'basic.cancel'), 0.3))
                if m.name != 'basic.deliver':
                    return
                assert number_of(m.body, len(m.body)) < 100
                if places is not None:
                    h = m.properties['headers']
                    part, offset = h['x-stream-partition'].value if 'x-stream-partition' in h else 0, h['x-stream-offset'].value
                    if places.setdefault(part, offset) != offset:
                        # retention may be faster than a reader, and only that
                        assert offset > places[part] and m.redelivered is False, 'offset %d instead of %d' % (offset, places[part])
                    places[part] = offset + 1
                w.send_method(1, self.random.choice(('basic.ack', 'basic.ack', 'basic.nack')), delivery_tag=m.delivery_tag)
                if tx and i % 10 == 0:
                    self.call(w, self.random.choice(('tx.commit', 'tx.rollback')))
        except wire.Timeout:
            pass

    def run(self):
        whats = (self.declare, self.delete, self.publish, self.publish, self.transaction, self.follow, self.leave, self.take, self.read, self.read)
        while time.monotonic() < self.until and not self.error:
            what = self.random.choice(whats)
            w = None
            try:
                w = open_channel(self.broker, confirm=False)
                what(w)
                w.close() if self.random.random() < 0.7 else w.abort()
                self.done[what.__name__] = self.done.get(what.__name__, 0) + 1
            except wire.Eof:
                w and w.abort()
            except OSError:
                pass                        # the broker is away for a moment
            except wire.WireError as e:
                if self.broker.process.poll() is None:
                    self.error = e
            except BaseException as e:
                self.error = e


def test_streams_come_and_go_under_load():
    print('MILLRACE_STREAM_SEED=%d' % SEED)
    chance = random.Random(SEED)
    broker = started()
    try:
        restless = [Restless(broker, SEED + i, time.monotonic() + 4 * max(1, KILLS // 20)) for i in range(8)]
        for t in restless:
            t.start()
        while any(t.is_alive() for t in restless):
            for t in restless:
                t.join(chance.uniform(0.02, 0.25))
            if broker.process.poll() is not None:
                break
            broker.kill9() if chance.random() < 0.7 else broker.stop()
            broker.start()
        for t in restless:
            t.join(60)
            if t.error:
                raise t.error
        assert broker.process.poll() is None, 'the broker ended: ' + broker.log_tail()
        done = {}
        for t in restless:
            for what, n in t.done.items():
                done[what] = done.get(what, 0) + n
        print(done, sum(t.published for t in restless))
        broker.restart()
    except brokers.StartError:
        raise AssertionError(broker.log_tail())
    finally:
        broker.remove()
