/* Partitions that a stream gets while queries read it: each record once, from the first one of each partition, at the moment that the trail says. */
#include "fmt/murmur2.h"
#include "sql/server/rig_test.h"
#include "sql/server/run.h"

#define STREAM                                                                                                         \
    "CREATE STREAM s (v BIGINT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '%u' SECOND) WITH (topic = 'in', "     \
    "partitions = 1);"

static struct stream *the_stream(struct world *w)
{
    return queue_find(vhost_find(w->rig->b, slice_str("/")), slice_str("in"))->stream;
}

static void make_more(struct world *w, uint32_t count)
{
    if (count > the_stream(w)->partition_count)
        assert_true(rig_ask_full(w->rig, CMD_STREAM_GROW, 1, 0, "in", NULL, NULL, (struct slice){0}, 0, count));
}

/* One record, whose time is its number in seconds; the key says which partition it goes to. It is under way. */
static void publish_padded(struct world *w, unsigned v, unsigned key, int pad)
{
    char body[600], text[20];
    struct table t;
    snprintf(text, sizeof text, "k%u", key);
    amqp_put_str(&table(&t)->w, "x-stream-key", slice_str(text));
    struct amqp_props props = {
        .present = AMQP_HEADERS | AMQP_DELIVERY_MODE, .delivery_mode = 2, .headers = writer_slice(&t.w)};
    snprintf(body, sizeof body, "{\"v\":%u,\"ts\":\"2026-01-01 00:%02u:%02u\",\"pad\":\"%0*u\"}", v, v / 60, v % 60,
             pad, 0u);
    rig_command(w->rig, 0, CMD_PUBLISH, 1, 1)->msg = row_with(w->rig, "", "in", body, strlen(body), &props);
}

static void publish_keyed(struct world *w, unsigned v, unsigned key)
{
    publish_padded(w, v, key, 1);
}

static void put_keyed(struct world *w, unsigned v, unsigned key)
{
    publish_keyed(w, v, key);
    rig_step(w->rig);
}

static void put_many(struct world *w, unsigned count, unsigned v, unsigned key)
{
    for (unsigned i = 0; i < count; i++) {
        publish_padded(w, v, key, 300);
        rig_step(w->rig);
        rig_clear(w->rig);
    }
    rest(w);
}

static unsigned key_of(uint32_t partition, uint32_t count)
{
    char text[20] = "k0";
    unsigned key = 0;
    while (murmur2_partition(slice_str(text), count) != partition)
        snprintf(text, sizeof text, "k%u", ++key);
    return key;
}

static void put_at(struct world *w, unsigned v, uint32_t partition)
{
    put_keyed(w, v, key_of(partition, the_stream(w)->partition_count));
    rest_and_hear(w);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static char *sorted(const char *text)
{
    char *lines[512], *save, *copy = strdup(text), *ret = calloc(1, strlen(text) + 2), *at = ret;
    size_t count = 0;
    for (char *line = strtok_r(copy, "\n", &save); line && count < ARRAY_LEN(lines); line = strtok_r(NULL, "\n", &save))
        lines[count++] = line;
    qsort(lines, count, sizeof *lines, by_text);
    for (size_t i = 0; i < count; i++)
        at += snprintf(at, strlen(lines[i]) + 2, "%s\n", lines[i]);
    free(copy);
    return ret;
}

static void wait_long(struct world *w)
{
    for (unsigned i = 0; i < 30; i++) {
        w->rig->now += NS_PER_S;
        w->rig->wall += 1000;
        rig_step(w->rig);
    }
    rest(w);
}

static void expect(struct world *w, const char *rows, const char *when)
{
    if (strcmp(records_of(w, "out"), rows) != 0)
        rig_fail("%s out has\n%s\nand not\n%s", when, records_of(w, "out"), rows);
}

static void make(struct world *w, unsigned delay, const char *query)
{
    char text[2000];
    snprintf(text, sizeof text, STREAM "CREATE STREAM out WITH (partitions = 1) AS %s", delay, query);
    must(w, text);
}

#define QUERY "SELECT v, COUNT(*) AS n FROM s GROUP BY v EMIT CHANGES"
#define WINDOWS                                                                                                        \
    "SELECT window_end, COUNT(*) AS n FROM TUMBLE(s, ts, INTERVAL '5' SECOND) GROUP BY window_start, window_end"

/* ---- read at once ---- */

static void test_read_while_it_runs(void **state)
{
    static const char *const queries[] = {"SELECT v FROM s", QUERY};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(queries); i++) {
        struct world *w = world_new();
        make(w, 0, queries[i]);
        put_at(w, 1, 0);
        make_more(w, 3);
        put_at(w, 2, 1);
        put_at(w, 3, 2);
        put_at(w, 4, 0);
        assert_int_equal(lines_of(records_of(w, "out")), 4);
        make_more(w, 4);
        struct world *other = world_cut(w, w->rig->log->count);
        put_at(other, 5, 3);
        assert_int_equal(lines_of(records_of(other, "out")), 5);
        world_free(other);
        world_free(w);
    }
}

