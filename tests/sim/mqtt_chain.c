/* What MQTT's clients do, see mqtt_chain.h. */
#include "mqtt_chain_int.h"

#include <stdio.h>
#include <stdlib.h>

#define EXPIRY_S 360000
#define TURNS_MAX 400u
#define TURNS_QUIET 60u /* after which what is released is completed, though it is a comparison */

static const char *const names[CHAIN_CLIENTS] = {"pub", "sub", "a", "b", "will", "look"};

static struct mqtt_guest *guest_of(struct mqtt_life *l, unsigned client)
{
    return &l->all.guests[client];
}

static unsigned pick(struct mqtt_life *l, unsigned n)
{
    return world_pick(l->w, n);
}

static bool excused(const struct mqtt_life *l)
{
    return l->w->dead || l->w->may_fail || l->w->reads_fail || os_sim_is_cut(l->w->disk) || l->w->model->wrong[0];
}

static bool stop(struct mqtt_life *l, const char *what, unsigned client)
{
    if (!excused(l))
        model_fault(l->w->model, "MQTT client %s: %s", names[client], what);
    l->chain->stopped = true;
    return false;
}

/* ---- what they say ---- */

static void say(struct mqtt_life *l, unsigned client, enum mqtt_type type, uint16_t id)
{
    union mqtt_fields f = {.ack = {.id = id}};
    mqtt_guest_send(guest_of(l, client), type, &f);
}

static void put_publish(struct mqtt_life *l, unsigned client, uint32_t letter, uint16_t id, bool dup)
{
    uint8_t body[512];
    const struct chain_stream *stream = chain_stream_of(l->chain, letter);
    size_t len = l->chain->letters[letter].gone ? 0 : chain_body(letter, body);
    union mqtt_fields f = {.publish = {.qos = stream->qos,
                                       .dup = dup,
                                       .retain = stream->retained,
                                       .id = id,
                                       .topic = slice_str(stream->topic),
                                       .payload = slice_of(body, len)}};
    mqtt_guest_send(guest_of(l, client), MQTT_publish, &f);
}

/* The lowest packet id that is free: what was said of it before may not be held against the next message. */
static uint16_t free_id(const struct mqtt_mind *mind)
{
    for (uint16_t id = 1;; id++) {
        bool taken = false;
        for (uint32_t i = 0; i < mind->out_count; i++)
            taken |= mind->out[i].id == id;
        if (!taken)
            return id;
    }
}

/* 0: there is no room, or there are no more letters. */
static uint32_t publish(struct mqtt_life *l, unsigned client, unsigned stream, bool gone)
{
    struct mqtt_mind *mind = &l->chain->minds[client];
    uint32_t letter = mind->out_count < MQTT_CHAIN_OUT ? chain_letter(l->chain, stream) : 0;
    if (!letter)
        return 0;
    l->chain->letters[letter].gone = gone;
    uint16_t id = 0;
    if (chain_streams[stream].qos) {
        id = free_id(mind);
        mind->out[mind->out_count].letter = letter;
        mind->out[mind->out_count].state = OUT_SENT;
        mind->out[mind->out_count].again = false;
        mind->out[mind->out_count++].id = id;
    }
    put_publish(l, client, letter, id, false);
    return letter;
}

static void subscribe(struct mqtt_life *l, unsigned client, const char *first, const char *second, uint8_t qos)
{
    uint8_t room[200];
    struct writer w = writer_of(room, sizeof room);
    mqtt_text_put(&w, slice_str(first));
    writer_u8(&w, qos);
    if (second) {
        mqtt_text_put(&w, slice_str(second));
        writer_u8(&w, qos ? 1 : 0);
    }
    union mqtt_fields f = {.list = {.id = 60000, .count = second ? 2 : 1, .list = writer_slice(&w)}};
    mqtt_guest_send(guest_of(l, client), MQTT_subscribe, &f);
}

/* ---- connections ---- */

static void heard(struct mqtt_guest *g, enum mqtt_type type, const union mqtt_fields *f);

