"""`millrace pub`, `sub` and `tail` as people use them: what they say, how they end, and that pika sees what they send."""

import base64
import json
import os
import subprocess
import time

import pika
import pytest

import brokers


class Cli:
    def __init__(self, broker):
        self.broker = broker

    def command(self, *args):
        return [self.broker.binary, args[0], '--port-offset', str(self.broker.offset), *args[1:]]

    def run(self, *args, given=None, env=None):
        """(exit code, standard output, standard error)"""
        done = subprocess.run(self.command(*args), input=given, capture_output=True, timeout=60, env=env and {**os.environ, **env})
        return done.returncode, done.stdout, done.stderr.decode()

    def ok(self, *args, **kw):
        code, out, err = self.run(*args, **kw)
        assert code == 0, err
        return out

    def start(self, *args):
        return subprocess.Popen(self.command(*args), stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)


@pytest.fixture
def cli(millrace):
    return Cli(millrace)


@pytest.fixture
def channel(millrace):
    connection = pika.BlockingConnection(pika.ConnectionParameters('127.0.0.1', millrace.port))
    yield connection.channel()
    connection.close()


def lines(out):
    return [json.loads(line) for line in out.splitlines()]


def test_what_pika_sees(cli, channel):
    channel.queue_declare('ps-pika', durable=True)
    cli.ok('pub', 'ps-pika', 'hello', '-H', 'who=anna', '-H', 'n:=3', '-H', 'deep:={"a":[1,true,null]}', '-P', 'content-type=text/plain',
           '-P', 'priority=3', '-P', 'Correlation-Id=7', '-P', 'timestamp=1700000000')
    method, properties, body = channel.basic_get('ps-pika', auto_ack=True)
    assert body == b'hello' and method.exchange == '' and method.routing_key == 'ps-pika'
    assert properties.headers == {'who': 'anna', 'n': 3, 'deep': {'a': [1, True, None]}}
    assert (properties.content_type, properties.priority, properties.correlation_id, properties.delivery_mode) == ('text/plain', 3, '7', 2)
    assert properties.timestamp == 1700000000
    cli.ok('pub', 'ps-pika', '--transient', 'x')
    assert channel.basic_get('ps-pika', auto_ack=True)[1].delivery_mode == 1
    channel.queue_delete('ps-pika')


def test_lines_files_and_repeats(cli, channel, tmp_path):
    channel.queue_declare('ps-many', durable=True)
    assert cli.run('pub', 'ps-many', given=b'one\n\ntwo\nthree')[2] == '4 messages confirmed\n'
    (tmp_path / 'f').write_bytes(bytes(range(256)) * 3000)
    cli.ok('pub', 'ps-many', '-f', str(tmp_path / 'f'), 'word', '-c', '2', '-q')
    got = []
    while len(got) < 8:
        method, _, body = channel.basic_get('ps-many', auto_ack=True)
        got.append(body)
    big = bytes(range(256)) * 3000
    assert got == [b'one', b'', b'two', b'three', b'word', big, b'word', big]
    assert channel.basic_get('ps-many')[0] is None
    channel.queue_delete('ps-many')


def test_rate(cli, channel):
    channel.queue_declare('ps-rate', durable=True)
    began = time.monotonic()
    cli.ok('pub', 'ps-rate', 'x', '-c', '31', '--rate', '100')
    assert 0.3 <= time.monotonic() - began < 5
    assert channel.queue_delete('ps-rate').method is not None


