/* MQTT clients in the core: subscriptions of the three kinds, what comes by them, taking over, rights. */
#include "core/mqtt_words_test.h"

enum {
#define ADMIN(name, operands) ADMIN_##name,
#include "core/admin.def"
#undef ADMIN
};

static void taps(void **state)
{
    (void)state;
    struct rig *rig = begin();
    assert_false(attach(rig, 1, "one", 0));
    assert_false(attach(rig, 2, "two", 0));
    assert_int_equal(subscribe_as(rig, 1, "a.*", NULL, 0, 0, 5), 0);
    assert_int_equal(subscribe_as(rig, 2, "a.*", NULL, 0, 0, 6), 0);
    assert_int_equal(subscribe_as(rig, 2, "#", NULL, 0, 0, 7), 0);
    rig_clear(rig);
    publish(rig, 1, "a.b", "x", 0);
    assert_string_equal(fanned(rig), "2:7:x 1:5:x 2:6:x");
    assert_int_equal(rig_count(rig, EFF_FANOUT), 2); /* one for each pattern, however many have it */
    assert_int_equal(rig_nth(rig, EFF_FANOUT, 0)->number, 2);
    rig_clear(rig);
    publish(rig, 1, "b", "y", 0);
    assert_string_equal(fanned(rig), "2:7:y");
    assert_int_equal(unsubscribe(rig, 2, "a.*", NULL), 1);
    assert_int_equal(unsubscribe(rig, 2, "a.*", NULL), 0);
    publish(rig, 3, "a.b", "z", 0);
    assert_string_equal(fanned(rig), "2:7:z 1:5:z");
    assert_int_equal(rig_nth(rig, EFF_FANOUT, 0)->number, 4); /* session 3, of this loop */
    leave(rig, 2);
    publish(rig, 3, "a.b", "z", 0);
    assert_string_equal(fanned(rig), "1:5:z");
    end(rig);
}

/* What is on its way names those who were there, but for who has left since; what comes later names those who are there. */
static void an_audience_changes_while_it_is_told(void **state)
{
    (void)state;
    struct rig *rig = begin();
    for (uint32_t session = 1; session <= 3; session++) {
        char id[4] = {(char)('a' + session), '\0'};
        (void)attach(rig, session, id, 0);
        assert_int_equal(subscribe_as(rig, session, "t", NULL, 0, 0, 10 + session), 0);
    }
    rig_clear(rig);
    publish(rig, 4, "t", "x", 0);
    struct effect held = *rig_nth(rig, EFF_FANOUT, 0);
    rig_nth(rig, EFF_FANOUT, 0)->type = EFF_NONE; /* the loop has it still */
    rig_nth(rig, EFF_NONE, 0)->audience = NULL;
    rig_nth(rig, EFF_NONE, 0)->msg = NULL;
    leave(rig, 2);
    publish(rig, 4, "t", "y", 0);
    assert_string_equal(fanned(rig), "1:11:y 3:13:y");
    rig_clear(rig);
    (void)attach(rig, 2, "again", 0);
    for (uint32_t handle = 20; handle < 40; handle++) { /* the list grows: it is another one */
        char pattern[2] = "t";
        assert_int_equal(subscribe_as(rig, 2, pattern, NULL, 0, 0, handle), 0);
    }
    rig_clear(rig);
    publish(rig, 4, "t", "z", 0);
    assert_string_equal(fanned(rig), "1:11:z 3:13:z 2:39:z");
    rig_clear(rig);
    rig->effects[rig->effect_count++] = held;
    assert_string_equal(fanned(rig), "1:11:x 3:13:x");
    end(rig);
}

