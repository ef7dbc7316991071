"""A raw client of the Kafka protocol, made from the broker's own tables of messages (src/proto/kafka/*.def).

It says exactly what a test wants: any version, many requests before the first answer, wrong lengths, half a request.  That
the tables are right is checked elsewhere: the same client speaks to a real Kafka (kafka_rows.py), and test_kafka_codec.py
holds the broker's codec against python3-kafka.

    with Wire(port) as w:
        w.call('metadata', 12, topics=[{'name': 'orders'}])      # a dict; fields that are not given have their defaults
        w.send('heartbeat', 4, ...); w.send(...); w.receive(); w.receive()

In dicts strings are str, bytes and records are bytes, uuids are their 32 hexadecimal digits, null is None.
"""

import os
import re
import socket
import struct
import zlib

from kafka.record.util import calc_crc32c

HERE = os.path.dirname(os.path.abspath(__file__))
TABLES = os.path.join(os.path.dirname(os.path.dirname(HERE)), 'src', 'proto', 'kafka')
LAST = 255
NUMBERS = {'bool': '>?', 'i8': '>b', 'i16': '>h', 'i32': '>i', 'i64': '>q', 'u16': '>H', 'f64': '>d'}
WORDS = {'LAST': LAST, 'NIL': None, 'INT32_MAX': 2**31 - 1, 'INT64_MAX': 2**63 - 1, 'INT32_MIN': -2**31, 'INT64_MIN': -2**63, 'true': True, 'false': False}
NO_UUID = '0' * 32


class WireError(Exception):
    """The answer is not what the protocol allows, or the connection ended."""


# ------------------------------------------------------------------------------------------------------------- tables
class Field:
    def __init__(self, shape, kind, name, first, last, options):
        self.shape, self.kind, self.name, self.first, self.last = shape, kind, name, first, last
        self.null_from = options.get('NULL_FROM')
        self.tag = options.get('TAG')
        if 'DEFAULT' in options:
            self.default = options['DEFAULT']
        elif shape in ('LIST', 'ARRAY'):
            self.default = []
        elif shape == 'PART':
            self.default = {}
        else:
            self.default = {'bool': False, 'string': '', 'bytes': b'', 'records': None, 'uuid': NO_UUID, 'f64': 0.0}.get(kind, 0)

    def within(self, version):
        return self.first <= version <= self.last

    def nullable(self, version):
        return self.null_from is not None and version >= self.null_from


def word(text):
    return WORDS[text] if text in WORDS else int(text, 0)


def read_tables():
    """{struct: [Field]} and {name: (key, first, last, announced, flexible from)}"""
    structs, apis = {}, {}
    row = re.compile(r'(FIELD|LIST|ARRAY|PART)\((\w+), (\w+), (\w+), (\w+), (\w+)((?:, \w+\([^)]*\))*)\)')
    for name in sorted(os.listdir(TABLES)):
        if not name.startswith('messages') or not name.endswith('.def'):
            continue
        with open(os.path.join(TABLES, name)) as lines:
            text = re.sub(r'\s+', ' ', re.sub(r'/\*.*?\*/', '', lines.read(), flags=re.S))  # a row may stand over two lines
        for part in text.split('TABLE(')[1:]:
            title = part.split(',')[0].strip()
            structs[title] = []
            for match in row.finditer(part):
                options = {k: word(v.strip()) for k, v in re.findall(r'(\w+)\(([^)]*)\)', match[7])}
                structs[title].append(Field(match[1], match[3], match[4], word(match[5]), word(match[6]), options))
            if name != 'messages.def' and len(structs[title]) != len(re.findall(r'\b(?:FIELD|LIST|ARRAY|PART)\(', part)):
                raise WireError('a row of %s is not understood' % title)
    with open(os.path.join(TABLES, 'api.def')) as lines:
        text = re.sub(r'\s+', ' ', re.sub(r'/\*.*?\*/', '', lines.read(), flags=re.S))  # a row may stand over two lines
    for key, name, first, last, announced, flexible in re.findall(r'API\((\d+), (\w+), "\w+", (\d+), (\d+), (\d+), (\w+),', text):
        apis[name] = (int(key), int(first), int(last), int(announced), LAST if flexible == 'NEVER' else int(flexible))
    return structs, apis