def test_nowhere_to_go(cli, channel):
    code, _, err = cli.run('pub', 'ps-nowhere', 'x')
    assert code == 1 and 'went nowhere' in err and '--create' in err
    code, _, err = cli.run('pub', '-x', 'amq.direct', '-k', 'ps-nobody', 'a', 'b')
    assert code == 1 and '2 of 2 messages went nowhere' in err
    code, _, err = cli.run('pub', '-x', 'ps-none', 'x')
    assert code == 1 and "no exchange 'ps-none'" in err
    code, _, err = cli.run('sub', 'ps-nowhere')
    assert code == 1 and "no queue 'ps-nowhere'" in err and '--create' in err
    code, _, err = cli.run('tail', 'ps-nowhere')
    assert code == 1 and "no queue 'ps-nowhere'" in err and '--create' not in err       # what it makes has no end to be shown
    channel.queue_declare('ps-full', arguments={'x-max-length': 1, 'x-overflow': 'reject-publish'})
    code, _, err = cli.run('pub', 'ps-full', 'a', 'b', 'c')
    assert code == 1 and '2 of 3 messages were refused' in err
    channel.queue_delete('ps-full')
    code, _, err = cli.run('pub', '--host', '127.0.0.1:1', 'q', 'x')
    assert code == 69 and 'cannot connect' in err
    code, _, err = cli.run('pub', '--password', 'wrong', 'q', 'x')
    assert code == 1 and 'ACCESS_REFUSED' in err
    for wrong in (['pub'], ['sub'], ['sub', 'a', 'b'], ['pub', 'q', '-H', 'x'], ['pub', 'q', '-P', 'colour=red'], ['sub', 'q', '--raw', '--json'],
                  ['pub', 'q', '-c', '-1'], ['pub', '-t', '', 'x'], ['sub', 'q', '--protocol', 'soap']):
        assert cli.run(*wrong)[0] == 64, wrong


def test_many_that_come_back(cli, channel):
    """More returned bytes than sockets hold: publishing and answers do not wait for each other."""
    code, _, err = cli.run('pub', '-x', 'amq.direct', '-k', 'ps-nobody', 'y' * 60000, '-c', '400')
    assert code == 1 and '400 of 400 messages went nowhere' in err


def test_who(millrace, cli, channel):
    channel.queue_declare('~pscwr', durable=True)
    channel.exchange_declare('~pscwr', 'fanout')
    channel.queue_bind('~pscwr', '~pscwr')
    env = {'MILLRACE_USER': 'mr-perm', 'MILLRACE_PASSWORD': 'perm-secret'}
    cli.ok('pub', '-x', '~pscwr', 'x', env=env)
    assert cli.ok('sub', '~pscwr', '-c', '1', env=env) == b'x\n'
    code, _, err = cli.run('pub', '~pscwr', 'x', env=env)       # not by the default exchange
    assert code == 1 and 'ACCESS_REFUSED' in err
    channel.queue_delete('~pscwr'), channel.exchange_delete('~pscwr')
    code, _, err = cli.run('pub', '--vhost', 'mr-other', 'q', 'x')
    assert code == 1 and 'nowhere' in err


def test_forms(cli, channel):
    channel.queue_declare('ps-forms', durable=True)
    bodies = [b'plain', b'{"b": 1, "a": [2]}', b'\xff\x00\x01', 'κόσμε'.encode()]
    for body in bodies:
        channel.basic_publish('', 'ps-forms', body, pika.BasicProperties(headers={'h': 'v', 'n': 1}, content_type='t'))
    assert cli.ok('sub', 'ps-forms', '--peek', '--wait', '0.3') == b''.join(b + b'\n' for b in bodies)
    pretty = cli.ok('sub', 'ps-forms', '--peek', '--wait', '0.3', '--pretty').decode()
    assert 'routing_key=ps-forms  redelivered  content_type=t  headers.h=v  headers.n=1\nplain\n' in pretty
    assert '{\n  "b": 1,\n  "a": [\n' in pretty and '(3 bytes that are no text)\n  ff 00 01' in pretty and 'κόσμε\n' in pretty
    out = lines(cli.ok('sub', 'ps-forms', '-c', '4', '--json'))
    assert [m['payload'] if m['payload_encoding'] == 'string' else base64.b64decode(m['payload']) for m in out] == \
        [b.decode() if b[0] != 255 else b for b in bodies]
    assert out[0] == {'exchange': '', 'routing_key': 'ps-forms', 'redelivered': True, 'payload': 'plain', 'payload_encoding': 'string',
                      'properties': {'content_type': 't', 'headers': {'h': 'v', 'n': 1}}}
    assert channel.queue_declare('ps-forms', durable=True).method.message_count == 0
    channel.queue_delete('ps-forms')


