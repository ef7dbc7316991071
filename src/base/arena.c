/* Blocks in a chain, the newest first; see arena.h. */
#include "base/arena.h"

#include "base/mem.h"

#define KEPT_MAX (16 * (size_t)ARENA_BLOCK)
#define SMALL_FIRST 1024u

struct arena_block {
    struct arena_block *older;
    size_t len; /* of what follows */
    uint8_t bytes[] __attribute__((aligned(16)));
};

void arena_init(struct arena *arena, size_t max)
{
    *arena = (struct arena){.max = max < SIZE_MAX / 2 ? max : SIZE_MAX / 2};
}

void arena_init_small(struct arena *arena, size_t max)
{
    arena_init(arena, max);
    arena->first = SMALL_FIRST;
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
    free_chain(arena->spare);
    *arena = (struct arena){.max = arena->max, .first = arena->first};
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
    free_chain(arena->spare);
    arena->spare = NULL;
    arena->spare_len = 0;
    keep->older = NULL;
    arena->at = keep->bytes;
    arena->left = keep->len;
}

/* Blocks that fit nothing any more would pile up; when they hold more than the limit allows to be taken all go. */
void arena_recycle(struct arena *arena)
{
    while (arena->newest) {
        struct arena_block *block = arena->newest;
        arena->newest = block->older;
        block->older = arena->spare;
        arena->spare = block;
        arena->spare_len += block->len;
    }
    if (arena->spare_len > arena->max)
        arena_fini(arena);
    arena->at = NULL;
    arena->left = arena->used = 0;
}

static struct arena_block *take_spare(struct arena *arena, size_t len)
{
    struct arena_block **at = &arena->spare;
    while (*at && (*at)->len < len)
        at = &(*at)->older;
    struct arena_block *block = *at;
    if (block) {
        *at = block->older;
        arena->spare_len -= block->len;
    }
    return block;
}

/* Each block is twice the one before, up to what a reset keeps: few of them, and little left over in the last. */
void *arena_take_block(struct arena *arena, size_t len)
{
    size_t whole = (len + 15 + !len) & ~(size_t)15;
    size_t usual = arena->newest ? 2 * arena->newest->len : ARENA_BLOCK - sizeof(struct arena_block);
    if (arena->first)
        usual = (arena->used / 2 > arena->first ? arena->used / 2 : arena->first) - sizeof(struct arena_block);
    size_t room = usual < KEPT_MAX ? usual : KEPT_MAX;
    room = whole > room ? whole : room;
    struct arena_block *block = arena->spare ? take_spare(arena, whole) : NULL;
    if (!block) {
        block = mem_alloc(sizeof *block + room);
        if (!block)
            return NULL;
        block->len = room;
    }
    block->older = arena->newest;
    arena->newest = block;
    arena->at = block->bytes;
    arena->left = block->len;
    return arena_take(arena, len);
}
