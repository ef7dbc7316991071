/* The engine with a core that is played: logins, publishing, subscribing, delivering, endings. */
#include "fmt/amqp_table.h"
#include "proto/mqtt/rig_test.h"

#include "fmt/scram_client_test.h"

#define CONNACK_5_PROPS "!\\x04\\x00\"\\x00\\x10'\\x01\\x02\\x00\\x00" /* receive maximum, alias maximum, packet size */

/* ---- CONNECT ---- */

static void test_connect(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    rig_open(rig);
    RIG_BYTES(rig, "\x10\x0d\0\4MQTT\4\2\0\x3c\0\1a");
    rig_said(rig, "connack/0 \\x00\\x00\n");
    rig_asked(rig, "SESSION_OPEN name=127.0.0.1:5 other=MQTT 3.1.1 key= args= ask=0 number=0 flags=2000\n"
                   "LOGIN name=guest other= key=ANONYMOUS args= ask=0 number=0 flags=202000\n"
                   "ENTER name=/ other= key= args= ask=0 number=0 flags=0\n"
                   "CHANNEL_OPEN number=0 flags=0 origin=40000\n"
                   "CONFIRM_SELECT number=0 flags=0 origin=40000\n"
                   "MQTT_ATTACH name=a other= key=amq.topic args= ask=0 number=0 flags=400000\n"
                   "MQTT_RESUME number=1024 flags=0 origin=60000\n");
    RIG_BYTES(rig, "\xc0\0");
    rig_said(rig, "pingresp/0 \n");
    RIG_BYTES(rig, "\xe0\0");
    rig_said(rig, "");
    assert_true(rig->closed);
    rig_asked(rig, "MQTT_DETACH number=0 flags=0 origin=70000\nSESSION_CLOSE number=0 flags=0 origin=0\n");
    rig_free(rig);
}

static void test_connect_with_everything(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    rig->options.session_expiry_max_s = 100;
    rig->options.keep_alive_max_s = 60;
    rig->options.response_information = "answers/";
    rig->number = 1;
    rig_open(rig);
    union mqtt_fields f = {.connect = {.protocol = slice_str("MQTT"),
                                       .version = MQTT_5,
                                       .client_id = slice_str("id"),
                                       .keep_alive_s = 120,
                                       .has_user = true,
                                       .user = slice_str("v:w:user"),
                                       .has_password = true,
                                       .password = slice_str("secret"),
                                       .has_will = true,
                                       .will_qos = 1,
                                       .will_retain = true,
                                       .will_topic = slice_str("w/x.y"),
                                       .will_payload = slice_str("gone")}};
    MQTT_SET(&f.connect.props, session_expiry, 1000);
    MQTT_SET(&f.connect.props, receive_maximum, 5);
    MQTT_SET(&f.connect.props, request_response, 1);
    MQTT_SET(&f.connect.will_props, will_delay, 258);
    rig_packet(rig, MQTT_connect, MQTT_5, &f);
    rig_said(rig,
             "connack/0 \\x01\\x00\\x1e\\x11\\x00\\x00\\x00d\\x13\\x00<\\x1a\\x00\\x08answers/" CONNACK_5_PROPS "\n");
    rig_asked(rig, "SESSION_OPEN name=127.0.0.1:5 other=MQTT 5.0 key= args= ask=0 number=0 flags=2000\n"
                   "LOGIN name=user other=secret key=PLAIN args= ask=0 number=0 flags=2000\n"
                   "ENTER name=v:w other= key= args= ask=0 number=0 flags=0\n"
                   "CHANNEL_OPEN number=0 flags=0 origin=40000\n"
                   "CONFIRM_SELECT number=0 flags=0 origin=40000\n"
                   "MQTT_ATTACH name=id other= key=amq.topic "
                   "args=\\x01\\x00\\x00\\x01\\x02\\x05w.x/"
                   "y\\x00\\x00\\x00\\x170\\x00\\x00\\x00\\x00\\x10\\x0dx-mqtt-retaint\\x01\\x02gone "
                   "ask=64 number=0 flags=0\n"
                   "MQTT_RESUME number=5 flags=0 origin=60000\n");
    rig_free(rig);
}

/* In 3.1.1 a return code, in 5.0 a reason, in 3.1 nothing at all, and the end of the connection. */
static void refused(struct rig *rig, const void *bytes, size_t len, const char *said)
{
    rig_open(rig);
    rig_bytes(rig, bytes, len);
    rig_said(rig, said);
    assert_true(rig->closed);
    rig_clear(rig);
}
#define REFUSED(rig, bytes, said) refused(rig, bytes, sizeof(bytes) - 1, said)

static void test_connect_refused(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    REFUSED(rig, "\x30\x05\0\1abc", ""); /* not the first packet */
    REFUSED(rig, "\xf0\x00", "");
    REFUSED(rig, "\x10\xff\xff\xff\xff\x01", "");
    REFUSED(rig, "\x10\xff\xff\xff\x7f", "");            /* too large */
    REFUSED(rig, "\x11\x0d\0\4MQTT\4\2\0\x3c\0\1a", ""); /* flags */
    REFUSED(rig, "\x10\x0d\0\4MQTt\4\2\0\x3c\0\1a", "");
    REFUSED(rig, "\x10\x0d\0\4MQTT\x09\2\0\x3c\0\1a", "connack/0 \\x00\\x01\n");
    REFUSED(rig, "\x10\x0c\0\4MQTT\4\0\0\x3c\0\0", "connack/0 \\x00\\x02\n"); /* no id, and a session */
    REFUSED(rig, "\x10\x0e\0\6MQIsdp\3\2\0\x3c\0\0", "connack/0 \\x00\\x02\n");
    REFUSED(rig, "\x10\x10\0\4MQTT\4\2\0\x3c\0\4$SYS", "connack/0 \\x00\\x02\n"); /* the broker's own */
    REFUSED(rig, "\x10\x0d\0\4MQTT\4\3\0\x3c\0\1a", "");                          /* the reserved bit */
    REFUSED(rig, "\x10\x0e\0\4MQTT\5\3\0\x3c\0\0\1a", "connack/0 \\x00\\x81\\x00\n");
    REFUSED(rig, "\x10\x13\0\4MQTT\4\6\0\x3c\0\1a\0\2+w\0\0", ""); /* a will for a wildcard */
    REFUSED(rig, "\x10\x15\0\4MQTT\5\6\0\x3c\0\0\1a\0\0\2+w\0\0", "connack/0 \\x00\\x90\\x00\n");
    REFUSED(rig, "\x10\x17\0\4MQTT\5\2\0\x3c\x09\x15\0\1X\x16\0\2yz\0\1a", "connack/0 \\x00\\x8c\\x00\n");
    REFUSED(rig, "\x10\x13\0\4MQTT\5\2\0\x3c\x05\x16\0\2yz\0\1a", "connack/0 \\x00\\x82\\x00\n");
    rig->refuse_login = ERR_ACCESS_REFUSED;
    REFUSED(rig, "\x10\x13\0\4MQTT\4\xc2\0\x3c\0\1a\0\1u\0\1p", "connack/0 \\x00\\x04\n");
    REFUSED(rig, "\x10\x14\0\4MQTT\5\xc2\0\x3c\0\0\1a\0\1u\0\1p", "connack/0 \\x00\\x86\\x00\n");
    rig->refuse_login = ERR_NONE;
    rig->refuse_attach = ERR_NOT_FOUND;
    REFUSED(rig, "\x10\x0d\0\4MQTT\4\2\0\x3c\0\1a", "connack/0 \\x00\\x03\n");
    rig->refuse_attach = ERR_ACCESS_REFUSED;
    REFUSED(rig, "\x10\x0e\0\4MQTT\5\2\0\x3c\0\0\1a", "connack/0 \\x00\\x87\\x00\n");
    rig->refuse_attach = ERR_NONE;
    rig->options.anonymous = "";
    REFUSED(rig, "\x10\x0d\0\4MQTT\4\2\0\x3c\0\1a", "connack/0 \\x00\\x05\n");
    rig_open(rig);
    rig->engine->certified = "device-7";
    RIG_BYTES(rig, "\x10\x0d\0\4MQTT\4\2\0\x3c\0\1a");
    rig_said(rig, "connack/0 \\x00\\x00\n");
    assert_non_null(strstr(rig->commands, "LOGIN name=device-7 other= key=EXTERNAL"));
    rig_free(rig);
}