def test_json_goes_round(cli, channel):
    channel.queue_declare('ps-a', durable=True)
    channel.queue_declare('ps-b', durable=True)
    for i in range(20):
        channel.basic_publish('', 'ps-a', os.urandom(i * 50), pika.BasicProperties(
            headers={'i': i, 'deep': {'l': [1, 'x', None]}}, message_id=str(i), delivery_mode=1 + i % 2, app_id='κ'))
    first = cli.ok('sub', 'ps-a', '-c', '20', '--json')
    cli.ok('pub', 'ps-b', '--json', given=first)
    again = cli.ok('sub', 'ps-b', '-c', '20', '--json')
    assert again == first.replace(b'"ps-a"', b'"ps-b"')
    cli.ok('pub', 'ps-b', '--json', '-P', 'type=t', given=b'{"payload": {"x": [1, 2]}}\n{"properties": {"type": "own"}, "payload": ""}\n')
    out = lines(cli.ok('sub', 'ps-b', '-c', '2', '--json'))
    assert [m['payload'] for m in out] == ['{"x":[1,2]}', ''] and [m['properties']['type'] for m in out] == ['t', 'own']
    for bad in (b'{"payload": 1}\n', b'nonsense\n', b'[]\n', b'{"payload": "!", "payload_encoding": "base64"}\n', b'{"properties": []}\n'):
        code, _, err = cli.run('pub', 'ps-b', '--json', given=b'{"payload": "fine"}\n' + bad)
        assert code == 1 and 'line 2 of standard input' in err, bad
    channel.queue_delete('ps-a'), channel.queue_delete('ps-b')


def test_exactly_the_count_is_taken(cli, channel):
    channel.queue_declare('ps-count', durable=True)
    cli.ok('pub', 'ps-count', given=b''.join(b'%d\n' % i for i in range(1000)))
    assert cli.ok('sub', 'ps-count', '-c', '3') == b'0\n1\n2\n'
    method, _, body = channel.basic_get('ps-count')
    assert body == b'3' and not method.redelivered
    channel.basic_nack(method.delivery_tag)
    assert cli.ok('sub', 'ps-count', '-c', '500').splitlines()[-1] == b'502'
    code, out, err = cli.run('sub', 'ps-count', '-c', '1000', '--wait', '0.3')
    assert code == 1 and 'only 497 of 1000' in err and out.splitlines()[-1] == b'999'
    assert channel.queue_declare('ps-count', durable=True).method.message_count == 0
    channel.queue_delete('ps-count')


def test_killed_reader_loses_nothing(cli, channel):
    channel.queue_declare('ps-kill', durable=True)
    cli.ok('pub', 'ps-kill', given=b''.join(b'%d\n' % i for i in range(3000)))
    reader = cli.start('sub', 'ps-kill')
    seen = {int(reader.stdout.readline()) for _ in range(700)}
    reader.kill()
    seen |= {int(line) for line in reader.stdout.read().split(b'\n')[:-1]}
    reader.wait()
    rest = {int(line) for line in cli.ok('sub', 'ps-kill', '--wait', '0.5').splitlines()}
    assert seen | rest == set(range(3000))
    channel.queue_delete('ps-kill')


def until_bound(channel, exchange, key, probe):
    """A reader has its queue when a mandatory message is not returned."""
    channel.confirm_delivery()

    def routed():
        try:
            channel.basic_publish(exchange, key, probe, mandatory=True)
            return True
        except pika.exceptions.UnroutableError:
            return False
    brokers.wait_until(routed, 10, 'a reader is bound')


