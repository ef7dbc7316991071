"""aiokafka against the broker at HOST:PORT."""
import asyncio
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, for_code

from steps import Member, T0, digest, key, run, say, shared, value

AT = sys.argv[1]


def word(why):
    return type(why).__name__


def step(function):
    """An asynchronous step as run() takes it."""
    return lambda: asyncio.run(function())


def with_admin(function):
    async def work():
        admin = AIOKafkaAdminClient(bootstrap_servers=AT)
        await admin.start()
        try:
            return await function(admin)
        finally:
            await admin.close()
    return step(work)


async def made(name, partitions=1, **configs):
    admin = AIOKafkaAdminClient(bootstrap_servers=AT)
    await admin.start()
    done = await admin.create_topics([NewTopic(name, partitions, 1, topic_configs=configs)])
    for _ in range(500):
        if (await admin.describe_topics([name]))[0]["error_code"] == 0:
            break
        await asyncio.sleep(0.02)
    await admin.close()
    return [[t[0], for_code(t[1]).__name__] for t in done.topic_errors]


async def send(name, messages, **settings):
    p = AIOKafkaProducer(bootstrap_servers=AT, **{"acks": "all", "linger_ms": 50, **settings})
    await p.start()
    try:
        out = []
        for done in [await p.send(name, **m) for m in messages]:
            try:
                at = await done
                out.append(at and [at.partition, at.offset])
            except KafkaError as why:
                out.append(word(why))
        return out
    finally:
        await p.stop()


async def read(name, count, group=None, commit=False, before=None, **settings):
    c = AIOKafkaConsumer(name, bootstrap_servers=AT, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False,
                         fetch_max_wait_ms=50, session_timeout_ms=6000, **settings)
    await c.start()
    out = []
    try:
        if before:
            await before(c)
        while len(out) < count:
            for part in (await c.getmany(timeout_ms=200)).values():
                out.extend(part)
        if commit:
            await c.commit()
    finally:
        await c.stop()
    return sorted(out, key=lambda r: (r.partition, r.offset))


def text(raw):
    return None if raw is None else raw.decode()


def short(records):
    return [[r.offset, text(r.value)] for r in records]


def codec(name):
    async def work():
        topic = "codec-%s" % name
        await made(topic, 2)
        done = await send(topic, [{"key": key(i), "value": value(i) or b"", "partition": i % 2, "timestamp_ms": T0 + i * 1000,
                                   "headers": [("n", b"%d" % i), ("n", b"")]} for i in range(40)], compression_type=name)
        return [done, [[r.partition, r.offset, text(r.key), text(r.value), r.timestamp, r.timestamp_type, [[k, text(v)] for k, v in r.headers]]
                       for r in await read(topic, 40)]]
    return step(work)


async def topics(admin):
    first = await made("one", 3, **{"retention.ms": "3600000"})
    again = [await made("one", 3), (await admin.create_topics([NewTopic("far", 1, 3)])).topic_errors[0][1],
             (await admin.create_topics([NewTopic("bad/name", 1, 1)])).topic_errors[0][1]]
    seen = (await admin.describe_topics(["one"]))[0]
    return [first, again, sorted([p["partition"], p["error_code"], len(p["replicas"]), p["leader"] == p["replicas"][0]] for p in seen["partitions"]),
            [t for t in await admin.list_topics() if t == "one"]]


async def configs(admin):
    def resource(**values):
        return ConfigResource(ConfigResourceType.TOPIC, "one", configs=values or None)

    async def get():
        answer = (await admin.describe_configs([resource()]))[0]
        return sorted([c[0], c[1], c[2]] for c in answer.resources[0][4] if c[0] in ("retention.ms", "cleanup.policy"))
    before = await get()
    done = await admin.alter_configs([resource(**{"retention.ms": "7200000"})])
    wrong = await admin.alter_configs([resource(**{"retention.ms": "soon"})])
    after = await get()
    while after == before:
        after = await get()
    return [before, after, done[0].resources[0][0], wrong[0].resources[0][0]]


async def partitions(admin):
    done = await admin.create_partitions({"one": NewPartitions(5)})
    out = [list(done.topic_errors[0][:2])]
    try:
        await admin.create_partitions({"one": NewPartitions(2)})
    except KafkaError as why:
        out.append(word(why))
    return out


async def deletes(admin):
    await made("gone")
    done = await admin.delete_topics(["gone"])
    return [list(map(list, done.topic_error_codes)), list(map(list, (await admin.delete_topics(["never"])).topic_error_codes))]


async def resume():
    await made("resume")
    await send("resume", [{"value": b"%d" % i} for i in range(10)])
    await read("resume", 10, "resume-group", commit=True)
    await send("resume", [{"value": b"after"}])
    return short(await read("resume", 1, "resume-group", commit=True))


