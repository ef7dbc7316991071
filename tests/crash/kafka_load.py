"""The load of Kafka's clients: idempotent and transactional producers, one that consumes, transforms and produces, group members that
commit offsets; and the audit of what they know.

Everything is spoken raw (kafka_wire.py), so that after a death the same producer goes on where it was: with its id, its epoch, its
sequence numbers and the batches that were not answered. What an actor needs for that is in the model's memory.
"""
import random
import select
import struct
import time

from load import Gone, connect, must      # first: it makes tests/clients importable
import kafka_model
import kafka_wire
import wire
from kafka.codec import gzip_encode, lz4_decode, lz4_encode, snappy_decode, snappy_encode, zstd_decode, zstd_encode

Model = kafka_model.Model
chance = random.Random(3)
ERRORS = (wire.WireError, kafka_wire.WireError, OSError)
TITLE = ", Kafka's clients"
CONFIRMS = (40, 500)            # answers of a cycle
QUEUE, SEAL = "kq", "kseal"
IN_FLIGHT = 5
BACKLOG = 1500                  # records of a partition that may wait to be transformed
TIMEOUT_MS = 900000             # of a transaction: none of them ends by itself
ENCODE = {1: gzip_encode, 2: snappy_encode, 3: lz4_encode, 4: zstd_encode}
DECODE = {2: snappy_decode, 3: lz4_decode, 4: zstd_decode}
AGAIN = {14, 15, 51, 88}        # coordinator loading, not available; concurrent transactions; unstable offsets
NOT_ENOUGH = {"unknown member": 25, "illegal generation": 22, "rebalance": 27, "fenced member": 110, "stale epoch": 113}
PATIENCE = 120                  # seconds



def errors_of(value):
    """All error codes of an answer."""
    out = set()
    if isinstance(value, dict):
        for name, each in value.items():
            out |= {each} if name.endswith("error_code") else errors_of(each)
    elif isinstance(value, list):
        for each in value:
            out |= errors_of(each)
    return out - {0}


def topology(port):
    """Topics, the queue that is bound to them, and the one whose confirms seal acks."""
    with kafka_wire.Wire(port - 5672 + 9092, timeout=60) as w:
        made = w.call("create_topics", 7, timeout_ms=60000, topics=[
            {"name": name, "num_partitions": parts, "replication_factor": 1,
             "configs": [{"name": "segment.bytes", "value": "1048576"}, {"name": "retention.ms", "value": "-1"}]} for name, parts in kafka_model.TOPICS.items()])
        if errors_of(made):
            raise wire.WireError("create topics: %r" % made)
    w = connect(port)
    must(w.channel(1))
    must(w.call(1, "queue.declare", queue=QUEUE, durable=True))
    must(w.call(1, "queue.declare", queue=SEAL, durable=True, arguments={"x-max-length": 5}))
    for name in kafka_model.TOPICS:
        must(w.call(1, "queue.bind", queue=QUEUE, exchange="amq.stream." + name, routing_key="#", arguments={"x-stream-offset": "first"}))
    w.close()


def report_of(chain):
    """More lines of docs/crash.md."""
    c = chain.model.counts
    return ["", "*%s*: idempotent and transactional producers, a consume-transform-produce loop, members of groups of both protocols, a queue "
            "bound to all topics. *confirmed*: records; *audited*: records in the logs, each time; *acks*: of the bound queue, sealed by a later "
            "confirm. %d transactions committed, %d aborted; %d commits of offsets answered; %d batches sent again after a death with their "
            "sequence numbers." % (chain.name, c["commits"], c["aborts"], c["offsets"], c["resent"])]


