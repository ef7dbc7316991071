"""What Kafka's clients know of their records, transactions and offsets, and what an audit after a death must find.

A record carries its run, writer, partition, number, transaction, the offset it was made from, and a CRC of its own. A writer numbers
what it sends to a partition. Facts are what the broker said: an offset in an answer to Produce, a record in an answer to Fetch, an
answer to EndTxn or to a commit of offsets. All arguments are plain values, so that a tape (tape.py) can keep them.
"""
import collections
import random
import zlib

FILLER = random.Random(2).randbytes(1 << 18)
CONTROL = "control"
VERDICTS = ("lost", "back", "duplicate", "order", "phantom", "torn", "unflagged", "stuck", "refused")
TOLD = ("ready", "sent", "acked", "seen", "renewed", "begun", "tx_offset", "ending", "ended", "fencing", "committing", "committed",
        "deleting", "deleted", "drain_sent", "drain_sealed", "looked", "crash", "audit")
OPEN, COMMITTING, COMMITTED, ABORTED = "open", "committing", "committed", "aborted"


def value_of(run, writer, part, number, tx, source, size):
    head = b"MRK1 %s %s %d %d %d %d\n" % (run.encode(), writer.encode(), part, number, tx, source)
    at = number * 4099 % (1 << 17)
    text = head + FILLER[at:at + max(0, size - len(head) - 8)]
    return text + b"%08x" % zlib.crc32(text)


def key_of(run, value):
    """(writer, partition, number, transaction, source), or None for bytes that no writer of this run made."""
    if not value or len(value) < 16 or b"%08x" % zlib.crc32(value[:-8]) != value[-8:]:
        return None
    words = value.split(b"\n", 1)[0].split(b" ")
    if len(words) != 7 or words[0] != b"MRK1" or words[1] != run.encode():
        return None
    return (words[2].decode(), *map(int, words[3:]))


class Partition:
    """What is known of one partition: `known` has the owner (writer, number) of each offset; a marker's is CONTROL."""

    def __init__(self):
        self.known, self.end = {}, 0
        self.start, self.start_asked = 0, 0     # DeleteRecords: answered, sent
        self.below = {}                         # writer -> the last of its numbers below start

    def learn(self, offset, owner):
        self.known[offset] = owner
        self.end = max(self.end, offset + 1)

    def forget(self, start):
        """Cuts what is below; the (writer, number) of each record there."""
        cut = [self.known.pop(offset) for offset in sorted(o for o in self.known if o < start)]
        cut = [owner for owner in cut if owner[0] != CONTROL]
        for writer, number in cut:
            self.below[writer] = max(number, self.below.get(writer, 0))
        self.start = max(self.start, start)
        return cut


