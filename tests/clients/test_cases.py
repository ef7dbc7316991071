"""The case table, played against both brokers, answers compared (see cases/__init__.py)."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

import cases
import script
from conftest import TARGET

WORKERS = int(os.environ.get('MILLRACE_WORKERS', '16'))
ROWS = [r for r in cases.all_rows() if r.only in (None, TARGET)]


@pytest.fixture(scope='session')
def played(request, target):
    """Plays every selected row in the background, several at a time, because most of a row is waiting.
    Rows share nothing, so the order does not matter.  Yields a function: row -> (reference, answers)."""
    rows = [item.callspec.params['row'] for item in request.session.items
            if getattr(item, 'callspec', None) and isinstance(item.callspec.params.get('row'), script.Row)]
    peer = request.getfixturevalue('rabbitmq') if any(not r.only for r in rows) else None
    futures = {}
    with ThreadPoolExecutor(WORKERS) as pool:
        for row in rows:
            on = [target] if row.only else [peer, target]
            futures[row.name] = [pool.submit(script.Player(b).play, row) for b in on]

        def wait(row):
            answers = [f.result() for f in futures[row.name]]
            return answers if len(answers) == 2 else [None] + answers
        yield wait
        for fs in futures.values():
            for f in fs:
                f.cancel()


@pytest.mark.parametrize('row', ROWS, ids=lambda r: r.name)
def test_row(row, played):
    reference, answers = played(row)
    if os.environ.get('MILLRACE_SHOW'):
        for step, seen in zip(row.steps, reference or answers):
            print('%s\n        %s' % (step, seen))
    bad = script.compare(row, reference, answers, TARGET == 'millrace')
    if bad:
        pytest.fail('%s\n  ' % row.name + '\n  '.join(bad) + '\n script:\n' + '\n'.join(
            '   %d %s\n       -> %s' % (i + 1, s, a) for i, (s, a) in enumerate(zip(row.steps, answers))),
            pytrace=False)
