"""Joins over Nexmark's events give what SQLite gives: inner, outer, SEMI and ANTI; with bounds of time, of windows, without; over changelogs.

A row that is not on time is matched with what is still kept, and is late when it has ended itself. For SQLite that is a condition on each pair, from
the watermark before either row (wm) and their places in the stream (seq). In order, and with a watermark behind all rows, it holds always.
"""
import collections

import pytest

from test_nexmark import folded, run, world  # noqa: F401 (world is a fixture)

FOREVER = " WITH (state_ttl = 'none')"
# Of auction a and its bid b, of B.dateTime BETWEEN A.dateTime AND A.expires: b ends at its own time, a when it expires.
LIFE = "b.auction = a.id AND b.ts BETWEEN a.ts AND a.expires"
A_USED = "NOT (a.ts < a.wm AND a.expires < a.wm)"
B_USED = "b.ts >= b.wm"
MET = f"{LIFE} AND {A_USED} AND {B_USED} AND (a.seq < b.seq OR b.ts >= a.wm)"
OURS = "A.id = B.auction AND B.dateTime BETWEEN A.dateTime AND A.expires"
HOP = "HOP(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '0.2' SECOND, INTERVAL '1' SECOND)"
COUNTED = f"SELECT auction, count(*) AS num, window_start AS starttime, window_end AS endtime FROM TABLE({HOP}) GROUP BY auction, window_start, window_end"
COUNTS = ("WITH RECURSIVE k(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM k WHERE i<4), h AS (SELECT *, ts/200*200-200*i ws FROM bid, k WHERE ts/200*200-200*i+1000 > wm), "
          "c AS (SELECT ws, auction, count(*) n FROM h GROUP BY 1, 2) ")
TUMBLED = "TABLE(TUMBLE(TABLE {}, DESCRIPTOR(dateTime), INTERVAL '0.5' SECOND))"
SELLERS = "(SELECT seller, count(*) AS n FROM auction GROUP BY seller)"
BIDDERS = "(SELECT bidder, count(*) AS n FROM bid WHERE price > 1000000 GROUP BY bidder)"
CHANGELOGS = "(SELECT seller, count(*) n FROM auction GROUP BY seller) s {} JOIN (SELECT bidder, count(*) n FROM bid WHERE price > 1000000 GROUP BY bidder) b ON s.seller = b.bidder"

