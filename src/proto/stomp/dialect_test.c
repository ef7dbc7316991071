/* ActiveMQ's dialect, and selectors in both. */
#include "proto/stomp/rig_test.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void has(struct rig *rig, int i, const char *part)
{
    const char *got = rig_said(rig, i);
    if (!strstr(got, part))
        fail_msg("'%s' is not in:\n%s", part, got);
    rig->peers[i].said[0] = '\0';
}

static void says_nothing(struct rig *rig, int i)
{
    assert_string_equal(rig_said(rig, i), "");
}

static void start(struct rig *rig)
{
    assert_true(rig_init(rig));
    rig->options.dialect = STOMP_AS_ACTIVEMQ;
    assert_true(rig_open(rig, 0));
    rig_frame(rig, 0, "CONNECT\naccept-version:1.1\nhost:whatever\nclient-id:me\n\n");
    has(rig, 0, "CONNECTED|version:1.1|");
}

static struct broker_totals totals(struct rig *rig)
{
    struct broker_totals t;
    rig_settle(rig);
    broker_totals(rig->broker, &t);
    return t;
}

static void selectors_on_queues(void **state)
{
    (void)state;
    struct rig rig;
    assert_true(rig_init(&rig));
    assert_true(rig_connect(&rig, 0, "1.2"));
    rig_frame(&rig, 0, "SUBSCRIBE\nid:hot\ndestination:/queue/q\nselector:temperature > 30 AND room LIKE 'k%'\n\n");
    rig_frame(&rig, 0, "SEND\ndestination:/queue/q\ntemperature:20\nroom:kitchen\n\ncold");
    rig_frame(&rig, 0, "SEND\ndestination:/queue/q\ntemperature:40\nroom:kitchen\n\nhot");
    rig_frame(&rig, 0, "SEND\ndestination:/queue/q\ntemperature:40\nroom:hall\n\nelsewhere");
    has(&rig, 0, "||hot\n");
    assert_int_equal(totals(&rig).messages, 2);
    rig_frame(&rig, 0, "SUBSCRIBE\nid:all\ndestination:/queue/q\n\n");
    has(&rig, 0, "||cold\n");
    assert_int_equal(totals(&rig).messages, 0);
    rig_frame(&rig, 0, "SUBSCRIBE\nid:wrong\ndestination:/queue/q\nselector:=\nreceipt:r\n\n");
    has(&rig, 0, "ERROR|message:precondition_failed|content-type:text/plain|version:1.0,1.1,1.2|receipt-id:r|");
    rig_fini(&rig);
}

static void selectors_on_topics(void **state)
{
    (void)state;
    struct rig rig;
    assert_true(rig_init(&rig));
    assert_true(rig_connect(&rig, 0, "1.2"));
    rig_frame(&rig, 0, "SUBSCRIBE\nid:1\ndestination:/topic/t\nselector:a = 1\nack:client\n\n");
    rig_settle(&rig);
    rig_frame(&rig, 0, "SEND\ndestination:/topic/t\na:2\n\nno");
    rig_frame(&rig, 0, "SEND\ndestination:/topic/t\na:1\n\nyes");
    has(&rig, 0, "||yes\n");
    assert_int_equal(totals(&rig).messages, 1); /* the other is nowhere */
    static char frame[3000] = "SUBSCRIBE\nid:2\ndestination:/topic/t\nselector:";
    memset(frame + strlen(frame), '1', 2100);
    snprintf(frame + strlen(frame), 3, "\n\n");
    rig_frame(&rig, 0, frame);
    has(&rig, 0, "'selector' must not be longer than 2048 bytes");
    rig_fini(&rig);
}

