/* What the core says, into frames.
 *
 * Nothing but receipts is held until durable: an answer takes effect here when it comes (a subscription has its number before its
 * first delivery), and what it releases waits in receipts.c. Deliveries are decided by the core for what is durable only.
 * The bytes of what was delivered go back to the core as credit once they have left. Thread: the loop's. */
#include "base/check.h"
#include "proto/stomp/stomp_int.h"

/* ---- credit ---- */

/* ---- effects ---- */

static void on_answer(struct stomp *s, const struct effect *e)
{
    uint64_t number = e->answer ? e->answer->number : 0;
    switch (ORIGIN_CUE(e->origin)) {
    case CUE_LOGIN: stomp_logged_in(s); return;
    case CUE_ENTER:
        stomp_entered(s);
        engine_dirty(&s->session.engine); /* what came meanwhile can be read */
        return;
    case CUE_CONSUME: stomp_subscribed(s, ORIGIN_LOW(e->origin), (uint32_t)number); break;
    case CUE_CANCEL: stomp_unsubscribed(s, ORIGIN_LOW(e->origin)); break;
    case CUE_NOTHING:
    case CUE_SEND: break;
    }
    if (!stomp_live(s))
        return;
    if (e->lsn > s->answered_lsn)
        s->answered_lsn = e->lsn;
    if (e->origin & ORIGIN_RECEIPT)
        stomp_receipt_answered(s, e->lsn);
    stomp_leave_on(s);
}

static void on_error(struct stomp *s, const struct effect *e)
{
    if (s->state == CONN_LOGIN || s->state == CONN_ENTER)
        stomp_login_refused(s, e->answer);
    else
        stomp_error_core(s, e->answer->code, e->answer->text, stomp_receipt_of(s, e->origin));
}

static void on_deliver(struct stomp *s, struct effect *e)
{
    struct stomp_subscription *sub = stomp_subscription_of(s, e->consumer);
    s->session.credit_bytes += delivery_cost(e->msg);
    if (sub && sub->ack == ACK_CLIENT && !stomp_tags_push(sub, e->number)) {
        stomp_fail_memory(s);
        sub = NULL;
    }
    if (!sub) {
        hub_drop(stomp_hub(s), e);
        session_credit_return(&s->session);
        return;
    }
    stomp_out_message(s, sub, e);
    e->msg = NULL;
}

static void on_gone(struct stomp *s, uint32_t consumer)
{
    struct stomp_subscription *sub = stomp_subscription_of(s, consumer);
    if (!sub || sub->leaving)
        return; /* the answer to its CANCEL names its slot: until then that is no other's */
    stomp_error_cancelled(s, sub);
    stomp_unsubscribed(s, sub->slot);
}

static void on_session_closed(struct stomp *s)
{
    s->core_left = true;
    if (s->state == CONN_LEAVING)
        stomp_leave_on(s);
    else if (stomp_live(s))
        stomp_end(s);
}

/* The rest, which may carry an answer. */
static void on_other(struct stomp *s, struct effect *e)
{
    switch ((enum effect_type)e->type) {
    case EFF_ANSWER: on_answer(s, e); break;
    case EFF_ERROR: on_error(s, e); break;
    case EFF_CONSUMER_GONE: on_gone(s, e->consumer); break;
    case EFF_BLOCKED: stomp_pause(s, PAUSE_BLOCKED); break;
    case EFF_UNBLOCKED: stomp_resume(s, PAUSE_BLOCKED); break;
    case EFF_SESSION_KICK:
        stomp_error_core(s, e->answer ? e->answer->code : ERR_CONNECTION_FORCED,
                         e->answer ? e->answer->text : slice_str("no room for another connection"), (struct slice){0});
        break;
    case EFF_SESSION_CLOSED: on_session_closed(s); break;
    default: break;
    }
    hub_drop(stomp_hub(s), e);
}

void stomp_on_effect(struct session *session, struct effect *e)
{
    struct stomp *s = CONTAINER_OF(session, struct stomp, session);
    if (!stomp_live(s))
        hub_drop(stomp_hub(s), e);
    else if (e->type == EFF_DELIVER)
        on_deliver(s, e);
    else if (e->type == EFF_CONFIRM || e->type == EFF_NACK)
        stomp_confirm_push(s, e);
    else
        on_other(s, e);
}
