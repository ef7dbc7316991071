"""Rows of kafka_rows.py: consumer groups of the classic protocol, and their offsets."""

from kafka_rows import ask, row, send, take, topic, topic_id, until

T, G = '{u}t', '{u}g'
OTHER_ID = 'ab' * 16
AGAIN = (14, 15, 16)        # a coordinator that is only now being loaded


def ready(group=G):
    """A real Kafka makes its topic of offsets when the first client asks."""
    return [
        until(lambda a: a['error_code'] == 0, 'find_coordinator', 2, key=group, key_type=0),
        until(lambda a: a['groups'][0]['error_code'] not in AGAIN, 'offset_fetch', 8, groups=[{'group_id': group, 'topics': []}]),
    ]


def joining(member='', name='range', kind='consumer', metadata=b'm', **more):
    return dict({'group_id': G, 'session_timeout_ms': 30000, 'rebalance_timeout_ms': 30000, 'member_id': member, 'protocol_type': kind,
                 'protocols': [{'name': name, 'metadata': metadata}]}, **more)


def join(version=5, conn='a', **more):
    """Two steps where the version wants it; the member's id is then known under the name of the connection."""
    if version < 4 or more.get('group_instance_id') is not None:
        return [ask('join_group', version, conn, name='join ' + conn, **joining(**more))]
    return [ask('join_group', version, conn, name='first ' + conn, **joining(**more)),
            ask('join_group', version, conn, name='join ' + conn, **joining(lambda p: p.asked['first ' + conn]['member_id'], **more))]


def me(conn='a'):
    return lambda p: p.asked['join ' + conn]['member_id']


def generation(conn='a'):
    return lambda p: p.asked['join ' + conn]['generation_id']


def membership(conn='a'):
    return {'group_id': G, 'generation_id': generation(conn), 'member_id': me(conn)}


def syncing(conn='a', *assigned):
    return dict(membership(conn), protocol_type='consumer', protocol_name='range', assignments=[
        {'member_id': me(c), 'assignment': a} for c, a in assigned])


def sync(version=3, conn='a', *assigned, **more):
    fields = dict(syncing(conn, *assigned), **more)
    if version < 5:
        del fields['protocol_type'], fields['protocol_name']
    return ask('sync_group', version, conn, **fields)


def beat(version=3, conn='a', **more):
    return ask('heartbeat', version, conn, **dict(membership(conn), **more))


def leave(version=2, conn='a'):
    if version < 3:
        return ask('leave_group', version, conn, group_id=G, member_id=me(conn))
    return ask('leave_group', version, conn, group_id=G, members=[{'member_id': me(conn), 'group_instance_id': None}])


ALONE = [ready(), join(), sync(3, 'a', ('a', b'mine'))]


def commit(version=7, offset=5, name=T, partition=0, group=G, conn='a', **more):
    fields = {'group_id': group, 'generation_id_or_member_epoch': -1, 'member_id': '', 'topics': [
        {'name': name, 'partitions': [{'partition_index': partition, 'committed_offset': offset, 'committed_metadata': 'note'}]}]}
    return ask('offset_commit', version, conn, **dict(fields, **more))


def committed(version=5, name=T, partitions=(0,), group=G, **more):
    topics = None if name is None else [{'name': name, 'partition_indexes': list(partitions)}]
    if version < 8:
        return ask('offset_fetch', version, group_id=group, topics=topics, **more)
    return ask('offset_fetch', version, groups=[{'group_id': group, 'topics': topics}], **more)


FIND = [
    *[row('find_coordinator v%d' % v, ready(), ask('find_coordinator', v, key=G, key_type=0)) for v in range(4)],
    *[row('find_coordinator v%d of two' % v, ready(), ask('find_coordinator', v, coordinator_keys=[G, '{u}h'], key_type=0))
      for v in (4, 5, 6)],
    row('find_coordinator v4 of none', ask('find_coordinator', 4, coordinator_keys=[], key_type=0)),
    row('find_coordinator of an empty name', ready(), ask('find_coordinator', 3, key='', key_type=0)),
    row('find_coordinator of an unknown kind', ask('find_coordinator', 3, key=G, key_type=9)),
]

