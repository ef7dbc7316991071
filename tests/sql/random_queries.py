"""Makes whole queries at random, each as a pair of texts: ours, and one for SQLite that says the same of all rows at once.

A relation has always the columns a, b (BIGINT), d (DOUBLE), t, u (TEXT) and p (BOOLEAN), so that expressions and other relations can be made of any. Those
of a stream have a number n (the place among all records), JSON j and a time ts, too. In SQLite times are milliseconds, and wm is the watermark before the row.
"""
import json
import re

from test_nexmark import BASE_MS
from test_sqlite import TEXTS, Maker, same

COLUMNS = ("a", "b", "d", "t", "u", "p")
KINDS = {"a": "whole", "b": "whole", "d": "real", "t": "text", "u": "text", "p": "truth"}
SCHEMA = ("CREATE STREAM {name} (n BIGINT, a BIGINT, b BIGINT, d DOUBLE, t TEXT, u TEXT, p BOOLEAN, j JSON, ts TIMESTAMP, "
          "WATERMARK FOR ts AS ts - INTERVAL '{delay}' SECOND);")
STREAMS = ("s", "r")
# how far a row may be behind those before it, and how far the watermark is: late rows are what the last is about
WORLDS = {"in order": (0, 0), "out of order": (3000, 3000), "late": (6000, 1000)}


class World:
    """Records of two streams, in the order in which they come."""

    def __init__(self, chance, kind):
        self.kind = kind
        self.disorder, self.delay = WORLDS[kind]
        self.rows = [self.record(chance, place) for place in range(chance.randrange(1, 60))]

    def record(self, chance, place):
        def maybe(value):
            return None if chance.random() < 0.12 else value
        ts = place * 500 + 10000 - (chance.randrange(0, self.disorder + 1, 500) if chance.random() < 0.4 else 0)
        inner = {"y": maybe(chance.randrange(5)), "x": [chance.randrange(3) for _ in range(chance.randrange(3))]}
        row = {"n": place, "a": maybe(chance.randrange(-2, 5)), "b": maybe(chance.randrange(-20, 21)), "d": maybe(chance.randrange(-40, 41) / 4), "t": maybe(chance.choice(TEXTS)),
               "u": maybe(chance.choice(TEXTS[:4])), "p": maybe(chance.random() < 0.5),
               "j": maybe({"k": maybe(chance.randrange(-3, 4)), "s": maybe(chance.choice(TEXTS + ['"\\\n'])), "o": inner} if chance.random() < 0.9 else {}),
               "ts": BASE_MS + ts - ts % 500}
        return chance.choice(STREAMS), BASE_MS + place * 100, {name: value for name, value in row.items() if value is not None or chance.random() < 0.5}


class Relation:
    """ours, theirs: what stands behind FROM, without a name. base: the stream itself. time: ts is a time with a watermark. ts: it is there. changes: rows may be taken back."""

    def __init__(self, ours, theirs, base=False, time=False, ts=False, changes=False):
        self.ours, self.theirs, self.base, self.time, self.ts, self.changes = ours, theirs, base, time, ts or time, changes

    def nested(self):
        return self if self.base else Relation(f"({self.ours})", f"({self.theirs})", time=self.time, ts=self.ts, changes=self.changes)


