/* The MQTT clients, see mqtt_guest.h. They speak through the broker's own tables: that they are right is checked elsewhere. */
#include "mqtt_guest.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"

#define ROOM (1u << 18)
#define TURNS_MAX 200

void mqtt_guests_begin(struct mqtt_guests *all, struct world *w)
{
    memset(all, 0, sizeof *all);
    all->w = w;
    all->options = mqtt_options_default();
    all->options.totals = &all->totals;
    all->options.handshake_ms = 3600 * 1000; /* the clock jumps, see share_chain.c */
    for (size_t i = 0; i < ARRAY_LEN(all->guests); i++) {
        struct mqtt_guest *g = &all->guests[i];
        g->all = all;
        g->in = malloc(ROOM);
        g->out = malloc(ROOM);
        if (!g->in || !g->out)
            abort();
    }
}

void mqtt_guest_lose(struct mqtt_guest *g)
{
    if (g->engine)
        g->engine->ops->closed(g->engine);
    g->engine = NULL;
}

void mqtt_guests_end(struct mqtt_guests *all)
{
    for (size_t i = 0; i < ARRAY_LEN(all->guests); i++) {
        mqtt_guest_lose(&all->guests[i]);
        free(all->guests[i].in);
        free(all->guests[i].out);
    }
    mqtt_sys_close(&all->sys);
}

bool mqtt_guest_open(struct mqtt_guest *g, uint8_t version)
{
    struct world *w = g->all->w;
    mqtt_guest_lose(g);
    g->in_len = g->out_len = g->token_len = 0;
    g->version = version;
    g->refused = 0;
    memset(g->seen, 0, sizeof g->seen);
    memset(g->aliases, 0, sizeof g->aliases);
    g->engine = mqtt_new(&g->all->options, w->hub, "127.0.0.1:3", true, w->os->now_mono(w->os));
    return g->engine != NULL;
}

void mqtt_guest_send(struct mqtt_guest *g, enum mqtt_type type, const union mqtt_fields *f)
{
    struct writer w = writer_of(g->in + g->in_len, ROOM - g->in_len);
    mqtt_encode(&w, type, g->version, f);
    if (!writer_ok(&w))
        abort();
    g->in_len += w.len;
}

/* ---- what comes ---- */

static void say(struct mqtt_guest *g, enum mqtt_type type, uint16_t id)
{
    union mqtt_fields f = {.ack = {.id = id}};
    mqtt_guest_send(g, type, &f);
}

/* The place of that id among those that are received; NULL: it is not there. */
static uint16_t *received(struct mqtt_guest *g, uint16_t id)
{
    for (size_t i = 0; i < ARRAY_LEN(g->received); i++)
        if (g->received[i] == id)
            return &g->received[i];
    return NULL;
}

static struct slice topic_of(struct mqtt_guest *g, const struct mqtt_publish_fields *f)
{
    uint16_t alias = f->props.topic_alias;
    if (!mqtt_has(&f->props, MQTT_P_topic_alias))
        return f->topic;
    if (!alias || alias > MQTT_GUEST_ALIASES) {
        model_fault(g->all->w->model, "a topic alias of %u", alias);
        return f->topic;
    }
    if (f->topic.len)
        snprintf(g->aliases[alias - 1], sizeof g->aliases[0], "%.*s", SLICE_ARG(f->topic));
    return slice_str(g->aliases[alias - 1]);
}

static void on_message(struct mqtt_guest *g, const struct mqtt_publish_fields *f)
{
    struct mqtt_guests *all = g->all;
    struct slice topic = topic_of(g, f);
    if (slice_starts(topic, "$SYS/")) {
        g->sys++;
        return;
    }
    unsigned letter = f->payload.len == 1 ? f->payload.ptr[0] % MQTT_LETTERS : 0;
    if (!slice_is(topic, all->sent[letter].topic) || f->qos > all->sent[letter].qos)
        model_fault(all->w->model, "message %u comes from %.*s with QoS %u", letter, SLICE_ARG(topic), f->qos);
    else if (++g->got[letter] > 1 && f->qos == 2)
        model_fault(all->w->model, "message %u of QoS 2 comes again", letter);
}

static void on_publish(struct mqtt_guest *g, const struct mqtt_publish_fields *f)
{
    if (f->qos == 2 && received(g, f->id)) {
        say(g, MQTT_pubrec, f->id);
        return;
    }
    on_message(g, f);
    if (f->qos == 1)
        say(g, MQTT_puback, f->id);
    if (f->qos < 2)
        return;
    uint16_t *free_place = received(g, 0);
    if (!free_place)
        abort();
    *free_place = f->id;
    say(g, MQTT_pubrec, f->id);
}

