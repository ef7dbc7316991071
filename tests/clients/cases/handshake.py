"""The opening of a connection: protocol header, mechanisms, tune, vhost; heartbeats; frames that are wrong."""

import struct

import spec
import wire
from cases import row
from script import (V, call, close, closed, closing, confirms, connect, count, deliver, eof, frame, function, get, open_, publish,
                    queue, raw, send, take, consume, exchange, quiet)
from wire import FRAME_BODY, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD, encode_method

Q = '{u}q'
CLOSE = ('connection.close',)


def login(conn='a', capabilities=wire.CAPABILITIES, **kw):
    """start-ok by hand after connect(); the next message or eof is the observation."""
    def play(p):
        w = p.conns[conn]
        args = dict(kw)
        args.setdefault('mechanism', 'PLAIN')
        args.setdefault('response', '\0guest\0guest')
        args.setdefault('locale', 'en_US')
        w.send_method(0, 'connection.start-ok', client_properties=wire.client_properties(capabilities), **args)
        try:
            return p.observe(conn, 0, w.next(0, 8))
        except wire.Eof:
            p.forget(conn)
            return ['eof']
    shown = {k: v for k, v in kw.items()}
    return function('%s login %s caps=%d' % (conn, shown, len(capabilities)), play, ['connection.start-ok'])


def tune(conn='a', vhost='/', **kw):
    def play(p):
        w = p.conns[conn]
        w.send_method(0, 'connection.tune-ok', **dict(dict(channel_max=2047, frame_max=131072, heartbeat=0), **kw))
        w.send_method(0, 'connection.open', virtual_host=vhost)
        try:
            return p.observe(conn, 0, w.next(0, 8))
        except wire.Eof:
            p.forget(conn)
            return ['eof']
    return function('%s tune %s vhost=%s' % (conn, kw, vhost), play, ['connection.tune-ok', 'connection.open'])


def early(step, *codes):
    """RabbitMQ hangs up; Millrace may say why first, with one of these codes."""
    return step.may(closing('connection', set(codes), ..., ...), ['no greeting', 'eof'], ['eof'], why=EARLY)


def answer(conn='a', ch=0):
    """Whatever comes next on the connection: a message, or its end."""
    def play(p):
        w = p.conns.get(conn)
        if w is None:
            return ['no connection']
        try:
            return p.observe(conn, ch, w.next(ch, 8))
        except wire.Eof:
            p.forget(conn)
            return [repr(w.raw_greeting) if w.raw_greeting else 'no greeting', 'eof']
    return function('%s answer' % conn, play)


def broken(code, *steps):
    """After these steps the connection must be closed with this code."""
    return [*steps, answer().err(code)]


def before(what, *steps):
    return row('handshake: ' + what, connect(), *steps)


def fresh(what, *steps):
    """On an open connection."""
    return row('frames: ' + what, *steps)


def m(name, **kw):
    return encode_method(name, **kw)


EARLY = 'RabbitMQ 3.10 hangs up without a word before the login; a close with a code is as good'
GREETING = ["b'AMQP\\x00\\x00\\t\\x01'", 'eof']
TUNE = 'queues.md 1.3 wants the reason told; RabbitMQ 3.10 only hangs up'
ERLANG = 'the text shows Erlang terms'


def amqplain(**values):
    body = b''.join(wire.shortstr(k) + wire.encode_value(v) for k, v in values.items())
    return body


