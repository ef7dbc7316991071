/* model: what a client may expect of the broker: per queue and message what it knows, and the comparison after a crash.
 *
 * Queues are a fixed set of places. A message's state in a place grows from what the client sent and was told; never from
 * the broker's insides. Life cycle: model_init → (model_published, …) → model_crashed + model_found … + model_settle → on.
 * One thread. A violation is a sentence in model->wrong; the first one stays.
 */
#ifndef MILLRACE_TESTS_SIM_MODEL_H
#define MILLRACE_TESTS_SIM_MODEL_H

#include "base/types.h"

enum place {
    PLACE_PLAIN,    /* q0 */
    PLACE_FAN,      /* q1: bound to the fanout too */
    PLACE_SHORT,    /* q2: max-length 3, dead letters to q4 */
    PLACE_TTL,      /* q3: message-ttl, dead letters to q4 */
    PLACE_DEAD,     /* q4 */
    PLACE_DELAYED,  /* q5: bound to the delayed exchange */
    PLACE_PRIORITY, /* q6 */
    PLACE_QUORUM,   /* q7: transient messages are durable here */
    PLACE_ONCE,     /* q8: deduplicates, for longer than a chain lives */
    PLACE_RETRY,    /* q9: delays what comes back */
    PLACE_FED,      /* q10: fed from both streams, holds little at a time */
    PLACE_WAITING,  /* the broker's hidden queue of delayed messages */
    PLACE_LOG,      /* s0: a stream of two partitions */
    PLACE_KEPT,     /* s1: a stream with retention */
    PLACE_COUNT
};

enum known {
    KNOWN_SENT = 1,       /* may be there */
    KNOWN_SURE = 2,       /* was durable there: confirmed, delivered, or found after a crash */
    KNOWN_LEAVING = 4,    /* something was sent, or may happen, that takes it away */
    KNOWN_GONE = 8,       /* is out for ever */
    KNOWN_DELIVERED = 16, /* was seen by a consumer: comes with redelivered=true from now on */
    KNOWN_FOUND = 32,     /* scratch of the comparison */
    KNOWN_TAKEN = 64,     /* of a pair of places: it was acknowledged in one of them */
};

#define MODEL_MESSAGES 8192
#define MODEL_TX 64
#define MODEL_KEYS 12
#define MODEL_LOGS 2       /* places from PLACE_LOG on */
#define MODEL_PARTITIONS 2 /* of a stream, at most */

struct message {
    uint64_t order; /* rank of the command that enqueued it; 0: none yet */
    uint32_t len;
    bool persistent;
    uint8_t known[PLACE_COUNT];
    uint32_t gone_life[PLACE_COUNT];
};

struct model_tx {
    uint64_t published[MODEL_TX];
    enum place where[MODEL_TX];
    unsigned published_count;
    uint64_t acked[MODEL_TX];
    enum place acked_where[MODEL_TX];
    unsigned acked_count;
};

/* What is known of a partition of a stream: which message stands at an offset, once somebody has seen it there. */
struct model_log {
    uint64_t start, end; /* nothing below comes back; everything below is durable */
    uint64_t next;       /* scratch of the comparison: the offset that must come */
    uint64_t found_order;
    uint64_t ids[MODEL_MESSAGES];
};

struct model {
    struct message messages[MODEL_MESSAGES]; /* by id, from 1 */
    uint64_t count, order;
    uint32_t life;
    bool exists[PLACE_COUNT];       /* after a declare-ok */
    bool doubtful[PLACE_COUNT];     /* a declare or delete is on its way */
    bool unbound[PLACE_COUNT];      /* its binding may have been lost with a crash */
    bool one_may_lack[PLACE_COUNT]; /* a get without ack is on its way */
    struct model_tx open, committing;
    bool commit_sent;
    uint64_t found_order[PLACE_COUNT]; /* order of the last message found, for I3 */
    struct model_key {
        uint64_t owner;  /* the message that was accepted with it, or is on its way; 0: none */
        uint32_t number; /* grows when it cannot be known whether it is free: nobody uses it again then */
    } keys[MODEL_KEYS];
    struct model_log logs[MODEL_LOGS][MODEL_PARTITIONS];
    char wrong[400];
    /* counts for the report */
    uint64_t compared, sure_checked, gone_checked, groups_checked, tx_checked, duplicates;
    uint64_t records_found, records_trimmed, feeds_checked;
};

void model_init(struct model *m);
void model_fault(struct model *m, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The body of message id: id, CRC, filler. Returns its length. */
size_t model_body(uint64_t id, uint32_t len, uint8_t *ret);
/* The id of a body that is whole; 0: it is not what anybody published. */
uint64_t model_identify(struct model *m, struct slice body);

/* A new message for the places (bit set), by a publish outside a transaction (or held in one: in_tx). */
uint64_t model_published(struct model *m, unsigned places, bool persistent, uint32_t len, bool in_tx);
/* The same for the place that deduplicates, with a key: a duplicate goes nowhere. ret_key: what to send. */
uint64_t model_published_once(struct model *m, unsigned slot, bool persistent, uint32_t len, uint32_t *ret_key);
void model_confirmed(struct model *m, uint64_t id);
/* A delivery; place: the consumer's queue. */
void model_delivered(struct model *m, enum place place, struct slice body, bool redelivered, uint64_t *ret_id);
void model_leaving(struct model *m, enum place place, uint64_t id);
void model_gone(struct model *m, enum place place, uint64_t id);
void model_all_leaving(struct model *m, enum place place);
void model_all_gone(struct model *m, enum place place);
void model_tx_acked(struct model *m, enum place place, uint64_t id);
void model_commit(struct model *m);
void model_committed(struct model *m);
void model_rolled_back(struct model *m);

/* After a crash: begin, one call per message found in place, in queue order, then settle: compares and takes over. */
void model_compare(struct model *m);
void model_found(struct model *m, enum place place, struct slice body);
void model_settle(struct model *m, const bool exists[PLACE_COUNT]);

/* ---- streams (tests/sim/model_log.c) ---- */

/* Of a recovered broker, within the comparison: a partition's range, then its records in order. */
void model_log_range(struct model *m, enum place place, unsigned partition, uint64_t start, uint64_t end);
void model_log_found(struct model *m, enum place place, unsigned partition, uint64_t offset, struct slice body);
/* After the last record of all partitions and of the fed queue (with what its cursor has before it), before model_settle. */
void model_log_settle(struct model *m, const bool exists[PLACE_COUNT]);
/* A consumer got the record at the offset. Returns its id; 0: a violation. */
uint64_t model_log_delivered(struct model *m, enum place place, unsigned partition, uint64_t offset, struct slice body);
void model_log_deleting(struct model *m, enum place place);
void model_log_deleted(struct model *m, enum place place);
/* All that could be fed was taken: nothing may be missing. */
void model_fed(struct model *m);

/* Of a broker that runs on: model_compare, model_seen per message, then the check that a commit which got no answer took
 * effect as a whole or not at all. Takes nothing over. */
void model_seen(struct model *m, enum place place, struct slice body);
void model_commit_is_whole(struct model *m, const bool exists[PLACE_COUNT]);

#endif
