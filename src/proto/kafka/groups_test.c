/* Consumer groups of Kafka clients. What their answers are held against is tests/clients/kafka_cases_groups.py, recorded from a real
 * Kafka; here is what that cannot have: what is not durable yet, connections that end, rights, memory, long lists. */
#include "proto/kafka/group_asked.h"
#include "proto/kafka/names.h"
#include "proto/kafka/rig_test.h"

static const struct kafka_join_group_response *take_join(struct krig *k)
{
    return krig_take(k);
}

static void put_join(struct krig *k, uint8_t version, const char *group, const char *member, const char *instance)
{
    static const uint8_t topics[] = {0, 0, 0, 0, 0, 1, 0, 1, 't', 255, 255, 255, 255}; /* a subscription to t */
    struct kafka_join_group_request_protocol protocol = {slice_str("range"), slice_of(topics, sizeof topics)};
    struct kafka_join_group_request ask = {.group_id = slice_str(group),
                                           .session_timeout_ms = 10000,
                                           .rebalance_timeout_ms = 20000,
                                           .member_id = slice_str(member),
                                           .protocol_type = slice_str("consumer"),
                                           .protocols = {&protocol, 1}};
    if (instance)
        ask.group_instance_id = slice_str(instance);
    krig_put(k, KAFKA_API_join_group, version, &ask);
}

/* The one member of the group, which is stable then. */
static struct slice member_of(struct krig *k, const char *group)
{
    put_join(k, 2, group, "", NULL);
    krig_settle(k);
    assert_null(take_join(k)); /* others may come */
    krig_pass(k, 600);
    const struct kafka_join_group_response *joined = take_join(k);
    assert_non_null(joined);
    assert_int_equal(joined->error_code, 0);
    assert_int_equal(joined->members.count, 1);
    struct kafka_sync_group_request_assignment all = {joined->member_id, slice_str("all")};
    const struct kafka_sync_group_response *said =
        KASK(k, sync_group, 3, .group_id = slice_str(group), .generation_id = 1, .member_id = joined->member_id,
             .assignments = {&all, 1});
    assert_non_null(said);
    assert_true(said->error_code == 0 && slice_is(said->assignment, "all"));
    return joined->member_id;
}

static int16_t beat(struct krig *k, const char *group, struct slice member, int32_t generation)
{
    const struct kafka_heartbeat_response *said =
        KASK(k, heartbeat, 3, .group_id = slice_str(group), .generation_id = generation, .member_id = member);
    assert_non_null(said);
    return said->error_code;
}

static const struct kafka_offset_commit_response *commit(struct krig *k, uint8_t version, const char *group,
                                                         const char *topic, int32_t partition, int64_t offset)
{
    struct kafka_offset_commit_request_partition part = {partition, offset, 3, slice_str("note")};
    struct kafka_offset_commit_request_topic one = {.name = slice_str(topic), .partitions = {&part, 1}};
    const struct kafka_topic *known =
        kafka_topic_find(CONTAINER_OF(k->engine, struct kafka, session.engine), slice_str(topic));
    if (known)
        kafka_topic_uuid(CONTAINER_OF(k->engine, struct kafka, session.engine), known->id, &one.topic_id);
    return KASK(k, offset_commit, version, .group_id = slice_str(group), .generation_id_or_member_epoch = -1,
                .member_id = slice_str(""), .topics = {&one, 1});
}

static int16_t committed(const struct kafka_offset_commit_response *said)
{
    assert_non_null(said);
    assert_true(said->topics.count == 1 && said->topics.at[0].partitions.count == 1);
    return said->topics.at[0].partitions.at[0].error_code;
}

