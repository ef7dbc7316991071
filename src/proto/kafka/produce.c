/* Produce and InitProducerId.
 *
 * Every batch is copied once, from what was received into the message that journal and stream will share, and checked
 * there; the core then gives it its offset. One command a batch, answered in the order of the commands. With acks=all the
 * answer is held until all of them are durable; with acks=0 there is none, and an error ends the connection, as in Kafka.
 */
#include "base/mem.h"
#include "fmt/compress.h"
#include "fmt/record_batch.h"
#include "proto/kafka/kafka_int.h"
#include "proto/kafka/names.h"
#include "proto/kafka/transactions.h"

#define ACKS_ALL (-1)
#define PARTITION_MAX UINT16_MAX
#define JOINS_FROM 12          /* a batch makes its partition part of the transaction from this version on (KIP-890) */
#define CODECS_KEPT (4u << 20) /* of what codecs needed, for the next batch of the loop */
#define REPACK_TIMES 16u       /* a batch that is packed again may be so much larger unpacked than it may be at all */
#define REPACK_NS_MAX 200000000ull

struct row {         /* a partition of the request */
    struct msg *msg; /* until it is the core's; NULL: it has its error already */
    struct slice name;
    uint64_t stream; /* of requests that name topics by their ids */
    struct kafka_produce_response_partition *said;
    uint32_t grown; /* by being packed again, until the core has it: in the account of the connection */
};

struct produce {
    struct kafka_lookup lookup;
    struct row *rows;
    uint32_t count, sent, answered;
    uint64_t grown; /* of rows that were sent and are not answered */
    bool failed;
    bool by_id, zstd_refused;
};

/* ---- what is wrong with a batch ---- */

static const int16_t batch_errors[] = {
    [RECORD_SHORT] = KAFKA_ERR_CORRUPT_MESSAGE,
    [RECORD_DAMAGED] = KAFKA_ERR_CORRUPT_MESSAGE,
    [RECORD_INVALID] = KAFKA_ERR_INVALID_RECORD,
    [RECORD_OLD_FORMAT] = KAFKA_ERR_INVALID_RECORD,
    [RECORD_TOO_LARGE] = KAFKA_ERR_MESSAGE_TOO_LARGE,
    [RECORD_BAD_TIMESTAMP] = KAFKA_ERR_INVALID_TIMESTAMP,
    [RECORD_BAD_CODEC] = KAFKA_ERR_UNSUPPORTED_COMPRESSION_TYPE,
    [RECORD_NO_MEMORY] = KAFKA_ERR_KAFKA_STORAGE_ERROR,
};

static const int16_t core_errors[] = {
    [PRODUCE_OK] = KAFKA_ERR_NONE,
    [PRODUCE_DUPLICATE] = KAFKA_ERR_NONE,
    [PRODUCE_UNKNOWN] = KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION,
    [PRODUCE_REFUSED] = KAFKA_ERR_TOPIC_AUTHORIZATION_FAILED,
    [PRODUCE_OUT_OF_ORDER] = KAFKA_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,
    [PRODUCE_OLD_EPOCH] = KAFKA_ERR_INVALID_PRODUCER_EPOCH,
    [PRODUCE_NO_TXN] = KAFKA_ERR_INVALID_TXN_STATE,
    [PRODUCE_NO_ROOM] = KAFKA_ERR_KAFKA_STORAGE_ERROR,
    [PRODUCE_NO_MEMORY] = KAFKA_ERR_KAFKA_STORAGE_ERROR,
    [PRODUCE_ABORTED_FULL] = KAFKA_ERR_POLICY_VIOLATION, /* as of TXN_ABORTED_FULL */
};

#define ABORTED_FULL                                                                                                   \
    "the topic keeps so many aborted transactions that none can begin: give it retention or compaction, delete its "   \
    "old records, or raise kafka.transactions_bytes_max of the broker"

static void row_fail(struct kafka *k, struct produce *p, struct row *row, int16_t error, const char *text)
{
    if (row->msg)
        msg_unref(hub_heap(kafka_hub(k)), row->msg);
    row->msg = NULL;
    row->said->error_code = error;
    row->said->base_offset = -1;
    row->said->error_message = text ? slice_str(text) : (struct slice){0};
    p->failed = true;
}

static void note_fault(struct kafka *k, struct kafka_request *r, struct row *row, const struct record_fault *fault)
{
    if (fault->index < 0)
        return;
    row->said->record_errors.at = kafka_room(k, r, 1, sizeof *row->said->record_errors.at);
    if (!row->said->record_errors.at)
        return;
    row->said->record_errors.count = 1;
    row->said->record_errors.at[0] = (struct kafka_produce_response_record_error){
        .batch_index = fault->index, .batch_index_error_message = slice_str(fault->why)};
}

