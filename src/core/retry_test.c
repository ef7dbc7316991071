/* retry: a message that came back is not delivered before its time, whatever happens meanwhile, and blocks nobody. */
#include "core/broker_words_test.h"

#include "core/delay_int.h"

struct ways {
    int64_t min, max, multiplier, limit, ttl, priorities;
    const char *type;
};

static void declare_ways(struct rig *rig, const char *queue, struct ways ways)
{
    struct table t;
    struct {
        const char *key;
        int64_t value;
    } numbers[] = {{"x-delayed-retry-min", ways.min},
                   {"x-delayed-retry-max", ways.max},
                   {"x-delayed-retry-multiplier", ways.multiplier},
                   {"x-delivery-limit", ways.limit},
                   {"x-message-ttl", ways.ttl},
                   {"x-max-priority", ways.priorities}};
    table(&t);
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        if (numbers[i].value)
            amqp_put_long(&t.w, numbers[i].key, numbers[i].value);
    if (ways.type)
        amqp_put_str(&t.w, "x-delayed-retry-type", slice_str(ways.type));
    if (ways.ttl || ways.limit) {
        amqp_put_str(&t.w, "x-dead-letter-exchange", (struct slice){0});
        amqp_put_str(&t.w, "x-dead-letter-routing-key", slice_str("dead"));
    }
    declare(rig, queue, writer_slice(&t.w));
}

static const char *get(struct rig *rig, const char *queue, unsigned count)
{
    rig_clear(rig);
    for (unsigned i = 0; i < count; i++)
        ASK(GET, queue, NULL, NULL, 0);
    return rig_delivered(rig);
}

static void give_back(struct rig *rig, uint64_t tag, uint32_t flags)
{
    rig_plain(rig, CMD_NACK, 1, 1, tag, ASK_REQUEUE | flags);
}

static uint32_t delayed(struct rig *rig, const char *queue)
{
    struct queue *q = queue_find(vhost_find(rig->b, slice_str("/")), slice_str(queue));
    return q->extra ? q->extra->retry.count : 0;
}

static void compact(struct rig *rig)
{
    uint64_t before = rig->b->totals.compactions;
    compact_start(rig->b);
    for (int i = 0; i < 400 && rig->b->totals.compactions == before; i++)
        rig_step(rig);
    assert_true(rig->b->totals.compactions > before);
}

/* Many that came and went back with few records: where they stand in the heap says nothing of when they were written. */
static void many_at_once(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_ways(rig, "q", (struct ways){.min = 1000, .multiplier = 1});
    rig_plain(rig, CMD_TX_SELECT, 1, 1, 0, 0);
    for (int i = 0; i < 300; i++)
        put(rig, "q", "m");
    rig_plain(rig, CMD_TX_COMMIT, 1, 1, 0, 0);
    (void)get(rig, "q", 300);
    give_back(rig, 0, ASK_MULTIPLE);
    rig_plain(rig, CMD_TX_COMMIT, 1, 1, 0, 0);
    assert_int_equal(delayed(rig, "q"), 300);
    compact(rig);
    restart(&rig);
    assert_int_equal(delayed(rig, "q"), 300);
    rig_pass(rig, 1100);
    assert_int_equal(rig_ready(rig, "q"), 300);
    end(rig);
}

/* How long the message of a new queue stays away, return by return. */
static const char *delays(struct ways ways, uint32_t flags, unsigned returns)
{
    static char text[200];
    struct rig *rig = begin();
    text[0] = '\0';
    declare_ways(rig, "q", ways);
    put(rig, "q", "m");
    for (unsigned i = 1; i <= returns; i++) {
        assert_int_equal(strlen(get(rig, "q", 1)), i > 1 ? 2 : 1);
        wall_t from = rig->wall;
        give_back(rig, i, flags);
        while (rig_ready(rig, "q") == 0 && rig->wall < from + 100000)
            rig_pass(rig, 5);
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%lld", i > 1 ? " " : "",
                 (long long)(rig->wall - from) / 10 * 10);
    }
    end(rig);
    return text;
}

