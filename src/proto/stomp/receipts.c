/* Receipts, and what they wait for.
 *
 * A SEND's receipt waits for the confirm of its message, and the confirm for its lsn: confirms are a FIFO, released once a turn.
 * What the core answers (SUBSCRIBE, COMMIT, an ACK that wants a receipt) has its receipts in `asked`, in the order of the
 * commands; its answer moves them to `answered`, where they wait until the highest lsn that any answer came with is durable.
 * DISCONNECT's waits for all of that and for the core to let go. So a receipt says that nothing before it can be lost.
 *
 * Receipts take memory that the peer chooses: above RECEIPTS_HIGH it is not read. Thread: the loop's. */
#include "base/check.h"
#include "base/mem.h"
#include "proto/stomp/stomp_int.h"

#define RECEIPTS_HIGH (256u * 1024)

static uint64_t cost(const struct stomp_receipt *receipt)
{
    return sizeof *receipt + receipt->len;
}

struct stomp_receipt *stomp_receipt_take(struct stomp *s)
{
    if (!s->receipt.ptr)
        return NULL;
    struct stomp_receipt *receipt = mem_zalloc(sizeof *receipt + s->receipt.len);
    if (!receipt) {
        stomp_fail_memory(s);
        return NULL;
    }
    list_init(&receipt->link);
    receipt->len = (uint16_t)s->receipt.len;
    if (receipt->len)
        memcpy(receipt->id, s->receipt.ptr, receipt->len);
    s->receipt_bytes += cost(receipt);
    if (s->receipt_bytes > RECEIPTS_HIGH)
        stomp_pause(s, PAUSE_HELD);
    return receipt;
}

void stomp_receipt_free(struct stomp *s, struct stomp_receipt *receipt)
{
    if (!receipt)
        return;
    list_remove(&receipt->link);
    s->receipt_bytes -= cost(receipt);
    mem_free(receipt);
    if (s->receipt_bytes < RECEIPTS_HIGH / 2)
        stomp_resume(s, PAUSE_HELD);
}

static void say(struct stomp *s, struct stomp_receipt *receipt)
{
    stomp_out_receipt(s, slice_of(receipt->id, receipt->len));
    stomp_receipt_free(s, receipt);
}

void stomp_receipt_now(struct stomp *s)
{
    if (s->receipt.ptr && stomp_live(s))
        stomp_out_receipt(s, s->receipt);
}

uint32_t stomp_receipt_ask(struct stomp *s)
{
    struct stomp_receipt *receipt = stomp_receipt_take(s);
    if (!receipt)
        return 0;
    list_insert(&s->asked, &receipt->link);
    return ORIGIN_RECEIPT;
}

/* The receipts of `answered` that may leave. */
static void release_answered(struct stomp *s, lsn_t durable)
{
    while (!list_empty(&s->answered)) {
        struct stomp_receipt *receipt = LIST_FIRST(&s->answered, struct stomp_receipt, link);
        if (receipt->number > durable)
            return;
        say(s, receipt);
    }
}

void stomp_receipt_answered(struct stomp *s, lsn_t lsn)
{
    if (lsn > s->answered_lsn)
        s->answered_lsn = lsn;
    bool joined = true;
    while (joined && !list_empty(&s->asked)) {
        struct stomp_receipt *receipt = LIST_FIRST(&s->asked, struct stomp_receipt, link);
        joined = receipt->joined;
        receipt->number = s->answered_lsn;
        list_remove(&receipt->link);
        list_insert(&s->answered, &receipt->link);
    }
    release_answered(s, hub_durable(stomp_hub(s)));
    if (!list_empty(&s->answered))
        hub_hold(stomp_hub(s), &s->session);
}

struct slice stomp_receipt_of(struct stomp *s, uint32_t origin)
{
    struct stomp_receipt *receipt = NULL;
    if (origin & ORIGIN_RECEIPT)
        receipt = LIST_FIRST(&s->asked, struct stomp_receipt, link);
    else if (ORIGIN_CUE(origin) == CUE_SEND)
        LIST_EACH(&s->sent, node, after)
        {
            struct stomp_receipt *r = CONTAINER_OF(node, struct stomp_receipt, link);
            if ((r->number & 0xffffffu) == ORIGIN_LOW(origin))
                receipt = r;
        }
    return receipt ? slice_of(receipt->id, receipt->len) : (struct slice){0};
}

/* ---- confirms ---- */

void stomp_confirm_push(struct stomp *s, const struct effect *e)
{
    if (confirms_add(&s->confirms, e, 0, hub_durable(stomp_hub(s))))
        hub_hold(stomp_hub(s), &s->session);
    else
        stomp_fail_memory(s);
}

static void settle(struct stomp *s, uint64_t bytes)
{
    if (bytes > s->unsettled_bytes)
        bytes = s->unsettled_bytes; /* those of transactions were not counted */
    s->unsettled_bytes -= bytes;
    if (s->unsettled_bytes < STOMP_INFLIGHT_LOW)
        stomp_resume(s, PAUSE_FLOW);
}

/* Receipts of SENDs up to that number. False: one of them was refused, and the connection has ended. */
static bool say_sent(struct stomp *s, const struct confirm *c)
{
    while (!list_empty(&s->sent)) {
        struct stomp_receipt *receipt = LIST_FIRST(&s->sent, struct stomp_receipt, link);
        if (receipt->number > c->number)
            break;
        if (c->refused && receipt->number == c->number) {
            s->receipt = slice_of(receipt->id, receipt->len);
            stomp_error(s, WRONG_NOT_ACCEPTED,
                        "A queue is full, or the broker is out of memory or disk: the message was not accepted\n");
            s->receipt = (struct slice){0};
            return false;
        }
        say(s, receipt);
    }
    return true;
}

static void release_confirms(struct stomp *s, lsn_t durable)
{
    uint64_t bytes = 0;
    struct confirm c;
    while (confirms_take(&s->confirms, durable, &c)) {
        bytes += c.bytes;
        s->confirmed = c.number;
        if (!say_sent(s, &c))
            return;
    }
    settle(s, bytes);
}

/* ---- the end ---- */

void stomp_leave_on(struct stomp *s)
{
    if (s->state != CONN_LEAVING || !s->core_left || confirms_count(&s->confirms) || !list_empty(&s->answered))
        return;
    if (s->farewell)
        stomp_out_receipt(s, slice_of(s->farewell->id, s->farewell->len));
    stomp_end(s);
}

bool stomp_on_durable(struct session *session, lsn_t durable)
{
    struct stomp *s = CONTAINER_OF(session, struct stomp, session);
    if (!stomp_live(s))
        return false;
    release_confirms(s, durable);
    if (!stomp_live(s))
        return false;
    release_answered(s, durable);
    stomp_leave_on(s);
    return stomp_live(s) && (confirms_count(&s->confirms) || !list_empty(&s->answered));
}

static void free_all(struct stomp *s, struct list *list)
{
    while (!list_empty(list))
        stomp_receipt_free(s, LIST_FIRST(list, struct stomp_receipt, link));
}

void stomp_receipts_free(struct stomp *s)
{
    free_all(s, &s->sent);
    free_all(s, &s->asked);
    free_all(s, &s->answered);
    stomp_receipt_free(s, s->farewell);
    s->farewell = NULL;
    confirms_fini(&s->confirms);
}
