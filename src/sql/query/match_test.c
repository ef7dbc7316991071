/* MATCH_RECOGNIZE from memory to memory: what a match is, what comes after one, what waits for time, what is refused, and that nothing is taken for ever.
 * Random patterns are compared with a search that tries everything in tests/sql. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "sql/query/op_match_int.h"
#include "sql/query/query_rig_test.h"

#define TICKS "CREATE STREAM t (k TEXT, v INT, tax INT, ts TIMESTAMP, WATERMARK FOR ts AS ts);"
#define RECORD_MAX 96u
#define RECORDS_MAX 64u

/* Values of v, each a second behind the one before; "b12" is of the partition b, others are of a; the last ends the time of all. */
struct ticks {
    char text[RECORDS_MAX][RECORD_MAX];
    const char *at[RECORDS_MAX];
    uint32_t count;
};

static void tick(struct ticks *t, const char *k, const char *v, uint32_t second)
{
    snprintf(t->text[t->count], RECORD_MAX, "{\"k\":\"%s\",\"v\":%s,\"tax\":%u,\"ts\":\"2026-01-01 %02u:%02u:%02u\"}",
             k, v, t->count + 1, second / 3600, second / 60 % 60, second % 60);
    t->at[t->count] = t->text[t->count];
    t->count++;
}

static void ticks_set(struct ticks *t, const char *values)
{
    char text[256];
    uint32_t second = 0;
    t->count = 0;
    snprintf(text, sizeof text, "%s", values);
    for (char *rest = text, *v = strtok_r(text, " ", &rest); v; v = strtok_r(NULL, " ", &rest)) {
        bool b = *v == 'b';
        tick(t, b ? "b" : "a", b ? v + 1 : v, ++second);
    }
    tick(t, "end", "1", 86399);
}

/* The same whatever the size of the batches, and when every step is another query's that goes on with what the one before saved. */
static void check(const char *match, const char *values, const char *expected)
{
    static const uint32_t sizes[] = {1, 2, 7, 64};
    struct ticks t;
    ticks_set(&t, values);
    char query[1024];
    snprintf(query, sizeof query,
             TICKS "SELECT * FROM t MATCH_RECOGNIZE (PARTITION BY k ORDER BY ts %s) WITH (state_ttl = 'none')", match);
    for (size_t i = 0; i < 2 * ARRAY_LEN(sizes); i++) {
        struct rig r;
        enum sql_fault fault;
        if (!rig_init(&r, query, STATE_MAX))
            fail_msg("%s: %s", match, r.error.message);
        r.restarts = i % 2;
        if (!feed(&r, t.at, t.count, sizes[i / 2], &fault))
            fail_msg("%s: %s, %s", match, sql_fault_text(fault), r.error.message);
        if (strcmp(r.shown.text, expected) != 0)
            fail_msg("%s\nrows a batch: %u%s\ngot:\n%s\nexpected:\n%s", match, sizes[i / 2],
                     r.restarts ? ", with restarts" : "", r.shown.text, expected);
        assert_int_equal(query_late(r.q), 0);
        assert_int_equal(query_faults(r.q), r.shown.faults);
        rig_fini(&r);
    }
}

/* Flink's documentation says what these give. */
static void test_as_documented(void **state)
{
    (void)state;
    check(
        "MEASURES S.tax AS s, LAST(DOWN.tax) AS bottom, LAST(UP.tax) AS e AFTER MATCH SKIP TO LAST UP PATTERN (S DOWN+ "
        "UP) DEFINE "
        "DOWN AS (LAST(DOWN.v, 1) IS NULL AND DOWN.v < S.v) OR DOWN.v < LAST(DOWN.v, 1), UP AS UP.v > LAST(DOWN.v, 1)",
        "12 17 19 21 25 18 15 14 24 25 19", "a,5,8,9\n");
    check("MEASURES FIRST(A.tax) AS s, LAST(A.tax) AS e, CAST(AVG(A.v) * 10 AS INT) AS v PATTERN (A+ B) DEFINE A AS "
          "AVG(A.v) < 15",
          "12 17 13 16 25 2 4 10 15 25 25 30", "a,1,4,145\na,6,11,135\n");
    check("MEASURES C.v AS v PATTERN (A B* C) DEFINE A AS A.v > 10, B AS B.v < 15, C AS C.v > 12", "10 11 12 13 14 16",
          "a,16\n");
    check("MEASURES C.v AS v PATTERN (A B*? C) DEFINE A AS A.v > 10, B AS B.v < 15, C AS C.v > 12", "10 11 12 13 14 16",
          "a,13\na,16\n");
    check(
        "MEASURES FIRST(A.v) AS s, LAST(A.v) AS top, B.v AS l PATTERN (A+ B) DEFINE A AS LAST(A.v, 1) IS NULL OR A.v > "
        "LAST(A.v, 1), B AS B.v < LAST(A.v)",
        "10 12 13 11", "a,10,13,11\n");
#define SUMS "MEASURES SUM(A.v) AS s, FIRST(tax) AS f, LAST(tax) AS l AFTER MATCH SKIP "
#define LOW " PATTERN (A+ C) DEFINE A AS SUM(A.v) < 30"
    check(SUMS "PAST LAST ROW" LOW, "7 9 10 5 10 7 14", "a,26,1,4\na,17,5,7\n");
    check(SUMS "TO NEXT ROW" LOW, "7 9 10 5 10 7 14", "a,26,1,4\na,24,2,5\na,25,3,6\na,22,4,7\na,17,5,7\n");
    check(SUMS "TO LAST A" LOW, "7 9 10 5 10 7 14", "a,26,1,4\na,25,3,6\na,17,5,7\n");
}

