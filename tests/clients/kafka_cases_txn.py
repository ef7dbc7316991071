"""Rows of kafka_rows.py: transactions as clients before Kafka 4 speak them (partitions are added before they are written to)."""

from kafka_cases_groups import ALONE, generation, me, ready
from kafka_cases_records import at, put
from kafka_rows import Step, ask, fetching, producing, row, topic, until
from kafka_wire import batch, batches

T, G, X = '{u}t', '{u}g', '{u}x'
BUSY = (14, 15, 16, 51)     # a coordinator that is being loaded, a transaction that is being completed


def who(conn='a'):
    """The producer's number and epoch, as they were given out last on this connection."""
    return {'producer_id': lambda p: p.asked['init ' + conn]['producer_id'], 'producer_epoch': lambda p: p.asked['init ' + conn]['producer_epoch']}


def patient(api, version, conn='a', name=None, **fields):
    """Asks until the broker is not busy, then the answer is compared."""
    step = ask(api, version, conn, name, **fields)
    once = step.play

    def code(answer):
        if 'results_by_topic_v3_and_below' in answer:
            return max(q['partition_error_code'] for t in answer['results_by_topic_v3_and_below'] for q in t['results_by_partition'])
        if 'topics' in answer:
            return max(q['error_code'] for t in answer['topics'] for q in t['partitions'])
        return answer['error_code']

    def play(p):
        answer = once(p)
        while code(answer) in BUSY:
            answer = once(p)
        return answer
    step.play = play
    return step


def init(version=4, conn='a', timeout=60000, **more):
    return [until(lambda a: a['error_code'] == 0, 'find_coordinator', 3, key=X, key_type=1),
            patient('init_producer_id', version, conn, 'init ' + conn, transactional_id=X, transaction_timeout_ms=timeout, **more)]


def add(version=3, conn='a', partitions=(0,), name=T, **more):
    w = who(conn)
    return patient('add_partitions_to_txn', version, conn, **dict({
        'v3_and_below_transactional_id': X, 'v3_and_below_producer_id': w['producer_id'], 'v3_and_below_producer_epoch': w['producer_epoch'],
        'v3_and_below_topics': [{'name': name, 'partitions': list(partitions)}]}, **more))


def write(sequence, *values, conn='a', partition=0, attributes=0x10, **more):
    def data(p):
        w = dict({k: f(p) for k, f in who(conn).items()}, **more)
        return batch(list(values) or ['x'], pid=w['producer_id'], epoch=w['producer_epoch'], sequence=sequence, attributes=attributes)
    fields = dict(producing(data, partition=partition), transactional_id=X)
    return ask('produce', 9, conn, **fields)


def end(committed=True, version=3, conn='a', **more):
    return patient('end_txn', version, conn, **dict({'transactional_id': X, 'committed': committed}, **dict(who(conn), **more)))


def read(isolation, offset=0, partition=0, upto=None):
    """What a reader gets below upto, in as many fetches as it takes: a broker may answer each with as little as one batch."""
    def play(p):
        at, records, aborted, part = offset, [], [], None
        for _ in range(1000):
            answer = p.wire('a').call('fetch', 12, **p.fill(fetching(at, partition=partition, isolation_level=isolation)))
            part = answer['responses'][0]['partitions'][0]
            records += [b for b in batches(part['records']) if b['base'] >= at]
            aborted += [t for t in part['aborted_transactions'] or [] if t not in aborted]
            at = ends(records, offset)
            if part['error_code'] or at >= upto:
                break
        return {'error_code': part['error_code'], 'read_up_to': at, 'high_watermark': part['high_watermark'], 'stable': part['last_stable_offset'],
                'aborted': [p.plain(t) for t in sorted(aborted, key=lambda t: t['first_offset'])],
                'records': [{k: b[k] for k in ('base', 'last_delta', 'attributes', 'epoch', 'sequence', 'count')} for b in records]}
    step = Step('read what is %s from %d up to %s' % ('committed' if isolation else 'there', offset, upto), play)
    return [stable(upto, partition), step] if isolation else step


