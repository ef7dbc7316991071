"""The end of a vhost with many queues, as its clients, others and a restart see it; and of a connection and an exchange with many things.

What the core does of it in slices is in src/core/vhost_end_test.c and exchange_end_test.c.
"""

import json
import subprocess

import pytest

import wire
from brokers import wait_until

QUEUES = 3000


@pytest.fixture
def broker(fresh_millrace):
    return fresh_millrace


def make_vhost(broker):
    broker.cli('vhost', 'add', 'v')
    broker.cli('permission', 'set', 'guest', '.*', '.*', '.*', '--vhost', 'v')


def declare_many(w, **how):
    for number in range(QUEUES):
        w.send_method(1, 'queue.declare', queue='q%d' % number, nowait=True, **how)
    answer = w.call(1, 'queue.declare', queue='q%d' % (QUEUES - 1), passive=True)
    assert answer.name == 'queue.declare-ok', answer


def fill(broker):
    w = broker.wire(vhost='v', timeout=30)
    w.channel(1)
    declare_many(w, durable=True)
    w.publish(1, '', 'q7', b'm', delivery_mode=2)
    w.call(1, 'basic.consume', queue='q8')
    return w


def listed(broker, what):
    return json.loads(broker.cli('list', what, '--json'))


def queues_of_v(broker):
    return sum(row['vhost'] == 'v' for row in listed(broker, 'queues'))


def test_a_vhost_with_many_queues_goes(broker):
    """Its client is told why, others are served, and the name is free when the command has ended."""
    make_vhost(broker)
    gone = fill(broker)
    other = broker.wire(timeout=30)
    other.channel(1)
    broker.cli('vhost', 'delete', 'v')
    said = gone.take(0, ('connection.close',))
    assert (said.reply_code, said.reply_text) == (320, "CONNECTION_FORCED - vhost 'v' is deleted")
    assert other.call(1, 'queue.declare', queue='mine').name == 'queue.declare-ok'
    assert [row['name'] for row in listed(broker, 'queues')] == ['mine']
    with pytest.raises(wire.WireError):
        broker.wire(vhost='v')
    make_vhost(broker)
    again = broker.wire(vhost='v')
    again.channel(1)
    assert again.call(1, 'queue.declare', queue='q7', passive=True).reply_code == 404
    again.close()
    other.close()


def test_a_vhost_is_never_half_there_after_a_crash(broker):
    """kill -9 while it goes: a restart finds all of it or nothing."""
    make_vhost(broker)
    w = fill(broker)
    deleting = subprocess.Popen([broker.binary, 'vhost', 'delete', 'v', '--data', broker.data], stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL)
    w.take(0, ('connection.close',))
    broker.kill9()
    deleting.wait(20)
    broker.start()
    left = queues_of_v(broker)
    assert left in (0, QUEUES)
    assert any(row['name'] == 'v' for row in json.loads(broker.cli('vhost', 'list', '--json'))) == bool(left)


def test_a_connection_that_owned_many_queues_closes(broker):
    w = broker.wire(timeout=30)
    w.channel(1)
    declare_many(w, exclusive=True)
    w.send_method(0, 'connection.close', reply_code=200, reply_text='bye')
    assert w.take(0, ('connection.close-ok',), 30).name == 'connection.close-ok'
    assert listed(broker, 'queues') == []       # they have gone when it hears of the end
    cut = broker.wire(timeout=30)
    cut.channel(1)
    declare_many(cut, exclusive=True)
    cut.sock.close()
    wait_until(lambda: listed(broker, 'queues') == [], 20, 'queues of a connection that was cut')


def test_an_exchange_with_many_bindings_is_made_again(broker):
    w = broker.wire(timeout=30)
    w.channel(1)
    w.call(1, 'queue.declare', queue='q')
    w.call(1, 'exchange.declare', exchange='x', type='direct')
    for number in range(QUEUES):
        w.send_method(1, 'queue.bind', queue='q', exchange='x', routing_key='k%d' % number, nowait=True)
    w.send_method(1, 'exchange.delete', exchange='x', nowait=True)
    w.send_method(1, 'exchange.declare', exchange='x', type='fanout', nowait=True)
    w.call(1, 'confirm.select')
    w.publish(1, 'x', 'k1', b'm', mandatory=True)
    assert w.take(1, ('basic.return', 'basic.ack')).name == 'basic.return'      # no binding of the old one is left
    assert [row['source'] for row in listed(broker, 'bindings') if row['source']] == []
    w.close()
