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

/* ---- the driver's rules ---- */

/* Every method that a client may send on an open channel reaches the core or is answered; every other one is refused. */
static void every_row(void **state)
{
    (void)state;
    for (unsigned i = 0; i < AMQP091_METHOD_COUNT; i++) {
        const struct amqp091_row *row = &amqp091_rows[i];
        union amqp091_fields f;
        memset(&f, 0, sizeof f);
        if (i == AMQP091_channel_flow)
            f.channel_flow.active = true;
        if (i == AMQP091_basic_recover || i == AMQP091_basic_recover_async)
            f.basic_recover.requeue = true;
        struct rig rig;
        start(&rig);
        rig_method(&rig, 1, (enum amqp091_method)i, &f);
        if (i == AMQP091_basic_publish)
            rig_header(&rig, 1, 0, "\0\0", 2);
        rig_settle(&rig);
        bool silent = i == AMQP091_channel_flow_ok || i == AMQP091_basic_cancel_ok;
        char expected[128];
        if (row->when == AMQP091_FREE) {
            has(rig.said, "reply_code=504 reply_text=CHANNEL_ERROR - second 'channel.open' seen class_id=20 method_id=10");
        } else if (row->when == AMQP091_USED && (row->who & AMQP091_CLIENT)) {
            has_not(rig.said, "connection.close");
            has_not(rig.said, "channel.close ");
            if (silent)
                ASKED(&rig, "");
            else
                assert_true(strlen(rig.commands) > 0);
        } else {
            snprintf(expected, sizeof expected,
                     "reply_code=503 reply_text=COMMAND_INVALID - unimplemented method class_id=%u method_id=%u",
                     row->class_id, row->method_id);
            has(rig.said, expected);
        }
        rig_fini(&rig);
    }
}

static void method_expect(uint16_t channel, enum amqp091_method method, const char *says)
{
    struct rig rig;
    union amqp091_fields f;
    memset(&f, 0, sizeof f);
    start(&rig);
    rig_method(&rig, channel, method, &f);
    rig_settle(&rig);
    has(rig.said, says);
    rig_fini(&rig);
}

static void wrong_place(void **state)
{
    (void)state;
    method_expect(2, AMQP091_queue_declare, "reply_code=504 reply_text=CHANNEL_ERROR - expected 'channel.open' class_id=50");
    method_expect(2, AMQP091_basic_publish, "reply_code=504 reply_text=CHANNEL_ERROR - expected 'channel.open' class_id=60");
    method_expect(2048, AMQP091_channel_open,
                  "reply_code=530 reply_text=NOT_ALLOWED - number of channels opened (1) has reached the negotiated "
                  "channel_max (2047) class_id=20 method_id=10");
    method_expect(0, AMQP091_queue_declare,
                  "reply_code=504 reply_text=CHANNEL_ERROR - unexpected method in connection state running class_id=50");
    method_expect(0, AMQP091_channel_open, "unexpected method in connection state running");
    method_expect(0, AMQP091_connection_start_ok, "unexpected method in connection state running");
    method_expect(0, AMQP091_connection_tune_ok, "unexpected method in connection state running");
    method_expect(1, AMQP091_connection_close, "reply_code=503 reply_text=COMMAND_INVALID - unimplemented method");
}

static void frame_expect(uint8_t type, uint16_t channel, const char *payload, size_t len, const char *says)
{
    struct rig rig;
    start(&rig);
    rig_frame(&rig, type, channel, payload, len);
    rig_settle(&rig);
    has(rig.said, says);
    rig_fini(&rig);
}

static void bad_frames(void **state)
{
    (void)state;
    frame_expect(FRAME_HEARTBEAT, 1, "", 0, "reply_code=505 reply_text=UNEXPECTED_FRAME - type 8, all octets = <<>> ");
    frame_expect(9, 0, "abc", 3, "reply_code=501 reply_text=FRAME_ERROR - type 9, all octets = <<\"abc\">>: unknown_frame");
    frame_expect(FRAME_METHOD, 1, "\1\2", 2, "reply_code=501 ");
    frame_expect(FRAME_METHOD, 1, "\0\x63\0\1", 4, "reply_code=503 reply_text=COMMAND_INVALID - unknown method 99.1");
    frame_expect(FRAME_METHOD, 1, "\0\x32\0\x0a\0\0\5ab", 9, "reply_code=502 ");
    frame_expect(FRAME_METHOD, 1, "\0\x3c\0\x28\0\0\5ab", 9, "reply_code=502 ");
    frame_expect(FRAME_METHOD, 1, "\0\x3c\0\x50\0\0", 6, "reply_code=502 ");
    frame_expect(FRAME_HEADER, 1, "\0\x3c\0\0\0\0\0\0\0\0\0\0\0\0", 14,
                 "reply_code=505 reply_text=UNEXPECTED_FRAME - expected method frame, got non method frame instead");
    frame_expect(FRAME_BODY, 1, "abc", 3, "reply_code=505 ");
    frame_expect(FRAME_BODY, 2, "abc", 3, "reply_code=505 ");
    frame_expect(FRAME_BODY, 0, "abc", 3, "reply_code=505 reply_text=UNEXPECTED_FRAME - type 3, all octets = <<\"abc\">>");
    struct rig rig;
    start(&rig);
    rig_bytes(&rig, "\x08\0\0\0\0\0\0\x11", 8); /* a wrong end octet */
    rig_settle(&rig);
    has(rig.said, "reply_code=501 reply_text=FRAME_ERROR - type 8, all octets = <<>>: {invalid_frame_end_marker,17}");
    assert_false(rig.closed); /* the peer gets a moment to read it */
    rig.engine->ops->tick(rig.engine, rig.now + NS_PER_S);
    assert_true(rig.engine->want_close);
    rig_fini(&rig);
    start(&rig);
    rig_bytes(&rig, "\1\0\1\0\2\0\1", 7); /* 131073 */
    rig_settle(&rig);
    has(rig.said, "{frame_too_large,131073,131064}");
    rig_fini(&rig);
}

