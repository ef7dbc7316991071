"""What the tests with real Kafka clients share: brokers, clients, a proxy that cuts connections, members that can be killed.

Run as a program it is such a member: it joins a group, prints a line of JSON for each thing that happens, and ends with its
standard input or with a signal.
"""

import itertools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time

import confluent_kafka
import kafka

import brokers
import kafka_wire

HERE = os.path.dirname(os.path.abspath(__file__))
# As the bits of a batch's attributes.
COMPRESSIONS = {None: 0, 'gzip': 1, 'snappy': 2, 'lz4': 3, 'zstd': 4}


def new(target='millrace', advertised=None, args=(), settings=''):
    """A broker of the target's kind, not started yet, with .kafka_port; advertised: the port that clients are told."""
    if target == 'kafka':
        sys.path.insert(0, os.path.join(HERE, '..', 'suites'))
        import kafka_peer
        return kafka_peer.Kafka(advertised=advertised, settings=settings)
    if advertised:
        args = (*args, '--set=kafka.advertised=127.0.0.1:%d' % advertised)
    return brokers.Millrace(args=args)


def start(*what, **more):
    return new(*what, **more).start()


def at(broker):
    return '127.0.0.1:%d' % broker.kafka_port


def producer(broker, **settings):
    return kafka.KafkaProducer(bootstrap_servers=at(broker), acks='all', **settings)


def librdkafka(broker, **settings):
    return confluent_kafka.Producer({'bootstrap.servers': at(broker), 'acks': 'all', 'linger.ms': 5, 'reconnect.backoff.ms': 10,
                                     'reconnect.backoff.max.ms': 100, **{k.replace('_', '.'): v for k, v in settings.items()}})


def made(broker, name, partitions=1, **configs):
    """A topic that clients can use at once."""
    with kafka_wire.Wire(broker.kafka_port) as w:
        done = w.call('create_topics', 4, timeout_ms=10000, topics=[{
            'name': name, 'num_partitions': partitions, 'replication_factor': 1,
            'configs': [{'name': k.replace('_', '.'), 'value': str(v)} for k, v in configs.items()]}])
        assert done['topics'][0]['error_code'] == 0, done
        until(lambda: all(p['error_code'] == 0 for p in w.call('list_offsets', 4, replica_id=-1, topics=[{
            'name': name, 'partitions': [{'partition_index': i, 'timestamp': -1} for i in range(partitions)]}])['topics'][0]['partitions']))
    return name


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, 'not within %d s' % seconds
        time.sleep(0.01)


def read(broker, name, count, partition=0, **settings):
    """So many records of a partition with python3-kafka, from its beginning."""
    consumer = kafka.KafkaConsumer(bootstrap_servers=at(broker), auto_offset_reset='earliest', consumer_timeout_ms=20000, **settings)
    try:
        consumer.assign([kafka.TopicPartition(name, partition)])
        return list(itertools.islice(consumer, count))
    finally:
        consumer.close()


def read_librdkafka(broker, name, count, partition=0):
    consumer = confluent_kafka.Consumer({'bootstrap.servers': at(broker), 'group.id': 'none', 'fetch.wait.max.ms': 50, 'enable.auto.commit': False})
    try:
        consumer.assign([confluent_kafka.TopicPartition(name, partition, 0)])
        out = []
        deadline = time.monotonic() + 20
        while len(out) < count:
            assert time.monotonic() < deadline, '%d of %d records' % (len(out), count)
            message = consumer.poll(0.2)
            if message is not None:
                assert message.error() is None, message.error()
                out.append(message)
        return out
    finally:
        consumer.close()


