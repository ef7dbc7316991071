/* Deliveries: consumers, their turns, and basic.get.
 *
 * A queue that may have something to deliver is on b->pump; pumping takes the head and the first consumer that is ready,
 * until one is missing. A consumer that cannot take (prefetch, byte credit) is parked with its channel and returns when
 * the channel or session gets room. Consumers of equal priority are served in turn: who was served goes behind his
 * equals. A head that is not durable yet puts the queue on b->await until the durable lsn moves.
 *
 * The delivered mark: a journalled queue may deliver only positions below a mark that is durable, so that after a crash
 * everything that may have been seen comes with redelivered=true. Marks move in strides and are normally written with
 * the publishes, long before they are needed.
 */
#include "core/core_int.h"

#include <stdio.h>

#define PUMP_PER_QUEUE 512u
#define LOOKS_PER_PUMP 256u /* conditions that are evaluated for one queue in one go */

void queue_schedule(struct broker *b, struct queue *q)
{
    if (q->pumping || q->deleting)
        return;
    struct list *link = &q->busy->pump_link;
    list_remove(link); /* from b->await, if it is there */
    list_insert(&b->pump, link);
    q->pumping = true;
    q->awaiting = false;
}

void queue_await(struct broker *b, struct queue *q)
{
    list_remove(&q->busy->pump_link);
    list_insert(&b->await, &q->busy->pump_link);
    q->pumping = false;
    q->awaiting = true;
}

void durable_advanced(struct broker *b)
{
    LIST_EACH(&b->await, node, after)
    queue_schedule(b, CONTAINER_OF(node, struct busy, pump_link)->queue);
}

/* ---- readiness ---- */

static bool may_serve(const struct consumer *consumer)
{
    const struct queue *q = consumer->queue;
    return !q->rules->single_active || q->busy->active == consumer;
}

bool consumer_can_take(const struct consumer *consumer)
{
    const struct channel *ch = consumer->channel;
    if (ch->peer->credit <= 0)
        return false;
    if (ch->global_prefetch && ch->global_unacked + ch->releasing >= ch->global_prefetch)
        return false; /* as in RabbitMQ a full channel holds back its no-ack consumers too */
    if (consumer->takes_over && !mqtt_share_room(consumer))
        return false;
    return consumer->no_ack || consumer->prefetch == 0 || consumer->unacked < consumer->prefetch;
}

/* Into the queue's turn, behind those of the same or higher priority. */
void consumer_enlist(struct broker *b, struct consumer *consumer)
{
    struct list *at = &consumer->queue->busy->ready;
    list_remove(&consumer->ready_link);
    while (at->prev != &consumer->queue->busy->ready &&
           CONTAINER_OF(at->prev, struct consumer, ready_link)->priority < consumer->priority)
        at = at->prev;
    list_insert(at, &consumer->ready_link);
    consumer->ready = true;
    queue_schedule(b, consumer->queue);
}

static void park(struct consumer *consumer)
{
    list_remove(&consumer->ready_link);
    list_insert(&consumer->channel->parked, &consumer->ready_link);
    consumer->ready = false;
}

void consumers_unpark(struct broker *b, struct channel *ch)
{
    LIST_EACH(&ch->parked, node, after)
    {
        struct consumer *consumer = CONTAINER_OF(node, struct consumer, ready_link);
        if (may_serve(consumer) && consumer_can_take(consumer))
            consumer_enlist(b, consumer);
    }
}

struct consumer *queue_next_ready(struct queue *q)
{
    const struct list *ready = &q->busy->ready;
    struct consumer *consumer;
    while ((consumer = LIST_FIRST(ready, struct consumer, ready_link))) {
        if (may_serve(consumer) && consumer_can_take(consumer))
            return consumer;
        park(consumer);
    }
    return NULL;
}

bool queue_has_ready_consumer(struct broker *b, struct queue *q)
{
    (void)b;
    return !list_empty(&q->busy->ready) && queue_next_ready(q) != NULL;
}

/* How many one consumer can take, as far as its limits go. */
static uint64_t appetite(const struct consumer *consumer)
{
    const struct channel *ch = consumer->channel;
    uint64_t most = UINT64_MAX;
    if (!may_serve(consumer) || !consumer_can_take(consumer) || consumer->sieve)
        return 0; /* who is choosy may want nothing of what waits */
    if (!consumer->no_ack && consumer->prefetch)
        most = consumer->prefetch - consumer->unacked;
    if (ch->global_prefetch && ch->global_prefetch - ch->global_unacked - ch->releasing < most)
        most = ch->global_prefetch - ch->global_unacked - ch->releasing;
    uint64_t room = consumer->takes_over ? mqtt_share_room(consumer) : most;
    return room < most ? room : most;
}

