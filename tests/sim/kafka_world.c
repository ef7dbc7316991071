/* The Kafka client, see kafka_world.h. It speaks through the broker's own tables: that they are right is checked elsewhere. */
#include "kafka_world.h"

#include <stdlib.h>

#include "base/mem.h"
#include "fmt/record_batch.h"
#include "proto/kafka/api.h"
#include "proto/kafka/kafka_int.h"

#define ROOM (1u << 20)
#define TURNS_MAX 3000
#define TOPIC "kafka"

struct guest {
    struct world *w;
    struct kafka_options options;
    struct engine *engine; /* NULL: lost */
    uint8_t *in, *out;
    size_t in_len, out_len;
    struct arena arena; /* of answers */
    int32_t asked, answered;
    const struct kafka_api *api[64]; /* of what was asked, by correlation id */
    struct kafka_form form[64];
};

static wall_t wall_of(void *arg)
{
    struct os *os = arg;
    return os->now_wall(os);
}

static void lose(struct guest *g)
{
    if (g->engine)
        g->engine->ops->closed(g->engine);
    g->engine = NULL;
}

static bool guest_connect(struct guest *g, struct world *w)
{
    static const uint8_t uuid[16] = {1, 2, 3};
    static const struct kafka_peer peer = {"127.0.0.1:2", "127.0.0.1", 9092, true};
    *g = (struct guest){.w = w, .options = kafka_options_default(), .in = malloc(ROOM), .out = malloc(ROOM)};
    if (!g->in || !g->out)
        abort();
    arena_init(&g->arena, ROOM);
    g->options.uuid = uuid;
    g->options.cluster_id = "AQIDAAAAAAAAAAAAAAAAAA";
    g->options.wall = wall_of;
    g->options.wall_arg = w->os;
    g->engine = kafka_new(&g->options, w->hub, &peer, w->os->now_mono(w->os));
    return g->engine != NULL;
}

static void guest_end(struct guest *g)
{
    lose(g);
    arena_fini(&g->arena);
    free(g->in);
    free(g->out);
}

/* As a connection does: a file that cannot be read ends it. False: lost. */
static bool take_out(struct guest *g)
{
    struct outq *q = &g->engine->out;
    while (q->len) {
        struct iovec v;
        struct file_piece piece;
        size_t len;
        if (outq_peek_file(q, &piece)) {
            len = piece.len;
            if (len > ROOM - g->out_len)
                abort();
            if (piece.file->read(piece.file, g->out + g->out_len, len, piece.position) != (int64_t)len)
                return false;
        } else {
            (void)outq_peek(q, &v, 1);
            len = v.iov_len;
            if (len > ROOM - g->out_len)
                abort();
            memcpy(g->out + g->out_len, v.iov_base, len);
        }
        g->out_len += len;
        outq_consume(q, len);
    }
    return !q->failed && !g->engine->want_close;
}

static void turn(struct guest *g)
{
    struct world *w = g->w;
    world_turn(w);
    if (!g->engine)
        return;
    g->engine->now = w->os->now_mono(w->os);
    if (g->in_len && !g->engine->paused && !g->engine->want_close) {
        size_t used = g->engine->ops->feed(g->engine, slice_of(g->in, g->in_len));
        memmove(g->in, g->in + used, g->in_len - used);
        g->in_len -= used;
    }
    bool said = g->engine->out.len > 0;
    if (!take_out(g))
        lose(g);
    else if (said)
        g->engine->ops->drained(g->engine);
}

static void ask(struct guest *g, int16_t key, uint8_t version, const void *message)
{
    const struct kafka_api *api = kafka_api_find(key);
    struct kafka_form form = kafka_api_form(api, version);
    struct writer w = writer_of(g->in + g->in_len, ROOM - g->in_len);
    size_t mark = kafka_request_begin(&w, api, form, g->asked, slice_str("sim"));
    kafka_encode(&w, api->request, form, message, NULL);
    kafka_request_end(&w, mark);
    if (!writer_ok(&w))
        abort();
    g->in_len += w.len;
    g->api[g->asked & 63] = api;
    g->form[g->asked++ & 63] = form;
}

