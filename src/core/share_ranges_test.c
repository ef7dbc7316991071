/* Ranges of share groups against one state per offset. */
#include "core/share_ranges.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define OFFSETS 60u

static char range_holder;

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

static struct share_range some_range(unsigned *seed, uint64_t first)
{
    uint64_t len = 1 + (uint64_t)rand_r(seed) % 9;
    struct share_range range = {.first = first, .last = first + len > OFFSETS ? OFFSETS - 1 : first + len - 1};
    range.state = (uint8_t)(rand_r(seed) % 3);
    range.count = (uint16_t)(range.state == SHARE_GONE ? 0 : rand_r(seed) % 3);
    range.holder = range.state == SHARE_ACQUIRED ? (struct share_hold *)(void *)&range_holder : NULL;
    range.until = range.state == SHARE_ACQUIRED ? 1 + rand_r(seed) % 2 : 0;
    return range;
}

static void model_trim(struct model *m, uint64_t start)
{
    m->start = m->start < start ? start : m->start;
    m->end = m->end < m->start ? m->start : m->end;
    while (m->start < m->end && m->state[m->start] == SHARE_GONE)
        m->start++;
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
            struct share_change changes[OFFSETS];
            uint32_t count = 0;
            uint64_t first = (uint64_t)rand_r(&seed) % OFFSETS;
            if (rand_r(&seed) % 12 == 0) {
                share_ranges_trim(&r, first);
                model_trim(&m, first);
                same(&r, &m);
                continue;
            }
            for (; first < OFFSETS; first = changes[count++].to.last + 1 + (uint64_t)rand_r(&seed) % 4)
                changes[count].to = some_range(&seed, first);
            count = count < 1 + round % 8 ? count : 1 + round % 8;
            assert_true(share_ranges_reserve(&r, count));
            share_ranges_put(&r, changes, count);
            for (uint32_t i = 0; i < count; i++)
                model_set(&m, &changes[i].to);
            model_trim(&m, 0);
            same(&r, &m);
            share_ranges_shrink(&r);
            share_ranges_check(&r);
        }
        share_ranges_fini(&r);
    }
}

static void put(struct share_ranges *r, uint64_t first, uint64_t last, enum share_state to, uint16_t count)
{
    struct share_change one = {.to = {.first = first, .last = last, .state = (uint8_t)to, .count = count}};
    assert_true(share_ranges_reserve(r, 1));
    share_ranges_put(r, &one, 1);
}

static void holes_cost_by_holes(void **state)
{
    (void)state;
    struct share_ranges r;
    share_ranges_init(&r, 0);
    put(&r, 0, 0, SHARE_AVAILABLE, 1);
    for (uint64_t i = 1; i < 100000; i++) /* one is held back, all others are done with */
        put(&r, i, i, SHARE_GONE, 0);
    assert_int_equal(r.count, 2);
    assert_true(r.max < 20);
    assert_int_equal(r.live, 1);
    share_ranges_fini(&r);
}

/* A hundred thousand changes are one pass: so many passes would take minutes. */
static void many_changes_are_one_pass(void **state)
{
    (void)state;
    enum { MANY = 200000 };
    struct share_ranges r;
    struct share_change *changes = calloc(MANY, sizeof *changes);
    share_ranges_init(&r, 0);
    for (uint64_t i = 0; i < MANY; i++)
        changes[i].to = (struct share_range){.first = 2 * i, .last = 2 * i, .count = 1, .state = SHARE_AVAILABLE};
    assert_true(share_ranges_reserve(&r, MANY));
    share_ranges_put(&r, changes, MANY);
    assert_int_equal(r.count, 2 * MANY - 1);
    assert_int_equal(r.available, 2 * MANY - 1);
    for (uint64_t i = 0; i < MANY; i++)
        changes[i].to = (struct share_range){.first = 2 * i, .last = 2 * i, .state = SHARE_GONE};
    assert_true(share_ranges_reserve(&r, MANY));
    share_ranges_put(&r, changes, MANY);
    assert_int_equal(r.start, 1);
    assert_int_equal(r.live, MANY - 1);
    share_ranges_check(&r);
    put(&r, 0, 2 * MANY, SHARE_GONE, 0);
    assert_true(r.count == 0 && r.live == 0 && r.start == r.end && r.end == 2 * MANY + 1);
    uint32_t before = r.max;
    share_ranges_shrink(&r);
    assert_true(r.max < before);
    free(changes);
    share_ranges_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_a_model), cmocka_unit_test(holes_cost_by_holes),
                                       cmocka_unit_test(many_changes_are_one_pass)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
