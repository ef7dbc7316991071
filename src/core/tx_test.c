/* tx: a commit takes effect as a whole or not at all, whatever allocation fails in it and wherever the journal ends. */
#include "core/broker_rig_test.h"

#define CHANNEL 1
#define LARGE (700u * 1024) /* a record in pieces */

struct args {
    uint8_t bytes[512];
    struct writer w;
};

static struct args *args(struct args *a)
{
    a->w = writer_of(a->bytes, sizeof a->bytes);
    return a;
}

static void declare(struct rig *rig, const char *queue, struct args *a)
{
    assert_true(rig_ask(rig, CMD_QUEUE_DECLARE, 1, CHANNEL, queue, NULL, NULL, writer_slice(&a->w), ASK_DURABLE));
    assert_string_equal(rig_error(rig), "");
}

static void dead_letters_to_dead(struct args *a)
{
    amqp_put_str(&a->w, "x-dead-letter-exchange", (struct slice){0});
    amqp_put_str(&a->w, "x-dead-letter-routing-key", slice_str("dead"));
}

/* The body begins with its name, one letter and one digit; large ones go on. */
static void put(struct rig *rig, const char *exchange, const char *key, const char *name, size_t len, bool persistent,
                int delay, uint8_t flags)
{
    struct args headers;
    struct amqp_props props = {.present = AMQP_DELIVERY_MODE, .delivery_mode = persistent ? 2 : 1};
    if (delay) {
        amqp_put_long(&args(&headers)->w, "x-delay", delay);
        props.present |= AMQP_HEADERS;
        props.headers = writer_slice(&headers.w);
    }
    uint8_t *body = calloc(1, len);
    memcpy(body, name, 2);
    assert_true(rig_publish_with(rig, 1, CHANNEL, exchange, key, slice_of(body, len), &props, flags));
    free(body);
}

static void get(struct rig *rig, const char *queue)
{
    assert_true(rig_ask(rig, CMD_GET, 1, CHANNEL, queue, NULL, NULL, (struct slice){0}, 0));
}

/* Queues, what lies in them, and a transaction that has everything in it and is not committed. The names of messages: s…
 * and a… were there before, p… is published by the transaction, persistent, t… transient. */
static struct rig *open_transaction(size_t len, bool compacting, unsigned bulk)
{
    struct args a;
    struct rig *rig = rig_new(rig_log_new(), NULL, 1700000000000);
    rig->check = false; /* it is asked once at the end */
    assert_true(rig_open(rig, 1));
    rig_plain(rig, CMD_CHANNEL_OPEN, 1, CHANNEL, 0, 0);
    declare(rig, "a", args(&a));
    declare(rig, "dead", args(&a));
    dead_letters_to_dead(args(&a));
    declare(rig, "source", &a);
    dead_letters_to_dead(args(&a));
    amqp_put_long(&a.w, "x-max-length", 1);
    declare(rig, "short", &a);
    amqp_put_str(&args(&a)->w, "x-delayed-type", slice_str("direct"));
    assert_true(rig_ask(rig, CMD_EXCHANGE_DECLARE, 1, CHANNEL, "late", "x-delayed-message", NULL, writer_slice(&a.w),
                        ASK_DURABLE));
    static const char *const bound[] = {"a", "short"};
    for (int i = 0; i < 2; i++)
        assert_true(rig_ask(rig, CMD_QUEUE_BIND, 1, CHANNEL, bound[i], "amq.fanout", "", (struct slice){0}, 0));
    assert_true(rig_ask(rig, CMD_QUEUE_BIND, 1, CHANNEL, "a", "late", "a", (struct slice){0}, 0));
    static const char *const names[] = {"s1", "s2", "s3", "a1", "a2"};
    for (int i = 0; i < 5; i++)
        put(rig, "", i < 3 ? "source" : "a", names[i], len, true, 0, 0);
    for (int i = 0; i < 5; i++)
        get(rig, i < 3 ? "source" : "a");
    assert_string_equal(rig_error(rig), "");
    rig_plain(rig, CMD_TX_SELECT, 1, CHANNEL, 0, 0);
    put(rig, "", "a", "p1", len, true, 0, 0);
    put(rig, "", "a", "t1", len, false, 0, 0);
    put(rig, "amq.fanout", "", "p2", len, true, 0, 0);
    put(rig, "", "short", "p3", len, true, 0, 0);
    for (unsigned i = 0; i < bulk; i++)
        put(rig, "", "a", "p5", len, true, 0, 0);
    put(rig, "late", "a", "p4", len, true, 1000, 0);
    put(rig, "", "nowhere", "t9", len, true, 0, MSG_MANDATORY);
    rig_plain(rig, CMD_ACK, 1, CHANNEL, 1, 0);            /* s1 */
    rig_plain(rig, CMD_NACK, 1, CHANNEL, 2, 0);           /* s2: to the dead letters */
    rig_plain(rig, CMD_NACK, 1, CHANNEL, 3, ASK_REQUEUE); /* s3 */
    rig_plain(rig, CMD_NACK, 1, CHANNEL, 4, 0);           /* a1: gone */
    rig_plain(rig, CMD_ACK, 1, CHANNEL, 5, 0);            /* a2 */
    assert_string_equal(rig_error(rig), "");
    rig_clear(rig);
    if (compacting) { /* it stands before the messages when the commit comes */
        compact_start(rig->b);
        while (rig->b->compact.phase != COMPACT_MESSAGES)
            (void)broker_step(rig->b, rig->now, rig->wall, rig->durable = rig->log->count);
    }
    return rig;
}