static void test_patterns(void **state)
{
    (void)state;
    /* what is preferred comes first, and is gone back from */
    check("MEASURES COUNT(A.*) AS a, COUNT(B.v) AS b PATTERN (A+ B+) DEFINE A AS v < 5, B AS v > 2", "1 3 4 6 1",
          "a,3,1\n");
    check("MEASURES COUNT(A.v) AS a, COUNT(B.v) AS b PATTERN (A+? B+) DEFINE A AS v < 5, B AS v > 2", "1 3 4 6 1",
          "a,1,3\n");
    check("MEASURES A.v AS a, B.v AS b PATTERN ((A | B) B) DEFINE A AS v < 3, B AS v < 4", "2 2 3 1",
          "a,2,2\na,NULL,1\n");
    check("MEASURES COUNT(*) AS n PATTERN (A{2,3} B?) DEFINE A AS v = 1, B AS v = 2", "1 1 1 1 1 2 1 3", "a,3\na,3\n");
    check("MEASURES COUNT(*) AS n PATTERN (A{2,3}? B{,2}?) DEFINE A AS v = 1, B AS v = 2", "1 1 1 1 2", "a,2\na,2\n");
    check("MEASURES FIRST(v) AS f, LAST(v) AS l PATTERN ((A B){2} | A C) DEFINE A AS v = 1, B AS v = 2, C AS v = 3",
          "1 2 1 3 1 2 1 2", "a,1,3\na,1,2\n");
    check("MEASURES COUNT(*) AS n PATTERN (A B) DEFINE A AS v = 1, B AS v = 2", "1 b1 2 b2 b1 1 b2", "a,2\nb,2\nb,2\n");
    /* rows in front of the match, and steps within steps */
    check("MEASURES PREV(FIRST(A.v)) AS p, FIRST(A.v, 1) AS s, LAST(A.v, 1) AS l PATTERN (A{3}) DEFINE A AS A.v > "
          "PREV(A.v)",
          "5 1 2 3 4 5 6 7", "a,1,3,3\na,4,6,6\n");
    check("MEASURES FINAL LAST(v) AS l, RUNNING SUM(v) - FINAL COUNT(*) AS s PATTERN (A B) DEFINE B AS RUNNING LAST(v) "
          "> A.v",
          "1 2 3", "a,2,1\n");
    check("MEASURES A.v AS a, B.v AS b PATTERN (A B) DEFINE B AS v > PREV(v)", "1 2 3 4", "a,1,2\na,3,4\n");
    check("MEASURES v AS v PATTERN (A) DEFINE A AS v > PREV(v, 2)", "3 2 1 2 3", "a,3\n");
    check("MEASURES MIN(v) AS lo, MAX(k) AS k2, COUNT(*) FILTER (WHERE v > 2) AS n, A.v + B.v AS s PATTERN (A B+) "
          "DEFINE B AS v > A.v",
          "1 3 2 1", "a,1,a,1,3\n");
}

