/* What the tests of the core say again and again, on top of the rig: begin, declare, put, consume, restart, end. */
#ifndef MILLRACE_CORE_BROKER_WORDS_TEST_H
#define MILLRACE_CORE_BROKER_WORDS_TEST_H

#include "core/broker_rig_test.h"

#define ASK(type, name, other, key, flags) rig_ask(rig, CMD_##type, 1, 1, name, other, key, (struct slice){0}, flags)
#define ARGS(...)                                                                                                      \
    (struct slice)                                                                                                     \
    {                                                                                                                  \
        __VA_ARGS__                                                                                                    \
    }

struct table {
    uint8_t bytes[512];
    struct writer w;
};

RIG_FN struct table *table(struct table *t)
{
    t->w = writer_of(t->bytes, sizeof t->bytes);
    return t;
}

RIG_FN bool begin_with(struct rig *rig)
{
    if (!rig_open(rig, 1))
        return false;
    rig_plain(rig, CMD_CHANNEL_OPEN, 1, 1, 0, 0);
    return true;
}

RIG_FN struct rig *begin_options(const struct broker_options *options)
{
    struct rig *rig = rig_new(rig_log_new(), options, 1700000000000);
    assert_true(begin_with(rig));
    assert_string_equal(rig_error(rig), "");
    assert_int_equal(rig_count(rig, EFF_ANSWER), 3);
    rig_clear(rig);
    return rig;
}

RIG_FN struct rig *begin(void)
{
    return begin_options(NULL);
}

/* Replays, closes the session, replays again, frees. */
RIG_FN void end(struct rig *rig)
{
    rig_assert_replays(rig);
    rig_plain(rig, CMD_SESSION_CLOSE, 1, 0, 0, 0);
    rig_assert_replays(rig);
    struct rig_log *log = rig->log;
    rig_free(rig);
    rig_log_free(log);
}

/* The process dies: a new broker from the same records. */
RIG_FN void restart(struct rig **rig)
{
    struct rig_log *log = (*rig)->log;
    struct broker_options options = (*rig)->options;
    wall_t wall = (*rig)->wall;
    rig_free(*rig);
    *rig = rig_new(log, &options, wall);
    assert_true(begin_with(*rig));
    rig_clear(*rig);
}

RIG_FN void declare(struct rig *rig, const char *queue, struct slice args)
{
    assert_true(rig_ask(rig, CMD_QUEUE_DECLARE, 1, 1, queue, NULL, NULL, args, ASK_DURABLE));
    assert_string_equal(rig_error(rig), "");
}

RIG_FN void consume(struct rig *rig, const char *queue, const char *tag, uint32_t flags)
{
    assert_true(ASK(CONSUME, queue, tag, NULL, flags));
    assert_string_equal(rig_error(rig), "");
}

RIG_FN void put(struct rig *rig, const char *queue, const char *body)
{
    assert_true(rig_publish(rig, 1, 1, "", queue, body, true));
    assert_string_equal(rig_error(rig), "");
}

/* Plays a storm on a new broker again and again: the n-th allocation fails, once or with all after it (each 7th n then). Whatever
 * happens its state is in order and a restart works; what `count` (NULL: nothing) has counted before it, `after` compares. */
RIG_FN void each_allocation_fails(bool (*storm)(struct rig *rig), uint64_t (*count)(struct rig *rig),
                                  void (*after)(struct rig *rig, uint64_t counted))
{
    for (int for_ever = 0; for_ever < 2; for_ever++)
        for (uint64_t n = 1; n < 3000; n += for_ever ? 7 : 1) {
            struct rig_log *log = rig_log_new();
            const char *why;
            struct rig *rig = rig_try(log, NULL, 1700000000000, &why);
            assert_null(why);
            rig->starved = true;
            mem_fail_at(n, for_ever);
            (void)storm(rig);
            uint64_t hit = mem_failures_hit();
            mem_fail_at(0, false);
            rig->starved = false;
            uint64_t counted = count ? count(rig) : 0;
            rig_pass(rig, 2000);
            broker_check(rig->b);
            struct broker_options options = rig->options;
            wall_t wall = rig->wall;
            rig_free(rig);
            rig = rig_new(log, &options, wall);
            rig_step(rig);
            if (after)
                after(rig, counted);
            rig_free(rig);
            rig_log_free(log);
            if (!hit)
                break;
        }
}

#endif
