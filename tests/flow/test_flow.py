"""Nobody is held up by somebody else's slowness, and an alarm holds up publishers only, and only while it lasts."""

import os
import subprocess
import time

import pytest

import driver
import scenario
import wire

LOOPS = os.environ.get('MILLRACE_LOOPS')
MIB = 1024 * 1024


@pytest.mark.parametrize('loops', [LOOPS] if LOOPS else ['1', '3'])
def test_everything_at_once(loops, monkeypatch):
    monkeypatch.setenv('MILLRACE_LOOPS', loops)
    done = scenario.run(scenario.Plan)
    print(done.figures)
    for row in done.table():
        print('%-70s %8.1f %8.1f %8.1f' % row)


class Pair:
    """A publisher with a deep window and, on its own connection, a consumer."""

    def __init__(self, broker, queue, body, window):
        self.loop = driver.Loop()
        w = broker.wire(timeout=driver.WATCHDOG)
        w.channel(1)
        w.call(1, 'queue.declare', queue=queue, durable=True)
        w.call(1, 'confirm.select')
        self.publisher = driver.Publisher(self.loop, w, 'publisher', [driver.message(queue, body, True)], window, True)
        w = broker.wire(timeout=driver.WATCHDOG)
        w.channel(1)
        self.consumer = driver.Consumer(self.loop, w, 'consumer', every=10)
        self.queue = queue

    def goes_through_an_alarm(self, reason, raise_it, end_it):
        """Publishing goes on until the alarm; the consumer is served during it; then every confirm arrives."""
        p, c = self.publisher, self.consumer
        p.fill()
        self.loop.until(lambda: p.confirms.confirmed, 'the first confirm')
        raise_it()
        self.loop.until(lambda: p.blocked, 'blocked')
        assert p.reason == reason
        # what was read before the alarm is confirmed; then nothing moves
        before = -1
        while before != p.confirms.confirmed:
            before = p.confirms.confirmed
            self.loop.rest(0.1)
        assert p.confirms.outstanding() == p.window and p.blocked
        c.consume(self.queue, prefetch=100)
        self.loop.until(lambda: c.deliveries >= 200, 'deliveries during the alarm')
        assert p.blocked or reason == 'low on memory'   # consuming is what ends a shortage of memory
        end_it()
        self.loop.until(lambda: not p.blocked, 'unblocked')
        waiting = p.confirms.published
        self.loop.until(lambda: p.confirms.low > waiting, 'progress')
        p.going = False
        self.loop.until(lambda: not p.confirms.outstanding(), 'every confirm')
        self.loop.until(lambda: c.deliveries >= p.confirms.confirmed, 'every delivery')
        assert c.deliveries == p.confirms.confirmed


if os.environ.get('MILLRACE_FLAVOUR', 'release') == 'release':      # a sanitizer does not give memory back

    def test_real_shortage_of_memory(start):
        """Publishing without a consumer raises the alarm, consuming ends it."""
        # without pages: these would end the shortage too, if they are written before the publisher's last message is counted
        broker = start('--set=memory.high_watermark=%d' % (48 * MIB), '--set=paging.bytes=%d' % (1024 * MIB))
        Pair(broker, 'q', b'm' * 20000, 100).goes_through_an_alarm('low on memory', lambda: None, lambda: None)


SMALL_DISK = ('unshare', *(() if os.geteuid() == 0 else ('-r',)), '-m', 'sh', '-c',
              'mkdir -p "$MR_SMALL" && mount -t tmpfs -o size=256m none "$MR_SMALL" && exec "$@"', 'sh')


def test_real_shortage_of_disk(start, monkeypatch, tmp_path):
    """The data folder lies on a small file system of its own, which somebody else fills and empties."""
    monkeypatch.setenv('MR_SMALL', str(tmp_path / 'small'))
    if subprocess.run([*SMALL_DISK, 'true'], stderr=subprocess.DEVNULL).returncode:
        pytest.skip('no mount namespace')
    broker = start('--data=%s' % (tmp_path / 'small' / 'data'), '--set=disk.free_min=%d' % (100 * MIB),
                   '--set=disk.free_hard=%d' % (10 * MIB), netns=SMALL_DISK)
    inside = '/proc/%d/root%s/small/filling' % (broker.process.pid, tmp_path)

    def fill():
        # Between the marks, far from the hard one: what is published until the broker looks must not be refused.
        with open(inside, 'wb') as f:
            there = os.fstatvfs(f.fileno())
            os.posix_fallocate(f.fileno(), 0, there.f_bavail * there.f_frsize - 90 * MIB)

    pair = Pair(broker, 'q', b'd' * 1000, 20)
    pair.publisher.fill()
    pair.loop.rest(0.05)        # a small stock for the consumer
    pair.goes_through_an_alarm('low on disk', fill, lambda: os.unlink(inside))


def test_late_publisher_is_blocked_at_its_first_message(start):
    """A connection is blocked when it publishes, not before; what it asked until then was answered."""
    broker = start()
    loop = driver.Loop()
    control = driver.Control(loop, os.path.join(broker.data, 'control.sock'))
    control.alarm('memory')
    w = broker.wire(timeout=driver.WATCHDOG)
    w.channel(1)
    w.call(1, 'queue.declare', queue='q')
    w.call(1, 'confirm.select')
    p = driver.Publisher(loop, w, 'late', [driver.message('q', b'x', False)], 1, True)
    loop.rest(0.05)
    assert not p.blocked
    p.fill()
    loop.until(lambda: p.blocked, 'blocked')
    control.alarm()
    loop.until(lambda: not p.blocked and p.confirms.confirmed, 'unblocked and confirmed')


def test_never_reading_peer_that_asks(start):
    """A client that sends requests and reads no answers is not read for ever, and costs others nothing."""
    broker = start()
    loop = driver.Loop()
    control = driver.Control(loop, os.path.join(broker.data, 'control.sock'))
    w = broker.wire(timeout=driver.WATCHDOG)
    w.channel(1)
    w.sock.setblocking(False)
    before = control.totals()['memory_bytes']
    ask = driver.frame(1, 'channel.flow', active=True)
    sent, quiet_since = 0, time.monotonic()
    while time.monotonic() - quiet_since < 1:
        try:
            sent += w.sock.send((ask * 2000)[sent % len(ask):])
            quiet_since = time.monotonic()
        except BlockingIOError:
            loop.rest(0.01)
        assert sent < 256 * MIB, 'it is read without an end'
    grown = control.totals()['memory_bytes'] - before
    assert grown < 2 * MIB, grown           # the out-queue's mark is 1 MiB
    other = broker.wire(timeout=driver.WATCHDOG)
    other.channel(1)
    assert other.call(1, 'channel.flow', active=True).name == 'channel.flow-ok'
    w.abort()
    other.close()