uint64_t queue_appetite(struct queue *q, uint64_t most)
{
    uint64_t sum = 0;
    LIST_EACH(&q->busy->ready, node, after)
    {
        uint64_t one = appetite(CONTAINER_OF(node, struct consumer, ready_link));
        if (one >= most - sum)
            return most;
        sum += one;
    }
    return sum;
}

/* ---- one delivery ---- */

/* Quorum queues, and those that delay retries, tell how often the message came back. */
struct msg *msg_for_delivery(struct broker *b, struct queue *q, struct entry *e)
{
    struct amqp_props props;
    if ((q->rules->type != QUEUE_QUORUM && !retry_enabled(q->rules)) || e->returns == 0 ||
        !amqp_props_parse(msg_props(e->msg), &props))
        return msg_ref(e->msg);
    size_t max = props.headers.len + 64;
    uint8_t *raw = mem_alloc(max);
    if (!raw)
        return NULL;
    struct writer w = writer_of(raw, max);
    struct reader r = reader_of(props.headers);
    struct amqp_field field;
    amqp_put_long(&w, "x-delivery-count", e->returns);
    while (amqp_table_next(&r, &field))
        if (!slice_is(field.name, "x-delivery-count"))
            amqp_put_field(&w, field.name, &field.value);
    props.headers = writer_slice(&w);
    props.present |= AMQP_HEADERS;
    struct msg *copy = msg_with_props(b, e->msg, &props);
    mem_free(raw);
    return copy;
}

static int64_t timeout_ms(const struct broker *b, const struct queue *q)
{
    return q->rules->consumer_timeout_ms > 0 ? q->rules->consumer_timeout_ms : b->options.consumer_timeout_ms;
}

static void timeout_fired(void *arg, struct timer *timer)
{
    struct broker *b = arg;
    struct consumer *consumer = CONTAINER_OF(timer, struct consumer, timeout);
    struct channel *ch = consumer->channel;
    int64_t limit = consumer->queue ? timeout_ms(b, consumer->queue) : 0;
    if (limit <= 0)
        return;
    for (uint32_t i = ch->unacked.first; i < ch->unacked.end; i++) {
        struct unacked *u = &ch->unacked.items[i];
        if (!u->entry || u->consumer != consumer)
            continue;
        mono_t due = u->since + limit * NS_PER_MS;
        if (due > b->now) {
            wheel_set(&b->wheel, timer, due);
            return;
        }
        fail(b, ch->peer, ch->number, 0, ERR_PRECONDITION_FAILED,
             "delivery acknowledgement on channel %u timed out. Timeout value used: %lld ms. This timeout value can be "
             "configured, see consumers doc guide to learn more",
             ch->number, (long long)limit);
        return;
    }
}

static void hand_over(struct broker *b, struct channel *ch, struct consumer *consumer, struct entry *e)
{
    struct queue *q = e->queue;
    bool no_ack = consumer->no_ack;
    if (e->position >= q->delivered_upto && !consumer->sieve) /* what lies before it was not delivered */
        q->delivered_upto = e->position + 1;
    b->totals.delivered++;
    b->totals.redelivered += (e->flags & ENTRY_REDELIVERED) != 0;
    if (no_ack) {
        ch->peer->removal_epoch = b->removal_epoch;
        backlog_remove(b, e, REASON_ACKED);
        return;
    }
    unacked_push(
        &ch->unacked,
        (struct unacked){.tag = ch->next_tag, .entry = e, .consumer = consumer, .since = b->now, .counted = true});
    backlog_take(b, e);
    consumer->unacked++;
    ch->global_unacked++;
    int64_t limit = timeout_ms(b, q);
    if (limit > 0 && !timer_is_set(&consumer->timeout))
        wheel_set(&b->wheel, &consumer->timeout, b->now + limit * NS_PER_MS);
}

