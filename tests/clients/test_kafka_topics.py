"""Topics of Kafka clients over kill -9: whatever an administrator was told is so after a restart, and nothing else has changed."""

import random

import pytest

import brokers
from kafka_wire import Wire, batch


class Admin:
    """A client that remembers what it was told."""

    def __init__(self, broker, seed):
        self.broker, self.dice = broker, random.Random(seed)
        self.topics = {}  # name → {id, partitions, retention, ends: {partition: end}, starts: {partition: start}}
        self.gone, self.count = [], 0
        self.wire = Wire(broker.kafka_port)

    def again(self):
        self.wire.close()
        self.wire = Wire(self.broker.kafka_port)

    def create(self):
        self.count += 1
        name, partitions = 'topic-%d' % self.count, self.dice.randint(1, 4)
        answer = self.wire.call('create_topics', 7, timeout_ms=5000, topics=[{
            'name': name, 'num_partitions': partitions, 'replication_factor': 1,
            'configs': [{'name': 'flush.ms', 'value': str(self.count)}]}])['topics'][0]
        assert answer['error_code'] == 0, answer
        self.topics[name] = {'id': answer['topic_id'], 'partitions': partitions, 'retention': '604800000', 'flush': str(self.count),
                             'ends': {}, 'starts': {}}

    def some(self):
        return self.dice.choice(sorted(self.topics))

    def delete(self):
        name = self.some()
        answer = self.wire.call('delete_topics', 6, timeout_ms=5000, topics=[{'name': name}])['responses'][0]
        assert answer['error_code'] == 0 and answer['topic_id'] == self.topics[name]['id'], answer
        self.gone.append(self.topics.pop(name)['id'])

    def grow(self):
        name = self.some()
        count = self.topics[name]['partitions'] + self.dice.randint(1, 3)
        answer = self.wire.call('create_partitions', 3, timeout_ms=5000, topics=[{'name': name, 'count': count, 'assignments': None}])
        assert answer['results'][0]['error_code'] == 0, answer
        self.topics[name]['partitions'] = count

    def alter(self):
        name, value = self.some(), str(self.dice.choice([-1, 60000, 123456, 86400000]))
        answer = self.wire.call('incremental_alter_configs', 1, resources=[{'resource_type': 2, 'resource_name': name, 'configs': [
            {'name': 'retention.ms', 'config_operation': 0, 'value': value}]}])
        assert answer['responses'][0]['error_code'] == 0, answer
        self.topics[name]['retention'] = value

    def produce(self):
        name = self.some()
        topic = self.topics[name]
        partition, count = self.dice.randrange(topic['partitions']), self.dice.randint(1, 5)
        answer = self.wire.call('produce', 9, acks=-1, timeout_ms=5000, topic_data=[{'name': name, 'partition_data': [
            {'index': partition, 'records': batch(['x'] * count)}]}])['responses'][0]['partition_responses'][0]
        assert answer['error_code'] == 0 and answer['base_offset'] == topic['ends'].get(partition, 0), answer
        topic['ends'][partition] = answer['base_offset'] + count

    def trim(self):
        name = self.some()
        topic = self.topics[name]
        if not topic['ends']:
            return
        partition = self.dice.choice(sorted(topic['ends']))
        offset = self.dice.randint(topic['starts'].get(partition, 0), topic['ends'][partition])
        answer = self.wire.call('delete_records', 2, timeout_ms=5000, topics=[{'name': name, 'partitions': [
            {'partition_index': partition, 'offset': offset}]}])['topics'][0]['partitions'][0]
        assert answer == {'partition_index': partition, 'error_code': 0, 'low_watermark': offset}, answer
        topic['starts'][partition] = offset

    def work(self, steps):
        while len(self.topics) < 3:
            self.create()
        for _ in range(steps):
            self.dice.choice([self.create, self.grow, self.alter, self.produce, self.produce, self.trim, self.delete])()
            if not self.topics:
                self.create()

    def compare(self):
        listed = {t['name']: t for t in self.wire.call('metadata', 12, topics=None)['topics']}
        assert sorted(listed) == sorted(self.topics)
        for name, topic in self.topics.items():
            assert listed[name]['topic_id'] == topic['id'] and len(listed[name]['partitions']) == topic['partitions'], name
            assert topic['id'] not in self.gone
            configs = {c['name']: c['value'] for c in self.wire.call('describe_configs', 4, resources=[
                {'resource_type': 2, 'resource_name': name, 'configuration_keys': ['retention.ms', 'flush.ms']}])['results'][0]['configs']}
            assert configs == {'retention.ms': topic['retention'], 'flush.ms': topic['flush']}, name
            for timestamp, known in ((-2, topic['starts']), (-1, topic['ends'])):
                answer = self.wire.call('list_offsets', 5, replica_id=-1, topics=[{'name': name, 'partitions': [
                    {'partition_index': p, 'timestamp': timestamp} for p in range(topic['partitions'])]}])['topics'][0]['partitions']
                assert {p['partition_index']: p['offset'] for p in answer} == {p: known.get(p, 0) for p in range(topic['partitions'])}, name
        if self.gone:
            answer = self.wire.call('metadata', 12, topics=[{'name': None, 'topic_id': i} for i in set(self.gone)])['topics']
            assert {t['error_code'] for t in answer} == {100}


@pytest.mark.parametrize('seed, compact_every', [(1, 0), (2, 29)])
def test_administration_survives_kill9(seed, compact_every):
    broker = brokers.Millrace(args=('--set=journal.compact_every=%d' % compact_every,)).start()
    try:
        admin = Admin(broker, seed)
        for _ in range(8):
            admin.work(40)
            admin.compare()
            broker.kill9()
            broker.cli('check')
            broker.start()
            admin.again()
            admin.compare()
    finally:
        broker.remove()
