/* ShareFetch and ShareAcknowledge through the engine: sessions, limits, and the connection's account. */
#include "proto/kafka/names.h"
#include "proto/kafka/rig_test.h"
#include "proto/kafka/share_sessions.h"

#define PARTS_MAX 70000

static struct kafka *engine_of(struct krig *k)
{
    return CONTAINER_OF(k->engine, struct kafka, session.engine);
}

static struct kafka_uuid topic_id(struct krig *k, const char *name)
{
    struct queue *q = queue_find(vhost_find(k->core->b, slice_str("/")), slice_str(name));
    struct kafka_uuid uuid;
    kafka_topic_uuid(engine_of(k), q ? q->id : 0, &uuid);
    return uuid;
}

/* A topic "t" with four partitions that member m of group g reads. */
static struct krig *begin_sharing(void)
{
    struct krig *k = krig_ready();
    struct slice topic = slice_str("t");
    krig_topic(k, "t", 4, false);
    const struct kafka_share_group_heartbeat_response *said =
        KASK(k, share_group_heartbeat, 1, .group_id = slice_str("g"), .member_id = slice_str("m"),
             .subscribed_topic_names = {&topic, 1});
    assert_int_equal(said->error_code, 0);
    assert_int_equal(said->assignment->topic_partitions.at[0].partitions.count, 4);
    return k;
}

struct say { /* a ShareFetch; counts below 0 name so many partitions from 0 on */
    const char *member;
    int32_t epoch, wait_ms;
    int32_t partitions[8], count;
    int32_t forgotten[8], forgotten_count;
    struct kafka_share_fetch_request_acknowledgement_batch *batches; /* of the first partition */
    int32_t batch_count;
};

static void put_share_fetch(struct krig *k, const struct say *say)
{
    static struct kafka_share_fetch_request_partition parts[PARTS_MAX];
    static int32_t forgotten[PARTS_MAX];
    int32_t count = say->count < 0 ? -say->count : say->count;
    int32_t forgotten_count = say->forgotten_count < 0 ? -say->forgotten_count : say->forgotten_count;
    for (int32_t i = 0; i < count; i++)
        parts[i] =
            (struct kafka_share_fetch_request_partition){.partition_index = say->count < 0 ? i : say->partitions[i]};
    for (int32_t i = 0; i < forgotten_count; i++)
        forgotten[i] = say->forgotten_count < 0 ? i : say->forgotten[i];
    if (count)
        parts[0].acknowledgement_batches.at = say->batches;
    if (count)
        parts[0].acknowledgement_batches.count = say->batch_count;
    struct kafka_share_fetch_request_topic topic = {.topic_id = topic_id(k, "t"), .partitions = {parts, count}};
    struct kafka_share_fetch_request_forgotten_topic gone = {.topic_id = topic.topic_id,
                                                             .partitions = {forgotten, forgotten_count}};
    struct kafka_share_fetch_request ask = {.group_id = slice_str("g"),
                                            .member_id = slice_str(say->member ? say->member : "m"),
                                            .share_session_epoch = say->epoch,
                                            .max_wait_ms = say->wait_ms,
                                            .min_bytes = 1,
                                            .max_bytes = 1 << 20,
                                            .max_records = 500,
                                            .batch_size = 500,
                                            .topics = {&topic, count > 0},
                                            .forgotten_topics_data = {&gone, forgotten_count > 0}};
    krig_put(k, KAFKA_API_share_fetch, 1, &ask);
}

static const struct kafka_share_fetch_response *share_fetch(struct krig *k, const struct say *say)
{
    put_share_fetch(k, say);
    krig_settle(k);
    return krig_take(k);
}

static void produce(struct krig *k, int32_t partition)
{
    struct krig_batch b;
    assert_int_equal(krig_produce(k, "t", partition, krig_batch(k, &b, 0, 3, false))->error_code, 0);
}