static void test_time(void **state)
{
    (void)state;
    static const char *const close[] = {"{\"v\":1,\"ts\":\"2026-01-01 00:00:01\"}",
                                        "{\"v\":2,\"ts\":\"2026-01-01 00:00:01\"}",        /* on time */
                                        "{\"v\":3,\"ts\":\"2026-01-01 00:00:00.999999\"}", /* late */
                                        "{\"v\":4,\"ts\":\"2026-01-01 00:00:02\"}"};
    /* the last row may be so far from the first, and no further */
    check("MEASURES A.v AS a, B.v AS b PATTERN (A X* B) WITHIN INTERVAL '3' SECOND DEFINE A AS v = 1, X AS v = 0, B AS "
          "v = 2",
          "1 0 0 2 1 0 0 0 2", "a,1,2\n");
    check("MEASURES COUNT(*) AS n, MATCH_ROWTIME() - FIRST(ts) = INTERVAL '2' SECOND AS two PATTERN (A+) WITHIN "
          "INTERVAL '2' SECOND DEFINE A AS v = 1",
          "1 1 1 1 1 2 1", "a,3,1\na,2,0\na,1,0\n");
    /* of several that wait the one that began first is told first */
    check("MEASURES v AS v PATTERN (A B*) WITHIN INTERVAL '4' SECOND DEFINE A AS v > 1, B AS v = 1", "3 b4 b1 1 b1 1",
          "a,1\nb,1\n");
    /* a match has the time of its rows: windows over it are known to end */
    struct rig r;
    enum sql_fault fault;
    struct ticks t;
    ticks_set(&t, "1 2 1 2 1 2");
    assert_true(rig_init(
        &r,
        TICKS
        "SELECT COUNT(*) AS n FROM TUMBLE((SELECT at FROM t MATCH_RECOGNIZE (ORDER BY ts MEASURES "
        "MATCH_ROWTIME() AS at PATTERN (A B) WITHIN INTERVAL '1' MINUTE DEFINE A AS v = 1, B AS v = 2)), at, INTERVAL "
        "'4' SECOND) GROUP BY window_end",
        STATE_MAX));
    assert_true(feed(&r, t.at, t.count, 3, &fault));
    assert_string_equal(r.shown.text, "1\n2\n");
    rig_fini(&r);
    assert_true(
        rig_init(&r, TICKS "SELECT * FROM t MATCH_RECOGNIZE (ORDER BY ts MEASURES v AS v PATTERN (A) DEFINE A AS TRUE)",
                 STATE_MAX));
    assert_true(feed(&r, close, ARRAY_LEN(close), 1, &fault));
    assert_string_equal(r.shown.text, "1\n2\n");
    assert_int_equal(query_late(r.q), 1);
    rig_fini(&r);
}

/* It says when time alone brings something about: a row is used, a match can have no more rows. */
static void test_due(void **state)
{
    (void)state;
    struct rig r;
    enum sql_fault fault;
    struct ticks t;
    const int64_t midnight = 1767225600LL * US_PER_S;
    ticks_set(&t, "1 2");
    assert_true(rig_init(&r,
                         TICKS "SELECT * FROM t MATCH_RECOGNIZE (ORDER BY ts MEASURES A.v AS a, v AS v PATTERN (A B*) "
                               "WITHIN INTERVAL '6' SECOND DEFINE B AS "
                               "v > 1)",
                         STATE_MAX));
    assert_true(query_due(r.q) == INT64_MAX);
    assert_true(feed(&r, t.at, 1, 1, &fault));
    assert_true(query_due(r.q) == midnight + US_PER_S + 1);
    assert_true(query_advance(r.q, 0, query_due(r.q), &fault));
    assert_true(query_due(r.q) == midnight + 7 * US_PER_S + 1);
    assert_true(feed(&r, t.at + 1, 1, 1, &fault));
    assert_true(query_due(r.q) == midnight + 2 * US_PER_S + 1);
    assert_true(query_advance(r.q, 0, midnight + 7 * US_PER_S, &fault));
    assert_string_equal(r.shown.text, "");
    assert_true(rig_save(&r) && rig_load(&r));
    assert_true(query_due(r.q) == midnight + 7 * US_PER_S + 1);
    assert_true(query_advance(r.q, 0, query_due(r.q), &fault));
    assert_string_equal(r.shown.text, "1,2\n");
    assert_true(query_due(r.q) == INT64_MAX);
    rig_fini(&r);
}

