"""The load of MQTT's clients: publishers of QoS 1 and 2, subscribers that acknowledge late, a share group, retained values, wills,
sessions that come and go.

Everything is spoken raw (mqtt_wire.py), so that after a death a client goes on with the session that it had: it sends again what was not
answered, with DUP, and knows which packet ids it holds. What an actor needs for that is in the model's memory.
"""
import select
import time

from load import Gone
import mqtt_model
import mqtt_wire
import wire
from mqtt_audit import Audit, topology  # noqa: F401: of the work that this module is
from mqtt_model import qos_of, topic_of
from mqtt_wire import CONNACK, DISCONNECT, DUP, FOREVER, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, RETAIN, SUBACK

Model = mqtt_model.Model
ERRORS = (wire.WireError, mqtt_wire.WireError, Gone, OSError)
TITLE = ", MQTT's clients"
CONFIRMS = (60, 600)            # answers of a cycle
BACKLOG = 400                   # messages of one place that may wait before publishers pause
PATIENCE = 120                  # seconds
NOT_FOUND = 0x92                # of a packet id
SLACK = 1.5                     # seconds by which a session may end late
DELAY = 3600                    # seconds of a will that is never due


def report_of(chain):
    """More lines of docs/crash.md."""
    c = chain.model.counts
    return ["", "*%s*: publishers of QoS 1 and 2, subscribers and a share group that acknowledge late, retained values, wills, sessions that "
            "come and go. *confirmed*: PUBACK and PUBREC; *acks*: PUBREL, or PUBACK sealed by a later publish; *audited*: messages in the "
            "queues of sessions, each time. %d messages sent again with DUP; %d wills armed, %d came due; %d retained values looked at; %d "
            "sessions of guests found again, %d expired." % (
                chain.name, c["resent"], c["wills"], c["due"], c["values"], c["found_again"], c["expired"])]


