#!/usr/bin/env python3
"""Publishes three readings of a boiler, each by the client of another protocol, and prints the alert that the query of alerts.sql makes of them."""
import json
import subprocess
import sys

import pika

OFFSET = int(sys.argv[1]) if len(sys.argv) > 1 else 0      # of the broker's ports


def reading(celsius, second):
    return json.dumps({'sensor': 'boiler', 'celsius': celsius, 'at': '2026-01-01T12:00:%02dZ' % second})


connection = pika.BlockingConnection(pika.ConnectionParameters('localhost', 5672 + OFFSET))
channel = connection.channel()

channel.basic_publish(exchange='amq.topic', routing_key='sensors.boiler', body=reading(88, 1))
subprocess.run(['kcat', '-P', '-b', 'localhost:%d' % (9092 + OFFSET), '-t', 'sensors'], input=reading(95, 5), text=True, check=True)
subprocess.run(['mosquitto_pub', '-p', str(1883 + OFFSET), '-q', '1', '-t', 'sensors/boiler', '-m', reading(99, 9)], check=True)

for method, properties, body in channel.consume('alerts', inactivity_timeout=30):
    print(body.decode() if body else 'no alert')
    if method:
        channel.basic_ack(method.delivery_tag)
    break
connection.close()
