/* Unit test of the basic class's properties: known bytes, every combination of flags, damage. */
#include "fmt/amqp_props.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static const char headers[] = "\x01kI\x00\x00\x00\x07";

static struct amqp_props full(void)
{
    return (struct amqp_props){.present = 0xfffc,
                               .delivery_mode = 2,
                               .priority = 9,
                               .timestamp = UINT64_C(1700000000),
                               .content_type = slice_str("text/plain"),
                               .content_encoding = slice_str("utf-8"),
                               .headers = slice_of(headers, sizeof headers - 1),
                               .correlation_id = slice_str("c1"),
                               .reply_to = slice_str("back"),
                               .expiration = slice_str("60000"),
                               .message_id = slice_str("m1"),
                               .type = slice_str("t"),
                               .user_id = slice_str("guest"),
                               .app_id = slice_str(""),
                               .cluster_id = slice_str("x")};
}

static void known_bytes_are_read(void **state)
{
    (void)state;
    static const char raw[] = "\xb8\x40\x04"
                              "json\x00\x00\x00\x07\x01kI\x00\x00\x00\x07\x02\x05\x00\x00\x00\x00\x65\x53\xf1\x00";
    struct amqp_props p = {0};
    assert_true(amqp_props_parse(slice_of(raw, sizeof raw - 1), &p));
    assert_int_equal(p.present, AMQP_CONTENT_TYPE | AMQP_HEADERS | AMQP_DELIVERY_MODE | AMQP_PRIORITY | AMQP_TIMESTAMP);
    assert_true(slice_is(p.content_type, "json"));
    assert_int_equal(p.headers.len, 7);
    assert_int_equal(p.delivery_mode, 2);
    assert_int_equal(p.priority, 5);
    assert_int_equal(p.timestamp, 1700000000);
    assert_int_equal(p.reply_to.len, 0);
}

static void any_combination_is_read_back(void **state)
{
    (void)state;
    uint8_t room[512];
    for (unsigned flags = 0; flags < 0x10000; flags += 4) {
        struct amqp_props in = full(), out = {0};
        in.present = (uint16_t)flags;
        struct writer w = writer_of(room, sizeof room);
        amqp_props_write(&w, &in);
        assert_true(writer_ok(&w) && w.len <= amqp_props_len_max(&in));
        assert_true(amqp_props_parse(writer_slice(&w), &out));
        assert_int_equal(out.present, flags);
        assert_true(slice_equal(out.cluster_id, flags & AMQP_CLUSTER_ID ? in.cluster_id : (struct slice){0}));
        assert_true(slice_equal(out.user_id, flags & AMQP_USER_ID ? in.user_id : (struct slice){0}));
        assert_int_equal(out.priority, flags & AMQP_PRIORITY ? 9 : 0);
        uint8_t again[512];
        struct writer w2 = writer_of(again, sizeof again);
        amqp_props_write(&w2, &out);
        assert_true(slice_equal(writer_slice(&w), writer_slice(&w2)));
    }
}

static void damage_is_refused(void **state)
{
    (void)state;
    uint8_t room[512];
    struct amqp_props in = full(), out = {.priority = 77};
    struct writer w = writer_of(room, sizeof room);
    amqp_props_write(&w, &in);
    for (size_t len = 0; len < w.len; len++) {
        uint8_t *exact = malloc(len ? len : 1);
        memcpy(exact, room, len);
        assert_false(amqp_props_parse(slice_of(exact, len), &out));
        free(exact);
    }
    room[w.len] = 0;
    assert_false(amqp_props_parse(slice_of(room, w.len + 1), &out)); /* something left over */
    assert_false(amqp_props_parse(slice_of("\x00\x01", 2), &out));   /* continuation */
    assert_false(amqp_props_parse(slice_of("\x00\x02", 2), &out));
    assert_false(amqp_props_parse(slice_of("\x20\x00\x00\x00\x00\x03\x01kZ", 9), &out)); /* no such field type */
    assert_int_equal(out.priority, 77);
    assert_true(amqp_props_parse(slice_of("\x00\x00", 2), &out));
}

static void a_short_string_over_255_bytes_cannot_be_written(void **state)
{
    (void)state;
    static uint8_t room[1024], text[256];
    struct amqp_props in = {.present = AMQP_TYPE, .type = slice_of(text, sizeof text)};
    struct writer w = writer_of(room, sizeof room);
    amqp_props_write(&w, &in);
    assert_false(writer_ok(&w));
}

/* RabbitMQ's words for what an expiration or a delivery mode cannot be. */
static void acceptable_or_why(void **state)
{
    (void)state;
    static const struct {
        const char *expiration, *why;
        int64_t ms;
    } cases[] = {{"60000", NULL, 60000},
                 {"+5", NULL, 5},
                 {"0", NULL, 0},
                 {"abc", "invalid expiration 'abc': no_integer", 0},
                 {"", "invalid expiration '': no_integer", 0},
                 {"1.5", "invalid expiration '1.5': {leftover_string,\".5\"}", 0},
                 {"-1", "invalid expiration '-1': {value_negative,-1}", 0},
                 {"315360000001", "invalid expiration '315360000001': {value_too_large,315360000001}", 0}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct amqp_props props = {.present = AMQP_EXPIRATION, .expiration = slice_str(cases[i].expiration)};
        char why[200] = "";
        int64_t ms;
        bool ok = amqp_props_acceptable(&props, &ms, why, sizeof why);
        assert_int_equal(ok, cases[i].why == NULL);
        if (ok)
            assert_int_equal(ms, cases[i].ms);
        else
            assert_string_equal(why, cases[i].why);
    }
    struct amqp_props mode = {.present = AMQP_DELIVERY_MODE, .delivery_mode = 3};
    char why[100];
    int64_t ms;
    assert_false(amqp_props_acceptable(&mode, &ms, why, sizeof why));
    assert_string_equal(why, "invalid message: {delivery_mode_unknown,3}");
    mode.delivery_mode = 1;
    assert_true(amqp_props_acceptable(&mode, &ms, why, sizeof why));
    assert_int_equal(ms, -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(acceptable_or_why),
        cmocka_unit_test(known_bytes_are_read),
        cmocka_unit_test(any_combination_is_read_back),
        cmocka_unit_test(damage_is_refused),
        cmocka_unit_test(a_short_string_over_255_bytes_cannot_be_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
