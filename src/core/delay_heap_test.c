/* The heap with two ends against a plain array that is sorted. */
#include "core/delay_heap.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#define MOST 300u

struct pair { /* the heap, and what should be in it, in order */
    struct delay_heap heap;
    struct delay_item sorted[MOST];
    uint32_t count;
    uint64_t random;
};

static uint32_t pick(struct pair *p, uint32_t n)
{
    p->random = p->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(p->random >> 33) % n;
}

static void put(struct pair *p, struct delay_item item)
{
    uint32_t at = p->count++;
    assert_true(delay_heap_reserve(&p->heap, p->count));
    delay_heap_put(&p->heap, item);
    for (; at && delay_before(&item, &p->sorted[at - 1]); at--)
        p->sorted[at] = p->sorted[at - 1];
    p->sorted[at] = item;
}

static void same(const struct delay_item *a, const struct delay_item *b)
{
    assert_int_equal(a->due, b->due);
    assert_int_equal(a->arrival, b->arrival);
    assert_ptr_equal(a->what, b->what);
}

static void take_first(struct pair *p)
{
    same(delay_heap_first(&p->heap), &p->sorted[0]);
    struct delay_item first = delay_heap_take_first(&p->heap);
    same(&first, &p->sorted[0]);
    p->count--;
    for (uint32_t i = 0; i < p->count; i++)
        p->sorted[i] = p->sorted[i + 1];
}

/* Some of the last go, or come back. */
static void set_aside(struct pair *p, uint32_t count, bool back)
{
    for (uint32_t i = 0; i < count; i++) {
        same(delay_heap_last(&p->heap), &p->sorted[p->count - i - 1]);
        delay_heap_set_aside(&p->heap);
        delay_heap_check(&p->heap);
    }
    for (uint32_t i = 0; i < count; i++)
        same(&p->heap.items[p->heap.count + i], &p->sorted[p->count - count + i]);
    if (back)
        delay_heap_put_back(&p->heap, count);
    else
        p->count -= count;
}

static void as_a_sorted_array(void **state)
{
    (void)state;
    static struct pair p;
    for (unsigned round = 0; round < 40; round++) {
        uint32_t arrival = UINT32_MAX - 200, dues = 1 + pick(&p, round % 2 ? 5 : 1000); /* it wraps */
        for (unsigned i = 0; i < 600; i++) {
            uint32_t what = pick(&p, round % 4 < 2 ? 8 : 4);
            if (what == 0 && p.count)
                take_first(&p);
            else if (what == 1)
                set_aside(&p, pick(&p, p.count + 1) / (round % 3 + 1), pick(&p, 2));
            else if (p.count < MOST) {
                arrival++;
                put(&p, (struct delay_item){pick(&p, dues), arrival, (void *)(uintptr_t)arrival});
            }
            delay_heap_check(&p.heap);
            assert_int_equal(p.heap.count, p.count);
        }
        while (p.count)
            take_first(&p);
        assert_null(delay_heap_first(&p.heap));
        assert_null(delay_heap_last(&p.heap));
    }
    delay_heap_fini(&p.heap);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_a_sorted_array)};
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
