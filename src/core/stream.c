/* Streams as objects: offsets, retention, how they begin and end. stream_int.h has the picture and the invariants.
 *
 * A message that is routed to a stream is journalled by the same ENQUEUE record as for queues, so that confirms,
 * transactions and dead letters need nothing of their own. What is kept of it is a run of records in a segment file, written
 * by the stream store behind the journal (stream_chunk.c): a restart writes again what a compaction had not yet seen synced.
 */
#include "core/record_key.h"
#include "core/stream_int.h"
#include "fmt/murmur2.h"

#include <stdio.h>

/* ---- records come ---- */

/* As Kafka's clients do: equal keys stay in order. */
static uint32_t pick_partition(struct stream *s, const struct msg *msg)
{
    struct slice key;
    if (s->partition_count == 1)
        return 0;
    if (record_key(msg, &key))
        return murmur2_partition(key, s->partition_count);
    return s->turn++ % s->partition_count;
}

void stream_target(struct broker *b, struct queue *q, const struct msg *msg, struct target *ret)
{
    struct stream *s = q->stream;
    struct partition *p = s->partitions[pick_partition(s, msg)];
    *ret = (struct target){.queue = q, .position = p->end++, .deadline = b->wall, .returns = p->number};
}

void stream_append(struct broker *b, const struct target *t, struct msg *msg)
{
    struct stream *s = t->queue->stream;
    chunk_gather(b, s->partitions[t->returns], t, msg);
    b->totals.stream_records += msg_offsets(msg);
}

/* Consumers that wait for records look again: now, and when what is not durable yet has become so. */
void stream_awake(struct broker *b, struct stream *s)
{
    if (!list_empty(&s->idle))
        queue_schedule(b, s->queue);
    list_remove(&s->hungry_link);
    LIST_EACH(&s->cursors, node, after)
    feed_awake(b, CONTAINER_OF(node, struct cursor, link));
}

/* What no feeder has passed stays. */
uint64_t stream_kept_for_feeders(const struct stream *s, uint32_t partition)
{
    uint64_t least = OFFSET_NONE;
    LIST_EACH(&s->cursors, node, after)
    {
        const struct cursor *cursor = CONTAINER_OF(node, struct cursor, link);
        uint64_t next = cursor->follower->places[partition].next;
        least = next < least ? next : least;
    }
    return least;
}

uint64_t stream_partition_bytes(const struct partition *p)
{
    uint64_t bytes = p->tail.bytes;
    for (uint32_t i = 0; i < p->sealed_count; i++)
        bytes += p->sealed[i].bytes;
    return bytes;
}

static uint32_t out_of_time(const struct broker *b, const struct partition *p)
{
    const struct queue_rules *r = p->stream->queue->rules;
    uint64_t bytes = stream_partition_bytes(p);
    uint64_t kept = stream_kept_for_feeders(p->stream, p->number);
    bool deletes = r->cleanup != CLEANUP_COMPACT;
    uint32_t n = 0;
    while (n < p->sealed_count && p->sealed[n].end <= kept) {
        bool old = (deletes && r->max_age_ms > 0 && p->sealed[n].max_at < b->wall - r->max_age_ms) ||
                   p->sealed[n].end <= p->start; /* written again after a restart */
        /* Both as the protocols' users know it: RabbitMQ's streams are never larger, Kafka's topics never smaller than this. */
        uint64_t max = (uint64_t)r->max_length_bytes;
        bool many =
            deletes && r->max_length_bytes >= 0 && (r->length_kept ? bytes - p->sealed[n].bytes >= max : bytes > max);
        if (!old && !many)
            break;
        bytes -= p->sealed[n++].bytes;
    }
    return n;
}

static void trim(struct broker *b, struct partition *p, uint32_t n)
{
    uint64_t start = p->sealed[n - 1].end;
    if (!log_reserve(b, 64, 1))
        return; /* the next segment, or the timer, tries again */
    lsn_t lsn = log_stream_trim(b, p->stream->queue, p->number, start);
    if (start > p->start) {
        b->totals.stream_records -= start - p->start;
        p->start = start;
        isolation_trim(&p->isolation, start, &p->stream->txn_aborted);
        fetches_trimmed(b, p);
    }
    memmove(p->sealed, p->sealed + n, (p->sealed_count - n) * sizeof *p->sealed);
    p->sealed_count -= n;
    files_drop(b, p->stream->queue->id, p->number, start, lsn);
}

