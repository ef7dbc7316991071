"""One member of a consumer group, as a process that can be killed: kafka_member.py LIBRARY PORT GROUP TOPIC [INSTANCE].

Says on its standard output, a line each: `assigned P …` when it is given partitions, `read P OFFSET VALUE` for a record, and after
each batch `committed P OFFSET` once the broker has answered. Leaves its group on SIGTERM.
"""
import signal
import sys

BATCH = 25
SESSION_MS = 6000

running = [True]
signal.signal(signal.SIGTERM, lambda *_: running.clear())


def say(*words):
    sys.stdout.write(' '.join(map(str, words)) + '\n')


def python(port, group, topic):
    import kafka
    import kafka.errors

    class Listener(kafka.ConsumerRebalanceListener):
        def on_partitions_revoked(self, revoked):
            pass

        def on_partitions_assigned(self, assigned):
            say('assigned', *sorted(p.partition for p in assigned))

    consumer = kafka.KafkaConsumer(bootstrap_servers='127.0.0.1:%d' % port, group_id=group, auto_offset_reset='earliest',
                                   enable_auto_commit=False, session_timeout_ms=SESSION_MS, heartbeat_interval_ms=500,
                                   max_poll_records=BATCH, metadata_max_age_ms=2000)
    consumer.subscribe([topic], listener=Listener())
    while running:
        batch = consumer.poll(200)
        for part, records in batch.items():
            for record in records:
                say('read', part.partition, record.offset, record.value.decode())
        sys.stdout.flush()
        if not batch:
            continue
        try:
            consumer.commit()
        except kafka.errors.KafkaError:     # a rebalance came between, or the broker went: they are read again
            continue
        for part, records in batch.items():
            say('committed', part.partition, records[-1].offset + 1)
        sys.stdout.flush()
    consumer.close(autocommit=False)


def confluent(port, group, topic, instance=None):
    import confluent_kafka

    settings = {'bootstrap.servers': '127.0.0.1:%d' % port, 'group.id': group, 'auto.offset.reset': 'earliest',
                'enable.auto.commit': False, 'session.timeout.ms': SESSION_MS, 'heartbeat.interval.ms': 500,
                'reconnect.backoff.max.ms': 500, 'log_level': 0}
    if instance:
        settings['group.instance.id'] = instance
    consumer = confluent_kafka.Consumer(settings)
    consumer.subscribe([topic], on_assign=lambda _, parts: say('assigned', *sorted(p.partition for p in parts)))
    while running:
        ends = {}
        for message in consumer.consume(BATCH, 0.2):
            if message.error():
                continue
            say('read', message.partition(), message.offset(), message.value().decode())
            ends[message.partition()] = message.offset() + 1
        sys.stdout.flush()
        if not ends:
            continue
        try:
            consumer.commit(offsets=[confluent_kafka.TopicPartition(topic, *end) for end in ends.items()], asynchronous=False)
        except confluent_kafka.KafkaException:
            continue
        for end in ends.items():
            say('committed', *end)
        sys.stdout.flush()
    consumer.close()


if __name__ == '__main__':
    {'python': python, 'confluent': confluent}[sys.argv[1]](int(sys.argv[2]), *sys.argv[3:])
