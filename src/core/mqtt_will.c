/* Wills: what a client leaves to be published when its connection ends and it did not say good-bye.
 *
 * A will is kept as the message that it will be. It fires at once or after its delay, but no later than the session's end; a client that
 * comes back before keeps it to itself. Publishing and forgetting it is one record (TX), so it fires at most once, whatever
 * crashes; one that was not published yet when the broker stopped fires after the start. Without memory it stays, and its client with it,
 * and fires later.
 */
#include "core/core_int.h"

bool mqtt_will_parse(struct broker *b, const struct mqtt_client *client, struct slice args, struct msg **ret,
                     uint32_t *ret_delay, uint8_t *ret_flags)
{
    struct reader r = reader_of(args);
    struct amqp_props props;
    int64_t expiration_ms;
    *ret_flags = reader_u8(&r);
    *ret_delay = reader_u32(&r);
    struct slice key = reader_str8(&r), raw = reader_str32(&r), body = reader_rest(&r);
    *ret = NULL;
    if (!reader_ok(&r) || !amqp_props_parse(raw, &props) || !amqp_props_acceptable(&props, &expiration_ms, NULL, 0))
        return false;
    struct msg *msg = msg_new(&b->heap, client->exchange_name, key, raw, body.len);
    if (!msg)
        return true;
    msg->flags = (uint8_t)((props.delivery_mode == 2 ? MSG_PERSISTENT : 0) |
                           (props.present & AMQP_HEADERS ? MSG_HAS_HEADERS : 0));
    msg->priority = props.priority;
    msg->expiration_ms = expiration_ms;
    if (body.len)
        memcpy(msg_body_room(msg), body.ptr, body.len);
    *ret = msg;
    return true;
}

void mqtt_will_drop(struct broker *b, struct mqtt_client *client)
{
    if (client->will)
        msg_unref(&b->heap, client->will);
    client->will = NULL;
}

wall_t mqtt_will_due(const struct mqtt_client *client)
{
    if (!client->will || !client->left_at)
        return WALL_NEVER;
    uint32_t wait = client->will_delay_s < client->expiry_s ? client->will_delay_s : client->expiry_s;
    return client->left_at + (wall_t)wait * 1000;
}

/* Where it may go: its user may have lost his rights, or the exchange is not there. */
static bool has_somewhere_to_go(struct broker *b, const struct mqtt_client *client)
{
    struct exchange *x = client->exchange;
    struct user *user = user_find(b, client->user);
    return x && user && authorise(b, user, client->vhost, VERB_WRITE, x->name) &&
           authorise_topic(b, user, x, VERB_WRITE, msg_key(client->will));
}

/* The client's record without the will; or that it is gone, when nothing else is left of it. */
static lsn_t log_without(struct broker *b, struct mqtt_client *client)
{
    if (client->expiry_s || client->peer)
        return mqtt_log_client(b, client);
    lsn_t lsn = mqtt_log_client_gone(b, client);
    client->journalled = false;
    return lsn;
}

/* Everything that is needed is there: it is published, and the client has no will any more. */
static void publish(struct broker *b, struct mqtt_client *client, struct retained_change *change, size_t need,
                    size_t rest)
{
    struct msg *will = client->will;
    lsn_t lsn;
    client->will = NULL;
    b->promised -= need;
    if (b->route.count)
        CHECK(enqueue_routed(b, will, &b->route, NULL, &lsn) != ENQUEUE_NO_MEMORY);
    audiences_tell(b, &b->route, will, NULL);
    b->promised -= rest;
    (void)retained_commit(b, change);
    (void)log_without(b, client);
    (void)log_capture_end(b);
    b->totals.published++;
    msg_unref(&b->heap, will);
}

bool mqtt_will_fire(struct broker *b, struct mqtt_client *client)
{
    struct retained_change change = {0};
    struct msg *will = client->will;
    if (!has_somewhere_to_go(b, client)) {
        mqtt_will_drop(b, client);
        (void)log_without(b, client); /* without memory it is looked at once more after a restart */
        return true;
    }
    backlog_flush_removals(b);
    if (!list_empty(&b->removals))
        return false;
    b->route.from = client;
    if (!route_message(b, client->exchange, will, msg_headers(will), &b->route))
        return false;
    if ((client->will_flags & MQTT_WILL_RETAIN) &&
        retained_prepare(b, client->exchange, will, &change) == RETAINED_NO_MEMORY)
        return false; /* a full store keeps what it has, and the will is published all the same */
    uint32_t count = b->route.count;
    size_t need = log_captured_bytes(log_enqueue_bytes(will, count) + 64u * count, count + 1);
    size_t rest = log_captured_bytes(mqtt_client_bytes(client) + retained_log_bytes(&change), 2);
    if (!enqueue_reserve(b, will, &b->route, need + rest, 3) || !log_capture_begin(b, need + rest, count + 3)) {
        retained_abort(b, &change);
        return false;
    }
    publish(b, client, &change, need, rest);
    return true;
}
