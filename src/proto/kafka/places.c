/* Partitions topic by topic, see places.h. */
#include "proto/kafka/places.h"

#include "proto/kafka/rows.h"

#include "base/check.h"

#include <stdlib.h>

bool kafka_places_next(struct kafka_places *p)
{
    struct reader ahead = p->r;
    if (!p->r.left)
        return false;
    p->stream = reader_u64(&ahead);
    (void)reader_u32(&ahead);
    for (p->count = 1; ahead.left && reader_u64(&ahead) == p->stream; p->count++)
        (void)reader_u32(&ahead);
    return true;
}

int32_t *kafka_places_take(struct kafka *k, struct kafka_request *r, struct kafka_places *p)
{
    int32_t *at = kafka_more_room(k, r, p->count, sizeof *at);
    for (uint32_t i = 0; at && i < p->count; i++) {
        (void)reader_u64(&p->r);
        at[i] = (int32_t)reader_u32(&p->r);
    }
    return at;
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

size_t kafka_ids_once(uint64_t *ids, size_t count)
{
    size_t n = 0;
    if (count)
        qsort(ids, count, sizeof *ids, by_number);
    for (size_t i = 0; i < count; i++)
        if (!i || ids[i] != ids[n - 1])
            ids[n++] = ids[i];
    return n;
}

size_t kafka_ids_find(const uint64_t *ids, size_t count, uint64_t id)
{
    const uint64_t *at = count ? bsearch(&id, ids, count, sizeof *ids, by_number) : NULL;
    CHECK(at);
    return (size_t)(at - ids);
}