static void on_token(struct mqtt_guest *g, struct slice token)
{
    if (token.len > sizeof g->token)
        abort();
    g->token_len = token.len;
    if (token.len)
        memcpy(g->token, token.ptr, token.len);
}

static void on_packet(struct mqtt_guest *g, const struct mqtt_frame *frame)
{
    union mqtt_fields f;
    uint16_t *place;
    uint8_t fault = mqtt_decode(frame, g->version, MQTT_SERVER, &f);
    if (fault) {
        model_fault(g->all->w->model, "packet %u of the broker is wrong: %x", frame->type, fault);
        return;
    }
    if (g->heard) {
        g->seen[frame->type]++;
        g->heard(g, (enum mqtt_type)frame->type, &f);
        return;
    }
    switch ((enum mqtt_type)frame->type) {
    case MQTT_connack:
        g->present = f.connack.session_present;
        g->refused += f.connack.reason != 0;
        if (mqtt_has(&f.connack.props, MQTT_P_auth_data))
            on_token(g, f.connack.props.auth_data);
        break;
    case MQTT_auth: on_token(g, f.end.props.auth_data); break;
    case MQTT_publish: on_publish(g, &f.publish); break;
    case MQTT_puback:
    case MQTT_pubcomp: g->refused += f.ack.reason >= 0x80; break;
    case MQTT_pubrec:
        g->refused += f.ack.reason >= 0x80;
        if (f.ack.reason < 0x80)
            say(g, MQTT_pubrel, f.ack.id);
        break;
    case MQTT_pubrel:
        if ((place = received(g, f.ack.id)))
            *place = 0;
        if (!g->keeps_pubcomp)
            say(g, MQTT_pubcomp, f.ack.id);
        break;
    case MQTT_suback:
    case MQTT_unsuback:
        for (size_t i = 0; i < f.list.list.len; i++)
            g->refused += f.list.list.ptr[i] >= 0x80;
        break;
    default: break;
    }
    g->seen[frame->type]++;
}

/* ---- rounds ---- */

static bool take_out(struct mqtt_guest *g)
{
    struct outq *q = &g->engine->out;
    struct mqtt_frame frame;
    size_t at = 0;
    while (q->len) {
        struct iovec v;
        (void)outq_peek(q, &v, 1);
        if (v.iov_len > ROOM - g->out_len)
            abort();
        memcpy(g->out + g->out_len, v.iov_base, v.iov_len);
        g->out_len += v.iov_len;
        outq_consume(q, v.iov_len);
    }
    while (mqtt_cut(slice_of(g->out + at, g->out_len - at), SIZE_MAX, &frame) == MQTT_CUT_OK) {
        on_packet(g, &frame);
        at += frame.len;
    }
    memmove(g->out, g->out + at, g->out_len - at);
    g->out_len -= at;
    return !q->failed && !g->engine->want_close;
}

static void guest_turn(struct mqtt_guest *g, mono_t now)
{
    struct engine *engine = g->engine;
    if (!engine)
        return;
    engine->now = now;
    if (engine->next_tick <= now)
        engine->ops->tick(engine, now);
    if (g->in_len && !engine->paused && !engine->want_close) {
        size_t used = engine->ops->feed(engine, slice_of(g->in, g->in_len));
        memmove(g->in, g->in + used, g->in_len - used);
        g->in_len -= used;
    }
    bool said = engine->out.len > 0;
    if (!take_out(g))
        mqtt_guest_lose(g);
    else if (said)
        engine->ops->drained(engine);
}

void mqtt_guests_turn(struct mqtt_guests *all)
{
    struct world *w = all->w;
    world_turn(w);
    mono_t now = w->os->now_mono(w->os);
    for (size_t i = 0; i < ARRAY_LEN(all->guests); i++)
        guest_turn(&all->guests[i], now);
    if (all->sys)
        (void)mqtt_sys_turn(all->sys, now);
}

bool mqtt_guest_await(struct mqtt_guest *g, const unsigned *count, unsigned least)
{
    const struct world *w = g->all->w;
    for (unsigned i = 0; i < TURNS_MAX && *count < least; i++) {
        if (!g->engine || w->dead || w->model->wrong[0])
            return false;
        mqtt_guests_turn(g->all);
    }
    return *count >= least && !w->model->wrong[0];
}
