"""What all rows of bench/compare need: the brokers, a small client, the load generator, a row. Standard library only."""
import json
import os
import platform
import random
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
AMQP_PORT = 5672
RABBITMQ = "/usr/lib/rabbitmq/bin/rabbitmq-server"


class Failed(Exception):
    """Something could not be measured; the text says what."""


def say(text):
    print(text, file=sys.stderr, flush=True)


# ------------------------------------------------------------------------------------------------------ an AMQP client
class Client:
    """The least of a client: a login, a channel, one method after another. It is what a restart is timed with."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        # As every client library: otherwise the last frame of the login waits 40 ms for a delayed ACK of the one before.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.login()
        except (OSError, EOFError):
            self.socket.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def exactly(self, count):
        found = b""
        while len(found) < count:
            more = self.socket.recv(count - len(found))
            if not more:
                raise EOFError
            found += more
        return found

    def expect(self, ids):
        while True:
            kind, _, size = struct.unpack(">BHI", self.exactly(7))
            payload = self.exactly(size + 1)[:-1]
            if kind == 1 and struct.unpack(">HH", payload[:4]) == ids:
                return payload[4:]
            if kind == 1:
                raise EOFError(f"wanted {ids}, got {payload[:60]}")

    def frame(self, kind, channel, payload):
        return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"

    def method(self, channel, ids, arguments):
        self.socket.sendall(self.frame(1, channel, struct.pack(">HH", *ids) + arguments))

    def login(self):
        self.socket.sendall(b"AMQP\x00\x00\x09\x01")
        self.expect((10, 10))
        self.method(0, (10, 11), struct.pack(">I", 0) + b"\x05PLAIN" + struct.pack(">I", 12) + b"\x00guest\x00guest" + b"\x05en_US")
        self.method(0, (10, 31), self.expect((10, 30))[:8])
        self.method(0, (10, 40), b"\x01/\x00\x00")
        self.expect((10, 41))

    def open_channel(self):
        self.method(1, (20, 10), b"\x00")
        self.expect((20, 11))

    def publish_confirmed(self, queue, body=b"first"):
        self.open_channel()
        self.method(1, (85, 10), b"\x00")
        self.expect((85, 11))
        name = queue.encode()
        publish = struct.pack(">HHH", 60, 40, 0) + b"\x00" + bytes([len(name)]) + name + b"\x00"
        header = struct.pack(">HHQHB", 60, 0, len(body), 0x1000, 2)
        self.socket.sendall(self.frame(1, 1, publish) + self.frame(2, 1, header) + self.frame(3, 1, body))
        self.expect((60, 80))

    def declare_queues(self, name, count):
        """name-0 and so on, durable, without waiting for each; 100,000 one by one would be most of a row's time."""
        self.open_channel()
        for first in range(0, count, 1000):
            batch = b""
            for number in range(first, min(first + 1000, count)):
                last = number == count - 1
                queue = f"{name}-{number}".encode()
                batch += self.frame(1, 1, struct.pack(">HHH", 50, 10, 0) + bytes([len(queue)]) + queue
                                    + bytes([2 if last else 18]) + struct.pack(">I", 0))
            self.socket.sendall(batch)
        self.expect((50, 11))

    def delete_queue(self, queue):
        self.open_channel()
        name = queue.encode()
        self.method(1, (50, 40), b"\x00\x00" + bytes([len(name)]) + name + b"\x00")
        self.expect((50, 41))


def first_connect(port, timeout=60.0, then=lambda client: None):
    """Waits until a login with open-ok works, and `then(client)` after it; answers the monotonic time when it did."""
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        try:
            with Client(port) as client:
                then(client)
                return time.monotonic()
        except (OSError, EOFError):
            time.sleep(0.0005)
    raise Failed(f"no AMQP login on port {port} within {timeout:.0f} s")


def accepts(port):
    with socket.socket() as s:
        s.settimeout(2)
        return s.connect_ex(("127.0.0.1", port)) == 0


