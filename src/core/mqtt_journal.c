/* MQTT clients in the journal: their records, the snapshot, the replay, and what is mended after it.
 *
 * Records of a client that is not known are nothing: it is gone, or a snapshot says it later. A client's queues and bindings
 * are objects with records of their own, which may be missing or left over where a crash cut between them: after a replay
 * queues and bindings are made as the subscriptions want them, and queues of MQTT's that nobody wants go.
 */
#include "core/core_int.h"
#include "core/records.h"

/* ---- writing ---- */

static bool record_begin(struct broker *b, enum record_type type, size_t bytes, struct writer *w)
{
    if (b->recovering || !log_reserve(b, bytes, 1) || !buffer_reserve(&b->scratch, bytes))
        return false;
    *w = writer_of(b->scratch.bytes, b->scratch.max);
    writer_u8(w, (uint8_t)type);
    return true;
}

static lsn_t record_end(struct broker *b, const struct writer *w)
{
    CHECK(writer_ok(w));
    struct slice part = writer_slice(w);
    return log_record(b, &part, 1);
}

size_t mqtt_client_bytes(const struct mqtt_client *client)
{
    size_t will = client->will ? client->will->key_len + client->will->props_len + (size_t)client->will->body_len : 0;
    return 128 + client->vhost->name.len + client->id.len + client->user.len + client->exchange_name.len + will;
}

static void put_will(struct writer *w, const struct mqtt_client *client)
{
    size_t mark = writer_mark32(w);
    if (client->will) {
        writer_u8(w, client->will_flags);
        writer_u32(w, client->will_delay_s);
        writer_str8(w, msg_key(client->will));
        writer_str32(w, msg_props(client->will));
        writer_slice_put(w, msg_body(client->will));
    }
    writer_patch32(w, mark);
}

lsn_t mqtt_log_client(struct broker *b, const struct mqtt_client *client)
{
    struct writer w;
    if (!client->journalled || !record_begin(b, REC_MQTT_CLIENT, mqtt_client_bytes(client), &w))
        return 0;
    writer_varint(&w, client->number);
    writer_str8(&w, client->vhost->name);
    writer_str8(&w, client->id);
    writer_varint(&w, client->expiry_s + 1ull);
    writer_varint(&w, (uint64_t)client->left_at);
    writer_str8(&w, client->user);
    writer_str8(&w, client->exchange_name);
    writer_u8(&w, client->durable);
    put_will(&w, client);
    return record_end(b, &w);
}

lsn_t mqtt_log_client_gone(struct broker *b, const struct mqtt_client *client)
{
    struct writer w;
    if (!client->journalled || !record_begin(b, REC_MQTT_CLIENT, mqtt_client_bytes(client), &w))
        return 0;
    writer_varint(&w, client->number);
    writer_str8(&w, client->vhost->name);
    writer_str8(&w, client->id);
    writer_varint(&w, 0);
    return record_end(b, &w);
}

lsn_t mqtt_log_sub(struct broker *b, const struct mqtt_sub *sub, bool gone)
{
    struct writer w;
    if (!sub->client->durable || !record_begin(b, REC_MQTT_SUB, 64 + sub->pattern.len + sub->group.len, &w))
        return 0;
    writer_varint(&w, sub->client->number);
    writer_str8(&w, sub->pattern);
    writer_str8(&w, sub->group);
    writer_varint(&w, gone ? 0 : sub->options + 1u);
    writer_varint(&w, sub->identifier);
    return record_end(b, &w);
}

lsn_t mqtt_log_id(struct broker *b, const struct mqtt_client *client, enum mqtt_id_what what, uint16_t id,
                  const struct queue *q, uint64_t position)
{
    struct writer w;
    if (!record_begin(b, REC_MQTT_ID, 64, &w))
        return 0;
    writer_varint(&w, client->number);
    writer_u8(&w, (uint8_t)what);
    writer_varint(&w, id);
    if (what == MQTT_ID_RELEASING) {
        writer_varint(&w, q ? q->id : 0);
        writer_varint(&w, position);
    }
    return record_end(b, &w);
}

/* ---- snapshot ---- */

void mqtt_snapshot_begin(struct broker *b)
{
    b->compact.client = b->mqtt.clients.next;
    retained_snapshot_begin(b);
}

static bool snapshot_ids(struct broker *b, const struct mqtt_client *client, const struct mqtt_ids *ids,
                         enum mqtt_id_what what, size_t *bytes)
{
    for (uint32_t i = 0; i < ids->count; i++, *bytes += 8)
        if (!mqtt_log_id(b, client, what, ids->at[i], NULL, 0))
            return false;
    return true;
}

/* All of one: what is said twice, because memory was refused on the way, is nothing. */
static bool snapshot_client(struct broker *b, const struct mqtt_client *client, size_t *bytes)
{
    *bytes += 64;
    if (!client->journalled)
        return true;
    *bytes += mqtt_client_bytes(client);
    if (!mqtt_log_client(b, client))
        return false;
    if (!client->durable)
        return true;
    LIST_EACH(&client->subs, node, after)
    {
        const struct mqtt_sub *sub = CONTAINER_OF(node, struct mqtt_sub, link);
        *bytes += 16 + sub->pattern.len;
        if (!mqtt_log_sub(b, sub, false))
            return false;
    }
    return snapshot_ids(b, client, &client->received, MQTT_ID_RECEIVED, bytes) &&
           snapshot_ids(b, client, &client->releasing, MQTT_ID_RELEASING, bytes);
}