static void an_answer_is_durable(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    krig_topic(k, "t", 1, false);
    assert_int_equal(committed(commit(k, 7, "g", "t", 0, 5)), 0);
    k->core->hold = true;
    assert_null(commit(k, 7, "g", "t", 0, 6));
    krig_put(k, KAFKA_API_offset_fetch, 5,
             &(struct kafka_offset_fetch_request){.group_id = slice_str("g"), .topics = {NULL, -1}});
    krig_settle(k);
    assert_null(krig_take(k)); /* it would show what a power cut may take back */
    k->core->hold = false;
    krig_settle(k);
    assert_int_equal(committed(krig_take(k)), 0);
    const struct kafka_offset_fetch_response *said = krig_take(k);
    assert_non_null(said);
    assert_int_equal(said->topics.at[0].partitions.at[0].committed_offset, 6);
    krig_free(k);
}

static void a_connection_ends_while_it_joins(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    put_join(k, 2, "g", "", NULL);
    krig_settle(k);
    assert_int_equal(k->core->b->groups.count, 1);
    krig_close(k);
    krig_settle(k);
    krig_open(k);
    assert_non_null(KASK(k, init_producer_id, 1, .transaction_timeout_ms = 1000));
    struct slice member = member_of(k, "g"); /* alone: nobody knew the first one's id */
    assert_int_equal(beat(k, "g", member, 1), 0);
    put_join(k, 5, "g", "", "i");
    krig_settle(k);
    assert_int_equal(k->answered, k->sent - 1);
    krig_close(k); /* with a JOIN and nothing else */
    krig_free(k);
}

/* What is asked behind a JOIN that is held is answered behind it. */
static void answers_stay_in_order(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    put_join(k, 2, "g", "", NULL);
    krig_put(k, KAFKA_API_find_coordinator, 0, &(struct kafka_find_coordinator_request){.key = slice_str("g")});
    krig_settle(k);
    assert_null(krig_take(k));
    krig_pass(k, 400);
    assert_int_equal(take_join(k)->error_code, 0);
    const struct kafka_find_coordinator_response *said = krig_take(k);
    assert_true(said->error_code == 0 && said->node_id == 1 && said->port == 9092 && slice_is(said->host, "127.0.0.1"));
    krig_free(k);
}

static void a_topic_is_made_again(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    krig_topic(k, "t", 1, false);
    assert_int_equal(committed(commit(k, 7, "g", "t", 0, 5)), 0);
    struct slice name = slice_str("t");
    struct vhost *vhost = vhost_find(k->core->b, slice_str("/"));
    queue_delete(k->core->b, queue_find(vhost, name));
    krig_settle(k);
    assert_int_equal(committed(commit(k, 10, "g", "t", 0, 5)), KAFKA_ERR_UNKNOWN_TOPIC_ID); /* an id that was */
    krig_topic(k, "t", 1, false);
    assert_int_equal(committed(commit(k, 7, "g", "t", 0, 6)),
                     KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION);       /* the name as it was */
    assert_int_equal(committed(commit(k, 7, "g", "t", 0, 6)), 0); /* it has been looked up again */
    assert_int_equal(committed(commit(k, 10, "g", "t", 0, 7)), 0);
    krig_free(k);
}

static void offsets_of_all_topics(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    krig_topic(k, "t", 3, false);
    krig_topic(k, "a", 1, false);
    for (int32_t i = 2; i >= 0; i--)
        assert_int_equal(committed(commit(k, 7, "g", "t", i, 10 + i)), 0);
    assert_int_equal(committed(commit(k, 7, "g", "a", 0, 5)), 0);
    assert_int_equal(committed(commit(k, 7, "h", "a", 0, 6)), 0);
    for (uint8_t version = 8; version <= 10; version++) {
        struct kafka_offset_fetch_request_group groups[] = {
            {.group_id = slice_str("h"), .member_epoch = -1, .topics = {NULL, -1}},
            {.group_id = slice_str("none"), .member_epoch = -1, .topics = {NULL, -1}},
            {.group_id = slice_str("g"), .member_epoch = -1, .topics = {NULL, -1}}};
        const struct kafka_offset_fetch_response *said = KASK(k, offset_fetch, version, .groups = {groups, 3});
        assert_int_equal(said->groups.count, 3);
        assert_true(said->groups.at[0].topics.count == 1 && said->groups.at[1].topics.count == 0);
        assert_int_equal(said->groups.at[0].topics.at[0].partitions.at[0].committed_offset, 6);
        assert_int_equal(said->groups.at[2].topics.count, 2);
        const struct kafka_offset_fetch_response_group_topic *t = &said->groups.at[2].topics.at[0];
        assert_int_equal(t->partitions.count, 3);
        for (int32_t i = 0; i < 3; i++) {
            assert_int_equal(t->partitions.at[i].partition_index, i);
            assert_int_equal(t->partitions.at[i].committed_offset, 10 + i);
            assert_int_equal(t->partitions.at[i].committed_leader_epoch, 3);
            assert_true(slice_is(t->partitions.at[i].metadata, "note"));
        }
        if (version < 10)
            assert_true(slice_is(t->name, "t"));
        uint64_t id;
        if (version >= 10)
            assert_true(kafka_topic_of_uuid(CONTAINER_OF(k->engine, struct kafka, session.engine), &t->topic_id, &id) &&
                        id == queue_find(vhost_find(k->core->b, slice_str("/")), slice_str("t"))->id);
    }
    krig_free(k);
}

