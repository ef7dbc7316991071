/* A ring for what comes in order and a binary heap for the rest, see due.h. */
#include "sql/query/due.h"

#define ROOM_FIRST 16u
#define ROOM_MAX (1u << 30)

void due_init(struct due *d, struct account *account)
{
    *d = (struct due){.account = account};
}

void due_fini(struct due *d)
{
    account_give(d->account, d->ring, d->ring_room * sizeof *d->ring);
    account_give(d->account, d->heap, d->heap_room * sizeof *d->heap);
    due_init(d, d->account);
}

static bool before(const struct due_item *a, const struct due_item *b)
{
    return a->time != b->time ? a->time < b->time : a->number < b->number;
}

static struct due_item *ring_item(const struct due *d, uint32_t i)
{
    return &d->ring[(d->ring_at + i) & (d->ring_room - 1)];
}

static bool ring_grow(struct due *d)
{
    uint32_t room = d->ring_room ? 2 * d->ring_room : ROOM_FIRST;
    struct due_item *more = room <= ROOM_MAX ? account_take(d->account, room * sizeof *more) : NULL;
    if (!more)
        return false;
    for (uint32_t i = 0; i < d->ring_count; i++)
        more[i] = *ring_item(d, i);
    account_give(d->account, d->ring, d->ring_room * sizeof *more);
    d->ring = more;
    d->ring_room = room;
    d->ring_at = 0;
    return true;
}

static bool heap_grow(struct due *d)
{
    uint32_t room = d->heap_room ? 2 * d->heap_room : ROOM_FIRST;
    struct due_item *more = room <= ROOM_MAX ? account_take(d->account, room * sizeof *more) : NULL;
    if (!more)
        return false;
    if (d->heap_count)
        memcpy(more, d->heap, d->heap_count * sizeof *more);
    account_give(d->account, d->heap, d->heap_room * sizeof *more);
    d->heap = more;
    d->heap_room = room;
    return true;
}

static void sift_up(struct due *d, uint32_t i, struct due_item item)
{
    for (; i && before(&item, &d->heap[(i - 1) / 2]); i = (i - 1) / 2)
        d->heap[i] = d->heap[(i - 1) / 2];
    d->heap[i] = item;
}

static void sift_down(struct due *d, uint32_t i, struct due_item item)
{
    for (uint32_t child; (child = 2 * i + 1) < d->heap_count; i = child) {
        child += child + 1 < d->heap_count && before(&d->heap[child + 1], &d->heap[child]);
        if (!before(&d->heap[child], &item))
            break;
        d->heap[i] = d->heap[child];
    }
    d->heap[i] = item;
}

bool due_add(struct due *d, struct due_item item)
{
    if (d->ring_count && before(&item, ring_item(d, d->ring_count - 1))) {
        if (d->heap_count == d->heap_room && !heap_grow(d))
            return false;
        sift_up(d, d->heap_count++, item);
        return true;
    }
    if (d->ring_count == d->ring_room && !ring_grow(d))
        return false;
    *ring_item(d, d->ring_count++) = item;
    return true;
}

static bool heap_is_first(const struct due *d)
{
    return d->heap_count && (!d->ring_count || before(&d->heap[0], ring_item(d, 0)));
}

const struct due_item *due_first(const struct due *d)
{
    return heap_is_first(d) ? &d->heap[0] : d->ring_count ? ring_item(d, 0) : NULL;
}

/* Empty ones hold no memory: a query that waits costs nothing. */
static void give_back(struct due *d)
{
    if (!due_count(d))
        due_fini(d);
}

void due_drop(struct due *d)
{
    if (heap_is_first(d)) {
        d->heap_count--;
        if (d->heap_count)
            sift_down(d, 0, d->heap[d->heap_count]);
    } else {
        d->ring_at = (d->ring_at + 1) & (d->ring_room - 1);
        d->ring_count--;
    }
    give_back(d);
}

void due_sweep(struct due *d, bool (*gone)(void *arg, void *what), void *arg)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < d->ring_count; i++)
        if (!gone(arg, ring_item(d, i)->what))
            *ring_item(d, kept++) = *ring_item(d, i);
    d->ring_count = kept;
    kept = 0;
    for (uint32_t i = 0; i < d->heap_count; i++)
        if (!gone(arg, d->heap[i].what))
            d->heap[kept++] = d->heap[i];
    d->heap_count = kept;
    for (uint32_t i = kept / 2; i-- > 0;)
        sift_down(d, i, d->heap[i]);
    give_back(d);
}
