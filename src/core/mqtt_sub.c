/* Subscriptions of MQTT clients: taps, the client's queue, share groups.
 *
 *   M1  a subscription is one of: a tap (QoS 0, no group; only while its client is connected), a binding to its client's queue (QoS 1
 *       and 2), a member of a share (any QoS). It never is two of them.
 *   M2  a client's queue is made with the first subscription that needs it, which one of a share with QoS 2 does (mqtt_share.c), and
 *       goes with the client; it is durable when the client outlives its connection, else exclusive. A share's queue goes with its last member.
 *
 * Order in the journal: a queue, its subscription, its binding; when one goes, the binding first. Wherever a crash cuts, what is
 * left is a subscription without its binding, which recovery mends, or a queue that nobody wants (mqtt_journal.c).
 */
#include "core/core_int.h"

#include <stdio.h>

#define SUBS_MAX 100000u /* of one client */
#define QUEUE_PREFIX "mqtt-subscription-"
#define QUEUE_SUFFIX "qos1"
#define SHARE_PREFIX "mqtt-shared-"

/* ---- names ---- */

size_t mqtt_queue_name(const struct mqtt_client *client, char ret[256])
{
    return (size_t)snprintf(ret, 256, QUEUE_PREFIX "%.*s" QUEUE_SUFFIX, SLICE_ARG(client->id));
}

struct mqtt_client *mqtt_queue_owner(struct vhost *vhost, struct slice name)
{
    size_t prefix = strlen(QUEUE_PREFIX), suffix = strlen(QUEUE_SUFFIX);
    if (name.len < prefix + suffix || !slice_starts(name, QUEUE_PREFIX))
        return NULL;
    return mqtt_client_find(vhost, slice_of(name.ptr + prefix, name.len - prefix - suffix));
}

/* Groups have no "/" in their names, so the first one ends it. 0: it is too long. */
static size_t share_name(const struct mqtt_sub *sub, char ret[256])
{
    int len = snprintf(ret, 256, SHARE_PREFIX "%.*s/%.*s", SLICE_ARG(sub->group), SLICE_ARG(sub->pattern));
    return len > 255 ? 0 : (size_t)len;
}

struct queue *mqtt_share_queue(struct broker *b, struct vhost *vhost, struct slice share)
{
    char text[256];
    int len = snprintf(text, sizeof text, SHARE_PREFIX "%.*s", SLICE_ARG(share));
    struct queue *q = len < 256 ? queue_find(vhost, slice_of((uint8_t *)text, (size_t)len)) : NULL;
    return q && map_get(&b->mqtt.shares, map_key_u64(&q->id)) ? q : NULL;
}

/* ---- objects ---- */

static size_t key_write(uint8_t *ret, const struct mqtt_client *client, struct slice pattern, struct slice group)
{
    struct writer w = writer_of(ret, 8 + 2 * 256);
    writer_u64(&w, client->number);
    writer_str8(&w, group);
    writer_slice_put(&w, pattern);
    CHECK(writer_ok(&w));
    return w.len;
}

struct mqtt_sub *mqtt_sub_find(struct broker *b, const struct mqtt_client *client, struct slice pattern,
                               struct slice group)
{
    uint8_t key[8 + 2 * 256];
    return map_get(&b->mqtt.subs, slice_of(key, key_write(key, client, pattern, group)));
}

struct mqtt_sub *mqtt_sub_make(struct broker *b, struct mqtt_client *client, struct slice pattern, struct slice group)
{
    uint8_t key[8 + 2 * 256];
    size_t len = key_write(key, client, pattern, group);
    struct mqtt_sub *sub = map_reserve(&b->mqtt.subs) ? mem_zalloc_as(MEM_CONNECTIONS, sizeof *sub + len) : NULL;
    if (!sub)
        return NULL;
    memcpy(sub->bytes, key, len);
    sub->client = client;
    sub->key = slice_of(sub->bytes, len);
    sub->group = slice_of(sub->bytes + 9, group.len);
    sub->pattern = slice_of(sub->bytes + 9 + group.len, pattern.len);
    list_init(&sub->share_link);
    list_insert(&client->subs, &sub->link);
    client->sub_count++;
    CHECK(map_put(&b->mqtt.subs, sub->key, sub));
    return sub;
}

