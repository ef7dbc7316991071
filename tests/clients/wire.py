"""A raw AMQP 0-9-1 wire client: blocking sockets with deadlines, every frame in the caller's hand.

It knows no rules of the protocol beyond framing: it sends whatever it is told, malformed or not, and
decodes whatever comes back with the table in spec.py.  Table values keep their wire types, so a test
sees the difference between a 'l' and an 'I'.
"""

import decimal
import select
import socket
import struct
import time
from collections import deque, namedtuple

import spec

FRAME_METHOD, FRAME_HEADER, FRAME_BODY, FRAME_HEARTBEAT, FRAME_END = 1, 2, 3, 8, 0xCE
PROTOCOL_HEADER = b'AMQP\x00\x00\x09\x01'


class V(namedtuple('V', 'code value')):
    """A table value with its wire type, V('l', 5): what decoding yields and what encoding accepts."""
    __slots__ = ()

    def __repr__(self):
        return '%s:%r' % (self.code, self.value)


Frame = namedtuple('Frame', 'type channel payload')
Header = namedtuple('Header', 'class_id weight body_size properties')


class Message(namedtuple('Message', 'channel name fields properties body')):
    """A decoded method; properties and body are None when the method carries no content."""
    __slots__ = ()

    def __getattr__(self, name):
        try:
            return self.fields[name]
        except KeyError:
            raise AttributeError(name) from None


class WireError(Exception):
    """The peer sent bytes that are not AMQP, or nothing in time."""


class Timeout(WireError):
    pass


class Eof(WireError):
    pass


# ---- encoding ------------------------------------------------------------------------------------

def shortstr(s):
    b = s if isinstance(s, bytes) else s.encode('utf-8', 'surrogateescape')
    return struct.pack('>B', len(b)) + b


def longstr(s):
    b = s if isinstance(s, bytes) else s.encode('utf-8', 'surrogateescape')
    return struct.pack('>I', len(b)) + b


def _guess(v):
    if isinstance(v, V):
        return v
    if isinstance(v, bool):
        return V('t', v)
    if isinstance(v, int):
        return V('I', v) if -2**31 <= v < 2**31 else V('l', v)
    if isinstance(v, float):
        return V('d', v)
    if isinstance(v, str):
        return V('S', v)
    if isinstance(v, bytes):
        return V('x', v)
    if isinstance(v, dict):
        return V('F', v)
    if isinstance(v, (list, tuple)):
        return V('A', v)
    if isinstance(v, decimal.Decimal):
        return V('D', v)
    if v is None:
        return V('V', None)
    raise TypeError(v)


_PACKED = {'b': '>b', 'B': '>B', 's': '>h', 'u': '>H', 'I': '>i', 'i': '>I', 'l': '>q', 'L': '>q', 'f': '>f',
           'd': '>d', 'T': '>Q'}


def encode_value(v):
    code, x = _guess(v)
    out = code.encode()
    if code in _PACKED:
        return out + struct.pack(_PACKED[code], x)
    if code == 't':
        return out + (b'\x01' if x else b'\x00')
    if code in 'Sx':
        return out + longstr(x)
    if code == 'F':
        return out + encode_table(x)
    if code == 'A':
        body = b''.join(encode_value(i) for i in x)
        return out + struct.pack('>I', len(body)) + body
    if code == 'D':
        sign, digits, exponent = x.as_tuple()
        number = int(''.join(map(str, digits)))
        return out + struct.pack('>BI', -exponent, number)
    if code == 'V':
        return out
    return out + x      # an unknown type with raw bytes: a malformed table on purpose


def encode_table(t):
    if isinstance(t, bytes):        # raw bytes instead of a table, length included
        return t
    body = b''.join(shortstr(k) + encode_value(v) for k, v in t.items())
    return struct.pack('>I', len(body)) + body


_ENCODE = {
    'octet': lambda v: struct.pack('>B', v), 'short': lambda v: struct.pack('>H', v),
    'long': lambda v: struct.pack('>I', v), 'longlong': lambda v: struct.pack('>Q', v),
    'timestamp': lambda v: struct.pack('>Q', v), 'shortstr': shortstr, 'longstr': longstr, 'table': encode_table,
}
_ZERO = {'octet': 0, 'short': 0, 'long': 0, 'longlong': 0, 'timestamp': 0, 'shortstr': '', 'longstr': '',
         'table': {}, 'bit': False}


