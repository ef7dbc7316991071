/* Rows as JSON: the text of each type, and that our own scan reads it as the value that it was. */
#include "sql/query/encode.h"

#include "base/mem.h"
#include "sql/language/datetime.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define ROOM 8192u

static struct encoder *encoder_of(struct sql_type type, const char *name)
{
    struct plan_column column = {.name = slice_str(name), .type = type};
    struct encoder *e = encoder_new(&column, 1);
    assert_non_null(e);
    return e;
}

/* {"v":…} of one value; NULL: it is NULL. */
static const char *row_text(struct sql_type type, const void *value)
{
    static char text[ROOM];
    static const uint8_t nothing[16];
    uint64_t null = 1;
    struct encoder *e = encoder_of(type, "v");
    struct column c = {.form = type_form(type.kind),
                       .constant = true,
                       .values = (void *)(uintptr_t)(value ? value : nothing),
                       .nulls = value ? NULL : &null};
    size_t room = encoder_room(e, &c, 0);
    assert_true(room < ROOM);
    memset(text, 'x', sizeof text);
    size_t len = encoder_row(e, &c, 0, 0, (uint8_t *)text);
    assert_true(len + 16 < room && text[room] == 'x');
    text[len] = 0;
    encoder_free(&e);
    return text;
}

static void expect(enum sql_type_kind kind, const void *value, const char *expected)
{
    char whole[1024];
    snprintf(whole, sizeof whole, "{\"v\":%s}", expected);
    assert_string_equal(row_text(type_of(kind), value), whole);
}

static void expect_int(enum sql_type_kind kind, int64_t v, const char *expected)
{
    expect(kind, &v, expected);
}

static void expect_double(enum sql_type_kind kind, double v, const char *expected)
{
    expect(kind, &v, expected);
}

static void expect_text(enum sql_type_kind kind, const char *v, size_t len, const char *expected)
{
    struct slice s = slice_of(v, len);
    expect(kind, &s, expected);
}

static void expect_decimal(decimal_t v, unsigned scale, const char *expected)
{
    char whole[128];
    snprintf(whole, sizeof whole, "{\"v\":%s}", expected);
    assert_string_equal(row_text(type_decimal(38, scale), &v), whole);
}

