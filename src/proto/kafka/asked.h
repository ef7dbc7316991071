/* asked: what Fetch, ListOffsets and OffsetForLeaderEpoch have in common: partitions are looked up by name or id, and asked of the
 * core by one block (core/fetch.h).
 *
 * In a handler: r->state = kafka_asked_new ▸ kafka_asked_go, with a function that fills in the rows ▸ kafka_asked_effect, which says
 * when the block is answered ▸ kafka_asked_drop. Thread: the loop's.
 */
#ifndef MILLRACE_PROTO_KAFKA_ASKED_H
#define MILLRACE_PROTO_KAFKA_ASKED_H

#include "core/fetch.h"
#include "proto/kafka/kafka_int.h"
#include "proto/kafka/names.h"

struct kafka_asked {
    struct kafka_lookup lookup;
    enum fetch_kind kind;
    uint32_t count;      /* rows */
    struct fetch *fetch; /* NULL while the core has it */
    uint32_t lent;       /* rows whose pieces have been looked at */
    uint8_t op;          /* enum fetch_session_op */
};

/* names: of topics, loans as long as the request lives. NULL: the connection has been dropped. */
MUST_USE struct kafka_asked *kafka_asked_new(struct kafka *k, struct kafka_request *r, enum fetch_kind kind,
                                             size_t rows, const struct slice *names, size_t name_count);
/* fill: sets what is asked. Again and again until it says KAFKA_SENT. */
MUST_USE enum kafka_progress kafka_asked_go(struct kafka *k, struct kafka_request *r,
                                            void (*fill)(struct kafka *k, struct kafka_request *r, struct fetch *f));
/* The block with its answers, which stays the request's; NULL: not yet, or the connection has been dropped. */
struct fetch *kafka_asked_effect(struct kafka *k, struct kafka_request *r, struct effect *e);
void kafka_asked_drop(struct kafka *k, struct kafka_request *r);

/* The stream of that name, 0: there is none. */
uint64_t kafka_asked_stream(struct kafka *k, struct slice name);
/* Kafka's error of a row. What is unknown is forgotten, so that the next request looks it up again. name.ptr NULL: the topic was
 * named by its id. */
int16_t kafka_asked_error(struct kafka *k, const struct fetch_row *row, struct slice name);

#endif
