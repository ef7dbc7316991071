#!/usr/bin/python3
"""Makes the golden store that has every type of record of the journal and every kind of file.

    tests/clients/golden/whole.py BINARY VERSION

writes whole/VERSION-killed.tar.xz and whole/VERSION-killed.json (what must be found in it, read back by the same binary from a copy). What only a
snapshot says comes first, then a compaction, then all that make.py and clients.py leave and what they do not, then kill -9. Run once when there is
a type of record that no store has (test_golden_whole.py names it), with the broker of that day, under a new VERSION; what is there stays for ever.
"""
import json
import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
sys.path.insert(0, HERE)

import kafka  # noqa: E402

import clients  # noqa: E402
import kafka_clients  # noqa: E402
import kafka_wire  # noqa: E402
import make  # noqa: E402
from test_durability import bodies, everything, ok, open_channel, publish  # noqa: E402
from test_sql import queries, rows, run  # noqa: E402

SETTINGS = (*make.SETTINGS, *clients.SETTINGS, '--set', 'keyed.every=1', '--set', 'kafka.transactional_id_expiration=1')
READER = ('--set', 'kafka.offsets_retention=315360000')     # the store grows old
STREAM = {'x-queue-type': 'stream', 'x-stream-max-segment-size-bytes': 65536}
KEYED = dict(STREAM, **{'x-cleanup-policy': 'compact'})
UPDATES, UPDATE = 8, 20000      # of three keys: two whole files, and an open one
STATEMENTS = ["CREATE STREAM jobs (id BIGINT, k TEXT) WITH (topic = 'jobs')", 'CREATE STREAM odd AS SELECT id FROM jobs WHERE id % 2 = 1',
              'CREATE MATERIALIZED VIEW per_key AS SELECT k, COUNT(*) AS n FROM jobs GROUP BY k', 'CREATE STREAM still AS SELECT k FROM jobs',
              'CREATE VIEW gone AS SELECT id FROM jobs', 'DROP VIEW gone']


class Transactional:
    """A producer with a transactional id, as clients before Kafka 4 are."""

    def __init__(self, wire, name, topic, timeout=60):
        self.wire, self.name, self.topic, self.sequence = wire, name, topic, 0
        said = wire.call('init_producer_id', 4, transactional_id=name, transaction_timeout_ms=timeout * 1000, producer_id=-1, producer_epoch=-1)
        assert said['error_code'] == 0, said
        self.who = {'producer_id': said['producer_id'], 'producer_epoch': said['producer_epoch']}

    def write(self, *values):
        said = self.wire.call('add_partitions_to_txn', 3, v3_and_below_transactional_id=self.name, v3_and_below_producer_id=self.who['producer_id'],
                              v3_and_below_producer_epoch=self.who['producer_epoch'], v3_and_below_topics=[{'name': self.topic, 'partitions': [0]}])
        assert said['results_by_topic_v3_and_below'][0]['results_by_partition'][0]['partition_error_code'] == 0, said
        data = kafka_wire.batch(list(values), self.who['producer_id'], self.who['producer_epoch'], self.sequence, attributes=0x10)
        said = self.wire.call('produce', 9, acks=-1, timeout_ms=10000, transactional_id=self.name, topic_data=[
            {'name': self.topic, 'partition_data': [{'index': 0, 'records': data}]}])
        assert said['responses'][0]['partition_responses'][0]['error_code'] == 0, said
        self.sequence += len(values)
        return self

    def read_up_to(self, group, offset):
        assert self.wire.call('add_offsets_to_txn', 3, transactional_id=self.name, group_id=group, **self.who)['error_code'] == 0
        said = self.wire.call('txn_offset_commit', 3, transactional_id=self.name, group_id=group, generation_id_or_member_epoch=-1, **self.who, topics=[
            {'name': self.topic, 'partitions': [{'partition_index': 0, 'committed_offset': offset, 'committed_metadata': 'in a transaction'}]}])
        assert said['topics'][0]['partitions'][0]['error_code'] == 0, said
        return self

    def end(self, committed):
        said = self.wire.call('end_txn', 3, transactional_id=self.name, committed=committed, **self.who)
        assert said['error_code'] == 0, said
        return self


# ---- what a snapshot says

