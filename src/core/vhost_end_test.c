/* A vhost goes in slices: others are served meanwhile, its clients are deaf at once, its name is free at the end; and wherever a
 * crash or a compaction comes between, nothing of it is left. So do the queues of a connection that closes. */
#include "core/query_words_test.h"

#define QUEUES 2000u
#define NOTHING ((struct slice){0})

enum {
#define ADMIN(name, operands) OP_##name,
#include "core/admin.def"
#undef ADMIN
};

static void operate(struct rig *rig, uint64_t operation, const char *name, const char *other, struct slice args)
{
    assert_true(rig_ask_full(rig, CMD_ADMIN, 1, 0, name, other, NULL, args, 0, operation));
}

static void make_vhost(struct rig *rig)
{
    struct table t;
    amqp_put_str(&table(&t)->w, "configure", slice_str(".*"));
    amqp_put_str(&t.w, "write", slice_str(".*"));
    amqp_put_str(&t.w, "read", slice_str(".*"));
    operate(rig, OP_VHOST_PUT, "v", "", NOTHING);
    operate(rig, OP_PERMISSION_PUT, "guest", "v", writer_slice(&t.w));
    assert_string_equal(rig_error(rig), "");
}

static void enter(struct rig *rig, uint32_t session)
{
    struct slice none = {0};
    assert_true(rig_ask(rig, CMD_SESSION_OPEN, session, 0, "127.0.0.1:1", "AMQP 0-9-1", NULL, none, ASK_LOOPBACK) &&
                rig_ask(rig, CMD_LOGIN, session, 0, "guest", "guest", "PLAIN", none, 0) &&
                rig_ask(rig, CMD_ENTER, session, 0, "v", NULL, NULL, none, 0));
    rig_plain(rig, CMD_CHANNEL_OPEN, session, 1, 0, 0);
}

static void in_v(struct rig *rig, enum command_type type, const char *name, const char *other, const char *key,
                 uint32_t flags)
{
    assert_true(rig_ask(rig, type, 2, 1, name, other, key, (struct slice){0}, flags));
    assert_string_equal(rig_error(rig), "");
    rig_clear(rig);
}

/* Durable queues with a message each, bound twice; some of the client's own; a consumer; exchanges. */
static void fill(struct rig *rig, unsigned queues)
{
    char name[32];
    rig->check = false; /* of so many after each command */
    in_v(rig, CMD_EXCHANGE_DECLARE, "x", "topic", NULL, ASK_DURABLE);
    in_v(rig, CMD_EXCHANGE_DECLARE, "auto", "fanout", NULL, ASK_DURABLE | ASK_AUTO_DELETE);
    for (unsigned i = 0; i < queues; i++) {
        snprintf(name, sizeof name, "q%u", i);
        in_v(rig, CMD_QUEUE_DECLARE, name, NULL, NULL, i % 10 ? ASK_DURABLE : ASK_EXCLUSIVE);
        in_v(rig, CMD_QUEUE_BIND, name, "x", name, 0);
        in_v(rig, CMD_QUEUE_BIND, name, "auto", "", 0);
        rig_publish(rig, 2, 1, "", name, "m", true);
    }
    assert_true(rig_ask(rig, CMD_CONSUME, 2, 1, "q1", "c", NULL, (struct slice){0}, 0));
    rig_clear(rig);
    rig->check = true;
}

static struct rig *begin_full(unsigned queues)
{
    struct rig *rig = begin();
    make_vhost(rig);
    enter(rig, 2);
    fill(rig, queues);
    declare(rig, "mine", (struct slice){0});
    rig_plain(rig, CMD_CONFIRM_SELECT, 1, 1, 0, 0);
    rig_clear(rig);
    return rig;
}

/* One step of the core. */
static void turn(struct rig *rig)
{
    rig->durable = rig->log->count;
    ring_publish(&broker_port(rig->b, 0)->commands);
    (void)broker_step(rig->b, rig->now, rig->wall, rig->durable);
    rig_take(rig, 0);
    broker_check(rig->b);
}

