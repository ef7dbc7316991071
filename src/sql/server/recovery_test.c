/* Recovery of queries: whatever the journal has when the process dies, what a query has written in the end is what it would have written. */
#include "sql/server/rig_test.h"

#include "fmt/compress.h"
#include "sql/server/server_int.h"

/* Times go up by a second; values are not the same twice in a window. */
static const char *event_of(unsigned i, char body[200])
{
    if (i % 9 == 8)
        snprintf(body, 200, "no json %u", i);
    else
        snprintf(body, 200, "{\"k\":\"%c\",\"v\":%u,\"ts\":\"2026-01-01 00:%02u:%02u\"}", 'a' + i % 3, i, i / 60,
                 i % 60);
    return body;
}

static void feed(struct world *w, unsigned from, unsigned upto)
{
    char body[200];
    for (unsigned i = from; i < upto; i++)
        put(w->rig, "in", event_of(i, body));
}

#define RECORDS 40u

/* One more now and then, whatever is under way. */
static void feed_in(struct world *w, unsigned turns)
{
    char body[200];
    w->pace = w->pace * 1103515245 + 12345;
    if (w->count < RECORDS && (w->pace >> 16) % turns == 0)
        assert_true(rig_publish(w->rig, 1, 1, "", "in", event_of(w->count++, body), true));
}

static void feed_one(struct world *w)
{
    feed_in(w, 3);
}

/* One by one at a pace that is never the server's; 0: five at a time, and what comes of them. */
static void feed_all(struct world *w, unsigned pace)
{
    for (unsigned i = 0; i < RECORDS && !pace; i += 5)
        feed(w, i, i + 5);
    w->pace = pace;
    w->meanwhile = pace ? feed_one : NULL;
    while (pace && w->count < RECORDS)
        rig_pass(w->rig, 1);
    rest(w);
}

