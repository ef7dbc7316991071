/* page: a run of messages of one queue on their way to or from a segment file.
 *
 * A queue keeps what it will deliver next, and what came last, in memory; the run between lies in pages on disk. The core
 * decides what is paged and asks by a job; the store (store/) carries it out on its own thread and gives the same job
 * back. What is in a page is written once and never changed; which of its messages are still alive the core keeps, in
 * memory and in the journal (record PAGE, docs/formats/records.md).
 *
 * Life cycle of a job: page_job_new (core) → EFF_PAGE to the store's port → CMD_PAGED back → page_job_free (core).
 * One owner at a time: who has the job may touch it. Message references in items belong to the job; page_job_free gives
 * back those that are left.
 */
#ifndef MILLRACE_CORE_PAGE_H
#define MILLRACE_CORE_PAGE_H

#include "core/message.h"

#define PAGE_BYTES                                                                                                     \
    (128u * 1024) /* messages are gathered up to about this, encoded; one larger message is a page of its own */
#define PAGE_ITEMS_MAX 4096u
#define PAGE_OWN_BYTES (1u << 20) /* a message of so much or more is a page of its own, in a file of its own */
#define PAGE_PORT_SLOTS 512u      /* of the store's port: more than jobs can be on their way */

enum page_job_type {
    PAGE_WRITE, /* items → where; with `sync` answered when they are on the disk for good */
    PAGE_READ,  /* where → items */
    PAGE_DROP, /* the segment `where.segment` holds nothing that is alive: remove the file. Not answered: the store frees it */
};

struct page_where { /* where a page lies; what the journal records of it */
    uint32_t segment;
    uint32_t offset;
    uint32_t len; /* bytes with the header */
};

struct page_item {
    uint64_t position;
    wall_t deadline; /* WALL_NEVER: none */
    uint32_t returns;
    bool redelivered;
    struct msg *msg;
    wall_t due;      /* of a page of retries: not before. And … */
    uint64_t origin; /* … its place in the queue; 0: it is in another page */
};

struct page_job {
    enum page_job_type type;
    uint64_t ticket; /* the core's, opaque to the store */
    uint64_t queue;  /* id; written into the page and compared when it is read */
    uint8_t lane;    /* the same */
    bool sync;       /* PAGE_WRITE */
    int err;         /* answer: 0, a negative errno, -EILSEQ: what lies there is not that page */
    struct page_where where;
    uint32_t count; /* items: given for a write; for a read what the page is to hold */
    struct page_item items[];
};

/* A job with room for count items, which are zero. NULL: no memory. Any thread. */
MUST_USE struct page_job *page_job_new(enum page_job_type type, uint32_t count);
/* mine: the calling thread's slab heap. NULL is nothing. */
void page_job_free(struct slab_heap *mine, struct page_job **job);

#endif
