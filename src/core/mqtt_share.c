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
 *   M8  as long as he is connected, less than AHEAD_MAX wait in front of what has moved and was not sent: it is moved into a queue that
 *       is shorter, and nothing comes back to that queue before his connection ends. Limits of his queue neither count nor drop it.
 *
 * What has moved and was not sent, because its record was not durable or the client took nothing more, goes back the same way when his
 * connection ends, behind what waits in the group. All else counts as sent, also what a crash leaves in the client's queue: a session
 * that ends takes it along. A message that is not of QoS 2, and a subscription of less,
 * stay with the queue of the group.
 */
#include "core/core_int.h"

#define AHEAD_MAX 64u /* messages that have moved and wait */

bool mqtt_sub_takes_over(const struct mqtt_sub *sub)
{
    return sub->group.len && (sub->options & MQTT_QOS_MASK) == 2;
}

static uint64_t room_of(const struct mqtt_client *client)
{
    const struct channel *ch = client->channel;
    uint64_t waiting = client->queue->busy->ready_count;
    uint64_t taken = waiting + ch->global_unacked + ch->releasing;
    if (waiting >= AHEAD_MAX || taken >= ch->global_prefetch)
        return 0;
    uint64_t ahead = AHEAD_MAX - waiting, more = ch->global_prefetch - taken;
    return ahead < more ? ahead : more;
}

uint64_t mqtt_share_room(const struct consumer *consumer)
{
    return room_of(consumer->takes_over->client);
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

/* As msg, in one record. False: no memory, nothing has changed. */
static bool move(struct broker *b, struct entry *e, struct msg *msg, struct queue *to)
{
    lsn_t lsn;
    b->route_gen++;
    b->route.count = b->route.audience_count = 0;
    b->mqtt.moving = true;
    bool moved = route_add(b, &b->route, to) && enqueue_routed(b, msg, &b->route, e, &lsn) != ENQUEUE_NO_MEMORY;
    b->mqtt.moving = false;
    if (moved)
        backlog_remove(b, e, REASON_MOVED);
    return moved;
}

bool mqtt_share_move(struct broker *b, const struct consumer *consumer, struct entry *e)
{
    const struct mqtt_sub *sub = consumer->takes_over;
    struct msg *msg = b->options.log.room(b->options.log.self) ? named(b, sub, e) : NULL;
    if (!msg)
        return false;
    bool moved = move(b, e, msg, sub->client->queue);
    msg_unref(&b->heap, msg);
    return moved;
}

/* Whatever a crash or a connection has left comes again as redelivered. */
static bool is_unsent(const struct entry *e)
{
    return e->msg->flags & MSG_OF_SHARE && !(e->flags & ENTRY_REDELIVERED);
}

/* M8. entries: room for AHEAD_MAX of them, or NULL. What the client had before may lie in pages, or in the front of such a queue; what
 * has moved stands in memory, there or behind it. There is no next one as long as it may be on disk. */
static struct mqtt_unsent look(struct queue *q, struct entry **entries)
{
    struct mqtt_unsent ret = {0};
    const struct entry *head = backlog_head(q);
    struct lane *lane = &q->busy->lanes[head ? head->lane : 0];
    const struct list *front = lane->paging ? &lane->paging->front : NULL;
    const struct list *at = front ? front->next : lane->entries.next;
    bool in_order = false; /* nothing on disk comes before */
    for (unsigned n = 0;; n++, at = at->next) {
        if (at == front) {
            in_order = in_order && list_empty(&lane->paging->pages);
            at = lane->entries.next;
        }
        if (at == &lane->entries)
            break;
        struct entry *e = CONTAINER_OF(at, struct entry, link);
        in_order = in_order || e == head;
        if (n >= AHEAD_MAX || !is_unsent(e)) {
            ret.next = ret.next || !in_order ? ret.next : e;
            if (n >= AHEAD_MAX)
                break;
            continue;
        }
        if (entries)
            entries[ret.count] = e;
        ret.count++;
        ret.bytes += e->msg->body_len;
    }
    return ret;
}

struct mqtt_unsent mqtt_share_unsent(struct queue *q)
{
    return look(q, NULL);
}

/* As it was before it moved. NULL: no memory. */
static struct msg *unnamed(struct broker *b, const struct entry *e, struct slice *ret_share)
{
    struct amqp_props props;
    struct amqp_field name; /* named() has put it first */
    if (!amqp_props_parse(msg_props(e->msg), &props))
        return NULL;
    struct reader headers = reader_of(props.headers);
    if (!amqp_table_next(&headers, &name) || !slice_is(name.name, MQTT_HEADER_SHARE))
        return NULL;
    props.headers = reader_rest(&headers);
    struct msg *msg = mqtt_msg_aged(b, e->msg, &props, e->deadline);
    if (msg)
        msg->flags &= (uint8_t)~MSG_OF_SHARE;
    *ret_share = name.value.s;
    return msg;
}

/* False: no memory, or the group is gone; it stays with the client, then. */
static bool give_back(struct broker *b, struct vhost *vhost, struct entry *e)
{
    struct slice share;
    struct msg *msg = unnamed(b, e, &share);
    if (!msg)
        return false;
    struct queue *to = mqtt_share_queue(b, vhost, share);
    bool moved = to && move(b, e, msg, to);
    msg_unref(&b->heap, msg);
    return moved;
}

void mqtt_share_give_back(struct broker *b, struct mqtt_client *client)
{
    struct entry *entries[AHEAD_MAX];
    if (!client->queue)
        return;
    struct mqtt_unsent unsent = look(client->queue, entries);
    for (uint64_t i = 0; i < unsent.count; i++)
        (void)give_back(b, client->vhost, entries[i]);
}

void mqtt_share_drained(struct broker *b, struct queue *q)
{
    struct mqtt_client *client = mqtt_queue_owner(q->vhost, q->name);
    if (client && client->queue == q && client->resumed && !list_empty(&client->channel->parked) && room_of(client))
        consumers_unpark(b, client->channel);
}
