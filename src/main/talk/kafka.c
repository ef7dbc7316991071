/* `millrace pub`, `sub` and `tail` over Kafka's protocol, see talk.h. The connection is the load generator's.
 *
 * Publishing: records gather in one batch for one partition, which is sent with acks=all when it is full, when a record belongs
 * elsewhere, and by flush. Reading: without a group, from each partition's own offset on; of transactions only what was
 * committed. */
#include "main/talk/talk.h"

#include "admin/table_json.h"
#include "base/mem.h"
#include "fmt/murmur2.h"
#include "fmt/record_batch.h"
#include "main/bench/kafka_int.h"
#include "os/os.h"

#include <stdlib.h>

#define BATCH_MAX (256u * 1024)
#define HEADERS_MAX 64u
#define FETCH_MAX (4 << 20)
#define FETCH_WAIT_MS 500
#define UNPACKED_MAX (256u << 20)
#define PRODUCE_TIMEOUT_MS 30000
#define ANSWER_MS (BENCH_ANSWER_TIMEOUT_S * 1000)
#define TIME_FIRST (-2)
#define TIME_NEXT (-1)

struct talk_kafka {
    struct talk talk; /* first */
    struct bench_kafka_wire wire;
    int32_t partitions; /* of the topic; 0: not asked yet */
    /* publishing */
    uint8_t *room;
    size_t cap;
    struct writer writer;
    struct record_batch_writer batch;
    bool batch_open;
    int32_t partition; /* of the batch; of the next one without keys */
    /* reading */
    int32_t *numbers; /* of partitions that are read … */
    int64_t *offsets; /* … and what comes next there */
    int32_t count;
    const struct kafka_fetch_response *answer; /* lies in the wire */
    int32_t row;                               /* of it */
    const struct kafka_fetch_response_partition *at;
    bool *ended; /* of at->aborted_transactions: their end was seen */
    struct reader batches;
    struct record_reader records;
    struct compress *z;
};

static struct talk_kafka *of_talk(struct talk *t)
{
    return CONTAINER_OF(t, struct talk_kafka, talk);
}

static int wire_failed(struct talk_kafka *k)
{
    return talk_fail(&k->talk, "%s", k->wire.socket.error[0] ? k->wire.socket.error : "out of memory");
}

static int refused(struct talk_kafka *k, const char *what, int error_code)
{
    (void)bench_kafka_refused(&k->wire, what, error_code);
    return wire_failed(k);
}

static wall_t now_wall(void)
{
    return os_posix()->now_wall(os_posix());
}

/* ---- opening ---- */

static struct talk *talk_open(const struct talk_options *o)
{
    struct talk_kafka *k = mem_zalloc(sizeof *k);
    struct bench_kafka_server server = {.port = o->port, .user = o->user, .password = o->password, .tls = o->tls};
    if (!k)
        return NULL;
    k->talk.protocol = &talk_kafka;
    k->talk.options = o;
    k->wire.socket.fd = -1;
    memcpy(server.host, o->host, sizeof server.host);
    if (!o->name)
        talk_fail(&k->talk, "Kafka has topics, and neither exchanges nor routing keys: name one");
    else if (bench_kafka_open(&k->wire, &server) != 0)
        wire_failed(k);
    return &k->talk;
}

static void talk_close(struct talk *t)
{
    struct talk_kafka *k = of_talk(t);
    bench_kafka_close(&k->wire);
    compress_free(&k->z);
    mem_free(k->room);
    mem_free(k->numbers);
    mem_free(k->offsets);
    mem_free(k->ended);
    mem_free(k);
}

/* How many partitions the topic has; it is made when that is wanted. */
static int topic_open(struct talk_kafka *k)
{
    const struct talk_options *o = k->talk.options;
    if (k->partitions)
        return 0;
    if (o->create && bench_kafka_topic_create(&k->wire, o->name, 1) < 0)
        return wire_failed(k);
    struct kafka_metadata_request_topic topic = {.name = slice_str(o->name)};
    struct kafka_metadata_request ask = {.topics = {.at = &topic, .count = 1}};
    void *found;
    if (bench_kafka_ask(&k->wire, KAFKA_API_metadata, &ask, &found) != 0)
        return wire_failed(k);
    const struct kafka_metadata_response *answer = found;
    const struct kafka_metadata_response_topic *row = answer->topics.count == 1 ? &answer->topics.at[0] : NULL;
    if (row && row->error_code == KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION)
        return talk_fail(&k->talk, "there is no topic %s (--create makes it)", o->name);
    if (!row || row->error_code)
        return refused(k, o->name, row ? row->error_code : KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION);
    k->partitions = row->partitions.count;
    if (o->partition >= k->partitions)
        return talk_fail(&k->talk, "%s has %d partition%s, counted from 0", o->name, k->partitions,
                         k->partitions == 1 ? "" : "s");
    return 0;
}

