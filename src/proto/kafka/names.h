/* names: which stream a topic is: by its name, which the core is asked for once, or by its id, which says it itself.
 *
 * A connection remembers the streams it has asked for. What it remembers can be out of date: a stream that has been deleted
 * is unknown to the core by then, and kafka_topic_forget makes the next request ask again. When any stream is altered, by whomever,
 * all is forgotten with the next lookup (hub_streams_changed).
 * Topic ids are UUIDs made of the store's own and the stream's number, so that a topic that is made again has another.
 * Thread: the loop's.
 */
#ifndef MILLRACE_PROTO_KAFKA_NAMES_H
#define MILLRACE_PROTO_KAFKA_NAMES_H

#include "proto/kafka/config_table.h"
#include "proto/kafka/kafka_int.h"

#define KAFKA_TOPIC_LEN_MAX 255u /* a stream is a queue, and may have a longer name than Kafka gives a topic */

struct kafka_topic {
    struct slice name;
    uint64_t id; /* the stream's */
    uint32_t partitions;
    bool compacts; /* records without key are refused */
    struct kafka_batch_rules rules;
    uint8_t bytes[];
};

void kafka_topics_init(struct kafka *k);
void kafka_topics_fini(struct kafka *k);
/* A loan until the next lookup, note or forget. NULL: not known (yet). */
const struct kafka_topic *kafka_topic_find(struct kafka *k, struct slice name);
/* The one of that number, if the connection knows it; NULL. */
const struct kafka_topic *kafka_topic_of_stream(struct kafka *k, uint64_t id);
void kafka_topic_forget(struct kafka *k, struct slice name);
void kafka_topic_forget_stream(struct kafka *k, uint64_t id);
/* Remembers the rows of an answer to STREAM_LIST. */
void kafka_topics_note(struct kafka *k, const struct answer *answer);

void kafka_topic_uuid(const struct kafka *k, uint64_t id, struct kafka_uuid *ret);
/* False: it is not of this store. */
MUST_USE bool kafka_topic_of_uuid(const struct kafka *k, const struct kafka_uuid *uuid, uint64_t *ret_id);
bool kafka_uuid_is_zero(const struct kafka_uuid *uuid);

/* Asks the core for those of many names, or ids, that are not remembered. In a handler's go:
 *     if (kafka_lookup(k, r, &state->lookup) == KAFKA_AGAIN) return KAFKA_AGAIN;
 * and while !lookup.done its effects go to kafka_lookup_effect. Afterwards kafka_topic_find knows what there is. */
struct kafka_lookup {
    struct slice *missing; /* names; in the arena. NULL: ids */
    uint64_t *ids;
    uint32_t count, asked, answered;
    bool done;
};

/* names: loans as long as the lookup lasts. False: no memory, and the connection has been dropped. */
MUST_USE bool kafka_lookup_init(struct kafka *k, struct kafka_request *r, const struct slice *names, size_t count,
                                struct kafka_lookup *ret);
MUST_USE bool kafka_lookup_init_ids(struct kafka *k, struct kafka_request *r, const uint64_t *ids, size_t count,
                                    struct kafka_lookup *ret);
enum kafka_progress kafka_lookup(struct kafka *k, struct kafka_request *r, struct kafka_lookup *l);
void kafka_lookup_effect(struct kafka *k, struct kafka_lookup *l, struct effect *e);

#endif
