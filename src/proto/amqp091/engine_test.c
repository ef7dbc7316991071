/* The AMQP edge as a client sees it: frames in, frames out, commands to a fake core. Negotiation, the driver's rules,
 * contents cut anywhere, order and durability of answers and confirms, endings, flow, time, and memory that is refused. */
#include "proto/amqp091/rig_test.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define SAYS(rig, text) assert_string_equal((rig)->said, text)
#define ASKED(rig, text) assert_string_equal((rig)->commands, text)

static void has(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("'%s' is not in:\n%s", part, text);
}

static void has_not(const char *text, const char *part)
{
    if (strstr(text, part))
        fail_msg("'%s' is in:\n%s", part, text);
}

static void start(struct rig *rig)
{
    assert_true(rig_init(rig));
    assert_true(rig_running(rig, 131072, 0));
}

/* ---- negotiation ---- */

static void handshake_whole(void **state)
{
    (void)state;
    struct rig rig;
    assert_true(rig_init(&rig));
    assert_true(rig_open(&rig));
    rig_handshake_bytes(&rig, 4096, 30);
    rig_settle(&rig);
    has(rig.said, "0 connection.start version_major=0 version_minor=9 server_properties={");
    has(rig.said, "mechanisms=PLAIN AMQPLAIN locales=en_US\n");
    has(rig.said, "0 connection.tune channel_max=2047 frame_max=131072 heartbeat=60\n"
                  "0 connection.open_ok reserved_1=\n");
    has(rig.commands, "0 SESSION_OPEN name=127.0.0.1:5 other=AMQP 0-9-1 key= args=0 flags=e000\n"
                      "0 LOGIN name=guest other=guest key=PLAIN args=0 flags=2000\n"
                      "0 ENTER name=/ other= key= args=0 flags=0\n");
    assert_int_equal(rig.engine->in_max, 4096 + 8);
    rig_fini(&rig);
}

static void handshake_byte_by_byte(void **state)
{
    (void)state;
    struct rig rig, other;
    assert_true(rig_init(&rig) && rig_init(&other));
    assert_true(rig_open(&rig) && rig_open(&other));
    rig_handshake_bytes(&rig, 131072, 0);
    for (size_t i = 0; i < rig.in_len; i++) {
        rig_bytes(&other, rig.in + i, 1);
        rig_settle(&other);
    }
    rig_settle(&rig);
    assert_string_equal(rig.said, other.said);
    assert_string_equal(rig.commands, other.commands);
    rig_fini(&rig);
    rig_fini(&other);
}

static void server_properties(void **state)
{
    (void)state;
    struct rig rig;
    assert_true(rig_init(&rig));
    assert_true(rig_open(&rig));
    rig.engine->ops->feed(rig.engine, slice_of("AMQP\0\0\x09\x01", 8));
    struct iovec v[4];
    assert_int_equal(outq_peek(&rig.engine->out, v, 4), 1);
    struct amqp091_connection_start f;
    assert_true(amqp091_decode(&amqp091_rows[AMQP091_connection_start],
                               slice_of((uint8_t *)v[0].iov_base + 11, v[0].iov_len - 12), &f));
    struct amqp_value value;
    assert_true(amqp_table_find(f.server_properties, "product", &value) && slice_is(value.s, "Millrace"));
    assert_true(amqp_table_find(f.server_properties, "version", &value) && slice_is(value.s, "3.13.7"));
    assert_true(amqp_table_find(f.server_properties, "cluster_name", &value));
    assert_true(amqp_table_find(f.server_properties, "capabilities", &value) && value.type == 'F');
    struct reader r = reader_of(value.s);
    struct amqp_field field;
    int count = 0;
    while (amqp_table_next(&r, &field)) {
        assert_true(field.value.type == 't' && field.value.i == 1);
        count++;
    }
    assert_int_equal(count, 9);
    rig_fini(&rig);
}

static void wrong_header(void **state)
{
    (void)state;
    static const char *const heads[] = {"AMQP\1\1\x08\x00", "GET / HT", "AMQX", "HTTP/1.1 and more of it"};
    for (unsigned i = 0; i < ARRAY_LEN(heads); i++) {
        struct rig rig;
        assert_true(rig_init(&rig));
        assert_true(rig_open(&rig));
        rig_bytes(&rig, heads[i], i ? strlen(heads[i]) : 8);
        rig_settle(&rig);
        SAYS(&rig, "protocol header\n");
        assert_true(rig.closed);
        ASKED(&rig, "");
        rig_fini(&rig);
    }
}

static void start_ok_with(const char *mechanism, struct slice response, bool properties, const char *says)
{
    struct rig rig;
    uint8_t room[512];
    assert_true(rig_init(&rig));
    assert_true(rig_open(&rig));
    rig_bytes(&rig, "AMQP\0\0\x09\x01", 8);
    rig_settle(&rig);
    rig_clear(&rig);
    RIG_CALL(&rig, 0, connection_start_ok,
             .client_properties = properties ? rig_client_properties(room, sizeof room) : (struct slice){0},
             .mechanism = slice_str(mechanism), .response = response, .locale = slice_str("en_US"));
    rig_settle(&rig);
    has(rig.said, says);
    rig_fini(&rig);
}