/* What is kept of matches is bounded as anything that has a time; their rows are joined, and joined with themselves. */
static void test_joined(void **state)
{
    (void)state;
    struct rig r;
    enum sql_fault fault;
    struct ticks t;
    ticks_set(&t, "1 2 5 1 3 5");
    assert_true(rig_init(&r,
                         TICKS "SELECT m.k, m.v, t.v FROM t MATCH_RECOGNIZE (PARTITION BY k ORDER BY ts MEASURES B.v "
                               "AS v, B.ts AS at PATTERN (A B) WITHIN "
                               "INTERVAL '5' SECOND DEFINE A AS v = 1) AS m JOIN t ON m.k = t.k AND t.ts BETWEEN m.at "
                               "AND m.at + INTERVAL '1' SECOND",
                         STATE_MAX));
    r.restarts = true;
    assert_true(feed(&r, t.at, t.count, 2, &fault));
    assert_string_equal(r.shown.text, "a,2,2\na,2,5\na,3,3\na,3,5\n");
    assert_int_equal(query_late(r.q), 0);
    rig_fini(&r);
}

static void test_order_and_late(void **state)
{
    (void)state;
    static const char *const records[] = {
        "{\"k\":\"a\",\"v\":3,\"ts\":\"2026-01-01 00:00:03\"}",
        "{\"k\":\"a\",\"v\":1,\"ts\":\"2026-01-01 00:00:02\"}", /* two seconds are waited for */
        "{\"k\":\"a\",\"v\":2,\"ts\":\"2026-01-01 00:00:02\"}",
        "{\"k\":\"a\",\"v\":9,\"ts\":\"2026-01-01 00:00:09\"}",
        "{\"k\":\"a\",\"v\":4,\"ts\":\"2026-01-01 00:00:04\"}", /* late */
        "{\"k\":\"a\",\"v\":4}",                                /* without a time */
        "{\"k\":\"a\",\"v\":9,\"ts\":\"2026-01-01 00:00:20\"}",
    };
    for (uint32_t size = 1; size < 9; size += 3) {
        struct rig r;
        enum sql_fault fault;
        assert_true(rig_init(&r,
                             "SELECT * FROM s MATCH_RECOGNIZE (PARTITION BY k ORDER BY ts, v DESC MEASURES A.v AS a, "
                             "B.v AS b, C.v AS c, D.v "
                             "AS d PATTERN (A B C D))",
                             STATE_MAX) == false);
        rig_fini(&r);
        assert_true(rig_init(&r,
                             "SELECT * FROM s MATCH_RECOGNIZE (PARTITION BY k ORDER BY ts, v DESC MEASURES A.v AS a, "
                             "B.v AS b, C.v AS c, D.v "
                             "AS d PATTERN (A B C D) DEFINE A AS TRUE)",
                             STATE_MAX));
        r.restarts = size > 1;
        assert_true(feed(&r, records, ARRAY_LEN(records), size, &fault));
        assert_string_equal(r.shown.text, "a,2,1,3,9\n");
        assert_int_equal(query_late(r.q), 1);
        assert_int_equal(query_faults(r.q), 1);
        rig_fini(&r);
    }
}

/* What cannot be computed is told, and nothing else ends of it. */
static void test_faults(void **state)
{
    (void)state;
    static const struct {
        const char *match, *expected;
        uint32_t faults;
    } cases[] = {
        {"MEASURES v AS v PATTERN (A) DEFINE A AS 10 / v > 1", "a,1\na,2\n", 1}, /* of the row: it is not used */
        {"MEASURES B.v AS v AFTER MATCH SKIP TO NEXT ROW PATTERN (A B) DEFINE B AS 10 / A.v > 1", "a,2\n",
         1}, /* of others: it is not met */
        {"MEASURES COUNT(*) AS n PATTERN (A B | D{3}) DEFINE B AS 10 / A.v > 1", "a,3\n", 1}, /* told once */
        {"MEASURES 10 / A.v AS v PATTERN (A B) DEFINE A AS TRUE", "", 1}, /* of the match: it is not given out */
    };
    struct ticks t;
    ticks_set(&t, "0 1 2");
    for (size_t i = 0; i < 2 * ARRAY_LEN(cases); i++) {
        char query[512];
        struct rig r;
        enum sql_fault fault;
        snprintf(query, sizeof query, TICKS "SELECT * FROM t MATCH_RECOGNIZE (PARTITION BY k ORDER BY ts %s)",
                 cases[i / 2].match);
        assert_true(rig_init(&r, query, STATE_MAX));
        r.restarts = i % 2;
        assert_true(feed(&r, t.at, t.count, 1, &fault));
        assert_string_equal(r.shown.text, cases[i / 2].expected);
        assert_int_equal(r.shown.faults, cases[i / 2].faults);
        assert_int_equal(query_faults(r.q), cases[i / 2].faults);
        rig_fini(&r);
    }
}