/* ---- publishing ---- */

/* Waits for the answer to Produce: 0, and what was answered. */
static int produced(struct talk_kafka *k, void **ret)
{
    struct client_socket *s = &k->wire.socket;
    struct slice frame;
    int got;
    client_socket_patience(s, TALK_HELD_MS);
    while ((got = bench_kafka_frame_next(&k->wire, &frame)) == 0) {
        ssize_t n = client_socket_fill(s);
        if (n < 0)
            break;
        if (n == 0 && s->patience_ms == ANSWER_MS)
            return talk_fail(&k->talk, "the server has not confirmed what was sent within %d s",
                             BENCH_ANSWER_TIMEOUT_S);
        if (n > 0)
            continue;
        talk_held(&k->talk, NULL);
        client_socket_patience(s, ANSWER_MS);
    }
    client_socket_patience(s, ANSWER_MS);
    return got == 1 && bench_kafka_decode(&k->wire, KAFKA_API_produce, frame, ret) == 0 ? 0 : wire_failed(k);
}

static int send_batch(struct talk_kafka *k)
{
    if (!k->batch_open)
        return 0;
    k->batch_open = false;
    struct kafka_produce_request_partition partition = {.index = k->partition,
                                                        .records = record_batch_finish(&k->batch, -1)};
    struct kafka_produce_request_topic topic = {.name = slice_str(k->talk.options->name),
                                                .partition_data = {.at = &partition, .count = 1}};
    struct kafka_produce_request ask = {
        .acks = -1, .timeout_ms = PRODUCE_TIMEOUT_MS, .topic_data = {.at = &topic, .count = 1}};
    void *found;
    if (bench_kafka_send(&k->wire, KAFKA_API_produce, &ask) != 0)
        return wire_failed(k);
    if (produced(k, &found) != 0)
        return -1;
    const struct kafka_produce_response *answer = found;
    if (answer->responses.count != 1 || answer->responses.at[0].partition_responses.count != 1)
        return talk_fail(&k->talk, "the answer to Produce leaves out what was sent");
    int error = answer->responses.at[0].partition_responses.at[0].error_code;
    if (k->talk.options->partition < 0)
        k->partition = (k->partition + 1) % k->partitions; /* the next batch without keys goes elsewhere */
    return error ? refused(k, "publishing", error) : 0;
}

/* Headers are texts there; whole numbers and truths become such. */
static int headers_of(struct talk_kafka *k, const json_t *properties, struct record_header *ret, char (*texts)[32],
                      uint32_t *ret_count)
{
    const char *name;
    json_t *value;
    *ret_count = 0;
    json_object_foreach((json_t *)(uintptr_t)properties, name, value)
    {
        if (strcmp(name, "headers") != 0 && strcmp(name, "delivery_mode") != 0)
            return talk_fail(&k->talk, "records have headers and a key, but not the property %s", name);
    }
    json_object_foreach(json_object_get(properties, "headers"), name, value)
    {
        uint32_t i = (*ret_count)++;
        if (i == HEADERS_MAX)
            return talk_fail(&k->talk, "more than %u headers", HEADERS_MAX);
        ret[i] = (struct record_header){.key = slice_str(name), .has_value = !json_is_null(value)};
        if (json_is_string(value))
            ret[i].value = slice_of(json_string_value(value), json_string_length(value));
        else if (json_is_integer(value) || json_is_boolean(value)) {
            snprintf(texts[i], sizeof texts[i], "%lld", (long long)json_integer_value(value));
            ret[i].value = slice_str(json_is_true(value) ? "true" : json_is_false(value) ? "false" : texts[i]);
        } else if (!json_is_null(value)) {
            return talk_fail(&k->talk, "headers of records are texts, and %s is none", name);
        }
    }
    return 0;
}

