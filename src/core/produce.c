/* Batches of Kafka clients: one command each, one BATCH in the journal, one item of the partition's chunk.
 *
 * The engine has checked the bytes. The core gives the batch its offset and writes it into its head, which lies outside
 * the checksum: so journal and segment hold the same bytes, and what a client fetches is what another one sent. Numbered
 * producers are looked up before anything changes. Exchanges see nothing of it: who wants it binds to amq.stream.NAME.
 */
#include "core/stream_int.h"
#include "core/txn_int.h"
#include "fmt/record_batch.h"

#define PRODUCER_ID_BLOCK 1000u /* ids given out for one record */
#define PRODUCERS_MAX 4096u     /* of one partition; beyond, who was silent for longest is forgotten */

/* ---- batches ---- */

static bool may_write(struct broker *b, struct peer *peer, struct queue *q)
{
    if (peer->produces == q && peer->produces_gen == b->topology_gen)
        return true;
    if (peer->state != PEER_ENTERED || q->vhost != peer->vhost || !peer_may(b, peer, VERB_WRITE, q->name))
        return false;
    peer->produces = q;
    peer->produces_gen = b->topology_gen;
    return true;
}

static enum produce_result partition_for(struct broker *b, struct peer *peer, const struct command *c,
                                         struct partition **ret)
{
    struct queue *q = map_get(&b->queues_by_id, map_key_u64(&c->number));
    if (!q || !q->stream || c->channel >= q->stream->partition_count)
        return PRODUCE_UNKNOWN;
    *ret = q->stream->partitions[c->channel];
    return may_write(b, peer, q) ? PRODUCE_OK : PRODUCE_REFUSED;
}

static void append(struct broker *b, struct partition *p, const struct record_batch *head, struct msg *msg,
                   struct effect *ret)
{
    struct target t = {.queue = p->stream->queue, .position = p->end, .deadline = b->wall, .returns = p->number};
    struct producer_batch batch = {
        .first = head->base_sequence, .last = record_batch_last_sequence(head), .offset = p->end, .at = b->wall};
    record_batch_set_base(msg_body_room(msg), (int64_t)p->end, PRODUCE_LEADER_EPOCH);
    ret->number = p->end;
    ret->lsn = log_batch(b, p, p->end, msg);
    p->end += msg_offsets(msg);
    stream_append(b, &t, msg);
    b->totals.published += msg_offsets(msg);
    if (head->producer_id >= 0)
        CHECK(producers_note(&p->producers, head->producer_id, head->producer_epoch, &batch));
    if (head->transactional)
        CHECK(producers_open(&p->producers, head->producer_id, head->producer_epoch, p->end - msg_offsets(msg)));
}

/* joins: the client speaks KIP-890, and so knows that its sequences begin at 0 again in each epoch. */
static enum produce_result check_producer(struct broker *b, struct partition *p, const struct record_batch *head,
                                          bool joins, struct effect *ret)
{
    struct producer_batch before;
    if (head->producer_id < 0)
        return PRODUCE_OK;
    enum produce_result result =
        producers_check(&p->producers, head->producer_id, head->producer_epoch, head->base_sequence,
                        record_batch_last_sequence(head), joins && head->transactional, &before);
    if (result == PRODUCE_DUPLICATE) {
        ret->number = before.offset;
        ret->lsn = b->appended; /* its record is not behind that */
    }
    return result;
}

static enum produce_result produce(struct broker *b, struct peer *peer, struct command *c, struct effect *ret)
{
    struct partition *p;
    struct record_batch head;
    size_t bytes = msg_body(c->msg).len;
    enum produce_result result = partition_for(b, peer, c, &p);
    if (result != PRODUCE_OK)
        return result;
    ret->count = p->start;
    if (b->alarms & (ALARM_MEMORY_HARD | ALARM_DISK_HARD)) {
        b->totals.refused++;
        return PRODUCE_NO_ROOM;
    }
    CHECK(record_batch_peek(msg_body(c->msg), &head) == RECORD_OK && head.bytes == bytes &&
          head.last_offset_delta >= 0);
    producers_expire(&p->producers, b->wall - PRODUCER_EXPIRES_MS, PRODUCERS_MAX);
    bool known = producers_knows(&p->producers, head.producer_id);
    result = check_producer(b, p, &head, c->flags & ASK_JOINS, ret);
    if (result == PRODUCE_OUT_OF_ORDER && txn_check(b, peer, p, &head) != PRODUCE_OK)
        result = txn_check(b, peer, p, &head); /* an older instance is told that it is one */
    if (result == PRODUCE_OK && head.producer_id >= 0)
        result = txn_admit(b, peer, p, &head, c->flags & ASK_JOINS);
    if (result == PRODUCE_OK && (!pool_reserve(&b->entries) || !log_reserve(b, 64 + bytes, 1)))
        result = PRODUCE_NO_MEMORY;
    if (result != PRODUCE_OK && !known)
        producers_forget(&p->producers, head.producer_id);
    if (result != PRODUCE_OK)
        return result;
    append(b, p, &head, c->msg, ret);
    return PRODUCE_OK;
}

void do_produce(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    struct effect out = {0};
    (void)ch;
    if (!peer->publisher) {
        peer->publisher = true;
        alarms_apply(b, peer);
    }
    enum produce_result result = produce(b, peer, c, &out);
    msg_unref(&b->heap, c->msg);
    struct effect *e = effect_push(b, peer, EFF_PRODUCED, c->channel);
    e->flags = (uint8_t)result;
    e->origin = c->origin;
    e->number = out.number;
    e->count = out.count;
    e->lsn = out.lsn;
}

