/* Sinks: what records and messages a query's rows become, in which partition, when rows are taken back, in steps of any length, and after a replay. */
#include "sql/query/output.h"

#include "base/mem.h"
#include "fmt/amqp_props.h"
#include "fmt/murmur2.h"
#include "fmt/record_batch.h"
#include "sql/language/parse.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define STATE_MAX (1u << 20)
#define WAITS_MAX (64u << 20)
#define SCHEMA "CREATE STREAM s (k TEXT, v BIGINT, t TEXT);"

struct rig {
    struct slab_heap heap;
    struct arena arena;
    struct catalog catalog;
    struct ast_list list;
    struct output *out;
    struct query *q;
    struct sql_error error;
    uint32_t diverted;
    char text[8192]; /* what came out */
    size_t len;
};

static void on_divert(void *arg, uint32_t origin, enum sql_fault fault)
{
    (void)origin, (void)fault;
    ((struct rig *)arg)->diverted++;
}

static bool rig_init(struct rig *r, const char *query, const struct output_target *target, size_t waits_max)
{
    char text[1024];
    *r = (struct rig){.diverted = 0};
    slab_heap_init(&r->heap);
    arena_init(&r->arena, SQL_PARSE_MEMORY_MAX);
    int len = snprintf(text, sizeof text, "%s%s", SCHEMA, query);
    if (!sql_parse(slice_of(text, (size_t)len), &r->arena, &r->list, &r->error) ||
        !catalog_add(&r->catalog, r->list.at[0], &r->error))
        return false;
    r->out = output_new(&r->heap, target, waits_max);
    if (r->out)
        r->q = query_new(&r->catalog, r->list.at[1], STATE_MAX, output_op(r->out), &r->error);
    if (r->q)
        query_divert(r->q, on_divert, r);
    return r->q && output_bind(r->out, query_plan(r->q), &r->error);
}

static void rig_fini(struct rig *r)
{
    query_free(&r->q);
    output_free(&r->out);
    arena_fini(&r->arena);
    slab_heap_fini(&r->heap);
}

static void say(struct rig *r, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int len = vsnprintf(r->text + r->len, sizeof r->text - r->len, format, args);
    va_end(args);
    r->len += (size_t)len;
    assert_true(r->len < sizeof r->text);
}

/* Long values are shown as their length. */
static void say_value(struct rig *r, struct slice s)
{
    if (s.len > 200)
        say(r, "%zu bytes", s.len);
    else
        say(r, "%.*s", SLICE_ARG(s));
}

/* "partition key=value@ms" a line; a batch has to be one that a producer may send. */
static void show_batch(struct rig *r, const struct query_output *o)
{
    struct record_limits limits = {.unpacked_max = 16 << 20};
    struct record_check check;
    struct record_batch batch;
    struct record_reader reader;
    struct record record;
    struct slice body = msg_body(o->msg);
    assert_int_equal(o->msg->flags, MSG_BATCH | MSG_PERSISTENT);
    assert_int_equal(record_batch_check(body, &limits, NULL, &check, NULL), RECORD_OK);
    assert_int_equal(record_batch_open(body, NULL, 0, &batch, &reader), RECORD_OK);
    while (record_next(&reader, &record)) {
        say(r, "%u ", o->partition);
        if (record.has_key)
            say_value(r, record.key);
        say(r, "=");
        if (record.has_value)
            say_value(r, record.value);
        say(r, "@%lld\n", (long long)record.timestamp);
    }
}

static void show_message(struct rig *r, const struct query_output *o)
{
    struct amqp_props props;
    assert_true(amqp_props_parse(msg_props(o->msg), &props));
    assert_int_equal(props.present, AMQP_CONTENT_TYPE | AMQP_DELIVERY_MODE);
    assert_true(slice_is(props.content_type, "application/json") && props.delivery_mode == 2);
    assert_int_equal(o->msg->flags, MSG_PERSISTENT);
    say(r, "%llu:%.*s:%.*s ", (unsigned long long)o->queue, SLICE_ARG(msg_exchange(o->msg)),
        SLICE_ARG(msg_key(o->msg)));
    say_value(r, msg_body(o->msg));
    say(r, "\n");
}