class Actor:
    """One connection, whose answers come in order; what it keeps from life to life is `memory`."""

    def __init__(self, load, name):
        self.load, self.model, self.random, self.name = load, load.model, load.random, name
        self.memory = load.model.memory.setdefault(name, {})
        self.wire = kafka_wire.Wire(load.kafka_port, timeout=60, client=name)
        self.wire.socket.setblocking(False)
        self.buffer, self.out, self.waiting = bytearray(), bytearray(), []

    def ask(self, then, name, version, *words, **fields):
        self.wire.correlation += 1
        body = kafka_wire.request(name, version, self.wire.correlation, self.name, **fields)
        self.out += struct.pack(">i", len(body)) + body
        self.waiting.append((self.wire.correlation, name, version, then, words))

    def flush(self):
        while self.out:
            try:
                del self.out[:self.wire.socket.send(self.out)]
            except BlockingIOError:
                return
            except OSError as error:
                raise Gone(str(error)) from None

    def receive(self):
        """All whole answers that have come."""
        end = None
        try:
            while True:
                part = self.wire.socket.recv(1 << 18)
                if not part:
                    end = Gone("the connection was closed")
                    break
                self.buffer += part
        except BlockingIOError:
            pass
        except OSError as error:
            end = Gone(str(error))
        while len(self.buffer) >= 4:
            size = struct.unpack_from(">i", self.buffer)[0]
            if len(self.buffer) < 4 + size:
                break
            data = bytes(self.buffer[4:4 + size])
            del self.buffer[:4 + size]
            wanted, name, version, then, words = self.waiting.pop(0)
            got, answer = kafka_wire.response(name, version, data)
            if got != wanted:
                raise kafka_wire.WireError("answer %d came where %d was due" % (got, wanted))
            then(answer, *words)
        if end:
            raise end

    def trouble(self, what, answer):
        self.model.verdict("refused", "%s: %s was answered %s" % (self.name, what, answer))
        self.phase = "stopped"

    def turn(self):
        pass


class Producer(Actor):
    """Sequences, and what is not answered; of one writer on the partitions of one topic."""

    def __init__(self, load, name):
        super().__init__(load, name)
        self.topic = kafka_model.TOPIC_OF[name]
        self.parts = range(kafka_model.TOPICS[self.topic])
        m = self.memory
        if "number" not in m:
            m.update(pid=-1, epoch=-1, number=dict.fromkeys(self.parts, 1), tx=0, phase="new", ended=None)
            self.restart()
        self.phase = "begin"
        self.sending = {part: len(m["unanswered"][part]) for part in self.parts}

    def restart(self):
        """With a new id or epoch the sequences begin anew."""
        self.memory.update(sequence=dict.fromkeys(self.parts, 0), unanswered={part: [] for part in self.parts})

    def batch(self, part, count, source=-1):
        """Makes and sends a new batch."""
        m, r = self.memory, self.random
        first, sequence = m["number"][part], m["sequence"][part]
        m["number"][part] += count
        m["sequence"][part] += count
        self.model.sent(self.name, part, first, count, m["tx"], source)
        size = r.choice((60, 60, 120, 400, 3000)) if count > 3 or r.random() < 0.98 else 60000
        values = [kafka_model.value_of(self.model.run, self.name, part, first + i, m["tx"], source + i if source >= 0 else -1, size)
                  for i in range(count)]
        kind = r.choice((0, 0, 1, 2, 3, 4))
        data = made_batch(values, m["pid"], m["epoch"], sequence, kind, bool(m["tx"]))
        m["unanswered"][part].append((first, count, data))
        self.produce(part, m["unanswered"][part][-1])

    def produce(self, part, one):
        tx = {"transactional_id": self.name} if self.memory["tx"] else {"transactional_id": None}
        self.ask(self.on_produced, "produce", 9, part, one, acks=-1, timeout_ms=60000, **tx, topic_data=[
            {"name": self.topic, "partition_data": [{"index": part, "records": one[2]}]}])

    def again(self):
        """What was not answered, as it was."""
        for part in self.parts:
            for one in self.memory["unanswered"][part]:
                self.model.counts["resent"] += 1
                self.produce(part, one)

    def on_produced(self, answer, part, one):
        said = answer["responses"][0]["partition_responses"][0]
        first, count, _ = one
        if said["error_code"]:
            self.trouble("a batch of %s #%d" % (self.name, first), answer)
            return
        if self.memory["unanswered"][part][:1] != [one]:
            self.trouble("a batch that is not the oldest", answer)
            return
        self.memory["unanswered"][part].pop(0)
        self.model.acked(self.topic, part, self.name, first, count, said["base_offset"])
        self.load.confirmed += 1

    def idle(self):
        return not any(self.memory["unanswered"].values())

    def renewed(self, answer):
        """InitProducerId was answered."""
        m = self.memory
        m["pid"], m["epoch"] = answer["producer_id"], answer["producer_epoch"]
        for part in self.parts:
            self.model.renewed(self.name, part)
        self.restart()


