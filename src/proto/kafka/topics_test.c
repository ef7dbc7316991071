/* Topics made, deleted, grown and trimmed by their client: what Kafka's own answers are held against is in
 * tests/clients/kafka_cases.py; here is what these cannot have: rights, queues of AMQP, memory and the journal. */
#include "proto/kafka/names.h"
#include "proto/kafka/rig_test.h"

static struct queue *queue_named(struct krig *k, const char *name)
{
    return queue_find(vhost_find(k->core->b, slice_str("/")), slice_str(name));
}

/* A classic queue, on a session of another protocol. */
static void plain_queue(struct krig *k, const char *name)
{
    struct vhost *vhost = vhost_find(k->core->b, slice_str("/"));
    struct slice none = {0};
    lsn_t lsn;
    assert_non_null(queue_create(k->core->b, vhost, slice_str(name), ASK_DURABLE, none, NULL, &lsn));
}

static void permit(struct krig *k, const char *configure, const char *write, const char *read)
{
    char why[200];
    assert_true(permission_put(k->core->b, user_find(k->core->b, slice_str("guest")),
                               vhost_find(k->core->b, slice_str("/")), slice_str(configure), slice_str(write),
                               slice_str(read), why, sizeof why));
}

static const struct kafka_create_topics_response_topic *create(struct krig *k, uint8_t version, const char *name,
                                                               int32_t partitions)
{
    struct kafka_create_topics_request_topic topic = {
        .name = slice_str(name), .num_partitions = partitions, .replication_factor = 1};
    const struct kafka_create_topics_response *said = KASK(k, create_topics, version, .topics = {&topic, 1});
    assert_non_null(said);
    assert_int_equal(said->topics.count, 1);
    return &said->topics.at[0];
}

static int16_t delete_one(struct krig *k, const char *name)
{
    struct slice names[] = {slice_str(name)};
    const struct kafka_delete_topics_response *said = KASK(k, delete_topics, 5, .topic_names = {names, 1});
    assert_int_equal(said->responses.count, 1);
    return said->responses.at[0].error_code;
}

static int16_t grow(struct krig *k, const char *name, int32_t count)
{
    struct kafka_create_partitions_request_topic topic = {
        .name = slice_str(name), .count = count, .assignments = {NULL, -1}};
    const struct kafka_create_partitions_response *said = KASK(k, create_partitions, 3, .topics = {&topic, 1});
    assert_int_equal(said->results.count, 1);
    return said->results.at[0].error_code;
}

static const struct kafka_delete_records_response_partition *trim(struct krig *k, const char *name, int32_t partition,
                                                                  int64_t offset)
{
    struct kafka_delete_records_request_partition part = {.partition_index = partition, .offset = offset};
    struct kafka_delete_records_request_topic topic = {.name = slice_str(name), .partitions = {&part, 1}};
    const struct kafka_delete_records_response *said = KASK(k, delete_records, 2, .topics = {&topic, 1});
    assert_int_equal(said->topics.count, 1);
    assert_int_equal(said->topics.at[0].partitions.count, 1);
    return &said->topics.at[0].partitions.at[0];
}

static void in_every_version(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    for (uint8_t version = 0; version <= 7; version++) {
        char name[8];
        snprintf(name, sizeof name, "t%u", version);
        const struct kafka_create_topics_response_topic *said = create(k, version, name, 2);
        assert_int_equal(said->error_code, 0);
        assert_int_equal(queue_named(k, name)->rules->partitions, 2);
        if (version >= 5) {
            assert_int_equal(said->num_partitions, 2);
            assert_true(said->configs.count > 30);
        }
        uint64_t id = 0;
        if (version >= 7)
            assert_true(
                kafka_topic_of_uuid(CONTAINER_OF(k->engine, struct kafka, session.engine), &said->topic_id, &id) &&
                id == queue_named(k, name)->id);
    }
    for (uint8_t version = 0; version <= 5; version++) {
        char name[8];
        snprintf(name, sizeof name, "t%u", version);
        struct slice names[] = {slice_str(name)};
        assert_int_equal(KASK(k, delete_topics, version, .topic_names = {names, 1})->responses.at[0].error_code, 0);
        assert_null(queue_named(k, name));
    }
    krig_free(k);
}