static void the_queue_of_a_session(void **state)
{
    (void)state;
    struct rig *rig = begin();
    assert_false(attach(rig, 1, "dev", 100));
    assert_int_equal(subscribe(rig, 1, "a.#", 1), 0);
    assert_int_equal(rig_ready(rig, "mqtt-subscription-devqos1"), 0);
    rig_clear(rig);
    publish(rig, 2, "a.b", "one", 1);
    publish(rig, 2, "a", "two", 1);
    assert_string_equal(rig_delivered(rig), "one two");
    assert_int_equal(rig_nth(rig, EFF_DELIVER, 0)->consumer, MQTT_OWN_QUEUE);
    uint64_t position = rig_nth(rig, EFF_DELIVER, 1)->count;
    assert_true(position > rig_nth(rig, EFF_DELIVER, 0)->count);
    acknowledge(rig, 1, 0);
    leave(rig, 1);
    publish(rig, 2, "a.c", "three", 1);
    publish(rig, 2, "b", "four", 1);
    restart(&rig, 1000);
    assert_true(attach(rig, 1, "dev", 100));
    assert_string_equal(rig_delivered(rig), "two* three*"); /* after a crash the mark has the last word on that */
    assert_int_equal(rig_nth(rig, EFF_DELIVER, 0)->count, position); /* the same packet id */
    assert_int_equal(unsubscribe(rig, 1, "a.#", NULL), 1);
    rig_clear(rig);
    publish(rig, 2, "a.c", "five", 1);
    assert_string_equal(rig_delivered(rig), "");
    assert_true(rig_nth(rig, EFF_CONFIRM, 0)->flags == 0); /* no client publishes here */
    disconnect(rig, 1, 0, 0);
    assert_int_equal(rig_ready(rig, "mqtt-subscription-devqos1"), UINT64_MAX);
    assert_null(the_client(rig, "dev"));
    end(rig);
}

static void a_session_that_ends_with_its_connection(void **state)
{
    (void)state;
    struct rig *rig = begin();
    size_t before = rig->log->count;
    assert_false(attach(rig, 1, "dev", 0));
    assert_int_equal(subscribe(rig, 1, "a", 1), 0);
    assert_int_equal(rig->log->count, before); /* nobody has to wait for the disk */
    rig_clear(rig);
    publish(rig, 2, "a", "x", 1);
    assert_string_equal(rig_delivered(rig), "x");
    leave(rig, 1);
    assert_int_equal(rig_ready(rig, "mqtt-subscription-devqos1"), UINT64_MAX);
    assert_false(attach(rig, 1, "dev", 0));
    assert_string_equal(rig_delivered(rig), "");
    end(rig);
}

static void the_kind_of_a_subscription_changes(void **state)
{
    (void)state;
    struct rig *rig = begin();
    uint64_t there;
    (void)attach(rig, 1, "dev", 100);
    assert_int_equal(subscribe_as(rig, 1, "a", NULL, 0, 0, 5), 0);
    assert_int_equal(subscribe_as(rig, 1, "a", NULL, 1, 0, 6), 0);
    (void)answered(rig, &there);
    assert_int_equal(there, 1);
    rig_clear(rig);
    publish(rig, 2, "a", "x", 0);
    assert_string_equal(fanned(rig), "");
    assert_string_equal(rig_delivered(rig), "x");
    acknowledge(rig, 1, 0);
    assert_int_equal(subscribe_as(rig, 1, "a", NULL, 0, 0, 7), 0);
    rig_clear(rig);
    publish(rig, 2, "a", "y", 0);
    assert_string_equal(fanned(rig), "1:7:y");
    assert_string_equal(rig_delivered(rig), "");
    restart(&rig, 0);
    assert_true(attach(rig, 1, "dev", 100));
    publish(rig, 2, "a", "z", 0);
    assert_string_equal(fanned(rig), "1:2:z");
    end(rig);
}

