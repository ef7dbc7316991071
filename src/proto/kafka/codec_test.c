/* Every message in every version: what is encoded is decoded to the same, every cut is refused, flipped bits do no harm.
 * Then bytes that were put together by hand from the protocol's description, and the ways to be refused. */
#include "proto/kafka/codec.h"

#include "base/mem.h"
#include "proto/kafka/api.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define ROOM (1u << 20)

/* ---------------------------------------------------------------------------------------------------- random messages */

static uint64_t draw(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return *seed >> 16;
}

struct scene {
    struct arena arena;
    struct kafka_form form;
    uint64_t seed;
};

static void fill(struct scene *s, const struct kafka_table *table, uint8_t *to);

static struct slice draw_slice(struct scene *s, bool nullable)
{
    uint64_t how = draw(&s->seed) % 8;
    if (how == 0 && nullable)
        return (struct slice){0};
    size_t len = how == 1 ? 0 : how == 2 ? 127 + draw(&s->seed) % 200 : draw(&s->seed) % 12;
    uint8_t *bytes = arena_take(&s->arena, len + 1);
    assert_non_null(bytes);
    for (size_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)draw(&s->seed);
    return slice_of(bytes, len);
}

static void fill_value(struct scene *s, unsigned kind, bool nullable, void *to)
{
    uint64_t v = draw(&s->seed) % 4 == 0 ? 0 : draw(&s->seed);
    double f = (double)(int64_t)v / 1000;
    switch (kind) {
    case KAFKA_bool: *(bool *)to = v & 1; break;
    case KAFKA_i8: *(int8_t *)to = (int8_t)v; break;
    case KAFKA_i16: *(int16_t *)to = (int16_t)v; break;
    case KAFKA_i32: *(int32_t *)to = (int32_t)v; break;
    case KAFKA_i64: *(int64_t *)to = (int64_t)(v << 20 ^ draw(&s->seed)); break;
    case KAFKA_u16: *(uint16_t *)to = (uint16_t)v; break;
    case KAFKA_f64: *(double *)to = f; break;
    case KAFKA_uuid:
        for (size_t i = 0; i < sizeof(struct kafka_uuid); i++)
            ((uint8_t *)to)[i] = v ? (uint8_t)draw(&s->seed) : 0;
        break;
    default: *(struct slice *)to = draw_slice(s, nullable); break;
    }
}

static size_t each_len(const struct kafka_field *f)
{
    static const size_t len[] = {
        [KAFKA_bool] = 1, [KAFKA_i8] = 1, [KAFKA_i16] = 2, [KAFKA_i32] = 4, [KAFKA_i64] = 8, [KAFKA_uuid] = 16};
    if (f->kind == KAFKA_ARRAY)
        return f->element->struct_len;
    return f->item == KAFKA_string ? sizeof(struct slice) : len[f->item];
}

static void fill_many(struct scene *s, const struct kafka_field *f, bool nullable, struct kafka_array *to)
{
    int32_t count = (int32_t)(draw(&s->seed) % 5) - 1;
    if (count < 0 && !nullable)
        count = 1;
    to->count = count;
    if (count <= 0)
        return;
    uint8_t *at = arena_take(&s->arena, (size_t)count * each_len(f));
    assert_non_null(at);
    to->at = at;
    for (int32_t i = 0; i < count; i++, at += each_len(f)) {
        if (f->kind == KAFKA_ARRAY)
            fill(s, f->element, at);
        else
            fill_value(s, f->item, false, at);
    }
}

static void fill(struct scene *s, const struct kafka_table *table, uint8_t *to)
{
    kafka_defaults(table, to);
    for (const struct kafka_field *f = table->fields; f < table->fields + table->field_count; f++) {
        bool nullable = kafka_field_nullable(f, s->form.version);
        if (!kafka_field_in(f, s->form.version))
            continue;
        if (f->tag && draw(&s->seed) % 3 == 0)
            continue;
        if (f->kind == KAFKA_LIST || f->kind == KAFKA_ARRAY) {
            fill_many(s, f, nullable, (void *)(to + f->at));
        } else if (f->kind == KAFKA_PART) {
            if (nullable && draw(&s->seed) % 3 == 0)
                continue;
            uint8_t *part = arena_take(&s->arena, f->element->struct_len);
            assert_non_null(part);
            fill(s, f->element, part);
            *(void **)(to + f->at) = part;
        } else {
            fill_value(s, f->kind, nullable, to + f->at);
        }
    }
}

/* ---------------------------------------------------------------------------------------------------------- comparing */

static void assert_same(const struct kafka_table *table, const uint8_t *a, const uint8_t *b);

