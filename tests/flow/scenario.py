"""The flow proof: who may be held up by whom, and for how long.

One broker, one process full of clients, at the same time:

- 500 publishers with confirms, bodies from 10 B to 100 KiB, half of them persistent. Each has work all the time: it keeps a
  window of publishes unconfirmed and writes on when it is blocked. Two of them have a window of 2 MiB, more than the broker
  takes of one connection before it is durable. Every third does not announce `connection.blocked`.
- four consumers that drain what is published, two with acks, two without;
- a consumer that never reads its socket, on a queue full of messages, and one on a queue that is being drained;
- a connection that publishes and, on another channel, consumes and acknowledges what it published;
- a consumer that never published, which must be served while publishers wait;
- an alarm (memory, disk, both in turn) that is raised and cleared 100 times.

What must hold is asserted here; durations are only measured, since a busy machine is no fault of the broker.
`./scenario.py --write docs/flow.md` runs the long form with one and with three network loops and writes its figures.
"""

import argparse
import os
import random
import resource
import threading
import time

import driver
from driver import Stuck

import brokers

KIB, MIB = 1024, 1024 * 1024
LOADS = ['load%d' % i for i in range(4)]
ALARMS = ((('memory',), 'low on memory'), (('disk',), 'low on disk'), (('memory', 'disk'), 'low on memory & low on disk'))
SERVED = 5                      # deliveries that the paced consumer gets during each alarm
HELD_COUNT, HELD_BYTES = 20000, 2 * KIB
DEEP_COUNT, DEEP_BYTES, DEEP_WINDOW = 2, 16 * KIB, 128
BODY_MIN, BODY_MAX = 10, 100 * KIB

# The terms of the memory bound, see docs/flow.md. Each is a setting or a constant of the broker.
CREDIT = 256 * KIB              # SESSION_CREDIT_BYTES: deliveries on their way to a connection
UNSYNCED = MIB                  # AMQP091_INFLIGHT_HIGH: accepted of a publisher and not durable
FRAME = 128 * KIB               # amqp.frame_max: a frame that has not arrived completely
CONNECTION = 32 * KIB           # structures, and one chunk of the out-queue
JOURNAL = 16 * MIB + 4 * MIB    # journal.staged_bytes, and groups of journal.group_bytes on their way
PORT = 2 * MIB                  # rings of a network loop and its heap's spare slabs
ENTRY = 256                     # of a message in a queue beside its body: entry, names, properties


class Plan:
    """How much of everything. The default is the form that ./test runs."""
    publishers, alarms, window = 500, 20 if os.environ.get('MILLRACE_QUICK') == '1' else 100, 2
    hold_s, run_s = 0.01, 0.02
    probes = False


class LongPlan(Plan):
    alarms, window = 100, 4
    hold_s, run_s = 0.2, 0.3
    probes = True


class Paced(driver.Consumer):
    """Acknowledges, and so takes the next, only while it has an allowance."""
    allowance = 0

    def allow(self, count):
        self.allowance = count
        self.go()

    def go(self):
        if self.allowance and self.acked < self.deliveries:
            self.allowance -= 1
            self.ack(self.deliveries)

    def on_method(self, channel, ids, data, at):
        super().on_method(channel, ids, data, at)
        self.go()


def sizes():
    """Bodies from the smallest to the largest, small ones more often."""
    return [round(BODY_MIN * (BODY_MAX / BODY_MIN) ** ((i / 47) ** 2)) for i in range(48)]


def resident(pid, which='VmRSS'):
    with open('/proc/%d/status' % pid) as f:
        for line in f:
            if line.startswith(which + ':'):
                return int(line.split()[1]) * KIB
    raise Stuck('no %s of process %d' % (which, pid))


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))]


class Probe(threading.Thread):
    """What the machine itself does meanwhile: how long a small write and its sync take on the broker's disk, and by how
    much a sleep of a millisecond is late. Only the long form has it."""

    def __init__(self, folder):
        super().__init__(daemon=True)
        self.path, self.going, self.sync_s, self.late_s = os.path.join(folder, 'probe'), True, [], []

    def run(self):
        with open(self.path, 'wb', buffering=0) as f:
            while self.going:
                began = time.monotonic()
                os.pwrite(f.fileno(), b'p' * 4096, 0)
                os.fdatasync(f.fileno())
                self.sync_s.append(time.monotonic() - began)
                began = time.monotonic()
                time.sleep(0.001)
                self.late_s.append(time.monotonic() - began - 0.001)
                time.sleep(0.05)

    def stop(self):
        self.going = False
        self.join()


