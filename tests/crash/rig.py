"""One broker on one disk, killed again and again: starting it, the audit after each start, and what all cycles came to."""
import os
import random
import re
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import time

import load
import model
import wire
from load import brokers, connect, must
from load import Load, topology  # noqa: F401: of the work that this module is by itself
from model import VERDICTS, Model  # noqa: F401

START_LIMIT = 120       # seconds: long enough for any machine; a start that takes longer is a finding
TITLE = ""               # of its section of docs/crash.md, behind how it dies
CONFIRMS = (80, 900)     # of a cycle
ERRORS = (wire.WireError, OSError)
SETTINGS = ("journal.file_bytes=1048576", "journal.compact_bytes=1048576", "disk.free_min=1048576", "mqtt.inflight_max=32767")


def report_of(chain):
    """More lines of docs/crash.md."""
    del chain
    return []


class Refused(Exception):
    """The broker ended instead of starting; the text is its log."""


class Server(brokers.Millrace):
    """A broker whose data folder, settings and preloaded library are chosen for each start."""
    ends_within = START_LIMIT

    def __init__(self, data=None):
        super().__init__()
        if data:
            self.data = data
        self.began = self.openings = 0

    def spawn(self, settings=(), preload=None):
        command = list(brokers.DIE_WITH_US)
        if preload:
            command += ["env", "LD_PRELOAD=" + preload]
        command += [self.binary, "serve", "--data", self.data, "--port-offset", str(self.offset)]
        for setting in (*SETTINGS, *settings):
            command += ["--set", setting]
        self.log_from = os.path.getsize(self.folder + "/log") if os.path.exists(self.folder + "/log") else 0
        with open(self.folder + "/log", "a") as log:
            self.began = time.monotonic()
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.openings += 1

    def gone(self):
        if self.process and self.process.poll() is None:
            self.kill9()

    def said(self):
        with open(self.folder + "/log", errors="replace") as log:
            log.seek(self.log_from)
            return log.read()

    def wait(self):
        """Until somebody can log in: seconds since spawn(), or None when another process had the port."""
        while True:
            if self.process.poll() is not None:
                if "in use" in self.said():
                    self.offset = brokers.free_offset()
                    self.port = 5672 + self.offset
                    return None
                raise Refused(self.said())
            try:
                w = wire.Wire(self.host, self.port, START_LIMIT)
                w.open()
                seconds = time.monotonic() - self.began
                w.close()
                return seconds
            except (OSError, wire.WireError) as error:
                if "login failed" in str(error):
                    raise Refused("%s\n%s" % (self.said(), error)) from None
                time.sleep(0.001)       # polled: nobody else would tell that the port is open
            if time.monotonic() - self.began > START_LIMIT:
                raise Refused("nobody could log in for %d s\n%s" % (START_LIMIT, self.said()))

    def run(self, settings=(), preload=None):
        while True:
            self.spawn(settings, preload)
            seconds = self.wait()
            if seconds is not None:
                return seconds


def generation(data):
    """The number of times the superblock was written: once for each start and each trim after a compaction."""
    best = 0
    for letter in "ab":
        try:
            with open("%s/superblock.%s" % (data, letter), "rb") as source:
                block = source.read(32)
        except OSError:
            continue
        if len(block) == 32 and block[:4] == b"MRSB":
            best = max(best, struct.unpack_from(">Q", block, 24)[0])
    return best


def choices(r):
    """Settings under which nothing may differ but where the deaths come."""
    return ("loops=%d" % r.choice((1, 1, 3)), "journal.compact_every=%d" % r.choice((0, 25, 150, 600)),
            "journal.group_bytes=%d" % r.choice((4096, 65536, 1 << 20)), "journal.direct_io=" + r.choice(("auto", "off")),
            "sql.snapshot_rows=%d" % r.choice((0, 200, 1000)))


