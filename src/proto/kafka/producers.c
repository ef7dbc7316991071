/* DescribeProducers and WriteTxnMarkers: what partitions know of producers, and an administrator's end of a transaction that nobody
 * else ends (kafka-transactions.sh find-hanging, abort). Each partition is one errand. */
#include "core/txn.h"
#include "proto/kafka/errands.h"
#include "proto/kafka/rows.h"
#include "proto/kafka/topic_rules.h"
#include "proto/kafka/transactions.h"

#include <stdlib.h>

static size_t count_of(int32_t count)
{
    return count > 0 ? (size_t)count : 0;
}

/* ---- what both have: partitions of topics, one errand each ---- */

struct place {
    size_t row;        /* of its topic */
    int32_t partition; /* as it was asked for */
    union {
        struct kafka_describe_producers_response_partition *told;
        struct {
            const struct kafka_write_txn_markers_request_marker *marker;
            struct kafka_write_txn_markers_response_partition *ended;
        };
    };
};

struct places {
    struct kafka_rows rows;
    struct kafka_errands errands;
    struct slice *names; /* of topics, in the order of the rows */
    struct place *list;
    size_t topics, count;
    bool looked;
};

static struct places *places_new(struct kafka *k, struct kafka_request *r, size_t topics, size_t partitions)
{
    struct places *all = kafka_room(k, r, 1, sizeof *all);
    struct slice *names = all ? kafka_more_room(k, r, topics, sizeof *names) : NULL;
    struct place *list = names ? kafka_more_room(k, r, partitions, sizeof *list) : NULL;
    if (!list)
        return NULL;
    all->names = names;
    all->list = list;
    return r->state = all;
}

/* All places are there. */
static bool places_begin(struct kafka *k, struct kafka_request *r, const struct kafka_errand_kind *kind)
{
    struct places *all = r->state;
    struct kafka_wanted wanted = {.names = all->names, .name_count = all->topics};
    return kafka_errands_init(k, r, kind, all->count, &all->errands) &&
           kafka_rows_init(k, r, &wanted, false, &all->rows);
}

/* 0: the core can be asked. */
static int16_t place_error(const struct places *all, const struct place *p)
{
    const struct stream_row *row = &all->rows.rows[p->row];
    if (row->result != STREAM_DONE)
        return kafka_stream_error(row->result);
    return p->partition < 0 || p->partition >= (int64_t)row->partitions ? KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION : 0;
}

static struct ask *place_ask(const struct places *all, const struct place *p, struct slice other, uint16_t *ret_channel)
{
    struct slice none = {0};
    struct ask *ask = ask_new(none, other, none, none);
    if (ask)
        ask->number = all->rows.rows[p->row].id;
    *ret_channel = (uint16_t)p->partition;
    return ask;
}

static void places_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    struct places *all = r->state;
    if (all->rows.done)
        kafka_errands_effect(k, r, &all->errands, e);
    else
        kafka_rows_effect(k, r, &all->rows, e);
}

static void places_drop(struct kafka *k, struct kafka_request *r)
{
    struct places *all = r->state;
    (void)k;
    if (all)
        kafka_rows_drop(&all->rows);
}

/* ---- DescribeProducers ---- */

static struct ask *producers_ask(struct kafka *k, struct kafka_request *r, size_t i, uint16_t *ret_channel)
{
    const struct places *all = r->state;
    (void)k;
    return place_ask(all, &all->list[i], (struct slice){0}, ret_channel);
}

static void producers_done(struct kafka *k, struct kafka_request *r, size_t i, const struct answer *answer)
{
    const struct places *all = r->state;
    struct kafka_describe_producers_response_partition *said = all->list[i].told;
    struct reader fields = reader_of(answer->fields);
    struct producer_row row;
    size_t count = answer->fields.len / PRODUCER_ROW_BYTES;
    said->error_code = kafka_stream_error((enum stream_result)answer->number);
    said->active_producers.at = kafka_more_room(k, r, count, sizeof *said->active_producers.at);
    while (said->active_producers.at && producer_row_next(&fields, &row))
        said->active_producers.at[said->active_producers.count++] =
            (struct kafka_describe_producers_response_active_producer){
                .producer_id = (int64_t)row.producer,
                .producer_epoch = row.epoch,
                .last_sequence = row.last_sequence,
                .last_timestamp = row.last_at,
                .coordinator_epoch = -1, /* there is one coordinator, and nobody who takes over from it */
                .current_txn_start_offset = (int64_t)row.open_from,
            };
}

