/* What members of a share group get with QoS 2: it is theirs until they have it, whatever happens to them and to the broker. */
#include "core/mqtt_words_test.h"

#define SHARE "mqtt-shared-g/a"
#define OWN(client) "mqtt-subscription-" client "qos1"

static void join(struct rig *rig, uint32_t session, const char *id, uint32_t expiry, unsigned qos)
{
    (void)attach(rig, session, id, expiry);
    assert_int_equal(subscribe_as(rig, session, "a", "g", qos, 0, 5), 0);
    rig_clear(rig);
}

/* By the header that the engine looks for. */
static bool is_of_the_share(const struct effect *e)
{
    struct amqp_value v;
    return e->consumer == MQTT_OWN_QUEUE && e->msg->flags & MSG_OF_SHARE &&
           amqp_table_find(msg_headers(e->msg), MQTT_HEADER_SHARE, &v) && slice_is(v.s, "g/a");
}

/* Session 1 has "mine" without a PUBREC. */
static struct rig *begin_sent(uint32_t expiry)
{
    struct rig *rig = begin();
    join(rig, 1, "one", expiry, 2);
    publish(rig, 3, "a", "mine", 2);
    assert_string_equal(rig_delivered(rig), "mine");
    assert_true(is_of_the_share(rig_nth(rig, EFF_DELIVER, 0)));
    assert_int_equal(rig_nth(rig, EFF_DELIVER, 0)->session, 1);
    return rig;
}

/* It is completed when he comes back, and nobody else has it meanwhile (4.8.2-4). */
static void it_waits_for_who_was_sent_it(void **state)
{
    (void)state;
    struct rig *rig = begin_sent(100);
    uint64_t place = rig_nth(rig, EFF_DELIVER, 0)->count;
    leave(rig, 1);
    join(rig, 2, "two", 100, 2);
    publish(rig, 3, "a", "yours", 2);
    assert_string_equal(rig_delivered(rig), "yours");
    assert_true(attach(rig, 1, "one", 100));
    assert_string_equal(rig_delivered(rig), "mine*");
    assert_int_equal(rig_nth(rig, EFF_DELIVER, 0)->count, place); /* its packet id */
    assert_true(is_of_the_share(rig_nth(rig, EFF_DELIVER, 0)));
    end(rig);
}

/* Also when it is the broker that dies. */
static void a_crash_changes_nothing(void **state)
{
    (void)state;
    struct rig *rig = begin_sent(100);
    uint64_t place = rig_nth(rig, EFF_DELIVER, 0)->count;
    join(rig, 2, "two", 100, 2);
    restart(&rig, 0);
    assert_int_equal(rig_ready(rig, SHARE), 0);
    assert_true(attach(rig, 2, "two", 100));
    assert_string_equal(rig_delivered(rig), "");
    assert_true(attach(rig, 1, "one", 100));
    assert_string_equal(rig_delivered(rig), "mine*");
    assert_int_equal(rig_nth(rig, EFF_DELIVER, 0)->count, place);
    end(rig);
}

/* Whatever record the journal ends with, it is in the queue of the group or in his. */
static void it_moves_in_one_record(void **state)
{
    (void)state;
    struct rig *rig = begin();
    uint64_t there = 0;
    join(rig, 1, "one", 100, 2);
    size_t begun = rig->log->count;
    publish(rig, 3, "a", "mine", 2);
    assert_true(rig->log->count >= begun + 2);
    for (size_t cut = begun; cut <= rig->log->count; cut++) {
        struct rig_log *log = rig_log_copy(rig->log, cut);
        struct rig *other = rig_new(log, &rig->options, rig->wall);
        uint64_t now = rig_ready(other, SHARE) + rig_ready(other, OWN("one"));
        assert_in_range(now, there, 1);
        there = now;
        rig_free(other);
        rig_log_free(log);
    }
    assert_int_equal(there, 1);
    end(rig);
}