/* Everything that waits; answers how many groups it was. */
static unsigned collect(struct rig *r)
{
    unsigned groups = 0;
    uint64_t place = 0;
    struct output_group *g;
    if (!output_cut(r->out))
        return 0;
    for (; (g = output_take(r->out)) != NULL; groups++) {
        size_t bytes = 0;
        assert_true(g->count > 0 && g->count <= QUERY_OUTPUTS_MAX && g->place >= place);
        place = g->place;
        for (uint32_t i = 0; i < g->count; i++) {
            bytes += msg_size(g->outputs[i].msg);
            if (g->outputs[i].msg->flags & MSG_BATCH)
                show_batch(r, &g->outputs[i]);
            else
                show_message(r, &g->outputs[i]);
        }
        assert_int_equal(bytes, g->bytes);
        assert_true(bytes <= QUERY_STEP_BYTES_MAX || g->count == 1);
        output_group_free(&r->heap, &g);
    }
    assert_true(!groups || place == output_place(r->out));
    assert_int_equal(output_bytes(r->out), 0);
    return groups;
}

static bool feed(struct rig *r, const char *const *rows, uint32_t from, uint32_t until, uint32_t batch)
{
    struct slice at[64];
    int64_t ts[64];
    enum sql_fault fault;
    for (; from < until; from += batch) {
        uint32_t count = until - from < batch ? until - from : batch;
        for (uint32_t i = 0; i < count; i++) {
            at[i] = slice_str(rows[from + i]);
            ts[i] = (from + i) * 1000;
        }
        struct query_input in = {.records = at, .ts_us = ts, .offset = from, .rows = count};
        if (!query_step(r->q, &in, &fault)) {
            assert_int_equal(fault, SQL_FAULT_MEMORY);
            return false;
        }
    }
    return true;
}

static const char *const rows[] = {
    "{\"k\":\"a\",\"v\":1}", "{\"k\":\"b\",\"v\":2}", "{\"k\":\"a\",\"v\":3}", "{\"v\":4}",
    "{\"k\":\"a\",\"v\":9}", "{\"k\":\"b\",\"v\":1}",
};

static struct output_target stream_of(uint32_t partitions, const char *key)
{
    struct output_target t = {.queue = 7, .partitions = partitions};
    if (key)
        t.keys[t.key_count++] = slice_str(key);
    return t;
}

/* The same records whatever the size of the batches. */
static void check(const char *query, const struct output_target *target, uint32_t diverted, const char *expected)
{
    static const uint32_t sizes[] = {1, 2, 64};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct rig r;
        if (!rig_init(&r, query, target, WAITS_MAX))
            fail_msg("%s: %s", query, r.error.message);
        assert_true(feed(&r, rows, 0, ARRAY_LEN(rows), sizes[i]));
        assert_int_equal(collect(&r), 1);
        if (strcmp(r.text, expected) != 0)
            fail_msg("%s\nrows a batch: %u\ngot:\n%s\nexpected:\n%s", query, sizes[i], r.text, expected);
        assert_int_equal(r.diverted, diverted);
        assert_int_equal(query_faults(r.q), diverted);
        rig_fini(&r);
    }
}

static void test_records(void **state)
{
    (void)state;
    struct output_target plain = stream_of(1, NULL), keyed = stream_of(1, "k"), two = keyed, named = keyed, many;
    const struct slice names[] = {slice_str("x"), slice_str("K")};
    check("SELECT v, k FROM s WHERE v < 4", &plain, 0,
          "0 ={\"v\":1,\"k\":\"a\"}@0\n0 ={\"v\":2,\"k\":\"b\"}@1\n0 ={\"v\":3,\"k\":\"a\"}@2\n0 "
          "={\"v\":1,\"k\":\"b\"}@5\n");
    check("SELECT v, k FROM s WHERE v > 3", &keyed, 0, "0 ={\"v\":4,\"k\":null}@3\n0 a={\"v\":9,\"k\":\"a\"}@4\n");
    two.keys[two.key_count++] = slice_str("n");
    check("SELECT v + 1 AS n, k FROM s WHERE v > 3", &two, 0,
          "0 {\"k\":null,\"n\":5}={\"n\":5,\"k\":null}@3\n0 {\"k\":\"a\",\"n\":10}={\"n\":10,\"k\":\"a\"}@4\n");
    named.names = names;
    named.name_count = 2;
    check("SELECT v, k FROM s WHERE v = 9", &named, 0, "0 a={\"x\":9,\"K\":\"a\"}@4\n");
    char expected[64];
    many = stream_of(5, "v");
    snprintf(expected, sizeof expected, "%u 9={\"v\":9}@4\n", murmur2_partition(slice_str("9"), 5));
    check("SELECT v FROM s WHERE v = 9", &many, 0, expected);
}

