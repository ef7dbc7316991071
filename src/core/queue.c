/* Queues as objects: making, finding, locking, expiring, purging, deleting; their commands.
 *
 * A queue that is durable and not exclusive is journalled. An exclusive queue lives and dies with its connection. What
 * governs a queue (rules) is computed from its arguments and policies whenever one of them changes. When there is no memory
 * for that the queue keeps the rules it had, and a timer tries again.
 */
#include "core/core_int.h"

#include <stdio.h>

#define RULES_RETRY_NS NS_PER_S

struct queue *queue_find(struct vhost *vhost, struct slice name)
{
    return map_get(&vhost->queues, name);
}

bool queue_locked(const struct queue *q, const struct peer *peer)
{
    return q->exclusive && q->busy->owner != peer;
}

void fail_locked(struct broker *b, struct peer *peer, const struct command *c, struct slice queue)
{
    fail(b, peer, c->channel, c->origin, ERR_RESOURCE_LOCKED,
         "cannot obtain exclusive access to locked queue '%.*s' in vhost '%.*s'. It could be originally declared on "
         "another connection or the exclusive property value does not match that of the original declaration.",
         SLICE_ARG(queue), SLICE_ARG(peer->vhost->name));
}

void queue_expires(void *arg, struct timer *timer)
{
    struct broker *b = arg;
    struct queue *q = CONTAINER_OF(timer, struct busy, expires_timer)->queue;
    mono_t due = q->busy->used_at + q->rules->expires_ms * NS_PER_MS;
    if (q->rules->expires_ms < 0)
        return;
    if (q->busy->consumer_count || due > b->now) {
        wheel_set(&b->wheel, &q->busy->expires_timer,
                  q->busy->consumer_count ? b->now + q->rules->expires_ms * NS_PER_MS : due);
        return;
    }
    queue_delete(b, q);
}

/* The queue's time without use starts anew. */
void queue_used(struct broker *b, struct queue *q)
{
    if (q->rules->expires_ms < 0)
        return;
    q->busy->used_at = b->now; /* who expires is busy */
    if (!timer_is_set(&q->busy->expires_timer))
        wheel_set(&b->wheel, &q->busy->expires_timer, b->now + q->rules->expires_ms * NS_PER_MS);
}

/* False: no memory, they are as they were. */
static bool take_rules(struct broker *b, struct queue *q)
{
    struct queue_rules rules;
    queue_rules_resolve(q, &rules);
    const struct queue_rules *before = q->rules, *shared = rules_share(b, &rules);
    if (!shared)
        return false;
    q->rules = shared;
    if (rules.expires_ms >= 0 && !queue_rouse(b, q)) {
        q->rules = before;
        rules_drop(b, &shared);
        return false;
    }
    rules_drop(b, &before);
    q->rules_stale = false;
    return true;
}

void queue_rules_changed(struct broker *b, struct queue *q)
{
    if (!take_rules(b, q)) {
        q->rules_stale = true;
        if (!b->recovering && !timer_is_set(&b->rules_timer))
            wheel_set(&b->wheel, &b->rules_timer, b->now + RULES_RETRY_NS);
        return;
    }
    dedup_rules_changed(b, q);
    if (b->recovering)
        return;
    if (queue_is_busy(q)) {
        wheel_cancel(&b->wheel, &q->busy->expires_timer);
        queue_used(b, q);
        queue_calmed(b, q);
    }
    if (q->stream)
        stream_rules_changed(b, q);
    else
        backlog_limit(b, q);
    if (q->fed)
        feed_hungry_queue(b, q); /* its limits may be wider now */
}

void queue_args_replace(struct broker *b, struct queue *q, struct slice *owned)
{
    if (q->args_own)
        slice_drop(&q->args);
    q->args = *owned;
    q->args_own = true;
    *owned = (struct slice){0};
    queue_rules_changed(b, q);
}

