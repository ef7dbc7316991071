/* Clients of MQTT: attached to a session, taken over by another, left, over.
 *
 *            MQTT_ATTACH                       connection ends, expiry above 0
 *   (none) ──────────────▶ connected ─────────────────────────────────────────▶ left ──▶ (none) when its time is over
 *              ▲               │  ▲                MQTT_ATTACH                    │
 *              │               │  └───────────────────────────────────────────────┘
 *              └───────────────┘ connection ends, expiry 0
 *
 *   M3  `left_at` is 0 if and only if it has a peer; the peer knows it, and there is one client for a peer.
 *   M4  what has left without an expiry is there only while its will waits for memory (`over`): no queue, no subscription.
 *   M5  a client has records if and only if it is `journalled`; subscriptions and ids have when it is `durable`.
 *
 * One timer for each that has left: its will is due, or its end. While the broker stops nobody fires and nobody ends: after the
 * start everybody has left, and wills and ends go on from there.
 */
#include "core/core_int.h"

#define RETRY_NS NS_PER_S
#define TIMER_MAX_MS (180LL * 86400 * 1000)

static void timer_fired(void *arg, struct timer *timer);

static struct slice sub_key_of(const void *value)
{
    return ((const struct mqtt_sub *)value)->key;
}

static struct slice number_of(const void *value)
{
    return map_key_u64(&((const struct mqtt_client *)value)->number);
}

static struct slice share_key_of(const void *value)
{
    return map_key_u64(&((const struct mqtt_share *)value)->queue_id);
}

void mqtt_init(struct broker *b)
{
    struct mqtt_state *m = &b->mqtt;
    list_init(&m->clients);
    map_init_keyed(&m->subs, b->seed + 31, sub_key_of);
    map_init_keyed(&m->numbers, b->seed + 32, number_of);
    map_init_keyed(&m->shares, b->seed + 33, share_key_of);
    m->next_client = 1;
    retained_init(b);
}

bool mqtt_turn(struct broker *b)
{
    return retained_turn(b);
}

/* ---- objects ---- */

struct mqtt_client *mqtt_client_find(struct vhost *vhost, struct slice id)
{
    return map_get(&vhost->mqtt_clients, id);
}

static struct slice keep(uint8_t **at, struct slice from)
{
    struct slice kept = slice_of(*at, from.len);
    if (from.len)
        memcpy(*at, from.ptr, from.len);
    *at += from.len;
    return kept;
}

struct mqtt_client *mqtt_client_make(struct broker *b, struct vhost *vhost, struct slice id, struct slice user,
                                     struct slice exchange, uint64_t number)
{
    if (!map_reserve(&vhost->mqtt_clients) || !map_reserve(&b->mqtt.numbers))
        return NULL;
    struct mqtt_client *client = mem_zalloc_as(MEM_CONNECTIONS, sizeof *client + id.len + user.len + exchange.len);
    if (!client)
        return NULL;
    uint8_t *at = client->bytes;
    client->id = keep(&at, id);
    client->user = keep(&at, user);
    client->exchange_name = keep(&at, exchange);
    client->vhost = vhost;
    client->number = number ? number : b->mqtt.next_client++;
    list_init(&client->exchange_link);
    list_init(&client->subs);
    list_init(&client->walks);
    timer_init(&client->timer, timer_fired);
    list_insert(&b->mqtt.clients, &client->link);
    CHECK(map_put(&vhost->mqtt_clients, client->id, client));
    CHECK(map_put(&b->mqtt.numbers, map_key_u64(&client->number), client));
    return client;
}

static void drop_subs(struct broker *b, struct mqtt_client *client)
{
    while (!list_empty(&client->subs)) {
        struct mqtt_sub *sub = CONTAINER_OF(client->subs.next, struct mqtt_sub, link);
        mqtt_share_left(b, sub);
        mqtt_sub_free(b, sub);
    }
}