def fill_before(broker, w, wire):
    for name, arguments in (('log', STREAM), ('full', STREAM), ('keyed', KEYED), ('unique', {'x-message-deduplication': True})):
        ok(w.call(1, 'queue.declare', queue=name, durable=True, arguments=arguments))
    ok(w.call(1, 'queue.bind', queue='keyed', exchange='amq.topic', routing_key='key.#'))
    publish(w, '', 'log', 'of the snapshot 0', 'of the snapshot 1')
    for i in range(5):              # one by one, so that each is a batch
        publish(w, '', 'full', ('row %d ' % i).ljust(UPDATE, 'x'))
    publish(w, '', 'unique', 'first', headers={'x-deduplication-header': 'a'})
    kafka_clients.made(broker, 'ledger', 1, retention_ms=-1)
    Transactional(wire, 'settled', 'ledger').write('committed 0').read_up_to('ledger readers', 1).end(True).write('aborted 0').end(False)
    Transactional(wire, 'open', 'ledger', 20).write('never committed')
    ok(w.call(1, 'queue.declare', queue='the last', durable=True))
    ok(w.call(1, 'queue.delete', queue='the last'))


# ---- what comes after it

def fill_amqp(broker, w):
    admin = ('--data', broker.data)
    make.tool(broker.binary, 'policy', 'set', 'gone', '^gone$', '{"max-length": 7}', *admin)
    make.tool(broker.binary, 'policy', 'clear', 'gone', *admin)
    make.tool(broker.binary, 'permission', 'set', 'guest', '', '', '', '--vhost', 'second', *admin)
    make.tool(broker.binary, 'permission', 'clear', 'guest', '--vhost', 'second', *admin)
    ok(w.call(1, 'exchange.declare', exchange='gone', type='direct', durable=True))
    ok(w.call(1, 'queue.declare', queue='gone', durable=True))
    ok(w.call(1, 'queue.bind', queue='gone', exchange='gone', routing_key='g'))
    ok(w.call(1, 'queue.unbind', queue='gone', exchange='gone', routing_key='g'))
    ok(w.call(1, 'queue.delete', queue='gone'))
    ok(w.call(1, 'exchange.delete', exchange='gone'))
    for name, arguments in (('fed', {}), ('retried', {'x-delayed-retry-min': 1000})):
        ok(w.call(1, 'queue.declare', queue=name, durable=True, arguments=arguments))
    publish(w, '', 'unique', 'second', headers={'x-deduplication-header': 'b'})
    publish(w, '', 'retried', 'came back late')
    w.send_method(1, 'basic.nack', delivery_tag=ok(w.call(1, 'basic.get', queue='retried')).delivery_tag, requeue=True)
    ok(w.call(1, 'queue.bind', queue='fed', exchange='amq.stream.log', routing_key=''))
    publish(w, '', 'log', 'fed 2', 'fed 3')
    for i in range(UPDATES):
        publish(w, 'amq.topic', 'key.%d' % (i % 3), ('update %d ' % i).ljust(UPDATE, 'x'))


def fill_kafka(broker, wire):
    Transactional(wire, 'later', 'ledger').write('committed 1').read_up_to('ledger readers', 5).end(True)
    kafka_clients.made(broker, 'trimmed', 1, retention_ms=-1)
    assert kafka_wire.produce(wire, 'trimmed', kafka_wire.batch(['given up', 'given up', 'kept']))['error_code'] == 0
    said = wire.call('delete_records', 2, timeout_ms=10000, topics=[{'name': 'trimmed', 'partitions': [{'partition_index': 0, 'offset': 2}]}])
    assert said['topics'][0]['partitions'][0]['error_code'] == 0, said
    said = wire.call('create_partitions', 2, timeout_ms=10000, topics=[{'name': 'trimmed', 'count': 3, 'assignments': None}])
    assert said['results'][0]['error_code'] == 0, said
    member = kafka.KafkaConsumer('trimmed', bootstrap_servers=kafka_clients.at(broker), group_id='members', auto_offset_reset='earliest',
                                 enable_auto_commit=False)
    kafka_clients.until(lambda: member.poll(100))
    member.commit({kafka.TopicPartition('trimmed', 0): kafka.OffsetAndMetadata(3, 'as a member')})
    member.close(autocommit=False)


def fill_sql(broker):
    for statement in STATEMENTS:
        run(broker, statement)
    w = open_channel(broker)
    publish(w, '', 'jobs', *[json.dumps({'id': i, 'k': 'k%d' % (i % 2)}) for i in range(6)])
    kafka_clients.until(lambda: rows(broker, 'SELECT id FROM odd') == [[1], [3], [5]] and len(rows(broker, 'SELECT k FROM still')) == 6)
    kafka_clients.until(lambda: sorted(rows(broker, 'SELECT k, n FROM per_key')) == [['k0', 3], ['k1', 3]])
    run(broker, 'PAUSE still')
    w.close()


def compacted_files(broker):
    return [name for name in os.listdir(os.path.join(broker.data, 'str')) if name.count('-') == 3]