bool queue_rules_retry(struct broker *b)
{
    bool ok = true;
    LIST_EACH(&b->catalogue, node, after)
    {
        struct object *object = CONTAINER_OF(node, struct object, link);
        struct queue *q = CONTAINER_OF(object, struct queue, object);
        if (object->kind != OBJ_QUEUE || !q->rules_stale)
            continue;
        queue_rules_changed(b, q);
        ok = ok && !q->rules_stale;
    }
    return ok;
}

static struct queue *queue_alloc(struct slice name, struct slice args)
{
    struct queue *q = mem_alloc_as(MEM_QUEUES, offsetof(struct queue, bytes) + name.len + args.len);
    if (!q)
        return NULL;
    memset(q, 0, offsetof(struct queue, bytes));
    q->busy = (struct busy *)(uintptr_t)&busy_idle;
    q->next_position = 1;
    list_init(&q->targets);
    if (name.len)
        memcpy(q->bytes, name.ptr, name.len);
    if (args.len)
        memcpy(q->bytes + name.len, args.ptr, args.len);
    q->name = slice_of(q->bytes, name.len);
    q->args = slice_of(q->bytes + name.len, args.len);
    return q;
}

static void queue_free(struct broker *b, struct queue *q)
{
    queue_busy_end(b, q);
    rules_drop(b, &q->rules);
    if (q->args_own)
        slice_drop(&q->args);
    mem_free(q->extra);
    mem_free_as(MEM_QUEUES, q);
}

/* Everything that can be refused: its rules, with those of its policies, and places in the maps. */
static bool prepare(struct broker *b, struct queue *q, struct peer *owner)
{
    if (!take_rules(b, q))
        return false;
    if (!q->hidden)
        policy_find_queue(q);
    if ((q->policy || q->operator_policy) && !take_rules(b, q))
        return false;
    if (owner && !queue_rouse(b, q))
        return false;
    return map_reserve(&q->vhost->queues) && map_reserve(&b->queues_by_id);
}

struct queue *queue_make(struct broker *b, struct vhost *vhost, struct slice name, bool durable, bool exclusive,
                         bool auto_delete, struct slice args, struct peer *owner, uint64_t id)
{
    struct queue *q = queue_alloc(name, args);
    if (!q)
        return NULL;
    q->vhost = vhost;
    q->id = id ? id : b->next_queue_id;
    q->hidden = name.len == 0;
    q->durable = durable;
    q->exclusive = exclusive;
    q->auto_delete = auto_delete;
    if (!prepare(b, q, owner)) {
        queue_free(b, q);
        return NULL;
    }
    if (!q->hidden)
        CHECK(map_put(&vhost->queues, q->name, q));
    CHECK(map_put(&b->queues_by_id, map_key_u64(&q->id), q));
    if (q->id >= b->next_queue_id)
        b->next_queue_id = q->id + 1;
    if (owner) {
        q->busy->owner = owner;
        list_insert(&owner->owned, &q->busy->owner_link);
    }
    object_add(b, &q->object, OBJ_QUEUE, durable && !exclusive);
    b->totals.queues += !q->hidden;
    if (!b->recovering)
        queue_used(b, q);
    if (q->rules->type == QUEUE_STREAM && !stream_make(b, q)) {
        queue_delete(b, q);
        return NULL;
    }
    return q;
}

bool queue_extra_make(struct queue *q)
{
    if (!q->extra)
        q->extra = mem_zalloc(sizeof *q->extra);
    return q->extra != NULL;
}

static void drop_entries(struct broker *b, struct queue *q)
{
    struct entry *e;
    dedup_drop(b, q);
    if (q->hidden)
        delay_drop_all(b, q);
    paging_drop(b, q, false);
    retry_drop(b, q);
    while ((e = backlog_head(q)))
        backlog_free(b, e);
    while ((e = LIST_FIRST(&q->busy->unacked, struct entry, link))) {
        /* The channel still holds it and will free it when it is settled. */
        compact_entry_removed(b, e);
        list_remove(&e->link);
        q->busy->unacked_count--;
        b->totals.unacked--;
        if (e->page)
            paging_entry_gone(b, e);
        else if (e->flags & ENTRY_JOURNALLED)
            b->journalled_bytes -= msg_size(e->msg);
        e->queue = NULL;
        e->flags &= (uint8_t) ~(ENTRY_UNACKED | ENTRY_JOURNALLED);
    }
    CHECK(list_empty(&q->busy->pages));
}

