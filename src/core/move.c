/* Pages that move: what is alive of one page, or of several small ones that stand together, is written to a new place.
 *
 *   read ▸ … ▸ read ▸ write ▸ one PAGE record ▸ the old places are nobody's
 *
 * A page of a slow queue would keep its segment file for ever, and a queue that was written again and again while it was short
 * would consist of crumbs. So pages of segments that are mostly dead move, and small pages that came one after the other
 * become one. All of it goes on beside what else happens to them, is bounded (MOVES_MAX at a time, MOVE_RATE bytes a
 * second) and may fail: then nothing has changed, and what was written is not used.
 *
 * Invariants:
 *   M1  until the store has said that the new page is durable the old ones are what they were, for consumers, journal and
 *       compaction alike. PAGE of the new one replaces the pages it lies across in one record (replay.c).
 *   M2  a message that died meanwhile is a hole of the new page; its REMOVE may come before or after.
 *   M3  a page that a consumer has begun to read, or that was read, or of which something is lent, moves only alone: what
 *       was read points to it.
 *   M4  small pages are joined only behind what was ever read of their lane (loaded_upto), so that no page with
 *       unacknowledged messages lies between them.
 */
#include "core/core_int.h"

#include <errno.h>

#define MOVES_MAX 16u
#define MOVE_PAGES 16u
#define MOVE_RATE (32u << 20) /* bytes a second */
#define MOVE_BURST_NS (50 * NS_PER_MS)
#define MERGE_LEAST 4u /* small pages */
#define LEVELS 4u

struct move {
    struct list link; /* b->moves */
    uint32_t count, read;
    bool lost;                      /* a page has gone, or could not be read */
    bool journalled;                /* any page is */
    bool joined;                    /* its pages are one now, the first */
    struct page_job *job;           /* what will be written; while it is, the store's */
    struct page *pages[MOVE_PAGES]; /* NULL: gone */
};

/* ---- end ---- */

/* Segments of pages that are still where they were may be tried again. */
static void move_free(struct broker *b, struct move *m)
{
    for (uint32_t i = 0; i < m->count; i++)
        if (m->pages[i] && m->pages[i]->state == PAGE_ON_DISK)
            page_pack(m->pages[i]);
    for (uint32_t i = 0; i < m->count; i++)
        if (m->pages[i])
            segment_reconsider(b, m->pages[i]->where.segment);
    list_remove(&m->link);
    b->move_count--;
    page_job_free(&b->heap, &m->job);
    mem_free(m);
}

void moves_forget(struct broker *b, struct page *page)
{
    if (b->move_count)
        LIST_EACH(&b->moves, node, after)
        {
            struct move *m = CONTAINER_OF(node, struct move, link);
            for (uint32_t i = 0; i < m->count; i++)
                if (m->pages[i] == page) {
                    m->pages[i] = NULL;
                    m->lost = true;
                }
        }
}

static bool is_moving(const struct broker *b, const struct page *page)
{
    if (b->move_count)
        LIST_EACH(&b->moves, node, after)
        {
            const struct move *m = CONTAINER_OF(node, struct move, link);
            for (uint32_t i = 0; i < m->count; i++)
                if (m->pages[i] == page)
                    return true;
        }
    return false;
}

/* ---- begin ---- */

static bool send_read(struct broker *b, struct move *m)
{
    struct page_job *job = page_job_to_read(m->pages[m->read]);
    if (!job)
        return false;
    job->ticket = page_ticket(TICKET_MOVE, m);
    if (paging_send(b, job))
        return true;
    page_job_free(&b->heap, &job);
    return false;
}

static bool may_move(const struct broker *b)
{
    return b->move_count < MOVES_MAX && !b->reading_paused && !b->writing_paused && !b->stopping &&
           b->move_due <= b->now + MOVE_BURST_NS;
}

