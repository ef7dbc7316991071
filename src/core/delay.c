/* Delayed messages of x-delayed-message exchanges.
 *
 * They wait in a hidden queue of their vhost (name empty, never bound, never consumed), as entries whose deadline is when
 * they are due. Such a message is journalled when it is persistent and its exchange durable, and confirmed then; when due
 * it is routed by the exchange's x-delayed-type and moved (one MOVE record) into its queues. Those in memory that are durable
 * stand in a heap; the first of them, and the first of what is on disk (delay_page.c), set the vhost's one timer. Messages of a queue that
 * wait for their retry (retry.c) have a heap, pages and a timer like that.
 */
#include "core/delay_int.h"

#define DELAY_MAX_MS (INT64_MAX / 4 / NS_PER_MS)
#define TIMER_MAX_MS (180LL * 86400 * 1000)
#define RELEASE_PER_SLICE 512u
#define READ_RETRY_MS 20

bool delay_of(const struct exchange *x, const struct msg *msg, int64_t *ret_ms)
{
    struct amqp_value v;
    if ((!x->delayed && !(msg->flags & MSG_DELAYED)) || !(msg->flags & MSG_HAS_HEADERS) ||
        !amqp_table_find(msg_headers(msg), "x-delay", &v) || !amqp_value_is_int(&v))
        return false;
    *ret_ms = v.i > DELAY_MAX_MS ? DELAY_MAX_MS : v.i;
    return v.i > 0;
}

/* ---- when something is due ---- */

/* Routes what is due, by its BCC too, which was kept for that; without targets or exchange it is dropped, as an unroutable message
 * is. False: no memory. */
static bool release(struct broker *b, struct entry *e)
{
    struct exchange *x = exchange_find(e->queue->vhost, msg_exchange(e->msg));
    struct msg *copy = NULL;
    lsn_t lsn;
    if (x && (!route_message(b, x, e->msg, msg_headers(e->msg), &b->route) || !msg_hide_bcc(b, e->msg, &copy)))
        return false;
    struct msg *shown = copy ? copy : e->msg;
    bool moved = x && b->route.count;
    bool ok = !moved || enqueue_routed(b, shown, &b->route, e, &lsn) != ENQUEUE_NO_MEMORY;
    if (ok && x)
        audiences_tell(b, &b->route, shown, NULL);
    if (copy)
        msg_unref(&b->heap, copy);
    if (ok)
        backlog_remove(b, e, moved ? REASON_MOVED : REASON_EXPIRED);
    return ok;
}

static void leave(struct broker *b, struct delay *d, const struct entry *e)
{
    size_t bytes = entry_memory(e);
    d->memory -= bytes;
    b->delay_memory -= bytes;
}

void delay_put(struct broker *b, struct delay *d, struct entry *e)
{
    size_t bytes = entry_memory(e);
    delay_heap_put(&d->messages, delay_item_of(e));
    d->memory += bytes;
    b->delay_memory += bytes;
    if (list_empty(&d->link))
        list_insert(&b->delays, &d->link);
}

/* What is due leaves. False: no memory, or no room. */
static bool let_go(struct broker *b, struct delay *d, struct entry *e)
{
    return d->retry ? retry_release(b, e) : release(b, e);
}

/* True: one was released, and the next may be due too. */
static bool release_first(struct broker *b, struct delay *d, const struct delay_item *barrier)
{
    const struct delay_item *first = delay_heap_first(&d->messages);
    if (!first || first->due > b->wall || !delay_before(first, barrier) || !b->options.log.room(b->options.log.self))
        return false;
    if (d->retry && !retry_has_room(b, d, first->what))
        return false;
    struct entry *e = delay_heap_take_first(&d->messages).what;
    leave(b, d, e);
    if (!let_go(b, d, e)) {
        delay_put(b, d, e);
        return false;
    }
    d->entries--;
    return true;
}

static mono_t timer_due(const struct broker *b, wall_t at)
{
    int64_t wait = at - b->wall;
    return b->now + (wait < 1 ? 1 : wait > TIMER_MAX_MS ? TIMER_MAX_MS : wait) * NS_PER_MS;
}

void delay_wake_by(struct broker *b, struct delay *d, wall_t at)
{
    mono_t due = timer_due(b, at);
    if (!timer_is_set(&d->timer) || due < d->timer.due)
        wheel_set(&b->wheel, &d->timer, due);
}

/* What is due but behind a page that is on its way is looked at when that has come. */
static void arm(struct broker *b, struct delay *d, bool read_later)
{
    struct delay_item barrier = delay_barrier(d);
    const struct delay_item *first = delay_heap_first(&d->messages), *page = delay_heap_first(&d->pages);
    wall_t at = read_later ? b->wall + READ_RETRY_MS : WALL_NEVER;
    if (first && !d->held && first->due < at && delay_before(first, &barrier))
        at = first->due;
    if (page && page->due - DELAY_NEAR_MS > b->wall && page->due - DELAY_NEAR_MS < at)
        at = page->due - DELAY_NEAR_MS;
    if (at == WALL_NEVER)
        wheel_cancel(&b->wheel, &d->timer);
    else
        wheel_set(&b->wheel, &d->timer, timer_due(b, at));
}

void delay_go_on(struct broker *b, struct delay *d)
{
    struct delay_item barrier = delay_barrier(d);
    unsigned n = 0;
    d->held = false;
    while (n < RELEASE_PER_SLICE && release_first(b, d, &barrier))
        n++;
    bool later = !d->held && !delay_read(b, d); /* what has no room would be written again, and read again */
    arm(b, d, later);
    if (d->entries == 0)
        delay_heap_fini(&d->messages);
    if (d->retry && n) {
        backlog_limit(b, d->queue);
        queue_schedule(b, d->queue);
    }
}