struct queue *queue_create(struct broker *b, struct vhost *vhost, struct slice name, uint32_t flags, struct slice args,
                           struct peer *owner, lsn_t *ret_lsn)
{
    bool exclusive = owner != NULL;
    if (!log_reserve(b, name.len + args.len + 4096, 1))
        return NULL;
    struct queue *q = queue_make(b, vhost, name, (flags & ASK_DURABLE) && !exclusive, exclusive,
                                 flags & ASK_AUTO_DELETE, args, owner, 0);
    if (!q)
        return NULL;
    q->mqtt = flags & ASK_INTERNAL;
    *ret_lsn = log_object(b, &q->object);
    return q;
}

/* The first half of a deletion: one record in the journal, and from here on nobody starts another. */
lsn_t queue_end_begin(struct broker *b, struct queue *q)
{
    q->deleting = true;
    (void)dead_letter_run(b, UINT32_MAX);
    lsn_t lsn = log_object_reserve(b, &q->object) ? log_object_gone(b, &q->object) : 0;
    if (!lsn && q->object.journalled && !b->recovering &&
        !q->vhost->deleting) /* a replay has the record before it, or the vhost's */
        b->removal_lost = true;
    return lsn;
}

/* The second: consumers are told, bindings go, messages are gone at once for everybody. */
void queue_end_finish(struct broker *b, struct queue *q)
{
    if (q->mqtt)
        mqtt_queue_gone(b, q);
    getters_end(b, q);
    while (!list_empty(&q->busy->consumers))
        consumer_gone(b, CONTAINER_OF(q->busy->consumers.next, struct consumer, queue_link));
    while (!list_empty(&q->targets))
        binding_delete(b, CONTAINER_OF(q->targets.next, struct binding, target_link), true);
    drop_entries(b, q);
    stream_free(b, q);
    replay_queue_drop(b, q);
    compact_queue_removed(b, q);
    if (q->hidden)
        delay_free(q->vhost);
    else
        map_take(&q->vhost->queues, q->name);
    map_take(&b->queues_by_id, map_key_u64(&q->id));
    object_remove(b, &q->object);
    b->totals.queues -= !q->hidden;
    queue_free(b, q);
}

/* By what it holds in memory, which is freed with it. */
uint64_t queue_work(const struct queue *q)
{
    return 2 + q->busy->memory / 4096 + q->busy->unacked_count / 8 +
           (q->stream ? 4 * (uint64_t)q->rules->partitions : 0);
}

void queue_delete(struct broker *b, struct queue *q)
{
    if (q->deleting)
        return;
    (void)queue_end_begin(b, q);
    queue_end_finish(b, q);
}

bool queue_outlive(struct broker *b, struct queue *q, lsn_t *ret_lsn)
{
    CHECK(!q->exclusive);
    if (q->durable)
        return true;
    q->durable = q->object.journalled = true;
    *ret_lsn = log_object(b, &q->object);
    q->durable = q->object.journalled = *ret_lsn != 0 || b->recovering;
    LIST_EACH(&q->targets, node, after)
    {
        struct binding *binding = CONTAINER_OF(node, struct binding, target_link);
        if (!q->durable || !binding->source->durable)
            continue;
        binding->object.journalled = true;
        (void)log_object(
            b, &binding->object); /* without memory it is made again after a restart, as its subscription wants it */
    }
    return q->durable;
}

uint64_t queue_purge(struct broker *b, struct queue *q)
{
    uint64_t purged = q->busy->ready_count + queue_delayed(q);
    struct entry *e;
    paging_drop(b, q, true);
    while ((e = backlog_head(q)))
        backlog_remove(b, e, REASON_PURGED);
    retry_purge(b, q);
    dedup_purged(b, q);
    getters_end(b, q);
    if (q->fed)
        feed_hungry_queue(b, q);
    return purged;
}

