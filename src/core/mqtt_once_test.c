/* QoS 1 and 2 through crashes: a publisher and a subscriber with the memories that MQTT gives them, a broker that dies with
 * any part of its journal that was not durable. What was acknowledged arrives: QoS 1 once or more, QoS 2 once. */
#include "core/mqtt_words_test.h"

#define MESSAGES 400
#define FLIGHT 6 /* packet ids of the publisher, from 1 */

enum { PUB = 1, SUB = 2 };
enum stage { FREE, SENT, RELEASING }; /* of one of the publisher's ids */

struct flow {
    struct rig *rig;
    uint64_t x;
    struct {
        enum stage stage;
        unsigned number; /* of the message: even ones are of QoS 2 */
        uint64_t seq;
    } out[FLIGHT + 1];
    unsigned next;
    bool acked[MESSAGES];
    unsigned got[MESSAGES];
    bool known[65536]; /* ids that the subscriber has taken and that were not released */
    unsigned taken;    /* effects that were looked at; of those that wait until something is durable nothing was */
    unsigned deaths;
};

static unsigned draw(struct flow *f, unsigned n)
{
    uint8_t r[2];
    rig_random(&f->x, r, sizeof r);
    return (r[0] << 8 | r[1]) % n;
}

static void send(struct flow *f, uint16_t id)
{
    char body[20];
    unsigned number = f->out[id].number;
    snprintf(body, sizeof body, "%u", number);
    assert_true(publish_with(f->rig, PUB, "a", body, 1, number % 2 ? 0 : ASK_ONCE, id, 0));
    f->out[id].stage = SENT;
    f->out[id].seq = f->rig->seq[PUB][1];
}

static void ask_id(struct flow *f, enum command_type type, uint32_t session, uint16_t id)
{
    struct command *c = rig_command(f->rig, 0, type, session, 1);
    c->number = id;
    c->origin = id;
    rig_step(f->rig);
}

/* PUBACK or PUBREC has come for everything up to seq. */
static void confirmed(struct flow *f, uint64_t seq)
{
    for (uint16_t id = 1; id <= FLIGHT; id++) {
        if (f->out[id].stage != SENT || f->out[id].seq > seq)
            continue;
        unsigned number = f->out[id].number;
        f->acked[number] = true;
        f->out[id].stage = number % 2 ? FREE : RELEASING;
        if (number % 2 == 0)
            ask_id(f, CMD_MQTT_RELEASED, PUB, id);
    }
}

static void delivered(struct flow *f, uint64_t tag, uint64_t position, unsigned number)
{
    uint16_t id = (uint16_t)(1 + position % MQTT_OWN_IDS);
    assert_true(number < f->next);
    if (number % 2) {
        f->got[number]++;
        rig_plain(f->rig, CMD_ACK, SUB, 1, tag, 0);
        return;
    }
    if (!f->known[id])
        f->got[number]++;
    f->known[id] = true;
    release(f->rig, SUB, tag, id);
}

/* PUBREL has come. */
static void released(struct flow *f, uint16_t id)
{
    f->known[id] = false;
    struct command *c = rig_command(f->rig, 0, CMD_MQTT_COMPLETED, SUB, 1);
    c->number = id; /* its answer says nothing to a client, so it has no origin here */
    rig_step(f->rig);
}

/* What the broker has said, as far as it may leave. What a session was told behind something held is held too. */
static void listen(struct flow *f)
{
    while (f->taken < f->rig->effect_count) {
        struct effect e = f->rig->effects[f->taken];
        if (e.lsn > f->rig->durable)
            return;
        f->taken++;
        if (e.type == EFF_CONFIRM)
            confirmed(f, e.number);
        else if (e.type == EFF_DELIVER)
            delivered(f, e.number, e.count, (unsigned)strtoul(rig_body(&e), NULL, 10));
        else if (e.type == EFF_ANSWER && e.session == PUB && e.origin)
            f->out[e.origin].stage = FREE; /* PUBCOMP */
        else if (e.type == EFF_ANSWER && e.session == SUB && e.origin)
            released(f, (uint16_t)e.origin);
    }
    rig_clear(f->rig);
    f->taken = 0;
}