def made_batch(values, pid, epoch, sequence, kind, transactional):
    records = b"".join(kafka_wire.record(i, value) for i, value in enumerate(values))
    records = ENCODE[kind](records) if kind else records
    checked = struct.pack(">hiqqqhii", kind | (16 if transactional else 0), len(values) - 1, 1700000000000, 1700000000000, pid, epoch,
                          sequence, len(values)) + records
    rest = struct.pack(">ibI", -1, 2, kafka_wire.calc_crc32c(checked)) + checked
    return struct.pack(">qi", 0, len(rest)) + rest


class Idempotent(Producer):
    """Up to five batches in flight on each partition; after a death the same id sends again what was not answered, or it is a new one."""

    def turn(self):
        m, r = self.memory, self.random
        if self.phase == "begin":
            if m["pid"] < 0 or r.random() < 0.2:
                self.phase = "asked"
                self.ask(self.on_id, "init_producer_id", 3, transactional_id=None, transaction_timeout_ms=0)
            else:
                self.phase = "running"
                self.again()
        elif self.phase == "running":
            for part in self.parts:
                behind = self.model.parts["ki", part].end - max(0, self.model.offsets["ctp", "ki", part][0])
                if behind < BACKLOG and len(m["unanswered"][part]) < IN_FLIGHT and r.random() < 0.5:
                    self.batch(part, r.choice((1, 1, 3, 20)))

    def on_id(self, answer):
        if errors_of(answer):
            self.trouble("InitProducerId", answer)
            return
        self.renewed(answer)
        self.phase = "running"


class Transactional(Producer):
    """Transactions one after the other, some aborted; a death in one is followed by the same instance, or by one that fences it."""

    def turn(self):
        m, r = self.memory, self.random
        if self.phase == "begin":
            if m["pid"] < 0 or m["phase"] == "initializing" or r.random() < 0.4:
                self.initialize()
            elif m["phase"] == "ending":
                self.end(m["commit"])
            elif m["phase"] == "idle":
                self.phase = "idle"
            else:
                self.add()                      # a transaction that lived through it
        elif self.phase == "idle":
            self.load.tx += 1
            m["tx"], m["phase"] = self.load.tx, "open"
            m["left"] = r.choice((1, 2, 6))
            self.model.begun(m["tx"])
            self.prepare()
        elif self.phase == "producing":
            self.fill()
            if m["left"] <= 0 and self.idle():
                self.finish()

    def prepare(self):
        self.add()

    def fill(self):
        m, r = self.memory, self.random
        for part in self.parts:
            if m["left"] > 0 and len(m["unanswered"][part]) < IN_FLIGHT and r.random() < 0.5:
                m["left"] -= 1
                self.batch(part, r.choice((1, 2, 9)))

    def finish(self):
        self.end(self.random.random() < 0.7)

    def initialize(self):
        m = self.memory
        self.phase, m["phase"] = "asked", "initializing"
        if m["tx"]:
            self.model.fencing(m["tx"])
        self.ask(self.on_id, "init_producer_id", 3, transactional_id=self.name, transaction_timeout_ms=TIMEOUT_MS)

    def on_id(self, answer):
        if errors_of(answer) & AGAIN:
            self.initialize()
        elif errors_of(answer):
            self.trouble("InitProducerId", answer)
        else:
            self.renewed(answer)
            self.memory["tx"] = 0
            self.phase = self.memory["phase"] = "idle"

    def add(self):
        m = self.memory
        self.phase = "asked"
        self.ask(self.on_added, "add_partitions_to_txn", 3, v3_and_below_transactional_id=self.name, v3_and_below_producer_id=m["pid"],
                 v3_and_below_producer_epoch=m["epoch"], v3_and_below_topics=[{"name": self.topic, "partitions": list(self.parts)}])

    def on_added(self, answer):
        if errors_of(answer) & AGAIN:
            self.add()
        elif errors_of(answer):
            self.trouble("AddPartitionsToTxn", answer)
        else:
            self.phase = "producing"
            self.again()

    def end(self, commit):
        m = self.memory
        self.phase, m["phase"], m["commit"] = "asked", "ending", commit
        self.model.ending(m["tx"], commit)
        self.ask(self.on_ended, "end_txn", 3, transactional_id=self.name, producer_id=m["pid"], producer_epoch=m["epoch"], committed=commit)

    def on_ended(self, answer):
        if errors_of(answer) & AGAIN:
            self.end(self.memory["commit"])
        elif errors_of(answer):
            self.trouble("EndTxn of transaction %d" % self.memory["tx"], answer)
        else:
            self.model.ended(self.memory["tx"])
            self.load.confirmed += 1
            self.over(self.memory["commit"])
            self.memory["tx"] = 0
            self.phase = self.memory["phase"] = "idle"

    def over(self, commit):
        pass