static void command(struct rig *rig, enum command_type type, uint32_t session, uint16_t channel, const char *name,
                    const char *other, uint64_t number)
{
    struct command *c = rig_command(rig, 0, type, session, channel);
    c->ask = ask_new(rig_text(name), rig_text(other), NOTHING, NOTHING);
    c->ask->number = number;
    c->number = number;
}

static void publish_to_mine(struct rig *rig)
{
    struct msg *msg = msg_new(broker_heap(rig->b), NOTHING, slice_str("mine"), NOTHING, 0);
    struct command *c = rig_command(rig, 0, CMD_PUBLISH, 1, 1);
    c->msg = msg;
    c->number = ++rig->seq[1][1];
}

static bool is_dying(struct rig *rig)
{
    return !list_empty(&rig->b->dying);
}

/* In the same tick its client asks for one thing more. */
static void begin_to_delete(struct rig *rig)
{
    command(rig, CMD_ADMIN, 1, 0, "v", "", OP_VHOST_DELETE);
    command(rig, CMD_QUEUE_DECLARE, 2, 1, "too-late", NULL, 0);
    turn(rig);
    assert_true(is_dying(rig));
}

/* What a crash now would leave. */
static void assert_nothing_of_it_is_left(struct rig *rig)
{
    struct rig_log *copy = rig_log_copy(rig->log, rig->log->count);
    struct rig *other = rig_new(copy, &rig->options, rig->wall);
    assert_null(vhost_find(other->b, slice_str("v")));
    assert_int_equal(other->b->queues_by_id.count, 1);
    assert_int_equal(other->b->totals.bindings, 0);
    assert_int_equal(other->b->totals.exchanges, 7);
    rig_free(other);
    rig_log_free(copy);
}

static void others_are_served_meanwhile(void **state)
{
    (void)state;
    struct rig *rig = begin_full(QUEUES);
    begin_to_delete(rig);
    assert_int_equal(rig_count(rig, EFF_ANSWER), 0);
    assert_int_equal(rig_count(rig, EFF_SESSION_KICK), 1);
    const struct effect *kicked = rig_nth(rig, EFF_SESSION_KICK, 0);
    assert_int_equal(kicked->session, 2);
    assert_true(slice_is(kicked->answer->text, "vhost 'v' is deleted"));
    assert_null(queue_find(CONTAINER_OF(rig->b->dying.next, struct vhost, dying_link), slice_str("too-late")));
    size_t records = rig->log->count;
    unsigned turns = 0;
    for (; is_dying(rig); turns++) {
        uint64_t queues = rig->b->totals.queues, bindings = rig->b->totals.bindings;
        assert_int_equal(rig_count(rig, EFF_ANSWER), 0);
        rig_clear(rig);
        publish_to_mine(rig);
        turn(rig);
        assert_int_equal(rig_count(rig, EFF_CONFIRM), 1);
        assert_true(queues - rig->b->totals.queues <= 256 && bindings - rig->b->totals.bindings <= 256);
    }
    assert_true(turns >= 2 * QUEUES / 256);
    assert_int_equal(rig_count(rig, EFF_ANSWER), 1);
    assert_int_equal(rig->log->count, records); /* nothing more is said of it */
    rig_plain(rig, CMD_SESSION_CLOSE, 2, 0, 0, 0);
    end(rig);
}

/* It is gone for whoever asks, but cannot be made again yet; at the end it can, and is empty. */
static void its_name_is_free_at_the_end(void **state)
{
    (void)state;
    struct rig *rig = begin_full(QUEUES);
    begin_to_delete(rig);
    command(rig, CMD_ADMIN, 1, 0, "v", "", OP_VHOST_PUT);
    turn(rig);
    assert_string_equal(rig_error(rig), "405 vhost 'v' is being deleted; it can be made again when that is done");
    rig_clear(rig);
    command(rig, CMD_ADMIN, 1, 0, "v", "", OP_VHOST_DELETE);
    turn(rig);
    assert_string_equal(rig_error(rig), "404 there is no vhost 'v'");
    rig_clear(rig);
    command(rig, CMD_ADMIN, 1, 0, "", "", OP_PERMISSION_LIST);
    command(rig, CMD_ADMIN, 1, 0, "", "", OP_QUEUE_LIST);
    command(rig, CMD_ADMIN, 1, 0, "", "", OP_VHOST_LIST);
    turn(rig);
    assert_true(is_dying(rig));
    assert_int_equal(rig_count(rig, EFF_ROW), 3); /* guest in "/", the queue "mine", the vhost "/" */
    while (is_dying(rig))
        turn(rig);
    rig_plain(rig, CMD_SESSION_CLOSE, 2, 0, 0, 0);
    rig_clear(rig);
    make_vhost(rig);
    enter(rig, 2);
    assert_string_equal(rig_error(rig), "");
    in_v(rig, CMD_QUEUE_DECLARE, "q3", NULL, NULL, ASK_DURABLE);
    rig_assert_replays(rig);
    struct queue *q = queue_find(vhost_find(rig->b, slice_str("v")), slice_str("q3"));
    assert_true(list_empty(&q->targets) && q->busy->ready_count == 0);
    end(rig);
}

