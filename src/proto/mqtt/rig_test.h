/* rig: engines of MQTT with a hub, a pair of rings and a core that is played here: it answers "yes", or what a test puts into the rig.
 *
 * What the engine said stands in `said`, a line for each packet: name/flags, then its bytes, text where they are text and \xNN else;
 * what it asked of the core in `commands`.
 */
#ifndef MILLRACE_PROTO_MQTT_RIG_TEST_H
#define MILLRACE_PROTO_MQTT_RIG_TEST_H

#include "base/mem.h"
#include "proto/mqtt/mapping.h"
#include "proto/mqtt/mqtt_int.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define RIG_FN __attribute__((unused)) static
#define RIG_TEXT_MAX 200000u
#define RIG_IN_MAX (1u << 20)

struct rig {
    struct mqtt_totals totals;
    struct mqtt_options options;
    struct port port;
    struct slab_heap heap;
    struct hub *hub;
    struct engine *engine;
    struct list dirty;
    mono_t now;
    lsn_t durable, lsn; /* lsn: of the answers of what the core would write down */
    uint8_t *in, *out;
    size_t in_len, out_len;
    char *said, *commands;
    bool closed;
    bool keep_confirms; /* the test says when publishes are confirmed */
    bool keep_answers;  /* … and when the rest is answered */
    enum error_code refuse_login, refuse_attach, refuse_subscribe;
    uint8_t confirm_flags;
    uint64_t number;       /* of answers: whether it was there */
    struct slice fields;   /* of ATTACH's answer */
    struct slice keys;     /* of SCRAM's: a nonce, then keys as text */
    const char *name;      /* of ATTACH's answer */
    struct msg *published; /* the last one */
    size_t memory;         /* in use before */
};

RIG_FN void rig_print(char *to, const char *format, ...) __attribute__((format(printf, 2, 3)));
RIG_FN void rig_print(char *to, const char *format, ...)
{
    size_t len = strlen(to);
    va_list args;
    va_start(args, format);
    vsnprintf(to + len, RIG_TEXT_MAX - len, format, args);
    va_end(args);
}

RIG_FN void rig_print_bytes(char *to, struct slice s)
{
    for (size_t i = 0; i < s.len && i < 1000; i++)
        rig_print(to, s.ptr[i] >= ' ' && s.ptr[i] < 127 && s.ptr[i] != '\\' ? "%c" : "\\x%02x", s.ptr[i]);
}

/* ---- packets out ---- */

RIG_FN void rig_take_out(struct rig *rig)
{
    struct outq *q = &rig->engine->out;
    while (q->len) {
        struct iovec v[8];
        int n = outq_peek(q, v, 8);
        size_t sum = 0;
        for (int i = 0; i < n; i++) {
            assert_true(rig->out_len + v[i].iov_len <= RIG_IN_MAX);
            memcpy(rig->out + rig->out_len, v[i].iov_base, v[i].iov_len);
            rig->out_len += v[i].iov_len;
            sum += v[i].iov_len;
        }
        outq_consume(q, sum);
    }
    struct mqtt_frame frame;
    size_t at = 0;
    while (mqtt_cut(slice_of(rig->out + at, rig->out_len - at), SIZE_MAX, &frame) == MQTT_CUT_OK) {
        union mqtt_fields f;
        const struct mqtt *m = CONTAINER_OF(rig->engine, struct mqtt, session.engine);
        uint8_t version = m->version ? m->version : MQTT_3_1_1;
        assert_int_equal(mqtt_decode(&frame, version, MQTT_SERVER, &f), 0); /* we say nothing that we would not take */
        rig_print(rig->said, "%s/%x ", mqtt_rows[frame.type].name, frame.flags);
        rig_print_bytes(rig->said, frame.body);
        rig_print(rig->said, "\n");
        at += frame.len;
    }
    memmove(rig->out, rig->out + at, rig->out_len - at);
    rig->out_len -= at;
}

/* ---- the core ---- */

static const char *const rig_names[] = {
    "NONE",
#define COMMAND(name, handler, needs_channel, carries) #name,
#include "core/commands.def"
#undef COMMAND
};

