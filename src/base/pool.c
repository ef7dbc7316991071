/* Pool of equal objects, see pool.h. A chunk is 16 KiB aligned to 16 KiB, so an object finds its chunk by masking its
 * address; free objects form a list inside the chunk. At most one wholly free chunk is kept per pool. */
#include "base/pool.h"

#include "base/check.h"
#include "base/mem.h"

#define CHUNK_LEN (16u * 1024)

struct chunk {
    struct list link;
    void *free;
    uint32_t used, made; /* objects handed out; objects ever carved from the chunk */
};

#define CHUNK_HEAD ((sizeof(struct chunk) + 15) & ~(size_t)15)

void pool_init(struct pool *pool, size_t object_len)
{
    *pool = (struct pool){.object_len = (object_len + 7) & ~(size_t)7};
    CHECK(pool->object_len >= sizeof(void *) && pool->object_len <= 4096);
    list_init(&pool->partial);
    list_init(&pool->full);
}

static void drop_chunks(struct list *chunks)
{
    LIST_EACH(chunks, node, after)
    mem_free_as(MEM_ENTRIES, CONTAINER_OF(node, struct chunk, link));
    list_init(chunks);
}

void pool_fini(struct pool *pool)
{
    drop_chunks(&pool->partial);
    drop_chunks(&pool->full);
    pool->objects = pool->bytes = pool->empty_count = 0;
}

static uint32_t chunk_capacity(const struct pool *pool)
{
    return (uint32_t)((CHUNK_LEN - CHUNK_HEAD) / pool->object_len);
}

static bool add_chunk(struct pool *pool)
{
    struct chunk *chunk = mem_aligned_as(MEM_ENTRIES, CHUNK_LEN, CHUNK_LEN);
    if (!chunk)
        return false;
    *chunk = (struct chunk){0};
    list_insert(&pool->partial, &chunk->link);
    pool->empty_count++;
    pool->bytes += CHUNK_LEN;
    return true;
}

bool pool_reserve(struct pool *pool)
{
    return !list_empty(&pool->partial) || add_chunk(pool);
}

bool pool_reserve_many(struct pool *pool, uint32_t count)
{
    uint64_t have = 0;
    for (struct list *at = pool->partial.next; have < count && at != &pool->partial; at = at->next)
        have += chunk_capacity(pool) - CONTAINER_OF(at, struct chunk, link)->used;
    for (; have < count; have += chunk_capacity(pool))
        if (!add_chunk(pool))
            return false;
    return true;
}

void *pool_take(struct pool *pool)
{
    if (!pool_reserve(pool))
        return NULL;
    struct chunk *chunk = CONTAINER_OF(pool->partial.next, struct chunk, link);
    void *object = chunk->free;
    if (object)
        memcpy(&chunk->free, object, sizeof(void *));
    else
        object = (uint8_t *)chunk + CHUNK_HEAD + chunk->made++ * pool->object_len;
    if (chunk->used++ == 0)
        pool->empty_count--;
    if (!chunk->free && chunk->made == chunk_capacity(pool)) {
        list_remove(&chunk->link);
        list_insert(&pool->full, &chunk->link);
    }
    pool->objects++;
    return object;
}

static void drop_chunk(struct pool *pool, struct chunk *chunk)
{
    list_remove(&chunk->link);
    pool->bytes -= CHUNK_LEN;
    mem_free_as(MEM_ENTRIES, chunk);
}

void pool_give(struct pool *pool, void *object)
{
    struct chunk *chunk = (struct chunk *)((uintptr_t)object & ~(uintptr_t)(CHUNK_LEN - 1));
    bool was_full = !chunk->free && chunk->made == chunk_capacity(pool);
    memcpy(object, &chunk->free, sizeof(void *));
    chunk->free = object;
    CHECK(chunk->used > 0);
    chunk->used--;
    pool->objects--;
    if (was_full) {
        list_remove(&chunk->link);
        list_insert(pool->partial.next, &chunk->link);
    }
    if (chunk->used)
        return;
    if (pool->empty_count == 0 || pool->pinned) {
        pool->empty_count++;
        return;
    }
    drop_chunk(pool, chunk);
}

void pool_pin(struct pool *pool)
{
    pool->pinned = true;
}

void pool_unpin(struct pool *pool)
{
    pool->pinned = false;
    if (pool->empty_count <= 1)
        return;
    LIST_EACH(&pool->partial, node, after)
    {
        struct chunk *chunk = CONTAINER_OF(node, struct chunk, link);
        if (chunk->used || pool->empty_count == 1)
            continue;
        pool->empty_count--;
        drop_chunk(pool, chunk);
    }
}
