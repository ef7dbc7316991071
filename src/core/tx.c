/* Transactions (tx class): publishes and acks of a channel that take effect together.
 *
 * A message is routed when it is published and held, an ack is taken out of the unacked list and held. Commit writes one
 * logical record with everything in it (cut into pieces when it is large), so recovery sees all or nothing; the answer
 * waits until that record is durable. Rollback drops the messages and gives the acks back. An open transaction holds at
 * most options.tx_bytes_max.
 *
 * Commit has two halves. The first finds out what each step will do and takes everything that it needs: room in the
 * journal and in the capture, entries, the answers of returns, the messages of dead letters. When something is refused
 * nothing has changed. The second cannot fail. Its steps are, in this order: what just leaves its queue, with the removals
 * written at once; the publishes; dead letters and returns to queues. What the steps bring about in others (a queue that
 * pushes out its oldest) is not of the transaction: it finds memory of its own or waits for the next tick.
 */
#include "core/core_int.h"

void tx_publish(struct broker *b, struct channel *ch, struct msg *msg, const struct route *route, int64_t delay_ms,
                uint32_t origin)
{
    struct tx_publish *p = mem_zalloc(sizeof *p);
    uint32_t count = route ? route->count : 0;
    uint64_t bytes = msg_size(msg) + count * sizeof *p->queue_ids;
    if (ch->tx_bytes + bytes > b->options.tx_bytes_max) {
        mem_free(p);
        fail(b, ch->peer, ch->number, origin, ERR_PRECONDITION_FAILED, "transaction is larger than max size %llu",
             (unsigned long long)b->options.tx_bytes_max);
        return;
    }
    if (p && count)
        p->queue_ids = mem_alloc(count * sizeof *p->queue_ids);
    if (!p || (count && !p->queue_ids)) {
        mem_free(p);
        no_memory(b, ch->peer, ch->number, origin);
        return;
    }
    for (uint32_t i = 0; i < count; i++)
        p->queue_ids[i] = route->queues[i]->id;
    p->queue_count = count;
    p->delay_ms = delay_ms;
    p->msg = msg_ref(msg);
    p->origin = origin;
    ch->tx_bytes += bytes;
    list_insert(&ch->tx_publishes, &p->link);
}

bool tx_ack(struct channel *ch, struct unacked item, bool ack, enum back back)
{
    if (ch->tx_ack_count == ch->tx_ack_max) {
        uint32_t max = ch->tx_ack_max ? ch->tx_ack_max * 2 : 8;
        struct tx_ack *grown = mem_realloc(ch->tx_acks, max * sizeof *grown);
        if (!grown)
            return false;
        ch->tx_acks = grown;
        ch->tx_ack_max = max;
    }
    ch->tx_acks[ch->tx_ack_count++] = (struct tx_ack){.item = item, .ack = ack, .back = back};
    return true;
}

void do_tx_select(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    if (ch->mode == MODE_CONFIRM && !(c->flags & ASK_ONE_TX)) {
        fail(b, peer, c->channel, c->origin, ERR_PRECONDITION_FAILED, "cannot switch from confirm to tx mode");
        return;
    }
    if (ch->mode != MODE_TX)
        ch->mode_before = ch->mode;
    ch->mode = MODE_TX;
    answer_ok(b, peer, c, 0, (struct slice){0}, 0, 0);
}

static bool in_tx(struct broker *b, struct channel *ch, const struct command *c)
{
    if (ch->mode == MODE_TX)
        return true;
    fail(b, ch->peer, c->channel, c->origin, ERR_PRECONDITION_FAILED, "channel is not transactional");
    return false;
}

/* The transaction is over; one that was for once ends the mode too. */
static void leave_mode(struct channel *ch, const struct command *c)
{
    if (c->flags & ASK_ONE_TX)
        ch->mode = ch->mode_before;
}

/* The queues of a held message that still exist. */
static bool route_again(struct broker *b, const struct tx_publish *p)
{
    b->route_gen++;
    b->route.count = b->route.audience_count = 0;
    b->route.failed = false;
    for (uint32_t i = 0; i < p->queue_count; i++) {
        struct queue *q = map_get(&b->queues_by_id, map_key_u64(&p->queue_ids[i]));
        if (q)
            (void)route_add(b, &b->route, q);
    }
    return !b->route.failed;
}