/* An update is one record, a row that goes is one without a value, unless the same input row brings another with that key. */
static void test_changes(void **state)
{
    (void)state;
    struct output_target keyed = stream_of(1, "k"), plain = stream_of(1, NULL), by_m = stream_of(1, "m");
    check("SELECT k, sum(v) AS m FROM s GROUP BY k", &keyed, 1,
          "0 a={\"k\":\"a\",\"m\":1}@0\n0 b={\"k\":\"b\",\"m\":2}@1\n0 a={\"k\":\"a\",\"m\":4}@2\n"
          "0 a={\"k\":\"a\",\"m\":13}@4\n0 b={\"k\":\"b\",\"m\":3}@5\n");
    check("SELECT k, max(v) AS m FROM s WHERE k IS NOT NULL GROUP BY k HAVING max(v) < 3", &keyed, 0,
          "0 a={\"k\":\"a\",\"m\":1}@0\n0 b={\"k\":\"b\",\"m\":2}@1\n0 a=@2\n");
    check("SELECT k, sum(v) AS m FROM s WHERE k = 'a' GROUP BY k HAVING sum(v) <> 4", &keyed, 0,
          "0 a={\"k\":\"a\",\"m\":1}@0\n0 a=@2\n0 a={\"k\":\"a\",\"m\":13}@4\n"); /* it comes back with another row */
    check("SELECT m, count(*) AS n FROM (SELECT k, max(v) AS m FROM s WHERE v < 4 GROUP BY k) x GROUP BY m", &by_m, 0,
          "0 1={\"m\":1,\"n\":1}@0\n0 2={\"m\":2,\"n\":1}@1\n0 3={\"m\":3,\"n\":1}@2\n0 1=@2\n");
    check("SELECT max(v) AS m FROM s WHERE v < 4", &plain, 0,
          "0 ={\"_op\":\"+\",\"m\":1}@0\n0 ={\"_op\":\"-\",\"m\":1}@1\n0 ={\"_op\":\"+\",\"m\":2}@1\n"
          "0 ={\"_op\":\"-\",\"m\":2}@2\n0 ={\"_op\":\"+\",\"m\":3}@2\n");
}

static void test_messages(void **state)
{
    (void)state;
    struct output_target queue = {.queue = 9, .routing_key = slice_str("the queue")};
    struct output_target exchange = {.exchange = slice_str("amq.topic"), .routing_column = slice_str("K")};
    check("SELECT v FROM s WHERE v > 3", &queue, 0, "9::the queue {\"v\":4}\n9::the queue {\"v\":9}\n");
    check("SELECT k, v FROM s WHERE v > 3", &exchange, 1, "0:amq.topic:a {\"k\":\"a\",\"v\":9}\n");
    check("SELECT max(v) AS k FROM s WHERE v < 3", &exchange, 0,
          "0:amq.topic:1 {\"_op\":\"+\",\"k\":1}\n0:amq.topic:1 {\"_op\":\"-\",\"k\":1}\n0:amq.topic:2 "
          "{\"_op\":\"+\",\"k\":2}\n");
}

/* Records without a key take turns, by their place alone. */
static void test_turns(void **state)
{
    (void)state;
    struct output_target t = stream_of(3, NULL);
    for (unsigned closed = 0; closed < 2; closed++) {
        struct rig r;
        uint32_t counts[3] = {0};
        assert_true(rig_init(&r, "SELECT v FROM s", &t, WAITS_MAX));
        output_open(r.out, closed ? 300 : 0);
        for (unsigned i = 0; i < 4 * OUTPUT_STICKY / 4; i++)
            assert_true(feed(&r, rows, 0, 4, 3));
        assert_true(output_cut(r.out));
        struct output_group *g = output_take(r.out);
        assert_int_equal(g->count, 3);
        assert_int_equal(g->place, 4 * OUTPUT_STICKY);
        for (uint32_t i = 0; i < g->count; i++) {
            struct record_batch batch;
            assert_int_equal(record_batch_peek(msg_body(g->outputs[i].msg), &batch), RECORD_OK);
            counts[g->outputs[i].partition] = batch.count;
        }
        assert_int_equal(counts[0], closed ? OUTPUT_STICKY : 2 * OUTPUT_STICKY);
        assert_int_equal(counts[1], closed ? 2 * OUTPUT_STICKY - 300 : OUTPUT_STICKY);
        assert_int_equal(counts[2], OUTPUT_STICKY);
        output_group_free(&r.heap, &g);
        rig_fini(&r);
    }
}

