/* Configs: the table against itself, streams described that Kafka has not made, changes that survive, and who may change. What a
 * real Kafka answers is in tests/clients/kafka_cases.py. */
#include "proto/kafka/config_table.h"
#include "proto/kafka/names.h"
#include "proto/kafka/resources.h"
#include "proto/kafka/rig_test.h"

static void the_table_is_sound(void **state)
{
    (void)state;
    char text[KAFKA_CONFIG_TEXT];
    uint8_t room[512], keys[KAFKA_CONFIG_KEYS];
    for (size_t i = 0; i < kafka_topic_config_count; i++) {
        const struct kafka_config *config = &kafka_topic_configs[i];
        struct slice value = slice_str(config->otherwise);
        assert_ptr_equal(kafka_config_find(slice_str(config->name)), config);
        assert_true(kafka_config_check(config, value, text, sizeof text));
        struct writer w = writer_of(room, sizeof room);
        kafka_config_put(&w, config, value);
        assert_true(writer_ok(&w) && w.len <= kafka_config_bytes(config, value));
        assert_true(amqp_table_valid(writer_slice(&w)));
        w = writer_of(keys, sizeof keys);
        kafka_config_put_keys(&w, config);
        assert_true(writer_ok(&w));
        if (i)
            assert_true(strcmp(kafka_topic_configs[i - 1].name, config->name) < 0);
        if (config->type == KAFKA_CONFIG_INT || config->type == KAFKA_CONFIG_LONG) {
            char long_text[64];
            snprintf(long_text, sizeof long_text, "%lld", (long long)config->most);
            struct slice most = slice_str(long_text);
            w = writer_of(room, sizeof room);
            assert_true(kafka_config_check(config, most, text, sizeof text));
            kafka_config_put(&w, config, most);
            assert_true(writer_ok(&w) && w.len <= kafka_config_bytes(config, most));
        }
    }
}

/* The value, or "" and what is wrong in *ret_error. */
static const char *described(struct krig *k, const char *topic, const char *key, int8_t *ret_source)
{
    static char value[200];
    struct slice keys[] = {slice_str(key)};
    struct kafka_describe_configs_request_resource one = {
        .resource_type = KAFKA_RESOURCE_TOPIC, .resource_name = slice_str(topic), .configuration_keys = {keys, 1}};
    const struct kafka_describe_configs_response *said =
        KASK(k, describe_configs, 4, .resources = {&one, 1}, .include_documentation = true, .include_synonyms = true);
    assert_non_null(said);
    assert_int_equal(said->results.count, 1);
    assert_int_equal(said->results.at[0].error_code, 0);
    assert_int_equal(said->results.at[0].configs.count, 1);
    const struct kafka_describe_configs_response_config *config = &said->results.at[0].configs.at[0];
    assert_true(slice_is(config->name, key) && config->documentation.len > 0);
    snprintf(value, sizeof value, "%.*s", SLICE_ARG(config->value));
    *ret_source = config->config_source;
    return value;
}

static void assert_config(struct krig *k, const char *topic, const char *key, const char *value, int8_t source)
{
    int8_t got;
    assert_string_equal(described(k, topic, key, &got), value);
    assert_int_equal(got, source);
}

static int16_t change(struct krig *k, const char *topic, const char *key, int8_t operation, const char *value)
{
    struct kafka_incremental_alter_configs_request_config config = {slice_str(key), operation,
                                                                    value ? slice_str(value) : (struct slice){0}};
    struct kafka_incremental_alter_configs_request_resource one = {
        KAFKA_RESOURCE_TOPIC, slice_str(topic), {&config, 1}};
    const struct kafka_incremental_alter_configs_response *said =
        KASK(k, incremental_alter_configs, 1, .resources = {&one, 1});
    assert_int_equal(said->responses.count, 1);
    return said->responses.at[0].error_code;
}

static struct queue *queue_named(struct krig *k, const char *name)
{
    return queue_find(vhost_find(k->core->b, slice_str("/")), slice_str(name));
}

