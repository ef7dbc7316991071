/* Streams of other formats than JSON, and what a record has beside its value: what a query sees of raw records, CSV, CloudEvents, keys and headers. */
#include "base/mem.h"
#include "fmt/record_batch.h"
#include "sql/language/parse.h"
#include "sql/query/encode.h"
#include "sql/query/query.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

/* Rows as JSON, a line each. */
struct rig {
    struct op op;
    struct arena arena;
    struct catalog catalog;
    struct query *q;
    struct encoder *encoder;
    struct sql_error error;
    uint8_t text[4096];
    size_t len;
    enum sql_fault faults[8];
    uint32_t fault_count;
};

static bool show(struct op *op, struct step *step, const struct batch *b)
{
    struct rig *r = CONTAINER_OF(op, struct rig, op);
    (void)step;
    for (uint32_t k = 0; k < b->sel.count; k++) {
        uint32_t row = sel_row(b->sel, k);
        assert_true(encoder_room(r->encoder, b->columns, row) < sizeof r->text - r->len);
        r->len += encoder_row(r->encoder, b->columns, row, 0, r->text + r->len);
        r->text[r->len++] = '\n';
    }
    r->text[r->len] = 0;
    return true;
}

static void on_divert(void *arg, uint32_t origin, enum sql_fault fault)
{
    struct rig *r = arg;
    (void)origin;
    r->faults[r->fault_count++ % 8] = fault;
}

static bool rig_init(struct rig *r, const char *statements)
{
    static const struct op_kind kind = {.name = "show", .push = show};
    struct ast_list list;
    *r = (struct rig){.op = {.kind = &kind}};
    arena_init(&r->arena, SQL_PARSE_MEMORY_MAX);
    if (!sql_parse(slice_str(statements), &r->arena, &list, &r->error) ||
        !catalog_add(&r->catalog, list.at[0], &r->error))
        return false;
    r->q = query_new(&r->catalog, list.at[1], 1 << 20, &r->op, &r->error);
    if (r->q)
        r->encoder = encoder_new(query_plan(r->q)->columns, query_plan(r->q)->column_count);
    if (r->encoder)
        query_divert(r->q, on_divert, r);
    return r->encoder;
}

static void rig_fini(struct rig *r)
{
    query_free(&r->q);
    encoder_free(&r->encoder);
    arena_fini(&r->arena);
}

static void check(const char *statements, const struct query_input *in, enum sql_fault fault, const char *expected)
{
    struct rig r;
    enum sql_fault ended;
    if (!rig_init(&r, statements))
        fail_msg("%s: %s", statements, r.error.message);
    assert_true(query_step(r.q, in, &ended));
    if (strcmp((char *)r.text, expected) != 0)
        fail_msg("%s\ngot:\n%s\nexpected:\n%s", statements, r.text, expected);
    assert_int_equal(r.fault_count > 0, fault != SQL_FAULT_NONE);
    for (uint32_t i = 0; i < r.fault_count; i++)
        assert_int_equal(r.faults[i], fault);
    rig_fini(&r);
}

static void check_one(const char *statements, const char *record, size_t len, enum sql_fault fault,
                      const char *expected)
{
    struct slice value = slice_of(record, len);
    struct query_input in = {.records = &value, .rows = 1};
    check(statements, &in, fault, expected);
}

