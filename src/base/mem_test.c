/* Unit test of the heap's door: the account comes back to where it was, and the n-th allocation fails when asked. */
#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static void the_account_is_balanced(void **state)
{
    (void)state;
    size_t before = mem_in_use();
    void *a = mem_alloc(1000), *b = mem_zalloc(500), *c = mem_aligned(4096, 100), *empty = mem_alloc(0);
    assert_true(a && b && c && empty);
    assert_true(mem_in_use() >= before + 1600);
    assert_int_equal((uintptr_t)c % 4096, 0);
    for (size_t i = 0; i < 500; i++)
        assert_int_equal(((char *)b)[i], 0);
    memset(a, 7, 1000);
    a = mem_realloc(a, 100000);
    assert_non_null(a);
    assert_int_equal(((char *)a)[999], 7);
    assert_true(mem_in_use() >= before + 100600);
    a = mem_realloc(a, 10);
    assert_true(mem_in_use() < before + 100000);
    void *fresh = mem_realloc(NULL, 64);
    assert_non_null(fresh);
    mem_free(a);
    mem_free(b);
    mem_free(c);
    mem_free(empty);
    mem_free(fresh);
    mem_free(NULL);
    assert_int_equal(mem_in_use(), before);
}

static void each_kind_has_an_account(void **state)
{
    (void)state;
    size_t all = mem_in_use(), messages = mem_in_use_as(MEM_MESSAGES), pages = mem_in_use_as(MEM_PAGES);
    void *a = mem_alloc_as(MEM_MESSAGES, 1000), *b = mem_aligned_as(MEM_PAGES, 4096, 4096);
    a = mem_realloc_as(MEM_MESSAGES, a, 5000);
    assert_true(mem_in_use_as(MEM_MESSAGES) >= messages + 5000 && mem_in_use_as(MEM_MESSAGES) < messages + 6000);
    assert_true(mem_in_use_as(MEM_PAGES) >= pages + 4096);
    assert_int_equal(mem_in_use() - all, mem_in_use_as(MEM_MESSAGES) - messages + mem_in_use_as(MEM_PAGES) - pages);
    mem_move_as(MEM_PAGES, MEM_MESSAGES, b);
    assert_int_equal(mem_in_use_as(MEM_PAGES), pages);
    mem_free_as(MEM_MESSAGES, a);
    mem_free_as(MEM_MESSAGES, b);
    assert_int_equal(mem_in_use_as(MEM_MESSAGES), messages);
    assert_int_equal(mem_in_use_as(MEM_PAGES), pages);
    assert_string_equal(mem_kind_key(MEM_JOURNAL), "journal");
}

static void copies_end_with_a_nul(void **state)
{
    (void)state;
    char *a = mem_slicedup(slice_of("abcdef", 3)), *b = mem_strdup("xyz"), *c = mem_slicedup((struct slice){0});
    assert_string_equal(a, "abc");
    assert_string_equal(b, "xyz");
    assert_string_equal(c, "");
    mem_free(a);
    mem_free(b);
    mem_free(c);
}

/* Tries every kind of allocation; a bit per kind that was given memory. */
static unsigned try_all(void)
{
    unsigned given = 0;
    void *blocks[6] = {mem_alloc(1),         mem_zalloc(1),     mem_aligned(64, 64),
                       mem_realloc(NULL, 8), mem_strdup("one"), mem_slicedup(slice_str("two"))};
    for (unsigned i = 0; i < 6; i++) {
        given |= (unsigned)(blocks[i] != NULL) << i;
        mem_free(blocks[i]);
    }
    return given;
}

static void the_nth_allocation_fails_once_or_for_ever(void **state)
{
    (void)state;
    size_t before = mem_in_use();
    for (unsigned n = 1; n <= 6; n++) {
        mem_fail_at(n, false);
        assert_int_equal(try_all(), 0x3f & ~(1u << (n - 1)));
        assert_int_equal(mem_failures_hit(), 1);
        assert_int_equal(try_all(), 0x3f);
        mem_fail_at(n, true);
        assert_int_equal(try_all(), (1u << (n - 1)) - 1);
        assert_int_equal(try_all(), 0);
        assert_int_equal(mem_failures_hit(), 7 - n + 6);
        mem_fail_at(0, false);
        assert_int_equal(mem_failures_hit(), 0);
        assert_int_equal(try_all(), 0x3f);
    }
    assert_int_equal(mem_in_use(), before);
}

static void a_refused_realloc_keeps_the_old_block(void **state)
{
    (void)state;
    size_t before = mem_in_use();
    char *block = mem_strdup("still here");
    size_t with = mem_in_use();
    mem_fail_at(1, false);
    assert_null(mem_realloc(block, 1 << 20));
    mem_fail_at(0, false);
    assert_string_equal(block, "still here");
    assert_int_equal(mem_in_use(), with);
    mem_free(block);
    assert_int_equal(mem_in_use(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_account_is_balanced),
        cmocka_unit_test(each_kind_has_an_account),
        cmocka_unit_test(copies_end_with_a_nul),
        cmocka_unit_test(the_nth_allocation_fails_once_or_for_ever),
        cmocka_unit_test(a_refused_realloc_keeps_the_old_block),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
