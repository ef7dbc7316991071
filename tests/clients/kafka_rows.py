#!/usr/bin/python3
"""Rows of requests, played against a real Kafka once (the answers are recorded in kafka_golden.json) and against Millrace in
every test run: each field of each answer must be the same, except those that a row leaves out or says to differ, with a reason.

    tests/clients/kafka_rows.py --record            # plays all rows to a real Kafka (Java, Maven) and writes the file
    tests/clients/kafka_rows.py --port 9092 -k word # plays rows to a broker that runs, shows answers and differences

A new row is a line in kafka_cases.py or the files beside it; then record again (-k records only some).  Rows share nothing
but the broker: names begin with `{u}`, which is the row's own.  In the fields of a request a function stands for a value that comes from an earlier answer.
"""

import argparse
import json
import os
import sys
import time
import zlib


from kafka_wire import NO_UUID, Wire, WireError, batches

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, 'kafka_golden.json')

# Left out everywhere: {field: why}.
IGNORED = {
    'error_message': 'words for people; a broker may have others, or none',
    'session_id': 'a number of its own; rows of sessions say whether there is one',
    'authorized_operations': 'no ACLs are set up, so what is not asked for is all that counts; rows that ask say so',
    'throttle_time_ms': 'recorded as 0; a broker may throttle',
}
# Lists without an order of their own: {field: what they are sorted by}.
UNORDERED = {'results': 'user', 'credential_infos': 'mechanism', 'configs': 'name', 'members': 'member_id', 'partition_responses': 'index',
             'brokers': 'node_id', 'groups': 'group_id', 'api_keys': 'api_key', 'synonyms': 'name', 'topics': 'name', 'results_by_partition': 'partition_index'}
# Beside an error nobody reads these, and Kafka has them or not by where in its code the error was found.
OF_NO_USE = ('aborted_transactions', 'log_start_offset', 'high_watermark', 'last_stable_offset')
LOGINS = ('sasl', 'try', 'keys')    # connections to the listener that wants a login
NODES = {'node_id', 'leader_id', 'controller_id', 'replica_nodes', 'isr_nodes'}


class Row:
    def __init__(self, name, steps):
        self.name, self.steps = name, flat(steps)
        self.unique = 'r%08x' % zlib.crc32(name.encode())


class Step:
    """One request or more whose answers are compared.  play() answers something that JSON can hold."""

    def __init__(self, words, play):
        self.words, self.play = words, play
        self.left_out, self.different = {}, {}

    def ignore(self, *fields, why):
        self.left_out.update(dict.fromkeys(fields, why))
        return self

    def differs(self, why, **fields):
        """What Millrace must answer instead of Kafka; a field is named by its last word."""
        self.different.update({field: (value, why) for field, value in fields.items()})
        return self

    def __str__(self):
        return self.words


def flat(steps):
    return [s for step in steps for s in (flat(step) if isinstance(step, (list, tuple)) else [step])]


def row(name, *steps):
    return Row(name, steps)


