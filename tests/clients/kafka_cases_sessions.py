"""Rows of kafka_rows.py: fetch sessions (KIP-227)."""

from kafka_rows import Step, ask, producing, row, send, take, topic, topic_id
from kafka_wire import batch

T = '{u}t'
ONE = batch(['one'])
OURS = 'a session belongs to the connection that began it'
UNKNOWN = 'an id that is gone is unknown; Kafka goes on with the name that it had'
QUICK = {'max_wait_ms': 50}    # where nothing is to come


def put(partition=0, name=T):
    return ask('produce', 9, **producing(ONE, name, partition))


def fields(epoch, parts, forget, version, named, more):
    """(partition, offset) of the topic; the session is the one of the last step that was named `session`."""
    def entry(extra):
        return dict({'topic_id': topic_id()} if version >= 13 else {'topic': named}, **extra)

    def session(p):
        return p.asked['session']['session_id'] if epoch and 'session' in p.asked else 0
    return dict({'max_wait_ms': 1000, 'min_bytes': 1, 'max_bytes': 1 << 20, 'session_id': session, 'session_epoch': epoch, 'topics': [
        entry({'partitions': [{'partition': n, 'fetch_offset': offset, 'partition_max_bytes': 1 << 20} for n, offset in parts]})] if parts else [],
        'forgotten_topics_data': [entry({'partitions': list(forget)})] if forget else []}, **more)


def get(epoch, *parts, forget=(), version=12, conn='a', name=None, named=T, **more):
    return ask('fetch', version, conn=conn, name=name or ('session' if epoch == 0 else None), **fields(epoch, parts, forget, version, named, more))


def begun(epoch, *parts, version=12, **more):
    return send('fetch', version, **fields(epoch, parts, (), version, T, more))


def kept(name='fetch'):
    """Whether the last answer names the session."""
    def play(p):
        return p.asked[name]['session_id'] == p.asked['session']['session_id'] != 0
    return Step('the answer names the session', play)


def is_one():
    return Step('the answer names a session', lambda p: p.asked['session']['session_id'] > 0)


