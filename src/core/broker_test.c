/* The core as a whole: scripts of commands against their effects, and after each the journal replayed into a second broker,
 * which must have the same durable state. Then the same with a random history, and with every allocation failing once. */
#include "core/broker_words_test.h"

static void confirms_wait_for_the_journal(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare(rig, "q", (struct slice){0});
    rig_plain(rig, CMD_CONFIRM_SELECT, 1, 1, 0, 0);
    consume(rig, "q", "c", 0);
    rig_clear(rig);
    rig->hold = true;
    put(rig, "q", "a");
    assert_int_equal(rig_count(rig, EFF_CONFIRM), 1);
    struct effect *e = rig_nth(rig, EFF_CONFIRM, 0);
    assert_int_equal(e->number, 1);
    assert_true(e->lsn > rig->durable && e->lsn <= rig->log->count);
    assert_int_equal(rig_count(rig, EFF_DELIVER), 0);
    rig->hold = false;
    rig_step(rig);
    assert_string_equal(rig_delivered(rig), "a");
    rig_plain(rig, CMD_ACK, 1, 1, 1, 0);
    assert_int_equal(rig_ready(rig, "q"), 0);
    restart(&rig);
    ASK(GET, "q", NULL, NULL, 0);
    assert_int_equal(rig_count(rig, EFF_GET_EMPTY), 1);
    end(rig);
}

/* Beyond a hard mark publishes are refused, and for want of memory newcomers; deliveries and acks go on. */
static void hard_alarms_refuse(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare(rig, "q", (struct slice){0});
    rig_plain(rig, CMD_CONFIRM_SELECT, 1, 1, 0, 0);
    put(rig, "q", "a");
    rig_alarm(rig, ALARM_DISK | ALARM_DISK_HARD);
    assert_int_equal(rig_count(rig, EFF_BLOCKED), 1);
    rig_clear(rig);
    put(rig, "q", "b");
    assert_int_equal(rig_count(rig, EFF_NACK), 1);
    assert_int_equal(rig_ready(rig, "q"), 1);
    consume(rig, "q", "c", 0);
    assert_string_equal(rig_delivered(rig), "a");
    rig_plain(rig, CMD_ACK, 1, 1, 1, 0);
    assert_int_equal(rig->b->totals.acked, 1);
    rig_open(rig, 2); /* whoever drains may come */
    rig_plain(rig, CMD_CHANNEL_OPEN, 2, 1, 0, 0);
    assert_string_equal(rig_error(rig), "");
    rig_publish(rig, 2, 1, "", "q", "c", true);
    assert_string_equal(rig_error(rig), "406 the broker is out of disk space: publishes are refused for now");
    rig_alarm(rig, ALARM_MEMORY | ALARM_MEMORY_HARD);
    rig_clear(rig);
    rig_open(rig, 3);
    assert_string_equal(rig_error(rig), "506 the broker is out of memory: no new connections for now");
    rig_alarm(rig, 0);
    rig_clear(rig);
    put(rig, "q", "d");
    assert_int_equal(rig_count(rig, EFF_CONFIRM), 1);
    end(rig);
}

static void requeue_keeps_its_place(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare(rig, "q", (struct slice){0});
    put(rig, "q", "a");
    put(rig, "q", "b");
    put(rig, "q", "c");
    for (int i = 0; i < 3; i++)
        ASK(GET, "q", NULL, NULL, 0);
    assert_string_equal(rig_delivered(rig), "a b c");
    rig_plain(rig, CMD_NACK, 1, 1, 2, ASK_REQUEUE);
    rig_plain(rig, CMD_NACK, 1, 1, 1, ASK_REQUEUE);
    put(rig, "q", "d");
    rig_plain(rig, CMD_NACK, 1, 1, 3, ASK_REQUEUE | ASK_MULTIPLE);
    rig_clear(rig);
    for (int i = 0; i < 4; i++)
        ASK(GET, "q", NULL, NULL, 0);
    assert_string_equal(rig_delivered(rig), "a* b* c* d");
    rig_plain(rig, CMD_RECOVER, 1, 1, 0, ASK_REQUEUE);
    rig_clear(rig);
    restart(&rig);
    consume(rig, "q", "c", 0);
    assert_string_equal(rig_delivered(rig), "a* b* c* d*");
    rig_plain(rig, CMD_ACK, 1, 1, 0, ASK_MULTIPLE);
    rig_plain(rig, CMD_ACK, 1, 1, 4, 0);
    assert_string_equal(rig_error(rig), "406 unknown delivery tag 4");
    end(rig);
}

/* Both in one tick: a publish must not become durable before the acknowledgement that its client sent first. */
static void acks_go_before_later_publishes(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare(rig, "q", (struct slice){0});
    put(rig, "q", "a");
    ASK(GET, "q", NULL, NULL, 0);
    size_t before = rig->log->count;
    rig_command(rig, 0, CMD_ACK, 1, 1)->number = 1;
    put(rig, "q", "b");
    assert_true(rig->log->count >= before + 2);
    assert_int_equal(rig->log->records[before].bytes[0], REC_REMOVE);
    end(rig);
}