static void no_local(void **state)
{
    (void)state;
    struct rig *rig = begin();
    (void)attach(rig, 1, "dev", 100);
    assert_int_equal(subscribe(rig, 1, "a", 1 | MQTT_NO_LOCAL), 0);
    rig_clear(rig);
    publish(rig, 1, "a", "mine", 1);
    assert_int_equal(rig_nth(rig, EFF_CONFIRM, 0)->flags, EFFECT_UNROUTED);
    publish(rig, 2, "a", "other", 1);
    assert_string_equal(rig_delivered(rig), "other");
    assert_int_equal(subscribe(rig, 1, "#", 1), 0); /* by that one it comes */
    rig_clear(rig);
    publish(rig, 1, "a", "mine", 1);
    assert_string_equal(rig_delivered(rig), "mine");
    assert_int_equal(unsubscribe(rig, 1, "#", NULL), 1);
    restart(&rig, 0);
    (void)attach(rig, 1, "dev", 100);
    rig_clear(rig);
    publish(rig, 1, "a", "mine", 1);
    assert_string_equal(rig_delivered(rig), "");
    end(rig);
}

static void shares(void **state)
{
    (void)state;
    struct rig *rig = begin();
    (void)attach(rig, 1, "one", 100);
    (void)attach(rig, 2, "two", 0);
    assert_int_equal(subscribe_as(rig, 1, "a.*", "g", 1, 0, 5), 0);
    assert_int_equal(subscribe_as(rig, 2, "a.*", "g", 0, 0, 6), 0);
    rig_clear(rig);
    for (unsigned i = 0; i < 4; i++)
        publish(rig, 3, "a.b", "x", 1);
    assert_string_equal(rig_delivered(rig), "x x x x");
    unsigned of[2] = {0, 0};
    for (unsigned i = 0; i < 4; i++)
        of[rig_nth(rig, EFF_DELIVER, i)->consumer - 5]++;
    assert_int_equal(of[0], 2);
    assert_int_equal(of[1], 2);
    leave(rig, 2);
    rig_clear(rig);
    publish(rig, 3, "a.b", "y", 1);
    assert_string_equal(rig_delivered(rig), "y");
    leave(rig, 1); /* but its subscription stays */
    restart(&rig, 0);
    assert_int_equal(rig_ready(rig, "mqtt-shared-g/a.*"), 3);
    assert_true(attach(rig, 1, "one", 100));
    assert_string_equal(rig_delivered(rig), "x* x* y*");
    assert_int_equal(rig_nth(rig, EFF_DELIVER, 0)->consumer, MQTT_HANDLE_FIRST);
    assert_int_equal(unsubscribe(rig, 1, "a.*", "g"), 1);
    assert_int_equal(rig_ready(rig, "mqtt-shared-g/a.*"), UINT64_MAX);
    end(rig);
}

static void taken_over(void **state)
{
    (void)state;
    struct rig *rig = begin();
    (void)attach(rig, 1, "dev", 100);
    assert_int_equal(subscribe_as(rig, 1, "a", NULL, 2, 77, 5), 0);
    publish(rig, 2, "a", "x", 1);
    assert_true(attach(rig, 2, "dev", 100));
    struct effect *kick = rig_nth(rig, EFF_SESSION_KICK, 0);
    assert_int_equal(kick->session, 1);
    assert_int_equal(kick->answer->code, ERR_TAKEN_OVER);
    assert_string_equal(rig_delivered(rig), "x*");
    assert_int_equal(rig_nth(rig, EFF_DELIVER, 0)->session, 2);
    struct effect *answer = rig_nth(rig, EFF_ANSWER, 0);
    uint8_t fields[] = {0, 0, 0, 1, 1, 'a', 0, 2, 0, 0, 0, 77, 0, 0, 0, 0};
    assert_true(slice_equal(answer->answer->fields, slice_of(fields, sizeof fields)));
    assert_true(slice_is(answer->answer->name, "dev"));
    leave(rig, 1); /* which is nothing to the client any more */
    assert_non_null(the_client(rig, "dev")->peer);
    rig_clear(rig);
    assert_int_equal(attach_with(rig, 3, "dev", 0, ASK_CLEAN, (struct slice){0}), 0);
    assert_int_equal(rig_nth(rig, EFF_SESSION_KICK, 0)->session, 2);
    assert_int_equal(rig_ready(rig, "mqtt-subscription-devqos1"), UINT64_MAX);
    end(rig);
}

