"""`millrace test`: files that are right and files that are wrong, as people run them. What an assertion says is src/main/shell/trial_test.c's."""

import json
import os
import subprocess

import brokers

BINARY = os.path.abspath(os.environ.get('MILLRACE_BIN', os.path.join(brokers.ROOT, 'build', 'millrace')))

GOOD = '''CREATE STREAM s (id BIGINT, ts TIMESTAMP, WATERMARK FOR ts);
CREATE STREAM few AS SELECT id FROM s WHERE id < 10;
CREATE STREAM counts AS SELECT window_end, COUNT(*) AS n FROM TUMBLE(s, ts, INTERVAL '1' MINUTE) GROUP BY window_start, window_end;
INSERT INTO s VALUES (1, '2026-01-01 00:00:01'), (20, '2026-01-01 00:00:02');
ASSERT VALUES few VALUES (1);
ASSERT NULL VALUES few;
ADVANCE TIME BY INTERVAL '1' MINUTE;
ASSERT VALUES counts VALUES ('2026-01-01 00:01:00', 2);
'''
BAD = GOOD.replace('VALUES (1);', 'VALUES (20);')


def trial(*words, code=0):
    done = subprocess.run([BINARY, 'test', *words], capture_output=True, timeout=60, text=True)
    assert done.returncode == code, done.stderr + done.stdout
    return done


def file_of(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def test_a_good_file(tmp_path):
    done = trial(file_of(tmp_path, 'good.sql', GOOD))
    assert (done.stdout, done.stderr) == ('3 passed, 0 failed\n', '')


def test_a_bad_file_says_where_and_what_and_the_next_is_run(tmp_path):
    bad = file_of(tmp_path, 'bad.sql', BAD)
    done = trial(bad, file_of(tmp_path, 'good.sql', GOOD), code=1)
    assert done.stdout == '''%s:5: few is not what was expected (-), but what came (+):
    - [20]
    + [1]
5 passed, 1 failed
''' % bad


def test_json(tmp_path):
    bad = file_of(tmp_path, 'bad.sql', BAD)
    lines = [json.loads(line) for line in trial('--json', bad, code=1).stdout.splitlines()]
    assert lines[0] == {'file': bad, 'line': 5, 'passed': False, 'stream': 'few', 'expected': [[20]], 'came': [[1]]}
    assert lines[1:] == [{'file': bad, 'line': n, 'passed': True, 'stream': s} for n, s in ((6, 'few'), (8, 'counts'))] + [{'passed': 2, 'failed': 1}]


def test_a_refused_statement_ends_its_file(tmp_path):
    bad = file_of(tmp_path, 'bad.sql', '\nCREATE STREAM s (id BIGINT);\nSELECT ID, kk FROM s;\nASSERT NULL VALUES s;\n')
    done = trial(bad, code=1)
    assert done.stdout == '0 passed, 1 failed\n'
    assert done.stderr.startswith(bad + ':3: ERROR 42703: there is no column kk\n')


def test_selects_are_shown(tmp_path):
    path = file_of(tmp_path, 'select.sql', "CREATE STREAM s (id BIGINT); INSERT INTO s VALUES (7); SELECT id, _ts FROM s;")
    assert trial(path).stdout.splitlines()[2:] == ['  7 | 2026-01-01 00:00:00', '0 passed, 0 failed']
    assert trial('--quiet', path).stdout == '0 passed, 0 failed\n'


def test_usage(tmp_path):
    assert 'which file?' in trial(code=64).stderr
    assert 'cannot be read' in trial(str(tmp_path / 'nothing.sql'), code=1).stderr


def test_the_same_every_time(tmp_path):
    """Several partitions, queries over queries, and a dead letter: nothing of it is by chance."""
    path = file_of(tmp_path, 'twice.sql', '''
CREATE STREAM s (id BIGINT, k TEXT) WITH (topic = 'in', partitions = 4, key = 'k');
CREATE STREAM texts (id TEXT) WITH (topic = 'in');
CREATE STREAM counts AS SELECT k, COUNT(id) AS n FROM s GROUP BY k EMIT CHANGES;
CREATE STREAM sums AS SELECT SUM(n) AS n FROM counts EMIT CHANGES;
''' + ''.join("INSERT INTO s VALUES (%d, 'k%d');" % (i, i % 7) for i in range(50)) + '''
INSERT INTO texts VALUES ('no number');
SELECT * FROM counts; SELECT * FROM sums; SELECT *, _partition, _offset FROM s;
CREATE STREAM dead (what TEXT) WITH (topic = 'counts.dlq', format = 'raw');
SELECT what FROM dead;
''')
    first = trial(path).stdout
    assert 'no number' in first and len(first.splitlines()) > 150
    assert trial(path).stdout == first
