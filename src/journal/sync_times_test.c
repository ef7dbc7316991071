/* Counts of lengths: shares of them, within a quarter, over the whole range. */
#include "journal/sync_times.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void nothing_yet(void **state)
{
    (void)state;
    struct sync_times times = {0};
    assert_int_equal(sync_times_within(&times, 500), 0);
    assert_int_equal(sync_times_within(&times, 1000), 0);
}

/* What one length gives back is not below it, and at most a quarter and a unit above. */
static void every_length_is_known_within_a_quarter(void **state)
{
    (void)state;
    for (uint64_t ns = 1; ns < 1800 * (uint64_t)NS_PER_S; ns += 1 + ns / 7) {
        struct sync_times times = {0};
        sync_times_add(&times, ns);
        uint64_t told = sync_times_within(&times, 1);
        assert_true(told > ns && told <= ns + ns / 4 + 1024);
        assert_int_equal(sync_times_within(&times, 1000), told);
    }
    struct sync_times times = {0};
    sync_times_add(&times, UINT64_MAX);
    assert_true(sync_times_within(&times, 500) > 1800 * (uint64_t)NS_PER_S);
}

static void shares_of_many(void **state)
{
    (void)state;
    struct sync_times times = {0};
    for (unsigned i = 0; i < 989; i++)
        sync_times_add(&times, NS_PER_MS);
    for (unsigned i = 0; i < 11; i++)
        sync_times_add(&times, 50 * NS_PER_MS);
    assert_int_equal(sync_times_count(&times), 1000);
    uint64_t half = sync_times_within(&times, 500), most = sync_times_within(&times, 990);
    assert_true(half > NS_PER_MS && half < 1300000);
    assert_int_equal(sync_times_within(&times, 989), half);
    assert_true(most > 50 * NS_PER_MS && most < 63 * NS_PER_MS);
    assert_int_equal(sync_times_within(&times, 1000), most);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_yet),
        cmocka_unit_test(every_length_is_known_within_a_quarter),
        cmocka_unit_test(shares_of_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