static void a_queue_is_no_topic(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    plain_queue(k, "q");
    assert_int_equal(create(k, 5, "q", 1)->error_code, KAFKA_ERR_INVALID_TOPIC_EXCEPTION);
    assert_int_equal(delete_one(k, "q"), KAFKA_ERR_INVALID_TOPIC_EXCEPTION);
    assert_int_equal(grow(k, "q", 3), KAFKA_ERR_INVALID_TOPIC_EXCEPTION);
    assert_int_equal(trim(k, "q", 0, -1)->error_code, KAFKA_ERR_INVALID_TOPIC_EXCEPTION);
    assert_non_null(queue_named(k, "q"));
    assert_int_equal(create(k, 5, "amq.mine", 1)->error_code, KAFKA_ERR_INVALID_TOPIC_EXCEPTION);
    assert_int_equal(create(k, 5, "many", 1025)->error_code, KAFKA_ERR_INVALID_PARTITIONS);
    krig_free(k);
}

static void rights(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    krig_topic(k, "t", 1, false);
    permit(k, "^mine", ".*", ".*");
    assert_int_equal(create(k, 5, "other", 1)->error_code, KAFKA_ERR_TOPIC_AUTHORIZATION_FAILED);
    assert_int_equal(create(k, 5, "mine", 1)->error_code, 0);
    assert_int_equal(delete_one(k, "t"), KAFKA_ERR_TOPIC_AUTHORIZATION_FAILED);
    assert_int_equal(grow(k, "t", 2), KAFKA_ERR_TOPIC_AUTHORIZATION_FAILED);
    assert_int_equal(trim(k, "t", 0, -1)->error_code, KAFKA_ERR_TOPIC_AUTHORIZATION_FAILED);
    assert_int_equal(grow(k, "mine", 2), 0);
    permit(k, "", "", "");
    assert_int_equal(delete_one(k, "t"), KAFKA_ERR_TOPIC_AUTHORIZATION_FAILED);
    assert_int_equal(delete_one(k, "none"), KAFKA_ERR_TOPIC_AUTHORIZATION_FAILED); /* whether it is there or not */
    krig_free(k);
}

