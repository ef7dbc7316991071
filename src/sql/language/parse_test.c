/* The language: every statement is parsed, printed, parsed again and is the same; what is wrong is told with its place. */
#include "sql/language/parse.h"

#include "base/mem.h"
#include "sql/language/lex.h"
#include "sql/language/print.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static char printed[1 << 16];

static const char *print(const struct ast *node)
{
    struct writer w = writer_of(printed, sizeof printed - 1);
    sql_print(node, &w);
    assert_true(writer_ok(&w));
    printed[w.len] = 0;
    return printed;
}

static void fail_with(const struct sql_error *error, const char *text)
{
    char shown[1024];
    struct writer w = writer_of(shown, sizeof shown - 1);
    sql_error_print(error, slice_str(text), &w);
    fail_msg("%.*s", (int)w.len, shown);
}

/* Prints as `expected` (NULL: as it was written), and what was printed is the same tree. */
static void round_trip(const char *text, const char *expected)
{
    struct arena arena, again;
    struct ast_list first, second;
    struct sql_error error;
    arena_init(&arena, SQL_PARSE_MEMORY_MAX);
    arena_init(&again, SQL_PARSE_MEMORY_MAX);
    if (!sql_parse(slice_str(text), &arena, &first, &error))
        fail_with(&error, text);
    assert_int_equal(first.count, 1);
    assert_int_equal(first.at[0]->at + first.at[0]->len, strlen(text));
    const char *out = print(first.at[0]);
    assert_string_equal(out, expected ? expected : text);
    if (!sql_parse(slice_str(out), &again, &second, &error))
        fail_with(&error, out);
    assert_int_equal(second.count, 1);
    assert_true(ast_equal(first.at[0], second.at[0]));
    arena_fini(&arena);
    arena_fini(&again);
}