static void lose(struct mqtt_life *l, unsigned client)
{
    mqtt_guest_lose(guest_of(l, client));
    l->links[client].state = LINK_DOWN;
    if (client == CHAIN_WILL)
        chain_will_cut(l->chain);
}

static void will_of(struct mqtt_life *l, struct mqtt_connect_fields *c, uint8_t body[512])
{
    struct mqtt_chain *k = l->chain;
    for (uint32_t letter = 1; letter <= k->count; letter++)
        if (k->letters[letter].stream == STREAM_WILL && !k->letters[letter].sure)
            k->letters[letter].final = true;
    k->will = chain_letter(k, STREAM_WILL);
    c->has_will = k->will != 0;
    c->will_retain = true;
    c->will_qos = 1;
    c->will_topic = slice_str(chain_streams[STREAM_WILL].topic);
    c->will_payload = slice_of(body, chain_body(k->will, body));
}

/* It forgets its session as it says so, whether the broker hears of it or not (3.1.2.4). */
static void start_afresh(struct mqtt_chain *k, unsigned client)
{
    struct mqtt_mind *mind = &k->minds[client];
    for (uint32_t i = 0; i < mind->out_count; i++)
        k->letters[mind->out[i].letter].final = true;
    mind->out_count = 0;
    mind->session = false;
    mind->afresh = true;
}

/* With its session, or afresh; of what a new one gives up nothing is sent again. Who wanted that and was not answered wants it again: a
 * session that is there may be the old one or the new one, and is neither that the client could go on with (3.2.2.1.1). False: there is no
 * connection. */
static bool connect(struct mqtt_life *l, unsigned client, bool clean, uint16_t receive)
{
    uint8_t body[512];
    struct mqtt_guest *g = guest_of(l, client);
    struct mqtt_connect_fields c = {.version = client == CHAIN_B ? MQTT_3_1_1 : MQTT_5,
                                    .protocol = slice_str("MQTT"),
                                    .client_id = slice_str(names[client])};
    bool lasts = client <= CHAIN_B;
    lose(l, client);
    if (clean)
        start_afresh(l->chain, client);
    c.clean = l->chain->minds[client].afresh;
    if (c.version == MQTT_5 && lasts)
        MQTT_SET(&c.props, session_expiry, EXPIRY_S);
    if (c.version == MQTT_5 && receive)
        MQTT_SET(&c.props, receive_maximum, receive);
    if (!mqtt_guest_open(g, c.version))
        return stop(l, "there is no memory for a connection", client);
    if (client == CHAIN_WILL)
        will_of(l, &c, body);
    g->heard = heard;
    g->heard_arg = l;
    memset(&l->links[client], 0, sizeof l->links[client]);
    l->links[client].state = LINK_CONNECTING;
    l->links[client].since = ++l->chain->clock;
    mqtt_guest_send(g, MQTT_connect, &(union mqtt_fields){.connect = c});
    return true;
}

/* Section 4.4. */
static void resume(struct mqtt_life *l, unsigned client, bool present)
{
    struct mqtt_chain *k = l->chain;
    struct mqtt_mind *mind = &k->minds[client];
    for (uint32_t i = 0; i < mind->out_count; i++) {
        mind->out[i].again = true;
        if (!present)
            k->letters[mind->out[i].letter].final = true;
        else if (mind->out[i].state == OUT_RELEASED)
            say(l, client, MQTT_pubrel, mind->out[i].id);
        else if (mind->out[i].state == OUT_SENT) {
            chain_resent(k, mind->out[i].letter);
            put_publish(l, client, mind->out[i].letter, mind->out[i].id, true);
        }
    }
    if (!present)
        mind->out_count = 0;
}

static void on_connack(struct mqtt_life *l, unsigned client, const struct mqtt_connack_fields *f)
{
    struct mqtt_mind *mind = &l->chain->minds[client];
    if (f->reason)
        stop(l, "it is refused", client);
    if (mind->session && !f->session_present)
        model_fault(l->w->model, "the session of MQTT client %s is gone", names[client]);
    if (mind->afresh && f->session_present)
        model_fault(l->w->model, "MQTT client %s starts afresh and has a session", names[client]);
    mind->afresh = false;
    mind->session = client <= CHAIN_B;
    l->links[client].state = LINK_UP;
    if (client == CHAIN_WILL) {
        l->chain->will_armed = true;
        l->chain->wills++;
    }
    resume(l, client, f->session_present);
}

