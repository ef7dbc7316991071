/* Delayed retry, see retry.h. Where messages wait, in memory and in pages, is delay_page.c's; this is what becomes of a queue's.
 *
 *   lane, unacknowledged ──park──▶ heap ◀──────────── pages of retries
 *           its place by position ◀──release── heap
 *
 * Invariants:
 *   R1  a delayed entry is in wait->loaded, and in the heap or being written; it is in no lane. A delayed message counts as
 *       delayed, neither ready nor unacknowledged, and towards no length limit until it is back.
 *   R2  order is by when a message is looked at again: its time, or before it its expiry (TTL goes on); then by its place.
 *   R3  a journalled entry's time is in the journal (RETRY), behind what a compaction wrote of the entry; or in the page of retries
 *       that it was read from. A message that another page on disk holds is delayed when the page is read, if its time has not
 *       come by then.
 *   R4  a message in a page of retries has another position there (delay_page.c, D1), and the page says where its place in the
 *       queue is. It comes back to that with one record, a MOVE within its queue; nobody else has had the place meanwhile.
 *   R5  what is due waits while the front of its lane is full, so it may all be due at once; but not while somebody looks through the queue
 *       (scan.h). While it waits no page of retries is read.
 *
 * Without memory for the heap a message comes back at once: late is better than never, but early is better than lost. While keys of
 * a queue count because their messages are there (dedup.h), its messages keep their positions, and stay in memory.
 */
#include "core/delay_int.h"

/* ---- how long ---- */

bool retry_enabled(const struct queue_rules *rules)
{
    return rules->retry_min_ms > 0 && rules->retry_type != RETRY_DISABLED;
}

static int64_t times(int64_t delay, int64_t factor)
{
    return delay > TIME_MS_MAX / factor ? TIME_MS_MAX : delay * factor;
}

wall_t retry_due(const struct broker *b, const struct queue *q, enum back back, uint32_t returns)
{
    const struct queue_rules *rules = q->rules;
    if (!retry_enabled(rules) || back == BACK_NOT || (rules->retry_type == RETRY_FAILED && back != BACK_FAILED) ||
        (rules->retry_type == RETRY_RETURNED && back != BACK_RETURNED))
        return 0;
    int64_t delay = rules->retry_min_ms, most = rules->retry_max_ms > 0 ? rules->retry_max_ms : TIME_MS_MAX;
    if (rules->retry_multiplier < 0)
        delay = times(delay, returns ? returns : 1);
    for (uint32_t i = 1; i < returns && rules->retry_multiplier > 1 && delay < most; i++)
        delay = times(delay, rules->retry_multiplier);
    return b->wall + (delay < most ? delay : most);
}

/* ---- waiting ---- */

struct delay *retry_make(struct queue *q)
{
    if (!queue_extra_make(q))
        return NULL;
    struct retry *r = &q->extra->retry;
    if (!r->wait && (r->wait = delay_new())) {
        r->wait->queue = q;
        r->wait->retry = true;
    }
    return r->wait;
}

bool retry_park(struct broker *b, struct entry *e, wall_t due)
{
    struct queue *q = e->queue;
    struct delay *d = retry_make(q);
    if (!d || !delay_heap_reserve(&d->messages, (uint64_t)d->entries + 1))
        return false;
    backlog_leave(b, e);
    e->flags |= ENTRY_DELAYED;
    e->lsn = (lsn_t)due;
    list_insert(&d->loaded, &e->link);
    q->extra->retry.count++;
    q->extra->retry.bytes += e->msg->body_len;
    b->ready_memory += entry_memory(e);
    d->entries++;
    delay_put(b, d, e);
    delay_wake_by(b, d, retry_wake(due, e->deadline));
    return true;
}

void retry_leave(struct broker *b, struct entry *e)
{
    struct retry *r = &e->queue->extra->retry;
    list_remove(&e->link);
    r->count--;
    r->bytes -= e->msg->body_len;
    b->ready_memory -= entry_memory(e);
    e->flags &= (uint8_t)~ENTRY_DELAYED;
    e->lsn = 0;
}

/* Out of its page, to its place (R4). False: no memory, or no room. */
static bool take_out(struct broker *b, struct entry *e, lsn_t *ret_lsn)
{
    struct target place = {.queue = e->queue,
                           .position = retry_origin(e),
                           .deadline = e->deadline,
                           .returns = e->returns,
                           .redelivered = true};
    if (e->flags & ENTRY_JOURNALLED) {
        if (!log_reserve(b, log_enqueue_bytes(e->msg, 1), 1))
            return false;
        *ret_lsn = log_enqueue(b, e->msg, &place, 1, e, false, true);
        b->journalled_bytes += msg_size(e->msg);
    }
    if (b->compact.phase == COMPACT_MESSAGES) /* the record is behind its queue's */
        e->snap_gen = b->compact.gen;
    paging_entry_gone(b, e);
    e->position = place.position;
    return true;
}

/* Into its place: the oldest of all, often. What has expired meanwhile does so there. */
bool retry_release(struct broker *b, struct entry *e)
{
    lsn_t lsn = 0;
    if (e->page && e->page->retry && !take_out(b, e, &lsn))
        return false;
    backlog_requeue(b, e);
    e->lsn = lsn;
    return true;
}

/* ---- room ---- */

/* Who chooses by a selector sees all that is due: the front may be full of what nobody wants. */
bool retry_has_room(struct broker *b, struct delay *d, const struct entry *e)
{
    const struct busy *w = d->queue->busy;
    d->held = list_empty(&w->scans) && paging_front_is_full(b, &w->lanes[e->lane]);
    return !d->held;
}

void retry_goes_on(struct broker *b, struct queue *q)
{
    struct delay *d = q->extra->retry.wait;
    if (!d || !d->held)
        return;
    d->held = false;
    delay_wake_by(b, d, b->wall);
}

/* ---- what waits ---- */

wall_t retry_due_of(const struct entry *e)
{
    return (wall_t)e->lsn;
}

struct list *retry_list(const struct queue *q)
{
    return q->extra && q->extra->retry.wait ? &q->extra->retry.wait->loaded : NULL;
}

void retry_purge(struct broker *b, struct queue *q)
{
    struct list *list = retry_list(q);
    if (!list)
        return;
    delay_clear(b, q->extra->retry.wait, true);
    while (!list_empty(list))
        backlog_remove(b, CONTAINER_OF(list->next, struct entry, link), REASON_PURGED);
    queue_calmed(b, q);
}

void retry_drop(struct broker *b, struct queue *q)
{
    struct list *list = retry_list(q);
    if (!list)
        return;
    delay_clear(b, q->extra->retry.wait, false);
    while (!list_empty(list))
        backlog_free(b, CONTAINER_OF(list->next, struct entry, link));
    mem_free(q->extra->retry.wait);
    q->extra->retry.wait = NULL;
}

uint64_t retry_check(const struct queue *q)
{
    uint64_t bytes = 0, memory = 0;
    if (!retry_list(q)) {
        CHECK(queue_delayed(q) == 0);
        return 0;
    }
    const struct retry *r = &q->extra->retry;
    CHECK(delay_check(r->wait, &bytes, &memory) == r->count && bytes == r->bytes);
    return memory;
}
