#!/usr/bin/python3
"""Makes the golden stores of one format version: data folders with a bit of everything, and what must be found in them.

    tests/clients/golden/make.py BINARY VERSION

writes VERSION-clean.tar.xz (stopped by SIGTERM), VERSION-killed.tar.xz (kill -9: the records as they were appended, no
compaction) and VERSION-*.json (what each holds, read back by the same binary from a copy). Run once per format version, with
the broker of that day, and never again: these files stay as they are for ever (test_golden.py opens them).
"""
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

import brokers  # noqa: E402
import wire  # noqa: E402
from test_durability import ok, open_channel, publish  # noqa: E402

SETTINGS = ('--set', 'paging.bytes=2000', '--set', 'paging.page_bytes=1K', '--set', 'journal.file_bytes=1M')
LATER = 100 * 365 * 24 * 3600 * 1000        # a hundred years
QUEUES = {
    'plain': {}, 'paged': {}, 'prio': {'x-max-priority': 5}, 'dead': {},
    'rejecting': {'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': 'dead', 'x-max-length': 100},
    'quorum': {'x-queue-type': 'quorum', 'x-delivery-limit': 9}, 'large': {}, 'tx': {}, 'late': {}, 'empty': {},
    'lasting': {'x-message-ttl': 2 ** 32 - 1, 'x-expires': 2 ** 32 - 1},
}


class Old(brokers.Millrace):
    """A broker of a given binary on a given folder."""

    def __init__(self, binary, data=None, args=SETTINGS):
        os.environ['MILLRACE_BIN'] = binary
        super().__init__(args=args)
        if data:
            shutil.copytree(data, self.data, ignore=shutil.ignore_patterns('*.sock'))


def tool(binary, *words):
    return subprocess.run([binary, *words], check=True, stdout=subprocess.PIPE, text=True).stdout


def fill(broker):
    admin = ('--data', broker.data)
    tool(broker.binary, 'vhost', 'add', 'second', *admin)
    tool(broker.binary, 'vhost', 'add', 'gone', *admin)
    tool(broker.binary, 'vhost', 'delete', 'gone', *admin)
    tool(broker.binary, 'user', 'add', 'anna', 'golden', '--tags', 'monitoring', *admin)
    tool(broker.binary, 'user', 'add', 'gone', 'golden', *admin)
    tool(broker.binary, 'user', 'delete', 'gone', *admin)
    tool(broker.binary, 'permission', 'set', 'anna', '^a', 'b$', 'c', '--vhost', 'second', *admin)
    tool(broker.binary, 'permission', 'set', 'anna', '.*', '.*', '.*', *admin)
    tool(broker.binary, 'policy', 'set', 'long', '^paged$', '{"max-length": 1000000}', '--priority', '3', *admin)
    w = open_channel(broker)
    ok(w.call(1, 'exchange.declare', exchange='topic', type='topic', durable=True, arguments={'alternate-exchange': 'alt'}))
    ok(w.call(1, 'exchange.declare', exchange='alt', type='fanout', durable=True, internal=True))
    ok(w.call(1, 'exchange.declare', exchange='delayed', type='x-delayed-message', durable=True,
              arguments={'x-delayed-type': 'direct'}))
    ok(w.call(1, 'exchange.declare', exchange='hash', type='x-consistent-hash', durable=True))
    for queue, arguments in QUEUES.items():
        ok(w.call(1, 'queue.declare', queue=queue, durable=True, arguments=arguments))
    ok(w.call(1, 'queue.bind', queue='plain', exchange='topic', routing_key='a.#'))
    ok(w.call(1, 'queue.bind', queue='plain', exchange='amq.headers', routing_key='', arguments={'x-match': 'any', 'k': 1}))
    ok(w.call(1, 'queue.bind', queue='dead', exchange='alt', routing_key=''))
    ok(w.call(1, 'queue.bind', queue='late', exchange='delayed', routing_key='late'))
    ok(w.call(1, 'exchange.bind', destination='topic', source='amq.topic', routing_key='x'))
    headers = {'n': 1, 'f': 1.5, 't': {'k': [True, None]}, 'l': wire.V('l', 2 ** 40), 's': 'text'}
    publish(w, 'topic', 'a.b', 'with everything', headers=headers, message_id='m-1', content_type='text/plain',
            timestamp=77, app_id='golden', user_id='guest', type='t', reply_to='r', correlation_id='c', priority=2,
            expiration=str(2 ** 32 - 1), content_encoding='utf-8')
    publish(w, 'topic', 'nowhere', 'through the alternate exchange')
    publish(w, '', 'plain', 'not persistent', delivery_mode=1)
    publish(w, '', 'plain', '', 'second')
    publish(w, '', 'paged', *('page %03d ' % i + 'x' * 90 for i in range(60)))
    for priority in (1, 5, 3, 5):
        publish(w, '', 'prio', 'p%d' % priority, priority=priority)
    publish(w, '', 'rejecting', 'rejected')
    m = ok(w.call(1, 'basic.get', queue='rejecting'))
    w.send_method(1, 'basic.reject', delivery_tag=m.delivery_tag, requeue=False)
    publish(w, '', 'quorum', 'came back', 'not yet')
    m = ok(w.call(1, 'basic.get', queue='quorum'))
    w.send_method(1, 'basic.nack', delivery_tag=m.delivery_tag, requeue=True)
    publish(w, '', 'large', 'L' * 1200000)
    publish(w, '', 'lasting', 'for a while')
    publish(w, 'delayed', 'late', 'in a hundred years', headers={'x-delay': wire.V('l', 2 ** 32 - 1)})
    # the first five of the backlog are gone, and so are some in the middle
    for _ in range(5):
        w.call(1, 'basic.get', queue='paged', no_ack=True)
    w.call(1, 'basic.qos', prefetch_count=40)
    tag = ok(w.call(1, 'basic.consume', queue='paged')).consumer_tag
    got = [w.take(1, ('basic.deliver',)) for _ in range(40)]
    for m in got[10:20] + got[30:31]:
        w.send_method(1, 'basic.ack', delivery_tag=m.delivery_tag)
    ok(w.call(1, 'basic.cancel', consumer_tag=tag))
    w.channel(2)
    w.call(2, 'tx.select')
    for i in range(3):
        w.publish(2, '', 'tx', 'all or none %d' % i, delivery_mode=2)
    ok(w.call(2, 'tx.commit'))
    publish(w, '', 'dead', 'the last')
    time.sleep(1.5)                         # the note of an idle journal, so that a killed broker's end is known
    return w


