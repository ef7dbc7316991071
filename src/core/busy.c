/* The part of a queue that only a busy queue has.
 *
 *   at rest ──queue_rouse──▶ busy ──queue_calmed, and a second later there is still nothing to do──▶ at rest
 *
 * A hundred thousand queues that wait for somebody are 200 bytes each. Nothing changes in a queue at rest, so what is known of
 * it is in struct queue: positions and the delivered mark. A queue that has an owner, or that expires without use, never rests.
 * Invariant: while a queue is in any list of the broker but the catalogue and its maps, it is busy.
 */
#include "core/core_int.h"

#define REST_NS NS_PER_S
#define REST_SOON_NS (10 * NS_PER_MS)
#define RESTS_PER_TURN 256u

#define SELF(member)                                                                                                   \
    {                                                                                                                  \
        (struct list *)(uintptr_t)&busy_idle.member, (struct list *)(uintptr_t)&busy_idle.member                       \
    }

const struct busy busy_idle = {
    .lanes = (struct lane *)(uintptr_t)&busy_idle.lane,
    .lane.entries = SELF(lane.entries),
    .unacked = SELF(unacked),
    .pages = SELF(pages),
    .consumers = SELF(consumers),
    .ready = SELF(ready),
    .sieves = SELF(sieves),
    .scans = SELF(scans),
    .pump_link = SELF(pump_link),
    .removal_link = SELF(removal_link),
    .owner_link = SELF(owner_link),
    .fat_link = SELF(fat_link),
    .hungry_link = SELF(hungry_link),
    .resting_link = SELF(resting_link),
    .look_link = SELF(look_link),
    .getters = SELF(getters),
    .ttl_timer.link = SELF(ttl_timer.link),
    .expires_timer.link = SELF(expires_timer.link),
};

static struct busy *idle(void)
{
    return (struct busy *)(uintptr_t)&busy_idle; /* never written: it is in memory that cannot be */
}

static bool rests(const struct broker *b, const struct queue *q)
{
    const struct busy *w = q->busy;
    for (unsigned i = 0; i < lane_count(q); i++)
        if (w->lanes[i].count || w->lanes[i].paging)
            return false;
    return w->unacked_count == 0 && w->consumer_count == 0 && queue_delayed(q) == 0 && list_empty(&w->pages) &&
           list_empty(&w->pump_link) && list_empty(&w->removal_link) && list_empty(&w->hungry_link) &&
           list_empty(&w->look_link) && list_empty(&w->getters) && w->mark_lsn <= b->durable &&
           !timer_is_set(&w->ttl_timer) && !w->owner && q->rules->expires_ms < 0 && b->compact.queue != q;
}

/* Has it nothing to do, but perhaps to wait for the journal? Then it is looked at again. */
static bool is_empty(const struct queue *q)
{
    return q->busy->ready_count + q->busy->unacked_count + q->busy->consumer_count + queue_delayed(q) == 0 &&
           !q->busy->owner && q->rules->expires_ms < 0;
}

static void rest_fired(void *arg, struct timer *timer)
{
    struct broker *b = arg;
    const struct list *last = b->resting.prev;
    unsigned looked = 0;
    for (bool more = !list_empty(&b->resting); more && looked < RESTS_PER_TURN; looked++) {
        struct list *node = b->resting.next;
        struct queue *q = CONTAINER_OF(node, struct busy, resting_link)->queue;
        more = node != last;
        list_remove(node);
        if (rests(b, q))
            queue_busy_end(b, q);
        else if (is_empty(q))
            list_insert(&b->resting, node);
    }
    if (!list_empty(&b->resting))
        wheel_set(&b->wheel, timer, b->now + (looked == RESTS_PER_TURN ? REST_SOON_NS : REST_NS));
}

void busy_init(struct broker *b)
{
    list_init(&b->resting);
    timer_init(&b->rest_timer, rest_fired);
}

static void look_later(struct broker *b)
{
    if (!list_empty(&b->resting) && !timer_is_set(&b->rest_timer))
        wheel_set(&b->wheel, &b->rest_timer, b->now + REST_NS);
}

/* Timers begin with the wheel, after the replay. */
void busy_recovered(struct broker *b)
{
    look_later(b);
}

void queue_calmed_now(struct broker *b, struct queue *q)
{
    if (!is_empty(q) || !queue_is_busy(q) || !list_empty(&q->busy->resting_link))
        return;
    list_insert(&b->resting, &q->busy->resting_link);
    if (!b->recovering)
        look_later(b);
}

void busy_check(const struct queue *q)
{
    CHECK(q->rules);
    if (queue_is_busy(q)) {
        CHECK(q->busy->queue == q);
        CHECK(q->deleting || !is_empty(q) || !list_empty(&q->busy->resting_link));
        return;
    }
    CHECK(!q->pumping && !q->awaiting && !q->removal_dirty && !q->fat && !q->thin && !q->replay && !q->exclusive);
    CHECK(q->rules->expires_ms < 0);
}

bool queue_rouse_now(struct broker *b, struct queue *q)
{
    struct busy *w = mem_zalloc_as(MEM_QUEUES, sizeof *w);
    unsigned lanes = q->rules->max_priority + 1u;
    if (!w)
        return false;
    w->queue = q;
    w->lanes = &w->lane;
    if (lanes > 1 && !(w->lanes = mem_zalloc_as(MEM_QUEUES, lanes * sizeof *w->lanes))) {
        mem_free_as(MEM_QUEUES, w);
        return false;
    }
    for (unsigned i = 0; i < lanes; i++)
        list_init(&w->lanes[i].entries);
    struct list *lists[] = {&w->unacked,     &w->pages,        &w->consumers,    &w->ready,      &w->sieves,
                            &w->scans,       &w->pump_link,    &w->removal_link, &w->owner_link, &w->fat_link,
                            &w->hungry_link, &w->resting_link, &w->look_link,    &w->getters};
    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        list_init(lists[i]);
    backlog_init(w);
    timer_init(&w->expires_timer, queue_expires);
    w->mark_safe = q->mark;
    w->used_at = b->now;
    q->busy = w;
    compact_queue_roused(b, q);
    queue_calmed(b, q); /* in case that what it was roused for does not come */
    return true;
}

void queue_busy_end(struct broker *b, struct queue *q)
{
    struct busy *w = q->busy;
    if (!queue_is_busy(q))
        return;
    wheel_cancel(&b->wheel, &w->ttl_timer);
    wheel_cancel(&b->wheel, &w->expires_timer);
    struct list *links[] = {&w->pump_link,   &w->removal_link, &w->owner_link, &w->fat_link,
                            &w->hungry_link, &w->resting_link, &w->look_link};
    for (size_t i = 0; i < ARRAY_LEN(links); i++)
        list_remove(links[i]);
    b->thin_count -= q->thin;
    q->fat = q->thin = false;
    for (unsigned i = 0; i < lane_count(q); i++)
        mem_free(w->lanes[i].paging);
    if (w->lanes != &w->lane)
        mem_free_as(MEM_QUEUES, w->lanes);
    mem_free(w->removed.runs);
    q->busy = idle();
    mem_free_as(MEM_QUEUES, w);
}
