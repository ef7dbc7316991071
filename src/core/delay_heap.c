/* An interval heap, see delay_heap.h. Node n has its low item at 2n and its high one at 2n + 1; the last node may have a low one only,
 * which then is both. Nodes 2n + 1 and 2n + 2 lie below n, and their items between its two. */
#include "core/delay_heap.h"

#include "base/check.h"
#include "base/mem.h"

#define HEAP_MAX (1u << 28)
#define HEAP_LEAST 64u

bool delay_heap_reserve(struct delay_heap *heap, uint64_t count)
{
    uint64_t max = heap->max ? heap->max : HEAP_LEAST;
    if (count <= heap->max)
        return true;
    while (max < count)
        max *= 2;
    struct delay_item *grown = max <= HEAP_MAX ? mem_realloc(heap->items, max * sizeof *grown) : NULL;
    if (!grown)
        return false;
    heap->items = grown;
    heap->max = (uint32_t)max;
    return true;
}

/* The low items of the nodes above are moved down until the item has its place. */
static void rise_low(struct delay_heap *heap, uint32_t at, struct delay_item item)
{
    struct delay_item *items = heap->items;
    while (at > 1) {
        uint32_t above = (at / 2 - 1) / 2 * 2;
        if (!delay_before(&item, &items[above]))
            break;
        items[at] = items[above];
        at = above;
    }
    items[at] = item;
}

static void rise_high(struct delay_heap *heap, uint32_t at, struct delay_item item)
{
    struct delay_item *items = heap->items;
    while (at > 1) {
        uint32_t above = (at / 2 - 1) / 2 * 2 + 1;
        if (!delay_before(&items[above], &item))
            break;
        items[at] = items[above];
        at = above;
    }
    items[at] = item;
}

void delay_heap_put(struct delay_heap *heap, struct delay_item item)
{
    CHECK(heap->count < heap->max);
    struct delay_item *items = heap->items;
    uint32_t at = heap->count++;
    if (at % 2) { /* the second of its node */
        if (delay_before(&item, &items[at - 1])) {
            items[at] = items[at - 1];
            rise_low(heap, at - 1, item);
        } else
            rise_high(heap, at, item);
        return;
    }
    uint32_t above = at ? (at / 2 - 1) / 2 * 2 : 0;
    if (at && delay_before(&items[above + 1], &item))
        rise_high(heap, at, item);
    else
        rise_low(heap, at, item);
}

static void swap(struct delay_item *a, struct delay_item *b)
{
    struct delay_item was = *a;
    *a = *b;
    *b = was;
}

/* The lower of the low items below the node; count: there is none. */
static uint32_t low_below(const struct delay_heap *heap, uint32_t node)
{
    uint32_t left = (2 * node + 1) * 2, right = left + 2;
    if (left >= heap->count)
        return heap->count;
    return right < heap->count && delay_before(&heap->items[right], &heap->items[left]) ? right : left;
}

/* Of a node its high item, or its only one. */
static uint32_t high_of(const struct delay_heap *heap, uint32_t low)
{
    return low + 1 < heap->count ? low + 1 : low;
}

static uint32_t high_below(const struct delay_heap *heap, uint32_t node)
{
    uint32_t left = (2 * node + 1) * 2, right = left + 2;
    if (left >= heap->count)
        return heap->count;
    uint32_t a = high_of(heap, left), b = right < heap->count ? high_of(heap, right) : a;
    return delay_before(&heap->items[a], &heap->items[b]) ? b : a;
}

struct delay_item delay_heap_take_first(struct delay_heap *heap)
{
    CHECK(heap->count);
    struct delay_item *items = heap->items, first = items[0], item = items[--heap->count];
    uint32_t node = 0, below;
    if (!heap->count)
        return first;
    while ((below = low_below(heap, node)) < heap->count && delay_before(&items[below], &item)) {
        items[2 * node] = items[below];
        node = below / 2;
        if (below + 1 < heap->count && delay_before(&items[below + 1], &item))
            swap(&items[below + 1], &item);
    }
    items[2 * node] = item;
    if (2 * node + 1 < heap->count && delay_before(&items[2 * node + 1], &items[2 * node]))
        swap(&items[2 * node], &items[2 * node + 1]);
    return first;
}

static struct delay_item take_last(struct delay_heap *heap)
{
    struct delay_item *items = heap->items, item = items[--heap->count];
    uint32_t node = 0, below;
    if (heap->count < 2) /* it was the last itself */
        return item;
    struct delay_item last = items[1];
    while ((below = high_below(heap, node)) < heap->count && delay_before(&item, &items[below])) {
        items[2 * node + 1] = items[below];
        node = below / 2;
        if (below % 2 == 0) { /* alone in its node */
            items[below] = item;
            return last;
        }
        if (delay_before(&item, &items[below - 1]))
            swap(&items[below - 1], &item);
    }
    items[2 * node + 1] = item;
    return last;
}

void delay_heap_set_aside(struct delay_heap *heap)
{
    CHECK(heap->count);
    struct delay_item last = take_last(heap);
    heap->items[heap->count] = last;
}

void delay_heap_put_back(struct delay_heap *heap, uint32_t count)
{
    while (count--)
        delay_heap_put(heap, heap->items[heap->count]);
}

void delay_heap_fini(struct delay_heap *heap)
{
    mem_free(heap->items);
    *heap = (struct delay_heap){0};
}

void delay_heap_check(const struct delay_heap *heap)
{
    const struct delay_item *items = heap->items;
    for (uint32_t low = 0; low < heap->count; low += 2) {
        uint32_t high = high_of(heap, low), above = low ? (low / 2 - 1) / 2 * 2 : 0;
        CHECK(!delay_before(&items[high], &items[low]));
        CHECK(!delay_before(&items[low], &items[above]));
        CHECK(low == 0 || !delay_before(&items[above + 1], &items[high]));
    }
}