class Queries(Maker):
    """One query after another, over the same world's kind."""

    def __init__(self, chance, kind):
        super().__init__(chance)
        self.kind = kind
        self.prefixes, self.json, self.changes, self.forever = ["q"], False, False, False

    # ------------------------------------------------------------------------------------------------------ expressions
    def column(self, name):
        return same(f"{self.chance.choice(self.prefixes)}.{name}")

    def of_json(self, name):
        q = self.chance.choice(self.prefixes)
        return {"k": (f"CAST({q}.j ->> 'k' AS bigint)", f"({q}.j ->> '$.k')"), "y": (f"CAST({q}.j -> 'o' ->> 'y' AS bigint)", f"({q}.j ->> '$.o.y')"),
                "x": (f"CAST({q}.j #>> '{{o,x,0}}' AS bigint)", f"({q}.j ->> '$.o.x[0]')"), "length": (f"json_array_length({q}.j -> 'o' -> 'x')", f"json_array_length({q}.j -> '$.o.x')"),
                "s": (f"({q}.j ->> 's')", f"({q}.j ->> '$.s')"), "v": (f"json_value({q}.j, '$.s')", f"({q}.j ->> '$.s')"),
                "e": (f"json_exists({q}.j, '$.o')", f"CASE WHEN {q}.j IS NOT NULL THEN json_type({q}.j, '$.o') IS NOT NULL END")}[name]

    def whole(self, depth):
        if self.json and self.chance.random() < 0.2:
            return self.of_json(self.chance.choice(["k", "y", "x", "length"]))
        if depth > 1 and self.chance.random() < 0.1:  # products of sums grow beyond all numbers
            return self.both("({} * {})", self.whole(0), same("2"))
        return super().whole(min(depth, 2))

    def real(self, depth):
        """Exact in binary, however they are summed."""
        inner = [lambda d: self.both("({} + {})", self.real(d), self.real(d)), lambda d: self.both("({} - {})", self.real(d), self.whole(0)),
                 lambda d: self.both("({} * {})", self.real(d), ("double '0.5'", "0.5")), lambda d: self.both("abs({})", self.real(d)), lambda d: self.choose(self.real, d)]
        return self.chance.choice(inner)(depth - 1) if depth > 0 and self.chance.random() < 0.6 else self.column("d")

    def text(self, depth):
        if self.json and self.chance.random() < 0.2:
            return self.of_json(self.chance.choice(["s", "v"]))
        return super().text(min(depth, 2))

    def truth(self, depth):
        if self.json and self.chance.random() < 0.1:
            return self.of_json("e")
        return super().truth(depth)

    def value(self, kind, depth):
        return getattr(self, kind)(depth)

    def within(self, prefixes, is_json=False):
        self.prefixes, self.json = prefixes, is_json

    # -------------------------------------------------------------------------------------------------------- relations
    def stream(self):
        name = self.chance.choice(STREAMS)
        return Relation(name, name, base=True, time=True)

    def relation(self, depth):
        if depth <= 0 or self.chance.random() < 0.2:
            return self.stream()
        kinds = [self.select, self.select, self.group, self.window, self.join, self.distinct, self.first_rows, self.best, self.over, self.some, self.meet]
        return self.chance.choice(kinds)(depth - 1)

    def timed(self, depth):
        """With a time that has a watermark."""
        for _ in range(6 if self.kind != "late" else 0):
            found = self.relation(depth)
            if found.time:
                return found
        return self.stream()

    def list_of(self, items, extra=""):
        ours = ", ".join(f"{item[0]} AS {name}" for name, item in items.items())
        theirs = ", ".join(f"{item[1]} AS {name}" for name, item in items.items())
        return ours + extra, theirs + extra

    def where(self, share=0.7):
        return self.both(" WHERE {}", self.truth(2)) if self.chance.random() < share else same("")

    def select(self, depth):
        q = self.relation(depth).nested()
        self.within(["q"], q.base)
        items = {name: same(f"q.{name}") if self.chance.random() < 0.5 else self.value(KINDS[name], 2) for name in COLUMNS}
        keep = q.ts and self.chance.random() < 0.7
        ours, theirs = self.list_of(items, ", q.ts" if keep else "")
        where = self.where()
        return Relation(f"SELECT {ours} FROM {q.ours} AS q{where[0]}", f"SELECT {theirs} FROM {q.theirs} AS q{where[1]}", time=q.time and keep, ts=keep, changes=q.changes)

    def aggregate(self, kind, outermost):
        only = self.both(" FILTER (WHERE {})", self.truth(1)) if self.chance.random() < 0.3 else same("")
        one = "DISTINCT " if self.chance.random() < 0.3 else ""
        small = self.chance.choice(["min", "max"])
        if kind == "whole":
            choice = self.chance.randrange(5)
            if choice == 0:
                return self.both("count(*){}", only)
            if choice == 1:
                return self.both(f"count({one}{{}}){{}}", self.value(self.chance.choice(list(KINDS.values())), 1), only)
            name = "sum" if choice < 4 else small
            if name == "sum":  # of BIGINT it is a NUMERIC
                return (lambda x: (f"CAST(sum({one}{x[0]}){only[0]} AS bigint)", f"sum({one}{x[1]}){only[1]}"))(self.whole(1))
            return self.both(f"{name}({{}}){{}}", self.whole(1), only)
        if kind == "real":
            name = self.chance.choice(["sum", "min", "max"] + ["avg", "mean"] * outermost)
            if self.changes and name in ("sum", "avg"):  # refused for doubles: what is taken back leaves an error
                return (lambda x: (f"CAST(sum(CAST({x[0]} AS numeric(30, 10))){only[0]} AS double)", f"sum({x[1]}){only[1]}"))(self.real(1))
            if name == "mean":
                x = self.whole(1)
                return f"CAST(avg({x[0]}){only[0]} AS double)", f"mean({x[1]}){only[1]}"
            return self.both(f"{name}({{}}){{}}", self.real(1), only)
        if kind == "text":
            return self.both(f"{small}({{}}){{}}", self.text(1), only)
        x, name = self.truth(1), self.chance.choice(["and", "or"])
        return f"bool_{name}({x[0]}){only[0]}", f"{'min' if name == 'and' else 'max'}({x[1]}){only[1]}"

    def keys(self, count):
        """Columns that stand among the keys of a group: what is grouped by."""
        names = self.chance.sample(COLUMNS, count)
        return {name: self.key(KINDS[name]) for name in names}

    def key(self, kind):
        """A constant would be the number of a column for SQLite."""
        found = self.value(kind, 1)
        return found if "q." in found[1] and self.chance.random() < 0.5 else same(f"q.{self.chance.choice([c for c in COLUMNS if KINDS[c] == kind])}")

    def grouped(self, keys, outermost):
        """The select list of a group, and HAVING."""
        items = {name: keys.get(name) or self.aggregate(KINDS[name], outermost) for name in COLUMNS}
        having = same("")
        if self.chance.random() < 0.3:
            operator = self.chance.choice([">", "<", "=", "<>"])
            having = self.both(f" HAVING {{}} {operator} {{}}", self.aggregate("whole", False), same(str(self.chance.randrange(4))))
        return items, having

    def group(self, depth, outermost=False):
        q = self.relation(depth).nested()
        self.within(["q"], q.base)
        keys = self.keys(self.chance.randrange(4))
        where = self.where(0.4)
        self.changes = q.changes
        items, having = self.grouped(keys, outermost)
        self.changes = False
        ours, theirs = self.list_of(items)
        texts = [", ".join(key[side] for key in keys.values()) for side in (0, 1)]
        by = [f" GROUP BY {text}" if text else "" for text in texts]
        if keys and q.time and self.kind != "late" and self.chance.random() < 0.3:  # once, when the watermark has passed it
            ours, theirs, by = ours + ", q.ts", theirs + ", q.ts", [text + ", q.ts" for text in by]
        return Relation(f"SELECT {ours} FROM {q.ours} AS q{where[0]}{by[0]}{having[0]}", f"SELECT {theirs} FROM {q.theirs} AS q{where[1]}{by[1]}{having[1]}", changes=True, ts="q.ts" in by[0])

    def sessions(self, q, key):
        """As spans: until nothing has come for a key for that long."""
        gap = self.chance.choice([1, 2, 3])
        apart = f"(SELECT *, CASE WHEN ts - lag(ts) OVER (PARTITION BY {key} ORDER BY ts) < {gap}000 THEN 0 ELSE 1 END AS nw FROM {q.theirs})"
        numbered = f"(SELECT *, sum(nw) OVER (PARTITION BY {key} ORDER BY ts ROWS UNBOUNDED PRECEDING) AS number FROM {apart})"
        return (f"SESSION({q.ours} PARTITION BY {key}, ts, INTERVAL '{gap}' SECOND)",
                f"(SELECT *, min(ts) OVER (PARTITION BY {key}, number) AS ws, max(ts) OVER (PARTITION BY {key}, number) + {gap}000 AS we FROM {numbered})")

    def spans(self, q, kind=None, size=None, parts=None):
        """A window over q: ours, theirs with its bounds as ws and we."""
        size = size or self.chance.choice([1, 2, 3, 5, 10])
        kind = kind or self.chance.choice(["TUMBLE", "HOP", "CUMULATE"])
        late = " WHERE we > wm" if self.kind == "late" else ""
        if kind == "TUMBLE":
            return f"TUMBLE({q.ours}, ts, INTERVAL '{size}' SECOND)", f"(SELECT * FROM (SELECT *, ts/{size}000*{size}000 AS ws, ts/{size}000*{size}000+{size}000 AS we FROM {q.theirs}){late})"
        parts = parts or self.chance.choice([1, 2, 3])
        step, size = size * 1000, size * parts * 1000
        spelled = f"{kind}({q.ours}, ts, INTERVAL '{step / 1000:g}' SECOND, INTERVAL '{size / 1000:g}' SECOND)"
        many = "(" + " UNION ALL ".join(f"SELECT {i} AS i" for i in range(parts)) + ")"
        if kind == "HOP":
            return spelled, f"(SELECT * FROM (SELECT *, ts/{step}*{step}-{step}*i AS ws, ts/{step}*{step}-{step}*i+{size} AS we FROM {q.theirs}, {many}){late})"
        return spelled, f"(SELECT * FROM (SELECT *, ts/{size}*{size} AS ws, ts/{size}*{size}+{step}*(i+1) AS we FROM {q.theirs}, {many}) WHERE we > ts{late.replace(' WHERE', ' AND')})"

    def window(self, depth, outermost=False):
        q = self.timed(depth).nested()
        span, session = self.spans(q), None
        if self.kind != "late" and self.chance.random() < 0.25:
            session = self.chance.choice("aup")
            span = self.sessions(q, session)
        self.within(["q"], q.base)
        keys = self.keys(self.chance.randrange(3))
        where = self.where(0.4) if not session else same("")
        if session:
            keys = {session: same(f"q.{session}")}
        items, having = self.grouped(keys, outermost)
        ours, theirs = self.list_of(items)
        by = [", ".join([key[side] for key in keys.values()] + bounds) for side, bounds in ((0, ["q.window_start", "q.window_end"]), (1, ["q.ws", "q.we"]))]
        kind = self.chance.randrange(3)
        if kind == 1:
            ours, theirs, by[0] = ours + ", q.window_time AS ts", theirs + ", q.we - 1 AS ts", by[0] + ", q.window_time"
        if kind == 2 and outermost:
            ours, theirs = ours + ", q.window_start AS ts", theirs + ", q.ws AS ts"
        return Relation(f"SELECT {ours} FROM {span[0]} AS q{where[0]} GROUP BY {by[0]}{having[0]}", f"SELECT {theirs} FROM {span[1]} AS q{where[1]} GROUP BY {by[1]}{having[1]}",
                        time=kind == 1, ts=kind == 1 or (kind == 2 and outermost))

    def bound(self, x, y):
        """Equal columns, and how far apart the times may be, if they may not be anything."""
        key = self.chance.choice(["x.a = y.a", "x.a = y.b", "x.t = y.t", "x.u = y.u", "x.p = y.p AND x.a = y.a", "x.u = y.u AND x.b = y.b"])
        if self.kind == "late" or not (x.time and y.time and self.chance.random() < 0.6):
            self.forever = True
            return same(key)
        before, behind = self.chance.randrange(0, 4), self.chance.randrange(0, 4)
        return f"{key} AND y.ts BETWEEN x.ts - INTERVAL '{before}' SECOND AND x.ts + INTERVAL '{behind}' SECOND", f"{key} AND y.ts BETWEEN x.ts - {before}000 AND x.ts + {behind}000"

    def join(self, depth):
        x, y = self.relation(depth).nested(), self.relation(depth - 1).nested()
        condition = self.bound(x, y)
        is_bound = "BETWEEN" in condition[0]
        self.within(["x", "y"], x.base and y.base)
        if self.chance.random() < 0.4:
            condition = self.both("{} AND {}", condition, self.truth(1))
        kind = self.chance.choice(["JOIN", "JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"])
        third = same("")
        if kind == "JOIN" and self.chance.random() < 0.25:
            z, self.forever = self.relation(depth - 1).nested(), True
            self.within(["x", "y", "z"])
            key = self.chance.choice(["z.a = y.a", "z.t = x.t", "z.u = x.u AND z.p = y.p"])
            third, y.changes, is_bound = (f" JOIN {z.ours} AS z ON {key}", f" JOIN {z.theirs} AS z ON {key}"), y.changes or z.changes, False
        items = {name: self.column(name) if self.chance.random() < 0.6 else self.value(KINDS[name], 1) for name in COLUMNS}
        keep = kind == "JOIN" and is_bound and self.chance.random() < 0.6
        ours, theirs = self.list_of(items, ", x.ts" if keep else "")
        where = self.where(0.3)
        return Relation(f"SELECT {ours} FROM {x.ours} AS x {kind} {y.ours} AS y ON {condition[0]}{third[0]}{where[0]}", f"SELECT {theirs} FROM {x.theirs} AS x {kind} {y.theirs} AS y ON {condition[1]}{third[1]}{where[1]}",
                        time=keep, changes=x.changes or y.changes or kind != "JOIN")

    def some(self, depth):
        """EXISTS, NOT EXISTS, IN, SEMI and ANTI."""
        x, y = self.relation(depth).nested(), self.relation(depth - 1).nested()
        condition = self.bound(x, y)
        self.within(["x", "y"], x.base and y.base)
        if self.chance.random() < 0.4:
            condition = self.both("{} AND {}", condition, self.truth(1))
        self.within(["x"], x.base)
        items = {name: same(f"x.{name}") if self.chance.random() < 0.6 else self.value(KINDS[name], 1) for name in COLUMNS}
        ours, theirs = self.list_of(items)
        kind, more = self.chance.randrange(5), self.both(" AND {}", self.truth(1)) if self.chance.random() < 0.4 else same("")
        exists = f"EXISTS (SELECT 1 FROM {y.theirs} AS y WHERE {condition[1]})"
        theirs = f"SELECT {theirs} FROM {x.theirs} AS x WHERE {'NOT ' if kind % 2 else ''}{exists}"
        if kind < 2:
            return Relation(f"SELECT {ours} FROM {x.ours} AS x {'ANTI' if kind else 'SEMI'} JOIN {y.ours} AS y ON {condition[0]}", theirs, changes=True)
        if kind < 4:
            return Relation(f"SELECT {ours} FROM {x.ours} AS x WHERE {'NOT ' if kind == 3 else ''}EXISTS (SELECT 1 FROM {y.ours} AS y WHERE {condition[0]}){more[0]}", theirs + more[1], changes=True)
        self.forever = True
        column = self.chance.choice("abtu")
        sure, few = self.chance.choice(["", "", f" WHERE y.{column} IS NOT NULL"]), self.chance.choice(["", f" AND x.{column} IS NOT NULL"])
        way = self.chance.choice(["IN", "NOT IN", "NOT IN"])
        inner = f"{sure}{' AND' if sure else ' WHERE'} y.n % 3 = 0" if y.base else sure  # few of them: else NOT IN has hardly a row
        texts = [f"SELECT {list_} FROM {a} AS x WHERE x.{column} {way} (SELECT y.{column} FROM {b} AS y{inner}){few}{m}" for list_, a, b, m in ((ours, x.ours, y.ours, more[0]), (self.list_of(items)[1], x.theirs, y.theirs, more[1]))]
        return Relation(*texts, changes=True)

    def distinct(self, depth):
        q = self.relation(depth).nested()
        self.within(["q"], q.base)
        kept = self.chance.sample(COLUMNS, self.chance.randrange(1, 4))
        constants = {"whole": ("bigint '1'", "1"), "real": ("double '0.5'", "0.5"), "text": ("text 'x'", "'x'"), "truth": same("true")}
        items = {name: self.value(KINDS[name], 1) if name in kept else constants[KINDS[name]] for name in COLUMNS}
        ours, theirs = self.list_of(items)
        where = self.where(0.4)
        return Relation(f"SELECT DISTINCT {ours} FROM {q.ours} AS q{where[0]}", f"SELECT DISTINCT {theirs} FROM {q.theirs} AS q{where[1]}", changes=True)

    def order(self, base, ties=False):
        """Of rows that are not equal, or ties: may be. NULLs are greater than all else if nothing is said."""
        parts = [(self.value(self.chance.choice(["whole", "real", "text", "truth"]), 1))]
        if not ties:
            parts += [same("q.n")] if base else [same(f"q.{name}") for name in COLUMNS]
        texts = []
        for ours, theirs in parts:
            descending, said = self.chance.random() < 0.4, self.chance.choice(["", "", " NULLS FIRST", " NULLS LAST"])
            way = " DESC" if descending else ""
            texts.append((ours + way + said, theirs + way + (said or (" NULLS FIRST" if descending else " NULLS LAST"))))
        return tuple(", ".join(text[side] for text in texts) for side in (0, 1))

    def partition(self):
        names = self.chance.sample(["q.a", "q.u", "q.p", "q.b % 3"], self.chance.randrange(3))
        return f"PARTITION BY {', '.join(names)} " if names else ""

    def first_rows(self, depth):
        q = self.relation(depth).nested()
        self.within(["q"], q.base)
        number = self.chance.choice(["row_number", "row_number", "rank", "dense_rank"])
        order, partition = self.order(q.base, number != "row_number" and self.chance.random() < 0.8), self.partition()
        if q.base and self.chance.random() < 0.4:
            way = self.chance.choice(["", " DESC"])
            order = (f"q.ts{way}", f"q.ts{way}, q.n{way}" if number == "row_number" else f"q.ts{way}")
        columns = ", ".join(f"q.{name}" for name in COLUMNS)
        where, most = self.where(0.3), self.chance.randrange(1, 4)
        outer = ", ".join(["z.a", "z.rn AS b" if self.chance.random() < 0.3 else "z.b"] + [f"z.{name}" for name in COLUMNS[2:]])
        if self.chance.random() < 0.3:
            ours = f"SELECT {columns} FROM {q.ours} AS q{where[0]} QUALIFY {number}() OVER ({partition}ORDER BY {order[0]}) <= {most}"
            outer = ", ".join(f"z.{name}" for name in COLUMNS)
        else:
            ours = f"SELECT {outer} FROM (SELECT {columns}, {number}() OVER ({partition}ORDER BY {order[0]}) AS rn FROM {q.ours} AS q{where[0]}) AS z WHERE z.rn <= {most}"
        return Relation(ours, f"SELECT {outer} FROM (SELECT {columns}, {number}() OVER ({partition}ORDER BY {order[1]}) AS rn FROM {q.theirs} AS q{where[1]}) AS z WHERE z.rn <= {most}", changes=True)

    def best(self, depth):
        """DISTINCT ON."""
        q = self.relation(depth).nested()
        self.within(["q"], q.base)
        keys = self.chance.sample(["q.a", "q.u", "q.p"], self.chance.randrange(1, 3))
        order, where = self.order(q.base), self.where(0.3)
        items = {name: same(f"q.{name}") if self.chance.random() < 0.7 else self.value(KINDS[name], 1) for name in COLUMNS}
        ours, theirs = self.list_of(items)
        on = ", ".join(keys)
        return Relation(f"SELECT DISTINCT ON ({on}) {ours} FROM {q.ours} AS q{where[0]} ORDER BY {on}, {order[0]}",
                        f"SELECT {', '.join(COLUMNS)} FROM (SELECT {theirs}, row_number() OVER (PARTITION BY {on} ORDER BY {order[1]}) AS rn FROM {q.theirs} AS q{where[1]}) WHERE rn = 1", changes=True)

    def meet(self, depth):
        """Windows with equal bounds are joined."""
        size, kind = self.chance.choice([1, 2, 5]), self.chance.choice(["TUMBLE", "HOP"])
        sides, key = [], self.chance.choice("aup")
        parts = self.chance.choice([1, 2, 3])
        for _ in range(2):
            span = self.spans(self.stream(), kind, size, parts)
            self.within(["q"], True)
            items, where = self.grouped({key: same(f"q.{key}")}, False)[0], self.where(0.3)
            ours, theirs = self.list_of(items)
            sides.append((f"(SELECT {ours}, q.window_start AS ws, q.window_end AS we FROM {span[0]} AS q{where[0]} GROUP BY q.{key}, q.window_start, q.window_end)",
                          f"(SELECT {theirs}, q.ws, q.we FROM {span[1]} AS q{where[1]} GROUP BY q.{key}, q.ws, q.we)"))
        self.within(["x", "y"])
        ours, theirs = self.list_of({name: self.column(name) if self.chance.random() < 0.6 else self.value(KINDS[name], 1) for name in COLUMNS})
        way = self.chance.choice(["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"])
        on = f"x.{key} = y.{key} AND x.ws = y.ws AND x.we = y.we"
        where = self.where(0.3)
        return Relation(*(f"SELECT {list_} FROM {sides[0][n]} AS x {way} {sides[1][n]} AS y ON {on}{where[n]}" for n, list_ in enumerate((ours, theirs))), changes=way != "JOIN")

    def over(self, depth):
        q = self.relation(depth).nested()
        self.within(["q"], q.base)
        order, partition, where = self.order(q.base), self.partition(), self.where(0.3)
        frames = [f"ROWS BETWEEN {self.chance.randrange(4)} PRECEDING AND CURRENT ROW"]
        lead = self.chance.random() < 0.15  # its rows come at once, and are changed by later ones
        if q.base and lead:
            order = ("q.ts", "q.ts, q.n")
        elif q.base and self.chance.random() < 0.6:
            order = ("q.ts", "q.ts, q.n")
            late = "q.ts >= q.wm"
            where = (where[0], f"{where[1]} AND {late}" if where[1] else f" WHERE {late}")
            frames += ["ROWS UNBOUNDED PRECEDING", "RANGE"]
        frame = self.chance.choice(frames)
        windows = [f"({partition}ORDER BY {order[side]} {frame})" for side in (0, 1)]
        if frame == "RANGE":
            span = self.chance.randrange(5)
            windows = [f"({partition}ORDER BY q.ts RANGE BETWEEN {text} PRECEDING AND CURRENT ROW)" for text in (f"INTERVAL '{span}' SECOND", f"{span}000")]
        plain = [f"({partition}ORDER BY {order[side]})" for side in (0, 1)]
        items = {name: same(f"q.{name}") for name in COLUMNS}
        lags = lead or self.chance.random() < 0.35  # two windows may have equal rows each in its own order
        names = self.chance.sample(COLUMNS if lags else COLUMNS[:5], self.chance.randrange(1, 4))
        for name in names:
            if lags:
                x = same(f"q.{name}")
                places = self.chance.choice(["", ", 2", ", 0"] + [f", {self.chance.choice([1, 3])}, q.{name}"] * 2)
                near = "lead" if lead and (name == names[0] or self.chance.random() < 0.5) else "lag"
                items[name] = tuple(f"{near}({x[side]}{places}) OVER {plain[side]}" for side in (0, 1))
            elif frame != "RANGE" and self.chance.random() < 0.4:
                value = self.chance.choice(["first_value(q.{})", "last_value(q.{})", "nth_value(q.{}, 1)", "nth_value(q.{}, 2)", "nth_value(q.{}, 3)"]).format(name)
                items[name] = tuple(f"{value} OVER {windows[side]}" for side in (0, 1))
            else:
                aggregate = self.chance.choice({"whole": ["sum", "count", "min", "max"], "real": ["sum", "min", "max"], "text": ["min", "max"]}[KINDS[name]])
                items[name] = tuple(f"{aggregate}(q.{name}) OVER {windows[side]}" for side in (0, 1))
                if aggregate == "sum" and KINDS[name] == "whole":
                    items[name] = f"CAST({items[name][0]} AS bigint)", items[name][1]
        ours, theirs = self.list_of(items)
        return Relation(f"SELECT {ours} FROM {q.ours} AS q{where[0]}", f"SELECT {theirs} FROM {q.theirs} AS q{where[1]}", changes=True)

    # ----------------------------------------------------------------------------------------------------------- queries
    def query(self):
        """(ours, SQLite's)."""
        self.forever = False
        depth = self.chance.choice([1, 1, 2, 2, 3])
        kind = self.chance.randrange(4)
        if kind == 0:
            found = self.group(depth - 1, True)
        elif kind == 1:
            found = self.window(depth - 1, True)
        else:
            found = self.relation(depth)
        if found.base:
            found = self.select(0)
        columns = ", ".join(f"o.{name}" for name in COLUMNS)
        theirs = f"SELECT {columns}{', t(o.ts)' if found.ts else ''} FROM ({found.theirs}) AS o"
        # Windows that overlap cannot be followed; rows behind the watermark are late for OVER only where it gives each row once.
        plain = re.search(r"HOP|CUMULATE|UNBOUNDED|RANGE" + (r"|OVER \(" if self.kind == "late" else ""), found.ours)
        emit = " EMIT CHANGES" if not plain and self.chance.random() < 0.3 else ""
        return found.ours + emit + (" WITH (state_ttl = 'none')" if self.forever else ""), theirs


def shown_json(value):
    """With blanks, and letters beyond ASCII as they are or escaped."""
    return json.dumps(value, ensure_ascii=len(json.dumps(value)) % 2 == 0)
