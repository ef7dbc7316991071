/* dedup: what is a duplicate, for how long, and that a crash leaves a message and its key or neither. */
#include "core/broker_words_test.h"

struct ways { /* what a queue is declared with */
    int64_t size, ttl;
    const char *header, *dlx_key;
};

static void declare_ways(struct rig *rig, const char *queue, struct ways ways)
{
    struct table t;
    amqp_put_bool(&table(&t)->w, "x-message-deduplication", true);
    if (ways.size)
        amqp_put_long(&t.w, "x-cache-size", ways.size);
    if (ways.ttl)
        amqp_put_long(&t.w, "x-cache-ttl", ways.ttl);
    if (ways.header)
        amqp_put_str(&t.w, "x-deduplication-header", slice_str(ways.header));
    if (ways.dlx_key) {
        amqp_put_str(&t.w, "x-dead-letter-exchange", (struct slice){0});
        amqp_put_str(&t.w, "x-dead-letter-routing-key", slice_str(ways.dlx_key));
    }
    declare(rig, queue, writer_slice(&t.w));
}

static bool try_put(struct rig *rig, uint16_t channel, const char *exchange, const char *queue, const char *key,
                    const char *body, bool persistent)
{
    struct table t;
    struct amqp_props props = {.present = AMQP_DELIVERY_MODE | AMQP_HEADERS, .delivery_mode = persistent ? 2 : 1};
    amqp_put_str(&table(&t)->w, DEDUP_HEADER, slice_str(key));
    props.headers = writer_slice(&t.w);
    return rig_publish_with(rig, 1, channel, exchange, queue, slice_str(body), &props, 0);
}

static void put_key(struct rig *rig, const char *queue, const char *key, const char *body)
{
    assert_true(try_put(rig, 1, "", queue, key, body, true));
    assert_string_equal(rig_error(rig), "");
}

static void put_headers(struct rig *rig, const char *queue, struct slice headers, const char *body)
{
    struct amqp_props props = {.present = AMQP_DELIVERY_MODE | AMQP_HEADERS, .delivery_mode = 2, .headers = headers};
    assert_true(rig_publish_with(rig, 1, 1, "", queue, slice_str(body), &props, 0));
}

static const char *get(struct rig *rig, const char *queue, unsigned count)
{
    rig_clear(rig);
    for (unsigned i = 0; i < count; i++)
        ASK(GET, queue, NULL, NULL, ASK_NO_ACK);
    return rig_delivered(rig);
}

static uint64_t duplicates(struct rig *rig)
{
    struct broker_totals totals;
    broker_totals(rig->b, &totals);
    return totals.duplicates;
}

static void compact(struct rig *rig)
{
    uint64_t before = rig->b->totals.compactions;
    compact_start(rig->b);
    for (int i = 0; i < 400 && rig->b->totals.compactions == before; i++)
        rig_step(rig);
    assert_true(rig->b->totals.compactions > before);
}

static uint32_t keys(struct rig *rig, const char *queue)
{
    struct queue *q = queue_find(vhost_find(rig->b, slice_str("/")), slice_str(queue));
    return q->extra ? q->extra->window.count : 0;
}

static void while_it_is_there(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_ways(rig, "q", (struct ways){0});
    put_key(rig, "q", "a", "1");
    put_key(rig, "q", "a", "2");
    put_key(rig, "q", "b", "3");
    put(rig, "q", "4");
    put(rig, "q", "5");
    assert_int_equal(rig_count(rig, EFF_CONFIRM), 5);
    assert_int_equal(duplicates(rig), 1);
    assert_int_equal(rig_ready(rig, "q"), 4);
    rig_clear(rig);
    ASK(GET, "q", NULL, NULL, 0); /* unacknowledged, it is still there */
    put_key(rig, "q", "a", "6");
    assert_int_equal(rig_ready(rig, "q"), 3);
    rig_plain(rig, CMD_NACK, 1, 1, 1, ASK_REQUEUE);
    put_key(rig, "q", "a", "7");
    assert_int_equal(rig_ready(rig, "q"), 4);
    assert_string_equal(get(rig, "q", 1), "1*");
    put_key(rig, "q", "a", "8");
    restart(&rig);
    put_key(rig, "q", "a", "9");
    put_key(rig, "q", "b", "10");
    compact(rig);
    restart(&rig);
    put_key(rig, "q", "a", "11");
    assert_string_equal(get(rig, "q", 9), "3* 4* 5* 8*");
    assert_int_equal(keys(rig, "q"), 0);
    put_key(rig, "q", "b", "12");
    ASK(QUEUE_PURGE, "q", NULL, NULL, 0);
    put_key(rig, "q", "b", "13");
    assert_string_equal(get(rig, "q", 9), "13");
    end(rig);
}