/* Records of a compacted topic are not given up by offset. */
static void trims(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    struct krig_batch b;
    krig_topic(k, "t", 2, false);
    krig_topic(k, "c", 1, true);
    assert_int_equal(krig_produce(k, "t", 1, krig_batch(k, &b, 0, 5, false))->error_code, 0);
    assert_int_equal(trim(k, "t", 1, 3)->low_watermark, 3);
    assert_int_equal(trim(k, "t", 1, 6)->error_code, KAFKA_ERR_OFFSET_OUT_OF_RANGE);
    assert_int_equal(trim(k, "t", 2, 0)->error_code, KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(trim(k, "t", 70000, 0)->error_code, KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(trim(k, "c", 0, -1)->error_code, KAFKA_ERR_POLICY_VIOLATION);
    assert_int_equal(trim(k, "t", 1, -1)->low_watermark, 5);
    assert_int_equal(trim(k, "t", 0, -1)->low_watermark, 0);
    krig_free(k);
}

/* Nobody is told of what the journal does not have. */
static void not_before_it_is_durable(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    krig_topic(k, "t", 1, false);
    k->core->hold = true;
    struct kafka_create_topics_request_topic topic = {
        .name = slice_str("new"), .num_partitions = 1, .replication_factor = 1};
    struct kafka_create_partitions_request_topic more = {.name = slice_str("t"), .count = 2, .assignments = {NULL, -1}};
    struct slice names[] = {slice_str("t")};
    assert_null(KASK(k, create_topics, 5, .topics = {&topic, 1}));
    assert_null(KASK(k, create_partitions, 3, .topics = {&more, 1}));
    assert_null(KASK(k, delete_topics, 5, .topic_names = {names, 1}));
    k->core->hold = false;
    krig_settle(k);
    for (unsigned i = 0; i < 3; i++)
        assert_non_null(krig_take(k));
    krig_free(k);
}

/* A topic has up to 64 KiB of arguments, which come with each row of it: a request that names it again and again has an end. */
static void no_more_rows_than_so_many(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    static char text[30000];
    static struct kafka_metadata_request_topic asked[1500];
    memset(text, '1', sizeof text - 1);
    struct kafka_create_topics_request_config configs[] = {
        {slice_str("leader.replication.throttled.replicas"), slice_str(text)},
        {slice_str("follower.replication.throttled.replicas"), slice_str(text)}};
    struct kafka_create_topics_request_topic topic = {
        .name = slice_str("t"), .num_partitions = 1, .replication_factor = 1, .configs = {configs, 2}};
    assert_int_equal(KASK(k, create_topics, 5, .topics = {&topic, 1})->topics.at[0].error_code, 0);
    for (size_t i = 0; i < ARRAY_LEN(asked); i++)
        asked[i].name = slice_str("t");
    k->options.request_bytes_max = 1 << 20;
    const struct kafka_metadata_response *said = KASK(k, metadata, 9, .topics = {asked, 1000});
    assert_non_null(said);
    assert_int_equal(said->topics.count, 1);
    assert_null(KASK(k, metadata, 9, .topics = {asked, ARRAY_LEN(asked)}));
    krig_free(k);
}

static void storm(struct krig *k)
{
    struct kafka_create_topics_request_config configs[] = {{slice_str("retention.ms"), slice_str("1000")}};
    struct kafka_create_topics_request_topic topics[] = {
        {.name = slice_str("a"), .num_partitions = 2, .replication_factor = 1, .configs = {configs, 1}},
        {.name = slice_str("b"), .num_partitions = 0, .replication_factor = 1}};
    struct kafka_metadata_request_topic asked[] = {{.name = slice_str("a")}, {.name = slice_str("c")}};
    struct kafka_create_partitions_request_topic more = {.name = slice_str("a"), .count = 4, .assignments = {NULL, -1}};
    struct kafka_delete_records_request_partition part = {.partition_index = 0, .offset = -1};
    struct kafka_delete_records_request_topic trimmed = {.name = slice_str("a"), .partitions = {&part, 1}};
    struct kafka_delete_topics_request_topic gone[] = {{.name = slice_str("a")},
                                                       {.topic_id = {{1, 2, 3, 4, 5, 6, 7, 8}}}};
    krig_put(k, KAFKA_API_create_topics, 7, &(struct kafka_create_topics_request){.topics = {topics, 2}});
    krig_put(k, KAFKA_API_metadata, 12,
             &(struct kafka_metadata_request){.topics = {asked, 2}, .allow_auto_topic_creation = true});
    krig_put(k, KAFKA_API_create_partitions, 3, &(struct kafka_create_partitions_request){.topics = {&more, 1}});
    krig_put(k, KAFKA_API_delete_records, 2, &(struct kafka_delete_records_request){.topics = {&trimmed, 1}});
    krig_put(k, KAFKA_API_describe_topic_partitions, 0,
             &(struct kafka_describe_topic_partitions_request){.response_partition_limit = 1});
    krig_put(k, KAFKA_API_delete_topics, 6, &(struct kafka_delete_topics_request){.topics = {gone, 2}});
}

/* A connection without memory ends; the broker's state is in order, and others go on. */
static void each_allocation(void **state)
{
    (void)state;
    for (uint64_t n = 1;; n++) {
        struct krig *k = krig_ready();
        mem_fail_at(n, false);
        storm(k);
        krig_settle(k);
        uint64_t hit = mem_failures_hit();
        mem_fail_at(0, false);
        if (!hit)
            for (unsigned i = 0; i < 6; i++)
                assert_non_null(krig_take(k));
        krig_close(k);
        krig_settle(k);
        k->out_len = 0;
        broker_check(k->core->b);
        krig_open(k);
        assert_int_equal(create(k, 5, "after", 1)->error_code, 0);
        krig_free(k);
        if (!hit)
            return;
    }
}

/* The requests come in pieces, and the connection ends between any two. */
static void ends_anywhere(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    storm(k);
    size_t len = k->in_len;
    k->in_len = 0;
    for (size_t i = 0; i < len; i += 3) {
        storm(k);
        k->in_len = i;
        for (size_t turns = 0; turns < i % 7; turns++)
            krig_turn(k);
        krig_close(k);
        krig_settle(k);
        krig_open(k);
    }
    broker_check(k->core->b);
    krig_free(k);
}

static void damaged_requests(void **state)
{
    (void)state;
    krig_damage(storm, 2000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_every_version),
        cmocka_unit_test(a_queue_is_no_topic),
        cmocka_unit_test(rights),
        cmocka_unit_test(trims),
        cmocka_unit_test(not_before_it_is_durable),
        cmocka_unit_test(no_more_rows_than_so_many),
        cmocka_unit_test(each_allocation),
        cmocka_unit_test(ends_anywhere),
        cmocka_unit_test(damaged_requests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
