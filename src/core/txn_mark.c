/* Producers and transactions as one partition sees them, for administrators: STREAM_PRODUCERS and TXN_MARK.
 *
 * A mark ends what a producer has open in one partition, as Kafka's WriteTxnMarkers does, and is no part of the coordinator's
 * transaction: that goes on, and what it still writes there belongs to it. So readers are not held by a transaction that will
 * never end, whatever is the matter with it. The marker is a BATCH of its own, which a replay reads as it reads those of a TX.
 */
#include "core/stream_admin.h"
#include "core/stream_int.h"
#include "core/txn_int.h"
#include "fmt/record_batch.h"

/* ---- looking ---- */

static void put_row(struct writer *w, const struct producer *p)
{
    const struct producer_batch *last = p->count ? &p->batches[p->count - 1] : NULL;
    writer_u64(w, (uint64_t)p->id);
    writer_u16(w, (uint16_t)p->epoch);
    writer_u32(w, last ? (uint32_t)last->last : UINT32_MAX);
    writer_u64(w, last ? (uint64_t)last->at : UINT64_MAX);
    writer_u64(w, list_empty(&p->open_link) ? UINT64_MAX : p->open_first);
}

bool producer_row_next(struct reader *r, struct producer_row *ret)
{
    if (!r->left || !reader_ok(r))
        return false;
    *ret = (struct producer_row){.producer = reader_u64(r)};
    ret->epoch = reader_u16(r);
    ret->last_sequence = (int32_t)reader_u32(r);
    ret->last_at = (wall_t)reader_u64(r);
    ret->open_from = reader_u64(r);
    return reader_ok(r);
}

static struct partition *partition_named(struct broker *b, const struct peer *peer, const struct command *c)
{
    struct queue *q = map_get(&b->queues_by_id, map_key_u64(&c->ask->number));
    bool there = q && q->stream && peer->state == PEER_ENTERED && q->vhost == peer->vhost &&
                 c->channel < q->stream->partition_count;
    return there ? q->stream->partitions[c->channel] : NULL;
}

/* Those that were heard of since, and those whose transaction has ended: nothing is forgotten by looking. */
static struct answer *rows_of(const struct partition *p, wall_t since)
{
    struct answer *answer;
    struct slice none = {0};
    size_t len = p->producers.map.count * (size_t)PRODUCER_ROW_BYTES;
    uint8_t *room = mem_alloc(len + 1);
    struct writer w = writer_of(room, len);
    if (!room)
        return NULL;
    LIST_EACH(&p->producers.by_age, node, after)
    {
        const struct producer *one = CONTAINER_OF(node, struct producer, link);
        if (!one->count || !list_empty(&one->open_link) || one->batches[one->count - 1].at >= since)
            put_row(&w, one);
    }
    CHECK(writer_ok(&w));
    answer = answer_new(none, none, writer_slice(&w));
    mem_free(room);
    return answer;
}

static void say(struct broker *b, struct peer *peer, const struct command *c, struct answer *answer, uint64_t result,
                lsn_t lsn)
{
    if (answer)
        answer->number = result;
    answer_give(b, peer, c->origin, answer, lsn);
}

void do_stream_producers(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    struct slice none = {0};
    struct partition *p = partition_named(b, peer, c);
    bool may = p && (!peer->user || authorise(b, peer->user, peer->vhost, VERB_READ, p->stream->queue->name));
    (void)ch;
    say(b, peer, c, may ? rows_of(p, b->wall - PRODUCER_EXPIRES_MS) : answer_new(none, none, none),
        may ? STREAM_DONE
        : p ? STREAM_REFUSED
            : STREAM_UNKNOWN,
        0);
}

/* ---- ending ---- */

static enum txn_result mark(struct broker *b, const struct peer *peer, const struct command *c, lsn_t *lsn)
{
    struct reader r = reader_of(c->ask->other);
    uint64_t producer = reader_u64(&r);
    uint16_t epoch = reader_u16(&r);
    bool commit = c->ask->flags & ASK_COMMIT;
    if (!user_administers(peer->user))
        return TXN_REFUSED;
    struct partition *p = partition_named(b, peer, c);
    if (!p)
        return TXN_BAD_PARTITION;
    if (!reader_done(&r) || producer > INT64_MAX || epoch > INT16_MAX)
        return TXN_BAD_NAME;
    if ((int16_t)epoch < producers_epoch(&p->producers, (int64_t)producer))
        return TXN_FENCED;
    struct msg *marker = txn_marker_new(b, producer, commit, epoch);
    if (!marker || !isolation_reserve(&p->isolation, b->durable) || !pool_reserve(&b->entries) ||
        !log_reserve(b, 64 + MARKER_BYTES, 1)) {
        if (marker)
            msg_unref(&b->heap, marker);
        return TXN_NO_ROOM;
    }
    struct target t = {.queue = p->stream->queue, .position = p->end, .deadline = b->wall, .returns = p->number};
    struct record_batch head;
    record_batch_set_base(msg_body_room(marker), (int64_t)p->end, PRODUCE_LEADER_EPOCH);
    *lsn = log_batch(b, p, p->end++, marker);
    stream_append(b, &t, marker);
    CHECK(record_batch_peek(msg_body(marker), &head) == RECORD_OK);
    txn_ended(b, p, t.position, &head, commit, *lsn);
    stream_awake(b, p->stream);
    msg_unref(&b->heap, marker);
    return TXN_DONE;
}

void do_txn_mark(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    struct slice none = {0};
    struct answer *answer = answer_new(none, none, none);
    lsn_t lsn = 0;
    (void)ch;
    say(b, peer, c, answer, answer ? mark(b, peer, c, &lsn) : TXN_NO_ROOM, lsn);
}
