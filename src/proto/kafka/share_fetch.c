/* ShareFetch and ShareAcknowledge (KIP-932): first what the member says of records that it has, then, in a ShareFetch, a fetch of the
 * partitions of its session: pieces of files, as in fetch.c, and which of the records in them are the member's now. Both commands go to
 * the core at once, which takes them in that order. */
#include "proto/kafka/asked.h"
#include "proto/kafka/group_asked.h"
#include "proto/kafka/rows.h"
#include "proto/kafka/share_sessions.h"

#include <stdlib.h>

#include "base/mem.h"
#include "core/group.h"

#define FINAL (-1)
#define FETCH_BYTES_MAX 57671680
#define ACK_RENEW 4
#define VERSION_RENEW 2u
#define LOCK_MS 30000 /* told where no partition was looked at */

struct spoken { /* a partition of which the member says something */
    struct kafka_uuid topic;
    int32_t partition;
    int32_t batch_count;
    const struct kafka_share_fetch_request_acknowledgement_batch *batches;
    int16_t error;
};

struct said { /* a partition in the answer */
    struct kafka_uuid topic;
    int32_t partition;
    const struct spoken *spoken;
    const struct fetch_row *row;
};

struct sharing {
    struct slice group, member;
    struct kafka_groups acks;
    struct spoken *spoken;
    size_t spoken_count;
    struct share_place *places; /* of the fetch's rows */
    uint32_t place_count;
    struct fetch *fetch; /* NULL while the core has it */
    struct said *said;
    size_t said_count, lent;
    bool begins, final, renews, wants;
};

/* Both requests say what they say of records in the same words. */
static void ack_said(const struct kafka_request *r, int32_t topic, const struct kafka_uuid **ret_id, int32_t *ret_count)
{
    if (r->api->key == KAFKA_API_share_fetch) {
        const struct kafka_share_fetch_request *asked = r->message;
        *ret_id = &asked->topics.at[topic].topic_id;
        *ret_count = asked->topics.at[topic].partitions.count;
    } else {
        const struct kafka_share_acknowledge_request *asked = r->message;
        *ret_id = &asked->topics.at[topic].topic_id;
        *ret_count = asked->topics.at[topic].partitions.count;
    }
}

_Static_assert(sizeof(struct kafka_share_fetch_request_acknowledgement_batch) ==
                   sizeof(struct kafka_share_acknowledge_request_acknowledgement_batch),
               "the batches of both requests are alike");

static struct spoken spoken_of(const struct kafka_request *r, int32_t topic, int32_t i)
{
    struct spoken one;
    if (r->api->key == KAFKA_API_share_fetch) {
        const struct kafka_share_fetch_request_partition *p =
            &((const struct kafka_share_fetch_request *)r->message)->topics.at[topic].partitions.at[i];
        one = (struct spoken){.partition = p->partition_index,
                              .batch_count = p->acknowledgement_batches.count,
                              .batches = p->acknowledgement_batches.at};
    } else {
        const struct kafka_share_acknowledge_request_partition *p =
            &((const struct kafka_share_acknowledge_request *)r->message)->topics.at[topic].partitions.at[i];
        one = (struct spoken){.partition = p->partition_index,
                              .batch_count = p->acknowledgement_batches.count,
                              .batches = (const void *)p->acknowledgement_batches.at};
    }
    one.batch_count = one.batch_count < 0 ? 0 : one.batch_count;
    return one;
}

static int32_t topic_count(const struct kafka_request *r)
{
    return r->api->key == KAFKA_API_share_fetch
               ? ((const struct kafka_share_fetch_request *)r->message)->topics.count
               : ((const struct kafka_share_acknowledge_request *)r->message)->topics.count;
}

/* ---- the session ---- */