/* ------------------------------------------------------------------------------------------------- steps and replays */

#define BIG 300000u

/* A query whose first row brings rows that do not fit into one step of the core. */
static void big_rows(char *text, const char **ret, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        int len = snprintf(text, BIG + 100, "{\"k\":\"%c\",\"v\":%u,\"t\":\"", "ab"[i % 2], i);
        memset(text + len, 'x', BIG);
        memcpy(text + len + BIG, "\"}", 3);
        ret[i] = text;
        text += BIG + 100;
    }
}

static void test_more_than_a_step(void **state)
{
    (void)state;
    static const char *const queries[] = {"SELECT k, v, t FROM s",
                                          "SELECT k, max(t) AS t, max(v) AS m FROM s GROUP BY k",
                                          "SELECT max(t) AS k, count(*) AS n FROM s"};
    char *text = mem_alloc(40 * (BIG + 100));
    const char *records[40];
    struct output_target targets[] = {
        stream_of(2, "k"), stream_of(3, NULL), {.queue = 3, .routing_key = slice_str("q")}};
    big_rows(text, records, 40);
    for (size_t i = 0; i < ARRAY_LEN(queries) * ARRAY_LEN(targets); i++) {
        const char *query = queries[i / ARRAY_LEN(targets)];
        const struct output_target *target = &targets[i % ARRAY_LEN(targets)];
        struct rig whole, r;
        uint64_t places[16] = {0};
        unsigned groups = 0;
        char *rest[16] = {0}; /* what came behind each place */
        assert_true(rig_init(&whole, query, target, WAITS_MAX) && feed(&whole, records, 0, 40, 40));
        assert_true(output_cut(whole.out));
        for (struct output_group *g; (g = output_take(whole.out)) != NULL; groups++) {
            rest[groups] = mem_zalloc(1);
            for (uint32_t k = 0; k < g->count; k++)
                if (g->outputs[k].msg->flags & MSG_BATCH)
                    show_batch(&whole, &g->outputs[k]);
                else
                    show_message(&whole, &g->outputs[k]);
            for (unsigned n = 0; n <= groups; n++) {
                size_t len = strlen(rest[n]);
                rest[n] = mem_realloc(rest[n], len + whole.len + 1);
                memcpy(rest[n] + len, whole.text, whole.len + 1);
            }
            whole.len = 0;
            assert_true(groups < 15);
            places[groups + 1] = g->place;
            output_group_free(&whole.heap, &g);
        }
        assert_true(groups > 2);
        for (unsigned n = 0; n < groups; n++) { /* a crash between two of them: the rest comes, nothing twice */
            assert_true(rig_init(&r, query, target, WAITS_MAX));
            output_open(r.out, places[n]);
            assert_true(feed(&r, records, 0, 40, 7));
            (void)collect(&r);
            if (strcmp(r.text, rest[n]) != 0)
                fail_msg("%s behind %llu\ngot:\n%s\nexpected:\n%s", query, (unsigned long long)places[n], r.text,
                         rest[n]);
            rig_fini(&r);
            mem_free(rest[n]);
        }
        rig_fini(&whole);
        assert_true(rig_init(&r, query, target, 2 * BIG));
        assert_false(feed(&r, records, 0, 40, 40)); /* more than may wait */
        rig_fini(&r);
    }
    mem_free(text);
}

struct saved {
    uint8_t bytes[4096];
    size_t len, given;
};

static bool take(void *arg, struct slice piece)
{
    struct saved *s = arg;
    memcpy(s->bytes + s->len, piece.ptr, piece.len);
    s->len += piece.len;
    return true;
}

static bool give(void *arg, struct slice *ret)
{
    struct saved *s = arg;
    *ret = slice_of(s->bytes + s->given, s->len - s->given);
    s->given = s->len;
    return ret->len > 0;
}