/* A session that ends takes along what it was sent (4.8.2-5), and not what waits for anybody. */
static void nobody_inherits(void **state)
{
    (void)state;
    for (uint32_t expiry = 0; expiry <= 100; expiry += 100) {
        struct rig *rig = begin_sent(expiry);
        join(rig, 2, "two", 100, 2);
        if (expiry)
            assert_int_equal(attach_with(rig, 4, "one", 0, ASK_CLEAN, (struct slice){0}), 0);
        else
            leave(rig, 1);
        assert_int_equal(rig_ready(rig, OWN("one")), UINT64_MAX);
        publish(rig, 3, "a", "x", 2);
        assert_string_equal(rig_delivered(rig), "x");
        assert_int_equal(rig_nth(rig, EFF_DELIVER, 0)->session, 2);
        end(rig);
    }
}

/* What a client without a session was sent is nobody's after a crash either: it is delivered behind the record. */
static void a_crash_ends_a_session(void **state)
{
    (void)state;
    struct rig *rig = begin();
    (void)attach(rig, 2, "two", 100); /* the group lasts by him */
    assert_int_equal(subscribe_as(rig, 2, "a", "g", 2, 0, 5), 0);
    /* the group's queue has a mark from here on: the next one waits for its move only */
    publish(rig, 3, "a", "first", 2);
    assert_string_equal(rig_delivered(rig), "first");
    leave(rig, 2);
    publish(rig, 3, "a", "mine", 2);
    rig->hold = true;
    join(rig, 1, "one", 0, 2);
    assert_string_equal(rig_delivered(rig), "");
    rig->hold = false;
    rig_step(rig);
    assert_string_equal(rig_delivered(rig), "mine");
    restart(&rig, 0);
    assert_true(attach(rig, 2, "two", 100));
    assert_string_equal(rig_delivered(rig), "first*");
    end(rig);
}

/* QoS 1 goes to whoever is there, by a subscription of QoS 2 too. */
static void less_stays_with_the_group(void **state)
{
    (void)state;
    struct rig *rig = begin();
    join(rig, 1, "one", 100, 2);
    publish(rig, 3, "a", "least", 1);
    assert_string_equal(rig_delivered(rig), "least");
    assert_int_equal(rig_nth(rig, EFF_DELIVER, 0)->consumer, 5);
    join(rig, 2, "two", 100, 1);
    leave(rig, 1);
    publish(rig, 3, "a", "once", 2); /* and so does what he gets with QoS 1 */
    assert_string_equal(rig_delivered(rig), "least* once");
    assert_int_equal(rig_nth(rig, EFF_DELIVER, 0)->consumer, 5);
    end(rig);
}

/* The receive maximum counts both, and no more leaves the group than may be sent. */
static void no_more_than_it_takes(void **state)
{
    (void)state;
    struct rig *rig = begin();
    assert_int_equal(attach_with(rig, 1, "one", 100, 0, (struct slice){0}), 0);
    rig_plain(rig, CMD_MQTT_RESUME, 1, 1, 2, 0);
    assert_int_equal(subscribe_as(rig, 1, "a", "g", 2, 0, 5), 0);
    rig_clear(rig);
    for (char body[2] = "a"; body[0] < 'e'; body[0]++)
        publish(rig, 3, "a", body, 2);
    assert_string_equal(rig_delivered(rig), "a b");
    assert_int_equal(rig_ready(rig, SHARE), 2);
    uint64_t tag = rig_nth(rig, EFF_DELIVER, 0)->number;
    rig_clear(rig);
    release(rig, 1, tag, 1);
    assert_string_equal(rig_delivered(rig), ""); /* released, and not completed */
    rig_plain(rig, CMD_MQTT_COMPLETED, 1, 1, 1, 0);
    assert_string_equal(rig_delivered(rig), "c");
    assert_int_equal(rig_ready(rig, SHARE), 1);
    publish(rig, 3, "a", "e", 2);
    release(rig, 1, tag + 1, 2);
    release(rig, 1, tag + 2, 3);
    rig_clear(rig);
    rig_plain(rig, CMD_MQTT_COMPLETED, 1, 1, 2, 0);
    assert_string_equal(rig_delivered(rig), "d");
    assert_int_equal(rig_ready(rig, SHARE), 1); /* the other one counts until it is completed, too */
    end(rig);
}

