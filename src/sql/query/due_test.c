/* What ends first comes first, in whatever order it was added; nothing is held when nothing is in it. */
#include "sql/query/due.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define ITEMS 2000u

static uint64_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

static bool is_odd(void *arg, void *what)
{
    ++*(uint32_t *)arg;
    return (uintptr_t)what % 2 == 1;
}

/* Mostly growing times, as streams have them, some far from it, many equal; drops in between. */
static void test_order(void **state)
{
    (void)state;
    struct budget budget = {.max = 1u << 20};
    struct account account = {.budget = &budget};
    struct due d;
    uint64_t random = 7;
    for (uint32_t round = 0; round < 3; round++) {
        due_init(&d, &account);
        uint32_t added = 0, taken = 0, asked = 0;
        for (; added < ITEMS; added++) {
            int64_t time = (int64_t)(added / 4) + (round ? (int64_t)(next_random(&random) % (round * 300)) : 0);
            assert_true(
                due_add(&d, (struct due_item){.time = time, .number = added, .what = (void *)(uintptr_t)added}));
            if (added % 3 == 0) {
                due_drop(&d);
                taken++;
            }
        }
        due_sweep(&d, is_odd, &asked);
        assert_int_equal(asked, added - taken);
        int64_t last = INT64_MIN;
        uint64_t number = 0;
        uint32_t left = due_count(&d);
        for (const struct due_item *i; (i = due_first(&d)); left--) {
            assert_true(i->time > last || (i->time == last && i->number > number));
            assert_int_equal((uintptr_t)i->what % 2, 0);
            last = i->time;
            number = i->number;
            due_drop(&d);
        }
        assert_int_equal(left, 0);
        assert_int_equal(budget.used, 0);
    }
}

static void test_no_memory(void **state)
{
    (void)state;
    struct budget budget = {.max = 2000};
    struct account account = {.budget = &budget};
    struct due d;
    uint32_t added = 0;
    due_init(&d, &account);
    while (due_add(&d, (struct due_item){.time = -(int64_t)added, .number = added}))
        added++;
    assert_true(added > 16 && due_count(&d) == added && budget.used <= 2000);
    assert_int_equal(due_first(&d)->number, added - 1);
    due_fini(&d);
    assert_int_equal(budget.used, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_order), cmocka_unit_test(test_no_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
