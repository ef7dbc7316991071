"""Scripts of AMQP steps: what a case row is made of, and the player that runs one against one broker.

A row is a name and a list of steps over the connections 'a', 'b', … .  Playing it yields one
observation per step: everything the broker answered, normalised so that two brokers can be compared
(unique names, server-generated names, tokens and clocks are replaced; types, texts, ids, counts and
order are kept).  Nothing here sleeps to wait: a step either takes an answer out of the inbox with a
deadline, or polls a condition with a deadline.

Text in steps: {u} is the row's unique prefix, {gen1} the first amq.gen-… name seen, {ctag1} the first
server-chosen consumer tag, {reply1} the first direct reply-to address.
"""

import os
import random
import re
import string
import time
import zlib

import spec
import wire
from wire import V

TIMEOUT = float(os.environ.get('MILLRACE_STEP_TIMEOUT', '6'))

_GENERATED = (
    ('gen', re.compile(r'amq\.gen-([A-Za-z0-9_-]{22})(?![A-Za-z0-9_-])')),
    ('ctag', re.compile(r'amq\.ctag-([A-Za-z0-9_-]{22})(?![A-Za-z0-9_-])')),
    ('reply', re.compile(r'amq\.rabbitmq\.reply-to\.([A-Za-z0-9_.=+/-]{10,200})')),
)


class Step:
    """One step: `play(player)` returns a list of observations.  The modifiers say what must be seen."""

    def __init__(self, label, play, methods=(), queues=(), exchanges=()):
        self.label, self._play, self.methods = label, play, tuple(methods)
        self.queues, self.exchanges = tuple(queues), tuple(exchanges)
        self.error = None           # (code, text or None): both brokers must answer this error
        self.wanted = None          # predicate(observations) both brokers must satisfy
        self.millrace = None        # the observations Millrace gives instead
        self.loose = ()             # fields not compared
        self.alternatives = []      # further observations Millrace may give
        self.reword = None          # (pattern, replacement): Millrace says what RabbitMQ says, in newer words
        self.why = None
        self.row_exempt = False     # the answer may be missing (`silent`)

    def err(self, code, text=None):
        self.error = (code, text)
        return self

    def want(self, predicate):
        self.wanted = predicate
        return self

    def differs(self, observations, why):
        """Millrace answers this instead of what RabbitMQ 3.10 says, on purpose."""
        self.millrace, self.why = _plain(observations), why
        return self

    def may(self, *observations, why):
        """Millrace may answer one of these instead of what RabbitMQ 3.10 says; ... stands for anything."""
        self.alternatives, self.why = [_plain(o) for o in observations], why
        return self

    def denied(self, right):
        """403 for want of a right, which newer RabbitMQ names in the text (queues.md 1.3)."""
        self.error = (403, None)
        self.reword = ('ACCESS_REFUSED - access to', 'ACCESS_REFUSED - %s access to' % right)
        self.why = 'queues.md 1.3: the text names the right that is missing, RabbitMQ 3.10 does not'
        return self

    def ignore(self, *fields, why):
        self.loose, self.why = fields, why
        return self

    def silent(self):
        self.row_exempt = True
        return self

    def play(self, player):
        return self._play(player)

    def __repr__(self):
        return self.label


class Row:
    def __init__(self, name, steps, only=None, why=None, vhosts=('/',)):
        self.name, self.steps, self.only, self.why, self.vhosts = name, steps, only, why, vhosts

    def methods(self):
        return {m for s in self.steps for m in s.methods}

    def errors(self):
        """(method, code) pairs this row demands."""
        return {(m, s.error[0]) for s in self.steps if s.error for m in s.methods}

    @property
    def differs(self):
        return {i: (s.millrace, s.why) for i, s in enumerate(self.steps) if s.millrace is not None}


