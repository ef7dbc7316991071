/* Fetch, ListOffsets and OffsetForLeaderEpoch through the engine, in all versions. */
#include "core/stream_int.h"
#include "proto/kafka/fetch_session.h"
#include "proto/kafka/names.h"
#include "proto/kafka/rig_test.h"

#define NOW 1700000000000

static uint64_t stream_id(struct krig *k, const char *name)
{
    struct vhost *vhost = vhost_find(k->core->b, slice_str("/"));
    struct queue *q = queue_find(vhost, slice_str(name));
    return q ? q->id : 0;
}

static void produce_numbers(struct krig *k, const char *topic, int32_t partition, unsigned first, unsigned count)
{
    struct krig_batch b;
    const struct kafka_produce_response_partition *said =
        krig_produce(k, topic, partition, krig_batch(k, &b, first, count, false));
    assert_non_null(said);
    assert_int_equal(said->error_code, 0);
}

struct want {
    const char *topic;
    int32_t partition;
    int64_t offset;
    int32_t epoch, max; /* 0: says none; that of all */
};

/* Each row is a topic of its own. Put, not asked. */
static void put_fetch(struct krig *k, uint8_t version, int32_t wait_ms, int32_t max, const struct want *rows,
                      int32_t count)
{
    struct kafka_fetch_request_partition parts[8];
    struct kafka_fetch_request_topic topics[8];
    const struct kafka *engine = CONTAINER_OF(k->engine, struct kafka, session.engine);
    for (int32_t i = 0; i < count; i++) {
        parts[i] = (struct kafka_fetch_request_partition){.partition = rows[i].partition,
                                                          .current_leader_epoch = rows[i].epoch ? rows[i].epoch : -1,
                                                          .fetch_offset = rows[i].offset,
                                                          .last_fetched_epoch = -1,
                                                          .log_start_offset = -1,
                                                          .partition_max_bytes = rows[i].max ? rows[i].max : max};
        topics[i] = (struct kafka_fetch_request_topic){.topic = slice_str(rows[i].topic), .partitions = {&parts[i], 1}};
        kafka_topic_uuid(engine, stream_id(k, rows[i].topic), &topics[i].topic_id);
    }
    struct kafka_fetch_request ask = {.replica_id = -1,
                                      .max_wait_ms = wait_ms,
                                      .min_bytes = 1,
                                      .max_bytes = max,
                                      .session_epoch = -1,
                                      .topics = {topics, count},
                                      .rack_id = slice_str("")};
    krig_put(k, KAFKA_API_fetch, version, &ask);
}

static const struct kafka_fetch_response *fetch(struct krig *k, uint8_t version, int32_t wait_ms,
                                                const struct want *rows, int32_t count)
{
    put_fetch(k, version, wait_ms, 1 << 20, rows, count);
    krig_settle(k);
    return krig_take(k);
}

static const struct kafka_fetch_response_partition *part_of(const struct kafka_fetch_response *said, int32_t topic)
{
    assert_non_null(said);
    assert_true(topic < said->responses.count);
    assert_int_equal(said->responses.at[topic].partitions.count, 1);
    return &said->responses.at[topic].partitions.at[0];
}

