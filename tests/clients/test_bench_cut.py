"""Ctrl-C in `millrace bench`: the first ends the run in order, with the figures until then and nothing left behind; the second at once."""

import json
import signal
import subprocess

import pytest

import brokers

FOREVER = ['--duration', '1000', '--warmup', '0']

# What is run, how many messages must have come before it is interrupted, and a figure that is then above 0. Where a flow is cut by the
# clock these are more than its windows hold, so that some have been answered.
RUNS = [
    ('amqp', FOREVER, 20000, ('confirm', 'messages')),
    ('amqp', ['--messages', '1000000000', '--threads', '2'], 100, ('consume', 'messages')),
    ('amqp', ['--duration', '1', '--warmup', '1000'], 100, None),
    ('amqp', ['--scenario', 'latency', *FOREVER], 100, ('rounds', 'messages')),
    ('amqp', ['--scenario', 'get', '--messages', '1000000000'], 100, ('confirm', 'messages')),
    ('kafka', FOREVER, 20000, ('produce', 'records')),
    ('kafka', ['--records', '1000000000', '--group', 'cut'], 100, ('consume', 'records')),
    ('kafka', ['--scenario', 'latency', *FOREVER], 1000, ('rounds', 'batches')),
    ('mqtt', ['--qos', '1', '--durable', *FOREVER], 20000, ('confirm', 'messages')),
    ('mqtt', ['--qos', '1', '--scenario', 'offline', '--messages', '1000000000', '--rate', '20000'], 100, ('deliver', 'messages')),
    ('mqtt', ['--scenario', 'retained', '--topics', '1000000', '--qos', '1'], 100, ('set', 'topics')),
    ('nexmark', ['--queries', 'q0', '--events', '100000000'], 100, ('load', 'events')),
    ('nexmark', ['--scenario', 'latency', '--events', '100000000'], 100, ('flow', 'events')),
]


def start(broker, protocol, *words):
    return subprocess.Popen([*brokers.DIE_WITH_US, broker.binary, 'bench', protocol, '--port-offset', str(broker.offset), '--json', '--quiet', *words],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)


def published(broker):
    return json.loads(broker.cli('list', 'totals', '--json'))[0]['published']


def names(broker):
    return {q['name'] for q in json.loads(broker.cli('list', 'queues', '--json'))}


def end_in_order(bench):
    bench.send_signal(signal.SIGINT)
    out, err = bench.communicate(timeout=60)
    assert bench.returncode == 130 and 'ending in order' in err, (out, err)
    told = json.loads(out)
    assert 'signal' in told['run']['cut_short']
    return told


@pytest.mark.parametrize('protocol,words,count,figure', RUNS, ids=range(len(RUNS)))
def test_first_interrupt(millrace, protocol, words, count, figure):
    before, at = names(millrace), published(millrace)
    bench = start(millrace, protocol, *words)
    brokers.wait_until(lambda: published(millrace) > at + count, 30, 'some messages')
    told = end_in_order(bench)
    assert not figure or told[figure[0]][figure[1]] > 0, told
    assert names(millrace) == before


@pytest.mark.parametrize('protocol,words,figure', [('amqp', ['--scenario', 'declare', '--queues', '1000000'], ('declare', 'queues')),
                                                   ('kafka', ['--scenario', 'create', '--topics', '10000'], ('create', 'topics'))])
def test_while_it_makes_them(millrace, protocol, words, figure):
    before = names(millrace)
    bench = start(millrace, protocol, *words)
    brokers.wait_until(lambda: len(names(millrace) - before) > 20, 30, 'some of them')
    told = end_in_order(bench)
    assert 20 < told[figure[0]][figure[1]] < int(words[-1]), told
    assert names(millrace) == before


def test_second_interrupt(fresh_millrace):
    """The broker answers no more, so the orderly end takes long: it is not waited for."""
    bench = start(fresh_millrace, 'amqp', *FOREVER, '--drain', '1000')
    brokers.wait_until(lambda: published(fresh_millrace) > 1000, 30, 'some messages')
    fresh_millrace.process.send_signal(signal.SIGSTOP)
    bench.send_signal(signal.SIGINT)
    assert 'ending in order' in bench.stderr.readline() + bench.stderr.readline()
    with pytest.raises(subprocess.TimeoutExpired):
        bench.wait(0.1)                 # what comes within 20 ms is the same signal
    bench.send_signal(signal.SIGINT)
    assert bench.communicate(timeout=20) == ('', '') and bench.returncode == 130
    fresh_millrace.process.send_signal(signal.SIGCONT)
