"""Fixtures and rules of the client tests.

MILLRACE_TARGET=millrace (default) or rabbitmq chooses the broker under test; with rabbitmq every
comparison is RabbitMQ against itself, which checks the tests; kafka is for test_kafka*.py alone (Java, Maven).  MILLRACE_BIN names the binary (default
build/millrace).  CI=true turns every skip into a failure.  MILLRACE_RABBITMQ_PORT uses a running,
prepared RabbitMQ; MILLRACE_KEEP=1 keeps the brokers' folders.
"""

import itertools
import os
import shutil
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import brokers  # noqa: E402

TARGET = os.environ.get('MILLRACE_TARGET', 'millrace')
UNDER_CI = os.environ.get('CI') == 'true'
numbers = itertools.count(1)

if TARGET not in ('millrace', 'rabbitmq', 'kafka'):
    raise SystemExit('MILLRACE_TARGET is millrace, rabbitmq or kafka, not ' + TARGET)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Under CI a skipped test is a failed test."""
    outcome = yield
    report = outcome.get_result()
    if UNDER_CI and report.skipped and not hasattr(report, 'wasxfail'):
        report.outcome = 'failed'
        report.longrepr = 'skipped under CI: %s' % (report.longrepr[2] if isinstance(report.longrepr, tuple)
                                                    else report.longrepr)


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector):
    outcome = yield
    report = outcome.get_result()
    if UNDER_CI and report.skipped:
        report.outcome = 'failed'
        report.longrepr = 'skipped under CI: %s' % (report.longrepr,)


def pytest_report_header():
    return 'broker under test: %s' % TARGET


def start_rabbitmq(**kw):
    try:
        broker = brokers.RabbitMQ(**kw)
    except brokers.StartError as e:
        pytest.skip(str(e))
    try:
        broker.start()
        broker.prepare()
    except BaseException:
        broker.remove()
        raise
    return broker


def start_millrace(**kw):
    """Prepared like RabbitMQ.  When the import of definitions fails it starts without: the rows that need
    them fail, and test_durability.py has the test that shows the reason."""
    for imports in (True, False):
        broker = brokers.Millrace(**kw)
        if imports:
            broker.args += ('--definitions', brokers.write_import(broker.folder))
        try:
            broker.start()
            broker.prepare()
            return broker
        except brokers.StartError:
            broker.remove()
            if not imports:
                raise
        except BaseException:
            broker.remove()
            raise


@pytest.fixture(scope='session')
def rabbitmq():
    """The real RabbitMQ, prepared (users, vhosts, permissions, policies)."""
    port = os.environ.get('MILLRACE_RABBITMQ_PORT')
    broker = brokers.Running(int(port)) if port else start_rabbitmq()
    yield broker
    broker.remove()


@pytest.fixture(scope='session')
def millrace():
    """One Millrace for the session, prepared the same way."""
    broker = start_millrace()
    yield broker
    broker.remove()


@pytest.fixture(scope='session')
def target(request):
    """The broker under test."""
    return request.getfixturevalue(TARGET)


def running(broker):
    try:
        yield broker.start()
    finally:
        broker.remove()


def own_broker():
    """What clients of Kafka, MQTT, STOMP and SQL are tried on: a Millrace, or a real Kafka where that is under test."""
    if TARGET != 'kafka':
        return brokers.Millrace()
    import kafka_clients
    return kafka_clients.new(TARGET)


@pytest.fixture(scope='module')
def broker():
    """One for all tests of the module; with settings of its own a module has its own fixture of that name."""
    yield from running(own_broker())


@pytest.fixture
def fresh_broker():
    """The same, of this test's own."""
    yield from running(own_broker())


@pytest.fixture
def topic():
    """The name of a topic that is this test's own and is not there yet."""
    return 'topic-%d' % next(numbers)


@pytest.fixture
def group():
    return 'group-%d' % next(numbers)


@pytest.fixture
def fresh_millrace():
    """A Millrace of this test's own, started, with restart(), kill9(), stop(), start()."""
    yield from running(brokers.Millrace())


@pytest.fixture
def fresh_target():
    """A broker under test of this test's own, not prepared."""
    try:
        broker = brokers.Millrace() if TARGET == 'millrace' else brokers.RabbitMQ()
    except brokers.StartError as e:
        if TARGET == 'rabbitmq':
            pytest.skip(str(e))
        raise
    yield from running(broker)


@pytest.fixture
def broker_on():
    """Starts brokers, each on a copy of a data folder."""
    started = []

    def start(data, args=()):
        broker = brokers.Millrace(args=args)
        shutil.copytree(data, broker.data)
        started.append(broker)
        return broker.start()
    yield start
    for broker in started:
        broker.remove()