def fill(broker):
    w, wire = open_channel(broker), kafka_wire.Wire(broker.kafka_port)
    fill_before(broker, w, wire)
    make.tool(broker.binary, 'compact', '--data', broker.data)
    kept = w, wire, make.fill(broker), clients.fill(broker)
    fill_amqp(broker, w)
    fill_kafka(broker, wire)
    fill_sql(broker)
    kafka_clients.until(lambda: compacted_files(broker), 60)
    time.sleep(2.5)                         # ids of producers are forgotten, and the note of an idle journal
    return kept


# ---- what is found

def committed(wire, topic):
    """Values that readers of committed records see, once nothing is open any more."""
    def stable():
        got = kafka_wire.fetch(wire, topic, 0, isolation=1, wait=0)
        return got if got['last_stable_offset'] == got['high_watermark'] else None
    got = kafka_clients.until(stable, 60)
    aborted = [(t['producer_id'], t['first_offset']) for t in got['aborted_transactions'] or []]
    found = []
    for one in kafka_wire.batches(got['records']):
        begun = [t for t in aborted if t[0] == one['pid'] and t[1] <= one['base']]
        if one['attributes'] & 0x20:        # a marker ends what its producer has begun
            aborted = [t for t in aborted if t not in begun]
        elif not begun:
            found += [r['value'].decode() for r in one['records']]
    return found


def committed_offsets(wire, *groups):
    said = wire.call('offset_fetch', 8, groups=[{'group_id': g, 'topics': None} for g in groups])
    return {g['group_id']: [[t['name'], p['partition_index'], p['committed_offset'], p['metadata']] for t in g['topics'] for p in t['partitions']]
            for g in said['groups']}


def last_values(wire, topic):
    return {r['key'].decode(): [r['offset'], r['value'].decode().split(' x')[0], len(r['value'])] for r in kafka_wire.read_all(wire, topic)}


def look(broker):
    """Everything, through the protocols; what clients.look leaves there, others do not look at."""
    w, wire = open_channel(broker), kafka_wire.Wire(broker.kafka_port)
    found = {'queues': {name: bodies(everything(w, name)) for name in ('unique', 'fed')}}
    kafka_clients.until(lambda: found['queues'].setdefault('retried', []).extend(bodies(everything(w, 'retried'))) or found['queues']['retried'])
    publish(w, '', 'unique', 'the first again', headers={'x-deduplication-header': 'a'})
    found['new'] = bodies(everything(w, 'unique'))          # taken, so that its key is free
    found['log'] = [r['value'].decode() for r in kafka_wire.read_all(wire, 'log')]
    found['full'] = [[r['offset'], r['value'].decode().split(' x')[0], len(r['value'])] for r in kafka_wire.read_all(wire, 'full')]
    found['keyed'] = last_values(wire, 'keyed')
    found['ledger'] = committed(wire, 'ledger')
    said = wire.call('list_offsets', 4, replica_id=-1, topics=[{'name': 'trimmed', 'partitions': [
        {'partition_index': i, 'timestamp': t} for i in range(3) for t in (-2, -1)]}])
    found['trimmed'] = [[p['partition_index'], p['offset']] for p in said['topics'][0]['partitions']]
    found['offsets'] = committed_offsets(wire, 'ledger readers', 'members')
    kafka_clients.until(lambda: all(row['lag'] == 0 for row in queries(broker).values() if row['state'] == 'RUNNING'))
    found['sql'] = {name: row['state'] for name, row in queries(broker).items()}
    found['odd'] = rows(broker, 'SELECT id FROM odd')
    found['per key'] = sorted(rows(broker, 'SELECT k, n FROM per_key'))
    w.close()
    wire.close()
    found['make'] = {key: value for key, value in make.look(broker).items() if key != 'messages'}      # markers of what ran out of time count
    found['clients'] = clients.look(broker)
    return found


def main():
    binary, name = os.path.abspath(sys.argv[1]), os.path.join(HERE, 'whole', sys.argv[2] + '-killed')
    broker, reader = make.Old(binary, args=SETTINGS), None
    try:
        broker.start()
        kept = fill(broker)
        broker.kill9()
        del kept
        make.pack(broker.data, name + '.tar.xz')
        reader = make.Old(binary, broker.data, args=READER)
        reader.start()
        with open(name + '.json', 'w', encoding='utf-8') as out:
            json.dump(look(reader), out, indent=1, sort_keys=True)
            out.write('\n')
        print(name, os.path.getsize(name + '.tar.xz'), 'bytes')
    finally:
        broker.remove()
        if reader:
            reader.remove()


if __name__ == '__main__':
    main()
