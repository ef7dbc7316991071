"""The load: publishers, workers, transactions and a queue that comes and goes, over a few connections in one thread.

Each actor has a channel of its own and reports to the model what it did and what it was told; nothing waits for an answer
but by its next turn. The loop ends when somebody pulled the plug or the broker went away.
"""
import os
import select
import socket
import sys
import time
from collections import deque

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "clients"))

import brokers  # noqa: E402
import model  # noqa: E402
import wire  # noqa: E402

PLACES = ("plain", "plain2", "rej-dead", "ttl", "ttl-dead", "ov", "ov-dead", "late", "txin", "txa", "txb", "beat")
ARGUMENTS = {
    "plain": {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "rej-dead"},
    "ttl": {"x-message-ttl": 80, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "ttl-dead"},
    "ov": {"x-max-length": 40, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "ov-dead"},
    "beat": {"x-max-length": 5},
}
CONNECTIONS = 3
BACKLOG = 250       # messages of one family that may wait before its publisher pauses


class Gone(Exception):
    """The broker went away: with a plug pulled that is the end of the load, otherwise it is a finding."""


def must(answer):
    if answer.name.endswith(".close") or answer.name == "basic.nack":
        raise wire.WireError("the broker answered %r" % (answer,))
    return answer


def connect(port):
    """A connection, however busy the machine is."""
    w = wire.Wire("127.0.0.1", port, 60)
    w.open()
    return w


def declare(w, name):
    must(w.call(1, "queue.declare", queue=name, durable=True, arguments=ARGUMENTS.get(name, {})))


def topology(port):
    w = connect(port)
    w.channel(1)
    for name in PLACES:
        declare(w, name)
    must(w.call(1, "exchange.declare", exchange="delayed", type="x-delayed-message", durable=True,
                arguments={"x-delayed-type": "direct"}))
    must(w.call(1, "queue.bind", queue="late", exchange="delayed", routing_key="late"))
    must(w.call(1, "exchange.declare", exchange="coming", type="direct", durable=True))
    w.close()


class Link:
    """One channel. `log` is what was sent and not settled, in order: a confirmed publish seals the acks before it."""

    def __init__(self, load, number, mode):
        self.load, self.model, self.random = load, load.model, load.random
        self.wire = load.wires[number % CONNECTIONS]
        self.number = number
        self.log, self.tag, self.waiting = deque(), 0, 0
        self.held = {}                                  # delivery tag -> (note, place)
        must(self.wire.channel(number))
        if mode:
            must(self.wire.call(number, mode + ".select"))
        load.links[self.wire, number] = self

    def send(self, name, **fields):
        self.load.out[self.wire].append(wire.encode_frame(wire.FRAME_METHOD, self.number, wire.encode_method(name, **fields)))

    def send_publish(self, exchange, key, body, **properties):
        method = wire.encode_method("basic.publish", exchange=exchange, routing_key=key)
        self.load.out[self.wire].append(self.wire.encode_content(self.number, method, body, dict(properties, delivery_mode=2)))

    def publish(self, family, place, size, exchange="", **properties):
        note, body = self.model.publish(family, place, size)
        self.send_publish(exchange, place, body, **properties)
        self.tag += 1
        self.waiting += 1
        self.log.append(("publish", self.tag, note, None))
        return note

    def consume(self, place, prefetch):
        self.send("basic.qos", prefetch_count=prefetch)
        self.send("basic.consume", queue=place, consumer_tag=place)

    def ack(self, tag, multiple=False):
        for each in [t for t in self.held if t <= tag] if multiple else [tag]:
            note, place = self.held.pop(each)
            self.model.ack(note, place)
            self.log.append(("ack", 0, note, place))
        self.send("basic.ack", delivery_tag=tag, multiple=multiple)

    def reject(self, tag, target):
        note, place = self.held.pop(tag)
        self.model.reject(note, place, target)
        self.log.append(("reject", 0, note, (place, target)))
        self.send("basic.reject", delivery_tag=tag, requeue=False)

    def requeue(self, tag):
        note, _ = self.held.pop(tag)
        self.model.requeued(note)
        self.send("basic.nack", delivery_tag=tag, requeue=True)

    def on_confirm(self, tag, multiple):
        keep = []
        if not any(what == "publish" and number == tag for what, number, _, _ in self.log):
            raise wire.WireError("a confirm of %d, which is not waited for" % tag)
        while self.log and (self.log[0][0] != "publish" or self.log[0][1] <= tag):
            what, number, note, place = self.log[0]
            if what == "publish":
                self.log.popleft()
                if number == tag or multiple:
                    self.waiting -= 1
                    self.load.confirmed += 1
                    self.model.confirm(note)
                else:
                    keep.append((what, number, note, place))
                if number == tag:
                    break
            else:
                self.log.popleft()
                if what == "ack":
                    self.model.sealed(note)
                else:
                    self.model.rejected(note, *place)
        self.log.extendleft(reversed(keep))

    def on_refused(self, tag, multiple):
        """Says nothing of the acks that were sent before."""
        for entry in [e for e in self.log if e[0] == "publish" and (e[1] == tag or (multiple and e[1] < tag))]:
            self.log.remove(entry)
            self.waiting -= 1
            self.model.refused(entry[2])

    # what actors add

    def turn(self):
        pass

    def on_delivery(self, tag, note, place):
        pass

    def on_ok(self, message):
        pass


