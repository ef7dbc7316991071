/* A rate keeps its promise: nothing early, what was held is stamped with when it was due. */
#include "pace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void items_are_due_at_their_time(void **state)
{
    (void)state;
    struct bench_pace p = bench_pace_of(1000, 0, 1, 5000000);
    assert_int_equal(bench_pace_due(&p, 0, 4999999), 0);
    assert_int_equal(bench_pace_due(&p, 0, 5000000), 1);
    assert_int_equal(bench_pace_due(&p, 1, 5999999), 0);
    assert_int_equal(bench_pace_due(&p, 1, 8000000), 3);
    assert_int_equal(bench_pace_due_at(&p, 3), 8000000);
}

static void producers_take_turns(void **state)
{
    (void)state;
    struct bench_pace second = bench_pace_of(1000, 1, 2, 0);
    assert_int_equal(bench_pace_due_at(&second, 0), 1000000);
    assert_int_equal(bench_pace_due_at(&second, 1), 3000000);
}

static void what_was_held_is_stamped_when_due(void **state)
{
    (void)state;
    struct bench_pace p = bench_pace_of(1000, 0, 1, 0);
    assert_int_equal(bench_pace_stamp(&p, 2, 9000000), 9000000);
    p.held = true;
    assert_int_equal(bench_pace_stamp(&p, 2, 9000000), 2000000);
    assert_int_equal(bench_pace_stamp(&p, 20, 9000000), 9000000);
}

static void waiting_ends_when_the_next_is_due(void **state)
{
    (void)state;
    struct bench_pace p = bench_pace_of(100, 0, 1, 0), free_running = {0};
    assert_int_equal(bench_pace_wait(&p, 1, 4000000, 50000000), 6000000);
    assert_int_equal(bench_pace_wait(&p, 1, 4000000, 1000000), 1000000);
    assert_int_equal(bench_pace_wait(&p, 1, 9999999, 50000000), BENCH_PACE_MIN_NS);
    assert_int_equal(bench_pace_wait(&free_running, 1, 0, 77), 77);
    assert_true(bench_pace_due(&free_running, 1, 0) == UINT64_MAX);
    p.held = true; /* the server's turn: only its answer wakes us */
    assert_int_equal(bench_pace_wait(&p, 1, 4000000, 50000000), 50000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(items_are_due_at_their_time),
        cmocka_unit_test(producers_take_turns),
        cmocka_unit_test(what_was_held_is_stamped_when_due),
        cmocka_unit_test(waiting_ends_when_the_next_is_due),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
