/* The connection as a client sees it, in front of the real core: login, every command, every error, receipts, flow, time,
 * endings, and memory that is refused. */
#include "proto/stomp/rig_test.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define M "SESSION"

static void says(struct rig *rig, int i, const char *want)
{
    const char *got = rig_said(rig, i);
    if (strcmp(got, want) != 0)
        fail_msg("peer %d:\n%s\ninstead of\n%s", i, got, want);
    rig->peers[i].said[0] = '\0';
}

static void has(struct rig *rig, int i, const char *part)
{
    const char *got = rig_said(rig, i);
    if (!strstr(got, part))
        fail_msg("'%s' is not in:\n%s", part, got);
    rig->peers[i].said[0] = '\0';
}

static void start(struct rig *rig, const char *version)
{
    assert_true(rig_init(rig));
    assert_true(rig_connect(rig, 0, version));
}

/* ---- login ---- */

#define ERR(message) "ERROR|message:" message "|content-type:text/plain|version:1.0,1.1,1.2|"

static const struct login_row {
    const char *frame;
    bool far, closes;
    const char *want;
} logins[] = {
    {"CONNECT\n\n", false, false,
     "CONNECTED|version:1.0|session:SESSION|heart-beat:0,0|server:Millrace/" MILLRACE_VERSION "||\n"},
    {"STOMP\naccept-version:1.1,1.2\nhost:/\n\n", false, false,
     "CONNECTED|version:1.2|session:SESSION|heart-beat:0,0|server:Millrace/" MILLRACE_VERSION "||\n"},
    {"CONNECT\naccept-version: 1.1 , 9.9\nlogin:guest\npasscode:guest\nheart-beat:3000,50\n\n", false, true,
     ERR("Version mismatch") "content-length:36||Supported versions are 1.0,1.1,1.2|\n"},
    {"CONNECT\naccept-version:1.0,1.1\nlogin:guest\npasscode:guest\nheart-beat:3000,50\n\n", false, false,
     "CONNECTED|version:1.1|session:SESSION|heart-beat:100,3000|server:Millrace/" MILLRACE_VERSION "||\n"},
    {"CONNECT\naccept-version:2.0\n\n", false, true,
     ERR("Version mismatch") "content-length:36||Supported versions are 1.0,1.1,1.2|\n"},
    {"CONNECT\nlogin:guest\npasscode:wrong\n\n", false, true,
     ERR("Bad CONNECT") "content-length:33||Access refused for user 'guest'|\n"},
    {"CONNECT\nlogin:nobody\npasscode:guest\n\n", false, true,
     ERR("Bad CONNECT") "content-length:34||Access refused for user 'nobody'|\n"},
    {"CONNECT\nlogin:guest\n\n", false, true,
     ERR("Bad CONNECT") "content-length:33||Access refused for user 'guest'|\n"},
    {"CONNECT\nlogin:guest\npasscode:guest\n\n", true, true,
     ERR("Bad CONNECT") "content-length:33||Access refused for user 'guest'|\n"},
    {"CONNECT\n\n", true, true, ERR("Bad CONNECT") "content-length:36||Missing login or passcode header(s)\n"},
    {"CONNECT\naccept-version:1.1\nhost:nowhere\n\n", false, true,
     ERR("Bad CONNECT") "content-length:37||Virtual host 'nowhere' access denied\n"},
    {"CONNECT\nheart-beat:1\n\n", false, true,
     ERR("Bad CONNECT") "content-length:76||'heart-beat' must be two numbers of milliseconds with a comma between "
                        "them|\n"},
    {"SEND\ndestination:/queue/a\n\nx", false, true,
     ERR("Illegal command") "content-length:35||You must log in using CONNECT first\n"},
    {"NONSENSE\n\n", false, true, ERR("Illegal command") "content-length:35||You must log in using CONNECT first\n"},
    {"DISCONNECT\nreceipt:r\n\n", false, true,
     ERR("Illegal command") "receipt-id:r|content-length:35||You must log in using CONNECT first\n"},
    {"CONNECT\nno colon\n\n", false, true,
     ERR("Bad frame") "content-length:57||The frame cannot be read: a header line without a colon|\n"},
};

/* content-length is what the frame's text says: rows need not count. */
static void without_length(char *text)
{
    char *at = strstr(text, "content-length:");
    if (!at)
        return;
    char *end = strchr(at, '|');
    memmove(at, end + 1, strlen(end + 1) + 1);
}

static void login_rows(void **state)
{
    (void)state;
    for (const struct login_row *row = logins; row < logins + ARRAY_LEN(logins); row++) {
        struct rig rig;
        char want[1024], got[1024];
        assert_true(rig_init(&rig));
        assert_true(rig_open_from(&rig, 0, !row->far));
        rig_frame(&rig, 0, row->frame);
        snprintf(want, sizeof want, "%s", row->want);
        snprintf(got, sizeof got, "%s", rig_said(&rig, 0));
        without_length(want);
        without_length(got);
        if (strcmp(got, want) != 0)
            fail_msg("%s\nsays\n%sinstead of\n%s", row->frame, got, want);
        assert_int_equal(rig.peers[0].engine == NULL, row->closes);
        rig_fini(&rig);
    }
}

static void login_byte_by_byte(void **state)
{
    (void)state;
    struct rig rig;
    const char *frame = "CONNECT\r\naccept-version:1.2\r\nlogin:guest\r\npasscode:guest\r\n\r\n";
    assert_true(rig_init(&rig));
    assert_true(rig_open(&rig, 0));
    for (size_t i = 0; i <= strlen(frame); i++) {
        rig_bytes(&rig, 0, frame + i, 1);
        rig_settle(&rig);
    }
    has(&rig, 0, "CONNECTED|version:1.2|");
    rig_fini(&rig);
}

static void early_limits(void **state)
{
    (void)state;
    struct rig rig;
    static char frame[20000] = "CONNECT\nlogin:";
    assert_true(rig_init(&rig));
    assert_true(rig_open(&rig, 0));
    assert_true(rig.peers[0].engine->in_max <= 2 * STOMP_HEAD_EARLY);
    memset(frame + 14, 'a', 9000);
    rig_bytes(&rig, 0, frame, 9014);
    has(&rig, 0, "the headers are larger than they may be");
    assert_null(rig.peers[0].engine);
    rig_fini(&rig);
}

static void who_does_not_log_in_goes(void **state)
{
    (void)state;
    struct rig rig;
    assert_true(rig_init(&rig));
    assert_true(rig_open(&rig, 0));
    rig_bytes(&rig, 0, "\n", 1);
    rig_settle(&rig);
    struct engine *engine = rig.peers[0].engine;
    rig.now += 9999 * NS_PER_MS;
    assert_int_equal(engine->ops->tick(engine, rig.now), rig.now + NS_PER_MS);
    rig.now += NS_PER_MS;
    engine->ops->tick(engine, rig.now);
    says(&rig, 0, "");
    assert_null(rig.peers[0].engine);
    rig_fini(&rig);
}

