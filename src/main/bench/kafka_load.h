/* Produce requests encoded ahead: a buffer of complete requests, each with one batch for one partition, in which sending
 * only patches what differs: correlation id, partition, timestamps, sequence, the stamps of the records, and the CRC.
 *
 * Life cycle: bench_kafka_load_init → { bench_kafka_load_put × n → write out[at..end) → n answers }* → _fini.
 * Thread: one owner. Records are all alike: no key, a value that begins with a struct bench_stamp (its seq counts from 1
 * in its stream, which is one producer's part of one partition), the rest is filling.
 *
 * Stamps cost nothing much in a plain batch; a packed one has to be packed anew for each send. With `prebuilt` batches
 * carry no stamps and are packed once: then only header and CRC are written, and order is seen by offsets alone.
 */
#ifndef MAIN_BENCH_KAFKA_LOAD_H
#define MAIN_BENCH_KAFKA_LOAD_H

#include "fmt/compress.h"

struct bench_kafka_shape {
    const char *topic;
    size_t record_bytes; /* of a value; below BENCH_STAMP_BYTES there are no stamps */
    unsigned records;    /* in a batch */
    int acks;
    enum compress_kind compression;
    int32_t level;
    bool prebuilt;
    uint32_t run_id;
    int64_t producer_id; /* -1: not idempotent */
    int16_t producer_epoch;
    unsigned slots_max; /* never more requests at once than this */
};

struct bench_kafka_load {
    uint8_t *out; /* requests to be written */
    size_t at, end, cap;
    unsigned slot_max, slot_count; /* that fit; that are in out */
    bool fixed, stamped;           /* every slot has the same length and is there already */
    size_t slot_len, head_len;     /* of a fixed slot; of what stands before the batch */
    uint8_t *model;                /* one whole request, not packed */
    size_t model_len, batch_bytes; /* as sent last */
    uint32_t *stamps_at;           /* in the batch of the model */
    struct bench_kafka_shape shape;
    struct compress *z;
};

/* What differs from send to send. */
struct bench_kafka_send {
    int32_t correlation_id, partition;
    int32_t base_sequence; /* where there is a producer id */
    int64_t wall_ms;
    uint32_t stream;    /* of the stamps */
    uint64_t first_seq; /* of the first record */
    uint64_t sent_ns;
};

/* Answer -1 when memory is short, or a batch cannot be made so large. */
int bench_kafka_load_init(struct bench_kafka_load *l, const struct bench_kafka_shape *shape);
void bench_kafka_load_fini(struct bench_kafka_load *l);
/* All is written: begins anew. */
static inline void bench_kafka_load_restart(struct bench_kafka_load *l)
{
    l->at = l->end = 0;
    l->slot_count = 0;
}
/* Adds a request behind the others; slot_count < slot_max must hold. -1: it could not be packed. */
int bench_kafka_load_put(struct bench_kafka_load *l, const struct bench_kafka_send *send);

#endif