ROWS = [
    row('handshake: start', connect()),
    row('handshake: header 0-9-1', connect(header=b'AMQP\x00\x00\x09\x01')),
    row('handshake: header 0-9', connect(header=b'AMQP\x01\x01\x00\x09').may(GREETING, why='0-9-1 only')),
    row('handshake: header 0-8', connect(header=b'AMQP\x01\x01\x08\x00').differs(GREETING, 'issue: AMQP 0-9-1; RabbitMQ 3.10 still speaks 0-8')),
    row('handshake: header 0-10', connect(header=b'AMQP\x01\x01\x00\x0a')),
    row('handshake: header 0-9-2', connect(header=b'AMQP\x00\x00\x09\x02')),
    row('handshake: header of nothing known', connect(header=b'AMQP\x05\x06\x07\x08')),
    row('handshake: not AMQP', connect(header=b'HELO mail\r\n')),
    row('handshake: HTTP', connect(header=b'GET / HTTP/1.1\r\n\r\n').differs(['None', 'eof'], 'every port takes every protocol, and this one is spoken')),
    row('handshake: not AMQP, eight bytes', connect(header=b'\0\0\0\0\0\0\0\0')),
    before('PLAIN', login(), tune()),
    before('AMQPLAIN', login(mechanism='AMQPLAIN', response=amqplain(LOGIN='guest', PASSWORD='guest')), tune()),
    before('AMQPLAIN, wrong password', login(mechanism='AMQPLAIN', response=amqplain(LOGIN='guest', PASSWORD='no')).err(403)),
    before('AMQPLAIN, no password', early(login(mechanism='AMQPLAIN', response=amqplain(LOGIN='guest')), 403, 501, 502, 503)),
    before('wrong password', login(response='\0guest\0wrong').err(403)),
    before('unknown user', login(response='\0{u}\0wrong').err(403)),
    before('empty password', login(response='\0guest\0').err(403)),
    before('wrong password without the capability', login(capabilities=(), response='\0guest\0wrong')),
    before('AMQPLAIN, wrong password without the capability',
           login(capabilities=(), mechanism='AMQPLAIN', response=amqplain(LOGIN='guest', PASSWORD='no'))),
    before('malformed PLAIN', early(login(response='guest'), 403, 501, 502)),
    before('PLAIN with an authorisation identity', early(login(response='other\0guest\0guest'), 403, 501, 502)),
    before('PLAIN with a NUL too many', early(login(response='\0guest\0guest\0'), 403, 501, 502)),
    before('unknown mechanism', early(login(mechanism='NOSUCH', response=''), 503)),
    before('mechanism in lower case', early(login(mechanism='plain'), 503)),
    before('EXTERNAL is not offered', early(login(mechanism='EXTERNAL', response=''), 503)),
    before('RABBIT-CR-DEMO is not offered', early(login(mechanism='RABBIT-CR-DEMO', response='guest'), 503)),
    before('empty mechanism', early(login(mechanism='', response=''), 503)),
    before('other locale', login(locale='de_DE'), tune()),
    before('vhost missing', login(), tune(vhost='{u}none')),
    before('vhost without access', login(response='\0mr-some\0some-secret'), tune(vhost='mr-other').err(530)),
    before('vhost without access, guest', login(), tune(vhost='mr-closed').err(530)),
    before('vhost with access', login(), tune(vhost='mr-other')),
    before('user without any permission', login(response='\0mr-none\0none-secret'), tune().err(530)),
    before('empty vhost name', login(), tune(vhost='').err(530)),

    before('tune: what is offered', login()),
    before('tune: frame_max 4096', login(), tune(frame_max=4096)),
    before('tune: frame_max 4095', login(), tune(frame_max=4095).differs(
        closing('connection', 530, 'NOT_ALLOWED - negotiated frame_max = 4095 is lower than the minimum allowed value (4096)', ...),
        TUNE)),
    before('tune: frame_max 131073', login(), tune(frame_max=131073).differs(
        closing('connection', 530, 'NOT_ALLOWED - negotiated frame_max = 131073 is higher than the maximum allowed value (131072)', ...),
        TUNE)),
    before('tune: frame_max 0', login(), tune(frame_max=0).differs(
        closing('connection', 530, 'NOT_ALLOWED - negotiated frame_max = 0 is higher than the maximum allowed value (131072)', ...),
        TUNE)),
    before('tune: channel_max 0', login(), tune(channel_max=0).differs(
        closing('connection', 530, 'NOT_ALLOWED - negotiated channel_max = 0 (no limit) is higher than the maximum allowed value (2047)', ...),
        TUNE)),
    before('tune: channel_max 2048', login(), tune(channel_max=2048).differs(
        closing('connection', 530, 'NOT_ALLOWED - negotiated channel_max = 2048 is higher than the maximum allowed value (2047)', ...),
        TUNE)),
    before('tune: channel_max 1', login(), tune(channel_max=1), call('channel.open', ch=1), call('channel.open', ch=2).err(530).ignore('reply_text', 'class_id', 'method_id', why='RabbitMQ counts channels, queues.md compares the number')),
    before('tune: several wrong values', login(), tune(channel_max=0, frame_max=0).differs(
        closing('connection', 530, 'NOT_ALLOWED - negotiated frame_max = 0 is higher than the maximum allowed value (131072)', ...),
        TUNE)),
    before('tune: heartbeat is the client\'s choice', login(), tune(heartbeat=1000)),
    before('channel 2047 opens, 2048 does not', login(), tune(), call('channel.open', ch=2047), call('channel.open', ch=2048).differs(
        closing('connection', 530, ..., 'channel.open'), 'queues.md 1.3: a number over channel_max is refused; RabbitMQ 3.10 counts channels')),

    before('method before start-ok', send('channel.open', opened=False), early(answer(), 501, 502, 503, 504, 505)),
    before('open before tune-ok', login(), send('connection.open', ch=0, opened=False, virtual_host='/'), early(answer(), 501, 502, 503, 504, 505)),
    before('channel.open before connection.open', login(), send('connection.tune-ok', ch=0, opened=False, channel_max=2047,
                                                                frame_max=131072), send('channel.open', opened=False), early(answer(), 501, 502, 503, 504, 505)),
    before('start-ok twice', login(), send('connection.start-ok', ch=0, opened=False, mechanism='PLAIN'), early(answer(), 501, 502, 503, 504, 505)),
    before('close before open', login(), call('connection.close', ch=0, reply_code=200).may([['connection.close-ok', {}]], why=EARLY)),
    before('secure-ok nobody asked for', login(), send('connection.secure-ok', ch=0, opened=False), early(answer(), 501, 502, 503, 504, 505)),
    before('heartbeat before start-ok', frame(FRAME_HEARTBEAT, b'', ch=0, opened=False), login(), tune()),
    before('frame over the limit before tune', frame(FRAME_METHOD, b'x' * 20000, ch=0, opened=False), early(answer(), 501, 502, 503, 504, 505)),
    before('content frame before start-ok', frame(FRAME_BODY, b'x', ch=0, opened=False), early(answer(), 501, 502, 503, 504, 505)),
    before('garbage before start-ok', raw(b'\xff' * 64), early(answer(), 501, 502, 503, 504, 505)),

    row('connection.close: ok', queue(Q), close()),
    row('connection.close: with open channels', queue(Q), queue(Q, ch=5), close()),
    row('connection: open-ok names no hosts', open_()),
    row('connection.update-secret', call('connection.update-secret', ch=0, new_secret='guest', reason='rotation'), queue(Q)),
    row('connection.update-secret: other secret', call('connection.update-secret', ch=0, new_secret='other', reason='rotation')),
    row('connection.open: twice', send('connection.open', ch=0, virtual_host='/'), answer()),
    row('connection.close-ok nobody asked for', send('connection.close-ok', ch=0), answer()),
    row('connection.blocked from the client', send('connection.blocked', ch=0, reason='x'), answer()),
    row('connection.unblocked from the client', send('connection.unblocked', ch=0), answer()),
    row('connection.start from the client', send('connection.start', ch=0), answer()),
    row('connection.tune-ok twice', send('connection.tune-ok', ch=0, channel_max=10, frame_max=4096), answer()),
    row('connection.start-ok twice', send('connection.start-ok', ch=0, mechanism='PLAIN'), answer()),
    row('connection.secure-ok nobody asked for', send('connection.secure-ok', ch=0), answer()),

    row('channel.open: twice', queue(Q), call('channel.open').err(504)),
    row('channel.open: on channel zero', call('channel.open', ch=0)),
    row('channel: method on a channel never opened', send('queue.declare', opened=False, queue=Q), answer().err(504)),
    row('channel: method after close', queue(Q), call('channel.close', reply_code=200), send('queue.declare', opened=False, queue=Q),
        answer().err(504)),
    row('channel: close, then open again', queue(Q), call('channel.close', reply_code=200), queue(Q, passive=True)),
    row('channel: close of one never opened', send('channel.close', opened=False, reply_code=200), answer()),
    row('channel: close-ok of one never opened', send('channel.close-ok', opened=False), answer()),
    row('channel: number is free after an error and close-ok', queue(Q, passive=True).err(404), queue(Q)),
    row('channel: methods after an error are discarded until close-ok', function('in flight', lambda p: _in_flight(p)),
        queue(Q, ch=2, passive=True).err(404), queue(Q)),
    row('channel.close: forgets confirm mode', call('confirm.select'), call('channel.close', reply_code=200), call('tx.select')),
    row('channel.close-ok nobody asked for', queue(Q), send('channel.close-ok'), answer()),
    row('channel.open-ok from the client', queue(Q), send('channel.open-ok'), answer()),
    row('channel.flow-ok from the client', queue(Q), send('channel.flow-ok', active=True), queue(Q, passive=True)),
    row('channel: connection method on a channel', queue(Q), send('connection.close', reply_code=200), answer()),
    row('channel: channel method on zero', send('queue.declare', ch=0, queue=Q), answer()),

    fresh('unknown type', frame(9, b'abc', ch=0), answer().err(501).ignore('reply_text', why=ERLANG)),
    fresh('unknown type on a channel', frame(5, b'abc'), answer().err(501).ignore('reply_text', why=ERLANG)),
    fresh('wrong end', frame(FRAME_METHOD, m('channel.flow', active=True), end=0x00), answer().err(501).ignore('reply_text', why=ERLANG)),
    fresh('wrong end of a heartbeat', frame(FRAME_HEARTBEAT, b'', ch=0, end=0xcf), answer().err(501).ignore('reply_text', why=ERLANG)),
    fresh('over frame_max', frame(FRAME_METHOD, b'\0' * 131073), answer().err(501).ignore('reply_text', why=ERLANG)),
    fresh('over a small frame_max', open_(frame_max=4096), frame(FRAME_METHOD, b'\0' * 4097), answer().err(501).ignore('reply_text', why=ERLANG)),
    fresh('frame_max exactly, with a small one', open_(frame_max=4096), queue(Q), function('body', lambda p: _sized_body(p, 4096 - 8)), get(Q)),
    fresh('up to eight bytes over frame_max are allowed', open_(frame_max=4096), queue(Q), function('body', lambda p: _sized_body(p, 4096)), get(Q)),
    fresh('small frame_max splits what the server sends', open_(frame_max=4096), open_('b', frame_max=131072), queue(Q),
          publish('', Q, 'x' * 20000, conn='b'), function('get', lambda p: _largest(p))),
    fresh('large headers under a small frame_max', open_(frame_max=4096), queue(Q), publish('', Q, 'b', headers={'h': 'x' * 3000}), get(Q)),
    fresh('heartbeat is ignored', frame(FRAME_HEARTBEAT, b'', ch=0), queue(Q)),
    fresh('heartbeat on a channel', frame(FRAME_HEARTBEAT, b''), answer()),
    fresh('heartbeat with a payload', frame(FRAME_HEARTBEAT, b'x', ch=0), answer().err(501).ignore('reply_text', why=ERLANG)),
    fresh('heartbeat on a channel never opened', frame(FRAME_HEARTBEAT, b'', ch=7, opened=False), answer()),
    fresh('body without a method', queue(Q), frame(FRAME_BODY, b'abc'), answer().err(505)),
    fresh('header without a method', queue(Q), frame(FRAME_HEADER, wire.encode_header(1)), answer().err(505)),
    fresh('header after another method', queue(Q), frame(FRAME_METHOD, m('channel.flow', active=True)), take('channel.flow-ok'),
          frame(FRAME_HEADER, wire.encode_header(1)), answer().err(505)),
    fresh('method instead of the header', queue(Q), frame(FRAME_METHOD, m('basic.publish', routing_key='q')),
          frame(FRAME_METHOD, m('channel.flow', active=True)), answer().err(505)),
    fresh('body instead of the header', queue(Q), frame(FRAME_METHOD, m('basic.publish', routing_key='q')), frame(FRAME_BODY, b'abc'),
          answer().err(505)),
    fresh('method instead of the body', queue(Q), frame(FRAME_METHOD, m('basic.publish', routing_key='q')),
          frame(FRAME_HEADER, wire.encode_header(3)), frame(FRAME_METHOD, m('channel.flow', active=True)), answer().err(505)),
    fresh('header instead of the body', queue(Q), frame(FRAME_METHOD, m('basic.publish', routing_key='q')),
          frame(FRAME_HEADER, wire.encode_header(3)), frame(FRAME_HEADER, wire.encode_header(3)), answer().err(505)),
    fresh('header of another class', queue(Q), frame(FRAME_METHOD, m('basic.publish', routing_key='q')),
          frame(FRAME_HEADER, wire.encode_header(3, class_id=50)), answer().err(505)),
    fresh('header with a weight', queue(Q), function('publish', lambda p: _publish_raw(p, wire.encode_header(3, weight=7), [b'abc'])), get(Q)),
    fresh('heartbeat between content frames', queue(Q), function('publish', lambda p: _publish_raw(
        p, wire.encode_header(6), [b'abc', None, b'def'])), get(Q)),
    fresh('empty body frame in between', queue(Q), function('publish', lambda p: _publish_raw(p, wire.encode_header(3), [b'ab', b'', b'c'])), get(Q)),
    fresh('body longer than the header says', queue(Q), function('publish', lambda p: _publish_raw(p, wire.encode_header(3), [b'abcdef'])),
          send('channel.flow', active=True), answer().may(closing('connection', {501, 505}, ..., ...), why='RabbitMQ notices only at the next frame')),
    fresh('body of size zero needs no body frame', queue(Q), function('publish', lambda p: _publish_raw(p, wire.encode_header(0), [])), get(Q)),
    fresh('body frame after a body of size zero', queue(Q), function('publish', lambda p: _publish_raw(p, wire.encode_header(0), [b''])),
          answer()),
    fresh('content on a channel, methods on another', queue(Q), call('channel.open', ch=2),
          frame(FRAME_METHOD, lambda p: m('basic.publish', routing_key=p.fill(Q))), queue(Q, ch=2, passive=True),
          frame(FRAME_HEADER, wire.encode_header(1)), queue(Q, ch=2, passive=True), frame(FRAME_BODY, b'z'), get(Q)),
    fresh('unknown class', queue(Q), frame(FRAME_METHOD, struct.pack('>HH', 77, 10)), answer().may(
        closing('connection', 503, ..., ...), why='RabbitMQ 3.10 crashes the connection without a word')),
    fresh('unknown method', queue(Q), frame(FRAME_METHOD, struct.pack('>HH', 50, 99)), answer().may(
        closing('connection', 503, ..., ...), why='RabbitMQ 3.10 crashes the connection without a word')),
    fresh('unknown method on channel zero', frame(FRAME_METHOD, struct.pack('>HH', 10, 99), ch=0), answer().may(
        closing('connection', 503, ..., ...), why='RabbitMQ 3.10 crashes the connection without a word')),
    fresh('empty method frame', queue(Q), frame(FRAME_METHOD, b''), answer().ignore('reply_text', 'reply_code', why=ERLANG)),
    fresh('method cut short', queue(Q), frame(FRAME_METHOD, m('queue.declare', queue='abc')[:8]), answer().err(501).ignore('reply_text', why=ERLANG)),
    fresh('method with bytes too many', queue(Q), frame(FRAME_METHOD, m('queue.declare', queue='{u}z') + b'xx'), answer().err(501).ignore('reply_text', why=ERLANG)),
    fresh('table cut short', queue(Q), frame(FRAME_METHOD, m('queue.declare', queue='', arguments=b'\0\0\0\x09\x01aI\0\0\0')), answer().err(501).ignore('reply_text', why=ERLANG)),
    fresh('table with an unknown type', queue(Q), frame(FRAME_METHOD, m('queue.declare', queue='', arguments={'a': V('?', b'')})),
          answer().differs(closing('connection', {501, 502}, ..., ...), 'RabbitMQ 3.10 crashes the connection without a word')),
    fresh('header cut short', queue(Q), frame(FRAME_METHOD, m('basic.publish', routing_key='q')), frame(FRAME_HEADER, b'\0\x3c\0\0'),
          answer().err(501).ignore('reply_text', 'class_id', 'method_id', why=ERLANG)),
    fresh('server method from the client: queue.declare-ok', queue(Q), frame(FRAME_METHOD, m('queue.declare-ok', queue='x')), answer()),
    fresh('server method from the client: basic.deliver', queue(Q), function('publish', lambda p: _deliver_to_server(p)), answer()),
    fresh('server method from the client: basic.cancel-ok', queue(Q), frame(FRAME_METHOD, m('basic.cancel-ok', consumer_tag='x'), method='basic.cancel-ok'), answer()),
    fresh('protocol header again', queue(Q), raw(wire.PROTOCOL_HEADER), answer().ignore('reply_text', 'reply_code', why=ERLANG)),
    fresh('client frames byte by byte', open_('b'), function('slowly', lambda p: _byte_by_byte(p)), get(Q)),
    fresh('many methods in one packet', function('together', lambda p: _together(p))),
    fresh('heartbeats are sent by the server', open_(heartbeat=1), function('a heartbeat comes', lambda p: _heartbeat(p))),
    fresh('silence for two intervals ends the connection', open_(heartbeat=1), function('silence', lambda p: _silence(p))),
    fresh('any traffic counts as a heartbeat', open_(heartbeat=1), function('traffic', lambda p: _traffic(p))),
]


