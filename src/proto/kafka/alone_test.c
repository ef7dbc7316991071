/* Questions about other brokers, rights and quotas: answered, in every version, and nothing changes. What a real Kafka of one broker
 * answers is the same, but for the tools' own words. */
#include "proto/kafka/rig_test.h"

static void rights_are_not_kept_here(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    struct kafka_create_acls_request_creation creation = {.resource_type = 2, .resource_name = slice_str("t")};
    struct kafka_delete_acls_request_filter filter = {.resource_type_filter = 2};
    for (uint8_t version = 0; version <= 3; version++) {
        assert_int_equal(KASK(k, describe_acls, version, .resource_type_filter = 1)->error_code,
                         KAFKA_ERR_SECURITY_DISABLED);
        const struct kafka_create_acls_response *made = KASK(k, create_acls, version, .creations = {&creation, 1});
        assert_int_equal(made->results.count, 1);
        assert_int_equal(made->results.at[0].error_code, KAFKA_ERR_SECURITY_DISABLED);
        const struct kafka_delete_acls_response *gone = KASK(k, delete_acls, version, .filters = {&filter, 1});
        assert_int_equal(gone->filter_results.count, 1);
        assert_int_equal(gone->filter_results.at[0].error_code, KAFKA_ERR_SECURITY_DISABLED);
    }
    for (uint8_t version = 0; version <= 1; version++)
        assert_int_equal(KASK(k, describe_client_quotas, version, .strict = false)->entries.count, 0);
    krig_free(k);
}

static void the_quorum_is_this_broker(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    struct kafka_describe_quorum_request_partition parts[] = {{0}, {1}};
    struct kafka_describe_quorum_request_topic topics[] = {{slice_str("__cluster_metadata"), {parts, 2}},
                                                           {slice_str("t"), {parts, 1}}};
    for (uint8_t version = 0; version <= 2; version++) {
        const struct kafka_describe_quorum_response *said = KASK(k, describe_quorum, version, .topics = {topics, 2});
        assert_int_equal(said->error_code, 0);
        assert_int_equal(said->topics.count, 2);
        const struct kafka_describe_quorum_response_partition *of = said->topics.at[0].partitions.at;
        assert_int_equal(of[0].error_code, 0);
        assert_int_equal(of[0].leader_id, k->options.node_id);
        assert_int_equal(of[0].current_voters.count, 1);
        assert_int_equal(of[0].current_voters.at[0].replica_id, k->options.node_id);
        assert_int_equal(of[0].observers.count, 0);
        assert_int_equal(of[1].error_code, KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION);
        assert_int_equal(said->topics.at[1].partitions.at[0].error_code, KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION);
        assert_int_equal(said->nodes.count, version >= 2);
    }
    krig_free(k);
}

static void leaders_stay(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    int32_t some[] = {0, 2};
    struct kafka_elect_leaders_request_topic topics[] = {{slice_str("t"), {some, 2}}, {slice_str("none"), {some, 1}}};
    krig_topic(k, "t", 2, false);
    for (uint8_t version = 0; version <= 2; version++) {
        const struct kafka_elect_leaders_response *said =
            KASK(k, elect_leaders, version, .topic_partitions = {topics, 2});
        assert_int_equal(said->error_code, 0);
        assert_int_equal(said->replica_election_results.at[0].partition_result.at[0].error_code,
                         KAFKA_ERR_ELECTION_NOT_NEEDED);
        assert_int_equal(said->replica_election_results.at[0].partition_result.at[1].error_code,
                         KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION);
        assert_int_equal(said->replica_election_results.at[1].partition_result.at[0].error_code,
                         KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION);
        said = KASK(k, elect_leaders, version, .topic_partitions = {NULL, -1});
        assert_int_equal(said->replica_election_results.count, 1);
        assert_int_equal(said->replica_election_results.at[0].partition_result.count, 0);
    }
    assert_int_equal(KASK(k, elect_leaders, 1, .election_type = 9, .topic_partitions = {topics, 1})->error_code,
                     KAFKA_ERR_INVALID_REQUEST);
    krig_free(k);
}

static void partitions_stay(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    int32_t here[] = {1, 1}, there[] = {2};
    struct kafka_alter_partition_reassignments_request_partition parts[] = {
        {0, {here, 1}}, {1, {NULL, -1}}, {0, {there, 1}}, {0, {here, 2}}, {0, {here, 0}}, {7, {here, 1}}};
    static const int16_t errors[] = {0,
                                     KAFKA_ERR_NO_REASSIGNMENT_IN_PROGRESS,
                                     KAFKA_ERR_INVALID_REPLICA_ASSIGNMENT,
                                     KAFKA_ERR_INVALID_REPLICA_ASSIGNMENT,
                                     KAFKA_ERR_INVALID_REPLICA_ASSIGNMENT,
                                     KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION};
    struct kafka_alter_partition_reassignments_request_topic topic = {slice_str("t"), {parts, 6}};
    krig_topic(k, "t", 2, false);
    const struct kafka_alter_partition_reassignments_response *said =
        KASK(k, alter_partition_reassignments, 1, .topics = {&topic, 1});
    assert_int_equal(said->responses.at[0].partitions.count, 6);
    for (size_t i = 0; i < ARRAY_LEN(errors); i++)
        assert_int_equal(said->responses.at[0].partitions.at[i].error_code, errors[i]);
    assert_int_equal(KASK(k, list_partition_reassignments, 0, .topics = {NULL, -1})->topics.count, 0);
    krig_free(k);
}

static void storm(struct krig *k)
{
    static int32_t some[] = {0, 2};
    struct kafka_elect_leaders_request_topic topics[] = {{slice_str("t"), {some, 2}}, {slice_str("none"), {some, 1}}};
    struct kafka_alter_partition_reassignments_request_partition part = {0, {some, 2}};
    struct kafka_alter_partition_reassignments_request_topic moved = {slice_str("t"), {&part, 1}};
    struct kafka_create_acls_request_creation creation = {.resource_type = 2, .resource_name = slice_str("t")};
    struct kafka_delete_acls_request_filter filter = {.resource_type_filter = 2};
    krig_put(k, KAFKA_API_describe_acls, 3, &(struct kafka_describe_acls_request){.resource_type_filter = 1});
    krig_put(k, KAFKA_API_create_acls, 3, &(struct kafka_create_acls_request){.creations = {&creation, 1}});
    krig_put(k, KAFKA_API_delete_acls, 3, &(struct kafka_delete_acls_request){.filters = {&filter, 1}});
    krig_put(k, KAFKA_API_elect_leaders, 2, &(struct kafka_elect_leaders_request){.topic_partitions = {topics, 2}});
    krig_put(k, KAFKA_API_elect_leaders, 2, &(struct kafka_elect_leaders_request){.topic_partitions = {NULL, -1}});
    krig_put(k, KAFKA_API_alter_partition_reassignments, 1,
             &(struct kafka_alter_partition_reassignments_request){.topics = {&moved, 1}});
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
        for (unsigned i = 0; !hit && i < 6; i++)
            assert_non_null(krig_take(k));
        krig_free(k);
        if (!hit)
            return;
    }
}

static void damaged_requests(void **state)
{
    (void)state;
    krig_damage(storm, 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_quorum_is_this_broker),
        cmocka_unit_test(rights_are_not_kept_here),
        cmocka_unit_test(leaders_stay),
        cmocka_unit_test(partitions_stay),
        cmocka_unit_test(each_allocation),
        cmocka_unit_test(damaged_requests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