/* What acts is told, whoever has said it. */
static void streams_of_others(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    char why[200];
    struct table t;
    krig_topic(k, "t", 1, false);
    krig_topic(k, "c", 1, true);
    assert_config(k, "t", "retention.ms", "-1", KAFKA_SOURCE_TOPIC); /* AMQP's default */
    assert_config(k, "t", "cleanup.policy", "delete", KAFKA_SOURCE_DEFAULT);
    assert_config(k, "c", "cleanup.policy", "compact", KAFKA_SOURCE_TOPIC);
    assert_int_equal(change(k, "t", "retention.ms", 0, "5000"), 0);
    assert_config(k, "t", "retention.ms", "5000", KAFKA_SOURCE_TOPIC);
    assert_int_equal(queue_named(k, "t")->rules->max_age_ms, 5000);
    amqp_put_long(&table(&t)->w, "max-length-bytes", 7777);
    assert_true(policy_put(k->core->b, vhost_find(k->core->b, slice_str("/")), slice_str("p"), slice_str("^t$"),
                           APPLY_STREAMS, 1, writer_slice(&t.w), false, why, sizeof why));
    assert_int_equal(change(k, "t", "retention.bytes", 0, "9999"), 0);
    assert_config(k, "t", "retention.bytes", "7777", KAFKA_SOURCE_TOPIC); /* the smaller one */
    krig_free(k);
}

static void every_kind_of_argument(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    static const struct {
        const char *key, *value;
    } rows[] = {{"retention.ms", "1"},
                {"retention.ms", "0"},
                {"retention.ms", "90000"},
                {"retention.ms", "86400000"},
                {"retention.ms", "9223372036854775807"},
                {"retention.ms", "-1"},
                {"retention.bytes", "0"},
                {"retention.bytes", "9223372036854775807"},
                {"segment.bytes", "1048576"},
                {"segment.bytes", "2147483647"},
                {"cleanup.policy", "compact,delete"},
                {"cleanup.policy", "delete, compact"},
                {"cleanup.policy", "compact"},
                {"min.compaction.lag.ms", "1500"},
                {"min.compaction.lag.ms", "9223372036854775807"},
                {"min.compaction.lag.ms", "0"},
                {"delete.retention.ms", "0"},
                {"delete.retention.ms", "9223372036854775807"},
                {"flush.messages", "10"},
                {"min.cleanable.dirty.ratio", "0.25"},
                {"preallocate", "TRUE"}};
    krig_topic(k, "t", 3, false);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_int_equal(change(k, "t", rows[i].key, 0, rows[i].value), 0);
        assert_config(k, "t", rows[i].key, rows[i].value, KAFKA_SOURCE_TOPIC);
    }
    rig_assert_replays(k->core);
    for (size_t i = 0; i < kafka_topic_config_count; i++) {
        const struct kafka_config *config = &kafka_topic_configs[i];
        assert_int_equal(change(k, "t", config->name, 1, NULL), 0);
        assert_config(k, "t", config->name, config->otherwise,
                      config->means == KAFKA_MEANS_CLUSTER ? KAFKA_SOURCE_CLUSTER : KAFKA_SOURCE_DEFAULT);
    }
    struct amqp_field field;
    struct reader r = reader_of(queue_named(k, "t")->args);
    unsigned fields = 0;
    while (amqp_table_next(&r, &field))
        fields++;
    assert_int_equal(fields, 3); /* type, partitions, and Kafka's retention of seven days */
    rig_assert_replays(k->core);
    krig_free(k);
}