/* Partitions that the request names, those that it forgets included. */
static size_t named_count(const struct kafka_request *r)
{
    size_t named = 0;
    const struct kafka_uuid *id;
    int32_t count;
    for (int32_t t = 0; t < topic_count(r); t++) {
        ack_said(r, t, &id, &count);
        named += count > 0 ? (size_t)count : 0;
    }
    if (r->api->key != KAFKA_API_share_fetch)
        return named;
    const struct kafka_share_fetch_request *asked = r->message;
    for (int32_t t = 0; t < asked->forgotten_topics_data.count; t++) {
        count = asked->forgotten_topics_data.at[t].partitions.count;
        named += count > 0 ? (size_t)count : 0;
    }
    return named;
}

static bool gather_spoken(struct kafka *k, struct kafka_request *r, struct sharing *s)
{
    size_t max = named_count(r);
    const struct kafka_uuid *id;
    int32_t count;
    if (max > SHARE_ROWS_MAX) {
        kafka_drop(k);
        return false;
    }
    s->spoken = kafka_room(k, r, max, sizeof *s->spoken);
    for (int32_t t = 0; s->spoken && t < topic_count(r); t++) {
        ack_said(r, t, &id, &count);
        for (int32_t i = 0; i < count; i++) {
            struct spoken one = spoken_of(r, t, i);
            one.topic = *id;
            if (one.batch_count || r->api->key == KAFKA_API_share_acknowledge)
                s->spoken[s->spoken_count++] = one;
        }
    }
    return s->spoken != NULL;
}

static int16_t update(struct kafka *k, struct kafka_request *r, struct share_session *session)
{
    const struct kafka_share_fetch_request *asked = r->message;
    size_t added = 0, gone = 0, named = named_count(r);
    struct share_place *places = kafka_more_room(k, r, named, sizeof *places), *forgotten;
    if (!places)
        return KAFKA_ERR_UNKNOWN_SERVER_ERROR; /* the connection has been dropped */
    for (int32_t t = 0; t < asked->topics.count; t++)
        for (int32_t i = 0; i < asked->topics.at[t].partitions.count; i++)
            places[added++] = (struct share_place){asked->topics.at[t].topic_id,
                                                   asked->topics.at[t].partitions.at[i].partition_index};
    forgotten = places + added;
    for (int32_t t = 0; t < asked->forgotten_topics_data.count; t++)
        for (int32_t i = 0; i < asked->forgotten_topics_data.at[t].partitions.count; i++)
            forgotten[gone++] = (struct share_place){asked->forgotten_topics_data.at[t].topic_id,
                                                     asked->forgotten_topics_data.at[t].partitions.at[i]};
    added = share_places_sort(places, added);
    gone = share_places_sort(forgotten, gone);
    return share_session_update(k, session, places, added, forgotten, gone) ? KAFKA_ERR_NONE
                                                                            : KAFKA_ERR_INVALID_REQUEST;
}

/* The session's partitions, another one in front each time. */
static bool take_places(struct kafka *k, struct kafka_request *r, struct sharing *s, struct share_session *session)
{
    s->places = kafka_more_room(k, r, session->count, sizeof *s->places);
    if (!s->places)
        return false;
    for (uint32_t i = 0; i < session->count; i++)
        s->places[i] = session->rows[(i + session->turn) % session->count];
    session->turn = session->count ? (session->turn + 1) % session->count : 0;
    s->place_count = session->count;
    return true;
}

static int16_t enter_session(struct kafka *k, struct kafka_request *r, struct sharing *s, int32_t epoch)
{
    bool fetches = r->api->key == KAFKA_API_share_fetch;
    struct share_session *session = share_session_find(k, s->group, s->member);
    if (epoch == 0 && !fetches)
        return KAFKA_ERR_INVALID_SHARE_SESSION_EPOCH;
    if (epoch == 0 && s->spoken_count)
        return KAFKA_ERR_INVALID_REQUEST;
    if (epoch != 0 && !session)
        return KAFKA_ERR_SHARE_SESSION_NOT_FOUND;
    if (epoch != 0 && epoch != FINAL && epoch != session->epoch)
        return KAFKA_ERR_INVALID_SHARE_SESSION_EPOCH;
    s->final = epoch == FINAL;
    s->begins = epoch == 0;
    if (session && (s->final || s->begins))
        share_session_end(k, session);
    if (s->final)
        return KAFKA_ERR_NONE;
    if (s->begins)
        session = share_session_begin(k, s->group, s->member);
    else
        session->epoch = session->epoch == INT32_MAX ? 1 : session->epoch + 1;
    if (!session)
        return KAFKA_ERR_SHARE_SESSION_LIMIT_REACHED;
    int16_t error = fetches ? update(k, r, session) : KAFKA_ERR_NONE;
    s->wants = fetches && !s->renews && session->count > 0;
    if (!error && s->wants && !take_places(k, r, s, session))
        return KAFKA_ERR_UNKNOWN_SERVER_ERROR; /* the connection has been dropped */
    return error;
}

