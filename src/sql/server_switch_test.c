/* A query replaced in place (docs/decisions/0015), and what happens meanwhile: the other one stops, is paused, dropped or replaced once more. */
#include "sql/server_rig_test.h"
#include "sql/server_run.h"

#define TIMED                                                                                                          \
    "CREATE STREAM s (k TEXT, v BIGINT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '2' SECOND) WITH (topic = "    \
    "'in');"
static void feed(struct world *w, unsigned from, unsigned upto)
{
    char body[200];
    for (unsigned i = from; i < upto; i++) {
        snprintf(body, sizeof body, "{\"k\":\"%c\",\"v\":%u,\"ts\":\"2026-01-01 00:00:%02u\"}", 'a' + i % 3, i, i);
        put(w->rig, "in", body);
    }
}

#define SECOND 2u /* a session of somebody else's: who waits for a switch has no other statement meanwhile */

/* Until it is answered, or for a second. */
static const char *say_long_as(struct world *w, uint32_t session, const char *text)
{
    say_as(w, session, text);
    for (unsigned i = 0; i < 200 && !w->ended; i++) {
        rig_pass(w->rig, 5);
        hear(w);
    }
    return w->said;
}

static void must_as(struct world *w, uint32_t session, const char *text)
{
    say_long_as(w, session, text);
    if (strstr(w->said, "error") || !strstr(w->said, "done") || !w->ended)
        rig_fail("%s\nsaid:\n%s", text, w->said);
}

static void must(struct world *w, const char *text)
{
    must_as(w, 1, text);
}

static void declare_short(struct world *w, const char *queue)
{
    struct table t;
    amqp_put_long(&table(&t)->w, "x-max-length", 2);
    amqp_put_str(&t.w, "x-overflow", slice_str("reject-publish"));
    declare(w->rig, queue, writer_slice(&t.w));
}

static void drain(struct world *w, const char *queue, char *got, size_t room)
{
    size_t len = 0;
    got[0] = '\0';
    for (unsigned i = 0; i < 20; i++) {
        rig_clear(w->rig);
        assert_true(rig_ask(w->rig, CMD_GET, 1, 1, queue, NULL, NULL, (struct slice){0}, ASK_NO_ACK));
        len += (size_t)snprintf(got + len, room - len, "%s", rig_delivered(w->rig));
        rig_pass(w->rig, 60);
    }
}

/* ---- another statement meanwhile ---- */

/* What is not built beside the old version ends it, and what was being built as well. */
static void test_replaced_by_something_else_meanwhile(void **state)
{
    struct world *w = world_new();
    (void)state;
    declare_short(w, "short");
    must(w, TIMED "CREATE STREAM jobs (v BIGINT) FROM QUEUE 'jobs';"
                  "CREATE SINK out WITH (queue = 'short') AS SELECT v FROM s");
    feed(w, 0, 8); /* the old one owes them, so the new one waits */
    rig_pass(w->rig, 300);
    say(w, "CREATE OR REPLACE SINK out WITH (queue = 'other') AS SELECT v * 10 AS v FROM s");
    assert_false(w->ended);
    assert_true(rig_open(w->rig, SECOND));
    say_long_as(w, SECOND, "CREATE OR REPLACE SINK out WITH (queue = 'other') AS SELECT v FROM jobs");
    assert_non_null(strstr(w->said, "\"done\""));
    assert_non_null(strstr(w->said, "out: what was to replace it was dropped"));
    rig_pass(w->rig, 1000);
    say_as(w, SECOND, "SHOW QUERIES");
    assert_non_null(strstr(w->said, "[\"out\",\"RUNNING\""));
    assert_null(strstr(w->said, "amq.sql.next"));
    put(w->rig, "jobs", "{\"v\":77}");
    feed(w, 8, 9);
    rig_pass(w->rig, 300);
    char got[400];
    drain(w, "other", got, sizeof got);
    assert_string_equal(got, "{\"v\":77}");
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replaced_by_something_else_meanwhile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