/* False: no memory, or the port is full; nothing has changed then. */
static bool deliver(struct broker *b, struct consumer *consumer, struct entry *e)
{
    struct channel *ch = consumer->channel;
    if (mqtt_share_moves(consumer, e))
        return mqtt_share_move(b, consumer, e);
    if (!port_has_room(ch->peer->side)) {
        b->stalled = true;
        return false;
    }
    if (!consumer->no_ack && !unacked_reserve(&ch->unacked))
        return false;
    struct msg *msg = msg_for_delivery(b, e->queue, e);
    if (!msg)
        return false;
    struct effect *effect = effect_push(b, ch->peer, EFF_DELIVER, ch->number);
    effect->msg = msg;
    effect->consumer = consumer->id;
    effect->number = ++ch->next_tag;
    effect->flags =
        (uint8_t)((e->flags & ENTRY_REDELIVERED ? EFFECT_REDELIVERED : 0) | (consumer->no_ack ? EFFECT_NO_ACK : 0));
    if (ch->peer->mqtt) {
        effect->count = e->position;
        effect->origin = mqtt_seconds_left(b, e->deadline);
    }
    ch->peer->credit -= (int64_t)delivery_cost(msg);
    hand_over(b, ch, consumer, e);
    return true;
}

static bool mark_covers(struct broker *b, struct queue *q, const struct entry *e)
{
    if (!(e->flags & ENTRY_JOURNALLED) || e->position < q->busy->mark_safe)
        return true;
    if (e->position >= q->mark && log_reserve(b, 64, 1))
        mark_cover(b, q, e->position);
    if (q->busy->mark_lsn <= b->durable)
        q->busy->mark_safe = q->mark;
    return e->position < q->busy->mark_safe;
}

/* Who is ready and has a message to take, in turn, and which. NULL: nobody has, or *looks has run out. */
static struct consumer *next_choosy(struct broker *b, struct queue *q, unsigned *looks, struct entry **ret)
{
    LIST_EACH(&q->busy->ready, node, after)
    {
        struct consumer *consumer = CONTAINER_OF(node, struct consumer, ready_link);
        if (!may_serve(consumer) || !consumer_can_take(consumer)) {
            park(consumer);
            continue;
        }
        *ret = consumer->sieve ? sieve_next(b, q, consumer->sieve, looks) : backlog_head(q);
        if (*ret)
            return consumer;
        if (!consumer->sieve && q->busy->ready_count)
            backlog_want(b, q);
        if (*looks == 0) {
            consumer_enlist(b, consumer); /* behind its equals: others have their turn while it goes on */
            break;
        }
    }
    return NULL;
}

static bool head_expired(struct broker *b, struct queue *q)
{
    struct entry *e = backlog_head(q);
    if (!e || e->deadline > b->wall || e->lsn > b->durable)
        return false;
    e->flags &= (uint8_t)~ENTRY_FRESH; /* it came when nobody was choosy */
    backlog_expire(b, q);
    return backlog_head(q) != e;
}

/* The consumer, which is the first that is ready, gets the entry. False: not now, the queue waits. */
static bool hand_out(struct broker *b, struct queue *q, struct consumer *consumer, struct entry *e, unsigned *budget)
{
    if (e->lsn > b->durable || !mark_covers(b, q, e)) {
        queue_await(b, q);
        return false;
    }
    if (!deliver(b, consumer, e)) {
        queue_await(b, q);
        b->stalled = true;
        return false;
    }
    (*budget)--;
    if (consumer->ready_link.next != &q->busy->ready) /* alone among equals: its turn again */
        consumer_enlist(b, consumer);
    return true;
}

/* As pump, for queues of which some consumers take only what they select: a message that nobody wants is passed by. */
static void pump_choosy(struct broker *b, struct queue *q, unsigned *budget)
{
    unsigned looks = LOOKS_PER_PUMP, n = 0;
    struct entry *e;
    struct consumer *consumer = NULL;
    for (; n < PUMP_PER_QUEUE && *budget; n++) {
        if (head_expired(b, q))
            continue;
        consumer = next_choosy(b, q, &looks, &e);
        if (!consumer)
            break;
        if (!hand_out(b, q, consumer, e, budget))
            return;
    }
    q->pumping = false;
    list_remove(&q->busy->pump_link);
    if (consumer || looks == 0)
        queue_schedule(b, q);
    n = LOOKS_PER_PUMP - looks;
    *budget -= n < *budget ? n : *budget; /* many queues whose messages nobody selects must not make a round long */
    backlog_limit(b, q);
}