static const char *const statements[] = {
    "SELECT a FROM s WITH (state_ttl = 'none')",
    "SELECT a FROM s EMIT CHANGES WITH (state_ttl = INTERVAL '1 hour')",
    "CREATE STREAM bid (auction bigint, price decimal(10, 2) NOT NULL, url text, dateTime timestamp(3))",
    "CREATE OR REPLACE STREAM IF NOT EXISTS s (a int PRIMARY KEY, b text DEFAULT 'x' NOT NULL KEY) WITH (format = "
    "'json', topic = 'a''b')",
    "CREATE TABLE t (a int, b ARRAY<int>, c MAP<text, ROW<x int, y ARRAY<double precision>>>, PRIMARY KEY (a, b) NOT "
    "ENFORCED)",
    "CREATE STREAM s (c text AS (CASE WHEN a THEN 'x' END), d AS (a + 1), h text HEADER('trace'), i text HEADER, m "
    "bigint METADATA FROM 'offset')",
    "CREATE STREAM s (ts timestamp, WATERMARK FOR ts AS ts - INTERVAL '4' SECOND IDLE AFTER INTERVAL '1' MINUTE)",
    "CREATE STREAM s (a int) FROM QUEUE 'jobs' WITH (prefetch = 10)",
    "CREATE STREAM s INFER FROM EXCHANGE 'amq.topic' KEY 'sensors.#', 'b.*' WITH (format = 'json')",
    "CREATE STREAM s AS SELECT a FROM b EMIT CHANGES",
    "INSERT INTO t SELECT a FROM b JOIN c USING (d) EMIT CHANGES WITH (state_ttl = 'none')",
    "CREATE TABLE s WITH (topic = 't') AS SELECT a, count(*) FROM b GROUP BY a",
    "CREATE VIEW v (a, b) AS SELECT 1, 2",
    "CREATE OR REPLACE MATERIALIZED VIEW v WITH (state_ttl = INTERVAL '1' DAY) AS SELECT 1 EMIT ON WINDOW CLOSE WITH "
    "DELAY INTERVAL '2' SECOND",
    "CREATE SINK k WITH (type = 'queue', 'a.b' = 1) FROM v EMIT EVERY INTERVAL '1' SECOND",
    "CREATE SINK k AS SELECT 1",
    "INSERT INTO q SELECT a FROM b EMIT ON WINDOW CLOSE",
    "INSERT INTO q (a, b) VALUES (1, 'x'), (-2, NULL)",
    "ALTER STREAM s ADD COLUMN b text",
    "ALTER TABLE s ADD COLUMN b text NOT NULL",
    "ALTER MATERIALIZED VIEW v AS SELECT 1 EMIT CHANGES WITH (backfill = FALSE)",
    "DROP STREAM IF EXISTS a.b CASCADE",
    "DROP MATERIALIZED VIEW v",
    "DROP QUERY q",
    "SHOW STREAMS LIKE 'a%'",
    "SHOW MATERIALIZED VIEWS",
    "SHOW QUERIES",
    "SHOW FUNCTIONS",
    "SHOW CREATE v",
    "SHOW COLUMNS FROM v",
    "DESCRIBE EXTENDED v",
    "EXPLAIN ANALYZE SELECT 1",
    "EXPLAIN ANALYZE QUERY q",
    "EXPLAIN CREATE VIEW v AS SELECT 1",
    "PAUSE q",
    "RESUME q",
    "ASSERT VALUES v (a, b) VALUES (1, 2), (3, 4)",
    "ASSERT NULL VALUES v VALUES (1)",
    "ASSERT NULL VALUES v",
    "ADVANCE TIME BY INTERVAL '2' SECOND",
    "SELECT * FROM a EMIT CHANGES",
    "SELECT DISTINCT ON (a, b) a, t.*, b AS c FROM t WHERE a > 1 GROUP BY a, ROLLUP (b, c) HAVING count(*) > 1 QUALIFY "
    "row_number() OVER (PARTITION BY a ORDER BY b DESC NULLS LAST) <= 10",
    "SELECT a FROM t GROUP BY GROUPING SETS (ROW(a, b), a, ROW()), CUBE (a, ROW(b, c))",
    "SELECT sum(x) OVER w, avg(x) OVER (w ROWS BETWEEN 10 PRECEDING AND CURRENT ROW) FROM t WINDOW w AS (PARTITION BY "
    "a ORDER BY b)",
    "SELECT a, min(x) OVER (ORDER BY b RANGE INTERVAL '1' HOUR PRECEDING) FROM t",
    "WITH RECURSIVE a(x) AS (SELECT 1), b AS (SELECT 2) SELECT * FROM a ORDER BY 1 DESC, 2 NULLS FIRST LIMIT 10 OFFSET "
    "5",
    "SELECT 1 UNION ALL SELECT 2 INTERSECT SELECT 3 EXCEPT SELECT 4",
    "(SELECT 1 UNION SELECT 2) INTERSECT SELECT 3",
    "SELECT 1 EXCEPT (SELECT 2 UNION SELECT 3)",
    "(SELECT 1 LIMIT 1) UNION (SELECT 2 LIMIT 1) ORDER BY 1",
    "VALUES (1, 2), (3, 4)",
    "SELECT * FROM a JOIN b ON a.x = b.x LEFT JOIN c USING (x, y) CROSS JOIN d",
    "SELECT * FROM a, b JOIN c ON TRUE, d",
    "SELECT * FROM a JOIN (b LEFT JOIN c ON b.y = c.y) ON a.x = b.x",
    "SELECT * FROM a JOIN b ON a.x = b.x WITHIN INTERVAL '1' HOUR",
    "SELECT * FROM a FULL JOIN b ON a.x = b.x WITHIN (INTERVAL '1' HOUR, INTERVAL '0' SECOND)",
    "SELECT * FROM a SEMI JOIN b ON a.x = b.x",
    "SELECT * FROM a ASOF JOIN b ON a.x = b.x AND a.ts >= b.ts",
    "SELECT * FROM a LEFT ASOF JOIN b ON a.x = b.x",
    "SELECT * FROM a JOIN r FOR SYSTEM_TIME AS OF a.ts AS q(x, y) ON a.x = q.x",
    "SELECT * FROM (SELECT a FROM b) AS t(c), LATERAL (SELECT t.c) AS u, UNNEST(ARRAY[1, 2]) WITH ORDINALITY AS n(v, "
    "i)",
    "SELECT * FROM TUMBLE(bid, ts, INTERVAL '10' SECOND)",
    "SELECT * FROM HOP((SELECT * FROM bid), ts, INTERVAL '2' SECOND, INTERVAL '10' SECOND, INTERVAL '1' SECOND) AS h",
    "SELECT * FROM SESSION(TABLE bid PARTITION BY (bidder, auction), DESCRIPTOR(ts), INTERVAL '10' SECOND) AS s",
    "SELECT * FROM t MATCH_RECOGNIZE (PARTITION BY a ORDER BY ts MEASURES A.price AS p, LAST(B.price) AS q ALL ROWS "
    "PER MATCH AFTER MATCH SKIP TO LAST B "
    "PATTERN (A B+? (C | D E)* F{2,3} G*? (H?)*) WITHIN INTERVAL '1' HOUR SUBSET U = (A, B) DEFINE B AS B.price < "
    "10, C AS TRUE) AS m",
    "SELECT * FROM t MATCH_RECOGNIZE (ORDER BY ts PATTERN (A) DEFINE A AS TRUE)",
    "SELECT \"final\", \"running\" FROM t MATCH_RECOGNIZE (ORDER BY ts MEASURES FINAL LAST(A.price) + RUNNING SUM(x) "
    "AS "
    "\"final\", \"final\" AS \"running\" PATTERN (A) DEFINE A AS \"final\" AND RUNNING COUNT(*) > \"running\")",
};

