"""Rows of kafka_rows.py: what a topic makes of its batches, and what is said of settings that cannot be."""

import time

from kafka_rows import Step, ask, fetching, offsets_of, producing, row, topic, topic_id, until
from kafka_wire import batch, batches

T, SET = '{u}t', 0
ONE = batch(['one'])
LONG = batch(['x' * 300])
CLOCK = 'the broker\'s clock'
PACKED = 'libraries pack differently'


def put(data, conn='a', version=9, **more):
    return ask('produce', version, conn=conn, **producing(data, **more)).ignore('log_append_time_ms', why=CLOCK)


def put_by_id(data, conn='a'):
    fields = producing(data)
    fields['topic_data'][0] = {'topic_id': topic_id(), 'partition_data': fields['topic_data'][0]['partition_data']}
    return ask('produce', 13, conn=conn, **fields).ignore('log_append_time_ms', why=CLOCK)


def got(*left_out, offset=0, why=CLOCK):
    """All that is there, as soon as it is."""
    return [until(lambda a: a['responses'][0]['partitions'][0]['records'] and batches(a['responses'][0]['partitions'][0]['records'])[-1]['last_delta'] + batches(
        a['responses'][0]['partitions'][0]['records'])[-1]['base'] + 1 == a['responses'][0]['partitions'][0]['high_watermark'], 'fetch', 12, **fetching(offset)),
        ask('fetch', 12, **fetching(offset)).ignore(*left_out, why=why)]


def at(timestamp, version=5):
    return ask('list_offsets', version, **offsets_of(timestamp)).ignore('timestamp', why=CLOCK)


def stamped():
    """The time of the last Produce's answer is that of the last batch that was fetched, and is now."""
    def play(p):
        said = p.asked['produce']['responses'][0]['partition_responses'][0]['log_append_time_ms']
        last = batches(p.asked['fetch']['responses'][0]['partitions'][0]['records'])[-1]
        return [said == last['max_timestamp'], abs(time.time() * 1000 - said) < 60000, last['attributes'] & 8]
    return Step('the time that was stamped', play)


def said_time():
    return Step('whether a time is said', lambda p: p.asked['produce']['responses'][0]['partition_responses'][0]['log_append_time_ms'] > 0)


def words():
    """The words of an error, which these rows are about."""
    return Step('the words', lambda p: (p.asked['create_topics']['topics'][0]['error_message'] or '').replace(p.unique, ''))


def altered(name, value, conn='b'):
    """Set on another connection, and seen there."""
    return [ask('incremental_alter_configs', 1, conn=conn, resources=[{'resource_type': 2, 'resource_name': T, 'configs': [
        {'name': name, 'config_operation': SET, 'value': value}]}]),
        until(lambda a: a['results'][0]['configs'][0]['value'] == value, 'describe_configs', 3, conn=conn, resources=[
            {'resource_type': 2, 'resource_name': T, 'configuration_keys': [name]}])]


def making(name, value):
    return [ask('create_topics', 5, timeout_ms=10000, topics=[{'name': T, 'num_partitions': 1, 'replication_factor': 1, 'configs': [{'name': name, 'value': value}]}])
            .ignore('topic_config_error_code', why='of a topic that was not made'), words()]