class Transformer(Transactional):
    """Consumes ki, produces ko, and commits its offsets in the same transactions: exactly once."""

    def initialize(self):
        self.memory.pop("at", None)
        super().initialize()

    def over(self, commit):
        if not commit:
            self.memory.pop("at", None)

    def prepare(self):
        """Where the group is, unless that is known from the transaction before; then the partitions and the group are added."""
        m = self.memory
        m["made"] = {}
        m["tx_at"] = None
        if "at" in m:
            self.add()
            return
        self.phase = "asked"
        self.ask(self.on_offsets, "offset_fetch", 8, require_stable=True, groups=[
            {"group_id": "ctp", "topics": [{"name": "ki", "partition_indexes": list(self.parts)}]}])

    def on_offsets(self, answer):
        if errors_of(answer) & AGAIN:
            self.prepare()
        elif errors_of(answer):
            self.trouble("OffsetFetch", answer)
        else:
            self.memory["at"] = {p["partition_index"]: max(0, p["committed_offset"])
                                 for p in answer["groups"][0]["topics"][0]["partitions"]}
            self.add()

    def add(self):
        m = self.memory
        if "at" not in m:                       # a death came before they were known
            self.prepare()
            return
        self.phase = "asked"
        if m.get("tx_at") is None:
            m["tx_at"] = dict(m["at"])
        self.ask(self.on_group, "add_offsets_to_txn", 3, transactional_id=self.name, producer_id=m["pid"], producer_epoch=m["epoch"],
                 group_id="ctp")

    def on_group(self, answer):
        if errors_of(answer) & AGAIN:
            self.add()
        elif errors_of(answer):
            self.trouble("AddOffsetsToTxn", answer)
        else:
            super().add()

    def fill(self):
        """One fetch at a time, of which all is transformed."""
        m = self.memory
        if m["left"] <= 0 or getattr(self, "fetching", False):
            return
        self.fetching = True
        self.ask(self.on_fetched, "fetch", 11, max_wait_ms=100, min_bytes=1, max_bytes=1 << 16, isolation_level=1, rack_id="", topics=[
            {"topic": "ki", "partitions": [{"partition": part, "fetch_offset": m["tx_at"][part], "partition_max_bytes": 1 << 13}
                                           for part in self.parts]}])

    def on_fetched(self, answer):
        m = self.memory
        self.fetching = False
        m["left"] -= 1
        if errors_of(answer):
            self.trouble("Fetch at %s" % m["tx_at"], answer)
            return
        for said in answer["responses"][0]["partitions"]:
            part = said["partition_index"]
            count = 0
            for one in kafka_wire.batches(said["records"]):
                keys = keys_of(self.model.run, one)
                for i, key in enumerate(keys):
                    offset = one["base"] + i
                    self.model.seen("ki", part, offset, (key[0], key[2]) if key else ("nobody", 0))
                    count += offset >= m["tx_at"][part]
            while count:
                now = min(count, 40)
                self.batch(part, now, m["tx_at"][part])
                m["tx_at"][part] += now
                count -= now

    def finish(self):
        """The offsets, then the end."""
        m = self.memory
        self.phase = "asked"
        for part in self.parts:
            if m["tx_at"][part] > m["at"][part] and not m["made"].get(part):
                self.model.tx_offset(m["tx"], "ctp", "ki", part, m["tx_at"][part])
        m["made"] = dict.fromkeys(self.parts, True)
        self.ask(self.on_committed, "txn_offset_commit", 3, transactional_id=self.name, group_id="ctp", producer_id=m["pid"],
                 producer_epoch=m["epoch"], topics=[{"name": "ki", "partitions": [
                     {"partition_index": part, "committed_offset": m["tx_at"][part], "committed_metadata": ""} for part in self.parts
                     if m["tx_at"][part] > m["at"][part]]}])

    def on_committed(self, answer):
        if errors_of(answer) & AGAIN:
            self.finish()
        elif errors_of(answer):
            self.trouble("TxnOffsetCommit", answer)
        else:
            self.end(self.random.random() < 0.8)

    def end(self, commit):
        super().end(commit)
        if commit:
            self.memory["at"] = dict(self.memory["tx_at"])


