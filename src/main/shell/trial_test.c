/* Files of statements that say what is to come of them: what is said when that does not come, and what ends a file. */
#include "main/shell/trial.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

/* What is said on both outputs; the counts are in *ret. */
static char *tried(const char *text, bool json, struct sql_trial *ret)
{
    char *said = NULL;
    size_t len;
    FILE *to = open_memstream(&said, &len);
    assert_non_null(to);
    *ret = (struct sql_trial){.out = to, .err = to, .json = json};
    sql_trial_run(ret, "f.sql", slice_str(text));
    fclose(to);
    return said;
}

static void says(const char *text, bool json, unsigned passed, unsigned failed, const char *expected)
{
    struct sql_trial trial;
    char *said = tried(text, json, &trial);
    assert_string_equal(said, expected);
    assert_int_equal(trial.passed, passed);
    assert_int_equal(trial.failed, failed);
    free(said);
}

#define S "CREATE STREAM s (id BIGINT, k TEXT);\n"

static void test_rows(void **state)
{
    (void)state;
    says("", false, 0, 0, "");
    says(S "CREATE STREAM t AS SELECT id * 2 AS twice FROM s WHERE k = 'a';\nINSERT INTO s VALUES (1, 'a'), (2, 'b');"
           "ASSERT VALUES t VALUES (2); INSERT INTO s VALUES (3, 'a'); ASSERT VALUES t (twice) VALUES (5 + 1);"
           "ASSERT NULL VALUES t; ASSERT VALUES s (k, ID, _offset) VALUES ('a', 1, 0), ('b', 2, 1)",
         false, 4, 0, "");
    says(S "INSERT INTO s VALUES (1, 'a'), (2, NULL), (3, 'c'), (4, 'd');\n/* one\n*/ ASSERT VALUES s VALUES (1, "
           "'a'), (2, 'b'), (3, 'c');\nASSERT VALUES s VALUES (4, 'd'), (5, 'e');",
         false, 0, 2,
         "f.sql:4: s is not what was expected (-), but what came (+):\n      [1,\"a\"]\n    - [2,\"b\"]\n    + "
         "[2,null]\n"
         "      [3,\"c\"]\n    and 1 more came behind\n"
         "f.sql:5: s is not what was expected (-), but what came (+):\n      [4,\"d\"]\n    - [5,\"e\"]\n"
         "    1 of 2 rows came\n");
    says(S "CREATE STREAM t WITH (on_error = 'fail') AS SELECT 1 / id AS n FROM s; INSERT INTO s VALUES (0, 'a');\n"
           "ASSERT VALUES t VALUES (1)",
         false, 0, 1,
         "f.sql:3: t is not what was expected (-), but what came (+):\n    - [1]\n    0 of 1 rows came\n"
         "    the query t has failed: s/0, offset 0: division by zero\n");
    says(S "INSERT INTO s VALUES (1, 'a'); ASSERT NULL VALUES s; ASSERT NULL VALUES s", false, 1, 1,
         "f.sql:2: nothing more was expected of s, but this came (+):\n    + [1,\"a\"]\n");
}

static void test_changes(void **state)
{
    (void)state;
    says("CREATE TABLE t (k TEXT, v BIGINT, PRIMARY KEY (k)); INSERT INTO t VALUES ('a', 1), ('a', 2);"
         "ASSERT VALUES t VALUES ('a', 1); ASSERT NULL VALUES t VALUES ('a', 1); ASSERT VALUES t VALUES ('a', 2)",
         false, 3, 0, "");
    says("CREATE TABLE t (k TEXT, v BIGINT, PRIMARY KEY (k)); INSERT INTO t VALUES ('a', 1), ('a', 2);"
         "ASSERT VALUES t VALUES ('a', 1), ('a', 2);",
         false, 0, 1,
         "f.sql:1: t is not what was expected (-), but what came (+):\n      [\"a\",1]\n    - [\"a\",2]\n"
         "    + [\"a\",1] taken back\n    and 1 more came behind\n");
}

/* The clock stands until it is moved; then windows end that nothing has ended. */
static void test_time(void **state)
{
    (void)state;
    says("CREATE STREAM s (ts TIMESTAMP, WATERMARK FOR ts); CREATE STREAM w AS SELECT window_end, COUNT(*) AS n FROM "
         "TUMBLE(s, ts, INTERVAL '10' SECOND) GROUP BY window_start, window_end; INSERT INTO s VALUES ('2026-01-01 "
         "00:00:05'); ADVANCE TIME BY INTERVAL '4.9' SECOND; ASSERT NULL VALUES w; ADVANCE TIME BY INTERVAL '1' SECOND;"
         "ASSERT VALUES w VALUES ('2026-01-01 00:00:10', 1); INSERT INTO s VALUES (NULL); ASSERT VALUES s (_ts) VALUES "
         "('2026-01-01'), ('2026-01-01 00:00:05.9')",
         false, 3, 0, "");
}

/* What is wrong with a statement is said with its line, and ends the file. */
static void test_refused(void **state)
{
    (void)state;
    says("\n\nSELECT nothing FROM nowhere;\nASSERT NULL VALUES s", false, 0, 1,
         "f.sql:3: ERROR 42703: there is no stream or view nowhere\nLINE 1: SELECT nothing FROM nowhere;\n"
         "                            ^~~~~~~\n");
    says(S "ASSERT VALUES s (id, kk) VALUES (1, 'a')", false, 0, 1,
         "f.sql:2: ERROR 42703: there is no column kk\nLINE 1: SELECT \"id\", \"kk\" FROM \"s\" EMIT CHANGES\n"
         "                     ^~~~\n");
    says(S "ASSERT VALUES s VALUES\n (1,\n 'a', 2)", false, 0, 1,
         "f.sql:3: ERROR: 2 columns are compared with the values of 3\nLINE 2:  (1,\n         ^~~\n");
    says("ADVANCE TIME BY\nINTERVAL '-1' SECOND", false, 0, 1,
         "f.sql:2: ERROR: time goes forward, by days and what is shorter, at most 100 years at a time\n"
         "LINE 2: INTERVAL '-1' SECOND\n        ^~~~~~~~~~~~~~~~~~~~\n");
    says(S "SELECT id FROM s EMIT CHANGES; ADVANCE TIME BY INTERVAL '1' YEAR", false, 0, 1,
         " id\n----\nf.sql:2: ERROR: this SELECT does not end; without EMIT it is about what is there now\n");
}

static void test_json(void **state)
{
    (void)state;
    says(S "INSERT INTO s VALUES (1, 'a'); SELECT id FROM s;\nASSERT VALUES s VALUES (1, 'a');\nASSERT VALUES s VALUES "
           "(2, "
           "'b');\n\nSELECT\n1 FROM x",
         true, 1, 2,
         "{\"file\":\"f.sql\",\"line\":3,\"passed\":true,\"stream\":\"s\"}\n"
         "{\"file\":\"f.sql\",\"line\":4,\"passed\":false,\"stream\":\"s\",\"expected\":[[2,\"b\"]],\"came\":[]}\n"
         "{\"file\":\"f.sql\",\"line\":7,\"passed\":false,\"error\":{\"code\":\"42703\",\"message\":\"there is no "
         "stream "
         "or view x\",\"line\":2,\"column\":8,\"text\":\"ERROR: there is no stream or view x\\nLINE 2: 1 FROM x\\n"
         "               ^\\n\"}}\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),    cmocka_unit_test(test_changes), cmocka_unit_test(test_time),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
