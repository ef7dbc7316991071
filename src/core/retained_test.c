/* Retained values: what stays, who sees what, walks while everything changes, limits, time, the journal. */
#include "core/mqtt_words_test.h"

#include "core/topic.h"

/* Asks for what is retained; answers what came, sorted: "key=body …". */
static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static const char *came(struct rig *rig)
{
    static char all[65536];
    char *lines[4096];
    size_t count = 0, at = 0;
    all[0] = '\0';
    for (unsigned i = 0; i < rig->effect_count; i++) {
        const struct effect *e = &rig->effects[i];
        if (e->type != EFF_RETAINED)
            continue;
        if (asprintf(&lines[count++], "%.*s=%s", SLICE_ARG(msg_key(e->msg)), rig_body(e)) < 0)
            abort();
    }
    qsort(lines, count, sizeof *lines, by_text);
    for (size_t i = 0; i < count; i++) {
        at += (size_t)snprintf(all + at, sizeof all - at, "%s%s", at ? " " : "", lines[i]);
        free(lines[i]);
    }
    return all;
}

static void ask_for(struct rig *rig, uint32_t session, const char *pattern, unsigned qos)
{
    struct ask *ask = ask_new(slice_str(pattern), (struct slice){0}, (struct slice){0}, (struct slice){0});
    assert_non_null(ask);
    struct command *c = rig_command(rig, 0, CMD_MQTT_RETAINED, session, 1);
    c->ask = ask;
    c->origin = 99;
    c->number = (uint64_t)qos << 32 | 5;
    rig_step(rig);
}

static const char *retained(struct rig *rig, const char *pattern)
{
    rig_clear(rig);
    ask_for(rig, 1, pattern, 0);
    uint64_t count;
    assert_int_equal(answered(rig, &count), 0);
    assert_int_equal(count, rig_count(rig, EFF_RETAINED));
    return came(rig);
}

static void set_and_gone(void **state)
{
    (void)state;
    struct rig *rig = begin();
    (void)attach(rig, 1, "dev", 0);
    assert_string_equal(retained(rig, "#"), "");
    retain(rig, 1, "home.hall.light", "on");
    retain(rig, 1, "home.hall", "hall");
    retain(rig, 1, "home", "home");
    retain(rig, 1, "home.hall.light", "off");
    publish(rig, 1, "home.hall.door", "not retained", 1);
    assert_string_equal(retained(rig, "#"), "home.hall.light=off home.hall=hall home=home");
    assert_string_equal(retained(rig, "home.hall.#"), "home.hall.light=off home.hall=hall");
    assert_string_equal(retained(rig, "home.*"), "home.hall=hall");
    assert_string_equal(retained(rig, "*.*.light"), "home.hall.light=off");
    assert_string_equal(retained(rig, "home.hall.light"), "home.hall.light=off");
    assert_string_equal(retained(rig, "home.hall.light.#"), "home.hall.light=off");
    assert_string_equal(retained(rig, "home.*.light.*"), "");
    struct effect *e = (retained(rig, "home"), rig_nth(rig, EFF_RETAINED, 0));
    assert_int_equal(e->consumer, 5);
    assert_int_equal(e->origin, 0);
    assert_int_equal(e->msg->flags, MSG_PERSISTENT); /* the header that said RETAIN is not kept */
    restart(&rig, 0);
    (void)attach(rig, 1, "dev", 0);
    retain(rig, 1, "home.hall", "");
    assert_string_equal(retained(rig, "#"), "home.hall.light=off home=home");
    compact_all(rig);
    restart(&rig, 0);
    (void)attach(rig, 1, "dev", 0);
    assert_string_equal(retained(rig, "#"), "home.hall.light=off home=home");
    retain(rig, 1, "home.hall.light", "");
    retain(rig, 1, "home", "");
    retain(rig, 1, "home", "");
    assert_int_equal(rig->b->mqtt.retained.nodes, 0);
    assert_int_equal(rig->b->mqtt.retained.bytes, 0);
    end(rig);
}

