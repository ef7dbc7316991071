/* Queries from memory to memory: what runs and what it gives, what is refused and by which name, late and idle, faults, no memory. What
 * Nexmark's queries give is compared with SQLite in tests/sql. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "sql/query/query_rig_test.h"

static const char *const rows[] = {
    "{\"k\":\"a\",\"v\":5,\"n\":1,\"r\":{\"a\":1,\"b\":{\"c\":\"x\"}},\"ts\":\"2026-01-01 00:00:01\"}",
    "{\"k\":\"b\",\"v\":50,\"n\":0,\"r\":{\"a\":2},\"ts\":\"2026-01-01 00:00:03\"}",
    "{\"k\":\"a\",\"v\":7,\"ts\":\"2026-01-01 00:00:02\"}",
    "{\"k\":\"a\",\"v\":20,\"n\":2,\"ts\":\"2026-01-01 00:00:12\"}", /* the watermark is 00:00:10 from here on */
    "{\"k\":\"b\",\"v\":1,\"n\":3,\"ts\":\"2026-01-01 00:00:04\"}",  /* late for windows of 10 s */
    "{\"k\":\"b\",\"v\":1,\"n\":3}",                                 /* without a time */
    "no json",
};

/* The same whatever the size of the batches, and when every step is another query's that goes on with what the one before saved. */
static void check(const char *query, uint64_t late, uint32_t faults, const char *expected)
{
    static const uint32_t sizes[] = {1, 2, 64};
    for (size_t i = 0; i < 2 * ARRAY_LEN(sizes); i++) {
        struct rig r;
        enum sql_fault fault;
        uint32_t size = sizes[i / 2];
        if (!rig_init(&r, query, STATE_MAX))
            fail_msg("%s: %s", query, r.error.message);
        r.restarts = i % 2;
        if (!feed(&r, rows, ARRAY_LEN(rows), size, &fault))
            fail_msg("%s: %s, %s", query, sql_fault_text(fault), r.error.message);
        if (strcmp(r.shown.text, expected) != 0)
            fail_msg("%s\nrows a batch: %u%s\ngot:\n%s\nexpected:\n%s", query, size,
                     r.restarts ? ", with restarts" : "", r.shown.text, expected);
        assert_int_equal(query_late(r.q), late);
        assert_int_equal(r.shown.faults, faults);
        assert_int_equal(query_faults(r.q), faults);
        rig_fini(&r);
    }
}

static void test_rows_and_groups(void **state)
{
    (void)state;
    check("SELECT k, twice FROM s WHERE v > 6", 0, 1, "b,100\na,14\na,40\n");
    check("SELECT * FROM big", 0, 1, "b,50\na,20\n");
    check("SELECT x.amount FROM (SELECT name, amount + 1 AS amount FROM big WHERE name = 'a') x", 0, 1, "21\n");
    check("SELECT r.a, s.r.b.c, _offset FROM s WHERE r.a IS NOT NULL", 0, 1, "1,x,0\n2,NULL,1\n");
    check("SELECT k, 10 / n FROM s WHERE n >= 0 AND v <> 1", 0, 2, "a,10\na,5\n"); /* a division by zero is diverted */
    check("SELECT k, sum(v), count(n) FROM TUMBLE(s, ts, INTERVAL '10' SECOND) GROUP BY k, window_end", 1, 2,
          "a,12,1\nb,50,1\n");
    check("SELECT k, sum(v) FROM s GROUP BY TUMBLE(ts, INTERVAL '10' SECOND), k HAVING sum(v) > 20", 1, 2, "b,50\n");
    check("SELECT count(*) FROM HOP(s, ts, INTERVAL '5' SECOND, INTERVAL '10' SECOND) GROUP BY window_start", 1, 2,
          "3\n3\n"); /* [-5, 5) and [0, 10) */
    check("SELECT count(*) FROM CUMULATE(s, ts, INTERVAL '5' SECOND, INTERVAL '10' SECOND) GROUP BY window_end", 1, 2,
          "3\n3\n");
    check("SELECT k, max(v) FROM s GROUP BY k", 0, 1, "a,5\nb,50\n-a,5\na,7\n-a,7\na,20\n");
    check("SELECT m, count(*) FROM (SELECT k, max(v) AS m FROM s GROUP BY k) x GROUP BY m", 0, 1,
          "5,1\n50,1\n-5,1\n7,1\n-7,1\n20,1\n");
    check("SELECT max(m), min(m) FROM (SELECT k, max(v) AS m FROM s GROUP BY k) x", 0, 1,
          "NULL,NULL\n-NULL,NULL\n5,5\n-5,5\n50,5\n-50,5\n50,50\n-50,50\n50,7\n-50,7\n50,50\n-50,50\n50,20\n");
    check("SELECT count(*), sum(v) FROM s WHERE v > 1000", 0, 1, "0,NULL\n");
    check("SELECT n, count(*), min(n) FROM (SELECT count(*) AS n FROM s WHERE v > 1000) x GROUP BY n", 0, 1, "0,1,0\n");
    check("SELECT count(*) FROM (SELECT count(*) AS n FROM s WHERE v > 1000) x", 0, 1, "0\n-0\n1\n");
    check("SELECT count(*) FROM s WHERE v > 1000 HAVING count(*) > 0", 0, 1, "");
    check("SELECT count(*) FROM s WHERE v > 1000 GROUP BY k", 0, 1, "");
    check("SELECT DISTINCT k FROM s", 0, 1, "a\nb\n");
    check("SELECT k, count(DISTINCT v), avg(v) FROM TUMBLE(s, ts, INTERVAL '10' SECOND) WHERE v < 50 GROUP BY k, "
          "window_start EMIT CHANGES",
          1, 2, "a,1,5000000\n-a,1,5000000\na,2,6000000\na,1,20000000\n");
}

static void test_joins(void **state)
{
    (void)state;
    check("SELECT x.v, y.v FROM s x JOIN s y ON x.k = y.k AND y.ts BETWEEN x.ts AND x.ts + INTERVAL '5' SECOND", 2, 1,
          "5,5\n50,50\n5,7\n7,7\n20,20\n");
    check("SELECT x.v, y.v FROM s x LEFT JOIN s y ON x.k = y.k AND y.ts > x.ts AND y.ts <= x.ts + INTERVAL '5' SECOND",
          2, 1, "5,7\n7,NULL\n50,NULL\n1,NULL\n"); /* the last one has no time */
    check("SELECT x.v, y.v FROM s x LEFT JOIN s y ON x.k = y.k AND y.ts > x.ts AND y.ts <= x.ts + INTERVAL '5' SECOND "
          "EMIT "
          "CHANGES",
          2, 1, "5,NULL\n50,NULL\n7,NULL\n-5,NULL\n5,7\n20,NULL\n1,NULL\n");
    check("SELECT k, x.v, y.v FROM s x JOIN s y USING (k) WHERE x.v < y.v AND x.v > 1 WITH (state_ttl = 'none')", 0, 1,
          "a,5,7\na,5,20\na,7,20\n");
    check("SELECT k, v FROM s WHERE v < 10 AND EXISTS (SELECT * FROM s o WHERE o.k = s.k AND o.v > 10 AND o.ts BETWEEN "
          "s.ts "
          "- INTERVAL '1' SECOND AND s.ts + INTERVAL '1' MINUTE)",
          0, 1, "a,5\na,7\n"); /* of b's rows the first has ended when the next comes */
    check("SELECT k, v FROM s WHERE k IN (SELECT k FROM s WHERE v = 20) WITH (state_ttl = '1 hour')", 0, 1,
          "a,5\na,7\na,20\n");
}

