/* pool: objects of one size for one thread, from chunks; freed objects are reused, empty chunks are returned.
 *
 * Life cycle: pool_init → pool_take/pool_give … → pool_fini (frees everything at once). One thread.
 * Objects are not zeroed. Size at most 4096 bytes.
 */
#ifndef MILLRACE_BASE_POOL_H
#define MILLRACE_BASE_POOL_H

#include "base/list.h"

struct pool {
    size_t object_len;
    struct list partial; /* chunks with a free object */
    struct list full;
    uint32_t empty_count; /* wholly free chunks that are kept */
    uint64_t objects, bytes;
    bool pinned;
};

void pool_init(struct pool *pool, size_t object_len);
void pool_fini(struct pool *pool);
MUST_USE void *pool_take(struct pool *pool); /* NULL: no memory */
void pool_give(struct pool *pool, void *object);
/* Makes sure that the next pool_take succeeds. */
MUST_USE bool pool_reserve(struct pool *pool);
/* … the next count pool_takes, when no pool_give comes between. */
MUST_USE bool pool_reserve_many(struct pool *pool, uint32_t count);

/* While pinned, pool_give takes no chunk away: what pool_reserve_many promised holds across gives. */
void pool_pin(struct pool *pool);
void pool_unpin(struct pool *pool);

#endif
