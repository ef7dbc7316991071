/* The engine: one connection's packets, states and time, see engine.h and net/engine.h.
 *
 * feed takes packets one by one from the bytes it is lent; it keeps none of them: an incomplete one stays with the connection, which
 * holds as much as the largest packet that is allowed. A packet is cut, checked against its row of packets.def and decoded here (the
 * driver), and only what the rules allow reaches a handler. Handlers send commands by mqtt_send, which never fails for want of room:
 * what does not fit waits, and nothing is read meanwhile.
 *
 * Endings: mqtt_fail says why where the client can be told; mqtt_drop says nothing; after both the rest is thrown away until the bytes
 * have left. The core hears MQTT_DETACH only from DISCONNECT: any other end publishes the will. Thread: the loop's. */
#include "proto/mqtt/engine.h"

#include "base/check.h"
#include "base/mem.h"
#include "proto/mqtt/mqtt_int.h"

#include <stdio.h>

#define COMMANDS_PER_PACKET 4u

/* ---- states ---- */

#define TO(state) (1u << (state))

static const uint32_t next_states[MQTT_STATES] = {
    [MQTT_IS_NEW] = TO(MQTT_IS_ASKING) | TO(MQTT_IS_ENDING),
    [MQTT_IS_ASKING] = TO(MQTT_IS_PROVING) | TO(MQTT_IS_ATTACHING) | TO(MQTT_IS_ENDING),
    [MQTT_IS_PROVING] = TO(MQTT_IS_ASKING) | TO(MQTT_IS_ENDING),
    [MQTT_IS_ATTACHING] = TO(MQTT_IS_READY) | TO(MQTT_IS_ENDING),
    [MQTT_IS_READY] = TO(MQTT_IS_ENDING),
    [MQTT_IS_ENDING] = 0,
};

void mqtt_state_move(struct mqtt *m, enum mqtt_stage to)
{
    CHECK(next_states[m->state] & TO(to));
    m->state = (uint8_t)to;
}

void mqtt_tick_by(struct mqtt *m, mono_t due)
{
    session_tick_by(&m->session, due);
}

void mqtt_pause(struct mqtt *m, enum mqtt_pause why)
{
    if (mqtt_live(m))
        session_pause(&m->session, why);
}

void mqtt_resume(struct mqtt *m, enum mqtt_pause why)
{
    session_resume(&m->session, why);
}

/* ---- commands ---- */

bool mqtt_send(struct mqtt *m, const struct command *command)
{
    struct command copy = *command;
    if (m->session.close_sent) { /* nothing may come behind SESSION_CLOSE */
        command_drop(mqtt_heap(m), &copy);
        return false;
    }
    struct command *slot = m->debts.count ? NULL : hub_command(mqtt_hub(m), &m->session);
    if (!slot) {
        slot = fifo_push(&m->debts);
        hub_wait_room(mqtt_hub(m), &m->session);
    }
    if (!slot) {
        command_drop(mqtt_heap(m), &copy);
        mqtt_fail_memory(m);
        return false;
    }
    copy.session = m->session.number;
    *slot = copy;
    return true;
}

bool mqtt_send_ask(struct mqtt *m, enum command_type type, uint32_t origin, uint64_t number, uint32_t flags,
                   struct ask *ask)
{
    if (!ask) {
        mqtt_fail_memory(m);
        return false;
    }
    ask->flags = flags;
    struct command command = {.type = (uint8_t)type, .origin = origin, .number = number, .ask = ask};
    bool of_channel = type == CMD_MQTT_ATTACH || type == CMD_MQTT_SUBSCRIBE || type == CMD_MQTT_UNSUBSCRIBE ||
                      type == CMD_MQTT_RETAINED;
    command.channel = of_channel ? MQTT_CHANNEL : 0;
    return mqtt_send(m, &command);
}

static void debts_pay(struct mqtt *m)
{
    while (m->debts.count) {
        struct command *slot = hub_command(mqtt_hub(m), &m->session);
        if (!slot) {
            hub_wait_room(mqtt_hub(m), &m->session);
            return;
        }
        *slot = *(struct command *)fifo_first(&m->debts);
        fifo_pop(&m->debts);
    }
}

static void debts_drop(struct mqtt *m)
{
    while (m->debts.count) {
        command_drop(mqtt_heap(m), fifo_first(&m->debts));
        fifo_pop(&m->debts);
    }
}

