/* delay_heap: items by when they are due, and those due at the same time by their arrival; the first and the last are at hand.
 *
 * An interval heap: each node has a low and a high item, the lows are a heap with the first on top, the highs one with the
 * last. Put and take cost O(log n), 24 bytes an item. What it points to belongs to whoever put it there.
 * Life cycle: zero → delay_heap_reserve, delay_heap_put, delay_heap_take_first … → delay_heap_fini. The core's thread.
 */
#ifndef MILLRACE_CORE_DELAY_HEAP_H
#define MILLRACE_CORE_DELAY_HEAP_H

#include "base/types.h"

struct delay_item {
    wall_t due;
    uint32_t arrival; /* compared as serial numbers: those of two items are less than 2^31 apart */
    void *what;
};

struct delay_heap {
    struct delay_item *items;
    uint32_t count, max;
};

static inline bool delay_before(const struct delay_item *a, const struct delay_item *b)
{
    return a->due != b->due ? a->due < b->due : (int32_t)(a->arrival - b->arrival) < 0;
}

/* Room for so many items altogether. False: no memory. */
MUST_USE bool delay_heap_reserve(struct delay_heap *heap, uint64_t count);
void delay_heap_put(struct delay_heap *heap, struct delay_item item); /* into room that was reserved */
struct delay_item delay_heap_take_first(struct delay_heap *heap);     /* it is not empty */

/* The last goes to where it is found behind the others: items[count] upwards are then those set aside, in order. They are
 * there until the next put, or put back. */
void delay_heap_set_aside(struct delay_heap *heap);
void delay_heap_put_back(struct delay_heap *heap, uint32_t count);

/* NULL: it is empty. */
static inline const struct delay_item *delay_heap_first(const struct delay_heap *heap)
{
    return heap->count ? &heap->items[0] : NULL;
}

static inline const struct delay_item *delay_heap_last(const struct delay_heap *heap)
{
    return heap->count ? &heap->items[heap->count > 1] : NULL;
}

void delay_heap_fini(struct delay_heap *heap); /* empty and without memory; it may be used again */
void delay_heap_check(const struct delay_heap *heap);

#endif