static void test_statements(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(statements); i++)
        round_trip(statements[i], NULL);
}

/* Other spellings of the same. */
static void test_synonyms(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"create source `a b` as (select 1) emit on update", "CREATE STREAM \"a b\" AS SELECT 1 EMIT CHANGES"},
        {"SELECT 1 EMIT FINAL", "SELECT 1 EMIT ON WINDOW CLOSE"},
        {"SELECT 1 EMIT AFTER WINDOW CLOSE", "SELECT 1 EMIT ON WINDOW CLOSE"},
        {"SELECT * FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '10' SECONDS)) w",
         "SELECT * FROM TUMBLE(bid, ts, INTERVAL '10' SECOND) AS w"},
        {"SELECT a x FROM t u (b) INNER JOIN s USING (x)", "SELECT a AS x FROM t AS u(b) JOIN s USING (x)"},
        {"SELECT * FROM a WITHIN 1 JOIN b", NULL},
        {"SELECT * FROM a JOIN b WITHIN 1 ON c", "SELECT * FROM a JOIN b ON c WITHIN 1"},
        {"SELECT * FROM VALUES (1), (2) AS v(x)", "SELECT * FROM (VALUES (1), (2)) AS v(x)"},
        {"SELECT * FROM ((SELECT 1) UNION SELECT 2) AS v", "SELECT * FROM (SELECT 1 UNION SELECT 2) AS v"},
        {"SELECT a FROM t FETCH FIRST 5 ROWS ONLY", "SELECT a FROM t LIMIT 5"},
        {"SELECT a FROM t OFFSET 3 ROWS LIMIT ALL", "SELECT a FROM t OFFSET 3"},
        {"SELECT ALL a FROM t", "SELECT a FROM t"},
        {"desc v", "DESCRIBE v"},
        {"SHOW COLUMNS IN v", "SHOW COLUMNS FROM v"},
        {"SELECT a LEFT OUTER", NULL},
        {"SELECT final, running total FROM t", "SELECT \"final\", \"running\" AS total FROM t"},
        {"SELECT * FROM t MATCH_RECOGNIZE (ORDER BY ts MEASURES final AS running PATTERN (A) DEFINE A AS final > 1)",
         "SELECT * FROM t MATCH_RECOGNIZE (ORDER BY ts MEASURES \"final\" AS \"running\" PATTERN (A) DEFINE A AS "
         "\"final\" > "
         "1)"},
        {"/* a /* b */ c */ SELECT 1 -- d\n + 2", "SELECT 1 + 2"},
        {"SELECT * FROM t MATCH_RECOGNIZE (ORDER BY ts ONE ROW PER MATCH AFTER MATCH SKIP TO B PATTERN ((A) (B C) {2}) "
         "DEFINE A AS TRUE)",
         "SELECT * FROM t MATCH_RECOGNIZE (ORDER BY ts AFTER MATCH SKIP TO LAST B PATTERN (A (B C){2,2}) DEFINE A AS "
         "TRUE)"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (rows[i][1])
            round_trip(rows[i][0], rows[i][1]);
}