def _plain(x):
    """Tuples to lists, messages to (name, fields…): what gets compared and printed."""
    if isinstance(x, wire.Message):
        out = [x.name, dict(x.fields)]
        if x.properties is not None:
            out += [_plain(x.properties), _body(x.body)]
        return _plain(out)
    if isinstance(x, V):
        return '%s:%s' % (x.code, _plain(x.value)) if not isinstance(x.value, (dict, list)) \
            else {x.code: _plain(x.value)}
    if isinstance(x, dict):
        return {k: _plain(v) for k, v in x.items()}
    if isinstance(x, (list, tuple)):
        return [_plain(v) for v in x]
    return x


def _body(b):
    if len(b) > 200:
        return '<%d bytes crc %08x>' % (len(b), zlib.crc32(b))
    return b.decode('utf-8', 'backslashreplace')


class Player:
    """Plays the steps of one row against one broker."""

    def __init__(self, broker, unique=None):
        self.broker = broker
        self.unique = unique or 't' + ''.join(random.choices(string.ascii_lowercase, k=9))
        self.conns = {}             # name -> Wire
        self.open_channels = set()  # (conn, channel)
        self.seen = {'gen': [], 'ctag': [], 'reply': []}
        self.confirms = {}          # (conn, ch) -> [published]
        self.dirty = set()          # channels that were sent something that has no answer
        self.stash = {}

    # -- text in and out

    def fill(self, x):
        if isinstance(x, str):
            if '{' not in x:
                return x
            x = x.replace('{u}', self.unique)
            for kind, names in self.seen.items():
                for i, name in enumerate(names):
                    x = x.replace('{%s%d}' % (kind, i + 1), name)
            return x
        if isinstance(x, V):
            return V(x.code, self.fill(x.value))
        if isinstance(x, dict):
            return {self.fill(k): self.fill(v) for k, v in x.items()}
        if isinstance(x, (list, tuple)):
            return [self.fill(v) for v in x]
        return x

    def clean(self, x):
        if isinstance(x, str):
            x = x.replace(self.unique, '{u}')
            for kind, pattern in _GENERATED:
                def number(match, names=self.seen[kind], kind=kind):
                    if match.group(0) not in names:
                        names.append(match.group(0))
                    return '{%s%d}' % (kind, names.index(match.group(0)) + 1)
                x = pattern.sub(number, x)
            if x.startswith('T:'):
                # a wall-clock time the broker made (x-death): near now or left as it is
                if x[2:].isdigit() and abs(int(x[2:]) - time.time()) < 120:
                    return 'T:<now>'
            return x
        if isinstance(x, dict):
            return {self.clean(k): self.clean(v) for k, v in x.items()}
        if isinstance(x, list):
            return [self.clean(v) for v in x]
        return x

    # -- connections

    def connection(self, name):
        if name not in self.conns:
            w = wire.Wire(self.broker.host, self.broker.port, TIMEOUT)
            w.open()
            self.conns[name] = w
        return self.conns[name]

    def channel(self, conn, ch):
        w = self.connection(conn)
        if ch and (conn, ch) not in self.open_channels:
            answer = w.channel(ch)
            if answer.name != 'channel.open-ok':
                raise wire.WireError('channel.open: %r' % (answer,))
            self.open_channels.add((conn, ch))
        return w

    def forget(self, conn):
        w = self.conns.pop(conn, None)
        self.open_channels = {c for c in self.open_channels if c[0] != conn}
        return w

    def observe(self, conn, ch, message):
        """One message as an observation; answers a close and follows its consequences."""
        out = [_plain(message)]
        if message.name == 'channel.close':
            self.conns[conn].send_method(message.channel, 'channel.close-ok')
            self.open_channels.discard((conn, message.channel))
        elif message.name == 'connection.close':
            self.conns[conn].send_method(0, 'connection.close-ok')
            if self.broker.is_millrace and not self.conns[conn].wait_eof(TIMEOUT):
                out.append('no eof')    # RabbitMQ itself dawdles after some errors: not compared
            self.forget(conn).abort()
        elif message.name == 'basic.cancel':
            pass
        return out

    def take(self, conn, ch, names, n=1):
        out = []
        for _ in range(n):
            w = self.conns.get(conn)
            if w is None:
                return out + ['no connection']
            try:
                message = w.take(ch, names, TIMEOUT)
            except wire.Timeout:
                return out + ['timeout']
            except wire.Eof:
                self.forget(conn).abort()
                return out + ['eof']
            out += self.observe(conn, ch, message)
            if message.name in ('channel.close', 'connection.close') and message.name not in names:
                break
        return out

    # -- a row

    def play(self, row):
        out = []
        try:
            for step in row.steps:
                try:
                    seen = step.play(self)
                except wire.Eof:
                    seen = ['eof']
                except wire.WireError as e:
                    seen = ['wire error', str(e)]
                out.append(self.clean(_plain(seen)))
            out.append(self.clean(_plain(self.leftovers())))
        finally:
            self.clean_up(row)
        return out

    def barrier(self, queues=()):
        """Returns when what was sent so far has had its effects: the channels have taken everything, then
        the queues answer (twice: RabbitMQ's queues answer a passive declare before older business),
        then the channels have passed on what the queues gave them."""
        if not self.flow():
            return
        if queues:
            probe = wire.Wire(self.broker.host, self.broker.port, TIMEOUT)
            probe.open()
            for _ in range(2):
                for i, q in enumerate(queues):
                    if probe.channel(i + 1).name == 'channel.open-ok':
                        if probe.call(i + 1, 'queue.declare', queue=q, passive=True).name == 'channel.close':
                            probe.send_method(i + 1, 'channel.close-ok')
                        else:
                            probe.call(i + 1, 'channel.close', reply_code=200)
            probe.close()
            self.flow()
        self.flow()

    def others_first(self, conn, ch):
        """What other channels were told without an answer must be done before this channel goes on."""
        self.flow(only=self.dirty - {(conn, ch)})

    def flow(self, only=None):
        """A channel.flow round trip on every open channel; false when a connection or channel ends."""
        for conn, ch in sorted(self.open_channels if only is None else only & self.open_channels):
            self.dirty.discard((conn, ch))
            w = self.conns.get(conn)
            w.send_method(ch, 'channel.flow', active=True)
            try:
                while True:
                    message = w.pump(TIMEOUT)
                    if message.name == 'channel.flow-ok' and message.channel == ch:
                        w.inbox[ch].pop()
                        break
                    if message.name in ('channel.close', 'connection.close'):
                        return False
            except wire.WireError:
                return False
        return True

    def leftovers(self):
        queues = {self.fill(q) for q in self.stash.get('queues', ())}
        self.barrier([q for q in sorted(queues) if '{' not in q])
        out = []
        for conn in sorted(self.conns):
            for ch in sorted(self.conns[conn].inbox):
                out += [['leftover', conn, ch, _plain(m)] for m in self.conns[conn].inbox[ch]]
        return out

    def clean_up(self, row):
        for w in self.conns.values():
            w.close()
        for vhost in row.vhosts:
            try:
                w = wire.Wire(self.broker.host, self.broker.port, TIMEOUT)
                w.open(vhost=vhost)
                w.channel(1)
                for kind in ('queue', 'exchange'):
                    names = {self.fill(n) for s in row.steps for n in (s.queues if kind == 'queue' else s.exchanges)}
                    for name in sorted(names):
                        if self.unique in name or name.startswith('amq.gen-'):
                            answer = w.call(1, kind + '.delete', **{kind: name})
                            if answer.name == 'channel.close':
                                w.send_method(1, 'channel.close-ok')
                                w.channel(1)
                w.close()
            except (wire.WireError, OSError):
                pass