/* On the port of another protocol nobody is anonymous; who says who he is comes in. */
static void test_visitors(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    rig_close(rig);
    rig_open(rig);
    rig->engine->visiting = true;
    RIG_BYTES(rig, "\x10\x0d\0\4MQTT\4\2\0\x3c\0\1a");
    rig_said(rig, "connack/0 \\x00\\x05\n");
    rig_close(rig);
    rig_open(rig);
    rig->engine->visiting = true;
    RIG_BYTES(rig, "\x10\x13\0\4MQTT\4\xc2\0\x3c\0\1a\0\1u\0\1p");
    rig_said(rig, "connack/0 \\x00\\x00\n");
    rig_free(rig);
}

/* What the session has left comes back: ids that wait for PUBCOMP, subscriptions; nothing overtakes CONNACK, which waits for the disk. */
static void test_session_comes_back(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    rig->fields = slice_of("\0\0\0\2\3a.*\0\1\0\0\0\0\1b\1g\2\0\0\0\7\0\0\0\2\0\x09\0\3", 31);
    rig->number = 1;
    rig->lsn = 5;
    rig_open(rig);
    RIG_BYTES(rig, "\x10\x0d\0\4MQTT\4\0\0\0\0\1a\xc0\0");
    rig_said(rig, "");
    rig->durable = 5;
    rig_said(rig, "connack/0 \\x01\\x00\npubrel/2 \\x00\\x09\npubrel/2 \\x00\\x03\npingresp/0 \n");
    assert_int_equal(rig_mqtt(rig)->subs_count, 2);
    rig_clear(rig);
    RIG_BYTES(rig, "\x70\2\0\3");
    rig_said(rig, "");
    rig_asked(rig, "MQTT_COMPLETED number=3 flags=0 origin=c0003\n");
    assert_int_equal(rig_mqtt(rig)->ids.count, 1);
    /* one that the engine cannot read ends the connection */
    rig_close(rig);
    rig->fields = slice_of("\0\0\0\2\3a.", 7);
    rig_open(rig);
    RIG_BYTES(rig, "\x10\x0d\0\4MQTT\4\0\0\0\0\1a");
    rig_said(rig, "connack/0 \\x00\\x03\n");
    rig_free(rig);
}

/* ---- publishing ---- */

static void test_publish(void **state)
{
    (void)state;
    struct rig *rig = rig_ready(MQTT_3_1_1);
    rig->lsn = 3;
    RIG_BYTES(rig, "\x30\x07\0\3a/bhi"
                   "\x33\x0a\0\3v.1\0\7hey"
                   "\x34\x07\0\3a/b\0\x08");
    rig_said(rig, "");
    rig_asked(rig, "PUBLISH #1 k=a.b flags=1000000 id=0 exp=-1 props=\\x00\\x00 body=hi\n"
                   "PUBLISH #2 k=v/1 flags=1400000 id=7 exp=-1 "
                   "props=0\\x00\\x00\\x00\\x00\\x10\\x0dx-mqtt-retaint\\x01\\x02 body=hey\n"
                   "PUBLISH #3 k=a.b flags=1800000 id=8 exp=-1 "
                   "props=0\\x00\\x00\\x00\\x00\\x15\\x12x-mqtt-publish-qosb\\x02\\x02 body=\n");
    rig->durable = 3;
    rig_said(rig, "puback/0 \\x00\\x07\npubrec/0 \\x00\\x08\n");
    rig->number = 1;
    RIG_BYTES(rig, "\x62\2\0\x08");
    rig_said(rig, "pubcomp/0 \\x00\\x08\n");
    rig_asked(rig, "MQTT_RELEASED number=8 flags=0 origin=b0008\n");
    rig_free(rig);
}

static void test_publish_5(void **state)
{
    (void)state;
    struct rig *rig = rig_ready(MQTT_5);
    rig->confirm_flags = EFFECT_UNROUTED;
    RIG_BYTES(rig, "\x32\x0b\0\1a\0\1\0hello");
    rig_said(rig, "puback/0 \\x00\\x01\\x10\n");
    rig->confirm_flags = 0;
    /* an alias is taught, used, and unknown */
    RIG_BYTES(rig, "\x32\x0b\0\3x/y\0\2\3\x23\0\5\x32\x08\0\0\0\3\3\x23\0\5");
    rig_said(rig, "puback/0 \\x00\\x02\npuback/0 \\x00\\x03\n");
    assert_non_null(strstr(rig->commands, "PUBLISH #3 k=x.y"));
    RIG_BYTES(rig, "\x32\x08\0\0\0\3\3\x23\0\6");
    rig_said(rig, "disconnect/0 \\x82\n");
    assert_true(rig->closed);
    rig_free(rig);
}