static void bad_contents(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig);
    RIG_CALL(&rig, 1, basic_publish, .routing_key = slice_str("k"));
    RIG_CALL(&rig, 1, basic_publish, .routing_key = slice_str("k"));
    rig_settle(&rig);
    has(rig.said, "reply_code=505 reply_text=UNEXPECTED_FRAME - expected content header for class 60, got non content header "
                  "frame instead class_id=60 method_id=40");
    rig_fini(&rig);
    start(&rig);
    RIG_CALL(&rig, 1, basic_publish, .routing_key = slice_str("k"));
    rig_frame(&rig, FRAME_HEADER, 1, "\0\x0a\0\0\0\0\0\0\0\0\0\0\0\0", 14);
    rig_settle(&rig);
    has(rig.said, "expected content header for class 60, got one for class 10 instead class_id=60 method_id=40");
    rig_fini(&rig);
    start(&rig);
    RIG_CALL(&rig, 1, basic_publish, .routing_key = slice_str("k"));
    rig_header(&rig, 1, 5, "\0\0", 2);
    RIG_CALL(&rig, 1, basic_qos, .prefetch_count = 1);
    rig_settle(&rig);
    has(rig.said, "expected content body, got non content body frame instead class_id=60 method_id=40");
    rig_fini(&rig);
    start(&rig);
    RIG_CALL(&rig, 1, basic_publish, .routing_key = slice_str("k"));
    rig_header(&rig, 1, 5, "\0\0", 2);
    rig_frame(&rig, FRAME_BODY, 1, "abcdef", 6);
    rig_settle(&rig);
    has(rig.said, "reply_code=501 reply_text=FRAME_ERROR - a content body of 6 octets is longer than the 5 that were announced");
    ASKED(&rig, "0 SESSION_CLOSE number=0 flags=0\n");
    rig_fini(&rig);
    start(&rig);
    RIG_CALL(&rig, 1, basic_publish, .routing_key = slice_str("k"));
    rig_header(&rig, 1, 0, "\x80\0\5ab", 5);
    rig_settle(&rig);
    has(rig.said, "reply_code=502 reply_text=SYNTAX_ERROR - ");
    rig_fini(&rig);
}

/* ---- what the edge itself refuses ---- */

static void publish_refused(const char *props, size_t props_len, uint64_t size, const char *says)
{
    static const char filler[1000];
    struct rig rig;
    start(&rig);
    RIG_CALL(&rig, 1, basic_publish, .routing_key = slice_str("k"));
    rig_header(&rig, 1, size, props, props_len);
    for (uint64_t sent = 0; sent < size && sent < 3000; sent += 1000)
        rig_frame(&rig, FRAME_BODY, 1, filler, 1000);
    rig_settle(&rig);
    SAYS(&rig, says);
    has_not(rig.commands, "PUBLISH");
    has(rig.commands, "1 CHANNEL_CLOSE");
    /* the channel is gone for the core, and usable again after close-ok */
    rig_clear(&rig);
    rig_publish(&rig, 1, "k", "thrown away");
    RIG_CALL(&rig, 1, channel_close_ok);
    RIG_CALL(&rig, 1, channel_open, .reserved_1 = {0});
    rig_publish(&rig, 1, "k", "taken");
    rig_settle(&rig);
    SAYS(&rig, "1 channel.open_ok reserved_1=\n");
    has(rig.commands, "1 PUBLISH #1 x= k=k flags=1 prio=0 exp=-1 props=3 body=taken\n");
    has_not(rig.commands, "thrown");
    rig_fini(&rig);
}

static void publishes_refused(void **state)
{
    (void)state;
#define EXPIRATION(text, why)                                                                                          \
    publish_refused("\x01\0" text, sizeof("\x01\0" text) - 1, 3,                                                       \
                    "1 channel.close reply_code=406 reply_text=PRECONDITION_FAILED - invalid expiration '" why             \
                    " class_id=60 method_id=40\n")
    EXPIRATION("\3abc", "abc': no_integer");
    EXPIRATION("\0", "': no_integer");
    EXPIRATION("\0031.5", "1.5': {leftover_string,\".5\"}");
    EXPIRATION("\2-1", "-1': {value_negative,-1}");
    publish_refused("\0\0", 2, 16777217,
                    "1 channel.close reply_code=406 reply_text=PRECONDITION_FAILED - message size 16777217 is larger than max "
                    "size 16777216 class_id=60 method_id=40\n");
}

static void properties_extracted(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig);
    static const struct {
        const char *props;
        size_t len;
        const char *seen;
    } cases[] = {
        {"\0\0", 2, "flags=0 prio=0 exp=-1 props=2"},
        {"\x10\0\1", 3, "flags=0 prio=0 exp=-1 props=3"},
        {"\x18\0\2\7", 4, "flags=1 prio=7 exp=-1 props=4"},
        {"\x01\0\0025000", 7, NULL},
        {"\x01\0\00460000", 7, NULL},
        {"\x01\0\0045000", 7, "flags=0 prio=0 exp=5000 props=7"},
        {"\x01\0\0010", 4, "flags=0 prio=0 exp=0 props=4"},
        {"\x20\0\0\0\0\0", 6, "flags=2 prio=0 exp=-1 props=6"},
        {"\x02\x10\1r\1u", 6, "flags=12 prio=0 exp=-1 props=6"},
    };
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        if (!cases[i].seen)
            continue;
        RIG_CALL(&rig, 1, basic_publish, .exchange = slice_str("x"), .routing_key = slice_str("k"));
        rig_header(&rig, 1, 0, cases[i].props, cases[i].len);
        rig_settle(&rig);
        has(rig.commands, cases[i].seen);
        rig_clear(&rig);
    }
    RIG_CALL(&rig, 1, basic_publish, .routing_key = slice_str("k"), .mandatory = true);
    rig_header(&rig, 1, 0, "\0\0", 2);
    rig_settle(&rig);
    has(rig.commands, "flags=16 ");
    rig_fini(&rig);
}