def test_exchanges_and_topics(cli, channel):
    readers = [cli.start('sub', '-x', 'amq.topic', '-k', 'ps.*.x', '-c', '2', '--json'), cli.start('tail', '-t', 'ps/+/x', '-c', '2', '--json')]
    until_bound(channel, 'amq.topic', 'ps.one.x', b'first')
    out = []
    while not all(r.poll() is not None for r in readers):
        cli.ok('pub', '-q', '-t', 'ps/two/x', 'hello') if any(r.poll() is None for r in readers) else None
        if all(r.poll() is not None for r in readers):
            break
        time.sleep(0.05)
    for r in readers:
        out = lines(r.communicate()[0])
        assert r.returncode == 0 and len(out) == 2
        assert out[-1]['routing_key'] == 'ps.two.x' and out[-1]['exchange'] == 'amq.topic' and out[-1]['payload'] == 'hello'


def test_streams(cli, channel):
    channel.queue_declare('ps-stream', durable=True, arguments={'x-queue-type': 'stream'})
    cli.ok('pub', 'ps-stream', given=b''.join(b'%d\n' % i for i in range(50)))
    assert cli.ok('tail', 'ps-stream', '--wait', '0.5').split() == [b'%d' % i for i in range(40, 50)]
    assert cli.ok('tail', 'ps-stream', '-n', '3', '--wait', '0.5').split() == [b'47', b'48', b'49']
    assert cli.ok('tail', 'ps-stream', '-n', '500', '-c', '50').split() == [b'%d' % i for i in range(50)]
    assert cli.ok('sub', 'ps-stream', '--from', 'first', '-c', '2').split() == [b'0', b'1']
    assert cli.ok('sub', 'ps-stream', '--from', '1h', '-c', '1').split() == [b'0']
    assert cli.ok('sub', 'ps-stream', '--from', '2020-01-01', '-c', '1').split() == [b'0']
    assert cli.ok('sub', 'ps-stream', '--from', '2099-01-01T00:00:00Z', '--wait', '0.3') == b''
    out = lines(cli.ok('tail', 'ps-stream', '--from', '20', '-c', '2', '--json'))
    assert [(m['offset'], m['payload']) for m in out] == [(20, '20'), (21, '21')]
    follower = cli.start('tail', 'ps-stream', '-n', '1', '-c', '2')
    assert follower.stdout.readline() == b'49\n'
    cli.ok('pub', 'ps-stream', 'new')
    assert follower.communicate()[0] == b'new\n' and follower.returncode == 0
    code, _, err = cli.run('sub', 'ps-stream', '--from', 'nonsense')
    assert code == 1 and 'x-stream-offset' in err
    channel.queue_delete('ps-stream')


def test_tail_takes_nothing(cli, channel):
    channel.queue_declare('ps-queue', durable=True)
    channel.basic_publish('', 'ps-queue', b'x')
    code, out, err = cli.run('tail', 'ps-queue')
    assert code == 1 and out == b'' and '--peek' in err
    assert channel.queue_declare('ps-queue', durable=True).method.message_count == 1
    channel.queue_delete('ps-queue')


def test_create(cli, channel):
    assert cli.ok('sub', 'ps-made', '--create', '--wait', '0.1') == b''
    cli.ok('pub', 'ps-made', '--create', 'x')
    channel.queue_declare('ps-made', durable=True)          # it is a durable queue
    assert channel.queue_delete('ps-made').method is not None


def test_messages_wait_for_a_broker_that_stops(fresh_millrace):
    """The exit code tells: what was not confirmed is not called so."""
    cli = Cli(fresh_millrace)
    publisher = cli.start('pub', '--create', 'q', 'x', '-c', '1000000', '--rate', '500')
    brokers.wait_until(lambda: any(q['messages'] for q in json.loads(fresh_millrace.cli('list', 'queues', '--json'))), 10, 'a message')
    fresh_millrace.stop()
    assert publisher.wait(20) == 1
    assert b'may not have arrived' in publisher.stderr.read()


