"""Backlogs that do not fit the memory a broker may use for them: nothing is lost, nothing changes places.

About Millrace alone: paging.bytes is set so low that a few thousand messages are a large backlog.
"""

import os
import struct
import time
import zlib

import pytest

import brokers
import wire
from conftest import TARGET
from test_durability import ok, open_channel

pytestmark = pytest.mark.skipif(TARGET == 'rabbitmq', reason='settings of Millrace')
if TARGET == 'rabbitmq':
    collect_ignore = [__file__]

SIZE = 4096
COUNT = 12000
BATCH = 500
REFUSED = int(os.environ.get('MILLRACE_REFUSED', 2000))         # how many wait for their retry: by hand also 50,000, then for longer
RETRY_MS = int(os.environ.get('MILLRACE_RETRY_MS', 8000))
DELAYED = int(os.environ.get('MILLRACE_DELAYED', COUNT))        # how many are delayed: by hand also some 200,000


@pytest.fixture
def small():
    """A broker that keeps a quarter of a megabyte of waiting messages in memory."""
    broker = brokers.Millrace(args=('--set', 'paging.bytes=256K', '--set', 'paging.page_bytes=32K', '--set',
                                    'journal.compact_bytes=4M'))
    try:
        broker.start()
        yield broker
    finally:
        broker.remove()


def body(number):
    text = struct.pack('>Q', number) + bytes([number % 251]) * (SIZE - 12)
    return text + struct.pack('>I', zlib.crc32(text))


def number_of(text):
    assert len(text) == SIZE and zlib.crc32(text[:-4]) == struct.unpack('>I', text[-4:])[0], 'a damaged body'
    return struct.unpack('>Q', text[:8])[0]


def publish(w, queue, first, count, exchange='', properties=lambda number: {}):
    """With confirms, a batch at a time."""
    for start in range(first, first + count, BATCH):
        n = min(BATCH, first + count - start)
        for number in range(start, start + n):
            w.publish(1, exchange, queue, body(number), delivery_mode=2, **properties(number))
        w.published = getattr(w, 'published', 0) + n
        while w.take(1, ('basic.ack',)).delivery_tag < w.published:
            pass


def consume(w, queue, count, ack=True):
    """That many deliveries, acknowledged a batch at a time; ends with a method that proves the acks arrived."""
    ok(w.call(1, 'basic.qos', prefetch_count=2 * BATCH))
    tag = ok(w.call(1, 'basic.consume', queue=queue)).consumer_tag
    got = []
    for i in range(1, count + 1):
        m = w.take(1, ('basic.deliver',))
        got.append(number_of(m.body))
        if ack and (i % BATCH == 0 or i == count):
            w.send_method(1, 'basic.ack', delivery_tag=m.delivery_tag, multiple=True)
    ok(w.call(1, 'basic.cancel', consumer_tag=tag))
    return got


def depth(w, queue):
    return ok(w.call(1, 'queue.declare', queue=queue, passive=True)).message_count


def segments(broker):
    return sorted(os.listdir(os.path.join(broker.data, 'seg')))


def lengths(broker):
    """Bytes of each segment, the shortest first."""
    return sorted(stat.st_size for _, stat in brokers.stats(os.path.join(broker.data, 'seg')))


def test_a_backlog_beyond_memory(small):
    w = open_channel(small)
    ok(w.call(1, 'queue.declare', queue='q', durable=True))
    publish(w, 'q', 0, COUNT)
    assert depth(w, 'q') == COUNT
    assert sum(lengths(small)) > COUNT * SIZE * 0.8
    if os.environ.get('MILLRACE_FLAVOUR', 'release') == 'release':
        # the program, 16 MiB that may wait for the journal at most, buffers of the store: never the 48 MB of messages
        assert small.rss_bytes() < 40 << 20
    assert consume(w, 'q', 1000) == list(range(1000))
    w.close()

    small.kill9()
    small.start()
    w = open_channel(small)
    left = depth(w, 'q')
    assert left >= COUNT - 1000                 # the last acks need not have reached the disk
    first = COUNT - left
    publish(w, 'q', COUNT, 100)
    assert consume(w, 'q', left + 100) == list(range(first, COUNT + 100))
    assert depth(w, 'q') == 0
    # what is empty has no files, but for the one that is being written
    brokers.wait_until(lambda: len(segments(small)) <= 1, 10, 'the segments to go')
    w.close()