static void dollar_and_empty_words(void **state)
{
    (void)state;
    struct rig *rig = begin();
    (void)attach(rig, 1, "dev", 0);
    retain(rig, 1, "$SYS.uptime", "1");
    retain(rig, 1, "$mine.x", "2");
    retain(rig, 1, "a.$SYS", "3");
    retain(rig, 1, ".a", "4");
    retain(rig, 1, "a.", "5");
    retain(rig, 1, ".", "6");
    assert_string_equal(retained(rig, "#"), ".=6 .a=4 a.$SYS=3 a.=5");
    assert_string_equal(retained(rig, "*.x"), "");
    assert_string_equal(retained(rig, "$SYS.#"), "$SYS.uptime=1");
    assert_string_equal(retained(rig, "$mine.*"), "$mine.x=2");
    assert_string_equal(retained(rig, "*.*"), ".=6 .a=4 a.$SYS=3 a.=5");
    assert_string_equal(retained(rig, ".*"), ".=6 .a=4");
    assert_string_equal(retained(rig, "*."), ".=6 a.=5");
    restart(&rig, 0); /* what the broker says of itself it says anew */
    (void)attach(rig, 1, "dev", 0);
    assert_string_equal(retained(rig, "$SYS.#"), "");
    assert_string_equal(retained(rig, "$mine.#"), "$mine.x=2");
    end(rig);
}

static void time_and_limits(void **state)
{
    (void)state;
    struct broker_options options = {.retained_max = 3, .retained_bytes_max = 1000};
    struct rig *rig = begin_with(&options);
    (void)attach(rig, 1, "dev", 0);
    assert_true(publish_with(rig, 1, "short", "s", 1, ASK_RETAIN, 0, 1500));
    assert_true(publish_with(rig, 1, "long", "l", 1, ASK_RETAIN, 0, 3600000));
    retain(rig, 1, "ever", "e");
    rig_clear(rig);
    retain(rig, 1, "fourth", "4");
    assert_int_equal(rig_nth(rig, EFF_NACK, 0)->flags, NACK_QUOTA);
    assert_int_equal(subscribe_as(rig, 1, "fourth", NULL, 0, 0, 9), 0);
    assert_true(publish_with(rig, 1, "fourth", "4", 0, ASK_RETAIN, 0, 0)); /* QoS 0 goes its way all the same */
    assert_string_equal(fanned(rig), "1:9:4");
    rig_clear(rig);
    retain(rig, 1, "fourth", "4");
    retain(rig, 1, "ever", "E"); /* in its place it is none more */
    assert_int_equal(rig_count(rig, EFF_NACK), 1);
    assert_string_equal(retained(rig, "#"), "ever=E long=l short=s");
    assert_int_equal(rig_nth(rig, EFF_RETAINED, 0)->origin + rig_nth(rig, EFF_RETAINED, 1)->origin +
                         rig_nth(rig, EFF_RETAINED, 2)->origin,
                     3602);
    rig_pass(rig, 1600);
    assert_string_equal(retained(rig, "#"), "ever=E long=l"); /* not to be seen, but not gone yet */
    assert_int_equal(rig->b->mqtt.retained.count, 3);
    rig->now += 60 * NS_PER_S;
    rig->wall += 60000;
    rig_step(rig);
    rig_pass(rig, 10);
    assert_int_equal(rig->b->mqtt.retained.count, 2);
    char large[1200];
    memset(large, 'x', sizeof large);
    large[1100] = '\0';
    rig_clear(rig);
    retain(rig, 1, "large", large);
    assert_int_equal(rig_nth(rig, EFF_NACK, 0)->flags, NACK_QUOTA);
    assert_int_equal(rig->b->mqtt.retained.count, 2);
    end(rig);
}

