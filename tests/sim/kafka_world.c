/* A script of the Kafka client, see kafka_world.h. */
#include "kafka_world_int.h"

#include <stdlib.h>

#include "base/mem.h"
#include "fmt/record_batch.h"

#define TOPIC "kafka"

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

void kafka_ask_produce(struct guest *g, const char *name, unsigned first, unsigned count)
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
    struct kafka_produce_request_topic topic = {.name = slice_str(name), .partition_data = {&part, 1}};
    struct kafka_produce_request request = {.acks = -1, .timeout_ms = 1000, .topic_data = {&topic, 1}};
    guest_ask(g, KAFKA_API_produce, 9, &request);
}

int64_t kafka_produced(struct guest *g)
{
    const struct kafka_produce_response *said = guest_answer(g);
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
    guest_ask(g, KAFKA_API_fetch, 12, &request);
}

int kafka_read_records(struct guest *g, struct slice records, int64_t end)
{
    struct reader r = reader_of(records);
    struct record_batch batch;
    struct slice one;
    int count = 0;
    while (record_batch_take(&r, &batch, &one) == RECORD_OK) {
        struct record_reader in_it;
        struct record record;
        if (!record_batch_crc_ok(one) || record_batch_open(one, NULL, 0, &batch, &in_it) != RECORD_OK)
            model_fault(g->w->model, "a batch that was fetched is damaged");
        else
            for (; record_next(&in_it, &record); count++)
                if (record.value.len != 1 || record.value.ptr[0] != (uint8_t)record.offset || record.offset >= end)
                    model_fault(g->w->model, "another record at offset %lld", (long long)record.offset);
    }
    if (r.left)
        model_fault(g->w->model, "%zu bytes behind the last batch", r.left);
    return count;
}

/* How many records came; -1: none could. */
static int fetched(struct guest *g)
{
    const struct kafka_fetch_response *said = guest_answer(g);
    if (!said || said->responses.count != 1 || said->responses.at[0].partitions.count != 1 ||
        said->responses.at[0].partitions.at[0].error_code)
        return -1;
    const struct kafka_fetch_response_partition *part = &said->responses.at[0].partitions.at[0];
    return kafka_read_records(g, part->records, part->high_watermark);
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
                {CMD_QUEUE_BIND, "fed by transactions", "amq.stream." KAFKA_TX_TOPIC}};
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
            guest_turn(g);
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
    struct kafka_add_partitions_to_txn_request_topic topic = {.name = slice_str(KAFKA_TX_TOPIC),
                                                              .partitions = {&zero, 1}};
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
    struct kafka_produce_request_topic topic = {.name = slice_str(KAFKA_TX_TOPIC), .partition_data = {&part, 1}};
    guest_ask(g, KAFKA_API_produce, 9,
              &(struct kafka_produce_request){
                  .transactional_id = TX_ID, .acks = -1, .timeout_ms = 1000, .topic_data = {&topic, 1}});
    return kafka_produced(g) >= 0;
}

static bool commit_offset(struct guest *g, const struct instance *p)
{
    struct kafka_txn_offset_commit_request_partition part = {.committed_offset = 1, .committed_leader_epoch = -1};
    struct kafka_txn_offset_commit_request_topic topic = {.name = slice_str(KAFKA_TX_TOPIC), .partitions = {&part, 1}};
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
    struct kafka_fetch_request_topic topic = {.topic = slice_str(KAFKA_TX_TOPIC), .partitions = {&part, 1}};
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

bool kafka_make_topic(struct guest *g, const char *name, const char *compression, struct kafka_uuid *ret)
{
    struct kafka_create_topics_request_config config = {slice_str("compression.type"), slice_str(compression)};
    struct kafka_create_topics_request_topic topic = {
        .name = slice_str(name), .num_partitions = 1, .replication_factor = 1, .configs = {&config, 1}};
    const struct kafka_create_topics_response *made =
        ANSWER(g, create_topics, 7, .topics = {&topic, 1}, .timeout_ms = 1000);
    if (!made || made->topics.count != 1 || made->topics.at[0].error_code)
        return false;
    *ret = made->topics.at[0].topic_id;
    return true;
}

bool kafka_play_transaction(struct guest *g)
{
    struct instance p;
    return begin_instance(g, &p) && add_partition(g, &p) && produce_in_it(g, &p) && end_it(g, &p, true);
}

static bool list_transactions(struct guest *g)
{
    const struct kafka_list_transactions_response *said = ANSWER(g, list_transactions, 1, .duration_filter = -1);
    return said && !said->error_code && said->transaction_states.count == 1 &&
           slice_equal(said->transaction_states.at[0].transactional_id, TX_ID);
}

static bool play_transactions(struct guest *g)
{
    struct instance p;
    struct kafka_uuid uuid;
    if (!kafka_make_topic(g, KAFKA_TX_TOPIC, "producer", &uuid) || !bind_queue(g) || !begin_instance(g, &p))
        return false;
    for (unsigned n = 0; n < 3; n++)
        if (!add_partition(g, &p) || !produce_in_it(g, &p) || (n == 0 && !commit_offset(g, &p)) ||
            !end_it(g, &p, n != 1))
            return false;
    return read_committed(g) && begin_instance(g, &p) /* a younger instance */ && list_transactions(g);
}

/* True: everything was answered, and well. */
static bool play(struct guest *g)
{
    if (!ANSWER(g, api_versions, 3, .client_software_name = slice_str("sim"),
                .client_software_version = slice_str("1")) ||
        !make_topic(g) || !ANSWER(g, init_producer_id, 1, .transaction_timeout_ms = 1000))
        return false;
    kafka_ask_produce(g, TOPIC, 0, 3);
    if (kafka_produced(g) != 0)
        return false;
    ask_fetch(g, 0, 0);
    if (fetched(g) < 0)
        return false;
    ask_fetch(g, 3, 500); /* waits for what comes behind it */
    kafka_ask_produce(g, TOPIC, 3, 2);
    ask_fetch(g, 0, 0);
    if (fetched(g) < 0 || kafka_produced(g) != 3 || fetched(g) < 0)
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
