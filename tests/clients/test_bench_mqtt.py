"""`millrace bench mqtt` against a real broker: every scenario, shortly; its figures say what was sent, and nothing is left behind."""

import json
import subprocess

import pytest


def bench(broker, *words, code=0):
    done = subprocess.run([broker.binary, 'bench', 'mqtt', '--port-offset', str(broker.offset), '--json', '--quiet', *words],
                          capture_output=True, timeout=120, text=True)
    assert done.returncode == code, done.stderr + done.stdout
    return json.loads(done.stdout) if done.stdout else done.stderr


@pytest.mark.parametrize('version', ['4', '5'])
@pytest.mark.parametrize('qos', [0, 1, 2])
def test_every_message_comes(millrace, version, qos):
    told = bench(millrace, '--version', version, '--qos', str(qos), '--messages', '3000', '--publishers', '3', '--subscribers', '5',
                 '--topics', '2', '--size', '64', '--window', '50', *(['--durable'] if qos else []))
    assert told['publish']['messages'] == 3000
    assert told['deliver']['messages'] == 3 * 2000 + 2 * 1000       # publishers 0 and 2 and subscribers 0, 2 and 4 share the first topic
    assert told['end to end']['p99_us'] >= told['end to end']['p50_us'] > 0
    assert ('confirm' in told) == (qos > 0)


def test_a_rate_is_kept(millrace):
    told = bench(millrace, '--scenario', 'latency', '--rate', '1000', '--messages', '500')
    assert 900 < told['publish']['rate'] < 1100 and told['deliver']['messages'] == 500


def test_fan_out_tells_when_all_have_it(millrace):
    told = bench(millrace, '--scenario', 'fan-out', '--subscribers', '20', '--messages', '50')
    assert told['deliver']['messages'] == 1000
    assert told['all delivered']['p50_us'] >= told['end to end']['p50_us']


@pytest.mark.parametrize('qos', ['1', '2'])
def test_sessions_are_read_afterwards_and_ended(millrace, qos):
    told = bench(millrace, '--scenario', 'offline', '--qos', qos, '--messages', '1500', '--subscribers', '2')
    assert told['confirm']['messages'] == 1500 and told['deliver']['messages'] == 3000
    left = subprocess.run([millrace.binary, 'list', 'queues', '--data', millrace.data], capture_output=True, text=True, check=True)
    assert 'bench-' not in left.stdout


def test_connections_are_held(millrace):
    told = bench(millrace, '--scenario', 'connect', '--connections', '150', '--at-once', '40', '--qos', '1')
    assert told['connect']['connections'] == 150


@pytest.mark.parametrize('qos', ['0', '1', '2'])
def test_retained_topics_are_read_and_cleared(millrace, qos):
    words = ['--scenario', 'retained', '--topics', '2005', '--qos', qos, '--topic', 'bench/retained' + qos]
    told = bench(millrace, *words, '--subscribers', '2', '--size', '16')
    assert told['checks'] == {'missing': 0, 'duplicates': 0, 'wrong': 0}
    assert told['subscribe']['last_ms'] >= told['subscribe']['first_ms'] > 0
    read = ['sub', 'bench/retained' + qos + '/#', '--protocol', 'mqtt', '--port-offset', str(millrace.offset), '--wait', '0.3']
    left = subprocess.run([millrace.binary, *read], capture_output=True, timeout=60)
    assert left.stdout == b'', left.stderr


def test_refusals_are_told(millrace):
    assert 'the server refuses' in bench(millrace, '--user', 'nobody', '--password', 'x', code=1)