static void declare_all(struct world *w, const char *query, unsigned partitions)
{
    char text[2000];
    snprintf(text, sizeof text,
             "CREATE STREAM s (k TEXT, v BIGINT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '2' SECOND) WITH "
             "(topic = 'in', partitions = %u);"
             "CREATE STREAM out WITH (partitions = 1) AS %s",
             partitions, query);
    say(w, text);
    if (strstr(w->said, "error"))
        rig_fail("%s", w->said);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* What a stream holds in the end. Which partition is read first is nobody's business: of several the order of rows is not looked at, and time goes
 * on until nothing waits for it. */
static char *written(struct world *w, const char *stream, unsigned partitions)
{
    char *lines[512], *save, *text, *sorted, *at;
    size_t count = 0;
    if (partitions == 1)
        return strdup(records_of(w, stream));
    for (unsigned i = 0; i < 20; i++) {
        w->rig->now += NS_PER_S;
        w->rig->wall += 1000;
        rig_step(w->rig);
    }
    rest(w);
    text = strdup(records_of(w, stream));
    size_t room = strlen(text) + 2;
    at = sorted = calloc(1, room);
    for (char *line = strtok_r(text, "\n", &save); line && count < ARRAY_LEN(lines); line = strtok_r(NULL, "\n", &save))
        lines[count++] = line;
    qsort(lines, count, sizeof *lines, by_text);
    for (size_t i = 0; i < count; i++)
        at += snprintf(at, (size_t)(sorted + room - at), "%s\n", lines[i]);
    free(text);
    return sorted;
}

static void compare(struct world *w, const char *stream, unsigned partitions, const char *expected, const char *what)
{
    char *got = written(w, stream, partitions);
    if (strcmp(got, expected) != 0)
        rig_fail("%s: %s has\n%s\nand not\n%s", what, stream, got, expected);
    free(got);
}

/* The journal is cut at every record; the rest of the input comes then. */
static void check_cuts_of(const char *query, uint64_t snapshot_rows, unsigned partitions, unsigned pace)
{
    struct world *w = world_with(snapshot_rows);
    declare_all(w, query, partitions);
    size_t begun = w->rig->log->count;
    feed_all(w, pace);
    char *expected = written(w, "out", partitions), *letters = written(w, "out.dlq", partitions);
    size_t count = w->rig->log->count;
    assert_int_equal(queue_id(w->rig, "amq.sql.out") != 999999, snapshot_rows != 0);
    assert_true(lines_of(expected) > 2 && lines_of(letters) == RECORDS / 9);
    for (size_t cut = begun; cut <= count; cut++) {
        struct world *other = world_cut(w, cut);
        char what[300];
        rest(other);
        unsigned there = lines_of(records_of(other, "in"));
        snprintf(what, sizeof what, "%.150s\ncut at %zu of %zu, with %u records", query, cut, count, there);
        feed(other, there, RECORDS);
        rest(other);
        compare(other, "out", partitions, expected, what);
        compare(other, "out.dlq", partitions, letters, what);
        world_free(other);
    }
    free(expected);
    free(letters);
    world_free(w);
}

static void check_cuts(const char *query, uint64_t snapshot_rows, unsigned partitions)
{
    check_cuts_of(query, snapshot_rows, partitions, 0);
}

#define WINDOWS                                                                                                        \
    "SELECT k, window_end, COUNT(*) AS n, SUM(v) AS sum FROM TUMBLE(s, ts, INTERVAL '5' SECOND) "                      \
    "GROUP BY k, window_start, window_end EMIT ON WINDOW CLOSE"

#define TOTAL "SELECT COUNT(*) AS n, SUM(v) AS sum FROM s"

#define EVERY                                                                                                          \
    "SELECT k, window_end, COUNT(*) AS n FROM TUMBLE(s, ts, INTERVAL '5' SECOND) GROUP BY k, window_start, "           \
    "window_end "                                                                                                      \
    "EMIT EVERY INTERVAL '3' SECOND"

#define JOIN                                                                                                           \
    "SELECT l.k, l.v AS x, r.v AS y FROM s l JOIN s r ON l.k = r.k AND r.ts BETWEEN l.ts AND l.ts + INTERVAL '4' "     \
    "SECOND"

#define UNION                                                                                                          \
    "SELECT k, window_end, COUNT(*) AS n FROM TUMBLE((SELECT k, ts FROM s UNION ALL SELECT k, ts FROM s WHERE v % 2 "  \
    "= 0), ts, INTERVAL '5' SECOND) GROUP BY k, window_start, window_end EMIT EVERY INTERVAL '3' SECOND"

#define PATTERN                                                                                                        \
    "SELECT * FROM s MATCH_RECOGNIZE (PARTITION BY k ORDER BY ts MEASURES FIRST(A.v) AS a, SUM(B.v) AS b, C.v AS c "   \
    "AFTER MATCH SKIP TO NEXT ROW PATTERN (A (A | B)+ C) WITHIN INTERVAL '15' SECOND DEFINE A AS v % 2 = 0, B AS "     \
    "COUNT(A.v) < 3, C AS v > A.v AND v % 3 = 0)"

static void test_any_cut(void **state)
{
    (void)state;
    check_cuts("SELECT k, v FROM s WHERE v <> 3", 0, 1);
    check_cuts(WINDOWS, 0, 1);
    check_cuts("SELECT k, COUNT(*) AS n FROM s GROUP BY k EMIT CHANGES", 0, 1);
    check_cuts(TOTAL, 0, 1);
    check_cuts(JOIN, 0, 1);
    check_cuts(EVERY, 0, 1);
    check_cuts(UNION, 0, 1);
    check_cuts(PATTERN, 0, 1);
}

static void test_any_cut_of_partitions(void **state)
{
    (void)state;
    check_cuts("SELECT k, v FROM s WHERE v <> 3", 0, 3);
    check_cuts(WINDOWS, 0, 3);
    check_cuts(WINDOWS, 5, 3);
    check_cuts(JOIN, 4, 2);
}

static void test_snapshots(void **state)
{
    (void)state;
    check_cuts(WINDOWS, 7, 1);
    check_cuts("SELECT k, COUNT(*) AS n, MAX(v) AS most FROM s GROUP BY k EMIT CHANGES", 3, 1);
    check_cuts(TOTAL, 3, 1);
    check_cuts(JOIN, 3, 1);
    check_cuts(EVERY, 3, 1);
    check_cuts(UNION, 3, 1);
    check_cuts(PATTERN, 3, 1);
    check_cuts(PATTERN, 7, 1);
}

/* Records that come at any moment of a step or a snapshot. */
static void test_snapshots_under_load(void **state)
{
    (void)state;
    for (unsigned pace = 1; pace < 20; pace += 2) {
        check_cuts_of(WINDOWS, 5, 1, pace);
        check_cuts_of(JOIN, 3, 1, pace);
    }
}

#define MANY_KEYS 600u
#define LATER_KEYS 3u

/* Keys are long, so that a snapshot has several pieces. */
static void body_of(char body[4096], unsigned key, unsigned value)
{
    snprintf(body, 4096, "{\"k\":\"%u%03800u\",\"v\":%u}", key, 0u, value);
}

/* Records come between the pieces of the first snapshot. */
static void feed_while_written(struct world *w)
{
    const struct amqp_props props = {.present = AMQP_DELIVERY_MODE, .delivery_mode = 2};
    const struct queue *q = queue_find(vhost_find(w->rig->b, slice_str("/")), slice_str("amq.sql.out"));
    char body[4096];
    if (!q || !q->stream->partitions[0]->end || w->count == LATER_KEYS)
        return;
    body_of(body, w->count, 1000 + w->count);
    w->count++;
    struct msg *msg = row_with(w->rig, "", "in", body, strlen(body), &props);
    assert_non_null(msg);
    rig_command(w->rig, 0, CMD_PUBLISH, 1, 1)->msg = msg;
}

static void test_input_goes_on_while_a_snapshot_is_written(void **state)
{
    struct world *w = world_with(MANY_KEYS), *other;
    char body[4096];
    (void)state;
    say(w, "CREATE STREAM s (k TEXT, v BIGINT) WITH (topic = 'in'); CREATE STREAM out WITH (partitions = 1) AS "
           "SELECT COUNT(*) AS n, MAX(v) AS v FROM s GROUP BY k EMIT CHANGES");
    w->meanwhile = feed_while_written;
    for (unsigned i = 0; i < MANY_KEYS; i++) {
        body_of(body, i, i);
        put(w->rig, "in", body);
    }
    rest(w);
    assert_int_equal(w->count, LATER_KEYS);
    other = world_cut(w, w->rig->log->count);
    struct world *both[] = {w, other};
    for (size_t i = 0; i < ARRAY_LEN(both); i++)
        for (unsigned key = 0; key < LATER_KEYS; key++) {
            body_of(body, key, 2000 + key);
            put(both[i]->rig, "in", body);
            rest(both[i]);
        }
    rig_pass(other->rig, 3000); /* what the journal had of streams goes to their files */
    char *expected = strdup(records_of(w, "out"));
    assert_int_equal(lines_of(expected), MANY_KEYS + 4 * LATER_KEYS);
    if (strcmp(records_of(other, "out"), expected) != 0)
        rig_fail("wrote\n%s\nand not\n%s", strstr(records_of(other, "out"), "\"n\":2"), strstr(expected, "\"n\":2"));
    free(expected);
    world_free(other);
    world_free(w);
}

/* Windows end though nothing comes, and a restart repeats it. */
static void test_time_goes_on(void **state)
{
    struct world *w = world_new();
    (void)state;
    declare_all(
        w, "SELECT k, COUNT(*) AS n FROM TUMBLE(s, ts, INTERVAL '5' SECOND) GROUP BY k, window_start, window_end", 1);
    feed(w, 0, 3);
    rest(w);
    rig_pass(w->rig, 900);
    assert_string_equal(records_of(w, "out"), "");
    rig_pass(w->rig, 4000); /* the watermark was 00:00:00 */
    assert_string_equal(records_of(w, "out"), "");
    rig_pass(w->rig, 200);
    const char *expected = "{\"k\":\"a\",\"n\":1}\n{\"k\":\"b\",\"n\":1}\n{\"k\":\"c\",\"n\":1}\n";
    assert_string_equal(records_of(w, "out"), expected);
    size_t count = w->rig->log->count;
    rig_pass(w->rig, 60000);
    rest(w);
    assert_int_equal(w->rig->log->count, count); /* nothing waits for time any more, so nothing is written */
    struct world *other = world_cut(w, w->rig->log->count);
    rest(other);
    feed(other, 4, 5); /* late, since time went on */
    rest(other);
    rig_pass(other->rig, 60000);
    assert_string_equal(records_of(other, "out"), expected);
    world_free(other);
    world_free(w);
}

#define UNITED                                                                                                         \
    "CREATE STREAM l (k TEXT, ts TIMESTAMP, WATERMARK FOR ts AS ts) WITH (topic = 'left', partitions = 1);"            \
    "CREATE STREAM r (k TEXT, ts TIMESTAMP, WATERMARK FOR ts AS ts) WITH (topic = 'right', partitions = 1);"           \
    "CREATE STREAM out WITH (partitions = 1) AS SELECT k, COUNT(*) AS n FROM TUMBLE((SELECT k, ts FROM l UNION ALL "   \
    "SELECT k, ts FROM r), ts, INTERVAL '5' SECOND) GROUP BY k, window_start, window_end"

/* Of two inputs the one that is ahead is silent, and what is to come waits for the other one: nothing is written meanwhile. */
static void test_time_waits_for_the_other_input(void **state)
{
    struct world *w = world_new();
    (void)state;
    say(w, UNITED);
    put(w->rig, "right", "{\"k\":\"z\",\"ts\":\"2025-12-31 23:59:00\"}");
    put(w->rig, "left", "{\"k\":\"a\",\"ts\":\"2026-01-01 00:00:01\"}");
    put(w->rig, "left", "{\"k\":\"b\",\"ts\":\"2026-01-01 00:00:30\"}");
    rest(w);
    rig_pass(w->rig, 6000); /* z is given out, by the other one's time */
    size_t count = w->rig->log->count;
    rig_pass(w->rig, 3000);
    assert_int_equal(w->rig->log->count, count);
    assert_true(sql_server_next_due(w->server) > w->rig->now + NS_PER_MS); /* nor does it want to be called at once */
    put(w->rig, "right", "{\"k\":\"a\",\"ts\":\"2026-01-01 00:00:02\"}");
    rest(w);
    rig_pass(w->rig, 40000); /* the other one's time goes on, too */
    assert_string_equal(records_of(w, "out"), "{\"k\":\"z\",\"n\":1}\n{\"k\":\"a\",\"n\":2}\n{\"k\":\"b\",\"n\":1}\n");
    count = w->rig->log->count;
    rig_pass(w->rig, 3000);
    assert_int_equal(w->rig->log->count, count);
    world_free(w);
}

#define FOLLOWED 12u

static void put_left(struct world *w, unsigned i)
{
    char body[100];
    snprintf(body, sizeof body, "{\"k\":\"a\",\"ts\":\"2026-01-01 00:00:%02u\"}", 3 * i);
    put(w->rig, "left", body);
}

/* What a source that never had a row lets out; then its first rows: one is late by the time that it had been given. */
static void check_follows(struct world *w, const char *what)
{
    static const char *const expected =
        "{\"k\":\"a\",\"n\":2}\n{\"k\":\"a\",\"n\":2}\n{\"k\":\"a\",\"n\":1}\n{\"k\":\"a\",\"n\":2}\n"
        "{\"k\":\"a\",\"n\":2}\n{\"k\":\"a\",\"n\":1}\n{\"k\":\"a\",\"n\":3}\n";
    rest(w);
    for (unsigned i = lines_of(records_of(w, "left")); i < FOLLOWED; i++)
        put_left(w, i);
    rest(w);
    rig_pass(w->rig, 1100);
    if (lines_of(records_of(w, "out")) != 6)
        rig_fail("%s: it gave out\n%s", what, records_of(w, "out"));
    put(w->rig, "right", "{\"k\":\"late\",\"ts\":\"2026-01-01 00:00:08\"}");
    put(w->rig, "right", "{\"k\":\"a\",\"ts\":\"2026-01-01 00:00:34\"}");
    rest(w);
    rig_pass(w->rig, 30000);
    if (strcmp(records_of(w, "out"), expected) != 0)
        rig_fail("%s: it has\n%s\nand not\n%s", what, records_of(w, "out"), expected);
}

/* A source that never had a row does not hold the others back, and a restart repeats when it stopped doing so. */
static void test_time_of_a_source_without_rows(void **state)
{
    (void)state;
    for (uint64_t snapshot_rows = 0; snapshot_rows < 4; snapshot_rows += 3) {
        struct world *w = world_with(snapshot_rows);
        say(w, UNITED);
        size_t begun = w->rig->log->count;
        for (unsigned i = 0; i < 5; i++)
            put_left(w, i);
        rest(w);
        rig_pass(w->rig, 900);
        assert_string_equal(records_of(w, "out"), "");
        rig_pass(w->rig, 200); /* silent for a second: it is as late as it is on the left, 00:00:12 */
        assert_int_equal(lines_of(records_of(w, "out")), 2);
        put_left(w, 5);
        put_left(w, 6);
        rest(w); /* it stays with the left side */
        assert_int_equal(lines_of(records_of(w, "out")), 3);
        size_t count = w->rig->log->count;
        rig_pass(w->rig, 900);
        assert_true(sql_server_next_due(w->server) > w->rig->now + NS_PER_MS);
        check_follows(w, "as it went on");
        for (size_t cut = begun; cut <= count; cut++) {
            struct world *other = world_cut(w, cut);
            char what[60];
            snprintf(what, sizeof what, "cut at %zu of %zu", cut, count);
            check_follows(other, what);
            world_free(other);
        }
        world_free(w);
    }
}

/* Nor does it keep the rows of a join, or what is gathered, waiting. */
static void test_nothing_waits_for_a_source_without_rows(void **state)
{
    struct world *w = world_new();
    (void)state;
    say(w, "CREATE STREAM l (k TEXT, ts TIMESTAMP, WATERMARK FOR ts AS ts) WITH (topic = 'left', partitions = 1);"
           "CREATE STREAM r (k TEXT, ts TIMESTAMP, WATERMARK FOR ts AS ts) WITH (topic = 'right', partitions = 1);"
           "CREATE STREAM alone WITH (partitions = 1) AS SELECT l.k FROM l LEFT JOIN r ON l.k = r.k AND r.ts BETWEEN "
           "l.ts AND l.ts + INTERVAL '4' SECOND WHERE r.k IS NULL;"
           "CREATE STREAM every WITH (partitions = 1) AS SELECT COUNT(*) AS n FROM (SELECT k FROM l UNION ALL SELECT "
           "k FROM r) GROUP BY k EMIT EVERY INTERVAL '2' SECOND");
    put(w->rig, "left", "{\"k\":\"a\",\"ts\":\"2026-01-01 00:00:01\"}");
    put(w->rig, "left", "{\"k\":\"b\",\"ts\":\"2026-01-01 00:00:10\"}");
    rest(w);
    rig_pass(w->rig, 900);
    assert_string_equal(records_of(w, "alone"), "");
    rig_pass(w->rig, 200);
    assert_string_equal(records_of(w, "alone"), "{\"k\":\"a\"}\n");
    rig_pass(w->rig, 2000);
    assert_int_equal(lines_of(records_of(w, "every")), 2);
    world_free(w);
}

/* The time at which rows of one stream arrive says nothing of when the events of another one were: its first ones are not late by that. */
static void test_arrival_is_no_time_of_events(void **state)
{
    struct world *w = world_new();
    (void)state;
    say(w, "CREATE STREAM l (k TEXT) WITH (topic = 'left', partitions = 1);"
           "CREATE STREAM r (k TEXT, ts TIMESTAMP, WATERMARK FOR ts AS ts) WITH (topic = 'right', partitions = 1);"
           "CREATE STREAM out WITH (partitions = 1) AS SELECT l.k, w.n FROM l JOIN (SELECT k, window_end, COUNT(*) AS "
           "n FROM TUMBLE(r, ts, INTERVAL '5' SECOND) GROUP BY k, window_start, window_end) w ON l.k = w.k WITH "
           "(state_ttl = '1 hour')");
    if (strstr(w->said, "error"))
        rig_fail("%s", w->said);
    put(w->rig, "left", "{\"k\":\"a\"}");
    rest(w);
    rig_pass(w->rig, 3000);
    put(w->rig, "right", "{\"k\":\"a\",\"ts\":\"2020-01-01 00:00:01\"}");
    put(w->rig, "right", "{\"k\":\"a\",\"ts\":\"2020-01-01 00:00:02\"}");
    rest(w);
    rig_pass(w->rig, 6000);
    assert_string_equal(records_of(w, "out"), "{\"k\":\"a\",\"n\":2}\n");
    world_free(w);
}

/* A clock that is wrong by centuries: what is due then is waited for, and not asked for in one turn after the other. */
static void test_time_that_is_centuries_off(void **state)
{
    struct world *w = world_new();
    (void)state;
    say(w, UNITED);
    put(w->rig, "left", "{\"k\":\"a\",\"ts\":\"2026-01-01 00:00:01\"}");
    put(w->rig, "right", "{\"k\":\"b\",\"ts\":\"2500-01-01 00:00:00\"}");
    rest(w);
    rig_pass(w->rig, 3000);
    assert_true(sql_server_next_due(w->server) > w->rig->now + NS_PER_MS);
    rig_pass(w->rig, 3000);
    assert_string_equal(records_of(w, "out"), "{\"k\":\"a\",\"n\":1}\n");
    world_free(w);
}

/* Each allocation of each turn fails once: a query goes on as if nothing had happened, or it has failed and says so; resumed after a start it
 * has written what it would have. Statements are answered in any case. */
static void test_no_memory(void **state)
{
    struct world *whole = world_with(7);
    (void)state;
    declare_all(whole, WINDOWS, 1);
    feed(whole, 0, RECORDS);
    rest(whole);
    say(whole, "SELECT k FROM s WHERE v < 2");
    char *expected = strdup(records_of(whole, "out"));
    unsigned turns = whole->turn, hits = 0;
    for (unsigned turn = 2; turn <= turns; turn++)
        for (uint64_t n = 1, more = 1; more; n++) {
            struct world *w = world_with(7);
            w->fail_turn = turn;
            w->fail_at = n;
            say(w, "CREATE STREAM s (k TEXT, v BIGINT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '2' SECOND) "
                   "WITH (topic = 'in')");
            rig_pass(w->rig, 500);
            say(w, "CREATE STREAM IF NOT EXISTS s (k TEXT, v BIGINT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL "
                   "'2' SECOND) "
                   "WITH (topic = 'in'); CREATE STREAM out WITH (partitions = 1) AS " WINDOWS);
            rig_pass(w->rig, 500);
            if (!strstr(w->said, "\"out\"}"))
                say(w, "CREATE STREAM IF NOT EXISTS out WITH (partitions = 1) AS " WINDOWS);
            feed(w, 0, RECORDS);
            rest(w);
            rig_pass(w->rig, 500);
            say(w, "SELECT k FROM s WHERE v < 2");
            rig_pass(w->rig, 500);
            hear(w);
            more = w->hit;
            hits += w->hit;
            struct world *other = world_cut(w, w->rig->log->count);
            rig_pass(other->rig, 100);
            say(other, "RESUME out");
            rig_pass(other->rig, 100);
            if (strcmp(records_of(other, "out"), expected) != 0)
                rig_fail("allocation %llu of turn %u: wrote\n%s\nand not\n%s", (unsigned long long)n, turn,
                         records_of(other, "out"), expected);
            world_free(other);
            world_free(w);
        }
    assert_true(hits > 80);
    free(expected);
    world_free(whole);
}

/* An allocation fails in a turn of the records, and the process dies at any time behind that: resumed, a query has written each row and each dead letter
 * once. */
static void check_no_memory_and_a_cut(const char *query, unsigned turn, uint64_t n, const char *expected,
                                      const char *letter, bool *ret_hit)
{
    struct world *w = world_new();
    declare_all(w, query, 1);
    w->rig->hold = true;
    feed(w, 0, 9);
    size_t begun = w->rig->log->count;
    w->fail_turn = w->turn + turn;
    w->fail_at = n;
    w->rig->hold = false;
    rest(w);
    rig_pass(w->rig, 500);
    *ret_hit = w->hit;
    for (size_t cut = begun; cut <= w->rig->log->count; cut++) {
        struct world *other = world_cut(w, cut);
        rig_pass(other->rig, 300);
        say(other, "RESUME out");
        rig_pass(other->rig, 300);
        if (strcmp(records_of(other, "out"), expected) != 0 || strcmp(records_of(other, "out.dlq"), letter) != 0)
            rig_fail("allocation %llu of turn %u, cut at %zu: wrote\n%s", (unsigned long long)n, turn, cut,
                     records_of(other, "out"));
        world_free(other);
    }
    world_free(w);
}

static void test_no_memory_and_a_cut(void **state)
{
    static const char *const queries[] = {"SELECT k, v FROM s WHERE v <> 3",
                                          "SELECT k, COUNT(*) AS n FROM s GROUP BY k EMIT CHANGES"};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(queries); i++) {
        struct world *whole = world_new();
        bool hit = true;
        unsigned hits = 0;
        declare_all(whole, queries[i], 1);
        feed(whole, 0, 9);
        rest(whole);
        char *expected = strdup(records_of(whole, "out")), *letter = strdup(records_of(whole, "out.dlq"));
        world_free(whole);
        for (unsigned turn = 1; turn < 8; turn++)
            for (uint64_t n = 1; n == 1 || hit; n++, hits += hit)
                check_no_memory_and_a_cut(queries[i], turn, n, expected, letter, &hit);
        assert_true(hits > 10);
        free(expected);
        free(letter);
    }
}

