"""One query over what three protocols publish, and its alerts in a queue: the programs of examples/sql-alerts as they are, and the same clients with a
broker that is killed in between."""

import json
import os
import subprocess
import sys

import pika
import pytest

import brokers
from brokers import wait_until

EXAMPLE = os.path.join(brokers.ROOT, 'examples', 'sql-alerts')


@pytest.fixture
def broker(fresh_millrace):
    return fresh_millrace


def sql(broker, *words):
    subprocess.run([broker.binary, 'sql', '--port-offset', str(broker.offset), *words], check=True, timeout=60)


def test_the_example(broker):
    sql(broker, '-f', os.path.join(EXAMPLE, 'alerts.sql'))
    done = subprocess.run([sys.executable, os.path.join(EXAMPLE, 'alerts.py'), str(broker.offset)], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == {'sensor': 'boiler', 'at': '2026-01-01T12:00:10Z', 'mean': 94, 'readings': 3}


def by_pika(broker, bodies):
    connection = pika.BlockingConnection(pika.ConnectionParameters('127.0.0.1', broker.port))
    channel = connection.channel()
    channel.confirm_delivery()
    for body in bodies:
        channel.basic_publish('amq.topic', 'sensors.hall', body, pika.BasicProperties(delivery_mode=2))
    connection.close()


def by_kcat(broker, bodies):
    subprocess.run(['kcat', '-P', '-b', '127.0.0.1:%d' % broker.kafka_port, '-t', 'sensors', '-X', 'acks=all'],
                   input='\n'.join(bodies), text=True, check=True, timeout=60)


def by_mosquitto(broker, bodies):
    subprocess.run(['mosquitto_pub', '-h', '127.0.0.1', '-p', str(broker.mqtt_port), '-q', '1', '-t', 'sensors/hall', '-l'],
                   input='\n'.join(bodies) + '\n', text=True, check=True, timeout=60)


def alerts(broker, count):
    """So many, and not one more."""
    connection = pika.BlockingConnection(pika.ConnectionParameters('127.0.0.1', broker.port))
    channel = connection.channel()
    got = []
    for method, _, body in channel.consume('alerts', inactivity_timeout=30, auto_ack=True):
        assert method, '%d of %d alerts came' % (len(got), count)
        got.append(json.loads(body)['id'])
        if len(got) == count:
            break
    channel.cancel()
    left = channel.queue_declare('alerts', passive=True).method.message_count
    connection.close()
    assert left == 0
    return got


def test_every_alert_once_from_every_client(broker):
    sql(broker, '-c', "CREATE STREAM sensors (id TEXT, celsius DOUBLE) FROM EXCHANGE 'amq.topic' KEY 'sensors.#';"
                      "CREATE SINK alerts WITH (queue = 'alerts') AS SELECT id FROM sensors WHERE celsius > 90")
    clients, expected = {'pika': by_pika, 'kcat': by_kcat, 'mosquitto': by_mosquitto}, []
    for turn in range(3):
        for name, publish in clients.items():
            ids = ['%s %d %d' % (name, turn, i) for i in range(20)]
            publish(broker, [json.dumps({'id': id, 'celsius': 80 + i}) for i, id in enumerate(ids)] + ['no reading'])
            expected += ids[11:]
        broker.kill9()
        broker.start()
    seen = subprocess.run([broker.binary, 'sql', '--port-offset', str(broker.offset), '--json', '-c', 'SELECT COUNT(*) AS n FROM sensors'],
                          capture_output=True, text=True, check=True, timeout=60).stdout
    assert '{"row":[%d]}' % (3 * 3 * 20) in seen      # what is no reading is passed over

    def state():
        lines = subprocess.run([broker.binary, 'sql', '--port-offset', str(broker.offset), '--csv', '-c', 'SHOW QUERIES'],
                               capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
        return dict(zip([c.strip('"') for c in lines[0].split(',')], lines[1].split(',')))
    wait_until(lambda: state()['lag'] == '0', 20, 'all has been read')
    assert sorted(alerts(broker, len(expected))) == sorted(expected)
