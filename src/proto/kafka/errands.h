/* errands: what a request wants the core to do for each of its items, one command each, answered in their order.
 *
 * A handler says which items are wanted, then in its go:  if (kafka_errands(k, r, &e) == KAFKA_AGAIN) return KAFKA_AGAIN;
 * and in its effect: kafka_errands_effect. The answer waits for what all of them depend on. Thread: the loop's.
 */
#ifndef MILLRACE_PROTO_KAFKA_ERRANDS_H
#define MILLRACE_PROTO_KAFKA_ERRANDS_H

#include "core/stream_admin.h"
#include "proto/kafka/kafka_int.h"

struct kafka_errand_kind {
    enum command_type type;
    /* Operands of the i-th item, and the command's channel. NULL: no memory. */
    struct ask *(*ask)(struct kafka *k, struct kafka_request *r, size_t i, uint16_t *ret_channel);
    /* What became of it. */
    void (*done)(struct kafka *k, struct kafka_request *r, size_t i, const struct answer *answer);
};

struct kafka_errands {
    const struct kafka_errand_kind *kind;
    uint8_t *state; /* by item: what errands.c makes of it; 0: nothing is wanted */
    size_t count, sent, answered;
};

/* Nothing is wanted yet. False: no memory, and the connection has been dropped. */
MUST_USE bool kafka_errands_init(struct kafka *k, struct kafka_request *r, const struct kafka_errand_kind *kind,
                                 size_t count, struct kafka_errands *ret);
void kafka_errand_want(struct kafka_errands *e, size_t i);
enum kafka_progress kafka_errands(struct kafka *k, struct kafka_request *r, struct kafka_errands *e);
void kafka_errands_effect(struct kafka *k, struct kafka_request *r, struct kafka_errands *e, struct effect *effect);

/* A sentence in the arena; ptr NULL: no memory, and the connection has been dropped. */
struct slice kafka_text(struct kafka *k, struct kafka_request *r, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Of each name: 0 there is no other like it, 1 it is the first of several, 2 a later one. NULL: no memory, as above. */
enum kafka_double { KAFKA_UNIQUE, KAFKA_FIRST_OF_SEVERAL, KAFKA_LATER };
MUST_USE uint8_t *kafka_doubles(struct kafka *k, struct kafka_request *r, const struct slice *names, size_t count);

#endif
