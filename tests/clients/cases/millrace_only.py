"""Rows for Millrace alone.  Their expectations are written by hand, because RabbitMQ 3.10 as Debian
ships it has no such feature or another limit; each says where the expectation comes from."""

import time

import wire
from cases import row
from cases.exchanges import everything
from cases.lifetimes import dead, idle, some
from script import (V, ack, bind, call, closing, confirms, consume, count, deliver, drain, exchange, frame, function, get, nack,
                    publish, queue, quiet, reject, sync, take, unbind)

Q, X, D = '{u}q', '{u}x', '{u}dead'
DELAYED = 'the rabbitmq-delayed-message-exchange plugin is not in Debian; by its documentation'
LIMIT = 'issue: x-delivery-limit works on any queue; RabbitMQ has it for quorum queues only'
confirm = call('confirm.select')


def only(name, *steps, why):
    return row('only millrace: ' + name, *steps, only='millrace', why=why)


def delayed(kind='direct', **flags):
    return exchange(X, 'x-delayed-message', args={'x-delayed-type': kind}, **flags)


def refused(code):
    return lambda seen: seen and seen[0][0] == 'channel.close' and seen[0][1]['reply_code'] == code


def bodies(*wanted):
    return lambda seen: seen[0] == list(wanted)


def came_after(q, milliseconds):
    """The message must not come before its time, and soon after."""
    def play(p):
        began, w = time.monotonic(), p.channel('a', 7)
        while time.monotonic() - began < 8:
            answer = w.call(7, 'basic.get', queue=p.fill(q), no_ack=True)
            if answer.name == 'basic.get-ok':
                took = (time.monotonic() - began) * 1000
                return [{'body': answer.body.decode(), 'not early': took > milliseconds - 60, 'soon': took < milliseconds + 1000,
                         'x-delay': str(answer.properties.get('headers', {}).get('x-delay'))}]
            time.sleep(0.002)       # a poll interval
        return ['timeout']
    return function('comes after %d ms' % milliseconds, play).want(lambda s: s[0]['not early'] and s[0]['soon'])


def server_properties(p):
    w = wire.Wire(p.broker.host, p.broker.port, 5)
    start = w.start()
    w.abort()
    s = start.server_properties
    return [{'product is our own': s['product'].code == 'S' and 'rabbit' not in s['product'].value.lower(),
             'version': s['version'].value, 'cluster_name': s['cluster_name'].code, 'platform': s['platform'].code,
             'copyright': s['copyright'].code, 'information': s['information'].code}]


def too_large(p):
    w = p.channel('a', 1)
    w.send_method(1, 'basic.publish', routing_key='x')
    w.send_frame(wire.FRAME_HEADER, 1, wire.encode_header(16 * 1024 * 1024 + 1))
    for _ in range(130):
        w.send_frame(wire.FRAME_BODY, 1, b'x' * 131000)
    return p.take('a', 1, ('channel.close',))