static void give_record(struct rig *r, uint32_t source, const char *record)
{
    struct slice at = slice_str(record);
    struct query_input in = {.source = source, .records = &at, .rows = 1};
    enum sql_fault fault;
    assert_true(query_step(r->q, &in, &fault));
}

/* Changes by the interval: what came and went in between is not said, and it does not depend on the size of batches. */
static void test_every(void **state)
{
    (void)state;
    check("SELECT k, count(*), max(v) FROM TUMBLE(s, ts, INTERVAL '10' SECOND) GROUP BY k, window_end EMIT EVERY "
          "INTERVAL "
          "'5' SECOND",
          1, 2, "a,1,5\nb,1,50\n-a,1,5\na,2,7\na,1,20\n");
    struct rig r;
    enum sql_fault fault;
    assert_true(rig_init(&r, "SELECT k, max(v) FROM s GROUP BY k EMIT EVERY INTERVAL '1' MINUTE", STATE_MAX));
    r.restarts = true;
    assert_true(feed(&r, rows, ARRAY_LEN(rows), 3, &fault));
    assert_string_equal(r.shown.text, "");
    assert_int_equal(query_due(r.q), 60 * US_PER_S); /* all came at 0 */
    assert_true(query_advance(r.q, 0, 60 * US_PER_S - 1, &fault));
    assert_string_equal(r.shown.text, "");
    assert_true(query_advance(r.q, 0, 60 * US_PER_S, &fault));
    assert_string_equal(r.shown.text, "b,50\na,20\n");
    assert_int_equal(query_due(r.q), INT64_MAX);
    give_record(&r, 0, rows[2]);
    assert_true(query_advance(r.q, 0, INT64_MAX - 1, &fault)); /* nothing has changed */
    assert_string_equal(r.shown.text, "b,50\na,20\n");
    rig_fini(&r);
}

/* Of one source the rows of an event come together, the left ones first, whatever the size of batches. */
static void test_unions(void **state)
{
    (void)state;
    check("SELECT k, v FROM s WHERE v > 6 UNION ALL SELECT k, n FROM s WHERE n > 0", 0, 1,
          "a,1\nb,50\na,7\na,20\na,2\nb,3\nb,3\n");
    check("SELECT k AS name, v FROM s WHERE v > 6 UNION SELECT k, v FROM s WHERE v < 20", 0, 1,
          "a,5\nb,50\na,7\na,20\nb,1\n");
    check("SELECT max(x) FROM (SELECT v AS x FROM s WHERE v > 6 UNION ALL SELECT 8 FROM s UNION ALL SELECT n FROM s) u",
          0, 1, "NULL\n-NULL\n8\n-8\n50\n");
    check("SELECT k, v FROM s WHERE v = 50 UNION ALL (SELECT k, max(v) FROM s GROUP BY k)", 0, 1,
          "a,5\nb,50\nb,50\n-a,5\na,7\n-a,7\na,20\n");
    check("SELECT k, count(*) FROM TUMBLE((SELECT k, ts FROM s WHERE v > 5 UNION ALL SELECT k, ts FROM s), ts, "
          "INTERVAL '10' SECOND) GROUP BY k, window_end",
          1, 2, "a,3\nb,2\n");
    struct rig r;
    assert_true(
        rig_init(&r, "SELECT k, 'left', ts FROM s WHERE v > 6 UNION ALL SELECT k, 'right', ts FROM plain", STATE_MAX));
    give_record(&r, 1, "{\"k\":\"p\"}");
    give_record(&r, 0, rows[1]);
    give_record(&r, 1, "{\"k\":\"q\"}");
    assert_true(query_stateless(r.q));
    assert_string_equal(r.shown.text, "p,right,NULL\nb,left,1767225603000000\nq,right,NULL\n");
    rig_fini(&r);
}

/* A table is what its rows say last, and a stream's row is met by what it is then. */
static void test_tables(void **state)
{
    (void)state;
    struct rig r;
    assert_true(rig_init(&r,
                         "CREATE TABLE t (k TEXT PRIMARY KEY, name TEXT); SELECT v, name FROM s LEFT JOIN t FOR "
                         "SYSTEM_TIME AS OF s._ts USING (k)",
                         STATE_MAX));
    give_record(&r, 0, rows[0]);
    give_record(&r, 1, "{\"k\":\"a\",\"name\":\"A\"}");
    give_record(&r, 0, rows[0]);
    give_record(&r, 1, "{\"k\":\"a\",\"name\":\"B\"}");
    give_record(&r, 1, "{\"k\":\"b\",\"name\":\"C\"}");
    assert_true(rig_save(&r) && rig_load(&r));
    give_record(&r, 0, rows[0]);
    give_record(&r, 0, rows[1]);
    assert_string_equal(r.shown.text, "5,NULL\n5,A\n5,B\n50,C\n");
    rig_fini(&r);
    assert_true(rig_init(&r, "CREATE TABLE t (k TEXT, n INT, PRIMARY KEY (k, n)); SELECT * FROM t", STATE_MAX));
    give_record(&r, 0, "{\"k\":\"a\",\"n\":1}");
    give_record(&r, 0, "{\"k\":\"a\",\"n\":1}");
    give_record(&r, 0, "{\"k\":\"a\"}");
    assert_string_equal(r.shown.text, "a,1\n");
    assert_int_equal(r.shown.faults, 1);
    rig_fini(&r);
    assert_true(
        rig_init(&r, "CREATE TABLE t (k TEXT PRIMARY KEY, n INT); SELECT n, count(*) FROM t GROUP BY n", STATE_MAX));
    give_record(&r, 0, "{\"k\":\"a\",\"n\":1}");
    assert_true(rig_save(&r) && rig_load(&r));
    give_record(&r, 0, "{\"k\":\"a\",\"n\":2}");
    assert_string_equal(r.shown.text, "1,1\n-1,1\n2,1\n");
    rig_fini(&r);
}

