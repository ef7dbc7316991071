/* Writing the core's journal records (records.def); record_view.c looks at them, replay.c obeys them.
 *
 * A head is built in b->scratch, bodies are handed on as slices: the journal makes the one copy. A record larger than
 * CORE_RECORD_BYTES_MAX is cut: PIECE … PIECE COMMIT, contiguous in lsn order, effective with the COMMIT. While a
 * transaction is committed (b->capturing) records are gathered in b->capture and become one TX record.
 */
#include "core/records.h"
#include "core/group_int.h"

#include <stdio.h>

#include "core/stream_int.h"
#include "core/txn_int.h"

#define PIECE_BYTES (CORE_RECORD_BYTES_MAX - 16u)
#define SCRATCH_HEAD 4096u
#define SCRATCH_BODY_MAX (256u * 1024)
#define WINDOW_KEYS 256u /* a record, at most */
#define WINDOW_KEY_BYTES 36u
#define RESERVE_MORE                                                                                                   \
    8192u /* on top of what is asked, so that what a command reserves inside its own reservation is there */

/* ---- append ---- */

static unsigned piece_count(size_t bytes)
{
    return (unsigned)(bytes / PIECE_BYTES) + 1;
}

bool log_reserve(struct broker *b, size_t bytes, unsigned records)
{
    b->scratch.len = 0;
    size_t head = SCRATCH_HEAD + 64u * (size_t)records + (bytes < SCRATCH_BODY_MAX ? bytes : SCRATCH_BODY_MAX);
    if (!buffer_reserve(&b->scratch, head))
        return false;
    if (b->recovering)
        return true;
    if (b->capturing && !buffer_reserve(&b->capture, bytes + 8u * records + b->promised))
        return false;
    size_t all = bytes + b->capture.len + b->promised + 64u * records + RESERVE_MORE;
    unsigned pieces = piece_count(all);
    if (all - RESERVE_MORE / 2 + 16u * pieces <= b->reserved_bytes && records + pieces <= b->reserved_records)
        return true; /* a command has reserved for all its parts, and what is left of the tick's is good for small ones */
    records += 8;
    if (!b->options.log.reserve(b->options.log.self, all + 16u * pieces, records + pieces))
        return false;
    b->reserved_bytes = all + 16u * pieces;
    b->reserved_records = records + pieces;
    return true;
}

bool log_scratch_reserve(struct broker *b)
{
    b->scratch.len = 0;
    return buffer_reserve(&b->scratch, SCRATCH_HEAD + 64u + SCRATCH_BODY_MAX);
}

static lsn_t append(struct broker *b, const struct slice *parts, unsigned count, size_t len)
{
    if (len <= b->reserved_bytes && b->reserved_records) {
        b->reserved_bytes -= len;
        b->reserved_records--;
    } else if (!b->options.log.reserve(b->options.log.self, len, 1))
        return 0;
    b->appended = b->options.log.append(b->options.log.self, parts, count);
    b->appended_bytes += len;
    return b->appended;
}

/* Cuts parts into pieces. They are numbered, so that the loose pieces of a crash never join those of a later record. */
static lsn_t append_pieces(struct broker *b, const struct slice *parts, unsigned count, size_t len)
{
    lsn_t lsn = 0;
    unsigned part = 0, number = 0;
    size_t within = 0;
    while (len > 0) {
        struct slice out[16];
        size_t room = len < PIECE_BYTES ? len : PIECE_BYTES;
        uint8_t start[8];
        struct writer w = writer_of(start, sizeof start);
        writer_u8(&w, room == len ? REC_COMMIT : REC_PIECE);
        writer_varint(&w, number++);
        unsigned n = 1;
        size_t took = 0;
        out[0] = writer_slice(&w);
        while (took < room && n < ARRAY_LEN(out)) {
            CHECK(part < count);
            size_t left = parts[part].len - within;
            size_t take = left < room - took ? left : room - took;
            if (take)
                out[n++] = slice_of(parts[part].ptr + within, take);
            took += take;
            within += take;
            if (within == parts[part].len) {
                part++;
                within = 0;
            }
        }
        CHECK(took == room);
        len -= room;
        lsn = append(b, out, n, room + w.len);
        if (!lsn)
            return 0;
    }
    return lsn;
}