static void nobody_is_anonymous(void **state)
{
    (void)state;
    struct rig rig;
    assert_true(rig_init(&rig));
    rig.options.anonymous = "";
    assert_true(rig_open(&rig, 0));
    rig_frame(&rig, 0, "CONNECT\n\n");
    has(&rig, 0, "Missing login or passcode header(s)");
    rig_fini(&rig);
}

static void a_visitor_needs_a_login(void **state)
{
    (void)state;
    struct rig rig;
    assert_true(rig_init(&rig));
    assert_true(rig_open(&rig, 0));
    rig.peers[0].engine->visiting = true;
    rig_frame(&rig, 0, "CONNECT\n\n");
    has(&rig, 0, "Missing login or passcode header(s)");
    assert_true(rig_open(&rig, 1));
    rig.peers[1].engine->visiting = true;
    rig_frame(&rig, 1, "CONNECT\nlogin:guest\npasscode:guest\n\n");
    has(&rig, 1, "CONNECTED");
    rig_fini(&rig);
}

/* ---- messages ---- */

static void send_and_subscribe(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig, "1.2");
    rig_frame(&rig, 0, "SUBSCRIBE\nid:1\ndestination:/queue/a\nreceipt:s\n\n");
    says(&rig, 0, "RECEIPT|receipt-id:s||\n");
    rig_frame(&rig, 0, "SEND\ndestination:/queue/a\nfoo:b\\cr\n\nhello");
    says(&rig, 0,
         "MESSAGE|subscription:1|destination:/queue/a|message-id:T_1@@" M "@@1|redelivered:false|foo:b\\cr|"
         "content-length:5||hello\n");
    rig_frame(&rig, 0, "SEND\ndestination:a\n\n");
    says(&rig, 0, "MESSAGE|subscription:1|destination:/queue/a|message-id:T_1@@" M "@@2|redelivered:false||\n");
    rig_fini(&rig);
}

static void properties_both_ways(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig, "1.1");
    rig_frame(&rig, 0, "SUBSCRIBE\nid:1\ndestination:/queue/p\nack:client\n\n");
    rig_frame(&rig, 0,
              "SEND\ndestination:/queue/p\ncontent-type:a/b\ncontent-encoding:gzip\npersistent:true\npriority:300\n"
              "correlation-id:c\nreply-to:/queue/r\nexpiration:60000\namqp-message-id:m\ntimestamp:12\ntype:t\n"
              "user-id:guest\napp-id:app\nmine:1\nreceipt:r\ncontent-length:3\n\na\\b");
    says(&rig, 0,
         "RECEIPT|receipt-id:r||\n"
         "MESSAGE|subscription:1|destination:/queue/p|message-id:T_1@@" M "@@1|redelivered:false|content-type:a/b|"
         "content-encoding:gzip|persistent:true|priority:255|correlation-id:c|reply-to:/queue/r|expiration:60000|"
         "amqp-message-id:m|timestamp:12|type:t|user-id:guest|app-id:app|mine:1|content-length:3||a\\b\n");
    rig_fini(&rig);
}

static void ids_by_version(void **state)
{
    (void)state;
    static const char *const versions[] = {"1.0", "1.1", "1.2"};
    for (size_t i = 0; i < ARRAY_LEN(versions); i++) {
        struct rig rig;
        char want[256];
        start(&rig, versions[i]);
        rig_frame(&rig, 0, "SUBSCRIBE\nid:a:b\ndestination:/queue/a\nack:client-individual\n\n");
        rig_frame(&rig, 0, "SUBSCRIBE\ndestination:/queue/b\nack:client\n\n");
        rig_frame(&rig, 0, "SEND\ndestination:/queue/a\n\n");
        rig_frame(&rig, 0, "SEND\ndestination:/queue/b\n\n");
        const char *colon = i == 0 ? ":" : "\\c";
        snprintf(want, sizeof want,
                 "|subscription:a%sb|destination:/queue/a|message-id:T_a%sb@@" M "@@1|redelivered:false%s%s%s||", colon,
                 colon, i == 2 ? "|ack:T_a" : "", i == 2 ? colon : "", i == 2 ? "b@@" M "@@1" : "");
        assert_non_null(strstr(rig_said(&rig, 0), want));
        snprintf(want, sizeof want,
                 "MESSAGE|destination:/queue/b|message-id:Q_/queue/b@@" M "@@2|redelivered:false%s||",
                 i == 2 ? "|ack:Q_/queue/b@@" M "@@2" : "");
        has(&rig, 0, want);
        rig_fini(&rig);
    }
}

/* An ACK for the message that was shown last, by the version's header. */
static void ack(struct rig *rig, int i, const char *command, const char *id, const char *more)
{
    char frame[512];
    struct stomp *s = rig_stomp(rig, i);
    const char *at = strstr(id, M);
    snprintf(frame, sizeof frame, "%s\n%s:%.*s%s%s\n%s\n", command, s->version == STOMP_12 ? "id" : "message-id",
             (int)(at ? at - id : (long)strlen(id)), id, at ? s->session_id : "", at ? at + strlen(M) : "", more);
    rig_frame(rig, i, frame);
}

static uint64_t left(struct rig *rig)
{
    struct broker_totals totals;
    rig_settle(rig);
    broker_totals(rig->broker, &totals);
    return totals.messages;
}

static void send_many(struct rig *rig, const char *queue, unsigned count)
{
    char frame[128];
    for (unsigned n = 1; n <= count; n++) {
        snprintf(frame, sizeof frame, "SEND\ndestination:%s\n\n%u", queue, n);
        rig_frame(rig, 0, frame);
    }
    rig_settle(rig);
}

static void ack_modes(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig, "1.2");
    rig_frame(&rig, 0, "SUBSCRIBE\nid:c\ndestination:/queue/c\nack:client\n\n");
    rig_frame(&rig, 0, "SUBSCRIBE\nid:i\ndestination:/queue/i\nack:client-individual\n\n");
    rig_frame(&rig, 0, "SUBSCRIBE\nid:a\ndestination:/queue/x\nack:auto\n\n");
    rig_settle(&rig);
    send_many(&rig, "/queue/c", 5); /* tags 1 to 5 */
    send_many(&rig, "/queue/i", 3); /* 6 to 8 */
    send_many(&rig, "/queue/x", 3);
    assert_int_equal(left(&rig), 8);
    ack(&rig, 0, "ACK", "T_i@@" M "@@7", "");
    assert_int_equal(left(&rig), 7);
    ack(&rig, 0, "ACK", "T_c@@" M "@@3", "receipt:done\n");
    has(&rig, 0, "RECEIPT|receipt-id:done||\n");
    assert_int_equal(left(&rig), 4);
    send_many(&rig, "/queue/c", 1);            /* 12 */
    ack(&rig, 0, "ACK", "T_c@@" M "@@12", ""); /* cumulative within its subscription: 6 and 8 stay */
    assert_int_equal(left(&rig), 2);
    rig_clear(&rig);
    ack(&rig, 0, "NACK", "T_i@@" M "@@8", "");
    says(&rig, 0,
         "MESSAGE|subscription:i|destination:/queue/i|message-id:T_i@@" M "@@13|redelivered:true|ack:T_i@@" M
         "@@13|content-length:1||3\n");
    ack(&rig, 0, "NACK", "T_i@@" M "@@13", "requeue:false\n");
    assert_int_equal(left(&rig), 1);
    says(&rig, 0, "");
    rig_fini(&rig);
}

