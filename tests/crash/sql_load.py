"""The load of continuous SQL: Nexmark's events, each known by its number, into a stream of one partition, from which queries write into
streams and a queue; the uninterrupted run with which they are compared; and the audit (sql_model.py).

After a death the producer goes on behind what is in the log. What the queries have written is read over Kafka's wire, by its offset.
"""
import atexit
import http.client
import itertools
import json
import os
import random
import subprocess
import threading
import time

from load import Gone, brokers, connect, must      # first: it makes tests/clients importable
import kafka_wire
import sql_model
import wire
from kafka_load import Actor, errors_of
from sql_model import tick_ms, tick_of

Model = sql_model.Model
chance = random.Random(4)
TITLE = ", continuous SQL"
CONFIRMS = (20, 1500)           # events of a cycle
PATIENCE = 120                  # seconds
SILENCE = 30                    # seconds in which no row comes, after which none will
IN_FLIGHT, BATCH = 3, 150
SLACK = 2 * IN_FLIGHT * BATCH   # events by which a load may exceed its target
QUEUE, SEAL, EVENTS, TICKS = "alarms", "sqlseal", "nexmark", "ticks"
SOURCES = ((EVENTS, 0), (TICKS, 0), (TICKS, 1))
GROUP = 130                     # events are out of order within so many: some come late
BINARY = os.environ.get("MILLRACE_BIN")         # that of the uninterrupted run, also when a mutant is hunted
PROGRAM = os.path.join(os.environ.get("MILLRACE_BUILD") or os.path.join(brokers.ROOT, "build", "release"), "tests/sql/query")

SCHEMA = """
CREATE STREAM nexmark (event_type INT,
  person ROW<id BIGINT, name TEXT, city TEXT, state TEXT, dateTime TIMESTAMP>,
  auction ROW<id BIGINT, seller BIGINT, category BIGINT, dateTime TIMESTAMP, expires TIMESTAMP>,
  bid ROW<auction BIGINT, bidder BIGINT, price BIGINT, channel TEXT, url TEXT, dateTime TIMESTAMP, extra TEXT>,
  dateTime AS (CASE WHEN event_type = 0 THEN person.dateTime WHEN event_type = 1 THEN auction.dateTime ELSE bid.dateTime END),
  WATERMARK FOR dateTime AS dateTime - INTERVAL '0.003' SECOND IDLE AFTER INTERVAL '10' DAY) WITH (partitions = 1);
CREATE VIEW person AS SELECT person.id, person.name, dateTime FROM nexmark WHERE event_type = 0;
CREATE VIEW auction AS SELECT auction.id, auction.seller, auction.category, dateTime, auction.expires FROM nexmark WHERE event_type = 1;
CREATE VIEW bid AS SELECT bid.auction, bid.bidder, bid.price, bid.channel, bid.url, dateTime, bid.extra, _offset FROM nexmark WHERE event_type = 2;
CREATE STREAM ticks (id BIGINT, ts TIMESTAMP, WATERMARK FOR ts IDLE AFTER INTERVAL '0.02' SECOND) WITH (partitions = 2);
"""
HOP = ("SELECT auction, count(*) AS num, window_start AS s, window_end AS e FROM HOP(bid, dateTime, INTERVAL '0.2' SECOND, INTERVAL '1' SECOND) "
       "GROUP BY auction, window_start, window_end")
HALF = "INTERVAL '0.5' SECOND"
ALARMS = "SELECT auction, bidder, price, _offset AS event FROM bid WHERE price > 8000000"
BEATS = ("SELECT window_end, count(*) AS n FROM TUMBLE(ticks, ts, INTERVAL '%g' SECOND) GROUP BY window_start, window_end"
         % (sql_model.BEAT_MS / 1000))
# One that is replaced in place, by versions without and with state: each gives every auction's event once.
AUCTIONS = ("SELECT _offset AS event, %d AS version FROM nexmark WHERE event_type = 1",
            "SELECT MAX(_offset) AS event, %d AS version FROM nexmark WHERE event_type = 1 GROUP BY _offset")