def _in_flight(p):
    w = p.channel('a', 1)
    w.send_method(1, 'queue.declare', queue=p.fill('{u}none'), passive=True)
    w.send_method(1, 'queue.declare', queue=p.fill(Q))
    w.publish(1, '', p.fill(Q))
    w.send_method(1, 'queue.bind', queue='x', exchange='y')
    return p.take('a', 1, ('queue.declare-ok',))


def _sized_body(p, n):
    w = p.connection('a')
    w.send_method(1, 'basic.publish', routing_key=p.fill(Q))
    w.send_frame(FRAME_HEADER, 1, wire.encode_header(n))
    w.send_frame(FRAME_BODY, 1, b'x' * n)
    return []


def _largest(p):
    w = p.channel('a', 1)
    w.largest_frame = 0
    while True:
        answer_ = w.call(1, 'basic.get', queue=p.fill(Q), no_ack=True)
        if answer_.name == 'basic.get-ok':
            break
    return [len(answer_.body), w.largest_frame]


def _publish_raw(p, header, chunks):
    w = p.channel('a', 1)
    w.send_method(1, 'basic.publish', routing_key=p.fill(Q))
    w.send_frame(FRAME_HEADER, 1, header)
    for c in chunks:
        w.heartbeat() if c is None else w.send_frame(FRAME_BODY, 1, c)
    return []


