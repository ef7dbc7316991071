/* The engine: a connection's bytes, states and time, see engine.h and net/engine.h.
 *
 * feed takes frames one by one from the bytes it is lent and keeps none of them: an incomplete frame stays with the connection,
 * and the parser remembers how far it has looked. Each frame finds COMMANDS_PER_FRAME slots in the ring, or waits until it does.
 *
 * Endings: ERROR is the last frame (STOMP 1.2, "ERROR": the server must then close); DISCONNECT waits for the core and for the
 * disk, so that its receipt speaks for everything before it; a peer that goes without a word leaves nothing behind, and its
 * open transactions have never happened. Thread: the loop's. */
#include "proto/stomp/engine.h"

#include "base/check.h"
#include "base/mem.h"
#include "fmt/base64.h"
#include "proto/stomp/stomp_int.h"

#include <stdio.h>

/* ---- states ---- */

#define TO(state) (1u << (state))

static const uint32_t next_states[CONN_STATES] = {
    [CONN_CONNECT] = TO(CONN_LOGIN) | TO(CONN_DYING),
    [CONN_LOGIN] = TO(CONN_ENTER) | TO(CONN_DYING),
    [CONN_ENTER] = TO(CONN_RUNNING) | TO(CONN_DYING),
    [CONN_RUNNING] = TO(CONN_LEAVING) | TO(CONN_DYING),
    [CONN_LEAVING] = TO(CONN_DYING),
    [CONN_DYING] = 0,
};

void stomp_state_move(struct stomp *s, enum stomp_state to)
{
    CHECK(next_states[s->state] & TO(to));
    s->state = (uint8_t)to;
    if (to >= CONN_LEAVING)
        session_unpause(&s->session);
}

void stomp_pause(struct stomp *s, enum stomp_pause why)
{
    if (s->state < CONN_LEAVING)
        session_pause(&s->session, why);
}

void stomp_resume(struct stomp *s, enum stomp_pause why)
{
    session_resume(&s->session, why);
}

void stomp_end(struct stomp *s)
{
    hub_close(stomp_hub(s), &s->session);
    if (s->state != CONN_DYING)
        stomp_state_move(s, CONN_DYING);
    s->session.engine.want_close = true;
    engine_dirty(&s->session.engine);
}

/* ---- commands ---- */

struct command *stomp_command(struct stomp *s, enum command_type type, uint32_t origin)
{
    struct command *command = hub_command(stomp_hub(s), &s->session);
    CHECK(command);
    command->type = (uint8_t)type;
    command->channel = STOMP_CHANNEL;
    command->origin = origin;
    return command;
}

bool stomp_ask(struct stomp *s, enum command_type type, uint32_t origin, const struct stomp_operands *o)
{
    struct ask *ask = ask_new(o->name, o->other, o->key, o->args);
    if (!ask) {
        stomp_fail_memory(s);
        return false;
    }
    ask->flags = o->flags;
    stomp_command(s, type, origin)->ask = ask;
    return true;
}

void stomp_random_text(struct stomp *s, char *ret, size_t len)
{
    uint8_t bytes[24];
    char text[BASE64_LEN(sizeof bytes) + 1];
    CHECK(len < sizeof text);
    s->options->random(s->options->random_arg, bytes, sizeof bytes);
    base64_url_encode(slice_of(bytes, sizeof bytes), text);
    memcpy(ret, text, len);
    ret[len] = '\0';
}

/* ---- bytes ---- */

static bool may_go_on(struct stomp *s)
{
    if (s->state >= CONN_LEAVING)
        return true; /* throwing away needs nothing */
    if (s->state == CONN_LOGIN || s->state == CONN_ENTER || s->session.engine.paused || s->flushing)
        return false;
    if (s->session.engine.out.len > OUTQ_HIGH) {
        stomp_pause(s, PAUSE_OUT);
        return false;
    }
    if (hub_room(stomp_hub(s)) < COMMANDS_PER_FRAME) {
        hub_wait_room(stomp_hub(s), &s->session);
        return false;
    }
    return true;
}

/* Consumes the next thing there is; 0: more bytes are needed. */
static size_t step(struct stomp *s, struct slice bytes)
{
    struct stomp_frame frame;
    const char *why = "";
    size_t used;
    if (s->state >= CONN_LEAVING)
        return bytes.len;
    switch (stomp_parse(&s->parser, bytes, (enum stomp_version)s->version, &s->limits, &frame, &used, &why)) {
    case STOMP_PARSED_MORE:
    case STOMP_PARSED_EOL: break;
    case STOMP_PARSED_FRAME:
        stomp_take(s, &frame);
        stomp_frame_release(&frame);
        break;
    case STOMP_PARSED_BAD: stomp_error(s, WRONG_FRAME, "The frame cannot be read: %s\n", why); return bytes.len;
    case STOMP_PARSED_NO_MEMORY: stomp_fail_memory(s); return bytes.len;
    }
    return used;
}

static size_t engine_feed(struct engine *engine, struct slice bytes)
{
    struct stomp *s = CONTAINER_OF(engine, struct stomp, session.engine);
    s->session.heard_at = engine->now;
    size_t used = 0;
    while (used < bytes.len && may_go_on(s)) {
        size_t n = step(s, slice_of(bytes.ptr + used, bytes.len - used));
        if (n == 0)
            break;
        used += n;
    }
    return used;
}

/* ---- time ---- */

static mono_t sooner(mono_t a, mono_t b)
{
    return a < b ? a : b;
}