# Nexmark's, with windows that fit ten thousand events a second.
QUERIES = {
    "q4": "SELECT Q.category, AVG(Q.final) AS average FROM (SELECT MAX(B.price) AS final, A.category FROM auction A, bid B WHERE A.id = B.auction "
          "AND B.dateTime BETWEEN A.dateTime AND A.expires GROUP BY A.id, A.category) Q GROUP BY Q.category",
    "q5": f"SELECT A.auction, A.num, A.e FROM ({HOP}) AS A JOIN (SELECT max(C.num) AS most, C.s, C.e FROM ({HOP}) AS C GROUP BY C.s, C.e) AS M "
          "ON A.s = M.s AND A.e = M.e AND A.num >= M.most",
    "q7": f"SELECT B.auction, B.price, B.bidder, B.dateTime FROM bid B JOIN (SELECT MAX(price) AS most, window_end AS e FROM TUMBLE(bid, dateTime, {HALF}) "
          f"GROUP BY window_start, window_end) M ON B.price = M.most WHERE B.dateTime BETWEEN M.e - {HALF} AND M.e",
    "q8": f"SELECT P.id, P.name, P.s FROM (SELECT id, name, window_start AS s, window_end AS e FROM TUMBLE(person, dateTime, {HALF}) "
          f"GROUP BY id, name, window_start, window_end) P JOIN (SELECT seller, window_start AS s, window_end AS e FROM TUMBLE(auction, dateTime, {HALF}) "
          "GROUP BY seller, window_start, window_end) A ON P.id = A.seller AND P.s = A.s AND P.e = A.e",
    "q11": "SELECT bidder, count(*) AS n, window_start, window_end FROM SESSION(bid PARTITION BY bidder, dateTime, INTERVAL '0.02' SECOND) "
           "GROUP BY bidder, window_start, window_end",
    "q18": "SELECT auction, bidder, price, channel, url, dateTime FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY bidder, auction ORDER BY dateTime DESC) "
           "AS r FROM bid) WHERE r <= 1",
    "cep": "SELECT auction, drop_time, drop_diff, bids FROM bid MATCH_RECOGNIZE (PARTITION BY auction ORDER BY dateTime, price MEASURES C.dateTime AS drop_time, "
           "A.price - C.price AS drop_diff, COUNT(*) AS bids PATTERN (A B* C) WITHIN INTERVAL '0.1' SECOND DEFINE B AS B.price > A.price - 50 AND AVG(B.price) > 1000, "
           "C AS C.price < LAST(price, 1) - 50000)",
}


class Trouble(Exception):
    """An answer that no broker that runs may give."""


ERRORS = (Trouble, wire.WireError, kafka_wire.WireError, Gone, OSError, http.client.HTTPException)


def report_of(chain):
    """More lines of docs/crash.md."""
    c, seen = chain.model.counts, chain.model.seen
    return ["", "*%s*: Nexmark's %s at once, from one stream into one each, a filter into a queue, and windows that the clock ends over two "
            "partitions; with a snapshot every 200 or 1,000 events or none. *confirmed*: events and ticks; *audited*: rows of results, each compared with the "
            "one that an uninterrupted run has at its offset, the whole at the end; *acks*: of the queue, sealed by a later confirm. Each query was "
            "killed %d times, %d of them while it took again what it had taken. %d events, and of them: %s; %d windows by the clock; %d times all that an uninterrupted run gives was "
            "waited for. Beside them a query was replaced in place %d times while it ran, %d of them answered, the others cut off by a death: %d rows, each once, in order, %d versions among them."
            % (chain.name, ", ".join(QUERIES), chain.cycles + chain.extra, c["replaying"], seen[EVENTS, 0],
               ", ".join("%d rows of %s" % (seen[name], name) for name in QUERIES), seen["beats"], c["caught"], c["versions"], c["replaced"], seen["newest"],
               len({version for _, version in chain.model.newest}))]


# ---- asking