/* ---- commit, first half: nothing changes ---- */

void tx_need(struct tx_needs *needs, const struct msg *msg, uint32_t targets, size_t *ret_need)
{
    *ret_need = log_captured_bytes(log_enqueue_bytes(msg, targets) + 64u * targets, targets + 1); /* enqueue_routed's */
    needs->bytes += *ret_need;
    needs->entries += targets;
    needs->records = targets + 1 > needs->records ? targets + 1 : needs->records;
    needs->targets = targets > needs->targets ? targets : needs->targets;
}

static struct exchange *delaying(struct channel *ch, const struct tx_publish *p)
{
    struct exchange *x = p->delay_ms ? exchange_find(ch->peer->vhost, msg_exchange(p->msg)) : NULL;
    return x && (x->delayed || p->msg->flags & MSG_DELAYED) ? x
                                                            : NULL; /* one that went takes what was on its way along */
}

static bool prepare_publish(struct broker *b, struct channel *ch, struct tx_publish *p, struct tx_needs *needs)
{
    if (p->delay_ms) {
        struct exchange *x = delaying(ch, p);
        if (!x)
            return true;
        tx_need(needs, p->msg, 1, &p->need);
        return delay_prepare(b, x->vhost, ++needs->delays);
    }
    if (!route_again(b, p) || !queues_rouse(b, &b->route))
        return false;
    if (!dedup_reserve(b, p->msg, &b->route, &needs->keys))
        return false;
    if (b->route.count)
        tx_need(needs, p->msg, b->route.count, &p->need);
    else if (p->msg->flags & MSG_MANDATORY) { /* as RabbitMQ also when its queues have gone since it was published */
        p->unroutable = return_answer();
        return p->unroutable != NULL;
    }
    return true;
}

/* As settle does it, but said ahead. */
static bool prepare_ack(struct broker *b, struct tx_ack *a, struct tx_needs *needs)
{
    struct entry *e = a->item.entry;
    struct queue *q = e->queue;
    bool limit = q && q->rules->delivery_limit >= 0 && e->returns >= (uint64_t)q->rules->delivery_limit;
    a->reason = a->ack ? REASON_ACKED : a->back ? REASON_DELIVERY_LIMIT : REASON_REJECTED;
    a->fate = !q || a->ack || !a->back || limit ? FATE_GONE : FATE_BACK;
    if (e->flags & ENTRY_STREAM)
        a->fate = FATE_BACK; /* settle gives its credit back, and nothing else */
    if (a->fate == FATE_GONE && !a->ack && q && q->rules->has_dlx && !q->deleting) {
        if (!dead_letter_prepare(b, e, a->reason, needs, &a->need, &a->dead))
            return false;
        if (a->dead) {
            a->fate = FATE_DEAD;
            return true;
        }
    }
    a->need = a->fate == FATE_GONE ? REMOVAL_BYTES : log_captured_bytes(64, 1);
    needs->bytes += a->need;
    return true;
}

static bool prepare(struct broker *b, struct channel *ch)
{
    struct tx_needs needs = {.records = 2};
    backlog_flush_removals(b);
    if (!list_empty(&b->removals))
        return false; /* what is older must not become part of this */
    LIST_EACH(&ch->tx_publishes, node, after)
    if (!prepare_publish(b, ch, CONTAINER_OF(node, struct tx_publish, link), &needs))
        return false;
    for (uint32_t i = 0; i < ch->tx_ack_count; i++)
        if (!prepare_ack(b, &ch->tx_acks[i], &needs))
            return false;
    return targets_reserve(b, needs.targets) && pool_reserve_many(&b->entries, needs.entries) &&
           dedup_reserve_keys(b, needs.keys) && log_capture_begin(b, needs.bytes, needs.records);
}

/* ---- commit, second half: nothing fails ---- */

static void commit_gone(struct broker *b, struct channel *ch, struct tx_ack *a)
{
    struct entry *e = a->item.entry;
    unacked_settled(ch, &a->item);
    if (!e->queue) {
        backlog_free(b, e);
        return;
    }
    ch->peer->removal_epoch = b->removal_epoch;
    backlog_remove(b, e, a->reason);
}

