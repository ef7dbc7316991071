/* Holes of a page, packed and not, against an array of flags. */
#include "core/broker_words_test.h"

enum { SPAN = 600, FIRST = 1000 };

static void same(struct page *page, const bool *alive)
{
    uint64_t last, at = FIRST;
    for (unsigned i = 0; i < SPAN; i++) {
        assert_int_equal(page_has(page, FIRST + i), alive[i]);
        if (i && alive[i] && !alive[i - 1]) {
            at = FIRST + i;
            assert_true(page_alive_from(page, &at, &last));
            assert_int_equal(at, FIRST + i);
        }
    }
    at = FIRST;
    for (unsigned i = 0; i < SPAN;) {
        while (i < SPAN && !alive[i])
            i++;
        assert_int_equal(page_alive_from(page, &at, &last), i < SPAN);
        if (i == SPAN)
            break;
        assert_int_equal(at, FIRST + i);
        while (i < SPAN && alive[i])
            i++;
        assert_int_equal(last, FIRST + i - 1);
        at = last + 1;
    }
}

static void written(const struct page *page, uint8_t *ret, size_t max, size_t *ret_len)
{
    struct writer w = writer_of(ret, max);
    page_holes_put(&w, page);
    assert_true(writer_ok(&w));
    *ret_len = w.len;
}

static void packed_is_the_same(void **state)
{
    (void)state;
    uint64_t x = 5;
    for (unsigned round = 0; round < 200; round++) {
        struct page page = {.first = FIRST, .last = FIRST + SPAN - 1};
        bool alive[SPAN];
        memset(alive, true, sizeof alive);
        unsigned changes = 1 + round * 2;
        for (unsigned n = 0; n < changes; n++) {
            x = x * 6364136223846793005ull + 1442695040888963407ull;
            unsigned i = (unsigned)(x >> 33) % SPAN;
            if (!alive[i])
                continue;
            alive[i] = false;
            assert_true(page_hole(&page, FIRST + i, 1));
            if (n % 50 == 0)
                page_pack(&page); /* the next one unpacks it */
        }
        uint8_t a[8000], b[8000];
        size_t a_len, b_len;
        same(&page, alive);
        written(&page, a, sizeof a, &a_len);
        page_pack(&page);
        same(&page, alive);
        written(&page, b, sizeof b, &b_len);
        assert_int_equal(a_len, b_len);
        assert_memory_equal(a, b, a_len);
        mem_fail_at(1, true);
        bool ok = page_unpack(&page);
        mem_fail_at(0, false);
        assert_true(ok || changes > 3);
        same(&page, alive);
        assert_true(page_unpack(&page));
        same(&page, alive);
        mem_free(page.holes.runs);
    }
}

/* A page of one of three lanes that are fed in turn. */
static void gaps_cost_little(void **state)
{
    (void)state;
    size_t before = mem_in_use();
    struct page page = {.first = 1, .last = 3 * 4096};
    for (unsigned i = 0; i < 4095; i++)
        assert_true(page_hole(&page, 2 + 3 * i, 2));
    page_pack(&page);
    assert_true(mem_in_use() - before <= 2 * 4096 + 64);
    mem_free(page.holes.runs);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packed_is_the_same),
        cmocka_unit_test(gaps_cost_little),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