def sql(port, text):
    """The lines of statements that have to succeed."""
    c = http.client.HTTPConnection("127.0.0.1", port - 5672 + 15672, timeout=PATIENCE)
    try:
        c.request("POST", "/sql", text, {"Content-Type": "application/sql"})
        lines = [json.loads(line) for line in c.getresponse().read().decode().splitlines()]
    finally:
        c.close()
    if "error" in lines[-1]:
        raise Trouble("%s: %s" % (text.split("(")[0], lines[-1]["error"]["message"]))
    return lines


def queries(port):
    """{name: {column: value}} of SHOW QUERIES."""
    lines = sql(port, "SHOW QUERIES")
    names = [c["name"] for c in lines[0]["columns"]]
    return {line["row"][0]: dict(zip(names, line["row"])) for line in lines if "row" in line}


def kafka(port):
    return kafka_wire.Wire(port - 5672 + 9092, timeout=PATIENCE)


def ends(w, where):
    """{(topic, partition): offset behind the last record that may be seen}"""
    said = w.call("list_offsets", 4, replica_id=-1, isolation_level=0, topics=[
        {"name": topic, "partitions": [{"partition_index": part, "current_leader_epoch": -1, "timestamp": -1}]} for topic, part in where])
    if errors_of(said):
        raise kafka_wire.WireError("ListOffsets: %r" % said)
    return {(t["name"], p["partition_index"]): p["offset"] for t in said["topics"] for p in t["partitions"]}


def read(w, topic, part, offset, upto=None):
    """Values of the records from an offset on."""
    out = []
    while True:
        got = kafka_wire.fetch(w, topic, offset + len(out), part, version=11, wait=0, most=1 << 22)
        if got["error_code"]:
            raise kafka_wire.WireError("fetch of %s at %d: error %d" % (topic, offset + len(out), got["error_code"]))
        for one in kafka_wire.batches(got["records"]):
            out += [r["value"] for r in one["records"] if r["offset"] >= offset + len(out)]
        if offset + len(out) >= (got["high_watermark"] if upto is None else upto):
            return out


def declare(port):
    """Statements of a broker; a stream in place of the queue gives the rows that the queue has to get."""
    sql(port, SCHEMA + "".join("CREATE STREAM %s WITH (partitions = 1) AS %s;" % pair for pair in QUERIES.items()))


def topology(port):
    w = connect(port)
    must(w.channel(1))
    must(w.call(1, "queue.declare", queue=SEAL, durable=True, arguments={"x-max-length": 5}))
    w.close()
    declare(port)
    sql(port, "CREATE SINK %s WITH (queue = '%s') AS %s; CREATE STREAM beats WITH (partitions = 1) AS %s; CREATE STREAM newest WITH (partitions = 1) AS %s"
        % (QUEUE, QUEUE, ALARMS, BEATS, AUCTIONS[0] % 0))


# ---- what should be there

class Reference:
    """The uninterrupted run: a broker that is never killed and makes no snapshots. It is ahead of the one that is."""

    def __init__(self):
        self.generator = subprocess.Popen([PROGRAM, "--events", str(1 << 21), str(GROUP)], stdout=subprocess.PIPE)
        self.events, self.auctions = [], []
        self.rows = {name: [] for name in (*QUERIES, QUEUE)}
        self.broker = brokers.Millrace()
        self.broker.binary = os.path.abspath(BINARY or os.path.join(brokers.ROOT, "build", "millrace"))
        atexit.register(self.close)
        self.broker.start(timeout=PATIENCE)
        declare(self.broker.port)
        sql(self.broker.port, "CREATE STREAM %s WITH (partitions = 1) AS %s" % (QUEUE, ALARMS))

    def close(self):
        self.generator.kill()
        self.generator.communicate()
        self.broker.remove()

    def upto(self, count):
        """Its queries have read so many events, and written what comes of them."""
        if count <= len(self.events):
            return
        with kafka(self.broker.port) as w:
            while len(self.events) < count:
                some = [line.rstrip(b"\n") for line in itertools.islice(self.generator.stdout, min(500, count - len(self.events)))]
                if errors_of(kafka_wire.produce(w, EVENTS, kafka_wire.batch(some))):
                    raise Trouble("the uninterrupted run takes no events")
                self.auctions += [len(self.events) + i for i, event in enumerate(some) if json.loads(event)["event_type"] == 1]
                self.events += some
            wanted = [(name, 0) for name in self.rows]
            brokers.wait_until(lambda: self.written(ends(w, wanted)), PATIENCE, "the uninterrupted run has read all")
            for name, rows in self.rows.items():
                rows += read(w, name, 0, len(rows))

    def written(self, there):
        shown = queries(self.broker.port)
        return all(q["rows_in"] >= len(self.events) and q["rows_out"] == there[name, 0] for name, q in shown.items())