static void not_implemented(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig);
    RIG_CALL(&rig, 1, basic_qos, .prefetch_size = 7);
    rig_settle(&rig);
    SAYS(&rig, "0 connection.close reply_code=540 reply_text=NOT_IMPLEMENTED - prefetch_size!=0 (7) class_id=60 method_id=10\n");
    rig_fini(&rig);
    start(&rig);
    RIG_CALL(&rig, 1, basic_recover, .requeue = false);
    rig_settle(&rig);
    SAYS(&rig, "0 connection.close reply_code=540 reply_text=NOT_IMPLEMENTED - requeue=false class_id=60 method_id=110\n");
    rig_fini(&rig);
    start(&rig);
    RIG_CALL(&rig, 1, channel_flow, .active = false);
    rig_settle(&rig);
    SAYS(&rig, "0 connection.close reply_code=540 reply_text=NOT_IMPLEMENTED - active=false class_id=20 method_id=20\n");
    rig_fini(&rig);
    start(&rig);
    RIG_CALL(&rig, 1, basic_publish, .immediate = true);
    rig_header(&rig, 1, 1, "\0\0", 2);
    rig_frame(&rig, FRAME_BODY, 1, "x", 1);
    rig_settle(&rig);
    SAYS(&rig, "0 connection.close reply_code=540 reply_text=NOT_IMPLEMENTED - immediate=true class_id=60 method_id=40\n");
    rig_fini(&rig);
}

/* An error found at the edge waits for the core's answers to what came before it. */
static void faults_wait_their_turn(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig);
    rig.answer_lsn = 5;
    RIG_CALL(&rig, 1, queue_declare, .queue = slice_str("q"), .durable = true);
    RIG_CALL(&rig, 1, basic_recover, .requeue = false);
    RIG_CALL(&rig, 1, queue_declare, .queue = slice_str("after"));
    rig_settle(&rig);
    SAYS(&rig, "");
    has_not(rig.commands, "after");
    rig.durable = 5;
    rig_settle(&rig);
    has(rig.said, "1 queue.declare_ok queue=q message_count=3 consumer_count=2\n0 connection.close reply_code=540 ");
    rig_fini(&rig);
}

static void local_replies(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig);
    RIG_CALL(&rig, 1, channel_flow, .active = true);
    RIG_CALL(&rig, 1, access_request, .realm = slice_str("/data"));
    RIG_CALL(&rig, 1, basic_recover_async, .requeue = true);
    RIG_CALL(&rig, 0, connection_update_secret, .new_secret = slice_str("s"), .reason = slice_str("r"));
    RIG_CALL(&rig, 1, queue_declare, .queue = slice_str("q"), .no_wait = true);
    RIG_CALL(&rig, 1, basic_get, .queue = slice_str("q"));
    rig_settle(&rig);
    SAYS(&rig, "1 channel.flow_ok active=1\n1 access.request_ok ticket=1\n0 connection.update_secret_ok\n"
               "1 basic.get_empty reserved_1=\n");
    rig_fini(&rig);
}

/* ---- contents, cut anywhere ---- */

static void mixed_script(struct rig *rig, uint32_t body_len)
{
    static char body[200000];
    memset(body, 'b', sizeof body);
    RIG_CALL(rig, 2, channel_open, .reserved_1 = {0});
    rig_publish(rig, 1, "a", "one");
    RIG_CALL(rig, 1, basic_publish, .routing_key = slice_str("long"), .exchange = slice_str("ex"), .mandatory = true);
    RIG_CALL(rig, 2, basic_publish, .routing_key = slice_str("other"));
    rig_header(rig, 1, body_len, "\x01\0\0045000", 7);
    rig_header(rig, 2, 6, "\0\0", 2);
    for (uint32_t sent = 0; sent < body_len;) {
        uint32_t n = body_len - sent < 4000 ? body_len - sent : 4000;
        rig_frame(rig, FRAME_BODY, 1, body, n);
        sent += n;
        if (sent == n)
            rig_frame(rig, FRAME_BODY, 2, "abc", 3);
        rig_frame(rig, FRAME_HEARTBEAT, 0, "", 0);
    }
    rig_frame(rig, FRAME_BODY, 2, "", 0);
    rig_frame(rig, FRAME_BODY, 2, "def", 3);
    RIG_CALL(rig, 1, basic_ack, .delivery_tag = 9, .multiple = true);
    RIG_CALL(rig, 1, basic_publish, .routing_key = slice_str("empty"));
    rig_header(rig, 1, 0, "\0\0", 2);
}

/* Feeds the same bytes in pieces chosen by `cut` and compares what the core was asked. */
static void cut_script(uint32_t body_len, unsigned (*cut)(unsigned *seed), unsigned seed)
{
    struct rig whole, cutup;
    start(&whole);
    start(&cutup);
    mixed_script(&whole, body_len);
    size_t len = whole.in_len;
    uint8_t *copy = malloc(len);
    memcpy(copy, whole.in, len);
    rig_settle(&whole);
    for (size_t at = 0; at < len;) {
        size_t n = cut(&seed);
        n = n < len - at ? n : len - at;
        rig_bytes(&cutup, copy + at, n);
        at += n;
        rig_settle(&cutup);
        assert_true(cutup.in_len <= cutup.engine->in_max);
    }
    assert_string_equal(cutup.commands, whole.commands);
    assert_string_equal(cutup.said, whole.said);
    has(whole.commands, "k=empty");
    has(whole.commands, "x=ex k=long flags=16 prio=0 exp=5000 props=7 body=[");
    has(whole.commands, "k=other flags=0 prio=0 exp=-1 props=2 body=abcdef");
    free(copy);
    rig_fini(&whole);
    rig_fini(&cutup);
}

static unsigned cut_one(unsigned *seed)
{
    (void)seed;
    return 1;
}

static unsigned cut_random(unsigned *seed)
{
    *seed = *seed * 1103515245u + 12345u;
    unsigned r = *seed >> 16;
    return r % 7 == 0 ? 1 + r % 9000 : 1 + r % 40;
}

static void contents_cut(void **state)
{
    (void)state;
    cut_script(9000, cut_one, 0);
    for (unsigned seed = 1; seed <= 40; seed++)
        cut_script(seed % 4 == 0 ? 190000 : 65536 + seed, cut_random, seed);
}