# ---- comparison ----------------------------------------------------------------------------------

def _strip(observations, fields):
    if isinstance(observations, dict):
        return {k: _strip(v, fields) for k, v in observations.items() if k not in fields}
    if isinstance(observations, list):
        return [_strip(v, fields) for v in observations]
    return observations


# Differences that hold for every row, each with its reason:
#  - x-last-death-*: RabbitMQ 3.13 and later add them (queues.md 1.5); when they are there they must agree
#    with the newest entry of x-death, and are then left out of the comparison.
#  - x-delivery-count of 0: RabbitMQ 3.10 shows it on basic.get and not on basic.deliver; saying nothing is the same.
def _newer(x, reword):
    if isinstance(x, str):
        return re.sub(reword[0], reword[1], x) if reword else x
    if isinstance(x, list):
        return [_newer(v, reword) for v in x]
    if not isinstance(x, dict):
        return x
    x = {k: _newer(v, reword) for k, v in x.items()}
    if x.get('x-delivery-count') == 'l:0':
        del x['x-delivery-count']
    if x.get('headers') == {}:
        del x['headers']
    death = x.get('x-death')
    if isinstance(death, dict) and 'A' in death and 'x-last-death-reason' in x:
        newest = death['A'][0]['F']
        if all(x.get('x-last-death-' + k) == newest[k] for k in ('reason', 'queue', 'exchange')):
            for k in ('reason', 'queue', 'exchange'):
                del x['x-last-death-' + k]
    return x


