"""Hundreds of AMQP connections in one thread: epoll, and a scanner that looks only at what a load needs.

Connections are opened with the blocking client of tests/clients/wire.py and handed over to a Loop.
"""

import collections
import json
import os
import select
import socket
import struct
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), 'clients'))

import wire  # noqa: E402

HEAD = struct.Struct('>BHI')
IDS = struct.Struct('>HH')
ACK = struct.Struct('>QB')
WATCHDOG = 120          # seconds that nothing may take, however busy the machine is

BLOCKED, UNBLOCKED = (10, 60), (10, 61)
CONNECTION_CLOSE, CHANNEL_CLOSE = (10, 50), (20, 40)
CONSUME_OK, DELIVER, BASIC_ACK, BASIC_NACK, DECLARE_OK = (60, 21), (60, 60), (60, 80), (60, 120), (50, 11)


class Stuck(AssertionError):
    """Something that had to happen did not."""


class Loop:
    def __init__(self):
        self.poll = select.epoll()
        self.members = {}

    def add(self, member):
        self.members[member.sock.fileno()] = member
        self.poll.register(member.sock, select.EPOLLIN)

    def remove(self, member):
        del self.members[member.sock.fileno()]
        self.poll.unregister(member.sock)

    def wants(self, member, writing):
        self.poll.modify(member.sock, select.EPOLLIN | (select.EPOLLOUT if writing else 0))

    def turn(self, timeout):
        for fd, events in self.poll.poll(timeout):
            member = self.members.get(fd)
            if member is None:
                continue
            if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                member.on_readable()
            if events & select.EPOLLOUT and fd in self.members:
                member.on_writable()

    def until(self, condition, what, seconds=WATCHDOG):
        """Serve everybody until the condition holds; what it is not may be a callable that explains."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise Stuck('not within %g s: %s' % (seconds, what() if callable(what) else what))
            self.turn(0.02)

    def rest(self, seconds):
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                return
            self.turn(left)


class Stream:
    """A non-blocking socket with an out-queue."""

    def __init__(self, loop, sock, have=b''):
        self.loop, self.sock, self.have = loop, sock, have
        self.out = collections.deque()
        sock.setblocking(False)
        loop.add(self)

    def send(self, data):
        sent = 0
        if not self.out:
            try:
                sent = self.sock.send(data)
            except BlockingIOError:
                pass
            if sent == len(data):
                return
            self.loop.wants(self, True)
        self.out.append(memoryview(data)[sent:])

    def on_writable(self):
        while self.out:
            try:
                sent = self.sock.send(self.out[0])
            except BlockingIOError:
                return
            if sent < len(self.out[0]):
                self.out[0] = self.out[0][sent:]
                return
            self.out.popleft()
        self.loop.wants(self, False)

    def on_readable(self):
        try:
            got = self.sock.recv(262144)
        except BlockingIOError:
            return
        if not got:
            raise Stuck('%r: the broker closed the connection' % self)
        data = self.have + got if self.have else got
        self.have = data[self.scan(data):]

    def leave(self):
        self.loop.remove(self)
        self.sock.close()


class Client(Stream):
    """An AMQP connection: on_method for each method; content is only counted."""

    def __init__(self, loop, w, name):
        self.name, self.wire = name, w
        self.blocked = False
        self.reason, self.times_blocked, self.times_unblocked = '', 0, 0
        super().__init__(loop, w.sock, bytes(w.buffer))

    def __repr__(self):
        return self.name

    def scan(self, data):
        at, end = 0, len(data)
        while end - at >= 8:
            kind, channel, size = HEAD.unpack_from(data, at)
            if end - at < size + 8:
                break
            if data[at + 7 + size] != wire.FRAME_END:
                raise Stuck('%r: a frame without its end' % self)
            if kind == wire.FRAME_METHOD:
                self.method(channel, data, at + 7, size)
            at += size + 8
        return at

    def method(self, channel, data, at, size):
        ids = IDS.unpack_from(data, at)
        if ids == BLOCKED:
            if self.blocked:
                raise Stuck('%r: blocked twice' % self)
            self.blocked, self.times_blocked = True, self.times_blocked + 1
            self.reason = data[at + 5:at + 5 + data[at + 4]].decode()
        elif ids == UNBLOCKED:
            if not self.blocked:
                raise Stuck('%r: unblocked and was not blocked' % self)
            self.blocked, self.times_unblocked = False, self.times_unblocked + 1
        elif ids in (CONNECTION_CLOSE, CHANNEL_CLOSE):
            raise Stuck('%r: %r' % (self, wire.decode_method(data[at:at + size])))
        else:
            self.on_method(channel, ids, data, at)

    def on_method(self, channel, ids, data, at):
        pass


class Confirms:
    """Which of a channel's publishes are confirmed. Each once, and none that was not published."""

    def __init__(self):
        self.published = self.confirmed = 0
        self.low = 1                # the lowest that is not confirmed
        self.beyond = set()

    def outstanding(self):
        return self.published - self.confirmed

    def take(self, tag, multiple):
        if tag > self.published or tag < self.low or tag in self.beyond:
            raise Stuck('confirm of %d: published %d, confirmed below %d' % (tag, self.published, self.low))
        if multiple:
            self.beyond = {t for t in self.beyond if t > tag}
            self.low = tag + 1
        elif tag == self.low:
            self.low += 1
        else:
            self.beyond.add(tag)
        while self.low in self.beyond:
            self.beyond.discard(self.low)
            self.low += 1
        self.confirmed = self.low - 1 + len(self.beyond)