static void assert_same_value(unsigned kind, const void *a, const void *b)
{
    static const size_t len[] = {
        [KAFKA_bool] = 1, [KAFKA_i8] = 1,  [KAFKA_i16] = 2, [KAFKA_i32] = 4,
        [KAFKA_i64] = 8,  [KAFKA_u16] = 2, [KAFKA_f64] = 8, [KAFKA_uuid] = 16,
    };
    if (kind < ARRAY_LEN(len)) {
        assert_memory_equal(a, b, len[kind]);
        return;
    }
    const struct slice *x = a, *y = b;
    assert_int_equal(x->ptr == NULL, y->ptr == NULL);
    assert_true(slice_equal(*x, *y));
}

static void assert_same_many(const struct kafka_field *f, const struct kafka_array *a, const struct kafka_array *b)
{
    assert_int_equal(a->count, b->count);
    for (int32_t i = 0; i < a->count; i++) {
        const uint8_t *x = (uint8_t *)a->at + (size_t)i * each_len(f), *y = (uint8_t *)b->at + (size_t)i * each_len(f);
        if (f->kind == KAFKA_ARRAY)
            assert_same(f->element, x, y);
        else
            assert_same_value(f->item, x, y);
    }
}

static void assert_same(const struct kafka_table *table, const uint8_t *a, const uint8_t *b)
{
    for (const struct kafka_field *f = table->fields; f < table->fields + table->field_count; f++) {
        const void *x = a + f->at, *y = b + f->at;
        if (f->kind == KAFKA_PART) {
            const uint8_t *p = *(uint8_t *const *)x, *q = *(uint8_t *const *)y;
            assert_int_equal(p == NULL, q == NULL);
            if (p)
                assert_same(f->element, p, q);
        } else if (f->kind == KAFKA_LIST || f->kind == KAFKA_ARRAY) {
            assert_same_many(f, x, y);
        } else {
            assert_same_value(f->kind, x, y);
        }
    }
}

/* -------------------------------------------------------------------------------------------------------------- sweep */

static struct slice encode(const struct kafka_table *table, struct kafka_form form, const void *message, uint8_t *room)
{
    struct writer w = writer_of(room, ROOM);
    kafka_encode(&w, table, form, message, NULL);
    assert_true(writer_ok(&w));
    return writer_slice(&w);
}

/* From a block of exactly this length, so that a sanitizer sees a read beyond it. */
static enum kafka_verdict decode_copy(const struct kafka_table *table, struct kafka_form form, struct slice bytes,
                                      struct arena *arena, void *ret, uint8_t **ret_copy)
{
    uint8_t *copy = malloc(bytes.len ? bytes.len : 1);
    memcpy(copy, bytes.ptr, bytes.len);
    *ret_copy = copy;
    return kafka_decode(table, form, slice_of(copy, bytes.len), arena, ret);
}

static void check_cuts(const struct kafka_table *table, struct kafka_form form, struct slice bytes, void *ret)
{
    struct arena arena;
    arena_init(&arena, ROOM);
    for (size_t len = 0; len < bytes.len; len++) {
        uint8_t *copy;
        enum kafka_verdict verdict = decode_copy(table, form, slice_of(bytes.ptr, len), &arena, ret, &copy);
        assert_true(verdict == KAFKA_SHORT || verdict == KAFKA_BAD_LENGTH); /* within a tagged field */
        free(copy);
        arena_reset(&arena);
    }
    arena_fini(&arena);
}

static void check_flips(const struct kafka_table *table, struct kafka_form form, struct slice bytes, uint64_t *seed)
{
    uint8_t *message = malloc(table->struct_len), *again = malloc(table->struct_len);
    uint8_t *room = malloc(ROOM);
    for (int i = 0; i < 30 && bytes.len; i++) {
        struct arena arena;
        uint8_t *flipped = malloc(bytes.len);
        memcpy(flipped, bytes.ptr, bytes.len);
        for (uint64_t n = 1 + draw(seed) % 3; n > 0; n--)
            flipped[draw(seed) % bytes.len] ^= (uint8_t)(1u << draw(seed) % 8);
        arena_init(&arena, ROOM);
        enum kafka_verdict verdict = kafka_decode(table, form, slice_of(flipped, bytes.len), &arena, message);
        if (verdict == KAFKA_OK || verdict == KAFKA_TRAILING) {
            struct slice written = encode(table, form, message, room);
            assert_int_equal(kafka_decode(table, form, written, &arena, again), KAFKA_OK);
            assert_same(table, message, again);
        }
        arena_fini(&arena);
        free(flipped);
    }
    free(room);
    free(message);
    free(again);
}

