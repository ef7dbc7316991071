/* mqtt_words: what tests of MQTT in the core say: attach, subscribe, publish, acknowledge, and what comes back. */
#ifndef MILLRACE_CORE_MQTT_WORDS_TEST_H
#define MILLRACE_CORE_MQTT_WORDS_TEST_H

#include "core/broker_rig_test.h"

#define NOW 1700000000000LL
#define CODE(what) ((int)ERR_##what)

RIG_FN struct rig *begin_with(const struct broker_options *options)
{
    struct rig *rig = rig_new(rig_log_new(), options, NOW);
    for (uint32_t session = 1; session <= 4; session++) {
        assert_true(rig_open(rig, session));
        rig_plain(rig, CMD_CHANNEL_OPEN, session, 1, 0, 0);
        rig_plain(rig, CMD_CONFIRM_SELECT, session, 1, 0, 0);
    }
    rig_clear(rig);
    return rig;
}

RIG_FN struct rig *begin(void)
{
    return begin_with(NULL);
}

RIG_FN void end(struct rig *rig)
{
    struct rig_log *log = rig->log;
    rig_assert_replays(rig);
    rig_free(rig);
    rig_log_free(log);
}

RIG_FN void reopen(struct rig *rig, uint32_t session)
{
    assert_true(rig_open(rig, session));
    rig_plain(rig, CMD_CHANNEL_OPEN, session, 1, 0, 0);
    rig_plain(rig, CMD_CONFIRM_SELECT, session, 1, 0, 0);
    rig->seq[session][1] = 0;
}

/* The broker dies and starts again; ms is how long it was down. */
RIG_FN void restart(struct rig **rig, int64_t ms)
{
    struct rig_log *log = rig_log_copy((*rig)->log, (*rig)->log->count);
    struct rig *other = rig_new(log, &(*rig)->options, (*rig)->wall + ms);
    struct rig_log *old = (*rig)->log;
    log->store = old->store;
    log->is_copy = old->is_copy;
    old->is_copy = true;
    rig_free(*rig);
    rig_log_free(old);
    *rig = other;
    for (uint32_t session = 1; session <= 4; session++)
        reopen(other, session);
    rig_clear(other);
}

/* The code of the last answer of that kind; -1: there was none. *ret: its number. */
RIG_FN int answered(struct rig *rig, uint64_t *ret)
{
    const struct effect *e = NULL;
    for (unsigned i = 0; i < rig->effect_count; i++)
        if (rig->effects[i].type == EFF_ANSWER)
            e = &rig->effects[i];
    if (ret)
        *ret = e && e->answer ? e->answer->number : 0;
    return !e ? -1 : e->answer ? (int)e->answer->code : 0;
}

RIG_FN int attach_with(struct rig *rig, uint32_t session, const char *id, uint32_t expiry, uint32_t flags,
                       struct slice will)
{
    rig_clear(rig);
    if (!rig_ask_full(rig, CMD_MQTT_ATTACH, session, 1, id, NULL, "amq.topic", will, flags, expiry))
        return -1;
    return answered(rig, NULL);
}

/* Was there a session? */
RIG_FN bool attach(struct rig *rig, uint32_t session, const char *id, uint32_t expiry)
{
    uint64_t present;
    assert_int_equal(attach_with(rig, session, id, expiry, 0, (struct slice){0}), 0);
    (void)answered(rig, &present);
    rig_plain(rig, CMD_MQTT_RESUME, session, 1, 10, 0);
    assert_int_equal(answered(rig, NULL), 0);
    return present;
}

RIG_FN int subscribe_as(struct rig *rig, uint32_t session, const char *pattern, const char *group, unsigned options,
                        uint32_t identifier, uint32_t handle)
{
    struct ask *ask = ask_new(rig_text(pattern), rig_text(group), (struct slice){0}, (struct slice){0});
    if (!ask)
        return -1;
    ask->number = (uint64_t)options << 32 | identifier;
    rig_clear(rig);
    struct command *c = rig_command(rig, 0, CMD_MQTT_SUBSCRIBE, session, 1);
    c->ask = ask;
    c->number = handle;
    rig_step(rig);
    return answered(rig, NULL);
}

RIG_FN int subscribe(struct rig *rig, uint32_t session, const char *pattern, unsigned options)
{
    static uint32_t handle = 10;
    return subscribe_as(rig, session, pattern, NULL, options, 0, handle++);
}

RIG_FN int unsubscribe(struct rig *rig, uint32_t session, const char *pattern, const char *group)
{
    rig_clear(rig);
    if (!rig_ask(rig, CMD_MQTT_UNSUBSCRIBE, session, 1, pattern, group, NULL, (struct slice){0}, 0))
        return -1;
    uint64_t there;
    int code = answered(rig, &there);
    return code ? code : (int)there;
}

/* An AMQP table with one boolean or number, as a message's headers. */
RIG_FN struct slice header(const char *name, int value)
{
    static uint8_t raw[100];
    struct writer w = writer_of(raw, sizeof raw);
    if (value < 0)
        amqp_put_bool(&w, name, true);
    else
        amqp_put_long(&w, name, value);
    return writer_slice(&w);
}

