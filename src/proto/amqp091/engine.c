/* The engine: one connection's frames, states and time, see engine.h and net/engine.h.
 *
 * feed takes frames one by one from the bytes it is lent; it keeps none of them: an incomplete frame stays with the
 * connection, except that a body frame is taken in pieces as it comes. Each step needs a few command slots; when the
 * ring has not got them the bytes stay where they are and the hub calls again. A frame is decoded and checked against
 * its row of methods.def here (the driver), and only what the rules allow reaches a handler.
 *
 * Endings: amqp091_fail says why and waits for close-ok; amqp091_drop says nothing; the peer's own close waits for the
 * core (so that exclusive queues are gone when close-ok arrives). Channels are freed only when the core has let go of the
 * session or the transport is gone, never in the middle of a handler. Thread: the loop's. */
#include "proto/amqp091/engine.h"

#include "base/check.h"
#include "base/mem.h"
#include "base/reader.h"
#include "proto/amqp091/answers.h"
#include "proto/amqp091/channel.h"
#include "proto/amqp091/handshake.h"
#include "proto/amqp091/out.h"
#include "proto/amqp091/requests.h"

#include <stdarg.h>
#include <stdio.h>

#define COMMANDS_PER_FRAME 4u
#define CLOSE_WAIT_MS 10000u   /* for the peer's close-ok */
#define SHUTDOWN_WAIT_MS 1000u /* the same when the broker stops */
#define DYING_WAIT_MS 1000u    /* for the peer to read why, when the stream is beyond repair */

/* ---- states ---- */

#define TO(state) (1u << (state))
#define ENDINGS (TO(CONN_LEAVING) | TO(CONN_CLOSING) | TO(CONN_DYING))

static const struct {
    const char *name; /* RabbitMQ's, for its error texts */
    uint32_t next;
} states[CONN_STATES] = {
    [CONN_HEADER] = {"pre_init", TO(CONN_START) | ENDINGS},
    [CONN_START] = {"starting", TO(CONN_LOGIN) | ENDINGS},
    [CONN_LOGIN] = {"securing", TO(CONN_TUNE) | ENDINGS},
    [CONN_TUNE] = {"tuning", TO(CONN_OPEN) | ENDINGS},
    [CONN_OPEN] = {"opening", TO(CONN_ENTER) | ENDINGS},
    [CONN_ENTER] = {"opening", TO(CONN_RUNNING) | ENDINGS},
    [CONN_RUNNING] = {"running", ENDINGS},
    [CONN_LEAVING] = {"closed", TO(CONN_DYING)},
    [CONN_CLOSING] = {"closing", TO(CONN_DYING)},
    [CONN_DYING] = {"closed", TO(CONN_DYING)},
};

void amqp091_state_move(struct amqp091 *a, enum amqp091_state to)
{
    CHECK(states[a->state].next & TO(to));
    a->state = (uint8_t)to;
}

void amqp091_tick_by(struct amqp091 *a, mono_t due)
{
    session_tick_by(&a->session, due);
}

void amqp091_pause(struct amqp091 *a, enum amqp091_pause why)
{
    if (amqp091_live(a))
        session_pause(&a->session, why);
}

void amqp091_resume(struct amqp091 *a, enum amqp091_pause why)
{
    session_resume(&a->session, why);
}

/* ---- endings ---- */

size_t amqp091_reply_text(char *ret, enum error_code code, struct slice text)
{
    int n = snprintf(ret, 256, "%s - %.*s", error_row(code)->name, SLICE_ARG(text));
    if (n <= 255)
        return (size_t)n;
    memcpy(ret + 252, "...", 3); /* as RabbitMQ cuts */
    return 255;
}

/* From now on everything is thrown away; nothing pauses that. */
static void end_by(struct amqp091 *a, enum amqp091_state state, uint32_t wait_ms)
{
    amqp091_state_move(a, state);
    session_unpause(&a->session);
    a->deadline = a->session.engine.now + wait_ms * NS_PER_MS;
    amqp091_tick_by(a, a->deadline);
}