# name, ours, SQLite's, whether a bound makes rows late
QUERIES = [
    ("q3", "SELECT P.name, P.city, P.state, A.id FROM auction AS A INNER JOIN person AS P ON A.seller = P.id WHERE A.category = 10 AND (P.state = 'or' OR P.state = 'id' OR P.state = 'ca' OR P.state = 'OR' OR P.state = 'ID' OR P.state = 'CA')" + FOREVER,
     "SELECT p.name, p.city, p.state, a.id FROM auction a JOIN person p ON a.seller = p.id WHERE a.category = 10 AND upper(p.state) IN ('OR', 'ID', 'CA')", False),
    ("pairs", f"SELECT A.id, B.price, B.bidder, A.dateTime, B.extra FROM auction AS A, bid AS B WHERE {OURS}",
     f"SELECT a.id, b.price, b.bidder, t(a.ts), b.extra FROM auction a JOIN bid b ON {MET}", True),
    ("q4", f"SELECT Q.category, AVG(Q.final) FROM (SELECT MAX(B.price) AS final, A.category FROM auction A, bid B WHERE {OURS} GROUP BY A.id, A.category) Q GROUP BY Q.category",
     f"SELECT category, (sum(final) * 10000000 / count(*) + 5) / 10 FROM (SELECT max(b.price) final, a.category FROM auction a JOIN bid b ON {MET} GROUP BY a.id, a.category) GROUP BY category", True),
    ("q5", f"SELECT AuctionBids.auction, AuctionBids.num FROM ({COUNTED}) AS AuctionBids JOIN (SELECT max(CountBids.num) AS maxn, CountBids.starttime, CountBids.endtime FROM ({COUNTED}) AS CountBids "
           "GROUP BY CountBids.starttime, CountBids.endtime) AS MaxBids ON AuctionBids.starttime = MaxBids.starttime AND AuctionBids.endtime = MaxBids.endtime AND AuctionBids.num >= MaxBids.maxn",
     COUNTS + "SELECT auction, n FROM (SELECT *, rank() OVER (PARTITION BY ws ORDER BY n DESC) r FROM c) WHERE r = 1", True),
    ("q7", "SELECT B.auction, B.price, B.bidder, B.dateTime, B.extra FROM bid B JOIN (SELECT MAX(price) AS maxprice, window_end AS dateTime FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '0.5' SECOND)) "
           "GROUP BY window_start, window_end) B1 ON B.price = B1.maxprice WHERE B.dateTime BETWEEN B1.dateTime - INTERVAL '0.5' SECOND AND B1.dateTime",
     "WITH w AS (SELECT max(price) m, ts/500*500+500 we FROM bid WHERE ts/500*500+500 > wm GROUP BY 2) "
     "SELECT b.auction, b.price, b.bidder, t(b.ts), b.extra FROM bid b JOIN w ON b.price = m AND b.ts BETWEEN we-500 AND we AND b.wm <= we AND b.ts + 500 > b.wm", True),
    ("q8", f"SELECT P.id, P.name, P.starttime FROM (SELECT id, name, window_start AS starttime, window_end AS endtime FROM {TUMBLED.format('person')} GROUP BY id, name, window_start, window_end) P "
           f"JOIN (SELECT seller, window_start AS starttime, window_end AS endtime FROM {TUMBLED.format('auction')} GROUP BY seller, window_start, window_end) A "
           "ON P.id = A.seller AND P.starttime = A.starttime AND P.endtime = A.endtime",
     "SELECT p.id, p.name, t(p.w*500) FROM (SELECT DISTINCT id, name, ts/500 w FROM person WHERE ts/500*500+500 > wm) p JOIN (SELECT DISTINCT seller, ts/500 w FROM auction WHERE ts/500*500+500 > wm) a ON p.id = a.seller AND p.w = a.w", True),
    ("q20", "SELECT auction, bidder, price, channel, url, B.dateTime, B.extra, A.dateTime, expires, seller, category FROM bid AS B INNER JOIN auction AS A ON B.auction = A.id WHERE A.category = 10" + FOREVER,
     "SELECT auction, bidder, price, channel, url, t(b.ts), b.extra, t(a.ts), t(expires), seller, category FROM bid b JOIN auction a ON b.auction = a.id WHERE a.category = 10", False),
    ("q23", "SELECT B.price, P.name, A.id FROM bid B JOIN person P ON B.bidder = P.id JOIN auction A ON A.seller = B.bidder WHERE B.price > 10000000 AND A.category = 12" + FOREVER,
     "SELECT b.price, p.name, a.id FROM bid b JOIN person p ON b.bidder = p.id JOIN auction a ON a.seller = b.bidder WHERE b.price > 10000000 AND a.category = 12", False),
    ("three by comma", "SELECT count(*), sum(B.price) FROM bid B, person P, auction A WHERE A.seller = P.id AND B.bidder = P.id AND B.price > 10000000" + FOREVER,
     "SELECT count(*), sum(b.price) FROM bid b, person p, auction a WHERE a.seller = p.id AND b.bidder = p.id AND b.price > 10000000", False),
    ("sum of both", f"SELECT A.id, B.price FROM auction A JOIN bid B ON {OURS} AND A.category * 1000000 + B.price > 11500000",
     f"SELECT a.id, b.price FROM auction a JOIN bid b ON {MET} AND a.category * 1000000 + b.price > 11500000", True),
    ("within", "SELECT A.id, B.price FROM auction A JOIN bid B ON A.id = B.auction WITHIN INTERVAL '0.05' SECOND",
     "SELECT a.id, b.price FROM auction a JOIN bid b ON b.auction = a.id AND b.ts BETWEEN a.ts - 50 AND a.ts + 50 AND a.ts + 50 >= max(a.wm, b.wm) AND b.ts + 50 >= max(a.wm, b.wm)", True),
]


@pytest.mark.parametrize("name,ours,theirs,timed", QUERIES, ids=[row[0] for row in QUERIES])
def test_a_join_gives_what_sqlite_gives(world, tmp_path, name, ours, theirs, timed):  # noqa: F811
    group, delay, db = world
    lines, end = run(tmp_path, ours, group, delay, 1024)
    expected = collections.Counter(db.execute(theirs).fetchall())
    assert expected, "a query that gives nothing shows nothing"
    assert folded(lines) == expected
    assert end["faults"] == 0
    assert not end["late"] or (timed and 0 < delay < 1000)
    for batch in (7, 1):
        assert run(tmp_path, ours, group, delay, batch) == (lines, end), f"{batch} rows a batch change something"
