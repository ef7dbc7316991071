/* Materialized views in the SQL server on a real core: the rows of a query by their key, read as a table. */
#include "sql/server/rig_test.h"

#define DONE(what, name) "{\"done\":\"" what "\",\"name\":\"" name "\"}\n"
#define VIEW(name) DONE("CREATE MATERIALIZED VIEW", name)

static struct world *world_of_views(void)
{
    struct world *w = world_new();
    say(w, "CREATE STREAM s (k TEXT, v BIGINT, ts TIMESTAMP, WATERMARK FOR ts) WITH (topic = 'in')");
    return w;
}

static void give(struct world *w, const char *k, unsigned v)
{
    char body[100];
    snprintf(body, sizeof body, "{\"k\":\"%s\",\"v\":%u,\"ts\":\"2026-01-01 00:00:%02u\"}", k, v, v);
    put(w->rig, "in", body);
    rest(w);
}

/* The rows that a SELECT gives, one a line, without their wrapping; `said` has all. */
static const char *rows_of(struct world *w, const char *text)
{
    static char rows[4096];
    size_t len = 0;
    say(w, text);
    if (!strstr(w->said, "{\"done\":\"SELECT\""))
        rig_fail("%s\nsaid:\n%s", text, w->said);
    rows[0] = '\0';
    for (const char *at = w->said; (at = strstr(at, "{\"row\":[")); at++) {
        const char *end = strstr(at, "]}");
        assert_non_null(end);
        len += (size_t)snprintf(rows + len, sizeof rows - len, "%.*s\n", (int)(end - at - 8), at + 8);
    }
    return rows;
}

static void test_groups(void **state)
{
    struct world *w = world_of_views();
    (void)state;
    SAYS("CREATE MATERIALIZED VIEW v AS SELECT k, COUNT(*) AS n, SUM(v) AS total FROM s GROUP BY k", VIEW("v"));
    give(w, "a", 1);
    give(w, "b", 2);
    give(w, "a", 3);
    assert_string_equal(rows_of(w, "SELECT * FROM v"), "\"b\",1,2\n\"a\",2,4\n");
    assert_string_equal(rows_of(w, "SELECT n FROM v WHERE k = 'a'"), "2\n");
    assert_string_equal(rows_of(w, "SELECT SUM(total) AS all_of, COUNT(*) AS n FROM v"), "6,2\n");
    assert_string_equal(
        rows_of(w, "SELECT s.v, v.n FROM s JOIN v ON s.k = v.k WHERE s.v = 3 WITH (state_ttl = 'none')"), "3,2\n");
    const struct queue *q = queue_find(vhost_find(w->rig->b, slice_str("/")), slice_str("v"));
    assert_true(q && stream_is_keyed(q->stream));
    struct world *old = w;
    w = world_cut(old, old->rig->log->count);
    give(w, "b", 5);
    assert_string_equal(rows_of(w, "SELECT k, total FROM v"), "\"a\",4\n\"b\",7\n");
    world_free(w);
    world_free(old);
}

/* Rows that go are gone from the view, and from what is made of it. */
static void test_rows_go(void **state)
{
    struct world *w = world_of_views();
    (void)state;
    SAYS("CREATE MATERIALIZED VIEW few AS SELECT k, COUNT(*) AS n FROM s GROUP BY k HAVING COUNT(*) < 3; "
         "CREATE MATERIALIZED VIEW sums AS SELECT n, COUNT(*) AS keys FROM few GROUP BY n",
         VIEW("few") VIEW("sums"));
    for (unsigned i = 1; i < 4; i++)
        give(w, "a", i);
    give(w, "b", 4);
    assert_string_equal(rows_of(w, "SELECT * FROM few"), "\"b\",1\n");
    assert_string_equal(rows_of(w, "SELECT n, keys FROM sums WHERE keys > 0"), "1,1\n");
    world_free(w);
}

static void test_followed(void **state)
{
    struct world *w = world_of_views();
    (void)state;
    say(w, "CREATE MATERIALIZED VIEW v AS SELECT k, COUNT(*) AS n FROM s GROUP BY k");
    give(w, "a", 1);
    say(w, "SELECT n FROM v LIMIT 3 EMIT CHANGES");
    char body[] = "{\"k\":\"a\",\"v\":2}";
    put(w->rig, "in", body);
    rest_and_hear(w);
    assert_non_null(strstr(w->said, "{\"row\":[1]}\n{\"row\":[1],\"change\":\"-\"}\n{\"row\":[2]}\n"));
    world_free(w);
}

