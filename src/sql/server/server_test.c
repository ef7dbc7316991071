/* The SQL server on a real core: statements and what they are answered with, where rows go, what a query does when it cannot go on. */
#include "sql/server/rig_test.h"

#include "sql/server/run.h"

static void test_insert_select(void **state)
{
    struct world *w = world_new();
    (void)state;
    SAYS("CREATE STREAM orders (id BIGINT, amount BIGINT) WITH (topic = 'in'); CREATE STREAM big (id BIGINT, double "
         "BIGINT)",
         "{\"done\":\"CREATE STREAM\",\"name\":\"orders\"}\n{\"done\":\"CREATE STREAM\",\"name\":\"big\"}\n");
    SAYS("INSERT INTO big SELECT id, amount * 2 FROM orders WHERE amount > 10",
         "{\"done\":\"INSERT\",\"name\":\"insert_big\"}\n");
    put(w->rig, "in", "{\"id\":1,\"amount\":5}");
    put(w->rig, "in", "{\"id\":2,\"amount\":50}");
    put(w->rig, "in", "{\"id\":3,\"amount\":11}");
    rest(w);
    assert_string_equal(records_of(w, "big"), "{\"id\":2,\"double\":100}\n{\"id\":3,\"double\":22}\n");
    struct world *old = w;
    w = world_cut(old, old->rig->log->count);
    put(w->rig, "in", "{\"id\":4,\"amount\":100}");
    rest(w);
    assert_string_equal(records_of(w, "big"),
                        "{\"id\":2,\"double\":100}\n{\"id\":3,\"double\":22}\n{\"id\":4,\"double\":200}\n");
    SAYS("SELECT id FROM big", "{\"statement\":0,\"columns\":[{\"name\":\"id\",\"type\":\"BIGINT\"}]}\n{\"row\":[2]}\n{"
                               "\"row\":[3]}\n{\"row\":[4]}\n{\"done\":\"SELECT\",\"rows\":3}\n");
    world_free(w);
    world_free(old);
}

#define HEAD(name, type) "{\"statement\":0,\"columns\":[{\"name\":\"" name "\",\"type\":\"" type "\"}]}\n"
#define STREAM "CREATE STREAM s (id BIGINT, name TEXT) WITH (topic = 'in')"

static void says_error(struct world *w, const char *text, const char *code, const char *message)
{
    char expected[500];
    say(w, text);
    snprintf(expected, sizeof expected, "{\"error\":{\"code\":\"%s\",\"message\":\"%s\"", code, message);
    char *error = strstr(w->said, "{\"error\"");
    if (!error || strncmp(error, expected, strlen(expected)) != 0 || strchr(error, '\n') != error + strlen(error) - 1)
        rig_fail("%s\nsaid:\n%s\nexpected:\n%s", text, w->said, expected);
    assert_true(w->ended);
}