/* Patterns that could be met in two ways by each row, at once or little by little: the query ends with a reason, and where it would end without restarts. */
static void test_steps_have_a_limit(void **state)
{
    (void)state;
    static const char *const patterns[] = {"(A | B){1,30} C", "(A | B){14} C | D{16} C"};
    uint32_t ended[2];
    for (unsigned i = 0; i < 2 * ARRAY_LEN(patterns); i++) {
        struct rig r;
        enum sql_fault fault = SQL_FAULT_NONE;
        uint32_t count = 0;
        char record[RECORD_MAX], query[512];
        const char *at = record;
        snprintf(query, sizeof query,
                 TICKS
                 "SELECT * FROM t MATCH_RECOGNIZE (ORDER BY ts MEASURES COUNT(*) AS n PATTERN (%s) WITHIN INTERVAL "
                 "'1' HOUR DEFINE A AS v >= 0, B AS COUNT(B.v) >= 0, C AS v < 0)",
                 patterns[i / 2]);
        assert_true(rig_init(&r, query, STATE_MAX));
        r.restarts = i % 2;
        bool ok = true;
        for (; ok && count < 200; count++) {
            snprintf(record, sizeof record, "{\"v\":1,\"ts\":\"2026-01-01 00:%02u:%02u\"}", count / 60, count % 60);
            ok = feed(&r, &at, 1, 1, &fault);
        }
        assert_false(ok);
        assert_int_equal(fault, SQL_FAULT_STEPS);
        ended[i % 2] = count;
        if (i % 2)
            assert_int_equal(ended[0], ended[1]);
        rig_fini(&r);
    }
    assert_in_range(ended[0], 30, 199); /* credit was used up */
}

static void test_memory_has_a_limit(void **state)
{
    (void)state;
    struct rig r;
    enum sql_fault fault = SQL_FAULT_NONE;
    bool ok = true;
    char record[RECORD_MAX];
    const char *at = record;
    assert_true(rig_init(
        &r,
        TICKS "SELECT * FROM t MATCH_RECOGNIZE (ORDER BY ts MEASURES COUNT(*) AS n PATTERN (A+ B) DEFINE B AS v < 0) "
              "WITH (state_ttl = 'none')",
        STATE_MAX));
    for (uint32_t i = 0; ok && i < 100000; i++) {
        snprintf(record, sizeof record, "{\"v\":1,\"ts\":\"2026-01-%02u %02u:%02u:%02u\"}", 1 + i / 86400,
                 i / 3600 % 24, i / 60 % 60, i % 60);
        ok = feed(&r, &at, 1, 1, &fault);
        assert_true(query_state_bytes(r.q) <= STATE_MAX);
    }
    assert_false(ok);
    assert_int_equal(fault, SQL_FAULT_MEMORY);
    rig_fini(&r);
    /* within a time, what has gone is given back, and so are partitions that are empty */
    assert_true(rig_init(&r,
                         TICKS "SELECT * FROM t MATCH_RECOGNIZE (PARTITION BY v ORDER BY ts MEASURES COUNT(*) AS n "
                               "PATTERN (A B) WITHIN INTERVAL '10' "
                               "SECOND DEFINE B AS v < 0)",
                         STATE_MAX));
    for (uint32_t i = 0; i < 5000; i++) {
        snprintf(record, sizeof record, "{\"v\":%u,\"ts\":\"2026-01-01 %02u:%02u:%02u\"}", i, i / 3600, i / 60 % 60,
                 i % 60);
        assert_true(feed(&r, &at, 1, 1, &fault));
    }
    assert_true(query_state_bytes(r.q) < 32768);
    rig_fini(&r);
}