def test_who_is_held_back_is_told(fresh_millrace, tmp_path):
    """While an alarm holds nothing is confirmed: who waits hears it, with the reason where the protocol tells, and goes on when it is over."""
    cli, publishers = Cli(fresh_millrace), {}
    connection = pika.BlockingConnection(pika.ConnectionParameters('127.0.0.1', fresh_millrace.port))
    channel = connection.channel()
    for protocol in ('amqp', 'mqtt', 'stomp'):
        channel.queue_declare('held-' + protocol, durable=True)
    channel.queue_declare('held-kafka', durable=True, arguments={'x-queue-type': 'stream'})
    channel.queue_bind('held-mqtt', 'amq.topic', 'held-mqtt')
    fresh_millrace.cli('alarm', 'raise', 'disk')

    def said(protocol):
        return (tmp_path / protocol).read_text()
    for protocol in ('amqp', 'kafka', 'mqtt', 'stomp'):
        with open(tmp_path / protocol, 'w') as err:
            command = cli.command('pub', '--protocol', protocol, 'held-' + protocol, 'x' * 100_000, '-c', '20')
            publishers[protocol] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=err)
    for protocol in publishers:
        word = 'the broker holds publishers back (low on disk)' if protocol == 'amqp' else 'the broker may hold publishers back'
        brokers.wait_until(lambda: word in said(protocol), 20, 'a word about the alarm over ' + protocol)
        assert publishers[protocol].poll() is None
    fresh_millrace.cli('alarm', 'clear')
    for protocol, publisher in publishers.items():
        assert publisher.wait(20) == 0, said(protocol)
        assert said(protocol).endswith('20 messages confirmed\n')
    connection.close()


def test_help(millrace):
    for name in ('pub', 'sub', 'tail'):
        text = subprocess.run([millrace.binary, name, '--help'], capture_output=True, text=True, check=True).stdout
        assert 'xamples' in text and '--exchange' in text
        assert '  %s' % name in subprocess.run([millrace.binary, 'help'], capture_output=True, text=True, check=True).stdout


# ---- Kafka ---------------------------------------------------------------------------------------

def kcat(broker, *args, given=None):
    return subprocess.run(['kcat', '-b', '127.0.0.1:%d' % broker.kafka_port, *args], input=given, capture_output=True, timeout=60, check=True).stdout


@pytest.fixture
def kafka(millrace):
    cli = Cli(millrace)
    cli.ok_kafka = lambda *args, **kw: cli.ok(args[0], '--protocol', 'kafka', *args[1:], **kw)
    return cli


def test_kafka_what_kcat_sees(kafka, millrace):
    kafka.ok_kafka('pub', 'ps-k1', '--create', 'hello', '-k', 'key', '-H', 'who=anna', '-H', 'n:=3')
    kafka.ok_kafka('pub', 'ps-k1', given=b'one\ntwo\n')
    assert kcat(millrace, '-C', '-t', 'ps-k1', '-e', '-q', '-f', '%o %k %s %h\n') == b'0 key hello who=anna,n=3\n1  one \n2  two \n'


