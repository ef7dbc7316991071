/* The mapping: MQTT to MQTT nothing changes; MQTT to AMQP and AMQP to MQTT as docs/mapping.md says. */
#include "proto/mqtt/mapping.h"

#include "base/mem.h"
#include "fmt/amqp_table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static struct slab_heap heap;

static struct slice put(struct writer *w, const struct mqtt_one *ones, size_t count)
{
    size_t from = w->len;
    for (size_t i = 0; i < count; i++)
        mqtt_property_put(w, &ones[i]);
    assert_true(writer_ok(w));
    return slice_of(w->base + from, w->len - from);
}

/* The properties of a PUBLISH as the engine has them, by way of a packet. */
static void props_from(struct mqtt_props *props, const struct mqtt_one *ones, size_t count)
{
    static uint8_t room[200000], bytes[200000];
    struct writer w = writer_of(room, sizeof room), p = writer_of(bytes, sizeof bytes);
    union mqtt_fields f = {.publish = {.topic = slice_str("t")}};
    struct mqtt_frame frame;
    f.publish.props.more = put(&w, ones, count);
    mqtt_encode(&p, MQTT_publish, MQTT_5, &f);
    assert_true(writer_ok(&p));
    assert_int_equal(mqtt_cut(writer_slice(&p), SIZE_MAX, &frame), MQTT_CUT_OK);
    assert_int_equal(mqtt_decode(&frame, MQTT_5, MQTT_CLIENT, &f), 0);
    *props = f.publish.props;
}

/* To a message and back. ret_raw: what AMQP sees. */
static struct slice round_trip(uint8_t qos, bool retain, const struct mqtt_one *ones, size_t count,
                               struct amqp_props *ret, struct mqtt_content *content)
{
    static uint8_t out[400000];
    static struct msg *kept;
    struct mqtt_props props;
    struct mqtt_given given;
    struct writer w = writer_of(out, sizeof out);
    if (kept)
        msg_unref(&heap, kept);
    kept = NULL;
    if (!ones)
        return (struct slice){0};
    props_from(&props, ones, count);
    assert_int_equal(mqtt_given_make(&given, qos, retain, &props), 0);
    kept = msg_new(&heap, slice_str("amq.topic"), slice_str("t"), given.raw, 0);
    assert_non_null(kept);
    kept->flags = given.flags;
    kept->expiration_ms = given.expiration_ms;
    mqtt_given_fini(&given);
    assert_true(amqp_props_parse(msg_props(kept), ret));
    mqtt_content_read(kept, content);
    mqtt_content_put(&w, content, kept->expiration_ms > 0 ? (uint32_t)(kept->expiration_ms / 1000) : 0);
    assert_true(writer_ok(&w));
    assert_true(w.len <= mqtt_content_len_max(content));
    return writer_slice(&w);
}

#define USER(name, value_)                                                                                             \
    {                                                                                                                  \
        .property = MQTT_P_user, .text = slice_str(name), .value = slice_str(value_)                                   \
    }
#define TEXT(property_, text_)                                                                                         \
    {                                                                                                                  \
        .property = MQTT_P_##property_, .text = text_                                                                  \
    }
#define NUMBER(property_, number_)                                                                                     \
    {                                                                                                                  \
        .property = MQTT_P_##property_, .number = number_                                                              \
    }

static void assert_same(uint8_t qos, bool retain, const struct mqtt_one *ones, size_t count, struct amqp_props *ret)
{
    static uint8_t room[400000];
    struct writer w = writer_of(room, sizeof room);
    struct mqtt_content content;
    struct slice want = put(&w, ones, count), got = round_trip(qos, retain, ones, count, ret, &content);
    assert_int_equal(content.qos, qos);
    assert_int_equal(content.mark, retain ? MQTT_PUBLISHED_RETAINED : MQTT_NOT_RETAINED);
    assert_int_equal(got.len, want.len);
    assert_memory_equal(got.ptr, want.ptr, want.len);
}

