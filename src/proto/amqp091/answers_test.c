/* What goes out and when: held until durable, in order, confirms together, deliveries split and their credit. */
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

/* ---- order and durability ---- */

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
        rig_push_effect(&rig, EFF_CONFIRM, i, i);
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
    rig_push_effect(&rig, EFF_NACK, 11, 0);
    rig_push_effect(&rig, EFF_CONFIRM, 12, 0);
    rig_push_effect(&rig, EFF_NACK, 13, 12);
    rig_push_effect(&rig, EFF_CONFIRM, 20, 0);
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
        rig_push_effect(&rig, EFF_CONFIRM, i, i);
        if (i % 1000 == 0)
            rig_settle(&rig);
    }
    assert_true(mem_in_use() - before < CONFIRMS_MAX * 2 * sizeof(struct confirm));
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
    struct effect *e = rig_push_effect(&rig, EFF_RETURN, 0, 0);
    e->msg = rig_message(&rig, 2, 3);
    e->answer = rig_answer(ERR_NO_ROUTE, "", (struct slice){0});
    rig_push_effect(&rig, EFF_CONFIRM, 1, 0);
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
    rig_push_effect(&rig, EFF_CONFIRM, 1, 5);
    rig_push_deliver(&rig, 1, 1, rig_message(&rig, 2, 1));
    rig_settle(&rig);
    has(rig.said, "delivery_tag=1 redelivered=0"); /* a confirm holds no delivery */
    rig_clear(&rig);
    rig.answer_lsn = 6;
    RIG_CALL(&rig, 1, queue_declare, .queue = slice_str("q"));
    rig_settle(&rig);
    rig_push_deliver(&rig, 1, 2, rig_message(&rig, 2, 1));
    rig_push_effect(&rig, EFF_GET_EMPTY, 0, 0);
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
    } cases[] = {{2, 0},    {2, 1},    {2, 1023},  {2, 1024},  {3, 4087},   {2, 4088},    {2, 4089},
                 {2, 8176}, {2, 8177}, {2, 40000}, {20000, 0}, {20000, 10}, {50000, 9000}};
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct rig rig;
        assert_true(rig_init(&rig));
        assert_true(rig_running(&rig, 4096, 0));
        RIG_CALL(&rig, 1, basic_consume, .consumer_tag = slice_str("tag"), .no_wait = true);
        rig_settle(&rig);
        rig_clear(&rig);
        struct msg *msg = rig_message(&rig, cases[i].props, cases[i].body);
        rig_push_deliver(&rig, 1, 1, msg_ref(msg));
        struct effect *e = rig_push_effect(&rig, EFF_GET_OK, 2, 0);
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
        rig_push_deliver(&rig, i, i, rig_message(&rig, 2, 1));
    rig_settle(&rig);
    for (unsigned i = 1; i <= 100; i++) {
        char line[80];
        snprintf(line, sizeof line, "consumer_tag=tag-%u delivery_tag=%u ", i, i);
        has(rig.said, line);
    }
    rig_clear(&rig);
    struct effect *e = rig_push_effect(&rig, EFF_CONSUMER_GONE, 0, 0);
    e->consumer = 50;
    rig_push_deliver(&rig, 50, 101, rig_message(&rig, 2, 1)); /* for nobody: freed */
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
        struct msg *msg = rig_message(&rig, 2, 2000);
        cost += delivery_cost(msg);
        rig_push_deliver(&rig, 1, i, msg);
    }
    rig_settle(&rig);
    char line[64];
    snprintf(line, sizeof line, "0 CREDIT number=%llu flags=0\n", (unsigned long long)cost);
    ASKED(&rig, line);
    rig_fini(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(confirms_collapse),
        cmocka_unit_test(confirms_numbered_from_select),
        cmocka_unit_test(many_confirms_are_bounded),
        cmocka_unit_test(return_before_confirm),
        cmocka_unit_test(deliveries_wait_behind_answers_only),
        cmocka_unit_test(deliveries_split),
        cmocka_unit_test(many_consumers),
        cmocka_unit_test(credit_returns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