/* What keeps a member from taking more may go without being delivered. */
static void a_purge_makes_room(void **state)
{
    (void)state;
    struct rig *rig = begin();
    (void)attach(rig, 1, "one", 100);
    assert_int_equal(subscribe(rig, 1, "b", 1), 0);
    leave(rig, 1);
    for (unsigned i = 0; i < 80; i++)
        publish(rig, 3, "b", "own", 1);
    assert_int_equal(attach_with(rig, 1, "one", 100, 0, (struct slice){0}), 0);
    assert_int_equal(subscribe_as(rig, 1, "a", "g", 2, 0, 5), 0);
    rig_plain(rig, CMD_MQTT_RESUME, 1, 1, 1, 0);
    publish(rig, 3, "a", "shared", 2);
    rig_clear(rig);
    assert_int_equal(rig_ready(rig, SHARE), 1); /* its own come first */
    assert_true(rig_ask(rig, CMD_QUEUE_PURGE, 4, 1, OWN("one"), NULL, NULL, (struct slice){0}, 0));
    rig_plain(rig, CMD_ACK, 1, 1, 1, 0);
    assert_string_equal(rig_delivered(rig), "shared");
    end(rig);
}

/* It has been waiting for a while: what is left of its time is left, and then it is gone. */
static void time_goes_on(void **state)
{
    (void)state;
    struct rig *rig = begin();
    join(rig, 1, "one", 100, 2);
    leave(rig, 1);
    assert_true(publish_with(rig, 3, "a", "old", 2, 0, 0, 60000));
    rig_pass(rig, 50000);
    assert_true(attach(rig, 1, "one", 100));
    assert_string_equal(rig_delivered(rig), "old");
    assert_int_equal(rig_nth(rig, EFF_DELIVER, 0)->origin, 10);
    end(rig);
}

/* Whoever came first, and with whatever session: the queue lasts as long as a member's session may. */
static void the_queue_outlives_its_first_member(void **state)
{
    (void)state;
    struct rig *rig = begin();
    join(rig, 1, "one", 0, 1);
    publish(rig, 3, "a", "before", 1);
    join(rig, 2, "two", 100, 1);
    leave(rig, 1);
    leave(rig, 2);
    publish(rig, 3, "a", "after", 1);
    restart(&rig, 0);
    publish(rig, 3, "a", "again", 1);
    assert_true(attach(rig, 2, "two", 100));
    assert_string_equal(rig_delivered(rig), "after again");
    end(rig);
}

/* A dead letter of a session's queue has nothing of the share any more, wherever it goes; nor has what a publisher says. */
static void what_leaves_is_like_any_other(void **state)
{
    (void)state;
    uint8_t definition[200];
    char why[200];
    struct writer d = writer_of(definition, sizeof definition);
    amqp_put_str(&d, "dead-letter-exchange", slice_str("amq.topic"));
    amqp_put_str(&d, "dead-letter-routing-key", slice_str("dead"));
    amqp_put_long(&d, "message-ttl", 1000);
    struct rig *rig = begin();
    struct vhost *vhost = vhost_find(rig->b, slice_str("/"));
    assert_true(policy_put(rig->b, vhost, slice_str("p"), slice_str("^mqtt-subscription-one"), APPLY_QUEUES, 1,
                           writer_slice(&d), false, why, sizeof why));
    (void)log_object(rig->b, &policy_find(vhost, slice_str("p"), false)->object);
    join(rig, 1, "one", 100, 2);
    (void)attach(rig, 2, "two", 100);
    assert_int_equal(subscribe(rig, 2, "dead", 1), 0);
    rig_clear(rig);
    publish(rig, 3, "a", "mine", 2);
    assert_true(is_of_the_share(rig_nth(rig, EFF_DELIVER, 0)));
    leave(rig, 1);
    rig_pass(rig, 2000);
    assert_string_equal(rig_delivered(rig), "mine");
    const struct effect *e = rig_nth(rig, EFF_DELIVER, 0);
    assert_int_equal(e->session, 2);
    assert_false(e->msg->flags & MSG_OF_SHARE);
    assert_false(amqp_table_find(msg_headers(e->msg), MQTT_HEADER_SHARE, &(struct amqp_value){0}));
    end(rig);
}

