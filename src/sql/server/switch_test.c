/* A query replaced in place (docs/decisions/0015), and what happens meanwhile: the other one stops, is paused, dropped or replaced once more. */
#include "sql/server/rig_test.h"
#include "sql/server/run.h"

#define TIMED                                                                                                          \
    "CREATE STREAM s (k TEXT, v BIGINT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '2' SECOND) WITH (topic = "    \
    "'in');"
#define WINDOWS(n)                                                                                                     \
    "SELECT k, COUNT(*) + " n " AS n FROM TUMBLE(s, ts, INTERVAL '5' SECOND) GROUP BY k, window_start, window_end"

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

static void says_error(struct world *w, const char *text, const char *message)
{
    say_long_as(w, 1, text);
    if (!strstr(w->said, message) || !w->ended)
        rig_fail("%s\nsaid:\n%s\nexpected:\n%s", text, w->said, message);
}

static void expect_rows(struct world *w, const char *expected)
{
    if (strcmp(records_of(w, "out"), expected) != 0)
        rig_fail("out has\n%s\nand not\n%s", records_of(w, "out"), expected);
}

/* ---- time ---- */

/* The old version looks at the time of events, the new one does not. */
static void test_a_version_that_has_no_time(void **state)
{
    struct world *w = world_new();
    (void)state;
    must_as(w, 1, TIMED "CREATE STREAM out AS " WINDOWS("0"));
    feed(w, 0, 10);
    rest(w);
    char *old = strdup(records_of(w, "out"));
    assert_true(lines_of(old) > 0);
    must_as(w, 1, "CREATE OR REPLACE STREAM out AS SELECT v FROM s");
    feed(w, 10, 12);
    rest(w);
    assert_string_equal(records_of(w, "out") + strlen(old), "{\"v\":10}\n{\"v\":11}\n");
    free(old);
    world_free(w);
}

/* What a version that is paused has ended by the clock does not end once more, whether its trail or a snapshot has it. */
static void test_time_that_went_on_before_a_pause(void **state)
{
    static const char *const expected = "{\"k\":\"a\",\"n\":1}\n{\"k\":\"b\",\"n\":1}\n{\"k\":\"c\",\"n\":1}\n";
    (void)state;
    for (unsigned restarts = 0; restarts < 2; restarts++) {
        struct world *w = world_with(restarts), *other = NULL;
        must_as(w, 1, TIMED "CREATE STREAM out AS " WINDOWS("0"));
        feed(w, 0, 3);
        rest(w);
        rig_pass(w->rig, 5200);
        expect_rows(w, expected);
        must_as(w, 1, "PAUSE out");
        must_as(w, 1, "CREATE OR REPLACE STREAM out AS " WINDOWS("1000"));
        struct world *at = restarts ? (other = world_cut(w, w->rig->log->count)) : w;
        rig_pass(at->rig, 60000);
        expect_rows(at, expected);
        feed(at, 20, 21);
        rig_pass(at->rig, 60000);
        assert_string_equal(records_of(at, "out") + strlen(expected), "{\"k\":\"c\",\"n\":1001}\n");
        if (other)
            world_free(other);
        world_free(w);
    }
}

static void put_keyed(struct world *w, const char *key, unsigned second, unsigned pad, const char *k)
{
    char body[3000];
    struct table t;
    amqp_put_str(&table(&t)->w, "x-stream-key", slice_str(key));
    struct amqp_props props = {
        .present = AMQP_HEADERS | AMQP_DELIVERY_MODE, .delivery_mode = 2, .headers = writer_slice(&t.w)};
    snprintf(body, sizeof body, "{\"k\":\"%s\",\"ts\":\"2026-01-01 00:00:%02u\",\"pad\":\"%0*u\"}", k, second, pad, 0u);
    struct msg *msg = row_with(w->rig, "", "in", body, strlen(body), &props);
    assert_non_null(msg);
    rig_command(w->rig, 0, CMD_PUBLISH, 1, 1)->msg = msg;
    rig_step(w->rig);
    rig_clear(w->rig);
}

/* Ten seconds pass at the moment at which the new version writes its snapshot. */
static void wait_amid_the_snapshot(struct world *w)
{
    LIST_EACH(&w->server->runs, node, after)
    {
        const struct server_run *run = CONTAINER_OF(node, struct server_run, link);
        if (w->count || !run->object->next || run->snapshot.state != SNAPSHOT_WRITING)
            continue;
        w->count++;
        w->rig->now += 10 * NS_PER_S;
        w->rig->wall += 10000;
    }
}

