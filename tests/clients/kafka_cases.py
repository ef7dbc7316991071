"""The rows that kafka_rows.py plays: what a Kafka client may ask, and what a real Kafka answers.

Order in each block: what works in every version, then every way to go wrong."""

import struct

import kafka_cases_admin
import kafka_cases_groups
import kafka_cases_login
import kafka_cases_records
import kafka_cases_sessions
import kafka_cases_topics
import kafka_cases_share
import kafka_cases_txn
from kafka_rows import ask, closes, fetching, offsets_of, producing, raw, row, send, take, topic, topic_id, until
from kafka_wire import batch

T, G = '{u}t', '{u}g'
ONE = batch(['one'])
THREE = batch(['a', {'value': 'b', 'key': 'k', 'headers': [('h', b'x')], 'delta': 5}, {'value': None, 'key': 'dead', 'delta': 9}])
CONFIGS = 'the list of settings is the broker\'s own'
OTHER_ID = 'ab' * 16
NOT_ALL = 'Kafka\'s own list of what it speaks'


def frame(body):
    return struct.pack('>i', len(body)) + body


def metadata(version, *names, **more):
    return ask('metadata', version, topics=[{'name': n} for n in names], **more)


# ------------------------------------------------------------------------------------------------- connection, versions
CONNECTION = [
    *[row('api_versions v%d' % v, ask('api_versions', v, client_software_name='ktest', client_software_version='1.0')
          .ignore('api_keys', 'supported_features', 'finalized_features', 'finalized_features_epoch', why=NOT_ALL)) for v in range(5)],
    row('connection: a key that nobody knows', raw(frame(struct.pack('>hhih', 9999, 0, 1, -1))), closes()),
    row('connection: a version that is too high', raw(frame(struct.pack('>hhih', 3, 77, 1, -1) + b'\0\0')), closes()),
    row('connection: a version that is too low', raw(frame(struct.pack('>hhih', 1, 0, 1, -1) + bytes(16))), closes()),
    row('connection: a negative length', raw(struct.pack('>i', -5)), closes()),
    row('connection: a length of two gigabytes', raw(struct.pack('>i', 0x7fffffff)), closes()),
    row('connection: a request that ends within a field', raw(frame(struct.pack('>hhih', 3, 1, 1, -1) + struct.pack('>i', 5))), closes()),
    row('connection: an array of two thousand million', raw(frame(struct.pack('>hhihi', 3, 1, 1, -1, 0x7fffffff))), closes()),
    row('connection: no header', raw(frame(b'\0')), closes()),
]
CLIENT_NAMES = [
    row('api_versions v3 without a name of the client', ask('api_versions', 3)),
    row('api_versions v3 with a name that is not allowed', ask('api_versions', 3, client_software_name='a b', client_software_version='1')),
]
PIPELINES = [
    row('connection: many at once are answered in their order', topic(),
        [send('metadata', 1, topics=[{'name': T}]) if i % 2 else send('produce', 7, **producing(ONE)) for i in range(20)],
        [take() for _ in range(20)]),
    row('connection: acks 0 has no answer, what follows has', topic(), send('produce', 7, **producing(ONE, acks=0)),
        metadata(1, T), until(lambda a: a['topics'][0]['partitions'][0]['offset'] == 1, 'list_offsets', 1, **offsets_of(-1))),
]


def unknown_version(p):
    """ApiVersions in a version of the future is answered in version 0."""
    return frame(struct.pack('>hhih', 18, 99, 1, 1) + b'x\0\0\0\0')


def answer_0(p):
    p.wire().waiting.append((1, 'api_versions', 0))


CONNECTION.append(row('api_versions v99', raw(lambda p: (answer_0(p), unknown_version(p))[1]),
                      take().ignore('api_keys', why='Kafka names all its keys, the reference only wants that of ApiVersions')))

