/* Paging: what a queue holds beyond memory lies in pages on disk (page.h, docs/formats/segments.md).
 *
 *   lane:   front (memory) ─ pages (disk, the last ones perhaps still being written) ─ entries (memory)
 *           ◀── delivered from here                                published to here ──▶
 *
 * When the waiting messages of all queues together take more memory than paging_bytes, queues that hold enough for a page
 * write one: the oldest entries behind the front. A page that is being written has its messages still in `entries`;
 * whoever takes one of them first (a consumer that is faster than the disk) makes a hole in it. When the store answers,
 * the PAGE record is appended and the messages leave memory. A front that runs short is filled from the next pages, a
 * bounded distance ahead; a message read from a page keeps pointing at it until it is gone, and the page until its last one is.
 *
 * Invariants:
 *   P1  pages of a lane ascend, and every position in entries is above them, but that the messages of pages being written
 *       are the beginning of entries. While a lane is paged a returned message goes to the front, to its place by
 *       position; what the front holds behind the beginning of the first page waits for that page. Pages
 *       of a lane never overlap, nor with one that was read and has unacknowledged messages: replay finds them by their last.
 *   P2  a message is in memory or in a page; it is in a page exactly when its position is from first to last and is no hole.
 *       Pages of different lanes overlap, but share no position.
 *   P3  PAGE is appended only after the store has said that the page is durable, and before its messages leave memory.
 *       Of a page on disk some may be lent (lend.c): those are in memory, and alive in the page for the journal.
 *   P4  live is the positions from first to last less the holes; at 0 the page is gone, and with its last page a segment, once everything
 *       that made it so is durable.
 *   P5  one job per page at a time; the job's ticket is the page. A page whose queue goes meanwhile drifts until the answer.
 *
 * Queues that hold too little for that are thin.c's: their pages are small, and no message stays behind in a front.
 *
 * Without a journal (transient messages) pages are the same but for the record: they are garbage after a restart. Those of the hidden
 * queue of delayed messages are delay_page.c's.
 */
#include "core/core_int.h"

#include <errno.h>

#define WRITES_MAX 256u   /* pages being written, of all queues … */
#define WRITING_PAGES 64u /* … and as much as so many full pages */
#define READS_MAX 128u    /* pages being read */
#define READ_AHEAD 4u     /* of one lane */
#define THIN_BYTES 512u   /* of memory: a smaller page is not worth its struct */
#define PAUSE_NS NS_PER_S
#define LOAD_AHEAD 8u /* messages */
#define OVERLOAD 4u   /* times paging_bytes */

size_t paging_page_bytes(const struct broker *b)
{
    return b->options.page_bytes ? b->options.page_bytes : PAGE_BYTES;
}

/* What a front should hold, at least; what the first page leaves in it. */
static size_t front_wanted(const struct broker *b)
{
    return 4 * paging_page_bytes(b);
}

size_t thin_least(const struct broker *b)
{
    return paging_page_bytes(b) < THIN_BYTES ? paging_page_bytes(b) : THIN_BYTES;
}

/* The fronts of all queues together: what is more is read again when somebody wants it. */
static size_t fronts_wanted(const struct broker *b)
{
    size_t share = b->options.paging_bytes / 4;
    return share > front_wanted(b) ? share : front_wanted(b);
}

/* ---- pages ---- */

struct page *page_new(struct queue *q, unsigned lane)
{
    struct page *page = mem_zalloc_as(MEM_PAGES, sizeof *page);
    if (!page)
        return NULL;
    page->queue = q;
    page->lane = (uint8_t)lane;
    page->deadline = WALL_NEVER;
    list_init(&page->lane_link);
    list_init(&page->queue_link);
    list_init(&page->segment_link);
    return page;
}

/* ---- jobs ---- */

bool paging_has_room(struct broker *b)
{
    return port_has_room(&b->sides[b->options.ports + 1]);
}

bool paging_send(struct broker *b, struct page_job *job)
{
    struct peer store = {.side = &b->sides[b->options.ports + 1]};
    if (!paging_has_room(b))
        return false;
    effect_push(b, &store, EFF_PAGE, 0)->job = job;
    return true;
}

/* ---- the end of a page ---- */

static void nobody_points_at(struct broker *b, struct page *page)
{
    compact_page_removed(b, page);
    moves_forget(b, page);
    scans_forget_page(page->queue, page);
    look_forget(b, page);
}

void page_free(struct broker *b, struct page *page)
{
    if (page->queue)
        nobody_points_at(b, page);
    list_remove(&page->lane_link);
    list_remove(&page->queue_link);
    if (page->state != PAGE_WRITING)
        segment_leave(b, page);
    mem_free(page->holes.runs);
    mem_free(page->transient.runs);
    mem_free(page->returns);
    page_lent_end(page);
    mem_free(page->origins);
    mem_free_as(MEM_PAGES, page);
}

/* A job is on its way: its answer will free the page. */
static void page_adrift(struct broker *b, struct page *page)
{
    if (page->state != PAGE_WRITING && !page->reading) {
        page_free(b, page);
        return;
    }
    nobody_points_at(b, page);
    list_remove(&page->lane_link);
    list_remove(&page->queue_link);
    page->queue = NULL;
    list_insert(&b->adrift, &page->lane_link);
}