static struct server_object *only_query(struct world *w)
{
    LIST_EACH(&w->server->objects, node, after)
    if (server_object_runs(CONTAINER_OF(node, struct server_object, link)))
        return CONTAINER_OF(node, struct server_object, link);
    return NULL;
}

static bool trail_goes_on(unsigned turn, uint64_t n)
{
    struct world *w = world_new(), *other;
    char body[200];
    declare_all(w, "SELECT COUNT(*) AS n FROM s GROUP BY v - v EMIT CHANGES", 3);
    for (w->count = 0; only_query(w)->trail.len <= 250; w->count++) /* it begins with 256 */
        put(w->rig, "in", event_of(w->count % 8, body));
    w->fail_turn = w->turn + turn;
    w->fail_at = n;
    for (unsigned i = 0; i < 3; i++, w->count++)
        put(w->rig, "in", event_of(w->count % 8, body));
    bool hit = w->hit;
    say(w, "RESUME out");
    rest(w);
    assert_true(lines_of(records_of(w, "out")) <= 2 * w->count - 1);
    other = world_cut(w, w->rig->log->count);
    rest(other);
    say(other, "RESUME out");
    rest(other);
    assert_int_equal(lines_of(records_of(other, "out")), 2 * w->count - 1);
    world_free(other);
    world_free(w);
    return hit;
}

