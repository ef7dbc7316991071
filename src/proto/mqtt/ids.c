/* The table, see ids.h: linear probing, removal by shifting back. */
#include "proto/mqtt/ids.h"

#include "base/check.h"
#include "base/mem.h"

#define ENTRIES_FIRST 8u

void ids_init(struct ids *ids)
{
    *ids = (struct ids){.entries = NULL};
}

void ids_fini(struct ids *ids)
{
    mem_free_as(MEM_CONNECTIONS, ids->entries);
    ids_init(ids);
}

static uint32_t place_of(const struct ids *ids, uint16_t id)
{
    return id & ids->mask; /* ids are given out in turn: they are their own hash */
}

static struct id_entry *find(const struct ids *ids, uint16_t id)
{
    uint32_t at = place_of(ids, id);
    while (ids->entries[at].state != ID_FREE && ids->entries[at].id != id)
        at = (at + 1) & ids->mask;
    return &ids->entries[at];
}

struct id_entry *ids_find(const struct ids *ids, uint16_t id)
{
    struct id_entry *entry = ids->entries ? find(ids, id) : NULL;
    return entry && entry->state != ID_FREE ? entry : NULL;
}

static bool grow(struct ids *ids)
{
    struct ids grown = {.count = ids->count, .mask = ids->entries ? ids->mask * 2 + 1 : ENTRIES_FIRST - 1};
    grown.entries = mem_zalloc_as(MEM_CONNECTIONS, (grown.mask + 1) * sizeof *grown.entries);
    if (!grown.entries)
        return false;
    for (uint32_t i = 0; ids->entries && i <= ids->mask; i++)
        if (ids->entries[i].state != ID_FREE)
            *find(&grown, ids->entries[i].id) = ids->entries[i];
    mem_free_as(MEM_CONNECTIONS, ids->entries);
    *ids = grown;
    return true;
}

struct id_entry *ids_put(struct ids *ids, uint16_t id)
{
    if ((!ids->entries || ids->count * 4 > ids->mask * 3) && !grow(ids))
        return NULL;
    struct id_entry *entry = find(ids, id);
    CHECK(entry->state == ID_FREE);
    *entry = (struct id_entry){.id = id, .state = ID_WAITS_PUBACK};
    ids->count++;
    return entry;
}

void ids_remove(struct ids *ids, uint16_t id)
{
    struct id_entry *entry = ids_find(ids, id);
    CHECK(entry);
    if (--ids->count == 0) {
        ids_fini(ids);
        return;
    }
    uint32_t hole = (uint32_t)(entry - ids->entries), at = hole;
    for (;;) {
        at = (at + 1) & ids->mask;
        if (ids->entries[at].state == ID_FREE)
            break;
        uint32_t home = place_of(ids, ids->entries[at].id);
        if (((at - home) & ids->mask) < ((at - hole) & ids->mask))
            continue; /* it would stand before its home */
        ids->entries[hole] = ids->entries[at];
        hole = at;
    }
    ids->entries[hole].state = ID_FREE;
}