void paging_entry_gone(struct broker *b, struct entry *e)
{
    struct page *page = e->page;
    e->page = NULL;
    if (!page_hole(page, e->position,
                   1)) { /* no memory: a page that is being written is not used; of one that was read … */
        page->doomed = true;
        b->removal_lost = true; /* … the next snapshot brings the message back, so its segment has to be there */
    }
    CHECK(page->live);
    uint64_t weight = page_weight(page);
    if (page->lent) {
        page->lent->bytes -= e->msg->body_len;
        if (--page->lent->alive == 0)
            page_lent_end(page); /* all of it are holes */
    }
    page->live--;
    page->body_bytes -= e->msg->body_len;
    if (page->state == PAGE_ON_DISK)
        page_pack(page);
    if (page->state != PAGE_WRITING && page_weight(page) != weight)
        segment_weighs(b, page, weight);
    if (page->state == PAGE_LOADED && page->live == 0)
        page_adrift(b, page);
}

/* ---- lanes ---- */

static struct page *first_page(const struct lane *lane)
{
    return lane->paging ? LIST_FIRST(&lane->paging->pages, struct page, lane_link) : NULL;
}

static struct page *last_page(const struct lane *lane)
{
    const struct list *pages = &lane->paging->pages;
    return list_empty(pages) ? NULL : CONTAINER_OF(pages->prev, struct page, lane_link);
}

struct entry *lane_first(const struct lane *lane)
{
    struct entry *next = LIST_FIRST(&lane->entries, struct entry, link);
    if (!lane->paging)
        return next;
    struct entry *e = LIST_FIRST(&lane->paging->front, struct entry, link);
    const struct page *page = first_page(lane);
    if (page && page->state != PAGE_WRITING && (!e || page->first < e->position))
        return NULL;
    return e && (!next || e->position < next->position) ? e : next; /* what came back may belong behind it */
}

void front_grows(struct broker *b, struct lane *lane, struct entry *e)
{
    size_t bytes = entry_memory(e);
    e->flags |= ENTRY_FRONT;
    lane->paging->front_bytes += bytes;
    b->front_memory += bytes;
}

void front_shrinks(struct broker *b, struct lane *lane, struct entry *e)
{
    size_t bytes = entry_memory(e);
    e->flags &= (uint8_t)~ENTRY_FRONT;
    lane->paging->front_bytes -= bytes;
    b->front_memory -= bytes;
    if (e->queue->extra && !paging_front_is_full(b, lane))
        retry_goes_on(b, e->queue);
}

/* Of what comes back from where it waited, which may all be due at once: well above what is read ahead. */
bool paging_front_is_full(const struct broker *b, const struct lane *lane)
{
    const struct lane_paging *p = lane->paging;
    return p && p->front_bytes >= front_wanted(b) &&
           (p->front_bytes >= 4 * front_wanted(b) || b->front_memory >= 3 * fronts_wanted(b));
}

/* Looked for from both ends at once: what comes back is among the first, what is read among the last, but for what was lent of pages
 * behind it and has come back. */
struct list *entry_place(struct list *list, uint64_t position)
{
    struct list *first = list->next, *last = list; /* before the one all are lower, from the other on higher */
    while (first != last) {
        if (CONTAINER_OF(first, struct entry, link)->position > position)
            return first;
        if (CONTAINER_OF(last->prev, struct entry, link)->position < position)
            return last;
        first = first->next;
        last = last->prev;
    }
    return first;
}

/* The entry behind which it stands may be known. */
static void front_insert_behind(struct broker *b, struct lane *lane, struct entry *e, struct entry *behind)
{
    struct list *front = &lane->paging->front, *at = behind ? behind->link.next : entry_place(front, e->position);
    while (at != front && CONTAINER_OF(at, struct entry, link)->position < e->position)
        at = at->next;
    list_insert(at, &e->link);
    front_grows(b, lane, e);
}

void front_insert(struct broker *b, struct lane *lane, struct entry *e)
{
    front_insert_behind(b, lane, e, NULL);
}

/* The next message cannot be read, now or later. */
bool paging_is_damaged(const struct queue *q)
{
    for (unsigned i = lane_count(q); i-- > 0;)
        if (q->busy->lanes[i].count) {
            const struct page *page = first_page(&q->busy->lanes[i]);
            return page && page->state == PAGE_DAMAGED && !lane_first(&q->busy->lanes[i]);
        }
    return false;
}

wall_t paging_deadline(const struct lane *lane)
{
    const struct page *page = first_page(lane);
    return page && page->state != PAGE_DAMAGED ? page->deadline : WALL_NEVER;
}

void paging_end(struct broker *b, struct queue *q, struct lane *lane)
{
    if (!lane->paging || !list_empty(&lane->paging->front) || !list_empty(&lane->paging->pages))
        return;
    mem_free(lane->paging);
    lane->paging = NULL;
    compact_lists_changed(b, q);
}

void paging_left(struct broker *b, struct lane *lane, struct entry *e)
{
    struct lane_paging *p = lane->paging;
    if (e->flags & ENTRY_FRONT)
        front_shrinks(b, lane, e);
    else if (p->unwritten == &e->link)
        p->unwritten = e->link.next;
    if (e->page && e->page->state == PAGE_WRITING)
        paging_entry_gone(b, e); /* the message stays in memory, without the page */
}

