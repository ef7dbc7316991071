#!/usr/bin/python3
"""Rows of bytes, sent to Mosquitto and to Millrace: what comes back must be the same, packet by packet, except where a row says why not.

    tests/clients/mqtt_rows.py --peer PORT --port PORT [-k word]   # shows answers and differences

Each row is one connection (or two, `b`): it is sent, then a PINGREQ, and read until the PINGRESP and as many packets as the peer gave have come,
or the end; `THEN` in a row waits for that in between.  Packets are compared as a set: what is acknowledged waits for a disk here, so an answer may come after a delivery.
Of CONNACK flags and reason count, of a delivery everything but its packet id and the order of different properties.  Where Mosquitto ends a
connection of 5.0 without a word it may have one here: the reason.
"""

import argparse
import socket
import struct
import sys
import time

NAMES = ['0', 'CONNECT', 'CONNACK', 'PUBLISH', 'PUBACK', 'PUBREC', 'PUBREL', 'PUBCOMP', 'SUBSCRIBE', 'SUBACK', 'UNSUBSCRIBE',
         'UNSUBACK', 'PINGREQ', 'PINGRESP', 'DISCONNECT', 'AUTH']
QUIET = 3.0     # how long an answer may take that the peer gave
THEN = object()


def varint(n):
    out = b''
    while True:
        out += bytes([n & 127 | (128 if n > 127 else 0)])
        n >>= 7
        if not n:
            return out


def text(s):
    s = s.encode() if isinstance(s, str) else s
    return struct.pack('>H', len(s)) + s


def packet(first, *body):
    body = b''.join(body)
    return bytes([first]) + varint(len(body)) + body


def connect(version, client='', flags=2, keep_alive=60, props=b'', rest=b'', name=None, level=None):
    name = name or (b'MQIsdp' if version == 3 else b'MQTT')
    level = version if level is None else level
    return packet(0x10, text(name), bytes([level, flags]), struct.pack('>H', keep_alive),
                  varint(len(props)) + props if version == 5 else b'', text(client), rest)


def publish(version, topic, payload=b'', qos=0, pid=1, flags=0, props=b''):
    return packet(0x30 | qos << 1 | flags, text(topic), struct.pack('>H', pid) if qos else b'',
                  varint(len(props)) + props if version == 5 else b'', payload)


def subscribe(version, *filters, pid=1, props=b''):
    return packet(0x82, struct.pack('>H', pid), varint(len(props)) + props if version == 5 else b'',
                  *[text(f) + bytes([options]) for f, options in filters])


def unsubscribe(version, *filters, pid=1, props=b''):
    return packet(0xa2, struct.pack('>H', pid), varint(len(props)) + props if version == 5 else b'', *[text(f) for f in filters])


def pair(name, value):
    return b'\x26' + text(name) + text(value)


# ------------------------------------------------------------------------------------------------------------------ rows
class Row:
    def __init__(self, name, version, *sends, raw=False, differs=None):
        """differs: (what Millrace says, or None for whatever, why)"""
        self.name, self.version, self.sends, self.raw, self.differs = name, version, sends, raw, differs


LAX = 'Mosquitto 2.0 looks at this less closely than the specification'
ONCE_EACH = 'one delivery for each subscription of QoS 0 that matches (3.3.4 leaves the choice)'
NO_SHARE = 'a share without a filter is no filter (4.8.2)'
ALLOWED = 'these characters are allowed (1.5.4)'


