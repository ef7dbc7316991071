/* broker_check: every invariant of the core's state, asserted (I8, I10, B1–B4, the counters). Slow; for tests and the
 * operator's `check`. */
#include "core/core_int.h"

/* P2: of a page that is on disk it is lent. */
static void check_entry_page(const struct queue *q, const struct entry *e)
{
    const struct page *page = e->page;
    if (!page)
        return;
    CHECK(page->queue == q && page_has(page, e->position));
    CHECK(page->state == PAGE_WRITING || page->state == PAGE_LOADED || page_lends(page, e->position));
}

/* Entries of one list; positions ascend. */
static uint64_t check_list(const struct queue *q, unsigned lane, const struct list *list, bool front, uint64_t *bytes,
                           uint64_t *memory)
{
    uint64_t n = 0, last = 0;
    LIST_EACH(list, node, after)
    {
        const struct entry *e = CONTAINER_OF(node, struct entry, link);
        CHECK(e->queue == q && e->lane == lane && !(e->flags & ENTRY_UNACKED));
        CHECK(e->msg && atomic_load(&e->msg->refs) > 0);
        CHECK(e->position > last && e->position < q->next_position);
        CHECK(!(e->flags & ENTRY_JOURNALLED) || q->object.journalled);
        CHECK(((e->flags & ENTRY_FRONT) != 0) == front);
        check_entry_page(q, e);
        last = e->position;
        n++;
        *bytes += e->msg->body_len;
        *memory += entry_memory(e);
    }
    return n;
}

/* P1, P4: pages ascend, and hold what they say. */
static void check_pages(const struct lane *lane, uint64_t *count, uint64_t *bytes)
{
    uint64_t last = 0;
    LIST_EACH(&lane->paging->pages, node, after)
    {
        const struct page *page = CONTAINER_OF(node, struct page, lane_link);
        uint64_t alive = 0, upto;
        CHECK(page->first > last && page->last >= page->first && page->state != PAGE_LOADED);
        last = page->last;
        for (uint64_t at = page->first; page_alive_from(page, &at, &upto); at = upto + 1)
            alive += upto - at + 1;
        CHECK(alive == page->live && page->live <= page->count);
        CHECK(!page->lent || !page->lent->alive || page->holes.count + page->lent->alive < page->holes.max);
        if (page->state == PAGE_WRITING)
            continue;
        *count += page->live - (page->lent ? page->lent->alive : 0);
        *bytes += page->body_bytes - (page->lent ? page->lent->bytes : 0);
    }
}

static void check_lane(const struct queue *q, unsigned number, uint64_t *count, uint64_t *bytes, uint64_t *memory)
{
    const struct lane *lane = &q->busy->lanes[number];
    uint64_t n = check_list(q, number, &lane->entries, false, bytes, memory), front_bytes = 0;
    const struct entry *first = LIST_FIRST(&lane->entries, struct entry, link);
    if (lane->paging) {
        n += check_list(q, number, &lane->paging->front, true, bytes, &front_bytes);
        CHECK(front_bytes == lane->paging->front_bytes);
        *memory += front_bytes;
        check_pages(lane, &n, bytes);
    }
    CHECK(n == lane->count && (!lane->paging || !first || first->position > lane->paged_upto));
    *count += n;
}

/* N1 to N3, as far as they can be seen. */
static void check_scans(const struct queue *q)
{
    LIST_EACH(&q->busy->scans, node, after)
    {
        const struct scan *s = CONTAINER_OF(node, struct scan, link);
        CHECK(s->memory <= s->looked && (!s->page || (s->page->queue == q && s->page->last <= s->looked)));
        for (unsigned i = 0; i < ARRAY_LEN(s->at); i++)
            CHECK(!s->at[i] ||
                  (s->at[i]->queue == q && !(s->at[i]->flags & ENTRY_UNACKED) && s->at[i]->position <= s->looked));
    }
}