lsn_t log_record(struct broker *b, const struct slice *parts, unsigned count)
{
    size_t len = 0;
    for (unsigned i = 0; i < count; i++)
        len += parts[i].len;
    if (b->recovering)
        return 0;
    if (b->capturing) {
        uint32_t be = htobe32((uint32_t)len);
        if (!buffer_reserve(&b->capture, len + sizeof be))
            return LSN_CAPTURED;
        buffer_put(&b->capture, &be, sizeof be);
        for (unsigned i = 0; i < count; i++)
            buffer_put(&b->capture, parts[i].ptr, parts[i].len);
        return LSN_CAPTURED;
    }
    return len <= CORE_RECORD_BYTES_MAX ? append(b, parts, count, len) : append_pieces(b, parts, count, len);
}

/* bytes are the sum of what the steps of the transaction will reserve (log_captured_bytes), records the most that one of
 * them asks for. Each step takes its own back from b->promised before it begins; whatever else is written meanwhile finds
 * room beyond the promise or fails. */
bool log_capture_begin(struct broker *b, size_t bytes, unsigned records)
{
    CHECK(!b->capturing && !b->promised);
    b->capture.len = 0;
    b->capturing = true;
    if (!log_reserve(b, bytes, records)) {
        b->capturing = false;
        return false;
    }
    b->promised = bytes;
    return true;
}

size_t log_captured_bytes(size_t bytes, unsigned records)
{
    return bytes + 8u * records;
}

/* Entries and marks that were waiting for the record's lsn stand in queues that are scheduled: all on b->pump. What such a
 * queue has pushed out again waits among the dead letters. */
static void give_lsn(struct broker *b, lsn_t lsn)
{
    dead_letters_give_lsn(b, lsn);
    LIST_EACH(&b->pump, node, after)
    {
        struct queue *q = CONTAINER_OF(node, struct busy, pump_link)->queue;
        unsigned lanes = lane_count(q);
        if (q->busy->mark_lsn == LSN_CAPTURED)
            q->busy->mark_lsn = lsn;
        for (unsigned i = 0; q->busy->captured_from && i < lanes; i++)
            for (struct list *at = q->busy->lanes[i].entries.prev; at != &q->busy->lanes[i].entries; at = at->prev) {
                struct entry *e = CONTAINER_OF(at, struct entry, link);
                if (e->position < q->busy->captured_from)
                    break;
                if (e->lsn == LSN_CAPTURED)
                    e->lsn = lsn;
            }
        q->busy->captured_from = 0;
    }
}

lsn_t log_capture_end(struct broker *b)
{
    CHECK(b->capturing && !b->promised);
    b->capturing = false;
    lsn_t lsn = 0;
    if (b->capture.len && !b->recovering) {
        uint8_t type = REC_TX;
        struct slice parts[] = {slice_of(&type, 1), slice_of(b->capture.bytes, b->capture.len)};
        lsn = log_record(b, parts, 2);
        CHECK(lsn); /* it was reserved */
    }
    give_lsn(b, lsn);
    b->capture.len = 0;
    if (b->capture.max > 1u << 20)
        buffer_fini(&b->capture);
    return lsn;
}

/* ---- heads ---- */

static struct writer head(struct broker *b, enum record_type type)
{
    struct writer w = writer_of(b->scratch.bytes, b->scratch.max);
    writer_u8(&w, (uint8_t)type);
    return w;
}

static lsn_t write_head(struct broker *b, const struct writer *w)
{
    CHECK(writer_ok(w));
    struct slice part = writer_slice(w);
    return log_record(b, &part, 1);
}

