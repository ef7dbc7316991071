"""Real client programs and libraries, as Debian ships them, against the broker under test."""

import asyncio
import os
import shutil
import subprocess
import time
import uuid

import pytest

import brokers
from brokers import ROOT, wait_until
from conftest import HERE, TARGET

PYTHON = '/usr/bin/python3'


def unique(what='q'):
    return 'mr-%s-%s' % (what, uuid.uuid4().hex[:10])


def url(broker, vhost='%2F'):
    return 'amqp://guest:guest@%s:%d/%s' % (broker.host, broker.port, vhost)


# ---- the article's programs, on port 5672 in a network namespace -----------------------------------

@pytest.fixture(scope='module')
def private_5672():
    """The broker under test on port 5672 of a network namespace of its own: (command prefix, broker)."""
    try:
        prefix, stop = brokers.netns()
    except brokers.StartError as e:
        pytest.skip(str(e))
    try:
        broker = brokers.Millrace(netns=prefix, offset=0) if TARGET == 'millrace' else brokers.RabbitMQ(netns=prefix, port=5672)
        try:
            broker.start()
            yield prefix, broker
        finally:
            broker.remove()
    finally:
        stop()


def test_the_articles_programs(private_5672):
    prefix, _ = private_5672
    folder = os.path.join(ROOT, 'examples', 'hello')
    receiver = subprocess.Popen([*prefix, PYTHON, folder + '/receive.py'], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert receiver.stdout.readline() == ' [*] Waiting for messages. To exit press CTRL+C\n', receiver.stderr.read()
        for _ in range(2):
            sent = subprocess.run([*prefix, PYTHON, folder + '/send.py'], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                  timeout=20)
            assert sent.returncode == 0 and sent.stdout == " [x] Sent 'Hello World!'\n", sent.stdout
            assert receiver.stdout.readline() == " [x] Received 'Hello World!'\n"
    finally:
        receiver.kill()
        receiver.communicate()


def test_the_article_sends_before_anybody_receives(private_5672):
    prefix, _ = private_5672
    folder = os.path.join(ROOT, 'examples', 'hello')
    subprocess.run([*prefix, PYTHON, folder + '/send.py'], check=True, stdout=subprocess.DEVNULL, timeout=20)
    receiver = subprocess.Popen([*prefix, PYTHON, folder + '/receive.py'], stdout=subprocess.PIPE, text=True)
    try:
        receiver.stdout.readline()
        assert receiver.stdout.readline() == " [x] Received 'Hello World!'\n"
    finally:
        receiver.kill()
        receiver.communicate()


# ---- pika -------------------------------------------------------------------------------------------

@pytest.fixture
def pika_connection(target):
    pika = pytest.importorskip('pika')
    connection = pika.BlockingConnection(pika.URLParameters(url(target)))
    yield connection
    if connection.is_open:
        connection.close()


def test_pika_blocking_confirms_and_returns(pika_connection):
    import pika
    ch, q = pika_connection.channel(), unique()
    ch.confirm_delivery()
    ch.queue_declare(q, durable=True)
    ch.basic_publish('', q, b'1', pika.BasicProperties(delivery_mode=2, headers={'a': 1}), mandatory=True)
    with pytest.raises(pika.exceptions.UnroutableError):
        ch.basic_publish('', unique('none'), b'2', mandatory=True)
    method, properties, body = ch.basic_get(q)
    assert body == b'1' and properties.headers == {'a': 1} and properties.delivery_mode == 2
    ch.basic_ack(method.delivery_tag)
    assert ch.queue_delete(q).method.message_count == 0


def test_pika_blocking_nacked_publish(pika_connection):
    import pika
    ch, q = pika_connection.channel(), unique()
    ch.confirm_delivery()
    ch.queue_declare(q, exclusive=True, arguments={'x-max-length': 0, 'x-overflow': 'reject-publish'})
    with pytest.raises(pika.exceptions.NackError):
        ch.basic_publish('', q, b'1')


def test_pika_blocking_consume_with_prefetch(pika_connection):
    ch, q = pika_connection.channel(), unique()
    ch.queue_declare(q, exclusive=True)
    ch.basic_qos(prefetch_count=3)
    for i in range(20):
        ch.basic_publish('', q, str(i))
    got = []
    for method, _, body in ch.consume(q, inactivity_timeout=5):
        assert method is not None, 'stalled after %s' % got
        got.append(int(body))
        ch.basic_ack(method.delivery_tag)
        if len(got) == 20:
            break
    assert got == list(range(20))
    ch.cancel()


def test_pika_blocking_errors_are_exceptions(pika_connection):
    import pika
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as e:
        pika_connection.channel().queue_declare(unique('none'), passive=True)
    assert e.value.reply_code == 404
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as e:
        pika_connection.channel().exchange_declare(unique('x'), 'no-such-type') if TARGET == 'millrace' else \
            pika_connection.channel().exchange_declare('amq.direct', 'fanout')
    assert e.value.reply_code == 406
    assert pika_connection.is_open


def test_pika_wrong_password(target):
    pika = pytest.importorskip('pika')
    with pytest.raises(pika.exceptions.ProbableAuthenticationError):
        pika.BlockingConnection(pika.ConnectionParameters(target.host, target.port, credentials=pika.PlainCredentials('guest', 'no')))


def test_pika_wrong_vhost(target):
    pika = pytest.importorskip('pika')
    with pytest.raises(pika.exceptions.ProbableAccessDeniedError):
        pika.BlockingConnection(pika.ConnectionParameters(target.host, target.port, virtual_host=unique('none')))


def test_pika_transaction(pika_connection):
    ch, q = pika_connection.channel(), unique()
    ch.queue_declare(q, exclusive=True)
    ch.tx_select()
    ch.basic_publish('', q, b'1')
    ch.tx_rollback()
    ch.basic_publish('', q, b'2')
    ch.tx_commit()
    assert ch.basic_get(q, auto_ack=True)[2] == b'2' and ch.basic_get(q)[0] is None


def test_pika_direct_reply_to(target):
    pika = pytest.importorskip('pika')
    q = unique()
    client, server = (pika.BlockingConnection(pika.URLParameters(url(target))) for _ in (0, 1))
    c, s = client.channel(), server.channel()
    s.queue_declare(q, exclusive=True)
    answers = []
    c.basic_consume('amq.rabbitmq.reply-to', lambda ch, m, p, b: answers.append(b), auto_ack=True)
    c.basic_publish('', q, b'2+3', pika.BasicProperties(reply_to='amq.rabbitmq.reply-to'))
    for m, p, b in s.consume(q, auto_ack=True, inactivity_timeout=5):
        s.basic_publish('', p.reply_to, str(eval(b)))
        break
    until = time.monotonic() + 5
    while not answers and time.monotonic() < until:
        client.process_data_events(0.1)
    assert answers == [b'5']
    client.close()
    server.close()


def test_pika_heartbeat_keeps_an_idle_connection(target):
    pika = pytest.importorskip('pika')
    connection = pika.BlockingConnection(pika.ConnectionParameters(target.host, target.port, heartbeat=1))
    until = time.monotonic() + 3.2
    while time.monotonic() < until:
        connection.process_data_events(0.3)
    connection.channel().queue_declare(unique(), exclusive=True)
    connection.close()


def test_pika_cancel_notify(target):
    pika = pytest.importorskip('pika')
    q = unique()
    one, two = (pika.BlockingConnection(pika.URLParameters(url(target))) for _ in (0, 1))
    ch = one.channel()
    ch.queue_declare(q)
    cancelled = []
    ch.add_on_cancel_callback(lambda frame: cancelled.append(frame.method.consumer_tag))
    tag = ch.basic_consume(q, lambda *a: None)
    two.channel().queue_delete(q)
    until = time.monotonic() + 5
    while not cancelled and time.monotonic() < until:
        one.process_data_events(0.1)
    assert cancelled == [tag]
    one.close()
    two.close()


def test_pika_select_adapter(target):
    """The asynchronous adapter: many publishes in flight, confirms counted, everything consumed."""
    pika = pytest.importorskip('pika')
    q, n, seen, acked, failed = unique(), 500, [], [], []

    def on_open(connection):
        connection.channel(on_open_callback=on_channel)
        connection.ioloop.call_later(20, connection.ioloop.stop)

    def on_channel(ch):
        ch.confirm_delivery(lambda frame: acked.append((frame.method.delivery_tag, frame.method.multiple)))
        ch.basic_qos(prefetch_count=50)
        ch.queue_declare(q, durable=True, callback=lambda _: on_queue(ch))

    def on_queue(ch):
        ch.basic_consume(q, lambda ch, m, p, body: on_message(ch, m, body))
        for i in range(n):
            ch.basic_publish('', q, str(i), pika.BasicProperties(delivery_mode=2))

    def on_message(ch, m, body):
        seen.append(int(body))
        ch.basic_ack(m.delivery_tag)
        check(ch)

    def check(ch):
        if len(seen) == n:
            if max((t for t, _ in acked), default=0) < n:
                ch.connection.ioloop.call_later(0.01, lambda: check(ch))
            else:
                ch.queue_delete(q, callback=lambda _: ch.connection.close())

    connection = pika.SelectConnection(
        pika.URLParameters(url(target)), on_open_callback=on_open, on_open_error_callback=lambda c, e: (failed.append(e), c.ioloop.stop()),
        on_close_callback=lambda c, e: c.ioloop.stop())
    connection.ioloop.start()
    assert not failed and seen == list(range(n)) and max(t for t, _ in acked) == n


# ---- amqp-tools (librabbitmq) ------------------------------------------------------------------------

def tool(name, target, *args, **kw):
    path = shutil.which(name)
    if not path:
        pytest.skip(name + ' is not installed')
    return subprocess.run([path, '-u', url(target), *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20, **kw)


def test_amqp_tools(target):
    q = unique()
    done = tool('amqp-declare-queue', target, '-q', q, '-d')
    assert done.returncode == 0 and done.stdout.decode().strip() == q, done.stderr
    assert tool('amqp-publish', target, '-r', q, '-b', 'one', '-p', '-C', 'text/plain').returncode == 0
    assert tool('amqp-publish', target, '-r', q, input=b'two').returncode == 0
    assert tool('amqp-get', target, '-q', q).stdout == b'one'
    done = tool('amqp-consume', target, '-q', q, '-c', '1', 'cat')
    assert done.returncode == 0 and done.stdout == b'two', done.stderr
    assert tool('amqp-get', target, '-q', q).returncode == 2           # empty
    assert tool('amqp-delete-queue', target, '-q', q).returncode == 0
    done = tool('amqp-get', target, '-q', q)
    assert done.returncode not in (0, 2) and b'NOT_FOUND' in done.stderr, done.stderr


def test_amqp_tools_consume_through_an_exchange(target):
    """amqp-consume makes a server-named queue and binds it."""
    path = shutil.which('amqp-consume') or pytest.skip('amqp-consume is not installed')
    key = unique('key')
    consumer = subprocess.Popen([path, '-u', url(target), '-e', 'amq.topic', '-r', key + '.#', '-c', '1', 'cat'], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE)
    try:
        w = target.wire()
        w.channel(1)
        w.call(1, 'confirm.select')

        def routed():
            w.publish(1, 'amq.topic', key + '.a', b'through', mandatory=True)
            return w.take(1, ('basic.return', 'basic.ack')).name == 'basic.ack' or (w.take(1, ('basic.ack',)) and None)
        wait_until(routed, 10, 'amqp-consume has bound its queue')
        assert consumer.communicate(timeout=10)[0] == b'through'
        w.close()
    finally:
        consumer.kill()
        consumer.wait()


# ---- aio-pika ----------------------------------------------------------------------------------------

def test_aio_pika(target):
    aio_pika = pytest.importorskip('aio_pika')

    async def main():
        connection = await aio_pika.connect_robust(url(target))
        async with connection:
            ch = await connection.channel(publisher_confirms=True, on_return_raises=True)
            await ch.set_qos(prefetch_count=10)
            q = await ch.declare_queue(unique(), auto_delete=True)
            x = await ch.declare_exchange(unique('x'), aio_pika.ExchangeType.TOPIC, auto_delete=True)
            await q.bind(x, 'a.*')
            for i in range(50):
                await x.publish(aio_pika.Message(str(i).encode(), delivery_mode=aio_pika.DeliveryMode.PERSISTENT), 'a.b')
            got = []
            async with q.iterator(timeout=10) as messages:
                async for message in messages:
                    async with message.process():
                        got.append(int(message.body))
                    if len(got) == 50:
                        break
            assert got == list(range(50))
            with pytest.raises(aio_pika.exceptions.PublishError):
                await ch.default_exchange.publish(aio_pika.Message(b'x'), unique('none'), mandatory=True)
    asyncio.run(asyncio.wait_for(main(), 30))


def test_aio_pika_requeue_and_transaction(target):
    aio_pika = pytest.importorskip('aio_pika')

    async def main():
        connection = await aio_pika.connect(url(target))
        async with connection:
            ch = await connection.channel(publisher_confirms=False)
            q = await ch.declare_queue(unique(), exclusive=True)
            async with ch.transaction():
                await ch.default_exchange.publish(aio_pika.Message(b'one'), q.name)
            message = await q.get(timeout=5)
            assert not message.redelivered
            await message.reject(requeue=True)
            other = await connection.channel()
            with pytest.raises(aio_pika.exceptions.ChannelClosed):
                await other.declare_queue(unique('none'), passive=True)
    asyncio.run(asyncio.wait_for(main(), 30))


def test_aio_pika_rpc(target):
    aio_pika = pytest.importorskip('aio_pika')
    from aio_pika.patterns import RPC

    async def main():
        connection = await aio_pika.connect(url(target))
        async with connection:
            ch = await connection.channel()
            rpc = await RPC.create(ch)
            name = unique('double')

            async def double(x):
                return 2 * x
            await rpc.register(name, double, auto_delete=True)
            assert await asyncio.gather(*(rpc.call(name, kwargs={'x': i}) for i in range(10))) == [2 * i for i in range(10)]
    asyncio.run(asyncio.wait_for(main(), 30))


# ---- kombu -------------------------------------------------------------------------------------------

def test_kombu(target):
    kombu = pytest.importorskip('kombu')
    x = kombu.Exchange(unique('x'), 'direct', durable=True)
    q = kombu.Queue(unique(), x, routing_key='k', max_priority=5)
    with kombu.Connection(url(target), transport_options={'confirm_publish': True}) as connection:
        producer = connection.Producer(serializer='json')
        for i, priority in enumerate((1, 5, 3)):
            producer.publish({'n': i}, exchange=x, routing_key='k', declare=[q], priority=priority, compression='zlib' if i else None)
        got = []

        def on_message(body, message):
            got.append(body['n'])
            message.ack()
        with connection.Consumer(q, callbacks=[on_message], prefetch_count=1):
            while len(got) < 3:
                connection.drain_events(timeout=5)
        assert got == [1, 2, 0]
        channel = connection.channel()
        q(channel).delete()
        x(channel).delete()


def test_kombu_simple_queue(target):
    kombu = pytest.importorskip('kombu')
    name = unique()
    with kombu.Connection(url(target)) as connection:
        simple = connection.SimpleQueue(name)
        simple.put({'a': [1, 'ü']})
        message = simple.get(block=True, timeout=5)
        assert message.payload == {'a': [1, 'ü']}
        message.requeue()
        message = simple.get(block=True, timeout=5)
        assert message.delivery_info['redelivered']
        message.ack()
        with pytest.raises(simple.Empty):
            simple.get(block=False)
        simple.close()
        kombu.Queue(name)(connection.channel()).delete()


def test_kombu_broadcast_and_errors(target):
    kombu = pytest.importorskip('kombu')
    with kombu.Connection(url(target), heartbeat=10) as connection:
        ch = connection.channel()
        x = kombu.Exchange(unique('x'), 'fanout', auto_delete=True)
        qs = [kombu.Queue('', x, exclusive=True, auto_delete=True)(ch) for _ in range(3)]
        for q in qs:
            q.declare()
        assert len({q.name for q in qs}) == 3 and all(q.name.startswith('amq.gen-') for q in qs)
        kombu.Producer(ch, x).publish('hi')
        for q in qs:
            assert wait_until(lambda: q.get(no_ack=True), 5, 'a broadcast').payload == 'hi'
        with pytest.raises(connection.channel_errors):
            kombu.Queue(unique('none'))(connection.channel()).queue_declare(passive=True)
        connection.heartbeat_check()


# ---- celery ------------------------------------------------------------------------------------------

def celery_env(target, backend, queue):
    return dict(os.environ, CELERY_TEST_BROKER=url(target, '/'), CELERY_TEST_BACKEND=backend, CELERY_TEST_QUEUE=queue, PYTHONPATH=HERE,
                C_FORCE_ROOT='1', PYTHONDONTWRITEBYTECODE='1')


def worker(env, folder, *args):
    log = open(os.path.join(folder, 'worker-%s.log' % uuid.uuid4().hex[:6]), 'w+')
    return subprocess.Popen(['setpriv', '--pdeathsig', 'KILL', PYTHON, '-m', 'celery', '-A', 'celery_app', 'worker', '-n', unique('w') + '@here',
                             '--loglevel', 'INFO', *args], env=env, cwd=folder, stdout=log, stderr=log), log


def stop_worker(process, log):
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    log.close()


def in_app(env, program, timeout=40):
    """Run lines of Python with the application imported, in a process of its own; what they print."""
    done = subprocess.run([PYTHON, '-c', 'from celery_app import *\nimport time, celery\n' + program], env=env, cwd='/', stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


@pytest.fixture(scope='module')
def celery_rpc(target, tmp_path_factory):
    """A worker with two processes and results over AMQP (rpc)."""
    pytest.importorskip('celery')
    folder, queue = str(tmp_path_factory.mktemp('celery')), unique('celery')
    env = celery_env(target, 'rpc://', queue)
    process, log = worker(env, folder, '-c', '2')
    yield env
    stop_worker(process, log)


def test_celery_results_retry_and_failure(celery_rpc):
    assert in_app(celery_rpc, '''
results = [add.delay(i, i) for i in range(20)]
print([r.get(timeout=20) for r in results] == [2 * i for i in range(20)])
print(flaky.delay(2).get(timeout=20))
try:
    fail.delay().get(timeout=20)
except ValueError as e:
    print(e)
''') == 'True\n2\non purpose'


def test_celery_eta(celery_rpc):
    assert in_app(celery_rpc, '''
began = time.time()
at = when.apply_async(countdown=1.5).get(timeout=20)
print(1.3 < at - began < 6)
''') == 'True'


def test_celery_inspect(celery_rpc):
    assert in_app(celery_rpc, '''
until = time.time() + 20
answer = None
while not answer and time.time() < until:
    answer = app.control.inspect(timeout=1).ping()
print([v for v in answer.values() if v == {'ok': 'pong'}] != [])
names = app.control.inspect(timeout=3).registered()
print(any('celery_app.add' in v for v in names.values()))
print(all(v['broker']['transport'] == 'amqp' for v in app.control.inspect(timeout=3).stats().values()))
''') == 'True\nTrue\nTrue'


def test_celery_revoke(celery_rpc):
    assert in_app(celery_rpc, '''
late = add.apply_async((1, 1), countdown=2.5)
until = time.time() + 15
while time.time() < until and not any(v for v in (app.control.inspect(timeout=1).scheduled() or {}).values()):
    pass
late.revoke()
try:
    late.get(timeout=15)
    print('ran')
except celery.exceptions.TaskRevokedError:
    print('revoked')
''') == 'revoked'


def test_celery_chord_and_group(target, tmp_path):
    """A chord needs a backend that several processes can read: files."""
    pytest.importorskip('celery')
    queue = unique('celery')
    env = celery_env(target, 'file://' + str(tmp_path), queue)
    process, log = worker(env, str(tmp_path), '-c', '2')
    try:
        assert in_app(env, '''
print(celery.chord([add.s(i, i) for i in range(10)], total.s()).apply_async().get(timeout=30))
print(celery.group([add.s(i, 1) for i in range(5)]).apply_async().get(timeout=20))
print(celery.chain(add.s(1, 2), add.s(4)).apply_async().get(timeout=20))
''') == '90\n[1, 2, 3, 4, 5]\n7'
    finally:
        stop_worker(process, log)


def test_celery_priority(target, tmp_path):
    """What waits in the queue is taken by priority."""
    pytest.importorskip('celery')
    queue, path = unique('celery'), str(tmp_path / 'order')
    env = dict(celery_env(target, 'rpc://', queue), CELERY_TEST_LATE='1')
    in_app(env, 'for p in (1, 9, 5, 0, 7): note.apply_async((%r, str(p)), priority=p)' % path)
    process, log = worker(env, str(tmp_path), '-P', 'solo')
    try:
        wait_until(lambda: os.path.exists(path) and len(open(path).read().split()) == 5, 30, 'five tasks have run')
        assert open(path).read().split() == ['9', '7', '5', '1', '0']
    finally:
        stop_worker(process, log)
