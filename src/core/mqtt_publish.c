/* What a publish of an MQTT client has more than others: it may be retained, and of QoS 2 it is taken once.
 *
 * Order in the journal: RETAINED, then MQTT_ONCE with the message (log_enqueue puts the id in), or an MQTT_ID when the message went to no
 * journalled queue. So when the id is known to be received, everything that the message was for has happened.
 */
#include "core/core_int.h"

#include <stdio.h>

static void abandon(struct broker *b, struct mqtt_publish *publish)
{
    retained_abort(b, &publish->change);
    b->mqtt.once = (struct mqtt_once){0};
}

/* Its publisher is about to hear that it was not taken. What a queue knows as a duplicate it takes, whether it is full or not. */
static bool is_refused(struct broker *b, const struct msg *msg)
{
    for (uint32_t i = 0; i < b->route.count; i++) {
        struct queue *q = b->route.queues[i];
        if (q->stream || !backlog_would_overflow(q, msg))
            continue;
        struct key_value key = q->rules->dedup ? dedup_key(q, msg, b->wall) : (struct key_value){0};
        if (!key.has || !dedup_knows(b, q, msg, &key, NULL))
            return true;
    }
    return false;
}

bool mqtt_publish_begin(struct broker *b, struct channel *ch, struct exchange *x, struct msg *msg,
                        const struct command *c, struct mqtt_publish *ret)
{
    struct mqtt_client *client = ch->peer->mqtt;
    size_t more = 0;
    *ret = (struct mqtt_publish){0};
    if (c->flags & ASK_RETAIN && !(msg->flags & MSG_PERSISTENT && is_refused(b, msg))) {
        enum retained_result result = retained_prepare(b, x, msg, &ret->change);
        if (result == RETAINED_FULL && (msg->flags & MSG_PERSISTENT)) { /* with QoS 0 nobody would hear of it */
            publish_refused(b, ch, c->number, msg_size(msg), NACK_QUOTA);
            return false;
        }
        if (result == RETAINED_NO_MEMORY) {
            no_memory(b, ch->peer, c->channel, c->origin);
            return false;
        }
        more += retained_log_bytes(&ret->change);
    }
    bool once = c->flags & ASK_ONCE, ok = !once || mqtt_ids_reserve(&client->received);
    if (once) {
        b->mqtt.once = (struct mqtt_once){.client = client, .id = (uint16_t)c->origin, .written = !client->durable};
        more += 64;
    }
    if (ok && more)
        ok = enqueue_reserve(b, msg, &b->route, more, 2);
    if (ok)
        return true;
    abandon(b, ret);
    no_memory(b, ch->peer, c->channel, c->origin);
    return false;
}

lsn_t mqtt_publish_retain(struct broker *b, struct mqtt_publish *publish)
{
    return retained_commit(b, &publish->change);
}

void mqtt_publish_end(struct broker *b, struct channel *ch, bool accepted, lsn_t *lsn)
{
    struct mqtt_once once = b->mqtt.once;
    (void)ch;
    b->mqtt.once = (struct mqtt_once){0};
    if (!once.client)
        return;
    lsn_t own = 0;
    if (accepted)
        mqtt_ids_add(&once.client->received, once.id);
    if (accepted && !once.written)
        own = mqtt_log_id(b, once.client, MQTT_ID_RECEIVED, once.id, NULL, 0);
    else if (!accepted && once.written && once.client->durable) /* some queues took it, and one refused */
        own = mqtt_log_id(b, once.client, MQTT_ID_RELEASED, once.id, NULL, 0);
    *lsn = own > *lsn ? own : *lsn;
}

bool mqtt_publish_again(struct broker *b, struct channel *ch, const struct command *c)
{
    struct mqtt_client *client = ch->peer->mqtt;
    if (!mqtt_ids_has(&client->received, (uint16_t)c->origin))
        return false;
    b->totals.duplicates++;
    publish_confirmed(b, ch, c->number, msg_size(c->msg), client->durable ? b->appended : 0);
    return true;
}

struct msg *mqtt_msg_aged(struct broker *b, const struct msg *msg, struct amqp_props *props, wall_t deadline)
{
    char expiration[24];
    int64_t left = deadline == WALL_NEVER ? -1 : deadline > b->wall ? deadline - b->wall : 0;
    if (left >= 0) {
        props->expiration =
            slice_of(expiration, (size_t)snprintf(expiration, sizeof expiration, "%lld", (long long)left));
        props->present |= AMQP_EXPIRATION;
    }
    struct msg *copy = msg_with_props(b, msg, props);
    if (copy && left >= 0)
        copy->expiration_ms = left;
    return copy;
}

struct msg *mqtt_msg_marked(struct broker *b, const struct msg *msg, const char *name, const struct amqp_value *value,
                            wall_t deadline)
{
    struct amqp_props props;
    if (!msg || !amqp_props_parse(msg_props(msg), &props))
        return NULL;
    size_t max = props.headers.len + value->raw.len + 64;
    uint8_t *raw = mem_alloc(max);
    if (!raw)
        return NULL;
    struct writer w = writer_of(raw, max);
    amqp_put_field(&w, slice_str(name),
                   value); /* before one of that name that has come from elsewhere: the first counts */
    writer_slice_put(&w, props.headers);
    CHECK(writer_ok(&w));
    props.headers = writer_slice(&w);
    props.present |= AMQP_HEADERS;
    struct msg *copy = mqtt_msg_aged(b, msg, &props, deadline);
    mem_free(raw);
    return copy;
}