static void every_version(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    krig_topic(k, "t", 2, false);
    produce_numbers(k, "t", 1, 0, 3);
    const struct kafka_api *api = kafka_api_find(KAFKA_API_fetch);
    for (uint8_t v = (uint8_t)api->first; v <= api->last; v++) {
        const struct want rows[] = {{"t", 0, 0, 0, 0}, {"t", 1, 1, 0, 0}, {"nix", 0, 0, 0, 0}};
        const struct kafka_fetch_response *said = fetch(k, v, 0, rows, 3);
        const struct kafka_fetch_response_partition *p = part_of(said, 0);
        assert_int_equal(said->session_id, 0);
        assert_int_equal(said->error_code, 0);
        assert_int_equal(p->error_code, 0);
        assert_int_equal(p->records.len, 0);
        assert_non_null(p->records.ptr);
        assert_int_equal(p->high_watermark, 0);
        p = part_of(said, 1);
        assert_int_equal(p->partition_index, 1);
        assert_true(slice_is(p->records, "1 2 "));
        assert_int_equal(p->high_watermark, 3);
        assert_int_equal(p->last_stable_offset, 3);
        assert_int_equal(p->log_start_offset, v >= 5 ? 0 : -1);
        assert_int_equal(p->aborted_transactions.count, -1);
        assert_int_equal(p->preferred_read_replica, -1);
        p = part_of(said, 2);
        assert_int_equal(p->error_code, v >= 13 ? KAFKA_ERR_UNKNOWN_TOPIC_ID : KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION);
        assert_int_equal(p->high_watermark, -1);
        assert_int_equal(p->aborted_transactions.count, 0);
        assert_int_equal(p->records.len, 0);
        if (v < 13)
            assert_true(slice_is(said->responses.at[1].topic, "t"));
    }
    krig_free(k);
}

static void errors_of_rows(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    krig_topic(k, "t", 1, false);
    produce_numbers(k, "t", 0, 0, 3);
    const struct want rows[] = {{"t", 0, 4, 0, 0},  {"t", 0, -1, 0, 0}, {"t", 1, 0, 0, 0},
                                {"t", -1, 0, 0, 0}, {"", 0, 0, 0, 0},   {"t", 0, 0, 0, 0}};
    static const int16_t errors[] = {KAFKA_ERR_OFFSET_OUT_OF_RANGE,        KAFKA_ERR_OFFSET_OUT_OF_RANGE,
                                     KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION, KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION,
                                     KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION, KAFKA_ERR_NONE};
    const struct kafka_fetch_response *said = fetch(k, 11, 10000, rows, 6);
    for (int32_t i = 0; i < 6; i++)
        assert_int_equal(part_of(said, i)->error_code, errors[i]);
    assert_int_equal(part_of(said, 0)->log_start_offset, 0);
    assert_int_equal(part_of(said, 0)->high_watermark, 3);
    assert_true(slice_is(part_of(said, 5)->records, "0 1 2 "));
    const struct want younger = {"t", 0, 0, 5, 0}, end = {"t", 0, 3, 0, 0};
    assert_int_equal(part_of(fetch(k, 12, 1000, &younger, 1), 0)->error_code, KAFKA_ERR_UNKNOWN_LEADER_EPOCH);
    assert_int_equal(part_of(fetch(k, 12, -5, &end, 1), 0)->error_code, 0); /* waits not at all */
    /* a session that nobody was given, and a request for nothing */
    said = KASK(k, fetch, 11, .session_id = 7, .session_epoch = 1);
    assert_int_equal(said->error_code, KAFKA_ERR_FETCH_SESSION_ID_NOT_FOUND);
    said = KASK(k, fetch, 12, .max_wait_ms = 10000, .min_bytes = 1);
    assert_int_equal(said->error_code, 0);
    assert_int_equal(said->responses.count, 0);
    /* an id of another store */
    struct kafka_fetch_request_partition one = {.current_leader_epoch = -1, .partition_max_bytes = 1000};
    struct kafka_fetch_request_topic topic = {.topic_id = {{9, 9, 9}}, .partitions = {&one, 1}};
    said = KASK(k, fetch, 13, .max_wait_ms = 10000, .topics = {&topic, 1});
    assert_int_equal(part_of(said, 0)->error_code, KAFKA_ERR_UNKNOWN_TOPIC_ID);
    krig_free(k);
}

