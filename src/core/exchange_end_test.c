/* An exchange goes in slices: nobody finds it meanwhile, its name is free at once, and neither a crash nor a snapshot brings its
 * bindings back. A chain of exchanges that go with one another may be as long as it likes. */
#include "core/broker_words_test.h"

#include <pthread.h>

#define BINDINGS 2000u

static void turn(struct rig *rig)
{
    rig->durable = rig->log->count;
    ring_publish(&broker_port(rig->b, 0)->commands);
    (void)broker_step(rig->b, rig->now, rig->wall, rig->durable);
    rig_take(rig, 0);
    broker_check(rig->b);
}

static void command(struct rig *rig, enum command_type type, const char *name, const char *other, const char *key,
                    uint32_t flags)
{
    struct command *c = rig_command(rig, 0, type, 1, 1);
    c->ask = ask_new(rig_text(name), rig_text(other), rig_text(key), (struct slice){0});
    c->ask->flags = flags;
}

static void publish_now(struct rig *rig, const char *exchange, const char *key)
{
    struct command *c = rig_command(rig, 0, CMD_PUBLISH, 1, 1);
    c->msg = msg_new(broker_heap(rig->b), slice_str(exchange), slice_str(key), (struct slice){0}, 0);
    c->number = ++rig->seq[1][1];
}

/* "x" of a type with many bindings to "q", and "to" that is bound to x. */
static struct rig *begin_bound(const char *type)
{
    char key[32];
    struct rig *rig = begin();
    declare(rig, "q", (struct slice){0});
    rig_plain(rig, CMD_CONFIRM_SELECT, 1, 1, 0, 0);
    ASK(EXCHANGE_DECLARE, "x", type, NULL, ASK_DURABLE);
    ASK(EXCHANGE_DECLARE, "to", "fanout", NULL, ASK_DURABLE);
    ASK(EXCHANGE_BIND, "x", "to", "", 0);
    rig->check = false;
    for (unsigned i = 1; i <= BINDINGS; i++) {
        snprintf(key, sizeof key, "%u", i);
        ASK(QUEUE_BIND, "q", "x", key, 0);
        if (i % 500 == 0)
            rig_clear(rig);
    }
    assert_string_equal(rig_error(rig), "");
    rig->check = true;
    rig_clear(rig);
    return rig;
}

static uint64_t bindings(const struct rig *rig)
{
    return rig->b->totals.bindings;
}

/* What a crash now would leave of it. */
static void assert_bindings_after_a_crash(struct rig *rig, uint64_t count)
{
    struct rig_log *copy = rig_log_copy(rig->log, rig->log->count);
    struct rig *other = rig_new(copy, &rig->options, rig->wall);
    assert_int_equal(bindings(other), count);
    rig_free(other);
    rig_log_free(copy);
}

static void goes_in_slices(void **state)
{
    (void)state;
    static const char *const types[] = {"direct", "fanout", "topic", "headers", "x-consistent-hash"};
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        struct rig *rig = begin_bound(types[i]);
        command(rig, CMD_EXCHANGE_DELETE, "x", NULL, NULL, 0);
        turn(rig);
        assert_int_equal(rig_count(rig, EFF_ANSWER), 1); /* it is gone … */
        unsigned turns = 0;
        for (; bindings(rig); turns++) {
            uint64_t before = bindings(rig);
            assert_bindings_after_a_crash(rig, 0);
            rig_clear(rig);
            publish_now(rig, "to", "1"); /* … whichever way a message takes */
            turn(rig);
            assert_int_equal(rig_count(rig, EFF_CONFIRM), 1);
            assert_true(before - bindings(rig) <= 256);
        }
        assert_true(turns >= BINDINGS / 256);
        assert_int_equal(rig_ready(rig, "q"), 0);
        assert_string_equal(rig_error(rig), "");
        rig_step(rig);
        assert_null(map_get(&vhost_find(rig->b, slice_str("/"))->exchanges, slice_str("x")));
        end(rig);
    }
}

