/* The tables: every row is consistent with every other, and the headers are those of the protocol. */
#include "proto/kafka/api.h"

#include "base/mem.h"

#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

/* "ListOffsets" and "list_offsets_request": the same words. */
static void assert_same_words(const char *title, const char *name, const char *rest)
{
    for (const char *t = title; *t; t++) {
        if (isupper((unsigned char)*t) && t > title)
            assert_int_equal(*name++, '_');
        assert_int_equal(*name++, tolower((unsigned char)*t));
    }
    assert_string_equal(name, rest);
}

static void test_rows_of_api(void **state)
{
    (void)state;
    int16_t last_key = -1;
    for (const struct kafka_api *api = kafka_apis; api < kafka_apis + kafka_api_count; api++) {
        assert_true(api->key > last_key);
        last_key = api->key;
        assert_true(api->first <= api->last);
        assert_true(api->first_announced <= api->first);
        assert_true(api->first_announced == api->first || api->key == KAFKA_API_produce);
        assert_same_words(api->name, api->request->name, "_request");
        assert_same_words(api->name, api->response->name, "_response");
        assert_ptr_equal(kafka_api_find(api->key), api);
    }
    assert_null(kafka_api_find(-1));
    assert_null(kafka_api_find(4));
    assert_null(kafka_api_find(INT16_MAX));
    assert_null(kafka_api_find(INT16_MIN));
}

static void test_only_these_are_legal_before_login(void **state)
{
    (void)state;
    for (const struct kafka_api *api = kafka_apis; api < kafka_apis + kafka_api_count; api++) {
        bool before = api->key == KAFKA_API_api_versions || api->key == KAFKA_API_sasl_handshake ||
                      api->key == KAFKA_API_sasl_authenticate;
        assert_int_equal(api->before_login, before);
    }
}

