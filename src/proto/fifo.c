/* The circle, see fifo.h. */
#include "proto/fifo.h"

#include "base/check.h"
#include "base/mem.h"

#define ROOM_FIRST 8u

void fifo_fini(struct fifo *f)
{
    mem_free_as(MEM_CONNECTIONS, f->items);
    f->items = NULL;
    f->head = f->count = f->room = 0;
}

static bool grow(struct fifo *f)
{
    uint32_t room = f->room ? f->room * 2 : ROOM_FIRST;
    uint8_t *items = mem_alloc_as(MEM_CONNECTIONS, (size_t)room * f->size);
    if (!items)
        return false;
    for (uint32_t i = 0; i < f->count; i++)
        memcpy(items + (size_t)i * f->size, fifo_at(f, i), f->size);
    mem_free_as(MEM_CONNECTIONS, f->items);
    f->items = items;
    f->head = 0;
    f->room = room;
    return true;
}

void *fifo_push(struct fifo *f)
{
    if (f->count == f->room && !grow(f))
        return NULL;
    return fifo_at(f, f->count++);
}

void fifo_pop(struct fifo *f)
{
    CHECK(f->count);
    f->head = (f->head + 1) & (f->room - 1);
    if (--f->count == 0 && f->room > f->kept)
        fifo_fini(f);
}
