"""Streams through AMQP 0-9-1: declaring, reading by offset, what acknowledging means, what is refused.

RabbitMQ keeps records in chunks and hands out whole ones; a publish that waits for its confirm is a chunk of its own,
so what is compared is written that way.
"""

import time

import wire
from cases import row
from cases.delivery import ALL_PROPERTIES
from cases.millrace_only import refused
from script import (TIMEOUT, V, _plain, ack, bind, call, cancel, closed, closing, confirms, consume, count, deliver, drain, drop, exchange, function,
                    get, nack, publish, qos, queue, quiet, reject, sync, take, unbind)

Q, X, D = '{u}q', '{u}x', '{u}dead'
TYPE = {'x-queue-type': 'stream'}
LOSES = 'RabbitMQ 3.10 keeps messages as AMQP 1.0 and loses what that has not; here they come back as they were sent'
CRASH = 'RabbitMQ 3.10 ends the connection with an internal error'
AS_4 = 'RabbitMQ 4: whatever is said of a delivery gives credit; 3.10 ends the connection'
SAID_0 = 'RabbitMQ 3.10 says 0'
confirm = call('confirm.select')


def stream(name=Q, conn='a', ch=1, durable=True, args=None, **flags):
    return queue(name, conn, ch, durable=durable, args={**TYPE, **(args or {})}, **flags)


def put(*bodies, x='', key=Q, **properties):
    """One by one, each confirmed before the next."""
    return [s for body in bodies for s in (publish(x, key, body, **properties), confirms(1))]


def holding(*bodies, **args):
    return [stream(**args), confirm] + put(*bodies)


def read(offset=None, tag='c', ch=2, prefetch=100, name=Q, conn='a', **args):
    """Consume on a channel of its own."""
    if offset is not None:
        args['x-stream-offset'] = offset
    return [qos(prefetch, conn, ch), consume(name, tag, conn, ch, args)]


# as V of the wire client, whatever it was written as
WHOLE = dict(ALL_PROPERTIES, headers=wire.decode_table(wire.Reader(wire.encode_table(ALL_PROPERTIES['headers']))))


def delivery(body, offset, tag=1, key=Q, exchange='', headers=None, **properties):
    """A delivery as Millrace makes it, for `differs`."""
    return ['basic.deliver', {'consumer_tag': 'c', 'delivery_tag': tag, 'redelivered': False, 'exchange': exchange, 'routing_key': key},
            {'headers': {'x-stream-offset': V('l', offset), **(headers or {})}, **properties}, body]


def refuses(text, method='queue.declare'):
    return closing('channel', 406, "PRECONDITION_FAILED - " + text, method)


def argument(name, value, ok=False, text='', crash=False, **flags):
    step = stream(args={name: value}, **flags)
    if crash:
        step.differs(refuses("invalid arg '%s' for queue '%s' in vhost '/': invalid_max_age" % (name, Q)), CRASH)
    elif not ok:
        step.err(406)
    return row('stream: declare: %s=%r%s' % (name, value, text), step)


def redeclare(what, first, second, code=None):
    again = second if not isinstance(second, dict) else stream(args=second)
    if code:
        again.err(code)
    return row('stream: declare again: ' + what, stream(args=first) if isinstance(first, dict) else first, again, stream_passive)


def bad_offset(what, value):
    return row('stream: offset: ' + what, stream(), qos(10), consume(Q, 'c', args={'x-stream-offset': value}).differs(refuses(
        "invalid arg 'x-stream-offset' for queue '%s' in vhost '/': x-stream-offset must be first, last, next, an offset, a timestamp or an interval "
        "such as 1h or 7D" % Q, 'basic.consume'), 'a text that helps; RabbitMQ 3.10 shows Erlang terms, or an internal error, or takes it for an offset'))


def only(name, *steps, why):
    return row('stream: only millrace: ' + name, *steps, only='millrace', why=why)


def bodies_are(*wanted):
    return lambda seen: [o[-1] for o in seen[:len(wanted)]] == list(wanted)


def parts_in_order(seen):
    """Dense offsets in each of the three partitions."""
    found = {}
    for o in seen:
        headers = o[2]['headers']
        found.setdefault(headers['x-stream-partition'], []).append(headers['x-stream-offset'])
    return sorted(found) == ['l:0', 'l:1', 'l:2'] and all(f == ['l:%d' % i for i in range(len(f))] for f in found.values())


def first_is_gone(name):
    """Reads from the first again and again, until the first record is not the very first one any more."""
    def play(p):
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            w = wire.Wire(p.broker.host, p.broker.port, TIMEOUT)
            w.open()
            w.channel(1)
            w.call(1, 'basic.qos', prefetch_count=1)
            w.call(1, 'basic.consume', queue=p.fill(name), arguments={'x-stream-offset': 'first'})
            first = w.take(1, ('basic.deliver',))
            w.close()
            if first.properties['headers']['x-stream-offset'].value > 0:
                return ['gone']
            time.sleep(0.05)        # a poll interval
        return ['timeout']
    return function('the first record is gone', play).want(lambda s: s == ['gone'])


stream_passive = queue(Q, passive=True)
SOURCE = 'amq.stream.{u}q'
PARTS = 'RabbitMQ has partitions as super streams, which are several streams'
FED = 'RabbitMQ cannot bind a queue to a stream'

