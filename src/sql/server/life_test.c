/* What the core refuses, and answers that are looked at in another order than they were asked for: queries are what the core has of them. */
#include "sql/server/rig_test.h"
#include "sql/server/run.h"

#define STREAM "CREATE STREAM s (v BIGINT) WITH (topic = 'in');"
#define OTHER "CREATE OR REPLACE SINK out WITH (queue = 'other') AS SELECT v * 10 AS v FROM s"

#define SECOND 2u /* a session of somebody else's */

static void says(struct world *w, const char *part)
{
    if (!strstr(w->said, part))
        rig_fail("said: %s\nand not: %s", w->said, part);
}

static void feed(struct world *w, unsigned from, unsigned upto)
{
    char body[40];
    for (unsigned v = from; v < upto; v++) {
        snprintf(body, sizeof body, "{\"v\":%u}", v);
        put(w->rig, "in", body);
    }
    rest(w);
}

/* A queue of two, and an exchange by which it gets what a sink gives. */
static void declare_way(struct world *w)
{
    struct table t;
    amqp_put_long(&table(&t)->w, "x-max-length", 2);
    amqp_put_str(&t.w, "x-overflow", slice_str("reject-publish"));
    declare(w->rig, "short", writer_slice(&t.w));
    assert_true(rig_ask(w->rig, CMD_EXCHANGE_DECLARE, 1, 1, "way", "fanout", NULL, (struct slice){0}, ASK_DURABLE));
    assert_true(rig_ask(w->rig, CMD_QUEUE_BIND, 1, 1, "short", "way", "", (struct slice){0}, 0));
}

/* The old one waits for room in its queue, so the new one is not there yet. */
static void begin_replacing(struct world *w)
{
    declare_way(w);
    must(w, STREAM "CREATE SINK out WITH (exchange = 'way') AS SELECT v FROM s");
    feed(w, 0, 6);
    say(w, OTHER);
    rig_pass(w->rig, 100);
    assert_int_equal(w->server->run_count, 2);
}

static const char *drain(struct world *w, const char *queue)
{
    static char got[400];
    size_t len = 0;
    got[0] = '\0';
    for (unsigned i = 0; i < 20; i++) {
        rig_clear(w->rig);
        assert_true(rig_ask(w->rig, CMD_GET, 1, 1, queue, NULL, NULL, (struct slice){0}, ASK_NO_ACK));
        len += (size_t)snprintf(got + len, sizeof got - len, "%s", rig_delivered(w->rig));
        rig_pass(w->rig, 60);
    }
    return got;
}

static void ask_as(struct world *w, uint32_t session, const char *text)
{
    struct ask *ask = ask_new(slice_str(text), (struct slice){0}, (struct slice){0}, (struct slice){0});
    assert_non_null(ask);
    rig_command(w->rig, 0, CMD_SQL_ASK, session, 0)->ask = ask;
    for (unsigned i = 0; i < 4; i++)
        rig_step(w->rig);
}

/* ---- DROP ---- */

static unsigned refused_turn; /* from the statement on; what the core does behind that … */
static uint64_t refused_nth;  /* … has no memory at its so manieth allocation */

static void refuse_then(struct world *w)
{
    mem_fail_at(++w->count == refused_turn ? refused_nth : 0, false);
}

static void check_drop(const char *text, bool *ret_refused)
{
    struct world *w = world_new(), *other;
    begin_replacing(w);
    assert_true(rig_open(w->rig, SECOND));
    w->count = 0;
    w->meanwhile = refuse_then;
    ask_as(w, SECOND, text);
    w->meanwhile = NULL;
    mem_fail_at(0, false);
    rig_pass(w->rig, 100);
    const struct server_object *out = server_object_find(w->server, "/", slice_str("out"));
    if (out && server_object_runs(out)) {
        const struct server_object *next = server_object_next(out);
        assert_true(!next || sql_object_find(w->rig->b, next->id));
        *ret_refused = *ret_refused || next;
        say_as(w, SECOND, text);
        rig_pass(w->rig, 100);
        hear(w);
        says(w, "\"done\"");
    }
    other = world_cut(w, w->rig->log->count);
    rest(other);
    say(other, "SHOW QUERIES");
    if (strstr(other->said, "\"out\"") || strstr(other->said, "next.out"))
        rig_fail("%s, refused in turn %u at %llu\nthere is %s", text, refused_turn, (unsigned long long)refused_nth,
                 other->said);
    world_free(other);
    world_free(w);
}