static void test_first_rows(void **state)
{
    (void)state;
    check(
        "SELECT k, v FROM (SELECT k, v, row_number() OVER (PARTITION BY k ORDER BY v DESC) AS n FROM s) x WHERE n <= 1",
        0, 1, "a,5\nb,50\n-a,5\na,7\n-a,7\na,20\n");
    check("SELECT k, v, n FROM (SELECT k, v, row_number() OVER (ORDER BY v DESC) AS n FROM s) x WHERE n <= 2", 0, 1,
          "a,5,1\n-a,5,1\nb,50,1\na,5,2\n-a,5,2\na,7,2\n-a,7,2\na,20,2\n");
    check("SELECT k, v FROM (SELECT k, v, row_number() OVER (ORDER BY v DESC) AS n FROM s) x WHERE n <= 2", 0, 1,
          "a,5\nb,50\n-a,5\na,7\n-a,7\na,20\n");
    check(
        "SELECT k, v FROM (SELECT k, v, row_number() OVER (PARTITION BY k ORDER BY ts DESC) AS n FROM s) x WHERE n = 1",
        0, 1, "a,5\nb,50\n-a,5\na,7\n-a,7\na,20\n-b,50\nb,1\n-b,1\nb,1\n"); /* no time: NULLS FIRST */
    check("SELECT k, v, n FROM s WINDOW w AS (PARTITION BY k ORDER BY ts NULLS LAST) QUALIFY row_number() OVER w <= 1",
          0, 1, "a,5,1\nb,50,0\n");
    check("SELECT DISTINCT ON (k) k, v, _offset FROM s", 0, 1, "a,5,0\nb,50,1\n");
    check("SELECT k, v, nr FROM (SELECT *, row_number() OVER (PARTITION BY k) AS nr FROM s) x WHERE 1 = nr AND v > 5",
          0, 1, "b,50,1\n");
    check("SELECT DISTINCT ON (k) k, v FROM s ORDER BY k, v DESC NULLS LAST", 0, 1,
          "a,5\nb,50\n-a,5\na,7\n-a,7\na,20\n");
    check("SELECT DISTINCT ON (k) 1 AS same FROM s", 0, 1, "1\n1\n");
    /* over rows that are taken back */
    check(
        "SELECT k, m, n FROM (SELECT k, m, row_number() OVER (ORDER BY m DESC) AS n FROM (SELECT k, max(v) AS m FROM s "
        "GROUP BY k) g) x WHERE n <= 2",
        0, 1, "a,5,1\n-a,5,1\nb,50,1\na,5,2\n-a,5,2\na,7,2\n-a,7,2\na,20,2\n");
    check("SELECT k, m FROM (SELECT k, m, row_number() OVER (ORDER BY m) AS n FROM (SELECT k, max(v) AS m FROM s "
          "GROUP BY k) g) x WHERE n <= 1",
          0, 1, "a,5\n-a,5\nb,50\n-b,50\na,7\n-a,7\nb,50\n-b,50\na,20\n");
    /* of windows, given out when they are complete */
    check(
        "SELECT k, c, n FROM (SELECT k, c, row_number() OVER (PARTITION BY e ORDER BY c DESC) AS n FROM (SELECT k, "
        "count(*) AS c, window_end AS e FROM TUMBLE(s, ts, INTERVAL '10' SECOND) GROUP BY k, window_end) g) x WHERE n "
        "<= 2",
        1, 2, "a,2,1\nb,1,2\n");
    check("SELECT k, v FROM (SELECT k, v, row_number() OVER (PARTITION BY ts ORDER BY v) AS n FROM s) x WHERE n <= 1",
          1, 2, "a,5\na,7\nb,50\n");
}

static void test_sessions(void **state)
{
    (void)state;
    /* a: 1 s, 2 s, then 12 s; b: 3 s, then 4 s, which joins its session as long as that is open */
    check("SELECT k, sum(v), window_start, window_end FROM SESSION(s PARTITION BY k, ts, INTERVAL '5' SECOND) GROUP BY "
          "k, "
          "window_start, window_end",
          1, 2, "a,12,1767225601000000,1767225607000000\nb,50,1767225603000000,1767225608000000\n");
    check("SELECT k, count(*), max(k) FROM s GROUP BY k, SESSION(ts, INTERVAL '11' SECOND)", 0, 2, "");
    check("SELECT k, count(*), max(k) FROM s GROUP BY k, SESSION(ts, INTERVAL '7' SECOND)", 0, 2, "a,2,a\nb,1,b\n");
    check("SELECT k, sum(v), SESSION_START(ts, INTERVAL '10' SECOND) FROM s GROUP BY SESSION(ts, INTERVAL '10' "
          "SECOND), k "
          "EMIT CHANGES",
          0, 2,
          "a,5,1767225601000000\nb,50,1767225603000000\n-a,5,1767225601000000\na,12,1767225601000000\n"
          "a,20,1767225612000000\n-b,50,1767225603000000\nb,51,1767225603000000\n");
    check("SELECT count(*) FROM SESSION(s, ts, INTERVAL '4' SECOND) GROUP BY window_end", 1, 2, "3\n");
    static const char *const joined[] = {"{\"k\":\"a\",\"v\":1,\"ts\":\"2026-01-01 00:00:10\"}",
                                         "{\"k\":\"a\",\"v\":2,\"ts\":\"2026-01-01 00:00:11.5\"}",
                                         "{\"k\":\"a\",\"v\":4,\"ts\":\"2026-01-01 00:00:09\"}",
                                         "{\"k\":\"a\",\"v\":8,\"ts\":\"2026-01-01 00:00:10.6\"}",
                                         "{\"k\":\"a\",\"v\":16,\"ts\":\"2026-01-01 00:00:09.9\"}",
                                         "{\"k\":\"a\",\"v\":32,\"ts\":\"2026-01-01 00:01:00\"}"};
    struct rig r;
    enum sql_fault fault;
    assert_true(
        rig_init(&r, "SELECT sum(v) FROM s GROUP BY k, SESSION(ts, INTERVAL '1' SECOND) EMIT CHANGES", STATE_MAX));
    assert_true(feed(&r, joined, ARRAY_LEN(joined), 4, &fault));
    assert_string_equal(r.shown.text, "1\n2\n4\n-1\n-2\n11\n-4\n-11\n31\n32\n");
    rig_fini(&r);
}

static void test_windows_of_windows(void **state)
{
    (void)state;
    check("SELECT k, v, window_start, window_end, window_time FROM TUMBLE(s, ts, INTERVAL '5' SECOND, INTERVAL '1' "
          "SECOND) "
          "WHERE v = 50",
          0, 1, "b,50,1767225601000000,1767225606000000,1767225605999000\n");
    check("SELECT sum(c), window_end FROM TUMBLE((SELECT count(*) AS c, window_time FROM TUMBLE(s, ts, INTERVAL '2' "
          "SECOND) "
          "GROUP BY k, window_time), window_time, INTERVAL '5' SECOND) GROUP BY window_end",
          1, 2, "3,1767225605000000\n");
    check("SELECT v, count(*) FROM (SELECT v, window_end AS e FROM TUMBLE(s, ts, INTERVAL '5' SECOND)) x GROUP BY e, v",
          1, 2, "5,1\n50,1\n7,1\n");
    check("SELECT count(*) FILTER (WHERE v > 6), count(DISTINCT k) FILTER (WHERE v > 6), count(DISTINCT k), "
          "sum(DISTINCT n) "
          "FILTER (WHERE v < 50) FROM TUMBLE(s, ts, INTERVAL '10' SECOND) GROUP BY window_end",
          1, 2, "2,2,2,1\n");
}

