/* Scans: looking through a queue's waiting messages, see scan.h.
 *
 *   front (memory) ─ pages (disk) ─ entries (memory)      by position: entries that came back stand in the front, wherever
 *                                                         they belong, and so do those that were lent of pages
 *
 * Invariants:
 *   N1  what waits up to `looked` was looked at, once, or has come back since; what came back is in memory, and of it what waits up to
 *       `memory` was looked at again. What came back has returns: others up to `looked` are passed by without a look.
 *   N2  at[i] is in that list, and neither it nor what stands before it there is to be looked at. Who leaves the list is not pointed
 *       at (scans_forget), and who comes back before it takes it back to there.
 *   N3  page is in the lane's list, and `looked` is not before its end.
 *   N4  what came back and goes to a page again before it was looked at takes `looked` back to there: then, and only then, messages
 *       are looked at twice.
 *
 * A message costs a few steps besides what is done with it, a page one reading; both however often the scan pauses.
 */
#include "core/core_int.h"

enum { IN_FRONT, IN_ENTRIES };

void scan_begin(struct queue *q, struct scan *s, unsigned lane)
{
    *s = (struct scan){.lane = (uint8_t)lane};
    list_insert(&q->busy->scans, &s->link);
}

void scan_end(struct broker *b, struct queue *q, struct scan *s)
{
    list_remove(&s->link);
    looks_left(b, q);
}

static struct entry *entry_at(struct list *node)
{
    return CONTAINER_OF(node, struct entry, link);
}

/* ---- memory ---- */

static bool was_looked_at(const struct scan *s, const struct entry *e)
{
    return e->position <= s->memory || (e->position <= s->looked && e->returns == 0 && !(e->flags & ENTRY_REDELIVERED));
}

static struct entry *next_in(struct scan *s, unsigned i, struct list *list)
{
    for (struct list *at = s->at[i] ? s->at[i]->link.next : list->next; at != list; at = at->next) {
        if (!was_looked_at(s, entry_at(at)))
            return entry_at(at);
        s->at[i] = entry_at(at);
    }
    return NULL;
}

/* The next of both lists. When a lane begins to be paged, the first of its entries become the front where they are. */
static struct entry *next_in_memory(struct lane *lane, struct scan *s)
{
    if (s->at[IN_ENTRIES] && s->at[IN_ENTRIES]->flags & ENTRY_FRONT)
        s->at[IN_ENTRIES] = NULL;
    struct entry *front = lane->paging ? next_in(s, IN_FRONT, &lane->paging->front) : NULL;
    struct entry *e = next_in(s, IN_ENTRIES, &lane->entries);
    return !front || (e && e->position < front->position) ? e : front;
}

/* ---- pages ---- */

bool scan_stands_in(const struct scan *s, const struct page *page)
{
    return s->lane == page->lane && s->looked + 1 >= page->first && s->looked < page->last;
}

/* The first that is not behind it; of those being written the messages are in memory. Who cannot be read is passed by. */
static struct page *next_page(struct broker *b, struct lane *lane, struct scan *s)
{
    struct list *pages = lane->paging ? &lane->paging->pages : NULL;
    for (struct list *at = s->page ? s->page->lane_link.next : pages ? pages->next : NULL; at != pages; at = at->next) {
        struct page *page = CONTAINER_OF(at, struct page, lane_link);
        if (page->state == PAGE_WRITING)
            break;
        if (page->last <= s->looked) {
            s->page = page;
            look_left(b, page);
        } else if (page->state != PAGE_DAMAGED && !page->unmovable)
            return page;
    }
    return NULL;
}

static void look_upto(struct scan *s, uint64_t position)
{
    if (s->looked < position)
        s->looked = position;
    s->memory = s->looked;
}

