/* Fetch: one block to the core, and the pieces of files in its answer to the outq; no record is looked at.
 *
 * There are no fetch sessions (KIP-227): the answer's session id is 0, as that of a broker which has no room for one more, and
 * clients name all their partitions in each request then. Partitions are served in the order of the request, in which
 * clients put those first that they had nothing of the last time.
 */
#include "proto/kafka/asked.h"

#define FETCH_BYTES_MAX 57671680 /* of one answer: fetch.max.bytes of a broker */

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

static bool begin(struct kafka *k, struct kafka_request *r)
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

static void fill(struct kafka *k, struct kafka_request *r, struct fetch *f)
{
    const struct kafka_fetch_request *asked = r->message;
    struct fetch_row *row = f->rows;
    f->wait_ms = at_least_0(asked->max_wait_ms);
    f->bytes_min = at_least_0(asked->min_bytes);
    f->bytes_max = asked->max_bytes < FETCH_BYTES_MAX ? at_least_0(asked->max_bytes) : FETCH_BYTES_MAX;
    f->committed = asked->isolation_level == 1;
    for (int32_t i = 0; i < asked->topics.count; i++) {
        const struct kafka_fetch_request_topic *topic = &asked->topics.at[i];
        uint64_t stream = 0;
        if (!by_id(r))
            stream = kafka_asked_stream(k, topic->topic);
        else if (!kafka_topic_of_uuid(k, &topic->topic_id, &stream))
            stream = 0;
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

static enum kafka_progress fetch_go(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_fetch_request *asked = r->message;
    struct kafka_fetch_response *said = r->response;
    if (asked->session_id != 0) { /* nobody was given one */
        said->error_code = KAFKA_ERR_FETCH_SESSION_ID_NOT_FOUND;
        said->responses.count = 0;
        return KAFKA_SENT;
    }
    if (!r->state && !begin(k, r))
        return KAFKA_AGAIN;
    return kafka_asked_go(k, r, fill);
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

static void fetch_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    struct kafka_fetch_response *said = r->response;
    const struct fetch *f = kafka_asked_effect(k, r, e);
    const struct fetch_row *row = f ? f->rows : NULL;
    for (int32_t i = 0; f && i < said->responses.count; i++) {
        struct kafka_fetch_response_topic *topic = &said->responses.at[i];
        struct slice name = by_id(r) ? (struct slice){0} : topic->topic;
        for (int32_t n = 0; n < topic->partitions.count; n++, row++)
            say_row(k, r, row, name, &topic->partitions.at[n]);
    }
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
