/* Queues that queries read: the effect of each message is there once, whatever the journal has when the process dies, and what was not used goes back. */
#include "sql/server/rig_test.h"

#define MESSAGES 30u
#define QUEUE "CREATE STREAM jobs (id BIGINT, pad TEXT) FROM QUEUE 'jobs';"
#define LARGE 250000u /* bytes of a row: twenty are more than a step may have */

/* Each seventh is no JSON. */
static bool is_bad(unsigned i)
{
    return i % 7 == 6;
}

static void feed(struct world *w, unsigned from, unsigned upto)
{
    char body[100];
    for (unsigned i = from; i < upto; i++) {
        snprintf(body, sizeof body, is_bad(i) ? "no json %u" : "{\"id\":%u,\"pad\":\"x\"}", i);
        put(w->rig, "jobs", body);
    }
}

static void says_error(struct world *w, const char *text, const char *message)
{
    say(w, text);
    if (!strstr(w->said, message))
        rig_fail("%s\nsaid:\n%s\nexpected:\n%s", text, w->said, message);
    assert_true(w->ended);
}

/* Acknowledgements that nothing waits for take a moment. */
static void come_to_rest(struct world *w)
{
    rest(w);
    rig_pass(w->rig, 300);
    rest(w);
}

static void test_rows_and_columns(void **state)
{
    struct world *w = world_new();
    (void)state;
    must(w, "CREATE STREAM jobs (id BIGINT, twice AS (id * 2)) FROM QUEUE 'jobs' WITH (prefetch = 3);"
            "CREATE STREAM out AS SELECT id, twice, _offset, _partition, _key FROM jobs WHERE id <> 2");
    put(w->rig, "jobs", "{\"id\":1}");
    put(w->rig, "jobs", "{\"id\":2}");
    put(w->rig, "jobs", "{\"id\":3}");
    come_to_rest(w);
    assert_string_equal(records_of(w, "out"), "{\"id\":1,\"twice\":2,\"_offset\":1,\"_partition\":0,\"_key\":null}\n"
                                              "{\"id\":3,\"twice\":6,\"_offset\":3,\"_partition\":0,\"_key\":null}\n");
    assert_int_equal(rig_ready(w->rig, "jobs"), 0);
    assert_int_equal(w->rig->b->totals.unacked, 0);
    assert_int_equal(w->rig->b->totals.acked, 3);
    say(w, "SHOW QUERIES");
    assert_non_null(strstr(w->said, "[\"out\",\"RUNNING\",0,3,2,0,0,0,0,\"guest\",null]"));
    must(w, "DROP STREAM out; DROP STREAM jobs");
    rest(w);
    assert_int_equal(w->rig->b->totals.consumers, 0);
    world_free(w);
}

