/* Contents coming in: cut anywhere, refused, bounded; and what the edge itself refuses. */
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
    publish_refused(
        "\0\0", 2, 16777217,
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
    SAYS(&rig, "0 connection.close reply_code=540 reply_text=NOT_IMPLEMENTED - prefetch_size!=0 (7) class_id=60 "
               "method_id=10\n");
    rig_fini(&rig);
    start(&rig);
    RIG_CALL(&rig, 1, basic_recover, .requeue = false);
    rig_settle(&rig);
    SAYS(&rig,
         "0 connection.close reply_code=540 reply_text=NOT_IMPLEMENTED - requeue=false class_id=60 method_id=110\n");
    rig_fini(&rig);
    start(&rig);
    RIG_CALL(&rig, 1, channel_flow, .active = false);
    rig_settle(&rig);
    SAYS(&rig,
         "0 connection.close reply_code=540 reply_text=NOT_IMPLEMENTED - active=false class_id=20 method_id=20\n");
    rig_fini(&rig);
    start(&rig);
    RIG_CALL(&rig, 1, basic_publish, .immediate = true);
    rig_header(&rig, 1, 1, "\0\0", 2);
    rig_frame(&rig, FRAME_BODY, 1, "x", 1);
    rig_settle(&rig);
    SAYS(&rig,
         "0 connection.close reply_code=540 reply_text=NOT_IMPLEMENTED - immediate=true class_id=60 method_id=40\n");
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
    has(rig.said,
        "0 connection.close reply_code=506 reply_text=RESOURCE_ERROR - unfinished messages of this connection");
    rig_fini(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(publishes_refused), cmocka_unit_test(properties_extracted),
        cmocka_unit_test(not_implemented),   cmocka_unit_test(faults_wait_their_turn),
        cmocka_unit_test(local_replies),     cmocka_unit_test(contents_cut),
        cmocka_unit_test(body_memory_grows), cmocka_unit_test(unfinished_bodies_limited),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
