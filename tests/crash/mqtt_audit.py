"""The audit of MQTT's clients: it comes as each of the sessions, takes what their queues have without acknowledging, and looks at all
retained values; or, as a drain, it acknowledges all of it, as the client that it is.

A queue has been taken when what was published to it last has come; wills that are due may come behind that.
"""
import time

import mqtt_model
import mqtt_wire
from load import connect
from mqtt_model import GROUP, SESSIONS, place_of, topic_of
from mqtt_wire import DUP, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, RETAIN, SUBACK

ANCHOR = "r/anchor:1"
SENTINELS = ("m/audit/a:1", "s/audit:1")        # the last to each session, and to the group
SUBS = tuple(SESSIONS)                          # who takes
MEMBERS = tuple(client for client in SUBS if place_of(client) == GROUP)
PATIENCE = 120


def greet(port, client, version, **words):
    link = mqtt_wire.Link(port, version)
    link.say(mqtt_wire.hello(version, client, **words))
    said = link.wait_for(mqtt_wire.CONNACK)
    if said.reason:
        raise mqtt_wire.WireError("CONNACK of %s says %#x" % (client, said.reason))
    return link, said.present


def topology(port):
    """Sessions with their subscriptions, and a retained value that stays."""
    for client, (version, filters) in SESSIONS.items():
        link, _ = greet(port, client, version)
        link.say(mqtt_wire.subscribe(version, *filters))
        if any(code > 2 for code in link.wait_for(SUBACK).codes):
            raise mqtt_wire.WireError("%s may not subscribe" % client)
        link.close()
    link, _ = greet(port, "audit", 5, clean=True, expiry=0)
    link.publish(topic_of(ANCHOR), b"anchor", 1, 1, RETAIN)
    link.wait_for(PUBACK)
    link.close()
    connect(port).close()


