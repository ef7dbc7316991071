/* Sets of packet ids that outlive a connection: `received` (PUBLISH of QoS 2 taken, PUBREL not come) and `releasing` (PUBREC
 * has come, PUBCOMP has not). An id is in `received` exactly as long as its message counts as taken: one record says both, so
 * that a publish that is sent again after a crash is either in the set or was never taken. What is in `releasing` is in no queue.
 *
 * A set is an ascending array: ids come in order and go in order, so both ends are where things happen.
 */
#include "core/core_int.h"

static uint32_t lower_bound(const struct mqtt_ids *ids, uint16_t id)
{
    uint32_t low = 0, high = ids->count;
    if (high && ids->at[high - 1] < id)
        return high;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (ids->at[middle] < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool mqtt_ids_has(const struct mqtt_ids *ids, uint16_t id)
{
    uint32_t i = lower_bound(ids, id);
    return i < ids->count && ids->at[i] == id;
}

bool mqtt_ids_reserve(struct mqtt_ids *ids)
{
    if (ids->count < ids->max)
        return true;
    uint32_t max = ids->max ? ids->max * 2 : 8; /* there are 65,535 ids: it ends by itself */
    uint16_t *grown = mem_realloc(ids->at, max * sizeof *grown);
    if (!grown)
        return false;
    ids->at = grown;
    ids->max = max;
    return true;
}

void mqtt_ids_add(struct mqtt_ids *ids, uint16_t id)
{
    uint32_t i = lower_bound(ids, id);
    if (i < ids->count && ids->at[i] == id)
        return;
    CHECK(ids->count < ids->max);
    memmove(ids->at + i + 1, ids->at + i, (ids->count - i) * sizeof *ids->at);
    ids->at[i] = id;
    ids->count++;
}

bool mqtt_ids_drop(struct mqtt_ids *ids, uint16_t id)
{
    uint32_t i = lower_bound(ids, id);
    if (i == ids->count || ids->at[i] != id)
        return false;
    ids->count--;
    memmove(ids->at + i, ids->at + i + 1, (ids->count - i) * sizeof *ids->at);
    if (!ids->count && ids->max > 64)
        mqtt_ids_fini(ids);
    return true;
}

void mqtt_ids_fini(struct mqtt_ids *ids)
{
    mem_free(ids->at);
    *ids = (struct mqtt_ids){0};
}

/* ---- commands ---- */

/* The client of the session, that the number is an id, and room in the journal. NULL: said why not. */
static struct mqtt_client *client_of(struct broker *b, struct peer *peer, const struct command *c, uint64_t id)
{
    if (!peer->mqtt || id == 0 || id > UINT16_MAX) {
        mqtt_reply(b, peer, c, ERR_PRECONDITION_FAILED, 0, 0);
        return NULL;
    }
    if (!log_reserve(b, 128, 2)) {
        no_memory(b, peer, c->channel, c->origin);
        return NULL;
    }
    return peer->mqtt;
}

/* Out of its queue, said in the same record that has the id. What the journal knows of one of the two only is said alone. */
static lsn_t take_out(struct broker *b, struct mqtt_client *client, struct entry *e, uint16_t id)
{
    struct queue *q = e->queue;
    bool known = q && (e->flags & ENTRY_JOURNALLED);
    lsn_t lsn = 0;
    if (client->durable)
        lsn = mqtt_log_id(b, client, MQTT_ID_RELEASING, id, known ? q : NULL, known ? e->position : 0);
    if (!q)
        backlog_free(b, e);
    else if (client->durable) {
        b->totals.acked++;
        backlog_remove(b, e, REASON_MOVED);
    } else
        backlog_remove(b, e, REASON_ACKED);
    return lsn;
}

void mqtt_release(struct broker *b, struct channel *ch, const struct command *c)
{
    struct mqtt_client *client = client_of(b, ch->peer, c, c->origin);
    struct unacked *u = client ? unacked_find(&ch->unacked, c->number) : NULL;
    if (!client)
        return;
    if (!u) {
        mqtt_reply(b, ch->peer, c, ERR_NOT_FOUND, 0, 0);
        return;
    }
    if (!mqtt_ids_reserve(&client->releasing)) {
        no_memory(b, ch->peer, c->channel, c->origin);
        return;
    }
    struct unacked item = *u;
    unacked_drop(&ch->unacked, u);
    unacked_settled(ch, &item);
    ch->peer->removal_epoch = b->removal_epoch;
    lsn_t lsn = take_out(b, client, item.entry, (uint16_t)c->origin);
    mqtt_ids_add(&client->releasing, (uint16_t)c->origin);
    ch->releasing = client->releasing.count;
    mqtt_reply(b, ch->peer, c, ERR_NONE, 0, lsn);
    consumers_unpark(b, ch); /* the id may have been there, after a mistake of the client's */
    mqtt_may_go_on(b, client);
}

void do_mqtt_released(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    struct mqtt_client *client = client_of(b, peer, c, c->number);
    (void)ch;
    if (!client)
        return;
    bool was = mqtt_ids_drop(&client->received, (uint16_t)c->number);
    lsn_t lsn =
        was && client->durable ? mqtt_log_id(b, client, MQTT_ID_RELEASED, (uint16_t)c->number, NULL, 0) : b->appended;
    mqtt_reply(b, peer, c, ERR_NONE, was, client->durable ? lsn : 0);
}

void do_mqtt_completed(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    struct mqtt_client *client = client_of(b, peer, c, c->number);
    if (!client)
        return;
    bool was = mqtt_ids_drop(&client->releasing, (uint16_t)c->number);
    lsn_t lsn = was && client->durable ? mqtt_log_id(b, client, MQTT_ID_COMPLETED, (uint16_t)c->number, NULL, 0) : 0;
    if (client->resumed)
        ch->releasing = client->releasing.count;
    mqtt_reply(b, peer, c, ERR_NONE, was, lsn);
    consumers_unpark(b, ch);
    mqtt_may_go_on(b, client); /* what is retained waits for room in the queue, and that is made here with QoS 2 */
}