static void backs_off(void **state)
{
    (void)state;
    assert_string_equal(delays((struct ways){.min = 100}, 0, 4), "100 200 300 400");
    assert_string_equal(delays((struct ways){.min = 100, .max = 250}, 0, 4), "100 200 250 250");
    assert_string_equal(delays((struct ways){.min = 100, .multiplier = 1}, ASK_REJECT, 3), "100 100 100");
    assert_string_equal(delays((struct ways){.min = 100, .multiplier = 3, .max = 5000}, 0, 5), "100 300 900 2700 5000");
    assert_string_equal(delays((struct ways){.min = 100, .type = "disabled"}, ASK_REJECT, 2), "0 0");
    assert_string_equal(delays((struct ways){.min = 100, .type = "all"}, ASK_REJECT, 2), "100 200");
    assert_string_equal(delays((struct ways){.min = 100, .type = "failed"}, ASK_REJECT, 2), "100 200");
    assert_string_equal(delays((struct ways){.min = 100, .type = "failed"}, 0, 2), "0 0");
    assert_string_equal(delays((struct ways){.min = 100, .type = "returned"}, 0, 2), "100 200");
    assert_string_equal(delays((struct ways){.min = 100, .type = "returned"}, ASK_REJECT, 2), "0 0");
    assert_string_equal(delays((struct ways){.type = "all"}, 0, 1), "0");
}

static void blocks_nobody(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_ways(rig, "q", (struct ways){.min = 100});
    for (int i = 1; i <= 4; i++) {
        char body[2] = {(char)('0' + i), 0};
        put(rig, "q", body);
    }
    rig_clear(rig);
    consume(rig, "q", "c", 0);
    rig_clear(rig);
    give_back(rig, 1, 0);
    give_back(rig, 3, 0);
    assert_string_equal(rig_delivered(rig), "");
    rig_plain(rig, CMD_ACK, 1, 1, 2, 0);
    put(rig, "q", "5");
    assert_string_equal(rig_delivered(rig), "5");
    assert_int_equal(delayed(rig, "q"), 2);
    rig_pass(rig, 90);
    give_back(rig, 4, 0);
    assert_string_equal(rig_delivered(rig), "5");
    rig_pass(rig, 20);
    assert_string_equal(rig_delivered(rig), "5 1* 3*");
    give_back(rig, 6, 0); /* 1, for the second time: behind 4 */
    rig_pass(rig, 100);
    assert_string_equal(rig_delivered(rig), "5 1* 3* 4*");
    rig_pass(rig, 110);
    assert_string_equal(rig_delivered(rig), "5 1* 3* 4* 1*");
    assert_int_equal(delayed(rig, "q"), 0);
    end(rig);
}

static void survives_a_restart(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_ways(rig, "q", (struct ways){.min = 1000});
    put(rig, "q", "1");
    put(rig, "q", "2");
    put(rig, "q", "3");
    (void)get(rig, "q", 2);
    give_back(rig, 1, 0);
    rig_pass(rig, 500);
    give_back(rig, 2, 0);
    restart(&rig);
    assert_int_equal(delayed(rig, "q"), 2);
    compact(rig);
    rig->log->drops = true;
    restart(&rig);
    assert_int_equal(delayed(rig, "q"), 2);
    assert_int_equal(rig_ready(rig, "q"), 1);
    rig_pass(rig, 510);
    assert_int_equal(delayed(rig, "q"), 1);
    assert_string_equal(get(rig, "q", 2), "1* 3*");
    rig->wall += 600; /* its time comes while the broker is down */
    restart(&rig);
    assert_string_equal(get(rig, "q", 9), "1* 2* 3*");
    give_back(rig, 2, 0);
    rig_pass(rig, 1900);
    assert_int_equal(delayed(rig, "q"), 1);
    ASK(QUEUE_PURGE, "q", NULL, NULL, 0);
    assert_int_equal(rig_nth(rig, EFF_ANSWER, 0)->answer->number, 1);
    assert_int_equal(delayed(rig, "q"), 0);
    give_back(rig, 1, 0);
    rig_clear(rig);
    ASK(QUEUE_DELETE, "q", NULL, NULL, ASK_IF_EMPTY);
    assert_string_equal(rig_error(rig), "406 queue 'q' in vhost '/' not empty");
    rig_plain(rig, CMD_CHANNEL_CLOSE, 1, 1, 0, 0);
    rig_plain(rig, CMD_CHANNEL_OPEN, 1, 1, 0, 0);
    ASK(QUEUE_DELETE, "q", NULL, NULL, 0);
    assert_int_equal(rig->b->totals.messages, 0);
    end(rig);
}