static void mechanisms(void **state)
{
    (void)state;
    uint8_t room[256];
    struct writer w = writer_of(room, sizeof room);
    amqp_put_str(&w, "LOGIN", slice_str("guest"));
    amqp_put_str(&w, "PASSWORD", slice_str("guest"));
    start_ok_with("AMQPLAIN", writer_slice(&w), true, "0 connection.tune ");
    start_ok_with("PLAIN", slice_of("\0a\0", 3), true, "0 connection.tune ");
    start_ok_with("EXTERNAL", slice_of("a", 1), true,
                  "0 connection.close reply_code=503 reply_text=COMMAND_INVALID - unknown authentication mechanism "
                  "'EXTERNAL' class_id=0 method_id=0\n");
    static const char *const bad[] = {"", "x", "x\0a\0b"};
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
        start_ok_with("PLAIN", slice_of(bad[i], i == 2 ? 5 : i), true,
                      "0 connection.close reply_code=502 reply_text=SYNTAX_ERROR - ");
    start_ok_with("AMQPLAIN", slice_of("\5LOGIN", 6), true, "0 connection.close reply_code=502 ");
}

static void login_refused(void **state)
{
    (void)state;
    struct rig rig;
    assert_true(rig_init(&rig));
    rig.refuse_login = true;
    assert_true(rig_open(&rig));
    rig_handshake_bytes(&rig, 131072, 0);
    rig_settle(&rig);
    has(rig.said, "0 connection.close reply_code=403 reply_text=ACCESS_REFUSED - Login was refused using authentication "
                  "mechanism PLAIN. For details see the broker logfile. class_id=0 method_id=0\n");
    has(rig.commands, "0 SESSION_CLOSE");
    has_not(rig.commands, "ENTER");
    assert_false(rig.closed);
    RIG_CALL(&rig, 0, connection_close_ok);
    rig_settle(&rig);
    assert_true(rig.closed);
    rig_fini(&rig);
}

/* Without the capability the socket closes silently after a while. */
static void login_refused_silently(void **state)
{
    (void)state;
    struct rig rig;
    assert_true(rig_init(&rig));
    rig.refuse_login = true;
    assert_true(rig_open(&rig));
    rig_bytes(&rig, "AMQP\0\0\x09\x01", 8);
    RIG_CALL(&rig, 0, connection_start_ok, .mechanism = slice_str("PLAIN"), .response = slice_of("\0a\0b", 4));
    rig_settle(&rig);
    has_not(rig.said, "connection.close");
    assert_false(rig.closed);
    rig.engine->ops->tick(rig.engine, rig.now + 2 * NS_PER_S);
    assert_false(rig.engine->want_close);
    rig.engine->ops->tick(rig.engine, rig.now + 3 * NS_PER_S);
    assert_true(rig.engine->want_close);
    rig_fini(&rig);
}

static void tune_with(uint16_t channel_max, uint32_t frame_max, const char *says)
{
    struct rig rig;
    assert_true(rig_init(&rig));
    assert_true(rig_open(&rig));
    rig_bytes(&rig, "AMQP\0\0\x09\x01", 8);
    RIG_CALL(&rig, 0, connection_start_ok, .mechanism = slice_str("PLAIN"), .response = slice_of("\0a\0b", 4));
    RIG_CALL(&rig, 0, connection_tune_ok, .channel_max = channel_max, .frame_max = frame_max);
    RIG_CALL(&rig, 0, connection_open, .virtual_host = slice_str("/"));
    rig_settle(&rig);
    has(rig.said, says);
    rig_fini(&rig);
}

static void tune_bounds(void **state)
{
    (void)state;
    tune_with(2047, 131072, "open_ok");
    tune_with(1, 4096, "open_ok");
    tune_with(0, 131072,
              "0 connection.close reply_code=530 reply_text=NOT_ALLOWED - negotiated channel_max = 0 (no limit) is higher "
              "than the maximum allowed value (2047) class_id=10 method_id=30\n");
    tune_with(2048, 131072, "channel_max = 2048 is higher than the maximum allowed value (2047)");
    tune_with(2047, 4095, "frame_max = 4095 is lower than the minimum allowed value (4096)");
    tune_with(2047, 131073, "frame_max = 131073 is higher than the maximum allowed value (131072)");
    tune_with(2047, 0, "frame_max = 0 is higher than the maximum allowed value (131072)");
}