/* ---- commands ---- */

static void fail_no_queue(struct broker *b, struct peer *peer, struct command *c, struct slice name)
{
    fail(b, peer, c->channel, c->origin, ERR_NOT_FOUND, "no queue '%.*s' in vhost '%.*s'", SLICE_ARG(name),
         SLICE_ARG(peer->vhost->name));
}

/* The queue a command names; an empty name is the one declared last on the channel. False: reported. */
static bool resolve_name(struct broker *b, struct channel *ch, struct command *c, struct slice *ret)
{
    *ret = c->ask->name;
    if (ret->len)
        return true;
    *ret = ch->last_queue;
    if (ret->len)
        return true;
    fail(b, ch->peer, c->channel, c->origin, ERR_NOT_FOUND, "no previously declared queue");
    return false;
}

static bool remember_queue(struct channel *ch, struct slice name)
{
    struct slice kept;
    if (slice_equal(ch->last_queue, name))
        return true;
    if (!slice_keep(&kept, name))
        return false;
    slice_drop(&ch->last_queue);
    ch->last_queue = kept;
    return true;
}

static void declared(struct broker *b, struct channel *ch, struct command *c, struct queue *q, lsn_t lsn)
{
    if (!remember_queue(ch, q->name)) {
        no_memory(b, ch->peer, c->channel, c->origin);
        return;
    }
    answer_ok(b, ch->peer, c, lsn, q->name, q->stream ? stream_count(q) : q->busy->ready_count,
              q->busy->consumer_count);
}

static void declare_passive(struct broker *b, struct channel *ch, struct command *c)
{
    struct slice name = c->ask->name; /* an empty one is no shorthand here */
    struct queue *q = queue_find(ch->peer->vhost, name);
    if (!q)
        fail_no_queue(b, ch->peer, c, name);
    else if (queue_locked(q, ch->peer))
        fail_locked(b, ch->peer, c, name);
    else {
        queue_used(b, q);
        declared(b, ch, c, q, 0);
    }
}

static bool same_flag(struct broker *b, struct peer *peer, struct command *c, struct slice name, const char *what,
                      bool asked, bool current)
{
    if (asked == current)
        return true;
    fail(b, peer, c->channel, c->origin, ERR_PRECONDITION_FAILED,
         "inequivalent arg '%s' for queue '%.*s' in vhost '%.*s': received '%s' but current is '%s'", what,
         SLICE_ARG(name), SLICE_ARG(peer->vhost->name), asked ? "true" : "false", current ? "true" : "false");
    return false;
}

static bool equivalent(struct broker *b, struct peer *peer, struct command *c, struct queue *q)
{
    uint32_t flags = c->ask->flags;
    char text[ERROR_TEXT_MAX];
    if (queue_locked(q, peer) || ((flags & ASK_EXCLUSIVE) != 0) != q->exclusive) {
        fail_locked(b, peer, c, q->name);
        return false;
    }
    if (!same_flag(b, peer, c, q->name, "durable", (flags & ASK_DURABLE) && !(flags & ASK_EXCLUSIVE), q->durable) ||
        !same_flag(b, peer, c, q->name, "auto_delete", flags & ASK_AUTO_DELETE, q->auto_delete))
        return false;
    const char *keys[32];
    size_t count = 0;
    for (const char *const *key = queue_arg_keys; *key; key++) /* what this type does not have is not compared */
        if (queue_type_has(q->rules->type, *key)) {
            CHECK(count + 1 < ARRAY_LEN(keys));
            keys[count++] = *key;
        }
    keys[count] = NULL;
    if (args_equivalent("queue", q->name, q->vhost->name, c->ask->args, q->args, keys, text, sizeof text))
        return true;
    fail(b, peer, c->channel, c->origin, ERR_PRECONDITION_FAILED, "%s", text);
    return false;
}