class Client:
    """One connection after the other of one client id. `memory` is what it keeps: numbers, and what has no answer."""
    version, clean, expiry = 5, False, FOREVER

    def __init__(self, load, name):
        self.load, self.model, self.random, self.name = load, load.model, load.random, name
        self.memory = load.model.memory.setdefault(name, {})
        if "out" not in self.memory:
            self.memory.update(out={}, number={}, session=None)
        self.open()

    # ---- connections

    def open(self):
        self.link = mqtt_wire.Link(self.load.port, self.version)
        self.phase, self.late = "connecting", []
        self.haste = self.random.choice((1.0, 1.0, 0.02))
        self.load.changed = True
        self.begin()

    def begin(self):
        """CONNECT. A session that this one ends may be there or not until the answer comes."""
        if self.clean:
            self.memory["session"] = None
        self.link.say(mqtt_wire.hello(self.version, self.name, self.clean, self.expiry, self.receive()))

    def receive(self):
        return 0

    def again(self):
        """Loses its connection, and has another."""
        self.link.close()
        self.open()

    def trouble(self, what):
        self.model.verdict("refused", "%s: %s" % (self.name, what))
        self.phase = "stopped"

    def take(self):
        """What has come."""
        link = self.link
        for got in link.packets():
            if self.link is not link:
                return                                  # it went on by another connection
            if got.kind == DISCONNECT:
                raise Gone("%s was disconnected: %#x" % (self.name, got.reason))
            if self.phase == "connecting" and got.kind != CONNACK:
                self.trouble("%r before CONNACK" % (got,))
            getattr(self, HANDLERS[got.kind], lambda got: None)(got)

    def on_connack(self, got):
        session = self.memory["session"]
        if got.reason:
            self.trouble("CONNACK with reason %#x" % got.reason)
            return
        if self.clean and got.present:
            self.model.verdict("back", "%s has a session although it began afresh" % self.name)
        elif session is not None and session != got.present:
            self.model.verdict("lost" if session else "back", "the session of %s is %sthere" % (self.name, "" if got.present else "not "))
        self.memory["session"] = True
        self.phase = "running"
        self.resume(got.present)

    def resume(self, present):
        """Section 4.4: what has no answer is sent again; without a session it is given up."""
        out = self.memory["out"]
        if not present:
            for stream in {row[0] for row in out.values()}:
                self.model.given_up(stream)
            out.clear()
        for id_, row in out.items():
            stream, number, body, flags, state = row[:5]
            if state == "released":
                self.link.say(mqtt_wire.answer(PUBREL, id_))
            elif state == "received":
                self.late.append(id_)
            else:
                self.model.resent(stream, number)
                self.link.publish(topic_of(stream), body, qos_of(stream), id_, flags | DUP)

    # ---- what it publishes

    def next_id(self):
        """The lowest that is free: what was said of it before may not be held against the next message."""
        return next(id_ for id_ in range(1, 65535) if id_ not in self.memory["out"])

    def publish(self, stream, size, retain=False, gone=False):
        m = self.memory
        number = m["number"][stream] = m["number"].get(stream, 0) + 1
        self.model.sent(stream, number)
        if retain:
            self.model.keeping(topic_of(stream), stream, number, gone)
        body = b"" if gone else mqtt_model.body_of(self.model.run, stream, number, size)
        id_, flags = self.next_id(), RETAIN if retain else 0
        m["out"][id_] = [stream, number, body, flags, "sent"]
        self.link.publish(topic_of(stream), body, qos_of(stream), id_, flags)
        return id_

    def answered(self, got, qos):
        """The row of what that is an answer to."""
        row = self.memory["out"].get(got.id)
        if got.reason >= 0x80:
            self.trouble("%r of %r" % (got, row and row[:2]))
            return None
        if not row or qos_of(row[0]) != qos:
            self.trouble("%r answers nothing" % (got,))
            return None
        return row

    def taken(self, row):
        self.model.acked(*row[:2])
        if row[3] & RETAIN:
            self.model.kept(topic_of(row[0]), *row[:2])
        self.load.confirmed += 1

    def on_puback(self, got):
        row = self.answered(got, 1)
        if row:
            self.taken(row)
            del self.memory["out"][got.id]
            self.settled(got.id)

    def on_pubrec(self, got):
        row = self.answered(got, 2)
        if row and row[4] == "sent":
            self.taken(row)
            row[4] = "received"
            self.late.append(got.id)

    def release(self):
        """PUBREL for what is late, or a part of it, in order."""
        count = len(self.late) if self.random.random() < 0.7 else self.random.randrange(len(self.late) + 1)
        for id_ in self.late[:count]:
            self.memory["out"][id_][4] = "released"
            self.memory["out"][id_].append(self.link)
            self.link.say(mqtt_wire.answer(PUBREL, id_))
        del self.late[:count]

    def on_pubcomp(self, got):
        row = self.memory["out"].pop(got.id, None)
        if not row or row[4] != "released":
            self.trouble("%r answers nothing" % (got,))
        elif got.reason and not (got.reason == NOT_FOUND and row[5:] != [self.link]):
            self.model.verdict("lost", "%s: PUBCOMP with reason %#x of %s #%d, which PUBREC had taken" % (self.name, got.reason, *row[:2]))
        else:
            self.load.confirmed += 1

    def settled(self, id_):
        pass

    def turn(self):
        if self.phase == "running" and self.late and self.random.random() < self.haste:
            self.release()

    def closed(self):
        """Whether it may end without a word."""
        return False


HANDLERS = {CONNACK: "on_connack", PUBLISH: "on_publish", PUBACK: "on_puback", PUBREC: "on_pubrec", PUBREL: "on_pubrel",
            PUBCOMP: "on_pubcomp", SUBACK: "on_suback"}


class Publisher(Client):
    """Several messages in flight, of both QoS, on a few topics; now and then a new connection, or (5) a new session."""

    def __init__(self, load, name):
        self.version = 4 if name == "pub-1" else 5
        self.streams = ["s/%s:%d" % (name, q) for q in (1, 2)] if name.startswith("job") else [
            "m/%s/%s:%d" % (name, t, q) for t in "ab" for q in (1, 2)]
        self.clean = self.version == 5 and load.random.random() < 0.15
        super().__init__(load, name)
        self.window = self.random.choice((1, 8, 30))

    def again(self):
        self.clean = self.version == 5 and self.random.random() < 0.15
        super().again()

    def turn(self):
        r = self.random
        super().turn()
        if self.phase != "running" or self.load.crowded():
            return
        if r.random() < 0.002:
            self.again()
            return
        for _ in range(min(self.window - len(self.memory["out"]), r.randrange(1, 8))):
            self.publish(r.choice(self.streams), r.choice((60, 100, 300, 900, 3000)) if r.random() < 0.995 else 300000)


