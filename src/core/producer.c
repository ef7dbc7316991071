/* Numbered producers of a partition, see producer.h. */
#include "core/producer.h"

#include "base/mem.h"

#define OPEN_MAX 8u /* producers with an open transaction that a look at the silent ones passes */

static struct slice key_of(const void *value)
{
    return map_key_u64((const uint64_t *)&((const struct producer *)value)->id);
}

void producers_init(struct producers *all, uint64_t seed)
{
    map_init_keyed(&all->map, seed, key_of);
    list_init(&all->by_age);
    list_init(&all->open);
}

static void producer_end(struct producers *all, struct producer *p)
{
    (void)map_take(&all->map, key_of(p));
    list_remove(&p->link);
    list_remove(&p->open_link);
    mem_free_as(MEM_QUEUES, p);
}

void producers_fini(struct producers *all)
{
    LIST_EACH(&all->by_age, node, after)
    mem_free_as(MEM_QUEUES, CONTAINER_OF(node, struct producer, link));
    map_fini(&all->map);
    list_init(&all->by_age);
    list_init(&all->open);
}

static struct producer *producer_find(const struct producers *all, int64_t id)
{
    uint64_t key = (uint64_t)id;
    return map_get(&all->map, map_key_u64(&key));
}

/* Knows no batch yet. NULL: no memory. */
static struct producer *producer_make(struct producers *all, int64_t id, int16_t epoch)
{
    struct producer *p = map_reserve(&all->map) ? mem_zalloc_as(MEM_QUEUES, sizeof *p) : NULL;
    if (!p)
        return NULL;
    p->id = id;
    p->epoch = epoch;
    list_init(&p->open_link);
    list_insert(&all->by_age, &p->link);
    (void)map_put(&all->map, key_of(p), p);
    return p;
}

static const struct producer_batch *last_of(const struct producer *p)
{
    return p->count ? &p->batches[p->count - 1] : NULL;
}

static int32_t sequence_after(int32_t sequence)
{
    return sequence == INT32_MAX ? 0 : sequence + 1;
}

enum produce_result producers_check(struct producers *all, int64_t id, int16_t epoch, int32_t first, int32_t last,
                                    bool from_zero, struct producer_batch *ret)
{
    const struct producer *p = producer_find(all, id);
    if (!p && from_zero && first != 0)
        return PRODUCE_OUT_OF_ORDER;
    if (!p)
        return producer_make(all, id, epoch) ? PRODUCE_OK : PRODUCE_NO_MEMORY;
    const struct producer_batch *latest = last_of(p);
    if (epoch < p->epoch)
        return PRODUCE_OLD_EPOCH;
    if (epoch > p->epoch)
        return first == 0 ? PRODUCE_OK : PRODUCE_OUT_OF_ORDER;
    for (unsigned i = 0; i < p->count; i++) {
        if (p->batches[i].first == first && p->batches[i].last == last) {
            *ret = p->batches[i];
            return PRODUCE_DUPLICATE;
        }
    }
    return first == (latest ? sequence_after(latest->last) : 0) ? PRODUCE_OK : PRODUCE_OUT_OF_ORDER;
}

bool producers_knows(const struct producers *all, int64_t id)
{
    return producer_find(all, id);
}

void producers_forget(struct producers *all, int64_t id)
{
    struct producer *p = producer_find(all, id);
    if (p)
        producer_end(all, p);
}

bool producers_note(struct producers *all, int64_t id, int16_t epoch, const struct producer_batch *batch)
{
    struct producer *p = producer_find(all, id);
    if (!p && !(p = producer_make(all, id, epoch)))
        return false;
    const struct producer_batch *latest = last_of(p);
    if (latest && batch->offset <= latest->offset)
        return true;
    if (epoch != p->epoch) {
        p->epoch = epoch;
        p->count = 0;
    }
    if (p->count == PRODUCER_BATCHES)
        memmove(p->batches, p->batches + 1, --p->count * sizeof p->batches[0]);
    p->batches[p->count++] = *batch;
    list_remove(&p->link);
    list_insert(&all->by_age, &p->link);
    return true;
}