static void check_message(const struct kafka_table *table, struct kafka_form form, uint64_t seed, bool cuts)
{
    struct scene s = {.form = form, .seed = seed};
    uint8_t *message = malloc(table->struct_len), *got = malloc(table->struct_len);
    uint8_t *room = malloc(ROOM), *again = malloc(ROOM), *copy;
    struct arena arena;
    arena_init(&s.arena, ROOM);
    arena_init(&arena, ROOM);
    fill(&s, table, message);

    struct slice bytes = encode(table, form, message, room);
    assert_int_equal(kafka_encode_size(table, form, message), bytes.len);
    assert_true(bytes.len >= kafka_least_size(table, form));
    struct writer small = writer_of(again, bytes.len - 1);
    if (bytes.len) {
        kafka_encode(&small, table, form, message, NULL);
        assert_false(writer_ok(&small));
    }
    assert_int_equal(decode_copy(table, form, bytes, &arena, got, &copy), KAFKA_OK);
    assert_same(table, message, got);
    assert_true(slice_equal(encode(table, form, got, again), bytes));
    free(copy);
    room[bytes.len] = 0;
    assert_int_equal(kafka_decode(table, form, slice_of(room, bytes.len + 1), &arena, got), KAFKA_TRAILING);
    if (cuts)
        check_cuts(table, form, bytes, got);
    check_flips(table, form, bytes, &s.seed);
    arena_fini(&arena);
    arena_fini(&s.arena);
    free(message);
    free(got);
    free(room);
    free(again);
}

static void test_every_message_and_version(void **state)
{
    (void)state;
    for (const struct kafka_api *api = kafka_apis; api < kafka_apis + kafka_api_count; api++) {
        for (uint8_t version = api->first; version <= api->last; version++) {
            struct kafka_form form = kafka_api_form(api, version);
            for (uint64_t round = 0; round < 6; round++) {
                uint64_t seed = (uint64_t)api->key << 32 | (uint64_t)version << 16 | round;
                check_message(api->request, form, seed, round < 2);
                check_message(api->response, form, ~seed, round < 2);
            }
        }
    }
}

/* ------------------------------------------------------------------------------------------------------------- golden */

/* "0000 0003 'abc' 01": hexadecimal digits, text in quotes, spaces where it pleases. */
static struct slice from_text(const char *text, uint8_t *room)
{
    size_t len = 0;
    for (const char *p = text; *p;) {
        if (*p == ' ') {
            p++;
        } else if (*p == '\'') {
            for (p++; *p != '\''; p++)
                room[len++] = (uint8_t)*p;
            p++;
        } else {
            char pair[3] = {p[0], p[1]};
            room[len++] = (uint8_t)strtoul(pair, NULL, 16);
            p += 2;
        }
    }
    return slice_of(room, len);
}

static void assert_golden(const struct kafka_table *table, uint8_t version, bool flexible, const void *message,
                          const char *text)
{
    struct kafka_form form = {.version = version, .flexible = flexible};
    uint8_t *want_room = malloc(4096), *room = malloc(ROOM), *got = malloc(table->struct_len);
    struct slice want = from_text(text, want_room);
    struct slice bytes = encode(table, form, message, room);
    assert_int_equal(bytes.len, want.len);
    assert_memory_equal(bytes.ptr, want.ptr, want.len);
    struct arena arena;
    arena_init(&arena, ROOM);
    assert_int_equal(kafka_decode(table, form, want, &arena, got), KAFKA_OK);
    assert_true(slice_equal(encode(table, form, got, room), want));
    arena_fini(&arena);
    free(want_room);
    free(room);
    free(got);
}

#define S(text) slice_str(text)
#define MANY(list_)                                                                                                    \
    {                                                                                                                  \
        .at = list_, .count = ARRAY_LEN(list_)                                                                         \
    }