static void ttl_and_limits(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct table t;
    amqp_put_long(&table(&t)->w, "x-message-ttl", 100);
    amqp_put_long(&t.w, "x-max-length", 3);
    amqp_put_str(&t.w, "x-dead-letter-exchange", slice_str(""));
    amqp_put_str(&t.w, "x-dead-letter-routing-key", slice_str("dead"));
    declare(rig, "q", writer_slice(&t.w));
    declare(rig, "dead", (struct slice){0});
    for (int i = 0; i < 5; i++)
        put(rig, "q", (char[]){(char)('a' + i), 0});
    assert_int_equal(rig_ready(rig, "q"), 3);
    assert_int_equal(rig_ready(rig, "dead"), 2);
    rig_assert_replays(rig);
    rig_pass(rig, 90);
    assert_int_equal(rig_ready(rig, "q"), 3);
    rig_pass(rig, 20);
    assert_int_equal(rig_ready(rig, "q"), 0);
    assert_int_equal(rig_ready(rig, "dead"), 5);
    restart(&rig);
    consume(rig, "dead", "c", 0);
    assert_string_equal(rig_delivered(rig), "a b c d e");
    struct amqp_props props;
    struct amqp_value v;
    assert_true(amqp_props_parse(msg_props(rig_nth(rig, EFF_DELIVER, 0)->msg), &props));
    assert_true(amqp_table_find(props.headers, "x-first-death-reason", &v));
    assert_true(slice_is(v.s, "maxlen"));
    assert_true(amqp_props_parse(msg_props(rig_nth(rig, EFF_DELIVER, 4)->msg), &props));
    assert_true(amqp_table_find(props.headers, "x-first-death-reason", &v));
    assert_true(slice_is(v.s, "expired"));
    end(rig);
}

static void ttl_while_down(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct table t;
    amqp_put_long(&table(&t)->w, "x-message-ttl", 1000);
    declare(rig, "q", writer_slice(&t.w));
    put(rig, "q", "a");
    rig->wall += 2000;
    restart(&rig);
    rig_pass(rig, 10);
    assert_int_equal(rig_ready(rig, "q"), 0);
    end(rig);
}

static void overflow_rejects(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct table t;
    amqp_put_long(&table(&t)->w, "x-max-length", 1);
    amqp_put_str(&t.w, "x-overflow", slice_str("reject-publish-dlx"));
    amqp_put_str(&t.w, "x-dead-letter-exchange", slice_str("amq.fanout"));
    declare(rig, "q", writer_slice(&t.w));
    declare(rig, "dead", (struct slice){0});
    ASK(QUEUE_BIND, "dead", "amq.fanout", "", 0);
    rig_plain(rig, CMD_CONFIRM_SELECT, 1, 1, 0, 0);
    rig_clear(rig);
    put(rig, "q", "a");
    put(rig, "q", "b");
    assert_int_equal(rig_count(rig, EFF_CONFIRM), 1);
    assert_int_equal(rig_nth(rig, EFF_NACK, 0)->number, 2);
    assert_int_equal(rig_ready(rig, "dead"), 1);
    end(rig);
}

static void priorities(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct table t;
    amqp_put_long(&table(&t)->w, "x-max-priority", 5);
    declare(rig, "q", writer_slice(&t.w));
    static const uint8_t priority[] = {0, 5, 3, 9, 3};
    for (int i = 0; i < 5; i++) {
        struct amqp_props props = {
            .present = AMQP_DELIVERY_MODE | AMQP_PRIORITY, .delivery_mode = 2, .priority = priority[i]};
        rig_publish_with(rig, 1, 1, "", "q", slice_str((char[]){(char)('a' + i), 0}), &props, 0);
    }
    rig_assert_replays(rig);
    for (int i = 0; i < 2; i++)
        ASK(GET, "q", NULL, NULL, 0);
    rig_plain(rig, CMD_NACK, 1, 1, 2, ASK_REQUEUE);
    rig_clear(rig);
    restart(&rig);
    consume(rig, "q", "c", 0);
    assert_string_equal(rig_delivered(rig), "b* d* c* e* a*");
    end(rig);
}

static void dead_letters_of_rejection(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct table t;
    assert_true(rig_ask(rig, CMD_EXCHANGE_DECLARE, 1, 1, "dlx", "direct", NULL, (struct slice){0}, ASK_DURABLE));
    amqp_put_str(&table(&t)->w, "x-dead-letter-exchange", slice_str("dlx"));
    declare(rig, "q", writer_slice(&t.w));
    declare(rig, "dead", (struct slice){0});
    ASK(QUEUE_BIND, "dead", "dlx", "q", 0);
    put(rig, "q", "a");
    ASK(GET, "q", NULL, NULL, 0);
    rig_plain(rig, CMD_NACK, 1, 1, 1, 0);
    assert_int_equal(rig_ready(rig, "q"), 0);
    assert_int_equal(rig_ready(rig, "dead"), 1);
    restart(&rig);
    assert_int_equal(rig_ready(rig, "q"), 0);
    assert_int_equal(rig_ready(rig, "dead"), 1);
    end(rig);
}