static void a_crash_leaves_nothing_of_it(void **state)
{
    (void)state;
    struct rig *rig = begin_full(600);
    begin_to_delete(rig);
    while (is_dying(rig)) {
        assert_nothing_of_it_is_left(rig);
        turn(rig);
    }
    assert_nothing_of_it_is_left(rig);
    end(rig);
}

/* What a snapshot writes while it goes, and what it has written before, does not come back; not in one of its name either. */
static void a_snapshot_leaves_nothing_of_it(void **state)
{
    (void)state;
    for (unsigned when = 0; when < 3; when++) {
        struct rig *rig = begin_full(600);
        if (when == 0) {
            compact_start(rig->b);
            turn(rig);
            assert_true(rig->b->compact.phase == COMPACT_CATALOGUE);
        }
        begin_to_delete(rig);
        if (when == 1)
            compact_start(rig->b);
        while (is_dying(rig)) {
            turn(rig);
            if (when == 2 && rig->b->totals.queues < 300)
                compact_start(rig->b);
            assert_nothing_of_it_is_left(rig);
        }
        assert_int_equal(rig->b->compact.phase != COMPACT_IDLE || rig->b->totals.compactions, true);
        rig_plain(rig, CMD_SESSION_CLOSE, 2, 0, 0, 0);
        assert_int_equal(rig->b->totals.compactions, 1);
        assert_nothing_of_it_is_left(rig);
        rig_clear(rig);
        make_vhost(rig);
        rig_assert_replays(rig);
        end(rig);
    }
}

/* Queues that take a turn each to go, and last, with the last id, that of the delayed messages. */
static void fill_slowly(struct rig *rig)
{
    struct table t;
    char name[32], *body = calloc(1, 1 << 20);
    for (unsigned i = 0; i < 10; i++) {
        snprintf(name, sizeof name, "q%u", i);
        in_v(rig, CMD_QUEUE_DECLARE, name, NULL, NULL, ASK_DURABLE);
        memset(body, 'x', (1 << 20) - 1);
        rig_publish(rig, 2, 1, "", name, body, false);
    }
    free(body);
    amqp_put_str(&table(&t)->w, "x-delayed-type", slice_str("fanout"));
    assert_true(
        rig_ask(rig, CMD_EXCHANGE_DECLARE, 2, 1, "late", "x-delayed-message", NULL, writer_slice(&t.w), ASK_DURABLE));
    amqp_put_long(&table(&t)->w, "x-delay", 1000000);
    struct amqp_props props = {.present = AMQP_HEADERS, .headers = writer_slice(&t.w)};
    rig_publish_with(rig, 2, 1, "late", "", slice_str("m"), &props, 0);
    assert_string_equal(rig_error(rig), "");
    rig_clear(rig);
}

/* K8: a snapshot that says nothing of the queue with the last id, because it goes, says that the id was given out. */
static void ids_are_given_out_once(void **state)
{
    (void)state;
    struct rig *rig = begin();
    make_vhost(rig);
    enter(rig, 2);
    rig_clear(rig);
    fill_slowly(rig);
    uint64_t next = rig->b->next_queue_id, last = next - 1;
    begin_to_delete(rig);
    compact_start(rig->b);
    while (rig->b->totals.compactions == 0)
        turn(rig);
    assert_true(is_dying(rig) && map_get(&rig->b->queues_by_id, map_key_u64(&last)));
    restart(&rig);
    assert_int_equal(rig->b->next_queue_id, next);
    end(rig);
}