static size_t object_bytes(const struct object *object)
{
    size_t len = 2048;
    switch (object->kind) {
    case OBJ_USER:
        len += CONTAINER_OF(object, struct user, object)->verifier.len +
               CONTAINER_OF(object, struct user, object)->tags.len;
        break;
    case OBJ_PERMISSION:
    case OBJ_TOPIC_PERMISSION:
        for (int v = 0; v < VERB_COUNT; v++)
            len += CONTAINER_OF(object, struct permission, object)->patterns[v].text.len;
        break;
    case OBJ_POLICY:
        len += CONTAINER_OF(object, struct policy, object)->definition.len +
               CONTAINER_OF(object, struct policy, object)->pattern.text.len;
        break;
    case OBJ_EXCHANGE: len += CONTAINER_OF(object, struct exchange, object)->args.len; break;
    case OBJ_QUEUE: len += CONTAINER_OF(object, struct queue, object)->args.len; break;
    case OBJ_BINDING: len += CONTAINER_OF(object, struct binding, object)->args.len; break;
    case OBJ_TXN: len += txn_record_bytes(CONTAINER_OF(object, struct txn, object)); break;
    case OBJ_GROUP_RULES: len += group_rules_record_bytes(CONTAINER_OF(object, struct group_rules, object)); break;
    case OBJ_SQL: /* has its own: query.c */
    case OBJ_VHOST: break;
    }
    return len;
}

bool log_object_reserve(struct broker *b, const struct object *object)
{
    size_t bytes = object_bytes(object);
    return log_reserve(b, bytes, 1) && buffer_reserve(&b->scratch, bytes);
}

static void put_binding(struct writer *w, const struct binding *binding)
{
    writer_str8(w, binding->source->vhost->name);
    writer_str8(w, binding->source->name);
    writer_u8(w, binding->queue ? 'q' : 'x');
    writer_str8(w, binding->queue ? binding->queue->name : binding->exchange->name);
    writer_str8(w, binding->key);
    writer_str32(w, binding->args);
}

static void put_permission_key(struct writer *w, const struct permission *p)
{
    writer_str8(w, p->user->name);
    writer_str8(w, p->vhost->name);
    writer_u8(w, p->topic);
    writer_str8(w, p->exchange);
}

static void put_queue(struct writer *w, const struct queue *q)
{
    writer_varint(w, q->id);
    writer_str8(w, q->vhost->name);
    writer_str8(w, q->name);
    writer_u8(w, (uint8_t)((q->durable ? 1 : 0) | (q->auto_delete ? 2 : 0) | (q->hidden ? 4 : 0) | (q->mqtt ? 8 : 0)));
    writer_varint(w, q->next_position);
    writer_varint(w, q->mark);
    writer_str32(w, q->args);
}

size_t txn_record_bytes(const struct txn *t)
{
    return 400 + t->name.len + 15 * (size_t)t->part_count;
}

static void put_txn(struct writer *w, const struct txn *t)
{
    writer_str8(w, t->vhost->name);
    writer_str32(w, t->name);
    writer_varint(w, t->producer);
    writer_varint(w, t->epoch);
    writer_varint(w, t->state);
    writer_varint(w, t->timeout_ms);
    writer_varint(w, (uint64_t)t->started);
    writer_varint(w, (uint64_t)t->touched);
    writer_varint(w, t->part_count);
    for (uint32_t i = 0; i < t->part_count; i++) {
        writer_varint(w, t->parts[i].stream);
        writer_varint(w, t->parts[i].number);
    }
    writer_varint(w, t->last_producer);
    writer_varint(w, t->last_epoch == TXN_EPOCH_NONE ? 0 : t->last_epoch + 1u);
}