static void check_expression(const char *text, const char *expected)
{
    struct arena arena;
    struct ast *first, *second;
    struct sql_error error;
    arena_init(&arena, SQL_PARSE_MEMORY_MAX);
    if (!sql_parse_expression(slice_str(text), &arena, &first, &error))
        fail_with(&error, text);
    const char *out = print(first);
    assert_string_equal(out, expected);
    if (!sql_parse_expression(slice_str(out), &arena, &second, &error))
        fail_with(&error, out);
    assert_true(ast_equal(first, second));
    arena_fini(&arena);
}

static void test_expressions(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"1+2*3^4%5-6/7", "1 + 2 * 3 ^ 4 % 5 - 6 / 7"},
        {"(1+2)*3-(4-(5-6))", "(1 + 2) * 3 - (4 - (5 - 6))"},
        {"-a^b", "-a ^ b"},
        {"-(a^b)", "-(a ^ b)"},
        {"- -a", "- -a"},
        {"a or b and not c = d", "a OR b AND NOT c = d"},
        {"(a or b) and (not c) = d", "(a OR b) AND (NOT c) = d"},
        {"a is null is not true", NULL},
        {"a = b is null", "a = b IS NULL"},
        {"(a is null) = b", "(a IS NULL) = b"},
        {"a <> b", "a <> b"},
        {"a != b", "a <> b"},
        {"(a < b) < c", "(a < b) < c"},
        {"a is not distinct from b", "a IS NOT DISTINCT FROM b"},
        {"a isnull or b notnull", "a IS NULL OR b IS NOT NULL"},
        {"a between 1 and 2 and b not between symmetric c and d",
         "a BETWEEN 1 AND 2 AND b NOT BETWEEN SYMMETRIC c AND d"},
        {"a in (1, 2) and b not in (select 1)", "a IN (1, 2) AND b NOT IN (SELECT 1)"},
        {"a in ((select 1) union select 2)", "a IN (SELECT 1 UNION SELECT 2)"},
        {"a not like 'x%' escape '!' or b ilike c || 'd' or e similar to 'f'",
         "a NOT LIKE 'x%' ESCAPE '!' OR b ILIKE c || 'd' OR e SIMILAR TO 'f'"},
        {"p -> 'a' ->> 'b' = 'c'", "p -> 'a' ->> 'b' = 'c'"},
        {"p #> q #>> r @> s <@ t ? 'u'", "p #> q #>> r @> s <@ t ? 'u'"},
        {"a ~ 'x' and b !~* 'y'", "a ~ 'x' AND b !~* 'y'"},
        {"a::int::text || b", "CAST(CAST(a AS int) AS text) || b"},
        {"-a::numeric(10,2)", "-CAST(a AS numeric(10, 2))"},
        {"try_cast(a as int[])", "TRY_CAST(a AS ARRAY<int>)"},
        {"cast(a as timestamp(3) with time zone)", "CAST(a AS timestamp(3) with time zone)"},
        {"cast(a as double precision)", "CAST(a AS double precision)"},
        {"a at time zone 'UTC' + interval '1 day'", "a AT TIME ZONE 'UTC' + INTERVAL '1 day'"},
        {"date '2026-01-02' + interval '1-2' year to month", "date '2026-01-02' + INTERVAL '1-2' YEAR TO MONTH"},
        {"timestamp with time zone '2026-01-01'", "timestamp with time zone '2026-01-01'"},
        {"interval 5 minutes", "INTERVAL '5' MINUTE"},
        {"extract(hour from ts)", "EXTRACT(hour FROM ts)"},
        {"a.b.c[1].d[2][3]", "a.b.c[1].d[2][3]"},
        {"(a).b", "(a).b"},
        {"f(x).y", "f(x).y"},
        {"count(*) filter (where a > 1) over w", "count(*) FILTER (WHERE a > 1) OVER w"},
        {"count(distinct a, b)", "count(DISTINCT a, b)"},
        {"array_agg(a order by b desc)", "array_agg(a ORDER BY b DESC)"},
        {"lag(a) ignore nulls over ()", "lag(a) IGNORE NULLS OVER ()"},
        {"row(1, 'a', ())", NULL},
        {"(1, 'a')", "ROW(1, 'a')"},
        {"array[1, 2][1]", "ARRAY[1, 2][1]"},
        {"map['a', 1]", "MAP['a', 1]"},
        {"case a when 1 then 'x' when 2 then 'y' else 'z' end", "CASE a WHEN 1 THEN 'x' WHEN 2 THEN 'y' ELSE 'z' END"},
        {"case when a then case when b then 1 end end", "CASE WHEN a THEN CASE WHEN b THEN 1 END END"},
        {"exists (select 1) or not exists (select 2)", "EXISTS (SELECT 1) OR NOT EXISTS (SELECT 2)"},
        {"a > all (select 1) or b = any (array[1])", "a > ALL (SELECT 1) OR b = ANY (ARRAY[1])"},
        {"(select 1) + ((select 2) union select 3)", "(SELECT 1) + (SELECT 2 UNION SELECT 3)"},
        {"substring(a from 2 for 3) || substring(b, 1)", "\"substring\"(a, 2, 3) || \"substring\"(b, 1)"},
        {"position('a' in b)", "strpos(b, 'a')"},
        {"trim(a), 1", NULL},
        {"trim(leading 'x' from a) || trim(a) || trim(both from b)", "ltrim(a, 'x') || btrim(a) || btrim(b)"},
        {"overlay(a placing b from 1 for 2)", "overlay(a, b, 1, 2)"},
        {"current_timestamp - now()", "CURRENT_TIMESTAMP - now()"},
        {"'it''s' || E'a\\n\\u00e9\\'' || $x$a'b$x$ || ''", "'it''s' || 'a\n\xc3\xa9''' || 'a''b' || ''"},
        {"\"a\"\"b\" + `c``d` + \"select\"", "\"a\"\"b\" + \"c`d\" + \"select\""},
        {".5 + 1. + 1e3 + 1.5E-3", ".5 + 1. + 1e3 + 1.5E-3"},
        {"d\xc3\xa9j\xc3\xa0 + x$1", "d\xc3\xa9j\xc3\xa0 + x$1"},
        {"true is unknown and null is false", NULL},
        {"(true is unknown) and (null is false)", "TRUE IS UNKNOWN AND NULL IS FALSE"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (rows[i][1] && strncmp(rows[i][0], "overlay", 7) != 0)
            check_expression(rows[i][0], rows[i][1]);
    check_expression("overlay(a placing b from 1 for 2)", "\"overlay\"(a, b, 1, 2)");
}