class Member(Actor):
    """Commits offsets that grow, as the only member of its group; after a death as the member it was, if the broker lets it."""

    def __init__(self, load, name):
        super().__init__(load, name)
        self.memory.setdefault("offset", 0)
        self.phase = "stay" if self.memory.get("epoch") is not None and self.random.random() < 0.7 else "join"
        self.parts = range(kafka_model.TOPICS["ki"])

    def turn(self):
        if self.phase == "join":
            self.phase = "asked"
            self.join()
        elif self.phase == "stay":
            self.phase = "asked"
            self.beat()
        elif self.phase == "in" and self.random.random() < 0.3:
            self.phase = "asked"
            self.commit()

    def fallen(self, answer):
        """True: it is no member any more, and joins again."""
        errors = errors_of(answer)
        if errors & set(NOT_ENOUGH.values()):
            self.phase = "join"
            if errors & {25, 110}:
                self.memory.pop("member", None)
            self.model.counts["rejoined"] += 1
        elif errors & AGAIN:
            self.phase = "stay"
        elif errors:
            self.trouble("a request of a member", answer)
        return bool(errors)

    def commit(self):
        m = self.memory
        m["offset"] += 1
        for part in self.parts:
            self.model.committing(self.name, "ki", part, m["offset"])
        self.ask(self.on_commit, "offset_commit", 9, m["offset"], group_id=self.name, generation_id_or_member_epoch=m["epoch"],
                 member_id=m["member"], topics=[{"name": "ki", "partitions": [
                     {"partition_index": part, "committed_offset": m["offset"], "committed_metadata": ""} for part in self.parts]}])

    def on_commit(self, answer, offset):
        if self.fallen(answer):
            return
        for part in self.parts:
            self.model.committed(self.name, "ki", part, offset)
        self.load.confirmed += 1
        self.phase = self.random.choice(("in", "in", "in", "stay"))


