/* retry: messages that a consumer gave back and that are not delivered again before their time (`x-delayed-retry-*`,
 * docs/queue-arguments.md). They are in memory, as they were while they were unacknowledged.
 *
 * Life cycle of a delayed entry: retry_park (from the unacknowledged ones, or a lane) → its time comes, and it goes to its
 * place by position, or retry_leave. Core thread only.
 */
#ifndef MILLRACE_CORE_RETRY_H
#define MILLRACE_CORE_RETRY_H

#include "base/list.h"
#include "base/wheel.h"

struct broker;
struct entry;
struct queue;
struct queue_rules;

/* How a message comes back to its queue. */
enum back {
    BACK_NOT,      /* it does not */
    BACK_RETURNED, /* nothing was wrong with it: nack, recover */
    BACK_FAILED,   /* reject, and the end of its channel */
};

enum retry_type { RETRY_UNSET, RETRY_DISABLED, RETRY_ALL, RETRY_FAILED, RETRY_RETURNED };

struct retry_item {
    wall_t due;
    struct entry *entry;
};

struct retry { /* of a queue; zero: nothing is delayed, nor was */
    struct list entries;
    struct retry_item *heap; /* the first to come is first; an entry knows its index */
    uint32_t count, max;
    uint64_t bytes; /* of bodies */
    struct timer timer;
};

bool retry_enabled(const struct queue_rules *rules);
/* When a message that has just come back for the returns-th time may be delivered again; 0: at once. */
wall_t retry_due(const struct broker *b, const struct queue *q, enum back back, uint32_t returns);
/* The entry leaves where it is and waits. Writes no record. False: no memory, nothing has changed. */
MUST_USE bool retry_park(struct broker *b, struct entry *e, wall_t due);
void retry_leave(struct broker *b, struct entry *e); /* it waits no more, and is in no list */
wall_t retry_due_of(const struct entry *e);          /* of one that waits */
struct list *retry_list(const struct queue *q);      /* those that wait; NULL: none ever did */
void retry_drop(struct broker *b, struct queue *q);  /* the queue goes: frees all */

void retry_check(const struct queue *q);

#endif