/* Who asked has left, and its number is another's. */
static void nobody_waits_for_the_end(void **state)
{
    (void)state;
    struct rig *rig = begin_full(QUEUES);
    assert_true(rig_open(rig, 3));
    rig_clear(rig);
    command(rig, CMD_ADMIN, 3, 0, "v", "", OP_VHOST_DELETE);
    turn(rig);
    rig_command(rig, 0, CMD_SESSION_CLOSE, 3, 0);
    command(rig, CMD_SESSION_OPEN, 3, 0, "127.0.0.1:1", "AMQP 0-9-1", 0);
    turn(rig);
    assert_true(is_dying(rig));
    while (is_dying(rig))
        turn(rig);
    assert_int_equal(rig_count(rig, EFF_ANSWER), 0);
    end(rig);
}

/* Its clients leave, and the broker ends, before it has gone. */
static void ends_in_the_middle(void **state)
{
    (void)state;
    struct rig *rig = begin_full(QUEUES);
    begin_to_delete(rig);
    rig_command(rig, 0, CMD_SESSION_CLOSE, 2, 0);
    turn(rig);
    assert_int_equal(rig_count(rig, EFF_SESSION_CLOSED), 1);
    assert_true(is_dying(rig));
    struct rig_log *log = rig->log;
    rig_free(rig);
    rig_log_free(log);
}

/* One of each kind of thing; the queues and what is in them are in fill. */
static void fill_with_everything(struct rig *rig)
{
    struct table t;
    struct vhost *v = vhost_find(rig->b, slice_str("v"));
    fill(rig, 20);
    amqp_put_str(&table(&t)->w, "x-queue-type", slice_str("stream"));
    assert_true(rig_ask(rig, CMD_QUEUE_DECLARE, 2, 1, "s", NULL, NULL, writer_slice(&t.w), ASK_DURABLE));
    in_v(rig, CMD_QUEUE_BIND, "q1", "amq.stream.s", "", 0);
    rig_publish(rig, 2, 1, "", "s", "record", true);
    amqp_put_str(&table(&t)->w, "x-delayed-type", slice_str("fanout"));
    assert_true(
        rig_ask(rig, CMD_EXCHANGE_DECLARE, 2, 1, "late", "x-delayed-message", NULL, writer_slice(&t.w), ASK_DURABLE));
    amqp_put_long(&table(&t)->w, "x-delay", 100000);
    struct amqp_props props = {.present = AMQP_HEADERS, .headers = writer_slice(&t.w)};
    assert_true(rig_publish_with(rig, 2, 1, "late", "", slice_str("later"), &props, 0));
    assert_non_null(delay_queue(v));
    struct group *g = group_make(rig->b, v, slice_str("group"));
    assert_true(g && group_log(rig->b, g));
    command(rig, CMD_TXN_INIT, 2, 0, "txn", NULL, 60000);
    rig_step(rig);
    assert_int_equal(v->txns.count, 1);
    assert_true(engine_enter(rig, ENGINE, "guest", "v"));
    assert_true(put_statement(rig, "statement", "SELECT 1") > 0);
    enter(rig, 3);
    assert_true(rig_ask_full(rig, CMD_MQTT_ATTACH, 3, 1, "device", NULL, "amq.topic", NOTHING, 0, 1000));
    struct ask *ask = ask_new(slice_str("#"), NOTHING, NOTHING, NOTHING);
    ask->number = UINT64_C(1) << 32;
    rig_command(rig, 0, CMD_MQTT_SUBSCRIBE, 3, 1)->ask = ask;
    rig_step(rig);
    assert_int_equal(v->mqtt_clients.count, 1);
    assert_string_equal(rig_error(rig), "");
    rig_clear(rig);
}