static void for_a_time(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_ways(rig, "q", (struct ways){.ttl = 1000});
    put_key(rig, "q", "a", "1");
    assert_string_equal(get(rig, "q", 1), "1");
    rig_pass(rig, 900);
    put_key(rig, "q", "a", "2"); /* does not begin its time anew */
    put_key(rig, "q", "b", "3");
    restart(&rig);
    put_key(rig, "q", "a", "4");
    compact(rig);
    rig->log->drops = true;
    restart(&rig);
    put_key(rig, "q", "a", "5");
    put_key(rig, "q", "b", "6");
    assert_string_equal(get(rig, "q", 9), "3*");
    rig_pass(rig, 200);
    put_key(rig, "q", "a", "7");
    put_key(rig, "q", "b", "8");
    restart(&rig);
    put_key(rig, "q", "a", "9");
    assert_string_equal(get(rig, "q", 9), "7");
    compact(rig);
    rig->wall += 5000;
    restart(&rig); /* all times have come while it was down */
    assert_int_equal(keys(rig, "q"), 0);
    put_key(rig, "q", "a", "10");
    struct table t;
    amqp_put_str(&table(&t)->w, DEDUP_HEADER, slice_str("c"));
    amqp_put_int(&t.w, "x-cache-ttl", 50); /* of this message */
    put_headers(rig, "q", writer_slice(&t.w), "11");
    put_headers(rig, "q", writer_slice(&t.w), "12");
    rig_pass(rig, 100);
    put_headers(rig, "q", writer_slice(&t.w), "13");
    put_key(rig, "q", "a", "14");
    assert_string_equal(get(rig, "q", 9), "10 11 13");
    end(rig);
}

/* A duplicate is confirmed when what it is a duplicate of is on disk. */
static void confirm_waits(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_ways(rig, "q", (struct ways){.ttl = 1000});
    rig_plain(rig, CMD_CONFIRM_SELECT, 1, 1, 0, 0);
    rig->hold = true;
    put_key(rig, "q", "a", "1");
    lsn_t original = rig_nth(rig, EFF_CONFIRM, 0)->lsn;
    rig_clear(rig);
    put_key(rig, "q", "a", "2");
    assert_true(original > rig->durable);
    assert_true(rig_nth(rig, EFF_CONFIRM, 0)->lsn >= original);
    rig->hold = false;
    end(rig);
}