# ------------------------------------------------------------------------------------------------------------- topics
BAD_NAMES = ['', '.', '..', 'a b', 'a/b', 'ä', 'x' * 250]
METADATA = [
    *[row('metadata v%d of a topic' % v, topic(partitions=2), metadata(v, T)) for v in range(14)],
    row('metadata v1 of no topics', metadata(1)),
    *[row('metadata v%d of an unknown topic' % v, metadata(v, T, allow_auto_topic_creation=False)) for v in (4, 9, 12)],
    *[row('metadata v12 of the name %r' % n[:8], metadata(12, n, allow_auto_topic_creation=False)) for n in BAD_NAMES],
    *[row('metadata v4 makes no topic of the name %r' % n[:8], metadata(4, n, allow_auto_topic_creation=True)) for n in BAD_NAMES[1:]],
    row('metadata v12 by id', topic(), ask('metadata', 12, name='again', topics=[{'name': None, 'topic_id': topic_id()}])),
    row('metadata v12 by an unknown id', ask('metadata', 12, topics=[{'name': None, 'topic_id': OTHER_ID}])),
    row('metadata: the same topic twice', topic(), metadata(9, T, T)),
    row('metadata makes the topic', until(lambda a: a['topics'][0]['error_code'] == 0, 'metadata', 4, allow_auto_topic_creation=True,
                                          topics=[{'name': T}]), metadata(9, T)),
    row('metadata: operations that are allowed', topic(), metadata(9, T, include_topic_authorized_operations=True)
        .ignore('topic_authorized_operations', why='a bit of each operation that Kafka has'),
        ask('metadata', 8, topics=[], include_cluster_authorized_operations=True)
        .ignore('cluster_authorized_operations', why='a bit of each operation that Kafka has')),
    *[row('describe_cluster v%d' % v, ask('describe_cluster', v)) for v in range(3)],
]


def create(version, *topics, **more):
    return ask('create_topics', version, topics=list(topics), timeout_ms=10000, **more).ignore('configs', why=CONFIGS)


def gone():
    return until(lambda a: a['topics'][0]['error_code'] == 3, 'metadata', 12, name='gone', topics=[{'name': T}], allow_auto_topic_creation=False)


def one_topic(name=T, **more):
    return dict({'name': name, 'num_partitions': 1, 'replication_factor': 1}, **more)


def assigned(*partitions):
    return {'num_partitions': -1, 'replication_factor': -1, 'assignments': [
        {'partition_index': i, 'broker_ids': b} for i, b in partitions]}


def node(p):
    return p.asked['metadata']['brokers'][0]['node_id']