static void what_is_refused(void **state)
{
    (void)state;
    struct rig *rig = begin();
    char longest[256];
    memset(longest, 'x', sizeof longest);
    longest[MQTT_CLIENT_ID_MAX + 1] = '\0';
    assert_int_equal(attach_with(rig, 1, longest, 0, 0, (struct slice){0}), CODE(PRECONDITION_FAILED));
    rig_clear(rig);
    assert_true(rig_ask(rig, CMD_MQTT_ATTACH, 1, 1, "dev", NULL, "nowhere", (struct slice){0}, 0));
    assert_int_equal(answered(rig, NULL), CODE(NOT_FOUND));
    rig_clear(rig);
    assert_true(rig_ask(rig, CMD_MQTT_ATTACH, 1, 1, "dev", NULL, "amq.fanout", (struct slice){0}, 0));
    assert_int_equal(answered(rig, NULL), CODE(NOT_FOUND));
    assert_int_equal(attach_with(rig, 1, "dev", 0, 0, slice_str("not a will")), CODE(PRECONDITION_FAILED));
    assert_int_equal(subscribe(rig, 1, "a", 0), CODE(PRECONDITION_FAILED));
    (void)attach(rig, 1, "dev", 0);
    assert_int_equal(attach_with(rig, 1, "other", 0, 0, (struct slice){0}), CODE(PRECONDITION_FAILED));
    assert_int_equal(subscribe(rig, 1, "a.#.b", 0), CODE(PRECONDITION_FAILED));
    assert_int_equal(subscribe(rig, 1, "a", 3), CODE(PRECONDITION_FAILED));
    assert_int_equal(subscribe_as(rig, 1, "a", "g/h", 0, 0, 5), CODE(PRECONDITION_FAILED));
    assert_int_equal(subscribe_as(rig, 1, "a", NULL, 0, 0, 1), CODE(PRECONDITION_FAILED));
    assert_true(rig_ask(rig, CMD_QUEUE_DECLARE, 2, 1, "mqtt-subscription-devqos1", NULL, NULL, (struct slice){0}, 0));
    assert_int_equal(subscribe(rig, 1, "a", 1), CODE(RESOURCE_LOCKED));
    assert_int_equal(attach_with(rig, 2, "", 0, 0, (struct slice){0}), 0);
    assert_true(slice_starts(rig_nth(rig, EFF_ANSWER, 0)->answer->name, "auto-"));
    end(rig);
}

static void rights(void **state)
{
    (void)state;
    struct rig *rig = begin();
    char text[200];
    struct vhost *vhost = vhost_find(rig->b, slice_str("/"));
    struct user *guest = user_find(rig->b, slice_str("guest"));
    assert_true(topic_permission_put(rig->b, guest, vhost, slice_str("amq.topic"), slice_str("^w"), slice_str("^r"),
                                     text, sizeof text));
    assert_true(log_object(rig->b, &permission_find(guest, vhost, &(struct slice){(uint8_t *)"amq.topic", 9})->object));
    (void)attach(rig, 1, "dev", 0);
    assert_int_equal(subscribe(rig, 1, "w", 0), CODE(ACCESS_REFUSED));
    assert_int_equal(subscribe(rig, 1, "r", 0), 0);
    rig_clear(rig);
    publish(rig, 1, "r", "x", 1);
    assert_int_equal(rig_nth(rig, EFF_NACK, 0)->flags, NACK_ACCESS);
    publish(rig, 1, "w", "x", 1); /* the channel lives on */
    assert_int_equal(rig_nth(rig, EFF_CONFIRM, 0)->number, 2);
    assert_string_equal(rig_error(rig), "");
    end(rig);
}