/* While one subscription alone acknowledges, the core is told `multiple`. */
static void cumulative_alone(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig, "1.1");
    rig_frame(&rig, 0, "SUBSCRIBE\nid:c\ndestination:/queue/c\nack:client\n\n");
    send_many(&rig, "/queue/c", 200);
    ack(&rig, 0, "ACK", "T_c@@" M "@@150", "");
    assert_int_equal(left(&rig), 50);
    ack(&rig, 0, "NACK", "T_c@@" M "@@200", "requeue:false\nreceipt:n\n");
    has(&rig, 0, "RECEIPT|receipt-id:n||\n");
    assert_int_equal(left(&rig), 0);
    rig_fini(&rig);
}

static void prefetch(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig, "1.2");
    send_many(&rig, "/queue/a", 5);
    send_many(&rig, "/queue/b", 5);
    rig_frame(&rig, 0, "SUBSCRIBE\nid:a\ndestination:/queue/a\nack:client\nprefetch-count:2\n\n");
    rig_frame(&rig, 0, "SUBSCRIBE\nid:b\ndestination:/queue/b\nack:client\n\n");
    unsigned a = 0, b = 0;
    for (const char *at = rig_said(&rig, 0); (at = strstr(at, "subscription:")); at += 13)
        at[13] == 'a' ? a++ : b++;
    assert_int_equal(a, 2);
    assert_int_equal(b, 5);
    rig_fini(&rig);
}

static void topics_and_exchanges(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig, "1.2");
    assert_true(rig_connect(&rig, 1, "1.2"));
    rig_frame(&rig, 0, "SUBSCRIBE\nid:1\ndestination:/topic/a.*\n\n");
    rig_frame(&rig, 1, "SUBSCRIBE\nid:2\ndestination:/exchange/amq.topic/#\n\n");
    rig_frame(&rig, 1, "SUBSCRIBE\nid:3\ndestination:/exchange/amq.fanout\n\n");
    rig_settle(&rig);
    rig_frame(&rig, 0, "SEND\ndestination:/topic/a.b\n\n1");
    rig_frame(&rig, 0, "SEND\ndestination:/exchange/amq.topic/a\n\n2");
    rig_frame(&rig, 0, "SEND\ndestination:/exchange/amq.fanout\n\n3");
    rig_frame(&rig, 0, "SEND\ndestination:/exchange/amq.fanout/k%2F\n\n4");
    says(&rig, 0,
         "MESSAGE|subscription:1|destination:/topic/a.b|message-id:T_1@@" M "@@1|redelivered:false|"
         "content-length:1||1\n");
    says(&rig, 1,
         "MESSAGE|subscription:2|destination:/topic/a.b|message-id:T_2@@" M
         "@@1|redelivered:false|content-length:1||1\n"
         "MESSAGE|subscription:2|destination:/topic/a|message-id:T_2@@" M "@@2|redelivered:false|content-length:1||2\n"
         "MESSAGE|subscription:3|destination:/exchange/amq.fanout|message-id:T_3@@" M
         "@@3|redelivered:false|content-length:1||3\n"
         "MESSAGE|subscription:3|destination:/exchange/amq.fanout/k%2F|message-id:T_3@@" M
         "@@4|redelivered:false|content-length:1||4\n");
    struct broker_totals totals;
    broker_totals(rig.broker, &totals);
    assert_int_equal(totals.queues, 3);
    rig_frame(&rig, 1, "UNSUBSCRIBE\nid:2\nreceipt:u\n\n");
    says(&rig, 1, "RECEIPT|receipt-id:u||\n");
    rig_frame(&rig, 0, "SEND\ndestination:/topic/a.b\n\n5");
    has(&rig, 0, "||5\n");
    says(&rig, 1, "");
    broker_totals(rig.broker, &totals);
    assert_int_equal(totals.queues, 2);
    rig_fini(&rig);
}

/* RabbitMQ gives the queue this name, so a subscription that was made there goes on here. */
static void durable_subscription(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig, "1.2");
    rig_frame(&rig, 0,
              "SUBSCRIBE\nid:sub\ndestination:/topic/t\ndurable:true\nauto-delete:false\nack:client\nreceipt:1\n\n");
    says(&rig, 0, "RECEIPT|receipt-id:1||\n");
    rig_close(&rig, 0);
    assert_true(rig_connect(&rig, 1, "1.2"));
    rig_frame(&rig, 1, "SEND\ndestination:/topic/t\npersistent:true\nreceipt:2\n\nmeanwhile");
    says(&rig, 1, "RECEIPT|receipt-id:2||\n");
    rig_frame(&rig, 1, "SUBSCRIBE\nid:other\ndestination:/amq/queue/stomp-subscription-U-sr0m1XMvWOgyvAeMwg2A\n\n");
    has(&rig, 1, "|destination:/topic/t|");
    rig_frame(&rig, 1, "UNSUBSCRIBE\nid:other\n\n");
    rig_frame(&rig, 1, "SUBSCRIBE\nid:sub\ndestination:/topic/t\ndurable:true\nauto-delete:false\n\n");
    rig_frame(&rig, 1, "UNSUBSCRIBE\nid:sub\ndurable:true\nreceipt:3\n\n");
    says(&rig, 1, "RECEIPT|receipt-id:3||\n");
    struct broker_totals totals;
    broker_totals(rig.broker, &totals);
    assert_int_equal(totals.queues, 0);
    rig_fini(&rig);
}

static void temp_queues(void **state)
{
    (void)state;
    struct rig rig;
    char frame[256], queue[64];
    start(&rig, "1.2");
    assert_true(rig_connect(&rig, 1, "1.2"));
    rig_frame(&rig, 0, "SUBSCRIBE\nid:s\ndestination:/queue/service\n\n");
    rig_settle(&rig);
    rig_frame(&rig, 1, "SEND\ndestination:/queue/service\nreply-to:/temp-queue/mine\n\nping");
    rig_frame(&rig, 1, "SEND\ndestination:/queue/service\nreply-to:/temp-queue/mine\n\nagain");
    const char *said = rig_said(&rig, 0), *at = strstr(said, "reply-to:/reply-queue/"),
               *end = at ? strchr(at, '|') : NULL;
    assert_non_null(end);
    snprintf(queue, sizeof queue, "%.*s", (int)(end - at - 22), at + 22);
    assert_non_null(strstr(strstr(end, "reply-to:"), queue)); /* the same queue */
    snprintf(frame, sizeof frame, "SEND\ndestination:/reply-queue/%s\n\npong", queue);
    rig_frame(&rig, 0, frame);
    has(&rig, 1, "MESSAGE|subscription:/temp-queue/mine|destination:/queue/stomp-temp-");
    rig_close(&rig, 1);
    struct broker_totals totals;
    rig_settle(&rig);
    broker_totals(rig.broker, &totals);
    assert_int_equal(totals.queues, 1);
    rig_fini(&rig);
}