static void test_everything_that_fits(void **state)
{
    (void)state;
    const struct mqtt_one ones[] = {NUMBER(payload_format, 1),
                                    NUMBER(message_expiry, 77),
                                    TEXT(content_type, slice_str("text/plain")),
                                    TEXT(response_topic, slice_str("re/ply.1")),
                                    TEXT(correlation_data, slice_str("c\xc3\xb6rr")),
                                    USER("b", "2"),
                                    USER("a", "1"),
                                    USER("a", "1"),
                                    USER("traceparent", "00-x-y-01")};
    struct amqp_props p;
    struct amqp_value value;
    for (uint8_t qos = 0; qos < 3; qos++) {
        assert_same(qos, qos & 1, ones, ARRAY_LEN(ones), &p);
        assert_true(slice_is(p.content_type, "text/plain"));
        assert_true(slice_is(p.reply_to, "re.ply/1"));
        assert_true(slice_is(p.correlation_id, "c\xc3\xb6rr"));
        assert_true(slice_is(p.expiration, "77000"));
        assert_int_equal(p.present & AMQP_DELIVERY_MODE ? p.delivery_mode : 0, qos ? 2 : 0);
        assert_true(amqp_table_find(p.headers, "traceparent", &value) && value.type == 'S');
        assert_true(slice_is(value.s, "00-x-y-01"));
    }
}

static void test_what_needs_a_header(void **state)
{
    (void)state;
    char longer[301];
    memset(longer, 'l', 300);
    longer[300] = '\0';
    const struct mqtt_one ones[] = {TEXT(content_type, slice_str(longer)),
                                    TEXT(response_topic, slice_str(longer)),
                                    TEXT(correlation_data, slice_of("\0\xff", 2)),
                                    USER("plain", "x"),
                                    USER("CC", "y"),
                                    USER("", "z"),
                                    USER("x-mqtt-retain", "1"),
                                    {.property = MQTT_P_user, .text = slice_str(longer), .value = slice_str("")}};
    struct amqp_props p;
    struct amqp_value value;
    assert_same(1, false, ones, ARRAY_LEN(ones), &p);
    assert_false(p.present & (AMQP_CONTENT_TYPE | AMQP_REPLY_TO | AMQP_CORRELATION_ID));
    assert_false(amqp_table_find(p.headers, "CC", &value));
    assert_true(amqp_table_find(p.headers, "x-mqtt-user-properties", &value) && value.type == 'A');
    const struct mqtt_one direct[] = {TEXT(response_topic, slice_str("amq/rabbitmq/reply-to"))};
    assert_same(0, false, direct, 1, &p);
    assert_false(p.present & AMQP_REPLY_TO);
}

static void test_words_of_amqp(void **state)
{
    (void)state;
    const struct mqtt_one ones[] = {
        USER("x-amqp-content-encoding", "gzip"), USER("x-amqp-priority", "7"), USER("x-amqp-message-id", "id"),
        USER("x-amqp-timestamp", "1700000000"),  USER("x-amqp-type", "ty"),    USER("x-amqp-app-id", "app")};
    struct amqp_props p;
    struct amqp_value value;
    assert_same(1, false, ones, ARRAY_LEN(ones), &p);
    assert_true(slice_is(p.content_encoding, "gzip") && slice_is(p.message_id, "id") && slice_is(p.type, "ty"));
    assert_true(slice_is(p.app_id, "app") && p.priority == 7 && p.timestamp == 1700000000);
    assert_false(p.present & AMQP_HEADERS);
    const struct mqtt_one odd[] = {USER("x-amqp-priority", "256"), USER("x-amqp-timestamp", "soon"),
                                   USER("x-amqp-type", "a"), USER("x-amqp-type", "b")};
    struct mqtt_content content;
    round_trip(0, false, odd, 4, &p, &content);
    assert_true(slice_is(p.type, "a"));
    assert_true(amqp_table_find(p.headers, "x-amqp-priority", &value) && slice_is(value.s, "256"));
    assert_true(amqp_table_find(p.headers, "x-amqp-type", &value) && slice_is(value.s, "b"));
}