static void test_refused(void **state)
{
    (void)state;
    static const char *const refusals[][2] = {
        {"ORDER BY ts PATTERN (A+ B) DEFINE A AS TRUE", "may keep rows for ever"},
        {"ORDER BY ts PATTERN (A B{2,}) DEFINE A AS TRUE", "may keep rows for ever"},
        {"ORDER BY v PATTERN (A) DEFINE A AS TRUE", "ordered by a time with a watermark first, ascending"},
        {"ORDER BY ts DESC PATTERN (A) DEFINE A AS TRUE", "ordered by a time with a watermark first, ascending"},
        {"ORDER BY ts PATTERN (A?) DEFINE A AS TRUE", "a pattern that no row can meet as well"},
        {"ORDER BY ts PATTERN (A (B?)*) WITHIN INTERVAL '1' SECOND DEFINE A AS TRUE",
         "repeated without end has at least one row"},
        {"ORDER BY ts PATTERN (A{0}) DEFINE A AS TRUE", "there no times"},
        {"ORDER BY ts PATTERN (A{5000}) DEFINE A AS TRUE", "more than 4096 parts"},
        {"ORDER BY ts PATTERN ((A{1,1000}){1,1000000}) DEFINE A AS TRUE", "more than 4096 parts"},
        {"ORDER BY ts PATTERN (A) DEFINE B AS TRUE", "the pattern has no variable B"},
        {"ORDER BY ts PATTERN (A) DEFINE A AS TRUE, A AS FALSE", "A is defined twice"},
        {"ORDER BY ts PATTERN (A) DEFINE A AS v", "expected a value of type boolean"},
        {"ORDER BY ts PATTERN (A B) DEFINE A AS A.v + B.nope > 1", "there is no column B.nope"},
        {"ORDER BY ts MEASURES SUM(A.v * B.v) AS s PATTERN (A B) DEFINE A AS TRUE", "names of several variables"},
        {"ORDER BY ts MEASURES LAST(A.v * v) AS s PATTERN (A B) DEFINE A AS TRUE", "names of several variables"},
        {"ORDER BY ts MEASURES LAST(SUM(v)) AS s PATTERN (A B) DEFINE A AS TRUE", "within one another"},
        {"ORDER BY ts MEASURES LAST(v, 5000) AS s PATTERN (A B) DEFINE A AS TRUE", "a number from 0 to 1000"},
        {"ORDER BY ts MEASURES NEXT(v) AS s PATTERN (A) DEFINE A AS TRUE", "NEXT cannot be run yet"},
        {"ORDER BY ts MEASURES CLASSIFIER() AS s PATTERN (A) DEFINE A AS TRUE", "CLASSIFIER cannot be run yet"},
        {"ORDER BY ts MEASURES COUNT(DISTINCT v) AS s PATTERN (A) DEFINE A AS TRUE", "DISTINCT"},
        {"ORDER BY ts ALL ROWS PER MATCH PATTERN (A) DEFINE A AS TRUE", "ALL ROWS PER MATCH cannot be run yet"},
        {"ORDER BY ts PATTERN (A B) SUBSET U = (A, B) DEFINE A AS TRUE", "SUBSET cannot be run yet"},
        {"ORDER BY ts AFTER MATCH SKIP TO FIRST A PATTERN (A B) DEFINE A AS TRUE",
         "the row that a match may begin with: A"},
        {"ORDER BY ts AFTER MATCH SKIP TO LAST B PATTERN (A B?) DEFINE A AS TRUE",
         "a row that a match may not have: B"},
        {"ORDER BY ts AFTER MATCH SKIP TO LAST C PATTERN (A B) DEFINE A AS TRUE", "the pattern has no variable C"},
        {"ORDER BY ts PATTERN (A) WITHIN INTERVAL '-1' SECOND DEFINE A AS TRUE", "WITHIN is not below zero"},
        {"ORDER BY ts PATTERN (A) DEFINE A AS FINAL LAST(v) > 1", "FINAL is for MEASURES"},
        {"ORDER BY ts MEASURES RUNNING abs(v) AS x PATTERN (A) DEFINE A AS TRUE",
         "stand in front of FIRST, LAST and aggregates"},
        {"ORDER BY ts MEASURES now() AS n PATTERN (A) DEFINE A AS TRUE", "now is not part of a continuous query"},
    };
    for (size_t i = 0; i < ARRAY_LEN(refusals); i++) {
        char query[512];
        struct rig r;
        snprintf(query, sizeof query, TICKS "SELECT * FROM t MATCH_RECOGNIZE (%s)", refusals[i][0]);
        bool ok = rig_init(&r, query, STATE_MAX);
        if (ok || !strstr(r.error.message, refusals[i][1]))
            fail_msg("%s\ngot: %s\nexpected: %s", refusals[i][0], ok ? "a query" : r.error.message, refusals[i][1]);
        rig_fini(&r);
    }
    struct rig r;
    assert_false(rig_init(&r,
                          "SELECT * FROM (SELECT k, max(ts) AS ts FROM s GROUP BY k) x MATCH_RECOGNIZE (ORDER BY ts "
                          "PATTERN (A) DEFINE A AS TRUE)",
                          STATE_MAX));
    assert_non_null(strstr(r.error.message, "taken back"));
    rig_fini(&r);
}

