/* Delayed messages beyond memory (decision 0017): what is furthest goes to pages, sorted, and comes back when it is near. Messages that wait
 * for their retry do the same (decision 0019); a "vhost" is then a queue that has some.
 *
 *   heap:  first ◀── due next ──────────── written ──▶ last
 *          ◀── read when near: pages, by their first message
 *
 * A round begins when all waiting messages take more than paging_bytes and delayed ones half of it, and writes the last of each vhost
 * until an eighth of what was there is left. The messages of a page get new positions, in the order in which they are due;
 * one record takes them from where they were, the journal or an older page, into this one. A message read from a page points at it
 * until it is released, or written again.
 *
 * Invariants:
 *   D1  a page's positions were nobody's before, and are one after the other as its messages are due. So pages of the hidden
 *       queue, and those of a queue's retries, ascend and never overlap, as paging.c's P1 has it for lanes.
 *   D2  PAGE of the new positions and REMOVE of the old ones are one record, appended after the store has said that the page
 *       is durable, and before the messages leave memory (P3). Until then they are where they were, for journal and compaction.
 *   D3  nothing is released before what comes before it (due, then arrival), wherever that is, but what is fresh: pages on disk, being
 *       written and being read hold back what comes after their first message.
 *   D4  the first message in memory is never written. A page is read over the limit only when it comes before that one, and not while the
 *       queues that it goes to are written more slowly than that. So each such read brings the first nearer, and memory is bounded whatever
 *       is due at once.
 *
 * A damaged page stays where it is, and holds back nothing. Moves (move.c) treat pages here as those of any queue.
 */
#include "core/delay_int.h"

#include <errno.h>

#define TRIES 64u /* of one tick … */
#define WRITES 4u /* … and pages: one of small messages takes a ms or two */
#define READ_AHEAD 4u
#define PAGES_LEAST 4u /* in memory, however small paging_bytes is */

/* Delayed messages of all vhosts, and retries, that begin a round. */
static size_t limit(const struct broker *b)
{
    size_t half = b->options.paging_bytes / 2, least = PAGES_LEAST * paging_page_bytes(b);
    return half > least ? half : least;
}

/* ---- order ---- */

struct delay_item delay_barrier(const struct delay *d)
{
    struct delay_item barrier = {.due = WALL_NEVER}, item;
    const struct delay_item *page = delay_heap_first(&d->pages);
    if (page)
        barrier = *page;
    LIST_EACH(&d->reads, node, after)
    {
        item = delay_item_of_page(CONTAINER_OF(node, struct page, lane_link));
        if (delay_before(&item, &barrier))
            barrier = item;
    }
    LIST_EACH(&d->writes, node, next)
    {
        item = delay_item_of_page(CONTAINER_OF(node, struct delay_write, link)->page);
        if (delay_before(&item, &barrier))
            barrier = item;
    }
    return barrier;
}

/* Pages on their way have room in the heap for when they have come. */
static bool reserve_page(struct delay *d)
{
    return delay_heap_reserve(&d->pages, (uint64_t)d->pages.count + d->read_count + d->write_count + 1);
}

/* ---- writing ---- */

/* The last messages that make a page are set aside; how many. */
static uint32_t gather(struct broker *b, struct delay *d, size_t *ret_memory)
{
    size_t bytes = 0, memory = 0;
    uint32_t count = 0;
    while (d->messages.count > 1 && count < PAGE_ITEMS_MAX && bytes < paging_page_bytes(b)) {
        const struct delay_item *last = delay_heap_last(&d->messages);
        const struct entry *e = last->what;
        if ((last->due <= b->wall && !d->held) || (count && msg_size(e->msg) >= PAGE_OWN_BYTES))
            break;
        bytes += msg_size(e->msg);
        memory += entry_memory(e);
        delay_heap_set_aside(&d->messages);
        count++;
    }
    *ret_memory = memory;
    return count;
}

static void write_free(struct broker *b, struct delay_write **write)
{
    struct delay_write *w = *write;
    *write = NULL;
    if (!w)
        return;
    if (w->page)
        page_free(b, w->page);
    list_remove(&w->link);
    mem_free_as(MEM_PAGES, w);
}

/* Of so many messages. NULL: no memory. */
static struct delay_write *write_new(struct broker *b, struct delay *d, uint32_t count, struct page_job **ret_job)
{
    struct delay_write *w = mem_zalloc_as(MEM_PAGES, sizeof *w + count * sizeof w->entries[0]);
    if (!w)
        return NULL;
    list_init(&w->link);
    w->delay = d;
    w->count = count;
    w->page = page_new(d->queue, 0);
    *ret_job = w->page && reserve_page(d) ? page_job_new(PAGE_WRITE, count) : NULL;
    if (!*ret_job)
        write_free(b, &w);
    return w;
}

