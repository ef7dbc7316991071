/* Looks: pages that are read for scans (scan.h), beside those that the queue reads for its front.
 *
 *   look_into ▸ reading ▸ held, for as long as a scan stands in the page or nobody else wants the room ▸ gone
 *
 * Invariants:
 *   L1  a page has one look, which all scans that stand in it share; it is of no message's memory: what is taken of it is lent.
 *   L2  LOOKS_MAX at a time, and together no more on disk than the fronts of all queues may hold; one alone may be larger.
 *   L3  a look that no consumer goes on with makes room for another. Who found none waits in line, and nobody overtakes him.
 */
#include "core/core_int.h"

#include <errno.h>

struct look {
    struct list link;     /* b->looks.all */
    struct page *page;    /* NULL: forgotten, while its job is on its way */
    struct page_job *job; /* NULL: on its way */
    uint32_t bytes;
};

/* ---- end ---- */

static void look_free(struct broker *b, struct look *look)
{
    struct page *page = look->page;
    if (page) {
        page->look = NULL;
        if (page->state == PAGE_ON_DISK)
            page_pack(page);
    }
    list_remove(&look->link);
    b->looks.count--;
    b->looks.bytes -= look->bytes;
    page_job_free(&b->heap, &look->job);
    mem_free_as(MEM_PAGES, look);
}

void look_forget(struct broker *b, struct page *page)
{
    struct look *look = page->look;
    if (!look)
        return;
    queue_schedule(b, page->queue); /* who waited for it looks again */
    page->look = NULL;
    look->page = NULL;
    if (look->job)
        look_free(b, look);
}

void look_left(struct broker *b, struct page *page)
{
    if (!page->look || !page->look->job)
        return;
    LIST_EACH(&page->queue->busy->scans, node, after)
    if (scan_stands_in(CONTAINER_OF(node, struct scan, link), page))
        return;
    look_free(b, page->look);
}

void looks_left(struct broker *b, const struct queue *q)
{
    LIST_EACH(&b->looks.all, node, after)
    {
        const struct look *look = CONTAINER_OF(node, struct look, link);
        if (look->page && look->page->queue == q)
            look_left(b, look->page);
    }
}

/* ---- room ---- */

static bool is_wanted(const struct look *look)
{
    LIST_EACH(&look->page->queue->busy->ready, node, after)
    {
        const struct consumer *consumer = CONTAINER_OF(node, struct consumer, ready_link);
        if (consumer->sieve && consumer_can_take(consumer) && scan_stands_in(&consumer->sieve->scan, look->page))
            return true;
    }
    return false;
}

static bool has_room(const struct broker *b, size_t bytes)
{
    return b->looks.count < LOOKS_MAX && (b->looks.count == 0 || b->looks.bytes + bytes <= b->options.paging_bytes / 4);
}

static bool make_room(struct broker *b, size_t bytes)
{
    LIST_EACH(&b->looks.all, node, after)
    {
        struct look *look = CONTAINER_OF(node, struct look, link);
        if (has_room(b, bytes))
            return true;
        if (look->job && !is_wanted(look))
            look_free(b, look);
    }
    return has_room(b, bytes);
}

void looks_turn(struct broker *b)
{
    b->looks.feeding = true;
    while (!list_empty(&b->looks.waiting) && paging_has_room(b) && make_room(b, 0)) {
        struct queue *q = CONTAINER_OF(b->looks.waiting.next, struct busy, look_link)->queue;
        list_remove(&q->busy->look_link);
        LIST_EACH(&q->busy->ready, node, after)
        {
            const struct consumer *consumer = CONTAINER_OF(node, struct consumer, ready_link);
            struct scanned seen;
            if (consumer->sieve && consumer_can_take(consumer) && scan_next(b, q, &consumer->sieve->scan, &seen))
                queue_schedule(b, q);
        }
        if (!list_empty(&q->busy->look_link))
            break; /* its page is larger than the room there is */
    }
    b->looks.feeding = false;
}

/* ---- begin ---- */

static void start(struct broker *b, struct page *page)
{
    struct queue *q = page->queue;
    if ((!b->looks.feeding && !list_empty(&b->looks.waiting)) || !paging_has_room(b) ||
        !make_room(b, page->where.len)) {
        if (list_empty(&q->busy->look_link)) /* else it keeps its place, however often it asks */
            list_insert(b->looks.feeding ? b->looks.waiting.next : &b->looks.waiting, &q->busy->look_link);
        return;
    }
    struct look *look = mem_zalloc_as(MEM_PAGES, sizeof *look);
    struct page_job *job = look ? page_job_to_read(page) : NULL;
    if (!job) {
        mem_free_as(MEM_PAGES, look);
        paging_pause(b, &b->reading_paused);
        return;
    }
    look->page = page;
    look->bytes = page->where.len;
    job->ticket = page_ticket(TICKET_LOOK, look);
    list_insert(&b->looks.all, &look->link);
    b->looks.count++;
    b->looks.bytes += look->bytes;
    page->look = look;
    CHECK(paging_send(b, job));
}

struct page_job *look_into(struct broker *b, struct page *page)
{
    if (!page->look && !b->reading_paused)
        start(b, page);
    return page->look ? page->look->job : NULL;
}

/* ---- answers ---- */

/* After a restart it was known only about. */
static void count_bytes(struct broker *b, struct page *page, const struct page_job *job)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < job->count; i++)
        if (!page_is_hole(page, job->items[i].position))
            bytes += job->items[i].msg->body_len;
    page->queue->busy->ready_bytes += bytes - page->body_bytes;
    b->totals.message_bytes += bytes - page->body_bytes;
    page->body_bytes = bytes;
}

void look_answered(struct broker *b, struct page_job *job)
{
    struct look *look = page_ticket_whose(job->ticket);
    struct page *page = look->page;
    struct queue *q = page ? page->queue : NULL;
    look->job = job;
    if (page && !job->err && !page_unpack(page))
        job->err = -ENOMEM;
    if (page && !job->err && page_fits(page, job)) {
        count_bytes(b, page, job);
        queue_schedule(b, q);
        look_left(b, page); /* if nobody is there any more */
        return;
    }
    if (page && (job->err == -EILSEQ || !job->err))
        page->unmovable = true; /* who is to have it hears of it; who looks goes on behind it */
    else if (page)
        paging_pause(b, &b->reading_paused);
    look_free(b, look);
    if (q)
        queue_schedule(b, q);
}

/* ---- life ---- */

void looks_init(struct broker *b)
{
    list_init(&b->looks.all);
    list_init(&b->looks.waiting);
}

void looks_fini(struct broker *b)
{
    LIST_EACH(&b->looks.all, node, after)
    look_free(b, CONTAINER_OF(node, struct look, link));
}