/* "1 2": partitions of the answer, with how many records are acquired if there are some: "1:3" */
static const char *partitions_of(const struct kafka_share_fetch_response *said)
{
    static char text[200];
    size_t at = 0;
    assert_non_null(said);
    assert_int_equal(said->error_code, 0);
    text[0] = '\0';
    for (int32_t i = 0; i < said->responses.count; i++)
        for (int32_t n = 0; n < said->responses.at[i].partitions.count; n++) {
            const struct kafka_share_fetch_response_partition *p = &said->responses.at[i].partitions.at[n];
            assert_int_equal(p->error_code, 0);
            at += (size_t)snprintf(text + at, sizeof text - at, "%s%d", at ? " " : "", p->partition_index);
            for (int32_t a = 0; a < p->acquired_records.count; a++)
                at += (size_t)snprintf(
                    text + at, sizeof text - at, ":%d",
                    (int)(p->acquired_records.at[a].last_offset - p->acquired_records.at[a].first_offset + 1));
        }
    return text;
}

static void a_session_knows_its_partitions(void **state)
{
    (void)state;
    struct krig *k = begin_sharing();
    assert_string_equal(partitions_of(share_fetch(k, &(struct say){.partitions = {3, 1, 3, 0, 1}, .count = 5})), "");
    assert_int_equal(engine_of(k)->share_row_count, 3); /* each once */
    assert_string_equal(partitions_of(share_fetch(k, &(struct say){.epoch = 1})), "");
    for (int32_t p = 0; p < 4; p++)
        produce(k, p);
    assert_string_equal(
        partitions_of(share_fetch(
            k,
            &(struct say){.epoch = 2, .partitions = {2, 0}, .count = 2, .forgotten = {1, 1, 7}, .forgotten_count = 3})),
        "0:3 3:3"); /* the other one begins behind what there was when it came */
    produce(k, 1);
    produce(k, 2);
    assert_string_equal(partitions_of(share_fetch(k, &(struct say){.epoch = 3})), "2:3");
    struct kafka_share_fetch_request_acknowledgement_batch all = {
        .first_offset = 0, .last_offset = 2, .acknowledge_types = {(int8_t[]){1}, 1}};
    assert_string_equal(
        partitions_of(share_fetch(
            k, &(struct say){.epoch = 4, .partitions = {3}, .count = 1, .batches = &all, .batch_count = 1})),
        "3");
    assert_int_equal(engine_of(k)->share_row_count, 3);
    const struct kafka_share_fetch_response *said = share_fetch(k, &(struct say){.epoch = 4});
    assert_int_equal(said->error_code, KAFKA_ERR_INVALID_SHARE_SESSION_EPOCH);
    assert_string_equal(partitions_of(share_fetch(k, &(struct say){.epoch = -1})), "");
    assert_int_equal(engine_of(k)->share_row_count, 0);
    krig_free(k);
}

static void no_more_than_so_many_partitions(void **state)
{
    (void)state;
    struct krig *k = begin_sharing();
    k->core->check = false;
    put_share_fetch(k, &(struct say){.count = -(int)SHARE_ROWS_MAX});
    krig_settle(k);
    assert_true(k->out_len > SHARE_ROWS_MAX * 8); /* more than the rig would decode */
    k->out_len = 0;
    k->answered++;
    assert_int_equal(engine_of(k)->share_row_count, SHARE_ROWS_MAX);
    const struct kafka_share_fetch_response *said;
    said = share_fetch(k, &(struct say){.member = "n", .count = -1}); /* of another session on this connection */
    assert_int_equal(said->error_code, KAFKA_ERR_INVALID_REQUEST);
    said = share_fetch(k, &(struct say){.epoch = 1, .forgotten_count = -(int)SHARE_ROWS_MAX});
    assert_int_equal(said->error_code, 0);
    assert_int_equal(engine_of(k)->share_row_count, 0);
    said = share_fetch(k, &(struct say){.member = "o", .count = -1});
    assert_int_equal(said->error_code, 0);
    assert_null(share_fetch(k, &(struct say){.epoch = 2, .count = -1, .forgotten_count = -(int)SHARE_ROWS_MAX}));
    assert_null(k->engine); /* more than any client means */
    krig_free(k);
}