void mqtt_client_free(struct broker *b, struct mqtt_client *client)
{
    CHECK(!client->peer);
    wheel_cancel(&b->wheel, &client->timer);
    drop_subs(b, client);
    mqtt_will_drop(b, client);
    mqtt_ids_fini(&client->received);
    mqtt_ids_fini(&client->releasing);
    compact_client_removed(b, &client->link);
    list_remove(&client->link);
    list_remove(&client->exchange_link);
    (void)map_take(&client->vhost->mqtt_clients, client->id);
    (void)map_take(&b->mqtt.numbers, map_key_u64(&client->number));
    mem_free_as(MEM_CONNECTIONS, client);
}

void mqtt_client_at_exchange(struct mqtt_client *client, struct exchange *x)
{
    list_remove(&client->exchange_link);
    list_insert(&x->mqtt_clients, &client->exchange_link);
    client->exchange = x;
}

/* Its session and it know each other no more; what was on its way to it is back in its queues. */
static void unplug(struct broker *b, struct mqtt_client *client)
{
    struct peer *peer = client->peer;
    struct channel *ch = client->channel;
    if (!peer)
        return;
    retained_walks_end(b, client);
    mqtt_subs_silence(b, client);
    peer->mqtt = NULL;
    client->peer = NULL;
    client->channel = NULL;
    client->resumed = false;
    client->left_at = b->wall > 0 ? b->wall : 1;
    ch->releasing = 0;
    channel_release(b, ch);
}

/* As unplug; what it was not sent of a share is the share's again. */
static void hang_up(struct broker *b, struct mqtt_client *client)
{
    if (client->peer)
        mqtt_share_give_back(b, client);
    unplug(b, client);
}

/* Everything of it but the will. */
static void strip(struct broker *b, struct mqtt_client *client)
{
    struct queue *q = client->queue;
    client->queue = NULL;
    if (q)
        queue_delete(b, q);
    drop_subs(b, client);
    mqtt_ids_fini(&client->received);
    mqtt_ids_fini(&client->releasing);
}

/* Its record goes first: a queue that is left without it goes after a restart. */
void mqtt_client_end(struct broker *b, struct mqtt_client *client)
{
    (void)mqtt_log_client_gone(b, client);
    strip(b, client);
    mqtt_client_free(b, client);
}

/* ---- the end of a connection ---- */

void mqtt_client_arm(struct broker *b, struct mqtt_client *client)
{
    wall_t due = mqtt_will_due(client);
    if (client->expiry_s != MQTT_NEVER) {
        wall_t end = client->left_at + (wall_t)client->expiry_s * 1000;
        due = end < due ? end : due;
    }
    if (due == WALL_NEVER)
        return;
    int64_t wait = due - b->wall;
    wait = wait < 1 ? 1 : wait > TIMER_MAX_MS ? TIMER_MAX_MS : wait;
    wheel_set(&b->wheel, &client->timer, b->now + wait * NS_PER_MS);
}

static void timer_fired(void *arg, struct timer *timer)
{
    struct broker *b = arg;
    struct mqtt_client *client = CONTAINER_OF(timer, struct mqtt_client, timer);
    if (client->peer || b->stopping)
        return;
    if (mqtt_will_due(client) <= b->wall && (!b->options.log.room(b->options.log.self) || !mqtt_will_fire(b, client))) {
        wheel_set(&b->wheel, timer, b->now + RETRY_NS);
        return;
    }
    if (client->expiry_s != MQTT_NEVER && client->left_at + (wall_t)client->expiry_s * 1000 <= b->wall)
        mqtt_client_end(b, client);
    else
        mqtt_client_arm(b, client);
}

/* Nothing but its will is left of it, which is published as soon as that can be. */
static void will_waits(struct broker *b, struct mqtt_client *client, mono_t until)
{
    strip(b, client);
    client->over = true;
    wheel_set(&b->wheel, &client->timer, until);
}

/* Its connection has ended, and it is unplugged. */
static void left(struct broker *b, struct mqtt_client *client, uint32_t expiry_s, bool with_will)
{
    client->expiry_s = client->durable ? expiry_s : 0;
    if (!with_will)
        mqtt_will_drop(b, client);
    if (b->stopping) {
        if (!client->durable)
            strip(b, client); /* its queue would take the client with it, and the will */
        if (!client->journalled)
            mqtt_client_free(b, client);
        else
            (void)mqtt_log_client(b, client);
        return;
    }
    bool fired = mqtt_will_due(client) <= b->wall && mqtt_will_fire(b, client);
    if (!client->expiry_s && !client->will) {
        mqtt_client_end(b, client);
        return;
    }
    if (!client->expiry_s) {
        will_waits(b, client, b->now + RETRY_NS);
        return;
    }
    if (!fired)
        (void)mqtt_log_client(b, client); /* without memory it leaves once more at the next start */
    mqtt_client_arm(b, client);
}

