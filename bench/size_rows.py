"""The rows of bench/compare about backlogs bigger than memory: what they hold in memory and on the disk, what a restart and
a checkpoint cost, and how streams are read. bench/README.md says what each does, and why RabbitMQ's load is smaller.

A row answers a list of Row; all are taken once. Standard library only."""
import os
import statistics
import subprocess
import threading
import time

from rig import Client, Failed, Millrace, Row, first_connect, folder_bytes, folder_files, say, times

NONE = "–"
MIB = 2**20


def add_options(p):
    p.add_argument("--backlog", type=int, default=20_000_000, help="100 B messages of the backlog row")
    p.add_argument("--backlog-rabbitmq", type=int, default=1_000_000, help="the same for RabbitMQ")
    p.add_argument("--short-queue", type=int, default=100_000, help="messages of the queue it is compared with, in memory")
    p.add_argument("--many-queues", type=int, default=100_000)
    p.add_argument("--restart-gb", type=float, default=20.0, help="on disk when it is restarted")
    p.add_argument("--restart-body", type=int, default=16384, help="bytes of each of those messages")
    p.add_argument("--disk-s", type=float, default=3.0, help="seconds of load of each disk-bytes row")
    p.add_argument("--stream-messages", type=int, default=500_000, help="1000 B messages of the stream")
    p.add_argument("--stream-rabbitmq", type=int, default=100_000, help="the same for RabbitMQ")
    p.add_argument("--readers", type=int, default=10)


def make_quick(o):
    o.backlog, o.backlog_rabbitmq, o.short_queue = min(o.backlog, 2_000_000), min(o.backlog_rabbitmq, 100_000), 100_000
    o.many_queues, o.restart_gb, o.disk_s = min(o.many_queues, 10_000), min(o.restart_gb, 1.0), min(o.disk_s, 2.0)
    o.stream_messages, o.stream_rabbitmq = min(o.stream_messages, 100_000), min(o.stream_rabbitmq, 20_000)


def limit(name, rabbit, value, text, most, goal, unit="", ratio="", digits=2):
    """A row that asks for at most so much."""
    return Row(name, rabbit, text, ratio, f"≤ {most:,.{digits}f}{unit}", f"≤ {goal:,.{digits}f}{unit}" if goal else "",
               value <= most, value <= goal if goal else None)


def floor(name, rabbit, value, text, least, goal, ratio=""):
    """A row that asks for at least so much."""
    return Row(name, rabbit, text, ratio, f"≥ {least:g}", f"≥ {goal:g}", value >= least, value >= goal)


def millrace_of(bench):
    for broker in bench.brokers:
        if isinstance(broker, Millrace):
            return broker
    raise Failed("this row is about Millrace only")


def restart(broker, settings=()):
    """With these settings instead of the usual."""
    broker.stop()
    broker.settings = list(settings)
    broker.start()
    first_connect(broker.port)


def note(bench, name, text):
    say(f"  {text}")
    bench.raw.setdefault(name, []).append(text)


# -------------------------------------------------------------------------------------------------------------- backlog
def drain(bench, broker, queue, count):
    told = bench.generator.run(["--producers", "0", "--queue", queue, "--messages", str(count)], broker)
    return told["consume"]["rate"]


def fill(bench, broker, queue, count, *options):
    return bench.generator.run(["--consumers", "0", "--queue", queue, "--messages", str(count), *options], broker)["confirm"]["rate"]


def backlog_of(bench, broker, count):
    broker.fresh()
    short = []
    for turn in range(6):  # the first warms up
        fill(bench, broker, "bench-short", bench.options.short_queue)
        short.append(drain(bench, broker, "bench-short", bench.options.short_queue))
    filled = fill(bench, broker, "bench-backlog", count)
    broker.quiet()
    waiting_mb = broker.rss_kb() / 1024
    found = {"rss_mb": waiting_mb, "fill": filled, "drain": drain(bench, broker, "bench-backlog", count),
             "short": statistics.median(short[1:])}
    found["share"] = 100 * found["drain"] / found["short"]
    note(bench, "backlog", f"{broker.name} {count:,}: " + ", ".join(f"{k} {v:,.1f}" for k, v in found.items())
         + f"; short {', '.join(f'{s:,.0f}' for s in short)}; RSS after {broker.rss_kb() / 1024:.1f} MB")
    broker.fresh()
    return found


