"""Rows of kafka_rows.py: producing, numbered batches, fetching, offsets."""

import struct

from kafka_rows import ask, fetching, offsets_of, producing, row, send, take, topic, topic_id, until
from kafka_wire import batch, batches

T = '{u}t'
ONE = batch(['one'])
THREE = batch(['a', {'value': 'b', 'key': 'k', 'headers': [('h', b'x')], 'delta': 5}, {'value': None, 'key': 'dead', 'delta': 9}])
NO_UUID, OTHER_ID = '0' * 32, 'ab' * 16
TEXTS = 'the words for each record are people\'s'


def put(data, version=9, name=T, **more):
    return ask('produce', version, **producing(data, name, **more))


def put_id(version, data, **more):
    fields = producing(data, **more)
    fields['topic_data'][0] = {'topic_id': topic_id(), 'partition_data': fields['topic_data'][0]['partition_data']}
    return ask('produce', version, **fields)


def whole_answer(a):
    """Whether the one partition's records reach its high watermark: what is confirmed may be fetched a moment later."""
    part = a['responses'][0]['partitions'][0]
    read = batches(part['records'])
    return not read or read[-1]['base'] + read[-1]['last_delta'] + 1 >= part['high_watermark']


def get(offset, version=12, **more):
    """A fetch; with limits of bytes as it is, else again until all is there."""
    step = ask('fetch', version, **fetching(offset, **more))
    if 'most' in more or 'max_bytes' in more:
        return step
    once = step.play

    def play(p):
        answer = once(p)
        while not whole_answer(p.asked['fetch']):
            answer = once(p)
        return answer
    step.play = play
    return step


def get_id(version, offset, id_=None, **more):
    fields = fetching(offset, **more)
    fields['topics'][0] = {'topic_id': id_ or topic_id(), 'partitions': fields['topics'][0]['partitions']}
    return ask('fetch', version, **fields)


def at(timestamp, version=5, **more):
    return ask('list_offsets', version, **offsets_of(timestamp, **more))


def settled():
    """All that was confirmed may be fetched, and so be found by its time."""
    return get(0)


def whole(part, **changed):
    """A fetch with other fields in its one partition."""
    part['topics'][0]['partitions'][0].update(changed)
    return part


OLD_FORMAT = struct.pack('>qiIbb', 0, 22, 0, 1, 0) + struct.pack('>qi', 1700000000000, -1) + struct.pack('>i', 0)
PRODUCE = [
    *[row('produce v%d' % v, topic(), put(THREE, v), put(ONE, v), get(0)) for v in range(3, 13)],
    row('produce v13 by id', topic(), put_id(13, THREE), put_id(13, ONE), get(0)),
    row('produce v13 by an unknown id', topic(), ask('produce', 13, acks=-1, timeout_ms=1000, topic_data=[
        {'topic_id': OTHER_ID, 'partition_data': [{'index': 0, 'records': ONE}]}])),
    *[row('produce: acks %d' % a, topic(), put(ONE, acks=a)) for a in (1, 2, -2)],
    row('produce: an unknown topic', put(ONE)),
    row('produce: an unknown partition', topic(), put(ONE, partition=7)),
    row('produce: a negative partition', topic(), put(ONE, partition=-1)),
    row('produce: several partitions, one wrong', topic(partitions=2), ask('produce', 9, acks=-1, timeout_ms=1000, topic_data=[
        {'name': T, 'partition_data': [{'index': 0, 'records': ONE}, {'index': 1, 'records': THREE}, {'index': 2, 'records': ONE}]}])),
    row('produce: no topics', ask('produce', 9, acks=-1, timeout_ms=1000)),
    row('produce: no records', topic(), put(b'')),
    row('produce: a checksum that is wrong', topic(), put(batch(['x'], crc=1)), get(0)),
    row('produce: a count too high', topic(), put(batch(['x'], count=2))),
    row('produce: a count of none', topic(), put(batch([], count=0))),
    row('produce: two batches at once', topic(), put(ONE + ONE)),
    row('produce: a batch that is cut off', topic(), put(ONE[:-3])),
    row('produce: a batch and a half', topic(), put(ONE + ONE[:30]).differs(
        'bytes behind a batch are refused: dropping them unseen hides a fault of the client', error_code=87, base_offset=-1)
        .ignore('log_start_offset', why='beside an error')),
    row('produce: shorter than a header', topic(), put(ONE[:20])),
    row('produce: format 1', topic(), put(OLD_FORMAT, 3)),
    row('produce: format 7', topic(), put(batch(['x'], magic=7))),
    row('produce: a control batch', topic(), put(batch([{'key': b'\0\0\0\0', 'value': b'\0\0\0\0\0\0'}], attributes=0x20))),
    row('produce: a batch of a transaction that has not begun', topic(),
        put(batch(['x'], pid=9, epoch=0, sequence=0, attributes=0x10)).ignore('error_code', 'base_offset', 'log_start_offset',
                                                                           why='transactions are a later step')),
    row('produce: base offset is not looked at', topic(), put(batch(['x'], base=77)), get(0)),
    row('produce: a time in the future', topic(), put(batch(['x'], timestamp=32503680000000))
        .ignore('batch_index_error_message', why=TEXTS)),
    row('produce: a negative time', topic(), put(batch(['x'], timestamp=-1)), put(batch(['x'], timestamp=-5))),
    row('produce: larger than the topic allows', topic(configs=[('max.message.bytes', '1000')]), put(batch(['x' * 1000])),
        put(batch(['x' * 100]))),
    row('produce: larger than the default allows', topic(), put(batch(['x' * 1100000]))),
    row('produce: gzip', topic(), put(batch(['x' * 100, 'y'], attributes=1)), get(0).ignore('crc', 'length', why='zlib may pack otherwise')),
    row('produce v3: zstd is too new', topic(), put(batch(['x'], attributes=4), 3)),
    row('produce: an unknown compression', topic(), put(batch(['x'], attributes=5)).differs('Kafka has no word for it', error_code=76)
        .ignore('log_start_offset', why='beside an error')),
    row('produce: a key is wanted in a compacted topic', topic(configs=[('cleanup.policy', 'compact')]),
        put(batch([{'key': 'k', 'value': '1'}, '2'])).ignore('batch_index_error_message', why=TEXTS), put(batch([{'key': 'k', 'value': '1'}]))),
]


