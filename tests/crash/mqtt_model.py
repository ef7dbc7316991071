"""What MQTT's clients know of their messages, retained values and wills, and what an audit after a death must find.

A stream is what one client publishes to one topic with one QoS: TOPIC:QOS, or TOPIC:QOS:WORD where there are two. Its messages are
numbered and carry run, stream, number and a CRC (model.body_of). A place is a queue of the broker's: that of a session, or, of a share
group, its own and those of its members together. Facts are what the broker said: PUBACK, PUBREC, a PUBLISH, a PUBREL, a CONNACK. All arguments are plain values, so that a tape
(tape.py) can keep them.

An entry is one message in one place. It may lie there as often as it was sent with QoS 1 and once with QoS 2; it is `sure` when its
publisher has its answer or it was delivered, until somebody acknowledges it.
"""
import collections
import functools

from model import VERDICTS, body_of, key_of  # noqa: F401: of whoever uses this module

TOLD = ("ready", "sent", "resent", "acked", "given_up", "got", "held", "acking", "sealed", "rec", "rel", "keeping", "kept", "will_sent", "will_armed",
        "will_parting", "will_cut",
        "will_over", "crash", "audit", "audit_retained")

# Sessions that outlive everything: version, filters and their QoS.
SHARED = (("$share/g/s/#", 2),)
SESSIONS = {
    "sub-a": (5, (("m/#", 2), ("w/#", 1))),
    "sub-b": (4, (("m/+/a", 1), ("m/pub-1/#", 2))),
    "share-0": (5, SHARED + (("e/share-0", 1),)), "share-1": (5, SHARED + (("e/share-1", 1),)), "share-2": (4, SHARED + (("e/share-2", 1),)),
}
WILLS = ("w/will-0:1", "w/will-1:1", "w/will-2:1")
GROUP = "g"
PLACES = ("sub-a", "sub-b", GROUP)


def place_of(client):
    return GROUP if client.startswith("share-") else client


def topic_of(stream):
    return stream.split(":")[0]


def qos_of(stream):
    return int(stream.split(":")[1])


def matches(pattern, topic):
    want, have = pattern.split("/"), topic.split("/")
    for i, word in enumerate(want):
        if word == "#":
            return True
        if i >= len(have) or word not in ("+", have[i]):
            return False
    return len(want) == len(have)


@functools.lru_cache(None)
def places_of(stream):
    """{place: QoS with which it comes from there}"""
    out = {}
    for client, (_, filters) in SESSIONS.items():
        for pattern, qos in filters:
            pattern = pattern.split("/", 2)[2] if pattern.startswith("$share/") else pattern
            if matches(pattern, topic_of(stream)):
                out[place_of(client)] = max(out.get(place_of(client), 0), min(qos, qos_of(stream)))
    return out


class Entry:
    __slots__ = ("sure", "sends", "copies", "fresh", "seen", "acking", "once", "again", "final")

    def __init__(self, again=False):
        self.sends = self.copies = 1    # how often it was sent; how often it may lie there
        self.fresh = 0                  # deliveries without DUP
        self.sure = self.seen = self.acking = self.final = False
        self.once = False               # somebody has done with one of its copies
        self.again = again              # it is a copy of what had been done with


class Kept:
    """Retained values of one topic: what was sent, from the last one on that is known to have happened."""

    def __init__(self):
        self.ops, self.known = [], False        # (stream, number, gone); whether the first is known


class Will:
    __slots__ = ("number", "delayed", "retain", "armed", "lost")

    def __init__(self, number, delayed, retain):
        self.number, self.delayed, self.retain = number, delayed, retain
        self.armed = self.lost = False


def will_of(client):
    return "w/%s:1" % client


