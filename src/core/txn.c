/* Transactions of Kafka producers. See txn.h for what they are, isolation.h and producer.h for what readers see of them.
 *
 *                    TXN_ADD, a batch that joins              TXN_END
 *   TXN_INIT ▸ EMPTY ──────────────────────────▶ ONGOING ──────────────▶ COMMITTED | ABORTED ──▶ ONGOING …
 *                                                   │ TXN_INIT of a younger instance, its time is over
 *                                                   └─────────────▶ ABORTED, in the next epoch
 *
 * The coordinator, the partitions and their consumers' offsets are one core with one journal: so a transaction ends with one
 * TX record, which holds its new state and a control batch for each partition, all or none. Nothing is ever half
 * committed, and nobody has to be told to try again while markers are on their way.
 *
 *   X1  a partition of an ongoing transaction stands in its list before the first batch is journalled (TXN_ADD).
 *   X2  a producer id has one transactional id at a time; batches of an older epoch, or without a transaction, are refused.
 *   X3  an end by another than its own producer uses the next epoch, so that what the old one still sends is refused.
 *   X4  what a transaction has written can be read as committed when its TX record is durable, not before.
 */
#include "core/stream_int.h"
#include "core/txn_int.h"
#include "fmt/record_batch.h"

#include <stdlib.h>

#define EPOCH_LAST (INT16_MAX - 1u)
#define RETRY_NS NS_PER_S
#define EXPIRES_MS (7 * 86400000ll) /* a transactional id that nobody uses: transactional.id.expiration.ms */

static struct slice producer_of(const void *value)
{
    return map_key_u64(&((const struct txn *)value)->producer);
}

void txns_init(struct broker *b)
{
    map_init_keyed(&b->txns, b->seed ^ 0x74786e, producer_of);
    txn_staging_init(b);
}

void txns_fini(struct broker *b)
{
    map_fini(&b->txns);
    txn_staging_fini(b);
}

const char *txn_state_name(enum txn_state state)
{
    static const char *const names[] = {"Empty", "Ongoing", "CompleteCommit", "CompleteAbort"}; /* as Kafka says it */
    return state <= TXN_ABORTED ? names[state] : "unknown";
}

/* ---- objects ---- */

struct txn *txn_find(const struct vhost *vhost, struct slice name)
{
    return map_get(&vhost->txns, name);
}

struct txn *txn_of_producer(const struct broker *b, uint64_t producer)
{
    return map_get(&b->txns, map_key_u64(&producer));
}

static void time_over(void *arg, struct timer *timer);

/* NULL: no memory. */
static struct txn *txn_make(struct broker *b, struct vhost *vhost, struct slice name, uint64_t producer)
{
    struct txn *t = mem_zalloc_as(MEM_TXNS, sizeof *t);
    if (!t || !slice_keep(&t->name, name) || !map_reserve(&vhost->txns) || !map_reserve(&b->txns)) {
        if (t)
            slice_drop(&t->name);
        mem_free_as(MEM_TXNS, t);
        return NULL;
    }
    t->vhost = vhost;
    t->producer = producer;
    t->last_epoch = TXN_EPOCH_NONE;
    list_init(&t->staged);
    timer_init(&t->timer, time_over);
    (void)map_put(&vhost->txns, t->name, t);
    list_insert(&vhost->txn_list, &t->vhost_link);
    (void)map_put(&b->txns, producer_of(t), t);
    object_add(b, &t->object, OBJ_TXN, true);
    allowance_take(&vhost->txn_ids, txn_id_bytes(name));
    return t;
}

void txn_free(struct broker *b, struct txn *t)
{
    wheel_cancel(&b->wheel, &t->timer);
    txn_staged_free(b, t);
    allowance_give(&t->vhost->txn_ids, txn_id_bytes(t->name));
    allowance_give(&t->vhost->txn_open, t->part_max * TXN_PART_BYTES);
    txn_listings_pass(b, t);
    list_remove(&t->vhost_link);
    (void)map_take(&t->vhost->txns, t->name);
    (void)map_take(&b->txns, producer_of(t));
    object_remove(b, &t->object);
    slice_drop(&t->name);
    mem_free_as(MEM_TXNS, t->parts);
    mem_free_as(MEM_TXNS, t);
}