static void permit(struct krig *k, const char *configure, const char *read)
{
    char why[200];
    assert_true(permission_put(k->core->b, user_find(k->core->b, slice_str("guest")),
                               vhost_find(k->core->b, slice_str("/")), slice_str(configure), slice_str(".*"),
                               slice_str(read), why, sizeof why));
}

static void rights(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    struct slice names[] = {slice_str("g"), slice_str("other"), slice_str("g")};
    krig_topic(k, "t", 1, false);
    krig_topic(k, "secret", 1, false);
    assert_int_equal(committed(commit(k, 7, "g", "t", 0, 5)), 0);
    assert_int_equal(committed(commit(k, 7, "other", "t", 0, 5)), 0);
    permit(k, "^$", "^(g|t)$");
    assert_int_equal(committed(commit(k, 7, "g", "t", 0, 5)), 0);
    assert_int_equal(committed(commit(k, 7, "g", "secret", 0, 5)), KAFKA_ERR_TOPIC_AUTHORIZATION_FAILED);
    assert_int_equal(committed(commit(k, 7, "other", "t", 0, 5)), KAFKA_ERR_GROUP_AUTHORIZATION_FAILED);
    const struct kafka_list_groups_response *list = KASK(k, list_groups, 4, .states_filter = {NULL, 0});
    assert_true(list->groups.count == 1 && slice_is(list->groups.at[0].group_id, "g"));
    const struct kafka_describe_groups_response *said = KASK(k, describe_groups, 5, .groups = {names, 3});
    assert_int_equal(said->groups.at[0].error_code, 0);
    assert_int_equal(said->groups.at[1].error_code, KAFKA_ERR_GROUP_AUTHORIZATION_FAILED);
    assert_int_equal(said->groups.at[2].error_code, KAFKA_ERR_INVALID_REQUEST); /* it was told of already */
    const struct kafka_consumer_group_describe_response *consumers =
        KASK(k, consumer_group_describe, 0, .group_ids = {names, 3});
    assert_int_equal(consumers->groups.at[0].error_code, KAFKA_ERR_GROUP_ID_NOT_FOUND); /* which it is not */
    assert_int_equal(consumers->groups.at[2].error_code, KAFKA_ERR_INVALID_REQUEST);
    const struct kafka_delete_groups_response *gone = KASK(k, delete_groups, 2, .groups_names = {names, 1});
    assert_int_equal(gone->results.at[0].error_code, KAFKA_ERR_GROUP_AUTHORIZATION_FAILED);
    put_join(k, 2, "other", "", NULL);
    krig_settle(k);
    assert_int_equal(take_join(k)->error_code, KAFKA_ERR_GROUP_AUTHORIZATION_FAILED);
    krig_free(k);
}