enum stream_result stream_trim(struct broker *b, struct partition *p, uint64_t *offset, lsn_t *ret_lsn)
{
    uint64_t end = partition_durable(b, p); /* what a client was told of, though its file may be behind for a moment */
    uint64_t start = *offset == OFFSET_NONE ? end : *offset;
    *offset = p->start;
    if (start > end)
        return STREAM_OUT_OF_RANGE;
    *ret_lsn = b->appended; /* where it is already the journal has been told before */
    if (start <= p->start)
        return STREAM_DONE;
    if (!log_reserve(b, 64, 1))
        return STREAM_NO_ROOM;
    *ret_lsn = log_stream_trim(b, p->stream->queue, p->number, start);
    b->totals.stream_records -= start - p->start;
    *offset = p->start = start;
    isolation_trim(&p->isolation, start, &p->stream->txn_aborted);
    followers_trimmed(b, p);
    fetches_trimmed(b, p);
    stream_retention(b, p->stream);
    return STREAM_DONE;
}

void stream_retention(struct broker *b, struct stream *s)
{
    for (uint32_t i = 0; i < s->partition_count; i++) {
        uint32_t n = out_of_time(b, s->partitions[i]);
        if (n)
            trim(b, s->partitions[i], n);
    }
}

static void arm_retention(struct broker *b, struct stream *s)
{
    int64_t age = s->queue->rules->max_age_ms;
    wheel_cancel(&b->wheel, &s->retention);
    if (age <= 0 || b->recovering)
        return;
    int64_t every = age / 4 < 1000 ? 1000 : age / 4 > 60000 ? 60000 : age / 4;
    wheel_set(&b->wheel, &s->retention, b->now + every * NS_PER_MS);
}

static void retention_fired(void *arg, struct timer *timer)
{
    struct broker *b = arg;
    struct stream *s = CONTAINER_OF(timer, struct stream, retention);
    stream_retention(b, s);
    arm_retention(b, s);
}

static void look_at_keys(struct broker *b, struct stream *s)
{
    for (uint32_t i = 0; i < s->partition_count && stream_is_keyed(s); i++)
        keyed_look(b, s->partitions[i]);
}

/* After a replay: timers begin. */
void stream_recovered(struct broker *b, struct queue *q)
{
    arm_retention(b, q->stream);
    look_at_keys(b, q->stream);
}

void streams_changed(struct broker *b)
{
    for (unsigned i = 0; i < b->side_count; i++)
        atomic_fetch_add_explicit(&b->sides[i].port.streams_changed, 1, memory_order_release);
}

void stream_rules_changed(struct broker *b, struct queue *q)
{
    if (b->recovering)
        return;
    streams_changed(b);
    arm_retention(b, q->stream);
    stream_retention(b, q->stream);
    look_at_keys(b, q->stream);
}

/* ---- once a tick ---- */

bool streams_turn(struct broker *b)
{
    chunks_turn(b);
    fetches_turn(b);
    return feed_turn(b);
}

/* ---- a stream begins and ends ---- */

static struct partition *partition_new(struct stream *s, uint32_t number, uint64_t seed)
{
    struct partition *p = mem_zalloc(sizeof *p);
    if (!p)
        return NULL;
    p->stream = s;
    p->number = number;
    producers_init(&p->producers, seed);
    struct list *lists[] = {&p->gathered,   &p->chunks,  &p->gather_link, &p->write_link, &p->dirty_link,
                            &p->keyed_link, &p->fetches, &p->watches,     &p->fetch_link, &p->shares};
    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        list_init(lists[i]);
    return p;
}

/* Partitions from those that count up to so many: not used yet. False: no memory. */
static bool partitions_make(struct stream *s, uint32_t count, uint64_t seed)
{
    struct partition **grown = mem_realloc(s->partitions, count * sizeof(struct partition *));
    if (!grown)
        return false;
    s->partitions = grown;
    for (uint32_t i = s->partition_count; i < count; i++)
        if (!(s->partitions[i] = partition_new(s, i, seed))) {
            stream_grow_undo(s, i);
            return false;
        }
    return true;
}

void stream_grow_undo(struct stream *s, uint32_t count)
{
    for (uint32_t i = s->partition_count; i < count; i++) {
        producers_fini(&s->partitions[i]->producers);
        mem_free(s->partitions[i]);
    }
}

bool stream_grow_prepare(struct broker *b, struct stream *s, uint32_t count)
{
    if (count <= s->partition_count)
        return true;
    if (!partitions_make(s, count, b->seed))
        return false;
    if (followers_reserve(s, count))
        return true;
    stream_grow_undo(s, count);
    return false;
}

