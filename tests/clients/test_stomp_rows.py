"""The same STOMP frames to Millrace and to RabbitMQ's plug-in: every command, every header, every error.

A row is a list of steps; each step sends bytes over one of two connections and waits for so many frames on each.  What comes is
compared frame by frame: command, headers, body.  `differs` is what Millrace says instead, with the reason in why; a row that
is marked and does not differ fails, so that the list stays true.
"""

import concurrent.futures
import re

import pytest

from stomp_wire import Closed, Stomp, encode

ROWS = []
NAMES = re.compile(r'(stomp-subscription-|stomp-temp-|amq\.gen-)[\w-]{22}')


def row(name, *steps, version='1.2', versions=None, why=None):
    ROWS.append((name, steps, versions or (version,), why))


def send(command, headers=None, body=b'', frames=0, other=0, by=0):
    """by: which connection sends; frames, other: how many come on it, and on the other one."""
    return by, encode(command, headers or {}, body), frames, other


ALL = ('1.0', '1.1', '1.2')
Q = '/queue/Q'        # every row has a Q of its own

row('send, subscribe, auto', send('SUBSCRIBE', {'id': '1', 'destination': Q, 'receipt': 's'}, frames=1),
    send('SEND', {'destination': Q, 'a': 'b'}, 'hello', frames=1), send('SEND', {'destination': Q}, frames=1), versions=ALL)
row('properties', send('SUBSCRIBE', {'id': '1', 'destination': Q}),
    send('SEND', {'destination': Q, 'content-type': 'a/b', 'content-encoding': 'c', 'persistent': 'true', 'priority': '3',
                  'correlation-id': 'd', 'reply-to': '/queue/r', 'amqp-message-id': 'm', 'type': 't', 'app-id': 'i',
                  'timestamp': '5', 'user-id': 'guest', 'expiration': '60000', 'x': 'y'}, 'z', frames=1))
row('reply-to that is a name', send('SUBSCRIBE', {'id': '1', 'destination': Q}),
    send('SEND', {'destination': Q, 'reply-to': 'name'}, frames=1))
row('body with NUL', send('SUBSCRIBE', {'id': '1', 'destination': Q}),
    send('SEND', {'destination': Q, 'content-length': '3'}, b'a\0b', frames=1))
row('escapes', send('SUBSCRIBE', {'id': '1', 'destination': Q}),
    send('SEND', {'destination': Q, 'a\\cb': 'c\\nd\\\\e'}, frames=1), versions=('1.1', '1.2'))
row('escaped CR', send('SUBSCRIBE', {'id': '1', 'destination': Q}), send('SEND', {'destination': Q, 'a': 'c\\rd'}, frames=1))
row('repeated header', send('SUBSCRIBE', {'id': '1', 'destination': Q}),
    send('SEND', [('destination', Q), ('a', '1'), ('a', '2')], frames=1), versions=ALL)
row('1.0 trims', send('SUBSCRIBE', {'id': '1', 'destination': Q}), send('SEND', {'destination': Q, 'a': '  b'}, frames=1),
    version='1.0')
row('subscription without id', send('SUBSCRIBE', {'destination': Q}), send('SEND', {'destination': Q}, 'x', frames=1),
    send('UNSUBSCRIBE', {'destination': Q, 'receipt': 'u'}, frames=1), versions=ALL)
row('client-individual', send('SUBSCRIBE', {'id': '1', 'destination': Q, 'ack': 'client-individual'}),
    send('SEND', {'destination': Q}, 'x', frames=1), versions=ALL)
row('client', send('SUBSCRIBE', {'id': 'i:d', 'destination': Q, 'ack': 'client'}), send('SEND', {'destination': Q}, 'x', frames=1))
row('topic', send('SUBSCRIBE', {'id': '1', 'destination': '/topic/Q.*', 'receipt': 's'}, frames=1),
    send('SEND', {'destination': '/topic/Q.a'}, '1', by=1, other=1),
    send('SEND', {'destination': '/topic/Q.a.b'}, '2', by=1), send('SEND', {'destination': '/exchange/amq.topic/Q.c'}, '3', by=1, other=1))
