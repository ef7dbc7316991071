/* delay_int: what delay.c, delay_page.c and retry.c share: messages that wait for a time, the delayed ones of a vhost or those of a
 * queue that wait for their retry.
 *
 * Of delayed ones in memory, the entries of the hidden queue, each stands in one list: the queue's lane when it was published or
 * came from the journal, `loaded` when it was read from a page. All that wait for a retry are in `loaded`. An entry is besides
 *   - fresh, while it is not durable: from `fresh` to the end of the lane's list (delayed ones only),
 *   - being written: in a struct delay_write, of which the page comes before what is due later,
 *   - or in the heap `messages`.
 */
#ifndef MILLRACE_CORE_DELAY_INT_H
#define MILLRACE_CORE_DELAY_INT_H

#include "core/core_int.h"
#include "core/delay_heap.h"

struct delay {
    struct queue *queue;        /* the hidden one, or that to which they come back */
    struct list link;           /* b->delays, while it may have messages in the heap */
    struct list fresh_link;     /* b->fresh_delays, while it has fresh ones */
    struct list loaded;         /* entries that were read from pages */
    struct list reads;          /* struct page, by lane_link: being read */
    struct list writes;         /* struct delay_write */
    struct list *fresh;         /* first fresh one; NULL: none */
    struct delay_heap messages; /* struct entry */
    struct delay_heap pages;    /* struct page, on disk */
    uint64_t memory;            /* of what is in `messages` */
    uint64_t least;             /* what the round that is going on leaves of it */
    uint32_t round;             /* of which that is */
    uint64_t idle_since;        /* b->delay_news when it had nothing to write */
    uint32_t entries;           /* in memory */
    uint32_t read_count, write_count;
    struct timer timer; /* something is due, or comes near */
    bool retry;         /* they wait for their retry */
    bool held;          /* what is due has no room in its queue: retry_goes_on */
};

struct delay_write {
    struct list link;    /* delay->writes; b->adrift_writes when the queue is gone */
    struct delay *delay; /* NULL: the queue is gone */
    struct page *page;
    uint32_t count;
    struct entry *entries[]; /* as they stand in the page */
};

/* What a page of retries keeps of its messages while they are in memory: origins[0] is a position, behind it stands where the
 * message of that position belongs in its queue, then that of the next one … */
static inline uint64_t retry_origin(const struct entry *e)
{
    return e->page && e->page->retry ? e->page->origins[1 + (e->position - e->page->origins[0])] : e->position;
}

/* When what waits for a retry is looked at again: its time, or before it its expiry. */
static inline wall_t retry_wake(wall_t due, wall_t deadline)
{
    return deadline < due ? deadline : due;
}

/* Among messages due in the same millisecond the lower goes first: the position it was given when it came. */
static inline struct delay_item delay_item_of(struct entry *e)
{
    if (e->flags & ENTRY_DELAYED)
        return (struct delay_item){retry_wake((wall_t)e->lsn, e->deadline), (uint32_t)retry_origin(e), e};
    return (struct delay_item){e->deadline, e->page ? e->returns : (uint32_t)e->position, e};
}

/* What comes before everything that a page may hold. */
static inline struct delay_item delay_item_of_page(struct page *page)
{
    return (struct delay_item){page->deadline, page->arrival, page};
}

static inline struct delay *delay_of_page(const struct page *page)
{
    return page->retry ? page->queue->extra->retry.wait : page->queue->vhost->delay;
}

/* delay.c */
MUST_USE struct delay *delay_new(void); /* NULL: no memory */
void delay_clear(struct broker *b, struct delay *d,
                 bool journal); /* but for the entries, which are in no heap any more */
void delay_put(struct broker *b, struct delay *d, struct entry *e); /* into the heap, which has room */
void delay_wake_by(struct broker *b, struct delay *d, wall_t at);   /* or earlier */
void delay_go_on(struct broker *b, struct delay *d); /* releases what is due, reads what comes near, sets the timer */

/* delay_page.c */
#define DELAY_NEAR_MS 500 /* so long before its first message is due a page is read */
struct delay_item delay_barrier(
    const struct delay *d);                         /* what comes before it comes before all that is not in memory */
bool delay_read(struct broker *b, struct delay *d); /* pages that come near; false: later, by the timer */
void delay_pages_drop(struct broker *b, struct delay *d, bool journal);

/* retry.c */
MUST_USE struct delay *retry_make(struct queue *q); /* where it waits; NULL: no memory */
/* What is due goes to its place. False: no memory, or no room. */
MUST_USE bool retry_release(struct broker *b, struct entry *e);
bool retry_has_room(struct broker *b, struct delay *d, const struct entry *e); /* its lane; d->held: not now */

#endif
