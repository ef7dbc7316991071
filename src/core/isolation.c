/* Aborted transactions of a partition, see isolation.h. */
#include "core/isolation.h"

#include "base/check.h"
#include "base/mem.h"

#define LEAST 4u

size_t isolation_bytes(const struct isolation *i)
{
    return i->aborted_count * ABORTED_BYTES;
}

void isolation_fini(struct isolation *i, struct allowance *allowance)
{
    allowance_give(allowance, isolation_bytes(i));
    mem_free_as(MEM_TXNS, i->aborted);
    mem_free_as(MEM_TXNS, i->closing);
    *i = (struct isolation){0};
}

/* Larger by half when it is full, half as large when it is almost empty, so that a burst does not hold memory for ever. */
static bool fit(void **list, size_t size, uint32_t count, uint32_t *max)
{
    uint32_t wanted = count == *max ? *max + *max / 2 : count < *max / 4 ? *max / 2 : *max;
    wanted = wanted < LEAST ? LEAST : wanted;
    void *moved = wanted == *max ? *list : mem_realloc_as(MEM_TXNS, *list, wanted * size);
    if (!moved)
        return count < *max;
    *list = moved;
    *max = wanted;
    return true;
}

static bool fit_aborted(struct isolation *i)
{
    void *aborted = i->aborted;
    bool ok = fit(&aborted, sizeof *i->aborted, i->aborted_count, &i->aborted_max);
    i->aborted = aborted;
    return ok;
}

bool isolation_reserve(struct isolation *i, lsn_t durable)
{
    (void)isolation_stable(i, durable); /* who reads the partition asks for it, but nobody may */
    void *closing = i->closing;
    bool ok = fit(&closing, sizeof *i->closing, i->closing_count, &i->closing_max);
    i->closing = closing;
    return ok && fit_aborted(i);
}

void isolation_abort(struct isolation *i, const struct aborted *aborted, struct allowance *allowance)
{
    CHECK(i->aborted_count < i->aborted_max);
    i->aborted[i->aborted_count++] = *aborted;
    allowance_take(allowance, ABORTED_BYTES);
}

void isolation_closing(struct isolation *i, uint64_t first, lsn_t lsn)
{
    CHECK(i->closing_count < i->closing_max);
    i->closing[i->closing_count++] = (struct closing){first, lsn};
}

uint64_t isolation_stable(struct isolation *i, lsn_t durable)
{
    uint64_t stable = UINT64_MAX;
    uint32_t kept = 0;
    for (uint32_t n = 0; n < i->closing_count; n++) {
        if (i->closing[n].lsn <= durable)
            continue;
        stable = i->closing[n].first < stable ? i->closing[n].first : stable;
        i->closing[kept++] = i->closing[n];
    }
    i->closing_count = kept;
    return stable;
}

/* The first that ended at or behind the offset. */
static uint32_t ended_at(const struct isolation *i, uint64_t offset)
{
    uint32_t low = 0, high = i->aborted_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (i->aborted[middle].last < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The oldest of them. */
static void forget(struct isolation *i, uint32_t gone, struct allowance *allowance)
{
    if (!gone)
        return;
    i->aborted_count -= gone;
    memmove(i->aborted, i->aborted + gone, i->aborted_count * sizeof *i->aborted);
    allowance_give(allowance, gone * ABORTED_BYTES);
    for (uint32_t before = 0; before != i->aborted_max;) { /* maybe nothing is aborted here again, which would do it */
        before = i->aborted_max;
        (void)fit_aborted(i);
    }
}

void isolation_trim(struct isolation *i, uint64_t start, struct allowance *allowance)
{
    i->trimmed = start > i->trimmed ? start : i->trimmed;
    forget(i, ended_at(i, start), allowance);
}

void isolation_forget(struct isolation *i, struct allowance *allowance)
{
    forget(i, i->aborted_count, allowance);
}

uint32_t isolation_overlaps(const struct isolation *i, uint64_t from, uint64_t until, struct aborted *ret, uint32_t max)
{
    uint32_t count = 0;
    for (uint32_t n = ended_at(i, from); n < i->aborted_count; n++) {
        const struct aborted *a = &i->aborted[n];
        if (a->first < until) {
            if (count < max)
                ret[count] = *a;
            count++;
        }
        if (a->stable >= until)
            break; /* whatever ended later began there or behind */
    }
    return count;
}

bool aborted_has(const struct aborted *list, uint32_t count, int64_t producer, uint64_t offset)
{
    for (uint32_t n = 0; n < count; n++)
        if (list[n].producer == producer && list[n].first <= offset && offset <= list[n].last)
            return true;
    return false;
}