/* All that is not named goes back. */
static void as_a_whole(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    krig_topic(k, "t", 1, false);
    assert_int_equal(change(k, "t", "retention.bytes", 0, "1000"), 0);
    assert_int_equal(change(k, "t", "flush.ms", 0, "5"), 0);
    struct kafka_alter_configs_request_config config = {slice_str("retention.ms"), slice_str("60000")};
    struct kafka_alter_configs_request_resource one = {KAFKA_RESOURCE_TOPIC, slice_str("t"), {&config, 1}};
    assert_int_equal(
        KASK(k, alter_configs, 2, .resources = {&one, 1}, .validate_only = true)->responses.at[0].error_code, 0);
    assert_config(k, "t", "flush.ms", "5", KAFKA_SOURCE_TOPIC);
    assert_int_equal(KASK(k, alter_configs, 2, .resources = {&one, 1})->responses.at[0].error_code, 0);
    assert_config(k, "t", "flush.ms", "9223372036854775807", KAFKA_SOURCE_DEFAULT);
    assert_config(k, "t", "retention.bytes", "-1", KAFKA_SOURCE_DEFAULT);
    assert_config(k, "t", "retention.ms", "60000", KAFKA_SOURCE_TOPIC);
    struct kafka_alter_configs_request_resource twice[] = {one, one};
    assert_int_equal(KASK(k, alter_configs, 2, .resources = {twice, 2})->responses.at[1].error_code,
                     KAFKA_ERR_INVALID_REQUEST);
    struct kafka_alter_configs_request_resource broker = {KAFKA_RESOURCE_BROKER, slice_str("1"), {&config, 1}};
    assert_int_equal(KASK(k, alter_configs, 2, .resources = {&broker, 1})->responses.at[0].error_code,
                     KAFKA_ERR_INVALID_REQUEST);
    broker.configs.count = 0;
    assert_int_equal(KASK(k, alter_configs, 2, .resources = {&broker, 1})->responses.at[0].error_code, 0);
    krig_free(k);
}

static void rights(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    char why[200];
    krig_topic(k, "t", 1, false);
    assert_true(permission_put(k->core->b, user_find(k->core->b, slice_str("guest")),
                               vhost_find(k->core->b, slice_str("/")), slice_str(""), slice_str(""), slice_str("t"),
                               why, sizeof why));
    assert_config(k, "t", "retention.ms", "-1", KAFKA_SOURCE_TOPIC);
    assert_int_equal(change(k, "t", "retention.ms", 0, "5000"), KAFKA_ERR_TOPIC_AUTHORIZATION_FAILED);
    assert_int_equal(change(k, "unseen", "retention.ms", 0, "5000"), KAFKA_ERR_TOPIC_AUTHORIZATION_FAILED);
    assert_int_equal(queue_named(k, "t")->rules->max_age_ms, -1);
    krig_free(k);
}

static void the_broker_and_lists(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    krig_topic(k, "t", 1, false);
    k->options.partitions = 7;
    struct kafka_describe_configs_request_resource one = {
        .resource_type = KAFKA_RESOURCE_BROKER, .resource_name = slice_str("1"), .configuration_keys = {NULL, -1}};
    struct kafka_describe_configs_request_resource twice[] = {one, one};
    const struct kafka_describe_configs_response *said =
        KASK(k, describe_configs, 1, .resources = {twice, 2}, .include_synonyms = true);
    assert_int_equal(said->results.count, 1);
    bool seen = false;
    for (int32_t i = 0; i < said->results.at[0].configs.count; i++) {
        const struct kafka_describe_configs_response_config *config = &said->results.at[0].configs.at[i];
        assert_true(config->read_only);
        if (slice_is(config->name, "num.partitions"))
            seen = slice_is(config->value, "7") && config->config_source == KAFKA_SOURCE_STATIC;
    }
    assert_true(seen);
    int8_t types[] = {KAFKA_RESOURCE_TOPIC};
    assert_int_equal(KASK(k, list_config_resources, 0, .resource_types = {NULL, 0})->config_resources.count, 0);
    assert_int_equal(KASK(k, list_config_resources, 1, .resource_types = {NULL, 0})->config_resources.count, 3);
    const struct kafka_list_config_resources_response *listed =
        KASK(k, list_config_resources, 1, .resource_types = {types, 1});
    assert_int_equal(listed->config_resources.count, 1);
    assert_true(slice_is(listed->config_resources.at[0].resource_name, "t"));
    types[0] = 99;
    assert_int_equal(KASK(k, list_config_resources, 1, .resource_types = {types, 1})->error_code,
                     KAFKA_ERR_UNSUPPORTED_VERSION);
    krig_free(k);
}

