/* The row that an aggregate without GROUP BY has of nothing: given once, whatever happens to the query before and behind it. */
#include "sql/server/rig_test.h"
#include "sql/server/run.h"

#define STREAM "CREATE STREAM s (v BIGINT) WITH (topic = 'in');"

static void feed(struct world *w, const char *stream, unsigned from, unsigned upto)
{
    char body[40];
    for (unsigned v = from; v < upto; v++) {
        snprintf(body, sizeof body, "{\"v\":%u}", v);
        put(w->rig, stream, body);
    }
    rest(w);
}

static void expect(struct world *w, const char *stream, const char *rows, const char *when)
{
    if (strcmp(records_of(w, stream), rows) != 0)
        rig_fail("%s: %s has\n%s\nand not\n%s", when, stream, records_of(w, stream), rows);
}

/* A version that has nothing in common with the old one begins as any query does, also when it was killed while it was built. */
static void test_a_version_with_nothing_in_common(void **state)
{
    struct world *w = world_new();
    (void)state;
    must(w, STREAM "CREATE STREAM other (v BIGINT); CREATE STREAM out AS SELECT v FROM s");
    feed(w, "in", 7, 8);
    size_t before = w->rig->log->count;
    must(w, "CREATE OR REPLACE STREAM out AS SELECT COUNT(*) AS n FROM other");
    rig_pass(w->rig, 300);
    size_t after = w->rig->log->count;
    feed(w, "other", 1, 2);
    expect(w, "out", "{\"v\":7}\n{\"_op\":\"+\",\"n\":0}\n{\"_op\":\"-\",\"n\":0}\n{\"_op\":\"+\",\"n\":1}\n",
           "replaced");
    for (size_t cut = before; cut <= after; cut++) {
        struct world *x = world_cut(w, cut);
        char when[60];
        rig_pass(x->rig, 500);
        feed(x, "other", 1, 2);
        rig_pass(x->rig, 100);
        snprintf(when, sizeof when, "cut at %zu of %zu", cut, after);
        if (strstr(records_of(x, "out"), "\"n\":1")) /* the new version is there */
            expect(x, "out", "{\"v\":7}\n{\"_op\":\"+\",\"n\":0}\n{\"_op\":\"-\",\"n\":0}\n{\"_op\":\"+\",\"n\":1}\n",
                   when);
        world_free(x);
    }
    world_free(w);
}

/* A SELECT that had no memory for it does not say that there is none. */
static void test_no_memory_for_a_select(void **state)
{
    unsigned hits = 0;
    (void)state;
    for (unsigned turn = 1; turn < 10; turn++)
        for (uint64_t n = 1, hit = 1; hit; n++) {
            struct world *w = world_new();
            must(w, STREAM);
            w->fail_turn = w->turn + turn;
            w->fail_at = n;
            w->hit = false;
            say(w, "SELECT COUNT(*) AS n FROM s");
            rig_pass(w->rig, 300);
            for (unsigned i = 0; i < 5; i++)
                rest_and_hear(w);
            hit = w->hit;
            hits += w->hit;
            if (strstr(w->said, "\"done\"") && !strstr(w->said, "{\"row\":[0]}"))
                rig_fail("allocation %llu of turn %u: %s", (unsigned long long)n, turn, w->said);
            world_free(w);
        }
    assert_true(hits > 5);
}

/* Where it begins does not wait for room for it: what comes meanwhile is counted, also after a start. */
static void test_no_room_for_it(void **state)
{
    struct world *w = world_new();
    struct table t;
    (void)state;
    amqp_put_long(&table(&t)->w, "x-max-length", 1);
    amqp_put_str(&t.w, "x-overflow", slice_str("reject-publish"));
    declare(w->rig, "short", writer_slice(&t.w));
    put(w->rig, "short", "full");
    must(w, STREAM "CREATE SINK out WITH (queue = 'short', start = 'latest') AS SELECT COUNT(*) AS n FROM s");
    rig_pass(w->rig, 300);
    feed(w, "in", 0, 3);
    rig_pass(w->rig, 300);
    struct world *x = world_cut(w, w->rig->log->count), *both[] = {w, x};
    for (size_t i = 0; i < ARRAY_LEN(both); i++) {
        char got[600] = "";
        size_t len = 0;
        rig_pass(both[i]->rig, 300);
        for (unsigned k = 0; k < 12; k++) {
            rig_clear(both[i]->rig);
            assert_true(rig_ask(both[i]->rig, CMD_GET, 1, 1, "short", NULL, NULL, (struct slice){0}, ASK_NO_ACK));
            len += (size_t)snprintf(got + len, sizeof got - len, "%s", rig_delivered(both[i]->rig));
            rig_pass(both[i]->rig, 60);
        }
        if (!strstr(got, "{\"_op\":\"+\",\"n\":0}") || !strstr(got, "{\"_op\":\"+\",\"n\":3}"))
            rig_fail("%s: %s", i ? "after a start" : "at once", got);
    }
    world_free(x);
    world_free(w);
}

