"""What is known of queries that run while the broker dies, and what a look at their results after a death must find.

A query is a function of its input in an order, so what it has written at any moment is the beginning of what an uninterrupted run over the
same events writes: row for row, each at its offset. `rows` has the latter (sql_load.Reference); an event is known by its number, which is its offset.

What follows a clock has no such answer: `beats` counts ticks of two partitions, one of which is silent for long, in windows that end though nothing
comes. Each window is there once, in order, with no tick that is not its own; with the ticks that came late they are all.

`newest` is a query that is replaced in place while it runs: each row is there once, in order, whichever version gave it, and none behind a later version's.
"""
import bisect
import collections
import json

VERDICTS = ("lost", "back", "duplicate", "order", "phantom", "torn", "unflagged", "stuck", "refused")
BEAT_MS = 50
BURST, BURST_EVERY = 40, 400        # ticks of the partition that is silent for long: so many in a row, of every so many milliseconds
NEAR = 20000                        # rows among which one that is out of place is looked for
BASE_S = 1767225600                 # 2026-01-01 00:00:00


def tick_ms(part, number):
    """Event time of a tick."""
    return number if part == 0 else number // BURST * BURST_EVERY + number % BURST


def text_of(ms):
    """Up to a day from BASE_S, as JSON has it."""
    return "2026-01-01T%02d:%02d:%02d.%03dZ" % (ms // 3600000, ms // 60000 % 60, ms // 1000 % 60, ms % 1000)


def tick_of(part, number):
    return json.dumps({"id": 2 * number + part, "ts": text_of(tick_ms(part, number))}).encode()


def ms_of(text):
    clock = text.rstrip("Z").split("T")[1].split(":")
    return round(1000 * (3600 * int(clock[0]) + 60 * int(clock[1]) + float(clock[2])))


class Model:
    def __init__(self, run):
        self.run = run
        self.found, self.counts, self.details = collections.Counter(), collections.Counter(), []
        self.where, self.ending = "", False
        self.memory = {}                            # of clients, see kafka_load.Actor
        self.rows = {}                              # query -> what it writes, as far as known
        self.acked = collections.Counter()          # (topic, partition) -> behind the last event that was acknowledged
        self.seen = collections.Counter()           # stream, or (topic, partition): behind the last record that was looked at
        self.beats, self.last_beat = [], 0
        self.auctions, self.newest = [], []         # events that give a row; (event, version) of the rows that were seen
        self.gone = [0, 0]                          # rows of the queue that are surely gone, may be gone

    def verdict(self, name, text):
        self.found[name] += 1
        if self.found[name] <= 10:
            self.details.append("%s: %s (%s)" % (name, text, self.where))

    def crash(self):
        pass

    # ---- events

    def sent_ok(self, topic, part, number, count, offset):
        """They were acknowledged, at that offset."""
        if offset != number:
            self.verdict("order", "events %d of %s/%d are at offset %d" % (number, topic, part, offset))
        self.acked[topic, part] = max(self.acked[topic, part], offset + count)
        self.counts["confirmed"] += count

    def end_of(self, where, end):
        """A log ends there."""
        known = max(self.acked[where], self.seen[where])
        if end < known:
            self.verdict("lost", "%s ends at %d; %d had been acknowledged, %d seen" % (where, end, self.acked[where], self.seen[where]))

    def look_at_events(self, where, offset, values, expected):
        for i, (value, wanted) in enumerate(zip(values, expected)):
            if value != wanted:
                self.verdict("phantom", "event %d of %s is %r" % (offset + i, where, value[:80]))
                break
        self.seen[where] = max(self.seen[where], offset + len(values))

    # ---- results

    def looked(self, name, offset, values):
        """Rows of a query, by their offset; from the beginning, or behind what was seen."""
        if name == "beats":
            self.look_at_beats(offset, values)
        elif name == "newest":
            self.look_at_newest(offset, values)
        elif values != self.rows[name][offset:offset + len(values)]:
            self.differs(name, offset, values)
        self.counts["audited"] += len(values)
        self.seen[name] = max(self.seen[name], offset + len(values))

    def differs(self, name, offset, values):
        wanted = self.rows[name][offset:offset + len(values)]
        at = next((i for i, pair in enumerate(zip(values, wanted)) if pair[0] != pair[1]), len(wanted))
        row, place = values[at], offset + at
        kind = ("duplicate" if row in self.rows[name][max(0, place - NEAR):place] else
                "lost" if row in self.rows[name][place:place + NEAR] else "phantom")
        self.verdict(kind, "row %d of %s is %s and not %s" % (
            place, name, row.decode(errors="replace"), wanted[at].decode() if at < len(wanted) else "the end"))

    def look_at_beats(self, offset, values):
        known = self.beats[offset:offset + len(values)]
        if known != values[:len(known)]:
            self.verdict("torn", "row %d or later of beats is another one than before" % offset)
        for value in values[len(known):]:
            row = json.loads(value)
            end = ms_of(row["window_end"])
            if end <= self.last_beat:
                self.verdict("duplicate", "the window that ends at %d ms is given out behind that of %d" % (end, self.last_beat))
            self.last_beat = max(end, self.last_beat)
            most = sum(self.ticks_before(part, end) - self.ticks_before(part, end - BEAT_MS) for part in (0, 1))
            if not 0 < row["n"] <= most:
                self.verdict("phantom", "%d ticks in the window that ends at %d ms, of %d" % (row["n"], end, most))
            self.counts["ticks"] += row["n"]
            self.beats.append(value)

    def look_at_newest(self, offset, values):
        rows = [(row["event"], row["version"]) for row in map(json.loads, values)]
        known = self.newest[offset:offset + len(rows)]
        if known != rows[:len(known)]:
            self.verdict("torn", "row %d or later of newest is another one than before" % offset)
        for event, version in rows[len(known):]:
            at, before = len(self.newest), self.newest[-1] if self.newest else (-1, 0)
            wanted = self.auctions[at] if at < len(self.auctions) else None
            if event != wanted:
                self.verdict("duplicate" if event <= before[0] else "lost", "row %d of newest is of event %d by version %d, not of %s; before it: %s" % (
                    at, event, version, wanted, before))
            if not before[1] <= version <= self.counts["versions"]:
                self.verdict("order", "row %d of newest is by version %d, behind one by version %d" % (at, version, before[1]))
            self.newest.append((event, version))

    def ticks_before(self, part, ms):
        """Of those that are in the log, or on their way."""
        return bisect.bisect_left(range(1 << 40), ms, key=lambda number: tick_ms(part, number))

    # ---- the queue

    def queue(self, name, bodies):
        """All that it has, in order. Returns how many of its rows were given out by now."""
        rows = self.rows[name]
        begin = next((b for b in self.gone if not bodies or (b < len(rows) and rows[b] == bodies[0])), None)
        if begin is None:
            kind = "back" if bodies[0] in rows[:self.gone[0]] else "lost" if bodies[0] in rows else "phantom"
            self.verdict(kind, "the queue begins with %r; %d of its rows were acknowledged" % (bodies[0][:80], self.gone[0]))
            begin = self.gone[0]
        elif bodies:
            self.gone = [begin, begin]
        if bodies != rows[begin:begin + len(bodies)]:
            self.differs(name, begin, bodies)
        self.counts["queued"] += len(bodies)
        return begin + len(bodies) if bodies else self.gone[1]

    def acking(self, upto):
        self.gone[1] = upto

    def acknowledged(self):
        self.counts["acks"] += self.gone[1] - self.gone[0]
        self.gone[0] = self.gone[1]