def _check(step, seen, where):
    """What the row itself demands of one observation; yields complaints."""
    flat = str(seen)
    if ("'timeout'" in flat or 'wire error' in flat) and not step.row_exempt:
        yield '%s: no answer: %s' % (where, seen)
    if step.error:
        code, text = step.error
        closes = [o for o in seen if isinstance(o, list) and o[0] in ('channel.close', 'connection.close')]
        if not closes or closes[0][1]['reply_code'] != code or \
                (text is not None and not _matches(closes[0][1]['reply_text'], text)):
            yield '%s: error %d %s wanted, got %s' % (where, code, text or '', seen)
    if step.wanted and not step.wanted(seen):
        yield '%s: not what the row wants: %s' % (where, seen)


def _matches(got, text):
    return got.startswith(text[:-1]) if text.endswith('…') else got == text


def compare(row, reference, target, target_is_millrace):
    """Complaints, empty when the target answers as it must.  reference is None for rows of one broker."""
    bad = []
    for i, step in enumerate(row.steps):
        where = 'step %d %s' % (i + 1, step)
        if reference is not None:
            bad += ['RabbitMQ, ' + c for c in _check(step, reference[i], where)]
        if target_is_millrace and step.millrace is not None:
            if not _equal(target[i], step.millrace):
                bad.append('%s: Millrace must differ (%s)\n    wanted   %s\n    got      %s' %
                           (where, step.why, step.millrace, target[i]))
            continue
        if target_is_millrace and any(_equal(target[i], a) for a in step.alternatives):
            continue
        bad += ['target, ' + c for c in _check(step, target[i], where)]
        if reference is None:
            continue
        wanted, got = _strip(reference[i], step.loose), _strip(target[i], step.loose)
        if target_is_millrace:
            wanted, got = _newer(wanted, step.reword), _newer(got, None)
        if wanted != got:
            bad.append('%s\n    RabbitMQ %s\n    target   %s' % (where, reference[i], target[i]) +
                       ('\n    wanted   %s (%s)' % (wanted, step.why) if step.reword else ''))
    if reference is not None and reference[-1]:
        bad.append('RabbitMQ sent things the row does not expect: %s' % reference[-1])
    if target[-1]:
        bad.append('the target sent things the row does not expect: %s' % target[-1])
    return bad