def encode_fields(fields, values):
    out, bits, shift = [], 0, -1
    for name, kind in fields:
        value = values.get(name, _ZERO[kind])
        if kind == 'bit':
            if shift == 7:
                out.append(struct.pack('>B', bits))
                bits, shift = 0, -1
            shift += 1
            bits |= bool(value) << shift
            continue
        if shift >= 0:
            out.append(struct.pack('>B', bits))
            bits, shift = 0, -1
        out.append(_ENCODE[kind](value))
    if shift >= 0:
        out.append(struct.pack('>B', bits))
    return b''.join(out)


def encode_method(name, **values):
    m = spec.METHODS[name]
    known = {f.name for f in m.fields} | {f.name.lstrip('_') for f in m.fields}
    unknown = set(values) - known
    if unknown:
        raise TypeError('%s has no field %s' % (name, ', '.join(sorted(unknown))))
    for f in m.fields:
        if f.name.startswith('_') and f.name[1:] in values:
            values[f.name] = values.pop(f.name[1:])
    return struct.pack('>HH', m.class_id, m.method_id) + encode_fields(m.fields, values)


def encode_properties(properties):
    flags, out = 0, []
    for i, (name, kind) in enumerate(spec.PROPERTIES):
        if properties.get(name) is not None:
            flags |= 1 << (15 - i)
            out.append(_ENCODE[kind](properties[name]))
    unknown = set(properties) - {p.name for p in spec.PROPERTIES}
    if unknown:
        raise TypeError('no property ' + ', '.join(sorted(unknown)))
    return struct.pack('>H', flags) + b''.join(out)


def encode_frame(kind, channel, payload, end=FRAME_END):
    return struct.pack('>BHI', kind, channel, len(payload)) + payload + struct.pack('>B', end)


def encode_header(body_size, properties=None, class_id=60, weight=0):
    return struct.pack('>HHQ', class_id, weight, body_size) + encode_properties(properties or {})


# ---- decoding ------------------------------------------------------------------------------------

class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        if len(self.data) - self.at < n:
            raise WireError('truncated: %d bytes wanted at %d of %d' % (n, self.at, len(self.data)))
        self.at += n
        return self.data[self.at - n:self.at]

    def unpack(self, fmt):
        return struct.unpack(fmt, self.take(struct.calcsize(fmt)))[0]

    def left(self):
        return len(self.data) - self.at


def _text(b):
    return b.decode('utf-8', 'surrogateescape')


def decode_value(r):
    code = chr(r.unpack('>B'))
    if code in _PACKED:
        return V(code, r.unpack(_PACKED[code]))
    if code == 't':
        return V('t', r.unpack('>B') != 0)
    if code == 'S':
        return V('S', _text(r.take(r.unpack('>I'))))
    if code == 'x':
        return V('x', r.take(r.unpack('>I')))
    if code == 'F':
        return V('F', decode_table(r))
    if code == 'A':
        sub, items = Reader(r.take(r.unpack('>I'))), []
        while sub.left():
            items.append(decode_value(sub))
        return V('A', items)
    if code == 'D':
        scale, number = r.unpack('>B'), r.unpack('>I')
        return V('D', decimal.Decimal(number).scaleb(-scale))
    if code == 'V':
        return V('V', None)
    raise WireError('unknown table value type %r' % code)


def decode_table(r):
    sub, table = Reader(r.take(r.unpack('>I'))), {}
    while sub.left():
        key = _text(sub.take(sub.unpack('>B')))
        table[key] = decode_value(sub)
    return table


_DECODE = {
    'octet': lambda r: r.unpack('>B'), 'short': lambda r: r.unpack('>H'), 'long': lambda r: r.unpack('>I'),
    'longlong': lambda r: r.unpack('>Q'), 'timestamp': lambda r: r.unpack('>Q'),
    'shortstr': lambda r: _text(r.take(r.unpack('>B'))), 'longstr': lambda r: _text(r.take(r.unpack('>I'))),
    'table': decode_table,
}


def decode_method(payload):
    r = Reader(payload)
    ids = r.unpack('>H'), r.unpack('>H')
    m = spec.BY_ID.get(ids)
    if m is None:
        raise WireError('unknown method %d.%d from the server' % ids)
    fields, bits, shift = {}, 0, 8
    for name, kind in m.fields:
        if kind == 'bit':
            if shift == 8:
                bits, shift = r.unpack('>B'), 0
            value = bool(bits >> shift & 1)
            shift += 1
        else:
            shift = 8
            value = _DECODE[kind](r)
        if not name.startswith('_'):
            fields[name] = value
    if r.left():
        raise WireError('%s has %d bytes too many' % (m.name, r.left()))
    return m.name, fields