/* ---- writing ---- */

/* The first page of a lane leaves the next messages where they are: they become its front, unless there are fronts enough or
 * the queue is thin. So does everything that came back from before the end of the pages there were: these may still hold messages
 * that are unacknowledged (P1). */
static bool begin_lane(struct broker *b, struct queue *q, struct lane *lane, bool thin)
{
    size_t wanted = thin || b->front_memory + front_wanted(b) > fronts_wanted(b) ? 0 : front_wanted(b);
    struct lane_paging *p = mem_zalloc(sizeof *p);
    if (!p)
        return false;
    list_init(&p->front);
    list_init(&p->pages);
    lane->paging = p;
    p->loaded_upto = lane->paged_upto;
    while (!list_empty(&lane->entries)) {
        struct entry *e = CONTAINER_OF(lane->entries.next, struct entry, link);
        if (p->front_bytes >= wanted && e->position > lane->paged_upto)
            break;
        compact_moving(b, e);
        list_remove(&e->link);
        list_insert(&p->front, &e->link);
        front_grows(b, lane, e);
    }
    p->unwritten = lane->entries.next;
    compact_lists_changed(b, q);
    return true;
}

static void page_item_set(struct page_item *item, struct entry *e)
{
    *item = (struct page_item){.position = e->position,
                               .deadline = e->deadline,
                               .returns = e->returns,
                               .redelivered = (e->flags & ENTRY_REDELIVERED) != 0,
                               .msg = msg_ref(e->msg)};
}

/* How many of the unwritten entries make a page; 0: not enough, or what comes is not durable. A thin page is what there is,
 * when it frees more memory than the page costs. */
static uint32_t page_measure(struct broker *b, struct lane *lane, bool thin)
{
    size_t bytes = 0;
    uint32_t count = 0;
    for (struct list *at = lane->paging->unwritten; at != &lane->entries; at = at->next) {
        struct entry *e = CONTAINER_OF(at, struct entry, link);
        if (e->lsn > b->durable)
            break;
        if (count && msg_size(e->msg) >= PAGE_OWN_BYTES)
            return count;
        bytes += msg_size(e->msg);
        if (++count == PAGE_ITEMS_MAX || bytes >= paging_page_bytes(b))
            return count;
    }
    return thin && bytes + count * ENTRY_COST >= thin_least(b) ? count : 0;
}

/* False: no memory for the positions between that are not the page's. */
static bool page_gaps(struct page *page, const struct page_job *job)
{
    for (uint32_t i = 1; i < job->count; i++) {
        uint64_t from = job->items[i - 1].position + 1, gap = job->items[i].position - from;
        if (gap && !page_hole(page, from, gap))
            return false;
    }
    return true;
}

static void page_fill(struct page *page, struct page_job *job, const struct lane *lane)
{
    const struct list *at = lane->paging->unwritten;
    for (uint32_t i = 0; i < job->count; i++, at = at->next) {
        struct entry *e = CONTAINER_OF(at, struct entry, link);
        page_item_set(&job->items[i], e);
        page->body_bytes += e->msg->body_len;
        page->journalled |= (e->flags & ENTRY_JOURNALLED) != 0;
    }
    page->first = job->items[0].position;
    page->last = job->items[job->count - 1].position;
    page->deadline = job->items[0].deadline;
    page->count = page->live = job->count;
    job->ticket = page_ticket(TICKET_PAGE, page);
    job->queue = page->queue->id;
    job->lane = page->lane;
    job->sync = page->journalled;
}

size_t page_job_memory(const struct page_job *job)
{
    size_t bytes = 0;
    for (uint32_t i = 0; i < job->count; i++)
        bytes += msg_size(job->items[i].msg) + ENTRY_COST;
    return bytes;
}

/* From here on the entries are being written. */
static void page_claim(struct page *page, struct lane *lane)
{
    struct list *at = lane->paging->unwritten;
    for (uint32_t i = 0; i < page->count; i++, at = at->next)
        CONTAINER_OF(at, struct entry, link)->page = page;
    lane->paging->unwritten = at;
    list_insert(&lane->paging->pages, &page->lane_link);
}

bool page_write(struct broker *b, struct queue *q, unsigned number, bool thin)
{
    struct lane *lane = &q->busy->lanes[number];
    if (!lane->paging && (list_empty(&lane->entries) || !begin_lane(b, q, lane, thin)))
        return false;
    const struct page *last = last_page(lane);
    if (last && last->doomed)
        return false; /* what comes next is written when the messages of that one are written again */
    uint32_t count = page_measure(b, lane, thin);
    struct page *page = count ? page_new(q, number) : NULL;
    struct page_job *job = page ? page_job_new(PAGE_WRITE, count) : NULL;
    if (!job) {
        mem_free_as(MEM_PAGES, page);
        paging_end(b, q, lane);
        return false;
    }
    page_fill(page, job, lane);
    if (!page_gaps(page, job)) {
        page_free(b, page);
        page_job_free(&b->heap, &job);
        paging_end(b, q, lane);
        return false;
    }
    page_claim(page, lane);
    b->writing_memory += page_job_memory(job);
    CHECK(paging_send(b, job));
    b->page_writes++;
    return true;
}