/* As MQTT has it; AMQP's queues see what begins with "$" as ever, but not what the broker says of itself. */
static void dollar(void **state)
{
    (void)state;
    struct rig *rig = begin();
    assert_true(rig_ask(rig, CMD_QUEUE_DECLARE, 2, 1, "q", NULL, NULL, (struct slice){0}, 0));
    assert_true(rig_ask(rig, CMD_QUEUE_BIND, 2, 1, "q", "amq.topic", "#", (struct slice){0}, 0));
    (void)attach(rig, 1, "dev", 0);
    assert_int_equal(subscribe_as(rig, 1, "#", NULL, 0, 0, 5), 0);
    assert_int_equal(subscribe_as(rig, 1, "*.x", NULL, 1, 0, 6), 0);
    assert_int_equal(subscribe_as(rig, 1, "$SYS.#", NULL, 0, 0, 7), 0);
    rig_clear(rig);
    publish(rig, 1, "$other.x", "o", 0);
    assert_int_equal(rig_ready(rig, "q"), 1);
    assert_string_equal(fanned(rig), "");
    assert_string_equal(rig_delivered(rig), "");
    publish(rig, 1, "$SYS.x", "s", 0);
    assert_int_equal(rig_ready(rig, "q"), 1);
    assert_string_equal(fanned(rig), "1:7:s");
    end(rig);
}

/* A queue or an exchange that somebody deletes takes the sessions with it that stand on it. */
static void what_a_session_stands_on_goes(void **state)
{
    (void)state;
    struct rig *rig = begin();
    assert_true(rig_ask(rig, CMD_EXCHANGE_DECLARE, 4, 1, "t", "topic", NULL, (struct slice){0}, ASK_DURABLE));
    (void)attach(rig, 1, "dev", 100);
    assert_int_equal(subscribe(rig, 1, "a", 1), 0);
    assert_int_equal(subscribe_as(rig, 1, "s", "g", 1, 0, 5), 0);
    assert_true(rig_ask(rig, CMD_QUEUE_DELETE, 4, 1, "mqtt-subscription-devqos1", NULL, NULL, (struct slice){0}, 0));
    assert_int_equal(rig_count(rig, EFF_SESSION_KICK), 1);
    assert_null(the_client(rig, "dev"));
    assert_int_equal(rig_ready(rig, "mqtt-shared-g/s"), UINT64_MAX);
    leave(rig, 1);
    (void)attach(rig, 1, "dev", 100);
    assert_int_equal(subscribe_as(rig, 1, "s", "g", 1, 0, 5), 0);
    assert_true(rig_ask(rig, CMD_QUEUE_DELETE, 4, 1, "mqtt-shared-g/s", NULL, NULL, (struct slice){0}, 0));
    assert_int_equal(rig_count(rig, EFF_SESSION_KICK), 1);
    assert_int_equal(the_client(rig, "dev")->sub_count, 0);
    leave(rig, 1);
    rig_clear(rig);
    assert_true(rig_ask_full(rig, CMD_MQTT_ATTACH, 2, 1, "at-t", NULL, "t", (struct slice){0}, 0, 100));
    rig_plain(rig, CMD_MQTT_RESUME, 2, 1, 10, 0);
    assert_int_equal(subscribe_as(rig, 2, "a", NULL, 1, 0, 5), 0);
    assert_int_equal(subscribe_as(rig, 2, "b", NULL, 0, 0, 6), 0);
    rig_clear(rig);
    assert_true(rig_ask(rig, CMD_EXCHANGE_DELETE, 4, 1, "t", NULL, NULL, (struct slice){0}, 0));
    assert_int_equal(rig_nth(rig, EFF_SESSION_KICK, 0)->session, 2);
    leave(rig, 2);
    assert_true(rig_ask(rig, CMD_EXCHANGE_DECLARE, 4, 1, "t", "topic", NULL, (struct slice){0}, ASK_DURABLE));
    assert_true(rig_ask_full(rig, CMD_MQTT_ATTACH, 2, 1, "at-t", NULL, "t", (struct slice){0}, 0, 100));
    rig_plain(rig, CMD_MQTT_RESUME, 2, 1, 10, 0);
    rig_clear(rig);
    assert_true(rig_publish(rig, 4, 1, "t", "a", "x", true));
    assert_true(rig_publish(rig, 4, 1, "t", "b", "y", true));
    assert_string_equal(rig_delivered(rig), "x");
    assert_string_equal(fanned(rig), "2:3:y");
    end(rig);
}