static bool has(const struct list *list, const char *name)
{
    LIST_EACH(list, node, after)
    if (memcmp(msg_body(CONTAINER_OF(node, struct entry, link)->msg).ptr, name, 2) == 0)
        return true;
    return false;
}

static bool in_queue(struct broker *b, const char *queue, const char *name)
{
    struct vhost *vhost = vhost_find(b, slice_str("/"));
    struct queue *q = *queue ? queue_find(vhost, slice_str(queue)) : delay_queue(vhost);
    return q && (has(&q->busy->lanes[0].entries, name) || has(&q->busy->unacked, name));
}

static bool somewhere(struct broker *b, const char *name)
{
    static const char *const queues[] = {"a", "dead", "source", "short", ""};
    for (size_t i = 0; i < ARRAY_LEN(queues); i++)
        if (in_queue(b, queues[i], name))
            return true;
    return false;
}

/* What a commit changes: all of it or nothing. Returns which. */
static bool whole(struct broker *b, bool after_restart, const char *when)
{
    const struct {
        const char *what;
        bool done, transient;
    } parts[] = {
        {"p1 is published", somewhere(b, "p1"), false},   {"t1 is published", somewhere(b, "t1"), true},
        {"p2 is published", somewhere(b, "p2"), false},   {"p3 is published", somewhere(b, "p3"), false},
        {"p4 is published", somewhere(b, "p4"), false},   {"s1 is gone", !somewhere(b, "s1"), false},
        {"s2 left", !in_queue(b, "source", "s2"), false}, {"s2 is a dead letter", in_queue(b, "dead", "s2"), false},
        {"a1 is gone", !somewhere(b, "a1"), false},       {"a2 is gone", !somewhere(b, "a2"), false},
    };
    for (size_t i = 1; i < ARRAY_LEN(parts); i++)
        if (parts[i].done != parts[0].done && !(after_restart && parts[i].transient))
            rig_fail("%s: %s: %d, but %s: %d", when, parts[0].what, parts[0].done, parts[i].what, parts[i].done);
    if (!in_queue(b, "source", "s3"))
        rig_fail("%s: s3 is lost", when);
    return parts[0].done;
}

/* Wherever the journal ends, a restart finds all or nothing; at its end, what the broker has. */
static void whole_in_journal(struct rig *rig, size_t before, bool done)
{
    for (size_t n = before; n <= rig->log->count; n++) {
        struct rig_log *copy = rig_log_copy(rig->log, n);
        struct rig *other = rig_new(copy, NULL, rig->wall);
        bool found = whole(other->b, true, "replayed");
        if (n == rig->log->count && found != done)
            rig_fail("the journal says %d, the broker %d", found, done);
        rig_free(other);
        rig_log_free(copy);
    }
}