def pid(version=4):
    return [until(lambda a: a['error_code'] == 0, 'init_producer_id', version, transactional_id=None, transaction_timeout_ms=60000)]


def numbered(sequence, *values, epoch=0, who=None, version=9):
    """A Produce of a numbered batch of the pid that was given out last, or of `who`."""
    def data(p):
        made = batch(list(values) or ['x'], pid=p.asked['init_producer_id']['producer_id'] if who is None else who, epoch=epoch, sequence=sequence)
        return made
    return ask('produce', version, **producing(data)).ignore('log_append_time_ms', why='of a batch that was seen before Kafka says its time')


SEQUENCE = [
    *[row('init_producer_id v%d' % v, until(lambda a: a['error_code'] == 0, 'init_producer_id', v, transactional_id=None,
                                            transaction_timeout_ms=60000),
          ask('init_producer_id', v, transactional_id=None, transaction_timeout_ms=60000)) for v in range(6)],
    row('init_producer_id v3: a new epoch of one that was given out', pid(), ask(
        'init_producer_id', 3, name='next', transactional_id=None, transaction_timeout_ms=60000, producer_epoch=0,
        producer_id=lambda p: p.asked['init_producer_id']['producer_id'])),
    row('init_producer_id: an empty name of a transaction', ask('init_producer_id', 4, transactional_id='', transaction_timeout_ms=60000)),
    row('sequence: in order, and seen again', topic(), pid(), numbered(0), numbered(1, 'a', 'b'), numbered(3), numbered(1, 'a', 'b'), numbered(0),
        numbered(3), at(-1)),
    row('sequence: begins not with 0', topic(), pid(), numbered(5), numbered(6)),
    row('sequence: a gap', topic(), pid(), numbered(0), numbered(2), numbered(1), at(-1)),
    row('sequence: overlaps one that was seen', topic(), pid(), numbered(0, 'a', 'b'), numbered(1, 'b', 'c'), numbered(0, 'a'), at(-1)),
    row('sequence: the fifth before the last is known, the sixth is not', topic(), pid(), [numbered(i) for i in range(6)],
        numbered(1), numbered(0), at(-1)),
    row('sequence: a new epoch begins with 0', topic(), pid(), numbered(0), numbered(1, epoch=1), numbered(0, epoch=1), numbered(1, epoch=1),
        numbered(1), numbered(0), at(-1)),
    row('sequence: a pid that nobody gave out', topic(), numbered(0, who=123456789), numbered(1, who=123456789)),
    row('sequence: partitions are apart', topic(partitions=2), pid(), numbered(0), ask('produce', 9, **producing(
        lambda p: batch(['x'], pid=p.asked['init_producer_id']['producer_id'], epoch=0, sequence=0), partition=1))),
    row('sequence: behind the largest number comes 0', topic(), pid(), numbered(0x7fffffff - 1, 'a', 'b'), numbered(0), at(-1)),
    row('sequence: a batch reaches over the largest number', topic(), pid(), numbered(0x7fffffff, 'a', 'b', 'c'), numbered(2),
        numbered(0x7fffffff, 'a', 'b', 'c'), at(-1)),
    row('sequence: -1 with a pid', topic(), pid(), numbered(-1)),
    row('sequence: many at once', topic(), pid(), [send('produce', 9, **producing(
        lambda p, i=i: batch(['x'], pid=p.asked['init_producer_id']['producer_id'], epoch=0, sequence=i))) for i in range(12)],
        [take() for _ in range(12)], at(-1)),
]

