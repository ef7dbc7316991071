/* arena: memory that is taken piece by piece and given back all at once: the scratch of one frame, one request.
 *
 * Life cycle: arena_init → { arena_take … → arena_reset }* → arena_fini. One thread at a time. A reset keeps one block,
 * so that the next request usually takes nothing from the heap; arena_recycle keeps all of them, for who asks for about as much
 * every time and shall then take nothing from the heap at all; arena_fini frees everything.
 */
#ifndef MILLRACE_BASE_ARENA_H
#define MILLRACE_BASE_ARENA_H

#include "base/types.h"

#define ARENA_BLOCK 4096u /* the least that is asked of the heap; what a reset keeps is at most 16 times as much */

struct arena_block;

struct arena {
    uint8_t *at;
    size_t left;      /* in the newest block */
    size_t used, max; /* bytes taken since the reset, alignment included; the limit */
    uint32_t first;   /* bytes of the first block; 0: ARENA_BLOCK, and each is twice the one before */
    struct arena_block *newest;
    struct arena_block *spare; /* free ones, of arena_recycle; the oldest first */
    size_t spare_len;
};

void arena_init(struct arena *arena, size_t max);
/* For what lives long and is mostly small (a query's plan): blocks of 1 KiB first, then of half of what has been taken, so that at most a third is spare. */
void arena_init_small(struct arena *arena, size_t max);
void arena_fini(struct arena *arena);
void arena_reset(struct arena *arena);
void arena_recycle(struct arena *arena);

/* The slow half of arena_take: a new block. */
MUST_USE void *arena_take_block(struct arena *arena, size_t len);

/* len bytes, aligned for any type and not zeroed, until the reset. NULL: beyond the limit, or no memory. */
MUST_USE static inline void *arena_take(struct arena *arena, size_t len)
{
    if (len > arena->max - arena->used) /* first, so that what follows cannot overflow */
        return NULL;
    size_t whole = (len + 15 + !len) & ~(size_t)15; /* no two pieces are the same, empty ones included */
    if (whole > arena->left)
        return arena_take_block(arena, len);
    void *got = arena->at;
    arena->at += whole;
    arena->left -= whole;
    arena->used += whole < arena->max - arena->used ? whole : arena->max - arena->used;
    return got;
}

#endif