static void pump_in_turn(struct broker *b, struct queue *q, unsigned *budget)
{
    for (unsigned n = 0; n < PUMP_PER_QUEUE && *budget; n++) {
        struct entry *e = backlog_head(q);
        if (!e) {
            if (q->busy->ready_count && queue_next_ready(q))
                backlog_want(b, q); /* the queue is scheduled again when it has come */
            break;
        }
        if (e->deadline <= b->wall && e->lsn <= b->durable &&
            !((e->flags & ENTRY_FRESH) && queue_has_ready_consumer(b, q))) {
            backlog_expire(b, q);
            if (backlog_head(q) == e)
                break;
            continue;
        }
        struct consumer *consumer = queue_next_ready(q);
        if (!consumer)
            break;
        if (!hand_out(b, q, consumer, e, budget))
            return;
    }
    q->pumping = false;
    list_remove(&q->busy->pump_link);
    if (backlog_head(q) && queue_next_ready(q))
        queue_schedule(b, q);
    backlog_limit(b, q);
}

static void pump(struct broker *b, struct queue *q, unsigned *budget)
{
    if (q->stream)
        stream_pump(b, q, budget);
    else if (q->busy->selecting)
        pump_choosy(b, q, budget);
    else
        pump_in_turn(b, q, budget);
    if (q->mqtt && b->mqtt.takers)
        mqtt_share_drained(b, q);
}

void pump_all(struct broker *b, unsigned budget)
{
    /* Only those that are scheduled now: who is rescheduled waits for the next round. */
    struct list *last = b->pump.prev;
    while (!list_empty(&b->pump) && budget) {
        struct list *node = b->pump.next;
        pump(b, CONTAINER_OF(node, struct busy, pump_link)->queue, &budget);
        if (node == last)
            break;
    }
}

/* ---- consumers come and go ---- */

static void choose_active(struct broker *b, struct queue *q)
{
    struct consumer *best = NULL;
    if (!q->rules->single_active || q->busy->active)
        return;
    LIST_EACH(&q->busy->consumers, node, after)
    {
        struct consumer *consumer = CONTAINER_OF(node, struct consumer, queue_link);
        if (!best || consumer->priority > best->priority)
            best = consumer;
    }
    q->busy->active = best;
    if (best)
        consumer_enlist(b, best);
}

static void forget_in_unacked(struct channel *ch, const struct consumer *consumer)
{
    for (uint32_t i = ch->unacked.first; i < ch->unacked.end; i++)
        if (ch->unacked.items[i].consumer == consumer)
            ch->unacked.items[i].consumer = NULL;
    for (uint32_t i = 0; i < ch->tx_ack_count; i++)
        if (ch->tx_acks[i].item.consumer == consumer)
            ch->tx_acks[i].item.consumer = NULL;
}

/* Unlinks and frees; an auto-delete queue that lost its last consumer goes too. */
void consumer_remove(struct broker *b, struct consumer *consumer)
{
    struct channel *ch = consumer->channel;
    struct queue *q = consumer->queue;
    if (ch->reply_consumer == consumer)
        reply_forget(b, ch);
    if (consumer->follower)
        stream_consumer_gone(b, consumer);
    b->mqtt.takers -= consumer->takes_over != NULL;
    list_remove(&consumer->queue_link);
    list_remove(&consumer->ready_link);
    list_remove(&consumer->channel_link);
    wheel_cancel(&b->wheel, &consumer->timeout);
    ch->consumer_count--;
    if (consumer->unacked)
        forget_in_unacked(ch, consumer);
    if (q) {
        q->busy->consumer_count--;
        sieve_leave(b, consumer);
        b->totals.consumers--;
        if (q->busy->exclusive_consumer == consumer)
            q->busy->exclusive_consumer = NULL;
        if (q->busy->active == consumer)
            q->busy->active = NULL;
        queue_used(b, q);
    }
    slice_drop(&consumer->tag);
    slice_drop(&consumer->args);
    pool_give(&b->consumers, consumer);
    if (!q || q->deleting)
        return;
    choose_active(b, q);
    queue_calmed(b, q);
    if (q->busy->consumer_count == 0 && q->auto_delete)
        queue_delete(b, q);
}

