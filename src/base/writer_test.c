/* Unit test of the writer: what it writes the reader reads, it stops at its maximum for good, and marks are patched. */
#include "base/writer.h"

#include "base/reader.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static void write_all(struct writer *w)
{
    writer_u8(w, 1);
    writer_u16(w, 0x0203);
    writer_u32(w, 0x04050607);
    writer_u64(w, UINT64_C(0x08090a0b0c0d0e0f));
    writer_str8(w, slice_str("hi"));
    writer_str32(w, slice_str("!"));
    size_t outer = writer_mark32(w);
    writer_varint(w, 624485);
    size_t inner = writer_mark32(w);
    writer_patch32(w, inner);
    writer_put(w, "ab", 2);
    writer_patch32(w, outer);
}

#define ALL_LEN (1 + 2 + 4 + 8 + 3 + 5 + 4 + 3 + 4 + 2)

static void the_reader_reads_what_was_written(void **state)
{
    (void)state;
    uint8_t room[ALL_LEN];
    struct writer w = writer_of(room, sizeof room);
    write_all(&w);
    assert_true(writer_ok(&w));
    assert_int_equal(w.len, ALL_LEN);
    struct reader r = reader_of(writer_slice(&w));
    for (unsigned i = 1; i <= 15; i++)
        assert_int_equal(reader_u8(&r), i);
    assert_true(slice_is(reader_str8(&r), "hi"));
    assert_true(slice_is(reader_str32(&r), "!"));
    struct reader sub = reader_of(reader_str32(&r));
    assert_int_equal(reader_varint(&sub), 624485);
    assert_int_equal(reader_str32(&sub).len, 0);
    assert_true(slice_is(reader_rest(&sub), "ab"));
    assert_true(reader_done(&sub) && reader_done(&r));
}

static void a_full_writer_writes_nothing_more(void **state)
{
    (void)state;
    for (size_t max = 0; max < ALL_LEN; max++) {
        uint8_t *room = malloc(max + 1);
        memset(room, 0xee, max + 1);
        struct writer w = writer_of(room, max);
        write_all(&w);
        assert_false(writer_ok(&w));
        assert_true(w.len <= max);
        assert_int_equal(room[max], 0xee);
        size_t len = w.len;
        writer_u8(&w, 7); /* would fit now and then, but the failure stays */
        assert_int_equal(w.len, len);
        assert_null(writer_room(&w, 0));
        free(room);
    }
}

static void sizes_cannot_wrap(void **state)
{
    (void)state;
    uint8_t room[16];
    struct writer w = writer_of(room, sizeof room);
    writer_u8(&w, 1);
    assert_null(writer_room(&w, SIZE_MAX));
    assert_false(writer_ok(&w));
    w = writer_of(room, sizeof room);
    assert_non_null(writer_room(&w, 16));
    assert_true(writer_ok(&w));
    static uint8_t long_text[256];
    uint8_t large[300];
    w = writer_of(large, sizeof large);
    writer_str8(&w, slice_of(long_text, 255));
    assert_true(writer_ok(&w));
    w = writer_of(large, sizeof large);
    writer_str8(&w, slice_of(long_text, 256));
    assert_false(writer_ok(&w));
}

static void nothing_can_be_written_to_nothing(void **state)
{
    (void)state;
    struct writer w = writer_of(NULL, 0);
    writer_slice_put(&w, (struct slice){0});
    assert_true(writer_ok(&w));
    assert_int_equal(writer_slice(&w).len, 0);
    writer_u8(&w, 1);
    assert_false(writer_ok(&w));
}

static void varints_are_read_back(void **state)
{
    (void)state;
    for (unsigned shift = 0; shift < 64; shift++)
        for (int off = -1; off <= 1; off++) {
            uint8_t room[10];
            uint64_t value = (UINT64_C(1) << shift) + (uint64_t)off;
            struct writer w = writer_of(room, sizeof room);
            writer_varint(&w, value);
            assert_true(writer_ok(&w));
            struct reader r = reader_of(writer_slice(&w));
            assert_true(reader_varint(&r) == value && reader_done(&r));
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_reader_reads_what_was_written),
        cmocka_unit_test(a_full_writer_writes_nothing_more),
        cmocka_unit_test(sizes_cannot_wrap),
        cmocka_unit_test(nothing_can_be_written_to_nothing),
        cmocka_unit_test(varints_are_read_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