/* ----------------------------------------------------------------------------------------------------------- errors */

static void assert_error(const char *text, const char *expected)
{
    struct arena arena;
    struct ast_list list;
    struct sql_error error;
    char shown[1024];
    struct writer w = writer_of(shown, sizeof shown - 1);
    arena_init(&arena, SQL_PARSE_MEMORY_MAX);
    if (sql_parse(slice_str(text), &arena, &list, &error))
        fail_msg("accepted: %s", text);
    sql_error_print(&error, slice_str(text), &w);
    shown[w.len] = 0;
    assert_string_equal(shown, expected);
    arena_fini(&arena);
}

static void test_errors_show_the_place(void **state)
{
    (void)state;
    assert_error("SELECT a FORM t",
                 "ERROR: expected \",\", FROM, WHERE, GROUP, HAVING, WINDOW, QUALIFY, UNION, …, found \"t\"\n"
                 "LINE 1: SELECT a FORM t\n"
                 "                      ^\n"
                 "HINT: did you mean FROM instead of FORM?\n");
    assert_error("SELCT 1", "ERROR: expected a statement, found \"SELCT\"\n"
                            "LINE 1: SELCT 1\n"
                            "        ^~~~~\n"
                            "HINT: did you mean SELECT instead of SELCT?\n");
    assert_error("CREATE STREAM s (\n  a INT,\n  \tWATERMARK FR a\n)",
                 "ERROR: expected \"(\", \"[\", GENERATED, AS, NOT, PRIMARY, KEY, DEFAULT, …, found \"a\"\n"
                 "LINE 3:    WATERMARK FR a\n"
                 "                        ^\n");
    assert_error("SELECT 1 +", "ERROR: expected an expression, but the text ends here\n"
                               "LINE 1: SELECT 1 +\n"
                               "                  ^\n");
    assert_error("SELECT '\xc3\xa9\xc3\xa9' AS , 1", "ERROR: expected a name for the column, found \",\"\n"
                                                     "LINE 1: SELECT '\xc3\xa9\xc3\xa9' AS , 1\n"
                                                     "                       ^\n");
    assert_error("SELECT 'abc", "ERROR: a text that does not end\nLINE 1: SELECT 'abc\n               ^\n");
    assert_error("SELECT (1 + 2", "ERROR: expected \",\" or \")\", but the text ends here\n"
                                  "LINE 1: SELECT (1 + 2\n"
                                  "                     ^\n");
}

