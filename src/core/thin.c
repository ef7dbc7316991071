/* Paging of queues that hold little each, but all together too much (paging.c has the rest).
 *
 * When fat queues have nothing to write any more and waiting messages still take more than paging_bytes, thin queues have
 * their turn: what came last is written as it is, a page of one message if need be; the store gathers the pages of many
 * queues into one write. What was read from a page before and waits again leaves memory without any write: the page is
 * still there. So the memory of waiting messages is bounded, whatever the queues they are in, but for a few hundred bytes a
 * queue (a smaller page would cost more than it frees) and what a consumer is about to take.
 */
#include "core/core_int.h"

#define TRIES 64u /* of one tick */

/* ---- a page that was read is left to the disk again ---- */

/* Its last entry in the front, when all that is alive of it waits there; NULL: a consumer has some. */
static struct list *end_of_page(const struct lane *lane, struct list *from, const struct page *page)
{
    uint32_t waiting = 0;
    struct list *end = NULL;
    for (struct list *at = from; at != &lane->paging->front; at = at->next) {
        const struct entry *e = CONTAINER_OF(at, struct entry, link);
        if (e->page == page) {
            waiting++;
            end = at;
        } else if (e->page)
            break;
    }
    return waiting == page->live ? end : NULL;
}

/* How often its messages came back, for when they are read again. False: no memory. */
static bool keep_returns(struct page *page, struct list *from, const struct list *end)
{
    uint32_t count = 0;
    for (struct list *at = from; at != end->next; at = at->next) {
        const struct entry *e = CONTAINER_OF(at, struct entry, link);
        count += e->page == page && e->returns;
    }
    if (count == 0)
        return true;
    page->returns = mem_alloc(count * sizeof *page->returns);
    if (!page->returns)
        return false;
    for (struct list *at = from; at != end->next; at = at->next) {
        const struct entry *e = CONTAINER_OF(at, struct entry, link);
        if (e->page == page && e->returns)
            page->returns[page->return_count++] = (struct page_return){.position = e->position, .returns = e->returns};
    }
    return true;
}

static void entry_unloaded(struct broker *b, struct lane *lane, struct entry *e)
{
    struct queue *q = e->queue;
    compact_moving(b, e);
    lane_forgets(q, e);
    scans_paged(q, e);
    backlog_memory(b, e, false);
    front_shrinks(b, lane, e);
    list_remove(&e->link);
    b->paged++;
    msg_unref(&b->heap, e->msg);
    pool_give(&b->entries, e);
}

static void unload(struct broker *b, struct lane *lane, struct page *page, struct list *from, const struct list *end)
{
    struct list *place = lane->paging->pages.next;
    const struct list *behind = end->next;
    page->deadline = CONTAINER_OF(from, struct entry, link)->deadline;
    while (from != behind) {
        struct entry *e = CONTAINER_OF(from, struct entry, link);
        from = from->next;
        if (e->page == page)
            entry_unloaded(b, lane, e);
    }
    while (place != &lane->paging->pages && CONTAINER_OF(place, struct page, lane_link)->first < page->first)
        place = place->next;
    list_insert(place, &page->lane_link);
    page->state = PAGE_ON_DISK;
    page_pack(page);
}

static bool unload_pages(struct broker *b, struct lane *lane)
{
    bool did = false;
    for (struct list *at = lane->paging->front.next; at != &lane->paging->front;) {
        struct page *page = CONTAINER_OF(at, struct entry, link)->page;
        bool loaded = page && page->state == PAGE_LOADED && !page->reading; /* P5: it may be read again at once */
        struct list *end = loaded ? end_of_page(lane, at, page) : NULL;
        struct list *next = end ? end->next : at->next;
        if (end && keep_returns(page, at, end)) {
            unload(b, lane, page, at, end);
            did = true;
        }
        at = next;
    }
    return did;
}

/* ---- turns ---- */

/* Whoever is about to take its messages finds them in memory. */
static bool write_thin(struct broker *b, struct queue *q)
{
    bool did = false;
    if (q->busy->memory < thin_least(b) || queue_is_awaited(q))
        return false;
    for (unsigned i = 0; i < lane_count(q); i++) {
        struct lane *lane = &q->busy->lanes[i];
        if (lane->paging && lane->paging->reading == 0 && unload_pages(b, lane))
            did = true; /* a page that is being read is to stay the first */
        while (paging_may_write(b) && page_write(b, q, i, true))
            did = true;
    }
    return did;
}

bool thin_turn(struct broker *b)
{
    if (b->thin_memory != b->ready_memory) {
        b->thin_vain = 0;
        b->thin_memory = b->ready_memory;
    }
    for (unsigned tries = TRIES; tries && paging_may_write(b) && b->thin_vain < b->thin_count; tries--) {
        struct queue *q = CONTAINER_OF(b->thin.next, struct busy, fat_link)->queue;
        b->thin_vain = write_thin(b, q) ? 0 : b->thin_vain + 1;
        paging_listed(b, q); /* its turn again, after the others */
    }
    return paging_may_write(b) && b->thin_vain < b->thin_count;
}