/* A step is not told to the core before there is memory for what it adds to the trail: who goes on from a trail that lacks it gives rows twice. */
static void test_no_memory_for_a_trail(void **state)
{
    (void)state;
    for (unsigned turn = 1; turn < 16; turn++)
        for (uint64_t n = 1; trail_goes_on(turn, n); n++)
            continue;
}

/* What there is no memory for to unpack it is read a little later, though nothing else comes. */
static void test_no_memory_to_unpack(void **state)
{
    const char *expected = "{\"v\":7}\n";
    struct compress *z = compress_new();
    unsigned hits = 0;
    (void)state;
    for (unsigned turn = 1; turn < 8; turn++)
        for (uint64_t n = 1, hit = 1; hit; n++) {
            struct world *w = world_new();
            say(w, "CREATE STREAM s (v BIGINT) WITH (topic = 'in'); CREATE STREAM out AS SELECT v FROM s");
            rig_pass(w->rig, 1000);
            w->rig->log->streams->packs = z;
            w->fail_turn = w->turn + turn;
            w->fail_at = n;
            put(w->rig, "in", "{\"v\":7}");
            rig_pass(w->rig, 1000);
            hit = w->hit;
            hits += w->hit;
            if (only_query(w)->state == SQL_RUNNING && strcmp(records_of(w, "out"), expected) != 0)
                rig_fail("allocation %llu of turn %u: wrote\n%s", (unsigned long long)n, turn, records_of(w, "out"));
            world_free(w);
        }
    assert_true(hits > 5);
    compress_free(&z);
}