static void test_refused(void **state)
{
    struct world *w = world_new();
    (void)state;
    must(w, QUEUE "CREATE STREAM s (id BIGINT); CREATE VIEW v AS SELECT id FROM jobs");
    says_error(w, "SELECT id FROM v", "jobs is a queue, and who reads a queue takes its messages");
    says_error(w, "CREATE STREAM c AS SELECT COUNT(*) AS n FROM v",
               "jobs is a queue: its messages cannot be read again, as a query that remembers needs it");
    assert_non_null(strstr(w->said, "CREATE STREAM name AS SELECT * FROM jobs makes a stream of them"));
    says_error(w, "CREATE SINK x WITH (queue = 'jobs') AS SELECT id FROM jobs",
               "a query that reads the stream it writes to");
    says_error(w, "CREATE STREAM x WITH (start = 'latest') AS SELECT id FROM jobs",
               "jobs is a queue, of which all that waits is read: start is for streams");
    says_error(w, "CREATE STREAM x (id BIGINT) FROM QUEUE 's'", "s is a stream, and no queue");
    says_error(w, "CREATE STREAM x (id BIGINT) FROM QUEUE ''", "a queue's name has 1 to 255 bytes");
    says_error(w, "CREATE STREAM x (id BIGINT) FROM QUEUE 'amq.sql.x'", "are the broker's own");
    says_error(w, "CREATE STREAM x (id BIGINT) FROM QUEUE 'q' WITH (topic = 'q')", "there is no option topic here");
    says_error(w, "CREATE STREAM x (id BIGINT) FROM QUEUE 'q' WITH (prefetch = 0)",
               "prefetch is a number from 1 to 1024");
    says_error(w, "CREATE STREAM x (id BIGINT) WITH (prefetch = 1)", "there is no option prefetch here");
    says_error(w, "CREATE TABLE x (id BIGINT PRIMARY KEY) FROM QUEUE 'q'", "a TABLE is read again and again");
    says_error(w, "CREATE STREAM x FROM QUEUE 'q' AS SELECT id FROM s", "FROM QUEUE beside AS");
    says_error(w, "CREATE STREAM x FROM EXCHANGE 'amq.topic' KEY '#' AS SELECT id FROM s", "FROM EXCHANGE beside AS");
    says_error(w, "INSERT INTO jobs VALUES (1, 'x')", "INSERT of VALUES is for streams, and jobs is a queue");
    says_error(w, "CREATE STREAM x FROM QUEUES 'q'", "expected");
    world_free(w);
}

/* ---- each message once, whenever the journal ends ---- */

static void declare_all(struct world *w, const char *query)
{
    char text[1000];
    snprintf(text, sizeof text, QUEUE "CREATE STREAM out WITH (partitions = 1) AS %s", query);
    must(w, text);
}

/* How many rows and dead letters of messages below n are there; -1: others are, or some twice, or in another order. */
static int whole_of(struct world *w, bool (*has_row)(unsigned i))
{
    char *rows = strdup(records_of(w, "out")), *letters = strdup(records_of(w, "out.dlq")), *save;
    unsigned i = 0;
    bool ok = true;
    for (char *line = strtok_r(rows, "\n", &save); line && ok; line = strtok_r(NULL, "\n", &save), i++) {
        while (i < MESSAGES && !has_row(i))
            i++;
        ok = i < MESSAGES && strtoul(strchr(line, ':') + 1, NULL, 10) == i;
    }
    unsigned k = 6;
    for (char *line = strtok_r(letters, "\n", &save); line && ok; line = strtok_r(NULL, "\n", &save), k += 7)
        ok = k < MESSAGES && strtoul(line + 8, NULL, 10) == k;
    int count = (int)(lines_of(records_of(w, "out")) + lines_of(records_of(w, "out.dlq")));
    free(rows);
    free(letters);
    return ok ? count : -1;
}

static void check_cuts(const char *query, bool (*has_row)(unsigned i))
{
    struct world *w = world_new();
    declare_all(w, query);
    size_t begun = w->rig->log->count;
    for (unsigned i = 0; i < MESSAGES; i += 3)
        feed(w, i, i + 3);
    come_to_rest(w);
    int all = 0, last = 0;
    for (unsigned i = 0; i < MESSAGES; i++)
        all += is_bad(i) || has_row(i);
    assert_int_equal(whole_of(w, has_row), all);
    for (size_t cut = begun; cut <= w->rig->log->count; cut++) {
        struct world *other = world_cut(w, cut);
        come_to_rest(other);
        int now = whole_of(other, has_row);
        if (now < last || rig_ready(other->rig, "jobs") || other->rig->b->totals.unacked)
            rig_fail("%s, cut at %zu: %d rows and letters after %d, and %llu in the queue:\n%s%s", query, cut, now,
                     last, (unsigned long long)rig_ready(other->rig, "jobs"), records_of(other, "out"),
                     records_of(other, "out.dlq"));
        last = now;
        world_free(other);
    }
    assert_int_equal(last, all);
    world_free(w);
}

static bool has_third(unsigned i)
{
    return !is_bad(i) && i % 3 == 0;
}