def test_kafka_what_kcat_sends(kafka, millrace):
    kcat(millrace, '-P', '-t', 'ps-k2', '-z', 'lz4', '-K', ':', '-H', 'h=v', given=b''.join(b'k%d:%d\n' % (i % 3, i) for i in range(200)))
    assert kafka.ok_kafka('sub', 'ps-k2', '--from', 'first', '-c', '200').split() == [b'%d' % i for i in range(200)]
    assert kafka.ok_kafka('tail', 'ps-k2', '--wait', '0.3').split() == [b'%d' % i for i in range(190, 200)]
    assert kafka.ok_kafka('tail', 'ps-k2', '-n', '1000', '--wait', '0.3').split() == [b'%d' % i for i in range(200)]
    out = lines(kafka.ok_kafka('sub', 'ps-k2', '--from', '150', '-c', '1', '--json'))[0]
    assert abs(out.pop('timestamp') / 1000 - time.time()) < 100
    assert out == {'topic': 'ps-k2', 'partition': 0, 'offset': 150, 'key': 'k0', 'properties': {'headers': {'h': 'v'}},
                   'payload': '150', 'payload_encoding': 'string'}
    assert kafka.ok_kafka('sub', 'ps-k2', '--from', '1h', '-c', '1') == b'0\n'
    assert kafka.ok_kafka('sub', 'ps-k2', '--from', '2099-01-01', '--wait', '0.2') == b''
    assert kafka.ok_kafka('sub', 'ps-k2', '--wait', '0.2') == b''
    follower = kafka.start('tail', '--protocol', 'kafka', 'ps-k2', '-n', '1', '-c', '2')
    assert follower.stdout.readline() == b'199\n'
    kafka.ok_kafka('pub', 'ps-k2', 'new')
    assert follower.communicate()[0] == b'new\n' and follower.returncode == 0


def test_kafka_partitions_and_round_trip(kafka, channel):
    channel.queue_declare('ps-k3', durable=True, arguments={'x-queue-type': 'stream', 'x-stream-partitions': 4})
    rows = [{'key': 'k%d' % (i % 7), 'payload': 'x%d' % i} for i in range(300)]
    kafka.ok_kafka('pub', 'ps-k3', '--json', given='\n'.join(map(json.dumps, rows)).encode())
    out = lines(kafka.ok_kafka('sub', 'ps-k3', '--from', 'first', '-c', '300', '--json'))
    of_key = {}
    for m in out:
        of_key.setdefault(m['key'], []).append((m['partition'], m['payload']))
    assert len({p for rows in of_key.values() for p, _ in rows}) > 1
    for key, seen in of_key.items():
        assert len({p for p, _ in seen}) == 1                                   # a key's records are in one partition, in order
        assert [p for _, p in seen] == [r['payload'] for r in rows if r['key'] == key]
    one = of_key['k0'][0][0]
    only = lines(kafka.ok_kafka('sub', 'ps-k3', '--partition', str(one), '--from', '0', '--wait', '0.3', '--json'))
    assert len(only) == sum(len(rows) for rows in of_key.values() if rows[0][0] == one) and {m['partition'] for m in only} == {one}
    kafka.ok_kafka('pub', 'ps-k3', '--partition', '2', 'there')
    assert lines(kafka.ok_kafka('tail', 'ps-k3', '--partition', '2', '-n', '1', '-c', '1', '--json'))[0]['payload'] == 'there'
    amqp = lines(kafka.ok('sub', 'ps-k3', '--from', 'first', '-c', '301', '--json'))       # the same records by another protocol
    assert sorted(m['payload'] for m in amqp) == sorted([r['payload'] for r in rows] + ['there'])
    assert {m['partition'] for m in amqp} <= {0, 1, 2, 3}
    channel.queue_delete('ps-k3')


def test_kafka_what_is_refused(kafka, channel):
    def refused(*args):
        code, _, err = kafka.run(args[0], '--protocol', 'kafka', *args[1:])
        assert code == 1, err
        return err
    assert 'there is no topic ps-none (--create makes it)' in refused('pub', 'ps-none', 'x')
    assert 'there is no topic' in refused('sub', 'ps-none')
    assert 'topics' in refused('pub', '-x', 'amq.topic', '-k', 'a', 'x')
    channel.queue_declare('ps-k4', durable=True, arguments={'x-queue-type': 'stream', 'x-stream-partitions': 2})
    assert 'priority' in refused('pub', 'ps-k4', 'x', '-P', 'priority=3')
    assert 'texts' in refused('pub', 'ps-k4', 'x', '-H', 'x:=[1]')
    assert '2 partitions' in refused('pub', 'ps-k4', 'x', '--partition', '2')
    assert '--partition' in refused('sub', 'ps-k4', '--from', '5')
    assert 'an interval' in refused('sub', 'ps-k4', '--from', 'soon')
    assert 'OFFSET_OUT_OF_RANGE' in refused('sub', 'ps-k4', '--from', '5', '--partition', '0')
    channel.queue_delete('ps-k4')