/* A SELECT that goes on reads them, too; one that is about what is there does not wait for them. */
static void test_selects(void **state)
{
    struct world *w = world_new();
    (void)state;
    make(w, 0, "SELECT v FROM s");
    say(w, "SELECT v FROM s EMIT CHANGES");
    make_more(w, 2);
    put_at(w, 1, 1);
    rest_and_hear(w);
    if (!strstr(w->said, "{\"row\":[1]}"))
        rig_fail("said: %s", w->said);
    say(w, "SELECT v FROM s");
    assert_true(w->ended);
    world_free(w);
}

/* ---- time ---- */

/* A partition holds back the time from where it appears, in a replay as well; what was given before is not given again, nor held back. */
static void test_time_of_one_that_appears(void **state)
{
    (void)state;
    for (uint64_t snapshots = 0; snapshots < 2; snapshots++) {
        struct world *w = world_with(snapshots * 2);
        make(w, 0, WINDOWS);
        put_at(w, 1, 0);
        put_at(w, 6, 0);
        expect(w, "{\"window_end\":\"2026-01-01T00:00:05Z\",\"n\":1}\n", "before,");
        make_more(w, 2);
        put_at(w, 12, 0);
        expect(w, "{\"window_end\":\"2026-01-01T00:00:05Z\",\"n\":1}\n", "while it is silent,");
        struct world *other = world_cut(w, w->rig->log->count), *both[] = {w, other};
        for (size_t i = 0; i < ARRAY_LEN(both); i++) {
            put_at(both[i], 7, 1);
            put_at(both[i], 13, 1);
            expect(both[i],
                   "{\"window_end\":\"2026-01-01T00:00:05Z\",\"n\":1}\n{\"window_end\":\"2026-01-01T00:00:10Z\",\"n\":"
                   "2}\n",
                   i ? "after a start," : "in the end,");
        }
        world_free(other);
        world_free(w);
    }
}

/* It is silent: after a second it holds nothing back, and a start knows. */
static void test_one_that_stays_silent(void **state)
{
    struct world *w = world_new();
    (void)state;
    make(w, 0, WINDOWS);
    put_at(w, 1, 0);
    make_more(w, 2);
    rig_pass(w->rig, 600);
    put_at(w, 6, 0);
    expect(w, "", "at once,");
    rig_pass(w->rig, 600);
    expect(w, "{\"window_end\":\"2026-01-01T00:00:05Z\",\"n\":1}\n", "after a second,");
    struct world *other = world_cut(w, w->rig->log->count);
    put_at(other, 12, 0);
    expect(other,
           "{\"window_end\":\"2026-01-01T00:00:05Z\",\"n\":1}\n{\"window_end\":\"2026-01-01T00:00:10Z\",\"n\":1}\n",
           "after a start,");
    world_free(other);
    world_free(w);
}

