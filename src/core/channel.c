/* Channels: unacknowledged deliveries, acks, prefetch, modes, open and close.
 *
 * The unacked list is an array by ascending delivery tag. Acks in order move its start; acks out of order leave holes,
 * which are squeezed out when they are half of it, so it costs by what is unacknowledged, not by the span of tags.
 */
#include "core/core_int.h"

#define CHANNELS_MAX 65536u
#define UNACKED_MAX (1u << 26)

/* ---- the unacked list ---- */

bool unacked_reserve(struct unacked_list *list)
{
    if (list->end < list->max)
        return true;
    uint32_t count = list->end - list->first;
    if (list->first > list->max / 2) {
        memmove(list->items, list->items + list->first, count * sizeof *list->items);
        list->first = 0;
        list->end = count;
        return true;
    }
    uint32_t max = list->max ? list->max * 2 : 8;
    struct unacked *grown = max <= UNACKED_MAX ? mem_realloc(list->items, max * sizeof *grown) : NULL;
    if (!grown)
        return false;
    list->items = grown;
    list->max = max;
    return true;
}

void unacked_push(struct unacked_list *list, struct unacked item)
{
    CHECK(list->end < list->max);
    CHECK(list->end == list->first || list->items[list->end - 1].tag < item.tag);
    list->items[list->end++] = item;
    list->live++;
}