static bool is_good(unsigned i)
{
    return !is_bad(i);
}

static void test_any_cut(void **state)
{
    (void)state;
    check_cuts("SELECT id FROM jobs WHERE id % 3 = 0", has_third);
    check_cuts("SELECT id, pad FROM jobs", is_good);
}

static uint64_t steps_of(struct world *w, const char *name)
{
    LIST_EACH(&w->rig->b->sql.by_id, node, after)
    {
        const struct sql_object *o = CONTAINER_OF(node, struct sql_object, link);
        if (slice_is(o->name, name))
            return o->step;
    }
    return 0;
}

/* What waits is taken at once, and is more than a step may have: each step has its messages, and the rest is delivered again. */
static void test_any_cut_of_several_steps(void **state)
{
    struct world *w = world_new();
    char text[200];
    (void)state;
    must(w, QUEUE);
    feed(w, 0, MESSAGES);
    snprintf(text, sizeof text,
             "CREATE SINK large WITH (queue = 'large') AS SELECT id, repeat(pad, %u) AS pad FROM jobs", LARGE);
    size_t begun = w->rig->log->count;
    must(w, text);
    come_to_rest(w);
    unsigned good = 0;
    for (unsigned i = 0; i < MESSAGES; i++)
        good += is_good(i);
    assert_int_equal(rig_ready(w->rig, "large"), good);
    assert_true(steps_of(w, "large") > 2); /* its letters, and the rows in two */
    for (size_t cut = begun; cut <= w->rig->log->count; cut++) {
        struct world *other = world_cut(w, cut);
        come_to_rest(other);
        bool runs = strstr(say(other, "SHOW QUERIES"), "RUNNING");
        if (runs &&
            (rig_ready(other->rig, "large") != good || lines_of(records_of(other, "large.dlq")) != MESSAGES / 7))
            rig_fail("cut at %zu: %llu rows, and letters\n%s", cut, (unsigned long long)rig_ready(other->rig, "large"),
                     records_of(other, "large.dlq"));
        world_free(other);
    }
    world_free(w);
}

/* ---- what goes back ---- */

static void test_what_is_not_used_goes_back(void **state)
{
    struct world *w = world_new();
    (void)state;
    must(w, QUEUE "CREATE STREAM out WITH (on_error = 'fail') AS SELECT id FROM jobs");
    feed(w, 0, 6);
    come_to_rest(w);
    must(w, "PAUSE out");
    rest(w);
    assert_int_equal(w->rig->b->totals.consumers, 0);
    feed(w, 6, 9); /* the first of them is none */
    assert_int_equal(rig_ready(w->rig, "jobs"), 3);
    must(w, "RESUME out");
    come_to_rest(w);
    say(w, "SHOW QUERIES");
    assert_non_null(strstr(w->said, "\"FAILED\""));
    assert_non_null(strstr(w->said, "jobs/0, offset 1: "));
    assert_int_equal(rig_ready(w->rig, "jobs"), 3);
    assert_int_equal(lines_of(records_of(w, "out")), 6);
    must(w, "DROP STREAM out; CREATE STREAM more AS SELECT id FROM jobs");
    come_to_rest(w);
    assert_string_equal(records_of(w, "more"), "{\"id\":7}\n{\"id\":8}\n");
    assert_int_equal(lines_of(records_of(w, "more.dlq")), 1);
    assert_int_equal(rig_ready(w->rig, "jobs"), 0);
    world_free(w);
}