static void nobody_finds_it(void **state)
{
    (void)state;
    struct rig *rig = begin_bound("direct");
    ASK(EXCHANGE_UNBIND, "x", "to", "", 0); /* nothing but its own bindings goes with it */
    rig_clear(rig);
    publish_now(rig, "x", "1"); /* its channel remembers where it found it */
    turn(rig);
    assert_int_equal(rig_ready(rig, "q"), 1);
    command(rig, CMD_EXCHANGE_DELETE, "x", NULL, NULL, 0);
    publish_now(rig, "x", "1");
    turn(rig);
    assert_true(bindings(rig) > 0);
    assert_string_equal(rig_error(rig), "404 no exchange 'x' in vhost '/'");
    assert_int_equal(rig_ready(rig, "q"), 1);
    rig_plain(rig, CMD_CHANNEL_CLOSE, 1, 1, 0, 0);
    end(rig);
}

/* Its name is another's before all of it has gone. */
static void made_again_at_once(void **state)
{
    (void)state;
    for (int snapshot = 0; snapshot < 2; snapshot++) {
        struct rig *rig = begin_bound("direct");
        command(rig, CMD_EXCHANGE_DELETE, "x", NULL, NULL, 0);
        turn(rig);
        assert_true(bindings(rig) > 1000);
        if (snapshot) { /* it writes some of the old bindings, if it wants to */
            compact_start(rig->b);
            turn(rig);
        }
        rig_clear(rig);
        command(rig, CMD_EXCHANGE_DECLARE, "x", "fanout", NULL, ASK_DURABLE);
        command(rig, CMD_QUEUE_BIND, "q", "x", "1", 0);
        publish_now(rig, "x", "2");
        turn(rig);
        assert_string_equal(rig_error(rig), "");
        assert_int_equal(bindings(rig), 1);
        assert_int_equal(rig_ready(rig, "q"), 1);
        assert_bindings_after_a_crash(rig, 1);
        rig_step(rig);
        assert_int_equal(rig->b->totals.compactions, snapshot);
        end(rig);
    }
}

/* Its queue, its vhost or the broker goes before it has gone. */
static void others_go_meanwhile(void **state)
{
    (void)state;
    struct rig *rig = begin_bound("topic");
    command(rig, CMD_EXCHANGE_DELETE, "x", NULL, NULL, 0);
    turn(rig);
    command(rig, CMD_QUEUE_DELETE, "q", NULL, NULL, 0);
    turn(rig);
    assert_int_equal(bindings(rig), 0);
    rig_step(rig);
    end(rig);
    rig = begin_bound("topic");
    command(rig, CMD_EXCHANGE_DELETE, "x", NULL, NULL, 0);
    turn(rig);
    assert_true(bindings(rig) > 0);
    struct rig_log *log = rig->log;
    rig_free(rig);
    rig_log_free(log);
}

static void *delete_the_first(void *arg)
{
    struct rig *rig = arg;
    ASK(EXCHANGE_DELETE, "e0", NULL, NULL, 0);
    return NULL;
}

/* On a stack that is not as deep as the chain is long. */
static void a_long_chain(void **state)
{
    (void)state;
    char name[32], next[32];
    struct rig *rig = begin();
    rig->check = false;
    unsigned links = 10000;
    ASK(EXCHANGE_DECLARE, "e0", "fanout", NULL, 0);
    for (unsigned i = 1; i <= links; i++) {
        snprintf(name, sizeof name, "e%u", i);
        snprintf(next, sizeof next, "e%u", i - 1);
        ASK(EXCHANGE_DECLARE, name, "fanout", NULL, ASK_AUTO_DELETE);
        ASK(EXCHANGE_BIND, next, name, "", 0);
        rig_clear(rig);
    }
    assert_int_equal(rig->b->totals.exchanges, 8 + links);
    pthread_attr_t attr;
    pthread_t thread;
    assert_int_equal(pthread_attr_init(&attr), 0);
    assert_int_equal(pthread_attr_setstacksize(&attr, 512 * 1024), 0);
    assert_int_equal(pthread_create(&thread, &attr, delete_the_first, rig), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    (void)pthread_attr_destroy(&attr);
    assert_int_equal(rig->b->totals.exchanges, 7);
    assert_int_equal(bindings(rig), 0);
    rig->check = true;
    end(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(goes_in_slices),      cmocka_unit_test(nobody_finds_it), cmocka_unit_test(made_again_at_once),
        cmocka_unit_test(others_go_meanwhile), cmocka_unit_test(a_long_chain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
