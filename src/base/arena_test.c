/* The arena: alignment, the limit, growth, what a reset keeps, and an allocation that fails. */
#include "base/arena.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void test_pieces_are_apart_and_aligned(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 1 << 20);
    uint8_t *got[500];
    for (size_t i = 0; i < ARRAY_LEN(got); i++) {
        got[i] = arena_take(&arena, i);
        assert_non_null(got[i]);
        assert_int_equal((uintptr_t)got[i] % 16, 0);
        memset(got[i], (int)i & 0xff, i);
    }
    for (size_t i = 0; i < ARRAY_LEN(got); i++)
        for (size_t k = 0; k < i; k++)
            assert_int_equal(got[i][k], i & 0xff);
    arena_fini(&arena);
}

static void test_limit_holds(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 100);
    assert_null(arena_take(&arena, 101));
    assert_null(arena_take(&arena, SIZE_MAX));
    assert_non_null(arena_take(&arena, 90));
    assert_null(arena_take(&arena, 11));
    assert_non_null(arena_take(&arena, 4));
    assert_null(arena_take(&arena, 1));
    assert_true(arena.used <= 100);
    arena_reset(&arena);
    assert_non_null(arena_take(&arena, 100));
    assert_null(arena_take(&arena, 1));
    arena_fini(&arena);
}

static void test_reset_keeps_one_small_block(void **state)
{
    (void)state;
    struct arena arena;
    size_t before = mem_in_use();
    arena_init(&arena, 1 << 24);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 1000; i++)
            assert_non_null(arena_take(&arena, 100));
        arena_reset(&arena);
        assert_true(mem_in_use() - before <= 16 * ARENA_BLOCK + 64);
    }
    void *kept = arena_take(&arena, 1);
    assert_non_null(kept);
    arena_reset(&arena);
    assert_ptr_equal(arena_take(&arena, 1), kept);
    assert_non_null(arena_take(&arena, 1 << 20));
    arena_reset(&arena); /* what one large request needed is not kept */
    assert_int_equal(mem_in_use(), before);
    assert_non_null(arena_take(&arena, 1));
    arena_fini(&arena);
    assert_int_equal(mem_in_use(), before);
}

static void test_failed_allocation_changes_nothing(void **state)
{
    (void)state;
    struct arena arena;
    arena_init(&arena, 1 << 20);
    void *first = arena_take(&arena, 100);
    assert_non_null(first);
    size_t used = arena.used;
    mem_fail_at(1, false);
    assert_null(arena_take(&arena, 1 << 16));
    mem_fail_at(0, false);
    assert_int_equal(arena.used, used);
    assert_ptr_equal(arena_take(&arena, 16), (uint8_t *)first + 112);
    arena_fini(&arena);
}

static void test_recycled_blocks_serve_the_next_round(void **state)
{
    (void)state;
    struct arena arena;
    size_t before = mem_in_use(), most = 0;
    arena_init(&arena, 1 << 24);
    for (int round = 0; round < 4; round++) {
        uint64_t none = 0;
        mem_fail_at(round ? 1 : 0, true); /* from the second round on there is nothing to be had */
        for (size_t i = 0; i < 200; i++) {
            uint8_t *got = arena_take(&arena, i % 7 == 0 ? 100000 : 100);
            none += !got;
            if (got)
                memset(got, (int)i, 100);
        }
        mem_fail_at(0, false);
        assert_int_equal(none, 0);
        arena_recycle(&arena);
        most = most ? most : mem_in_use();
        assert_int_equal(mem_in_use(), most);
    }
    arena_reset(&arena);
    arena_fini(&arena);
    assert_int_equal(mem_in_use(), before);
    arena_init(&arena, 1 << 20); /* what fits nothing later does not pile up */
    for (size_t len = 70000; len < 400000; len += 1000) {
        assert_non_null(arena_take(&arena, len));
        arena_recycle(&arena);
        assert_true(mem_in_use() - before < (1 << 20) + 500000);
    }
    arena_fini(&arena);
    assert_int_equal(mem_in_use(), before);
}

/* Little is spare, however much was taken, and a reset changes nothing about that. */
static void test_small_ones_spare_little(void **state)
{
    (void)state;
    struct arena arena;
    size_t before = mem_in_use();
    arena_init_small(&arena, 1 << 20);
    for (unsigned round = 0; round < 2; round++) {
        for (size_t taken = 0; taken < 100000; taken += 160) {
            assert_non_null(arena_take(&arena, 160));
            assert_true(mem_in_use() - before <= (taken + 160) * 7 / 4 + 2048);
        }
        arena_fini(&arena);
        assert_int_equal(mem_in_use(), before);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recycled_blocks_serve_the_next_round),
        cmocka_unit_test(test_pieces_are_apart_and_aligned),
        cmocka_unit_test(test_limit_holds),
        cmocka_unit_test(test_small_ones_spare_little),
        cmocka_unit_test(test_reset_keeps_one_small_block),
        cmocka_unit_test(test_failed_allocation_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
