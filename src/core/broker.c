/* The core's frame: life cycle, ports, the tick, and the table that sends each command to its handler.
 *
 * A tick (broker_step) has fixed phases: durable → timers → commands → dead letters → deliveries → removals →
 * compaction → publish effects. Commands are taken round-robin over the ports in small turns, so that one loop's bulk
 * producer does not own the tick, and the whole tick is bounded by COMMANDS_PER_TICK and BYTES_PER_TICK. Nothing here or
 * below makes a system call, takes a lock, reads a clock or draws a random number except through what it was given.
 */
#include "core/core_int.h"

#include <stdio.h>

#include "fmt/base64.h"

#define PORT_SLOTS_DEFAULT 8192u
#define SQL_PORT_SLOTS                                                                                                 \
    2048u /* each of 1,000 queries may fetch and have a step under way; what is not used takes no memory */
#define COMMANDS_PER_TURN 256u
#define COMMANDS_PER_TICK 8192u
#define BYTES_PER_TICK (2u * 1024 * 1024)
#define TIMERS_PER_TICK 1024u
#define DELIVERIES_PER_COMMAND 64u
#define DEAD_LETTERS_PER_TICK 4096u

enum cargo { CARGO_NOTHING, CARGO_ASK, CARGO_MSG, CARGO_FETCH, CARGO_QUERY_STEP, CARGO_PAGE_JOB, CARGO_STREAM_JOB };

struct command_row {
    void (*handle)(struct broker *b, struct peer *peer, struct channel *ch, struct command *c);
    bool needs_channel;
    enum cargo cargo;
};