static void test_what_is_refused(void **state)
{
    (void)state;
    static const char *const rows[] = {
        "SELECT",
        "SELECT FROM t",
        "SELECT a, FROM t",
        "SELECT a b c",
        "SELECT * FROM",
        "SELECT 1 2",
        "SELECT a < b < c",
        "SELECT a = b = c",
        "SELECT a IS",
        "SELECT a IS 5",
        "SELECT NOT",
        "SELECT a BETWEEN 1",
        "SELECT a IN ()",
        "SELECT a IN 1",
        "SELECT CASE END",
        "SELECT CASE WHEN 1 END",
        "SELECT CAST(a, int)",
        "SELECT CAST(a AS)",
        "SELECT f(",
        "SELECT f(a",
        "SELECT f(,)",
        "SELECT MAP[1]",
        "SELECT ARRAY[1",
        "SELECT t.* + 1",
        "SELECT a. ",
        "SELECT \"\"",
        "SELECT 'a",
        "SELECT \"a",
        "SELECT $a$b$c$",
        "SELECT 1a",
        "SELECT @",
        "SELECT E'\\q\\u12'",
        "SELECT E'\\ud800'",
        "SELECT /* a",
        "SELECT a JOIN",
        "SELECT * FROM a JOIN b",
        "SELECT * FROM a CROSS JOIN b ON c",
        "SELECT * FROM TUMBLE(a, b)",
        "SELECT * FROM HOP(a, b, 1)",
        "SELECT * FROM TABLE(a)",
        "SELECT * FROM SESSION(a, b, 1, 2)",
        "SELECT * FROM LATERAL a",
        "SELECT * FROM (a, b)",
        "SELECT * FROM t MATCH_RECOGNIZE (ORDER BY a)",
        "SELECT * FROM t MATCH_RECOGNIZE (ORDER BY a PATTERN (A{3,2}) DEFINE A AS TRUE)",
        "SELECT * FROM t MATCH_RECOGNIZE (ORDER BY a PATTERN () DEFINE A AS TRUE)",
        "SELECT 1 UNION",
        "SELECT 1 EMIT",
        "SELECT 1 EMIT EVERY",
        "CREATE",
        "CREATE STREAM",
        "CREATE STREAM s (",
        "CREATE STREAM s ()",
        "CREATE STREAM s (a)",
        "CREATE STREAM s (a INT",
        "CREATE STREAM s (a INT b)",
        "CREATE STREAM s (a DECIMAL(99999999999999999999))",
        "CREATE STREAM s (a ARRAY<INT, INT>)",
        "CREATE STREAM s (a MAP<INT>)",
        "CREATE VIEW v",
        "CREATE SINK s",
        "CREATE STREAM s WITH (a)",
        "CREATE STREAM s WITH ()",
        "CREATE STREAM s FROM EXCHANGE x",
        "INSERT INTO",
        "INSERT INTO t (a) 1",
        "DROP",
        "DROP s",
        "SHOW",
        "SHOW s",
        "PAUSE",
        "ASSERT VALUES v",
        "ASSERT NULL VALUES v (a)",
        "ADVANCE TIME",
        "ADVANCE TIME INTERVAL '2' SECOND",
        "EXPLAIN",
        "ALTER VIEW v AS SELECT 1",
        "ALTER STREAM s DROP a",
        "SELECT 1 SELECT 2",
        "SELECT a\xff",
        "SELECT '\xe0\x80\x80'",
        "SELECT ORDER BY",
        "WITH a AS SELECT 1 SELECT 2",
        "SELECT count(* )+)",
        "SELECT a.b.c.d.e.f.g.h.i",
        "SELECT INTERVAL '1' DAY TO",
        "SELECT EXTRACT(a, b)",
        "SELECT substring(a)",
        "SELECT a OVER",
        "SELECT f(a) OVER (ROWS 1)",
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct arena arena;
        struct ast_list list;
        struct sql_error error;
        arena_init(&arena, SQL_PARSE_MEMORY_MAX);
        if (sql_parse(slice_str(rows[i]), &arena, &list, &error))
            fail_msg("accepted: %s", rows[i]);
        assert_true(error.fault != SQL_FAULT_NONE && error.message[0] && error.at + error.len <= strlen(rows[i]));
        arena_fini(&arena);
    }
    struct arena arena;
    struct ast_list list;
    struct sql_error error;
    arena_init(&arena, SQL_PARSE_MEMORY_MAX);
    assert_false(sql_parse(slice_of("SELECT 1\0", 9), &arena, &list, &error)); /* no zero bytes */
    assert_true(sql_parse(slice_str(" ;; -- nothing\n"), &arena, &list, &error));
    assert_int_equal(list.count, 0);
    assert_true(sql_parse(slice_str("SELECT 1; PAUSE q;SELECT 2"), &arena, &list, &error));
    assert_int_equal(list.count, 3);
    assert_int_equal(list.at[1]->at, 10);
    assert_int_equal(list.at[1]->len, 7);
    arena_fini(&arena);
}