RIG_FN bool publish_with(struct rig *rig, uint32_t session, const char *key, const char *body, unsigned qos,
                         uint32_t flags, uint16_t id, int expiration_ms)
{
    uint8_t raw[300];
    char text[20];
    struct amqp_props props = {.present = qos ? AMQP_DELIVERY_MODE : 0, .delivery_mode = qos ? 2 : 0};
    if (flags & ASK_RETAIN) {
        props.present |= AMQP_HEADERS;
        props.headers = header(MQTT_HEADER_RETAIN, -1);
    } else if (qos == 2) {
        props.present |= AMQP_HEADERS;
        props.headers = header(MQTT_HEADER_QOS, 2);
    }
    if (expiration_ms) {
        props.present |= AMQP_EXPIRATION;
        props.expiration = slice_of((uint8_t *)text, (size_t)snprintf(text, sizeof text, "%d", expiration_ms));
    }
    struct writer w = writer_of(raw, sizeof raw);
    amqp_props_write(&w, &props);
    struct slice bytes = slice_str(body);
    struct msg *msg = msg_new(broker_heap(rig->b), slice_str("amq.topic"), slice_str(key), writer_slice(&w), bytes.len);
    if (!msg)
        return false;
    if (bytes.len)
        memcpy(msg_body_room(msg), bytes.ptr, bytes.len);
    msg->flags = (uint8_t)((qos ? MSG_PERSISTENT : 0) | (props.headers.len ? MSG_HAS_HEADERS : 0));
    msg->expiration_ms = expiration_ms ? expiration_ms : -1;
    struct command *c = rig_command(rig, 0, CMD_PUBLISH, session, 1);
    c->msg = msg;
    c->number = ++rig->seq[session][1];
    c->flags = flags | ASK_SOFT;
    c->origin = id;
    rig_step(rig);
    return true;
}

RIG_FN void publish(struct rig *rig, uint32_t session, const char *key, const char *body, unsigned qos)
{
    assert_true(publish_with(rig, session, key, body, qos, 0, 0, 0));
}

RIG_FN void retain(struct rig *rig, uint32_t session, const char *key, const char *body)
{
    assert_true(publish_with(rig, session, key, body, 1, ASK_RETAIN, 0, 0));
}

/* What taps were told: "session:handle:body …", each message's members in order. */
RIG_FN const char *fanned(struct rig *rig)
{
    static char text[65536];
    size_t at = 0;
    text[0] = '\0';
    for (unsigned i = 0; i < rig->effect_count; i++) {
        const struct effect *e = &rig->effects[i];
        for (uint32_t n = 0; e->type == EFF_FANOUT && n < e->consumer; n++) {
            uint32_t session, handle;
            if (!audience_member(e->audience, n, &session, &handle))
                continue;
            at += (size_t)snprintf(text + at, sizeof text - at, "%s%u:%u:%s", at ? " " : "", session, handle,
                                   rig_body(e));
        }
    }
    return text;
}

RIG_FN void leave(struct rig *rig, uint32_t session)
{
    rig_clear(rig);
    rig_plain(rig, CMD_SESSION_CLOSE, session, 0, 0, 0);
    reopen(rig, session);
}

RIG_FN void disconnect(struct rig *rig, uint32_t session, uint32_t expiry, uint32_t flags)
{
    rig_clear(rig);
    rig_plain(rig, CMD_MQTT_DETACH, session, 1, expiry, flags);
    rig_plain(rig, CMD_SESSION_CLOSE, session, 0, 0, 0);
    reopen(rig, session);
}

/* Acknowledges the n-th delivery that is kept, from 0. */
RIG_FN void acknowledge(struct rig *rig, uint32_t session, unsigned n)
{
    struct effect *e = rig_nth(rig, EFF_DELIVER, n);
    assert_non_null(e);
    rig_plain(rig, CMD_ACK, session, 1, e->number, 0);
}

RIG_FN void release(struct rig *rig, uint32_t session, uint64_t tag, uint16_t id)
{
    struct command *c = rig_command(rig, 0, CMD_ACK, session, 1);
    c->number = tag;
    c->flags = ASK_RELEASING;
    c->origin = id;
    rig_step(rig);
}

RIG_FN struct mqtt_client *the_client(struct rig *rig, const char *id)
{
    return mqtt_client_find(vhost_find(rig->b, slice_str("/")), slice_str(id));
}

RIG_FN struct slice will(const char *key, const char *body, uint32_t delay, uint8_t flags)
{
    static uint8_t raw[300];
    struct writer w = writer_of(raw, sizeof raw);
    writer_u8(&w, flags);
    writer_u32(&w, delay);
    writer_str8(&w, slice_str(key));
    uint8_t props[] = {AMQP_DELIVERY_MODE >> 8, 0, 2};
    writer_str32(&w, slice_of(props, sizeof props));
    writer_slice_put(&w, slice_str(body));
    assert_true(writer_ok(&w));
    return writer_slice(&w);
}

RIG_FN void compact_all(struct rig *rig)
{
    uint64_t before = rig->b->totals.compactions;
    compact_start(rig->b);
    for (unsigned i = 0; i < 10000 && rig->b->totals.compactions == before; i++)
        rig_pass(rig, 5);
    assert_true(rig->b->totals.compactions > before);
}

#endif
