/* MQTT clients over time: packet ids of QoS 2, wills, expiry; over restarts, compactions, and with memory refused anywhere. */
#include "core/mqtt_words_test.h"

static unsigned sets(struct rig *rig, const char *id)
{
    const struct mqtt_client *client = the_client(rig, id);
    return client->received.count * 100 + client->releasing.count;
}

static void taken_once(void **state)
{
    (void)state;
    for (unsigned expiry = 0; expiry <= 100; expiry += 100) {
        struct rig *rig = begin();
        (void)attach(rig, 1, "pub", expiry);
        (void)attach(rig, 2, "sub", 100);
        assert_int_equal(subscribe(rig, 2, "a", 2), 0);
        rig_clear(rig);
        assert_true(publish_with(rig, 1, "a", "x", 2, ASK_ONCE, 7, 0));
        assert_true(publish_with(rig, 1, "a", "x", 2, ASK_ONCE, 7, 0)); /* sent again: PUBREC was lost */
        assert_true(publish_with(rig, 1, "b", "nobody", 2, ASK_ONCE, 8, 0));
        assert_string_equal(rig_delivered(rig), "x");
        assert_int_equal(rig_nth(rig, EFF_CONFIRM, rig_count(rig, EFF_CONFIRM) - 1)->number, 3);
        assert_int_equal(sets(rig, "pub"), 200);
        if (expiry) {
            restart(&rig, 0);
            assert_true(attach(rig, 1, "pub", expiry));
            assert_int_equal(sets(rig, "pub"), 200);
            rig_clear(rig);
            assert_true(publish_with(rig, 1, "a", "x", 2, ASK_ONCE, 7, 0));
            assert_int_equal(rig_count(rig, EFF_CONFIRM), 1);
            assert_int_equal(rig_ready(rig, "mqtt-subscription-subqos1"), 1);
        }
        uint64_t there;
        rig_clear(rig);
        rig_plain(rig, CMD_MQTT_RELEASED, 1, 1, 7, 0);
        assert_int_equal(answered(rig, &there), 0);
        assert_int_equal(there, 1);
        rig_plain(rig, CMD_MQTT_RELEASED, 1, 1, 7, 0);
        (void)answered(rig, &there);
        assert_int_equal(there, 0);
        assert_true(publish_with(rig, 1, "a", "new", 2, ASK_ONCE, 7, 0)); /* the id is free */
        assert_int_equal(sets(rig, "pub"), 200);
        end(rig);
    }
}

static void released_and_completed(void **state)
{
    (void)state;
    struct rig *rig = begin();
    uint64_t there;
    (void)attach(rig, 1, "sub", 100);
    assert_int_equal(subscribe(rig, 1, "a", 2), 0);
    rig_plain(rig, CMD_MQTT_RESUME, 1, 1, 2, 0);
    for (unsigned i = 0; i < 4; i++) {
        char body[2] = {(char)('0' + i), '\0'};
        publish(rig, 2, "a", body, 1);
    }
    assert_string_equal(rig_delivered(rig), "0 1");
    uint64_t tag = rig_nth(rig, EFF_DELIVER, 0)->number;
    uint16_t id = (uint16_t)(1 + rig_nth(rig, EFF_DELIVER, 0)->count % MQTT_OWN_IDS);
    rig_clear(rig);
    release(rig, 1, tag, id);
    assert_int_equal(rig_nth(rig, EFF_ANSWER, 0)->origin, id);
    assert_true(rig_nth(rig, EFF_ANSWER, 0)->lsn > 0);
    assert_string_equal(rig_delivered(rig), ""); /* it counts until it is completed */
    assert_int_equal(sets(rig, "sub"), 1);
    release(rig, 1, 4711, 3);
    assert_int_equal(answered(rig, NULL), CODE(NOT_FOUND));
    restart(&rig, 0);
    assert_int_equal(attach_with(rig, 1, "sub", 100, 0, (struct slice){0}), 0);
    struct slice fields = rig_nth(rig, EFF_ANSWER, 0)->answer->fields;
    assert_int_equal(fields.ptr[fields.len - 3], 1);
    assert_int_equal(fields.ptr[fields.len - 2] << 8 | fields.ptr[fields.len - 1], id);
    rig_plain(rig, CMD_MQTT_RESUME, 1, 1, 2, 0);
    assert_string_equal(rig_delivered(rig), "1*"); /* not 0: what is being released is in no queue */
    rig_clear(rig);
    rig_plain(rig, CMD_MQTT_COMPLETED, 1, 1, id, 0);
    assert_int_equal(answered(rig, &there), 0);
    assert_int_equal(there, 1);
    assert_string_equal(rig_delivered(rig), "2*");
    assert_int_equal(sets(rig, "sub"), 0);
    end(rig);
}

