/* A Kafka server thread inside the process that does the least a broker can do: the load generator's own ceiling, and for
 * its tests a broker that makes mistakes on demand.
 *
 * Life cycle: bench_kafka_sink_start → clients connect to 127.0.0.1 at the returned port → bench_kafka_sink_stop.
 * Thread: starts one of its own; both calls from the same caller thread. Errors: start answers NULL and fills error.
 *
 * It knows every topic, each with the partitions it was started with, and keeps at most `keep_bytes` of batches in memory;
 * what comes later is acknowledged and forgotten. All groups are one group, of one member.
 */
#ifndef MAIN_BENCH_KAFKA_SINK_H
#define MAIN_BENCH_KAFKA_SINK_H

#include <stddef.h>
#include <stdint.h>

enum bench_kafka_fault {
    BENCH_FAULT_NONE,
    BENCH_FAULT_LOSE,   /* acknowledges a batch and keeps it not, but gives its offsets to nobody else */
    BENCH_FAULT_FORGET, /* the same, and gives its offsets to the next */
    BENCH_FAULT_DOUBLE, /* keeps a batch twice */
    BENCH_FAULT_REPEAT, /* sends a batch twice in an answer */
    BENCH_FAULT_FLIP,   /* turns a bit of a record over */
    BENCH_FAULT_STALE,  /* acknowledges a batch with an offset already given */
    BENCH_FAULT_REFUSE, /* answers NOT_ENOUGH_REPLICAS */
};

struct bench_kafka_sink_kind {
    int32_t partitions;
    size_t keep_bytes;
    enum bench_kafka_fault fault; /* what happens to the third batch of a partition */
};

struct bench_kafka_sink;

struct bench_kafka_sink *bench_kafka_sink_start(const struct bench_kafka_sink_kind *kind, unsigned *ret_port,
                                                char *error, size_t error_cap);
/* Closes what is still connected. Writes the thread's CPU time when asked. */
void bench_kafka_sink_stop(struct bench_kafka_sink *sink, uint64_t *ret_cpu_ns);

#endif