static void test_publish_refused(void **state)
{
    (void)state;
    struct rig *rig = rig_ready(MQTT_5);
    rig->keep_confirms = true;
    RIG_BYTES(rig, "\x32\x06\0\1a\0\1\0"       /* goes to the core */
                   "\x32\x0c\0\7$SYS/ab\0\2\0" /* does not */
                   "\x34\x06\0\1a\0\3\0");     /* does */
    rig_said(rig, "");
    struct effect *e = rig_effect(rig, EFF_CONFIRM, 0);
    e->number = 1;
    ring_publish(&rig->port.effects);
    rig_said(rig, "puback/0 \\x00\\x01\npuback/0 \\x00\\x02\\x87\n"); /* in order, each once */
    e = rig_effect(rig, EFF_NACK, 0);
    e->number = 2;
    e->flags = NACK_FULL;
    ring_publish(&rig->port.effects);
    rig_said(rig, "pubrec/0 \\x00\\x03\\x97\n");
    assert_int_equal(rig_mqtt(rig)->quota_used, 0);
    rig_free(rig);
    rig = rig_ready(MQTT_3_1_1); /* has no words for it */
    rig->keep_confirms = true;
    RIG_BYTES(rig, "\x32\x0b\0\7$SYS/ab\0\2\x32\x05\0\1a\0\3");
    rig_said(rig, "puback/0 \\x00\\x02\n");
    e = rig_effect(rig, EFF_NACK, 0);
    e->number = 1;
    ring_publish(&rig->port.effects);
    rig_said(rig, "");
    assert_true(rig->closed);
    rig_free(rig);
}

static void test_receive_maximum(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    rig->options.receive_max = 2;
    rig_open(rig);
    RIG_BYTES(rig, "\x10\x0e\0\4MQTT\5\2\0\x3c\0\0\1a");
    rig_settle(rig);
    rig_clear(rig);
    rig->number = 1;
    RIG_BYTES(rig, "\x34\x06\0\1a\0\1\0\x34\x06\0\1a\0\2\0");
    rig_said(rig, "pubrec/0 \\x00\\x01\npubrec/0 \\x00\\x02\n");
    RIG_BYTES(rig, "\x62\2\0\1");
    rig_said(rig, "pubcomp/0 \\x00\\x01\n");
    RIG_BYTES(rig, "\x34\x06\0\1a\0\3\0");
    rig_said(rig, "pubrec/0 \\x00\\x03\n");
    RIG_BYTES(rig, "\x34\x06\0\1a\0\4\0");
    rig_said(rig, "disconnect/0 \\x93\n");
    rig_free(rig);
}

/* A client that is faster than the disk is not read, whatever the QoS. */
static void test_flow(void **state)
{
    (void)state;
    struct rig *rig = rig_ready(MQTT_3_1_1);
    rig->keep_confirms = true;
    union mqtt_fields f = {.publish = {.topic = slice_str("t"), .payload = slice_of(rig->out, 100000)}};
    for (int i = 0; i < 10; i++)
        rig_packet(rig, MQTT_publish, MQTT_3_1_1, &f);
    rig_settle(rig);
    assert_false(rig->engine->paused);
    rig_packet(rig, MQTT_publish, MQTT_3_1_1, &f);
    rig_settle(rig);
    assert_true(rig->engine->paused);
    struct effect *e = rig_effect(rig, EFF_CONFIRM, 0);
    e->number = 11;
    e->bytes = 11 * 100100;
    ring_publish(&rig->port.effects);
    rig_settle(rig);
    assert_false(rig->engine->paused);
    rig_free(rig);
}

/* Nor is one whose publishes go nowhere, while something in front of them is not answered. */
static void test_flow_of_what_is_refused(void **state)
{
    (void)state;
    struct rig *rig = rig_ready(MQTT_3_1_1);
    rig->keep_confirms = true;
    RIG_BYTES(rig, "\x32\x05\0\1a\0\1");
    for (unsigned i = 0; i < 6000; i++)
        RIG_BYTES(rig, "\x32\x08\0\4$SYS\0\2");
    rig_settle(rig);
    assert_true(rig->engine->paused);
    assert_in_range(rig_mqtt(rig)->publishes.count, MQTT_UNANSWERED_MAX, MQTT_UNANSWERED_MAX + 10);
    struct effect *e = rig_effect(rig, EFF_CONFIRM, 0);
    e->number = 1;
    ring_publish(&rig->port.effects);
    rig_settle(rig);
    assert_false(rig->engine->paused);
    assert_int_equal(rig->in_len, 0);
    rig_free(rig);
}

/* ---- subscribing ---- */

static void test_subscribe(void **state)
{
    (void)state;
    struct rig *rig = rig_ready(MQTT_5);
    rig->options.refused_filters = "test/nosubscribe other";
    RIG_BYTES(rig, "\x82\x29\0\x0a\2\x0b\7\0\x08$share/g\1\0\x10test/nosubscribe\2\0\3b/#\x0e");
    rig_said(rig, "suback/0 \\x00\\x0a\\x00\\x8f\\x80\\x02\n");
    rig_asked(rig, "MQTT_SUBSCRIBE name=b.# other= key= args= ask=e00000007 number=100002 flags=0\n"
                   "MQTT_RETAINED name=b.# other= key= args= ask=0 number=200100002 flags=0\n");
    rig->number = 1; /* it was there */
    RIG_BYTES(rig, "\x82\x09\0\x0b\0\0\3b/#\x10\x82\x09\0\x0c\0\0\3b/#\x20\x82\x09\0\x0d\0\0\3b/#\x00");
    rig_said(rig, "suback/0 \\x00\\x0b\\x00\\x00\nsuback/0 \\x00\\x0c\\x00\\x00\nsuback/0 \\x00\\x0d\\x00\\x00\n");
    assert_int_equal(rig_mqtt(rig)->subs_count, 1);
    assert_null(
        strstr(strstr(rig->commands, "MQTT_RETAINED") + 1, "MQTT_RETAINED")); /* handling 1 and 2: nothing is sent */
    rig_clear(rig);
    RIG_BYTES(rig, "\x82\x12\0\x0e\0\0\x0c$share/g/s/+\1");
    rig_settle(rig);
    rig_clear(rig);
    RIG_BYTES(rig, "\xa2\x0d\0\x0f\0\0\3b/#\0\3x/y");
    rig_said(rig, "unsuback/0 \\x00\\x0f\\x00\\x00\\x00\n");
    rig_asked(rig, "MQTT_UNSUBSCRIBE name=b.# other= key= args= ask=0 number=0 flags=0\n"
                   "MQTT_UNSUBSCRIBE name=x.y other= key= args= ask=0 number=0 flags=0\n");
    rig->number = 0;
    RIG_BYTES(rig, "\xa2\x08\0\x0f\0\0\3b/#");
    rig_said(rig, "unsuback/0 \\x00\\x0f\\x00\\x11\n");
    RIG_BYTES(rig, "\x82\x10\0\x0e\0\0\x0a$share/g/s\5");
    rig_said(rig, "disconnect/0 \\x82\n"); /* no local, shared */
    rig_free(rig);
    rig = rig_ready(MQTT_5);
    RIG_BYTES(rig, "\x82\x08\0\1\0\0\2a#\1");
    rig_said(rig, "disconnect/0 \\x81\n"); /* no filter at all */
    rig_free(rig);
}