RIG_FN bool rig_has_ask(const struct command *c)
{
    switch ((enum command_type)c->type) {
    case CMD_SESSION_OPEN:
    case CMD_LOGIN:
    case CMD_SCRAM:
    case CMD_ENTER:
    case CMD_MQTT_ATTACH:
    case CMD_MQTT_SUBSCRIBE:
    case CMD_MQTT_UNSUBSCRIBE:
    case CMD_MQTT_RETAINED: return true;
    default: return false;
    }
}

RIG_FN struct effect *rig_effect(struct rig *rig, enum effect_type type, uint32_t session)
{
    struct effect *e = ring_push(&rig->port.effects);
    assert_non_null(e);
    *e = (struct effect){.type = (uint8_t)type, .session = session, .channel = 1};
    return e;
}

RIG_FN struct answer *rig_answer(enum error_code code, const char *name, struct slice fields, uint64_t number)
{
    size_t n = strlen(name);
    struct answer *answer = mem_alloc(sizeof *answer + n + fields.len);
    if (!answer)
        return NULL;
    *answer = (struct answer){.code = code, .number = number};
    memcpy(answer->bytes, name, n);
    if (fields.len)
        memcpy(answer->bytes + n, fields.ptr, fields.len);
    answer->name = slice_of(answer->bytes, n);
    answer->fields = slice_of(answer->bytes + n, fields.len);
    return answer;
}

RIG_FN void rig_print_command(struct rig *rig, const struct command *c)
{
    rig_print(rig->commands, "%s", rig_names[c->type]);
    if (c->type == CMD_PUBLISH) {
        rig_print(rig->commands, " #%llu k=", (unsigned long long)c->number);
        rig_print_bytes(rig->commands, msg_key(c->msg));
        rig_print(rig->commands, " flags=%x id=%u exp=%lld props=", c->flags, c->origin & 0xffff,
                  (long long)c->msg->expiration_ms);
        rig_print_bytes(rig->commands, msg_props(c->msg));
        rig_print(rig->commands, " body=");
        rig_print_bytes(rig->commands, msg_body(c->msg));
    } else if (rig_has_ask(c)) {
        rig_print(rig->commands, " name=");
        rig_print_bytes(rig->commands, c->ask->name);
        rig_print(rig->commands, " other=");
        rig_print_bytes(rig->commands, c->ask->other);
        rig_print(rig->commands, " key=");
        rig_print_bytes(rig->commands, c->ask->key);
        rig_print(rig->commands, " args=");
        rig_print_bytes(rig->commands, c->ask->args);
        rig_print(rig->commands, " ask=%llx number=%llx flags=%x", (unsigned long long)c->ask->number,
                  (unsigned long long)c->number, c->ask->flags);
    } else {
        rig_print(rig->commands, " number=%llu flags=%x origin=%x", (unsigned long long)c->number, c->flags, c->origin);
    }
    rig_print(rig->commands, "\n");
}

RIG_FN bool rig_is_durable(uint8_t type)
{
    return type == CMD_MQTT_ATTACH || type == CMD_MQTT_SUBSCRIBE || type == CMD_MQTT_UNSUBSCRIBE ||
           type == CMD_MQTT_RELEASED || type == CMD_MQTT_COMPLETED || type == CMD_ACK;
}

RIG_FN void rig_answer_command(struct rig *rig, const struct command *c)
{
    struct effect *e;
    struct slice none = {0};
    if (c->type == CMD_SESSION_CLOSE) {
        rig_effect(rig, EFF_SESSION_CLOSED, c->session)->channel = 0;
        return;
    }
    if (c->type == CMD_SESSION_OPEN || c->type == CMD_CREDIT || (c->type == CMD_ACK && !(c->flags & ASK_RELEASING)))
        return;
    if (c->type == CMD_PUBLISH) {
        if (rig->keep_confirms)
            return;
        e = rig_effect(rig, EFF_CONFIRM, c->session);
        e->number = c->number;
        e->bytes = msg_size(c->msg);
        e->lsn = rig->lsn;
        e->flags = rig->confirm_flags;
        return;
    }
    if (rig->keep_answers && c->type >= CMD_MQTT_ATTACH)
        return;
    bool login = c->type == CMD_LOGIN && rig->refuse_login;
    e = rig_effect(rig, login ? EFF_ERROR : EFF_ANSWER, c->session);
    e->origin = c->origin;
    if (rig_is_durable(c->type))
        e->lsn = rig->lsn;
    if (login)
        e->answer = rig_answer(rig->refuse_login, "", none, 0);
    else if (c->type == CMD_MQTT_ATTACH)
        e->answer = rig_answer(rig->refuse_attach, rig->name, rig->fields, rig->number);
    else if (c->type == CMD_SCRAM)
        e->answer = rig_answer(ERR_NONE, "", rig->keys, 0);
    else if (c->type == CMD_MQTT_SUBSCRIBE && rig->refuse_subscribe)
        e->answer = rig_answer(rig->refuse_subscribe, "", none, 0);
    else if (rig->number)
        e->answer = rig_answer(ERR_NONE, "", none, rig->number);
}

