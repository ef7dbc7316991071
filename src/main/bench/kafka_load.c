/* See bench/kafka_load.h.
 *
 *   request, version 7:  length 4, key 2, version 2, correlation id 4, client id, transactional id (null) 2, acks 2,
 *                        time-out 4, one topic: 4, name, one partition: 4, its number 4, length of the batch 4, the batch
 *
 * The model is made once by proto/kafka and fmt/record_batch; the places of what is patched follow from the end of the head
 * and from record_batch.h. All timestamps of a batch are its base timestamp, so no record's length depends on them.
 */
#include "kafka_load.h"

#include "base/writer.h"
#include "command.h"
#include "fmt/crc32c.h"
#include "fmt/record_batch.h"
#include "kafka_wire.h"
#include "stamp.h"

#include <stdlib.h>
#include <string.h>

enum {
    OUT_BYTES = 256 * 1024, /* what is written at once, where it is more than one request */
    PRODUCE_TIMEOUT_MS = 30000,
    AT_CORRELATION = 8,
    /* in a batch, see record_batch.h */
    AT_CRC = 17,
    AT_ATTRIBUTES = 21,
    AT_BASE_TIMESTAMP = 27,
    AT_MAX_TIMESTAMP = 35,
    AT_SEQUENCE = 53,
};

static void set32(uint8_t *p, uint32_t v)
{
    v = htobe32(v);
    memcpy(p, &v, sizeof(v));
}

static void set64(uint8_t *p, uint64_t v)
{
    v = htobe64(v);
    memcpy(p, &v, sizeof(v));
}

/* Hexadecimal digits that do not repeat within a window of any codec: they pack to about half, as text does. */
static void fill(uint8_t *bytes, size_t len, uint64_t seed)
{
    uint64_t x = seed * 0x9E3779B97F4A7C15u + 1;
    for (size_t i = 0; i < len; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        bytes[i] = (uint8_t) "0123456789abcdef"[x >> 60];
    }
}

/* A batch of `records` values behind what w holds, and where each value begins in it. */
static bool batch_make(struct bench_kafka_load *l, struct writer *w)
{
    const struct bench_kafka_shape *shape = &l->shape;
    struct record_batch head = record_batch_head(0, 0);
    struct record_batch_writer batch;
    head.producer_id = shape->producer_id;
    head.producer_epoch = shape->producer_id < 0 ? -1 : shape->producer_epoch;
    head.base_sequence = shape->producer_id < 0 ? -1 : 0;
    size_t begin = w->len;
    record_batch_begin(&batch, w, &head);
    for (unsigned i = 0; i < shape->records; i++) {
        uint8_t *value;
        struct bench_stamp stamp = {.run_id = shape->run_id};
        if (!record_batch_room(&batch, 0, NULL, shape->record_bytes, NULL, 0, &value))
            return false;
        fill(value, shape->record_bytes, i + 1u);
        if (l->stamped) {
            memcpy(value, &stamp, sizeof(stamp));
            l->stamps_at[i] = (uint32_t)(value - w->base - begin);
        }
    }
    record_batch_finish(&batch, -1);
    return writer_ok(w);
}

/* The request up to its batch, whose length is filled in later. */
static void head_make(const struct bench_kafka_load *l, struct writer *w)
{
    const struct kafka_api *api = kafka_api_find(KAFKA_API_produce);
    struct kafka_form form = kafka_api_form(api, BENCH_KAFKA_PRODUCE_VERSION);
    struct kafka_produce_request_partition partition = {.records = slice_str("")};
    struct kafka_produce_request_topic topic = {.name = slice_str(l->shape.topic)};
    struct kafka_produce_request ask = {.acks = (int16_t)l->shape.acks, .timeout_ms = PRODUCE_TIMEOUT_MS};
    topic.partition_data.at = &partition;
    topic.partition_data.count = 1;
    ask.topic_data.at = &topic;
    ask.topic_data.count = 1;
    size_t mark = kafka_request_begin(w, api, form, 0, slice_str(BENCH_KAFKA_CLIENT));
    kafka_encode(w, api->request, form, &ask, NULL);
    kafka_request_end(w, mark);
}

/* Length fields of a request at `bytes` whose batch has taken batch_len. */
static void lengths_set(const struct bench_kafka_load *l, uint8_t *bytes, size_t batch_len)
{
    set32(bytes, (uint32_t)(l->head_len + batch_len - KAFKA_LENGTH_BYTES));
    set32(bytes + l->head_len - 4, (uint32_t)batch_len);
}

/* The model's batch packed behind a copy of its head. */
static int request_pack(struct bench_kafka_load *l, struct writer *w)
{
    size_t begin = w->len;
    writer_put(w, l->model, l->head_len);
    if (!writer_ok(w) || record_batch_repack(slice_of(l->model + l->head_len, l->model_len - l->head_len),
                                             l->shape.compression, l->shape.level, l->z, l->model_len, w) != RECORD_OK)
        return -1;
    lengths_set(l, w->base + begin, w->len - begin - l->head_len);
    return 0;
}

