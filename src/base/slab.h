/* slab: memory for message bytes: size classes in 64 KiB chunks, one heap per thread, freeing from any thread.
 *
 * Life cycle: slab_heap_init → slab_take (owner thread) / slab_give (any thread) … → slab_heap_drain now and then by the
 * owner (takes back what others freed) → slab_heap_fini when every block is back.
 * A block larger than SLAB_LEN_MAX is the caller's affair (mem_alloc).
 */
#ifndef MILLRACE_BASE_SLAB_H
#define MILLRACE_BASE_SLAB_H

#include "base/list.h"

#include <stdatomic.h>

#define SLAB_LEN_MAX 8192u
#define SLAB_CLASSES 16

struct slab_heap {
    struct list partial[SLAB_CLASSES];
    struct list full;
    uint32_t empty_count;
    uint64_t bytes;         /* of chunks held */
    _Atomic(void *) remote; /* blocks freed by other threads */
};

void slab_heap_init(struct slab_heap *heap);
void slab_heap_fini(struct slab_heap *heap);
/* Owner thread. NULL: no memory or larger than SLAB_LEN_MAX. */
MUST_USE void *slab_take(struct slab_heap *heap, size_t len);
/* Any thread; mine is the caller's own heap (NULL when it has none). */
void slab_give(struct slab_heap *mine, void *block);
/* Owner thread: takes back blocks that other threads gave. */
void slab_heap_drain(struct slab_heap *heap);

#endif
