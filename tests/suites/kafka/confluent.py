"""confluent-kafka, which is librdkafka, against the broker at HOST:PORT."""
import sys

import confluent_kafka as ck
from confluent_kafka import admin as ka

from steps import Member, T0, digest, key, run, say, shared, until, value

AT = sys.argv[1]
BASE = {"bootstrap.servers": AT, "log_level": 0, "reconnect.backoff.ms": 10, "reconnect.backoff.max.ms": 100, "retry.backoff.ms": 20,
        "retry.backoff.max.ms": 100, "topic.metadata.refresh.fast.interval.ms": 20}
ADMIN = ka.AdminClient(BASE)


def word(why):
    return why.args[0].name() if isinstance(why, ck.KafkaException) else type(why).__name__


def refused(work):
    try:
        work()
        return "done"
    except ck.KafkaException as why:
        return word(why)


def made(name, partitions=1, **configs):
    topic = ka.NewTopic(name, partitions, 1, config={k.replace("_", "."): v for k, v in configs.items()})
    ADMIN.create_topics([topic])[name].result(20)


def send(name, messages, **settings):
    """Messages are dicts for produce(); returns [partition, offset or error] of each."""
    p = ck.Producer({**BASE, "acks": "all", "linger.ms": 20, **settings})
    told = {}
    for i, message in enumerate(messages):
        def on_delivery(error, m, i=i):
            told[i] = [m.partition(), error.name() if error else m.offset()]
        p.produce(name, on_delivery=on_delivery, **message)
    p.flush(30)
    return [told[i] for i in range(len(told))]


def read(name, count, group=None, commit=False, seek=None, **settings):
    c = ck.Consumer({**BASE, "group.id": group or "read-" + name, "auto.offset.reset": "earliest", "enable.auto.commit": False,
                     "fetch.wait.max.ms": 50, "session.timeout.ms": 6000, **settings})
    out = []
    try:
        if seek is None:
            c.subscribe([name])
        else:
            c.assign([ck.TopicPartition(name, 0, seek)])

        def polled():
            m = c.poll(0.1)
            if m is not None:
                if m.error():
                    raise ck.KafkaException(m.error())
                out.append(m)
            return len(out) >= count
        until(polled)
        if commit:
            c.commit(asynchronous=False)
    finally:
        c.close()
    return sorted(out, key=lambda m: (m.partition(), m.offset()))


def text(m):
    return None if m.value() is None else m.value().decode()


def codec(name):
    def step():
        topic = "codec-" + name
        made(topic, 2)
        done = send(topic, [{"key": key(i), "value": value(i), "partition": i % 2, "timestamp": T0 + i * 1000,
                             "headers": [("n", b"%d" % i), ("n", b""), ("null", None)]} for i in range(40)],
                    **{"compression.type": name, "linger.ms": 200})
        return [done, [[m.partition(), m.offset(), m.key() and m.key().decode(), text(m), m.timestamp(),
                        [[k, None if v is None else v.decode()] for k, v in m.headers()]] for m in read(topic, 40)]]
    return step


def topics():
    made("one", 3, retention_ms="3600000")
    meta = until(lambda: (t := ADMIN.list_topics("one", 10).topics["one"]) and len(t.partitions) == 3 and t)
    described = ADMIN.describe_topics(ck.TopicCollection(["one", "never"]))
    one = described["one"].result(20)
    return [refused(lambda: made("one", 3)), refused(lambda: made("bad/name")), refused(lambda: made("three", 1, nonsense="1")),
            refused(lambda: ADMIN.create_topics([ka.NewTopic("far", 1, 3)])["far"].result(20)),
            sorted((p.id, len(p.replicas), p.leader == p.replicas[0]) for p in meta.partitions.values()),
            [one.name, one.is_internal, [(p.id, len(p.isr)) for p in one.partitions]], refused(lambda: described["never"].result(20)),
            [t for t in ADMIN.list_topics(timeout=10).topics if t == "one"]]


def configs():
    resource = ka.ConfigResource(ka.ResourceType.TOPIC, "one")

    def get():
        all_of = ADMIN.describe_configs([resource])[resource].result(20)
        return sorted([c.name, c.value, c.source, c.is_default, c.is_read_only, c.is_sensitive, sorted(c.synonyms)] for c in all_of.values()
                      if c.name in ("retention.ms", "cleanup.policy", "max.message.bytes", "min.insync.replicas", "segment.bytes"))

    def set_to(name, to, operation=ka.AlterConfigOpType.SET):
        change = ka.ConfigResource(ka.ResourceType.TOPIC, "one", incremental_configs=[
            ka.ConfigEntry(name, to, incremental_operation=operation)])
        ADMIN.incremental_alter_configs([change])[change].result(20)
    before = get()
    set_to("retention.ms", "7200000")
    set_to("cleanup.policy", "compact", ka.AlterConfigOpType.APPEND)
    after = until(lambda: (now := get()) != before and now[0][1] != before[0][1] and now)
    set_to("cleanup.policy", None, ka.AlterConfigOpType.DELETE)
    return [before, after, refused(lambda: set_to("retention.ms", "soon")), refused(lambda: set_to("nonsense", "1")),
            until(lambda: (now := get())[0][1] == "delete" and now)]


