/* rig: a Kafka connection on a table: structs in, structs out, and behind it the real core on a journal and a stream store
 * in memory (core/broker_rig_test.h). For this folder's tests only. */
#ifndef MILLRACE_PROTO_KAFKA_RIG_TEST_H
#define MILLRACE_PROTO_KAFKA_RIG_TEST_H

#include "core/broker_words_test.h"
#include "fmt/record_batch.h"
#include "proto/kafka/kafka_int.h"

#define KRIG_BYTES (4u << 20)

struct krig {
    struct rig *core;
    struct hub *hub;
    struct kafka_options options;
    struct kafka_peer peer;
    struct engine *engine; /* NULL: closed */
    struct list dirty;
    bool refuse_login;
    uint8_t *in, *out; /* not consumed yet; not taken yet */
    size_t in_len, out_len;
    struct arena arena; /* of answers, until the next krig_open or krig_free */
    int32_t sent, answered;
    struct kafka_form forms[256]; /* of what was asked, by correlation id */
    const struct kafka_api *asked[256];
};

static const uint8_t krig_uuid[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

RIG_FN wall_t krig_wall(void *arg)
{
    return ((struct krig *)arg)->core->wall;
}

RIG_FN void krig_open(struct krig *k)
{
    assert_null(k->engine);
    k->in_len = k->out_len = 0;
    k->sent = k->answered = 0;
    k->engine = kafka_new(&k->options, k->hub, &k->peer, k->core->now);
    if (!k->engine)
        return; /* no memory */
    k->engine->dirty = &k->dirty;
    k->engine->next_tick = k->engine->ops->tick(k->engine, k->core->now);
}

RIG_FN void krig_close(struct krig *k)
{
    if (k->engine)
        k->engine->ops->closed(k->engine);
    k->engine = NULL;
}

/* On a broker that has what the log has, which is its own from now on. */
RIG_FN struct krig *krig_on(struct rig_log *log)
{
    struct krig *k = calloc(1, sizeof *k);
    k->core = rig_new(log, NULL, 1700000000000);
    k->hub = hub_new(broker_port(k->core->b, 0), broker_heap(k->core->b), 16);
    k->options = kafka_options_default();
    k->options.uuid = krig_uuid;
    k->options.cluster_id = "AQIDBAUGBwgJCgsMDQ4PEA";
    k->options.wall = krig_wall;
    k->options.wall_arg = k;
    k->peer = (struct kafka_peer){"127.0.0.1:5", "127.0.0.1", 9092, true};
    k->in = malloc(KRIG_BYTES);
    k->out = malloc(KRIG_BYTES);
    list_init(&k->dirty);
    arena_init(&k->arena, KRIG_BYTES);
    krig_open(k);
    assert_non_null(k->engine);
    return k;
}

RIG_FN struct krig *krig_new(void)
{
    return krig_on(rig_log_new());
}

/* ---- driving ---- */

RIG_FN void krig_worker(struct krig *k)
{
    struct effect *e;
    struct port *p = broker_port(k->core->b, 1);
    if (!k->refuse_login) {
        rig_worker(k->core);
        return;
    }
    while ((e = ring_peek(&p->effects))) {
        struct effect taken = *e;
        ring_pop(&p->effects);
        mem_free(taken.answer);
        rig_command(k->core, 1, CMD_VERIFIED, 0, 0)->number = taken.number;
        ring_publish(&p->commands);
    }
}

RIG_FN void krig_take_out(struct krig *k)
{
    struct outq *q = &k->engine->out;
    struct iovec v;
    struct file_piece piece;
    while (q->len) {
        bool file = outq_peek_file(q, &piece);
        if (!file)
            assert_int_equal(outq_peek(q, &v, 1), 1);
        size_t len = file ? piece.len : v.iov_len;
        assert_true(k->out_len + len <= KRIG_BYTES);
        if (file)
            assert_int_equal(piece.file->read(piece.file, k->out + k->out_len, len, piece.position), len);
        else
            memcpy(k->out + k->out_len, v.iov_base, len);
        k->out_len += len;
        outq_consume(q, len);
    }
}

/* One round of everybody. True: something moved. */
RIG_FN bool krig_turn(struct krig *k)
{
    struct rig *core = k->core;
    size_t before = core->log->count;
    bool moved = hub_publish(k->hub);
    if (!core->hold)
        core->durable = core->log->count;
    moved |= broker_step(core->b, core->now, core->wall, core->durable);
    krig_worker(k);
    rig_store_serve(core->b, core->log, 64);
    rig_streams_serve(core->b, core->log->streams, 3, 64);
    moved |= !ring_empty(&broker_port(core->b, 0)->effects) || before != core->log->count ||
             !ring_empty(&broker_port(core->b, 1)->commands) || !ring_empty(&broker_port(core->b, 3)->commands);
    hub_turn(k->hub, core->durable, core->now);
    if (!k->engine)
        return moved;
    while (!list_empty(&k->dirty))
        list_remove(k->dirty.next);
    k->engine->in_dirty = false;
    k->engine->now = core->now;
    if (k->in_len && !k->engine->paused && !k->engine->want_close) {
        size_t used = k->engine->ops->feed(k->engine, slice_of(k->in, k->in_len));
        memmove(k->in, k->in + used, k->in_len - used);
        k->in_len -= used;
        moved |= used > 0;
    }
    if (k->engine->out.len) {
        krig_take_out(k);
        k->engine->ops->drained(k->engine);
        moved = true;
    }
    if (k->engine->want_close || k->engine->out.failed) {
        krig_close(k);
        moved = true;
    }
    return moved;
}

RIG_FN void krig_settle(struct krig *k)
{
    for (unsigned i = 0, still = 0; i < 10000 && still < 3; i++)
        still = krig_turn(k) ? 0 : still + 1;
}

/* Time goes by in steps, after each of which everybody does what is due. */
RIG_FN void krig_pass_in(struct krig *k, int64_t ms, int64_t step)
{
    for (int64_t done = 0; done < ms; done += step) {
        k->core->now += step * NS_PER_MS;
        k->core->wall += step;
        if (k->engine && k->core->now >= k->engine->next_tick)
            k->engine->next_tick = k->engine->ops->tick(k->engine, k->core->now);
        krig_settle(k);
    }
}

RIG_FN void krig_pass(struct krig *k, int64_t ms)
{
    krig_pass_in(k, ms, 5);
}

RIG_FN void krig_free(struct krig *k)
{
    krig_close(k);
    krig_settle(k);
    hub_free(&k->hub);
    struct rig_log *log = k->core->log;
    rig_free(k->core);
    rig_log_free(log);
    arena_fini(&k->arena);
    free(k->in);
    free(k->out);
    free(k);
}

/* ---- asking ---- */

RIG_FN void krig_bytes(struct krig *k, const void *bytes, size_t len)
{
    assert_true(k->in_len + len <= KRIG_BYTES);
    memcpy(k->in + k->in_len, bytes, len);
    k->in_len += len;
}

/* Puts the request behind what was not consumed yet; its correlation id is the number of requests so far. */
RIG_FN void krig_put(struct krig *k, int16_t key, uint8_t version, const void *message)
{
    const struct kafka_api *api = kafka_api_find(key);
    struct kafka_form form = kafka_api_form(api, version);
    struct writer w = writer_of(k->in + k->in_len, KRIG_BYTES - k->in_len);
    size_t mark = kafka_request_begin(&w, api, form, k->sent, slice_str("rig"));
    kafka_encode(&w, api->request, form, message, NULL);
    kafka_request_end(&w, mark);
    assert_true(writer_ok(&w));
    k->in_len += w.len;
    k->asked[k->sent & 255] = api;
    k->forms[k->sent++ & 255] = form;
}

/* The next answer, which must be that of the oldest question; NULL: none has come. */
RIG_FN const void *krig_take(struct krig *k)
{
    struct reader r = reader_of(slice_of(k->out, k->out_len));
    struct slice frame = reader_str32(&r), body;
    if (!reader_ok(&r))
        return NULL;
    const struct kafka_api *api = k->asked[k->answered & 255];
    struct kafka_form form = k->forms[k->answered & 255];
    int32_t correlation_id;
    uint8_t *copy = arena_take(&k->arena, frame.len);
    assert_non_null(copy);
    memcpy(copy, frame.ptr, frame.len);
    assert_true(kafka_response_head(slice_of(copy, frame.len), api, form, &correlation_id, &body));
    assert_int_equal(correlation_id, k->answered);
    k->answered++;
    void *message = arena_take(&k->arena, api->response->struct_len);
    assert_int_equal(kafka_decode(api->response, form, body, &k->arena, message), KAFKA_OK);
    memmove(k->out, k->out + KAFKA_LENGTH_BYTES + frame.len, k->out_len - KAFKA_LENGTH_BYTES - frame.len);
    k->out_len -= KAFKA_LENGTH_BYTES + frame.len;
    return message;
}

/* One question and its answer; NULL when none has come after all is at rest. */
RIG_FN const void *krig_ask(struct krig *k, int16_t key, uint8_t version, const void *message)
{
    krig_put(k, key, version, message);
    krig_settle(k);
    return krig_take(k);
}
#define KASK(k, name, version, ...)                                                                                    \
    ((const struct kafka_##name##_response *)krig_ask(k, KAFKA_API_##name, version,                                    \
                                                      &(struct kafka_##name##_request){__VA_ARGS__}))

/* ---- topics and batches ---- */

/* Through the core, on a session of its own. */
RIG_FN void krig_topic(struct krig *k, const char *name, unsigned partitions, bool compacts)
{
    struct table t;
    struct slice none = {0};
    struct ask *ask;
    amqp_put_str(&table(&t)->w, "x-queue-type", slice_str("stream"));
    if (compacts)
        amqp_put_str(&t.w, "x-cleanup-policy", slice_str("compact"));
    ask = ask_new(slice_str(name), none, none, writer_slice(&t.w));
    ask->number = partitions;
    struct kafka *engine = CONTAINER_OF(k->engine, struct kafka, session.engine);
    struct command *c = hub_command(k->hub, &engine->session);
    c->type = CMD_STREAM_CREATE;
    c->origin = UINT32_MAX; /* of no request: the engine drops its answer */
    c->ask = ask;
    krig_settle(k);
}

struct krig_batch {
    uint8_t bytes[4096];
    struct slice made;
};

/* count records with the numbers from first on as values, and as keys if keyed. */
RIG_FN struct slice krig_batch(struct krig *k, struct krig_batch *b, unsigned first, unsigned count, bool keyed)
{
    struct writer w = writer_of(b->bytes, sizeof b->bytes);
    struct record_batch head = record_batch_head(0, k->core->wall);
    struct record_batch_writer batch;
    record_batch_begin(&batch, &w, &head);
    for (unsigned i = first; i < first + count; i++) {
        char text[16];
        snprintf(text, sizeof text, "%u", i);
        struct slice value = slice_str(text);
        assert_true(record_batch_put(&batch, k->core->wall, keyed ? &value : NULL, &value, NULL, 0));
    }
    return b->made = record_batch_finish(&batch, -1);
}

/* A request with one batch for one partition; put, not asked. */
RIG_FN void krig_put_produce(struct krig *k, uint8_t version, int16_t acks, const char *topic, int32_t partition,
                             struct slice records)
{
    struct kafka_produce_request_partition part = {.index = partition, .records = records};
    struct kafka_produce_request_topic one = {.name = slice_str(topic), .partition_data = {&part, 1}};
    struct kafka_produce_request ask = {.acks = acks, .timeout_ms = 1000, .topic_data = {&one, 1}};
    krig_put(k, KAFKA_API_produce, version, &ask);
}

/* The one partition of the next answer; NULL: none has come. */
RIG_FN const struct kafka_produce_response_partition *krig_take_produced(struct krig *k)
{
    const struct kafka_produce_response *said = krig_take(k);
    if (!said)
        return NULL;
    assert_int_equal(said->responses.count, 1);
    assert_int_equal(said->responses.at[0].partition_responses.count, 1);
    return &said->responses.at[0].partition_responses.at[0];
}

RIG_FN const struct kafka_produce_response_partition *krig_produce(struct krig *k, const char *topic, int32_t partition,
                                                                   struct slice records)
{
    krig_put_produce(k, 9, -1, topic, partition, records);
    krig_settle(k);
    return krig_take_produced(k);
}

/* Logged in, by a question that needs it. */
RIG_FN struct krig *krig_ready(void)
{
    struct krig *k = krig_new();
    assert_non_null(KASK(k, init_producer_id, 1, .transaction_timeout_ms = 1000));
    return k;
}

/* What a damaged client may send: the storm's requests with some bytes changed, each time on a connection of its own. Nobody
 * else notices. */
RIG_FN void krig_damage(void (*storm)(struct krig *k), unsigned rounds)
{
    struct krig *k = krig_ready();
    uint64_t dice = 7, random;
    k->core->check = false;
    krig_topic(k, "t", 2, false);
    storm(k);
    size_t len = k->in_len;
    uint8_t *good = malloc(len);
    memcpy(good, k->in, len);
    k->in_len = 0;
    for (unsigned round = 0; round < rounds; round++) {
        krig_close(k);
        krig_settle(k);
        krig_open(k);
        krig_bytes(k, good, len);
        for (unsigned n = 0; n < 1 + round % 4; n++) {
            rig_random(&dice, &random, sizeof random);
            k->in[(random >> 16) % len] = (uint8_t)random;
        }
        krig_settle(k);
        arena_reset(&k->arena);
    }
    free(good);
    broker_check(k->core->b);
    rig_assert_replays(k->core);
    krig_close(k);
    krig_open(k);
    struct kafka_create_topics_request_topic topic = {
        .name = slice_str("after.all"), .num_partitions = 1, .replication_factor = 1};
    assert_int_equal(KASK(k, create_topics, 5, .topics = {&topic, 1})->topics.at[0].error_code, 0);
    krig_free(k);
}

#endif