def delay_of(number):
    """In ms: forty different ones, neighbours far apart."""
    return 3000 + 50 * (number * 7919 % 40)


def assert_due_order(numbers, publishing_ms):
    """Of two that were published one after the other the second comes first only if it was due earlier; and what was surely due
    earlier has come."""
    last, left = {}, {}
    for number in numbers:
        left[delay_of(number)] = left.get(delay_of(number), 0) + 1
    for number in numbers:
        delay = delay_of(number)
        assert all(last[d] < number for d in last if d >= delay), 'out of order: %d' % number
        assert not any(left[d] for d in left if d < delay - publishing_ms), 'too early: %d' % number
        last[delay] = max(number, last.get(delay, -1))
        left[delay] -= 1


def test_delayed_messages_beyond_memory(small):
    """They come when they are due, then as they came, and once; also when the broker dies while they do."""
    w = open_channel(small)
    ok(w.call(1, 'exchange.declare', exchange='late', type='x-delayed-message', durable=True,
              arguments={'x-delayed-type': 'direct'}))
    ok(w.call(1, 'queue.declare', queue='q', durable=True))
    ok(w.call(1, 'queue.bind', queue='q', exchange='late', routing_key='q'))
    begin = time.monotonic()
    publish(w, 'q', 0, DELAYED, 'late', lambda number: {'headers': {'x-delay': delay_of(number)}})
    publishing = time.monotonic() - begin
    assert sum(lengths(small)) > DELAYED * SIZE * 0.6
    assert small.status()['memory_messages'] < DELAYED * SIZE // 3      # a broker that gets no processor has some that wait for the journal and the disk
    brokers.wait_until(lambda: depth(w, 'q') > DELAYED // 4, 60, 'a quarter of them')
    small.kill9()
    w.abort()
    small.start()
    w = open_channel(small)
    brokers.wait_until(lambda: depth(w, 'q') == DELAYED, 120, 'all of them')
    got = consume(w, 'q', DELAYED)
    assert sorted(got) == list(range(DELAYED))
    assert_due_order(got, publishing * 1000 + 1000)
    brokers.wait_until(lambda: len(segments(small)) <= 1, 10, 'the segments to go')
    w.close()


def test_a_selector_finds_what_lies_deep(small):
    """Nobody reads the front; what matches lies in pages behind it, one in each thousand. A broker killed in between finds the rest."""
    w = open_channel(small)
    ok(w.call(1, 'queue.declare', queue='q', durable=True))
    for start in range(0, 6000, BATCH):
        for number in range(start, start + BATCH):
            w.publish(1, '', 'q', body(number), delivery_mode=2,
                      headers={'kind': 'rare' if number % 1000 == 999 else 'usual', 'number': number})
        while w.take(1, ('basic.ack',)).delivery_tag < start + BATCH:
            pass
    ok(w.call(1, 'basic.qos', prefetch_count=1))
    ok(w.call(1, 'basic.consume', queue='q', arguments={'x-selector': "kind = 'rare'"}))
    for number in (999, 1999):
        m = w.take(1, ('basic.deliver',))
        assert number_of(m.body) == number and not m.redelivered
        w.send_method(1, 'basic.ack', delivery_tag=m.delivery_tag, multiple=False)
    assert number_of(w.take(1, ('basic.deliver',)).body) == 2999
    if os.environ.get('MILLRACE_FLAVOUR', 'release') == 'release':
        assert small.rss_bytes() < 40 << 20
    assert depth(w, 'q') == 5997
    ok(w.call(1, 'queue.declare', queue='behind', durable=True))
    w.publish(1, '', 'behind', b'', delivery_mode=2)
    w.take(1, ('basic.ack',))                   # what is durable now are the acknowledgements before it, too
    w.close()

    small.kill9()
    small.start()
    w = open_channel(small)
    tag = ok(w.call(1, 'basic.consume', queue='q', arguments={'x-selector': 'number BETWEEN 2500 AND 4000 AND kind LIKE \'r%\''},
                    no_ack=True)).consumer_tag
    assert [number_of(w.take(1, ('basic.deliver',)).body) for _ in range(2)] == [2999, 3999]
    ok(w.call(1, 'basic.cancel', consumer_tag=tag))
    gone = {999, 1999, 2999, 3999}
    assert depth(w, 'q') == 6000 - len(gone)
    assert consume(w, 'q', 6000 - len(gone)) == [n for n in range(6000) if n not in gone]
    assert depth(w, 'q') == 0
    w.close()


def refuse(w, queue, count):
    """Takes that many and gives each back, a batch at a time. The numbers as they came, and how often each had been returned; and
    when the first came."""
    ok(w.call(1, 'basic.qos', prefetch_count=2 * BATCH))
    tag = ok(w.call(1, 'basic.consume', queue=queue)).consumer_tag
    got, first = [], None
    for i in range(1, count + 1):
        m = w.take(1, ('basic.deliver',))
        first = first or time.monotonic()
        got.append((number_of(m.body), m.properties.get('headers', {}).get('x-delivery-count', wire.V('l', 0)).value))
        if i % BATCH == 0 or i == count:
            w.send_method(1, 'basic.nack', delivery_tag=m.delivery_tag, multiple=True, requeue=True)
    ok(w.call(1, 'basic.cancel', consumer_tag=tag))
    return got, first


def test_refused_messages_beyond_memory(small):
    """A backlog is refused, all of it: it waits on disk, comes back when it is due, once and in order, though the broker dies meanwhile."""
    w = open_channel(small)
    ok(w.call(1, 'queue.declare', queue='q', durable=True,
              arguments={'x-delayed-retry-min': RETRY_MS, 'x-delayed-retry-multiplier': 1}))
    ok(w.call(1, 'queue.declare', queue='other', durable=True))
    publish(w, 'q', 0, REFUSED)
    begin = time.monotonic()
    assert refuse(w, 'q', REFUSED)[0] == [(number, 0) for number in range(REFUSED)]
    publish(w, 'other', 0, 1)                   # what is durable now is what was said before it, too
    brokers.wait_until(lambda: small.status()['memory_messages'] < REFUSED * SIZE // 2, 20, 'them to go to pages')
    small.kill9()
    w.abort()
    small.start()
    w = open_channel(small)
    got, first = refuse(w, 'q', REFUSED)
    assert first > begin + RETRY_MS / 1000
    assert got == [(number, 1) for number in range(REFUSED)]
    assert ok(w.call(1, 'queue.purge', queue='q')).message_count == REFUSED
    assert ok(w.call(1, 'queue.delete', queue='other')).message_count == 1
    brokers.wait_until(lambda: len(segments(small)) <= 1, 10, 'the segments to go')
    w.close()


def test_purge_and_delete_of_a_backlog(small):
    w = open_channel(small)
    for queue in ('purged', 'deleted', 'kept'):
        ok(w.call(1, 'queue.declare', queue=queue, durable=True))
        publish(w, queue, 0, 2000)
    assert ok(w.call(1, 'queue.purge', queue='purged')).message_count == 2000
    assert ok(w.call(1, 'queue.delete', queue='deleted')).message_count == 2000
    w.close()
    small.kill9()
    small.start()
    w = open_channel(small)
    assert depth(w, 'purged') == 0
    assert w.call(1, 'basic.get', queue='kept', no_ack=True).message_count == 1999
    assert consume(w, 'kept', 1999) == list(range(1, 2000))
    w.close()


def test_expired_backlog_is_dead_lettered_in_order(small):
    w = open_channel(small)
    ok(w.call(1, 'queue.declare', queue='dead', durable=True))
    ok(w.call(1, 'queue.declare', queue='q', durable=True, arguments={
        'x-message-ttl': 2500, 'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': 'dead'}))
    publish(w, 'q', 0, 1500)
    brokers.wait_until(lambda: depth(w, 'dead') == 1500, 60, 'the dead letters')
    assert depth(w, 'q') == 0
    assert consume(w, 'dead', 1500) == list(range(1500))
    w.close()


def test_a_get_waits_for_its_page(small):
    w = open_channel(small)
    ok(w.call(1, 'queue.declare', queue='q', durable=True))
    publish(w, 'q', 0, 1000)
    w.close()
    small.restart()
    w = open_channel(small)
    for number in range(300):
        m = w.call(1, 'basic.get', queue='q', no_ack=True)
        assert m.name == 'basic.get-ok' and number_of(m.body) == number
    w.close()


def peak(broker, begin=False):
    """Most resident since begin."""
    if begin:
        with open('/proc/%d/clear_refs' % broker.process.pid, 'w') as f:
            f.write('5')
    with open('/proc/%d/status' % broker.process.pid) as f:
        return next(int(line.split()[1]) << 10 for line in f if line.startswith('VmHWM'))


def test_the_largest_message_is_in_memory_once():
    """128 MiB: published, delivered, found after a kill -9. While it is journalled what the disk has not taken yet is there twice."""
    size = 128 << 20
    broker = brokers.Millrace(args=('--set', 'message.bytes_max=128M'))
    release = os.environ.get('MILLRACE_FLAVOUR', 'release') == 'release'
    try:
        broker.start()
        idle = peak(broker)
        text = os.urandom(1 << 20) * 128
        w = open_channel(broker)
        ok(w.call(1, 'queue.declare', queue='q', durable=True))
        w.publish(1, '', 'q', text, delivery_mode=2)
        assert w.take(1, ('basic.ack', 'basic.nack'), 60).name == 'basic.ack'
        assert not release or peak(broker) - idle < 2 * size + (8 << 20)
        peak(broker, begin=True)
        assert w.call(1, 'basic.get', queue='q', timeout=60).body == text
        assert not release or peak(broker) - idle < 1.2 * size
        w.close()
        broker.kill9()
        broker.start(60)
        w = open_channel(broker)
        assert w.call(1, 'basic.get', queue='q', timeout=60, no_ack=True).body == text
        assert not release or peak(broker) - idle < 1.2 * size
        w.close()
    finally:
        broker.remove()


def test_large_messages_page_into_files_of_their_own(small):
    """Small ones between them share a file; a file goes with its message."""
    sizes = [3 << 20, 1000, 1500, 5 << 20, 9 << 20, 700, (1 << 20) + 5, 4 << 20, 2 << 20, 800]
    texts = [os.urandom(1000) * (size // 1000) + os.urandom(size % 1000) for size in sizes]
    w = open_channel(small)
    ok(w.call(1, 'queue.declare', queue='q', durable=True))
    for text in texts:
        w.publish(1, '', 'q', text, delivery_mode=2)
    while w.take(1, ('basic.ack',), 60).delivery_tag < len(texts):
        pass

    def large():
        return [n for n in lengths(small) if n > 1 << 20]

    # the first stays in front; of the others each large one has its file, in blocks of 4 KiB and one for the header
    wanted = sorted((size + 100 + 4095) // 4096 * 4096 + 4096 for size in sizes[1:] if size >= 1 << 20)
    brokers.wait_until(lambda: large() == wanted, 10, 'files of %r' % wanted)
    w.close()
    small.kill9()
    small.start()
    w = open_channel(small)
    ok(w.call(1, 'basic.consume', queue='q'))
    for i, text in enumerate(texts, 1):
        m = w.take(1, ('basic.deliver',), 60)
        assert m.body == text
        w.send_method(1, 'basic.ack', delivery_tag=m.delivery_tag)
    brokers.wait_until(lambda: not large(), 10, 'the files to go')
    w.close()
