"""Random method sequences over two connections, played against two brokers and compared.

A sequence is a list of plain operations made from a seed.  An operation never says a delivery tag: it
says "the oldest unacknowledged one of this channel", and each broker's player works that out from what
its own broker sent.  So both brokers get the same methods as long as they answer the same.  In the same way
an operation that is `sane` (most are) is bent towards what exists: a channel with something to acknowledge,
a queue that was declared, the arguments it was declared with.  Otherwise nearly all methods would be errors.

What is compared: the answer to every operation, in order, and per channel the stream of everything the
broker sent by itself (deliveries, returns, confirms, cancels), in order.  To keep that free of races,
after every operation the player waits until its effects are complete (confirms; a channel.flow round
trip; passive declares of every queue; a channel.flow round trip) and all consumers of one channel have the
same queue, since nothing is promised about the order between two.  Which policies apply is in the names of
the queues and exchanges (brokers.POLICIES).

Run as a program it plays a range of seeds and prints one JSON line per sequence that differed.
"""

import argparse
import itertools
import json
import os
import random
import string
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import script  # noqa: E402
import wire    # noqa: E402

LENGTH = 40
QUEUES = ['{u}q%d' % i for i in range(4)]
EXCHANGES = ['{u}x%d' % i for i in range(3)]
KEYS = ['', 'a', 'b', 'a.b', '#', 'a.*']
TIMEOUT = 8
CONSUMERS = 3                   # at most, on one channel


# ---- making sequences ----------------------------------------------------------------------------

def _queue_arguments(r, name):
    if r.random() < 0.5:
        return {}
    args = {}
    if r.random() < 0.3:
        args['x-max-length'] = r.randrange(4)
        if r.random() < 0.4:
            args['x-overflow'] = r.choice(['reject-publish', 'drop-head', 'reject-publish-dlx'])
    if r.random() < 0.25:
        args['x-max-priority'] = r.choice([0, 1, 5, 5, 255])
    if r.random() < 0.5 and (name != QUEUES[3] or r.random() < 0.3):
        args['x-dead-letter-exchange'] = ''
        # mostly into the last queue; else on to the next one or back to itself, and so perhaps in a circle
        args['x-dead-letter-routing-key'] = QUEUES[3] if name != QUEUES[3] and r.random() < 0.7 else \
            r.choice([QUEUES[(QUEUES.index(name) + 1) % 4], name])
        if r.random() < 0.15:
            args['x-dead-letter-exchange'] = r.choice(EXCHANGES)
            if r.random() < 0.6:
                del args['x-dead-letter-routing-key']
    if r.random() < 0.12:
        args['x-max-length-bytes'] = r.choice([0, 5, 100])
        if r.random() < 0.4:
            args['x-overflow'] = r.choice(['reject-publish', 'drop-head', 'reject-publish-dlx'])
    if r.random() < 0.1:
        args['x-message-ttl'] = r.choice([0, 600000, 600000])
    if r.random() < 0.08:
        args['x-expires'] = 600000
    if r.random() < 0.12:
        args['x-single-active-consumer'] = r.choice([True, True, True, False])
    if r.random() < 0.06:
        args.update(r.choice([{'x-queue-mode': 'lazy'}, {'x-queue-type': 'classic'}, {'x-nobody-knows': 1}]))
    if r.random() < 0.06:
        args.update(r.choice([{'x-max-length': -1}, {'x-max-priority': 'x'}, {'x-expires': 0}, {'x-overflow': 'no'},
                              {'x-message-ttl': 'soon'}, {'x-dead-letter-routing-key': 'k', 'x-max-length': 1}]))
    return args


def _headers(r):
    h = r.choice([None, None, None, {'a': 1}, {'a': 'x', 'b': 2}, {'x-a': 1, 'b': 2}, {'CC': [r.choice(QUEUES)]},
                  {'BCC': [r.choice(QUEUES)], 'a': 1},
                  {'CC': [r.choice(QUEUES), r.choice(KEYS)], 'BCC': [r.choice(QUEUES), r.choice(QUEUES)]}])
    return h


def _weights():
    return (
        (9, 'queue.declare'), (2, 'passive'), (2, 'queue.delete'), (2, 'queue.purge'), (5, 'queue.bind'), (2, 'queue.unbind'),
        (5, 'exchange.declare'), (1, 'exchange.delete'), (2, 'exchange.bind'), (1, 'exchange.unbind'), (26, 'publish'),
        (10, 'get'), (9, 'ack'), (6, 'nack'), (5, 'reject'), (9, 'consume'), (3, 'cancel'), (3, 'qos'), (2, 'recover'),
        (2, 'channel.close'), (0.4, 'connection.close'), (1.5, 'tx.select'), (3, 'tx.commit'), (2, 'tx.rollback'),
        (0.5, 'confirm.select'), (0.7, 'error'))


BINDINGS = [{}, {}, {'a': 1}, {'x-match': 'any', 'a': 1, 'b': 2}, {'x-match': 'all', 'x-a': 2, 'b': 2}, {'a': None},
            {'x-match': 'all-with-x', 'x-a': 1, 'b': 2}, {'x-match': 'any-with-x', 'x-a': 1}, {'x-match': 'some'}]
ERRORS = ['immediate', 'recover', 'size', 'default', 'user-id', 'expiration', 'cc', 'reply-to', 'reserved', 'flow', 'tag zero',
          'all of none', 'twice open', 'reused tag', 'last queue', 'unknown tag', 'x-priority', 'predeclared', 'zero']