/* Who deletes the queue of a session ends it, and so its will is due. */
static void the_queue_takes_no_will_along(void **state)
{
    (void)state;
    for (unsigned connected = 0; connected < 2; connected++) {
        struct rig *rig = begin();
        (void)attach(rig, 2, "watch", 100);
        assert_int_equal(subscribe(rig, 2, "#", 1), 0);
        assert_int_equal(attach_with(rig, 1, "dev", 100, 0, will("w", "last", 50, 0)), 0);
        assert_int_equal(subscribe(rig, 1, "#", 1), 0);
        if (!connected)
            leave(rig, 1);
        assert_true(
            rig_ask(rig, CMD_QUEUE_DELETE, 4, 1, "mqtt-subscription-devqos1", NULL, NULL, (struct slice){0}, 0));
        rig_clear(rig);
        rig_pass(rig, 1000);
        assert_string_equal(rig_delivered(rig), "last");
        assert_null(the_client(rig, "dev"));
        end(rig);
    }
}

static void sessions_have_a_limit(void **state)
{
    (void)state;
    struct broker_options options = {.mqtt_sessions_max = 2};
    struct rig *rig = begin_with(&options);
    (void)attach(rig, 1, "one", 100);
    leave(rig, 1);
    (void)attach(rig, 2, "two", 0);
    assert_int_equal(attach_with(rig, 3, "three", 0, 0, (struct slice){0}), CODE(RESOURCE_ERROR));
    assert_int_equal(attach_with(rig, 1, "one", 100, ASK_CLEAN, (struct slice){0}), 0);
    leave(rig, 2);
    assert_int_equal(attach_with(rig, 3, "three", 0, 0, (struct slice){0}), 0);
    end(rig);
}

static void wills(void **state)
{
    (void)state;
    struct rig *rig = begin();
    (void)attach(rig, 2, "watch", 100);
    assert_int_equal(subscribe(rig, 2, "w", 1), 0);
    assert_int_equal(attach_with(rig, 1, "dev", 0, 0, will("w", "at-once", 30, 0)),
                     0); /* a session's end does not wait */
    leave(rig, 1);
    assert_string_equal(rig_delivered(rig), "at-once");
    assert_null(the_client(rig, "dev"));
    acknowledge(rig, 2, 0);
    assert_int_equal(attach_with(rig, 1, "dev", 0, 0, will("w", "not", 0, 0)), 0);
    disconnect(rig, 1, 0, 0); /* said good-bye */
    assert_int_equal(attach_with(rig, 1, "dev", 0, 0, will("w", "said", 0, 0)), 0);
    disconnect(rig, 1, 0, ASK_KEEP_WILL);
    assert_string_equal(rig_delivered(rig), "said");
    acknowledge(rig, 2, 0);
    assert_int_equal(attach_with(rig, 1, "dev", 100, 0, will("w", "later", 10, 0)), 0);
    leave(rig, 1);
    rig_pass(rig, 9000);
    assert_string_equal(rig_delivered(rig), "");
    assert_int_equal(attach_with(rig, 1, "dev", 100, 0, will("w", "later", 10, 0)), 0); /* came back */
    rig_pass(rig, 5000);
    leave(rig, 1);
    rig_pass(rig, 9900);
    assert_string_equal(rig_delivered(rig), "");
    rig_pass(rig, 200);
    assert_string_equal(rig_delivered(rig), "later");
    acknowledge(rig, 2, 0);
    assert_non_null(the_client(rig, "dev"));
    rig_pass(rig, 89000);
    assert_non_null(the_client(rig, "dev"));
    rig_pass(rig, 2000);
    assert_null(the_client(rig, "dev"));
    end(rig);
}