APPEND_TIME = [('message.timestamp.type', 'LogAppendTime')]
STAMPED = ('max_timestamp', 'crc', 'timestamp')
TIMES = [
    *[row('append time: produce v%d' % v, topic(configs=APPEND_TIME), put(ONE, version=v), got(*STAMPED), stamped(), at(1), at(32503680000000)) for v in (3, 9, 12)],
    row('append time: by id', topic(configs=APPEND_TIME), put_by_id(ONE), got(*STAMPED), stamped()),
    row('append time: of compressed records', topic(configs=APPEND_TIME), put(batch(['a', 'b'], attributes=1)), got(*STAMPED, 'length'), stamped(), at(-3, 7)),
    row('append time: whatever the producer says', topic(configs=APPEND_TIME), *[put(batch(['x'], timestamp=t)) for t in (32503680000000, -1, 0)],
        got(*STAMPED), stamped()),
    row('append time: that the producer says itself', topic(configs=APPEND_TIME), put(batch(['x'], attributes=8)).ignore('error_message', 'record_errors', why='words for people')),
    row('append time: set, and set back', topic(), put(ONE), said_time(), altered('message.timestamp.type', 'LogAppendTime'), put(ONE), said_time(),
        altered('message.timestamp.type', 'CreateTime'), put(ONE), said_time(), got(*STAMPED, offset=2)),
    row('times: too old', topic(configs=[('message.timestamp.before.max.ms', '1000')]), put(batch(['x'], timestamp=1700000000000))
        .ignore('batch_index_error_message', why='words for people'), put(batch(['x'], timestamp=-1)),
        put(lambda p: batch(['x'], timestamp=int(time.time() * 1000)))),
    row('times: ahead by more than an hour', topic(configs=[('message.timestamp.after.max.ms', '9223372036854775807')]), put(batch(['x'], timestamp=32503680000000))),
    row('times: ahead by less than an hour', topic(configs=[('message.timestamp.after.max.ms', '1000')]),
        put(lambda p: batch(['x'], timestamp=int(time.time() * 1000) + 600000)).ignore('batch_index_error_message', why='words for people')),
]
ALTERED = [
    row('altered elsewhere: max.message.bytes', topic(), put(LONG), altered('max.message.bytes', '200'), put(LONG), put(ONE), altered('max.message.bytes', '2000'), put(LONG)),
    row('altered elsewhere: max.message.bytes, by id', topic(), put_by_id(LONG), altered('max.message.bytes', '200'), put_by_id(LONG), put_by_id(ONE)),
    row('altered elsewhere: cleanup.policy', topic(), put(ONE), altered('cleanup.policy', 'compact'), put(ONE).ignore('batch_index_error_message', why='words for people'),
        put_by_id(ONE).ignore('batch_index_error_message', why='words for people')),
    row('altered elsewhere: message.timestamp.after.max.ms', topic(), put(batch(['x'], timestamp=32503680000000)).ignore('batch_index_error_message', why='words for people'),
        altered('message.timestamp.after.max.ms', '9223372036854775807'), put(batch(['x'], timestamp=32503680000000))),
    row('produce by id: larger than the topic allows', topic(configs=[('max.message.bytes', '200')]), put_by_id(LONG), put_by_id(ONE)),
]
COMPRESSED = [
    *[row('compression.type=%s' % c, topic(configs=[('compression.type', c)]), put(LONG), put(batch(['x' * 300], attributes=1)), put(batch(['a', 'b'], attributes=0x0)),
          got('crc', 'length', why=PACKED)) for c in ('gzip', 'snappy', 'lz4', 'zstd', 'producer')],
    row('compression.type=uncompressed', topic(configs=[('compression.type', 'uncompressed')]), put(LONG), put(batch(['x' * 300, {'key': 'k', 'value': None}], attributes=1)), got()),
    row('compression.type: larger than the topic allows only before', topic(configs=[('compression.type', 'gzip'), ('max.message.bytes', '200')]), put(LONG)),
    row('compression.type: larger than the topic allows only afterwards', topic(configs=[('compression.type', 'uncompressed'), ('max.message.bytes', '200')]),
        put(batch(['x' * 300], attributes=1))),
    row('compression.type: numbered batches', topic(configs=[('compression.type', 'gzip')]), put(batch(['a'], pid=77, epoch=0, sequence=0)), put(batch(['b'], pid=77, epoch=0, sequence=1)),
        put(batch(['b'], pid=77, epoch=0, sequence=1)), got('crc', 'length', why=PACKED)),
    row('compression.type and append time', topic(configs=[('compression.type', 'gzip'), *APPEND_TIME]), put(LONG), got(*STAMPED, 'length', why=PACKED), stamped()),
]
WORDS = [
    *[row('words: %s=%s' % (k, v), making(k, v)) for k, v in (
        ('no.such', '1'), ('retention.ms', 'soon'), ('retention.ms', '-2'), ('segment.bytes', '1'), ('cleanup.policy', 'none'), ('segment.jitter.ms', '-1'),
        ('compression.type', 'best'), ('message.timestamp.type', 'Now'), ('min.insync.replicas', '0'), ('max.message.bytes', '-1'), ('preallocate', 'perhaps'),
        ('min.cleanable.dirty.ratio', '1.5'), ('min.cleanable.dirty.ratio', '-0.5'), ('min.cleanable.dirty.ratio', 'x'), ('segment.ms', '0'), ('retention.ms', ''), ('compression.gzip.level', '0'), ('compression.gzip.level', '10'), ('compression.lz4.level', '18'))],
]
EPOCHS = [
    row('a topic made again: by its former id', topic(), put(ONE), ask('delete_topics', 5, topic_names=[T], timeout_ms=10000),
        until(lambda a: a['topics'][0]['error_code'] == 3, 'metadata', 9, name='gone', topics=[{'name': T}], allow_auto_topic_creation=False),
        until(lambda a: a['topics'][0]['error_code'] == 100, 'metadata', 12, name='gone', topics=[{'name': None, 'topic_id': topic_id()}]),
        Step('the id is kept', lambda p: p.asked.update(old=p.asked['metadata'])), topic(),
        ask('metadata', 12, name='by id', topics=[{'name': None, 'topic_id': lambda p: p.asked['old']['topics'][0]['topic_id']}]),
        ask('produce', 13, acks=-1, timeout_ms=1000, topic_data=[{'topic_id': lambda p: p.asked['old']['topics'][0]['topic_id'], 'partition_data': [
            {'index': 0, 'records': ONE}]}])),
    *[row('list_offsets: %d in v%d' % (t, v), topic(), put(ONE), put(ONE), got('crc'), ask('list_offsets', v, **offsets_of(t)))
      for t, v in ((-3, 6), (-4, 7), (-5, 8), (-6, 11), (-6, 10), (-7, 11))],
    row('offset_for_leader_epoch: after delete_records', topic(), put(ONE), put(ONE), put(ONE), ask('delete_records', 2, timeout_ms=5000, topics=[
        {'name': T, 'partitions': [{'partition_index': 0, 'offset': 3}]}]), *[ask('offset_for_leader_epoch', 4, replica_id=-1, topics=[
            {'topic': T, 'partitions': [{'partition': 0, 'current_leader_epoch': -1, 'leader_epoch': e}]}]) for e in (0, 1)], at(-2), at(-1), at(0)),
]

ROWS = TIMES + ALTERED + COMPRESSED + WORDS + EPOCHS