/* The bytes that stand ready are those that would be made. */
static void test_the_usual(void **state)
{
    (void)state;
    for (uint8_t qos = 0; qos < 3; qos++)
        for (int retain = 0; retain < 2; retain++) {
            struct mqtt_given ready, made;
            struct mqtt_props none = {.present = 0}, one = {.present = 1u << MQTT_P_payload_format};
            assert_int_equal(mqtt_given_make(&ready, qos, retain, &none), 0);
            assert_int_equal(mqtt_given_make(&made, qos, retain, &one), 0); /* a format of 0 leaves no trace */
            assert_int_equal(ready.raw.len, made.raw.len);
            assert_memory_equal(ready.raw.ptr, made.raw.ptr, made.raw.len);
            assert_int_equal(ready.flags, made.flags);
            assert_int_equal(ready.expiration_ms, -1);
            mqtt_given_fini(&made);
        }
}

static void test_limits(void **state)
{
    (void)state;
    static struct mqtt_one ones[MQTT_USER_PROPERTIES_MAX + 1];
    struct mqtt_props props;
    struct mqtt_given given;
    struct amqp_props p;
    for (unsigned i = 0; i <= MQTT_USER_PROPERTIES_MAX; i++)
        ones[i] = (struct mqtt_one){.property = MQTT_P_user, .text = slice_str("CC"), .value = slice_str("")};
    assert_same(1, true, ones, MQTT_USER_PROPERTIES_MAX, &p);
    props_from(&props, ones, MQTT_USER_PROPERTIES_MAX + 1);
    assert_int_equal(mqtt_given_make(&given, 0, false, &props), MQTT_R_quota);
    mqtt_given_fini(&given);
    static char big[60000];
    memset(big, 'v', sizeof big);
    ones[0] = (struct mqtt_one){.property = MQTT_P_user, .text = slice_str("n"), .value = slice_of(big, sizeof big)};
    assert_same(2, false, ones, 1, &p);
    ones[1] = ones[0];
    props_from(&props, ones, 2);
    assert_int_equal(mqtt_given_make(&given, 0, false, &props), MQTT_R_quota);
    mqtt_given_fini(&given);
    props_from(&props, ones, 1);
    mem_fail_at(1, false);
    assert_int_equal(mqtt_given_make(&given, 0, false, &props), MQTT_R_quota);
    mem_fail_at(0, false);
    mqtt_given_fini(&given);
    const struct mqtt_one never[] = {NUMBER(message_expiry, UINT32_MAX)};
    props_from(&props, never, 1);
    assert_int_equal(mqtt_given_make(&given, 0, false, &props), 0);
    assert_int_equal(given.expiration_ms, MQTT_EXPIRY_MAX_S * INT64_C(1000));
    mqtt_given_fini(&given);
}

/* ---- from AMQP ---- */

static struct slice from_amqp(const struct amqp_props *props, uint8_t flags, struct mqtt_content *content)
{
    static uint8_t raw[4096], out[40000];
    static struct msg *kept;
    struct writer r = writer_of(raw, sizeof raw), w = writer_of(out, sizeof out);
    if (kept)
        msg_unref(&heap, kept);
    kept = NULL;
    if (!props)
        return (struct slice){0};
    amqp_props_write(&r, props);
    kept = msg_new(&heap, slice_str(""), slice_str("k"), writer_slice(&r), 0);
    kept->flags = flags;
    mqtt_content_read(kept, content);
    mqtt_content_put(&w, content, 0);
    assert_true(writer_ok(&w) && w.len <= mqtt_content_len_max(content));
    return writer_slice(&w);
}

static void assert_list(struct slice got, const struct mqtt_one *ones, size_t count)
{
    uint8_t room[4096];
    struct writer w = writer_of(room, sizeof room);
    struct slice want = put(&w, ones, count);
    assert_int_equal(got.len, want.len);
    assert_memory_equal(got.ptr, want.ptr, want.len);
}