/* The delay is behind what a compaction writes of a message that moves; and a return without delay ends it. */
static void while_compacting(void **state)
{
    (void)state;
    struct rig *rig = begin_options(&(struct broker_options){.compact_slice_bytes = 1});
    declare_ways(rig, "q", (struct ways){.min = 1000, .type = "failed"});
    for (int i = 0; i < 8; i++)
        put(rig, "q", "m");
    (void)get(rig, "q", 8);
    compact_start(rig->b);
    while (rig->b->compact.phase != COMPACT_MESSAGES) {
        rig->durable = rig->log->count;
        (void)broker_step(rig->b, rig->now, rig->wall, rig->durable);
    }
    wheel_set(&rig->b->wheel, &rig->b->compact.retry, rig->now + NS_PER_S);
    give_back(rig, 3, ASK_REJECT);
    give_back(rig, 5, ASK_REJECT);
    rig_assert_replays(rig);
    wheel_cancel(&rig->b->wheel, &rig->b->compact.retry);
    rig_step(rig);
    assert_int_equal(rig->b->totals.compactions, 1);
    rig_assert_replays(rig);
    restart(&rig);
    assert_int_equal(delayed(rig, "q"), 2);
    rig_pass(rig, 1100);
    (void)get(rig, "q", 8);
    give_back(rig, 3, 0);
    restart(&rig);
    assert_int_equal(delayed(rig, "q"), 0);
    end(rig);
}

static void in_pages(void **state)
{
    (void)state;
    struct rig *rig = begin_options(&(struct broker_options){.paging_bytes = 1, .page_bytes = 600});
    char body[16];
    declare_ways(rig, "q", (struct ways){.min = 1000, .priorities = 1});
    for (unsigned i = 1; i <= 60; i++) {
        snprintf(body, sizeof body, "%u", i);
        put(rig, "q", body);
        rig_clear(rig);
    }
    assert_true(rig->b->paged > 20);
    (void)get(rig, "q", 40);
    for (unsigned i = 21; i <= 40; i += 2)
        give_back(rig, i, 0);
    assert_int_equal(delayed(rig, "q"), 10);
    rig_assert_replays(rig);
    compact(rig);
    rig->log->drops = true;
    for (int round = 0; round < 2; round++) {
        restart(&rig); /* what is delayed is in pages on disk again, and is delayed when they are read */
        if (round) {
            compact(rig); /* before that */
            restart(&rig);
        }
        rig_assert_replays(rig);
        (void)get(rig, "q", 20);
        assert_string_equal(get(rig, "q", 12), "22* 24* 26* 28* 30* 32* 34* 36* 38* 40* 41* 42*");
        assert_int_equal(delayed(rig, "q"), 10);
        rig_assert_replays(rig);
        compact(rig);
    }
    rig_pass(rig, 1010);
    assert_string_equal(get(rig, "q", 12), "21* 23* 25* 27* 29* 31* 33* 35* 37* 39* 43* 44*");
    end(rig);
}