static void delayed_messages(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct table t;
    amqp_put_str(&table(&t)->w, "x-delayed-type", slice_str("fanout"));
    assert_true(
        rig_ask(rig, CMD_EXCHANGE_DECLARE, 1, 1, "late", "x-delayed-message", NULL, writer_slice(&t.w), ASK_DURABLE));
    assert_string_equal(rig_error(rig), "");
    declare(rig, "q", (struct slice){0});
    ASK(QUEUE_BIND, "q", "late", "", 0);
    for (int i = 0; i < 3; i++) {
        amqp_put_long(&table(&t)->w, "x-delay", 300 - 100 * i);
        struct amqp_props props = {
            .present = AMQP_DELIVERY_MODE | AMQP_HEADERS, .delivery_mode = 2, .headers = writer_slice(&t.w)};
        rig_publish_with(rig, 1, 1, "late", "k", slice_str((char[]){(char)('a' + i), 0}), &props, 0);
    }
    assert_string_equal(rig_error(rig), "");
    rig_assert_replays(rig);
    rig_pass(rig, 150);
    assert_int_equal(rig_ready(rig, "q"), 1);
    restart(&rig);
    rig_pass(rig, 200);
    consume(rig, "q", "c", 0);
    assert_string_equal(rig_delivered(rig), "c b a");
    end(rig);
}

static void transactions(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare(rig, "q", (struct slice){0});
    put(rig, "q", "a");
    put(rig, "q", "b");
    rig_plain(rig, CMD_TX_SELECT, 1, 1, 0, 0);
    ASK(GET, "q", NULL, NULL, 0);
    put(rig, "q", "c");
    rig_publish(rig, 1, 1, "", "q", "d", false);
    put(rig, "q", "e");
    rig_plain(rig, CMD_ACK, 1, 1, 1, 0);
    assert_int_equal(rig_ready(rig, "q"), 1);
    size_t before = rig->log->count;
    rig_clear(rig);
    rig_plain(rig, CMD_TX_COMMIT, 1, 1, 0, 0);
    assert_int_equal(rig->log->count, before + 1);
    assert_int_equal(rig_nth(rig, EFF_ANSWER, 0)->lsn, rig->log->count);
    assert_int_equal(rig_ready(rig, "q"), 4);
    rig_assert_replays(rig);
    consume(rig, "q", "c", 0);
    assert_string_equal(rig_delivered(rig),
                        "b c d e"); /* persistent around transient: all of them become deliverable */
    rig_plain(rig, CMD_ACK, 1, 1, 2, 0);
    put(rig, "q", "f");
    rig_plain(rig, CMD_TX_ROLLBACK, 1, 1, 0, 0);
    rig_plain(rig, CMD_ACK, 1, 1, 2, 0);
    rig_plain(rig, CMD_TX_COMMIT, 1, 1, 0, 0);
    restart(&rig);
    consume(rig, "q", "c", 0);
    assert_string_equal(rig_delivered(rig), "c* e*");
    end(rig);
}

static void exclusive_and_auto_delete(void **state)
{
    (void)state;
    struct rig *rig = begin();
    ASK(QUEUE_DECLARE, "x", NULL, NULL, ASK_EXCLUSIVE | ASK_DURABLE);
    ASK(QUEUE_DECLARE, "auto", NULL, NULL, ASK_AUTO_DELETE | ASK_DURABLE);
    ASK(QUEUE_BIND, "auto", "amq.topic", "a.#", 0);
    ASK(QUEUE_BIND, "x", "amq.topic", "a.#", 0);
    assert_true(rig_open(rig, 2));
    rig_plain(rig, CMD_CHANNEL_OPEN, 2, 1, 0, 0);
    rig_clear(rig);
    assert_true(rig_ask(rig, CMD_CONSUME, 2, 1, "x", "c", NULL, (struct slice){0}, 0));
    assert_true(strncmp(rig_error(rig), "405 cannot obtain exclusive access", 34) == 0);
    rig_clear(rig);
    assert_true(rig_publish(rig, 1, 1, "amq.topic", "a.b", "m", true));
    rig_assert_replays(rig);
    consume(rig, "auto", "c", 0);
    consume(rig, "x", "d", 0);
    assert_string_equal(rig_delivered(rig), "m m");
    ASK(CANCEL, "c", NULL, NULL, 0);
    assert_int_equal(rig_ready(rig, "auto"), UINT64_MAX);
    rig_plain(rig, CMD_ACK, 1, 1, 0, ASK_MULTIPLE);
    rig_plain(rig, CMD_SESSION_CLOSE, 2, 0, 0, 0);
    end(rig);
}