class Classic(Member):
    """JoinGroup, SyncGroup, Heartbeat."""

    def join(self):
        self.ask(self.on_join, "join_group", 7, group_id=self.name, session_timeout_ms=45000, rebalance_timeout_ms=45000,
                 member_id=self.memory.get("member", ""), protocol_type="consumer", protocols=[{"name": "range", "metadata": b""}])

    def on_join(self, answer):
        if answer["error_code"] == 79:          # now it has an id
            self.memory["member"] = answer["member_id"]
            self.phase = "join"
        elif not self.fallen(answer):
            m = self.memory
            m["member"], m["epoch"] = answer["member_id"], answer["generation_id"]
            self.ask(self.on_sync, "sync_group", 5, group_id=self.name, generation_id=m["epoch"], member_id=m["member"],
                     protocol_type="consumer", protocol_name="range", assignments=[{"member_id": m["member"], "assignment": b"all"}])

    def on_sync(self, answer):
        if not self.fallen(answer):
            self.phase = "in"

    def beat(self):
        self.ask(self.on_sync, "heartbeat", 4, group_id=self.name, generation_id=self.memory["epoch"], member_id=self.memory["member"])


class Consumer(Member):
    """ConsumerGroupHeartbeat."""

    def join(self):
        self.memory["member"] = "member-of-" + self.name
        self.heartbeat(0)

    def heartbeat(self, epoch):
        full = {} if epoch else {"rebalance_timeout_ms": 45000, "subscribed_topic_names": ["ki"], "topic_partitions": []}
        self.ask(self.on_beat, "consumer_group_heartbeat", 0, group_id=self.name, member_id=self.memory["member"], member_epoch=epoch, **full)

    def on_beat(self, answer):
        if not self.fallen(answer):
            self.memory["epoch"] = answer["member_epoch"]
            self.phase = "in"

    def beat(self):
        self.heartbeat(self.memory["epoch"])


ACTORS = ((Idempotent, "idem-0"), (Idempotent, "idem-1"), (Transactional, "tx-0"), (Transactional, "tx-1"), (Transformer, "ctp"),
          (Classic, "classic"), (Consumer, "consumer"))


class Load:
    """Runs until `ended(load)` says so or the broker is gone; `confirmed` counts answers since its beginning."""

    def __init__(self, port, facts, random):
        self.model, self.random = facts, random
        self.kafka_port = port - 5672 + 9092
        self.confirmed = 0
        self.tx = max([0, *facts.txs, facts.memory.get("txs", {}).get("last", 0)])
        self.actors = [kind(self, name) for kind, name in ACTORS]
        self.by_socket = {a.wire.socket: a for a in self.actors}

    def run(self, ended):
        """Returns None when `ended` said so, else how the broker went away."""
        last, idle_since = -1, time.monotonic()
        try:
            while not ended(self):
                for actor in self.actors:
                    actor.turn()
                    actor.flush()
                for sock in select.select(list(self.by_socket), [], [], 0.002)[0]:
                    self.by_socket[sock].receive()
                if any(a.phase == "stopped" for a in self.actors):
                    return None
                if self.confirmed != last:
                    last, idle_since = self.confirmed, time.monotonic()
                elif time.monotonic() - idle_since > PATIENCE:
                    self.model.verdict("stuck", "nothing was answered for two minutes: %s" % [(a.name, a.phase) for a in self.actors])
                    return "stuck"
        except Gone as gone:
            return str(gone)
        return None

    def finish(self):
        """After the plug was pulled: what is still in the sockets was said by the broker and counts."""
        self.model.memory["txs"] = {"last": self.tx}
        for actor in self.actors:
            deadline = time.monotonic() + 60
            try:
                while time.monotonic() < deadline:
                    select.select([actor.wire.socket], [], [], 1)
                    actor.receive()
            except Gone:
                pass
            actor.wire.close()


def keys_of(run, one):
    """The keys of the records of a batch."""
    kind = one["attributes"] & 7
    records = one.get("records")
    if records is None:
        records = list(kafka_wire.records_of(one, DECODE[kind](one["raw"])))
    return [kafka_model.key_of(run, r["value"]) for r in records]