static void wills_of_who_is_taken_over(void **state)
{
    (void)state;
    struct rig *rig = begin();
    (void)attach(rig, 3, "watch", 100);
    assert_int_equal(subscribe_as(rig, 3, "w", NULL, 0, 0, 9), 0);
    assert_int_equal(attach_with(rig, 1, "dev", 100, 0, will("w", "one", 0, 0)), 0);
    assert_int_equal(attach_with(rig, 2, "dev", 100, 0, will("w", "two", 5, 0)), 0);
    assert_string_equal(fanned(rig), "3:9:one");
    assert_int_equal(attach_with(rig, 1, "other", 100, 0, (struct slice){0}), -1); /* it is deaf until it is closed */
    leave(rig, 1);
    assert_int_equal(attach_with(rig, 1, "dev", 100, 0, will("w", "three", 5, 0)), 0);
    assert_string_equal(fanned(rig), ""); /* it had time to come back */
    leave(rig, 2);
    assert_int_equal(attach_with(rig, 2, "dev", 100, ASK_CLEAN, (struct slice){0}), 0);
    assert_string_equal(fanned(rig), "3:9:three"); /* its session has ended */
    end(rig);
}

/* Who was connected when the broker died has left then; a will fires once, whatever dies when. */
static void wills_after_a_restart(void **state)
{
    (void)state;
    for (int stopped = 0; stopped < 2; stopped++) {
        struct rig *rig = begin();
        (void)attach(rig, 2, "watch", MQTT_NEVER);
        assert_int_equal(subscribe(rig, 2, "w", 1), 0);
        assert_int_equal(attach_with(rig, 1, "dev", 0, 0, will("w", "dev", 5, MQTT_WILL_RETAIN)), 0);
        assert_int_equal(subscribe(rig, 1, "own", 1), 0); /* its queue goes with the connection, the will does not */
        assert_int_equal(attach_with(rig, 3, "slow", 50, 0, will("w", "slow", 20, 0)), 0);
        if (stopped) {
            rig_plain(rig, CMD_DRAIN, 4, 0, 0, 0);
            assert_int_equal(rig_ready(rig, "mqtt-subscription-watchqos1"), 0);
        } else
            compact_all(rig);
        restart(&rig, 1000);
        rig_pass(rig, 100);
        (void)attach(rig, 2, "watch", MQTT_NEVER);
        assert_string_equal(rig_delivered(rig), "dev");
        assert_int_equal(rig->b->mqtt.retained.count, 1);
        acknowledge(rig, 2, 0);
        rig_pass(rig, 10000);
        restart(&rig, 1000); /* neither once more, nor forgotten */
        (void)attach(rig, 2, "watch", MQTT_NEVER);
        rig_pass(rig, 21000);
        assert_string_equal(rig_delivered(rig), "slow");
        assert_non_null(the_client(rig, "slow"));
        rig_pass(rig, 51000);
        assert_null(the_client(rig, "slow"));
        end(rig);
    }
}

static void sessions_expire(void **state)
{
    (void)state;
    struct rig *rig = begin();
    (void)attach(rig, 1, "dev", 10);
    assert_int_equal(subscribe(rig, 1, "a", 1), 0);
    (void)attach(rig, 2, "stays", MQTT_NEVER);
    leave(rig, 1);
    leave(rig, 2);
    rig_pass(rig, 6000);
    restart(&rig, 3000);
    assert_non_null(the_client(rig, "dev"));
    rig_pass(rig, 500);
    assert_non_null(the_client(rig, "dev"));
    rig_pass(rig, 1000);
    assert_null(the_client(rig, "dev"));
    assert_int_equal(rig_ready(rig, "mqtt-subscription-devqos1"), UINT64_MAX);
    assert_non_null(the_client(rig, "stays"));
    assert_true(attach(rig, 1, "stays", 10));
    rig_pass(rig, 20000); /* connected: nothing expires */
    restart(&rig, 60000); /* and when nobody knows how long it was away, it counts from now */
    assert_true(attach(rig, 1, "stays", 0));
    leave(rig, 1);
    assert_null(the_client(rig, "stays"));
    end(rig);
}