/* Answers leave in order, and a parked fetch when a record comes. */
static void parked_and_pipelined(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    krig_topic(k, "t", 1, false);
    produce_numbers(k, "t", 0, 0, 3);
    const struct want end = {"t", 0, 3, 0, 0}, first = {"t", 0, 0, 0, 0};
    struct krig_batch b;
    assert_null(fetch(k, 12, 500, &end, 1));
    put_fetch(k, 12, 500, 1 << 20, &first, 1);
    krig_put_produce(k, 9, -1, "t", 0, krig_batch(k, &b, 3, 1, false));
    krig_settle(k); /* one connection asks and gives */
    assert_true(slice_is(part_of(krig_take(k), 0)->records, "3 "));
    assert_true(slice_is(part_of(krig_take(k), 0)->records, "0 1 2 "));
    assert_int_equal(krig_take_produced(k)->base_offset, 3);
    const struct want next = {"t", 0, 4, 0, 0};
    assert_null(fetch(k, 12, 500, &next, 1));
    krig_pass(k, 490);
    assert_null(krig_take(k));
    krig_pass(k, 20);
    const struct kafka_fetch_response *said = krig_take(k);
    assert_int_equal(part_of(said, 0)->records.len, 0);
    assert_int_equal(part_of(said, 0)->high_watermark, 4);
    /* and who goes meanwhile leaves nothing */
    assert_null(fetch(k, 12, 500, &next, 1));
    krig_close(k);
    krig_settle(k);
    krig_open(k);
    assert_non_null(KASK(k, init_producer_id, 1, .transaction_timeout_ms = 1000));
    produce_numbers(k, "t", 0, 4, 1);
    put_fetch(k, 12, 500, 1 << 20, &next, 1);
    krig_turn(k);
    krig_turn(k);
    krig_free(k);
}

/* Their blocks are memory: a peer has a few of them waiting, then it is not read. */
static void many_large_ones_wait_outside(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    krig_topic(k, "t", 1, false);
    static struct kafka_fetch_request_partition parts[20000];
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        parts[i] = (struct kafka_fetch_request_partition){.current_leader_epoch = -1, .partition_max_bytes = 100};
    struct kafka_fetch_request_topic topic = {.topic = slice_str("t"), .partitions = {parts, ARRAY_LEN(parts)}};
    struct kafka_fetch_request ask = {
        .max_wait_ms = 500, .min_bytes = 1, .max_bytes = 1000, .session_epoch = -1, .topics = {&topic, 1}};
    for (unsigned i = 0; i < 5; i++)
        krig_put(k, KAFKA_API_fetch, 4, &ask);
    krig_settle(k);
    assert_true(k->engine->paused && k->in_len > 2 * 16 * ARRAY_LEN(parts));
    krig_pass(k, 1700); /* two at a time */
    assert_int_equal(k->in_len, 0);
    assert_int_equal(CONTAINER_OF(k->engine, struct kafka, session.engine)->request_count, 0);
    assert_false(k->engine->paused);
    krig_free(k);
}

static void limits(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    krig_topic(k, "t", 2, false);
    for (unsigned i = 0; i < 2; i++) {
        produce_numbers(k, "t", (int32_t)i, 0, 1);
        produce_numbers(k, "t", (int32_t)i, 1, 1);
    }
    const struct want rows[] = {{"t", 0, 0, 0, 0}, {"t", 1, 0, 0, 0}};
    static const int32_t maxima[] = {0, -1, INT32_MIN, 1, 3, 4, 6, INT32_MAX};
    static const char *const texts[][2] = {{"0 ", ""}, {"0 ", ""},   {"0 ", ""},     {"0 ", ""},
                                           {"0 ", ""}, {"0 1 ", ""}, {"0 1 ", "0 "}, {"0 1 ", "0 1 "}};
    for (size_t i = 0; i < ARRAY_LEN(maxima); i++) {
        put_fetch(k, 12, -5, maxima[i], rows, 2);
        krig_settle(k);
        const struct kafka_fetch_response *said = krig_take(k);
        for (int32_t n = 0; n < 2; n++)
            assert_true(slice_is(part_of(said, n)->records, texts[i][n]));
    }
    const struct want little[] = {{"t", 0, 0, 0, 2}, {"t", 1, 0, 0, 2}, {"t", 1, 0, 0, 1}};
    const struct kafka_fetch_response *said = fetch(k, 12, 0, little, 3);
    assert_true(slice_is(part_of(said, 0)->records, "0 "));
    assert_true(slice_is(part_of(said, 1)->records, "0 "));
    assert_int_equal(part_of(said, 2)->records.len, 0);
    krig_free(k);
}