ROWS = [
    row('stream: declare', stream(), stream(), stream_passive),
    argument('x-max-age', '1Y', ok=True), argument('x-max-age', '2M', ok=True), argument('x-max-age', '7D', ok=True),
    argument('x-max-age', '1h', ok=True), argument('x-max-age', '5m', ok=True), argument('x-max-age', '30s', ok=True),
    argument('x-max-age', '0s'), argument('x-max-age', '1'), argument('x-max-age', '', crash=True), argument('x-max-age', 's', crash=True),
    argument('x-max-age', '1w'), argument('x-max-age', '1H'), argument('x-max-age', '-1h', crash=True), argument('x-max-age', '1.5h'),
    argument('x-max-age', ' 1h', crash=True), argument('x-max-age', '1hh'), argument('x-max-age', 3600), argument('x-max-age', True),
    argument('x-max-age', '99999999999Y', ok=True),
    argument('x-max-length-bytes', 1000000, ok=True), argument('x-max-length-bytes', 0, ok=True), argument('x-max-length-bytes', -1),
    argument('x-max-length-bytes', '1GB'), argument('x-max-length-bytes', V('l', 2**40), ok=True),
    argument('x-stream-max-segment-size-bytes', 100000, ok=True), argument('x-stream-max-segment-size-bytes', 0, ok=True),
    argument('x-stream-max-segment-size-bytes', -1), argument('x-stream-max-segment-size-bytes', 'big'),
    argument('x-stream-max-segment-size-bytes', V('l', 3000000000), ok=True),
    argument('x-max-length', 5), argument('x-message-ttl', 1000), argument('x-expires', 60000), argument('x-max-priority', 5),
    argument('x-dead-letter-exchange', ''), argument('x-dead-letter-exchange', '', text=' and routing key'),
    argument('x-dead-letter-routing-key', 'k'), argument('x-dead-letter-strategy', 'at-least-once'),
    argument('x-overflow', 'drop-head'), argument('x-overflow', 'reject-publish'), argument('x-single-active-consumer', True),
    argument('x-single-active-consumer', False), argument('x-delivery-limit', 5), argument('x-queue-mode', 'lazy'),
    argument('x-consumer-timeout', 1000, ok=True),
    row('stream: declare: x-max-in-memory-length', stream(args={'x-max-in-memory-length': 5}).differs(
        [['queue.declare-ok', {'queue': Q, 'message_count': 0, 'consumer_count': 0}]], 'an argument that Millrace does not know is ignored')),
    argument('x-initial-cluster-size', 1, ok=True), argument('x-initial-cluster-size', 3, ok=True),
    argument('x-initial-cluster-size', 0), argument('x-initial-cluster-size', -1), argument('x-initial-cluster-size', 'three'),
    argument('x-queue-leader-locator', 'client-local', ok=True), argument('x-queue-leader-locator', 'balanced', ok=True),
    argument('x-queue-leader-locator', 'least-leaders', ok=True), argument('x-queue-leader-locator', 'random', ok=True),
    argument('x-queue-leader-locator', 'nowhere'), argument('x-queue-leader-locator', 5),
    argument('x-unknown', 5, ok=True),
    argument('x-unknown', 5, text=' not durable', durable=False), argument('x-unknown', 5, text=' exclusive', exclusive=True),
    argument('x-unknown', 5, text=' auto-delete', auto_delete=True),
    argument('x-unknown', 5, text=' not durable and exclusive', durable=False, exclusive=True),
    row('stream: declare: bad argument and not durable', stream(durable=False, args={'x-max-age': '1w'}).err(406)),
    row('stream: declare: two bad arguments', stream(args={'x-max-age': '1w', 'x-max-length-bytes': -1}).err(406)),
    row('stream: declare: server-named', stream('').err(406)),
    row('stream: declare: server-named quorum queue', queue('', durable=True, args={'x-queue-type': 'quorum'}).err(406)),
    row('stream: declare: reserved name', stream('amq.{u}').err(403)),
    row('stream: declare: nowait', stream(nowait=True), stream_passive),
    row('stream: arguments of streams on a classic queue: x-max-age', queue(Q, args={'x-max-age': '1h'}).err(406)),
    row('stream: arguments of streams on a classic queue: segment size', queue(Q, args={'x-stream-max-segment-size-bytes': 1000}).err(406)),
    row('stream: arguments of streams on a quorum queue: x-max-age',
        queue(Q, durable=True, args={'x-queue-type': 'quorum', 'x-max-age': '1h'}).err(406)),
    row('stream: arguments of streams on a quorum queue: segment size',
        queue(Q, durable=True, args={'x-queue-type': 'quorum', 'x-stream-max-segment-size-bytes': 1000}).err(406)),
    row('stream: arguments of clusters on a classic queue: leader locator', queue(Q, args={'x-queue-leader-locator': 'balanced'}).differs(
        [['queue.declare-ok', {'queue': Q, 'message_count': 0, 'consumer_count': 0}]], 'as RabbitMQ 4')),
    row('stream: arguments of clusters on a classic queue: initial size', queue(Q, args={'x-initial-cluster-size': 1}).err(406)),

    redeclare('same', {'x-max-age': '1h', 'x-max-length-bytes': 5000000}, {'x-max-age': '1h', 'x-max-length-bytes': 5000000}),
    redeclare('max-age', {'x-max-age': '1h'}, {'x-max-age': '2h'}, 406),
    redeclare('max-age in another unit', {'x-max-age': '1h'}, {'x-max-age': '60m'}, 406),
    redeclare('max-age missing later', {'x-max-age': '1h'}, {}, 406),
    redeclare('max-age new later', {}, {'x-max-age': '1h'}, 406),
    redeclare('max-length-bytes', {'x-max-length-bytes': 5000000}, {'x-max-length-bytes': 6000000}, 406),
    redeclare('segment size', {'x-stream-max-segment-size-bytes': 5000000}, {'x-stream-max-segment-size-bytes': 6000000}, 406),
    redeclare('segment size missing later', {'x-stream-max-segment-size-bytes': 5000000}, {}, 406),
    redeclare('initial cluster size', {'x-initial-cluster-size': 1}, {'x-initial-cluster-size': 3}, 406),
    redeclare('initial cluster size missing later', {'x-initial-cluster-size': 1}, {}, 406),
    redeclare('leader locator', {'x-queue-leader-locator': 'client-local'}, {'x-queue-leader-locator': 'balanced'}, 406),
    redeclare('leader locator missing later', {'x-queue-leader-locator': 'client-local'}, {}, 406),
    redeclare('stream against classic', queue(Q, durable=True), {}, 406),
    redeclare('classic against stream', {}, queue(Q, durable=True), 406),
    redeclare('quorum against stream', {}, queue(Q, durable=True, args={'x-queue-type': 'quorum'}), 406),
    redeclare('not durable', {}, stream(durable=False), 406),
    redeclare('exclusive', {}, stream(exclusive=True), 405),
    redeclare('auto-delete', {}, stream(auto_delete=True), 406),
    redeclare('an argument of queues', {}, {'x-max-length': 5}),

    # -- publishing
    row('stream: publish: the count', stream(), confirm, put('a', 'b', 'c'), count(Q, 3), stream(), count(Q, 3)),
    row('stream: publish: without confirms', stream(), [publish('', Q, str(i)) for i in range(5)], read('first'), deliver(5, ch=2)),
    row('stream: publish: many confirms', stream(), confirm, [publish('', Q, str(i)) for i in range(50)], confirms(50), read('first'),
        deliver(50, ch=2)),
    row('stream: publish: topic exchange', exchange(X, 'topic'), stream(), bind(Q, X, 'a.*'), confirm, put('1', x=X, key='a.b'),
        put('no', x=X, key='b.b'), put('2', x=X, key='a.c'), read('first'), deliver(2, ch=2), count(Q, 2)),
    row('stream: publish: fanout exchange to a stream and a queue', exchange(X, 'fanout'), stream(), queue(D), bind(Q, X), bind(D, X), confirm,
        put('1', '2', x=X, key='k'), read('first'), deliver(2, ch=2), drain(D, 2)),
    row('stream: publish: headers exchange', exchange(X, 'headers'), stream(), bind(Q, X, args={'x-match': 'all', 'a': 1}), confirm,
        put('1', x=X, key='k', headers={'a': 1}), put('2', x=X, key='k', headers={'a': 2}), read('first'), deliver(1, ch=2), count(Q, 1)),
    row('stream: publish: direct exchange, unbound again', exchange(X), stream(), bind(Q, X, 'k'), confirm, put('1', x=X, key='k'), unbind(Q, X, 'k'),
        put('2', x=X, key='k'), read('first'), deliver(1, ch=2), count(Q, 1)),
    row('stream: publish: bound twice is stored once', exchange(X), stream(), bind(Q, X, 'k'), bind(Q, X, 'l'), confirm, put('1', x=X, key='k'),
        count(Q, 1)),
    row('stream: publish: CC', stream(), stream(Q + '2'), confirm, put('1', headers={'CC': ['{u}q2']}), count(Q, 1), count(Q + '2', 1),
        read('first', name=Q + '2'), deliver(ch=2).differs([delivery('1', 0, headers={'CC': {'A': [V('S', '{u}q2')]}})], LOSES)),
    row('stream: publish: mandatory', stream(), confirm, publish('', Q, 'b', mandatory=True), confirms(1), sync(), quiet(), read('first'),
        deliver(ch=2)),
    row('stream: publish: mandatory and unroutable', exchange(X), stream(), bind(Q, X, 'k'), publish(X, 'other', 'b', mandatory=True),
        take('basic.return')),
    row('stream: publish: not persistent', stream(), confirm, put('b', delivery_mode=1), read('first'), deliver(ch=2)),
    row('stream: publish: expiration is kept and not obeyed', stream(), confirm, put('b', expiration='1'), function('wait', lambda p: time.sleep(0.05) or []),
        read('first'), deliver(ch=2)),
    row('stream: publish: transaction committed', stream(), call('tx.select'), publish('', Q, '1'), publish('', Q, '2'), call('tx.commit'),
        read('first'), deliver(2, ch=2)),
    row('stream: publish: transaction rolled back', stream(), call('tx.select'), publish('', Q, '1'), call('tx.rollback'), publish('', Q, '2'),
        call('tx.commit'), read('first'), deliver(1, ch=2), sync(), quiet(ch=2)),
    row('stream: publish: alternate exchange to a stream', stream(), exchange(X + '2', 'fanout'), bind(Q, X + '2'), exchange(
        X, args={'alternate-exchange': X + '2'}), confirm, put('b', x=X, key='none'), read('first'), deliver(ch=2)),
    row('stream: publish: dead letters come to a stream', stream(D), queue(Q, args={'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': D}),
        confirm, put('m'), get(Q, no_ack=False), reject(1, requeue=False), read('first', name=D), deliver(ch=2).want(
            lambda s: s == ['timeout'] or "'count': 'l:1'" in str(s) and 'S:rejected' in str(s)).may(
                [['basic.deliver', ..., ..., 'm']], why='3.10 loses it on the way: it cannot keep x-death').silent()),
    row('stream: publish: body of several frames', stream(), confirm, put('y' * 1000000), read('first'), deliver(ch=2)),
    row('stream: publish: empty body', stream(), confirm, put(''), read('first'), deliver(ch=2)),
    row('stream: publish: binary body', stream(), confirm, put('\0\x01\xce{'), read('first'), deliver(ch=2)),

    # -- properties
    row('stream: properties: all', stream(), confirm, publish('', Q, 'b', **ALL_PROPERTIES), confirms(1).differs([[[1, 'ack']]], CRASH), read('first'),
        deliver(ch=2).differs([delivery('b', 0, **WHOLE)], LOSES).silent()),
    row('stream: properties: none', stream(), confirm, put('b'), read('first'), deliver(ch=2)),
    row('stream: properties: without headers', stream(), confirm, put('b', **{k: v for k, v in ALL_PROPERTIES.items() if k != 'headers'}), read('first'),
        deliver(ch=2).differs([delivery('b', 0, **{k: v for k, v in ALL_PROPERTIES.items() if k != 'headers'})], LOSES)),
    row('stream: properties: some headers', stream(), confirm, put('b', headers={'a': 1, 's': 'text', 'y': True, 'l': V('l', 2**40), 'n': V('l', -5)}),
        read('first'), deliver(ch=2)),
    row('stream: properties: a header x-stream-offset of the publisher', stream(), confirm, put('b', headers={'x-stream-offset': 77, 'a': 1}),
        read('first'), deliver(ch=2)),
    row('stream: properties: headers of a record that was read elsewhere', stream(), confirm, put('b', headers={'a': 1, 'x-stream-offset': 77, 'x-stream-partition': 5, 'z': 's'}),
        read('first'), deliver(ch=2).differs([delivery('b', 0, headers={'a': V('I', 1), 'z': V('S', 's')})], 'both names are taken')),
    row('stream: properties: exchange and key', exchange(X, 'topic'), stream(), bind(Q, X, '#'), confirm, put('b', x=X, key='a.long.key'),
        read('first'), deliver(ch=2)),
    row('stream: properties: odd delivery modes', stream(), confirm, publish('', Q, '0', delivery_mode=0), closed(of='basic.publish').err(406)),
    row('stream: properties: user id and BCC', stream(), stream(Q + '2'), confirm, put('b', user_id='guest', headers={'BCC': ['{u}q2'], 'a': 1}),
        read('first'), deliver(ch=2), read('first', name=Q + '2', ch=3), deliver(ch=3)),
    row('stream: properties: content type alone', stream(), confirm, put('{}', content_type='application/json'), read('first'), deliver(ch=2)),

    # -- where reading begins
    row('stream: offset: none is next', holding('a'), read(), put('b'), deliver(ch=2), sync(), quiet(ch=2)),
    row('stream: offset: next', holding('a'), read('next'), put('b'), deliver(ch=2), sync(), quiet(ch=2)),
    row('stream: offset: first', holding('a', 'b'), read('first'), deliver(2, ch=2), put('c'), deliver(ch=2)),
    row('stream: offset: last', holding('a', 'b', 'c'), read('last'), deliver(ch=2), put('d'), deliver(ch=2)),
    row('stream: offset: first of an empty stream', stream(), read('first'), confirm, put('a'), deliver(ch=2)),
    row('stream: offset: last of an empty stream', stream(), read('last'), confirm, put('a'), deliver(ch=2)),
    row('stream: offset: zero', holding('a', 'b'), read(0), deliver(2, ch=2)),
    row('stream: offset: a number', holding('a', 'b', 'c'), read(1), deliver(2, ch=2)),
    row('stream: offset: a long number', holding('a', 'b', 'c'), read(V('l', 2)), deliver(ch=2)),
    row('stream: offset: a byte', holding('a', 'b', 'c'), read(V('b', 2)), deliver(ch=2)),
    row('stream: offset: the next number', holding('a', 'b'), read(2), put('c'), deliver(ch=2)),
    row('stream: offset: beyond the end', holding('a'), read(3), put('b', 'c', 'd', 'e'), deliver(1, ch=2), sync(), quiet(ch=2)),
    row('stream: offset: far beyond the end', holding('a'), read(V('l', 2**40)), put('b'), sync(), quiet(ch=2)),
    row('stream: offset: timestamp zero', holding('a', 'b'), read(V('T', 0)), deliver(2, ch=2)),
    row('stream: offset: timestamp in the future', holding('a'), read(V('T', 2**32)), put('b'), deliver(ch=2)),
    row('stream: offset: timestamp in the future, far', holding('a'), read(V('T', 2**62)), put('b'), deliver(ch=2)),
    row('stream: offset: timestamp between', holding('a'), function('two seconds later', lambda p: time.sleep(2.1) or []),
        function('consume from one second ago', lambda p: p.stash.update(since=int(time.time())) or []), put('b', 'c'), qos(10, ch=2),
        function('consume since', lambda p: [p.channel('a', 2).call(2, 'basic.consume', queue=p.fill(Q), consumer_tag='c', arguments={
            'x-stream-offset': V('T', p.stash['since'])})]), deliver(2, ch=2)),
    row('stream: offset: one hour', holding('a', 'b'), read('1h'), deliver(2, ch=2)),
    row('stream: offset: seven days', holding('a', 'b'), read('7D'), deliver(2, ch=2)),
    row('stream: offset: an interval that is over', holding('a'), function('two seconds later', lambda p: time.sleep(2.1) or []), put('b'), read('2s'),
        deliver(1, ch=2), sync(), quiet(ch=2)),
    bad_offset('negative', -1), bad_offset('unknown text', 'middle'), bad_offset('empty text', ''), bad_offset('a unit of its own', '1w'),
    bad_offset('a number as text', '5'), bad_offset('float', V('d', 1.5)), bad_offset('bool', True), bad_offset('void', None),
    bad_offset('table', {'a': 1}), bad_offset('list', [1]), bad_offset('negative interval', '-1h'), bad_offset('upper case', 'FIRST'),
    row('stream: offset: on a classic queue', queue(Q), consume(Q, 'c', args={'x-stream-offset': 'first'}).err(406)),
    row('stream: offset: on a quorum queue', queue(Q, durable=True, args={'x-queue-type': 'quorum'}),
        consume(Q, 'c', args={'x-stream-offset': 'nowhere'}).err(406)),

    # -- consumers
    row('stream: consume: without prefetch', stream(), consume(Q, 'c').err(406)),
    row('stream: consume: prefetch of zero', stream(), qos(5), qos(0), consume(Q, 'c').err(406)),
    row('stream: consume: no-ack', stream(), qos(5), consume(Q, 'c', no_ack=True).err(540)),
    row('stream: consume: no-ack and without prefetch', stream(), consume(Q, 'c', no_ack=True).err(406)),
    row('stream: consume: global prefetch', stream(), qos(5, everyone=True), consume(Q, 'c').err(406)),
    row('stream: consume: both kinds of prefetch', stream(), qos(5), qos(5, everyone=True), consume(Q, 'c').err(540)),
    row('stream: consume: exclusive', holding('a'), qos(5, ch=2), consume(Q, 'c', ch=2, exclusive=True, args={'x-stream-offset': 'first'}), deliver(ch=2),
        qos(5, ch=3), consume(Q, 'd', ch=3).differs(closing('channel', 403, "ACCESS_REFUSED - queue '%s' in vhost '/' in exclusive use" % Q, 'basic.consume'), 'RabbitMQ takes no notice of the flag')),
    row('stream: consume: exclusive beside another', holding('a'), read('first'), deliver(ch=2), qos(5, ch=3), consume(Q, 'd', ch=3, exclusive=True).differs(
        closing('channel', 403, "ACCESS_REFUSED - queue '%s' in vhost '/' in exclusive use" % Q, 'basic.consume'), 'RabbitMQ takes no notice of the flag')),
    row('stream: consume: priority', stream(), qos(5), consume(Q, 'c', args={'x-priority': 5}).err(406)),
    row('stream: consume: bad priority', stream(), qos(5), consume(Q, 'c', args={'x-priority': 'high'}).err(406)),
    row('stream: consume: tag used twice', stream(), qos(5), consume(Q, 'c'), consume(Q, 'c').err(530)),
    row('stream: consume: no-local', holding('a'), qos(5, ch=2), consume(Q, 'c', ch=2, no_local=True, args={'x-stream-offset': 'first'}), deliver(ch=2)),
    row('stream: consume: nowait', holding('a'), qos(5, ch=2), consume(Q, 'c', ch=2, nowait=True, args={'x-stream-offset': 'first'}), deliver(ch=2)),
    row('stream: consume: three readers get everything', holding('a', 'b'), [s for i in (2, 3, 4) for s in read('first', ch=i)], [deliver(2, ch=i) for i in (2, 3, 4)],
        put('c'), [deliver(ch=i) for i in (2, 3, 4)]),
    row('stream: consume: two consumers of a channel', holding('a', 'b'), read('first', 'c'), deliver(2, ch=2), read('first', 'd'), deliver(2, ch=2)),
    row('stream: consume: another connection', holding('a', 'b'), read('first', conn='b'), deliver(2, conn='b', ch=2)),
    row('stream: consume: cancelled and again', holding('a', 'b'), read('first'), deliver(2, ch=2), cancel('c', ch=2), put('c'), sync(), quiet(ch=2),
        read(2), deliver(ch=2)),
    row('stream: consume: the number of consumers', stream(), read(), read(tag='d'), queue(Q, passive=True).differs(
        [['queue.declare-ok', {'queue': Q, 'message_count': 0, 'consumer_count': 2}]], SAID_0), cancel('c', ch=2), queue(Q, passive=True).differs(
        [['queue.declare-ok', {'queue': Q, 'message_count': 0, 'consumer_count': 1}]], SAID_0)),
    row('stream: consume: before and after publishing', stream(), read('first'), confirm, put('a'), deliver(ch=2), put('b'), deliver(ch=2)),

    # -- acknowledging is credit
    row('stream: ack: gives credit', holding('a', 'b', 'c'), read('first', prefetch=1), deliver(ch=2), sync(), quiet(ch=2), ack(1, ch=2), deliver(ch=2),
        ack(2, ch=2), deliver(ch=2)),
    row('stream: ack: multiple', holding('a', 'b', 'c', 'd'), read('first', prefetch=2), deliver(2, ch=2), sync(), quiet(ch=2), ack(2, ch=2, multiple=True),
        deliver(2, ch=2)),
    row('stream: ack: out of order', holding('a', 'b', 'c', 'd'), read('first', prefetch=2), deliver(2, ch=2), ack(2, ch=2), deliver(ch=2), ack(1, ch=2),
        deliver(ch=2)),
    row('stream: ack: nothing is removed', holding('a', 'b'), read('first'), deliver(2, ch=2), ack(2, ch=2, multiple=True), count(Q, 2), read('first', ch=3),
        deliver(2, ch=3)),
    row('stream: ack: unknown tag', holding('a'), read('first'), deliver(ch=2), ack(2, ch=2), closed(ch=2, of='basic.ack').err(406)),
    row('stream: ack: twice', holding('a'), read('first'), deliver(ch=2), ack(1, ch=2), ack(1, ch=2), closed(ch=2, of='basic.ack').err(406)),
    row('stream: ack: in a transaction', holding('a', 'b'), call('tx.select', ch=2), read('first', prefetch=1), deliver(ch=2), ack(1, ch=2), sync(),
        quiet(ch=2), call('tx.commit', ch=2), deliver(ch=2)),
    row('stream: ack: rolled back', holding('a', 'b'), call('tx.select', ch=2), read('first', prefetch=1), deliver(ch=2), ack(1, ch=2),
        call('tx.rollback', ch=2), sync(), quiet(ch=2), ack(1, ch=2), call('tx.commit', ch=2), deliver(ch=2)),
    row('stream: nack: requeue is credit', holding('a', 'b'), read('first', prefetch=1), deliver(ch=2), nack(1, ch=2), deliver(ch=2).differs([delivery('b', 1, 2)], AS_4)),
    row('stream: nack: discard is credit', holding('a', 'b'), read('first', prefetch=1), deliver(ch=2), nack(1, ch=2, requeue=False), deliver(ch=2).differs([delivery('b', 1, 2)], AS_4)),
    row('stream: nack: multiple', holding('a', 'b'), read('first', prefetch=1), deliver(ch=2), nack(0, ch=2, multiple=True), deliver(ch=2).differs([delivery('b', 1, 2)], AS_4)),
    row('stream: reject: requeue is credit', holding('a', 'b'), read('first', prefetch=1), deliver(ch=2), reject(1, ch=2), deliver(ch=2).differs([delivery('b', 1, 2)], AS_4)),
    row('stream: reject: discard is credit', holding('a', 'b'), read('first', prefetch=1), deliver(ch=2), reject(1, ch=2, requeue=False), deliver(ch=2).differs([delivery('b', 1, 2)], AS_4)),
    row('stream: recover: is credit', holding('a', 'b'), read('first', prefetch=1), deliver(ch=2), call('basic.recover', ch=2, requeue=True).differs(
        [['basic.recover-ok', {}]], CRASH), deliver(ch=2).differs([delivery('b', 1, 2)], AS_4)),
    row('stream: only millrace: what comes back is not delivered again, and not lost', holding('a', 'b', 'c'), read('first', prefetch=2), deliver(2, ch=2),
        nack(1, ch=2), reject(2, ch=2, requeue=False), deliver(ch=2).want(lambda s: s[0][-1] == 'c' and s[0][1]['redelivered'] is False), sync(),
        quiet(ch=2).want(lambda s: s == []), count(Q, 3), only='millrace', why=AS_4),
    row('stream: only millrace: nack in a transaction', holding('a', 'b'), call('tx.select', ch=2), read('first', prefetch=1), deliver(ch=2),
        nack(1, ch=2), sync(), quiet(ch=2).want(lambda s: s == []), call('tx.commit', ch=2), deliver(ch=2).want(lambda s: s[0][-1] == 'b'), count(Q, 2),
        only='millrace', why=AS_4),
    row('stream: only millrace: acks in a transaction that ends with its channel', holding('a', 'b'), call('tx.select', ch=2), read('first', prefetch=1),
        deliver(ch=2), ack(1, ch=2), call('channel.close', ch=2, reply_code=200), count(Q, 2, consumers=0), read('first', ch=3), deliver(2, ch=3),
        only='millrace', why='what is acknowledged in a transaction is given back at its end, once'),
    row('stream: only millrace: records and messages in one transaction', holding('a', 'b'), queue(D), put('m', key=D), call('tx.select', ch=2),
        get(D, ch=2, no_ack=False), read('first', prefetch=1), deliver(ch=2), ack(2, ch=2, multiple=True), publish('', D, 'n', ch=2),
        publish('', Q, 'c', ch=2), call('tx.commit', ch=2), deliver(ch=2).want(lambda s: s[0][-1] == 'b'), ack(3, ch=2), call('tx.commit', ch=2),
        deliver(ch=2).want(lambda s: s[0][-1] == 'c'), count(D, 1), only='millrace', why='one commit, one record'),
    row('stream: unacked: channel closed, read again is not redelivered', holding('a'), read('first'), deliver(ch=2),
        call('channel.close', ch=2, reply_code=200), count(Q, 1, consumers=0), read('first', ch=3), deliver(ch=3)),
    row('stream: unacked: connection cut', holding('a'), read('first', conn='b'), deliver(conn='b', ch=2), drop('b'), count(Q, 1, consumers=0), read('first'),
        deliver(ch=2)),
    row('stream: unacked: after a cancel', holding('a', 'b'), read('first', prefetch=1), deliver(ch=2), cancel('c', ch=2), ack(1, ch=2), sync(), quiet(ch=2)),
    row('stream: prefetch: of later consumers', holding('a', 'b', 'c'), read('first', prefetch=1), deliver(ch=2), qos(2, ch=2),
        consume(Q, 'd', ch=2, args={'x-stream-offset': 'first'}), deliver(2, ch=2), sync(), quiet(ch=2)),
    row('stream: prefetch: beside a queue on the same channel', holding('a', 'b'), queue(D), publish('', D, 'q1'), confirms(1), publish('', D, 'q2'), confirms(1),
        read('first', prefetch=1), deliver(ch=2), consume(D, 'd', ch=2), deliver(ch=2), sync(D), quiet(ch=2), ack(2, ch=2, multiple=True),
        deliver(2, ch=2, order=lambda o: o[-1]).ignore('delivery_tag', why='the two queues are independent')),

    # -- what a stream cannot do, and how it ends
    row('stream: get', holding('a'), get(Q, ch=2).err(540)),
    row('stream: get: no-ack off', holding('a'), get(Q, ch=2, no_ack=False).err(540)),
    row('stream: purge', holding('a'), call('queue.purge', ch=2, queue=Q).err(540)),
    row('stream: delete', holding('a', 'b'), count(Q, 2), call('queue.delete', queue=Q).ignore('message_count', why=SAID_0), queue(Q, passive=True).err(404)),
    row('stream: delete: if-unused', stream(), call('queue.delete', queue=Q, if_unused=True).differs(closing(
        'connection', 540, "NOT_IMPLEMENTED - cannot delete queue '%s' in vhost '/'. queue.delete operations with if-unused flag set are not supported by stream "
        'queues' % Q, 'queue.delete'), 'RabbitMQ 3.10 takes no notice of the flag and deletes')),
    row('stream: delete: if-empty', stream(), call('queue.delete', queue=Q, if_empty=True).differs(closing(
        'connection', 540, "NOT_IMPLEMENTED - cannot delete queue '%s' in vhost '/'. queue.delete operations with if-empty flag set are not supported by stream "
        'queues' % Q, 'queue.delete'), 'RabbitMQ 3.10 takes no notice of the flag and deletes')),
    row('stream: delete: consumers are cancelled', holding('a'), read('first', conn='b'), deliver(conn='b', ch=2), call('queue.delete', queue=Q).ignore('message_count', why=SAID_0), take('basic.cancel', conn='b', ch=2)),
    row('stream: delete: declared again it is empty and begins at zero', holding('a', 'b'), call('queue.delete', queue=Q).ignore('message_count', why=SAID_0), stream(), put('c'), read('first'), deliver(ch=2)),
    row('stream: delete: publishing goes nowhere', holding('a'), call('queue.delete', queue=Q).ignore('message_count', why=SAID_0),
        publish('', Q, 'b', mandatory=True), take(('basic.return',)), confirms(1)),
    row('stream: bind: missing exchange', stream(), bind(Q, X, 'k').err(404)),
    row('stream: bind: default exchange', stream(), bind(Q, '', 'k').err(403)),
    row('stream: exclusive of another connection does not exist', stream(), stream(conn='b'), stream(conn='b', exclusive=True).err(405)),

    # -- policies
    row('stream: policy: message-ttl does nothing', stream('{u}pol-ttl'), confirm, put('a', key='{u}pol-ttl'), function('wait', lambda p: time.sleep(0.2) or []),
        count('{u}pol-ttl', 1), read('first', name='{u}pol-ttl'), deliver(ch=2)),
    row('stream: policy: max-length does nothing', stream('{u}pol-len'), confirm, put('a', 'b', 'c', 'd', key='{u}pol-len'), count('{u}pol-len', 4)),
    row('stream: policy: dead letters do nothing', stream('{u}pol-dlx'), confirm, put('a', key='{u}pol-dlx'), read('first', name='{u}pol-dlx'), deliver(ch=2),
        count('{u}pol-dlx', 1)),
    row('stream: policy: expires does nothing', stream('{u}pol-exp'), confirm, put('a', key='{u}pol-exp'), function('wait', lambda p: time.sleep(0.5) or []),
        count('{u}pol-exp', 1)),
    row('stream: policy: length and segments', stream('{u}pol-str'), confirm, put(*60 * ['x' * 10000], key='{u}pol-str'),
        first_is_gone('{u}pol-str')),

    # -- retention
    row('stream: retention: by bytes', stream(args={'x-max-length-bytes': 200000, 'x-stream-max-segment-size-bytes': 100000}), confirm,
        put(*60 * ['x' * 10000]), first_is_gone(Q), read(0, prefetch=1), deliver(ch=2).ignore(
            'headers', why='where the first segment ends is no promise').want(lambda s: s[0][0] == 'basic.deliver')),

    # -- partitions: Millrace alone
    only('partitions: none, too many, not a number', stream(args={'x-stream-partitions': 0}).want(refused(406)),
         stream(args={'x-stream-partitions': 1025}).want(refused(406)), stream(args={'x-stream-partitions': 'two'}).want(refused(406)),
         queue(Q, args={'x-stream-partitions': 2}).want(refused(406)), why=PARTS),
    only('partitions: one is as none', stream(args={'x-stream-partitions': 1}), confirm, put('a'), read(0), deliver(ch=2).want(
        lambda s: s == [_plain(delivery('a', 0))]), why=PARTS),
    only('partitions: declared again with another number', stream(args={'x-stream-partitions': 2}), stream(args={'x-stream-partitions': 3}).want(refused(406)),
         stream().want(refused(406)), why=PARTS),
    only('partitions: all are read, each in its order', stream(args={'x-stream-partitions': 3}), confirm, put('a', 'b', 'c', 'd', 'e', 'f'), read('first'),
         deliver(6, ch=2).want(parts_in_order), count(Q, 6), why=PARTS),
    only('partitions: a key has one', stream(args={'x-stream-partitions': 8}), confirm, put('a', 'b', 'c', headers={'x-stream-key': 'k'}), read('first'),
         deliver(3, ch=2).want(lambda s: [o[2]['headers']['x-stream-offset'] for o in s] == ['l:0', 'l:1', 'l:2'] and
                               len({o[2]['headers']['x-stream-partition'] for o in s}) == 1), why=PARTS),
    only('partitions: one alone', stream(args={'x-stream-partitions': 2}), confirm, put('a', 'b', 'c', 'd'),
         [s for ch in (2, 3) for s in read(0, ch=ch, **{'x-stream-partition': ch - 2})],
         [deliver(2, ch=ch).want(lambda s, part=ch - 2: all(o[2]['headers']['x-stream-partition'] == 'l:%d' % part for o in s) and
                                 [o[2]['headers']['x-stream-offset'] for o in s] == ['l:0', 'l:1']) for ch in (2, 3)], why=PARTS),
    only('partitions: one that is not there', stream(args={'x-stream-partitions': 2}), qos(5),
         consume(Q, 'c', args={'x-stream-partition': 2}).want(refused(406)), qos(5), consume(Q, 'c', args={'x-stream-partition': -1}).want(refused(406)),
         qos(5), consume(Q, 'c', args={'x-stream-partition': 'first'}).want(refused(406)), why=PARTS),
    only('partitions: an offset is of one', stream(args={'x-stream-partitions': 2}), qos(5), consume(Q, 'c', args={'x-stream-offset': 0}).want(refused(406)),
         why=PARTS),

    # -- a queue that is fed from a stream: Millrace alone
    only('source: a queue gets every record', stream(), queue(D), bind(D, SOURCE), confirm, put('a', 'b', message_id='m', headers={'h': 1}), drain(D, 2).want(
        lambda s: [o[-1] for o in s[:2]] == ['a', 'b'] and s[0][2]['message_id'] == 'm' and s[0][2]['headers'] == {'h': 'I:1'}), count(Q, 2), why=FED),
    only('source: from the first', stream(), confirm, put('a', 'b'), queue(D), bind(D, SOURCE, args={'x-stream-offset': 'first'}), put('c'),
         drain(D, 3).want(bodies_are('a', 'b', 'c')), why=FED),
    only('source: from an offset', stream(), confirm, put('a', 'b', 'c'), queue(D), bind(D, SOURCE, args={'x-stream-offset': 1}), drain(D, 2).want(
        bodies_are('b', 'c')), why=FED),
    only('source: from the last', stream(), confirm, put('a', 'b', 'c'), queue(D), bind(D, SOURCE, args={'x-stream-offset': 'last'}), drain(D, 1).want(
        bodies_are('c')), why=FED),
    only('source: next is the default', stream(), confirm, put('a'), queue(D), bind(D, SOURCE), put('b'), drain(D, 1).want(bodies_are('b')), why=FED),
    only('source: a key is a pattern', exchange(X, 'topic'), stream(), bind(Q, X, '#'), queue(D), bind(D, SOURCE, 'a.*'), confirm, put('1', x=X, key='a.b'),
         put('2', x=X, key='b.b'), put('3', x=X, key='a.c'), drain(D, 2).want(bodies_are('1', '3')), why=FED),
    only('source: two keys are one way', exchange(X, 'topic'), stream(), bind(Q, X, '#'), queue(D), bind(D, SOURCE, 'a.*'), bind(D, SOURCE, '*.b'), confirm,
         put('1', x=X, key='a.b'), put('2', x=X, key='b.b'), drain(D, 2).want(bodies_are('1', '2')), why=FED),
    only('source: unbound', stream(), queue(D), bind(D, SOURCE), confirm, put('a'), count(D, 1), unbind(D, SOURCE), put('b'), count(Q, 2), sync(D), count(D, 1),
         why=FED),
    only('source: two queues', stream(), queue(D), queue(D + '2'), bind(D, SOURCE), bind(D + '2', SOURCE), confirm, put('a'), drain(D, 1), drain(D + '2', 1),
         why=FED),
    only('source: a bad offset, or a time', stream(), queue(D), bind(D, SOURCE, args={'x-stream-offset': 'middle'}).want(refused(406)),
         bind(D, SOURCE, args={'x-stream-offset': V('T', 0)}).want(refused(406)), bind(D, SOURCE, args={'x-stream-offset': '1h'}).want(refused(406)), why=FED),
    only('source: no stream, no exchange', stream(), stream(Q + '2'), exchange(X), bind(Q + '2', SOURCE).want(refused(406)),
         call('exchange.bind', destination=X, source=SOURCE).want(refused(406)), why=FED),
    only('source: nobody publishes to it', stream(), publish(SOURCE, 'k'), closed().want(refused(403)), why=FED),
    only('source: nobody declares or deletes it', stream(), exchange(SOURCE, 'x-stream', durable=True).want(refused(406)),
         call('exchange.delete', exchange=SOURCE).want(refused(403)), exchange(X, 'x-stream').want(refused(406)),
         exchange(X, 'x-delayed-message', args={'x-delayed-type': 'x-stream'}).want(refused(406)), exchange(SOURCE, passive=True), why=FED),
    only('source: it goes with the stream', stream(), queue(D), bind(D, SOURCE), call('queue.delete', queue=Q), exchange(SOURCE, passive=True).want(refused(404)),
         queue(D, passive=True), why=FED),
    only('source: the stream stays when the queue goes', stream(), queue(D), bind(D, SOURCE), call('queue.delete', queue=D), confirm, put('a'), count(Q, 1),
         why=FED),
    only('source: a queue keeps its limits', stream(), confirm, put('1', '2', '3', '4'), queue(D, args={'x-max-length': 2}),
         bind(D, SOURCE, args={'x-stream-offset': 'first'}), put('5'), count(D, 2), drain(D, 2).want(bodies_are('4', '5')), why=FED),
    only('source: a queue that refuses is not passed by', stream(), confirm, put('1', '2', '3'),
         queue(D, args={'x-max-length': 1, 'x-overflow': 'reject-publish'}), bind(D, SOURCE, args={'x-stream-offset': 'first'}), drain(D, 3).want(
             bodies_are('1', '2', '3')), why=FED),
    only('source: of a stream with partitions', stream(args={'x-stream-partitions': 3}), queue(D), bind(D, SOURCE), confirm, put('a', 'b', 'c', 'd', 'e', 'f'),
         drain(D, 6).want(lambda s: sorted(o[-1] for o in s[:6]) == list('abcdef')), why=FED),
]
