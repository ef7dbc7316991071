/* query_chain: continuous SQL beside a world's clients, and what it must have given from life to life. See sim.c.
 *
 * Two queries read the topic of the Kafka clients, of which readers see committed records only: a filter into a queue, and sums by partition, which are state
 * with snapshots, into another one. The rows of either are a function of the committed records in their order, so after any death a queue holds the first
 * rows of that, each once; in the end all of them.
 * Life cycle: query_chain_furnish, once → { query_chain_started ▸ query_chain_compare } of each life → query_chain_drained.
 * Plain data: a copy of it belongs to a copy of the disk. One thread.
 */
#ifndef MILLRACE_TESTS_SIM_QUERY_CHAIN_H
#define MILLRACE_TESTS_SIM_QUERY_CHAIN_H

#include "kafka_chain.h"

#define QUERY_CHAIN_QUEUES 2u

struct query_chain {
    uint32_t sure[QUERY_CHAIN_QUEUES]; /* rows that were there when a life began: so many stay */
    uint64_t compared;
};

/* On a connected world that runs_sql and has the Kafka clients' topic: the statements. */
void query_chain_furnish(struct query_chain *q, struct world *w);
/* After a start, when nothing has happened yet: what was there has stayed. */
void query_chain_started(struct query_chain *q, struct world *w);
/* After kafka_chain_compare, by what that has found. */
void query_chain_compare(struct query_chain *q, const struct kafka_chain *k, struct world *w);
/* The queries come to the end of what committed readers see. */
void query_chain_drained(struct query_chain *q, const struct kafka_chain *k, struct world *w);

#endif