#define EVERYTHING                                                                                                     \
    TICKS "SELECT * FROM t MATCH_RECOGNIZE (PARTITION BY k ORDER BY ts, tax MEASURES MAX(A.k) AS m, PREV(FIRST(v)) "   \
          "AS p, "                                                                                                     \
          "COUNT(B.v) AS b AFTER MATCH SKIP TO NEXT ROW PATTERN (A (B | A){0,5} C) WITHIN INTERVAL '30' SECOND "       \
          "DEFINE A "                                                                                                  \
          "AS v < 5 AND MAX(A.k) > '', B AS v > PREV(v), C AS v > A.v AND k ~ 'a|b')"
#define VALUES "1 b2 3 2 b1 b5 4 7 1 b3 2 6 b9"

/* Bytes that are not what was written are refused, or are what another snapshot would say; nothing breaks. */
static void test_damaged_snapshot(void **state)
{
    (void)state;
    struct ticks t;
    ticks_set(&t, VALUES);
    struct rig r;
    enum sql_fault fault;
    assert_true(rig_init(&r, EVERYTHING, STATE_MAX) && feed(&r, t.at, t.count - 1, 4, &fault) && rig_save(&r));
    for (size_t i = 0; i < r.saved.len; i++)
        for (unsigned bit = 0; bit < 8; bit++) {
            r.saved.at[i] ^= (uint8_t)(1u << bit);
            if (rig_load(&r))
                (void)feed(&r, t.at, t.count, 7, &fault);
            r.shown.w.len = 0;
            r.saved.at[i] ^= (uint8_t)(1u << bit);
        }
    size_t whole = r.saved.len;
    for (r.saved.len = 0; r.saved.len < whole; r.saved.len++)
        assert_false(rig_load(&r));
    rig_fini(&r);
}

static struct match *match_of(struct rig *r)
{
    const struct plan *plan = query_plan(r->q);
    for (uint32_t i = 0; i < plan->op_count; i++)
        if (strcmp(plan->ops[i]->kind->name, "match") == 0)
            return CONTAINER_OF(plan->ops[i], struct match, op);
    fail_msg("there is no pattern");
    return NULL;
}

static struct bytes copy_of(const struct bytes *b)
{
    struct bytes copy = {.at = mem_alloc(b->len), .len = b->len};
    assert_non_null(copy.at);
    memcpy(copy.at, b->at, b->len);
    return copy;
}

#define DEAR                                                                                                           \
    TICKS "SELECT * FROM t MATCH_RECOGNIZE (ORDER BY ts MEASURES COUNT(A.v) AS a, SUM(B.v) AS b PATTERN ((A | B){6} "  \
          "C) WITHIN INTERVAL '1' HOUR DEFINE A AS v > 0, B AS SUM(B.v) > 0, C AS v = 3)"

/* A search goes on where it stood: what it has tried, which may be a great deal, is not tried again. */
static void test_a_search_goes_on(void **state)
{
    (void)state;
    struct ticks t;
    struct rig r;
    enum sql_fault fault;
    ticks_set(&t, "1 1 1 1 2 1 3 1");
    assert_true(rig_init(&r, DEAR, STATE_MAX) && feed(&r, t.at, 7, 7, &fault) && rig_save(&r));
    const struct part *p = part_of(match_of(&r)->parts.first);
    uint32_t pc = p->pc, depth = p->depth, choices = p->choice_count;
    assert_int_equal(depth, 6); /* the seventh waits for the watermark */
    assert_true(choices > 0);
    struct bytes first = copy_of(&r.saved);
    assert_true(rig_load(&r));
    p = part_of(match_of(&r)->parts.first);
    assert_null(p->heard);
    assert_true(p->pc == pc && p->depth == depth && p->choice_count == choices);
    assert_true(rig_save(&r));
    assert_true(slice_equal(slice_of(first.at, first.len), slice_of(r.saved.at, r.saved.len)));
    assert_true(feed(&r, t.at + 7, t.count - 7, 7, &fault));
    assert_string_equal(r.shown.text, "6,NULL\n");
    mem_free(first.at);
    rig_fini(&r);
}

