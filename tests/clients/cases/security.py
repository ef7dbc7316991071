"""Permissions, vhosts, user-id, imported users; direct reply-to; CC and BCC; policies."""

from cases import row
from cases.exchanges import everything
from cases.handshake import login, tune
from cases.lifetimes import some
from script import (V, ack, bind, call, close, closed, closing, confirms, connect, consume, count, deliver, drain, exchange, function, get,
                    open_, publish, queue, quiet, reject, send, sync, take, unbind)

U = '{u}'
Q, X = '{u}q', '{u}x'
TOPICAL = dict(user='mr-imported', password='imported-secret')
NEW = dict(user='mr-perm', password='perm-secret')


def perm(what, *steps):
    """Connection a is guest (may do all), b is mr-perm: the letters after ~ in a name say what it may do."""
    return row('permission: ' + what, open_('b', **NEW), *steps)


RPC = 'amq.rabbitmq.reply-to'

ROWS = [
    perm('queue.declare needs configure', queue('{u}~wr', conn='b').denied('configure'), queue('{u}~c', conn='b')),
    perm('queue.declare of what exists needs configure', queue('{u}~wr'), queue('{u}~wr', conn='b').denied('configure')),
    perm('queue.declare passive needs nothing', queue('{u}q'), queue('{u}q', conn='b', passive=True)),
    perm('queue.declare passive of a missing one', queue('{u}q', conn='b', passive=True).err(404)),
    perm('queue.declare server-named needs configure', queue('', conn='b').denied('configure')),
    perm('queue.declare with dead letters needs read and write', queue('{u}~c', conn='b', args={'x-dead-letter-exchange': '{u}~w'}).denied('read')),
    perm('queue.declare with dead letters needs write of the exchange',
         queue('{u}~cr', conn='b', args={'x-dead-letter-exchange': '{u}~r'}).denied('write')),
    perm('queue.declare with dead letters, all given', queue('{u}~cr', conn='b', args={'x-dead-letter-exchange': '{u}~w'})),
    perm('queue.declare reserved name and no permission', queue('amq.{u}', conn='b').err(403)),
    perm('queue.delete needs configure', queue('{u}~wr'), call('queue.delete', conn='b', queue='{u}~wr').denied('configure')),
    perm('queue.delete of a missing one needs configure', call('queue.delete', conn='b', queue='{u}~wr').denied('configure')),
    perm('queue.purge needs read', queue('{u}~cw'), call('queue.purge', conn='b', queue='{u}~cw').denied('read'), queue('{u}~r'),
         call('queue.purge', conn='b', queue='{u}~r')),
    perm('queue.bind needs write on the queue', queue('{u}q~cr'), exchange('{u}x~r'), bind('{u}q~cr', '{u}x~r', conn='b').denied('write')),
    perm('queue.bind needs read on the exchange', queue('{u}q~w'), exchange('{u}x~cw'), bind('{u}q~w', '{u}x~cw', conn='b').denied('read')),
    perm('queue.bind of missing things without permission', bind('{u}q', '{u}x', conn='b').denied('write')),
    perm('queue.bind, all given', queue('{u}q~w'), exchange('{u}x~r'), bind('{u}q~w', '{u}x~r', conn='b')),
    perm('queue.unbind needs both', queue('{u}q~w'), exchange('{u}x~cw'), unbind('{u}q~w', '{u}x~cw', conn='b').denied('read')),
    perm('exchange.declare needs configure', exchange('{u}~wr', conn='b').denied('configure'), exchange('{u}~c', conn='b')),
    perm('exchange.declare passive needs nothing', exchange('{u}x'), exchange('{u}x', conn='b', passive=True)),
    perm('exchange.declare with an alternate needs read and write',
         exchange('{u}~c', conn='b', args={'alternate-exchange': '{u}~w'}).denied('read')),
    perm('exchange.declare with an alternate needs write of it',
         exchange('{u}~cr', conn='b', args={'alternate-exchange': '{u}~r'}).denied('write')),
    perm('exchange.delete needs configure', exchange('{u}~wr'), call('exchange.delete', conn='b', exchange='{u}~wr').denied('configure')),
    perm('exchange.bind needs write on the destination', exchange('{u}d~cr'), exchange('{u}s~r'),
         call('exchange.bind', conn='b', destination='{u}d~cr', source='{u}s~r').denied('write')),
    perm('exchange.bind needs read on the source', exchange('{u}d~w'), exchange('{u}s~cw'),
         call('exchange.bind', conn='b', destination='{u}d~w', source='{u}s~cw').denied('read')),
    perm('exchange.unbind needs both', exchange('{u}d~cr'), exchange('{u}s~r'),
         call('exchange.unbind', conn='b', destination='{u}d~cr', source='{u}s~r').denied('write')),
    perm('basic.publish needs write on the exchange', exchange('{u}~cr'), publish('{u}~cr', 'k', conn='b', error='write')),
    perm('basic.publish to the default exchange', queue(Q), publish('', Q, conn='b', error='write')),
    perm('basic.publish to a missing exchange without permission', publish('{u}x', 'k', conn='b', error='write')),
    perm('basic.publish, given', exchange('{u}~w', 'fanout'), queue(Q), bind(Q, '{u}~w'), publish('{u}~w', 'k', conn='b'), drain(Q, 1)),
    perm('basic.consume needs read', queue('{u}~cw'), consume('{u}~cw', conn='b').denied('read'), queue('{u}~r'), consume('{u}~r', conn='b')),
    perm('basic.consume of a missing queue without permission', consume('{u}q', conn='b').denied('read')),
    perm('basic.get needs read', queue('{u}~cw'), get('{u}~cw', conn='b').denied('read'), queue('{u}~r'), get('{u}~r', conn='b')),
    perm('an exclusive queue of another, without permission', queue(Q, exclusive=True), get(Q, conn='b').denied('read')),
    row('permission: empty patterns deny all', open_('b', user='mr-some', password='some-secret'), queue(Q, conn='b').denied('configure')),
    row('permission: empty patterns deny the amq.gen name', open_('b', user='mr-some', password='some-secret'), queue('', conn='b').denied('configure')),
    row('permission: no permission in the vhost', connect(), login(response='\0mr-none\0none-secret'), tune().err(530)),
    row('vhost: queues are apart', open_('b', vhost='mr-other'), queue(Q), queue(Q, conn='b', passive=True).err(404), queue(Q, conn='b', durable=True),
        publish('', Q, conn='b'), get(Q), get(Q, conn='b'), vhosts=('/', 'mr-other')),
    row('vhost: exchanges are apart and predeclared', open_('b', vhost='mr-other'), exchange(X), exchange(X, conn='b', passive=True).err(404),
        exchange('amq.topic', conn='b', passive=True), exchange('amq.rabbitmq.trace', conn='b', passive=True), vhosts=('/', 'mr-other')),
    row('vhost: error texts name it', open_('b', vhost='mr-other'), get(Q, conn='b').err(404)),
    row('user: imported with RabbitMQ\'s password hash', connect(), login(response='\0mr-imported\0imported-secret'), tune()),
    row('user: imported, wrong password', connect(), login(response='\0mr-imported\0wrong').err(403)),

    # the exchange has a fixed name because topic permissions name it; it is left behind, and declared the same every time
    row('topic permission: publish', exchange('mr-topic', 'topic'), open_('b', **TOPICAL), publish('mr-topic', 'ok.1', conn='b'),
        publish('mr-topic', 'no.1', conn='b', error='write')),
    row('topic permission: bind', exchange('mr-topic', 'topic'), open_('b', **TOPICAL), queue(Q), bind(Q, 'mr-topic', 'ok.#', conn='b'),
        bind(Q, 'mr-topic', 'no.#', conn='b').denied('read')),
    row('topic permission: other exchanges are free', exchange(X, 'topic'), open_('b', **TOPICAL), queue(Q), bind(Q, X, 'no.#', conn='b'),
        publish(X, 'no.1', conn='b'), drain(Q, 1)),
    row('topic permission: only topic exchanges are checked', exchange(X, 'direct'), open_('b', **TOPICAL), queue(Q), bind(Q, X, 'no', conn='b'),
        publish(X, 'no', conn='b'), drain(Q, 1)),

    row('user-id: own name', queue(Q), publish('', Q, user_id='guest'), get(Q)),
    row('user-id: another name', queue(Q), publish('', Q, user_id='other', error=(406, None))),
    row('user-id: empty', queue(Q), publish('', Q, user_id='', error=(406, None))),

    row('cc: more queues', queue(Q), queue(Q + '2'), queue(Q + '3'), publish('', Q, 'm', headers={'CC': [Q + '2', Q + '3']}), drain(Q, 1), drain(Q + '2', 1),
        drain(Q + '3', 1)),
    row('bcc: is stripped', queue(Q), queue(Q + '2'), publish('', Q, 'm', headers={'BCC': [Q + '2'], 'other': 1}), drain(Q, 1), drain(Q + '2', 1)),
    row('bcc: the only header', queue(Q), queue(Q + '2'), publish('', Q, 'm', headers={'BCC': [Q + '2']}), drain(Q, 1)),
    row('cc: the same queue once', queue(Q), publish('', Q, 'm', headers={'CC': [Q, Q], 'BCC': [Q]}), drain(Q, 1)),
    row('cc: not an array', queue(Q), publish('', Q, headers={'CC': Q}, error=(406, None))),
    row('bcc: not an array', queue(Q), publish('', Q, headers={'BCC': 5}, error=(406, None))),
    row('cc: what is not a string is passed over', queue(Q), publish('', Q, headers={'CC': [1, Q], 'BCC': [None]}), get(Q)),
    row('cc: routable by CC only, mandatory', queue(Q), call('confirm.select'), publish('', '{u}none', mandatory=True, headers={'CC': [Q]}), confirms(1), drain(Q, 1)),
    row('cc: through a topic exchange', exchange(X, 'topic'), queue(Q), queue(Q + '2'), bind(Q, X, 'a.*'), bind(Q + '2', X, 'b.*'),
        publish(X, 'a.x', headers={'CC': ['b.y']}), drain(Q, 1), drain(Q + '2', 1)),
    row('cc: in a returned message', publish('', '{u}none', mandatory=True, headers={'CC': ['{u}none2'], 'BCC': ['{u}none3']}), take('basic.return')),

    # -- direct reply-to
    row('reply-to: request and reply', consume(RPC, no_ack=True), queue(Q), publish('', Q, 'ask', reply_to=RPC, correlation_id='1'), get(Q, conn='b'),
        publish('', '{reply1}', 'answer', conn='b', correlation_id='1'), deliver()),
    row('reply-to: consume-ok with a tag', consume(RPC, 'mine', no_ack=True)),
    row('reply-to: needs no-ack', consume(RPC, no_ack=False).err(406)),
    row('reply-to: second consumer on the channel', consume(RPC, no_ack=True), consume(RPC, 'two', no_ack=True).err(406)),
    row('reply-to: publish without the consumer', publish('', Q, reply_to=RPC, error=(406, None))),
    row('reply-to: consumer on another channel does not count', consume(RPC, no_ack=True), publish('', Q, ch=2, reply_to=RPC, error=(406, None))),
    row('reply-to: passive declare of the plain name', queue(RPC, passive=True)),
    row('reply-to: declare of the plain name', queue(RPC)),
    row('reply-to: passive declare of a live address', consume(RPC, no_ack=True), queue(Q), publish('', Q, reply_to=RPC), get(Q, conn='b'),
        queue('{reply1}', conn='b', passive=True)),
    row('reply-to: passive declare of a dead address', consume(RPC, no_ack=True), queue(Q), publish('', Q, reply_to=RPC), get(Q, conn='b'), close(),
        sync(), queue('{reply1}', conn='b', passive=True).err(404)),
    row('reply-to: passive declare of nonsense', queue(RPC + '.nonsense', passive=True)),
    row('reply-to: answering a dead address is silent', consume(RPC, no_ack=True), queue(Q), publish('', Q, reply_to=RPC), get(Q, conn='b'), close(),
        call('confirm.select', conn='b'), publish('', '{reply1}', 'late', conn='b'), confirms(1, 'b'), quiet('b')),
    row('reply-to: answer with mandatory', consume(RPC, no_ack=True), queue(Q), publish('', Q, reply_to=RPC), get(Q, conn='b'),
        call('confirm.select', conn='b'), publish('', '{reply1}', 'answer', conn='b', mandatory=True), confirms(1, 'b'), deliver(),
        quiet('b').differs([], 'queues.md 1.6: an answer to a live address counts as routed')),
    row('reply-to: several replies', consume(RPC, no_ack=True), queue(Q), publish('', Q, '1', reply_to=RPC), publish('', Q, '2', reply_to=RPC), get(Q, conn='b'),
        get(Q, conn='b'), publish('', '{reply1}', 'a', conn='b'), publish('', '{reply1}', 'b', conn='b'),
        deliver(2).ignore('delivery_tag', why='RabbitMQ gives every reply the tag 1, which nobody can use')),
    row('reply-to: cancel and consume again', consume(RPC, 'c', no_ack=True), call('basic.cancel', consumer_tag='c'), consume(RPC, 'd', no_ack=True)),
    row('reply-to: exclusive flag', consume(RPC, 'c', no_ack=True, exclusive=True)),
    row('reply-to: delete of the plain name', call('queue.delete', queue=RPC)),
    row('reply-to: purge of the plain name', call('queue.purge', queue=RPC)),
    row('reply-to: get of the plain name', get(RPC)),
    row('reply-to: bind of the plain name', bind(RPC, 'amq.direct', 'k')),
    row('reply-to: another value is left alone', queue(Q), publish('', Q, reply_to='somewhere.else'), get(Q)),
    row('reply-to: reply through basic.publish in a transaction', consume(RPC, no_ack=True), queue(Q), publish('', Q, reply_to=RPC), get(Q, conn='b'),
        call('tx.select', conn='b'), publish('', '{reply1}', 'answer', conn='b'), call('tx.commit', conn='b'), deliver()),

    # -- policies (imported)
    row('policy: message-ttl', queue('{u}pol-ttl'), some('1', q='{u}pol-ttl'), count('{u}pol-ttl', 0)),
    row('policy: argument and policy, the smaller wins', queue('{u}pol-ttl', args={'x-message-ttl': 60000}), some('1', q='{u}pol-ttl'), count('{u}pol-ttl', 0)),
    row('policy: highest priority only', queue('{u}pol-len'), some('1', '2', '3', q='{u}pol-len'), everything('{u}pol-len')),
    row('policy: max-length with a smaller argument', queue('{u}pol-len', args={'x-max-length': 1}), some('1', '2', '3', q='{u}pol-len'), everything('{u}pol-len')),
    row('policy: policy keys are no arguments', queue('{u}pol-len'), queue('{u}pol-len')),
    row('policy: operator policy below the argument', queue('{u}op-len', args={'x-max-length': 5}), some('1', '2', '3', q='{u}op-len'), everything('{u}op-len')),
    row('policy: operator policy above the argument', queue('{u}op-len', args={'x-max-length': 1}), some('1', '2', '3', q='{u}op-len'), everything('{u}op-len')),
    row('policy: operator policy alone', queue('{u}op-len'), some('1', '2', '3', q='{u}op-len'), everything('{u}op-len')),
    row('policy: alternate-exchange', exchange('{u}pol-ae', 'direct'), queue(Q), bind(Q, 'amq.fanout'), publish('{u}pol-ae', '{u}k', '{u}'),
        function('own message on amq.fanout', lambda p: _own(p)).want(lambda s: s == [True])),
    row('policy: dead-letter-exchange with key', queue('mr-pol-dead'), queue('{u}pol-dlx'), some('{u}dead', q='{u}pol-dlx'), get('{u}pol-dlx', no_ack=False),
        reject(1, requeue=False), function('dead letter', lambda p: _own(p, 'mr-pol-dead')).want(lambda s: s == [True])),
]


def _own(p, q=None):
    """Others may use the same exchange at the same time: only this row's message counts."""
    import time
    w, q = p.channel('a', 5), p.fill(q or Q)
    until = time.monotonic() + 6
    while time.monotonic() < until:
        answer = w.call(5, 'basic.get', queue=q, no_ack=True)
        if answer.name == 'basic.get-ok' and p.unique in answer.body.decode():
            return [True]
    return [False]
