"""Exchanges: types and routing, declaring, deleting, bindings between exchanges, alternates."""

from cases import row
from script import (V, bind, call, closing, confirms, consume, count, deliver, drain, exchange, exchange_gone,
                    function, get, open_, publish, queue, quiet, send, sync, take, unbind)

Q, X = '{u}q', '{u}x'
BODY = lambda o: o[3]       # noqa: E731  (observations of deliveries: name, fields, properties, body)


def routes(name, kind, bindings, messages, args=None):
    """One queue per binding list entry; each message goes out with its number; every queue is drained."""
    steps = [exchange(X, kind, args=args)]
    for i, binds in enumerate(bindings):
        steps.append(queue('%s%d' % (Q, i)))
        for key, table in binds:
            steps.append(bind('%s%d' % (Q, i), X, key, args=table))
    steps.append(call('confirm.select'))
    for n, (key, headers) in enumerate(messages):
        steps.append(publish(X, key, str(n), headers=headers))
    steps.append(confirms(len(messages)))
    for i in range(len(bindings)):
        steps.append(everything('%s%d' % (Q, i)))
    return row('%s: %s' % (kind, name), *steps)


def everything(q):
    """All bodies now in a queue, in order."""
    def play(p):
        p.flow()
        w, out = p.channel('a', 9), []
        while True:
            answer = w.call(9, 'basic.get', queue=p.fill(q), no_ack=True)
            if answer.name != 'basic.get-ok':
                return [out, answer.name]
            out.append(answer.body.decode())
    return function('everything in ' + q, play)


def k(*keys):
    return [(key, {}) for key in keys]


def h(*tables):
    return [('', t) for t in tables]


def e2e(destination, source, key='', what='bind', conn='a', args=None, **flags):
    return call('exchange.' + what, conn, destination=destination, source=source, routing_key=key,
                arguments=args or {}, **flags)


def delete(x, **flags):
    return call('exchange.delete', exchange=x, **flags)


UNKNOWN_TYPE = [['channel.close', {'reply_code': 406, 'reply_text': "PRECONDITION_FAILED - unknown exchange type 'nope'",
                                   'class_id': 40, 'method_id': 10}]]

