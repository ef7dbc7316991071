/* fifo: against counting, and what it does without memory. */
#include "proto/fifo.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void in_order_and_given_back_when_empty(void **state)
{
    (void)state;
    struct fifo f;
    uint32_t in = 0, out = 0, dice = 3;
    fifo_init(&f, sizeof(uint32_t));
    assert_null(fifo_first(&f));
    for (unsigned round = 0; round < 100000; round++) {
        dice = dice * 1664525 + 1013904223;
        if (dice >> 31 && in - out < 500) {
            uint32_t *place = fifo_push(&f);
            assert_non_null(place);
            *place = in++;
            assert_int_equal(*(uint32_t *)fifo_last(&f), in - 1);
        } else if (in > out) {
            assert_int_equal(*(uint32_t *)fifo_first(&f), out);
            fifo_pop(&f);
            out++;
        }
        assert_int_equal(f.count, in - out);
        if (f.count == 0)
            assert_null(f.items);
    }
    while (f.count)
        fifo_pop(&f);
    mem_fail_at(1, true);
    assert_null(fifo_push(&f));
    mem_fail_at(0, false);
    assert_int_equal(f.count, 0);
    fifo_fini(&f);
    assert_int_equal(mem_in_use(), 0);
}

static void a_small_circle_is_kept(void **state)
{
    (void)state;
    struct fifo f;
    fifo_init(&f, sizeof(uint64_t));
    f.kept = 16;
    for (unsigned i = 0; i < 16; i++)
        assert_non_null(fifo_push(&f));
    while (f.count)
        fifo_pop(&f);
    assert_int_equal(f.room, 16);
    mem_fail_at(1, true);
    assert_non_null(fifo_push(&f)); /* nothing is allocated */
    mem_fail_at(0, false);
    for (unsigned i = 0; i < 16; i++)
        assert_non_null(fifo_push(&f));
    while (f.count)
        fifo_pop(&f);
    assert_int_equal(mem_in_use(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_order_and_given_back_when_empty),
        cmocka_unit_test(a_small_circle_is_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