void mqtt_peer_gone(struct broker *b, struct peer *peer)
{
    struct mqtt_client *client = peer->mqtt;
    hang_up(b, client);
    left(b, client, client->expiry_s, true);
}

/* ---- what it stands on goes ---- */

void mqtt_client_gone(struct broker *b, struct mqtt_client *client)
{
    unplug(b, client);
    strip(b, client);
    mqtt_client_free(b, client);
}

bool mqtt_vhost_gone(struct broker *b, struct vhost *vhost, unsigned *budget)
{
    struct mqtt_client *client;
    while (*budget && (client = map_any(&vhost->mqtt_clients, &vhost->cursor))) {
        budget_spend(budget, 4 + client->sub_count);
        mqtt_client_gone(b, client);
    }
    return !vhost->mqtt_clients.count;
}

void mqtt_exchange_gone(struct broker *b, struct exchange *x)
{
    while (!list_empty(&x->mqtt_clients)) {
        struct mqtt_client *client = CONTAINER_OF(x->mqtt_clients.next, struct mqtt_client, exchange_link);
        list_remove(&client->exchange_link);
        client->exchange = NULL;
        retained_walks_end(b, client);
        if (client->peer)
            kick(b, client->peer, "the exchange of its topics was deleted");
    }
    retained_exchange_gone(b, x);
}

static void share_gone(struct broker *b, struct mqtt_share *share)
{
    share->queue = NULL;
    for (bool last = false; !last;) {
        struct mqtt_sub *sub = CONTAINER_OF(share->members.next, struct mqtt_sub, share_link);
        struct peer *peer = sub->client->peer;
        last = share->members.next->next == &share->members;
        mqtt_sub_consumes_not(b, sub);
        (void)mqtt_log_sub(b, sub, true);
        mqtt_share_left(b, sub);
        mqtt_sub_free(b, sub);
        if (peer)
            kick(b, peer, "the queue of its shared subscription was deleted");
    }
}

/* Who deletes the queue of a session ends the session; that of a share ends it for everybody. */
void mqtt_queue_gone(struct broker *b, struct queue *q)
{
    struct mqtt_share *share = map_get(&b->mqtt.shares, map_key_u64(&q->id));
    struct mqtt_client *client = mqtt_queue_owner(q->vhost, q->name);
    if (b->recovering)
        return;
    if (share)
        share_gone(b, share);
    if (!client || client->queue != q)
        return;
    client->queue = NULL;
    if (client->peer)
        kick(b, client->peer, "the queue of its session was deleted");
    unplug(b, client);
    client->expiry_s = 0;
    if (client->will) {
        (void)mqtt_log_client(b, client);
        will_waits(b, client, b->now + NS_PER_MS); /* not now: its way could be through the queue that goes */
    } else
        mqtt_client_end(b, client);
}

void mqtt_may_go_on(struct broker *b, struct mqtt_client *client)
{
    if (!list_empty(&client->walks))
        retained_walks_wake(b, client);
}

/* Of the whole broker: nothing is journalled any more. */
void mqtt_fini(struct broker *b)
{
    struct mqtt_state *m = &b->mqtt;
    if (!m->clients.next)
        return; /* it was never begun */
    while (!list_empty(&m->clients)) {
        struct mqtt_client *client = CONTAINER_OF(m->clients.next, struct mqtt_client, link);
        unplug(b, client);
        mqtt_client_free(b, client);
    }
    retained_fini(b);
    map_fini(&m->subs);
    map_fini(&m->numbers);
    map_fini(&m->shares);
}

/* ---- attaching ---- */