/* A queue that refuses what is beyond its limit: nothing is lost meanwhile, and no more is taken than the prefetch. */
static void test_a_full_queue_holds_it_back(void **state)
{
    struct world *w = world_new();
    struct table t;
    (void)state;
    amqp_put_long(&table(&t)->w, "x-max-length", 2);
    amqp_put_str(&t.w, "x-overflow", slice_str("reject-publish"));
    declare(w->rig, "small", writer_slice(&t.w));
    must(w, "CREATE STREAM jobs (id BIGINT) FROM QUEUE 'jobs' WITH (prefetch = 4);"
            "CREATE SINK out WITH (queue = 'small') AS SELECT id FROM jobs");
    for (unsigned i = 0; i < 10; i++) {
        char body[40];
        snprintf(body, sizeof body, "{\"id\":%u}", i);
        put(w->rig, "jobs", body);
    }
    come_to_rest(w);
    char got[200] = "";
    for (unsigned i = 0, len = 0; i < 10; i++) {
        rig_pass(w->rig, 200); /* the step is told again, or what of it has room */
        uint64_t unacked = w->rig->b->totals.unacked,
                 there = rig_ready(w->rig, "small") + rig_ready(w->rig, "jobs") + unacked;
        assert_int_equal(there, 10 - i);
        assert_int_equal(rig_ready(w->rig, "small"), i < 9 ? 2 : 1);
        assert_true(unacked <= 4);
        rig_clear(w->rig);
        assert_true(rig_ask(w->rig, CMD_GET, 1, 1, "small", NULL, NULL, (struct slice){0}, ASK_NO_ACK));
        len += (unsigned)snprintf(got + len, sizeof got - len, "%s", rig_delivered(w->rig));
    }
    assert_string_equal(
        got, "{\"id\":0}{\"id\":1}{\"id\":2}{\"id\":3}{\"id\":4}{\"id\":5}{\"id\":6}{\"id\":7}{\"id\":8}{\"id\":9}");
    world_free(w);
}

/* The other version goes on with what the first has not acknowledged: there is nothing that could be read again. */
static void test_replaced(void **state)
{
    struct world *w = world_new();
    (void)state;
    must(w, QUEUE "CREATE STREAM out AS SELECT id FROM jobs");
    put(w->rig, "jobs", "{\"id\":1}");
    come_to_rest(w);
    must(w, "CREATE OR REPLACE STREAM out AS SELECT id * 10 AS id FROM jobs");
    put(w->rig, "jobs", "{\"id\":2}");
    come_to_rest(w);
    must(w, "CREATE STREAM s (id BIGINT); CREATE OR REPLACE STREAM out AS SELECT id FROM s");
    put(w->rig, "jobs", "{\"id\":3}");
    put(w->rig, "s", "{\"id\":4}");
    come_to_rest(w);
    must(w, "CREATE OR REPLACE STREAM out AS SELECT id * 100 AS id FROM jobs");
    come_to_rest(w);
    assert_string_equal(records_of(w, "out"), "{\"id\":1}\n{\"id\":20}\n{\"id\":4}\n{\"id\":300}\n");
    assert_int_equal(rig_ready(w->rig, "jobs") + w->rig->b->totals.unacked, 0);
    world_free(w);
}

static void test_its_queue_goes(void **state)
{
    struct world *w = world_new();
    (void)state;
    must(w, QUEUE "CREATE STREAM out AS SELECT id FROM jobs");
    assert_true(rig_ask(w->rig, CMD_QUEUE_DELETE, 1, 1, "jobs", NULL, NULL, (struct slice){0}, 0));
    come_to_rest(w);
    say(w, "SHOW QUERIES");
    assert_non_null(strstr(w->said, "the queue jobs is gone, or its owner may not read it any more"));
    say(w, "RESUME out");
    come_to_rest(w);
    say(w, "SHOW QUERIES");
    assert_non_null(strstr(w->said, "there is no queue jobs"));
    world_free(w);
}

/* ---- messages as records ---- */