/* The answer to the oldest question, until the next call; NULL: the connection or the world is lost, or there is no memory to read it. */
static const void *answer(struct guest *g)
{
    struct reader r;
    struct slice frame, body;
    int32_t correlation_id;
    for (unsigned i = 0;; i++) {
        r = reader_of(slice_of(g->out, g->out_len));
        frame = reader_str32(&r);
        if (reader_ok(&r))
            break;
        if (!g->engine || g->w->dead || g->w->model->wrong[0])
            return NULL;
        if (i == TURNS_MAX) {
            if (!g->w->may_fail)
                model_fault(g->w->model, "%s is not answered", g->api[g->answered & 63]->name);
            lose(g);
            return NULL;
        }
        turn(g);
    }
    const struct kafka_api *api = g->api[g->answered & 63];
    struct kafka_form form = g->form[g->answered & 63];
    arena_reset(&g->arena);
    uint8_t *copy = arena_take(&g->arena, frame.len);
    void *message = arena_take(&g->arena, api->response->struct_len);
    if (copy)
        memcpy(copy, frame.ptr, frame.len);
    g->out_len -= frame.len + 4;
    memmove(g->out, g->out + frame.len + 4, g->out_len);
    if (!copy || !message)
        return NULL;
    if (!kafka_response_head(slice_of(copy, frame.len), api, form, &correlation_id, &body) ||
        correlation_id != g->answered++) {
        model_fault(g->w->model, "%s has an answer without a head of its own", api->name);
        return NULL;
    }
    enum kafka_verdict verdict = kafka_decode(api->response, form, body, &g->arena, message);
    if (verdict != KAFKA_OK && verdict != KAFKA_NO_MEMORY)
        model_fault(g->w->model, "the answer to %s cannot be decoded: %d", api->name, (int)verdict);
    return verdict == KAFKA_OK ? message : NULL;
}

