"""Rows of kafka_rows.py: share groups (KIP-932), their offsets for tools, and what is set of groups."""

from kafka_rows import ask, producing, row, topic, topic_id, until
from kafka_wire import batch

T, G = '{u}t', '{u}g'
AGAIN = (14, 15, 16)        # a coordinator that is only now being loaded
GROUP = 32
ACCEPT, RELEASE, REJECT, RENEW = 1, 2, 3, 4


def ready():
    """A real Kafka makes its topics of groups when the first client asks."""
    return [
        until(lambda a: a['error_code'] == 0, 'find_coordinator', 2, key=G, key_type=0),
        until(lambda a: a['groups'][0]['error_code'] not in AGAIN, 'describe_share_group_offsets', 0,
              groups=[{'group_id': G, 'topics': None}]),
    ]


def member(epoch=0, name='m', topics=(T,), group=G):
    return {'group_id': group, 'member_id': name, 'member_epoch': epoch, 'subscribed_topic_names': topics and list(topics)}


def beat(**more):
    return ask('share_group_heartbeat', 1, **member(**more))


def joined(partitions=1, name='m'):
    """A member that has been given its partitions, which a real Kafka does a moment later."""
    def has(a):
        return a['error_code'] == 0 and a['assignment'] and sum(len(t['partitions']) for t in a['assignment']['topic_partitions']) == partitions
    return until(has, 'share_group_heartbeat', 1, name='joined ' + name, **member(name=name))


def left(name='m'):
    return until(lambda a: a['error_code'] == 0, 'share_group_heartbeat', 1, **member(epoch=-1, name=name, topics=None))


def sets(*pairs, name=G, validate=False, operation=0):
    return ask('incremental_alter_configs', 1, validate_only=validate, resources=[{'resource_type': GROUP, 'resource_name': name, 'configs': [
        {'name': k, 'config_operation': operation, 'value': v} for k, v in pairs]}])


def configs(*keys, name=G, synonyms=True, version=4):
    fields = {'resources': [{'resource_type': GROUP, 'resource_name': name, 'configuration_keys': list(keys) or None}]}
    return dict(fields, include_synonyms=synonyms) if version else fields


def shown(*keys, **more):
    return ask('describe_configs', 4, **configs(*keys, **more))


def is_set(key, value):
    """A real Kafka has it a moment later."""
    return until(lambda a: a['results'][0]['configs'][0]['value'] == value, 'describe_configs', 4, **configs(key))


EARLIEST = [sets(('share.auto.offset.reset', 'earliest')), is_set('share.auto.offset.reset', 'earliest')]


def session(epoch, partitions=(), acks=None, wait=500, most=500, version=1, **more):
    """The fields of a ShareFetch. acks: {partition: [(first, last, [types])]}"""
    named = [{'partition_index': p} for p in partitions]
    named += [{'partition_index': p, 'acknowledgement_batches': [{'first_offset': f, 'last_offset': l, 'acknowledge_types': t} for f, l, t in b]}
              for p, b in (acks or {}).items()]
    return dict({'group_id': G, 'member_id': 'm', 'share_session_epoch': epoch, 'max_wait_ms': wait, 'min_bytes': 1, 'max_bytes': 1 << 20,
                 'max_records': most, 'batch_size': most, 'topics': [{'topic_id': topic_id(), 'partitions': named}] if named else []}, **more)


def fetched(epoch, version=1, **more):
    return ask('share_fetch', version, **session(epoch, version=version, **more)).ignore(
        'current_leader', 'node_endpoints', why='filled in beside an error of a leader only').ignore('records', why='rows of Fetch have them')


def has_records(a):
    return any(p['acquired_records'] for t in a['responses'] for p in t['partitions'])