/* What librdkafka before 2.11.1 looks for before it compresses, joins groups or logs in; see the reference of this issue. */
static void test_ranges_that_old_librdkafka_tests_for(void **state)
{
    (void)state;
    static const struct {
        int16_t key, version;
    } needed[] = {
        {KAFKA_API_produce, 0},        {KAFKA_API_produce, 3},          {KAFKA_API_produce, 7},
        {KAFKA_API_fetch, 4},          {KAFKA_API_fetch, 10},           {KAFKA_API_fetch, 12},
        {KAFKA_API_list_offsets, 1},   {KAFKA_API_find_coordinator, 0}, {KAFKA_API_offset_commit, 2},
        {KAFKA_API_offset_fetch, 1},   {KAFKA_API_join_group, 0},       {KAFKA_API_sync_group, 0},
        {KAFKA_API_heartbeat, 0},      {KAFKA_API_leave_group, 0},      {KAFKA_API_init_producer_id, 0},
        {KAFKA_API_sasl_handshake, 0}, {KAFKA_API_sasl_handshake, 1},   {KAFKA_API_sasl_authenticate, 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(needed); i++) {
        const struct kafka_api *api = kafka_api_find(needed[i].key);
        assert_true(needed[i].version >= api->first_announced && needed[i].version <= api->last);
    }
}

/* -------------------------------------------------------------------------------------------------------------- fields */

static void check_field(const struct kafka_table *table, const struct kafka_field *f)
{
    assert_true(f->at < table->struct_len);
    assert_true(f->from <= f->to);
    if (f->null_from) {
        assert_true(f->null_from - 1 <= f->to);
        assert_true(f->kind >= KAFKA_string);
    }
    if (f->otherwise && f->kind >= KAFKA_string) { /* only null can be the default, where null can be */
        assert_int_equal(f->otherwise, -1);
        assert_true(f->null_from != 0);
    }
    if (f->otherwise)
        assert_true(f->kind != KAFKA_u16 && f->kind != KAFKA_f64 && f->kind != KAFKA_uuid);
    if (f->kind == KAFKA_bool)
        assert_true(f->otherwise == 0 || f->otherwise == 1);
    if (f->kind == KAFKA_LIST)
        assert_true((f->item >= KAFKA_i8 && f->item <= KAFKA_i64) || f->item == KAFKA_uuid || f->item == KAFKA_string);
    assert_int_equal(f->element != NULL, f->kind == KAFKA_PART || f->kind == KAFKA_ARRAY);
}

/* The walkers rely on these: tagged fields last and by their tag, no null inside a tag, no element that takes no byte. */
static void check_order(const struct kafka_table *table)
{
    uint8_t last_tag = 0;
    for (const struct kafka_field *f = table->fields; f < table->fields + table->field_count; f++) {
        check_field(table, f);
        if (last_tag)
            assert_true(f->tag > last_tag);
        last_tag = f->tag;
        if (f->tag) {
            assert_true(f->kind != KAFKA_records);
            assert_false(f->kind == KAFKA_PART && f->null_from);
        }
        for (const struct kafka_field *g = table->fields; g < f; g++)
            assert_string_not_equal(f->name, g->name);
    }
}

static void check_table(const struct kafka_table *table, const struct kafka_api *api, unsigned depth)
{
    assert_true(depth < 10);
    assert_memory_equal(table->name, api->request->name, strlen(api->request->name) - strlen("request"));
    check_order(table);
    for (const struct kafka_field *f = table->fields; f < table->fields + table->field_count; f++) {
        if (f->tag)
            assert_true(f->from >= api->flexible_from);
        if (!f->element)
            continue;
        check_table(f->element, api, depth + 1);
        for (uint8_t version = api->first; version <= api->last; version++) {
            if (f->kind == KAFKA_ARRAY && kafka_field_in(f, version))
                assert_true(kafka_least_size(f->element, kafka_api_form(api, version)) > 0);
        }
    }
}

static void test_rows_of_messages(void **state)
{
    (void)state;
    for (const struct kafka_api *api = kafka_apis; api < kafka_apis + kafka_api_count; api++) {
        check_table(api->request, api, 0);
        check_table(api->response, api, 0);
    }
}

static bool holds(const struct kafka_table *table, const struct kafka_table *wanted)
{
    if (table == wanted)
        return true;
    for (const struct kafka_field *f = table->fields; f < table->fields + table->field_count; f++) {
        if (f->element && holds(f->element, wanted))
            return true;
    }
    return false;
}

static bool is_used(const struct kafka_table *table)
{
    for (const struct kafka_api *api = kafka_apis; api < kafka_apis + kafka_api_count; api++) {
        if (holds(api->request, table) || holds(api->response, table))
            return true;
    }
    return false;
}

static void test_every_table_belongs_to_a_key(void **state)
{
    (void)state;
#define TABLE(name, rows) assert_true(is_used(&kafka_##name##_table));
#include "proto/kafka/messages.def"
#undef TABLE
}

/* A version in which nothing changes on the wire may be there for what it means; that there is one field that ends or
 * begins beyond what is spoken would be a row for nothing. */
static void test_no_field_is_beyond_the_versions(void **state)
{
    (void)state;
    for (const struct kafka_api *api = kafka_apis; api < kafka_apis + kafka_api_count; api++) {
        const struct kafka_table *tables[] = {api->request, api->response};
        for (size_t i = 0; i < ARRAY_LEN(tables); i++)
            for (uint8_t k = 0; k < tables[i]->field_count; k++) {
                assert_true(tables[i]->fields[k].from <= api->last);
                assert_true(tables[i]->fields[k].to >= api->first);
            }
    }
}

/* ------------------------------------------------------------------------------------------------------------- headers */

static enum kafka_head_verdict head_of(const char *bytes, size_t len, struct kafka_request_head *ret,
                                       struct slice *body)
{
    uint8_t *copy = malloc(len ? len : 1);
    memcpy(copy, bytes, len);
    enum kafka_head_verdict verdict = kafka_request_head(slice_of(copy, len), ret, body);
    if (verdict == KAFKA_HEAD_OK) { /* the copy goes; what points into it is moved to the original */
        body->ptr = (const uint8_t *)bytes + (body->ptr - copy);
        if (ret->client_id.ptr)
            ret->client_id.ptr = (const uint8_t *)bytes + (ret->client_id.ptr - copy);
    }
    free(copy);
    return verdict;
}

#define HEAD_OF(text, head, body) head_of(text, sizeof(text) - 1, head, body)

static void test_request_heads(void **state)
{
    (void)state;
    struct kafka_request_head head;
    struct slice body;
    /* Version 1 of the header: ApiVersions 0. */
    assert_int_equal(HEAD_OF("\0\x12\0\0\0\0\0\7\0\3abc", &head, &body), KAFKA_HEAD_OK);
    assert_string_equal(head.api->name, "ApiVersions");
    assert_int_equal(head.correlation_id, 7);
    assert_true(slice_is(head.client_id, "abc") && body.len == 0 && !head.form.flexible);
    /* Version 2: the client id is not compact, then tagged fields. */
    assert_int_equal(HEAD_OF("\0\x12\0\3\xff\xff\xff\xff\xff\xff\0body", &head, &body), KAFKA_HEAD_OK);
    assert_int_equal(head.correlation_id, -1);
    assert_true(head.client_id.ptr == NULL && slice_is(body, "body") && head.form.flexible);
    assert_int_equal(HEAD_OF("\0\x12\0\3\0\0\0\1\0\0\2\1\3xyz\2\0", &head, &body), KAFKA_HEAD_OK);
    assert_true(head.client_id.ptr != NULL && head.client_id.len == 0 && body.len == 0);
    /* SaslHandshake is never flexible. */
    assert_int_equal(HEAD_OF("\0\x11\0\1\0\0\0\1\xff\xff\0\5PLAIN", &head, &body), KAFKA_HEAD_OK);
    assert_int_equal(body.len, 7);
}

static void test_request_heads_that_are_refused(void **state)
{
    (void)state;
    struct kafka_request_head head;
    struct slice body;
    assert_int_equal(HEAD_OF("\0\x12\0\x63\0\0\0\7", &head, &body), KAFKA_HEAD_UNKNOWN_VERSION);
    assert_int_equal(head.version, 0x63);
    assert_int_equal(head.correlation_id, 7);
    assert_int_equal(head.api->key, KAFKA_API_api_versions);
    assert_int_equal(HEAD_OF("\0\0\0\2\0\0\0\7\xff\xff", &head, &body), KAFKA_HEAD_UNKNOWN_VERSION); /* Produce 2 */
    assert_int_equal(HEAD_OF("\0\0\xff\xff\0\0\0\7\xff\xff", &head, &body), KAFKA_HEAD_UNKNOWN_VERSION);
    assert_int_equal(HEAD_OF("\0\x04\0\0\0\0\0\7\xff\xff", &head, &body), KAFKA_HEAD_UNKNOWN_KEY);
    assert_int_equal(HEAD_OF("\xff\xff\0\0\0\0\0\7\xff\xff", &head, &body), KAFKA_HEAD_UNKNOWN_KEY);
    assert_int_equal(HEAD_OF("\0\x12\0\0\0\0\0\7\xff\xfe", &head, &body), KAFKA_HEAD_DAMAGED);
    assert_int_equal(HEAD_OF("\0\x12\0\3\0\0\0\7\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\1", &head, &body),
                     KAFKA_HEAD_DAMAGED);
    static const char whole[] = "\0\x12\0\3\0\0\0\1\0\3abc\1\1\3xyz";
    assert_int_equal(HEAD_OF(whole, &head, &body), KAFKA_HEAD_OK);
    for (size_t len = 0; len < sizeof whole - 1; len++)
        assert_int_equal(head_of(whole, len, &head, &body), KAFKA_HEAD_DAMAGED);
}

static void test_heads_there_and_back(void **state)
{
    (void)state;
    uint8_t room[64];
    for (const struct kafka_api *api = kafka_apis; api < kafka_apis + kafka_api_count; api++) {
        for (uint8_t version = api->first; version <= api->last; version++) {
            struct kafka_form form = kafka_api_form(api, version);
            struct kafka_request_head head;
            struct slice body;
            int32_t id;
            struct writer w = writer_of(room, sizeof room);
            size_t mark = kafka_request_begin(&w, api, form, -5, slice_str("me"));
            writer_put(&w, "body", 4);
            kafka_request_end(&w, mark);
            assert_true(writer_ok(&w) && room[3] == w.len - 4);
            assert_int_equal(kafka_request_head(slice_of(room + 4, w.len - 4), &head, &body), KAFKA_HEAD_OK);
            assert_true(head.api == api && head.version == version && head.correlation_id == -5);
            assert_true(slice_is(head.client_id, "me") && slice_is(body, "body"));
            assert_int_equal(head.form.flexible, form.flexible);

            w = writer_of(room, sizeof room);
            mark = kafka_response_begin(&w, api, form, 1 << 20);
            assert_int_equal(w.len, kafka_response_head_size(api, form));
            /* ApiVersions' has no tagged fields even where the message has. */
            assert_int_equal(w.len, form.flexible && api->key != 18 ? 9 : 8);
            writer_put(&w, "body", 4);
            kafka_response_end(&w, mark, 256);
            assert_true(writer_ok(&w) && room[2] == 1 && room[3] == w.len - 4);
            assert_true(kafka_response_head(slice_of(room + 4, w.len - 4), api, form, &id, &body));
            assert_true(id == 1 << 20 && slice_is(body, "body"));
        }
    }
}

static void test_response_too_long_for_its_length(void **state)
{
    (void)state;
    uint8_t room[64];
    const struct kafka_api *api = kafka_api_find(KAFKA_API_fetch);
    struct writer w = writer_of(room, sizeof room);
    size_t mark = kafka_response_begin(&w, api, kafka_api_form(api, 4), 1);
    kafka_response_end(&w, mark, INT32_MAX - 4);
    assert_true(writer_ok(&w));
    kafka_response_end(&w, mark, INT32_MAX - 3);
    assert_false(writer_ok(&w));
}

static void test_request_into_the_arena(void **state)
{
    (void)state;
    static const char request[] = "\0\x0c\0\0\0\0\0\1\xff\xff\0\1g\0\0\0\5\0\1m";
    struct kafka_request_head head;
    struct slice body;
    struct arena arena;
    void *message = NULL;
    assert_int_equal(kafka_request_head(slice_of(request, sizeof request - 1), &head, &body), KAFKA_HEAD_OK);
    arena_init(&arena, 4096);
    assert_int_equal(kafka_request_decode(&head, body, &arena, &message), KAFKA_OK);
    struct kafka_heartbeat_request *heartbeat = message;
    assert_true(slice_is(heartbeat->group_id, "g") && slice_is(heartbeat->member_id, "m"));
    assert_int_equal(heartbeat->generation_id, 5);
    assert_null(heartbeat->group_instance_id.ptr);
    arena_fini(&arena);
    arena_init(&arena, 8);
    message = NULL;
    assert_int_equal(kafka_request_decode(&head, body, &arena, &message), KAFKA_NO_MEMORY);
    assert_null(message);
    arena_fini(&arena);
}

/* -------------------------------------------------------------------------------------------------------------- errors */

static void test_errors(void **state)
{
    (void)state;
    for (int code = -1; code <= KAFKA_ERR_CONTROLLER_ID_NOT_REGISTERED; code++) {
        const struct kafka_error_row *row = kafka_error_row(code);
        assert_non_null(row->name); /* no gap in the numbers */
        assert_int_equal(row->code, code);
        assert_true(strlen(row->text) > 5 && row->text[strlen(row->text) - 1] != '.');
    }
    assert_string_equal(kafka_error_row(1)->name, "OFFSET_OUT_OF_RANGE");
    assert_string_equal(kafka_error_row(1000)->name, "UNKNOWN_SERVER_ERROR");
    assert_string_equal(kafka_error_row(-2)->name, "UNKNOWN_SERVER_ERROR");
    assert_true(kafka_error_row(KAFKA_ERR_NOT_LEADER_OR_FOLLOWER)->retriable);
    assert_false(kafka_error_row(KAFKA_ERR_PRODUCER_FENCED)->retriable);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_of_api),
        cmocka_unit_test(test_only_these_are_legal_before_login),
        cmocka_unit_test(test_ranges_that_old_librdkafka_tests_for),
        cmocka_unit_test(test_rows_of_messages),
        cmocka_unit_test(test_every_table_belongs_to_a_key),
        cmocka_unit_test(test_no_field_is_beyond_the_versions),
        cmocka_unit_test(test_request_heads),
        cmocka_unit_test(test_request_heads_that_are_refused),
        cmocka_unit_test(test_heads_there_and_back),
        cmocka_unit_test(test_response_too_long_for_its_length),
        cmocka_unit_test(test_request_into_the_arena),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