void stream_grow(struct broker *b, struct stream *s, uint32_t count)
{
    uint32_t before = s->partition_count;
    if (count <= before)
        return;
    s->partition_count = count;
    followers_grow(s);
    for (uint32_t i = 0; i < before; i++)
        fetches_outgrown(b, s->partitions[i]);
}

/* Its source, amq.stream.NAME: an exchange that nobody publishes to. It comes and goes with the stream. */
static bool source_make(struct broker *b, struct stream *s)
{
    char name[NAME_MAX_BYTES + 16];
    struct queue *q = s->queue;
    int len = snprintf(name, sizeof name, "amq.stream.%.*s", SLICE_ARG(q->name));
    if (len > NAME_MAX_BYTES || exchange_find(q->vhost, slice_of(name, (size_t)len)))
        return true;
    const struct exchange_type *type = exchange_type_find(slice_str("x-stream"));
    s->source =
        exchange_make(b, q->vhost, slice_of(name, (size_t)len), type, false, true, false, true, (struct slice){0});
    if (!s->source)
        return false;
    s->source->object.journalled = false;
    s->source->stream = s;
    return true;
}

/* Ids ascend, but for those of a snapshot that was written while others were made. */
static void enlist(struct stream *s)
{
    struct list *at = &s->queue->vhost->streams;
    while (at->prev != &s->queue->vhost->streams &&
           CONTAINER_OF(at->prev, struct stream, vhost_link)->queue->id > s->queue->id)
        at = at->prev;
    list_insert(at, &s->vhost_link);
}

bool stream_make(struct broker *b, struct queue *q)
{
    uint32_t count = q->rules->partitions > 0 ? (uint32_t)q->rules->partitions : 1;
    if (count > STREAM_PARTITIONS_MAX)
        count = STREAM_PARTITIONS_MAX;
    struct stream *s = mem_zalloc(sizeof *s);
    if (!s)
        return false;
    s->queue = q;
    s->txn_aborted.of = &q->vhost->txn_memory;
    list_init(&s->followers);
    list_init(&s->idle);
    list_init(&s->cursors);
    list_init(&s->offsets);
    list_init(&s->hungry_link);
    timer_init(&s->retention, retention_fired);
    bool made = partitions_make(s, count, b->seed);
    if (!made || !source_make(b, s)) {
        stream_grow_undo(s, made ? count : 0);
        mem_free(s->partitions);
        mem_free(s);
        return false;
    }
    s->partition_count = count;
    q->stream = s;
    enlist(s);
    b->streams.topics_gen++;
    arm_retention(b, s);
    return true;
}

static void partition_end(struct broker *b, struct partition *p)
{
    struct entry *e;
    fetches_partition_gone(b, p);
    b->totals.stream_records -= p->end - p->start;
    while ((e = LIST_FIRST(&p->gathered, struct entry, link)))
        gathered_drop(b, e);
    while (!list_empty(&p->chunks)) /* of those on their way the job is the store's, and comes back or is freed there */
        chunk_end(b, CONTAINER_OF(p->chunks.next, struct chunk, link));
    list_remove(&p->gather_link);
    list_remove(&p->write_link);
    list_remove(&p->dirty_link);
    list_remove(&p->keyed_link);
    list_remove(&p->fetch_link);
    mem_free(p->sealed);
    producers_fini(&p->producers);
    isolation_fini(&p->isolation, &p->stream->txn_aborted);
    mem_free(p);
}

/* The queue's end is journalled, its consumers and bindings are gone. */
void stream_free(struct broker *b, struct queue *q)
{
    struct stream *s = q->stream;
    if (!s)
        return;
    q->stream = NULL;
    b->streams.topics_gen++;
    groups_stream_gone(b, s);
    shares_stream_gone(b, s);
    if (s->source)
        exchange_delete(b, s->source); /* and the cursors of its bindings */
    CHECK(list_empty(&s->followers) && list_empty(&s->cursors));
    wheel_cancel(&b->wheel, &s->retention);
    list_remove(&s->hungry_link);
    list_remove(&s->vhost_link);
    for (uint32_t i = 0; i < s->partition_count; i++) {
        partition_end(b, s->partitions[i]);
        if (!b->recovering && !b->removal_lost)
            files_drop(b, q->id, i, UINT64_MAX, b->appended);
    }
    mem_free(s->partitions);
    mem_free(s);
}

uint64_t stream_count(const struct queue *q)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < q->stream->partition_count; i++)
        count += q->stream->partitions[i]->end - q->stream->partitions[i]->start;
    return count;
}

uint64_t stream_bytes(const struct queue *q)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < q->stream->partition_count; i++)
        bytes += stream_partition_bytes(q->stream->partitions[i]);
    return bytes;
}