#define ANSWER(g, name, version, ...)                                                                                  \
    (ask(g, KAFKA_API_##name, version, &(struct kafka_##name##_request){__VA_ARGS__}),                                 \
     (const struct kafka_##name##_response *)answer(g))

/* ---- what it asks ---- */

static bool make_topic(struct guest *g)
{
    struct kafka_metadata_request_topic topic = {.name = slice_str(TOPIC)};
    for (unsigned i = 0; i < 5; i++) {
        const struct kafka_metadata_response *said =
            ANSWER(g, metadata, 9, .topics = {&topic, 1}, .allow_auto_topic_creation = true);
        if (!said)
            return false;
        if (said->topics.count == 1 && said->topics.at[0].error_code == 0)
            return true;
    }
    return false;
}

/* Records with the values first, first + 1, …; base is what the broker must answer, -1: any. */
static void ask_produce(struct guest *g, unsigned first, unsigned count)
{
    uint8_t bytes[4096];
    struct writer w = writer_of(bytes, sizeof bytes);
    struct record_batch_writer batch;
    struct record_batch head = record_batch_head(0, g->w->os->now_wall(g->w->os));
    record_batch_begin(&batch, &w, &head);
    for (unsigned i = first; i < first + count; i++) {
        uint8_t value = (uint8_t)i;
        struct slice s = slice_of(&value, 1);
        if (!record_batch_put(&batch, head.base_timestamp, NULL, &s, NULL, 0))
            abort();
    }
    struct kafka_produce_request_partition part = {.records = record_batch_finish(&batch, -1)};
    struct kafka_produce_request_topic topic = {.name = slice_str(TOPIC), .partition_data = {&part, 1}};
    struct kafka_produce_request request = {.acks = -1, .timeout_ms = 1000, .topic_data = {&topic, 1}};
    ask(g, KAFKA_API_produce, 9, &request);
}

/* The base offset; -1: refused, or lost. */
static int64_t produced(struct guest *g)
{
    const struct kafka_produce_response *said = answer(g);
    if (!said || said->responses.count != 1 || said->responses.at[0].partition_responses.count != 1 ||
        said->responses.at[0].partition_responses.at[0].error_code)
        return -1;
    return said->responses.at[0].partition_responses.at[0].base_offset;
}

static void ask_fetch(struct guest *g, int64_t offset, int32_t wait_ms)
{
    struct kafka_fetch_request_partition part = {
        .current_leader_epoch = -1, .last_fetched_epoch = -1, .fetch_offset = offset, .partition_max_bytes = 100000};
    struct kafka_fetch_request_topic topic = {.topic = slice_str(TOPIC), .partitions = {&part, 1}};
    struct kafka_fetch_request request = {.replica_id = -1,
                                          .max_wait_ms = wait_ms,
                                          .min_bytes = 1,
                                          .max_bytes = 100000,
                                          .session_epoch = -1,
                                          .topics = {&topic, 1},
                                          .rack_id = slice_str("")};
    ask(g, KAFKA_API_fetch, 12, &request);
}

/* How many records came, each the value that was produced at its offset (they are the same here); -1: none could. */
static int fetched(struct guest *g)
{
    const struct kafka_fetch_response *said = answer(g);
    if (!said || said->responses.count != 1 || said->responses.at[0].partitions.count != 1 ||
        said->responses.at[0].partitions.at[0].error_code)
        return -1;
    const struct kafka_fetch_response_partition *part = &said->responses.at[0].partitions.at[0];
    struct reader r = reader_of(part->records);
    struct record_batch batch;
    struct slice one;
    int count = 0;
    while (record_batch_take(&r, &batch, &one) == RECORD_OK) {
        struct record_reader records;
        struct record record;
        if (!record_batch_crc_ok(one) || record_batch_open(one, NULL, 0, &batch, &records) != RECORD_OK)
            model_fault(g->w->model, "a batch that was fetched is damaged");
        else
            for (; record_next(&records, &record); count++)
                if (record.value.len != 1 || record.value.ptr[0] != (uint8_t)record.offset ||
                    record.offset >= part->high_watermark)
                    model_fault(g->w->model, "another record at offset %lld", (long long)record.offset);
    }
    if (r.left)
        model_fault(g->w->model, "%zu bytes behind the last batch", r.left);
    return count;
}

static int64_t listed(struct guest *g, int64_t timestamp)
{
    struct kafka_list_offsets_request_partition part = {.current_leader_epoch = -1, .timestamp = timestamp};
    struct kafka_list_offsets_request_topic topic = {.name = slice_str(TOPIC), .partitions = {&part, 1}};
    const struct kafka_list_offsets_response *said = ANSWER(g, list_offsets, 7, .topics = {&topic, 1});
    if (!said || said->topics.count != 1 || said->topics.at[0].partitions.count != 1)
        return -2;
    return said->topics.at[0].partitions.at[0].error_code ? -2 : said->topics.at[0].partitions.at[0].offset;
}

static bool short_lived_topic(struct guest *g)
{
    struct kafka_create_topics_request_topic topic = {
        .name = slice_str("short"), .num_partitions = 2, .replication_factor = 1};
    struct kafka_delete_topics_request_topic gone = {.name = slice_str("short")};
    const struct kafka_create_topics_response *made =
        ANSWER(g, create_topics, 7, .topics = {&topic, 1}, .timeout_ms = 1000);
    return made && ANSWER(g, delete_topics, 6, .topics = {&gone, 1}, .timeout_ms = 1000);
}

/* ---- transactions ---- */

#define TX_TOPIC "transactions"
#define TX_ID slice_str("sim")

/* A queue that is fed from the topic: said to the core by hand, answers are nobody's. False: lost, or no memory. */
static bool bind_queue(struct guest *g)
{
    struct slice none = {0};
    const struct {
        enum command_type type;
        const char *name, *other;
    } rows[] = {{CMD_CHANNEL_OPEN, NULL, NULL},
                {CMD_QUEUE_DECLARE, "fed by transactions", ""},
                {CMD_QUEUE_BIND, "fed by transactions", "amq.stream." TX_TOPIC}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct kafka *k = g->engine ? CONTAINER_OF(g->engine, struct kafka, session.engine) : NULL;
        if (!k)
            return false;
        struct ask *made = rows[i].name ? ask_new(slice_str(rows[i].name), slice_str(rows[i].other), none, none) : NULL;
        if (rows[i].name && !made)
            return false;
        struct command *c = hub_command(k->session.hub, &k->session);
        if (made)
            made->flags = ASK_DURABLE;
        c->type = (uint8_t)rows[i].type;
        c->channel = 1;
        c->origin = UINT32_MAX;
        c->ask = made;
        for (unsigned n = 0; n < 20; n++)
            turn(g);
    }
    return true;
}

struct instance { /* of the producer */
    int64_t id;
    int16_t epoch;
    int32_t sequence;
};

static bool begin_instance(struct guest *g, struct instance *ret)
{
    const struct kafka_init_producer_id_response *said =
        ANSWER(g, init_producer_id, 4, .transactional_id = TX_ID, .transaction_timeout_ms = 60000, .producer_id = -1,
               .producer_epoch = -1);
    if (!said || said->error_code)
        return false;
    *ret = (struct instance){said->producer_id, said->producer_epoch, 0};
    return true;
}

static bool add_partition(struct guest *g, const struct instance *p)
{
    int32_t zero = 0;
    struct kafka_add_partitions_to_txn_request_topic topic = {.name = slice_str(TX_TOPIC), .partitions = {&zero, 1}};
    const struct kafka_add_partitions_to_txn_response *said =
        ANSWER(g, add_partitions_to_txn, 3, .v3_and_below_transactional_id = TX_ID, .v3_and_below_producer_id = p->id,
               .v3_and_below_producer_epoch = p->epoch, .v3_and_below_topics = {&topic, 1});
    return said && said->results_by_topic_v3_and_below.count == 1 &&
           said->results_by_topic_v3_and_below.at[0].results_by_partition.count == 1 &&
           !said->results_by_topic_v3_and_below.at[0].results_by_partition.at[0].partition_error_code;
}

static bool produce_in_it(struct guest *g, struct instance *p)
{
    uint8_t bytes[512];
    struct writer w = writer_of(bytes, sizeof bytes);
    struct record_batch_writer batch;
    struct record_batch head = record_batch_head(0, g->w->os->now_wall(g->w->os));
    struct slice value = slice_str("v");
    head.producer_id = p->id;
    head.producer_epoch = p->epoch;
    head.base_sequence = p->sequence++;
    head.transactional = true;
    record_batch_begin(&batch, &w, &head);
    if (!record_batch_put(&batch, head.base_timestamp, NULL, &value, NULL, 0))
        abort();
    struct kafka_produce_request_partition part = {.records = record_batch_finish(&batch, -1)};
    struct kafka_produce_request_topic topic = {.name = slice_str(TX_TOPIC), .partition_data = {&part, 1}};
    ask(g, KAFKA_API_produce, 9,
        &(struct kafka_produce_request){
            .transactional_id = TX_ID, .acks = -1, .timeout_ms = 1000, .topic_data = {&topic, 1}});
    return produced(g) >= 0;
}

static bool commit_offset(struct guest *g, const struct instance *p)
{
    struct kafka_txn_offset_commit_request_partition part = {.committed_offset = 1, .committed_leader_epoch = -1};
    struct kafka_txn_offset_commit_request_topic topic = {.name = slice_str(TX_TOPIC), .partitions = {&part, 1}};
    const struct kafka_txn_offset_commit_response *said = ANSWER(
        g, txn_offset_commit, 3, .transactional_id = TX_ID, .group_id = slice_str("readers"), .producer_id = p->id,
        .producer_epoch = p->epoch, .generation_id_or_member_epoch = -1, .topics = {&topic, 1});
    return said && said->topics.count == 1 && said->topics.at[0].partitions.count == 1 &&
           !said->topics.at[0].partitions.at[0].error_code;
}

static bool end_it(struct guest *g, const struct instance *p, bool commit)
{
    const struct kafka_end_txn_response *said = ANSWER(g, end_txn, 3, .transactional_id = TX_ID, .producer_id = p->id,
                                                       .producer_epoch = p->epoch, .committed = commit);
    return said && !said->error_code;
}

/* Offsets 0 committed, 2 aborted, 4 committed; between them markers. A reader of committed ones hears of one aborted. */
static bool read_committed(struct guest *g)
{
    struct kafka_fetch_request_partition part = {
        .current_leader_epoch = -1, .last_fetched_epoch = -1, .partition_max_bytes = 100000};
    struct kafka_fetch_request_topic topic = {.topic = slice_str(TX_TOPIC), .partitions = {&part, 1}};
    const struct kafka_fetch_response *said =
        ANSWER(g, fetch, 11, .replica_id = -1, .max_wait_ms = 500, .min_bytes = 400, .max_bytes = 100000,
               .isolation_level = 1, .session_epoch = -1, .topics = {&topic, 1}, .rack_id = slice_str(""));
    if (!said || said->responses.count != 1 || said->responses.at[0].partitions.count != 1)
        return false;
    const struct kafka_fetch_response_partition *got = &said->responses.at[0].partitions.at[0];
    if (got->error_code)
        return false;
    bool has_aborted = false;
    struct reader r = reader_of(got->records);
    struct record_batch batch;
    struct slice one;
    while (record_batch_take(&r, &batch, &one) == RECORD_OK)
        has_aborted = has_aborted || batch.base_offset == 2;
    bool told = got->aborted_transactions.count == 1 && got->aborted_transactions.at[0].first_offset == 2;
    if (has_aborted && !told)
        model_fault(g->w->model, "%d aborted transactions", (int)got->aborted_transactions.count);
    return true;
}

static bool play_transactions(struct guest *g)
{
    struct instance p;
    struct kafka_create_topics_request_topic topic = {
        .name = slice_str(TX_TOPIC), .num_partitions = 1, .replication_factor = 1};
    const struct kafka_create_topics_response *made =
        ANSWER(g, create_topics, 7, .topics = {&topic, 1}, .timeout_ms = 1000);
    if (!made || made->topics.count != 1 || made->topics.at[0].error_code || !bind_queue(g) || !begin_instance(g, &p))
        return false;
    for (unsigned n = 0; n < 3; n++)
        if (!add_partition(g, &p) || !produce_in_it(g, &p) || (n == 0 && !commit_offset(g, &p)) ||
            !end_it(g, &p, n != 1))
            return false;
    return read_committed(g) && begin_instance(g, &p); /* a younger instance */
}

/* True: everything was answered, and well. */
static bool play(struct guest *g)
{
    if (!ANSWER(g, api_versions, 3, .client_software_name = slice_str("sim"),
                .client_software_version = slice_str("1")) ||
        !make_topic(g) || !ANSWER(g, init_producer_id, 1, .transaction_timeout_ms = 1000))
        return false;
    ask_produce(g, 0, 3);
    if (produced(g) != 0)
        return false;
    ask_fetch(g, 0, 0);
    if (fetched(g) < 0)
        return false;
    ask_fetch(g, 3, 500); /* waits for what comes behind it */
    ask_produce(g, 3, 2);
    ask_fetch(g, 0, 0);
    if (fetched(g) < 0 || produced(g) != 3 || fetched(g) < 0)
        return false;
    ask_fetch(g, 5, 20); /* and in vain */
    if (fetched(g) != 0 || listed(g, -1) != 5 || listed(g, -2) != 0 || listed(g, 1) != 0)
        return false;
    return short_lived_topic(g) && play_transactions(g);
}

void kafka_play(struct world *w, bool (*faultless)(const struct world *w))
{
    struct guest g;
    bool good = guest_connect(&g, w) && play(&g);
    guest_end(&g);
    if (!good && !w->model->wrong[0] && faultless(w))
        model_fault(w->model, "the Kafka client was not answered well");
}