RIG_FN bool rig_core(struct rig *rig)
{
    bool any = false;
    hub_publish(rig->hub);
    struct command *c;
    while ((c = ring_peek(&rig->port.commands)) && ring_room(&rig->port.effects) > 2) {
        struct command taken = *c;
        ring_pop(&rig->port.commands);
        any = true;
        rig_print_command(rig, &taken);
        rig_answer_command(rig, &taken);
        if (taken.type == CMD_PUBLISH) {
            if (rig->published)
                msg_unref(&rig->heap, rig->published);
            rig->published = taken.msg;
        } else if (rig_has_ask(&taken)) {
            mem_free(taken.ask);
        }
    }
    ring_publish(&rig->port.effects);
    return any;
}

/* ---- driving ---- */

RIG_FN void rig_close(struct rig *rig)
{
    if (rig->closed)
        return;
    rig_take_out(rig);
    rig->closed = true;
    rig->engine->ops->closed(rig->engine);
    rig->engine = NULL;
}

RIG_FN bool rig_turn(struct rig *rig)
{
    bool moved = rig_core(rig);
    hub_turn(rig->hub, rig->durable, rig->now);
    moved |= ring_dirty(&rig->port.commands);
    if (rig->closed)
        return moved;
    struct engine *engine = rig->engine;
    engine->now = rig->now;
    while (!list_empty(&rig->dirty))
        list_remove(rig->dirty.next);
    engine->in_dirty = false;
    if (engine->next_tick <= rig->now)
        engine->ops->tick(engine, rig->now);
    if (rig->in_len && !engine->paused && !engine->want_close) {
        size_t used = engine->ops->feed(engine, slice_of(rig->in, rig->in_len));
        memmove(rig->in, rig->in + used, rig->in_len - used);
        rig->in_len -= used;
        moved |= used > 0;
    }
    if (engine->out.len && !engine->out.failed) {
        rig_take_out(rig);
        engine->ops->drained(engine);
        moved = true;
    }
    if (engine->want_close || engine->out.failed) {
        rig_close(rig);
        moved = true;
    }
    return moved;
}

RIG_FN void rig_settle(struct rig *rig)
{
    for (int i = 0; i < 10000 && rig_turn(rig); i++)
        ;
}

RIG_FN void rig_bytes(struct rig *rig, const void *bytes, size_t len)
{
    assert_true(rig->in_len + len <= RIG_IN_MAX);
    memcpy(rig->in + rig->in_len, bytes, len);
    rig->in_len += len;
}
#define RIG_BYTES(rig, bytes) rig_bytes(rig, bytes, sizeof(bytes) - 1)

RIG_FN void rig_packet(struct rig *rig, enum mqtt_type type, uint8_t version, const union mqtt_fields *f)
{
    struct writer w = writer_of(rig->in + rig->in_len, RIG_IN_MAX - rig->in_len);
    mqtt_encode(&w, type, version, f);
    assert_true(writer_ok(&w));
    rig->in_len += w.len;
}

RIG_FN void rig_clear(struct rig *rig)
{
    rig->said[0] = rig->commands[0] = '\0';
}

/* What the engine has said since the last time, exactly. */
RIG_FN void rig_said(struct rig *rig, const char *want)
{
    rig_settle(rig);
    assert_string_equal(rig->said, want);
    rig->said[0] = '\0';
}

RIG_FN void rig_asked(struct rig *rig, const char *want)
{
    assert_string_equal(rig->commands, want);
    rig->commands[0] = '\0';
}

RIG_FN struct mqtt *rig_mqtt(struct rig *rig)
{
    return CONTAINER_OF(rig->engine, struct mqtt, session.engine);
}

