/* rig: an engine on a table: bytes in, lines of text out, and a small core that answers through the port's rings.
 *
 * For this folder's tests and micro benchmark only. The fake core knows no queues; it records every command as a line and
 * answers it as a healthy broker would (`answers` false: not at all). Frames that leave become lines like
 * "1 queue.declare_ok queue=hello message_count=0 consumer_count=0", "1 header 60 size=5 props=1000 02", "1 body hello".
 */
#ifndef MILLRACE_PROTO_AMQP091_RIG_TEST_H
#define MILLRACE_PROTO_AMQP091_RIG_TEST_H

#include "base/mem.h"
#include "base/reader.h"
#include "fmt/amqp_table.h"
#include "proto/amqp091/amqp091_int.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define RIG_FN static __attribute__((unused))
#define RIG_TEXT_MAX (1u << 20)
#define RIG_IN_MAX (1u << 20)

struct rig {
    struct port port;
    struct slab_heap heap;
    struct hub *hub;
    struct amqp091_options options;
    struct engine *engine;
    struct list dirty;
    lsn_t durable;
    mono_t now;
    bool closed;
    bool answers; /* the fake core answers */
    bool refuse_login;
    bool keep_confirms; /* publishes are not confirmed by themselves */
    lsn_t answer_lsn;   /* what declares wait for */
    uint32_t next_consumer;
    uint64_t confirming; /* bit per channel below 64 that is in confirm mode */
    uint8_t *in;
    size_t in_len;
    char *said;             /* frames that left, one per line */
    char *commands;         /* what the core was asked, one per line */
    struct slice bytes_out; /* not parsed yet */
    uint8_t *out_room;
    size_t out_len;
    bool raw; /* do not parse what leaves: only drop it */
};

RIG_FN void rig_print(char *to, const char *format, ...) __attribute__((format(printf, 2, 3)));
RIG_FN void rig_print(char *to, const char *format, ...)
{
    size_t at = strlen(to);
    va_list args;
    va_start(args, format);
    vsnprintf(to + at, RIG_TEXT_MAX - at, format, args);
    va_end(args);
}

RIG_FN void rig_print_bytes(char *to, struct slice s)
{
    bool text = true;
    for (size_t i = 0; i < s.len; i++)
        text = text && isprint(s.ptr[i]);
    if (s.len > 64)
        rig_print(to, "[%zu]", s.len);
    else if (text)
        rig_print(to, "%.*s", SLICE_ARG(s));
    else
        for (size_t i = 0; i < s.len; i++)
            rig_print(to, "%02x", s.ptr[i]);
}

/* ---- what leaves ---- */

RIG_FN void rig_print_method(char *to, const struct amqp091_row *row, const void *fields)
{
    rig_print(to, "%s", row->name);
    for (unsigned i = 0; i < row->field_count; i++) {
        const void *at = (const uint8_t *)fields + row->fields[i].at;
        rig_print(to, " %s=", row->fields[i].name);
        switch ((enum amqp091_field_type)row->fields[i].type) {
        case AMQP091_bit: rig_print(to, "%d", *(const bool *)at); break;
        case AMQP091_octet: rig_print(to, "%u", *(const uint8_t *)at); break;
        case AMQP091_short: rig_print(to, "%u", *(const uint16_t *)at); break;
        case AMQP091_long: rig_print(to, "%u", *(const uint32_t *)at); break;
        case AMQP091_longlong: rig_print(to, "%llu", (unsigned long long)*(const uint64_t *)at); break;
        case AMQP091_shortstr:
        case AMQP091_longstr: rig_print(to, "%.*s", SLICE_ARG(*(const struct slice *)at)); break;
        case AMQP091_table: rig_print(to, "{%zu}", ((const struct slice *)at)->len); break;
        }
    }
}