static void oldest_go_first(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_ways(rig, "q", (struct ways){.size = 3, .ttl = 100000});
    const char *const names[] = {"a", "b", "c", "d", "a", "b", "d", "c"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        put_key(rig, "q", names[i], names[i]);
    assert_int_equal(keys(rig, "q"), 3);
    compact(rig);
    restart(&rig);
    assert_int_equal(keys(rig, "q"), 3);
    put_key(rig, "q", "c", "again");
    put_key(rig, "q", "d", "again");
    assert_string_equal(get(rig, "q", 20), "a b c d a b c again");
    end(rig);
}

static void what_a_key_is(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct table t;
    declare_ways(rig, "q", (struct ways){.header = "order"});
    amqp_put_int(&table(&t)->w, "order", 5);
    put_headers(rig, "q", writer_slice(&t.w), "1");
    amqp_put_long(&table(&t)->w, "order", 5);
    put_headers(rig, "q", writer_slice(&t.w), "2");
    amqp_put_str(&table(&t)->w, "order", slice_str("5"));
    put_headers(rig, "q", writer_slice(&t.w), "3");
    amqp_put_str(&table(&t)->w, "order", slice_str("\0\0\0\0\0\0\0\5"));
    put_headers(rig, "q", writer_slice(&t.w), "4"); /* empty, for C */
    put_headers(rig, "q", writer_slice(&t.w), "5");
    amqp_put_bool(&table(&t)->w, "order", true);
    put_headers(rig, "q", writer_slice(&t.w), "6");
    put_headers(rig, "q", writer_slice(&t.w), "7");
    put_key(rig, "q", "x", "8"); /* of another header */
    put_key(rig, "q", "x", "9");
    restart(&rig);
    amqp_put_long(&table(&t)->w, "order", 5);
    put_headers(rig, "q", writer_slice(&t.w), "10");
    assert_string_equal(get(rig, "q", 20), "1 3 4 6 8 9");
    end(rig);
}

static void of_a_policy(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct vhost *vhost = vhost_find(rig->b, slice_str("/"));
    struct table t;
    char text[200];
    declare(rig, "q", (struct slice){0});
    put_key(rig, "q", "a", "1");
    amqp_put_bool(&table(&t)->w, "message-deduplication", true);
    amqp_put_str(&t.w, "deduplication-header", slice_str(DEDUP_HEADER));
    amqp_put_long(&t.w, "cache-ttl", 1000);
    amqp_put_long(&t.w, "cache-size", 10);
    assert_true(policy_put(rig->b, vhost, slice_str("p"), slice_str("^q"), APPLY_QUEUES, 1, writer_slice(&t.w), false,
                           text, sizeof text));
    (void)log_object(rig->b, &policy_find(vhost, slice_str("p"), false)->object);
    put_key(rig, "q", "a", "2");
    put_key(rig, "q", "a", "3");
    compact(rig);
    restart(&rig);
    put_key(rig, "q", "a", "4");
    assert_int_equal(keys(rig, "q"), 1);
    vhost = vhost_find(rig->b, slice_str("/"));
    amqp_put_bool(&table(&t)->w, "message-deduplication", true);
    amqp_put_str(&t.w, "deduplication-header", slice_str("other"));
    assert_true(policy_put(rig->b, vhost, slice_str("p"), slice_str("^q"), APPLY_QUEUES, 1, writer_slice(&t.w), false,
                           text, sizeof text));
    assert_int_equal(keys(rig, "q"), 0);
    (void)log_object(rig->b, &policy_find(vhost, slice_str("p"), false)->object);
    put_key(rig, "q", "a", "5");
    put_key(rig, "q", "a", "6");
    assert_string_equal(get(rig, "q", 20), "1 2 5 6");
    end(rig);
}

static void arguments(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        int64_t number;
        const char *text, *error;
    } wrong[] = {
        {"x-message-deduplication", 1, NULL, "{unacceptable_type,long}"},
        {"x-cache-size", 0, NULL, "{value_zero,0}"},
        {"x-cache-size", DEDUP_KEYS_MAX + 1, NULL, "{max_value_exceeded,16777217}"},
        {"x-cache-ttl", -1, NULL, "{value_negative,-1}"},
        {"x-cache-ttl", 0, "x", "\"expected integer, got longstr\""},
        {"x-deduplication-header", 0, "", "\"expected the name of a header\""},
    };
    struct rig *rig = begin();
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        struct table t;
        char expected[200];
        if (wrong[i].text)
            amqp_put_str(&table(&t)->w, wrong[i].key, slice_str(wrong[i].text));
        else
            amqp_put_long(&table(&t)->w, wrong[i].key, wrong[i].number);
        rig_ask(rig, CMD_QUEUE_DECLARE, 1, 1, "q", NULL, NULL, writer_slice(&t.w), ASK_DURABLE);
        snprintf(expected, sizeof expected, "406 invalid arg '%s' for queue 'q' in vhost '/': %s", wrong[i].key,
                 wrong[i].error);
        assert_string_equal(rig_error(rig), expected);
        rig_plain(rig, CMD_CHANNEL_CLOSE, 1, 1, 0, 0);
        rig_plain(rig, CMD_CHANNEL_OPEN, 1, 1, 0, 0);
        rig_clear(rig);
    }
    struct table t;
    amqp_put_str(&table(&t)->w, "x-queue-type", slice_str("stream"));
    amqp_put_bool(&t.w, "x-message-deduplication", true);
    rig_ask(rig, CMD_QUEUE_DECLARE, 1, 1, "q", NULL, NULL, writer_slice(&t.w), ASK_DURABLE);
    assert_string_equal(rig_error(rig), "406 invalid arg 'x-message-deduplication' for queue 'q' in vhost '/' of queue "
                                        "type rabbit_stream_queue");
    rig_plain(rig, CMD_CHANNEL_CLOSE, 1, 1, 0, 0);
    rig_plain(rig, CMD_CHANNEL_OPEN, 1, 1, 0, 0);
    rig_clear(rig);
    declare_ways(rig, "q", (struct ways){.size = 5});
    amqp_put_bool(&table(&t)->w, "x-message-deduplication", true);
    amqp_put_long(&t.w, "x-cache-size", 6);
    rig_ask(rig, CMD_QUEUE_DECLARE, 1, 1, "q", NULL, NULL, writer_slice(&t.w), ASK_DURABLE);
    assert_string_equal(rig_error(rig), "406 inequivalent arg 'x-cache-size' for queue 'q' in vhost '/': received '6' "
                                        "but current is '5'");
    rig_plain(rig, CMD_CHANNEL_CLOSE, 1, 1, 0, 0);
    end(rig);
}

static void in_transactions(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_ways(rig, "q", (struct ways){.ttl = 10000});
    rig_plain(rig, CMD_CHANNEL_OPEN, 1, 2, 0, 0);
    rig_plain(rig, CMD_TX_SELECT, 1, 2, 0, 0);
    assert_true(try_put(rig, 2, "", "q", "a", "1", true));
    rig_plain(rig, CMD_TX_ROLLBACK, 1, 2, 0, 0);
    assert_true(try_put(rig, 2, "", "q", "a", "2", true));
    put_key(rig, "q", "b", "3");
    assert_true(try_put(rig, 2, "", "q", "b", "4", true));
    assert_true(try_put(rig, 2, "", "q", "a", "5", true));
    rig_plain(rig, CMD_TX_COMMIT, 1, 2, 0, 0);
    assert_int_equal(duplicates(rig), 2);
    rig->hold = true;
    put_key(rig, "q", "c", "6");
    assert_true(try_put(rig, 2, "", "q", "c", "7", true));
    rig_clear(rig);
    rig_plain(rig, CMD_TX_COMMIT, 1, 2, 0, 0); /* nothing of its own, but it promises the message that is there */
    assert_true(rig_nth(rig, EFF_ANSWER, 0)->lsn > rig->durable);
    rig->hold = false;
    rig_step(rig);
    restart(&rig);
    put_key(rig, "q", "a", "8");
    assert_string_equal(get(rig, "q", 9), "3 2 6");
    end(rig);
}

/* What is dead-lettered from elsewhere is looked at like what is published; what comes back to the queue it died in is not
 * lost, though its key is known there. */