void mqtt_reply(struct broker *b, struct peer *peer, const struct command *c, int code, uint64_t number, lsn_t lsn)
{
    struct answer *answer = NULL;
    if (code || number) {
        answer = answer_new((struct slice){0}, (struct slice){0}, (struct slice){0});
        if (!answer) {
            no_memory(b, peer, c->channel, c->origin);
            return;
        }
        answer->code = (enum error_code)code;
        answer->number = number;
    }
    struct effect *e = effect_push(b, peer, EFF_ANSWER, c->channel);
    e->origin = c->origin;
    e->lsn = lsn;
    e->answer = answer;
}

uint32_t mqtt_seconds_left(const struct broker *b, wall_t deadline)
{
    if (deadline == WALL_NEVER)
        return 0;
    int64_t seconds = (deadline - b->wall + 999) / 1000;
    return seconds < 1 ? 1 : seconds > UINT32_MAX ? UINT32_MAX : (uint32_t)seconds;
}

/* What there was of the client: its subscriptions, which have new handles, and ids that are being released. NULL: no memory. */
static struct answer *what_there_was(const struct mqtt_client *client)
{
    size_t len = 8 + 2 * (size_t)client->releasing.count;
    LIST_EACH(&client->subs, node, after)
    {
        const struct mqtt_sub *sub = CONTAINER_OF(node, struct mqtt_sub, link);
        len += 7 + sub->pattern.len + sub->group.len;
    }
    struct answer *answer = mem_alloc(sizeof *answer + client->id.len + len);
    if (!answer)
        return NULL;
    *answer = (struct answer){.number = 1};
    struct writer w = writer_of(answer->bytes, client->id.len + len);
    writer_slice_put(&w, client->id);
    writer_u32(&w, client->sub_count);
    LIST_EACH(&client->subs, node, after)
    {
        const struct mqtt_sub *sub = CONTAINER_OF(node, struct mqtt_sub, link);
        writer_str8(&w, sub->pattern);
        writer_str8(&w, sub->group);
        writer_u8(&w, sub->options);
        writer_u32(&w, sub->identifier);
    }
    writer_u32(&w, client->releasing.count);
    for (uint32_t i = 0; i < client->releasing.count; i++)
        writer_u16(&w, client->releasing.at[i]);
    CHECK(writer_ok(&w) && w.len == client->id.len + len);
    answer->name = slice_of(answer->bytes, client->id.len);
    answer->fields = slice_of(answer->bytes + client->id.len, len);
    return answer;
}

static void number_subs(struct mqtt_client *client)
{
    uint32_t handle = MQTT_HANDLE_FIRST;
    LIST_EACH(&client->subs, node, after)
    CONTAINER_OF(node, struct mqtt_sub, link)->handle = handle++;
}

/* Another connection takes it: the one it had is told, and its will is due unless it may wait for this. goes_on: so may it. */
static void take_over(struct broker *b, struct mqtt_client *client, bool goes_on)
{
    if (client->peer) {
        kick_with(b, client->peer, ERR_TAKEN_OVER, "another connection has taken the session over");
        hang_up(b, client);
    }
    wheel_cancel(&b->wheel, &client->timer);
    if (client->will && (!goes_on || !client->will_delay_s))
        (void)mqtt_will_fire(b, client); /* without memory it is lost: nobody would be there to try again for */
    mqtt_will_drop(b, client);
}

struct attach {
    struct slice id;
    struct exchange *x;
    struct mqtt_client *old; /* NULL: there is none, or it does not count */
    bool goes_on;
    uint32_t expiry_s;
    struct msg *will;
    uint32_t will_delay_s;
    uint8_t will_flags;
};