/* An announced size alone costs no memory. */
static void body_memory_grows(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig);
    size_t before = mem_in_use();
    RIG_CALL(&rig, 1, basic_publish, .routing_key = slice_str("k"));
    rig_header(&rig, 1, 16 * 1024 * 1024, "\0\0", 2);
    rig_settle(&rig);
    assert_true(mem_in_use() - before < 80 * 1024);
    rig_fini(&rig);
}

static void unfinished_bodies_limited(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig);
    rig.options.assembly_bytes_max = 300000;
    static char body[100000];
    for (uint16_t ch = 2; ch < 8; ch++) {
        RIG_CALL(&rig, ch, channel_open, .reserved_1 = {0});
        RIG_CALL(&rig, ch, basic_publish, .routing_key = slice_str("k"));
        rig_header(&rig, ch, 1000000, "\0\0", 2);
        rig_frame(&rig, FRAME_BODY, ch, body, sizeof body);
        rig_settle(&rig);
    }
    has(rig.said, "0 connection.close reply_code=506 reply_text=RESOURCE_ERROR - unfinished messages of this connection");
    rig_fini(&rig);
}

/* ---- order and durability ---- */

static struct effect *push_effect(struct rig *rig, enum effect_type type, uint64_t number, lsn_t lsn)
{
    struct effect *e = rig_effect(rig, type, 0, 1);
    e->number = number;
    e->lsn = lsn;
    return e;
}

static struct msg *message(struct rig *rig, size_t props_len, size_t body_len)
{
    static uint8_t props[60000];
    props[0] = 0x20; /* only for its length: not parsed on the way out */
    struct msg *msg = msg_new(&rig->heap, slice_str("ex"), slice_str("key"), slice_of(props, props_len), body_len);
    memset(msg_body_room(msg), 'm', body_len);
    return msg;
}

static void push_deliver(struct rig *rig, uint32_t consumer, uint64_t tag, struct msg *msg)
{
    struct effect *e = push_effect(rig, EFF_DELIVER, tag, 0);
    e->consumer = consumer;
    e->msg = msg;
}

static void push_error(struct rig *rig, uint16_t channel, enum error_code code, uint32_t origin, const char *text)
{
    struct effect *e = rig_effect(rig, EFF_ERROR, 0, channel);
    e->origin = origin;
    e->answer = rig_answer(code, text, (struct slice){0});
}

static void confirming(struct rig *rig)
{
    start(rig);
    rig->keep_confirms = true;
    RIG_CALL(rig, 1, confirm_select, .no_wait = true);
    for (int i = 0; i < 20; i++)
        rig_publish(rig, 1, "k", "x");
    rig_settle(rig);
    SAYS(rig, "");
    rig_clear(rig);
}

static void confirms_collapse(void **state)
{
    (void)state;
    struct rig rig;
    confirming(&rig);
    for (uint64_t i = 1; i <= 10; i++)
        push_effect(&rig, EFF_CONFIRM, i, i);
    rig_settle(&rig);
    SAYS(&rig, "");
    rig.durable = 1;
    rig_settle(&rig);
    SAYS(&rig, "1 basic.ack delivery_tag=1 multiple=0\n");
    rig_clear(&rig);
    rig.durable = 7;
    rig_settle(&rig);
    SAYS(&rig, "1 basic.ack delivery_tag=7 multiple=1\n");
    rig_clear(&rig);
    push_effect(&rig, EFF_NACK, 11, 0);
    push_effect(&rig, EFF_CONFIRM, 12, 0);
    push_effect(&rig, EFF_NACK, 13, 12);
    push_effect(&rig, EFF_CONFIRM, 20, 0);
    rig_settle(&rig);
    SAYS(&rig, "");
    rig.durable = 11;
    rig_settle(&rig);
    SAYS(&rig, "1 basic.ack delivery_tag=10 multiple=1\n1 basic.nack delivery_tag=11 multiple=0 requeue=0\n"
               "1 basic.ack delivery_tag=12 multiple=0\n");
    rig_clear(&rig);
    rig.durable = 12;
    rig_settle(&rig);
    SAYS(&rig, "1 basic.nack delivery_tag=13 multiple=0 requeue=0\n1 basic.ack delivery_tag=20 multiple=1\n");
    rig_fini(&rig);
}

/* Numbers start at confirm.select, whatever was published before. */
static void confirms_numbered_from_select(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 1, "k", "before");
    rig_publish(&rig, 1, "k", "before");
    rig_settle(&rig);
    SAYS(&rig, "");
    RIG_CALL(&rig, 1, confirm_select, .no_wait = false);
    rig_publish(&rig, 1, "k", "after");
    rig_settle(&rig);
    SAYS(&rig, "1 confirm.select_ok\n1 basic.ack delivery_tag=1 multiple=0\n");
    rig_fini(&rig);
}

static void many_confirms_are_bounded(void **state)
{
    (void)state;
    struct rig rig;
    confirming(&rig);
    size_t before = mem_in_use();
    for (uint64_t i = 1; i <= 100000; i++) {
        push_effect(&rig, EFF_CONFIRM, i, i);
        if (i % 1000 == 0)
            rig_settle(&rig);
    }
    assert_true(mem_in_use() - before < AMQP091_CONFIRMS_MAX * 2 * sizeof(struct amqp091_confirm));
    rig.durable = 100000;
    rig_settle(&rig);
    SAYS(&rig, "1 basic.ack delivery_tag=100000 multiple=1\n");
    assert_true(mem_in_use() <= before);
    rig_fini(&rig);
}

