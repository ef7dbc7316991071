/* Updates of a compacted topic and what must be left of them; see keyed_chain.h.
 *
 *   Y1  records stand at the offsets that were answered, each once, ascending, as they were sent
 *   Y2  of each key the last value is there, or a later one; where that is a null value, it may be gone
 *   Y3  but only with everything older of its key: what was deleted does not come back
 */
#include "keyed_chain.h"

#include <stdio.h>
#include <stdlib.h>

#include "fmt/amqp_table.h"
#include "fmt/record_batch.h"
#include "kafka_chain_int.h"

#define TOPIC "kt"
#define ID_HEADER "id"
#define KEYED_BUSY 3u /* keys with most of the updates */
#define BATCH_RECORDS 4u
#define VALUE_MAX 16000u
#define NOBODY UINT32_MAX

static bool wrong(const struct guest *g)
{
    return g->w->model->wrong[0] != 0;
}

/* ---- updates ---- */

static void put_record(struct keyed_chain *c, struct guest *g, struct record_batch_writer *batch)
{
    static uint8_t value[VALUE_MAX];
    uint32_t id = ++c->count;
    struct keyed_record *r = &c->records[id];
    *r = (struct keyed_record){.key = (uint8_t)world_pick(g->w, world_pick(g->w, 3) ? KEYED_BUSY : KEYED_KEYS),
                               .null = world_pick(g->w, 6) == 0,
                               .len = (uint16_t)(1 + world_pick(g->w, VALUE_MAX))};
    uint8_t key = (uint8_t)('a' + r->key),
            raw[4] = {(uint8_t)(id >> 24), (uint8_t)(id >> 16), (uint8_t)(id >> 8), (uint8_t)id};
    struct slice k = slice_of(&key, 1), v = slice_of(value, r->len);
    struct record_header header = {.key = slice_str(ID_HEADER), .has_value = true, .value = slice_of(raw, sizeof raw)};
    memset(value, (int)(id & 0xff), r->len);
    if (!record_batch_put(batch, batch->head.base_timestamp, &k, r->null ? NULL : &v, &header, 1))
        abort();
    c->updates++;
    c->nulls += r->null;
}

static void own(struct keyed_chain *c, struct guest *g, uint64_t offset, uint32_t id)
{
    unsigned long long at = offset;
    if (offset >= KEYED_OFFSETS || (c->owner[offset] && c->owner[offset] != id)) {
        model_fault(g->w->model, "record %u of the compacted topic is at offset %llu, where %u was", id, at,
                    offset < KEYED_OFFSETS ? c->owner[offset] : 0); /* Y1 */
        return;
    }
    c->owner[offset] = id;
    c->end = offset + 1 > c->end ? (uint32_t)offset + 1 : c->end;
}

static bool update(struct keyed_chain *c, struct kafka_chain *k, struct guest *g)
{
    static uint8_t bytes[BATCH_RECORDS * (VALUE_MAX + 100)];
    struct writer w = writer_of(bytes, sizeof bytes);
    struct record_batch_writer batch;
    struct record_batch head = record_batch_head(0, g->w->os->now_wall(g->w->os));
    uint32_t first = c->count + 1, count = 1 + world_pick(g->w, BATCH_RECORDS);
    if (first + count >= KEYED_RECORDS || c->end + 64 > KEYED_OFFSETS)
        return false;
    record_batch_begin(&batch, &w, &head);
    for (uint32_t i = 0; i < count; i++)
        put_record(c, g, &batch);
    struct kafka_produce_request_partition part = {.records = record_batch_finish(&batch, -1)};
    struct kafka_produce_request_topic topic = {.name = slice_str(TOPIC), .partition_data = {&part, 1}};
    const struct kafka_produce_response *said =
        ANSWER(g, produce, 9, .acks = -1, .timeout_ms = 1000, .topic_data = {&topic, 1});
    if (!said || said->responses.count != 1 || said->responses.at[0].partition_responses.count != 1)
        return kafka_chain_refused(k, g, "Produce to a compacted topic", 0);
    const struct kafka_produce_response_partition *row = &said->responses.at[0].partition_responses.at[0];
    if (row->error_code)
        return kafka_chain_refused(k, g, "Produce to a compacted topic", row->error_code);
    for (uint32_t i = 0; i < count; i++)
        own(c, g, (uint64_t)row->base_offset + i, first + i);
    return !wrong(g);
}

/* Now and then with so much time between that null values may go. */
void keyed_chain_op(struct keyed_chain *c, struct kafka_chain *k, struct guest *g)
{
    for (unsigned n = 1 + world_pick(g->w, 8); n && update(c, k, g); n--)
        world_turns(g->w, world_pick(g->w, 8));
    if (world_pick(g->w, 3) == 0)
        os_sim_clock_advance(g->w->disk, 2 * NS_PER_S);
}

/* ---- comparing ---- */

struct look {
    bool there[KEYED_OFFSETS];
    uint64_t last[KEYED_KEYS]; /* offset + 1 of the last record that is there */
    uint64_t next, end;
};