void mqtt_sub_free(struct broker *b, struct mqtt_sub *sub)
{
    if (sub->audience)
        audience_leave(b, sub);
    CHECK(!sub->share);
    (void)map_take(&b->mqtt.subs, sub->key);
    list_remove(&sub->link);
    sub->client->sub_count--;
    mem_free_as(MEM_CONNECTIONS, sub);
}

bool mqtt_sub_is_tap(const struct mqtt_sub *sub)
{
    return (sub->options & MQTT_QOS_MASK) == 0 && !sub->group.len;
}

/* ---- what they want of queues ---- */

enum made { MADE, MADE_NOT, MADE_LOCKED };

/* The binding from the exchange to the queue, with its record. */
static enum made bind(struct broker *b, struct mqtt_sub *sub, struct queue *q, lsn_t *lsn)
{
    struct exchange *x = sub->client->exchange;
    struct binding *binding, *fresh;
    if (!binding_make(b, x, q, NULL, sub->pattern, (struct slice){0}, &fresh))
        return MADE_NOT;
    if (fresh) {
        lsn_t own = log_object(b, &fresh->object);
        *lsn = own > *lsn ? own : *lsn;
    }
    if (sub->share)
        return MADE;
    binding = fresh;
    if (!binding && !binding_find(x->vhost, x, q, NULL, sub->pattern, (struct slice){0}, &binding))
        return MADE_NOT;
    binding->no_local = sub->options & MQTT_NO_LOCAL ? sub->client : NULL;
    return MADE;
}

/* When there is no memory to look for it, it stays, and what comes by it is nobody's: the engine acknowledges it. */
static void unbind(struct broker *b, struct mqtt_sub *sub, struct queue *q)
{
    struct exchange *x = sub->client->exchange;
    struct binding *binding = NULL;
    if (!x || !q || !binding_find(x->vhost, x, q, NULL, sub->pattern, (struct slice){0}, &binding) || !binding)
        return;
    (void)log_object_gone(b, &binding->object);
    binding_delete(b, binding, true);
}

static enum made own_queue(struct broker *b, struct mqtt_client *client, lsn_t *lsn)
{
    char text[256];
    if (client->queue)
        return MADE;
    struct slice name = slice_of((uint8_t *)text, mqtt_queue_name(client, text));
    if (queue_find(client->vhost, name))
        return MADE_LOCKED; /* somebody has declared one of that name */
    uint32_t flags = ASK_INTERNAL | (client->durable ? ASK_DURABLE : 0);
    client->queue =
        queue_create(b, client->vhost, name, flags, (struct slice){0}, client->durable ? NULL : client->peer, lsn);
    return client->queue ? MADE : MADE_NOT;
}

static enum made share_join(struct broker *b, struct mqtt_sub *sub, lsn_t *lsn)
{
    char text[256];
    struct slice name = slice_of((uint8_t *)text, share_name(sub, text));
    struct vhost *vhost = sub->client->vhost;
    struct queue *q = queue_find(vhost, name);
    if (sub->share)
        return MADE;
    if (q && !q->mqtt)
        return MADE_LOCKED;
    if (q && sub->client->durable && !queue_outlive(b, q, lsn))
        return MADE_NOT;
    struct mqtt_share *share = q ? map_get(&b->mqtt.shares, map_key_u64(&q->id)) : NULL;
    if (!share) {
        share = map_reserve(&b->mqtt.shares) ? mem_zalloc(sizeof *share) : NULL;
        if (share && !q) {
            uint32_t flags = ASK_INTERNAL | (sub->client->durable ? ASK_DURABLE : 0);
            q = queue_create(b, vhost, name, flags, (struct slice){0}, NULL, lsn);
        }
        if (!share || !q) {
            mem_free(share);
            return MADE_NOT;
        }
        share->queue = q;
        share->queue_id = q->id;
        list_init(&share->members);
        CHECK(map_put(&b->mqtt.shares, map_key_u64(&share->queue_id), share));
    }
    sub->share = share;
    list_insert(&share->members, &sub->share_link);
    return MADE;
}

