/* Tables in the SQL server on a real core: the last row of each key, rows that go, and queries that look into them. */
#include "sql/server/rig_test.h"

#define DONE(what, name) "{\"done\":\"" what "\",\"name\":\"" name "\"}\n"

static struct world *world_of_tables(void)
{
    struct world *w = world_new();
    say(w, "CREATE STREAM s (k TEXT, v BIGINT) WITH (topic = 'in'); CREATE TABLE t (k TEXT PRIMARY KEY, name TEXT NOT "
           "NULL)");
    assert_string_equal(w->said, DONE("CREATE STREAM", "s") DONE("CREATE TABLE", "t"));
    return w;
}

static void test_last_row_of_each_key(void **state)
{
    struct world *w = world_of_tables();
    (void)state;
    SAYS("INSERT INTO t VALUES ('a', 'one'), ('b', 'two')", "{\"done\":\"INSERT\",\"name\":\"t\",\"rows\":2}\n");
    say(w, "INSERT INTO t VALUES ('a', 'three')");
    SAYS("SELECT k, name FROM t",
         "{\"statement\":0,\"columns\":[{\"name\":\"k\",\"type\":\"TEXT\"},{\"name\":\"name\",\"type\":\"TEXT\"}]}\n"
         "{\"row\":[\"b\",\"two\"]}\n{\"row\":[\"a\",\"three\"]}\n{\"done\":\"SELECT\",\"rows\":2}\n");
    const struct queue *q = queue_find(vhost_find(w->rig->b, slice_str("/")), slice_str("t"));
    assert_non_null(q);
    assert_true(stream_is_keyed(q->stream)); /* old rows of a key may go */
    world_free(w);
}

/* Each row of the stream meets the table as it is then, also after a restart. */
static void test_looked_into(void **state)
{
    struct world *w = world_of_tables();
    (void)state;
    SAYS("CREATE STREAM named AS SELECT v, name FROM s LEFT JOIN t FOR SYSTEM_TIME AS OF s._ts ON s.k = t.k",
         DONE("CREATE STREAM", "named"));
    say(w, "INSERT INTO t VALUES ('a', 'one')");
    rest(w);
    put(w->rig, "in", "{\"k\":\"a\",\"v\":1}");
    rest(w);
    say(w, "INSERT INTO t VALUES ('a', 'two')");
    rest(w);
    struct world *old = w;
    w = world_cut(old, old->rig->log->count);
    put(w->rig, "in", "{\"k\":\"a\",\"v\":2}");
    put(w->rig, "in", "{\"k\":\"b\",\"v\":3}");
    rest(w);
    assert_string_equal(records_of(w, "named"),
                        "{\"v\":1,\"name\":\"one\"}\n{\"v\":2,\"name\":\"two\"}\n{\"v\":3,\"name\":null}\n");
    world_free(w);
    world_free(old);
}

/* What compaction takes a replay would miss: only a table may be remembered from such a stream, a filter needs no memory. */
static void test_compacted(void **state)
{
    struct world *w = world_of_tables();
    (void)state;
    say(w, "CREATE STREAM raw (k TEXT, name TEXT) WITH (topic = 't'); CREATE STREAM counts AS SELECT k, COUNT(*) AS n "
           "FROM "
           "raw GROUP BY k");
    rest(w);
    say(w, "SHOW QUERIES");
    assert_non_null(strstr(w->said, "the stream t is compacted"));
    SAYS("CREATE STREAM filtered AS SELECT k FROM raw WHERE name = 'one'", DONE("CREATE STREAM", "filtered"));
    say(w, "INSERT INTO t VALUES ('a', 'one')");
    rest(w);
    assert_string_equal(records_of(w, "filtered"), "{\"k\":\"a\"}\n");
    say(w, "SELECT k, COUNT(*) AS n FROM raw GROUP BY k"); /* of what is there now: nothing is replayed */
    assert_non_null(strstr(w->said, "{\"row\":[\"a\",1]}\n"));
    world_free(w);
}

/* A row that a query takes back is a record without a value, by which it goes from a table over that stream. */
static void test_rows_go(void **state)
{
    struct world *w = world_of_tables();
    (void)state;
    say(w, "CREATE TABLE few (k TEXT, n BIGINT NOT NULL, PRIMARY KEY (k)); INSERT INTO few SELECT k, COUNT(*) AS n "
           "FROM s GROUP BY k HAVING COUNT(*) < 3");
    const char *const keys[] = {"a", "b\\\"", "b\\\"", "a", "a"};
    for (size_t i = 0; i < 5; i++) {
        char body[40];
        snprintf(body, sizeof body, "{\"k\":\"%s\",\"v\":1}", keys[i]);
        put(w->rig, "in", body);
        rest(w);
    }
    say(w, "SELECT k, n FROM few");
    assert_non_null(strstr(w->said, "{\"row\":[\"b\\\"\",2]}\n{\"done\":\"SELECT\",\"rows\":1}\n"));
    say(w, "SELECT SUM(n) AS n FROM few");
    assert_non_null(strstr(w->said, "{\"row\":[2]}\n"));
    put(w->rig, "in", "{\"k\":\"b\\\"\",\"v\":1}");
    rest(w);
    say(w, "SELECT k, n FROM few");
    assert_non_null(strstr(w->said, "]}\n{\"done\":\"SELECT\",\"rows\":0}\n"));
    world_free(w);
}

