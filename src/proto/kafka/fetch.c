/* Fetch: one block to the core, and the pieces of files in its answer to the outq; no record is looked at.
 *
 * Without a session (KIP-227) the answer has the partitions of the request, in its order, in which clients put those first
 * that they had nothing of the last time. In a session (fetch_session.h) a request names what is new, and its answer has what
 * the core says is news. Session id and epoch say which of them a request is:
 *
 *   (any, -1)  none; ends the session of that id        (id, n)  the next in it: n must be one more than the last
 *   (any, 0)   begins one, and ends that of that id     errors   FETCH_SESSION_ID_NOT_FOUND, INVALID_FETCH_SESSION_EPOCH,
 *                                                                 FETCH_SESSION_TOPIC_ID_ERROR: by name and by id do not mix
 *
 * A request of a session waits until the one before is answered, as every request of a connection does in Kafka.
 */
#include "base/check.h"
#include "proto/kafka/asked.h"
#include "proto/kafka/fetch_session.h"

#define FETCH_BYTES_MAX 57671680 /* of one answer: fetch.max.bytes of a broker */
#define NEWS_ROOM 512u           /* in the arena, for a partition in an answer */

static bool by_id(const struct kafka_request *r)
{
    return r->form.version >= 13;
}

static uint32_t at_least_0(int32_t n)
{
    return n > 0 ? (uint32_t)n : 0;
}

/* ---- the question ---- */

/* The response has the topics and partitions of the request, in its order. False: the connection has been dropped. */
static bool mirror(struct kafka *k, struct kafka_request *r, size_t *ret_rows)
{
    const struct kafka_fetch_request *asked = r->message;
    struct kafka_fetch_response *said = r->response;
    uint32_t topics = at_least_0(asked->topics.count);
    said->responses.at = kafka_room(k, r, topics, sizeof *said->responses.at);
    if (!said->responses.at)
        return false;
    said->responses.count = (int32_t)topics;
    *ret_rows = 0;
    for (uint32_t i = 0; i < topics; i++) {
        const struct kafka_fetch_request_topic *from = &asked->topics.at[i];
        struct kafka_fetch_response_topic *to = &said->responses.at[i];
        uint32_t count = at_least_0(from->partitions.count);
        to->topic = from->topic;
        to->topic_id = from->topic_id;
        to->partitions.at = kafka_room(k, r, count, sizeof *to->partitions.at);
        if (!to->partitions.at)
            return false;
        to->partitions.count = (int32_t)count;
        *ret_rows += count;
    }
    return true;
}

static bool begin_whole(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_fetch_response *said = r->response;
    size_t rows;
    if (!mirror(k, r, &rows))
        return false;
    size_t topics = by_id(r) ? 0 : (size_t)said->responses.count;
    struct slice *names = kafka_room(k, r, topics, sizeof *names);
    if (!names)
        return false;
    for (size_t i = 0; i < topics; i++)
        names[i] = said->responses.at[i].topic;
    r->state = kafka_asked_new(k, r, FETCH_RECORDS, rows, names, topics);
    return r->state;
}

static void fill_all(struct kafka *k, const struct kafka_request *r, struct fetch *f)
{
    const struct kafka_fetch_request *asked = r->message;
    f->wait_ms = at_least_0(asked->max_wait_ms);
    f->bytes_min = at_least_0(asked->min_bytes);
    f->bytes_max = asked->max_bytes < FETCH_BYTES_MAX ? at_least_0(asked->max_bytes) : FETCH_BYTES_MAX;
    f->committed = asked->isolation_level == 1;
    f->session_op = ((const struct kafka_asked *)r->state)->op;
    f->session_bytes = k->fetch_session ? k->fetch_session->bytes : 0;
}

static uint64_t stream_of(struct kafka *k, bool id, const struct kafka_uuid *uuid, struct slice name)
{
    uint64_t stream = 0;
    if (!id)
        return kafka_asked_stream(k, name);
    return kafka_topic_of_uuid(k, uuid, &stream) ? stream : 0;
}

static void fill_whole(struct kafka *k, struct kafka_request *r, struct fetch *f)
{
    const struct kafka_fetch_request *asked = r->message;
    struct fetch_row *row = f->rows;
    fill_all(k, r, f);
    for (int32_t i = 0; i < asked->topics.count; i++) {
        const struct kafka_fetch_request_topic *topic = &asked->topics.at[i];
        uint64_t stream = stream_of(k, by_id(r), &topic->topic_id, topic->topic);
        for (int32_t n = 0; n < topic->partitions.count; n++, row++) {
            const struct kafka_fetch_request_partition *p = &topic->partitions.at[n];
            row->stream = stream;
            row->partition = (uint32_t)p->partition; /* a negative one is unknown */
            row->epoch = p->current_leader_epoch;
            row->offset = (uint64_t)p->fetch_offset; /* and a negative one is out of range */
            row->bytes_max = at_least_0(p->partition_max_bytes);
        }
    }
}