lsn_t log_object(struct broker *b, const struct object *object)
{
    static const uint8_t put_types[] = {[OBJ_VHOST] = REC_VHOST_PUT,
                                        [OBJ_USER] = REC_USER_PUT,
                                        [OBJ_PERMISSION] = REC_PERMISSION_PUT,
                                        [OBJ_TOPIC_PERMISSION] = REC_PERMISSION_PUT,
                                        [OBJ_POLICY] = REC_POLICY_PUT,
                                        [OBJ_EXCHANGE] = REC_EXCHANGE_PUT,
                                        [OBJ_QUEUE] = REC_QUEUE_PUT,
                                        [OBJ_BINDING] = REC_BINDING_PUT,
                                        [OBJ_TXN] = REC_TXN,
                                        [OBJ_GROUP_RULES] = REC_GROUP_CONFIG};
    if (object->kind == OBJ_SQL)
        return log_sql_snapshot(b, object);
    if (!object->journalled || b->recovering || !log_object_reserve(b, object))
        return 0;
    struct writer w = head(b, put_types[object->kind]);
    switch (object->kind) {
    case OBJ_VHOST: {
        const struct vhost *vhost = CONTAINER_OF(object, struct vhost, object);
        writer_str8(&w, vhost->name);
        writer_str8(&w, vhost->default_queue_type);
        break;
    }
    case OBJ_USER: {
        const struct user *user = CONTAINER_OF(object, struct user, object);
        writer_str8(&w, user->name);
        writer_str32(&w, user->verifier);
        writer_str32(&w, user->tags);
        break;
    }
    case OBJ_PERMISSION:
    case OBJ_TOPIC_PERMISSION: {
        const struct permission *p = CONTAINER_OF(object, struct permission, object);
        put_permission_key(&w, p);
        for (int v = 0; v < VERB_COUNT; v++)
            writer_str32(&w, p->patterns[v].text);
        break;
    }
    case OBJ_POLICY: {
        const struct policy *p = CONTAINER_OF(object, struct policy, object);
        writer_str8(&w, p->vhost->name);
        writer_str8(&w, p->name);
        writer_u8(&w, p->operator_policy);
        writer_u8(&w, (uint8_t)p->apply_to);
        writer_u64(&w, (uint64_t)p->priority);
        writer_str32(&w, p->pattern.text);
        writer_str32(&w, p->definition);
        break;
    }
    case OBJ_EXCHANGE: {
        const struct exchange *x = CONTAINER_OF(object, struct exchange, object);
        writer_str8(&w, x->vhost->name);
        writer_str8(&w, x->name);
        writer_str8(&w, slice_str(x->type->name));
        writer_u8(&w, (uint8_t)((x->auto_delete ? 2 : 0) | (x->internal ? 4 : 0) | (x->delayed ? 8 : 0)));
        writer_str32(&w, x->args);
        break;
    }
    case OBJ_QUEUE: put_queue(&w, CONTAINER_OF(object, struct queue, object)); break;
    case OBJ_BINDING: put_binding(&w, CONTAINER_OF(object, struct binding, object)); break;
    case OBJ_TXN: put_txn(&w, CONTAINER_OF(object, struct txn, object)); break;
    case OBJ_GROUP_RULES: group_rules_put(&w, CONTAINER_OF(object, struct group_rules, object)); break;
    case OBJ_SQL: break;
    }
    return write_head(b, &w);
}