/* ---- what waits for an lsn ---- */

static void owed_drop(struct mqtt *m)
{
    while (m->owed.count) {
        mem_free(((struct mqtt_owed *)fifo_first(&m->owed))->job);
        fifo_pop(&m->owed);
    }
}

static void owed_say(struct mqtt *m, const struct mqtt_owed *owed)
{
    switch (owed->type) {
    case MQTT_connack: mqtt_connected(m); break;
    case MQTT_suback:
    case MQTT_unsuback: mqtt_job_done(m, owed->job); break;
    case MQTT_pubcomp:
        m->quota_used -= m->quota_used > 0;
        mqtt_out_ack(m, MQTT_pubcomp, owed->id, owed->reason);
        break;
    case MQTT_pubrel: mqtt_id_released(m, owed->id); break;
    default: mqtt_id_free(m, owed->id); break;
    }
}

static void owed_release(struct mqtt *m, lsn_t durable)
{
    while (m->owed.count && mqtt_live(m)) {
        struct mqtt_owed owed = *(struct mqtt_owed *)fifo_first(&m->owed);
        if (owed.lsn > durable)
            return;
        fifo_pop(&m->owed);
        owed_say(m, &owed);
    }
}

void mqtt_owe(struct mqtt *m, const struct mqtt_owed *owed)
{
    struct mqtt_owed *last = fifo_last(&m->owed), *slot = fifo_push(&m->owed);
    lsn_t before = last && slot ? ((struct mqtt_owed *)fifo_at(&m->owed, m->owed.count - 2))->lsn : 0;
    if (!slot) {
        mem_free(owed->job);
        mqtt_fail_memory(m);
        return;
    }
    *slot = *owed;
    if (slot->lsn < before)
        slot->lsn = before; /* it waits for what stands in front of it anyway */
    if (m->owed.count > MQTT_UNANSWERED_MAX)
        mqtt_pause(m, MQTT_PAUSE_OWED);
    hub_hold(mqtt_hub(m), &m->session);
}

static bool session_on_durable(struct session *session, lsn_t durable)
{
    struct mqtt *m = CONTAINER_OF(session, struct mqtt, session);
    if (!mqtt_live(m) || session->gone)
        return false;
    mqtt_publish_release(m, durable);
    owed_release(m, durable);
    if (m->owed.count + confirms_count(&m->confirms) + m->publishes.count + m->jobs_count < MQTT_UNANSWERED_MAX / 2)
        mqtt_resume(m, MQTT_PAUSE_OWED);
    return mqtt_live(m) && (m->owed.count || confirms_count(&m->confirms));
}

/* ---- endings ---- */

/* From now on everything is thrown away; nothing pauses that. */
static void end(struct mqtt *m)
{
    hub_close(mqtt_hub(m), &m->session);
    if (mqtt_live(m))
        mqtt_state_move(m, MQTT_IS_ENDING);
    debts_drop(m);
    m->session.engine.want_close = true;
    session_unpause(&m->session);
}

void mqtt_drop(struct mqtt *m)
{
    if (mqtt_live(m))
        end(m);
}

void mqtt_fail_memory(struct mqtt *m)
{
    mqtt_drop(m); /* which of its answers there was no memory for, nobody could say */
}

/* CONNACK with the code, or its cousin of 3.x, where there is one. */
static void refuse_connect(struct mqtt *m, uint8_t reason, const char *text)
{
    union mqtt_fields f = {.connack = {.reason = reason}};
    if (m->version != MQTT_5)
        f.connack.reason = mqtt_reason_connack(reason);
    else if (text && !m->quiet)
        MQTT_SET(&f.connack.props, reason_string, slice_str(text));
    if (f.connack.reason)
        mqtt_out(m, MQTT_connack, &f);
}

void mqtt_fail(struct mqtt *m, uint8_t reason, const char *text)
{
    if (!mqtt_live(m))
        return;
    if (m->state == MQTT_IS_READY && m->version == MQTT_5) {
        union mqtt_fields f = {.end = {.reason = reason}};
        if (text && !m->quiet)
            MQTT_SET(&f.end.props, reason_string, slice_str(text));
        if (mqtt_encoded_len(MQTT_disconnect, MQTT_5, &f) > m->packet_max)
            f.end.props.present = 0;
        mqtt_out(m, MQTT_disconnect, &f);
    } else if (m->state != MQTT_IS_READY) {
        refuse_connect(m, reason, text);
    }
    end(m);
}