#define THIN 6000u /* not all of them come with one fetch, and what is left is not near */

/* What is followed while a snapshot is written is in the snapshot or in the trail: a start comes to where it was. */
static void test_a_silent_partition_while_a_snapshot_is_written(void **state)
{
    struct world *w = world_with(3000), *other;
    (void)state;
    must_as(w, 1,
            "CREATE STREAM s (k TEXT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '2' SECOND) WITH (topic = 'in', "
            "partitions = 2); CREATE STREAM out WITH (partitions = 1) AS " WINDOWS("0"));
    const struct queue *q = queue_find(vhost_find(w->rig->b, slice_str("/")), slice_str("in"));
    char silent[] = "a", busy[] = "a";
    for (put_keyed(w, silent, 0, 1, "z"); !q->stream->partitions[1]->end; put_keyed(w, silent, 0, 1, "z"))
        ++*silent; /* the new one looks there first */
    for (uint64_t end = q->stream->partitions[0]->end; q->stream->partitions[0]->end == end; ++*busy)
        put_keyed(w, busy, 0, 1, "z");
    --*busy;
    for (unsigned i = 0; i < THIN; i++)
        put_keyed(w, busy, 1, 100, "y");
    rest(w);
    w->meanwhile = wait_amid_the_snapshot;
    say(w, "CREATE OR REPLACE STREAM out WITH (partitions = 1) AS " WINDOWS("1000"));
    rig_pass(w->rig, 100);
    assert_int_equal(w->count, 1);
    hear(w);
    if (!w->ended || strstr(w->said, "error"))
        rig_fail("said: %s", w->said);
    rig_pass(w->rig, 10000);
    unsigned before = lines_of(records_of(w, "out"));
    put_keyed(w, busy, 20, 1, "x");
    put_keyed(w, busy, 40, 1, "w");
    rest(w);
    other = world_cut(w, w->rig->log->count);
    rig_pass(other->rig, 60000);
    assert_int_equal(lines_of(records_of(w, "out")), before + 1);
    if (lines_of(records_of(other, "out")) != before + 2)
        rig_fail("out has\n%s", records_of(other, "out"));
    world_free(other);
    world_free(w);
}

/* ---- a pause ---- */

static const char *said_at; /* what is said … */
static unsigned said_turn;  /* … in which turn from the statement on; the journal is durable some turns later … */
static bool said_synced;    /* … or, for some turns, before the engine looks */

static void say_then(struct world *w)
{
    w->count++;
    w->rig->hold = w->count >= said_turn && w->count < said_turn + 6;
    if (w->rig->hold && said_synced)
        w->rig->durable = w->rig->log->count + 8;
    if (w->count != said_turn)
        return;
    struct ask *ask = ask_new(slice_str(said_at), (struct slice){0}, (struct slice){0}, (struct slice){0});
    assert_non_null(ask);
    rig_command(w->rig, 0, CMD_SQL_ASK, SECOND, 0)->ask = ask;
}

static void publish(struct world *w, const char *body)
{
    struct amqp_props props = {.present = AMQP_DELIVERY_MODE, .delivery_mode = 2};
    rig_command(w->rig, 0, CMD_PUBLISH, 1, 1)->msg = row_with(w->rig, "", "in", body, strlen(body), &props);
}

/* Rows and a dead letter go in several steps. Whenever it is paused, what its trail says in the end is that all of them were given out. */
static void test_a_pause_amid_rows(void **state)
{
    (void)state;
    bool whole = true;
    for (unsigned turn = 1; whole; turn++) {
        struct world *w = world_new();
        must_as(w, 1, TIMED "CREATE STREAM out AS SELECT COUNT(*) AS n FROM s EMIT CHANGES");
        assert_true(rig_open(w->rig, SECOND));
        said_at = "PAUSE out";
        said_turn = turn;
        w->meanwhile = say_then;
        publish(w, "{\"k\":\"a\"}");
        publish(w, "{\"k\":");
        publish(w, "{\"k\":\"b\"}");
        rig_step(w->rig);
        rig_pass(w->rig, 500);
        hear(w);
        whole = w->count >= turn + 6;
        w->meanwhile = NULL;
        w->rig->hold = false;
        if (whole && !strstr(w->said, "\"PAUSE\""))
            rig_fail("in turn %u: %s", turn, w->said);
        must_as(w, 1, "CREATE OR REPLACE STREAM out AS SELECT COUNT(*) + 100 AS n FROM s EMIT CHANGES");
        publish(w, "{\"k\":\"c\"}");
        rest(w);
        if (!strstr(records_of(w, "out"), "103}\n"))
            rig_fail("in turn %u: %s", turn, records_of(w, "out"));
        world_free(w);
    }
}