bool mqtt_snapshot(struct broker *b, size_t *bytes, bool *ret_done)
{
    struct compact *k = &b->compact;
    *ret_done = false;
    for (; k->client != &b->mqtt.clients; k->client = k->client->next) {
        if (*bytes >= b->options.compact_slice_bytes)
            return true;
        if (!snapshot_client(b, CONTAINER_OF(k->client, struct mqtt_client, link), bytes))
            return false;
    }
    return retained_snapshot(b, bytes, ret_done);
}

/* ---- replay ---- */

struct mqtt_client *mqtt_client_numbered(struct broker *b, uint64_t number)
{
    return map_get(&b->mqtt.numbers, map_key_u64(&number));
}

static bool read_client(struct broker *b, struct reader *r, struct vhost *vhost, struct slice id, uint64_t number,
                        uint64_t expiry)
{
    uint64_t left_at = reader_varint(r);
    struct slice user = reader_str8(r), exchange = reader_str8(r);
    bool durable = reader_u8(r);
    struct slice will = reader_str32(r);
    if (!reader_done(r) || left_at > INT64_MAX || expiry - 1 > UINT32_MAX)
        return false;
    struct mqtt_client *client = mqtt_client_numbered(b, number);
    if (!client) {
        struct mqtt_client *old = mqtt_client_find(vhost, id);
        if (old)
            mqtt_client_free(b, old);
        client = mqtt_client_make(b, vhost, id, user, exchange, number);
    }
    if (!client)
        return false;
    client->expiry_s = (uint32_t)(expiry - 1);
    client->left_at = (wall_t)left_at;
    client->durable = durable;
    client->journalled = true;
    mqtt_will_drop(b, client);
    return !will.len || (mqtt_will_parse(b, client, will, &client->will, &client->will_delay_s, &client->will_flags) &&
                         client->will);
}

bool replay_mqtt_client(struct broker *b, struct reader *r)
{
    uint64_t number = reader_varint(r);
    struct vhost *vhost = vhost_find(b, reader_str8(r));
    struct slice id = reader_str8(r);
    uint64_t expiry = reader_varint(r);
    if (!reader_ok(r) || id.len > MQTT_CLIENT_ID_MAX)
        return false;
    if (number >= b->mqtt.next_client)
        b->mqtt.next_client = number + 1;
    if (expiry)
        return !vhost || read_client(b, r, vhost, id, number, expiry);
    struct mqtt_client *client = mqtt_client_numbered(b, number);
    if (client)
        mqtt_client_free(b, client);
    return true;
}

bool replay_mqtt_sub(struct broker *b, struct reader *r)
{
    struct mqtt_client *client = mqtt_client_numbered(b, reader_varint(r));
    struct slice pattern = reader_str8(r), group = reader_str8(r);
    uint64_t options = reader_varint(r), identifier = reader_varint(r);
    if (!reader_done(r) || options > 256 || identifier > UINT32_MAX)
        return false;
    struct mqtt_sub *sub = client ? mqtt_sub_find(b, client, pattern, group) : NULL;
    if (!options && sub)
        mqtt_sub_free(b, sub);
    if (!options || !client)
        return true;
    if (!sub && !(sub = mqtt_sub_make(b, client, pattern, group)))
        return false;
    sub->options = (uint8_t)(options - 1);
    sub->identifier = (uint32_t)identifier;
    return true;
}

bool replay_mqtt_id(struct broker *b, struct reader *r)
{
    struct mqtt_client *client = mqtt_client_numbered(b, reader_varint(r));
    uint8_t what = reader_u8(r);
    uint64_t id = reader_varint(r);
    if (!reader_ok(r) || what >= MQTT_ID_WHATS || id == 0 || id > UINT16_MAX)
        return false;
    if (what == MQTT_ID_RELEASING) {
        uint64_t queue = reader_varint(r), position = reader_varint(r);
        if (!reader_ok(r) || (queue && !replay_taken(b, queue, position)))
            return false;
    }
    if (!client)
        return true;
    struct mqtt_ids *ids = what <= MQTT_ID_RELEASED ? &client->received : &client->releasing;
    if (what == MQTT_ID_RELEASED || what == MQTT_ID_COMPLETED) {
        (void)mqtt_ids_drop(ids, (uint16_t)id);
        return true;
    }
    if (!mqtt_ids_reserve(ids))
        return false;
    mqtt_ids_add(ids, (uint16_t)id);
    return true;
}

/* ---- after a replay ---- */

static bool is_wanted(struct broker *b, struct queue *q)
{
    struct mqtt_client *client = mqtt_queue_owner(q->vhost, q->name);
    return (client && client->queue == q) || map_get(&b->mqtt.shares, map_key_u64(&q->id));
}

static struct queue *left_over(struct broker *b)
{
    LIST_EACH(&b->catalogue, node, after)
    {
        struct object *object = CONTAINER_OF(node, struct object, link);
        struct queue *q = CONTAINER_OF(object, struct queue, object);
        if (object->kind == OBJ_QUEUE && q->mqtt && !is_wanted(b, q))
            return q;
    }
    return NULL;
}

/* Who was connected lost its connection now. */
bool mqtt_recovered(struct broker *b)
{
    LIST_EACH(&b->mqtt.clients, node, after)
    {
        struct mqtt_client *client = CONTAINER_OF(node, struct mqtt_client, link);
        if (!client->left_at)
            client->left_at = b->wall;
        struct exchange *x = exchange_find(client->vhost, client->exchange_name);
        if (x && x->type->by_topic)
            mqtt_client_at_exchange(client, x);
        if (client->durable && !mqtt_subs_bind(b, client))
            return false;
        mqtt_client_arm(b, client);
    }
    for (struct queue *q; (q = left_over(b));)
        queue_delete(b, q); /* a few at most: each is what one crash left */
    retained_recovered(b);
    return true;
}
