/* The entries of a queue: lanes of waiting messages, the list of unacknowledged ones, limits and expiry.
 *
 * Invariants:
 *   B1  an entry is in exactly one list: a lane of its queue, the queue's unacked list, its delayed list (retry.c), or
 *       (queue NULL) its channel alone.
 *   B2  a lane is sorted by position (front, pages, entries: paging.c); a priority queue has one lane per priority, highest
 *       served first.
 *   B3  ready_count and ready_bytes are the sums over the lanes, unacked_count over the unacked list.
 *   B4  a journalled entry leaves the queue only through a record: REMOVE (here, gathered into runs and written once per
 *       tick), MOVE (dead letters) or the queue's own deletion.
 *
 * backlog_append, backlog_head and backlog_take are the only ways to a waiting message. A head may be NULL although messages
 * wait: it is being read from disk, and the queue is scheduled when it has come.
 */
#include "core/core_int.h"

#define EXPIRE_PER_SLICE 512u
#define RANGES_MAX 4096u

static void ttl_fired(void *arg, struct timer *timer);

void backlog_init(struct busy *busy)
{
    timer_init(&busy->ttl_timer, ttl_fired);
}

struct entry *backlog_head(struct queue *q)
{
    struct busy *w = q->busy;
    if (w->lanes == &w->lane)
        return lane_first(&w->lane);
    for (int i = q->rules->max_priority; i >= 0; i--)
        if (w->lanes[i].count)
            return lane_first(&w->lanes[i]);
    return NULL;
}

struct list *lane_list_of(struct lane *lane, const struct entry *e)
{
    return e->flags & ENTRY_FRONT ? &lane->paging->front : &lane->entries;
}

void backlog_want(struct broker *b, struct queue *q)
{
    for (unsigned i = 0; i < lane_count(q); i++)
        if (q->busy->lanes[i].paging)
            paging_want(b, q, &q->busy->lanes[i]);
}

void backlog_memory(struct broker *b, struct entry *e, bool joins)
{
    struct queue *q = e->queue;
    struct busy *w = q->busy;
    size_t bytes = entry_memory(e);
    if (!joins) {
        b->ready_memory -= bytes;
        w->memory -= bytes;
        return;
    }
    b->ready_memory += bytes;
    w->memory += bytes;
    if (!q->fat && (!q->thin || w->memory >= b->fat_bytes))
        paging_listed(b, q);
}

wall_t backlog_deadline(const struct broker *b, const struct queue *q, const struct msg *msg)
{
    int64_t ttl = q->rules->message_ttl_ms;
    if (msg->expiration_ms >= 0 && (ttl < 0 || msg->expiration_ms < ttl))
        ttl = msg->expiration_ms;
    return ttl < 0 ? WALL_NEVER : b->wall + ttl;
}

uint8_t lane_of_msg(const struct queue *q, const struct msg *msg)
{
    return q->busy->lanes == &q->busy->lane         ? 0
           : msg->priority < q->rules->max_priority ? msg->priority
                                                    : q->rules->max_priority;
}

/* The queue is busy, and the entry pool must have room (pool_reserve). Takes over one reference of msg. */
struct entry *backlog_append(struct broker *b, struct queue *q, struct msg *msg, uint64_t position, lsn_t lsn,
                             wall_t deadline, bool journalled)
{
    struct busy *w = q->busy;
    struct entry *e = pool_take(&b->entries);
    if (!e)
        return NULL;
    unsigned lane = lane_of_msg(q, msg);
    *e = (struct entry){.msg = msg,
                        .queue = q,
                        .position = position,
                        .lsn = lsn,
                        .deadline = deadline,
                        .lane = (uint8_t)lane,
                        .flags = journalled ? ENTRY_JOURNALLED : 0};
    if (deadline <= b->wall && !w->selecting && queue_has_ready_consumer(b, q))
        e->flags |= ENTRY_FRESH;
    struct list *list = &w->lanes[lane].entries;
    list_insert(list, &e->link);
    if (w->lanes[lane].paging && w->lanes[lane].paging->unwritten == list)
        w->lanes[lane].paging->unwritten = &e->link;
    backlog_memory(b, e, true);
    w->lanes[lane].count++;
    w->ready_count++;
    w->ready_bytes += msg->body_len;
    b->totals.messages++;
    b->totals.message_bytes += msg->body_len;
    if (journalled)
        b->journalled_bytes += msg_size(msg);
    if (deadline != WALL_NEVER && lane_first(&w->lanes[lane]) == e)
        backlog_arm(b, q);
    return e;
}