static int model_make(struct bench_kafka_load *l)
{
    /* 61 before the records, at most 40 around each value, and a head with names of at most 249 bytes */
    size_t room = 1024 + (size_t)l->shape.records * (l->shape.record_bytes + 40);
    if (room > INT32_MAX || (l->model = malloc(room)) == NULL)
        return -1;
    struct writer w = writer_of(l->model, room);
    head_make(l, &w);
    l->head_len = w.len;
    if (!writer_ok(&w) || !batch_make(l, &w))
        return -1;
    l->model_len = w.len;
    lengths_set(l, l->model, w.len - l->head_len);
    return 0;
}

static int slots_make(struct bench_kafka_load *l)
{
    bool packed = l->shape.compression != COMPRESS_NONE;
    size_t most = l->head_len + RECORD_BATCH_HEADER + compress_pack_max(l->shape.compression, l->model_len);
    if (!packed)
        most = l->model_len;
    l->fixed = !packed || l->shape.prebuilt;
    l->slot_max = OUT_BYTES / most > 0 ? (unsigned)(OUT_BYTES / most) : 1;
    if (l->shape.slots_max > 0 && l->slot_max > l->shape.slots_max)
        l->slot_max = l->shape.slots_max;
    l->cap = l->slot_max * most;
    if ((l->out = malloc(l->cap)) == NULL)
        return -1;
    struct writer w = writer_of(l->out, l->cap);
    for (unsigned i = 0; l->fixed && i < l->slot_max; i++) {
        if (!packed)
            writer_put(&w, l->model, l->model_len);
        else if (request_pack(l, &w) != 0)
            return -1;
        l->slot_len = w.len / (i + 1u);
    }
    l->batch_bytes = l->slot_len - l->head_len;
    return writer_ok(&w) ? 0 : -1;
}

int bench_kafka_load_init(struct bench_kafka_load *l, const struct bench_kafka_shape *shape)
{
    memset(l, 0, sizeof(*l));
    l->shape = *shape;
    l->stamped = !shape->prebuilt && shape->record_bytes >= BENCH_STAMP_BYTES;
    l->stamps_at = bench_zeroed(shape->records, sizeof(*l->stamps_at));
    if (shape->compression != COMPRESS_NONE && (l->z = compress_new()) == NULL)
        return -1;
    return model_make(l) != 0 ? -1 : slots_make(l);
}

void bench_kafka_load_fini(struct bench_kafka_load *l)
{
    compress_free(&l->z);
    free(l->stamps_at);
    free(l->model);
    free(l->out);
    memset(l, 0, sizeof(*l));
}

static void records_stamp(const struct bench_kafka_load *l, uint8_t *batch, const struct bench_kafka_send *send)
{
    struct bench_stamp stamp = {.run_id = l->shape.run_id, .producer = send->stream, .sent_ns = send->sent_ns};
    for (unsigned i = 0; i < l->shape.records; i++) {
        stamp.seq = send->first_seq + i;
        memcpy(batch + l->stamps_at[i], &stamp, sizeof(stamp));
    }
}

static void batch_patch(const struct bench_kafka_load *l, uint8_t *batch, size_t len,
                        const struct bench_kafka_send *send)
{
    set64(batch + AT_BASE_TIMESTAMP, (uint64_t)send->wall_ms);
    set64(batch + AT_MAX_TIMESTAMP, (uint64_t)send->wall_ms);
    if (l->shape.producer_id >= 0)
        set32(batch + AT_SEQUENCE, (uint32_t)send->base_sequence);
    set32(batch + AT_CRC, crc32c(0, batch + AT_ATTRIBUTES, len - AT_ATTRIBUTES));
}

int bench_kafka_load_put(struct bench_kafka_load *l, const struct bench_kafka_send *send)
{
    uint8_t *request = l->out + l->end;
    struct writer w = writer_of(l->out, l->cap);
    w.len = l->end;
    if (l->fixed) {
        w.len += l->slot_len;
        if (l->stamped)
            records_stamp(l, request + l->head_len, send);
    } else {
        if (l->stamped)
            records_stamp(l, l->model + l->head_len, send);
        if (request_pack(l, &w) != 0)
            return -1;
        l->batch_bytes = w.len - l->end - l->head_len;
    }
    set32(request + AT_CORRELATION, (uint32_t)send->correlation_id);
    set32(request + l->head_len - 8, (uint32_t)send->partition);
    batch_patch(l, request + l->head_len, w.len - l->end - l->head_len, send);
    l->end = w.len;
    l->slot_count++;
    return 0;
}
