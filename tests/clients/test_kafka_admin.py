"""Topics and settings through the administration clients of python3-kafka and librdkafka.

    MILLRACE_TARGET=kafka /usr/bin/python3 -m pytest tests/clients/test_kafka*.py     # a real Kafka: tests the tests
"""


import confluent_kafka
import kafka
import pytest
from confluent_kafka import admin as confluent_admin
from kafka.admin import ConfigResource, ConfigResourceType, NewPartitions, NewTopic
from kafka.errors import InvalidPartitionsError, InvalidTopicError, TopicAlreadyExistsError, UnknownTopicOrPartitionError

from conftest import TARGET
from kafka_clients import at, made, producer, until

pytestmark = pytest.mark.skipif(TARGET == 'rabbitmq', reason='RabbitMQ does not speak Kafka')
if TARGET == 'rabbitmq':
    collect_ignore = [__file__]


def test_admin_of_python_kafka(broker, topic):
    admin = kafka.KafkaAdminClient(bootstrap_servers=at(broker))
    try:
        admin.create_topics([NewTopic(topic, 3, 1, topic_configs={'retention.ms': '3600000'})])
        with pytest.raises(TopicAlreadyExistsError):
            admin.create_topics([NewTopic(topic, 3, 1)])
        with pytest.raises(InvalidTopicError):
            admin.create_topics([NewTopic('not a name', 1, 1)])
        until(lambda: topic in admin.list_topics())
        described = until(lambda: [d for d in admin.describe_topics([topic]) if d['error_code'] == 0 and len(d['partitions']) == 3])[0]
        assert [p['partition'] for p in sorted(described['partitions'], key=lambda p: p['partition'])] == [0, 1, 2]
        answer = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])[0]
        settings = {c[0]: c[1] for c in answer.resources[0][4]}
        assert settings['retention.ms'] == '3600000' and settings['cleanup.policy'] == 'delete'
        admin.create_partitions({topic: NewPartitions(5)})
        with pytest.raises(InvalidPartitionsError):
            admin.create_partitions({topic: NewPartitions(2)})
        until(lambda: len(admin.describe_topics([topic])[0]['partitions']) == 5)
        cluster = admin.describe_cluster()
        assert [(b['host'], b['port']) for b in cluster['brokers']] == [('127.0.0.1', broker.kafka_port)]
        admin.delete_topics([topic])
        until(lambda: topic not in admin.list_topics())
        with pytest.raises(UnknownTopicOrPartitionError):
            admin.delete_topics([topic])
    finally:
        admin.close()


def test_admin_of_librdkafka(broker, topic):
    admin = confluent_admin.AdminClient({'bootstrap.servers': at(broker)})
    admin.create_topics([confluent_admin.NewTopic(topic, 2, 1, config={'retention.bytes': '5000000'})])[topic].result(20)
    with pytest.raises(confluent_kafka.KafkaException) as e:
        admin.create_topics([confluent_admin.NewTopic(topic, 2, 1)])[topic].result(20)
    assert e.value.args[0].code() == confluent_kafka.KafkaError.TOPIC_ALREADY_EXISTS
    until(lambda: len(admin.list_topics(topic, timeout=10).topics[topic].partitions) == 2)
    resource = confluent_admin.ConfigResource(confluent_admin.RESOURCE_TOPIC, topic)
    settings = admin.describe_configs([resource])[resource].result(20)
    assert settings['retention.bytes'].value == '5000000' and not settings['retention.bytes'].is_default
    assert settings['retention.ms'].value == '604800000' and settings['retention.ms'].is_default
    changed = confluent_admin.ConfigResource(confluent_admin.RESOURCE_TOPIC, topic, set_config={'retention.ms': '1234567'})
    admin.alter_configs([changed])[changed].result(20)
    until(lambda: admin.describe_configs([resource])[resource].result(20)['retention.ms'].value == '1234567')
    admin.create_partitions([confluent_admin.NewPartitions(topic, 4)])[topic].result(20)
    until(lambda: len(admin.list_topics(topic, timeout=10).topics[topic].partitions) == 4)
    admin.delete_topics([topic])[topic].result(20)
    until(lambda: topic not in admin.list_topics(timeout=10).topics)


def test_a_record_that_is_too_large_is_refused(broker, topic):
    made(broker, topic, max_message_bytes=5000)
    p = producer(broker)
    with pytest.raises(kafka.errors.MessageSizeTooLargeError):
        p.send(topic, b'x' * 6000).get(10)
    assert p.send(topic, b'x' * 4000).get(10).offset == 0
    p.close()