void consumer_gone(struct broker *b, struct consumer *consumer)
{
    struct channel *ch = consumer->channel;
    if ((ch->peer->flags & ASK_CAN_CANCEL) && ch->peer->state != PEER_FAILED && !ch->failed) {
        struct effect *e = effect_push(b, ch->peer, EFF_CONSUMER_GONE, ch->number);
        e->consumer = consumer->id;
    }
    consumer_remove(b, consumer);
}

static struct consumer *consumer_by_tag(struct channel *ch, struct slice tag)
{
    LIST_EACH(&ch->consumers, node, after)
    {
        struct consumer *consumer = CONTAINER_OF(node, struct consumer, channel_link);
        if (slice_equal(consumer->tag, tag))
            return consumer;
    }
    return NULL;
}

static struct slice resolve(struct channel *ch, struct slice name)
{
    return name.len ? name : ch->last_queue;
}

/* The queue a consume or get is for; NULL: reported. */
static struct queue *readable(struct broker *b, struct channel *ch, struct command *c)
{
    struct slice name = resolve(ch, c->ask->name);
    struct peer *peer = ch->peer;
    if (name.len == 0) {
        fail(b, peer, c->channel, c->origin, ERR_NOT_FOUND, "no previously declared queue");
        return NULL;
    }
    if (!allowed(b, peer, c, VERB_READ, "queue", name))
        return NULL;
    struct queue *q = queue_find(peer->vhost, name);
    if (!q) {
        fail(b, peer, c->channel, c->origin, ERR_NOT_FOUND, "no queue '%.*s' in vhost '%.*s'", SLICE_ARG(name),
             SLICE_ARG(peer->vhost->name));
        return NULL;
    }
    if (!queue_locked(q, peer))
        return q;
    fail_locked(b, peer, c, name);
    return NULL;
}

static struct consumer *consumer_make(struct broker *b, struct channel *ch, struct queue *q, struct slice args,
                                      uint32_t flags, struct slice tag)
{
    char why[ERROR_TEXT_MAX];
    struct consumer *consumer = queue_rouse(b, q) ? pool_take(&b->consumers) : NULL;
    if (!consumer)
        return NULL;
    struct selector *selector = NULL;
    *consumer = (struct consumer){.channel = ch, .queue = q, .prefetch = ch->prefetch};
    if (!slice_keep(&consumer->tag, tag) || !slice_keep(&consumer->args, args) ||
        selector_of(args, &selector, why, sizeof why) > SELECTOR_OK || !sieve_join(q, consumer, &selector)) {
        slice_drop(&consumer->tag);
        slice_drop(&consumer->args);
        pool_give(&b->consumers, consumer);
        return NULL;
    }
    struct amqp_value v;
    if (amqp_table_find(args, "x-priority", &v) && amqp_value_is_int(&v))
        consumer->priority = v.i > INT32_MAX ? INT32_MAX : v.i < INT32_MIN ? INT32_MIN : (int32_t)v.i;
    consumer->id = ++ch->next_consumer;
    consumer->no_ack = flags & ASK_NO_ACK;
    consumer->exclusive = flags & ASK_EXCLUSIVE;
    list_init(&consumer->ready_link);
    timer_init(&consumer->timeout, timeout_fired);
    list_insert(&q->busy->consumers, &consumer->queue_link);
    list_insert(&ch->consumers, &consumer->channel_link);
    ch->consumer_count++;
    q->busy->consumer_count++;
    q->had_consumer = true;
    b->totals.consumers++;
    if (consumer->exclusive)
        q->busy->exclusive_consumer = consumer;
    return consumer;
}

static void begin(struct broker *b, struct consumer *consumer)
{
    struct queue *q = consumer->queue;
    if (consumer->sieve && q->extra)
        retry_goes_on(b, q);
    if (q->rules->single_active && q->busy->active)
        park(consumer);
    else if (q->rules->single_active)
        choose_active(b, q);
    else
        consumer_enlist(b, consumer);
}

struct consumer *consumer_start(struct broker *b, struct channel *ch, struct queue *q, uint32_t id, bool no_ack)
{
    struct consumer *consumer = consumer_make(b, ch, q, (struct slice){0}, no_ack ? ASK_NO_ACK : 0, (struct slice){0});
    if (!consumer)
        return NULL;
    consumer->id = id;
    queue_used(b, q);
    begin(b, consumer);
    return consumer;
}