/* ---- sessions ---- */

static void remember(struct kafka_fetch_part *part, const struct kafka_fetch_request_partition *p)
{
    part->epoch = p->current_leader_epoch;
    part->offset = p->fetch_offset;
    part->bytes_max = p->partition_max_bytes;
}

/* The session of this request, with its partitions in the slots 0, 1, …; without one, if it names a partition twice. */
static void open_session(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_fetch_request *asked = r->message;
    struct kafka_asked *state = r->state;
    struct kafka_fetch_session *s = kafka_fetch_session_open(k, by_id(r));
    uint32_t row = 0;
    for (int32_t i = 0; s && i < asked->topics.count; i++) {
        const struct kafka_fetch_request_topic *topic = &asked->topics.at[i];
        for (int32_t n = 0; n < topic->partitions.count; n++, row++) {
            const struct kafka_fetch_request_partition *p = &topic->partitions.at[n];
            struct kafka_fetch_part *part = kafka_fetch_session_part(k, topic->topic, &topic->topic_id, p->partition);
            if (!part)
                return;
            if (part->slot != row) {
                kafka_fetch_session_end(k);
                state->op = FETCH_CLOSE;
                return;
            }
            remember(part, p);
        }
    }
    if (s)
        state->op = FETCH_OPEN;
}

/* What the request changes, and what may be there again. */
static bool begin_next(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_fetch_request *asked = r->message;
    const struct kafka_fetch_session *s = k->fetch_session;
    size_t rows = by_id(r) ? 0 : s->lost, count = 0;
    struct slice *names = kafka_room(k, r, at_least_0(asked->topics.count) + rows, sizeof *names);
    if (!names)
        return false;
    for (uint32_t i = 0; rows && i < s->slot_count; i++)
        if (s->slots[i] && s->slots[i]->lost)
            names[count++] = kafka_keep(k, r, s->slots[i]->topic->name);
    for (int32_t i = 0; i < asked->topics.count; i++) {
        rows += at_least_0(asked->topics.at[i].partitions.count);
        if (!by_id(r))
            names[count++] = asked->topics.at[i].topic;
    }
    for (int32_t i = 0; i < asked->forgotten_topics_data.count; i++)
        rows += at_least_0(asked->forgotten_topics_data.at[i].partitions.count);
    struct kafka_asked *state = kafka_live(k) ? kafka_asked_new(k, r, FETCH_RECORDS, rows, names, count) : NULL;
    if (!state)
        return false;
    state->op = FETCH_NEXT;
    r->state = state;
    return true;
}

static void put_part(struct kafka *k, struct kafka_fetch_part *part, struct fetch *f)
{
    struct kafka_fetch_session *s = k->fetch_session;
    struct fetch_row *row = &f->rows[f->count++];
    row->slot = part->slot;
    row->stream = stream_of(k, s->by_id, &part->topic->uuid, part->topic->name);
    row->partition = (uint32_t)part->partition;
    row->epoch = part->epoch;
    row->offset = (uint64_t)part->offset;
    row->bytes_max = at_least_0(part->bytes_max);
    kafka_fetch_session_lost(s, part, false);
}

static void put_forgotten(struct kafka_fetch_session *s, const struct kafka_fetch_request *asked, struct fetch *f)
{
    for (int32_t i = 0; i < asked->forgotten_topics_data.count; i++) {
        const struct kafka_fetch_request_forgotten_topic *topic = &asked->forgotten_topics_data.at[i];
        for (int32_t n = 0; n < topic->partitions.count; n++) {
            struct kafka_fetch_part *part =
                kafka_fetch_session_find(s, topic->topic, &topic->topic_id, topic->partitions.at[n]);
            if (!part)
                continue;
            f->rows[f->count].slot = part->slot;
            f->rows[f->count++].forget = true;
            kafka_fetch_session_forget(s, part);
        }
    }
}

