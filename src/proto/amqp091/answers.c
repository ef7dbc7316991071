/* Effects into frames, see answers.h.
 *
 * Order and durability, per channel:
 * - Answers, deliveries, get-ok and the rest form one FIFO. What has an lsn above the durable one is held, and whatever
 *   comes behind it on its channel as well; normally nothing is held and an effect is a frame at once.
 * - Confirms are a FIFO of their own, so that a slow disk delays no delivery. They are released once a turn, and what
 *   can be said together is one basic.ack with multiple. A confirm waits while a basic.return is held (it was for a
 *   publish before).
 * The bytes of what was delivered are summed and go back to the core as credit once they have left (engine.c: drained).
 * Effects for a channel that has failed are freed unsaid, but their credit counts. Thread: the loop's. */
#include "proto/amqp091/answers.h"

#include "base/check.h"
#include "base/mem.h"
#include "proto/amqp091/channel.h"
#include "proto/amqp091/handshake.h"
#include "proto/amqp091/out.h"

/* An effect that nobody will see. */
static void drop_effect(struct amqp091 *a, struct effect *e)
{
    bool delivery = e->type == EFF_DELIVER;
    if (delivery)
        a->session.credit_bytes += delivery_cost(e->msg);
    hub_drop(amqp091_hub(a), e);
    if (delivery)
        session_credit_return(&a->session);
}

/* ---- holding ---- */

static void channel_holds(struct amqp091 *a, struct amqp091_channel *ch)
{
    if (!ch->is_holding) {
        ch->is_holding = true;
        list_insert(&a->holding, &ch->holding_link);
    }
    hub_hold(amqp091_hub(a), &a->session);
}

static void hold(struct amqp091 *a, struct amqp091_channel *ch, struct effect *e)
{
    struct amqp091_held *held = mem_alloc(sizeof *held);
    if (!held) {
        drop_effect(a, e);
        amqp091_fail_memory(a);
        return;
    }
    held->effect = *e;
    list_insert(&ch->held, &held->link);
    ch->held_returns += e->type == EFF_RETURN;
    if (++a->held_count > AMQP091_HELD_MAX)
        amqp091_pause(a, PAUSE_HELD);
    channel_holds(a, ch);
}

static void held_take(struct amqp091 *a, struct amqp091_channel *ch, struct effect *ret)
{
    struct amqp091_held *held = LIST_FIRST(&ch->held, struct amqp091_held, link);
    *ret = held->effect;
    list_remove(&held->link);
    mem_free(held);
    ch->held_returns -= ret->type == EFF_RETURN;
    if (--a->held_count < AMQP091_HELD_MAX / 2)
        amqp091_resume(a, PAUSE_HELD);
}

void amqp091_held_drop(struct amqp091 *a, struct amqp091_channel *ch)
{
    while (!list_empty(&ch->held)) {
        struct effect e;
        held_take(a, ch, &e);
        drop_effect(a, &e);
    }
    list_remove(&ch->holding_link);
    ch->is_holding = false;
}

/* ---- confirms ---- */

static void confirm_push(struct amqp091 *a, struct amqp091_channel *ch, const struct effect *e)
{
    uint8_t kind = e->flags & EFFECT_SILENT ? CONFIRM_SILENT : CONFIRM_ACK;
    if (confirms_add(&ch->confirms, e, kind, hub_durable(amqp091_hub(a))))
        channel_holds(a, ch);
    else
        amqp091_fail_memory(a);
}

static void say_acks(struct amqp091 *a, struct amqp091_channel *ch, uint64_t upto)
{
    if (upto <= ch->confirmed)
        return;
    amqp091_out_confirm(a, ch->number, upto - ch->confirm_base, upto - ch->confirmed > 1, false);
    ch->confirmed = upto;
}