RIG_FN struct rig *rig_new(void)
{
    struct rig *rig = calloc(1, sizeof *rig);
    assert_non_null(rig);
    rig->memory = mem_in_use();
    rig->now = 1000 * NS_PER_S;
    rig->closed = true;
    rig->name = "";
    list_init(&rig->dirty);
    slab_heap_init(&rig->heap);
    rig->options = mqtt_options_default();
    rig->options.totals = &rig->totals;
    rig->in = malloc(RIG_IN_MAX);
    rig->out = malloc(RIG_IN_MAX);
    rig->said = calloc(1, RIG_TEXT_MAX);
    rig->commands = calloc(1, RIG_TEXT_MAX);
    assert_true(ring_init(&rig->port.commands, 1024, sizeof(struct command)));
    assert_true(ring_init(&rig->port.effects, 8192, sizeof(struct effect)));
    rig->hub = hub_new(&rig->port, &rig->heap, 16);
    assert_non_null(rig->hub);
    return rig;
}

RIG_FN void rig_open(struct rig *rig)
{
    assert_true(rig->closed);
    rig->in_len = rig->out_len = 0;
    rig->engine = mqtt_new(&rig->options, rig->hub, "127.0.0.1:5", true, rig->now);
    assert_non_null(rig->engine);
    rig->closed = false;
    rig->engine->dirty = &rig->dirty;
    rig->engine->ops->tick(rig->engine, rig->now);
}

RIG_FN void rig_free(struct rig *rig)
{
    rig_close(rig);
    rig->keep_answers = rig->keep_confirms = false;
    rig_settle(rig);
    if (rig->published)
        msg_unref(&rig->heap, rig->published);
    hub_free(&rig->hub);
    ring_fini(&rig->port.commands);
    ring_fini(&rig->port.effects);
    slab_heap_fini(&rig->heap);
    free(rig->in);
    free(rig->out);
    free(rig->said);
    free(rig->commands);
    size_t memory = rig->memory;
    free(rig);
    assert_int_equal(mem_in_use(), memory); /* nothing was lost */
}

/* Connected as client "c" of that version, and nothing recorded. */
RIG_FN struct rig *rig_ready(uint8_t version)
{
    struct rig *rig = rig_new();
    union mqtt_fields f = {.connect = {.protocol = slice_str(version == MQTT_3_1 ? "MQIsdp" : "MQTT"),
                                       .version = version,
                                       .clean = true,
                                       .client_id = slice_str("c")}};
    rig_open(rig);
    rig_packet(rig, MQTT_connect, version, &f);
    rig_settle(rig);
    assert_int_equal(rig_mqtt(rig)->state, MQTT_IS_READY);
    rig_clear(rig);
    return rig;
}

/* A message as an AMQP or MQTT client has published it. */
RIG_FN struct msg *rig_message(struct rig *rig, const char *key, uint8_t qos, bool retain, const char *body)
{
    struct mqtt_given given;
    struct mqtt_props none = {.present = 0};
    assert_int_equal(mqtt_given_make(&given, qos, retain, &none), 0);
    struct msg *msg = msg_new(&rig->heap, slice_str("amq.topic"), slice_str(key), given.raw, strlen(body));
    assert_non_null(msg);
    msg->flags = given.flags;
    msg->expiration_ms = -1;
    memcpy(msg_body_room(msg), body, strlen(body));
    mqtt_given_fini(&given);
    return msg;
}

RIG_FN void rig_deliver(struct rig *rig, uint32_t consumer, uint64_t tag, uint64_t position, uint8_t flags,
                        struct msg *msg)
{
    struct effect *e = rig_effect(rig, EFF_DELIVER, rig_mqtt(rig)->session.number);
    e->consumer = consumer;
    e->number = tag;
    e->count = position;
    e->flags = flags;
    e->msg = msg;
    ring_publish(&rig->port.effects);
}

RIG_FN void rig_fanout(struct rig *rig, uint32_t handle, uint64_t from, struct msg *msg)
{
    struct audience_part *part = mem_alloc_as(MEM_CONNECTIONS, sizeof *part + sizeof part->members[0]);
    assert_non_null(part);
    *part = (struct audience_part){.refs = 1, .count = 1, .max = 1};
    part->members[0] = (uint64_t)rig_mqtt(rig)->session.number << 32 | handle;
    struct effect *e = rig_effect(rig, EFF_FANOUT, 0);
    e->audience = part;
    e->consumer = 1;
    e->number = from;
    e->msg = msg;
    ring_publish(&rig->port.effects);
}

#endif