def _deliver_to_server(p):
    w = p.channel('a', 1)
    w.send_method(1, 'basic.deliver', consumer_tag='x', delivery_tag=1)
    w.send_frame(FRAME_HEADER, 1, wire.encode_header(0))
    return []


def _byte_by_byte(p):
    w = p.channel('b', 1)
    name = p.fill(Q)
    p.stash.setdefault('queues', set()).add(name)
    data = wire.encode_frame(FRAME_METHOD, 1, m('queue.declare', queue=name))
    data += w.encode_content(1, m('basic.publish', routing_key=name), b'body', {'message_id': '1'})
    for i in range(len(data)):
        w.send_bytes(data[i:i + 1])
    return p.take('b', 1, ('queue.declare-ok',))


def _together(p):
    w = p.channel('a', 1)
    name = p.fill(Q)
    data = b''.join(wire.encode_frame(FRAME_METHOD, 1, payload) for payload in (
        m('queue.declare', queue=name), m('confirm.select'), m('basic.qos', prefetch_count=5), m('queue.bind', queue=name, exchange='amq.direct', routing_key=name)))
    data += w.encode_content(1, m('basic.publish', routing_key=name), b'one', {})
    data += wire.encode_frame(FRAME_METHOD, 1, m('queue.delete', queue=name))
    w.send_bytes(data)
    seen = p.take('a', 1, ('queue.declare-ok', 'confirm.select-ok', 'basic.qos-ok', 'queue.bind-ok'), 4)
    return seen + sorted(map(str, p.take('a', 1, ('queue.delete-ok', 'basic.ack'), 2)))