static void confirms_release(struct amqp091 *a, struct amqp091_channel *ch, lsn_t durable)
{
    uint64_t upto = 0, bytes = 0;
    struct confirm c;
    while (ch->held_returns == 0 && confirms_take(&ch->confirms, durable, &c)) {
        bytes += c.bytes;
        if (!c.refused && c.kind == CONFIRM_ACK)
            upto = c.number;
        if (c.refused && c.number > ch->confirm_base) {
            say_acks(a, ch, upto);
            amqp091_out_confirm(a, ch->number, c.number - ch->confirm_base, false, true);
            ch->confirmed = c.number;
        }
    }
    say_acks(a, ch, upto);
    amqp091_settle(a, ch, bytes);
}

/* ---- consumers ---- */

static void consumer_add(struct amqp091 *a, struct amqp091_channel *ch, uint32_t id, struct slice tag)
{
    struct amqp091_consumer *consumer = mem_alloc(sizeof *consumer + FRAME_HEAD + 4 + 1 + tag.len);
    if (!consumer || !map_reserve(&ch->consumers)) {
        mem_free(consumer);
        amqp091_fail_memory(a);
        return;
    }
    consumer->id = id;
    consumer->prefix_len = amqp091_out_prefix(consumer->prefix, ch->number, tag);
    map_put(&ch->consumers, map_key_u64(&consumer->id), consumer);
    ch->last_consumer = consumer;
}

static struct amqp091_consumer *consumer_find(struct amqp091_channel *ch, uint32_t id)
{
    if (ch->last_consumer && ch->last_consumer->id == id)
        return ch->last_consumer;
    uint64_t key = id;
    struct amqp091_consumer *consumer = map_get(&ch->consumers, map_key_u64(&key));
    if (consumer)
        ch->last_consumer = consumer;
    return consumer;
}

static void consumer_remove(struct amqp091_channel *ch, uint32_t id)
{
    uint64_t key = id;
    struct amqp091_consumer *consumer = map_take(&ch->consumers, map_key_u64(&key));
    if (ch->last_consumer == consumer)
        ch->last_consumer = NULL;
    mem_free(consumer);
}

/* ---- answers to requests ---- */

/* What an answer has to say; the block may be absent. */
struct said {
    struct slice name;
    uint64_t number, number2;
};

static void fill_queue_declare(union amqp091_fields *f, const struct said *said)
{
    f->queue_declare_ok = (struct amqp091_queue_declare_ok){
        .queue = said->name, .message_count = (uint32_t)said->number, .consumer_count = (uint32_t)said->number2};
}

static void fill_queue_purge(union amqp091_fields *f, const struct said *said)
{
    f->queue_purge_ok.message_count = (uint32_t)said->number;
}

static void fill_queue_delete(union amqp091_fields *f, const struct said *said)
{
    f->queue_delete_ok.message_count = (uint32_t)said->number;
}

static void fill_consume(union amqp091_fields *f, const struct said *said)
{
    f->basic_consume_ok.consumer_tag = said->name;
}

static void fill_cancel(union amqp091_fields *f, const struct said *said)
{
    f->basic_cancel_ok.consumer_tag = said->name;
}

static void fill_flow(union amqp091_fields *f, const struct said *said)
{
    (void)said;
    f->channel_flow_ok.active = true;
}

static void fill_access(union amqp091_fields *f, const struct said *said)
{
    (void)said;
    f->access_request_ok.ticket = 1;
}