/* ----------------------------------------------------------------------------------------------------------- limits */

/* `head`, `part` n times, `tail` n times. */
static bool parses(const char *head, const char *part, const char *tail, size_t n, enum sql_fault *ret_fault)
{
    size_t room = strlen(head) + n * (strlen(part) + strlen(tail)) + 1, len = 0;
    char *text = malloc(room);
    struct arena arena;
    struct ast_list list;
    struct sql_error error;
    len += (size_t)snprintf(text, room, "%s", head);
    for (size_t i = 0; i < n; i++)
        len += (size_t)snprintf(text + len, room - len, "%s", part);
    for (size_t i = 0; i < n; i++)
        len += (size_t)snprintf(text + len, room - len, "%s", tail);
    arena_init(&arena, SQL_PARSE_MEMORY_MAX);
    bool ok = sql_parse(slice_of(text, len), &arena, &list, &error);
    *ret_fault = error.fault;
    arena_fini(&arena);
    free(text);
    return ok;
}

static void test_limits(void **state)
{
    (void)state;
    static const char *const nested[][3] = {
        {"SELECT ", "(", ""},
        {"SELECT ", "f(", ""},
        {"SELECT ", "NOT ", ""},
        {"SELECT ", "- ", ""},
        {"SELECT ", "CASE WHEN ", ""},
        {"SELECT * FROM ", "(", ""},
        {"SELECT * FROM ", "(SELECT * FROM ", ""},
        {"", "(", ""},
        {"", "EXPLAIN ", ""},
        {"SELECT a[", "a[", ""},
        {"SELECT CAST(a AS ", "ARRAY<", ""},
        {"SELECT a GROUP BY ", "ROLLUP(", ""},
        {"SELECT a = ANY ", "(a = ANY ", ""},
        {"SELECT * FROM t MATCH_RECOGNIZE (ORDER BY a PATTERN (", "(", ""},
        {"SELECT EXISTS (", "(", ""},
        {"SELECT ", "ROW(", ""},
        {"WITH a AS ", "(WITH a AS ", ""},
        {"SELECT * FROM TUMBLE(", "(SELECT * FROM TUMBLE(", ""},
        {"SELECT a IN ", "((", ""},
    };
    enum sql_fault fault;
    for (size_t i = 0; i < ARRAY_LEN(nested); i++) {
        assert_false(parses(nested[i][0], nested[i][1], nested[i][2], 50000, &fault));
        if (fault != SQL_FAULT_LIMIT)
            fail_msg("%s%s…: %s", nested[i][0], nested[i][1], sql_fault_text(fault));
    }
    assert_true(parses("SELECT 1", " + 1", "", 900, &fault));
    assert_false(parses("SELECT 1", " + 1", "", 20000, &fault));
    assert_int_equal(fault, SQL_FAULT_LIMIT);
    assert_false(parses("SELECT a", "::int", "", 20000, &fault));
    assert_int_equal(fault, SQL_FAULT_LIMIT);
    assert_false(parses("SELECT 1", " UNION SELECT 1", "", 20000, &fault));
    assert_int_equal(fault, SQL_FAULT_LIMIT);
    assert_false(parses("SELECT * FROM a", " JOIN b ON c", "", 20000, &fault));
    assert_int_equal(fault, SQL_FAULT_LIMIT);
    assert_true(parses("SELECT 1", ", 1", "", 100000, &fault)); /* long is not deep */
    assert_true(parses("SELECT ((((1", " + 1", "", 100, &fault) == false);
    assert_false(parses("SELECT 1", " ", "", SQL_TEXT_MAX, &fault));
    assert_int_equal(fault, SQL_FAULT_LIMIT);
    assert_true(parses("SELECT ", "(", "", 0, &fault) == false && fault == SQL_FAULT_SYNTAX);
    char *text = malloc(600);
    size_t deep = SQL_NESTED_MAX - 2;
    int len = snprintf(text, 600, "SELECT ");
    memset(text + len, '(', deep);
    text[len + (int)deep] = '1';
    memset(text + len + deep + 1, ')', deep);
    text[len + 2 * (int)deep + 1] = 0;
    round_trip(text, "SELECT 1");
    free(text);
}

