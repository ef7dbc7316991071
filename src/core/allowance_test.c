/* Shares of memory: who asks for all of it leaves something for everybody. */
#include "core/allowance.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#define MAX 1024u

/* As much as it gets. */
static uint64_t take_all(struct allowance *allowance)
{
    uint64_t before = allowance->bytes, left;
    while ((left = allowance_left(allowance, MAX)))
        allowance_take(allowance, left);
    return allowance->bytes - before;
}

static void the_topmost_has_all(void **state)
{
    (void)state;
    struct allowance all = {0};
    assert_int_equal(allowance_left(&all, MAX), MAX);
    allowance_take(&all, 1000);
    assert_int_equal(allowance_left(&all, MAX), 24);
    assert_int_equal(allowance_left(&all, 500), 0); /* the maximum was made smaller meanwhile */
    allowance_give(&all, 1000);
    assert_int_equal(allowance_left(&all, MAX), MAX);
}

/* Whoever takes what it can gets half of what those before have left, and what it gives back is there for all. */
static void each_leaves_half(void **state)
{
    (void)state;
    struct allowance all = {0}, a = {.of = &all}, b = {.of = &all}, c = {.of = &all};
    assert_int_equal(take_all(&a), 512);
    assert_int_equal(take_all(&b), 256);
    assert_int_equal(take_all(&c), 128);
    assert_int_equal(all.bytes, 512 + 256 + 128);
    assert_int_equal(allowance_left(&a, MAX), 0);
    allowance_give(&a, 512);
    assert_int_equal(allowance_left(&c, MAX), 256); /* (640 - 128) / 2 */
    allowance_give(&b, 256);
    allowance_give(&c, 128);
    assert_int_equal(all.bytes, 0);
}

/* A maximum is a maximum: an allowance that has taken more than it was told may is as one that has nothing left. */
static void more_than_its_share(void **state)
{
    (void)state;
    struct allowance all = {0}, a = {.of = &all}, b = {.of = &all};
    allowance_take(&a, 900);
    assert_int_equal(allowance_left(&a, MAX), 0);
    assert_int_equal(allowance_left(&b, MAX), 62);
    allowance_take(&a, 200);
    assert_int_equal(allowance_left(&b, MAX), 0);
}

/* Below one allowance are others: together they may have its share, and one of them half of what it has free. */
static void levels(void **state)
{
    (void)state;
    struct allowance all = {0}, x = {.of = &all}, y = {.of = &all}, x1 = {.of = &x}, x2 = {.of = &x}, y1 = {.of = &y};
    uint64_t first = take_all(&x1);
    assert_in_range(first, MAX / 4 - 2, MAX / 4);
    assert_true(take_all(&x2) >= MAX / 8 - 2);
    assert_true(x.bytes <= MAX / 2);
    assert_int_equal(x.bytes, x1.bytes + x2.bytes);
    assert_true(allowance_left(&y1, MAX) >= (MAX - MAX / 2) / 4);
    assert_int_equal(all.bytes, x.bytes);
}

/* Many in one branch take their branch's share, no more. */
static void a_crowd(void **state)
{
    (void)state;
    struct allowance all = {0}, x = {.of = &all}, y = {.of = &all}, many[100];
    for (unsigned i = 0; i < 100; i++) {
        many[i] = (struct allowance){.of = &x};
        (void)take_all(&many[i]);
    }
    assert_true(x.bytes <= MAX / 2);
    assert_true(allowance_left(&y, MAX) >= MAX / 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_topmost_has_all),
        cmocka_unit_test(each_leaves_half),
        cmocka_unit_test(more_than_its_share),
        cmocka_unit_test(levels),
        cmocka_unit_test(a_crowd),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