static void declared_as_asked(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig, "1.2");
    rig_frame(&rig, 0, "SEND\ndestination:/queue/d\nx-max-length:1\nx-overflow:drop-head\n\n1");
    rig_frame(&rig, 0, "SEND\ndestination:/queue/d\n\n2");
    assert_int_equal(left(&rig), 1);
    assert_true(rig_connect(&rig, 1, "1.2"));
    rig_frame(&rig, 1, "SUBSCRIBE\nid:1\ndestination:/queue/d\nreceipt:r\n\n");
    has(&rig, 1, "ERROR|message:precondition_failed|content-type:text/plain|version:1.0,1.1,1.2|");
    assert_null(rig.peers[1].engine);
    rig_frame(&rig, 0, "SUBSCRIBE\nid:1\ndestination:/queue/gone\ndurable:false\nreceipt:r\n\n");
    has(&rig, 0, "RECEIPT|");
    struct broker_totals totals;
    broker_totals(rig.broker, &totals);
    assert_int_equal(totals.queues, 2);
    rig_close(&rig, 0);
    rig_settle(&rig);
    broker_totals(rig.broker, &totals);
    assert_int_equal(totals.queues, 1);
    rig_fini(&rig);
}

/* ---- errors ---- */

static const struct error_row_ {
    const char *version;
    const char *before, *frame;
    const char *want; /* without content-length */
    bool goes_on;     /* where the options say so */
} errors[] = {
    {"1.2", NULL, "FOO\nreceipt:r\n\n", ERR("Bad command") "receipt-id:r||Could not interpret command \"FOO\"|\n",
     true},
    {"1.0", NULL, "NACK\nmessage-id:x\n\n", ERR("Bad command") "|Could not interpret command \"NACK\"|\n", true},
    {"1.2", NULL, "CONNECT\n\n", ERR("Illegal command") "|You are logged in already\n", true},
    {"1.2", NULL, "SEND\n\nx", ERR("Missing destination") "|\"SEND\" must include a 'destination' header|\n", true},
    {"1.2", NULL, "SUBSCRIBE\nid:1\n\n",
     ERR("Missing destination") "|\"SUBSCRIBE\" must include a 'destination' header|\n", true},
    {"1.2", NULL, "SEND\ndestination:/nowhere/x\n\n",
     ERR("Unknown destination") "|'/nowhere/x' is not a valid destination.|Valid destination types are: /temp-queue, "
                                "/exchange, /topic, /queue, /amq/queue, /reply-queue/.|\n",
     true},
    {"1.2", NULL, "SEND\ndestination:/temp-topic/x\n\n",
     ERR("Unknown destination") "|'/temp-topic/x' is not a valid destination.|Valid destination types are: "
                                "/temp-queue, "
                                "/exchange, /topic, /queue, /amq/queue, /reply-queue/.|\n",
     true},
    {"1.2", NULL, "SEND\ndestination:/queue/a/b\n\n",
     ERR("Invalid destination") "|'/a/b' is not a valid queue destination|\n", true},
    {"1.2", NULL, "SEND\ndestination:\n\n", ERR("Invalid destination") "|Destination cannot be blank\n", true},
    {"1.2", NULL, "SEND\ndestination:/temp-queue/x\n\n",
     ERR("Invalid destination") "|'/temp-queue/x' is not a valid destination for 'SEND'|\n", true},
    {"1.2", NULL, "SUBSCRIBE\nid:1\ndestination:/temp-queue/x\n\n",
     ERR("Invalid destination") "|'/temp-queue/x' is not a valid destination for 'SUBSCRIBE'|\n", true},
    {"1.2", NULL, "SEND\ndestination:/queue/a\nmessage-id:1\n\n",
     ERR("Invalid header") "|'message-id' is not allowed on 'SEND'.|\n", true},
    {"1.2", NULL, "SEND\ndestination:/queue/a\npriority:high\n\n",
     ERR("Invalid header") "|'priority' must be a number|\n", true},
    {"1.2", NULL, "SEND\ndestination:/queue/a\nx-max-length:many\n\n",
     ERR("Invalid header") "|'x-max-length' must be a number|\n", true},
    {"1.2", NULL, "SEND\ndestination:/queue/a\ntransaction:t\n\n",
     ERR("Bad transaction") "|Invalid transaction identifier: \"t\"|\n", true},
    {"1.2", NULL, "SEND\ndestination:/exchange/none/k\nreceipt:r\n\n",
     ERR("not_found") "receipt-id:r||NOT_FOUND - no exchange 'none' in vhost '/'\n", false},
    {"1.2", NULL, "SEND\ndestination:/queue/a\nexpiration:soon\n\n",
     ERR("precondition_failed") "|PRECONDITION_FAILED - invalid expiration 'soon': no_integer\n", false},
    {"1.2", NULL, "SEND\ndestination:/queue/a\nuser-id:me\n\n",
     ERR("precondition_failed") "|PRECONDITION_FAILED - user_id property set to 'me' but authenticated user was "
                                "'guest'\n",
     false},
    {"1.2", NULL, "SUBSCRIBE\nid:1\ndestination:/amq/queue/none\nreceipt:r\n\n",
     ERR("not_found") "receipt-id:r||NOT_FOUND - no queue 'none' in vhost '/'\n", false},
    {"1.2", NULL, "SUBSCRIBE\nid:1\ndestination:/exchange/none\n\n",
     ERR("not_found") "|NOT_FOUND - no exchange 'none' in vhost '/'\n", false},
    {"1.2", NULL, "SUBSCRIBE\ndestination:/topic/a\ndurable:true\n\n",
     ERR("Missing Header") "|Header 'id' is required for durable subscriptions\n", true},
    {"1.2", NULL, "UNSUBSCRIBE\ndestination:/topic/a\npersistent:true\n\n",
     ERR("Missing Header") "|Header 'id' is required for durable subscriptions\n", true},
    {"1.2", NULL, "SUBSCRIBE\nid:/temp-queue/1\ndestination:/queue/a\n\n",
     ERR("Invalid id") "|SUBSCRIBE 'id' may not start with /temp-queue/|\n", true},
    {"1.2", NULL, "SUBSCRIBE\nid:1\nack:never\ndestination:/queue/a\n\n",
     ERR("Invalid header") "|'ack' must be auto, client or client-individual|\n", true},
    {"1.2", NULL, "SUBSCRIBE\nid:1\nprefetch-count:x\ndestination:/queue/a\n\n",
     ERR("Invalid header") "|'prefetch-count' must be a number up to 65535|\n", true},
    {"1.2", "SUBSCRIBE\nid:1\ndestination:/queue/a\n\n", "SUBSCRIBE\nid:1\ndestination:/queue/b\n\n",
     ERR("Duplicated subscription identifier") "|A subscription identified by 'T_1' already exists.\n", false},
    {"1.2", NULL, "UNSUBSCRIBE\n\n",
     ERR("Missing destination or id") "|UNSUBSCRIBE must include a 'destination' or 'id' header\n", true},
    {"1.2", NULL, "UNSUBSCRIBE\nid:1\n\n",
     ERR("No subscription found") "|UNSUBSCRIBE must refer to an existing subscription.|Subscription to \"id='1'\" not "
                                  "found.|\n",
     true},
    {"1.2", NULL, "UNSUBSCRIBE\nid:/temp-queue/1\n\n",
     ERR("Invalid id") "|UNSUBSCRIBE 'id' may not start with /temp-queue/|\n", true},
    {"1.2", NULL, "ACK\n\n", ERR("Missing header") "|\"ACK\" must include the \"id\" header|\n", true},
    {"1.1", NULL, "NACK\n\n", ERR("Missing header") "|\"NACK\" must include the \"message-id\" header|\n", true},
    {"1.2", NULL, "ACK\nid:1\n\n", ERR("Invalid header") "|\"ACK\" must include a valid \"id\" header|\n", true},
    {"1.2", NULL, "ACK\nid:T_1@@s@@x\n\n", ERR("Invalid header") "|\"ACK\" must include a valid \"id\" header|\n",
     true},
    {"1.2", NULL, "ACK\nid:T_1@@s@@1\n\n",
     ERR("Subscription not found") "|Message with id \"T_1@@s@@1\" has no subscription\n", true},
    {"1.2", "SUBSCRIBE\nid:1\nack:client\ndestination:/queue/a\n\n", "ACK\nid:T_1@@s@@1\n\n",
     ERR("Message not found") "|Message with id \"T_1@@s@@1\" is not of this session\n", true},
    {"1.2", "SUBSCRIBE\nid:1\nack:client\ndestination:/queue/a\n\n", "ACK\nid:T_1@@SESSION@@7\n\n",
     ERR("precondition_failed") "|PRECONDITION_FAILED - unknown delivery tag 7\n", false},
    {"1.2", "SUBSCRIBE\nid:1\nack:client\ndestination:/queue/a\n\n", "ACK\nid:T_1@@SESSION@@7\nreceipt:r\n\n",
     ERR("precondition_failed") "|PRECONDITION_FAILED - unknown delivery tag 7\n", false},
    {"1.2", NULL, "BEGIN\n\n", ERR("Missing transaction") "|\"BEGIN\" must include a 'transaction' header|\n", true},
    {"1.2", NULL, "COMMIT\n\n", ERR("Missing transaction") "|\"COMMIT\" must include a 'transaction' header|\n", true},
    {"1.2", NULL, "ABORT\n\n", ERR("Missing transaction") "|\"ABORT\" must include a 'transaction' header|\n", true},
    {"1.2", NULL, "COMMIT\ntransaction:t\n\n", ERR("Bad transaction") "|Invalid transaction identifier: \"t\"|\n",
     true},
    {"1.2", NULL, "ABORT\ntransaction:t\n\n", ERR("Bad transaction") "|Invalid transaction identifier: \"t\"|\n", true},
    {"1.2", "BEGIN\ntransaction:t\n\n", "BEGIN\ntransaction:t\n\n",
     ERR("Bad transaction") "|Transaction \"t\" has begun already|\n", true},
    {"1.2", NULL, "BEGIN\ntransaction:\n\n", ERR("Bad transaction") "|Invalid transaction identifier: \"\"|\n", true},
    {"1.2", NULL, "SEND\nfoo\n\n", ERR("Bad frame") "|The frame cannot be read: a header line without a colon|\n",
     false},
};