REFERENCE = []


def reference():
    """One for all chains of this process."""
    if not REFERENCE:
        REFERENCE.append(Reference())
    return REFERENCE[0]


# ---- the load

class Producer(Actor):
    """Events and ticks by their numbers, from where each log ends."""

    def __init__(self, load, name):
        super().__init__(load, name)
        with kafka(load.port) as w:
            self.next = ends(w, SOURCES)
        self.in_flight = 0
        self.haste = self.random.choice((1.0, 1.0, 0.05))

    def turn(self):
        while self.in_flight < IN_FLIGHT and self.random.random() < self.haste:
            topic, part = self.random.choice(SOURCES + ((EVENTS, 0),))
            count = min(self.random.choice((1, 20, BATCH)), self.left(topic, part))
            if not count:
                return
            first = self.next[topic, part]
            values = (self.load.reference.events[first:first + count] if topic == EVENTS else
                      [tick_of(part, n) for n in range(first, first + count)])
            self.next[topic, part] += count
            self.in_flight += 1
            self.ask(self.on_answer, "produce", 9, topic, part, first, count, acks=-1, timeout_ms=60000, topic_data=[
                {"name": topic, "partition_data": [{"index": part, "records": kafka_wire.batch(values)}]}])

    def left(self, topic, part):
        """How many may be sent now: the second partition of ticks follows the first."""
        first = self.next[topic, part]
        if topic == EVENTS:
            return len(self.load.reference.events) - first
        if part == 0:
            return BATCH
        count = 0
        while count < sql_model.BURST and tick_ms(1, first + count) <= self.next[TICKS, 0]:
            count += 1
        return count

    def on_answer(self, answer, topic, part, first, count):
        self.in_flight -= 1
        if errors_of(answer):
            self.model.verdict("refused", "events were answered %r" % answer)
            self.phase = "stopped"
            return
        self.model.sent_ok(topic, part, first, count, answer["responses"][0]["partition_responses"][0]["base_offset"])
        self.load.confirmed += count if topic == EVENTS else 0


class Follower(Actor):
    """Reads results while they are written."""
    asked = False

    def turn(self):
        if not self.asked and self.random.random() < 0.2:
            self.asked = True
            name = self.random.choice((*QUERIES, "beats", "newest"))
            at = self.model.seen[name]
            self.ask(self.on_answer, "fetch", 11, name, at, max_wait_ms=self.random.choice((0, 20)), min_bytes=1, max_bytes=1 << 20, isolation_level=1, topics=[
                {"topic": name, "partitions": [{"partition": 0, "fetch_offset": at, "partition_max_bytes": 1 << 20}]}])

    def on_answer(self, answer, name, at):
        self.asked = False
        got = answer["responses"][0]["partitions"][0]
        if got["error_code"]:
            self.model.verdict("lost", "%s cannot be read at %d: error %d" % (name, at, got["error_code"]))
        values = [r["value"] for one in kafka_wire.batches(got["records"]) for r in one["records"] if r["offset"] >= at]
        self.model.looked(name, at, values)


