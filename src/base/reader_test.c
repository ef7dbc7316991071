/* Unit test of the reader: network order, sticky failure, no byte beyond the end, varints. */
#include "base/reader.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static const uint8_t bytes[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 2, 'h', 'i', 0, 0, 0, 1, '!', 42};

static void numbers_are_in_network_order(void **state)
{
    (void)state;
    struct reader r = reader_of(slice_of(bytes, sizeof bytes));
    assert_int_equal(reader_u8(&r), 1);
    assert_int_equal(reader_u16(&r), 0x0203);
    assert_int_equal(reader_u32(&r), 0x04050607);
    assert_true(reader_u64(&r) == UINT64_C(0x08090a0b0c0d0e0f));
    assert_true(slice_is(reader_str8(&r), "hi"));
    assert_true(slice_is(reader_str32(&r), "!"));
    assert_false(reader_done(&r));
    assert_int_equal(reader_rest(&r).len, 1);
    assert_true(reader_done(&r));
}

/* Every read at every number of bytes left, in a block of exactly that size so that the sanitizer sees an overrun. */
static void a_short_read_fails_for_good(void **state)
{
    (void)state;
    static const size_t need[] = {1, 2, 4, 8, 3, 5};
    for (size_t kind = 0; kind < ARRAY_LEN(need); kind++)
        for (size_t len = 0; len <= 9; len++) {
            uint8_t *block = malloc(len ? len : 1);
            memset(block, 0, len ? len : 1);
            if (kind == 4 && len)
                block[0] = 2;
            if (kind == 5 && len > 3)
                block[3] = 1;
            struct reader r = reader_of(slice_of(block, len));
            switch (kind) {
            case 0: (void)reader_u8(&r); break;
            case 1: (void)reader_u16(&r); break;
            case 2: (void)reader_u32(&r); break;
            case 3: (void)reader_u64(&r); break;
            case 4: (void)reader_str8(&r); break;
            default: (void)reader_str32(&r); break;
            }
            assert_int_equal(reader_ok(&r), len >= need[kind]);
            assert_int_equal(r.left, len >= need[kind] ? len - need[kind] : 0);
            free(block);
        }
}

static void after_a_failure_all_is_0_and_empty(void **state)
{
    (void)state;
    struct reader r = reader_of(slice_of(bytes, sizeof bytes));
    assert_int_equal(reader_take(&r, sizeof bytes + 1).len, 0);
    assert_false(reader_ok(&r));
    assert_int_equal(reader_u8(&r), 0);
    assert_int_equal(reader_u16(&r), 0);
    assert_int_equal(reader_u32(&r), 0);
    assert_int_equal(reader_u64(&r), 0);
    assert_int_equal(reader_varint(&r), 0);
    assert_int_equal(reader_str8(&r).len, 0);
    assert_int_equal(reader_str32(&r).len, 0);
    assert_int_equal(reader_rest(&r).len, 0);
    assert_int_equal(reader_take(&r, SIZE_MAX).len, 0);
    assert_false(reader_ok(&r));
    assert_false(reader_done(&r));
}

static void nothing_can_be_read_from_nothing(void **state)
{
    (void)state;
    struct reader r = reader_of((struct slice){0});
    assert_int_equal(reader_rest(&r).len, 0);
    assert_int_equal(reader_take(&r, 0).len, 0);
    assert_true(reader_done(&r));
    assert_int_equal(reader_u8(&r), 0);
    assert_false(reader_ok(&r));
}

static void varints_of_every_length(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
        uint64_t value;
        bool ok;
    } rows[] = {
        {"\x00", 1, 0, true},
        {"\x7f", 1, 127, true},
        {"\x80\x01", 2, 128, true},
        {"\xe5\x8e\x26", 3, 624485, true},
        {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 10, UINT64_MAX, true},
        {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 10, 0, false}, /* bit 64 */
        {"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 11, 0, false},
        {"\x80", 1, 0, false},
        {"\xff", 1, 0, false},
        {"", 0, 0, false},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct reader r = reader_of(slice_of(rows[i].bytes, rows[i].len));
        assert_true(reader_varint(&r) == rows[i].value);
        assert_int_equal(reader_ok(&r), rows[i].ok);
        assert_int_equal(reader_done(&r), rows[i].ok);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_in_network_order),
        cmocka_unit_test(a_short_read_fails_for_good),
        cmocka_unit_test(after_a_failure_all_is_0_and_empty),
        cmocka_unit_test(nothing_can_be_read_from_nothing),
        cmocka_unit_test(varints_of_every_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
