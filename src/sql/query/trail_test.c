/* Trails: neighbours that say the same become one, what stands behind one another is one trail, and bytes that are none end in an error. */
#include "sql/query/trail.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define MAX 4096u

static struct trail_entry records(uint32_t source, uint32_t partition, uint64_t offset)
{
    return (struct trail_entry){.kind = TRAIL_RECORDS, .source = source, .partition = partition, .offset = offset};
}

static void add(struct trail *t, struct trail_entry e)
{
    assert_true(trail_add(t, &e));
}

/* "R0/1:17 I2/3 A0:-5 P9 S3-4", one blank between entries; "?" behind what is damaged. */
static const char *text(struct slice bytes)
{
    static char out[512];
    struct trail_reader r;
    struct trail_entry e;
    size_t len = 0;
    out[0] = 0;
    trail_read_begin(&r, bytes);
    while (trail_read(&r, &e)) {
        const char *blank = len ? " " : "";
        size_t left = sizeof out - len;
        unsigned long long offset = e.offset, until = e.until;
        int n = 0;
        switch (e.kind) {
        case TRAIL_RECORDS: n = snprintf(out + len, left, "%sR%u/%u:%llu", blank, e.source, e.partition, offset); break;
        case TRAIL_IDLE: n = snprintf(out + len, left, "%sI%u/%u", blank, e.source, e.partition); break;
        case TRAIL_ADVANCE: n = snprintf(out + len, left, "%sA%u:%lld", blank, e.source, (long long)e.time); break;
        case TRAIL_STREAM: n = snprintf(out + len, left, "%s#%u:%llu", blank, e.source, offset); break;
        case TRAIL_BEGIN: n = snprintf(out + len, left, "%sB", blank); break;
        case TRAIL_PLACE: n = snprintf(out + len, left, "%sP%llu", blank, offset); break;
        default: n = snprintf(out + len, left, "%sS%llu-%llu", blank, offset, until); break;
        }
        len += (size_t)n;
        assert_true(len < sizeof out);
    }
    if (!trail_read_ok(&r))
        snprintf(out + len, sizeof out - len, "?");
    return out;
}

static void test_neighbours_merge(void **state)
{
    (void)state;
    struct trail t;
    trail_init(&t, MAX);
    assert_string_equal(text(trail_bytes(&t)), "");
    add(&t, records(0, 1, 10));
    add(&t, records(0, 1, 17));
    assert_string_equal(text(trail_bytes(&t)), "R0/1:17");
    assert_int_equal(t.len, 4);
    add(&t, records(0, 0, 5));
    add(&t, records(1, 0, 5));
    add(&t, records(0, 1, 18));
    add(&t, (struct trail_entry){.kind = TRAIL_IDLE, .source = 15, .partition = UINT32_MAX});
    add(&t, (struct trail_entry){.kind = TRAIL_IDLE, .source = 15, .partition = UINT32_MAX});
    add(&t, (struct trail_entry){.kind = TRAIL_ADVANCE, .source = 2, .time = INT64_MIN});
    add(&t, (struct trail_entry){.kind = TRAIL_ADVANCE, .source = 2, .time = -5});
    add(&t, (struct trail_entry){.kind = TRAIL_ADVANCE, .source = 3, .time = INT64_MAX});
    add(&t, (struct trail_entry){.kind = TRAIL_PLACE, .offset = 7});
    add(&t, (struct trail_entry){.kind = TRAIL_PLACE, .offset = UINT64_MAX});
    assert_string_equal(text(trail_bytes(&t)), "R0/1:17 R0/0:5 R1/0:5 R0/1:18 I15/4294967295 A2:-5 "
                                               "A3:9223372036854775807 P18446744073709551615");
    add(&t, (struct trail_entry){.kind = TRAIL_SNAPSHOT, .offset = 3, .until = 9});
    assert_string_equal(text(trail_bytes(&t)), "S3-9");
    add(&t, records(0, 1, 20));
    add(&t, records(0, 1, 2000000));
    assert_string_equal(text(trail_bytes(&t)), "S3-9 R0/1:2000000");
    trail_clear(&t);
    add(&t, records(0, 1, 1));
    assert_string_equal(text(trail_bytes(&t)), "R0/1:1");
    trail_fini(&t);
}

