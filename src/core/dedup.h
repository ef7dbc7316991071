/* dedup: the keys of what a queue accepted lately (`x-message-deduplication`), so that a duplicate is confirmed to its
 * publisher but not enqueued. docs/decisions/0004 says what counts as a duplicate, and for how long.
 *
 * A key is the value of one header of the message. It counts until a time, or, without `x-cache-ttl`, while its message is
 * in the queue. Life cycle of a window: made by dedup_reserve, or by a replay → dedup_drop, at the latest with its queue.
 * Core thread only.
 */
#ifndef MILLRACE_CORE_DEDUP_H
#define MILLRACE_CORE_DEDUP_H

#include "base/list.h"

#define DEDUP_HEADER "x-deduplication-header" /* of messages, when the queue names no other */
#define DEDUP_KEYS_DEFAULT 100000
#define DEDUP_KEYS_MAX (1 << 24)

struct broker;
struct entry;
struct msg;
struct queue;
struct route;

struct key_value {
    bool has; /* else the message has no key for this queue and is never a duplicate */
    uint64_t hash[2];
    wall_t until; /* WALL_NEVER: while the message is in the queue */
};

struct key { /* that a queue has accepted */
    struct list link;
    struct key *next; /* in its bucket */
    struct key_value value;
    uint64_t position; /* of its message */
    bool journalled;   /* so is its message */
    uint32_t kept;     /* the last purge that it outlived, being unacknowledged: window.purges */
};

struct window {
    struct list keys; /* oldest first */
    struct key ***segments;
    uint32_t segment_max, buckets, base; /* base: the power of two at or below buckets */
    uint32_t count, present;             /* present: of them those that count while their message is there */
    uint64_t header;                     /* hash of the header's name that the keys come from */
    uint64_t
        purged_upto; /* what counted by being there, and lay before this, is gone, but for what the last purge left */
    uint32_t purges;
    bool unsorted; /* replay: not in the order of positions */
};

/* Room for the keys of msg in all queues of the route, and their windows. With sum nothing is reserved but the windows, and
 * the keys are added to it: of a transaction. False: no memory. */
MUST_USE bool dedup_reserve(struct broker *b, const struct msg *msg, const struct route *route, uint32_t *sum);
MUST_USE bool dedup_reserve_keys(struct broker *b, uint32_t sum);
/* What the queue takes for the message's key, when it is accepted at that time. */
struct key_value dedup_key(const struct queue *q, const struct msg *msg, wall_t at);
/* from: the message is moved from there (NULL: published). What comes back by a dead-letter exchange to a queue that it died
 * in is no duplicate of itself. */
bool dedup_knows(struct broker *b, struct queue *q, const struct msg *msg, const struct key_value *value,
                 const struct entry *from);
/* The same, and it is counted: the message is dropped. */
bool dedup_is_duplicate(struct broker *b, struct queue *q, const struct msg *msg, const struct key_value *value,
                        const struct entry *from);
/* The message is accepted. Room was reserved. */
void dedup_accept(struct broker *b, struct queue *q, const struct key_value *value, uint64_t position, bool journalled);
void dedup_left(struct broker *b, const struct entry *e); /* before the entry leaves its queue for good */
void dedup_purged(struct broker *b, struct queue *q);     /* what waited is gone */
void dedup_drop(struct broker *b, struct queue *q);       /* the whole window */
bool dedup_by_presence(const struct queue *q);            /* a key counts because a message lies where it came */
void dedup_rules_changed(struct broker *b, struct queue *q);

/* Replay: a key that was journalled. False: no memory. */
MUST_USE bool dedup_restore(struct broker *b, struct queue *q, const struct key_value *value, uint64_t position);
/* After it: forgets what no longer counts. alive: is a message at that position? */
MUST_USE bool dedup_settle(struct broker *b, struct queue *q, bool (*alive)(struct queue *q, uint64_t position));

void dedup_check(struct broker *b, const struct queue *q); /* asserts the invariants of the window */

#endif