static void by_the_queue(void **state)
{
    (void)state;
    struct rig *rig = begin();
    char key[20];
    (void)attach(rig, 1, "dev", 100);
    assert_int_equal(subscribe(rig, 1, "k.*", 1), 0);
    leave(rig, 1);
    (void)attach(rig, 2, "other", 0);
    for (unsigned i = 0; i < 700; i++) {
        snprintf(key, sizeof key, "r.%u", i);
        retain(rig, 2, key, "v");
        rig_clear(rig);
    }
    (void)attach(rig, 1, "dev", 100);
    rig_clear(rig);
    ask_for(rig, 1, "r.#", 1);
    assert_int_equal(answered(rig, NULL), -1); /* its queue takes so many only */
    assert_in_range(rig_ready(rig, "mqtt-subscription-devqos1"), 200, 300);
    unsigned got = 0;
    struct amqp_value v;
    while (rig_nth(rig, EFF_DELIVER, 0)) {
        struct effect *e = rig_nth(rig, EFF_DELIVER, 0);
        assert_true(amqp_table_find(msg_headers(e->msg), MQTT_HEADER_RETAINED, &v));
        uint64_t tag = e->number;
        e->type = EFF_NONE;
        e->answer = NULL;
        got++;
        rig_plain(rig, CMD_ACK, 1, 1, tag, 0);
        if (rig->effect_count > 3000)
            break;
    }
    assert_int_equal(got, 700);
    uint64_t count;
    assert_int_equal(answered(rig, &count), 0);
    assert_int_equal(count, 700);
    end(rig);
}

/* With QoS 2 the room in the queue is made by PUBCOMP. */
static void by_the_queue_twice_acknowledged(void **state)
{
    (void)state;
    struct rig *rig = begin();
    char key[20];
    unsigned got = 0;
    (void)attach(rig, 1, "dev", 100);
    assert_int_equal(subscribe(rig, 1, "k.*", 2), 0);
    (void)attach(rig, 2, "other", 0);
    for (unsigned i = 0; i < 700; i++) {
        snprintf(key, sizeof key, "r.%u", i);
        retain(rig, 2, key, "v");
        rig_clear(rig);
    }
    ask_for(rig, 1, "r.#", 2);
    for (unsigned n = 0; n < 700 && rig_nth(rig, EFF_DELIVER, 0); n++) {
        struct effect *e = rig_nth(rig, EFF_DELIVER, 0);
        uint16_t id = (uint16_t)(1 + e->count % MQTT_OWN_IDS);
        uint64_t tag = e->number;
        e->type = EFF_NONE;
        e->answer = NULL;
        got++;
        release(rig, 1, tag, id);
        rig_plain(rig, CMD_MQTT_COMPLETED, 1, 1, id, 0);
    }
    assert_int_equal(got, 700);
    end(rig);
}

/* Who asks again and again, and acknowledges nothing, has no more walks than subscriptions. */
static void walks_have_a_limit(void **state)
{
    (void)state;
    struct rig *rig = begin();
    char key[20];
    (void)attach(rig, 1, "dev", 100);
    assert_int_equal(subscribe(rig, 1, "r.#", 1), 0);
    (void)attach(rig, 2, "other", 0);
    for (unsigned i = 0; i < 300; i++) {
        snprintf(key, sizeof key, "r.%u", i);
        retain(rig, 2, key, "v");
        rig_clear(rig);
    }
    for (unsigned i = 0; i < 100; i++)
        ask_for(rig, 1, "r.#", 1);
    assert_in_range(the_client(rig, "dev")->walk_count, 10, 20);
    assert_in_range(rig_count(rig, EFF_ANSWER), 80, 90);
    leave(rig, 1);
    assert_int_equal(the_client(rig, "dev")->walk_count, 0);
    end(rig);
}

/* What a wildcard does not mean costs a walk as much as what it means: it is in no step of the broker at once. */
static void many_dollars(void **state)
{
    (void)state;
    struct rig *rig = begin();
    char key[20];
    (void)attach(rig, 1, "dev", 0);
    retain(rig, 1, "a", "v");
    for (unsigned i = 0; i < 3000; i++) {
        snprintf(key, sizeof key, "$x%u", i);
        retain(rig, 1, key, "v");
        rig_clear(rig);
    }
    struct command *c = rig_command(rig, 0, CMD_MQTT_RETAINED, 1, 1);
    c->ask = ask_new(slice_str("#"), (struct slice){0}, (struct slice){0}, (struct slice){0});
    c->number = 5;
    ring_publish(&broker_port(rig->b, 0)->commands);
    assert_true(broker_step(rig->b, rig->now, rig->wall, rig->durable));
    assert_int_equal(the_client(rig, "dev")->walk_count, 1);
    rig_step(rig);
    assert_string_equal(came(rig), "a=v");
    end(rig);
}