lsn_t log_object_gone(struct broker *b, const struct object *object)
{
    if (!object->journalled || object_is_dying(object) || b->recovering || !log_object_reserve(b, object))
        return 0;
    struct writer w;
    switch (object->kind) {
    case OBJ_VHOST:
        w = head(b, REC_VHOST_DELETE);
        writer_str8(&w, CONTAINER_OF(object, struct vhost, object)->name);
        break;
    case OBJ_USER:
        w = head(b, REC_USER_DELETE);
        writer_str8(&w, CONTAINER_OF(object, struct user, object)->name);
        break;
    case OBJ_PERMISSION:
    case OBJ_TOPIC_PERMISSION:
        w = head(b, REC_PERMISSION_DELETE);
        put_permission_key(&w, CONTAINER_OF(object, struct permission, object));
        break;
    case OBJ_POLICY: {
        const struct policy *p = CONTAINER_OF(object, struct policy, object);
        w = head(b, REC_POLICY_DELETE);
        writer_str8(&w, p->vhost->name);
        writer_str8(&w, p->name);
        writer_u8(&w, p->operator_policy);
        break;
    }
    case OBJ_EXCHANGE:
        w = head(b, REC_EXCHANGE_DELETE);
        writer_str8(&w, CONTAINER_OF(object, struct exchange, object)->vhost->name);
        writer_str8(&w, CONTAINER_OF(object, struct exchange, object)->name);
        break;
    case OBJ_QUEUE:
        w = head(b, REC_QUEUE_DELETE);
        writer_varint(&w, CONTAINER_OF(object, struct queue, object)->id);
        break;
    case OBJ_BINDING:
        w = head(b, REC_BINDING_DELETE);
        put_binding(&w, CONTAINER_OF(object, struct binding, object));
        break;
    default: return 0;
    }
    return write_head(b, &w);
}

lsn_t log_queue_args(struct broker *b, const struct queue *q, struct slice args)
{
    if (!log_reserve(b, 64 + args.len, 1))
        return 0;
    struct writer w = head(b, REC_QUEUE_ARGS);
    writer_varint(&w, q->id);
    writer_u32(&w, (uint32_t)args.len);
    CHECK(writer_ok(&w));
    struct slice parts[] = {writer_slice(&w), args};
    return log_record(b, parts, 2);
}

lsn_t log_queue_ids(struct broker *b, uint64_t end)
{
    struct writer w = head(b, REC_QUEUE_IDS);
    writer_varint(&w, end);
    return write_head(b, &w);
}

/* ---- messages ---- */

size_t log_enqueue_bytes(const struct msg *msg, uint32_t targets)
{
    return 112 + 48 * (size_t)targets + msg_size(msg);
}

static void put_target(struct writer *w, const struct target *t)
{
    writer_varint(w, t->queue->id);
    writer_varint(w, t->position);
    writer_varint(w, t->deadline == WALL_NEVER ? 0 : (uint64_t)t->deadline + 1);
    writer_varint(w, (uint64_t)t->returns << 1 | t->redelivered);
}

/* Only targets that are journalled are written. from: moved from there. body: with the message, else a reference to the
 * message id that this snapshot wrote before. */
lsn_t log_enqueue(struct broker *b, const struct msg *msg, const struct target *targets, uint32_t count,
                  const struct entry *from, bool snapshot, bool body)
{
    if (b->recovering)
        return 0;
    uint32_t written = 0;
    bool keyed = false;
    for (uint32_t i = 0; i < count; i++)
        if (backlog_journals(targets[i].queue, msg)) {
            written++;
            keyed |= targets[i].keyed;
        }
    body = body && written;
    struct mqtt_once *once = &b->mqtt.once;
    bool with_id = once->client && !once->written && written;
    struct writer w = head(b, with_id ? REC_MQTT_ONCE : keyed ? REC_KEYED : REC_ENQUEUE);
    if (with_id) {
        writer_varint(&w, once->client->number);
        writer_varint(&w, once->id);
        writer_u8(&w, keyed ? REC_KEYED : REC_ENQUEUE);
        once->written = true;
    }
    if (keyed)
        writer_varint(&w, (uint64_t)b->wall);
    writer_u8(&w, (uint8_t)((snapshot ? ENQ_SNAPSHOT : 0) | (body ? ENQ_BODY : 0) | (from ? ENQ_MOVE : 0)));
    writer_varint(&w, msg->id);
    if (from) {
        writer_varint(&w, from->queue->id);
        writer_varint(&w, from->position);
    }
    writer_varint(&w, written);
    for (uint32_t i = 0; i < count; i++)
        if (backlog_journals(targets[i].queue, msg))
            put_target(&w, &targets[i]);
    if (body) {
        writer_u8(&w, msg->flags);
        writer_u8(&w, msg->priority);
        writer_varint(&w, (uint64_t)(msg->expiration_ms + 1));
        writer_u8(&w, msg->exchange_len);
        writer_u8(&w, msg->key_len);
        writer_varint(&w, msg->props_len);
        writer_varint(&w, msg->body_len);
    }
    CHECK(writer_ok(&w));
    size_t bytes = (size_t)msg->exchange_len + msg->key_len + msg->props_len + msg->body_len;
    struct slice parts[] = {writer_slice(&w), slice_of(msg->bytes, body ? bytes : 0)};
    return log_record(b, parts, 2);
}