static enum compress_kind packing_of(const struct row *row)
{
    return msg_body(row->msg).ptr[22] & 7; /* of the attributes */
}

static bool is_repacked(const struct row *row, const struct kafka_batch_rules *rules)
{
    return rules->compression != COMPRESS_KINDS && rules->compression != packing_of(row);
}

/* Of the records. What could not be stored afterwards is refused before it is unpacked, or as soon as it is too much. */
static uint32_t unpacked_max(const struct kafka *k, const struct row *row, const struct kafka_batch_rules *rules,
                             uint32_t bytes_max)
{
    uint64_t max = k->options->unpacked_bytes_max;
    if (!is_repacked(row, rules) || !bytes_max)
        return (uint32_t)max;
    uint64_t most = rules->compression != COMPRESS_NONE ? (uint64_t)REPACK_TIMES * bytes_max
                    : bytes_max > RECORD_BATCH_HEADER   ? bytes_max - RECORD_BATCH_HEADER
                                                        : 1;
    return (uint32_t)(most < max ? most : max);
}

/* Those that know in time whether it will fit need no more room than there may be in the end. */
static size_t packed_max(enum compress_kind kind, size_t unpacked_len, uint32_t bytes_max)
{
    size_t max = RECORD_BATCH_HEADER + compress_pack_max(kind, unpacked_len);
    bool can_stop = kind == COMPRESS_GZIP || kind == COMPRESS_ZSTD;
    return can_stop && bytes_max && max > bytes_max ? bytes_max : max;
}

/* Writes the batch again, compressed as the topic has it; with a lower level where that would take too long. */
static enum record_verdict repack(struct kafka *k, struct row *row, const struct kafka_batch_rules *rules,
                                  const struct record_check *found, uint32_t bytes_max)
{
    enum compress_kind kind = (enum compress_kind)rules->compression;
    size_t max = packed_max(kind, found->unpacked_len, bytes_max);
    int32_t level = compress_level_within(kind, rules->level, found->unpacked_len, REPACK_NS_MAX);
    uint8_t *room = mem_alloc(max);
    struct writer w = writer_of(room, max);
    struct slice none = {0};
    enum record_verdict verdict =
        room ? record_batch_pack(&found->batch, found->unpacked, kind, level, hub_codecs(kafka_hub(k)), &w)
             : RECORD_NO_MEMORY;
    if (verdict == RECORD_OK && bytes_max && w.len > bytes_max)
        verdict = RECORD_TOO_LARGE;
    struct msg *msg = verdict == RECORD_OK ? msg_new(hub_heap(kafka_hub(k)), none, none, none, w.len) : NULL;
    if (msg) {
        memcpy(msg_body_room(msg), room, w.len);
        msg->flags = row->msg->flags;
        msg->expiration_ms = -1;
        row->grown = w.len > row->msg->body_len ? (uint32_t)w.len - row->msg->body_len : 0;
        msg_unref(hub_heap(kafka_hub(k)), row->msg);
        row->msg = msg;
    }
    mem_free(room);
    return verdict == RECORD_OK && !msg ? RECORD_NO_MEMORY : verdict;
}

static int64_t plus(int64_t a, int64_t b)
{
    int64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}

/* Codecs are the loop's, which keeps no more than it can spare. */
static void count_work(struct kafka *k, const struct row *row, uint64_t codecs_before)
{
    struct compress *z = hub_codecs(kafka_hub(k));
    hub_worked(kafka_hub(k), row->msg->body_len + compress_cost_ns(z) - codecs_before);
    if (compress_held_bytes(z) > CODECS_KEPT)
        compress_trim(z);
}