static void test_subscribe_3(void **state)
{
    (void)state;
    struct rig *rig = rig_ready(MQTT_3_1_1);
    rig->keep_answers = true;
    RIG_BYTES(rig, "\x82\x06\0\1\0\1a\2\x82\x06\0\2\0\1+\1\xa2\x05\0\3\0\1a");
    rig_said(rig, "");
    rig_asked(rig, "MQTT_SUBSCRIBE name=a other= key= args= ask=200000000 number=100002 flags=0\n"
                   "MQTT_SUBSCRIBE name=* other= key= args= ask=100000000 number=200003 flags=0\n"
                   "MQTT_UNSUBSCRIBE name=a other= key= args= ask=0 number=0 flags=0\n");
    for (unsigned i = 0; i < 3; i++) {
        struct effect *e = rig_effect(rig, EFF_ANSWER, 0);
        e->origin = MQTT_ORIGIN(MQTT_ASKED_LIST, i + 1);
        e->lsn = 9 - i; /* in order, whatever their lsns are */
        if (i == 1)
            e->answer = rig_answer(ERR_ACCESS_REFUSED, "", (struct slice){0}, 0);
    }
    ring_publish(&rig->port.effects);
    rig->durable = 8;
    rig_said(rig, "");
    rig->durable = 9;
    rig_said(rig, "suback/0 \\x00\\x01\\x02\nsuback/0 \\x00\\x02\\x80\nunsuback/0 \\x00\\x03\n");
    rig_free(rig);
}

static void subscribe(struct rig *rig, const char *filter, uint8_t options, uint32_t identifier)
{
    uint8_t room[64];
    struct writer w = writer_of(room, sizeof room);
    uint8_t version = rig_mqtt(rig)->version;
    mqtt_text_put(&w, slice_str(filter));
    writer_u8(&w, options);
    union mqtt_fields f = {.list = {.id = 1, .count = 1, .list = writer_slice(&w)}};
    if (identifier)
        MQTT_SET(&f.list.props, subscription_id, identifier);
    rig_packet(rig, MQTT_subscribe, version, &f);
    rig_settle(rig);
    rig_clear(rig);
}

/* Whoever comes, goes and is made anew: each is found, and none by another's name. */
static void test_many_subscriptions(void **state)
{
    (void)state;
    enum { NAMES = 40 };
    struct rig *rig = rig_ready(MQTT_5);
    uint32_t identifiers[NAMES] = {0}, x = 7;
    for (uint32_t n = 1; n < 6000; n++) {
        x = x * 1664525u + 1013904223u;
        unsigned i = (x >> 16) % NAMES;
        char name[20];
        snprintf(name, sizeof name, "t/%u", i);
        if (x & 1 << 14) {
            subscribe(rig, name, 0, n);
            identifiers[i] = n;
        } else {
            uint8_t room[32];
            struct writer w = writer_of(room, sizeof room);
            mqtt_text_put(&w, slice_str(name));
            union mqtt_fields f = {.list = {.id = 1, .count = 1, .list = writer_slice(&w)}};
            rig_packet(rig, MQTT_unsubscribe, MQTT_5, &f);
            rig_settle(rig);
            rig_clear(rig);
            identifiers[i] = 0;
        }
        const struct mqtt *m = rig_mqtt(rig);
        uint32_t count = 0, seen = 0;
        for (i = 0; i < NAMES; i++)
            count += identifiers[i] != 0;
        for (uint32_t slot = 0; slot < m->subs_room; slot++) {
            const struct mqtt_subscribed *sub = m->subs[slot];
            if (!sub)
                continue;
            seen++;
            assert_ptr_equal(mqtt_sub_of(m, sub->handle), sub);
            snprintf(name, sizeof name, "%.*s", sub->pattern_len - 2, (const char *)sub->text + 2);
            unsigned named = (unsigned)strtoul(name, NULL, 10);
            assert_int_equal(sub->identifier, identifiers[named]);
        }
        assert_int_equal(seen, count);
        assert_in_range(m->subs_room, 0, 128);
    }
    rig_free(rig);
}

static void found(void *arg, const struct mqtt_subscribed *sub)
{
    unsigned *times = arg;
    times[sub->identifier]++;
}

/* A topic or filter of up to four levels, few of which are different. */
static void any_topic(uint32_t chance, bool filter, char ret[32])
{
    static const char *const levels[] = {"", "a", "b", "+", "#"};
    size_t len = 0;
    for (unsigned depth = 1 + (chance >> 4) % 4, last = 0, i = 0; i < depth && last != 4; i++) {
        last = (chance >> (8 + 5 * i)) % (filter ? i + 1 == depth ? 5 : 4 : 3);
        len += (size_t)snprintf(ret + len, 32 - len, "%s%s", i ? "/" : "", levels[last]);
    }
    if (!len)
        snprintf(ret, 32, "/");
}

/* Many of a client are found by the beginnings of a key, few by looking at all: the same ones, each once. */
static void test_many_patterns(void **state)
{
    (void)state;
    enum { MANY = 300 };
    struct rig *rig = rig_ready(MQTT_5);
    uint32_t x = 7;
    char filter[32], shared[50];
    for (uint32_t n = 1; n < MANY; n++) {
        x = x * 1664525u + 1013904223u;
        any_topic(x, true, filter);
        snprintf(shared, sizeof shared, "$share/g/%s", filter);
        subscribe(rig, n % 8 ? filter : shared, n % 5 ? 1 + n % 2 : 0, n);
        const struct mqtt *m = rig_mqtt(rig);
        unsigned times[MANY] = {0}, taps[MANY] = {0};
        char topic[32];
        uint8_t key[32];
        any_topic(x * 2654435761u, false, topic);
        struct slice at = slice_of(key, strlen(topic));
        mqtt_topic_swap(key, slice_str(topic));
        mqtt_subs_match(m, at, true, found, times);
        mqtt_subs_match(m, at, false, found, taps);
        for (uint32_t slot = 0; slot < m->subs_room; slot++) {
            const struct mqtt_subscribed *sub = m->subs[slot];
            if (!sub)
                continue;
            bool wanted = !sub->group_len && mqtt_pattern_matches(mqtt_sub_pattern(sub), at);
            assert_int_equal(times[sub->identifier], wanted && sub->options & MQTT_OPT_QOS);
            assert_int_equal(taps[sub->identifier], wanted && !(sub->options & MQTT_OPT_QOS));
        }
    }
    assert_true(rig_mqtt(rig)->subs_count > 100);
    rig_free(rig);
}

