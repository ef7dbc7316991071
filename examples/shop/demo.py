"""Opens the shop, lets it work while its services are killed again and again, and looks whether the books are right in the end.

    demo.py [--orders N] [--kills N] [--seed N] [FOLDER]     FOLDER: where the services keep their books; a new one if not said

Exit code: 0 when all is right, 1 when not. PORT_OFFSET in the environment is that of the broker.
"""
import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request

from shop import connect, declare, port_offset

HERE = os.path.dirname(os.path.abspath(__file__))


def sql(text):
    """The rows of one SELECT, over HTTP, as any service would ask."""
    request = urllib.request.Request('http://localhost:%d/sql' % (15672 + port_offset()), text.encode(), {'Content-Type': 'application/sql'})
    with urllib.request.urlopen(request, timeout=30) as answer:
        lines = [json.loads(line) for line in answer]
    if 'error' in lines[-1]:
        sys.exit(lines[-1]['error']['text'])
    return [line['row'] for line in lines if 'row' in line]


def books(folder, service, query):
    database = sqlite3.connect(os.path.join(folder, service + '.db'), timeout=30)
    try:
        return database.execute(query).fetchall()
    finally:
        database.close()


def wait_for(condition, seconds, what):
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            sys.exit('waited %d s for %s' % (seconds, what))
        time.sleep(0.05)


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--orders', type=int, default=60)
    p.add_argument('--kills', type=int, default=6)
    p.add_argument('--seed', type=int)
    p.add_argument('folder', nargs='?')
    o = p.parse_args()
    if o.orders < 1:
        p.error('--orders has to be at least 1')
    random.seed(o.seed)
    folder = o.folder or tempfile.mkdtemp(prefix='shop-')
    channel = connect().channel()
    declare(channel)
    with open(os.path.join(HERE, 'views.sql')) as f:
        sql(f.read())
    running = {}

    def start(name, *words):
        running[name] = subprocess.Popen([sys.executable, os.path.join(HERE, name + '.py'), folder, *words])

    try:
        for name in ('payment', 'stock'):
            start(name)
        start('orders', str(o.orders))
        wait_for(lambda: books(folder, 'orders', "SELECT count(*) FROM sqlite_master WHERE name = 'orders'") == [(1,)], 30, 'the table of orders')
        wait_for(lambda: books(folder, 'orders', 'SELECT count(*) FROM orders') == [(o.orders,)], 60, 'all orders to be placed')
        for _ in range(o.kills):
            time.sleep(random.uniform(0.05, 0.4))
            name = random.choice(sorted(running))
            running[name].send_signal(signal.SIGKILL)
            running[name].wait()
            print('killed', name)
            start(name)

        # all orders have ended but the last, which nobody can pay: it is late, and its event is parked
        wait_for(lambda: books(folder, 'orders', "SELECT count(*), sum(late) FROM orders WHERE state = 'placed'") == [(1, 1)], 120, 'the orders to end')
        wait_for(lambda: channel.queue_declare('payment.parked', durable=True, passive=True).method.message_count == 1, 30, 'the parked event')
        states = sorted(books(folder, 'orders', 'SELECT order_id, state FROM orders'))
        takings = sorted(books(folder, 'orders', "SELECT item, count(*), sum(cents) FROM orders WHERE state = 'shipped' GROUP BY item"))
        wait_for(lambda: sorted(map(tuple, sql('SELECT order_id, state FROM order_state;'))) == states, 30, 'the view of orders')
        wait_for(lambda: sorted(tuple(row) for row in sql('SELECT item, shipped, cents FROM takings;') if row[1]) == takings, 30, 'the view of takings')
    finally:
        for process in running.values():
            process.kill()
            process.wait()

    paid = sorted(books(folder, 'payment', "SELECT order_id FROM payments"))
    shipped = sorted((order,) for order, state in states if state == 'shipped')
    left = dict(books(folder, 'stock', 'SELECT item, left FROM stock'))
    print('%d orders: %d shipped, %d cancelled, 1 parked' % (o.orders, len(shipped), o.orders - len(shipped) - 1))
    for item, count, cents in takings:
        print('%s: %d shipped, %.2f taken, %d left' % (item, count, cents / 100, left[item]))
    wrong = []
    if paid != shipped:
        wrong.append('paid and not shipped, or shipped and not paid: %r' % sorted(set(paid) ^ set(shipped)))
    for item, count, _ in takings:
        if count + left[item] != 8:
            wrong.append('%s: %d shipped and %d left of 8' % (item, count, left[item]))
    for line in wrong:
        print(line)
    print('the books are wrong' if wrong else 'the books are right')
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