/* What is published in a transaction, comes out of a delay or dies somewhere is told to taps as well. */
static void taps_of_other_ways(void **state)
{
    (void)state;
    struct rig *rig = begin();
    (void)attach(rig, 1, "dev", 0);
    assert_int_equal(subscribe_as(rig, 1, "#", NULL, 0, 0, 5), 0);
    rig_plain(rig, CMD_CHANNEL_OPEN, 2, 2, 0, 0);
    rig_plain(rig, CMD_TX_SELECT, 2, 2, 0, 0);
    rig_clear(rig);
    assert_true(rig_publish(rig, 2, 2, "amq.topic", "a", "tx", true));
    assert_string_equal(fanned(rig), "");
    rig_plain(rig, CMD_TX_COMMIT, 2, 2, 0, 0);
    assert_string_equal(fanned(rig), "1:5:tx");
    uint8_t raw[200];
    struct writer w = writer_of(raw, sizeof raw);
    amqp_put_str(&w, "x-dead-letter-exchange", slice_str("amq.topic"));
    amqp_put_long(&w, "x-message-ttl", 10);
    assert_true(rig_ask(rig, CMD_QUEUE_DECLARE, 2, 1, "q", NULL, NULL, writer_slice(&w), 0));
    rig_clear(rig);
    assert_true(rig_publish(rig, 2, 1, "", "q", "dead", true));
    rig_pass(rig, 50);
    assert_string_equal(fanned(rig), "1:5:dead");
    end(rig);
}

/* A loop that is behind: nothing is lost there, and nobody publishes until it has caught up. */
static void a_loop_that_is_full(void **state)
{
    (void)state;
    struct broker_options options = {.port_slots = 64};
    struct rig *rig = begin_with(&options);
    (void)attach(rig, 1, "dev", 0);
    assert_int_equal(subscribe_as(rig, 1, "a", NULL, 0, 0, 5), 0);
    assert_int_equal(subscribe_as(rig, 1, "#", NULL, 0, 0, 6), 0);
    assert_int_equal(subscribe_as(rig, 1, "*", NULL, 0, 0, 7), 0);
    rig_clear(rig);
    struct port *port = broker_port(rig->b, 0);
    for (unsigned i = 0; i < 40; i++) {
        static const uint8_t props[2];
        struct msg *msg = msg_new(broker_heap(rig->b), slice_str("amq.topic"), slice_str("a"), slice_of(props, 2), 1);
        msg_body_room(msg)[0] = 'x';
        struct command *c = rig_command(rig, 0, CMD_PUBLISH, 2, 1);
        c->msg = msg;
        c->number = i + 1;
    }
    ring_publish(&port->commands);
    for (unsigned i = 0; i < 10; i++)
        (void)broker_step(rig->b, rig->now, rig->wall, rig->durable);
    assert_true(rig->b->mqtt.fanned_out);
    assert_false(ring_empty(&port->commands));
    assert_true(rig->b->sides[0].overflow_count - rig->b->sides[0].overflow_first <= 4); /* of one publish */
    assert_true(broker_next_due(rig->b) <= rig->now + NS_PER_MS);
    rig_step(rig);
    assert_int_equal(rig_count(rig, EFF_FANOUT), 120);
    assert_false(rig->b->mqtt.fanned_out);
    end(rig);
}

static struct slice of_row(const struct effect *e, const char *key)
{
    struct reader r = reader_of(e->answer->fields);
    while (r.left) {
        struct slice name = reader_str8(&r), value = reader_str32(&r);
        if (slice_is(name, key))
            return value;
    }
    return (struct slice){0};
}