/* Only what moves is past a queue's limit: what goes from a session's queue to another one for other reasons is not. */
static void dead_letters_do_not_move(void **state)
{
    (void)state;
    uint8_t raw[200], definition[200];
    char why[200];
    struct writer w = writer_of(raw, sizeof raw), d = writer_of(definition, sizeof definition);
    amqp_put_long(&w, "x-max-length", 1);
    amqp_put_str(&w, "x-overflow", slice_str("reject-publish"));
    amqp_put_str(&d, "dead-letter-exchange", slice_str(""));
    amqp_put_str(&d, "dead-letter-routing-key", slice_str("dead"));
    amqp_put_long(&d, "max-length", 1);
    struct rig *rig = begin();
    struct vhost *vhost = vhost_find(rig->b, slice_str("/"));
    assert_true(policy_put(rig->b, vhost, slice_str("p"), slice_str("^mqtt-subscription"), APPLY_QUEUES, 1,
                           writer_slice(&d), false, why, sizeof why));
    (void)log_object(rig->b, &policy_find(vhost, slice_str("p"), false)->object);
    assert_true(rig_ask(rig, CMD_QUEUE_DECLARE, 4, 1, "dead", NULL, NULL, writer_slice(&w), ASK_DURABLE));
    (void)attach(rig, 1, "one", 100);
    assert_int_equal(subscribe(rig, 1, "b", 1), 0);
    leave(rig, 1);
    for (unsigned i = 0; i < 4; i++)
        publish(rig, 3, "b", "own", 1);
    assert_int_equal(rig_ready(rig, OWN("one")), 1);
    assert_int_equal(rig_ready(rig, "dead"), 1);
    end(rig);
}

static void limit_sessions(struct rig *rig, const char *limit, int value, const char *overflow)
{
    uint8_t definition[200];
    char why[200];
    struct writer d = writer_of(definition, sizeof definition);
    amqp_put_long(&d, limit, value);
    amqp_put_str(&d, "overflow", slice_str(overflow));
    struct vhost *vhost = vhost_find(rig->b, slice_str("/"));
    assert_true(policy_put(rig->b, vhost, slice_str("p"), slice_str("^mqtt-subscription"), APPLY_QUEUES, 1,
                           writer_slice(&d), false, why, sizeof why));
    (void)log_object(rig->b, &policy_find(vhost, slice_str("p"), false)->object);
}

/* Session 1 has two messages of the share in its queue, which are not durable there yet. */
static void begin_moving(struct rig *rig)
{
    join(rig, 1, "one", 100, 2);
    assert_int_equal(subscribe(rig, 1, "own", 1), 0);
    rig_clear(rig);
    publish(rig, 3, "a", "before", 2); /* so that the mark of the share's queue is far ahead */
    acknowledge(rig, 1, 0);
    leave(rig, 1);
    publish(rig, 3, "a", "moved", 2);
    publish(rig, 3, "a", "moves", 2);
    rig->hold = true;
    assert_true(attach(rig, 1, "one", 100));
    assert_string_equal(rig_delivered(rig), "");
    assert_int_equal(rig_ready(rig, OWN("one")), 2);
}

/* What has moved and was not sent is the group's again when the connection ends, whatever becomes of the session, and it has nothing of the
 * member any more. */
static void what_was_not_sent_goes_to_others(void **state)
{
    (void)state;
    for (unsigned how = 0; how < 4; how++) {
        struct rig *rig = begin();
        begin_moving(rig);
        join(rig, 2, "two", 100, 1);
        switch (how) {
        case 0: leave(rig, 1); break;
        case 1: disconnect(rig, 1, 0, 0); break;
        case 2: assert_int_equal(attach_with(rig, 4, "one", 0, ASK_CLEAN, (struct slice){0}), 0); break;
        default: assert_int_equal(attach_with(rig, 4, "one", 100, 0, (struct slice){0}), 0);
        }
        assert_string_equal(rig_delivered(rig), "");
        rig->hold = false;
        rig_step(rig);
        assert_string_equal(rig_delivered(rig), "moved moves");
        for (unsigned i = 0; i < 2; i++) {
            const struct effect *e = rig_nth(rig, EFF_DELIVER, i);
            assert_int_equal(e->session, 2);
            assert_false(e->msg->flags & MSG_OF_SHARE);
            assert_false(amqp_table_find(msg_headers(e->msg), MQTT_HEADER_SHARE, &(struct amqp_value){0}));
        }
        end(rig);
    }
}

