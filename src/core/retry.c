/* Delayed retry, see retry.h.
 *
 * Invariants:
 *   R1  a delayed entry is in retry.entries and in the heap, and in no lane; it counts as delayed, neither ready nor
 *       unacknowledged, and towards no length limit until it is back.
 *   R2  the heap is ordered by when an entry is looked at again: its time, or before it its expiry (TTL goes on).
 *   R3  a journalled entry's time is in the journal (RETRY), behind what a compaction wrote of the entry. A message that a
 *       page on disk holds is delayed when the page is read, if its time has not come by then.
 *
 * Without memory for the heap a message comes back at once: late is better than never, but early is better than lost.
 */
#include "core/core_int.h"

#define HEAP_MAX (1u << 27)
#define DUE_PER_SLICE 512u
#define TIMER_MAX_MS (180LL * 86400 * 1000)

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

/* ---- the heap; the index of an entry is in its lsn, which means nothing once it was delivered ---- */

static wall_t wake(const struct retry_item *item)
{
    return item->entry->deadline < item->due ? item->entry->deadline : item->due;
}

static void put(struct retry *r, uint32_t i, struct retry_item item)
{
    r->heap[i] = item;
    item.entry->lsn = i;
}

static void sift_up(struct retry *r, uint32_t i)
{
    struct retry_item item = r->heap[i];
    while (i && wake(&item) < wake(&r->heap[(i - 1) / 2])) {
        put(r, i, r->heap[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    put(r, i, item);
}

static void sift_down(struct retry *r, uint32_t i)
{
    struct retry_item item = r->heap[i];
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child + 1 < r->count && wake(&r->heap[child + 1]) < wake(&r->heap[child]))
            child++;
        if (child >= r->count || wake(&item) <= wake(&r->heap[child]))
            break;
        put(r, i, r->heap[child]);
        i = child;
    }
    put(r, i, item);
}

static bool heap_room(struct retry *r)
{
    if (r->count < r->max)
        return true;
    uint32_t max = r->max ? r->max * 2 : 8;
    struct retry_item *grown = max <= HEAP_MAX ? mem_realloc(r->heap, max * sizeof *grown) : NULL;
    if (!grown)
        return false;
    r->heap = grown;
    r->max = max;
    return true;
}

/* ---- waiting ---- */

static void fired(void *arg, struct timer *timer);

static void arm(struct broker *b, struct retry *r)
{
    if (!r->count) {
        wheel_cancel(&b->wheel, &r->timer);
        return;
    }
    int64_t wait = wake(&r->heap[0]) - b->wall;
    wait = wait < 1 ? 1 : wait > TIMER_MAX_MS ? TIMER_MAX_MS : wait;
    wheel_set(&b->wheel, &r->timer, b->now + wait * NS_PER_MS);
}

static struct retry *retry_make(struct queue *q)
{
    struct retry *r = queue_extra_make(q) ? &q->extra->retry : NULL;
    if (r && !r->entries.next) {
        list_init(&r->entries);
        timer_init(&r->timer, fired);
    }
    return r;
}

bool retry_park(struct broker *b, struct entry *e, wall_t due)
{
    struct retry *r = retry_make(e->queue);
    if (!r || !heap_room(r))
        return false;
    backlog_leave(b, e);
    e->flags |= ENTRY_DELAYED;
    list_insert(&r->entries, &e->link);
    r->bytes += e->msg->body_len;
    put(r, r->count, (struct retry_item){due, e});
    sift_up(r, r->count++);
    if (r->heap[0].entry == e)
        arm(b, r);
    return true;
}

void retry_leave(struct broker *b, struct entry *e)
{
    struct retry *r = &e->queue->extra->retry;
    uint32_t i = (uint32_t)e->lsn;
    CHECK(i < r->count && r->heap[i].entry == e);
    struct retry_item last = r->heap[--r->count];
    if (last.entry != e) {
        put(r, i, last);
        sift_up(r, i);
        sift_down(r, (uint32_t)last.entry->lsn);
    }
    list_remove(&e->link);
    r->bytes -= e->msg->body_len;
    e->flags &= (uint8_t)~ENTRY_DELAYED;
    e->lsn = 0;
    if (r->count)
        return;
    wheel_cancel(&b->wheel, &r->timer);
    mem_free(r->heap);
    r->heap = NULL;
    r->max = 0;
}

/* Into their places: the oldest of all, often. What has expired meanwhile does so there. */
static void fired(void *arg, struct timer *timer)
{
    struct broker *b = arg;
    struct retry *r = CONTAINER_OF(timer, struct retry, timer);
    struct queue *q = NULL;
    for (unsigned n = 0; n < DUE_PER_SLICE && r->count && wake(&r->heap[0]) <= b->wall; n++) {
        q = r->heap[0].entry->queue;
        backlog_requeue(b, r->heap[0].entry);
    }
    arm(b, r);
    if (!q)
        return;
    backlog_limit(b, q);
    queue_schedule(b, q);
}

wall_t retry_due_of(const struct entry *e)
{
    return e->queue->extra->retry.heap[e->lsn].due;
}

struct list *retry_list(const struct queue *q)
{
    return q->extra && q->extra->retry.entries.next ? &q->extra->retry.entries : NULL;
}

void retry_drop(struct broker *b, struct queue *q)
{
    struct list *list = retry_list(q);
    while (list && !list_empty(list))
        backlog_free(b, CONTAINER_OF(list->next, struct entry, link));
}

void retry_check(const struct queue *q)
{
    const struct list *list = retry_list(q);
    const struct retry *r = list ? &q->extra->retry : NULL;
    uint64_t count = 0, bytes = 0;
    if (!list)
        return;
    LIST_EACH(list, node, after)
    {
        const struct entry *e = CONTAINER_OF(node, struct entry, link);
        CHECK(e->queue == q && (e->flags & (ENTRY_DELAYED | ENTRY_UNACKED | ENTRY_FRONT)) == ENTRY_DELAYED);
        CHECK(e->lsn < r->count && r->heap[e->lsn].entry == e && e->position < q->next_position);
        CHECK(e->lsn == 0 || wake(&r->heap[(e->lsn - 1) / 2]) <= wake(&r->heap[e->lsn]));
        CHECK(!e->page || (e->page->queue == q && page_has(e->page, e->position)));
        count++;
        bytes += e->msg->body_len;
    }
    CHECK(count == r->count && bytes == r->bytes && timer_is_set(&r->timer) == (count > 0));
}
