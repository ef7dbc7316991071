/* The connection as a client sees it: negotiation, the rules of the method table, frames that are wrong, endings, flow,
 * time, and memory that is refused. */
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

/* EXTERNAL is for who has a certificate, and means its user, whatever a client sends along. */
static void certificates_log_in(void **state)
{
    (void)state;
    static const char *const responses[] = {"", "root", "*"};
    for (unsigned i = 0; i < ARRAY_LEN(responses); i++) {
        struct rig rig;
        uint8_t room[512];
        assert_true(rig_init(&rig));
        assert_true(rig_open(&rig));
        rig.engine->certified = "alice";
        rig_bytes(&rig, "AMQP\0\0\x09\x01", 8);
        rig_settle(&rig);
        has(rig.said, "PLAIN AMQPLAIN EXTERNAL");
        rig_clear(&rig);
        RIG_CALL(&rig, 0, connection_start_ok, .client_properties = rig_client_properties(room, sizeof room),
                 .mechanism = slice_str("EXTERNAL"), .response = slice_str(responses[i]), .locale = slice_str("en_US"));
        rig_settle(&rig);
        has(rig.said, "0 connection.tune ");
        has(rig.commands, "LOGIN");
        has(rig.commands, "alice");
        has_not(rig.commands, "root");
        rig_fini(&rig);
    }
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
    has(rig.said,
        "0 connection.close reply_code=403 reply_text=ACCESS_REFUSED - Login was refused using authentication "
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
    tune_with(
        0, 131072,
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
            has(rig.said,
                "reply_code=504 reply_text=CHANNEL_ERROR - second 'channel.open' seen class_id=20 method_id=10");
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
    method_expect(2, AMQP091_queue_declare,
                  "reply_code=504 reply_text=CHANNEL_ERROR - expected 'channel.open' class_id=50");
    method_expect(2, AMQP091_basic_publish,
                  "reply_code=504 reply_text=CHANNEL_ERROR - expected 'channel.open' class_id=60");
    method_expect(2048, AMQP091_channel_open,
                  "reply_code=530 reply_text=NOT_ALLOWED - number of channels opened (1) has reached the negotiated "
                  "channel_max (2047) class_id=20 method_id=10");
    method_expect(
        0, AMQP091_queue_declare,
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
    frame_expect(9, 0, "abc", 3,
                 "reply_code=501 reply_text=FRAME_ERROR - type 9, all octets = <<\"abc\">>: unknown_frame");
    frame_expect(FRAME_METHOD, 1, "\1\2", 2, "reply_code=501 ");
    frame_expect(FRAME_METHOD, 1, "\0\x63\0\1", 4, "reply_code=503 reply_text=COMMAND_INVALID - unknown method 99.1");
    frame_expect(FRAME_METHOD, 1, "\0\x32\0\x0a\0\0\5ab", 9, "reply_code=501 ");
    frame_expect(FRAME_METHOD, 1, "\0\x3c\0\x28\0\0\5ab", 9, "reply_code=501 ");
    frame_expect(FRAME_METHOD, 1, "\0\x3c\0\x50\0\0", 6, "reply_code=501 ");
    frame_expect(FRAME_HEADER, 1, "\0\x3c\0\0\0\0\0\0\0\0\0\0\0\0", 14,
                 "reply_code=505 reply_text=UNEXPECTED_FRAME - expected method frame, got non method frame instead");
    frame_expect(FRAME_BODY, 1, "abc", 3, "reply_code=505 ");
    frame_expect(FRAME_BODY, 2, "abc", 3, "reply_code=505 ");
    frame_expect(FRAME_BODY, 0, "abc", 3,
                 "reply_code=505 reply_text=UNEXPECTED_FRAME - type 3, all octets = <<\"abc\">>");
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
    has(rig.said,
        "reply_code=505 reply_text=UNEXPECTED_FRAME - expected content header for class 60, got non content header "
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
    has(rig.said,
        "reply_code=501 reply_text=FRAME_ERROR - a content body of 6 octets is longer than the 5 that were announced");
    ASKED(&rig, "0 SESSION_CLOSE number=0 flags=0\n");
    rig_fini(&rig);
    start(&rig);
    RIG_CALL(&rig, 1, basic_publish, .routing_key = slice_str("k"));
    rig_header(&rig, 1, 0, "\x80\0\5ab", 5);
    rig_settle(&rig);
    has(rig.said, "reply_code=502 reply_text=SYNTAX_ERROR - ");
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
    rig_push_error(&rig, 1, ERR_NOT_FOUND, AMQP091_ORIGIN(60, 40), "no exchange 'x' in vhost '/'");
    rig_push_deliver(&rig, 1, 1, rig_message(&rig, 2, 2000)); /* too late */
    rig_push_effect(&rig, EFF_CONFIRM, 1, 0);
    rig_clear(&rig);
    rig_settle(&rig);
    SAYS(&rig, "1 channel.close reply_code=404 reply_text=NOT_FOUND - no exchange 'x' in vhost '/' class_id=60 "
               "method_id=40\n");
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
    rig_push_error(&rig, 1, ERR_NOT_FOUND, AMQP091_ORIGIN(60, 40), "no");
    rig.answers = false;
    rig_settle(&rig);
    RIG_CALL(&rig, 1, channel_close_ok);
    RIG_CALL(&rig, 1, channel_open, .reserved_1 = {0});
    rig_settle(&rig);
    assert_true(rig.in_len > 0);
    has_not(rig.commands, "CHANNEL_OPEN");
    rig.answers = true;
    rig_push_effect(&rig, EFF_CHANNEL_CLOSED, 0, 0);
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
    rig_header(&rig, 1, 16777217, "\0\0", 2); /* too large */
    RIG_CALL(&rig, 1, channel_close, .reply_code = 200);
    rig_settle(&rig);
    SAYS(&rig,
         "1 channel.close reply_code=406 reply_text=PRECONDITION_FAILED - message size 16777217 is larger than max "
         "size 16777216 class_id=60 "
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
    rig_push_error(&rig, 1, ERR_NOT_ALLOWED, AMQP091_ORIGIN(60, 20), "attempt to reuse consumer tag 'c'");
    rig_settle(&rig);
    SAYS(&rig,
         "0 connection.close reply_code=530 reply_text=NOT_ALLOWED - attempt to reuse consumer tag 'c' class_id=60 "
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
    rig_push_error(&rig, 0, ERR_NOT_ALLOWED, AMQP091_ORIGIN(10, 40), "vhost x not found");
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
    rig_push_error(&rig, 1, ERR_NOT_FOUND, AMQP091_ORIGIN(60, 40), text);
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
    rig_push_deliver(&rig, 1, 1, rig_message(&rig, 2, 100));
    rig_push_effect(&rig, EFF_CONFIRM, 1, 3);
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
    SAYS(
        &rig,
        "0 connection.close reply_code=320 reply_text=CONNECTION_FORCED - broker forced connection closure with reason "
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
    rig_effect(&rig, EFF_SESSION_KICK, 0, 0)->answer =
        rig_answer(ERR_CONNECTION_FORCED, "user deleted", (struct slice){0});
    rig_settle(&rig);
    SAYS(&rig,
         "0 connection.close reply_code=320 reply_text=CONNECTION_FORCED - user deleted class_id=0 method_id=0\n");
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
    struct effect *e = rig_push_effect(&rig, EFF_CONFIRM, 5, 3);
    e->bytes = 400000;
    e->flags = EFFECT_SILENT;
    rig_settle(&rig);
    assert_true(rig.engine->paused);
    rig.durable = 3;
    rig_settle(&rig);
    assert_true(rig.engine->paused); /* above the low mark still */
    e = rig_push_effect(&rig, EFF_CONFIRM, 10, 0);
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
        cmocka_unit_test(certificates_log_in),
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