/* Wherever a crash cuts, each message is in one queue. */
static void a_crash_cuts_the_way_back(void **state)
{
    (void)state;
    struct rig *rig = begin();
    begin_moving(rig);
    size_t first = rig->log->count;
    join(rig, 2, "two", 100, 1);
    leave(rig, 1);
    rig->hold = false;
    rig_step(rig);
    for (size_t n = first; n <= rig->log->count; n++) {
        struct rig_log *log = rig_log_copy(rig->log, n);
        struct rig *other = rig_new(log, &rig->options, rig->wall);
        assert_int_equal(rig_ready(other, SHARE) + rig_ready(other, OWN("one")), 2);
        rig_free(other);
        rig_log_free(log);
    }
    end(rig);
}

/* A queue that knows a message is no reason to lose it on its way back to it. */
static void what_comes_back_is_no_duplicate(void **state)
{
    (void)state;
    uint8_t definition[200];
    char why[200];
    struct writer d = writer_of(definition, sizeof definition);
    amqp_put_bool(&d, "message-deduplication", true);
    amqp_put_str(&d, "deduplication-header", slice_str(MQTT_HEADER_QOS)); /* one key for all */
    amqp_put_long(&d, "cache-ttl", 1000);
    struct rig *rig = begin();
    struct vhost *vhost = vhost_find(rig->b, slice_str("/"));
    assert_true(policy_put(rig->b, vhost, slice_str("p"), slice_str("^mqtt-"), APPLY_QUEUES, 1, writer_slice(&d), false,
                           why, sizeof why));
    (void)log_object(rig->b, &policy_find(vhost, slice_str("p"), false)->object);
    join(rig, 1, "one", 100, 2);
    publish(rig, 3, "a", "before", 2); /* so that the mark of the share's queue is far ahead */
    acknowledge(rig, 1, 0);
    leave(rig, 1);
    rig_pass(rig, 2000);
    publish(rig, 3, "a", "mine", 2);
    publish(rig, 3, "a", "again", 2);
    assert_int_equal(rig_ready(rig, SHARE), 1);
    rig->hold = true;
    assert_true(attach(rig, 1, "one", 100));
    assert_int_equal(rig_ready(rig, OWN("one")), 1);
    join(rig, 2, "two", 100, 1);
    leave(rig, 1);
    rig->hold = false;
    rig_step(rig);
    assert_string_equal(rig_delivered(rig), "mine");
    assert_int_equal(rig_nth(rig, EFF_DELIVER, 0)->session, 2);
    end(rig);
}

/* What has moved waits for the journal, and its member takes nothing more before that is done: no limit of his queue takes it, nor does
 * it take the room of what is his own. */
static void a_limit_does_not_see_what_has_moved(void **state)
{
    (void)state;
    static const struct {
        const char *limit;
        int value;
        const char *overflow, *delivered;
    } limits[] = {{"max-length-bytes", 3, "drop-head", "moved moves new"},
                  {"max-length", 1, "drop-head", "moved moves new"},
                  {"max-length", 0, "drop-head", "moved moves"},
                  {"max-length-bytes", 3, "reject-publish", "moved moves old"},
                  {"max-length", 1, "reject-publish", "moved moves old"}};
    for (size_t i = 0; i < ARRAY_LEN(limits); i++) {
        struct rig *rig = begin();
        limit_sessions(rig, limits[i].limit, limits[i].value, limits[i].overflow);
        begin_moving(rig);
        struct channel *ch = the_client(rig, "one")->channel;
        int64_t credit = ch->peer->credit;
        ch->peer->credit = 0; /* its socket takes nothing */
        publish(rig, 3, "own", "old", 1);
        publish(rig, 3, "own", "new", 1);
        rig_clear(rig);
        ch->peer->credit = credit;
        consumers_unpark(rig->b, ch);
        rig->hold = false;
        rig_step(rig);
        assert_string_equal(rig_delivered(rig), limits[i].delivered);
        end(rig);
    }
}