class Model:
    def __init__(self, run):
        self.run = run
        self.found, self.counts, self.details = collections.Counter(), collections.Counter(), []
        self.where = ""
        self.sent_upto = collections.Counter()                      # stream -> number
        self.open = {place: {} for place in PLACES}                 # (stream, number) -> Entry
        self.done = {place: set() for place in PLACES}
        self.top = collections.Counter()                            # (place, stream) -> the highest that has come
        self.received = collections.defaultdict(dict)               # client -> packet id of QoS 2 without PUBREL -> (stream, number)
        self.retained = collections.defaultdict(Kept)               # topic
        self.wills = {}                                             # client -> Will, of its connection
        self.memory = {}                                            # of the actors, from life to life; nothing of it is checked
        self.topology = False

    def verdict(self, name, text):
        self.found[name] += 1
        if self.found[name] <= 10:
            self.details.append("%s: %s (%s)" % (name, text, self.where))

    # ---- what publishers do and are told

    def ready(self):
        self.topology = True

    def sent(self, stream, number):
        """For the first time."""
        self.sent_upto[stream] = number
        for place in places_of(stream):
            self.open[place][stream, number] = Entry()

    def resent(self, stream, number):
        """Once more, since there was no answer."""
        self.counts["resent"] += 1
        for place in places_of(stream):
            entry = self.open[place].get((stream, number))
            if qos_of(stream) == 2:
                if entry:
                    entry.copies = 1
            elif entry:
                entry.copies += 1
                entry.sends += 1
            else:
                self.open[place][stream, number] = Entry(again=(stream, number) in self.done[place])

    def acked(self, stream, number):
        """PUBACK, or PUBREC."""
        self.counts["confirmed"] += 1
        self.certain(stream, number)

    def certain(self, stream, number):
        for place in places_of(stream):
            entry = self.open[place].get((stream, number))
            if entry and not entry.again:
                entry.sure = True

    def given_up(self, stream):
        """Its publisher is another one now: what has no answer is there or not, and is not sent again."""
        for place in places_of(stream):
            for (other, _), entry in self.open[place].items():
                if other == stream and not entry.sure:
                    entry.final = True

    # ---- what subscribers do and are told

    def got(self, client, stream, number, dup):
        """A PUBLISH of what this client does not have under that packet id."""
        place, key = place_of(client), (stream, number)
        entry = self.open[place].get(key)
        self.counts["flagged"] += bool(dup)
        if place not in places_of(stream) or number > self.sent_upto[stream]:
            self.verdict("phantom", "%s got %s #%d, which nobody sent to it" % (client, *key))
            return
        if not entry:
            known = key in self.done[place]
            self.verdict(("duplicate" if qos_of(stream) == 2 else "back") if known else "phantom", "%s got %s #%d, %s" % (
                client, *key, "which was done with" if known else "which had not been taken"))
            return
        self.got_flagged(client, key, entry, dup)
        if place != GROUP and not entry.seen and key not in self.done[place]:
            if number < self.top[place, stream]:
                self.verdict("order", "%s got %s #%d behind #%d" % (client, *key, self.top[place, stream]))
            self.top[place, stream] = max(number, self.top[place, stream])
        entry.seen = True
        entry.acking = False
        entry.sure = not entry.again

    def held(self, client, stream, number):
        """A PUBLISH of what this client has under that packet id: what it answered was not heard."""
        entry = self.open[place_of(client)].get((stream, number))
        if entry:
            entry.acking = False

    def got_flagged(self, client, key, entry, dup):
        if dup:
            return
        entry.fresh += 1
        if entry.fresh > entry.sends:
            self.verdict("unflagged" if entry.sends == 1 else "duplicate", "%s got %s #%d %d times without DUP; it was sent %d times" % (
                client, *key, entry.fresh, entry.sends))

    def acking(self, client, stream, number):
        """PUBACK or PUBREC was sent."""
        entry = self.open[place_of(client)].get((stream, number))
        if entry:
            entry.acking = True
            entry.once |= entry.copies > 1

    def sealed(self, client, stream, number):
        """It is known that the broker has done with it."""
        place, key = place_of(client), (stream, number)
        entry = self.open[place].get(key)
        if not entry:
            return
        self.counts["acks"] += 1
        entry.copies -= 1
        entry.once = True
        entry.acking = False
        if entry.copies <= 0:
            self.over(place, key)

    def over(self, place, key):
        del self.open[place][key]
        self.done[place].add(key)
        for client, ids in self.received.items():       # of a group: another member has done it
            if place == GROUP and place_of(client) == GROUP:
                for id_ in [i for i, each in ids.items() if each == key]:
                    del ids[id_]

    def rec(self, client, id_, stream, number):
        """The client keeps the packet id of a message of QoS 2."""
        self.received[client][id_] = (stream, number)

    def rel(self, client, id_):
        """PUBREL."""
        key = self.received[client].pop(id_, None)
        if key:
            self.sealed(client, *key)

    # ---- retained values

    def keeping(self, topic, stream, number, gone):
        self.retained[topic].ops.append((stream, number, gone))

    def kept(self, topic, stream, number):
        """That one has happened: what was before it is past."""
        kept = self.retained[topic]
        for i, op in enumerate(kept.ops):
            if op[:2] == (stream, number):
                del kept.ops[:i]
                kept.known = True
                return

    # ---- wills

    def will_sent(self, client, number, delayed, retain):
        """CONNECT. Delayed: it is never due, for its client comes back, or nobody is here to see it."""
        self.wills[client] = Will(number, delayed, retain)
        if delayed:
            self.sent_upto[will_of(client)] = number
        else:
            self.sent(will_of(client), number)

    def will_armed(self, client):
        """CONNACK: a will from before has been published by now, or never is."""
        self.wills[client].armed = True
        self.counts["wills"] += 1

    def will_parting(self, client):
        """DISCONNECT, which has no answer: a death at once may make a loss of it."""
        will = self.wills[client]
        self.will_lost(client, will)
        will.armed = False

    def will_cut(self, client):
        """The connection is lost."""
        will = self.wills.pop(client)
        self.will_lost(client, will)
        if will.armed and not will.delayed:
            self.counts["due"] += 1
            self.certain(will_of(client), will.number)
            self.kept("w/" + client, will_of(client), will.number)

    def will_lost(self, client, will):
        """It may be published from now on, behind all that its client has sent."""
        if will.retain and not will.delayed and not will.lost:
            self.keeping("w/" + client, will_of(client), will.number, False)
        will.lost = True

    def will_over(self, client):
        """The connection has ended behind its DISCONNECT."""
        del self.wills[client]

    def crash(self):
        for client in list(self.wills):
            self.will_cut(client)

    # ---- the audit

    def due(self, place, found):
        """Wills that must come and have not: they come by themselves, behind whatever was there."""
        return [key for key, entry in self.open[place].items()
                if key[0] in WILLS and entry.sure and not entry.acking and not entry.once and key not in found]

    def audit(self, found, released):
        """found: {place: [(client, stream, number, packet id)]}, each of which was told by `got`, in order; released: {client: [packet ids]}
        whose PUBREL came."""
        for client, ids in released.items():
            for id_ in ids:
                if id_ in self.received[client]:
                    self.sealed(client, *self.received[client][id_])
        self.audit_ids(found, released)
        for place in PLACES:
            there = collections.Counter(row[1:3] for row in found[place])
            for key, entry in list(self.open[place].items()):
                self.audit_entry(place, key, entry, there[key])
            self.counts["audited"] += len(found[place])

    def audit_ids(self, found, released):
        """What a client has without a PUBREL is on its way again: by the message, or by PUBREL."""
        for client, ids in self.received.items():
            place = place_of(client)
            there = {row[1:3] for row in found[place] if row[0] == client}
            same = {(row[3], *row[1:3]) for row in found[place] if row[0] == client}
            for id_, key in list(ids.items()):
                if id_ in released.get(client, ()):
                    continue
                if key not in there:
                    self.verdict("lost", "neither PUBREL nor PUBLISH came again to %s for packet id %d, %s #%d" % (client, id_, *key))
                    del ids[id_]
                elif (id_, *key) not in same:
                    self.verdict("duplicate", "%s #%d came to %s with another packet id than %d" % (*key, client, id_))

    def audit_entry(self, place, key, entry, count):
        if count > entry.copies:
            self.verdict("duplicate", "%s #%d is %d times in %s; it was sent %d times" % (*key, count, place, entry.sends))
        if count:
            entry.copies = count
        elif entry.sure and not entry.acking and not entry.once:
            self.verdict("lost", "%s #%d is not in %s; it was %s" % (*key, place, "delivered" if entry.seen else "acknowledged"))
            self.over(place, key)
        elif entry.acking or entry.once:
            self.over(place, key)
        elif key[0] in WILLS:
            pass                    # it comes by itself, now or later, or never
        elif entry.final:
            del self.open[place][key]
        else:
            entry.copies = 0

    def audit_retained(self, values):
        """values: {topic: (stream, number)} of the retained values that came; the others have none."""
        for topic in set(self.retained) | set(values):
            kept = self.retained[topic]
            value = values.get(topic)
            self.counts["values"] += 1
            if value is None:
                if kept.known and not any(gone for _, _, gone in kept.ops):
                    self.verdict("lost", "%s has no retained value; %s #%d was acknowledged" % (topic, *kept.ops[0][:2]))
                continue
            rows = [i for i, op in enumerate(kept.ops) if op[:2] == value and not op[2]]
            if not rows and value[1] <= self.sent_upto[value[0]]:
                self.verdict("back", "%s has the retained value %s #%d; %s #%d had been acknowledged" % (
                    topic, *value, *(kept.ops[0][:2] if kept.ops else ("nothing", 0))))
            elif not rows:
                self.verdict("phantom", "%s has the retained value %s #%d, which nobody sent" % (topic, *value))
            elif qos_of(value[0]) == 2:         # with QoS 1 it may be sent again, and be older for a while
                self.kept(topic, *value)