def _equal(got, wanted):
    """Equality, where a wanted text may end in … to compare a prefix, ... is anything, a set is a choice."""
    if wanted is ...:
        return True
    if isinstance(wanted, set):
        return got in wanted
    if isinstance(wanted, str) and isinstance(got, str):
        return _matches(got, wanted)
    if isinstance(wanted, dict) and isinstance(got, dict):
        return got.keys() == wanted.keys() and all(_equal(got[k], wanted[k]) for k in wanted)
    if isinstance(wanted, list) and isinstance(got, list):
        return len(got) == len(wanted) and all(map(_equal, got, wanted))
    return got == wanted


# ---- the words of a script -----------------------------------------------------------------------

def _show(fields):
    return ' '.join('%s=%r' % kv for kv in fields.items())


def call(method, conn='a', ch=1, reply=None, **fields):
    """Send a synchronous method and observe its answer (or the close it causes)."""
    replies = reply or spec.METHODS[method].replies
    names = {'queue.declare': 'queue', 'exchange.declare': 'exchange'}.get(method)

    def play(p):
        w = p.channel(conn, ch) if method not in ('channel.open',) else p.connection(conn)
        p.others_first(conn, ch)
        w.send_method(ch, method, **p.fill(fields))
        if fields.get('nowait'):
            return []
        out = p.take(conn, ch, replies)
        if out and isinstance(out[0], list):
            if out[0][0] == 'channel.open-ok':
                p.open_channels.add((conn, ch))
            if out[0][0] == 'channel.close-ok':
                p.open_channels.discard((conn, ch))
        if names == 'queue' and out and isinstance(out[0], list) and out[0][0] == 'queue.declare-ok':
            p.stash.setdefault('queues', set()).add(out[0][1]['queue'])
        return out

    mine = [fields.get(names, '')] if names else []
    return Step('%s%d %s %s' % (conn, ch, method, _show(fields)), play, [method],
                (mine or ['{gen1}']) if names == 'queue' else (), mine if names == 'exchange' else ())


def send(method, conn='a', ch=1, opened=True, **fields):
    """Send a method that has no answer, or whose answer a later step takes."""
    def play(p):
        w = p.channel(conn, ch) if opened else p.connection(conn)
        w.send_method(ch, method, **p.fill(fields))
        p.dirty.add((conn, ch))
        return []
    return Step('%s%d send %s %s' % (conn, ch, method, _show(fields)), play, [method])


def queue(name='', conn='a', ch=1, args=None, **flags):
    return call('queue.declare', conn, ch, queue=name, arguments=args or {}, **flags)


def exchange(name, kind='direct', conn='a', ch=1, args=None, **flags):
    return call('exchange.declare', conn, ch, exchange=name, type=kind, arguments=args or {}, **flags)


def bind(q, x, key='', conn='a', ch=1, args=None, **flags):
    return call('queue.bind', conn, ch, queue=q, exchange=x, routing_key=key, arguments=args or {}, **flags)


def unbind(q, x, key='', conn='a', ch=1, args=None):
    return call('queue.unbind', conn, ch, queue=q, exchange=x, routing_key=key, arguments=args or {})


def publish(x, key, body='m', conn='a', ch=1, mandatory=False, immediate=False, error=None, **properties):
    """Publish; nothing is waited for.  error=(code, text): also take the close this
    causes; error='write': the close for want of that right."""
    def play(p):
        w = p.channel(conn, ch)
        p.dirty.add((conn, ch))
        w.publish(ch, p.fill(x), p.fill(key), p.fill(body), mandatory, immediate, **p.fill(properties))
        if error:
            return p.take(conn, ch, ('channel.close', 'connection.close'))
        return []
    step = Step('%s%d publish %r %r %r %s' % (conn, ch, x, key, body if len(body) < 40 else len(body),
                                              _show(properties)), play, ['basic.publish'])
    if isinstance(error, str):
        return step.denied(error)
    return step.err(*error) if error else step


def get(q, conn='a', ch=1, no_ack=True):
    return call('basic.get', conn, ch, queue=q, no_ack=no_ack)