static struct page_item item_of(struct entry *e, const struct delay_item *item, uint64_t position)
{
    if (!(e->flags & ENTRY_DELAYED))
        return (struct page_item){
            .position = position, .deadline = item->due, .returns = item->arrival, .msg = msg_ref(e->msg)};
    return (struct page_item){.position = position,
                              .deadline = e->deadline,
                              .returns = e->returns,
                              .redelivered = true,
                              .msg = msg_ref(e->msg),
                              .due = (wall_t)e->lsn,
                              .origin = retry_origin(e)};
}

/* The messages that are set aside; they get their new positions (D1). */
static void fill(struct delay *d, struct delay_write *w, struct page_job *job)
{
    const struct delay_item *items = d->messages.items + d->messages.count;
    struct page *page = w->page;
    page->retry = d->retry;
    page->first = d->queue->next_position;
    page->last = page->first + w->count - 1;
    d->queue->next_position += w->count;
    page->count = page->live = w->count;
    page->deadline = items[0].due;
    page->arrival = items[0].arrival;
    for (uint32_t i = 0; i < w->count; i++) {
        struct entry *e = items[i].what;
        w->entries[i] = e;
        job->items[i] = item_of(e, &items[i], page->first + i);
        page->body_bytes += e->msg->body_len;
        page->journalled |= (e->flags & ENTRY_JOURNALLED) != 0;
    }
    job->ticket = page_ticket(TICKET_DELAY, w);
    job->queue = d->queue->id;
    job->sync = page->journalled;
}

/* False: nothing is far enough, or no memory. */
static bool write_last(struct broker *b, struct delay *d)
{
    struct page_job *job = NULL;
    size_t memory;
    uint32_t count = gather(b, d, &memory);
    struct delay_write *w = count ? write_new(b, d, count, &job) : NULL;
    if (!w) {
        delay_heap_put_back(&d->messages, count);
        return false;
    }
    fill(d, w, job);
    d->memory -= memory;
    b->delay_memory -= memory;
    d->write_count++;
    list_insert(&d->writes, &w->link);
    b->writing_memory += page_job_memory(job);
    b->page_writes++;
    CHECK(paging_send(b, job));
    return true;
}

/* One page of the vhost, if the round wants more of it. */
static bool write_some(struct broker *b, struct delay *d)
{
    if (d->round != b->delay_round) {
        d->round = b->delay_round;
        d->least = d->memory / 8;
    }
    return d->memory > d->least && !(d->retry && dedup_by_presence(d->queue)) && write_last(b, d);
}

bool delays_write(struct broker *b)
{
    if (!b->delay_writing && (!paging_may_write(b) || b->delay_memory <= limit(b)))
        return false;
    if (!b->delay_writing) {
        b->delay_round++;
        b->delay_news++;
    }
    b->delay_writing = true;
    for (unsigned tries = TRIES, writes = WRITES; tries && writes && paging_can_write(b); tries--) {
        struct delay *d = LIST_FIRST(&b->delays, struct delay, link);
        if (!d || d->idle_since == b->delay_news) { /* once around, in however many ticks, nobody wrote anything */
            b->delay_writing = false;
            return false;
        }
        list_remove(&d->link);
        if (d->messages.count)
            list_insert(&b->delays, &d->link); /* its turn again, after the others */
        if (write_some(b, d)) {
            b->delay_news++;
            writes--;
        } else
            d->idle_since = b->delay_news;
    }
    return paging_can_write(b);
}

/* ---- what was written is used ---- */

/* Positions that the journal does not know are no part of what PAGE says. False: no memory. */
static bool note_transient(const struct delay_write *w)
{
    struct page *page = w->page;
    bool ok = true;
    for (uint32_t i = 0; ok && i < w->count; i++)
        if (!(w->entries[i]->flags & ENTRY_JOURNALLED))
            ok = page_hole(page, page->first + i, 1);
    page->transient = page->holes; /* the same sorted runs, and it has no holes yet */
    page->holes = (struct ranges){0};
    return ok;
}

/* Where its messages were, as runs. False: no memory. */
static bool old_positions(const struct delay_write *w, struct ranges *ret)
{
    ret->runs = mem_alloc(w->count * sizeof *ret->runs);
    if (!ret->runs)
        return false;
    for (uint32_t i = 0; i < w->count; i++) {
        uint64_t position = w->entries[i]->position;
        if (!(w->entries[i]->flags & ENTRY_JOURNALLED))
            continue;
        if (ret->count && ret->runs[ret->count - 1].last + 1 == position)
            ret->runs[ret->count - 1].last++;
        else
            ret->runs[ret->count++] = (struct range){position, position};
    }
    return true;
}