def row_backlog(bench):
    o = bench.options
    found = {b: backlog_of(bench, b, o.backlog if isinstance(b, Millrace) else o.backlog_rabbitmq) for b in bench.brokers}
    a, b = (found[broker] for broker in bench.brokers)

    def drained(f):
        return f"{f['share']:.0f} % ({f['drain']:,.0f} of {f['short']:,.0f} msg/s)"

    return [limit(f"RSS with {o.backlog:,} 100 B messages waiting in one queue", f"{a['rss_mb']:,.1f} MB ({o.backlog_rabbitmq:,})",
                  b["rss_mb"], f"{b['rss_mb']:,.1f} MB", 150, 64, " MB", times(a["rss_mb"] / b["rss_mb"]), 0),
            Row("draining that backlog, against draining a short queue", drained(a), drained(b), times(b["drain"] / a["drain"]),
                "≥ 60 %", "≥ 90 %", b["share"] >= 60, b["share"] >= 90)]


# ----------------------------------------------------------------------------------- many queues, checkpoints, restarts
def confirm_p99(bench, broker, rate):
    o = bench.options
    told = bench.generator.run(["--rate", f"{rate:.0f}", "--window", "100000", "--duration", str(o.duration), "--warmup",
                                str(o.warmup)], broker)
    return told["confirm latency"]["p99_us"]


def half_load(bench, broker):
    told = bench.generator.run(["--duration", "3", "--warmup", "1.5"], broker)
    return min(told["confirm"]["rate"], told["consume"]["rate"]) / 2


def declare(broker, name, count):
    with Client(broker.port) as client:
        client.declare_queues(name, count)


class Checkpoints:
    """One after another, as long as the block runs."""

    def __init__(self, broker):
        self.broker, self.count, self.failed = broker, 0, None
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        try:
            with self.broker.control() as control:
                while not self.ended.wait(0.01):
                    told = self.broker.ask(control, "COMPACT")
                    if "error" in told:
                        raise Failed(str(told))
                    self.count += 1
        except (OSError, Failed) as why:
            self.failed = why

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()


def row_checkpoint(bench):
    """Publish p99 at half load: quiet, while checkpoints run all the time, and beside many queues."""
    broker, o = millrace_of(bench), bench.options
    broker.fresh()
    rate = half_load(bench, broker)
    restart(broker, ["journal.compact_bytes=1000000000000"])  # none by itself
    fill(bench, broker, "bench-alive", o.short_queue)  # something that every checkpoint has to write
    bench.settle()
    none = [confirm_p99(bench, broker, rate) for _ in range(o.repeat)]
    with Checkpoints(broker) as checkpoints:
        during = [confirm_p99(bench, broker, rate) for _ in range(o.repeat)]
    if checkpoints.failed:
        raise Failed(f"checkpoints: {checkpoints.failed}")
    restart(broker)
    broker.fresh()
    declare(broker, "bench-few", 10)
    few = [confirm_p99(bench, broker, rate) for _ in range(o.repeat)]
    broker.fresh()
    declare(broker, "bench-many", o.many_queues)
    many = [confirm_p99(bench, broker, rate) for _ in range(o.repeat)]
    note(bench, "checkpoint", f"half load {rate:,.0f} msg/s, p99 in µs: without checkpoints {none}, with {during} "
         f"({checkpoints.count} asked for), 10 queues {few}, {o.many_queues:,} queues {many}")
    broker.fresh()
    a, b, c, d = (statistics.median(v) for v in (none, during, few, many))
    load = f"publish p99 at half load ({rate:,.0f} msg/s)"
    return [limit(f"{load} while checkpoints run, against none", NONE, b / a, f"{b:,.0f} µs against {a:,.0f} µs", 3, 1.3, "×",
                  f"{b / a:.2f}×", 1),
            limit(f"{load} with {o.many_queues:,} queues present, against 10", NONE, d / c, f"{d:,.0f} µs against {c:,.0f} µs",
                  3, 1.3, "×", f"{d / c:.2f}×", 1)]


def drop_caches():
    """Nothing of a file is in memory any more; needs root."""
    os.sync()
    try:
        with open("/proc/sys/vm/drop_caches", "w") as out:
            out.write("1\n")
        return True
    except OSError:
        return False


def started_s(broker):
    """From starting the process to the first publish confirmed."""
    broker.start()
    confirmed = first_connect(broker.port, then=lambda client: client.publish_confirmed("bench-many-0"))
    return confirmed - broker.started


