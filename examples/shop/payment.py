"""Takes the money for an order, and gives it back when there is nothing to send. The bank does not always answer, and not every card is good.

    payment.py FOLDER
"""
import random
import sys

from shop import Later, Service

service = Service('payment', sys.argv[1], 'CREATE TABLE IF NOT EXISTS payments (order_id TEXT PRIMARY KEY, cents INTEGER);')


def take(event):
    cents = int(event['cents'])
    if random.random() < 0.2:
        raise Later('the bank does not answer')
    if random.random() < 0.1:
        service.tell('payment.refused', event)
        return
    service.books.execute('INSERT INTO payments VALUES (?, ?)', (event['order_id'], cents))
    service.tell('payment.taken', event)


def give_back(event):
    """What has been done cannot be rolled back, so it is made good: that is all there is to a saga."""
    service.books.execute('DELETE FROM payments WHERE order_id = ?', (event['order_id'],))
    service.tell('payment.returned', event)


service.serve({'order.placed': take, 'stock.missing': give_back})