def generate(seed, length=LENGTH):
    """The operations of one seed; each is a dict of plain values."""
    r = random.Random(seed)
    weights, kinds = zip(*_weights())
    # only when asked: what is given back to a quorum queue of RabbitMQ 3.10 comes in an order of its own
    quorum = QUEUES[:2] if os.environ.get('MILLRACE_GEN_QUORUM') else []
    ops = []
    for n in range(length):
        kind = r.choices(kinds, weights)[0] if n >= 5 else r.choice(['queue.declare', 'queue.declare', 'exchange.declare'])
        op = {'do': kind, 'conn': r.choice('ab'), 'ch': r.choice([1, 1, 2])}
        if r.random() < 0.88:
            op['sane'] = r.randrange(1000)
        if kind == 'queue.declare':
            q = r.choice(QUEUES)
            op.update(queue=q, durable=r.random() < 0.5, auto_delete=r.random() < 0.12, exclusive=r.random() < 0.08,
                      arguments=_queue_arguments(r, q))
            if r.random() < 0.06:
                op.update(nowait=True)
            if r.random() < 0.25:
                op.update(durable=False, auto_delete=False, exclusive=False, arguments={})
            if q in quorum and r.random() < 0.9:
                op.update(durable=True, auto_delete=False, exclusive=False,      # without a limit: see cases/lifetimes.py
                          arguments={'x-queue-type': 'quorum', 'x-delivery-limit': r.choice([0, 1, 2, 3, 20])})
                if r.random() < 0.4:
                    op['arguments'].update({'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': QUEUES[3]})
        elif kind == 'passive':
            op.update(r.choice([{'queue': r.choice(QUEUES)}, {'exchange': r.choice(EXCHANGES)}]))
        elif kind == 'queue.delete':
            op.update(queue=r.choice(QUEUES), if_unused=r.random() < 0.4, if_empty=r.random() < 0.4)
        elif kind == 'queue.purge':
            op.update(queue=r.choice(QUEUES))
        elif kind in ('queue.bind', 'queue.unbind'):
            op.update(queue=r.choice(QUEUES), exchange=r.choice(EXCHANGES * 6 + ['']), routing_key=r.choice(KEYS),
                      arguments=r.choice(BINDINGS))
            if r.random() < 0.1 and kind == 'queue.bind':
                op.update(nowait=True)
        elif kind == 'exchange.declare':
            i = r.randrange(3)
            op.update(exchange=EXCHANGES[i], type=r.choice([('direct', 'fanout', 'topic')[i]] * 5 + ['headers', 'direct']),
                      durable=r.random() < 0.2, auto_delete=r.random() < 0.1, internal=r.random() < 0.05,
                      arguments={'alternate-exchange': r.choice([EXCHANGES[(i + 1) % 3]] * 3 + [EXCHANGES[i], 'amq.nobody'])}
                      if r.random() < 0.2 else {})
        elif kind == 'exchange.delete':
            op.update(exchange=r.choice(EXCHANGES), if_unused=r.random() < 0.5)
        elif kind in ('exchange.bind', 'exchange.unbind'):
            op.update(destination=r.choice(EXCHANGES), source=r.choice(EXCHANGES), routing_key=r.choice(KEYS))
        elif kind == 'publish':
            to_queue = r.random() < 0.6
            op.update(exchange='' if to_queue else r.choice(EXCHANGES),
                      routing_key=r.choice(QUEUES) if to_queue else r.choice(KEYS), body='m%d' % n + 'x' * r.choice([0, 0, 3, 200]),
                      mandatory=r.random() < 0.3)
            if r.random() < 0.06:
                op['body'] = ''
            if r.random() < 0.03:
                op['body'] += 'y' * r.choice([131064, 140000, 300000])
            if r.random() < 0.06:
                op['pieces'] = r.choice([1, 2, 3])      # body frames of this many, heartbeats in between
            properties = {'delivery_mode': r.choice([None, 1, 2, 2]), 'priority': r.choice([None, None, 0, 1, 9]),
                          'headers': _headers(r), 'expiration': r.choice(['600000', '0']) if r.random() < 0.07 else None}
            op['properties'] = {k: v for k, v in properties.items() if v is not None}
        elif kind == 'get':
            op.update(queue=r.choice(QUEUES), no_ack=r.random() < 0.4)
        elif kind in ('ack', 'nack', 'reject'):
            op.update(which=r.choice([0, 0, 0, 1, 2, -1]), multiple=r.random() < 0.25, requeue=r.random() < 0.6)
            if r.random() < 0.03:
                op['which'] = 1000
        elif kind == 'consume':
            op.update(queue=r.choice(QUEUES), tag='c%d' % n, no_ack=r.random() < 0.3, exclusive=r.random() < 0.1)
            if r.random() < 0.25:
                op.update(arguments={'x-priority': r.choice([-1, 1, 2])})
        elif kind == 'cancel':
            op.update(which=r.randrange(3))
        elif kind == 'qos':
            op.update(count=r.randrange(4), everyone=r.random() < 0.2)
        elif kind == 'recover':
            op.update(sync=r.random() < 0.8)
        elif kind == 'error':
            op.update(what=r.choice(ERRORS))
        ops.append(op)
    if quorum or any('x-max-priority' in op.get('arguments', {}) for op in ops):
        _without_expiry(ops)
    return _with_policies(ops, r)