class Audit:
    """Takes everything from all queues without acknowledging, and gives it back; or, as a drain, acknowledges all of it."""

    def __init__(self, port, facts, patience):
        self.port, self.model, self.patience = port, facts, patience
        self.found = {place: [] for place in load.PLACES}
        self.last = 0

    def queues(self):
        """Which of the queues are there; one that is not closes its channel."""
        w = connect(self.port)
        for number, name in enumerate((*load.PLACES, "come"), 1):
            w.channel(number)
            there = w.call(number, "queue.declare", queue=name, passive=True).name == "queue.declare-ok"
            known = self.model.queues.get(name, name != "come")
            if known is not None and there != known:
                self.model.verdict("lost" if known else "back", "queue %s is %s" % (name, "not there" if known else "there"))
            self.model.queue(name, there)
            if there:
                self.found.setdefault(name, [])
            else:
                self.found.pop(name, None)
        w.close()
        for name in load.PLACES:
            if not self.model.queues[name]:
                return False
        return True

    def read(self, w, stop_after=None):
        """Until no queue has anything left and what is due later has come; true when stopped before that."""
        wanted = self.model.wanted()
        deadline = time.monotonic() + self.patience
        counts = {}
        names = sorted(self.found, key=lambda n: n in model.NEXT.values())   # a dead letter is looked for after its source
        w.send_bytes(b"".join(wire.encode_frame(wire.FRAME_METHOD, 1, wire.encode_method(
            "basic.consume", queue=name, consumer_tag=name)) for name in names))
        while True:
            for name in names:
                w.send_method(1, "queue.declare", queue=name, passive=True)
            counts.clear()
            while len(counts) < len(names):
                m = w.next(1, START_LIMIT)
                if m.name == "basic.deliver":
                    self.found[m.consumer_tag].append((m.body, m.redelivered))
                    self.last = m.delivery_tag
                    key = model.key_of(self.model.run, m.body)
                    wanted.discard(key)
                    self.model.taken(m.consumer_tag, key)
                    if stop_after is not None and self.last >= stop_after:
                        return True
                elif m.name == "queue.declare-ok":
                    counts[m.queue] = m.message_count
                elif m.name != "basic.consume-ok":
                    raise wire.WireError("during the audit: %r" % (m,))
            if not any(counts.values()) and (not wanted or time.monotonic() > deadline):
                return False

    def full(self, drain):
        w = connect(self.port)
        must(w.channel(1))
        if drain:
            must(w.call(1, "confirm.select"))
        self.read(w)
        self.model.audit(self.found)
        if drain:
            self.drain(w)
        must(w.call(1, "channel.close", reply_code=200, reply_text="audited"))
        w.close()

    def drain(self, w):
        """Acknowledges all and seals it with one more publish."""
        acked = [(self.model.notes.get(model.key_of(self.model.run, body)), place)
                 for place, messages in self.found.items() for body, _ in messages]
        for note, place in acked:
            if note:
                self.model.ack(note, place)
        if self.last:
            w.send_method(1, "basic.ack", delivery_tag=self.last, multiple=True)
        note, body = self.model.publish("beat", "beat", 60)
        w.publish(1, "", "beat", body, delivery_mode=2)
        must(w.take(1, ("basic.ack", "basic.nack"), START_LIMIT))
        self.model.confirm(note)
        for note, _ in acked:
            if note:
                self.model.sealed(note)
        self.model.counts["drains"] += 1

    def partial(self, stop_after):
        """Deliveries that a kill -9 interrupts: they were seen, so they come back flagged."""
        w = connect(self.port)
        must(w.channel(1))
        stopped = self.read(w, stop_after)
        for place, messages in self.found.items():
            for body, redelivered in messages:
                self.model.look(place, body, redelivered)
        return w, stopped


