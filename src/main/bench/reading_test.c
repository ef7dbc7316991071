/* What a consumer of an earlier run's messages notices. */
#include "reading.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static uint64_t backwards_after(const struct bench_stamp *stamps, unsigned count, bool redelivered)
{
    struct bench_reading r = {0};
    for (unsigned i = 0; i < count; i++)
        bench_reading_note(&r, &stamps[i], redelivered);
    return r.backwards;
}

static void rising_numbers_are_fine(void **state)
{
    (void)state;
    const struct bench_stamp a_part[] = {{.run_id = 7, .seq = 5},
                                         {.run_id = 7, .producer = 1, .seq = 1},
                                         {.run_id = 7, .seq = 9},
                                         {.run_id = 7, .producer = 1, .seq = 2}};
    assert_int_equal(backwards_after(a_part, 4, false), 0);
}

static void a_number_again_or_below_is_not(void **state)
{
    (void)state;
    const struct bench_stamp doubled[] = {{.run_id = 7, .seq = 5}, {.run_id = 7, .seq = 5}, {.run_id = 7, .seq = 4}};
    assert_int_equal(backwards_after(doubled, 3, false), 2);
    assert_int_equal(backwards_after(doubled, 3, true), 0);
}

static void another_run_begins_anew(void **state)
{
    (void)state;
    const struct bench_stamp runs[] = {{.run_id = 7, .seq = 5}, {.run_id = 8, .seq = 1}, {.run_id = 8, .seq = 2}};
    assert_int_equal(backwards_after(runs, 3, false), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rising_numbers_are_fine),
        cmocka_unit_test(a_number_again_or_below_is_not),
        cmocka_unit_test(another_run_begins_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
