/* What the files of `millrace bench amqp` share: the options and the scenarios. One thread, the caller's. */
#ifndef MAIN_BENCH_AMQP_INT_H
#define MAIN_BENCH_AMQP_INT_H

#include "command.h"
#include "report.h"
#include "wire.h"

#include <stdbool.h>
#include <stdint.h>

struct bench_options {
    struct bench_uri uri;
    unsigned producers, consumers, queues, connections, channels, threads;
    size_t body_bytes;
    uint32_t window; /* unconfirmed publishes per producer; 0: no confirms */
    double rate;     /* messages per second over all producers; 0: as fast as it goes */
    double duration_s, warmup_s, drain_s, hold_s;
    uint64_t messages; /* over all producers, or without producers for each consumer; 0: run for duration_s */
    bool persistent, mandatory, auto_ack;
    uint16_t prefetch;  /* 0: no limit */
    uint32_t ack_every; /* 1: every delivery by itself; more: one ack with multiple for so many */
    uint32_t gather_us; /* least time between two rounds of the event loop */
    char queue[200];
    bool queue_kept;    /* neither deleted at the end nor made up by us */
    const char *offset; /* of consumers in a stream, or NULL */
    struct bench_queue_kind queue_kind;
    struct bench_wire_limits limits;
    const char *data_dir, *probe_dir;
    uint32_t run_id;
    bool synthetic; /* the sink makes the deliveries up, there is nothing to compare them with */
    bool json, quiet, progress;
};

/* Every scenario adds rows to the report and answers an exit code; a failure is already printed on stderr. */
int bench_run_publish_consume(const struct bench_options *o, struct bench_report *r);
int bench_steps_declare(const struct bench_options *o, struct bench_report *r);
int bench_steps_connect(const struct bench_options *o, struct bench_report *r);
int bench_steps_latency(const struct bench_options *o, struct bench_report *r);
int bench_steps_get(const struct bench_options *o, struct bench_report *r);
int bench_steps_fdatasync(const struct bench_options *o, struct bench_report *r);

/* The name of queue idx, into a buffer of BENCH_QUEUE_NAME_BYTES. */
enum { BENCH_QUEUE_NAME_BYTES = 224 };
void bench_queue_name(const struct bench_options *o, unsigned idx, char *ret_name);
/* Declares (and empties) or deletes all queues over a connection of its own. */
int bench_queues_set_up(const struct bench_options *o);
int bench_queues_tear_down(const struct bench_options *o);

#endif
