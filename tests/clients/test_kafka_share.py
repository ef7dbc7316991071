"""Share groups (KIP-932) through the raw wire client: who is in them, what they read, acknowledge and give back.

    MILLRACE_TARGET=kafka /usr/bin/python3 -m pytest tests/clients/test_kafka_share.py     # a real Kafka: tests the tests
"""

import time
import uuid

import pytest

import kafka_clients
import kafka_wire
from conftest import TARGET
from kafka_clients import made, until

pytestmark = pytest.mark.skipif(TARGET == 'rabbitmq', reason='RabbitMQ does not speak Kafka')
if TARGET == 'rabbitmq':
    collect_ignore = [__file__]


def acquired(said):
    return [(a['first_offset'], a['last_offset'], a['delivery_count'])
            for t in said['responses'] for p in t['partitions'] for a in p['acquired_records']]


def known(error):
    """A real Kafka makes its topic of groups when the first one is asked for."""
    return error not in (14, 15, 16) and (error or True)


def errors(said):
    return [p['acknowledge_error_code' if 'acknowledge_error_code' in p else 'error_code'] for t in said['responses'] for p in t['partitions']]


ACCEPT, RELEASE, REJECT = 1, 2, 3


class Sharer:
    """A member of a share group, by hand."""

    def __init__(self, port, group, topics):
        self.wire = kafka_wire.Wire(port)
        self.wire.call('find_coordinator', 2, key=group, key_type=0)
        self.group, self.topics = group, topics
        self.member, self.epoch = str(uuid.uuid4()), 0
        self.partitions, self.session = {}, 0

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
        until(lambda: self.beat(0 if self.epoch == 0 else None)['error_code'] == 0 and sum(len(p) for p in self.partitions.values()) == count)
        return self

    def rows(self, partitions):
        return [{'topic_id': t, 'partitions': ps} for t, ps in partitions.items()]

    def fetch(self, acks=None, wait=500, most=500, version=1, forget=None, **more):
        """acks: {(topic id, partition): [(first, last, [types])]}. -> {(topic id, partition): answer}, [(offset, deliveries)]"""
        partitions = {}
        if self.session == 0:
            for t, ps in self.partitions.items():
                partitions[t] = [{'partition_index': p} for p in ps]
        for (t, p), batches in (acks or {}).items():
            partitions.setdefault(t, []).append({'partition_index': p, 'acknowledgement_batches': [
                {'first_offset': f, 'last_offset': l, 'acknowledge_types': types} for f, l, types in batches]})
        said = self.wire.call('share_fetch', version, group_id=self.group, member_id=self.member, share_session_epoch=self.session,
                              max_wait_ms=wait, min_bytes=1, max_bytes=1 << 20, max_records=most, batch_size=most,
                              topics=self.rows(partitions), **more)
        if said['error_code'] == 0 and self.session >= 0:
            self.session += 1
        return said

    def acknowledge(self, acks, session=None):
        partitions = {}
        for (t, p), batches in acks.items():
            partitions.setdefault(t, []).append({'partition_index': p, 'acknowledgement_batches': [
                {'first_offset': f, 'last_offset': l, 'acknowledge_types': types} for f, l, types in batches]})
        said = self.wire.call('share_acknowledge', 1, group_id=self.group, member_id=self.member,
                              share_session_epoch=self.session if session is None else session, topics=self.rows(partitions))
        if said['error_code'] == 0 and session is None:
            self.session += 1
        return said

    def take(self, count=None, **more):
        """Fetches until it has acquired something (so many records): [(first, last, deliveries)]."""
        got = []
        def enough():
            said = self.fetch(**more)
            assert said['error_code'] == 0, said
            got.extend(acquired(said))
            return got and (count is None or sum(last - first + 1 for first, last, _ in got) >= count)
        until(enough)
        return got

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
        assert until(lambda: known(a.beat(3)['error_code'])) == 69        # GROUP_ID_NOT_FOUND
        a.has(1)
        assert a.beat(a.epoch + 5)['error_code'] == 110  # FENCED_MEMBER_EPOCH
        other = Sharer(broker.kafka_port, group, [topic])
        assert other.beat(1)['error_code'] == 25    # UNKNOWN_MEMBER_ID
        assert other.wire.call('share_group_heartbeat', 1, group_id=group, member_id='', member_epoch=0)['error_code'] == 42
        said = other.wire.call('consumer_group_heartbeat', 1, group_id=group, member_id='x', member_epoch=0, rebalance_timeout_ms=1000,
                               subscribed_topic_names=[topic], topic_partitions=[])
        assert said['error_code'] == 69
        other.close()