/* What tells rows apart: windows, tables, one row, the statement; without any of it rows that stay are kept as they come. */
static void test_keys(void **state)
{
    static const struct {
        const char *query, *select, *rows;
    } rows[] = {
        {"v AS SELECT COUNT(*) AS n FROM s", "SELECT * FROM v", "4\n"},
        {"v AS SELECT DISTINCT k FROM s", "SELECT * FROM v", "\"a\"\n\"b\"\n"},
        {"v (key, number) AS SELECT k, COUNT(*) AS n FROM s GROUP BY k", "SELECT number FROM v WHERE key = 'a'", "3\n"},
        {"v AS SELECT v, k FROM s", "SELECT v FROM v WHERE k = 'a'", "1\n2\n4\n"},
        {"v WITH (key = 'k') AS SELECT k, v FROM s", "SELECT v FROM v WHERE k = 'a'", "4\n"},
        {"v AS SELECT window_end, COUNT(*) AS n FROM TUMBLE(s, ts, INTERVAL '2' SECOND) GROUP BY window_start, "
         "window_end",
         "SELECT n FROM v", "1\n2\n"},
        {"v WITH (key = 'k') AS SELECT k, v FROM (SELECT k, v, ROW_NUMBER() OVER (PARTITION BY k ORDER BY v DESC) AS "
         "rn "
         "FROM s) x WHERE rn <= 1",
         "SELECT v FROM v WHERE k = 'a'", "4\n"},
        {"v AS SELECT DISTINCT ON (k) v, k FROM s ORDER BY k, v DESC", "SELECT v FROM v", "3\n4\n"},
        {"v AS SELECT v, k FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY k ORDER BY v DESC) AS rn FROM s) x WHERE rn "
         "= 1",
         "SELECT v FROM v", "3\n4\n"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct world *w = world_of_views();
        char text[500];
        snprintf(text, sizeof text, "CREATE MATERIALIZED VIEW %s", rows[i].query);
        SAYS(text, VIEW("v"));
        give(w, "a", 1);
        give(w, "a", 2);
        give(w, "b", 3);
        give(w, "a", 4);
        rest(w);
        if (strcmp(rows_of(w, rows[i].select), rows[i].rows) != 0)
            rig_fail("%s\n%s\nsaid:\n%s", rows[i].query, rows[i].select, w->said);
        world_free(w);
    }
}

static void refuses(struct world *w, const char *text, const char *why)
{
    say(w, text);
    if (!strstr(w->said, why))
        rig_fail("%s\nsaid:\n%s", text, w->said);
    assert_true(w->ended);
}

static void test_statements(void **state)
{
    struct world *w = world_of_views();
    (void)state;
    refuses(w, "CREATE MATERIALIZED VIEW v AS SELECT COUNT(*) AS n FROM s GROUP BY k", "nothing tells them apart");
    refuses(w, "CREATE MATERIALIZED VIEW v WITH (key = 'x') AS SELECT k FROM s", "there is no column x");
    refuses(w, "CREATE MATERIALIZED VIEW v (a) AS SELECT k, v FROM s", "the view has 1 names for 2 columns");
    refuses(w, "CREATE MATERIALIZED VIEW v WITH (topic = 'x') AS SELECT k FROM s", "there is no option topic here");
    put(w->rig, "in", "{}");
    refuses(w, "CREATE MATERIALIZED VIEW \"in\" AS SELECT k FROM s", "0A000");
    SAYS("CREATE MATERIALIZED VIEW v AS SELECT DISTINCT k FROM s", VIEW("v"));
    give(w, "a", 1);
    refuses(w, "CREATE OR REPLACE MATERIALIZED VIEW v AS SELECT k FROM s", "cannot be replaced yet");
    refuses(w, "CREATE OR REPLACE VIEW v AS SELECT k FROM s", "cannot be replaced yet");
    refuses(w, "INSERT INTO v VALUES ('x')", "there is no stream v");
    refuses(w, "INSERT INTO v SELECT k FROM s", "there is no stream v");
    refuses(w, "DROP VIEW v", "v is no VIEW");
    say(w, "SHOW MATERIALIZED VIEWS");
    assert_non_null(strstr(w->said, "{\"row\":[\"v\",\"guest\"]}\n"));
    say(w, "SHOW VIEWS; SHOW TABLES; SHOW STREAMS");
    assert_null(strstr(w->said, "[\"v\""));
    SAYS("DROP MATERIALIZED VIEW v", DONE("DROP MATERIALIZED VIEW", "v"));
    rest(w);
    assert_int_equal(queue_id(w->rig, "v"), 999999); /* its rows are nobody's */
    SAYS("CREATE MATERIALIZED VIEW v AS SELECT k, COUNT(*) AS n FROM s GROUP BY k", VIEW("v"));
    rest(w);
    assert_string_equal(rows_of(w, "SELECT n FROM v WHERE k = 'a'"), "1\n");
    say(w, "CREATE STREAM other (k TEXT); INSERT INTO other VALUES ('x')");
    say(w, "DROP STREAM other");
    refuses(w, "CREATE MATERIALIZED VIEW other AS SELECT k FROM s", "there is a stream other already");
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_groups), cmocka_unit_test(test_rows_go),    cmocka_unit_test(test_followed),
        cmocka_unit_test(test_keys),   cmocka_unit_test(test_statements),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
