/* ring: bounded single-producer single-consumer queue of fixed-size elements, in batches.
 *
 * Life cycle: ring_init → ring_room/ring_push … ring_publish (producer) and ring_peek … ring_pop (consumer) → ring_fini.
 * The producer sees nothing published until ring_publish, so a batch costs one release store; each side caches the
 * other's index and rereads it only when it seems full or empty.
 */
#ifndef MILLRACE_BASE_RING_H
#define MILLRACE_BASE_RING_H

#include "base/check.h"
#include "base/types.h"

#include <stdatomic.h>

/* Gaps instead of alignment: what different threads write is never on one cache line, wherever the ring's owner lies. */
#define RING_GAP 64

struct ring {
    uint8_t *slots;
    size_t slot_len;
    uint32_t mask;
    uint8_t gap1[RING_GAP];
    /* producer's line */
    uint32_t tail; /* next slot to fill */
    uint32_t head_seen;
    uint8_t gap2[RING_GAP];
    /* shared */
    _Atomic uint32_t tail_published;
    uint8_t gap3[RING_GAP];
    _Atomic uint32_t head_published;
    uint8_t gap4[RING_GAP];
    /* consumer's line */
    uint32_t head; /* next slot to read */
    uint32_t tail_seen;
    uint8_t gap5[RING_GAP];
};

/* slots is rounded up to a power of two. False: no memory. */
MUST_USE bool ring_init(struct ring *r, size_t slots, size_t slot_len);
void ring_fini(struct ring *r);

/* Producer: how many slots are free. */
static inline uint32_t ring_room(struct ring *r)
{
    uint32_t size = r->mask + 1;
    if (r->tail - r->head_seen >= size - size / 4)
        r->head_seen = atomic_load_explicit(&r->head_published, memory_order_acquire);
    return size - (r->tail - r->head_seen);
}

/* Producer: as ring_room, which may say less than there is while a quarter is free; this looks. */
static inline uint32_t ring_room_now(struct ring *r)
{
    r->head_seen = atomic_load_explicit(&r->head_published, memory_order_acquire);
    return r->mask + 1 - (r->tail - r->head_seen);
}

/* Producer: the next slot to fill, or NULL when full. Not visible before ring_publish. */
static inline void *ring_push(struct ring *r)
{
    if (r->tail - r->head_seen > r->mask) {
        r->head_seen = atomic_load_explicit(&r->head_published, memory_order_acquire);
        if (r->tail - r->head_seen > r->mask)
            return NULL;
    }
    return r->slots + (size_t)(r->tail++ & r->mask) * r->slot_len;
}

/* Producer: the newest pushed and not yet published slot, or NULL. */
static inline void *ring_last_unpublished(struct ring *r)
{
    if (r->tail == atomic_load_explicit(&r->tail_published, memory_order_relaxed))
        return NULL;
    return r->slots + (size_t)((r->tail - 1) & r->mask) * r->slot_len;
}

static inline bool ring_dirty(const struct ring *r)
{
    return r->tail != atomic_load_explicit(&r->tail_published, memory_order_relaxed);
}

static inline void ring_publish(struct ring *r)
{
    atomic_store_explicit(&r->tail_published, r->tail, memory_order_release);
}

/* Consumer: the oldest slot, or NULL when empty. Stays until ring_pop. */
static inline void *ring_peek(struct ring *r)
{
    if (r->head == r->tail_seen) {
        r->tail_seen = atomic_load_explicit(&r->tail_published, memory_order_acquire);
        if (r->head == r->tail_seen)
            return NULL;
    }
    return r->slots + (size_t)(r->head & r->mask) * r->slot_len;
}

static inline void ring_pop(struct ring *r)
{
    r->head++;
    atomic_store_explicit(&r->head_published, r->head, memory_order_release);
}

/* Consumer: whether anything is published; for deciding to sleep. */
static inline bool ring_empty(struct ring *r)
{
    return ring_peek(r) == NULL;
}

#endif
