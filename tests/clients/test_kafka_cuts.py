"""Every byte at which a conversation can end, and every number in it that can lie.

What real clients say is recorded once by a proxy; then each of their connections is played again up to each of its bytes and
hung up.  Whatever was cut, the next connection is served, and a partition holds whole batches of what was sent.
"""

import gzip
import os
import socket
import struct

import kafka
import pytest

import kafka_clients
import kafka_wire
from conftest import TARGET
from kafka_clients import made

pytestmark = pytest.mark.skipif(TARGET == 'rabbitmq', reason='RabbitMQ does not speak Kafka')
if TARGET == 'rabbitmq':
    collect_ignore = [__file__]

RELEASE = os.environ.get('MILLRACE_FLAVOUR', 'release') == 'release'      # sanitizers keep what was freed
VALUES = [b'first', b'second', b'third']


class Recorder(kafka_clients.Proxy):
    """Keeps what clients say, one item for each connection."""

    def __init__(self):
        super().__init__()
        self.said = []

    def forward(self, client, limit):
        said = bytearray()
        self.said.append(said)
        super().forward(Heard(client, said), limit)


class Heard:
    """A socket that keeps what was received."""

    def __init__(self, inner, said):
        self.inner, self.said = inner, said

    def recv(self, n):
        data = self.inner.recv(n)
        self.said += data
        return data

    def __getattr__(self, name):
        return getattr(self.inner, name)


class At:
    """What the helpers of kafka_clients take for a broker."""

    def __init__(self, port):
        self.kafka_port = port


def python_kafka(at, topic):
    kafka_clients.write(at, 'python3-kafka', topic, VALUES, 'gzip')
    consumer = kafka.KafkaConsumer(topic, bootstrap_servers=kafka_clients.at(at), group_id='cut', auto_offset_reset='earliest',
                                   consumer_timeout_ms=20000, session_timeout_ms=6000, heartbeat_interval_ms=100)
    assert [next(consumer).value for _ in VALUES] == VALUES
    consumer.commit()
    consumer.close()


def librdkafka(at, topic):
    kafka_clients.write(at, 'librdkafka', topic, VALUES, 'lz4')
    assert [m.value() for m in kafka_clients.read_librdkafka(at, topic, len(VALUES))] == VALUES


def kcat(at, topic):
    kafka_clients.write(at, 'kcat', topic, VALUES, None)
    assert kafka_clients.kcat(at, '-C', '-t', topic, '-p', '0', '-o', 'beginning', '-c', '3').encode().split() == VALUES


def alive(port):
    with kafka_wire.Wire(port) as w:
        assert w.call('api_versions', 0)['error_code'] == 0


def hang_up(port, data, reset):
    s = socket.create_connection(('127.0.0.1', port), 10)
    s.sendall(data)
    if reset:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    s.close()


def produces(said):
    """Where the Produce requests of a conversation end."""
    at, ends = 0, []
    while at + 6 <= len(said):
        n, key = struct.unpack_from('>ih', said, at)
        at += 4 + n
        if key == 0 and at <= len(said):
            ends.append(at)
    return ends