static void leave_lane(struct broker *b, struct entry *e)
{
    struct queue *q = e->queue;
    struct busy *w = q->busy;
    struct lane *lane = &w->lanes[e->lane];
    bool was_head = e->link.prev == lane_list_of(lane, e), was_first = lane_first(lane) == e;
    lane_forgets(q, e);
    backlog_memory(b, e, false);
    if (lane->paging)
        paging_left(b, lane, e);
    list_remove(&e->link);
    lane->count--;
    w->ready_count--;
    w->ready_bytes -= e->msg->body_len;
    if (q->fed && w->ready_count % 64 == 0)
        feed_hungry_queue(b, q);
    if (q->mqtt && b->mqtt.takers)
        queue_schedule(b, q); /* when it has been pumped it is seen whether there is room for what moves to it */
    if (!was_head || q->deleting || q->hidden)
        return;
    struct entry *next = lane_first(lane);
    if (next ? next->deadline != WALL_NEVER : lane->count)
        backlog_arm(b, q); /* its time counts from now on */
    if (lane->paging && was_first)
        paging_want(b, q, lane);
    else if (lane->paging)
        paging_end(b, q, lane); /* nobody waits for what lies before it because of it */
}

void backlog_take(struct broker *b, struct entry *e)
{
    struct queue *q = e->queue;
    struct busy *w = q->busy;
    compact_moving(b, e);
    leave_lane(b, e);
    list_insert(&w->unacked, &e->link);
    e->flags |= ENTRY_UNACKED;
    w->unacked_count++;
    w->unacked_bytes += e->msg->body_len;
    b->totals.unacked++;
}

static inline void leave_unacked(struct broker *b, struct entry *e)
{
    struct busy *w = e->queue->busy;
    list_remove(&e->link);
    e->flags &= (uint8_t)~ENTRY_UNACKED;
    w->unacked_count--;
    w->unacked_bytes -= e->msg->body_len;
    b->totals.unacked--;
}

void backlog_leave(struct broker *b, struct entry *e)
{
    if (e->flags & ENTRY_UNACKED)
        leave_unacked(b, e);
    else if (e->flags & ENTRY_DELAYED)
        retry_leave(b, e);
    else
        leave_lane(b, e);
}

/* Back to its place by position. Returned entries are usually older than all that wait; the hint makes a run of returns,
 * ascending or descending, cost O(1) each. */
void backlog_requeue(struct broker *b, struct entry *e)
{
    struct queue *q = e->queue;
    struct busy *w = q->busy;
    compact_moving(b, e);
    backlog_leave(b, e);
    e->flags &= (uint8_t)~ENTRY_FRESH;
    struct lane *lane = &w->lanes[e->lane];
    bool to_front = lane->paging != NULL;
    struct list *head = to_front ? &lane->paging->front : &lane->entries;
    struct list *at = NULL;
    if (w->requeue_hint && w->requeue_hint->lane == e->lane &&
        to_front == ((w->requeue_hint->flags & ENTRY_FRONT) != 0)) {
        at = &w->requeue_hint->link;
        while (at != head && CONTAINER_OF(at, struct entry, link)->position > e->position)
            at = at->prev;
        at = at->next;
        while (at != head && CONTAINER_OF(at, struct entry, link)->position < e->position)
            at = at->next;
    } else
        at = entry_place(head, e->position);
    list_insert(at, &e->link);
    w->requeue_hint = e;
    if (to_front) {
        front_grows(b, lane, e);
    }
    scans_returned(q, e);
    backlog_memory(b, e, true);
    w->lanes[e->lane].count++;
    w->ready_count++;
    w->ready_bytes += e->msg->body_len;
    if (e->deadline != WALL_NEVER)
        backlog_arm(b, q);
}

