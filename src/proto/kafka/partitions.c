/* CreatePartitions and DeleteRecords: what is done with a topic's partitions. */
#include "proto/kafka/errands.h"
#include "proto/kafka/names.h"
#include "proto/kafka/rows.h"
#include "proto/kafka/topic_rules.h"

/* ---- CreatePartitions ---- */

struct growing {
    const struct kafka_create_partitions_request_topic *asked;
    struct kafka_create_partitions_response_topic *said;
};

struct growth {
    struct kafka_rows rows;
    struct kafka_errands errands;
    struct growing *topics; /* by row */
    bool looked;
};

static void grow_wrong(struct growing *g, int16_t error, struct slice text)
{
    g->said->error_code = error;
    g->said->error_message = text;
}

static struct ask *grow_ask(struct kafka *k, struct kafka_request *r, size_t i, uint16_t *ret_channel)
{
    const struct kafka_create_partitions_request *asked = r->message;
    const struct growth *g = r->state;
    struct slice none = {0};
    struct ask *ask = ask_new(g->topics[i].asked->name, none, none, none);
    (void)k;
    (void)ret_channel;
    if (ask) {
        ask->number = (uint64_t)g->topics[i].asked->count;
        ask->flags = asked->validate_only ? ASK_CHECK_ONLY : 0;
    }
    return ask;
}

static void say_no_increase(struct kafka *k, struct kafka_request *r, struct growing *g, uint32_t have)
{
    if (g->asked->count == (int32_t)have)
        grow_wrong(g, KAFKA_ERR_INVALID_PARTITIONS, kafka_text(k, r, "Topic already has %u partition(s).", have));
    else
        grow_wrong(g, KAFKA_ERR_INVALID_PARTITIONS,
                   kafka_text(k, r, "The topic %.*s currently has %u partition(s); %d would not be an increase.",
                              SLICE_ARG(g->asked->name), have, g->asked->count));
}

static void grow_done(struct kafka *k, struct kafka_request *r, size_t i, const struct answer *answer)
{
    struct growth *all = r->state;
    struct growing *g = &all->topics[i];
    enum stream_result result = (enum stream_result)answer->number;
    kafka_topic_forget(k, g->asked->name);
    if (result == STREAM_REFUSED)
        grow_wrong(g, KAFKA_ERR_TOPIC_AUTHORIZATION_FAILED, slice_str("Authorization failed."));
    else if (result == STREAM_BAD_PARTITIONS && g->asked->count <= (int64_t)answer->number2)
        say_no_increase(k, r, g, (uint32_t)answer->number2); /* somebody else was faster */
    else if (result != STREAM_DONE)
        grow_wrong(g, kafka_stream_error(result),
                   answer->text.len ? kafka_text(k, r, "%.*s", SLICE_ARG(answer->text)) : (struct slice){0});
}

static const struct kafka_errand_kind growing = {CMD_STREAM_GROW, grow_ask, grow_done};

static bool grow_begin(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_create_partitions_request *asked = r->message;
    struct kafka_create_partitions_response *said = r->response;
    size_t count = asked->topics.count > 0 ? (size_t)asked->topics.count : 0;
    struct growth *all = r->state = kafka_room(k, r, 1, sizeof *all);
    struct slice *names = all ? kafka_more_room(k, r, count, sizeof *names) : NULL;
    struct growing *topics = names ? kafka_more_room(k, r, count, sizeof *topics) : NULL;
    said->results.at = topics ? kafka_more_room(k, r, count, sizeof *said->results.at) : NULL;
    if (!said->results.at)
        return false;
    all->topics = topics;
    for (size_t i = 0; i < count; i++)
        names[i] = asked->topics.at[i].name;
    const uint8_t *doubles = kafka_doubles(k, r, names, count);
    struct kafka_wanted wanted = {.names = names};
    for (size_t i = 0; doubles && i < count; i++) {
        if (doubles[i] == KAFKA_LATER)
            continue;
        struct growing g = {&asked->topics.at[i], &said->results.at[said->results.count++]};
        kafka_defaults(&kafka_create_partitions_response_topic_table, g.said);
        g.said->name = g.asked->name;
        if (doubles[i] == KAFKA_FIRST_OF_SEVERAL) {
            grow_wrong(&g, KAFKA_ERR_INVALID_REQUEST, slice_str("Duplicate topic name."));
            continue;
        }
        names[wanted.name_count] = g.asked->name; /* never ahead of what is still to be looked at */
        topics[wanted.name_count++] = g;
    }
    return doubles && kafka_errands_init(k, r, &growing, wanted.name_count, &all->errands) &&
           kafka_rows_init(k, r, &wanted, false, &all->rows);
}

