/* confirms: in order, not before they are durable, joined where nobody can tell, and never more than so many. */
#include "proto/confirms.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static bool add(struct confirms *c, uint64_t number, lsn_t lsn, uint8_t kind, lsn_t durable)
{
    struct effect e = {.type = EFF_CONFIRM, .number = number, .lsn = lsn, .bytes = 10};
    return confirms_add(c, &e, kind, durable);
}

static void refuse(struct confirms *c, uint64_t number, lsn_t lsn)
{
    struct effect e = {.type = EFF_NACK, .number = number, .lsn = lsn, .bytes = 10};
    assert_true(confirms_add(c, &e, 0, 0));
}

static void took(struct confirms *c, lsn_t durable, uint64_t number, uint32_t bytes, bool refused)
{
    struct confirm got;
    assert_true(confirms_take(c, durable, &got));
    assert_true(got.number == number);
    assert_int_equal(got.bytes, bytes);
    assert_int_equal(got.refused, refused);
}

static void nothing_leaves_before_it_is_durable(void **state)
{
    (void)state;
    struct confirms c;
    struct confirm got;
    confirms_init(&c, 0);
    assert_false(confirms_take(&c, UINT64_MAX, &got));
    assert_true(add(&c, 1, 5, 0, 0) && add(&c, 2, 7, 0, 0));
    assert_int_equal(confirms_count(&c), 2);
    assert_false(confirms_take(&c, 4, &got));
    took(&c, 6, 1, 10, false);
    assert_false(confirms_take(&c, 6, &got));
    took(&c, 7, 2, 10, false);
    assert_int_equal(mem_in_use(), 0);
}

static void what_leaves_together_is_one(void **state)
{
    (void)state;
    struct confirms c;
    confirms_init(&c, 0);
    assert_true(add(&c, 1, 5, 0, 0) && add(&c, 2, 5, 0, 0)); /* one group */
    assert_true(add(&c, 3, 4, 0, 0));                        /* waits behind them anyway */
    assert_true(add(&c, 4, 6, 0, 6));                        /* so can this, which is durable: with them */
    assert_int_equal(confirms_count(&c), 1);
    assert_true(add(&c, 5, 6, 1, 6)); /* of another kind */
    assert_int_equal(confirms_count(&c), 2);
    took(&c, 6, 4, 40, false);
    took(&c, 6, 5, 10, false);
    confirms_fini(&c);
}

static void a_refusal_stands_alone(void **state)
{
    (void)state;
    struct confirms c;
    confirms_init(&c, 0);
    assert_true(add(&c, 1, 5, 0, 0));
    refuse(&c, 2, 5);
    refuse(&c, 3, 5);
    assert_true(add(&c, 4, 5, 0, 0));
    took(&c, 5, 1, 10, false);
    took(&c, 5, 2, 10, true);
    took(&c, 5, 3, 10, true);
    took(&c, 5, 4, 10, false);
    confirms_fini(&c);
}

static void there_are_never_too_many(void **state)
{
    (void)state;
    struct confirms c;
    struct confirm got;
    confirms_init(&c, CONFIRMS_KEPT);
    for (unsigned i = 1; i <= 2 * CONFIRMS_MAX; i++)
        assert_true(add(&c, i, i, 0, 0));
    assert_int_equal(confirms_count(&c), CONFIRMS_MAX);
    for (unsigned i = 1; i < CONFIRMS_MAX; i++)
        took(&c, CONFIRMS_MAX, i, 10, false);
    assert_false(confirms_take(&c, 2 * CONFIRMS_MAX - 1, &got));
    took(&c, 2 * CONFIRMS_MAX, 2 * CONFIRMS_MAX, 10 * (CONFIRMS_MAX + 1), false);
    assert_int_equal(mem_in_use(), 0);
}

static void without_memory_it_says_so(void **state)
{
    (void)state;
    struct confirms c;
    confirms_init(&c, 0);
    mem_fail_at(1, true);
    assert_false(add(&c, 1, 1, 0, 0));
    mem_fail_at(0, false);
    assert_int_equal(confirms_count(&c), 0);
    assert_true(add(&c, 1, 1, 0, 0));
    confirms_fini(&c);
    assert_int_equal(mem_in_use(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_leaves_before_it_is_durable),
        cmocka_unit_test(what_leaves_together_is_one),
        cmocka_unit_test(a_refusal_stands_alone),
        cmocka_unit_test(there_are_never_too_many),
        cmocka_unit_test(without_memory_it_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