/* Who only renews fetches nothing. */
static bool asks_too_much(const struct kafka_request *r, const struct sharing *s)
{
    const struct kafka_share_fetch_request *asked = r->message;
    return r->api->key == KAFKA_API_share_fetch && s->renews &&
           (asked->max_wait_ms > 0 || asked->min_bytes > 0 || asked->max_bytes > 0 || asked->max_records > 0);
}

/* NULL: there was something wrong, which *ret_error says, or the connection has been dropped. */
static struct sharing *begin(struct kafka *k, struct kafka_request *r, int16_t *ret_error)
{
    struct sharing *s = kafka_room(k, r, 1, sizeof *s);
    int32_t epoch;
    *ret_error = KAFKA_ERR_NONE;
    if (!s)
        return NULL;
    if (r->api->key == KAFKA_API_share_fetch) {
        const struct kafka_share_fetch_request *asked = r->message;
        s->group = kafka_or_empty(asked->group_id);
        s->member = kafka_or_empty(asked->member_id);
        epoch = asked->share_session_epoch;
        s->renews = asked->is_renew_ack && r->form.version >= VERSION_RENEW;
    } else {
        const struct kafka_share_acknowledge_request *asked = r->message;
        s->group = kafka_or_empty(asked->group_id);
        s->member = kafka_or_empty(asked->member_id);
        epoch = asked->share_session_epoch;
        s->renews = asked->is_renew_ack && r->form.version >= VERSION_RENEW;
    }
    if (!s->group.len || !s->member.len || s->group.len > UINT8_MAX || s->member.len > UINT8_MAX || asks_too_much(r, s))
        *ret_error = s->group.len ? KAFKA_ERR_INVALID_REQUEST : KAFKA_ERR_INVALID_GROUP_ID;
    else if (!gather_spoken(k, r, s))
        return NULL;
    else
        *ret_error = enter_session(k, r, s, epoch);
    bool speaks = s->spoken_count || s->final;
    if (*ret_error || !kafka_groups_init(k, r, speaks, &s->acks))
        return NULL;
    return r->state = s;
}

/* ---- to the core ---- */

static void put_batch(struct writer *w, const struct kafka_share_fetch_request_acknowledgement_batch *batch,
                      bool renews)
{
    writer_u64(w, (uint64_t)batch->first_offset);
    writer_u64(w, (uint64_t)batch->last_offset);
    size_t mark = writer_mark32(w);
    for (int32_t i = 0; i < batch->acknowledge_types.count; i++) {
        int8_t type = batch->acknowledge_types.at[i];
        writer_u8(w, type == ACK_RENEW && !renews ? UINT8_MAX : (uint8_t)type);
    }
    writer_patch32(w, mark);
}

/* What the request holds until it is answered: a peer has only so much of it waiting. */
static void account(struct kafka *k, struct kafka_request *r, size_t bytes)
{
    uint32_t more = bytes < UINT32_MAX - r->bytes ? (uint32_t)bytes : UINT32_MAX - r->bytes;
    r->bytes += more;
    k->inflight_bytes += more;
}