static void check_hands(struct kafka *k, struct kafka_request *r, struct growing *g, uint32_t have)
{
    int32_t more = g->asked->count - (int32_t)have;
    if (g->asked->assignments.count < 0)
        return;
    if (g->asked->assignments.count != more) {
        grow_wrong(g, KAFKA_ERR_INVALID_REPLICA_ASSIGNMENT,
                   kafka_text(k, r,
                              "Attempted to add %d additional partition(s), but only %d assignment(s) were specified.",
                              more, g->asked->assignments.count));
        return;
    }
    for (int32_t i = 0; i < more && !g->said->error_code; i++) {
        const struct kafka_create_partitions_request_assignment *a = &g->asked->assignments.at[i];
        if (a->broker_ids.count < 1)
            grow_wrong(g, KAFKA_ERR_INVALID_REPLICA_ASSIGNMENT,
                       slice_str("The manual partition assignment includes an empty replica list."));
        else if (a->broker_ids.count > 1 && a->broker_ids.at[0] == k->options->node_id &&
                 a->broker_ids.at[1] == k->options->node_id)
            grow_wrong(g, KAFKA_ERR_INVALID_REPLICA_ASSIGNMENT,
                       kafka_text(k, r, "The manual partition assignment includes the broker %d more than once.",
                                  k->options->node_id));
        else if (a->broker_ids.at[0] != k->options->node_id || a->broker_ids.count > 1)
            grow_wrong(
                g, KAFKA_ERR_INVALID_REPLICA_ASSIGNMENT,
                kafka_text(k, r,
                           "The manual partition assignment includes broker %d, but no such broker is registered.",
                           a->broker_ids.at[a->broker_ids.count - 1]));
    }
}

static void grow_look(struct kafka *k, struct kafka_request *r, struct growth *all)
{
    all->looked = true;
    for (size_t i = 0; i < all->rows.count; i++) {
        const struct stream_row *row = &all->rows.rows[i];
        struct growing *g = &all->topics[i];
        if (row->result == STREAM_REFUSED)
            grow_wrong(g, KAFKA_ERR_TOPIC_AUTHORIZATION_FAILED, slice_str("Authorization failed."));
        else if (row->result != STREAM_DONE)
            grow_wrong(g, kafka_stream_error(row->result), (struct slice){0});
        else if (g->asked->count <= (int64_t)row->partitions)
            say_no_increase(k, r, g, row->partitions);
        else
            check_hands(k, r, g, row->partitions);
        if (!g->said->error_code)
            kafka_errand_want(&all->errands, i);
    }
}

static enum kafka_progress create_partitions_go(struct kafka *k, struct kafka_request *r)
{
    if (!r->state && !grow_begin(k, r))
        return KAFKA_AGAIN;
    struct growth *all = r->state;
    if (kafka_rows(k, r, &all->rows) == KAFKA_AGAIN)
        return KAFKA_AGAIN;
    if (!all->looked)
        grow_look(k, r, all);
    return kafka_errands(k, r, &all->errands);
}

static void create_partitions_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    struct growth *all = r->state;
    if (all->rows.done)
        kafka_errands_effect(k, r, &all->errands, e);
    else
        kafka_rows_effect(k, r, &all->rows, e);
}

static void create_partitions_drop(struct kafka *k, struct kafka_request *r)
{
    struct growth *all = r->state;
    (void)k;
    if (all)
        kafka_rows_drop(&all->rows);
}

const struct kafka_handler kafka_on_create_partitions = {
    .go = create_partitions_go, .effect = create_partitions_effect, .drop = create_partitions_drop};

/* ---- DeleteRecords ---- */

struct trimming { /* a partition */
    size_t row;   /* of its topic */
    struct slice name;
    int64_t offset;
    struct kafka_delete_records_response_partition *said;
};

struct trims {
    struct kafka_rows rows;
    struct kafka_errands errands;
    struct trimming *partitions;
    size_t count;
    bool looked;
};

static struct ask *trim_ask(struct kafka *k, struct kafka_request *r, size_t i, uint16_t *ret_channel)
{
    const struct trims *all = r->state;
    const struct trimming *t = &all->partitions[i];
    struct slice none = {0};
    struct ask *ask = ask_new(t->name, none, none, none);
    (void)k;
    if (ask)
        ask->number = t->offset < 0 ? UINT64_MAX : (uint64_t)t->offset;
    *ret_channel = (uint16_t)t->said->partition_index;
    return ask;
}

