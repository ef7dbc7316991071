"""Random whole queries over small random streams give what SQLite gives for the same rows at once: joins, windows, groups, DISTINCT, first rows, OVER, and all of them nested.

And the same rows in the same order whatever the size of a batch, and when the query is saved now and then and another one goes on (decision 0012). The seed
is always the same here; MILLRACE_SQL_SEED is another one, MILLRACE_SQL_QUERIES how many there are: `make sql-random QUERIES=10000 SEED=1`. What differs is
printed with the fewest rows that show it.
"""
import collections
import json
import os
import random
import re
import sqlite3
import subprocess

from random_queries import SCHEMA, STREAMS, WORLDS, Queries, World, shown_json
from test_nexmark import PROGRAM, shown

QUERIES = int(os.environ.get("MILLRACE_SQL_QUERIES", "300" if os.environ.get("MILLRACE_FLAVOUR", "release") == "release" else "75"))
SEED = int(os.environ.get("MILLRACE_SQL_SEED", "1"))
A_WORLD = 25  # queries
SHOWN = 10
RIGHT = (None, "refused", "faults")  # what is no difference
# What is not there, and sums of doubles over rows that change.
REFUSED = re.compile("ERROR 0A000|.*cannot take rows back without an error in the sum")


class Mean:
    """avg() of whole numbers: a decimal with six places, half of the last away from zero."""

    def __init__(self):
        self.total = self.count = 0

    def step(self, value):
        if value is not None:
            self.total, self.count = self.total + value, self.count + 1

    def finalize(self):
        if not self.count:
            return None
        whole = (abs(self.total) * 2 * 10 ** 6 + self.count) // (2 * self.count)
        return (whole if self.total >= 0 else -whole) / 10 ** 6


def load(rows, delay):
    db = sqlite3.connect(":memory:")
    db.create_function("t", 1, lambda ms: None if ms is None else shown(ms))
    db.create_aggregate("mean", 1, Mean)
    db.execute("PRAGMA case_sensitive_like = ON")
    watermarks = {}
    for name in STREAMS:
        watermarks[name] = -1 << 60
        db.execute(f"CREATE TABLE {name} (n INTEGER, a INTEGER, b INTEGER, d REAL, t TEXT, u TEXT, p INTEGER, j TEXT, ts INTEGER, wm INTEGER)")
    for name, _, row in rows:
        values = [row.get(column) for column in ("n", "a", "b", "d", "t", "u", "p")]
        db.execute(f"INSERT INTO {name} VALUES (?,?,?,?,?,?,?,?,?,?)", (*values, shown_json(row["j"]) if row.get("j") is not None else None, row["ts"], watermarks[name]))
        watermarks[name] = max(watermarks[name], row["ts"] - delay)
    return db


def record(row):
    return "{" + ", ".join(f'"{name}": {json.dumps(shown(value)) if name == "ts" else shown_json(value)}' for name, value in row.items()) + "}"


def ours(rows, delay, runs):
    """For each (batch, seed, query) its lines, and how it ended."""
    lines = [SCHEMA.format(name=name, delay=delay / 1000) for name in STREAMS] + [""]
    lines += [f"{name}\t{ms}\t{record(row)}" for name, ms, row in rows] + [""] + [f"{batch} {seed} {query}" for batch, seed, query in runs]
    done = subprocess.run([PROGRAM, "--script"], input="\n".join(lines) + "\n", stdout=subprocess.PIPE, text=True, check=True, timeout=1200)
    answers, answer = [], []
    for line in done.stdout.split("\n"):
        if line.startswith("= "):
            answers.append((answer, int(line[2:])))
            answer = []
        else:
            answer.append(line)
    assert len(answers) == len(runs)
    return answers


def folded(lines):
    rows = collections.Counter()
    for line in lines:
        weight, *values = json.loads(line)
        rows[tuple(values)] += weight
    return rows


def ways(chance, query):
    """The sizes of batches, and where it is saved."""
    return [(1024, 0, query), (1, 0, query), (chance.randrange(2, 9), chance.randrange(1, 1 << 31), query), (1, chance.randrange(1, 1 << 31), query)]


def fault(db, answers, theirs):
    """Why the answers are not right; or one of RIGHT."""
    (lines, status), *others = answers
    if status != 0:
        return "refused" if lines and REFUSED.match(lines[0]) else "it ends badly: " + "\n".join(lines)
    end = json.loads(lines[-1])
    for n, (other, other_status) in enumerate(others):
        if other_status != 0 or other[:-1] != lines[:-1] or {**json.loads(other[-1]), "state": 0} != {**end, "state": 0}:
            return f"run {n + 1} of the ways to run it gives something else than run 0:\n" + "\n".join(lines) + "\n-- and\n" + "\n".join(other)
    if end["faults"]:
        return "faults"
    mine, right = folded(lines[:-1]), collections.Counter(db.execute(theirs).fetchall())
    if any(count < 0 for count in mine.values()):
        return f"rows are taken back that were not there: {[row for row, count in mine.items() if count < 0][:5]}"
    if +mine != right:
        return f"Millrace has {list((mine - right).elements())[:5]}\nSQLite has {list((right - mine).elements())[:5]}"
    return None


def fewest(rows, delay, runs, theirs):
    """Rows without those that can be left out."""
    step = max(1, len(rows) // 2)
    while step:
        at = 0
        while at < len(rows):
            fewer = rows[:at] + rows[at + step:]
            if fewer and fault(load(fewer, delay), ours(fewer, delay, runs), theirs) not in RIGHT:
                rows = fewer
            else:
                at += step
        step //= 2
    return rows


def report(seed, world, runs, theirs):
    rows = fewest(world.rows, world.delay, runs, theirs)
    why = fault(load(rows, world.delay), ours(rows, world.delay, runs), theirs)
    return (f"seed {seed}, {world.kind}; ways to run it: {[run[:2] for run in runs]}\n{runs[0][2]}\n-- SQLite:\n{theirs}\n"
            + "\n".join(f"{name}\t{ms}\t{record(row)}" for name, ms, row in rows) + f"\n{why}\n")


def test_random_queries_give_what_sqlite_gives():
    print(f"MILLRACE_SQL_SEED={SEED}")
    counts, wrong = collections.Counter(), []
    for first in range(0, QUERIES, A_WORLD):
        chance = random.Random(SEED + first)
        world = World(chance, chance.choice(list(WORLDS)))
        maker = Queries(chance, world.kind)
        pairs = [maker.query() for _ in range(min(A_WORLD, QUERIES - first))]
        runs = [ways(chance, pair[0]) for pair in pairs]
        answers = ours(world.rows, world.delay, [run for some in runs for run in some])
        db = load(world.rows, world.delay)
        for n, (mine, theirs) in enumerate(pairs):
            why = fault(db, answers[4 * n:4 * n + 4], theirs)
            counts[why if why in RIGHT else "wrong"] += 1
            counts["with rows"] += why is None and len(answers[4 * n][0]) > 2
            if why == "refused":
                counts[answers[4 * n][0][0]] += 1
            if why not in RIGHT and len(wrong) < SHOWN:
                wrong.append(report(SEED + first, world, runs[n], theirs))
                print(wrong[-1], flush=True)
    print(dict(counts))
    assert not wrong, f"{counts['wrong']} of {QUERIES} queries differ, seed {SEED}"
    assert counts["with rows"] > QUERIES // 2, f"{counts}: too few say anything"
