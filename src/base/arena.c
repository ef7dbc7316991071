/* Blocks in a chain, the newest first; see arena.h. */
#include "base/arena.h"

#include "base/mem.h"

#define KEPT_MAX (16 * (size_t)ARENA_BLOCK)

struct arena_block {
    struct arena_block *older;
    size_t len; /* of what follows */
    uint8_t bytes[] __attribute__((aligned(16)));
};

void arena_init(struct arena *arena, size_t max)
{
    *arena = (struct arena){.max = max < SIZE_MAX / 2 ? max : SIZE_MAX / 2};
}

static void free_chain(struct arena_block *block)
{
    while (block) {
        struct arena_block *older = block->older;
        mem_free(block);
        block = older;
    }
}

void arena_fini(struct arena *arena)
{
    free_chain(arena->newest);
    *arena = (struct arena){.max = arena->max};
}

void arena_reset(struct arena *arena)
{
    struct arena_block *keep = arena->newest;
    if (keep && keep->len > KEPT_MAX) {
        arena_fini(arena);
        return;
    }
    arena->used = 0;
    if (!keep)
        return;
    free_chain(keep->older);
    keep->older = NULL;
    arena->at = keep->bytes;
    arena->left = keep->len;
}

/* Each block is twice the one before, up to what a reset keeps: few of them, and little left over in the last. */
void *arena_take_block(struct arena *arena, size_t len)
{
    size_t whole = (len + 15 + !len) & ~(size_t)15;
    size_t usual = arena->newest ? 2 * arena->newest->len : ARENA_BLOCK - sizeof(struct arena_block);
    size_t room = usual < KEPT_MAX ? usual : KEPT_MAX;
    room = whole > room ? whole : room;
    struct arena_block *block = mem_alloc(sizeof *block + room);
    if (!block)
        return NULL;
    block->older = arena->newest;
    block->len = room;
    arena->newest = block;
    arena->at = block->bytes;
    arena->left = room;
    return arena_take(arena, len);
}