#define AHEAD                                                                                                          \
    "CREATE STREAM l (k TEXT, ts TIMESTAMP, WATERMARK FOR ts AS ts) WITH (topic = 'left');"                            \
    "CREATE STREAM r (k TEXT, v INT, ts TIMESTAMP, WATERMARK FOR ts AS ts) WITH (topic = 'right');"                    \
    "CREATE STREAM out AS SELECT l.k, r.v FROM l JOIN r ON l.k = r.k AND r.ts <= l.ts + INTERVAL '4' SECOND "          \
    "WITH (state_ttl = '1 hour')"

/* Rows of r are kept by when they came, rows of l by when those of r happened, which is years later. What a snapshot or a PAUSE says of time moves neither. */
static void test_events_ahead_of_their_arrival(void **state)
{
    (void)state;
    for (unsigned pauses = 0; pauses < 2; pauses++) {
        struct world *w = world_with(pauses ? 0 : 2), *other = NULL;
        must_as(w, 1, AHEAD);
        for (unsigned i = 0; i < 4; i++)
            put(w->rig, "right", "{\"k\":\"a\",\"v\":1,\"ts\":\"2090-01-01 00:00:00\"}");
        rest(w);
        if (pauses)
            must_as(w, 1, "PAUSE out; RESUME out");
        other = world_cut(w, w->rig->log->count);
        put(other->rig, "left", "{\"k\":\"a\",\"ts\":\"2090-01-01 00:00:01\"}");
        rig_pass(other->rig, 100);
        assert_int_equal(lines_of(records_of(other, "out")), 4);
        world_free(other);
        world_free(w);
    }
}

/* ---- an old version that has stopped ---- */

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

/* An exchange by which the queue gets what a sink gives; it fails when that is not there. */
static void declare_way(struct world *w)
{
    assert_true(rig_ask(w->rig, CMD_EXCHANGE_DECLARE, 1, 1, "way", "fanout", NULL, (struct slice){0}, ASK_DURABLE));
    assert_true(rig_ask(w->rig, CMD_QUEUE_BIND, 1, 1, "short", "way", "", (struct slice){0}, 0));
}

static void delete_way(struct world *w)
{
    assert_true(rig_ask(w->rig, CMD_EXCHANGE_DELETE, 1, 1, "way", NULL, NULL, (struct slice){0}, 0));
    rig_pass(w->rig, 100);
}

#define OTHER "CREATE OR REPLACE SINK out WITH (queue = 'other') AS SELECT v * 10 AS v FROM s"

/* It has read more than it has given out, and the new one has read as much: who takes its place then would lose what is between. */
static void test_a_version_that_fails_before_all_is_given(void **state)
{
    struct world *w = world_new();
    char got[400];
    (void)state;
    declare_short(w, "short");
    declare_way(w);
    must_as(w, 1, TIMED "CREATE SINK out WITH (exchange = 'way') AS SELECT v FROM s");
    feed(w, 0, 2);
    rig_pass(w->rig, 100);
    feed(w, 2, 8);
    rig_pass(w->rig, 300);
    say(w, OTHER);
    rig_pass(w->rig, 200);
    delete_way(w);
    hear(w);
    if (!strstr(w->said, "out is not replaced: ") || !strstr(w->said, "replace it again"))
        rig_fail("said: %s", w->said);
    must_as(w, 1, OTHER);
    drain(w, "other", got, sizeof got);
    assert_string_equal(got, "{\"v\":20}{\"v\":30}{\"v\":40}{\"v\":50}{\"v\":60}{\"v\":70}");
    world_free(w);
}