static enum error_code may_attach(struct broker *b, struct peer *peer, const struct command *c, struct attach *a)
{
    const struct ask *ask = c->ask;
    if (peer->mqtt || a->id.len > MQTT_CLIENT_ID_MAX)
        return ERR_PRECONDITION_FAILED;
    a->x = exchange_find(peer->vhost, ask->key);
    if (!a->x || !a->x->type->by_topic)
        return ERR_NOT_FOUND;
    if (!authorise(b, peer->user, peer->vhost, VERB_READ, ask->key) &&
        !authorise(b, peer->user, peer->vhost, VERB_WRITE, ask->key))
        return ERR_ACCESS_REFUSED;
    a->old = mqtt_client_find(peer->vhost, a->id);
    bool own = !a->old || slice_equal(a->old->user, peer->user->name);
    if (!own && user_find(b, a->old->user))
        return ERR_NOT_ALLOWED; /* else nobody could ever have it again */
    if (!a->old && b->options.mqtt_sessions_max && b->mqtt.numbers.count >= b->options.mqtt_sessions_max &&
        !slice_is(a->id, "$SYS")) /* the broker's own */
        return ERR_RESOURCE_ERROR;
    a->expiry_s = ask->number > UINT32_MAX ? MQTT_NEVER : (uint32_t)ask->number;
    a->goes_on = a->old && own && !(ask->flags & ASK_CLEAN) && a->old->durable && a->old->expiry_s && !a->old->over &&
                 slice_equal(a->old->exchange_name, ask->key);
    return ERR_NONE;
}

static void plug(struct mqtt_client *client, struct channel *ch, struct attach *a)
{
    client->peer = ch->peer;
    client->channel = ch;
    client->left_at = 0;
    client->expiry_s = a->expiry_s;
    client->will = a->will;
    client->will_delay_s = a->will_delay_s;
    client->will_flags = a->will_flags;
    client->durable |= a->expiry_s > 0;
    client->journalled |= client->durable || client->will;
    ch->peer->mqtt = client;
    if (client->exchange != a->x)
        mqtt_client_at_exchange(client, a->x);
    number_subs(client);
}

/* The will, when there is one. Its exchange is that of the session. */
static enum error_code will_of(struct broker *b, const struct command *c, struct attach *a, bool *starved)
{
    const struct mqtt_client there = {.exchange_name = c->ask->key};
    if (!c->ask->args.len)
        return ERR_NONE;
    if (!mqtt_will_parse(b, &there, c->ask->args, &a->will, &a->will_delay_s, &a->will_flags))
        return ERR_PRECONDITION_FAILED;
    *starved = !a->will;
    return ERR_NONE;
}

/* An exchange of that name is there again: its queues are bound to it. */
static bool rebind(struct broker *b, struct mqtt_client *client, struct exchange *x)
{
    mqtt_client_at_exchange(client, x);
    return mqtt_subs_bind(b, client);
}

/* False: no memory. The connection that had the client may have lost it by then; the client itself is as it was, or gone if it was to go. */
static bool attach(struct broker *b, struct peer *peer, struct channel *ch, const struct command *c, struct attach *a)
{
    size_t bytes = 4096 + c->ask->args.len;
    struct answer *answer =
        a->goes_on ? what_there_was(a->old) : answer_new((struct slice){0}, a->id, (struct slice){0});
    struct mqtt_client *client = a->goes_on ? a->old : NULL;
    if (!answer || !log_reserve(b, bytes, 4)) {
        mem_free(answer);
        return false;
    }
    if (a->old)
        take_over(b, a->old, a->goes_on);
    if (a->old && !a->goes_on)
        mqtt_client_end(b, a->old);
    if (!client)
        client = mqtt_client_make(b, peer->vhost, a->id, peer->user->name, c->ask->key, 0);
    if (!client || (a->goes_on && client->exchange != a->x && !rebind(b, client, a->x))) {
        if (client)
            mqtt_client_arm(b, client);
        mem_free(answer);
        return false;
    }
    plug(client, ch, a);
    a->will = NULL;
    lsn_t lsn = mqtt_log_client(b, client);
    if (!lsn && client->journalled) { /* it leaves with the connection, which ends now */
        mem_free(answer);
        return false;
    }
    struct effect *e = effect_push(b, peer, EFF_ANSWER, c->channel);
    e->origin = c->origin;
    e->lsn = lsn;
    e->answer = answer;
    return true;
}