row('exchange', send('SUBSCRIBE', {'id': '1', 'destination': '/exchange/amq.direct/Q', 'receipt': 's'}, frames=1),
    send('SEND', {'destination': '/exchange/amq.direct/Q'}, '1', frames=1),
    send('SEND', {'destination': '/exchange/amq.direct/not-Q'}, '2'))
row('slashes in names', send('SUBSCRIBE', {'id': '1', 'destination': '/exchange/amq.direct/Q%2Fx', 'receipt': 's'}, frames=1),
    send('SEND', {'destination': '/exchange/amq.direct/Q%2Fx'}, '1', frames=1))
row('amq queue', send('SEND', {'destination': Q, 'receipt': 'r'}, '1', frames=1),
    send('SUBSCRIBE', {'id': '1', 'destination': '/amq/queue/Q'}, frames=1))
row('queue by its name', send('SUBSCRIBE', {'id': '1', 'destination': 'Q'}), send('SEND', {'destination': Q}, '1', frames=1))
row('temporary queue', send('SUBSCRIBE', {'id': '1', 'destination': Q, 'receipt': 's'}, frames=1),
    send('SEND', {'destination': Q, 'reply-to': '/temp-queue/me'}, 'ping', by=1, other=1))
row('redelivered', send('SUBSCRIBE', {'id': '1', 'destination': Q, 'ack': 'client', 'receipt': 's'}, frames=1),
    send('SEND', {'destination': Q, 'receipt': 'r'}, 'x', frames=2), send('DISCONNECT', {'receipt': 'bye'}, frames=1),
    send('SUBSCRIBE', {'id': '2', 'destination': Q}, frames=1, by=1))
row('prefetch', send('SEND', {'destination': Q}, '1'), send('SEND', {'destination': Q, 'receipt': 'r'}, '2', frames=1),
    send('SUBSCRIBE', {'id': '1', 'destination': Q, 'ack': 'client', 'prefetch-count': '1', 'receipt': 's'}, frames=2))
row('queue arguments', send('SEND', {'destination': Q, 'x-max-length': '1'}, '1'),
    send('SEND', {'destination': Q, 'receipt': 'r'}, '2', frames=1), send('SUBSCRIBE', {'id': '1', 'destination': Q}, frames=1))
row('transaction', send('SUBSCRIBE', {'id': '1', 'destination': Q, 'receipt': 's'}, frames=1), send('BEGIN', {'transaction': 't'}),
    send('SEND', {'destination': Q, 'transaction': 't'}, '1'), send('COMMIT', {'transaction': 't', 'receipt': 'c'}, frames=2),
    send('BEGIN', {'transaction': 't'}), send('SEND', {'destination': Q, 'transaction': 't'}, '2'),
    send('ABORT', {'transaction': 't', 'receipt': 'a'}, frames=1))
row('durable subscription', send('SUBSCRIBE', {'id': 'Q', 'destination': '/topic/Q', 'durable': 'true', 'auto-delete': 'false',
                                               'receipt': 's'}, frames=1),
    send('DISCONNECT', {'receipt': 'd'}, frames=1), send('SEND', {'destination': '/topic/Q', 'receipt': 'r'}, 'x', frames=1, by=1),
    send('SUBSCRIBE', {'id': 'Q', 'destination': '/topic/Q', 'durable': 'true', 'auto-delete': 'false'}, frames=1, by=1),
    send('UNSUBSCRIBE', {'id': 'Q', 'durable': 'true', 'receipt': 'u'}, frames=1, by=1))