def rows():
    out = []

    def add(name, version, *sends, **kw):
        out.append(Row('%s v%d' % (name, version), version, *sends, **kw))

    def ends(v, reason):
        """What a client is told that has gone too far, in either version."""
        return ['DISCONNECT/0 %02x' % reason, 'END'] if v == 5 else ['END']

    def lax(v, reason):
        return ends(v, reason), LAX

    # --- CONNECT, raw: nothing is sent before
    for v in (3, 4, 5):
        add('connect', v, connect(v, 'rows'), raw=True)
        add('connect without an id', v, connect(v), raw=True)
        add('connect without an id, not clean', v, connect(v, flags=0), raw=True)
        add('connect with a reserved bit', v, connect(v, 'rows', flags=3), raw=True)
        add('connect with will QoS 3', v, connect(v, 'rows', flags=0x1e, rest=(b'\0' if v == 5 else b'') + text('w') + text('x')), raw=True)
        add('connect with will flags but no will', v, connect(v, 'rows', flags=0x0a), raw=True)
        add('connect with will retain but no will', v, connect(v, 'rows', flags=0x22), raw=True)
        add('connect with a password but no user', v, connect(v, 'rows', flags=0x42, rest=text('p')), raw=True)
        add('connect with a will for a wildcard', v,
            connect(v, 'rows', flags=0x06, rest=(b'\0' if v == 5 else b'') + text('a/#') + text('x')), raw=True)
        add('connect cut short', v, packet(0x10, connect(v, 'rows')[2:-1]), raw=True)
        add('connect with bytes left over', v, packet(0x10, connect(v, 'rows')[2:], b'!'), raw=True)
        add('connect with flags in its type', v, bytes([0x11]) + connect(v, 'rows')[1:], raw=True,
            differs=(['END'], LAX) if v == 3 else None)
        add('connect of another protocol', v, connect(v, 'rows', name=b'MQTX'), raw=True)
        add('connect of an unknown level', v, connect(v, 'rows', level=9), raw=True)
        add('connect twice', v, connect(v, 'rows'))
        add('client id with U+0000', v, connect(v, b'a\0b'), raw=True)
        add('client id with a surrogate', v, connect(v, b'a\xed\xa0\x80'), raw=True)
        add('ping first', v, b'\xc0\0', raw=True)
        add('publish first', v, publish(v, 'a'), raw=True)
        add('a length of five bytes first', v, b'\x10\xff\xff\xff\xff\x01', raw=True)
    add('level 4 of MQIsdp', 3, connect(3, 'rows', level=4), raw=True)
    add('level 3 of MQTT', 4, connect(4, 'rows', level=3), raw=True)
    add('connect as a bridge', 4, connect(4, 'rows', level=0x84), raw=True)
    for name, props in {'receive maximum 0': b'\x21\0\0', 'packet size 0': b'\x27\0\0\0\0', 'expiry twice': b'\x11\0\0\0\1' * 2,
                        'request problem 2': b'\x17\2', 'request response 2': b'\x19\2', 'unknown property': b'\x7d\0',
                        'property of PUBLISH': b'\x23\0\1', 'method unknown': b'\x15' + text('X'),
                        'data without method': b'\x16' + text('x'), 'expiry': b'\x11\0\0\0\0', 'cut property': b'\x11\0\0'}.items():
        add('connect with ' + name, 5, connect(5, 'rows', props=props), raw=True,
            differs=(['CONNACK/0 0082', 'END'], LAX) if name == 'data without method' else None)

    # --- what is wrong in any version
    for v in (3, 4, 5):
        p = (lambda *a, v=v, **kw: publish(v, *a, **kw))
        s = (lambda *a, v=v, **kw: subscribe(v, *a, **kw))
        u = (lambda *a, v=v, **kw: unsubscribe(v, *a, **kw))
        empty = b'\0' if v == 5 else b''
        add('ping', v, b'\xc0\0')
        add('ping with a body', v, b'\xc0\1!', differs=lax(v, 0x81))
        add('ping with flags', v, b'\xc1\0', differs=lax(v, 0x81))
        add('type 0', v, b'\0\0')
        add('AUTH', v, b'\xf0\0')
        for t in (2, 9, 11, 13):
            add('%s of a client' % NAMES[t], v, bytes([t << 4, 2, 0, 1]),
                differs=lax(v, 0x82) if t == 13 or (t == 11 and v != 5) else None)
        add('a length of five bytes', v, b'\x30\xff\xff\xff\xff\x01')
        add('QoS 3', v, packet(0x36, text('a'), b'\0\1', empty))
        add('packet id 0', v, p('a', b'x', qos=1, pid=0))
        add('DUP with QoS 0', v, p('a', b'x', flags=8), differs=lax(v, 0x81))
        add('empty topic', v, p('', b'x'))
        add('topic with +', v, p('a/+', b'x'))
        add('topic with #', v, p('a/#', b'x'))
        add('topic with U+0000', v, p(b'a\0b', b'x'))
        add('topic with a surrogate', v, p(b'a\xed\xbf\xbf', b'x'))
        add('topic that is no UTF-8', v, p(b'a\xff', b'x'))
        add('topic with U+FFFE', v, p('a\ufffe', b'x'), differs=(['OPEN'], ALLOWED))
        add('topic with a control character', v, p('a\x01', b'x'), differs=(['OPEN'], ALLOWED))
        add('publish cut in its topic', v, packet(0x30, b'\0\5abc'))
        add('publish cut in its packet id', v, packet(0x32, text('a'), b'\0'))
        add('QoS 1', v, p('rows/nobody', b'x', qos=1))
        add('QoS 2', v, p('rows/nobody', b'x', qos=2), b'\x62\2\0\1',
            differs=(['PUBCOMP/0 0001', 'PUBREC/0 000110', 'OPEN'], 'it is known already that nobody is there') if v == 5 else None)
        add('PUBREL of nothing', v, b'\x62\2\0\7',
            differs=(['PUBCOMP/0 000792', 'OPEN'], 'Mosquitto says so from 2.1 on') if v == 5 else None)
        add('PUBREL with wrong flags', v, b'\x60\2\0\7', differs=lax(v, 0x81) if v == 3 else None)
        add('PUBACK of nothing', v, b'\x40\2\0\7')
        add('PUBREC of nothing', v, b'\x50\2\0\7',
            differs=(['PUBREL/2 000792', 'OPEN'], 'the id is not known') if v == 5 else None)
        add('PUBCOMP of nothing', v, b'\x70\2\0\7')
        for t in (4, 5, 7):
            add('%s of packet id 0' % NAMES[t], v, bytes([t << 4, 2, 0, 0]))
            add('%s that is too short' % NAMES[t], v, bytes([t << 4, 1, 0]))
            add('%s with flags' % NAMES[t], v, bytes([t << 4 | 1, 2, 0, 7]), differs=lax(v, 0x81))
        add('subscribe', v, s(('rows/a', 0), ('rows/+/b', 1), ('#', 2)))
        add('subscribe with wrong flags', v, bytes([0x80]) + s(('a', 0))[1:], differs=lax(v, 0x81) if v == 3 else None)
        add('subscribe with packet id 0', v, s(('a', 0), pid=0))
        add('subscribe to nothing', v, s(), differs=lax(v, 0x81) if v == 3 else None)
        add('subscribe with QoS 3', v, s(('a', 3)))
        for f in ('', 'a/#/b', 'a#', 'a+', '+a/b', '##', 'a\0', '\ud800'):
            f = f.encode('utf-8', 'surrogatepass')
            add('subscribe to %r' % f, v, s((f, 0)))
            add('unsubscribe from %r' % f, v, u(f))
        add('subscribe without options', v, packet(0x82, b'\0\1', empty, text('a')))
        add('subscribe and publish', v, s(('rows/x/+', 1)), p('rows/x/1', b'one', qos=0), p('rows/x/2', b'two', qos=1, pid=2))
        add('leading wildcards and $', v, s(('rows1/#', 0), ('#', 1)), p('$rows/x', b'no'), p('rows1/x', b'yes'), differs=(None, ONCE_EACH) if v != 5 else None)
        add('only a leading wildcard and $', v, s(('+/rows2', 0)), p('$rows/rows2', b'no'), p('rows1/rows2', b'yes'))
        add('unsubscribe', v, s(('rows/y', 0)), u('rows/y', 'rows/z', pid=2), p('rows/y', b'x'))
        add('unsubscribe from nothing', v, u(), differs=lax(v, 0x81) if v == 3 else None)
        add('unsubscribe with packet id 0', v, u('a', pid=0))
        add('retained, overlapping', v, p('rows/r%d/1' % v, b'kept', flags=1), s(('rows/r%d/+' % v, 0)), THEN, p('rows/r%d/1' % v, b'', flags=1))
        add('disconnect', v, b'\xe0\0')
        add('disconnect with a body', v, b'\xe0\1\0')
        add('disconnect with flags', v, b'\xe1\0')
        add('$share without a filter', v, s(('$share/g', 0)),
            differs=(['SUBACK/0 0001008f' if v == 5 else 'SUBACK/0 000180', 'OPEN'], NO_SHARE))
        add('levels without names', v, s(('/+/', 0)), p('//', b'x'))
        add('dots and asterisks in levels', v, s(('a.b/*', 0)), p('a.b/*', b'x'), p('a/b/c', b'y'))
    add('subscribe with options of 5.0', 4, subscribe(4, ('a', 4)))
    add('PUBACK with a reason', 4, b'\x40\3\0\7\0', differs=lax(4, 0))

    # --- 5.0
    p5 = (lambda *a, **kw: publish(5, *a, **kw))
    s5 = (lambda *a, **kw: subscribe(5, *a, **kw))
    for name, props in {'format 2': b'\1\2', 'format twice': b'\1\1\1\1', 'expiry twice': b'\2\0\0\0\1' * 2, 'alias 0': b'\x23\0\0',
                        'alias too large': b'\x23\xff\xff', 'subscription id': b'\x0b\1', 'property of CONNECT': b'\x21\0\1',
                        'unknown property': b'\x7e\0', 'cut property': b'\2\0', 'content type that is no UTF-8': b'\3' + text(b'\xff'),
                        'response topic with a wildcard': b'\x08' + text('a/+'), 'user properties': pair('a', '1') + pair('a', '1')}.items():
        add('publish with ' + name, 5, s5(('rows/p', 0)), THEN, p5('rows/p', b'x', props=props),
            differs=(['DISCONNECT/0 82', 'SUBACK/0 00010000', 'END'], LAX)
            if name in ('format 2', 'subscription id', 'response topic with a wildcard')
            else (['DISCONNECT/0 94', 'SUBACK/0 00010000', 'END'], 'there is a reason code for it') if name == 'alias 0' else None)
    add('publish with a length of properties that is too long', 5, packet(0x30, text('a'), b'\x05\1\1'))
    add('publish with an overlong length of properties', 5, packet(0x30, text('a'), b'\x80\0', b'x'))
    add('alias', 5, s5(('rows/al', 0)), p5('rows/al', b'1', props=b'\x23\0\1'), p5('', b'2', props=b'\x23\0\1'))
    add('alias that is not known', 5, p5('', b'2', props=b'\x23\0\3'))
    add('everything through', 5, s5(('rows/all', 1), props=b'\x0b\x07'),
        p5('rows/all', b'x', qos=1, pid=3, props=b'\1\1\2\0\0\0\x64\3' + text('ct') + b'\x08' + text('re/ply') + b'\x09' + text('corr')
           + pair('b', '2') + pair('a', '1')))
    add('no local', 5, s5(('rows/nl', 4)), p5('rows/nl', b'x'))
    add('retain as published', 5, s5(('rows/rap', 8)), p5('rows/rap', b'x', flags=1), p5('rows/rap', b'', flags=1))
    add('retain handling 2', 5, p5('rows/rh', b'x', flags=1), s5(('rows/rh', 0x20)), THEN, p5('rows/rh', b'', flags=1))
    add('retain handling 1', 5, p5('rows/rh1', b'x', flags=1), s5(('rows/rh1', 0x10)), s5(('rows/rh1', 0x10), pid=2), THEN, p5('rows/rh1', b'', flags=1))
    add('retain handling 3', 5, s5(('a', 0x30)), differs=(['DISCONNECT/0 82', 'END'], 'a protocol error (3.8.3.1)'))
    add('reserved bits of options', 5, s5(('a', 0x40)))
    add('no local, shared', 5, s5(('$share/g/a', 4)), differs=lax(5, 0x82))
    add('shared', 5, s5(('$share/g/rows/sh', 0)), p5('rows/sh', b'x'))
    add('subscription id 0', 5, s5(('a', 0), props=b'\x0b\0'), differs=(['DISCONNECT/0 82', 'END'], 'a protocol error (3.8.2.1.2)'))
    add('subscription id twice', 5, s5(('a', 0), props=b'\x0b\1\x0b\2'))
    add('subscription ids, overlapping', 5, s5(('rows/si/#', 0), props=b'\x0b\1'), s5(('rows/si/+', 0), pid=2, props=b'\x0b\2'), p5('rows/si/x', b'x'))
    add('subscription ids, overlapping, QoS 1', 5, s5(('rows/sj/#', 1), props=b'\x0b\1'), s5(('rows/sj/+', 1), pid=2, props=b'\x0b\2'), p5('rows/sj/x', b'x', qos=1, pid=9),
        differs=(['PUBACK/0 0009', 'PUBLISH/2 0009726f77732f736a2f784944040b010b0278', 'SUBACK/0 00010001', 'SUBACK/0 00020001', 'OPEN'],
                 'from a queue a message comes once, with every identifier (3.3.4)'))
    add('subscribe with a reason string', 5, s5(('a', 0), props=b'\x1f' + text('x')))
    add('PUBACK with a reason', 5, b'\x40\3\0\7\x10')
    add('PUBACK with a reason that is none', 5, b'\x40\3\0\7\x55', differs=lax(5, 0x82))
    add('PUBACK with a reason of others', 5, b'\x40\3\0\7\x92', differs=lax(5, 0x82))
    add('PUBACK with properties', 5, packet(0x40, b'\0\7\0', varint(6), b'\x1f' + text('abc')))
    add('PUBACK with bytes left over', 5, b'\x40\5\0\7\0\0!', differs=lax(5, 0x81))
    add('disconnect with the will', 5, b'\xe0\1\4')
    add('disconnect with a reason that is none', 5, b'\xe0\1\x55')
    add('disconnect that asks for an expiry', 5, b'\xe0\7\0\5\x11\0\0\0\x05')
    add('AUTH without a method', 5, b'\xf0\2\x18\0')
    return out