class Audit:
    def __init__(self, port, facts, patience):
        self.port, self.model, self.patience = port, facts, patience
        self.links = {}
        self.found = {place: [] for place in mqtt_model.PLACES}
        self.released, self.answered = {}, {}
        self.count = 0

    def queues(self):
        """Nothing of it can be seen but by coming as its owner."""
        return True

    def abort(self):
        for link in self.links.values():
            link.close()

    def come(self, client):
        link, present = greet(self.port, client, SESSIONS[client][0])
        self.links[client] = link
        self.released[client] = []
        if not present:
            self.model.verdict("lost", "the session of %s is not there" % client)

    def sentinels(self, streams):
        """Published last: {stream: key}"""
        last = {}
        link, _ = greet(self.port, "audit", 5, clean=True, expiry=0)
        for id_, stream in enumerate(streams, 1):
            number = self.model.sent_upto[stream] + 1
            self.model.given_up(stream)
            self.model.sent(stream, number)
            link.publish(topic_of(stream), mqtt_model.body_of(self.model.run, stream, number, 60), 1, id_, 0)
            last[stream] = stream, number
        for stream in streams:
            link.wait_for(PUBACK)
            self.model.acked(stream, self.model.sent_upto[stream])
        link.close()
        return last

    def take(self, stop_after=None):
        """Everything that the sessions have; true when stopped before that. What a member of the group is to have with QoS 2 moves into his
        queue: when the group's last has come, his own last comes behind all of it."""
        sessions, group = SENTINELS
        last = self.sentinels(SENTINELS)
        for client in SUBS:
            if client not in MEMBERS and self.read(client, last[sessions], stop_after):
                return True
        if self.read_group(last[group], stop_after):
            return True
        last = self.sentinels(["e/%s:1" % client for client in MEMBERS])
        return any(self.read(client, last["e/%s:1" % client], stop_after) for client in MEMBERS)

    def read_group(self, last, stop_after):
        """Until `last` has come to one of the members; true when stopped before that."""
        deadline, came = time.monotonic() + self.patience, False
        while not came:
            quiet = True
            for client in MEMBERS:
                got = self.links[client].next(0.05)
                quiet &= got is None
                came |= got is not None and self.see(client, got) == last
                if stop_after is not None and self.count >= stop_after:
                    return True
            if not came and time.monotonic() > deadline:
                self.model.verdict("stuck", "nobody of the group gets %s #%d within %d s" % (*last, self.patience))
                return False
            if quiet:
                for client in MEMBERS:
                    self.settle(client)
        return False

    def see(self, client, got):
        """A packet of a session; the key of its message."""
        if got.kind == PUBREL:
            self.released[client].append(got.id)
        if got.kind != PUBLISH:
            return None
        key = mqtt_model.key_of(self.model.run, got.body)
        if key is None or topic_of(key[0]) != got.topic:
            self.model.verdict("phantom", "%s got %d bytes on %s that nobody sent" % (client, len(got.body), got.topic))
            return None
        has = self.model.received[client].get(got.id) if got.flags >> 1 & 3 == 2 else None
        if has and has != key:
            self.model.verdict("lost", "%s got %s #%d as packet id %d, which it still holds for %s #%d: it takes it for that" % (
                client, *key, got.id, *has))
        elif has and not got.flags & DUP:
            self.model.verdict("unflagged", "%s got %s #%d again as packet id %d without DUP" % (client, *key, got.id))
        if has:
            self.model.held(client, *key)
        else:
            self.model.got(client, *key, bool(got.flags & DUP))
        self.found[place_of(client)].append((client, *key, got.id))
        self.count += 1
        return key

    def read(self, client, last, stop_after=None):
        """Until `last` has come and whatever is due; true when stopped before that."""
        deadline, place, came = time.monotonic() + self.patience, place_of(client), False
        while True:
            due = came and self.model.due(place, {row[1:3] for row in self.found[place]})
            late = time.monotonic() > deadline
            if late and not came:
                self.model.verdict("stuck", "%s does not get %s #%d within %d s; it got %d messages" % (
                    client, *last, self.patience, len(self.found[place])))
            if (came and not due) or late:
                return False
            got = self.links[client].next(1)
            if got is None and not came:
                self.settle(client)
            came |= got is not None and self.see(client, got) == last
            if stop_after is not None and self.count >= stop_after:
                return True

    def settle(self, client):
        """Acknowledges all that it has. Packet ids follow from places in queues, which a restart moves on by thousands: after some restarts
        the next message may be waiting for the end of an old one."""
        mine = [row for row in self.found[place_of(client)] if row[0] == client]
        for _, stream, number, id_ in mine[self.answered.get(client, 0):]:
            once = mqtt_model.places_of(stream)[place_of(client)] == 2
            if once and id_ not in self.model.received[client]:
                self.model.rec(client, id_, stream, number)
            self.model.acking(client, stream, number)
            self.links[client].say(mqtt_wire.answer(PUBREC if once else PUBACK, id_))
        self.answered[client] = len(mine)
        for id_ in self.released[client]:
            if id_ in self.model.received[client]:
                self.model.rel(client, id_)
            self.links[client].say(mqtt_wire.answer(PUBCOMP, id_))
        self.released[client] = []

    def full(self, drain):
        for client in SUBS:
            self.come(client)
        self.take()
        self.model.audit(self.found, {client: list(ids) for client, ids in self.released.items()})     # a tape keeps it, and a drain goes on
        self.model.audit_retained(self.values())
        if drain:
            self.drain()
        self.abort()

    def values(self):
        """{topic: (stream, number)} of all retained values: when the anchor comes a second time, by a later subscription, all have come."""
        link, _ = greet(self.port, "retained", 4, clean=True)
        link.say(mqtt_wire.subscribe(4, ("r/#", 0), ("w/#", 0)) + mqtt_wire.subscribe(4, (topic_of(ANCHOR), 0), pid=2))
        out, anchors = {}, 0
        deadline = time.monotonic() + self.patience
        while anchors < 2:
            got = link.next(1)
            if time.monotonic() > deadline:
                self.model.verdict("lost", "%s came %d times" % (topic_of(ANCHOR), anchors))
                break
            if got is None or got.kind != PUBLISH or not got.flags & RETAIN:
                continue
            key = mqtt_model.key_of(self.model.run, got.body)
            if got.topic == topic_of(ANCHOR):
                anchors += 1
            elif key is None or topic_of(key[0]) != got.topic:
                self.model.verdict("phantom", "%s has a retained value of %d bytes that nobody sent" % (got.topic, len(got.body)))
            else:
                out[got.topic] = key
        link.close()
        return out

    def partial(self, stop_after):
        """Deliveries that a kill -9 interrupts: they were seen, so they come back flagged."""
        for client in SUBS:
            self.come(client)
        return self, self.take(stop_after)

    # ---- a drain

    def drain(self):
        """All of it is acknowledged; a publish seals PUBACK, PUBREL seals PUBREC."""
        for client, link in self.links.items():
            mine = [row for row in self.found[place_of(client)] if row[0] == client]
            self.settle(client)
            while self.model.received[client].keys() & {row[3] for row in mine}:
                id_ = link.wait_for(PUBREL).id
                self.model.rel(client, id_)
                link.say(mqtt_wire.answer(PUBCOMP, id_))
            self.seal(client, link, mine)
        self.model.counts["drains"] += 1

    def seal(self, client, link, mine):
        stream = "m/audit/%s:1" % client
        number = self.model.sent_upto[stream] + 1
        self.model.given_up(stream)
        self.model.sent(stream, number)
        link.publish(topic_of(stream), mqtt_model.body_of(self.model.run, stream, number, 60), 1, 65535, 0)
        link.wait_for(PUBACK)
        self.model.acked(stream, number)
        for _, other, n, _ in mine:
            if mqtt_model.places_of(other)[place_of(client)] == 1:
                self.model.sealed(client, other, n)
