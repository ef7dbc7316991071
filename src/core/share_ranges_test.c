/* Ranges of share groups against one state per offset. */
#include "core/share_ranges.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define OFFSETS 60u

struct model {
    uint8_t state[OFFSETS];
    uint16_t count[OFFSETS];
    uint64_t start, end;
};

static void model_set(struct model *m, const struct share_range *range)
{
    for (uint64_t i = m->end; i <= range->last; i++) {
        m->state[i] = SHARE_AVAILABLE;
        m->count[i] = 0;
    }
    for (uint64_t i = range->first < m->start ? m->start : range->first; i <= range->last; i++) {
        m->state[i] = range->state;
        m->count[i] = range->count;
    }
    if (range->last >= m->end)
        m->end = range->last + 1;
    while (m->start < m->end && m->state[m->start] == SHARE_GONE)
        m->start++;
}

static void same(const struct share_ranges *r, const struct model *m)
{
    share_ranges_check(r);
    assert_int_equal(r->start, m->start);
    assert_int_equal(r->end, m->end);
    for (uint64_t i = m->start; i < m->end; i++) {
        const struct share_range *range = &r->at[share_ranges_find(r, i)];
        assert_true(range->first <= i && i <= range->last);
        assert_int_equal(range->state, m->state[i]);
        assert_int_equal(range->count, m->count[i]);
    }
}

static void as_a_model(void **state)
{
    (void)state;
    unsigned seed = 7;
    for (unsigned round = 0; round < 300; round++) {
        struct share_ranges r;
        struct model m = {.start = round % 5, .end = round % 5};
        share_ranges_init(&r, m.start);
        for (unsigned step = 0; step < 80; step++) {
            uint64_t first = (uint64_t)rand_r(&seed) % OFFSETS, len = 1 + (uint64_t)rand_r(&seed) % 9;
            struct share_range range = {.first = first, .last = first + len > OFFSETS ? OFFSETS - 1 : first + len - 1};
            range.state = (uint8_t)(rand_r(&seed) % 3);
            range.count = (uint16_t)(range.state == SHARE_GONE ? 0 : rand_r(&seed) % 3);
            range.holder = range.state == SHARE_ACQUIRED ? (struct sharer *)(void *)&m : NULL;
            if (rand_r(&seed) % 12 == 0) {
                share_ranges_trim(&r, first);
                for (; m.start < first; m.start++)
                    ;
                m.end = m.end < m.start ? m.start : m.end;
                while (m.start < m.end && m.state[m.start] == SHARE_GONE)
                    m.start++;
            } else if (range.last >= m.start) {
                assert_true(share_ranges_reserve(&r, 1));
                share_ranges_set(&r, &range);
                model_set(&m, &range);
            }
            same(&r, &m);
        }
        share_ranges_fini(&r);
    }
}

static void holes_cost_by_holes(void **state)
{
    (void)state;
    struct share_ranges r;
    share_ranges_init(&r, 0);
    struct share_range slow = {.first = 0, .last = 0, .state = SHARE_AVAILABLE, .count = 1};
    assert_true(share_ranges_reserve(&r, 1));
    share_ranges_set(&r, &slow);
    for (uint64_t i = 1; i < 100000; i++) { /* one is held back, all others are done with */
        struct share_range gone = {.first = i, .last = i, .state = SHARE_GONE};
        assert_true(share_ranges_reserve(&r, 1));
        share_ranges_set(&r, &gone);
    }
    assert_int_equal(r.count, 2);
    assert_true(r.max < 20);
    assert_int_equal(r.live, 1);
    share_ranges_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_a_model), cmocka_unit_test(holes_cost_by_holes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
