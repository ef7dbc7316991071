"""MQTT 3.1.1 and 5 on a socket, packet by packet, for clients that have to do exactly what a test wants.

Packets are made by the functions of tests/clients/mqtt_rows.py; here they are read, and sent when there is room.
"""
import select
import socket
import struct
import time
from collections import namedtuple

from load import Gone       # first: it makes tests/clients importable
import mqtt_rows
from mqtt_rows import packet, subscribe, text  # noqa: F401: of whoever speaks by this

CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, PINGRESP, DISCONNECT = 2, 3, 4, 5, 6, 7, 9, 13, 14
DUP, RETAIN = 8, 1
CLEAN = 2
FOREVER = 7200              # seconds of expiry: longer than any chain leaves a session alone

# present: of CONNACK; codes: of SUBACK
Packet = namedtuple("Packet", "kind flags id topic body reason present codes", defaults=(0, "", b"", 0, False, b""))


class WireError(Exception):
    """The broker said what it must not say."""


def number_at(data, at):
    """A variable byte integer: (its value, where it ends)."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        shift, at = shift + 7, at + 1
        if byte < 128:
            return value, at


def parse(first, body, version):
    """One packet of the broker's; properties are passed over."""
    kind, flags = first >> 4, first & 15
    if kind == PUBLISH:
        length = struct.unpack_from(">H", body)[0]
        at, id_ = 2 + length, 0
        if flags & 6:
            id_, at = struct.unpack_from(">H", body, at)[0], at + 2
        if version == 5:
            length_, at = number_at(body, at)
            at += length_
        return Packet(kind, flags, id_, body[2:2 + length].decode(), body[at:])
    if kind == CONNACK:
        return Packet(kind, flags, present=bool(body[0] & 1), reason=body[1])
    if kind in (PUBACK, PUBREC, PUBREL, PUBCOMP):
        return Packet(kind, flags, struct.unpack_from(">H", body)[0], reason=body[2] if len(body) > 2 else 0)
    if kind == SUBACK:
        at = 2
        if version == 5:
            length, at = number_at(body, at)
            at += length
        return Packet(kind, flags, struct.unpack_from(">H", body)[0], codes=body[at:])
    if kind == DISCONNECT:
        return Packet(kind, flags, reason=body[0] if body else 0)
    return Packet(kind, flags)


def hello(version, client, clean=False, expiry=FOREVER, receive=0, will=None):
    """CONNECT without a keep alive. expiry: of 5; in 3.1.1 it is for ever unless clean. will: (topic, body, retain, delay in s)"""
    flags, rest, props = CLEAN if clean else 0, b"", b""
    if version == 5:
        props = b"\x11" + struct.pack(">I", expiry) + (b"\x21" + struct.pack(">H", receive) if receive else b"")
    if will:
        topic, body, retain, delay = will
        flags |= 4 | 1 << 3 | (32 if retain else 0)
        if version == 5:
            rest = b"\5\x18" + struct.pack(">I", delay) if delay else b"\0"
        rest += text(topic) + text(body)
    return mqtt_rows.connect(version, client, flags=flags, keep_alive=0, props=props, rest=rest)


def answer(kind, id_):
    """PUBACK, PUBREC, PUBREL or PUBCOMP."""
    return packet(kind << 4 | (2 if kind == PUBREL else 0), struct.pack(">H", id_))


class Link:
    """A connection on which nothing waits: what is said goes out with flush, what has come is taken with packets."""

    def __init__(self, port, version):
        self.version = version
        self.socket = socket.create_connection(("127.0.0.1", port - 5672 + 1883), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.buffer, self.out, self.taken = bytearray(), bytearray(), []

    def say(self, data):
        self.out += data

    def publish(self, topic, body, qos, id_, flags):
        self.say(mqtt_rows.publish(self.version, topic, body, qos, id_, flags))

    def flush(self):
        while self.out:
            try:
                del self.out[:self.socket.send(self.out)]
            except BlockingIOError:
                return
            except OSError as error:
                raise Gone(str(error)) from None

    def packets(self):
        """All whole packets that have come, and an exception last when it has ended."""
        end = None
        try:
            while True:
                part = self.socket.recv(1 << 18)
                if not part:
                    end = Gone("the connection was closed")
                    break
                self.buffer += part
        except BlockingIOError:
            pass
        except OSError as error:
            end = Gone(str(error))
        yield from self.cut()
        if end:
            raise end

    def cut(self):
        at = 0
        while len(self.buffer) - at >= 2:
            if self.buffer[at + 1] >= 128 and not any(byte < 128 for byte in self.buffer[at + 1:at + 5]):
                break                                   # its length is not whole yet
            length, begins = number_at(self.buffer, at + 1)
            if len(self.buffer) < begins + length:
                break
            yield parse(self.buffer[at], bytes(self.buffer[begins:begins + length]), self.version)
            at = begins + length
        del self.buffer[:at]

    def next(self, seconds):
        """The next packet; None when none comes in that time."""
        deadline = time.monotonic() + seconds
        while not self.taken:
            self.flush()
            wait = deadline - time.monotonic()
            if wait <= 0:
                return None
            select.select([self.socket], [self.socket] if self.out else [], [], min(wait, 1))
            self.taken += self.packets()
        return self.taken.pop(0)

    def wait_for(self, kind, seconds=60):
        """The next packet of that kind; what comes before it stays to be taken."""
        before = []
        while True:
            got = self.next(seconds)
            if got is None or got.kind == DISCONNECT:
                raise WireError("%r came where a packet of kind %d was due" % (got, kind))
            if got.kind == kind:
                self.taken = before + self.taken
                return got
            before.append(got)

    def close(self):
        self.socket.close()