/* A full queue took a part of much that was taken bit by bit; a start takes it again in other bits, and what is left comes. */
#define FEW 20u
#define MANY 32u /* that many records are a run of a query of so little memory */

static void feed_numbers(struct world *w, unsigned count)
{
    char body[40];
    for (unsigned i = 0; i < count; i++, w->count++) {
        snprintf(body, sizeof body, "{\"v\":%u}", w->count);
        put(w->rig, "in", body);
    }
}

static void expect_numbers(struct world *w, unsigned from, unsigned upto)
{
    for (unsigned i = from; i < upto; i++) {
        char expected[40];
        rig_clear(w->rig);
        assert_true(rig_ask(w->rig, CMD_GET, 1, 1, "short", NULL, NULL, (struct slice){0}, ASK_NO_ACK));
        snprintf(expected, sizeof expected, "{\"v\":%u,", i);
        const struct effect *e = rig_nth(w->rig, EFF_GET_OK, 0);
        if (!e || !slice_starts(msg_body(e->msg), expected))
            rig_fail("%s is not there", expected);
        rig_pass(w->rig, 100);
    }
}

static void test_much_waits_for_a_full_queue(void **state)
{
    struct world *w = world_new(), *other;
    struct table t;
    (void)state;
    amqp_put_long(&table(&t)->w, "x-max-length", 2);
    amqp_put_str(&t.w, "x-overflow", slice_str("reject-publish"));
    declare(w->rig, "short", writer_slice(&t.w));
    say(w,
        "CREATE STREAM s (v BIGINT) WITH (topic = 'in');"
        "CREATE SINK q WITH (queue = 'short', state_memory = '64 KiB') AS SELECT v, repeat('x', 35000) AS pad FROM s");
    feed_numbers(w, 3); /* two of them fill it */
    feed_numbers(w, FEW);
    w->rig->hold = true;
    feed_numbers(w, MANY);
    w->rig->hold = false;
    rest(w);
    expect_numbers(w, 0, 2);
    other = world_cut(w, w->rig->log->count);
    rig_pass(other->rig, 100);
    expect_numbers(other, 2, 3 + FEW + MANY);
    world_free(other);
    world_free(w);
}

