/* CREATE STREAM … INFER: columns from what a stream holds, kept as if they had been written. */
#include "sql/server/rig_test.h"

static void stream_with(struct world *w, const char *name, const char *const *records, size_t count)
{
    declare_stream(w->rig, name, 1);
    for (size_t i = 0; i < count; i++)
        put(w->rig, name, records[i]);
}

static void says(struct world *w, const char *text, const char *expected)
{
    say(w, text);
    if (!strstr(w->said, expected))
        rig_fail("%s\nsaid:\n%s\nexpected:\n%s", text, w->said, expected);
}

#define COLUMNS                                                                                                        \
    "{\"statement\":0,\"columns\":[{\"name\":\"column\",\"type\":\"TEXT\"},{\"name\":\"type\",\"type\":\"TEXT\"}]}\n"

static void test_types(void **state)
{
    static const char *const records[] = {
        "{\"id\":1,\"large\":1,\"price\":2,\"ok\":true,\"at\":\"2026-01-01T00:00:00Z\",\"zoned\":\"2026-01-01T00:00:"
        "00Z\",\"name\":\"2026-01-01T00:00:00Z\"}",
        "no json",
        "[1]",
        "{\"id\":-2,\"large\":99999999999999999999,\"price\":0.5,\"at\":\"2026-01-01 "
        "00:00:00.25\",\"zoned\":\"2026-01-01T00:00:00+02:00\",\"name\":\"ann\"}",
        "{\"id\":null,\"nothing\":null,\"mixed\":1,\"list\":[1],\"place\":{\"city\":\"Oslo\",\"floor\":3,\"in\":{\"a\":"
        "1}}}",
        "{\"mixed\":\"a\",\"place\":{\"floor\":2.5},\"ID\":7,\"select\":1}",
    };
    struct world *w = world_new();
    (void)state;
    stream_with(w, "in", records, ARRAY_LEN(records));
    says(w, "CREATE STREAM s INFER WITH (topic = 'in')",
         COLUMNS "{\"row\":[\"id\",\"BIGINT\"]}\n{\"row\":[\"large\",\"NUMERIC(38,0)\"]}\n{\"row\":[\"price\",\"DOUBLE "
                 "PRECISION\"]}\n"
                 "{\"row\":[\"ok\",\"BOOLEAN\"]}\n{\"row\":[\"at\",\"TIMESTAMP\"]}\n{\"row\":[\"zoned\",\"TIMESTAMP "
                 "WITH TIME ZONE\"]}\n"
                 "{\"row\":[\"name\",\"TEXT\"]}\n{\"row\":[\"nothing\",\"JSON\"]}\n{\"row\":[\"mixed\",\"JSON\"]}\n"
                 "{\"row\":[\"list\",\"JSON\"]}\n"
                 "{\"row\":[\"place\",\"row<city text, floor double precision, in row<a "
                 "bigint>>\"]}\n{\"row\":[\"select\",\"BIGINT\"]}\n"
                 "{\"done\":\"CREATE STREAM\",\"name\":\"s\"}\n");
    says(w, "SELECT id, place.city AS city, list ->> 0 AS first FROM s WHERE place IS NOT NULL",
         "{\"row\":[null,\"Oslo\",\"1\"]}\n");
    world_free(w);
}

/* What is declared stays as it is, and the statement that is kept has all columns: also after a start, whatever the stream holds then. */
static void test_it_is_kept(void **state)
{
    static const char *const records[] = {"{\"n\":1,\"at\":\"2026-01-01T00:00:00Z\"}"};
    struct world *w = world_new();
    (void)state;
    stream_with(w, "in", records, 1);
    says(w, "CREATE STREAM s (n DOUBLE, WATERMARK FOR at) INFER WITH (topic = 'in')",
         "{\"row\":[\"n\",\"DOUBLE PRECISION\"]}\n{\"row\":[\"at\",\"TIMESTAMP\"]}\n");
    put(w->rig, "in", "{\"n\":1,\"later\":1}");
    struct world *other = world_cut(w, w->rig->log->count);
    rest(other);
    says(other, "SHOW CREATE s",
         "CREATE STREAM s (n double, WATERMARK FOR \\\"at\\\", \\\"at\\\" timestamp) WITH (topic = 'in')");
    says(other, "DESCRIBE s", "{\"row\":[\"n\",\"DOUBLE PRECISION\"]}\n{\"row\":[\"at\",\"TIMESTAMP\"]}\n{\"done\"");
    world_free(other);
    world_free(w);
}

static void test_what_there_is_nothing_in(void **state)
{
    static const char *const records[] = {"no json", "7"}, *const empty[] = {"{}"};
    struct world *w = world_new();
    (void)state;
    stream_with(w, "bare", records, 0);
    stream_with(w, "texts", records, 2);
    stream_with(w, "empty", empty, 1);
    says(w, "CREATE STREAM bare INFER", "the stream bare holds no record yet: write one first, or name the columns");
    says(w, "CREATE STREAM texts INFER",
         "no record of the stream texts is a JSON object: say its format, or name the columns");
    says(w, "CREATE STREAM empty INFER", "the records of the stream empty have no members that could be columns");
    says(w, "CREATE STREAM nobody INFER", "INFER: there is no stream nobody");
    says(w, "CREATE STREAM x INFER WITH (topic = 'bare', format = 'csv')",
         "INFER is for the formats json and cloudevents: others do not name what is in them");
    says(w, "CREATE STREAM x INFER FROM QUEUE 'x'", "INFER looks at what a stream holds, and this is a queue");
    says(w, "SHOW STREAMS", "{\"done\":\"SHOW STREAMS\",\"rows\":0}");
    world_free(w);
}

static void test_cloudevents(void **state)
{
    static const char *const records[] = {
        "{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/a\",\"type\":\"t\",\"data\":{\"celsius\":21.5}}"};
    struct world *w = world_new();
    (void)state;
    stream_with(w, "events", records, 1);
    says(w, "CREATE STREAM events INFER WITH (format = 'cloudevents')",
         "{\"row\":[\"celsius\",\"DOUBLE PRECISION\"]}\n{\"done\"");
    says(w, "SELECT _source, celsius FROM events", "{\"row\":[\"/a\",21.5]}");
    world_free(w);
}

/* Each allocation of each turn fails once: the statement says so, or has done it. */
static void test_no_memory(void **state)
{
    static const char *const records[] = {"{\"n\":1,\"in\":{\"a\":1}}"};
    unsigned hits = 0, last = 2;
    (void)state;
    for (unsigned turn = 2; turn <= last; turn++)
        for (uint64_t n = 1, more = 1; more; n++) {
            struct world *w = world_new();
            stream_with(w, "in", records, 1);
            w->fail_turn = w->turn + turn - 1;
            w->fail_at = n;
            say(w, "CREATE STREAM s INFER WITH (topic = 'in')");
            rig_pass(w->rig, 500);
            hear(w);
            more = w->hit;
            hits += w->hit;
            bool done = strstr(w->said, "{\"done\":\"CREATE STREAM\"");
            if (!done && !strstr(w->said, "error") && w->said[0])
                rig_fail("allocation %llu of turn %u: %s", (unsigned long long)n, turn, w->said);
            if (!done)
                says(w, "CREATE STREAM s INFER WITH (topic = 'in')", "{\"row\":[\"in\",\"row<a bigint>\"]}");
            last = turn < 8 ? turn + 1 : last;
            world_free(w);
        }
    assert_true(hits > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types),       cmocka_unit_test(test_it_is_kept),
        cmocka_unit_test(test_cloudevents), cmocka_unit_test(test_what_there_is_nothing_in),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
