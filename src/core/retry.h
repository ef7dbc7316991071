/* retry: messages that a consumer gave back and that are not delivered again before their time (`x-delayed-retry-*`,
 * docs/queue-arguments.md). What is too much for memory waits in pages, as delayed messages do (delay_page.c, decision 0019).
 *
 * Life cycle of a delayed entry: retry_park (from the unacknowledged ones, or a lane) → [a page →] its time comes, and it goes to
 * its place by position. Core thread only.
 */
#ifndef MILLRACE_CORE_RETRY_H
#define MILLRACE_CORE_RETRY_H

#include "base/list.h"
#include "base/wheel.h"

struct broker;
struct delay;
struct entry;
struct lane;
struct queue;
struct queue_rules;

/* How a message comes back to its queue. */
enum back {
    BACK_NOT,      /* it does not */
    BACK_RETURNED, /* nothing was wrong with it: nack, recover */
    BACK_FAILED,   /* reject, and the end of its channel */
};

enum retry_type { RETRY_UNSET, RETRY_DISABLED, RETRY_ALL, RETRY_FAILED, RETRY_RETURNED };

struct retry {          /* of a queue; zero: nothing is delayed, nor was */
    struct delay *wait; /* NULL: nothing ever was */
    uint64_t count;     /* messages, in memory and in pages */
    uint64_t bytes;     /* of their bodies */
};

bool retry_enabled(const struct queue_rules *rules);
/* When a message that has just come back for the returns-th time may be delivered again; 0: at once. */
wall_t retry_due(const struct broker *b, const struct queue *q, enum back back, uint32_t returns);
/* The entry leaves where it is and waits. Writes no record. False: no memory, nothing has changed. */
MUST_USE bool retry_park(struct broker *b, struct entry *e, wall_t due);
void retry_leave(struct broker *b, struct entry *e);   /* it waits no more, and is in no list */
wall_t retry_due_of(const struct entry *e);            /* of one that waits */
struct list *retry_list(const struct queue *q);        /* those in memory that wait; NULL: none ever did */
void retry_purge(struct broker *b, struct queue *q);   /* all that waits is removed */
void retry_drop(struct broker *b, struct queue *q);    /* the queue goes: frees all */
void retry_goes_on(struct broker *b, struct queue *q); /* there may be room for what is due */

uint64_t retry_check(const struct queue *q); /* memory of what waits there */

#endif