static void dead_letters_and_delays(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct table t;
    declare_ways(rig, "q", (struct ways){.ttl = 100000, .dlx_key = "wait"});
    amqp_put_str(&table(&t)->w, "x-dead-letter-exchange", (struct slice){0});
    amqp_put_str(&t.w, "x-dead-letter-routing-key", slice_str("q"));
    amqp_put_long(&t.w, "x-message-ttl", 100);
    declare(rig, "wait", writer_slice(&t.w));
    put_key(rig, "q", "a", "1");
    rig_clear(rig);
    ASK(GET, "q", NULL, NULL, 0);
    rig_plain(rig, CMD_NACK, 1, 1, 1, 0);
    assert_int_equal(rig_ready(rig, "wait"), 1);
    put_key(rig, "q", "a", "2");
    assert_int_equal(rig_ready(rig, "q"), 0);
    put_key(rig, "wait", "a", "3");
    rig_pass(rig, 200);
    assert_string_equal(get(rig, "q", 9), "1");
    amqp_put_str(&table(&t)->w, "x-delayed-type", slice_str("direct"));
    rig_ask(rig, CMD_EXCHANGE_DECLARE, 1, 1, "late", "x-delayed-message", NULL, writer_slice(&t.w), ASK_DURABLE);
    ASK(QUEUE_BIND, "q", "late", "q", 0);
    for (int i = 0; i < 2; i++) {
        char body[2] = {(char)('4' + i), 0};
        amqp_put_str(&table(&t)->w, DEDUP_HEADER, slice_str("d"));
        amqp_put_long(&t.w, "x-delay", 100);
        struct amqp_props props = {
            .present = AMQP_DELIVERY_MODE | AMQP_HEADERS, .delivery_mode = 2, .headers = writer_slice(&t.w)};
        assert_true(rig_publish_with(rig, 1, 1, "late", "q", slice_str(body), &props, 0));
    }
    rig_pass(rig, 200);
    assert_string_equal(get(rig, "q", 9), "4");
    assert_int_equal(rig->b->totals.messages, 0);
    end(rig);
}

/* Only the queue that asks for it deduplicates; nothing is returned as unroutable. */
static void one_of_two_queues(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_ways(rig, "q", (struct ways){.ttl = 100000});
    declare(rig, "p", (struct slice){0});
    ASK(QUEUE_BIND, "q", "amq.fanout", "", 0);
    ASK(QUEUE_BIND, "p", "amq.fanout", "", 0);
    rig_clear(rig);
    for (int i = 0; i < 3; i++)
        assert_true(try_put(rig, 1, "amq.fanout", "", "a", "x", true));
    assert_int_equal(rig_ready(rig, "q"), 1);
    assert_int_equal(rig_ready(rig, "p"), 3);
    assert_int_equal(rig_count(rig, EFF_RETURN), 0);
    assert_int_equal(keys(rig, "p"), 0);
    assert_true(try_put(rig, 1, "", "q", "t", "transient", false));
    compact(rig);
    restart(&rig); /* a transient message is gone, and so is its key */
    assert_int_equal(keys(rig, "q"), 1);
    assert_true(try_put(rig, 1, "", "q", "t", "transient", false));
    assert_string_equal(get(rig, "q", 9), "x transient");
    end(rig);
}

static void in_pages(void **state)
{
    (void)state;
    struct rig *rig = begin_options(&(struct broker_options){.paging_bytes = 1, .page_bytes = 150});
    char key[16];
    declare_ways(rig, "q", (struct ways){0});
    for (int round = 0; round < 2; round++)
        for (unsigned i = 0; i < 600; i++) { /* more than the table begins with */
            snprintf(key, sizeof key, "%u", i);
            put_key(rig, "q", key, key);
            rig_clear(rig);
        }
    assert_int_equal(rig_ready(rig, "q"), 600);
    assert_true(rig->b->paged > 500);
    compact(rig);
    restart(&rig);
    assert_int_equal(keys(rig, "q"), 600);
    for (unsigned i = 0; i < 600; i++) {
        snprintf(key, sizeof key, "%u", i);
        put_key(rig, "q", key, "again");
        rig_clear(rig);
    }
    assert_int_equal(rig_ready(rig, "q"), 600);
    ASK(GET, "q", NULL, NULL, 0);
    ASK(GET, "q", NULL, NULL, 0);
    assert_string_equal(get(rig, "q", 2), "2 3");
    put_key(rig, "q", "2", "new");
    ASK(QUEUE_PURGE, "q", NULL, NULL, 0);
    rig_assert_replays(rig);
    put_key(rig, "q", "0", "again"); /* unacknowledged */
    put_key(rig, "q", "599", "new");
    rig_plain(rig, CMD_ACK, 1, 1, 1, 0);
    put_key(rig, "q", "0", "new0");
    assert_string_equal(get(rig, "q", 9), "new new0");
    end(rig);
}

