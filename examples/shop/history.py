"""What has happened to an order, from the first event on.

    history.py ORDER
"""
import json
import sys

from shop import connect

channel = connect().channel()
channel.basic_qos(prefetch_count=100)
seen = set()
for method, _, body in channel.consume('shop_events', arguments={'x-stream-offset': 'first'}, inactivity_timeout=1):
    if method is None:
        break
    event = json.loads(body)
    if event['order_id'] == sys.argv[1] and event['event'] not in seen:
        seen.add(event['event'])
        print(event['at'], event['kind'])
    channel.basic_ack(method.delivery_tag)
