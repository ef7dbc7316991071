/* fetch_session: which partitions a client's incremental fetches (KIP-227) are about, so that it need not name them again.
 *
 * One a connection at most, which the next one replaces, and it ends with the connection: Kafka keeps sessions beyond that, but a
 * client begins anew when it has lost its connection, and one that asks for a session it does not have is told so and begins anew,
 * too. The core drives out what there are too many of (core/stream_fetch_session.c).
 * What partitions have to say is the core's (core/fetch.h); here are their names, by slot.
 * Life cycle: kafka_fetch_session_open ▸ FETCH_OPEN is answered with an id, or _end ▸ _note, _forget ▸ FETCH_NEXT … ▸ _end. The
 * loop's thread.
 */
#ifndef MILLRACE_PROTO_KAFKA_FETCH_SESSION_H
#define MILLRACE_PROTO_KAFKA_FETCH_SESSION_H

#include "proto/kafka/kafka_int.h"

struct kafka_fetch_topic {
    struct kafka_uuid uuid; /* of sessions with topic ids, … */
    struct slice name;      /* … and of the others */
    uint32_t number, parts;
    uint8_t bytes[];
};

struct kafka_fetch_part {
    uint64_t key;
    struct kafka_fetch_topic *topic;
    uint32_t slot;
    int32_t partition;
    bool lost; /* its topic was unknown, by its name: it may have been made since */
    /* as asked for last */
    int32_t epoch, bytes_max;
    int64_t offset;
};

struct kafka_fetch_session {
    int32_t id;    /* 0: not answered yet */
    int32_t epoch; /* of the next request */
    bool by_id;
    bool busy;         /* a request of it is under way: the next one waits for that */
    struct map topics; /* name or uuid → topic */
    struct map parts;  /* topic's number and partition → part */
    struct kafka_fetch_part **slots;
    uint32_t slot_count, slot_max, lost, topic_last;
    uint32_t free_from; /* slots below are taken */
    uint64_t bytes;     /* roughly: the core has a limit for all of them */
};

/* The connection's session from now on, without parts. NULL: the connection has been dropped. */
struct kafka_fetch_session *kafka_fetch_session_open(struct kafka *k, bool by_id);
void kafka_fetch_session_end(struct kafka *k);              /* none is nothing */
void kafka_fetch_session_gone(struct kafka *k, int32_t id); /* the core has none of that id any more */
/* The part of that topic (name, or id with by_id) and partition, made if need be. NULL: the connection has been dropped. */
struct kafka_fetch_part *kafka_fetch_session_part(struct kafka *k, struct slice name, const struct kafka_uuid *uuid,
                                                  int32_t partition);
/* NULL: it has none. */
struct kafka_fetch_part *kafka_fetch_session_find(const struct kafka_fetch_session *s, struct slice name,
                                                  const struct kafka_uuid *uuid, int32_t partition);
void kafka_fetch_session_forget(struct kafka_fetch_session *s, struct kafka_fetch_part *part);
void kafka_fetch_session_lost(struct kafka_fetch_session *s, struct kafka_fetch_part *part, bool lost);
/* After `epoch`; never 0 again. */
int32_t kafka_fetch_epoch_next(int32_t epoch);

#endif