static const struct command_row rows[CMD_COUNT] = {
#define COMMAND(name, handler, needs, carries)                                                                         \
    [CMD_##name] = {.handle = do_##handler, .needs_channel = needs, .cargo = CARGO_##carries},
#include "core/commands.def"
#undef COMMAND
};

void command_drop(struct slab_heap *mine, struct command *c)
{
    switch (rows[c->type].cargo) {
    case CARGO_NOTHING: break;
    case CARGO_ASK: mem_free(c->ask); break;
    case CARGO_MSG: msg_unref(mine, c->msg); break;
    case CARGO_FETCH: fetch_free(&c->fetch); break;
    case CARGO_QUERY_STEP: query_step_free(mine, &c->query_step); break;
    case CARGO_PAGE_JOB: page_job_free(mine, &c->job); break;
    case CARGO_STREAM_JOB: stream_job_free(mine, &c->stream_job); break;
    }
}

/* ---- life cycle ---- */

static void default_limits(struct broker_options *o)
{
    if (!o->port_slots)
        o->port_slots = PORT_SLOTS_DEFAULT;
    if (!o->message_bytes_max)
        o->message_bytes_max = 16u << 20;
    if (!o->channel_consumers_max)
        o->channel_consumers_max = 1024;
    if (!o->tx_bytes_max)
        o->tx_bytes_max = 64u << 20;
    if (!o->compact_bytes)
        o->compact_bytes = 64u << 20;
    if (!o->stream_sync_bytes) /* a start writes so much of them again, and holds it in memory meanwhile */
        o->stream_sync_bytes = 32u << 20;
    if (!o->compact_slice_bytes)
        o->compact_slice_bytes = 256u * 1024;
}

static bool sides_make(struct broker *b)
{
    b->side_count = b->options.ports + 4;
    b->sides = mem_zalloc(b->side_count * sizeof *b->sides);
    if (!b->sides)
        return false;
    for (unsigned i = 0; i < b->side_count; i++) {
        struct port_side *side = &b->sides[i];
        bool helper = i >= b->options.ports; /* worker, store, streams, SQL */
        bool store = i == b->options.ports + 1, sql = i == b->options.ports + 3;
        size_t slots = store ? PAGE_PORT_SLOTS : sql ? SQL_PORT_SLOTS : helper ? 256 : b->options.port_slots;
        side->broker = b;
        side->index = i;
        if (!ring_init(&side->port.commands, slots, sizeof(struct command)) ||
            !ring_init(&side->port.effects, slots, sizeof(struct effect)))
            return false;
    }
    return true;
}

static struct slice queue_id_of(const void *value)
{
    return map_key_u64(&((const struct queue *)value)->id);
}

static void retry_rules(void *arg, struct timer *timer)
{
    (void)timer;
    (void)!queue_rules_retry(arg); /* without memory it has set the timer again */
}

struct broker *broker_new(const struct broker_options *options)
{
    struct broker *b = mem_aligned(64, sizeof *b);
    if (!b)
        return NULL;
    memset(b, 0, sizeof *b);
    b->options = *options;
    default_limits(&b->options);
    b->seed = random_u64(b);
    slab_heap_init(&b->heap);
    pool_init(&b->entries, sizeof(struct entry));
    pool_init(&b->consumers, sizeof(struct consumer));
    pool_init(&b->keys, sizeof(struct key));
    wheel_init(&b->wheel, 0);
    paging_init(b);
    streams_init(b);
    groups_init(b);
    mqtt_init(b);
    sql_init(b);
    struct list *lists[] = {&b->catalogue, &b->peers,        &b->leaving,      &b->dying,        &b->dying_exchanges,
                            &b->unbound,   &b->txn_listings, &b->pump,         &b->await,        &b->removals,
                            &b->dead,      &b->delays,       &b->fresh_delays, &b->adrift_writes};
    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        list_init(lists[i]);
    struct map *maps[] = {&b->vhosts, &b->users, &b->reply_tokens};
    for (size_t i = 0; i < ARRAY_LEN(maps); i++)
        map_init(maps[i], b->seed + i);
    map_init_keyed(&b->queues_by_id, b->seed + ARRAY_LEN(maps), queue_id_of);
    txns_init(b);
    rules_init(b);
    busy_init(b);
    timer_init(&b->rules_timer, retry_rules);
    b->next_queue_id = b->next_msg_id = b->next_ticket = b->topology_gen = b->removal_epoch = 1;
    b->next_producer_id = b->producer_ids_end = 1;
    compact_init(b);
    b->scratch.limit = 64u << 20;
    b->capture.limit =
        b->options.tx_bytes_max * 4 + (16u << 20); /* reserved generously: a small message counts four times */
    b->pieces.limit = b->capture.limit + (1u << 20);
    b->recovering = true;
    b->store_was_new = true;
    if (!sides_make(b) || !login_init(b) || !buffer_reserve(&b->scratch, 4096))
        broker_free(&b);
    return b;
}

static void free_peers(struct broker *b, struct list *peers)
{
    while (!list_empty(peers)) {
        struct peer *peer = CONTAINER_OF(peers->next, struct peer, link);
        peer_release(b, peer);
        groups_forget_peer(b, peer);
        shares_forget_peer(b, peer);
        list_remove(&peer->link);
        list_remove(&peer->vhost_link);
        slice_drop(&peer->address);
        slice_drop(&peer->protocol);
        mem_free(peer->channels);
        mem_free_as(MEM_CONNECTIONS, peer);
    }
}

static void free_catalogue(struct broker *b)
{
    MAP_EACH(&b->users, struct user, user)
    user->peers = 0;
    for (;;) {
        struct vhost *vhost = NULL;
        MAP_EACH(&b->vhosts, struct vhost, v)
        vhost = v;
        if (!vhost)
            break;
        vhost_delete(b, vhost);
    }
    for (;;) {
        struct user *user = NULL;
        MAP_EACH(&b->users, struct user, u)
        user = u;
        if (!user)
            break;
        user_delete(b, user);
    }
}

static void drop_ring_contents(struct broker *b, struct port_side *side)
{
    struct command *c;
    while ((c = ring_peek(&side->port.commands))) {
        command_drop(&b->heap, c);
        ring_pop(&side->port.commands);
    }
    ring_publish(&side->port.effects);
    struct effect *e;
    while ((e = ring_peek(&side->port.effects))) {
        effect_drop(b, e);
        ring_pop(&side->port.effects);
    }
    while (side->overflow_first < side->overflow_count)
        effect_drop(b, &side->overflow[side->overflow_first++]);
}

void broker_free(struct broker **broker)
{
    struct broker *b = *broker;
    *broker = NULL;
    if (!b)
        return;
    b->recovering = true; /* nothing is journalled any more */
    b->options.log = (struct core_log){0};
    mqtt_fini(b);
    free_peers(b, &b->peers);
    free_peers(b, &b->leaving);
    groups_fini(b);
    vhosts_end(b);
    free_catalogue(b);
    sql_fini(b);
    replay_fini(b);
    for (unsigned i = 0; b->sides && i < b->side_count; i++) {
        struct port_side *side = &b->sides[i];
        if (side->port.commands.slots && side->port.effects.slots)
            drop_ring_contents(b, side);
        ring_fini(&side->port.commands);
        ring_fini(&side->port.effects);
        mem_free(side->peers);
        mem_free(side->overflow);
    }
    effect_drop(b, &b->unsaid);
    mem_free(b->sides);
    route_fini(&b->route);
    mem_free(b->targets);
    login_fini(b);
    struct map *maps[] = {&b->vhosts, &b->users, &b->queues_by_id, &b->reply_tokens};
    for (size_t i = 0; i < ARRAY_LEN(maps); i++)
        map_fini(maps[i]);
    paging_fini(b);
    streams_fini(b);
    txns_fini(b);
    rules_fini(b);
    buffer_fini(&b->scratch);
    buffer_fini(&b->capture);
    buffer_fini(&b->pieces);
    pool_fini(&b->entries);
    pool_fini(&b->consumers);
    pool_fini(&b->keys);
    slab_heap_fini(&b->heap);
    mem_free(b);
}

struct port *broker_port(struct broker *b, unsigned i)
{
    CHECK(i < b->side_count);
    return &b->sides[i].port;
}

struct slab_heap *broker_heap(struct broker *b)
{
    return &b->heap;
}

void broker_totals(const struct broker *b, struct broker_totals *ret)
{
    *ret = b->totals;
}

/* ---- the tick ---- */

struct peer *peer_of(struct broker *b, struct port_side *side, uint32_t number)
{
    (void)b;
    return number < side->peer_max ? side->peers[number] : NULL;
}

struct channel *channel_of(struct peer *peer, uint16_t number)
{
    return number < peer->channel_max ? peer->channels[number] : NULL;
}

/* A failed peer or channel is deaf until it is closed, and so is who has not been told yet that its vhost goes. */
static bool is_deaf(const struct peer *peer)
{
    return peer->state == PEER_FAILED || (peer->vhost && peer->vhost->deleting);
}

static void dispatch(struct broker *b, struct port_side *side, struct command *c)
{
    CHECK(c->type > CMD_NONE && c->type < CMD_COUNT);
    const struct command_row *row = &rows[c->type];
    struct peer *peer = peer_of(b, side, c->session);
    struct channel *ch = NULL;
    struct ask *ask = row->cargo == CARGO_ASK ? c->ask : NULL;
    if (!peer && (c->type == CMD_ADMIN || c->type == CMD_DRAIN)) {
        struct command open = {.type = CMD_SESSION_OPEN, .session = c->session, .flags = ASK_INTERNAL};
        open.number = side->index;
        do_session_open(b, NULL, NULL, &open);
        peer = peer_of(b, side, c->session);
    }
    bool deaf = peer && is_deaf(peer) && c->type != CMD_SESSION_CLOSE;
    if (!peer && c->type != CMD_SESSION_OPEN && c->type != CMD_VERIFIED && c->type != CMD_ALARM &&
        c->type != CMD_PAGED && c->type != CMD_STREAMED)
        deaf = true;
    if (!deaf && row->needs_channel) {
        ch = channel_of(peer, c->channel);
        deaf = !ch || ch->failed;
    }
    if (!peer &&
        c->type == CMD_SESSION_CLOSE) { /* its opening was refused for want of memory; its number is free again */
        struct peer nobody = {.side = side, .number = c->session};
        effect_push(b, &nobody, EFF_SESSION_CLOSED, 0);
    }
    if (deaf) {
        command_drop(&b->heap, c);
        return;
    }
    if (c->type == CMD_SESSION_OPEN)
        c->number = side->index;
    row->handle(b, peer, ch, c);
    mem_free(ask);
}

static bool may_take(struct broker *b, struct port_side *side)
{
    return side->overflow_first == side->overflow_count && !b->mqtt.fanned_out &&
           b->options.log.room(b->options.log.self) && b->dead_count < DEAD_LETTERS_PER_TICK &&
           ((side->index >= b->options.ports && side != sql_side(b)) ||
            (!paging_overloaded(b) && !streams_overloaded(b)));
}

static unsigned take_turn(struct broker *b, struct port_side *side, uint64_t *bytes)
{
    unsigned taken = 0;
    while (taken < COMMANDS_PER_TURN && may_take(b, side)) {
        struct command *slot = ring_peek(&side->port.commands);
        if (!slot)
            break;
        struct command c = *slot;
        if (rows[c.type].cargo == CARGO_MSG)
            *bytes += msg_size(c.msg);
        else if (rows[c.type].cargo == CARGO_QUERY_STEP)
            *bytes += query_step_bytes(c.query_step);
        ring_pop(&side->port.commands);
        dispatch(b, side, &c);
        if (b->dead_count)
            (void)dead_letter_run(b, 256);
        if (!list_empty(&b->pump))
            pump_all(b, DELIVERIES_PER_COMMAND);
        b->compact.commands++;
        taken++;
    }
    return taken;
}

/* Returns true when commands are left that could be taken now. */
static bool take_commands(struct broker *b)
{
    uint64_t bytes = 0;
    unsigned total = 0, idle = 0;
    while (idle < b->side_count && total < COMMANDS_PER_TICK && bytes < BYTES_PER_TICK) {
        unsigned taken = take_turn(b, &b->sides[b->turn], &bytes);
        b->turn = (b->turn + 1) % b->side_count;
        total += taken;
        idle = taken ? 0 : idle + 1;
    }
    for (unsigned i = 0; i < b->side_count; i++)
        if (!ring_empty(&b->sides[i].port.commands) && may_take(b, &b->sides[i]))
            return true;
    return false;
}

bool broker_step(struct broker *b, mono_t now, wall_t wall, lsn_t durable)
{
    b->now = now;
    b->wall = wall;
    b->reserved_bytes = 0;
    b->reserved_records = 0;
    b->mqtt.fanned_out = false;
    for (unsigned i = 0; i < b->side_count; i++) {
        effect_flush(&b->sides[i]);
        b->sides[i].fanned_out &= b->sides[i].overflow_first < b->sides[i].overflow_count;
        b->mqtt.fanned_out |= b->sides[i].fanned_out;
    }
    if (durable > b->durable) {
        b->durable = durable;
        durable_advanced(b);
    }
    if (b->stalled)
        durable_advanced(b);
    b->stalled = false;
    delays_durable(b);
    pump_all(b, (unsigned)b->options.port_slots / 4);
    bool more = wheel_turn(&b->wheel, now, b, TIMERS_PER_TICK) == TIMERS_PER_TICK;
    more |= take_commands(b);
    more |= mqtt_turn(b); /* before the deliveries: what is retained may be for queues */
    more |= dead_letter_run(b, DEAD_LETTERS_PER_TICK);
    pump_all(b, (unsigned)b->options.port_slots / 4);
    more |= !list_empty(&b->pump);
    more |= dead_letter_run(b, DEAD_LETTERS_PER_TICK);
    backlog_flush_removals(b);
    more |= txn_listings_turn(b);
    more |= vhosts_turn(b);
    more |= exchanges_turn(b);
    more |= peers_turn(b);
    more |= streams_turn(b);
    more |= compact_turn(b);
    more |= paging_turn(b);
    sql_turn(b);
    if (b->drain.side && b->compact.phase == COMPACT_IDLE)
        drain_answer(b);
    slab_heap_drain(&b->heap);
    for (unsigned i = 0; i < b->side_count; i++)
        if (ring_dirty(&b->sides[i].port.effects))
            ring_publish(&b->sides[i].port.effects);
    return more && b->options.log.room(b->options.log.self);
}

mono_t broker_next_due(const struct broker *b)
{
    mono_t due = wheel_next(&b->wheel);
    for (unsigned i = 0; i < b->side_count; i++) {
        const struct port_side *side = &b->sides[i];
        if ((b->stalled || b->dead_count || side->overflow_first < side->overflow_count) && b->now + NS_PER_MS < due)
            due = b->now + NS_PER_MS; /* the other side drains its ring in its own time: look again soon, never spin */
    }
    if (!list_empty(&b->sql.untold) && b->now + NS_PER_MS < due)
        due = b->now + NS_PER_MS;
    return due;
}

/* ---- small tools of the core ---- */

uint64_t random_u64(struct broker *b)
{
    uint64_t v = 0;
    b->options.random(b->options.random_arg, &v, sizeof v);
    return v;
}

void random_name(struct broker *b, const char *prefix, char *ret, size_t len)
{
    uint8_t raw[16];
    char text[BASE64_LEN(sizeof raw) + 1];
    b->options.random(b->options.random_arg, raw, sizeof raw);
    base64_url_encode(slice_of(raw, sizeof raw), text);
    snprintf(ret, len, "%s%s", prefix, text);
}

bool buffer_reserve(struct buffer *buffer, size_t more)
{
    if (more > buffer->limit - buffer->len)
        return false;
    size_t need = buffer->len + more;
    if (need <= buffer->max)
        return true;
    size_t max = buffer->max ? buffer->max : 1024;
    while (max < need)
        max *= 2;
    uint8_t *bytes = mem_realloc(buffer->bytes, max);
    if (!bytes)
        return false;
    buffer->bytes = bytes;
    buffer->max = max;
    return true;
}

void buffer_put(struct buffer *buffer, const void *bytes, size_t len)
{
    CHECK(len <= buffer->max - buffer->len);
    if (len)
        memcpy(buffer->bytes + buffer->len, bytes, len);
    buffer->len += len;
}

void buffer_fini(struct buffer *buffer)
{
    mem_free(buffer->bytes);
    *buffer = (struct buffer){.limit = buffer->limit};
}

void object_add(struct broker *b, struct object *object, enum object_kind kind, bool journalled)
{
    object->kind = kind;
    object->journalled = journalled;
    list_insert(&b->catalogue, &object->link);
    b->topology_gen++;
}

void object_remove(struct broker *b, struct object *object)
{
    compact_object_removed(b, object);
    list_remove(&object->link);
    b->topology_gen++;
}

bool slice_keep(struct slice *ret, struct slice from)
{
    if (from.len == 0) {
        *ret = (struct slice){0};
        return true;
    }
    uint8_t *copy = mem_alloc(from.len);
    if (!copy)
        return false;
    memcpy(copy, from.ptr, from.len);
    *ret = slice_of(copy, from.len);
    return true;
}

void slice_drop(struct slice *owned)
{
    mem_free((void *)(uintptr_t)owned->ptr);
    *owned = (struct slice){0};
}

struct ask *ask_new(struct slice name, struct slice other, struct slice key, struct slice args)
{
    struct slice *parts[] = {&name, &other, &key, &args};
    size_t len = 0;
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        len += parts[i]->len;
    struct ask *ask = mem_alloc(sizeof *ask + len);
    if (!ask)
        return NULL;
    *ask = (struct ask){0};
    uint8_t *at = ask->bytes;
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        if (parts[i]->len)
            memcpy(at, parts[i]->ptr, parts[i]->len);
        parts[i]->ptr = at;
        at += parts[i]->len;
    }
    ask->name = name;
    ask->other = other;
    ask->key = key;
    ask->args = args;
    return ask;
}