/* D2. False: no memory, or no room. */
static bool journal_write(struct broker *b, struct delay_write *w)
{
    struct ranges old = {0};
    if (!w->page->journalled)
        return true;
    bool ok = note_transient(w) && old_positions(w, &old);
    size_t need = log_captured_bytes(log_page_bytes(w->page), 1) + log_captured_bytes(log_remove_bytes(&old), 1);
    if (ok && (ok = log_capture_begin(b, need, 2))) {
        b->promised = 0;
        CHECK(log_page(b, w->page) && log_remove(b, w->delay->queue, &old));
        w->page->lsn = log_capture_end(b);
    }
    mem_free(old.runs);
    return ok;
}

/* A message that waits joins or leaves the memory that paging may free. */
static void memory(struct broker *b, struct entry *e, bool joins)
{
    if (!(e->flags & ENTRY_DELAYED))
        backlog_memory(b, e, joins);
    else if (joins)
        b->ready_memory += entry_memory(e);
    else
        b->ready_memory -= entry_memory(e);
}

/* The message is on disk, at its new position: it leaves memory. */
static void entry_paged(struct broker *b, struct entry *e)
{
    compact_entry_removed(b, e);
    memory(b, e, false);
    list_remove(&e->link);
    if (e->page)
        paging_entry_gone(b, e);
    else if (e->flags & ENTRY_JOURNALLED)
        b->journalled_bytes -= msg_size(e->msg);
    b->paged++;
    msg_unref(&b->heap, e->msg);
    pool_give(&b->entries, e);
}

static bool use(struct broker *b, struct delay_write *w)
{
    struct delay *d = w->delay;
    struct page *page = w->page;
    if (!segment_join(b, page))
        return false;
    if (!journal_write(b, w)) {
        segment_leave(b, page);
        return false;
    }
    page->state = PAGE_ON_DISK;
    page_pack(page);
    list_insert(&d->queue->busy->pages, &page->queue_link);
    delay_heap_put(&d->pages, delay_item_of_page(page));
    w->page = NULL;
    for (uint32_t i = 0; i < w->count; i++)
        entry_paged(b, w->entries[i]);
    d->entries -= w->count;
    return true;
}

static void was_written(struct broker *b, struct delay_write *w, struct page_job *job)
{
    struct delay *d = w->delay;
    b->page_writes--;
    b->writing_memory -= page_job_memory(job);
    if (d)
        d->write_count--;
    if (job->err)
        paging_pause(b, &b->writing_paused);
    w->page->where = job->where;
    if (job->err || !d || !use(b, w)) {
        if (!job->err)
            segment_unused(b, &job->where);
        for (uint32_t i = 0; d && i < w->count; i++)
            delay_put(b, d, w->entries[i]);
    }
    write_free(b, &w);
    if (d)
        delay_go_on(b, d);
}

/* ---- reading ---- */

/* What a page takes in memory, at most: only its first message may have taken it beyond page_bytes, and nothing of the first is left
 * out of the page. */
static size_t page_memory(const struct broker *b, const struct page_where *where, uint32_t count)
{
    return paging_page_bytes(b) + where->len + sizeof(struct msg) + count * ENTRY_COST;
}

/* D4. What is read before it has to be leaves half of the room, so that it begins no round; and a round that goes on is not given what it writes. */
static bool wanted(struct broker *b, const struct delay *d, const struct page *page)
{
    const struct delay_item *first = delay_heap_first(&d->messages), *own = delay_heap_first(&d->pages);
    size_t bytes = page_memory(b, &page->where, page->count);
    if (own->due > b->wall + DELAY_NEAR_MS)
        return false;
    return (!b->delay_writing && b->delay_memory + b->delay_reading + bytes <= limit(b) / 2) ||
           (d->read_count == 0 && (!first || delay_before(own, first)));
}

bool delay_read(struct broker *b, struct delay *d)
{
    const struct delay_item *item;
    while (d->read_count < READ_AHEAD && (item = delay_heap_first(&d->pages)) && wanted(b, d, item->what)) {
        struct page *page = item->what;
        if (b->reading_paused || paging_overloaded(b) || !paging_may_read(b))
            return false;
        struct page_job *job = page_job_to_read(page);
        if (!job) {
            paging_pause(b, &b->reading_paused);
            return false;
        }
        job->ticket = page_ticket(TICKET_DELAY, page);
        CHECK(paging_send(b, job));
        (void)delay_heap_take_first(&d->pages);
        page->state = PAGE_READING;
        page->reading = true;
        list_insert(&d->reads, &page->lane_link);
        d->read_count++;
        b->page_reads++;
        b->delay_reading += page_memory(b, &page->where, page->count);
    }
    return true;
}