def ends(records, offset):
    return records[-1]['base'] + records[-1]['last_delta'] + 1 if records else offset


def stable(upto, partition=0):
    """What committed readers see has come so far."""
    def there(answer):
        return answer['topics'][0]['partitions'][0]['offset'] >= upto
    return until(there, 'list_offsets', 4, replica_id=-1, isolation_level=1, topics=[
        {'name': T, 'partitions': [{'partition_index': partition, 'timestamp': -1}]}])


def offsets_in(version=3, conn='a', offset=5, **more):
    return patient('txn_offset_commit', version, conn, **dict({
        'transactional_id': X, 'group_id': G, 'topics': [{'name': T, 'partitions': [
            {'partition_index': 0, 'committed_offset': offset, 'committed_metadata': 'note'}]}]}, **dict(who(conn), **more)))


def add_group(version=3, conn='a', **more):
    return patient('add_offsets_to_txn', version, conn, **dict({'transactional_id': X, 'group_id': G}, **dict(who(conn), **more)))


def committed(stable_=False):
    return ask('offset_fetch', 7, group_id=G, require_stable=stable_, topics=[{'name': T, 'partition_indexes': [0]}])


INIT = [
    *[row('transaction: init_producer_id v%d' % v, init(v), init(v, conn='b')) for v in range(6)],
    row('transaction: a timeout too long', ask('init_producer_id', 4, transactional_id=X, transaction_timeout_ms=99999999)),
    row('transaction: a timeout of nothing', ask('init_producer_id', 4, transactional_id=X, transaction_timeout_ms=0)),
    row('transaction: the older producer is refused', topic(), init(), init(conn='b'), add(), add(conn='b'), write(0, conn='b'),
        end(), end(conn='b'), stable(2)),
    row('transaction: the older producer may not write', topic(), init(), add(), write(0), end(), stable(2), init(conn='b'), add(conn='b'),
        write(0, conn='b'), write(1)),
    row('transaction: a new producer ends what the older one began', topic(), init(), add(), write(0), init(conn='b')[0],
        init(conn='b')[1].differs('the epoch in which the older one\'s was aborted is the new one\'s', producer_epoch=1), stable(2), read(1, upto=2)),
    row('transaction: init_producer_id v3 resumes', init(), patient('init_producer_id', 3, name='again', transactional_id=X,
                                                                    transaction_timeout_ms=60000, **who())),
]

FLOW = [
    *[row('transaction: committed, add v%d' % v, topic(), init(), add(v), write(0), write(1, 'y', 'z'), end(True, v), stable(4), read(1, upto=4), read(0, upto=4))
      for v in range(4)],
    *[row('transaction: aborted, end v%d' % v, topic(), init(), add(), write(0), end(False, v), stable(2), put(batch(['plain'])), stable(3),
          read(1, upto=3), read(0, upto=3)) for v in range(5)],
    row('transaction: open', topic(), init(), add(), put(batch(['before'])), write(0), put(batch(['behind'])), read(1, upto=1), read(0, upto=3),
        at(-1), ask('list_offsets', 5, isolation_level=1, replica_id=-1, topics=[
            {'name': T, 'partitions': [{'partition_index': 0, 'timestamp': -1}]}])),
    row('transaction: two one after the other', topic(), init(), add(), write(0), end(), stable(2), add(), write(1), end(False), stable(4),
        add(), write(2), end(), stable(6), read(1, upto=6)),
    row('transaction: two partitions', topic(partitions=2), init(), add(partitions=(0, 1)), write(0), write(0, 'p', partition=1), end(), stable(2),
        stable(2, 1), read(1, upto=2), read(1, upto=2, partition=1)),
    row('transaction: two producers in one partition', topic(), init(), add(), write(0), put(batch(['plain'])), end(False), stable(3),
        read(1, upto=3), read(0, upto=3)),
    row('transaction: added and not written', topic(), init(), add(), end(), stable(1), at(-1)),
    row('transaction: ended without a beginning', topic(), init(), end(), end(False)),
    row('transaction: ended twice', topic(), init(), add(), write(0), end(), stable(2), end(), end(False)),
    row('transaction: written and not added', topic(), init(), write(0), at(-1)),
    row('transaction: written outside of it', topic(), init(), add(), write(0, attributes=0)),
    row('transaction: sequences go on', topic(), init(), add(), write(0), end(), stable(2), add(), write(5), write(1), end(), stable(4)),
    row('transaction: a duplicate', topic(), init(), add(), write(0), write(0).ignore('log_append_time_ms', why='see sequence'), end(), stable(2), at(-1)),
    row('transaction: add a topic that is not there', topic(), init(), add(name='{u}no')),
    row('transaction: add one that is there and one that is not', topic(), init(), add(partitions=(0, 7))),
    row('transaction: add with an id that was not given out', topic(), init(), add(v3_and_below_producer_id=987654)),
    row('transaction: add with a name that nobody has', topic(), init(), add(v3_and_below_transactional_id='{u}other')),
    row('transaction: add in an epoch that was not', topic(), init(), add(v3_and_below_producer_epoch=7)),
    row('transaction: end in an epoch that was not', topic(), init(), add(), end(producer_epoch=7)),
    row('transaction: end with an id that was not given out', topic(), init(), add(), end(producer_id=987654)),
    row('transaction: end with a name that nobody has', topic(), init(), end(transactional_id='{u}other')),
    row('transaction: its time is over', topic(), init(timeout=300), add(), write(0), stable(2), read(1, upto=2)),
]