/* ---- sessions ---- */

static void put_session(struct krig *k, int32_t id, int32_t epoch, const struct want *rows, int32_t count,
                        const char *forget)
{
    struct kafka_fetch_request_partition parts[8];
    struct kafka_fetch_request_topic topics[8];
    int32_t zero = 0;
    struct kafka_fetch_request_forgotten_topic gone = {.partitions = {&zero, 1}};
    if (forget)
        gone.topic = slice_str(forget);
    for (int32_t i = 0; i < count; i++) {
        parts[i] = (struct kafka_fetch_request_partition){.partition = rows[i].partition,
                                                          .current_leader_epoch = -1,
                                                          .fetch_offset = rows[i].offset,
                                                          .last_fetched_epoch = -1,
                                                          .log_start_offset = -1,
                                                          .partition_max_bytes = 1 << 20};
        topics[i] = (struct kafka_fetch_request_topic){.topic = slice_str(rows[i].topic), .partitions = {&parts[i], 1}};
    }
    struct kafka_fetch_request ask = {.replica_id = -1,
                                      .min_bytes = 1,
                                      .max_bytes = 1 << 20,
                                      .session_id = id,
                                      .session_epoch = epoch,
                                      .topics = {topics, count},
                                      .forgotten_topics_data = {&gone, forget ? 1 : 0},
                                      .rack_id = slice_str("")};
    krig_put(k, KAFKA_API_fetch, 12, &ask);
}

static const struct kafka_fetch_response *in_session(struct krig *k, int32_t id, int32_t epoch, const struct want *rows,
                                                     int32_t count, const char *forget)
{
    put_session(k, id, epoch, rows, count, forget);
    krig_settle(k);
    return krig_take(k);
}

/* The rules of id and epoch are in the rows of tests/clients; here is what those cannot see: slots and names. */
static void sessions(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    krig_topic(k, "a", 1, false);
    krig_topic(k, "b", 2, false);
    const struct want all[] = {{"a", 0, 0, 0, 0}, {"b", 0, 0, 0, 0}, {"later", 0, 0, 0, 0}};
    const struct kafka_fetch_response *said = in_session(k, 0, 0, all, 3, NULL);
    int32_t id = said->session_id;
    assert_true(id > 0);
    assert_int_equal(said->responses.count, 3);
    krig_topic(k, "later", 1, false);
    produce_numbers(k, "later", 0, 5, 1);
    said = in_session(k, id, 1, NULL, 0, "a"); /* its slot is the lowest … */
    assert_int_equal(said->responses.count, 1);
    assert_true(slice_is(said->responses.at[0].topic, "later"));
    assert_true(slice_is(part_of(said, 0)->records, "5 "));
    const struct want more[] = {{"b", 1, 0, 0, 0}, {"later", 0, 1, 0, 0}};
    produce_numbers(k, "a", 0, 6, 1);
    produce_numbers(k, "b", 1, 7, 1);
    said = in_session(k, id, 2, more, 2, NULL); /* … and another has it */
    assert_int_equal(said->session_id, id);
    assert_int_equal(said->responses.count, 1);
    assert_true(slice_is(said->responses.at[0].topic, "b"));
    assert_int_equal(part_of(said, 0)->partition_index, 1);
    assert_true(slice_is(part_of(said, 0)->records, "7 "));
    const struct want twice[] = {{"a", 0, 0, 0, 0}, {"a", 0, 0, 0, 0}};
    said = in_session(k, 0, 0, twice, 2, NULL);
    assert_int_equal(said->session_id, 0);
    assert_int_equal(said->responses.count, 2);
    assert_int_equal(in_session(k, id, 3, NULL, 0, NULL)->error_code, KAFKA_ERR_FETCH_SESSION_ID_NOT_FOUND);
    krig_free(k);
}