static void test_refused(void **state)
{
    struct world *w = world_new();
    (void)state;
    SAYS("", "");
    SAYS(STREAM, "{\"done\":\"CREATE STREAM\",\"name\":\"s\"}\n");
    says_error(w, "SELECT 1 FROM", "42601",
               "expected a stream, table or view, LATERAL, TABLE, UNNEST, \\\"(\\\" or VALUES, but the text ends here");
    says_error(w, STREAM, "42P07", "there is a s already");
    SAYS("CREATE STREAM IF NOT EXISTS s (id BIGINT)", "{\"done\":\"CREATE STREAM\",\"name\":\"s\"}\n");
    says_error(w, "CREATE STREAM t (id BIGINT) WITH (topik = 'in')", "42703", "there is no option topik here");
    says_error(w, "CREATE STREAM t (id BIGINT) WITH (late = 'update')", "22000",
               "late is drop, nothing else is there yet");
    says_error(w, "CREATE STREAM t (id BIGINT) WITH (partitions = 2, partitions = 2)", "42702",
               "partitions is said twice");
    says_error(w, "CREATE STREAM t (id BIGINT) WITH (topic = 'in', partitions = 7)", "42P16",
               "the stream in has 1 partitions");
    says_error(w, "CREATE STREAM t (id BIGINT, b TEXT) WITH (FORMAT = 'raw')", "0A000",
               "a stream of the format raw has one column, and any that are computed");
    says_error(w, "CREATE STREAM t (id BIGINT) WITH (topic = 'in', format = csv)", "0A000",
               "format is a text in quotes");
    says_error(w, "CREATE VIEW v AS SELECT nobody FROM s", "42703", "there is no column nobody");
    says_error(w, "CREATE STREAM t AS SELECT id FROM s; INSERT INTO t SELECT name FROM s", "42804",
               "column id is bigint, and its value would be text");
    says_error(w, "INSERT INTO t (id, what) SELECT id, id FROM s", "42703",
               "t has no column what that could be written");
    says_error(w, "INSERT INTO s SELECT * FROM s", "0A000", "a query that reads the stream it writes to");
    says_error(w, "CREATE STREAM x WITH (topic = 'in') AS SELECT id FROM s", "0A000",
               "a query that reads the stream it writes to");
    SAYS("CREATE STREAM one (id BIGINT); CREATE VIEW ones AS SELECT id FROM one; CREATE STREAM two AS SELECT id FROM "
         "ones; CREATE STREAM three AS SELECT id FROM two",
         "{\"done\":\"CREATE STREAM\",\"name\":\"one\"}\n{\"done\":\"CREATE "
         "VIEW\",\"name\":\"ones\"}\n{\"done\":\"CREATE "
         "STREAM\",\"name\":\"two\"}\n{\"done\":\"CREATE STREAM\",\"name\":\"three\"}\n");
    says_error(w, "INSERT INTO one SELECT id FROM three", "0A000", "a query that reads the stream it writes to");
    says_error(w, "CREATE SINK x WITH (topic = 'one') AS SELECT id FROM two", "0A000",
               "a query that reads the stream it writes to");
    SAYS("INSERT INTO one SELECT id FROM s; DROP QUERY insert_one; DROP QUERY three; DROP QUERY two",
         "{\"done\":\"INSERT\",\"name\":\"insert_one\"}\n{\"done\":\"DROP "
         "QUERY\",\"name\":\"insert_one\"}\n{\"done\":\"DROP "
         "QUERY\",\"name\":\"three\"}\n{\"done\":\"DROP QUERY\",\"name\":\"two\"}\n");
    says_error(w, "INSERT INTO nothing SELECT id FROM s", "42703", "there is no stream nothing");
    says_error(w, "DROP STREAM s", "2BP01", "s is needed by t");
    says_error(w, "DROP VIEW s", "42809", "s is no VIEW");
    says_error(w, "DROP VIEW tt", "42P01", "there is no statement tt");
    says_error(w, "ASSERT VALUES s VALUES (1)", "0A000", "ASSERT cannot be run yet");
    says_error(w, "PAUSE s", "42809", "s is no query");
    static const char *const internal[] = {
        "CREATE STREAM x (id BIGINT) WITH (topic = 'amq.sql.t')",
        "CREATE STREAM \"amq.sql.t\" (id BIGINT)",
        "CREATE STREAM \"amq.sql.t\" WITH (topic = 'other') AS SELECT id FROM s",
        "CREATE SINK x WITH (topic = 'amq.sql.t') AS SELECT id FROM s",
        "CREATE SINK \"amq.sql.t\" AS SELECT id FROM s",
    };
    for (size_t i = 0; i < ARRAY_LEN(internal); i++)
        says_error(w, internal[i], "22000", "names that begin with amq.sql. are the broker's own");
    assert_int_equal(queue_id(w->rig, "amq.sql.t"), 999999);
    SAYS("DROP VIEW IF EXISTS x; DROP QUERY t; DROP STREAM s",
         "{\"done\":\"DROP VIEW\",\"name\":\"x\"}\n{\"done\":\"DROP QUERY\",\"name\":\"t\"}\n{\"done\":\"DROP "
         "STREAM\",\"name\":\"s\"}\n");
    world_free(w);
}

static unsigned waiting(struct world *w, const char *queue)
{
    rest(w);
    return (unsigned)rig_ready(w->rig, queue);
}

static void test_sinks(void **state)
{
    struct world *w = world_new();
    (void)state;
    SAYS(STREAM "; CREATE SINK q WITH (queue = 'alarms') AS SELECT id FROM s WHERE id > 1; "
                "CREATE SINK x WITH (exchange = 'amq.fanout') FROM s",
         "{\"done\":\"CREATE STREAM\",\"name\":\"s\"}\n{\"done\":\"CREATE SINK\",\"name\":\"q\"}\n{\"done\":\"CREATE "
         "SINK\",\"name\":\"x\"}\n");
    says_error(w, "CREATE SINK y WITH (exchange = 'nobody') FROM s", "42501", "no exchange 'nobody' in vhost '/'");
    declare(w->rig, "all", (struct slice){0});
    assert_true(rig_ask(w->rig, CMD_QUEUE_BIND, 1, 1, "all", "amq.fanout", NULL, (struct slice){0}, 0));
    for (unsigned i = 0; i < 4; i++) {
        char body[40];
        snprintf(body, sizeof body, "{\"id\":%u}", i);
        put(w->rig, "in", body);
    }
    assert_int_equal(waiting(w, "alarms"), 2);
    assert_int_equal(waiting(w, "all"), 4);
    world_free(w);
}