static void listed(void **state)
{
    (void)state;
    struct rig *rig = begin();
    (void)attach_with(rig, 1, "away", 100, 0, will("w", "x", 50, 0));
    leave(rig, 1);
    (void)attach(rig, 2, "here", 0);
    assert_int_equal(subscribe(rig, 2, "a", 1), 0);
    publish(rig, 3, "a", "x", 1);
    rig_clear(rig);
    assert_true(rig_ask_full(rig, CMD_ADMIN, 4, 0, NULL, NULL, NULL, (struct slice){0}, ASK_INTERNAL_ADMIN,
                             ADMIN_MQTT_CLIENT_LIST));
    const struct effect *away = rig_nth(rig, EFF_ROW, 0), *here = rig_nth(rig, EFF_ROW, 1);
    assert_int_equal(rig_count(rig, EFF_ROW), 2);
    assert_true(slice_is(of_row(away, "client_id"), "away") && slice_is(of_row(here, "client_id"), "here"));
    assert_true(slice_is(of_row(away, "connected"), "false") && slice_is(of_row(here, "connected"), "true"));
    assert_true(slice_is(of_row(away, "will"), "true") && slice_is(of_row(here, "will"), "false"));
    assert_true(slice_is(of_row(away, "expiry_s"), "100") && slice_is(of_row(here, "messages"), "1"));
    end(rig);
}

/* What was sent and not acknowledged is sent again, also when nothing is subscribed to any more. */
static void what_is_left_of_a_subscription(void **state)
{
    (void)state;
    struct rig *rig = begin();
    (void)attach(rig, 1, "dev", 100);
    assert_int_equal(subscribe(rig, 1, "a", 1), 0);
    (void)attach(rig, 2, "pub", 0);
    publish(rig, 2, "a", "x", 1);
    assert_string_equal(rig_delivered(rig), "x");
    assert_int_equal(unsubscribe(rig, 1, "a", NULL), 1);
    leave(rig, 1);
    assert_true(attach(rig, 1, "dev", 100));
    assert_string_equal(rig_delivered(rig), "x*");
    acknowledge(rig, 1, 0);
    assert_int_equal(rig_ready(rig, "mqtt-subscription-devqos1"), 0);
    end(rig);
}

/* What a user that is deleted leaves does not go on, and does not keep its name from others. */
static void whose_user_is_deleted(void **state)
{
    (void)state;
    struct rig *rig = begin();
    (void)attach(rig, 1, "dev", MQTT_NEVER);
    assert_int_equal(subscribe(rig, 1, "a", 1), 0);
    leave(rig, 1);
    the_client(rig, "dev")->user = slice_str("nobody");
    assert_false(attach(rig, 1, "dev", MQTT_NEVER));
    assert_true(slice_is(the_client(rig, "dev")->user, "guest"));
    assert_int_equal(rig_ready(rig, "mqtt-subscription-devqos1"), UINT64_MAX);
    end(rig);
}

/* Each is a consumer of the session's one channel. */
static void shares_have_a_limit(void **state)
{
    (void)state;
    struct broker_options options = {.channel_consumers_max = 3};
    struct rig *rig = begin_with(&options);
    (void)attach(rig, 1, "dev", 100);
    assert_int_equal(subscribe_as(rig, 1, "s", "a", 1, 0, 5), 0);
    assert_int_equal(subscribe_as(rig, 1, "s", "b", 0, 0, 6), 0);
    assert_int_equal(subscribe_as(rig, 1, "s", "c", 1, 0, 7), 0);
    assert_int_equal(subscribe_as(rig, 1, "s", "d", 1, 0, 8), CODE(RESOURCE_ERROR));
    assert_int_equal(subscribe_as(rig, 1, "s", "b", 1, 0, 9), 0); /* one that is there may change */
    assert_int_equal(subscribe(rig, 1, "own", 1), 0);
    assert_int_equal(unsubscribe(rig, 1, "s", "a"), 1);
    assert_int_equal(unsubscribe(rig, 1, "s", "b"), 1);
    assert_int_equal(subscribe_as(rig, 1, "s", "d", 1, 0, 8), 0);
    end(rig);
}

