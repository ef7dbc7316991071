"""What the clients know, and nothing else: which message may be where, and what an audit of all queues must find.

Every message carries its run, family, number and a CRC of its own; the broker's word is never taken for anything but the
four promises under test: a confirm, a commit-ok, an ok of declare/delete/purge, and a delivery.

`allowed` is the set of places where a message may be found; None in it means that it may be nowhere. Knowledge only
narrows it, doubt widens it:

    published            {place, where it goes by itself, None}     the publish is in doubt
    confirmed            None is taken out                          a later loss is `lost`
    delivered            {place}                                    it is there, so it was durable before we saw it
    ack sent             {place, None}                              the ack is in doubt
    a later publish of the same channel confirmed: {None}           the ack was in the journal before it: `back` if seen again

Only an audit after a crash settles doubts: what it sees is there, what it does not see is gone for good.
"""
import collections
import random
import zlib

NEXT = {"ttl": "ttl-dead", "ov": "ov-dead"}     # places that a message leaves by itself
LIMIT = {"ov": 40, "beat": 5}                   # x-max-length
IN_DOUBT = 30                                   # publishes of one family that may be on their way
SOURCE = {target: place for place, target in NEXT.items()}
UNORDERED = {"late", "rej-dead"}                # delayed messages and rejected ones come in an order of their own
VERDICTS = ("lost", "back", "duplicate", "order", "phantom", "torn", "unflagged", "stuck", "refused")

FILLER = random.Random(1).randbytes(1 << 21)


def body_of(run, family, number, size):
    head = b"MRC1 %s %s %d %d\n" % (run.encode(), family.encode(), number, size)
    at = number * 4099 % (1 << 20)
    text = head + FILLER[at:at + max(0, size - len(head) - 8)]
    return text + b"%08x" % zlib.crc32(text)


def key_of(run, body):
    """(family, number), or None for bytes that no publisher of this run made."""
    if len(body) < 16 or b"%08x" % zlib.crc32(body[:-8]) != body[-8:]:
        return None
    words = body.split(b"\n", 1)[0].split(b" ")
    if len(words) != 5 or words[0] != b"MRC1" or words[1] != run.encode():
        return None
    return words[2].decode(), int(words[3])


class Note:
    """What is known of one message."""
    __slots__ = ("key", "allowed", "settled", "confirmed", "seen", "taken", "held", "group", "gone")

    def __init__(self, key, allowed):
        self.key, self.allowed = key, allowed
        self.taken = False          # an audit, which may not have come to its end, held it away from its queue
        self.settled = False        # that it exists (or existed) is known
        self.confirmed = False
        self.seen = ()              # places it was delivered from: the next delivery there must be flagged
        self.held = False           # delivered to a channel that lives, and not given back
        self.group = None
        self.gone = ""              # why it may never be seen again

    def __repr__(self):
        return "%s #%d" % self.key


class Group:
    """A step that happens whole or not at all: members are (note, place if it happened, place if it did not)."""

    def __init__(self, what, members):
        self.what, self.members, self.open = what, members, True
        for note, yes, no in members:
            note.allowed, note.group = {yes, no}, self

    def settle(self, happened, why):
        self.open = False
        for note, yes, no in self.members:
            place = yes if happened else no
            note.allowed, note.group, note.settled = {place}, None, True
            if place is None:
                note.gone = why


