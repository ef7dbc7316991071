/* Transactions: AddPartitionsToTxn, EndTxn, and who asks what is going on. InitProducerId is in produce.c.
 *
 * Kafka's coordinator, its partitions and their markers are one core here (core/txn.h), so each request is one command and
 * one answer, and nobody is told to try again while markers are written.
 */
#include "proto/kafka/transactions.h"

#include "base/check.h"
#include "base/mem.h"
#include "core/txn.h"
#include "proto/kafka/names.h"

#include <stdlib.h>

int16_t kafka_txn_error(enum txn_result result, bool fenced_is_known)
{
    static const int16_t errors[] = {
        [TXN_DONE] = KAFKA_ERR_NONE,
        [TXN_UNKNOWN] = KAFKA_ERR_INVALID_PRODUCER_ID_MAPPING,
        [TXN_OTHER_PRODUCER] = KAFKA_ERR_INVALID_PRODUCER_ID_MAPPING,
        [TXN_FENCED] = KAFKA_ERR_PRODUCER_FENCED,
        [TXN_BAD_STATE] = KAFKA_ERR_INVALID_TXN_STATE,
        [TXN_BAD_NAME] = KAFKA_ERR_INVALID_REQUEST,
        [TXN_BAD_TIMEOUT] = KAFKA_ERR_INVALID_TRANSACTION_TIMEOUT,
        [TXN_BAD_PARTITION] = KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION,
        [TXN_TOO_MANY] = KAFKA_ERR_POLICY_VIOLATION,
        [TXN_REFUSED] = KAFKA_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        [TXN_NO_ROOM] = KAFKA_ERR_COORDINATOR_NOT_AVAILABLE,
        [TXN_ABORTED_FULL] =
            KAFKA_ERR_POLICY_VIOLATION, /* clients abort at once; what can be tried again they try for minutes */
    };
    if (result == TXN_FENCED && !fenced_is_known)
        return KAFKA_ERR_INVALID_PRODUCER_EPOCH; /* what it was called before KIP-588 */
    return errors[result];
}

bool kafka_txn_answer(struct kafka *k, const struct effect *e, struct kafka_txn_said *ret)
{
    if (e->type != EFF_ANSWER) {
        kafka_drop_memory(k);
        return false;
    }
    *ret = (struct kafka_txn_said){.result = TXN_NO_ROOM};
    if (!e->answer)
        return true;
    struct reader fields = reader_of(e->answer->fields);
    ret->result = (enum txn_result)e->answer->number;
    ret->producer = e->answer->number2;
    ret->epoch = reader_u16(&fields);
    return true;
}

/* Takes the ask, which without memory is NULL. */
static enum kafka_progress send(struct kafka *k, struct kafka_request *r, enum command_type type, struct ask *ask)
{
    if (!ask) {
        kafka_drop_memory(k);
        return KAFKA_AGAIN;
    }
    struct command *command = kafka_command(k, r, type);
    if (!command) {
        mem_free(ask);
        return KAFKA_AGAIN;
    }
    command->ask = ask;
    return KAFKA_SENT;
}

enum kafka_progress kafka_txn_ask(struct kafka *k, struct kafka_request *r, enum command_type type, struct slice name,
                                  struct slice other, uint64_t number, uint32_t flags)
{
    struct slice none = {0};
    struct ask *ask = ask_new(name, other, none, none);
    if (ask) {
        ask->number = number;
        ask->flags = flags;
    }
    return send(k, r, type, ask);
}

void kafka_txn_producer(struct writer *w, int64_t producer, int16_t epoch)
{
    writer_u64(w, (uint64_t)producer);
    writer_u16(w, (uint16_t)epoch);
}

/* ---- AddPartitionsToTxn ---- */

/* One transaction of a request: from version 4 on there may be several. */
struct adding {
    struct slice id;
    int64_t producer;
    int16_t epoch;
    const struct kafka_add_partitions_to_txn_request_topic *topics;
    int32_t count;
    struct kafka_add_partitions_to_txn_response_topic *said;
    bool done; /* answered without the core */
};

struct add {
    struct kafka_lookup lookup;
    struct adding *list;
    uint32_t count, sent, answered;
};