void backlog_free(struct broker *b, struct entry *e)
{
    if (e->queue) {
        compact_entry_removed(b, e);
        if (e->queue->extra)
            dedup_left(b, e);
        backlog_leave(b, e);
        queue_calmed(b, e->queue);
    }
    b->totals.messages--;
    b->totals.message_bytes -= e->msg->body_len;
    if (e->page)
        paging_entry_gone(b, e); /* a page that it was read from counted what the journal holds */
    else if (e->flags & ENTRY_JOURNALLED)
        b->journalled_bytes -= msg_size(e->msg);
    msg_unref(&b->heap, e->msg);
    pool_give(&b->entries, e);
}

/* ---- removals, gathered into runs ---- */

/* False: no memory, nothing was written. */
static bool flush_queue(struct broker *b, struct queue *q)
{
    struct busy *w = q->busy;
    if (w->removed.count && !b->recovering && !log_remove(b, q, &w->removed))
        return false; /* no memory: they stay for the next tick */
    w->removed.count = 0;
    if (w->removed.max > 64) {
        mem_free(w->removed.runs);
        w->removed = (struct ranges){0};
    }
    q->removal_dirty = false;
    list_remove(&w->removal_link);
    return true;
}

void backlog_removed(struct broker *b, struct queue *q, uint64_t first, uint64_t last)
{
    struct busy *w = q->busy;
    if (b->recovering)
        return;
    struct ranges *r = &w->removed;
    struct range *run = r->count ? &r->runs[r->count - 1] : NULL;
    if (!q->removal_dirty) {
        q->removal_dirty = true;
        list_insert(&b->removals, &w->removal_link);
    }
    if (run && run->last + 1 == first) {
        run->last = last;
        return;
    }
    if (run && run->first == last + 1) {
        run->first = first;
        return;
    }
    if (r->count == r->max) {
        uint32_t max = r->max ? r->max * 2 : 4;
        struct range *grown = max <= RANGES_MAX ? mem_realloc(r->runs, max * sizeof *grown) : NULL;
        if (grown) {
            r->runs = grown;
            r->max = max;
        } else { /* full, or no memory: write what there is and go on with what we have */
            struct range one = {first, last};
            struct ranges alone = {.runs = &one, .count = 1, .max = 1};
            if (r->count && !log_remove(b, q, r))
                b->removal_lost = true;
            r->count = 0;
            if (r->max == 0) {
                if (!log_remove(b, q, &alone))
                    b->removal_lost = true;
                return;
            }
        }
    }
    r->runs[r->count++] = (struct range){first, last};
}

void backlog_flush_removals(struct broker *b)
{
    while (!list_empty(&b->removals))
        if (!flush_queue(b, CONTAINER_OF(b->removals.next, struct busy, removal_link)->queue))
            break;
    b->removal_epoch++;
}

void backlog_remove(struct broker *b, struct entry *e, enum reason reason)
{
    struct queue *q = e->queue;
    switch (reason) {
    case REASON_ACKED: b->totals.acked++; break;
    case REASON_EXPIRED: b->totals.expired++; break;
    case REASON_MAXLEN:
    case REASON_REJECTED:
    case REASON_DELIVERY_LIMIT: b->totals.dropped++; break;
    default: break;
    }
    if (q && (e->flags & ENTRY_JOURNALLED) && reason != REASON_MOVED)
        backlog_removed(b, q, e->position, e->position);
    backlog_free(b, e);
}

/* ---- limits ---- */

static bool over(const struct queue *q, uint64_t count, uint64_t bytes)
{
    return (q->rules->max_length >= 0 && count > (uint64_t)q->rules->max_length) ||
           (q->rules->max_length_bytes >= 0 && bytes > (uint64_t)q->rules->max_length_bytes);
}

/* What has moved to a client of MQTT and not been sent yet was safe where it lay: no limit of his queue sees it. */
static struct mqtt_unsent unseen(struct queue *q)
{
    return q->mqtt && q->busy->consumer_count ? mqtt_share_unsent(q) : (struct mqtt_unsent){.next = backlog_head(q)};
}

/* As RabbitMQ counts: as if the message were to wait, whoever is ready. But what waits only to be durable and will then be
 * taken at once is not there any more. */