size_t log_remove_bytes(const struct ranges *ranges)
{
    return 64 + 20 * (size_t)ranges->count;
}

lsn_t log_remove(struct broker *b, const struct queue *q, const struct ranges *ranges)
{
    size_t bytes = log_remove_bytes(ranges);
    if (!log_reserve(b, bytes, 1) || !buffer_reserve(&b->scratch, bytes))
        return 0; /* after a crash they come back as redelivered: at-least-once still holds */
    struct writer w = head(b, REC_REMOVE);
    writer_varint(&w, q->id);
    writer_varint(&w, ranges->count);
    for (uint32_t i = 0; i < ranges->count; i++) {
        writer_varint(&w, ranges->runs[i].first);
        writer_varint(&w, ranges->runs[i].last - ranges->runs[i].first + 1);
    }
    return write_head(b, &w);
}

static void put_runs(struct writer *w, const struct ranges *ranges)
{
    for (uint32_t i = 0; i < ranges->count; i++) {
        writer_varint(w, ranges->runs[i].first);
        writer_varint(w, ranges->runs[i].last - ranges->runs[i].first + 1);
    }
}

size_t log_page_bytes(const struct page *page)
{
    return 128 + 20 * ((size_t)page->holes.count + page->transient.count);
}

/* 0: no memory, or no room. Messages that the journal does not know are not alive in what it says. */
lsn_t log_page(struct broker *b, const struct page *page)
{
    size_t bytes = log_page_bytes(page);
    if (!log_reserve(b, bytes, 1) || !buffer_reserve(&b->scratch, bytes))
        return 0;
    struct writer w = head(b, REC_PAGE);
    writer_varint(&w, page->queue->id);
    writer_varint(&w, page_lane(page));
    writer_varint(&w, page->where.segment);
    writer_varint(&w, page->where.offset);
    writer_varint(&w, page->where.len);
    writer_varint(&w, page->first);
    writer_varint(&w, page->last - page->first);
    writer_varint(&w, page->count);
    writer_varint(&w, page->body_bytes);
    writer_varint(&w, page->deadline == WALL_NEVER ? 0 : (uint64_t)page->deadline + 1);
    writer_varint(&w, (uint64_t)page->holes.count + page->transient.count);
    page_holes_put(&w, page);
    put_runs(&w, &page->transient);
    if (page->queue->hidden || page->retry)
        writer_varint(&w, page->arrival);
    return write_head(b, &w);
}

static void put_extent(struct writer *w, const struct stream_extent *extent, bool sealed)
{
    writer_varint(w, extent->base);
    if (sealed)
        writer_varint(w, extent->end);
    writer_varint(w, extent->bytes);
    writer_varint(w, (uint64_t)extent->first_at);
    writer_varint(w, (uint64_t)extent->max_at);
}