ROWS = [
    row('exchange.declare: types', exchange(X + '1', 'direct'), exchange(X + '2', 'fanout'), exchange(X + '3', 'topic'),
        exchange(X + '4', 'headers'), exchange(X + '5', 'x-consistent-hash')),
    row('exchange.declare: same again', exchange(X, 'topic', durable=True), exchange(X, 'topic', durable=True)),
    row('exchange.declare: other type', exchange(X, 'topic'), exchange(X, 'fanout').err(406)),
    row('exchange.declare: other durable', exchange(X), exchange(X, durable=True).err(406)),
    row('exchange.declare: other auto-delete', exchange(X), exchange(X, auto_delete=True).err(406)),
    row('exchange.declare: other internal', exchange(X), exchange(X, internal=True).err(406)),
    row('exchange.declare: type comes first', exchange(X), exchange(X, 'fanout', durable=True, auto_delete=True,
                                                                     internal=True).err(406)),
    row('exchange.declare: durable comes second', exchange(X), exchange(X, durable=True, auto_delete=True,
                                                                        internal=True).err(406)),
    row('exchange.declare: other alternate', exchange(X, args={'alternate-exchange': 'a'}),
        exchange(X, args={'alternate-exchange': 'b'}).err(406)),
    row('exchange.declare: alternate missing later', exchange(X, args={'alternate-exchange': 'a'}), exchange(X).err(406)),
    row('exchange.declare: alternate new later', exchange(X), exchange(X, args={'alternate-exchange': 'a'}).err(406)),
    row('exchange.declare: alternate not a string', exchange(X, args={'alternate-exchange': 5}).err(406)),
    row('exchange.declare: unknown arguments are ignored', exchange(X, args={'x': 1}), exchange(X, args={'y': 2})),
    row('exchange.declare: passive missing', exchange(X, passive=True).err(404)),
    row('exchange.declare: passive ignores the rest', exchange(X, 'topic'), exchange(X, 'fanout', passive=True,
                                                                                    durable=True)),
    row('exchange.declare: passive with an unknown type', exchange(X), exchange(X, 'nope', passive=True)),
    row('exchange.declare: default', exchange('', 'direct', durable=True).err(403)),
    row('exchange.declare: default, passive', exchange('', 'direct', passive=True)),
    row('exchange.declare: unknown type', exchange(X, 'nope').differs(
        UNKNOWN_TYPE, 'queues.md 1.3: 406 on the channel, as newer RabbitMQ, not 503 on the connection')),
    row('exchange.declare: empty type', exchange(X, '').differs(
        [['channel.close', {'reply_code': 406, 'reply_text': "PRECONDITION_FAILED - unknown exchange type ''",
                            'class_id': 40, 'method_id': 10}]],
        'queues.md 1.3: 406 on the channel, as newer RabbitMQ, not 503 on the connection')),
    row('exchange.declare: reserved prefix', exchange('amq.{u}').err(403)),
    row('exchange.declare: reserved prefix, passive', exchange('amq.{u}', passive=True).err(404)),
    row('exchange.declare: a predeclared one again', exchange('amq.direct', 'direct', durable=True),
        exchange('amq.fanout', 'fanout', durable=True), exchange('amq.topic', 'topic', durable=True),
        exchange('amq.headers', 'headers', durable=True), exchange('amq.match', 'headers', durable=True)),
    row('exchange.declare: the trace exchange is internal',
        exchange('amq.rabbitmq.trace', 'topic', durable=True, internal=True)),
    row('exchange.declare: a predeclared one with another type', exchange('amq.direct', 'fanout', durable=True).err(406)),
    row('exchange.declare: predeclared are durable', exchange('amq.topic', 'topic').err(406)),
    row('exchange.declare: nowait', exchange(X, nowait=True), exchange(X, passive=True)),
    row('exchange.declare: CR and LF are stripped', exchange('{u}\nx\r2'), exchange('{u}x2', passive=True)),
    row('exchange.delete: works', exchange(X), delete(X), exchange(X, passive=True).err(404)),
    row('exchange.delete: missing is fine', delete(X)),
    row('exchange.delete: missing with if-unused is fine', delete(X, if_unused=True)),
    row('exchange.delete: default', delete('').err(403)),
    row('exchange.delete: predeclared', delete('amq.direct').err(403)),
    row('exchange.delete: missing with reserved prefix', delete('amq.{u}').err(403)),
    row('exchange.delete: if-unused, in use', exchange(X), queue(Q), bind(Q, X), delete(X, if_unused=True).err(406)),
    row('exchange.delete: if-unused, only a destination', exchange(X), exchange(X + '2'), e2e(X, X + '2'),
        delete(X, if_unused=True)),
    row('exchange.delete: removes bindings', exchange(X), queue(Q), bind(Q, X, 'k'), delete(X), exchange(X),
        call('confirm.select'), publish(X, 'k', mandatory=True), take('basic.return'), confirms(1)),
    row('exchange.delete: nowait', exchange(X), call('exchange.delete', exchange=X, nowait=True),
        exchange(X, passive=True).err(404)),
    row('exchange: auto-delete goes with its last binding', exchange(X, auto_delete=True), queue(Q), bind(Q, X, 'a'),
        bind(Q, X, 'b'), unbind(Q, X, 'a'), exchange(X, passive=True), unbind(Q, X, 'b'), exchange_gone(X)),
    row('exchange: auto-delete goes when the bound queue goes', exchange(X, auto_delete=True), queue(Q), bind(Q, X),
        call('queue.delete', queue=Q), exchange_gone(X)),
    row('exchange: auto-delete without bindings stays', exchange(X, auto_delete=True), exchange(X, passive=True)),
    row('exchange: auto-delete as a destination only stays', exchange(X, auto_delete=True), exchange(X + '2'),
        e2e(X, X + '2'), e2e(X, X + '2', what='unbind'), exchange(X, passive=True)),
    row('exchange: auto-delete source of an exchange', exchange(X, auto_delete=True), exchange(X + '2'),
        e2e(X + '2', X), delete(X + '2'), exchange_gone(X)),
    row('exchange: auto-delete goes in a chain', exchange(X + '1', auto_delete=True), exchange(X + '2', auto_delete=True),
        queue(Q), e2e(X + '2', X + '1'), bind(Q, X + '2'), unbind(Q, X + '2'), exchange_gone(X + '2'),
        exchange_gone(X + '1')),

    row('exchange: internal refuses publishing', exchange(X, internal=True), publish(X, 'k', error=(403, None))),
    row('exchange: internal gets messages from an exchange', exchange(X, 'fanout', internal=True), exchange(X + '2', 'fanout'),
        e2e(X, X + '2'), queue(Q), bind(Q, X), publish(X + '2', 'k'), drain(Q, 1)),
    row('exchange: publishing to a missing one', publish(X, 'k', error=(404, None))),
    row('exchange: publishing to a missing one, several in flight', publish(X, 'k'), publish(X, 'k'), publish(X, 'k'),
        call('queue.declare', queue=Q).err(404)),
    row('exchange: publishing to a missing one in confirm mode', call('confirm.select'), publish(X, 'k', error=(404, None))),

    routes('keys are compared exactly', 'direct', [k('a'), k('a', 'b'), k(''), k('A')], k('a', 'b', '', 'A', 'c')),
    routes('key is ignored', 'fanout', [k('a'), k('b', 'c')], k('x', '')),
    routes('words, star and hash', 'topic',
           [k('a.b.c'), k('a.*.c'), k('a.#'), k('#'), k('*'), k('*.*'), k('#.c'), k('a.#.c'), k('*.#'), k('#.*'),
            k('a.*.#'), k('#.#')],
           k('a.b.c', 'a.c', 'a', 'b', '', 'a..c', 'a.b.b.c', '.', 'c', 'a.', '.a', 'x.y.z')),
    routes('empty keys and odd words', 'topic', [k(''), k('.'), k('*.'), k('a*'), k('#a'), k('*.*.*'), k('a.**')],
           k('', '.', 'a.', 'a*', 'ab', '#a', 'xa', '..', 'a.**', 'a.b')),
    routes('several bindings give one copy', 'topic', [k('a.#', '#.b', 'a.b', '*.*')], k('a.b', 'a', 'b.b')),
    routes('match all', 'headers',
           [h({'a': 1, 'b': 'x'}), h({'x-match': 'all', 'a': 1}), h({}), h({'x-match': 'all'}), h({'a': None}),
            h({'x-match': 'all', 'x-other': 1, 'a': 1})],
           h({'a': 1, 'b': 'x'}, {'a': 1}, {'a': '1'}, {}, {'b': 'x'}, {'a': V('l', 1)}, {'a': 1.0}, {'a': None},
             {'a': 1, 'b': 'x', 'c': 3})),
    routes('match any', 'headers',
           [h({'x-match': 'any', 'a': 1, 'b': 'x'}), h({'x-match': 'any'}), h({'x-match': 'any', 'a': None}),
            h({'x-match': 'any', 'x-a': 1})],
           h({'a': 1}, {'b': 'x'}, {}, {'a': 2}, {'c': 1}, {'a': 2, 'b': 'x'}, {'x-a': 1})),
    routes('match with x', 'headers',
           [h({'x-match': 'all-with-x', 'x-a': 1, 'b': 2}), h({'x-match': 'any-with-x', 'x-a': 1, 'b': 2}),
            h({'x-match': 'any-with-x', 'x-a': None})],
           h({'x-a': 1, 'b': 2}, {'x-a': 1}, {'b': 2}, {'x-a': 2}, {'x-match': 'any-with-x'}, {})),
    routes('types of values', 'headers',
           [h({'a': True}), h({'a': [1, 2]}), h({'a': {'k': 'v'}}), h({'a': 1.5}), h({'a': V('T', 5)}),
            h({'a': V('b', 5)})],
           h({'a': True}, {'a': False}, {'a': [1, 2]}, {'a': [1]}, {'a': {'k': 'v'}}, {'a': 1.5}, {'a': V('f', 1.5)},
             {'a': V('T', 5)}, {'a': 5}, {'a': V('s', 5)})),
    row('headers: bad x-match', exchange(X, 'headers'), queue(Q), bind(Q, X, args={'x-match': 'some'}).err(406)),
    row('headers: x-match not a string', exchange(X, 'headers'), queue(Q), bind(Q, X, args={'x-match': 5}).err(406)),
    row('headers: message without headers', exchange(X, 'headers'), queue(Q), bind(Q, X), publish(X, ''), drain(Q, 1)),
    row('headers: bind with a key', exchange(X, 'headers'), queue(Q), bind(Q, X, 'k', args={'a': 1}),
        publish(X, 'other', headers={'a': 1}), drain(Q, 1)),

    row('exchange.bind: chain', exchange(X + '1', 'fanout'), exchange(X + '2', 'direct'), queue(Q),
        e2e(X + '2', X + '1'), bind(Q, X + '2', 'k'), publish(X + '1', 'k'), publish(X + '1', 'no'), drain(Q, 1)),
    row('exchange.bind: keys', exchange(X + '1', 'topic'), exchange(X + '2', 'fanout'), queue(Q),
        e2e(X + '2', X + '1', 'a.#'), bind(Q, X + '2'), publish(X + '1', 'a.b'), publish(X + '1', 'b'), drain(Q, 1)),
    row('exchange.bind: cycle', exchange(X + '1', 'fanout'), exchange(X + '2', 'fanout'), queue(Q),
        e2e(X + '2', X + '1'), e2e(X + '1', X + '2'), bind(Q, X + '1'), bind(Q, X + '2'), publish(X + '1', 'k'),
        drain(Q, 1)),
    row('exchange.bind: to itself', exchange(X, 'fanout'), e2e(X, X), queue(Q), bind(Q, X), publish(X, 'k'), drain(Q, 1)),
    row('exchange.bind: diamond gives one copy', exchange(X + '1', 'fanout'), exchange(X + '2', 'fanout'),
        exchange(X + '3', 'fanout'), queue(Q), e2e(X + '2', X + '1'), e2e(X + '3', X + '1'), bind(Q, X + '2'),
        bind(Q, X + '3'), publish(X + '1', ''), drain(Q, 1)),
    row('exchange.bind: missing source', exchange(X), e2e(X, X + '2').err(404)),
    row('exchange.bind: missing destination', exchange(X), e2e(X + '2', X).err(404)),
    row('exchange.bind: both missing', e2e(X + '2', X).err(404)),
    row('exchange.bind: default as source', exchange(X), e2e(X, '').err(403)),
    row('exchange.bind: default as destination', exchange(X), e2e('', X).err(403)),
    row('exchange.bind: nowait', exchange(X + '1', 'fanout'), exchange(X + '2', 'fanout'), queue(Q),
        call('exchange.bind', destination=X + '2', source=X + '1', nowait=True), bind(Q, X + '2'), publish(X + '1', ''),
        drain(Q, 1)),
    row('exchange.unbind: works', exchange(X + '1', 'fanout'), exchange(X + '2', 'fanout'), queue(Q),
        e2e(X + '2', X + '1', 'k'), e2e(X + '2', X + '1', 'k', 'unbind'), bind(Q, X + '2'), publish(X + '1', 'k'), get(Q)),
    row('exchange.unbind: missing binding is fine', exchange(X + '1'), exchange(X + '2'),
        e2e(X + '2', X + '1', 'k', 'unbind')),
    row('exchange.unbind: missing exchanges', e2e(X + '2', X + '1', 'k', 'unbind')),
    row('exchange.unbind: default', exchange(X), e2e(X, '', 'k', 'unbind').err(403)),
    row('exchange.unbind: nowait', exchange(X + '1'), exchange(X + '2'),
        call('exchange.unbind', destination=X + '2', source=X + '1', nowait=True), exchange(X + '1', passive=True)),

    row('alternate: unroutable goes there', exchange(X + '2', 'fanout'), exchange(X, args={'alternate-exchange': X + '2'}),
        queue(Q), queue(Q + '2'), bind(Q, X, 'k'), bind(Q + '2', X + '2'), publish(X, 'k', '1'), publish(X, 'no', '2'),
        drain(Q, 1), drain(Q + '2', 1)),
    row('alternate: counts as routed for mandatory', exchange(X + '2', 'fanout'),
        exchange(X, args={'alternate-exchange': X + '2'}), queue(Q), bind(Q, X + '2'), call('confirm.select'),
        publish(X, 'no', mandatory=True), confirms(1), drain(Q, 1)),
    row('alternate: unroutable there too is returned', exchange(X + '2', 'direct'),
        exchange(X, args={'alternate-exchange': X + '2'}), call('confirm.select'), publish(X, 'no', mandatory=True),
        take('basic.return'), confirms(1)),
    row('alternate: missing is ignored', exchange(X, args={'alternate-exchange': X + '2'}), call('confirm.select'),
        publish(X, 'no'), confirms(1)),
    row('alternate: chain and cycle', exchange(X + '1', args={'alternate-exchange': X + '2'}),
        exchange(X + '2', args={'alternate-exchange': X + '3'}), exchange(X + '3', args={'alternate-exchange': X + '1'}),
        queue(Q), bind(Q, X + '3', 'k'), call('confirm.select'), publish(X + '1', 'k', '1'), publish(X + '1', 'no', '2'),
        confirms(2), drain(Q, 1)),
    row('alternate: the default exchange is none', queue(Q), exchange(X, args={'alternate-exchange': ''}), publish(X, Q),
        get(Q).want(lambda s: s[0][0] == 'basic.get-empty')),
    row('alternate: of an exchange reached by binding', exchange(X + '1', 'fanout'),
        exchange(X + '2', args={'alternate-exchange': X + '3'}), exchange(X + '3', 'fanout'), e2e(X + '2', X + '1'),
        queue(Q), bind(Q, X + '3'), publish(X + '1', 'nowhere'), drain(Q, 1)),

    row('x-consistent-hash: one binding takes all', exchange(X, 'x-consistent-hash'), queue(Q), bind(Q, X, '1'),
        call('confirm.select'), *[publish(X, 'key%d' % i, str(i)) for i in range(5)], confirms(5), everything(Q)),
    row('x-consistent-hash: weight not a number', exchange(X, 'x-consistent-hash'), queue(Q), bind(Q, X, 'heavy').err(406).may(closing(
        'channel', 406, 'PRECONDITION_FAILED - The binding key must be an integer: heavy', 'queue.bind'), why='without the marks of an Erlang binary')),
    row('x-consistent-hash: weight zero', exchange(X, 'x-consistent-hash'), queue(Q), bind(Q, X, '0').err(406)),
    row('x-consistent-hash: weight negative', exchange(X, 'x-consistent-hash'), queue(Q), bind(Q, X, '-1').err(406)),
    row('x-consistent-hash: empty weight', exchange(X, 'x-consistent-hash'), queue(Q), bind(Q, X, '').err(406).may(closing(
        'channel', 406, 'PRECONDITION_FAILED - The binding key must be an integer: ', 'queue.bind'), why='without the marks of an Erlang binary')),
    row('x-consistent-hash: both hash-header and hash-property',
        exchange(X, 'x-consistent-hash', args={'hash-header': 'h', 'hash-property': 'message_id'}).err(406)),
    row('x-consistent-hash: unknown property', exchange(X, 'x-consistent-hash', args={'hash-property': 'colour'}).err(406)),
    row('x-consistent-hash: no binding is unroutable', exchange(X, 'x-consistent-hash'), call('confirm.select'),
        publish(X, 'k', mandatory=True), take('basic.return'), confirms(1)),
]