/* It has the time at which the query has begun. */
static void test_its_time(void **state)
{
    struct world *w = world_new();
    (void)state;
    must(w, STREAM "CREATE STREAM out WITH (partitions = 1) AS SELECT COUNT(*) AS n FROM s");
    must(w, "CREATE STREAM told (n BIGINT) WITH (topic = 'out')");
    must(w, "SELECT n, _ts FROM told");
    if (strstr(w->said, "1970") || !strstr(w->said, "\"row\""))
        rig_fail("%s", w->said);
    world_free(w);
}

/* What is behind it has it at once: nobody knows yet what time it is by the rows. */
static void test_what_is_behind_it(void **state)
{
    struct world *w = world_new();
    (void)state;
    must(w, STREAM "CREATE STREAM r (v BIGINT)");
    must(w, "CREATE STREAM out WITH (partitions = 1) AS SELECT COUNT(*) AS n FROM s EMIT EVERY INTERVAL '1' SECOND");
    must(w, "CREATE STREAM joined WITH (partitions = 1) AS SELECT r.v AS v FROM r JOIN (SELECT COUNT(*) AS n FROM s) c "
            "ON r.v = c.n WITH (state_ttl = '1 hour')");
    expect(w, "out", "{\"_op\":\"+\",\"n\":0}\n", "at once");
    feed(w, "r", 0, 1);
    feed(w, "in", 5, 7);
    rig_pass(w->rig, 3000);
    expect(w, "out", "{\"_op\":\"+\",\"n\":0}\n{\"_op\":\"-\",\"n\":0}\n{\"_op\":\"+\",\"n\":2}\n", "then");
    expect(w, "joined", "{\"_op\":\"+\",\"v\":0}\n{\"_op\":\"-\",\"v\":0}\n", "then");
    world_free(w);
}

/* Killed at any record since it was made, and since it was replaced: it comes once. */
static void test_killed_at_any_record(void **state)
{
    static const char *const all = "{\"_op\":\"+\",\"n\":0}\n{\"_op\":\"-\",\"n\":0}\n{\"_op\":\"+\",\"n\":1}\n";
    struct world *w = world_new();
    (void)state;
    must(w, STREAM);
    size_t before = w->rig->log->count;
    must(w, "CREATE STREAM out WITH (partitions = 1) AS SELECT COUNT(*) AS n FROM s");
    rig_pass(w->rig, 300);
    size_t made = w->rig->log->count;
    must(w, "CREATE OR REPLACE STREAM out WITH (partitions = 1) AS SELECT COUNT(*) AS n FROM s WHERE v > 0");
    rig_pass(w->rig, 300);
    size_t end = w->rig->log->count;
    unsigned there = 0;
    for (size_t cut = before; cut <= end; cut++) {
        struct world *x = world_cut(w, cut);
        char when[60];
        rig_pass(x->rig, 500);
        feed(x, "in", 1, 2);
        rig_pass(x->rig, 300);
        snprintf(when, sizeof when, "cut at %zu of %zu, %zu", cut, made, end);
        say(x, "SHOW QUERIES");
        if (strstr(x->said, "\"out\"")) {
            there++;
            expect(x, "out", all, when);
        }
        world_free(x);
    }
    assert_true(there > end - made);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_version_with_nothing_in_common),
        cmocka_unit_test(test_no_memory_for_a_select),
        cmocka_unit_test(test_no_room_for_it),
        cmocka_unit_test(test_its_time),
        cmocka_unit_test(test_what_is_behind_it),
        cmocka_unit_test(test_killed_at_any_record),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
