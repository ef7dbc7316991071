/* Streams in the journal: what a snapshot says of them, and how a replay puts them together again.
 *
 * STREAM says up to where the files are synced; records from there on come again from ENQUEUE and are written to the files
 * once more. They must join without a gap (R5): a record that is missing was damaged or removed behind our back.
 */
#include "core/stream_int.h"

#include <stdio.h>

/* ---- snapshot ---- */

/* The sealed segments that are below the synced part of the open one. */
static uint32_t synced_sealed(const struct partition *p)
{
    uint32_t n = 0;
    while (n < p->sealed_count && p->sealed[n].end <= p->synced.base)
        n++;
    return n;
}

static size_t partition_record_bytes(const struct partition *p)
{
    return 160 + 60 * (size_t)p->sealed_count;
}

bool stream_snapshot_partition(struct broker *b, struct partition *p)
{
    size_t bytes = partition_record_bytes(p);
    uint32_t sealed = synced_sealed(p);
    if (p->synced.end == 0 && p->start == 0)
        return true; /* all there is is in the journal */
    b->scratch.len = 0;
    if (!log_reserve(b, bytes, 1) || !buffer_reserve(&b->scratch, bytes) || !log_stream(b, p, sealed))
        return false;
    if (sealed && p->named < p->sealed[sealed - 1].end) {
        p->named = p->sealed[sealed - 1].end;
        if (stream_is_keyed(p->stream))
            keyed_look(b, p);
    }
    return true;
}

/* False: no memory, or no room. */
bool stream_snapshot(struct broker *b, struct queue *q)
{
    struct stream *s = q->stream;
    for (uint32_t i = 0; i < s->partition_count; i++)
        if (!stream_snapshot_partition(b, s->partitions[i]) || !producers_snapshot(b, s->partitions[i]) ||
            !isolation_snapshot(b, s->partitions[i]))
            return false;
    LIST_EACH(&s->cursors, node, after)
    {
        const struct cursor *cursor = CONTAINER_OF(node, struct cursor, link);
        for (uint32_t i = 0; cursor->target->object.journalled && i < s->partition_count; i++)
            if (!log_reserve(b, 64, 1) || !log_cursor(b, cursor, i, cursor->follower->places[i].next))
                return false;
    }
    return true;
}

/* ---- replay ---- */

static struct partition *partition_find(struct broker *b, uint64_t queue, uint64_t partition)
{
    struct queue *q = map_get(&b->queues_by_id, map_key_u64(&queue));
    return q && q->stream && partition < q->stream->partition_count ? q->stream->partitions[partition] : NULL;
}

static void forget_below(struct broker *b, struct partition *p, uint64_t offset)
{
    struct entry *e;
    while ((e = LIST_FIRST(&p->gathered, struct entry, link)) && e->position < offset) {
        b->totals.stream_records -= msg_offsets(e->msg);
        gathered_drop(b, e);
    }
}

bool stream_hold(struct broker *b, struct queue *q, const struct target *t, struct msg *msg)
{
    if (t->returns >= q->stream->partition_count)
        return false;
    struct partition *p = q->stream->partitions[t->returns];
    bool first = list_empty(&p->gathered) && !p->known;
    if (!first && t->position < p->end)
        return true; /* known from a file */
    if (!first && t->position > p->end)
        p->gap_at = t->position;
    if (!pool_reserve(&b->entries))
        return false;
    p->end = t->position + msg_offsets(msg);
    stream_append(b, t, msg);
    return true;
}

static bool extent_read(struct reader *r, bool sealed, struct stream_extent *ret)
{
    ret->base = reader_varint(r);
    if (sealed)
        ret->end = reader_varint(r);
    ret->bytes = reader_varint(r);
    ret->first_at = (wall_t)reader_varint(r);
    ret->max_at = (wall_t)reader_varint(r);
    return reader_ok(r) && ret->base <= ret->end;
}

static bool sealed_read(struct reader *r, uint64_t count, struct stream_extent *sealed, uint64_t end)
{
    for (uint64_t i = 0; i < count; i++) {
        if (!extent_read(r, true, &sealed[i]) || sealed[i].end > end || (i && sealed[i - 1].end != sealed[i].base))
            return false;
    }
    return true;
}

/* What a stream without compaction does not have. */
static bool generations_read(struct reader *r, uint64_t count, struct stream_extent *sealed, uint64_t *ret_dirty_from,
                             uint32_t *ret_highest)
{
    if (!r->left)
        return true;
    *ret_dirty_from = reader_varint(r);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t generation = reader_varint(r);
        if (generation > UINT32_MAX)
            return false;
        sealed[i].generation = (uint32_t)generation;
        *ret_highest = sealed[i].generation > *ret_highest ? sealed[i].generation : *ret_highest;
    }
    return reader_ok(r);
}

bool replay_stream(struct broker *b, struct reader *r)
{
    uint64_t queue = reader_varint(r), number = reader_varint(r), start = reader_varint(r);
    struct stream_extent tail = {.end = reader_varint(r)};
    if (!extent_read(r, false, &tail))
        return false;
    uint64_t count = reader_varint(r);
    struct partition *p = partition_find(b, queue, number);
    if (!reader_ok(r) || count > r->left / 5)
        return false;
    struct stream_extent *sealed = count ? mem_zalloc(count * sizeof *sealed) : NULL;
    uint64_t dirty_from = 0;
    uint32_t generation = 0;
    if ((count && !sealed) || !sealed_read(r, count, sealed, tail.base) ||
        !generations_read(r, count, sealed, &dirty_from, &generation) || !reader_done(r)) {
        mem_free(sealed);
        return false;
    }
    if (!p) { /* deleted later on */
        mem_free(sealed);
        return true;
    }
    mem_free(p->sealed);
    p->sealed = sealed;
    p->sealed_count = p->sealed_max = (uint32_t)count;
    p->known = true;
    p->dirty_from = dirty_from > p->dirty_from ? dirty_from : p->dirty_from;
    p->generation = generation > p->generation ? generation : p->generation;
    p->start = start > p->start ? start : p->start;
    p->tail = p->synced = tail;
    forget_below(b, p, tail.end);
    if (p->end < tail.end || list_empty(&p->gathered))
        p->end = tail.end;
    return true;
}