class Replacer:
    """Puts another version in the place of a query, and another; what has no answer when the broker dies has happened or goes on by itself, or not."""

    def __init__(self, load):
        self.load, self.model, self.random = load, load.model, load.random
        self.thread = threading.Thread()

    def turn(self):
        if self.thread.ident and self.thread.is_alive() or self.random.random() > 0.02:
            return
        self.thread = threading.Thread(target=self.replace)
        self.thread.start()

    def replace(self):
        try:
            if any(q["state"] == "BUILDING" for q in queries(self.load.port).values()):
                return                          # one that was cut off goes on
            self.model.counts["versions"] += 1
            version = self.model.counts["versions"]
            sql(self.load.port, "CREATE OR REPLACE STREAM newest WITH (partitions = 1) AS " + AUCTIONS[version % 2] % version)
            self.model.counts["replaced"] += 1
        except Trouble as trouble:
            self.model.verdict("refused", str(trouble))
        except (*ERRORS, ValueError, IndexError):
            pass                                # the broker is gone

    def finish(self):
        if self.thread.ident:
            self.thread.join()


class Load:
    """Runs until `ended(load)` says so or the broker is gone; `confirmed` counts events that were acknowledged."""

    def __init__(self, port, facts, random):
        self.port, self.model, self.random = port, facts, random
        self.kafka_port = port - 5672 + 9092
        self.confirmed = 0
        self.reference = reference()
        self.reference.upto(facts.seen[EVENTS, 0] + CONFIRMS[1] + SLACK)
        self.actors = [Producer(self, "producer"), Follower(self, "follower")]
        self.replacer = Replacer(self)

    def run(self, ended):
        """Returns None when `ended` said so, else how the broker went away."""
        last, idle_since = -1, time.monotonic()
        try:
            while not ended(self):
                for actor in self.actors:
                    actor.turn()
                    actor.flush()
                    actor.receive()
                self.replacer.turn()
                if self.model.found["refused"]:
                    return None
                time.sleep(0.0005)          # answers come by themselves: what is waited for is `ended`
                if self.confirmed != last:
                    last, idle_since = self.confirmed, time.monotonic()
                elif time.monotonic() - idle_since > PATIENCE:
                    self.model.verdict("stuck", "no event was acknowledged for two minutes")
                    return "stuck"
        except Gone as gone:
            return str(gone)
        return None

    def finish(self):
        """After the plug was pulled: what is still in the sockets was said by the broker and counts."""
        for actor in self.actors:
            deadline = time.monotonic() + 60
            try:
                while time.monotonic() < deadline:
                    actor.receive()
                    time.sleep(0.001)
            except Gone:
                pass
            actor.wire.close()
        self.replacer.finish()


# ---- the audit