static void test_texts_of_types(void **state)
{
    (void)state;
    uint8_t truth = 1;
    struct interval interval = {.months = 14, .days = 3, .us = 4 * US_PER_HOUR};
    expect(TYPE_INT, NULL, "null");
    expect(TYPE_NULL, NULL, "null");
    expect(TYPE_BOOL, &truth, "true");
    expect_int(TYPE_INT, 0, "0");
    expect_int(TYPE_INT, 7, "7");
    expect_int(TYPE_INT, -10, "-10");
    expect_int(TYPE_BIGINT, 1234567, "1234567");
    expect_int(TYPE_BIGINT, INT64_MAX, "9223372036854775807");
    expect_int(TYPE_BIGINT, INT64_MIN, "-9223372036854775808");
    expect_decimal(0, 0, "0");
    expect_decimal(5, 3, "0.005");
    expect_decimal(-1250, 2, "-12.50");
    expect_decimal(INT64_MAX, 18, "9.223372036854775807");
    expect_decimal((decimal_t)INT64_MAX + 1, 1, "922337203685477580.8");
    expect_decimal(-1, 30, "-0.000000000000000000000000000001");
    expect_int(TYPE_DATE, 0, "\"1970-01-01\"");
    expect_int(TYPE_DATE, DATE_MIN, "\"0001-01-01\"");
    expect_int(TYPE_DATE, DATE_MAX, "\"9999-12-31\"");
    expect_int(TYPE_TIME, US_PER_DAY - 1, "\"23:59:59.999999\"");
    expect_int(TYPE_TIME, 500000, "\"00:00:00.500\"");
    expect_int(TYPE_TIMESTAMP, 0, "\"1970-01-01T00:00:00Z\"");
    expect_int(TYPE_TIMESTAMP, -1, "\"1969-12-31T23:59:59.999999Z\"");
    expect_int(TYPE_TIMESTAMPTZ, 1000, "\"1970-01-01T00:00:00.001Z\"");
    expect_int(TYPE_TIMESTAMP, TIMESTAMP_MIN, "\"0001-01-01T00:00:00Z\"");
    expect_int(TYPE_TIMESTAMP, TIMESTAMP_MAX, "\"9999-12-31T23:59:59.999999Z\"");
    expect(TYPE_INTERVAL, &interval, "\"1 year 2 mons 3 days 04:00:00\"");
    expect_double(TYPE_DOUBLE, 0, "0");
    expect_double(TYPE_DOUBLE, -0.0, "-0");
    expect_double(TYPE_DOUBLE, 12.5, "12.5");
    expect_double(TYPE_DOUBLE, -0.1, "-0.1");
    expect_double(TYPE_DOUBLE, 3, "3");
    expect_double(TYPE_DOUBLE, 0.1 + 0.2, "0.30000000000000004");
    expect_double(TYPE_DOUBLE, 1e300, "1e+300");
    expect_double(TYPE_DOUBLE, 5e-324, "4.94065645841247e-324");
    expect_double(TYPE_REAL, (double)0.1f, "0.1");
    expect_double(TYPE_DOUBLE, NAN, "\"NaN\"");
    expect_double(TYPE_DOUBLE, INFINITY, "\"Infinity\"");
    expect_double(TYPE_DOUBLE, -INFINITY, "\"-Infinity\"");
    expect_text(TYPE_TEXT, "", 0, "\"\"");
    expect_text(TYPE_TEXT, "a\"b\\c\n\t\b\f\r\v\x01/\x7f", 14, "\"a\\\"b\\\\c\\n\\t\\b\\f\\r\\u000b\\u0001/\x7f\"");
    expect_text(TYPE_TEXT, "0123456789abcdef\"0123456789abcde\n0123456789abcdef", 49,
                "\"0123456789abcdef\\\"0123456789abcde\\n0123456789abcdef\"");
    expect_text(TYPE_TEXT, "\xe2\x82\xac and much more than sixteen", 30,
                "\"\xe2\x82\xac and much more than sixteen\"");
    expect_text(TYPE_BYTES, "\x00\xff\x10", 3, "\"AP8Q\"");
    expect_text(TYPE_JSON, "{\"a\": [1, 2]}", 13, "{\"a\": [1, 2]}");
    expect_text(TYPE_UUID, "00000000-0000-0000-0000-000000000000", 36, "\"00000000-0000-0000-0000-000000000000\"");
}

/* Every double comes back as itself. */
static void test_doubles(void **state)
{
    (void)state;
    srand(5);
    for (unsigned i = 0; i < 200000; i++) {
        double v = (rand() % 2000001 - 1000000) / (double)(1 + rand() % 1000);
        uint64_t bits = (uint64_t)rand() << 42 ^ (uint64_t)rand() << 21 ^ (uint64_t)rand();
        if (i % 2)
            memcpy(&v, &bits, sizeof v);
        if (!isfinite(v))
            continue;
        double back = strtod(row_text(type_of(TYPE_DOUBLE), &v) + 5, NULL);
        if (back != v)
            fail_msg("%.17g became %.17g", v, back);
    }
}