def consume(q, tag='', conn='a', ch=1, args=None, **flags):
    return call('basic.consume', conn, ch, queue=q, consumer_tag=tag, arguments=args or {}, **flags)


def cancel(tag, conn='a', ch=1):
    return call('basic.cancel', conn, ch, consumer_tag=tag)


def ack(tag, conn='a', ch=1, multiple=False):
    return send('basic.ack', conn, ch, delivery_tag=tag, multiple=multiple)


def nack(tag, conn='a', ch=1, multiple=False, requeue=True):
    return send('basic.nack', conn, ch, delivery_tag=tag, multiple=multiple, requeue=requeue)


def reject(tag, conn='a', ch=1, requeue=True):
    return send('basic.reject', conn, ch, delivery_tag=tag, requeue=requeue)


def qos(count, conn='a', ch=1, size=0, everyone=False):
    return call('basic.qos', conn, ch, prefetch_count=count, prefetch_size=size, **{'global': everyone})


def take(name, n=1, conn='a', ch=1, order=None):
    """Wait for n messages of this name, or of any of several.  order is a key function where the order is not promised."""
    names = (name,) if isinstance(name, str) else name

    def play(p):
        out = p.take(conn, ch, names, n)
        return sorted(out, key=order) if order and all(isinstance(o, list) for o in out) else out
    return Step('%s%d take %d %s' % (conn, ch, n, ' or '.join(names)), play, [])


def deliver(n=1, conn='a', ch=1, order=None):
    return take('basic.deliver', n, conn, ch, order)


def closed(conn='a', ch=1, of=None):
    """An asynchronous error: wait for the close of the channel or connection."""
    step = take('channel.close', 1, conn, ch)
    step.methods = (of,) if of else ()
    return step


def eof(conn='a'):
    def play(p):
        w = p.conns.get(conn)
        if w is None:
            return ['no connection']
        closed_it = w.wait_eof(TIMEOUT)
        out = [_plain(m) for box in w.inbox.values() for m in box]
        p.forget(conn).abort()
        return out + ['eof' if closed_it else 'no eof']
    return Step('%s eof' % conn, play)


def confirms(n, conn='a', ch=1):
    """Wait until n publishes are answered; multiple acks and nacks are expanded, order is kept per kind
    only as far as the tags: the observation is {tag: ack|nack}."""
    def play(p):
        w, key = p.conns[conn], ('confirmed', conn, ch)
        done = p.stash.setdefault(key, {})
        start = p.stash.get(('confirm from', conn, ch), 0)
        while len(done) < start + n:
            try:
                message = w.take(ch, ('basic.ack', 'basic.nack'), TIMEOUT)
            except wire.WireError as e:
                return [sorted(done.items()), 'timeout' if isinstance(e, wire.Timeout) else 'eof']
            if message.name not in ('basic.ack', 'basic.nack'):
                return [sorted(done.items())] + p.observe(conn, ch, message)
            low = max(done, default=0) + 1 if message.multiple else message.delivery_tag
            if message.multiple:
                low = next((i for i in range(1, message.delivery_tag + 1) if i not in done), low)
            for tag in range(low, message.delivery_tag + 1):
                if tag in done and not message.multiple:
                    return ['confirmed twice', tag]
                done.setdefault(tag, message.name[6:])
        p.stash[('confirm from', conn, ch)] = len(done)
        return [sorted(done.items())[start:]]
    return Step('%s%d confirms %d' % (conn, ch, n), play)


def _poll(p, q, until, vhost='/', pause=0.001):
    """Passive declares on a probe connection until the condition holds: the last answer."""
    w = wire.Wire(p.broker.host, p.broker.port, TIMEOUT)
    w.open(vhost=vhost)
    deadline, ch = time.monotonic() + TIMEOUT, 0
    try:
        while True:
            ch += 1
            w.channel(ch)
            answer = w.call(ch, 'queue.declare', queue=p.fill(q), passive=True)
            if until(answer) or time.monotonic() > deadline:
                return answer
            w.send_method(ch, 'channel.close-ok') if answer.name == 'channel.close' else \
                w.call(ch, 'channel.close', reply_code=200)
            ch = 0 if ch > 1000 else ch
            time.sleep(pause)           # a poll interval, not a wait: the condition ends the loop
            pause = max(pause, min(pause * 1.5, 0.05))
    finally:
        w.close()