/* Messages that are needed last go first: the lowest priority. */
static bool write_some(struct broker *b, struct queue *q)
{
    for (unsigned i = 0; i < lane_count(q); i++)
        if (page_write(b, q, i, false))
            return true;
    return false;
}

static void unlist(struct broker *b, struct queue *q)
{
    b->thin_count -= q->thin;
    q->fat = q->thin = false;
    list_remove(&q->busy->fat_link);
}

void paging_listed(struct broker *b, struct queue *q)
{
    if (!b->options.paging_bytes || q->hidden)
        return;
    if (q->fat || q->thin)
        unlist(b, q);
    q->fat = q->busy->memory >= b->fat_bytes;
    q->thin = !q->fat && q->busy->memory;
    b->thin_count += q->thin;
    if (q->fat || q->thin)
        list_insert(q->fat ? &b->fat : &b->thin, &q->busy->fat_link);
}

bool paging_can_write(struct broker *b)
{
    return !b->writing_paused && b->page_writes < WRITES_MAX &&
           b->writing_memory < WRITING_PAGES * paging_page_bytes(b) && paging_has_room(b);
}

bool paging_may_write(struct broker *b)
{
    return b->ready_memory > b->options.paging_bytes + b->writing_memory && paging_can_write(b);
}

bool paging_overloaded(const struct broker *b)
{
    return b->page_writes && !b->stopping && b->ready_memory / OVERLOAD > b->options.paging_bytes;
}

bool paging_turn(struct broker *b)
{
    const struct queue *idle = NULL; /* the first of those that had nothing to write: once around is enough */
    bool more = b->options.paging_bytes && delays_write(b);
    for (unsigned tries = 64; tries && !list_empty(&b->fat) && paging_may_write(b); tries--) {
        struct queue *q = CONTAINER_OF(b->fat.next, struct busy, fat_link)->queue;
        if (q == idle)
            break;
        if (write_some(b, q))
            idle = NULL;
        else if (!idle)
            idle = q;
        paging_listed(b, q); /* its turn again, after the others */
    }
    if (!list_empty(&b->dead_segments))
        dead_segments_drop(b);
    moves_turn(b);
    looks_turn(b);
    return thin_turn(b) || more;
}

/* ---- what the store says ---- */

bool queue_is_awaited(const struct queue *q)
{
    LIST_EACH(&q->busy->ready, node, after)
    if (!CONTAINER_OF(node, struct consumer, ready_link)->sieve)
        return true;
    return !list_empty(&q->busy->getters);
}

static void feed_hungry(struct broker *b);

static void resume(void *arg, struct timer *timer)
{
    struct broker *b = arg;
    (void)timer;
    b->writing_paused = b->reading_paused = false;
    LIST_EACH(&b->catalogue, node, after)
    {
        struct object *object = CONTAINER_OF(node, struct object, link);
        struct queue *q = CONTAINER_OF(object, struct queue, object);
        if (object->kind != OBJ_QUEUE || (list_empty(&q->busy->pages) && list_empty(&q->busy->getters)))
            continue;
        if (queue_is_awaited(q)) {
            list_remove(&q->busy->hungry_link);
            list_insert(&b->hungry, &q->busy->hungry_link);
        } else
            backlog_limit(b, q);
        if (!list_empty(&q->busy->scans))
            queue_schedule(b, q);
    }
    feed_hungry(b);
}

/* Each for itself: when a disk is full, reading is what makes it empty again. */
void paging_pause(struct broker *b, bool *what)
{
    *what = true;
    wheel_set(&b->wheel, &b->paging_timer, b->now + PAUSE_NS);
}

/* Calls each for the entries in memory that the page was written from. They stand together behind those of the pages before. */
static void each_written(struct broker *b, struct lane *lane, struct page *page,
                         void (*each)(struct broker *b, struct lane *lane, struct entry *e))
{
    struct list *at = lane->entries.next;
    bool seen = false;
    while (at != lane->paging->unwritten) {
        struct entry *e = CONTAINER_OF(at, struct entry, link);
        at = at->next;
        if (e->page == page) {
            seen = true;
            each(b, lane, e); /* e may be gone now */
        } else if (seen)
            break;
    }
}

static void forget_page(struct broker *b, struct lane *lane, struct entry *e)
{
    (void)b;
    (void)lane;
    e->page = NULL;
}

/* The page is not used: its messages stay in memory. Those written behind it in the lane cannot be used either (P1); when
 * the last of them has come, writing begins again at the first of these messages. */
static void discard_written(struct broker *b, struct lane *lane, struct page *page)
{
    for (struct list *at = page->lane_link.next; at != &lane->paging->pages; at = at->next)
        CONTAINER_OF(at, struct page, lane_link)->doomed = true;
    struct queue *q = page->queue;
    each_written(b, lane, page, forget_page);
    page_free(b, page);
    const struct page *last = last_page(lane);
    if (!last || last->state != PAGE_WRITING)
        lane->paging->unwritten = lane->entries.next;
    paging_end(b, q, lane);
}