/* What the encoder writes the scan reads as what it was. */
static void test_scan_reads_it(void **state)
{
    (void)state;
    static const enum sql_type_kind kinds[] = {TYPE_BIGINT, TYPE_TIMESTAMP, TYPE_TIMESTAMPTZ, TYPE_DATE, TYPE_TIME,
                                               TYPE_DOUBLE, TYPE_DECIMAL,   TYPE_TEXT,        TYPE_BYTES};
    srand(6);
    for (unsigned i = 0; i < 20000; i++) {
        union {
            int64_t i;
            double d;
            decimal_t n;
            struct slice t;
        } v = {.n = 0};
        char text[40];
        struct sql_type type = type_of(kinds[i % ARRAY_LEN(kinds)]);
        int64_t chance = (int64_t)((uint64_t)rand() << 33 ^ (uint64_t)rand() << 10 ^ (uint64_t)rand());
        int64_t wide = chance % (TIMESTAMP_MAX / 5);
        switch (type.kind) {
        case TYPE_BIGINT: v.i = chance; break;
        case TYPE_DATE: v.i = chance % 100000; break;
        case TYPE_TIME: v.i = (int64_t)((uint64_t)chance % (uint64_t)US_PER_DAY); break;
        case TYPE_DOUBLE: v.d = (double)chance / 7; break;
        case TYPE_DECIMAL: v.n = (decimal_t)chance * (i % 3 ? 1 : 1000000007), type = type_decimal(38, i % 20); break;
        case TYPE_TEXT:
        case TYPE_BYTES:
            for (unsigned k = 0; k < sizeof text; k++)
                text[k] = (char)(rand() % 3 ? rand() % 128 : "\"\\\n"[rand() % 3]);
            v.t = slice_of(text, (size_t)rand() % sizeof text);
            break;
        default: v.i = i % 3 ? wide : i % 2 ? wide / 1000 * 1000 : wide / 1000000 * 1000000; break;
        }
        struct slice record = slice_str(row_text(type, &v));
        struct scan_column column = {.path = (struct json_step[]){{.key = slice_str("v")}}, .steps = 1, .type = type};
        struct scan *scan = scan_new(&column, 1);
        struct arena arena;
        struct eval e;
        arena_init(&arena, 1 << 16);
        assert_true(scan && scan_batch(scan, &record, 1, &arena, &e));
        if (e.fault_count)
            fail_msg("cannot be read: %s", record.ptr);
        const void *read = e.columns[0].values;
        bool same = type_form(type.kind) == FORM_TEXT ? slice_equal(*(const struct slice *)read, v.t)
                                                      : memcmp(read, &v, form_size(type_form(type.kind))) == 0;
        if (!same)
            fail_msg("another value: %s", record.ptr);
        scan_free(&scan);
        arena_fini(&arena);
    }
}

static void test_objects_and_keys(void **state)
{
    (void)state;
    struct plan_column columns[] = {{.name = slice_str("a\"b"), .type = type_of(TYPE_INT)},
                                    {.name = slice_str("t"), .type = type_of(TYPE_TEXT)},
                                    {.name = slice_str("at"), .type = type_of(TYPE_TIMESTAMP)}};
    int64_t numbers[] = {1, 2}, times[] = {0, 1500000};
    struct slice texts[] = {slice_str("x\"y"), slice_str("")};
    uint64_t nulls = 2;
    struct column c[] = {{.form = FORM_I64, .values = numbers},
                         {.form = FORM_TEXT, .values = texts, .nulls = &nulls},
                         {.form = FORM_I64, .values = times}};
    uint8_t out[1024], room[256];
    const uint32_t which[] = {2, 0};
    struct encoder *e = encoder_new(columns, 3);
    assert_non_null(e);
    out[encoder_row(e, c, 0, 0, out)] = 0;
    assert_string_equal((char *)out, "{\"a\\\"b\":1,\"t\":\"x\\\"y\",\"at\":\"1970-01-01T00:00:00Z\"}");
    out[encoder_row(e, c, 1, '-', out)] = 0;
    assert_string_equal((char *)out, "{\"_op\":\"-\",\"a\\\"b\":2,\"t\":null,\"at\":\"1970-01-01T00:00:01.500Z\"}");
    out[encoder_some(e, which, 2, c, 1, out)] = 0;
    assert_string_equal((char *)out, "{\"at\":\"1970-01-01T00:00:01.500Z\",\"a\\\"b\":2}");
    assert_true(slice_is(encoder_text(e, 0, c, 1, room), "2"));
    assert_true(slice_is(encoder_text(e, 1, c, 0, room), "x\"y"));
    assert_true(slice_is(encoder_text(e, 2, c, 1, room), "1970-01-01T00:00:01.500Z"));
    encoder_free(&e);
    for (uint64_t n = 1; n <= 2; n++) {
        size_t before = mem_in_use();
        mem_fail_at(n, false);
        e = encoder_new(columns, 3);
        mem_fail_at(0, false);
        assert_null(e);
        assert_int_equal(mem_in_use(), before);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts_of_types),
        cmocka_unit_test(test_doubles),
        cmocka_unit_test(test_scan_reads_it),
        cmocka_unit_test(test_objects_and_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