/* What is published to an exchange is there to be replayed. */
static void test_from_exchange(void **state)
{
    struct world *w = world_new();
    (void)state;
    SAYS("CREATE STREAM sensors (t DOUBLE) FROM EXCHANGE 'amq.topic' KEY 'home.#', 'lab.*'",
         "{\"done\":\"CREATE STREAM\",\"name\":\"sensors\"}\n");
    assert_true(rig_publish(w->rig, 1, 1, "amq.topic", "home.kitchen", "{\"t\":21.5}", true));
    assert_true(rig_publish(w->rig, 1, 1, "amq.topic", "lab.1", "{\"t\":4}", true));
    assert_true(rig_publish(w->rig, 1, 1, "amq.topic", "street", "{\"t\":0}", true));
    rest(w);
    SAYS("SELECT t FROM sensors",
         HEAD("t", "DOUBLE PRECISION") "{\"row\":[21.5]}\n{\"row\":[4]}\n{\"done\":\"SELECT\",\"rows\":2}\n");
    says_error(w, "CREATE STREAM y (t DOUBLE) FROM EXCHANGE 'nobody'", "42501", "no exchange 'nobody' in vhost '/'");
    world_free(w);
}

static void test_select(void **state)
{
    struct world *w = world_new();
    (void)state;
    say(w, "CREATE STREAM s (k TEXT, v BIGINT, j JSON) WITH (topic = 'in')");
    put(w->rig, "in", "{\"k\":\"a\",\"v\":1,\"j\":{\"x\":\n1}}");
    put(w->rig, "in", "{\"k\":\"a\",\"v\":2}");
    put(w->rig, "in", "{\"k\":\"b\\n\\\"\",\"v\":3}");
    rest(w);
    SAYS("SELECT j FROM s WHERE v = 1", HEAD("j", "JSON") "{\"row\":[{\"x\": 1}]}\n{\"done\":\"SELECT\",\"rows\":1}\n");
    SAYS("SELECT k FROM s LIMIT 0", HEAD("k", "TEXT") "{\"done\":\"SELECT\",\"rows\":0}\n");
    SAYS("SELECT k FROM s WHERE v > 1 LIMIT 2; SHOW VIEWS",
         HEAD("k", "TEXT") "{\"row\":[\"a\"]}\n{\"row\":[\"b\\n\\\"\"]}\n{\"done\":\"SELECT\",\"rows\":2}\n"
                           "{\"statement\":1,\"columns\":[{\"name\":\"name\",\"type\":\"TEXT\"},{\"name\":\"owner\","
                           "\"type\":\"TEXT\"}]}\n{\"done\":\"SHOW VIEWS\",\"rows\":0}\n");
    SAYS("SELECT SUM(v) AS n FROM s GROUP BY k",
         HEAD("n", "NUMERIC(38,0)") "{\"row\":[3]}\n{\"row\":[3]}\n{\"done\":\"SELECT\",\"rows\":2}\n");
    SAYS("SELECT SUM(v) AS n FROM s GROUP BY k LIMIT 4 EMIT CHANGES",
         HEAD("n", "NUMERIC(38,0)") "{\"row\":[1]}\n{\"row\":[1],\"change\":\"-\"}\n{\"row\":[3]}\n{\"row\":[3]}\n{"
                                    "\"done\":\"SELECT\",\"rows\":4}\n");
    say(w, "SELECT v FROM s WHERE v > 2 EMIT CHANGES"); /* until it is stopped */
    assert_string_equal(w->said, HEAD("v", "BIGINT") "{\"row\":[3]}\n");
    assert_false(w->ended);
    put(w->rig, "in", "{\"v\":4}");
    rest_and_hear(w);
    assert_string_equal(w->said, HEAD("v", "BIGINT") "{\"row\":[3]}\n{\"row\":[4]}\n");
    rig_plain(w->rig, CMD_SQL_STOP, 1, 0, 0, 0);
    rest_and_hear(w);
    assert_true(w->ended);
    world_free(w);
}

static void test_insert_values(void **state)
{
    struct world *w = world_new();
    (void)state;
    say(w,
        "CREATE STREAM v (id BIGINT, name TEXT, at TIMESTAMP, twice AS (id + id)) WITH (partitions = 3, key = 'id')");
    SAYS("INSERT INTO v VALUES (1, 'a', TIMESTAMP '2026-01-01 00:00:00'), (1 + 1, NULL, '2026-01-02 00:00:00')",
         "{\"done\":\"INSERT\",\"name\":\"v\",\"rows\":2}\n");
    SAYS("INSERT INTO v (name, id) VALUES ('c', 3)", "{\"done\":\"INSERT\",\"name\":\"v\",\"rows\":1}\n");
    SAYS("SELECT SUM(twice) AS t, COUNT(name) AS n FROM v",
         "{\"statement\":0,\"columns\":[{\"name\":\"t\",\"type\":\"NUMERIC(38,0)\"},{\"name\":\"n\",\"type\":"
         "\"BIGINT\"}]}\n"
         "{\"row\":[12,2]}\n{\"done\":\"SELECT\",\"rows\":1}\n");
    assert_non_null(strstr(records_of(w, "v"), "{\"name\":\"c\",\"id\":3}\n"));
    SAYS("SELECT _ts FROM v LIMIT 1",
         HEAD("_ts", "TIMESTAMP") "{\"row\":[\"2023-11-14 22:13:20\"]}\n{\"done\":\"SELECT\",\"rows\":1}\n");
    says_error(w, "INSERT INTO v VALUES (1)", "22000", "3 columns get the values of 1");
    says_error(w, "INSERT INTO v (id) VALUES (1 / 0)", "22012", "division by zero");
    says_error(w, "INSERT INTO v (id) VALUES (name)", "42703", "there is no column name");
    says_error(w, "INSERT INTO v (twice) VALUES (1)", "42703", "v has no column twice that could be written");
    says_error(w, "INSERT INTO nobody VALUES (1)", "42P01", "there is no stream nobody");
    world_free(w);
}