static void test_frames(void **state)
{
    (void)state;
    /* by time: a row is used when the watermark has passed it */
    check(
        "SELECT k, v, sum(v) OVER w, count(*) OVER w, max(k) OVER w FROM s WINDOW w AS (ORDER BY ts ROWS 1 PRECEDING)",
        1, 2, "a,5,5,1,a\na,7,12,2,a\nb,50,57,2,b\n");
    check("SELECT k, v, sum(v) OVER (PARTITION BY k ORDER BY ts RANGE BETWEEN INTERVAL '1' SECOND PRECEDING AND "
          "CURRENT ROW), "
          "lag(v) OVER (ORDER BY ts), min(v) OVER (ORDER BY ts) FROM s",
          1, 2, "a,5,5,NULL,5\na,7,12,5,5\nb,50,50,7,5\n");
    check("SELECT e, c + lag(c) OVER (ORDER BY e) FROM (SELECT count(*) AS c, window_end AS e FROM TUMBLE(s, ts, "
          "INTERVAL '1' "
          "SECOND) GROUP BY window_end) x",
          1, 2, "1767225602000000,NULL\n1767225603000000,2\n1767225604000000,2\n");
    check("SELECT v, lag(v, 1, NULL) OVER (ORDER BY ts) FROM s", 1, 2, "5,NULL\n7,5\n50,7\n");
    /* as they come: what a row changes is taken back */
    check("SELECT v, sum(v) OVER (PARTITION BY k ORDER BY v ROWS 1 PRECEDING) FROM s", 0, 1,
          "5,5\n50,50\n7,12\n20,27\n1,1\n-50,50\n50,51\n1,2\n");
    check("SELECT v, count(*) OVER (ORDER BY v RANGE 3 PRECEDING) FROM s WHERE v < 9", 0, 1,
          "5,1\n7,2\n1,1\n-1,1\n1,2\n1,2\n");
    check("SELECT m, lag(m) OVER (ORDER BY m DESC) FROM (SELECT k, max(v) AS m FROM s GROUP BY k) g", 0, 1,
          "5,NULL\n50,NULL\n-5,NULL\n5,50\n-5,50\n7,50\n-7,50\n20,50\n");
    /* what is equal in the order stands as it came, for all functions of a window, also when some of it is given anew */
    check("SELECT v, first_value(v) OVER w, max(v) OVER w FROM s WHERE v > 1 WINDOW w AS (ORDER BY v <> 20 ROWS 1 "
          "PRECEDING)",
          0, 1, "5,5,5\n50,5,50\n7,50,50\n20,20,20\n-5,5,5\n5,20,20\n");
}

static void test_delay_idle_and_keys(void **state)
{
    (void)state;
    /* the watermark is at 00:00:10 with the row of 12 s, and two seconds less with the delay */
    check("SELECT k, sum(v) FROM TUMBLE(s, ts, INTERVAL '8' SECOND) GROUP BY k, window_end EMIT ON WINDOW CLOSE WITH "
          "DELAY "
          "INTERVAL '2' SECOND",
          1, 2, "a,12\nb,50\n");
    check("SELECT k, sum(v) FROM TUMBLE(s, ts, INTERVAL '8' SECOND) GROUP BY k, window_end EMIT ON WINDOW CLOSE WITH "
          "DELAY "
          "INTERVAL '2.000001' SECOND",
          0, 2, "");
    struct rig r;
    enum sql_fault fault;
    static const char *const keyed[] = {"{\"a\":1,\"b\":null}", "{\"a\":1,\"b\":2}", "{\"b\":2}"};
    assert_true(rig_init(&r,
                         "CREATE STREAM c (a INT, b INT, PRIMARY KEY (a, b), ts TIMESTAMP, WATERMARK FOR ts IDLE AFTER "
                         "INTERVAL '3' MINUTE); SELECT a, b FROM c",
                         STATE_MAX));
    assert_true(query_plan(r.q)->sources[0].idle_us == 180 * US_PER_S);
    assert_true(feed(&r, keyed, ARRAY_LEN(keyed), 2, &fault));
    assert_string_equal(r.shown.text, "1,2\n");
    assert_int_equal(r.shown.faults, 2);
    rig_fini(&r);
    assert_true(rig_init(&r, "SELECT k FROM s", STATE_MAX));
    assert_true(query_plan(r.q)->sources[0].idle_us == US_PER_S);
    rig_fini(&r);
}