static void fill_next(struct kafka *k, struct kafka_request *r, struct fetch *f)
{
    const struct kafka_fetch_request *asked = r->message;
    struct kafka_fetch_session *s = k->fetch_session;
    struct kafka_asked *state = r->state;
    fill_all(k, r, f);
    f->count = 0;
    for (uint32_t i = 0; s->lost && i < s->slot_count; i++)
        if (s->slots[i] && s->slots[i]->lost)
            put_part(k, s->slots[i], f);
    for (int32_t i = 0; i < asked->topics.count; i++) {
        const struct kafka_fetch_request_topic *topic = &asked->topics.at[i];
        for (int32_t n = 0; n < topic->partitions.count; n++) {
            const struct kafka_fetch_request_partition *p = &topic->partitions.at[n];
            struct kafka_fetch_part *part = kafka_fetch_session_part(k, topic->topic, &topic->topic_id, p->partition);
            if (!part)
                return;
            remember(part, p);
            put_part(k, part, f);
        }
    }
    put_forgotten(s, asked, f);
    f->session_bytes = s->bytes;
    if (s->parts.count)
        return;
    kafka_fetch_session_end(k); /* of nothing: as Kafka has it */
    f->session_op = state->op = FETCH_CLOSE;
    f->count = 0;
}

/* ---- which of them it is ---- */

/* 0: it is in the session, which expects the one after it now. */
static int16_t next_of(struct kafka *k, const struct kafka_request *r)
{
    const struct kafka_fetch_request *asked = r->message;
    struct kafka_fetch_session *s = k->fetch_session;
    if (!s || asked->session_id <= 0 || s->id != asked->session_id)
        return KAFKA_ERR_FETCH_SESSION_ID_NOT_FOUND;
    if (s->epoch != asked->session_epoch)
        return KAFKA_ERR_INVALID_FETCH_SESSION_EPOCH;
    if (s->by_id != by_id(r))
        return KAFKA_ERR_FETCH_SESSION_TOPIC_ID_ERROR;
    s->epoch = kafka_fetch_epoch_next(s->epoch);
    return 0;
}

static bool begin(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_fetch_request *asked = r->message;
    const struct kafka_fetch_session *s = k->fetch_session;
    bool whole = asked->session_epoch == 0 || asked->session_epoch == -1;
    if (!whole)
        return begin_next(k, r);
    if (!begin_whole(k, r))
        return false;
    struct kafka_asked *state = r->state;
    if (asked->session_epoch == 0) {
        open_session(k, r);
    } else if (s && s->id && s->id == asked->session_id) {
        kafka_fetch_session_end(k);
        state->op = FETCH_CLOSE;
    }
    return kafka_live(k);
}

static enum kafka_progress fetch_go(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_fetch_request *asked = r->message;
    struct kafka_fetch_response *said = r->response;
    bool whole = asked->session_epoch == 0 || asked->session_epoch == -1;
    bool alone = asked->session_epoch == -1 && asked->session_id == 0;
    if (!r->state && !alone && k->fetch_session && k->fetch_session->busy)
        return KAFKA_AGAIN;
    if (!r->state && !whole && (said->error_code = next_of(k, r)) != 0)
        return KAFKA_SENT;
    if (!r->state && !begin(k, r))
        return KAFKA_AGAIN;
    uint8_t op = ((const struct kafka_asked *)r->state)->op;
    if (op == FETCH_OPEN || op == FETCH_NEXT)
        k->fetch_session->busy = true; /* it stays, though the core may give it up before this is sent */
    return kafka_asked_go(k, r, whole ? fill_whole : fill_next);
}

/* ---- the answer ---- */

static void say_aborted(struct kafka *k, struct kafka_request *r, const struct fetch_row *row,
                        struct kafka_fetch_response_partition *ret)
{
    ret->aborted_transactions.at = kafka_room(k, r, row->aborted_count, sizeof *ret->aborted_transactions.at);
    for (uint32_t i = 0; ret->aborted_transactions.at && i < row->aborted_count; i++)
        ret->aborted_transactions.at[ret->aborted_transactions.count++] =
            (struct kafka_fetch_response_aborted_transaction){.producer_id = row->aborted[i].producer,
                                                              .first_offset = (int64_t)row->aborted[i].first};
}

static void say_row(struct kafka *k, struct kafka_request *r, const struct fetch_row *row, struct slice name,
                    struct kafka_fetch_response_partition *ret)
{
    kafka_defaults(&kafka_fetch_response_partition_table, ret);
    ret->partition_index = (int32_t)row->partition;
    ret->error_code = kafka_asked_error(k, row, name);
    ret->high_watermark = (int64_t)row->end; /* -1 where nobody knows, as Kafka says it */
    ret->last_stable_offset = (int64_t)row->stable;
    ret->log_start_offset = (int64_t)row->start;
    bool committed = ((const struct kafka_fetch_request *)r->message)->isolation_level == 1;
    if (!committed && row->result != FETCH_UNKNOWN && row->result != FETCH_REFUSED)
        ret->aborted_transactions.count = -1; /* none of those is empty, as Kafka has it */
    else
        say_aborted(k, r, row, ret);
    if (!row->piece.len)
        return;
    ret->records = (struct slice){.ptr = NULL, .len = row->piece.len};
    r->cuts_max++;
    r->elsewhere += row->piece.len;
}