/* What a statement says of its query may stand at its end, too. */
static void test_options_at_the_end(void **state)
{
#define UNBOUNDED "SELECT a.id, b.name FROM s a JOIN s b ON a.id = b.id"
    struct world *w = world_new();
    (void)state;
    say(w, STREAM);
    put(w->rig, "in", "{\"id\":1,\"name\":\"x\"}");
    rest(w);
    SAYS("CREATE STREAM u AS " UNBOUNDED
         " WITH (state_ttl = INTERVAL '1' HOUR, on_error = 'skip'); CREATE SINK q WITH (queue "
         "= 'q') AS " UNBOUNDED " WITH (state_ttl = 'none')",
         "{\"done\":\"CREATE STREAM\",\"name\":\"u\"}\n{\"done\":\"CREATE SINK\",\"name\":\"q\"}\n");
    rest(w);
    assert_string_equal(records_of(w, "u"), "{\"id\":1,\"name\":\"x\"}\n");
    assert_int_equal(waiting(w, "q"), 1);
    says_error(w, "CREATE STREAM v WITH (state_ttl = 'none') AS " UNBOUNDED " WITH (state_ttl = 'none')", "42702",
               "state_ttl is said twice");
    world_free(w);
}

/* Where a query begins is said of it, not of those who read what it gives. */
static void test_start(void **state)
{
    struct world *w = world_new();
    (void)state;
    say(w, STREAM);
    put(w->rig, "in", "{\"id\":1}");
    rest(w);
    say(w, "CREATE STREAM t WITH (start = 'latest') AS SELECT id FROM s; CREATE STREAM u AS SELECT id FROM t");
    put(w->rig, "in", "{\"id\":2}");
    rest(w);
    assert_string_equal(records_of(w, "t"), "{\"id\":2}\n");
    assert_string_equal(records_of(w, "u"), "{\"id\":2}\n");
    SAYS("SELECT id FROM t", HEAD("id", "BIGINT") "{\"row\":[2]}\n{\"done\":\"SELECT\",\"rows\":1}\n");
    world_free(w);
}

/* What is inserted is of the format that the stream has. */
static void test_insert_formats(void **state)
{
    struct world *w = world_new();
    (void)state;
    say(w,
        "CREATE STREAM lines (line TEXT) WITH (topic = 'in', format = 'raw'); CREATE STREAM c (id BIGINT, name TEXT) "
        "WITH (topic = 'in', format = 'csv')");
    SAYS("INSERT INTO lines VALUES ('1,\"a b\"')", "{\"done\":\"INSERT\",\"name\":\"lines\",\"rows\":1}\n");
    SAYS("SELECT name FROM c", HEAD("name", "TEXT") "{\"row\":[\"a b\"]}\n{\"done\":\"SELECT\",\"rows\":1}\n");
    says_error(w, "INSERT INTO lines VALUES ('x'), (NULL)", "23502", "NULL where there may be none");
    says_error(w, "INSERT INTO c VALUES (1, 'a')", "0A000",
               "INSERT writes streams of the formats json and raw, and c has another one");
    say(w, "CREATE STREAM s (id BIGINT); INSERT INTO lines SELECT 'n' || id FROM s");
    says_error(w, "INSERT INTO c SELECT id, 'x' FROM s", "0A000",
               "INSERT writes streams of the formats json and raw, and c has another one");
    say(w, "INSERT INTO s VALUES (7)");
    assert_string_equal(records_of(w, "in"), "1,\"a b\"\nn7\n");
    world_free(w);
}