def partitions():
    ADMIN.create_partitions([ka.NewPartitions("one", 5)])["one"].result(20)
    return [until(lambda: (n := len(ADMIN.list_topics("one", 10).topics["one"].partitions)) == 5 and n),
            refused(lambda: ADMIN.create_partitions([ka.NewPartitions("one", 2)])["one"].result(20)),
            refused(lambda: ADMIN.create_partitions([ka.NewPartitions("never", 2)])["never"].result(20))]


def deletes():
    made("gone")
    ADMIN.delete_topics(["gone"])["gone"].result(20)
    return [refused(lambda: ADMIN.delete_topics(["never"])["never"].result(20)),
            until(lambda: "gone" not in ADMIN.list_topics(timeout=10).topics)]


def acks():
    made("acks")
    send("acks", [{"value": b"a"}], acks=1)
    send("acks", [{"value": b"b"}], acks=0)
    return [text(m) for m in read("acks", 2)]


def groups(**settings):
    def step():
        name = "shared-" + settings.get("kind", "range")
        made(name, 4)
        return shared(lambda: Member(name, name, settings.get("kind", "range")),
                      lambda which: send(name, [{"value": b"%d" % i, "partition": i % 4} for i in which]))
    return step


def resume():
    made("resume")
    send("resume", [{"value": b"%d" % i} for i in range(10)])
    read("resume", 10, "resume-group", commit=True)
    send("resume", [{"value": b"after"}])
    out = [[m.offset(), text(m)] for m in read("resume", 1, "resume-group", commit=True)]
    c = ck.Consumer({**BASE, "group.id": "resume-group"})
    committed = [[p.partition, p.offset] for p in c.committed([ck.TopicPartition("resume", 0)], 20)]
    c.close()
    return [out, committed]


def group_admin():
    def described():
        g = ADMIN.describe_consumer_groups(["resume-group"])["resume-group"].result(20)
        return [g.group_id, g.is_simple_consumer_group, g.state.name, g.partition_assignor, len(g.members), g.type.name]
    empty = until(lambda: (d := described())[2] == "EMPTY" and d)

    def offsets():
        answer = ADMIN.list_consumer_group_offsets([ck.ConsumerGroupTopicPartitions("resume-group")])["resume-group"].result(20)
        return [[p.topic, p.partition, p.offset, p.metadata] for p in answer.topic_partitions]
    before = offsets()
    ADMIN.alter_consumer_group_offsets([ck.ConsumerGroupTopicPartitions("resume-group", [ck.TopicPartition("resume", 0, 4)])]
                                       )["resume-group"].result(20)
    listed = ADMIN.list_consumer_groups().result(20)
    mine = [[g.group_id, g.is_simple_consumer_group, g.state.name, g.type.name] for g in listed.valid if g.group_id == "resume-group"]
    after = offsets()
    ADMIN.delete_consumer_groups(["resume-group"])["resume-group"].result(20)
    return [empty, before, after, mine, refused(lambda: ADMIN.delete_consumer_groups(["no-such"])["no-such"].result(20)),
            refused(lambda: ADMIN.describe_consumer_groups(["no-such"])["no-such"].result(20))]


def seek():
    made("seek")
    send("seek", [{"value": b"%d" % i, "timestamp": T0 + i * 1000} for i in range(10)])
    c = ck.Consumer({**BASE, "group.id": "seek-group"})
    times = [c.offsets_for_times([ck.TopicPartition("seek", 0, t)], 20)[0].offset for t in (T0 - 10**9, T0 + 4500, T0 + 9000, T0 + 10**9)]
    marks = c.get_watermark_offsets(ck.TopicPartition("seek", 0), 20)
    c.close()
    spec = {n: ADMIN.list_offsets({ck.TopicPartition("seek", 0): s}) for n, s in (
        ("earliest", ka.OffsetSpec.earliest()), ("latest", ka.OffsetSpec.latest()), ("max", ka.OffsetSpec.max_timestamp()),
        ("time", ka.OffsetSpec.for_timestamp(T0 + 2000)))}
    listed = {n: [[r.offset, r.timestamp] for r in (f.result(20) for f in futures.values())] for n, futures in spec.items()}
    return [times, marks, [text(m) for m in read("seek", 5, seek=times[1])], listed]


def delete_records():
    def to(offset):
        done = ADMIN.delete_records([ck.TopicPartition("seek", 0, offset)])
        return [f.result(20).low_watermark for f in done.values()]
    return [to(3), refused(lambda: to(99)), [text(m) for m in read("seek", 7, group="after-delete")]]


def idempotent():
    made("numbered")
    return [send("numbered", [{"value": b"%d" % i} for i in range(200)], **{"enable.idempotence": True, "batch.num.messages": 7, "linger.ms": 1}),
            [[m.offset(), text(m)] for m in read("numbered", 200)]]


