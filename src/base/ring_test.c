/* Unit test of the ring: full and empty, nothing seen before it is published, two threads lose and reorder nothing. */
#include "base/ring.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>
#include <pthread.h>
#include <sched.h>

struct slot {
    uint64_t number, check;
    char filling[8];
};

static void slots_are_rounded_up_and_counted(void **state)
{
    (void)state;
    static const size_t asked[] = {0, 1, 2, 3, 5, 8, 9}, made[] = {2, 2, 2, 4, 8, 8, 16};
    for (size_t i = 0; i < ARRAY_LEN(asked); i++) {
        struct ring r;
        assert_true(ring_init(&r, asked[i], sizeof(uint64_t)));
        for (int round = 0; round < 5; round++) { /* several times, so that the indices go round */
            for (size_t n = 0; n < made[i]; n++) {
                assert_int_equal(ring_room(&r), made[i] - n);
                uint64_t *slot = ring_push(&r);
                assert_non_null(slot);
                *slot = n;
            }
            assert_null(ring_push(&r));
            assert_int_equal(ring_room(&r), 0);
            ring_publish(&r);
            for (size_t n = 0; n < made[i]; n++) {
                assert_int_equal(*(uint64_t *)ring_peek(&r), n);
                ring_pop(&r);
            }
            assert_true(ring_empty(&r));
        }
        ring_fini(&r);
    }
}

/* Up to three quarters the producer does not look at what was taken, but when it is asked to. */
static void room_is_what_there_is(void **state)
{
    (void)state;
    struct ring r;
    assert_true(ring_init(&r, 8, sizeof(uint64_t)));
    for (unsigned i = 0; i < 5; i++) {
        assert_non_null(ring_push(&r));
        ring_publish(&r);
        assert_non_null(ring_peek(&r));
        ring_pop(&r);
    }
    assert_in_range(ring_room(&r), 3, 8);
    assert_int_equal(ring_room_now(&r), 8);
    ring_fini(&r);
}

static void nothing_is_seen_before_it_is_published(void **state)
{
    (void)state;
    struct ring r;
    assert_true(ring_init(&r, 8, sizeof(uint64_t)));
    assert_false(ring_dirty(&r));
    assert_null(ring_last_unpublished(&r));
    uint64_t *slot = ring_push(&r);
    *slot = 5;
    assert_true(ring_dirty(&r));
    assert_ptr_equal(ring_last_unpublished(&r), slot);
    assert_null(ring_peek(&r));
    ring_publish(&r);
    assert_false(ring_dirty(&r));
    assert_null(ring_last_unpublished(&r));
    assert_ptr_equal(ring_peek(&r), slot);
    assert_ptr_equal(ring_peek(&r), slot); /* it stays until it is popped */
    ring_pop(&r);
    assert_null(ring_peek(&r));
    ring_fini(&r);
}

static void indices_wrap_at_32_bits(void **state)
{
    (void)state;
    struct ring r;
    assert_true(ring_init(&r, 4, sizeof(uint64_t)));
    uint32_t start = UINT32_MAX - 5;
    r.tail = r.head = r.head_seen = r.tail_seen = start;
    atomic_store(&r.tail_published, start);
    atomic_store(&r.head_published, start);
    uint64_t in = 0, out = 0;
    for (int step = 0; step < 20; step++) {
        for (uint64_t *slot = ring_push(&r); slot; slot = ring_push(&r))
            *slot = in++;
        assert_int_equal(ring_room(&r), 0);
        ring_publish(&r);
        for (int n = 0; n < 3; n++, ring_pop(&r))
            assert_int_equal(*(uint64_t *)ring_peek(&r), out++);
    }
    assert_int_equal(in, out + 1);
    ring_fini(&r);
}

static void refused_memory_is_told(void **state)
{
    (void)state;
    struct ring r;
    mem_fail_at(1, false);
    assert_false(ring_init(&r, 8, 8));
    mem_fail_at(0, false);
    ring_fini(&r);
}

#define PASSED 2000000

static void *consume(void *arg)
{
    struct ring *r = arg;
    uint64_t wrong = 0;
    for (uint64_t want = 0; want < PASSED;) {
        struct slot *slot = ring_peek(r);
        if (!slot) {
            sched_yield();
            continue;
        }
        wrong += slot->number != want || slot->check != want * 3;
        want++;
        ring_pop(r);
    }
    return (void *)(uintptr_t)wrong;
}

static void two_threads_lose_and_reorder_nothing(void **state)
{
    (void)state;
    static struct ring r;
    pthread_t thread;
    void *wrong;
    assert_true(ring_init(&r, 64, sizeof(struct slot)));
    assert_int_equal(pthread_create(&thread, NULL, consume, &r), 0);
    for (uint64_t number = 0; number < PASSED;) {
        struct slot *slot = number % 7 == 0 && ring_room(&r) == 0 ? NULL : ring_push(&r);
        if (!slot) {
            ring_publish(&r);
            sched_yield();
            continue;
        }
        slot->number = number;
        slot->check = number * 3;
        if (++number % 5 == 0 || number == PASSED)
            ring_publish(&r);
    }
    pthread_join(thread, &wrong);
    assert_null(wrong);
    ring_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slots_are_rounded_up_and_counted),
        cmocka_unit_test(room_is_what_there_is),
        cmocka_unit_test(nothing_is_seen_before_it_is_published),
        cmocka_unit_test(indices_wrap_at_32_bits),
        cmocka_unit_test(refused_memory_is_told),
        cmocka_unit_test(two_threads_lose_and_reorder_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