static void deleted_queue_tells_its_consumers(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare(rig, "q", (struct slice){0});
    consume(rig, "q", "c", 0);
    put(rig, "q", "a");
    put(rig, "q", "b");
    rig_clear(rig);
    ASK(QUEUE_DELETE, "q", NULL, NULL, 0);
    assert_int_equal(rig_count(rig, EFF_CONSUMER_GONE), 1);
    rig_assert_replays(rig);
    declare(rig, "q", (struct slice){0});
    put(rig, "q", "c");
    rig_plain(rig, CMD_ACK, 1, 1, 1, 0);
    rig_plain(rig, CMD_NACK, 1, 1, 2, ASK_REQUEUE);
    assert_string_equal(rig_error(rig), "");
    restart(&rig);
    consume(rig, "q", "c", 0);
    assert_string_equal(rig_delivered(rig), "c");
    end(rig);
}

static void single_active_consumer(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct table t;
    amqp_put_bool(&table(&t)->w, "x-single-active-consumer", true);
    declare(rig, "q", writer_slice(&t.w));
    consume(rig, "q", "c1", 0);
    consume(rig, "q", "c2", 0);
    put(rig, "q", "a");
    put(rig, "q", "b");
    assert_int_equal(rig_nth(rig, EFF_DELIVER, 0)->consumer, 1);
    assert_int_equal(rig_nth(rig, EFF_DELIVER, 1)->consumer, 1);
    ASK(CANCEL, "c1", NULL, NULL, 0);
    rig_clear(rig);
    put(rig, "q", "c");
    assert_int_equal(rig_nth(rig, EFF_DELIVER, 0)->consumer, 2);
    ASK(CANCEL, "c2", NULL, NULL, 0);
    end(rig);
}

static void direct_reply_to(void **state)
{
    (void)state;
    struct rig *rig = begin();
    consume(rig, "amq.rabbitmq.reply-to", "r", ASK_NO_ACK);
    declare(rig, "rpc", (struct slice){0});
    struct amqp_props props = {.present = AMQP_REPLY_TO, .reply_to = slice_str("amq.rabbitmq.reply-to")};
    rig_publish_with(rig, 1, 1, "", "rpc", slice_str("ask"), &props, 0);
    ASK(GET, "rpc", NULL, NULL, ASK_NO_ACK);
    char address[128];
    assert_true(amqp_props_parse(msg_props(rig_nth(rig, EFF_GET_OK, 0)->msg), &props));
    snprintf(address, sizeof address, "%.*s", SLICE_ARG(props.reply_to));
    assert_true(strlen(address) > strlen("amq.rabbitmq.reply-to."));
    rig_publish(rig, 1, 1, "", address, "answer", false);
    assert_string_equal(rig_body(rig_nth(rig, EFF_DELIVER, 0)), "answer");
    end(rig);
}

static void policies(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct table t;
    declare(rig, "limited", (struct slice){0});
    for (int i = 0; i < 4; i++)
        put(rig, "limited", "m");
    amqp_put_str(&table(&t)->w, "pattern", slice_str("^lim"));
    amqp_put_str(&t.w, "apply-to", slice_str("queues"));
    amqp_put_long(&t.w, "priority", 1);
    size_t mark = amqp_open(&t.w, "definition", 'F');
    amqp_put_long(&t.w, "max-length", 2);
    amqp_close(&t.w, mark);
    enum {
#define ADMIN(name, operands) OP_##name,
#include "core/admin.def"
#undef ADMIN
    };
    assert_true(rig_ask_full(rig, CMD_ADMIN, 1, 0, "p", "/", NULL, writer_slice(&t.w), 0, OP_POLICY_PUT));
    assert_string_equal(rig_error(rig), "");
    assert_int_equal(rig_ready(rig, "limited"), 2);
    restart(&rig);
    assert_int_equal(rig_ready(rig, "limited"), 2);
    put(rig, "limited", "n");
    assert_int_equal(rig_ready(rig, "limited"), 2);
    assert_true(rig_ask_full(rig, CMD_ADMIN, 1, 0, "p", "/", NULL, (struct slice){0}, 0, OP_POLICY_DELETE));
    assert_string_equal(rig_error(rig), "");
    put(rig, "limited", "n");
    assert_int_equal(rig_ready(rig, "limited"), 3);
    end(rig);
}