/* What is not there is refused, and the message says what it is. */
static void test_refused(void **state)
{
    (void)state;
    static const char *const queries[][2] = {
        {"SELECT * FROM s JOIN plain ON s.k = plain.k", "keep all rows of s for ever"},
        {"SELECT * FROM s JOIN s z ON s.k = z.k AND s.ts < z.ts", "keep all rows of s for ever"},
        {"SELECT * FROM s JOIN s z ON s.k = z.k AND s.ts > z.ts", "keep all rows of z for ever"},
        {"SELECT * FROM s JOIN s z ON s.k = z.k AND s.ts = z.ts + INTERVAL '1' MONTH", "for ever"},
        {"SELECT * FROM s JOIN plain ON s.k = plain.k AND s.ts = plain.ts", "keep all rows of s for ever"},
        {"SELECT * FROM s JOIN s z USING (k) WITHIN INTERVAL '1' MONTH", "WITHIN has a constant interval"},
        {"SELECT * FROM s JOIN plain USING (k) WITHIN INTERVAL '1' DAY", "WITHIN is for sides"},
        {"SELECT * FROM s ASOF JOIN s z ON s.k = z.k", "ASOF JOIN"},
        {"SELECT * FROM s LEFT JOIN s z ON s.k = z.k AND s.v + z.v > 3", "an outer, SEMI or ANTI JOIN"},
        {"SELECT v FROM s JOIN s z ON s.k = z.k WITHIN INTERVAL '1' DAY", "several columns are called v"},
        {"SELECT k FROM s JOIN s z USING (nothing) WITHIN INTERVAL '1' DAY", "USING nothing"},
        {"SELECT z.k FROM s SEMI JOIN s z ON s.k = z.k WITHIN INTERVAL '1' DAY", "no column z.k"},
        {"SELECT k FROM s WITH (state_tll = 'none')", "no setting state_tll"},
        {"SELECT k FROM s WITH (state_ttl = '1 month')", "state_ttl is 'none' or an interval"},
        {"SELECT k, row_number() OVER (ORDER BY v) FROM s", "ROW_NUMBER without a condition"},
        {"SELECT k FROM (SELECT k, row_number() OVER (ORDER BY v) AS n FROM s) x WHERE n >= 3",
         "ROW_NUMBER without a condition"},
        {"SELECT k FROM (SELECT k, row_number() OVER (ORDER BY v) AS n FROM s) x WHERE n <= 10001", "first 10000 rows"},
        {"SELECT k FROM (SELECT k, row_number() OVER (ORDER BY j) AS n FROM s) x WHERE n <= 1", "ordered by a value"},
        {"SELECT k FROM (SELECT k, row_number() OVER (PARTITION BY j) AS n FROM s) x WHERE n <= 1", "type json"},
        {"SELECT k FROM (SELECT k, row_number() OVER w AS n FROM s WINDOW v AS ()) x WHERE n <= 1", "no window w"},
        {"SELECT k, ntile(4) OVER (ORDER BY v ROWS 1 PRECEDING) FROM s", "ntile asks how many rows there will be"},
        {"SELECT k, leed(v) OVER (ORDER BY ts) FROM s", "there is no window function leed"},
        {"SELECT k, lead(v) OVER (ORDER BY ts) FROM s EMIT ON WINDOW CLOSE", "LEAD is of a row that may never come"},
        {"SELECT lead(v) OVER (ORDER BY ts ROWS 1 PRECEDING) FROM s", "LAG and LEAD have no frame"},
        {"SELECT first_value(v) OVER (ORDER BY v) FROM s", "a frame from the first row on would change without end"},
        {"SELECT nth_value(v, 0) OVER (ORDER BY ts) FROM s", "a number from 1 to 1000"},
        {"SELECT nth_value(v) OVER (ORDER BY ts) FROM s", "nth_value has a value and a row's number"},
        {"SELECT rank() OVER (ORDER BY v) AS r FROM s", "RANK without a condition such as rk <= 10"},
        {"SELECT k FROM (SELECT k, dense_rank() OVER () AS r FROM s) AS q WHERE r = 1", "without ORDER BY"},
        {"SELECT rank(v) OVER (ORDER BY v) AS r FROM s", "rank has no arguments"},
        {"SELECT rank() AS r FROM s", "rank is a window function"},
        {"SELECT sum(v) OVER (PARTITION BY k) FROM s", "OVER without ORDER BY"},
        {"SELECT sum(v) OVER (ORDER BY v) FROM s", "ORDER BY a time with a watermark"},
        {"SELECT sum(v) OVER (ORDER BY ts) FROM s EMIT CHANGES", "ORDER BY a time with a watermark"},
        {"SELECT sum(v) OVER (ORDER BY v ROWS 2 PRECEDING) FROM s EMIT ON WINDOW CLOSE", "EMIT ON WINDOW CLOSE"},
        {"SELECT sum(v) OVER (ORDER BY ts GROUPS 2 PRECEDING) FROM s", "GROUPS"},
        {"SELECT sum(v) OVER (ORDER BY ts ROWS BETWEEN 2 PRECEDING AND 1 FOLLOWING) FROM s", "ends elsewhere"},
        {"SELECT sum(v) OVER (ORDER BY ts ROWS BETWEEN 1 FOLLOWING AND CURRENT ROW) FROM s", "begins behind"},
        {"SELECT sum(v) OVER (ORDER BY k RANGE 1 PRECEDING) FROM s", "RANGE is over one"},
        {"SELECT sum(v) OVER (ORDER BY ts, v RANGE INTERVAL '1' SECOND PRECEDING) FROM s", "RANGE is over one"},
        {"SELECT sum(v) OVER (ORDER BY v ROWS 1001 PRECEDING) FROM s", "0 to 1000"},
        {"SELECT sum(v) OVER (ORDER BY ts ROWS 100001 PRECEDING) FROM s", "0 to 100000"},
        {"SELECT count(DISTINCT v) OVER (ORDER BY ts) FROM s", "DISTINCT over a frame"},
        {"SELECT lag(v, 1, 'x') OVER (ORDER BY ts) FROM s", "the value and the default"},
        {"SELECT lag(v, 1, 0, 0) OVER (ORDER BY ts) FROM s", "lag has a value"},
        {"SELECT k, row_number() OVER (ORDER BY count(*)) FROM s GROUP BY k", "beside GROUP BY"},
        {"SELECT k FROM (SELECT k, row_number() OVER (ORDER BY v) AS n FROM s) x WHERE n <= 1 EMIT ON WINDOW CLOSE",
         "EMIT ON WINDOW CLOSE"},
        {"SELECT DISTINCT ON (k) k, count(*) FROM s GROUP BY k", "DISTINCT ON beside GROUP BY"},
        {"SELECT DISTINCT ON (k) k FROM s ORDER BY v", "ORDER BY begins with"},
        {"SELECT DISTINCT ON (k) k FROM HOP(s, ts, INTERVAL '1' SECOND, INTERVAL '2' SECOND)", "DISTINCT ON over"},
        {"SELECT k FROM s ORDER BY k", "ORDER BY"},
        {"SELECT k FROM s LIMIT 1", "LIMIT"},
        {"SELECT k FROM s EXCEPT SELECT k FROM s", "EXCEPT"},
        {"SELECT k FROM s UNION ALL SELECT v FROM s", "column k is text on the left and bigint on the right"},
        {"SELECT k FROM s UNION SELECT k, v FROM s", "UNION of 1 columns with 2"},
        {"WITH x AS (SELECT k FROM s) SELECT k FROM x", "WITH"},
        {"SELECT 1", "without FROM"},
        {"SELECT k, count(*) FROM s GROUP BY ROLLUP (k)", "ROLLUP"},
        {"SELECT k, count(*) FROM SESSION(s, ts, INTERVAL '1' SECOND) GROUP BY k, window_end",
         "SESSION is PARTITION BY"},
        {"SELECT k, count(*) FROM SESSION(s PARTITION BY k, n, ts, INTERVAL '1' SECOND) GROUP BY k, window_end",
         "SESSION has a gap"},
        {"SELECT k, count(*) FROM SESSION(TABLE s PARTITION BY (k, n), DESCRIPTOR(ts), INTERVAL '1' SECOND) GROUP BY "
         "k, "
         "window_end",
         "SESSION is PARTITION BY"},
        {"SELECT k FROM SESSION(s PARTITION BY k, ts, INTERVAL '1' SECOND)", "without GROUP BY"},
        {"SELECT count(*) FROM s GROUP BY SESSION(ts, INTERVAL '1' SECOND, INTERVAL '1' SECOND)",
         "SESSION has 1 length"},
        {"SELECT k, window_end FROM HOP(s, ts, INTERVAL '1' SECOND, INTERVAL '2' SECOND)", "without GROUP BY"},
        {"SELECT k FROM HOP(s, ts, INTERVAL '1' SECOND, INTERVAL '2' SECOND)", "without GROUP BY"},
        {"SELECT DISTINCT k FROM HOP(s, ts, INTERVAL '1' SECOND, INTERVAL '2' SECOND)", "DISTINCT over windows"},
        {"SELECT k, count(*) FROM HOP(s, ts, INTERVAL '1' SECOND, INTERVAL '2' SECOND) GROUP BY k",
         "grouped by window_start"},
        {"SELECT count(*) FROM HOP(s, ts, INTERVAL '1' SECOND, INTERVAL '2' SECOND) GROUP BY window_end EMIT CHANGES",
         "EMIT CHANGES of HOP"},
        {"SELECT count(*) FROM TUMBLE(plain, ts, INTERVAL '1' SECOND) GROUP BY window_end", "no watermark"},
        {"SELECT count(*) FROM TUMBLE(s, v, INTERVAL '1' SECOND) GROUP BY window_end", "no watermark"},
        {"SELECT count(*) FROM TUMBLE(s, ts, INTERVAL '1' MONTH) GROUP BY window_end", "constant interval"},
        {"SELECT count(*) FROM TUMBLE(s, ts, INTERVAL '0' SECOND) GROUP BY window_end", "above zero"},
        {"SELECT k, count(*) FROM s GROUP BY k EMIT ON WINDOW CLOSE", "EMIT ON WINDOW CLOSE"},
        {"SELECT k FROM s EMIT EVERY INTERVAL '1' SECOND", "EMIT EVERY is for rows that change"},
        {"SELECT k, count(*) FROM s GROUP BY k EMIT EVERY INTERVAL '0' SECOND", "an interval is above zero"},
        {"SELECT count(*) FROM TUMBLE(s, ts, INTERVAL '1' SECOND) GROUP BY window_end EMIT ON WINDOW CLOSE WITH DELAY "
         "INTERVAL "
         "'-1' SECOND",
         "not below zero"},
        {"CREATE STREAM c (a INT, ts TIMESTAMP, WATERMARK FOR ts IDLE AFTER INTERVAL '0' SECOND); SELECT a FROM c",
         "IDLE AFTER is above zero"},
        {"CREATE STREAM c (a INT, WATERMARK FOR tss); SELECT a FROM c", "no column tss"},
        {"CREATE STREAM c (a INT, PRIMARY KEY (b)); SELECT a FROM c", "no column b"},
        {"SELECT v, count(*) FROM s GROUP BY k", "has to be in GROUP BY"},
        {"SELECT j, count(*) FROM s GROUP BY j", "type json"},
        {"SELECT k, array_agg(v) FROM s GROUP BY k", "array_agg"},
        {"SELECT sum(k) FROM s", "takes no argument of that type"},
        {"SELECT sum(x) FROM (SELECT k, max(d) AS x FROM s GROUP BY k) y", "double precision"},
        {"SELECT now() FROM s", "now is not part"},
        {"SELECT a FROM nowhere", "no stream or view nowhere"},
        {"SELECT kk FROM s", "no column kk"},
        {"SELECT k FROM s WHERE k IN (SELECT k FROM plain)", "keep all rows of s for ever"},
        {"SELECT k FROM s WHERE v = 1 OR k IN (SELECT k FROM plain)", "IN with a query"},
        {"SELECT k FROM s WHERE k NOT IN (SELECT k FROM plain)", "keep all rows of s for ever"},
        {"SELECT k FROM s WHERE k NOT IN (SELECT k, k FROM plain) WITH (state_ttl = 'none')", "has one column"},
        {"SELECT k FROM s WHERE k IN (SELECT k, ts FROM plain)", "one column"},
        {"SELECT k FROM s WHERE EXISTS (SELECT count(*) FROM plain)", "EXISTS with an aggregate"},
        {"SELECT k FROM s WHERE EXISTS (SELECT k FROM plain LIMIT 1)", "EXISTS with more"},
        {"CREATE TABLE t (a INT); SELECT a FROM t", "CREATE TABLE"},
        {"CREATE TABLE t (a JSON PRIMARY KEY); SELECT a FROM t", "a PRIMARY KEY of type json"},
        {"CREATE TABLE t (k TEXT PRIMARY KEY); SELECT s.k FROM s JOIN t USING (k)", "keep all rows of s for ever"},
        {"CREATE TABLE t (k TEXT PRIMARY KEY); SELECT s.k FROM s JOIN t FOR SYSTEM_TIME AS OF s.ts USING (k)",
         "as it is when the row comes"},
        {"CREATE TABLE t (k TEXT PRIMARY KEY); SELECT s.k FROM s FULL JOIN t FOR SYSTEM_TIME AS OF s._ts USING (k)",
         "the right side of a JOIN"},
        {"CREATE TABLE t (k TEXT PRIMARY KEY); SELECT k FROM t FOR SYSTEM_TIME AS OF PROCTIME()",
         "the right side of a JOIN"},
        {"CREATE TABLE t (k TEXT PRIMARY KEY); SELECT x.k FROM (SELECT k, max(v) AS m FROM s GROUP BY k) x JOIN t FOR "
         "SYSTEM_TIME AS OF PROCTIME() USING (k)",
         "may be taken back"},
        {"SELECT s.k FROM s JOIN plain FOR SYSTEM_TIME AS OF s._ts USING (k)", "a TABLE with a PRIMARY KEY"},
        {"CREATE STREAM s (a INT); SELECT a FROM s", "already"},
        {"CREATE STREAM c (a AS (b), b AS (a)); SELECT a FROM c", "computed from itself"},
    };
    for (size_t i = 0; i < ARRAY_LEN(queries); i++) {
        struct rig r;
        bool ok = rig_init(&r, queries[i][0], STATE_MAX);
        if (ok || !strstr(r.error.message, queries[i][1]))
            fail_msg("%s\ngot: %s\nexpected: %s", queries[i][0], ok ? "a query" : r.error.message, queries[i][1]);
        rig_fini(&r);
    }
}