class Scenario:
    def __init__(self, broker, plan):
        self.broker, self.plan = broker, plan
        self.loop = driver.Loop()
        self.control = driver.Control(self.loop, os.path.join(broker.data, 'control.sock'))
        self.dice = random.Random(7)
        self.publishers, self.drains, self.wires = [], [], []
        self.base = resident(broker.process.pid)
        self.held_most = 0
        self.worst_share, self.worst = 0.0, None
        self.block_s, self.first_s, self.all_s, self.unblock_s, self.sync_s, self.late_s = [], [], [], [], [], []
        self.figures, self.slow = {}, []    # slow: (alarm, seconds, compactions so far)

    # ---- the clients

    def open(self, *methods, announces=True, channels=(1,)):
        capabilities = driver.wire.CAPABILITIES if announces else ()
        w = self.broker.wire(timeout=driver.WATCHDOG, properties=driver.wire.client_properties(capabilities))
        self.wires.append(w)
        for number in channels:
            w.channel(number)
        for name, fields in methods:
            answer = w.call(1, name, **fields)
            if answer.name.endswith('.close'):
                raise Stuck(repr(answer))
        return w

    def furnish(self):
        """The queues, and what lies in them before anything begins."""
        w = self.open(*[('queue.declare', {'queue': q, 'durable': True}) for q in LOADS + ['held', 'feed', 'echo']],
                      ('confirm.select', {}))
        stock = [driver.message('held', b'h' * HELD_BYTES, i % 2) for i in range(2)]
        feed = driver.message('feed', b'f' * 100, True)
        filler = driver.Publisher(self.loop, w, 'filler', [], 0, True)
        for count, pieces in ((HELD_COUNT, stock), ((SERVED + 1) * self.plan.alarms + 100, [feed])):
            filler.confirms.published += count
            for i in range(0, count, 50):
                filler.send(b''.join(pieces[j % len(pieces)] for j in range(min(50, count - i))))
        self.loop.until(lambda: not filler.confirms.outstanding(), 'the stock is confirmed')
        filler.leave()

    def never_read(self, queue):
        """A consumer whose socket nobody reads; it is told what it asked for and not even that is read."""
        w = self.open()
        w.sock.setsockopt(driver.socket.SOL_SOCKET, driver.socket.SO_RCVBUF, 64 * KIB)
        w.send_method(1, 'basic.consume', queue=queue)
        return w

    def stays(self, value, what, pause=0.02):
        """Waits until a figure of the broker stands still."""
        deadline, before = time.monotonic() + driver.WATCHDOG, None
        while True:
            now = value()
            if now == before:
                return now
            if time.monotonic() > deadline:
                raise Stuck('does not come to rest: ' + what)
            before = now
            self.loop.rest(pause)

    def never_reading_consumer_is_bounded(self):
        """By itself first, so that the bound is tight: its credit and no more."""
        totals, rss = self.control.totals(), resident(self.broker.process.pid)
        self.never = [self.never_read('held')]
        def value():
            return self.control.queues()['held']['messages_unacknowledged']
        self.loop.until(lambda: value() * HELD_BYTES > CREDIT / 2, 'the first credit of a consumer is spent')
        unacked = self.stays(value, 'deliveries to a consumer that never reads', 0.2)
        grown = self.control.totals()['memory_bytes'] - totals['memory_bytes']
        rss_grown = resident(self.broker.process.pid) - rss
        bound = CREDIT + HELD_BYTES + CONNECTION + 2 * 64 * unacked        # the unacked list doubles
        self.figures.update(never_unacked=unacked, never_bytes=grown, never_rss=rss_grown, never_bound=bound)
        if not 0 < unacked < HELD_COUNT:
            raise Stuck('%d of %d messages went to a consumer that never reads' % (unacked, HELD_COUNT))
        if grown > bound:
            raise Stuck('a consumer that never reads costs %d bytes, more than %d' % (grown, bound))

    def start(self):
        for i, queue in enumerate(LOADS):
            drain = driver.Consumer(self.loop, self.open(), 'drain %d' % i, every=20 if i % 2 else 0)
            drain.consume(queue, 100 if drain.every else 0)
            self.drains.append(drain)
        self.never.append(self.never_read('load3'))
        self.paced = Paced(self.loop, self.open(), 'paced', every=1 << 40)
        self.paced.consume('feed', 1)
        pools = {}
        for queue in LOADS:
            pools[queue] = [driver.message(queue, b'b' * n, persistent) for n in sizes() for persistent in (0, 1)]
            self.dice.shuffle(pools[queue])
        deep = [driver.message(LOADS[1], b'd' * DEEP_BYTES, True)]
        select = ('confirm.select', {})
        for i in range(self.plan.publishers):
            is_deep, announces = i < DEEP_COUNT, i % 3 != 2
            queue = LOADS[1 if is_deep else i % len(LOADS)]
            publisher = driver.Publisher(
                self.loop, self.open(select, announces=announces), 'publisher %d' % i, deep if is_deep else pools[queue],
                DEEP_WINDOW if is_deep else self.plan.window, announces)
            publisher.queue, publisher.at = queue, self.dice.randrange(len(publisher.messages))
            self.publishers.append(publisher)
        echo = [driver.message('echo', b'e' * n, n % 2) for n in (10, 1001, 20000)]
        self.both = driver.Both(self.loop, self.open(select, channels=(1, 2)), 'publishes and acks', echo, 4)
        self.both.send(driver.frame(2, 'basic.qos', prefetch_count=2) + driver.frame(2, 'basic.consume', queue='echo'))
        self.publishers.append(self.both)
        for publisher in self.publishers:
            publisher.fill()
        self.loop.until(lambda: all(p.confirms.confirmed for p in self.publishers), lambda: self.waiting(
            p for p in self.publishers if not p.confirms.confirmed))

    @staticmethod
    def waiting(publishers):
        names = [repr(p) for p in publishers]
        return '%d publishers wait: %s' % (len(names), ', '.join(names[:10]))

    # ---- memory

    def bound(self, totals):
        """What the broker may occupy: what its queues hold, and a term for each connection."""
        held = totals['message_bytes'] * 9 // 8 + totals['messages'] * ENTRY
        self.held_most = max(self.held_most, held)      # freed memory is kept for the next burst
        fixed = self.base + JOURNAL + PORT * self.loops()
        taking = sum(min(p.window * max(map(len, p.messages)), UNSYNCED + BODY_MAX) for p in self.publishers)
        giving = (len(self.drains) + len(self.never) + 2) * (CREDIT + BODY_MAX)
        return self.held_most + fixed + taking + giving + totals['sessions'] * (FRAME + CONNECTION)

    def loops(self):
        return max(1, int(os.environ.get('MILLRACE_LOOPS') or 1))

    def sample(self):
        totals = self.control.totals()
        rss, bound = resident(self.broker.process.pid), self.bound(totals)
        if rss / bound > self.worst_share:
            self.worst_share, self.worst = rss / bound, (rss, bound, totals)
        return totals

    # ---- one alarm

    def cycle(self, number):
        kinds, reason = ALARMS[number % len(ALARMS)]
        announcing = [p for p in self.publishers if p.announces]
        raised_at = time.monotonic()
        self.control.alarm(*kinds)
        self.loop.until(lambda: all(p.blocked for p in announcing), lambda: 'blocked: ' + self.waiting(
            p for p in announcing if not p.blocked))
        self.block_s.append(time.monotonic() - raised_at)
        for p in announcing:
            if p.reason != reason:
                raise Stuck('%r was blocked with %r, not %r' % (p, p.reason, reason))
        self.stays(lambda: self.control.totals()['published'], 'publishing while an alarm is raised')
        for p in self.publishers:
            if not p.confirms.outstanding():
                raise Stuck('%r has nothing to do' % p)
        self.consumers_are_served()
        self.loop.rest(self.plan.hold_s)
        self.sample()
        for p in self.publishers:
            p.mark()
        cleared_at = time.monotonic()
        self.control.alarm()
        self.loop.until(lambda: not any(p.goal for p in self.publishers), lambda: 'progress after alarm %d: %s' % (
            number, self.waiting(p for p in self.publishers if p.goal)))
        self.loop.until(lambda: not any(p.blocked for p in announcing), lambda: 'unblocked: ' + self.waiting(
            p for p in announcing if p.blocked))
        self.unblock_s.append(time.monotonic() - cleared_at)
        if self.unblock_s[-1] > 1:
            self.slow.append((number, round(self.unblock_s[-1], 3), self.control.totals()['compactions']))
        self.first_s += [p.first_at - cleared_at for p in self.publishers]
        self.all_s += [p.all_at - cleared_at for p in self.publishers]
        self.loop.rest(self.plan.run_s)
        self.sample()

    def consumers_are_served(self):
        deliveries, answers = self.paced.deliveries + SERVED, self.paced.answers + 1
        self.paced.allow(SERVED)
        self.paced.ask('feed')
        self.loop.until(lambda: self.paced.deliveries >= deliveries and self.paced.answers >= answers,
                        'deliveries and answers to a consumer while an alarm is raised')

    # ---- the end

    def finish(self):
        """The publishers have had enough: every confirm arrives, and everything published is delivered."""
        for p in self.publishers:
            p.going = False
        self.loop.until(lambda: not any(p.confirms.outstanding() for p in self.publishers), lambda: 'confirms: ' + self.waiting(
            p for p in self.publishers if p.confirms.outstanding()))
        for w in self.never:
            w.abort()           # what it held goes to the others
        for i, drain in enumerate(self.drains):
            wanted = sum(p.confirms.confirmed for p in self.publishers if p is not self.both and p.queue == LOADS[i])
            self.loop.until(lambda: drain.deliveries >= wanted, lambda: '%r has %d of %d' % (drain, drain.deliveries, wanted))
            if drain.deliveries != wanted:
                raise Stuck('%r has %d of %d messages' % (drain, drain.deliveries, wanted))
            drain.ack_rest()
        self.loop.until(lambda: self.both.deliveries == self.both.confirms.confirmed, 'what was published and consumed on one connection')
        for queue in LOADS + ['echo']:
            self.loop.until(lambda: self.control.queues()[queue]['messages'] == 0, '%s is empty' % queue)
        if any(p.times_blocked != (self.plan.alarms if p.announces else 0) or p.times_blocked != p.times_unblocked
               for p in self.publishers):
            raise Stuck('somebody heard more or less than %d alarms' % self.plan.alarms)
        if self.paced.times_blocked or any(d.times_blocked for d in self.drains):
            raise Stuck('a consumer was blocked')
        self.sample()
        self.control.call('CHECK')
        self.memory_was_bounded()

    def memory_was_bounded(self):
        pid = self.broker.process.pid
        rss, bound, totals = self.worst
        top = self.bound(totals)                # with the most that was held at any sample
        self.figures.update(rss=rss, bound=bound, hwm=resident(pid, 'VmHWM'), hwm_bound=top, held=self.held_most, base=self.base)
        if os.environ.get('MILLRACE_FLAVOUR', 'release') != 'release':
            return                              # a sanitizer's memory is not ours
        if rss > bound:
            raise Stuck('%d bytes resident, more than %d: %r' % (rss, bound, totals))
        if self.figures['hwm'] > top * 5 // 4:  # between two samples more may have been held
            raise Stuck('%d bytes resident at some time, much more than %d' % (self.figures['hwm'], top))

    def run(self):
        began = time.monotonic()
        probe = Probe(self.broker.folder) if self.plan.probes else None
        self.furnish()
        self.never_reading_consumer_is_bounded()
        self.start()
        if probe:
            probe.start()
        before, at = sum(p.confirms.confirmed for p in self.publishers), time.monotonic()
        for number in range(self.plan.alarms):
            self.cycle(number)
        seconds = time.monotonic() - at
        if probe:
            probe.stop()
            self.sync_s, self.late_s = probe.sync_s, probe.late_s
        done = sum(p.confirms.confirmed for p in self.publishers) - before
        self.finish()
        self.figures.update(confirms=sum(p.confirms.confirmed for p in self.publishers), rate=done / seconds,
                            echoed=self.both.deliveries, served=self.paced.deliveries, seconds=time.monotonic() - began)
        return self.figures

    def close(self):
        """Hundreds of descriptors that the next scenario of this process may want."""
        for w in self.wires:
            w.abort()
        self.loop.poll.close()

    def table(self):
        """Rows (what, p50, p99, max) in milliseconds."""
        rows = (('raised → the last of the announcing publishers is blocked', self.block_s),
                ('cleared → first confirm, each publisher', self.first_s),
                ('cleared → everything that waited is confirmed, each publisher', self.all_s),
                ('cleared → the last publisher is unblocked and has progressed', self.unblock_s),
                ('meanwhile, the machine: 4 KiB written and synced on the same disk', self.sync_s),
                ('meanwhile, the machine: a sleep of 1 ms is late by', self.late_s))
        return [(what, *(1000 * percentile(values, share) for share in (0.5, 0.99, 1.0))) for what, values in rows if values]