class Session:
    """Fetches until something has been acquired: a real Kafka finds out a moment later where a partition begins. How many epochs that
    takes is its own matter, so those that follow count from there."""

    def __init__(self, name='s'):
        self.name = name

    def begins(self, **more):
        def begin(p):
            p.asked['epoch ' + self.name] = p.asked.get('epoch ' + self.name, -1) + 1
            return p.asked['epoch ' + self.name]
        fields = session(0, (0,), **more)
        fields['share_session_epoch'] = begin
        fields['topics'] = lambda p: [{'topic_id': topic_id()(p), 'partitions': [{'partition_index': 0}]}] if p.asked['epoch ' + self.name] == 0 else []
        return until(has_records, 'share_fetch', 1, name='first', **fields)

    def epoch(self, p):
        p.asked['epoch ' + self.name] += 1
        return p.asked['epoch ' + self.name]

    def fetch(self, version=1, **more):
        fields = session(0, version=version, **more)
        fields['share_session_epoch'] = self.epoch
        return ask('share_fetch', version, **fields).ignore('current_leader', 'node_endpoints', why='of other leaders').ignore(
            'records', why='rows of Fetch have them')

    def acknowledge(self, acks, version=1, epoch=None, **more):
        fields = session(0, acks=acks)
        return ask('share_acknowledge', version, group_id=G, member_id='m', share_session_epoch=epoch or self.epoch, topics=fields['topics'],
                   **more).ignore('current_leader', 'node_endpoints', why='of other leaders')


def produced(count):
    return ask('produce', 9, **producing(batch([b'x'] * count)))


def offsets(*topics, version=1, group=G):
    named = [{'topic_name': n, 'partitions': list(p)} for n, p in topics] if topics else None
    return ask('describe_share_group_offsets', version, groups=[{'group_id': group, 'topics': named}])


def until_lag(lag, partition=0):
    """A real Kafka writes what was acknowledged a moment later."""
    return until(lambda a: any(p['partition_index'] == partition and p['lag'] == lag for t in a['groups'][0]['topics'] for p in t['partitions']),
                 'describe_share_group_offsets', 1, groups=[{'group_id': G, 'topics': None}])


def moved(*topics, group=G):
    return ask('alter_share_group_offsets', 0, group_id=group, topics=[
        {'topic_name': n, 'partitions': [{'partition_index': p, 'start_offset': o} for p, o in ps]} for n, ps in topics])


def forgotten(*topics, group=G):
    return ask('delete_share_group_offsets', 0, group_id=group, topics=[{'topic_name': n} for n in topics])


VALUES = {
    'share.auto.offset.reset': ('earliest', 'latest', 'by_duration:PT1H', 'by_duration:P2DT3H4M5.5S', 'by_duration:PT-1H', 'by_duration:x', 'none', ''),
    'share.isolation.level': ('read_committed', 'READ_COMMITTED', 'x'),
    'share.record.lock.duration.ms': ('999', '14999', '15000', '60000', '60001', 'x', ''),
    'share.session.timeout.ms': ('0', '44999', '45000', '60000', '60001'),
    'share.heartbeat.interval.ms': ('4999', '5000', '15000', '15001'),
    'share.delivery.count.limit': ('1', '2', '10', '11'),
    'share.partition.max.record.locks': ('99', '100', '4000', '4001'),
    'share.renew.acknowledge.enable': ('false', 'x'),
    'share.assignment.interval.ms': ('-1', '0', '15000', '15001'),
    'consumer.session.timeout.ms': ('44999', '45000', '60000', '60001'),
    'consumer.heartbeat.interval.ms': ('4999', '5000', '15000', '15001'),
    'consumer.assignment.interval.ms': ('-1', '0', '15000', '15001'),
    'streams.session.timeout.ms': ('44999', '60000'),
    'streams.num.standby.replicas': ('2', '3'),
    'nix': ('1',),
}