/* All fall silent in one moment, and the last of them never had a row: it holds the others back no longer than any does. */
static void test_all_fall_silent_at_once(void **state)
{
    static const char *const given = "{\"window_end\":\"2026-01-01T00:00:05Z\",\"n\":1}\n";
    struct world *w = world_new();
    (void)state;
    make(w, 0, "SELECT v FROM s");
    make_more(w, 2);
    must(w, "CREATE STREAM windows WITH (partitions = 1) AS " WINDOWS);
    put_at(w, 1, 0);
    put_at(w, 6, 0);
    assert_string_equal(records_of(w, "windows"), "");
    struct world *other = world_cut(w, w->rig->log->count), *both[] = {w, other};
    for (size_t i = 0; i < ARRAY_LEN(both); i++) {
        rest(both[i]);
        rig_pass(both[i]->rig, 1200);
        assert_string_equal(records_of(both[i], "windows"), given);
    }
    world_free(other);
    other = world_cut(w, w->rig->log->count);
    put_at(other, 7, 0);
    put_at(other, 8, 1);
    put_at(other, 12, 0);
    put_at(other, 12, 1);
    assert_string_equal(
        records_of(other, "windows"),
        "{\"window_end\":\"2026-01-01T00:00:05Z\",\"n\":1}\n{\"window_end\":\"2026-01-01T00:00:10Z\",\"n\":3}\n");
    world_free(other);
    world_free(w);
}

/* Which of them has the earlier time, and so who is the last to be called silent in that moment, makes no difference. */
static void test_all_fall_silent_at_different_times(void **state)
{
    static const char *const given = "{\"window_end\":\"2026-01-01T00:00:05Z\",\"n\":1}\n"
                                     "{\"window_end\":\"2026-01-01T00:00:10Z\",\"n\":2}\n";
    (void)state;
    for (uint32_t late = 0; late < 2; late++) {
        struct world *w = world_new();
        make(w, 0, "SELECT v FROM s");
        make_more(w, 2);
        must(w, "CREATE STREAM windows WITH (partitions = 1) AS " WINDOWS);
        put_at(w, 1, !late);
        put_at(w, 6, late);
        put_at(w, 7, !late);
        put_at(w, 500, !late);
        struct world *other = world_cut(w, w->rig->log->count), *both[] = {w, other};
        for (size_t i = 0; i < ARRAY_LEN(both); i++) {
            rest(both[i]);
            rig_pass(both[i]->rig, 1200);
            if (strcmp(records_of(both[i], "windows"), given) != 0)
                rig_fail("partition %u is behind: %s", late, records_of(both[i], "windows"));
        }
        world_free(other);
        world_free(w);
    }
}

/* ---- a query that is replaced meanwhile ---- */

static unsigned grown_turn; /* from the statement on; then the stream grows, and its new partition gets records */

static void grow_then(struct world *w)
{
    unsigned turn = ++w->count;
    struct ask *ask =
        turn == grown_turn ? ask_new(slice_str("in"), (struct slice){0}, (struct slice){0}, (struct slice){0}) : NULL;
    if (ask) {
        struct command *c = rig_command(w->rig, 0, CMD_STREAM_GROW, 1, 0);
        ask->number = c->number = 2;
        c->ask = ask;
    }
    if (turn >= grown_turn && turn < grown_turn + 6)
        publish_keyed(w, 20 + turn - grown_turn, key_of(1 - turn % 2, 2));
}

struct replaced {
    const char *query;
    unsigned fillers, rows; /* records before the statement, beside 6; rows in the end */
    uint64_t snapshot_rows;
    bool paused;
};

static void check_replaced(const struct replaced *r, bool *ret_more)
{
    struct world *w = world_with(r->snapshot_rows);
    char text[1000];
    make(w, 3000, r->query);
    for (unsigned v = 0; v < 6; v++)
        put_keyed(w, v, 0);
    put_many(w, r->fillers, 6, 0);
    if (r->paused)
        must(w, "PAUSE out");
    snprintf(text, sizeof text, "CREATE OR REPLACE STREAM out WITH (partitions = 1) AS %s", r->query);
    w->count = 0;
    w->meanwhile = grow_then;
    must(w, text);
    *ret_more = w->count > grown_turn + 2;
    while (w->count < grown_turn + 8)
        rig_step(w->rig);
    w->meanwhile = NULL;
    rig_pass(w->rig, 100);
    if (lines_of(records_of(w, "out")) != r->rows)
        rig_fail("%.100s, %spaused, grown in turn %u: %s", r->query, r->paused ? "" : "not ", grown_turn,
                 sorted(records_of(w, "out")));
    world_free(w);
}