class Model:
    def __init__(self, run):
        self.run = run
        self.notes = {}                                 # key -> Note, of all times
        self.live = {}                                  # those that may be somewhere
        self.numbers = collections.Counter()
        self.queues = {}                                # name -> True, False, None: in doubt
        self.groups = []
        self.found = collections.Counter()              # verdicts
        self.details = []
        self.counts = collections.Counter()             # confirmed, sealed acks, commits, ...
        self.first = {}                                 # place -> number of the last first delivery
        self.may_refuse = False                         # the broker may answer a publish with basic.nack
        self.where = ""                                 # cycle, for the details

    def verdict(self, name, text):
        self.found[name] += 1
        if self.found[name] <= 10:
            self.details.append("%s: %s (%s)" % (name, text, self.where))

    # ---- what the clients do

    def publish(self, family, place, size, pending=False):
        """A new message and its body. Pending: inside a transaction, so that without a commit it must not appear."""
        self.numbers[family] += 1
        key = family, self.numbers[family]
        allowed = {None} if pending else {place, None}
        if place in NEXT and not pending:
            allowed.add(NEXT[place])
        note = Note(key, allowed)
        note.gone = "never committed" if pending else ""
        self.notes[key] = self.live[key] = note
        return note, body_of(self.run, family, key[1], size)

    def confirm(self, note):
        note.confirmed = True
        self.counts["confirmed"] += 1
        if not note.settled and note.key[0] != "beat":
            note.settled = True
            note.allowed.discard(None)

    def refused(self, note):
        self.counts["refused"] += 1
        note.allowed, note.gone, note.settled = {None}, "refused", True

    def ack(self, note, place):
        note.allowed = {place, NEXT.get(place), None}       # still held: until a crash it may not come again
        if place == "beat":
            note.confirmed = False                          # nothing says any more that the last one is there

    def sealed(self, note):
        """A later publish of the channel that acknowledged it was confirmed."""
        self.counts["acks"] += 1
        note.allowed, note.gone = {None}, "acknowledged, and a later publish of that channel confirmed"

    def reject(self, note, place, target):
        note.held = False
        note.allowed = {place, target}

    def rejected(self, note, place, target):
        self.counts["acks"] += 1
        if note.allowed == {place, target}:         # it may have been taken from the target and acknowledged there since
            note.allowed = {target}

    def requeued(self, note):
        note.held = False
        self.counts["requeued"] += 1

    def queue(self, name, there):
        """True, False, or None while an answer is waited for."""
        self.queues[name] = there

    def begin(self, what, members):
        group = Group(what, members)
        self.groups.append(group)
        return group

    def delivered(self, place, body, redelivered):
        """One delivery while the load runs; its note, or None when nobody published this."""
        note = self.look(place, body, redelivered)
        if not note:
            return None
        if note.group and note.group.open:
            self.settle(note.group, any(n is note and yes == place for n, yes, _ in note.group.members))
        if note.held:
            self.verdict("duplicate", "%r came from %s although it was delivered already and not given back" % (note, place))
        elif place not in note.allowed:
            self.misplaced(note, place)
        if not redelivered and self.ordered(note, place):
            if note.key[1] <= self.first.get((place, note.key[0]), 0):
                self.verdict("order", "%r came from %s after #%d" % (note, place, self.first[place, note.key[0]]))
            self.first[place, note.key[0]] = note.key[1]
        note.allowed, note.settled, note.held = {place}, True, True
        self.live[note.key] = note
        return note

    def ordered(self, note, place):
        """A message that an audit had taken from its queue died later than those behind it: it may stand behind them."""
        return place not in UNORDERED and SOURCE.get(place) not in note.seen and not (note.taken and place in SOURCE)

    def taken(self, place, key):
        """An audit got it just now. The power may go before the audit ends, and then nobody has told of it otherwise."""
        if place in NEXT and key in self.notes:
            self.notes[key].taken = True

    def settle(self, group, happened):
        if group.open:
            group.settle(happened, group.what)

    def look(self, place, body, redelivered):
        key = key_of(self.run, body)
        note = self.notes.get(key)
        if not note:
            self.verdict("phantom", "%d bytes from %s that nobody published: %r" % (len(body), place, bytes(body[:40])))
            return None
        if place in note.seen and not redelivered:
            self.verdict("unflagged", "%r came again from %s without the redelivered flag" % (note, place))
        if place not in note.seen:
            note.seen += (place,)
        self.counts["flagged"] += redelivered
        return note

    def misplaced(self, note, place):
        if note.allowed == {None}:
            name = "phantom" if note.gone == "never committed" else "back"
            self.verdict(name, "%r is in %s although it was %s" % (note, place, note.gone or "gone"))
        else:
            self.verdict("back", "%r is in %s and could be in %s only" % (note, place, sorted(map(str, note.allowed))))

    # ---- the crash, and the audit after it

    def crash(self):
        self.first.clear()
        for note in self.live.values():
            note.held = False

    def wanted(self):
        """Delayed messages that an audit has to wait for."""
        return {note.key for note in self.live.values() if "late" in note.allowed and None not in note.allowed}

    def audit(self, found):
        """found: {place: [(body, redelivered), ...] in order}: all there is, taken and given back."""
        at = {}
        untouched = {key for key, note in self.live.items() if "ov" not in note.seen}
        for place, messages in found.items():
            last = {}
            for body, redelivered in messages:
                note = self.look(place, body, redelivered)
                if not note:
                    continue
                if note.key in at:
                    self.verdict("duplicate", "%r is in %s and in %s" % (note, at[note.key], place))
                    continue
                at[note.key] = place
                if self.ordered(note, place):
                    if note.key[1] <= last.get(note.key[0], 0):
                        self.verdict("order", "%r stands in %s after #%d" % (note, place, last[note.key[0]]))
                    last[note.key[0]] = note.key[1]
        self.audit_groups(at)
        self.audit_limits(found, at, untouched)
        self.audit_holes(at)
        for key, place in at.items():
            note = self.notes[key]
            if place not in note.allowed:
                self.misplaced(note, place)
            note.allowed = {place, NEXT[place]} if place in NEXT else {place, None} if place == "beat" else {place}
            note.settled, note.gone = True, ""
            self.live[key] = note
        for key, note in list(self.live.items()):
            if key not in at:
                self.absent(note)
        self.counts["audited"] += len(at)

    def absent(self, note):
        if None not in note.allowed:
            self.verdict("lost", "%r is nowhere; it %s, and could be in %s" % (
                note, "was confirmed" if note.confirmed else "had been delivered or committed", sorted(note.allowed)))
        elif "late" in note.allowed and not note.settled:
            return                                      # unconfirmed and delayed: it may still come
        note.allowed, note.settled = {None}, True
        note.gone = note.gone or "not there after a crash"
        del self.live[note.key]

    def audit_groups(self, at):
        for group in self.groups:
            if group.open:
                yes = all(at.get(note.key) == place for note, place, _ in group.members)
                no = all(at.get(note.key) == place for note, _, place in group.members)
                if not yes and not no:
                    self.verdict("torn", "%s happened in parts: %s" % (
                        group.what, ", ".join("%r in %s" % (n, at.get(n.key)) for n, _, _ in group.members[:8])))
                    for note, y, n in group.members:    # reported once, as this
                        note.allowed, note.group = {y, n}, None
                    group.open = False
                else:
                    group.settle(yes, group.what)
        self.groups = []

    def audit_limits(self, found, at, untouched):
        """drop-head: what was dropped is older than what stayed, and little more than the limit stays: the drop is journalled
        behind the publish that caused it, so a crash between the two leaves the queue longer until its next publish."""
        for place, limit in LIMIT.items():
            if len(found.get(place, ())) > limit + IN_DOUBT:
                self.verdict("order", "%d messages in %s, whose limit is %d" % (len(found[place]), place, limit))
        numbers = {p: [k[1] for k, where in at.items() if where == p and (p == "beat" or k in untouched)]
                   for p in ("ov", "ov-dead", "beat")}
        if numbers["ov"] and numbers["ov-dead"] and max(numbers["ov-dead"]) > min(numbers["ov"]):
            self.verdict("order", "ov-dead has #%d, ov still #%d" % (max(numbers["ov-dead"]), min(numbers["ov"])))
        sure = [n.key[1] for n in self.live.values() if n.key[0] == "beat" and n.confirmed]
        if sure and max(sure) > max(numbers["beat"], default=0):
            self.verdict("lost", "beat #%d was confirmed, the last one there is #%d" % (max(sure), max(numbers["beat"], default=0)))
        holes = [n for n in range(min(numbers["beat"], default=0), max(numbers["beat"], default=0))
                 if n not in numbers["beat"] and self.notes["beat", n].confirmed]
        if holes:
            self.verdict("order", "beat has %s, but not %s" % (numbers["beat"], holes))

    def audit_holes(self, at):
        """One publisher's messages reach the journal in its order: a later one that is there vouches for the earlier."""
        last = collections.Counter()
        for family, number in at:
            last[family] = max(last[family], number)
        for key, note in self.live.items():
            doubt = not note.settled and None in note.allowed and len(note.allowed) > 1 and not note.group
            if doubt and key not in at and key[1] < last[key[0]] and key[0] not in ("late", "beat"):
                self.verdict("order", "%r is not there although the later #%d is" % (note, last[key[0]]))