/* ---- packets ---- */

/* A packet that its row allows now. */
static void take(struct mqtt *m, const struct mqtt_frame *frame)
{
    union mqtt_fields f;
    uint8_t fault = mqtt_decode(frame, m->version, MQTT_CLIENT, &f);
    if (fault) {
        mqtt_fail(m, fault, NULL);
        return;
    }
    switch ((enum mqtt_type)frame->type) {
    case MQTT_publish: mqtt_on_publish(m, &f.publish); break;
    case MQTT_puback:
    case MQTT_pubrec:
    case MQTT_pubcomp: mqtt_on_ack(m, (enum mqtt_type)frame->type, &f.ack); break;
    case MQTT_pubrel: mqtt_on_pubrel(m, &f.ack); break;
    case MQTT_subscribe: mqtt_on_list(m, &f.list, false); break;
    case MQTT_unsubscribe: mqtt_on_list(m, &f.list, true); break;
    case MQTT_pingreq: outq_put(&m->session.engine.out, "\xd0\0", 2); break;
    case MQTT_disconnect: mqtt_on_disconnect(m, &f.end); break;
    case MQTT_auth: mqtt_on_auth(m, &f.end); break;
    default: mqtt_fail(m, MQTT_R_protocol_error, NULL); break;
    }
}

static void take_frame(struct mqtt *m, const struct mqtt_frame *frame)
{
    const struct mqtt_row *row = &mqtt_rows[frame->type];
    mqtt_count(&m->options->totals->packets_in, 1);
    mqtt_count(&m->options->totals->bytes_in, frame->len);
    if (m->state == MQTT_IS_NEW) {
        if (frame->type == MQTT_connect)
            mqtt_on_connect(m, frame);
        else
            mqtt_drop(m); /* section 3.1.0-1: nothing is said to who does not begin with CONNECT */
        return;
    }
    bool allowed = row->when == MQTT_WHEN_RUNNING ? m->state == MQTT_IS_READY : row->when == MQTT_WHEN_LOGIN;
    if (!allowed)
        mqtt_fail(m, MQTT_R_protocol_error, NULL);
    else
        take(m, frame);
}

/* Consumes the next packet; 0: more bytes, or a change of state, are needed. */
static size_t step(struct mqtt *m, struct slice bytes)
{
    struct mqtt_frame frame;
    switch ((enum mqtt_stage)m->state) {
    case MQTT_IS_ASKING:
    case MQTT_IS_ATTACHING: return 0;
    case MQTT_IS_ENDING: return bytes.len;
    default: break;
    }
    switch (mqtt_cut(bytes, m->session.engine.in_max, &frame)) {
    case MQTT_CUT_OK: break;
    case MQTT_CUT_MORE: return 0;
    case MQTT_CUT_BAD: mqtt_fail(m, MQTT_R_malformed, NULL); return bytes.len;
    case MQTT_CUT_LARGE:
        if (m->state == MQTT_IS_NEW)
            mqtt_drop(m);
        else
            mqtt_fail(m, MQTT_R_too_large, NULL);
        return bytes.len;
    }
    take_frame(m, &frame);
    return frame.len;
}

static bool may_go_on(struct mqtt *m)
{
    if (!mqtt_live(m))
        return true; /* throwing away needs nothing */
    if (m->session.engine.paused)
        return false;
    if (m->session.engine.out.len > OUTQ_HIGH) {
        mqtt_pause(m, MQTT_PAUSE_OUT);
        return false;
    }
    if (m->debts.count || hub_room(mqtt_hub(m)) < COMMANDS_PER_PACKET) {
        hub_wait_room(mqtt_hub(m), &m->session);
        return false;
    }
    return true;
}

static size_t engine_feed(struct engine *engine, struct slice bytes)
{
    struct mqtt *m = CONTAINER_OF(engine, struct mqtt, session.engine);
    m->session.heard_at = engine->now;
    size_t used = 0;
    while (used < bytes.len && may_go_on(m)) {
        size_t n = step(m, slice_of(bytes.ptr + used, bytes.len - used));
        used += n;
        if (n == 0)
            break;
    }
    return used;
}