def count(q, messages=None, consumers=None):
    """Poll until the queue has these counts; the counts are the observation."""
    def play(p):
        answer = _poll(p, q, lambda a: a.name == 'queue.declare-ok' and
                       (messages is None or a.message_count == messages) and
                       (consumers is None or a.consumer_count == consumers))
        if consumers is None:       # RabbitMQ counts a passing consumer while it gets from a quorum queue
            answer.fields.pop('consumer_count', None)
        return [answer]

    def right(seen):
        fields = seen[0][1]
        return seen[0][0] == 'queue.declare-ok' and \
            (messages is None or fields['message_count'] == messages) and \
            (consumers is None or fields['consumer_count'] == consumers)
    return Step('count %s messages=%s consumers=%s' % (q, messages, consumers), play).want(right)


def gone(q, pause=0.001):
    """Poll until the queue does not exist.  A passive declare is a use of the queue: to see x-expires work,
    the pause between two must be longer than the expiry."""
    def play(p):
        answer = _poll(p, q, lambda a: a.name == 'channel.close' and a.reply_code == 404, pause=pause)
        return [answer]
    return Step('gone %s' % q, play).want(lambda seen: seen[0][0] == 'channel.close')


def exchange_gone(x):
    """Poll until the exchange does not exist."""
    def play(p):
        w = wire.Wire(p.broker.host, p.broker.port, TIMEOUT)
        w.open()
        deadline = time.monotonic() + TIMEOUT
        try:
            for ch in range(1, 2000):
                w.channel(ch)
                answer = w.call(ch, 'exchange.declare', exchange=p.fill(x), passive=True)
                if answer.name == 'channel.close' or time.monotonic() > deadline:
                    return [answer]
                time.sleep(0.005)       # a poll interval
        finally:
            w.close()
    return Step('gone exchange %s' % x, play).want(lambda seen: seen[0][0] == 'channel.close')


def drain(q, n, conn='a', ch=1, no_ack=True, order=None):
    """Poll basic.get until n messages have come, then one more get, which must be empty."""
    def play(p):
        p.flow()
        out, deadline = [], time.monotonic() + TIMEOUT
        w = p.channel(conn, ch)
        while len(out) < n:
            answer = w.call(ch, 'basic.get', queue=p.fill(q), no_ack=no_ack)
            if answer.name == 'basic.get-ok':
                out += [_plain(answer)]
            elif answer.name == 'basic.get-empty':
                if time.monotonic() > deadline:
                    return out + ['timeout']
                time.sleep(0.005)       # a poll interval
            else:
                return out + p.observe(conn, ch, answer)
        if order:
            out.sort(key=order)
        for o in out:
            o[1].pop('message_count')   # depends on when the later messages arrived
            if order:
                o[1].pop('delivery_tag')
        answer = w.call(ch, 'basic.get', queue=p.fill(q), no_ack=True)
        return out + [_plain(answer)]
    return Step('%s%d drain %s %d' % (conn, ch, q, n), play, ['basic.get']).want(lambda seen: len(seen) == n + 1)


def sync(*queues, conn=None):
    """A barrier: queues and channels have done all they were told."""
    def play(p):
        p.barrier([p.fill(q) for q in queues])
        return []
    return Step('sync %s' % ' '.join(queues), play)