class Keeper(Client):
    """Retained values that come, change and go."""
    TOPICS = ["r/%d/%d:%d" % (q, i, q) for q in (1, 2) for i in range(6)]

    def turn(self):
        r = self.random
        super().turn()
        if self.phase == "running" and len(self.memory["out"]) < 6 and r.random() < 0.5:
            self.publish(r.choice(self.TOPICS), r.choice((60, 200, 1500)), True, r.random() < 0.25)
        if self.phase == "running" and r.random() < 0.002:
            self.again()


class Subscriber(Client):
    """Acknowledges late, and publishes a beat now and then: its answer seals the PUBACKs before it."""

    def __init__(self, load, name):
        self.version = mqtt_model.SESSIONS[name][0]
        self.beat = "m/%s/beat:1" % name
        super().__init__(load, name)
        self.pace = self.random.choice((0.1, 0.5, 1.0))

    def open(self):
        self.held, self.comps, self.log = [], [], []        # log: PUBACKs and beats, in order
        super().open()

    def receive(self):
        return self.random.choice((1, 10, 60, 65535))

    def on_publish(self, got):
        key = mqtt_model.key_of(self.model.run, got.body)
        qos, dup = got.flags >> 1 & 3, got.flags & DUP
        has = self.model.received[self.name].get(got.id) if qos == 2 else None
        if key is None or got.topic != topic_of(key[0]):
            self.model.verdict("phantom", "%s got %d bytes on %s that nobody sent" % (self.name, len(got.body), got.topic))
            return
        if qos != mqtt_model.places_of(key[0]).get(mqtt_model.place_of(self.name)):
            self.model.verdict("phantom", "%s got %s #%d with QoS %d" % (self.name, *key, qos))
            return
        if has and has != key:
            self.model.verdict("lost", "%s got %s #%d as packet id %d, which it still holds for %s #%d: it takes it for that" % (
                self.name, *key, got.id, *has))
            return
        if has and not dup:
            self.model.verdict("unflagged", "%s got %s #%d again as packet id %d without DUP" % (self.name, *key, got.id))
        if has:
            self.model.held(self.name, *key)
        else:
            self.model.got(self.name, *key, bool(dup))
        if qos == 2 and not has:
            self.model.rec(self.name, got.id, *key)
        self.held.append((got.id, qos, key))

    def acknowledge(self):
        """The oldest of its QoS (4.6), or the oldest of all."""
        kind = self.random.choice((1, 2))
        id_, qos, key = self.held.pop(next((i for i, row in enumerate(self.held) if row[1] == kind), 0))
        self.model.acking(self.name, *key)
        self.link.say(mqtt_wire.answer(PUBACK if qos == 1 else PUBREC, id_))
        if qos == 1:
            self.log.append(key)

    def on_pubrel(self, got):
        self.model.rel(self.name, got.id)
        self.comps.append(got.id)

    def settled(self, id_):
        """All PUBACKs that were sent before this beat are done with."""
        if id_ in self.log:
            at = self.log.index(id_)
            for key in self.log[:at]:
                if not isinstance(key, int):
                    self.model.sealed(self.name, *key)
            del self.log[:at + 1]

    def turn(self):
        r = self.random
        super().turn()
        if self.phase != "running":
            return
        while self.held and r.random() < self.pace:
            self.acknowledge()
        while self.comps and r.random() < 0.5:
            self.link.say(mqtt_wire.answer(PUBCOMP, self.comps.pop(0)))
        if len(self.log) > 20 and not self.memory["out"] and r.random() < 0.2:
            self.log.append(self.publish(self.beat, 60))
        elif r.random() < 0.001:
            self.again()


