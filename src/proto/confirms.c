/* See confirms.h. */
#include "proto/confirms.h"

/* What waits behind the newest anyway can leave with it; so can all, when there are too many. */
static bool join(struct confirms *confirms, const struct confirm *c, lsn_t durable)
{
    struct confirm *last = fifo_last(&confirms->fifo);
    if (!last || last->refused || c->refused || last->kind != c->kind || last->bytes > UINT32_MAX - c->bytes)
        return false;
    if (last->lsn < c->lsn && c->lsn > durable && confirms->fifo.count < CONFIRMS_MAX)
        return false;
    last->number = c->number;
    last->bytes += c->bytes;
    if (c->lsn > last->lsn)
        last->lsn = c->lsn;
    return true;
}

bool confirms_add(struct confirms *confirms, const struct effect *e, uint8_t kind, lsn_t durable)
{
    struct confirm c = {.lsn = e->lsn,
                        .number = e->number,
                        .bytes = e->bytes > UINT32_MAX ? UINT32_MAX : (uint32_t)e->bytes,
                        .kind = kind,
                        .refused = e->type == EFF_NACK};
    if (join(confirms, &c, durable))
        return true;
    struct confirm *slot = fifo_push(&confirms->fifo);
    if (slot)
        *slot = c;
    return slot;
}

bool confirms_take(struct confirms *confirms, lsn_t durable, struct confirm *ret)
{
    const struct confirm *first = fifo_first(&confirms->fifo);
    if (!first || first->lsn > durable)
        return false;
    *ret = *first;
    fifo_pop(&confirms->fifo);
    return true;
}