bool backlog_would_overflow(struct queue *q, const struct msg *msg)
{
    uint64_t ready = q->busy->ready_count + q->busy->planned_count,
             ready_bytes = q->busy->ready_bytes + q->busy->planned_bytes;
    if (q->rules->overflow == OVERFLOW_DROP_HEAD || !over(q, ready + 1, ready_bytes + msg->body_len))
        return false;
    struct mqtt_unsent unsent = unseen(q);
    uint64_t appetite = queue_appetite(q, ready);
    ready -= unsent.count;
    ready_bytes -= unsent.bytes;
    appetite -= unsent.count < appetite ? unsent.count : appetite;
    uint64_t left = ready - appetite;
    uint64_t bytes = left ? ready_bytes / ready * left : 0;
    return over(q, left + 1, bytes + msg->body_len);
}

/* Drops from the head until the queue is within its limits again. A queue that refuses publishes drops nothing it has
 * accepted: what comes back to it is kept above the limit. */
void backlog_limit(struct broker *b, struct queue *q)
{
    if (q->rules->overflow != OVERFLOW_DROP_HEAD || (q->rules->max_length < 0 && q->rules->max_length_bytes < 0))
        return;
    while (q->busy->ready_count && over(q, q->busy->ready_count, q->busy->ready_bytes)) {
        struct mqtt_unsent unsent = unseen(q);
        struct entry *oldest = unsent.next; /* the head even among priorities, as RabbitMQ has it */
        if (!over(q, q->busy->ready_count - unsent.count, q->busy->ready_bytes - unsent.bytes))
            return;
        if (!oldest)
            backlog_want(b, q);
        if (!oldest || !dead_letter(b, oldest, REASON_MAXLEN))
            return; /* on disk, or no memory: above the limit for a while */
    }
}

/* ---- expiry: the heads of the lanes, as RabbitMQ's classic queues do ---- */

static void ttl_fired(void *arg, struct timer *timer)
{
    struct broker *b = arg;
    struct queue *q = CONTAINER_OF(timer, struct busy, ttl_timer)->queue;
    backlog_expire(b, q);
    queue_schedule(b, q);
}

unsigned lane_count(const struct queue *q)
{
    return q->busy->lanes == &q->busy->lane ? 1 : q->rules->max_priority + 1u;
}

void backlog_arm(struct broker *b, struct queue *q)
{
    wall_t next = WALL_NEVER;
    for (unsigned i = 0; i < lane_count(q); i++) {
        struct entry *e = lane_first(&q->busy->lanes[i]);
        wall_t deadline = e ? e->deadline : paging_deadline(&q->busy->lanes[i]);
        next = deadline < next ? deadline : next;
    }
    if (next == WALL_NEVER) {
        wheel_cancel(&b->wheel, &q->busy->ttl_timer);
        return;
    }
    int64_t wait_ms = next > b->wall ? next - b->wall : 0;
    if (wait_ms > 365LL * 86400 * 1000)
        wait_ms = 365LL * 86400 * 1000;
    wheel_set(&b->wheel, &q->busy->ttl_timer, b->now + wait_ms * NS_PER_MS);
}

/* What is due at a head goes, unless it is fresh and not looked at yet, or not durable: a delivery may still come first. */
void backlog_expire(struct broker *b, struct queue *q)
{
    unsigned budget = EXPIRE_PER_SLICE;
    bool waiting = false;
    for (unsigned i = 0; i < lane_count(q); i++) {
        struct entry *e;
        while ((e = lane_first(&q->busy->lanes[i])) && e->deadline <= b->wall && budget) {
            if (e->lsn > b->durable || ((e->flags & ENTRY_FRESH) && queue_has_ready_consumer(b, q))) {
                waiting = true;
                break;
            }
            if (!dead_letter(b, e, REASON_EXPIRED)) {
                waiting = true;
                break;
            }
            budget--;
        }
        if (!e && paging_deadline(&q->busy->lanes[i]) <= b->wall) {
            paging_want(b, q, &q->busy->lanes[i]); /* it goes when it has come */
            waiting = true;
        }
    }
    if (waiting) {
        wheel_set(&b->wheel, &q->busy->ttl_timer, b->now + 2 * NS_PER_MS);
    } else
        backlog_arm(b, q);
}