static void say_all(const struct adding *a, int16_t error, bool only_good)
{
    for (int32_t t = 0; t < a->count; t++)
        for (int32_t i = 0; i < a->said[t].results_by_partition.count; i++) {
            int16_t *code = &a->said[t].results_by_partition.at[i].partition_error_code;
            if (!only_good || *code == KAFKA_ERR_NONE)
                *code = error;
        }
}

/* The answer's rows, all good until something else is known. False: the connection has been dropped. */
static bool rows_make(struct kafka *k, struct kafka_request *r, struct adding *a)
{
    a->said = kafka_room(k, r, (size_t)(a->count > 0 ? a->count : 0), sizeof *a->said);
    for (int32_t t = 0; a->said && t < a->count; t++) {
        int32_t count = a->topics[t].partitions.count > 0 ? a->topics[t].partitions.count : 0;
        a->said[t].name = a->topics[t].name;
        a->said[t].results_by_partition.count = count;
        a->said[t].results_by_partition.at =
            kafka_room(k, r, (size_t)count, sizeof *a->said[t].results_by_partition.at);
        for (int32_t i = 0; kafka_live(k) && i < count; i++)
            a->said[t].results_by_partition.at[i].partition_index = a->topics[t].partitions.at[i];
    }
    return kafka_live(k);
}

static void place(struct kafka_request *r, const struct adding *a, int32_t i)
{
    struct kafka_add_partitions_to_txn_response *said = r->response;
    if (r->form.version < 4) {
        said->results_by_topic_v3_and_below.at = a->said;
        said->results_by_topic_v3_and_below.count = a->count;
        return;
    }
    said->results_by_transaction.at[i].transactional_id = a->id;
    said->results_by_transaction.at[i].topic_results.at = a->said;
    said->results_by_transaction.at[i].topic_results.count = a->count;
}

static struct adding adding_of(const struct kafka_request *r, int32_t i)
{
    const struct kafka_add_partitions_to_txn_request *asked = r->message;
    if (r->form.version < 4)
        return (struct adding){.id = asked->v3_and_below_transactional_id,
                               .producer = asked->v3_and_below_producer_id,
                               .epoch = asked->v3_and_below_producer_epoch,
                               .topics = asked->v3_and_below_topics.at,
                               .count = asked->v3_and_below_topics.count};
    return (struct adding){.id = asked->transactions.at[i].transactional_id,
                           .producer = asked->transactions.at[i].producer_id,
                           .epoch = asked->transactions.at[i].producer_epoch,
                           .topics = asked->transactions.at[i].topics.at,
                           .count = asked->transactions.at[i].topics.count};
}

static bool add_begin(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_add_partitions_to_txn_request *asked = r->message;
    struct kafka_add_partitions_to_txn_response *said = r->response;
    int32_t count = r->form.version < 4 ? 1 : asked->transactions.count > 0 ? asked->transactions.count : 0;
    size_t topics = 0, at = 0;
    struct add *add = kafka_room(k, r, 1, sizeof *add);
    struct adding *list = add ? kafka_room(k, r, (size_t)count, sizeof *list) : NULL;
    said->results_by_transaction.at =
        list ? kafka_room(k, r, (size_t)count, sizeof *said->results_by_transaction.at) : NULL;
    if (!said->results_by_transaction.at)
        return false;
    said->results_by_transaction.count = r->form.version < 4 ? 0 : count;
    for (int32_t i = 0; i < count; i++) {
        list[i] = adding_of(r, i);
        if (!rows_make(k, r, &list[i]))
            return false;
        place(r, &list[i], i);
        topics += (size_t)(list[i].count > 0 ? list[i].count : 0);
    }
    struct slice *names = kafka_room(k, r, topics, sizeof *names);
    for (int32_t i = 0; names && i < count; i++)
        for (int32_t t = 0; t < list[i].count; t++)
            names[at++] = list[i].topics[t].name;
    if (!names || !kafka_lookup_init(k, r, names, topics, &add->lookup))
        return false;
    add->list = list;
    add->count = (uint32_t)count;
    r->state = add;
    return true;
}

