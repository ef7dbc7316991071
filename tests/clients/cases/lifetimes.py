"""Time and room: TTL, expiry, lengths, overflow, priorities, dead letters, delivery limits."""

import time

from cases import row
from cases.exchanges import everything
from script import (V, ack, bind, call, cancel, close, closed, closing, confirms, consume, count, deliver, drain, exchange, function, get,
                    gone, nack, publish, qos, queue, quiet, reject, send, sync, take)

Q, X, D = '{u}q', '{u}x', '{u}dead'
confirm = call('confirm.select')


def dead(**args):
    """A queue whose dead letters go to D through the default exchange."""
    return [queue(D), queue(Q, args=dict({'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': D}, **{
        k.replace('_', '-'): v for k, v in args.items()}))]


def some(*bodies, q=Q, **properties):
    return [publish('', q, b, **properties) for b in bodies]


def idle(seconds):
    """The thing under test is that nothing happens for this long."""
    def play(p):
        time.sleep(seconds)
        return []
    return function('idle %g s' % seconds, play)


def expired_after(q, milliseconds):
    """The dead letter comes when it is due: not earlier, and not seconds later (the machine may be busy: one of three)."""
    def play(p):
        w, late = p.channel('a', 7), []
        for n in range(3):
            began = time.monotonic()
            if n:
                w.publish(7, '', p.fill(Q), '1', expiration=str(milliseconds))
            while time.monotonic() - began < 8:
                answer = w.call(7, 'basic.get', queue=p.fill(q), no_ack=True)
                if answer.name == 'basic.get-ok':
                    break
                time.sleep(0.002)       # a poll interval
            late.append((time.monotonic() - began) * 1000 - milliseconds)
        return [{'not early': min(late) > -60, 'in time': min(late) < 1500}]
    return function('comes after %d ms' % milliseconds, play, ['basic.get']).want(lambda s: s == [{'not early': True, 'in time': True}])


def died_at(label, q):
    """The time and count of the newest death; the message is given back rejected, so that it dies again."""
    def play(p):
        w = p.channel('a', 7)
        answer = w.call(7, 'basic.get', queue=p.fill(q), no_ack=False)
        w.send_method(7, 'basic.reject', delivery_tag=answer.delivery_tag, requeue=False)
        death = answer.properties['headers']['x-death'].value if isinstance(answer.properties['headers']['x-death'], V) else \
            answer.properties['headers']['x-death']
        death = death[0].value if isinstance(death[0], V) else death[0]
        when = death['time'].value if isinstance(death['time'], V) else death['time']
        first = p.stash.setdefault('died', when)
        return [{'time is of the first death': when == first, 'count': str(death['count'])}]
    return function(label, play)