static void error_check(const struct error_row_ *row, bool stays_open)
{
    struct rig rig;
    char got[2048], frame[512];
    assert_true(rig_init(&rig));
    rig.options.stays_open = stays_open;
    assert_true(rig_connect(&rig, 0, row->version));
    if (row->before)
        rig_frame(&rig, 0, row->before);
    rig_settle(&rig);
    const char *at = strstr(row->frame, M);
    snprintf(frame, sizeof frame, "%.*s%s%s", (int)(at ? at - row->frame : (long)strlen(row->frame)), row->frame,
             at ? rig_stomp(&rig, 0)->session_id : "", at ? at + strlen(M) : "");
    rig_frame(&rig, 0, frame);
    snprintf(got, sizeof got, "%s", rig_said(&rig, 0));
    without_length(got);
    if (strcmp(got, row->want) != 0)
        fail_msg("%s\nsays\n%sinstead of\n%s", row->frame, got, row->want);
    bool open = rig.peers[0].engine != NULL;
    if (open != (stays_open && row->goes_on))
        fail_msg("%s\nleaves the connection %s", row->frame, open ? "open" : "closed");
    rig_fini(&rig);
}

static void error_rows(void **state)
{
    (void)state;
    for (const struct error_row_ *row = errors; row < errors + ARRAY_LEN(errors); row++) {
        error_check(row, false);
        if (row->goes_on)
            error_check(row, true);
    }
}

static void receipts_are_bounded(void **state)
{
    (void)state;
    struct rig rig;
    static char frame[2048] = "BEGIN\ntransaction:t\nreceipt:";
    start(&rig, "1.2");
    memset(frame + 28, 'r', STOMP_RECEIPT_MAX);
    memcpy(frame + 28 + STOMP_RECEIPT_MAX, "\n\n", 3);
    rig_frame(&rig, 0, frame);
    has(&rig, 0, "RECEIPT|receipt-id:rrr");
    memcpy(frame + 28 + STOMP_RECEIPT_MAX, "r\n\n", 4);
    rig_frame(&rig, 0, frame);
    has(&rig, 0, "'receipt' must not be longer than 1024 bytes");
    rig_fini(&rig);
}

static void server_cancels(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig, "1.2");
    assert_true(rig_connect(&rig, 1, "1.2"));
    rig_frame(&rig, 0, "SUBSCRIBE\nid:1\ndestination:/topic/t\nx-queue-name:mine\ndurable:true\nauto-delete:false\n\n");
    rig_settle(&rig);
    rig_frame(&rig, 1, "SUBSCRIBE\nid:2\ndestination:/topic/t\nx-queue-name:mine\ndurable:true\nauto-delete:false\n\n");
    rig_frame(&rig, 1, "UNSUBSCRIBE\nid:2\nx-queue-name:mine\ndurable:true\nreceipt:r\n\n");
    has(&rig, 1, "RECEIPT|receipt-id:r||\n");
    says(&rig, 0,
         "ERROR|message:Server cancelled subscription|content-type:text/plain|version:1.0,1.1,1.2|subscription:1|"
         "content-length:89||The server has canceled a subscription.|No more messages will be delivered for "
         "\"id='1'\".|\n");
    rig_frame(&rig, 0, "SUBSCRIBE\nid:1\ndestination:/queue/q\nreceipt:s\n\n"); /* and goes on */
    says(&rig, 0, "RECEIPT|receipt-id:s||\n");
    rig_fini(&rig);
}