ROWS = [
    *[row('fetch session v%d' % v, topic(partitions=3), put(0), get(0, (0, 0), (1, 0), (2, 0), version=v), is_one(),
          get(1, (0, 1), version=v, **QUICK), kept(), put(1), get(2, version=v), kept(), get(3, (1, 1), version=v, **QUICK), put(0), put(2),
          get(4, version=v, min_bytes=2 * len(ONE)), kept()) for v in (7, 9, 11, 12, 13, 15, 17)],
    row('fetch session: what was not asked for anew is answered again', topic(), put(), get(0, (0, 0)), get(1), get(2), kept()),
    row('fetch session: an epoch that is not the next', topic(), put(), get(0, (0, 0)), get(2, (0, 1), **QUICK), get(3, **QUICK), get(1, (0, 1), **QUICK), kept(),
        get(1, **QUICK), get(2, **QUICK), kept()),
    row('fetch session: forgotten, and asked for again', topic(partitions=2), get(0, (0, 0), (1, 0), **QUICK), put(1), get(1, forget=[1], **QUICK), kept(),
        get(2, (1, 0)), kept()),
    row('fetch session: forgotten before it was asked for', topic(partitions=2), get(0, (0, 0), **QUICK), put(1), get(1, (1, 0), forget=[1, 7], **QUICK), kept()),
    row('fetch session: all are forgotten', topic(partitions=2), get(0, (0, 0), (1, 0), **QUICK), get(1, forget=[0, 1], **QUICK), kept(), get(2, **QUICK)),
    row('fetch session: closed', topic(), put(), get(0, (0, 0)), get(-1, (0, 0)), kept(), get(1, **QUICK), get(0, (0, 0)), is_one()),
    row('fetch session: another is begun in its place', topic(), put(), get(0, (0, 0)), get(
        0, (0, 0), name='fetch', session_id=lambda p: p.asked['session']['session_id']), kept(), get(1, **QUICK)),
    row('fetch session: of nothing', get(0, **QUICK), is_one(), get(1, **QUICK), kept()),
    row('fetch session: of nothing, then of something', topic(), put(), get(0, **QUICK), is_one(), get(1, (0, 0)), kept(), get(2, (0, 1), **QUICK)),
    row('fetch session: one that nobody has', get(1, **QUICK), get(1, session_id=0x12345678, **QUICK), get(-1, session_id=0x12345678, **QUICK), get(-2, **QUICK)),
    row('fetch session: an epoch below all', topic(), get(0, (0, 0), **QUICK), get(-2, **QUICK), get(1, **QUICK), kept()),
    row('fetch session: an unknown partition is told of each time', topic(), put(), get(0, (0, 0), (5, 0)), get(1, (0, 1)), get(2, **QUICK), kept()),
    row('fetch session: out of range', topic(), put(), get(0, (0, 9)), get(1), get(2, (0, 1), **QUICK), get(3, **QUICK), kept()),
    row('fetch session: by its name a topic that is made later', get(0, (0, 0), **QUICK), is_one(), get(1, **QUICK), topic(), put(), get(2, **QUICK), kept()),
    row('fetch session: by its name a topic that goes and is made again', topic(), put(), get(0, (0, 0)), get(1, (0, 1), **QUICK),
        ask('delete_topics', 4, timeout_ms=5000, topic_names=[T]), get(2, **QUICK), topic(), put(), get(3, (0, 0)), kept()),
    row('fetch session: by its id a topic that goes and is made again', topic(), put(), get(0, (0, 0), version=13), get(1, (0, 1), version=13, **QUICK),
        ask('delete_topics', 4, timeout_ms=5000, topic_names=[T]), get(2, version=13, **QUICK).ignore('error_code', 'aborted_transactions', why=UNKNOWN), kept(), topic(),
        put(), get(3, version=13, **QUICK).ignore('error_code', 'aborted_transactions', why=UNKNOWN), kept()),
    row('fetch session: by names, then by ids', topic(), put(), get(0, (0, 0)), get(1, (0, 1), version=13, **QUICK), get(1, (0, 1), **QUICK), kept()),
    row('fetch session: by ids, then by names', topic(), put(), get(0, (0, 0), version=13), get(1, (0, 1), **QUICK)),
    row('fetch session: the start of a partition is news', topic(partitions=2), put(0), put(0),
        get(0, (0, 0), (1, 0), min_bytes=2 * len(ONE)), get(1, (0, 2), **QUICK), ask(
        'delete_records', 2, timeout_ms=5000, topics=[{'name': T, 'partitions': [{'partition_index': 0, 'offset': 1}]}]), get(2, **QUICK), get(3, **QUICK), kept()),
    row('fetch session: a record elsewhere wakes it', topic(partitions=3), get(0, (0, 0), (1, 0), (2, 0), **QUICK), begun(1, max_wait_ms=60000),
        ask('produce', 9, conn='b', **producing(ONE, T, 2)), take(), kept()),
    row('fetch session: the next comes before the answer', topic(), get(0, (0, 0), **QUICK), begun(1, max_wait_ms=2000), begun(2, **QUICK), take(name='first'), take(), kept()),
    row('fetch session: on another connection', topic(), put(), get(0, (0, 0)), get(1, (0, 1), conn='b', **QUICK).differs(OURS, error_code=70, session_id=0)),
    row('fetch session: in committed isolation, then not', topic(), put(), get(0, (0, 0), isolation_level=1), get(1, (0, 1), isolation_level=1, **QUICK), put(),
        get(2, isolation_level=1), get(3, (0, 2), **QUICK), put(), get(4), kept()),
    row('fetch session: none is wanted, so it does not wait', topic(), get(0, (0, 0), **QUICK), get(1, max_wait_ms=60000, min_bytes=0), kept()),
]