/* The core puts additions behind one another; the engine's own copy merges them. */
static void test_behind_one_another(void **state)
{
    (void)state;
    struct trail a, b, all;
    bool damaged;
    uint8_t together[64];
    trail_init(&a, MAX);
    trail_init(&b, MAX);
    trail_init(&all, MAX);
    add(&a, records(0, 0, 5));
    add(&a, records(0, 1, 6));
    add(&b, records(0, 1, 8));
    add(&b, records(0, 0, 9));
    memcpy(together, a.bytes, a.len);
    memcpy(together + a.len, b.bytes, b.len);
    assert_string_equal(text(slice_of(together, a.len + b.len)), "R0/0:5 R0/1:6 R0/1:8 R0/0:9");
    assert_true(trail_append(&all, trail_bytes(&a), &damaged));
    assert_true(trail_append(&all, trail_bytes(&b), &damaged));
    assert_string_equal(text(trail_bytes(&all)), "R0/0:5 R0/1:8 R0/0:9");
    add(&all, (struct trail_entry){.kind = TRAIL_ADVANCE, .time = 1});
    add(&all, (struct trail_entry){.kind = TRAIL_PLACE, .offset = 70});
    assert_true(trail_flatten(&all));
    assert_string_equal(text(trail_bytes(&all)), "R0/0:9 R0/1:8 P70");
    assert_true(trail_flatten(&all));
    assert_string_equal(text(trail_bytes(&all)), "R0/0:9 R0/1:8 P70");
    for (uint32_t i = 0; i < 3; i++)
        add(&all, (struct trail_entry){.kind = TRAIL_STREAM, .source = i / 2, .offset = 40 + i});
    assert_string_equal(text(trail_bytes(&all)), "R0/0:9 R0/1:8 P70 #0:41 #1:42");
    assert_true(trail_flatten(&all));
    assert_string_equal(text(trail_bytes(&all)), "#0:41 #1:42 R0/0:9 R0/1:8 P70");
    trail_fini(&a);
    trail_fini(&b);
    trail_fini(&all);
}

static void test_limits(void **state)
{
    (void)state;
    struct trail t;
    struct trail_entry e = records(0, 1, 1);
    size_t before = mem_in_use();
    trail_init(&t, 7);
    add(&t, records(0, 0, 1));
    assert_true(trail_add(&t, &e));
    e.partition = 2;
    assert_false(trail_add(&t, &e));
    assert_string_equal(text(trail_bytes(&t)), "R0/0:1 R0/1:1");
    add(&t, records(0, 1, 2)); /* one that takes the place of the last has room */
    trail_fini(&t);
    for (uint64_t n = 1; n <= 2; n++) {
        trail_init(&t, MAX);
        bool ok = true;
        mem_fail_at(n, false);
        for (uint32_t i = 0; i < 200 && ok; i++) {
            e = records(0, i, i);
            ok = trail_add(&t, &e);
        }
        mem_fail_at(0, false);
        assert_false(ok);
        assert_true(n == 1 || trail_bytes(&t).len > 200);
        trail_fini(&t);
    }
    trail_init(&t, MAX);
    add(&t, records(0, 0, 1));
    mem_fail_at(1, false);
    assert_false(trail_flatten(&t));
    mem_fail_at(0, false);
    assert_string_equal(text(trail_bytes(&t)), "R0/0:1");
    trail_fini(&t);
    assert_int_equal(mem_in_use(), before);
}

static void test_damage(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
        const char *expected;
    } rows[] = {
        {"\x01\x00\x05", 3, "?"},                                              /* without a version */
        {"\x82\x01\x00\x05", 4, "?"},                                          /* of a later one */
        {"\x81", 1, "?"},                                                      /* with nothing behind it */
        {"\x81\x01\x00\x05\x01", 5, "R1/0:5?"},                                /* cut */
        {"\x81\x70\x00", 3, "?"},                                              /* a kind that there is not */
        {"\x81\x00\xff\xff\xff\xff\x1f\x00", 8, "?"},                          /* a partition of 33 bits */
        {"\x81\x30\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 14, "?"}, /* a number without end */
        {"\x81\x81\x01\x00\x05", 5, "R1/0:5"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct slice bytes = slice_of(rows[i].bytes, rows[i].len);
        struct trail t;
        bool damaged, ok;
        assert_string_equal(text(bytes), rows[i].expected);
        trail_init(&t, MAX);
        ok = trail_append(&t, bytes, &damaged);
        assert_int_equal(ok, !strchr(rows[i].expected, '?'));
        assert_int_equal(damaged, !ok);
        trail_fini(&t);
    }
    srand(7);
    for (unsigned i = 0; i < 200000; i++) {
        uint8_t bytes[16];
        struct trail_reader r;
        struct trail_entry e;
        size_t len = 1 + (size_t)rand() % sizeof bytes, entries = 0;
        for (size_t k = 0; k < len; k++)
            bytes[k] = (uint8_t)(rand() % 4 ? rand() % 80 : rand());
        bytes[0] = 0x81;
        trail_read_begin(&r, slice_of(bytes, len));
        while (trail_read(&r, &e)) {
            assert_true(e.kind < TRAIL_KINDS && e.source < TRAIL_SOURCES_MAX);
            entries++;
        }
        assert_true(entries <= len / 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_neighbours_merge),
        cmocka_unit_test(test_behind_one_another),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