/* The core gives a session up for another's sake: nothing of it stays here, and the next request of it is told. */
static void a_session_makes_room(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    krig_topic(k, "a", 1, false);
    krig_topic(k, "b", 2, false);
    const struct want all[] = {{"a", 0, 0, 0, 0}, {"b", 0, 0, 0, 0}, {"b", 1, 0, 0, 0}};
    struct kafka *engine = CONTAINER_OF(k->engine, struct kafka, session.engine);
    struct broker *b = k->core->b;
    int32_t id = in_session(k, 0, 0, all, 1, NULL)->session_id;
    uint64_t bytes = engine->fetch_session->bytes, counted = b->streams.fetch_session_bytes;
    assert_int_equal(in_session(k, id, 1, all + 1, 2, NULL)->session_id, id);
    assert_true(engine->fetch_session->bytes > bytes && b->streams.fetch_session_bytes > counted + bytes);
    assert_int_equal(in_session(k, id, 2, NULL, 0, "b")->session_id, id); /* partition 0 */
    const struct want rest[] = {{"a", 0, 0, 0, 0}};
    assert_int_equal(in_session(k, id, 3, rest, 1, NULL)->session_id, id);
    counted = b->streams.fetch_session_bytes;
    struct effect gone = {.type = EFF_FETCH_SESSION_GONE, .number = (uint64_t)id + 1};
    engine->session.on_effect(&engine->session, &gone); /* of another one, which was there before */
    assert_non_null(engine->fetch_session);
    gone = (struct effect){.type = EFF_FETCH_SESSION_GONE, .number = (uint64_t)id};
    engine->session.on_effect(&engine->session, &gone);
    assert_null(engine->fetch_session);
    assert_int_equal(in_session(k, id, 4, NULL, 0, NULL)->error_code, KAFKA_ERR_FETCH_SESSION_ID_NOT_FOUND);
    krig_free(k);
}

/* The core gives it up while a request of it is begun, and has to hear which topics there are before it can be sent. */
static void a_session_goes_under_a_request(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    krig_topic(k, "a", 1, false);
    krig_topic(k, "new", 1, false);
    const struct want first = {"a", 0, 0, 0, 0}, second = {"new", 0, 0, 0, 0};
    struct kafka *engine = CONTAINER_OF(k->engine, struct kafka, session.engine);
    struct broker *b = k->core->b;
    int32_t id = in_session(k, 0, 0, &first, 1, NULL)->session_id;
    put_session(k, id, 1, &second, 1, NULL);
    krig_turn(k);
    assert_non_null(engine->going);
    LIST_EACH(&b->peers, node, after)
    fetch_session_end(b, CONTAINER_OF(node, struct peer, link));
    struct effect gone = {.type = EFF_FETCH_SESSION_GONE, .number = (uint64_t)id};
    engine->session.on_effect(&engine->session, &gone);
    krig_settle(k);
    assert_int_equal(((const struct kafka_fetch_response *)krig_take(k))->error_code,
                     KAFKA_ERR_FETCH_SESSION_ID_NOT_FOUND);
    assert_null(engine->fetch_session);
    assert_true(in_session(k, 0, 0, &first, 1, NULL)->session_id > 0);
    krig_free(k);
}