/* Some of what it took was given out, some not: nobody but itself can give the rest. */
static void test_a_version_that_fails_in_the_middle(void **state)
{
    struct world *w = world_new();
    char got[400];
    (void)state;
    declare_short(w, "short");
    declare_way(w);
    must_as(w, 1, TIMED "CREATE SINK out WITH (exchange = 'way') AS SELECT v FROM s; PAUSE out");
    feed(w, 0, 8);
    must_as(w, 1, "RESUME out");
    rig_pass(w->rig, 200);
    assert_int_equal(rig_ready(w->rig, "short"), 2);
    delete_way(w);
    says_error(w, OTHER, "RESUME it");
    assert_int_equal(rig_ready(w->rig, "other"), 0);
    declare_way(w);
    must_as(w, 1, "RESUME out");
    drain(w, "short", got, sizeof got);
    assert_string_equal(got, "{\"v\":0}{\"v\":1}{\"v\":2}{\"v\":3}{\"v\":4}{\"v\":5}{\"v\":6}{\"v\":7}");
    must_as(w, 1, OTHER);
    feed(w, 8, 9);
    drain(w, "other", got, sizeof got);
    assert_string_equal(got, "{\"v\":80}");
    world_free(w);
}

/* Who begins behind the old one, as it was told to, begins there. */
static void test_a_version_that_begins_behind(void **state)
{
    struct world *w = world_new();
    char got[400];
    (void)state;
    must_as(w, 1, TIMED "CREATE SINK out WITH (queue = 'short') AS SELECT v FROM s");
    feed(w, 0, 2);
    rig_pass(w->rig, 300);
    must_as(w, 1, "PAUSE out");
    feed(w, 2, 4);
    must_as(w, 1, "CREATE OR REPLACE SINK out WITH (queue = 'other', start = 'latest') AS SELECT v * 10 AS v FROM s");
    feed(w, 4, 5);
    drain(w, "other", got, sizeof got);
    assert_string_equal(got, "{\"v\":40}");
    world_free(w);
}

/* The old version fails before all is given, and the new one, which reads a second stream, has saved that it is as far. */
static void fail_behind_a_snapshot(struct world *w)
{
    struct server_object *o = server_object_find(w->server, "/", slice_str("out"));
    const struct server_object *next = o ? server_object_next(o) : NULL;
    const struct server_run *run = next ? next->run : NULL;
    if (w->count || !run || !o->run || run->state != RUN_GOING || snapshot_busy(run) ||
        run->sources[1].partitions[0].kept != 8)
        return;
    w->count++;
    run_fail(o->run, "its target has gone");
}

static void test_a_version_that_fails_behind_a_snapshot(void **state)
{
    struct world *w = world_with(1);
    (void)state;
    declare_short(w, "short");
    must_as(w, 1,
            TIMED "CREATE STREAM t (v BIGINT) WITH (topic = 'more');"
                  "CREATE SINK out WITH (queue = 'short') AS SELECT v FROM s");
    char more[200];
    snprintf(more, sizeof more, "{\"v\":1,\"pad\":\"%0100u\"}", 0u);
    for (unsigned i = 0; i < THIN; i++) {
        put(w->rig, "more", more);
        rig_clear(w->rig);
    }
    feed(w, 0, 8); /* the old one gives two of them, and waits */
    rig_pass(w->rig, 300);
    w->count = 0;
    w->meanwhile = fail_behind_a_snapshot;
    say_long_as(w, 1,
                "CREATE OR REPLACE SINK out WITH (queue = 'other', start = '2000-01-01 00:00:00') AS SELECT "
                "COUNT(*) AS n FROM (SELECT v FROM t UNION ALL SELECT v FROM s) EMIT CHANGES");
    assert_int_equal(w->count, 1);
    if (!strstr(w->said, "before the place where this one is"))
        rig_fail("said: %s", w->said);
    world_free(w);
}

/* Once, while a step with rows is with the core: it fails in a turn before the answer comes. */
static void fail_amid_a_step(struct world *w)
{
    struct server_object *o = server_object_find(w->server, "/", slice_str("out"));
    if (w->count || !o || !o->run || !o->step || !o->run->step_call.number)
        return;
    w->count++;
    run_fail(o->run, "no memory");
    (void)turn(w);
}