static void test_golden_api_versions(void **state)
{
    (void)state;
    struct kafka_api_versions_request request = {.client_software_name = S("rdkafka"),
                                                 .client_software_version = S("2")};
    assert_golden(&kafka_api_versions_request_table, 0, false, &request, "");
    assert_golden(&kafka_api_versions_request_table, 3, true, &request, "08 'rdkafka' 02 '2' 00");

    struct kafka_api_versions_response_api_key keys[] = {{.api_key = 0, .min_version = 0, .max_version = 11},
                                                         {.api_key = 18, .min_version = 0, .max_version = 4}};
    struct kafka_api_versions_response answer;
    kafka_defaults(&kafka_api_versions_response_table, &answer);
    answer.error_code = KAFKA_ERR_UNSUPPORTED_VERSION;
    answer.api_keys.at = keys;
    answer.api_keys.count = 2;
    answer.throttle_time_ms = 258;
    assert_golden(&kafka_api_versions_response_table, 0, false, &answer, "0023 00000002 0000 0000 000b 0012 0000 0004");
    assert_golden(&kafka_api_versions_response_table, 2, false, &answer,
                  "0023 00000002 0000 0000 000b 0012 0000 0004 00000102");
    assert_golden(&kafka_api_versions_response_table, 3, true, &answer,
                  "0023 03 0000 0000 000b 00 0012 0000 0004 00 00000102 00");
    struct kafka_api_versions_response_supported_feature supported[] = {
        {.name = S("transaction.version"), .min_version = 0, .max_version = 2}};
    answer.supported_features.at = supported;
    answer.supported_features.count = 1;
    answer.finalized_features_epoch = 1;
    assert_golden(&kafka_api_versions_response_table, 4, true, &answer,
                  "0023 03 0000 0000 000b 00 0012 0000 0004 00 00000102"
                  "02 00 1a 02 14 'transaction.version' 0000 0002 00 01 08 0000000000000001");
}

static void test_golden_metadata(void **state)
{
    (void)state;
    struct kafka_metadata_request_topic topics[] = {{.name = S("orders")}};
    struct kafka_metadata_request request;
    kafka_defaults(&kafka_metadata_request_table, &request);
    request.topics.at = topics;
    request.topics.count = 1;
    request.allow_auto_topic_creation = true;
    assert_golden(&kafka_metadata_request_table, 1, false, &request, "00000001 0006 'orders'");
    assert_golden(&kafka_metadata_request_table, 9, true, &request, "02 07 'orders' 00 01 00 00 00");
    memset(topics[0].topic_id.bytes, 0xa5, 16);
    topics[0].name = (struct slice){0};
    assert_golden(&kafka_metadata_request_table, 12, true, &request,
                  "02 a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5 00 00 01 00 00");
    request.topics.count = -1;
    assert_golden(&kafka_metadata_request_table, 1, false, &request, "ffffffff");
    assert_golden(&kafka_metadata_request_table, 12, true, &request, "00 01 00 00");

    int32_t nodes[] = {1};
    struct kafka_metadata_response_broker brokers[] = {{.node_id = 1, .host = S("::1"), .port = 9092}};
    struct kafka_metadata_response_partition partitions[] = {{.partition_index = 2,
                                                              .leader_id = 1,
                                                              .leader_epoch = 7,
                                                              .replica_nodes = MANY(nodes),
                                                              .isr_nodes = MANY(nodes)}};
    struct kafka_metadata_response_topic answers[] = {{.name = S("t"),
                                                       .topic_id = topics[0].topic_id,
                                                       .partitions = MANY(partitions),
                                                       .topic_authorized_operations = INT32_MIN}};
    struct kafka_metadata_response answer = {.brokers = MANY(brokers),
                                             .cluster_id = S("c"),
                                             .controller_id = 1,
                                             .topics = MANY(answers),
                                             .cluster_authorized_operations = INT32_MIN};
    assert_golden(&kafka_metadata_response_table, 1, false, &answer,
                  "00000001 00000001 0003 '::1' 00002384 ffff 00000001"
                  "00000001 0000 0001 't' 00 00000001 0000 00000002 00000001 00000001 00000001 00000001 00000001");
    assert_golden(&kafka_metadata_response_table, 9, true, &answer,
                  "00000000 02 00000001 04 '::1' 00002384 00 00 02 'c' 00000001"
                  "02 0000 02 't' 00 02 0000 00000002 00000001 00000007 02 00000001 02 00000001 01 00 80000000 00"
                  "80000000 00");
    assert_golden(&kafka_metadata_response_table, 12, true, &answer,
                  "00000000 02 00000001 04 '::1' 00002384 00 00 02 'c' 00000001"
                  "02 0000 02 't' a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5 00"
                  "02 0000 00000002 00000001 00000007 02 00000001 02 00000001 01 00 80000000 00 00");
}

