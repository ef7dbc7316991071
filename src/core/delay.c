/* Delayed messages of x-delayed-message exchanges.
 *
 * They wait in a hidden queue of their vhost (name empty, never bound, never consumed), as entries whose deadline is
 * when they are due, each with a timer. Such a message is journalled when it is persistent and its exchange durable, and
 * confirmed then; when due it is routed by the exchange's x-delayed-type and moved (one MOVE record) into its queues.
 */
#include "core/core_int.h"

#define DELAY_MAX_MS (INT64_MAX / 4 / NS_PER_MS)
#define TIMER_MAX_MS (180LL * 86400 * 1000)

struct delayed {
    struct timer timer;
    struct list link; /* b->delayed */
    struct entry *entry;
};

bool delay_of(const struct msg *msg, int64_t *ret_ms)
{
    struct amqp_value v;
    if (!(msg->flags & MSG_HAS_HEADERS) || !amqp_table_find(msg_headers(msg), "x-delay", &v) || !amqp_value_is_int(&v))
        return false;
    *ret_ms = v.i > DELAY_MAX_MS ? DELAY_MAX_MS : v.i;
    return true;
}

bool delay_queue_make(struct broker *b, struct vhost *vhost, uint64_t id)
{
    if (!vhost->delays)
        vhost->delays = queue_make(b, vhost, (struct slice){0}, true, false, false, (struct slice){0}, NULL, id);
    return vhost->delays != NULL;
}

static void arm(struct broker *b, struct delayed *d);

/* Routes what is due; without targets or exchange it is dropped, as an unroutable message is. False: no memory. */
static bool release(struct broker *b, struct entry *e)
{
    struct exchange *x = exchange_find(e->queue->vhost, msg_exchange(e->msg));
    lsn_t lsn;
    if (x && !route_message(b, x, e->msg, msg_headers(e->msg), &b->route))
        return false;
    bool moved = x && b->route.count;
    if (moved && enqueue_routed(b, e->msg, &b->route, e, &lsn) == ENQUEUE_NO_MEMORY)
        return false;
    if (x)
        audiences_tell(b, &b->route, e->msg, NULL);
    backlog_remove(b, e, moved ? REASON_MOVED : REASON_EXPIRED);
    return true;
}

static void fired(void *arg, struct timer *timer)
{
    struct broker *b = arg;
    struct delayed *d = CONTAINER_OF(timer, struct delayed, timer);
    if (d->entry->deadline > b->wall || d->entry->lsn > b->durable || !b->options.log.room(b->options.log.self)) {
        arm(b, d);
        return;
    }
    if (!release(b, d->entry)) {
        arm(b, d);
        return;
    }
    list_remove(&d->link);
    mem_free(d);
}

static void arm(struct broker *b, struct delayed *d)
{
    if (list_empty(&d->link))
        list_insert(&b->delayed, &d->link);
    int64_t wait = d->entry->deadline - b->wall;
    wait = wait < 1 ? 1 : wait > TIMER_MAX_MS ? TIMER_MAX_MS : wait;
    wheel_set(&b->wheel, &d->timer, b->now + wait * NS_PER_MS);
}

static struct delayed *delayed_new(struct entry *e)
{
    struct delayed *d = mem_alloc(sizeof *d);
    if (!d)
        return NULL;
    timer_init(&d->timer, fired);
    list_init(&d->link);
    d->entry = e;
    return d;
}

struct delayed *delay_prepare(struct broker *b, struct vhost *vhost)
{
    if (!vhost->delays) {
        if (!log_reserve(b, 1024, 1) || !delay_queue_make(b, vhost, 0))
            return NULL;
        (void)log_object(b, &vhost->delays->object);
    }
    return queue_rouse(b, vhost->delays) ? delayed_new(NULL) : NULL;
}

/* An entry and log_enqueue_bytes for one target are reserved. */
struct entry *delay_prepared(struct broker *b, struct exchange *x, struct msg *msg, int64_t delay_ms,
                             struct delayed **d)
{
    struct queue *q = x->vhost->delays;
    bool journalled = x->durable && (msg->flags & MSG_PERSISTENT);
    struct target t = {.queue = q, .position = q->next_position++, .deadline = b->wall + delay_ms};
    lsn_t lsn = journalled ? log_enqueue(b, msg, &t, 1, NULL, false, true) : 0;
    struct entry *e = backlog_append(b, q, msg_ref(msg), t.position, lsn, WALL_NEVER, journalled);
    CHECK(e);
    e->deadline = t.deadline;
    (*d)->entry = e;
    arm(b, *d);
    *d = NULL;
    return e;
}

bool delay_publish(struct broker *b, struct exchange *x, struct msg *msg, int64_t delay_ms, lsn_t *ret_lsn)
{
    struct delayed *d = delay_prepare(b, x->vhost);
    if (!d || !pool_reserve(&b->entries) || !log_reserve(b, log_enqueue_bytes(msg, 1), 1)) {
        mem_free(d);
        return false;
    }
    *ret_lsn = delay_prepared(b, x, msg, delay_ms, &d)->lsn;
    return true;
}

/* After replay: the entry of a delay queue gets its timer. */
void delay_entry_recovered(struct broker *b, struct queue *q, struct entry *e)
{
    struct delayed *d = delayed_new(e);
    (void)q;
    if (!d) {
        backlog_remove(b, e, REASON_EXPIRED);
        return;
    }
    arm(b, d);
}

/* The vhost goes: nothing of it fires any more. The entries are the queue's to free. */
void delay_drop_all(struct broker *b, struct queue *q)
{
    LIST_EACH(&b->delayed, node, after)
    {
        struct delayed *d = CONTAINER_OF(node, struct delayed, link);
        if (d->entry->queue != q)
            continue;
        wheel_cancel(&b->wheel, &d->timer);
        list_remove(&d->link);
        mem_free(d);
    }
}