static void expires_and_dies(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare(rig, "dead", (struct slice){0});
    declare_ways(rig, "q", (struct ways){.min = 1000, .ttl = 1500, .limit = 1});
    put(rig, "q", "1");
    put(rig, "q", "2");
    (void)get(rig, "q", 1);
    rig_pass(rig, 800);
    give_back(rig, 1, 0);
    rig_pass(rig, 690);
    assert_int_equal(rig_ready(rig, "dead"), 0);
    rig_pass(rig, 30); /* it expires while it waits */
    assert_int_equal(rig_ready(rig, "dead"), 2);
    assert_int_equal(delayed(rig, "q"), 0);
    put(rig, "q", "3");
    (void)get(rig, "q", 1);
    give_back(rig, 2, 0);
    rig_pass(rig, 1010);
    (void)get(rig, "q", 1);
    give_back(rig, 3, ASK_REJECT);
    assert_string_equal(get(rig, "dead", 9), "2 1 3");
    end(rig);
}

/* A consumer that goes has failed, a transaction gives back when it is committed, and the delivery says how often. */
static void ends_and_transactions(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct amqp_value v;
    declare_ways(rig, "q", (struct ways){.min = 100, .type = "failed"});
    put(rig, "q", "1");
    rig_plain(rig, CMD_CHANNEL_OPEN, 1, 2, 0, 0);
    rig_ask(rig, CMD_GET, 1, 2, "q", NULL, NULL, (struct slice){0}, 0);
    rig_plain(rig, CMD_RECOVER, 1, 2, 0, ASK_REQUEUE);
    assert_int_equal(rig_ready(rig, "q"), 1);
    rig_ask(rig, CMD_GET, 1, 2, "q", NULL, NULL, (struct slice){0}, 0);
    rig_plain(rig, CMD_CHANNEL_CLOSE, 1, 2, 0, 0);
    assert_int_equal(rig_ready(rig, "q"), 0);
    assert_int_equal(delayed(rig, "q"), 1);
    rig_pass(rig, 210);
    rig_plain(rig, CMD_CHANNEL_OPEN, 1, 2, 0, 0);
    rig_plain(rig, CMD_TX_SELECT, 1, 2, 0, 0);
    rig_clear(rig);
    rig_ask(rig, CMD_GET, 1, 2, "q", NULL, NULL, (struct slice){0}, 0);
    assert_true(amqp_table_find(msg_headers(rig_nth(rig, EFF_GET_OK, 0)->msg), "x-delivery-count", &v));
    assert_int_equal(v.i, 2);
    rig_plain(rig, CMD_NACK, 1, 2, 1, ASK_REQUEUE | ASK_REJECT);
    assert_int_equal(delayed(rig, "q"), 0);
    rig_plain(rig, CMD_TX_COMMIT, 1, 2, 0, 0);
    assert_int_equal(delayed(rig, "q"), 1);
    restart(&rig);
    assert_int_equal(delayed(rig, "q"), 1);
    rig_pass(rig, 310);
    assert_string_equal(get(rig, "q", 1), "1*");
    end(rig);
}

static void arguments(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct table t;
    char text[200];
    amqp_put_str(&table(&t)->w, "x-delayed-retry-type", slice_str("some"));
    rig_ask(rig, CMD_QUEUE_DECLARE, 1, 1, "q", NULL, NULL, writer_slice(&t.w), ASK_DURABLE);
    assert_string_equal(rig_error(rig),
                        "406 invalid arg 'x-delayed-retry-type' for queue 'q' in vhost '/': \"unsupported "
                        "retry type 'some'\"");
    rig_plain(rig, CMD_CHANNEL_CLOSE, 1, 1, 0, 0);
    rig_plain(rig, CMD_CHANNEL_OPEN, 1, 1, 0, 0);
    rig_clear(rig);
    declare(rig, "q", (struct slice){0});
    amqp_put_str(&table(&t)->w, "delayed-retry-type", slice_str("all"));
    amqp_put_long(&t.w, "delayed-retry-min", 100);
    amqp_put_long(&t.w, "delayed-retry-max", 150);
    assert_true(policy_put(rig->b, vhost_find(rig->b, slice_str("/")), slice_str("p"), slice_str("^q"), APPLY_QUEUES, 1,
                           writer_slice(&t.w), false, text, sizeof text));
    put(rig, "q", "1");
    (void)get(rig, "q", 1);
    give_back(rig, 1, 0);
    rig_pass(rig, 110);
    (void)get(rig, "q", 1);
    give_back(rig, 2, 0);
    rig_pass(rig, 140);
    assert_int_equal(delayed(rig, "q"), 1);
    rig_pass(rig, 20);
    assert_int_equal(delayed(rig, "q"), 0);
    struct rig_log *log = rig->log;
    rig_free(rig);
    rig_log_free(log);
}