static bool move_start(struct broker *b, struct page *const *pages, uint32_t count)
{
    struct move *m = mem_zalloc(sizeof *m);
    uint32_t live = 0;
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < count; i++) {
        live += pages[i]->live;
        bytes += pages[i]->where.len;
    }
    if (!m || !(m->job = page_job_new(PAGE_WRITE, live))) {
        mem_free(m);
        return false;
    }
    m->job->count = 0; /* filled as they are read */
    m->job->queue = pages[0]->queue->id;
    m->job->lane = pages[0]->lane;
    m->count = count;
    for (uint32_t i = 0; i < count; i++) {
        m->pages[i] = pages[i];
        m->journalled |= pages[i]->journalled;
    }
    list_insert(&b->moves, &m->link);
    b->move_count++;
    if (!send_read(b, m)) {
        move_free(b, m);
        return false;
    }
    mono_t from = b->move_due > b->now ? b->move_due : b->now;
    b->move_due = from + (mono_t)(bytes * NS_PER_S / MOVE_RATE);
    return true;
}

/* ---- small pages become one ---- */

static uint64_t page_size(const struct page *page)
{
    return page->body_bytes + 64 * (uint64_t)page->live; /* about */
}

/* 0: as large as a page should be; else the more, the smaller. */
static unsigned smallness(const struct broker *b, const struct page *page)
{
    uint64_t size = page_size(page), limit = paging_page_bytes(b) / 2;
    unsigned level = 0;
    while (size < limit && level < LEVELS) {
        limit /= 4;
        level++;
    }
    return level;
}

/* The page is new: are there too many like it, or smaller ones, right before? */
void moves_merge(struct broker *b, const struct lane *lane, struct page *page)
{
    struct page *found[MOVE_PAGES];
    uint64_t size = 0, count = 0;
    uint32_t n = 0;
    unsigned level = smallness(b, page);
    if (level == 0 || !may_move(b))
        return;
    for (struct list *at = &page->lane_link; n < MOVE_PAGES && at != &lane->paging->pages; at = at->prev) {
        struct page *p = CONTAINER_OF(at, struct page, lane_link);
        size += page_size(p);
        count += p->live;
        if (p->state != PAGE_ON_DISK || p->first <= lane->paging->loaded_upto || smallness(b, p) < level ||
            p->journalled != page->journalled || p->transient.count || size > paging_page_bytes(b) ||
            count > PAGE_ITEMS_MAX || is_moving(b, p))
            break;
        found[n++] = p;
    }
    if (n < MERGE_LEAST)
        return;
    for (uint32_t i = 0; i < n / 2; i++) { /* oldest first */
        struct page *p = found[i];
        found[i] = found[n - 1 - i];
        found[n - 1 - i] = p;
    }
    (void)!move_start(b, found, n); /* without memory they stay small */
}

/* ---- segments that are mostly dead ---- */

static struct page *page_to_move(const struct broker *b, const struct segment *s)
{
    LIST_EACH(&s->pages_in, node, after)
    {
        struct page *page = CONTAINER_OF(node, struct page, segment_link);
        if ((page->state == PAGE_ON_DISK || page->state == PAGE_LOADED) && !page->unmovable && page->queue &&
            page->live && !is_moving(b, page))
            return page;
    }
    return NULL;
}

static void wake_later(struct broker *b)
{
    mono_t at = b->move_due - MOVE_BURST_NS;
    if (!timer_is_set(&b->move_timer) && at > b->now && !list_empty(&b->sparse_segments))
        wheel_set(&b->wheel, &b->move_timer, at);
}

void moves_turn(struct broker *b)
{
    LIST_EACH(&b->sparse_segments, node, after)
    {
        struct segment *s = CONTAINER_OF(node, struct segment, link);
        struct page *page;
        while (may_move(b) && (page = page_to_move(b, s)))
            if (!move_start(b, &page, 1))
                return;
        if (!may_move(b))
            break;
        list_remove(&s->link); /* until something changes in it */
    }
    wake_later(b);
}

static void woken(void *arg, struct timer *timer)
{
    (void)arg; /* the step that fires it goes on */
    (void)timer;
}

/* ---- answers ---- */

/* What is alive of the page goes into the job that will be written. */
static bool take_items(struct move *m, struct page *page, struct page_job *read)
{
    if (!page_unpack(page))
        return false;
    for (uint32_t i = 0; i < read->count; i++) {
        struct page_item *item = &read->items[i];
        if (page_is_hole(page, item->position))
            continue;
        struct page_item *mine = &m->job->items[m->job->count++];
        *mine = *item;
        mine->returns = page_returns_of(page, item);
        mine->redelivered |= mine->returns > item->returns;
        item->msg = NULL; /* its reference went along */
    }
    return true;
}

static bool fits(const struct page *page, const struct page_job *job)
{
    return job->count == page->count && job->items[0].position == page->first &&
           job->items[job->count - 1].position == page->last;
}