static void return_before_confirm(void **state)
{
    (void)state;
    struct rig rig;
    confirming(&rig);
    rig.answer_lsn = 9;
    RIG_CALL(&rig, 1, queue_declare, .queue = slice_str("q"));
    rig_settle(&rig);
    struct effect *e = push_effect(&rig, EFF_RETURN, 0, 0);
    e->msg = message(&rig, 2, 3);
    e->answer = rig_answer(ERR_NO_ROUTE, "", (struct slice){0});
    push_effect(&rig, EFF_CONFIRM, 1, 0);
    rig_settle(&rig);
    SAYS(&rig, ""); /* behind the held answer */
    rig.durable = 9;
    rig_settle(&rig);
    SAYS(&rig, "1 queue.declare_ok queue=q message_count=3 consumer_count=2\n"
               "1 basic.return reply_code=312 reply_text=NO_ROUTE exchange=ex routing_key=key\n"
               "1 header 60 size=3 props=2000\n1 body mmm\n"
               "1 basic.ack delivery_tag=1 multiple=0\n");
    rig_fini(&rig);
}

static void deliveries_wait_behind_answers_only(void **state)
{
    (void)state;
    struct rig rig;
    confirming(&rig);
    RIG_CALL(&rig, 1, basic_consume, .consumer_tag = slice_str("c"));
    rig_settle(&rig);
    rig_clear(&rig);
    push_effect(&rig, EFF_CONFIRM, 1, 5);
    push_deliver(&rig, 1, 1, message(&rig, 2, 1));
    rig_settle(&rig);
    has(rig.said, "delivery_tag=1 redelivered=0"); /* a confirm holds no delivery */
    rig_clear(&rig);
    rig.answer_lsn = 6;
    RIG_CALL(&rig, 1, queue_declare, .queue = slice_str("q"));
    rig_settle(&rig);
    push_deliver(&rig, 1, 2, message(&rig, 2, 1));
    push_effect(&rig, EFF_GET_EMPTY, 0, 0);
    rig_settle(&rig);
    SAYS(&rig, "");
    rig.durable = 6;
    rig_settle(&rig);
    SAYS(&rig, "1 queue.declare_ok queue=q message_count=3 consumer_count=2\n"
               "1 basic.deliver consumer_tag=c delivery_tag=2 redelivered=0 exchange=ex routing_key=key\n"
               "1 header 60 size=1 props=2000\n1 body m\n1 basic.get_empty reserved_1=\n"
               "1 basic.ack delivery_tag=1 multiple=0\n");
    rig_fini(&rig);
}

/* ---- what is delivered ---- */

static void deliveries_split(void **state)
{
    (void)state;
    static const struct {
        size_t props, body;
    } cases[] = {{2, 0}, {2, 1}, {2, 1023}, {2, 1024}, {3, 4087}, {2, 4088}, {2, 4089}, {2, 8176}, {2, 8177}, {2, 40000},
                 {20000, 0}, {20000, 10}, {50000, 9000}};
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct rig rig;
        assert_true(rig_init(&rig));
        assert_true(rig_running(&rig, 4096, 0));
        RIG_CALL(&rig, 1, basic_consume, .consumer_tag = slice_str("tag"), .no_wait = true);
        rig_settle(&rig);
        rig_clear(&rig);
        struct msg *msg = message(&rig, cases[i].props, cases[i].body);
        push_deliver(&rig, 1, 1, msg_ref(msg));
        struct effect *e = push_effect(&rig, EFF_GET_OK, 2, 0);
        e->msg = msg_ref(msg);
        e->count = 77;
        e->flags = EFFECT_REDELIVERED;
        rig_settle(&rig);
        size_t bodies = 0, bytes = 0;
        for (const char *at = rig.said; (at = strstr(at, "1 body ")); at += 7) {
            bodies++;
            bytes += at[7] == '[' ? (size_t)strtoul(at + 8, NULL, 10) : strcspn(at + 7, "\n");
        }
        assert_int_equal(bodies, 2 * ((cases[i].body + 4087) / 4088));
        assert_int_equal(bytes, 2 * cases[i].body);
        has(rig.said, "1 basic.deliver consumer_tag=tag delivery_tag=1 redelivered=0 exchange=ex routing_key=key\n");
        has(rig.said, "1 basic.get_ok delivery_tag=2 redelivered=1 exchange=ex routing_key=key message_count=77\n");
        has_not(rig.said, "BAD");
        assert_int_equal(rig.out_len, 0);
        assert_int_equal(msg->refs, 1); /* every loan was given back */
        msg_unref(&rig.heap, msg);
        rig_fini(&rig);
    }
}

static void many_consumers(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig);
    char tag[32];
    for (unsigned i = 1; i <= 100; i++) {
        snprintf(tag, sizeof tag, "tag-%u", i);
        RIG_CALL(&rig, 1, basic_consume, .consumer_tag = slice_str(tag), .no_wait = true);
    }
    rig_settle(&rig);
    for (uint32_t i = 1; i <= 100; i++)
        push_deliver(&rig, i, i, message(&rig, 2, 1));
    rig_settle(&rig);
    for (unsigned i = 1; i <= 100; i++) {
        char line[80];
        snprintf(line, sizeof line, "consumer_tag=tag-%u delivery_tag=%u ", i, i);
        has(rig.said, line);
    }
    rig_clear(&rig);
    struct effect *e = push_effect(&rig, EFF_CONSUMER_GONE, 0, 0);
    e->consumer = 50;
    push_deliver(&rig, 50, 101, message(&rig, 2, 1)); /* for nobody: freed */
    rig_settle(&rig);
    SAYS(&rig, "1 basic.cancel consumer_tag=tag-50 no_wait=1\n");
    rig_fini(&rig);
}

static void credit_returns(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig);
    RIG_CALL(&rig, 1, basic_consume, .consumer_tag = slice_str("c"));
    rig_settle(&rig);
    rig_clear(&rig);
    uint64_t cost = 0;
    for (uint64_t i = 1; i <= 40; i++) {
        struct msg *msg = message(&rig, 2, 2000);
        cost += delivery_cost(msg);
        push_deliver(&rig, 1, i, msg);
    }
    rig_settle(&rig);
    char line[64];
    snprintf(line, sizeof line, "0 CREDIT number=%llu flags=0\n", (unsigned long long)cost);
    ASKED(&rig, line);
    rig_fini(&rig);
}

/* ---- errors of the core ---- */

