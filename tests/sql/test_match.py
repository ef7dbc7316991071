"""MATCH_RECOGNIZE gives what trying everything gives: random patterns, conditions and skips over Nexmark's bids, and Nexmark's own CEP queries.

The other side is a few lines of Python that take rows one by one in the order in which a pattern prefers them, and go back. Rows come in order, out
of order and late; in batches of 1, 7 and 1024; and with queries that are saved now and then and go on as others (decision 0012).
MILLRACE_MATCH_PATTERNS chooses how many random patterns there are for each stream, MILLRACE_SQL_SEED which, MILLRACE_NEXMARK_EVENTS how many events
Nexmark's queries see.
"""
import collections
import json
import os
import random
import subprocess

import pytest

from test_nexmark import PROGRAM, SCHEMA, SEED, milliseconds, shown

FEW = 4000
EVENTS = int(os.environ.get("MILLRACE_NEXMARK_EVENTS", FEW))
PATTERNS = int(os.environ.get("MILLRACE_MATCH_PATTERNS", "4"))
FOREVER = " WITH (state_ttl = 'none')"
TICK = "CREATE VIEW tick AS SELECT mod(bidder, 5) AS k, mod(price, 7) AS x, auction, bidder, price, dateTime, _offset AS o FROM bid;\n"

Row = collections.namedtuple("Row", "k x auction bidder price ts o")