def kill_under_load(bench, broker):
    """kill -9 while messages are published and taken."""
    run = subprocess.Popen([*bench.generator.command, "--uri", f"amqp://guest:guest@127.0.0.1:{broker.port}/", "--quiet",
                            "--queue", "bench-many-99", "--duration", "30"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(1.0)
    if run.poll() is not None:
        raise Failed("the load before kill -9 ended too early")
    broker.kill()
    run.wait()


def row_big_restart(bench):
    """Idle queues, then 20 GB in ten of them, then restarts."""
    broker, o = millrace_of(bench), bench.options
    broker.fresh()
    time.sleep(1.0)
    rss, files = broker.rss_kb(), folder_files(broker.data)
    declare(broker, "bench-many", o.many_queues)
    broker.quiet()
    per_queue = (broker.rss_kb() - rss) * 1024 / o.many_queues
    more_files = folder_files(broker.data) - files
    descriptors = len(os.listdir(f"/proc/{broker.pid()}/fd"))
    note(bench, "idle queues", f"{per_queue:.0f} B a queue, {more_files} files more (the journal's), {descriptors} descriptors")
    messages = int(o.restart_gb * 1e9 / o.restart_body)
    begun = time.monotonic()
    bench.generator.run(["--producers", "10", "--queues", "10", "--queue", "bench-many", "--consumers", "0", "--window", "200",
                         "--size", str(o.restart_body), "--messages", str(messages)], broker)
    broker.quiet()
    took, on_disk = time.monotonic() - begun, folder_bytes(broker.data)
    waiting_mb = broker.rss_kb() / 1024
    broker.stop()
    cold = drop_caches()
    clean = started_s(broker)
    restarted_mb = broker.rss_kb() / 1024
    kill_under_load(bench, broker)
    drop_caches()
    killed = started_s(broker)
    note(bench, "big restart", f"{on_disk / 1e9:.2f} GB on disk, filled in {took:.1f} s, RSS {waiting_mb:.0f} MB, after the restart "
         f"{restarted_mb:.0f} MB; clean {clean:.3f} s, after kill -9 {killed:.3f} s, files cached: {'no' if cold else 'yes'}")
    broker.fresh()
    name = f"with {on_disk / 1e9:.1f} GB on disk and {o.many_queues:,} queues, to the first publish confirmed"
    return [limit(f"idle durable queue, RAM (of {o.many_queues:,})", NONE, per_queue, f"{per_queue:,.0f} B", 600, 400, " B", "", 0),
            limit(f"idle durable queue, files ({more_files} more in all, the journal's)", NONE, more_files // o.many_queues,
                  f"{more_files / o.many_queues:.4f}", 0, 0, "", "", 0) if more_files < 32 else
            limit("idle durable queue, files", NONE, more_files, f"{more_files:,} of all", 0, 0, "", "", 0),
            limit(f"clean restart {name}", NONE, clean, f"{clean:.2f} s", 3, 1, " s", "", 0),
            limit(f"restart after kill -9 {name}", NONE, killed, f"{killed:.2f} s", 3, 1, " s", "", 0)]


# ----------------------------------------------------------------------------------------------------------- disk bytes
SHAPES = (("short queue", [], 1.3, 1.15, 1.8), ("backlog", ["--consumers", "0"], 2.4, 2.15, 3.0),
          ("stream", ["--consumers", "0", "--queue-type", "stream"], 2.4, 2.15, 3.0))


FIRST_BYTES = 1_300_000_000  # through the journal before disk bytes are counted: all its files are there then


def device_of(folder):
    number = os.stat(folder).st_dev
    return f"{os.major(number)} {os.minor(number)}".split()


def device_written(folder):
    """Bytes the block device was told to write, by anybody, the file system's own journal among them; None if unknown."""
    wanted = device_of(folder)
    for line in open("/proc/diskstats"):
        fields = line.split()
        if fields[:2] == wanted:
            return int(fields[9]) * 512
    return None


def disk_bytes(bench, broker, name, options, size):
    load = ["--size", str(size), "--warmup", "0", *options]
    # A new journal zeroes its first files before it writes them. That happens once, and not at saturation: past it first.
    first = ["--messages", str(FIRST_BYTES // (size + 100))] if isinstance(broker, Millrace) else ["--duration", "1"]
    bench.generator.run([*load, *first, "--queue", name + "-first"], broker)
    with Client(broker.port) as client:
        client.delete_queue(name + "-first")
    os.sync()
    before, device = broker.quiet(), device_written(broker.data)  # quiet only once: an idle second gives spare files back
    told = bench.generator.run([*load, "--duration", str(bench.options.disk_s), "--queue", name], broker)
    wrote = broker.quiet() - before
    os.sync()
    device = device_written(broker.data) - device if device is not None else float("nan")
    with Client(broker.port) as client:
        client.delete_queue(name)
    accepted = told["confirm"]["messages"] * size
    return {"ratio": wrote / accepted, "device": device / accepted, "rate": told["confirm"]["rate"]}


def row_disk(bench):
    rows = []
    for size in (1000, 100):
        for shape, options, must, goal, must_100 in SHAPES:
            found = []
            for broker in bench.brokers:
                broker.fresh()
                found.append(disk_bytes(bench, broker, f"bench-{shape.replace(' ', '-')}", options, size))
                note(bench, "disk", f"{broker.name}, {shape}, {size} B: " + ", ".join(f"{k} {v:,.2f}" for k, v in found[-1].items()))
            a, b = found
            if size == 100:
                must, goal = must_100, None

            def text(f):
                return f"{f['ratio']:.2f} (device {f['device']:.2f}) at {f['rate']:,.0f} msg/s"
            rows.append(limit(f"disk bytes per accepted byte at saturation, {size} B bodies, {shape}", text(a), b["ratio"], text(b),
                              must, goal))
    bench.notes.append(
        "Disk bytes are `write_bytes` of the broker's process (/proc/PID/io) until it wrote nothing for half a second, divided by "
        "the bytes of confirmed bodies, after a first part of the same load (a new journal zeroes its first files). With O_DIRECT these are the bytes handed to the device; through the page cache a page "
        "counts once each time it becomes dirty, which is what a sync then writes. The device's own figure stands beside it: it "
        "includes the file system's journal and every other process, so it is an upper bound on a machine that does nothing else.")
    return rows


# --------------------------------------------------------------------------------------------------------------- stream
def read_stream(bench, broker, count, readers):
    cold = drop_caches()
    before = broker.io("read_bytes")
    told = bench.generator.run(["--producers", "0", "--consumers", str(readers), "--queue", "bench-stream", "--queue-type", "stream",
                                "--offset", "first", "--messages", str(count)], broker)
    found = {"rate": told["consume"]["rate"], "read": broker.io("read_bytes") - before if cold else float("nan")}
    if readers > 1:
        found["evenness"] = told["each consumer"]["slowest_over_fastest"]
    return found


def stream_of(bench, broker, count):
    broker.fresh()
    fill(bench, broker, "bench-stream", count, "--size", "1000", "--queue-type", "stream")
    broker.quiet()
    size = folder_bytes(broker.stream_folder())
    if size == 0:
        raise Failed(f"{broker.name}: nothing in {broker.stream_folder()}")
    one = read_stream(bench, broker, count, 1)
    many = read_stream(bench, broker, count, bench.options.readers)
    found = {"one": one["rate"], "many": many["rate"], "times": many["rate"] / one["rate"], "read": many["read"] / size,
             "read_one": one["read"] / size, "evenness": many["evenness"], "size_mb": size / MIB}
    note(bench, "stream", f"{broker.name}: " + ", ".join(f"{k} {v:,.3f}" for k, v in found.items()))
    broker.fresh()
    return found


def row_stream(bench):
    o = bench.options
    counts = [o.stream_messages if isinstance(b, Millrace) else o.stream_rabbitmq for b in bench.brokers]
    a, b = (stream_of(bench, broker, count) for broker, count in zip(bench.brokers, counts))
    name = f"a stream of {counts[1]:,} messages of 1000 B read by {o.readers} at once ({counts[0]:,} by RabbitMQ)"

    def rate(f):
        return f"{f['times']:.2f}× ({f['many']:,.0f} of {f['one']:,.0f} msg/s)"

    rows = [floor(f"{name}: total rate against one", rate(a), b["times"], rate(b), 1, 1.3, times(b["many"] / a["many"])),
            limit("disk bytes read, against its size", f"{a['read']:.2f}×", b["read"], f"{b['read']:.2f}×", 1.1, 1.0, "×", "", 1),
            floor("slowest against fastest", f"{a['evenness']:.2f}", b["evenness"], f"{b['evenness']:.2f}", 0.7, 0.9)]
    if b["read"] != b["read"]:  # not a number: the caches could not be dropped
        rows[1].met = rows[1].goal_met = None
        bench.notes.append("Disk bytes read were not measured: the page cache can only be dropped as root.")
    return rows


ROWS = [
    ("backlog", row_backlog),
    ("checkpoint", row_checkpoint),
    ("big-restart", row_big_restart),
    ("disk", row_disk),
    ("stream", row_stream),
]