class Publisher(Client):
    """Keeps `window` publishes unconfirmed until it is told to stop, whether it is blocked or not: what the broker does not
    read waits in the socket. `messages` are ready-made frames."""

    def __init__(self, loop, w, name, messages, window, announces):
        self.confirms, self.messages, self.window, self.announces = Confirms(), messages, window, announces
        self.at = 0
        self.going = True
        self.goal = 0               # what was published when the alarm ended
        self.first_at = self.all_at = 0.0
        super().__init__(loop, w, name)

    def fill(self):
        while self.going and self.confirms.outstanding() < self.window:
            self.confirms.published += 1
            self.at = (self.at + 1) % len(self.messages)
            self.send(self.messages[self.at])

    def on_method(self, channel, ids, data, at):
        if ids != BASIC_ACK:
            raise Stuck('%r: method %r' % (self, ids))
        tag, bits = ACK.unpack_from(data, at + 4)
        self.confirms.take(tag, bits & 1)
        if self.goal:
            now = time.monotonic()
            self.first_at = self.first_at or now
            if self.confirms.low > self.goal:
                self.all_at, self.goal = now, 0
        self.fill()

    def mark(self):
        """The alarm ends now: from here on its progress is timed."""
        self.goal, self.first_at, self.all_at = self.confirms.published, 0.0, 0.0


class Consumer(Client):
    """Counts deliveries; acknowledges each `every`-th with multiple (0: the consumer is no_ack)."""

    def __init__(self, loop, w, name, channel=1, every=0):
        self.deliveries, self.every, self.channel, self.acked, self.answers = 0, every, channel, 0, 0
        self.answered = True
        super().__init__(loop, w, name)

    def consume(self, queue, prefetch=0):
        if prefetch:
            self.send(frame(self.channel, 'basic.qos', prefetch_count=prefetch))
        self.send(frame(self.channel, 'basic.consume', queue=queue, no_ack=not self.every))

    def ack(self, tag):
        self.acked = tag
        self.send(frame(self.channel, 'basic.ack', delivery_tag=tag, multiple=True))

    def ask(self, queue):
        """A synchronous call that must be answered even while publishers wait."""
        if self.answered:
            self.answered = False
            self.send(frame(self.channel, 'queue.declare', queue=queue, passive=True))

    def on_method(self, channel, ids, data, at):
        if ids == DECLARE_OK:
            self.answers += 1
            self.answered = True
        if ids != DELIVER:
            return
        self.deliveries += 1
        tag = struct.unpack_from('>Q', data, at + 5 + data[at + 4])[0]
        if self.every and tag - self.acked >= self.every:
            self.ack(tag)

    def ack_rest(self):
        if self.every and self.acked < self.deliveries:
            self.ack(self.deliveries)


class Both(Publisher):
    """Publishes (with confirms) on channel 1 and consumes, with an ack for each delivery, on channel 2."""

    def __init__(self, loop, w, name, messages, window):
        self.deliveries = 0
        super().__init__(loop, w, name, messages, window, True)

    def on_method(self, channel, ids, data, at):
        if channel == 1:
            super().on_method(channel, ids, data, at)
        elif ids == DELIVER:
            self.deliveries += 1
            tag = struct.unpack_from('>Q', data, at + 5 + data[at + 4])[0]
            self.send(frame(2, 'basic.ack', delivery_tag=tag))


class Control(Stream):
    """The control socket: one request at a time, answers in order."""

    def __init__(self, loop, path):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        self.answers, self.asked = collections.deque(), 0
        super().__init__(loop, sock)

    def scan(self, data):
        at = 0
        while len(data) - at >= 4:
            size = struct.unpack_from('>I', data, at)[0]
            if len(data) - at < 4 + size:
                break
            self.answers.append(json.loads(data[at + 4:at + 4 + size]))
            at += 4 + size
        return at

    def call(self, op, **operands):
        request = json.dumps(dict(operands, op=op)).encode()
        self.send(struct.pack('>I', len(request)) + request)
        self.loop.until(lambda: self.answers, 'an answer to ' + op)
        answer = self.answers.popleft()
        if not answer['ok']:
            raise Stuck('%s: %r' % (op, answer))
        return answer

    def totals(self):
        row = self.call('TOTALS', lazy=True)['rows'][0]
        return {key: int(value) for key, value in row.items()}

    def queues(self):
        return {row['name']: row for row in self.call('QUEUE_LIST', lazy=True)['rows']}

    def alarm(self, *raised):
        self.call('alarm', raised=raised)


def frame(channel, method, **fields):
    return wire.encode_frame(wire.FRAME_METHOD, channel, wire.encode_method(method, **fields))


def message(queue, body, persistent):
    """A publish to a queue as one piece of bytes, cut into frames of at most 128 KiB."""
    step = 131072 - 8
    properties = {'delivery_mode': 2 if persistent else 1}
    out = [frame(1, 'basic.publish', routing_key=queue), wire.encode_frame(2, 1, wire.encode_header(len(body), properties))]
    out += [wire.encode_frame(3, 1, body[i:i + step]) for i in range(0, len(body), step)]
    return b''.join(out)