/* Smaller or larger than the broker's. */
static void batches_of_a_topic(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    struct krig_batch b;
    k->options.batch_bytes_max = 300;
    krig_topic(k, "t", 1, false);
    krig_batch(k, &b, 0, 50, false);
    assert_true(b.made.len > 300 && b.made.len < 2000);
    assert_int_equal(krig_produce(k, "t", 0, b.made)->error_code, KAFKA_ERR_MESSAGE_TOO_LARGE);
    assert_int_equal(change(k, "t", "max.message.bytes", 0, "2000"), 0);
    assert_int_equal(krig_produce(k, "t", 0, b.made)->error_code, 0);
    assert_int_equal(change(k, "t", "max.message.bytes", 0, "100"), 0);
    assert_int_equal(krig_produce(k, "t", 0, b.made)->error_code, KAFKA_ERR_MESSAGE_TOO_LARGE);
    krig_free(k);
}

static int16_t produced_by_id(struct krig *k, const struct kafka_uuid *id, struct slice records)
{
    struct kafka_produce_request_partition part = {.records = records};
    struct kafka_produce_request_topic one = {.topic_id = *id, .partition_data = {&part, 1}};
    const struct kafka_produce_response *said = KASK(k, produce, 13, .acks = -1, .topic_data = {&one, 1});
    assert_non_null(said);
    return said->responses.at[0].partition_responses.at[0].error_code;
}

/* A producer that names the topic by its id is held to what the topic allows too, also when somebody else has altered it. */
static void what_a_topic_allows_by_its_id(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    struct kafka *engine = CONTAINER_OF(k->engine, struct kafka, session.engine);
    struct krig_batch b;
    struct kafka_uuid id, other = {{1}};
    krig_topic(k, "t", 1, false);
    krig_batch(k, &b, 0, 50, false);
    assert_int_equal(krig_produce(k, "t", 0, b.made)->error_code, 0);
    kafka_topic_uuid(engine, kafka_topic_find(engine, slice_str("t"))->id, &id);
    assert_int_equal(change(k, "t", "max.message.bytes", 0, "100"), 0);
    assert_int_equal(produced_by_id(k, &id, b.made), KAFKA_ERR_MESSAGE_TOO_LARGE);
    assert_int_equal(change(k, "t", "max.message.bytes", 0, "100000"), 0);
    assert_int_equal(produced_by_id(k, &id, b.made), 0);
    assert_int_equal(change(k, "t", "cleanup.policy", 0, "compact"), 0);
    assert_int_equal(produced_by_id(k, &id, b.made), KAFKA_ERR_INVALID_RECORD);
    ((struct kafka_topic *)kafka_topic_find(engine, slice_str("t")))->compacts =
        false; /* known before it was altered */
    assert_int_equal(produced_by_id(k, &id, b.made), 0);
    atomic_fetch_add(&broker_port(k->core->b, 0)->streams_changed, 1);
    assert_int_equal(produced_by_id(k, &id, b.made), KAFKA_ERR_INVALID_RECORD);
    assert_int_equal(produced_by_id(k, &other, b.made), KAFKA_ERR_UNKNOWN_TOPIC_ID);
    kafka_topic_uuid(engine, 12345, &id);
    assert_int_equal(produced_by_id(k, &id, b.made), KAFKA_ERR_UNKNOWN_TOPIC_ID);
    krig_free(k);
}

static void some_disk(void *arg, uint64_t *ret_total, uint64_t *ret_free)
{
    *ret_total = arg ? 5000000000000 : UINT64_MAX;
    *ret_free = arg ? 7 : UINT64_MAX;
}

static void sizes_of_disks(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    for (unsigned round = 0; round < 3; round++) {
        k->options.disk = round ? some_disk : NULL;
        k->options.disk_arg = round == 2 ? k : NULL;
        const struct kafka_describe_log_dirs_response *said = KASK(k, describe_log_dirs, 4, .topics = {NULL, -1});
        assert_int_equal(said->results.at[0].total_bytes, round == 2 ? 5000000000000 : -1);
        assert_int_equal(said->results.at[0].usable_bytes, round == 2 ? 7 : -1);
    }
    krig_free(k);
}