/* The message is on disk: it leaves memory. */
static void entry_paged(struct broker *b, struct lane *lane, struct entry *e)
{
    struct queue *q = e->queue;
    (void)lane;
    compact_entry_removed(b, e);
    backlog_memory(b, e, false);
    lane_forgets(q, e);
    scans_paged(q, e);
    list_remove(&e->link);
    if (e->flags & ENTRY_JOURNALLED)
        b->journalled_bytes -= msg_size(e->msg);
    b->paged++;
    msg_unref(&b->heap, e->msg);
    pool_give(&b->entries, e);
}

/* The message is on disk, but wanted soon: it stays, as if it had been read. */
static void entry_kept(struct broker *b, struct lane *lane, struct entry *e)
{
    compact_entry_removed(b, e);
    list_remove(&e->link);
    front_insert(b, lane, e);
    if (e->flags & ENTRY_JOURNALLED)
        b->journalled_bytes -= msg_size(e->msg);
}

static bool note_transient(struct page *page, struct lane *lane)
{
    bool ok = true;
    for (struct list *at = lane->entries.next; ok && at != lane->paging->unwritten; at = at->next) {
        struct entry *e = CONTAINER_OF(at, struct entry, link);
        if (e->page == page && !(e->flags & ENTRY_JOURNALLED))
            ok = ranges_put(&page->transient, e->position, 1);
    }
    return ok;
}

/* P3: the record, and then the messages go. */
static void use_written(struct broker *b, struct lane *lane, struct page *page)
{
    struct queue *q = page->queue;
    if (!segment_join(b, page)) {
        discard_written(b, lane, page);
        return;
    }
    bool wanted = first_page(lane) == page && lane->paging->front_bytes < paging_page_bytes(b) && queue_is_awaited(q);
    if ((wanted && !page_reserve(page)) ||
        (page->journalled && (!note_transient(page, lane) || !(page->lsn = log_page(b, page))))) {
        segment_leave(b, page);
        discard_written(b, lane, page);
        return;
    }
    page->state = wanted ? PAGE_LOADED : PAGE_ON_DISK;
    if (!wanted)
        page_pack(page);
    lane->paged_upto = page->last;
    list_insert(&q->busy->pages, &page->queue_link);
    each_written(b, lane, page, wanted ? entry_kept : entry_paged);
    if (wanted) {
        list_remove(&page->lane_link);
        lane->paging->loaded_upto = page->last;
    } else
        moves_merge(b, lane, page);
}

static void written(struct broker *b, struct page *page, struct page_job *job)
{
    struct queue *q = page->queue;
    struct lane *lane = &q->busy->lanes[page->lane];
    if (job->err)
        paging_pause(b, &b->writing_paused);
    page->where = job->where;
    if (job->err || page->doomed || page->live == 0) {
        if (!job->err)
            segment_unused(b, &job->where);
        discard_written(b, lane, page);
    } else
        use_written(b, lane, page);
    paging_listed(b, q);
}

/* ---- reading ---- */

bool paging_may_read(struct broker *b)
{
    return b->page_reads < READS_MAX && paging_has_room(b);
}

/* While queues wait for a place, those that would go on reading stand behind them. */
static bool may_read(struct broker *b)
{
    return paging_may_read(b) && (b->feeding || list_empty(&b->hungry));
}

static void serve_getters(struct broker *b, struct queue *q);

/* A read has come back. Whoever waits has his turn until the places are taken: those that want nothing any more take none,
 * and when the last one is free nobody waits. */
static void feed_hungry(struct broker *b)
{
    b->feeding = true;
    while (!list_empty(&b->hungry) && may_read(b)) {
        struct queue *q = CONTAINER_OF(b->hungry.next, struct busy, hungry_link)->queue;
        list_remove(&q->busy->hungry_link);
        backlog_want(b, q);
        serve_getters(b, q); /* what they wait for may have been lent meanwhile */
    }
    b->feeding = false;
}

struct page_job *page_job_to_read(const struct page *page)
{
    struct page_job *job = page_job_new(PAGE_READ, page->count);
    if (!job)
        return NULL;
    job->queue = page->queue->id;
    job->lane = page->lane;
    job->where = page->where;
    job->items[0].position = page->first;
    job->items[job->count - 1].position = page->last;
    return job;
}

void paging_want(struct broker *b, struct queue *q, struct lane *lane)
{
    struct lane_paging *p = lane->paging;
    if (!p || b->reading_paused || b->recovering || q->deleting)
        return;
    size_t coming = 0;
    for (struct list *at = p->pages.next; at != &p->pages && p->reading < READ_AHEAD; at = at->next) {
        struct page *page = CONTAINER_OF(at, struct page, lane_link);
        size_t bytes = page->where.len > paging_page_bytes(b) ? page->where.len
                                                              : paging_page_bytes(b); /* one message can be large */
        if (page->state == PAGE_READING) {
            coming += bytes;
            continue;
        }
        if (page->state != PAGE_ON_DISK)
            break;
        if ((coming || lane_first(lane)) &&
            (p->front_bytes + coming >= front_wanted(b) || b->front_memory + coming >= 2 * fronts_wanted(b)))
            break;
        if (!may_read(b)) {
            list_remove(&q->busy->hungry_link);
            list_insert(&b->hungry, &q->busy->hungry_link);
            break;
        }
        struct page_job *job = page_job_to_read(page);
        if (!job) {
            paging_pause(b, &b->reading_paused);
            return;
        }
        job->ticket = page_ticket(TICKET_PAGE, page);
        CHECK(paging_send(b, job));
        page->state = PAGE_READING;
        page->reading = true;
        coming += bytes;
        p->reading++;
        b->page_reads++;
    }
    paging_end(b, q, lane);
}

