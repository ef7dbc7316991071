/* Partitions topic by topic, see places.h. */
#include "proto/kafka/places.h"

#include "proto/kafka/rows.h"

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
