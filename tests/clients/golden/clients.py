#!/usr/bin/python3
"""Makes the golden stores of what clients leave: sessions, retained values and wills of MQTT, share groups of Kafka and what is set of them.

    tests/clients/golden/clients.py BINARY VERSION

writes clients/VERSION-clean.tar.xz (stopped by SIGTERM), clients/VERSION-killed.tar.xz (kill -9: the records as they were appended) and
clients/VERSION-*.json (what each holds, read back by the same binary from a copy). Run once per format version, with the broker of that
day, and never again; test_golden_clients.py opens them.
"""
import json
import os
import struct
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
sys.path.insert(0, HERE)

import kafka_clients  # noqa: E402
import kafka_wire  # noqa: E402
import mqtt_rows  # noqa: E402
from make import Old, pack  # noqa: E402
from test_kafka_share import ACCEPT, RELEASE, Sharer, acquired, set_group  # noqa: E402

FOR_EVER = 2 ** 32 - 1
SETTINGS = ('--set', 'mqtt.session_expiry_max=%d' % FOR_EVER, '--set', 'journal.file_bytes=1M')
NAMES = {2: 'CONNACK', 3: 'PUBLISH', 4: 'PUBACK', 5: 'PUBREC', 6: 'PUBREL', 7: 'PUBCOMP', 9: 'SUBACK'}


class Client(mqtt_rows.Connection):
    """An MQTT 5 client with a session that lasts, or 3.1.1 without one."""

    def __init__(self, broker, name, version=5, will=None):
        super().__init__(broker.port - 5672 + 1883, timeout=30)
        self.version = version
        props = b'\x11' + struct.pack('>I', FOR_EVER) if version == 5 else b''
        flags, rest = (0 if version == 5 else 2), b''
        if will:
            topic, body, delay = will
            flags |= 4 | 1 << 3 | 32
            rest = (b'\5\x18' + struct.pack('>I', delay) if version == 5 else b'') + mqtt_rows.text(topic) + mqtt_rows.text(body)
        self.send(mqtt_rows.connect(version, name, flags, 0, props, rest))
        self.present = self.wait('CONNACK')[0]

    def wait(self, kind):
        """The body of the next packet, which is of that kind."""
        first, body = self.next(30)
        assert NAMES.get(first >> 4) == kind, (kind, first, body)
        return body

    def subscribe(self, *filters):
        self.send(mqtt_rows.subscribe(self.version, *filters))
        return self.wait('SUBACK')

    def publish(self, topic, body, qos, pid=1, retain=False, props=b''):
        self.send(mqtt_rows.publish(self.version, topic, body, qos, pid, 1 if retain else 0, props))

    def answer(self, kind, pid):
        self.send(mqtt_rows.packet(kind << 4 | (2 if kind == 6 else 0), struct.pack('>H', pid)))

    def message(self):
        """The next PUBLISH: (packet id, [topic, QoS, DUP, RETAIN, body])"""
        first, body = self.next(30)
        assert first >> 4 == 3, (first, body)
        return self.message_of(first, body)

    def message_of(self, first, body):
        at = 2 + struct.unpack('>H', body[:2])[0]
        topic, qos, pid = body[2:at].decode(), first >> 1 & 3, 0
        if qos:
            pid, at = struct.unpack('>H', body[at:at + 2])[0], at + 2
        if self.version == 5:
            at += 1 + body[at]
        return pid, [topic, qos, bool(first & 8), bool(first & 1), body[at:].decode()]


def fill_mqtt(broker):
    golden = Client(broker, 'golden')
    golden.subscribe(('t/#', 2), ('zero/+', 0), ('$share/g/j', 1))
    publisher = Client(broker, 'publisher')
    publisher.publish('t/a', b'one', 1, 6)
    publisher.wait('PUBACK')
    publisher.publish('t/b', b'two, without PUBREL', 2, 7)
    publisher.wait('PUBREC')
    publisher.publish('t/b', b'three, whole', 2, 8)
    publisher.wait('PUBREC')
    publisher.answer(6, 8)
    publisher.wait('PUBCOMP')
    publisher.publish('j', b'a job', 1, 9)
    publisher.wait('PUBACK')
    got = {message[4]: pid for pid, message in (golden.message() for _ in range(4))}
    golden.answer(5, got['two, without PUBREL'])
    golden.wait('PUBREL')
    # A value that is kept for as long as may be, ten years, is for test_formats.py: nobody looks at it through a broker.
    for topic, body, props in (('r/a', b'kept', b''), ('r/b', b'replaced', b''), ('r/b', b'again', b''), ('r/c', b'deleted', b''), ('r/c', b'', b''),
                               ('lasting', b'for long', b'\x02' + struct.pack('>I', FOR_EVER))):
        publisher.publish(topic, body, 1, 10, True, props)
        publisher.wait('PUBACK')
    mourned = Client(broker, 'mourned', 4, ('w/now', b'gone', 0))
    patient = Client(broker, 'patient', 5, ('w/late', b'not yet', FOR_EVER))
    return golden, publisher, mourned, patient