static int batch_begin(struct talk_kafka *k, int32_t partition, size_t body_len)
{
    size_t need = BATCH_MAX + body_len + (64u << 10);
    if (need > k->cap) {
        uint8_t *grown = mem_realloc(k->room, need);
        if (!grown)
            return talk_fail(&k->talk, "out of memory");
        k->room = grown;
        k->cap = need;
    }
    struct record_batch head = record_batch_head(0, now_wall());
    k->writer = writer_of(k->room, k->cap);
    record_batch_begin(&k->batch, &k->writer, &head);
    k->batch_open = true;
    k->partition = partition;
    return 0;
}

static int talk_publish(struct talk *t, const struct talk_message *message)
{
    struct talk_kafka *k = of_talk(t);
    struct record_header headers[HEADERS_MAX];
    char texts[HEADERS_MAX][32];
    uint32_t count;
    const char *text = t->options->key ? t->options->key : json_string_value(json_object_get(message->about, "key"));
    struct slice key = slice_str(text ? text : "");
    if (topic_open(k) != 0 || headers_of(k, json_object_get(message->about, "properties"), headers, texts, &count) != 0)
        return -1;
    int32_t partition = t->options->partition >= 0 ? (int32_t)t->options->partition
                        : text                     ? (int32_t)murmur2_partition(key, (uint32_t)k->partitions)
                                                   : k->partition;
    bool full =
        k->batch_open && (k->partition != partition || record_batch_len(&k->batch) + message->body.len > BATCH_MAX);
    if (full && send_batch(k) != 0)
        return -1;
    if (full && !text && t->options->partition < 0)
        partition = k->partition;
    if (!k->batch_open && batch_begin(k, partition, message->body.len) != 0)
        return -1;
    if (!record_batch_put(&k->batch, now_wall(), text ? &key : NULL, &message->body, headers, count))
        return talk_fail(t, "the record is too large");
    t->published++;
    return 0;
}

static int talk_flush(struct talk *t)
{
    return send_batch(of_talk(t));
}

/* ---- reading: where to begin ---- */

static int offsets_at(struct talk_kafka *k, int64_t time)
{
    return bench_kafka_offsets(&k->wire, k->talk.options->name, k->numbers, k->count, time, k->offsets) == 0
               ? 0
               : wire_failed(k);
}

/* So many before the end, but not before the beginning. */
static int offsets_before_end(struct talk_kafka *k, int64_t before)
{
    int64_t *first = mem_alloc((size_t)k->count * sizeof *first);
    if (!first)
        return talk_fail(&k->talk, "out of memory");
    int failed = offsets_at(k, TIME_FIRST);
    memcpy(first, k->offsets, (size_t)k->count * sizeof *first);
    if (failed == 0)
        failed = offsets_at(k, TIME_NEXT);
    for (int32_t i = 0; i < k->count && failed == 0; i++)
        k->offsets[i] = k->offsets[i] - before > first[i] ? k->offsets[i] - before : first[i];
    mem_free(first);
    return failed;
}

static int offsets_since(struct talk_kafka *k, wall_t time)
{
    int64_t *since = mem_alloc((size_t)k->count * sizeof *since);
    if (!since)
        return talk_fail(&k->talk, "out of memory");
    int failed = offsets_at(k, time);
    memcpy(since, k->offsets, (size_t)k->count * sizeof *since);
    if (failed == 0)
        failed = offsets_at(k, TIME_NEXT);
    for (int32_t i = 0; i < k->count && failed == 0; i++)
        if (since[i] >= 0)
            k->offsets[i] = since[i];
    mem_free(since);
    return failed;
}

static int find_offsets(struct talk_kafka *k)
{
    const struct talk_options *o = k->talk.options;
    char *end;
    wall_t time;
    if (!o->from)
        return o->last ? offsets_before_end(k, o->last) : offsets_at(k, TIME_NEXT);
    if (strcmp(o->from, "first") == 0)
        return offsets_at(k, TIME_FIRST);
    if (strcmp(o->from, "next") == 0)
        return offsets_at(k, TIME_NEXT);
    if (strcmp(o->from, "last") == 0)
        return offsets_before_end(k, 1);
    unsigned long long offset = strtoull(o->from, &end, 10);
    if (end != o->from && *end == '\0') {
        if (k->count > 1)
            return talk_fail(&k->talk, "an offset is one partition's, and %s has %d: add --partition", o->name,
                             k->count);
        k->offsets[0] = (int64_t)offset;
        return 0;
    }
    if (talk_time_parse(o->from, now_wall(), &time))
        return offsets_since(k, time);
    return talk_fail(&k->talk, "%s is not first, last, next, an offset, a time or an interval", o->from);
}