/* The server cancels what is being unsubscribed: the slot is a new subscription's only when the UNSUBSCRIBE is answered. */
static void server_cancels_what_is_leaving(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig, "1.2");
    assert_true(rig_connect(&rig, 1, "1.2"));
    rig_frame(&rig, 0, "SUBSCRIBE\nid:1\ndestination:/topic/t\nx-queue-name:mine\ndurable:true\nauto-delete:false\n\n");
    rig_settle(&rig);
    rig_frame(&rig, 1, "SUBSCRIBE\nid:2\ndestination:/topic/t\nx-queue-name:mine\ndurable:true\nauto-delete:false\n\n");
    rig_settle(&rig);
    rig_frame(&rig, 1, "UNSUBSCRIBE\nid:2\nx-queue-name:mine\ndurable:true\n\n");
    assert_true(rig_turn_peer(&rig, 1));
    (void)hub_publish(rig.hub);
    (void)broker_step(rig.broker, rig.now, rig_wall(&rig),
                      rig.durable); /* the queue goes: that is on its way to peer 0 */
    rig_frame(&rig, 0, "UNSUBSCRIBE\nid:1\n\n");
    assert_true(rig_turn_peer(&rig, 0));
    (void)hub_turn(rig.hub, rig.durable, rig.now);
    rig_frame(&rig, 0, "SUBSCRIBE\nid:3\ndestination:/queue/a\nreceipt:s\n\n");
    assert_true(rig_turn_peer(&rig, 0));
    has(&rig, 0, "RECEIPT|receipt-id:s||\n");
    rig_frame(&rig, 0, "SEND\ndestination:/queue/a\n\nhello");
    has(&rig, 0, "MESSAGE|subscription:3|");
    rig_fini(&rig);
}

/* ---- transactions ---- */

static void transactions(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig, "1.2");
    rig_frame(&rig, 0, "SUBSCRIBE\nid:1\ndestination:/queue/a\nack:client-individual\n\n");
    send_many(&rig, "/queue/a", 2);
    rig_clear(&rig);
    rig_frame(&rig, 0, "BEGIN\ntransaction:t\nreceipt:b\n\n");
    rig_frame(&rig, 0, "BEGIN\ntransaction:u\n\n");
    rig_frame(&rig, 0, "SEND\ndestination:/queue/b\npersistent:true\ntransaction:t\nreceipt:s\n\nheld");
    rig_frame(&rig, 0, "SEND\ndestination:/queue/b\ntransaction:u\n\naborted");
    ack(&rig, 0, "ACK", "T_1@@" M "@@1", "transaction:t\nreceipt:a\n");
    ack(&rig, 0, "ACK", "T_1@@" M "@@2", "transaction:u\n");
    says(&rig, 0, "RECEIPT|receipt-id:b||\nRECEIPT|receipt-id:a||\n");
    assert_int_equal(left(&rig), 2);
    rig_frame(&rig, 0, "ABORT\ntransaction:u\nreceipt:x\n\n");
    says(&rig, 0, "RECEIPT|receipt-id:x||\n");
    rig.late = true;
    rig_frame(&rig, 0, "COMMIT\ntransaction:t\nreceipt:c\n\n");
    says(&rig, 0, "");
    rig.late = false;
    says(&rig, 0, "RECEIPT|receipt-id:s||\nRECEIPT|receipt-id:c||\n");
    assert_int_equal(left(&rig), 2); /* 2 of a, held of b */
    ack(&rig, 0, "ACK", "T_1@@" M "@@2", "");
    assert_int_equal(left(&rig), 1);
    rig_frame(&rig, 0, "SEND\ndestination:/queue/b\nreceipt:after\n\nplain"); /* the channel confirms again */
    says(&rig, 0, "RECEIPT|receipt-id:after||\n");
    rig_frame(&rig, 0, "COMMIT\ntransaction:t\n\n");
    has(&rig, 0, "Bad transaction");
    rig_fini(&rig);
}

/* A wrong step undoes them all. */
static void transaction_is_atomic(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig, "1.2");
    rig_frame(&rig, 0, "SUBSCRIBE\nid:1\ndestination:/queue/a\nack:client-individual\n\n");
    send_many(&rig, "/queue/a", 1);
    rig_frame(&rig, 0, "BEGIN\ntransaction:t\n\n");
    rig_frame(&rig, 0, "SEND\ndestination:/queue/b\ntransaction:t\n\n1");
    ack(&rig, 0, "ACK", "T_1@@" M "@@1", "transaction:t\n");
    ack(&rig, 0, "ACK", "T_1@@" M "@@9", "transaction:t\n");
    rig_settle(&rig);
    rig_clear(&rig);
    rig_frame(&rig, 0, "COMMIT\ntransaction:t\nreceipt:c\n\n");
    has(&rig, 0, "unknown delivery tag 9");
    assert_null(rig.peers[0].engine);
    assert_int_equal(left(&rig), 1);
    rig_fini(&rig);
}

static void cumulative_in_transactions(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig, "1.2");
    rig_frame(&rig, 0, "SUBSCRIBE\nid:1\ndestination:/queue/a\nack:client\n\n");
    send_many(&rig, "/queue/a", 6);
    rig_frame(&rig, 0, "BEGIN\ntransaction:t\n\n");
    ack(&rig, 0, "ACK", "T_1@@" M "@@4", "transaction:t\n");
    rig_frame(&rig, 0, "ABORT\ntransaction:t\n\n");
    rig_frame(&rig, 0, "BEGIN\ntransaction:t\n\n");
    ack(&rig, 0, "ACK", "T_1@@" M "@@2", "transaction:t\n");
    ack(&rig, 0, "ACK", "T_1@@" M "@@5", "transaction:t\n");
    assert_int_equal(left(&rig), 6);
    rig_frame(&rig, 0, "COMMIT\ntransaction:t\n\n");
    assert_int_equal(left(&rig), 1);
    ack(&rig, 0, "ACK", "T_1@@" M "@@6", "");
    assert_int_equal(left(&rig), 0);
    rig_fini(&rig);
}

/* Two transactions that share a subscription's deliveries, undone in the order in which they took them: each goes back to its
 * place, at a cost that follows their number and not its square (which took minutes). */
static void aborts_are_cheap(void **state)
{
    (void)state;
    enum { COUNT = 200000 };
    struct rig rig;
    char id[32];
    start(&rig, "1.2");
    rig_frame(&rig, 0, "SUBSCRIBE\nid:1\ndestination:/queue/a\nack:client\n\n");
    rig_frame(&rig, 0, "SUBSCRIBE\nid:2\ndestination:/queue/b\nack:client\n\n");
    rig_settle(&rig);
    struct stomp_subscription *sub = rig_stomp(&rig, 0)->subscriptions[0];
    for (uint64_t tag = 1; tag <= COUNT; tag++) /* as if delivered: the core is not asked */
        assert_true(stomp_tags_push(sub, tag));
    for (int t = 0; t < 2; t++) {
        rig_frame(&rig, 0, t ? "BEGIN\ntransaction:u\n\n" : "BEGIN\ntransaction:t\n\n");
        snprintf(id, sizeof id, "T_1@@" M "@@%d", t ? COUNT - 1 : COUNT / 2);
        ack(&rig, 0, "ACK", id, t ? "transaction:u\n" : "transaction:t\n");
        rig_settle(&rig);
    }
    assert_int_equal(sub->tags_count, 1);
    rig_frame(&rig, 0, "ABORT\ntransaction:t\n\n");
    rig_frame(&rig, 0, "ABORT\ntransaction:u\nreceipt:r\n\n");
    says(&rig, 0, "RECEIPT|receipt-id:r||\n");
    assert_int_equal(sub->tags_count, COUNT);
    for (uint32_t i = 0; i < COUNT; i++)
        assert_int_equal(sub->tags[sub->tags_first + i], i + 1);
    rig_fini(&rig);
}

