"""The rules of tests/clients hold here too: under CI a skip is a failure."""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(os.path.dirname(HERE), 'clients'))

import pytest  # noqa: E402

import brokers  # noqa: E402


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if os.environ.get('CI') == 'true' and report.skipped:
        report.outcome = 'failed'
        report.longrepr = 'skipped under CI: %s' % (report.longrepr,)


@pytest.fixture
def start():
    """start(…) starts a Millrace with arguments; it ends with the test."""
    started = []

    def begin(*args, **kw):
        started.append(brokers.Millrace(args=args, **kw))
        return started[-1].start()
    yield begin
    for broker in started:
        broker.remove()