static void test_golden_produce(void **state)
{
    (void)state;
    struct kafka_produce_request_partition partitions[] = {{.index = 3, .records = S("BATCH")}, {.index = 4}};
    struct kafka_produce_request_topic topics[] = {{.name = S("t"), .partition_data = MANY(partitions)}};
    struct kafka_produce_request request = {.acks = -1, .timeout_ms = 30000, .topic_data = MANY(topics)};
    assert_golden(&kafka_produce_request_table, 3, false, &request,
                  "ffff ffff 00007530 00000001 0001 't' 00000002 00000003 00000005 'BATCH' 00000004 ffffffff");
    assert_golden(&kafka_produce_request_table, 9, true, &request,
                  "00 ffff 00007530 02 02 't' 03 00000003 06 'BATCH' 00 00000004 00 00 00 00");

    struct kafka_produce_response_record_error errors[] = {
        {.batch_index = 9, .batch_index_error_message = S("no key")}};
    struct kafka_produce_response_partition answers[] = {{.index = 3,
                                                          .error_code = 87,
                                                          .base_offset = -1,
                                                          .log_append_time_ms = -1,
                                                          .log_start_offset = 5,
                                                          .record_errors = MANY(errors)}};
    struct kafka_produce_response_topic by_topic[] = {{.name = S("t"), .partition_responses = MANY(answers)}};
    struct kafka_produce_response answer = {.responses = MANY(by_topic), .throttle_time_ms = 1};
    assert_golden(&kafka_produce_response_table, 3, false, &answer,
                  "00000001 0001 't' 00000001 00000003 0057 ffffffffffffffff ffffffffffffffff 00000001");
    assert_golden(&kafka_produce_response_table, 9, true, &answer,
                  "02 02 't' 02 00000003 0057 ffffffffffffffff ffffffffffffffff 0000000000000005"
                  "02 00000009 07 'no key' 00 00 00 00 00000001 00");
    struct kafka_produce_response_current_leader leader = {.leader_id = 1, .leader_epoch = 2};
    answers[0].current_leader = &leader;
    answers[0].record_errors.count = 0;
    assert_golden(&kafka_produce_response_table, 10, true, &answer,
                  "02 02 't' 02 00000003 0057 ffffffffffffffff ffffffffffffffff 0000000000000005"
                  "01 00 01 00 09 00000001 00000002 00 00 00000001 00");
}

static void test_golden_fetch(void **state)
{
    (void)state;
    struct kafka_fetch_request_partition partitions[] = {{.partition = 0,
                                                          .current_leader_epoch = -1,
                                                          .fetch_offset = 100,
                                                          .last_fetched_epoch = -1,
                                                          .log_start_offset = -1,
                                                          .partition_max_bytes = 1048576}};
    struct kafka_fetch_request_topic topics[] = {{.topic = S("t"), .partitions = MANY(partitions)}};
    struct kafka_fetch_request request;
    kafka_defaults(&kafka_fetch_request_table, &request);
    request.max_wait_ms = 500;
    request.min_bytes = 1;
    request.max_bytes = 0x03200000;
    request.topics.at = topics;
    request.topics.count = 1;
    assert_golden(
        &kafka_fetch_request_table, 4, false, &request,
        "ffffffff 000001f4 00000001 03200000 00 00000001 0001 't' 00000001 00000000 0000000000000064 00100000");
    assert_golden(&kafka_fetch_request_table, 12, true, &request,
                  "ffffffff 000001f4 00000001 03200000 00 00000000 ffffffff"
                  "02 02 't' 02 00000000 ffffffff 0000000000000064 ffffffff ffffffffffffffff 00100000 00 00 01 01 00");

    struct kafka_fetch_response_aborted_transaction aborted[] = {{.producer_id = 8, .first_offset = 99}};
    struct kafka_fetch_response_partition answers[] = {{.high_watermark = 101,
                                                        .last_stable_offset = 101,
                                                        .log_start_offset = 0,
                                                        .aborted_transactions = MANY(aborted),
                                                        .preferred_read_replica = -1,
                                                        .records = S("BATCH")}};
    struct kafka_fetch_response_topic by_topic[] = {{.topic = S("t"), .partitions = MANY(answers)}};
    struct kafka_fetch_response answer = {.responses = MANY(by_topic)};
    assert_golden(&kafka_fetch_response_table, 4, false, &answer,
                  "00000000 00000001 0001 't' 00000001 00000000 0000 0000000000000065 0000000000000065"
                  "00000001 0000000000000008 0000000000000063 00000005 'BATCH'");
    struct kafka_fetch_response_diverging_epoch diverging = {.epoch = 1, .end_offset = 2};
    answers[0].diverging_epoch = &diverging;
    assert_golden(&kafka_fetch_response_table, 12, true, &answer,
                  "00000000 0000 00000000 02 02 't' 02 00000000 0000 0000000000000065 0000000000000065"
                  "0000000000000000 02 0000000000000008 0000000000000063 00 ffffffff 06 'BATCH'"
                  "01 00 0d 00000001 0000000000000002 00 00 00");
}