/* Quorum queues and streams are durable, shared and live until they are deleted. */
static bool type_allowed(struct broker *b, struct peer *peer, struct command *c, struct slice name,
                         const struct queue_rules *rules)
{
    const char *what = NULL;
    if (rules->type == QUEUE_CLASSIC)
        return true;
    if (c->ask->flags & ASK_AUTO_DELETE)
        what = "auto-delete";
    else if (c->ask->flags & ASK_EXCLUSIVE)
        what = "exclusive-owner";
    else if (!(c->ask->flags & ASK_DURABLE))
        what = "non-durable";
    if (what)
        fail(b, peer, c->channel, c->origin, ERR_PRECONDITION_FAILED,
             "invalid property '%s' for queue '%.*s' in vhost '%.*s'", what, SLICE_ARG(name),
             SLICE_ARG(peer->vhost->name));
    return !what;
}

static bool dlx_allowed(struct broker *b, struct peer *peer, struct command *c, struct slice name)
{
    struct amqp_value v;
    if (!amqp_table_find(c->ask->args, "x-dead-letter-exchange", &v))
        return true;
    if (!amqp_value_is_str(&v)) {
        fail(b, peer, c->channel, c->origin, ERR_PRECONDITION_FAILED,
             "invalid type '%s' for arg 'x-dead-letter-exchange' in queue '%.*s' in vhost '%.*s'",
             amqp_type_name(v.type), SLICE_ARG(name), SLICE_ARG(peer->vhost->name));
        return false;
    }
    return allowed(b, peer, c, VERB_READ, "queue", name) && allowed(b, peer, c, VERB_WRITE, "exchange", v.s);
}

static void declare_new(struct broker *b, struct channel *ch, struct command *c, struct slice name)
{
    struct peer *peer = ch->peer;
    uint32_t flags = c->ask->flags;
    struct queue_rules rules;
    char text[ERROR_TEXT_MAX];
    if (!dlx_allowed(b, peer, c, name))
        return;
    if (!queue_args_check(c->ask->args, name, peer->vhost->name, &rules, text, sizeof text)) {
        fail(b, peer, c->channel, c->origin, ERR_PRECONDITION_FAILED, "%s", text);
        return;
    }
    if (rules.type != QUEUE_CLASSIC && c->ask->name.len == 0) {
        fail(b, peer, c->channel, c->origin, ERR_PRECONDITION_FAILED, "Cannot declare a server-named queue for type %s",
             queue_type_module(rules.type));
        return;
    }
    if (!type_allowed(b, peer, c, name, &rules))
        return;
    if (rules.type == QUEUE_STREAM && !b->options.streams) {
        fail(b, peer, c->channel, c->origin, ERR_PRECONDITION_FAILED,
             "invalid arg 'x-queue-type' for queue '%.*s' in vhost '%.*s': streams are switched off", SLICE_ARG(name),
             SLICE_ARG(peer->vhost->name));
        return;
    }
    lsn_t lsn;
    struct queue *q =
        queue_create(b, peer->vhost, name, flags, c->ask->args, flags & ASK_EXCLUSIVE ? peer : NULL, &lsn);
    if (q)
        declared(b, ch, c, q, lsn);
    else
        no_memory(b, peer, c->channel, c->origin);
}

void do_queue_declare(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    char generated[64];
    struct slice name = c->ask->name;
    if (reply_is_name(name)) { /* is somebody listening on this direct reply address? */
        if (slice_is(name, REPLY_TO) || reply_alive(b, name))
            answer_ok(b, peer, c, 0, name, 0, 1);
        else
            fail_no_queue(b, peer, c, name);
        return;
    }
    if (c->ask->flags & ASK_PASSIVE) {
        declare_passive(b, ch, c);
        return;
    }
    if (name.len == 0) {
        random_name(b, "amq.gen-", generated, sizeof generated);
        name = slice_str(generated);
    }
    struct queue *q = queue_find(peer->vhost, name);
    if (!q && c->ask->name.len && slice_starts(name, "amq.")) {
        fail(b, peer, c->channel, c->origin, ERR_ACCESS_REFUSED, "queue name '%.*s' contains reserved prefix 'amq.*'",
             SLICE_ARG(name));
        return;
    }
    if (!allowed(b, peer, c, VERB_CONFIGURE, "queue", name))
        return;
    if (!q)
        declare_new(b, ch, c, name);
    else if (equivalent(b, peer, c, q)) {
        queue_used(b, q);
        declared(b, ch, c, q, 0);
    }
}