/* When time brings something out, whatever operator waits for it; and then it does. */
static void test_due(void **state)
{
    (void)state;
    static const struct {
        const char *query;
        int64_t due_s; /* after the midnight of the rows; -1: never */
        const char *text;
    } rows_due[] = {
        {"SELECT k, count(*) FROM TUMBLE(s, ts, INTERVAL '10' SECOND) GROUP BY k, window_end", 10, "a,1\n"},
        {"SELECT k, count(*) FROM TUMBLE(s, ts, INTERVAL '10' SECOND) GROUP BY k, window_end EMIT ON WINDOW CLOSE WITH "
         "DELAY "
         "INTERVAL '5' SECOND",
         15, "a,1\n"},
        {"SELECT k, count(*) FROM TUMBLE(s, ts, INTERVAL '10' SECOND) GROUP BY k, window_end EMIT CHANGES", -1, NULL},
        {"SELECT k, count(*) FROM s GROUP BY k, SESSION(ts, INTERVAL '7' SECOND)", 8, "a,1\n"},
        {"SELECT k FROM (SELECT k, row_number() OVER (PARTITION BY window_end ORDER BY v) AS r FROM TUMBLE(s, ts, "
         "INTERVAL "
         "'4' SECOND)) x WHERE r <= 1",
         4, "a\n"},
        {"SELECT lag(k) OVER (ORDER BY ts), k FROM s", 2, "NULL,a\n"},
        {"SELECT x.k, y.k FROM s x LEFT JOIN s y ON x.k = y.k AND y.ts > x.ts AND y.ts <= x.ts + INTERVAL '6' SECOND",
         8, "a,NULL\n"},
        {"SELECT x.k FROM s x JOIN s y ON x.k = y.k AND y.ts > x.ts AND y.ts <= x.ts + INTERVAL '6' SECOND", -1, NULL},
        {"SELECT k FROM s", -1, NULL},
    };
    const int64_t midnight = 1767225600LL * US_PER_S;
    for (size_t i = 0; i < ARRAY_LEN(rows_due); i++) {
        struct rig r;
        enum sql_fault fault;
        assert_true(rig_init(&r, rows_due[i].query, STATE_MAX) && feed(&r, rows, 1, 1, &fault));
        int64_t due = query_due(r.q);
        if (rows_due[i].due_s < 0) {
            assert_true(due == INT64_MAX);
        } else {
            assert_in_range((uint64_t)(due - midnight), (uint64_t)((rows_due[i].due_s - 1) * US_PER_S),
                            (uint64_t)(rows_due[i].due_s * US_PER_S));
            assert_true(query_advance(r.q, 0, due - 1, &fault));
            assert_string_equal(r.shown.text, "");
            assert_true(query_advance(r.q, 0, due, &fault));
            assert_string_equal(r.shown.text, rows_due[i].text);
            assert_true(query_watermark(r.q, 0) == due);
        }
        rig_fini(&r);
    }
}

/* A partition without rows holds the watermark back, until it is said to be idle; then the clock of the broker may go on. */
static void test_partitions_and_idle(void **state)
{
    (void)state;
    struct rig r;
    enum sql_fault fault;
    assert_true(
        rig_init(&r, "SELECT k, count(*) FROM TUMBLE(s, ts, INTERVAL '10' SECOND) GROUP BY k, window_end", STATE_MAX));
    struct slice at[2] = {slice_str(rows[0]), slice_str(rows[3])};
    struct query_input one = {.records = at, .partition = 1, .rows = 1}, two = {.records = at + 1, .rows = 1};
    assert_true(query_step(r.q, &one, &fault) && query_step(r.q, &two, &fault));
    assert_string_equal(r.shown.text, ""); /* partition 1 is at 00:00:01 */
    assert_true(query_idle(r.q, 0, 1, &fault));
    assert_string_equal(r.shown.text, "a,1\n");
    assert_true(query_step(r.q, &one, &fault)); /* it comes back with a row that is too old */
    assert_int_equal(query_late(r.q), 1);
    assert_true(query_advance(r.q, 0, 1767225600LL * US_PER_S + 20 * US_PER_S, &fault));
    assert_string_equal(r.shown.text, "a,1\na,1\n");
    assert_true(query_state_bytes(r.q) < 200); /* the list of spans */
    rig_fini(&r);
}