/* ---- effects ---- */

/* Reason codes for what ends a session from inside; the core's text is for people. */
static void on_error(struct mqtt *m, const struct effect *e)
{
    char text[128] = "";
    uint8_t reason = MQTT_R_unspecified;
    if (e->answer && e->answer->code != ERR_NONE) {
        reason = (uint8_t)error_row(e->answer->code)->mqtt;
        snprintf(text, sizeof text, "%.*s", (int)(e->answer->text.len < 127 ? e->answer->text.len : 127),
                 (const char *)e->answer->text.ptr);
    }
    mqtt_fail(m, reason, text[0] ? text : NULL);
}

static void on_answer(struct mqtt *m, const struct effect *e)
{
    switch ((enum mqtt_origin)(e->origin >> 16)) {
    case MQTT_ASKED_LIST: mqtt_list_answer(m, e); break;
    case MQTT_ASKED_RELEASING: mqtt_release_answer(m, e); break;
    case MQTT_ASKED_COMPLETED: mqtt_complete_answer(m, e); break;
    case MQTT_ASKED_KEYS:
    case MQTT_ASKED_LOGIN: mqtt_again_answer(m, e); break;
    case MQTT_ASKED_RELEASED:
        mqtt_owe(m, &(struct mqtt_owed){.lsn = e->lsn,
                                        .type = MQTT_pubcomp,
                                        .id = (uint16_t)e->origin,
                                        .reason = e->answer && e->answer->number ? 0 : MQTT_R_id_not_found});
        break;
    default: break; /* nothing waits for it */
    }
}

static void session_on_effect(struct session *session, struct effect *e)
{
    struct mqtt *m = CONTAINER_OF(session, struct mqtt, session);
    if (session->gone || !mqtt_live(m)) {
        hub_drop(mqtt_hub(m), e);
        return;
    }
    switch ((enum effect_type)e->type) {
    case EFF_DELIVER:
    case EFF_RETAINED: mqtt_deliver_effect(m, e); return;
    case EFF_CONFIRM:
    case EFF_NACK: mqtt_publish_effect(m, e); return;
    case EFF_ANSWER:
        if (m->state == MQTT_IS_READY)
            on_answer(m, e);
        else
            mqtt_connect_effect(m, e);
        break;
    case EFF_ERROR:
        if (m->state == MQTT_IS_READY)
            on_error(m, e);
        else
            mqtt_connect_effect(m, e);
        break;
    case EFF_SESSION_KICK:
    case EFF_CHANNEL_CLOSED:
    case EFF_SESSION_CLOSED: on_error(m, e); break;
    case EFF_BLOCKED: mqtt_pause(m, MQTT_PAUSE_BLOCKED); break;
    case EFF_UNBLOCKED: mqtt_resume(m, MQTT_PAUSE_BLOCKED); break;
    default: break; /* CONSUMER_GONE: a queue was deleted by hand; the subscription is there and gets nothing */
    }
    hub_drop(mqtt_hub(m), e);
}

/* ---- time ---- */

/* Section 3.1.2.10: one and a half times the interval without a packet. */
static mono_t tick_keep_alive(struct mqtt *m, mono_t now)
{
    mono_t grace = m->keep_alive_s * (NS_PER_S + NS_PER_S / 2);
    if (grace == 0)
        return MONO_NEVER;
    if (m->session.engine.paused)
        m->session.heard_at = now;
    if (now - m->session.heard_at >= grace) {
        mqtt_fail(m, MQTT_R_keep_alive, NULL);
        return MONO_NEVER;
    }
    return m->session.heard_at + grace;
}

static mono_t engine_tick(struct engine *engine, mono_t now)
{
    struct mqtt *m = CONTAINER_OF(engine, struct mqtt, session.engine);
    engine->now = now;
    if (m->state == MQTT_IS_READY)
        return engine->next_tick = tick_keep_alive(m, now);
    if (now < m->deadline)
        return engine->next_tick = m->deadline;
    mqtt_drop(m);
    return engine->next_tick = MONO_NEVER;
}

/* ---- the loop's other calls ---- */

