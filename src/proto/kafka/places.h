/* places: partitions as the core tells them, rows of u64 stream, u32 partition that are sorted, topic by topic.
 *
 * struct kafka_places p = {.r = rows} ▸ { kafka_places_next ▸ kafka_places_take } until false. Thread: the loop's.
 */
#ifndef MILLRACE_PROTO_KAFKA_PLACES_H
#define MILLRACE_PROTO_KAFKA_PLACES_H

#include "base/reader.h"
#include "proto/kafka/kafka_int.h"

struct kafka_places {
    struct reader r;
    uint64_t stream;
    uint32_t count; /* of its partitions */
};

bool kafka_places_next(struct kafka_places *p);
/* The partitions of the stream, in the request's arena; NULL: no memory, and the connection has been dropped. */
int32_t *kafka_places_take(struct kafka *k, struct kafka_request *r, struct kafka_places *p);

/* Ascending, each once: so many they are then. */
size_t kafka_ids_once(uint64_t *ids, size_t count);
/* The place of one that is among them. */
size_t kafka_ids_find(const uint64_t *ids, size_t count, uint64_t id);

#endif