def test_kafka_shows_what_was_committed_only(kafka, millrace):
    confluent_kafka = pytest.importorskip('confluent_kafka')
    p = confluent_kafka.Producer({'bootstrap.servers': '127.0.0.1:%d' % millrace.kafka_port, 'transactional.id': 'ps-tx'})
    p.init_transactions(20)
    for n, end in enumerate(('commit', 'abort', 'commit', 'abort', 'abort', 'commit')):
        p.begin_transaction()
        for i in range(3):
            p.produce('ps-k5', b'%s-%d-%d' % (end.encode(), n, i))
        p.flush()                                           # or an abort would throw away what was not sent
        p.commit_transaction(20) if end == 'commit' else p.abort_transaction(20)
    out = kafka.ok_kafka('sub', 'ps-k5', '--from', 'first', '--wait', '0.5').split()
    assert out == [b'commit-%d-%d' % (n, i) for n in (0, 2, 5) for i in range(3)]


# ---- MQTT and STOMP ------------------------------------------------------------------------------

def test_mqtt(cli):
    def start(*args):
        return cli.start(args[0], '--protocol', 'mqtt', *args[1:])
    reader = start('sub', 'ps/+/m', '-c', '3', '--json')
    other = cli.start('sub', '-t', 'ps/+/m', '-c', '3', '--json')               # AMQP, the same topic
    retry = 0
    while reader.poll() is None or other.poll() is None:
        cli.run('pub', '--protocol', 'mqtt', 'ps/one.1/m', 'hello', '-P', 'content-type=text/plain', '-P', 'correlation-id=7',
                '-P', 'expiration=60000', '-H', 'who=anna', '-H', 'n:=3', '-q')
        retry += 1
        assert retry < 200
    out = lines(reader.communicate()[0])
    assert len(out) == 3 and out[0]['topic'] == 'ps/one.1/m' and out[0]['payload'] == 'hello' and out[0]['qos'] == 1
    assert out[0]['properties'].pop('expiration')[-3:] == '000'
    assert out[0]['properties'] == {'content_type': 'text/plain', 'correlation_id': '7', 'headers': {'who': 'anna', 'n': '3'}}
    out = lines(other.communicate()[0])
    assert out[0]['routing_key'] == 'ps.one/1.m' and out[0]['exchange'] == 'amq.topic' and out[0]['properties']['headers']['who'] == 'anna'
    code, _, err = cli.run('pub', '--protocol', 'mqtt', 'ps/nobody/here', 'a', 'b')
    assert code == 1 and '2 of 2 messages went nowhere' in err


def test_mqtt_many(cli, channel):
    channel.queue_declare('ps-mqtt', durable=True)
    channel.queue_bind('ps-mqtt', 'amq.topic', 'ps-mqtt.x')
    cli.ok('pub', '--protocol', 'mqtt', 'ps-mqtt/x', given=b''.join(b'%d\n' % i for i in range(3000)))
    assert cli.ok('sub', 'ps-mqtt', '-c', '3000').split() == [b'%d' % i for i in range(3000)]
    big = os.urandom(400000).hex()
    cli.ok('pub', '--protocol', 'mqtt', 'ps-mqtt/x', given=big.encode())
    assert cli.ok('sub', 'ps-mqtt', '-c', '1').strip().decode() == big
    channel.queue_delete('ps-mqtt')