static uint64_t check_queue(struct broker *b, const struct queue *q, uint64_t *memory)
{
    busy_check(q);
    uint64_t count = 0, bytes = 0, unacked = 0, held = 0;
    if (q->hidden) {
        count = delay_check(q->vhost->delay, &bytes, &held);
        CHECK(count == q->busy->lane.count);
    }
    for (unsigned i = 0; !q->hidden && i < lane_count(q); i++)
        check_lane(q, i, &count, &bytes, &held);
    CHECK(held == q->busy->memory);
    *memory += held;
    CHECK(count == q->busy->ready_count && bytes == q->busy->ready_bytes);
    CHECK(q->busy->planned_count == 0 && q->busy->planned_bytes == 0);
    LIST_EACH(&q->busy->unacked, node, after)
    {
        const struct entry *e = CONTAINER_OF(node, struct entry, link);
        CHECK(e->queue == q && (e->flags & ENTRY_UNACKED) && e->position < q->next_position);
        check_entry_page(q, e);
        unacked++;
    }
    CHECK(unacked == q->busy->unacked_count);
    dedup_check(b, q);
    *memory += retry_check(q);
    uint32_t consumers = 0, choosy = 0;
    LIST_EACH(&q->busy->consumers, node, after)
    {
        const struct consumer *consumer = CONTAINER_OF(node, struct consumer, queue_link);
        CHECK(consumer->queue == q && !consumer->channel->failed);
        consumers++;
        choosy += consumer->sieve != NULL;
    }
    CHECK(consumers == q->busy->consumer_count && choosy == q->busy->selecting);
    check_scans(q);
    CHECK(q->hidden || queue_find(q->vhost, q->name) == q);
    CHECK(map_get(&b->queues_by_id, map_key_u64(&q->id)) == q);
    return count + unacked + (q->extra ? q->extra->retry.count : 0);
}

static void check_binding(const struct binding *binding)
{
    struct vhost *vhost = binding->source->vhost;
    CHECK(map_get(&vhost->exchanges, binding->source->name) == binding->source);
    CHECK(map_get(&vhost->bindings, binding->identity) == binding);
    CHECK((binding->queue != NULL) != (binding->exchange != NULL) && !binding->audience);
}

static void check_channel(const struct channel *ch)
{
    uint32_t live = 0, counted = 0;
    uint64_t last = 0;
    for (uint32_t i = ch->unacked.first; i < ch->unacked.end; i++) {
        const struct unacked *u = &ch->unacked.items[i];
        CHECK(u->tag > last && u->tag <= ch->next_tag);
        last = u->tag;
        live += u->entry != NULL;
        counted += u->entry && u->counted;
    }
    for (uint32_t i = 0; i < ch->tx_ack_count; i++)
        counted += ch->tx_acks[i].item.counted;
    CHECK(live == ch->unacked.live && counted == ch->global_unacked);
}

/* Pages of a segment, and how much of it they are. */
static void check_segments(struct broker *b)
{
    MAP_EACH(&b->segments, struct segment, s)
    {
        uint64_t pages = 0, weight = 0;
        LIST_EACH(&s->pages_in, node, after)
        {
            const struct page *page = CONTAINER_OF(node, struct page, segment_link);
            CHECK(page->where.segment == s->number && page->state != PAGE_WRITING);
            CHECK((uint64_t)page->where.offset + page->where.len <= s->end);
            weight += page_weight(page);
            pages++;
        }
        CHECK(pages == s->pages && weight == s->weight);
    }
}

void broker_check(struct broker *b)
{
    check_segments(b);
    groups_check(b);
    txns_check(b);
    mqtt_check(b);
    sql_check(b);
    uint64_t messages = 0, queues = 0, memory = 0;
    LIST_EACH(&b->catalogue, node, after)
    {
        struct object *object = CONTAINER_OF(node, struct object, link);
        if (object->kind == OBJ_QUEUE) {
            messages += check_queue(b, CONTAINER_OF(object, struct queue, object), &memory);
            queues += !CONTAINER_OF(object, struct queue, object)->hidden;
        } else if (object->kind == OBJ_BINDING)
            check_binding(CONTAINER_OF(object, struct binding, object));
    }
    CHECK(queues == b->totals.queues);
    CHECK(messages <= b->totals.messages); /* the rest is held unacknowledged from queues that are gone */
    CHECK(b->entries.objects + b->paged == b->totals.messages + b->streams.gathered);
    CHECK(memory == b->ready_memory);
    LIST_EACH(&b->peers, node, after)
    {
        struct peer *peer = CONTAINER_OF(node, struct peer, link);
        for (uint32_t i = 0; i < peer->channel_max; i++)
            if (peer->channels[i])
                check_channel(peer->channels[i]);
    }
}
