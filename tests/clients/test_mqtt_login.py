"""Enhanced authentication of MQTT 5 (SCRAM), first and again.  The packets are made here, since no client of Debian's has AUTH; the other
side of SCRAM is python3-kafka's."""

import struct

import pytest
from kafka.scram import ScramClient

import brokers
from conftest import TARGET
from mqtt_rows import Connection, connect, packet, pair, publish, subscribe, text, varint

pytestmark = pytest.mark.skipif(TARGET != 'millrace', reason='users are made by the millrace command')

METHODS = ('SCRAM-SHA-256', 'SCRAM-SHA-512')
NOT_AUTHORIZED, BAD_METHOD, PROTOCOL_ERROR = 0x87, 0x8c, 0x82
CONTINUE, AGAIN = 0x18, 0x19


@pytest.fixture(scope='module')
def broker():
    started = brokers.Millrace(args=('--set=mqtt.anonymous=',)).start()
    started.cli('user', 'add', 'alice', 'alice-secret')
    started.cli('user', 'add', 'bob', 'bob-secret')
    for user in ('alice', 'bob'):
        started.cli('permission', 'set', user, '.*', '.*', '.*')
    yield started
    started.remove()


def method(name, token=None):
    """The properties that name it, and carry a token."""
    return b'\x15' + text(name) + (b'\x16' + text(token) if token is not None else b'')


def auth(reason, props):
    return packet(0xf0, bytes([reason]), varint(len(props)), props)


def properties(data):
    """Of CONNACK, AUTH and DISCONNECT: {identifier: value}; what SCRAM is about are texts."""
    out, at = {}, 0
    while at < len(data):
        kind, at = data[at], at + 1
        if kind in (0x11, 0x27):
            size = 4
        elif kind in (0x13, 0x21, 0x22):
            size = 2
        elif kind in (0x24, 0x25, 0x28, 0x29, 0x2a):
            size = 1
        else:
            length, = struct.unpack('>H', data[at:at + 2])
            out[kind], at = data[at + 2:at + 2 + length], at + 2 + length
            continue
        out[kind], at = data[at:at + size], at + size
    return out


class Device:
    """A connection on which SCRAM is played; step by step, or as a whole."""

    def __init__(self, port, step=0):
        self.connection = Connection(port, 10)
        self.step = step

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()

    def send(self, data):
        for at in range(0, len(data), self.step or len(data)):
            self.connection.send(data[at:at + (self.step or len(data))])

    def said(self):
        """(kind, reason, properties) of the next packet, a CONNACK, AUTH or DISCONNECT; None: the end."""
        got = self.connection.next(10)
        if got is None:
            return None
        kind, body = got[0] >> 4, got[1]
        assert kind in (2, 14, 15), got
        body = body[kind == 2:]            # CONNACK has flags in front
        at = 2 if body[1:2] >= b'\x80' else 1
        return kind, body[0] if body else 0, properties(body[1 + at:])

    def login(self, user, secret, mechanism, begin=None, client='scram'):
        """CONNECT, or begin's AUTH, to the end: (kind, reason, properties) of the last packet; the server's proof is checked."""
        scram = ScramClient(user, secret, mechanism)
        first = method(mechanism, scram.first_message())
        self.send(connect(5, client, props=first) if begin is None else auth(begin, first))
        got = self.said()
        if got is None or got[0] != 15:
            return got
        assert got[1] == CONTINUE and got[2][0x15] == mechanism.encode()
        scram.process_server_first_message(got[2][0x16].decode())
        self.send(auth(CONTINUE, method(mechanism, scram.final_message())))
        got = self.said()
        if got and got[1] == 0:
            assert got[2][0x15] == mechanism.encode()
            scram.process_server_final_message(got[2][0x16].decode())
        return got

    def works(self, topic='scram/x'):
        """A message makes the round."""
        self.send(subscribe(5, (topic, 1), pid=7) + publish(5, topic, b'round', 1, 9))
        seen = {}
        while not {3, 4, 9} <= set(seen):
            got = self.connection.next(10)
            assert got is not None and got[0] >> 4 in (3, 4, 9), got
            seen[got[0] >> 4] = got[1]
        assert seen[3].endswith(b'round') and seen[9][-1] == 1
        length, = struct.unpack('>H', seen[3][:2])
        self.send(packet(0x40, seen[3][2 + length:4 + length]) + packet(0xa2, struct.pack('>H', 8), b'\0', text(topic)))
        return self.connection.next(10)[0] >> 4 == 11


def refused(got, *reasons):
    return got is None or (got[0] in (2, 14) and got[1] in (reasons or (NOT_AUTHORIZED,)))


@pytest.mark.parametrize('step', [0, 1])
@pytest.mark.parametrize('mechanism', METHODS)
def test_login(broker, mechanism, step):
    with Device(broker.mqtt_port, step) as d:
        kind, reason, _ = d.login('alice', 'alice-secret', mechanism)
        assert (kind, reason) == (2, 0) and d.works()
        assert 'alice' in broker.cli('list', 'connections')


def test_also_where_somebody_visits(broker):
    with Device(broker.port) as d:
        assert d.login('alice', 'alice-secret', METHODS[0])[:2] == (2, 0) and d.works()


@pytest.mark.parametrize('mechanism', METHODS)
@pytest.mark.parametrize('user, secret', [('alice', 'wrong'), ('alice', 'bob-secret'), ('nobody', 'alice-secret')])
def test_who_is_refused(broker, user, secret, mechanism):
    """Who is not there is asked to prove it as anybody is, and told the same."""
    with Device(broker.mqtt_port) as d:
        got = d.login(user, secret, mechanism)
        assert got[:2] == (2, NOT_AUTHORIZED) and 0x16 not in got[2]
        assert d.said() is None


