"""What the services of the shop share: each hears events, keeps its own books, and tells events of its own, so that every event counts once.

A service keeps its books in one SQLite file. What a handler changes there, the note that its event was seen (inbox) and the events it tells
(outbox) are one transaction of that file. An event leaves the outbox when the broker has confirmed it, and is acknowledged when all that is done.
So a service may be killed at any moment: what it had not finished comes again, what it had finished is known by its id.
"""
import datetime
import json
import os
import sqlite3
import sys
import uuid

import pika

EXCHANGE, LATER = 'shop', 'shop.later'
HEARS = {'orders': ('stock.reserved', 'payment.refused', 'payment.returned', 'order.due'),
         'payment': ('order.placed', 'stock.missing'),
         'stock': ('payment.taken',)}


def port_offset():
    """Of the broker's ports; so that the shop can be tried beside another broker."""
    return int(os.environ.get('PORT_OFFSET', '0'))


def connect():
    return pika.BlockingConnection(pika.ConnectionParameters('localhost', 5672 + port_offset()))


def declare(channel):
    """The event bus and everybody's queue. Whoever comes first declares all, so that nothing is told before somebody can hear it."""
    channel.exchange_declare(EXCHANGE, 'topic', durable=True)
    channel.exchange_declare(LATER, 'x-delayed-message', durable=True, arguments={'x-delayed-type': 'topic'})
    channel.exchange_bind(EXCHANGE, LATER, '#')                 # published to LATER with a header x-delay, it comes to EXCHANGE when its time has come
    for name, kinds in HEARS.items():
        parked = name + '.parked'
        channel.queue_declare(parked, durable=True)
        channel.queue_declare(name, durable=True, arguments={
            'x-message-deduplication': True, 'x-deduplication-header': 'event', 'x-cache-ttl': 3600_000,    # what was published twice comes once
            'x-delayed-retry-min': 50, 'x-delayed-retry-multiplier': 2, 'x-delayed-retry-max': 400,         # again after 50, 100, 200 ms ...
            'x-delivery-limit': 12, 'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': parked})     # ... and then to where somebody looks
        for kind in kinds:
            channel.queue_bind(name, EXCHANGE, kind)


class Later(Exception):
    """A handler cannot do it now; the broker brings the event again after a while."""


class Service:
    def __init__(self, name, folder, tables=''):
        self.name = name
        self.books = sqlite3.connect(os.path.join(folder, name + '.db'))
        self.books.executescript('CREATE TABLE IF NOT EXISTS inbox (event TEXT PRIMARY KEY);'
                                 'CREATE TABLE IF NOT EXISTS outbox (n INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT, delay INTEGER, body TEXT);' + tables)
        self.channel = connect().channel()
        self.channel.confirm_delivery()                         # basic_publish comes back when the event is on disk
        declare(self.channel)

    def tell(self, kind, order, delay_ms=0):
        """Puts an event into the outbox, within the transaction of the caller."""
        event = dict(order, kind=kind, event=str(uuid.uuid4()), at=datetime.datetime.now(datetime.timezone.utc).isoformat())
        self.books.execute('INSERT INTO outbox (kind, delay, body) VALUES (?, ?, ?)', (kind, delay_ms, json.dumps(event)))

    def send(self):
        """Publishes what is in the outbox. Who is killed between publish and DELETE publishes again, with the same id."""
        for n, kind, delay, body in self.books.execute('SELECT n, kind, delay, body FROM outbox ORDER BY n').fetchall():
            headers = {'event': json.loads(body)['event']}
            if delay:
                headers['x-delay'] = delay
            self.channel.basic_publish(LATER if delay else EXCHANGE, kind, body, pika.BasicProperties(
                delivery_mode=2, content_type='application/json', headers=headers))
            with self.books:
                self.books.execute('DELETE FROM outbox WHERE n = ?', (n,))

    def serve(self, handlers):
        """Hears events until it is stopped. A handler of each kind takes an event as a dict."""
        self.channel.basic_qos(prefetch_count=20)
        self.send()                                             # what a predecessor that was killed has left
        for method, properties, body in self.channel.consume(self.name):
            try:
                event = json.loads(body)
                with self.books:
                    if self.books.execute('INSERT OR IGNORE INTO inbox VALUES (?)', (event['event'],)).rowcount:
                        handlers[event['kind']](event)
                self.send()
                self.channel.basic_ack(method.delivery_tag)
            except Later:
                self.channel.basic_nack(method.delivery_tag)
            except (KeyError, TypeError, ValueError) as e:      # hardly better next time, but who knows: in the end it is parked
                if not properties.headers.get('x-delivery-count'):
                    print('%s cannot use %s: %r' % (self.name, body.decode(errors='replace'), e), file=sys.stderr)
                self.channel.basic_nack(method.delivery_tag)