static void test_subscriptions_have_a_limit(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    rig->options.subscriptions_max = 2;
    rig_open(rig);
    RIG_BYTES(rig, "\x10\x0e\0\4MQTT\5\2\0\x3c\0\0\1a");
    rig_settle(rig);
    rig_clear(rig);
    RIG_BYTES(rig, "\x82\x0b\0\1\0\0\1a\0\0\1b\0\x82\x0b\0\2\0\0\1c\0\0\1b\1");
    rig_said(rig, "suback/0 \\x00\\x01\\x00\\x00\\x00\nsuback/0 \\x00\\x02\\x00\\x97\\x01\n");
    rig_free(rig);
}

/* ---- delivering ---- */

#define HANDLE(n) (MQTT_HANDLE_FIRST + (n) + (((n) + 1u) << 20)) /* of the n-th subscription */

static void test_fanout(void **state)
{
    (void)state;
    struct rig *rig = rig_ready(MQTT_5);
    subscribe(rig, "a/+", 0, 0);
    subscribe(rig, "a/b", MQTT_OPT_AS_PUBLISHED | MQTT_OPT_NO_LOCAL, 200);
    rig_fanout(rig, HANDLE(0), 0, rig_message(rig, "a.b", 2, true, "hello"));
    rig_said(rig, "publish/0 \\x00\\x03a/b\\x00hello\n");
    rig_fanout(rig, HANDLE(1), 1 + 7, rig_message(rig, "a.b", 0, true, "hello"));
    rig_said(rig, "publish/1 \\x00\\x03a/b\\x03\\x0b\\xc8\\x01hello\n");
    rig_fanout(rig, HANDLE(1), 1 + 0, rig_message(rig, "a.b", 0, true, "mine"));
    rig_fanout(rig, HANDLE(1) + 1, 0, rig_message(rig, "a.b", 0, true, "nobody's"));
    rig_said(rig, "");
    char body[5000];
    memset(body, 'x', sizeof body);
    body[4999] = '\0';
    rig_fanout(rig, HANDLE(0), 0, rig_message(rig, "a.b", 0, false, body));
    rig_settle(rig);
    assert_int_equal(strlen(rig->said), strlen("publish/0 \\x00\\x03a/b\\x00\n") + 994); /* as much as is printed */
    rig_free(rig);
}

/* While a subscription is made anew the core may tell it by its new handle before its answer is read: it counts as what it was. */
static void test_fanout_of_what_is_made_anew(void **state)
{
    (void)state;
    struct rig *rig = rig_ready(MQTT_5);
    subscribe(rig, "a", 0, 5);
    rig->keep_answers = true;
    subscribe(rig, "a", 0, 6);
    rig_fanout(rig, HANDLE(1), 0, rig_message(rig, "a", 0, false, "x"));
    rig_said(rig, "publish/0 \\x00\\x01a\\x02\\x0b\\x05x\n");
    struct effect *e = rig_effect(rig, EFF_ANSWER, 0);
    e->origin = MQTT_ORIGIN(MQTT_ASKED_LIST, 1);
    ring_publish(&rig->port.effects);
    rig_settle(rig);
    rig_clear(rig);
    rig_fanout(rig, HANDLE(1), 0, rig_message(rig, "a", 0, false, "x"));
    rig_said(rig, "publish/0 \\x00\\x01a\\x02\\x0b\\x06x\n");
    rig_free(rig);
}

static void test_from_the_queue(void **state)
{
    (void)state;
    struct rig *rig = rig_ready(MQTT_5);
    subscribe(rig, "a/+", 1, 5);
    subscribe(rig, "a/#", 2 | MQTT_OPT_AS_PUBLISHED, 6);
    subscribe(rig, "a/b", 0, 7); /* a tap: no part of this */
    rig->lsn = 4;
    rig_deliver(rig, MQTT_OWN_QUEUE, 11, 0, 0, rig_message(rig, "a.b", 2, true, "x"));
    rig_deliver(rig, MQTT_OWN_QUEUE, 12, 1, EFFECT_REDELIVERED, rig_message(rig, "a.b", 1, false, "y"));
    rig_deliver(rig, MQTT_OWN_QUEUE, 13, 2, 0, rig_message(rig, "a.b", 0, false, "z"));
    rig_said(rig, "publish/5 \\x00\\x03a/b\\x00\\x01\\x04\\x0b\\x05\\x0b\\x06x\n"
                  "publish/a \\x00\\x03a/b\\x00\\x02\\x04\\x0b\\x05\\x0b\\x06y\n"
                  "publish/0 \\x00\\x03a/b\\x04\\x0b\\x05\\x0b\\x06z\n");
    rig_asked(rig, "ACK number=13 flags=0 origin=0\n");
    RIG_BYTES(rig, "\x40\2\0\2\x50\2\0\1\x40\2\0\x63");
    rig_said(rig, "");
    rig_asked(rig, "ACK number=12 flags=0 origin=0\nACK number=11 flags=400000 origin=1\n");
    rig->durable = 4;
    rig_said(rig, "pubrel/2 \\x00\\x01\n");
    RIG_BYTES(rig, "\x50\2\0\1\x70\2\0\1\x50\2\0\x63");
    rig_said(rig, "pubrel/2 \\x00\\x01\npubrel/2 \\x00c\\x92\n");
    rig_asked(rig, "MQTT_COMPLETED number=1 flags=0 origin=c0001\n");
    assert_int_equal(rig_mqtt(rig)->ids.count, 0);
    rig_free(rig);
}

/* Its subscription has gone since it was sent: a client that has half of an exchange of QoS 2 must be able to go on with it. */
static void test_sent_again_without_subscription(void **state)
{
    (void)state;
    struct rig *rig = rig_ready(MQTT_3_1_1);
    rig_deliver(rig, MQTT_OWN_QUEUE, 1, 0, EFFECT_REDELIVERED, rig_message(rig, "t", 2, false, "1"));
    rig_deliver(rig, MQTT_OWN_QUEUE, 2, 1, EFFECT_REDELIVERED, rig_message(rig, "t", 1, false, "2"));
    rig_said(rig, "publish/c \\x00\\x01t\\x00\\x011\npublish/a \\x00\\x01t\\x00\\x022\n");
    rig_free(rig);
}