/* ---- replaced in place ---- */

static void feed_seldom(struct world *w)
{
    feed_in(w, 12);
}

struct versions {
    const char *old, *next;
    unsigned partitions;
    uint64_t snapshot_rows;
};

static char *written_alone(const char *query, const struct versions *v)
{
    struct world *w = world_with(v->snapshot_rows);
    declare_all(w, query, v->partitions);
    feed(w, 0, RECORDS);
    rest(w);
    char *all = strdup(records_of(w, "out"));
    world_free(w);
    return all;
}

static size_t line_after(const char *text, size_t at)
{
    const char *end = strchr(text + at, '\n');
    return end ? (size_t)(end - text) + 1 : at;
}

/* Rows of the old version, then from some row on those of the new one, and as many as either gives. How many of the old one. */
static unsigned check_versions(const char *got, const char *old, const char *next, const char *what)
{
    size_t g = 0, o = 0, n = 0;
    unsigned of_old = 0, of_next = 0;
    while (got[g]) {
        size_t len = line_after(got, g) - g, old_len = line_after(old, o) - o, next_len = line_after(next, n) - n;
        bool is_old = len == old_len && memcmp(got + g, old + o, len) == 0;
        bool is_next = len == next_len && memcmp(got + g, next + n, len) == 0;
        if (!(is_old && !of_next) && !is_next)
            rig_fail("%s: row %u of\n%s\nis in neither version's place, of\n%s\nand\n%s", what, of_old + of_next, got,
                     old, next);
        of_next += !(is_old && !of_next);
        of_old += is_old && !of_next;
        g += len;
        o += old_len;
        n += next_len;
    }
    if (old[o] || next[n])
        rig_fail("%s: rows are missing behind\n%s", what, got);
    return of_old;
}