def on_time(events, group, delay):
    """What a query finds of bids: rows that are on time, in their order."""
    lines = subprocess.run([PROGRAM, "--events", str(events), str(group)], stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    rows, late, watermark = [], 0, -1 << 60
    for place, line in enumerate(lines):
        event = json.loads(line)
        kind = event["bid"] or event["auction"] or event["person"]
        ts = milliseconds(kind["dateTime"])
        if event["bid"] and ts < watermark:
            late += 1
        elif event["bid"]:
            rows.append(Row(kind["bidder"] % 5, kind["price"] % 7, kind["auction"], kind["bidder"], kind["price"], ts, place))
        watermark = max(watermark, ts - delay)
    assert bool(late) == (delay == 3)
    rows.sort(key=lambda r: (r.ts, r.o))
    return events, group, delay, rows, late


STREAMS = {"params": [(1, 0), (130, 4000), (130, 3)], "ids": ["in-order", "out-of-order", "late"]}


@pytest.fixture(scope="module", **STREAMS)
def few(request):
    return on_time(FEW, *request.param)


@pytest.fixture(scope="module", **STREAMS)
def bids(request):
    return on_time(EVENTS, *request.param)


def run(tmp_path, query, events, group, delay, batch, *seed):
    path = tmp_path / "query.sql"
    path.write_text(SCHEMA.format(delay=delay / 1000) + TICK + query + ";\n", encoding="utf-8")
    done = subprocess.run([PROGRAM, str(path), str(batch), str(events), str(group), *map(str, seed)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=300)
    assert done.returncode == 0, done.stderr + query
    lines = done.stdout.splitlines()
    return lines[:-1], json.loads(lines[-1])


def compare(tmp_path, bids, query, expected):
    *stream, _, late = bids
    lines, end = run(tmp_path, query, *stream, 1024)
    assert collections.Counter(tuple(json.loads(line)[1:]) for line in lines) == collections.Counter(expected), query
    assert (end["late"], end["faults"]) == (late, 0)
    for batch in (7, 1):
        assert run(tmp_path, query, *stream, batch) == (lines, end), f"{batch} rows a batch change something: {query}"
    for batch in (1, 7, 1024):
        saved, saved_end = run(tmp_path, query, *stream, batch, SEED)
        assert saved == lines and saved_end["late"] == late, f"snapshots change something, with up to {batch} rows a batch: {query}"


# ---- trying everything ----

class Waits(Exception):
    """The way that is preferred needs a row that never comes."""


class TooLong(Exception):
    pass


class Match:
    """What conditions and measures may ask for: rows that have been taken, the last of which may be the one in question."""

    def __init__(self, rows, path):
        self.rows, self.path = rows, path    # path: (place, variable)

    def of(self, variable):
        return [place for place, v in self.path if variable in (None, v)]

    def value(self, column, variable=None, last=True, offset=0, back=0):
        places = self.of(variable)
        if offset >= len(places):
            return None
        place = (places[-1 - offset] if last else places[offset]) - back
        return getattr(self.rows[place], column) if place >= 0 else None

    def values(self, column, variable=None):
        return [getattr(self.rows[place], column) for place in self.of(variable)]


def ways(node, rows, start, path, conditions, within, budget):
    """Paths that begin with this one and end with the node, as they are preferred."""
    kind = node[0]
    if kind == "var":
        place = start + len(path)
        budget[0] -= 1
        if budget[0] < 0:
            raise TooLong
        if place >= len(rows):
            if within is None:
                raise Waits
            return
        if within is not None and rows[place].ts - rows[start].ts > within:
            return
        longer = path + [(place, node[1])]
        if conditions.get(node[1], lambda m: True)(Match(rows, longer)):
            yield longer
    elif kind == "seq":
        if not node[1]:
            yield path
            return
        for first in ways(node[1][0], rows, start, path, conditions, within, budget):
            yield from ways(("seq", node[1][1:]), rows, start, first, conditions, within, budget)
    elif kind == "alt":
        for item in node[1]:
            yield from ways(item, rows, start, path, conditions, within, budget)
    else:
        _, item, least, most, reluctant = node
        if least <= 0 and reluctant:
            yield path
        if most is None or most > 0:
            rest = ("rep", item, least - 1, None if most is None else most - 1, reluctant)
            for one in ways(item, rows, start, path, conditions, within, budget):
                yield from ways(rest, rows, start, one, conditions, within, budget)
        if least <= 0 and not reluctant:
            yield path


def find(rows, node, conditions, within, skip, budget):
    start, found = 0, []
    while start < len(rows):
        try:
            path = next(ways(node, rows, start, [], conditions, within, budget), None)
        except Waits:
            break
        if path is None:
            start += 1
            continue
        found.append(Match(rows, path))
        after = start + len(path)
        if skip == "NEXT":
            after = start + 1
        elif skip != "PAST":
            places = [place for place, v in path if v == skip[1]]
            after = max(places[0] if skip[0] == "FIRST" else places[-1], start + 1)
        start = after
    return found


def partitions(rows, *columns):
    parts = collections.defaultdict(list)
    for row in rows:
        parts[tuple(getattr(row, c) for c in columns)].append(row)
    return parts


# ---- random patterns ----

def text_of(node):
    kind = node[0]
    if kind == "var":
        return node[1]
    if kind == "seq":
        return " ".join(text_of(n) for n in node[1])
    if kind == "alt":
        return "(" + " | ".join(text_of(n) for n in node[1]) + ")"
    _, item, least, most, reluctant = node
    often = {(0, None): "*", (1, None): "+", (0, 1): "?"}.get((least, most)) or ("{%d,%s}" % (least, "" if most is None else most))
    return ("%s%s%s" if item[0] == "var" else "(%s)%s%s") % (text_of(item), often, "?" if reluctant else "")


def random_node(rng, depth, bounded):
    kind = rng.choice(["var", "var", "rep", "rep", "seq", "alt"] if depth else ["var"])
    if kind == "var":
        return ("var", rng.choice("ABC"))
    if kind in ("seq", "alt"):
        return (kind, [random_node(rng, depth - 1, bounded) for _ in range(rng.randint(2, 3))])
    least, most = rng.choice([(0, 1), (1, 2), (2, 2), (0, 3), (2, 4)] if bounded else [(0, None), (1, None), (1, None), (2, None), (0, 1), (0, 2), (1, 3)])
    item = ("var", rng.choice("ABC")) if most is None else random_node(rng, depth - 1, True)
    return ("rep", item, least, most, rng.random() < 0.3)


def random_condition(rng, v):
    """A text, and the same in Python; what compares with nothing is not true."""
    c, w = rng.randint(1, 6), rng.choice("ABC")
    both = lambda a, b, f: a is not None and b is not None and f(a, b)    # noqa: E731
    return rng.choice([
        (f"{v}.x < {c}", lambda m: m.value("x", v) < c),
        (f"x >= {c}", lambda m: m.value("x") >= c),
        (f"{v}.x > LAST({w}.x, 1)", lambda m: both(m.value("x", v), m.value("x", w, offset=1), lambda a, b: a > b)),
        (f"LAST({v}.x, 1) IS NULL OR {v}.x >= LAST({v}.x, 1)", lambda m: m.value("x", v, offset=1) is None or m.value("x", v) >= m.value("x", v, offset=1)),
        (f"{v}.x <> {w}.x OR COUNT({w}.x) = 0", lambda m: both(m.value("x", v), m.value("x", w), lambda a, b: a != b) or not m.of(w)),
        (f"x <= PREV(x)", lambda m: both(m.value("x"), m.value("x", back=1), lambda a, b: a <= b)),
        (f"{v}.x > PREV(FIRST({v}.x), 2)", lambda m: both(m.value("x", v), m.value("x", v, last=False, back=2), lambda a, b: a > b)),
        (f"SUM({v}.x) < {4 * c}", lambda m: sum(m.values("x", v)) < 4 * c),
        (f"COUNT(*) <= {c + 1} AND MAX(x) - MIN(x) < {c + 1}", lambda m: len(m.path) <= c + 1 and max(m.values("x")) - min(m.values("x")) < c + 1),
        (f"FIRST({w}.x, 1) IS NULL OR {v}.x <> FIRST({w}.x, 1)", lambda m: m.value("x", w, last=False, offset=1) is None or m.value("x", v) != m.value("x", w, last=False, offset=1)),
    ])


MEASURES = ("FIRST(o) AS a, LAST(o) AS b, COUNT(*) AS n, SUM(A.x) AS c, LAST(B.o) AS d, FIRST(B.x, 1) AS e, MAX(x) AS f, COUNT(C.x) AS g, PREV(FIRST(o)) AS h, "
            "A.x + LAST(C.x, 1) AS i, MATCH_ROWTIME() AS j, MIN(x) FILTER (WHERE x > 2) AS l")


def measures(m):
    a, c = m.value("x", "A"), m.value("x", "C", offset=1)
    return (m.value("o", last=False), m.value("o"), len(m.path), sum(m.values("x", "A")) if m.of("A") else None, m.value("o", "B"), m.value("x", "B", last=False, offset=1),
            max(m.values("x")), len(m.of("C")), m.value("o", last=False, back=1), None if a is None or c is None else a + c, shown(m.value("ts")),
            min((x for x in m.values("x") if x > 2), default=None))


def pattern(rng):
    within = rng.choice([None, 0, 2, 5, 12])
    node = ("seq", [random_node(rng, 2, rng.random() < 0.3) for _ in range(rng.randint(1, 3))])
    used = [v for v in "ABC" if v in text_of(node)]
    conditions = {v: random_condition(rng, v) for v in used if rng.random() < 0.85}
    skip = rng.choice(["PAST", "PAST", "NEXT", ("LAST", rng.choice(used)), ("FIRST", rng.choice(used))])
    return node, conditions, within, skip


def may_be_empty(node):
    if node[0] in ("seq", "alt"):
        return (all if node[0] == "seq" else any)(may_be_empty(n) for n in node[1])
    return node[0] == "rep" and (node[2] == 0 or may_be_empty(node[1]))


def always(node, variable):
    if node[0] == "var":
        return node[1] == variable
    if node[0] == "rep":
        return node[2] > 0 and always(node[1], variable)
    return (any if node[0] == "seq" else all)(always(n, variable) for n in node[1])


def may_begin(node, variable):
    if node[0] == "var":
        return node[1] == variable
    if node[0] == "rep":
        return may_begin(node[1], variable)
    if node[0] == "alt":
        return any(may_begin(n, variable) for n in node[1])
    for n in node[1]:
        if may_begin(n, variable):
            return True
        if not may_be_empty(n):
            return False
    return False


def usable(node, skip):
    """The others are refused; that they are is seen in match_test.c."""
    text = text_of(node)
    return (any(v in text for v in "ABC") and not may_be_empty(node) and
            (isinstance(skip, str) or (always(node, skip[1]) and (skip[0] == "LAST" or not may_begin(node, skip[1])))))


def test_random_patterns(few, tmp_path):
    rng, tried, met = random.Random(SEED), 0, 0
    print(f"MILLRACE_SQL_SEED={SEED}")
    while tried < PATTERNS:
        node, conditions, within, skip = pattern(rng)
        if not usable(node, skip):
            continue
        defined = {v: c[1] for v, c in conditions.items()}
        names = set("ABC") - {v for v in "ABC" if v in text_of(node)}
        if any(f"{v}." in text for text, _ in conditions.values() for v in names) or any(f"{v}." in MEASURES for v in names):
            # what asks for a variable has to have it: the rest of the pattern may have it no times
            node = ("seq", [node, ("rep", ("alt", [("seq", [("var", "A"), ("var", "B"), ("var", "C")]), ("var", "A")]), 0, 1, True)])
        try:
            expected = [(k, *measures(m)) for (k,), rows in partitions(few[3], "k").items() for m in find(rows, node, defined, within, skip, [300000])]
        except (TooLong, RecursionError):
            continue
        clause = {"PAST": "PAST LAST ROW", "NEXT": "TO NEXT ROW"}.get(skip) if isinstance(skip, str) else "TO %s %s" % skip
        query = (f"SELECT * FROM tick MATCH_RECOGNIZE (PARTITION BY k ORDER BY dateTime MEASURES {MEASURES} AFTER MATCH SKIP {clause} PATTERN ({text_of(node)}) "
                 + (f"WITHIN INTERVAL '{within / 1000}' SECOND " if within is not None else "") + "DEFINE "
                 + (", ".join(f"{v} AS {text}" for v, (text, _) in conditions.items()) or "A AS TRUE") + ")" + FOREVER)
        compare(tmp_path, few, query, expected)
        tried += 1
        met += bool(expected)
    assert met > tried / 4, "patterns that nothing meets show nothing"


# ---- Nexmark's ----

ITEMS = "auction, bidder"
HEAD = " FROM bid MATCH_RECOGNIZE (PARTITION BY auction, bidder ORDER BY dateTime MEASURES "
A, B, C = ("var", "A"), ("var", "B"), ("var", "C")
MANY = ("rep", A, 1, None, False)


def average(values):
    return (sum(values) * 10000000 // len(values) + 5) // 10


def long_average(m):
    return shown(m.value("ts", "A", last=False)), shown(m.value("ts", "A")), average(m.values("price", "A"))


def price_down(m):
    before, now = m.value("price", "B", offset=1), m.value("price", "B")
    return now < (m.value("price", "A") if before is None else before)


def price_up(m):
    before = m.value("price", "B", offset=1)
    return before is not None and m.value("price", "C") > before


LONG = ("SELECT auction, bidder, start_tstamp, end_tstamp, avg_price * 1000000" + HEAD + "FIRST(A.dateTime) AS start_tstamp, LAST(A.dateTime) AS end_tstamp, AVG(A.price) AS avg_price "
        "ONE ROW PER MATCH AFTER MATCH SKIP {} PATTERN (A+ B) DEFINE A AS AVG(A.price) < 10000)" + FOREVER)
CEP = {
    "cep0": ("SELECT auction, bidder, start_tstamp, bottom_tstamp, end_tstamp" + HEAD +
             "START_ROW.dateTime AS start_tstamp, LAST(PRICE_DOWN.dateTime) AS bottom_tstamp, LAST(PRICE_UP.dateTime) AS end_tstamp "
             "ONE ROW PER MATCH AFTER MATCH SKIP TO LAST PRICE_UP PATTERN (START_ROW PRICE_DOWN+ PRICE_UP) DEFINE "
             "PRICE_DOWN AS (LAST(PRICE_DOWN.price, 1) IS NULL AND PRICE_DOWN.price < START_ROW.price) OR PRICE_DOWN.price < LAST(PRICE_DOWN.price, 1), "
             "PRICE_UP AS PRICE_UP.price > LAST(PRICE_DOWN.price, 1))" + FOREVER,
             ("seq", [A, ("rep", B, 1, None, False), C]), {"B": price_down, "C": price_up}, None, ("LAST", "C"),
             lambda m: (shown(m.value("ts", "A")), shown(m.value("ts", "B")), shown(m.value("ts", "C")))),
    "cep1": (LONG.format("PAST LAST ROW"), ("seq", [MANY, B]), {"A": lambda m: average(m.values("price", "A")) < 10000 * 1000000}, None, "PAST", long_average),
    "cep2": (LONG.format("TO NEXT ROW"), ("seq", [MANY, B]), {"A": lambda m: average(m.values("price", "A")) < 10000 * 1000000}, None, "NEXT", long_average),
    "cep3": ("SELECT auction, bidder, drop_time, drop_diff" + HEAD + "C.dateTime AS drop_time, A.price - C.price AS drop_diff ONE ROW PER MATCH AFTER MATCH SKIP PAST LAST ROW "
             "PATTERN (A B* C) WITHIN INTERVAL '5' SECOND DEFINE B AS B.price > A.price - 50, C AS C.price < A.price - 50)",
             ("seq", [A, ("rep", B, 0, None, False), C]), {"B": lambda m: m.value("price", "B") > m.value("price", "A") - 50, "C": lambda m: m.value("price", "C") < m.value("price", "A") - 50},
             5000, "PAST", lambda m: (shown(m.value("ts", "C")), m.value("price", "A") - m.value("price", "C"))),
}


@pytest.mark.parametrize("name", CEP)
def test_nexmark(bids, tmp_path, name):
    query, node, conditions, within, skip, given = CEP[name]
    expected = [(*key, *given(m)) for key, rows in partitions(bids[3], "auction", "bidder").items() for m in find(rows, node, conditions, within, skip, [1 << 40])]
    assert expected, "a query that gives nothing shows nothing"
    compare(tmp_path, bids, query, expected)