class WillOwner(Client):
    """Has a will; goes with DISCONNECT, or without a word, or stays until the broker dies."""
    KINDS = {"will-0": (4, True), "will-1": (5, False), "will-2": (5, True)}       # version, retain

    def __init__(self, load, name):
        self.version, self.retain = self.KINDS[name]
        self.lasting = name == "will-2"
        self.clean, self.expiry = not self.lasting, FOREVER if self.lasting else 0
        self.stream = "w/%s:1" % name
        self.said = 0
        super().__init__(load, name)

    def begin(self):
        m = self.memory
        number = m["number"][self.stream] = m["number"].get(self.stream, 0) + 1
        delay = DELAY if self.lasting and self.random.random() < 0.4 else 0
        self.model.will_sent(self.name, number, delay > 0, self.retain)
        body = mqtt_model.body_of(self.model.run, self.stream, number, 80)
        if self.clean:
            m["session"] = None
        self.link.say(mqtt_wire.hello(self.version, self.name, self.clean, self.expiry, 0, (topic_of(self.stream), body, self.retain, delay)))

    def resume(self, present):
        """Nothing is sent again here: whoever is offline is not online."""
        m = self.memory
        for stream in (self.stream, self.stream + ":on"):
            self.model.given_up(stream)
        m["out"].clear()
        self.model.will_armed(self.name)
        self.said = 0

    def turn(self):
        r = self.random
        super().turn()
        if self.phase != "running":
            return
        if self.said < 2 and r.random() < 0.3:
            self.said += 1
            self.publish(self.stream + ":on", 60, self.retain)
        elif r.random() < 0.01:
            self.model.will_parting(self.name)
            self.link.say(b"\xe0\0")
            self.phase = "parting"
        elif r.random() < 0.01:
            self.model.will_cut(self.name)
            self.again()

    def closed(self):
        if self.phase != "parting":
            return False
        self.model.will_over(self.name)
        self.again()
        return True


class Guest(Client):
    """A session of its own for each number: subscribed, left, found again with what came meanwhile, or expired; then ended."""

    def __init__(self, load, name):
        self.memory = load.model.memory.setdefault(name, {"guest": 1, "step": "new", "expiry": FOREVER, "left": 0.0, "owed": []})
        self.load = load
        self.here = self.memory["step"]
        super().__init__(load, name)

    def begin(self):
        m = self.memory
        self.here = m["step"]
        self.topic = "g/%s-%d" % (self.name, m["guest"])
        self.clean = m["step"] in ("new", "end")
        if m["step"] == "new":
            m["expiry"] = self.random.choice((1, FOREVER, FOREVER))
        self.expiry = 0 if m["step"] == "end" else m["expiry"]
        self.since = time.monotonic()
        self.link.say(mqtt_wire.hello(5, "%s-%d" % (self.name, m["guest"]), self.clean, self.expiry))

    def on_connack(self, got):
        m = self.memory
        self.phase = "running"
        if got.reason:
            self.trouble("CONNACK with reason %#x" % got.reason)
        elif self.clean and got.present:
            self.model.verdict("back", "%s has a session although it began afresh" % self.topic)
        elif m["step"] == "new":
            self.link.say(mqtt_wire.subscribe(5, (self.topic, 1), pid=65535))
        elif m["step"] == "end":
            self.next_guest()
        elif m["step"] == "left":
            self.found(got.present)

    def found(self, present):
        """Its session is there as long as it may be, and with it all that was acknowledged."""
        m = self.memory
        away = time.monotonic() - max(m["left"], self.load.began)
        surely = m["expiry"] == FOREVER or (not self.load.clock_jumps and time.monotonic() - m["left"] < m["expiry"])
        self.model.counts["found_again" if present else "expired"] += 1
        if not present and surely:
            self.model.verdict("lost", "the session of %s is not there; it was left %.1f s ago" % (self.topic, away))
        elif present and m["expiry"] == 1 and not self.load.clock_jumps and self.since - max(m["left"], self.load.began) > m["expiry"] + SLACK:
            self.model.verdict("back", "the session of %s is there %.1f s after its end" % (self.topic, away - m["expiry"]))
        if not present:
            m["step"] = "end"
            self.again()
            return
        m["out"].clear()
        self.publish(self.topic + ":1", 60)
        self.got = []

    def on_suback(self, got):
        if got.codes != b"\1":
            self.trouble("SUBACK says %r" % got.codes)
            return
        self.memory.update(step="left", left=time.monotonic())      # should it die now
        for _ in range(3):
            self.publish(self.topic + ":1", 60)

    def taken(self, row):
        super().taken(row)
        self.memory["owed"].append(row[1])
        if self.here == "new" and len(self.memory["owed"]) == 3:
            self.leave()

    def leave(self):
        """With DISCONNECT, or without; nothing that it gets is acknowledged."""
        self.memory.update(step="left", left=time.monotonic())
        if self.random.random() < 0.5:
            self.link.say(b"\xe0\0")
            self.phase = "parting"
        else:
            self.phase = "away"
            self.link.close()

    def on_publish(self, got):
        key = mqtt_model.key_of(self.model.run, got.body)
        if not key or topic_of(key[0]) != self.topic:
            self.model.verdict("phantom", "%s got %r" % (self.topic, key))
        elif self.here == "left":
            self.got.append(key[1])
            if key[1] == self.memory["number"][key[0]]:
                self.all_came()

    def all_came(self):
        """What it has just sent has come: so has all that stood before it."""
        m = self.memory
        missing = [n for n in m["owed"] if n not in self.got]
        if missing:
            self.model.verdict("lost", "%s #%s is not in its session" % (self.topic, missing))
        if self.got != sorted(self.got):
            self.model.verdict("order", "%s got %s" % (self.topic, self.got))
        m["step"] = "end"
        self.again()

    def next_guest(self):
        m = self.memory
        m.update(guest=m["guest"] + 1, step="new", owed=[], out={}, number={})
        self.again()

    def turn(self):
        super().turn()
        if self.phase == "away" and time.monotonic() - self.memory["left"] > (3 if self.memory["expiry"] == 1 else 0.3):
            self.open()

    def closed(self):
        if self.phase == "parting":
            self.phase = "away"
            self.memory["left"] = time.monotonic()
            self.link.close()
            return True
        return self.phase == "away"