static const struct kafka_errand_kind producers_errand = {CMD_STREAM_PRODUCERS, producers_ask, producers_done};

static bool describe_begin(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_describe_producers_request *asked = r->message;
    struct kafka_describe_producers_response *said = r->response;
    size_t topics = count_of(asked->topics.count), partitions = 0;
    for (size_t i = 0; i < topics; i++)
        partitions += count_of(asked->topics.at[i].partition_indexes.count);
    struct places *all = places_new(k, r, topics, partitions);
    said->topics.at = all ? kafka_more_room(k, r, topics, sizeof *said->topics.at) : NULL;
    if (!said->topics.at)
        return false;
    for (size_t i = 0; i < topics; i++) {
        const struct kafka_describe_producers_request_topic *topic = &asked->topics.at[i];
        struct kafka_describe_producers_response_topic *to = &said->topics.at[said->topics.count++];
        size_t count = count_of(topic->partition_indexes.count);
        to->name = all->names[all->topics++] = topic->name;
        to->partitions.at = kafka_more_room(k, r, count, sizeof *to->partitions.at);
        if (!to->partitions.at)
            return false;
        for (size_t n = 0; n < count; n++) {
            struct kafka_describe_producers_response_partition *one = &to->partitions.at[to->partitions.count++];
            kafka_defaults(&kafka_describe_producers_response_partition_table, one);
            one->partition_index = topic->partition_indexes.at[n];
            all->list[all->count++] = (struct place){.row = i, .partition = one->partition_index, .told = one};
        }
    }
    return places_begin(k, r, &producers_errand);
}

struct named { /* a place by what it names */
    uint64_t topic;
    int32_t partition;
    size_t at;
};

static int by_name(const void *a, const void *b)
{
    const struct named *x = a, *y = b;
    if (x->topic != y->topic)
        return x->topic < y->topic ? -1 : 1;
    if (x->partition != y->partition)
        return x->partition < y->partition ? -1 : 1;
    return x->at < y->at ? -1 : x->at > y->at;
}

/* Each place once: a few bytes of a request would else be thousands of producers, as often as it likes. */
static void describe_look(struct kafka *k, struct kafka_request *r, struct places *all)
{
    struct named *list = kafka_more_room(k, r, all->count, sizeof *list);
    if (!list)
        return;
    all->looked = true;
    for (size_t i = 0; i < all->count; i++)
        list[i] = (struct named){all->rows.rows[all->list[i].row].id, all->list[i].partition, i};
    if (all->count)
        qsort(list, all->count, sizeof *list, by_name);
    for (size_t i = 0; i < all->count; i++) {
        const struct place *place = &all->list[list[i].at];
        int16_t error = place_error(all, place);
        if (!error && i && list[i].topic == list[i - 1].topic && list[i].partition == list[i - 1].partition)
            error = KAFKA_ERR_INVALID_REQUEST;
        place->told->error_code = error;
        if (!error)
            kafka_errand_want(&all->errands, list[i].at);
    }
}

static enum kafka_progress describe_producers_go(struct kafka *k, struct kafka_request *r)
{
    if (!r->state && !describe_begin(k, r))
        return KAFKA_AGAIN;
    struct places *all = r->state;
    if (kafka_rows(k, r, &all->rows) == KAFKA_AGAIN)
        return KAFKA_AGAIN;
    if (!all->looked)
        describe_look(k, r, all);
    if (!kafka_live(k))
        return KAFKA_AGAIN;
    return kafka_errands(k, r, &all->errands);
}

const struct kafka_handler kafka_on_describe_producers = {
    .go = describe_producers_go, .effect = places_effect, .drop = places_drop};

/* ---- WriteTxnMarkers ---- */

