/* transactions: what the handlers of transactions share: the commands of core/txn.h, and what their results are called.
 * Thread: the loop's. */
#ifndef MILLRACE_PROTO_KAFKA_TRANSACTIONS_H
#define MILLRACE_PROTO_KAFKA_TRANSACTIONS_H

#include "core/txn.h"
#include "proto/kafka/kafka_int.h"

struct kafka_txn_said {
    enum txn_result result;
    uint64_t producer;
    uint16_t epoch;
};

/* fenced_is_known: this version of the request knows PRODUCER_FENCED. */
int16_t kafka_txn_error(enum txn_result result, bool fenced_is_known);
/* False: the connection has been dropped. The effect stays the caller's. */
MUST_USE bool kafka_txn_answer(struct kafka *k, const struct effect *e, struct kafka_txn_said *ret);
/* KAFKA_AGAIN: no slot, or no memory, and then the connection has been dropped. */
enum kafka_progress kafka_txn_ask(struct kafka *k, struct kafka_request *r, enum command_type type, struct slice name,
                                  struct slice other, uint64_t number, uint32_t flags);
/* Who asks, as the commands of transactions want it: 10 bytes. */
void kafka_txn_producer(struct writer *w, int64_t producer, int16_t epoch);

#endif