/* The steps that say there is more are all that it takes: nobody looks again by chance. */
static void by_the_queue_at_once(void **state)
{
    (void)state;
    struct rig *rig = begin();
    (void)attach(rig, 1, "dev", 0);
    assert_int_equal(subscribe(rig, 1, "k", 1), 0);
    assert_true(publish_with(rig, 1, "r", "v", 0, ASK_RETAIN, 0, 0));
    rig_clear(rig);
    struct command *c = rig_command(rig, 0, CMD_MQTT_RETAINED, 1, 1);
    c->ask = ask_new(slice_str("r"), (struct slice){0}, (struct slice){0}, (struct slice){0});
    c->number = 1ull << 32 | 5;
    ring_publish(&broker_port(rig->b, 0)->commands);
    while (broker_step(rig->b, rig->now, rig->wall, rig->durable))
        continue;
    rig_take(rig, 0);
    assert_string_equal(rig_delivered(rig), "v");
    end(rig);
}

/* A session without credit is not given more, and goes on where it was. */
static void credit(void **state)
{
    (void)state;
    struct rig *rig = begin();
    char key[20], body[4000];
    memset(body, 'x', sizeof body);
    body[3999] = '\0';
    (void)attach(rig, 1, "dev", 0);
    for (unsigned i = 0; i < 200; i++) {
        snprintf(key, sizeof key, "k.%u", i);
        retain(rig, 2, key, body);
        (void)attach_with(rig, 2, "pub", 0, 0, (struct slice){0});
        retain(rig, 2, key, body);
        rig_clear(rig);
    }
    ask_for(rig, 1, "#", 0);
    unsigned first = rig_count(rig, EFF_RETAINED);
    assert_in_range(first, 50, 100);
    rig_pass(rig, 50);
    assert_int_equal(rig_count(rig, EFF_RETAINED), first);
    rig_plain(rig, CMD_CREDIT, 1, 0, 100000, 0);
    assert_in_range(rig_count(rig, EFF_RETAINED), first + 20, first + 40);
    for (unsigned i = 0; i < 10; i++)
        rig_plain(rig, CMD_CREDIT, 1, 0, 256 * 1024, 0);
    assert_int_equal(rig_count(rig, EFF_RETAINED), 200);
    uint64_t count;
    assert_int_equal(answered(rig, &count), 0);
    assert_int_equal(count, 200);
    assert_int_equal(rig_nth(rig, EFF_ANSWER, 0)->origin, 99);
    rig_clear(rig);
    ask_for(rig, 1, "#", 0);
    ask_for(rig, 1, "#", 0);
    leave(rig, 1); /* in the middle of both */
    assert_true(list_empty(&rig->b->mqtt.retained.walking));
    end(rig);
}

struct oracle {
    bool matches;
};

static void hit(void *arg, void *target)
{
    (void)target;
    ((struct oracle *)arg)->matches = true;
}

static bool matches(const char *pattern, const char *key)
{
    struct topic *topic = topic_new(1);
    struct oracle oracle = {false};
    assert_true(topic_add(topic, slice_str(pattern), topic));
    topic_match(topic, slice_str(key), hit, &oracle);
    topic_free(&topic);
    return oracle.matches;
}

static void some_key(uint64_t *x, char ret[100], bool pattern)
{
    static const char *const words[] = {"a", "b", "", "cc", "*", "*"};
    uint8_t r[8];
    size_t len = 0;
    rig_random(x, r, sizeof r);
    unsigned count = 1 + r[0] % 4;
    for (unsigned i = 0; i < count; i++)
        len += (size_t)snprintf(ret + len, 100 - len, "%s%s", i ? "." : "", words[r[1 + i] % (pattern ? 6 : 4)]);
    if (pattern && r[7] % 3 == 0)
        len += (size_t)snprintf(ret + len, 100 - len, "%s", len ? ".#" : "#");
    if (!len)
        (void)snprintf(ret, 100, "a");
}

