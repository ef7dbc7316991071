"""Sends what has been paid, while there is any.

    stock.py FOLDER
"""
import sys

from shop import Service

EACH = 8        # of every item, in the beginning

service = Service('stock', sys.argv[1], 'CREATE TABLE IF NOT EXISTS stock (item TEXT PRIMARY KEY, left INTEGER);')
with service.books:
    service.books.executemany('INSERT OR IGNORE INTO stock VALUES (?, ?)', [(item, EACH) for item in ('cup', 'pot', 'pan', 'jug')])


def reserve(event):
    there = service.books.execute('UPDATE stock SET left = left - 1 WHERE item = ? AND left > 0', (event['item'],)).rowcount
    service.tell('stock.reserved' if there else 'stock.missing', event)


service.serve({'payment.taken': reserve})