def kcat(broker, *args, stdin=''):
    done = subprocess.run(['kcat', '-b', at(broker), '-q', *args], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def write(broker, client, name, values, compression):
    if client == 'python3-kafka':
        p = producer(broker, compression_type=compression, linger_ms=100)
        sent = [p.send(name, v) for v in values]
        p.close()
        assert [s.get(1).offset for s in sent] == list(range(len(values)))
    elif client == 'librdkafka':
        p = librdkafka(broker, compression_type=compression or 'none', linger_ms=100)
        for v in values:
            p.produce(name, v, partition=0)
        assert p.flush(20) == 0
    else:
        kcat(broker, '-P', '-t', name, '-p', '0', '-z', compression or 'none', stdin='\n'.join(v.decode() for v in values) + '\n')


def fill(broker, name, count, partitions):
    p = librdkafka(broker)
    for i in range(count):
        p.produce(name, b'%d' % i, partition=i % partitions)
    assert p.flush(20) == 0


class Proxy:
    """Forwards connections and cuts each after as many bytes as the next of `limits` says, whichever way they go; when there
    are none left, connections live.  The port exists before the broker does, so that it can be advertised."""

    def __init__(self, limits=()):
        self.limits = iter(limits)
        self.listener = socket.socket()
        self.listener.bind(('127.0.0.1', 0))
        self.listener.listen(64)
        self.port = self.listener.getsockname()[1]
        self.cuts, self.connections = 0, 0
        self.stop_reader, self.stop_writer = os.pipe()
        self.threads, self.lock = [], threading.Lock()

    def to(self, port):
        self.target = port
        self.spawn(self.accept)
        return self

    def spawn(self, function, *args):
        thread = threading.Thread(target=function, args=args, daemon=True)
        with self.lock:
            self.threads.append(thread)
        thread.start()

    def accept(self):
        while self.listener in select.select([self.listener, self.stop_reader], [], [])[0]:
            client, _ = self.listener.accept()
            self.connections += 1
            self.spawn(self.forward, client, next(self.limits, None))

    def forward(self, client, limit):
        try:
            server = socket.create_connection(('127.0.0.1', self.target), 5)
        except OSError:
            client.close()
            return
        other = {client: server, server: client}
        try:
            while True:
                for side in select.select([client, server, self.stop_reader], [], [])[0]:
                    if side == self.stop_reader:
                        return
                    data = side.recv(65536)
                    if not data:
                        return
                    if limit is not None and len(data) >= limit:
                        other[side].sendall(data[:limit])
                        with self.lock:
                            self.cuts += 1
                        return
                    limit = None if limit is None else limit - len(data)
                    other[side].sendall(data)
        except OSError:
            pass
        finally:
            for s in (client, server):
                s.close()

    def close(self):
        os.close(self.stop_writer)
        for thread in self.threads:
            thread.join(10)
        self.listener.close()
        os.close(self.stop_reader)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Member:
    """A member of a group in a process of its own: `wait(what)` reads what happens until something is so."""

    def __init__(self, port, group, topics, **settings):
        self.events = []
        self.records = []
        self.partitions = None
        self.seen = threading.Condition()
        words = ['/usr/bin/python3', os.path.abspath(__file__), str(port), group, ','.join(topics), json.dumps(settings)]
        self.process = subprocess.Popen([*brokers.DIE_WITH_US, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            event = json.loads(line)
            with self.seen:
                if event[0] == 'record':
                    self.records.append(event[1:])
                elif event[0] == 'assigned':
                    self.partitions = [tuple(p) for p in event[1]]
                elif event[0] == 'revoked':
                    self.partitions = None
                self.events.append(event)
                self.seen.notify_all()
        with self.seen:
            self.seen.notify_all()

    def wait(self, what, seconds=30):
        """Until what(self) is true."""
        with self.seen:
            if not self.seen.wait_for(lambda: what(self) or not self.reader.is_alive(), seconds) or not what(self):
                raise AssertionError('not within %d s; it ended with %s, the last events: %s\n%s' % (
                    seconds, self.process.poll(), self.events[-5:], self.process.stderr.read() if self.process.poll() is not None else ''))
        return self

    def stop(self):
        """It leaves the group."""
        if self.process.poll() is None:
            self.process.stdin.close()
            self.process.wait(30)
        self.end()

    def kill(self):
        self.process.kill()
        self.end()

    def end(self):
        self.process.wait()
        self.reader.join(10)
        for f in (self.process.stdin, self.process.stdout, self.process.stderr):
            f.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.kill()
        elif not self.process.stdout.closed:
            self.end()


def member(port, group, topics, settings):
    """The program: `["assigned", [[topic, partition]]]`, `["revoked"]`, `["record", topic, partition, offset, value]`,
    `["committed"]`."""
    ends = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ends.set())
    threading.Thread(target=lambda: (sys.stdin.read(), ends.set()), daemon=True).start()

    def say(*event):
        print(json.dumps(event), flush=True)
    consumer = confluent_kafka.Consumer({
        'bootstrap.servers': '127.0.0.1:%d' % port, 'group.id': group, 'auto.offset.reset': 'earliest', 'enable.auto.commit': False,
        'session.timeout.ms': 6000, 'heartbeat.interval.ms': 100, 'fetch.wait.max.ms': 50, 'reconnect.backoff.ms': 10,
        'topic.metadata.refresh.interval.ms': 500, 'allow.auto.create.topics': True, **settings})
    consumer.subscribe(topics, on_assign=lambda _, ps: say('assigned', sorted((p.topic, p.partition) for p in ps)),
                       on_revoke=lambda _, ps: say('revoked'))
    while not ends.is_set():
        message = consumer.poll(0.05)
        if message is None:
            continue
        if message.error():
            say('error', str(message.error()))
            continue
        say('record', message.topic(), message.partition(), message.offset(), (message.value() or b'').decode())
        try:
            consumer.commit(message, asynchronous=False)
            say('committed', message.topic(), message.partition(), message.offset() + 1)
        except confluent_kafka.KafkaException as e:
            say('error', str(e))
    consumer.close()


if __name__ == '__main__':
    member(int(sys.argv[1]), sys.argv[2], sys.argv[3].split(','), json.loads(sys.argv[4]))