static void send_write(struct broker *b, struct move *m)
{
    m->job->ticket = page_ticket(TICKET_MOVE, m);
    m->job->sync = m->journalled;
    if (m->job->count == 0 || !paging_send(b, m->job))
        move_free(b, m);
    else
        m->job = NULL; /* the store's until it is answered */
}

static void was_read(struct broker *b, struct move *m, struct page_job *job)
{
    struct page *page = m->pages[m->read];
    if (!m->lost && (job->err == -EILSEQ || (!job->err && !fits(page, job))))
        page->unmovable = true; /* damage: whoever wants it will hear of it */
    else if (job->err)
        paging_pause(b, &b->reading_paused);
    if (m->lost || page->unmovable || job->err || !take_items(m, page, job)) {
        move_free(b, m);
        return;
    }
    if (++m->read == m->count)
        send_write(b, m);
    else if (!send_read(b, m))
        move_free(b, m);
}

/* The pages are as they were read, but for messages that have gone. */
static bool may_use(const struct move *m)
{
    for (uint32_t i = 0; i < m->count; i++)
        if (m->lost || (m->count > 1 && m->pages[i]->lent) ||
            (m->pages[i]->state != PAGE_ON_DISK && (m->count > 1 || m->pages[i]->state != PAGE_LOADED)))
            return false;
    return true;
}

/* They may have been packed since they were read. False: no memory. */
static bool unpack(const struct move *m)
{
    for (uint32_t i = 0; i < m->count; i++)
        if (!page_unpack(m->pages[i]))
            return false;
    return true;
}

static const struct page *source_of(const struct move *m, uint64_t position)
{
    for (uint32_t i = 0; i < m->count; i++)
        if (position <= m->pages[i]->last)
            return m->pages[i];
    return NULL;
}

/* What the new page is: positions that were read, and of them those that are alive. False: no memory, or nothing is left. */
static bool describe(const struct move *m, const struct page_job *job, struct page *fresh)
{
    fresh->where = job->where;
    fresh->first = job->items[0].position;
    fresh->last = job->items[job->count - 1].position;
    fresh->count = job->count;
    fresh->journalled = m->journalled;
    fresh->deadline = WALL_NEVER;
    uint64_t next = fresh->first;
    for (uint32_t i = 0; i < job->count; i++) {
        uint64_t position = job->items[i].position;
        if (!page_has(source_of(m, position), position))
            continue;
        if (position > next && !page_hole(fresh, next, position - next))
            return false;
        if (fresh->live++ == 0)
            delay_page_begins(fresh, &job->items[i]);
        fresh->body_bytes += job->items[i].msg->body_len;
        next = position + 1;
    }
    return fresh->live && (next > fresh->last || page_hole(fresh, next, fresh->last - next + 1));
}

/* Runs of the page's transient messages that lie in the new one. False: no memory. */
static bool keep_transient(const struct page *page, struct page *fresh)
{
    struct ranges *runs = &fresh->transient;
    if (page->transient.count == 0)
        return true;
    runs->runs = mem_alloc(page->transient.count * sizeof *runs->runs);
    if (!runs->runs)
        return false;
    runs->max = page->transient.count;
    for (uint32_t i = 0; i < page->transient.count; i++) {
        struct range run = page->transient.runs[i];
        run.first = run.first < fresh->first ? fresh->first : run.first;
        run.last = run.last > fresh->last ? fresh->last : run.last;
        if (run.first <= run.last)
            runs->runs[runs->count++] = run;
    }
    return true;
}

/* How often messages came back after they were read for the move. False: no memory. */
static bool keep_returns(const struct move *m, struct page *fresh)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < m->count; i++)
        count += m->pages[i]->return_count;
    if (count == 0)
        return true;
    fresh->returns = mem_alloc(count * sizeof *fresh->returns);
    for (uint32_t i = 0; fresh->returns && i < m->count; i++)
        for (uint32_t r = 0; r < m->pages[i]->return_count; r++)
            if (page_has(fresh, m->pages[i]->returns[r].position))
                fresh->returns[fresh->return_count++] = m->pages[i]->returns[r];
    return fresh->returns != NULL;
}