static void test_pause(void **state)
{
    struct world *w = world_new();
    (void)state;
    say(w, STREAM "; CREATE STREAM t AS SELECT COUNT(*) AS n FROM s EMIT CHANGES");
    put(w->rig, "in", "{\"id\":1}");
    rest(w);
    SAYS("PAUSE t", "{\"done\":\"PAUSE\",\"name\":\"t\"}\n");
    put(w->rig, "in", "{\"id\":2}");
    rest(w);
    unsigned before = lines_of(records_of(w, "t"));
    struct world *other = world_cut(w, w->rig->log->count); /* it stays so */
    rest(other);
    assert_int_equal(lines_of(records_of(other, "t")), before);
    say(other, "RESUME t");
    assert_string_equal(other->said, "{\"done\":\"RESUME\",\"name\":\"t\"}\n");
    rest(other);
    assert_true(lines_of(records_of(other, "t")) > before);
    assert_non_null(strstr(records_of(other, "t"), "\"n\":2"));
    world_free(other);
    world_free(w);
}

static const char *state_of(struct world *w)
{
    say(w, "SHOW QUERIES");
    char *row = strstr(w->said, "{\"row\"");
    assert_non_null(row);
    *strchr(row, '\n') = '\0';
    return row;
}

/* Until it is answered. */
static const char *say_long(struct world *w, const char *text)
{
    say(w, text);
    for (unsigned i = 0; i < 200 && !w->ended; i++) {
        rig_pass(w->rig, 5);
        hear(w);
    }
    assert_true(w->ended);
    return w->said;
}

/* A new version has read what the old one had; what that remembered is not there any more, nor when it is dropped. */
static void test_replace(void **state)
{
    struct world *w = world_with(1);
    (void)state;
    say(w, STREAM "; CREATE STREAM t AS SELECT COUNT(*) AS n FROM s EMIT CHANGES");
    for (unsigned i = 0; i < 3; i++) {
        put(w->rig, "in", "{\"id\":1}");
        rest(w);
    }
    uint64_t first = queue_id(w->rig, "amq.sql.t");
    assert_true(first != 999999);
    size_t before = w->rig->log->count;
    char *rows = strdup(records_of(w, "t"));
    assert_string_equal(say_long(w, "CREATE OR REPLACE STREAM t AS SELECT COUNT(*) * 100 AS n FROM s EMIT CHANGES"),
                        "{\"done\":\"CREATE STREAM\",\"name\":\"t\"}\n");
    assert_string_equal(records_of(w, "t"), rows);
    for (size_t at = before; at <= w->rig->log->count;
         at++) { /* whenever it ends, there is the old one or the new one */
        struct world *other = world_cut(w, at);
        rest(other);
        state_of(other);
        world_free(other);
    }
    put(w->rig, "in", "{\"id\":1}");
    rest(w);
    assert_string_equal(records_of(w, "t") + strlen(rows), "{\"_op\":\"-\",\"n\":300}\n{\"_op\":\"+\",\"n\":400}\n");
    assert_int_equal(queue_id(w->rig, "amq.sql.t"), 999999);
    assert_true(queue_id(w->rig, "amq.sql.amq.sql.t") != 999999);
    say_long(w, "CREATE OR REPLACE STREAM t AS SELECT COUNT(*) * 10 AS n FROM s EMIT CHANGES");
    put(w->rig, "in", "{\"id\":1}");
    rest(w);
    assert_non_null(
        strstr(records_of(w, "t"), "{\"_op\":\"+\",\"n\":400}\n{\"_op\":\"-\",\"n\":40}\n{\"_op\":\"+\",\"n\":50}\n"));
    assert_int_equal(queue_id(w->rig, "amq.sql.amq.sql.t"), 999999);
    assert_true(queue_id(w->rig, "amq.sql.t") != first && queue_id(w->rig, "amq.sql.t") != 999999);
    say(w, "DROP STREAM t");
    free(rows);
    assert_int_equal(queue_id(w->rig, "amq.sql.t"), 999999);
    assert_true(queue_id(w->rig, "t") != 999999); /* its records stay */
    world_free(w);
}

static void declare_short(struct world *w, const char *queue)
{
    struct table t;
    amqp_put_long(&table(&t)->w, "x-max-length", 2);
    amqp_put_str(&t.w, "x-overflow", slice_str("reject-publish"));
    declare(w->rig, queue, writer_slice(&t.w));
}

/* What a full queue refuses comes when there is room, in order; meanwhile the query waits and nobody else. */
static void test_full_queue(void **state)
{
    struct world *w = world_new();
    (void)state;
    declare_short(w, "short");
    say(w, STREAM "; CREATE SINK q WITH (queue = 'short') AS SELECT id FROM s; CREATE STREAM t AS SELECT id FROM s");
    for (unsigned i = 0; i < 5; i++) {
        char body[40];
        snprintf(body, sizeof body, "{\"id\":%u}", i);
        put(w->rig, "in", body);
        rest(w);
    }
    assert_int_equal(lines_of(records_of(w, "t")), 5);
    assert_int_equal(rig_ready(w->rig, "short"), 2);
    char got[200] = "";
    size_t len = 0;
    for (unsigned i = 0; i < 8; i++) {
        rig_clear(w->rig);
        assert_true(rig_ask(w->rig, CMD_GET, 1, 1, "short", NULL, NULL, (struct slice){0}, ASK_NO_ACK));
        len += (size_t)snprintf(got + len, sizeof got - len, "%s", rig_delivered(w->rig));
        rig_pass(w->rig, 100);
    }
    assert_string_equal(got, "{\"id\":0}{\"id\":1}{\"id\":2}{\"id\":3}{\"id\":4}");
    world_free(w);
}