static void a_long_list(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    k->core->check = false;
    krig_topic(k, "t", 1, false);
    for (int i = 0; i < 2100; i++) {
        char name[20];
        snprintf(name, sizeof name, "group %d", i);
        assert_int_equal(committed(commit(k, 7, name, "t", 0, 5)), 0);
        arena_reset(&k->arena);
    }
    const struct kafka_list_groups_response *list = KASK(k, list_groups, 5, .states_filter = {NULL, 0});
    assert_int_equal(list->groups.count, 2100);
    assert_true(slice_is(list->groups.at[2099].group_id, "group 2099"));
    krig_free(k);
}

static void long_names(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    char name[400];
    memset(name, 'x', sizeof name);
    name[300] = '\0';
    assert_int_equal(beat(k, name, slice_str("m"), 1), KAFKA_ERR_INVALID_GROUP_ID);
    assert_int_equal(beat(k, "g", slice_str(name), 1), KAFKA_ERR_UNKNOWN_MEMBER_ID);
    struct kafka_leave_group_request_member members[] = {{slice_str(name), slice_str(""), slice_str("")}};
    assert_int_equal(KASK(k, leave_group, 3, .group_id = slice_str("g"), .members = {members, 1})->error_code,
                     KAFKA_ERR_INVALID_REQUEST); /* it fits into no operand */
    put_join(k, 5, "g", "", name);
    krig_settle(k);
    assert_int_equal(take_join(k)->error_code, KAFKA_ERR_INVALID_REQUEST);
    krig_free(k);
}

static void offsets_that_members_read_stay(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    krig_topic(k, "t", 1, false);
    krig_topic(k, "u", 1, false);
    assert_int_equal(committed(commit(k, 7, "g", "t", 0, 5)), 0);
    assert_int_equal(committed(commit(k, 7, "g", "u", 0, 5)), 0);
    (void)member_of(k, "g");
    struct kafka_offset_delete_request_partition part = {0};
    struct kafka_offset_delete_request_topic topics[] = {{slice_str("t"), {&part, 1}}, {slice_str("u"), {&part, 1}}};
    const struct kafka_offset_delete_response *said =
        KASK(k, offset_delete, 0, .group_id = slice_str("g"), .topics = {topics, 2});
    assert_int_equal(said->topics.at[0].partitions.at[0].error_code, KAFKA_ERR_GROUP_SUBSCRIBED_TO_TOPIC);
    assert_int_equal(said->topics.at[1].partitions.at[0].error_code, 0);
    struct kafka_offset_fetch_request_group all = {
        .group_id = slice_str("g"), .member_epoch = -1, .topics = {NULL, -1}};
    const struct kafka_offset_fetch_response *left = KASK(k, offset_fetch, 8, .groups = {&all, 1});
    assert_true(left->groups.at[0].topics.count == 1 && slice_is(left->groups.at[0].topics.at[0].name, "t"));
    struct kafka_offset_fetch_request_group twice[] = {all, all};
    left = KASK(k, offset_fetch, 8, .groups = {twice, 2});
    assert_true(left->groups.at[0].error_code == 0 && left->groups.at[0].topics.count == 1);
    assert_int_equal(left->groups.at[1].error_code, KAFKA_ERR_INVALID_REQUEST); /* it was told of already */
    assert_int_equal(left->groups.at[1].topics.count, 0);
    krig_free(k);
}

/* ---- groups in which the broker assigns ---- */

static const struct kafka_consumer_group_heartbeat_response *share_at(struct krig *k, uint8_t version,
                                                                      const char *member, int32_t epoch,
                                                                      const char *assignor)
{
    struct slice topics[] = {slice_str("t")};
    struct kafka_consumer_group_heartbeat_request ask = {.group_id = slice_str("g"),
                                                         .member_id = slice_str(member),
                                                         .member_epoch = epoch,
                                                         .rebalance_timeout_ms = 5000,
                                                         .subscribed_topic_names = {topics, 1},
                                                         .topic_partitions = {NULL, 0}};
    if (assignor)
        ask.server_assignor = slice_str(assignor);
    return krig_ask(k, KAFKA_API_consumer_group_heartbeat, version, &ask);
}