/* The peer may be late by as much again as was agreed; anything sent counts as a beat, on both sides. */
static mono_t tick_running(struct stomp *s, mono_t now)
{
    mono_t send = s->beat_send_ms * NS_PER_MS, expect = s->beat_expect_ms * NS_PER_MS, due = MONO_NEVER;
    if (s->session.engine.paused)
        s->session.heard_at = now;
    if (expect) {
        if (now - s->session.heard_at > 2 * expect) {
            stomp_end(s);
            return MONO_NEVER;
        }
        due = s->session.heard_at + 2 * expect + NS_PER_MS;
    }
    if (!send)
        return due;
    if (now - s->beat_at >= send / 2) {
        if (!s->wrote && s->session.engine.out.len == 0)
            stomp_out_beat(s);
        s->wrote = false;
        s->beat_at = now;
    }
    return sooner(due, s->beat_at + send / 2);
}

static mono_t engine_tick(struct engine *engine, mono_t now)
{
    struct stomp *s = CONTAINER_OF(engine, struct stomp, session.engine);
    engine->now = now;
    if (s->state == CONN_RUNNING)
        return engine->next_tick = tick_running(s, now);
    if (s->state > CONN_RUNNING)
        return engine->next_tick = MONO_NEVER;
    if (now < s->deadline)
        return engine->next_tick = s->deadline;
    stomp_end(s); /* as RabbitMQ: without a word, to who has said none */
    return engine->next_tick = MONO_NEVER;
}

/* ---- the loop's other calls ---- */

static void engine_drained(struct engine *engine)
{
    struct stomp *s = CONTAINER_OF(engine, struct stomp, session.engine);
    session_credit_return(&s->session);
    if (engine->out.len <= OUTQ_HIGH / 2)
        stomp_resume(s, PAUSE_OUT);
}

static void engine_shutdown(struct engine *engine, const char *text)
{
    struct stomp *s = CONTAINER_OF(engine, struct stomp, session.engine);
    char reason[256];
    if (!stomp_live(s))
        return;
    if (s->state < CONN_RUNNING) {
        stomp_end(s);
        return;
    }
    int n = snprintf(reason, sizeof reason, "broker forced connection closure with reason '%s'", text);
    stomp_error_core(s, ERR_CONNECTION_FORCED, slice_of(reason, n < 255 ? (size_t)n : 255), (struct slice){0});
}

static void session_free(struct session *session)
{
    mem_free_as(MEM_CONNECTIONS, CONTAINER_OF(session, struct stomp, session));
}

static void engine_closed(struct engine *engine)
{
    struct stomp *s = CONTAINER_OF(engine, struct stomp, session.engine);
    session_cut(&s->session);
    if (s->state != CONN_DYING)
        stomp_state_move(s, CONN_DYING);
    stomp_transactions_free(s);
    stomp_receipts_free(s);
    stomp_subscriptions_free(s);
    stomp_names_free(s);
    mem_free(s->login);
    mem_free(s->printed);
    s->login = NULL;
    s->printed = NULL;
    session_end(&s->session);
}

static void session_on_room(struct session *session)
{
    struct stomp *s = CONTAINER_OF(session, struct stomp, session);
    if (s->owes_enter && stomp_live(s))
        stomp_enter(s);
    if (s->flushing && stomp_live(s))
        stomp_flush_on(s);
}

/* ---- the factory ---- */

static const struct engine_ops ops = {
    .name = "STOMP",
    .feed = engine_feed,
    .tick = engine_tick,
    .drained = engine_drained,
    .shutdown = engine_shutdown,
    .closed = engine_closed,
};

struct stomp_options stomp_options_default(void)
{
    return (struct stomp_options){
        .product = "Millrace/" MILLRACE_VERSION,
        .vhost = "/",
        .anonymous = "guest",
        .topic_exchange = "amq.topic",
        .frame_bytes_max = 4u * 1024 * 1024,
        .handshake_ms = 10000,
        .tx_bytes_max = 64u * 1024 * 1024,
    };
}

static void lists_init(struct stomp *s)
{
    confirms_init(&s->confirms, CONFIRMS_KEPT);
    list_init(&s->sent);
    list_init(&s->asked);
    list_init(&s->answered);
    list_init(&s->ended);
    list_init(&s->transactions);
    map_init(&s->queues, 0x9e3779b97f4a7c15u ^ s->session.number);
    map_init(&s->temps, 0x9e3779b97f4a7c15u ^ s->session.number);
    map_init(&s->by_tag, 0x9e3779b97f4a7c15u ^ s->session.number);
    map_init(&s->by_consumer, 0x9e3779b97f4a7c15u);
}

struct engine *stomp_new(const struct stomp_options *options, struct hub *hub, const char *peer, bool peer_loopback,
                         mono_t now)
{
    CHECK(options->random && options->wall);
    struct stomp *s = mem_zalloc_as(MEM_CONNECTIONS, sizeof *s);
    if (!s)
        return NULL;
    if (!session_connect(&s->session, hub, &ops, peer, peer_loopback, now)) {
        mem_free_as(MEM_CONNECTIONS, s);
        return NULL;
    }
    struct engine *engine = &s->session.engine;
    engine->in_max = 2 * STOMP_HEAD_EARLY;
    s->session.on_effect = stomp_on_effect;
    s->session.on_durable = stomp_on_durable;
    s->session.on_room = session_on_room;
    s->session.free = session_free;
    s->options = options;
    s->limits = (struct stomp_limits){.head_bytes_max = STOMP_HEAD_EARLY, .body_bytes_max = STOMP_HEAD_EARLY / 2};
    lists_init(s);
    s->deadline = now + options->handshake_ms * NS_PER_MS;
    engine->next_tick = s->deadline;
    return engine;
}