static uint64_t commit_with(uint64_t n, bool for_ever, size_t len, bool compacting, unsigned bulk)
{
    struct rig *rig = open_transaction(len, compacting, bulk);
    size_t before = rig->log->count;
    rig->hold = true;
    rig_command(rig, 0, CMD_TX_COMMIT, 1, CHANNEL);
    ring_publish(&broker_port(rig->b, 0)->commands);
    mem_fail_at(n, for_ever);
    (void)broker_step(rig->b, rig->now, rig->wall, rig->durable);
    uint64_t hit = mem_failures_hit();
    mem_fail_at(0, false);
    rig_take(rig, 0);
    bool done = whole(rig->b, false, "after the commit");
    struct effect *answer = rig_nth(rig, EFF_ANSWER, 0);
    if ((answer != NULL) != done || (rig_count(rig, EFF_RETURN) == 1) != done)
        rig_fail("done %d: %u answers, %u returns", done, rig_count(rig, EFF_ANSWER), rig_count(rig, EFF_RETURN));
    if (!hit)
        assert_true(done);
    uint64_t ready = rig_ready(rig, "a");
    assert_int_equal(ready, done ? bulk + 3 : 0); /* p1, t1, p2 */
    rig->hold = false;
    rig_step(rig);
    rig_plain(rig, CMD_SESSION_CLOSE, 1, 0, 0, 0);
    rig_pass(rig, 20);
    broker_check(rig->b);
    if (whole(rig->b, false, "in the end") != done)
        rig_fail("it changed its mind");
    whole_in_journal(rig, compacting ? rig->log->count : before, done);
    rig_assert_nothing_lost(rig);
    rig_pass(rig, 1100); /* the delayed one comes only now */
    assert_true(in_queue(rig->b, "a", "p4") == done);
    struct rig_log *log = rig->log;
    rig_free(rig);
    rig_log_free(log);
    return hit;
}

static void every_allocation_of_a_commit_fails(void **state)
{
    (void)state;
    for (int kind = 0; kind < 8; kind++)
        for (uint64_t n = 1; commit_with(n, kind & 1, kind & 2 ? LARGE : 30, kind & 4, 0); n++)
            continue;
    for (uint64_t n = 1; commit_with(n, true, 30, false, 500); n++) /* more entries than one chunk of the pool has */
        continue;
}

static void select_once(struct rig *rig, enum command_type type)
{
    rig_command(rig, 0, type, 1, CHANNEL)->flags = ASK_ONE_TX;
    ring_publish(&broker_port(rig->b, 0)->commands);
    rig_step(rig);
}

static bool last_confirm_is_silent(struct rig *rig)
{
    struct effect *last = rig_nth(rig, EFF_CONFIRM, rig_count(rig, EFF_CONFIRM) - 1);
    return last->flags & EFFECT_SILENT;
}

/* One transaction of a channel that confirms, which confirms again behind it. */
static void once_in_confirm_mode(void **state)
{
    (void)state;
    struct args a;
    for (int commit = 0; commit < 2; commit++) {
        struct rig *rig = rig_new(rig_log_new(), NULL, 1700000000000);
        assert_true(rig_open(rig, 1));
        rig_plain(rig, CMD_CHANNEL_OPEN, 1, CHANNEL, 0, 0);
        rig_plain(rig, CMD_CONFIRM_SELECT, 1, CHANNEL, 0, 0);
        declare(rig, "a", args(&a));
        select_once(rig, CMD_TX_SELECT);
        assert_string_equal(rig_error(rig), "");
        put(rig, "", "a", "p1", 30, true, 0, 0);
        assert_int_equal(rig_ready(rig, "a"), 0);
        assert_true(last_confirm_is_silent(rig));
        select_once(rig, commit ? CMD_TX_COMMIT : CMD_TX_ROLLBACK);
        assert_int_equal(rig_ready(rig, "a"), commit);
        put(rig, "", "a", "p2", 30, true, 0, 0);
        assert_int_equal(rig_ready(rig, "a"), commit + 1);
        assert_false(last_confirm_is_silent(rig));
        assert_string_equal(rig_error(rig), "");
        rig_plain(rig, CMD_TX_COMMIT, 1, CHANNEL, 0, 0);
        assert_non_null(strstr(rig_error(rig), "channel is not transactional"));
        struct rig_log *log = rig->log;
        rig_free(rig);
        rig_log_free(log);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_allocation_of_a_commit_fails),
                                       cmocka_unit_test(once_in_confirm_mode)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