/* ---- what they hear ---- */

static void looked(struct mqtt_life *l, unsigned client, const struct mqtt_publish_fields *f)
{
    if (client != CHAIN_LOOK || !f->retain)
        return;
    if (slice_is(f->topic, chain_streams[STREAM_ANCHOR].topic))
        l->anchors++;
    uint32_t letter = chain_identify(l, f->topic, f->payload);
    if (letter)
        l->values[l->chain->letters[letter].stream] = letter;
}

/* Whether it holds that packet id for another letter, which is as good as losing this one. */
static bool is_mistaken(struct mqtt_life *l, unsigned client, uint16_t id, uint32_t letter, uint32_t held)
{
    if (held == letter)
        return false;
    model_fault(l->w->model, "MQTT client %s gets letter %u as packet id %u, which it holds for letter %u",
                names[client], letter, id, held);
    return true;
}

static void on_publish(struct mqtt_life *l, unsigned client, const struct mqtt_publish_fields *f)
{
    struct mqtt_chain *k = l->chain;
    uint32_t letter = chain_identify(l, f->topic, f->payload), held = 0;
    if (!letter)
        return;
    bool holds = f->qos == 2 && chain_holds(k, client, f->id, &held);
    if (f->qos != chain_stream_of(k, letter)->qos || (holds && is_mistaken(l, client, f->id, letter, held)))
        return;
    if (!holds)
        chain_got(l, client, letter, f->dup);
    k->letters[letter].found++;
    k->letters[letter].acking = false;
    for (unsigned each = 0; each < CHAIN_CLIENTS; each++) /* of a group any may get it */
        l->wanted[each] = letter == l->wanted[each] ? 0 : l->wanted[each];
    for (uint32_t i = 0; i < k->minds[client].rec_count; i++)
        k->minds[client].recs[i].back |= f->qos == 2 && k->minds[client].recs[i].id == f->id;
    if (!f->qos || l->links[client].held_count == MQTT_CHAIN_RECS)
        return;
    if (f->qos == 2 && !holds && !l->looks)
        chain_hold(k, client, f->id, letter);
    uint32_t at = l->links[client].held_count++;
    l->links[client].held[at].letter = letter;
    l->links[client].held[at].id = f->id;
    l->links[client].held[at].qos = f->qos;
}

static void on_pubrel(struct mqtt_life *l, unsigned client, uint16_t id)
{
    uint32_t letter;
    if (chain_holds(l->chain, client, id, &letter)) {
        chain_drop(l->chain, client, id);
        chain_sealed(l->chain, letter);
    }
    if (l->links[client].comp_count < MQTT_CHAIN_RECS)
        l->links[client].comps[l->links[client].comp_count++] = id;
}

static void out_over(struct mqtt_mind *mind, uint32_t i)
{
    memmove(mind->out + i, mind->out + i + 1, (mind->out_count - i - 1) * sizeof mind->out[0]);
    mind->out_count--;
}

/* An answer to what it published. */
static void on_answer(struct mqtt_life *l, unsigned client, enum mqtt_type type, const struct mqtt_ack_fields *f)
{
    struct mqtt_mind *mind = &l->chain->minds[client];
    uint32_t i = 0;
    while (i < mind->out_count && mind->out[i].id != f->id)
        i++;
    bool excuse = type == MQTT_pubcomp && f->reason == MQTT_R_id_not_found && i < mind->out_count && mind->out[i].again;
    if (i == mind->out_count || (f->reason >= 0x80 && !excuse)) {
        stop(l, i == mind->out_count ? "an answer to nothing" : "a publish is refused", client);
        return;
    }
    uint32_t letter = mind->out[i].letter;
    if (type != MQTT_pubcomp)
        chain_taken(l->chain, letter);
    if (type == MQTT_pubrec && mind->out[i].state == OUT_SENT)
        mind->out[i].state = OUT_RECEIVED;
    if (type == MQTT_pubrec)
        return;
    if (letter == l->links[client].beat)
        chain_sealed_between(l->chain, client, l->links[client].since, l->links[client].beat_at);
    out_over(mind, i);
}

