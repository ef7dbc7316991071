"""Fetch sessions (KIP-227) as the Java client uses them: a reader that names only what has changed sees each record once, in order, whatever it
adds and forgets, whoever makes partitions and topics, and wherever the broker is killed.

MILLRACE_KAFKA_SEED chooses what happens.
"""

import random

import pytest

import brokers
import kafka_wire
from conftest import TARGET
from kafka_clients import made

pytestmark = pytest.mark.skipif(TARGET == 'rabbitmq', reason='RabbitMQ does not speak Kafka')
if TARGET == 'rabbitmq':
    collect_ignore = [__file__]

SEED = brokers.seed('MILLRACE_KAFKA_SEED')
ROUNDS, PARTITIONS = 400, 12
NOT_FOUND, EPOCH = 70, 71       # FETCH_SESSION_ID_NOT_FOUND, INVALID_FETCH_SESSION_EPOCH


@pytest.fixture
def broker(fresh_broker):
    return fresh_broker


class Reader:
    """Positions of its own, and what its session knows of them."""

    def __init__(self, port):
        self.at, self.known = {}, {}
        self.session, self.epoch, self.refused = 0, 0, []
        self.connect(port)

    def connect(self, port):
        """With the session of before, which belongs to a connection that is gone."""
        self.wire = kafka_wire.Wire(port)

    def named(self, parts):
        by_topic = {}
        for topic, part in sorted(parts):
            by_topic.setdefault(topic, []).append(part)
        return by_topic

    def fetch(self):
        """One request; {(topic, partition): [values]} of its answer."""
        changed = [p for p, offset in self.at.items() if self.epoch == 0 or self.known.get(p) != offset]
        gone = [p for p in self.known if p not in self.at]
        answer = self.wire.call('fetch', 12, max_wait_ms=20, min_bytes=1, max_bytes=1 << 16, isolation_level=0, session_id=self.session,
                                session_epoch=self.epoch, topics=[{'topic': t, 'partitions': [
                                    {'partition': n, 'fetch_offset': self.at[t, n], 'partition_max_bytes': 4096} for n in parts]}
                                    for t, parts in self.named(changed).items()],
                                forgotten_topics_data=[{'topic': t, 'partitions': parts} for t, parts in self.named(gone).items()] if self.epoch else [])
        if answer['error_code']:
            self.refused.append(answer['error_code'])
            self.session = self.epoch = 0
            self.known = {}
            return {}
        self.known = dict(self.at)
        if self.epoch == 0:
            self.session = answer['session_id']
        assert answer['session_id'] == self.session != 0
        self.epoch += 1
        return self.take(answer)

    def take(self, answer):
        out = {}
        for topic in answer['responses']:
            for part in topic['partitions']:
                place = topic['topic'], part['partition_index']
                assert part['error_code'] == 0 and place in self.at, (place, part)
                values = [(b['base'] + i, r['value']) for b in kafka_wire.batches(part['records']) for i, r in enumerate(b['records'])]
                out[place] = [v for offset, v in values if offset >= self.at[place]]
                if values:
                    self.at[place] = values[-1][0] + 1
        return out


class Story:
    def __init__(self, broker, rng):
        self.broker, self.random = broker, rng
        self.reader = Reader(broker.kafka_port)
        self.writer = kafka_wire.Wire(broker.kafka_port)
        self.written, self.read, self.left = {}, {}, {}
        self.topics, self.kills = 0, 0
        self.topic()

    def topic(self):
        name = 'story-%d' % self.topics
        self.topics += 1
        made(self.broker, name, PARTITIONS)
        for n in range(PARTITIONS):
            self.written[name, n], self.read[name, n] = [], []
            self.reader.at[name, n] = 0

    def write(self):
        place = self.random.choice(sorted(self.written))
        values = ['%s-%d #%d' % (*place, len(self.written[place]) + i) for i in range(self.random.choice((1, 1, 5, 40)))]
        said = self.writer.call('produce', 9, acks=-1, timeout_ms=10000, topic_data=[{'name': place[0], 'partition_data': [
            {'index': place[1], 'records': kafka_wire.batch(values)}]}])
        assert said['responses'][0]['partition_responses'][0]['error_code'] == 0, said
        self.written[place] += [v.encode() for v in values]

    def forget(self):
        place = self.random.choice(sorted(self.reader.at))
        if len(self.reader.at) > 2:
            self.left[place] = self.reader.at.pop(place)

    def back(self):
        if self.left:
            place = self.random.choice(sorted(self.left))
            self.reader.at[place] = self.left.pop(place)

    def reconnect(self):
        self.reader.wire.close()
        self.reader.connect(self.broker.kafka_port)

    def kill(self):
        self.broker.kill9()
        self.broker.start()
        self.kills += 1
        self.writer.close()
        self.writer = kafka_wire.Wire(self.broker.kafka_port)
        self.reconnect()

    def fetch(self):
        for place, values in self.reader.fetch().items():
            self.read[place] += values
            wanted = self.written[place][:len(self.read[place])]
            assert self.read[place] == wanted, (place, SEED)

    def turn(self):
        steps = {self.write: 60, self.fetch: 80, self.forget: 10, self.back: 12, self.reconnect: 1, self.topic: 1}
        self.random.choices(list(steps), steps.values())[0]()


def test_a_reader_of_sessions_sees_all_of_it_once(broker):
    story = Story(broker, random.Random(SEED))
    for n in range(ROUNDS):
        story.turn()
        if n % (ROUNDS // 3) == ROUNDS // 6 and TARGET == 'millrace':
            story.kill()
    while story.left:
        story.back()
    for _ in range(2000):
        story.fetch()
        if story.read == story.written:
            break
    assert story.read == story.written, SEED
    # A session that another connection began is not found; Kafka keeps it, and knows a restart by its own.
    assert set(story.reader.refused) <= ({NOT_FOUND} if TARGET == 'millrace' else {NOT_FOUND, EPOCH}), SEED
    assert TARGET != 'millrace' or story.reader.refused


def test_what_has_no_news_is_not_told(broker):
    """A thousand partitions in one session: an answer is as long as its news."""
    made(broker, 'many', 1000)
    reader, writer = Reader(broker.kafka_port), kafka_wire.Wire(broker.kafka_port)
    reader.at = {('many', n): 0 for n in range(1000)}
    assert reader.fetch().keys() == reader.at.keys()        # the first one tells of all
    assert reader.fetch() == {}
    for n in (7, 999, 0):
        writer.call('produce', 9, acks=-1, timeout_ms=10000, topic_data=[{'name': 'many', 'partition_data': [
            {'index': n, 'records': kafka_wire.batch(['x'])}]}])
        got = {}
        while not got:                                      # the answer that was parked may have come before
            got = {place: values for place, values in reader.fetch().items() if values}
        assert got == {('many', n): [b'x']}
    writer.close()
