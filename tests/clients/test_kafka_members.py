"""Consumer groups of python3-kafka, librdkafka and kcat: members come, leave and are killed, so is the broker.

    MILLRACE_TARGET=kafka /usr/bin/python3 -m pytest tests/clients/test_kafka*.py     # a real Kafka: tests the tests
"""

import itertools
import threading

import kafka
import pytest
from kafka import TopicPartition
from kafka.errors import NonEmptyGroupError

import kafka_wire
from conftest import TARGET
from kafka_clients import Member, at, fill, kcat, made, until

pytestmark = pytest.mark.skipif(TARGET == 'rabbitmq', reason='RabbitMQ does not speak Kafka')
if TARGET == 'rabbitmq':
    collect_ignore = [__file__]


def test_a_group_shares_the_partitions(broker, topic, group):
    """Members come, leave and are killed; each time all partitions have exactly one reader, and nothing is read twice but what a
    killed one had not committed."""
    made(broker, topic, 4)
    fill(broker, topic, 40, 4)
    with Member(broker.kafka_port, group, [topic]) as a:
        a.wait(lambda m: len(m.records) == 40)
        assert len(a.partitions) == 4
        with Member(broker.kafka_port, group, [topic]) as b:
            b.wait(lambda m: m.partitions and len(m.partitions) == 2)
            a.wait(lambda m: m.partitions and len(m.partitions) == 2)
            assert sorted(a.partitions + b.partitions) == [(topic, i) for i in range(4)]
            fill(broker, topic, 40, 4)
            a.wait(lambda m: len(m.records) == 60)
            b.wait(lambda m: len(m.records) == 20)
            b.stop()
        a.wait(lambda m: m.partitions and len(m.partitions) == 4)
        with Member(broker.kafka_port, group, [topic]) as c:
            c.wait(lambda m: m.partitions and len(m.partitions) == 2)
            c.kill()
            a.wait(lambda m: m.partitions and len(m.partitions) == 4)
        fill(broker, topic, 40, 4)
        a.wait(lambda m: len(m.records) == 100)
        a.stop()
    seen = sorted((r[1], r[2]) for r in a.records + b.records)
    assert seen == [(p, o) for p in range(4) for o in range(30)]


class Polling:
    """A consumer of python3-kafka in a thread of its own: its poll() waits for the whole group."""

    def __init__(self, consumer):
        self.consumer, self.records, self.ends = consumer, [], threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        while not self.ends.is_set():
            self.records += [r for part in self.consumer.poll(timeout_ms=20).values() for r in part]
        self.consumer.close()

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ends.set()
        self.thread.join(30)
        assert not self.thread.is_alive()


def test_a_group_of_python_kafka(broker, topic, group):
    made(broker, topic, 2)
    fill(broker, topic, 10, 2)
    settings = dict(bootstrap_servers=at(broker), group_id=group, auto_offset_reset='earliest', enable_auto_commit=False,
                    heartbeat_interval_ms=100, session_timeout_ms=6000, fetch_max_wait_ms=50, consumer_timeout_ms=20000)
    first = kafka.KafkaConsumer(topic, **settings)
    assert sorted(int(r.value) for r in itertools.islice(first, 10)) == list(range(10))
    first.commit()
    assert first.committed(TopicPartition(topic, 0)) == first.committed(TopicPartition(topic, 1)) == 5
    with Polling(first), Polling(kafka.KafkaConsumer(topic, **settings)) as second:
        until(lambda: len(first.assignment()) == len(second.consumer.assignment()) == 1)
    # Both have left.
    with Polling(kafka.KafkaConsumer(topic, **settings)) as third:
        until(lambda: len(third.consumer.assignment()) == 2)
        fill(broker, topic, 2, 2)
        until(lambda: len(third.records) == 2)
        assert sorted((r.partition, r.offset) for r in third.records) == [(0, 5), (1, 5)]
    fourth = kafka.KafkaConsumer(**settings)
    fourth.assign([TopicPartition(topic, 0)])
    fourth.commit({TopicPartition(topic, 0): kafka.OffsetAndMetadata(3, 'words')})
    assert fourth.committed(TopicPartition(topic, 0), metadata=True) == kafka.OffsetAndMetadata(3, 'words')
    fourth.close()


def test_groups_are_listed_described_and_deleted(broker, topic, group):
    made(broker, topic, 2)
    fill(broker, topic, 2, 2)
    admin = kafka.KafkaAdminClient(bootstrap_servers=at(broker))
    try:
        with Member(broker.kafka_port, group, [topic], **{'client.id': 'the-client'}) as member:
            member.wait(lambda m: len([e for e in m.events if e[0] == 'committed']) == 2)
            assert (group, 'consumer') in admin.list_consumer_groups()
            described = admin.describe_consumer_groups([group])[0]
            assert (described.state, described.protocol_type, described.protocol) == ('Stable', 'consumer', 'range')
            assert [m.client_id for m in described.members] == ['the-client']
            assert described.members[0].member_assignment.assignment == [(topic, [0, 1])]
            with pytest.raises(NonEmptyGroupError):
                raise dict(admin.delete_consumer_groups([group]))[group]
            member.stop()
        assert admin.describe_consumer_groups([group])[0].state == 'Empty'
        offsets = admin.list_consumer_group_offsets(group)
        assert {k.partition: v.offset for k, v in offsets.items()} == {0: 1, 1: 1}
        assert dict(admin.delete_consumer_groups([group]))[group].errno == 0
        assert group not in [g for g, _ in admin.list_consumer_groups()]
        assert admin.describe_consumer_groups([group])[0].state == 'Dead'
    finally:
        admin.close()


def test_kcat_in_a_group(broker, topic, group):
    made(broker, topic, 2)
    fill(broker, topic, 10, 2)
    read_ = kcat(broker, '-G', group, '-X', 'auto.offset.reset=earliest', '-e', topic)
    assert sorted(map(int, read_.split())) == list(range(10))


def test_offsets_and_members_outlive_a_restart(fresh_broker, group):
    """What was committed is there after a kill -9; members go on without being told."""
    topic = made(fresh_broker, 'restart', 2)
    fill(fresh_broker, topic, 20, 2)
    with Member(fresh_broker.kafka_port, group, [topic]) as a:
        a.wait(lambda m: len([e for e in m.events if e[0] == 'committed']) == 20)
        fresh_broker.kill9()
        fresh_broker.start()
        with kafka_wire.Wire(fresh_broker.kafka_port) as w:
            answer = until(lambda: [g for g in w.call('offset_fetch', 8, groups=[{'group_id': group, 'topics': None}])['groups'] if not g['error_code']])
        assert [(p['partition_index'], p['committed_offset']) for t in answer[0]['topics']
                for p in sorted(t['partitions'], key=lambda p: p['partition_index'])] == [(0, 10), (1, 10)]
        fill(fresh_broker, topic, 20, 2)
        a.wait(lambda m: len(m.records) == 40, 60)
        assert sorted((r[1], r[2]) for r in a.records) == [(p, o) for p in range(2) for o in range(20)]
        a.stop()