/* As RabbitMQ does it; what it knows and Millrace has no use for comes with its definitions. */
static void policies_with_unknown_settings(void **state)
{
    (void)state;
    struct rig *rig = begin();
    static const struct {
        const char *key, *error;
    } cases[] = {
        {"max-length", ""},
        {"alternate-exchange", ""},
        {"ha-mode", ""},
        {"queue-version", ""},
        {"consumer-disconnected-timeout", ""},
        {"member-placement-tag", ""},
        {"max-lenght", "406 'max-lenght' is not a recognised policy setting; did you mean 'max-length'?"},
        {"x-max-length", "406 'x-max-length' is not a recognised policy setting; did you mean 'max-length'?"},
        {"alternate_exchange", "406 'alternate_exchange' is not a recognised policy setting; did you mean "
                               "'alternate-exchange'?"},
        {"nonsense", "406 'nonsense' is not a recognised policy setting"},
    };
    enum {
#define ADMIN(name, operands) OP_##name,
#include "core/admin.def"
#undef ADMIN
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        for (unsigned operator_policy = 0; operator_policy < 2; operator_policy++) {
            struct table t;
            amqp_put_str(&table(&t)->w, "pattern", slice_str("."));
            size_t mark = amqp_open(&t.w, "definition", 'F');
            amqp_put_long(&t.w, "expires", 1000);
            amqp_put_long(&t.w, cases[i].key, 1);
            amqp_close(&t.w, mark);
            rig_clear(rig);
            assert_true(rig_ask_full(rig, CMD_ADMIN, 1, 0, "p", "/", NULL, writer_slice(&t.w),
                                     operator_policy ? ASK_INTERNAL : 0, OP_POLICY_PUT));
            assert_string_equal(rig_error(rig), cases[i].error);
        }
    end(rig);
}

static void vhost_goes_with_everything(void **state)
{
    (void)state;
    struct rig *rig = begin();
    enum {
#define ADMIN(name, operands) OP_##name,
#include "core/admin.def"
#undef ADMIN
    };
    struct table t;
    amqp_put_str(&table(&t)->w, "configure", slice_str(".*"));
    amqp_put_str(&t.w, "write", slice_str(".*"));
    amqp_put_str(&t.w, "read", slice_str(".*"));
    rig_ask_full(rig, CMD_ADMIN, 1, 0, "v", "", NULL, (struct slice){0}, 0, OP_VHOST_PUT);
    rig_ask_full(rig, CMD_ADMIN, 1, 0, "guest", "v", NULL, writer_slice(&t.w), 0, OP_PERMISSION_PUT);
    rig_ask_full(rig, CMD_ADMIN, 1, 0, "q", "v", NULL, (struct slice){0}, ASK_DURABLE, OP_QUEUE_PUT);
    assert_string_equal(rig_error(rig), "");
    rig_assert_replays(rig);
    rig_ask_full(rig, CMD_ADMIN, 1, 0, "v", "", NULL, (struct slice){0}, 0, OP_VHOST_DELETE);
    assert_string_equal(rig_error(rig), "");
    end(rig);
}

static void large_messages_in_pieces(void **state)
{
    (void)state;
    struct rig *rig = begin();
    size_t len = 1300000;
    uint8_t *body = malloc(len);
    for (size_t i = 0; i < len; i++)
        body[i] = (uint8_t)(i * 7 + i / 251);
    declare(rig, "q", (struct slice){0});
    struct amqp_props props = {.present = AMQP_DELIVERY_MODE, .delivery_mode = 2};
    size_t before = rig->log->count;
    rig_publish_with(rig, 1, 1, "", "q", slice_of(body, len), &props, 0);
    assert_int_equal(rig->log->count, before + 3);
    rig_assert_replays(rig);
    /* The COMMIT is lost: the message was never there, and what is appended after the loose pieces is whole. */
    struct rig_log *cut = rig_log_copy(rig->log, before + 2);
    struct rig *other = rig_new(cut, NULL, rig->wall);
    assert_true(begin_with(other));
    assert_int_equal(rig_ready(other, "q"), 0);
    body[0] ^= 1;
    rig_publish_with(other, 1, 1, "", "q", slice_of(body, len), &props, 0);
    rig_assert_replays(other);
    assert_int_equal(rig_ready(other, "q"), 1);
    rig_free(other);
    rig_log_free(cut);
    free(body);
    end(rig);
}

static void marks_make_redelivered(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare(rig, "q", (struct slice){0});
    put(rig, "q", "a");
    put(rig, "q", "b");
    restart(&rig); /* nothing was delivered */
    rig_plain(rig, CMD_QOS, 1, 1, 1, 0);
    consume(rig, "q", "c", 0);
    assert_string_equal(rig_delivered(rig), "a");
    rig_plain(rig, CMD_DRAIN, 1, 0, 0, 0); /* a clean stop leaves the exact mark */
    restart(&rig);
    consume(rig, "q", "c", 0);
    assert_string_equal(rig_delivered(rig), "a* b");
    end(rig);
}

static void stop_shortens_a_long_journal(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare(rig, "q", (struct slice){0});
    put(rig, "q", "a");
    rig_plain(rig, CMD_DRAIN, 1, 0, 0, 0);
    assert_int_equal(rig->log->first, 1); /* short: left as it is */
    restart(&rig);
    rig->log->live += 100u << 20;
    rig->hold = true;
    size_t before = rig->log->count;
    rig_plain(rig, CMD_DRAIN, 1, 0, 0, 0);
    assert_int_equal(rig_count(rig, EFF_ANSWER), 0); /* not before the snapshot is durable */
    rig->hold = false;
    rig_step(rig);
    assert_int_equal(rig_count(rig, EFF_ANSWER), 1);
    assert_int_equal(rig->log->first, before + 1);
    restart(&rig);
    assert_int_equal(rig_ready(rig, "q"), 1);
    end(rig);
}

/* ---- a random history ---- */

struct chance {
    uint64_t x;
};

static unsigned pick(struct chance *c, unsigned n)
{
    c->x = c->x * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)(c->x >> 33) % n;
}