/* Whether the position is none of those that the journal does not know; *at goes along with it. */
static bool is_journalled(const struct page *page, uint64_t position, uint32_t *at)
{
    const struct ranges *transient = &page->transient;
    while (*at < transient->count && transient->runs[*at].last < position)
        ++*at;
    return *at == transient->count || transient->runs[*at].first > position;
}

static void load_item(struct broker *b, struct delay *d, struct page *page, struct page_item *item, bool journalled)
{
    struct entry *e = pool_take(&b->entries);
    CHECK(e);
    *e = (struct entry){.msg = item->msg,
                        .queue = d->queue,
                        .page = page,
                        .position = item->position,
                        .deadline = item->deadline,
                        .returns = item->returns};
    item->msg = NULL; /* its reference went into the entry */
    if (page->retry) {
        page->origins[1 + (item->position - page->origins[0])] = item->origin;
        e->lsn = (lsn_t)item->due;
        e->lane = lane_of_msg(d->queue, e->msg);
        e->flags |= ENTRY_DELAYED | ENTRY_REDELIVERED;
    }
    if (journalled && backlog_journals(d->queue, e->msg))
        e->flags |= ENTRY_JOURNALLED;
    list_insert(&d->loaded, &e->link);
    memory(b, e, true);
    delay_put(b, d, e);
}

/* All that is alive of the page joins the heap. */
static void load(struct broker *b, struct delay *d, struct page *page, struct page_job *job)
{
    uint64_t body_bytes = 0;
    uint32_t transient = 0;
    for (uint32_t i = 0; i < job->count; i++) {
        struct page_item *item = &job->items[i];
        if (page_is_hole(page, item->position))
            continue;
        body_bytes += item->msg->body_len;
        load_item(b, d, page, item, page->journalled && is_journalled(page, item->position, &transient));
    }
    d->entries += page->live;
    *page_body_bytes(page) += body_bytes - page->body_bytes;
    b->totals.message_bytes += body_bytes - page->body_bytes;
    page->body_bytes = body_bytes;
    page->state = PAGE_LOADED;
    b->paged -= page->live;
}

/* Room for where the messages of a page of retries belong. False: no memory. */
static bool origins_reserve(struct page *page)
{
    if (!page->retry)
        return true;
    mem_free(page->origins);
    page->origins = mem_alloc((page->last - page->first + 2) * sizeof page->origins[0]);
    if (page->origins)
        page->origins[0] = page->first;
    return page->origins != NULL;
}

/* Its checksums were right: is this what the journal tells of? */
static bool fits(const struct page *page, const struct page_job *job)
{
    bool ok = page_fits(page, job);
    for (uint32_t i = 0; ok && i < job->count; i++)
        ok = page->retry ? job->items[i].origin && job->items[i].origin < page->first : !job->items[i].origin;
    return ok;
}

static void was_read(struct broker *b, struct page *page, struct page_job *job)
{
    page->reading = false;
    b->page_reads--;
    b->delay_reading -= page_memory(b, &job->where, job->count);
    if (!page->queue) {
        page_free(b, page);
        return;
    }
    struct delay *d = delay_of_page(page);
    list_remove(&page->lane_link);
    d->read_count--;
    page->state = PAGE_ON_DISK;
    if (!job->err && !page_unpack(page))
        job->err = -ENOMEM;
    if (job->err == -EILSEQ || (!job->err && !fits(page, job)))
        page->state = PAGE_DAMAGED; /* S5 */
    else if (job->err || !pool_reserve_many(&b->entries, page->live) || !page_reserve(page) || !origins_reserve(page) ||
             !delay_heap_reserve(&d->messages, (uint64_t)d->entries + page->live)) {
        delay_heap_put(&d->pages, delay_item_of_page(page));
        paging_pause(b, &b->reading_paused);
    } else
        load(b, d, page, job);
    delay_go_on(b, d);
}

void delay_answered(struct broker *b, struct page_job *job)
{
    void *whose = page_ticket_whose(job->ticket);
    if (job->type == PAGE_WRITE)
        was_written(b, whose, job);
    else
        was_read(b, whose, job);
}

void delay_page_begins(struct page *page, const struct page_item *item)
{
    page->deadline = item->origin ? retry_wake(item->due, item->deadline) : item->deadline;
    page->arrival = item->origin ? (uint32_t)item->origin : item->returns;
}