/* An id that is in use: what would get it waits, and what is behind it as well. */
static void test_ids_in_use(void **state)
{
    (void)state;
    struct rig *rig = rig_ready(MQTT_3_1_1);
    subscribe(rig, "t", 1, 0);
    rig_deliver(rig, MQTT_OWN_QUEUE, 1, 0, 0, rig_message(rig, "t", 1, false, "1"));
    rig_deliver(rig, MQTT_OWN_QUEUE, 2, MQTT_OWN_IDS, 0, rig_message(rig, "t", 1, false, "2"));
    rig_deliver(rig, MQTT_OWN_QUEUE, 3, MQTT_OWN_IDS + 1, 0, rig_message(rig, "t", 1, false, "3"));
    rig_said(rig, "publish/2 \\x00\\x01t\\x00\\x011\n");
    RIG_BYTES(rig, "\x40\2\0\1");
    rig_said(rig, "publish/2 \\x00\\x01t\\x00\\x012\npublish/2 \\x00\\x01t\\x00\\x023\n");
    rig_deliver(rig, MQTT_OWN_QUEUE, 4, 0, 0, rig_message(rig, "t", 1, false, "4")); /* still waiting at the end */
    rig_settle(rig);
    rig_free(rig);
}

static void test_shared_and_retained(void **state)
{
    (void)state;
    struct rig *rig = rig_ready(MQTT_5);
    subscribe(rig, "$share/g/t", 1, 9);
    rig_deliver(rig, HANDLE(0), 1, 77, 0, rig_message(rig, "t", 2, false, "s"));
    rig_said(rig, "publish/2 \\x00\\x01t\\xbb\\xda\\x02\\x0b\\x09s\n");
    RIG_BYTES(rig, "\x40\3\xbb\xda\x80"); /* refused: over all the same */
    rig_settle(rig);
    rig_asked(rig, "ACK number=1 flags=0 origin=0\n");
    subscribe(rig, "r/+", 0, 10);
    struct effect *e = rig_effect(rig, EFF_RETAINED, 0);
    e->consumer = HANDLE(1);
    e->origin = 33;
    e->msg = rig_message(rig, "r.1", 2, true, "kept");
    ring_publish(&rig->port.effects);
    rig_said(rig, "publish/1 \\x00\\x03r/1\\x07\\x02\\x00\\x00\\x00!\\x0b\\x0akept\n");
    rig_free(rig);
}

/* What a client holds of QoS 2 without a PUBREL comes to it with the id it had, and nothing else does (4.3.3). */
static void test_a_shared_message_keeps_its_id(void **state)
{
    (void)state;
    for (unsigned connection = 0; connection < 2; connection++) {
        struct rig *rig = rig_ready(MQTT_5);
        subscribe(rig, "$share/g/t", 2, 0);
        for (uint64_t position = 77 + connection; position < 79; position++)
            rig_deliver(rig, HANDLE(0), position, position, 0, rig_message(rig, "t", 2, false, "s"));
        rig_said(rig, connection ? "publish/4 \\x00\\x01t\\xbb\\xdb\\x00s\n"
                                 : "publish/4 \\x00\\x01t\\xbb\\xda\\x00s\npublish/4 \\x00\\x01t\\xbb\\xdb\\x00s\n");
        rig_deliver(rig, HANDLE(0), 80, 78 + 32768, 0, rig_message(rig, "t", 2, false, "w"));
        rig_said(rig, ""); /* while the id is in use it waits */
        RIG_BYTES(rig, "\x50\3\xbb\xdb\x80");
        rig_said(rig, "publish/4 \\x00\\x01t\\xbb\\xdb\\x00w\n");
        rig_free(rig);
    }
}

/* With QoS 2 it comes from the client's own queue, and its header says by which subscription: not by another that matches as well. */
static void test_a_shared_message_of_the_own_queue(void **state)
{
    (void)state;
    uint8_t headers[100], raw[200];
    struct rig *rig = rig_ready(MQTT_5);
    subscribe(rig, "t", 1, 8);
    subscribe(rig, "$share/g/t", 2, 9);
    for (unsigned gone = 0; gone < 3; gone++) { /* 2: somebody else has written the header, without being the core */
        struct writer w = writer_of(headers, sizeof headers), out = writer_of(raw, sizeof raw);
        amqp_put_long(&w, "x-mqtt-publish-qos", 2);
        amqp_put_str(&w, "x-mqtt-share", slice_str(gone == 1 ? "h/t" : "g/t"));
        struct amqp_props props = {
            .present = AMQP_HEADERS | AMQP_DELIVERY_MODE, .headers = writer_slice(&w), .delivery_mode = 2};
        amqp_props_write(&out, &props);
        struct msg *msg = msg_new(&rig->heap, slice_str("amq.topic"), slice_str("t"), writer_slice(&out), 1);
        assert_non_null(msg);
        memcpy(msg_body_room(msg), "s", 1);
        msg->flags = (uint8_t)(MSG_PERSISTENT | MSG_HAS_HEADERS | (gone < 2 ? MSG_OF_SHARE : 0));
        msg->expiration_ms = -1;
        rig_deliver(rig, MQTT_OWN_QUEUE, 1 + gone, gone, 0, msg);
        static const char *const said[] = {"publish/4 \\x00\\x01t\\x00\\x01\\x02\\x0b\\x09s\n",
                                           "publish/4 \\x00\\x01t\\x00\\x02\\x00s\n",
                                           "publish/2 \\x00\\x01t\\x00\\x03\\x02\\x0b\\x08s\n"};
        rig_said(rig, said[gone]);
    }
    rig_free(rig);
}

static void test_what_the_client_takes(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    rig_open(rig);
    union mqtt_fields f = {
        .connect = {.protocol = slice_str("MQTT"), .version = MQTT_5, .client_id = slice_str("c"), .clean = true}};
    MQTT_SET(&f.connect.props, maximum_packet_size, 40);
    MQTT_SET(&f.connect.props, topic_alias_maximum, 1);
    rig_packet(rig, MQTT_connect, MQTT_5, &f);
    rig_settle(rig);
    subscribe(rig, "#", 1, 0);
    rig_deliver(rig, MQTT_OWN_QUEUE, 1, 0, 0, rig_message(rig, "topic", 1, false, "0123456789012345678901234567890"));
    rig_said(rig, "");
    rig_asked(rig, "ACK number=1 flags=0 origin=0\n"); /* as if it had been delivered */
    rig_deliver(rig, MQTT_OWN_QUEUE, 2, 1, 0, rig_message(rig, "topic", 1, false, "1"));
    rig_deliver(rig, MQTT_OWN_QUEUE, 3, 2, 0, rig_message(rig, "topic", 1, false, "2"));
    rig_deliver(rig, MQTT_OWN_QUEUE, 4, 3, 0, rig_message(rig, "other", 1, false, "3"));
    rig_said(rig, "publish/2 \\x00\\x05topic\\x00\\x02\\x03#\\x00\\x011\n"
                  "publish/2 \\x00\\x00\\x00\\x03\\x03#\\x00\\x012\n"
                  "publish/2 \\x00\\x05other\\x00\\x04\\x003\n");
    rig_free(rig);
}