static void destinations(void **state)
{
    (void)state;
    static const char *const wrong[][2] = {
        {"a", "Illegal destination name: [a] -- ActiveMQ STOMP destinations must begin with one of: /queue/ /topic/ "
              "/temp-queue/ /temp-topic/"},
        {"/exchange/amq.topic/a", "Illegal destination name: [/exchange/amq.topic/a]"},
        {"/amq/queue/a", "Illegal destination name: [/amq/queue/a]"},
        {"/queue/", "'/' is not a valid queue destination"},
    };
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        struct rig rig;
        char frame[128];
        start(&rig);
        snprintf(frame, sizeof frame, "SEND\ndestination:%s\n\nx", wrong[i][0]);
        rig_frame(&rig, 0, frame);
        has(&rig, 0, wrong[i][1]);
        rig_fini(&rig);
    }
    struct rig rig;
    start(&rig);
    rig_frame(&rig, 0, "SUBSCRIBE\nid:1\ndestination:/queue/a/b?consumer.prefetchSize=1\n\n");
    rig_frame(&rig, 0, "SEND\ndestination:/queue/a/b\nmessage-id:mine\n\nx");
    has(&rig, 0, "|destination:/queue/a%2Fb|");
    rig_fini(&rig);
}

/* A name costs memory until the connection ends, and nothing else would limit those of topics. */
static void temporary_names_are_bounded(void **state)
{
    (void)state;
    struct rig rig;
    char frame[64];
    start(&rig);
    for (unsigned i = 0; i < STOMP_TEMPS_MAX + 1; i++) {
        snprintf(frame, sizeof frame, "SEND\ndestination:/temp-topic/%u\n\n", i % STOMP_TEMPS_MAX);
        rig_frame(&rig, 0, frame);
    }
    says_nothing(&rig, 0);
    rig_frame(&rig, 0, "SEND\ndestination:/temp-topic/one-more\n\n");
    has(&rig, 0, "There are more than 4096 temporary destinations");
    rig_fini(&rig);
}

static void composite_and_wildcards(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig);
    rig_frame(&rig, 0, "SUBSCRIBE\nid:1\ndestination:/topic/a.>\n\n");
    rig_frame(&rig, 0, "SUBSCRIBE\nid:2\ndestination:/topic/a.*\n\n");
    rig_settle(&rig);
    rig_frame(&rig, 0, "SEND\ndestination:/topic/a.b.c,/queue/q1,/queue/q2\npersistent:true\nreceipt:r\n\n3 places");
    const char *said = rig_said(&rig, 0);
    assert_non_null(strstr(said, "|subscription:1|destination:/topic/a.b.c|"));
    assert_null(strstr(said, "subscription:2"));
    assert_non_null(strstr(said, "RECEIPT|receipt-id:r||\n"));
    assert_int_equal(totals(&rig).messages, 2);
    rig_clear(&rig);
    char frame[1024] = "SEND\ndestination:/queue/q";
    for (unsigned i = 0; i < STOMP_TARGETS_MAX; i++)
        snprintf(frame + strlen(frame), 16, ",/queue/q");
    snprintf(frame + strlen(frame), 3, "\n\n");
    rig_frame(&rig, 0, frame);
    has(&rig, 0, "There are more than 16 destinations");
    rig_fini(&rig);
}

static void virtual_topics(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig);
    rig_frame(&rig, 0, "SUBSCRIBE\nid:1\ndestination:/queue/Consumer.A.VirtualTopic.orders\n\n");
    rig_settle(&rig);
    rig_frame(&rig, 0, "SEND\ndestination:/topic/VirtualTopic.orders\n\norder");
    has(&rig, 0, "||order\n");
    rig_fini(&rig);
}