static const char *queries_of(struct world *w)
{
    say(w, "SHOW QUERIES");
    return w->said;
}

static void wait_for_the_switch(struct world *w, const char *what)
{
    for (unsigned i = 0; i < 100 && strstr(queries_of(w), "amq.sql.next.out"); i++)
        rig_pass(w->rig, 10);
    if (strstr(w->said, "amq.sql.next.out") || !strstr(w->said, "[\"out\",\"RUNNING\""))
        rig_fail("%s:\n%s", what, w->said);
}

/* Under load, and the journal is cut at every record from the statement on; the rest of the input comes then. */
static void check_replaced(const struct versions *v, unsigned pace)
{
    char text[1000], what[400];
    char *old = written_alone(v->old, v), *next = written_alone(v->next, v);
    struct world *w = world_with(v->snapshot_rows);
    declare_all(w, v->old, v->partitions);
    w->pace = pace;
    w->meanwhile = feed_seldom;
    while (w->count < RECORDS / 3)
        rig_pass(w->rig, 1);
    size_t begun = w->rig->log->count;
    snprintf(text, sizeof text, "CREATE OR REPLACE STREAM out WITH (partitions = 1) AS %s", v->next);
    say(w, text);
    while (w->count < RECORDS)
        rig_pass(w->rig, 1);
    rest(w);
    snprintf(what, sizeof what, "%.200s, pace %u", v->next, pace);
    wait_for_the_switch(w, what);
    unsigned of_old = check_versions(records_of(w, "out"), old, next, what);
    if (!of_old || of_old == lines_of(old))
        rig_fail("%s: %u rows of the old one, of\n%s", what, of_old, old);
    size_t count = w->rig->log->count;
    for (size_t cut = begun; cut <= count; cut++) {
        struct world *other = world_cut(w, cut);
        snprintf(what, sizeof what, "%.200s, pace %u, cut at %zu of %zu", v->next, pace, cut, count);
        rest(other);
        feed(other, lines_of(records_of(other, "in")), RECORDS);
        rest(other);
        wait_for_the_switch(other, what);
        rest(other);
        check_versions(records_of(other, "out"), old, next, what);
        world_free(other);
    }
    world_free(w);
    free(old);
    free(next);
}