static void commit_removals(struct broker *b, struct channel *ch)
{
    for (uint32_t i = 0; i < ch->tx_ack_count; i++)
        if (ch->tx_acks[i].fate == FATE_GONE) {
            b->promised -= ch->tx_acks[i].need;
            commit_gone(b, ch, &ch->tx_acks[i]);
        }
    backlog_flush_removals(b);
    CHECK(list_empty(&b->removals));
}

static void commit_publish(struct broker *b, struct channel *ch, struct tx_publish *p, bool *rejected, lsn_t *before)
{
    lsn_t lsn;
    b->promised -= p->need;
    if (p->delay_ms) {
        struct exchange *x = delaying(ch, p);
        if (x)
            p->entry = delay_prepared(b, x, p->msg, p->delay_ms);
        return;
    }
    CHECK(route_again(b, p));
    if (b->route.count) {
        enum enqueue_result result = enqueue_routed(b, p->msg, &b->route, NULL, &lsn);
        CHECK(result != ENQUEUE_NO_MEMORY);
        *rejected |= result == ENQUEUE_REJECTED;
        if (lsn != LSN_CAPTURED && lsn > *before)
            *before = lsn; /* of what it is a duplicate of */
    } else if (p->unroutable)
        return_msg(b, ch, p->msg, p->origin, &p->unroutable);
}

static void commit_rest(struct broker *b, struct channel *ch)
{
    for (uint32_t i = 0; i < ch->tx_ack_count; i++) {
        struct tx_ack *a = &ch->tx_acks[i];
        if (a->fate == FATE_GONE)
            continue;
        b->promised -= a->need;
        if (a->fate == FATE_DEAD) {
            unacked_settled(ch, &a->item);
            ch->peer->removal_epoch = b->removal_epoch;
            dead_letter_prepared(b, &a->dead);
        } else
            settle(b, ch, a->item, false, a->back);
    }
    ch->tx_ack_count = 0;
}

/* Who is subscribed now; what is not remembered anywhere may find no memory. */
static void tell_taps(struct broker *b, struct channel *ch)
{
    LIST_EACH(&ch->tx_publishes, node, after)
    {
        struct tx_publish *p = CONTAINER_OF(node, struct tx_publish, link);
        struct exchange *x = p->delay_ms ? NULL : exchange_find(ch->peer->vhost, msg_exchange(p->msg));
        if (x && route_message(b, x, p->msg, msg_headers(p->msg), &b->route))
            audiences_tell(b, &b->route, p->msg, ch->peer);
    }
}

static lsn_t commit(struct broker *b, struct channel *ch, bool *rejected)
{
    lsn_t before = 0;
    pool_pin(&b->entries);
    pool_pin(&b->keys);
    commit_removals(b, ch);
    LIST_EACH(&ch->tx_publishes, node, after)
    commit_publish(b, ch, CONTAINER_OF(node, struct tx_publish, link), rejected, &before);
    commit_rest(b, ch);
    lsn_t lsn = log_capture_end(b);
    if (b->mqtt.taps)
        tell_taps(b, ch);
    LIST_EACH(&ch->tx_publishes, node, after)
    {
        struct entry *delayed = CONTAINER_OF(node, struct tx_publish, link)->entry;
        if (delayed && delayed->lsn == LSN_CAPTURED)
            delayed->lsn = lsn;
    }
    pool_unpin(&b->entries);
    pool_unpin(&b->keys);
    return lsn > before ? lsn : before;
}

void do_tx_commit(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    bool rejected = false;
    if (!in_tx(b, ch, c))
        return;
    bool ok = prepare(b, ch);
    lsn_t lsn = ok ? commit(b, ch, &rejected) : 0;
    tx_drop(b, ch, true);
    leave_mode(ch, c);
    if (!ok) {
        no_memory(b, peer, c->channel, c->origin);
        return;
    }
    if (rejected) { /* a full queue refused a message; the rest has taken effect */
        fail(b, peer, c->channel, c->origin, ERR_PRECONDITION_FAILED, "partial tx completion");
        return;
    }
    consumers_unpark(b, ch);
    answer_ok(b, peer, c, lsn, (struct slice){0}, 0, 0);
}

void do_tx_rollback(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    if (!in_tx(b, ch, c))
        return;
    tx_drop(b, ch, true);
    leave_mode(ch, c);
    answer_ok(b, peer, c, 0, (struct slice){0}, 0, 0);
}