static void note_lost(struct kafka_fetch_session *s, const struct fetch_row *row)
{
    if (!s->by_id)
        kafka_fetch_session_lost(s, s->slots[row->slot], row->result == FETCH_UNKNOWN);
}

/* The session's news; partitions of a topic that are neighbours are told together. */
static void say_news(struct kafka *k, struct kafka_request *r, const struct fetch *f)
{
    struct kafka_fetch_response *said = r->response;
    struct kafka_fetch_session *s = k->fetch_session;
    const struct kafka_fetch_topic *topic = NULL;
    struct kafka_fetch_response_topic *to = NULL;
    r->arena.max += f->count * NEWS_ROOM; /* a small request may have a large answer */
    struct kafka_fetch_response_partition *parts = kafka_room(k, r, f->count, sizeof *parts);
    said->responses.at = parts ? kafka_room(k, r, f->count, sizeof *said->responses.at) : NULL;
    for (uint32_t i = 0; kafka_live(k) && i < f->count; i++) {
        const struct fetch_row *row = &f->rows[i];
        CHECK(row->slot < s->slot_count && s->slots[row->slot]);
        if (s->slots[row->slot]->topic != topic) {
            topic = s->slots[row->slot]->topic;
            to = &said->responses.at[said->responses.count++];
            to->topic = kafka_keep(k, r, topic->name);
            to->topic_id = topic->uuid;
            to->partitions.at = &parts[i];
        }
        say_row(k, r, row, s->by_id ? (struct slice){0} : to->topic, &to->partitions.at[to->partitions.count++]);
        note_lost(s, row);
    }
}

static void say_whole(struct kafka *k, struct kafka_request *r, const struct fetch *f)
{
    struct kafka_fetch_response *said = r->response;
    const struct fetch_row *row = f->rows;
    for (int32_t i = 0; i < said->responses.count; i++) {
        struct kafka_fetch_response_topic *topic = &said->responses.at[i];
        struct slice name = by_id(r) ? (struct slice){0} : topic->topic;
        for (int32_t n = 0; n < topic->partitions.count; n++, row++)
            say_row(k, r, row, name, &topic->partitions.at[n]);
    }
}

static void opened(struct kafka *k, struct kafka_request *r, const struct fetch *f)
{
    struct kafka_fetch_response *said = r->response;
    struct kafka_fetch_session *s = k->fetch_session;
    if (!f->session_id) {
        kafka_fetch_session_end(k);
        return;
    }
    said->session_id = s->id = (int32_t)f->session_id;
    for (uint32_t i = 0; i < f->count; i++)
        note_lost(s, &f->rows[i]);
}

static void went_on(struct kafka *k, struct kafka_request *r, const struct fetch *f)
{
    struct kafka_fetch_response *said = r->response;
    if (f->session_id) {
        said->session_id = k->fetch_session->id;
        say_news(k, r, f);
        return;
    }
    said->error_code = KAFKA_ERR_FETCH_SESSION_ID_NOT_FOUND; /* the core has no room for it */
    kafka_fetch_session_end(k);
}

static void fetch_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    const struct kafka_asked *state = r->state;
    const struct fetch *f = kafka_asked_effect(k, r, e);
    if (!f)
        return;
    if (state->op == FETCH_OPEN || state->op == FETCH_NEXT)
        k->fetch_session->busy = false;
    if (state->op == FETCH_OPEN)
        opened(k, r, f);
    if (state->op == FETCH_NEXT)
        went_on(k, r, f);
    else
        say_whole(k, r, f);
}

/* Cuts come in the order of the rows that have pieces. */
static void fetch_lend(struct kafka *k, struct kafka_request *r, size_t i)
{
    struct kafka_asked *asked = r->state;
    (void)i;
    while (!asked->fetch->rows[asked->lent].piece.len)
        asked->lent++;
    outq_lend_file(&k->session.engine.out, &asked->fetch->rows[asked->lent++].piece);
}

const struct kafka_handler kafka_on_fetch = {
    .go = fetch_go, .effect = fetch_effect, .lend = fetch_lend, .drop = kafka_asked_drop};