def decode_header(payload):
    r = Reader(payload)
    class_id, weight, size, flags = r.unpack('>H'), r.unpack('>H'), r.unpack('>Q'), r.unpack('>H')
    properties = {}
    for i, (name, kind) in enumerate(spec.PROPERTIES):
        if flags & 1 << (15 - i):
            properties[name] = _DECODE[kind](r)
    if r.left() or flags & 3:
        raise WireError('content header has bytes too many or reserved flags %04x' % flags)
    return Header(class_id, weight, size, properties)


# ---- the connection ------------------------------------------------------------------------------

CAPABILITIES = ('publisher_confirms', 'exchange_exchange_bindings', 'basic.nack', 'consumer_cancel_notify',
                'connection.blocked', 'authentication_failure_close')


def client_properties(capabilities=CAPABILITIES):
    return {'product': 'millrace tests', 'capabilities': {c: True for c in capabilities}}


class Wire:
    """One connection.  send_* queues nothing and keeps no state; recv_frame and recv_message wait with
    a deadline.  Heartbeats received are counted, not shown.  `frames` keeps sizes for frame_max checks."""

    def __init__(self, host, port, timeout=10.0):
        self.timeout = timeout
        self.sock = self.connect(host, port, timeout)
        self.buffer = bytearray()
        self.inbox = {}             # channel -> deque of Message
        self.partial = {}           # channel -> [name, fields, Header or None, body chunks]
        self.heartbeats = 0
        self.largest_frame = 0
        self.frame_max = 131072
        self.raw_greeting = None    # a protocol header sent back instead of frames

    def connect(self, host, port, timeout):
        sock = socket.create_connection((host, port), timeout=timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    # -- sending

    def send_bytes(self, data):
        try:
            self.sock.sendall(data)
        except OSError:
            pass                    # what the peer said before it closed is still to be read

    def send_frame(self, kind, channel, payload, end=FRAME_END):
        self.send_bytes(encode_frame(kind, channel, payload, end))

    def send_method(self, channel, name, **fields):
        self.send_frame(FRAME_METHOD, channel, encode_method(name, **fields))

    def encode_content(self, channel, method, body, properties):
        if isinstance(body, str):
            body = body.encode()
        out = [encode_frame(FRAME_METHOD, channel, method),
               encode_frame(FRAME_HEADER, channel, encode_header(len(body), properties))]
        step = (self.frame_max or 131072) - 8
        out += [encode_frame(FRAME_BODY, channel, body[i:i + step]) for i in range(0, len(body), step)]
        return b''.join(out)

    def publish(self, channel, exchange, routing_key, body=b'', mandatory=False, immediate=False, **properties):
        method = encode_method('basic.publish', exchange=exchange, routing_key=routing_key, mandatory=mandatory,
                               immediate=immediate)
        self.send_bytes(self.encode_content(channel, method, body, properties))

    def heartbeat(self, channel=0, payload=b''):
        self.send_frame(FRAME_HEARTBEAT, channel, payload)

    # -- receiving

    def _fill(self, deadline):
        left, ready = deadline - time.monotonic(), select.poll()     # select() knows no descriptor above 1023
        ready.register(self.sock, select.POLLIN)
        if left <= 0 or not ready.poll(left * 1000):
            raise Timeout('nothing from the server in time')
        try:
            data = self.sock.recv(262144)
        except ConnectionError:
            data = b''
        if not data:
            raise Eof('the server closed the connection')
        self.buffer += data

    def recv_frame(self, timeout=None):
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            b = self.buffer
            if b[:4] == b'AMQP' and len(b) >= 8:
                self.raw_greeting = bytes(b[:8])
                del b[:8]
                continue
            if len(b) >= 7 and b[:1] != b'A':
                kind, channel, size = struct.unpack_from('>BHI', b)
                if len(b) >= size + 8:
                    payload, end = bytes(b[7:7 + size]), b[7 + size]
                    del b[:size + 8]
                    if end != FRAME_END:
                        raise WireError('frame end is %#x' % end)
                    self.largest_frame = max(self.largest_frame, size + 8)
                    return Frame(kind, channel, payload)
            self._fill(deadline)

    def _assemble(self, frame):
        """Feed one frame; a complete Message, or None while content is missing."""
        if frame.type == FRAME_HEARTBEAT:
            if frame.channel or frame.payload:
                raise WireError('bad heartbeat frame')
            self.heartbeats += 1
            return None
        part = self.partial.get(frame.channel)
        if frame.type == FRAME_METHOD:
            if part:
                raise WireError('method inside content')
            name, fields = decode_method(frame.payload)
            if not spec.METHODS[name].content:
                return Message(frame.channel, name, fields, None, None)
            self.partial[frame.channel] = [name, fields, None, []]
            return None
        if not part:
            raise WireError('content without a method')
        if frame.type == FRAME_HEADER:
            part[2] = decode_header(frame.payload)
        else:
            part[3].append(frame.payload)
        name, fields, header, chunks = part
        size = sum(map(len, chunks))
        if header is None or size > header.body_size:
            raise WireError('body without header or too long')
        if size < header.body_size:
            return None
        del self.partial[frame.channel]
        return Message(frame.channel, name, fields, header.properties, b''.join(chunks))

    def pump(self, timeout=None):
        """Wait for one whole message of any channel and put it into its inbox."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            message = self._assemble(self.recv_frame(max(0.0, deadline - time.monotonic())))
            if message is not None:
                self.inbox.setdefault(message.channel, deque()).append(message)
                return message

    def next(self, channel, timeout=None):
        """The next message of one channel, whatever it is."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while not self.inbox.get(channel):
            self.pump(max(0.0, deadline - time.monotonic()))
        return self.inbox[channel].popleft()

    def expect(self, channel, name, timeout=None):
        message = self.next(channel, timeout)
        if message.name != name:
            raise WireError('%s expected, got %r' % (name, message))
        return message

    def call(self, channel, name, timeout=None, **fields):
        """A synchronous method: returns the first answer to it (or a close) and leaves the rest."""
        self.send_method(channel, name, **fields)
        return self.take(channel, spec.METHODS[name].replies, timeout)

    def take(self, channel, names, timeout=None):
        """Pick the first message of these names out of the channel's inbox; a close always counts."""
        names = set(names) | {'channel.close', 'connection.close'}
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            for number in (channel, 0):
                box = self.inbox.get(number, ())
                for i, message in enumerate(box):
                    if message.name in names and (number == channel or message.name == 'connection.close'):
                        del box[i]
                        return message
            self.pump(max(0.0, deadline - time.monotonic()))

    def wait_eof(self, timeout=None):
        """Read until the peer closes; messages that still come are kept in the inboxes."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        try:
            while True:
                self.pump(max(0.0, deadline - time.monotonic()))
        except Timeout:
            return False
        except Eof:
            return True

    # -- the usual opening

    def start(self, header=PROTOCOL_HEADER):
        self.send_bytes(header)
        return self.expect(0, 'connection.start')

    def login(self, user='guest', password='guest', mechanism='PLAIN', response=None, properties=None):
        if response is None:
            response = '\0%s\0%s' % (user, password)
        self.send_method(0, 'connection.start-ok', client_properties=properties or client_properties(),
                         mechanism=mechanism, response=response, locale='en_US')
        return self.next(0)

    def open(self, user='guest', password='guest', vhost='/', properties=None, frame_max=None, channel_max=None,
             heartbeat=0):
        self.start()
        tune = self.login(user, password, properties=properties)
        if tune.name != 'connection.tune':
            raise WireError('login failed: %r' % (tune,))
        self.frame_max = tune.frame_max if frame_max is None else frame_max
        self.send_method(0, 'connection.tune-ok', heartbeat=heartbeat, frame_max=self.frame_max,
                         channel_max=tune.channel_max if channel_max is None else channel_max)
        self.send_method(0, 'connection.open', virtual_host=vhost)
        return self.expect(0, 'connection.open-ok')

    def channel(self, number=1):
        return self.call(number, 'channel.open')

    def close(self):
        """Leave politely but never wait long: used by clean-up code."""
        try:
            self.send_method(0, 'connection.close', reply_code=200, reply_text='bye')
            self.take(0, ('connection.close-ok',), 5)
        except (WireError, OSError):
            pass
        self.sock.close()

    def abort(self):
        self.sock.close()
