"""Random scalar expressions give what SQLite gives, where both define the same: integers, doubles, texts, booleans, NULLs.

An expression is made as a pair of texts, ours and SQLite's, since the two spell some things differently. The seed is printed; with
MILLRACE_SQL_SEED it is chosen, with MILLRACE_SQL_EXPRESSIONS their number.
"""
import json
import os
import random
import sqlite3
import subprocess

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("MILLRACE_BUILD", os.path.join(TOP, "build/release"))
PROGRAM = os.path.join(BUILD, "tests/sql/evaluate")
EXPRESSIONS = int(os.environ.get("MILLRACE_SQL_EXPRESSIONS", "4000"))
COLUMNS = [("a", "bigint"), ("b", "bigint"), ("d", "double precision"), ("t", "text"), ("u", "text"), ("p", "boolean")]
TEXTS = ["", "a", "abc", "ABC", " pad ", "a%b", "x_y", "caf\u00e9", "na\u00efve \u20ac", "banana", "12", "-7"]


def same(text):
    return text, text


class Maker:
    """Each method makes an expression of one type: (ours, SQLite's)."""

    def __init__(self, chance):
        self.chance = chance

    def pick(self, depth, leaves, inner):
        return self.chance.choice(leaves if depth <= 0 or self.chance.random() < 0.15 else inner)(depth - 1)

    def column(self, name):
        return same(name)

    def both(self, template, *parts):
        return tuple(template.format(*(part[side] for part in parts)) for side in (0, 1))

    def choose(self, make, depth):
        kind = self.chance.randrange(4)
        if kind == 0:
            return self.both("CASE WHEN {} THEN {} ELSE {} END", self.truth(depth), make(depth), make(depth))
        if kind == 1:
            return self.both("CASE WHEN {} THEN {} WHEN {} THEN {} END", self.truth(depth), make(depth), self.truth(depth), make(depth))
        if kind == 2:
            return self.both("coalesce({}, {})", make(depth), make(depth))
        return self.both("nullif({}, {})", make(depth), make(depth))

    def whole(self, depth):
        number = self.chance.choice([0, 1, 2, 3, 7, -1, -5, 100])
        leaves = [lambda _: self.column("a"), lambda _: self.column("b"), lambda _: (f"bigint '{number}'", f"({number})"),
                  lambda _: ("CAST(NULL AS bigint)", "NULL")]
        inner = [lambda d: self.both("({} + {})", self.whole(d), self.whole(d)),
                 lambda d: self.both("({} - {})", self.whole(d), self.whole(d)),
                 lambda d: self.both("({} * {})", self.whole(min(d, 1)), self.whole(min(d, 1))),
                 lambda d: self.both("({} / {})", self.whole(d), same(str(self.chance.choice([1, 2, 3, 10])))),
                 lambda d: self.both("({} % {})", self.whole(d), same(str(self.chance.choice([1, 2, 3, 10])))),
                 lambda d: self.both("(- {})", self.whole(d)),
                 lambda d: self.both("abs({})", self.whole(d)),
                 lambda d: self.both("length({})", self.text(d)),
                 lambda d: (lambda x, y: (f"strpos({x[0]}, {y[0]})", f"instr({x[1]}, {y[1]})"))(self.text(d), self.text(d)),
                 lambda d: self.choose(self.whole, d)]
        return self.pick(depth, leaves, inner)

    def real(self, depth):
        number = self.chance.choice(["0.5", "2.25", "-1.75", "10.0"])
        leaves = [lambda _: self.column("d"), lambda _: (f"double '{number}'", f"({number})")]
        inner = [lambda d: self.both("({} + {})", self.real(d), self.real(d)),
                 lambda d: self.both("({} - {})", self.real(d), self.whole(min(d, 1))),
                 lambda d: self.both("({} * {})", self.real(min(d, 1)), self.real(min(d, 1))),
                 lambda d: self.both("({} / {})", self.real(d), ("double '4'", "4.0")),
                 lambda d: self.both("abs({})", self.real(d)),
                 lambda d: self.choose(self.real, d)]
        return self.pick(depth, leaves, inner)

    def text(self, depth):
        literal = "'" + self.chance.choice(TEXTS).replace("'", "''") + "'"
        leaves = [lambda _: self.column("t"), lambda _: self.column("u"), lambda _: (f"text {literal}", literal)]
        place, count = self.chance.randrange(1, 6), self.chance.randrange(0, 5)
        inner = [lambda d: self.both("({} || {})", self.text(d), self.text(d)),
                 lambda d: self.both("upper({})", self.text(d)),
                 lambda d: self.both("lower({})", self.text(d)),
                 lambda d: self.both(f"substr({{}}, {place})", self.text(d)),
                 lambda d: self.both(f"substr({{}}, {place}, {count})", self.text(d)),
                 lambda d: self.both(f"replace({{}}, '{self.chance.choice(['a', 'b', 'an', '%'])}', {{}})", self.text(d), self.text(min(d, 1))),
                 lambda d: self.both("ltrim({})", self.text(d)),
                 lambda d: self.both("rtrim({}, 'ab')", self.text(d)),
                 lambda d: self.both("trim({})", self.text(d)),
                 lambda d: self.both("CAST({} AS text)", self.whole(d)),
                 lambda d: self.choose(self.text, d)]
        return self.pick(depth, leaves, inner)

    def truth(self, depth):
        operator = self.chance.choice(["=", "<>", "<", "<=", ">", ">="])
        leaves = [lambda _: self.column("p"), lambda _: same("true"), lambda _: same("false"), lambda _: ("CAST(NULL AS boolean)", "NULL")]
        pattern = "'" + self.chance.choice(["%", "a%", "%a%", "_", "%_b%", "a\\%b", "%c"]) + "'"
        not_ = self.chance.choice(["", "NOT "])
        inner = [lambda d: self.both(f"({{}} {operator} {{}})", self.whole(d), self.whole(d)),
                 lambda d: self.both(f"({{}} {operator} {{}})", self.whole(d), self.real(d)),
                 lambda d: self.both(f"({{}} {operator} {{}})", self.text(d), self.text(d)),
                 lambda d: self.both("({} AND {})", self.truth(d), self.truth(d)),
                 lambda d: self.both("({} OR {})", self.truth(d), self.truth(d)),
                 lambda d: self.both("(NOT {})", self.truth(d)),
                 lambda d: self.both(f"({{}} IS {not_}NULL)", self.whole(d)),
                 lambda d: self.both(f"({{}} IS {not_}TRUE)", self.truth(d)),
                 lambda d: self.both(f"({{}} {not_}BETWEEN {{}} AND {{}})", self.whole(d), self.whole(min(d, 1)), self.whole(min(d, 1))),
                 lambda d: self.both(f"({{}} {not_}IN ({{}}, {{}}, {{}}))", self.whole(d), *(self.whole(min(d, 1)) for _ in range(3))),
                 lambda d: (lambda x: (f"({x[0]} {not_}LIKE {pattern})", f"({x[1]} {not_}LIKE {pattern} ESCAPE '\\')"))(self.text(d)),
                 lambda d: (lambda x, y: (f"({x[0]} IS DISTINCT FROM {y[0]})", f"({x[1]} IS NOT {y[1]})"))(self.text(d), self.text(d)),
                 lambda d: self.choose(self.truth, d)]
        return self.pick(depth, leaves, inner)


