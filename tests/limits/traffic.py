"""A publisher that never blocks and a consumer that checks: what both know of each message is all that the tests believe.

Bodies carry their number and a CRC of our own. `Ledger` keeps what was confirmed, refused or is not known, and judges what
comes back: lost, out of order, damaged, refused and yet there.
"""
import os
import select
import struct
import sys
import time
import zlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "clients"))

import brokers  # noqa: E402
import wire  # noqa: E402

assert brokers.ROOT


class Wrong(Exception):
    """What the test exists to find."""


def check(truth, text, *values):
    if not truth:
        raise Wrong(text % values)


def body(number, size):
    text = struct.pack(">QI", number, size) + bytes([number % 251]) * (size - 16)
    return text + struct.pack(">I", zlib.crc32(text))


def number_of(text):
    check(len(text) >= 16 and zlib.crc32(text[:-4]) == struct.unpack(">I", text[-4:])[0], "a damaged body")
    number, size = struct.unpack(">QI", text[:12])
    check(size == len(text), "body %d has another length", number)
    return number


class Ledger:
    """One queue, one publisher. `open` are those without an answer (perhaps there), `waiting` those that must come."""

    def __init__(self):
        self.next, self.confirmed, self.refused, self.seen, self.highest = 0, 0, set(), 0, -1
        self.waiting, self.open, self.early = {}, {}, set()        # early: acked before their confirm was read

    def published(self):
        self.next += 1
        self.open[self.next - 1] = True
        return self.next - 1

    def answer(self, number, taken):
        del self.open[number]
        if taken:
            self.confirmed += 1
            if number not in self.early:
                self.waiting[number] = True
            self.early.discard(number)
        else:
            self.refused.add(number)

    def connection_lost(self):
        self.open.clear()

    def came(self, number, redelivered):
        check(number not in self.refused, "message %d was refused, and is there", number)
        check(number < self.next, "message %d was never published", number)
        check(redelivered or number > self.highest, "message %d came after %d", number, self.highest)
        self.highest = max(self.highest, number)
        self.seen += 1

    def acked(self, number):
        """Its ack was sent: it need not come again, and may."""
        if number in self.open:
            self.early.add(number)
        self.waiting.pop(number, None)

    def all_came(self):
        missing = sorted(self.waiting)
        check(not missing, "%d confirmed messages are lost, the first is %d of %d", len(missing), missing[0] if missing else 0,
              self.next)


class Publisher:
    """Keeps `window` publishes without an answer; turn() does what can be done within a time and returns."""

    def __init__(self, port, queue, ledger, size, window=64):
        self.ledger, self.size, self.queue, self.window = ledger, size, queue, window
        self.w = wire.Wire("127.0.0.1", port, 20)
        self.w.open()
        self.w.channel(1)
        self.w.call(1, "queue.declare", queue=queue, durable=True)
        self.w.call(1, "confirm.select")
        self.w.sock.setblocking(False)
        self.out, self.tag, self.numbers = bytearray(), 0, {}
        self.blocked, self.blocks, self.last_confirm, self.reason = False, 0, 0, ""
        self.held = False           # publish nothing new

    def refill(self):
        while not self.held and len(self.numbers) < self.window and len(self.out) < 1 << 20:
            number = self.ledger.published()
            self.tag += 1
            self.numbers[self.tag] = number
            method = wire.encode_method("basic.publish", exchange="", routing_key=self.queue)
            self.out += self.w.encode_content(1, method, body(number, self.size), {"delivery_mode": 2})

    def answers(self, m):
        taken = m.name == "basic.ack"
        tags = [tag for tag in self.numbers if tag <= m.delivery_tag] if m.multiple else [m.delivery_tag]
        for tag in tags:
            self.ledger.answer(self.numbers.pop(tag), taken)
        if taken:
            self.last_confirm = time.monotonic()

    def receive(self):
        try:
            data = self.w.sock.recv(262144)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            raise wire.Eof("the server closed the connection")
        self.w.buffer += data
        while True:
            if len(self.w.buffer) < 7 or len(self.w.buffer) < 8 + struct.unpack_from(">I", self.w.buffer, 3)[0]:
                return
            m = self.w._assemble(self.w.recv_frame(1))
            if m is None:
                continue
            if m.name in ("basic.ack", "basic.nack"):
                self.answers(m)
            elif m.name == "connection.blocked":
                self.blocked, self.blocks, self.reason = True, self.blocks + 1, m.reason
            elif m.name == "connection.unblocked":
                self.blocked = False
            else:
                raise wire.WireError("the publisher was told %r" % (m,))

    def turn(self, seconds):
        until = time.monotonic() + seconds
        while True:
            self.refill()
            poll = select.poll()
            poll.register(self.w.sock, select.POLLIN | (select.POLLOUT if self.out else 0))
            left = until - time.monotonic()
            if left <= 0:
                return
            for _, events in poll.poll(left * 1000):
                if events & select.POLLOUT:
                    try:
                        del self.out[:self.w.sock.send(memoryview(self.out)[:1 << 18])]
                    except BlockingIOError:
                        pass
                    except ConnectionError as error:
                        raise wire.Eof("the server closed the connection") from error
                if events & ~select.POLLOUT:
                    self.receive()

    def until(self, condition, seconds, what):
        end = time.monotonic() + seconds
        while not condition():
            check(time.monotonic() < end, "%s: not within %g s", what, seconds)
            self.turn(0.01)

    def gone(self):
        self.ledger.connection_lost()
        self.w.abort()


class Consumer:
    """Takes in order, checks, acknowledges in steps."""

    def __init__(self, port, queue, ledger, prefetch=200):
        self.ledger, self.queue, self.prefetch = ledger, queue, prefetch
        self.w = wire.Wire("127.0.0.1", port, 20)
        self.w.open()
        self.w.channel(1)
        self.w.call(1, "queue.declare", queue=queue, durable=True)
        self.w.call(1, "basic.qos", prefetch_count=prefetch)
        self.w.call(1, "basic.consume", queue=queue, consumer_tag="c")
        self.unacked = []

    def turn(self, count, seconds, step=50):
        """Up to count messages within the time; how many came."""
        end, came = time.monotonic() + seconds, 0
        while came < count:
            left = end - time.monotonic()
            if left <= 0:
                break
            try:
                m = self.w.take(1, ("basic.deliver",), left)
            except wire.Timeout:
                break
            check(m.name == "basic.deliver", "the consumer was told %r", m)
            number = number_of(m.body)
            self.ledger.came(number, m.redelivered)
            self.unacked.append((m.delivery_tag, number))
            came += 1
            if len(self.unacked) >= step:
                self.ack()
        self.ack()
        return came

    def ack(self):
        if self.unacked:
            self.w.send_method(1, "basic.ack", delivery_tag=self.unacked[-1][0], multiple=True)
            for _, number in self.unacked:
                self.ledger.acked(number)
        self.unacked = []

    def left(self):
        """Messages that are ready, once the broker has taken in all acks."""
        m = self.w.call(1, "queue.declare", queue=self.queue, passive=True)
        check(m.name == "queue.declare-ok", "the consumer was told %r", m)
        return m.message_count + len(self.w.inbox.get(1, ()))

    def drain(self, seconds=60, step=50):
        """To the end of the queue, which has no publisher. The broker answers for how far it is."""
        end = time.monotonic() + seconds
        while self.turn(self.left() or self.prefetch, 0.1, step) or self.left():
            check(time.monotonic() < end, "a queue of %d messages is not drained within %g s", self.left(), seconds)

    def gone(self):
        self.w.abort()