RIG_FN void rig_print_frame(char *to, uint8_t type, uint16_t channel, struct slice payload)
{
    rig_print(to, "%u ", channel);
    struct reader r = reader_of(payload);
    if (type == FRAME_METHOD) {
        uint16_t class_id = reader_u16(&r), method_id = reader_u16(&r);
        const struct amqp091_row *row = amqp091_row_find(class_id, method_id);
        union amqp091_fields f;
        if (!row || !(row->who & AMQP091_SERVER) || !amqp091_decode(row, reader_rest(&r), &f))
            rig_print(to, "BAD METHOD %u.%u", class_id, method_id);
        else
            rig_print_method(to, row, &f);
    } else if (type == FRAME_HEADER) {
        uint16_t class_id = reader_u16(&r);
        reader_u16(&r);
        rig_print(to, "header %u size=%llu props=", class_id, (unsigned long long)reader_u64(&r));
        struct slice props = reader_rest(&r);
        for (size_t i = 0; i < props.len; i++)
            rig_print(to, "%02x", props.ptr[i]);
    } else if (type == FRAME_BODY) {
        rig_print(to, "body ");
        rig_print_bytes(to, payload);
    } else {
        rig_print(to, type == FRAME_HEARTBEAT ? "heartbeat" : "BAD TYPE");
    }
    rig_print(to, "\n");
}

RIG_FN void rig_take_out(struct rig *rig)
{
    struct outq *q = &rig->engine->out;
    while (q->len) {
        struct iovec v[8];
        int n = outq_peek(q, v, 8);
        size_t sum = 0;
        for (int i = 0; i < n; i++) {
            if (!rig->raw) {
                if (rig->out_len + v[i].iov_len > RIG_IN_MAX)
                    abort();
                memcpy(rig->out_room + rig->out_len, v[i].iov_base, v[i].iov_len);
                rig->out_len += v[i].iov_len;
            }
            sum += v[i].iov_len;
        }
        outq_consume(q, sum);
    }
    struct reader r = reader_of(slice_of(rig->out_room, rig->out_len));
    while (r.left >= FRAME_OVERHEAD) {
        if (memcmp(r.at, "AMQP", 4) == 0) {
            reader_take(&r, 8);
            rig_print(rig->said, "protocol header\n");
            continue;
        }
        struct reader frame = r;
        uint8_t type = reader_u8(&frame);
        uint16_t channel = reader_u16(&frame);
        struct slice payload = reader_str32(&frame);
        if (reader_u8(&frame) != FRAME_END)
            rig_print(rig->said, "BAD FRAME END\n");
        if (!reader_ok(&frame))
            break;
        rig_print_frame(rig->said, type, channel, payload);
        r = frame;
    }
    memmove(rig->out_room, r.at, r.left);
    rig->out_len = r.left;
}

/* ---- the fake core ---- */

static const char *const rig_command_names[] = {
    "NONE",
#define COMMAND(name, handler, needs_channel, carries) #name,
#include "core/commands.def"
#undef COMMAND
};

RIG_FN struct effect *rig_effect(struct rig *rig, enum effect_type type, uint32_t session, uint16_t channel)
{
    struct effect *e = ring_push(&rig->port.effects);
    if (!e)
        abort();
    *e = (struct effect){.type = (uint8_t)type, .session = session, .channel = channel};
    return e;
}

/* The block's slices are never freed one by one. NULL stays NULL without memory, as in the core. */
RIG_FN struct answer *rig_answer(enum error_code code, const char *text, struct slice name)
{
    size_t n = strlen(text);
    struct answer *answer = mem_alloc(sizeof *answer + n + name.len);
    if (!answer)
        return NULL;
    *answer = (struct answer){.code = code};
    memcpy(answer->bytes, text, n);
    if (name.len)
        memcpy(answer->bytes + n, name.ptr, name.len);
    answer->text = slice_of(answer->bytes, n);
    answer->name = slice_of(answer->bytes + n, name.len);
    return answer;
}