static void trim_done(struct kafka *k, struct kafka_request *r, size_t i, const struct answer *answer)
{
    struct trims *all = r->state;
    struct kafka_delete_records_response_partition *said = all->partitions[i].said;
    (void)k;
    said->error_code = kafka_stream_error((enum stream_result)answer->number);
    if (!said->error_code)
        said->low_watermark = (int64_t)answer->number2;
}

static const struct kafka_errand_kind trimming = {CMD_STREAM_TRIM, trim_ask, trim_done};

static bool trim_partitions(struct kafka *k, struct kafka_request *r, struct trims *all)
{
    const struct kafka_delete_records_request *asked = r->message;
    struct kafka_delete_records_response *said = r->response;
    for (int32_t i = 0; i < asked->topics.count; i++) {
        const struct kafka_delete_records_request_topic *topic = &asked->topics.at[i];
        struct kafka_delete_records_response_topic *answer = &said->topics.at[said->topics.count++];
        size_t count = topic->partitions.count > 0 ? (size_t)topic->partitions.count : 0;
        answer->name = topic->name;
        answer->partitions.at = kafka_more_room(k, r, count, sizeof *answer->partitions.at);
        if (!answer->partitions.at)
            return false;
        answer->partitions.count = (int32_t)count;
        for (size_t p = 0; p < count; p++) {
            answer->partitions.at[p] = (struct kafka_delete_records_response_partition){
                .partition_index = topic->partitions.at[p].partition_index, .low_watermark = -1};
            all->partitions[all->count++] =
                (struct trimming){(size_t)i, topic->name, topic->partitions.at[p].offset, &answer->partitions.at[p]};
        }
    }
    return true;
}

static bool trim_begin(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_delete_records_request *asked = r->message;
    struct kafka_delete_records_response *said = r->response;
    size_t count = asked->topics.count > 0 ? (size_t)asked->topics.count : 0, partitions = 0;
    for (size_t i = 0; i < count; i++)
        partitions += asked->topics.at[i].partitions.count > 0 ? (size_t)asked->topics.at[i].partitions.count : 0;
    struct trims *all = r->state = kafka_room(k, r, 1, sizeof *all);
    struct slice *names = all ? kafka_more_room(k, r, count, sizeof *names) : NULL;
    struct trimming *list = names ? kafka_more_room(k, r, partitions, sizeof *list) : NULL;
    said->topics.at = list ? kafka_more_room(k, r, count, sizeof *said->topics.at) : NULL;
    if (!said->topics.at)
        return false;
    all->partitions = list;
    for (size_t i = 0; i < count; i++)
        names[i] = asked->topics.at[i].name;
    struct kafka_wanted wanted = {.names = names, .name_count = count};
    return trim_partitions(k, r, all) && kafka_errands_init(k, r, &trimming, partitions, &all->errands) &&
           kafka_rows_init(k, r, &wanted, false, &all->rows);
}

static void trim_look(struct trims *all)
{
    all->looked = true;
    for (size_t i = 0; i < all->count; i++) {
        struct trimming *t = &all->partitions[i];
        const struct stream_row *row = &all->rows.rows[t->row];
        if (row->result != STREAM_DONE)
            t->said->error_code = kafka_stream_error(row->result);
        else if (t->said->partition_index < 0 || t->said->partition_index >= (int64_t)row->partitions)
            t->said->error_code = KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION;
        else if (!row->limits.deletes)
            t->said->error_code = KAFKA_ERR_POLICY_VIOLATION;
        else if (t->offset < -1)
            t->said->error_code = KAFKA_ERR_OFFSET_OUT_OF_RANGE;
        else
            kafka_errand_want(&all->errands, i);
    }
}

static enum kafka_progress delete_records_go(struct kafka *k, struct kafka_request *r)
{
    if (!r->state && !trim_begin(k, r))
        return KAFKA_AGAIN;
    struct trims *all = r->state;
    if (kafka_rows(k, r, &all->rows) == KAFKA_AGAIN)
        return KAFKA_AGAIN;
    if (!all->looked)
        trim_look(all);
    return kafka_errands(k, r, &all->errands);
}

static void delete_records_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    struct trims *all = r->state;
    if (all->rows.done)
        kafka_errands_effect(k, r, &all->errands, e);
    else
        kafka_rows_effect(k, r, &all->rows, e);
}

static void delete_records_drop(struct kafka *k, struct kafka_request *r)
{
    struct trims *all = r->state;
    (void)k;
    if (all)
        kafka_rows_drop(&all->rows);
}

const struct kafka_handler kafka_on_delete_records = {
    .go = delete_records_go, .effect = delete_records_effect, .drop = delete_records_drop};