def _heartbeat(p):
    w = p.conns['a']
    try:
        while not w.heartbeats:
            w.sock.settimeout(5)
            w._assemble(w.recv_frame(5))
            w.heartbeat()
    except wire.WireError as e:
        return [str(e)]
    return ['heartbeat']


def _silence(p):
    """Say nothing; the broker must hang up after two to four intervals."""
    import time
    began = time.monotonic()
    w = p.conns['a']
    try:
        while time.monotonic() - began < 8:
            frame_ = w.recv_frame(8)
            if frame_.type != FRAME_HEARTBEAT:
                return [wire.decode_method(frame_.payload)[0]]
    except wire.Eof:
        p.forget('a').abort()
        took = time.monotonic() - began
        return ['eof', 'in time' if 1.5 < took < 5 else 'after %.1f s' % took]
    return ['no eof']


def _traffic(p):
    """Methods instead of heartbeats, for longer than the broker would wait in silence."""
    import time
    w, until = p.channel('a', 1), time.monotonic() + 3.6
    while time.monotonic() < until:
        w.call(1, 'channel.flow', active=True)
        try:
            w.pump(0.3)         # an interval between two methods: the thing under test is time itself
        except wire.Timeout:
            pass
    return [w.call(1, 'channel.flow', active=True).name]
