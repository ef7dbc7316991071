/* What a member of a share group gets with QoS 2 (MQTT 5.0, 4.8.2).
 *
 * Once it may have been seen by a member it belongs to that member's session: it is completed when he comes back, and goes to nobody
 * else when his session ends. So it is not delivered from the queue of the group. When it is a member's turn the message moves into the
 * queue of his client, in one record, and is delivered from there when that is durable: packet id, PUBREC, PUBREL, and what a crash
 * leaves, are those of the client's own messages. It carries a header that names the subscription, and MSG_OF_SHARE, without which the
 * header means nothing: anybody may write one.
 *
 *   M6  a consumer that takes over belongs to a client that has a queue of its own, whose consumer has been started before.
 *   M7  no more is moved than the client could have at once: receive maximum, and a bounded number that waits to be durable.
 *
 * What has moved counts as sent: a session that ends takes it along. A message that is not of QoS 2, and a subscription of less,
 * stay with the queue of the group.
 */
#include "core/core_int.h"

#define AHEAD_MAX 64u /* messages that have moved and wait */

bool mqtt_sub_takes_over(const struct mqtt_sub *sub)
{
    return sub->group.len && (sub->options & MQTT_QOS_MASK) == 2;
}

/* A limit of the client's queue must not drop what was safe where it lay. */
static uint64_t ahead_max(const struct queue_rules *rules)
{
    if (rules->max_length_bytes >= 0)
        return 1;
    if (rules->max_length >= 0 && rules->max_length < (int64_t)AHEAD_MAX)
        return rules->max_length ? (uint64_t)rules->max_length : 1;
    return AHEAD_MAX;
}

uint64_t mqtt_share_room(const struct consumer *consumer)
{
    const struct channel *ch = consumer->channel;
    const struct queue *q = consumer->takes_over->client->queue;
    uint64_t waiting = q->busy->ready_count, ahead = ahead_max(q->rules);
    uint64_t taken = waiting + ch->global_unacked + ch->releasing;
    if (waiting >= ahead || taken >= ch->global_prefetch)
        return 0;
    ahead -= waiting;
    return ahead < ch->global_prefetch - taken ? ahead : ch->global_prefetch - taken;
}

bool mqtt_share_moves(const struct consumer *consumer, const struct entry *e)
{
    struct amqp_value v;
    return consumer->takes_over && e->msg->flags & MSG_PERSISTENT &&
           amqp_table_find(msg_headers(e->msg), MQTT_HEADER_QOS, &v) && amqp_value_is_int(&v) && v.i == 2;
}

static struct msg *named(struct broker *b, const struct mqtt_sub *sub, const struct entry *e)
{
    uint8_t bytes[4 + 2 * (NAME_MAX_BYTES + 1)];
    struct writer w = writer_of(bytes, sizeof bytes);
    size_t mark = writer_mark32(&w);
    writer_slice_put(&w, sub->group);
    writer_u8(&w, '/');
    writer_slice_put(&w, sub->pattern);
    writer_patch32(&w, mark);
    CHECK(writer_ok(&w));
    struct amqp_value name = {.type = 'S', .raw = writer_slice(&w)};
    struct msg *msg = mqtt_msg_marked(b, e->msg, MQTT_HEADER_SHARE, &name, e->deadline);
    if (msg)
        msg->flags |= MSG_OF_SHARE;
    return msg;
}

bool mqtt_share_move(struct broker *b, const struct consumer *consumer, struct entry *e)
{
    const struct mqtt_sub *sub = consumer->takes_over;
    struct msg *msg = b->options.log.room(b->options.log.self) ? named(b, sub, e) : NULL;
    lsn_t lsn;
    if (!msg)
        return false;
    b->route_gen++;
    b->route.count = b->route.audience_count = 0;
    b->mqtt.moving = true;
    bool moved =
        route_add(b, &b->route, sub->client->queue) && enqueue_routed(b, msg, &b->route, e, &lsn) != ENQUEUE_NO_MEMORY;
    b->mqtt.moving = false;
    msg_unref(&b->heap, msg);
    if (moved)
        backlog_remove(b, e, REASON_MOVED);
    return moved;
}

void mqtt_share_drained(struct broker *b, struct queue *q)
{
    struct mqtt_client *client = mqtt_queue_owner(q->vhost, q->name);
    if (client && client->queue == q && client->resumed && !q->deleting)
        consumers_unpark(b, client->channel);
}