static void the_broker_assigns(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    struct slice names[] = {slice_str("g"), slice_str("none")};
    krig_topic(k, "t", 3, false);
    const struct kafka_consumer_group_heartbeat_response *said = share_at(k, 0, "", 0, NULL); /* it is given an id */
    assert_int_equal(said->error_code, 0);
    assert_true(said->member_id.len > 0 && said->member_epoch == 1 && said->heartbeat_interval_ms == 5000);
    assert_int_equal(said->assignment->topic_partitions.count, 1);
    assert_int_equal(said->assignment->topic_partitions.at[0].partitions.count, 3);
    uint64_t id;
    assert_true(kafka_topic_of_uuid(CONTAINER_OF(k->engine, struct kafka, session.engine),
                                    &said->assignment->topic_partitions.at[0].topic_id, &id));
    assert_int_equal(id, queue_find(vhost_find(k->core->b, slice_str("/")), slice_str("t"))->id);
    struct slice member = said->member_id;
    said = KASK(k, consumer_group_heartbeat, 1, .group_id = slice_str("g"), .member_id = member, .member_epoch = 1,
                .rebalance_timeout_ms = -1, .subscribed_topic_names = {NULL, -1}, .topic_partitions = {NULL, -1});
    assert_true(said->error_code == 0 && said->member_epoch == 1 && !said->assignment);
    const struct kafka_consumer_group_describe_response *all =
        KASK(k, consumer_group_describe, 1, .group_ids = {names, 2}, .include_authorized_operations = true);
    assert_true(all->groups.count == 2 && all->groups.at[1].error_code == KAFKA_ERR_GROUP_ID_NOT_FOUND);
    const struct kafka_consumer_group_describe_response_group *g = &all->groups.at[0];
    assert_true(slice_is(g->group_state, "Stable") && g->group_epoch == 1 && g->assignment_epoch == 1);
    assert_true(slice_is(g->assignor_name, "uniform") && g->members.count == 1 && g->authorized_operations == 328);
    assert_true(slice_is(g->members.at[0].client_host, "/127.0.0.1") && slice_is(g->members.at[0].client_id, "rig"));
    assert_true(slice_is(g->members.at[0].assignment->topic_partitions.at[0].topic_name, "t"));
    assert_int_equal(g->members.at[0].target_assignment->topic_partitions.at[0].partitions.count, 3);
    assert_true(slice_is(g->members.at[0].subscribed_topic_names.at[0], "t"));
    const struct kafka_list_groups_response *list = KASK(k, list_groups, 5, .states_filter = {NULL, 0});
    assert_true(slice_is(list->groups.at[0].group_type, "consumer") &&
                slice_is(list->groups.at[0].group_state, "Stable"));
    struct slice types[] = {slice_str("classic"), slice_str("Consumer")};
    list = KASK(k, list_groups, 5, .states_filter = {NULL, 0}, .types_filter = {types, 1});
    assert_int_equal(list->groups.count, 0);
    list = KASK(k, list_groups, 5, .states_filter = {NULL, 0}, .types_filter = {types + 1, 1});
    assert_int_equal(list->groups.count, 1);
    said = KASK(k, consumer_group_heartbeat, 1, .group_id = slice_str("g"), .member_id = member, .member_epoch = -1);
    assert_true(said->error_code == 0 && said->member_epoch == -1);
    krig_free(k);
}