/* The batch is as a broker must have it, and becomes what the topic has it be. */
static bool check(struct kafka *k, struct kafka_request *r, struct row *row, const struct kafka_topic *topic)
{
    struct produce *p = r->state;
    const struct kafka_batch_rules *rules = &topic->rules;
    wall_t now = k->options->wall(k->options->wall_arg);
    bool free_time = rules->append_time; /* what the records say of it does not count */
    struct compress *z = hub_codecs(kafka_hub(k));
    uint64_t before = compress_cost_ns(z);
    uint32_t bytes_max = rules->bytes_max ? rules->bytes_max : k->options->batch_bytes_max;
    struct record_limits limits = {.bytes_max = bytes_max,
                                   .unpacked_max = unpacked_max(k, row, rules, bytes_max),
                                   .timestamp_min =
                                       free_time || now < rules->before_max_ms ? INT64_MIN : now - rules->before_max_ms,
                                   .timestamp_max = free_time ? INT64_MAX : plus(now, rules->after_max_ms),
                                   .keys_needed = topic->compacts,
                                   .zstd_refused = p->zstd_refused};
    struct record_check found;
    struct record_fault fault = {.index = -1};
    enum record_verdict verdict = record_batch_check(msg_body(row->msg), &limits, z, &found, &fault);
    if (verdict == RECORD_OK && is_repacked(row, rules))
        verdict = repack(k, row, rules, &found, bytes_max);
    count_work(k, row, before);
    if (verdict != RECORD_OK) {
        note_fault(k, r, row, &fault);
        row_fail(k, p, row, batch_errors[verdict], fault.why);
        return false;
    }
    if (rules->append_time) {
        record_batch_set_max_timestamp(msg_body_room(row->msg), row->msg->body_len, true, now);
        row->said->log_append_time_ms = now;
    } else if (found.opened && found.max_timestamp != found.batch.max_timestamp) {
        record_batch_set_max_timestamp(msg_body_room(row->msg), row->msg->body_len, false, found.max_timestamp);
    }
    return true;
}

/* ---- the request ---- */

static bool keep_batch(struct kafka *k, struct kafka_request *r, struct row *row, struct slice records)
{
    struct slice none = {0};
    row->msg = msg_new(hub_heap(kafka_hub(k)), none, none, none, records.len);
    if (!row->msg) {
        kafka_drop_memory(k);
        return false;
    }
    memcpy(msg_body_room(row->msg), records.ptr, records.len);
    row->msg->flags = MSG_BATCH | MSG_PERSISTENT;
    row->msg->expiration_ms = -1;
    r->bytes += (uint32_t)records.len;
    k->inflight_bytes += records.len;
    return true;
}

static bool keep_partition(struct kafka *k, struct kafka_request *r,
                           const struct kafka_produce_request_partition *asked, struct row *row, int16_t error)
{
    struct produce *p = r->state;
    *row->said = (struct kafka_produce_response_partition){
        .index = asked->index, .base_offset = -1, .log_append_time_ms = -1, .log_start_offset = -1};
    if (!error && asked->records.len < RECORD_BATCH_HEADER)
        error = KAFKA_ERR_INVALID_RECORD;
    if (!error && (asked->index < 0 || asked->index > PARTITION_MAX))
        error = KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION;
    if (error)
        row_fail(k, p, row, error, NULL);
    return error || keep_batch(k, r, row, asked->records);
}

static bool keep_topic(struct kafka *k, struct kafka_request *r, const struct kafka_produce_request_topic *asked,
                       struct kafka_produce_response_topic *said, int16_t error)
{
    struct produce *p = r->state;
    int32_t count = asked->partition_data.count;
    uint64_t stream = 0;
    said->name = kafka_keep(k, r, asked->name);
    said->topic_id = asked->topic_id;
    said->partition_responses.at = kafka_room(k, r, (size_t)count, sizeof *said->partition_responses.at);
    if (!kafka_live(k))
        return false;
    said->partition_responses.count = count;
    if (!error && p->by_id && !kafka_topic_of_uuid(k, &asked->topic_id, &stream))
        error = KAFKA_ERR_UNKNOWN_TOPIC_ID;
    for (int32_t i = 0; i < count; i++) {
        struct row *row = &p->rows[p->count++];
        *row = (struct row){.name = said->name, .stream = stream, .said = &said->partition_responses.at[i]};
        if (!keep_partition(k, r, &asked->partition_data.at[i], row, error))
            return false;
    }
    return true;
}

static bool look_up(struct kafka *k, struct kafka_request *r, const struct kafka_produce_response *said)
{
    struct produce *p = r->state;
    size_t count = 0, topics = (size_t)said->responses.count;
    struct slice *names = kafka_room(k, r, topics, sizeof *names);
    uint64_t *ids = names ? kafka_room(k, r, topics, sizeof *ids) : NULL;
    if (!ids)
        return false;
    for (size_t i = 0; i < topics; i++)
        names[i] = said->responses.at[i].name;
    for (size_t i = 0; p->by_id && i < topics; i++)
        count += kafka_topic_of_uuid(k, &said->responses.at[i].topic_id, &ids[count]);
    return p->by_id ? kafka_lookup_init_ids(k, r, ids, count, &p->lookup)
                    : kafka_lookup_init(k, r, names, topics, &p->lookup);
}