void amqp091_drop(struct amqp091 *a, uint32_t delay_ms)
{
    hub_close(amqp091_hub(a), &a->session);
    if (a->state != CONN_DYING)
        end_by(a, CONN_DYING, delay_ms);
    if (delay_ms == 0)
        a->session.engine.want_close = true;
    engine_dirty(&a->session.engine);
}

static void send_close(struct amqp091 *a, enum error_code code, uint16_t class_id, uint16_t method_id,
                       struct slice text, uint32_t wait_ms)
{
    char reply[256];
    size_t len = amqp091_reply_text(reply, code, text);
    amqp091_out_method(a, 0, AMQP091_connection_close,
                       &(struct amqp091_connection_close){.reply_code = error_row(code)->amqp,
                                                          .reply_text = slice_of(reply, len),
                                                          .class_id = class_id,
                                                          .method_id = method_id});
    hub_close(amqp091_hub(a), &a->session);
    end_by(a, CONN_CLOSING, wait_ms);
}

void amqp091_fail(struct amqp091 *a, enum error_code code, uint16_t class_id, uint16_t method_id, const char *format,
                  ...)
{
    if (!amqp091_live(a))
        return;
    char text[512];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    size_t len = n < 0 ? 0 : (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
    send_close(a, code, class_id, method_id, slice_of(text, len), CLOSE_WAIT_MS);
}

void amqp091_fail_memory(struct amqp091 *a)
{
    amqp091_fail(a, ERR_RESOURCE_ERROR, 0, 0, "out of memory");
}

/* The stream of frames is out of step: say so and read nothing more into it. */
static void fail_framing(struct amqp091 *a, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void fail_framing(struct amqp091 *a, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    amqp091_fail(a, ERR_FRAME_ERROR, 0, 0, "%s", text);
    amqp091_drop(a, DYING_WAIT_MS);
}

/* As Erlang prints a binary's first 16 bytes: <<"text">> or <<1,2,3>>. */
static void print_octets(char *ret, size_t max, struct slice payload)
{
    size_t n = payload.len < 16 ? payload.len : 16, at;
    bool text = n > 0;
    for (size_t i = 0; i < n; i++)
        text = text && payload.ptr[i] >= ' ' && payload.ptr[i] < 0x7f;
    at = (size_t)snprintf(ret, max, "%s octets = <<%s", payload.len > 16 ? "first 16" : "all", text ? "\"" : "");
    for (size_t i = 0; i < n; i++) {
        if (text)
            at += (size_t)snprintf(ret + at, max - at, "%c", payload.ptr[i]);
        else
            at += (size_t)snprintf(ret + at, max - at, "%s%u", i ? "," : "", payload.ptr[i]);
    }
    snprintf(ret + at, max - at, "%s>>", text ? "\"" : "");
}

static void fail_unexpected(struct amqp091 *a, uint8_t type, struct slice payload)
{
    char octets[128];
    print_octets(octets, sizeof octets, payload);
    amqp091_fail(a, ERR_UNEXPECTED_FRAME, 0, 0, "type %u, %s", type, octets);
}

/* ---- methods: the driver ---- */

static void on_close(struct amqp091 *a)
{
    hub_close(amqp091_hub(a), &a->session);
    session_unpause(&a->session);
    amqp091_state_move(a, CONN_LEAVING);
    if (!a->session.core_open)
        amqp091_session_closed(a, 0);
}

static const uint8_t state_when[CONN_STATES] = {
    [CONN_START] = AMQP091_START,
    [CONN_TUNE] = AMQP091_TUNE,
    [CONN_OPEN] = AMQP091_OPEN,
    [CONN_RUNNING] = AMQP091_RUNNING,
};

/* A method on channel 0. */
static void connection_method(struct amqp091 *a, const struct amqp091_row *row, struct slice args)
{
    if (row->when != AMQP091_ANY && row->when != state_when[a->state]) {
        amqp091_fail(a, ERR_CHANNEL_ERROR, row->class_id, row->method_id, "unexpected method in connection state %s",
                     states[a->state].name);
        return;
    }
    union amqp091_fields f;
    if (!amqp091_decode(row, args, &f)) {
        amqp091_fail(a, ERR_FRAME_ERROR, row->class_id, row->method_id, "cannot decode the fields of %s", row->name);
        return;
    }
    switch (row - amqp091_rows) {
    case AMQP091_connection_start_ok: amqp091_on_start_ok(a, &f.connection_start_ok); break;
    case AMQP091_connection_tune_ok: amqp091_on_tune_ok(a, &f.connection_tune_ok); break;
    case AMQP091_connection_open: amqp091_on_open(a, &f.connection_open); break;
    case AMQP091_connection_update_secret: amqp091_on_update_secret(a, &f.connection_update_secret); break;
    case AMQP091_connection_close: on_close(a); break;
    default: break;
    }
}

/* A method on another channel of a running connection. */
static void channel_method(struct amqp091 *a, uint16_t number, struct amqp091_channel *ch,
                           const struct amqp091_row *row, struct slice args)
{
    if (ch && ch->state != CHANNEL_OPEN) {
        amqp091_channel_discard(a, ch, row);
        return;
    }
    if (!ch && row->when != AMQP091_FREE) {
        amqp091_fail(a, ERR_CHANNEL_ERROR, row->class_id, row->method_id, "expected 'channel.open'");
        return;
    }
    if (ch && row->when == AMQP091_FREE) {
        amqp091_fail(a, ERR_CHANNEL_ERROR, row->class_id, row->method_id, "second 'channel.open' seen");
        return;
    }
    if (!(row->who & AMQP091_CLIENT) || (ch && row->when != AMQP091_USED)) {
        amqp091_fault(a, ch, ERR_COMMAND_INVALID, row->class_id, row->method_id, "unimplemented method");
        return;
    }
    union amqp091_fields f;
    if (!amqp091_decode(row, args, &f)) {
        amqp091_fail(a, ERR_FRAME_ERROR, row->class_id, row->method_id, "cannot decode the fields of %s", row->name);
        return;
    }
    if (ch)
        amqp091_request(a, ch, row, &f);
    else
        amqp091_channel_open(a, number);
}

/* basic.ack without the driver's way round: the second most frequent thing a client says. */
static bool take_ack(struct amqp091 *a, const struct amqp091_channel *ch, struct slice args)
{
    if (args.len != 9)
        return false;
    struct reader r = reader_of(args);
    struct command *command = hub_command(amqp091_hub(a), &a->session);
    command->type = CMD_ACK;
    command->channel = ch->number;
    command->origin = AMQP091_ORIGIN(60, 80);
    command->number = reader_u64(&r);
    command->flags = reader_u8(&r) & 1 ? ASK_MULTIPLE : 0;
    return true;
}

/* A method frame; `after` is what follows it in the buffer. Returns how many bytes of that were consumed as well. */
static size_t take_method(struct amqp091 *a, uint16_t number, struct slice payload, struct slice after)
{
    struct reader r = reader_of(payload);
    uint16_t class_id = reader_u16(&r), method_id = reader_u16(&r);
    if (!reader_ok(&r)) {
        fail_framing(a, "a method frame of %zu octets", payload.len);
        return 0;
    }
    struct slice args = reader_rest(&r);
    struct amqp091_channel *ch = number && a->state == CONN_RUNNING ? amqp091_channel_find(a, number) : NULL;
    if (ch && ch->state == CHANNEL_OPEN) {
        if (ch->stage != STAGE_METHOD) {
            amqp091_content_unexpected(a, ch);
            return 0;
        }
        if (class_id == 60 && method_id == 40)
            return amqp091_content_method(a, ch, args, after);
        if (class_id == 60 && method_id == 80 && take_ack(a, ch, args))
            return 0;
    }
    const struct amqp091_row *row = amqp091_row_find(class_id, method_id);
    if (!row)
        amqp091_fail(a, ERR_COMMAND_INVALID, class_id, method_id, "unknown method %u.%u", class_id, method_id);
    else if (number == 0)
        connection_method(a, row, args);
    else if (a->state != CONN_RUNNING)
        amqp091_fail(a, ERR_CHANNEL_ERROR, class_id, method_id, "unexpected method in connection state %s",
                     states[a->state].name);
    else
        channel_method(a, number, ch, row, args);
    return 0;
}

/* ---- frames ---- */

/* After our connection.close: only its answer counts, and the peer's own close if they crossed. */
static void take_closing(struct amqp091 *a, uint8_t type, uint16_t number, struct slice payload)
{
    struct reader r = reader_of(payload);
    uint32_t method = reader_u32(&r);
    if (type != FRAME_METHOD || number != 0)
        return;
    if (method == AMQP091_ORIGIN(10, 50))
        amqp091_out_method(a, 0, AMQP091_connection_close_ok, NULL);
    if (method == AMQP091_ORIGIN(10, 51))
        amqp091_drop(a, 0);
}

static void fail_frame_type(struct amqp091 *a, uint8_t type, struct slice payload)
{
    char octets[128];
    print_octets(octets, sizeof octets, payload);
    fail_framing(a, "type %u, %s: unknown_frame", type, octets);
}

static size_t take_frame(struct amqp091 *a, uint8_t type, uint16_t number, struct slice payload, struct slice after)
{
    if (a->state == CONN_CLOSING) {
        take_closing(a, type, number, payload);
        return 0;
    }
    switch (type) {
    case FRAME_METHOD: return take_method(a, number, payload, after);
    case FRAME_HEADER:
    case FRAME_BODY:
        if (number == 0 || a->state != CONN_RUNNING)
            fail_unexpected(a, type, payload);
        else
            amqp091_content_frame(a, number, type, payload);
        return 0;
    default: /* FRAME_HEARTBEAT: that it came is all it says */
        if (number != 0)
            fail_unexpected(a, type, payload);
        else if (payload.len)
            fail_frame_type(a, type, payload);
        return 0;
    }
}

/* channel.open on a number that the core has not let go of yet has to wait for that. */
static bool must_wait(struct amqp091 *a, uint8_t type, uint16_t number, struct slice payload)
{
    static const uint8_t channel_open[] = {0, 20, 0, 10};
    if (type != FRAME_METHOD || payload.len < 4 || memcmp(payload.ptr, channel_open, 4) != 0)
        return false;
    struct amqp091_channel *ch = amqp091_channel_find(a, number);
    return ch && ch->state == CHANNEL_LEAVING;
}

static size_t frame_step(struct amqp091 *a, struct slice bytes)
{
    if (bytes.len < FRAME_HEAD)
        return 0;
    struct reader r = reader_of(bytes);
    uint8_t type = reader_u8(&r);
    uint16_t number = reader_u16(&r);
    uint32_t size = reader_u32(&r);
    if (size > a->frame_limit) {
        fail_framing(a, "type %u, all octets = <<>>: {frame_too_large,%u,%u}", type, size,
                     a->frame_limit - FRAME_OVERHEAD);
        return bytes.len;
    }
    if ((type < FRAME_METHOD || type > FRAME_BODY) && type != FRAME_HEARTBEAT) {
        fail_frame_type(a, type, slice_of(r.at, r.left < size ? r.left : size));
        return bytes.len;
    }
    if (r.left <= size)
        return type == FRAME_BODY && a->state == CONN_RUNNING ? amqp091_content_begin_piece(a, number, size) : 0;
    struct slice payload = reader_take(&r, size);
    uint8_t end = reader_u8(&r);
    if (end != FRAME_END) {
        char octets[128];
        print_octets(octets, sizeof octets, payload);
        fail_framing(a, "type %u, %s: {invalid_frame_end_marker,%u}", type, octets, end);
        return bytes.len;
    }
    if (a->state == CONN_RUNNING && must_wait(a, type, number, payload))
        return 0;
    return size + FRAME_OVERHEAD + take_frame(a, type, number, payload, slice_of(r.at, r.left));
}

/* Consumes the next thing there is; 0: more bytes, or a change of state, are needed. */
static size_t step(struct amqp091 *a, struct slice bytes)
{
    switch ((enum amqp091_state)a->state) {
    case CONN_HEADER: return amqp091_handshake_header(a, bytes);
    case CONN_LOGIN:
    case CONN_ENTER: return 0;
    case CONN_LEAVING:
    case CONN_DYING: return bytes.len;
    default: break;
    }
    if (!a->body_left)
        return frame_step(a, bytes);
    size_t used = amqp091_content_piece(a, bytes);
    if (used == 0) {
        fail_framing(a, "type 3, all octets = <<>>: {invalid_frame_end_marker,%u}", bytes.ptr[0]);
        return bytes.len;
    }
    return used;
}

static void count_early(struct amqp091 *a, size_t used)
{
    if (a->state > CONN_TUNE)
        return;
    a->early_bytes += (uint32_t)(used > AMQP091_BYTES_EARLY ? AMQP091_BYTES_EARLY + 1 : used);
    if (a->early_bytes > AMQP091_BYTES_EARLY)
        amqp091_drop(a, 0);
}

static bool may_go_on(struct amqp091 *a)
{
    if (!amqp091_live(a))
        return true; /* throwing away needs nothing */
    if (a->session.engine.paused)
        return false;
    if (a->session.engine.out.len > OUTQ_HIGH) {
        amqp091_pause(a, PAUSE_OUT);
        return false;
    }
    if (hub_room(amqp091_hub(a)) < COMMANDS_PER_FRAME) {
        hub_wait_room(amqp091_hub(a), &a->session);
        return false;
    }
    return true;
}

static size_t engine_feed(struct engine *engine, struct slice bytes)
{
    struct amqp091 *a = CONTAINER_OF(engine, struct amqp091, session.engine);
    a->session.heard_at = engine->now;
    size_t used = 0;
    while (used < bytes.len && may_go_on(a)) {
        size_t n = step(a, slice_of(bytes.ptr + used, bytes.len - used));
        used += n;
        if (a->state <= CONN_TUNE)
            count_early(a, n);
        if (n == 0)
            break;
    }
    return used;
}

/* ---- time ---- */

/* Section 4.2.7: either side may take two missed heartbeats for death; anything sent counts as one. */
static mono_t tick_heartbeat(struct amqp091 *a, mono_t now)
{
    mono_t interval = a->agreed.heartbeat_s * NS_PER_S;
    if (interval == 0)
        return MONO_NEVER;
    if (a->session.engine.paused)
        a->session.heard_at = now;
    if (now - a->session.heard_at > 2 * interval) {
        amqp091_drop(a, 0);
        return MONO_NEVER;
    }
    if (now - a->beat_at >= interval / 2) {
        if (!a->wrote && a->session.engine.out.len == 0)
            amqp091_out_heartbeat(a);
        a->wrote = false;
        a->beat_at = now;
    }
    return a->beat_at + interval / 2;
}

static mono_t engine_tick(struct engine *engine, mono_t now)
{
    struct amqp091 *a = CONTAINER_OF(engine, struct amqp091, session.engine);
    engine->now = now;
    if (a->state == CONN_RUNNING)
        return engine->next_tick = tick_heartbeat(a, now);
    if (now < a->deadline)
        return engine->next_tick = a->deadline;
    hub_close(amqp091_hub(a), &a->session);
    if (a->state != CONN_DYING)
        amqp091_state_move(a, CONN_DYING);
    engine->want_close = true;
    engine_dirty(engine);
    return engine->next_tick = MONO_NEVER;
}

/* ---- the loop's other calls ---- */

static void engine_drained(struct engine *engine)
{
    struct amqp091 *a = CONTAINER_OF(engine, struct amqp091, session.engine);
    session_credit_return(&a->session);
    if (engine->out.len <= OUTQ_HIGH / 2)
        amqp091_resume(a, PAUSE_OUT);
}

static void engine_shutdown(struct engine *engine, const char *text)
{
    struct amqp091 *a = CONTAINER_OF(engine, struct amqp091, session.engine);
    if (a->state < CONN_OPEN) {
        amqp091_drop(a, 0);
        return;
    }
    if (!amqp091_live(a))
        return;
    char reason[256];
    int n = snprintf(reason, sizeof reason, "broker forced connection closure with reason '%s'", text);
    send_close(a, ERR_CONNECTION_FORCED, 0, 0, slice_of(reason, n < 255 ? (size_t)n : 255), SHUTDOWN_WAIT_MS);
}

static void session_free(struct session *session)
{
    mem_free_as(MEM_CONNECTIONS, CONTAINER_OF(session, struct amqp091, session));
}

static void engine_closed(struct engine *engine)
{
    struct amqp091 *a = CONTAINER_OF(engine, struct amqp091, session.engine);
    session_cut(&a->session);
    if (a->state != CONN_DYING)
        amqp091_state_move(a, CONN_DYING);
    amqp091_channels_free(a);
    session_end(&a->session);
}

static void session_on_room(struct session *session)
{
    struct amqp091 *a = CONTAINER_OF(session, struct amqp091, session);
    if (a->owes_channels)
        amqp091_channels_pay(a);
}

/* ---- the factory ---- */

static const struct engine_ops ops = {
    .name = "AMQP 0-9-1",
    .feed = engine_feed,
    .tick = engine_tick,
    .drained = engine_drained,
    .shutdown = engine_shutdown,
    .closed = engine_closed,
};

struct amqp091_options amqp091_options_default(void)
{
    return (struct amqp091_options){
        .version = "3.13.7",
        .platform = "C",
        .cluster_name = "millrace",
        .message_bytes_max = 16u * 1024 * 1024,
        .assembly_bytes_max = 64u * 1024 * 1024,
        .frame_max = 131072,
        .channel_max = 2047,
        .heartbeat_s = 60,
        .handshake_ms = 10000,
    };
}

struct engine *amqp091_new(const struct amqp091_options *options, struct hub *hub, const char *peer, bool peer_loopback,
                           mono_t now)
{
    CHECK(options->frame_max >= AMQP091_FRAME_MIN && options->channel_max > 0);
    struct amqp091 *a = mem_zalloc_as(MEM_CONNECTIONS, sizeof *a);
    if (!a)
        return NULL;
    if (!session_connect(&a->session, hub, &ops, peer, peer_loopback, now)) {
        mem_free_as(MEM_CONNECTIONS, a);
        return NULL;
    }
    struct engine *engine = &a->session.engine;
    engine->in_max = AMQP091_FRAME_EARLY + FRAME_OVERHEAD;
    a->session.on_effect = amqp091_on_effect;
    a->session.on_durable = amqp091_on_durable;
    a->session.on_room = session_on_room;
    a->session.free = session_free;
    a->options = options;
    a->frame_limit = AMQP091_FRAME_EARLY;
    a->offered = (struct amqp091_tune){
        .frame_max = options->frame_max, .channel_max = options->channel_max, .heartbeat_s = options->heartbeat_s};
    list_init(&a->holding);
    a->deadline = now + options->handshake_ms * NS_PER_MS;
    engine->next_tick = a->deadline;
    return engine;
}