static void channel_error(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig);
    rig.keep_confirms = true;
    rig_publish(&rig, 1, "k", "x");
    rig_settle(&rig);
    assert_true(((struct amqp091 *)rig.engine)->unsettled_bytes > 0);
    push_error(&rig, 1, ERR_NOT_FOUND, AMQP091_ORIGIN(60, 40), "no exchange 'x' in vhost '/'");
    push_deliver(&rig, 1, 1, message(&rig, 2, 2000)); /* too late */
    push_effect(&rig, EFF_CONFIRM, 1, 0);
    rig_clear(&rig);
    rig_settle(&rig);
    SAYS(&rig, "1 channel.close reply_code=404 reply_text=NOT_FOUND - no exchange 'x' in vhost '/' class_id=60 method_id=40\n");
    ASKED(&rig, "1 CHANNEL_CLOSE number=0 flags=0\n");
    assert_true(((struct amqp091 *)rig.engine)->unsettled_bytes == 0);
    rig_clear(&rig);
    RIG_CALL(&rig, 1, queue_declare, .queue = slice_str("q"));
    RIG_CALL(&rig, 1, channel_close, .reply_code = 200); /* crossed */
    rig_settle(&rig);
    SAYS(&rig, "1 channel.close_ok\n");
    ASKED(&rig, "");
    RIG_CALL(&rig, 1, channel_close_ok);
    RIG_CALL(&rig, 1, channel_open, .reserved_1 = {0});
    RIG_CALL(&rig, 1, queue_declare, .queue = slice_str("q"));
    rig_settle(&rig);
    SAYS(&rig, "1 channel.close_ok\n1 channel.open_ok reserved_1=\n"
               "1 queue.declare_ok queue=q message_count=3 consumer_count=2\n");
    rig_fini(&rig);
}

/* close-ok has come but the core has not let go: a channel.open waits in the buffer. */
static void reopen_waits_for_the_core(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig);
    push_error(&rig, 1, ERR_NOT_FOUND, AMQP091_ORIGIN(60, 40), "no");
    rig.answers = false;
    rig_settle(&rig);
    RIG_CALL(&rig, 1, channel_close_ok);
    RIG_CALL(&rig, 1, channel_open, .reserved_1 = {0});
    rig_settle(&rig);
    assert_true(rig.in_len > 0);
    has_not(rig.commands, "CHANNEL_OPEN");
    rig.answers = true;
    push_effect(&rig, EFF_CHANNEL_CLOSED, 0, 0);
    rig_settle(&rig);
    has(rig.said, "1 channel.open_ok");
    rig_fini(&rig);
}

/* The client closed first, then learns what was wrong: it gets both answers, as from RabbitMQ. */
static void error_crosses_close(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig);
    RIG_CALL(&rig, 1, basic_publish, .exchange = slice_str("none"));
    rig_header(&rig, 1, 0, "\x01\0\1x", 4); /* a bad expiration */
    RIG_CALL(&rig, 1, channel_close, .reply_code = 200);
    rig_settle(&rig);
    SAYS(&rig, "1 channel.close reply_code=406 reply_text=PRECONDITION_FAILED - invalid expiration 'x': no_integer class_id=60 "
               "method_id=40\n1 channel.close_ok\n");
    RIG_CALL(&rig, 1, channel_close_ok);
    RIG_CALL(&rig, 1, channel_open, .reserved_1 = {0});
    rig_settle(&rig);
    has(rig.said, "1 channel.open_ok");
    rig_fini(&rig);
}

static void connection_error(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig);
    push_error(&rig, 1, ERR_NOT_ALLOWED, AMQP091_ORIGIN(60, 20), "attempt to reuse consumer tag 'c'");
    rig_settle(&rig);
    SAYS(&rig, "0 connection.close reply_code=530 reply_text=NOT_ALLOWED - attempt to reuse consumer tag 'c' class_id=60 "
               "method_id=20\n");
    ASKED(&rig, "0 SESSION_CLOSE number=0 flags=0\n");
    rig_publish(&rig, 1, "k", "too late");
    RIG_CALL(&rig, 0, connection_close, .reply_code = 200);
    rig_settle(&rig);
    has(rig.said, "0 connection.close_ok");
    assert_false(rig.closed);
    RIG_CALL(&rig, 0, connection_close_ok);
    rig_settle(&rig);
    assert_true(rig.closed);
    has_not(rig.commands, "PUBLISH");
    rig_fini(&rig);
    /* one that never answers */
    start(&rig);
    push_error(&rig, 0, ERR_NOT_ALLOWED, AMQP091_ORIGIN(10, 40), "vhost x not found");
    rig_settle(&rig);
    rig.engine->ops->tick(rig.engine, rig.now + 10 * NS_PER_S);
    assert_true(rig.engine->want_close);
    rig_fini(&rig);
}

static void long_texts_are_cut(void **state)
{
    (void)state;
    struct rig rig;
    char text[400];
    memset(text, 't', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    start(&rig);
    push_error(&rig, 1, ERR_NOT_FOUND, AMQP091_ORIGIN(60, 40), text);
    rig_settle(&rig);
    has(rig.said, "ttt... class_id=60");
    has(rig.said, "NOT_FOUND - ttt");
    rig_fini(&rig);
}

static void transport_gone(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig);
    RIG_CALL(&rig, 1, basic_consume, .consumer_tag = slice_str("c"));
    RIG_CALL(&rig, 1, basic_publish, .routing_key = slice_str("k"));
    rig_header(&rig, 1, 100000, "\0\0", 2);
    rig_frame(&rig, FRAME_BODY, 1, "abc", 3);
    rig_settle(&rig);
    rig.answers = false;
    rig_close(&rig);
    rig_settle(&rig);
    has(rig.commands, "0 SESSION_CLOSE");
    assert_int_equal(hub_sessions(rig.hub), 1); /* the core may still speak of it */
    push_deliver(&rig, 1, 1, message(&rig, 2, 100));
    push_effect(&rig, EFF_CONFIRM, 1, 3);
    rig_settle(&rig);
    rig_effect(&rig, EFF_SESSION_CLOSED, 0, 0);
    rig_settle(&rig);
    assert_int_equal(hub_sessions(rig.hub), 0);
    rig_fini(&rig);
}