/* Copies everything that is wanted later on. False: the connection has been dropped. */
static bool keep(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_produce_request *asked = r->message;
    struct kafka_produce_response *said = r->response;
    size_t partitions = 0;
    for (int32_t i = 0; i < asked->topic_data.count; i++)
        partitions +=
            asked->topic_data.at[i].partition_data.count > 0 ? (size_t)asked->topic_data.at[i].partition_data.count : 0;
    struct produce *p = r->state = kafka_room(k, r, 1, sizeof *p);
    struct row *rows = p ? kafka_room(k, r, partitions, sizeof *rows) : NULL;
    size_t topics = asked->topic_data.count > 0 ? (size_t)asked->topic_data.count : 0;
    said->responses.at = rows ? kafka_room(k, r, topics, sizeof *said->responses.at) : NULL;
    if (!said->responses.at)
        return false;
    *p = (struct produce){.rows = rows, .by_id = r->form.version >= 13, .zstd_refused = r->form.version < 7};
    said->responses.count = (int32_t)topics;
    r->silent = asked->acks == 0;
    bool acks_ok = asked->acks >= ACKS_ALL && asked->acks <= 1;
    for (size_t i = 0; i < topics; i++)
        if (!keep_topic(k, r, &asked->topic_data.at[i], &said->responses.at[i],
                        acks_ok ? KAFKA_ERR_NONE : KAFKA_ERR_INVALID_REQUIRED_ACKS))
            return false;
    return look_up(k, r, said);
}

/* ---- to the core ---- */

/* False: it has its error. */
static bool resolve(struct kafka *k, struct kafka_request *r, struct row *row)
{
    struct produce *p = r->state;
    const struct kafka_topic *topic = p->by_id ? kafka_topic_of_stream(k, row->stream) : kafka_topic_find(k, row->name);
    if (!topic) {
        row_fail(k, p, row, p->by_id ? KAFKA_ERR_UNKNOWN_TOPIC_ID : KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION, NULL);
        return false;
    }
    row->stream = topic->id;
    return check(k, r, row, topic);
}

/* From then on the core has an account of it. */
static void ungrow(struct kafka *k, struct produce *p, struct row *row)
{
    p->grown -= row->grown;
    k->inflight_bytes -= row->grown;
    row->grown = 0;
}

static enum kafka_progress send_rows(struct kafka *k, struct kafka_request *r)
{
    struct produce *p = r->state;
    for (; p->sent < p->count; p->sent++) {
        struct row *row = &p->rows[p->sent];
        if (!row->msg)
            continue;
        if (hub_room(kafka_hub(k)) == 0) {
            hub_wait_room(kafka_hub(k), &k->session);
            return KAFKA_AGAIN;
        }
        if (p->grown > KAFKA_INFLIGHT_HIGH)
            return KAFKA_AGAIN; /* the answers of those that were sent make room */
        if (!hub_may_work(kafka_hub(k))) {
            hub_wait_turn(kafka_hub(k), &k->session);
            return KAFKA_AGAIN;
        }
        if (!resolve(k, r, row))
            continue;
        p->grown += row->grown;
        k->inflight_bytes += row->grown;
        struct command *command = kafka_command(k, r, CMD_PRODUCE);
        command->number = row->stream;
        command->channel = (uint16_t)row->said->index;
        command->flags = r->form.version >= JOINS_FROM ? ASK_JOINS : 0;
        command->msg = row->msg;
        row->msg = NULL;
        row->said->error_code = KAFKA_ERR_NONE;
        row->said->base_offset = 0; /* until the answer comes: an error has -1 */
    }
    return KAFKA_SENT;
}

/* An error of a request that wants no answer. */
static void end_silently(struct kafka *k, const struct kafka_request *r)
{
    const struct produce *p = r->state;
    if (r->silent && p->failed && p->sent == p->count && !r->pending)
        kafka_drop(k);
}

static enum kafka_progress produce_go(struct kafka *k, struct kafka_request *r)
{
    if (!r->state && !keep(k, r))
        return KAFKA_AGAIN;
    struct produce *p = r->state;
    if (kafka_lookup(k, r, &p->lookup) == KAFKA_AGAIN)
        return KAFKA_AGAIN;
    enum kafka_progress progress = send_rows(k, r);
    end_silently(k, r);
    return progress;
}

/* ---- answers ---- */

