/* Pieces of every length do not overlap, are used again, and leave nothing behind. */
#include "sql/query/pieces.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define PIECES 3000u

static size_t len_of(uint32_t i)
{
    return i % 97 == 0 ? 9000 + i : i % 13 == 0 ? 600 + i : i % 300;
}

static void test_pieces(void **state)
{
    (void)state;
    struct budget budget = {.max = 64u << 20};
    struct account account = {.budget = &budget};
    struct pieces p;
    static uint8_t *at[PIECES];
    size_t before = mem_in_use(), most = 0;
    pieces_init(&p, &account);
    for (unsigned round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < PIECES; i++) {
            at[i] = pieces_take(&p, len_of(i));
            assert_non_null(at[i]);
            assert_int_equal((uintptr_t)at[i] % 16, 0);
            memset(at[i], (int)(i % 251), len_of(i));
        }
        if (!round)
            most = budget.used;
        assert_true(budget.used <= most); /* what was given back is used again */
        for (uint32_t i = 0; i < PIECES; i++)
            for (size_t k = 0; k < len_of(i); k++)
                assert_int_equal(at[i][k], i % 251);
        for (uint32_t i = round == 1; i < PIECES; i++) /* one stays in the second round */
            pieces_give(&p, at[PIECES - 1 - (i - (round == 1))], len_of(PIECES - 1 - (i - (round == 1))));
        assert_true(round == 1 ? budget.used > 0 : budget.used == 0);
        if (round == 1)
            pieces_give(&p, at[0], len_of(0));
    }
    assert_non_null(pieces_take(&p, 20));
    assert_non_null(pieces_take(&p, 100000));
    pieces_fini(&p); /* with pieces that are out */
    assert_int_equal(budget.used, 0);
    assert_int_equal(mem_in_use(), before);
}

static void test_limit(void **state)
{
    (void)state;
    struct budget budget = {.max = 5000};
    struct account account = {.budget = &budget};
    struct pieces p;
    unsigned count = 0;
    pieces_init(&p, &account);
    assert_null(pieces_take(&p, 10000));
    while (pieces_take(&p, 48))
        count++;
    assert_true(count > 20 && budget.used <= 5000);
    pieces_fini(&p);
    assert_int_equal(budget.used, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_pieces), cmocka_unit_test(test_limit)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
