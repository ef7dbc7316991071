/* Runs of offsets of a share group, see share_ranges.h. */
#include "core/share_ranges.h"

#include "base/check.h"
#include "base/mem.h"

#define RANGES_MIN 8u

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

/* A change cuts a range in two around itself, or stands behind a range that fills the gap. */
uint32_t share_ranges_wanted(const struct share_ranges *r, uint32_t changes)
{
    uint32_t wanted = r->count + 2 * changes;
    if (wanted <= r->max)
        return r->max;
    wanted = wanted < 2 * r->max ? 2 * r->max : wanted;
    return wanted < RANGES_MIN ? RANGES_MIN : wanted;
}

static bool resize(struct share_ranges *r, uint32_t max)
{
    struct share_range *moved = mem_alloc_as(MEM_GROUPS, max * sizeof *moved);
    if (!moved)
        return false;
    if (r->count)
        memcpy(moved, r->at, r->count * sizeof *moved);
    mem_free_as(MEM_GROUPS, r->at);
    r->at = moved;
    r->max = max;
    return true;
}

bool share_ranges_reserve(struct share_ranges *r, uint32_t changes)
{
    uint32_t wanted = share_ranges_wanted(r, changes);
    return wanted == r->max || resize(r, wanted);
}

void share_ranges_shrink(struct share_ranges *r)
{
    if (r->max > 8 * RANGES_MIN && r->count < r->max / 8)
        (void)!resize(r, r->max / 4); /* without memory it stays as it is */
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

bool share_ranges_alike(const struct share_range *a, const struct share_range *b)
{
    return a->state == b->state && a->count == b->count && a->holder == b->holder && a->until == b->until;
}

static void count_in(struct share_ranges *r, uint8_t state, uint64_t records)
{
    r->live += state == SHARE_GONE ? 0 : records;
    r->available += state == SHARE_AVAILABLE ? records : 0;
}

static void count_out(struct share_ranges *r, uint8_t state, uint64_t records)
{
    r->live -= state == SHARE_GONE ? 0 : records;
    r->available -= state == SHARE_AVAILABLE ? records : 0;
}

/* What is written is behind what has been read, always: of a range and the n changes in it come 2n + 1, and so much room there is. */
struct merge {
    struct share_ranges *r;
    uint32_t read, written;
    struct share_range old; /* the rest of the one that was read last */
    bool has_old;
};

static void emit(struct merge *m, const struct share_range *range)
{
    struct share_range *before = m->written ? &m->r->at[m->written - 1] : NULL;
    if (!before && range->state == SHARE_GONE)
        return; /* the start is behind it */
    if (before && share_ranges_alike(before, range)) {
        before->last = range->last;
        return;
    }
    CHECK(m->written < m->read);
    m->r->at[m->written++] = *range;
}

static bool read_on(struct merge *m)
{
    if (!m->has_old && m->read < m->r->max) {
        m->old = m->r->at[m->read++];
        m->has_old = true;
    }
    return m->has_old;
}

/* What stands before the change stays, what stands in its place goes. */
static void make_place(struct merge *m, const struct share_range *to)
{
    while (read_on(m) && m->old.first <= to->last) {
        if (m->old.last < to->first) {
            emit(m, &m->old);
            m->has_old = false;
            continue;
        }
        if (m->old.first < to->first) {
            struct share_range kept = m->old;
            kept.last = to->first - 1;
            emit(m, &kept);
            m->old.first = to->first;
        }
        uint64_t last = m->old.last < to->last ? m->old.last : to->last;
        count_out(m->r, m->old.state, last - m->old.first + 1);
        m->has_old = last < m->old.last;
        m->old.first = last + 1;
    }
}

static void put_one(struct merge *m, struct share_range to)
{
    struct share_ranges *r = m->r;
    to.first = to.first < r->start ? r->start : to.first;
    make_place(m, &to);
    if (to.first > r->end) {
        struct share_range between = {.first = r->end, .last = to.first - 1, .state = SHARE_AVAILABLE};
        count_in(r, SHARE_AVAILABLE, to.first - r->end);
        emit(m, &between);
    }
    r->end = to.last >= r->end ? to.last + 1 : r->end;
    count_in(r, to.state, to.last - to.first + 1);
    emit(m, &to);
}

void share_ranges_put(struct share_ranges *r, const struct share_change *changes, uint32_t count)
{
    while (count && changes->to.last < r->start) {
        changes++;
        count--;
    }
    if (!count)
        return;
    uint32_t from = share_ranges_find(r, changes->to.first);
    from -= from > 0; /* which the first may be like */
    uint32_t tail = r->count - from;
    CHECK(r->count + 2 * (uint64_t)count <= r->max);
    struct merge m = {.r = r, .read = r->max - tail, .written = from};
    memmove(r->at + m.read, r->at + from, tail * sizeof *r->at);
    for (uint32_t i = 0; i < count; i++)
        put_one(&m, changes[i].to);
    if (read_on(&m)) /* the last may be like it */
        emit(&m, &m.old);
    memmove(r->at + m.written, r->at + m.read, (r->max - m.read) * sizeof *r->at);
    r->count = m.written + r->max - m.read;
    r->start = r->count ? r->at[0].first : r->end;
}

void share_ranges_trim(struct share_ranges *r, uint64_t start)
{
    if (start <= r->start)
        return;
    uint32_t gone = share_ranges_find(r, start);
    for (uint32_t i = 0; i < gone; i++)
        count_out(r, r->at[i].state, r->at[i].last - r->at[i].first + 1);
    if (gone < r->count && r->at[gone].first < start) {
        count_out(r, r->at[gone].state, start - r->at[gone].first);
        r->at[gone].first = start;
    }
    gone += gone < r->count && r->at[gone].state == SHARE_GONE; /* one at most: its neighbour is in another state */
    r->count -= gone;
    if (gone)
        memmove(r->at, r->at + gone, r->count * sizeof *r->at);
    r->end = r->end < start ? start : r->end;
    r->start = r->count ? r->at[0].first : r->end;
}

void share_ranges_check(const struct share_ranges *r)
{
    uint64_t next = r->start, live = 0, available = 0;
    for (uint32_t i = 0; i < r->count; i++) {
        const struct share_range *range = &r->at[i];
        CHECK(range->first == next && range->last >= range->first);
        CHECK((range->state == SHARE_ACQUIRED) == (range->holder != NULL));
        CHECK((range->state == SHARE_ACQUIRED) == (range->until != 0));
        CHECK(!i || !share_ranges_alike(range, range - 1));
        CHECK(range->state != SHARE_GONE || (i && !range->count));
        next = range->last + 1;
        live += range->state == SHARE_GONE ? 0 : next - range->first;
        available += range->state == SHARE_AVAILABLE ? next - range->first : 0;
    }
    CHECK(next == r->end && live == r->live && available == r->available);
    CHECK(r->count <= r->max && r->count <= 2 * live);
}
