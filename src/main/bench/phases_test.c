/* Warm-up, measured, drain: each begins when it should, and hopeless draining ends. */
#include "phases.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define S BENCH_NS_PER_S

static void phases_follow_the_clock(void **state)
{
    (void)state;
    struct bench_phases p;
    bench_phases_plan(&p, 100 * S, 2, 10, false);
    assert_int_equal(bench_phases_step(&p, 101 * S), BENCH_PHASE_SAME);
    assert_false(p.measuring);
    assert_int_equal(bench_phases_step(&p, 103 * S), BENCH_PHASE_BEGUN);
    assert_true(p.measuring);
    assert_int_equal(bench_phases_step(&p, 104 * S), BENCH_PHASE_SAME);
    assert_int_equal(bench_phases_step(&p, 112 * S), BENCH_PHASE_ENDED);
    assert_false(p.measuring);
    assert_int_equal(p.measured_from_ns, 103 * S);
    assert_int_equal(p.measured_to_ns, 112 * S);
    assert_int_equal(bench_phases_step(&p, 113 * S), BENCH_PHASE_SAME);
    assert_false(bench_phases_end(&p, 114 * S)); /* the figures are taken already */
    assert_int_equal(p.measured_to_ns, 112 * S);
}

static void numbers_measure_everything(void **state)
{
    (void)state;
    struct bench_phases p;
    bench_phases_plan(&p, 100 * S, 2, 10, true);
    assert_int_equal(bench_phases_step(&p, 100 * S), BENCH_PHASE_BEGUN);
    assert_int_equal(bench_phases_step(&p, 1000 * S), BENCH_PHASE_SAME);
    assert_true(bench_phases_end(&p, 1001 * S));
    assert_int_equal(p.measured_to_ns, 1001 * S);
}

static void an_early_end_measures_nothing(void **state)
{
    (void)state;
    struct bench_phases p;
    bench_phases_plan(&p, 100 * S, 2, 10, false);
    assert_true(bench_phases_end(&p, 101 * S));
    assert_int_equal(p.measured_from_ns, p.measured_to_ns);
}

static void draining_ends_when_nothing_moves(void **state)
{
    (void)state;
    struct bench_phases p;
    bench_phases_plan(&p, 100 * S, 0, 10, false);
    assert_false(bench_phases_stalled(&p, 5, 3, 101 * S));
    assert_false(bench_phases_stalled(&p, 5, 3, 109 * S)); /* measured: a silence is a result */
    assert_false(bench_phases_stalled(&p, 5, 3, 111 * S));
    assert_false(bench_phases_stalled(&p, 6, 3, 112 * S));
    assert_false(bench_phases_stalled(&p, 6, 3, 115 * S));
    assert_true(bench_phases_stalled(&p, 6, 3, 116 * S));
}

static void a_cut_ends_what_goes_by_the_clock(void **state)
{
    (void)state;
    struct bench_phases p;
    bench_phases_plan(&p, 100 * S, 2, 10, false);
    assert_int_equal(bench_phases_step(&p, 103 * S), BENCH_PHASE_BEGUN);
    assert_false(bench_phases_stopping(&p, 104 * S));
    bench_phases_cut(&p, 105 * S);
    assert_true(bench_phases_stopping(&p, 105 * S));
    assert_int_equal(bench_phases_step(&p, 105 * S), BENCH_PHASE_ENDED);
    assert_int_equal(p.measured_to_ns, 105 * S);
    bench_phases_cut(&p, 106 * S); /* asked again in each round */
    assert_false(bench_phases_end(&p, 107 * S));
    assert_int_equal(p.measured_to_ns, 105 * S);
    bench_phases_plan(&p, 100 * S, 2, 10, false);
    bench_phases_cut(&p, 101 * S); /* in the warm-up: nothing was measured */
    assert_int_equal(bench_phases_step(&p, 101 * S), BENCH_PHASE_BEGUN);
    assert_int_equal(bench_phases_step(&p, 101 * S), BENCH_PHASE_ENDED);
}

static void a_cut_lets_come_what_goes_by_numbers(void **state)
{
    (void)state;
    struct bench_phases p;
    bench_phases_plan(&p, 100 * S, 2, 10, true);
    assert_int_equal(bench_phases_step(&p, 100 * S), BENCH_PHASE_BEGUN);
    bench_phases_cut(&p, 105 * S);
    assert_true(bench_phases_stopping(&p, 105 * S));
    assert_int_equal(bench_phases_step(&p, 105 * S), BENCH_PHASE_SAME);
    assert_true(bench_phases_end(&p, 107 * S));
    assert_int_equal(p.measured_to_ns, 107 * S);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(phases_follow_the_clock),           cmocka_unit_test(numbers_measure_everything),
        cmocka_unit_test(an_early_end_measures_nothing),     cmocka_unit_test(draining_ends_when_nothing_moves),
        cmocka_unit_test(a_cut_ends_what_goes_by_the_clock), cmocka_unit_test(a_cut_lets_come_what_goes_by_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