FETCH = [
    *[row('fetch v%d' % v, topic(), put(THREE), put(ONE), get(0, v), get(4, v)) for v in range(4, 13)],
    *[row('fetch v%d by id' % v, topic(), put(THREE), get_id(v, 0)) for v in range(13, 18)],
    row('fetch v13 by an unknown id', topic(), get_id(13, 0, OTHER_ID)),
    row('fetch v13 by no id', topic(), get_id(13, 0, NO_UUID)),
    row('fetch: from within a batch', topic(), put(THREE), put(ONE), get(1), get(2), get(3)),
    *[row('fetch: offset %d of 3' % o, topic(), put(THREE), get(o)) for o in (-1, 4, 1 << 40)],
    row('fetch: an unknown topic', get(0)),
    row('fetch: an unknown partition', topic(), get(0, partition=5)),
    row('fetch: an empty topic', topic(), get(0)),
    row('fetch: no topics', ask('fetch', 12, max_wait_ms=1, min_bytes=1, max_bytes=1000)),
    row('fetch: at least one batch', topic(), put(batch(['x' * 5000])), put(ONE), get(0, most=10), get(0, max_bytes=10)),
    row('fetch: as much as is asked for', topic(), [put(batch(['x' * 1000])) for _ in range(4)], get(0),
        get(0, most=2500).ignore('records', why='a batch that is cut off at the end is legal, and not sent by all')),
    row('fetch: nothing at all', topic(), put(ONE), get(0, most=0)),
    row('fetch: enough is there at once', topic(), put(ONE), get(0, max_wait_ms=60000, min_bytes=1)),
    row('fetch: none is wanted, so it does not wait', topic(), get(0, max_wait_ms=60000, min_bytes=0)),
    row('fetch: an error does not wait', topic(), get(5, max_wait_ms=60000)),
    row('fetch: waits for the next record', topic(), send('fetch', 12, conn='b', **fetching(0, max_wait_ms=60000)), put(ONE), take('b')),
    row('fetch: waits for enough bytes', topic(), send('fetch', 12, conn='b', **fetching(0, max_wait_ms=60000, min_bytes=2000)),
        put(batch(['x' * 1500])), put(batch(['x' * 1500])),
        take('b').ignore('high_watermark', 'last_stable_offset', why='when the second has come is not said')),
    row('fetch: in committed isolation', topic(), put(ONE), get(0, isolation_level=1)),
    row('fetch: two partitions', topic(partitions=2), put(ONE), put(THREE, partition=1), ask(
        'fetch', 12, max_wait_ms=5000, min_bytes=164, max_bytes=100000, topics=[{'topic': T, 'partitions': [
            {'partition': i, 'fetch_offset': 0, 'partition_max_bytes': 100000} for i in (0, 1)]}])),
    row('fetch: a partition that is wrong beside one that is right', topic(), put(ONE), get(0), ask(
        'fetch', 12, max_wait_ms=100, min_bytes=1, max_bytes=100000, topics=[{'topic': T, 'partitions': [
            {'partition': i, 'fetch_offset': 0, 'partition_max_bytes': 100000} for i in (0, 9)]}])),
    row('fetch: an epoch of the leader that was', topic(), put(ONE), ask('fetch', 12, **whole(fetching(0), current_leader_epoch=0))),
    row('fetch: an epoch of the leader that will be', topic(), put(ONE), ask('fetch', 12, **whole(fetching(0), current_leader_epoch=9))
        .ignore('leader_epoch', 'leader_id', 'node_endpoints', why='a hint')),
    row('fetch: a session that nobody knows', topic(), ask('fetch', 12, **fetching(0, session_id=12345, session_epoch=3))),
    row('fetch: a session is begun', topic(), put(ONE), ask('fetch', 12, **fetching(0, session_epoch=0))),
]