/* ---- producers ---- */

bool producer_ids_reserve(struct broker *b)
{
    if (b->next_producer_id < b->producer_ids_end)
        return true;
    if (!log_reserve(b, 64, 1))
        return false;
    b->producer_ids_end += PRODUCER_ID_BLOCK;
    b->producer_ids_lsn = log_producer_ids(b, b->producer_ids_end);
    return true;
}

void do_producer_id(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    (void)ch;
    if (!producer_ids_reserve(b)) {
        no_memory(b, peer, c->channel, c->origin);
        return;
    }
    answer_ok(b, peer, c, b->producer_ids_lsn, (struct slice){0}, b->next_producer_id++, 0);
}

/* False: no memory, or no room. */
bool producers_snapshot(struct broker *b, struct partition *p)
{
    producers_expire(&p->producers, b->wall - PRODUCER_EXPIRES_MS, PRODUCERS_MAX);
    for (struct list *at = p->producers.by_age.next; at != &p->producers.by_age;) {
        size_t bytes = 64 + PRODUCERS_RECORD * PRODUCER_BYTES_MAX;
        b->scratch.len = 0;
        if (!log_reserve(b, bytes, 1) || !buffer_reserve(&b->scratch, bytes) || !log_producers(b, p, &at))
            return false;
    }
    return true;
}

bool isolation_snapshot(struct broker *b, struct partition *p)
{
    size_t bytes = 64 + ISOLATION_RECORD * ISOLATION_ROW_MAX;
    uint32_t at = 0;
    if (list_empty(&p->producers.open) && !p->isolation.aborted_count)
        return true;
    do {
        b->scratch.len = 0;
        if (!log_reserve(b, bytes, 1) || !buffer_reserve(&b->scratch, bytes) || !log_isolation(b, p, &at))
            return false;
    } while (at != UINT32_MAX);
    return true;
}

/* ---- replay ---- */

static struct partition *partition_of(struct broker *b, struct reader *r)
{
    uint64_t queue = reader_varint(r), number = reader_varint(r);
    struct queue *q = map_get(&b->queues_by_id, map_key_u64(&queue));
    return q && q->stream && number < q->stream->partition_count ? q->stream->partitions[number] : NULL;
}

static bool hold(struct broker *b, struct partition *p, const struct target *t, struct slice bytes)
{
    struct slice none = {0};
    struct msg *msg = msg_new(&b->heap, none, none, none, bytes.len);
    if (!msg)
        return false;
    memcpy(msg_body_room(msg), bytes.ptr, bytes.len);
    msg->flags = MSG_BATCH | MSG_PERSISTENT;
    msg->expiration_ms = -1;
    bool ok = stream_hold(b, p->stream->queue, t, msg);
    msg_unref(&b->heap, msg);
    return ok;
}

/* A batch of a transaction, or its end. */
static bool replay_isolated(struct broker *b, struct partition *p, uint64_t base, const struct record_batch *head,
                            struct slice bytes)
{
    bool commit;
    if (!head->control)
        return producers_open(&p->producers, head->producer_id, head->producer_epoch, base);
    if (!txn_marker_read(bytes, &commit) || !isolation_reserve(&p->isolation, b->durable))
        return false;
    txn_ended(b, p, base, head, commit, 0);
    return true;
}

bool replay_batch(struct broker *b, struct reader *r)
{
    struct partition *p = partition_of(b, r);
    uint64_t base = reader_varint(r), at = reader_varint(r);
    struct slice bytes = reader_rest(r);
    struct record_batch head;
    if (!reader_ok(r) || record_batch_peek(bytes, &head) != RECORD_OK || head.bytes != bytes.len ||
        head.last_offset_delta < 0)
        return false;
    if (!p)
        return true; /* deleted later on */
    struct target t = {.queue = p->stream->queue, .position = base, .deadline = (wall_t)at, .returns = p->number};
    struct producer_batch batch = {
        .first = head.base_sequence, .last = record_batch_last_sequence(&head), .offset = base, .at = (wall_t)at};
    bool numbered = head.producer_id >= 0 && !head.control;
    return (!numbered || producers_note(&p->producers, head.producer_id, head.producer_epoch, &batch)) &&
           (!head.transactional || replay_isolated(b, p, base, &head, bytes)) && hold(b, p, &t, bytes);
}

bool replay_producers(struct broker *b, struct reader *r)
{
    struct partition *p = partition_of(b, r);
    while (p && r->left && reader_ok(r))
        if (!producer_read(&p->producers, r))
            return false;
    return reader_ok(r);
}

/* One that says what is open and aborted takes the place of what is known; others go on with it. */
bool replay_isolation(struct broker *b, struct reader *r)
{
    struct partition *p = partition_of(b, r);
    if (p && reader_u8(r)) {
        producers_close_all(&p->producers);
        isolation_forget(&p->isolation, &p->stream->txn_aborted);
    }
    while (p && r->left && reader_ok(r)) {
        bool open = reader_u8(r);
        uint64_t producer = reader_varint(r), epoch = open ? reader_varint(r) : 0;
        struct aborted row = {.producer = (int64_t)producer, .first = reader_varint(r)};
        if (!open) {
            row.last = reader_varint(r);
            row.stable = reader_varint(r);
        }
        if (!reader_ok(r) || producer > INT64_MAX || epoch > INT16_MAX ||
            !isolation_reserve(&p->isolation, b->durable) ||
            (open && !producers_open(&p->producers, row.producer, (int16_t)epoch, row.first)))
            return false;
        if (!open)
            isolation_abort(&p->isolation, &row, &p->stream->txn_aborted);
    }
    return reader_ok(r);
}