class Player:
    """Plays one row: connections by name, answers so far, names for what every broker names its own way."""

    def __init__(self, port, unique, sasl_port=None):
        self.port, self.unique, self.sasl_port = port, unique, sasl_port or port
        self.connections, self.answers = {}, []
        self.names = {NO_UUID: NO_UUID}      # value → word: topic ids, members, producer ids
        self.asked = {}                      # answers by the name of the step (ask(…, name=))

    def wire(self, conn='a'):
        if conn not in self.connections:
            self.connections[conn] = Wire(self.sasl_port if conn in LOGINS else self.port)
        return self.connections[conn]

    def fill(self, value):
        """{u} in strings, functions called, in all depths."""
        if callable(value):
            return self.fill(value(self))
        if isinstance(value, str):
            return value.replace('{u}', self.unique)
        if isinstance(value, dict):
            return {k: self.fill(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.fill(v) for v in value]
        return value

    def name(self, kind, value):
        if value not in self.names:
            self.names[value] = '%s %d' % (kind, 1 + sum(n.startswith(kind) for n in self.names.values()))
        return self.names[value]

    def plain(self, value, field=''):
        """The answer without what is a broker's own: ids are named in the order in which they appear."""
        if isinstance(value, dict):
            if 'topic_id' in value and value.get('name') and value['topic_id'] != NO_UUID:
                self.names[value['topic_id']] = 'id of ' + value['name']
            return {k: self.plain(v, k) for k, v in value.items()}
        if isinstance(value, list):
            done = [self.plain(v, field) for v in value]
            by = UNORDERED.get(field)
            if field == 'mechanisms':
                return sorted(done)
            return sorted(done, key=lambda one: str(one.get(by))) if by and all(isinstance(d, dict) for d in done) else done
        if value is None:
            return None
        if field in NODES and value >= 0:
            return 'a broker'
        if field == 'port' and value > 0:
            return 'a port'
        if field == 'cluster_id':
            return 'a cluster'
        if field == 'topic_id':
            return self.names.get(value, 'an unknown topic')
        if field in ('member_id', 'leader') and value:
            return self.name('member', value)
        if field == 'producer_id' and value >= 0:
            return self.name('producer', value)
        if field == 'records':
            return [{k: v for k, v in b.items() if k not in ('raw', 'records', 'pid')} for b in batches(value)]
        return value.hex() if isinstance(value, bytes) else value

    def play(self, row_):
        try:
            for step in row_.steps:
                try:
                    self.answers.append(step.play(self))
                except WireError as e:
                    self.answers.append('error: %s' % e)
                except (OSError, LookupError, TypeError) as e:
                    self.answers.append('error: %s: %s' % (type(e).__name__, e))
            return self.answers
        finally:
            for w in self.connections.values():
                w.close()


# ------------------------------------------------------------------------------------------------------- words of a row
def ask(api, version, conn='a', name=None, **fields):
    """One request and its answer."""
    def play(p):
        raw = p.wire(conn).call(api, version, **p.fill(fields))
        p.asked[name or api] = raw
        return p.plain(raw)
    return Step('%s v%d %r' % (api, version, fields), play)


def send(api, version, conn='a', **fields):
    """A request whose answer is taken later."""
    def play(p):
        p.wire(conn).send(api, version, **p.fill(fields))
        return None
    return Step('send %s v%d' % (api, version), play)


def take(conn='a', name=None):
    def play(p):
        api = p.wire(conn).waiting[0][1] if p.wire(conn).waiting else ''
        raw = p.wire(conn).receive()
        p.asked[name or api] = raw
        return p.plain(raw)
    return Step('take', play)


def until(condition, api, version, conn='a', name=None, seconds=15, **fields):
    """Asks again until the answer is as the condition wants; that it became so is all that is compared."""
    def play(p):
        deadline = time.monotonic() + seconds
        while True:
            raw = p.wire(conn).call(api, version, **p.fill(fields))
            p.asked[name or api] = raw
            if condition(raw):
                p.plain(raw)                # ids are learned
                return 'in time'
            if time.monotonic() > deadline:
                return 'never: %s' % json.dumps(p.plain(raw))
            time.sleep(0.01)
    return Step('until %s v%d %r' % (api, version, fields), play)


def raw(data, conn='a'):
    """Bytes as they are; data may be a function."""
    def play(p):
        p.wire(conn).raw(data(p) if callable(data) else data)
        return None
    return Step('raw bytes', play)


def closes(conn='a'):
    """The broker ends the connection."""
    def play(p):
        p.wire(conn).closed()
        del p.connections[conn]
        return 'closed'
    return Step('closes', play)


def topic(name='{u}t', partitions=1, configs=()):
    """Makes a topic and waits until it has leaders."""
    return [
        ask('create_topics', 4, timeout_ms=10000, topics=[{
            'name': name, 'num_partitions': partitions, 'replication_factor': 1,
            'configs': [{'name': k, 'value': v} for k, v in configs]}]),
        until(lambda a: all(not t['error_code'] and len(t['partitions']) == partitions and not any(q['error_code'] for q in t['partitions'])
                            for t in a['topics']),
              'metadata', 12, topics=[{'name': name}], allow_auto_topic_creation=False),
        # Kafka's broker may still say that it is not the leader.
        until(lambda a: all(p['error_code'] != 6 for p in a['topics'][0]['partitions']), 'list_offsets', 4, replica_id=-1, topics=[
            {'name': name, 'partitions': [{'partition_index': i, 'timestamp': -1} for i in range(partitions)]}]),
    ]


def topic_id(name='{u}t'):
    """For a field: the id that Metadata said last."""
    return lambda p: next(t['topic_id'] for t in p.asked['metadata']['topics'] if t['name'] == p.fill(name))


def producing(data, name='{u}t', partition=0, acks=-1):
    """The fields of a Produce with one batch."""
    return {'acks': acks, 'timeout_ms': 10000, 'topic_data': [{'name': name, 'partition_data': [{'index': partition, 'records': data}]}]}


def fetching(offset, name='{u}t', partition=0, most=1 << 20, **more):
    return dict({'max_wait_ms': 300, 'min_bytes': 1, 'max_bytes': 1 << 20, 'topics': [
        {'topic': name, 'partitions': [{'partition': partition, 'fetch_offset': offset, 'partition_max_bytes': most}]}]}, **more)


def offsets_of(timestamp, name='{u}t', partition=0):
    return {'replica_id': -1, 'topics': [{'name': name, 'partitions': [{'partition_index': partition, 'timestamp': timestamp}]}]}


# ------------------------------------------------------------------------------------------------------------ comparing
def compare(row_, golden, answers):
    """The differences, as lines."""
    bad = []
    if golden is None:
        return ['has no recorded answer: tests/clients/kafka_rows.py --record']
    if len(golden) != len(answers):
        return ['%d answers are recorded, it has %d steps: record again' % (len(golden), len(answers))]
    for i, (step, wanted, got) in enumerate(zip(row_.steps, golden, answers)):
        for path, a, b in differences(step, '', wanted, got):
            bad.append('%d %s: %s is %r, Kafka says %r' % (i + 1, step.words[:100], path or 'the answer', b, a))
    return bad


def differences(step, path, wanted, got):
    field = path.rsplit('.', 1)[-1]
    if field in step.different:
        wanted = step.different[field][0]
    if field in step.left_out or any(field.endswith(f) for f in IGNORED):
        return
    if isinstance(wanted, dict) and isinstance(got, dict):
        if wanted.get('error_code') and wanted.get('error_code') == got.get('error_code'):
            wanted, got = [{k: v for k, v in one.items() if k not in OF_NO_USE} for one in (wanted, got)]
        for key in sorted(wanted.keys() | got.keys()):
            yield from differences(step, '%s.%s' % (path, key), wanted.get(key, 'not there'), got.get(key, 'not there'))
    elif isinstance(wanted, list) and isinstance(got, list) and len(wanted) == len(got):
        for a, b in zip(wanted, got):
            yield from differences(step, path, a, b)
    elif wanted != got:
        yield path.lstrip('.'), wanted, got


def golden():
    with open(GOLDEN, encoding='utf-8') as f:
        return json.load(f)


def kept(step, value, field=''):
    """An answer as it is recorded: what is left out is not there."""
    if field in step.left_out:
        return 'left out'
    if isinstance(value, dict):
        return {k: kept(step, v, k) for k, v in value.items()}
    return [kept(step, v, field) for v in value] if isinstance(value, list) else value


def write_golden(answers):
    """One line a row, so that a diff shows what changed."""
    with open(GOLDEN, 'w', encoding='utf-8') as f:
        f.write('{\n' + ',\n'.join('%s: %s' % (json.dumps(name), json.dumps(answers[name], sort_keys=True)) for name in sorted(answers)) + '\n}\n')


def all_rows():
    import kafka_cases  # it needs the words above
    names = [r.name for r in kafka_cases.ROWS]
    twice = {n for n in names if names.count(n) > 1}
    assert not twice, twice
    return kafka_cases.ROWS


def play_all(port, rows, show=False, sasl_port=None):
    out = {}
    for row_ in rows:
        began = time.monotonic()
        player = Player(port, row_.unique, sasl_port)
        out[row_.name] = player.play(row_)
        if show:
            print('%s  (%.2f s)' % (row_.name, time.monotonic() - began))
            for step, answer in zip(row_.steps, out[row_.name]):
                print('    %s\n      %s' % (step.words[:160], json.dumps(answer)[:1500]))
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n', maxsplit=1)[0])
    parser.add_argument('--record', action='store_true')
    parser.add_argument('--port', type=int, default=0, help='of a broker that runs; without it a real Kafka is started')
    parser.add_argument('-k', default='', help='only rows whose name has this')
    options = parser.parse_args()
    rows = [r for r in all_rows() if options.k in r.name]
    sys.path.insert(0, os.path.join(HERE, '..', 'suites'))
    import kafka_peer
    peer = None if options.port else kafka_peer.Kafka(sasl=True).start()
    try:
        answers = play_all(options.port or peer.port, rows, show=not options.record, sasl_port=peer and peer.sasl_port)
        unplayed = ['%s: %s' % (name, a) for name in answers for a in answers[name] if isinstance(a, str) and (a.startswith('error: ') or a.startswith('never: '))]
        print('\n'.join(unplayed))
        if options.record:
            before = golden() if options.k and os.path.exists(GOLDEN) else {}
            write_golden({**before, **{r.name: [kept(s, a) for s, a in zip(r.steps, answers[r.name])] for r in rows}})
            print('%d rows recorded' % len(answers))
        elif os.path.exists(GOLDEN):
            recorded = golden()
            for row_ in rows:
                for line in compare(row_, recorded.get(row_.name), answers[row_.name]):
                    print('DIFFERS %s: %s' % (row_.name, line))
    finally:
        if peer:
            peer.remove()


if __name__ == '__main__':
    main()
