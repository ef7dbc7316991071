/* Unit test of the latency histogram: small values are exact, large ones within 1/128, merge adds up. */
#include "histogram.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void empty_histogram_answers_zero(void **state)
{
    (void)state;
    struct bench_histogram *h = bench_histogram_new();
    assert_int_equal(bench_histogram_quantile(h, 0.5), 0);
    assert_int_equal(bench_histogram_max(h), 0);
    bench_histogram_free(h);
}

static void small_values_are_exact(void **state)
{
    (void)state;
    struct bench_histogram *h = bench_histogram_new();
    for (uint64_t v = 1; v <= 100; v++)
        bench_histogram_add(h, v, 1);
    assert_int_equal(bench_histogram_quantile(h, 0.50), 50);
    assert_int_equal(bench_histogram_quantile(h, 0.99), 99);
    assert_int_equal(bench_histogram_quantile(h, 1.0), 100);
    bench_histogram_free(h);
}

static void every_magnitude_is_within_one_part_in_128(void **state)
{
    (void)state;
    struct bench_histogram *h = bench_histogram_new();
    for (uint64_t v = 3; v < (UINT64_C(1) << 41); v = v * 3 / 2 + 1) {
        bench_histogram_reset(h);
        bench_histogram_add(h, v, 2);
        bench_histogram_add(h, UINT64_C(1) << 50, 1);
        uint64_t got = bench_histogram_quantile(h, 0.5);
        assert_true(got >= v);
        assert_true(got <= v + v / 128);
    }
    assert_int_equal(bench_histogram_max(h), UINT64_C(1) << 50);
    bench_histogram_free(h);
}

static void merge_adds_counts_and_keeps_the_maximum(void **state)
{
    (void)state;
    struct bench_histogram *a = bench_histogram_new(), *b = bench_histogram_new();
    bench_histogram_add(a, 10, 3);
    bench_histogram_add(b, 90, 1);
    bench_histogram_merge(a, b);
    assert_int_equal(bench_histogram_count(a), 4);
    assert_int_equal(bench_histogram_max(a), 90);
    assert_int_equal(bench_histogram_quantile(a, 0.75), 10);
    assert_true(bench_histogram_mean(a) > 29.9 && bench_histogram_mean(a) < 30.1);
    bench_histogram_free(a);
    bench_histogram_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(empty_histogram_answers_zero),
        cmocka_unit_test(small_values_are_exact),
        cmocka_unit_test(every_magnitude_is_within_one_part_in_128),
        cmocka_unit_test(merge_adds_counts_and_keeps_the_maximum),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