static int talk_subscribe(struct talk *t)
{
    struct talk_kafka *k = of_talk(t);
    if (topic_open(k) != 0)
        return -1;
    k->count = t->options->partition >= 0 ? 1 : k->partitions;
    k->numbers = mem_alloc((size_t)k->count * sizeof *k->numbers);
    k->offsets = mem_zalloc((size_t)k->count * sizeof *k->offsets);
    k->z = compress_new();
    if (!k->numbers || !k->offsets || !k->z)
        return talk_fail(t, "out of memory");
    for (int32_t i = 0; i < k->count; i++)
        k->numbers[i] = t->options->partition >= 0 ? (int32_t)t->options->partition : i;
    return find_offsets(k);
}

/* ---- reading ---- */

static int fetch(struct talk_kafka *k, int64_t wait_ms)
{
    struct kafka_fetch_request_partition *rows = mem_zalloc((size_t)k->count * sizeof *rows);
    struct kafka_fetch_request_topic topic = {.topic = slice_str(k->talk.options->name),
                                              .partitions = {.at = rows, .count = k->count}};
    struct kafka_fetch_request ask = {.replica_id = -1,
                                      .max_wait_ms = (int32_t)wait_ms,
                                      .min_bytes = 1,
                                      .max_bytes = FETCH_MAX,
                                      .isolation_level = 1,
                                      .session_epoch = -1,
                                      .rack_id = slice_str(""),
                                      .topics = {.at = &topic, .count = 1}};
    void *found = NULL;
    k->answer = NULL;
    k->at = NULL;
    k->batches = reader_of(slice_of(NULL, 0));
    k->records = (struct record_reader){0};
    if (!rows)
        return talk_fail(&k->talk, "out of memory");
    for (int32_t i = 0; i < k->count; i++)
        rows[i] = (struct kafka_fetch_request_partition){.partition = k->numbers[i],
                                                         .current_leader_epoch = -1,
                                                         .fetch_offset = k->offsets[i],
                                                         .log_start_offset = -1,
                                                         .partition_max_bytes = FETCH_MAX};
    int failed = bench_kafka_ask(&k->wire, KAFKA_API_fetch, &ask, &found);
    mem_free(rows);
    if (failed != 0)
        return wire_failed(k);
    k->answer = found;
    k->row = -1;
    return k->answer->error_code ? refused(k, "reading", k->answer->error_code) : 0;
}

static int64_t *offset_of(struct talk_kafka *k, int32_t partition)
{
    for (int32_t i = 0; i < k->count; i++)
        if (k->numbers[i] == partition)
            return &k->offsets[i];
    return NULL;
}

/* 1: on to the next partition of the answer; 0: that was the last. */
static int next_row(struct talk_kafka *k)
{
    if (!k->answer || k->answer->responses.count != 1 || ++k->row >= k->answer->responses.at[0].partitions.count)
        return 0;
    k->at = &k->answer->responses.at[0].partitions.at[k->row];
    if (k->at->error_code)
        return refused(k, "reading", k->at->error_code);
    if (!offset_of(k, k->at->partition_index))
        return talk_fail(&k->talk, "the server sent a partition that was not asked for");
    mem_free(k->ended);
    k->ended = mem_zalloc((size_t)k->at->aborted_transactions.count + 1);
    k->batches = reader_of(k->at->records);
    return k->ended ? 1 : talk_fail(&k->talk, "out of memory");
}

/* Was the transaction of this batch aborted? Its end ends that. */
static bool is_aborted(struct talk_kafka *k, const struct record_batch *batch)
{
    bool aborted = false;
    for (int32_t i = 0; i < k->at->aborted_transactions.count; i++) {
        const struct kafka_fetch_response_aborted_transaction *row = &k->at->aborted_transactions.at[i];
        if (row->producer_id != batch->producer_id || row->first_offset > batch->base_offset || k->ended[i])
            continue;
        aborted = true;
        k->ended[i] = batch->control;
    }
    return aborted && batch->transactional;
}

