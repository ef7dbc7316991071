/* Unit test of the object pool: objects never overlap, chunks come and go, refused memory is told. */
#include "base/pool.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#define OBJECTS 3000

static void *held[OBJECTS];

/* Every object is filled with its own byte and looked at again when it is given back. */
static void mark(unsigned i, size_t len)
{
    memset(held[i], (int)(i * 7 % 251), len);
}

static void check_mark(unsigned i, size_t len)
{
    const uint8_t *bytes = held[i];
    for (size_t b = 0; b < len; b++)
        assert_int_equal(bytes[b], i * 7 % 251);
}

static void objects_do_not_overlap(void **state)
{
    (void)state;
    static const size_t lens[] = {8, 9, 24, 100, 1000, 4096};
    size_t before = mem_in_use();
    srand(3);
    for (size_t l = 0; l < ARRAY_LEN(lens); l++) {
        struct pool pool;
        uint64_t count = 0;
        pool_init(&pool, lens[l]);
        memset(held, 0, sizeof held);
        for (int step = 0; step < 30000; step++) {
            unsigned i = (unsigned)rand() % OBJECTS;
            bool shrinking = step / 5000 % 2;
            if (!held[i] && (!shrinking || rand() % 4 == 0)) {
                held[i] = pool_take(&pool);
                assert_non_null(held[i]);
                assert_int_equal((uintptr_t)held[i] % 8, 0);
                mark(i, lens[l]);
                count++;
            } else if (held[i]) {
                check_mark(i, lens[l]);
                pool_give(&pool, held[i]);
                held[i] = NULL;
                count--;
            }
            assert_int_equal(pool.objects, count);
        }
        for (unsigned i = 0; i < OBJECTS; i++)
            if (held[i]) {
                check_mark(i, lens[l]);
                pool_give(&pool, held[i]);
            }
        assert_int_equal(pool.objects, 0);
        assert_int_equal(pool.empty_count, 1);
        assert_int_equal(pool.bytes, 16384); /* one free chunk is kept, the others are returned */
        pool_fini(&pool);
        assert_int_equal(mem_in_use(), before);
    }
}

static void holes_are_filled_before_a_chunk_is_added(void **state)
{
    (void)state;
    struct pool pool;
    unsigned in_chunk = 0;
    pool_init(&pool, 1000);
    for (held[0] = pool_take(&pool); pool.bytes == 16384; in_chunk++)
        held[in_chunk + 1] = pool_take(&pool);
    assert_int_equal(in_chunk, 16); /* all the room of a chunk is used */
    for (unsigned i = 17; i < 48; i++)
        held[i] = pool_take(&pool);
    assert_int_equal(pool.bytes, 3 * 16384);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = round; i < 48; i += 3)
            pool_give(&pool, held[i]);
        for (unsigned i = round; i < 48; i += 3)
            held[i] = pool_take(&pool);
        assert_int_equal(pool.bytes, 3 * 16384);
    }
    pool_fini(&pool);
}

static void fini_frees_what_is_still_out(void **state)
{
    (void)state;
    size_t before = mem_in_use();
    struct pool pool;
    pool_init(&pool, 200);
    for (unsigned i = 0; i < 500; i++)
        assert_non_null(pool_take(&pool));
    pool_fini(&pool);
    assert_int_equal(mem_in_use(), before);
    assert_non_null(pool_take(&pool)); /* and it can be used again */
    pool_fini(&pool);
}

static void pinned_reserve_holds_across_gives(void **state)
{
    (void)state;
    struct pool pool;
    pool_init(&pool, 1000);
    for (unsigned i = 0; i < 40; i++)
        held[i] = pool_take(&pool);
    assert_true(pool_reserve_many(&pool, 30));
    pool_pin(&pool);
    mem_fail_at(1, true);
    for (unsigned i = 0; i < 40; i++)
        pool_give(&pool, held[i]); /* whole chunks become free on the way */
    for (unsigned i = 0; i < 70; i++) {
        held[i] = pool_take(&pool);
        assert_non_null(held[i]);
    }
    for (unsigned i = 0; i < 70; i++)
        pool_give(&pool, held[i]);
    pool_unpin(&pool);
    assert_false(pool_reserve_many(&pool, 30)); /* one free chunk is kept, as ever */
    mem_fail_at(0, false);
    pool_fini(&pool);
}

static void refused_memory_is_told_and_a_reserve_is_kept(void **state)
{
    (void)state;
    struct pool pool;
    unsigned refused = 0;
    pool_init(&pool, 1000);
    for (unsigned i = 0; i < 100; i++) {
        mem_fail_at(1, true);
        held[i] = pool_take(&pool);
        if (!held[i]) {
            refused++;
            assert_false(pool_reserve(&pool));
            mem_fail_at(0, false);
            assert_true(pool_reserve(&pool));
            mem_fail_at(1, true);
            held[i] = pool_take(&pool);
        }
        assert_non_null(held[i]);
        mark(i, 1000);
    }
    mem_fail_at(0, false);
    assert_int_equal(refused, 7); /* 16 objects of 1000 bytes in a chunk */
    for (unsigned i = 0; i < 100; i++)
        check_mark(i, 1000);
    pool_fini(&pool);
}

static void many_reserved_objects_need_no_memory(void **state)
{
    (void)state;
    for (uint32_t count = 0; count < 70; count += 3)
        for (unsigned taken = 0; taken < 20; taken += 7) {
            struct pool pool;
            pool_init(&pool, 1000);
            for (unsigned i = 0; i < taken; i++)
                assert_non_null(pool_take(&pool));
            assert_true(pool_reserve_many(&pool, count));
            mem_fail_at(1, true);
            for (uint32_t i = 0; i < count; i++)
                assert_non_null(pool_take(&pool));
            assert_false(pool_reserve_many(&pool, 17));
            mem_fail_at(0, false);
            pool_fini(&pool);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(objects_do_not_overlap),
        cmocka_unit_test(holes_are_filled_before_a_chunk_is_added),
        cmocka_unit_test(fini_frees_what_is_still_out),
        cmocka_unit_test(many_reserved_objects_need_no_memory),
        cmocka_unit_test(pinned_reserve_holds_across_gives),
        cmocka_unit_test(refused_memory_is_told_and_a_reserve_is_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