/* An alias makes the packet longer, and the length of its length. */
static void test_no_room_for_an_alias(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    rig_open(rig);
    union mqtt_fields f = {
        .connect = {.protocol = slice_str("MQTT"), .version = MQTT_5, .client_id = slice_str("c"), .clean = true}};
    MQTT_SET(&f.connect.props, maximum_packet_size, 131);
    MQTT_SET(&f.connect.props, topic_alias_maximum, 1);
    rig_packet(rig, MQTT_connect, MQTT_5, &f);
    rig_settle(rig);
    subscribe(rig, "#", 1, 0);
    char body[121], want[200];
    memset(body, 'x', 120);
    body[120] = '\0';
    rig_deliver(rig, MQTT_OWN_QUEUE, 1, 0, 0, rig_message(rig, "t", 1, false, body));
    snprintf(want, sizeof want, "publish/2 \\x00\\x01t\\x00\\x01\\x00%s\n", body);
    rig_said(rig, want);
    rig_free(rig);
}

/* What is too large for the client costs no credit for ever: nothing is written, so nothing will drain. */
static void test_credit_of_what_is_too_large(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    rig_open(rig);
    union mqtt_fields f = {
        .connect = {.protocol = slice_str("MQTT"), .version = MQTT_5, .client_id = slice_str("c"), .clean = true}};
    MQTT_SET(&f.connect.props, maximum_packet_size, 1000);
    rig_packet(rig, MQTT_connect, MQTT_5, &f);
    rig_settle(rig);
    subscribe(rig, "#", 1, 0);
    char *body = calloc(1, 100001);
    memset(body, 'x', 100000);
    rig_deliver(rig, MQTT_OWN_QUEUE, 1, 0, 0, rig_message(rig, "t", 1, false, body));
    rig_said(rig, "");
    assert_non_null(strstr(rig->commands, "CREDIT number=100"));
    rig_clear(rig);
    struct effect *e = rig_effect(rig, EFF_RETAINED, 0);
    e->consumer = HANDLE(9);
    e->msg = rig_message(rig, "t", 0, false, body);
    ring_publish(&rig->port.effects);
    rig_said(rig, "");
    assert_non_null(strstr(rig->commands, "CREDIT number=100"));
    free(body);
    rig_free(rig);
}

/* ---- SCRAM ---- */

static void auth(struct rig *rig, uint8_t reason, const char *method, const char *data)
{
    union mqtt_fields f = {.end = {.reason = reason}};
    MQTT_SET(&f.end.props, auth_method, slice_str(method));
    if (data)
        MQTT_SET(&f.end.props, auth_data, slice_str(data));
    rig_packet(rig, MQTT_auth, MQTT_5, &f);
}

/* The server's message of an AUTH that was said, as text. */
static struct slice challenge_in(struct rig *rig, char *room)
{
    rig_settle(rig);
    const char *at = strstr(rig->said, "auth/0 \\x18"), *from = at ? strstr(at, "r=") : NULL;
    const char *to = from ? strchr(from, '\n') : NULL;
    if (!to)
        fail_msg("no challenge: %s", rig->said);
    memcpy(room, from, (size_t)(to - from));
    struct slice said = slice_of((uint8_t *)room, (size_t)(to - from));
    rig_clear(rig);
    return said;
}

static struct rig *rig_with_keys(enum scram_hash hash, uint8_t *room)
{
    struct rig *rig = rig_new();
    struct scram_keys keys = {.hash = hash, .iterations = 4096, .salt_len = 16};
    assert_true(scram_keys_make(&keys, slice_str("secret")));
    memset(room, 'n', SCRAM_NONCE);
    rig->keys = slice_of(room, SCRAM_NONCE + scram_keys_print(&keys, (char *)room + SCRAM_NONCE));
    rig_open(rig);
    return rig;
}

static void connect_by(struct rig *rig, struct scram_client *c, const char *user)
{
    union mqtt_fields f = {
        .connect = {.protocol = slice_str("MQTT"), .version = MQTT_5, .client_id = slice_str("c"), .clean = true}};
    scram_client_first(c, "client-nonce");
    MQTT_SET(&f.connect.props, auth_method, slice_str(scram_name(c->hash)));
    MQTT_SET(&f.connect.props, auth_data, slice_str(c->first));
    if (user) {
        f.connect.has_user = true;
        f.connect.user = slice_str(user);
    }
    rig_packet(rig, MQTT_connect, MQTT_5, &f);
}

static void test_scram(void **state)
{
    (void)state;
    for (unsigned hash = 0; hash < SCRAM_HASHES; hash++) {
        uint8_t keys[SCRAM_NONCE + SCRAM_TEXT_MAX];
        char room[600];
        struct scram_client c = {.hash = (enum scram_hash)hash, .header = "n,,", .name = "anna", .password = "secret"};
        const char *name = scram_name(c.hash);
        struct rig *rig = rig_with_keys(c.hash, keys);
        connect_by(rig, &c, "v:ignored");
        scram_client_final(&c, challenge_in(rig, room));
        assert_int_equal(rig_mqtt(rig)->state, MQTT_IS_PROVING);
        auth(rig, MQTT_R_continue_authentication, name, c.last);
        rig_settle(rig);
        assert_non_null(strstr(rig->said, "connack/0 \\x00\\x00"));
        assert_non_null(strstr(rig->said, name));
        assert_non_null(strstr(rig->said, "v="));
        assert_non_null(strstr(rig->commands, "LOGIN name=anna other=SCRAM-SHA-"));
        assert_non_null(strstr(rig->commands, "ENTER name=v "));
        assert_null(rig_mqtt(rig)->scram);
        rig_clear(rig);
        for (unsigned i = 0; i < 2; i++) { /* once more, and again */
            scram_client_first(&c, "other-nonce");
            auth(rig, MQTT_R_reauthenticate, name, c.first);
            scram_client_final(&c, challenge_in(rig, room));
            auth(rig, MQTT_R_continue_authentication, name, c.last);
            rig_settle(rig);
            assert_true(strncmp(rig->said, "auth/0 \\x00", 11) == 0);
            assert_non_null(strstr(rig->said, "v="));
            assert_int_equal(rig_mqtt(rig)->state, MQTT_IS_READY);
            rig_clear(rig);
        }
        auth(rig, MQTT_R_continue_authentication, name, c.last); /* of nothing */
        rig_said(rig, "disconnect/0 \\x82\n");
        assert_true(rig->closed);
        rig_free(rig);
    }
}

