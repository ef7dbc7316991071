/* fifo: things of one size in a row, first in first out, in a circle that grows as needed and is given back when it is empty.
 *
 * Life cycle: fifo_init → fifo_push / fifo_first / fifo_pop … → fifo_fini. What push and first return is a loan until the next
 * call. One thread.
 */
#ifndef MILLRACE_PROTO_FIFO_H
#define MILLRACE_PROTO_FIFO_H

#include "base/types.h"

struct fifo {
    uint8_t *items;
    uint32_t size; /* of one */
    uint32_t kept; /* an empty circle of so many is kept for the next */
    uint32_t head, count, room;
};

static inline void fifo_init(struct fifo *f, size_t size)
{
    *f = (struct fifo){.size = (uint32_t)size};
}
/* After it the fifo is empty, and may be used again. */
void fifo_fini(struct fifo *f);
/* Room for one more at the end, not cleared. NULL: no memory. */
MUST_USE void *fifo_push(struct fifo *f);
static inline void *fifo_at(const struct fifo *f, uint32_t i)
{
    return f->items + (size_t)((f->head + i) & (f->room - 1)) * f->size;
}
static inline void *fifo_first(const struct fifo *f)
{
    return f->count ? fifo_at(f, 0) : NULL;
}
static inline void *fifo_last(const struct fifo *f)
{
    return f->count ? fifo_at(f, f->count - 1) : NULL;
}
void fifo_pop(struct fifo *f);

#endif