static void test_state_has_a_limit(void **state)
{
    (void)state;
    struct rig r;
    enum sql_fault fault;
    size_t before = mem_in_use();
    assert_true(rig_init(&r, "SELECT k, v, max(k) FROM s GROUP BY k, v", 600));
    assert_false(feed(&r, rows, 6, 1, &fault));
    assert_int_equal(fault, SQL_FAULT_MEMORY);
    rig_fini(&r);
    assert_int_equal(mem_in_use(), before);
}

/* Another query, another view, another stream: each is refused, and says what it is. */
static void test_snapshot_of_another(void **state)
{
    (void)state;
    static const char *const queries[][3] = {
        {"SELECT k, count(*) FROM s GROUP BY k", "SELECT k, count(v) FROM s GROUP BY k", "the query"},
        {"SELECT k, count(*) FROM s GROUP BY k", "SELECT k, count(*) FROM plain GROUP BY k", "the query"},
        {"CREATE VIEW x AS SELECT k FROM s WHERE v > 1; SELECT k, count(*) FROM x GROUP BY k",
         "CREATE VIEW x AS SELECT k FROM s WHERE v > 2; SELECT k, count(*) FROM x GROUP BY k", "a view in it"},
        {"CREATE VIEW x (a, b) AS SELECT k, n FROM s; SELECT count(a) FROM x",
         "CREATE VIEW x (b, a) AS SELECT k, n FROM s; SELECT count(a) FROM x", "a view in it"},
        {"CREATE STREAM x (a INT, b INT); SELECT count(a) FROM x",
         "CREATE STREAM x (a BIGINT, b INT); SELECT count(a) FROM x", "stream x"},
        {"CREATE STREAM x (a INT, b AS (a + 1)); SELECT count(b) FROM x",
         "CREATE STREAM x (a INT, b AS (a + 2)); SELECT count(b) FROM x", "stream x"},
        {"CREATE STREAM x (a INT, b INT); SELECT count(a) FROM x",
         "CREATE STREAM x (a INT, b INT, c INT); SELECT count(a) FROM x", NULL}, /* a column that it does not read */
    };
    for (size_t i = 0; i < ARRAY_LEN(queries); i++) {
        struct rig a, b;
        if (!rig_init(&a, queries[i][0], STATE_MAX) || !rig_init(&b, queries[i][1], STATE_MAX))
            fail_msg("%s: %s %s", queries[i][1], a.error.message, b.error.message);
        assert_true(rig_save(&a));
        mem_free(b.saved.at);
        b.saved = a.saved;
        a.saved = (struct bytes){0};
        bool ok = rig_load(&b);
        if (ok != !queries[i][2] || (!ok && !strstr(b.error.message, queries[i][2])))
            fail_msg("%s\ngot: %s", queries[i][1], ok ? "it goes on" : b.error.message);
        rig_fini(&a);
        rig_fini(&b);
    }
}

/* Snapshots that are cut, or have another byte somewhere, are refused or give a query that can be run: nothing is read or written where it should not be. */
static void test_damaged_snapshot(void **state)
{
    (void)state;
    static const char *const queries[] = {
        "SELECT k, n, max(k), min(k), count(DISTINCT k), avg(d) FROM HOP(s, ts, INTERVAL '5' SECOND, INTERVAL '10' "
        "SECOND) "
        "GROUP BY k, n, window_end",
        "SELECT m, count(*), max(k), sum(m) FROM (SELECT k, max(v) AS m FROM s GROUP BY k) x GROUP BY m",
        "SELECT * FROM (SELECT k, ts, v, row_number() OVER (PARTITION BY ts ORDER BY k, d DESC) AS n FROM s) x WHERE n "
        "<= 2",
        "SELECT k FROM (SELECT k, row_number() OVER (PARTITION BY v ORDER BY k DESC) AS n FROM s) x WHERE n <= 1",
        "SELECT * FROM (SELECT k, m, row_number() OVER (ORDER BY m) AS n FROM (SELECT k, max(v) AS m FROM s GROUP BY "
        "k) g) "
        "x WHERE n <= 1",
        "SELECT k, max(k), min(d), count(DISTINCT k) FILTER (WHERE v > 6), count(DISTINCT k) FROM s GROUP BY k, "
        "SESSION(ts, "
        "INTERVAL '5' SECOND)",
        "SELECT m, count(DISTINCT k) FILTER (WHERE m > 6), min(k), count(DISTINCT m) FROM (SELECT k, max(v) AS m FROM "
        "s GROUP "
        "BY k) x GROUP BY m",
        "SELECT k, max(k) OVER w, avg(v) OVER w, sum(d) OVER w FROM s WINDOW w AS (PARTITION BY n ORDER BY ts ROWS 1 "
        "PRECEDING)",
        "SELECT k, min(k) OVER w, count(v) OVER w FROM s WINDOW w AS (PARTITION BY n ORDER BY ts)",
        "SELECT k, max(k) OVER (ORDER BY v ROWS 1 PRECEDING), lag(k) OVER (PARTITION BY n ORDER BY ts) FROM s",
        "SELECT DISTINCT ON (k) k, v FROM s",
        "SELECT k, count(*), max(k) FROM TUMBLE(s, ts, INTERVAL '10' SECOND) GROUP BY k, window_end EMIT EVERY "
        "INTERVAL '5' "
        "SECOND",
        "SELECT k, v FROM s UNION SELECT k, max(n) FROM s GROUP BY k",
    };
    size_t before = mem_in_use();
    for (size_t i = 0; i < ARRAY_LEN(queries); i++) {
        struct rig r;
        enum sql_fault fault;
        assert_true(rig_init(&r, queries[i], STATE_MAX) && feed(&r, rows, 3, 1, &fault) && rig_save(&r));
        struct bytes good = r.saved;
        size_t len = good.len;
        for (size_t at = 0; at < len; at++) {
            r.saved.len = at;
            r.error = (struct sql_error){0};
            assert_false(rig_load(&r));
            assert_true(r.error.fault != SQL_FAULT_NONE);
        }
        r.saved.len = len;
        for (size_t at = 0; at < len; at++)
            for (unsigned bit = 0; bit < 8; bit++) {
                good.at[at] ^= (uint8_t)(1u << bit);
                r.shown.w.len = 0;
                r.error = (struct sql_error){0};
                if (rig_load(&r))
                    (void)feed(&r, rows, ARRAY_LEN(rows), 2, &fault);
                good.at[at] ^= (uint8_t)(1u << bit);
            }
        rig_fini(&r);
    }
    assert_int_equal(mem_in_use(), before);
}