/* What is said when the core has done a request; no row: nothing is. */
static const struct reply {
    enum amqp091_method ok; /* connection.start, the first row, stands for none */
    void (*fill)(union amqp091_fields *f, const struct said *said);
} replies[AMQP091_METHOD_COUNT] = {
    [AMQP091_channel_open] = {AMQP091_channel_open_ok, NULL},
    [AMQP091_channel_flow] = {AMQP091_channel_flow_ok, fill_flow},
    [AMQP091_access_request] = {AMQP091_access_request_ok, fill_access},
    [AMQP091_exchange_declare] = {AMQP091_exchange_declare_ok, NULL},
    [AMQP091_exchange_delete] = {AMQP091_exchange_delete_ok, NULL},
    [AMQP091_exchange_bind] = {AMQP091_exchange_bind_ok, NULL},
    [AMQP091_exchange_unbind] = {AMQP091_exchange_unbind_ok, NULL},
    [AMQP091_queue_declare] = {AMQP091_queue_declare_ok, fill_queue_declare},
    [AMQP091_queue_bind] = {AMQP091_queue_bind_ok, NULL},
    [AMQP091_queue_unbind] = {AMQP091_queue_unbind_ok, NULL},
    [AMQP091_queue_purge] = {AMQP091_queue_purge_ok, fill_queue_purge},
    [AMQP091_queue_delete] = {AMQP091_queue_delete_ok, fill_queue_delete},
    [AMQP091_basic_qos] = {AMQP091_basic_qos_ok, NULL},
    [AMQP091_basic_consume] = {AMQP091_basic_consume_ok, fill_consume},
    [AMQP091_basic_cancel] = {AMQP091_basic_cancel_ok, fill_cancel},
    [AMQP091_basic_recover] = {AMQP091_basic_recover_ok, NULL},
    [AMQP091_confirm_select] = {AMQP091_confirm_select_ok, NULL},
    [AMQP091_tx_select] = {AMQP091_tx_select_ok, NULL},
    [AMQP091_tx_commit] = {AMQP091_tx_commit_ok, NULL},
    [AMQP091_tx_rollback] = {AMQP091_tx_rollback_ok, NULL},
};

static uint16_t class_of(uint32_t origin)
{
    return (uint16_t)(ORIGIN_METHOD(origin) >> 16);
}

static uint16_t method_of(uint32_t origin)
{
    return (uint16_t)origin;
}

/* Everything that the client sent before its mistake has been answered. */
static void fence_passed(struct amqp091 *a, struct amqp091_channel *ch)
{
    struct amqp091_fault *fault = ch->fault;
    ch->fault = NULL;
    if (fault && ch->state == CHANNEL_FENCED)
        amqp091_channel_fail(a, ch, fault->code, fault->class_id, fault->method_id, slice_str(fault->text));
    mem_free(fault);
}

static void say_answer(struct amqp091 *a, struct amqp091_channel *ch, const struct effect *e)
{
    if (e->origin & ORIGIN_FENCE) {
        fence_passed(a, ch);
        return;
    }
    const struct amqp091_row *row = amqp091_row_find(class_of(e->origin), method_of(e->origin));
    CHECK(row);
    size_t asked = (size_t)(row - amqp091_rows);
    struct said said = {.number = 0};
    if (e->answer)
        said = (struct said){e->answer->name, e->answer->number, e->answer->number2};
    if (replies[asked].ok && !(e->origin & ORIGIN_NO_WAIT)) {
        union amqp091_fields f;
        memset(&f, 0, sizeof f); /* reserved fields are empty */
        if (replies[asked].fill)
            replies[asked].fill(&f, &said);
        amqp091_out_method(a, ch->number, replies[asked].ok, &f);
    }
    if (asked == AMQP091_basic_consume)
        consumer_add(a, ch, (uint32_t)said.number, said.name);
    if (asked == AMQP091_basic_cancel && said.number)
        consumer_remove(ch, (uint32_t)said.number);
}

static void say_consumer_gone(struct amqp091 *a, struct amqp091_channel *ch, uint32_t id)
{
    const struct amqp091_consumer *consumer = consumer_find(ch, id);
    if (!consumer)
        return;
    const uint8_t *tag = consumer->prefix + FRAME_HEAD + 4;
    amqp091_out_method(a, ch->number, AMQP091_basic_cancel,
                       &(struct amqp091_basic_cancel){.consumer_tag = slice_of(tag + 1, tag[0]), .no_wait = true});
    consumer_remove(ch, id);
}

static void say_deliver(struct amqp091 *a, struct amqp091_channel *ch, struct effect *e)
{
    const struct amqp091_consumer *consumer = consumer_find(ch, e->consumer);
    if (!consumer) {
        drop_effect(a, e);
        return;
    }
    a->session.credit_bytes += delivery_cost(e->msg);
    if (e->flags & EFFECT_STREAM)
        amqp091_out_deliver_stream(a, ch->number, consumer, e->number, e->count, e->origin, e->msg);
    else
        amqp091_out_deliver(a, ch->number, consumer, e->number, e->flags & EFFECT_REDELIVERED, e->msg);
    e->msg = NULL;
}