uint32_t page_returns_of(const struct page *page, const struct page_item *item)
{
    uint32_t returns = item->returns;
    for (uint32_t i = 0; i < page->return_count; i++)
        if (page->returns[i].position == item->position && page->returns[i].returns > returns)
            returns = page->returns[i].returns;
    return returns;
}

struct entry *entry_of_item(struct broker *b, struct page *page, struct page_item *item)
{
    struct queue *q = page->queue;
    struct entry *e = pool_take(&b->entries);
    CHECK(e);
    *e = (struct entry){.msg = item->msg,
                        .queue = q,
                        .page = page,
                        .position = item->position,
                        .deadline = item->deadline,
                        .returns = page_returns_of(page, item),
                        .lane = page->lane};
    item->msg = NULL; /* its reference went into the entry */
    if (backlog_journals(q, e->msg))
        e->flags |= ENTRY_JOURNALLED;
    if (item->redelivered || e->returns > item->returns || e->position < q->busy->recovered_mark)
        e->flags |= ENTRY_REDELIVERED;
    return e;
}

/* Of what has joined the front, messages that came back before the last start and whose time has not come. A compaction
 * that is going on has written the page with them, or will find them where they are then. */
static void park_delayed(struct broker *b, struct lane *lane, struct page *page)
{
    struct page_return *returns = page->returns;
    uint32_t count = page->return_count;
    page->returns = NULL;
    page->return_count = 0;
    for (uint32_t i = 0; i < count && lane->paging; i++) {
        struct list *front = &lane->paging->front, *at = front->prev;
        if (returns[i].due <= b->wall)
            continue;
        while (at != front && CONTAINER_OF(at, struct entry, link)->position != returns[i].position)
            at = at->prev;
        struct entry *e = CONTAINER_OF(at, struct entry, link);
        if (at != front && e->deadline > b->wall && !retry_park(b, e, returns[i].due))
            break; /* without memory they come back at once */
    }
    mem_free(returns);
}

/* All that is alive of the page joins the front, but for what was lent before. */
static void load(struct broker *b, struct queue *q, struct lane *lane, struct page *page, struct page_job *job)
{
    uint64_t lent_bytes = page->lent ? page->lent->bytes : 0, body_bytes = lent_bytes;
    uint32_t loaded = 0;
    struct entry *e = NULL;
    for (uint32_t i = 0; i < job->count; i++) {
        struct page_item *item = &job->items[i];
        if (i + LOAD_AHEAD < job->count)
            __builtin_prefetch(job->items[i + LOAD_AHEAD].msg); /* another thread has written it */
        if (page_is_hole(page, item->position) || page_lends(page, item->position))
            continue;
        struct entry *behind = e;
        e = entry_of_item(b, page, item);
        front_insert_behind(b, lane, e, behind);
        backlog_memory(b, e, true);
        body_bytes += e->msg->body_len;
        loaded++;
    }
    CHECK(loaded == page->live - (page->lent ? page->lent->alive : 0));
    q->busy->ready_bytes += body_bytes - page->body_bytes;
    b->totals.message_bytes += body_bytes - page->body_bytes;
    page->body_bytes = body_bytes;
    b->paged -= loaded;
    page->state = PAGE_LOADED;
    page_lent_end(page);
    scans_forget_page(q, page);
    look_forget(b, page);
    list_remove(&page->lane_link);
    if (lane->paging->loaded_upto < page->last)
        lane->paging->loaded_upto = page->last;
    park_delayed(b, lane, page);
}

bool page_fits(const struct page *page, const struct page_job *job)
{
    uint32_t alive = 0;
    if (job->count != page->count || job->items[0].position != page->first ||
        job->items[job->count - 1].position != page->last)
        return false;
    for (uint32_t i = 0; i < job->count; i++)
        alive += !page_is_hole(page, job->items[i].position);
    return alive == page->live;
}

static void front_has_grown(struct broker *b, struct queue *q, struct lane *lane)
{
    backlog_expire(b, q);
    backlog_limit(b, q);
    queue_schedule(b, q);
    paging_want(b, q, lane);
    serve_getters(b, q); /* last: without memory a channel fails, and an auto-delete queue may go with its consumer */
}

static void was_read(struct broker *b, struct page *page, struct page_job *job)
{
    struct queue *q = page->queue;
    struct lane *lane = &q->busy->lanes[page->lane];
    if (page->state != PAGE_READING)
        return; /* it was dropped meanwhile, and is here for what was lent of it */
    lane->paging->reading--;
    page->state = PAGE_ON_DISK;
    if (page_is_lent_whole(page)) { /* meanwhile, or gone */
        page_as_read(b, page);
        front_has_grown(b, q, lane);
        return;
    }
    if (!job->err && !page_unpack(page))
        job->err = -ENOMEM;
    if (job->err == -EILSEQ || (!job->err && !page_fits(page, job))) { /* S5 */
        page->state = PAGE_DAMAGED;
        if (!list_empty(&q->busy->scans))
            queue_schedule(b, q); /* they look behind it */
        serve_getters(b, q);
        return;
    }
    /* Pages join the front in order: one that comes early, after the one before failed, is read again. */
    if (job->err || first_page(lane) != page || !pool_reserve_many(&b->entries, page->live) || !page_reserve(page)) {
        paging_pause(b, &b->reading_paused);
        return;
    }
    load(b, q, lane, page, job);
    front_has_grown(b, q, lane);
}