/* What there is of it, for the core. False: something there is not, and then none is added, as in Kafka. */
static bool partitions_of(struct kafka *k, struct adding *a, struct writer *w)
{
    bool good = true;
    for (int32_t t = 0; t < a->count; t++) {
        const struct kafka_topic *topic = kafka_topic_find(k, a->topics[t].name);
        for (int32_t i = 0; i < a->said[t].results_by_partition.count; i++) {
            int32_t number = a->topics[t].partitions.at[i];
            bool known = topic && number >= 0 && (uint32_t)number < topic->partitions;
            if (!known)
                a->said[t].results_by_partition.at[i].partition_error_code = KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION;
            good = good && known;
            writer_u64(w, topic ? topic->id : 0);
            writer_u32(w, (uint32_t)number);
        }
    }
    if (!good)
        say_all(a, KAFKA_ERR_OPERATION_NOT_ATTEMPTED, true);
    return good;
}

static enum kafka_progress add_send(struct kafka *k, struct kafka_request *r, struct adding *a)
{
    size_t rows = 0;
    for (int32_t t = 0; t < a->count; t++)
        rows += (size_t)a->said[t].results_by_partition.count;
    uint8_t *room = mem_alloc(10 + 12 * rows);
    if (!room) {
        kafka_drop_memory(k);
        return KAFKA_AGAIN;
    }
    struct writer w = writer_of(room, 10 + 12 * rows);
    kafka_txn_producer(&w, a->producer, a->epoch);
    enum kafka_progress progress = KAFKA_SENT;
    if (partitions_of(k, a, &w))
        progress = kafka_txn_ask(k, r, CMD_TXN_ADD, a->id, writer_slice(&w), 0, 0);
    else
        a->done = true;
    mem_free(room);
    return progress;
}

static enum kafka_progress add_partitions_go(struct kafka *k, struct kafka_request *r)
{
    if (!r->state && !add_begin(k, r))
        return KAFKA_AGAIN;
    struct add *add = r->state;
    if (kafka_lookup(k, r, &add->lookup) == KAFKA_AGAIN)
        return KAFKA_AGAIN;
    for (; add->sent < add->count; add->sent++)
        if (add_send(k, r, &add->list[add->sent]) == KAFKA_AGAIN)
            return KAFKA_AGAIN;
    return KAFKA_SENT;
}

static void add_partitions_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    struct add *add = r->state;
    struct kafka_txn_said said;
    if (!add->lookup.done) {
        kafka_lookup_effect(k, &add->lookup, e);
        return;
    }
    while (add->answered < add->count && add->list[add->answered].done)
        add->answered++;
    CHECK(add->answered < add->count); /* there is an answer for each that was sent, in order */
    if (kafka_txn_answer(k, e, &said)) {
        say_all(&add->list[add->answered++], kafka_txn_error(said.result, r->form.version >= 2), false);
        r->lsn = e->lsn > r->lsn ? e->lsn : r->lsn;
    }
    hub_drop(kafka_hub(k), e);
}

const struct kafka_handler kafka_on_add_partitions_to_txn = {.go = add_partitions_go, .effect = add_partitions_effect};

/* ---- EndTxn ---- */

static enum kafka_progress end_txn_go(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_end_txn_request *asked = r->message;
    uint8_t room[16];
    struct writer w = writer_of(room, sizeof room);
    kafka_txn_producer(&w, asked->producer_id, asked->producer_epoch);
    return kafka_txn_ask(k, r, CMD_TXN_END, asked->transactional_id, writer_slice(&w), 0,
                         (asked->committed ? ASK_COMMIT : 0u) | (r->form.version >= 5 ? ASK_NEXT_EPOCH : 0u));
}

static void end_txn_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    struct kafka_end_txn_response *said = r->response;
    struct kafka_txn_said answer;
    if (kafka_txn_answer(k, e, &answer)) {
        said->error_code = kafka_txn_error(answer.result, r->form.version >= 2);
        if (answer.result == TXN_DONE) {
            said->producer_id = (int64_t)answer.producer;
            said->producer_epoch = (int16_t)answer.epoch;
        }
        r->lsn = e->lsn;
    }
    hub_drop(kafka_hub(k), e);
}

const struct kafka_handler kafka_on_end_txn = {.go = end_txn_go, .effect = end_txn_effect};

/* ---- DescribeTransactions and ListTransactions ---- */

/* Both ask for rows, and what topics are called, which the rows name by number. */
struct looking {
    struct slice rows; /* in the arena */
    bool listed;
};