/* What a purge left, as it was unacknowledged, came back and is gone with the next one. */
static void purged_again(void **state)
{
    (void)state;
    struct rig *rig = begin_options(&(struct broker_options){.paging_bytes = 1, .page_bytes = 150});
    char key[16];
    declare_ways(rig, "q", (struct ways){0});
    put_key(rig, "q", "first", "kept");
    put_key(rig, "q", "second", "gone");
    ASK(GET, "q", NULL, NULL, 0);
    ASK(QUEUE_PURGE, "q", NULL, NULL, 0);
    rig_plain(rig, CMD_NACK, 1, 1, 1, ASK_REQUEUE);
    for (unsigned i = 0; i < 100; i++) {
        snprintf(key, sizeof key, "%u", i);
        put_key(rig, "q", key, key);
        rig_clear(rig);
    }
    assert_true(rig->b->paged > 90);
    put_key(rig, "q", "first", "again");
    assert_int_equal(rig_ready(rig, "q"), 101);
    ASK(QUEUE_PURGE, "q", NULL, NULL, 0);
    rig_assert_replays(rig);
    put_key(rig, "q", "first", "new");
    assert_string_equal(get(rig, "q", 9), "new");
    end(rig);
}

/* D1, at every place where the journal may end. */
static void message_and_key_or_neither(void **state)
{
    (void)state;
    struct rig *rig = begin();
    char key[16];
    declare_ways(rig, "q", (struct ways){0});
    rig_plain(rig, CMD_CHANNEL_OPEN, 1, 2, 0, 0);
    rig_plain(rig, CMD_TX_SELECT, 1, 2, 0, 0);
    for (unsigned i = 0; i < 40; i++) {
        snprintf(key, sizeof key, "%u", i);
        assert_true(try_put(rig, i % 3 ? 1 : 2, "", "q", key, key, true));
        if (i % 5 == 0)
            rig_plain(rig, CMD_TX_COMMIT, 1, 2, 0, 0);
        if (i % 4 == 3)
            (void)get(rig, "q", 1);
        if (i == 30)
            compact(rig);
    }
    for (size_t n = rig->log->first; n <= rig->log->count; n++) {
        struct rig_log *copy = rig_log_copy(rig->log, n);
        struct rig *other = rig_new(copy, NULL, rig->wall);
        struct queue *q = queue_find(vhost_find(other->b, slice_str("/")), slice_str("q"));
        if (q)
            assert_int_equal(q->extra ? q->extra->window.count : 0, q->busy->ready_count);
        rig_free(other);
        rig_log_free(copy);
    }
    end(rig);
}

/* A compaction stands still where it is. */
static void pause_compaction(struct rig *rig)
{
    wheel_set(&rig->b->wheel, &rig->b->compact.retry, rig->now + NS_PER_S);
}

static void step(struct rig *rig)
{
    rig->durable = rig->log->count;
    (void)broker_step(rig->b, rig->now, rig->wall, rig->durable);
    rig_take(rig, 0);
}

/* Keys come while a compaction has written the queue and not its window, and go where it stands in the window. */
static void while_compacting(void **state)
{
    (void)state;
    struct rig *rig = begin_options(&(struct broker_options){.compact_slice_bytes = 1});
    char key[16];
    declare_ways(rig, "q", (struct ways){0});
    for (unsigned i = 0; i < 700; i++) {
        snprintf(key, sizeof key, "%u", i);
        put_key(rig, "q", key, key);
        rig_clear(rig);
    }
    compact_start(rig->b);
    while (rig->b->compact.phase != COMPACT_MESSAGES)
        step(rig);
    pause_compaction(rig);
    put_key(rig, "q", "early", "early");
    wheel_cancel(&rig->b->wheel, &rig->b->compact.retry);
    while (!rig->b->compact.key || rig->b->compact.key->prev == &rig->b->compact.queue->extra->window.keys)
        step(rig);
    pause_compaction(rig);
    put_key(rig, "q", "late", "late");
    for (unsigned i = 0; i < 300; i++) { /* the key where it stands goes too */
        ASK(GET, "q", NULL, NULL, ASK_NO_ACK);
        rig_clear(rig);
    }
    wheel_cancel(&rig->b->wheel, &rig->b->compact.retry);
    rig_step(rig);
    assert_int_equal(rig->b->totals.compactions, 1);
    restart(&rig);
    assert_int_equal(keys(rig, "q"), 402);
    put_key(rig, "q", "early", "again");
    put_key(rig, "q", "late", "again");
    put_key(rig, "q", "300", "again");
    assert_int_equal(rig_ready(rig, "q"), 402);
    put_key(rig, "q", "299", "again");
    assert_int_equal(rig_ready(rig, "q"), 403);
    end(rig);
}

/* A queue that rests has nothing but its window; what comes while that is written makes it another queue to the compaction. */
static void roused_while_compacting(void **state)
{
    (void)state;
    struct rig *rig = begin_options(&(struct broker_options){.compact_slice_bytes = 1});
    char key[16];
    rig->check = false;
    declare_ways(rig, "q", (struct ways){.ttl = 100000});
    for (unsigned i = 0; i < 700; i++) {
        snprintf(key, sizeof key, "%u", i);
        put_key(rig, "q", key, key);
        ASK(GET, "q", NULL, NULL, ASK_NO_ACK);
        rig_clear(rig);
    }
    rig_pass(rig, 3000);
    struct queue *q = queue_find(vhost_find(rig->b, slice_str("/")), slice_str("q"));
    assert_false(queue_is_busy(q));
    compact_start(rig->b);
    while (rig->b->compact.queue != q)
        step(rig);
    assert_false(queue_is_busy(q));
    pause_compaction(rig);
    put_key(rig, "q", "late", "late");
    wheel_cancel(&rig->b->wheel, &rig->b->compact.retry);
    rig_step(rig);
    assert_int_equal(rig->b->totals.compactions, 1);
    restart(&rig);
    assert_int_equal(keys(rig, "q"), 701);
    assert_string_equal(get(rig, "q", 2), "late*");
    end(rig);
}

