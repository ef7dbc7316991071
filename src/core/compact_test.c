/* compact: without memory a compaction rests and goes on later, and never trims what it could not write. */
#include "core/broker_rig_test.h"

static struct rig *begin(void)
{
    struct rig *rig = rig_new(rig_log_new(), NULL, 1700000000000);
    assert_true(rig_open(rig, 1));
    rig_plain(rig, CMD_CHANNEL_OPEN, 1, 1, 0, 0);
    assert_true(rig_ask(rig, CMD_QUEUE_DECLARE, 1, 1, "q", NULL, NULL, (struct slice){0}, ASK_DURABLE));
    assert_string_equal(rig_error(rig), "");
    rig_clear(rig);
    return rig;
}

static void end(struct rig *rig)
{
    struct rig_log *log = rig->log;
    rig_free(rig);
    rig_log_free(log);
}

static void put_large(struct rig *rig, size_t len)
{
    uint8_t *body = calloc(1, len);
    struct amqp_props props = {.present = AMQP_DELIVERY_MODE, .delivery_mode = 2};
    assert_true(rig_publish_with(rig, 1, 1, "", "q", slice_of(body, len), &props, 0));
    free(body);
}

/* One step with the journal's word, and no other. */
static bool step(struct rig *rig)
{
    rig->durable = rig->log->count;
    bool more = broker_step(rig->b, rig->now, rig->wall, rig->durable);
    rig_take(rig, 0);
    return more;
}

/* Without memory a step asks for no other at once, names a time, and the times grow further apart. */
static void rests(enum compact_phase phase)
{
    struct rig *rig = begin();
    for (int i = 0; i < 5; i++)
        put_large(rig, 100000);
    size_t records = rig->log->count;
    compact_start(rig->b);
    while (rig->b->compact.phase != phase)
        (void)step(rig);
    mem_fail_at(1, true);
    unsigned turns = 0;
    mono_t until = rig->now + 20 * NS_PER_S, longest = 0;
    while (rig->now < until) {
        assert_false(step(rig));
        mono_t due = broker_next_due(rig->b);
        assert_true(due > rig->now && due < rig->now + 2 * NS_PER_S);
        longest = due - rig->now > longest ? due - rig->now : longest;
        rig->now = due;
        turns++;
    }
    mem_fail_at(0, false);
    assert_true(turns < 60);
    assert_true(longest > NS_PER_S / 2);
    assert_int_equal(rig->b->totals.compactions, 0);
    rig->now += 2 * NS_PER_S;
    rig_step(rig);
    assert_int_equal(rig->b->totals.compactions, 1);
    assert_true(rig->log->first > records);
    rig_assert_replays(rig);
    end(rig);
}

static void rests_without_memory(void **state)
{
    (void)state;
    rests(COMPACT_MESSAGES);
    rests(COMPACT_CATALOGUE);
}

/* A stop does not wait for memory. */
static void stops_without_memory(void **state)
{
    (void)state;
    struct rig *rig = begin();
    put_large(rig, 100000);
    rig_clear(rig);
    rig_command(rig, 0, CMD_DRAIN, 2, 0)->origin = 7;
    rig->log->live = 64u << 20;
    ring_publish(&broker_port(rig->b, 0)->commands);
    (void)step(rig);
    assert_true(rig->b->compact.phase != COMPACT_IDLE);
    assert_int_equal(rig_count(rig, EFF_ANSWER), 0);
    mem_fail_at(1, true);
    for (int i = 0; i < 3; i++)
        (void)step(rig);
    mem_fail_at(0, false);
    assert_int_equal(rig_count(rig, EFF_ANSWER), 1);
    assert_int_equal(rig->b->totals.compactions, 0);
    rig_assert_replays(rig);
    end(rig);
}

/* The n-th allocation fails wherever it is: the compaction comes to its end all the same. */
static void any_allocation_fails(void **state)
{
    (void)state;
    uint64_t hit = 1;
    for (uint64_t n = 1; hit; n++) {
        struct rig *rig = begin();
        for (int i = 0; i < 4; i++)
            put_large(rig, 150000);
        compact_start(rig->b);
        mem_fail_at(n, false);
        for (int i = 0; i < 40; i++) {
            (void)step(rig);
            rig->now += 20 * NS_PER_MS;
        }
        hit = mem_failures_hit();
        mem_fail_at(0, false);
        assert_int_equal(rig->b->totals.compactions, 1);
        rig_assert_replays(rig);
        end(rig);
    }
}