static void test_headers_become_user_properties(void **state)
{
    (void)state;
    uint8_t table[1024];
    struct writer t = writer_of(table, sizeof table);
    amqp_put_str(&t, "s", slice_str("text"));
    amqp_put_str(&t, "bad", slice_str("\xff"));
    writer_put(&t, "\1xx\0\0\0\4\xc3\xa4\xc3\xb6", 11); /* bytes: a header of Kafka's, UTF-8 … */
    writer_put(&t, "\1yx\0\0\0\2\xff\0", 9);            /* … or not */
    writer_put(&t, "\1zx\0\0\0\2a\0", 9);
    amqp_put_int(&t, "i", -5);
    amqp_put_long(&t, "l", 1LL << 40);
    amqp_put_bool(&t, "t", true);
    amqp_put_bool(&t, "", false);
    amqp_put_time(&t, "T", 9);
    size_t mark = amqp_open(&t, "A", 'A');
    amqp_close(&t, mark);
    mark = amqp_open(&t, "F", 'F');
    amqp_put_bool(&t, "inner", true);
    amqp_close(&t, mark);
    writer_put(&t, "\1dd\x3f\xb9\x99\x99\x99\x99\x99\x9a", 11);
    amqp_put_str(&t, "x-mqtt-something", slice_str("own"));
    struct amqp_props p = {.present = AMQP_HEADERS | AMQP_REPLY_TO | AMQP_TYPE | AMQP_USER_ID | AMQP_CONTENT_TYPE,
                           .headers = writer_slice(&t),
                           .reply_to = slice_str("re.ply"),
                           .content_type = slice_str("\xc3"),
                           .type = slice_str("ty"),
                           .user_id = slice_str("guest")};
    const struct mqtt_one want[] = {TEXT(response_topic, slice_str("re/ply")),
                                    USER("x-amqp-type", "ty"),
                                    USER("s", "text"),
                                    USER("x", "\xc3\xa4\xc3\xb6"),
                                    USER("i", "-5"),
                                    USER("l", "1099511627776"),
                                    USER("t", "true"),
                                    USER("", "false"),
                                    USER("T", "9"),
                                    USER("d", "0.10000000000000001")};
    struct mqtt_content content;
    assert_list(from_amqp(&p, MSG_PERSISTENT | MSG_HAS_HEADERS, &content), want, ARRAY_LEN(want));
    assert_int_equal(content.qos, 1);
    p.reply_to = slice_str("no.*.topic");
    p.present = AMQP_REPLY_TO;
    assert_int_equal(from_amqp(&p, 0, &content).len, 0);
    assert_int_equal(content.qos, 0);
}

static void test_marks_of_others(void **state)
{
    (void)state;
    uint8_t table[256];
    struct writer t = writer_of(table, sizeof table);
    writer_put(&t, "\x12x-mqtt-publish-qosb\x02\x0fx-mqtt-retainedt\x01\x0dx-mqtt-retaint\x01", 55);
    struct amqp_props p = {.present = AMQP_HEADERS, .headers = writer_slice(&t)};
    struct mqtt_content content;
    from_amqp(&p, MSG_PERSISTENT, &content);
    assert_int_equal(content.qos, 2);
    assert_int_equal(content.mark, MQTT_STORED_RETAINED);
    from_amqp(&p, 0, &content); /* what is not persistent was never more than QoS 0 */
    assert_int_equal(content.qos, 0);
}

static int setup(void **state)
{
    (void)state;
    slab_heap_init(&heap);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    struct amqp_props p;
    struct mqtt_content content;
    round_trip(0, false, NULL, 0, &p, &content);
    from_amqp(NULL, 0, &content);
    slab_heap_fini(&heap);
    return mem_in_use() ? -1 : 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everything_that_fits),
        cmocka_unit_test(test_what_needs_a_header),
        cmocka_unit_test(test_words_of_amqp),
        cmocka_unit_test(test_the_usual),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_headers_become_user_properties),
        cmocka_unit_test(test_marks_of_others),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