void do_mqtt_attach(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    char text[64];
    struct attach a = {.id = c->ask->name};
    bool starved = false;
    if (!a.id.len) {
        random_name(b, "auto-", text, sizeof text);
        a.id = slice_str(text);
    }
    enum error_code code = may_attach(b, peer, c, &a);
    if (!code)
        code = will_of(b, c, &a, &starved);
    if (code)
        mqtt_reply(b, peer, c, code, 0, 0);
    else if (starved || !attach(b, peer, ch, c, &a))
        no_memory(b, peer, c->channel, c->origin);
    if (a.will)
        msg_unref(&b->heap, a.will);
}

void do_mqtt_resume(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    struct mqtt_client *client = peer->mqtt;
    if (!client || c->number == 0 || c->number > MQTT_RECEIVE_MAX) {
        mqtt_reply(b, peer, c, ERR_PRECONDITION_FAILED, 0, 0);
        return;
    }
    ch->global_prefetch = (uint32_t)c->number;
    ch->releasing = client->releasing.count;
    client->resumed = true;
    if (mqtt_subs_resume(b, client))
        mqtt_reply(b, peer, c, ERR_NONE, 0, 0);
    else
        no_memory(b, peer, c->channel, c->origin);
}

void do_mqtt_detach(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    struct mqtt_client *client = peer->mqtt;
    (void)ch;
    if (!client) {
        mqtt_reply(b, peer, c, ERR_PRECONDITION_FAILED, 0, 0);
        return;
    }
    hang_up(b, client);
    left(b, client, c->number > UINT32_MAX ? MQTT_NEVER : (uint32_t)c->number, c->flags & ASK_KEEP_WILL);
    mqtt_reply(b, peer, c, ERR_NONE, 0, 0);
}

/* ---- invariants ---- */

static void check_client(struct broker *b, const struct mqtt_client *client)
{
    uint32_t subs = 0;
    CHECK(mqtt_client_find(client->vhost, client->id) == client);
    CHECK(map_get(&b->mqtt.numbers, map_key_u64(&client->number)) == client);
    CHECK((client->left_at == 0) == (client->peer != NULL));
    CHECK(!client->peer || (client->peer->mqtt == client && client->channel->peer == client->peer));
    CHECK(client->peer || client->expiry_s || client->over || b->stopping || timer_is_set(&client->timer));
    CHECK(!client->over || (client->will && !client->queue && !client->sub_count));
    CHECK(!client->durable || client->journalled);
    CHECK(!client->resumed || client->channel->failed || client->channel->releasing == client->releasing.count);
    LIST_EACH(&client->subs, node, after)
    {
        const struct mqtt_sub *sub = CONTAINER_OF(node, struct mqtt_sub, link);
        bool tap = mqtt_sub_is_tap(sub);
        CHECK(mqtt_sub_find(b, client, sub->pattern, sub->group) == sub);
        CHECK(!sub->audience || (tap && client->peer));
        CHECK(!sub->share || (sub->group.len && map_get(&b->mqtt.shares, map_key_u64(&sub->share->queue_id))));
        CHECK(tap || (sub->group.len && !mqtt_sub_takes_over(sub)) || !client->exchange || client->queue);
        subs++;
    }
    CHECK(subs == client->sub_count);
    for (uint32_t i = 1; i < client->received.count; i++)
        CHECK(client->received.at[i - 1] < client->received.at[i]);
}

static uint64_t check_audiences(const struct broker *b, const struct vhost *vhost)
{
    uint64_t taps = 0;
    MAP_EACH(&vhost->bindings, struct binding, binding)
    if (binding->audience) {
        audience_check(b, binding);
        taps += binding->audience->members;
    }
    return taps;
}

void mqtt_check(struct broker *b)
{
    uint64_t taps = 0;
    LIST_EACH(&b->mqtt.clients, node, after)
    check_client(b, CONTAINER_OF(node, struct mqtt_client, link));
    MAP_EACH(&b->vhosts, struct vhost, vhost)
    taps += check_audiences(b, vhost);
    LIST_EACH(&b->dying, node, after)
    taps += check_audiences(b, CONTAINER_OF(node, struct vhost, dying_link));
    CHECK(taps == b->mqtt.taps);
    MAP_EACH(&b->mqtt.shares, struct mqtt_share, share)
    CHECK(!list_empty(&share->members) && share->queue && share->queue->id == share->queue_id);
    retained_check(b);
}