/* The same with a key of several columns and of a number. */
static void test_rows_of_two_go(void **state)
{
    struct world *w = world_of_tables();
    (void)state;
    say(w,
        "CREATE TABLE few (v BIGINT, k TEXT, n BIGINT, PRIMARY KEY (k, v)); INSERT INTO few SELECT v, k, COUNT(*) AS "
        "n FROM s GROUP BY k, v HAVING COUNT(*) < 2; "
        "CREATE TABLE once (v BIGINT PRIMARY KEY, n BIGINT); INSERT INTO once SELECT v, COUNT(*) AS n FROM s GROUP "
        "BY v HAVING COUNT(*) < 2");
    for (unsigned i = 0; i < 5; i++) {
        char body[40];
        snprintf(body, sizeof body, "{\"k\":\"a\",\"v\":%u}", i % 3);
        put(w->rig, "in", body);
        rest(w);
    }
    say(w, "SELECT k, v, n FROM few");
    assert_non_null(strstr(w->said, "{\"row\":[\"a\",2,1]}\n{\"done\":\"SELECT\",\"rows\":1}\n"));
    say(w, "SELECT v, n FROM once");
    assert_non_null(strstr(w->said, "{\"row\":[2,1]}\n{\"done\":\"SELECT\",\"rows\":1}\n"));
    world_free(w);
}

/* What a statement says of its joins, at the end of an INSERT, else behind its name; what a view says is about its own. */
static void test_state_ttl(void **state)
{
    static const char *const rows[][2] = {
        {"CREATE STREAM j WITH (%s) AS SELECT s.v FROM s JOIN t USING (k)", DONE("CREATE STREAM", "j")},
        {"CREATE SINK j WITH (queue = 'q', %s) AS SELECT s.v FROM s JOIN t USING (k)", DONE("CREATE SINK", "j")},
        {"INSERT INTO o SELECT s.v FROM s JOIN t USING (k) WITH (%s)", DONE("INSERT", "insert_o")},
        {"CREATE VIEW j WITH (%s) AS SELECT s.v FROM s JOIN t USING (k)", DONE("CREATE VIEW", "j")},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct world *w = world_of_tables();
        char text[300];
        say(w, "CREATE STREAM o (v BIGINT)");
        snprintf(text, sizeof text, rows[i][0], "state_ttl = 'nothing'");
        say(w, text);
        assert_non_null(strstr(w->said, "\"error\""));
        snprintf(text, sizeof text, rows[i][0], "state_ttl = 'none'");
        SAYS(text, rows[i][1]);
        world_free(w);
    }
    struct world *w = world_of_tables();
    say(w, "CREATE STREAM j AS SELECT s.v FROM s JOIN t USING (k)");
    assert_non_null(strstr(w->said, "would keep all rows of s for ever"));
    say(w, "CREATE VIEW j WITH (state_ttl = INTERVAL '1' HOUR) AS SELECT s.v, s.k FROM s JOIN t USING (k)");
    say(w, "CREATE STREAM i AS SELECT j.v FROM j JOIN t USING (k)");
    assert_non_null(strstr(w->said, "for ever"));
    SAYS("CREATE STREAM i AS SELECT v FROM j", DONE("CREATE STREAM", "i"));
    say(w, "INSERT INTO t VALUES ('a', 'x') WITH (state_ttl = 'none')");
    assert_non_null(strstr(w->said, "INSERT of VALUES has no options"));
    say(w, "SELECT s.v FROM s JOIN t USING (k) WITH (state_ttl = 'none')");
    assert_non_null(strstr(w->said, "\"done\":\"SELECT\""));
    world_free(w);
}

static void test_words(void **state)
{
    struct world *w = world_of_tables();
    (void)state;
    SAYS("SHOW TABLES", "{\"statement\":0,\"columns\":[{\"name\":\"name\",\"type\":\"TEXT\"},{\"name\":\"topic\","
                        "\"type\":\"TEXT\"},{\"name\":\"format\",\"type\":\"TEXT\"},{\"name\":\"owner\",\"type\":"
                        "\"TEXT\"}]}\n{\"row\":[\"t\",\"t\",\"json\",\"guest\"]}\n{\"done\":\"SHOW "
                        "TABLES\",\"rows\":1}\n");
    say(w, "SHOW STREAMS");
    assert_null(strstr(w->said, "[\"t\""));
    say(w, "DROP STREAM t");
    assert_non_null(strstr(w->said, "t is no STREAM"));
    say(w, "DROP TABLE s");
    assert_non_null(strstr(w->said, "s is no TABLE"));
    say(w, "CREATE TABLE u (a BIGINT)");
    assert_non_null(strstr(w->said, "CREATE TABLE without a PRIMARY KEY cannot be run yet"));
    say(w, "CREATE TABLE u AS SELECT k FROM s");
    assert_non_null(strstr(w->said, "CREATE TABLE AS a query cannot be run yet"));
    SAYS("DROP TABLE t", DONE("DROP TABLE", "t"));
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_last_row_of_each_key),
        cmocka_unit_test(test_looked_into),
        cmocka_unit_test(test_compacted),
        cmocka_unit_test(test_rows_go),
        cmocka_unit_test(test_rows_of_two_go),
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_state_ttl),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