static void temporary_destinations(void **state)
{
    (void)state;
    struct rig rig;
    char frame[256];
    start(&rig);
    assert_true(rig_connect(&rig, 1, "1.1"));
    static const char *const kinds[] = {"queue", "topic"};
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        snprintf(frame, sizeof frame, "SUBSCRIBE\nid:mine%zu\ndestination:/temp-%s/here\nreceipt:r\n\n", i, kinds[i]);
        rig_frame(&rig, 0, frame);
        has(&rig, 0, "RECEIPT|");
        snprintf(frame, sizeof frame, "SEND\ndestination:/queue/service\nreply-to:/temp-%s/here\n\nping", kinds[i]);
        rig_frame(&rig, 0, frame);
        rig_settle(&rig);
        if (i == 0)
            rig_frame(&rig, 1, "SUBSCRIBE\nid:s\ndestination:/queue/service\n\n");
        const char *at = strstr(rig_said(&rig, 1), "|reply-to:");
        assert_non_null(at);
        snprintf(frame, sizeof frame, "SEND\ndestination:%.*s\n\npong", (int)(strchr(at + 1, '|') - at - 10), at + 10);
        rig_clear(&rig);
        rig_frame(&rig, 1, frame);
        snprintf(frame, sizeof frame, "MESSAGE|subscription:mine%zu|", i);
        has(&rig, 0, frame);
        snprintf(frame, sizeof frame, "SEND\ndestination:/temp-%s/here\n\nto myself", kinds[i]);
        rig_frame(&rig, 0, frame);
        has(&rig, 0, "||to myself\n");
    }
    rig_fini(&rig);
}

static void durable_by_name(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig);
    rig_frame(&rig, 0, "SUBSCRIBE\nid:1\ndestination:/topic/news\nactivemq.subscriptionName:mine\nreceipt:r\n\n");
    has(&rig, 0, "RECEIPT|");
    rig_close(&rig, 0);
    assert_true(rig_open(&rig, 0));
    rig_frame(&rig, 0, "CONNECT\nclient-id:me\n\n");
    rig_settle(&rig);
    rig_frame(&rig, 0, "SEND\ndestination:/topic/news\n\nmeanwhile");
    rig_frame(&rig, 0, "SUBSCRIBE\nid:2\ndestination:/topic/news\nactivemq.subscriptionName:mine\n\n");
    has(&rig, 0, "||meanwhile\n");
    rig_frame(&rig, 0, "UNSUBSCRIBE\nid:2\nactivemq.subscriptionName:mine\nreceipt:u\n\n");
    has(&rig, 0, "RECEIPT|receipt-id:u||\n");
    assert_int_equal(totals(&rig).queues, 0);
    rig_fini(&rig);
}

static void expires(void **state)
{
    (void)state;
    struct rig rig;
    char frame[128];
    start(&rig);
    snprintf(frame, sizeof frame, "SEND\ndestination:/queue/e\nexpires:%lld\n\nshort", (long long)rig_wall(&rig) + 50);
    rig_frame(&rig, 0, frame);
    rig_frame(&rig, 0, "SEND\ndestination:/queue/e\nexpires:0\n\nfor ever");
    rig_settle(&rig);
    rig.now += 100 * NS_PER_MS;
    rig_settle(&rig);
    rig_frame(&rig, 0, "SUBSCRIBE\nid:1\ndestination:/queue/e\n\n");
    has(&rig, 0, "|expires:0|content-length:8||for ever\n");
    rig_frame(&rig, 0, "SEND\ndestination:/queue/e\nexpires:soon\n\n");
    has(&rig, 0, "'expires' must be a time in milliseconds");
    rig_fini(&rig);
}

static void scheduled(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig);
    rig_frame(&rig, 0, "SUBSCRIBE\nid:1\ndestination:/queue/s\n\n");
    rig_frame(&rig, 0, "SUBSCRIBE\nid:2\ndestination:/topic/s\n\n");
    rig_frame(&rig, 0,
              "SEND\ndestination:/queue/s,/topic/s\nAMQ_SCHEDULED_DELAY:100\nreceipt:r\npersistent:true\n\nlater");
    has(&rig, 0, "RECEIPT|");
    rig_frame(&rig, 0, "BEGIN\ntransaction:t\n\n");
    rig_frame(&rig, 0, "SEND\ndestination:/queue/s\nAMQ_SCHEDULED_DELAY:100\ntransaction:t\n\nin a transaction");
    rig_frame(&rig, 0, "COMMIT\ntransaction:t\n\n");
    says_nothing(&rig, 0);
    rig.now += 90 * NS_PER_MS;
    says_nothing(&rig, 0);
    rig.now += 20 * NS_PER_MS;
    rig_settle(&rig);
    rig.now += 20 * NS_PER_MS;
    const char *said = rig_said(&rig, 0);
    assert_non_null(strstr(said, "|subscription:1|destination:/queue/s|"));
    assert_non_null(strstr(said, "|subscription:2|destination:/topic/s|"));
    assert_non_null(strstr(said, "||in a transaction\n"));
    rig_clear(&rig);
    rig_frame(&rig, 0, "SEND\ndestination:/queue/s\nAMQ_SCHEDULED_CRON:* * * * *\n\n");
    has(&rig, 0, "'AMQ_SCHEDULED_CRON' is not supported: only AMQ_SCHEDULED_DELAY is");
    rig_fini(&rig);
}