static enum kafka_progress describe_transactions_go(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_describe_transactions_request *asked = r->message;
    struct looking *looking = r->state;
    if (!looking) {
        size_t len = 0;
        for (int32_t i = 0; i < asked->transactional_ids.count; i++)
            len += 4 + asked->transactional_ids.at[i].len;
        uint8_t *room = kafka_room(k, r, len, 1);
        if (!room)
            return KAFKA_AGAIN;
        struct writer w = writer_of(room, len);
        for (int32_t i = 0; i < asked->transactional_ids.count; i++)
            writer_str32(&w, asked->transactional_ids.at[i]);
        if (len == 0)
            return KAFKA_SENT;
        if (kafka_txn_ask(k, r, CMD_TXN_LIST, (struct slice){0}, writer_slice(&w), 0, 0) == KAFKA_SENT)
            r->state = kafka_room(k, r, 1, sizeof *looking);
        return KAFKA_AGAIN;
    }
    if (!looking->listed)
        return KAFKA_AGAIN;
    return r->pending ? KAFKA_AGAIN : KAFKA_SENT;
}

static struct kafka_describe_transactions_response_transaction_state *state_of(
    struct kafka_describe_transactions_response *said, struct slice id)
{
    for (int32_t i = 0; i < said->transaction_states.count; i++)
        if (slice_equal(said->transaction_states.at[i].transactional_id, id))
            return &said->transaction_states.at[i];
    return NULL;
}

/* The names of the topics of a transaction are those of the streams that this connection knows; others are left out. */
static void say_topics(struct kafka *k, struct kafka_request *r, const struct txn_row *row,
                       struct kafka_describe_transactions_response_transaction_state *ret)
{
    size_t count = row->partitions.len / 12;
    ret->topics.at = kafka_room(k, r, count, sizeof *ret->topics.at);
    for (struct reader p = reader_of(row->partitions); ret->topics.at && p.left >= 12;) {
        uint64_t stream = reader_u64(&p);
        int32_t number = (int32_t)reader_u32(&p);
        const struct kafka_topic *topic = kafka_topic_of_stream(k, stream);
        if (!topic)
            continue;
        struct kafka_describe_transactions_response_topic *one = &ret->topics.at[ret->topics.count++];
        one->topic = kafka_keep(k, r, topic->name);
        one->partitions.at = kafka_room(k, r, 1, sizeof *one->partitions.at);
        if (!one->partitions.at)
            return;
        one->partitions.at[0] = number;
        one->partitions.count = 1;
    }
}

static void describe_transactions_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    const struct kafka_describe_transactions_request *asked = r->message;
    struct kafka_describe_transactions_response *said = r->response;
    int32_t count = asked->transactional_ids.count > 0 ? asked->transactional_ids.count : 0;
    said->transaction_states.at = kafka_room(k, r, (size_t)count, sizeof *said->transaction_states.at);
    if (e->type != EFF_ANSWER || !e->answer || !said->transaction_states.at) {
        hub_drop(kafka_hub(k), e);
        kafka_drop_memory(k);
        return;
    }
    said->transaction_states.count = count;
    for (int32_t i = 0; i < count; i++) {
        struct kafka_describe_transactions_response_transaction_state *state = &said->transaction_states.at[i];
        state->transactional_id = asked->transactional_ids.at[i];
        state->transaction_state = slice_str("");
        state->error_code = KAFKA_ERR_TRANSACTIONAL_ID_NOT_FOUND;
    }
    struct reader fields = reader_of(e->answer->fields);
    struct txn_row row;
    while (kafka_live(k) && txn_row_next(&fields, &row)) {
        struct kafka_describe_transactions_response_transaction_state *state = state_of(said, row.name);
        if (!state)
            continue;
        state->error_code = KAFKA_ERR_NONE;
        state->transaction_state = slice_str(txn_state_name(row.state));
        state->transaction_timeout_ms = (int32_t)row.timeout_ms;
        state->transaction_start_time_ms = row.started ? row.started : -1;
        state->producer_id = (int64_t)row.producer;
        state->producer_epoch = (int16_t)row.epoch;
        say_topics(k, r, &row, state);
    }
    hub_drop(kafka_hub(k), e);
    ((struct looking *)r->state)->listed = true;
}

const struct kafka_handler kafka_on_describe_transactions = {.go = describe_transactions_go,
                                                             .effect = describe_transactions_effect};

#define STATE_NEVER UINT8_MAX           /* of Kafka's, which nothing here has */
#define STATE_UNKNOWN (STATE_NEVER - 1) /* of nobody's */