#define MANY 6000u /* they are not near, and do not come with one fetch */

/* Whoever of both hears of it first, and whether the old one does at all: each row comes once. */
static void test_grown_while_it_is_replaced(void **state)
{
    static const struct replaced all[] = {
        {"SELECT v FROM s", 0, 12, 0, false},
        {"SELECT v FROM s", 0, 12, 0, true},
        {QUERY, 0, 12, 0, false},
        {QUERY, 0, 12, 3, false},
        {QUERY, 0, 12, 0, true},
        {QUERY, 0, 12, 3, true},
        {"SELECT v FROM s WHERE v >= 20", MANY, 6, 0, true},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        bool more = true;
        for (grown_turn = 1; more; grown_turn++)
            check_replaced(&all[i], &more);
        assert_true(grown_turn > 5);
    }
}

/* A version that has stopped has read nothing of them, and the new one gives all that is in them. */
static void test_grown_after_it_was_paused(void **state)
{
    struct world *w = world_new();
    (void)state;
    make(w, 0, "SELECT v FROM s");
    put_at(w, 1, 0);
    must(w, "PAUSE out");
    make_more(w, 3);
    put_at(w, 2, 2);
    must(w, "CREATE OR REPLACE STREAM out WITH (partitions = 1) AS SELECT v * 10 AS v FROM s");
    rest(w);
    expect(w, "{\"v\":1}\n{\"v\":20}\n", "when it was replaced,");
    world_free(w);
}

/* What waits for a full queue is so much that the old version takes nothing, nor a partition: it has to before the other one takes its place. */
static void test_grown_while_the_old_one_waits(void **state)
{
    struct world *w = world_new();
    struct table t;
    unsigned got = 0;
    (void)state;
    amqp_put_long(&table(&t)->w, "x-max-length", 2);
    amqp_put_str(&t.w, "x-overflow", slice_str("reject-publish"));
    declare(w->rig, "short", writer_slice(&t.w));
    must(w, "CREATE STREAM s (v BIGINT) WITH (topic = 'in', partitions = 1); CREATE SINK out WITH (queue = 'short') AS "
            "SELECT v, repeat('x', 35000) AS pad FROM s WHERE v < 50");
    for (unsigned v = 0; v < 40; v++)
        put_at(w, v, 0);
    make_more(w, 2);
    put_at(w, 40, 1);
    put_many(w, MANY, 50, key_of(1, 2));
    say(w, "CREATE OR REPLACE SINK out WITH (queue = 'short') AS SELECT v FROM s WHERE v < 50");
    for (unsigned i = 0; i < 60; i++) {
        rig_clear(w->rig);
        assert_true(rig_ask(w->rig, CMD_GET, 1, 1, "short", NULL, NULL, (struct slice){0}, ASK_NO_ACK));
        got += rig_count(w->rig, EFF_GET_OK);
        rig_pass(w->rig, 60);
    }
    assert_int_equal(got, 41);
    say(w, "SHOW QUERIES");
    assert_null(strstr(w->said, "amq.sql.next"));
    world_free(w);
}

/* ---- any order of events, any cut ---- */

#define RECORDS 30u
#define SEEDS 20u

struct play {
    const char *query;
    unsigned delay;
    uint64_t snapshot_rows;
    bool replaces;
};

static unsigned next_random(struct world *w, unsigned below)
{
    w->pace = w->pace * 1103515245 + 12345;
    return (w->pace >> 16) % below;
}

/* What is not there yet. */
static void feed_rest(struct world *w)
{
    char mark[20];
    for (unsigned v = 0; v < RECORDS; v++) {
        snprintf(mark, sizeof mark, "{\"v\":%u,", v);
        if (!strstr(records_of(w, "in"), mark))
            put_keyed(w, v, v);
    }
    rest(w);
    rig_pass(w->rig, 1500);
    wait_long(w);
}