static void everything_in_it_goes(void **state)
{
    (void)state;
    struct rig *rig = begin();
    make_vhost(rig);
    enter(rig, 2);
    fill_with_everything(rig);
    declare(rig, "mine", NOTHING);
    rig_assert_replays(rig);
    begin_to_delete(rig);
    for (unsigned turns = 0; is_dying(rig); turns++) {
        assert_true(turns < 100);
        assert_nothing_of_it_is_left(rig);
        rig_clear(rig);
        turn(rig);
    }
    rig_step(rig);
    assert_int_equal(rig->b->queues_by_id.count, 1);
    assert_int_equal(rig->b->txns.count + rig->b->groups.count + rig->b->sql.objects.count, 0);
    assert_true(list_empty(&rig->b->mqtt.clients));
    rig_plain(rig, CMD_SESSION_CLOSE, 2, 0, 0, 0);
    rig_plain(rig, CMD_SESSION_CLOSE, 3, 0, 0, 0);
    end(rig);
}

static void an_owner_of_many_leaves(void **state)
{
    (void)state;
    char name[32];
    struct rig *rig = begin();
    declare(rig, "mine", NOTHING);
    assert_true(rig_open(rig, 2));
    rig_plain(rig, CMD_CHANNEL_OPEN, 2, 1, 0, 0);
    rig->check = false;
    for (unsigned i = 0; i < QUEUES; i++) {
        snprintf(name, sizeof name, "own%u", i);
        in_v(rig, CMD_QUEUE_DECLARE, name, NULL, NULL, ASK_EXCLUSIVE);
    }
    rig_plain(rig, CMD_CONFIRM_SELECT, 1, 1, 0, 0);
    rig_clear(rig);
    rig_command(rig, 0, CMD_SESSION_CLOSE, 2, 0);
    unsigned turns = 0;
    for (uint64_t before = rig->b->totals.queues; rig->b->totals.sessions == 2;
         before = rig->b->totals.queues, turns++) {
        assert_int_equal(rig_count(rig, EFF_SESSION_CLOSED), 0);
        rig_clear(rig);
        publish_to_mine(rig);
        turn(rig);
        assert_int_equal(rig_count(rig, EFF_CONFIRM), 1);
        assert_true(before - rig->b->totals.queues <= 256);
    }
    assert_true(turns >= QUEUES / 256);
    assert_int_equal(rig_count(rig, EFF_SESSION_CLOSED), 1);
    assert_int_equal(rig->b->totals.queues, 1);
    assert_true(rig_open(rig, 2)); /* its number is free again */
    rig_plain(rig, CMD_CHANNEL_OPEN, 2, 1, 0, 0);
    in_v(rig, CMD_QUEUE_DECLARE, name, NULL, NULL, ASK_EXCLUSIVE);
    rig_plain(rig, CMD_SESSION_CLOSE, 2, 0, 0, 0);
    assert_int_equal(rig->b->totals.queues, 1);
    end(rig);
}

/* The broker ends before they have gone, and so does the vhost that they are in. */
static void an_owner_that_is_leaving(void **state)
{
    (void)state;
    for (int deleted = 0; deleted < 2; deleted++) {
        struct rig *rig = begin_full(10 * QUEUES / 4);
        rig_command(rig, 0, CMD_SESSION_CLOSE, 2, 0);
        turn(rig);
        assert_false(list_empty(&rig->b->leaving));
        if (deleted) {
            command(rig, CMD_ADMIN, 1, 0, "v", "", OP_VHOST_DELETE);
            while (turn(rig), is_dying(rig))
                ;
            turn(rig);
            assert_true(list_empty(&rig->b->leaving));
            assert_int_equal(rig_count(rig, EFF_SESSION_CLOSED), 1);
            end(rig);
        } else {
            struct rig_log *log = rig->log;
            rig_free(rig);
            rig_log_free(log);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(others_are_served_meanwhile),  cmocka_unit_test(its_name_is_free_at_the_end),
        cmocka_unit_test(a_crash_leaves_nothing_of_it), cmocka_unit_test(a_snapshot_leaves_nothing_of_it),
        cmocka_unit_test(ids_are_given_out_once),       cmocka_unit_test(nobody_waits_for_the_end),
        cmocka_unit_test(ends_in_the_middle),           cmocka_unit_test(everything_in_it_goes),
        cmocka_unit_test(an_owner_of_many_leaves),      cmocka_unit_test(an_owner_that_is_leaving),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