/* What is said of records is in the connection's account while something in front of it is waited for. */
static void what_is_said_counts(void **state)
{
    (void)state;
    enum { MANY = 200000 };
    struct krig *k = begin_sharing();
    int8_t *types = calloc(MANY, 1);
    struct kafka_share_acknowledge_request_acknowledgement_batch batch = {
        .first_offset = 0, .last_offset = MANY - 1, .acknowledge_types = {types, MANY}};
    struct kafka_share_acknowledge_request_partition part = {.acknowledgement_batches = {&batch, 1}};
    struct kafka_share_acknowledge_request_topic topic = {.topic_id = topic_id(k, "t"), .partitions = {&part, 1}};
    struct kafka_share_acknowledge_request ask = {
        .group_id = slice_str("g"), .member_id = slice_str("m"), .share_session_epoch = 2, .topics = {&topic, 1}};
    assert_non_null(share_fetch(k, &(struct say){.partitions = {0}, .count = 1}));
    put_share_fetch(k, &(struct say){.epoch = 1, .wait_ms = 1000});
    krig_put(k, KAFKA_API_share_acknowledge, 1, &ask);
    krig_settle(k);
    assert_true(engine_of(k)->inflight_bytes > 3 * MANY);
    krig_pass(k, 1100);
    assert_non_null(krig_take(k));
    const struct kafka_share_acknowledge_response *said = krig_take(k);
    assert_int_equal(said->responses.at[0].partitions.at[0].error_code, KAFKA_ERR_INVALID_REQUEST);
    assert_int_equal(engine_of(k)->inflight_bytes, 0);
    free(types);
    krig_free(k);
}

typedef struct kafka_describe_share_group_offsets_response_group described;

static const described *describe(struct krig *k, const char *group, bool all)
{
    int32_t partitions[] = {0, 2, 9};
    struct kafka_describe_share_group_offsets_request_topic topics[] = {
        {.topic_name = slice_str("t"), .partitions = {partitions, 3}},
        {.topic_name = slice_str("nix"), .partitions = {partitions, 1}}};
    struct kafka_describe_share_group_offsets_request_group one = {.group_id = slice_str(group),
                                                                   .topics = {topics, all ? -1 : 2}};
    const struct kafka_describe_share_group_offsets_response *said =
        KASK(k, describe_share_group_offsets, 1, .groups = {&one, 1});
    assert_int_equal(said->groups.count, 1);
    assert_true(slice_is(said->groups.at[0].group_id, group));
    return &said->groups.at[0];
}

static const struct kafka_alter_share_group_offsets_response *alter(struct krig *k, const char *group)
{
    struct kafka_alter_share_group_offsets_request_partition parts[] = {{2, 1}, {9, 0}};
    struct kafka_alter_share_group_offsets_request_topic topics[] = {
        {.topic_name = slice_str("t"), .partitions = {parts, 2}},
        {.topic_name = slice_str("nix"), .partitions = {parts, 1}}};
    return KASK(k, alter_share_group_offsets, 0, .group_id = slice_str(group), .topics = {topics, 2});
}