/* Two hundred topics of long names, all with news for a request of nothing: more than its arena has for its own length. */
static void a_large_answer_in_a_session(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    enum { MANY = 20000 };
    krig_topic(k, "t", 1, false);
    struct kafka_fetch_request_partition *parts = calloc(MANY, sizeof *parts);
    for (int32_t i = 0; i < MANY; i++)
        parts[i] = (struct kafka_fetch_request_partition){.partition = i, .current_leader_epoch = -1};
    struct kafka_fetch_request_topic topic = {.topic = slice_str("t"), .partitions = {parts, MANY}};
    struct kafka_fetch_request ask = {
        .replica_id = -1, .min_bytes = 1, .max_bytes = 1 << 20, .topics = {&topic, 1}, .rack_id = slice_str("")};
    krig_put(k, KAFKA_API_fetch, 12, &ask);
    krig_settle(k);
    const struct kafka_fetch_response *said = krig_take(k);
    int32_t id = said->session_id;
    assert_true(id > 0);
    arena_reset(&k->arena);
    said = in_session(k, id, 1, NULL, 0, NULL); /* all but one are unknown */
    assert_non_null(said);
    assert_int_equal(said->responses.count, 1);
    assert_int_equal(said->responses.at[0].partitions.count, MANY - 1);
    free(parts);
    krig_free(k);
}

/* A session that has as many partitions as there can be takes no other, though one is forgotten by the same request; nor a name
 * that no topic has. */
static void no_more_than_there_can_be(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    krig_topic(k, "t", 1, false);
    struct kafka_fetch_request_partition *parts = calloc(FETCH_ROWS_MAX, sizeof *parts);
    for (uint32_t i = 0; i < FETCH_ROWS_MAX; i++)
        parts[i] = (struct kafka_fetch_request_partition){.partition = (int32_t)i, .current_leader_epoch = -1};
    struct kafka_fetch_request_topic topic = {.topic = slice_str("t"), .partitions = {parts, FETCH_ROWS_MAX}};
    struct kafka_fetch_request ask = {
        .replica_id = -1, .min_bytes = 1, .max_bytes = 1 << 20, .topics = {&topic, 1}, .rack_id = slice_str("")};
    krig_put(k, KAFKA_API_fetch, 12, &ask);
    free(parts);
    krig_settle(k);
    assert_true(k->out_len > FETCH_ROWS_MAX); /* larger than the rig can read */
    k->out_len = 0;
    k->answered++;
    struct kafka *engine = CONTAINER_OF(k->engine, struct kafka, session.engine);
    const struct want one[] = {{"t", FETCH_ROWS_MAX, 0, 0, 0}};
    put_session(k, (int32_t)k->core->b->streams.fetch_session_id, 1, one, 1, "t");
    krig_settle(k);
    assert_true(!k->engine || engine->state == KAFKA_CLOSING);
    krig_close(k);
    krig_settle(k);
    krig_open(k);
    char name[300];
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    const struct want odd[] = {{name, 0, 0, 0, 0}};
    put_session(k, 0, 0, odd, 1, NULL);
    krig_settle(k);
    assert_true(!k->engine || CONTAINER_OF(k->engine, struct kafka, session.engine)->state == KAFKA_CLOSING);
    krig_free(k);
}

static void session_storm(struct krig *k)
{
    const struct want rows[] = {{"t", 0, 0, 0, 0}, {"t", 1, 0, 0, 0}, {"nix", 0, 0, 0, 0}};
    int32_t id = 78;
    k->core->b->streams.fetch_session_id = 77; /* the last that was given */
    put_session(k, 0, 0, rows, 3, NULL);
    for (int32_t i = 1; i < 4; i++)
        put_session(k, id, i, rows, i, i == 2 ? "t" : NULL);
    put_session(k, id, -1, rows, 2, NULL);
}

static void damaged_sessions(void **state)
{
    (void)state;
    krig_damage(session_storm, 400);
}

/* ---- offsets ---- */