static void random_declare(struct rig *rig, struct chance *c, const char *name)
{
    struct table t;
    table(&t);
    unsigned shape = (unsigned)(name[1] - '0');
    if (shape == 1)
        amqp_put_long(&t.w, "x-message-ttl", 20);
    if (shape == 2)
        amqp_put_long(&t.w, "x-max-length", 3);
    if (shape == 3)
        amqp_put_long(&t.w, "x-max-priority", 3);
    if (shape < 3) {
        amqp_put_str(&t.w, "x-dead-letter-exchange", slice_str("amq.direct"));
        amqp_put_str(&t.w, "x-dead-letter-routing-key", slice_str("q4"));
    }
    if (shape == 3 || shape == 6)
        amqp_put_long(&t.w, "x-delayed-retry-min", 4 * shape);
    if (shape == 4 || shape == 6)
        amqp_put_bool(&t.w, "x-message-deduplication", true);
    if (shape == 4)
        amqp_put_long(&t.w, "x-cache-ttl", 100);
    if (shape == 5)
        amqp_put_str(&t.w, "x-queue-type", slice_str("quorum"));
    if (shape == 5)
        amqp_put_long(&t.w, "x-delivery-limit", 2);
    rig_ask(rig, CMD_QUEUE_DECLARE, 1, (uint16_t)(1 + pick(c, 3)), name, NULL, NULL, writer_slice(&t.w), ASK_DURABLE);
    rig_ask(rig, CMD_QUEUE_BIND, 1, (uint16_t)(1 + pick(c, 3)), name, "amq.direct", name, (struct slice){0}, 0);
    rig_ask(rig, CMD_QUEUE_BIND, 1, (uint16_t)(1 + pick(c, 3)), name, "amq.fanout", "", (struct slice){0}, 0);
}

static void random_publish(struct rig *rig, struct chance *c, uint16_t channel)
{
    char key[3] = {'q', (char)('0' + pick(c, 7)), 0}, body[32], expiration[8];
    struct table t;
    table(&t);
    snprintf(body, sizeof body, "m%u", pick(c, 1000000));
    struct amqp_props props = {.present = AMQP_DELIVERY_MODE | AMQP_PRIORITY,
                               .delivery_mode = (uint8_t)(1 + (pick(c, 4) != 0)),
                               .priority = (uint8_t)pick(c, 5)};
    if (pick(c, 6) == 0) {
        snprintf(expiration, sizeof expiration, "%u", pick(c, 30));
        props.present |= AMQP_EXPIRATION;
        props.expiration = slice_str(expiration);
    }
    const char *exchanges[] = {"", "amq.direct", "amq.fanout", "late"};
    unsigned x = pick(c, 4);
    if (x == 3)
        amqp_put_long(&t.w, "x-delay", pick(c, 50));
    if (pick(c, 2))
        amqp_put_long(&t.w, DEDUP_HEADER, pick(c, 12));
    if (t.w.len) {
        props.present |= AMQP_HEADERS;
        props.headers = writer_slice(&t.w);
    }
    (void)rig_publish_with(rig, 1, channel, exchanges[x], key, slice_str(body), &props, pick(c, 8) ? 0 : MSG_MANDATORY);
}