row('receipts of everything', send('SUBSCRIBE', {'id': '1', 'destination': Q, 'receipt': '1'}, frames=1),
    send('BEGIN', {'transaction': 't', 'receipt': '2'}, frames=1), send('ABORT', {'transaction': 't', 'receipt': '3'}, frames=1),
    send('UNSUBSCRIBE', {'id': '1', 'receipt': '4'}, frames=1), send('DISCONNECT', {'receipt': '5'}, frames=1), versions=ALL)

# errors
row('unknown command', send('FOO', frames=1), versions=ALL)
row('send: no destination', send('SEND', frames=1))
row('subscribe: no destination', send('SUBSCRIBE', {'id': '1'}, frames=1))
for bad in ('/nowhere/a', '/queue/a/b', '/queue/', '/queue', '/exchange/a/b/c', '/exchange', '/amq/queue/', '/topic/', '/topic',
            '/temp-queue/a', '/reply-queue', 'a/b', '/'):
    row('send to ' + bad, send('SEND', {'destination': bad}, frames=1))
    row('subscribe to ' + bad, send('SUBSCRIBE', {'id': '1', 'destination': bad}, frames=1))
row('send with message-id', send('SEND', {'destination': Q, 'message-id': '1'}, frames=1))
row('no exchange', send('SEND', {'destination': '/exchange/none/a'}, frames=1))
row('no queue', send('SUBSCRIBE', {'id': '1', 'destination': '/amq/queue/none'}, frames=1))
row('no exchange to subscribe to', send('SUBSCRIBE', {'id': '1', 'destination': '/exchange/none'}, frames=1))
row('another argument', send('SEND', {'destination': Q, 'receipt': 'r'}, frames=1),
    send('SEND', {'destination': Q, 'x-max-length': '5', 'receipt': 's'}, frames=1, by=1))
row('bad expiration', send('SEND', {'destination': Q, 'expiration': 'x'}, frames=1))
row('not my user-id', send('SEND', {'destination': Q, 'user-id': 'x'}, frames=1))
row('duplicate id', send('SUBSCRIBE', {'id': '1', 'destination': Q, 'receipt': 's'}, frames=1),
    send('SUBSCRIBE', {'id': '1', 'destination': Q + '2'}, frames=1))
row('durable without id', send('SUBSCRIBE', {'destination': '/topic/Q', 'durable': 'true'}, frames=1))
row('unsubscribe: nothing', send('UNSUBSCRIBE', frames=1))
row('unsubscribe: unknown id', send('UNSUBSCRIBE', {'id': 'x'}, frames=1))
row('unsubscribe: unknown destination', send('UNSUBSCRIBE', {'destination': 'x'}, frames=1))
row('unsubscribe: temporary', send('UNSUBSCRIBE', {'id': '/temp-queue/x'}, frames=1))
row('ack without id', send('ACK', frames=1), versions=ALL)
row('nack without id', send('NACK', frames=1), versions=('1.1', '1.2'))
row('ack with a bad id', send('ACK', {'id': 'x', 'message-id': 'x'}, frames=1), versions=ALL)
row('ack without subscription', send('ACK', {'id': 'T_1@@s@@1', 'message-id': 'T_1@@s@@1'}, frames=1), versions=ALL)
row('begin without transaction', send('BEGIN', frames=1))
row('commit without transaction', send('COMMIT', frames=1))
row('abort without transaction', send('ABORT', frames=1))
row('commit of an unknown one', send('COMMIT', {'transaction': 't'}, frames=1))
row('send in an unknown one', send('SEND', {'destination': Q, 'transaction': 't'}, frames=1))

# meant differences: docs/compatibility.md has the reasons
row('begin twice', send('BEGIN', {'transaction': 't'}), send('BEGIN', {'transaction': 't', 'receipt': 'r'}, frames=1), why='an error here')
row('nack in 1.0', send('NACK', {'message-id': 'x'}, frames=1), version='1.0', why='there is none in 1.0')
row('receipt of a send comes back', send('SUBSCRIBE', {'id': '1', 'destination': Q, 'receipt': 's'}, frames=1),
    send('SEND', {'destination': Q, 'receipt': 'r'}, frames=2), why='it is of the frame')