/* The queues that it needs are there. */
static enum made queues_join(struct broker *b, struct mqtt_sub *sub, lsn_t *lsn)
{
    enum made made = MADE;
    if (!sub->group.len || mqtt_sub_takes_over(sub))
        made = own_queue(b, sub->client, lsn);
    return made == MADE && sub->group.len ? share_join(b, sub, lsn) : made;
}

/* The last one takes the queue with it. */
void mqtt_share_left(struct broker *b, struct mqtt_sub *sub)
{
    struct mqtt_share *share = sub->share;
    if (!share)
        return;
    list_remove(&sub->share_link);
    sub->share = NULL;
    if (!list_empty(&share->members))
        return;
    struct queue *q = share->queue;
    (void)map_take(&b->mqtt.shares, map_key_u64(&share->queue_id));
    mem_free(share);
    if (q && !b->recovering)
        queue_delete(b, q);
}

static struct consumer *consumer_of(struct channel *ch, uint32_t id)
{
    LIST_EACH(&ch->consumers, node, after)
    {
        struct consumer *consumer = CONTAINER_OF(node, struct consumer, channel_link);
        if (consumer->id == id)
            return consumer;
    }
    return NULL;
}

static bool consume_from(struct broker *b, struct mqtt_client *client, struct queue *q, uint32_t id, bool no_ack)
{
    if (!client->resumed || client->channel->failed || consumer_of(client->channel, id))
        return true;
    return consumer_start(b, client->channel, q, id, no_ack) != NULL;
}

/* Deliveries from the client's queue first: what is taken over goes there. */
static bool take_over_from(struct broker *b, const struct mqtt_sub *sub)
{
    struct mqtt_client *client = sub->client;
    struct consumer *consumer = NULL;
    if (!client->resumed || client->channel->failed)
        return true;
    if (consume_from(b, client, client->queue, MQTT_OWN_QUEUE, false))
        consumer = consumer_start(b, client->channel, sub->share->queue, sub->handle, false);
    if (!consumer)
        return false;
    consumer->takes_over = sub;
    b->mqtt.takers++;
    return true;
}

/* Deliveries begin, when they may. False: no memory. */
static bool consume(struct broker *b, const struct mqtt_sub *sub)
{
    if (!sub->share)
        return consume_from(b, sub->client, sub->client->queue, MQTT_OWN_QUEUE, false);
    if (mqtt_sub_takes_over(sub))
        return take_over_from(b, sub);
    return consume_from(b, sub->client, sub->share->queue, sub->handle, !(sub->options & MQTT_QOS_MASK));
}

void mqtt_sub_consumes_not(struct broker *b, const struct mqtt_sub *sub)
{
    struct consumer *consumer =
        sub->share && sub->client->channel ? consumer_of(sub->client->channel, sub->handle) : NULL;
    if (consumer)
        consumer_remove(b, consumer);
}

/* The queue that it had before a restart, also when no subscription needs it any more. */
static void find_queue(struct mqtt_client *client)
{
    char text[256];
    struct queue *q = queue_find(client->vhost, slice_of((uint8_t *)text, mqtt_queue_name(client, text)));
    if (q && q->mqtt && !client->queue)
        client->queue = q;
}

