/* Transactions: BEGIN, COMMIT, ABORT, and whatever else goes to the core as several commands that belong together.
 *
 * What a transaction holds stays here until COMMIT (options.tx_bytes_max for all of a connection); then it goes to the core in a
 * row, between a TX_SELECT and a TX_COMMIT for once, so that the core makes one record of it: all of it is durable, or none.
 * The ring may have no room for so much; then the rest follows, and nothing is read from the peer meanwhile, so nothing of it can
 * come in between. An aborted one has never reached the core. Decision 0011 says why it is not held there. Thread: the loop's. */
#include "base/check.h"
#include "base/mem.h"
#include "proto/stomp/stomp_int.h"

#define OPS_FIRST 8u

struct stomp_tx *stomp_tx_new(struct slice id)
{
    struct stomp_tx *tx = mem_zalloc(sizeof *tx + id.len);
    if (!tx)
        return NULL;
    list_init(&tx->link);
    list_init(&tx->receipts);
    tx->atomic = true;
    tx->id_len = (uint16_t)id.len;
    if (id.len)
        memcpy(tx->id, id.ptr, id.len);
    return tx;
}

static void tx_free(struct stomp *s, struct stomp_tx *tx)
{
    for (uint32_t i = tx->flushed; i < tx->count; i++)
        if (tx->ops[i].msg)
            msg_unref(stomp_heap(s), tx->ops[i].msg);
    while (!list_empty(&tx->receipts))
        stomp_receipt_free(s, LIST_FIRST(&tx->receipts, struct stomp_receipt, link));
    s->tx_bytes -= tx->bytes;
    list_remove(&tx->link);
    mem_free(tx->ops);
    mem_free(tx);
}

static struct stomp_tx *tx_find(struct stomp *s, struct slice id)
{
    LIST_EACH(&s->transactions, node, after)
    {
        struct stomp_tx *tx = CONTAINER_OF(node, struct stomp_tx, link);
        if (slice_equal(slice_of(tx->id, tx->id_len), id))
            return tx;
    }
    return NULL;
}

static bool tx_known(struct stomp *s, struct slice id, struct stomp_tx **ret)
{
    *ret = tx_find(s, id);
    if (!*ret)
        stomp_error(s, WRONG_TRANSACTION, "Invalid transaction identifier: \"%.*s\"\n", SLICE_ARG(id));
    return *ret != NULL;
}

bool stomp_tx_of(struct stomp *s, const struct stomp_frame *frame, struct stomp_tx **ret)
{
    struct slice id;
    *ret = NULL;
    return !stomp_header_find(frame, "transaction", &id) || tx_known(s, id, ret);
}

/* ---- holding ---- */

static bool ops_reserve(struct stomp_tx *tx)
{
    if (tx->count < tx->room)
        return true;
    uint32_t room = tx->room ? 2 * tx->room : OPS_FIRST;
    struct stomp_op *grown = mem_realloc(tx->ops, room * sizeof *grown);
    if (!grown)
        return false;
    tx->ops = grown;
    tx->room = room;
    return true;
}

bool stomp_tx_add(struct stomp *s, struct stomp_tx *tx, const struct stomp_op *op)
{
    uint64_t bytes = sizeof *op + (op->msg ? msg_size(op->msg) : 0);
    bool fits = s->tx_bytes + bytes <= s->options->tx_bytes_max || (tx->id_len == 0 && !op->msg),
         room = fits && ops_reserve(tx);
    if (room) {
        tx->ops[tx->count++] = *op;
        tx->bytes += bytes;
        s->tx_bytes += bytes;
        return true;
    }
    if (op->msg)
        msg_unref(stomp_heap(s), op->msg);
    if (!fits)
        stomp_error(s, WRONG_TRANSACTION, "Open transactions hold more than %llu bytes\n",
                    (unsigned long long)s->options->tx_bytes_max);
    else
        stomp_fail_memory(s);
    if (tx->id_len == 0) /* it is in no list that would be freed */
        tx_free(s, tx);
    return false;
}

/* ---- handing over ---- */

static void flush_op(struct stomp *s, struct stomp_op *op)
{
    if (op->msg) {
        stomp_publish(s, op->msg);
        op->msg = NULL;
        return;
    }
    struct command *command = stomp_command(s, op->type, 0);
    command->number = op->number;
    command->flags = op->flags;
}