def marker_of(one):
    """1 of a batch that commits, 0 of one that aborts, None of records."""
    return struct.unpack_from(">hh", next(iter(one["records"]))["key"])[1] if one["attributes"] & 32 else None


class Log:
    def __init__(self):
        self.batches, self.committed = [], set()
        self.start = self.end = self.stable = 0


class Audit:
    """Reads all partitions at both isolation levels, the groups' offsets and, without acknowledging, the bound queue."""

    def __init__(self, port, facts, patience):
        self.port, self.model, self.patience = port, facts, patience
        self.found, self.tags = [], 0
        self.whole = chance.random() < 0.15

    def queues(self):
        """Whether everything that was made is there."""
        w = connect(self.port)
        must(w.channel(1))
        there = w.call(1, "queue.declare", queue=QUEUE, passive=True).name == "queue.declare-ok"
        w.close()
        with kafka_wire.Wire(self.port - 5672 + 9092, timeout=60) as k:
            said = k.call("metadata", 9, topics=[{"name": name} for name in kafka_model.TOPICS])
        parts = {t["name"]: len(t["partitions"]) for t in said["topics"] if not t["error_code"]}
        if not there or parts != kafka_model.TOPICS:
            self.model.verdict("lost", "queue %s, topics %r" % ("there" if there else "not there", parts))
        return there and parts == kafka_model.TOPICS

    def logs(self):
        out = {}
        with kafka_wire.Wire(self.port - 5672 + 9092, timeout=60) as w:
            for topic, parts in kafka_model.TOPICS.items():
                for part in range(parts):
                    out[topic, part] = self.log(w, topic, part)
            names = ("ctp", "classic", "consumer")
            said = w.call("offset_fetch", 8, require_stable=False, groups=[{"group_id": name, "topics": None} for name in names])
        offsets = {(g["group_id"], t["name"], p["partition_index"]): p["committed_offset"]
                   for g in said["groups"] for t in g["topics"] for p in t["partitions"]}
        return out, offsets

    def log(self, w, topic, part):
        """One partition. What an audit found below the last stable offset is mostly not read again by the next one."""
        log = Log()
        log.start = w.call("list_offsets", 4, replica_id=-1, isolation_level=0, topics=[
            {"name": topic, "partitions": [{"partition_index": part, "current_leader_epoch": -1, "timestamp": -2}]}])[
                "topics"][0]["partitions"][0]["offset"]
        at = log.start
        old = self.model.logs.get((topic, part))
        if old and not self.whole:
            log.batches = [b for b in old.batches if log.start <= b[0] < old.stable]
            log.committed = {o for o in old.committed if o >= log.start}
            at = max(at, old.stable)
        self.batches(w, topic, part, at, log)
        self.committed(w, topic, part, at, log)
        self.model.logs[topic, part] = log
        return log

    def batches(self, w, topic, part, at, log):
        """All that is there, whatever became of it."""
        while True:
            got = self.fetched(w, topic, part, at, 0)
            log.end, log.stable = got["high_watermark"], got["last_stable_offset"]
            for one in kafka_wire.batches(got["records"]):
                kind = marker_of(one)
                log.batches.append((one["base"], one["pid"], bool(one["attributes"] & 16), kind,
                                    [] if kind is not None else keys_of(self.model.run, one)))
                at = one["base"] + one["last_delta"] + 1
            if at >= log.end:
                return

    def committed(self, w, topic, part, at, log):
        """What a client gives to a reader of committed records: it leaves out those of the transactions it is told of."""
        while at < log.stable:
            got = self.fetched(w, topic, part, at, 1)
            aborted = sorted((a["first_offset"], a["producer_id"]) for a in got["aborted_transactions"] or [])
            ended, before = set(), at
            for one in kafka_wire.batches(got["records"]):
                at = one["base"] + one["last_delta"] + 1
                while aborted and aborted[0][0] <= one["base"]:
                    ended.add(aborted.pop(0)[1])
                kind = marker_of(one)
                if kind == 0:
                    ended.discard(one["pid"])
                elif kind is None and not (one["attributes"] & 16 and one["pid"] in ended):
                    log.committed.add(one["base"])
            if at == before:
                self.model.verdict("stuck", "%s-%d gives nothing at %d to readers of committed records; stable is %d" % (
                    topic, part, at, log.stable))
                return

    def fetched(self, w, topic, part, at, isolation):
        got = kafka_wire.fetch(w, topic, at, part, version=11, wait=0, most=1 << 22, isolation=isolation)
        if got["error_code"]:
            raise wire.WireError("fetch of %s-%d at %d: error %d" % (topic, part, at, got["error_code"]))
        return got

    def read(self, w, wanted, stop_after=None):
        """Until the queue has nothing left and all that is wanted has come; true when stopped before that."""
        deadline = time.monotonic() + self.patience
        must(w.call(1, "basic.consume", queue=QUEUE, consumer_tag=QUEUE))
        while True:
            w.send_method(1, "queue.declare", queue=QUEUE, passive=True)
            while True:
                m = w.next(1, PATIENCE)
                if m.name == "queue.declare-ok":
                    break
                if m.name != "basic.deliver":
                    raise wire.WireError("during the audit: %r" % (m,))
                self.tags = m.delivery_tag
                key = kafka_model.key_of(self.model.run, m.body)
                if key is None:
                    self.model.verdict("phantom", "%d bytes in the queue that nobody sent" % len(m.body))
                else:
                    self.found.append(key)
                    self.model.looked(key, m.redelivered)
                wanted.discard(key)
                if stop_after is not None and self.tags >= stop_after:
                    return True
            if not m.message_count and (not wanted or time.monotonic() > deadline):
                return False

    def wanted(self, logs):
        return self.model.wanted({key for log in logs.values() for b in log.batches if b[0] in log.committed for key in b[4]})

    def full(self, drain):
        logs, offsets = self.logs()
        w = connect(self.port)
        must(w.channel(1))
        if drain:
            must(w.call(1, "confirm.select"))
        self.read(w, self.wanted(logs))
        self.model.audit(logs, offsets, self.found)
        if drain:
            self.drain(w, logs)
        must(w.call(1, "channel.close", reply_code=200, reply_text="audited"))
        w.close()

    def drain(self, w, logs):
        """Acknowledges all, seals it with a publish, and cuts the logs where nothing is open."""
        self.model.drain_sent(self.found)
        if self.tags:
            w.send_method(1, "basic.ack", delivery_tag=self.tags, multiple=True)
        w.publish(1, "", SEAL, b"sealed", delivery_mode=2)
        must(w.take(1, ("basic.ack", "basic.nack"), PATIENCE))
        self.model.drain_sealed()
        self.model.counts["drains"] += 1
        cut = {where: log.stable for where, log in logs.items() if where[0] != "ki"}
        for part in range(kafka_model.TOPICS["ki"]):        # what is not transformed yet is still needed
            cut["ki", part] = min(logs["ki", part].stable, max(0, self.model.offsets["ctp", "ki", part][0]))
        with kafka_wire.Wire(self.port - 5672 + 9092, timeout=60) as k:
            for (topic, part), offset in cut.items():
                offset = max([log_start for log_start in (b[0] for b in logs[topic, part].batches) if log_start <= offset] or [0])
                self.model.deleting(topic, part, offset)
                said = k.call("delete_records", 2, timeout_ms=60000, topics=[
                    {"name": topic, "partitions": [{"partition_index": part, "offset": offset}]}])
                if errors_of(said):
                    self.model.verdict("refused", "DeleteRecords of %s-%d at %d: %r" % (topic, part, offset, said))
                self.model.deleted(topic, part, offset)

    def partial(self, stop_after):
        """Deliveries that a kill -9 interrupts: they were seen, so they come back flagged."""
        w = connect(self.port)
        must(w.channel(1))
        return w, self.read(w, set(), stop_after)