class Audit:
    """Reads what came since the last time, compares, and sometimes waits until the queries have read everything."""

    def __init__(self, port, facts, patience):
        self.port, self.model, self.patience = port, facts, patience
        self.facts = reference()
        self.model.rows, self.model.auctions = self.facts.rows, self.facts.auctions
        self.tag = 0

    def queries(self):
        """{name: row of SHOW QUERIES}; one that has stopped is a finding."""
        shown = queries(self.port)
        for name in (*QUERIES, QUEUE, "beats", "newest"):
            if name not in shown:
                self.model.verdict("lost", "the query %s is not there" % name)
            elif shown[name]["state"] not in ("RUNNING", "RECOVERING", "STARTING"):
                self.model.verdict("refused", "the query %s is %s: %s" % (name, shown[name]["state"], shown[name]["reason"]))
        return shown

    def queues(self):
        self.queries()
        return not self.model.found["lost"] and not self.model.found["refused"]

    def sources(self, w):
        """Each event is at the offset that is its number."""
        there = ends(w, SOURCES)
        self.facts.upto(there[EVENTS, 0])
        for (topic, part), end in there.items():
            first = self.model.seen[topic, part]
            self.model.end_of((topic, part), end)
            values = read(w, topic, part, first, end) if first < end else []
            wanted = self.facts.events[first:end] if topic == EVENTS else [tick_of(part, n) for n in range(first, end)]
            self.model.look_at_events((topic, part), first, values, wanted)
        return there

    def results(self, w, whole=False):
        for (name, _), end in ends(w, [(name, 0) for name in (*QUERIES, "beats", "newest")]).items():
            self.model.end_of(name, end)
            first = 0 if whole else self.model.seen[name]
            if first < end:
                self.model.looked(name, first, read(w, name, 0, first, end))

    def queue(self):
        """All that the queue has, unacknowledged; a connection, and how many of its rows have been given out."""
        w, bodies = connect(self.port), []
        must(w.channel(1))
        must(w.call(1, "confirm.select"))
        must(w.call(1, "basic.consume", queue=QUEUE, consumer_tag=QUEUE))
        while True:
            w.send_method(1, "queue.declare", queue=QUEUE, passive=True)
            while (m := w.next(1, PATIENCE)).name == "basic.deliver":
                bodies.append(m.body)
                self.tag = m.delivery_tag
            if m.name != "queue.declare-ok":
                raise wire.WireError("during the audit: %r" % (m,))
            if not m.message_count:
                return w, self.model.queue(QUEUE, bodies)

    def full(self, drain):
        with kafka(self.port) as w:
            there = self.sources(w)
            self.results(w)
            if drain or self.model.ending or chance.random() < 0.2:
                self.catch_up(w, there)
            if self.model.ending:
                self.results(w, whole=True)
                self.model.counts["whole"] += 1
        if not self.model.found:
            a, upto = self.queue()
            if drain and upto > self.model.gone[0]:
                self.drain(a, upto)
            must(a.call(1, "channel.close", reply_code=200, reply_text="audited"))
            a.close()

    def drain(self, a, upto):
        self.model.acking(upto)
        a.send_method(1, "basic.ack", delivery_tag=self.tag, multiple=True)
        a.publish(1, "", SEAL, b"sealed", delivery_mode=2)
        must(a.take(1, ("basic.ack", "basic.nack"), PATIENCE))
        self.model.acknowledged()

    def catch_up(self, w, there):
        """The stream has all events of the uninterrupted run: so it ends with the same rows, and every window of ticks has ended."""
        first = there[EVENTS, 0]
        for at in range(first, len(self.facts.events), 500):
            values = self.facts.events[at:at + 500]
            said = kafka_wire.produce(w, EVENTS, kafka_wire.batch(values))
            self.model.sent_ok(EVENTS, 0, at, len(values), said["base_offset"])
            self.model.seen[EVENTS, 0] = at + len(values)
        ticks = there[TICKS, 0] + there[TICKS, 1]
        patience, last, deadline = max(self.patience, SILENCE), None, 0
        while not self.model.found:
            self.results(w)
            missing = {name: len(self.facts.rows[name]) - self.model.seen[name] for name in QUERIES}
            shown = self.queries()
            missing["beats"] = ticks - self.model.counts["ticks"] - shown.get("beats", {"late": 0})["late"]
            missing["newest"] = len(self.facts.auctions) - self.model.seen["newest"]
            if not any(missing.values()):
                break
            if missing != last:             # they come: a slow machine is no finding
                last, deadline = missing, time.monotonic() + patience
            if time.monotonic() > deadline:
                self.model.verdict("lost", "all events have been read, and these rows have not come: %s" % {n: c for n, c in missing.items() if c})
            time.sleep(0.01)            # polled: nobody tells that a query is done
        self.wait_for_the_queue(time.monotonic() + patience)
        self.model.counts["caught"] += 1

    def wait_for_the_queue(self, deadline):
        while not self.model.found:
            a, upto = self.queue()
            a.close()
            if upto >= len(self.facts.rows[QUEUE]):
                break
            if time.monotonic() > deadline:
                self.model.verdict("lost", "all events have been read, and %d of %d rows have come to the queue" % (upto, len(self.facts.rows[QUEUE])))
            time.sleep(0.01)            # polled, as above

    def partial(self, stop_after):
        """Dies while the queries take again what they had taken."""
        w = connect(self.port)
        time.sleep(stop_after / 2000)       # nothing is waited for here: this is when the kill comes
        self.model.counts["replaying"] += any(q["state"] == "RECOVERING" for q in self.queries().values())
        return w, True