static void page_answered(struct broker *b, struct page_job *job)
{
    struct page *page = page_ticket_whose(job->ticket);
    if (job->type == PAGE_WRITE) {
        b->page_writes--;
        b->writing_memory -= page_job_memory(job);
    } else {
        b->page_reads--;
        page->reading = false;
    }
    if (!page->queue) {
        if (job->type == PAGE_WRITE && !job->err)
            segment_unused(b, &job->where);
        page_free(b, page);
    } else if (job->type == PAGE_WRITE)
        written(b, page, job);
    else
        was_read(b, page, job);
}

void do_paged(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    struct page_job *job = c->job;
    (void)peer;
    (void)ch;
    c->job = NULL;
    switch (page_ticket_kind(job->ticket)) {
    case TICKET_MOVE: move_answered(b, job); return;
    case TICKET_LOOK: look_answered(b, job); return;
    case TICKET_DELAY: delay_answered(b, job); break;
    case TICKET_PAGE: page_answered(b, job);
    }
    page_job_free(&b->heap, &job);
    feed_hungry(b);
}

/* ---- a queue is emptied or goes ---- */

/* Everything between the holes: in a hole a message may live that was taken while the page was being written. */
void page_removed(struct broker *b, struct page *page)
{
    uint64_t last;
    (void)!page_unpack(page); /* without memory it takes longer */
    for (uint64_t at = page->first; page_alive_from(page, &at, &last); at = last + 1)
        backlog_removed(b, page->queue, at, last);
}

/* So many of a page's messages waited on disk, and are gone. */
static void uncount(struct broker *b, const struct page *page, uint32_t messages, uint64_t bytes)
{
    struct busy *w = page->queue->busy;
    if (page->retry)
        page->queue->extra->retry.count -= messages;
    else {
        w->lanes[page->lane].count -= messages;
        w->ready_count -= messages;
    }
    *page_body_bytes(page) -= bytes;
    b->totals.messages -= messages;
    b->totals.message_bytes -= bytes;
    b->paged -= messages;
}

void page_dropped(struct broker *b, struct page *page)
{
    uncount(b, page, page->live, page->body_bytes);
    page_adrift(b, page);
}

static void drop_page(struct broker *b, struct queue *q, struct page *page, bool journal)
{
    if (page->state == PAGE_WRITING) {
        struct lane *lane = &q->busy->lanes[page->lane];
        each_written(b, lane, page, forget_page);
        page_adrift(b, page);
        return;
    }
    if (page->lent && page->lent->alive) {
        uncount(b, page, page->live - page->lent->alive, page->body_bytes - page->lent->bytes);
        page_keep_lent(b, page, journal);
        return;
    }
    if (journal && page->journalled)
        page_removed(b, page);
    page_dropped(b, page);
}

/* Pages that are not loaded, in slices of nothing: a page is a few dozen bytes of memory, whatever it holds. */
void paging_drop(struct broker *b, struct queue *q, bool journal)
{
    for (unsigned i = 0; i < lane_count(q); i++) {
        struct lane *lane = &q->busy->lanes[i];
        if (!lane->paging)
            continue;
        LIST_EACH(&lane->paging->pages, node, after)
        drop_page(b, q, CONTAINER_OF(node, struct page, lane_link), journal);
        lane->paging->reading = 0;
        lane->paging->unwritten = lane->entries.next;
        paging_end(b, q, lane);
    }
    queue_calmed(b, q);
}

/* ---- basic.get that waits for a page ---- */

struct getter {
    struct list link;
    struct channel *channel;
    uint32_t origin;
    bool no_ack;
};

bool get_later(struct broker *b, struct channel *ch, struct queue *q, uint32_t origin, bool no_ack)
{
    struct getter *g = mem_alloc(sizeof *g);
    if (!g)
        return false;
    *g = (struct getter){.channel = ch, .origin = origin, .no_ack = no_ack};
    list_insert(&q->busy->getters, &g->link);
    ch->waiting_gets++;
    backlog_want(b, q);
    return true;
}

static void getter_free(struct getter *g)
{
    g->channel->waiting_gets--;
    list_remove(&g->link);
    mem_free(g);
}

static void serve_getters(struct broker *b, struct queue *q)
{
    uint64_t id = q->id;
    while (map_get(&b->queues_by_id, map_key_u64(&id)) && !list_empty(&q->busy->getters) &&
           (backlog_head(q) || q->busy->ready_count == 0 || paging_is_damaged(q))) {
        struct getter g = *CONTAINER_OF(q->busy->getters.next, struct getter, link);
        getter_free(CONTAINER_OF(q->busy->getters.next, struct getter, link));
        get_now(b, g.channel, q, g.origin, g.no_ack);
    }
}