static void random_op(struct rig *rig, struct chance *c, uint64_t *tags)
{
    uint16_t channel = (uint16_t)(1 + pick(c, 3));
    char name[3] = {'q', (char)('0' + pick(c, 7)), 0}, tag[3] = {'c', (char)('0' + pick(c, 7)), 0};
    uint64_t number = tags[channel] ? 1 + pick(c, (unsigned)tags[channel]) : 1;
    uint32_t multiple = pick(c, 4) ? 0 : ASK_MULTIPLE;
    switch (pick(c, 24)) {
    case 0: random_declare(rig, c, name); break;
    case 1:
        rig_ask(rig, CMD_CONSUME, 1, channel, name, tag, NULL, (struct slice){0}, pick(c, 3) ? 0 : ASK_NO_ACK);
        break;
    case 2: rig_ask(rig, CMD_CANCEL, 1, channel, tag, NULL, NULL, (struct slice){0}, 0); break;
    case 3:
    case 4: rig_ask(rig, CMD_GET, 1, channel, name, NULL, NULL, (struct slice){0}, pick(c, 3) ? 0 : ASK_NO_ACK); break;
    case 5:
    case 6:
    case 7: rig_plain(rig, CMD_ACK, 1, channel, number, multiple); break;
    case 8: rig_plain(rig, CMD_NACK, 1, channel, number, multiple | ASK_REQUEUE); break;
    case 9: rig_plain(rig, CMD_NACK, 1, channel, number, multiple); break;
    case 10: rig_pass(rig, pick(c, 6) ? 5 * (1 + pick(c, 4)) : 1100); break; /* queues come to rest */
    case 11: rig_plain(rig, pick(c, 2) ? CMD_TX_COMMIT : CMD_TX_ROLLBACK, 1, channel, 0, 0); break;
    case 12:
        if (pick(c, 4) == 0)
            rig_ask(rig, CMD_QUEUE_DELETE, 1, channel, name, NULL, NULL, (struct slice){0}, 0);
        else if (pick(c, 3) == 0)
            rig_ask(rig, CMD_QUEUE_PURGE, 1, channel, name, NULL, NULL, (struct slice){0}, 0);
        break;
    case 13: rig_plain(rig, CMD_QOS, 1, channel, pick(c, 4), pick(c, 2) ? ASK_GLOBAL : 0); break;
    case 14: rig_plain(rig, CMD_RECOVER, 1, channel, 0, ASK_REQUEUE); break;
    case 15: rig->hold = !rig->hold; break;
    default: random_publish(rig, c, channel); break;
    }
    for (unsigned i = 0; i < rig->effect_count; i++) {
        struct effect *e = &rig->effects[i];
        if (e->type == EFF_DELIVER || e->type == EFF_GET_OK) {
            tags[e->channel] = e->number;
            rig_command(rig, 0, CMD_CREDIT, 1, 0)->number = delivery_cost(e->msg);
        }
        if (e->type == EFF_ERROR && e->channel) {
            rig_command(rig, 0, CMD_CHANNEL_CLOSE, 1, e->channel);
            rig_command(rig, 0, CMD_CHANNEL_OPEN, 1, e->channel);
            if (e->channel == 2)
                rig_command(rig, 0, CMD_TX_SELECT, 1, 2);
            if (e->channel == 3)
                rig_command(rig, 0, CMD_CONFIRM_SELECT, 1, 3);
            tags[e->channel] = 0;
            rig->seq[1][e->channel] = 0;
        }
    }
    rig_clear(rig);
    rig_step(rig);
}

static void random_setup(struct rig *rig, struct chance *c)
{
    struct table t;
    rig_plain(rig, CMD_CHANNEL_OPEN, 1, 2, 0, 0);
    rig_plain(rig, CMD_CHANNEL_OPEN, 1, 3, 0, 0);
    rig_plain(rig, CMD_TX_SELECT, 1, 2, 0, 0);
    rig_plain(rig, CMD_CONFIRM_SELECT, 1, 3, 0, 0);
    amqp_put_str(&table(&t)->w, "x-delayed-type", slice_str("direct"));
    rig_ask(rig, CMD_EXCHANGE_DECLARE, 1, 1, "late", "x-delayed-message", NULL, writer_slice(&t.w), ASK_DURABLE);
    for (int i = 0; i < 7; i++) {
        char name[3] = {'q', (char)('0' + i), 0};
        random_declare(rig, c, name);
        rig_ask(rig, CMD_QUEUE_BIND, 1, 1, name, "late", name, (struct slice){0}, 0);
    }
    rig_clear(rig);
}

static uint64_t moved; /* pages, in the histories so far */

static void random_history(uint64_t seed, unsigned ops, uint64_t compact_every, bool paged, uint64_t *written,
                           uint64_t *read, uint64_t *dropped)
{
    struct chance c = {seed};
    uint64_t tags[4] = {0};
    struct rig *rig = begin_options(&(struct broker_options){
        .compact_every = compact_every, .paging_bytes = paged ? 1000 : 0, .page_bytes = paged ? 200 : 0});
    rig->slow_store = paged && seed % 2;
    rig->log->drops = true;
    random_setup(rig, &c);
    for (unsigned i = 0; i < ops; i++) {
        random_op(rig, &c, tags);
        if (i % 16 == 0)
            rig_assert_replays(rig);
        if (i % 64 == 63 && !rig->hold) {
            moved += rig->b->pages_moved;
            restart(&rig);
            memset(tags, 0, sizeof tags);
            random_setup(rig, &c);
        }
    }
    rig->hold = false;
    rig_step(rig);
    if (paged) {
        *written += rig->log->store->written;
        *read += rig->log->store->read;
        *dropped += rig->log->store->dropped;
        moved += rig->b->pages_moved;
    }
    end(rig);
}