def folder_bytes(folder):
    """What its files take on the disk."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(where, name)).st_blocks * 512
            except FileNotFoundError:
                pass
    return total


def folder_files(folder):
    return sum(len(names) for _, _, names in os.walk(folder))


def free_port(low, high):
    for _ in range(200):
        port = random.randint(low, high)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise Failed(f"no free port from {low} to {high}")


# -------------------------------------------------------------------------------------------------------------- brokers
class Broker:
    """A server under test: start, stop, wipe, and what /proc says of it. Subclasses give the command."""

    name = "?"

    def __init__(self, home):
        self.home = home
        self.data = os.path.join(home, "data")
        self.process = None
        os.makedirs(home, exist_ok=True)

    def pid(self):
        return self.process.pid

    def kill(self):
        """As a machine that loses its broker: no goodbye."""
        os.kill(self.pid(), signal.SIGKILL)
        self.process.wait(30)
        self.process = None

    def start(self):
        """Answers the seconds until the port accepted a connection."""
        os.makedirs(self.home, exist_ok=True)
        with open(os.path.join(self.home, "log"), "ab") as log:
            begun = time.monotonic()
            self.process = subprocess.Popen(self.command(), env=self.environment(), stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, start_new_session=True, cwd=self.home)
            while not accepts(self.port):
                if self.process.poll() is not None:
                    raise Failed(f"{self.name} ended at once with code {self.process.returncode}; see its log: "
                                 + open(os.path.join(self.home, "log"), errors="replace").read()[-400:])
                if time.monotonic() - begun > 90:
                    raise Failed(f"{self.name} does not accept connections after 90 s")
                time.sleep(self.poll_s)
            took = time.monotonic() - begun
        self.started = begun
        return took

    def stop(self):
        if self.process is None:
            return
        try:
            os.kill(self.pid(), signal.SIGTERM)
        except ProcessLookupError:
            pass
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            os.kill(self.pid(), signal.SIGKILL)
            self.process.wait(10)
        self.process = None

    def wipe(self):
        shutil.rmtree(self.data, ignore_errors=True)

    def ready(self):
        """Waits until a client is served; answers the monotonic time when it was."""
        return first_connect(self.port)

    def fresh(self):
        self.stop()
        self.wipe()
        took = self.start()
        self.ready()
        return took

    def rss_kb(self):
        for line in open(f"/proc/{self.pid()}/status"):
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise Failed(f"no VmRSS of {self.name}")

    def io(self, key):
        """A figure of /proc/PID/io: read_bytes and write_bytes are what went to the block device, or will."""
        for line in open(f"/proc/{self.pid()}/io"):
            if line.startswith(key + ":"):
                return int(line.split()[1])
        raise Failed(f"no {key} of {self.name}")

    def quiet(self, timeout=20.0):
        """Waits until it has written nothing for half a second; answers its write_bytes."""
        until = time.monotonic() + timeout
        last, since = self.io("write_bytes"), time.monotonic()
        while time.monotonic() < until and time.monotonic() - since < 0.5:
            time.sleep(0.05)
            now = self.io("write_bytes")
            if now != last:
                last, since = now, time.monotonic()
        return last

    def cpu_s(self):
        fields = open(f"/proc/{self.pid()}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def environment(self):
        return dict(os.environ)

    def close(self):
        self.stop()


class Millrace(Broker):
    name = "Millrace"
    poll_s = 0.0002

    def __init__(self, home, binary):
        super().__init__(home)
        self.binary = binary
        self.settings = []  # for one row, as --set understands them
        self.port = free_port(AMQP_PORT + 1, AMQP_PORT + 3900)

    def command(self):
        return [self.binary, "serve", "--data", self.data, "--port-offset", str(self.port - AMQP_PORT),
                *(f"--set={setting}" for setting in self.settings)]

    def control(self):
        """Its control socket: ask(socket, operation) sends one request and waits for the answer."""
        s = socket.socket(socket.AF_UNIX)
        s.connect(os.path.join(self.data, "control.sock"))
        return s

    @staticmethod
    def ask(control, operation):
        text = json.dumps({"op": operation}).encode()
        control.sendall(struct.pack(">I", len(text)) + text)
        answer = b""
        while len(answer) < 4 or len(answer) < 4 + struct.unpack(">I", answer[:4])[0]:
            more = control.recv(65536)
            if not more:
                raise Failed("the control socket was closed")
            answer += more
        return json.loads(answer[4:])

    def stream_folder(self):
        return os.path.join(self.data, "str")

    def version(self):
        told = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True)
        return told.stdout.strip() or "unknown"


class RabbitMQ(Broker):
    """Debian's package, started with folders, ports and an epmd of its own."""

    name = "RabbitMQ"
    poll_s = 0.005

    def __init__(self, home, name="RabbitMQ"):
        super().__init__(home)
        if not os.path.exists(RABBITMQ):
            raise Failed("rabbitmq-server is not installed (apt-get install rabbitmq-server)")
        self.name = name
        self.port = free_port(20000, 29000)
        self.epmd_port = free_port(30000, 34000)
        self.dist_port = free_port(34001, 39000)
        self.epmd = None

    def environment(self):
        env = {k: v for k, v in os.environ.items() if not k.startswith("RABBITMQ_")}
        env.update(HOME=self.home, RABBITMQ_NODENAME=f"bench{self.port}@localhost", RABBITMQ_NODE_PORT=str(self.port),
                   RABBITMQ_NODE_IP_ADDRESS="127.0.0.1", RABBITMQ_MNESIA_BASE=self.data,
                   RABBITMQ_LOG_BASE=os.path.join(self.home, "logs"), RABBITMQ_DIST_PORT=str(self.dist_port),
                   ERL_EPMD_PORT=str(self.epmd_port), RABBITMQ_PID_FILE=os.path.join(self.home, "pid"),
                   RABBITMQ_CONFIG_FILE=os.path.join(self.home, "none"),
                   RABBITMQ_CONF_ENV_FILE=os.path.join(self.home, "none.env"),
                   RABBITMQ_ENABLED_PLUGINS_FILE=os.path.join(self.home, "plugins"))
        return env

    def command(self):
        return [RABBITMQ]

    def start(self):
        with open(os.path.join(self.home, "plugins"), "w") as plugins:
            plugins.write("[].\n")
        if self.epmd is None:
            # Ours, in the foreground: the one RabbitMQ would start detaches itself and outlives everybody.
            self.epmd = subprocess.Popen(["epmd", "-port", str(self.epmd_port)], stdin=subprocess.DEVNULL,
                                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        return super().start()

    def stream_folder(self):
        return os.path.join(self.data, f"bench{self.port}@localhost", "stream")

    def pid(self):
        try:
            return int(open(os.path.join(self.home, "pid")).read())
        except (OSError, ValueError):
            return self.process.pid

    def stop(self):
        super().stop()
        pid_file = os.path.join(self.home, "pid")
        if os.path.exists(pid_file):
            os.unlink(pid_file)

    def version(self):
        told = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", "rabbitmq-server"], capture_output=True, text=True)
        return told.stdout.strip() or "unknown"

    def close(self):
        self.stop()
        if self.epmd is not None:
            self.epmd.terminate()
            self.epmd.wait(10)


# ------------------------------------------------------------------------------------------------------- load generator
class Generator:
    """Runs `millrace bench amqp` and reads its JSON."""

    def __init__(self, command):
        self.command = command

    def where(self, broker):
        return ["--uri", f"amqp://guest:guest@127.0.0.1:{broker.port}/"]

    def run(self, options, broker=None, prefix=()):
        where = self.where(broker) if broker else []
        done = subprocess.run([*prefix, *self.command, *where, "--json", "--quiet", *options], capture_output=True, text=True)
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        if not lines or done.returncode != 0:
            raise Failed(f"{broker.name if broker else 'the load generator'}, {' '.join(options)}: exit code "
                         f"{done.returncode}: {done.stderr.strip()[-300:]} {checks(lines)}")
        return json.loads(lines[-1])

    def held(self, options, broker, look):
        """Calls look() while the generator holds what it made; answers its answer."""
        return self.held_and_told(options, broker, look)[0]

    def held_and_told(self, options, broker, look):
        """The same, and what the generator has measured."""
        command = [*self.command, *self.where(broker), "--json", "--quiet", "--hold", "3", *options]
        run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        found, told = None, []
        for line in run.stderr:
            told.append(line)
            if line.startswith("holding"):
                time.sleep(1.5)
                found = look()
        out, _ = run.communicate()
        if run.returncode != 0 or found is None:
            raise Failed(f"{broker.name}, {' '.join(options)}: {''.join(told).strip()[-300:]}")
        return found, json.loads(out)


def checks(lines):
    return json.dumps(json.loads(lines[-1]).get("checks", {})) if lines else ""


# ----------------------------------------------------------------------------------------------------------------- rows
class Row:
    """One line of the table. ratio, must and goal are texts; met and goal_met are True, False or None (nothing asked)."""

    def __init__(self, name, rabbit, millrace, ratio="", must="", goal="", met=None, goal_met=None, note=""):
        self.name, self.rabbit, self.millrace, self.ratio = name, rabbit, millrace, ratio
        self.must, self.goal, self.met, self.goal_met, self.note = must, goal, met, goal_met, note


class Bench:
    """What all rows need: the two brokers, the generator, how often and how long."""

    def __init__(self, options, brokers, generator):
        self.options, self.brokers, self.generator = options, brokers, generator
        self.details = []
        self.notes = []
        self.raw = {}

    def settle(self):
        os.sync()
        time.sleep(self.options.settle)

    def alternate(self, what, measure, repeat=None):
        """Calls measure(broker) for both in turn, `repeat` times; answers two lists."""
        found = [[], []]
        for turn in range(repeat or self.options.repeat):
            for i, broker in enumerate(self.brokers):
                self.settle()
                value = measure(broker)
                found[i].append(value)
                say(f"  {what}, {turn + 1}: {broker.name} {brief(value)}")
        self.raw[what] = found
        return found


def brief(value):
    if isinstance(value, dict):
        return "  ".join(f"{k} {v:,.1f}" for k, v in value.items() if isinstance(v, (int, float)))
    return f"{value:,.4f}"


def median_of(found, key):
    return statistics.median(v[key] for v in found)


def spread(found, key):
    values = [v[key] for v in found]
    return f"{min(values):,.0f}–{max(values):,.0f}" if len(values) > 1 else ""


def times(x):
    return f"{x:,.1f}×"


# ------------------------------------------------------------------------------------------------------------ the report
def machine(folder):
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown")
    memory = next(int(line.split()[1]) for line in open("/proc/meminfo") if line.startswith("MemTotal"))
    kind = subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True).stdout.strip()
    mounted = subprocess.run(["findmnt", "-n", "-o", "FSTYPE,OPTIONS", "-T", folder], capture_output=True, text=True).stdout
    return [("processor", f"{model}, {len(os.sched_getaffinity(0))} CPUs shared by broker and load generator"),
            ("memory", f"{memory / 2**20:.0f} GiB"), ("kernel", f"{platform.system()} {platform.release()}"),
            ("file system of the data folders", " ".join(mounted.split()) or kind)]


def cells(row):
    verdict = "" if row.met is None else "yes" if row.met else "**no**"
    goal = "" if row.goal_met is None else "yes" if row.goal_met else "no"
    return [row.name, row.rabbit, row.millrace, row.ratio, row.must, verdict, row.goal, goal]


def as_table(head, lines):
    out = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return out + ["| " + " | ".join(str(c) for c in line) + " |" for line in lines]