row('header without colon', send('SEND', [('destination', Q)]), (0, b'SEND\nx\n\n\0', 1, 0), why='RabbitMQ hangs up')

LOGINS = {
    'nothing': {},
    'version 1.0': {'accept-version': '1.0'},
    'versions': {'accept-version': '1.0,1.1'},
    'no version': {'accept-version': '2.0,3.0'},
    'wrong password': {'passcode': 'wrong'},
    'unknown user': {'login': 'nobody'},
    'no vhost': {'host': 'nowhere'},
    'closed vhost': {'host': 'mr-closed', 'login': 'mr-perm', 'passcode': 'perm-secret'},
    'other vhost': {'host': 'mr-other'},
    'heart-beats': {'heart-beat': '3000,5000'},
}


def normal(frame, session, name, why=None):
    text = [frame.command]
    for key in sorted({n for n, _ in frame.headers} - {'server', 'session'}):
        if frame.command == 'ERROR' and key in ('receipt-id', 'content-length'):
            continue
        if frame.command == 'MESSAGE' and key in ('receipt', 'transaction') and not why:
            continue                      # RabbitMQ hands on what was the frame's: a row of its own shows it
        text.append('%s:%s' % (key, frame[key]))
    text = '\n'.join(text) + '\n\n' + frame.body.decode('utf-8', 'replace').rstrip('\n')
    return NAMES.sub('NAME', text.replace(session, 'SESSION')).replace(name, 'Q')


def play(broker, steps, version, name, why):
    """What is said on both connections, in order."""
    peers = [Stomp(broker.stomp_port, timeout=6) for _ in range(2)]
    sessions = [p.connect(version)['session'] for p in peers]
    said = []
    for by, data, frames, other in steps:
        peers[by].raw(data.replace(b'Q', name.encode()))
        for i, count in ((by, frames), (1 - by, other)):
            got = []
            for _ in range(count):
                try:
                    got.append(normal(peers[i].next(), sessions[i], name, why))
                except (TimeoutError, Closed, ConnectionError) as e:
                    got.append(type(e).__name__)
            said.append(sorted(got))      # a receipt may come before a message or behind it
    for i, peer in enumerate(peers):
        try:
            late = peer.quiet(0.2)
        except (Closed, ConnectionError):
            late = None
        said.append('late: %s' % normal(late, sessions[i], name) if late else '')
        peer.close()
    return said


CASES = [(n, s, v, why) for n, s, versions, why in ROWS for v in versions]


@pytest.fixture(scope='module')
def answers(millrace, rabbitmq):
    """All rows, played to both brokers, several at a time."""
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        jobs = {(i, broker.name): pool.submit(play, broker, steps, version, 'strow%d' % i, why)
                for i, (_, steps, version, why) in enumerate(CASES) for broker in (millrace, rabbitmq)}
        return {key: job.result() for key, job in jobs.items()}


@pytest.mark.parametrize('i', range(len(CASES)), ids=['%s, %s' % (n, v) for n, _, v, _ in CASES])
def test_row(answers, i):
    ours, theirs, why = answers[i, 'millrace'], answers[i, 'rabbitmq'], CASES[i][3]
    if why:
        assert ours != theirs, 'no difference any more: ' + why
    else:
        assert ours == theirs


@pytest.mark.parametrize('name', LOGINS)
def test_login(millrace, rabbitmq, name):
    said = []
    for broker in (millrace, rabbitmq):
        frame = Stomp(broker.stomp_port).connect(**{k.replace('-', '_'): v for k, v in LOGINS[name].items()})
        said.append(normal(frame, frame['session'] or '-', '-'))
    assert said[0] == said[1]