static void sizes_of_partitions(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    struct krig_batch b;
    krig_topic(k, "t", 3, false);
    krig_topic(k, "u", 1, false);
    assert_int_equal(krig_produce(k, "t", 1, krig_batch(k, &b, 0, 50, false))->error_code, 0);
    int32_t some[] = {1, 2, 9};
    struct kafka_describe_log_dirs_request_topic topics[] = {
        {slice_str("t"), {some, 3}}, {slice_str("none"), {some, 1}}, {slice_str("t"), {some, 3}}};
    for (uint8_t version = 1; version <= 5; version++) {
        const struct kafka_describe_log_dirs_response *said = KASK(k, describe_log_dirs, version, .topics = {NULL, -1});
        assert_int_equal(said->results.count, 1);
        assert_true(slice_is(said->results.at[0].log_dir, "millrace-data"));
        assert_int_equal(said->results.at[0].topics.count, 2);
        said = KASK(k, describe_log_dirs, version, .topics = {topics, 3});
        assert_int_equal(said->results.at[0].topics.count, 1);
        assert_int_equal(said->results.at[0].topics.at[0].partitions.count, 2);
        assert_true(said->results.at[0].topics.at[0].partitions.at[0].partition_size > 100);
        assert_int_equal(said->results.at[0].topics.at[0].partitions.at[1].partition_size, 0);
    }
    krig_free(k);
}

static void storm(struct krig *k)
{
    struct kafka_incremental_alter_configs_request_config configs[] = {
        {slice_str("cleanup.policy"), 2, slice_str("compact")}, {slice_str("retention.ms"), 0, slice_str("1000")}};
    struct kafka_incremental_alter_configs_request_resource steps[] = {
        {KAFKA_RESOURCE_TOPIC, slice_str("t"), {configs, 2}}, {KAFKA_RESOURCE_BROKER, slice_str("9"), {configs, 1}}};
    struct kafka_alter_configs_request_config config = {slice_str("retention.ms"), slice_str("x")};
    struct kafka_alter_configs_request_resource whole = {KAFKA_RESOURCE_TOPIC, slice_str("t"), {&config, 1}};
    struct kafka_describe_configs_request_resource shown[] = {{KAFKA_RESOURCE_TOPIC, slice_str("t"), {NULL, -1}},
                                                              {KAFKA_RESOURCE_BROKER, slice_str("1"), {NULL, -1}}};
    krig_put(k, KAFKA_API_incremental_alter_configs, 1,
             &(struct kafka_incremental_alter_configs_request){.resources = {steps, 2}});
    krig_put(k, KAFKA_API_alter_configs, 2, &(struct kafka_alter_configs_request){.resources = {&whole, 1}});
    krig_put(k, KAFKA_API_describe_configs, 4,
             &(struct kafka_describe_configs_request){.resources = {shown, 2}, .include_synonyms = true});
    krig_put(k, KAFKA_API_list_config_resources, 1,
             &(struct kafka_list_config_resources_request){.resource_types = {NULL, 0}});
    krig_put(k, KAFKA_API_describe_log_dirs, 4, &(struct kafka_describe_log_dirs_request){.topics = {NULL, -1}});
}

static void each_allocation(void **state)
{
    (void)state;
    for (uint64_t n = 1;; n++) {
        struct krig *k = krig_ready();
        krig_topic(k, "t", 1, false);
        mem_fail_at(n, false);
        storm(k);
        krig_settle(k);
        uint64_t hit = mem_failures_hit();
        mem_fail_at(0, false);
        if (!hit)
            for (unsigned i = 0; i < 5; i++)
                assert_non_null(krig_take(k));
        krig_close(k);
        krig_settle(k);
        k->in_len = k->out_len = 0;
        broker_check(k->core->b);
        rig_assert_replays(k->core);
        krig_open(k);
        assert_int_equal(change(k, "t", "retention.ms", 0, "77"), 0);
        krig_free(k);
        if (!hit)
            return;
    }
}

static void damaged_requests(void **state)
{
    (void)state;
    krig_damage(storm, 2000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table_is_sound),
        cmocka_unit_test(streams_of_others),
        cmocka_unit_test(every_kind_of_argument),
        cmocka_unit_test(as_a_whole),
        cmocka_unit_test(rights),
        cmocka_unit_test(the_broker_and_lists),
        cmocka_unit_test(batches_of_a_topic),
        cmocka_unit_test(what_a_topic_allows_by_its_id),
        cmocka_unit_test(sizes_of_disks),
        cmocka_unit_test(sizes_of_partitions),
        cmocka_unit_test(each_allocation),
        cmocka_unit_test(damaged_requests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