/* Against the matching of topic exchanges; and what is there all the time is seen once by a walk, whatever changes meanwhile. */
static void anything(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct broker_options options = {.compact_every = seed % 2 ? 0 : 61, .compact_slice_bytes = 150};
        struct rig *rig = begin_with(&options);
        uint64_t x = seed;
        char key[100], pattern[100];
        (void)attach(rig, 1, "walks", 0);
        (void)attach(rig, 2, "sets", 0);
        char keys[64][100];
        bool steady[64];
        for (unsigned i = 0; i < 64; i++) {
            some_key(&x, keys[i], false);
            steady[i] = i % 2;
            for (unsigned n = 0; n < i; n++)
                if (strcmp(keys[n], keys[i]) == 0)
                    steady[i] = steady[n];
            retain(rig, 2, keys[i], "v");
        }
        for (unsigned round = 0; round < 60; round++) {
            some_key(&x, pattern, true);
            rig_clear(rig);
            struct peer *peer = peer_of(rig->b, &rig->b->sides[0], 1);
            peer->credit = 1; /* a walk has to stop after each value */
            ask_for(rig, 1, pattern, 0);
            for (unsigned n = 0; n < 2000 && answered(rig, NULL) < 0; n++) {
                uint8_t r[2];
                rig_random(&x, r, sizeof r);
                unsigned i = r[0] % 64;
                if (!steady[i])
                    assert_true(publish_with(rig, 2, keys[i], r[1] % 2 ? "v" : "", 1, ASK_RETAIN, 0, 0));
                some_key(&x, key, false);
                bool known = false;
                for (unsigned k = 0; k < 64; k++)
                    known |= strcmp(keys[k], key) == 0;
                if (!known)
                    assert_true(publish_with(rig, 2, key, r[1] % 3 ? "v" : "", 1, ASK_RETAIN, 0, 0));
                rig_plain(rig, CMD_CREDIT, 1, 0, (uint64_t)(1 - peer->credit), 0);
            }
            for (unsigned i = 0; i < 64; i++) {
                unsigned seen = 0;
                for (unsigned n = 0; n < rig->effect_count; n++)
                    seen += rig->effects[n].type == EFF_RETAINED && slice_is(msg_key(rig->effects[n].msg), keys[i]);
                bool means = matches(pattern, keys[i]);
                if (seen > 1 || (seen && !means) || (steady[i] && means && !seen))
                    rig_fail("%s: %s was seen %u times", pattern, keys[i], seen);
            }
        }
        rig_assert_replays(rig);
        restart(&rig, 0);
        end(rig);
    }
}

/* An exchange with a walk, a snapshot and a sweep in its values goes; the values go in slices. */
static void the_exchange_goes(void **state)
{
    (void)state;
    struct broker_options options = {.compact_slice_bytes = 100};
    struct rig *rig = begin_with(&options);
    char key[20];
    assert_true(rig_ask(rig, CMD_EXCHANGE_DECLARE, 4, 1, "t", "topic", NULL, (struct slice){0}, ASK_DURABLE));
    assert_true(rig_ask_full(rig, CMD_MQTT_ATTACH, 1, 1, "at-t", NULL, "t", (struct slice){0}, 0, 100));
    struct amqp_props props = {0};
    for (unsigned i = 0; i < 3000; i++) {
        snprintf(key, sizeof key, "k.%u", i);
        uint8_t raw[2] = {0, 0};
        struct msg *msg = msg_new(broker_heap(rig->b), slice_str("t"), slice_str(key), slice_of(raw, 2), 1);
        struct command *c = rig_command(rig, 0, CMD_PUBLISH, 1, 1);
        msg_body_room(msg)[0] = 'x';
        c->msg = msg;
        c->number = i + 1;
        c->flags = ASK_RETAIN;
        if (i % 500 == 499)
            rig_step(rig);
    }
    (void)props;
    assert_int_equal(rig->b->mqtt.retained.count, 3000);
    rig_clear(rig);
    ask_for(rig, 1, "#", 0);
    compact_start(rig->b);
    rig->starved = true;
    for (unsigned i = 0; i < 40; i++)
        rig_pass(rig, 1);
    retained_pass_begin(&rig->b->mqtt.retained, &rig->b->mqtt.retained.sweep);
    rig->starved = false;
    assert_true(rig_ask(rig, CMD_EXCHANGE_DELETE, 4, 1, "t", NULL, NULL, (struct slice){0}, 0));
    rig_pass(rig, 100);
    assert_int_equal(rig->b->mqtt.retained.count, 0);
    assert_int_equal(rig->b->mqtt.retained.nodes, 0);
    assert_int_equal(rig->b->mqtt.retained.bytes, 0);
    end(rig);
}