/* A limit below what one step would hold: as much as has room comes, in order, once, also over a kill at any point. */
static void test_full_queue_and_a_large_step(void **state)
{
    struct world *w = world_new();
    (void)state;
    declare_short(w, "short");
    say(w, STREAM "; CREATE SINK q WITH (queue = 'short') AS SELECT id FROM s WHERE id <> 2; PAUSE q");
    for (unsigned i = 0; i < 7; i++) {
        char body[40];
        snprintf(body, sizeof body, "{\"id\":%u}", i);
        put(w->rig, "in", body);
    }
    size_t before = w->rig->log->count;
    say(w, "RESUME q");
    char whole[200] = "";
    for (unsigned i = 0, len = 0; i < 8; i++) {
        rig_pass(w->rig, 100);
        assert_true(rig_ready(w->rig, "short") <= 2);
        rig_clear(w->rig);
        assert_true(rig_ask(w->rig, CMD_GET, 1, 1, "short", NULL, NULL, (struct slice){0}, ASK_NO_ACK));
        len += (unsigned)snprintf(whole + len, sizeof whole - len, "%s", rig_delivered(w->rig));
    }
    assert_string_equal(whole, "{\"id\":0}{\"id\":1}{\"id\":3}{\"id\":4}{\"id\":5}{\"id\":6}");
    for (size_t cut = before; cut <= w->rig->log->count; cut++) {
        struct world *other = world_cut(w, cut);
        char got[200] = "";
        say(other, "RESUME q");
        for (unsigned i = 0, len = 0; i < 8; i++) {
            rig_pass(other->rig, 100);
            rig_clear(other->rig);
            assert_true(rig_ask(other->rig, CMD_GET, 1, 1, "short", NULL, NULL, (struct slice){0}, ASK_NO_ACK));
            const char *text = rig_delivered(other->rig);
            size_t body = strcspn(text, "*"); /* behind it: a star, when it was delivered before */
            len += (unsigned)snprintf(got + len, sizeof got - len, "%.*s", (int)body, text);
        }
        size_t gone = strlen(whole) - strlen(got); /* what was taken before the cut does not come again */
        if (strlen(got) > strlen(whole) || strcmp(whole + gone, got) != 0)
            rig_fail("cut at %zu: got %s", cut, got);
        world_free(other);
    }
    world_free(w);
}

/* What cannot be used, by the options of the stream and of the query. */
static void test_on_error(void **state)
{
    struct world *w = world_new();
    (void)state;
    say(w, "CREATE STREAM s (id BIGINT) WITH (topic = 'in', on_error = fail); CREATE STREAM a WITH (on_error = skip) "
           "AS SELECT id FROM s; "
           "CREATE STREAM b AS SELECT id FROM s");
    put(w->rig, "in", "{\"id\":1}");
    put(w->rig, "in", "no json");
    put(w->rig, "in", "{\"id\":2}");
    rest(w);
    assert_string_equal(records_of(w, "a"), "{\"id\":1}\n{\"id\":2}\n");
    say(w, "SHOW QUERIES LIKE 'B'");
    if (!strstr(w->said, "[\"b\",\"FAILED\"") || !strstr(w->said, "in/0, offset 1: a text that is no JSON"))
        rig_fail("%s", w->said);
    assert_int_equal(queue_id(w->rig, "a.dlq"), 999999);
    world_free(w);
}

/* A query whose stream has gone, or whose records have, ends with the reason; the others go on. */
static void test_gone(void **state)
{
    struct world *w = world_new();
    (void)state;
    say(w, STREAM "; CREATE STREAM t AS SELECT id FROM s");
    for (unsigned i = 0; i < 5; i++)
        put(w->rig, "in", "{\"id\":1}");
    rest(w);
    assert_true(rig_ask(w->rig, CMD_STREAM_DELETE, 1, 0, "in", NULL, NULL, (struct slice){0}, 0));
    rest(w);
    assert_non_null(strstr(state_of(w), "[\"t\",\"FAILED\""));
    assert_non_null(strstr(w->said, "in/0: there is no such stream any more"));
    world_free(w);
}