static void test_no_memory(void **state)
{
    (void)state;
    size_t before = mem_in_use();
    for (size_t i = 0; i < ARRAY_LEN(statements); i++)
        for (size_t room = 0;; room += 48) {
            struct arena arena;
            struct ast_list list;
            struct sql_error error;
            arena_init(&arena, room);
            bool ok = sql_parse(slice_str(statements[i]), &arena, &list, &error);
            assert_true(ok || error.fault == SQL_FAULT_MEMORY);
            arena_fini(&arena);
            if (ok)
                break;
        }
    struct arena arena;
    struct ast_list list;
    struct sql_error error;
    arena_init(&arena, SQL_PARSE_MEMORY_MAX);
    mem_fail_at(1, true);
    assert_false(sql_parse(slice_str("SELECT 1"), &arena, &list, &error));
    mem_fail_at(0, false);
    assert_int_equal(error.fault, SQL_FAULT_MEMORY);
    arena_fini(&arena);
    assert_int_equal(mem_in_use(), before);
}

static void test_keywords_are_in_order(void **state)
{
    (void)state;
    for (unsigned i = KEYWORD_NONE + 1; i < KEYWORDS; i++) {
        char lower[32];
        size_t len = strlen(keyword_text((enum keyword)i));
        for (size_t k = 0; k <= len; k++)
            lower[k] = (char)(keyword_text((enum keyword)i)[k] |
                              (k < len && keyword_text((enum keyword)i)[k] != '_' ? 0x20 : 0));
        assert_int_equal(keyword_find(slice_str(lower)), i);
        assert_true(i == 1 || strcmp(keyword_text((enum keyword)(i - 1)), keyword_text((enum keyword)i)) < 0);
    }
    assert_int_equal(keyword_find(slice_str("SELEC")), KEYWORD_NONE);
    assert_int_equal(keyword_find(slice_str("SELECTS")), KEYWORD_NONE);
    assert_int_equal(keyword_find(slice_str("")), KEYWORD_NONE);
}

static void test_types(void **state)
{
    (void)state;
    struct arena arena;
    struct ast *type;
    struct sql_error error;
    arena_init(&arena, SQL_PARSE_MEMORY_MAX);
    assert_true(sql_parse_type(slice_str("STRUCT<a: INT, b ROW(c TEXT[])>"), &arena, &type, &error));
    assert_string_equal(print(type), "ROW<a int, b ROW<c ARRAY<text>>>");
    assert_true(sql_parse_type(slice_str("character varying (10)"), &arena, &type, &error));
    assert_string_equal(print(type), "character varying(10)");
    assert_true(sql_parse_type(slice_str("\"row\""), &arena, &type, &error));
    assert_string_equal(print(type), "\"row\"");
    assert_false(sql_parse_type(slice_str("int 5"), &arena, &type, &error));
    assert_false(sql_parse_type(slice_str(""), &arena, &type, &error));
    arena_fini(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_statements),      cmocka_unit_test(test_synonyms),
        cmocka_unit_test(test_expressions),     cmocka_unit_test(test_errors_show_the_place),
        cmocka_unit_test(test_what_is_refused), cmocka_unit_test(test_limits),
        cmocka_unit_test(test_no_memory),       cmocka_unit_test(test_keywords_are_in_order),
        cmocka_unit_test(test_types),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