static void without_memory(void **state)
{
    (void)state;
    for (int for_ever = 0; for_ever < 2; for_ever++)
        for (uint64_t n = 1, hit_one = 1; hit_one; n++) {
            struct rig *rig = begin();
            (void)attach(rig, 1, "dev", 100);
            (void)attach(rig, 2, "pub", 0);
            assert_int_equal(subscribe(rig, 1, "a.#", 1), 0);
            retain(rig, 2, "a.b.c", "old");
            rig_clear(rig);
            rig->starved = true;
            mem_fail_at(n, for_ever);
            (void)publish_with(rig, 2, "a.b.d", "new", 1, ASK_RETAIN, 0, 5000);
            (void)publish_with(rig, 2, "a.b.c", "newer", 1, ASK_RETAIN, 0, 0);
            struct ask *ask = ask_new(slice_str("a.#"), (struct slice){0}, (struct slice){0}, (struct slice){0});
            struct command *c = ask ? rig_command(rig, 0, CMD_MQTT_RETAINED, 1, 1) : NULL;
            if (c) {
                c->ask = ask;
                c->number = n % 2 ? 1ull << 32 | 5 : 5;
                rig_step(rig);
            }
            (void)publish_with(rig, 2, "a.b.c", "", 1, ASK_RETAIN, 0, 0);
            hit_one = mem_failures_hit();
            mem_fail_at(0, false);
            rig->starved = false;
            rig_pass(rig, 20);
            rig_assert_nothing_lost(rig);
            struct rig_log *log = rig->log;
            rig_free(rig);
            rig_log_free(log);
        }
}

/* What its publisher hears was not taken is not retained either; with QoS 0 nobody hears anything. */
static void refused_by(bool deduplicates)
{
    uint8_t raw[100];
    struct writer w = writer_of(raw, sizeof raw);
    amqp_put_long(&w, "x-max-length", 1);
    amqp_put_str(&w, "x-overflow", slice_str("reject-publish"));
    amqp_put_bool(&w, "x-message-deduplication", deduplicates);
    struct rig *rig = begin();
    assert_true(rig_ask(rig, CMD_QUEUE_DECLARE, 4, 1, "full", NULL, NULL, writer_slice(&w), ASK_DURABLE));
    assert_true(rig_ask(rig, CMD_QUEUE_BIND, 4, 1, "full", "amq.topic", "a", (struct slice){0}, 0));
    (void)attach(rig, 1, "dev", 0);
    retain(rig, 1, "a", "first");
    rig_clear(rig);
    retain(rig, 1, "a", "second");
    assert_int_equal(rig_nth(rig, EFF_NACK, 0)->flags, NACK_FULL);
    assert_string_equal(retained(rig, "a"), "a=first");
    assert_true(publish_with(rig, 1, "a", "third", 0, ASK_RETAIN, 0, 0));
    assert_string_equal(retained(rig, "a"), "a=third");
    end(rig);
}

static void what_is_refused_is_not_kept(void **state)
{
    (void)state;
    refused_by(false);
    refused_by(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(set_and_gone),
        cmocka_unit_test(dollar_and_empty_words),
        cmocka_unit_test(time_and_limits),
        cmocka_unit_test(what_is_refused_is_not_kept),
        cmocka_unit_test(by_the_queue),
        cmocka_unit_test(by_the_queue_at_once),
        cmocka_unit_test(credit),
        cmocka_unit_test(by_the_queue_twice_acknowledged),
        cmocka_unit_test(walks_have_a_limit),
        cmocka_unit_test(many_dollars),
        cmocka_unit_test(anything),
        cmocka_unit_test(the_exchange_goes),
        cmocka_unit_test(without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
