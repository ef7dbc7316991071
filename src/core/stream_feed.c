/* Feeders: a queue bound to amq.stream.NAME gets every record of the stream, each exactly once.
 *
 * All bindings of one queue to one stream share a cursor, which follows the stream as a consumer does. What it finds goes
 * into the queue together with the cursor's new place as one TX record: after a crash either both are there or neither. It
 * stays a bounded distance ahead of the queue's consumers, and retention keeps what it has not passed.
 *
 * The binding's key is a pattern as of a topic exchange; an empty key takes everything, and so does the queue's own name, which
 * is what some clients send when they are given no key. A new cursor begins behind the last record, or where the binding's
 * x-stream-offset says. What the queue itself dead-lettered to the stream comes back only when somebody rejected it, as with
 * queues (deadletter.c).
 */
#include "core/stream_int.h"

#include "core/topic.h"

#include <stdio.h>

#define AHEAD_MESSAGES 4096u
#define AHEAD_BYTES (4u << 20)
#define STEP_RECORDS 256u /* of one TX record */
#define STEP_BYTES (256u * 1024)
#define STEPS_PER_TICK 16u

static struct cursor *cursor_of(const struct stream *s, const struct queue *target)
{
    LIST_EACH(&s->cursors, node, after)
    {
        struct cursor *cursor = CONTAINER_OF(node, struct cursor, link);
        if (cursor->target == target)
            return cursor;
    }
    return NULL;
}

bool stream_bind_allowed(struct broker *b, const struct exchange *source, struct slice args, const struct queue *q,
                         char *why, size_t why_len)
{
    struct offset_spec spec;
    if (!source->stream)
        return true;
    if (!q || q->stream) {
        snprintf(why, why_len, "only a queue can be bound to '%.*s', not %s", SLICE_ARG(source->name),
                 q ? "a stream" : "an exchange");
        return false;
    }
    if (!offset_spec_parse(b, args, &spec, why, why_len))
        return false;
    if (spec.kind != OFFSET_TIME)
        return true;
    snprintf(why, why_len, "a binding to a stream begins at first, last, next or an offset, not at a time");
    return false;
}

static uint64_t beginning(const struct partition *p, const struct offset_spec *spec)
{
    switch (spec->kind) {
    case OFFSET_FIRST: return p->start;
    case OFFSET_LAST: return p->end > p->start ? p->end - 1 : p->end;
    case OFFSET_NUMBER: return spec->number < p->start ? p->start : spec->number < p->end ? spec->number : p->end;
    default: return p->end;
    }
}

static struct cursor *cursor_make(struct broker *b, struct stream *s, struct binding *binding)
{
    struct offset_spec spec;
    char why[200];
    struct cursor *cursor = mem_zalloc(sizeof *cursor);
    struct follower *f = cursor ? follower_new(s) : NULL;
    if (!f) {
        mem_free(cursor);
        return NULL;
    }
    if (!offset_spec_parse(b, binding->args, &spec, why, sizeof why))
        spec.kind = OFFSET_NEXT;
    cursor->target = binding->queue;
    cursor->follower = f;
    f->cursor = cursor;
    f->all = true;
    list_init(&cursor->feed_link);
    list_insert(&s->cursors, &cursor->link);
    for (uint32_t i = 0; !b->recovering && i < s->partition_count;
         i++) /* in a replay its records tell, or nothing was promised */
        f->places[i].next = beginning(s->partitions[i], &spec);
    binding->queue->fed = true;
    return cursor;
}

void cursor_free(struct broker *b, struct cursor **slot)
{
    struct cursor *cursor = *slot;
    *slot = NULL;
    follower_free(b, &cursor->follower);
    list_remove(&cursor->feed_link);
    list_remove(&cursor->link);
    mem_free(cursor);
}

static bool takes_all(const struct binding *binding)
{
    return binding->key.len == 0 || slice_is(binding->key, "#") || slice_equal(binding->key, binding->queue->name);
}

bool stream_bound(struct broker *b, struct binding *binding)
{
    struct stream *s = binding->source->stream;
    if (!s || !binding->queue)
        return true;
    struct cursor *cursor = cursor_of(s, binding->queue);
    if (!cursor)
        cursor = cursor_make(b, s, binding);
    if (!cursor)
        return false;
    cursor->bindings++;
    cursor->all += takes_all(binding);
    if (!b->recovering)
        feed_awake(b, cursor);
    return true;
}