/* What one crash can leave between the records of a subscription. */
static void cut_anywhere(void **state)
{
    (void)state;
    struct rig *rig = begin();
    size_t first = rig->log->count;
    (void)attach(rig, 1, "dev", 100);
    assert_int_equal(subscribe(rig, 1, "a", 1), 0);
    assert_int_equal(subscribe_as(rig, 1, "s", "g", 1, 0, 5), 0);
    assert_true(publish_with(rig, 1, "a", "x", 2, ASK_ONCE | ASK_RETAIN, 7, 0));
    assert_int_equal(unsubscribe(rig, 1, "s", "g"), 1);
    assert_int_equal(subscribe(rig, 1, "a", 0), 0);
    disconnect(rig, 1, 0, 0);
    for (size_t count = first; count <= rig->log->count; count++) {
        struct rig_log *log = rig_log_copy(rig->log, count);
        struct rig *other = rig_new(log, NULL, NOW);
        struct mqtt_client *client = the_client(other, "dev");
        struct queue *q = queue_find(vhost_find(other->b, slice_str("/")), slice_str("mqtt-subscription-devqos1"));
        assert_true(!q || (client && client->queue == q));
        assert_true(rig_ready(other, "mqtt-shared-g/s") == UINT64_MAX || (client && client->sub_count));
        if (client) {
            bool has = mqtt_ids_has(&client->received, 7);
            assert_true(!has || other->b->mqtt.retained.count == 1);
            for (unsigned session = 1; session <= 2; session++)
                reopen(other, session);
            assert_true(attach(other, 1, "dev", 100));
            rig_clear(other);
            publish(other, 2, "a", "y", 1);
            if (client->sub_count)
                assert_true(strlen(rig_delivered(other)) + strlen(fanned(other)) > 0);
        }
        rig_assert_replays(other);
        rig_free(other);
        rig_log_free(log);
    }
    end(rig);
}

/* Chance: everything that clients do, with restarts and compactions; what comes back is what was. */
static void anything(void **state)
{
    (void)state;
    static const char *const ids[] = {"one", "two", "three"}, *const patterns[] = {"a.*", "a.b", "#", "b"},
                             *const keys[] = {"a.b", "a.c", "b", "$x"};
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct broker_options options = {.compact_every = seed % 3 ? 0 : 97, .compact_slice_bytes = 200};
        struct rig *rig = begin_with(&options);
        uint64_t x = seed;
        const char *who[5] = {0};
        for (unsigned n = 0; n < 300; n++) {
            uint8_t r[8];
            rig_random(&x, r, sizeof r);
            uint32_t session = 1 + r[1] % 3;
            if (rig->effect_count > 2000)
                rig_clear(rig);
            if (r[0] < 30 || !who[session]) {
                leave(rig, session);
                who[session] = ids[r[2] % 3];
                uint32_t expiry = r[3] % 3 ? 5u + r[3] : 0;
                (void)attach_with(rig, session, who[session], expiry, r[4] % 5 ? 0 : ASK_CLEAN,
                                  r[5] % 2 ? will("a.b", "will", r[6] % 10, r[7] % 2) : (struct slice){0});
                rig_plain(rig, CMD_MQTT_RESUME, session, 1, 3, 0);
                for (uint32_t other = 1; other <= 3; other++)
                    if (other != session && who[other] == who[session]) {
                        leave(rig, other);
                        who[other] = NULL;
                    }
            } else if (r[0] < 90)
                (void)subscribe_as(rig, session, patterns[r[2] % 4], r[3] % 4 ? NULL : "g", r[4] % 3 | (r[5] & 4), r[6],
                                   100 + n);
            else if (r[0] < 110)
                (void)unsubscribe(rig, session, patterns[r[2] % 4], r[3] % 4 ? NULL : "g");
            else if (r[0] < 180)
                assert_true(publish_with(rig, session, keys[r[2] % 4], r[7] % 4 ? "body" : "", r[3] % 3,
                                         (r[3] % 3 == 2 ? ASK_ONCE : 0) | (r[4] % 2 ? ASK_RETAIN : 0),
                                         (uint16_t)(1 + r[5] % 8), r[6] % 3 ? 0 : 3000));
            else if (r[0] < 200)
                rig_plain(rig, r[2] % 2 ? CMD_MQTT_RELEASED : CMD_MQTT_COMPLETED, session, 1, 1 + r[3] % 8, 0);
            else if (r[0] < 225) {
                for (unsigned i = 0; i < rig->effect_count; i++) {
                    struct effect *e = &rig->effects[i];
                    if (e->type != EFF_DELIVER || e->session != session || !who[session])
                        continue;
                    struct channel *ch = channel_of(peer_of(rig->b, &rig->b->sides[0], session), 1);
                    if (!unacked_find(&ch->unacked, e->number))
                        continue;
                    if (r[2] % 2)
                        release(rig, session, e->number, (uint16_t)(1 + e->count % 8));
                    else
                        rig_plain(rig, CMD_ACK, session, 1, e->number, 0);
                    break;
                }
            } else if (r[0] < 245)
                rig_pass(rig, r[2] * 10);
            else {
                memset(who, 0, sizeof who);
                restart(&rig, r[2] * 20);
            }
            if (n % 50 == 49)
                rig_assert_replays(rig);
        }
        end(rig);
    }
}