def test_mqtt_what_is_refused(cli):
    for args, want, word in ((['pub', 'a/#', 'x'], 1, 'no topic'), (['sub', 'a#'], 1, 'no topic filter'),
                             (['pub', 'a', 'x', '-P', 'priority=3'], 1, 'priority'), (['pub', 'ps-nobody', 'x'], 1, 'nobody subscribes'),
                             (['sub', 'a', '--from', 'first'], 64, '--from'), (['pub', '-x', 'e', 'x'], 64, 'neither exchanges'),
                             (['pub', 'a', 'x', '--user', 'guest', '--password', 'wrong'], 1, 'refuses')):
        code, _, err = cli.run(args[0], '--protocol', 'mqtt', *args[1:])
        assert code == want and word in err, (args, err)


def test_stomp(cli, channel):
    channel.queue_declare('ps-stomp', durable=True)
    cli.ok('pub', '--protocol', 'stomp', 'ps-stomp', 'hello', '-H', 'who=a:b\\c', '-H', 'n:=3', '-P', 'content-type=text/plain', '-P', 'priority=3')
    _, properties, body = channel.basic_get('ps-stomp', auto_ack=True)
    assert body == b'hello' and properties.headers == {'who': 'a:b\\c', 'n': '3'}
    assert (properties.content_type, properties.priority, properties.delivery_mode) == ('text/plain', 3, 2)
    bodies = [os.urandom(i * 7).hex().encode() for i in range(500)]
    cli.ok('pub', '--protocol', 'stomp', 'ps-stomp', given=b'\n'.join(bodies))
    assert cli.ok('sub', '--protocol', 'stomp', 'ps-stomp', '--peek', '--wait', '0.3').split(b'\n')[:100] == bodies[:100]
    assert cli.ok('sub', '--protocol', 'stomp', 'ps-stomp', '-c', '300').split(b'\n')[:-1] == bodies[:300]
    assert cli.ok('sub', '--protocol', 'stomp', 'ps-stomp', '--wait', '0.3').split(b'\n')[:-1] == bodies[300:]
    assert channel.queue_declare('ps-stomp', durable=True).method.message_count == 0
    channel.basic_publish('', 'ps-stomp', b'\xff\0', pika.BasicProperties(headers={'h': 'v'}, delivery_mode=2, correlation_id='7'))
    out = lines(cli.ok('sub', '--protocol', 'stomp', 'ps-stomp', '-c', '1', '--json'))[0]
    assert base64.b64decode(out['payload']) == b'\xff\0'
    assert out['properties'] == {'delivery_mode': 2, 'correlation_id': '7', 'headers': {'h': 'v'}}
    channel.queue_delete('ps-stomp')


def test_stomp_streams_and_exchanges(cli, channel):
    channel.queue_declare('ps-ss', durable=True, arguments={'x-queue-type': 'stream'})
    cli.ok('pub', '--protocol', 'stomp', 'ps-ss', given=b'a\nb\nc\n')
    out = lines(cli.ok('tail', '--protocol', 'stomp', 'ps-ss', '--from', '1', '-c', '2', '--json'))
    assert [(m['offset'], m['payload']) for m in out] == [(1, 'b'), (2, 'c')]
    assert cli.ok('sub', '--protocol', 'stomp', 'ps-ss', '--from', '1h', '-c', '3') == b'a\nb\nc\n'
    channel.queue_delete('ps-ss')
    reader = cli.start('sub', '--protocol', 'stomp', '-x', 'amq.topic', '-k', 'ps.st.*', '-c', '1')
    until_bound(channel, 'amq.topic', 'ps.st.x', b'seen')
    assert reader.communicate()[0] == b'seen\n' and reader.returncode == 0
    for args, word in ((['sub', 'ps-nothing'], 'ps-nothing'), (['pub', 'q', 'x', '--password', 'wrong'], 'server says'),
                       (['tail', 'ps-nothing'], '--from'), (['sub', 'ps-nothing', '--from', 'soon'], 'interval')):
        code, _, err = cli.run(args[0], '--protocol', 'stomp', *args[1:])
        assert code == 1 and word in err and not err.endswith(' \n'), (args, err)