/* A choice that would be met by no row at all, which no program has. */
static void test_a_search_that_is_none(void **state)
{
    (void)state;
    struct ticks t;
    struct rig r;
    enum sql_fault fault;
    ticks_set(&t, "1 1 1 1 2 1 1 1");
    assert_true(rig_init(&r, DEAR, STATE_MAX) && feed(&r, t.at, 7, 7, &fault));
    struct match *m = match_of(&r);
    struct part *p = part_of(m->parts.first);
    assert_true(p->choice_count && p->choices[0].depth == 0);
    p->choices[0].pc = m->rule->code_count - 1;
    assert_int_equal(m->rule->code[p->choices[0].pc].op, MATCH_END);
    assert_true(rig_save(&r) && rig_load(&r));
    assert_true(feed(&r, t.at + 7, t.count - 7, 7, &fault));
    assert_string_equal(r.shown.text, "");
    rig_fini(&r);
}

static void cut(struct bytes *b, size_t at, size_t len)
{
    memmove(b->at + at, b->at + at + len, b->len - at - len);
    b->len -= len;
}

static size_t varint_at(const struct bytes *b, size_t at)
{
    size_t len = 1;
    while (b->at[at + len - 1] & 0x80)
        len++;
    return len;
}

static size_t place_of(const struct bytes *b, const char *name)
{
    size_t len = strlen(name);
    for (size_t i = 0; i + len < b->len; i++)
        if (memcmp(b->at + i, name, len) == 0)
            return i;
    fail_msg("%s is not there", name);
    return 0;
}

/* Of another program it says nothing, and snapshots of version 1 have none: then it is done again. */
static void test_a_search_is_done_again(void **state)
{
    (void)state;
    struct ticks t;
    ticks_set(&t, "1 1 1 1 2 1 3 1");
    for (unsigned version = 1; version <= 2; version++) {
        struct rig r;
        enum sql_fault fault;
        assert_true(rig_init(&r, DEAR, STATE_MAX) && feed(&r, t.at, 7, 7, &fault) && rig_save(&r));
        int64_t credit = match_of(&r)->credit;
        size_t at =
            place_of(&r.saved, "\005match") + 6 + sizeof(uint64_t) + 2; /* behind the plan's hash and counters */
        assert_int_equal(r.saved.at[at], 2);
        size_t program = at + 1;
        for (unsigned i = 0; i < 3; i++) /* number, used, credit */
            program += varint_at(&r.saved, program);
        struct bytes whole = copy_of(&r.saved);
        r.saved.at[program] ^= 1;
        assert_true(rig_load(&r));
        if (version == 1) {
            size_t search = 0;
            assert_true(rig_save(&r));
            while (whole.at[search] == r.saved.at[search])
                search++;
            assert_true(whole.at[search] == 1 && r.saved.at[search] == 0);
            cut(&r.saved, search, 1);
            cut(&r.saved, program, varint_at(&r.saved, program));
            r.saved.at[at] = 1;
            assert_true(rig_load(&r));
        }
        mem_free(whole.at);
        const struct part *p = part_of(match_of(&r)->parts.first);
        assert_true(p->heard && p->heard == p->last && !p->depth && !p->pc && !p->choice_count);
        assert_int_equal(match_of(&r)->credit, credit);
        assert_true(feed(&r, t.at + 7, t.count - 7, 7, &fault));
        assert_string_equal(r.shown.text, "6,NULL\n");
        rig_fini(&r);
    }
}

static void test_no_memory(void **state)
{
    (void)state;
    struct ticks t;
    ticks_set(&t, VALUES);
    size_t before = mem_in_use();
    for (uint64_t n = 1;; n++) {
        struct rig r;
        enum sql_fault fault = SQL_FAULT_MEMORY;
        mem_fail_at(n, false);
        bool ok = rig_init(&r, EVERYTHING, STATE_MAX);
        r.restarts = true;
        ok = ok && feed(&r, t.at, t.count, 5, &fault);
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
        cmocka_unit_test(test_as_documented),
        cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_time),
        cmocka_unit_test(test_due),
        cmocka_unit_test(test_joined),
        cmocka_unit_test(test_order_and_late),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_steps_have_a_limit),
        cmocka_unit_test(test_memory_has_a_limit),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_damaged_snapshot),
        cmocka_unit_test(test_a_search_goes_on),
        cmocka_unit_test(test_a_search_is_done_again),
        cmocka_unit_test(test_a_search_that_is_none),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