def fill_share(broker):
    kafka_clients.made(broker, 'gt', 1, retention_ms=-1)
    set_group(broker, 'gs', share_auto_offset_reset='earliest', share_delivery_count_limit='7')
    with kafka_wire.Wire(broker.kafka_port) as w:
        w.call('produce', 7, acks=-1, timeout_ms=10000, transactional_id=None, topic_data=[
            {'name': 'gt', 'partition_data': [{'index': 0, 'records': kafka_wire.batch([b'%d' % i for i in range(5)])}]}])
    sharer = Sharer(broker.kafka_port, 'gs', ['gt']).has(1)
    sharer.take(5)
    topic = next(iter(sharer.partitions))
    said = sharer.acknowledge({(topic, 0): [(0, 1, [ACCEPT]), (2, 2, [RELEASE]), (3, 3, [ACCEPT])]})
    assert said['error_code'] == 0, said
    return sharer


def fill(broker):
    kept = fill_mqtt(broker), fill_share(broker)
    time.sleep(1.5)                         # the note of an idle journal, so that a killed broker's end is known
    return kept


def look_mqtt(broker):
    """What the clients find that come back, and one that looks at all that is retained."""
    golden = Client(broker, 'golden')
    found = {'golden': golden.present, 'released': struct.unpack('>H', golden.wait('PUBREL')[:2])[0]}
    found['messages'] = sorted(golden.message() for _ in range(3))
    publisher = Client(broker, 'publisher')
    found['publisher'] = publisher.present
    for pid in (7, 8):
        publisher.answer(6, pid)
        found['release of %d' % pid] = (publisher.wait('PUBCOMP') + b'\0')[2]
    found['live'] = []
    for topic in ('zero/x', 't/x', 'j'):
        publisher.publish(topic, b'live', 2, 20 + len(found['live']))
        publisher.wait('PUBREC')
        found['live'].append(golden.message()[1])
    other = Client(broker, 'other', 4)
    other.send(mqtt_rows.subscribe(4, ('r/#', 0), ('w/#', 0)))
    other.wait('SUBACK')
    found['retained'] = sorted(other.message()[1] for _ in range(3))
    found['patient'] = Client(broker, 'patient').present
    return found


def look_share(broker):
    with kafka_wire.Wire(broker.kafka_port) as w:
        said = w.call('describe_configs', 4, resources=[{'resource_type': 32, 'resource_name': 'gs', 'configuration_keys': [
            'share.auto.offset.reset', 'share.delivery.count.limit']}])
        configs = {c['name']: c['value'] for c in said['results'][0]['configs']}
    with Sharer(broker.kafka_port, 'gs', ['gt']) as sharer:
        sharer.has(1)
        said = sharer.fetch()
        while not acquired(said):
            said = sharer.fetch()
        return {'configs': configs, 'acquired': [list(row) for row in acquired(said)]}


def look(broker):
    return {'mqtt': look_mqtt(broker), 'share': look_share(broker)}


def plain(found):
    """As it comes out of JSON."""
    return json.loads(json.dumps(found))


def main():
    binary, version = os.path.abspath(sys.argv[1]), sys.argv[2]
    for end in ('clean', 'killed'):
        broker = Old(binary, args=SETTINGS)
        reader = None
        try:
            broker.start()
            kept = fill(broker)
            if end == 'clean':
                assert broker.stop()[0] == 0
            else:
                broker.kill9()
            del kept
            name = os.path.join(HERE, 'clients', '%s-%s' % (version, end))
            pack(broker.data, name + '.tar.xz')
            reader = Old(binary, broker.data, args=())
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
