/* share_chain: two members of a share group, each with a connection of its own, over the topic of the Kafka clients. See sim.c.
 *
 * They fetch, acknowledge record by record, drop their connections, end their sessions, and let locks run out; the topic grows, has markers of
 * transactions in it and is cut. What each record has gone through is known from life to life, as far as anybody can know it. Plain data: a
 * copy of it belongs to a copy of the disk. One thread.
 * Life cycle: share_chain_furnish, once → { share_chain_begin ▸ share_chain_op* ▸ share_chain_end }* of each life; share_chain_drained in the last.
 */
#ifndef MILLRACE_TESTS_SIM_SHARE_CHAIN_H
#define MILLRACE_TESTS_SIM_SHARE_CHAIN_H

#include "kafka_chain.h"

#define SHARE_MEMBERS 2u

struct share_record {
    uint8_t low, high; /* deliveries that the broker may remember: what comes next has one more */
    uint8_t sure;      /* it remembers at least so many after a death */
    uint8_t state;     /* enum share_state */
    uint8_t member;    /* who has it */
    bool maybe_done;   /* it may be done with */
    bool given;        /* somebody has had it once */
    mono_t after, by;  /* it was acquired between these */
};

struct share_chain {
    struct share_record records[KAFKA_PARTS][KAFKA_OFFSETS];
    struct kafka_uuid topic;
    unsigned jumps;
    uint64_t acquired, again, accepted, expired, checked;
};

struct share_member {
    struct guest guest;
    bool connected;
    uint32_t flying; /* fetches without an answer */
    int32_t epoch, session;
    mono_t beaten;
};

struct share_life {
    struct share_chain *chain; /* NULL: it has not begun */
    struct kafka_chain *kafka;
    struct world *w;
    struct share_member members[SHARE_MEMBERS];
};

/* On a connected world with the Kafka clients' topic: what is set of the group. */
void share_chain_furnish(struct share_chain *c, struct world *w);
void share_chain_begin(struct share_chain *c, struct share_life *l, struct kafka_chain *k, struct world *w);
void share_chain_op(struct share_life *l);
/* A member accepts all that there is: then every record that is in the topic was given to somebody. */
void share_chain_drained(struct share_life *l);
void share_chain_end(struct share_life *l);

#endif