/* What a stream gets is kept, and so is what comes with it, whatever its publisher says. */
static void with_a_stream(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct table t;
    declare_ways(rig, "q", (struct ways){0});
    amqp_put_str(&table(&t)->w, "x-queue-type", slice_str("stream"));
    declare(rig, "s", writer_slice(&t.w));
    ASK(QUEUE_BIND, "q", "amq.fanout", "", 0);
    ASK(QUEUE_BIND, "s", "amq.fanout", "", 0);
    assert_true(try_put(rig, 1, "amq.fanout", "k", "a", "1", false));
    compact(rig);
    restart(&rig);
    assert_int_equal(rig_ready(rig, "q"), 1);
    assert_true(try_put(rig, 1, "amq.fanout", "k", "a", "2", false));
    assert_int_equal(rig_ready(rig, "q"), 1);
    end(rig);
}

static void count_target(void *arg, uint64_t queue, uint64_t position, bool snapshot)
{
    (void)queue;
    *(uint64_t *)arg += snapshot ? 0 : position;
}

/* Who looks at the journal without being the broker finds them too. */
static void records_say_where_they_go(void **state)
{
    (void)state;
    struct rig *rig = begin();
    uint64_t positions = 0;
    declare_ways(rig, "q", (struct ways){0});
    put_key(rig, "q", "a", "1");
    put(rig, "q", "2");
    put_key(rig, "q", "b", "3");
    for (size_t i = 0; i < rig->log->count; i++)
        assert_true(
            record_targets(slice_of(rig->log->records[i].bytes, rig->log->records[i].len), count_target, &positions));
    assert_int_equal(positions, 1 + 2 + 3);
    end(rig);
}

/* ---- random: a queue for a time, one while it is there, against arrays ---- */

#define KEYS 6
#define SPAN 300

struct model {
    wall_t until[KEYS];
    bool there[KEYS];
    unsigned waiting[2];
};

static unsigned pick(uint64_t *seed, unsigned n)
{
    *seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)(*seed >> 33) % n;
}

static void random_step(struct rig *rig, struct model *m, uint64_t *seed)
{
    unsigned number = pick(seed, KEYS), queue = pick(seed, 2);
    const char key[2] = {(char)('a' + number), 0};
    bool fresh = queue ? !m->there[number] : m->until[number] <= rig->wall;
    switch (pick(seed, 8)) {
    case 0: rig_pass(rig, 10 * (1 + pick(seed, 12))); break;
    case 1:
    case 2: {
        const char *got = get(rig, queue ? "there" : "timed", 1);
        assert_int_equal(got[0] != 0, m->waiting[queue] > 0);
        m->waiting[queue] -= got[0] != 0;
        if (got[0] && queue) {
            assert_true(m->there[got[0] - 'a']);
            m->there[got[0] - 'a'] = false;
        }
        break;
    }
    default:
        put_key(rig, queue ? "there" : "timed", key, key);
        m->waiting[queue] += fresh;
        m->there[number] |= queue;
        if (!queue && fresh)
            m->until[number] = rig->wall + SPAN;
    }
    assert_int_equal(rig_ready(rig, "timed"), m->waiting[0]);
    assert_int_equal(rig_ready(rig, "there"), m->waiting[1]);
    rig_clear(rig);
}

static void random_histories(void **state)
{
    (void)state;
    for (uint64_t run = 1; run <= 20; run++) {
        uint64_t seed = run;
        struct model m = {0};
        struct rig *rig = begin_options(&(struct broker_options){.compact_every = run % 3 ? 9 : 0,
                                                                 .compact_slice_bytes = 1 + 40 * (run % 4),
                                                                 .paging_bytes = run % 2,
                                                                 .page_bytes = run % 2 * 200});
        rig->log->drops = true;
        declare_ways(rig, "timed", (struct ways){.ttl = SPAN});
        declare_ways(rig, "there", (struct ways){0});
        for (unsigned i = 0; i < 500; i++) {
            random_step(rig, &m, &seed);
            if (i % 32 == 31)
                rig_assert_replays(rig);
            if (pick(&seed, 60) == 0) {
                rig->wall += 10 * pick(&seed, 20);
                restart(&rig);
            }
        }
        end(rig);
    }
}

/* ---- failing allocations ---- */

