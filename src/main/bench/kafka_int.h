/* What the files of `millrace bench kafka` share: the options and the scenarios. One thread, the caller's. */
#ifndef MAIN_BENCH_KAFKA_INT_H
#define MAIN_BENCH_KAFKA_INT_H

#include "command.h"
#include "fmt/compress.h"
#include "kafka_wire.h"
#include "report.h"

/* How closely what is fetched is looked at; each level includes the ones before. */
enum bench_kafka_check {
    BENCH_CHECK_OFFSETS, /* offsets are dense from batch to batch */
    BENCH_CHECK_CRC,     /* and the checksum of each batch is right */
    BENCH_CHECK_RECORDS, /* and each record is where and what it should be */
};

enum { BENCH_TOPIC_BYTES = 250 };

struct bench_kafka_options {
    struct bench_kafka_server server;
    unsigned producers, consumers, topics, connections;
    int32_t partitions; /* of each topic; 0: one, or what a topic has that is there */
    char topic[BENCH_TOPIC_BYTES - 12];
    bool topic_kept;
    size_t record_bytes;
    unsigned batch;  /* records in one */
    unsigned window; /* requests in flight per producer */
    int acks;        /* -1 all, 0, 1 */
    enum compress_kind compression;
    int32_t level;
    bool idempotent, prebuilt;
    double rate; /* records per second over all producers; 0: as fast as it goes */
    double duration_s, warmup_s, drain_s, hold_s;
    uint64_t records;       /* over all producers, or without producers over all consumers; 0: run for duration_s */
    const char *group;      /* of all consumers; NULL: none */
    bool from_first, again; /* where consumers begin, and whether they begin again at the end */
    int32_t fetch_min, fetch_max, fetch_wait_ms, partition_max;
    enum bench_kafka_check check;
    const char *probe_dir;
    uint32_t run_id;
    bool json, quiet, progress;
};

/* Every scenario adds rows to the report and answers an exit code; a failure is already printed on stderr. */
int bench_kafka_run(const struct bench_kafka_options *o, struct bench_report *r);
int bench_kafka_latency(const struct bench_kafka_options *o, struct bench_report *r);
int bench_kafka_create(const struct bench_kafka_options *o, struct bench_report *r);
int bench_kafka_connect(const struct bench_kafka_options *o, struct bench_report *r);

/* The name of topic idx, into a buffer of BENCH_TOPIC_BYTES. */
void bench_kafka_topic_name(const struct bench_kafka_options *o, unsigned idx, char *ret_name);
/* Creates what is missing and waits until every partition has a leader. ret_partitions: of each topic. */
int bench_kafka_set_up(const struct bench_kafka_options *o, int32_t *ret_partitions);
/* Creates one topic. Answers 1 when it was there already. */
int bench_kafka_topic_create(struct bench_kafka_wire *w, const char *name, int32_t partitions);
/* Offsets of some partitions, waiting for their leader where it must: time -2 the first, -1 the next, else that of the first
 * record that is not older (-1: none). */
int bench_kafka_offsets(struct bench_kafka_wire *w, const char *topic, const int32_t *partitions, int32_t count,
                        int64_t time, int64_t *ret_offsets);
/* Waits for hold_s, and says so on stderr, so that somebody can look at the server. */
void bench_kafka_hold(const struct bench_kafka_options *o);
/* Deletes all topics, unless they are to be kept. */
int bench_kafka_tear_down(const struct bench_kafka_options *o);

#endif