def run(plan, loops=None):
    """A broker of its own for one run; returns the scenario."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    if loops:
        os.environ['MILLRACE_LOOPS'] = str(loops)
    # What waits stays in memory: the cost of a consumer is not to be mixed up with pages being written and read.
    broker, scenario = brokers.Millrace(args=('--set', 'paging.bytes=8G')), None
    try:
        scenario = Scenario(broker.start(), plan)
        scenario.run()
        code, _ = broker.stop()
        if code != 0:
            raise Stuck('the broker ended with %r\n%s' % (code, broker.log_tail()))
        return scenario
    finally:
        if scenario:
            scenario.close()
        broker.remove()


def document(scenarios):
    """docs/flow.md: what is proved, the bound with its terms, and the figures of this run."""
    first = scenarios[0][1]
    plan = first.plan
    lines = [
        '# Flow: who waits for whom', '',
        'Written by `make flow` (`tests/flow/scenario.py`, where everything that must hold is asserted); `./test --only flow` runs a',
        'shorter form. %d publishers with confirms, bodies from 10 B to 100 KiB, half of them persistent, each with %d publishes' % (
            plan.publishers, plan.window),
        'waiting all the time and %d with %d of %d KiB; four consumers that drain; two consumers that never read their socket; a' % (
            DEEP_COUNT, DEEP_WINDOW, DEEP_BYTES // KIB),
        'connection that publishes and acknowledges; a consumer that never published; an alarm (memory, disk, both in turn) raised',
        'and cleared %d times. Clients and broker share one machine with %d processors, the clients are one Python process whose' % (
            plan.alarms, os.cpu_count()),
        'own time is in the figures, and other work may be running.', '',
        '## What holds', '',
        '- Every publish is confirmed once, and everything confirmed is delivered; no consumer is ever blocked.',
        '- Each alarm: every publishing connection that announced the capability hears `connection.blocked` with the reason, and',
        '  `connection.unblocked` afterwards; the others hear neither and are only not read; the number of accepted publishes',
        '  stands still; consumers get deliveries and answers meanwhile.',
        '- After each alarm every publisher, also the connection that publishes and acknowledges, has everything confirmed that',
        '  waited, before the next alarm begins.',
        '- A consumer that never reads costs its credit, and neither the other consumers of its queue nor anybody else.', '']
    for loops, scenario in scenarios:
        lines += ['## Times, %s' % ('1 network loop' if loops == 1 else '%d network loops' % loops), '',
                  '| ms | p50 | p99 | max |', '|---|---|---|---|']
        lines += ['| %s | %.1f | %.1f | %.1f |' % row for row in scenario.table()]
        lines += ['', '%d confirms in %.0f s of the whole run; %.0f confirms a second between the first alarm and the last.' % (
            scenario.figures['confirms'], scenario.figures['seconds'], scenario.figures['rate']), '']
    lines += [
        '## Memory', '',
        'The bound at any time, each term a setting or a constant of the broker:', '',
        '| term | bytes |', '|---|---|',
        '| the process before the first client | measured |',
        '| what the queues hold | 9/8 of the bodies, and %d B a message; the most at any time, since freed memory is kept for the next burst |' % ENTRY,
        '| journal: staged (`journal.staged_bytes`), and groups on their way | %d MiB |' % (JOURNAL // MIB),
        '| each network loop: rings, spare slabs | %d MiB |' % (PORT // MIB),
        '| each connection: a frame that has not arrived completely (`amqp.frame_max`), structures | %d KiB |' % ((FRAME + CONNECTION) // KIB),
        '| each publisher: accepted and not durable | its window, at most 1 MiB and a message |',
        '| each consumer: its credit | %d KiB and a message |' % (CREDIT // KIB), '',
        '| MiB | resident where it was nearest to its bound | bound then | of it held in queues | most resident ever |',
        '|---|---|---|---|---|']
    for loops, scenario in scenarios:
        f = scenario.figures
        lines.append('| %d loops | %.0f | %.0f | %.0f | %.0f |' % (loops, *(f[k] / MIB for k in ('rss', 'bound', 'held', 'hwm'))))
    f = first.figures
    lines += ['', 'The consumer that never reads, alone on a queue of %d messages of %d B: %d were written to its socket and lie in the' % (
        HELD_COUNT, HELD_BYTES, f['never_unacked']),
        "system's buffers; the broker's own memory grew by %d KiB, where %d KiB are allowed." % (f['never_bytes'] // KIB, f['never_bound'] // KIB), '']
    return '\n'.join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--write', help='the long form, and its figures into this file')
    parser.add_argument('--long', action='store_true')
    parser.add_argument('--loops', default='1,3')
    options = parser.parse_args()
    scenarios = []
    for loops in map(int, options.loops.split(',')):
        scenario = run(LongPlan if options.long or options.write else Plan, loops)
        scenarios.append((loops, scenario))
        print(loops, scenario.figures, scenario.slow)
        for row in scenario.table():
            print('  %-70s %8.1f %8.1f %8.1f' % row, flush=True)
    if options.write:
        with open(options.write, 'w') as f:
            f.write(document(scenarios))


if __name__ == '__main__':
    main()