static void starved_script(struct rig *rig)
{
    char key[16];
    struct table t;
    if (!begin_with(rig))
        return;
    rig_plain(rig, CMD_CHANNEL_OPEN, 1, 2, 0, 0);
    rig_plain(rig, CMD_TX_SELECT, 1, 2, 0, 0);
    amqp_put_bool(&table(&t)->w, "x-message-deduplication", true);
    amqp_put_str(&t.w, "x-dead-letter-exchange", (struct slice){0});
    amqp_put_str(&t.w, "x-dead-letter-routing-key", slice_str("q2"));
    rig_ask(rig, CMD_QUEUE_DECLARE, 1, 1, "q", NULL, NULL, writer_slice(&t.w), ASK_DURABLE);
    amqp_put_bool(&table(&t)->w, "x-message-deduplication", true);
    amqp_put_long(&t.w, "x-cache-ttl", 100000);
    rig_ask(rig, CMD_QUEUE_DECLARE, 1, 1, "q2", NULL, NULL, writer_slice(&t.w), ASK_DURABLE);
    for (unsigned i = 0; i < 24; i++) {
        snprintf(key, sizeof key, "%u", i % 16);
        (void)try_put(rig, 1 + i % 2, "", i % 3 ? "q" : "q2", key, key, true);
        if (i % 5 == 4)
            rig_plain(rig, CMD_TX_COMMIT, 1, 2, 0, 0);
        if (i % 7 == 6) {
            ASK(GET, "q", NULL, NULL, 0);
            rig_plain(rig, CMD_NACK, 1, 1, i / 7 + 1, 0);
        }
        rig_clear(rig);
    }
}