@pytest.mark.parametrize('client', [python_kafka, librdkafka, kcat])
def test_a_conversation_that_ends_at_each_of_its_bytes(client):
    topic = 'cut'
    with Recorder() as proxy:
        broker = kafka_clients.start(TARGET, advertised=proxy.port)
        try:
            made(broker, topic)
            proxy.to(broker.kafka_port)
            client(At(proxy.port), topic)
            said = [bytes(s) for s in proxy.said]
            whole = 0
            assert sum(len(produces(s)) for s in said) >= 1, said
            for one in said:
                ends = produces(one)
                for cut in range(len(one) + 1):
                    hang_up(broker.kafka_port, one[:cut], cut % 2)
                    whole += sum(end <= cut for end in ends)
                    if cut % 64 == 0:
                        alive(broker.kafka_port)
            with kafka_wire.Wire(broker.kafka_port) as w:
                # What came behind all of those is behind all of their batches.
                mark = kafka_wire.produce(w, topic, kafka_wire.batch(['mark']))['base_offset']
                got, offset, seen = [], 0, []
                while offset <= mark:
                    part = kafka_wire.fetch(w, topic, offset)
                    assert part['error_code'] == 0
                    for b in kafka_wire.batches(part['records']):
                        assert b['base'] == offset, 'a hole before %d' % b['base']
                        got.append((b['count'], b['attributes'], b['raw']))
                        seen.append(b['base'])
                        offset = b['base'] + b['last_delta'] + 1
            sent = set(got[:got.index(next(g for g in got if b'mark' in g[2]))])
            assert 1 <= len(sent) <= len(VALUES), sent          # nothing but what the client itself had written
            assert len(seen) - 2 <= whole + len(VALUES)
            client(At(broker.kafka_port) if TARGET == 'millrace' else At(proxy.port), made(broker, 'after'))
        finally:
            broker.remove()


def framed(body):
    return struct.pack('>i', len(body)) + body


def head(name, version, flexible=False):
    return struct.pack('>hhih', kafka_wire.APIS[name][0], version, 1, 1) + b'c' + (b'\0' if flexible else b'')


BAD = {
    'a negative length': struct.pack('>i', -1),
    'the smallest length': struct.pack('>i', -2**31),
    'the largest length': struct.pack('>i', 2**31 - 1) + b'x' * 100,
    'a length of 0': struct.pack('>i', 0),
    'a head that is cut off': framed(b'\0\3\0'),
    'a client id longer than the request': framed(struct.pack('>hhih', 3, 1, 1, 30000)),
    'a client id of negative length': framed(struct.pack('>hhih', 3, 1, 1, -2) + struct.pack('>i', -1)),
    'a request that there is not': framed(struct.pack('>hhih', 12345, 0, 1, -1)),
    'a version that will be': framed(struct.pack('>hhih', 3, 99, 1, -1)),
    'a negative version': framed(struct.pack('>hhih', 3, -1, 1, -1)),
    'an array of 2^31 - 1': framed(head('metadata', 1) + struct.pack('>i', 2**31 - 1)),
    'an array of 10^6, and nothing of it': framed(head('metadata', 1) + struct.pack('>i', 10**6)),
    'a compact array of 2^32 - 1': framed(head('metadata', 9, True) + b'\xff\xff\xff\xff\x0f' + b'\0' * 20),
    'a varint that does not end': framed(head('metadata', 9, True) + b'\xff' * 12),
    'a string longer than the request': framed(head('metadata', 1) + struct.pack('>ih', 1, 32767) + b'short'),
    'a tagged field longer than the request': framed(head('metadata', 9, True) + b'\1' + b'\0\0\0' + b'\1\5\xff\xff\xff\xff\x07'),
    'so many tagged fields': framed(head('metadata', 9, True) + b'\1' + b'\0\0\0' + b'\xff\xff\xff\xff\x07'),
    'no name, where there has to be one': framed(head('metadata', 1) + struct.pack('>ih', 1, -1)),
    'records longer than the request': framed(head('produce', 3) + struct.pack('>hhiih', -1, -1, 1000, 1, 3) + b'cut' + struct.pack('>iii', 1, 0, 10**6)),
}


# Kafka takes these for null.
LENIENT = 'a client id of negative length', 'a compact array of 2^32 - 1'


@pytest.mark.parametrize('name', [n for n in BAD if TARGET != 'kafka' or n not in LENIENT])
def test_a_number_that_lies_ends_its_connection_and_no_other(broker, name):
    with kafka_wire.Wire(broker.kafka_port) as other, kafka_wire.Wire(broker.kafka_port) as w:
        assert other.call('api_versions', 0)['error_code'] == 0
        w.raw(BAD[name])
        assert w.closed()
        assert other.call('api_versions', 0)['error_code'] == 0