static void heard(struct mqtt_guest *g, enum mqtt_type type, const union mqtt_fields *f)
{
    struct mqtt_life *l = g->heard_arg;
    unsigned client = (unsigned)(g - l->all.guests);
    switch (type) {
    case MQTT_connack: on_connack(l, client, &f->connack); break;
    case MQTT_publish:
        if (client == CHAIN_LOOK)
            looked(l, client, &f->publish);
        else
            on_publish(l, client, &f->publish);
        break;
    case MQTT_puback:
    case MQTT_pubrec:
    case MQTT_pubcomp: on_answer(l, client, type, &f->ack); break;
    case MQTT_pubrel: on_pubrel(l, client, f->ack.id); break;
    case MQTT_disconnect: stop(l, "it is disconnected", client); break;
    default: break;
    }
}

/* ---- rounds ---- */

/* False: nothing more can be had in this life. */
static bool turns(struct mqtt_life *l, unsigned count)
{
    for (; count && !l->chain->stopped && !l->w->dead && !l->w->model->wrong[0]; count--) {
        mqtt_guests_turn(&l->all);
        for (unsigned client = 0; client < CHAIN_CLIENTS; client++) {
            if (l->links[client].state == LINK_DOWN || guest_of(l, client)->engine)
                continue;
            if (l->links[client].state != LINK_PARTING)
                return stop(l, "it has lost its connection", client);
            l->links[client].state = LINK_DOWN;
        }
    }
    return !l->chain->stopped && !l->w->dead && !l->w->model->wrong[0];
}

static bool await(struct mqtt_life *l, unsigned client, enum mqtt_type type)
{
    const unsigned *seen = &guest_of(l, client)->seen[type], before = *seen;
    for (unsigned i = 0; i < TURNS_MAX && *seen == before; i++)
        if (!turns(l, 1))
            return false;
    return *seen != before || stop(l, "it gets no answer", client);
}

static bool connected(struct mqtt_life *l, unsigned client, bool clean)
{
    return connect(l, client, clean, 0) && await(l, client, MQTT_connack);
}

/* PUBACK or PUBREC for the oldest that it has. */
static void acknowledge(struct mqtt_life *l, unsigned client)
{
    uint32_t letter = l->links[client].held[0].letter, held;
    uint16_t id = l->links[client].held[0].id;
    bool once = l->links[client].held[0].qos == 2;
    if (once && !chain_holds(l->chain, client, id, &held))
        chain_hold(l->chain, client, id, letter);
    chain_acking(l->chain, letter);
    say(l, client, once ? MQTT_pubrec : MQTT_puback, id);
    memmove(l->links[client].held, l->links[client].held + 1,
            --l->links[client].held_count * sizeof l->links[client].held[0]);
}

/* PUBCOMP for what is released. */
static void complete(struct mqtt_life *l, unsigned client)
{
    for (uint32_t i = 0; i < l->links[client].comp_count; i++)
        say(l, client, MQTT_pubcomp, l->links[client].comps[i]);
    l->links[client].comp_count = 0;
}

/* ---- the comparison ---- */

/* Packet ids follow from places in queues, which a restart moves on by thousands: after some restarts a message waits for the end of an
 * old one. */
static void settle(struct mqtt_life *l, unsigned client)
{
    while (l->links[client].held_count)
        acknowledge(l, client);
    complete(l, client);
}

static bool is_wanting(const struct mqtt_life *l)
{
    return l->wanted[CHAIN_SUB] || l->wanted[CHAIN_A] || l->wanted[CHAIN_B];
}