class Publisher(Link):
    """Keeps a few publishes unconfirmed, of all sizes, some of them longer than one journal record."""

    def __init__(self, load, number, place, exchange=""):
        super().__init__(load, number, "confirm")
        self.place, self.exchange = place, exchange
        self.window = load.random.choice((1, 8, model.IN_DOUBT))

    def turn(self):
        r = self.random
        if self.load.backlog[self.place] > BACKLOG:
            return
        for _ in range(min(self.window - self.waiting, r.randrange(1, 12))):
            size = r.choice((60, 100, 300, 900, 2000))
            if r.random() < 0.004:
                size = r.choice((40000, 600000))
            headers = {"headers": {"x-delay": r.choice((1, 20, 120, 300))}} if self.exchange == "delayed" else {}
            self.publish(self.place, self.place, size, self.exchange, **headers)
            self.load.backlog[self.place] += 1


class Worker(Link):
    """Takes from plain; acknowledges and passes on, requeues, rejects, or keeps for a while."""

    def __init__(self, load, number):
        super().__init__(load, number, "confirm")
        self.consume("plain", load.random.choice((5, 40)))

    def on_delivery(self, tag, note, place):
        r, draw = self.random, self.random.random()
        self.load.backlog[place] -= 1
        if draw < 0.60:
            first = r.random() < 0.5
            if first:
                self.ack(tag)
            if self.load.backlog["plain2"] <= BACKLOG:
                self.publish("plain2", "plain2", r.choice((80, 500)))
                self.load.backlog["plain2"] += 1
            if not first:
                self.ack(tag, multiple=r.random() < 0.1)
        elif draw < 0.72:
            self.requeue(tag)
            self.load.backlog[place] += 1
        elif draw < 0.82:
            self.reject(tag, "rej-dead")
        if len(self.held) >= 4 and r.random() < 0.3:        # some of what was kept
            for each in list(self.held)[:3]:
                r.choice((self.ack, self.requeue, self.requeue))(each)


class Sink(Link):
    """Takes from the ends of all paths, acknowledges in batches, and publishes a beat now and then, which seals them."""

    def __init__(self, load, number):
        super().__init__(load, number, "confirm")
        self.batch = load.random.choice((1, 7, 30))
        for place in ("plain2", "rej-dead", "ttl-dead", "ov-dead", "late", "txa", "txb"):
            if load.random.random() < 0.7:
                self.consume(place, 30)

    def on_delivery(self, tag, note, place):
        self.load.backlog[note.key[0]] -= 1
        if len(self.held) >= self.batch and self.random.random() < 0.8:
            self.ack(tag, multiple=True)
        if self.random.random() < 0.2:
            self.publish("beat", "beat", 60)


class Transactor(Link):
    """Takes from txin and puts into txa and txb, in transactions: commits most, rolls some back."""

    def __init__(self, load, number):
        super().__init__(load, number, "tx")
        self.consume("txin", 20)
        self.busy = self.group = None

    def turn(self):
        r = self.random
        if self.busy or self.load.backlog["txa"] > BACKLOG or (not self.held and r.random() < 0.9):
            return
        members = []
        for place in ("txa", "txb"):
            for _ in range(r.randrange(1, 5)):
                size = 60 if r.random() < 0.97 else 200000
                note, body = self.model.publish(place, place, size, pending=True)
                self.send_publish("", place, body)
                members.append((note, place, None))
        taken = list(self.held)[:r.randrange(0, 4)]
        for tag in taken:
            self.send("basic.ack", delivery_tag=tag)
        if r.random() < 0.8:
            members += [(self.held.pop(tag)[0], None, "txin") for tag in taken]
            self.group = self.model.begin("a transaction", members)
            self.busy = "commit"
            self.load.backlog["txa"] += sum(1 for m in members if m[1] == "txa")
        else:
            self.busy = "rollback"
        self.send("tx." + self.busy)

    def on_ok(self, message):
        if message.name == "tx.commit-ok":
            self.model.settle(self.group, True)
            notes = sum(1 for _, yes, _ in self.group.members if yes)
            self.model.counts["commits"] += 1
            self.model.counts["confirmed"] += notes
            self.model.counts["acks"] += len(self.group.members) - notes
            self.load.confirmed += notes
            self.busy = None
        elif message.name == "tx.rollback-ok":
            self.busy = None

    def on_delivery(self, tag, note, place):
        self.load.backlog[place] -= 1