def ready(broker, topic, group, records=0, **configs):
    """A member that reads from now on, and then some records, each a batch of its own."""
    made(broker, topic, 1, **configs)
    a = Sharer(broker.kafka_port, group, [topic]).has(1)
    assert acquired(a.fetch(wait=0)) == []
    until(lambda: not acquired(a.fetch(wait=0)) and started(a, group, topic))
    kafka_clients.fill(broker, topic, records, 1)
    return a, (next(iter(a.partitions)), 0)


def started(a, group, topic):
    """A real Kafka looks where the partition begins when it is fetched, a moment later."""
    a.fetch(wait=200)
    return True


def test_records_are_acquired_and_acknowledged(broker, topic, group):
    a, p = ready(broker, topic, group, 10)
    with a:
        assert a.take(10)[0][0] == 0
        b = Sharer(broker.kafka_port, group, [topic]).has(1)
        assert acquired(b.fetch(wait=100)) == []            # all of them are a's
        said = a.fetch(acks={p: [(0, 4, [ACCEPT]), (5, 6, [RELEASE]), (7, 9, [ACCEPT, REJECT, RELEASE])]}, wait=0, most=1)
        assert said['error_code'] == 0 and errors(said) == [0], said
        again = acquired(said)
        again += b.take(3 - sum(l - f + 1 for f, l, _ in again)) if sum(l - f + 1 for f, l, _ in again) < 3 else []
        assert sorted(again) == sorted(again) and {d for _, _, d in again} == {2}
        assert sorted(o for f, l, _ in again for o in range(f, l + 1)) == [5, 6, 9]
        b.close()


def test_who_may_not_acknowledge(broker, topic, group):
    a, p = ready(broker, topic, group, 3)
    with a:
        a.take(3)
        b = Sharer(broker.kafka_port, group, [topic]).has(1)
        assert acquired(b.fetch(wait=0)) == []
        assert errors(b.acknowledge({p: [(0, 0, [ACCEPT])]})) == [121]      # INVALID_RECORD_STATE
        assert errors(a.acknowledge({p: [(0, 0, [ACCEPT]), (0, 1, [ACCEPT])]})) == [121]
        assert errors(a.acknowledge({p: [(0, 0, [ACCEPT, ACCEPT])]})) == [42]
        assert errors(a.acknowledge({p: [(0, 0, [9])]})) == [42]
        assert errors(a.acknowledge({p: [(0, 1, [ACCEPT])]})) == [0]
        assert errors(a.acknowledge({p: [(1, 2, [ACCEPT])]})) in ([0], [121])  # 1 is below the start already
        assert a.acknowledge({p: [(2, 2, [ACCEPT])]}, session=77)['error_code'] == 123  # INVALID_SHARE_SESSION_EPOCH
        assert a.acknowledge({p: [(2, 2, [ACCEPT])]}, session=0)['error_code'] == 123
        b.close()


def test_a_session_that_closes_gives_back(broker, topic, group):
    a, p = ready(broker, topic, group, 3)
    a.take(3)
    with Sharer(broker.kafka_port, group, [topic]).has(1) as b:
        assert acquired(b.fetch(wait=0)) == []
        assert errors(a.acknowledge({p: [(0, 0, [ACCEPT])]}, session=-1)) == [0]
        got = b.take(2)
        assert sorted(o for f, l, _ in got for o in range(f, l + 1)) == [1, 2]
        assert a.fetch(wait=0)['error_code'] == 122         # SHARE_SESSION_NOT_FOUND
        a.close()
        print('deliveries after close', got)
        with Sharer(broker.kafka_port, group, [topic]).has(1) as c:
            c.fetch(wait=0)
            b.close()
            got = c.take(2)                                 # b's connection has gone
            assert sorted(o for f, l, _ in got for o in range(f, l + 1)) == [1, 2]
            print('deliveries after disconnect', got)


def test_a_record_that_is_released_too_often_is_given_up(broker, topic, group):
    a, p = ready(broker, topic, group, 1)
    with a:
        for n in range(1, 6):
            assert a.take(1) == [(0, 0, n)]
            assert errors(a.acknowledge({p: [(0, 0, [RELEASE])]})) == [0]
        assert acquired(a.fetch(wait=100)) == []
        kafka_clients.fill(broker, topic, 1, 1)
        assert a.take(1) == [(1, 1, 1)]


