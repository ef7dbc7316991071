/* kafka_chain: random work of Kafka's clients beside a world's AMQP client, and what they know from life to life. See sim.c.
 *
 * An idempotent producer, two transactional ones that commit and abort and put offsets into their transactions, and a queue that is fed
 * from their topic. After a death a producer goes on as it was, with the batches that were not answered, or as a new instance. Plain
 * data: a copy of it belongs to a copy of the disk. One thread.
 * Life cycle: kafka_chain_furnish, once → { kafka_chain_begin ▸ kafka_chain_op* ▸ kafka_chain_end }* of each life → kafka_chain_drained.
 */
#ifndef MILLRACE_TESTS_SIM_KAFKA_CHAIN_H
#define MILLRACE_TESTS_SIM_KAFKA_CHAIN_H

#include "kafka_guest.h"

#define KAFKA_PARTS 2u
#define KAFKA_OFFSETS 8192u /* of a partition */
#define KAFKA_BATCHES 8192u
#define KAFKA_TXS 2048u
#define KAFKA_WRITERS 3u /* 0 is idempotent, the others are transactional */
#define KAFKA_FLIGHT 5u  /* batches without an answer, of a writer in a partition */

struct kafka_batch {
    int64_t pid;
    int32_t sequence;
    uint32_t tx; /* 0: none */
    int16_t epoch;
    uint8_t writer, part, count;
    bool given_up; /* its writer will not send it again, and it was not there */
    bool renewed;  /* its writer will not send it again */
};

struct kafka_tx {
    uint8_t state; /* enum tx_state */
    uint8_t writer;
    bool offset_answered;
    int64_t offset; /* that was committed with it; 0: none */
};

struct kafka_writer {
    int64_t pid; /* -1: none yet */
    int16_t epoch;
    uint8_t phase; /* enum phase */
    bool commit;   /* with PHASE_ENDING */
    int32_t sequence[KAFKA_PARTS];
    uint32_t unanswered[KAFKA_PARTS][KAFKA_FLIGHT], flying[KAFKA_PARTS];
    uint32_t tx;
    int64_t offset, offset_sure; /* of its group: the highest that was sent; what is there */
};

struct kafka_chain {
    struct kafka_batch batches[KAFKA_BATCHES]; /* from 1 */
    struct kafka_tx txs[KAFKA_TXS];            /* from 1 */
    uint32_t owner[KAFKA_PARTS][KAFKA_OFFSETS];
    uint32_t end[KAFKA_PARTS], start[KAFKA_PARTS], start_asked[KAFKA_PARTS], stable[KAFKA_PARTS];
    struct kafka_writer writers[KAFKA_WRITERS];
    uint32_t batch_count, tx_count;
    bool stopped; /* for the rest of this life */
    uint64_t produced, resent, commits, aborts, compared;
};

/* On a connected world: a topic and the queue that it feeds. */
void kafka_chain_furnish(struct kafka_chain *k, struct world *w);
/* Connects and compares what is there with what is known. */
void kafka_chain_begin(struct kafka_chain *k, struct guest *g, struct world *w);
/* Without DeleteRecords in a world that runs_sql: a query that has not read what goes fails. */
void kafka_chain_op(struct kafka_chain *k, struct guest *g);
/* By the last comparison: a reader of committed records sees that offset. */
bool kafka_chain_committed(const struct kafka_chain *k, unsigned part, uint64_t offset);
/* As far as is known: no record of a client's stands there. */
bool kafka_chain_marker(const struct kafka_chain *k, unsigned part, uint64_t offset);
/* The queue gets every record that readers of committed ones see. */
void kafka_chain_drained(struct kafka_chain *k, struct guest *g);

#endif