class Model:
    def __init__(self, run):
        self.run = run
        self.found, self.counts, self.details = collections.Counter(), collections.Counter(), []
        self.where = ""
        self.parts = collections.defaultdict(Partition)     # (topic, partition)
        self.sent_upto = collections.Counter()              # (writer, partition) -> last number sent
        self.acked_upto = collections.Counter()
        self.given_up = collections.defaultdict(set)        # numbers that were in doubt when their writer began anew
        self.made = set()                                   # (partition, number) of the output that was seen as committed
        self.sources, self.source_below = {}, {}            # of the output: (partition, number) -> offset of the input; below start
        self.tx_records = collections.defaultdict(set)      # number -> {(writer, partition, number)}, but for those that were deleted
        self.txs = {}                                       # number -> state
        self.tx_offsets = {}                                # number -> [(group, topic, partition, offset)]
        self.offsets = collections.defaultdict(lambda: [-1, -1])    # (group, topic, partition) -> [acknowledged, sent]
        self.drained, self.draining, self.delivered = set(), set(), set()
        self.memory, self.logs = {}, {}                     # of the actors and the audit, from life to life; nothing of it is checked
        self.topology = False

    def verdict(self, name, text):
        self.found[name] += 1
        if self.found[name] <= 10:
            self.details.append("%s: %s (%s)" % (name, text, self.where))

    # ---- what the clients do and are told

    def ready(self):
        self.topology = True

    def sent(self, writer, part, number, count, tx=0, source=-1):
        """Numbers from `number` on, for the first time, made from offsets from `source` on."""
        self.sent_upto[writer, part] = number + count - 1
        if tx:
            self.tx_records[tx].update((writer, part, n) for n in range(number, number + count))
        if source >= 0:
            self.sources.update(((part, number + i), source + i) for i in range(count))

    def acked(self, topic, part, writer, number, count, offset):
        """A batch of numbers from `number` on stands at `offset` and behind it."""
        p = self.parts[topic, part]
        self.acked_upto[writer, part] = max(number + count - 1, self.acked_upto[writer, part])
        for i in range(count):
            before = p.known.get(offset + i)
            if before and before != (writer, number + i):
                self.verdict("duplicate", "%s #%d was acknowledged at offset %d of %s-%d, where %s #%d is" % (
                    writer, number + i, offset + i, topic, part, *before))
            p.learn(offset + i, (writer, number + i))
        self.counts["confirmed"] += count

    def seen(self, topic, part, offset, owner):
        p = self.parts[topic, part]
        before = p.known.get(offset)
        if before and before != tuple(owner):
            self.verdict("order", "%s #%d was read at offset %d of %s-%d, where %s #%d was" % (*owner, offset, topic, part, *before))
        p.learn(offset, tuple(owner))

    def renewed(self, writer, part):
        """A new producer id: what was in doubt may be there or not, and is not sent again."""
        doubt = range(self.acked_upto[writer, part] + 1, self.sent_upto[writer, part] + 1)
        self.given_up[writer, part].update(doubt)

    def begun(self, tx):
        self.txs[tx], self.tx_offsets[tx] = OPEN, []

    def tx_offset(self, tx, group, topic, part, offset):
        self.tx_offsets[tx].append((group, topic, part, offset))

    def ending(self, tx, commit):
        self.txs[tx] = COMMITTING if commit else ABORTED
        for group, topic, part, offset in self.tx_offsets[tx] if commit else ():
            self.committing(group, topic, part, offset)

    def ended(self, tx):
        self.counts["commits" if self.txs[tx] == COMMITTING else "aborts"] += 1
        if self.txs[tx] == COMMITTING:
            self.txs[tx] = COMMITTED
            for words in self.tx_offsets[tx]:
                self.committed(*words)

    def fencing(self, tx):
        """Its writer asks for a new epoch: without an EndTxn that was sent it may only be aborted."""
        if self.txs[tx] == OPEN:
            self.txs[tx] = ABORTED

    def committing(self, group, topic, part, offset):
        row = self.offsets[group, topic, part]
        row[1] = max(row[1], offset)

    def committed(self, group, topic, part, offset):
        row = self.offsets[group, topic, part]
        row[0] = max(row[0], offset)
        self.counts["offsets"] += 1

    def deleting(self, topic, part, offset):
        p = self.parts[topic, part]
        p.start_asked = max(p.start_asked, offset)

    def deleted(self, topic, part, offset):
        self.forget(topic, part, offset)

    def forget(self, topic, part, start):
        cut = self.parts[topic, part].forget(start)
        gone = {(writer, part, number) for writer, number in cut}
        for records in self.tx_records.values():
            records -= gone
        if topic == "ko":
            self.source_below[part] = max([self.source_below.get(part, -1), *(
                self.sources.pop((part, number)) for _, number in cut if (part, number) in self.made)])

    def drain_sent(self, keys):
        self.draining.update(keys)

    def drain_sealed(self):
        self.drained |= self.draining
        self.counts["acks"] += len(self.draining)
        self.draining = set()

    def looked(self, key, redelivered):
        """One delivery from the bound queue."""
        self.counts["flagged"] += redelivered
        if key in self.delivered and not redelivered:
            self.verdict("unflagged", "%s #%d of partition %d came again without the redelivered flag" % (key[0], key[2], key[1]))
        self.delivered.add(key)

    def crash(self):
        pass

    # ---- the audit

    def audit(self, logs, offsets, queue):
        """logs: {(topic, part): Log}; offsets: {(group, topic, part): offset}; queue: [key] in order, or None when it was not read.

        A Log has start, end, stable (the last stable offset), batches: [(offset, producer id, transactional, control type or None,
        [keys])] as all see them, and committed: the offsets of those batches that a reader of committed ones is given."""
        visible, readable, undecided = set(), set(), set()
        for (topic, part), log in sorted(logs.items()):
            seen, open_ = self.audit_log(topic, part, self.parts[topic, part], log)
            visible |= seen
            undecided |= open_
            self.made.update(key[1:3] for key in seen if topic == "ko")
            readable.update(key for b in log.batches if b[0] in log.committed for key in b[4])
        self.audit_transactions(visible, undecided)
        self.audit_offsets(offsets)
        self.audit_sources(logs, offsets, visible)
        if queue is not None:
            self.audit_queue(queue, readable)
        self.counts["audited"] += sum(len(b[4]) for log in logs.values() for b in log.batches)

    def audit_log(self, topic, part, p, log):
        """Density, facts, order and isolation of one partition; which keys are committed, and which (without the rest) undecided."""
        name = "%s-%d" % (topic, part)
        if log.start < p.start:
            self.verdict("back", "%s begins at %d although it was cut to %d" % (name, log.start, p.start))
        if log.start > max(p.start, p.start_asked):
            self.verdict("lost", "%s begins at %d, not at %d" % (name, log.start, p.start))
        self.forget(topic, part, log.start)
        if log.end < p.end:
            self.verdict("lost", "%s ends at %d; %d was acknowledged or read" % (name, log.end, p.end - 1))
        at, last = log.start, dict(p.below)
        for offset, _, _, control, keys in log.batches:
            if offset != at and not (at == log.start and offset < at):   # DeleteRecords may cut into a batch
                self.verdict("order", "%s has a batch at %d behind %d" % (name, offset, at))
            at = offset + (1 if control is not None else len(keys))
            for i, key in enumerate(keys):
                self.audit_record(name, part, p, offset + i, key, last)
            if control is not None:
                self.audit_fact(name, p, offset, (CONTROL, control))
        if at != log.end:
            self.verdict("order", "%s ends at %d, its last batch at %d" % (name, log.end, at))
        for offset, owner in list(p.known.items()):
            if offset >= log.end:
                self.verdict("lost", "%s %s at %d of %s" % (*owner, offset, name))
                del p.known[offset]
        p.end = log.end
        for (writer, where), number in self.acked_upto.items():
            if where == part and topic == TOPIC_OF[writer] and last.get(writer, 0) < number:
                self.verdict("lost", "%s #%d was acknowledged, the last one in %s is #%d" % (writer, number, name, last.get(writer, 0)))
        for writer, number in p.below.items():
            self.given_up[writer, part] = {n for n in self.given_up[writer, part] if n > number}
        return self.audit_isolation(name, log)

    def audit_fact(self, name, p, offset, owner):
        before = p.known.get(offset)
        if before and before != owner:
            self.verdict("order", "%s has %s %s at %d, where %s %s was" % (name, *owner, offset, *before))
        p.learn(offset, owner)

    def audit_record(self, name, part, p, offset, key, last):
        if offset < p.start:
            return
        if key is None or key[1] != part or key[2] > self.sent_upto[key[0], part]:
            self.verdict("phantom", "%s has at %d what nobody sent: %r" % (name, offset, key))
            return
        writer, number = key[0], key[2]
        before = last.get(writer, 0)
        if number <= before:
            self.verdict("duplicate", "%s has %s #%d at %d, behind #%d" % (name, writer, number, offset, before))
        missing = [n for n in range(before + 1, number) if n not in self.given_up[writer, part]]
        if missing:
            self.verdict("lost" if missing[0] <= self.acked_upto[writer, part] else "order",
                         "%s has %s #%d at %d behind #%d" % (name, writer, number, offset, before))
        last[writer] = max(number, before)
        self.audit_fact(name, p, offset, (writer, number))

    def audit_isolation(self, name, log):
        """Which batches are committed is seen by the markers; the broker's word on it must be the same."""
        open_, committed, visible = collections.defaultdict(list), set(), set()
        for offset, pid, transactional, control, keys in log.batches:
            if control is not None:
                if control == 1:
                    committed.update(o for o, _ in open_[pid])
                    visible.update(k for _, ks in open_[pid] for k in ks)
                open_[pid] = []
            elif transactional:
                open_[pid].append((offset, keys))
            else:
                committed.add(offset)
                visible.update(keys)
        stable = min((o for rows in open_.values() for o, _ in rows), default=log.end)
        if log.stable != stable:
            self.verdict("phantom" if log.stable > stable else "stuck",
                         "%s is stable up to %d; its first open transaction begins at %d of %d" % (name, log.stable, stable, log.end))
        wanted = {o for o in committed if o < stable}
        if wanted != log.committed:
            self.verdict("phantom" if log.committed - wanted else "lost", "%s gives readers of committed records %s too many, %s too few" % (
                name, sorted(log.committed - wanted)[:5], sorted(wanted - log.committed)[:5]))
        return visible, {k[:3] for rows in open_.values() for _, ks in rows for k in ks}

    def audit_transactions(self, visible, undecided):
        """A transaction is seen as a whole or not at all, and as its writer was told."""
        there = collections.defaultdict(set)
        for key in visible:
            if key[3]:
                there[key[3]].add(key[:3])
        for tx in [t for t, state in self.txs.items() if state == COMMITTED and not self.tx_records[t]]:
            del self.txs[tx], self.tx_records[tx], self.tx_offsets[tx]
        for tx, keys in there.items():
            if self.txs.get(tx, ABORTED) in (OPEN, ABORTED):
                self.verdict("phantom", "%d records of transaction %d are read as committed; it is %s" % (
                    len(keys), tx, self.txs.get(tx, "unknown")))
        for tx, state in self.txs.items():
            missing = self.tx_records[tx] - there[tx]
            if state == COMMITTED and missing:
                self.verdict("lost", "%d of %d records of transaction %d, which was committed, are not read: %s" % (
                    len(missing), len(self.tx_records[tx]), tx, sorted(missing)[:4]))
            elif state == COMMITTING and there[tx] and missing:
                self.verdict("torn", "%d of %d records of transaction %d are read as committed" % (
                    len(there[tx]), len(self.tx_records[tx]), tx))
            elif state == COMMITTING and there[tx]:
                self.txs[tx] = COMMITTED
                for words in self.tx_offsets[tx]:
                    self.committed(*words)
            elif state == COMMITTING and self.tx_records[tx] and not self.tx_records[tx] & undecided:
                self.txs[tx] = ABORTED

    def audit_offsets(self, offsets):
        for row, (acked, sent) in sorted(self.offsets.items()):
            now = offsets.get(row, -1)
            if now < acked:
                self.verdict("lost", "group %s has %d of %s-%d; %d was committed" % (row[0], now, *row[1:], acked))
            elif now > sent:
                self.verdict("phantom", "group %s has %d of %s-%d; the highest that was sent is %d" % (row[0], now, *row[1:], sent))
            else:
                self.offsets[row][0] = now
        for row in set(offsets) - set(self.offsets):
            if offsets[row] >= 0:
                self.verdict("phantom", "group %s has %d of %s-%d; nobody committed that" % (row[0], offsets[row], *row[1:]))

    def audit_sources(self, logs, offsets, visible):
        """Each record of the input is made into one record of the output, and the group's offset says how far."""
        for (topic, part), log in sorted(logs.items()):
            if topic != "ko":
                continue
            next_ = self.source_below.get(part, -1) + 1
            for _, _, _, _, keys in log.batches:
                for key in keys:
                    if key in visible and key[2] > self.parts[topic, part].below.get("ctp", 0):
                        if key[4] != next_:
                            self.verdict("duplicate" if key[4] < next_ else "lost",
                                         "%s-%d was made from offset %d where %d is next" % (topic, part, key[4], next_))
                        next_ = key[4] + 1
            if max(0, offsets.get(("ctp", "ki", part), -1)) != next_:
                self.verdict("torn", "group ctp is at %d of ki-%d; its output is at %d" % (
                    offsets.get(("ctp", "ki", part), -1), part, next_))

    def audit_queue(self, queue, readable):
        """Every record that readers of committed ones see has come once, and nothing else."""
        there = set()
        last = {}
        for key in queue:
            if key in there:
                self.verdict("duplicate", "%s #%d of partition %d is in the queue twice" % (key[0], key[2], key[1]))
            there.add(key)
            if key[2] < last.get(key[:2], 0):
                self.verdict("order", "%s #%d of partition %d stands in the queue behind #%d" % (key[0], key[2], key[1], last[key[:2]]))
            last[key[:2]] = key[2]
        for key in there & self.drained:
            self.verdict("back", "%s #%d of partition %d is in the queue although it was acknowledged" % (key[0], key[2], key[1]))
        for key in there - readable - self.drained:
            self.verdict("phantom", "%s #%d of partition %d, transaction %d, is in the queue and no reader of committed records sees it" % (
                key[0], key[2], key[1], key[3]))
        for key in self.wanted(readable) - there:
            self.verdict("lost", "%s #%d of partition %d is not in the queue" % (key[0], key[2], key[1]))
        self.drained |= self.draining - there
        self.draining = set()

    def wanted(self, readable):
        return readable - self.drained - self.draining


TOPICS = {"ki": 3, "kt": 2, "ko": 3}
TOPIC_OF = {"idem-0": "ki", "idem-1": "ki", "tx-0": "kt", "tx-1": "kt", "ctp": "ko"}