TOPICS = [
    *[row('create_topics v%d' % v, create(v, one_topic(num_partitions=3)),
          until(lambda a: a['topics'][0]['error_code'] == 0, 'metadata', 9, topics=[{'name': T}], allow_auto_topic_creation=False),
          metadata(9, T)) for v in range(2, 8)],
    row('create_topics: it is there', topic(), create(5, one_topic())),
    *[row('create_topics: the name %r' % n[:8], create(5, one_topic(n))) for n in BAD_NAMES],
    row('create_topics: the longest name', topic('{u}' + 'x' * 240)),
    *[row('create_topics: %d partitions' % n, create(5, one_topic(num_partitions=n))) for n in (0, -1, -2)],
    *[row('create_topics: %d copies' % n, create(5, one_topic(replication_factor=n))) for n in (0, -1, 3)],
    row('create_topics v3: no number of partitions', create(3, one_topic(num_partitions=-1, replication_factor=-1))),
    row('create_topics: only tried', create(5, one_topic(), validate_only=True), metadata(9, T, allow_auto_topic_creation=False)),
    row('create_topics: only tried, and it is there', topic(), create(5, one_topic(), validate_only=True)),
    row('create_topics: the same name twice', create(5, one_topic(), one_topic())),
    row('create_topics: two, one wrong', create(5, one_topic(), one_topic('{u}2', num_partitions=0))),
    row('create_topics: a setting that nobody knows', create(5, one_topic(configs=[{'name': 'no.such', 'value': '1'}]))),
    row('create_topics: a setting without a value', create(5, one_topic(configs=[{'name': 'retention.ms', 'value': None}]))),
    *[row('create_topics: %s=%s' % (k, v), create(5, one_topic(configs=[{'name': k, 'value': v}]))) for k, v in (
        ('retention.ms', 'soon'), ('retention.ms', '-2'), ('retention.ms', '-1'), ('retention.bytes', '1000000'),
        ('segment.bytes', '1'), ('cleanup.policy', 'compact'), ('cleanup.policy', 'compact,delete'), ('cleanup.policy', 'none'),
        ('compression.type', 'producer'), ('compression.type', 'best'), ('max.message.bytes', '2000'), ('min.insync.replicas', '1'))],
    row('create_topics: message.timestamp.type=LogAppendTime', create(5, one_topic(configs=[{'name': 'message.timestamp.type', 'value': 'LogAppendTime'}]))),
    row('create_topics: placed by hand', until(lambda a: True, 'metadata', 1, topics=[]),
        create(5, dict(one_topic(), **assigned((0, [node]), (1, [node]))))),
    row('create_topics: placed with a gap', until(lambda a: True, 'metadata', 1, topics=[]),
        create(5, dict(one_topic(), **assigned((0, [node]), (2, [node]))))),
    row('create_topics: placed on a broker that is not there', create(5, dict(one_topic(), **assigned((0, [77]))))),
    row('create_topics: none', create(5)),

    *[row('delete_topics v%d' % v, topic(), ask('delete_topics', v, topic_names=[T], timeout_ms=10000), gone()) for v in range(1, 6)],
    row('delete_topics v6 by name', topic(), ask('delete_topics', 6, topics=[{'name': T}], timeout_ms=10000)),
    row('delete_topics v6 by id', topic(), ask('delete_topics', 6, topics=[{'name': None, 'topic_id': topic_id()}], timeout_ms=10000), gone()),
    row('delete_topics: unknown', ask('delete_topics', 5, topic_names=[T], timeout_ms=10000)),
    row('delete_topics v6: unknown id', ask('delete_topics', 6, topics=[{'name': None, 'topic_id': OTHER_ID}], timeout_ms=10000)),
    row('delete_topics v6: name and id', topic(), ask('delete_topics', 6, topics=[{'name': T, 'topic_id': topic_id()}], timeout_ms=10000)),
    row('delete_topics: the same name twice', topic(), ask('delete_topics', 5, topic_names=[T, T], timeout_ms=10000)),
    row('a topic made again has another id', topic(), ask('delete_topics', 5, topic_names=[T], timeout_ms=10000),
        gone(), ask('metadata', 12, name='by id', topics=[{'name': None, 'topic_id': topic_id()}]), topic(), metadata(12, T)),

    *[row('create_partitions v%d' % v, topic(), ask('create_partitions', v, topics=[{'name': T, 'count': 4, 'assignments': None}], timeout_ms=10000),
          until(lambda a: len(a['topics'][0]['partitions']) == 4, 'metadata', 9, topics=[{'name': T}]), metadata(9, T)) for v in range(4)],
    *[row('create_partitions: from 2 to %d' % n, topic(partitions=2),
          ask('create_partitions', 2, topics=[{'name': T, 'count': n, 'assignments': None}], timeout_ms=10000)) for n in (2, 1, 0, -1)],
    row('create_partitions: unknown', ask('create_partitions', 2, topics=[{'name': T, 'count': 4, 'assignments': None}], timeout_ms=10000)),
    row('create_partitions: only tried', topic(),
        ask('create_partitions', 2, topics=[{'name': T, 'count': 4, 'assignments': None}], timeout_ms=10000, validate_only=True), metadata(9, T)),
    row('create_partitions: a topic twice', topic(),
        ask('create_partitions', 2, topics=[{'name': T, 'count': n, 'assignments': None} for n in (4, 5)], timeout_ms=10000)),
]

# ----------------------------------------------------------------------------------------------------------- settings
SOME = ['retention.ms', 'retention.bytes', 'cleanup.policy', 'segment.bytes', 'max.message.bytes', 'compression.type', 'min.insync.replicas',
        'message.timestamp.type']


def describe(version, *keys, name=T, kind=2, **more):
    return ask('describe_configs', version, resources=[{'resource_type': kind, 'resource_name': name,
                                                        'configuration_keys': list(keys) or None}], **more)


def change(*ops, name=T, kind=2, version=1, **more):
    return ask('incremental_alter_configs', version, resources=[{'resource_type': kind, 'resource_name': name, 'configs': [
        {'name': k, 'config_operation': op, 'value': v} for k, op, v in ops]}], **more)