# -------------------------------------------------------------------------------------------------------------- playing
class Connection:
    def __init__(self, port, timeout=QUIET):
        self.sock = socket.create_connection(('127.0.0.1', port), timeout=timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer, self.ended = b'', False

    def send(self, data):
        try:
            self.sock.sendall(data)
        except OSError:
            self.ended = True

    def next(self, timeout):
        """The next packet, None at the end, or TimeoutError."""
        while True:
            got = self.cut()
            if got or self.ended:
                return got
            self.sock.settimeout(max(timeout, 0.001))
            try:
                more = self.sock.recv(65536)
            except socket.timeout:
                raise TimeoutError from None
            except OSError:
                more = b''
            if not more:
                self.ended = True
            self.buffer += more

    def cut(self):
        length = shift = 0
        for at in range(1, 5):
            if at >= len(self.buffer):
                return None
            length |= (self.buffer[at] & 127) << shift
            shift += 7
            if not self.buffer[at] & 128:
                break
        if len(self.buffer) < at + 1 + length:
            return None
        got, self.buffer = self.buffer[:at + 1 + length], self.buffer[at + 1 + length:]
        return got[0], got[at + 1:]

    def close(self):
        self.sock.close()


LENGTHS = {1: 1, 2: 4, 35: 2}


def sorted_properties(body):
    """The property list of a PUBLISH (shorter than 128 bytes in rows) by identifier; user properties keep their order."""
    length, out, at = body[0], [], 1
    while at < 1 + length:
        start, kind = at, body[at]
        at += 1
        if kind == 11:
            while body[at] & 128:
                at += 1
            at += 1
        elif kind in LENGTHS:
            at += LENGTHS[kind]
        else:
            for _ in range(2 if kind == 38 else 1):
                at += 2 + struct.unpack('>H', body[at:at + 2])[0]
        out.append(body[start:at])
    return bytes([length]) + b''.join(sorted(out, key=lambda p: p[0])) + body[at:]


def shown(version, first, body):
    """A packet as it is compared."""
    kind = first >> 4
    if kind == 2:
        body = body[:2]
    if kind == 3 and first & 6:
        at = 2 + struct.unpack('>H', body[:2])[0]
        body = body[:at] + b'ID' + body[at + 2:]
    if kind == 3 and version == 5:
        at = 2 + struct.unpack('>H', body[:2])[0] + (2 if first & 6 else 0)
        body = body[:at] + sorted_properties(body[at:])
    return '%s/%x %s' % (NAMES[kind], first & 15, body.hex())


def listen(c, row, got, least):
    """Until the PINGRESP and as many packets as are wanted, and a moment more."""
    pongs, wanted = 0, 2 if row.sends == (b'\xc0\0',) else 1
    deadline = time.monotonic() + QUIET
    while True:
        try:
            packet_ = c.next(deadline - time.monotonic())
        except TimeoutError:
            return
        if packet_ is None:
            return
        if packet_[0] == 0xd0:
            pongs += 1
        else:
            got.append(shown(row.version, *packet_))
        if pongs >= wanted and len(got) >= least:
            deadline = time.monotonic() + 0.1


def same(row, want, got):
    """Whether that is what Millrace has to say where the peer says `want`."""
    if row.differs:
        return row.differs[0] is None or row.differs[0] == got
    if want == got:
        return True
    if row.version != 5 or want[-1] != 'END' or got[-1] != 'END':
        return False
    said = [g for g in got if g not in want]
    return [g for g in got if g in want] == want and len(said) == 1 and said[0][:9] in ('CONNACK/0', 'DISCONNEC')


def play(port, row, least=0):
    """What comes back, as a sorted list; its last element says whether the connection has ended."""
    c = Connection(port)
    got = []
    try:
        if not row.raw:
            c.send(connect(row.version, 'rows-' + str(abs(hash(row.name)) % 10**8)))
            first = c.next(QUIET)
            assert first and first[0] == 0x20 and first[1][1] == 0, 'no CONNACK: %r' % (first,)
        parts = [[]]
        for send in row.sends:
            if send is THEN:
                parts.append([])
            else:
                parts[-1].append(send)
        for i, part in enumerate(parts):
            c.send(b''.join(part) + b'\xc0\0')
            listen(c, row, got, least if i == len(parts) - 1 else 0)
        return sorted(got) + ['END' if c.ended else 'OPEN']
    finally:
        c.close()


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--peer', type=int, required=True)
    ap.add_argument('--port', type=int, required=True)
    ap.add_argument('-k', default='')
    args = ap.parse_args()
    bad = 0
    for row in rows():
        if args.k not in row.name:
            continue
        want = play(args.peer, row)
        got = play(args.port, row, len(want) - 1)
        if not same(row, want, got):
            bad += 1
            print('%-50s peer %s\n%-50s ours %s' % (row.name, want, row.differs or '', got))
        elif row.differs and want == got:
            print('%-50s does not differ any more' % row.name)
    print('%d rows, %d differ' % (len(rows()), bad))
    return bad > 0


if __name__ == '__main__':
    sys.exit(main())
