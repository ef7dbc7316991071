/* What is lent of a page on disk: messages that somebody found in it (scan.h) and that are entries in memory now, in the front or
 * with a consumer, while the others stay on disk.
 *
 * Nothing of it is in the journal: the message is alive in its page until it is removed, as one is that was read, and a start finds
 * it there. What was lent is never only on disk again; when all that is left of a page is lent, it is as one that was read.
 */
#include "core/core_int.h"

void page_lent_end(struct page *page)
{
    if (!page->lent)
        return;
    mem_free(page->lent->taken.runs);
    mem_free(page->lent);
    page->lent = NULL;
}

bool page_lends(const struct page *page, uint64_t position)
{
    return page->lent && ranges_past(&page->lent->taken, position) != position;
}

bool page_waits(const struct page *page, uint64_t from, uint64_t upto)
{
    uint64_t last;
    for (uint64_t at = from; page_alive_from(page, &at, &last) && at <= upto; at = last + 1) {
        uint64_t first = page->lent ? ranges_past(&page->lent->taken, at) : at;
        if (first <= last && first <= upto)
            return true;
    }
    return false;
}

bool page_is_lent_whole(const struct page *page)
{
    return page->live == (page->lent ? page->lent->alive : 0);
}

void page_as_read(struct broker *b, struct page *page)
{
    scans_forget_page(page->queue, page);
    list_remove(&page->lane_link);
    page->state = PAGE_LOADED;
    mem_free(page->returns); /* the entries know */
    page->returns = NULL;
    page->return_count = 0;
    page_lent_end(page);
    look_forget(b, page);
    if (page->live == 0)
        page_free(b, page);
}

/* Whatever of what is lent goes, in whatever order, finds its place in the holes, and so does the rest of the page (page_keep_lent):
 * at worst each is a run of its own, and what is left of the page one more on one side of them. */
static bool reserve(struct page *page)
{
    if (!page->lent && !(page->lent = mem_zalloc(sizeof *page->lent)))
        return false;
    return page_unpack(page) && ranges_room(&page->holes, page->lent->alive + 2) && ranges_room(&page->lent->taken, 1);
}

struct entry *page_lend(struct broker *b, struct page *page, struct page_item *item)
{
    struct queue *q = page->queue;
    struct lane *lane = &q->busy->lanes[page->lane];
    if (!pool_reserve_many(&b->entries, 1) || !reserve(page)) {
        paging_pause(b, &b->reading_paused);
        return NULL;
    }
    struct entry *e = entry_of_item(b, page, item);
    CHECK(ranges_put(&page->lent->taken, e->position, 1));
    page->lent->alive++;
    page->lent->bytes += e->msg->body_len;
    b->paged--;
    front_insert(b, lane, e);
    backlog_memory(b, e, true);
    if (lane->paging->loaded_upto < page->last)
        lane->paging->loaded_upto = page->last;
    if (page->state == PAGE_ON_DISK && page_is_lent_whole(page)) {
        page_as_read(b, page);
        backlog_arm(b, q); /* another message may be the first now */
    }
    return e;
}

/* The next run of what is alive and not lent. */
static bool next_kept(const struct page *page, uint64_t *at, uint64_t *ret_last)
{
    while (page_alive_from(page, at, ret_last)) {
        uint64_t first = ranges_past(&page->lent->taken, *at), next = ranges_next(&page->lent->taken, first);
        if (first == *at) {
            *ret_last = next <= *ret_last ? next - 1 : *ret_last;
            return true;
        }
        *at = first;
    }
    return false;
}

void page_keep_lent(struct broker *b, struct page *page, bool journal)
{
    uint64_t at = page->first, last, weight = page_weight(page);
    while (next_kept(page, &at, &last)) {
        if (journal && page->journalled)
            backlog_removed(b, page->queue, at, last);
        CHECK(page_hole(page, at, last - at + 1));
    }
    page->live = page->lent->alive;
    page->body_bytes = page->lent->bytes;
    if (page_weight(page) != weight)
        segment_weighs(b, page, weight);
    page_as_read(b, page);
}