static void random_histories_replay(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++)
        random_history(seed, 400, 0, false, NULL, NULL, NULL);
}

static void random_histories_compact(void **state)
{
    (void)state;
    for (uint64_t seed = 100; seed < 112; seed++)
        random_history(seed, 400, 7, false, NULL, NULL, NULL);
}

static void random_histories_page(void **state)
{
    (void)state;
    unsigned long long first = getenv("RIG_SEED") ? strtoull(getenv("RIG_SEED"), NULL, 10) : 200;
    unsigned count = getenv("RIG_COUNT") ? (unsigned)strtoul(getenv("RIG_COUNT"), NULL, 10) : 30;
    /* returns and retries of a page that moved during a snapshot; the key of what outlived one purge, and not the next */
    static const uint64_t found[] = {343, 415, 403};
    uint64_t written = 0, read = 0, dropped = 0;
    for (uint64_t seed = first; seed < first + count; seed++)
        random_history(seed, 600, seed % 3 ? 40 : 0, true, &written, &read, &dropped);
    for (size_t i = 0; i < ARRAY_LEN(found); i++)
        random_history(found[i], 600, found[i] % 3 ? 40 : 0, true, &written, &read, &dropped);
    assert_true(written > 0 && read > 0 && dropped > 0 && moved > 0);
}

/* Every prefix of a journal starts a broker, whose state holds its invariants. */
static void every_prefix_starts(void **state)
{
    (void)state;
    struct chance c = {77};
    uint64_t tags[4] = {0};
    struct rig *rig = begin();
    random_setup(rig, &c);
    for (unsigned i = 0; i < 300; i++)
        random_op(rig, &c, tags);
    for (size_t n = 0; n <= rig->log->count; n++) {
        struct rig_log *copy = rig_log_copy(rig->log, n);
        struct rig *other = rig_new(copy, NULL, rig->wall + 10);
        rig_step(other);
        rig_free(other);
        rig_log_free(copy);
    }
    rig->hold = false;
    rig_step(rig);
    end(rig);
}

/* ---- failing allocations ---- */

/* The script goes on after a failure as far as it can; the session may be gone. */
static void oom_script(struct rig *rig, uint64_t seed)
{
    struct chance c = {seed};
    uint64_t tags[4] = {0};
    if (!begin_with(rig))
        return;
    random_setup(rig, &c);
    for (unsigned i = 0; i < 60; i++)
        random_op(rig, &c, tags);
}

static void every_allocation_fails_once(void **state)
{
    (void)state;
    for (int for_ever = 0; for_ever < 2; for_ever++)
        for (uint64_t n = 1;; n += for_ever ? 3 : 1) {
            struct rig_log *log = rig_log_new();
            mem_fail_at(n, for_ever);
            const char *why;
            struct rig *rig = rig_try(log, &(struct broker_options){.compact_every = 20}, 1700000000000, &why);
            rig->check = false;
            rig->starved = true;
            if (!why)
                oom_script(rig, 5);
            uint64_t hit = mem_failures_hit();
            mem_fail_at(0, false);
            if (getenv("RIG_TALK"))
                print_message("%s allocation %llu\n", for_ever ? "from" : "only", (unsigned long long)n);
            if (!why) {
                rig->hold = false;
                rig->check = true;
                rig->starved = false;
                rig_step(rig);
                rig_assert_nothing_lost(rig);
            }
            rig_free(rig);
            rig_log_free(log);
            if (!hit)
                break;
        }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(confirms_wait_for_the_journal),
        cmocka_unit_test(requeue_keeps_its_place),
        cmocka_unit_test(hard_alarms_refuse),
        cmocka_unit_test(acks_go_before_later_publishes),
        cmocka_unit_test(ttl_and_limits),
        cmocka_unit_test(ttl_while_down),
        cmocka_unit_test(overflow_rejects),
        cmocka_unit_test(priorities),
        cmocka_unit_test(dead_letters_of_rejection),
        cmocka_unit_test(delayed_messages),
        cmocka_unit_test(transactions),
        cmocka_unit_test(exclusive_and_auto_delete),
        cmocka_unit_test(deleted_queue_tells_its_consumers),
        cmocka_unit_test(single_active_consumer),
        cmocka_unit_test(direct_reply_to),
        cmocka_unit_test(policies),
        cmocka_unit_test(policies_with_unknown_settings),
        cmocka_unit_test(vhost_goes_with_everything),
        cmocka_unit_test(large_messages_in_pieces),
        cmocka_unit_test(marks_make_redelivered),
        cmocka_unit_test(stop_shortens_a_long_journal),
        cmocka_unit_test(random_histories_replay),
        cmocka_unit_test(random_histories_compact),
        cmocka_unit_test(random_histories_page),
        cmocka_unit_test(every_prefix_starts),
        cmocka_unit_test(every_allocation_fails_once),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