ROWS = [
    only('server properties', function('server properties', server_properties).want(lambda s: s == [{
        'product is our own': True, 'version': '3.13.7', 'cluster_name': 'S', 'platform': 'S', 'copyright': 'S', 'information': 'S'}]),
         why='issue: never announce product "RabbitMQ"; the compatibility version is 3.13.7'),
    only('message over 16 MiB is refused', function('large', too_large).want(
        lambda s: refused(406)(s) and s[0][1]['reply_text'].startswith('PRECONDITION_FAILED - message size 1677721')),
        queue(Q), publish('', Q, 'x' * 1000000), get(Q), why='queues.md 1.3; RabbitMQ 3.10 allows 128 MiB'),

    only('delayed: comes after its delay', delayed(), queue(Q), bind(Q, X, 'k'), publish(X, 'k', 'later', headers={'x-delay': 300}),
         came_after(Q, 300), why=DELAYED),
    only('delayed: without the header at once', delayed(), queue(Q), bind(Q, X, 'k'), publish(X, 'k', 'now'), drain(Q, 1), why=DELAYED),
    only('delayed: zero and negative at once', delayed(), queue(Q), bind(Q, X, 'k'), publish(X, 'k', '0', headers={'x-delay': 0}),
         publish(X, 'k', '-1', headers={'x-delay': -1}), drain(Q, 2), why=DELAYED),
    only('delayed: order is by due time', delayed('fanout'), queue(Q), bind(Q, X), publish(X, 'k', 'c', headers={'x-delay': 350}),
         publish(X, 'k', 'a', headers={'x-delay': 50}), publish(X, 'k', 'b', headers={'x-delay': 200}), count(Q, 3),
         everything(Q).want(bodies('a', 'b', 'c')), why=DELAYED),
    only('delayed: confirmed before it is due', delayed(), queue(Q), bind(Q, X, 'k'), confirm,
         publish(X, 'k', 'm', headers={'x-delay': 400}, delivery_mode=2), confirms(1).want(lambda s: s == [[[1, 'ack']]]),
         queue(Q, passive=True).want(lambda s: s[0][1]['message_count'] == 0), count(Q, 1), why='issue: confirmed when durable, routed when due'),
    only('delayed: routed by the underlying type when due', delayed('topic'), queue(Q), publish(X, 'a.b', 'm', headers={'x-delay': 200}),
         bind(Q, X, 'a.*'), count(Q, 1), why='issue: confirmed when durable, routed when due'),
    only('delayed: headers type', delayed('headers'), queue(Q), bind(Q, X, args={'a': 1}), publish(X, '', '1', headers={'a': 1, 'x-delay': 30}),
         publish(X, '', '2', headers={'a': 2, 'x-delay': 30}), drain(Q, 1), why=DELAYED),
    only('delayed: rolled back with its transaction', delayed(), queue(Q), bind(Q, X, 'k'), call('tx.select'),
         publish(X, 'k', 'rolled back', headers={'x-delay': 20}), call('tx.rollback'), publish(X, 'k', 'committed', headers={'x-delay': 40}),
         call('tx.commit'), count(Q, 1), everything(Q).want(bodies('committed')), why='tx.select: publishes take effect at the commit'),
    only('delayed: type argument missing', exchange(X, 'x-delayed-message').want(refused(406)), why=DELAYED),
    only('delayed: type argument unknown', delayed('nope').want(refused(406)), why=DELAYED),
    only('delayed: type argument not a string', exchange(X, 'x-delayed-message', args={'x-delayed-type': 5}).want(refused(406)), why=DELAYED),
    only('delayed: any integer type of x-delay', delayed(), queue(Q), bind(Q, X, 'k'), publish(X, 'k', 'm', headers={'x-delay': V('l', 100)}),
         came_after(Q, 100), why=DELAYED),
    only('delayed: exchange deleted before it is due', delayed(), queue(Q), bind(Q, X, 'k'), publish(X, 'k', 'm', headers={'x-delay': 100}), sync(Q),
         call('exchange.delete', exchange=X), idle(0.3), get(Q).want(lambda s: s[0][0] == 'basic.get-empty'), why=DELAYED),

    only('dead letter: at-least-once loses none to a full queue that refuses', queue(D, args={'x-max-length': 1, 'x-overflow': 'reject-publish'}), queue(
        Q, durable=True, args={'x-queue-type': 'quorum', 'x-dead-letter-strategy': 'at-least-once', 'x-overflow': 'reject-publish', 'x-dead-letter-exchange': '',
                               'x-dead-letter-routing-key': D}), some('1', '2'), sync(Q), drain(Q, 2, no_ack=False), nack(2, multiple=True, requeue=False), count(D, 2),
        why='queues.md 1.5; RabbitMQ keeps the message in the source queue until the target takes it, Millrace lets it in above the limit'),
    only('delivery-limit: classic drops', queue(Q, args={'x-delivery-limit': 1}), some('1'), get(Q, no_ack=False), reject(1),
         drain(Q, 1, no_ack=False), reject(2), count(Q, 0), why=LIMIT),
    only('delivery-limit: classic dead-letters', queue(D), queue(Q, args={
        'x-delivery-limit': 0, 'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': D}), some('m'), get(Q, no_ack=False), reject(1),
        drain(D, 1).want(
            lambda s: 'S:delivery_limit' in str(s) and "'count': 'l:1'" in str(s)), why=LIMIT),
    only('delivery-limit: classic without the argument goes on', queue(Q), some('1'), *[s for n in range(1, 26) for s in (
        drain(Q, 1, no_ack=False), reject(n))], count(Q, 1), why=LIMIT),
    only('delivery-limit: quorum default is twenty', queue(Q, durable=True, args={'x-queue-type': 'quorum'}), some('1'),
         *[s for n in range(1, 21) for s in (drain(Q, 1, no_ack=False), reject(n))], drain(Q, 1, no_ack=False), reject(21), count(Q, 0),
         why='issue: quorum default 20, as RabbitMQ 4'),
    only('delivery-limit: minus one is no limit', queue(Q, durable=True, args={'x-queue-type': 'quorum', 'x-delivery-limit': -1}), some('1'),
         *[s for n in range(1, 26) for s in (drain(Q, 1, no_ack=False), reject(n))], count(Q, 1), why='queues.md 1.1: -1 is off, as RabbitMQ 4'),
]