/* Until all that is wanted has come, and wills that are due. */
static bool take_wanted(struct mqtt_life *l)
{
    for (unsigned i = 0; is_wanting(l) || chain_will_missing(l->chain); i++) {
        if (!turns(l, 1))
            return false;
        if (i == TURNS_MAX)
            return is_wanting(l) ? stop(l, "the last message does not come", CHAIN_SUB) : !excused(l);
        for (unsigned client = CHAIN_SUB; i >= TURNS_QUIET && client <= CHAIN_B; client++)
            settle(l, client);
    }
    return true;
}

/* Each gets what is in its queue, until what was published last has come; of the group when nothing is left in its queue, for what a
 * member is to have of it may have moved into his. */
static bool take_all(struct mqtt_life *l)
{
    l->wanted[CHAIN_SUB] = publish(l, CHAIN_LOOK, STREAM_END, false);
    l->wanted[CHAIN_A] = publish(l, CHAIN_LOOK, STREAM_JOB_END, false);
    if (!take_wanted(l))
        return false;
    l->wanted[CHAIN_A] = publish(l, CHAIN_LOOK, STREAM_A_END, false);
    l->wanted[CHAIN_B] = publish(l, CHAIN_LOOK, STREAM_B_END, false);
    return take_wanted(l);
}

/* Each value that is retained: when the anchor comes by a later subscription, all have. */
static bool look(struct mqtt_life *l)
{
    memset(l->values, 0, sizeof l->values);
    l->anchors = 0;
    subscribe(l, CHAIN_LOOK, "r/#", "w/#", 0);
    subscribe(l, CHAIN_LOOK, chain_streams[STREAM_ANCHOR].topic, NULL, 0);
    for (unsigned i = 0; i < TURNS_MAX && l->anchors < 2; i++)
        if (!turns(l, 1))
            return false;
    return l->anchors == 2 || stop(l, "the anchor does not come", CHAIN_LOOK);
}

static bool compare(struct mqtt_life *l)
{
    struct mqtt_chain *k = l->chain;
    l->looks = true;
    chain_compare_begin(k);
    if (!connected(l, CHAIN_LOOK, true) || !connected(l, CHAIN_SUB, false) || !connected(l, CHAIN_A, false) ||
        !connected(l, CHAIN_B, false) || !take_all(l))
        return false;
    chain_compare(l);
    if (l->w->model->wrong[0] || !look(l))
        return false;
    chain_compare_values(l);
    for (unsigned client = 0; client < CHAIN_CLIENTS; client++)
        lose(l, client);
    l->looks = false;
    return !l->w->model->wrong[0];
}

/* ---- operations ---- */

static bool is_up(const struct mqtt_life *l, unsigned client)
{
    return l->links[client].state == LINK_UP;
}

static void op_publish(struct mqtt_life *l)
{
    for (unsigned n = 1 + pick(l, 4); n && is_up(l, CHAIN_PUB); n--)
        publish(l, CHAIN_PUB, pick(l, STREAM_KEPT_0), false);
}

static void op_keep(struct mqtt_life *l)
{
    if (is_up(l, CHAIN_PUB))
        publish(l, CHAIN_PUB, STREAM_KEPT_0 + pick(l, 4), pick(l, 4) == 0);
}

static void op_release(struct mqtt_life *l)
{
    struct mqtt_mind *mind = &l->chain->minds[CHAIN_PUB];
    for (uint32_t i = 0; is_up(l, CHAIN_PUB) && i < mind->out_count; i++)
        if (mind->out[i].state == OUT_RECEIVED) {
            mind->out[i].state = OUT_RELEASED;
            mind->out[i].again = false;
            say(l, CHAIN_PUB, MQTT_pubrel, mind->out[i].id);
        }
}

static void op_acknowledge(struct mqtt_life *l, unsigned client)
{
    for (unsigned n = 1 + pick(l, 5); n && is_up(l, client) && l->links[client].held_count; n--)
        acknowledge(l, client);
}

static void op_beat(struct mqtt_life *l)
{
    if (!is_up(l, CHAIN_SUB) || l->chain->minds[CHAIN_SUB].out_count)
        return;
    l->links[CHAIN_SUB].beat = publish(l, CHAIN_SUB, STREAM_BEAT, false);
    l->links[CHAIN_SUB].beat_at = ++l->chain->clock;
}