/* Who does not prove it is told no more than that, wherever in the exchange it goes wrong. */
static void test_scram_refused(void **state)
{
    (void)state;
    for (unsigned way = 0; way < 9; way++) {
        static const char *const said[] = {
            "connack/0 \\x00\\x87\\x00\n", "connack/0 \\x00\\x87\\x00\n", "connack/0 \\x00\\x82\\x00\n",
            "connack/0 \\x00\\x82\\x00\n", "connack/0 \\x00\\x82\\x00\n", "",
            "disconnect/0 \\x87\n",        "disconnect/0 \\x82\n",        "disconnect/0 \\x82\n"};
        uint8_t keys[SCRAM_NONCE + SCRAM_TEXT_MAX];
        char room[600];
        struct scram_client c = {
            .hash = SCRAM_SHA256, .header = "n,,", .name = "anna", .password = way == 0 ? "wrong" : "secret"};
        struct rig *rig = rig_with_keys(c.hash, keys);
        connect_by(rig, &c, NULL);
        scram_client_final(&c, challenge_in(rig, room));
        if (way == 1)
            auth(rig, MQTT_R_continue_authentication, "SCRAM-SHA-256", NULL);
        else if (way == 2)
            auth(rig, MQTT_R_continue_authentication, "SCRAM-SHA-512", c.last);
        else if (way == 3)
            auth(rig, MQTT_R_reauthenticate, "SCRAM-SHA-256", c.first);
        else if (way == 4)
            RIG_BYTES(rig, "\xc0\0");
        else if (way == 5)
            RIG_BYTES(rig, "\xe0\0");
        else
            auth(rig, MQTT_R_continue_authentication, "SCRAM-SHA-256", c.last);
        rig_settle(rig);
        if (way > 5) {
            assert_int_equal(rig_mqtt(rig)->state, MQTT_IS_READY);
            rig_clear(rig);
            scram_client_first(&c, "other-nonce");
            auth(rig, MQTT_R_reauthenticate, "SCRAM-SHA-256", way == 6 ? "n,,n=" : c.first);
        }
        if (way == 7) /* in the middle of it */
            auth(rig, MQTT_R_reauthenticate, "SCRAM-SHA-256", c.first);
        if (way == 8)
            auth(rig, MQTT_R_continue_authentication, "SCRAM-SHA-512", c.last);
        rig_settle(rig);
        const char *last = rig->said;
        if (way > 6 && strncmp(last, "auth/", 5) == 0)
            last = strchr(last, '\n') + 1;
        assert_string_equal(last, said[way]);
        assert_true(rig->closed);
        rig_free(rig);
    }
}

/* ---- endings ---- */

static void test_keep_alive(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    rig_open(rig);
    RIG_BYTES(rig, "\x10\x0e\0\4MQTT\5\2\0\x0a\0\0\1a");
    rig_settle(rig);
    rig_clear(rig);
    rig->now += 14 * NS_PER_S;
    RIG_BYTES(rig, "\xc0\0");
    rig_said(rig, "pingresp/0 \n");
    rig->now += 14 * NS_PER_S;
    rig_said(rig, "");
    rig->now += 2 * NS_PER_S;
    rig_said(rig, "disconnect/0 \\x8d\n");
    rig_asked(rig, "SESSION_CLOSE number=0 flags=0 origin=0\n");
    rig_open(rig); /* and who never says anything */
    rig->now += 11 * NS_PER_S;
    rig_said(rig, "");
    assert_true(rig->closed);
    rig_free(rig);
}

static void test_disconnect(void **state)
{
    (void)state;
    struct rig *rig = rig_ready(MQTT_5);
    RIG_BYTES(rig, "\xe0\7\4\5\x11\0\0\0\5"); /* no expiry before: it must not get one */
    rig_said(rig, "disconnect/0 \\x82\n");
    rig_asked(rig, "SESSION_CLOSE number=0 flags=0 origin=0\n");
    rig_open(rig);
    union mqtt_fields f = {.connect = {.protocol = slice_str("MQTT"), .version = MQTT_5, .client_id = slice_str("c")}};
    MQTT_SET(&f.connect.props, session_expiry, 9);
    rig_packet(rig, MQTT_connect, MQTT_5, &f);
    rig_settle(rig);
    rig_clear(rig);
    RIG_BYTES(rig, "\xe0\7\4\5\x11\0\0\0\5\x30\x04\0\1a\0"); /* with the will; and what comes behind is nothing */
    rig_said(rig, "");
    rig_asked(rig, "MQTT_DETACH number=5 flags=400000 origin=70000\nSESSION_CLOSE number=0 flags=0 origin=0\n");
    rig_free(rig);
}

static void test_kicked(void **state)
{
    (void)state;
    struct rig *rig = rig_ready(MQTT_5);
    struct effect *e = rig_effect(rig, EFF_SESSION_KICK, 0);
    e->answer = rig_answer(ERR_TAKEN_OVER, "", (struct slice){0}, 0);
    ring_publish(&rig->port.effects);
    rig_said(rig, "disconnect/0 \\x8e\n");
    rig_free(rig);
    rig = rig_ready(MQTT_3_1_1);
    rig->engine->ops->shutdown(rig->engine, "shutdown");
    rig_said(rig, "");
    assert_true(rig->closed);
    rig_free(rig);
    rig = rig_ready(MQTT_5);
    RIG_BYTES(rig, "\x10\x0e\0\4MQTT\5\2\0\x0a\0\0\1a"); /* a second CONNECT */
    rig_said(rig, "disconnect/0 \\x82\n");
    rig_free(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_connect),
        cmocka_unit_test(test_connect_with_everything),
        cmocka_unit_test(test_connect_refused),
        cmocka_unit_test(test_visitors),
        cmocka_unit_test(test_session_comes_back),
        cmocka_unit_test(test_publish),
        cmocka_unit_test(test_publish_5),
        cmocka_unit_test(test_publish_refused),
        cmocka_unit_test(test_receive_maximum),
        cmocka_unit_test(test_flow),
        cmocka_unit_test(test_subscribe),
        cmocka_unit_test(test_subscribe_3),
        cmocka_unit_test(test_many_subscriptions),
        cmocka_unit_test(test_many_patterns),
        cmocka_unit_test(test_subscriptions_have_a_limit),
        cmocka_unit_test(test_fanout),
        cmocka_unit_test(test_from_the_queue),
        cmocka_unit_test(test_sent_again_without_subscription),
        cmocka_unit_test(test_ids_in_use),
        cmocka_unit_test(test_shared_and_retained),
        cmocka_unit_test(test_a_shared_message_keeps_its_id),
        cmocka_unit_test(test_a_shared_message_of_the_own_queue),
        cmocka_unit_test(test_what_the_client_takes),
        cmocka_unit_test(test_flow_of_what_is_refused),
        cmocka_unit_test(test_fanout_of_what_is_made_anew),
        cmocka_unit_test(test_no_room_for_an_alias),
        cmocka_unit_test(test_credit_of_what_is_too_large),
        cmocka_unit_test(test_scram),
        cmocka_unit_test(test_scram_refused),
        cmocka_unit_test(test_keep_alive),
        cmocka_unit_test(test_disconnect),
        cmocka_unit_test(test_kicked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
