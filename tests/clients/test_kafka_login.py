"""Kafka clients that log in: kcat, librdkafka and python3-kafka, by PLAIN and both SCRAMs, who is let in and who is not."""

import json
import subprocess

import confluent_kafka
import kafka
import kafka.errors
import pytest

import brokers
import kafka_clients
from conftest import TARGET
from kafka_clients import at, until

pytestmark = pytest.mark.skipif(TARGET != 'millrace', reason='users are made by the millrace command')
if TARGET != 'millrace':
    collect_ignore = [__file__]

MECHANISMS = ('PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512')
REFUSED = 'refused'


def users_of(broker):
    """alice may do everything, bob may read and write what begins with bob, carol may not enter."""
    for name in ('alice', 'bob', 'carol'):
        broker.cli('user', 'add', name, name + '-secret')
    broker.cli('permission', 'set', 'alice', '.*', '.*', '.*')
    broker.cli('permission', 'set', 'bob', '^bob', '^bob', '^bob')
    broker.cli('user', 'add', 'a,b=c', 'comma-secret')
    broker.cli('permission', 'set', 'a,b=c', '.*', '.*', '.*')


@pytest.fixture(scope='module')
def broker():
    started = kafka_clients.start(args=('--set=kafka.anonymous=',))
    users_of(started)
    yield started
    started.remove()


def by_librdkafka(broker, mechanism, user, secret):
    errors = []
    client = confluent_kafka.Producer({
        'bootstrap.servers': at(broker), 'security.protocol': 'SASL_PLAINTEXT', 'sasl.mechanism': mechanism, 'sasl.username': user,
        'sasl.password': secret, 'error_cb': errors.append, 'log_level': 0, 'reconnect.backoff.ms': 10, 'reconnect.backoff.max.ms': 50})
    try:
        def ended():
            client.poll(0.02)
            if any(e.code() == confluent_kafka.KafkaError._AUTHENTICATION for e in errors):
                return REFUSED
            try:
                return {t: m.error for t, m in client.list_topics(timeout=0.2).topics.items()} or 'in'
            except confluent_kafka.KafkaException:
                return None
        said = until(ended)
        return (REFUSED, [e.str() for e in errors]) if said == REFUSED else ('in', said)
    finally:
        client.flush(0)


def by_python(broker, mechanism, user, secret):
    try:
        client = kafka.KafkaConsumer(bootstrap_servers=at(broker), security_protocol='SASL_PLAINTEXT', sasl_mechanism=mechanism,
                                     sasl_plain_username=user, sasl_plain_password=secret, api_version_auto_timeout_ms=1500,
                                     reconnect_backoff_max_ms=50)
    except (kafka.errors.NoBrokersAvailable, kafka.errors.AuthenticationFailedError) as why:
        return REFUSED, [str(why)]
    try:
        return 'in', client.topics()
    except kafka.errors.AuthenticationFailedError as why:
        return REFUSED, [str(why)]
    finally:
        client.close()


def kcat(broker, mechanism, user, secret, *words, stdin='', prefix=(), server=None):
    return subprocess.run([*prefix, 'kcat', '-b', server or at(broker), '-X', 'security.protocol=SASL_PLAINTEXT', '-X', 'sasl.mechanism=' + mechanism,
                           '-X', 'sasl.username=' + user, '-X', 'sasl.password=' + secret, *words],
                          input=stdin, capture_output=True, text=True, timeout=60, check=False)


def by_kcat(broker, mechanism, user, secret):
    done = kcat(broker, mechanism, user, secret, '-L', '-J', '-m', '1')
    if done.returncode == 0:
        return 'in', json.loads(done.stdout)
    return REFUSED, [done.stderr]


CLIENTS = {'librdkafka': by_librdkafka, 'python3-kafka': by_python, 'kcat': by_kcat}


@pytest.mark.parametrize('mechanism', MECHANISMS)
@pytest.mark.parametrize('client', CLIENTS)
def test_right_and_wrong(broker, client, mechanism):
    log_in = CLIENTS[client]
    assert log_in(broker, mechanism, 'alice', 'alice-secret')[0] == 'in'
    if client != 'python3-kafka' or mechanism == 'PLAIN':        # python3-kafka 2.0.2 writes such names as they are
        assert log_in(broker, mechanism, 'a,b=c', 'comma-secret')[0] == 'in'
    for user, secret in (('alice', 'bob-secret'), ('nobody', 'alice-secret'), ('carol', 'carol-secret')):
        said, words = log_in(broker, mechanism, user, secret)
        assert said == REFUSED, (user, words)


@pytest.mark.parametrize('mechanism', MECHANISMS)
def test_words_of_a_refusal(broker, mechanism):
    """As Kafka's, and the same whoever is asked for."""
    words = {'PLAIN': 'Authentication failed: Invalid username or password'}.get(
        mechanism, 'Authentication failed during authentication due to invalid credentials with SASL mechanism ' + mechanism)
    for user in ('alice', 'nobody'):
        said, errors = by_librdkafka(broker, mechanism, user, 'wrong')
        assert said == REFUSED and any(words in e for e in errors), errors