def make_rows(chance, count):
    def maybe(value):
        return None if chance.random() < 0.15 else value
    return [{"a": maybe(chance.randrange(-20, 21)), "b": maybe(chance.randrange(-3, 4)), "d": maybe(chance.randrange(-40, 41) / 4),
             "t": maybe(chance.choice(TEXTS)), "u": maybe(chance.choice(TEXTS)), "p": maybe(chance.random() < 0.5)} for _ in range(count)]


def ours(rows, expressions, batch):
    lines = [f"{name} {kind}" for name, kind in COLUMNS] + [""] + [json.dumps(row) for row in rows] + [""] + expressions
    done = subprocess.run([PROGRAM, str(batch)], input="\n".join(lines) + "\n", stdout=subprocess.PIPE, text=True, check=True, timeout=600)
    return done.stdout.splitlines()


def connect(rows):
    db = sqlite3.connect(":memory:")
    db.execute("PRAGMA case_sensitive_like = ON")
    db.execute("CREATE TABLE r (n INTEGER PRIMARY KEY, a INTEGER, b INTEGER, d REAL, t TEXT, u TEXT, p INTEGER)")
    db.executemany("INSERT INTO r (a, b, d, t, u, p) VALUES (:a, :b, :d, :t, :u, :p)", rows)
    return db


def test_random_expressions_give_what_sqlite_gives():
    seed = int(os.environ.get("MILLRACE_SQL_SEED", "0")) or (20261126 if os.environ.get("CI") == "true" else random.randrange(1, 1 << 31))
    print("seed", seed)
    chance = random.Random(seed)
    maker, rows = Maker(chance), make_rows(chance, 50)
    pairs = [chance.choice([maker.whole, maker.real, maker.text, maker.truth])(chance.randrange(1, 5)) for _ in range(EXPRESSIONS)]
    results = ours(rows, [pair[0] for pair in pairs], 50)
    assert len(results) == len(pairs)
    db = connect(rows)
    for (mine, theirs), result in zip(pairs, results):
        assert result.startswith("["), f"seed {seed}: {mine}: {result}"
        expected = [row[0] for row in db.execute(f"SELECT {theirs} FROM r ORDER BY n")]
        assert json.loads(result) == expected, f"seed {seed}:\n{mine}\n{theirs}"


def test_the_size_of_a_batch_changes_nothing():
    chance = random.Random(7)
    maker, rows = Maker(chance), make_rows(chance, 50)
    expressions = [chance.choice([maker.whole, maker.text, maker.truth])(4)[0] for _ in range(200)]
    expressions += ["10 / a", "a * bigint '9223372036854775807'", "CAST(t AS int)", "CASE WHEN b <> 0 THEN a / b END", "b <> 0 AND a / b > 1"]
    whole = ours(rows, expressions, 1024)
    assert any("fault" in line for line in whole)
    for batch in (1, 7):
        assert ours(rows, expressions, batch) == whole