def plain(value):
    return value if isinstance(value, (str, int, float, bool, type(None))) else repr(value)


def look(broker):
    """Everything a client and an administrator can find."""
    definitions = json.loads(tool(broker.binary, 'definitions', 'export', '--data', broker.data))
    for user in definitions['users']:
        for secret in [key for key in user if 'password' in key or 'hash' in key]:
            del user[secret]
    totals = json.loads(tool(broker.binary, 'list', 'totals', '--json', '--data', broker.data))[0]
    w = open_channel(broker)
    queues = {}
    for queue in sorted(QUEUES):
        queues[queue] = found = []
        while True:
            m = w.call(1, 'basic.get', queue=queue, no_ack=True)
            if m.name != 'basic.get-ok':
                break
            body = m.body if len(m.body) < 200 else hashlib.sha256(m.body).hexdigest().encode()
            properties = {k: plain(v) for k, v in sorted(m.properties.items())}
            if queue == 'dead':
                properties.pop('headers', None)      # x-death has the time
            found.append({'body': body.decode(), 'exchange': m.exchange, 'routing_key': m.routing_key,
                          'redelivered': bool(m.redelivered), 'properties': properties})
    w.close()
    anna = broker.wire(user='anna', password='golden')
    anna.close()
    return {'definitions': definitions, 'queues': queues, 'messages': totals['messages']}


def grown_old(found):
    """What is found when every time that is in it has come, 2 ** 32 ms after it was written: the messages with a TTL are gone, the late one is there."""
    queues = {name: [m for m in messages if 'expiration' not in m['properties']] for name, messages in found['queues'].items()}
    late = {'body': 'in a hundred years', 'exchange': 'delayed', 'routing_key': 'late', 'redelivered': False,
            'properties': {'delivery_mode': 2, 'headers': "{'x-delay': l:%d}" % (2 ** 32 - 1)}}
    queues.update(lasting=[], late=[late])
    gone = sum(len(messages) for messages in found['queues'].values()) + 1 - sum(len(messages) for messages in queues.values())
    return dict(found, queues=queues, **({'messages': found['messages'] - gone} if 'messages' in found else {}))


def written_at(data):
    """UTC in seconds, of the first file of the journal that is there."""
    name = min(name for name in os.listdir(os.path.join(data, 'wal')) if name.startswith('w-'))
    with open(os.path.join(data, 'wal', name), 'rb') as f:
        return int.from_bytes(f.read(64)[56:], 'big') / 1000


def expected_now(data, found):
    return grown_old(found) if time.time() > written_at(data) + 2 ** 32 / 1000 else found


def pack(data, path):
    def kept(item):
        item.uid = item.gid = item.mtime = 0
        item.uname = item.gname = ''
        return None if item.name.endswith('.sock') else item
    with tarfile.open(path, 'w:xz', preset=9) as archive:
        archive.add(data, 'data', filter=kept)


def main():
    binary, version = os.path.abspath(sys.argv[1]), sys.argv[2]
    for end in ('clean', 'killed'):
        broker = Old(binary)
        try:
            broker.start()
            connection = fill(broker)
            if end == 'clean':
                assert broker.stop()[0] == 0
            else:
                broker.kill9()
            del connection
            name = os.path.join(HERE, '%s-%s' % (version, end))
            pack(broker.data, name + '.tar.xz')
            reader = Old(binary, broker.data, args=())
            try:
                reader.start()
                with open(name + '.json', 'w', encoding='utf-8') as out:
                    json.dump(look(reader), out, indent=1, sort_keys=True)
                    out.write('\n')
            finally:
                reader.remove()
            print(name, os.path.getsize(name + '.tar.xz'), 'bytes')
        finally:
            broker.remove()


if __name__ == '__main__':
    main()
