"""Random sequences of methods over two connections give the same frames from both brokers.

MILLRACE_GEN_COUNT sequences (500) from seed MILLRACE_GEN_SEED (random) on; MILLRACE_GEN_SCRIPT names a
file with the operations of one sequence, as a failure prints them, and plays only that.
"""

import json
import os
import random
import subprocess

import pytest

import generator
from conftest import HERE, TARGET

CI_SEED = 68777000
COUNT = int(os.environ.get('MILLRACE_GEN_COUNT', '500'))
PROCESSES = 2


def _report(found):
    lines = ['seed %s: %s' % (found.get('seed'), found['difference'])]
    if 'operations' in found:
        lines += ['shrunk: ' + found['small'], 'to play it again: save these lines in a file and set MILLRACE_GEN_SCRIPT to it']
        lines += [json.dumps(op) for op in found['operations']]
    return '\n'.join(lines)


def test_random_sequences(rabbitmq, target, capsys):
    # CI plays the same sequences on every run, so that a red run is about the change; elsewhere each run plays new ones
    first = int(os.environ.get('MILLRACE_GEN_SEED', CI_SEED if os.environ.get('CI') == 'true' else random.randrange(1, 10**9)))
    command = ['/usr/bin/python3', os.path.join(HERE, 'generator.py'), '--reference', '%s:%d' % (rabbitmq.host, rabbitmq.port),
               '--target', '%s:%d' % (target.host, target.port)]
    if TARGET == 'millrace':
        command += ['--durable']
    if 'MILLRACE_GEN_SCRIPT' in os.environ:
        done = subprocess.run([*command, '--script', os.environ['MILLRACE_GEN_SCRIPT']], stdout=subprocess.PIPE, text=True, timeout=300)
        found = json.loads(done.stdout)
        assert found['difference'] is None, _report(found)
        return
    share = [COUNT // PROCESSES + (i < COUNT % PROCESSES) for i in range(PROCESSES)]
    workers = [subprocess.Popen([*command, '--first', str(first + sum(share[:i])), '--count', str(n)], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True) for i, n in enumerate(share) if n]
    results = []
    for w in workers:
        out, err = w.communicate(timeout=900)
        results += [json.loads(line) for line in out.splitlines()]
        assert w.returncode == 0, err
    played = sum(r['played'] for r in results if 'played' in r)
    again = sum(r['again'] for r in results if 'again' in r)
    with capsys.disabled():
        print('\n%d sequences of %d methods from seed %d on, %d played more than once' % (played, generator.LENGTH, first, again))
    bad = [r for r in results if 'difference' in r]
    if bad:
        pytest.fail('\n\n'.join(map(_report, bad)), pytrace=False)
    assert played == COUNT


def test_the_comparison_can_fail(rabbitmq):
    """A broker that loses one publish, or changes one flag, is found: the second player is given other operations."""
    players = [generator.Sequencer(rabbitmq.host, rabbitmq.port) for _ in (0, 1)]
    caught = 0
    for seed in range(1, 11):
        ops = generator.generate(seed)
        at = next((i for i, op in enumerate(ops) if op['do'] == 'queue.declare'), None)
        other = [dict(op) for op in ops]
        other[at].update(durable=not other[at]['durable'], arguments={'x-max-length': 0})
        results = players[0].play(ops), players[1].play(other)
        caught += generator.differs(ops, *results) is not None
    for p in players:
        p.close()
    assert caught >= 3, 'only %d of 10 changed sequences were found different' % caught


def test_a_difference_is_shrunk(rabbitmq, monkeypatch):
    """Shrinking keeps what is needed for the difference and little else."""
    players = [generator.Sequencer(rabbitmq.host, rabbitmq.port) for _ in (0, 1)]
    honest = players[1].play
    # a broker that does not purge: simulated by asking it something else instead
    monkeypatch.setattr(players[1], 'play', lambda ops, *pace: honest([
        dict(op, do='passive') if op['do'] == 'queue.purge' else op for op in ops], *pace))
    for seed in range(1, 200):
        ops = generator.generate(seed)
        if generator.fails(players, ops, 1):
            break
    small = generator.shrink(players, ops, 10)
    assert 1 <= len(small) <= 5 and generator.fails(players, small, 1), small
    for p in players:
        p.close()