def test_steps_that_are_wrong(broker):
    scram = ScramClient('alice', 'alice-secret', METHODS[0])
    first = scram.first_message()
    for sends, reasons in (
            ([connect(5, 'm', props=method('PLAIN', b'\0alice\0alice-secret'))], (BAD_METHOD,)),
            ([connect(5, 'm', props=method(METHODS[0]))], (NOT_AUTHORIZED,)),
            ([connect(5, 'm', props=method(METHODS[0], b'n,,n=alice'))], (NOT_AUTHORIZED,)),
            ([connect(5, 'm', props=b'\x16' + text(first))], (PROTOCOL_ERROR,)),
            ([connect(5, 'm', props=method(METHODS[0], first)), auth(CONTINUE, method(METHODS[0], b'c=biws,r=x,p=AAAA'))], (NOT_AUTHORIZED,)),
            ([connect(5, 'm', props=method(METHODS[0], first)), auth(CONTINUE, method(METHODS[1], b'x'))], (PROTOCOL_ERROR,)),
            ([connect(5, 'm', props=method(METHODS[0], first)), auth(AGAIN, method(METHODS[0], first))], (PROTOCOL_ERROR,)),
            ([connect(5, 'm', props=method(METHODS[0], first)), publish(5, 'a', b'x')], (PROTOCOL_ERROR,)),
            ([connect(5, 'm', props=method(METHODS[0], first)), connect(5, 'm')], (PROTOCOL_ERROR,))):
        with Device(broker.mqtt_port) as d:
            for n, data in enumerate(sends):
                d.send(data)
                got = d.said()
                assert n == len(sends) - 1 or got[0] == 15, (sends, got)
            assert refused(got, *reasons), (sends, got)
            assert got is None or d.said() is None


def test_again(broker):
    """A client proves who it is while messages go on, as often as it likes; the connection stays."""
    with Device(broker.mqtt_port) as d:
        assert d.login('alice', 'alice-secret', METHODS[1])[:2] == (2, 0)
        for _ in range(3):
            kind, reason, props = d.login('alice', 'alice-secret', METHODS[1], AGAIN)
            assert (kind, reason) == (15, 0) and props[0x16]
            assert d.works()
        # In between the steps other packets are taken.
        scram = ScramClient('alice', 'alice-secret', METHODS[1])
        d.send(auth(AGAIN, method(METHODS[1], scram.first_message())))
        got = d.said()
        scram.process_server_first_message(got[2][0x16].decode())
        assert d.works()
        d.send(auth(CONTINUE, method(METHODS[1], scram.final_message())))
        got = d.said()
        assert got[:2] == (15, 0)
        scram.process_server_final_message(got[2][0x16].decode())
        assert d.works()


def test_again_with_another_password(broker):
    """What a password was is no proof any more, of whoever is connected by it."""
    broker.cli('user', 'add', 'carol', 'old')
    broker.cli('permission', 'set', 'carol', '.*', '.*', '.*')
    with Device(broker.mqtt_port) as old, Device(broker.mqtt_port) as new:
        for d, client in ((old, 'old'), (new, 'new')):
            assert d.login('carol', 'old', METHODS[0], client=client)[:2] == (2, 0)
        broker.cli('user', 'password', 'carol', 'new')
        assert new.login('carol', 'new', METHODS[0], AGAIN)[:2] == (15, 0) and new.works()
        assert old.login('carol', 'old', METHODS[0], AGAIN)[:2] == (14, NOT_AUTHORIZED) and old.said() is None


def test_again_as_somebody_else(broker):
    with Device(broker.mqtt_port) as d:
        assert d.login('alice', 'alice-secret', METHODS[0])[:2] == (2, 0)
        assert refused(d.login('bob', 'bob-secret', METHODS[0], AGAIN), NOT_AUTHORIZED, PROTOCOL_ERROR)
        assert d.said() is None


def test_again_in_wrong_ways(broker):
    first = ScramClient('alice', 'alice-secret', METHODS[0]).first_message()
    for data in (auth(CONTINUE, method(METHODS[0], first)), auth(0, method(METHODS[0], first)), auth(AGAIN, method(METHODS[1], first)), auth(AGAIN, b''),
                 packet(0xf0), packet(0xf1, bytes([AGAIN]))):
        with Device(broker.mqtt_port) as d:
            assert d.login('alice', 'alice-secret', METHODS[0])[:2] == (2, 0)
            d.send(data)
            got = d.said()
            assert refused(got, PROTOCOL_ERROR, 0x81), (data, got)
    with Device(broker.mqtt_port) as d:      # who came by a password has nothing to say again
        d.send(connect(5, 'm', flags=0xc2, rest=text('alice') + text('alice-secret')))
        assert d.said()[:2] == (2, 0)
        d.send(auth(AGAIN, method(METHODS[0], first)))
        assert refused(d.said(), PROTOCOL_ERROR)


def test_methods_may_be_fewer():
    started = brokers.Millrace(args=('--set=mqtt.auth_methods=SCRAM-SHA-512',)).start()
    try:
        for mechanism, reason in ((METHODS[0], BAD_METHOD), (METHODS[1], 0)):
            with Device(started.mqtt_port) as d:
                assert d.login('guest', 'guest', mechanism)[:2] == (2, reason)
    finally:
        started.remove()