static const struct refusal {
    const char *headers, *want;
} refusals[] = {
    {"destination:/queue/q\nbrowser:true", "'browser' is not supported"},
    {"destination:/queue/a.>", "queues have no wildcards here"},
    {"destination:/queue/q\nactivemq.prefetchSize:x", "'activemq.prefetchSize' must be a number up to 65535"},
    {"destination:/queue/q\nactivemq.priority:200", "'activemq.priority' must be a number up to 127"},
};

static void subscriptions_refused(void **state)
{
    (void)state;
    for (const struct refusal *r = refusals; r < refusals + ARRAY_LEN(refusals); r++) {
        struct rig rig;
        char frame[256];
        start(&rig);
        snprintf(frame, sizeof frame, "SUBSCRIBE\nid:1\n%s\n\n", r->headers);
        rig_frame(&rig, 0, frame);
        has(&rig, 0, r->want);
        rig_fini(&rig);
    }
}

static void wishes(void **state)
{
    (void)state;
    struct rig rig;
    start(&rig);
    for (int i = 0; i < 5; i++)
        rig_frame(&rig, 0, "SEND\ndestination:/queue/p\n\nx");
    rig_frame(&rig, 0,
              "SUBSCRIBE\nid:1\ndestination:/queue/p\nack:client\nactivemq.prefetchSize:2\nactivemq.exclusive:true\n"
              "activemq.priority:5\n\n");
    unsigned count = 0;
    for (const char *at = rig_said(&rig, 0); (at = strstr(at, "MESSAGE")); at++)
        count++;
    assert_int_equal(count, 2);
    assert_true(rig_connect(&rig, 1, "1.1"));
    rig_frame(&rig, 1, "SUBSCRIBE\nid:1\ndestination:/queue/p\n\n");
    has(&rig, 1, "in exclusive use");
    rig_fini(&rig);
}

/* A NACK is the end of a message, as in ActiveMQ. */
static void nack(void **state)
{
    (void)state;
    struct rig rig;
    char frame[256];
    start(&rig);
    rig_frame(&rig, 0, "SEND\ndestination:/queue/n\n\nx");
    rig_frame(&rig, 0, "SUBSCRIBE\nid:1\ndestination:/queue/n\nack:client-individual\n\n");
    has(&rig, 0, "||x\n");
    snprintf(frame, sizeof frame, "NACK\nmessage-id:T_1@@%s@@1\n\n", rig_stomp(&rig, 0)->session_id);
    rig_frame(&rig, 0, frame);
    assert_int_equal(totals(&rig).messages, 0);
    rig_fini(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(selectors_on_queues),
        cmocka_unit_test(selectors_on_topics),
        cmocka_unit_test(destinations),
        cmocka_unit_test(temporary_names_are_bounded),
        cmocka_unit_test(composite_and_wildcards),
        cmocka_unit_test(virtual_topics),
        cmocka_unit_test(temporary_destinations),
        cmocka_unit_test(durable_by_name),
        cmocka_unit_test(expires),
        cmocka_unit_test(scheduled),
        cmocka_unit_test(subscriptions_refused),
        cmocka_unit_test(wishes),
        cmocka_unit_test(nack),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