/* Of what is being built nothing is forgotten that the core goes on having; said again, both are gone, also after a start. */
static void test_a_drop_that_is_refused(void **state)
{
    static const char *const texts[] = {"DROP SINK out", "CREATE OR REPLACE VIEW out AS SELECT v FROM s"};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        bool refused = false;
        for (refused_turn = 1; refused_turn < 6; refused_turn++)
            for (refused_nth = 1; refused_nth < 10; refused_nth++)
                check_drop(texts[i], &refused);
        assert_true(refused);
    }
}

/* ---- PAUSE and RESUME ---- */

/* The first session's statement is asked for behind the second one's, and both are answered at once. What is done is done in the core's order. */
static void test_answers_in_another_order(void **state)
{
    static const struct {
        const char *before, *first, *second, *expected;
        enum sql_object_state state;
    } cases[] = {
        {"PAUSE out", "DROP VIEW other; PAUSE out", "RESUME out", "PAUSED", SQL_PAUSED},
        {"PAUSE out", "DROP VIEW other; RESUME out", "PAUSE out", "RUNNING", SQL_RUNNING},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct world *w = world_new();
        must(w, STREAM "CREATE STREAM out AS SELECT v FROM s; CREATE VIEW other AS SELECT v FROM s");
        must(w, cases[i].before);
        assert_true(rig_open(w->rig, SECOND));
        rest(w);
        w->rig->hold = true;
        ask_as(w, 1, cases[i].first);
        lsn_t dropped = w->rig->log->count;
        ask_as(w, SECOND, cases[i].second);
        assert_true(w->rig->log->count > dropped);
        w->rig->durable = dropped;
        for (unsigned n = 0; n < 4; n++)
            rig_step(w->rig);
        w->rig->hold = false;
        rig_pass(w->rig, 200);
        const struct server_object *o = server_object_find(w->server, "/", slice_str("out"));
        if (o->state != cases[i].state || sql_object_find(w->rig->b, o->id)->state != cases[i].state ||
            (o->run != NULL) != (o->state == SQL_RUNNING))
            rig_fail("%s, then %s: it is %u%s, and for the core %u", cases[i].second, cases[i].first, o->state,
                     o->run ? ", and runs" : "", sql_object_find(w->rig->b, o->id)->state);
        say(w, "SHOW QUERIES");
        says(w, cases[i].expected);
        world_free(w);
    }
}

/* ---- steps ---- */

static void alarm_on(struct world *w)
{
    w->rig->b->alarms |= ALARM_MEMORY_HARD;
}

/* Nothing of the old version is there, not even where it began; what the new one has read for the time behind it, nobody has given out. */
static void test_a_version_whose_first_step_is_refused(void **state)
{
    struct world *w = world_new();
    (void)state;
    must(w, STREAM "CREATE STREAM beside AS SELECT v FROM s");
    feed(w, 0, 3);
    w->meanwhile = alarm_on; /* from here on each step is refused */
    must(w, "CREATE SINK out WITH (queue = 'other') AS SELECT v FROM s");
    rig_pass(w->rig, 100);
    say(w, OTHER);
    rig_pass(w->rig, 200);
    struct server_object *old = server_object_find(w->server, "/", slice_str("out"));
    assert_true(old->run && old->step == 0 && server_object_next(old)->run->sources[0].partitions[0].place == 3);
    run_fail(old->run, "its step is refused for good");
    w->meanwhile = NULL;
    w->rig->b->alarms = 0;
    rig_pass(w->rig, 200);
    hear(w);
    says(w, "out is not replaced: the query that it is to replace has ended before anything of it was there");
    must(w, OTHER);
    rig_pass(w->rig, 100);
    assert_string_equal(drain(w, "other"), "{\"v\":0}{\"v\":10}{\"v\":20}");
    world_free(w);
}

/* It is not always the trail that is too long. */
static void test_a_row_that_no_message_may_have(void **state)
{
    struct world *w = world_new();
    (void)state;
    must(w, STREAM "CREATE SINK out WITH (queue = 'other') AS SELECT v, repeat('x', 2000) AS pad FROM s");
    w->rig->b->options.message_bytes_max = 1000;
    feed(w, 0, 1);
    rig_pass(w->rig, 100);
    say(w, "SHOW QUERIES");
    says(w, "\"FAILED\"");
    says(w, "a row is longer than a message may be, or goes to too many queues");
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_drop_that_is_refused),
        cmocka_unit_test(test_answers_in_another_order),
        cmocka_unit_test(test_a_version_whose_first_step_is_refused),
        cmocka_unit_test(test_a_row_that_no_message_may_have),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