/* More steps than the ring has slots: handed over in several turns, and nothing comes in between. */
static void transaction_larger_than_the_ring(void **state)
{
    (void)state;
    struct rig rig = {.port_slots = 128};
    char frame[128];
    assert_true(rig_begin(&rig));
    assert_true(rig_connect(&rig, 0, "1.2"));
    rig_frame(&rig, 0, "BEGIN\ntransaction:t\n\n");
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(frame, sizeof frame, "SEND\ndestination:/queue/b\ntransaction:t\nreceipt:%u\n\n%u", i, i);
        rig_frame(&rig, 0, frame);
    }
    rig_frame(&rig, 0, "COMMIT\ntransaction:t\nreceipt:c\n\n");
    rig_frame(&rig, 0, "SEND\ndestination:/queue/b\nreceipt:behind\n\n");
    has(&rig, 0, "RECEIPT|receipt-id:999||\nRECEIPT|receipt-id:c||\nRECEIPT|receipt-id:behind||\n");
    assert_int_equal(left(&rig), 1001);
    rig_fini(&rig);
}

static void transactions_are_bounded(void **state)
{
    (void)state;
    struct rig rig;
    char frame[128];
    start(&rig, "1.2");
    rig.options.tx_bytes_max = 2000;
    rig_frame(&rig, 0, "BEGIN\ntransaction:t\n\n");
    for (unsigned i = 0; i < 40; i++)
        rig_frame(&rig, 0, "SEND\ndestination:/queue/b\ntransaction:t\n\n0123456789");
    has(&rig, 0, "Open transactions hold more than 2000 bytes");
    assert_int_equal(left(&rig), 0);
    assert_true(rig_connect(&rig, 1, "1.2"));
    for (unsigned i = 0; i <= STOMP_TRANSACTIONS_MAX; i++) {
        snprintf(frame, sizeof frame, "BEGIN\ntransaction:%u\n\n", i);
        rig_frame(&rig, 1, frame);
    }
    has(&rig, 1, "There are 256 open transactions");
    rig_fini(&rig);
}

/* ---- durability ---- */

static void receipts_wait_for_the_disk(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig, "1.2");
    rig.late = true;
    rig_frame(&rig, 0, "SEND\ndestination:/queue/a\npersistent:true\nreceipt:1\n\nx");
    rig_frame(&rig, 0, "SEND\ndestination:/queue/a\npersistent:true\n\nx");
    rig_frame(&rig, 0, "SUBSCRIBE\nid:1\ndestination:/queue/new\nreceipt:2\n\n");
    says(&rig, 0, "");
    rig_frame(&rig, 0, "DISCONNECT\nreceipt:bye\n\n");
    rig_frame(&rig, 0, "SEND\ndestination:/queue/a\n\nignored");
    says(&rig, 0, "");
    rig.late = false;
    says(&rig, 0, "RECEIPT|receipt-id:1||\nRECEIPT|receipt-id:2||\nRECEIPT|receipt-id:bye||\n");
    assert_null(rig.peers[0].engine);
    assert_int_equal(left(&rig), 2);
    rig_fini(&rig);
}

static void goodbye(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig, "1.0");
    rig_frame(&rig, 0, "DISCONNECT\n\n");
    says(&rig, 0, "");
    assert_null(rig.peers[0].engine);
    assert_true(rig_connect(&rig, 0, "1.0"));
    rig_frame(&rig, 0, "SEND\ndestination:/exchange/none\n\n");
    rig_frame(&rig, 0, "DISCONNECT\nreceipt:bye\n\n");
    has(&rig, 0, "NOT_FOUND - no exchange 'none' in vhost '/'");
    assert_null(rig.peers[0].engine);
    rig_fini(&rig);
}

static void gone_without_a_word(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig, "1.2");
    rig_frame(&rig, 0, "SUBSCRIBE\nid:1\ndestination:/queue/a\nack:client\n\n");
    send_many(&rig, "/queue/a", 3);
    rig_frame(&rig, 0, "BEGIN\ntransaction:t\n\n");
    rig_frame(&rig, 0, "SEND\ndestination:/queue/a\ntransaction:t\n\nnever");
    rig_settle(&rig);
    rig_close(&rig, 0);
    rig_clear(&rig);
    assert_true(rig_connect(&rig, 0, "1.2"));
    rig_frame(&rig, 0, "SUBSCRIBE\nid:1\ndestination:/queue/a\n\n");
    has(&rig, 0, "redelivered:true");
    assert_int_equal(left(&rig), 0);
    rig_fini(&rig);
}

static void refused_message(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig, "1.2");
    rig_frame(&rig, 0, "SEND\ndestination:/queue/f\nx-max-length:1\nx-overflow:reject-publish\nreceipt:1\n\n1");
    rig_frame(&rig, 0, "SEND\ndestination:/queue/f\n\nnobody asks");
    says(&rig, 0, "RECEIPT|receipt-id:1||\n");
    rig_frame(&rig, 0, "SEND\ndestination:/queue/f\nreceipt:2\n\n2");
    has(&rig, 0, "ERROR|message:Message not accepted|content-type:text/plain|version:1.0,1.1,1.2|receipt-id:2|");
    rig_fini(&rig);
}

/* ---- flow, time ---- */

static void publishers_pause(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig, "1.2");
    static char frame[100000] = "SEND\ndestination:/queue/a\npersistent:true\n\n";
    memset(frame + strlen(frame), 'x', 90000);
    rig.late = true;
    for (unsigned i = 0; i < 20; i++)
        rig_frame(&rig, 0, frame);
    rig_settle(&rig);
    assert_true(rig.peers[0].engine->paused);
    assert_true(rig.peers[0].in_len > 4 * 90000);
    rig.late = false;
    rig_settle(&rig);
    assert_false(rig.peers[0].engine->paused);
    assert_int_equal(rig.peers[0].in_len, 0);
    assert_int_equal(left(&rig), 20);
    assert_int_equal(rig_stomp(&rig, 0)->unsettled_bytes, 0);
    rig_fini(&rig);
}

static void receipts_pause(void **state)
{
    (void)state;
    struct rig rig;
    char frame[128 + 1024];
    start(&rig, "1.2");
    rig.late = true;
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(frame, sizeof frame, "SEND\ndestination:/queue/a\npersistent:true\nreceipt:%01000u\n\n", i);
        rig_frame(&rig, 0, frame);
    }
    rig_settle(&rig);
    assert_true(rig.peers[0].engine->paused);
    assert_true(rig_stomp(&rig, 0)->receipt_bytes < 300 * 1024);
    rig.late = false;
    rig_settle(&rig);
    assert_int_equal(left(&rig), 1000);
    assert_int_equal(rig_stomp(&rig, 0)->receipt_bytes, 0);
    rig_fini(&rig);
}