/* sealed: how many of its segments are synced. Room is reserved, in the scratch too. */
lsn_t log_stream(struct broker *b, const struct partition *p, uint32_t sealed)
{
    struct writer w = head(b, REC_STREAM);
    writer_varint(&w, p->stream->queue->id);
    writer_varint(&w, p->number);
    writer_varint(&w, p->start);
    writer_varint(&w, p->synced.end);
    put_extent(&w, &p->synced, false);
    writer_varint(&w, sealed);
    for (uint32_t i = 0; i < sealed; i++)
        put_extent(&w, &p->sealed[i], true);
    if (p->generation || p->dirty_from) {
        writer_varint(&w, p->dirty_from);
        for (uint32_t i = 0; i < sealed; i++)
            writer_varint(&w, p->sealed[i].generation);
    }
    return write_head(b, &w);
}

/* extent NULL: the dirty point alone. */
lsn_t log_rewritten(struct broker *b, const struct partition *p, const struct stream_extent *extent)
{
    static const struct stream_extent none;
    struct writer w = head(b, REC_REWRITTEN);
    writer_varint(&w, p->stream->queue->id);
    writer_varint(&w, p->number);
    writer_varint(&w, p->dirty_from);
    put_extent(&w, extent ? extent : &none, true);
    writer_varint(&w, extent ? extent->generation : 0);
    return write_head(b, &w);
}

lsn_t log_stream_trim(struct broker *b, const struct queue *q, uint32_t partition, uint64_t start)
{
    struct writer w = head(b, REC_STREAM_TRIM);
    writer_varint(&w, q->id);
    writer_varint(&w, partition);
    writer_varint(&w, start);
    return write_head(b, &w);
}

lsn_t log_batch(struct broker *b, const struct partition *p, uint64_t base, const struct msg *batch)
{
    struct writer w = head(b, REC_BATCH);
    writer_varint(&w, p->stream->queue->id);
    writer_varint(&w, p->number);
    writer_varint(&w, base);
    writer_varint(&w, (uint64_t)b->wall);
    CHECK(writer_ok(&w));
    struct slice parts[] = {writer_slice(&w), msg_body(batch)};
    return log_record(b, parts, 2);
}

/* As many producers from *at on as one record holds; *at is then behind them. */
lsn_t log_producers(struct broker *b, const struct partition *p, struct list **at)
{
    struct writer w = head(b, REC_PRODUCERS);
    writer_varint(&w, p->stream->queue->id);
    writer_varint(&w, p->number);
    for (unsigned n = 0; n < PRODUCERS_RECORD && *at != &p->producers.by_age; n++, *at = (*at)->next)
        producer_put(&w, CONTAINER_OF(*at, struct producer, link));
    return write_head(b, &w);
}

lsn_t log_txn_over(struct broker *b, const struct txn *t)
{
    struct writer w = head(b, REC_TXN);
    CHECK(t->part_count == 0); /* so it fits into what is always there */
    put_txn(&w, t);
    return write_head(b, &w);
}

lsn_t log_txn_gone(struct broker *b, const struct txn *t)
{
    struct writer w = head(b, REC_TXN_GONE);
    writer_varint(&w, t->producer);
    return write_head(b, &w);
}

lsn_t log_txn_add(struct broker *b, const struct txn *t, const struct txn_part *part)
{
    struct writer w = head(b, REC_TXN_ADD);
    writer_varint(&w, t->producer);
    writer_varint(&w, (uint64_t)t->started);
    writer_varint(&w, part->stream);
    writer_varint(&w, part->number);
    return write_head(b, &w);
}

