/* Runs of offsets of a share group, see share_ranges.h. */
#include "core/share_ranges.h"

#include "base/check.h"
#include "base/mem.h"

void share_ranges_init(struct share_ranges *r, uint64_t start)
{
    *r = (struct share_ranges){.start = start, .end = start};
}

void share_ranges_fini(struct share_ranges *r)
{
    mem_free_as(MEM_GROUPS, r->at);
    *r = (struct share_ranges){0};
}

size_t share_ranges_bytes(const struct share_ranges *r)
{
    return r->max * sizeof *r->at;
}

/* A set cuts a range in two around itself, or stands behind a range that fills the gap. */
bool share_ranges_reserve(struct share_ranges *r, uint32_t sets)
{
    uint32_t wanted = r->count + 2 * sets;
    if (wanted <= r->max)
        return true;
    wanted = wanted < 2 * r->max ? 2 * r->max : wanted;
    struct share_range *grown = mem_alloc_as(MEM_GROUPS, wanted * sizeof *grown);
    if (!grown)
        return false;
    if (r->count)
        memcpy(grown, r->at, r->count * sizeof *grown);
    mem_free_as(MEM_GROUPS, r->at);
    r->at = grown;
    r->max = wanted;
    return true;
}

uint32_t share_ranges_find(const struct share_ranges *r, uint64_t offset)
{
    uint32_t low = 0, high = r->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (r->at[middle].last < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static uint64_t live_of(const struct share_range *range)
{
    return range->state == SHARE_GONE ? 0 : range->last - range->first + 1;
}

/* n ranges from i on are instead of `old` that stood there. */
static void splice(struct share_ranges *r, uint32_t i, uint32_t old, const struct share_range *with, uint32_t n)
{
    CHECK(r->count - old + n <= r->max);
    if (!old && !n)
        return;
    for (uint32_t k = 0; k < old; k++)
        r->live -= live_of(&r->at[i + k]);
    memmove(r->at + i + n, r->at + i + old, (r->count - i - old) * sizeof *r->at);
    if (n)
        memcpy(r->at + i, with, n * sizeof *with);
    r->count = r->count - old + n;
    for (uint32_t k = 0; k < n; k++)
        r->live += live_of(&with[k]);
}

bool share_ranges_alike(const struct share_range *a, const struct share_range *b)
{
    return a->state == b->state && a->count == b->count && a->holder == b->holder && a->until == b->until;
}

static void try_join(struct share_ranges *r, uint32_t i)
{
    if (i + 1 >= r->count || !share_ranges_alike(&r->at[i], &r->at[i + 1]))
        return;
    struct share_range both = r->at[i];
    both.last = r->at[i + 1].last;
    splice(r, i, 2, &both, 1);
}

static void move_start(struct share_ranges *r)
{
    if (r->count && r->at[0].state == SHARE_GONE) /* one at most: its neighbour is in another state */
        splice(r, 0, 1, NULL, 0);
    r->start = r->count ? r->at[0].first : r->end;
}

static void extend(struct share_ranges *r, uint64_t end)
{
    struct share_range fresh = {.first = r->end, .last = end - 1, .state = SHARE_AVAILABLE};
    splice(r, r->count, 0, &fresh, 1);
    r->end = end;
    if (r->count > 1)
        try_join(r, r->count - 2);
}

void share_ranges_set(struct share_ranges *r, const struct share_range *range)
{
    struct share_range with[3], mine = *range;
    uint32_t n = 0;
    if (mine.last < r->start)
        return;
    mine.first = mine.first < r->start ? r->start : mine.first;
    if (mine.last >= r->end)
        extend(r, mine.last + 1);
    uint32_t from = share_ranges_find(r, mine.first), to = share_ranges_find(r, mine.last);
    if (r->at[from].first < mine.first) {
        with[n] = r->at[from];
        with[n++].last = mine.first - 1;
    }
    uint32_t at = from + n;
    with[n++] = mine;
    if (r->at[to].last > mine.last) {
        with[n] = r->at[to];
        with[n++].first = mine.last + 1;
    }
    splice(r, from, to - from + 1, with, n);
    try_join(r, at);
    if (at)
        try_join(r, at - 1);
    move_start(r);
}

void share_ranges_trim(struct share_ranges *r, uint64_t start)
{
    if (start <= r->start)
        return;
    uint32_t gone = share_ranges_find(r, start);
    splice(r, 0, gone, NULL, 0);
    if (r->count && r->at[0].first < start) {
        struct share_range rest = r->at[0];
        rest.first = start;
        splice(r, 0, 1, &rest, 1);
    }
    r->start = start;
    r->end = r->end < start ? start : r->end;
    move_start(r);
}

void share_ranges_check(const struct share_ranges *r)
{
    uint64_t next = r->start, live = 0;
    for (uint32_t i = 0; i < r->count; i++) {
        const struct share_range *range = &r->at[i];
        CHECK(range->first == next && range->last >= range->first);
        CHECK((range->state == SHARE_ACQUIRED) == (range->holder != NULL));
        CHECK(!i || !share_ranges_alike(range, range - 1));
        CHECK(range->state != SHARE_GONE || (i && !range->count));
        next = range->last + 1;
        live += live_of(range);
    }
    CHECK(next == r->end && live == r->live && r->count <= r->max);
}
