/* Selectors in the core: who gets what, in which order, what waits for whom, and what the journal remembers. */
#include "core/broker_rig_test.h"

#define CHANNEL 1

static struct slice args_of(uint8_t *room, size_t max, const char *selector, const char *type)
{
    struct writer w = writer_of(room, max);
    if (selector)
        amqp_put_str(&w, "x-selector", slice_str(selector));
    if (type)
        amqp_put_str(&w, "x-queue-type", slice_str(type));
    return writer_slice(&w);
}

static struct rig *rig_with_queue(void)
{
    struct rig *rig = rig_new(rig_log_new(), NULL, 1700000000000);
    assert_true(rig_open(rig, 1));
    rig_plain(rig, CMD_CHANNEL_OPEN, 1, CHANNEL, 0, 0);
    assert_true(rig_ask(rig, CMD_QUEUE_DECLARE, 1, CHANNEL, "q", NULL, NULL, (struct slice){0}, ASK_DURABLE));
    return rig;
}

static void consume(struct rig *rig, const char *tag, const char *selector, uint32_t flags)
{
    uint8_t room[4096];
    assert_true(
        rig_ask(rig, CMD_CONSUME, 1, CHANNEL, "q", tag, NULL, args_of(room, sizeof room, selector, NULL), flags));
}

static void publish(struct rig *rig, const char *exchange, const char *key, const char *color)
{
    uint8_t room[256];
    struct writer w = writer_of(room, sizeof room);
    amqp_put_str(&w, "color", slice_str(color));
    struct amqp_props props = {
        .present = AMQP_DELIVERY_MODE | AMQP_HEADERS, .delivery_mode = 2, .headers = writer_slice(&w)};
    assert_true(rig_publish_with(rig, 1, CHANNEL, exchange, key, slice_str(color), &props, 0));
}

static void delivered(struct rig *rig, const char *want)
{
    assert_string_equal(rig_error(rig), "");
    assert_string_equal(rig_delivered(rig), want);
    rig_clear(rig);
}

static void finish(struct rig *rig)
{
    rig_plain(rig, CMD_SESSION_CLOSE, 1, 0, 0, 0);
    rig_step(rig);
    broker_check(rig->b);
    struct rig_log *log = rig->log;
    rig_free(rig);
    rig_log_free(log);
}

static void choosy_leave_the_rest(void **state)
{
    (void)state;
    struct rig *rig = rig_with_queue();
    static const char *const colors[] = {"red", "blue", "red", "green", "blue"};
    for (size_t i = 0; i < ARRAY_LEN(colors); i++)
        publish(rig, "", "q", colors[i]);
    rig_clear(rig);
    consume(rig, "b", "color = 'blue'", ASK_NO_ACK);
    delivered(rig, "blue blue");
    assert_int_equal(rig_ready(rig, "q"), 3);
    publish(rig, "", "q", "blue");
    delivered(rig, "blue");
    consume(rig, "g", "color LIKE 'gr%'", ASK_NO_ACK);
    delivered(rig, "green");
    consume(rig, "all", NULL, ASK_NO_ACK);
    delivered(rig, "red red");
    publish(rig, "", "q", "red");
    delivered(rig, "red");
    assert_int_equal(rig_ready(rig, "q"), 0);
    finish(rig);
}

static void prefetch_and_returns(void **state)
{
    (void)state;
    struct rig *rig = rig_with_queue();
    for (int i = 0; i < 3; i++) {
        publish(rig, "", "q", "red");
        publish(rig, "", "q", "blue");
    }
    rig_plain(rig, CMD_QOS, 1, CHANNEL, 1, 0);
    rig_clear(rig);
    consume(rig, "b", "color = 'blue'", 0);
    delivered(rig, "blue"); /* tag 1 */
    rig_plain(rig, CMD_ACK, 1, CHANNEL, 1, 0);
    delivered(rig, "blue");
    rig_plain(rig, CMD_NACK, 1, CHANNEL, 2, ASK_REQUEUE);
    delivered(rig, "blue*"); /* the same again: it is looked at once more */
    rig_plain(rig, CMD_ACK, 1, CHANNEL, 3, 0);
    delivered(rig, "blue");
    rig_plain(rig, CMD_ACK, 1, CHANNEL, 4, 0);
    delivered(rig, "");
    assert_int_equal(rig_ready(rig, "q"), 3);
    rig_plain(rig, CMD_QOS, 1, CHANNEL, 0, 0);
    consume(rig, "r", "color = 'red'", 0);
    delivered(rig, "red red red");
    assert_true(rig_ask(rig, CMD_CANCEL, 1, CHANNEL, "b", NULL, NULL, (struct slice){0}, 0));
    rig_plain(rig, CMD_NACK, 1, CHANNEL, 0, ASK_MULTIPLE | ASK_REQUEUE);
    delivered(rig, "red* red* red*");
    finish(rig);
}