void do_queue_purge(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    struct slice name;
    if (!resolve_name(b, ch, c, &name) || !allowed(b, peer, c, VERB_READ, "queue", name))
        return;
    struct queue *q = queue_find(peer->vhost, name);
    if (!q)
        fail_no_queue(b, peer, c, name);
    else if (queue_locked(q, peer))
        fail_locked(b, peer, c, name);
    else if (q->stream)
        fail(b, peer, c->channel, c->origin, ERR_NOT_IMPLEMENTED,
             "queue.purge not supported by stream queues queue '%.*s' in vhost '%.*s'", SLICE_ARG(name),
             SLICE_ARG(peer->vhost->name));
    else {
        uint64_t purged = queue_purge(b, q);
        backlog_flush_removals(b);
        answer_ok(b, peer, c, q->object.journalled ? b->appended : 0, (struct slice){0}, purged, 0);
    }
}

void do_queue_delete(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    struct slice name;
    if (!resolve_name(b, ch, c, &name) || !allowed(b, peer, c, VERB_CONFIGURE, "queue", name))
        return;
    if (sql_is_internal(name)) {
        fail(b, peer, c->channel, c->origin, ERR_ACCESS_REFUSED, "queue '%.*s' in vhost '%.*s' belongs to a query",
             SLICE_ARG(name), SLICE_ARG(peer->vhost->name));
        return;
    }
    struct queue *q = queue_find(peer->vhost, name);
    uint32_t flags = c->ask->flags;
    uint64_t count = !q ? 0 : q->stream ? stream_count(q) : q->busy->ready_count;
    if (q && queue_locked(q, peer)) {
        fail_locked(b, peer, c, name);
        return;
    }
    if (q && q->rules->type != QUEUE_CLASSIC && (flags & (ASK_IF_UNUSED | ASK_IF_EMPTY))) {
        fail(b, peer, c->channel, c->origin, ERR_NOT_IMPLEMENTED,
             "cannot delete queue '%.*s' in vhost '%.*s'. queue.delete operations with %s flag set are not supported "
             "by %s queues",
             SLICE_ARG(name), SLICE_ARG(peer->vhost->name), flags & ASK_IF_UNUSED ? "if-unused" : "if-empty",
             q->stream ? "stream" : "quorum");
        return;
    }
    if (q && (flags & ASK_IF_EMPTY) && (q->busy->ready_count || (q->extra && q->extra->retry.count))) {
        fail(b, peer, c->channel, c->origin, ERR_PRECONDITION_FAILED, "queue '%.*s' in vhost '%.*s' not empty",
             SLICE_ARG(name), SLICE_ARG(peer->vhost->name));
        return;
    }
    if (q && (flags & ASK_IF_UNUSED) && q->busy->consumer_count) {
        fail(b, peer, c->channel, c->origin, ERR_PRECONDITION_FAILED, "queue '%.*s' in vhost '%.*s' in use",
             SLICE_ARG(name), SLICE_ARG(peer->vhost->name));
        return;
    }
    if (q && !log_object_reserve(b, &q->object)) {
        no_memory(b, peer, c->channel, c->origin);
        return;
    }
    /* The answer goes before the news of cancelled consumers: a client that consumes from what it deletes waits for it,
     * and some take the cancellation for the end of the channel. */
    lsn_t lsn = q ? queue_end_begin(b, q) : 0;
    answer_ok(b, peer, c, lsn, (struct slice){0}, count, 0);
    if (q)
        queue_end_finish(b, q);
}