JOIN = [
    *[row('join_group v%d, alone' % v, ready(), join(v), sync(3, 'a', ('a', b'mine')), beat()) for v in range(10)],
    *[row('sync_group v%d' % v, ready(), join(), sync(v, 'a', ('a', b'mine')), sync(v)) for v in range(6)],
    *[row('heartbeat v%d' % v, ALONE, beat(v)) for v in range(5)],
    *[row('leave_group v%d' % v, ALONE, leave(v), beat(), leave(v)) for v in range(6)],
    row('join_group: an empty name of the group', ready(), ask('join_group', 5, **joining(group_id=''))),
    row('join_group: a session too short', ready(), ask('join_group', 5, **joining(session_timeout_ms=1))),
    row('join_group: a session too long', ready(), ask('join_group', 5, **joining(session_timeout_ms=99999999))),
    row('join_group: no protocols', ready(), ask('join_group', 5, **joining(protocols=[]))),
    row('join_group: no kind of protocol', ready(), ask('join_group', 5, **joining(kind=''))),
    row('join_group: a member that nobody knows', ready(), ask('join_group', 5, **joining('somebody'))),
    row('join_group: a member that nobody knows, in a group that is there', ALONE, ask('join_group', 5, 'b', **joining('somebody'))),
    row('join_group: another protocol', ALONE, ask('join_group', 3, 'b', **joining(name='roundrobin'))),
    row('join_group: another kind of protocol', ALONE, ask('join_group', 3, 'b', **joining(kind='connect'))),
    row('join_group: again with the same protocols', ALONE, ask('join_group', 5, name='join a', **joining(me())), beat()),
    row('join_group: two members', ready(), join(), sync(3, 'a', ('a', b'all')),
        ask('join_group', 5, 'b', name='first b', **joining()),
        send('join_group', 5, 'b', **joining(lambda p: p.asked['first b']['member_id'])),
        until(lambda a: a['error_code'] == 27, 'heartbeat', 3, **membership()),
        ask('join_group', 5, name='join a', **joining(me())), take('b', name='join b'),
        send('sync_group', 3, 'b', **{k: v for k, v in syncing('b').items() if not k.startswith('protocol')}),
        sync(3, 'a', ('a', b'one'), ('b', b'other')), take('b'), beat(), beat(3, 'b'),
        ask('describe_groups', 5, groups=[G]).ignore('client_host', why='the address, written otherwise'),
        leave(2, 'b'), beat()),
    row('join_group: who comes late makes the others come again', ALONE, ask('join_group', 3, 'b', name='x', **joining(name='roundrobin')),
        send('join_group', 3, 'b', **joining()), until(lambda a: a['error_code'] == 27, 'heartbeat', 3, **membership()),
        sync(3, 'a', ('a', b'x')), commit(7, **{'generation_id_or_member_epoch': generation(), 'member_id': me()}),
        leave(), take('b', name='join b')),
    row('join_group: who does not come in time is dropped', ready(), join(rebalance_timeout_ms=300), sync(3, 'a', ('a', b'all')),
        ask('join_group', 3, 'b', name='join b', **joining(rebalance_timeout_ms=300)), beat()),
    row('join_group: who does not beat is dropped', ready(), join(session_timeout_ms=300), sync(3, 'a', ('a', b'all')),
        ask('join_group', 3, 'b', name='join b', **joining()), beat()),
    row('join_group: static', ready(), ask('join_group', 5, name='join a', **joining(group_instance_id='one')),
        sync(3, 'a', ('a', b'mine'), group_instance_id='one'), beat(3, group_instance_id='one'),
        ask('join_group', 5, 'b', name='join b', **joining(group_instance_id='one')), beat(3, group_instance_id='one'),
        sync(3, 'b', group_instance_id='one'), beat(3, 'b', group_instance_id='one'),
        ask('leave_group', 3, group_id=G, members=[{'member_id': '', 'group_instance_id': 'one'}]), beat(3, 'b', group_instance_id='one')),
    row('join_group v9: static, the leader came back', ready(), ask('join_group', 9, name='join a', **joining(group_instance_id='one')),
        sync(5, 'a', ('a', b'mine'), group_instance_id='one'), ask('join_group', 9, 'b', name='join b', **joining(group_instance_id='one')),
        sync(5, 'b', group_instance_id='one')),
    row('sync_group: of an unknown group', ready(), ask('sync_group', 3, group_id=G, generation_id=1, member_id='x')),
    row('sync_group: an unknown member', ALONE, sync(3, member_id='x')),
    row('sync_group: a generation that was', ALONE, sync(3, generation_id=0)),
    row('sync_group v5: another protocol', ready(), join(7), sync(5, 'a', protocol_name='roundrobin')),
    row('sync_group v5: another kind', ready(), join(7), sync(5, 'a', protocol_type='connect')),
    row('heartbeat: of an unknown group', ready(), ask('heartbeat', 3, group_id=G, generation_id=1, member_id='x')),
    row('heartbeat: an unknown member', ALONE, beat(member_id='x')),
    row('heartbeat: a generation that will be', ALONE, beat(generation_id=9)),
    row('heartbeat: before the assignment', ready(), join(), beat()),
    row('leave_group: of an unknown group', ready(), ask('leave_group', 2, group_id=G, member_id='x')),
    row('leave_group: an unknown member', ALONE, ask('leave_group', 2, group_id=G, member_id='x')),
    row('leave_group v4: two, one unknown', ALONE, ask('leave_group', 4, group_id=G, members=[
        {'member_id': 'x', 'group_instance_id': None}, {'member_id': me(), 'group_instance_id': None}])),
]