CONFIGS = [
    row('share: describe_configs of a group of which nothing is set', shown(), shown(synonyms=False), shown('share.isolation.level', 'nix')),
    row('share: describe_configs of a group without a name', shown(name='')),
    *[row('share: describe_configs v%d of a group' % v, sets(('share.isolation.level', 'read_committed')),
          is_set('share.isolation.level', 'read_committed'), ask('describe_configs', v, **configs(version=v and 1)))
      for v in range(1, 5)],
    *[row('share: %s of a group' % name, *[sets((name, v)) for v in values]) for name, values in VALUES.items()],
    row('share: configs of a group are set, changed and go', sets(('share.session.timeout.ms', '50000'), ('share.isolation.level', 'read_committed')),
        is_set('share.session.timeout.ms', '50000'), shown(), sets(('share.session.timeout.ms', None), operation=1),
        is_set('share.session.timeout.ms', '45000'), shown('share.session.timeout.ms', 'share.isolation.level')),
    row('share: alter_configs of a group says all of it', sets(('share.session.timeout.ms', '50000')), is_set('share.session.timeout.ms', '50000'),
        ask('alter_configs', 2, resources=[{'resource_type': GROUP, 'resource_name': G, 'configs': [{'name': 'share.isolation.level', 'value': 'read_committed'}]}]),
        is_set('share.session.timeout.ms', '45000'), shown('share.session.timeout.ms', 'share.isolation.level')),
    row('share: configs of a group that are only checked', sets(('share.session.timeout.ms', '50000'), validate=True),
        sets(('share.session.timeout.ms', '1'), validate=True), shown('share.session.timeout.ms')),
    row('share: what a group cannot be set', sets(('share.auto.offset.reset', 'earliest'), name=''), sets(('share.auto.offset.reset', 'earliest'), operation=2),
        sets(('share.auto.offset.reset', None)), sets(('nix', None), operation=1), sets(('share.session.timeout.ms', None), operation=1),
        sets(('share.session.timeout.ms', '50000'), ('share.session.timeout.ms', '51000'))),
]

MEMBERS = [
    row('share_group_heartbeat: who is refused', topic(), ready(), beat(name=''), beat(group=''), beat(epoch=-2), beat(topics=None),
        beat(epoch=3), joined(), beat(epoch=77, topics=None), beat(epoch=3, name='other', topics=None)),
    row('share_group_heartbeat: a member leaves', topic(), ready(), joined(), beat(epoch=-1, topics=None), beat(epoch=-1, topics=None)),
    row('share_group_heartbeat: a consumer of the other kind', topic(), ready(), joined(),
        ask('consumer_group_heartbeat', 1, group_id=G, member_id='x', member_epoch=0, rebalance_timeout_ms=1000, subscribed_topic_names=[T],
            topic_partitions=[]).ignore('member_id', why='Kafka leaves it out where a group is of another kind')),
    row('share_group_describe', topic(partitions=2), ready(), joined(2),
        ask('share_group_describe', 1, group_ids=[G, '{u}nix'], include_authorized_operations=False).ignore(
            'group_epoch', 'assignment_epoch', 'member_epoch', 'client_host', why='how often it was looked at; the address, written otherwise')),
]