ACTORS = ((Publisher, "pub-0"), (Publisher, "pub-1"), (Publisher, "job-0"), (Keeper, "keeper"), (Subscriber, "sub-a"), (Subscriber, "sub-b"),
          (Subscriber, "share-0"), (Subscriber, "share-1"), (Subscriber, "share-2"), (WillOwner, "will-0"), (WillOwner, "will-1"),
          (WillOwner, "will-2"), (Guest, "guest-a"), (Guest, "guest-b"))


class Load:
    """Runs until `ended(load)` says so or the broker is gone; `confirmed` counts answers since its beginning."""

    def __init__(self, port, facts, random_):
        self.port, self.model, self.random = port, facts, random_
        self.confirmed, self.changed = 0, False
        self.began = time.monotonic()
        self.clock_jumps = "history" in facts.run
        self.actors = [kind(self, name) for kind, name in ACTORS]

    def crowded(self):
        return any(len(entries) > BACKLOG for entries in self.model.open.values())

    def run(self, ended):
        """Returns None when `ended` said so, else how the broker went away."""
        last, idle_since = -1, time.monotonic()
        by_socket = {}
        try:
            while not ended(self):
                for actor in self.actors:
                    actor.turn()
                    if actor.phase != "away":
                        actor.link.flush()
                if self.changed:
                    by_socket = {a.link.socket: a for a in self.actors if a.phase != "away"}
                    self.changed = False
                for sock in select.select([s for s in by_socket if s.fileno() >= 0], [], [], 0.002)[0]:
                    self.take(by_socket[sock], sock)
                if any(a.phase == "stopped" for a in self.actors):
                    return None
                if self.confirmed != last:
                    last, idle_since = self.confirmed, time.monotonic()
                elif time.monotonic() - idle_since > PATIENCE:
                    self.model.verdict("stuck", "nothing was answered for two minutes: %s" % [(a.name, a.phase) for a in self.actors])
                    return "stuck"
        except (Gone, OSError) as gone:
            return str(gone)
        return None

    def take(self, actor, sock):
        if actor.link.socket is not sock:
            return
        try:
            actor.take()
        except Gone:
            if not actor.closed():
                raise

    def finish(self):
        """After the plug was pulled: what is still in the sockets was said by the broker and counts."""
        for actor in self.actors:
            deadline, link = time.monotonic() + 60, actor.link
            try:
                while time.monotonic() < deadline and actor.phase != "away" and actor.link is link:
                    select.select([link.socket], [], [], 1)
                    actor.take()
            except (Gone, OSError):
                pass
            actor.link.close()