static void test_golden_join_group(void **state)
{
    (void)state;
    struct kafka_join_group_request_protocol protocols[] = {{.name = S("range"), .metadata = S("\1\2")}};
    struct kafka_join_group_request request = {.group_id = S("g"),
                                               .session_timeout_ms = 45000,
                                               .rebalance_timeout_ms = 300000,
                                               .member_id = S(""),
                                               .group_instance_id = S("i1"),
                                               .protocol_type = S("consumer"),
                                               .protocols = MANY(protocols)};
    assert_golden(&kafka_join_group_request_table, 5, false, &request,
                  "0001 'g' 0000afc8 000493e0 0000 0002 'i1' 0008 'consumer' 00000001 0005 'range' 00000002 0102");
    request.group_instance_id = (struct slice){0};
    assert_golden(&kafka_join_group_request_table, 6, true, &request,
                  "02 'g' 0000afc8 000493e0 01 00 09 'consumer' 02 06 'range' 03 0102 00 00");
    struct kafka_join_group_response_member members[] = {{.member_id = S("m"), .metadata = S("\1\2")}};
    struct kafka_join_group_response answer = {.generation_id = 1,
                                               .protocol_name = S("range"),
                                               .leader = S("m"),
                                               .member_id = S("m"),
                                               .members = MANY(members)};
    assert_golden(&kafka_join_group_response_table, 5, false, &answer,
                  "00000000 0000 00000001 0005 'range' 0001 'm' 0001 'm' 00000001 0001 'm' ffff 00000002 0102");
}

/* ------------------------------------------------------------------------------------------------------------- refused */

static enum kafka_verdict verdict_of(const struct kafka_table *table, uint8_t version, bool flexible, size_t max,
                                     const char *text)
{
    uint8_t room[512];
    struct slice bytes = from_text(text, room);
    uint8_t *copy = malloc(bytes.len), *message = malloc(table->struct_len);
    memcpy(copy, bytes.ptr, bytes.len);
    struct arena arena;
    arena_init(&arena, max);
    struct kafka_form form = {.version = version, .flexible = flexible};
    enum kafka_verdict verdict = kafka_decode(table, form, slice_of(copy, bytes.len), &arena, message);
    assert_true(arena.used <= max);
    arena_fini(&arena);
    free(copy);
    free(message);
    return verdict;
}

static void test_lengths_that_cannot_be(void **state)
{
    (void)state;
    const struct kafka_table *metadata = &kafka_metadata_request_table, *produce = &kafka_produce_request_table;
    assert_int_equal(verdict_of(metadata, 1, false, ROOM, "7fffffff"), KAFKA_SHORT);
    assert_int_equal(verdict_of(metadata, 1, false, ROOM, "fffffffe"), KAFKA_BAD_LENGTH);
    assert_int_equal(verdict_of(metadata, 0, false, ROOM, "ffffffff"), KAFKA_BAD_LENGTH); /* null only from 1 on */
    assert_int_equal(verdict_of(metadata, 1, false, ROOM, "00000001 ffff"), KAFKA_BAD_LENGTH);
    assert_int_equal(verdict_of(metadata, 1, false, ROOM, "00000001 8000"), KAFKA_BAD_LENGTH);
    assert_int_equal(verdict_of(metadata, 1, false, ROOM, "00000002 0001 'a' 0005 'b'"), KAFKA_SHORT);
    assert_int_equal(verdict_of(metadata, 9, true, ROOM, "ffffffff0f"), KAFKA_SHORT);
    assert_int_equal(verdict_of(metadata, 9, true, ROOM, "ffffffff1f"), KAFKA_BAD_LENGTH); /* more than 32 bits */
    assert_int_equal(verdict_of(metadata, 9, true, ROOM, "80808080808001"), KAFKA_BAD_LENGTH);
    assert_int_equal(verdict_of(metadata, 9, true, ROOM, "8200 07 'orders' 00 01 00 00 00"), KAFKA_OK);
    assert_int_equal(verdict_of(produce, 3, false, ROOM, "fffe"), KAFKA_BAD_LENGTH);
    assert_int_equal(verdict_of(produce, 3, false, ROOM, "ffff ffff 00000000 00000001 0000 00000001 00000000 fffffffe"),
                     KAFKA_BAD_LENGTH);
    assert_int_equal(verdict_of(produce, 9, true, ROOM, "80808080 08"), KAFKA_BAD_LENGTH); /* a string of 2 GB */
}

static void test_count_is_held_against_what_is_left(void **state)
{
    (void)state;
    /* Two topics need at least 4 bytes in version 1; with 3 left nothing is taken from the arena. */
    uint8_t room[16];
    struct slice bytes = from_text("00000002 0000 00", room);
    struct arena arena;
    struct kafka_metadata_request request;
    arena_init(&arena, ROOM);
    assert_int_equal(
        kafka_decode(&kafka_metadata_request_table, (struct kafka_form){.version = 1}, bytes, &arena, &request),
        KAFKA_SHORT);
    assert_int_equal(arena.used, 0);
    arena_fini(&arena);
    /* Memory is limited although the bytes are there. */
    assert_int_equal(
        verdict_of(&kafka_metadata_request_table, 1, false, 100, "00000008 0000 0000 0000 0000 0000 0000 0000 0000"),
        KAFKA_NO_MEMORY);
    assert_int_equal(
        verdict_of(&kafka_metadata_request_table, 1, false, 400, "00000008 0000 0000 0000 0000 0000 0000 0000 0000"),
        KAFKA_OK);
}