static uint8_t state_named(struct slice name)
{
    static const char *const others[] = {"PrepareCommit", "PrepareAbort", "Dead", "PrepareEpochFence"};
    for (enum txn_state s = TXN_EMPTY; s <= TXN_ABORTED; s++)
        if (slice_is(name, txn_state_name(s)))
            return (uint8_t)s;
    for (size_t i = 0; i < ARRAY_LEN(others); i++)
        if (slice_is(name, others[i]))
            return STATE_NEVER;
    return STATE_UNKNOWN;
}

static int by_id(const void *a, const void *b)
{
    uint64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

/* Each state once, and the ids in their order: the core holds every transaction against them. */
static enum kafka_progress list_transactions_go(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_list_transactions_request *asked = r->message;
    bool seen[STATE_NEVER + 1] = {0};
    size_t named = asked->state_filters.count > 0 ? (size_t)asked->state_filters.count : 0, states = 0;
    size_t producers = asked->producer_id_filters.count > 0 ? (size_t)asked->producer_id_filters.count : 0;
    uint64_t *ids = kafka_room(k, r, producers, sizeof *ids);
    uint8_t *room = ids ? kafka_room(k, r, sizeof seen + 8 * producers, 1) : NULL;
    if (!room)
        return KAFKA_AGAIN;
    struct writer w = writer_of(room, sizeof seen + 8 * producers);
    for (size_t i = 0; i < named; i++) {
        uint8_t state = state_named(asked->state_filters.at[i]);
        if (!seen[state])
            writer_u8(&w, state);
        seen[state] = true;
    }
    states = w.len;
    for (size_t i = 0; i < producers; i++)
        ids[i] = (uint64_t)asked->producer_id_filters.at[i];
    if (producers)
        qsort(ids, producers, sizeof *ids, by_id);
    for (size_t i = 0; i < producers; i++)
        writer_u64(&w, ids[i]);
    struct ask *ask = ask_new(asked->transactional_id_pattern, (struct slice){0}, slice_of(room, states),
                              slice_of(room + states, 8 * producers));
    if (ask)
        ask->number = asked->duration_filter < 0 ? 0 : (uint64_t)asked->duration_filter + 1;
    return send(k, r, CMD_TXN_LIST, ask);
}

/* As many as there are: a small request may have a large answer. */
static void list_rows(struct kafka *k, struct kafka_request *r, struct reader fields)
{
    struct kafka_list_transactions_response *said = r->response;
    struct reader again = fields;
    struct txn_row row;
    size_t count = 0;
    while (txn_row_next(&again, &row))
        count++;
    r->arena.max += fields.left + count * (sizeof *said->transaction_states.at + sizeof(void *));
    said->transaction_states.at = kafka_room(k, r, count, sizeof *said->transaction_states.at);
    while (said->transaction_states.at && kafka_live(k) && txn_row_next(&fields, &row))
        said->transaction_states.at[said->transaction_states.count++] =
            (struct kafka_list_transactions_response_transaction_state){.transactional_id = kafka_keep(k, r, row.name),
                                                                        .producer_id = (int64_t)row.producer,
                                                                        .transaction_state =
                                                                            slice_str(txn_state_name(row.state))};
}

static void list_transactions_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    const struct kafka_list_transactions_request *asked = r->message;
    struct kafka_list_transactions_response *said = r->response;
    int32_t states = asked->state_filters.count > 0 ? asked->state_filters.count : 0;
    said->unknown_state_filters.at = kafka_room(k, r, (size_t)states, sizeof(struct slice));
    if (e->type != EFF_ANSWER || !e->answer || !kafka_live(k)) {
        hub_drop(kafka_hub(k), e);
        kafka_drop_memory(k);
        return;
    }
    for (int32_t i = 0; i < states; i++)
        if (state_named(asked->state_filters.at[i]) == STATE_UNKNOWN)
            said->unknown_state_filters.at[said->unknown_state_filters.count++] = asked->state_filters.at[i];
    if (e->answer->number != TXN_DONE)
        said->error_code = KAFKA_ERR_INVALID_REGULAR_EXPRESSION;
    list_rows(k, r, reader_of(e->answer->fields));
    hub_drop(kafka_hub(k), e);
}

const struct kafka_handler kafka_on_list_transactions = {.go = list_transactions_go,
                                                         .effect = list_transactions_effect};