/* Index of the first item behind `looked`. */
static uint32_t item_bound(const struct page_job *job, uint64_t looked)
{
    uint32_t low = 0, high = job->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (job->items[middle].position <= looked)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* It came back before the last start, and its time has not come: it waits in memory from now on. True: it does. */
static bool is_delayed(struct broker *b, struct scan *s, struct page *page, struct page_item *item, bool *ret_failed)
{
    uint64_t position = item->position;
    for (uint32_t i = 0; i < page->return_count; i++) {
        const struct page_return *back = &page->returns[i];
        if (back->position != position || back->due <= b->wall || item->deadline <= b->wall)
            continue;
        wall_t due = back->due;
        struct entry *e = page_lend(b, page, item);
        *ret_failed = !e;
        if (e && retry_park(b, e, due))
            look_upto(s, position); /* else it is back at once, and seen in memory */
        return true;
    }
    return false;
}

enum found { FOUND, LATER, PASSED };

static enum found find_in_page(struct broker *b, struct scan *s, struct page *page, uint64_t upto, struct scanned *ret)
{
    struct page_job *job = look_into(b, page);
    bool failed = false;
    if (!job && !page->unmovable)
        return LATER;
    for (uint32_t i = job ? item_bound(job, s->looked) : 0; job && i < job->count; i++) {
        struct page_item *item = &job->items[i];
        if (item->position > upto)
            break;
        if (page_is_hole(page, item->position) || page_lends(page, item->position))
            continue;
        if (page->return_count && is_delayed(b, s, page, item, &failed))
            return failed ? LATER : PASSED; /* it may have been the last of the page, which is not looked at then */
        look_upto(s, item->position - 1);   /* what was taken before it is not gone over again */
        *ret = (struct scanned){.page = page, .item = item};
        return FOUND;
    }
    look_upto(s, upto);
    return PASSED;
}

/* Between `looked` and `before`, where the next entry in memory is. A page that the queue itself would read is left to it. */
static enum found find_on_disk(struct broker *b, struct queue *q, struct scan *s, struct page *page, uint64_t before,
                               struct scanned *ret)
{
    struct lane *lane = &q->busy->lanes[s->lane];
    uint64_t upto = page->last < before ? page->last : before - 1;
    look_upto(s, page->first - 1);
    if (!page->look) {
        if (!page_waits(page, s->looked + 1, upto)) {
            look_upto(s, upto);
            return PASSED;
        }
        if (lane->paging->pages.next == &page->lane_link && queue_is_awaited(q))
            paging_want(b, q, lane);
        if (page->state == PAGE_READING)
            return LATER;
    }
    return find_in_page(b, s, page, upto, ret);
}

bool scan_next(struct broker *b, struct queue *q, struct scan *s, struct scanned *ret)
{
    struct lane *lane = &q->busy->lanes[s->lane];
    struct entry *e;
    while (!(e = next_in_memory(lane, s)) || e->position > s->looked) {
        look_upto(s, 0);
        uint64_t before = e ? e->position : UINT64_MAX;
        struct page *page = next_page(b, lane, s);
        if (!page || page->first >= before || s->looked + 1 == before)
            break;
        enum found found = find_on_disk(b, q, s, page, before, ret);
        if (found != PASSED)
            return found == FOUND;
    }
    *ret = (struct scanned){.entry = e};
    return e != NULL;
}

void scan_pass(struct scan *s, const struct scanned *seen)
{
    if (!seen->entry)
        look_upto(s, seen->item->position);
    else if (seen->entry->position > s->looked)
        look_upto(s, seen->entry->position);
    else
        s->memory = seen->entry->position;
}

/* ---- what happens in the queue meanwhile ---- */

static const struct entry *before(const struct entry *e, const struct list *list)
{
    return e->link.prev == list ? NULL : entry_at(e->link.prev);
}

void scans_forget(struct queue *q, const struct entry *e)
{
    LIST_EACH(&q->busy->scans, node, after)
    {
        struct scan *s = CONTAINER_OF(node, struct scan, link);
        if (s->lane != e->lane)
            continue;
        struct lane *lane = &q->busy->lanes[s->lane];
        if (s->at[IN_FRONT] == e)
            s->at[IN_FRONT] = before(e, &lane->paging->front);
        if (s->at[IN_ENTRIES] == e)
            s->at[IN_ENTRIES] = e->flags & ENTRY_FRONT ? NULL : before(e, &lane->entries);
    }
}

void scans_returned(struct queue *q, const struct entry *e)
{
    LIST_EACH(&q->busy->scans, node, after)
    {
        struct scan *s = CONTAINER_OF(node, struct scan, link);
        unsigned i = e->flags & ENTRY_FRONT ? IN_FRONT : IN_ENTRIES;
        if (s->lane != e->lane)
            continue;
        if (s->at[i] && s->at[i]->position > e->position)
            s->at[i] = before(e, lane_list_of(&q->busy->lanes[s->lane], e));
        if (s->memory >= e->position)
            s->memory = e->position - 1;
    }
}

static void page_back(struct scan *s, const struct list *pages)
{
    s->page = s->page->lane_link.prev == pages ? NULL : CONTAINER_OF(s->page->lane_link.prev, struct page, lane_link);
}

static void look_again_from(struct scan *s, struct lane *lane, uint64_t position)
{
    s->looked = position - 1;
    while (s->page && s->page->last > s->looked)
        page_back(s, &lane->paging->pages);
    for (unsigned i = 0; i < ARRAY_LEN(s->at); i++)
        while (s->at[i] && s->at[i]->position > s->looked)
            s->at[i] = before(s->at[i], lane_list_of(lane, s->at[i]));
}

void scans_paged(struct queue *q, const struct entry *e)
{
    LIST_EACH(&q->busy->scans, node, after)
    {
        struct scan *s = CONTAINER_OF(node, struct scan, link);
        if (s->lane == e->lane && e->position <= s->looked && !was_looked_at(s, e))
            look_again_from(s, &q->busy->lanes[s->lane], e->position);
    }
}

void scans_forget_page(struct queue *q, const struct page *page)
{
    LIST_EACH(&q->busy->scans, node, after)
    {
        struct scan *s = CONTAINER_OF(node, struct scan, link);
        if (s->page == page)
            page_back(s, &q->busy->lanes[s->lane].paging->pages);
    }
}