INSIDE = {'generation_id_or_member_epoch': generation(), 'member_id': me()}
OFFSETS = [
    *[row('offset_commit v%d' % v, topic(), ready(), commit(v), committed()) for v in range(2, 10)],
    *[row('offset_fetch v%d' % v, topic(partitions=2), ready(), commit(), committed(v, partitions=(0, 1))) for v in range(1, 10)],
    *[row('offset_fetch v%d of all' % v, topic(partitions=2), ready(), commit(), commit(7, 9, partition=1), committed(v, None)) for v in (2, 7, 8)],
    row('offset_commit v10 by id', topic(), ready(), ask('offset_commit', 10, group_id=G, generation_id_or_member_epoch=-1, topics=[
        {'topic_id': topic_id(), 'partitions': [{'partition_index': 0, 'committed_offset': 7, 'committed_metadata': 'n'}]}]), committed(),
        ask('offset_fetch', 10, groups=[{'group_id': G, 'topics': [{'topic_id': topic_id(), 'partition_indexes': [0]}]}])),
    row('offset_commit v10 by an unknown id', topic(), ready(), ask('offset_commit', 10, group_id=G, generation_id_or_member_epoch=-1, topics=[
        {'topic_id': OTHER_ID, 'partitions': [{'partition_index': 0, 'committed_offset': 7, 'committed_metadata': 'n'}]}])),
    row('offset_fetch v8 of two groups', topic(), ready(), ready('{u}h'), commit(), commit(group='{u}h', offset=8), ask(
        'offset_fetch', 8, groups=[{'group_id': g, 'topics': [{'name': T, 'partition_indexes': [0]}]} for g in (G, '{u}h', '{u}none')])),
    row('offset_fetch: an unknown topic and partition', topic(), ready(), commit(), committed(5, '{u}no'), committed(5, T, (4,))),
    row('offset_fetch: of a group that is not there', ready(), committed(), committed(8), committed(8, None)),
    row('offset_commit: an unknown topic', ready(), commit(), committed()),
    row('offset_commit: an unknown partition', topic(), ready(), commit(partition=4)),
    row('offset_commit: without words', topic(), ready(), ask('offset_commit', 7, group_id=G, generation_id_or_member_epoch=-1, topics=[
        {'name': T, 'partitions': [{'partition_index': 0, 'committed_offset': 1, 'committed_metadata': None}]}]), committed()),
    row('offset_commit: words too long', topic(), ready(), [
        ask('offset_commit', 7, group_id=G, generation_id_or_member_epoch=-1, topics=[{'name': T, 'partitions': [
            {'partition_index': 0, 'committed_offset': n, 'committed_metadata': 'x' * n}]}]) for n in (4096, 4097)]),
    row('offset_commit: a negative offset', topic(), ready(), commit(offset=-5), committed()),
    row('offset_commit: with an epoch', topic(), ready(), ask('offset_commit', 7, group_id=G, generation_id_or_member_epoch=-1, topics=[
        {'name': T, 'partitions': [{'partition_index': 0, 'committed_offset': 1, 'committed_leader_epoch': 3, 'committed_metadata': ''}]}]),
        committed()),
    row('offset_commit: an empty name of the group', topic(), ready(), commit(group='')),
    row('offset_commit: as a member', topic(), ALONE, commit(**INSIDE), committed()),
    row('offset_commit: as a member of an unknown group', topic(), ready(), commit(generation_id_or_member_epoch=3, member_id='x')),
    row('offset_commit: a member that nobody knows', topic(), ALONE, commit(**dict(INSIDE, member_id='x'))),
    row('offset_commit: a generation that was', topic(), ALONE, commit(**dict(INSIDE, generation_id_or_member_epoch=0))),
    row('offset_commit: from outside of a group with members', topic(), ALONE, commit()),
    row('offset_commit: before the assignment', topic(), ready(), join(), commit(**INSIDE)),
    row('offset_commit: after all have left', topic(), ALONE, commit(**INSIDE), leave(), commit(offset=8), committed()),
    row('offsets go with the topic', topic(), ready(), commit(), ask('delete_topics', 5, topic_names=[T], timeout_ms=10000),
        until(lambda a: not a['groups'][0]['topics'], 'offset_fetch', 8, groups=[{'group_id': G, 'topics': None}])),
    row('offset_delete', topic(partitions=2), ready(), commit(), commit(partition=1), ask('offset_delete', 0, group_id=G, topics=[
        {'name': T, 'partitions': [{'partition_index': 0}]}]), committed(5, T, (0, 1))),
    row('offset_delete: of an unknown group', ready(), ask('offset_delete', 0, group_id=G, topics=[
        {'name': T, 'partitions': [{'partition_index': 0}]}])),
    row('offset_delete: what is not there', topic(), ready(), commit(), ask('offset_delete', 0, group_id=G, topics=[
        {'name': T, 'partitions': [{'partition_index': 4}]}, {'name': '{u}no', 'partitions': [{'partition_index': 0}]}])),
]