def _spread(name, args, message):
    """Every key always goes to exactly one queue, the same again; each queue gets a share near its weight."""
    def play(p):
        w = p.channel('a', 1)
        w.call(1, 'confirm.select')
        for n in range(1200):
            key, properties = message(n % 600)
            w.publish(1, p.fill(X), key, str(n % 600), **properties)
        done = 0
        while done < 1200:
            done = w.take(1, ('basic.ack',), 5).delivery_tag
        p.barrier([p.fill(Q + str(i)) for i in range(3)])
        box = w.inbox.get(1, [])
        while box:
            box.popleft()
        places = {}
        for i in range(3):
            while True:
                answer = w.call(1, 'basic.get', queue=p.fill(Q + str(i)), no_ack=True)
                if answer.name != 'basic.get-ok':
                    break
                places.setdefault(answer.body, []).append(i)
        total = [sum(v[0] == i for v in places.values()) for i in range(3)]
        return [{'keys': len(places), 'twice the same place': all(len(v) == 2 and v[0] == v[1] for v in places.values()),
                 'every queue has some': all(total), 'weight 2 has more': total[2] > max(total[:2])}]
    return row('x-consistent-hash: ' + name, exchange(X, 'x-consistent-hash', args=args), queue(Q + '0'), queue(Q + '1'),
               queue(Q + '2'), bind(Q + '0', X, '1'), bind(Q + '1', X, '1'), bind(Q + '2', X, '6'),
               function('1200 messages', play).want(lambda s: all(s[0].values())))


ROWS += [
    _spread('spreads by key', {}, lambda n: ('key%d' % n, {})),
    _spread('spreads by header', {'hash-header': 'h'}, lambda n: ('same', {'headers': {'h': 'v%d' % n}})),
    _spread('spreads by message-id', {'hash-property': 'message_id'}, lambda n: ('same', {'message_id': 'v%d' % n})),
    _spread('spreads by correlation-id', {'hash-property': 'correlation_id'},
            lambda n: ('same', {'correlation_id': 'v%d' % n})),
    row('x-random: every message to one of the queues', exchange(X, 'x-random'), queue(Q + '0'), queue(Q + '1'),
        bind(Q + '0', X, 'whatever'), bind(Q + '1', X, ''), call('confirm.select'),
        *[publish(X, 'k', str(n)) for n in range(60)], confirms(60),
        function('60 messages spread', lambda p: _random(p)).want(
            lambda s: s == [{'total': 60, 'both': True}])),
]


def _random(p):
    w, counts = p.channel('a', 3), []
    for i in (0, 1):
        counts.append(w.call(3, 'queue.purge', queue=p.fill(Q + str(i))).message_count)
    return [{'total': sum(counts), 'both': all(counts)}]