async def groups(admin):
    async def described(group):
        g = (await admin.describe_consumer_groups([group]))[0].groups[0]
        return [g[0], g[1], g[2], g[3], len(g[5])]
    empty = await described("resume-group")
    while empty[2] != "Empty":
        empty = await described("resume-group")
    offsets = await admin.list_consumer_group_offsets("resume-group")
    return [empty, await described("no-such"), [[p.topic, p.partition, o.offset, o.metadata] for p, o in offsets.items()],
            [list(g) for g in await admin.list_consumer_groups() if g[0] == "resume-group"]]


async def seek():
    await made("seek")
    await send("seek", [{"value": b"%d" % i, "timestamp_ms": T0 + i * 1000} for i in range(10)])
    p, times = TopicPartition("seek", 0), []

    async def before(c):
        for t in (T0 - 10**9, T0 + 4500, T0 + 9000, T0 + 10**9):
            found = (await c.offsets_for_times({p: t}))[p]
            times.append(found and [found.offset, found.timestamp])
        times.append([list((await c.beginning_offsets([p])).values()), list((await c.end_offsets([p])).values())])
        c.seek(p, 5)
    return [short(await read("seek", 5, before=before)), times]


async def idempotent():
    await made("numbered")
    return [await send("numbered", [{"value": b"%d" % i} for i in range(200)], enable_idempotence=True, linger_ms=0),
            short(await read("numbered", 200))]


async def transactions():
    await made("txn")
    p = AIOKafkaProducer(bootstrap_servers=AT, transactional_id="txn-id")
    await p.start()
    part = TopicPartition("txn", 0)

    async def one(values, end, offset=None):
        await p.begin_transaction()
        for v in values:
            await p.send_and_wait("txn", v)
        if offset:
            await p.send_offsets_to_transaction({part: offset}, "txn-group")
        await end()
    await one([b"kept 1", b"kept 2"], p.commit_transaction, 7)
    await one([b"dropped"], p.abort_transaction, 9)
    await one([b"kept 3"], p.commit_transaction)
    await p.stop()
    committed = []

    async def before(c):
        committed.append(await c.committed(part))
        await c.seek_to_beginning()
    return [short(await read("txn", 3, "txn-group", before=before, isolation_level="read_committed")), short(await read("txn", 4)), committed]


async def big():
    await made("big")
    out = [await send("big", [{"value": b"y" * 990000}]), await send("big", [{"value": b"x" * 2000000}], max_request_size=8000000)]
    return [out, [[r.offset, digest(r.value)] for r in await read("big", 1, max_partition_fetch_bytes=1000)]]


async def cut():
    await made("cut")
    p = AIOKafkaProducer(bootstrap_servers=AT, enable_idempotence=True, retry_backoff_ms=20)
    await p.start()
    told = []
    for i in range(100):
        if i % 25 == 10:
            say("cut")
        told.append((await p.send_and_wait("cut", b"%d" % i)).offset)
    await p.stop()
    return [told, short(await read("cut", 100))]


async def acks():
    await made("acks")
    await send("acks", [{"value": b"a"}], acks=1)
    await send("acks", [{"value": b"b"}], acks=0)
    return short(await read("acks", 2))


def sharing():
    asyncio.run(made("shared", 4))
    return shared(lambda: Member("shared-group", "shared"),
                  lambda which: asyncio.run(send("shared", [{"value": b"%d" % i, "partition": i % 4} for i in which])))


class Tells(ConsumerRebalanceListener):
    async def on_partitions_revoked(self, revoked):
        say("assigned", [])

    async def on_partitions_assigned(self, assigned):
        say("assigned", sorted(p.partition for p in assigned))


async def member(group, topic):
    c = AIOKafkaConsumer(bootstrap_servers=AT, group_id=group, auto_offset_reset="earliest", fetch_max_wait_ms=50, session_timeout_ms=6000,
                         heartbeat_interval_ms=200, auto_commit_interval_ms=100)
    c.subscribe([topic], listener=Tells())
    await c.start()
    async for r in c:
        say("record", text(r.value))


if sys.argv[2:3] == ["member"]:
    asyncio.run(member(*sys.argv[3:]))
else:
    run([("topics: create, describe, list", with_admin(topics)), ("configs: describe, alter", with_admin(configs)),
         ("partitions: more, and none fewer", with_admin(partitions)), ("topics: delete", with_admin(deletes)),
         *(("produce and consume: " + (c or "plain"), codec(c)) for c in (None, "gzip", "snappy", "lz4", "zstd")),
         ("acks 0 and 1", step(acks)), ("groups: shared, one is killed", sharing), ("groups: commit and resume", step(resume)),
         ("groups: describe, list, offsets, delete", with_admin(groups)), ("seek: by offset and time", step(seek)),
         ("idempotent producer", step(idempotent)), ("transactions: commit, abort, offsets", step(transactions)), ("big messages", step(big)),
         ("connections cut", step(cut))], word)