one, two, three, four, five, six, seven, eight = (Session(str(i)) for i in range(8))
LATE = 'a real Kafka writes where it begins with the next acknowledgement'
NOTHING = {'wait': 0, 'most': 0, 'min_bytes': 0, 'max_bytes': 0}
RECORDS = [
    row('share_fetch: records are acquired and said to be done with', topic(), ready(), EARLIEST, joined(), produced(6), one.begins(),
        one.fetch(acks={0: [(0, 1, [ACCEPT])]}, wait=0), one.fetch(acks={0: [(2, 4, [ACCEPT, REJECT, ACCEPT])]}, wait=0), until_lag(1), offsets().differs(LATE, start_offset=5),
        one.acknowledge({0: [(5, 5, [ACCEPT])]}), until_lag(0), offsets().differs(LATE, start_offset=6)),
    row('share_fetch: what is released comes again', topic(), ready(), EARLIEST, joined(), produced(3), two.begins(),
        two.fetch(acks={0: [(0, 0, [ACCEPT]), (1, 1, [RELEASE]), (2, 2, [ACCEPT])]}, wait=500), two.acknowledge({0: [(1, 1, [ACCEPT])]})),
    row('share_acknowledge: what is wrong', topic(), ready(), EARLIEST, joined(), produced(4), three.begins(),
        three.acknowledge({0: [(0, 9, [ACCEPT])]}), three.acknowledge({0: [(0, 1, [ACCEPT]), (1, 2, [ACCEPT])]}), three.acknowledge({0: [(0, 1, [9])]}),
        three.acknowledge({0: [(0, 1, [ACCEPT, ACCEPT, ACCEPT])]}), three.acknowledge({0: [(3, 2, [ACCEPT])]}), three.acknowledge({0: [(0, 0, [RENEW])]}),
        three.acknowledge({7: [(0, 0, [ACCEPT])]})),
    row('share_fetch: sessions', topic(), ready(), EARLIEST, joined(), fetched(3), fetched(-1), fetched(-2), fetched(0, partitions=(0,), wait=0), fetched(7, wait=0),
        fetched(1, wait=0), fetched(0, acks={0: [(0, 0, [ACCEPT])]}, wait=0), fetched(2, wait=0), fetched(-1), fetched(3, wait=0)),
    row('share_acknowledge: sessions', topic(), ready(), EARLIEST, joined(), produced(1),
        ask('share_acknowledge', 1, group_id=G, member_id='m', share_session_epoch=1, topics=[]),
        ask('share_acknowledge', 1, group_id=G, member_id='m', share_session_epoch=0, topics=[]), four.begins(),
        four.acknowledge({0: [(0, 0, [ACCEPT])]}, epoch=-1), four.acknowledge({0: [(0, 0, [ACCEPT])]}, epoch=-1)),
    row('share_fetch: locks of another length', topic(), ready(), EARLIEST, sets(('share.record.lock.duration.ms', '15000')),
        is_set('share.record.lock.duration.ms', '15000'), joined(), produced(1), five.begins(), five.fetch(acks={0: [(0, 0, [ACCEPT])]}, wait=0)),
    row('share_fetch v2: renewals', topic(), ready(), EARLIEST, joined(), produced(1), six.begins(),
        six.fetch(2, acks={0: [(0, 0, [RENEW])]}, is_renew_ack=True, **NOTHING), six.acknowledge({0: [(0, 0, [RENEW])]}, 2, is_renew_ack=True),
        six.acknowledge({0: [(0, 0, [RENEW])]}, 2), six.acknowledge({0: [(0, 0, [ACCEPT])]}, 2, is_renew_ack=True)),
    *[row('share_fetch v2: a renewal that fetches, too: %s' % name, topic(), ready(), EARLIEST, joined(), produced(1), eight.begins(),
          eight.fetch(2, acks={0: [(0, 0, [RENEW])]}, is_renew_ack=True, **dict(NOTHING, **more)))
      for name, more in (('time', {'wait': 5}), ('bytes', {'max_bytes': 10}), ('least', {'min_bytes': 1}), ('records', {'most': 5}))],
    row('share_fetch: renewals that are not allowed', topic(), ready(), EARLIEST, sets(('share.renew.acknowledge.enable', 'false')),
        is_set('share.renew.acknowledge.enable', 'false'), joined(), produced(1), seven.begins(),
        seven.fetch(2, acks={0: [(0, 0, [RENEW])]}, is_renew_ack=True, **NOTHING)),
]

OFFSETS = [
    *[row('describe_share_group_offsets v%d of a group that is none' % v, topic(), ready(), offsets(version=v), offsets((T, (0,)), version=v),
          offsets(version=v, group='')) for v in (0, 1)],
    row('describe_share_group_offsets of what nothing was read of yet', topic(partitions=2), topic('{u}u'), ready(), joined(2), offsets(),
        offsets((T, (0, 1))), offsets(('{u}u', (0,))), offsets(('{u}nix', (0,)))),
    row('alter_share_group_offsets', topic(partitions=2), topic('{u}u'), ready(), joined(2), moved((T, ((0, 5),))), left(),
        moved((T, ((0, 5), (1, 0), (9, 0)))), moved(('{u}nix', ((0, 0),))), moved(('{u}u', ((0, 100),))), offsets((T, (0, 1))), offsets(('{u}u', (0,))),
        moved()),
    row('alter_share_group_offsets of a group that is none', topic(), ready(), moved((T, ((0, 3),))), offsets(),
        ask('share_group_describe', 1, group_ids=[G], include_authorized_operations=False).ignore('group_epoch', 'assignment_epoch', why='counted otherwise'),
        moved((T, ((0, 3),)), group='')),
    row('delete_share_group_offsets', topic(), topic('{u}u'), ready(), joined(), forgotten(T), left(), moved((T, ((0, 0),))),
        forgotten('{u}u'), forgotten('{u}nix'), offsets(), forgotten(T), forgotten(T), forgotten(), offsets(), forgotten(T, group=''),
        ask('delete_groups', 2, groups_names=[G]), offsets()),
]

ROWS = CONFIGS + MEMBERS + RECORDS + OFFSETS