/* What comes back to its queue behind the compaction's back, and cannot be written then, must not be trimmed. */
static void moves_without_memory(void **state)
{
    (void)state;
    uint64_t hit = 1;
    for (uint64_t n = 1; hit; n++) {
        struct rig *rig = begin();
        for (int i = 0; i < 3; i++)
            put_large(rig, 300000);
        for (int i = 0; i < 3; i++)
            assert_true(rig_ask(rig, CMD_GET, 1, 1, "q", NULL, NULL, (struct slice){0}, 0));
        rig_clear(rig);
        compact_start(rig->b);
        while (rig->b->compact.phase != COMPACT_MESSAGES || !rig->b->compact.entry)
            (void)step(rig); /* until it stands in the middle of the unacknowledged ones */
        struct command *c = rig_command(rig, 0, CMD_NACK, 1, 1);
        c->number = 3;
        c->flags = ASK_REQUEUE;
        ring_publish(&broker_port(rig->b, 0)->commands);
        mem_fail_at(n, false);
        (void)step(rig);
        hit = mem_failures_hit();
        mem_fail_at(0, false);
        for (int i = 0; i < 40; i++) {
            (void)step(rig);
            rig->now += 20 * NS_PER_MS;
        }
        assert_true(rig->b->totals.compactions >= 1);
        rig_assert_nothing_lost(rig);
        end(rig);
    }
}

/* A catalogue that alone is longer than the limit is written once, not for ever. */
static void a_long_catalogue_is_written_once(void **state)
{
    (void)state;
    struct rig *rig = rig_new(rig_log_new(), &(struct broker_options){.compact_bytes = 2000}, 1700000000000);
    assert_true(rig_open(rig, 1));
    rig_plain(rig, CMD_CHANNEL_OPEN, 1, 1, 0, 0);
    for (int i = 0; i < 200; i++) {
        char name[16];
        snprintf(name, sizeof name, "queue-%d", i);
        assert_true(rig_ask(rig, CMD_QUEUE_DECLARE, 1, 1, name, NULL, NULL, (struct slice){0}, ASK_DURABLE));
        rig_clear(rig);
    }
    uint64_t before = rig->b->totals.compactions;
    for (int i = 0; i < 50; i++)
        rig_step(rig);
    assert_true(rig->b->totals.compactions <= before + 1);
    assert_true(rig->log->live > 2000);
    for (int i = 0; i < 400; i++) /* what comes and goes is still compacted away */
        rig_publish(rig, 1, 1, "", "queue-1", "a message", true);
    rig_clear(rig);
    assert_true(rig_ask(rig, CMD_QUEUE_PURGE, 1, 1, "queue-1", NULL, NULL, (struct slice){0}, 0));
    rig_step(rig);
    assert_true(rig->b->totals.compactions > before);
    rig_assert_replays(rig);
    end(rig);
}

/* A disk that is nearly full: what a snapshot frees is wanted soon, unless there is no room for the snapshot itself. */
static void a_full_disk_is_worth_an_early_snapshot(void **state)
{
    (void)state;
    struct rig *rig = begin();
    rig->b->options.compact_bytes = 8 << 20;
    rig_plain(rig, CMD_CONFIRM_SELECT, 1, 1, 0, 0);
    for (int i = 0; i < 60; i++)
        put_large(rig, 100000);
    for (int i = 0; i < 31; i++) /* 2.9 MB are left, of 6 MB in the journal */
        assert_true(rig_ask(rig, CMD_GET, 1, 1, "q", NULL, NULL, (struct slice){0}, ASK_NO_ACK));
    assert_int_equal(rig->b->totals.compactions, 0);
    rig->log->ready = 5 << 20;
    rig_alarm(rig, ALARM_DISK);
    assert_int_equal(rig->b->totals.compactions, 0);
    rig->log->ready = 8 << 20; /* not all of it: a snapshot begins with a new file */
    rig->log->fresh_loss = 3 << 20;
    rig_step(rig);
    assert_int_equal(rig->b->totals.compactions, 0);
    rig->log->fresh_loss = 2 << 20;
    rig_step(rig);
    assert_int_equal(rig->b->totals.compactions, 1);
    rig_step(rig);
    assert_int_equal(rig->b->totals.compactions, 1); /* now it is short */
    rig_assert_replays(rig);
    end(rig);
}

/* Somebody fills the disk under a snapshot: it ends when the rest of it has no room any more, not when all room is used up. */
static void a_snapshot_leaves_room_for_acks(void **state)
{
    (void)state;
    struct rig *rig = begin();
    for (int i = 0; i < 60; i++)
        put_large(rig, 100000);
    rig_alarm(rig, ALARM_DISK);
    rig->log->ready = 9 << 20;
    compact_start(rig->b);
    while (rig->b->compact.written < 3000000) {
        (void)step(rig);
        assert_int_not_equal(rig->b->compact.phase, COMPACT_IDLE);
    }
    rig->log->ready = 6 << 20; /* with a margin for what is left */
    (void)step(rig);
    assert_int_equal(rig->b->compact.phase, COMPACT_MESSAGES);
    rig->log->ready = 4 << 20;
    (void)step(rig);
    assert_int_equal(rig->b->compact.phase, COMPACT_IDLE);
    assert_int_equal(rig->b->totals.compactions, 0);
    rig_assert_replays(rig);
    end(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_full_disk_is_worth_an_early_snapshot),
                                       cmocka_unit_test(a_snapshot_leaves_room_for_acks),
                                       cmocka_unit_test(rests_without_memory),
                                       cmocka_unit_test(stops_without_memory),
                                       cmocka_unit_test(any_allocation_fails),
                                       cmocka_unit_test(moves_without_memory),
                                       cmocka_unit_test(a_long_catalogue_is_written_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
