/* The method table: every row encodes and decodes to the same, every cut is refused, and the print names every row. */
#include "proto/amqp091/methods.h"

#include "base/mem.h"
#include "fmt/amqp_table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static uint64_t draw(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return *seed >> 16;
}

static uint8_t text_room[300], table_room[300];

static struct slice draw_slice(uint8_t type, uint64_t *seed)
{
    if (type == AMQP091_table) {
        struct writer w = writer_of(table_room, sizeof table_room);
        for (uint64_t n = draw(seed) % 4; n > 0; n--)
            amqp_put_long(&w, "field", (int64_t)draw(seed));
        return writer_slice(&w);
    }
    memset(text_room, 'a' + (int)(draw(seed) % 26), sizeof text_room);
    return slice_of(text_room, draw(seed) % (type == AMQP091_shortstr ? 256 : 300));
}

static void fill(const struct amqp091_row *row, uint8_t *fields, uint64_t *seed)
{
    for (unsigned i = 0; i < row->field_count; i++) {
        void *at = fields + row->fields[i].at;
        switch ((enum amqp091_field_type)row->fields[i].type) {
        case AMQP091_bit: *(bool *)at = draw(seed) & 1; break;
        case AMQP091_octet: *(uint8_t *)at = (uint8_t)draw(seed); break;
        case AMQP091_short: *(uint16_t *)at = (uint16_t)draw(seed); break;
        case AMQP091_long: *(uint32_t *)at = (uint32_t)draw(seed); break;
        case AMQP091_longlong: *(uint64_t *)at = draw(seed); break;
        default: *(struct slice *)at = draw_slice(row->fields[i].type, seed); break;
        }
    }
}

static void assert_same(const struct amqp091_row *row, const uint8_t *a, const uint8_t *b)
{
    static const size_t len[] = {
        [AMQP091_bit] = 1, [AMQP091_octet] = 1, [AMQP091_short] = 2, [AMQP091_long] = 4, [AMQP091_longlong] = 8};
    for (unsigned i = 0; i < row->field_count; i++) {
        const void *x = a + row->fields[i].at, *y = b + row->fields[i].at;
        if (row->fields[i].type >= AMQP091_shortstr)
            assert_true(slice_equal(*(const struct slice *)x, *(const struct slice *)y));
        else
            assert_memory_equal(x, y, len[row->fields[i].type]);
    }
}

static void round_trip(void **state)
{
    (void)state;
    uint64_t seed = 1;
    for (unsigned n = 0; n < 50 * AMQP091_METHOD_COUNT; n++) {
        const struct amqp091_row *row = &amqp091_rows[n % AMQP091_METHOD_COUNT];
        union amqp091_fields in, out;
        memset(&in, 0, sizeof in);
        memset(&out, 0xff, sizeof out);
        fill(row, (uint8_t *)&in, &seed);
        uint8_t bytes[2048];
        struct writer w = writer_of(bytes, sizeof bytes);
        amqp091_encode(&w, row, &in);
        assert_true(writer_ok(&w));
        assert_int_equal(w.len, amqp091_encoded_len(row, &in));
        assert_ptr_equal(amqp091_row_find((uint16_t)(bytes[0] << 8 | bytes[1]), (uint16_t)(bytes[2] << 8 | bytes[3])),
                         row);
        /* an exact heap copy, so that a sanitizer sees a byte too many */
        uint8_t *args = malloc(w.len - 4 ? w.len - 4 : 1);
        memcpy(args, bytes + 4, w.len - 4);
        assert_true(amqp091_decode(row, slice_of(args, w.len - 4), &out));
        assert_same(row, (const uint8_t *)&in, (const uint8_t *)&out);
        for (size_t cut = 0; cut + 4 < w.len; cut++)
            assert_false(amqp091_decode(row, slice_of(args, cut), &out));
        assert_false(amqp091_decode(row, slice_of(bytes + 4, w.len - 3), &out));
        free(args);
    }
}

/* A damaged table is refused wherever it stands. */
static void bad_tables(void **state)
{
    (void)state;
    static const uint8_t args[] = {0, 0, 1, 'q', 0, 0, 0, 0, 4, 1, 'a', '?', 0};
    union amqp091_fields f;
    assert_false(amqp091_decode(&amqp091_rows[AMQP091_queue_declare], slice_of(args, sizeof args), &f));
}

static void unknown_methods(void **state)
{
    (void)state;
    unsigned found = 0;
    for (unsigned c = 0; c < 300; c++)
        for (unsigned m = 0; m < 300; m++)
            found += amqp091_row_find((uint16_t)c, (uint16_t)m) != NULL;
    assert_int_equal(found, AMQP091_METHOD_COUNT);
    assert_null(amqp091_row_find(65535, 65535));
}

static void print_names_every_row(void **state)
{
    (void)state;
    char *text = NULL;
    size_t len = 0;
    FILE *to = open_memstream(&text, &len);
    amqp091_print(to);
    fclose(to);
    for (unsigned i = 0; i < AMQP091_METHOD_COUNT; i++)
        assert_non_null(strstr(text, amqp091_rows[i].name));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(bad_tables),
        cmocka_unit_test(unknown_methods),
        cmocka_unit_test(print_names_every_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