/* One that is made again under its name is another stream: nothing of it is taken for what comes behind that which was read. */
static void test_another_stream_of_the_name(void **state)
{
    static const char *const queries[] = {"SELECT id FROM s", "SELECT COUNT(*) AS n FROM s EMIT CHANGES"};
    (void)state;
    for (size_t q = 0; q < 2 * ARRAY_LEN(queries); q++) {
        struct world *w = world_with(q / 2);
        char text[200];
        snprintf(text, sizeof text, STREAM "; CREATE STREAM t AS %s", queries[q % 2]);
        say(w, text);
        for (unsigned i = 0; i < 3; i++) {
            put(w->rig, "in", "{\"id\":1}");
            rest(w);
        }
        SAYS("PAUSE t", "{\"done\":\"PAUSE\",\"name\":\"t\"}\n");
        assert_true(rig_ask(w->rig, CMD_STREAM_DELETE, 1, 0, "in", NULL, NULL, (struct slice){0}, 0));
        rest(w);
        declare_stream(w->rig, "in", 1);
        for (unsigned i = 0; i < 5; i++)
            put(w->rig, "in", "{\"id\":2}");
        say(w, "RESUME t");
        rest(w);
        assert_non_null(strstr(state_of(w), "[\"t\",\"FAILED\""));
        assert_non_null(strstr(w->said, "the stream in is another one than that of which it has read"));
        assert_null(strstr(records_of(w, "t"), "2}\n{\"id\":2"));
        world_free(w);
    }
}

static void put_some(struct world *w, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        put(w->rig, "in", "{\"id\":1}");
    rest(w);
}

static void trim(struct world *w, const char *stream, uint64_t before)
{
    assert_true(rig_ask_full(w->rig, CMD_STREAM_TRIM, 1, 0, stream, NULL, NULL, (struct slice){0}, 0, before));
    rest(w);
}

/* Of little that was read there is a snapshot, too, before it goes by retention or soon after it came, so that a start needs what is there only. */
static void test_snapshot_of_little(void **state)
{
    (void)state;
    for (unsigned trims = 0; trims < 2; trims++) {
        struct world *w = world_new();
        say(w, STREAM "; CREATE STREAM t AS SELECT COUNT(*) AS n FROM s EMIT CHANGES");
        put_some(w, 4);
        assert_int_equal(queue_id(w->rig, "amq.sql.t"), 999999);
        if (trims)
            trim(w, "in", 2);
        else
            rig_pass(w->rig, 301000);
        assert_int_equal(queue_id(w->rig, "amq.sql.t") != 999999, !trims);
        put_some(w, 1);
        rig_pass(w->rig, 300);
        assert_true(queue_id(w->rig, "amq.sql.t") != 999999);
        trim(w, "in", 5);
        rig_pass(w->rig, 301000);
        size_t before = w->rig->log->count;
        rig_pass(w->rig, 602000);
        assert_int_equal(w->rig->log->count, before); /* nothing is new, nothing is written */
        struct world *other = world_cut(w, w->rig->log->count);
        put_some(other, 1);
        if (!strstr(records_of(other, "t"), "\"n\":6"))
            rig_fail("%s%s", state_of(other), records_of(other, "t"));
        world_free(other);
        world_free(w);
    }
}

/* One that cannot be made is not tried at each turn. */
static void test_snapshot_that_cannot_be_made(void **state)
{
    struct world *w = world_with(1);
    char text[600];
    (void)state;
    snprintf(text, sizeof text, STREAM "; CREATE STREAM %0250u AS SELECT COUNT(*) AS n FROM s EMIT CHANGES", 0u);
    text[strlen(STREAM) + 16] = 'x';
    say(w, text);
    assert_non_null(strstr(w->said, "00\"}"));
    const struct server_run *run = CONTAINER_OF(w->server->runs.next, struct server_run, link);
    put_some(w, 3);
    assert_int_equal(run->snapshot.wait, NS_PER_S);
    put_some(w, 3);
    assert_int_equal(run->snapshot.wait, NS_PER_S);
    for (unsigned i = 0; i < 10; i++) {
        rig_pass(w->rig, 65000);
        put_some(w, 1);
    }
    assert_int_equal(run->snapshot.wait, 64 * NS_PER_S);
    assert_int_equal(run->object->state, SQL_RUNNING);
    world_free(w);
}