/* ---- random: the order of coming back, against an array ---- */

#define COUNT 40

static unsigned pick(uint64_t *seed, unsigned n)
{
    *seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)(*seed >> 33) % n;
}

/* Whoever comes and whoever leaves, those that stay come back in their order. */
static void any_may_come(void **state)
{
    (void)state;
    uint64_t seed = 3;
    wall_t dues[COUNT + 1];
    struct rig *rig = begin();
    declare_ways(rig, "q", (struct ways){.min = 1});
    struct queue *q = queue_find(vhost_find(rig->b, slice_str("/")), slice_str("q"));
    for (int i = 0; i < COUNT; i++)
        put(rig, "q", "m");
    while (!list_empty(&q->busy->lane.entries)) {
        struct entry *e = CONTAINER_OF(q->busy->lane.entries.next, struct entry, link);
        dues[e->position] = rig->wall + 10 + pick(&seed, 1000);
        assert_true(retry_park(rig->b, e, dues[e->position]));
        broker_check(rig->b);
    }
    while (q->extra->retry.count) {
        unsigned due = 0;
        rig_pass(rig, 5 * (1 + pick(&seed, 10)));
        for (unsigned i = 1; i <= COUNT; i++)
            due += dues[i] <= rig->wall;
        assert_in_range(rig_ready(rig, "q"), due - 6 < due ? due - 6 : 0, due);
        broker_check(rig->b);
        LIST_EACH(&q->busy->lane.entries, node, after)
        assert_true(dues[CONTAINER_OF(node, struct entry, link)->position] <= rig->wall);
    }
    assert_int_equal(rig_ready(rig, "q"), COUNT);
    end(rig);
}

struct item {
    bool held, gone;
    uint64_t tag;
    unsigned returns;
    wall_t due;
};

static unsigned held_number(const struct item *items, unsigned count, uint64_t *seed)
{
    for (unsigned tries = 0; tries < 20; tries++) {
        unsigned i = pick(seed, count + 1);
        if (i && items[i].held)
            return i;
    }
    return 0;
}

static void random_get(struct rig *rig, struct item *items, unsigned count, uint64_t *tags)
{
    unsigned expected = 0;
    for (unsigned i = 1; i <= count; i++)
        if (items[i].due <= rig->wall && items[i].due + 3 > rig->wall)
            rig_pass(rig, 3); /* a timer is a tick late */
    for (unsigned i = 1; i <= count && !expected; i++)
        if (!items[i].held && !items[i].gone && items[i].due <= rig->wall)
            expected = i;
    const char *got = get(rig, "q", 1);
    assert_int_equal(strtoul(got, NULL, 10), expected);
    if (!expected)
        return;
    items[expected].held = true;
    items[expected].tag = ++*tags;
}

