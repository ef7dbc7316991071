"""Share groups (KIP-932) through the raw wire client: who is in them, what they read, acknowledge and give back.

    MILLRACE_TARGET=kafka /usr/bin/python3 -m pytest tests/clients/test_kafka_share.py     # a real Kafka: tests the tests
"""

import itertools
import uuid

import pytest

import kafka_clients
import kafka_wire
from conftest import TARGET
from kafka_clients import made, until

pytestmark = pytest.mark.skipif(TARGET == 'rabbitmq', reason='RabbitMQ does not speak Kafka')
if TARGET == 'rabbitmq':
    collect_ignore = [__file__]

numbers = itertools.count(1)


@pytest.fixture(scope='module')
def broker():
    started = kafka_clients.start(TARGET)
    yield started
    started.remove()


@pytest.fixture
def topic():
    return 'topic-%d' % next(numbers)


@pytest.fixture
def group():
    return 'group-%d' % next(numbers)


class Sharer:
    """A member of a share group, by hand."""

    def __init__(self, port, group, topics):
        self.wire = kafka_wire.Wire(port)
        self.group, self.topics = group, topics
        self.member, self.epoch = str(uuid.uuid4()), 0
        self.partitions = {}

    def beat(self, epoch=None, topics=None):
        epoch = self.epoch if epoch is None else epoch
        said = self.wire.call('share_group_heartbeat', 1, group_id=self.group, member_id=self.member, member_epoch=epoch,
                              subscribed_topic_names=self.topics if epoch == 0 else topics)
        if said['error_code'] == 0:
            self.epoch = said['member_epoch']
            if said['assignment'] is not None:
                self.partitions = {t['topic_id']: sorted(t['partitions']) for t in said['assignment']['topic_partitions']}
        return said

    def has(self, count):
        """Beats until it has so many partitions: a real Kafka gives them a moment later."""
        until(lambda: self.beat()['error_code'] == 0 and sum(len(p) for p in self.partitions.values()) == count)
        return self

    def close(self):
        self.wire.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def test_members_come_and_go(broker, topic, group):
    made(broker, topic, 2)
    with Sharer(broker.kafka_port, group, [topic]) as a, Sharer(broker.kafka_port, group, [topic]) as b:
        a.has(2)
        b.beat()
        a.has(1)
        b.has(1)
        assert sorted(p for s in (a, b) for ps in s.partitions.values() for p in ps) == [0, 1]
        said = a.wire.call('share_group_describe', 1, group_ids=[group], include_authorized_operations=False)['groups'][0]
        assert (said['error_code'], said['group_state'], said['assignor_name']) == (0, 'Stable', 'simple')
        assert sorted(m['member_id'] for m in said['members']) == sorted([a.member, b.member])
        assert said['members'][0]['subscribed_topic_names'] == [topic]
        listed = a.wire.call('list_groups', 5, states_filter=[], types_filter=['share'])['groups']
        assert [g['group_state'] for g in listed if g['group_id'] == group and g['group_type'] == 'share'] == ['Stable']
        assert b.beat(-1)['member_epoch'] == -1
        a.has(2)
        assert a.wire.call('delete_groups', 2, groups_names=[group])['results'][0]['error_code'] == 68  # NON_EMPTY_GROUP
        assert a.beat(-1)['member_epoch'] == -1
        assert a.wire.call('delete_groups', 2, groups_names=[group])['results'][0]['error_code'] == 0


def test_who_is_refused(broker, topic, group):
    made(broker, topic, 1)
    with Sharer(broker.kafka_port, group, [topic]) as a:
        assert a.beat(3)['error_code'] == 69        # GROUP_ID_NOT_FOUND
        a.has(1)
        assert a.beat(a.epoch + 5)['error_code'] == 110  # FENCED_MEMBER_EPOCH
        other = Sharer(broker.kafka_port, group, [topic])
        assert other.beat(1)['error_code'] == 25    # UNKNOWN_MEMBER_ID
        assert other.wire.call('share_group_heartbeat', 1, group_id=group, member_id='', member_epoch=0)['error_code'] == 42
        said = other.wire.call('consumer_group_heartbeat', 1, group_id=group, member_id='x', member_epoch=0, rebalance_timeout_ms=1000,
                               subscribed_topic_names=[topic], topic_partitions=[])
        assert said['error_code'] == 69
        other.close()