static void expired_ones_are_passed_by(void **state)
{
    (void)state;
    struct rig *rig = rig_with_queue();
    struct amqp_props props = {.present = AMQP_EXPIRATION, .expiration = slice_str("50")};
    publish(rig, "", "q", "red");
    assert_true(rig_publish_with(rig, 1, CHANNEL, "", "q", slice_str("late"), &props, 0));
    rig_pass(rig, 100);
    rig_clear(rig);
    consume(rig, "n", "color IS NULL", ASK_NO_ACK);
    delivered(rig, "");
    props.expiration = slice_str("0"); /* for who takes everything */
    assert_true(rig_publish_with(rig, 1, CHANNEL, "", "q", slice_str("now"), &props, 0));
    delivered(rig, "");
    consume(rig, "all", NULL, ASK_NO_ACK);
    delivered(rig, "red");
    rig_pass(rig, 10);
    assert_int_equal(rig_ready(rig, "q"), 0);
    finish(rig);
}

/* A long run of what nobody wants: passed by in several goes, once. */
static void many_unwanted(void **state)
{
    (void)state;
    struct rig *rig = rig_with_queue();
    rig->check = false;
    for (int i = 0; i < 2000; i++)
        publish(rig, "", "q", "red");
    publish(rig, "", "q", "blue");
    rig_clear(rig);
    consume(rig, "b", "color = 'blue'", ASK_NO_ACK);
    delivered(rig, "blue");
    struct queue *q = queue_find(vhost_find(rig->b, slice_str("/")), slice_str("q"));
    const struct consumer *consumer = CONTAINER_OF(q->busy->consumers.next, struct consumer, queue_link);
    assert_int_equal(consumer->sieve->scan.looked, 2000);
    assert_int_equal(rig_ready(rig, "q"), 2000);
    finish(rig);
}

/* Long conditions on messages with many headers: others get their turn in between. */
static void dear_looks_are_few(void **state)
{
    (void)state;
    enum { COUNT = 200 };
    uint8_t table[4000];
    char selector[2048] = "color = 'blue'";
    unsigned steps = 0;
    struct rig *rig = rig_with_queue();
    struct writer w = writer_of(table, sizeof table);
    for (unsigned i = 0; i < 400; i++)
        amqp_put_bool(&w, "other", true);
    struct amqp_props props = {.present = AMQP_HEADERS, .headers = writer_slice(&w)};
    for (unsigned i = 0; i < COUNT; i++)
        assert_true(rig_publish_with(rig, 1, CHANNEL, "", "q", slice_str("red"), &props, 0));
    publish(rig, "", "q", "blue");
    rig_clear(rig);
    for (size_t at = strlen(selector); at + 9 < sizeof selector && steps < 60; steps++)
        at += (size_t)snprintf(selector + at, sizeof selector - at, " OR a%u = 1", steps);
    uint8_t room[4096];
    struct ask *ask =
        ask_new(slice_str("q"), slice_str("t"), (struct slice){0}, args_of(room, sizeof room, selector, NULL));
    ask->flags = ASK_NO_ACK;
    rig_command(rig, 0, CMD_CONSUME, 1, CHANNEL)->ask = ask;
    ring_publish(&broker_port(rig->b, 0)->commands);
    for (steps = 0; rig_ready(rig, "q") > COUNT && steps < 1000; steps++) {
        rig->durable = rig->log->count;
        (void)broker_step(rig->b, rig->now, rig->wall, rig->durable);
        rig_take(rig, 0);
    }
    assert_in_range(steps, 5, 999);
    delivered(rig, "blue");
    finish(rig);
}

static void bindings(void **state)
{
    (void)state;
    uint8_t room[256];
    struct rig *rig = rig_with_queue();
    assert_true(rig_ask(rig, CMD_QUEUE_BIND, 1, CHANNEL, "q", "amq.topic", "a.*",
                        args_of(room, sizeof room, "color <> 'red'", NULL), 0));
    publish(rig, "amq.topic", "a.b", "red");
    publish(rig, "amq.topic", "a.b", "blue");
    publish(rig, "amq.topic", "b", "blue");
    assert_int_equal(rig_ready(rig, "q"), 1);
    struct rig *again =
        rig_new(rig_log_copy(rig->log, rig->log->count), NULL, 1700000000000); /* the journal has it too */
    assert_true(rig_open(again, 1));
    rig_plain(again, CMD_CHANNEL_OPEN, 1, CHANNEL, 0, 0);
    publish(again, "amq.topic", "a.b", "red");
    publish(again, "amq.topic", "a.b", "green");
    assert_int_equal(rig_ready(again, "q"), 2);
    finish(again);
    finish(rig);
}

