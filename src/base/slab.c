/* Message memory, see slab.h. Chunks are aligned to their size, so a block finds its chunk by masking and the chunk
 * names its class and heap. The owner frees without atomics; others push the block on the heap's `remote` stack, which
 * the owner takes whole. A few wholly free chunks are kept against thrashing; the rest goes back to the system. */
#include "base/slab.h"

#include "base/check.h"
#include "base/mem.h"

#define CHUNK_LEN (64u * 1024)
#define EMPTY_KEPT 16u

static const uint32_t class_len[SLAB_CLASSES] = {64,  128,  192,  256,  320,  384,  512,  640,
                                                 768, 1024, 1280, 1536, 2048, 3072, 4096, SLAB_LEN_MAX};

struct chunk {
    struct list link;
    struct slab_heap *heap;
    void *free;
    uint32_t used, made, capacity, block_len;
    uint32_t class_idx;
};

#define CHUNK_HEAD ((sizeof(struct chunk) + 63) & ~(size_t)63)

static unsigned class_of(size_t len)
{
    unsigned c = 0;
    while (class_len[c] < len)
        c++;
    return c;
}

void slab_heap_init(struct slab_heap *heap)
{
    memset(heap, 0, sizeof *heap);
    for (unsigned c = 0; c < SLAB_CLASSES; c++)
        list_init(&heap->partial[c]);
    list_init(&heap->full);
}

static void free_chunks(struct list *chunks)
{
    LIST_EACH(chunks, node, after)
    mem_free_as(MEM_MESSAGES, CONTAINER_OF(node, struct chunk, link));
    list_init(chunks);
}

void slab_heap_fini(struct slab_heap *heap)
{
    slab_heap_drain(heap);
    for (unsigned c = 0; c < SLAB_CLASSES; c++)
        free_chunks(&heap->partial[c]);
    free_chunks(&heap->full);
    heap->bytes = 0;
}

static struct chunk *chunk_new(struct slab_heap *heap, unsigned c)
{
    struct chunk *chunk = mem_aligned_as(MEM_MESSAGES, CHUNK_LEN, CHUNK_LEN);
    if (!chunk)
        return NULL;
    *chunk = (struct chunk){.heap = heap,
                            .class_idx = c,
                            .block_len = class_len[c],
                            .capacity = (uint32_t)((CHUNK_LEN - CHUNK_HEAD) / class_len[c])};
    list_insert(heap->partial[c].next, &chunk->link);
    heap->bytes += CHUNK_LEN;
    heap->empty_count++;
    return chunk;
}

void *slab_take(struct slab_heap *heap, size_t len)
{
    if (len > SLAB_LEN_MAX)
        return NULL;
    unsigned c = class_of(len);
    if (list_empty(&heap->partial[c])) {
        slab_heap_drain(heap);
        if (list_empty(&heap->partial[c]) && !chunk_new(heap, c))
            return NULL;
    }
    struct chunk *chunk = CONTAINER_OF(heap->partial[c].next, struct chunk, link);
    void *block = chunk->free;
    if (block)
        memcpy(&chunk->free, block, sizeof(void *));
    else
        block = (uint8_t *)chunk + CHUNK_HEAD + (size_t)chunk->made++ * chunk->block_len;
    if (chunk->used++ == 0)
        heap->empty_count--;
    if (!chunk->free && chunk->made == chunk->capacity) {
        list_remove(&chunk->link);
        list_insert(&heap->full, &chunk->link);
    }
    return block;
}

static struct chunk *chunk_of(void *block)
{
    return (struct chunk *)((uintptr_t)block & ~(uintptr_t)(CHUNK_LEN - 1));
}

static void give_local(struct slab_heap *heap, struct chunk *chunk, void *block)
{
    bool was_full = !chunk->free && chunk->made == chunk->capacity;
    memcpy(block, &chunk->free, sizeof(void *));
    chunk->free = block;
    CHECK(chunk->used > 0);
    if (was_full) {
        list_remove(&chunk->link);
        list_insert(heap->partial[chunk->class_idx].next, &chunk->link);
    }
    if (--chunk->used > 0)
        return;
    if (heap->empty_count < EMPTY_KEPT) {
        heap->empty_count++;
        return;
    }
    list_remove(&chunk->link);
    heap->bytes -= CHUNK_LEN;
    mem_free_as(MEM_MESSAGES, chunk);
}

void slab_give(struct slab_heap *mine, void *block)
{
    struct chunk *chunk = chunk_of(block);
    struct slab_heap *heap = chunk->heap;
    if (heap == mine) {
        give_local(heap, chunk, block);
        return;
    }
    void *top = atomic_load_explicit(&heap->remote, memory_order_relaxed);
    do
        memcpy(block, &top, sizeof(void *));
    while (
        !atomic_compare_exchange_weak_explicit(&heap->remote, &top, block, memory_order_release, memory_order_relaxed));
}

void slab_heap_drain(struct slab_heap *heap)
{
    if (!atomic_load_explicit(&heap->remote, memory_order_relaxed))
        return;
    void *block = atomic_exchange_explicit(&heap->remote, NULL, memory_order_acquire);
    while (block) {
        void *next;
        memcpy(&next, block, sizeof(void *));
        give_local(heap, chunk_of(block), block);
        block = next;
    }
}