/* The queue is empty, or goes: those who wait hear that there is nothing. */
void getters_end(struct broker *b, struct queue *q)
{
    while (!list_empty(&q->busy->getters)) {
        struct getter *g = CONTAINER_OF(q->busy->getters.next, struct getter, link);
        effect_push(b, g->channel->peer, EFF_GET_EMPTY, g->channel->number)->origin = g->origin;
        getter_free(g);
    }
}

/* The channel goes. Rare: every queue is looked at. */
void getters_forget(struct broker *b, struct channel *ch)
{
    LIST_EACH(&b->catalogue, node, after)
    {
        struct object *object = CONTAINER_OF(node, struct object, link);
        struct queue *q = CONTAINER_OF(object, struct queue, object);
        if (ch->waiting_gets == 0)
            return;
        if (object->kind != OBJ_QUEUE)
            continue;
        LIST_EACH(&q->busy->getters, link, next)
        {
            struct getter *g = CONTAINER_OF(link, struct getter, link);
            if (g->channel == ch)
                getter_free(g);
        }
    }
}

/* ---- recovery ---- */

/* An entry that was just appended: when pages come after it, it belongs in front of them. */
void paging_settle_entry(struct broker *b, struct lane *lane, struct entry *e)
{
    struct lane_paging *p = lane->paging;
    if (!p || list_empty(&p->pages) || e->position > last_page(lane)->last)
        return;
    if (p->unwritten == &e->link)
        p->unwritten = e->link.next;
    list_remove(&e->link);
    list_insert(&p->front, &e->link);
    front_grows(b, lane, e);
}

static bool lane_settle(struct lane *lane)
{
    if (lane->paging)
        return true;
    lane->paging = mem_zalloc(sizeof *lane->paging);
    if (!lane->paging)
        return false;
    list_init(&lane->paging->front);
    list_init(&lane->paging->pages);
    lane->paging->unwritten = &lane->entries;
    return true;
}

bool page_settle(struct broker *b, struct page *page)
{
    struct queue *q = page->queue;
    struct lane *lane = &q->busy->lanes[page->lane];
    if (page->live == 0) {
        page->state = PAGE_WRITING; /* counted nowhere */
        page_free(b, page);
        return true;
    }
    bool in_lane = !q->hidden && !page->retry;
    if (!(in_lane ? lane_settle(lane) : delay_page_recovered(b, page)) || !segment_join(b, page))
        return false;
    if (in_lane)
        list_insert(&lane->paging->pages, &page->lane_link);
    list_insert(&q->busy->pages, &page->queue_link);
    page->state = PAGE_ON_DISK;
    page_pack(page);
    if (page->retry)
        q->extra->retry.count += page->live;
    else {
        lane->paged_upto = page->last;
        lane->count += page->live;
        q->busy->ready_count += page->live;
    }
    *page_body_bytes(page) += page->body_bytes;
    b->totals.messages += page->live;
    b->totals.message_bytes += page->body_bytes;
    b->paged += page->live;
    return true;
}

int broker_pages(struct broker *b, int (*each)(void *arg, const struct broker_page *page), void *arg)
{
    int r = 0;
    LIST_EACH(&b->catalogue, node, after)
    {
        struct object *object = CONTAINER_OF(node, struct object, link);
        struct queue *q = CONTAINER_OF(object, struct queue, object);
        if (object->kind != OBJ_QUEUE)
            continue;
        for (struct list *at = q->busy->pages.next; at != &q->busy->pages && r == 0; at = at->next) {
            const struct page *page = CONTAINER_OF(at, struct page, queue_link);
            struct broker_page view = {.vhost = q->vhost->name,
                                       .queue = q->name,
                                       .queue_id = q->id,
                                       .lane = page->lane,
                                       .where = page->where,
                                       .count = page->count,
                                       .live = page->live,
                                       .first = page->first,
                                       .last = page->last,
                                       .page = page};
            r = each(arg, &view);
        }
    }
    return r;
}

struct segments_walk {
    int (*each)(void *arg, uint32_t segment, uint64_t end, struct slice queue);
    void *arg;
};

static int on_page(void *arg, const struct broker_page *page)
{
    const struct segments_walk *walk = arg;
    return walk->each(walk->arg, page->where.segment, (uint64_t)page->where.offset + page->where.len, page->queue);
}

int broker_segments(struct broker *b, int (*each)(void *arg, uint32_t segment, uint64_t end, struct slice queue),
                    void *arg)
{
    struct segments_walk walk = {each, arg};
    return broker_pages(b, on_page, &walk);
}

bool broker_page_alive(const struct broker_page *page, uint64_t *position, uint64_t *ret_last)
{
    return page_alive_from(page->page, position, ret_last);
}

/* ---- life ---- */

void paging_init(struct broker *b)
{
    b->fat_bytes = front_wanted(b) + 2 * paging_page_bytes(b);
    list_init(&b->fat);
    list_init(&b->thin);
    list_init(&b->hungry);
    list_init(&b->adrift);
    looks_init(b);
    segment_lists_init(b);
    moves_init(b);
    timer_init(&b->paging_timer, resume);
}

void paging_fini(struct broker *b)
{
    LIST_EACH(&b->adrift, node, after)
    {
        struct page *page = CONTAINER_OF(node, struct page, lane_link);
        page_free(b, page);
    }
    delays_fini(b);
    looks_fini(b);
    moves_fini(b);
    segment_lists_fini(b);
}