static struct ask *mark_ask(struct kafka *k, struct kafka_request *r, size_t i, uint16_t *ret_channel)
{
    const struct places *all = r->state;
    const struct kafka_write_txn_markers_request_marker *marker = all->list[i].marker;
    uint8_t room[16];
    struct writer w = writer_of(room, sizeof room);
    (void)k;
    kafka_txn_producer(&w, marker->producer_id, marker->producer_epoch);
    struct ask *ask = place_ask(all, &all->list[i], writer_slice(&w), ret_channel);
    if (ask)
        ask->flags = marker->transaction_result ? ASK_COMMIT : 0;
    return ask;
}

static void mark_done(struct kafka *k, struct kafka_request *r, size_t i, const struct answer *answer)
{
    const struct places *all = r->state;
    enum txn_result result = (enum txn_result)answer->number;
    (void)k;
    all->list[i].ended->error_code = result == TXN_REFUSED   ? KAFKA_ERR_CLUSTER_AUTHORIZATION_FAILED
                                     : result == TXN_NO_ROOM ? KAFKA_ERR_KAFKA_STORAGE_ERROR
                                                             : kafka_txn_error(result, false);
}

static const struct kafka_errand_kind mark_errand = {CMD_TXN_MARK, mark_ask, mark_done};

static bool markers_say(struct kafka *k, struct kafka_request *r, struct places *all,
                        const struct kafka_write_txn_markers_request_marker *marker,
                        struct kafka_write_txn_markers_response_marker *to)
{
    size_t topics = count_of(marker->topics.count);
    to->producer_id = marker->producer_id;
    to->topics.at = kafka_more_room(k, r, topics, sizeof *to->topics.at);
    if (!to->topics.at)
        return false;
    for (size_t i = 0; i < topics; i++) {
        const struct kafka_write_txn_markers_request_topic *topic = &marker->topics.at[i];
        struct kafka_write_txn_markers_response_topic *said = &to->topics.at[to->topics.count++];
        size_t count = count_of(topic->partition_indexes.count);
        said->name = all->names[all->topics] = topic->name;
        said->partitions.at = kafka_more_room(k, r, count, sizeof *said->partitions.at);
        if (!said->partitions.at)
            return false;
        for (size_t n = 0; n < count; n++) {
            struct kafka_write_txn_markers_response_partition *one = &said->partitions.at[said->partitions.count++];
            one->partition_index = topic->partition_indexes.at[n];
            all->list[all->count++] =
                (struct place){.row = all->topics, .partition = one->partition_index, .marker = marker, .ended = one};
        }
        all->topics++;
    }
    return true;
}

static bool markers_begin(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_write_txn_markers_request *asked = r->message;
    struct kafka_write_txn_markers_response *said = r->response;
    size_t count = count_of(asked->markers.count), topics = 0, partitions = 0;
    for (size_t i = 0; i < count; i++) {
        topics += count_of(asked->markers.at[i].topics.count);
        for (size_t t = 0; t < count_of(asked->markers.at[i].topics.count); t++)
            partitions += count_of(asked->markers.at[i].topics.at[t].partition_indexes.count);
    }
    struct places *all = places_new(k, r, topics, partitions);
    said->markers.at = all ? kafka_more_room(k, r, count, sizeof *said->markers.at) : NULL;
    if (!said->markers.at)
        return false;
    said->markers.count = (int32_t)count;
    for (size_t i = 0; i < count; i++)
        if (!markers_say(k, r, all, &asked->markers.at[i], &said->markers.at[i]))
            return false;
    return places_begin(k, r, &mark_errand);
}

static void markers_look(struct places *all)
{
    all->looked = true;
    for (size_t i = 0; i < all->count; i++) {
        int16_t error = place_error(all, &all->list[i]);
        all->list[i].ended->error_code = error;
        if (!error)
            kafka_errand_want(&all->errands, i);
    }
}

static enum kafka_progress write_txn_markers_go(struct kafka *k, struct kafka_request *r)
{
    if (!r->state && !markers_begin(k, r))
        return KAFKA_AGAIN;
    struct places *all = r->state;
    if (kafka_rows(k, r, &all->rows) == KAFKA_AGAIN)
        return KAFKA_AGAIN;
    if (!all->looked)
        markers_look(all);
    return kafka_errands(k, r, &all->errands);
}

const struct kafka_handler kafka_on_write_txn_markers = {
    .go = write_txn_markers_go, .effect = places_effect, .drop = places_drop};
