/* scan: a place in the waiting messages of a queue, for whoever looks at them one after another and leaves most where they are.
 *
 * Life cycle: scan_begin → scan_next, then scan_pass or somebody takes what was seen → … → scan_end. The queue outlives it.
 * scan_next goes by position through front, pages and entries of one lane. A page is read for it aside (look.c): the front keeps what
 * it holds, and no more than LOOKS_MAX pages are in memory for all scans together. Core thread only. Decision 0018.
 */
#ifndef MILLRACE_CORE_SCAN_H
#define MILLRACE_CORE_SCAN_H

#include "base/list.h"
#include "core/page.h"

struct broker;
struct consumer;
struct entry;
struct lane;
struct page;
struct queue;
struct selector;

#define LOOKS_MAX 32u

struct scan {
    struct list link;          /* busy->scans */
    uint64_t looked;           /* what waits up to here was looked at … */
    uint64_t memory;           /* … but for what came back since, of which that up to here was */
    const struct entry *at[2]; /* of the front, of entries: the last that needs no look; NULL: none */
    const struct page *page;   /* the same of the lane's pages */
    uint8_t lane;
};

struct scanned {            /* a waiting message */
    struct entry *entry;    /* in memory, or */
    struct page *page;      /* in a page that is looked at, until the next call of anything here */
    struct page_item *item; /* with it */
};

struct look; /* a page that is read, or held, for scans: look.c */

struct looks {
    struct list all;     /* struct look */
    struct list waiting; /* queues that want one when there is room: busy->look_link */
    uint32_t count;
    uint64_t bytes; /* on disk */
    bool feeding;   /* those on `waiting` have their turn */
};

/* ---- scan.c ---- */

void scan_begin(struct queue *q, struct scan *s, unsigned lane);
void scan_end(struct broker *b, struct queue *q, struct scan *s);
/* The next message that was not looked at. False: there is none in memory; if it is on disk, the queue is scheduled when it has come. */
bool scan_next(struct broker *b, struct queue *q, struct scan *s, struct scanned *ret);
void scan_pass(struct scan *s, const struct scanned *seen); /* it was looked at and stays where it is */
bool scan_stands_in(const struct scan *s, const struct page *page);
void scans_forget(struct queue *q, const struct entry *e);        /* it is about to leave the lane's memory … */
void scans_paged(struct queue *q, const struct entry *e);         /* … into a page */
void scans_returned(struct queue *q, const struct entry *e);      /* it is back in the lane */
void scans_forget_page(struct queue *q, const struct page *page); /* it leaves the lane's list, or becomes longer */

/* ---- look.c ---- */

void looks_init(struct broker *b);
void looks_fini(struct broker *b);
void looks_turn(struct broker *b); /* once a tick: those that wait get what has become free */
/* What is in the page; NULL: it is being read, there is no room for it now, or the page has become `unmovable`. */
struct page_job *look_into(struct broker *b, struct page *page);
void look_left(struct broker *b, struct page *page);        /* a scan has come to its end */
void looks_left(struct broker *b, const struct queue *q);   /* a scan of the queue has ended */
void look_forget(struct broker *b, struct page *page);      /* it goes, was read into memory, or lies elsewhere */
void look_answered(struct broker *b, struct page_job *job); /* takes it */

/* ---- lend.c ---- */

/* Into the front; the item has no message afterwards, and when that was the last of the page, there is no look at it. NULL: no
 * memory, and the queue is scheduled when it is tried again. */
struct entry *page_lend(struct broker *b, struct page *page, struct page_item *item);
bool page_lends(const struct page *page, uint64_t position);
/* Is anything between that waits on disk alone? */
bool page_waits(const struct page *page, uint64_t from, uint64_t upto);
/* The page is dropped, all but what was lent. */
void page_keep_lent(struct broker *b, struct page *page, bool journal);
void page_lent_end(struct page *page);
bool page_is_lent_whole(const struct page *page); /* what is alive of it */
/* Then it leaves the lane, as a page that was read, and goes when nothing of it is alive. */
void page_as_read(struct broker *b, struct page *page);

/* ---- sieve.c: selectors of consumers ---- */

struct sieve { /* of all consumers of a queue that have the same selector */
    struct scan scan;
    struct list link; /* busy->sieves */
    struct selector *selector;
    uint32_t consumers;
};

#endif