static const struct kafka_list_offsets_response_partition *list(struct krig *k, uint8_t version, const char *topic,
                                                                int32_t partition, int64_t timestamp)
{
    struct kafka_list_offsets_request_partition p = {
        .partition_index = partition, .current_leader_epoch = -1, .timestamp = timestamp};
    struct kafka_list_offsets_request_topic t = {.name = slice_str(topic), .partitions = {&p, 1}};
    const struct kafka_list_offsets_response *said = KASK(k, list_offsets, version, .topics = {&t, 1});
    assert_non_null(said);
    assert_int_equal(said->topics.count, 1);
    assert_true(slice_is(said->topics.at[0].name, topic));
    assert_int_equal(said->topics.at[0].partitions.count, 1);
    assert_int_equal(said->topics.at[0].partitions.at[0].partition_index, partition);
    return &said->topics.at[0].partitions.at[0];
}

static void list_offsets(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    krig_topic(k, "t", 1, false);
    krig_topic(k, "empty", 1, false);
    wall_t t = k->core->wall;
    for (unsigned i = 0; i < 3; i++) {
        produce_numbers(k, "t", 0, i, 1);
        k->core->wall += 1000;
    }
    const struct {
        int64_t timestamp, offset, found_at;
        uint8_t from;
    } rows[] = {{-1, 3, -1, 1},        {-2, 0, -1, 1},        {-3, 2, t + 2000, 7}, {-4, 0, -1, 8},
                {-5, -1, -1, 9},       {-6, -1, -1, 11},      {0, 0, t, 1},         {t + 1, 1, t + 1000, 1},
                {t + 2001, -1, -1, 1}, {INT64_MAX, -1, -1, 1}};
    const struct kafka_api *api = kafka_api_find(KAFKA_API_list_offsets);
    for (uint8_t v = (uint8_t)api->first; v <= api->last; v++)
        for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
            const struct kafka_list_offsets_response_partition *p = list(k, v, "t", 0, rows[i].timestamp);
            bool known = v >= rows[i].from;
            assert_int_equal(p->error_code, known ? 0 : KAFKA_ERR_UNSUPPORTED_VERSION);
            assert_int_equal(p->offset, known ? rows[i].offset : -1);
            assert_int_equal(p->timestamp, known ? rows[i].found_at : -1);
            assert_int_equal(p->leader_epoch, known && rows[i].offset >= 0 && v >= 4 ? 0 : -1);
        }
    assert_int_equal(list(k, 7, "t", 0, -7)->error_code, KAFKA_ERR_UNSUPPORTED_VERSION);
    struct kafka_list_offsets_request_partition younger = {.current_leader_epoch = 3, .timestamp = -1};
    struct kafka_list_offsets_request_topic topic = {.name = slice_str("t"), .partitions = {&younger, 1}};
    assert_int_equal(KASK(k, list_offsets, 7, .topics = {&topic, 1})->topics.at[0].partitions.at[0].error_code,
                     KAFKA_ERR_UNKNOWN_LEADER_EPOCH);
    assert_int_equal(list(k, 7, "t", 1, -1)->error_code, KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(list(k, 7, "nix", 0, -1)->error_code, KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION);
    assert_int_equal(list(k, 7, "nix", 0, -1)->offset, -1);
    assert_int_equal(list(k, 7, "empty", 0, -1)->offset, 0);
    assert_int_equal(list(k, 7, "empty", 0, 5)->offset, -1);
    assert_int_equal(list(k, 7, "empty", 0, -3)->offset, -1);
    krig_free(k);
}