/* Who has asked for a PAUSE may go before what is under way has ended: the query ends all the same, and says so. */
static void test_pause_without_client(void **state)
{
    struct world *w = world_new();
    (void)state;
    declare_short(w, "short");
    say(w, STREAM "; CREATE SINK q WITH (queue = 'short') AS SELECT id FROM s");
    for (unsigned i = 0; i < 3; i++) {
        char body[40];
        snprintf(body, sizeof body, "{\"id\":%u}", i);
        put(w->rig, "in", body);
        rest(w);
    }
    assert_int_equal(rig_ready(w->rig, "short"), 2);
    say(w, "PAUSE q");
    assert_false(w->ended);
    rig_plain(w->rig, CMD_SQL_STOP, 1, 0, 0, 0);
    say(w, "SHOW QUERIES");
    assert_non_null(strstr(w->said, "[\"q\",\"RUNNING\""));
    for (unsigned i = 0; i < 3; i++) {
        assert_true(rig_ask(w->rig, CMD_GET, 1, 1, "short", NULL, NULL, (struct slice){0}, ASK_NO_ACK));
        rig_pass(w->rig, 100);
    }
    say(w, "SHOW QUERIES");
    assert_non_null(strstr(w->said, "[\"q\",\"PAUSED\""));
    struct world *other = world_cut(w, w->rig->log->count);
    rest(other);
    say(other, "SHOW QUERIES");
    assert_non_null(strstr(other->said, "[\"q\",\"PAUSED\""));
    SAYS("RESUME q", "{\"done\":\"RESUME\",\"name\":\"q\"}\n");
    put(w->rig, "in", "{\"id\":3}");
    rest(w);
    assert_int_equal(rig_ready(w->rig, "short"), 1);
    world_free(other);
    world_free(w);
}

/* Rows of each operator, its state, and its time while somebody asks for it. */
static void test_analyze(void **state)
{
    struct world *w = world_new();
    (void)state;
    say(w, STREAM "; CREATE STREAM t AS SELECT name, COUNT(*) AS n FROM s WHERE id > 1 GROUP BY name");
    put(w->rig, "in", "{\"id\":1,\"name\":\"a\"}");
    rest(w);
    assert_int_equal(w->clock, 0); /* nobody asks */
    say(w, "EXPLAIN ANALYZE QUERY t");
    assert_false(w->ended);
    put(w->rig, "in", "{\"id\":2,\"name\":\"a\"}");
    rest(w);
    assert_true(w->clock > 0);
    rig_pass(w->rig, 1100);
    rest_and_hear(w);
    if (!strstr(w->said, "{\"row\":[\"scan\",\"s\",2,2,2000,0]}\n{\"row\":[\"project\",null,2,1,2000,0]}\n") ||
        !strstr(w->said, "{\"done\":\"EXPLAIN\",\"rows\":5}"))
        rig_fail("%s", w->said);
    assert_true(w->ended);
    mono_t before = w->clock;
    put(w->rig, "in", "{\"id\":3,\"name\":\"a\"}");
    rest(w);
    assert_int_equal(w->clock, before);
    says_error(w, "EXPLAIN ANALYZE QUERY s", "42809", "s is no query");
    says_error(w, "EXPLAIN ANALYZE QUERY u", "42P01", "there is no stream, view, sink or query u");
    says_error(w, "EXPLAIN ANALYZE SELECT id FROM s", "0A000",
               "EXPLAIN ANALYZE of a statement cannot be run yet: EXPLAIN ANALYZE QUERY name is about one that runs");
    world_free(w);
}

/* What a query writes is the same, whatever its hash tables are made of. */
static void test_seed(void **state)
{
    char *first = NULL;
    (void)state;
    for (uint64_t seed = 1; seed < 4; seed++) {
        struct world *w = world_of(0, seed);
        say(w, "CREATE STREAM s (id BIGINT, k TEXT) WITH (topic = 'in'); CREATE STREAM t AS SELECT k, COUNT(DISTINCT "
               "id) AS n FROM s GROUP BY k");
        const struct server_run *run = CONTAINER_OF(w->server->runs.next, struct server_run, link);
        assert_int_equal(query_plan(run->query)->budget.seed, seed);
        for (unsigned i = 0; i < 40; i++) {
            char body[40];
            snprintf(body, sizeof body, "{\"id\":%u,\"k\":\"k%u\"}", i % 7, i % 11);
            put(w->rig, "in", body);
        }
        rest(w);
        if (first)
            assert_string_equal(records_of(w, "t"), first);
        else
            assert_non_null(first = strdup(records_of(w, "t")));
        assert_true(lines_of(first) > 40);
        world_free(w);
    }
    free(first);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_insert_select),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_sinks),
        cmocka_unit_test(test_from_exchange),
        cmocka_unit_test(test_select),
        cmocka_unit_test(test_pause),
        cmocka_unit_test(test_pause_without_client),
        cmocka_unit_test(test_on_error),
        cmocka_unit_test(test_gone),
        cmocka_unit_test(test_another_stream_of_the_name),
        cmocka_unit_test(test_snapshot_of_little),
        cmocka_unit_test(test_snapshot_that_cannot_be_made),
        cmocka_unit_test(test_replace),
        cmocka_unit_test(test_insert_values),
        cmocka_unit_test(test_insert_formats),
        cmocka_unit_test(test_options_at_the_end),
        cmocka_unit_test(test_start),
        cmocka_unit_test(test_full_queue),
        cmocka_unit_test(test_full_queue_and_a_large_step),
        cmocka_unit_test(test_seed),
        cmocka_unit_test(test_analyze),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