/* Memory is refused anywhere: nothing that was said is lost, and nothing leaks. */
static void without_memory(void **state)
{
    (void)state;
    for (int for_ever = 0; for_ever < 2; for_ever++)
        for (uint64_t n = 1, hit = 1; hit; n++) {
            struct rig *rig = begin();
            rig->starved = true;
            mem_fail_at(n, for_ever);
            (void)attach_with(rig, 1, "dev", 100, 0, will("w", "will", 0, MQTT_WILL_RETAIN));
            rig_plain(rig, CMD_MQTT_RESUME, 1, 1, 10, 0);
            (void)subscribe_as(rig, 1, "a", NULL, 1, 0, 5);
            (void)subscribe_as(rig, 1, "w", NULL, 0, 0, 6);
            (void)subscribe_as(rig, 1, "a", "g", 1, 0, 7);
            (void)publish_with(rig, 1, "a", "x", 2, ASK_ONCE | ASK_RETAIN, 7, 0);
            if (rig_nth(rig, EFF_DELIVER, 0))
                release(rig, 1, rig_nth(rig, EFF_DELIVER, 0)->number, 9);
            (void)rig_ask(rig, CMD_MQTT_RETAINED, 1, 1, "#", NULL, NULL, (struct slice){0}, 0);
            (void)unsubscribe(rig, 1, "a", "g");
            (void)attach_with(rig, 2, "dev", 100, 0, (struct slice){0});
            rig_plain(rig, CMD_MQTT_RESUME, 2, 1, 10, 0);
            rig_plain(rig, CMD_SESSION_CLOSE, 1, 0, 0, 0);
            rig_plain(rig, CMD_SESSION_CLOSE, 2, 0, 0, 0);
            hit = mem_failures_hit();
            mem_fail_at(0, false);
            rig->starved = false;
            rig_step(rig);
            rig_pass(rig, 1500);
            rig_assert_nothing_lost(rig);
            struct rig_log *log = rig->log;
            rig_free(rig);
            rig_log_free(log);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(taken_once),
        cmocka_unit_test(released_and_completed),
        cmocka_unit_test(wills),
        cmocka_unit_test(the_queue_takes_no_will_along),
        cmocka_unit_test(sessions_have_a_limit),
        cmocka_unit_test(wills_of_who_is_taken_over),
        cmocka_unit_test(wills_after_a_restart),
        cmocka_unit_test(sessions_expire),
        cmocka_unit_test(cut_anywhere),
        cmocka_unit_test(anything),
        cmocka_unit_test(without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