static uint32_t lower_bound(const struct unacked_list *list, uint64_t tag)
{
    uint32_t low = list->first, high = list->end;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (list->items[middle].tag < tag)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct unacked *unacked_find(struct unacked_list *list, uint64_t tag)
{
    if (list->first < list->end && list->items[list->first].tag == tag && list->items[list->first].entry)
        return &list->items[list->first];
    uint32_t i = lower_bound(list, tag);
    return i < list->end && list->items[i].tag == tag && list->items[i].entry ? &list->items[i] : NULL;
}

static void squeeze(struct unacked_list *list)
{
    uint32_t kept = 0;
    for (uint32_t i = list->first; i < list->end; i++)
        if (list->items[i].entry)
            list->items[kept++] = list->items[i];
    list->first = 0;
    list->end = kept;
}

void unacked_drop(struct unacked_list *list, struct unacked *item)
{
    item->entry = NULL;
    list->live--;
    while (list->first < list->end && !list->items[list->first].entry)
        list->first++;
    if (list->first == list->end)
        list->first = list->end = 0;
    else if (list->end - list->first > 64 && list->live < (list->end - list->first) / 2)
        squeeze(list);
}

/* A rolled-back ack comes back to its place. The list has room. */
static void unacked_restore(struct unacked_list *list, struct unacked item)
{
    uint32_t i = lower_bound(list, item.tag);
    if (i == list->end || list->items[i].tag != item.tag) {
        CHECK(list->end < list->max);
        memmove(list->items + i + 1, list->items + i, (list->end - i) * sizeof *list->items);
        list->end++;
    }
    list->items[i] = item;
    list->live++;
}

/* ---- settling ---- */

void unacked_settled(struct channel *ch, const struct unacked *item)
{
    if (item->consumer)
        item->consumer->unacked--;
    if (item->counted)
        ch->global_unacked--;
}

/* No memory to say that it came back: then the mark of a clean stop says that it was delivered. */
static void return_untold(struct entry *e)
{
    if ((e->flags & ENTRY_JOURNALLED) && e->queue->delivered_upto <= e->position)
        e->queue->delivered_upto = e->position + 1;
}

/* False: it is not to wait, or there is no memory. */
static bool delayed(struct broker *b, struct entry *e, wall_t due)
{
    if (!due)
        return false;
    compact_moving(b, e);
    if (!retry_park(b, e, due))
        return false;
    if ((e->flags & ENTRY_JOURNALLED) && log_reserve(b, 64, 1))
        (void)log_retry(b, e->queue, e->position, e->returns, due);
    else
        return_untold(e); /* a restart brings it back at once */
    return true;
}

/* What a client (or the end of its channel) says of a delivery. The item is out of the unacked list already. What an
 * acknowledgement in a transaction comes to is said once more in tx.c: fate_of. */
void settle(struct broker *b, struct channel *ch, struct unacked item, bool ack, enum back back)
{
    struct entry *e = item.entry;
    struct queue *q = e->queue;
    unacked_settled(ch, &item);
    if (e->flags & ENTRY_STREAM)
        return; /* whatever is said of it, the record stays where it is */
    if (!q) {
        backlog_free(b, e);
        return;
    }
    if (ack) {
        ch->peer->removal_epoch = b->removal_epoch;
        backlog_remove(b, e, REASON_ACKED);
        return;
    }
    if (back == BACK_NOT) {
        ch->peer->removal_epoch = b->removal_epoch;
        if (dead_letter(b, e, REASON_REJECTED))
            return; /* else it goes back to its queue */
    }
    if (q->rules->delivery_limit >= 0 && e->returns >= (uint64_t)q->rules->delivery_limit &&
        dead_letter(b, e, REASON_DELIVERY_LIMIT))
        return;
    e->returns++;
    e->flags |= ENTRY_REDELIVERED;
    if (delayed(b, e, retry_due(b, q, back, e->returns)))
        return;
    if ((e->flags & ENTRY_JOURNALLED) && log_reserve(b, 64, 1))
        (void)log_return(b, q, e->position, e->returns);
    else
        return_untold(e); /* a restart shows one return less */
    backlog_requeue(b, e);
    backlog_limit(b, q); /* as RabbitMQ: what comes back counts before a consumer may take it */
    queue_schedule(b, q);
}

static bool settle_or_hold(struct broker *b, struct channel *ch, struct unacked *u, bool ack, enum back back)
{
    struct unacked item = *u;
    if (ch->mode == MODE_TX) {
        if (!tx_ack(ch, item, ack, back))
            return false;
        unacked_drop(&ch->unacked, u);
        return true;
    }
    unacked_drop(&ch->unacked, u);
    settle(b, ch, item, ack, back);
    return true;
}

static void settle_command(struct broker *b, struct channel *ch, struct command *c, bool ack)
{
    bool multiple = c->flags & ASK_MULTIPLE;
    enum back back = !(c->flags & ASK_REQUEUE) ? BACK_NOT : c->flags & ASK_REJECT ? BACK_FAILED : BACK_RETURNED;
    uint64_t tag = c->number;
    bool ok = true;
    if (!(multiple && tag == 0)) {
        struct unacked *u = unacked_find(&ch->unacked, tag);
        if (!u) {
            fail(b, ch->peer, c->channel, c->origin, ERR_PRECONDITION_FAILED, "unknown delivery tag %llu",
                 (unsigned long long)tag);
            return;
        }
        if (!multiple)
            ok = settle_or_hold(b, ch, u, ack, back);
    }
    while (ok && multiple && ch->unacked.live) {
        struct unacked *u = &ch->unacked.items[ch->unacked.first];
        while (!u->entry)
            u++;
        if (tag && u->tag > tag)
            break;
        ok = settle_or_hold(b, ch, u, ack, back);
    }
    if (!ok) {
        no_memory(b, ch->peer, c->channel, c->origin);
        return;
    }
    if (!list_empty(&ch->parked))
        consumers_unpark(b, ch);
    if (ch->peer->mqtt)
        mqtt_may_go_on(b, ch->peer->mqtt);
}

void do_ack(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    if (peer->mqtt && (c->flags & ASK_RELEASING))
        mqtt_release(b, ch, c);
    else
        settle_command(b, ch, c, true);
}

void do_nack(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    (void)peer;
    settle_command(b, ch, c, false);
}

/* Oldest first: what a length limit pushes out leaves in order. */
static void requeue_all(struct broker *b, struct channel *ch, enum back back)
{
    while (ch->unacked.live) {
        struct unacked *u = &ch->unacked.items[ch->unacked.first];
        while (!u->entry)
            u++;
        struct unacked item = *u;
        unacked_drop(&ch->unacked, u);
        settle(b, ch, item, false, back);
    }
}

void do_recover(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    requeue_all(b, ch, BACK_RETURNED);
    if (!list_empty(&ch->parked))
        consumers_unpark(b, ch);
    answer_ok(b, peer, c, 0, (struct slice){0}, 0, 0);
}

/* ---- settings ---- */

void do_qos(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    if (c->flags & ASK_GLOBAL)
        ch->global_prefetch = (uint32_t)c->number;
    else {
        ch->prefetch = (uint32_t)c->number;
        ch->global_prefetch = 0; /* as RabbitMQ; the other way round both hold */
    }
    consumers_unpark(b, ch);
    answer_ok(b, peer, c, 0, (struct slice){0}, 0, 0);
}

void do_confirm_select(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    if (ch->mode == MODE_TX) {
        fail(b, peer, c->channel, c->origin, ERR_PRECONDITION_FAILED, "cannot switch from tx to confirm mode");
        return;
    }
    ch->mode = MODE_CONFIRM;
    answer_ok(b, peer, c, 0, (struct slice){0}, 0, 0);
}

/* ---- open and close ---- */

static bool channel_slot(struct peer *peer, uint16_t number)
{
    if (number < peer->channel_max)
        return true;
    uint32_t max = peer->channel_max ? peer->channel_max : 4;
    while (max <= number)
        max *= 2;
    CHECK(max <= CHANNELS_MAX);
    struct channel **grown = mem_realloc(peer->channels, max * sizeof *grown);
    if (!grown)
        return false;
    memset(grown + peer->channel_max, 0, (max - peer->channel_max) * sizeof *grown);
    peer->channels = grown;
    peer->channel_max = max;
    return true;
}

void do_channel_open(struct broker *b, struct peer *peer, struct channel *old, struct command *c)
{
    (void)old;
    if (peer->state != PEER_ENTERED) {
        fail(b, peer, 0, c->origin, ERR_CHANNEL_ERROR, "channel opened outside a vhost");
        return;
    }
    if (channel_of(peer, c->channel)) {
        fail(b, peer, 0, c->origin, ERR_CHANNEL_ERROR, "second 'channel.open' seen");
        return;
    }
    struct channel *ch = channel_slot(peer, c->channel) ? mem_zalloc_as(MEM_CONNECTIONS, sizeof *ch) : NULL;
    if (!ch) {
        no_memory(b, peer, 0, c->origin);
        return;
    }
    ch->peer = peer;
    ch->number = c->channel;
    list_init(&ch->consumers);
    list_init(&ch->parked);
    list_init(&ch->tx_publishes);
    peer->channels[c->channel] = ch;
    peer->channel_count++;
    b->totals.channels++;
    answer_ok(b, peer, c, 0, (struct slice){0}, 0, 0);
}

/* Nobody waits for a message any more, and everything the channel has goes back: first the consumers, so that nothing returned is delivered to them again, and so
 * that an auto-delete queue that lost its last one goes with what it held, as in RabbitMQ. */
void channel_release(struct broker *b, struct channel *ch)
{
    if (ch->waiting_gets)
        getters_forget(b, ch);
    tx_drop(b, ch, true);
    while (!list_empty(&ch->consumers))
        consumer_remove(b, CONTAINER_OF(ch->consumers.next, struct consumer, channel_link));
    requeue_all(b, ch, BACK_FAILED);
}

void channel_free(struct broker *b, struct channel *ch)
{
    if (ch->peer->mqtt && ch->peer->mqtt->channel == ch)
        mqtt_peer_gone(b, ch->peer);
    channel_release(b, ch);
    ch->peer->channels[ch->number] = NULL;
    ch->peer->channel_count--;
    b->totals.channels--;
    slice_drop(&ch->last_queue);
    mem_free(ch->unacked.items);
    mem_free(ch->tx_acks);
    mem_free_as(MEM_CONNECTIONS, ch);
}

void do_channel_close(struct broker *b, struct peer *peer, struct channel *none, struct command *c)
{
    struct channel *ch = channel_of(peer, c->channel);
    (void)none;
    if (ch)
        channel_free(b, ch);
    backlog_flush_removals(b);
    struct effect *e = effect_push(b, peer, EFF_CHANNEL_CLOSED, c->channel);
    e->origin = c->origin;
}

void tx_drop(struct broker *b, struct channel *ch, bool restore)
{
    while (!list_empty(&ch->tx_publishes)) {
        struct tx_publish *p = CONTAINER_OF(ch->tx_publishes.next, struct tx_publish, link);
        list_remove(&p->link);
        msg_unref(&b->heap, p->msg);
        mem_free(p->queue_ids);
        mem_free(p->unroutable);
        mem_free(p);
    }
    for (uint32_t i = 0; i < ch->tx_ack_count; i++)
        dead_letter_discard(b, &ch->tx_acks[i].dead);
    for (uint32_t i = 0; restore && i < ch->tx_ack_count; i++) {
        if (!unacked_reserve(&ch->unacked)) { /* no room to hold it: back to its queue at once */
            settle(b, ch, ch->tx_acks[i].item, false, BACK_RETURNED);
            continue;
        }
        unacked_restore(&ch->unacked, ch->tx_acks[i].item);
    }
    ch->tx_ack_count = 0;
    ch->tx_bytes = 0;
}
