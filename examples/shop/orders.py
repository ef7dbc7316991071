"""Takes orders, and knows how each of them stands: placed, shipped or cancelled.

    orders.py FOLDER [N]     places N orders first (the last of them is nonsense), then hears what becomes of them
"""
import random
import sys

from shop import Service

ITEMS = {'cup': 950, 'pot': 3900, 'pan': 2500, 'jug': 1800}     # and their price in cents
DUE_MS = 3000

service = Service('orders', sys.argv[1], 'CREATE TABLE IF NOT EXISTS orders (order_id TEXT PRIMARY KEY, item TEXT, cents, state TEXT, late INTEGER DEFAULT 0);')


def place(order_id, item, cents):
    """The order and the events about it are there together, or not at all."""
    order = {'order_id': order_id, 'item': item, 'cents': cents}
    with service.books:
        service.books.execute("INSERT INTO orders (order_id, item, cents, state) VALUES (?, ?, ?, 'placed')", (order_id, item, cents))
        service.tell('order.placed', order)
        service.tell('order.due', order, delay_ms=DUE_MS)       # a message to ourselves: have a look at it then
    service.send()


def ends(state):
    def handler(event):
        order = {name: event[name] for name in ('order_id', 'item', 'cents')}
        service.books.execute('UPDATE orders SET state = ? WHERE order_id = ?', (state, event['order_id']))
        service.tell('order.' + state, order)
    return handler


def look(event):
    if service.books.execute("UPDATE orders SET late = 1 WHERE order_id = ? AND state = 'placed'", (event['order_id'],)).rowcount:
        service.tell('order.late', {'order_id': event['order_id']})


for number in range(int(sys.argv[2]) if len(sys.argv) > 2 else 0):
    item = random.choice(sorted(ITEMS))
    place('order-%d' % number, item, ITEMS[item] if number + 1 < int(sys.argv[2]) else 'ten')
service.serve({'stock.reserved': ends('shipped'), 'payment.refused': ends('cancelled'), 'payment.returned': ends('cancelled'), 'order.due': look})