static void op_will(struct mqtt_life *l)
{
    if (l->links[CHAIN_WILL].state == LINK_DOWN)
        connect(l, CHAIN_WILL, true, 0);
    else if (is_up(l, CHAIN_WILL) && pick(l, 2)) {
        l->chain->will_armed = false;
        mqtt_guest_send(guest_of(l, CHAIN_WILL), MQTT_disconnect, &(union mqtt_fields){.end = {.reason = 0}});
        l->links[CHAIN_WILL].state = LINK_PARTING;
    } else
        lose(l, CHAIN_WILL);
}

/* A connection that is not there; or, now and then, another instead. */
static void op_connect(struct mqtt_life *l)
{
    static const uint16_t receive[] = {1, 5, 60};
    unsigned client = pick(l, CHAIN_B + 1);
    if (l->links[client].state == LINK_DOWN || pick(l, 4) == 0)
        connect(l, client, client == CHAIN_PUB && pick(l, 6) == 0, client == CHAIN_PUB ? 0 : receive[pick(l, 3)]);
}

static void one_op(struct mqtt_life *l)
{
    unsigned draw = pick(l, 20), client = CHAIN_SUB + pick(l, 3);
    if (draw < 6)
        op_publish(l);
    else if (draw < 8)
        op_keep(l);
    else if (draw < 10)
        op_release(l);
    else if (draw < 13)
        op_acknowledge(l, client);
    else if (draw == 13)
        op_beat(l);
    else if (draw < 16)
        op_will(l);
    else if (draw < 19)
        op_connect(l);
    else if (is_up(l, client))
        complete(l, client);
}

void mqtt_chain_op(struct mqtt_life *l)
{
    for (unsigned n = 1 + pick(l, 6); n && !l->chain->stopped; n--) {
        one_op(l);
        (void)turns(l, pick(l, 4));
    }
}

/* ---- lives ---- */

static void life_begin(struct mqtt_chain *k, struct mqtt_life *l, struct world *w)
{
    memset(l, 0, sizeof *l);
    l->chain = k;
    l->w = w;
    mqtt_guests_begin(&l->all, w);
    l->all.options.inflight_max = MQTT_RECEIVE_MAX;
}

void mqtt_chain_begin(struct mqtt_chain *k, struct mqtt_life *l, struct world *w)
{
    life_begin(k, l, w);
    k->stopped = false;
    if (compare(l))
        for (unsigned client = 0; client <= CHAIN_WILL && !k->stopped; client++)
            connect(l, client, client == CHAIN_WILL, client == CHAIN_PUB ? 0 : 60);
    else
        k->stopped = true;
}

void mqtt_chain_end(struct mqtt_life *l)
{
    if (!l->chain)
        return;
    chain_will_cut(l->chain);
    mqtt_guests_end(&l->all);
    l->chain = NULL;
}

void mqtt_chain_furnish(struct mqtt_chain *k, struct world *w)
{
    static struct mqtt_life l;
    memset(k, 0, sizeof *k);
    life_begin(k, &l, w);
    for (unsigned client = CHAIN_PUB; client <= CHAIN_B && !k->stopped; client++)
        if (connected(&l, client, false) && client != CHAIN_PUB) {
            static const char *const own[] = {[CHAIN_SUB] = "w/#", [CHAIN_A] = "e/a", [CHAIN_B] = "e/b"};
            subscribe(&l, client, client == CHAIN_SUB ? "t/#" : "$share/g/j/#", own[client], 2);
            (void)await(&l, client, MQTT_suback);
        }
    if (connected(&l, CHAIN_LOOK, true) && publish(&l, CHAIN_LOOK, STREAM_ANCHOR, false))
        (void)await(&l, CHAIN_LOOK, MQTT_puback);
    if (k->stopped)
        model_fault(w->model, "the sessions of MQTT's clients are not made");
    mqtt_chain_end(&l);
    memset(k->minds[CHAIN_LOOK].out, 0, sizeof k->minds[CHAIN_LOOK].out);
    k->minds[CHAIN_LOOK].out_count = 0;
}