bool txns_vhost_gone(struct broker *b, struct vhost *vhost, unsigned *budget)
{
    struct txn *t;
    for (; *budget && (t = map_any(&vhost->txns, &vhost->cursor)); budget_spend(budget, 1))
        txn_free(b, t);
    return !vhost->txns.count;
}

static wall_t expires_at(const struct broker *b, const struct txn *t)
{
    return t->touched + (b->options.txn_retention_ms ? b->options.txn_retention_ms : EXPIRES_MS);
}

bool txn_expired(const struct broker *b, const struct object *object)
{
    const struct txn *t = CONTAINER_OF(object, struct txn, object);
    return t->state != TXN_ONGOING && expires_at(b, t) < b->wall;
}

void txn_forget(struct broker *b, struct object *object)
{
    txn_free(b, CONTAINER_OF(object, struct txn, object));
}

/* Nothing is open: it is forgotten when nobody has used it for long. */
static void rest(struct broker *b, struct txn *t)
{
    int64_t left = expires_at(b, t) - b->wall;
    wheel_set(&b->wheel, &t->timer, b->now + (left > 0 ? left + 1 : 0) * NS_PER_MS);
}

static void expire(struct broker *b, struct txn *t)
{
    if (!txn_expired(b, &t->object)) { /* the clock was set back */
        rest(b, t);
    } else if (!log_reserve(b, 64, 1)) {
        wheel_set(&b->wheel, &t->timer, b->now + RETRY_NS);
    } else {
        (void)log_txn_gone(b, t);
        txn_free(b, t);
    }
}

/* Another producer id: the old one's epochs are used up. Room is there, because one goes. */
static void producer_change(struct broker *b, struct txn *t, uint64_t producer)
{
    (void)map_take(&b->txns, producer_of(t));
    t->producer = producer;
    CHECK(map_put(&b->txns, producer_of(t), t));
}

static int by_part(const void *a, const void *b)
{
    const struct txn_part *x = a, *y = b;
    if (x->stream != y->stream)
        return x->stream < y->stream ? -1 : 1;
    return x->number < y->number ? -1 : x->number > y->number;
}