/* 1: the next batch is open; 0: there is no whole one left in this partition. */
static int next_batch(struct talk_kafka *k)
{
    struct record_batch batch;
    struct slice whole;
    if (!k->batches.left)
        return 0;
    enum record_verdict verdict = record_batch_take(&k->batches, &batch, &whole);
    if (verdict == RECORD_END || verdict == RECORD_SHORT) /* the last one may be cut off */
        return 0;
    if (verdict != RECORD_OK || !record_batch_crc_ok(whole))
        return talk_fail(&k->talk, "the server sent a damaged batch after offset %lld of partition %d",
                         (long long)*offset_of(k, k->at->partition_index), k->at->partition_index);
    bool passed_over = is_aborted(k, &batch) || batch.control;
    if (passed_over) {
        k->records = (struct record_reader){0};
        *offset_of(k, k->at->partition_index) = record_batch_last_offset(&batch) + 1;
        return 1;
    }
    verdict = record_batch_open(whole, k->z, UNPACKED_MAX, &batch, &k->records);
    return verdict == RECORD_OK ? 1 : talk_fail(&k->talk, "a batch cannot be unpacked: it is damaged or too large");
}

static json_t *headers_json(const struct record *record)
{
    json_t *headers = json_object();
    struct slice left = record->headers;
    struct record_header header;
    while (headers && record_header_next(&left, &header)) {
        char name[256];
        snprintf(name, sizeof name, "%.*s", SLICE_ARG(header.key));
        json_object_set_new(headers, name, header.has_value ? text_to_json(header.value) : json_null());
    }
    return headers;
}

static json_t *about_record(const struct talk_kafka *k, const struct record *record)
{
    json_t *about =
        json_pack("{s:s, s:i, s:I, s:I}", "topic", k->talk.options->name, "partition", k->at->partition_index, "offset",
                  (json_int_t)record->offset, "timestamp", (json_int_t)record->timestamp);
    if (about && record->has_key)
        json_object_set_new(about, "key", text_to_json(record->key));
    if (about && !record->has_value)
        json_object_set_new(about, "tombstone", json_true());
    if (about && record->header_count)
        json_object_set_new(about, "properties", json_pack("{s:o}", "headers", headers_json(record)));
    return about;
}

/* 1: the next record of what was fetched; 0: there is none. */
static int take_record(struct talk_kafka *k, struct talk_message *ret)
{
    struct record record;
    for (;;) {
        while (k->records.left && record_next(&k->records, &record)) {
            int64_t *offset = offset_of(k, k->at->partition_index);
            if (record.offset < *offset)
                continue; /* a fetch gives whole batches */
            *offset = record.offset + 1;
            *ret = (struct talk_message){.about = about_record(k, &record), .body = record.value};
            return ret->about ? 1 : talk_fail(&k->talk, "out of memory");
        }
        int got = k->at ? next_batch(k) : 0;
        if (got == 0)
            got = next_row(k);
        if (got <= 0)
            return got;
    }
}

static int talk_next(struct talk *t, int64_t wait_ms, struct talk_message *ret)
{
    struct talk_kafka *k = of_talk(t);
    struct os *os = os_posix();
    mono_t until = wait_ms < 0 ? MONO_NEVER : os->now_mono(os) + wait_ms * NS_PER_MS;
    for (;;) {
        int got = take_record(k, ret);
        int64_t left = until == MONO_NEVER ? FETCH_WAIT_MS : (until - os->now_mono(os)) / NS_PER_MS;
        if (got != 0 || (left <= 0 && k->answer))
            return got;
        if (fetch(k, left < 0 ? 0 : left < FETCH_WAIT_MS ? left : FETCH_WAIT_MS) != 0)
            return -1;
    }
}

static int talk_done(struct talk *t)
{
    (void)t;
    return 0;
}

const struct talk_protocol talk_kafka = {
    .name = "kafka",
    .port = 9092,
    .tls_port = 9093,
    .open = talk_open,
    .publish = talk_publish,
    .flush = talk_flush,
    .subscribe = talk_subscribe,
    .next = talk_next,
    .done = talk_done,
    .close = talk_close,
};
