/* Metadata and its relatives: what there is, by name, by id, all of it; topics that are made when they are asked for. */
#include "proto/kafka/names.h"
#include "proto/kafka/rig_test.h"
#include "proto/kafka/topic_rules.h"

static const struct kafka_metadata_response_topic *topic_of(const struct kafka_metadata_response *said,
                                                            const char *name)
{
    for (int32_t i = 0; i < said->topics.count; i++)
        if (said->topics.at[i].name.ptr && slice_is(said->topics.at[i].name, name))
            return &said->topics.at[i];
    return NULL;
}

static const struct kafka_metadata_response *ask_all(struct krig *k, uint8_t version)
{
    return KASK(k, metadata, version, .topics = {NULL, version ? -1 : 0});
}

static const struct kafka_metadata_response *ask_names(struct krig *k, uint8_t version, bool create, const char *a,
                                                       const char *b)
{
    struct kafka_metadata_request_topic topics[] = {{.name = slice_str(a)}, {.name = slice_str(b ? b : "")}};
    return KASK(k, metadata, version, .topics = {topics, b ? 2 : 1}, .allow_auto_topic_creation = create,
                .include_topic_authorized_operations = true);
}

static void everything_in_every_version(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    krig_topic(k, "one", 1, false);
    krig_topic(k, "three", 3, false);
    for (uint8_t version = 0; version <= 13; version++) {
        const struct kafka_metadata_response *said = ask_all(k, version);
        assert_non_null(said);
        assert_int_equal(said->error_code, 0);
        assert_int_equal(said->brokers.count, 1);
        assert_int_equal(said->brokers.at[0].node_id, 1);
        assert_true(slice_is(said->brokers.at[0].host, "127.0.0.1"));
        assert_int_equal(said->brokers.at[0].port, 9092);
        assert_int_equal(said->topics.count, 2);
        const struct kafka_metadata_response_topic *three = topic_of(said, "three");
        assert_int_equal(three->error_code, 0);
        assert_int_equal(three->partitions.count, 3);
        for (int32_t i = 0; i < 3; i++) {
            const struct kafka_metadata_response_partition *p = &three->partitions.at[i];
            assert_int_equal(p->partition_index, i);
            assert_int_equal(p->leader_id, 1);
            assert_int_equal(p->leader_epoch, version >= 7 ? 0 : -1);
            assert_true(p->replica_nodes.count == 1 && p->isr_nodes.count == 1 && p->isr_nodes.at[0] == 1);
        }
        if (version >= 1)
            assert_int_equal(said->controller_id, 1);
        if (version >= 2)
            assert_true(slice_is(said->cluster_id, k->options.cluster_id));
    }
    krig_free(k);
}

static void by_name_and_by_id(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    krig_topic(k, "one", 1, false);
    const struct kafka_metadata_response *said = ask_names(k, 12, false, "one", "none");
    const struct kafka_metadata_response_topic *one = topic_of(said, "one");
    assert_int_equal(one->error_code, 0);
    assert_true(one->topic_authorized_operations & 1 << 3 && one->topic_authorized_operations & 1 << 6);
    assert_int_equal(topic_of(said, "none")->error_code, KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION);
    struct kafka_metadata_request_topic ids[] = {
        {.topic_id = one->topic_id}, {.topic_id = one->topic_id}, {.topic_id = {{9, 9}}}};
    ids[1].topic_id.bytes[15] ^= 64; /* of this store, of no stream */
    said = KASK(k, metadata, 12, .topics = {ids, 3});
    assert_int_equal(said->topics.count, 3);
    assert_true(slice_is(said->topics.at[0].name, "one"));
    assert_int_equal(said->topics.at[0].partitions.count, 1);
    for (int32_t i = 1; i < 3; i++) {
        assert_int_equal(said->topics.at[i].error_code, KAFKA_ERR_UNKNOWN_TOPIC_ID);
        assert_null(said->topics.at[i].name.ptr);
        assert_memory_equal(&said->topics.at[i].topic_id, &ids[i].topic_id, 16);
    }
    said = KASK(k, metadata, 10, .topics = {ids, 1});
    assert_int_equal(said->topics.at[0].error_code, KAFKA_ERR_INVALID_REQUEST);
    assert_int_equal(said->brokers.count, 0);
    said = ask_names(k, 9, true, "twice", "twice");
    assert_int_equal(said->topics.count, 1);
    assert_int_equal(said->topics.at[0].error_code, 0);
    assert_int_equal(KASK(k, metadata, 9, .topics = {ids, 0})->topics.count, 0); /* none is none, from version 1 on */
    krig_free(k);
}