static void say_return(struct amqp091 *a, struct amqp091_channel *ch, struct effect *e)
{
    enum error_code code = e->answer ? e->answer->code : ERR_NO_ROUTE;
    struct slice text = e->answer && e->answer->text.len ? e->answer->text : slice_str(error_row(code)->name);
    amqp091_out_return(a, ch->number, error_row(code)->amqp, text, e->msg);
    e->msg = NULL;
}

static void say_error(struct amqp091 *a, struct amqp091_channel *ch, const struct effect *e)
{
    amqp091_channel_fail(a, ch, e->answer->code, class_of(e->origin), method_of(e->origin), e->answer->text);
}

/* Its turn has come. Takes msg and answer over; may free the channel (CHANNEL_CLOSED) or end the connection. */
static void say(struct amqp091 *a, struct amqp091_channel *ch, struct effect *e)
{
    switch ((enum effect_type)e->type) {
    case EFF_DELIVER: say_deliver(a, ch, e); return; /* no answer to free, and it is the hot one */
    case EFF_ANSWER: say_answer(a, ch, e); break;
    case EFF_ERROR: say_error(a, ch, e); break;
    case EFF_RETURN: say_return(a, ch, e); break;
    case EFF_GET_OK:
        amqp091_out_get_ok(a, ch->number, e->number, e->flags & EFFECT_REDELIVERED, (uint32_t)e->count, e->msg);
        e->msg = NULL;
        break;
    case EFF_GET_EMPTY:
        amqp091_out_method(a, ch->number, AMQP091_basic_get_empty, &(struct amqp091_basic_get_empty){{0}});
        break;
    case EFF_CONSUMER_GONE: say_consumer_gone(a, ch, e->consumer); break;
    case EFF_CHANNEL_CLOSED: amqp091_channel_closed(a, ch); break;
    default: break;
    }
    hub_drop(amqp091_hub(a), e);
}

/* ---- the connection's own effects ---- */

static void connection_answer(struct amqp091 *a, uint32_t origin)
{
    if (a->state == CONN_LOGIN)
        amqp091_logged_in(a);
    else if (a->state == CONN_ENTER)
        amqp091_entered(a);
    else if (ORIGIN_METHOD(origin) == AMQP091_ORIGIN(10, 70))
        amqp091_out_method(a, 0, AMQP091_connection_update_secret_ok, NULL);
    engine_dirty(&a->session.engine); /* what came meanwhile can be read */
}

static void connection_error(struct amqp091 *a, const struct effect *e)
{
    const struct answer *answer = e->answer;
    if (a->state == CONN_LOGIN)
        amqp091_login_refused(a, answer);
    else
        amqp091_fail(a, answer->code, class_of(e->origin), method_of(e->origin), "%.*s", SLICE_ARG(answer->text));
}

static void connection_effect(struct amqp091 *a, struct effect *e)
{
    switch ((enum effect_type)e->type) {
    case EFF_ANSWER: connection_answer(a, e->origin); break;
    case EFF_ERROR: connection_error(a, e); break;
    case EFF_BLOCKED:
        if (a->capabilities & CLIENT_BLOCKED)
            amqp091_out_method(
                a, 0, AMQP091_connection_blocked,
                &(struct amqp091_connection_blocked){e->answer ? e->answer->text : slice_str("low on resources")});
        amqp091_pause(a, PAUSE_BLOCKED);
        break;
    case EFF_UNBLOCKED:
        if (a->capabilities & CLIENT_BLOCKED)
            amqp091_out_method(a, 0, AMQP091_connection_unblocked, NULL);
        amqp091_resume(a, PAUSE_BLOCKED);
        break;
    case EFF_SESSION_KICK:
        amqp091_fail(a, e->answer ? e->answer->code : ERR_CONNECTION_FORCED, 0, 0, "%.*s",
                     e->answer ? (int)e->answer->text.len : 0, e->answer ? (const char *)e->answer->text.ptr : "");
        break;
    default: break;
    }
    hub_drop(amqp091_hub(a), e);
}