static void what_heartbeats_are_refused(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    krig_topic(k, "t", 1, false);
    assert_int_equal(share_at(k, 1, "", 0, NULL)->error_code, KAFKA_ERR_INVALID_REQUEST);
    assert_int_equal(share_at(k, 1, "m", -3, NULL)->error_code, KAFKA_ERR_INVALID_REQUEST);
    assert_int_equal(share_at(k, 1, "m", -2, NULL)->error_code, KAFKA_ERR_INVALID_REQUEST);
    assert_int_equal(share_at(k, 1, "m", 0, "none such")->error_code, KAFKA_ERR_UNSUPPORTED_ASSIGNOR);
    assert_int_equal(share_at(k, 1, "m", 4, NULL)->error_code, KAFKA_ERR_UNKNOWN_MEMBER_ID);
    assert_int_equal(share_at(k, 1, "m", 0, "range")->error_code, 0);
    assert_int_equal(share_at(k, 1, "m", 4, NULL)->error_code, KAFKA_ERR_FENCED_MEMBER_EPOCH);
    const struct kafka_consumer_group_heartbeat_response *said = KASK(
        k, consumer_group_heartbeat, 1, .group_id = slice_str("g"), .member_id = slice_str("n"),
        .rebalance_timeout_ms = 5000, .subscribed_topic_names = {NULL, -1}, .subscribed_topic_regex = slice_str("t("));
    assert_int_equal(said->error_code, KAFKA_ERR_INVALID_REGULAR_EXPRESSION);
    struct kafka_offset_commit_request_partition part = {0, 5, 3, slice_str("note")};
    struct kafka_offset_commit_request_topic one = {.name = slice_str("t"), .partitions = {&part, 1}};
    assert_int_equal(committed(KASK(k, offset_commit, 9, .group_id = slice_str("g"), .generation_id_or_member_epoch = 7,
                                    .member_id = slice_str("m"), .topics = {&one, 1})),
                     KAFKA_ERR_STALE_MEMBER_EPOCH);
    assert_int_equal(committed(KASK(k, offset_commit, 9, .group_id = slice_str("g"), .generation_id_or_member_epoch = 1,
                                    .member_id = slice_str("m"), .topics = {&one, 1})),
                     0);
    struct kafka_offset_fetch_request_group group = {
        .group_id = slice_str("g"), .member_id = slice_str("m"), .member_epoch = 7, .topics = {NULL, -1}};
    assert_int_equal(KASK(k, offset_fetch, 9, .groups = {&group, 1})->groups.at[0].error_code,
                     KAFKA_ERR_STALE_MEMBER_EPOCH);
    krig_free(k);
}

/* Nine questions, one of which is held for a while. */
static void storm(struct krig *k)
{
    struct slice names[] = {slice_str("g")};
    struct kafka_offset_commit_request_partition part = {0, 5, 3, slice_str("note")};
    struct kafka_offset_commit_request_topic one = {.name = slice_str("t"), .partitions = {&part, 1}};
    struct kafka_offset_fetch_request_group all[] = {
        {.group_id = slice_str("h"), .member_epoch = -1, .topics = {NULL, -1}},
        {.group_id = slice_str("g"), .member_epoch = -1, .topics = {NULL, -1}}};
    struct kafka_offset_delete_request_partition gone = {0};
    struct kafka_offset_delete_request_topic topic = {slice_str("t"), {&gone, 1}};
    struct slice topics[] = {slice_str("t")}, shared[] = {slice_str("s")};
    krig_put(k, KAFKA_API_consumer_group_heartbeat, 0,
             &(struct kafka_consumer_group_heartbeat_request){.group_id = slice_str("s"),
                                                              .member_id = slice_str(""),
                                                              .rebalance_timeout_ms = 5000,
                                                              .subscribed_topic_names = {topics, 1},
                                                              .topic_partitions = {NULL, 0}});
    krig_put(k, KAFKA_API_consumer_group_describe, 1,
             &(struct kafka_consumer_group_describe_request){.group_ids = {shared, 1}});
    put_join(k, 2, "g", "", NULL);
    krig_put(k, KAFKA_API_offset_commit, 7,
             &(struct kafka_offset_commit_request){.group_id = slice_str("h"),
                                                   .generation_id_or_member_epoch = -1,
                                                   .member_id = slice_str(""),
                                                   .topics = {&one, 1}});
    krig_put(k, KAFKA_API_offset_fetch, 8, &(struct kafka_offset_fetch_request){.groups = {all, 2}});
    krig_put(k, KAFKA_API_list_groups, 4, &(struct kafka_list_groups_request){.states_filter = {NULL, 0}});
    krig_put(k, KAFKA_API_describe_groups, 5, &(struct kafka_describe_groups_request){.groups = {names, 1}});
    krig_put(k, KAFKA_API_delete_groups, 2, &(struct kafka_delete_groups_request){.groups_names = {names, 1}});
    krig_put(k, KAFKA_API_offset_delete, 0,
             &(struct kafka_offset_delete_request){.group_id = slice_str("h"), .topics = {&topic, 1}});
}

