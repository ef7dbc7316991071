/* keyed_chain: a compacted topic beside the Kafka clients' own: updates of few keys and null values, while the broker compacts. See sim.c.
 *
 * Plain data: a copy of it belongs to a copy of the disk. One thread.
 * Life cycle: keyed_chain_furnish, once → { keyed_chain_compare ▸ { keyed_chain_op | keyed_chain_compare }* }* of each life.
 */
#ifndef MILLRACE_TESTS_SIM_KEYED_CHAIN_H
#define MILLRACE_TESTS_SIM_KEYED_CHAIN_H

#include "kafka_chain.h"

#define KEYED_KEYS 20u
#define KEYED_RECORDS 4096u
#define KEYED_OFFSETS 4096u

struct keyed_record {
    uint8_t key;
    bool null;
    uint16_t len;
};

struct keyed_chain {
    struct keyed_record records[KEYED_RECORDS]; /* by id, from 1 */
    uint32_t count;
    uint32_t owner[KEYED_OFFSETS]; /* the id of the record that was seen there, or answered; 0: none was */
    uint32_t end;
    uint64_t updates, nulls, compared, missing, nulls_missing;
};

/* On a connected world: the topic. */
void keyed_chain_furnish(struct world *w);
/* Updates some keys. k: the Kafka clients, who stop with this one when the connection is lost. */
void keyed_chain_op(struct keyed_chain *c, struct kafka_chain *k, struct guest *g);
/* Reads all that is there: what must be, and nothing else. */
void keyed_chain_compare(struct keyed_chain *c, struct kafka_chain *k, struct guest *g);

#endif