static void epochs(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    krig_topic(k, "t", 1, false);
    produce_numbers(k, "t", 0, 0, 3);
    const struct {
        const char *topic;
        int32_t current, wanted, answer;
        int64_t end;
        int16_t error;
    } rows[] = {{"t", -1, 0, 0, 3, 0},
                {"t", 0, 0, 0, 3, 0},
                {"t", -1, 1, -1, -1, 0},
                {"t", 1, 0, -1, -1, KAFKA_ERR_UNKNOWN_LEADER_EPOCH},
                {"nix", -1, 0, -1, -1, KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION}};
    for (uint8_t v = 2; v <= 4; v++)
        for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
            struct kafka_offset_for_leader_epoch_request_partition p = {.current_leader_epoch = rows[i].current,
                                                                        .leader_epoch = rows[i].wanted};
            struct kafka_offset_for_leader_epoch_request_topic t = {.topic = slice_str(rows[i].topic),
                                                                    .partitions = {&p, 1}};
            const struct kafka_offset_for_leader_epoch_response *said =
                KASK(k, offset_for_leader_epoch, v, .replica_id = -1, .topics = {&t, 1});
            const struct kafka_offset_for_leader_epoch_response_partition *ret = &said->topics.at[0].partitions.at[0];
            assert_int_equal(ret->error_code, rows[i].error);
            assert_int_equal(ret->leader_epoch, rows[i].answer);
            assert_int_equal(ret->end_offset, rows[i].end);
        }
    krig_free(k);
}

/* ---- trouble ---- */

/* A topic that is made again is looked up again. */
static void a_topic_made_again(void **state)
{
    (void)state;
    struct krig *k = krig_ready();
    krig_topic(k, "t", 1, false);
    produce_numbers(k, "t", 0, 0, 1);
    const struct want first = {"t", 0, 0, 0, 0};
    assert_true(slice_is(part_of(fetch(k, 12, 100, &first, 1), 0)->records, "0 "));
    queue_delete(k->core->b, queue_find(vhost_find(k->core->b, slice_str("/")), slice_str("t")));
    krig_topic(k, "t", 1, false);
    assert_int_equal(part_of(fetch(k, 12, 100, &first, 1), 0)->error_code, KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION);
    produce_numbers(k, "t", 0, 7, 1);
    assert_true(slice_is(part_of(fetch(k, 12, 100, &first, 1), 0)->records, "7 "));
    krig_free(k);
}

/* Each allocation of a fetch is refused once: the connection ends, or the answer is right. */
static void without_memory(void **state)
{
    (void)state;
    unsigned hits = 0;
    for (uint64_t n = 1;; n++) {
        struct krig *k = krig_ready();
        krig_topic(k, "t", 1, false);
        produce_numbers(k, "t", 0, 0, 3);
        kafka_topic_forget(CONTAINER_OF(k->engine, struct kafka, session.engine), slice_str("t"));
        const struct want first = {"t", 0, 0, 0, 0};
        put_fetch(k, 12, 100, 1 << 20, &first, 1);
        k->core->b->streams.fetch_session_id = 77; /* the last that was given */
        put_session(k, 0, 0, &first, 1, NULL);
        put_session(k, 78, 1, &first, 1, NULL);
        k->core->starved = true;
        mem_fail_at(n, false);
        krig_settle(k);
        bool hit = mem_failures_hit() > 0;
        mem_fail_at(0, false);
        if (k->engine)
            assert_true(slice_is(part_of(krig_take(k), 0)->records, "0 1 2 "));
        krig_free(k);
        hits += hit;
        if (!hit)
            break;
    }
    assert_true(hits > 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_version),
        cmocka_unit_test(errors_of_rows),
        cmocka_unit_test(parked_and_pipelined),
        cmocka_unit_test(many_large_ones_wait_outside),
        cmocka_unit_test(limits),
        cmocka_unit_test(sessions),
        cmocka_unit_test(a_session_makes_room),
        cmocka_unit_test(a_session_goes_under_a_request),
        cmocka_unit_test(a_large_answer_in_a_session),
        cmocka_unit_test(no_more_than_there_can_be),
        cmocka_unit_test(damaged_sessions),
        cmocka_unit_test(list_offsets),
        cmocka_unit_test(epochs),
        cmocka_unit_test(without_memory),
        cmocka_unit_test(a_topic_made_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