/* Records, partitions, pauses and versions, each at some moment. */
static void meddle(struct world *w, const struct play *p)
{
    char text[1000];
    switch (next_random(w, 8)) {
    case 0: make_more(w, the_stream(w)->partition_count + 1 + next_random(w, 2)); break;
    case 1: say(w, next_random(w, 2) ? "PAUSE out" : "RESUME out"); break;
    case 2:
        if (p->replaces && next_random(w, 2)) {
            snprintf(text, sizeof text, "CREATE OR REPLACE STREAM out WITH (partitions = 1) AS %s", p->query);
            say(w, text);
        }
        break;
    case 3: rig_pass(w->rig, next_random(w, 400)); break;
    default:
        if (w->count < RECORDS)
            put_keyed(w, w->count, w->count);
        w->count += w->count < RECORDS;
    }
}

static void check_end(struct world *w, const char *expected, const char *what)
{
    rest(w);
    rig_pass(w->rig, 300);
    say(w, "RESUME out");
    feed_rest(w);
    char *got = sorted(records_of(w, "out"));
    if (strcmp(got, expected) != 0) {
        char *has = strdup(got);
        say(w, "SHOW QUERIES");
        rig_fail("%s: out has\n%s\nand not\n%s\n%s", what, has, expected, w->said);
    }
    free(got);
}

static void check_play(const struct play *p, unsigned seed, const char *expected)
{
    struct world *w = world_with(p->snapshot_rows);
    char what[200];
    make(w, p->delay, p->query);
    size_t begun = w->rig->log->count;
    w->pace = seed;
    while (w->count < RECORDS && w->rig->log->count < begun + 400)
        meddle(w, p);
    rig_pass(w->rig, 50);
    size_t count = w->rig->log->count;
    for (unsigned i = 0; i < 6; i++) {
        size_t cut = begun + next_random(w, (unsigned)(count - begun) + 1);
        struct world *other = world_cut(w, cut);
        snprintf(what, sizeof what, "%.100s, seed %u, cut at %zu of %zu", p->query, seed, cut, count);
        check_end(other, expected, what);
        world_free(other);
    }
    snprintf(what, sizeof what, "%.100s, seed %u", p->query, seed);
    check_end(w, expected, what);
    world_free(w);
}

static char *written_alone(const struct play *p)
{
    struct world *w = world_with(0);
    make(w, p->delay, p->query);
    feed_rest(w);
    char *all = sorted(records_of(w, "out"));
    world_free(w);
    return all;
}

/* In the end each row is there once. Time does not go beyond what may still come, so nothing is late. */
static void test_any_order_and_any_cut(void **state)
{
    static const struct play plays[] = {
        {"SELECT v FROM s", 0, 0, false},
        {"SELECT v FROM s", 0, 0, true},
        {QUERY, 0, 0, true},
        {QUERY, 0, 5, true},
        {QUERY, 0, 5, false},
        {"SELECT l.v FROM s l JOIN s r ON l.v = r.v AND r.ts BETWEEN l.ts AND l.ts + INTERVAL '4' SECOND", 3000, 7,
         true},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(plays); i++) {
        char *expected = written_alone(&plays[i]);
        assert_int_equal(lines_of(expected), RECORDS);
        for (unsigned seed = 1; seed <= SEEDS; seed++)
            check_play(&plays[i], seed, expected);
        free(expected);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read_while_it_runs),
        cmocka_unit_test(test_selects),
        cmocka_unit_test(test_time_of_one_that_appears),
        cmocka_unit_test(test_one_that_stays_silent),
        cmocka_unit_test(test_all_fall_silent_at_once),
        cmocka_unit_test(test_all_fall_silent_at_different_times),
        cmocka_unit_test(test_grown_while_it_is_replaced),
        cmocka_unit_test(test_grown_after_it_was_paused),
        cmocka_unit_test(test_grown_while_the_old_one_waits),
        cmocka_unit_test(test_any_order_and_any_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