/* A client that did not hear of PUBREC says it again while nothing is taken. Were that refused, its packet id would be free for it and
 * taken here, and the next message with it would be lost. */
static void again_while_refused(void **state)
{
    (void)state;
    struct rig *rig = begin();
    (void)attach(rig, 1, "dev", 100);
    assert_int_equal(subscribe(rig, 1, "a", 1), 0);
    rig_clear(rig);
    assert_true(publish_with(rig, 1, "a", "x", 2, ASK_ONCE, 7, 0));
    assert_int_equal(rig_count(rig, EFF_CONFIRM), 1);
    rig_alarm(rig, ALARM_MEMORY_HARD);
    rig_clear(rig);
    assert_true(publish_with(rig, 1, "a", "x", 2, ASK_ONCE, 7, 0));
    assert_int_equal(rig_count(rig, EFF_CONFIRM), 1);
    assert_true(publish_with(rig, 1, "a", "y", 2, ASK_ONCE, 8, 0));
    assert_int_equal(rig_nth(rig, EFF_NACK, 0)->number, 3);
    rig_alarm(rig, 0);
    assert_int_equal(rig_count(rig, EFF_DELIVER), 0);
    end(rig);
}

/* For whoever looks at a journal. */
static void records_for_people(void **state)
{
    (void)state;
    struct rig *rig = begin();
    char text[600], all[4000] = "";
    size_t first = rig->log->count, len = 0;
    (void)attach_with(rig, 1, "dev", 100, 0, will("w", "x", 0, MQTT_WILL_RETAIN));
    rig_plain(rig, CMD_MQTT_RESUME, 1, 1, 10, 0);
    assert_int_equal(subscribe_as(rig, 1, "a", "g", 1, 0, 5), 0);
    rig_clear(rig);
    assert_true(publish_with(rig, 1, "a", "x", 2, ASK_ONCE | ASK_RETAIN, 7, 0));
    release(rig, 1, rig_nth(rig, EFF_DELIVER, 0)->number, 9);
    leave(rig, 1);
    for (size_t i = first; i < rig->log->count; i++) {
        record_print(slice_of(rig->log->records[i].bytes, rig->log->records[i].len), text, sizeof text);
        len += (size_t)snprintf(all + len, sizeof all - len, "%s\n", text);
    }
    static const char *const lines[] = {"MQTT_CLIENT 1 'dev' in '/' is connected, expiry 100 s\n",
                                        "MQTT_SUB of client 1: 'a' shared by g\n",
                                        "RETAINED 'a' of 'amq.topic' in '/', ",
                                        "MQTT_ONCE of client 1, packet id 7: ENQUEUE id 0 → queue 1 position 1, ",
                                        "MQTT_ID of client 1: packet id 9 releasing\n",
                                        "TX "};
    for (size_t i = 0; i < ARRAY_LEN(lines); i++)
        if (!strstr(all, lines[i]))
            rig_fail("%s is not in: %s", lines[i], all);
    end(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(taps),
        cmocka_unit_test(an_audience_changes_while_it_is_told),
        cmocka_unit_test(the_queue_of_a_session),
        cmocka_unit_test(a_session_that_ends_with_its_connection),
        cmocka_unit_test(the_kind_of_a_subscription_changes),
        cmocka_unit_test(no_local),
        cmocka_unit_test(shares),
        cmocka_unit_test(taken_over),
        cmocka_unit_test(what_is_refused),
        cmocka_unit_test(rights),
        cmocka_unit_test(dollar),
        cmocka_unit_test(what_a_session_stands_on_goes),
        cmocka_unit_test(taps_of_other_ways),
        cmocka_unit_test(a_loop_that_is_full),
        cmocka_unit_test(listed),
        cmocka_unit_test(what_is_left_of_a_subscription),
        cmocka_unit_test(whose_user_is_deleted),
        cmocka_unit_test(shares_have_a_limit),
        cmocka_unit_test(again_while_refused),
        cmocka_unit_test(records_for_people),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