static void shutdown_says_why(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig);
    rig.engine->ops->shutdown(rig.engine, "shutdown");
    rig_settle(&rig);
    SAYS(&rig, "0 connection.close reply_code=320 reply_text=CONNECTION_FORCED - broker forced connection closure with reason "
               "'shutdown' class_id=0 method_id=0\n");
    assert_false(rig.closed);
    rig.engine->ops->tick(rig.engine, rig.now + NS_PER_S);
    assert_true(rig.engine->want_close);
    rig_fini(&rig);
    assert_true(rig_init(&rig));
    assert_true(rig_open(&rig));
    rig.engine->ops->shutdown(rig.engine, "shutdown");
    assert_true(rig.engine->want_close);
    rig_fini(&rig);
}

static void kicked(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig);
    rig_effect(&rig, EFF_SESSION_KICK, 0, 0)->answer = rig_answer(ERR_CONNECTION_FORCED, "user deleted", (struct slice){0});
    rig_settle(&rig);
    SAYS(&rig, "0 connection.close reply_code=320 reply_text=CONNECTION_FORCED - user deleted class_id=0 method_id=0\n");
    rig_fini(&rig);
}

/* ---- flow ---- */

static void publishers_pause(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig);
    rig.keep_confirms = true;
    static char body[60000];
    memset(body, 'x', sizeof body - 1);
    for (int i = 0; i < 16; i++)
        rig_publish(&rig, 1, "k", body);
    rig_settle(&rig);
    assert_false(rig.engine->paused);
    for (int i = 0; i < 16; i++)
        rig_publish(&rig, 1, "k", body);
    rig_settle(&rig);
    assert_true(rig.engine->paused);
    struct amqp091 *a = (struct amqp091 *)rig.engine;
    assert_true(a->unsettled_bytes > AMQP091_INFLIGHT_HIGH && a->unsettled_bytes < AMQP091_INFLIGHT_HIGH + 70000);
    size_t waiting = rig.in_len;
    assert_true(waiting > 0);
    /* what has not become durable keeps it paused */
    struct effect *e = push_effect(&rig, EFF_CONFIRM, 5, 3);
    e->bytes = 400000;
    e->flags = EFFECT_SILENT;
    rig_settle(&rig);
    assert_true(rig.engine->paused);
    rig.durable = 3;
    rig_settle(&rig);
    assert_true(rig.engine->paused); /* above the low mark still */
    e = push_effect(&rig, EFF_CONFIRM, 10, 0);
    e->bytes = 400000;
    e->flags = EFFECT_SILENT;
    rig_settle(&rig);
    assert_true(rig.in_len < waiting);
    SAYS(&rig, "");
    rig_fini(&rig);
}

static void transactions_do_not_pause(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig);
    rig.keep_confirms = true;
    RIG_CALL(&rig, 1, tx_select);
    static char body[60000];
    memset(body, 'x', sizeof body - 1);
    for (int i = 0; i < 60; i++) {
        rig_publish(&rig, 1, "k", body);
        rig_settle(&rig);
    }
    assert_false(rig.engine->paused);
    rig_fini(&rig);
}

static void blocked_by_alarm(void **state)
{
    (void)state;
    struct rig rig;
    assert_true(rig_init(&rig));
    assert_true(rig_running(&rig, 131072, 10));
    rig_effect(&rig, EFF_BLOCKED, 0, 0)->answer = rig_answer(ERR_NONE, "low on memory", (struct slice){0});
    rig_settle(&rig);
    SAYS(&rig, "0 connection.blocked reason=low on memory\n");
    assert_true(rig.engine->paused);
    for (int i = 0; i < 20; i++) { /* nobody is dead because he is not read */
        rig.now += 5 * NS_PER_S;
        rig.engine->ops->tick(rig.engine, rig.now);
        rig_settle(&rig);
    }
    assert_false(rig.closed);
    rig_effect(&rig, EFF_UNBLOCKED, 0, 0);
    rig_settle(&rig);
    has(rig.said, "0 connection.unblocked\n");
    assert_false(rig.engine->paused);
    rig.engine->ops->tick(rig.engine, rig.now + 5 * NS_PER_S);
    assert_false(rig.engine->want_close);
    /* shutdown while blocked: the client's close-ok must be read */
    rig_effect(&rig, EFF_BLOCKED, 0, 0)->answer = rig_answer(ERR_NONE, "low on disk", (struct slice){0});
    rig_settle(&rig);
    rig.engine->ops->shutdown(rig.engine, "shutdown");
    assert_false(rig.engine->paused);
    RIG_CALL(&rig, 0, connection_close_ok);
    rig_settle(&rig);
    assert_true(rig.closed);
    rig_fini(&rig);
}

static void full_ring_leaves_bytes(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig);
    for (int i = 0; i < 3000; i++)
        RIG_CALL(&rig, 1, basic_ack, .delivery_tag = (uint64_t)i);
    size_t used = rig.engine->ops->feed(rig.engine, slice_of(rig.in, rig.in_len));
    assert_true(used > 0 && used < rig.in_len);
    assert_true(hub_room(rig.hub) < 8);
    memmove(rig.in, rig.in + used, rig.in_len - used);
    rig.in_len -= used;
    rig_close(&rig); /* with a full ring: SESSION_CLOSE is owed and paid later */
    rig_settle(&rig);
    has(rig.commands, "0 SESSION_CLOSE");
    assert_int_equal(hub_sessions(rig.hub), 0);
    rig_fini(&rig);
}

static void peer_that_does_not_read(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig);
    for (int i = 0; i < 9000; i++)
        RIG_CALL(&rig, 1, basic_get, .queue = slice_str("q"));
    struct engine *engine = rig.engine;
    for (int i = 0; i < 200 && !engine->paused; i++) {
        rig_core(&rig);
        hub_turn(rig.hub, 0, rig.now);
        size_t used = engine->ops->feed(engine, slice_of(rig.in, rig.in_len));
        memmove(rig.in, rig.in + used, rig.in_len - used);
        rig.in_len -= used;
        static char filler[200000];
        outq_put(&engine->out, filler, sizeof filler); /* stands for large replies */
    }
    assert_true(engine->paused);
    assert_true(engine->out.len < OUTQ_HIGH + 300000);
    outq_consume(&engine->out, engine->out.len);
    engine->ops->drained(engine);
    assert_false(engine->paused);
    rig_fini(&rig);
}