/* Where it is among the first count, or would be. */
static uint32_t part_at(const struct txn *t, const struct txn_part *part, uint32_t count)
{
    uint32_t low = 0, high = count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (by_part(&t->parts[middle], part) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool part_known(const struct txn *t, const struct txn_part *part)
{
    uint32_t at = part_at(t, part, t->part_count);
    return at < t->part_count && by_part(&t->parts[at], part) == 0;
}

/* It is not known, and there is room. */
static void part_put(struct txn *t, const struct txn_part *part)
{
    uint32_t at = part_at(t, part, t->part_count);
    memmove(&t->parts[at + 1], &t->parts[at], (t->part_count++ - at) * sizeof *part);
    t->parts[at] = *part;
}

static bool parts_reserve(struct broker *b, struct txn *t, uint32_t more)
{
    uint32_t max = t->part_max ? t->part_max : 4;
    if (t->part_count + more <= t->part_max)
        return true;
    while (max < t->part_count + more)
        max *= 2;
    size_t bytes = (max - t->part_max) * TXN_PART_BYTES;
    if (!txn_has_room(b, t->vhost, &t->vhost->txn_open, bytes))
        return false;
    struct txn_part *grown = mem_realloc_as(MEM_TXNS, t->parts, max * sizeof *grown);
    if (!grown)
        return false;
    t->parts = grown;
    t->part_max = max;
    allowance_take(&t->vhost->txn_open, bytes);
    return true;
}

static void parts_drop(struct txn *t)
{
    allowance_give(&t->vhost->txn_open, t->part_max * TXN_PART_BYTES);
    t->part_count = 0;
    mem_free_as(MEM_TXNS, t->parts);
    t->parts = NULL;
    t->part_max = 0;
}

static struct partition *partition_of(struct broker *b, const struct txn_part *part)
{
    struct queue *q = map_get(&b->queues_by_id, map_key_u64(&part->stream));
    return q && q->stream && part->number < q->stream->partition_count ? q->stream->partitions[part->number] : NULL;
}

void txn_begin(struct broker *b, struct txn *t)
{
    if (t->state == TXN_ONGOING)
        return;
    t->state = TXN_ONGOING;
    t->part_count = 0;
    t->started = b->wall;
    if (!b->recovering)
        wheel_set(&b->wheel, &t->timer, b->now + t->timeout_ms * NS_PER_MS);
}

static void over(struct broker *b, struct txn *t, enum txn_state state)
{
    t->state = (uint8_t)state;
    t->touched = b->wall;
    rest(b, t);
    parts_drop(t);
}

/* ---- the end ---- */

bool txn_marker_read(struct slice batch, bool *ret_commit)
{
    struct record_batch head;
    struct record_reader records;
    struct record record;
    if (record_batch_open(batch, NULL, 0, &head, &records) != RECORD_OK || !head.control ||
        !record_next(&records, &record) || record.key.len < 4)
        return false;
    struct reader key = reader_of(record.key);
    (void)reader_u16(&key); /* its version */
    uint16_t type = reader_u16(&key);
    *ret_commit = type == 1;
    return type <= 1;
}

struct msg *txn_marker_new(struct broker *b, uint64_t producer, bool commit, uint16_t epoch)
{
    uint8_t bytes[MARKER_BYTES];
    const uint8_t key_bytes[4] = {0, 0, 0, commit}, value_bytes[6] = {0}; /* versions; the coordinator's epoch */
    struct slice key = slice_of(key_bytes, sizeof key_bytes), value = slice_of(value_bytes, sizeof value_bytes);
    struct slice none = {0};
    struct writer w = writer_of(bytes, sizeof bytes);
    struct record_batch head = record_batch_head(0, b->wall);
    struct record_batch_writer batch;
    head.producer_id = (int64_t)producer;
    head.producer_epoch = (int16_t)epoch;
    head.base_sequence = -1;
    head.transactional = head.control = true;
    record_batch_begin(&batch, &w, &head);
    CHECK(record_batch_put(&batch, b->wall, &key, &value, NULL, 0));
    struct slice made = record_batch_finish(&batch, -1);
    struct msg *msg = msg_new(&b->heap, none, none, none, made.len);
    if (!msg)
        return NULL;
    memcpy(msg_body_room(msg), made.ptr, made.len);
    msg->flags = MSG_BATCH | MSG_PERSISTENT;
    msg->expiration_ms = -1;
    return msg;
}

void txn_ended(struct broker *b, struct partition *p, uint64_t offset, const struct record_batch *head, bool commit,
               lsn_t lsn)
{
    uint64_t first;
    if (!producers_close(&p->producers, head->producer_id, head->producer_epoch, &first))
        return;
    if (!commit) {
        uint64_t stable = producers_stable(&p->producers);
        isolation_abort(&p->isolation,
                        &(struct aborted){.producer = head->producer_id,
                                          .first = first,
                                          .last = offset,
                                          .stable = stable < offset ? stable : offset + 1},
                        &p->stream->txn_aborted);
    }
    if (!b->recovering)
        isolation_closing(&p->isolation, first, lsn);
}

static size_t marker_need(void)
{
    return log_captured_bytes(64 + MARKER_BYTES, 1);
}

struct ending { /* what was prepared for one partition */
    struct partition *partition;
    struct msg *marker;
    uint64_t offset;
};

static void write_marker(struct broker *b, struct ending *end)
{
    struct partition *p = end->partition;
    struct target t = {.queue = p->stream->queue, .position = p->end, .deadline = b->wall, .returns = p->number};
    record_batch_set_base(msg_body_room(end->marker), (int64_t)p->end, PRODUCE_LEADER_EPOCH);
    b->promised -= marker_need();
    (void)log_batch(b, p, p->end, end->marker);
    end->offset = p->end++;
    stream_append(b, &t, end->marker);
}

/* Markers and memory for all partitions that are still there. NULL: no memory. */
static struct ending *endings_new(struct broker *b, const struct txn *t, bool commit, uint16_t epoch,
                                  uint32_t *ret_count)
{
    struct ending *list = mem_zalloc((t->part_count + 1) * sizeof *list);
    *ret_count = 0;
    for (uint32_t i = 0; list && i < t->part_count; i++) {
        struct ending *end = &list[*ret_count];
        end->partition = partition_of(b, &t->parts[i]);
        if (!end->partition)
            continue; /* its stream has been deleted */
        end->marker = txn_marker_new(b, t->producer, commit, epoch);
        ++*ret_count;
        if (!end->marker || !isolation_reserve(&end->partition->isolation, b->durable)) {
            for (uint32_t n = 0; n < *ret_count; n++)
                if (list[n].marker)
                    msg_unref(&b->heap, list[n].marker);
            mem_free(list);
            return NULL;
        }
    }
    return list;
}

/* Whose it is from then on: the next epoch of the producer, or the first one of another. */
struct successor {
    uint64_t producer;
    uint16_t epoch;
    bool own; /* the producer has asked for it, and may do so again */
};

static void succeed(struct broker *b, struct txn *t, const struct successor *next)
{
    t->last_producer = t->producer;
    t->last_epoch = next->own ? t->epoch : TXN_EPOCH_NONE;
    t->epoch = next->epoch;
    if (next->producer != t->producer)
        producer_change(b, t, next->producer);
}

/* All of it, or nothing: false, no memory or no room. epoch: of the markers. */
static bool finish(struct broker *b, struct txn *t, bool commit, uint16_t epoch, const struct successor *next,
                   lsn_t *ret_lsn)
{
    uint32_t count;
    backlog_flush_removals(b);
    if (!list_empty(&b->removals))
        return false; /* what is older must not become part of this */
    struct ending *list = endings_new(b, t, commit, epoch, &count);
    size_t own = log_captured_bytes(txn_record_bytes(t), 1), offsets = 0, longest = 0;
    bool ok = list && (!commit || txn_staged_prepare(b, t, &offsets, &longest)) &&
              pool_reserve_many(&b->entries, count) && log_reserve(b, longest, 1) &&
              buffer_reserve(&b->scratch, longest) && log_capture_begin(b, own + offsets + count * marker_need(), 2);
    if (ok) {
        pool_pin(&b->entries);
        if (commit)
            txn_staged_commit(b, t);
        over(b, t, commit ? TXN_COMMITTED : TXN_ABORTED);
        if (next->producer != t->producer || next->epoch != t->epoch)
            succeed(b, t, next);
        b->promised -= own;
        CHECK(log_txn_over(b, t));
        for (uint32_t i = 0; i < count; i++)
            write_marker(b, &list[i]);
        *ret_lsn = log_capture_end(b);
        pool_unpin(&b->entries);
        txn_staged_committed(b, t, *ret_lsn);
    }
    for (uint32_t i = 0; list && i < count; i++) {
        struct record_batch head;
        if (ok) {
            CHECK(record_batch_peek(msg_body(list[i].marker), &head) == RECORD_OK);
            txn_ended(b, list[i].partition, list[i].offset, &head, commit, *ret_lsn);
            stream_awake(b, list[i].partition->stream);
        }
        msg_unref(&b->heap, list[i].marker);
    }
    mem_free(list);
    return ok;
}

/* The highest epoch of all is for markers alone: nobody is given it. */
static uint16_t epoch_behind(const struct txn *t)
{
    return t->epoch < INT16_MAX ? t->epoch + 1 : t->epoch;
}

/* X3. Nobody is to come back with the epoch before, but for the producer itself, which asks for a new one. */
static bool abort_open(struct broker *b, struct txn *t, bool own, lsn_t *ret_lsn)
{
    struct successor next = {.producer = t->producer, .epoch = epoch_behind(t), .own = own};
    return finish(b, t, false, next.epoch, &next, ret_lsn);
}

static void time_over(void *arg, struct timer *timer)
{
    struct broker *b = arg;
    struct txn *t = CONTAINER_OF(timer, struct txn, timer);
    lsn_t lsn;
    if (t->state != TXN_ONGOING)
        expire(b, t);
    else if (!abort_open(b, t, false, &lsn))
        wheel_set(&b->wheel, &t->timer, b->now + RETRY_NS);
}

/* ---- commands ---- */

struct asked { /* operands that all have */
    struct slice name;
    bool has_producer;
    uint64_t producer;
    uint16_t epoch;
    struct reader rest;
};

static struct asked asked_read(const struct ask *ask)
{
    struct asked a = {.name = ask->name, .has_producer = ask->other.len >= 10, .rest = reader_of(ask->other)};
    if (a.has_producer) {
        a.producer = reader_u64(&a.rest);
        a.epoch = reader_u16(&a.rest);
    }
    return a;
}

static void answer(struct broker *b, struct peer *peer, const struct command *c, struct answer *answer,
                   enum txn_result result, const struct txn *t, lsn_t lsn)
{
    uint16_t epoch = htobe16(t ? t->epoch : 0);
    if (answer) {
        answer->number = result;
        answer->number2 = t ? t->producer : 0;
        memcpy(answer->bytes, &epoch, sizeof epoch);
    }
    answer_give(b, peer, c->origin, answer, lsn);
}

/* Its block is taken before anything changes. NULL: no memory, nothing is to happen. */
static struct answer *answer_begin(void)
{
    static const uint8_t room[2];
    return answer_new((struct slice){0}, (struct slice){0}, slice_of(room, sizeof room));
}

bool txn_may_use(struct broker *b, const struct peer *peer, struct slice name)
{
    return peer->state == PEER_ENTERED && (!peer->user || authorise(b, peer->user, peer->vhost, VERB_WRITE, name));
}

/* The request that led to the present epoch, once more: its answer was lost. */
static bool was_the_last(const struct txn *t, const struct asked *a)
{
    return a->has_producer && t->last_epoch != TXN_EPOCH_NONE && a->producer == t->last_producer &&
           a->epoch == t->last_epoch;
}

/* The transaction of a producer that says who it is. */
static enum txn_result the_one(struct broker *b, const struct peer *peer, const struct asked *a, struct txn **ret)
{
    *ret = NULL;
    if (!txn_may_use(b, peer, a->name))
        return TXN_REFUSED;
    struct txn *t = txn_find(peer->vhost, a->name);
    if (!t)
        return TXN_UNKNOWN;
    if (!a->has_producer || (a->producer != t->producer && !was_the_last(t, a)))
        return TXN_OTHER_PRODUCER;
    *ret = t;
    return a->producer == t->producer && a->epoch == t->epoch ? TXN_DONE : TXN_FENCED;
}

/* A producer id that nobody has had. False: no room. */
static bool producer_draw(struct broker *b, uint64_t *ret, lsn_t *ret_lsn)
{
    if (!producer_ids_reserve(b))
        return false;
    *ret = b->next_producer_id++;
    *ret_lsn = b->producer_ids_lsn;
    return true;
}

static bool make_new(struct broker *b, struct peer *peer, struct slice name, struct txn **ret, lsn_t *lsn)
{
    uint64_t producer;
    if (!txn_has_room(b, peer->vhost, &peer->vhost->txn_ids, txn_id_bytes(name)) || !producer_draw(b, &producer, lsn))
        return false;
    *ret = txn_make(b, peer->vhost, name, producer);
    return *ret != NULL;
}

/* The next epoch, or the first of another producer id. False: no room. */
static bool successor_of(struct broker *b, const struct txn *t, bool own, struct successor *ret)
{
    lsn_t lsn; /* what tells of it is behind that in the journal */
    *ret = (struct successor){.producer = t->producer, .epoch = t->epoch + 1u, .own = own};
    if (t->epoch < EPOCH_LAST)
        return true;
    ret->epoch = 0;
    return producer_draw(b, &ret->producer, &lsn);
}

static enum txn_result init_known(struct broker *b, struct txn *t, const struct asked *a, lsn_t *lsn)
{
    struct successor next;
    if (was_the_last(t, a) && t->state != TXN_ONGOING)
        return TXN_DONE;
    if (a->has_producer && a->producer != t->producer)
        return TXN_OTHER_PRODUCER;
    if (a->has_producer && a->epoch != t->epoch)
        return TXN_FENCED;
    if (t->state == TXN_ONGOING) {
        if (!abort_open(b, t, a->has_producer, lsn))
            return TXN_NO_ROOM;
        if (t->epoch <= EPOCH_LAST)
            return TXN_DONE;
    }
    if (!successor_of(b, t, a->has_producer, &next))
        return TXN_NO_ROOM;
    succeed(b, t, &next);
    return TXN_DONE;
}

static enum txn_result init(struct broker *b, struct peer *peer, struct command *c, struct txn **ret, lsn_t *lsn)
{
    struct asked a = asked_read(c->ask);
    bool is_new = false;
    *ret = NULL;
    if (a.name.len == 0 || a.name.len > TXN_NAME_MAX)
        return TXN_BAD_NAME;
    if (!txn_may_use(b, peer, a.name))
        return TXN_REFUSED;
    if (c->ask->number == 0 || c->ask->number > TXN_TIMEOUT_MAX_MS)
        return TXN_BAD_TIMEOUT;
    struct txn *t = txn_find(peer->vhost, a.name);
    if (!log_reserve(b, 256 + TXN_NAME_MAX, 3))
        return TXN_NO_ROOM;
    if (!t) {
        is_new = true;
        if (!make_new(b, peer, a.name, &t, lsn))
            return TXN_NO_ROOM;
    } else {
        enum txn_result result = init_known(b, t, &a, lsn);
        if (result != TXN_DONE)
            return result;
    }
    t->started = 0;
    t->state = TXN_EMPTY; /* an end that comes again is no repetition for an older instance */
    t->timeout_ms = (uint32_t)c->ask->number;
    t->touched = b->wall;
    rest(b, t);
    lsn_t logged = log_object(b, &t->object);
    if (!logged && is_new) {
        txn_free(b, t);
        return TXN_NO_ROOM;
    }
    *lsn = logged > *lsn ? logged : *lsn; /* of an old one: without room its epoch is written with what comes next */
    *ret = t;
    return logged ? TXN_DONE : TXN_NO_ROOM;
}

void do_txn_init(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    struct answer *said = answer_begin();
    struct txn *t = NULL;
    lsn_t lsn = 0;
    enum txn_result result = said ? init(b, peer, c, &t, &lsn) : TXN_NO_ROOM;
    (void)ch;
    answer(b, peer, c, said, result, t, lsn);
}

static struct txn_part part_read(struct reader *rows)
{
    struct txn_part part = {.stream = reader_u64(rows)};
    part.number = reader_u32(rows);
    return part;
}

/* Before a transaction begins in the partitions of the rows. */
static enum txn_result may_add(struct broker *b, struct txn *t, struct reader rows, uint32_t count)
{
    for (struct reader r = rows; r.left >= 12;) {
        struct txn_part part = part_read(&r);
        if (!partition_of(b, &part))
            return TXN_BAD_PARTITION;
    }
    if (count > TXN_PARTITIONS_MAX || t->part_count + count > TXN_PARTITIONS_MAX)
        return TXN_TOO_MANY;
    if (!parts_reserve(b, t, count))
        return TXN_NO_ROOM;
    enum txn_result result = TXN_DONE;
    while (result == TXN_DONE && rows.left >= 12) {
        struct txn_part part = part_read(&rows);
        if (!part_known(t, &part))
            result = txn_room_for_end(b, partition_of(b, &part));
    }
    return result;
}

static enum txn_result add(struct broker *b, struct txn *t, struct reader *rows, lsn_t *lsn)
{
    uint32_t count = (uint32_t)(rows->left / 12);
    enum txn_result result = may_add(b, t, *rows, count);
    if (result != TXN_DONE)
        return result;
    if (!log_reserve(b, 48 * (size_t)count, count ? count : 1))
        return TXN_NO_ROOM;
    bool was_over = t->state != TXN_ONGOING;
    txn_begin(b, t);
    if (count == 0 && was_over) { /* for offsets only */
        lsn_t logged = log_object(b, &t->object);
        *lsn = logged ? logged : *lsn;
    }
    uint32_t known = t->part_count;
    struct txn_part *made = count ? t->parts + known : NULL;
    for (uint32_t i = 0; rows->left >= 12; i++)
        made[i] = part_read(rows);
    if (count)
        qsort(made, count, sizeof *made, by_part);
    for (uint32_t i = 0; i < count; i++) {
        struct txn_part part = made[i];
        uint32_t at = part_at(t, &part, known);
        if ((at < known && by_part(&t->parts[at], &part) == 0) || (i && by_part(&part, &made[i - 1]) == 0))
            continue;
        t->parts[t->part_count++] = part; /* not behind made[i - 1], unless that was this one's place */
        *lsn = log_txn_add(b, t, &part);
    }
    if (t->part_count > known)
        qsort(t->parts, t->part_count, sizeof *t->parts, by_part);
    return TXN_DONE;
}

void do_txn_add(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    struct answer *said = answer_begin();
    struct asked a = asked_read(c->ask);
    struct txn *t = NULL;
    lsn_t lsn = b->appended; /* of those it has */
    enum txn_result result = said ? the_one(b, peer, &a, &t) : TXN_NO_ROOM;
    (void)ch;
    if (result == TXN_DONE)
        result = add(b, t, &a.rest, &lsn);
    answer(b, peer, c, said, result, t, lsn);
}

/* The same end once more, of a client that has not heard of the first: by then it has the next epoch, if ends give one. */
static bool is_repeated(const struct txn *t, const struct asked *a, bool commit, bool next)
{
    if (t->state != (commit ? TXN_COMMITTED : TXN_ABORTED))
        return false;
    if (a->producer != t->producer)
        return next; /* that was its last epoch */
    return a->epoch + (next ? 1u : 0u) == t->epoch;
}

static enum txn_result end(struct broker *b, struct txn *t, const struct asked *a, uint32_t flags, lsn_t *lsn)
{
    bool commit = flags & ASK_COMMIT, own_next = flags & ASK_NEXT_EPOCH;
    struct successor next = {.producer = t->producer, .epoch = t->epoch};
    if (is_repeated(t, a, commit, own_next))
        return TXN_DONE;
    if (a->producer != t->producer || a->epoch != t->epoch)
        return TXN_FENCED;
    if (t->state != TXN_ONGOING && !(own_next && !commit)) /* KIP-890: an abort of nothing gives the next epoch too */
        return TXN_BAD_STATE;
    if (own_next && !successor_of(b, t, true, &next))
        return TXN_NO_ROOM;
    return finish(b, t, commit, own_next ? epoch_behind(t) : t->epoch, &next, lsn) ? TXN_DONE : TXN_NO_ROOM;
}

void do_txn_end(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    struct answer *said = answer_begin();
    struct asked a = asked_read(c->ask);
    struct txn *t = NULL;
    lsn_t lsn = b->appended; /* of a repeated one */
    enum txn_result result = said ? the_one(b, peer, &a, &t) : TXN_NO_ROOM;
    (void)ch;
    if (result == TXN_DONE || (result == TXN_FENCED && t))
        result = end(b, t, &a, c->ask->flags, &lsn);
    answer(b, peer, c, said, result, t, lsn);
}

/* ---- batches ---- */

enum produce_result txn_check(struct broker *b, const struct peer *peer, const struct partition *p,
                              const struct record_batch *head)
{
    const struct txn *t = txn_of_producer(b, (uint64_t)head->producer_id);
    if (!head->transactional) /* as in Kafka, it is refused only where records of the transaction are */
        return producers_is_open(&p->producers, head->producer_id) ? PRODUCE_NO_TXN : PRODUCE_OK;
    if (!t || t->vhost != p->stream->queue->vhost)
        return PRODUCE_NO_TXN;
    if (!txn_may_use(b, peer, t->name))
        return PRODUCE_REFUSED; /* its id and epoch could be guessed */
    return (uint16_t)head->producer_epoch != t->epoch ? PRODUCE_OLD_EPOCH : PRODUCE_OK;
}

enum produce_result txn_admit(struct broker *b, const struct peer *peer, struct partition *p,
                              const struct record_batch *head, bool joins)
{
    struct txn *t = txn_of_producer(b, (uint64_t)head->producer_id);
    struct txn_part part = {p->stream->queue->id, p->number};
    enum produce_result result = txn_check(b, peer, p, head);
    if (result != PRODUCE_OK || !head->transactional)
        return result;
    if (t->state == TXN_ONGOING && (producers_is_open(&p->producers, head->producer_id) || part_known(t, &part)))
        return PRODUCE_OK;
    if (!joins)
        return PRODUCE_NO_TXN;
    if (t->state == TXN_ONGOING && t->part_count >= TXN_PARTITIONS_MAX)
        return PRODUCE_NO_ROOM;
    if (!parts_reserve(b, t, t->state == TXN_ONGOING ? 1 : t->part_count + 1))
        return PRODUCE_NO_MEMORY;
    enum txn_result room = txn_room_for_end(b, p);
    if (room != TXN_DONE)
        return room == TXN_ABORTED_FULL ? PRODUCE_ABORTED_FULL : PRODUCE_NO_MEMORY;
    if (!log_reserve(b, 64, 1))
        return PRODUCE_NO_MEMORY;
    txn_begin(b, t);
    part_put(t, &part);
    (void)log_txn_add(b, t, &part);
    return PRODUCE_OK;
}

/* ---- for broker_check ---- */

void txns_check(const struct broker *b)
{
    MAP_EACH(&b->txns, struct txn, t)
    {
        CHECK(txn_find(t->vhost, t->name) == t && timer_is_set(&t->timer));
        CHECK(t->part_count <= t->part_max && (t->state == TXN_ONGOING || !t->part_count));
    }
    txn_accounts_check(b);
}

/* ---- recovery ---- */

void txns_recovered(struct broker *b)
{
    MAP_EACH(&b->txns, struct txn, t)
    {
        int64_t left = t->started + t->timeout_ms - b->wall;
        left = left < 0 ? 0 : left > (int64_t)t->timeout_ms ? (int64_t)t->timeout_ms : left;
        if (t->state == TXN_ONGOING)
            wheel_set(&b->wheel, &t->timer, b->now + left * NS_PER_MS);
        else
            rest(b, t);
    }
}

bool replay_txn(struct broker *b, struct reader *r)
{
    struct vhost *vhost = vhost_find(b, reader_str8(r));
    struct slice name = reader_str32(r);
    uint64_t producer = reader_varint(r), epoch = reader_varint(r), state = reader_varint(r),
             timeout = reader_varint(r), started = reader_varint(r), touched = reader_varint(r),
             count = reader_varint(r);
    if (!reader_ok(r) || epoch > INT16_MAX || state > TXN_ABORTED || timeout > UINT32_MAX || count > r->left / 2)
        return false;
    if (!vhost)
        return true;
    struct txn *t = txn_find(vhost, name);
    if (!t && !(t = txn_make(b, vhost, name, producer)))
        return false;
    if (t->producer != producer)
        producer_change(b, t, producer);
    t->epoch = (uint16_t)epoch;
    t->state = (uint8_t)state;
    t->timeout_ms = (uint32_t)timeout;
    t->started = (wall_t)started;
    t->touched = (wall_t)touched;
    t->part_count = 0;
    if (t->state != TXN_ONGOING)
        txn_staged_free(b, t);
    if (!parts_reserve(b, t, (uint32_t)count))
        return false;
    for (uint64_t i = 0; i < count; i++) {
        struct txn_part part = {.stream = reader_varint(r)};
        part.number = (uint32_t)reader_varint(r);
        if (!part_known(t, &part)) /* a journal of before has them in any order */
            part_put(t, &part);
    }
    if (t->state != TXN_ONGOING)
        parts_drop(t);
    t->last_epoch = TXN_EPOCH_NONE;
    if (!r->left)
        return reader_ok(r); /* one of before */
    t->last_producer = reader_varint(r);
    uint64_t last = reader_varint(r);
    t->last_epoch = last ? (uint16_t)(last - 1) : TXN_EPOCH_NONE;
    return reader_done(r) && last <= UINT16_MAX;
}

bool replay_txn_gone(struct broker *b, struct reader *r)
{
    struct txn *t = txn_of_producer(b, reader_varint(r));
    if (!reader_done(r))
        return false;
    if (t && t->state != TXN_ONGOING)
        txn_free(b, t);
    return true;
}

bool replay_txn_add(struct broker *b, struct reader *r)
{
    uint64_t producer = reader_varint(r), at = reader_varint(r), stream = reader_varint(r), number = reader_varint(r);
    struct txn *t = txn_of_producer(b, producer);
    if (!reader_done(r))
        return false;
    if (!t)
        return true; /* TXN, which comes later in the snapshot, says it too */
    if (t->state != TXN_ONGOING) {
        txn_begin(b, t);
        t->started = (wall_t)at;
    }
    struct txn_part part = {stream, (uint32_t)number};
    if (part_known(t, &part))
        return true;
    if (!parts_reserve(b, t, 1))
        return false;
    part_put(t, &part);
    return true;
}