static bool acks_make(struct kafka *k, struct kafka_request *r, size_t n, struct kafka_group_ask *ret)
{
    const struct sharing *s = r->state;
    size_t bytes = 64;
    (void)n;
    for (size_t i = 0; i < s->spoken_count; i++) {
        bytes += 16;
        for (int32_t b = 0; b < s->spoken[i].batch_count; b++)
            bytes += 20 + (size_t)(s->spoken[i].batches[b].acknowledge_types.count > 0
                                       ? s->spoken[i].batches[b].acknowledge_types.count
                                       : 0);
    }
    uint8_t *room = kafka_more_room(k, r, bytes, 1);
    ret->args = writer_of(room, bytes);
    if (!room)
        return false;
    if (!r->bytes) /* it may be called again */
        account(k, r, r->arena.used);
    for (size_t i = 0; i < s->spoken_count; i++) {
        uint64_t stream;
        if (!kafka_topic_of_uuid(k, &s->spoken[i].topic, &stream))
            stream = 0;
        writer_u64(&ret->args, stream);
        writer_u32(&ret->args, (uint32_t)s->spoken[i].partition);
        writer_u32(&ret->args, (uint32_t)s->spoken[i].batch_count);
        for (int32_t b = 0; b < s->spoken[i].batch_count; b++)
            put_batch(&ret->args, &s->spoken[i].batches[b], s->renews);
    }
    ret->group = s->group;
    ret->member = s->member;
    ret->flags = s->final ? ASK_MULTIPLE : 0;
    return true;
}

static struct fetch *fetch_make(struct kafka *k, const struct kafka_request *r, const struct sharing *s)
{
    const struct kafka_share_fetch_request *asked = r->message;
    struct slice none = {0};
    struct fetch *f = fetch_new(FETCH_RECORDS, s->place_count);
    if (f)
        f->sharer = ask_new(s->group, s->member, none, none);
    if (!f || !f->sharer) {
        fetch_free(&f);
        return NULL;
    }
    f->sharer->number = asked->max_records > 0 ? (uint64_t)asked->max_records : 1;
    f->sharer->flags = asked->share_acquire_mode == 1 ? ASK_STRICT : 0;
    f->wait_ms = asked->max_wait_ms > 0 ? (uint32_t)asked->max_wait_ms : 0;
    f->bytes_min = asked->min_bytes > 0 ? (uint32_t)asked->min_bytes : 0;
    f->bytes_max = asked->max_bytes > FETCH_BYTES_MAX ? FETCH_BYTES_MAX
                   : asked->max_bytes > 0             ? (uint32_t)asked->max_bytes
                                                      : 0;
    for (uint32_t i = 0; i < s->place_count; i++) {
        uint64_t stream;
        if (!kafka_topic_of_uuid(k, &s->places[i].topic, &stream))
            stream = 0;
        f->rows[i].stream = stream;
        f->rows[i].partition = (uint32_t)s->places[i].partition;
        f->rows[i].bytes_max = f->bytes_max;
    }
    return f;
}

static bool send_fetch(struct kafka *k, struct kafka_request *r, struct sharing *s)
{
    struct command *command = kafka_command(k, r, CMD_FETCH);
    if (!command)
        return false;
    command->fetch = s->fetch;
    s->fetch = NULL;
    s->wants = false;
    return true;
}

/* ---- the answer ---- */

static int by_place(const void *a, const void *b)
{
    const struct said *x = a, *y = b;
    int order = memcmp(&x->topic, &y->topic, sizeof x->topic);
    return order ? order : (x->partition > y->partition) - (x->partition < y->partition);
}