static uint32_t id_of(const struct record *record)
{
    struct slice headers = record->headers;
    struct record_header header;
    if (record->header_count != 1 || !record_header_next(&headers, &header) || header.value.len != 4)
        return 0;
    const uint8_t *p = header.value.ptr;
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static bool as_sent(const struct keyed_chain *c, uint32_t id, const struct record *record)
{
    const struct keyed_record *r = &c->records[id];
    bool key = record->has_key && record->key.len == 1 && record->key.ptr[0] == 'a' + r->key;
    if (!key || record->has_value == r->null)
        return false;
    return r->null || (record->value.len == r->len && record->value.ptr[0] == (id & 0xff) &&
                       record->value.ptr[r->len - 1] == (id & 0xff));
}

static void see(struct keyed_chain *c, struct guest *g, struct look *l, const struct record *record)
{
    uint64_t offset = (uint64_t)record->offset;
    uint32_t id = id_of(record);
    if (!id || id > c->count || offset >= KEYED_OFFSETS || offset < l->next || !as_sent(c, id, record)) {
        model_fault(g->w->model, "the compacted topic has record %u at %llu, behind %llu, not as it was sent", id,
                    (unsigned long long)offset, (unsigned long long)l->next); /* Y1 */
        return;
    }
    own(c, g, offset, id);
    l->there[offset] = true;
    l->last[c->records[id].key] = offset + 1;
    l->next = offset + 1;
}

static bool see_all(struct keyed_chain *c, struct guest *g, struct look *l, struct slice bytes)
{
    struct reader r = reader_of(bytes);
    struct record_batch batch;
    struct slice one;
    uint64_t before = l->next;
    while (record_batch_take(&r, &batch, &one) == RECORD_OK && !wrong(g)) {
        struct record_reader in_it;
        struct record record;
        if (!record_batch_crc_ok(one) || record_batch_open(one, NULL, 0, &batch, &in_it) != RECORD_OK) {
            model_fault(g->w->model, "a batch of the compacted topic is damaged");
            return false;
        }
        while (record_next(&in_it, &record))
            see(c, g, l, &record);
        uint64_t behind = (uint64_t)record_batch_last_offset(&batch) + 1;
        l->next = behind > l->next ? behind : l->next;
    }
    return l->next > before && !wrong(g);
}

static bool read_all(struct keyed_chain *c, struct kafka_chain *k, struct guest *g, struct look *l)
{
    do {
        struct kafka_fetch_request_partition row = {.current_leader_epoch = -1,
                                                    .last_fetched_epoch = -1,
                                                    .fetch_offset = (int64_t)l->next,
                                                    .partition_max_bytes = 100000};
        struct kafka_fetch_request_topic topic = {.topic = slice_str(TOPIC), .partitions = {&row, 1}};
        const struct kafka_fetch_response *said =
            ANSWER(g, fetch, 11, .replica_id = -1, .max_wait_ms = 500, .min_bytes = 1, .max_bytes = 100000,
                   .session_epoch = -1, .topics = {&topic, 1}, .rack_id = slice_str(""));
        if (!said || said->responses.count != 1 || said->responses.at[0].partitions.count != 1)
            return kafka_chain_refused(k, g, "Fetch of a compacted topic", 0);
        const struct kafka_fetch_response_partition *got = &said->responses.at[0].partitions.at[0];
        if (got->error_code)
            return kafka_chain_refused(k, g, "Fetch of a compacted topic", got->error_code);
        l->end = (uint64_t)got->high_watermark;
        if (l->next < l->end && !see_all(c, g, l, got->records))
            return kafka_chain_refused(k, g, "a Fetch of a compacted topic that gives nothing", -1);
    } while (l->next < l->end);
    return true;
}

/* The last that is known of a key; NOBODY: nothing is. */
static uint32_t last_known(const struct keyed_chain *c, uint8_t key)
{
    for (uint32_t at = c->end; at-- > 0;)
        if (c->owner[at] && c->records[c->owner[at]].key == key)
            return at;
    return NOBODY;
}

void keyed_chain_compare(struct keyed_chain *c, struct kafka_chain *k, struct guest *g)
{
    static struct look look;
    look = (struct look){0};
    if (!read_all(c, k, g, &look))
        return;
    if (look.end < c->end)
        model_fault(g->w->model, "the compacted topic ends at %llu; %u was known", (unsigned long long)look.end,
                    c->end);
    for (uint8_t key = 0; key < KEYED_KEYS && !wrong(g); key++) {
        uint32_t at = last_known(c, key);
        bool null = at != NOBODY && c->records[c->owner[at]].null;
        if (at != NOBODY && look.last[key] < at + 1u && (!null || look.last[key]))
            model_fault(g->w->model,
                        "key %u of the compacted topic: its last value, at %u%s, is not there; the last one is at %lld",
                        key, at, null ? ", which is null" : "", (long long)look.last[key] - 1); /* Y2, Y3 */
    }
    c->missing = c->nulls_missing = 0;
    for (uint32_t at = 0; at < c->end; at++) {
        bool gone = c->owner[at] && !look.there[at];
        c->compared += look.there[at];
        c->missing += gone;
        c->nulls_missing += gone && c->records[c->owner[at]].null && last_known(c, c->records[c->owner[at]].key) == at;
    }
}

void keyed_chain_furnish(struct world *w)
{
    uint8_t room[300];
    struct writer out = writer_of(room, sizeof room);
    amqp_put_str(&out, "x-queue-type", slice_str("stream"));
    amqp_put_str(&out, "x-cleanup-policy", slice_str("compact"));
    amqp_put_long(&out, "x-stream-max-segment-size-bytes", 65536);
    amqp_put_str(&out, "x-delete-retention", slice_str("1s"));
    client_queue_declare(&w->client, CH_CONFIRM, TOPIC, writer_slice(&out));
    (void)world_wait(w, ASKED(50, 11));
}
