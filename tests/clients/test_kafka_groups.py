"""Consumer groups with real clients, python3-kafka and confluent-kafka side by side: members come, leave and are killed, and so is
the broker; every record is read, and what was committed stays committed."""

import os
import signal
import subprocess
import threading

import pytest

import brokers

kafka = pytest.importorskip('kafka')
admin = pytest.importorskip('kafka.admin')
pytest.importorskip('confluent_kafka')

HERE = os.path.dirname(os.path.abspath(__file__))
PARTITIONS = 6


class Member:
    def __init__(self, library, broker, group, topic, *more):
        self.read, self.committed, self.assigned = {}, {}, []
        self.process = subprocess.Popen([*brokers.DIE_WITH_US, '/usr/bin/python3', os.path.join(HERE, 'kafka_member.py'), library,
                                         str(broker.kafka_port), group, topic, *more], stdout=subprocess.PIPE, text=True)
        self.thread = threading.Thread(target=self.listen, daemon=True)
        self.thread.start()

    def listen(self):
        for line in self.process.stdout:
            word, *rest = line.split()
            if word == 'read':
                self.read.setdefault((int(rest[0]), int(rest[1])), rest[2])
            elif word == 'committed':
                self.committed[int(rest[0])] = max(int(rest[1]), self.committed.get(int(rest[0]), 0))
            else:
                self.assigned.append([int(p) for p in rest])

    def end(self, how=signal.SIGKILL):
        self.process.send_signal(how)
        self.process.wait(30)
        self.thread.join(10)


@pytest.fixture
def broker(fresh_millrace):
    yield fresh_millrace
    assert fresh_millrace.process.poll() is None, fresh_millrace.log_tail()


@pytest.fixture
def members():
    made = []
    try:
        yield made
    finally:
        for m in made:
            m.end()


def client_of(broker):
    return admin.KafkaAdminClient(bootstrap_servers='127.0.0.1:%d' % broker.kafka_port)


def fill(broker, topic, first, count):
    producer = kafka.KafkaProducer(bootstrap_servers='127.0.0.1:%d' % broker.kafka_port, linger_ms=5)
    for i in range(first, first + count):
        producer.send(topic, b'%d' % i, partition=i % PARTITIONS)
    producer.flush(30)
    producer.close()


def make(broker, topic, count):
    client = client_of(broker)
    client.create_topics([admin.NewTopic(topic, PARTITIONS, 1)])
    client.close()
    fill(broker, topic, 0, count)


def values(members):
    return {v for m in list(members) for v in list(m.read.values())}


def offsets(broker, group):
    client = client_of(broker)
    found = {p.partition: o.offset for p, o in client.list_consumer_group_offsets(group).items()}
    client.close()
    return found


def state_of(broker, group):
    client = client_of(broker)
    said = client.describe_consumer_groups([group])[0]
    client.close()
    return said.state, len(said.members)


def test_members_come_and_go_and_the_broker_dies(broker, members):
    count = 24000
    make(broker, 't', count)
    add = lambda library: members.append(Member(library, broker, 'g', 't'))  # noqa: E731
    until = lambda n: brokers.wait_until(lambda: len(values(members)) >= n, 60, '%d records' % n)  # noqa: E731
    for library in ('python', 'confluent', 'python', 'confluent'):
        add(library)
    until(count // 8)
    members[0].end()                        # its session has to end before its partitions move
    until(count // 4)
    members[1].end(signal.SIGTERM)          # it leaves
    add('confluent')
    until(count // 2)
    broker.kill9()
    broker.start()
    add('python')
    until(count)
    assert values(members) == {str(i) for i in range(count)}
    for m in members:
        m.end(signal.SIGTERM)
    brokers.wait_until(lambda: state_of(broker, 'g') == ('Empty', 0), 20, 'the group is not empty')
    found = offsets(broker, 'g')
    for partition in range(PARTITIONS):     # what a member was told is there, whatever died afterwards
        told = max(m.committed.get(partition, 0) for m in members)
        assert found[partition] >= told > 0, (partition, found, told)
    again = Member('confluent', broker, 'g', 't')
    members.append(again)
    brokers.wait_until(lambda: again.assigned, 30, 'an assignment')
    fill(broker, 't', count, 60)
    brokers.wait_until(lambda: len(again.read) >= 60, 30, 'the newest records')
    read_again = {k for k in again.read if k[1] < count // PARTITIONS}
    assert all(offset >= found[partition] for partition, offset in read_again), 'read again, though it was committed'


def test_a_restart_of_the_broker_is_no_rebalance(broker, members):
    make(broker, 't', 600)
    members += [Member('confluent', broker, 'g', 't') for _ in range(2)]
    brokers.wait_until(lambda: len(values(members)) == 600 and state_of(broker, 'g') == ('Stable', 2), 30, 'a stable group')
    brokers.wait_until(lambda: all(m.committed for m in members) and sum(offsets(broker, 'g').values()) == 600, 20, 'commits')
    before = [len(m.assigned) for m in members]
    broker.kill9()
    broker.start()
    fill(broker, 't', 600, 600)
    brokers.wait_until(lambda: len(values(members)) == 1200, 30, 'all records')
    assert [len(m.assigned) for m in members] == before
    assert state_of(broker, 'g') == ('Stable', 2)


def test_a_static_member_comes_back_to_its_place(broker, members):
    make(broker, 't', 600)
    members += [Member('confluent', broker, 'g', 't', 'one'), Member('confluent', broker, 'g', 't', 'two')]
    brokers.wait_until(lambda: len(values(members)) == 600 and state_of(broker, 'g') == ('Stable', 2), 30, 'a stable group')
    had, before = members[0].assigned[-1], len(members[1].assigned)
    members[0].end()
    again = Member('confluent', broker, 'g', 't', 'one')
    members.append(again)
    brokers.wait_until(lambda: again.assigned, 20, 'an assignment')
    assert again.assigned == [had]
    fill(broker, 't', 600, 600)
    brokers.wait_until(lambda: len(values(members)) == 1200, 30, 'all records')
    assert len(members[1].assigned) == before   # the other one has noticed nothing
    assert state_of(broker, 'g') == ('Stable', 2)