SET, DELETE, APPEND, SUBTRACT = range(4)
SETTINGS = [
    *[row('describe_configs v%d: some' % v, topic(configs=[('retention.ms', '60000'), ('cleanup.policy', 'compact')]),
          describe(v, *SOME).ignore('documentation', why='words for people')) for v in range(1, 5)],
    row('describe_configs: synonyms', topic(configs=[('retention.ms', '60000')]), describe(3, 'retention.ms', include_synonyms=True)),
    row('describe_configs: a key that nobody knows', topic(), describe(3, 'no.such')),
    row('describe_configs: no keys', topic(), ask('describe_configs', 3, resources=[
        {'resource_type': 2, 'resource_name': T, 'configuration_keys': []}]).ignore('configs', why=CONFIGS)),
    row('describe_configs: an unknown topic', describe(3, 'retention.ms')),
    row('describe_configs: a broker', until(lambda a: True, 'metadata', 1, topics=[]), describe(
        3, 'default.replication.factor', 'num.partitions', name=lambda p: str(node(p)), kind=4)),
    row('describe_configs: a broker that is not there', describe(3, 'num.partitions', name='77', kind=4)),
    row('describe_configs: a broker without a number', describe(3, 'num.partitions', name='x', kind=4)),
    row('describe_configs: of an unknown kind', describe(3, 'num.partitions', name='x', kind=99)),
    row('incremental_alter_configs: set, then delete', topic(), change(('retention.ms', SET, '120000')),
        until(lambda a: a['results'][0]['configs'][0]['value'] == '120000', 'describe_configs', 3, resources=[
            {'resource_type': 2, 'resource_name': T, 'configuration_keys': ['retention.ms']}]),
        describe(3, 'retention.ms'), change(('retention.ms', DELETE, None)),
        until(lambda a: a['results'][0]['configs'][0]['value'] == '604800000', 'describe_configs', 3, resources=[
            {'resource_type': 2, 'resource_name': T, 'configuration_keys': ['retention.ms']}]), describe(3, 'retention.ms')),
    row('incremental_alter_configs: append and subtract', topic(), change(('cleanup.policy', APPEND, 'compact')),
        until(lambda a: a['results'][0]['configs'][0]['value'] != 'delete', 'describe_configs', 3, resources=[
            {'resource_type': 2, 'resource_name': T, 'configuration_keys': ['cleanup.policy']}]),
        describe(3, 'cleanup.policy'), change(('cleanup.policy', SUBTRACT, 'delete')),
        until(lambda a: a['results'][0]['configs'][0]['value'] == 'compact', 'describe_configs', 3, resources=[
            {'resource_type': 2, 'resource_name': T, 'configuration_keys': ['cleanup.policy']}]), describe(3, 'cleanup.policy')),
    row('incremental_alter_configs: append to a number', topic(), change(('retention.ms', APPEND, '1'))),
    row('incremental_alter_configs: only tried', topic(), change(('retention.ms', SET, '120000'), validate_only=True), describe(3, 'retention.ms')),
    *[row('incremental_alter_configs: %s=%s' % (k, v), topic(), change((k, SET, v))) for k, v in (
        ('no.such', '1'), ('retention.ms', 'soon'), ('retention.ms', '-2'), ('retention.ms', None), ('cleanup.policy', 'none'))],
    row('incremental_alter_configs: an unknown topic', change(('retention.ms', SET, '1'))),
    row('incremental_alter_configs: a key twice', topic(), change(('retention.ms', SET, '1000'), ('retention.ms', SET, '2000'))),
    row('incremental_alter_configs: an unknown operation', topic(), change(('retention.ms', 9, '1000'))),
    *[row('alter_configs v%d' % v, topic(configs=[('retention.bytes', '1000000')]), ask('alter_configs', v, resources=[
        {'resource_type': 2, 'resource_name': T, 'configs': [{'name': 'retention.ms', 'value': '120000'}]}]),
        until(lambda a: a['results'][0]['configs'][0]['value'] == '120000', 'describe_configs', 3, resources=[
            {'resource_type': 2, 'resource_name': T, 'configuration_keys': ['retention.ms']}]),
        describe(3, 'retention.ms', 'retention.bytes')) for v in range(3)],
]

ROWS = CONNECTION + CLIENT_NAMES + PIPELINES + METADATA + TOPICS + SETTINGS + kafka_cases_records.ROWS + kafka_cases_sessions.ROWS + kafka_cases_topics.ROWS + kafka_cases_groups.ROWS + kafka_cases_txn.ROWS + kafka_cases_share.ROWS + kafka_cases_admin.ROWS + kafka_cases_login.ROWS