/* A delivery to a member takes the room that it makes: those of his subscriptions that could take nothing are left alone. */
static void a_delivery_wakes_nobody_in_vain(void **state)
{
    (void)state;
    struct rig *rig = begin();
    assert_int_equal(attach_with(rig, 1, "one", 100, 0, (struct slice){0}), 0);
    rig_plain(rig, CMD_MQTT_RESUME, 1, 1, 1, 0);
    assert_int_equal(subscribe_as(rig, 1, "a", "g", 2, 0, 5), 0);
    assert_int_equal(subscribe(rig, 1, "own", 1), 0);
    rig_clear(rig);
    publish(rig, 3, "a", "first", 2);
    publish(rig, 3, "a", "second", 2);
    publish(rig, 3, "own", "own", 1);
    assert_string_equal(rig_delivered(rig), "first");
    struct broker *b = rig->b;
    struct channel *ch = the_client(rig, "one")->channel;
    const struct queue *share = queue_find(ch->peer->vhost, slice_str(SHARE));
    assert_true(list_empty(&share->busy->ready)); /* parked with "second" */
    ch->global_prefetch = 2;
    struct queue *q = queue_find(ch->peer->vhost, slice_str(OWN("one")));
    consumer_enlist(b, LIST_FIRST(&q->busy->consumers, struct consumer, queue_link));
    pump_all(b, 100);
    assert_int_equal(q->busy->ready_count, 0);
    assert_true(list_empty(&share->busy->ready) && list_empty(&b->pump));
    ch->global_prefetch = 3; /* and now there is room */
    queue_schedule(b, q);
    rig_step(rig);
    assert_string_equal(rig_delivered(rig), "first own second");
    end(rig);
}

/* Somebody else has a queue of the name that the client's own would have. */
static void what_is_refused_goes_on_as_it_was(void **state)
{
    (void)state;
    struct rig *rig = begin();
    join(rig, 1, "one", 100, 1);
    assert_true(rig_ask(rig, CMD_QUEUE_DECLARE, 4, 1, OWN("one"), NULL, NULL, (struct slice){0}, ASK_DURABLE));
    assert_int_equal(subscribe_as(rig, 1, "a", "g", 2, 0, 6), ERR_RESOURCE_LOCKED);
    rig_clear(rig);
    publish(rig, 3, "a", "still", 1);
    assert_string_equal(rig_delivered(rig), "still");
    assert_int_equal(rig_nth(rig, EFF_DELIVER, 0)->consumer, 5);
    end(rig);
}

/* What he had before lies in a page that is not read yet: what has moved behind it goes back all the same. */
static void behind_a_page(void **state)
{
    (void)state;
    struct rig *rig = begin_with(&(struct broker_options){.paging_bytes = 1, .page_bytes = 150});
    join(rig, 1, "one", 100, 2);
    assert_int_equal(subscribe(rig, 1, "own", 1), 0);
    leave(rig, 1);
    for (unsigned i = 0; i < 4; i++)
        publish(rig, 3, "own", "before", 1);
    assert_true(rig->b->paged > 0);
    rig->slow_store = true;
    rig->chance = 0; /* it does nothing */
    assert_true(attach(rig, 1, "one", 100));
    publish(rig, 3, "a", "mine", 2);
    assert_int_equal(rig_ready(rig, SHARE), 0);
    assert_true(rig_ready(rig, OWN("one")) > 1);
    rig_clear(rig);
    rig->slow_store = false; /* its answer is behind what he says now */
    leave(rig, 1);
    assert_int_equal(rig_ready(rig, SHARE), 1);
    join(rig, 2, "two", 100, 2);
    end(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_waits_for_who_was_sent_it),
        cmocka_unit_test(a_crash_changes_nothing),
        cmocka_unit_test(it_moves_in_one_record),
        cmocka_unit_test(nobody_inherits),
        cmocka_unit_test(a_crash_ends_a_session),
        cmocka_unit_test(less_stays_with_the_group),
        cmocka_unit_test(no_more_than_it_takes),
        cmocka_unit_test(a_purge_makes_room),
        cmocka_unit_test(time_goes_on),
        cmocka_unit_test(the_queue_outlives_its_first_member),
        cmocka_unit_test(what_leaves_is_like_any_other),
        cmocka_unit_test(dead_letters_do_not_move),
        cmocka_unit_test(what_was_not_sent_goes_to_others),
        cmocka_unit_test(a_crash_cuts_the_way_back),
        cmocka_unit_test(what_comes_back_is_no_duplicate),
        cmocka_unit_test(a_limit_does_not_see_what_has_moved),
        cmocka_unit_test(a_delivery_wakes_nobody_in_vain),
        cmocka_unit_test(what_is_refused_goes_on_as_it_was),
        cmocka_unit_test(behind_a_page),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