static void fired(void *arg, struct timer *timer)
{
    delay_go_on(arg, CONTAINER_OF(timer, struct delay, timer));
}

/* ---- publishing ---- */

struct delay *delay_new(void)
{
    struct delay *d = mem_zalloc(sizeof *d);
    if (!d)
        return NULL;
    struct list *lists[] = {&d->link, &d->fresh_link, &d->loaded, &d->reads, &d->writes};
    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        list_init(lists[i]);
    timer_init(&d->timer, fired);
    return d;
}

bool delay_queue_make(struct broker *b, struct vhost *vhost, uint64_t id)
{
    if (vhost->delay)
        return true;
    struct delay *d = delay_new();
    if (!d)
        return false;
    vhost->delay = d;
    d->queue = queue_make(b, vhost, (struct slice){0}, true, false, false, (struct slice){0}, NULL, id);
    if (d->queue)
        return true;
    vhost->delay = NULL;
    mem_free(d);
    return false;
}

struct queue *delay_queue(const struct vhost *vhost)
{
    return vhost->delay ? vhost->delay->queue : NULL;
}

const struct list *delay_loaded(const struct queue *q)
{
    return q->hidden ? &q->vhost->delay->loaded : NULL;
}

bool delay_prepare(struct broker *b, struct vhost *vhost, uint32_t count)
{
    if (!vhost->delay) {
        if (!log_reserve(b, 1024, 1) || !delay_queue_make(b, vhost, 0))
            return false;
        (void)log_object(b, &vhost->delay->queue->object);
    }
    struct delay *d = vhost->delay;
    return queue_rouse(b, d->queue) && delay_heap_reserve(&d->messages, (uint64_t)d->entries + count);
}

/* An entry and log_enqueue_bytes for one target are reserved. */
struct entry *delay_prepared(struct broker *b, struct exchange *x, struct msg *msg, int64_t delay_ms)
{
    struct delay *d = x->vhost->delay;
    struct queue *q = d->queue;
    bool journalled = x->durable && (msg->flags & MSG_PERSISTENT);
    struct target t = {.queue = q, .position = q->next_position++, .deadline = b->wall + delay_ms};
    lsn_t lsn = journalled ? log_enqueue(b, msg, &t, 1, NULL, false, true) : 0;
    struct entry *e = backlog_append(b, q, msg_ref(msg), t.position, lsn, WALL_NEVER, journalled);
    CHECK(e);
    e->deadline = t.deadline;
    d->entries++;
    if (!d->fresh && e->lsn <= b->durable) {
        delay_put(b, d, e);
        delay_wake_by(b, d, e->deadline);
        return e;
    }
    if (!d->fresh)
        d->fresh = &e->link;
    if (list_empty(&d->fresh_link))
        list_insert(&b->fresh_delays, &d->fresh_link);
    return e;
}

bool delay_publish(struct broker *b, struct exchange *x, struct msg *msg, int64_t delay_ms, lsn_t *ret_lsn)
{
    if (!delay_prepare(b, x->vhost, 1) || !pool_reserve(&b->entries) || !log_reserve(b, log_enqueue_bytes(msg, 1), 1))
        return false;
    *ret_lsn = delay_prepared(b, x, msg, delay_ms)->lsn;
    return true;
}

/* Lsns of fresh ones ascend, but for those that are in no journal. */
void delays_durable(struct broker *b)
{
    LIST_EACH(&b->fresh_delays, node, after)
    {
        struct delay *d = CONTAINER_OF(node, struct delay, fresh_link);
        const struct list *end = &d->queue->busy->lane.entries;
        struct list *at = d->fresh;
        for (; at != end && CONTAINER_OF(at, struct entry, link)->lsn <= b->durable; at = at->next)
            delay_put(b, d, CONTAINER_OF(at, struct entry, link));
        if (at == d->fresh)
            continue;
        d->fresh = at == end ? NULL : at;
        if (!d->fresh)
            list_remove(&d->fresh_link);
        delay_go_on(b, d);
    }
}

/* ---- a start, and the end ---- */

bool delay_entry_recovered(struct broker *b, struct entry *e)
{
    struct delay *d = e->queue->vhost->delay;
    if (!delay_heap_reserve(&d->messages, (uint64_t)d->entries + 1))
        return false;
    d->entries++;
    delay_put(b, d, e);
    delay_wake_by(b, d, e->deadline);
    return true;
}

void delay_clear(struct broker *b, struct delay *d, bool journal)
{
    wheel_cancel(&b->wheel, &d->timer);
    list_remove(&d->link);
    list_remove(&d->fresh_link);
    d->fresh = NULL;
    b->delay_memory -= d->memory;
    d->memory = 0;
    d->entries = 0;
    d->held = false;
    delay_heap_fini(&d->messages);
    delay_pages_drop(b, d, journal);
}

/* The vhost goes: nothing of it fires any more. The entries that were not read from pages are the queue's to free. */
void delay_drop_all(struct broker *b, struct queue *q)
{
    struct delay *d = q->vhost->delay;
    delay_clear(b, d, false);
    while (!list_empty(&d->loaded))
        backlog_free(b, CONTAINER_OF(d->loaded.next, struct entry, link));
}

void delay_free(struct vhost *vhost)
{
    CHECK(list_empty(&vhost->delay->reads) && list_empty(&vhost->delay->writes));
    mem_free(vhost->delay);
    vhost->delay = NULL;
}
