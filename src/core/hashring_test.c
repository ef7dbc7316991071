/* Unit test of consistent hashing: shares follow weights, and a change moves only the share of what changed. */
#include "core/hashring.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#define KEYS 20000
#define TARGETS 10

static int targets[TARGETS];

static int pick(const struct hashring *ring, int key)
{
    char text[24];
    int n = snprintf(text, sizeof text, "key-%d", key);
    int *target = hashring_pick(ring, slice_of(text, (size_t)n));
    return target ? (int)(target - targets) : -1;
}

static struct hashring *ring_of(const unsigned *weights, unsigned count)
{
    struct hashring *ring = hashring_new();
    assert_non_null(ring);
    for (unsigned i = 0; i < count; i++)
        assert_true(hashring_add(ring, 1000 + i, weights[i], &targets[i]));
    return ring;
}

static void shares_follow_weights(void **state)
{
    (void)state;
    static const unsigned weights[2][4] = {{1, 1, 1, 1}, {1, 2, 3, 4}};
    for (int w = 0; w < 2; w++) {
        struct hashring *ring = ring_of(weights[w], 4);
        unsigned got[4] = {0}, sum = weights[w][0] + weights[w][1] + weights[w][2] + weights[w][3];
        for (int key = 0; key < KEYS; key++)
            got[pick(ring, key)]++;
        for (int i = 0; i < 4; i++) {
            unsigned want = KEYS * weights[w][i] / sum;
            assert_in_range(got[i], want * 93 / 100, want * 107 / 100);
        }
        hashring_free(&ring);
        assert_null(ring);
    }
}

static void a_new_target_takes_only_its_share(void **state)
{
    (void)state;
    static const unsigned weights[TARGETS] = {3, 3, 3, 3, 3, 3, 3, 3, 3, 6};
    static int before[KEYS];
    struct hashring *ring = ring_of(weights, TARGETS - 1);
    unsigned moved = 0;
    for (int key = 0; key < KEYS; key++)
        before[key] = pick(ring, key);
    assert_true(hashring_add(ring, 1000 + TARGETS - 1, weights[TARGETS - 1], &targets[TARGETS - 1]));
    for (int key = 0; key < KEYS; key++) {
        int now = pick(ring, key);
        assert_true(now == before[key] || now == TARGETS - 1);
        moved += now != before[key];
    }
    assert_in_range(moved, KEYS * 6 / 33 * 93 / 100, KEYS * 6 / 33 * 107 / 100);
    hashring_remove(ring, 1000 + TARGETS - 1, weights[TARGETS - 1], &targets[TARGETS - 1]);
    for (int key = 0; key < KEYS; key++)
        assert_int_equal(pick(ring, key), before[key]);
    hashring_free(&ring);
}

static void the_order_of_adding_does_not_matter(void **state)
{
    (void)state;
    struct hashring *a = hashring_new(), *b = hashring_new();
    for (int i = 0; i < TARGETS; i++) {
        assert_true(hashring_add(a, (uint64_t)i, 1 + (unsigned)i % 3, &targets[i]));
        assert_true(hashring_add(b, (uint64_t)(TARGETS - 1 - i), 1 + (unsigned)(TARGETS - 1 - i) % 3,
                                 &targets[TARGETS - 1 - i]));
    }
    for (int key = 0; key < 2000; key++)
        assert_int_equal(pick(a, key), pick(b, key));
    hashring_free(&a);
    hashring_free(&b);
}

static void weights_of_one_target_add_up(void **state)
{
    (void)state;
    static const unsigned twice[2] = {2, 1};
    struct hashring *sum = hashring_new(), *want = ring_of(twice, 2);
    assert_true(hashring_add(sum, 1000, 1, &targets[0]) && hashring_add(sum, 1001, 1, &targets[1]));
    assert_true(hashring_add(sum, 1000, 1, &targets[0]));
    for (int key = 0; key < 2000; key++)
        assert_int_equal(pick(sum, key), pick(want, key));
    hashring_remove(sum, 1000, 1, &targets[0]);
    hashring_remove(sum, 1000, 1, &targets[0]);
    for (int key = 0; key < 50; key++)
        assert_int_equal(pick(sum, key), 1);
    hashring_remove(sum, 1001, 1, &targets[1]);
    assert_int_equal(pick(sum, 1), -1);
    hashring_free(&sum);
    hashring_free(&want);
}

static void weight_0_is_never_chosen(void **state)
{
    (void)state;
    static const unsigned weights[3] = {0, 1, 0};
    struct hashring *ring = ring_of(weights, 1);
    assert_int_equal(pick(ring, 1), -1);
    hashring_free(&ring);
    ring = ring_of(weights, 3);
    for (int key = 0; key < 500; key++)
        assert_int_equal(pick(ring, key), 1);
    hashring_remove(ring, 1001, 1, &targets[1]);
    assert_int_equal(pick(ring, 1), -1);
    hashring_remove(ring, 1000, 0, &targets[0]);
    hashring_remove(ring, 1002, 0, &targets[2]);
    hashring_free(&ring);
}

/* Stored bindings must lead where they led before a restart, also of the next version. */
static void the_choice_is_fixed_for_ever(void **state)
{
    (void)state;
    static const unsigned weights[2][4] = {{1, 1, 1, 1}, {1, 2, 3, 4}};
    static const int want[2][12] = {{2, 0, 3, 3, 0, 2, 0, 0, 3, 1, 0, 1}, {2, 0, 3, 3, 0, 2, 3, 2, 3, 1, 0, 1}};
    for (int w = 0; w < 2; w++) {
        struct hashring *ring = ring_of(weights[w], 4);
        for (int key = 0; key < 12; key++)
            assert_int_equal(pick(ring, key), want[w][key]);
        hashring_free(&ring);
    }
}

static void refused_memory_changes_nothing(void **state)
{
    (void)state;
    size_t before = mem_in_use();
    mem_fail_at(1, false);
    assert_null(hashring_new());
    struct hashring *ring = hashring_new();
    mem_fail_at(1, false);
    assert_false(hashring_add(ring, 1, 1, &targets[0]));
    assert_int_equal(pick(ring, 1), -1);
    assert_true(hashring_add(ring, 1, 1, &targets[0]));
    assert_int_equal(pick(ring, 1), 0);
    hashring_free(&ring);
    assert_int_equal(mem_in_use(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_follow_weights),
        cmocka_unit_test(a_new_target_takes_only_its_share),
        cmocka_unit_test(the_order_of_adding_does_not_matter),
        cmocka_unit_test(weights_of_one_target_add_up),
        cmocka_unit_test(weight_0_is_never_chosen),
        cmocka_unit_test(the_choice_is_fixed_for_ever),
        cmocka_unit_test(refused_memory_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