RIG_FN void rig_print_command(struct rig *rig, const struct command *c, const struct ask *ask)
{
    rig_print(rig->commands, "%u %s", c->channel, rig_command_names[c->type]);
    if (c->type == CMD_PUBLISH) {
        rig_print(rig->commands,
                  " #%llu x=%.*s k=%.*s flags=%u prio=%u exp=%lld props=%u body=", (unsigned long long)c->number,
                  SLICE_ARG(msg_exchange(c->msg)), SLICE_ARG(msg_key(c->msg)), c->msg->flags, c->msg->priority,
                  (long long)c->msg->expiration_ms, c->msg->props_len);
        rig_print_bytes(rig->commands, msg_body(c->msg));
    } else if (ask) {
        rig_print(rig->commands, " name=%.*s other=", SLICE_ARG(ask->name));
        rig_print_bytes(rig->commands, ask->other);
        rig_print(rig->commands, " key=%.*s args=%zu flags=%x", SLICE_ARG(ask->key), ask->args.len, ask->flags);
    } else {
        rig_print(rig->commands, " number=%llu flags=%x", (unsigned long long)c->number, c->flags);
    }
    rig_print(rig->commands, "\n");
}

RIG_FN void rig_answer_command(struct rig *rig, const struct command *c, const struct ask *ask)
{
    struct effect *e;
    if (c->type == CMD_CHANNEL_OPEN)
        rig->confirming &= ~(UINT64_C(1) << (c->channel & 63));
    if (c->type == CMD_CONFIRM_SELECT)
        rig->confirming |= UINT64_C(1) << (c->channel & 63);
    switch ((enum command_type)c->type) {
    case CMD_SESSION_OPEN:
    case CMD_CREDIT:
    case CMD_ACK:
    case CMD_NACK: return;
    case CMD_PUBLISH:
        if (rig->keep_confirms)
            return;
        e = rig_effect(rig, EFF_CONFIRM, c->session, c->channel);
        e->number = c->number;
        e->bytes = msg_size(c->msg);
        e->lsn = rig->answer_lsn;
        e->flags = rig->confirming >> (c->channel & 63) & 1 ? 0 : EFFECT_SILENT;
        return;
    case CMD_CHANNEL_CLOSE: rig_effect(rig, EFF_CHANNEL_CLOSED, c->session, c->channel); return;
    case CMD_SESSION_CLOSE: rig_effect(rig, EFF_SESSION_CLOSED, c->session, 0); return;
    case CMD_GET: rig_effect(rig, EFF_GET_EMPTY, c->session, c->channel)->origin = c->origin; return;
    default: break;
    }
    bool refuse = c->type == CMD_LOGIN && rig->refuse_login;
    struct slice name = !ask ? (struct slice){0} : c->type == CMD_CONSUME ? ask->other : ask->name;
    struct answer *answer = rig_answer(refuse ? ERR_ACCESS_REFUSED : ERR_NONE, "", name);
    refuse = refuse && answer;
    if (answer && c->type == CMD_QUEUE_DECLARE) {
        answer->number = 3;
        answer->number2 = 2;
    }
    if (answer && c->type == CMD_CONSUME)
        answer->number = ++rig->next_consumer;
    e = rig_effect(rig, refuse ? EFF_ERROR : EFF_ANSWER, c->session, c->channel);
    e->origin = c->origin;
    e->answer = answer;
    if (c->channel && c->type == CMD_QUEUE_DECLARE)
        e->lsn = rig->answer_lsn;
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
        bool has_ask = taken.type != CMD_PUBLISH && taken.type != CMD_CREDIT && taken.type != CMD_ACK &&
                       taken.type != CMD_NACK && taken.type != CMD_QOS;
        const struct ask *ask = has_ask ? taken.ask : NULL;
        if (!rig->raw)
            rig_print_command(rig, &taken, ask);
        if (rig->answers)
            rig_answer_command(rig, &taken, ask);
        if (taken.type == CMD_PUBLISH)
            msg_unref(&rig->heap, taken.msg);
        else if (has_ask)
            mem_free(taken.ask);
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

/* One round: the core, effects, feeding what is left, flushing. Returns true when anything moved. */
RIG_FN bool rig_turn(struct rig *rig)
{
    bool moved = rig_core(rig);
    hub_turn(rig->hub, rig->durable, rig->now);
    if (rig->closed)
        return moved;
    struct engine *engine = rig->engine;
    engine->now = rig->now;
    while (!list_empty(&rig->dirty))
        list_remove(rig->dirty.next);
    engine->in_dirty = false;
    if (rig->in_len && !engine->paused && !engine->want_close) {
        size_t used = engine->ops->feed(engine, slice_of(rig->in, rig->in_len));
        memmove(rig->in, rig->in + used, rig->in_len - used);
        rig->in_len -= used;
        moved |= used > 0;
    }
    if (engine->out.len) {
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
    if (rig->in_len + len > RIG_IN_MAX)
        abort();
    memcpy(rig->in + rig->in_len, bytes, len);
    rig->in_len += len;
}

RIG_FN void rig_frame(struct rig *rig, uint8_t type, uint16_t channel, const void *payload, size_t len)
{
    uint8_t head[FRAME_HEAD], end = FRAME_END;
    struct writer w = writer_of(head, sizeof head);
    writer_u8(&w, type);
    writer_u16(&w, channel);
    writer_u32(&w, (uint32_t)len);
    rig_bytes(rig, head, sizeof head);
    rig_bytes(rig, payload, len);
    rig_bytes(rig, &end, 1);
}

RIG_FN void rig_method(struct rig *rig, uint16_t channel, enum amqp091_method method, const void *fields)
{
    static uint8_t room[1u << 17];
    struct writer w = writer_of(room, sizeof room);
    amqp091_encode(&w, &amqp091_rows[method], fields);
    rig_frame(rig, FRAME_METHOD, channel, room, w.len);
}

#define RIG_CALL(rig, channel, name, ...)                                                                              \
    rig_method(rig, channel, AMQP091_##name, &(struct amqp091_##name){__VA_ARGS__})

RIG_FN void rig_header(struct rig *rig, uint16_t channel, uint64_t size, const char *props, size_t props_len)
{
    uint8_t room[4096];
    struct writer w = writer_of(room, sizeof room);
    writer_u16(&w, 60);
    writer_u16(&w, 0);
    writer_u64(&w, size);
    writer_put(&w, props, props_len);
    rig_frame(rig, FRAME_HEADER, channel, room, w.len);
}

RIG_FN void rig_publish(struct rig *rig, uint16_t channel, const char *key, const char *body)
{
    RIG_CALL(rig, channel, basic_publish, .routing_key = slice_str(key));
    rig_header(rig, channel, strlen(body), "\x10\x00\x02", 3);
    if (*body)
        rig_frame(rig, FRAME_BODY, channel, body, strlen(body));
}

RIG_FN bool rig_init(struct rig *rig)
{
    *rig = (struct rig){.answers = true, .now = 1000 * NS_PER_S};
    list_init(&rig->dirty);
    slab_heap_init(&rig->heap);
    rig->options = amqp091_options_default();
    rig->in = malloc(RIG_IN_MAX);
    rig->out_room = malloc(RIG_IN_MAX);
    rig->said = calloc(1, RIG_TEXT_MAX);
    rig->commands = calloc(1, RIG_TEXT_MAX);
    rig->closed = true;
    if (!ring_init(&rig->port.commands, 1024, sizeof(struct command)))
        return false;
    if (!ring_init(&rig->port.effects, 8192, sizeof(struct effect)))
        return false;
    rig->hub = hub_new(&rig->port, &rig->heap, 16);
    return rig->hub != NULL;
}

RIG_FN bool rig_open(struct rig *rig)
{
    rig->engine = amqp091_new(&rig->options, rig->hub, "127.0.0.1:5", true, rig->now);
    if (!rig->engine)
        return false;
    rig->closed = false;
    rig->engine->dirty = &rig->dirty;
    rig->engine->ops->tick(rig->engine, rig->now);
    return true;
}

RIG_FN void rig_fini(struct rig *rig)
{
    rig_close(rig);
    if (rig->hub) {
        rig->answers = true;
        rig_settle(rig);
    }
    hub_free(&rig->hub);
    ring_fini(&rig->port.commands);
    ring_fini(&rig->port.effects);
    slab_heap_fini(&rig->heap);
    free(rig->in);
    free(rig->out_room);
    free(rig->said);
    free(rig->commands);
}

/* All client capabilities that change what the server does. */
RIG_FN struct slice rig_client_properties(uint8_t *room, size_t len)
{
    struct writer w = writer_of(room, len);
    size_t mark = amqp_open(&w, "capabilities", 'F');
    amqp_put_bool(&w, "connection.blocked", true);
    amqp_put_bool(&w, "consumer_cancel_notify", true);
    amqp_put_bool(&w, "authentication_failure_close", true);
    amqp_close(&w, mark);
    return writer_slice(&w);
}

RIG_FN void rig_handshake_bytes(struct rig *rig, uint32_t frame_max, uint16_t heartbeat)
{
    uint8_t room[512];
    rig_bytes(rig, "AMQP\0\0\x09\x01", 8);
    RIG_CALL(rig, 0, connection_start_ok, .client_properties = rig_client_properties(room, sizeof room),
             .mechanism = slice_str("PLAIN"), .response = slice_of("\0guest\0guest", 12), .locale = slice_str("en_US"));
    RIG_CALL(rig, 0, connection_tune_ok, .channel_max = 2047, .frame_max = frame_max, .heartbeat = heartbeat);
    RIG_CALL(rig, 0, connection_open, .virtual_host = slice_str("/"));
}

RIG_FN void rig_clear(struct rig *rig)
{
    rig->said[0] = rig->commands[0] = '\0';
}

/* Logged in, with channel 1 open, and nothing recorded. */
RIG_FN bool rig_running(struct rig *rig, uint32_t frame_max, uint16_t heartbeat)
{
    if (!rig_open(rig))
        return false;
    rig_handshake_bytes(rig, frame_max, heartbeat);
    RIG_CALL(rig, 1, channel_open, .reserved_1 = {0});
    rig_settle(rig);
    bool ok = strstr(rig->said, "1 channel.open_ok") != NULL;
    rig_clear(rig);
    return ok;
}

/* ---- effects by hand ---- */

RIG_FN struct effect *rig_push_effect(struct rig *rig, enum effect_type type, uint64_t number, lsn_t lsn)
{
    struct effect *e = rig_effect(rig, type, 0, 1);
    e->number = number;
    e->lsn = lsn;
    return e;
}

RIG_FN struct msg *rig_message(struct rig *rig, size_t props_len, size_t body_len)
{
    static uint8_t props[60000];
    props[0] = 0x20; /* only for its length: not parsed on the way out */
    struct msg *msg = msg_new(&rig->heap, slice_str("ex"), slice_str("key"), slice_of(props, props_len), body_len);
    memset(msg_body_room(msg), 'm', body_len);
    return msg;
}

RIG_FN void rig_push_deliver(struct rig *rig, uint32_t consumer, uint64_t tag, struct msg *msg)
{
    struct effect *e = rig_push_effect(rig, EFF_DELIVER, tag, 0);
    e->consumer = consumer;
    e->msg = msg;
}

RIG_FN void rig_push_error(struct rig *rig, uint16_t channel, enum error_code code, uint32_t origin, const char *text)
{
    struct effect *e = rig_effect(rig, EFF_ERROR, 0, channel);
    e->origin = origin;
    e->answer = rig_answer(code, text, (struct slice){0});
}

#endif