/* The page becomes what fresh says, and fresh what the page was, but for its places in lists. Doing it twice undoes it. */
static void exchange(struct page *page, struct page *fresh)
{
    struct page old = *page, *const both[] = {page, fresh};
    const struct page *const from[] = {fresh, &old};
    for (unsigned i = 0; i < 2; i++) {
        struct page *to = both[i];
        const struct page was = *from[i];
        to->where = was.where;
        to->first = was.first;
        to->last = was.last;
        to->count = was.count;
        to->live = was.live;
        to->journalled = was.journalled;
        to->deadline = was.deadline;
        to->arrival = was.arrival;
        to->body_bytes = was.body_bytes;
        to->holes = was.holes;
        to->transient = was.transient;
        to->returns = was.returns;
        to->return_count = was.return_count;
    }
}

/* The record, in which the first page stands for all. False: no memory, or no room; nothing has changed. */
static bool journal_move(struct broker *b, struct page *page, struct page *fresh)
{
    exchange(page, fresh);
    lsn_t lsn = page->journalled ? log_page(b, page) : 0;
    if (page->journalled && !lsn) {
        exchange(page, fresh);
        return false;
    }
    page->lsn = lsn;
    return true;
}

/* The old places are nobody's any more. */
static void leave_old(struct broker *b, struct move *m, struct page *old)
{
    struct page *page = m->pages[0];
    bool on_disk = page->state == PAGE_ON_DISK;
    uint64_t live = old->live, body_bytes = old->body_bytes;
    look_forget(b, page);
    list_remove(&page->segment_link);
    list_insert(&old->segment_link, &page->segment_link);
    list_remove(&old->segment_link);
    segment_leave(b, old);
    for (uint32_t i = 1; i < m->count; i++) {
        live += m->pages[i]->live;
        body_bytes += m->pages[i]->body_bytes;
        page_free(b, m->pages[i]);
    }
    scans_forget_page(page->queue, page); /* last: who stood at one of those stands at this one now, and it is longer */
    CHECK(live == page->live);
    if (on_disk) { /* after a restart they knew it only about */
        page_pack(page);
        *page_body_bytes(page) += page->body_bytes - body_bytes;
        b->totals.message_bytes += page->body_bytes - body_bytes;
    }
    b->pages_moved += m->count;
    m->joined = m->count > 1;
}

/* Room for holes where messages of it are in memory. False: no memory. */
static bool reserve(const struct page *page, struct page *fresh)
{
    if (page->state == PAGE_LOADED)
        return page_reserve(fresh);
    return !page->lent || ranges_room(&fresh->holes, page->lent->alive + 1);
}

/* P3: the record, and then the old pages go. False: no memory, or no room. */
static bool use(struct broker *b, struct move *m, const struct page_job *job)
{
    struct page *page = m->pages[0], fresh = {0};
    list_init(&fresh.segment_link);
    bool ok = unpack(m) && describe(m, job, &fresh) && keep_transient(page, &fresh) && keep_returns(m, &fresh) &&
              reserve(page, &fresh) && segment_join(b, &fresh);
    if (ok && !(ok = journal_move(b, page, &fresh)))
        segment_leave(b, &fresh);
    else if (ok)
        leave_old(b, m, &fresh);
    mem_free(fresh.holes.runs);
    mem_free(fresh.transient.runs);
    mem_free(fresh.returns);
    return ok;
}

static void was_written(struct broker *b, struct move *m, struct page_job *job)
{
    if (job->err)
        paging_pause(b, &b->writing_paused);
    else if (!may_use(m) || !use(b, m, job))
        segment_unused(b, &job->where);
    struct page *joined = m->joined ? m->pages[0] : NULL;
    move_free(b, m);
    if (joined) /* it may be the fourth of its size in turn */
        moves_merge(b, &joined->queue->busy->lanes[joined->lane], joined);
}

void move_answered(struct broker *b, struct page_job *job)
{
    struct move *m = page_ticket_whose(job->ticket);
    if (job->type == PAGE_READ)
        was_read(b, m, job);
    else
        was_written(b, m, job);
    page_job_free(&b->heap, &job);
}

/* ---- life ---- */

void moves_init(struct broker *b)
{
    list_init(&b->moves);
    timer_init(&b->move_timer, woken);
}

void moves_fini(struct broker *b)
{
    LIST_EACH(&b->moves, node, after)
    move_free(b, CONTAINER_OF(node, struct move, link));
}