/* Snapshot, some rows given, then a replay with the sink closed as far as they were: the place goes on. */
static void test_snapshot_and_replay(void **state)
{
    (void)state;
    struct output_target t = stream_of(1, "k");
    const char *query = "SELECT k, sum(v) AS m FROM s WHERE k IS NOT NULL GROUP BY k";
    struct rig a, b;
    struct saved saved = {.len = 0};
    struct state_writer w;
    struct state_reader reader;
    assert_true(rig_init(&a, query, &t, WAITS_MAX) && feed(&a, rows, 0, 2, 2));
    (void)collect(&a);
    assert_true(state_writer_init(&w, take, &saved));
    query_save(a.q, &w);
    assert_true(state_writer_end(&w) && !query_stateless(a.q));
    assert_true(feed(&a, rows, 2, 4, 1));
    (void)collect(&a);
    uint64_t place = output_place(a.out);
    assert_int_equal(place, 4);
    a.text[a.len = 0] = 0;
    assert_true(feed(&a, rows, 4, 6, 1));
    (void)collect(&a);
    assert_true(rig_init(&b, query, &t, WAITS_MAX));
    state_reader_init(&reader, give, &saved);
    assert_true(query_load(b.q, &reader, &b.error) && state_reader_end(&reader));
    assert_int_equal(output_place(b.out), 2);
    output_open(b.out, UINT64_MAX);
    assert_true(feed(&b, rows, 2, 4, 2));
    assert_int_equal(collect(&b), 0);
    assert_int_equal(output_place(b.out), place);
    output_open(b.out, place);
    assert_true(feed(&b, rows, 4, 6, 2));
    (void)collect(&b);
    assert_string_equal(a.text, b.text);
    assert_string_equal(a.text, "0 a={\"k\":\"a\",\"m\":13}@4\n0 b={\"k\":\"b\",\"m\":3}@5\n");
    rig_fini(&a);
    rig_fini(&b);
    assert_true(rig_init(&a, "SELECT k FROM s", &t, WAITS_MAX) && query_stateless(a.q));
    output_seek(a.out, 12);
    assert_int_equal(output_place(a.out), 12);
    rig_fini(&a);
}

/* A tick has the time of the record before it. */
static void test_ticks(void **state)
{
    (void)state;
    struct output_target t = stream_of(1, NULL);
    struct rig r;
    enum sql_fault fault;
    assert_true(rig_init(&r, "SELECT count(*) AS n FROM TUMBLE(s, _ts, INTERVAL '1' SECOND) GROUP BY window_end", &t,
                         WAITS_MAX));
    assert_true(feed(&r, rows, 0, 6, 4));
    assert_int_equal(collect(&r), 0);
    assert_true(query_advance(r.q, 0, 5000000, &fault));
    assert_int_equal(collect(&r), 1);
    assert_string_equal(r.text, "0 ={\"n\":6}@5\n");
    rig_fini(&r);
}

static void test_rows_that_cannot_be(void **state)
{
    (void)state;
    struct output_target plain = stream_of(1, NULL), queue = {.queue = 1}, routed = {.routing_column = slice_str("t")};
    const struct output_target *targets[] = {&plain, &queue};
    char *text = mem_alloc(3 * OUTPUT_ROW_BYTES_MAX);
    const char *record = text;
    int len = snprintf(text, 100, "{\"k\":\"a\",\"v\":1,\"t\":\"");
    memset(text + len, 'x', 2 * OUTPUT_ROW_BYTES_MAX);
    for (size_t i = 0; i < 2 * ARRAY_LEN(targets); i++) {
        struct rig r;
        size_t bytes = i % 2 ? 2 * OUTPUT_ROW_BYTES_MAX : OUTPUT_ROW_BYTES_MAX;
        memcpy(text + len + bytes, "\"}", 3);
        assert_true(rig_init(&r, "SELECT v, t FROM s", targets[i / 2], WAITS_MAX));
        assert_true(feed(&r, &record, 0, 1, 1) && feed(&r, rows, 0, 1, 1));
        assert_int_equal(r.diverted, 1);
        assert_int_equal(output_place(r.out), 2);
        assert_int_equal(collect(&r), 1);
        assert_non_null(strstr(r.text, "{\"v\":1,\"t\":null}"));
        rig_fini(&r);
        memset(text + len + bytes, 'x', 3);
    }
    struct rig r;
    memcpy(text + len + 256, "\"}", 3);
    assert_true(rig_init(&r, "SELECT t FROM s", &routed, WAITS_MAX) && feed(&r, &record, 0, 1, 1));
    assert_int_equal(r.diverted, 1);
    rig_fini(&r);
    mem_free(text);
}