/* Its receipts are released by the answer to its TX_COMMIT. Returns the mark for that. */
static uint32_t receipts_ask(struct stomp *s, struct stomp_tx *tx)
{
    uint32_t origin = list_empty(&tx->receipts) ? 0 : ORIGIN_RECEIPT;
    while (!list_empty(&tx->receipts)) {
        struct stomp_receipt *receipt = LIST_FIRST(&tx->receipts, struct stomp_receipt, link);
        list_remove(&receipt->link);
        receipt->joined = !list_empty(&tx->receipts);
        list_insert(&s->asked, &receipt->link);
    }
    return origin;
}

/* False: no room. */
static bool flush_some(struct stomp *s, struct stomp_tx *tx)
{
    uint32_t room = hub_room(stomp_hub(s));
    if (tx->atomic && !tx->begun) {
        if (room == 0)
            return false;
        stomp_command(s, CMD_TX_SELECT, 0)->flags = ASK_ONE_TX;
        tx->begun = true;
        room--;
    }
    for (; tx->flushed < tx->count && room; room--)
        flush_op(s, &tx->ops[tx->flushed++]);
    if (tx->flushed < tx->count || (tx->atomic && room == 0))
        return false;
    if (tx->atomic)
        stomp_command(s, CMD_TX_COMMIT, receipts_ask(s, tx))->flags = ASK_ONE_TX;
    return true;
}

void stomp_flush_on(struct stomp *s)
{
    struct stomp_tx *tx = s->flushing;
    if (!flush_some(s, tx)) {
        hub_wait_room(stomp_hub(s), &s->session);
        return;
    }
    s->flushing = NULL;
    tx_free(s, tx);
    engine_dirty(&s->session.engine);
}

void stomp_tx_flush(struct stomp *s, struct stomp_tx *tx)
{
    CHECK(!s->flushing);
    s->flushing = tx;
    stomp_flush_on(s);
}

void stomp_transactions_free(struct stomp *s)
{
    if (s->flushing)
        tx_free(s, s->flushing);
    s->flushing = NULL;
    while (!list_empty(&s->transactions))
        tx_free(s, LIST_FIRST(&s->transactions, struct stomp_tx, link));
    s->transaction_count = 0;
}

/* ---- what a client says ---- */

static struct slice id_of(const struct stomp_frame *frame)
{
    struct slice id;
    CHECK(stomp_header_find(frame, "transaction", &id));
    return id;
}

void stomp_on_begin(struct stomp *s, const struct stomp_frame *frame)
{
    struct slice id = id_of(frame);
    if (id.len == 0 || id.len > STOMP_NAME_MAX || tx_find(s, id)) {
        stomp_error(s, WRONG_TRANSACTION,
                    id.len && id.len <= STOMP_NAME_MAX ? "Transaction \"%.*s\" has begun already\n"
                                                       : "Invalid transaction identifier: \"%.*s\"\n",
                    SLICE_ARG(id));
        return;
    }
    if (s->transaction_count >= STOMP_TRANSACTIONS_MAX) {
        stomp_error(s, WRONG_TRANSACTION, "There are %u open transactions\n", s->transaction_count);
        return;
    }
    struct stomp_tx *tx = stomp_tx_new(id);
    if (!tx) {
        stomp_fail_memory(s);
        return;
    }
    list_insert(&s->transactions, &tx->link);
    s->transaction_count++;
    stomp_receipt_now(s);
}

void stomp_on_commit(struct stomp *s, const struct stomp_frame *frame)
{
    struct stomp_tx *tx;
    if (!tx_known(s, id_of(frame), &tx))
        return;
    struct stomp_receipt *receipt = stomp_receipt_take(s);
    if (!stomp_live(s))
        return;
    if (receipt)
        list_insert(&tx->receipts, &receipt->link);
    list_remove(&tx->link);
    s->transaction_count--;
    stomp_tx_flush(s, tx);
}

void stomp_on_abort(struct stomp *s, const struct stomp_frame *frame)
{
    struct stomp_tx *tx;
    if (!tx_known(s, id_of(frame), &tx))
        return;
    stomp_tags_restore(s, tx->ops, tx->count);
    s->transaction_count--;
    tx_free(s, tx);
    if (stomp_live(s))
        stomp_receipt_now(s);
}
