"""The shop of examples/shop as it is: its services are killed while they work, and its books are right in the end."""

import os
import subprocess
import sys

import brokers

SHOP = os.path.join(brokers.ROOT, 'examples', 'shop')


def run(broker, program, *words):
    done = subprocess.run([sys.executable, os.path.join(SHOP, program), *words], env=dict(os.environ, PORT_OFFSET=str(broker.offset)),
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_shop(fresh_millrace, tmp_path):
    told = run(fresh_millrace, 'demo.py', '--orders', '30', '--kills', '5', str(tmp_path))
    assert told.count('killed') == 5 and told.endswith('the books are right\n'), told
    kinds = [line.split()[1] for line in run(fresh_millrace, 'history.py', 'order-3').splitlines()]
    assert kinds[0] == 'order.placed' and {'order.shipped', 'order.cancelled'} & set(kinds) and len(kinds) == len(set(kinds)), kinds