@pytest.mark.skipif(TARGET == 'kafka', reason='kills the broker')
def test_acknowledgements_survive_a_kill(fresh_broker, topic, group):
    a, p = ready(fresh_broker, topic, group, 6)
    assert a.take(6) == [(0, 5, 1)]
    assert errors(a.acknowledge({p: [(0, 0, [ACCEPT]), (2, 2, [RELEASE]), (4, 4, [ACCEPT])]})) == [0]
    fresh_broker.kill9()
    fresh_broker.start()
    with Sharer(fresh_broker.kafka_port, group, [topic]).has(1) as b:
        got = b.take(4)
        assert sorted((o, d) for f, l, d in got for o in range(f, l + 1)) == [(1, 1), (2, 2), (3, 1), (5, 1)]


def set_group(broker, group, **configs):
    with kafka_wire.Wire(broker.kafka_port) as w:
        said = w.call('incremental_alter_configs', 1, resources=[{'resource_type': 32, 'resource_name': group, 'configs': [
            {'name': k.replace('_', '.'), 'config_operation': 0, 'value': v} for k, v in configs.items()]}])
        assert said['responses'][0]['error_code'] == 0, said
        until(lambda: all(c['config_source'] == 8 for c in w.call('describe_configs', 4, resources=[{
            'resource_type': 32, 'resource_name': group, 'configuration_keys': [k.replace('_', '.') for k in configs]}])['results'][0]['configs']))


def offsets(runs):
    return sorted(o for first, last, _ in runs for o in range(first, last + 1))


@pytest.mark.parametrize('level', ['read_committed', 'read_uncommitted'])
def test_what_was_aborted(broker, topic, group, level):
    """Three records of a transaction that is aborted, a marker, three of one that commits, a marker, three of one that is open."""
    made(broker, topic, 1)
    set_group(broker, group, share_auto_offset_reset='earliest', share_isolation_level=level)
    with Sharer(broker.kafka_port, group, [topic]).has(1) as a:
        p = kafka_clients.librdkafka(broker, transactional_id=topic)
        p.init_transactions()
        for end in (p.abort_transaction, p.commit_transaction, None):
            p.begin_transaction()
            for i in range(3):
                p.produce(topic, b'%d' % i, partition=0)
            p.flush()
            if end:
                end()
        part = (next(iter(a.partitions)), 0)
        if level == 'read_uncommitted':
            assert offsets(a.take(9)) == [0, 1, 2, 4, 5, 6, 8, 9, 10]
        else:
            assert offsets(a.take(3)) == [4, 5, 6]
            assert errors(a.acknowledge({part: [(4, 6, [ACCEPT])]})) == [0]
            assert acquired(a.fetch(wait=100)) == []                # the third one is open
            p.commit_transaction()
            assert offsets(a.take(3)) == [8, 9, 10]
            assert errors(a.acknowledge({part: [(8, 10, [ACCEPT])]})) == [0]
            until(lambda: a.fetch(wait=50) and lag(a, group) == 0)    # the marker behind them is passed over


@pytest.mark.parametrize('since, first', [('PT90M', 1), ('PT30M', 2), ('PT3H', 0), ('PT1M', 3)])
def test_it_begins_so_long_ago(broker, topic, group, since, first):
    """With the first record that is not older, though all lie in one file; a younger one may have older ones behind it."""
    made(broker, topic, 1)
    set_group(broker, group, share_auto_offset_reset='by_duration:' + since)
    with Sharer(broker.kafka_port, group, [topic]).has(1) as a:
        now = int(time.time() * 1000)
        for i, minutes in enumerate((120, 60, 10)):
            assert kafka_wire.produce(a.wire, topic, kafka_wire.batch(['%d' % i], timestamp=now - minutes * 60000))['error_code'] == 0
        if first < 3:
            assert offsets(a.take(3 - first)) == list(range(first, 3))
            return
        said = a.fetch(wait=100)            # Kafka says OFFSET_NOT_AVAILABLE until there is one
        assert not acquired(said) and {p['error_code'] for t in said['responses'] for p in t['partitions']} <= {0, 78}
        assert kafka_wire.produce(a.wire, topic, kafka_wire.batch(['3'], timestamp=now))['error_code'] == 0
        until(lambda: acquired(a.fetch(wait=100)) == [(3, 3, 1)])


def lag(a, group):
    said = a.wire.call('describe_share_group_offsets', 1, groups=[{'group_id': group, 'topics': None}])
    return said['groups'][0]['topics'][0]['partitions'][0]['lag']