static void test_what_is_refused(void **state)
{
    (void)state;
    const struct slice names[] = {slice_str("x")};
    struct output_target bad[] = {stream_of(1, "kk"),
                                  {.queue = 1, .keys = {slice_str("k")}, .key_count = 1},
                                  {.queue = 1, .partitions = 1, .routing_column = slice_str("k")},
                                  {.routing_column = slice_str("nothing")},
                                  {.names = names, .name_count = 1}};
    static const char *const why[] = {"no column kk", "a key is for", "no routing key", "no column nothing",
                                      "1 columns are named"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct rig r;
        assert_false(rig_init(&r, "SELECT k, v FROM s", &bad[i], WAITS_MAX));
        assert_non_null(strstr(r.error.message, why[i]));
        rig_fini(&r);
    }
}

static void test_what_a_statement_says(void **state)
{
    (void)state;
    static const struct {
        const char *text, *keys, *others; /* others: exchange:key:column, or the error */
    } cases[] = {
        {"CREATE STREAM x (a INT KEY, b INT)", "a", "::"},
        {"CREATE TABLE x (a INT, b INT, PRIMARY KEY (b, a)) WITH (format = 'json')", "b a", "::"},
        {"CREATE TABLE x (a INT PRIMARY KEY)", "a", "::"},
        {"CREATE STREAM x WITH (key = ' a , b') AS SELECT a, b FROM y", "a b", "::"},
        {"CREATE SINK x WITH (exchange = 'amq.topic', routing_key = 'r') AS SELECT a FROM y", "", "amq.topic:r:"},
        {"CREATE MATERIALIZED VIEW x WITH (routing_key_column = 'c') AS SELECT a FROM y", "", "::c"},
        {"CREATE STREAM x WITH (key = 'a,') AS SELECT a FROM y", NULL, "key names columns"},
        {"CREATE STREAM x WITH (key = 1) AS SELECT a FROM y", NULL, "key is a text in quotes"},
        {"CREATE STREAM x WITH (key = 'a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q') AS SELECT a FROM y", NULL, "more than 16"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct output_target t = {.queue = 0};
        struct sql_error error = {0};
        struct arena arena;
        struct ast_list list;
        char keys[64] = "", others[64];
        arena_init(&arena, SQL_PARSE_MEMORY_MAX);
        assert_true(sql_parse(slice_str(cases[i].text), &arena, &list, &error));
        bool ok = output_target_of(list.at[0], &t, &error);
        for (uint32_t k = 0; k < t.key_count; k++)
            snprintf(keys + strlen(keys), sizeof keys - strlen(keys), "%s%.*s", k ? " " : "", SLICE_ARG(t.keys[k]));
        snprintf(others, sizeof others, "%.*s:%.*s:%.*s", SLICE_ARG(t.exchange), SLICE_ARG(t.routing_key),
                 SLICE_ARG(t.routing_column));
        assert_int_equal(ok, cases[i].keys != NULL);
        if (ok) {
            assert_string_equal(keys, cases[i].keys);
            assert_string_equal(others, cases[i].others);
        } else {
            assert_non_null(strstr(error.message, cases[i].others));
            assert_int_equal(t.key_count, 0);
        }
        arena_fini(&arena);
    }
}

static void test_no_memory(void **state)
{
    (void)state;
    struct output_target targets[] = {stream_of(2, "m"), stream_of(1, NULL), {.queue = 1}};
    size_t before = mem_in_use();
    for (size_t i = 0; i < ARRAY_LEN(targets); i++)
        for (uint64_t n = 1;; n++) {
            struct rig r;
            mem_fail_at(n, false);
            bool ok =
                rig_init(&r, "SELECT m, count(*) AS n FROM (SELECT k, max(v) AS m FROM s GROUP BY k) x GROUP BY m",
                         &targets[i], WAITS_MAX) &&
                feed(&r, rows, 0, 6, 4) && output_cut(r.out);
            uint64_t hit = mem_failures_hit();
            mem_fail_at(0, false);
            rig_fini(&r);
            assert_int_equal(mem_in_use(), before);
            if (!hit) {
                assert_true(ok);
                break;
            }
            assert_false(ok);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_records),
        cmocka_unit_test(test_changes),
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_turns),
        cmocka_unit_test(test_more_than_a_step),
        cmocka_unit_test(test_snapshot_and_replay),
        cmocka_unit_test(test_ticks),
        cmocka_unit_test(test_rows_that_cannot_be),
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_what_a_statement_says),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