/* What the answer is about: partitions of which the member has said something, and those with records, or in trouble. */
static bool gather_said(struct kafka *k, struct kafka_request *r, struct sharing *s)
{
    s->said = kafka_more_room(k, r, s->spoken_count + s->place_count, sizeof *s->said);
    if (!s->said)
        return false;
    size_t n = 0, count = 0;
    for (size_t i = 0; i < s->spoken_count; i++)
        s->said[n++] = (struct said){s->spoken[i].topic, s->spoken[i].partition, &s->spoken[i], NULL};
    for (uint32_t i = 0; s->fetch && i < s->place_count; i++)
        if (s->fetch->rows[i].run_count || s->fetch->rows[i].result != FETCH_OK)
            s->said[n++] = (struct said){s->places[i].topic, s->places[i].partition, NULL, &s->fetch->rows[i]};
    if (n)
        qsort(s->said, n, sizeof *s->said, by_place);
    for (size_t i = 0; i < n; i++) {
        if (!count || by_place(&s->said[count - 1], &s->said[i]) != 0) {
            s->said[count++] = s->said[i];
            continue;
        }
        struct said *same = &s->said[count - 1];
        same->spoken = same->spoken ? same->spoken : s->said[i].spoken;
        same->row = same->row ? same->row : s->said[i].row;
    }
    s->said_count = count;
    return true;
}

static bool say_row(struct kafka *k, struct kafka_request *r, const struct said *one,
                    struct kafka_share_fetch_response_partition *ret)
{
    const struct fetch_row *row = one->row;
    struct slice none = {0};
    kafka_defaults(&kafka_share_fetch_response_partition_table, ret);
    ret->partition_index = one->partition;
    ret->acknowledge_error_code = one->spoken ? one->spoken->error : KAFKA_ERR_NONE;
    if (!row)
        return true;
    ret->error_code = kafka_asked_error(k, row, none);
    ret->acquired_records.at = kafka_more_room(k, r, row->run_count, sizeof *ret->acquired_records.at);
    if (!ret->acquired_records.at)
        return false;
    for (uint32_t i = 0; i < row->run_count; i++)
        ret->acquired_records.at[ret->acquired_records.count++] = (struct kafka_share_fetch_response_acquired_record){
            (int64_t)row->runs[i].first, (int64_t)row->runs[i].last, (int16_t)row->runs[i].deliveries};
    if (!row->piece.len)
        return true;
    ret->records = (struct slice){.ptr = NULL, .len = row->piece.len};
    r->cuts_max++;
    r->elsewhere += row->piece.len;
    return true;
}

static size_t topics_of(const struct sharing *s)
{
    size_t topics = 0;
    for (size_t i = 0; i < s->said_count; i++)
        topics += !i || memcmp(&s->said[i].topic, &s->said[i - 1].topic, sizeof s->said[i].topic) != 0;
    return topics;
}

static void say_fetch(struct kafka *k, struct kafka_request *r, struct sharing *s)
{
    struct kafka_share_fetch_response *said = r->response;
    struct kafka_share_fetch_response_partition *rows = kafka_more_room(k, r, s->said_count, sizeof *rows);
    said->acquisition_lock_timeout_ms = s->fetch && s->fetch->lock_ms ? (int32_t)s->fetch->lock_ms : LOCK_MS;
    said->responses.at = kafka_more_room(k, r, topics_of(s), sizeof *said->responses.at);
    if (!rows || !said->responses.at)
        return;
    for (size_t i = 0; i < s->said_count; i++) {
        bool same = i && memcmp(&s->said[i].topic, &s->said[i - 1].topic, sizeof s->said[i].topic) == 0;
        if (!same)
            said->responses.at[said->responses.count++] =
                (struct kafka_share_fetch_response_topic){.topic_id = s->said[i].topic, .partitions = {.at = &rows[i]}};
        if (!say_row(k, r, &s->said[i], &rows[i]))
            return;
        said->responses.at[said->responses.count - 1].partitions.count++;
        if (rows[i].error_code == KAFKA_ERR_GROUP_AUTHORIZATION_FAILED)
            said->error_code = rows[i].error_code;
    }
}