static void engine_drained(struct engine *engine)
{
    struct mqtt *m = CONTAINER_OF(engine, struct mqtt, session.engine);
    mqtt_credit_return(m);
    if (engine->out.len <= OUTQ_HIGH / 2)
        mqtt_resume(m, MQTT_PAUSE_OUT);
}

static void engine_shutdown(struct engine *engine, const char *text)
{
    struct mqtt *m = CONTAINER_OF(engine, struct mqtt, session.engine);
    (void)text;
    if (m->state == MQTT_IS_READY)
        mqtt_fail(m, MQTT_R_shutting_down, NULL);
    else
        mqtt_drop(m);
}

static void session_free(struct session *session)
{
    mem_free_as(MEM_CONNECTIONS, CONTAINER_OF(session, struct mqtt, session));
}

static void let_go(struct mqtt *m)
{
    if (m->counted)
        atomic_fetch_sub_explicit(&m->options->totals->clients, 1, memory_order_relaxed);
    m->counted = false;
    mqtt_connect_fini(m);
    mqtt_deliver_fini(m);
    mqtt_subs_free(m);
    mqtt_aliases_free(m, &m->aliases_in);
    mqtt_aliases_free(m, &m->aliases_out);
    fifo_fini(&m->publishes);
    confirms_fini(&m->confirms);
    owed_drop(m);
    debts_drop(m);
}

static void engine_closed(struct engine *engine)
{
    struct mqtt *m = CONTAINER_OF(engine, struct mqtt, session.engine);
    session_cut(&m->session);
    if (mqtt_live(m))
        mqtt_state_move(m, MQTT_IS_ENDING);
    let_go(m);
    session_end(&m->session);
}

static void session_on_room(struct session *session)
{
    struct mqtt *m = CONTAINER_OF(session, struct mqtt, session);
    debts_pay(m);
    if (!m->debts.count && mqtt_live(m))
        mqtt_credit_return(m);
}

/* ---- the factory ---- */

static const struct engine_ops ops = {
    .name = "MQTT",
    .feed = engine_feed,
    .tick = engine_tick,
    .drained = engine_drained,
    .shutdown = engine_shutdown,
    .closed = engine_closed,
};

struct mqtt_options mqtt_options_default(void)
{
    return (struct mqtt_options){
        .vhost = "/",
        .exchange = "amq.topic",
        .anonymous = "guest",
        .response_information = "",
        .refused_filters = "",
        .message_bytes_max = 16u * 1024 * 1024,
        .handshake_ms = 10000,
        .session_expiry_max_s = MQTT_NEVER,
        .subscriptions_max = 10000,
        .out_bytes_max = OUTQ_HIGH,
        .receive_max = 1024,
        .inflight_max = 1024,
        .topic_alias_max = 16,
        .mechanisms = 1u << SCRAM_SHA256 | 1u << SCRAM_SHA512,
    };
}

static void session_init(struct mqtt *m)
{
    m->session.on_effect = session_on_effect;
    m->session.on_fanout = mqtt_on_fanout;
    m->session.on_durable = session_on_durable;
    m->session.on_room = session_on_room;
    m->session.free = session_free;
}

struct engine *mqtt_new(const struct mqtt_options *options, struct hub *hub, const char *peer, bool peer_loopback,
                        mono_t now)
{
    CHECK(options->totals && options->receive_max && options->inflight_max &&
          options->inflight_max <= MQTT_RECEIVE_MAX);
    struct mqtt *m = mem_zalloc_as(MEM_CONNECTIONS, sizeof *m);
    if (!m)
        return NULL;
    if (!session_connect(&m->session, hub, &ops, peer, peer_loopback, now)) {
        mem_free_as(MEM_CONNECTIONS, m);
        return NULL;
    }
    struct engine *engine = &m->session.engine;
    engine->in_max = MQTT_CONNECT_MAX;
    session_init(m);
    m->options = options;
    m->packet_max = UINT32_MAX;
    list_init(&m->jobs);
    fifo_init(&m->publishes, sizeof(struct mqtt_published));
    confirms_init(&m->confirms, 0);
    fifo_init(&m->owed, sizeof(struct mqtt_owed));
    fifo_init(&m->debts, sizeof(struct command));
    fifo_init(&m->waiting, sizeof(struct effect));
    ids_init(&m->ids);
    m->deadline = now + options->handshake_ms * NS_PER_MS;
    engine->next_tick = m->deadline;
    return engine;
}