WHEN = [batch(['x'], timestamp=1700000000000 + 1000 * i) for i in (0, 5, 3, 9)]
OFFSETS = [
    *[row('list_offsets v%d' % v, topic(), put(WHEN[0]), put(WHEN[1]), settled(), at(-1, v), at(-2, v), at(1700000001000, v), at(1700000009000, v))
      for v in range(1, 11)],
    row('list_offsets: of an empty topic', topic(), at(-1), at(-2), at(0), at(-3, 7), at(-4, 8), at(-5, 9)),
    row('list_offsets: times that do not grow', topic(), [put(b) for b in WHEN], settled(),
        [at(1700000000000 + t) for t in (0, 1, 3000, 4000, 5000, 5001, 9000, 9001)], at(-3, 7)),
    row('list_offsets: within a batch', topic(), put(THREE), settled(), [at(1700000000000 + t) for t in (1, 5, 6, 9, 10)], at(-3, 7)),
    row('list_offsets: within a compressed batch', topic(), put(batch([{'value': 'v', 'delta': d} for d in (0, 7, 3)], attributes=1)), get(0).ignore('crc', 'length', why='zlib may pack otherwise'),
        [at(1700000000000 + t) for t in (1, 5, 8)], at(-3, 7)),
    row('list_offsets: earliest local, latest tiered', topic(), put(ONE), at(-4, 8), at(-5, 9)),
    row('list_offsets: a time that is no time', topic(), put(ONE), at(-77)),
    row('list_offsets: an unknown topic', at(-1)),
    row('list_offsets: an unknown partition', topic(), at(-1, partition=4)),
    row('list_offsets: an epoch that will be', topic(), ask(
        'list_offsets', 5, replica_id=-1, topics=[{'name': T, 'partitions': [
            {'partition_index': 0, 'timestamp': -1, 'current_leader_epoch': 9}]}])),
    *[row('offset_for_leader_epoch v%d' % v, topic(), put(THREE), ask('offset_for_leader_epoch', v, replica_id=-1, topics=[
        {'topic': T, 'partitions': [{'partition': 0, 'current_leader_epoch': -1, 'leader_epoch': 0}]}]))
      for v in (2, 3, 4)],
    *[row('offset_for_leader_epoch: %d of %d' % (e, c), topic(), put(THREE), ask('offset_for_leader_epoch', 4, replica_id=-1, topics=[
        {'topic': T, 'partitions': [{'partition': 0, 'current_leader_epoch': c, 'leader_epoch': e}]}])) for c, e in (
            (0, 0), (-1, 5), (9, 0), (-1, -1))],
    row('offset_for_leader_epoch: an unknown topic', ask('offset_for_leader_epoch', 4, replica_id=-1, topics=[
        {'topic': T, 'partitions': [{'partition': 0, 'current_leader_epoch': -1, 'leader_epoch': 0}]}])),
    *[row('delete_records v%d' % v, topic(), put(THREE), put(ONE), put(ONE), ask('delete_records', v, timeout_ms=5000, topics=[
        {'name': T, 'partitions': [{'partition_index': 0, 'offset': 4}]}]), at(-2), get(3), get(4)) for v in range(3)],
    row('delete_records: within a batch', topic(), put(THREE), ask('delete_records', 2, timeout_ms=5000, topics=[
        {'name': T, 'partitions': [{'partition_index': 0, 'offset': 2}]}]), at(-2), get(1), get(2)),
    *[row('delete_records: up to %d of 3' % o, topic(), put(THREE), ask('delete_records', 2, timeout_ms=5000, topics=[
        {'name': T, 'partitions': [{'partition_index': 0, 'offset': o}]}]), at(-2), at(-1), put(ONE)) for o in (-1, 0, 3, 4, -2)],
    row('delete_records: unknown', topic(), ask('delete_records', 2, timeout_ms=5000, topics=[
        {'name': T, 'partitions': [{'partition_index': 3, 'offset': 0}]}, {'name': '{u}no', 'partitions': [{'partition_index': 0, 'offset': 0}]}])),
]

ROWS = PRODUCE + SEQUENCE + FETCH + OFFSETS