def _without_expiry(ops):
    """Millrace lets messages of every priority, and of quorum queues, expire in time (cases/lifetimes.py)."""
    for op in ops:
        if op.get('properties', {}).get('expiration') == '0':
            del op['properties']['expiration']
        if op.get('arguments', {}).get('x-message-ttl') == 0:
            del op['arguments']['x-message-ttl']


def _with_policies(ops, r):
    """Some sequences use names that brokers.POLICIES are for."""
    names = {QUEUES[1]: r.choice([''] * 5 + ['op-len']), QUEUES[2]: r.choice([''] * 5 + ['pol-len']),
             EXCHANGES[2]: r.choice([''] * 5 + ['pol-ae'])}

    def renamed(x):
        if isinstance(x, str):
            return x + names.get(x, '')
        if isinstance(x, list):
            return [renamed(v) for v in x]
        return {k: renamed(v) for k, v in x.items()} if isinstance(x, dict) else x
    return renamed(ops)


# ---- playing one ---------------------------------------------------------------------------------

class Channel:
    """What the player knows of one open channel."""

    def __init__(self):
        self.unacked = []           # delivery tags, oldest first
        self.consumers = {}         # tag -> no_ack, oldest first
        self.queue = None           # what they consume
        self.whose = {}             # delivery tag -> consumer tag, None of basic.get
        self.limited = False        # as a whole, by basic.qos
        self.confirm = self.tx = False
        self.sent = self.confirmed = 0
        self.txed = []              # unacked tags as they were when the transaction began
        self.txdid = set()          # what else the transaction holds: 'publish', 'requeue'


class Pace:
    """Keeps two players together: after each operation each waits, for a while, until the other has been sent
    as much.  Once they are apart they stay apart, and nobody waits any more."""
    PATIENCE = 0.35

    def __init__(self):
        self.changed, self.lengths, self.apart = threading.Condition(), [{}, {}], False

    def meet(self, who, i, player):
        deadline = None
        while True:
            with self.changed:
                self.lengths[who][i] = player.lengths()
                self.changed.notify_all()
                other = self.lengths[1 - who]
                while i not in other and not self.apart:
                    if not self.changed.wait(TIMEOUT * 2):
                        self.apart = True
                if self.apart or other[i] == self.lengths[who][i]:
                    return
            deadline = deadline or time.monotonic() + self.PATIENCE
            if time.monotonic() > deadline:
                self.apart = True
                return
            player.listen(0.002)

    def leave(self):
        with self.changed:
            self.apart = True
            self.changed.notify_all()


def _cancels_sorted(stream):
    """No order is promised between the cancels of one queue's consumers."""
    out = []
    for is_cancel, run in itertools.groupby(stream, lambda m: m[0] == 'basic.cancel'):
        out += sorted(run, key=lambda m: m[1]['consumer_tag']) if is_cancel else run
    return out