def filled(title, version, depth=0):
    """Something in every field of a message."""
    out = {}
    for f in kafka_wire.STRUCTS[title]:
        if not f.within(version):
            continue
        if f.shape == 'FIELD':
            out[f.name] = {'string': 'cut', 'bytes': b'cut', 'records': kafka_wire.batch(['x']), 'bool': False, 'f64': 1.0,
                           'uuid': '0' * 31 + '1'}.get(f.kind, 1)
        elif f.shape == 'LIST':
            out[f.name] = [{'string': 'cut', 'uuid': '0' * 31 + '1', 'bytes': b'cut'}.get(f.kind, 1)]
        elif f.shape == 'PART':
            out[f.name] = filled(f.kind, version, depth + 1)
        else:
            out[f.name] = [filled(f.kind, version, depth + 1)]
    return out


def answer_to(port, name, version, body):
    """The answer, checked; None when there is none: the connection ends, or the request waits."""
    with kafka_wire.Wire(port, timeout=0.2) as w:
        w.raw(framed(body))
        try:
            data = w.frame()
        except (kafka_wire.WireError, socket.timeout):
            return None
        return kafka_wire.response(name, version, data)[1]


@pytest.mark.skipif(TARGET != 'millrace', reason='not to try Kafka')
def test_every_byte_of_every_request_replaced(broker):
    """Each request in its lowest and its highest version, with 00, 7f, 80 and ff at each place behind its number: an answer that
    can be read, or the end of the connection."""
    rss = broker.rss_bytes()
    answers = none = 0
    for name, (_, first, _, announced, _) in kafka_wire.APIS.items():
        for version in {first, announced}:
            body = kafka_wire.request(name, version, 1, **filled(name + '_request', version))
            for at in range(8, len(body)):
                for byte in (0, 0x7f, 0x80, 0xff):
                    if answer_to(broker.kafka_port, name, version, body[:at] + bytes([byte]) + body[at + 1:]) is None:
                        none += 1
                    else:
                        answers += 1
        alive(broker.kafka_port)
    assert answers > 3000 and none > 3000, (answers, none)
    assert not RELEASE or broker.rss_bytes() < rss + (64 << 20)


def packed(raw, count):
    """A batch whose records are these bytes, packed."""
    records = gzip.compress(raw, 6)
    checked = struct.pack('>hiqqqhii', 1, count - 1, 1700000000000, 1700000000000, -1, -1, -1, count) + records
    rest = struct.pack('>ibI', -1, 2, kafka_wire.calc_crc32c(checked)) + checked
    return struct.pack('>qi', 0, len(rest)) + rest


def test_bombs(broker):
    """A request of some kilobytes that would be hundreds of megabytes: refused, and no connection keeps the memory that it took."""
    made(broker, 'bombs')
    zeros = b'\0' * (1 << 20)
    bombs = [packed(zeros * 200, 1), packed(kafka_wire.zigzag(2**31 - 1) + zeros * 50, 1), packed(kafka_wire.zigzag(-5) + zeros, 1), packed(b'', 2**31 - 1),
             packed(kafka_wire.record(0, 'x'), 2**31 - 1), packed(kafka_wire.record(0, 'x') + zeros, 1)]
    large = packed(kafka_wire.record(0, zeros * 50), 1)
    before = broker.rss_bytes()
    wires = []
    try:
        for i in range(2):
            wires.append(kafka_wire.Wire(broker.kafka_port, timeout=60))
            for data in bombs:
                # 10: Millrace unpacks 128 MiB at most.
                answer = kafka_wire.produce(wires[-1], 'bombs', data)
                assert answer['error_code'] == 87 or TARGET == 'millrace' and data is bombs[0] and answer['error_code'] == 10, answer
            assert kafka_wire.produce(wires[-1], 'bombs', large)['base_offset'] == i
        if TARGET == 'millrace' and RELEASE:
            assert broker.rss_bytes() < before + (64 << 20)
    finally:
        for w in wires:
            w.close()