bool mqtt_subs_bind(struct broker *b, struct mqtt_client *client)
{
    lsn_t lsn = 0;
    find_queue(client);
    LIST_EACH(&client->subs, node, after)
    {
        struct mqtt_sub *sub = CONTAINER_OF(node, struct mqtt_sub, link);
        if (mqtt_sub_is_tap(sub) || !client->exchange)
            continue;
        enum made made = queues_join(b, sub, &lsn);
        if (made == MADE)
            made = bind(b, sub, sub->share ? sub->share->queue : client->queue, &lsn);
        if (made == MADE_NOT)
            return false;
    }
    return true;
}

bool mqtt_subs_resume(struct broker *b, struct mqtt_client *client)
{
    LIST_EACH(&client->subs, node, after)
    {
        struct mqtt_sub *sub = CONTAINER_OF(node, struct mqtt_sub, link);
        if (mqtt_sub_is_tap(sub)) {
            if (!sub->audience && client->exchange && !audience_join(b, client->exchange, sub))
                return false;
        } else if (sub->share && !consume(b, sub))
            return false;
    }
    /* Also when no subscription is left: what was sent and not acknowledged is sent again (4.4). */
    return !client->queue || consume_from(b, client, client->queue, MQTT_OWN_QUEUE, false);
}

void mqtt_subs_silence(struct broker *b, struct mqtt_client *client)
{
    LIST_EACH(&client->subs, node, after)
    {
        struct mqtt_sub *sub = CONTAINER_OF(node, struct mqtt_sub, link);
        if (sub->audience)
            audience_leave(b, sub);
    }
}

/* ---- commands ---- */

/* Words between dots; "#" is the last one or none. */
bool mqtt_pattern_is_right(struct slice pattern)
{
    for (size_t i = 0; i + 1 < pattern.len; i++)
        if (pattern.ptr[i] == '#' && (i == 0 || pattern.ptr[i - 1] == '.') && pattern.ptr[i + 1] == '.')
            return false;
    return pattern.len > 0 && pattern.len <= NAME_MAX_BYTES;
}

static enum error_code may_subscribe(struct broker *b, struct peer *peer, const struct command *c)
{
    const struct ask *ask = c->ask;
    const struct mqtt_client *client = peer->mqtt;
    unsigned qos = (unsigned)(ask->number >> 32) & MQTT_QOS_MASK;
    size_t share = strlen(SHARE_PREFIX) + 1 + ask->other.len + ask->name.len;
    if (!client || c->number < MQTT_HANDLE_FIRST || c->number > UINT32_MAX || qos > 2 ||
        !mqtt_pattern_is_right(ask->name) ||
        (ask->other.len && (share > NAME_MAX_BYTES || memchr(ask->other.ptr, '/', ask->other.len))))
        return ERR_PRECONDITION_FAILED;
    if (!client->exchange)
        return ERR_NOT_FOUND;
    if (!authorise(b, peer->user, peer->vhost, VERB_READ, client->exchange->name) ||
        !authorise_topic(b, peer->user, client->exchange, VERB_READ, ask->name))
        return ERR_ACCESS_REFUSED;
    if (ask->other.len && client->channel->consumer_count >= b->options.channel_consumers_max &&
        !mqtt_sub_find(b, client, ask->name, ask->other))
        return ERR_RESOURCE_ERROR; /* each is a consumer of the one channel, which is a list to be walked */
    return client->sub_count < SUBS_MAX ? ERR_NONE : ERR_RESOURCE_ERROR;
}

/* What it was before it was changed. */
struct before {
    bool there, tap;
    uint8_t options;
    uint32_t handle, identifier;
};

/* One that was there before goes on as it was. False: no memory for that. */
static bool undo(struct broker *b, struct mqtt_sub *sub, const struct before *was)
{
    sub->options = was->options;
    sub->handle = was->handle;
    sub->identifier = was->identifier;
    if (was->there) {
        (void)mqtt_log_sub(b, sub, false);
        return !sub->share || consume(b, sub);
    }
    mqtt_share_left(b, sub);
    mqtt_sub_free(b, sub);
    return true;
}