static void test_properties_are_columns(void **state)
{
    struct world *w = world_new();
    struct table t;
    (void)state;
    must(w, "CREATE STREAM jobs (body TEXT) FROM QUEUE 'jobs' WITH (format = 'raw');"
            "CREATE STREAM out AS SELECT body, _ts, _key, _headers FROM jobs");
    amqp_put_str(&table(&t)->w, "who", slice_str("ann"));
    amqp_put_long(&t.w, "count", -7);
    amqp_put_bool(&t.w, "last", true);
    amqp_put_time(&t.w, "when", 1);
    amqp_put_str(&t.w, "x-stream-key", slice_str("k"));
    struct amqp_props props = {.present = AMQP_HEADERS | AMQP_TIMESTAMP | AMQP_DELIVERY_MODE,
                               .delivery_mode = 2,
                               .timestamp = 86400,
                               .headers = writer_slice(&t.w)};
    struct msg *msg = row_with(w->rig, "", "jobs", "hello", 5, &props);
    assert_non_null(msg);
    rig_command(w->rig, 0, CMD_PUBLISH, 1, 1)->msg = msg;
    rig_step(w->rig);
    come_to_rest(w);
    assert_string_equal(records_of(w, "out"),
                        "{\"body\":\"hello\",\"_ts\":\"1970-01-02T00:00:00Z\",\"_key\":\"k\",\"_headers\":"
                        "{\"who\":\"ann\",\"count\":\"-7\",\"last\":\"true\",\"x-stream-key\":\"k\"}}\n");
    world_free(w);
}

/* Two queries share what comes, and each message is one's. */
static void test_queries_compete(void **state)
{
    struct world *w = world_new();
    (void)state;
    must(w, QUEUE "CREATE STREAM a AS SELECT id FROM jobs; CREATE STREAM b AS SELECT id FROM jobs");
    for (unsigned i = 0; i < 20; i++)
        put(w->rig, "jobs", "{\"id\":1}");
    come_to_rest(w);
    unsigned a = lines_of(records_of(w, "a")), b = lines_of(records_of(w, "b"));
    assert_true(a > 0 && b > 0);
    assert_int_equal(a + b, 20);
    world_free(w);
}

/* Each allocation of each turn fails once: a query goes on, or fails and says so; resumed, it has written each row once. */
static void test_no_memory(void **state)
{
    struct world *whole = world_new();
    unsigned hits = 0, turns;
    (void)state;
    declare_all(whole, "SELECT id, pad FROM jobs");
    feed(whole, 0, 8);
    come_to_rest(whole);
    turns = whole->turn;
    int expected = whole_of(whole, is_good);
    world_free(whole);
    for (unsigned turn = 2; turn <= turns; turn++)
        for (uint64_t n = 1, more = 1; more; n++) {
            struct world *w = world_new();
            w->fail_turn = turn;
            w->fail_at = n;
            say(w, QUEUE);
            say(w, "CREATE STREAM IF NOT EXISTS jobs (id BIGINT, pad TEXT) FROM QUEUE 'jobs';"
                   "CREATE STREAM out WITH (partitions = 1) AS SELECT id, pad FROM jobs");
            if (!strstr(w->said, "\"out\"}"))
                say(w, "CREATE STREAM IF NOT EXISTS out WITH (partitions = 1) AS SELECT id, pad FROM jobs");
            feed(w, 0, 8);
            come_to_rest(w);
            more = w->hit;
            hits += w->hit;
            say(w, "RESUME out");
            come_to_rest(w);
            if (whole_of(w, is_good) != expected || rig_ready(w->rig, "jobs") || w->rig->b->totals.unacked)
                rig_fail("allocation %llu of turn %u: wrote\n%s\n%s", (unsigned long long)n, turn, records_of(w, "out"),
                         records_of(w, "out.dlq"));
            world_free(w);
        }
    assert_true(hits > 40);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_and_columns),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_any_cut),
        cmocka_unit_test(test_any_cut_of_several_steps),
        cmocka_unit_test(test_what_is_not_used_goes_back),
        cmocka_unit_test(test_a_full_queue_holds_it_back),
        cmocka_unit_test(test_replaced),
        cmocka_unit_test(test_its_queue_goes),
        cmocka_unit_test(test_properties_are_columns),
        cmocka_unit_test(test_queries_compete),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