static void made_when_asked_for(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    char longest[300];
    memset(longest, 'x', sizeof longest);
    longest[250] = '\0';
    k->options.partitions = 2;
    const struct kafka_metadata_response *said = ask_names(k, 9, true, "fresh", "bad name");
    assert_int_equal(topic_of(said, "fresh")->error_code, 0);
    assert_int_equal(topic_of(said, "fresh")->partitions.count, 2);
    assert_int_equal(topic_of(said, "bad name")->error_code, KAFKA_ERR_INVALID_TOPIC_EXCEPTION);
    assert_int_equal(ask_names(k, 9, true, longest, NULL)->topics.at[0].error_code, KAFKA_ERR_INVALID_TOPIC_EXCEPTION);
    longest[249] = '\0';
    assert_int_equal(ask_names(k, 9, true, longest, "..")->topics.at[0].error_code, 0);
    said = ask_names(k, 3, true, "old", NULL); /* who cannot say no means yes */
    assert_int_equal(said->topics.at[0].error_code, 0);
    k->options.auto_create = false;
    assert_int_equal(ask_names(k, 9, true, "not", NULL)->topics.at[0].error_code, KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(ask_all(k, 9)->topics.count, 3);
    struct queue *q = queue_find(vhost_find(k->core->b, slice_str("/")), slice_str("fresh"));
    assert_int_equal(q->rules->max_age_ms, 7 * 86400000); /* Kafka's default */
    krig_free(k);
}

/* The answer waits until the topic is durable. */
static void not_before_it_is_durable(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    k->core->hold = true;
    struct kafka_metadata_request_topic topic = {.name = slice_str("fresh")};
    assert_null(KASK(k, metadata, 9, .topics = {&topic, 1}, .allow_auto_topic_creation = true));
    k->core->hold = false;
    krig_settle(k);
    assert_non_null(krig_take(k));
    krig_free(k);
}

static void rights(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    char why[200];
    krig_topic(k, "mine", 1, false);
    krig_topic(k, "hers", 1, false);
    struct user *user = user_find(k->core->b, slice_str("guest"));
    struct vhost *vhost = vhost_find(k->core->b, slice_str("/"));
    assert_true(permission_put(k->core->b, user, vhost, slice_str(""), slice_str(""), slice_str("^(mine|new)$"), why,
                               sizeof why));
    const struct kafka_metadata_response *said = ask_names(k, 9, true, "mine", "hers");
    assert_int_equal(topic_of(said, "mine")->error_code, 0);
    assert_int_equal(topic_of(said, "mine")->topic_authorized_operations, 1 << 3 | 1 << 8 | 1 << 10);
    assert_int_equal(topic_of(said, "hers")->error_code, KAFKA_ERR_TOPIC_AUTHORIZATION_FAILED);
    said = ask_names(k, 9, true, "new", "other");
    assert_int_equal(topic_of(said, "new")->error_code, KAFKA_ERR_TOPIC_AUTHORIZATION_FAILED);
    assert_int_equal(topic_of(said, "other")->error_code, KAFKA_ERR_TOPIC_AUTHORIZATION_FAILED);
    assert_int_equal(ask_all(k, 9)->topics.count, 1);
    krig_free(k);
}

/* More than one answer of the core holds. */
static void thousands(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    static struct kafka_metadata_request_topic topics[2500];
    static char names[2500][8];
    k->core->check = false;
    for (unsigned i = 0; i < 2500; i++) {
        snprintf(names[i], sizeof names[i], "t%u", i);
        topics[i].name = slice_str(names[i]);
    }
    const struct kafka_metadata_response *said =
        KASK(k, metadata, 9, .topics = {topics, 2500}, .allow_auto_topic_creation = true);
    assert_non_null(said);
    assert_int_equal(said->topics.count, 2500);
    for (int32_t i = 0; i < 2500; i++) {
        assert_true(slice_is(said->topics.at[i].name, names[i]));
        assert_int_equal(said->topics.at[i].error_code, 0);
        assert_int_equal(said->topics.at[i].partitions.count, 1);
    }
    arena_reset(&k->arena);
    said = ask_all(k, 9);
    assert_int_equal(said->topics.count, 2500);
    krig_free(k);
}

static void the_cluster(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    for (uint8_t version = 0; version <= 2; version++) {
        const struct kafka_describe_cluster_response *said = KASK(k, describe_cluster, version, .endpoint_type = 1);
        assert_int_equal(said->error_code, 0);
        assert_int_equal(said->controller_id, 1);
        assert_int_equal(said->brokers.count, 1);
        assert_int_equal(said->brokers.at[0].port, 9092);
    }
    assert_int_equal(KASK(k, describe_cluster, 1, .endpoint_type = 2)->error_code, KAFKA_ERR_MISMATCHED_ENDPOINT_TYPE);
    assert_int_equal(KASK(k, describe_cluster, 1, .endpoint_type = 9)->error_code, KAFKA_ERR_UNSUPPORTED_ENDPOINT_TYPE);
    krig_free(k);
}

static void partitions_in_pages(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    krig_topic(k, "c", 1, false);
    krig_topic(k, "a", 2, false);
    krig_topic(k, "b", 3, false);
    char seen[64] = "";
    struct kafka_describe_topic_partitions_request_cursor cursor, *from = NULL;
    for (unsigned pages = 0; pages < 10; pages++) {
        const struct kafka_describe_topic_partitions_response *said =
            KASK(k, describe_topic_partitions, 0, .response_partition_limit = 2, .cursor = from);
        for (int32_t i = 0; i < said->topics.count; i++)
            for (int32_t p = 0; p < said->topics.at[i].partitions.count; p++)
                snprintf(seen + strlen(seen), sizeof seen - strlen(seen), "%.*s%d ", SLICE_ARG(said->topics.at[i].name),
                         said->topics.at[i].partitions.at[p].partition_index);
        if (!said->next_cursor)
            break;
        cursor.topic_name = said->next_cursor->topic_name;
        cursor.partition_index = said->next_cursor->partition_index;
        from = &cursor;
        snprintf(seen + strlen(seen), sizeof seen - strlen(seen), "| ");
    }
    assert_string_equal(seen, "a0 a1 | b0 b1 | b2 c0 ");
    struct kafka_describe_topic_partitions_request_topic topics[] = {{slice_str("none")}, {slice_str("a")}};
    const struct kafka_describe_topic_partitions_response *said =
        KASK(k, describe_topic_partitions, 0, .topics = {topics, 2}, .response_partition_limit = 2000);
    assert_int_equal(said->topics.count, 2);
    assert_int_equal(said->topics.at[0].partitions.count, 2);
    assert_int_equal(said->topics.at[1].error_code, KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION);
    krig_free(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_in_every_version),
        cmocka_unit_test(by_name_and_by_id),
        cmocka_unit_test(made_when_asked_for),
        cmocka_unit_test(not_before_it_is_durable),
        cmocka_unit_test(rights),
        cmocka_unit_test(thousands),
        cmocka_unit_test(the_cluster),
        cmocka_unit_test(partitions_in_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
