/* The parts of AMQP that the simulator's random client leaves out, see features.h. */
#include "features.h"

#include "admin/caller.h"
#include "base/mem.h"
#include "fmt/amqp_table.h"

#define ASKED(class, method) ((uint32_t)(class) << 16 | (method))
#define LONG_TEXT 3000 /* more than the core has room for on its stack */

static bool well(const struct world *w)
{
    return !w->dead && !w->model->wrong[0];
}

static struct slice long_text(void)
{
    static uint8_t text[LONG_TEXT];
    memset(text, 'x', sizeof text);
    return slice_of(text, sizeof text);
}

/* A persistent message that is expected in these places. */
static void send(struct world *w, const char *exchange, const char *key, unsigned places, struct slice headers)
{
    uint8_t body[64];
    uint64_t id = model_published(w->model, places, true, 40, false);
    model_body(id, 40, body);
    client_publish_headers(&w->client, CH_CONFIRM, exchange, key, slice_of(body, 40), headers);
    world_sent(w, id);
    world_turn(w);
}

static void topics(struct world *w)
{
    static const char *const keys[] = {"a.*.#", "#.c", "a.b.c.d"};
    for (unsigned i = 0; i < ARRAY_LEN(keys) && well(w); i++) {
        client_queue_bind(&w->client, CH_CONFIRM, place_names[PLACE_PLAIN], "amq.topic", keys[i], (struct slice){0});
        if (!world_wait(w, ASKED(50, 21)))
            return;
    }
    client_exchange_declare(&w->client, CH_CONFIRM, "before", "fanout", NULL);
    if (!world_wait(w, ASKED(40, 11)))
        return;
    client_exchange_bind(&w->client, CH_CONFIRM, "amq.topic", "before", "");
    if (!world_wait(w, ASKED(40, 31)))
        return;
    send(w, "amq.topic", "a.b.c", 1u << PLACE_PLAIN, (struct slice){0});
    send(w, "before", "x.c", 1u << PLACE_PLAIN, (struct slice){0});
}

static void hashes(struct world *w)
{
    client_exchange_declare(&w->client, CH_CONFIRM, "ring", "x-consistent-hash", NULL);
    if (!well(w) || !world_wait(w, ASKED(40, 11)))
        return;
    client_queue_bind(&w->client, CH_CONFIRM, place_names[PLACE_PLAIN], "ring", "2", (struct slice){0});
    if (world_wait(w, ASKED(50, 21)))
        send(w, "ring", "any", 1u << PLACE_PLAIN, (struct slice){0});
}

/* Arguments and headers that are longer than what is kept on the stack. */
static void long_ones(struct world *w)
{
    static uint8_t room[2 * LONG_TEXT];
    struct writer out = writer_of(room, sizeof room);
    amqp_put_str(&out, "text", long_text());
    if (!well(w))
        return;
    client_queue_bind(&w->client, CH_CONFIRM, place_names[PLACE_FAN], "amq.headers", "", writer_slice(&out));
    if (!world_wait(w, ASKED(50, 21)))
        return;
    out = writer_of(room, sizeof room);
    amqp_put_str(&out, "other", long_text());
    for (unsigned i = 0; i < 5 && well(w); i++) /* two of them are dead letters */
        send(w, "", place_names[PLACE_SHORT], 1u << PLACE_SHORT, writer_slice(&out));
}

static void copies(struct world *w)
{
    static uint8_t room[2 * LONG_TEXT];
    struct writer out = writer_of(room, sizeof room);
    size_t mark = amqp_open(&out, "BCC", 'A');
    amqp_put_element_str(&out, slice_str(place_names[PLACE_QUORUM]));
    amqp_close(&out, mark);
    amqp_put_str(&out, "other", long_text());
    if (well(w))
        send(w, "", place_names[PLACE_PLAIN], 1u << PLACE_PLAIN | 1u << PLACE_QUORUM, writer_slice(&out));
}

static void returns(struct world *w)
{
    world_publish(w, PLACE_QUORUM, 3, 30);
    world_confirmed(w);
    world_take(w, PLACE_QUORUM, 3, true); /* the first one three times, with its count from the second on */
    world_take(w, PLACE_QUORUM, 1, false);
}

/* A dead letter of a transaction. */
static void rejected_in_tx(struct world *w)
{
    if (!well(w))
        return;
    w->get_place = PLACE_SHORT;
    w->get_no_ack = false;
    client_get(&w->client, CH_TX, place_names[PLACE_SHORT], false);
    if (!world_wait(w, ASKED(60, 71)) || !w->held_count[CH_TX])
        return;
    client_nack(&w->client, CH_TX, w->held[CH_TX][--w->held_count[CH_TX]].tag, false, false);
    client_tx(&w->client, CH_TX, 20);
    (void)world_wait(w, ASKED(90, 21));
}

/* An administrator's command, on a port whose answers nobody takes. */
static void administer(struct world *w, enum admin_op op, const char *name, const char *other, struct slice args)
{
    struct ask *ask = ask_new(slice_str(name), slice_str(other), (struct slice){0}, args);
    struct port *port = broker_port(w->broker, 1);
    if (!ask)
        return;
    ask->flags = ASK_INTERNAL_ADMIN;
    struct command *c = ring_push(&port->commands);
    if (!c) {
        mem_free(ask);
        return;
    }
    *c = (struct command){.type = CMD_ADMIN, .session = 1, .number = op, .ask = ask};
    ring_publish(&port->commands);
    world_turns(w, 2);
}

static void policy(struct world *w)
{
    uint8_t room[200];
    struct writer out = writer_of(room, sizeof room);
    amqp_put_str(&out, "pattern", slice_str("^q1$"));
    amqp_put_str(&out, "apply-to", slice_str("queues"));
    size_t mark = amqp_open(&out, "definition", 'F');
    amqp_put_long(&out, "max-length", 1000);
    amqp_close(&out, mark);
    if (!well(w))
        return;
    administer(w, ADMIN_POLICY_PUT, "p", "/", writer_slice(&out));
    for (unsigned i = 0; i < 40 && well(w); i++) /* until the ring is full in the middle of a list */
        administer(w, ADMIN_EXCHANGE_LIST, "", "/", (struct slice){0});
}

/* More deliveries in one step than a ring has room for. */
static void many_at_once(struct world *w)
{
    uint8_t body[64];
    for (unsigned i = 0; i < 400 && well(w); i++) {
        uint64_t id = model_published(w->model, 1u << PLACE_PLAIN, true, 20, false);
        model_body(id, 20, body);
        client_publish(&w->client, CH_CONFIRM, "", place_names[PLACE_PLAIN], slice_of(body, 20), true, 0, -1, -1, -1);
        world_sent(w, id);
    }
    world_confirmed(w);
    if (!well(w))
        return;
    client_consume(&w->client, CH_CONSUME, place_names[PLACE_PLAIN], "c0", false);
    (void)world_wait(w, ASKED(60, 21));
    world_turns(w, 20);
}

void features_play(struct world *w)
{
    topics(w);
    hashes(w);
    long_ones(w);
    copies(w);
    returns(w);
    rejected_in_tx(w);
    policy(w);
    many_at_once(w);
    world_confirmed(w);
    if (well(w)) { /* what is not implemented ends the channel: last */
        client_recover(&w->client, CH_GET, false);
        world_turns(w, 10);
    }
}