GROUP = [
    *[row('transaction: offsets committed, v%d' % v, topic(), ready(), init(), add_group(min(v, 4)), offsets_in(v), committed(), end(),
          until(lambda a: a['topics'][0]['partitions'][0]['committed_offset'] == 5, 'offset_fetch', 5, group_id=G, topics=[
              {'name': T, 'partition_indexes': [0]}]), committed()) for v in range(5)],
    row('transaction: offsets of one that is aborted', topic(), ready(), init(), add_group(), offsets_in(), committed(True), end(False),
        until(lambda a: a['topics'][0]['partitions'][0]['error_code'] == 0, 'offset_fetch', 7, name='stable', group_id=G, require_stable=True,
              topics=[{'name': T, 'partition_indexes': [0]}]), committed()),
    row('transaction: offsets as a member', topic(), ALONE, init(), add_group(), offsets_in(
        generation_id_or_member_epoch=generation(), member_id=me()), offsets_in(generation_id_or_member_epoch=9, member_id=me()),
        offsets_in(generation_id_or_member_epoch=generation(), member_id='x'), end()),
    row('transaction: offsets of a partition that is not there', topic(), ready(), init(), add_group(), patient(
        'txn_offset_commit', 3, transactional_id=X, group_id=G, **who(), topics=[{'name': T, 'partitions': [
            {'partition_index': 9, 'committed_offset': 1, 'committed_metadata': None}]}])),
    row('transaction: the group in an epoch that was not', topic(), ready(), init(), add_group(producer_epoch=7)),
    row('transaction: a group without a name', init(), add_group(group_id='')),
]

STARTED = 'the time at which it was recorded'
LOOK = [
    row('describe_transactions: open', topic(), init(), add(), write(0), ask('describe_transactions', 0, transactional_ids=[X])
        .ignore('transaction_start_time_ms', why=STARTED)),
    row('describe_transactions: never begun', init(), ask('describe_transactions', 0, transactional_ids=[X])),
    row('describe_transactions: unknown', init(), ask('describe_transactions', 0, transactional_ids=['{u}other'])),
    *[row('list_transactions v%d: by state' % v, init(), until(
        lambda a: any(t['transactional_id'].endswith('x') for t in a['transaction_states']) and all(
            t['transaction_state'] == 'Empty' for t in a['transaction_states']), 'list_transactions', v, state_filters=['Empty'])) for v in range(3)],
    row('list_transactions: an unknown state', init(), until(lambda a: a['unknown_state_filters'] == ['Nonsense'], 'list_transactions', 0,
                                                             state_filters=['Nonsense'])),
]

ROWS = INIT + FLOW + GROUP + LOOK
