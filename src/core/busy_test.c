/* Queues at rest: small, roused by whatever comes, and the same queue as before. Rules that queues share. */
#include "core/broker_words_test.h"

static struct queue *queue_of(struct rig *rig, const char *name)
{
    return queue_find(vhost_find(rig->b, slice_str("/")), slice_str(name));
}

static bool is_busy(struct rig *rig, const char *name)
{
    return queue_is_busy(queue_of(rig, name));
}

static void a_queue_comes_to_rest(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare(rig, "q", (struct slice){0});
    assert_false(is_busy(rig, "q"));
    put(rig, "q", "a");
    ASK(GET, "q", NULL, NULL, 0);
    rig_pass(rig, 3000);
    assert_true(is_busy(rig, "q")); /* it is not acknowledged */
    rig_plain(rig, CMD_ACK, 1, 1, 1, 0);
    assert_true(is_busy(rig, "q"));
    rig_pass(rig, 3000);
    assert_false(is_busy(rig, "q"));
    consume(rig, "q", "c", 0);
    rig_pass(rig, 3000);
    assert_true(is_busy(rig, "q"));
    rig_clear(rig);
    put(rig, "q", "b");
    assert_string_equal(rig_delivered(rig), "b");
    rig_plain(rig, CMD_ACK, 1, 1, 2, 0);
    ASK(CANCEL, "c", NULL, NULL, 0);
    rig_pass(rig, 3000);
    assert_false(is_busy(rig, "q"));
    restart(&rig);
    assert_false(is_busy(rig, "q"));
    put(rig, "q", "c");
    ASK(QUEUE_PURGE, "q", NULL, NULL, 0);
    rig_pass(rig, 3000);
    assert_false(is_busy(rig, "q"));
    assert_int_equal(broker_next_due(rig->b), MONO_NEVER); /* and nobody looks at it any more */
    end(rig);
}

/* A queue whose mark is not durable yet does not rest: it would forget what it may deliver. */
static void rest_waits_for_the_mark(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare(rig, "q", (struct slice){0});
    put(rig, "q", "a");
    rig->hold = true;
    ASK(GET, "q", NULL, NULL, ASK_NO_ACK); /* its mark goes on its way */
    rig_pass(rig, 3000);
    assert_true(is_busy(rig, "q"));
    rig->hold = false;
    rig_pass(rig, 3000);
    assert_false(is_busy(rig, "q"));
    rig->hold = true;
    put(rig, "q", "b");
    rig->hold = false;
    rig_step(rig);
    rig_clear(rig);
    ASK(GET, "q", NULL, NULL, ASK_NO_ACK);
    assert_string_equal(rig_delivered(rig), "b");
    end(rig);
}

static void who_expires_or_has_an_owner_never_rests(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct table t;
    amqp_put_long(&table(&t)->w, "x-expires", 5000);
    declare(rig, "q", writer_slice(&t.w));
    assert_true(rig_ask(rig, CMD_QUEUE_DECLARE, 1, 1, "mine", NULL, NULL, (struct slice){0}, ASK_EXCLUSIVE));
    rig_pass(rig, 4000);
    assert_true(is_busy(rig, "q") && is_busy(rig, "mine"));
    rig_pass(rig, 1100);
    assert_null(queue_of(rig, "q"));
    assert_non_null(queue_of(rig, "mine"));
    end(rig);
}

static void equal_rules_are_one(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct table t;
    declare(rig, "a", (struct slice){0});
    declare(rig, "b", (struct slice){0});
    assert_ptr_equal(queue_of(rig, "a")->rules, queue_of(rig, "b")->rules);
    for (const char *name = "cd"; *name; name++) {
        table(&t);
        amqp_put_str(&t.w, "x-dead-letter-exchange", slice_str("dx"));
        amqp_put_str(&t.w, "x-dead-letter-routing-key", slice_str("key"));
        declare(rig, (char[]){*name, 0}, writer_slice(&t.w));
    }
    amqp_put_str(&table(&t)->w, "x-dead-letter-exchange", slice_str("dxkey"));
    declare(rig, "e", writer_slice(&t.w));
    const struct queue_rules *rules = queue_of(rig, "c")->rules;
    assert_ptr_equal(rules, queue_of(rig, "d")->rules);
    assert_ptr_not_equal(rules, queue_of(rig, "a")->rules);
    assert_ptr_not_equal(rules, queue_of(rig, "e")->rules);
    assert_int_equal(rig->b->rules.count, 3);
    ASK(QUEUE_DELETE, "c", NULL, NULL, 0);
    assert_true(slice_is(rules->dlx, "dx") && slice_is(rules->dlk, "key")); /* of the queue that went or not */
    ASK(QUEUE_DELETE, "d", NULL, NULL, 0);
    ASK(QUEUE_DELETE, "e", NULL, NULL, 0);
    assert_int_equal(rig->b->rules.count, 1);
    end(rig);
}

/* Without memory for new rules a queue keeps those it had; a second later it has the new ones. */
static void rules_are_tried_again(void **state)
{
    (void)state;
    struct rig *rig = begin();
    char text[ERROR_TEXT_MAX];
    struct table t;
    unsigned stale = 0;
    declare(rig, "q", (struct slice){0});
    struct vhost *vhost = vhost_find(rig->b, slice_str("/"));
    for (unsigned n = 1; n < 40; n++) {
        amqp_put_long(&table(&t)->w, "expires", 100000 + n);
        mem_fail_at(n, false);
        bool ok = policy_put(rig->b, vhost, slice_str("p"), slice_str(".*"), APPLY_ALL, 1, writer_slice(&t.w), false,
                             text, sizeof text);
        uint64_t hit = mem_failures_hit();
        mem_fail_at(0, false);
        stale += queue_of(rig, "q")->rules_stale;
        if (ok && queue_of(rig, "q")->rules_stale) {
            assert_int_not_equal(queue_of(rig, "q")->rules->expires_ms, 100000 + n);
            rig_pass(rig, 1100);
        }
        if (ok)
            assert_int_equal(queue_of(rig, "q")->rules->expires_ms, 100000 + n);
        broker_check(rig->b);
        if (!hit)
            break;
    }
    assert_true(stale > 0);
    policy_delete(rig->b, policy_find(vhost, slice_str("p"), false));
    assert_int_equal(queue_of(rig, "q")->rules->expires_ms, -1);
    rig_pass(rig, 3000);
    assert_false(is_busy(rig, "q"));
    end(rig);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_queue_comes_to_rest),
        cmocka_unit_test(rest_waits_for_the_mark),
        cmocka_unit_test(who_expires_or_has_an_owner_never_rests),
        cmocka_unit_test(equal_rules_are_one),
        cmocka_unit_test(rules_are_tried_again),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