bool producers_open(struct producers *all, int64_t id, int16_t epoch, uint64_t offset)
{
    struct producer *p = producer_find(all, id);
    if (!p && !(p = producer_make(all, id, epoch)))
        return false;
    if (!list_empty(&p->open_link))
        return true;
    p->open_first = offset;
    struct list *at = all->open.prev; /* offsets ascend, but for what a snapshot repeats */
    while (at != &all->open && CONTAINER_OF(at, struct producer, open_link)->open_first > offset)
        at = at->prev;
    list_insert(at->next, &p->open_link);
    return true;
}

bool producers_close(struct producers *all, int64_t id, int16_t epoch, uint64_t *ret_first)
{
    struct producer *p = producer_find(all, id);
    if (!p)
        return false;
    bool open = !list_empty(&p->open_link);
    *ret_first = p->open_first;
    list_remove(&p->open_link);
    if (epoch > p->epoch) {
        p->epoch = epoch;
        p->count = 0;
    }
    return open;
}

bool producers_is_open(const struct producers *all, int64_t id)
{
    const struct producer *p = producer_find(all, id);
    return p && !list_empty(&p->open_link);
}

int16_t producers_epoch(const struct producers *all, int64_t id)
{
    const struct producer *p = producer_find(all, id);
    return p ? p->epoch : -1;
}

uint64_t producers_stable(const struct producers *all)
{
    return list_empty(&all->open) ? PRODUCERS_NONE_OPEN
                                  : CONTAINER_OF(all->open.next, struct producer, open_link)->open_first;
}

void producers_close_all(struct producers *all)
{
    while (!list_empty(&all->open))
        list_remove(all->open.next);
}

/* Without a batch it was made for one that is being written, or by the end of a transaction. */
static bool may_forget(const struct producers *all, const struct producer *p, wall_t before, uint32_t max)
{
    const struct producer_batch *latest = last_of(p);
    return list_empty(&p->open_link) && (!latest || latest->at < before || all->map.count > max);
}

void producers_expire(struct producers *all, wall_t before, uint32_t max)
{
    for (unsigned open = 0; open < OPEN_MAX && !list_empty(&all->by_age);) {
        struct producer *p = LIST_FIRST(&all->by_age, struct producer, link);
        if (may_forget(all, p, before, max)) {
            producer_end(all, p);
            continue;
        }
        if (list_empty(&p->open_link))
            return;
        list_remove(&p->link); /* out of the way: it will be heard of again, when its transaction ends */
        list_insert(&all->by_age, &p->link);
        open++;
    }
}

void producer_put(struct writer *w, const struct producer *p)
{
    writer_varint(w, (uint64_t)p->id);
    writer_varint(w, (uint16_t)p->epoch);
    writer_varint(w, p->count);
    for (unsigned i = 0; i < p->count; i++) {
        const struct producer_batch *batch = &p->batches[i];
        writer_varint(w, (uint32_t)batch->first);
        writer_varint(w, (uint32_t)batch->last);
        writer_varint(w, batch->offset);
        writer_varint(w, (uint64_t)batch->at);
    }
}

bool producer_read(struct producers *all, struct reader *r)
{
    uint64_t id = reader_varint(r), epoch = reader_varint(r), count = reader_varint(r);
    if (!reader_ok(r) || id > INT64_MAX || epoch > INT16_MAX || count > PRODUCER_BATCHES)
        return false;
    struct producer *known = producer_find(all, (int64_t)id);
    if (known) { /* what was written before is in what follows */
        known->epoch = (int16_t)epoch;
        known->count = 0;
    }
    for (uint64_t i = 0; i < count; i++) {
        uint64_t first = reader_varint(r), last = reader_varint(r);
        struct producer_batch batch = {.first = (int32_t)first, .last = (int32_t)last, .offset = reader_varint(r)};
        batch.at = (wall_t)reader_varint(r);
        if (!reader_ok(r) || first > INT32_MAX || last > INT32_MAX ||
            !producers_note(all, (int64_t)id, (int16_t)epoch, &batch))
            return false;
    }
    return true;
}