STRUCTS, APIS = read_tables()


# --------------------------------------------------------------------------------------------------------------- codec
def varint(n):
    out = b''
    while n >= 0x80:
        out += bytes([n & 0x7f | 0x80])
        n >>= 7
    return out + bytes([n])


def zigzag(n):
    return varint(n << 1 if n >= 0 else ((-n) << 1) - 1)


class Writer:
    def __init__(self, version, flexible):
        self.version, self.flexible = version, flexible

    def length(self, n, wide):
        """Of a string, bytes or array; None is null."""
        if self.flexible:
            return varint(0 if n is None else n + 1)
        return struct.pack('>i' if wide else '>h', -1 if n is None else n)

    def value(self, kind, v):
        if kind in NUMBERS:
            return struct.pack(NUMBERS[kind], v)
        if kind == 'uuid':
            return bytes.fromhex(v)
        raw = v.encode() if isinstance(v, str) else v
        return self.length(None if raw is None else len(raw), kind != 'string') + (raw or b'')

    def field(self, f, v):
        if f.shape == 'FIELD':
            return self.value(f.kind, v)
        if f.shape == 'PART':
            null = struct.pack('>b', -1 if v is None else 1) if f.nullable(self.version) else b''
            return null + (b'' if v is None else self.struct(f.kind, v))
        if v is None:
            return self.length(None, True)
        one = self.value if f.shape == 'LIST' else self.struct
        return self.length(len(v), True) + b''.join(one(f.kind, item) for item in v)

    def struct(self, title, values):
        unknown = set(values) - {f.name for f in STRUCTS[title]}
        if unknown:
            raise KeyError('%s has no %s' % (title, ', '.join(sorted(unknown))))
        fields = [(f, values.get(f.name, f.default)) for f in STRUCTS[title] if f.within(self.version)]
        out = b''.join(self.field(f, v) for f, v in fields if f.tag is None)
        if self.flexible:
            tagged = [(f.tag, self.field(f, v)) for f, v in fields if f.tag is not None and v != f.default]
            out += varint(len(tagged)) + b''.join(varint(t) + varint(len(b)) + b for t, b in tagged)
        return out


class Reader:
    def __init__(self, data, version, flexible):
        self.data, self.at, self.version, self.flexible = data, 0, version, flexible

    def take(self, n):
        if n < 0 or self.at + n > len(self.data):
            raise WireError('ends within a field, at %d of %d' % (self.at, len(self.data)))
        self.at += n
        return self.data[self.at - n:self.at]

    def number(self, form):
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def varint(self):
        n = shift = 0
        while True:
            byte = self.take(1)[0]
            n |= (byte & 0x7f) << shift
            shift += 7
            if byte < 0x80:
                return n
            if shift > 63:
                raise WireError('an endless number')

    def zigzag(self):
        n = self.varint()
        return n >> 1 ^ -(n & 1)

    def length(self, wide):
        n = self.varint() - 1 if self.flexible else self.number('>i' if wide else '>h')
        return None if n < 0 else n

    def value(self, kind):
        if kind in NUMBERS:
            return self.number(NUMBERS[kind])
        if kind == 'uuid':
            return self.take(16).hex()
        n = self.length(kind != 'string')
        raw = None if n is None else self.take(n)
        return raw.decode(errors='surrogateescape') if raw is not None and kind == 'string' else raw

    def field(self, f):
        if f.shape == 'FIELD':
            v = self.value(f.kind)
            if v is None and not f.nullable(self.version):
                raise WireError('%s is null in version %d' % (f.name, self.version))
            return v
        if f.shape == 'PART':
            return None if f.nullable(self.version) and self.number('>b') < 0 else self.struct(f.kind)
        n = self.length(True)
        if n is None and not f.nullable(self.version):
            raise WireError('%s is null in version %d' % (f.name, self.version))
        one = self.value if f.shape == 'LIST' else self.struct
        return None if n is None else [one(f.kind) for _ in range(n)]

    def struct(self, title):
        fields = [f for f in STRUCTS[title] if f.within(self.version)]
        out = {f.name: self.field(f) for f in fields if f.tag is None}
        if self.flexible:
            tagged = {f.tag: f for f in fields if f.tag is not None}
            for _ in range(self.varint()):
                tag, n = self.varint(), self.varint()
                part = Reader(self.take(n), self.version, True)
                if tag in tagged:
                    out[tagged[tag].name] = part.field(tagged[tag])
                    part.end()
        return out

    def end(self):
        if self.at != len(self.data):
            raise WireError('%d bytes are left over' % (len(self.data) - self.at))