static void early_limits(void **state)
{
    (void)state;
    struct rig rig;
    assert_true(rig_init(&rig));
    assert_true(rig_open(&rig));
    rig_bytes(&rig, "AMQP\0\0\x09\x01", 8);
    rig_bytes(&rig, "\1\0\0\0\0\x20\x01", 7); /* a frame of 8193 */
    rig_settle(&rig);
    has(rig.said, "reply_code=501 reply_text=FRAME_ERROR - type 1, all octets = <<>>: {frame_too_large,8193,8184}");
    rig_fini(&rig);

    assert_true(rig_init(&rig));
    assert_true(rig_open(&rig));
    rig_bytes(&rig, "AMQP\0\0\x09\x01", 8);
    for (int i = 0; i < 9000; i++)
        rig_frame(&rig, FRAME_HEARTBEAT, 0, "", 0); /* 72,000 bytes of nothing */
    rig_settle(&rig);
    assert_true(rig.closed);
    rig_fini(&rig);

    assert_true(rig_init(&rig));
    assert_true(rig_open(&rig));
    rig.engine->ops->tick(rig.engine, rig.now + 9999 * NS_PER_MS);
    assert_false(rig.engine->want_close);
    rig.engine->ops->tick(rig.engine, rig.now + 10000 * NS_PER_MS);
    assert_true(rig.engine->want_close);
    rig_fini(&rig);
}

static void methods_too_early(void **state)
{
    (void)state;
    struct rig rig;
    assert_true(rig_init(&rig));
    assert_true(rig_open(&rig));
    rig_bytes(&rig, "AMQP\0\0\x09\x01", 8);
    RIG_CALL(&rig, 0, connection_open, .virtual_host = slice_str("/"));
    rig_settle(&rig);
    has(rig.said, "0 connection.close reply_code=504 reply_text=CHANNEL_ERROR - unexpected method in connection state "
                  "starting class_id=10 method_id=40\n");
    rig_fini(&rig);
    assert_true(rig_init(&rig));
    assert_true(rig_open(&rig));
    rig_bytes(&rig, "AMQP\0\0\x09\x01", 8);
    RIG_CALL(&rig, 1, channel_open, .reserved_1 = {0});
    rig_settle(&rig);
    has(rig.said, "reply_code=504 ");
    rig_fini(&rig);
}

/* ---- the happy path ---- */

static void happy_path(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig);
    RIG_CALL(&rig, 1, queue_declare, .queue = slice_str("he\r\nllo"), .durable = true);
    RIG_CALL(&rig, 1, confirm_select, .no_wait = false);
    rig_settle(&rig);
    rig_publish(&rig, 1, "hello", "abc");
    RIG_CALL(&rig, 1, basic_consume, .queue = slice_str("hello"), .consumer_tag = slice_str("c1"));
    rig_settle(&rig);
    SAYS(&rig, "1 queue.declare_ok queue=hello message_count=3 consumer_count=2\n"
               "1 confirm.select_ok\n"
               "1 basic.consume_ok consumer_tag=c1\n"
               "1 basic.ack delivery_tag=1 multiple=0\n");
    ASKED(&rig, "1 QUEUE_DECLARE name=hello other= key= args=0 flags=2\n"
                "1 CONFIRM_SELECT number=0 flags=0\n"
                "1 PUBLISH #1 x= k=hello flags=1 prio=0 exp=-1 props=3 body=abc\n"
                "1 CONSUME name=hello other=c1 key= args=0 flags=0\n");
    rig_clear(&rig);
    struct effect *e = rig_effect(&rig, EFF_DELIVER, 0, 1);
    e->consumer = 1;
    e->number = 1;
    e->msg = msg_new(&rig.heap, slice_str(""), slice_str("hello"), slice_of("\x10\0\2", 3), 3);
    memcpy(msg_body_room(e->msg), "abc", 3);
    rig_settle(&rig);
    RIG_CALL(&rig, 1, basic_ack, .delivery_tag = 1);
    RIG_CALL(&rig, 1, basic_ack, .delivery_tag = 7, .multiple = true);
    rig_settle(&rig);
    SAYS(&rig, "1 basic.deliver consumer_tag=c1 delivery_tag=1 redelivered=0 exchange= routing_key=hello\n"
               "1 header 60 size=3 props=100002\n"
               "1 body abc\n");
    ASKED(&rig, "1 ACK number=1 flags=0\n1 ACK number=7 flags=800\n");
    rig_clear(&rig);
    RIG_CALL(&rig, 1, channel_close, .reply_code = 200);
    rig_settle(&rig);
    RIG_CALL(&rig, 1, channel_open, .reserved_1 = {0});
    rig_settle(&rig);
    RIG_CALL(&rig, 0, connection_close, .reply_code = 200);
    rig_settle(&rig);
    SAYS(&rig, "1 channel.close_ok\n1 channel.open_ok reserved_1=\n0 connection.close_ok\n");
    assert_true(rig.closed);
    assert_int_equal(hub_sessions(rig.hub), 0);
    rig_fini(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(handshake_whole),
        cmocka_unit_test(handshake_byte_by_byte),
        cmocka_unit_test(server_properties),
        cmocka_unit_test(wrong_header),
        cmocka_unit_test(mechanisms),
        cmocka_unit_test(login_refused),
        cmocka_unit_test(login_refused_silently),
        cmocka_unit_test(tune_bounds),
        cmocka_unit_test(early_limits),
        cmocka_unit_test(methods_too_early),
        cmocka_unit_test(happy_path),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
