/* murmur2: the hash by which Kafka's Java clients choose a partition for a key. Pure functions, any thread.
 *
 * 32-bit MurmurHash2 with seed 0x9747b28c. librdkafka's `murmur2` and `murmur2_random` partitioners, franz-go and kafkajs
 * compute the same; librdkafka's own default is another (CRC-32 modulo partitions).
 */
#ifndef MILLRACE_FMT_MURMUR2_H
#define MILLRACE_FMT_MURMUR2_H

#include "base/types.h"

uint32_t murmur2(struct slice key);

/* The partition of a key that is not null: the hash without its sign bit, modulo count (at least 1). */
static inline uint32_t murmur2_partition(struct slice key, uint32_t count)
{
    return (murmur2(key) & 0x7fffffffu) % count;
}

#endif