/* A connection without memory ends; the broker's state is in order, and others go on. */
static void each_allocation(void **state)
{
    (void)state;
    for (uint64_t n = 1, hit = 1; hit; n++) {
        struct krig *k = krig_ready();
        krig_topic(k, "t", 1, false);
        mem_fail_at(n, false);
        storm(k);
        krig_settle(k);
        if (k->engine)
            krig_pass(k, 300);
        hit = mem_failures_hit();
        mem_fail_at(0, false);
        for (unsigned i = 0; i < 9 && !hit; i++)
            assert_non_null(krig_take(k));
        krig_close(k);
        krig_settle(k);
        k->out_len = 0;
        broker_check(k->core->b);
        krig_open(k);
        assert_int_equal(committed(commit(k, 7, "after", "t", 0, 5)), 0);
        krig_free(k);
    }
}

/* The requests come in pieces, and the connection ends between any two. */
static void ends_anywhere(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    krig_topic(k, "t", 1, false);
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
        k->out_len = 0;
        krig_open(k);
    }
    krig_free(k);
}

/* While there is no slot for a command, nothing is made for it: a request that is looked at again and again does not grow. */
static void a_full_ring_costs_nothing(void **state)
{
    (void)state;
    enum { MANY = 9000 };
    struct krig *k = krig_ready();
    int32_t zero = 0;
    krig_topic(k, "t", 1, false);
    struct kafka_offset_fetch_request_group_topic topic = {.name = slice_str("t"), .partition_indexes = {&zero, 1}};
    struct kafka_offset_fetch_request_group *groups = calloc(MANY, sizeof *groups);
    char(*names)[8] = calloc(MANY, sizeof *names);
    for (unsigned i = 0; i < MANY; i++) {
        snprintf(names[i], sizeof names[i], "g%u", i);
        groups[i] = (struct kafka_offset_fetch_request_group){.group_id = slice_str(names[i]), .topics = {&topic, 1}};
    }
    krig_put(k, KAFKA_API_offset_fetch, 8, &(struct kafka_offset_fetch_request){.groups = {groups, MANY}});
    struct kafka *engine = CONTAINER_OF(k->engine, struct kafka, session.engine);
    for (unsigned i = 0; i < 100 && hub_room(k->hub); i++)
        krig_turn(k);
    assert_int_equal(hub_room(k->hub), 0);
    assert_non_null(engine->going);
    size_t used = engine->going->arena.used;
    for (unsigned i = 0; i < 5; i++)
        engine->session.on_room(&engine->session);
    assert_int_equal(engine->going->arena.used, used);
    krig_settle(k);
    const struct kafka_offset_fetch_response *said = krig_take(k);
    assert_non_null(said);
    assert_int_equal(said->groups.count, MANY);
    free(groups);
    free(names);
    krig_free(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer_is_durable),
        cmocka_unit_test(a_connection_ends_while_it_joins),
        cmocka_unit_test(answers_stay_in_order),
        cmocka_unit_test(a_topic_is_made_again),
        cmocka_unit_test(offsets_of_all_topics),
        cmocka_unit_test(rights),
        cmocka_unit_test(a_long_list),
        cmocka_unit_test(a_full_ring_costs_nothing),
        cmocka_unit_test(long_names),
        cmocka_unit_test(offsets_that_members_read_stay),
        cmocka_unit_test(the_broker_assigns),
        cmocka_unit_test(what_heartbeats_are_refused),
        cmocka_unit_test(each_allocation),
        cmocka_unit_test(ends_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