/* ---- a start, and the end ---- */

bool delay_page_recovered(struct broker *b, struct page *page)
{
    struct delay *d = page->retry ? retry_make(page->queue) : page->queue->vhost->delay;
    if (!d || !reserve_page(d))
        return false;
    delay_heap_put(&d->pages, delay_item_of_page(page));
    delay_wake_by(b, d, page->deadline - DELAY_NEAR_MS);
    return true;
}

/* What is being written stays with its entries, which the queue frees. */
static void drop_writes(struct broker *b, struct delay *d)
{
    LIST_EACH(&d->writes, node, after)
    {
        struct delay_write *w = CONTAINER_OF(node, struct delay_write, link);
        w->delay = NULL;
        w->page->queue = NULL;
        list_remove(&w->link);
        list_insert(&b->adrift_writes, &w->link);
    }
    d->write_count = 0;
}

void delay_pages_drop(struct broker *b, struct delay *d, bool journal)
{
    drop_writes(b, d);
    LIST_EACH(&d->queue->busy->pages, node, after)
    {
        struct page *page = CONTAINER_OF(node, struct page, queue_link);
        if (page->retry != d->retry || page->state == PAGE_LOADED) /* that one goes with its last message */
            continue;
        if (journal && page->journalled)
            page_removed(b, page);
        page_dropped(b, page);
    }
    d->read_count = 0;
    delay_heap_fini(&d->pages);
}

void delays_fini(struct broker *b)
{
    LIST_EACH(&b->adrift_writes, node, after)
    {
        struct delay_write *w = CONTAINER_OF(node, struct delay_write, link);
        write_free(b, &w);
    }
}

/* ---- tests ---- */

static void check_messages(const struct delay *d, const struct list *list, uint64_t *bytes, uint64_t *memory)
{
    LIST_EACH(list, node, after)
    {
        const struct entry *e = CONTAINER_OF(node, struct entry, link);
        CHECK(e->queue == d->queue && e->position < d->queue->next_position && atomic_load(&e->msg->refs) > 0);
        CHECK(!(e->flags & (ENTRY_FRONT | ENTRY_UNACKED)) && ((e->flags & ENTRY_DELAYED) != 0) == d->retry);
        CHECK(d->retry || (list == &d->loaded) == (e->page != NULL));
        CHECK(!e->page || (e->page->queue == d->queue && page_has(e->page, e->position)));
        CHECK(!e->page || e->page->state == PAGE_LOADED || (d->retry && !e->page->retry));
        *bytes += e->msg->body_len;
        *memory += entry_memory(e);
    }
}

/* D1, P4, and that each message is in one place. */
static uint64_t check_pages(const struct delay *d, uint64_t *bytes)
{
    uint64_t messages = 0, last, alive;
    uint32_t on_disk = 0, reading = 0;
    LIST_EACH(&d->queue->busy->pages, node, after)
    {
        const struct page *page = CONTAINER_OF(node, struct page, queue_link);
        if (page->retry != d->retry)
            continue;
        alive = 0;
        for (uint64_t at = page->first; page_alive_from(page, &at, &last); at = last + 1)
            alive += last - at + 1;
        CHECK(alive == page->live && page->live && page->last - page->first + 1 >= page->count);
        on_disk += page->state == PAGE_ON_DISK;
        reading += page->state == PAGE_READING;
        if (page->state == PAGE_LOADED)
            continue;
        messages += page->live;
        *bytes += page->body_bytes;
    }
    CHECK(on_disk == d->pages.count && reading == d->read_count);
    return messages;
}

uint64_t delay_check(const struct delay *d, uint64_t *ret_bytes, uint64_t *ret_memory)
{
    const struct queue *q = d->queue;
    uint64_t heap = 0, others = 0;
    delay_heap_check(&d->messages);
    delay_heap_check(&d->pages);
    if (!d->retry)
        check_messages(d, &q->busy->lane.entries, ret_bytes, ret_memory);
    check_messages(d, &d->loaded, ret_bytes, ret_memory);
    for (uint32_t i = 0; i < d->messages.count; i++)
        heap += entry_memory(d->messages.items[i].what);
    CHECK(heap == d->memory);
    for (const struct list *at = d->fresh; at && at != &q->busy->lane.entries; at = at->next)
        others++;
    LIST_EACH(&d->writes, node, after)
    others += CONTAINER_OF(node, struct delay_write, link)->count;
    CHECK(d->entries == d->messages.count + others && (d->messages.count == 0 || !list_empty(&d->link)));
    return d->entries + check_pages(d, ret_bytes);
}