static void connect_both(struct flow *f)
{
    struct rig *rig = f->rig;
    (void)attach_with(rig, PUB, "pub", MQTT_NEVER, 0, (struct slice){0});
    rig_plain(rig, CMD_MQTT_RESUME, PUB, 1, 10, 0);
    (void)attach_with(rig, SUB, "sub", MQTT_NEVER, 0, (struct slice){0});
    struct slice fields = rig_nth(rig, EFF_ANSWER, 0)->answer->fields;
    if (rig_nth(rig, EFF_ANSWER, 0)->lsn > rig->durable) /* CONNACK waits for that, and what it says with it */
        rig->durable = rig_nth(rig, EFF_ANSWER, 0)->lsn;
    uint16_t ids[100];
    unsigned count = 0;
    if (fields.len) {
        struct reader r = reader_of(fields);
        for (uint32_t n = reader_u32(&r); n; n--) {
            (void)reader_str8(&r);
            (void)reader_str8(&r);
            (void)reader_u8(&r);
            (void)reader_u32(&r);
        }
        for (uint32_t n = reader_u32(&r); n; n--)
            ids[count++] = reader_u16(&r);
        assert_true(reader_done(&r));
    }
    rig_clear(rig);
    f->taken = 0;
    for (unsigned i = 0; i < count; i++)
        released(f, ids[i]);
    rig_plain(rig, CMD_MQTT_RESUME, SUB, 1, 3, 0);
    for (uint16_t id = 1; id <= FLIGHT; id++) {
        if (f->out[id].stage == SENT)
            send(f, id);
        else if (f->out[id].stage == RELEASING)
            ask_id(f, CMD_MQTT_RELEASED, PUB, id);
    }
}

static void die(struct flow *f)
{
    struct rig *rig = f->rig;
    size_t kept = (size_t)rig->durable + draw(f, (unsigned)(rig->log->count - rig->durable) + 1);
    struct rig_log *log = rig_log_copy(rig->log, kept);
    struct rig *other = rig_new(log, &rig->options, rig->wall);
    struct rig_log *old = rig->log;
    log->store = old->store;
    log->is_copy = old->is_copy;
    old->is_copy = true;
    rig_free(rig);
    rig_log_free(old);
    f->rig = other;
    f->deaths++;
    for (uint32_t session = 1; session <= 4; session++)
        reopen(other, session);
    other->hold = true;
    connect_both(f);
}

/* Both connections break, and what was on its way to them is lost. */
static void lose(struct flow *f)
{
    leave(f->rig, PUB);
    leave(f->rig, SUB);
    connect_both(f);
}

static void through_crashes(void **state)
{
    (void)state;
    unsigned deaths = 0;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct broker_options options = {.compact_every = seed % 3 ? 0 : 41, .compact_slice_bytes = 200};
        struct flow *f = calloc(1, sizeof *f);
        *f = (struct flow){.rig = begin_with(&options), .x = seed};
        connect_both(f);
        assert_int_equal(subscribe(f->rig, SUB, "a", 2), 0);
        rig_clear(f->rig);
        f->rig->hold = true;
        while (f->next < MESSAGES) {
            unsigned what = draw(f, 100);
            uint16_t id = (uint16_t)(1 + draw(f, FLIGHT));
            if (what < 50 && f->out[id].stage == FREE) {
                f->out[id].number = f->next++;
                send(f, id);
            } else if (what < 90) {
                f->rig->durable += draw(f, (unsigned)(f->rig->log->count - f->rig->durable) + 1);
                rig_step(f->rig);
                listen(f);
            } else if (what < 94)
                rig_pass(f->rig, 5);
            else if (what < 97)
                lose(f);
            else
                die(f);
        }
        f->rig->hold = false;
        for (unsigned i = 0; i < 50; i++) {
            rig_pass(f->rig, 5);
            listen(f);
        }
        for (unsigned n = 0; n < MESSAGES; n++)
            if (!f->acked[n] || !f->got[n] || (n % 2 == 0 && f->got[n] > 1))
                rig_fail("seed %llu: message %u came %u times, acknowledged: %d", (unsigned long long)seed, n,
                         f->got[n], f->acked[n]);
        for (unsigned id = 0; id < ARRAY_LEN(f->known); id++)
            if (f->known[id])
                rig_fail("seed %llu: packet id %u was never released", (unsigned long long)seed, id);
        deaths += f->deaths;
        end(f->rig);
        free(f);
    }
    assert_true(deaths > 300);
}

/* Packet ids follow from positions, and there are few: a client that has not answered may meet the same one again. */
static void test_a_crash_moves_positions_on_by_little(void **state)
{
    (void)state;
    struct rig *rig = begin();
    assert_false(attach(rig, SUB, "sub", MQTT_NEVER));
    assert_int_equal(subscribe(rig, SUB, "a", 1), 0);
    for (unsigned crash = 0; crash < 8; crash++) {
        assert_true(publish_with(rig, PUB, "a", "m", 1, 0, 0, 0));
        restart(&rig, 10);
        assert_true(attach(rig, SUB, "sub", MQTT_NEVER));
    }
    rig_step(rig);
    unsigned count = rig_count(rig, EFF_DELIVER);
    assert_int_equal(count, 8);
    assert_in_range(rig_nth(rig, EFF_DELIVER, 7)->count, 8, 8 * 1024);
    end(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_crash_moves_positions_on_by_little),
        cmocka_unit_test(through_crashes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
