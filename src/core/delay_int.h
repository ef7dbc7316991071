/* delay_int: what delay.c and delay_page.c share, the delayed messages of one vhost.
 *
 * Of those in memory, the entries of the hidden queue, each stands in one list: the queue's lane when it was published or
 * came from the journal, `loaded` when it was read from a page. An entry is besides
 *   - fresh, while it is not durable: from `fresh` to the end of the lane's list,
 *   - being written: in a struct delay_write, of which the page comes before what is due later,
 *   - or in the heap `messages`.
 */
#ifndef MILLRACE_CORE_DELAY_INT_H
#define MILLRACE_CORE_DELAY_INT_H

#include "core/core_int.h"
#include "core/delay_heap.h"

struct delay {
    struct queue *queue;
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
};

struct delay_write {
    struct list link;    /* delay->writes; b->adrift_writes when the queue is gone */
    struct delay *delay; /* NULL: the queue is gone */
    struct page *page;
    uint32_t count;
    struct entry *entries[]; /* as they stand in the page */
};

/* Among messages due in the same millisecond the lower goes first: the position it was given when it came. */
static inline uint32_t delay_arrival(const struct entry *e)
{
    return e->page ? e->returns : (uint32_t)e->position;
}

static inline struct delay_item delay_item_of(struct entry *e)
{
    return (struct delay_item){e->deadline, delay_arrival(e), e};
}

/* What comes before everything that a page may hold. */
static inline struct delay_item delay_item_of_page(struct page *page)
{
    return (struct delay_item){page->deadline, page->arrival, page};
}

/* delay.c */
void delay_put(struct broker *b, struct delay *d, struct entry *e); /* into the heap, which has room */
void delay_wake_by(struct broker *b, struct delay *d, wall_t at);   /* or earlier */
void delay_go_on(struct broker *b, struct delay *d); /* releases what is due, reads what comes near, sets the timer */

/* delay_page.c */
#define DELAY_NEAR_MS 500 /* so long before its first message is due a page is read */
struct delay_item delay_barrier(
    const struct delay *d);                         /* what comes before it comes before all that is not in memory */
bool delay_read(struct broker *b, struct delay *d); /* pages that come near; false: later, by the timer */
void delay_pages_drop(struct broker *b, struct delay *d);

#endif