def quiet(conn='a', ch=1, queues=()):
    """After a barrier, everything that lies in this channel's inbox (usually nothing)."""
    def play(p):
        p.barrier([p.fill(q) for q in queues])
        w = p.conns.get(conn)
        if w is None:
            return ['no connection']
        box = w.inbox.get(ch)
        out = []
        while box:
            out += p.observe(conn, ch, box.popleft())
        return out
    return Step('%s%d quiet' % (conn, ch), play)


def open_(conn='a', capabilities=wire.CAPABILITIES, **kw):
    """Open a connection with its own parameters; the answer that decides is observed."""
    def play(p):
        w = wire.Wire(p.broker.host, p.broker.port, TIMEOUT)
        p.conns[conn] = w
        w.start()
        args = dict(kw)
        tune = w.login(args.pop('user', 'guest'), args.pop('password', 'guest'),
                       properties=wire.client_properties(capabilities))
        if tune.name != 'connection.tune':
            return p.observe(conn, 0, tune)
        w.frame_max = args.pop('frame_max', tune.frame_max)
        w.send_method(0, 'connection.tune-ok', heartbeat=args.pop('heartbeat', 0), frame_max=w.frame_max,
                      channel_max=args.pop('channel_max', tune.channel_max))
        w.send_method(0, 'connection.open', virtual_host=p.fill(args.pop('vhost', '/')))
        assert not args, args
        return p.take(conn, 0, ('connection.open-ok',))
    return Step('%s open %s' % (conn, _show(kw)), play, ['connection.start-ok', 'connection.tune-ok',
                                                          'connection.open'])


def close(conn='a'):
    def play(p):
        w = p.connection(conn)
        w.send_method(0, 'connection.close', reply_code=200, reply_text='bye')
        out = p.take(conn, 0, ('connection.close-ok',))
        p.forget(conn)
        w.abort()
        return out
    return Step('%s close' % conn, play, ['connection.close'])


def drop(conn='a'):
    """Cut the TCP connection without a word."""
    def play(p):
        w = p.forget(conn)
        if w:
            w.abort()
        return []
    return Step('%s drop' % conn, play)


def frame(kind, payload, conn='a', ch=1, end=wire.FRAME_END, opened=True, method=None):
    """Send one raw frame; payload may be a function of the player."""
    def play(p):
        w = p.channel(conn, ch) if opened else p.connection(conn)
        w.send_frame(kind, ch, payload(p) if callable(payload) else payload, end)
        return []
    return Step('%s%d frame type %s' % (conn, ch, kind), play, [method] if method else [])


def raw(data, conn='a', label=None):
    def play(p):
        p.connection(conn).send_bytes(data(p) if callable(data) else data)
        return []
    return Step('%s raw %s' % (conn, label or repr(data)[:40]), play)


def connect(conn='a', header=wire.PROTOCOL_HEADER):
    """Only TCP and a protocol header; observes connection.start, or the broker's own header and eof."""
    def play(p):
        w = wire.Wire(p.broker.host, p.broker.port, TIMEOUT)
        p.conns[conn] = w
        w.send_bytes(header)
        try:
            m = w.next(0, TIMEOUT)
            return [[m.name, {'version': (m.version_major, m.version_minor),
                              'mechanisms': sorted(m.mechanisms.split()), 'locales': m.locales,
                              'capabilities': m.server_properties['capabilities']}]]
        except wire.Eof:
            p.forget(conn)
            return [repr(w.raw_greeting), 'eof']
        except wire.Timeout:
            return [repr(w.raw_greeting), 'timeout']
    return Step('%s connect %r' % (conn, header), play)


def function(label, play, methods=()):
    """A step with its own code, for what the words above do not say."""
    return Step(label, play, methods)


# the answers, for `differs`

def closing(level, code, text, method=None):
    m = spec.METHODS[method] if method not in (None, ...) else None
    ids = (...,) * 2 if method is ... else (m.class_id, m.method_id) if m else (0, 0)
    out = [level + '.close', {'reply_code': code, 'reply_text': text, 'class_id': ids[0], 'method_id': ids[1]}]
    return [out]