#define CHECK_ONE(statements, record, fault, expected)                                                                 \
    check_one(statements, record, sizeof record - 1, SQL_FAULT_##fault, expected)

static void test_raw(void **state)
{
    (void)state;
    static const char text[] =
        "CREATE STREAM s (line TEXT, words AS (split_part(line, ' ', 2))) WITH (format = 'raw'); SELECT * FROM s";
    CHECK_ONE(text, "no \"json\" at all", NONE, "{\"line\":\"no \\\"json\\\" at all\",\"words\":\"\\\"json\\\"\"}\n");
    CHECK_ONE(text, "", NONE, "{\"line\":\"\",\"words\":\"\"}\n");
    CHECK_ONE(text, "\xff", TEXT, "");
    CHECK_ONE("CREATE STREAM s (b BYTES) WITH (format = 'RAW'); SELECT b FROM s", "\xff\x00", NONE,
              "{\"b\":\"/wA=\"}\n");
    CHECK_ONE("CREATE STREAM s (n INT) WITH (format = 'raw'); SELECT n + 1 AS n FROM s", "41", NONE, "{\"n\":42}\n");
    CHECK_ONE("CREATE STREAM s (n INT) WITH (format = 'raw'); SELECT n FROM s", "41x", TEXT, "");
    CHECK_ONE("CREATE STREAM s (j JSON) WITH (format = 'raw'); SELECT j ->> 'a' AS a FROM s", "{\"a\":\"b\"}", NONE,
              "{\"a\":\"b\"}\n");
    CHECK_ONE("CREATE STREAM s (j JSON) WITH (format = 'raw'); SELECT j FROM s", "{", JSON, "");
    CHECK_ONE("CREATE STREAM s (n INT) WITH (format = 'raw'); SELECT _offset FROM s", "whatever", NONE,
              "{\"_offset\":0}\n");
}

static void test_csv(void **state)
{
    (void)state;
    static const char text[] = "CREATE STREAM s (a TEXT, twice AS (n * 2), n INT, at TIMESTAMP, z TEXT) WITH (format = "
                               "'csv'); SELECT * FROM s";
    static const char last[] =
        "CREATE STREAM s (a TEXT, b TEXT, c BYTES) WITH (format = 'csv', delimiter = ';'); SELECT c, b FROM s";
    CHECK_ONE(text, "x,5,2026-01-02 03:04:05,y", NONE,
              "{\"a\":\"x\",\"twice\":10,\"n\":5,\"at\":\"2026-01-02T03:04:05Z\",\"z\":\"y\"}\n");
    CHECK_ONE(text, "\"a \"\"b\"\", c\",5,1500,\"\"\r\n", NONE,
              "{\"a\":\"a \\\"b\\\", c\",\"twice\":10,\"n\":5,\"at\":\"1970-01-01T00:00:01.500Z\",\"z\":\"\"}\n");
    CHECK_ONE(text, ",5", NONE, "{\"a\":null,\"twice\":10,\"n\":5,\"at\":null,\"z\":null}\n");
    CHECK_ONE(text, "", NONE, "{\"a\":null,\"twice\":null,\"n\":null,\"at\":null,\"z\":null}\n");
    CHECK_ONE(text, ",,,,more,\"", NONE, "{\"a\":null,\"twice\":null,\"n\":null,\"at\":null,\"z\":null}\n");
    CHECK_ONE(text, "x,five", TEXT, "");
    CHECK_ONE(text, "x,99999999999", RANGE, "");
    CHECK_ONE(text, "\"x,5", TEXT, "");    /* a quote that does not end */
    CHECK_ONE(text, "\"x\"y,5", TEXT, ""); /* something behind it */
    CHECK_ONE(text, "\xff,5", TEXT, "");
    CHECK_ONE(last, "1,5;\xe2\x82\xac;\xff", NONE, "{\"c\":\"/w==\",\"b\":\"\xe2\x82\xac\"}\n");
}

static void test_cloudevents(void **state)
{
    (void)state;
    static const char text[] = "CREATE STREAM s (order_id INT, at ROW<city TEXT>) WITH (format = 'cloudevents'); "
                               "SELECT _id, _source, _type, _subject, _time, order_id, s.at.city FROM s";
    CHECK_ONE(text,
              "{\"specversion\":\"1.0\",\"id\":\"7\",\"source\":\"/"
              "shop\",\"type\":\"order\",\"time\":\"2026-01-01T00:00:00.5Z\","
              "\"data\":{\"order_id\":5,\"at\":{\"city\":\"Ulm\"}}}",
              NONE,
              "{\"_id\":\"7\",\"_source\":\"/"
              "shop\",\"_type\":\"order\",\"_subject\":null,\"_time\":\"2026-01-01T00:00:00.500Z\","
              "\"order_id\":5,\"city\":\"Ulm\"}\n");
    CHECK_ONE("CREATE STREAM s (a INT) WITH (format = 'cloudevents'); SELECT *, _data FROM s", "{\"data\":[1]}", NONE,
              "{\"a\":null,\"_data\":[1]}\n");
    CHECK_ONE(text, "{", JSON, "");
}

static void test_beside_the_value(void **state)
{
    (void)state;
    static const char text[] = "CREATE STREAM s (a INT); SELECT a, _offset, _key, _headers FROM s";
    static const char only[] =
        "CREATE STREAM s (a INT); SELECT _headers ->> 'traceparent' AS t FROM s WHERE _key LIKE 'k%'";
    uint8_t bytes[512];
    struct writer w = writer_of(bytes, sizeof bytes);
    struct record_batch head = record_batch_head(0, 0), read;
    struct record_batch_writer batch;
    struct record_reader reader;
    struct record record;
    struct record_header headers[] = {
        {.key = slice_str("mr-amqp"), .has_value = true, .value = slice_str("\x01")},
        {.key = slice_str("traceparent"), .has_value = true, .value = slice_str("00-\"1\"")},
        {.key = slice_str("null")},
        {.key = slice_str("bytes"), .has_value = true, .value = slice_str("\xff")},
        {.key = slice_str("\xff"), .has_value = true, .value = slice_str("x")}};
    struct slice value = slice_str("{\"a\":1}"), key = slice_str("k");
    record_batch_begin(&batch, &w, &head);
    assert_true(record_batch_put(&batch, 0, &key, &value, headers, ARRAY_LEN(headers)));
    assert_int_equal(record_batch_open(record_batch_finish(&batch, -1), NULL, 0, &read, &reader), RECORD_OK);
    assert_true(record_next(&reader, &record));
    struct slice records[] = {value, value, value, value}, keys[] = {key, {0}, slice_of("", 0), slice_str("\xff")};
    struct slice encoded[] = {record.headers, {0}, {0}, {0}};
    uint64_t offsets[] = {5, 9, 10, 1000};
    struct query_input in = {
        .records = records, .offsets = offsets, .keys = keys, .headers = encoded, .offset = 5, .rows = 4};
    check(text, &in, SQL_FAULT_TEXT,
          "{\"a\":1,\"_offset\":5,\"_key\":\"k\",\"_headers\":{\"traceparent\":\"00-\\\"1\\\"\",\"null\":null,"
          "\"bytes\":\"/w==\"}}\n"
          "{\"a\":1,\"_offset\":9,\"_key\":null,\"_headers\":{}}\n{\"a\":1,\"_offset\":10,\"_key\":\"\",\"_headers\":{}"
          "}\n");
    check(only, &in, SQL_FAULT_TEXT, "{\"t\":\"00-\\\"1\\\"\"}\n");
    in = (struct query_input){.records = records, .offset = 7, .rows = 2};
    check(text, &in, SQL_FAULT_NONE,
          "{\"a\":1,\"_offset\":7,\"_key\":null,\"_headers\":{}}\n{\"a\":1,\"_offset\":8,\"_key\":null,\"_headers\":{}}"
          "\n");
}

static void test_refused(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"CREATE STREAM s (a INT) WITH (format = 'avro'); SELECT a FROM s", "the format avro"},
        {"CREATE STREAM s (a INT) WITH (format = 5); SELECT a FROM s", "format is a text"},
        {"CREATE STREAM s (a INT, b INT) WITH (format = 'raw'); SELECT a FROM s", "has one column"},
        {"CREATE STREAM s (a INT) WITH (format = 'csv', delimiter = '::'); SELECT a FROM s", "one character"},
        {"CREATE STREAM s (a INT) WITH (format = 'csv', delimiter = '\"'); SELECT a FROM s", "one character"},
        {"CREATE STREAM s (a INT); SELECT _type FROM s", "no column _type"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct rig r;
        assert_false(rig_init(&r, cases[i][0]));
        if (!strstr(r.error.message, cases[i][1]))
            fail_msg("%s\ngot: %s", cases[i][0], r.error.message);
        rig_fini(&r);
    }
}

static void test_no_memory(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "CREATE STREAM s (a TEXT, b BYTES) WITH (format = 'csv'); SELECT a, b, _key, _headers FROM s",
        "CREATE STREAM s (a BYTES) WITH (format = 'raw'); SELECT a FROM s"};
    struct slice record = slice_str("\"a\"\"b\",c"), key = slice_str("k"), headers = {0};
    struct query_input in = {.records = &record, .keys = &key, .headers = &headers, .rows = 1};
    size_t before = mem_in_use();
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        for (uint64_t n = 1;; n++) {
            struct rig r;
            enum sql_fault fault = SQL_FAULT_MEMORY;
            mem_fail_at(n, false);
            bool ok = rig_init(&r, texts[i]) && query_step(r.q, &in, &fault);
            uint64_t hit = mem_failures_hit();
            mem_fail_at(0, false);
            rig_fini(&r);
            assert_int_equal(mem_in_use(), before);
            assert_int_equal(ok, !hit);
            if (!hit)
                break;
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_raw),         cmocka_unit_test(test_csv),
        cmocka_unit_test(test_cloudevents), cmocka_unit_test(test_beside_the_value),
        cmocka_unit_test(test_refused),     cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