/* Open ones come first, then the aborted ones by their number. */
lsn_t log_isolation(struct broker *b, const struct partition *p, uint32_t *at)
{
    struct writer w = head(b, REC_ISOLATION);
    uint32_t index = 0, rows = 0;
    writer_varint(&w, p->stream->queue->id);
    writer_varint(&w, p->number);
    writer_u8(&w, *at == 0);
    for (struct list *node = p->producers.open.next; node != &p->producers.open; node = node->next, index++) {
        const struct producer *producer = CONTAINER_OF(node, struct producer, open_link);
        if (index < *at || rows == ISOLATION_RECORD)
            continue;
        writer_u8(&w, true);
        writer_varint(&w, (uint64_t)producer->id);
        writer_varint(&w, (uint16_t)producer->epoch);
        writer_varint(&w, producer->open_first);
        rows++;
    }
    uint32_t open = index;
    for (index = *at + rows; index < open + p->isolation.aborted_count && rows < ISOLATION_RECORD; index++, rows++) {
        const struct aborted *aborted = &p->isolation.aborted[index - open];
        writer_u8(&w, false);
        writer_varint(&w, (uint64_t)aborted->producer);
        writer_varint(&w, aborted->first);
        writer_varint(&w, aborted->last);
        writer_varint(&w, aborted->stable);
    }
    *at = index == open + p->isolation.aborted_count ? UINT32_MAX : index;
    return write_head(b, &w);
}

lsn_t log_producer_ids(struct broker *b, uint64_t end)
{
    struct writer w = head(b, REC_PRODUCER_IDS);
    writer_varint(&w, end);
    return write_head(b, &w);
}

lsn_t log_secret(struct broker *b)
{
    struct writer w = head(b, REC_SECRET);
    writer_slice_put(&w, slice_of(b->secret, sizeof b->secret));
    return write_head(b, &w);
}

lsn_t log_cursor(struct broker *b, const struct cursor *cursor, uint32_t partition, uint64_t next)
{
    struct writer w = head(b, REC_CURSOR);
    writer_varint(&w, cursor->follower->stream->queue->id);
    writer_varint(&w, cursor->target->id);
    writer_varint(&w, partition);
    writer_varint(&w, next);
    return write_head(b, &w);
}

lsn_t log_return(struct broker *b, const struct queue *q, uint64_t position, uint32_t returns)
{
    struct writer w = head(b, REC_RETURN);
    writer_varint(&w, q->id);
    writer_varint(&w, position);
    writer_varint(&w, returns);
    return write_head(b, &w);
}

lsn_t log_retry(struct broker *b, const struct queue *q, uint64_t position, uint32_t returns, wall_t due)
{
    struct writer w = head(b, REC_RETRY);
    writer_varint(&w, q->id);
    writer_varint(&w, position);
    writer_varint(&w, returns);
    writer_varint(&w, (uint64_t)due);
    return write_head(b, &w);
}

static bool put_key(struct writer *w, const struct key *k)
{
    if (!k->journalled)
        return false;
    writer_u64(w, k->value.hash[0]);
    writer_u64(w, k->value.hash[1]);
    writer_varint(w, k->position);
    writer_varint(w, k->value.until == WALL_NEVER ? 0 : (uint64_t)k->value.until + 1);
    return true;
}

bool log_window(struct broker *b, const struct queue *q, struct list **at, size_t *ret_bytes)
{
    const struct list *end = &q->extra->window.keys;
    unsigned count = 0;
    if (!log_reserve(b, 16 + WINDOW_KEYS * WINDOW_KEY_BYTES, 1))
        return false;
    struct writer w = head(b, REC_WINDOW);
    writer_varint(&w, q->id);
    for (unsigned n = 0; n < WINDOW_KEYS && *at != end; n++) {
        count += put_key(&w, CONTAINER_OF(*at, struct key, link));
        *at = (*at)->next;
    }
    *ret_bytes = w.len;
    if (*at == end)
        *at = NULL;
    return !count || write_head(b, &w);
}

lsn_t log_mark(struct broker *b, const struct queue *q, uint64_t mark)
{
    struct writer w = head(b, REC_MARK);
    writer_varint(&w, q->id);
    writer_varint(&w, mark);
    return write_head(b, &w);
}

lsn_t log_checkpoint(struct broker *b, lsn_t first)
{
    struct writer w = head(b, REC_CHECKPOINT);
    writer_u64(&w, first);
    return write_head(b, &w);
}