static void random_history(uint64_t run)
{
    uint64_t seed = run, tags = 0;
    unsigned count = 0;
    struct item items[COUNT + 1] = {0};
    struct rig *rig = begin_options(&(struct broker_options){.compact_every = run % 3 ? 9 : 0,
                                                             .compact_slice_bytes = 1 + 40 * (run % 4),
                                                             .paging_bytes = run % 2,
                                                             .page_bytes = run % 2 * 300});
    rig->log->drops = true;
    declare_ways(rig, "q", (struct ways){.min = 50, .max = 400, .multiplier = run % 5 ? (int64_t)(run % 5) : 0});
    for (unsigned n = 0; n < 400; n++) {
        unsigned what = pick(&seed, 10), i = held_number(items, count, &seed);
        char body[16];
        if (what < 2 && count < COUNT) {
            snprintf(body, sizeof body, "%u", ++count);
            put(rig, "q", body);
        } else if (what < 5)
            random_get(rig, items, count, &tags);
        else if (what < 8 && i) {
            give_back(rig, items[i].tag, 0);
            items[i].held = false;
            items[i].returns++;
            int64_t delay = 50;
            for (unsigned r = 1; run % 5 && r < items[i].returns && delay < 400; r++)
                delay *= (int64_t)(run % 5);
            if (run % 5 == 0)
                delay *= items[i].returns;
            items[i].due = rig->wall + (delay < 400 ? delay : 400);
        } else if (what == 8 && i) {
            rig_plain(rig, CMD_ACK, 1, 1, items[i].tag, 0);
            items[i].held = false;
            items[i].gone = true;
        } else if (what == 9)
            rig_pass(rig, 5 * pick(&seed, 20));
        rig_clear(rig);
        if (n % 16 == 15)
            rig_assert_replays(rig);
        if (pick(&seed, 50) == 0) {
            restart(&rig);
            tags = 0;
            for (unsigned k = 1; k <= count; k++)
                items[k].held = false;
        }
    }
    end(rig);
}

static void random_histories(void **state)
{
    (void)state;
    for (uint64_t run = 1; run <= 30; run++)
        random_history(run);
}

/* ---- failing allocations ---- */

static void starved_script(struct rig *rig)
{
    struct table t;
    if (!begin_with(rig))
        return;
    amqp_put_long(&table(&t)->w, "x-delayed-retry-min", 20);
    rig_ask(rig, CMD_QUEUE_DECLARE, 1, 1, "q", NULL, NULL, writer_slice(&t.w), ASK_DURABLE);
    rig_plain(rig, CMD_CHANNEL_OPEN, 1, 2, 0, 0);
    rig_plain(rig, CMD_TX_SELECT, 1, 2, 0, 0);
    for (unsigned i = 0; i < 12; i++) {
        char body[2] = {(char)('a' + i), 0};
        (void)rig_publish(rig, 1, 1, "", "q", body, true);
        rig_ask(rig, CMD_GET, 1, 1 + i % 2, "q", NULL, NULL, (struct slice){0}, 0);
        if (i % 2) {
            rig_plain(rig, CMD_NACK, 1, 2, 0, ASK_REQUEUE | ASK_MULTIPLE);
            rig_plain(rig, CMD_TX_COMMIT, 1, 2, 0, 0);
        } else
            rig_plain(rig, CMD_NACK, 1, 1, i / 2 + 1, ASK_REQUEUE);
        rig_clear(rig);
        if (i % 4 == 3)
            rig_pass(rig, 15);
    }
}

static void every_allocation_fails_once(void **state)
{
    (void)state;
    for (int for_ever = 0; for_ever < 2; for_ever++)
        for (uint64_t n = 1, hit = 1; hit; n++) {
            struct rig_log *log = rig_log_new();
            mem_fail_at(n, for_ever);
            const char *why;
            struct rig *rig = rig_try(
                log, &(struct broker_options){.compact_every = 7, .paging_bytes = n % 2 * 300, .page_bytes = 100},
                1700000000000, &why);
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
                rig_assert_nothing_lost(rig);
                rig_pass(rig, 2500); /* also what was put off for a second */
                struct queue *q = queue_find(vhost_find(rig->b, slice_str("/")), slice_str("q"));
                if (q && queue_delayed(q)) /* what has no room waits for who takes the others */
                    assert_true(q->extra->retry.wait->held && !rig->b->page_reads);
                rig_assert_nothing_lost(rig);
            }
            rig_free(rig);
            rig_log_free(log);
        }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(backs_off),          cmocka_unit_test(blocks_nobody),
        cmocka_unit_test(survives_a_restart), cmocka_unit_test(while_compacting),
        cmocka_unit_test(many_at_once),       cmocka_unit_test(in_pages),
        cmocka_unit_test(expires_and_dies),   cmocka_unit_test(ends_and_transactions),
        cmocka_unit_test(arguments),          cmocka_unit_test(any_may_come),
        cmocka_unit_test(random_histories),   cmocka_unit_test(every_allocation_fails_once),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