/* ---- time ---- */

static void heartbeats(void **state)
{
    (void)state;
    struct rig rig;
    assert_true(rig_init(&rig));
    assert_true(rig_running(&rig, 131072, 10));
    mono_t begin = rig.now;
    for (int s = 1; s <= 19; s++) {
        rig.now = begin + s * NS_PER_S;
        rig.engine->ops->tick(rig.engine, rig.now);
        rig_settle(&rig);
        assert_false(rig.closed);
    }
    /* what left before counts as one, so the first comes after one quiet half interval */
    SAYS(&rig, "0 heartbeat\n0 heartbeat\n");
    rig_frame(&rig, FRAME_HEARTBEAT, 0, "", 0);
    rig_settle(&rig);
    rig.now += 20 * NS_PER_S;
    rig.engine->ops->tick(rig.engine, rig.now);
    rig_settle(&rig);
    assert_false(rig.closed);
    rig.now += NS_PER_S;
    rig.engine->ops->tick(rig.engine, rig.now);
    rig_settle(&rig);
    assert_true(rig.closed);
    rig_fini(&rig);
    start(&rig); /* heartbeat 0: never */
    assert_true(rig.engine->ops->tick(rig.engine, rig.now + 1000 * NS_PER_S) == MONO_NEVER);
    rig_fini(&rig);
}

/* ---- memory ---- */

static void small_when_idle(void **state)
{
    (void)state;
    struct rig rig;
    assert_true(rig_init(&rig));
    assert_true(rig_running(&rig, 131072, 10));
    size_t one = mem_in_use();
    struct rig other;
    size_t before = mem_in_use();
    assert_true(rig_init(&other));
    size_t rings = mem_in_use() - before;
    assert_true(rig_running(&other, 131072, 10));
    assert_true(mem_in_use() - one - rings < 4096);
    rig_fini(&other);
    rig_fini(&rig);
}

static void memory_script(struct rig *rig)
{
    static char body[90000];
    memset(body, 'x', sizeof body - 1);
    rig_handshake_bytes(rig, 131072, 10);
    RIG_CALL(rig, 1, channel_open, .reserved_1 = {0});
    RIG_CALL(rig, 1, queue_declare, .queue = slice_str("q"), .durable = true);
    RIG_CALL(rig, 1, confirm_select, .no_wait = false);
    RIG_CALL(rig, 1, basic_consume, .consumer_tag = slice_str("c"));
    rig_publish(rig, 1, "k", "small");
    rig_publish(rig, 1, "k", body);
    RIG_CALL(rig, 7, channel_open, .reserved_1 = {0});
    RIG_CALL(rig, 7, basic_publish, .routing_key = slice_str("k"));
    rig_settle(rig);
    rig_header(rig, 7, 70000, "\0\0", 2);
    rig_frame(rig, FRAME_BODY, 7, body, 1000);
    RIG_CALL(rig, 1, basic_publish, .routing_key = slice_str("k"));
    rig_header(rig, 1, 0, "\x01\0\1x", 4);
    rig_settle(rig);
    rig->durable = 5;
    rig_settle(rig);
    if (!rig->closed)
        RIG_CALL(rig, 0, connection_close, .reply_code = 200);
    rig_settle(rig);
}

/* Every single allocation refused once, over a whole script: nothing is lost but this connection. */
static void memory_refused(void **state)
{
    (void)state;
    size_t before = mem_in_use();
    uint64_t n = 1;
    for (bool more = true; more; n++) {
        struct rig rig;
        assert_true(rig_init(&rig));
        rig.answer_lsn = 5;
        mem_fail_at(n, false);
        if (rig_open(&rig))
            memory_script(&rig);
        more = mem_failures_hit() > 0;
        mem_fail_at(0, false);
        rig_fini(&rig);
    }
    assert_true(n > 30);
    assert_int_equal(mem_in_use(), before);
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
        cmocka_unit_test(every_row),
        cmocka_unit_test(wrong_place),
        cmocka_unit_test(bad_frames),
        cmocka_unit_test(bad_contents),
        cmocka_unit_test(publishes_refused),
        cmocka_unit_test(properties_extracted),
        cmocka_unit_test(not_implemented),
        cmocka_unit_test(faults_wait_their_turn),
        cmocka_unit_test(local_replies),
        cmocka_unit_test(contents_cut),
        cmocka_unit_test(body_memory_grows),
        cmocka_unit_test(unfinished_bodies_limited),
        cmocka_unit_test(confirms_collapse),
        cmocka_unit_test(confirms_numbered_from_select),
        cmocka_unit_test(many_confirms_are_bounded),
        cmocka_unit_test(return_before_confirm),
        cmocka_unit_test(deliveries_wait_behind_answers_only),
        cmocka_unit_test(deliveries_split),
        cmocka_unit_test(many_consumers),
        cmocka_unit_test(credit_returns),
        cmocka_unit_test(channel_error),
        cmocka_unit_test(reopen_waits_for_the_core),
        cmocka_unit_test(error_crosses_close),
        cmocka_unit_test(connection_error),
        cmocka_unit_test(long_texts_are_cut),
        cmocka_unit_test(transport_gone),
        cmocka_unit_test(shutdown_says_why),
        cmocka_unit_test(kicked),
        cmocka_unit_test(publishers_pause),
        cmocka_unit_test(transactions_do_not_pause),
        cmocka_unit_test(blocked_by_alarm),
        cmocka_unit_test(full_ring_leaves_bytes),
        cmocka_unit_test(peer_that_does_not_read),
        cmocka_unit_test(heartbeats),
        cmocka_unit_test(small_when_idle),
        cmocka_unit_test(memory_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