ROWS = [
    # -- message TTL
    row('ttl: queue', queue(Q, args={'x-message-ttl': 80}), some('1', '2'), count(Q, 0)),
    row('ttl: zero, no consumer', queue(Q, args={'x-message-ttl': 0}), some('1'), count(Q, 0), get(Q)),
    row('ttl: zero, waiting consumer', queue(Q, args={'x-message-ttl': 0}), consume(Q, 'c', no_ack=True), some('1'), deliver()),
    row('ttl: message', queue(Q), publish('', Q, '1', expiration='60'), count(Q, 0)),
    row('ttl: message zero', queue(Q), publish('', Q, '1', expiration='0'), count(Q, 0)),
    row('ttl: message zero behind another is gone when a consumer comes', queue(Q), publish('', Q, '1'), publish('', Q, '2', expiration='0'), sync(Q),
        consume(Q, 'c'), deliver(), sync(Q), quiet(), count(Q, 0)),
    row('ttl: message zero, given back, is not given to another', queue(Q), consume(Q, 'c'), consume(Q, 'd', ch=2), publish('', Q, '1', expiration='0'), deliver(),
        nack(1), sync(Q), quiet(), quiet(ch=2), count(Q, 0)),
    row('ttl: zero, given back to the only consumer, dead-letters', dead(x_message_ttl=0), consume(Q, 'c'), some('1'), deliver(), call('basic.recover', requeue=True),
        sync(Q, D), quiet(), drain(D, 1)),
    row('ttl: message zero behind a full consumer', queue(Q), qos(1), consume(Q, 'c'), some('1'), deliver(), publish('', Q, '2', expiration='0'), sync(Q), ack(1),
        sync(Q), quiet(), count(Q, 0)),
    row('ttl: message zero, waiting consumer', queue(Q), consume(Q, 'c', no_ack=True), publish('', Q, '1', expiration='0'), deliver()),
    row('ttl: the smaller of queue and message', queue(Q, args={'x-message-ttl': 60000}), publish('', Q, '1', expiration='50'), count(Q, 0),
        queue(Q + '2', args={'x-message-ttl': 50}), publish('', Q + '2', '1', expiration='60000'), count(Q + '2', 0)),
    row('ttl: expiration is kept for the consumer', queue(Q), publish('', Q, '1', expiration='60000'), get(Q)),
    row('ttl: only from the head', queue(Q), publish('', Q, 'long', expiration='60000'), publish('', Q, 'short', expiration='1'), idle(0.1),
        queue(Q, passive=True), get(Q), count(Q, 0)),
    row('ttl: not after delivery', queue(Q, args={'x-message-ttl': 60}), some('1'), get(Q, no_ack=False), idle(0.15), ack(1), queue(Q, passive=True)),
    row('ttl: a requeued message keeps its time', queue(Q, args={'x-message-ttl': 100}), some('1'), get(Q, no_ack=False), idle(0.2), nack(1), count(Q, 0)),
    row('ttl: expiration not a number', queue(Q), publish('', Q, expiration='soon', error=(406, None))),
    row('ttl: expiration negative', queue(Q), publish('', Q, expiration='-1', error=(406, None))),
    row('ttl: expiration empty', queue(Q), publish('', Q, expiration='', error=(406, None))),
    row('ttl: expiration with blanks', queue(Q), publish('', Q, expiration=' 5', error=(406, None))),
    row('ttl: expiration fraction', queue(Q), publish('', Q, expiration='1.5', error=(406, None))),
    row('ttl: expiration very large', queue(Q), publish('', Q, expiration='99999999999999', error=(406, None))),
    row('ttl: expiration with a plus', queue(Q), publish('', Q, expiration='+60000'), count(Q, 1)),
    row('ttl: bad expiration, unroutable too', publish('', '{u}none', expiration='soon', error=(406, None))),
    row('ttl: bad expiration, exchange missing', publish('{u}none', 'k', expiration='soon', error=(404, None))),

    row('ttl: in time, queue', dead(x_message_ttl=300), some('1'), expired_after(D, 300)),
    row('ttl: in time, message', dead(), publish('', Q, '1', expiration='300'), expired_after(D, 300)),

    # -- queue expiry
    row('expires: unused', queue(Q, args={'x-expires': 100}), gone(Q, 0.4)),
    row('expires: durable', queue(Q, durable=True, args={'x-expires': 100}), gone(Q, 0.4)),
    row('expires: not with a consumer', queue(Q, args={'x-expires': 120}), consume(Q, 'c'), idle(0.3), queue(Q, ch=2, passive=True), cancel('c'), gone(Q, 0.4)),
    row('expires: get and redeclare renew', queue(Q, args={'x-expires': 250}), idle(0.15), get(Q), idle(0.15), queue(Q, args={'x-expires': 250}),
        idle(0.15), queue(Q, passive=True), gone(Q, 0.4)),
    row('expires: messages go silently', queue(Q, args={'x-expires': 80, 'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': D}), queue(D),
        some('1'), gone(Q, 0.4), get(D)),

    # -- lengths
    row('max-length: drops the head', queue(Q, args={'x-max-length': 2}), some('1', '2', '3'), everything(Q)),
    row('max-length: zero', queue(Q, args={'x-max-length': 0}), some('1'), get(Q)),
    row('max-length: zero with a waiting consumer', queue(Q, args={'x-max-length': 0}), consume(Q, 'c', no_ack=True), some('1'), deliver()),
    row('max-length: unacknowledged do not count', queue(Q, args={'x-max-length': 1}), some('1'), get(Q, no_ack=False), some('2'), count(Q, 1),
        nack(1), sync(Q), everything(Q)),
    row('max-length-bytes: drops the head', queue(Q, args={'x-max-length-bytes': 10}), some('aaaaa', 'bbbbb', 'ccc'), everything(Q)),
    row('max-length-bytes: one too large', queue(Q, args={'x-max-length-bytes': 4}), some('aaaaa'), get(Q)),
    row('max-length: both limits', queue(Q, args={'x-max-length-bytes': 6, 'x-max-length': 2}), some('a', 'b', 'c', 'dddddd'), everything(Q)),
    row('max-length: confirms of dropped messages', queue(Q, args={'x-max-length': 1}), confirm, some('1', '2', '3'), confirms(3), everything(Q)),
    row('reject-publish: refuses the new', queue(Q, args={'x-max-length': 2, 'x-overflow': 'reject-publish'}), confirm, some('1'), confirms(1), some('2'),
        confirms(1), some('3'), confirms(1), get(Q), some('4'), confirms(1), everything(Q)),
    row('reject-publish: without confirms', queue(Q, args={'x-max-length': 1, 'x-overflow': 'reject-publish'}), some('1', '2'), everything(Q)),
    row('reject-publish: what a consumer takes at once does not wait', queue(Q, durable=True, args={'x-max-length': 1, 'x-overflow': 'reject-publish'}), confirm,
        consume(Q, 'c', ch=2, no_ack=True), [publish('', Q, str(i), delivery_mode=2) for i in range(5)], confirms(5), deliver(5, ch=2)),
    row('reject-publish: counts as if nobody were ready', queue(Q, args={'x-max-length': 0, 'x-overflow': 'reject-publish'}), queue(D, args={
        'x-max-length-bytes': 3, 'x-overflow': 'reject-publish'}), confirm, consume(Q, 'c', ch=2, no_ack=True), consume(D, 'd', ch=2, no_ack=True), publish('', Q, 'a'),
        confirms(1), publish('', D, 'long'), confirms(1), publish('', D, 'abc'), confirms(1), deliver(ch=2)),
    row('reject-publish: what a consumer has no room for waits', queue(Q, durable=True, args={'x-max-length': 1, 'x-overflow': 'reject-publish'}), confirm,
        qos(2, ch=2), consume(Q, 'c', ch=2), [publish('', Q, str(i), delivery_mode=2) for i in range(5)], confirms(5), deliver(2, ch=2), everything(Q)),
    row('reject-publish: returned messages are kept above the limit', queue(Q, args={'x-max-length': 1, 'x-overflow': 'reject-publish'}), consume(Q, 'c', ch=2),
        some('1'), deliver(ch=2), some('2'), deliver(ch=2), call('channel.close', ch=2, reply_code=200), drain(Q, 2)),
    row('reject-publish-dlx: returned messages are kept above the limit', dead(x_max_length=1, x_overflow='reject-publish-dlx'), consume(Q, 'c', ch=2),
        some('1'), deliver(ch=2), some('2'), deliver(ch=2), nack(2, ch=2, multiple=True), deliver(2, ch=2), sync(Q, D), get(D)),
    row('max-length: returned messages count, the head is dropped', dead(x_max_length=1), consume(Q, 'c', ch=2), some('1'), deliver(ch=2), some('2'), deliver(ch=2),
        some('3'), deliver(ch=2), call('channel.close', ch=2, reply_code=200), drain(D, 2, order=lambda o: o[-1]), everything(Q)),
    row('max-length: zero, returned to a waiting consumer', queue(Q, args={'x-max-length': 0}), consume(Q, 'c'), some('1'), deliver(),
        call('basic.recover', requeue=True), sync(Q), quiet(), count(Q, 0)),
    row('reject-publish: bytes', queue(Q, args={'x-max-length-bytes': 4, 'x-overflow': 'reject-publish'}), confirm, some('aaa'), confirms(1), some('bbb'),
        confirms(1), some('ccc'), confirms(1), everything(Q)),
    row('reject-publish: does not dead-letter', queue(D), queue(Q, args={'x-max-length': 1, 'x-overflow': 'reject-publish', 'x-dead-letter-exchange': '',
                                                                     'x-dead-letter-routing-key': D}), confirm, some('1'), confirms(1), some('2'), confirms(1), get(D)),
    row('reject-publish-dlx: dead-letters the new', queue(D), queue(Q, args={'x-max-length': 1, 'x-overflow': 'reject-publish-dlx', 'x-dead-letter-exchange': '',
                                                                         'x-dead-letter-routing-key': D}), confirm, some('1'), confirms(1), some('2'),
        confirms(1), drain(D, 1), everything(Q)),
    row('reject-publish: refuses dead letters', queue(D, args={'x-max-length': 1, 'x-overflow': 'reject-publish'}),
        queue(Q, args={'x-max-length': 1, 'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': D}), some('1', '2', '3', '4'), count(D, 1),
        idle(0.2), everything(D), everything(Q)),
    row('reject-publish-dlx: hands dead letters on', queue('{u}last'),
        queue(D, args={'x-max-length': 1, 'x-overflow': 'reject-publish-dlx', 'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': '{u}last'}),
        queue(Q, args={'x-max-length': 1, 'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': D}), some('1', '2', '3'), count('{u}last', 1),
        idle(0.2), everything('{u}last'), everything(D), everything(Q)),
    row('reject-publish: mandatory is not returned', queue(Q, args={'x-max-length': 0, 'x-overflow': 'reject-publish'}), confirm,
        publish('', Q, mandatory=True), confirms(1), quiet()),
    row('reject-publish: in a transaction', queue(Q, args={'x-max-length': 1, 'x-overflow': 'reject-publish'}), call('tx.select'), some('1', '2'),
        call('tx.commit'), everything(Q)),

    # -- priorities
    row('priority: higher first', queue(Q, args={'x-max-priority': 5}), publish('', Q, 'low', priority=1), publish('', Q, 'none'), publish('', Q, 'high', priority=5),
        publish('', Q, 'mid', priority=3), publish('', Q, 'mid2', priority=3), everything(Q)),
    row('priority: above the maximum is clamped', queue(Q, args={'x-max-priority': 2}), publish('', Q, '2', priority=2), publish('', Q, '9', priority=9),
        publish('', Q, '1', priority=1), everything(Q)),
    row('priority: property comes back unclamped', queue(Q, args={'x-max-priority': 2}), publish('', Q, '9', priority=9), get(Q)),
    row('priority: queue without priorities', queue(Q), publish('', Q, '1', priority=1), publish('', Q, '9', priority=9), everything(Q)),
    row('priority: zero levels', queue(Q, args={'x-max-priority': 0}), publish('', Q, '1', priority=1), publish('', Q, '9', priority=9), everything(Q)),
    row('priority: requeue keeps the place', queue(Q, args={'x-max-priority': 5}), publish('', Q, 'a', priority=1), publish('', Q, 'b', priority=1), get(Q, no_ack=False),
        publish('', Q, 'c', priority=5), nack(1), sync(Q), everything(Q)),
    row('priority: consumer gets the higher next', queue(Q, args={'x-max-priority': 5}), qos(1), consume(Q, 'c'), publish('', Q, 'first'), deliver(),
        publish('', Q, 'low', priority=1), publish('', Q, 'high', priority=4), sync(Q), ack(1), deliver(), ack(2), deliver()),
    row('priority: max-length drops the head, which is the highest', queue(Q, args={'x-max-priority': 5, 'x-max-length': 2}), publish('', Q, 'high', priority=5), publish('', Q, 'low', priority=1),
        publish('', Q, 'mid', priority=3), everything(Q)),
    row('priority: expiry only at the head of all', queue(Q, args={'x-max-priority': 5}), publish('', Q, 'high', priority=5), publish('', Q, 'low', priority=1, expiration='20'),
        idle(0.1), queue(Q, passive=True).may(
            [['queue.declare-ok', {'queue': Q, 'message_count': 1, 'consumer_count': 0}]], why='in time instead of when it gets to the head'), everything(Q)),
    row('priority: 255 levels', queue(Q, args={'x-max-priority': 255}), [publish('', Q, str(i), priority=i) for i in (0, 255, 128, 7, 254)], everything(Q)),
    row('priority: purge counts all', queue(Q, args={'x-max-priority': 3}), publish('', Q, priority=1), publish('', Q, priority=3), call('queue.purge', queue=Q)),

    # -- dead letters
    row('dead letter: rejected', dead(), publish('', Q, 'm', headers={'mine': 1}, message_id='7', delivery_mode=2), get(Q, no_ack=False),
        reject(1, requeue=False), drain(D, 1)),
    row('dead letter: nacked', dead(), some('m'), get(Q, no_ack=False), nack(1, requeue=False), drain(D, 1)),
    row('dead letter: nacked, several at once', dead(), some('1', '2', '3'), get(Q, no_ack=False), get(Q, no_ack=False), get(Q, no_ack=False),
        nack(3, multiple=True, requeue=False), drain(D, 3)),
    row('dead letter: expired by the queue', dead(x_message_ttl=30), some('m'), drain(D, 1)),
    row('dead letter: expired by the message', dead(), publish('', Q, 'm', expiration='30'), drain(D, 1)),
    row('dead letter: too long', dead(x_max_length=1), some('1', '2'), drain(D, 1)),
    row('dead letter: too many bytes', dead(x_max_length_bytes=3), some('aaa', 'bbb'), drain(D, 1)),
    row('dead letter: too long while empty', dead(x_max_length=0), some('1'), drain(D, 1)),
    row('dead letter: keeps the routing key without one of its own', exchange(X, 'topic'), queue(D), bind(D, X, '#'), queue(Q, args={'x-dead-letter-exchange': X}),
        exchange(X + '2', 'fanout'), bind(Q, X + '2'), publish(X + '2', 'orig.key'), get(Q, no_ack=False), reject(1, requeue=False), drain(D, 1)),
    row('dead letter: exchange missing', queue(Q, args={'x-dead-letter-exchange': '{u}none'}), some('m'), get(Q, no_ack=False), reject(1, requeue=False), sync(Q), get(Q)),
    row('dead letter: exchange made later', queue(Q, args={'x-dead-letter-exchange': X}), exchange(X, 'fanout'), queue(D), bind(D, X), some('m'),
        get(Q, no_ack=False), reject(1, requeue=False), drain(D, 1)),
    row('dead letter: unroutable is dropped', exchange(X), queue(Q, args={'x-dead-letter-exchange': X}), some('m'), get(Q, no_ack=False), reject(1, requeue=False),
        sync(Q), get(Q)),
    row('dead letter: to several queues', exchange(X, 'fanout'), queue(D), queue(D + '2'), bind(D, X), bind(D + '2', X), queue(Q, args={'x-dead-letter-exchange': X}),
        some('m'), get(Q, no_ack=False), reject(1, requeue=False), drain(D, 1), drain(D + '2', 1)),
    row('dead letter: twice through the same queue counts', dead(), some('m'), get(Q, no_ack=False), reject(1, requeue=False), sync(Q, D),
        function('republish with its headers', lambda p: _republish(p)), get(Q, no_ack=False), reject(3, requeue=False), drain(D, 1)),
    row('dead letter: through two queues', queue(D), queue(Q + '2', args={'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': D, 'x-message-ttl': 20}),
        queue(Q, args={'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': Q + '2', 'x-max-length': 0}), some('m'), drain(D, 1)),
    row('dead letter: rejected to its own queue comes again', queue(Q, args={'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': Q}), some('m'),
        get(Q, no_ack=False), reject(1, requeue=False), sync(Q), get(Q, no_ack=False), reject(2, requeue=False), sync(Q), drain(Q, 1)),
    row('dead letter: the time is that of the first death', queue(Q, args={'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': Q}), some('m'),
        get(Q, no_ack=False), reject(1, requeue=False), sync(Q), died_at('first', Q), idle(1.2), sync(Q), died_at('second', Q), sync(Q)),
    row('dead letter: to a full queue that refuses', queue(D, args={'x-max-length': 1, 'x-overflow': 'reject-publish'}), queue(Q, args={
        'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': D}), some('1', '2'), get(Q, no_ack=False), get(Q, no_ack=False), reject(1, requeue=False), sync(Q, D),
        reject(2, requeue=False), sync(Q, D), everything(D)),
    row('dead letter: to a full queue that drops its head', queue(D, args={'x-max-length': 1}), queue(Q, args={
        'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': D}), some('1', '2'), get(Q, no_ack=False), get(Q, no_ack=False), reject(1, requeue=False), sync(Q, D),
        reject(2, requeue=False), sync(Q, D), everything(D)),
    row('dead letter: to a full queue that dead-letters what it refuses', queue(D + '2'), queue(D, args={
        'x-max-length': 1, 'x-overflow': 'reject-publish-dlx', 'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': D + '2'}), queue(Q, args={
            'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': D}), some('1', '2'), get(Q, no_ack=False), get(Q, no_ack=False), reject(1, requeue=False),
        sync(Q, D), reject(2, requeue=False), sync(Q, D), sync(D, D + '2'), everything(D), everything(D + '2')),
    row('dead letter: to a queue with TTL zero', queue(D, args={'x-message-ttl': 0}), queue(Q, args={'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': D}),
        some('1'), get(Q, no_ack=False), reject(1, requeue=False), sync(Q, D), get(D)),
    row('dead letter: in a transaction, at commit', dead(), some('1'), call('tx.select'), get(Q, no_ack=False), nack(1, requeue=False), get(D, ch=2), call('tx.commit'),
        sync(Q, D), drain(D, 1, ch=2)),
    row('dead letter: expiring in a cycle is dropped', queue(Q, args={'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': Q, 'x-message-ttl': 20}), some('m'),
        count(Q, 0)),
    row('dead letter: a cycle with a reject in it goes on', queue(Q + '2', args={'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': Q, 'x-message-ttl': 20}),
        queue(Q, args={'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': Q + '2'}), some('m'), get(Q, no_ack=False), reject(1, requeue=False),
        drain(Q, 1, no_ack=False), reject(2, requeue=False), drain(Q, 1)),
    row('dead letter: expiration goes to original-expiration', dead(), publish('', Q, 'm', expiration='25', content_type='a/b', priority=3), drain(D, 1)),
    row('dead letter: expiration of a rejected message is removed', dead(), publish('', Q, 'm', expiration='60000'), get(Q, no_ack=False), reject(1, requeue=False),
        drain(D, 1)),
    row('dead letter: CC and BCC keys', exchange(X, 'topic'), queue(D), bind(D, X, '#'), queue(Q, args={'x-dead-letter-exchange': X}),
        publish('', Q, 'm', headers={'CC': ['{u}cc'], 'BCC': ['{u}bcc']}), get(Q, no_ack=False), reject(1, requeue=False), drain(D, 1)),
    row('dead letter: with its own key CC is dropped', dead(), publish('', Q, 'm', headers={'CC': ['{u}cc']}), get(Q, no_ack=False), reject(1, requeue=False), drain(D, 1)),
    row('dead letter: purge and delete do not', dead(), some('1', '2'), call('queue.purge', queue=Q), some('3'), call('queue.delete', queue=Q), get(D)),
    row('dead letter: user headers stay', dead(), publish('', Q, 'm', headers={'a': 1, 'x-death': 'mine', 'b': [1]}), get(Q, no_ack=False), reject(1, requeue=False),
        drain(D, 1).ignore('x-first-death-reason', 'x-first-death-queue', 'x-first-death-exchange', why='RabbitMQ 3.10 forgets them when x-death was there before')),
    row('dead letter: to a quorum queue', queue(D, durable=True, args={'x-queue-type': 'quorum'}), queue(Q, args={'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': D}),
        some('m'), get(Q, no_ack=False), reject(1, requeue=False), drain(D, 1)),
    row('dead letter: mandatory flag does not return', queue(Q, args={'x-dead-letter-exchange': X}), publish('', Q, mandatory=True), get(Q, no_ack=False),
        reject(1, requeue=False), sync(Q), quiet()),
    row('dead letter: order of a TTL batch', dead(x_message_ttl=30), some('1', '2', '3', '4'), drain(D, 4)),
    row('dead letter: alternate exchange of the dead letter exchange', exchange(X + '2', 'fanout'), exchange(X, args={'alternate-exchange': X + '2'}), queue(D), bind(D, X + '2'),
        queue(Q, args={'x-dead-letter-exchange': X}), some('m'), get(Q, no_ack=False), reject(1, requeue=False), drain(D, 1)),

    # -- quorum queues (a durable queue with delivery-limit semantics)
    row('quorum: declare, publish, get, ack', queue(Q, durable=True, args={'x-queue-type': 'quorum'}), confirm, some('1', '2'), confirms(2), get(Q, no_ack=False), ack(1),
        drain(Q, 1)),
    row('quorum: requeue counts deliveries', queue(Q, durable=True, args={'x-queue-type': 'quorum'}), confirm, some('1'), confirms(1), get(Q, no_ack=False), nack(1),
        drain(Q, 1, no_ack=False), nack(2), drain(Q, 1, no_ack=False)),
    row('quorum: delivery-limit drops', queue(Q, durable=True, args={'x-queue-type': 'quorum', 'x-delivery-limit': 1}), confirm, some('1'), confirms(1),
        get(Q, no_ack=False), reject(1), drain(Q, 1, no_ack=False), reject(2), count(Q, 0), get(Q)),
    row('quorum: delivery-limit dead-letters', queue(D), queue(Q, durable=True, args={
        'x-queue-type': 'quorum', 'x-delivery-limit': 2, 'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': D}), confirm, some('1'), confirms(1),
        get(Q, no_ack=False), reject(1), drain(Q, 1, no_ack=False), reject(2), drain(Q, 1, no_ack=False), reject(3), drain(D, 1)),
    row('quorum: delivery-limit zero', queue(D), queue(Q, durable=True, args={
        'x-queue-type': 'quorum', 'x-delivery-limit': 0, 'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': D}), confirm, some('1'), confirms(1),
        get(Q, no_ack=False), reject(1), drain(D, 1)),
    row('quorum: reject without requeue dead-letters', queue(D), queue(Q, durable=True, args={
        'x-queue-type': 'quorum', 'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': D}), confirm, some('1'), confirms(1), get(Q, no_ack=False),
        reject(1, requeue=False), drain(D, 1)),
    row('quorum: ttl', queue(Q, durable=True, args={'x-queue-type': 'quorum', 'x-message-ttl': 60}), confirm, some('1'), confirms(1), count(Q, 0)),
    row('quorum: consumer gets the delivery count', queue(Q, durable=True, args={'x-queue-type': 'quorum'}), consume(Q, 'c'), some('1'), deliver(), nack(1), deliver()),
    row('quorum: max-length', queue(Q, durable=True, args={'x-queue-type': 'quorum', 'x-max-length': 2}), confirm, some('1', '2', '3'), confirms(3), count(Q, 2), drain(Q, 2)),
    row('quorum: priority argument', queue(Q, durable=True, args={'x-queue-type': 'quorum', 'x-max-priority': 3})),
    row('quorum: delivery-limit negative', queue(Q, durable=True, args={'x-queue-type': 'quorum', 'x-delivery-limit': -1})),
    row('quorum: delivery-limit not a number', queue(Q, durable=True, args={'x-queue-type': 'quorum', 'x-delivery-limit': 'x'}).differs(
        closing('channel', 406, ..., 'queue.declare'), 'queues.md 1.3: a bad argument type is refused; RabbitMQ 3.10 takes it')),
    row('quorum: reject-publish-dlx', queue(Q, durable=True, args={'x-queue-type': 'quorum', 'x-overflow': 'reject-publish-dlx'})),
    row('delivery-limit: on a classic queue', queue(Q, args={'x-delivery-limit': 3}).differs(
        [['queue.declare-ok', {'queue': '{u}q', 'message_count': 0, 'consumer_count': 0}]],
        'issue: x-delivery-limit works on any queue; RabbitMQ refuses it for classic queues')),
    row('quorum: dead-letter-strategy', queue(Q, durable=True, args={'x-queue-type': 'quorum', 'x-dead-letter-strategy': 'at-most-once'})),
    row('quorum: dead-letter-strategy of nothing known', queue(Q, durable=True, args={'x-queue-type': 'quorum', 'x-dead-letter-strategy': 'perhaps'}).err(406)),
    row('quorum: single active consumer', queue(Q, durable=True, args={'x-queue-type': 'quorum', 'x-single-active-consumer': True}), consume(Q, 'c1'), consume(Q, 'c2', ch=2),
        some('1'), deliver(), cancel('c1'), ack(1), some('2'), deliver(ch=2)),
    row('quorum: requeue keeps the place, without a limit too', queue(Q, durable=True, args={'x-queue-type': 'quorum'}), confirm, some('1', '2'), confirms(2),
        get(Q, no_ack=False), nack(1), sync(Q), everything(Q).differs([['1', '2'], 'basic.get-empty'], 'queues.md 1.6; RabbitMQ 3.10 does so only with a delivery-limit')),
    row('quorum: requeue keeps the place, with a limit', queue(Q, durable=True, args={'x-queue-type': 'quorum', 'x-delivery-limit': 5}), confirm, some('1', '2'),
        confirms(2), get(Q, no_ack=False), nack(1), sync(Q), everything(Q)),
    row('quorum: exclusive consumer', queue(Q, durable=True, args={'x-queue-type': 'quorum'}), consume(Q, 'c'), consume(Q, 'd', ch=2, exclusive=True).differs(
        closing('channel', 403, "ACCESS_REFUSED - queue '{u}q' in vhost '/' in exclusive use", 'basic.consume'),
        'queues.md 1.1: a second consumer is refused; quorum queues of RabbitMQ 3.10 take no notice of the flag')),
    row('quorum: same-name redeclare with another limit', queue(Q, durable=True, args={'x-queue-type': 'quorum', 'x-delivery-limit': 3}),
        queue(Q, durable=True, args={'x-queue-type': 'quorum', 'x-delivery-limit': 4}).err(406)),
    row('quorum: purge', queue(Q, durable=True, args={'x-queue-type': 'quorum'}), confirm, some('1', '2'), confirms(2), call('queue.purge', queue=Q), get(Q)),
    row('quorum: delete counts', queue(Q, durable=True, args={'x-queue-type': 'quorum'}), confirm, some('1', '2'), confirms(2), call('queue.delete', queue=Q)),
]


def _republish(p):
    """What many clients do to retry: get the dead letter and publish it again with the headers it has."""
    w = p.channel('a', 1)
    message = w.call(1, 'basic.get', queue=p.fill(D), no_ack=True)
    w.publish(1, '', p.fill(Q), message.body, **message.properties)
    return [message]