static void offsets_are_told_and_moved(void **state)
{
    (void)state;
    struct krig *k = begin_sharing();
    struct kafka_uuid id = topic_id(k, "t");
    assert_string_equal(partitions_of(share_fetch(k, &(struct say){.partitions = {0}, .count = 1})), "");
    produce(k, 0);
    assert_string_equal(partitions_of(share_fetch(k, &(struct say){.epoch = 1})), "0:3");
    const described *said = describe(k, "g", true); /* what it has read, and what its member is to read */
    assert_int_equal(said->error_code, 0);
    assert_int_equal(said->topics.count, 1);
    assert_true(slice_is(said->topics.at[0].topic_name, "t"));
    assert_memory_equal(&said->topics.at[0].topic_id, &id, sizeof id);
    assert_int_equal(said->topics.at[0].partitions.count, 4);
    assert_int_equal(said->topics.at[0].partitions.at[0].start_offset, 0);
    assert_int_equal(said->topics.at[0].partitions.at[0].lag, 3);
    assert_int_equal(said->topics.at[0].partitions.at[3].partition_index, 3);
    assert_int_equal(said->topics.at[0].partitions.at[3].start_offset, -1);
    said = describe(k, "g", false);
    assert_int_equal(said->topics.count, 2);
    assert_int_equal(said->topics.at[0].partitions.count, 3);
    assert_int_equal(said->topics.at[0].partitions.at[0].start_offset, 0);
    assert_int_equal(said->topics.at[0].partitions.at[2].start_offset, -1);
    assert_true(kafka_uuid_is_zero(&said->topics.at[1].topic_id));
    said = describe(k, "nobody", false);
    assert_int_equal(said->error_code, 0);
    assert_memory_equal(&said->topics.at[0].topic_id, &id, sizeof id);
    assert_int_equal(said->topics.at[0].partitions.at[0].lag, -1);
    assert_int_equal(describe(k, "nobody", true)->topics.count, 0);
    assert_int_equal(alter(k, "g")->error_code, KAFKA_ERR_NON_EMPTY_GROUP);
    assert_int_equal(alter(k, "")->error_code, KAFKA_ERR_INVALID_GROUP_ID);
    const struct kafka_alter_share_group_offsets_response *altered = alter(k, "other");
    assert_int_equal(altered->error_code, 0);
    assert_int_equal(altered->responses.count, 2);
    assert_int_equal(altered->responses.at[0].partitions.at[0].error_code, 0);
    assert_int_equal(altered->responses.at[0].partitions.at[1].error_code, KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(altered->responses.at[1].partitions.at[0].error_code, KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION);
    said = describe(k, "other", true);
    assert_int_equal(said->topics.at[0].partitions.at[0].start_offset, 1);
    struct kafka_delete_share_group_offsets_request_topic gone[] = {{.topic_name = slice_str("t")},
                                                                    {.topic_name = slice_str("nix")}};
    for (unsigned again = 0; again < 2; again++) {
        const struct kafka_delete_share_group_offsets_response *deleted =
            KASK(k, delete_share_group_offsets, 0, .group_id = slice_str("other"), .topics = {gone, 2});
        assert_int_equal(deleted->error_code, 0);
        assert_int_equal(deleted->responses.at[0].error_code, again ? KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION : 0);
        assert_int_equal(deleted->responses.at[1].error_code, KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION);
    }
    assert_int_equal(describe(k, "other", true)->topics.count, 0);
    krig_free(k);
}

/* The core looks at each partition of a topic that is to be forgotten, so at none twice; and moves no more than so many. */
static void offsets_of_topics_named_again(void **state)
{
    (void)state;
    struct krig *k = begin_sharing();
    krig_topic(k, "wide", 1000, false);
    static struct kafka_delete_share_group_offsets_request_topic many[5000];
    static struct kafka_alter_share_group_offsets_request_partition parts[65537];
    struct kafka_alter_share_group_offsets_request_topic wide = {.topic_name = slice_str("wide"),
                                                                 .partitions = {parts, 2}};
    assert_int_equal(
        KASK(k, alter_share_group_offsets, 0, .group_id = slice_str("o"), .topics = {&wide, 1})->error_code, 0);
    for (size_t i = 0; i < ARRAY_LEN(many); i++)
        many[i].topic_name = slice_str("wide");
    const struct kafka_delete_share_group_offsets_response *gone =
        KASK(k, delete_share_group_offsets, 0, .group_id = slice_str("o"), .topics = {many, ARRAY_LEN(many)});
    assert_int_equal(gone->responses.count, ARRAY_LEN(many));
    for (size_t i = 0; i < ARRAY_LEN(many); i++)
        assert_int_equal(gone->responses.at[i].error_code, i ? KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION : 0);
    wide.partitions.count = ARRAY_LEN(parts);
    assert_null(KASK(k, alter_share_group_offsets, 0, .group_id = slice_str("o"), .topics = {&wide, 1}));
    krig_free(k);
}

/* A group may be seen, and what it reads not. */
static void offsets_of_topics_that_may_not_be_seen(void **state)
{
    (void)state;
    struct krig *k = begin_sharing();
    char why[200];
    krig_topic(k, "u", 1, false);
    assert_int_equal(alter(k, "other")->error_code, 0);
    assert_int_equal(describe(k, "other", true)->topics.count, 1);
    assert_true(permission_put(k->core->b, user_find(k->core->b, slice_str("guest")),
                               vhost_find(k->core->b, slice_str("/")), slice_str("^(other|u)$"),
                               slice_str("^(other|u)$"), slice_str("^(other|u)$"), why, sizeof why));
    const described *said = describe(k, "other", true);
    assert_int_equal(said->error_code, 0);
    assert_int_equal(said->topics.count, 0);
    said = describe(k, "other", false);
    assert_int_equal(said->topics.count, 2);
    assert_int_equal(said->topics.at[0].partitions.at[1].error_code, KAFKA_ERR_TOPIC_AUTHORIZATION_FAILED);
    assert_int_equal(said->topics.at[0].partitions.at[1].start_offset, -1);
    krig_free(k);
}

/* What each costs does not depend on how many there are. */
static void offsets_of_many_groups(void **state)
{
    (void)state;
    struct krig *k = begin_sharing();
    static struct kafka_describe_share_group_offsets_request_group many[2000];
    static char names[2000][8];
    int32_t partition = 0;
    struct kafka_describe_share_group_offsets_request_topic topics[] = {
        {.topic_name = slice_str("t"), .partitions = {&partition, 1}},
        {.topic_name = slice_str("nix"), .partitions = {&partition, 1}}};
    for (size_t i = 0; i < ARRAY_LEN(many); i++) {
        snprintf(names[i], sizeof names[i], "g%zu", i);
        many[i] = (struct kafka_describe_share_group_offsets_request_group){.group_id = slice_str(names[i]),
                                                                            .topics = {&topics[i % 2], i % 3 ? 1 : 0}};
    }
    const struct kafka_describe_share_group_offsets_response *said =
        KASK(k, describe_share_group_offsets, 1, .groups = {many, ARRAY_LEN(many)});
    assert_int_equal(said->groups.count, ARRAY_LEN(many));
    for (size_t i = 0; i < ARRAY_LEN(many); i++) {
        assert_int_equal(said->groups.at[i].topics.count, i % 3 ? 1 : 0);
        if (i % 3)
            assert_true(slice_is(said->groups.at[i].topics.at[0].topic_name, i % 2 ? "nix" : "t"));
    }
    many[2].group_id = many[1].group_id = many[0].group_id; /* and each is told of once */
    said = KASK(k, describe_share_group_offsets, 1, .groups = {many, 4});
    static const int16_t errors[] = {0, KAFKA_ERR_INVALID_REQUEST, KAFKA_ERR_INVALID_REQUEST, 0};
    assert_int_equal(said->groups.count, 4);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(said->groups.at[i].error_code, errors[i]);
    krig_free(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_session_knows_its_partitions),
        cmocka_unit_test(no_more_than_so_many_partitions),
        cmocka_unit_test(what_is_said_counts),
        cmocka_unit_test(offsets_are_told_and_moved),
        cmocka_unit_test(offsets_of_topics_that_may_not_be_seen),
        cmocka_unit_test(offsets_of_many_groups),
        cmocka_unit_test(offsets_of_topics_named_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