def test_rights_are_the_users(broker):
    """What bob may not touch is refused by Kafka's own error; what is his works."""
    with_secret = {'bootstrap.servers': at(broker), 'security.protocol': 'SASL_PLAINTEXT', 'sasl.mechanism': 'SCRAM-SHA-512',
                   'sasl.username': 'bob', 'sasl.password': 'bob-secret', 'log_level': 0}
    assert kcat(broker, 'SCRAM-SHA-256', 'alice', 'alice-secret', '-P', '-t', 'others', stdin='x\n').returncode == 0
    client, told = confluent_kafka.Producer({**with_secret, 'message.timeout.ms': 10000}), {}
    for topic in ('bob-own', 'others'):
        client.produce(topic, b'v', on_delivery=lambda error, m: told.update({m.topic(): error}))
    client.flush(15)
    assert told['bob-own'] is None
    assert told['others'].code() == confluent_kafka.KafkaError.TOPIC_AUTHORIZATION_FAILED
    read = kcat(broker, 'PLAIN', 'bob', 'bob-secret', '-C', '-t', 'bob-own', '-o', 'beginning', '-e')
    assert read.stdout == 'v\n', read.stderr
    assert kcat(broker, 'PLAIN', 'bob', 'bob-secret', '-C', '-t', 'others', '-o', 'beginning', '-e').returncode != 0


def test_who_does_not_log_in(broker):
    done = subprocess.run(['kcat', '-b', at(broker), '-m', '1', '-L'], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0


def test_mechanisms_that_are_not_offered():
    started = kafka_clients.start(args=('--set=kafka.anonymous=', '--set=kafka.sasl_mechanisms=SCRAM-SHA-512'))
    try:
        users_of(started)
        for client in CLIENTS.values():
            assert client(started, 'SCRAM-SHA-512', 'alice', 'alice-secret')[0] == 'in'
            assert client(started, 'PLAIN', 'alice', 'alice-secret')[0] == REFUSED
    finally:
        started.remove()


def test_a_name_of_no_mechanism_does_not_start():
    with pytest.raises(brokers.StartError, match='kafka.sasl_mechanisms'):
        kafka_clients.start(args=('--set=kafka.sasl_mechanisms=PLAIN GSSAPI',)).remove()


@pytest.mark.parametrize('mechanism', MECHANISMS)
def test_sessions_are_renewed(mechanism):
    """KIP-368: nothing is lost by sessions that end, though librdkafka before 2.2 knows of none and comes again instead."""
    started = kafka_clients.start(args=('--set=kafka.anonymous=', '--set=kafka.reauthentication=1500'))
    try:
        users_of(started)
        errors, told = [], []
        client = confluent_kafka.Producer({
            'bootstrap.servers': at(started), 'security.protocol': 'SASL_PLAINTEXT', 'sasl.mechanism': mechanism, 'sasl.username': 'alice',
            'sasl.password': 'alice-secret', 'error_cb': errors.append, 'linger.ms': 0})
        for n in range(40):
            client.produce('again', b'%d' % n, on_delivery=lambda error, m: told.append(error))
            client.flush(0.1)
            client.poll(0.1)
        client.flush(20)
        assert told == [None] * 40
    finally:
        started.remove()


def test_a_new_password_survives_kill_9(broker):
    """The command has answered: from then on it is the new one, whatever happens."""
    for n in range(5):
        secret = 'new-%d' % n
        broker.cli('user', 'password', 'alice', secret)
        broker.kill9()
        broker.start()
        for mechanism in MECHANISMS:
            assert by_librdkafka(broker, mechanism, 'alice', secret)[0] == 'in'
            assert by_librdkafka(broker, mechanism, 'alice', 'alice-secret')[0] == REFUSED
    broker.cli('user', 'password', 'alice', 'alice-secret')


def test_from_elsewhere():
    """An address that is not the loopback's: without a login nobody, with one whoever it is; but never guest."""
    prefix, stop = brokers.netns()
    started = None
    try:
        subprocess.run([*prefix, 'ip', 'address', 'add', '192.0.2.1/32', 'dev', 'lo'], check=True)
        started = brokers.Millrace(netns=prefix, offset=0, args=('--set=listen.kafka=192.0.2.1:9092 127.0.0.1:9092',)).start()
        users_of(started)

        def here(mechanism, user, secret, server='192.0.2.1'):
            return kcat(started, mechanism, user, secret, '-L', '-m', '1', prefix=prefix, server=server + ':9092').returncode == 0

        def anonymous(server):
            return subprocess.run([*prefix, 'kcat', '-b', server + ':9092', '-m', '1', '-L'], capture_output=True, timeout=60, check=False).returncode == 0
        assert anonymous('127.0.0.1') and not anonymous('192.0.2.1')
        for mechanism in MECHANISMS:
            assert here(mechanism, 'alice', 'alice-secret')
            assert not here(mechanism, 'guest', 'guest')
            assert here(mechanism, 'guest', 'guest', '127.0.0.1')
    finally:
        if started:
            started.remove()
        stop()