/* Makes what the subscription wants now; what it had before goes when that is there. */
static enum made change(struct broker *b, struct mqtt_sub *sub, const struct before *was, lsn_t *lsn)
{
    struct mqtt_client *client = sub->client;
    enum made made = MADE;
    if (mqtt_sub_is_tap(sub)) {
        if (sub->audience)
            audience_rename(sub);
        else if (!audience_join(b, client->exchange, sub))
            return MADE_NOT;
        if (was->there && !was->tap)
            unbind(b, sub, client->queue);
        *lsn = mqtt_log_sub(b, sub, false);
        return MADE;
    }
    made = queues_join(b, sub, lsn);
    if (made != MADE)
        return made;
    lsn_t own = mqtt_log_sub(b, sub, false);
    *lsn = own > *lsn ? own : *lsn;
    made = bind(b, sub, sub->share ? sub->share->queue : client->queue, lsn);
    if (made != MADE || !consume(b, sub)) {
        if (!was->there)
            (void)mqtt_log_sub(b, sub, true);
        return made != MADE ? made : MADE_NOT;
    }
    if (sub->audience)
        audience_leave(b, sub);
    return MADE;
}

void do_mqtt_subscribe(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    struct mqtt_client *client = peer->mqtt;
    enum error_code code = may_subscribe(b, peer, c);
    (void)ch;
    if (code) {
        mqtt_reply(b, peer, c, code, 0, 0);
        return;
    }
    struct mqtt_sub *sub = mqtt_sub_find(b, client, c->ask->name, c->ask->other);
    struct before was = {.there = sub != NULL};
    if (!log_reserve(b, 20480, 5) || (!sub && !(sub = mqtt_sub_make(b, client, c->ask->name, c->ask->other)))) {
        no_memory(b, peer, c->channel, c->origin);
        return;
    }
    was = (struct before){was.there, mqtt_sub_is_tap(sub), sub->options, sub->handle, sub->identifier};
    if (was.there)
        mqtt_sub_consumes_not(b, sub);
    sub->options = (uint8_t)(c->ask->number >> 32);
    sub->identifier = (uint32_t)c->ask->number;
    sub->handle = (uint32_t)c->number;
    lsn_t lsn = 0;
    enum made made = change(b, sub, &was, &lsn);
    if (made == MADE) {
        mqtt_reply(b, peer, c, ERR_NONE, was.there, lsn);
        return;
    }
    bool undone = undo(b, sub, &was);
    if (made == MADE_LOCKED && undone)
        mqtt_reply(b, peer, c, ERR_RESOURCE_LOCKED, 0, 0);
    else
        no_memory(b, peer, c->channel, c->origin);
}

void do_mqtt_unsubscribe(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    struct mqtt_client *client = peer->mqtt;
    (void)ch;
    if (!client || c->ask->name.len > NAME_MAX_BYTES || c->ask->other.len > NAME_MAX_BYTES) {
        mqtt_reply(b, peer, c, ERR_PRECONDITION_FAILED, 0, 0);
        return;
    }
    struct mqtt_sub *sub = mqtt_sub_find(b, client, c->ask->name, c->ask->other);
    if (!sub) {
        mqtt_reply(b, peer, c, ERR_NONE, 0, 0);
        return;
    }
    if (!log_reserve(b, 8192, 4)) {
        no_memory(b, peer, c->channel, c->origin);
        return;
    }
    mqtt_sub_consumes_not(b, sub);
    if (!sub->share && !mqtt_sub_is_tap(sub))
        unbind(b, sub, client->queue);
    lsn_t lsn = mqtt_log_sub(b, sub, true);
    mqtt_share_left(b, sub);
    mqtt_sub_free(b, sub);
    mqtt_reply(b, peer, c, ERR_NONE, 1, lsn);
}