static void say_acks(struct kafka *k, struct kafka_request *r, struct sharing *s)
{
    struct kafka_share_acknowledge_response *said = r->response;
    struct kafka_share_acknowledge_response_partition *rows = kafka_more_room(k, r, s->said_count, sizeof *rows);
    said->acquisition_lock_timeout_ms = LOCK_MS;
    said->responses.at = kafka_more_room(k, r, topics_of(s), sizeof *said->responses.at);
    if (!rows || !said->responses.at)
        return;
    for (size_t i = 0; i < s->said_count; i++) {
        bool same = i && memcmp(&s->said[i].topic, &s->said[i - 1].topic, sizeof s->said[i].topic) == 0;
        if (!same)
            said->responses.at[said->responses.count++] = (struct kafka_share_acknowledge_response_topic){
                .topic_id = s->said[i].topic, .partitions = {.at = &rows[i]}};
        kafka_defaults(&kafka_share_acknowledge_response_partition_table, &rows[i]);
        rows[i].partition_index = s->said[i].partition;
        rows[i].error_code = s->said[i].spoken ? s->said[i].spoken->error : KAFKA_ERR_NONE;
        said->responses.at[said->responses.count - 1].partitions.count++;
    }
}

static void take_acks(struct sharing *s)
{
    const struct kafka_group_said *one = &s->acks.said[0];
    struct reader fields = kafka_group_fields(one);
    for (size_t i = 0; i < s->spoken_count; i++)
        s->spoken[i].error = kafka_group_error(one->error ? one->error : (enum group_error)reader_u8(&fields));
}

static void say(struct kafka *k, struct kafka_request *r, struct sharing *s)
{
    if (s->acks.count)
        take_acks(s);
    if (!gather_said(k, r, s))
        return;
    if (r->api->key == KAFKA_API_share_fetch)
        say_fetch(k, r, s);
    else
        say_acks(k, r, s);
}

static void refuse(struct kafka_request *r, int16_t error)
{
    if (r->api->key == KAFKA_API_share_fetch)
        ((struct kafka_share_fetch_response *)r->response)->error_code = error;
    else
        ((struct kafka_share_acknowledge_response *)r->response)->error_code = error;
}

static enum kafka_progress share_go(struct kafka *k, struct kafka_request *r)
{
    int16_t error = KAFKA_ERR_NONE;
    struct sharing *s = r->state ? r->state : begin(k, r, &error);
    if (error) {
        refuse(r, error);
        return KAFKA_SENT;
    }
    if (!s || kafka_groups_go(k, r, &s->acks, CMD_SHARE_ACK, acks_make) == KAFKA_AGAIN)
        return KAFKA_AGAIN;
    if (s->wants && !s->fetch) {
        s->fetch = fetch_make(k, r, s);
        if (!s->fetch) {
            kafka_drop_memory(k);
            return KAFKA_AGAIN;
        }
        account(k, r, s->place_count * sizeof s->fetch->rows[0]);
    }
    if (s->wants && !send_fetch(k, r, s))
        return KAFKA_AGAIN;
    if (!r->pending)
        say(k, r, s);
    return KAFKA_SENT;
}

static void share_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    struct sharing *s = r->state;
    if (e->type == EFF_FETCHED) {
        s->fetch = e->fetch;
        r->lsn = s->fetch->lsn > r->lsn ? s->fetch->lsn : r->lsn;
    } else
        (void)kafka_groups_effect(k, r, &s->acks, e);
    if (!r->pending && r->sent)
        say(k, r, s);
}

static void share_lend(struct kafka *k, struct kafka_request *r, size_t i)
{
    struct sharing *s = r->state;
    (void)i;
    while (!s->said[s->lent].row || !s->said[s->lent].row->piece.len)
        s->lent++;
    struct fetch_row *row = &s->fetch->rows[s->said[s->lent++].row - s->fetch->rows];
    outq_lend_file(&k->session.engine.out, &row->piece);
}

static void share_drop(struct kafka *k, struct kafka_request *r)
{
    struct sharing *s = r->state;
    (void)k;
    if (!s)
        return;
    kafka_groups_drop(&s->acks);
    fetch_free(&s->fetch);
}

const struct kafka_handler kafka_on_share_fetch = {
    .go = share_go, .effect = share_effect, .lend = share_lend, .drop = share_drop, .shares = true};
const struct kafka_handler kafka_on_share_acknowledge = {
    .go = share_go, .effect = share_effect, .drop = share_drop, .shares = true};
