/* Transactions (tx class): publishes and acks of a channel that take effect together.
 *
 * A message is routed when it is published and held, an ack is taken out of the unacked list and held. Commit writes one
 * logical record with everything in it (cut into pieces when it is large), so recovery sees all or nothing; the answer
 * waits until that record is durable. Rollback drops the messages and gives the acks back. An open transaction holds at
 * most options.tx_bytes_max.
 */
#include "core/core_int.h"

void tx_publish(struct broker *b, struct channel *ch, struct msg *msg, const struct route *route, uint32_t origin)
{
    struct tx_publish *p = mem_zalloc(sizeof *p);
    uint64_t bytes = msg_size(msg) + route->count * sizeof *p->queue_ids;
    if (ch->tx_bytes + bytes > b->options.tx_bytes_max) {
        mem_free(p);
        fail(b, ch->peer, ch->number, origin, ERR_PRECONDITION_FAILED, "transaction is larger than max size %llu",
             (unsigned long long)b->options.tx_bytes_max);
        return;
    }
    if (p && route->count)
        p->queue_ids = mem_alloc(route->count * sizeof *p->queue_ids);
    if (!p || (route->count && !p->queue_ids)) {
        mem_free(p);
        no_memory(b, ch->peer, ch->number, origin);
        return;
    }
    for (uint32_t i = 0; i < route->count; i++)
        p->queue_ids[i] = route->queues[i]->id;
    p->queue_count = route->count;
    p->msg = msg_ref(msg);
    p->origin = origin;
    ch->tx_bytes += bytes;
    list_insert(&ch->tx_publishes, &p->link);
}

bool tx_ack(struct broker *b, struct channel *ch, struct unacked item, bool ack, bool requeue, bool reject)
{
    (void)b;
    if (ch->tx_ack_count == ch->tx_ack_max) {
        uint32_t max = ch->tx_ack_max ? ch->tx_ack_max * 2 : 8;
        struct tx_ack *grown = mem_realloc(ch->tx_acks, max * sizeof *grown);
        if (!grown)
            return false;
        ch->tx_acks = grown;
        ch->tx_ack_max = max;
    }
    ch->tx_acks[ch->tx_ack_count++] = (struct tx_ack){.item = item, .ack = ack, .requeue = requeue, .reject = reject};
    return true;
}

void do_tx_select(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    if (ch->mode == MODE_CONFIRM) {
        fail(b, peer, c->channel, c->origin, ERR_PRECONDITION_FAILED, "cannot switch from confirm to tx mode");
        return;
    }
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

/* The queues of a held message that still exist. */
static bool route_again(struct broker *b, const struct tx_publish *p)
{
    b->route_gen++;
    b->route.count = 0;
    b->route.failed = false;
    for (uint32_t i = 0; i < p->queue_count; i++) {
        struct queue *q = map_get(&b->queues_by_id, map_key_u64(&p->queue_ids[i]));
        if (q)
            (void)route_add(b, &b->route, q);
    }
    return !b->route.failed;
}

static bool commit_publish(struct broker *b, struct channel *ch, const struct tx_publish *p, bool *rejected)
{
    lsn_t lsn;
    if (!route_again(b, p))
        return false;
    if (b->route.count) {
        enum enqueue_result result = enqueue_routed(b, p->msg, &b->route, NULL, &lsn);
        *rejected |= result == ENQUEUE_REJECTED;
        return result != ENQUEUE_NO_MEMORY;
    }
    if (p->msg->flags & MSG_MANDATORY) /* as RabbitMQ also when its queues have gone since it was published */
        return_msg(b, ch, p->msg, p->origin);
    return true;
}

void do_tx_commit(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    if (!in_tx(b, ch, c))
        return;
    backlog_flush_removals(b);
    if (!log_capture_begin(b)) {
        no_memory(b, peer, c->channel, c->origin);
        return;
    }
    bool ok = true, rejected = false;
    LIST_EACH(&ch->tx_publishes, node, after)
    ok = ok && commit_publish(b, ch, CONTAINER_OF(node, struct tx_publish, link), &rejected);
    for (uint32_t i = 0; ok && i < ch->tx_ack_count; i++) {
        struct tx_ack *a = &ch->tx_acks[i];
        settle(b, ch, a->item, a->ack, a->requeue, a->reject);
    }
    if (ok) {
        ch->tx_ack_count = 0;
        (void)dead_letter_run(b, UINT32_MAX);
        backlog_flush_removals(b);
    }
    lsn_t lsn = log_capture_end(b);
    tx_drop(b, ch, true);
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
    answer_ok(b, peer, c, 0, (struct slice){0}, 0, 0);
}