static void produced(struct kafka *k, struct kafka_request *r, const struct effect *e)
{
    struct produce *p = r->state;
    while (p->rows[p->answered].said->base_offset < 0) /* those that were not sent */
        p->answered++;
    struct row *row = &p->rows[p->answered++];
    ungrow(k, p, row);
    if (core_errors[e->flags] != KAFKA_ERR_NONE) {
        if (e->flags == PRODUCE_UNKNOWN)
            kafka_topic_forget_stream(k, row->stream);
        row_fail(k, p, row,
                 p->by_id && e->flags == PRODUCE_UNKNOWN ? KAFKA_ERR_UNKNOWN_TOPIC_ID : core_errors[e->flags],
                 e->flags == PRODUCE_ABORTED_FULL ? ABORTED_FULL : NULL);
        row->said->log_append_time_ms = -1;
        return;
    }
    row->said->base_offset = (int64_t)e->number;
    if (e->flags == PRODUCE_DUPLICATE)
        row->said->log_append_time_ms = -1; /* when it was appended is not known any more */
    row->said->log_start_offset = (int64_t)e->count;
    const bool all = ((const struct kafka_produce_request *)r->message)->acks == ACKS_ALL;
    if (all && e->lsn > r->lsn)
        r->lsn = e->lsn;
}

static void produce_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    struct produce *p = r->state;
    if (!p->lookup.done) {
        kafka_lookup_effect(k, &p->lookup, e);
        return;
    }
    if (e->type != EFF_PRODUCED) {
        hub_drop(kafka_hub(k), e);
        kafka_drop_memory(k);
        return;
    }
    produced(k, r, e);
    end_silently(k, r);
}

static void produce_drop(struct kafka *k, struct kafka_request *r)
{
    struct produce *p = r->state;
    for (uint32_t i = 0; p && i < p->count; i++)
        if (p->rows[i].msg)
            msg_unref(hub_heap(kafka_hub(k)), p->rows[i].msg);
    k->inflight_bytes -= p ? p->grown : 0;
}

const struct kafka_handler kafka_on_produce = {
    .go = produce_go, .effect = produce_effect, .drop = produce_drop, .in_place = true};

/* ---- InitProducerId ---- */

static enum kafka_progress init_txn(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_init_producer_id_request *asked = r->message;
    uint8_t room[16];
    struct writer w = writer_of(room, sizeof room);
    if (asked->producer_id >= 0)
        kafka_txn_producer(&w, asked->producer_id, asked->producer_epoch);
    uint64_t timeout = asked->transaction_timeout_ms > 0 ? (uint64_t)asked->transaction_timeout_ms : 0;
    return kafka_txn_ask(k, r, CMD_TXN_INIT, asked->transactional_id, writer_slice(&w), timeout, 0);
}

static enum kafka_progress init_producer_id_go(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_init_producer_id_request *asked = r->message;
    struct kafka_init_producer_id_response *said = r->response;
    bool half = (asked->producer_id < 0) != (asked->producer_epoch < 0);
    said->producer_epoch = -1;
    if ((asked->transactional_id.ptr && asked->transactional_id.len == 0) || half) {
        said->error_code = KAFKA_ERR_INVALID_REQUEST;
        return KAFKA_SENT;
    }
    if (asked->transactional_id.ptr)
        return init_txn(k, r);
    return kafka_command(k, r, CMD_PRODUCER_ID) ? KAFKA_SENT : KAFKA_AGAIN;
}

static void init_txn_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    struct kafka_init_producer_id_response *said = r->response;
    struct kafka_txn_said answer;
    if (!kafka_txn_answer(k, e, &answer))
        return;
    bool fenced = answer.result == TXN_FENCED || answer.result == TXN_OTHER_PRODUCER;
    said->error_code = kafka_txn_error(fenced ? TXN_FENCED : answer.result, r->form.version >= 4);
    r->lsn = e->lsn;
    if (answer.result != TXN_DONE)
        return;
    said->producer_id = (int64_t)answer.producer;
    said->producer_epoch = (int16_t)answer.epoch;
}

static void init_producer_id_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    struct kafka_init_producer_id_response *said = r->response;
    if (((const struct kafka_init_producer_id_request *)r->message)->transactional_id.ptr) {
        init_txn_effect(k, r, e);
    } else if (e->type == EFF_ANSWER && e->answer) {
        said->producer_id = (int64_t)e->answer->number;
        said->producer_epoch = 0;
        r->lsn = e->lsn;
    } else {
        kafka_drop_memory(k);
    }
    hub_drop(kafka_hub(k), e);
}

const struct kafka_handler kafka_on_init_producer_id = {.go = init_producer_id_go, .effect = init_producer_id_effect};