def flexible(name, version):
    return version >= APIS[name][4]


def request(name, version, correlation, client='ktest', **fields):
    """The bytes of a request behind its length."""
    flex = flexible(name, version)
    head = struct.pack('>hhih', APIS[name][0], version, correlation, len(client)) + client.encode() + (b'\0' if flex else b'')
    return head + Writer(version, flex).struct(name + '_request', fields)


def response(name, version, data):
    """(correlation, dict) of the bytes of a response behind its length."""
    flex = flexible(name, version)
    r = Reader(data, version, flex)
    correlation = r.number('>i')
    if flex and name != 'api_versions':
        for _ in range(r.varint()):
            r.varint()
            r.take(r.varint())
    out = r.struct(name + '_response')
    r.end()
    return correlation, out


class Wire:
    """One connection."""

    def __init__(self, port, host='127.0.0.1', timeout=20, client='ktest'):
        self.socket = socket.create_connection((host, port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.client, self.correlation, self.waiting = client, 0, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, name, version, **fields):
        self.correlation += 1
        body = request(name, version, self.correlation, self.client, **fields)
        self.raw(struct.pack('>i', len(body)) + body)
        if not (name == 'produce' and fields.get('acks') == 0):
            self.waiting.append((self.correlation, name, version))
        return self.correlation

    def raw(self, data):
        self.socket.sendall(data)

    def frame(self):
        """The bytes of the next answer, or WireError when the connection ends."""
        return self.exactly(struct.unpack('>i', self.exactly(4))[0])

    def exactly(self, n):
        out = bytearray()
        while len(out) < n:
            try:
                part = self.socket.recv(n - len(out))
            except ConnectionError as e:
                raise WireError('the connection was reset') from e
            if not part:
                raise WireError('the connection was closed after %d of %d bytes' % (len(out), n))
            out += part
        return bytes(out)

    def receive(self):
        """The answer to the oldest request that has none."""
        wanted, name, version = self.waiting.pop(0)
        data = self.frame()
        got, out = response(name, version, data)
        if got != wanted:
            raise WireError('answer %d came where %d was due' % (got, wanted))
        return out

    def call(self, name, version, **fields):
        self.send(name, version, **fields)
        if self.waiting and self.waiting[-1][0] == self.correlation:
            while len(self.waiting) > 1:
                self.receive()
            return self.receive()
        return None

    def closed(self):
        """Waits for the other side to close; whatever else it says is an error."""
        try:
            data = self.frame()
        except WireError:
            return True
        raise WireError('an answer of %d bytes instead of the end' % len(data))


# ------------------------------------------------------------------------------------------------------ record batches
def record(index, value, key=None, headers=(), delta=0):
    def data(raw):
        raw = raw.encode() if isinstance(raw, str) else raw
        return zigzag(-1) if raw is None else zigzag(len(raw)) + raw
    body = b'\0' + zigzag(delta) + zigzag(index) + data(key) + data(value) + zigzag(len(headers))
    body += b''.join(data(k) + data(v) for k, v in headers)
    return zigzag(len(body)) + body


def batch(values, pid=-1, epoch=-1, sequence=-1, timestamp=1700000000000, attributes=0, base=0, count=None, magic=2, crc=None):
    """A batch of format 2.  values: each a value, or a dict for record(); attributes 1: its records are compressed by gzip."""
    records = b''.join(record(i, **v) if isinstance(v, dict) else record(i, v) for i, v in enumerate(values))
    last = max([v.get('delta', 0) if isinstance(v, dict) else 0 for v in values], default=0)
    if attributes & 7 == 1:
        pack = zlib.compressobj(wbits=31)
        records = pack.compress(records) + pack.flush()
    count = len(values) if count is None else count
    checked = struct.pack('>hiqqqhii', attributes, len(values) - 1, timestamp, timestamp + last, pid, epoch, sequence, count) + records
    crc = calc_crc32c(checked) if crc is None else crc
    rest = struct.pack('>ibI', -1, magic, crc) + checked
    return struct.pack('>qi', base, len(rest)) + rest


BATCH = struct.Struct('>qiibIhiqqqhii')
BATCH_FIELDS = ('base length leader_epoch magic crc attributes last_delta first_timestamp max_timestamp pid epoch sequence count').split()


def batches(data):
    """The whole batches in fetched records, as dicts; a batch that is cut off at the end is left out."""
    out, at = [], 0
    while data and at + BATCH.size <= len(data):
        one = dict(zip(BATCH_FIELDS, BATCH.unpack_from(data, at)))
        end = at + 12 + one['length']
        if end > len(data):
            break
        if one['crc'] != calc_crc32c(data[at + 21:end]):
            raise WireError('the checksum of the batch at offset %d is wrong' % one['base'])
        raw = data[at + BATCH.size:end]
        kind = one['attributes'] & 7
        one['raw'] = raw
        if kind < 2:
            one['records'] = list(records_of(one, zlib.decompress(raw, 31) if kind else raw))
        out.append(one)
        at = end
    return out


def records_of(one, raw):
    r = Reader(raw, 0, False)

    def data():
        n = r.zigzag()
        return None if n < 0 else r.take(n)
    for _ in range(one['count']):
        r.zigzag()
        r.take(1)
        timestamp = one['first_timestamp'] + r.zigzag()
        offset = one['base'] + r.zigzag()
        key, value = data(), data()
        yield {'offset': offset, 'timestamp': timestamp, 'key': key, 'value': value,
               'headers': [(data().decode(), data()) for _ in range(r.zigzag())]}
    r.end()


def produce(w, topic, data, partition=0, acks=-1, version=9, timeout=10000):
    """Produces one batch; the answer of its partition, or None with acks 0."""
    done = w.call('produce', version, acks=acks, timeout_ms=timeout,
                  topic_data=[{'name': topic, 'partition_data': [{'index': partition, 'records': data}]}])
    return done and done['responses'][0]['partition_responses'][0]


def fetch(w, topic, offset, partition=0, version=12, wait=500, least=1, most=1 << 20, isolation=0):
    """The answer of one partition."""
    got = w.call('fetch', version, max_wait_ms=wait, min_bytes=least, max_bytes=most, isolation_level=isolation, topics=[
        {'topic': topic, 'partitions': [{'partition': partition, 'fetch_offset': offset, 'partition_max_bytes': most}]}])
    return got['responses'][0]['partitions'][0]


def read_all(w, topic, partition=0, offset=0):
    """Every record of a partition from an offset to its end."""
    out = []
    while True:
        got = fetch(w, topic, offset, partition, wait=0)
        if got['error_code']:
            raise WireError('fetch: error %d' % got['error_code'])
        for one in batches(got['records']):
            out += [r for r in one['records'] if r['offset'] >= offset]
            offset = one['base'] + one['last_delta'] + 1
        if offset >= got['high_watermark']:
            return out