/* Of what is not there it is nothing: STREAM, which comes later in a snapshot, says it too. */
bool replay_rewritten(struct broker *b, struct reader *r)
{
    uint64_t queue = reader_varint(r), number = reader_varint(r), dirty_from = reader_varint(r);
    struct stream_extent made;
    if (!extent_read(r, true, &made))
        return false;
    uint64_t generation = reader_varint(r);
    if (!reader_done(r) || generation > UINT32_MAX)
        return false;
    struct partition *p = partition_find(b, queue, number);
    if (!p)
        return true;
    made.generation = (uint32_t)generation;
    p->dirty_from = dirty_from > p->dirty_from ? dirty_from : p->dirty_from;
    p->generation = made.generation > p->generation ? made.generation : p->generation;
    if (made.bytes)
        (void)stream_put_rewritten(p, &made);
    return true;
}

bool stream_put_rewritten(struct partition *p, const struct stream_extent *made)
{
    uint32_t first = 0, behind;
    while (first < p->sealed_count && p->sealed[first].base < made->base)
        first++;
    for (behind = first; behind < p->sealed_count && p->sealed[behind].end <= made->end; behind++)
        continue;
    if (behind == first || p->sealed[first].base != made->base || p->sealed[behind - 1].end != made->end)
        return false;
    p->sealed[first] = *made;
    memmove(&p->sealed[first + 1], &p->sealed[behind], (p->sealed_count - behind) * sizeof *p->sealed);
    p->sealed_count -= behind - first - 1;
    return true;
}

bool replay_stream_trim(struct broker *b, struct reader *r)
{
    uint64_t queue = reader_varint(r), number = reader_varint(r), start = reader_varint(r);
    struct partition *p = partition_find(b, queue, number);
    if (p && start > p->start)
        p->start = start;
    return reader_ok(r);
}

static void drop_trimmed(struct partition *p)
{
    uint32_t n = 0;
    while (n < p->sealed_count && p->sealed[n].end <= p->start)
        n++;
    if (n)
        memmove(p->sealed, p->sealed + n, (p->sealed_count - n) * sizeof *p->sealed);
    p->sealed_count -= n;
}

static bool partition_settle(struct broker *b, struct partition *p, char *why, size_t why_len)
{
    const struct queue *q = p->stream->queue;
    const struct entry *first = LIST_FIRST(&p->gathered, struct entry, link);
    uint64_t begins = first ? first->position : p->synced.end;
    if (p->gap_at > p->synced.end || begins != p->synced.end) { /* what files hold may be missing in the journal */
        snprintf(
            why, why_len,
            "stream '%.*s' in vhost '%.*s', partition %u: the files hold records below offset %llu, but the journal "
            "goes on at %llu: records between are lost",
            SLICE_ARG(q->name), SLICE_ARG(q->vhost->name), p->number, (unsigned long long)p->synced.end,
            (unsigned long long)begins);
        return false;
    }
    p->written = p->synced.end;
    if (p->end < p->written)
        p->end = p->written;
    if (p->start > p->end)
        p->start = p->end;
    drop_trimmed(p);
    if (p->start >= p->synced.end) /* the open file is given up as a whole, too: the next write begins another */
        p->tail = p->synced = (struct stream_extent){.base = p->synced.end, .end = p->synced.end};
    p->named = p->sealed_count ? p->sealed[p->sealed_count - 1].end : 0;
    isolation_trim(&p->isolation, p->start > p->dirty_from ? p->start : p->dirty_from,
                   &p->stream->txn_aborted);              /* K1 of stream_keyed.c */
    b->totals.stream_records += p->synced.end - p->start; /* those behind were counted; start may be among them */
    return true;
}

/* After the last record. False: R5, or no memory. */
bool stream_settle(struct broker *b, struct queue *q, char *why, size_t why_len)
{
    struct stream *s = q->stream;
    for (uint32_t i = 0; i < s->partition_count; i++)
        if (!partition_settle(b, s->partitions[i], why, why_len))
            return false;
    LIST_EACH(&s->cursors, node, after)
    {
        struct cursor *cursor = CONTAINER_OF(node, struct cursor, link);
        for (uint32_t i = 0; i < s->partition_count; i++)
            if (cursor->follower->places[i].next == OFFSET_NONE)
                cursor->follower->places[i].next = s->partitions[i]->end;
        feed_awake(b, cursor);
    }
    return true;
}

int broker_streams(struct broker *b, int (*each)(void *arg, const struct stream_files *files), void *arg)
{
    LIST_EACH(&b->catalogue, node, after)
    {
        struct object *object = CONTAINER_OF(node, struct object, link);
        struct queue *q = CONTAINER_OF(object, struct queue, object);
        if (object->kind != OBJ_QUEUE || !q->stream)
            continue;
        for (uint32_t i = 0; i < q->stream->partition_count; i++) {
            const struct partition *p = q->stream->partitions[i];
            struct stream_files files = {.stream = q->id,
                                         .partition = i,
                                         .start = p->start,
                                         .sealed = p->sealed,
                                         .sealed_count = p->sealed_count,
                                         .tail = p->synced,
                                         .name = q->name,
                                         .vhost = q->vhost->name};
            int err = each(arg, &files);
            if (err)
                return err;
        }
    }
    return 0;
}