class Sequencer:
    """Plays sequences against one broker.  Connections are kept from one sequence to the next."""

    def __init__(self, host, port, durable=False):
        self.host, self.port, self.wires, self.durable = host, port, {}, durable
        self.beside = None          # a connection that only waits for the disk

    def wire(self, conn):
        if conn not in self.wires:
            w = self.wires[conn] = wire.Wire(self.host, self.port, TIMEOUT)
            w.open()
            w.probes = set()
        return self.wires[conn]

    def lengths(self):
        return {k: len(v) for k, v in self.streams.items() if v}

    def listen(self, seconds):
        """Take what comes for a moment."""
        for conn in list(self.wires):
            try:
                while conn in self.wires:
                    message = self.wires[conn].pump(seconds)
                    self.wires[conn].inbox[message.channel].pop()
                    self.handle(conn, message)
            except wire.WireError:
                pass

    def disk(self):
        """Returns when what was sent before is durable."""
        if self.beside is None:
            w = self.beside = wire.Wire(self.host, self.port, TIMEOUT)
            w.open()
            w.channel(1)
            w.queue = 'generator-' + ''.join(random.choices(string.ascii_lowercase, k=8))
            w.call(1, 'queue.declare', queue=w.queue, durable=True, arguments={'x-max-length': 1, 'x-expires': 600000})
            w.call(1, 'confirm.select')
        self.beside.publish(1, '', self.beside.queue, b'', delivery_mode=2)
        self.beside.take(1, ('basic.ack',))

    # -- bending an operation towards what exists

    def bend(self, op):
        if 'sane' not in op:
            return op
        op, kind, n = dict(op), op['do'], op['sane']
        pick = lambda among: among[n % len(among)]      # noqa: E731
        if kind in ('ack', 'nack', 'reject', 'cancel', 'tx.commit', 'tx.rollback') or (kind == 'recover' and n % 3):
            fit = [k for k, c in sorted(self.channels.items()) if (
                c.consumers if kind == 'cancel' else c.tx if kind.startswith('tx') else c.unacked)]
            if fit:
                op['conn'], op['ch'] = pick(fit)
            elif kind.startswith('tx'):
                op['do'] = 'tx.select'
        if op['do'] in ('tx.select', 'confirm.select'):
            op['ch'] = 2
            c = self.channels.get((op['conn'], 2))
            if c and (c.confirm if op['do'] == 'tx.select' else c.tx):
                op['do'] = 'confirm.select' if c.confirm else 'tx.select'
        if kind == 'queue.declare':
            op.update(self.declared['queue'].get(op['queue'], {}) if op['queue'] in self.owners else {})
        elif kind == 'exchange.declare':
            op.update(self.declared['exchange'].get(op['exchange'], {}))
        for field, there in (('queue', self.owners), ('exchange', self.declared['exchange']), ('source', self.declared['exchange']),
                             ('destination', self.declared['exchange'])):
            if kind.endswith('.declare') or not op.get(field):
                continue
            if op[field] not in there and there:
                op[field] = sorted(there)[(n + (field == 'source')) % len(there)]
        if kind == 'publish' and not op['exchange'] and op['routing_key'] not in self.owners and self.owners:
            op['routing_key'] = pick(sorted(self.owners))
        if kind == 'get' and op['queue'] in self.single:
            op['queue'] = pick(sorted(set(self.owners) - self.single) or ['{u}none'])
        if kind in ('queue.bind', 'queue.unbind') and op['exchange'] == '' and self.declared['exchange']:
            op['exchange'] = pick(sorted(self.declared['exchange']))
        if kind == 'consume':
            c = self.channels.get((op['conn'], op['ch']))
            if c and c.consumers and c.queue in self.owners:
                op['queue'] = c.queue
        q = op.get('queue')
        if q in self.owners and self.declared['queue'].get(q, {}).get('exclusive'):
            if kind == 'consume' and op['conn'] != self.owners[q]:
                op['queue'] = q
            op['conn'] = self.owners[q]
        return op

    def note(self, op, answer):
        """Remember what was declared."""
        kind = op['do'].split('.')[0]
        if answer != ['sent'] and not isinstance(answer[0], wire.Message):
            return
        if op['do'] in ('queue.declare', 'exchange.declare') and (answer == ['sent'] or answer[0].name.endswith('declare-ok')):
            self.declared[kind][op[kind]] = {k: v for k, v in op.items() if k not in ('do', 'conn', 'ch', 'sane', 'nowait')}
        elif op['do'] == 'exchange.delete' and answer[0].name == 'exchange.delete-ok':
            self.declared[kind].pop(op[kind], None)
        elif answer != ['sent'] and answer[0].name == 'channel.close' and answer[0].reply_code == 404:
            for x in [x for x in self.declared['exchange'] if "'%s'" % self.player.fill(x) in answer[0].reply_text]:
                del self.declared['exchange'][x]

    def play(self, ops, pace=None, who=0):
        """The transcript: {'answers': [...], 'streams': {...}}, normalised."""
        self.player = script.Player(None, 'g' + ''.join(random.choices(string.ascii_lowercase, k=8)))
        self.channels, self.streams, self.incarnation = {}, {}, {}
        self.owners = {}            # queue -> the connection that can ask for it
        self.names = {kind: {op[f] for op in ops for f in fields if op.get(f)} for kind, fields in (
            ('queue', ['queue']), ('exchange', ['exchange', 'source', 'destination']))}
        self.declared, done = {'queue': {}, 'exchange': {}}, []
        self.quorum = set()
        self.single = set()         # queues with a single active consumer: basic.get of them differs (cases/delivery.py)
        self.priorities = any('x-max-priority' in op.get('arguments', {}) for op in ops)
        self.chain = any(op.get('arguments', {}).get('x-dead-letter-exchange') is not None for op in ops)
        answers = []
        try:
            for i, op in enumerate(ops):
                self.died = None
                op = self.bend(op)
                done.append(op)
                try:
                    answer = self.one(op)
                    self.note(op, answer)
                except wire.WireError as e:
                    answer = ['wire error', str(e)]
                    self.lose(op['conn'])
                answers.append(self.player.clean(script._plain(answer)))
                if pace:
                    pace.meet(who, i, self)
        finally:
            if pace:
                pace.leave()
            self.clean_up()
        streams = {k: _cancels_sorted(self.player.clean(script._plain(v))) for k, v in self.streams.items() if v}
        return {'answers': answers, 'streams': streams, 'done': done}

    # -- channels

    def channel(self, conn, ch):
        w = self.wire(conn)
        if (conn, ch) not in self.channels:
            c = self.channels[conn, ch] = Channel()
            self.incarnation[conn, ch] = self.incarnation.get((conn, ch), 0) + 1
            self.call(conn, ch, 'channel.open')
            if ch == 1:
                self.call(conn, ch, 'confirm.select')
                c.confirm = True
        return self.channels[conn, ch]

    def stream(self, conn, ch, kind='confirms'):
        """Deliveries apart from returns and confirms: no order is promised between the two."""
        return self.streams.setdefault('%s%d.%d %s' % (conn, ch, self.incarnation.get((conn, ch), 0), kind), [])

    def forget(self, conn, ch):
        self.channels.pop((conn, ch), None)

    def lose(self, conn):
        for key in [k for k in self.channels if k[0] == conn]:
            self.forget(*key)
        w = self.wires.pop(conn, None)
        if w:
            w.abort()

    # -- taking what the broker says

    def handle(self, conn, message):
        """One message nobody waits for: into its channel's stream."""
        ch = message.channel
        c = self.channels.get((conn, ch))
        if message.name == 'channel.close':
            self.wires[conn].send_method(ch, 'channel.close-ok')
            if ch == 9 or c is None:
                self.wires[conn].probes.discard(ch)
                return
            self.stream(conn, ch).append(message)
            self.died = message
            self.forget(conn, ch)
        elif message.name == 'connection.close':
            self.stream(conn, 0).append(message)
            self.wires[conn].send_method(0, 'connection.close-ok')
            self.died = message
            self.lose(conn)
        elif c is not None:
            if message.name in ('basic.ack', 'basic.nack'):
                for tag in range(c.confirmed + 1 if message.multiple else message.delivery_tag, message.delivery_tag + 1):
                    self.stream(conn, ch).append([message.name, tag])
                c.confirmed = message.delivery_tag
                return
            delivery = message.name in ('basic.deliver', 'basic.cancel')
            self.stream(conn, ch, 'deliveries' if delivery else 'confirms').append(message)
            if message.name == 'basic.deliver' and not c.consumers.get(message.consumer_tag, True):
                c.unacked.append(message.delivery_tag)
                c.whose[message.delivery_tag] = message.consumer_tag
            elif message.name == 'basic.cancel':
                c.consumers.pop(message.consumer_tag, None)

    def await_(self, conn, ch, names):
        """The next message of these names on the channel; everything else is handled; None when the channel dies."""
        w = self.wires[conn]
        while True:
            message = w.pump(TIMEOUT)
            w.inbox[message.channel].pop()
            if message.channel == ch and message.name in names:
                return message
            self.handle(conn, message)
            if conn not in self.wires or (ch != 9 and (conn, ch) not in self.channels):
                return None

    def call(self, conn, ch, method, **fields):
        self.wires[conn].send_method(ch, method, **self.player.fill(fields))
        answer = self.await_(conn, ch, script.spec.METHODS[method].replies)
        return [answer if answer is not None else self.died]

    def settle(self, conn, ch):
        """Wait until everything done so far has had its effects."""
        if (conn, ch) in self.channels:
            c = self.channels[conn, ch]
            while c.confirm and c.confirmed < c.sent and (conn, ch) in self.channels:
                message = self.wires[conn].pump(TIMEOUT)
                self.wires[conn].inbox[message.channel].pop()
                self.handle(conn, message)
            if (conn, ch) in self.channels:
                self.flows([(conn, ch)])
        if self.durable:
            self.disk()
        self.probe()
        self.probe()
        if self.chain:          # dead letters of dead letters
            self.probe()
            self.probe()
        self.flows([k for k, c in self.channels.items() if c.consumers or k == (conn, ch)])

    def flows(self, keys):
        """A channel.flow round trip on each of these channels, all at once."""
        waiting = {k for k in keys if k in self.channels}
        for conn, ch in sorted(waiting):
            self.wires[conn].send_method(ch, 'channel.flow', active=True)
        for conn in ('a', 'b'):
            while any(k[0] == conn and k in self.channels for k in waiting):
                message = self.wires[conn].pump(TIMEOUT)
                self.wires[conn].inbox[message.channel].pop()
                if message.name == 'channel.flow-ok':
                    waiting.discard((conn, message.channel))
                else:
                    self.handle(conn, message)

    def probe(self):
        """Ask every queue for its counts, on a connection that may."""
        if not any(c.consumers for c in self.channels.values()) and not self.owners:
            return
        asked = {}
        for q, owner in list(self.owners.items()):
            w = self.wire(owner)
            self.open_probe(owner)
            w.send_method(9, 'queue.declare', queue=self.player.fill(q), passive=True)
            # one at a time per connection: a missing queue closes the probing channel
            message = self.await_probe(owner)
            if message is None or message.name == 'channel.close':
                del self.owners[q]
            asked[q] = message
        return asked

    def open_probe(self, conn):
        w = self.wire(conn)
        if 9 not in w.probes:
            w.send_method(9, 'channel.open')
            w.probes.add(9)
            self.await_(conn, 9, ('channel.open-ok',))
        return w

    def await_probe(self, conn):
        w = self.wires[conn]
        while conn in self.wires:
            message = w.pump(TIMEOUT)
            w.inbox[message.channel].pop()
            if message.channel == 9:
                if message.name == 'channel.close':
                    w.send_method(9, 'channel.close-ok')
                    w.probes.discard(9)
                return message
            self.handle(conn, message)

    # -- one operation

    def one(self, op):
        conn, ch, kind = op['conn'], op['ch'], op['do']
        c = self.channel(conn, ch)
        w = self.wires[conn]
        fields = {k: v for k, v in op.items() if k not in ('do', 'conn', 'ch', 'properties', 'which', 'tag', 'what', 'count', 'sane')}
        if kind == 'passive':
            method = 'queue.declare' if 'queue' in op else 'exchange.declare'
            if op.get('queue') in self.quorum:
                return ['counts of a quorum queue are not exact']
            return self.call(conn, ch, method, passive=True, **fields)
        if kind in ('queue.delete', 'queue.purge', 'queue.bind', 'queue.unbind', 'exchange.declare', 'exchange.delete',
                    'exchange.bind', 'exchange.unbind'):
            answer = self.nowait(conn, ch, kind, **fields) if op.get('nowait') else self.call(conn, ch, kind, **fields)
            if kind in ('queue.delete', 'queue.purge'):
                self.settle(conn, ch)
            return answer
        if kind == 'queue.declare':
            if op['queue'] not in self.owners and any('publish' in c.txdid for c in self.channels.values()):
                return ['not made again in a transaction']      # cases/delivery.py
            answer = self.nowait(conn, ch, kind, **fields) if op.get('nowait') else self.call(conn, ch, kind, **fields)
            if op['arguments'].get('x-queue-type') == 'quorum' and getattr(answer[0], 'name', '') == 'queue.declare-ok':
                answer[0].fields.pop('consumer_count')      # RabbitMQ counts who gets from a quorum queue
            if answer == ['sent'] and (conn, ch) in self.channels or getattr(answer[0], 'name', '') == 'queue.declare-ok':
                self.owners.setdefault(op['queue'], conn)
                of_quorum = op['arguments'].get('x-queue-type') == 'quorum'
                (self.quorum.add if of_quorum else self.quorum.discard)(op['queue'])
                single = op['arguments'].get('x-single-active-consumer')
                (self.single.add if single else self.single.discard)(op['queue'])
            return answer
        if kind == 'publish':
            if 'requeue' in c.txdid:
                return ['not after a requeue in the same transaction']
            if self.priorities and 'publish' in c.txdid:
                return ['one publish in a transaction']     # the higher priority first, or the earlier one: cases/delivery.py
            c.txdid |= {'publish'} if c.tx else set()
            c.sent += 1
            what = self.player.fill([op['exchange'], op['routing_key'], op['properties']])
            if 'pieces' in op:
                self.publish_pieces(w, ch, op, *what)
            else:
                w.publish(ch, what[0], what[1], op['body'], op['mandatory'], **what[2])
            self.settle(conn, ch)
            return ['sent']
        if kind == 'get':
            if op['queue'] in self.single:
                return ['not of a single active consumer']
            answer = self.call(conn, ch, 'basic.get', **fields)
            if answer[0].name == 'basic.get-ok' and not op['no_ack']:
                c.unacked.append(answer[0].delivery_tag)
                c.whose[answer[0].delivery_tag] = None
            self.settle(conn, ch)
            return answer
        return getattr(self, 'do_' + kind.replace('.', '_'))(op, conn, ch, c, w)

    def nowait(self, conn, ch, method, **fields):
        self.wires[conn].send_method(ch, method, **self.player.fill(fields))
        self.flows([(conn, ch)])
        return ['sent']

    def publish_pieces(self, w, ch, op, exchange, routing_key, properties):
        w.send_method(ch, 'basic.publish', exchange=exchange, routing_key=routing_key, mandatory=op['mandatory'])
        body = op['body'].encode()
        w.heartbeat()
        w.send_frame(wire.FRAME_HEADER, ch, wire.encode_header(len(body), properties))
        step = max(1, (len(body) + op['pieces'] - 1) // op['pieces'])
        step = min(step, w.frame_max - 8)
        for i in range(0, len(body), step):
            w.heartbeat()
            w.send_frame(wire.FRAME_BODY, ch, body[i:i + step])

    def competes(self, c):
        """Another channel consumes what it does."""
        return any(o is not c and o.consumers and o.queue == c.queue for o in self.channels.values())

    def acking(self, op, conn, ch, c, w, method, **fields):
        if op['which'] == 1000:
            tag = 1000
        elif not c.unacked:
            return ['nothing to acknowledge']
        else:
            tag = c.unacked[min(op['which'], len(c.unacked) - 1)]
            gone = [t for t in c.unacked if t <= tag] if fields.get('multiple') else [tag]
            if method == 'basic.nack' and len({c.whose[t] for t in gone}) > 1:
                fields['multiple'], gone = False, [tag]     # RabbitMQ goes consumer by consumer: cases/delivery.py
            if c.limited and fields.get('requeue') and self.competes(c):
                fields['requeue'] = False                       # who gets it: cases/delivery.py
            c.unacked = [t for t in c.unacked if t not in gone]
            c.txed += gone if c.tx else []
            if c.tx and fields.get('requeue'):
                # which comes first, what is published or what is given back, is not promised (cases/delivery.py)
                fields['requeue'] = 'publish' not in c.txdid
                c.txdid |= {'requeue'} if fields['requeue'] else set()
        w.send_method(ch, method, delivery_tag=tag, **fields)
        self.settle(conn, ch)
        return [method, tag]

    def do_ack(self, op, *rest):
        return self.acking(op, *rest, 'basic.ack', multiple=op['multiple'])

    def do_nack(self, op, *rest):
        return self.acking(op, *rest, 'basic.nack', multiple=op['multiple'], requeue=op['requeue'])

    def do_reject(self, op, *rest):
        return self.acking(op, *rest, 'basic.reject', requeue=op['requeue'])

    def do_consume(self, op, conn, ch, c, w):
        if len(c.consumers) >= CONSUMERS or (c.consumers and c.queue != op['queue']):
            return ['consumes another queue']
        if op['queue'] in self.quorum and op['exclusive']:
            return ['not exclusive on a quorum queue']       # cases/lifetimes.py
        c.queue = op['queue']
        c.consumers[op['tag']] = op['no_ack']
        answer = self.call(conn, ch, 'basic.consume', queue=op['queue'], consumer_tag=op['tag'], no_ack=op['no_ack'],
                           exclusive=op['exclusive'], arguments=op.get('arguments', {}))
        self.settle(conn, ch)
        return answer

    def do_cancel(self, op, conn, ch, c, w):
        if not c.consumers:
            return ['no consumer']
        tag = list(c.consumers)[op['which'] % len(c.consumers)]
        answer = self.call(conn, ch, 'basic.cancel', consumer_tag=tag)
        c.consumers.pop(tag, None)
        self.settle(conn, ch)
        return answer

    def do_qos(self, op, conn, ch, c, w):
        if op.get('everyone') and any(c.whose[t] is None for t in c.unacked):
            return ['RabbitMQ counts what was got for ever']      # cases/delivery.py
        answer = self.call(conn, ch, 'basic.qos', prefetch_count=op['count'], **{'global': op.get('everyone', False)})
        c.limited = c.limited or op.get('everyone', False)
        self.settle(conn, ch)
        return answer

    def do_recover(self, op, conn, ch, c, w):
        if len({c.whose[t] for t in c.unacked}) > 1:
            return ['of several consumers']                 # as above
        if c.limited and self.competes(c):
            return ['to whom is not promised']              # cases/delivery.py
        c.unacked = []
        if not op.get('sync', True):
            answer = self.nowait(conn, ch, 'basic.recover-async', requeue=True)
        else:
            answer = self.call(conn, ch, 'basic.recover', requeue=True)
        self.settle(conn, ch)
        return answer

    def do_channel_close(self, op, conn, ch, c, w):
        answer = self.call(conn, ch, 'channel.close', reply_code=200)
        self.forget(conn, ch)
        self.settle(conn, 0)
        return answer

    def busy(self, conn):
        """Two channels of the connection hold something: RabbitMQ ends them in no order, and gives what the first returns to
        the second while that is ending too."""
        return sum(bool(c.consumers or c.unacked or c.txed) for k, c in self.channels.items() if k[0] == conn) > 1

    def do_connection_close(self, op, conn, ch, c, w):
        if self.busy(conn):
            return ['two channels hold something']
        w.send_method(0, 'connection.close', reply_code=200)
        while True:
            message = w.pump(TIMEOUT)
            w.inbox[message.channel].pop()
            if message.name == 'connection.close-ok':
                break
            self.handle(conn, message)
        self.lose(conn)
        other = 'b' if conn == 'a' else 'a'
        self.owners = {q: other for q in self.owners}
        self.settle(conn, 0)
        return ['connection.close-ok']

    def do_tx_select(self, op, conn, ch, c, w):
        answer = self.call(conn, ch, 'tx.select')
        if answer[0].name == 'tx.select-ok':
            c.tx = True
        return answer

    def do_tx_commit(self, op, conn, ch, c, w):
        answer = self.call(conn, ch, 'tx.commit')
        c.txed, c.txdid = [], set()
        self.settle(conn, ch)
        return answer

    def do_tx_rollback(self, op, conn, ch, c, w):
        answer = self.call(conn, ch, 'tx.rollback')
        c.unacked = sorted(c.unacked + c.txed)
        c.txed, c.txdid = [], set()
        self.settle(conn, ch)
        return answer

    def do_confirm_select(self, op, conn, ch, c, w):
        answer = self.call(conn, ch, 'confirm.select')
        if answer[0].name == 'confirm.select-ok' and not c.confirm:
            c.confirm, c.sent, c.confirmed = True, 0, 0
        return answer

    def do_error(self, op, conn, ch, c, w):
        what = op['what']
        if what in ('immediate', 'recover', 'size', 'flow', 'twice open', 'reused tag') and self.busy(conn):
            return ['two channels hold something']
        late = {'immediate': dict(immediate=True), 'user-id': dict(user_id='other'), 'expiration': dict(expiration='soon'),
                'cc': dict(headers={'CC': 'no array'}), 'reply-to': dict(reply_to='amq.rabbitmq.reply-to')}
        if what in late:
            w.publish(ch, '', 'x', b'', **late[what])
            return [self.await_(conn, ch, ('never',)) or self.died]
        if what in ('tag zero', 'unknown tag'):
            w.send_method(ch, 'basic.ack', delivery_tag=0 if what == 'tag zero' else 12345)
            return [self.await_(conn, ch, ('never',)) or self.died]
        if what == 'all of none':       # never an error
            if c.unacked:
                return ['there are some']
            return self.nowait(conn, ch, 'basic.ack', delivery_tag=0, multiple=True)
        queue = QUEUES[0]
        method, fields = {
            'recover': ('basic.recover', dict(requeue=False)), 'size': ('basic.qos', dict(prefetch_size=1)),
            'default': ('queue.bind', dict(queue=queue, exchange='', routing_key='k')),
            'reserved': ('queue.declare', dict(queue='amq.mine')), 'flow': ('channel.flow', dict(active=False)),
            'twice open': ('channel.open', {}), 'last queue': ('queue.declare', dict(queue='', passive=True)),
            'reused tag': ('basic.consume', dict(queue=queue, consumer_tag=next(iter(c.consumers), 'none'), exclusive=True)),
            'x-priority': ('basic.consume', dict(queue='none', consumer_tag='x', arguments={'x-priority': 'top'})),
            'predeclared': ('exchange.delete', dict(exchange='amq.direct')),
            'zero': ('queue.purge', dict(queue=''))}[what]
        if what == 'reused tag' and not c.consumers:
            return ['no consumer']
        if what == 'zero' and (conn, ch) in self.channels:
            answer = self.call(conn, ch, method, **fields)
            self.settle(conn, ch)
            return answer
        return self.call(conn, ch, method, **fields)

    def clean_up(self):
        for conn, ch in list(self.channels):
            try:
                w = self.wires[conn]
                w.send_method(ch, 'channel.close', reply_code=200)
                while True:
                    message = w.pump(TIMEOUT)
                    w.inbox[message.channel].pop()
                    if message.channel == ch and message.name in ('channel.close-ok', 'channel.close', 'connection.close'):
                        break
            except (wire.WireError, KeyError):
                self.lose(conn)
        self.channels = {}
        for kind, names in self.names.items():
            for name in sorted(names):
                for conn in ('a', 'b'):
                    try:
                        w = self.open_probe(conn)
                        w.send_method(9, kind + '.delete', **{kind: self.player.fill(name)})
                        while True:
                            message = w.pump(TIMEOUT)
                            w.inbox[message.channel].pop()
                            if message.channel == 9:
                                break
                        if message.name == 'channel.close':
                            w.send_method(9, 'channel.close-ok')
                            w.probes.discard(9)
                            continue        # exclusive to the other connection
                        break
                    except wire.WireError:
                        self.lose(conn)

    def close(self):
        if self.beside:
            self.beside.call(1, 'queue.delete', queue=self.beside.queue)
        for w in [*self.wires.values(), *filter(None, [self.beside])]:
            w.close()


# ---- comparing -----------------------------------------------------------------------------------

# Differences that are meant, as functions of a transcript, each with its reason (none so far beyond those
# of script._newer, which hold for every comparison).
def differs(ops, reference, target, newer=True):
    """None, or the first difference as text."""
    if newer:
        reference, target = [dict(t, **script._newer({k: t[k] for k in ('answers', 'streams')}, None)) for t in (reference, target)]
    for i, op in enumerate(ops):
        if reference['answers'][i] != target['answers'][i]:
            return 'operation %d %s\n    reference %s\n    target    %s' % (
                i + 1, json.dumps(target.get('done', ops)[i]), reference['answers'][i], target['answers'][i])
    for key in sorted(set(reference['streams']) | set(target['streams'])):
        one, two = reference['streams'].get(key, []), target['streams'].get(key, [])
        for i in range(max(len(one), len(two))):
            if one[i:i + 1] != two[i:i + 1]:
                return 'channel %s, message %d from the broker\n    reference %s\n    target    %s' % (
                    key, i + 1, one[i:i + 1], two[i:i + 1])
    return None


def both(players, ops):
    """Play on both at once."""
    results, pace, failed = [None, None], Pace(), []

    def run(i):
        try:
            results[i] = players[i].play(ops, pace, i)
        except Exception as e:      # a broker that hangs up or does not answer is a finding, not our end
            results[i] = {'answers': ['%s: %s' % (type(e).__name__, e)] * len(ops), 'streams': {}}
            players[i].wires, players[i].beside = {}, None
            failed.append(e)
    threads = [threading.Thread(target=run, args=(i,)) for i in (0, 1)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if len(failed) == 2:
        raise failed[0]             # it is the player that is wrong, or there is no broker at all
    return results


def fails(players, ops, times=3):
    """The difference when it shows every time; a race on a busy machine does not."""
    found = None
    for _ in range(times):
        found = differs(ops, *both(players, ops))
        if found is None:
            return None
    return found


def shrink(players, ops, seconds=25):
    """Leave out operations as long as the brokers still differ."""
    until, size = time.monotonic() + seconds, len(ops) // 2
    while size and time.monotonic() < until:
        i, removed = 0, False
        while i < len(ops) and time.monotonic() < until:
            fewer = ops[:i] + ops[i + size:]
            if fewer and fails(players, fewer, 2):
                ops, removed = fewer, True
            else:
                i += size
        if not removed or size > 1:
            size //= 2
    return ops


def main():
    a = argparse.ArgumentParser()
    a.add_argument('--reference', required=True, help='host:port')
    a.add_argument('--target', required=True, help='host:port')
    a.add_argument('--first', type=int, default=1)
    a.add_argument('--count', type=int, default=10)
    a.add_argument('--durable', action='store_true', help='wait for the disk after every operation on the target')
    a.add_argument('--script', help='a file with the operations of one sequence, one JSON object a line')
    a = a.parse_args()
    players = []
    for address in (a.reference, a.target):
        host, port = address.rsplit(':', 1)
        players.append(Sequencer(host, int(port), a.durable and address == a.target))
    if a.script:
        with open(a.script) as f:
            ops = [json.loads(line) for line in f if line.strip()]
        found = fails(players, ops)
        print(json.dumps({'script': a.script, 'difference': found}))
        return
    again, shown = 0, 0
    for seed in range(a.first, a.first + a.count):
        ops = generate(seed)
        first = differs(ops, *both(players, ops))
        if first is None:
            continue
        again += 1
        if os.environ.get('MILLRACE_GEN_AGAIN'):
            print('seed %d again: %s' % (seed, first), file=sys.stderr)
        found = fails(players, ops)
        if found:
            shown += 1
            small = shrink(players, ops) if shown <= 2 else ops
            print(json.dumps({'seed': seed, 'difference': found, 'small': fails(players, small, 1) or found,
                              'operations': small}), flush=True)
        if shown >= 5:
            break
    for p in players:
        p.close()
    print(json.dumps({'played': seed - a.first + 1, 'again': again}))


if __name__ == '__main__':
    main()