static void refused(struct rig *rig, const char *why)
{
    if (!strstr(rig_error(rig), why))
        rig_fail("'%s' is not in '%s'", why, rig_error(rig));
    rig_clear(rig);
    rig_plain(rig, CMD_CHANNEL_CLOSE, 1, CHANNEL, 0, 0);
    rig_plain(rig, CMD_CHANNEL_OPEN, 1, CHANNEL, 0, 0);
}

/* Each message that they match asks all of them. */
static void bindings_have_a_limit(void **state)
{
    (void)state;
    uint8_t room[4096];
    char text[40];
    struct rig *rig = rig_with_queue();
    for (unsigned i = 0; i <= SELECTING_MAX; i++) {
        snprintf(text, sizeof text, "n = %u", i);
        assert_true(
            rig_ask(rig, CMD_QUEUE_BIND, 1, CHANNEL, "q", "amq.topic", "a", args_of(room, sizeof room, text, NULL), 0));
        if (i == SELECTING_MAX)
            break;
        assert_string_equal(rig_error(rig), "");
        rig_clear(rig);
    }
    refused(rig, "invalid arg 'x-selector' of a binding: the exchange has 256 with one");
    snprintf(text, sizeof text, "n = 7"); /* one that is there, and one that goes */
    assert_true(
        rig_ask(rig, CMD_QUEUE_BIND, 1, CHANNEL, "q", "amq.topic", "a", args_of(room, sizeof room, text, NULL), 0));
    assert_true(
        rig_ask(rig, CMD_QUEUE_UNBIND, 1, CHANNEL, "q", "amq.topic", "a", args_of(room, sizeof room, text, NULL), 0));
    assert_true(
        rig_ask(rig, CMD_QUEUE_BIND, 1, CHANNEL, "q", "amq.topic", "a", args_of(room, sizeof room, "m = 1", NULL), 0));
    assert_string_equal(rig_error(rig), "");
    finish(rig);
}

static void wrong_ones(void **state)
{
    (void)state;
    uint8_t room[4096];
    struct rig *rig = rig_with_queue();
    consume(rig, "x", "color =", 0);
    refused(rig, "invalid arg 'x-selector' for queue 'q' in vhost '/': a value is missing at 8");
    assert_true(
        rig_ask(rig, CMD_QUEUE_BIND, 1, CHANNEL, "q", "amq.topic", "a", args_of(room, sizeof room, "(", NULL), 0));
    refused(rig, "invalid arg 'x-selector' of a binding: a value is missing at 2");
    struct writer w = writer_of(room, sizeof room);
    amqp_put_int(&w, "x-selector", 5);
    assert_true(rig_ask(rig, CMD_CONSUME, 1, CHANNEL, "q", "x", NULL, writer_slice(&w), 0));
    refused(rig, "expected a text, got signedint");
    w = writer_of(room, sizeof room);
    amqp_put_int(&w, "x-max-priority", 5);
    assert_true(rig_ask(rig, CMD_QUEUE_DECLARE, 1, CHANNEL, "p", NULL, NULL, writer_slice(&w), ASK_DURABLE));
    assert_true(rig_ask(rig, CMD_CONSUME, 1, CHANNEL, "p", "x", NULL, args_of(room, sizeof room, "a = 1", NULL), 0));
    refused(rig, "a queue with priorities has none");
    finish(rig);
}

static void memory_refused(void **state)
{
    (void)state;
    uint64_t hit = 1;
    for (uint64_t n = 1; hit; n++) {
        uint8_t room[256];
        struct rig *rig = rig_with_queue();
        mem_fail_at(n, false);
        if (rig_ask(rig, CMD_CONSUME, 1, CHANNEL, "q", "b", NULL, args_of(room, sizeof room, "color = 'blue'", NULL),
                    0))
            (void)rig_ask(rig, CMD_QUEUE_BIND, 1, CHANNEL, "q", "amq.topic", "a",
                          args_of(room, sizeof room, "a = 1", NULL), 0);
        hit = mem_failures_hit();
        mem_fail_at(0, false);
        finish(rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(choosy_leave_the_rest),
        cmocka_unit_test(prefetch_and_returns),
        cmocka_unit_test(expired_ones_are_passed_by),
        cmocka_unit_test(many_unwanted),
        cmocka_unit_test(dear_looks_are_few),
        cmocka_unit_test(bindings),
        cmocka_unit_test(bindings_have_a_limit),
        cmocka_unit_test(wrong_ones),
        cmocka_unit_test(memory_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