static void test_replaced_under_load(void **state)
{
    static const struct versions versions[] = {
        {"SELECT k, v FROM s WHERE v <> 3", "SELECT k, v * 1000 + 1 AS v FROM s WHERE v <> 3", 1, 0},
        {"SELECT k, COUNT(*) AS n FROM s GROUP BY k EMIT CHANGES",
         "SELECT COUNT(*) + 1000 AS n, k FROM s GROUP BY k EMIT CHANGES", 1, 0},
        {WINDOWS,
         "SELECT k, window_end, COUNT(*) AS n, MAX(v) + 1000 AS sum FROM TUMBLE(s, ts, INTERVAL '5' SECOND) GROUP BY "
         "k, "
         "window_start, window_end EMIT ON WINDOW CLOSE",
         1, 4},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(versions); i++)
        for (unsigned pace = 1; pace < 6; pace += 2)
            check_replaced(&versions[i], pace);
}

#define ENDED "{\"k\":\"a\",\"n\":1}\n{\"k\":\"b\",\"n\":1}\n{\"k\":\"c\",\"n\":1}\n"

static void check_time(struct world *w, const char *what)
{
    wait_for_the_switch(w, what);
    rig_pass(w->rig, 60000);
    feed(w, 20, 21);
    rig_pass(w->rig, 60000);
    if (strcmp(records_of(w, "out"), ENDED "{\"k\":\"c\",\"n\":1001}\n") != 0)
        rig_fail("%s:\n%s", what, records_of(w, "out"));
}

/* What the old version has ended by the clock does not end once more in the new one, whatever record the journal ends with. */
static void test_time_that_went_on_before_the_switch(void **state)
{
    struct world *w = world_new();
    char what[40];
    (void)state;
    declare_all(
        w, "SELECT k, COUNT(*) AS n FROM TUMBLE(s, ts, INTERVAL '5' SECOND) GROUP BY k, window_start, window_end", 1);
    feed(w, 0, 3);
    rest(w);
    rig_pass(w->rig, 5200);
    assert_string_equal(records_of(w, "out"), ENDED);
    size_t begun = w->rig->log->count;
    say(w, "CREATE OR REPLACE STREAM out AS SELECT k, COUNT(*) + 1000 AS n FROM TUMBLE(s, ts, INTERVAL '5' SECOND) "
           "GROUP BY k, window_start, window_end");
    wait_for_the_switch(w, "time");
    for (size_t cut = begun + 1; cut <= w->rig->log->count; cut++) { /* from the record of the statement on */
        struct world *other = world_cut(w, cut);
        snprintf(what, sizeof what, "cut at %zu of %zu", cut - begun, w->rig->log->count - begun);
        check_time(other, what);
        world_free(other);
    }
    check_time(w, "no cut");
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_cut),
        cmocka_unit_test(test_any_cut_of_partitions),
        cmocka_unit_test(test_no_memory_and_a_cut),
        cmocka_unit_test(test_no_memory_for_a_trail),
        cmocka_unit_test(test_no_memory_to_unpack),
        cmocka_unit_test(test_much_waits_for_a_full_queue),
        cmocka_unit_test(test_replaced_under_load),
        cmocka_unit_test(test_time_that_went_on_before_the_switch),
        cmocka_unit_test(test_time_waits_for_the_other_input),
        cmocka_unit_test(test_time_of_a_source_without_rows),
        cmocka_unit_test(test_nothing_waits_for_a_source_without_rows),
        cmocka_unit_test(test_arrival_is_no_time_of_events),
        cmocka_unit_test(test_time_that_is_centuries_off),
        cmocka_unit_test(test_snapshots),
        cmocka_unit_test(test_time_goes_on),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_snapshots_under_load),
        cmocka_unit_test(test_input_goes_on_while_a_snapshot_is_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