/* One query of each operator that keeps something. */
static const struct {
    const char *name, *query;
} keepers[] = {
    {"aggregate", "SELECT k, count(*) FROM s GROUP BY k"},
    {"aggregate", "SELECT k, count(*) FROM TUMBLE(s, ts, INTERVAL '10' SECOND) GROUP BY k, window_end"},
    {"join", "SELECT x.k FROM s x JOIN s y ON x.k = y.k WITH (state_ttl = 'none')"},
    {"top", "SELECT DISTINCT ON (k) k, v FROM s"},
    {"latest", "CREATE TABLE t (k TEXT PRIMARY KEY, v BIGINT); SELECT s.k, t.v FROM s JOIN t FOR SYSTEM_TIME AS OF "
               "s._ts ON s.k = t.k"},
    {"session", "SELECT k, count(*) FROM s GROUP BY k, SESSION(ts, INTERVAL '5' SECOND)"},
    {"over", "SELECT k, count(v) OVER (PARTITION BY k ORDER BY ts) FROM s"},
    {"every", "SELECT k, count(*) FROM s GROUP BY k EMIT EVERY INTERVAL '5' SECOND"},
    {"match", "SELECT * FROM s MATCH_RECOGNIZE (PARTITION BY k ORDER BY ts MEASURES A.v AS v PATTERN (A B) DEFINE A AS "
              "A.v > 0)"},
};

static void keeper_init(struct rig *r, size_t i)
{
    enum sql_fault fault;
    if (!rig_init(r, keepers[i].query, STATE_MAX) || !feed(r, rows, 3, 1, &fault) || !rig_save(r))
        fail_msg("%s: %s", keepers[i].query, r->error.message);
}

/* The operator's own bytes begin behind its name, the plan's hash and two counters. */
static uint8_t *version_of(struct rig *r, const char *name)
{
    for (size_t at = 0, len = strlen(name); at + len < r->saved.len; at++)
        if (r->saved.at[at] == len && memcmp(r->saved.at + at + 1, name, len) == 0)
            return r->saved.at + at + 1 + len + 8 + 2;
    fail_msg("no %s is there", name);
    return NULL;
}

static void test_a_version_that_is_not_known(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(keepers); i++) {
        struct rig r;
        char expected[200];
        keeper_init(&r, i);
        uint8_t *version = version_of(&r, keepers[i].name);
        assert_in_range(*version, 1, 2);
        *version = 9;
        snprintf(expected, sizeof expected,
                 "operator %s: its snapshot is of version 9, which this broker does not know", keepers[i].name);
        assert_false(rig_load(&r));
        assert_string_equal(r.error.message, expected);
        rig_fini(&r);
    }
}

/* A key that stands there twice is damage, and no want of memory. */
static void test_a_key_that_is_there_twice(void **state)
{
    unsigned refused = 0;
    (void)state;
    for (size_t i = 0; i < 5; i++) {
        struct rig r;
        keeper_init(&r, i);
        for (size_t at = (size_t)(version_of(&r, keepers[i].name) - r.saved.at); at < r.saved.len; at++) {
            if (r.saved.at[at] != 'b')
                continue;
            r.saved.at[at] = 'a';
            r.error = (struct sql_error){0};
            bool ok = rig_load(&r);
            r.saved.at[at] = 'b';
            if (ok)
                continue;
            refused++;
            if (!strstr(r.error.message, "its snapshot is damaged"))
                fail_msg("%s: %s", keepers[i].query, r.error.message);
        }
        rig_fini(&r);
    }
    assert_true(refused >= 4);
}

static void test_no_memory(void **state)
{
    (void)state;
    static const char *const queries[] = {
        "SELECT k, max(k), count(DISTINCT v), avg(v) FROM HOP(s, ts, INTERVAL '5' SECOND, INTERVAL '10' SECOND) WHERE "
        "k ~ '[ab]' GROUP BY k, window_end",
        "SELECT m, count(*) FROM (SELECT k, max(k) AS m FROM s GROUP BY k) x GROUP BY m",
        "SELECT x.k, y.k, y.v FROM s x FULL JOIN s y ON x.k = y.k AND x.v > 5 AND y.ts BETWEEN x.ts AND x.ts + "
        "INTERVAL '5' "
        "SECOND WHERE x.k IS NOT NULL",
        "CREATE TABLE t (k TEXT PRIMARY KEY, v INT); SELECT t.k, s.k FROM t LEFT JOIN s ON t.k = s.k WITH (state_ttl = "
        "'1 hour')",
        "SELECT * FROM (SELECT k, ts, v, row_number() OVER (PARTITION BY ts ORDER BY k, d DESC) AS n FROM s) x WHERE n "
        "<= 2",
        "SELECT k FROM (SELECT k, row_number() OVER (PARTITION BY v ORDER BY k DESC) AS n FROM s) x WHERE n <= 1",
        "SELECT * FROM (SELECT k, m, row_number() OVER (ORDER BY m) AS n FROM (SELECT k, max(v) AS m FROM s GROUP BY "
        "k) g) "
        "x WHERE n <= 1",
        "SELECT k, max(k), min(d), count(DISTINCT k) FILTER (WHERE v > 6), count(DISTINCT k) FROM s GROUP BY k, "
        "SESSION(ts, "
        "INTERVAL '5' SECOND)",
        "SELECT m, count(DISTINCT k) FILTER (WHERE m > 6), min(k), count(DISTINCT m) FROM (SELECT k, max(v) AS m FROM "
        "s GROUP "
        "BY k) x GROUP BY m",
        "SELECT k, max(k) OVER w, avg(v) OVER w, sum(d) OVER w FROM s WINDOW w AS (PARTITION BY n ORDER BY ts ROWS 1 "
        "PRECEDING)",
        "SELECT k, min(k) OVER w, count(v) OVER w FROM s WINDOW w AS (PARTITION BY n ORDER BY ts)",
        "SELECT k, max(k) OVER (ORDER BY v ROWS 1 PRECEDING), lag(k) OVER (PARTITION BY n ORDER BY ts) FROM s",
        "SELECT DISTINCT ON (k) k, v FROM s",
        "SELECT k, v FROM s UNION SELECT k, max(n) FROM s GROUP BY k",
    };
    size_t before = mem_in_use();
    for (size_t i = 0; i < ARRAY_LEN(queries); i++)
        for (uint64_t n = 1;; n++) {
            struct rig r;
            enum sql_fault fault = SQL_FAULT_MEMORY;
            mem_fail_at(n, false);
            bool ok = rig_init(&r, queries[i], STATE_MAX);
            r.restarts = true;
            ok = ok && feed(&r, rows, ARRAY_LEN(rows), 3, &fault);
            uint64_t hit = mem_failures_hit();
            mem_fail_at(0, false);
            if (!ok)
                assert_int_equal(r.q ? fault : r.error.fault, SQL_FAULT_MEMORY);
            rig_fini(&r);
            assert_int_equal(mem_in_use(), before);
            if (!hit) {
                assert_true(ok);
                break;
            }
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_and_groups),
        cmocka_unit_test(test_first_rows),
        cmocka_unit_test(test_sessions),
        cmocka_unit_test(test_delay_idle_and_keys),
        cmocka_unit_test(test_frames),
        cmocka_unit_test(test_due),
        cmocka_unit_test(test_windows_of_windows),
        cmocka_unit_test(test_joins),
        cmocka_unit_test(test_unions),
        cmocka_unit_test(test_every),
        cmocka_unit_test(test_tables),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_partitions_and_idle),
        cmocka_unit_test(test_state_has_a_limit),
        cmocka_unit_test(test_snapshot_of_another),
        cmocka_unit_test(test_damaged_snapshot),
        cmocka_unit_test(test_a_version_that_is_not_known),
        cmocka_unit_test(test_a_key_that_is_there_twice),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