static int by_body(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Nobody stands there twice. */
static void assert_once(struct rig *rig, const char *queue)
{
    struct queue *q = queue_find(vhost_find(rig->b, slice_str("/")), slice_str(queue));
    char *bodies[64];
    unsigned count = 0;
    for (struct list *at = q ? q->busy->lane.entries.next : NULL; q && at != &q->busy->lane.entries; at = at->next)
        bodies[count++] = strndup((const char *)msg_body(CONTAINER_OF(at, struct entry, link)->msg).ptr,
                                  msg_body(CONTAINER_OF(at, struct entry, link)->msg).len);
    qsort(bodies, count, sizeof *bodies, by_body);
    for (unsigned i = 0; i < count; i++) {
        assert_true(i == 0 || strcmp(bodies[i], bodies[i - 1]) != 0);
        if (i)
            free(bodies[i - 1]);
    }
    if (count)
        free(bodies[count - 1]);
}

static void every_allocation_fails_once(void **state)
{
    (void)state;
    for (int for_ever = 0; for_ever < 2; for_ever++)
        for (uint64_t n = 1, hit = 1; hit; n++) {
            struct rig_log *log = rig_log_new();
            mem_fail_at(n, for_ever);
            const char *why;
            struct rig *rig = rig_try(log, &(struct broker_options){.compact_every = 11}, 1700000000000, &why);
            rig->check = false;
            rig->starved = true;
            if (!why)
                starved_script(rig);
            hit = mem_failures_hit();
            mem_fail_at(0, false);
            if (!why) {
                rig->check = true;
                rig->starved = false;
                rig_step(rig);
                assert_once(rig, "q");
                assert_once(rig, "q2");
                rig_assert_nothing_lost(rig);
            }
            rig_free(rig);
            rig_log_free(log);
        }
}

/* A commit that takes more keys than there is room for, at whichever allocation: all of it, or nothing. */
static void large_commit_without_memory(void **state)
{
    (void)state;
    unsigned refused = 0;
    for (uint64_t n = 1, hit = 1; hit; n++) {
        struct rig *rig = begin();
        char key[16];
        rig->check = false;
        declare_ways(rig, "q", (struct ways){.ttl = 100000});
        put_key(rig, "q", "0", "0");
        rig_plain(rig, CMD_CHANNEL_OPEN, 1, 2, 0, 0);
        rig_plain(rig, CMD_TX_SELECT, 1, 2, 0, 0);
        for (unsigned i = 0; i < 600; i++) {
            snprintf(key, sizeof key, "%u", i % 500);
            assert_true(try_put(rig, 2, "", "q", key, key, true));
            rig_clear(rig);
        }
        mem_fail_at(n, false);
        rig_plain(rig, CMD_TX_COMMIT, 1, 2, 0, 0);
        hit = mem_failures_hit();
        mem_fail_at(0, false);
        refused += rig_ready(rig, "q") == 1;
        assert_true(rig_ready(rig, "q") == 1 || rig_ready(rig, "q") == 500);
        assert_int_equal(keys(rig, "q"), rig_ready(rig, "q"));
        broker_check(rig->b);
        rig_assert_replays(rig);
        struct rig_log *log = rig->log;
        rig_free(rig);
        rig_log_free(log);
    }
    assert_true(refused > 0);
}

/* What a transaction acknowledges makes room that its own publishes were promised. */
static void commit_with_acks_without_memory(void **state)
{
    (void)state;
    for (uint64_t n = 1, hit = 1; hit; n++) {
        struct rig *rig = begin();
        char key[16];
        rig->check = false;
        declare_ways(rig, "q", (struct ways){0});
        for (unsigned i = 0; i < 500; i++) {
            snprintf(key, sizeof key, "%u", i);
            put_key(rig, "q", key, key);
            rig_clear(rig);
        }
        rig_plain(rig, CMD_CHANNEL_OPEN, 1, 2, 0, 0);
        rig_plain(rig, CMD_TX_SELECT, 1, 2, 0, 0);
        for (unsigned i = 0; i < 500; i++) { /* two are left, each alone where many were */
            bool stays = i == 0 || i == 400;
            rig_ask(rig, CMD_GET, 1, stays ? 2 : 1, "q", NULL, NULL, (struct slice){0}, stays ? 0 : ASK_NO_ACK);
            rig_clear(rig);
        }
        rig_plain(rig, CMD_ACK, 1, 2, 0, ASK_MULTIPLE);
        for (unsigned i = 1000; i < 1480; i++) {
            snprintf(key, sizeof key, "%u", i);
            assert_true(try_put(rig, 2, "", "q", key, key, true));
            rig_clear(rig);
        }
        mem_fail_at(n, true);
        rig_plain(rig, CMD_TX_COMMIT, 1, 2, 0, 0);
        hit = mem_failures_hit();
        mem_fail_at(0, false);
        rig_step(rig);
        assert_true(rig_ready(rig, "q") == 480 || rig_ready(rig, "q") <= 2);
        broker_check(rig->b);
        struct rig_log *log = rig->log;
        rig_free(rig);
        rig_log_free(log);
    }
}

/* A queue bound to a stream that has every key twice; whichever allocation of its feeder fails. */
static void fed_by_a_stream_without_memory(void **state)
{
    (void)state;
    unsigned bound = 0;
    for (uint64_t n = 1, hit = 1; hit; n++) {
        struct rig *rig = begin();
        struct table t;
        char key[16];
        rig->check = false;
        amqp_put_str(&table(&t)->w, "x-queue-type", slice_str("stream"));
        declare(rig, "s", writer_slice(&t.w));
        declare_ways(rig, "q", (struct ways){.ttl = 100000});
        for (unsigned i = 0; i < 600; i++) {
            snprintf(key, sizeof key, "%u", i % 300);
            put_key(rig, "s", key, key);
            rig_clear(rig);
        }
        rig->starved = true;
        amqp_put_str(&table(&t)->w, "x-stream-offset", slice_str("first"));
        mem_fail_at(n, false);
        (void)rig_ask(rig, CMD_QUEUE_BIND, 1, 1, "q", "amq.stream.s", "", writer_slice(&t.w), 0);
        hit = mem_failures_hit();
        mem_fail_at(0, false);
        rig->starved = false;
        if (!list_empty(&queue_find(vhost_find(rig->b, slice_str("/")), slice_str("q"))->targets)) {
            put_key(rig, "s", "0", "0"); /* a feeder that found no memory looks again */
            rig_pass(rig, 2000);
            assert_int_equal(rig_ready(rig, "q"), 300);
            assert_int_equal(duplicates(rig), 301);
            bound++;
        }
        broker_check(rig->b);
        struct rig_log *log = rig->log;
        rig_free(rig);
        rig_log_free(log);
    }
    assert_true(bound > 5);
}

/* A start without memory says so, or has every key. */
static void start_without_memory(void **state)
{
    (void)state;
    struct rig *rig = begin();
    char key[16];
    declare_ways(rig, "q", (struct ways){.ttl = 100000});
    for (unsigned i = 0; i < 300; i++) {
        snprintf(key, sizeof key, "%u", i);
        put_key(rig, "q", key, key);
        rig_clear(rig);
        if (i == 150)
            compact(rig);
    }
    for (uint64_t n = 1, hit = 1; hit; n++) {
        struct rig_log *copy = rig_log_copy(rig->log, rig->log->count);
        const char *why;
        mem_fail_at(n, false);
        struct rig *other = rig_try(copy, NULL, rig->wall, &why);
        hit = mem_failures_hit();
        mem_fail_at(0, false);
        if (!why) {
            broker_check(other->b);
            assert_int_equal(keys(other, "q"), 300);
        }
        rig_free(other);
        rig_log_free(copy);
    }
    end(rig);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(while_it_is_there),
        cmocka_unit_test(for_a_time),
        cmocka_unit_test(confirm_waits),
        cmocka_unit_test(oldest_go_first),
        cmocka_unit_test(what_a_key_is),
        cmocka_unit_test(of_a_policy),
        cmocka_unit_test(arguments),
        cmocka_unit_test(in_transactions),
        cmocka_unit_test(dead_letters_and_delays),
        cmocka_unit_test(one_of_two_queues),
        cmocka_unit_test(in_pages),
        cmocka_unit_test(purged_again),
        cmocka_unit_test(message_and_key_or_neither),
        cmocka_unit_test(while_compacting),
        cmocka_unit_test(roused_while_compacting),
        cmocka_unit_test(with_a_stream),
        cmocka_unit_test(records_say_where_they_go),
        cmocka_unit_test(random_histories),
        cmocka_unit_test(every_allocation_fails_once),
        cmocka_unit_test(large_commit_without_memory),
        cmocka_unit_test(commit_with_acks_without_memory),
        cmocka_unit_test(fed_by_a_stream_without_memory),
        cmocka_unit_test(start_without_memory),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
