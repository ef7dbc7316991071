/* Direct reply-to: consuming amq.rabbitmq.reply-to gives a channel a private address without a queue.
 *
 * A message published with reply-to amq.rabbitmq.reply-to gets the channel's token appended; publishing to
 * amq.rabbitmq.reply-to.<token> on the default exchange goes straight to that channel's pseudo consumer. The token is
 * random and known only to whom the message was sent. Messages are class `memory`: no journal, and no wait but for what they came from.
 */
#include "core/core_int.h"

#include <stdio.h>

bool reply_is_name(struct slice name)
{
    return slice_starts(name, REPLY_TO);
}

static struct consumer *consumer_of_token(struct broker *b, struct slice name)
{
    size_t prefix = strlen(REPLY_TO ".");
    if (name.len <= prefix || !slice_starts(name, REPLY_TO "."))
        return NULL;
    return map_get(&b->reply_tokens, slice_of(name.ptr + prefix, name.len - prefix));
}

/* Is somebody listening on this reply address? For the passive declare that RPC servers probe with. */
bool reply_alive(struct broker *b, struct slice name)
{
    return consumer_of_token(b, name) != NULL;
}

bool reply_publish(struct broker *b, struct msg *msg, lsn_t lsn)
{
    struct consumer *consumer = consumer_of_token(b, msg_key(msg));
    if (!consumer || !port_has_room(consumer->channel->peer->side))
        return consumer;
    struct channel *ch = consumer->channel;
    struct effect *e = effect_push(b, ch->peer, EFF_DELIVER, ch->number);
    e->msg = msg_ref(msg);
    e->lsn = lsn;
    e->consumer = consumer->id;
    e->number = 1; /* every reply has tag 1, as in RabbitMQ: there is nothing to acknowledge */
    e->flags = EFFECT_NO_ACK;
    ch->peer->credit -= (int64_t)delivery_cost(msg);
    b->totals.delivered++;
    return true;
}

/* Returns msg itself, a rewritten copy with its own reference, or NULL after reporting an error. */
struct msg *reply_rewrite(struct broker *b, struct channel *ch, struct msg *msg)
{
    struct amqp_props props;
    if (!amqp_props_parse(msg_props(msg), &props) || !slice_is(props.reply_to, REPLY_TO))
        return msg;
    if (!ch->reply_consumer) {
        fail(b, ch->peer, ch->number, 60u << 16 | 40, ERR_PRECONDITION_FAILED, "fast reply consumer does not exist");
        return NULL;
    }
    char address[96];
    snprintf(address, sizeof address, REPLY_TO ".%s", ch->reply_token);
    props.reply_to = slice_str(address);
    struct msg *copy = msg_with_props(b, msg, &props);
    if (!copy)
        no_memory(b, ch->peer, ch->number, 60u << 16 | 40);
    return copy;
}

void reply_consume(struct broker *b, struct channel *ch, const struct command *c)
{
    char generated[64];
    struct slice tag = c->ask->other;
    if (!(c->ask->flags & ASK_NO_ACK)) {
        fail(b, ch->peer, c->channel, c->origin, ERR_PRECONDITION_FAILED, "reply consumer cannot acknowledge");
        return;
    }
    if (ch->reply_consumer) {
        fail(b, ch->peer, c->channel, c->origin, ERR_PRECONDITION_FAILED, "reply consumer already set");
        return;
    }
    if (tag.len == 0) {
        random_name(b, "amq.ctag-", generated, sizeof generated);
        tag = slice_str(generated);
    }
    struct consumer *consumer = pool_take(&b->consumers);
    if (!consumer) {
        no_memory(b, ch->peer, c->channel, c->origin);
        return;
    }
    *consumer = (struct consumer){.channel = ch, .no_ack = true};
    random_name(b, "", ch->reply_token, sizeof ch->reply_token);
    struct slice token = slice_str(ch->reply_token);
    if (!slice_keep(&consumer->tag, tag) || !map_put(&b->reply_tokens, token, consumer)) {
        slice_drop(&consumer->tag);
        pool_give(&b->consumers, consumer);
        no_memory(b, ch->peer, c->channel, c->origin);
        return;
    }
    consumer->id = ++ch->next_consumer;
    list_init(&consumer->queue_link);
    list_init(&consumer->ready_link);
    list_insert(&ch->consumers, &consumer->channel_link);
    timer_init(&consumer->timeout, NULL);
    ch->reply_consumer = consumer;
    ch->consumer_count++;
    answer_ok(b, ch->peer, c, 0, consumer->tag, consumer->id, 0);
}

void reply_forget(struct broker *b, struct channel *ch)
{
    if (!ch->reply_consumer)
        return;
    map_take(&b->reply_tokens, slice_str(ch->reply_token));
    ch->reply_consumer = NULL;
}