static void test_least_size_is_that_of_the_defaults(void **state)
{
    (void)state;
#define TABLE(name_, rows)                                                                                             \
    for (uint8_t version = 0; version < 20; version++) {                                                               \
        struct kafka_##name_ message;                                                                                  \
        kafka_defaults(&kafka_##name_##_table, &message);                                                              \
        for (int flexible = 0; flexible < 2; flexible++) {                                                             \
            struct kafka_form form = {.version = version, .flexible = flexible};                                       \
            assert_int_equal(kafka_encode_size(&kafka_##name_##_table, form, &message),                                \
                             kafka_least_size(&kafka_##name_##_table, form));                                          \
        }                                                                                                              \
    }
#include "proto/kafka/messages.def"
#undef TABLE
}

static void test_tagged_fields(void **state)
{
    (void)state;
    const struct kafka_table *t = &kafka_fetch_request_table;
#define HEAD "000001f4 00000001 03200000 00 00000000 ffffffff 01 01 01 "
    assert_int_equal(verdict_of(t, 15, true, ROOM, HEAD "00"), KAFKA_OK);
    assert_int_equal(verdict_of(t, 15, true, ROOM, HEAD "01 00 03 02 'c' 00"),
                     KAFKA_BAD_LENGTH); /* one byte too long */
    assert_int_equal(verdict_of(t, 15, true, ROOM, HEAD "01 00 02 02 'c'"), KAFKA_OK);
    assert_int_equal(verdict_of(t, 15, true, ROOM, HEAD "01 00 01 02"), KAFKA_BAD_LENGTH); /* one too short */
    assert_int_equal(verdict_of(t, 15, true, ROOM, HEAD "01 63 03 'abc'"), KAFKA_OK);      /* not known */
    assert_int_equal(verdict_of(t, 15, true, ROOM, HEAD "01 63 03 'ab'"), KAFKA_SHORT);
    assert_int_equal(verdict_of(t, 15, true, ROOM, HEAD "02 63 01 'a'"), KAFKA_SHORT);
    assert_int_equal(verdict_of(t, 15, true, ROOM, HEAD "ffffffff0f 63 01 'a'"), KAFKA_SHORT);
    /* The tag of replica_state, which version 14 does not know. */
    assert_int_equal(verdict_of(t, 14, true, ROOM, "ffffffff " HEAD "01 01 01 ff"), KAFKA_OK);

    uint8_t room[256];
    struct slice bytes = from_text(HEAD "02 01 0d 00000007 0000000000000009 00 00 02 02 'c'", room);
    struct kafka_fetch_request request;
    struct arena arena;
    arena_init(&arena, ROOM);
    assert_int_equal(kafka_decode(t, (struct kafka_form){15, true}, bytes, &arena, &request), KAFKA_OK);
    assert_true(slice_is(request.cluster_id, "c"));
    assert_non_null(request.replica_state);
    assert_int_equal(request.replica_state->replica_id, 7);
    assert_int_equal(request.replica_state->replica_epoch, 9);
    assert_int_equal(request.replica_id, -1); /* a default: version 15 has it no more */
    arena_fini(&arena);
#undef HEAD
}

/* ----------------------------------------------------------------------------------------------- records from elsewhere */

static void test_records_from_elsewhere(void **state)
{
    (void)state;
    uint8_t bytes[1000], both[1100], room[2000];
    memset(bytes, 'R', sizeof bytes);
    struct kafka_fetch_response_partition partitions[3] = {{.records = {.ptr = NULL, .len = 700}},
                                                           {.records = slice_of(bytes, 10)},
                                                           {.records = {.ptr = NULL, .len = 300}}};
    struct kafka_fetch_response_topic topics[] = {{.topic = S("t"), .partitions = MANY(partitions)}};
    struct kafka_fetch_response answer = {.responses = MANY(topics)};
    struct kafka_cut list[2];
    for (int flexible = 0; flexible < 2; flexible++) {
        struct kafka_form form = {.version = flexible ? 12 : 11, .flexible = flexible};
        struct kafka_cuts cuts = {.list = list, .max = 2};
        struct writer w = writer_of(both, sizeof both), none = writer_of(room, sizeof room);
        kafka_encode(&w, &kafka_fetch_response_table, form, &answer, &cuts);
        assert_true(writer_ok(&w));
        assert_int_equal(cuts.count, 2);
        assert_int_equal(cuts.bytes, 1000);
        assert_int_equal(kafka_encode_size(&kafka_fetch_response_table, form, &answer), w.len + 1000);
        kafka_encode(&none, &kafka_fetch_response_table, form, &answer, NULL);
        assert_false(writer_ok(&none));
        cuts = (struct kafka_cuts){.list = list, .max = 1};
        none = writer_of(room, sizeof room);
        kafka_encode(&none, &kafka_fetch_response_table, form, &answer, &cuts);
        assert_false(writer_ok(&none));

        /* Put together, it is what is written when all records are in memory. */
        cuts = (struct kafka_cuts){.list = list, .max = 2};
        w = writer_of(both, sizeof both);
        kafka_encode(&w, &kafka_fetch_response_table, form, &answer, &cuts);
        struct writer whole = writer_of(room, sizeof room);
        writer_put(&whole, both, list[0].at);
        writer_put(&whole, bytes, list[0].len);
        writer_put(&whole, both + list[0].at, list[1].at - list[0].at);
        writer_put(&whole, bytes, list[1].len);
        writer_put(&whole, both + list[1].at, w.len - list[1].at);
        struct kafka_fetch_response got;
        struct arena arena;
        arena_init(&arena, ROOM);
        assert_int_equal(kafka_decode(&kafka_fetch_response_table, form, writer_slice(&whole), &arena, &got), KAFKA_OK);
        for (int i = 0; i < 3; i++) {
            struct slice records = got.responses.at[0].partitions.at[i].records;
            assert_true(slice_equal(records, slice_of(bytes, partitions[i].records.len)));
        }
        arena_fini(&arena);
    }
}

static void test_strings_that_are_too_long(void **state)
{
    (void)state;
    char *text = malloc(40000);
    memset(text, 'x', 40000);
    struct kafka_heartbeat_request request = {.group_id = slice_of(text, 32768)};
    assert_int_equal(kafka_encode_size(&kafka_heartbeat_request_table, (struct kafka_form){0, false}, &request),
                     SIZE_MAX);
    assert_int_equal(kafka_encode_size(&kafka_heartbeat_request_table, (struct kafka_form){4, true}, &request),
                     SIZE_MAX);
    request.group_id.len = 32767;
    assert_int_equal(kafka_encode_size(&kafka_heartbeat_request_table, (struct kafka_form){0, false}, &request), 32775);
    free(text);
}

/* Null where the version knows no null is written as empty, a missing struct as its defaults. */
static void test_zeroed_answers_are_valid(void **state)
{
    (void)state;
    struct kafka_share_fetch_response_partition partitions[1] = {{0}};
    struct kafka_share_fetch_response_topic topics[] = {{.partitions = MANY(partitions)}};
    struct kafka_share_fetch_response answer = {.responses = MANY(topics)};
    struct arena arena;
    struct kafka_share_fetch_response got;
    uint8_t *room = malloc(ROOM);
    arena_init(&arena, ROOM);
    struct slice bytes = encode(&kafka_share_fetch_response_table, (struct kafka_form){1, true}, &answer, room);
    assert_int_equal(kafka_decode(&kafka_share_fetch_response_table, (struct kafka_form){1, true}, bytes, &arena, &got),
                     KAFKA_OK);
    assert_non_null(got.responses.at[0].partitions.at[0].current_leader);
    assert_int_equal(got.responses.at[0].partitions.at[0].current_leader->leader_id, 0);
    struct kafka_metadata_request all = {.topics = {.count = -1}};
    bytes = encode(&kafka_metadata_request_table, (struct kafka_form){0, false}, &all, room);
    assert_int_equal(bytes.len, 4);
    assert_int_equal(bytes.ptr[0], 0);
    arena_fini(&arena);
    free(room);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_message_and_version),
        cmocka_unit_test(test_golden_api_versions),
        cmocka_unit_test(test_golden_metadata),
        cmocka_unit_test(test_golden_produce),
        cmocka_unit_test(test_golden_fetch),
        cmocka_unit_test(test_golden_join_group),
        cmocka_unit_test(test_lengths_that_cannot_be),
        cmocka_unit_test(test_count_is_held_against_what_is_left),
        cmocka_unit_test(test_least_size_is_that_of_the_defaults),
        cmocka_unit_test(test_tagged_fields),
        cmocka_unit_test(test_records_from_elsewhere),
        cmocka_unit_test(test_strings_that_are_too_long),
        cmocka_unit_test(test_zeroed_answers_are_valid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