void stream_source_gone(struct exchange *x)
{
    if (x->stream)
        x->stream->source = NULL;
}

void stream_unbound(struct broker *b, struct binding *binding)
{
    struct stream *s = binding->source->stream;
    struct cursor *cursor = s && binding->queue ? cursor_of(s, binding->queue) : NULL;
    if (!cursor)
        return;
    cursor->bindings--;
    cursor->all -= takes_all(binding);
    if (cursor->bindings)
        return;
    cursor_free(b, &cursor);
    if (!b->recovering && !s->queue->deleting)
        stream_retention(b, s); /* what it had not passed need not stay */
}

unsigned stream_cursor_records(const struct exchange *source)
{
    return source->stream ? source->stream->partition_count : 0;
}

/* Where the cursor of a new binding stands. Without these records it would begin at the end after a crash: no promise was
 * made before they were durable. */
lsn_t stream_log_cursor(struct broker *b, const struct binding *binding)
{
    struct stream *s = binding->source->stream;
    const struct cursor *cursor = s && binding->queue ? cursor_of(s, binding->queue) : NULL;
    lsn_t lsn = 0;
    for (uint32_t i = 0; cursor && i < s->partition_count; i++) {
        if (!log_reserve(b, 64, 1))
            return 0;
        lsn = log_cursor(b, cursor, i, cursor->follower->places[i].next);
    }
    return lsn;
}

/* ---- feeding ---- */

static bool has_appetite(const struct cursor *cursor)
{
    const struct queue *q = cursor->target;
    if (q->deleting || q->busy->ready_count >= AHEAD_MESSAGES ||
        (q->busy->ready_count && q->busy->ready_bytes >= AHEAD_BYTES))
        return false;
    const struct queue_rules *r = q->rules;
    if (r->overflow == OVERFLOW_DROP_HEAD)
        return true; /* the limit is the queue's own wish */
    return (r->max_length < 0 || q->busy->ready_count < (uint64_t)r->max_length) &&
           (r->max_length_bytes < 0 || q->busy->ready_bytes < (uint64_t)r->max_length_bytes);
}

void feed_awake(struct broker *b, struct cursor *cursor)
{
    if (list_empty(&cursor->feed_link))
        list_insert(&b->streams.feeding, &cursor->feed_link);
}

void feed_hungry_queue(struct broker *b, struct queue *q)
{
    LIST_EACH(&q->targets, node, after)
    {
        struct binding *binding = CONTAINER_OF(node, struct binding, target_link);
        struct cursor *cursor = binding->source->stream ? cursor_of(binding->source->stream, q) : NULL;
        if (cursor && list_empty(&cursor->feed_link))
            feed_awake(b, cursor);
    }
}

struct hit {
    const struct queue *target;
    bool found;
};

static void on_hit(void *arg, void *binding)
{
    struct hit *hit = arg;
    if (((struct binding *)binding)->queue == hit->target)
        hit->found = true;
}

static bool wanted(const struct stream *s, const struct cursor *cursor, const struct msg *msg)
{
    struct hit hit = {.target = cursor->target};
    if (cursor->all)
        return true;
    if (s->source->topic)
        topic_match(s->source->topic, msg_key(msg), on_hit, &hit);
    return hit.found;
}

/* What a queue refuses when it is full comes when there is room. What it would refuse empty it is given, and refuses. */
static bool must_wait(struct queue *q, const struct msg *msg)
{
    return q->busy->ready_count && backlog_would_overflow(q, msg);
}

/* Memory and room for one record of the step are there. False: not now. */
static bool feed_one(struct broker *b, struct cursor *cursor, struct msg *msg)
{
    struct queue *targets[] = {cursor->target};
    struct route route = {.queues = targets, .count = 1, .max = 1};
    lsn_t lsn;
    if (!wanted(cursor->follower->stream, cursor, msg) || dead_letter_came_round(msg, cursor->target))
        return true;
    if (must_wait(cursor->target, msg))
        return false;
    enum enqueue_result result = enqueue_routed(b, msg, &route, NULL, &lsn);
    CHECK(result != ENQUEUE_NO_MEMORY);
    return true;
}

static size_t step_bytes(const struct msg *msg)
{
    return log_captured_bytes(log_enqueue_bytes(msg, 1) + 64u, 2);
}