class Chain:
    """Many cycles of load and death on one disk; the model lives through all of them."""

    def __init__(self, name, seed, disk, confirms=CONFIRMS, preload=None, settings=(), control=False, stop=False,
                 inspects=False, work=sys.modules[__name__]):
        """work: the module of the load, with topology, Load, Audit and Model."""
        self.work = work
        self.stop_at_first = stop or control
        self.name, self.seed, self.disk, self.control = name, seed, disk, control
        self.random = random.Random("%s %d" % (name, seed))
        self.confirms, self.preload, self.settings = confirms, preload, settings
        self.model = work.Model("%s-%d-%x" % (name, seed, os.getpid()))
        self.server = Server(disk.data)
        self.recoveries, self.cycles, self.compactions, self.extra = [], 0, 0, 0
        self.before = self.inside = 0
        self.inspects = inspects
        self.torn = None

    def chosen(self):
        return (*choices(self.random), *self.settings)

    def start(self):
        """Starts on what the death left, sometimes dying again on the way."""
        while self.random.random() < self.disk.start_deaths:
            self.server.spawn(self.chosen(), self.loaded())
            pause = self.random.random() * (statistics.median(self.recoveries) if self.recoveries else 0.05) * 1.3
            time.sleep(pause)           # nothing is waited for here: this is when the kill comes
            self.server.kill9()
            self.extra += 1
        seconds = self.server.run(self.chosen(), self.loaded())
        if self.cycles:
            self.recoveries.append(seconds)

    def loaded(self):
        """The control's library comes with the second cycle, so that what it loses are messages and not the whole folder."""
        return self.preload if self.cycles else None

    def keep(self):
        """MILLRACE_KEEP=1: the data as this death left it, for `millrace inspect`, beside the data folder that goes on."""
        kept = self.server.folder + "/before"
        if os.environ.get("MILLRACE_KEEP") == "1" and os.path.exists(self.server.data):
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(self.server.data, kept, ignore=shutil.ignore_patterns("*.sock", "LOCK"))

    def look_inside(self):
        """Did this death come in the middle of a compaction: is there a part of a snapshot behind the last checkpoint?"""
        if self.inspects and os.path.exists(self.server.data):
            text = subprocess.run([self.server.binary, "inspect", self.server.data], capture_output=True, text=True,
                                  errors="replace", check=False).stdout
            self.inside += "(snapshot)" in text[text.rfind(" CHECKPOINT") + 1:]

    def count_compactions(self):
        """The superblock is written at each trim, at each start and at each orderly end; those two are known."""
        now = generation(self.server.data)
        self.compactions += max(0, now - self.before - self.server.openings)
        self.before, self.server.openings = now, 0

    def audit(self):
        r = self.random
        if self.cycles and r.random() < self.disk.audit_deaths:
            audit = self.work.Audit(self.server.port, self.model, 2 if self.control else START_LIMIT)
            if audit.queues():
                w, _ = audit.partial(r.randrange(1, 200))
                self.server.kill9()
                w.abort()
                self.extra += 1
                self.recoveries.append(self.server.run(self.chosen(), self.loaded()))
        audit = self.work.Audit(self.server.port, self.model, 2 if self.control else START_LIMIT)
        if not audit.queues():
            return False
        audit.full(drain=r.random() < 0.2)
        return True

    def cycle(self):
        """Start, audit, load, death. False when the data is beyond going on."""
        model_ = self.model
        model_.where = "%s, seed %d, cycle %d" % (self.name, self.seed, self.cycles)
        if not self.stand():
            return False
        work = self.work.Load(self.server.port, model_, self.random)
        target = self.random.randrange(*self.confirms)
        how = work.run(self.disk.plug(self, work, target))
        if how and not self.disk.expects_end(self):
            model_.verdict("stuck", "the broker went away by itself: %s; %s" % (how, last_words(self.server.said())))
        self.disk.death(self, work)
        work.finish()
        model_.crash()
        self.disk.down(self)
        self.cycles += 1
        return True

    def stand(self):
        """Disk, broker and audit; again when the power went off meanwhile. False when the data is beyond going on."""
        while True:
            try:
                self.disk.up(self)
                self.count_compactions()
                self.keep()
                self.look_inside()
                self.start()
                if self.cycles == 0:
                    self.work.topology(self.server.port)
                there = self.audit()
                self.disk.steady()
                return there
            except (Refused, *self.work.ERRORS) as error:
                self.server.gone()
                if not self.disk.is_dead():
                    if not isinstance(error, Refused):
                        raise
                    self.model.verdict("refused", last_words(str(error)))
                    return False
                self.model.crash()
                self.disk.down(self)
                self.extra += 1

    def last_audit(self):
        """What the last death left; the broker ends in order and must find the same again."""
        model_ = self.model
        model_.where, model_.ending = "%s, seed %d, after the last cycle" % (self.name, self.seed), True
        if self.stand():
            self.server.stop()
            self.server.openings += 1
            if self.stand_again():
                self.server.stop()
        self.server.gone()
        self.disk.down(self)

    def stand_again(self):
        try:
            self.server.run(self.chosen(), self.loaded())
            return self.audit()
        except Refused as refused:
            self.model.verdict("refused", last_words(str(refused)))
            return False

    def run(self, cycles, say=None):
        try:
            while self.cycles < cycles and self.cycle():
                if self.model.found and self.stop_at_first:
                    return self
                if say and self.cycles % 10 == 0:
                    say(self)
            if not self.model.found:
                self.last_audit()
        finally:
            self.close()
        return self

    def close(self):
        self.torn = self.disk.torn()
        self.server.gone()
        self.disk.remove()
        self.server.remove()

    def problems(self):
        return ", ".join("%d %s" % (self.model.found[v], v) for v in VERDICTS if self.model.found[v])

    def verdict(self):
        """None, or why this chain failed. A control passes by what it finds."""
        if not self.control:
            return self.problems() or None
        found = self.model.found
        return None if found["lost"] or found["refused"] else "no loss was found in %d cuts without a sync" % self.cycles

    def details(self):
        return sorted(self.model.details, key=lambda text: VERDICTS.index(text.split(":")[0]))

    def first(self):
        """The gravest finding, without paths of this run."""
        return self.details()[0].replace(self.server.data, "DATA").replace(self.server.folder, "DATA")

    def show(self):
        """Says what was checked, then one line for tools/stages; 1 when it failed."""
        print(self.line())
        for detail in self.details()[:3 if self.control else 40]:
            print("  " + detail)
        why = self.verdict()
        print("FAIL %s: %s" % (self.name, why) if why else "ok " + self.name, flush=True)
        return 1 if why else 0

    def line(self):
        c, times = self.model.counts, sorted(self.recoveries) or [0]
        return ("%s: %d cycles, %d more kills, %d confirmed, %d acks synced, %d audited, %d compactions, "
                "recovery p50 %.0f ms, p99 %.0f ms, max %.0f ms: %s" % (
                    self.name, self.cycles, self.extra, c["confirmed"], c["acks"], c["audited"], self.compactions,
                    1000 * times[len(times) // 2], 1000 * times[min(len(times) - 1, len(times) * 99 // 100)], 1000 * times[-1],
                    self.problems() or "nothing found"))


def last_words(text):
    lines = [re.sub(r"^\S+ +", "", line) for line in text.strip().splitlines()]
    return " / ".join(filter(None, lines[-2:]))[:300]


class Folder:
    """A folder of this machine: kill -9 leaves the page cache, so nothing is lost but what the broker kept to itself."""
    start_deaths, audit_deaths = 0.15, 0.12
    data, settings = None, ()

    def up(self, chain):
        pass

    def plug(self, chain, work, target):
        """Dies a moment after the target was confirmed: the broker is in the middle of everything."""
        r, pause = chain.random, chain.random.random() * 0.01
        reached = []

        def ended(load_):
            if load_.confirmed < target:
                return False
            reached.append(time.monotonic())
            return reached[-1] - reached[0] >= pause
        self.orderly = r.random() < 0.08
        return ended

    def expects_end(self, chain):
        return False

    def death(self, chain, work):
        if self.orderly:                # dies while it is stopping in order
            chain.server.process.send_signal(signal.SIGTERM)
            time.sleep(chain.random.random() * 0.02)
            chain.server.openings += 1
        chain.server.kill9()

    def down(self, chain):
        pass

    def steady(self):
        pass

    def is_dead(self):
        return False

    def torn(self):
        return None

    def remove(self):
        pass


def say(chain):
    print(chain.line(), file=sys.stderr, flush=True)