def transactions():
    made("txn")
    p = ck.Producer({**BASE, "transactional.id": "txn-id", "linger.ms": 1})
    p.init_transactions(30)
    reader = ck.Consumer({**BASE, "group.id": "txn-group", "enable.auto.commit": False})

    def one(values, offset, commit):
        p.begin_transaction()
        for v in values:
            p.produce("txn", v)
        if offset:
            p.send_offsets_to_transaction([ck.TopicPartition("txn", 0, offset)], reader.consumer_group_metadata(), 20)
        (p.commit_transaction if commit else p.abort_transaction)(20)
    one([b"kept 1", b"kept 2"], 7, True)
    p.begin_transaction()
    p.produce("txn", b"dropped")
    p.flush(20)                        # so that it is in the log
    p.send_offsets_to_transaction([ck.TopicPartition("txn", 0, 9)], reader.consumer_group_metadata(), 20)
    p.abort_transaction(20)
    one([b"kept 3"], 0, True)
    other = ck.Producer({**BASE, "transactional.id": "txn-id"})
    other.init_transactions(30)
    fenced = refused(lambda: one([b"too late"], 0, True))
    offset = [t.offset for t in reader.committed([ck.TopicPartition("txn", 0)], 20)]
    reader.close()
    return [[[m.offset(), text(m)] for m in read("txn", 3, "txn-committed")],
            [[m.offset(), text(m)] for m in read("txn", 4, "txn-all", **{"isolation.level": "read_uncommitted"})], offset, fenced]


def big():
    made("big")
    out = [send("big", [{"value": b"y" * 990000}]), send("big", [{"value": b"z" * 5000000}], **{"message.max.bytes": 8000000, "compression.type": "gzip"}),
           send("big", [{"value": b"x" * 2000000}], **{"message.max.bytes": 8000000})]
    return [out, [[m.offset(), digest(m.value())] for m in read("big", 2, **{"max.partition.fetch.bytes": 1000})]]


def unknown():
    c = ck.Consumer({**BASE, "group.id": "unknown"})
    out = [send("un known", [{"value": b"x"}]), refused(lambda: read("never", 1, **{"allow.auto.create.topics": False})),
           refused(lambda: c.get_watermark_offsets(ck.TopicPartition("never", 0), 10)), send("one", [{"value": b"x", "partition": 77}], **{"message.timeout.ms": 3000})]
    c.close()
    return out


def cut():
    made("cut")
    p = ck.Producer({**BASE, "enable.idempotence": True, "linger.ms": 0})
    told = []
    for i in range(100):
        if i % 25 == 10:
            say("cut")
        p.produce("cut", b"%d" % i, on_delivery=lambda e, m: told.append(e.name() if e else m.offset()))
        p.poll(0.01)
    p.flush(30)
    return [told, [[m.offset(), text(m)] for m in read("cut", 100)]]


def cluster():
    c = ADMIN.describe_cluster().result(20)
    return [len(c.nodes), c.nodes[0].host, c.controller.id == c.nodes[0].id]


def member(group, topic, kind):
    settings = {"group.protocol": "consumer"} if kind == "consumer" else {"partition.assignment.strategy": kind, "session.timeout.ms": 6000,
                                                                          "heartbeat.interval.ms": 100}
    c = ck.Consumer({**BASE, "group.id": group, "auto.offset.reset": "earliest", "fetch.wait.max.ms": 50, **settings})
    mine = set()

    def changed(parts, add):
        (mine.update if add else mine.difference_update)(p.partition for p in parts)
        say("assigned", sorted(mine))
    c.subscribe([topic], on_assign=lambda _, ps: changed(ps, True), on_revoke=lambda _, ps: changed(ps, False))
    while True:
        m = c.poll(0.05)
        if m is not None and not m.error():
            say("record", m.value().decode())


STEPS = [("topics: create, describe, list", topics), ("configs: describe, alter", configs), ("partitions: more, and none fewer", partitions),
         ("topics: delete", deletes), *(("produce and consume: " + ("plain" if c == "none" else c), codec(c)) for c in ("none", "gzip", "snappy", "lz4", "zstd")),
         ("acks 0 and 1", acks), ("groups: shared, one is killed", groups()),
         ("groups: cooperative, one is killed", groups(kind="cooperative-sticky")),
         ("groups: the broker assigns (KIP-848)", groups(kind="consumer")), ("groups: commit and resume", resume),
         ("groups: describe, list, offsets, delete", group_admin), ("seek: by offset and time", seek), ("records: deleted to an offset", delete_records),
         ("idempotent producer", idempotent), ("transactions: commit, abort, offsets", transactions), ("big messages", big),
         ("unknown topics and partitions", unknown), ("connections cut", cut), ("cluster", cluster)]

if sys.argv[2:3] == ["member"]:
    member(*sys.argv[3:])
else:
    run(STEPS, word)
