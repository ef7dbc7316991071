/* Looks at what was fetched: are offsets dense, checksums right, records where they should be, and all of them there?
 *
 * Life cycle: bench_kafka_reading_init → { bench_kafka_reading_end (where to fetch next) and bench_kafka_reading_take, for
 * the records of each partition in each answer }* → read the tally → bench_kafka_reading_fini.
 * Thread: one owner, who runs all consumers. Answers are read in place; only packed batches need memory.
 */
#ifndef MAIN_BENCH_KAFKA_READING_H
#define MAIN_BENCH_KAFKA_READING_H

#include "kafka_int.h"
#include "order.h"

struct bench_kafka_reading {
    enum bench_kafka_check check;
    uint32_t run_id;
    unsigned streams;                 /* whose stamps are ours; 0: nobody's, they are those of an earlier run */
    struct bench_order *order;        /* of our streams */
    struct bench_histogram *transit;  /* NULL: not now */
    uint64_t records, bytes, batches; /* bytes: of batches, headers included */
    uint64_t foreign;                 /* records without one of our stamps; not counted in the others' sense of loss */
    /* violations */
    uint64_t gaps;    /* offsets that were passed over */
    uint64_t repeats; /* offsets that came again */
    uint64_t damaged; /* batches that are none, or whose checksum, count or records are wrong */
    struct compress *z;
    uint64_t run_sent_ns, run_count; /* equal send times not yet in the histogram */
};

int bench_kafka_reading_init(struct bench_kafka_reading *r); /* -1: no memory. The fields above z are the caller's */
void bench_kafka_reading_fini(struct bench_kafka_reading *r);
/* The offset after the last whole batch in `bytes`, or `offset` when there is none. Quick: only headers are looked at. */
int64_t bench_kafka_reading_end(struct slice bytes, int64_t offset);
/* All whole batches in `bytes`, fetched from `offset` at now_ns. What is before `offset` in the first batch does not count:
 * a fetch gives whole batches. */
void bench_kafka_reading_take(struct bench_kafka_reading *r, struct slice bytes, int64_t offset, uint64_t now_ns);

#endif
