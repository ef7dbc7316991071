/* due: what ends at a time, in the order of these times; of the same time, in the order of their numbers.
 *
 *   due_init ▸ { due_add | due_first ▸ due_drop }* ▸ due_fini
 *
 * Times that mostly grow cost O(1): those that do are in a ring, only the others in a heap. Counted in the account. One thread.
 */
#ifndef MILLRACE_SQL_QUERY_DUE_H
#define MILLRACE_SQL_QUERY_DUE_H

#include "sql/query/op.h"

struct due_item {
    int64_t time;
    uint64_t number;
    void *what;
};

struct due {
    struct account *account;
    struct due_item *ring, *heap;
    uint32_t ring_room, ring_at, ring_count; /* room: a power of two */
    uint32_t heap_room, heap_count;
};

void due_init(struct due *d, struct account *account);
void due_fini(struct due *d);
/* False: no memory. */
MUST_USE bool due_add(struct due *d, struct due_item item);
/* The next one, valid until something is added or dropped. NULL: there is none. */
const struct due_item *due_first(const struct due *d);
void due_drop(struct due *d); /* that one */
/* Drops those of which `gone` says so; memory that is not needed any more is given back. */
void due_sweep(struct due *d, bool (*gone)(void *arg, void *what), void *arg);

static inline uint32_t due_count(const struct due *d)
{
    return d->ring_count + d->heap_count;
}

#endif