/* What the core has accepted is known, whatever has become of the query meanwhile: it, or another version, goes on from there. */
static void test_a_version_that_fails_amid_a_step(void **state)
{
    static const char *const texts[] = {"RESUME out",
                                        "CREATE OR REPLACE STREAM out AS SELECT COUNT(*) AS n FROM s EMIT CHANGES"};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct world *w = world_new();
        must_as(w, 1, TIMED "CREATE STREAM out AS SELECT COUNT(*) AS n FROM s EMIT CHANGES");
        w->count = 0;
        w->meanwhile = fail_amid_a_step;
        feed(w, 0, 1);
        rest(w);
        assert_int_equal(w->count, 1);
        must_as(w, 1, texts[i]);
        feed(w, 1, 2);
        rig_pass(w->rig, 300);
        expect_rows(w, "{\"_op\":\"+\",\"n\":0}\n{\"_op\":\"-\",\"n\":0}\n{\"_op\":\"+\",\"n\":1}\n"
                       "{\"_op\":\"-\",\"n\":1}\n{\"_op\":\"+\",\"n\":2}\n");
        world_free(w);
    }
}

/* ---- an old version that owes ---- */

/* Both stand still and wait for the full queue of the old one, and time goes on: for that nobody has to be called at once. */
static void test_while_both_wait(void **state)
{
    struct world *w = world_new();
    char got[400];
    (void)state;
    declare_short(w, "short");
    must_as(w, 1, TIMED "CREATE SINK out WITH (queue = 'short') AS " WINDOWS("0"));
    feed(w, 0, 3);
    feed(w, 20, 22);
    rig_pass(w->rig, 1000);
    assert_int_equal(rig_ready(w->rig, "short"), 2);
    say(w, "CREATE OR REPLACE SINK out WITH (queue = 'other') AS " WINDOWS("1000"));
    rig_pass(w->rig, 10000);
    assert_false(w->ended);
    assert_true(sql_server_next_due(w->server) > w->rig->now + NS_PER_MS);
    drain(w, "short", got, sizeof got);
    assert_string_equal(got, "{\"k\":\"a\",\"n\":1}{\"k\":\"b\",\"n\":1}{\"k\":\"c\",\"n\":1}");
    rig_pass(w->rig, 10000);
    drain(w, "other", got, sizeof got);
    assert_string_equal(got, "{\"k\":\"c\",\"n\":1001}{\"k\":\"a\",\"n\":1001}");
    world_free(w);
}

/* ---- another statement meanwhile ---- */