/* More than a session's credit reaches a client that reads, all of it. */
static void credit_comes_back(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig, "1.2");
    static char frame[12000] = "SEND\ndestination:/queue/a\n\n";
    memset(frame + strlen(frame), 'x', 9000);
    for (unsigned i = 0; i < 100; i++)
        rig_frame(&rig, 0, frame);
    rig_frame(&rig, 0, "SUBSCRIBE\nid:1\ndestination:/queue/a\n\n");
    assert_int_equal(left(&rig), 0);
    unsigned count = 0;
    for (const char *at = rig_said(&rig, 0); (at = strstr(at, "\nMESSAGE")); at++)
        count++;
    assert_int_equal(count + 1, 100);
    rig_fini(&rig);
}

static void beats(void **state)
{
    (void)state;
    struct rig rig;
    assert_true(rig_init(&rig));
    assert_true(rig_open(&rig, 0));
    rig_frame(&rig, 0, "CONNECT\naccept-version:1.2\nheart-beat:1000,400\n\n");
    has(&rig, 0, "heart-beat:400,1000");
    struct engine *engine = rig.peers[0].engine;
    mono_t began = rig.now;
    for (int i = 0; i < 19; i++) {
        rig.now += 100 * NS_PER_MS;
        engine->ops->tick(engine, rig.now);
        rig_settle(&rig);
    }
    assert_in_range(rig.peers[0].beats, 4, 10);
    assert_non_null(rig.peers[0].engine);
    rig_bytes(&rig, 0, "\n", 1); /* a beat of the client's */
    rig_settle(&rig);
    rig.now = began + 3800 * NS_PER_MS;
    engine->ops->tick(engine, rig.now);
    rig_settle(&rig);
    assert_non_null(rig.peers[0].engine);
    rig.now += 200 * NS_PER_MS;
    engine->ops->tick(engine, rig.now);
    rig_settle(&rig);
    assert_null(rig.peers[0].engine);
    rig_fini(&rig);
}

static void shutdown_says_why(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig, "1.2");
    rig.peers[0].engine->ops->shutdown(rig.peers[0].engine, "shutdown");
    has(&rig, 0,
        "ERROR|message:connection_forced|content-type:text/plain|version:1.0,1.1,1.2|content-length:75||"
        "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'\n");
    assert_null(rig.peers[0].engine);
    rig_fini(&rig);
}

static void big_bodies(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig, "1.2");
    size_t len = 3u << 20;
    char *frame = malloc(len + 100);
    int head = snprintf(frame, 100, "SEND\ndestination:/queue/big\ncontent-length:%zu\n\n", len);
    memset(frame + head, 0, len + 1);
    rig_bytes(&rig, 0, frame, (size_t)head + len + 1);
    rig_frame(&rig, 0, "SUBSCRIBE\nid:1\ndestination:/queue/big\n\n");
    rig_settle(&rig);
    assert_int_equal(left(&rig), 0);
    free(frame);
    rig_fini(&rig);
}

static void small_when_idle(void **state)
{
    (void)state;
    assert_in_range(sizeof(struct stomp), 0, 1024);
}

/* ---- memory that is refused ---- */

static void everything(struct rig *rig)
{
    static const char *const frames[] = {
        "SUBSCRIBE\nid:1\ndestination:/queue/a\nack:client\nprefetch-count:10\nx-max-length:100\n\n",
        "SUBSCRIBE\nid:2\ndestination:/topic/t\nreceipt:r\n\n",
        "SEND\ndestination:/queue/a\nfoo:b\\ca\npersistent:true\nreceipt:x\nreply-to:/temp-queue/r\n\nhello",
        "SEND\ndestination:/topic/t\n\nhello",
        "BEGIN\ntransaction:t\n\n",
        "SEND\ndestination:/queue/a\ntransaction:t\nreceipt:y\n\nheld",
        "COMMIT\ntransaction:t\nreceipt:z\n\n",
        "BEGIN\ntransaction:t\n\n",
        "SEND\ndestination:/queue/a\ntransaction:t\n\naborted",
        "ABORT\ntransaction:t\n\n",
        "UNSUBSCRIBE\nid:2\n\n",
        "DISCONNECT\nreceipt:bye\n\n",
    };
    if (!rig_open(rig, 0))
        return;
    rig_frame(rig, 0, "CONNECT\naccept-version:1.2\nlogin:guest\npasscode:guest\n\n");
    rig_settle(rig);
    for (size_t i = 0; i < ARRAY_LEN(frames) && rig->peers[0].engine; i++) {
        rig_frame(rig, 0, frames[i]);
        rig_settle(rig);
        if (i == 2 && rig->peers[0].engine)
            ack(rig, 0, "ACK", "T_1@@" M "@@1", "receipt:acked\n");
    }
    rig_settle(rig);
}

static void memory_refused(void **state)
{
    (void)state;
    uint64_t hit = 1;
    for (uint64_t n = 1; hit; n++) {
        struct rig rig;
        assert_true(rig_init(&rig));
        size_t before = mem_in_use_as(MEM_CONNECTIONS);
        mem_fail_at(n, false);
        everything(&rig);
        hit = mem_failures_hit();
        mem_fail_at(0, false);
        rig_close(&rig, 0);
        rig_settle(&rig);
        assert_int_equal(hub_sessions(rig.hub), 0);
        assert_int_equal(mem_in_use_as(MEM_CONNECTIONS), before);
        /* and somebody else is served */
        assert_true(rig_connect(&rig, 1, "1.2"));
        rig_fini(&rig);
        assert_true(n < 2000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(login_rows),
        cmocka_unit_test(login_byte_by_byte),
        cmocka_unit_test(early_limits),
        cmocka_unit_test(who_does_not_log_in_goes),
        cmocka_unit_test(nobody_is_anonymous),
        cmocka_unit_test(a_visitor_needs_a_login),
        cmocka_unit_test(send_and_subscribe),
        cmocka_unit_test(properties_both_ways),
        cmocka_unit_test(ids_by_version),
        cmocka_unit_test(ack_modes),
        cmocka_unit_test(cumulative_alone),
        cmocka_unit_test(prefetch),
        cmocka_unit_test(topics_and_exchanges),
        cmocka_unit_test(durable_subscription),
        cmocka_unit_test(temp_queues),
        cmocka_unit_test(declared_as_asked),
        cmocka_unit_test(error_rows),
        cmocka_unit_test(receipts_are_bounded),
        cmocka_unit_test(server_cancels),
        cmocka_unit_test(server_cancels_what_is_leaving),
        cmocka_unit_test(transactions),
        cmocka_unit_test(transaction_is_atomic),
        cmocka_unit_test(cumulative_in_transactions),
        cmocka_unit_test(aborts_are_cheap),
        cmocka_unit_test(transaction_larger_than_the_ring),
        cmocka_unit_test(transactions_are_bounded),
        cmocka_unit_test(receipts_wait_for_the_disk),
        cmocka_unit_test(goodbye),
        cmocka_unit_test(gone_without_a_word),
        cmocka_unit_test(refused_message),
        cmocka_unit_test(publishers_pause),
        cmocka_unit_test(receipts_pause),
        cmocka_unit_test(credit_comes_back),
        cmocka_unit_test(beats),
        cmocka_unit_test(shutdown_says_why),
        cmocka_unit_test(big_bodies),
        cmocka_unit_test(small_when_idle),
        cmocka_unit_test(memory_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