/* Records of the chunk from at on, as far as the queue takes them, and the new place: one TX. Everything is reserved. */
static uint32_t feed_some(struct broker *b, struct cursor *cursor, uint32_t partition, uint32_t at, uint32_t count)
{
    const struct stream_job *job = cursor->follower->places[partition].chunk->job;
    uint32_t fed = 0;
    bool takes = true;
    pool_pin(&b->entries);
    pool_pin(&b->keys);
    for (uint32_t i = 0; i < count; i++) {
        struct msg *msg = job->items[at + i].msg;
        b->promised -= step_bytes(msg);
        takes = takes && feed_one(b, cursor, msg);
        fed += takes;
    }
    b->promised -= log_captured_bytes(64, 1);
    if (fed)
        (void)log_cursor(b, cursor, partition, job->items[at + fed - 1].offset + 1);
    (void)log_capture_end(b);
    pool_unpin(&b->entries);
    pool_unpin(&b->keys);
    return fed;
}

/* One TX record with some messages of one partition and the new place. False: nothing was to be had or the queue takes no
 * more, or there is no memory. */
static bool feed_step(struct broker *b, struct cursor *cursor)
{
    struct follower *f = cursor->follower;
    struct stream *s = f->stream;
    const struct stream_item *item;
    struct queue *targets[] = {cursor->target};
    struct route route = {.queues = targets, .count = 1, .max = 1};
    uint32_t partition, count = 0, keys = 0;
    size_t bytes = 0, need = log_captured_bytes(64, 1);
    if (follower_look(b, f, &item, &partition) != SIGHT_ITEM)
        return false;
    struct place *place = &f->places[partition];
    struct chunk *c = place->chunk;
    uint32_t at = place->at, end = chunk_safe(b, c);
    while (at + count < end && count < STEP_RECORDS && bytes < STEP_BYTES) {
        const struct msg *msg = c->job->items[at + count++].msg;
        bytes += msg_size(msg);
        if (!dedup_reserve(b, msg, &route, &keys)) {
            stream_starves(b, s);
            return false;
        }
        need += step_bytes(msg);
    }
    if (!targets_reserve(b, 1) || !queue_rouse(b, cursor->target) || !pool_reserve_many(&b->entries, count) ||
        !dedup_reserve_keys(b, keys) || !log_capture_begin(b, need, 2)) {
        stream_starves(b, s);
        return false;
    }
    count = feed_some(b, cursor, partition, at, count);
    if (!count)
        return false;
    uint64_t next = c->job->items[at + count - 1].offset + 1;
    const struct partition *p = s->partitions[partition];
    bool passed = p->sealed_count && place->next < p->sealed[0].end && next >= p->sealed[0].end;
    place->at = at + count;
    place->next = next;
    f->run += count;
    if (passed)
        stream_retention(b, s); /* the first segment may have waited for this */
    return true;
}

bool feed_turn(struct broker *b)
{
    struct list *last = b->streams.feeding.prev;
    bool left = false;
    if (list_empty(&b->streams.feeding) || !list_empty(&b->removals))
        return false; /* what is older must not become part of a step */
    for (unsigned steps = 0; steps < STEPS_PER_TICK && !list_empty(&b->streams.feeding);) {
        struct list *node = b->streams.feeding.next;
        struct cursor *cursor = CONTAINER_OF(node, struct cursor, feed_link);
        bool more = false;
        if (!b->options.log.room(b->options.log.self))
            return false;
        for (; steps < STEPS_PER_TICK && has_appetite(cursor); steps++)
            if (!(more = feed_step(b, cursor)))
                break;
        more = more && has_appetite(cursor);
        left = left || more;
        list_remove(node);
        if (more || stream_awaits_durable(cursor->follower->stream))
            list_insert(&b->streams.feeding, node);
        if (node == last)
            return left;
    }
    return !list_empty(&b->streams.feeding);
}

/* ---- the journal ---- */

bool replay_cursor(struct broker *b, struct reader *r)
{
    uint64_t stream = reader_varint(r), target = reader_varint(r), partition = reader_varint(r),
             next = reader_varint(r);
    if (!reader_ok(r))
        return false;
    struct queue *from = map_get(&b->queues_by_id, map_key_u64(&stream));
    struct queue *to = map_get(&b->queues_by_id, map_key_u64(&target));
    struct cursor *cursor = from && from->stream && to ? cursor_of(from->stream, to) : NULL;
    if (cursor && partition < cursor->follower->place_count)
        cursor->follower->places[partition].next = next;
    return true;
}
