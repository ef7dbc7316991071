/* Lists in order against an array that is sorted: adding, removing, finding; keys of values against the order of the values. */
#include "sql/query/ordered.h"
#include "sql/query/sort_key.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define ROWS 500u

struct numbered {
    struct ordered_row node;
    uint8_t key[8];
    bool in;
};

static void check_list(const struct ordered *o, const struct numbered *rows)
{
    struct ordered_row *at = o->first, *before = NULL;
    uint32_t count = 0;
    for (uint32_t i = 0; i < ROWS; i++) {
        if (!rows[i].in)
            continue;
        assert_ptr_equal(at, &rows[i].node);
        assert_ptr_equal(at->before, before);
        before = at;
        at = at->after;
        count++;
    }
    assert_null(at);
    assert_ptr_equal(o->last, before);
    assert_int_equal(o->count, count);
}

static void test_against_an_array(void **state)
{
    (void)state;
    static struct numbered rows[ROWS];
    struct ordered o = {0};
    uint64_t random = 7;
    for (uint32_t i = 0; i < ROWS; i++) {
        sort_put_i64(rows[i].key, (int64_t)i - 250);
        rows[i].node.key = rows[i].key;
        rows[i].node.key_len = sizeof rows[i].key;
    }
    for (uint32_t n = 0; n < 20000; n++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        uint32_t i = (uint32_t)(random >> 33) % ROWS;
        if (rows[i].in)
            ordered_remove(&o, &rows[i].node);
        else
            ordered_add(&o, &rows[i].node);
        rows[i].in = !rows[i].in;
        struct ordered_row *found = ordered_at_most(&o, slice_of(rows[i].key, 8));
        uint32_t k = i + 1;
        while (k > 0 && !rows[k - 1].in)
            k--;
        assert_ptr_equal(found, k ? &rows[k - 1].node : NULL);
        if (n % 97 == 0)
            check_list(&o, rows);
    }
    for (uint32_t i = 0; i < ROWS; i++)
        if (rows[i].in) {
            ordered_remove(&o, &rows[i].node);
            rows[i].in = false;
        }
    check_list(&o, rows);
}

static struct slice key_of(struct arena *arena, struct column *c, struct sort_item item, uint32_t row, uint64_t number)
{
    struct slice key;
    enum sql_fault fault;
    assert_true(sort_key(arena, c, &item, 1, row, number, false, &key, &fault));
    return key;
}

/* Values that ascend, the last one is NULL. */
static void check_column(enum sql_form form, void *values, uint32_t count)
{
    struct arena arena;
    uint64_t nulls[1] = {(uint64_t)1 << (count - 1)};
    struct column c = {.form = form, .values = values, .nulls = nulls};
    arena_init(&arena, 1u << 20);
    for (unsigned how = 0; how < 4; how++)
        for (uint32_t a = 0; a < count; a++)
            for (uint32_t b = 0; b < count; b++) {
                struct sort_item item = {.descending = how & 1, .nulls_first = how & 2};
                int order = ordered_compare(sort_key_values(key_of(&arena, &c, item, a, 1)),
                                            sort_key_values(key_of(&arena, &c, item, b, 2)));
                bool null = (a == count - 1) != (b == count - 1);
                int expected = (int)a - (int)b;
                if (null ? item.nulls_first : item.descending)
                    expected = -expected;
                assert_int_equal((order > 0) - (order < 0), (expected > 0) - (expected < 0));
            }
    arena_fini(&arena);
}

static void test_keys_have_the_order_of_values(void **state)
{
    (void)state;
    int64_t whole[] = {INT64_MIN, -1, 0, 1, 255, 256, INT64_MAX, 0};
    double real[] = {-INFINITY, -1.5, -0.25, 0, 1e-300, 2, INFINITY, NAN, 0};
    decimal_t decimal[] = {-((decimal_t)1 << 100), -1, 0, 1, (decimal_t)1 << 100, 0};
    struct interval interval[] = {{.days = -1}, {.us = 1}, {.days = 1}, {.months = 1}, {0}};
    struct slice text[] = {slice_of("", 0),     slice_of("\0", 1),   slice_of("\0\0", 2),
                           slice_of("\0\1", 2), slice_of("a", 1),    slice_of("a\0", 2),
                           slice_of("ab", 2),   slice_of("\xff", 1), slice_of("", 0)};
    uint8_t truth[] = {0, 1, 0};
    check_column(FORM_I64, whole, ARRAY_LEN(whole));
    check_column(FORM_F64, real, ARRAY_LEN(real));
    check_column(FORM_I128, decimal, ARRAY_LEN(decimal));
    check_column(FORM_INTERVAL, interval, ARRAY_LEN(interval));
    check_column(FORM_TEXT, text, ARRAY_LEN(text));
    check_column(FORM_BOOL, truth, ARRAY_LEN(truth));
}

static void test_equal_rows_by_their_number(void **state)
{
    (void)state;
    struct arena arena;
    double zeros[] = {0.0, -0.0};
    struct column c = {.form = FORM_F64, .values = zeros};
    struct sort_item item = {0};
    struct slice key, newer;
    enum sql_fault fault;
    arena_init(&arena, 1u << 20);
    assert_true(ordered_compare(key_of(&arena, &c, item, 0, 9), key_of(&arena, &c, item, 1, 10)) < 0);
    assert_true(sort_key(&arena, &c, &item, 1, 0, 9, true, &key, &fault));
    assert_true(sort_key(&arena, &c, &item, 1, 1, 10, true, &newer, &fault));
    assert_true(ordered_compare(newer, key) < 0);
    arena_fini(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_an_array),
        cmocka_unit_test(test_keys_have_the_order_of_values),
        cmocka_unit_test(test_equal_rows_by_their_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