void amqp091_session_closed(struct amqp091 *a, lsn_t lsn)
{
    amqp091_channels_free(a);
    if (a->session.gone || a->state != CONN_LEAVING)
        return;
    if (lsn > hub_durable(amqp091_hub(a))) {
        a->closed_lsn = lsn;
        hub_hold(amqp091_hub(a), &a->session);
        return;
    }
    amqp091_out_method(a, 0, AMQP091_connection_close_ok, NULL);
    amqp091_drop(a, 0);
}

/* ---- the hub's calls ---- */

/* Failed channels say nothing; a channel that its client is leaving still gets what the core said before it closed. */
static bool unwanted(const struct amqp091_channel *ch, const struct effect *e)
{
    if (e->type == EFF_CHANNEL_CLOSED)
        return false;
    return ch->state == CHANNEL_FAILED || (ch->state == CHANNEL_LEAVING && !ch->client_closed);
}

static void channel_effect(struct amqp091 *a, struct amqp091_channel *ch, struct effect *e)
{
    if (e->type == EFF_CONFIRM || e->type == EFF_NACK)
        confirm_push(a, ch, e);
    else if (!list_empty(&ch->held) || e->lsn > hub_durable(amqp091_hub(a)))
        hold(a, ch, e);
    else
        say(a, ch, e);
}

void amqp091_on_effect(struct session *session, struct effect *e)
{
    struct amqp091 *a = CONTAINER_OF(session, struct amqp091, session);
    if (e->type == EFF_SESSION_CLOSED) {
        hub_drop(amqp091_hub(a), e);
        amqp091_session_closed(a, e->lsn);
        return;
    }
    if (!amqp091_live(a)) {
        hub_drop(amqp091_hub(a), e);
        return;
    }
    if (e->channel == 0) {
        connection_effect(a, e);
        return;
    }
    struct amqp091_channel *ch = amqp091_channel_find(a, e->channel);
    if (ch && !unwanted(ch, e)) {
        channel_effect(a, ch, e);
        return;
    }
    if (e->type == EFF_ERROR && error_row(e->answer->code)->hard)
        amqp091_fail(a, e->answer->code, class_of(e->origin), method_of(e->origin), "%.*s", SLICE_ARG(e->answer->text));
    drop_effect(a, e);
}

/* Everything of one channel that may go. */
static void channel_release(struct amqp091 *a, struct amqp091_channel *ch, lsn_t durable)
{
    while (!list_empty(&ch->held) && LIST_FIRST(&ch->held, struct amqp091_held, link)->effect.lsn <= durable) {
        struct effect e;
        held_take(a, ch, &e);
        bool last = e.type == EFF_CHANNEL_CLOSED;
        say(a, ch, &e);
        if (last || !amqp091_live(a))
            return; /* the channel may be gone */
    }
    confirms_release(a, ch, durable);
    if (list_empty(&ch->held) && confirms_count(&ch->confirms) == 0) {
        list_remove(&ch->holding_link);
        ch->is_holding = false;
    }
}

bool amqp091_on_durable(struct session *session, lsn_t durable)
{
    struct amqp091 *a = CONTAINER_OF(session, struct amqp091, session);
    if (a->closed_lsn && a->closed_lsn <= durable && a->state == CONN_LEAVING) {
        a->closed_lsn = 0;
        amqp091_session_closed(a, 0);
    }
    if (!amqp091_live(a))
        return a->closed_lsn && a->state == CONN_LEAVING;
    LIST_EACH(&a->holding, node, after)
    {
        channel_release(a, CONTAINER_OF(node, struct amqp091_channel, holding_link), durable);
        if (!amqp091_live(a))
            return false;
    }
    return !list_empty(&a->holding);
}