static bool selector_allowed(struct broker *b, struct peer *peer, const struct queue *q, struct command *c)
{
    char why[ERROR_TEXT_MAX];
    struct selector *s;
    enum selector_found found = selector_of(c->ask->args, &s, why, sizeof why);
    if (found == SELECTOR_OK)
        selector_free(&s);
    if (found == SELECTOR_NONE || found == SELECTOR_NO_MEMORY)
        return true; /* consumer_make finds out again */
    if (found == SELECTOR_OK && q->rules->max_priority)
        snprintf(why, sizeof why, "a queue with priorities has none");
    else if (found == SELECTOR_OK && q->busy->selecting >= SELECTING_MAX)
        snprintf(why, sizeof why, "the queue has %u consumers with one", SELECTING_MAX);
    else if (found == SELECTOR_OK)
        return true;
    fail(b, peer, c->channel, c->origin, ERR_PRECONDITION_FAILED,
         "invalid arg '" SELECTOR_ARG "' for queue '%.*s' in vhost '%.*s': %s", SLICE_ARG(q->name),
         SLICE_ARG(peer->vhost->name), why);
    return false;
}

static bool consumer_args_allowed(struct broker *b, struct peer *peer, const struct queue *q, struct command *c)
{
    const char *foreign = q->stream ? "x-priority" : "x-stream-offset";
    struct amqp_value v;
    if (q->stream && amqp_table_find(c->ask->args, SELECTOR_ARG, &v))
        foreign = SELECTOR_ARG;
    if (amqp_table_find(c->ask->args, foreign, &v))
        fail(b, peer, c->channel, c->origin, ERR_PRECONDITION_FAILED,
             "invalid arg '%s' for queue '%.*s' in vhost '%.*s' of queue type %s", foreign, SLICE_ARG(q->name),
             SLICE_ARG(peer->vhost->name), queue_type_module(q->rules->type));
    else if (amqp_table_find(c->ask->args, "x-priority", &v) && !amqp_value_is_int(&v))
        fail(b, peer, c->channel, c->origin, ERR_PRECONDITION_FAILED,
             "invalid arg 'x-priority' for queue '%.*s' in vhost '%.*s': \"expected integer, got %s\"",
             SLICE_ARG(q->name), SLICE_ARG(peer->vhost->name), amqp_type_name(v.type));
    else
        return selector_allowed(b, peer, q, c);
    return false;
}

void do_consume(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    char generated[64];
    struct slice tag = c->ask->other;
    if (tag.len && consumer_by_tag(ch, tag)) {
        fail(b, peer, c->channel, c->origin, ERR_NOT_ALLOWED, "attempt to reuse consumer tag '%.*s'", SLICE_ARG(tag));
        return;
    }
    if (slice_is(c->ask->name, REPLY_TO)) {
        reply_consume(b, ch, c);
        return;
    }
    struct queue *q = readable(b, ch, c);
    if (!q)
        return;
    if (q->busy->exclusive_consumer ||
        ((c->ask->flags & ASK_EXCLUSIVE) && (q->busy->consumer_count || q->rules->single_active))) {
        fail(b, peer, c->channel, c->origin, ERR_ACCESS_REFUSED, "queue '%.*s' in vhost '%.*s' in exclusive use",
             SLICE_ARG(q->name), SLICE_ARG(peer->vhost->name));
        return;
    }
    if (!consumer_args_allowed(b, peer, q, c))
        return;
    if (q->rules->type == QUEUE_QUORUM && ch->global_prefetch) {
        fail(b, peer, c->channel, c->origin, ERR_NOT_IMPLEMENTED,
             "queue '%.*s' in vhost '%.*s' does not support global qos", SLICE_ARG(q->name),
             SLICE_ARG(peer->vhost->name));
        return;
    }
    if (ch->consumer_count >= b->options.channel_consumers_max) {
        fail(b, peer, c->channel, c->origin, ERR_NOT_ALLOWED, "reached maximum number of consumers per channel: %u",
             b->options.channel_consumers_max);
        return;
    }
    if (tag.len == 0) {
        random_name(b, "amq.ctag-", generated, sizeof generated);
        tag = slice_str(generated);
    }
    if (q->stream && !stream_consume_allowed(b, ch, q, c))
        return;
    struct consumer *consumer = consumer_make(b, ch, q, c->ask->args, c->ask->flags, tag);
    if (!consumer || (q->stream && !stream_consume(b, consumer))) {
        if (consumer)
            consumer_remove(b, consumer);
        no_memory(b, peer, c->channel, c->origin);
        return;
    }
    queue_used(b, q);
    answer_ok(b, peer, c, 0, consumer->tag, consumer->id, 0);
    begin(b, consumer);
}