/* What is not built beside the old version ends it, and what was being built as well. */
static void test_replaced_by_something_else_meanwhile(void **state)
{
    struct world *w = world_new();
    (void)state;
    declare_short(w, "short");
    must_as(w, 1,
            TIMED "CREATE STREAM jobs (v BIGINT) FROM QUEUE 'jobs';"
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

/* ---- anything at any moment ---- */

/* What the server has is what the core has, and what is said to run runs, and nothing else does. */
static unsigned check_agreed(struct world *w, const char *what)
{
    unsigned count = 0;
    LIST_EACH(&w->server->objects, node, after)
    {
        const struct server_object *o = CONTAINER_OF(node, struct server_object, link);
        const struct sql_object *there = sql_object_find(w->rig->b, o->id);
        char name[300];
        snprintf(name, sizeof name, "%s%s", o->next ? SERVER_NEXT : "", o->name);
        if (!there || !slice_is(there->name, name) || there->state != o->state ||
            (server_object_runs(o) && (o->state == SQL_RUNNING) != (o->run != NULL)))
            rig_fail("%s: %s is %u for the server%s, and for the core %.*s, %d", what, name, o->state,
                     o->run ? ", and runs" : "", there ? (int)there->name.len : 4,
                     there ? (const char *)there->name.ptr : "none", there ? there->state : -1);
        count++;
    }
    assert_int_equal(count, w->rig->b->sql.objects.count);
    return count;
}

static bool said_while_replaced(const char *text, unsigned turn)
{
    struct world *w = world_new();
    char what[200];
    snprintf(what, sizeof what, "%s, in turn %u", text, turn);
    must_as(w, 1, TIMED "CREATE STREAM out AS " WINDOWS("0"));
    feed(w, 0, 3);
    rig_pass(w->rig, 5200);
    assert_true(rig_open(w->rig, SECOND));
    said_at = text;
    said_turn = turn;
    w->count = 0;
    w->meanwhile = say_then;
    say(w, "CREATE OR REPLACE STREAM out AS " WINDOWS("1000"));
    bool whole = w->count >= turn + 6;
    w->meanwhile = NULL;
    w->rig->hold = false;
    rig_pass(w->rig, 2000);
    hear(w);
    (void)check_agreed(w, what);
    must_as(w, SECOND, "CREATE STREAM IF NOT EXISTS out AS " WINDOWS("1000") "; RESUME out");
    feed(w, 20, 21);
    rig_pass(w->rig, 60000);
    (void)check_agreed(w, what);
    static const char *const before = "{\"k\":\"a\",\"n\":1}\n{\"k\":\"b\",\"n\":1}\n{\"k\":\"c\",\"n\":1}\n";
    const char *rows = records_of(w, "out");
    if (strstr(rows, before) != rows || (lines_of(rows) != 4 && !strstr(text, "DROP STREAM")))
        rig_fail("%s: out has\n%s", what, rows);
    world_free(w);
    return whole;
}

static void test_anything_at_any_moment(void **state)
{
    static const char *const texts[] = {
        "PAUSE out",
        "RESUME out",
        "PAUSE out; RESUME out",
        "PAUSE \"amq.sql.next.out\"",
        "PAUSE \"amq.sql.next.out\"; RESUME \"amq.sql.next.out\"",
        "DROP QUERY \"amq.sql.next.out\"",
        "DROP STREAM out",
        "CREATE OR REPLACE STREAM out AS " WINDOWS("2000"),
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        for (unsigned turn = 1; said_while_replaced(texts[i], turn); turn++)
            continue;
}

/* Two statements about one name, at any moment of one another. */
static bool said_beside(const char *before, const char *text, const char *beside, unsigned turn)
{
    struct world *w = world_new();
    char what[400];
    snprintf(what, sizeof what, "%s, and in turn %u %s", text, turn, beside);
    must_as(w, 1, TIMED);
    must_as(w, 1, before);
    assert_true(rig_open(w->rig, SECOND));
    said_at = beside;
    said_turn = turn;
    w->count = 0;
    w->meanwhile = say_then;
    say(w, text);
    bool whole = w->count >= turn + 6;
    w->meanwhile = NULL;
    w->rig->hold = false;
    rig_pass(w->rig, 200);
    hear(w);
    (void)check_agreed(w, what);
    if (strncmp(beside, "CREATE", 6) == 0 && !strstr(w->said, "42P07"))
        rig_fail("%s: %s", what, w->said);
    world_free(w);
    return whole;
}

static void test_two_statements_about_one_name(void **state)
{
    static const char *const cases[][3] = {
        {"CREATE STREAM out AS SELECT v FROM s; PAUSE out", "RESUME out", "PAUSE out"},
        {"CREATE STREAM out AS SELECT v FROM s", "PAUSE out", "RESUME out"},
        {"CREATE VIEW first AS SELECT v FROM s", "CREATE SINK out WITH (queue = 'other') AS SELECT v FROM s",
         "CREATE STREAM out AS SELECT v + 100 AS v FROM s"},
        {"CREATE STREAM jobs (v BIGINT) FROM QUEUE 'jobs'; CREATE SINK out WITH (queue = 'other') AS SELECT v FROM "
         "jobs",
         "CREATE OR REPLACE SINK out WITH (queue = 'other') AS SELECT v FROM s", "DROP SINK out"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        for (unsigned turn = 1; said_beside(cases[i][0], cases[i][1], cases[i][2], (turn + 1) / 2); turn++)
            said_synced = turn % 2;
    said_synced = false;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_version_that_has_no_time),
        cmocka_unit_test(test_time_that_went_on_before_a_pause),
        cmocka_unit_test(test_a_silent_partition_while_a_snapshot_is_written),
        cmocka_unit_test(test_a_pause_amid_rows),
        cmocka_unit_test(test_events_ahead_of_their_arrival),
        cmocka_unit_test(test_a_version_that_fails_before_all_is_given),
        cmocka_unit_test(test_a_version_that_fails_in_the_middle),
        cmocka_unit_test(test_a_version_that_begins_behind),
        cmocka_unit_test(test_a_version_that_fails_behind_a_snapshot),
        cmocka_unit_test(test_a_version_that_fails_amid_a_step),
        cmocka_unit_test(test_while_both_wait),
        cmocka_unit_test(test_anything_at_any_moment),
        cmocka_unit_test(test_two_statements_about_one_name),
        cmocka_unit_test(test_replaced_by_something_else_meanwhile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