HOST = 'the address, written otherwise'
LIST = [
    *[row('describe_groups v%d' % v, topic(), ALONE, ask('describe_groups', v, groups=[G]).ignore('client_host', why=HOST)) for v in range(7)],
    *[row('describe_groups v%d of an unknown group' % v, ready(), ask('describe_groups', v, groups=[G])) for v in (0, 5, 6)],
    row('describe_groups: before the assignment', ready(), join(), ask('describe_groups', 5, groups=[G]).ignore('client_host', why=HOST)),
    row('describe_groups: only offsets', topic(), ready(), commit(), ask('describe_groups', 5, groups=[G])),
    *[row('list_groups v%d' % v, ALONE, until(
        lambda a: a['error_code'] == 0 and [g['protocol_type'] for g in a['groups'] if g['group_id'].endswith('g')].count('consumer') > 0,
        'list_groups', v)) for v in range(6)],
    row('list_groups v4: by state', ALONE, until(lambda a: all(g['group_state'] == 'Stable' for g in a['groups']) and a['groups'],
                                                 'list_groups', 4, states_filter=['Stable']),
        ask('list_groups', 4, states_filter=['Nonsense'])),
    row('list_groups v5: by kind', ALONE, until(lambda a: all(g['group_type'] == 'classic' for g in a['groups']) and a['groups'],
                                                'list_groups', 5, types_filter=['classic']),
        ask('list_groups', 5, types_filter=['share'])),
    *[row('delete_groups v%d' % v, topic(), ready(), commit(), ask('delete_groups', v, groups_names=[G]), ask('delete_groups', v, groups_names=[G]),
          committed()) for v in range(3)],
    row('delete_groups: with members', ALONE, ask('delete_groups', 2, groups_names=[G])),
]

ROWS = FIND + JOIN + OFFSETS + LIST