void do_cancel(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    struct consumer *consumer = consumer_by_tag(ch, c->ask->name);
    uint32_t id = consumer ? consumer->id : 0;
    if (consumer)
        consumer_remove(b, consumer);
    answer_ok(b, peer, c, 0, c->ask->name, id, 0);
}

/* The answer waits for the message to be durable; the message is taken now, so nothing overtakes it. */
void get_now(struct broker *b, struct channel *ch, struct queue *q, uint32_t origin, bool no_ack)
{
    struct peer *peer = ch->peer;
    backlog_expire(b, q);
    (void)dead_letter_run(b, UINT32_MAX);
    struct entry *e = backlog_head(q);
    if (!e && paging_is_damaged(q)) {
        fail(b, peer, ch->number, origin, ERR_PRECONDITION_FAILED,
             "the next message of queue '%.*s' in vhost '%.*s' is damaged on disk; the broker's log says where",
             SLICE_ARG(q->name), SLICE_ARG(q->vhost->name));
        return;
    }
    if (!e && q->busy->ready_count) {
        if (!get_later(b, ch, q, origin, no_ack))
            no_memory(b, peer, ch->number, origin);
        return;
    }
    if (!e || (e->deadline <= b->wall && !(e->flags & ENTRY_FRESH))) {
        effect_push(b, peer, EFF_GET_EMPTY, ch->number)->origin = origin;
        return;
    }
    struct msg *msg =
        (no_ack || unacked_reserve(&ch->unacked)) && log_reserve(b, 64, 1) ? msg_for_delivery(b, q, e) : NULL;
    if (!msg) {
        no_memory(b, peer, ch->number, origin);
        return;
    }
    lsn_t lsn = e->lsn;
    if ((e->flags & ENTRY_JOURNALLED) && !mark_covers(b, q, e) && q->busy->mark_lsn > lsn)
        lsn = q->busy->mark_lsn;
    struct effect *effect = effect_push(b, peer, EFF_GET_OK, ch->number);
    effect->origin = origin;
    effect->msg = msg;
    effect->number = ++ch->next_tag;
    effect->lsn = lsn > b->durable ? lsn : 0;
    effect->flags = (uint8_t)((e->flags & ENTRY_REDELIVERED ? EFFECT_REDELIVERED : 0) | (no_ack ? EFFECT_NO_ACK : 0));
    if (e->position >= q->delivered_upto)
        q->delivered_upto = e->position + 1;
    b->totals.delivered++;
    if (no_ack) {
        peer->removal_epoch = b->removal_epoch;
        backlog_remove(b, e, REASON_ACKED);
    } else {
        unacked_push(&ch->unacked, (struct unacked){.tag = ch->next_tag, .entry = e, .since = b->now});
        backlog_take(b, e);
    }
    backlog_expire(b, q); /* what this message hid and is due does not count as left */
    effect->count = q->busy->ready_count;
}

void do_get(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    struct queue *q = readable(b, ch, c);
    if (!q)
        return;
    if (q->stream) {
        fail(b, peer, c->channel, c->origin, ERR_NOT_IMPLEMENTED,
             "basic.get not supported by stream queues queue '%.*s' in vhost '%.*s'", SLICE_ARG(q->name),
             SLICE_ARG(peer->vhost->name));
        return;
    }
    if (q->rules->single_active) {
        fail(
            b, peer, c->channel, c->origin, ERR_RESOURCE_LOCKED,
            "cannot obtain access to locked queue '%.*s' in vhost '%.*s'. basic.get operations are not supported by %s "
            "with single active consumer",
            SLICE_ARG(q->name), SLICE_ARG(peer->vhost->name),
            q->rules->type == QUEUE_QUORUM ? "quorum queues" : "queues");
        return;
    }
    queue_used(b, q);
    bool no_ack = c->flags & ASK_NO_ACK || c->ask->flags & ASK_NO_ACK;
    if (list_empty(&q->busy->getters))
        get_now(b, ch, q, c->origin, no_ack);
    else if (!get_later(b, ch, q, c->origin, no_ack))
        no_memory(b, peer, c->channel, c->origin);
}