class Comer(Link):
    """Declares `come`, binds it, fills it, then deletes or purges it and begins again: what was in it may not come back."""

    def __init__(self, load, number):
        super().__init__(load, number, "confirm")
        self.members = []
        self.step = "declare"

    def turn(self):
        m, r = self.model, self.random
        if self.step == "declare":
            if m.queues.get("come") is not True:
                m.queue("come", None)
            self.send("queue.declare", queue="come", durable=True)
            self.send("queue.bind", queue="come", exchange="coming", routing_key="come")
            self.step = "declaring"
        elif self.step == "fill":
            for _ in range(r.randrange(3, 25)):
                self.members.append(self.publish("come", "come", r.choice((60, 700)), "coming"))
            self.step = "filling"
        elif self.step == "filling" and not self.waiting:
            self.what = r.choice(("delete", "delete", "purge"))
            left = [n for n in m.live.values() if n.key[0] == "come" and n.allowed == {"come"}]
            self.group = m.begin("queue." + self.what, [(n, None, "come") for n in left])
            if self.what == "delete":
                m.queue("come", None)
            self.send("queue." + self.what, queue="come")
            self.members, self.step = [], "ending"

    def on_ok(self, message):
        m = self.model
        if message.name == "queue.bind-ok":
            m.queue("come", True)
            self.step = "fill"
        elif message.name in ("queue.delete-ok", "queue.purge-ok"):
            if message.message_count != len(self.group.members):
                m.verdict("lost", "%s counts %d messages where %d were confirmed" % (
                    message.name, message.message_count, len(self.group.members)))
            m.settle(self.group, True)
            m.counts["removed"] += len(self.group.members)
            if self.what == "delete":
                m.queue("come", False)
            self.step = "declare" if self.what == "delete" else "fill"


# One publisher of each family, so that its numbers say what its order is.
ACTORS = ((Publisher, "plain"), (Publisher, "ttl"), (Publisher, "ov"), (Publisher, "txin"), (Publisher, "late", "delayed"),
          (Worker,), (Sink,), (Transactor,), (Comer,))


class Load:
    """Runs until `ended(load)` says so or the broker is gone; `confirmed` counts from its beginning."""

    def __init__(self, port, facts, random):
        self.model, self.random = facts, random
        self.confirmed = 0
        self.links = {}
        self.wires = [connect(port) for _ in range(CONNECTIONS)]
        self.by_socket = {w.sock: w for w in self.wires}
        self.out = {w: [] for w in self.wires}
        self.backlog = dict.fromkeys(PLACES, 0)         # about how many wait; a dead letter counts where it came from
        for note in facts.live.values():
            if note.key[0] in self.backlog and note.allowed != {None}:
                self.backlog[note.key[0]] += 1
        for number, (kind, *words) in enumerate(ACTORS, 1):
            kind(self, number, *words)

    def flush(self):
        for w, chunks in self.out.items():
            if chunks:
                w.send_bytes(b"".join(chunks))
                chunks.clear()

    def dispatch(self, message, w):
        link = self.links.get((w, message.channel))
        if message.name in ("connection.close", "channel.close", "basic.cancel"):
            raise Gone("%s %s" % (message.name, message.fields))
        if message.name == "basic.deliver":
            note = self.model.delivered(message.consumer_tag, message.body, message.redelivered)
            if note:
                link.held[message.delivery_tag] = note, message.consumer_tag
                link.on_delivery(message.delivery_tag, note, message.consumer_tag)
        elif message.name == "basic.ack":
            link.on_confirm(message.delivery_tag, message.multiple)
        elif message.name == "basic.nack":
            if self.model.may_refuse:
                link.on_refused(message.delivery_tag, message.multiple)
            else:
                self.model.verdict("lost", "a publish was refused with basic.nack")
        elif message.name not in ("connection.blocked", "connection.unblocked"):
            link.on_ok(message)

    def receive(self, w):
        """All whole messages that have arrived on one connection."""
        while True:
            box = [message for channel in list(w.inbox) for message in w.inbox.pop(channel)]
            for message in box:
                self.dispatch(message, w)
            try:
                w.pump(0)
            except wire.Timeout:
                return
            except (wire.Eof, OSError) as end:
                raise Gone(str(end)) from None

    def run(self, ended):
        """Returns None when `ended` said so, else how the broker went away."""
        last, idle_since = -1, time.monotonic()
        try:
            while not ended(self):
                for link in list(self.links.values()):
                    link.turn()
                self.flush()
                for sock in select.select(list(self.by_socket), [], [], 0.002)[0]:
                    self.take(self.by_socket[sock])
                if self.confirmed != last:
                    last, idle_since = self.confirmed, time.monotonic()
                elif time.monotonic() - idle_since > 120:
                    self.model.verdict("stuck", "nothing was confirmed for two minutes")
                    return "stuck"
        except Gone as gone:
            return str(gone)
        return None

    def take(self, w):
        try:
            w._fill(time.monotonic() + 1)
        except (wire.Eof, OSError) as end:
            raise Gone(str(end)) from None
        self.receive(w)

    def finish(self):
        """After the plug was pulled: what is still in the sockets was said by the broker and counts."""
        for w in self.wires:
            try:
                w.sock.setblocking(True)
                self.receive_rest(w)
            except Gone:
                pass
            w.abort()

    def receive_rest(self, w):
        try:
            while True:
                w._fill(time.monotonic() + 60)
        except (wire.WireError, OSError, socket.timeout):
            self.receive(w)
