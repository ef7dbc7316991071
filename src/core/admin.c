/* Administration: one table of operations on users, vhosts, permissions, policies, topology and sessions.
 *
 * Operations come from the control socket, which is the operator himself; there is no permission to ask for. Lists are
 * emitted row by row as EFF_ROW (keys and values as text), then EFF_ANSWER. Changes answer with the lsn they wait for.
 */
#include <stdarg.h>
#include <stdio.h>

#include "core/query_int.h"
#include "fmt/password.h"

#define ROW_BYTES_MAX 16384

enum admin_op {
#define ADMIN(name, operands) ADMIN_##name,
#include "core/admin.def"
#undef ADMIN
    ADMIN_COUNT
};

struct row {
    struct writer w;
    uint8_t bytes[ROW_BYTES_MAX];
};

static void row_begin(struct row *row)
{
    row->w = writer_of(row->bytes, sizeof row->bytes);
}

static void row_slice(struct row *row, const char *key, struct slice value)
{
    struct writer before = row->w;
    writer_str8(&row->w, slice_str(key));
    writer_str32(&row->w, value);
    if (!writer_ok(&row->w))
        row->w = before; /* a value that is too long for a listing is left out */
}

static void row_number(struct row *row, const char *key, uint64_t value)
{
    char text[32];
    snprintf(text, sizeof text, "%llu", (unsigned long long)value);
    row_slice(row, key, slice_str(text));
}

static void row_signed(struct row *row, const char *key, int64_t value)
{
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)value);
    row_slice(row, key, slice_str(text));
}

static void row_bool(struct row *row, const char *key, bool value)
{
    row_slice(row, key, slice_str(value ? "true" : "false"));
}

static void row_emit(struct broker *b, struct peer *peer, const struct command *c, struct row *row)
{
    struct answer *answer = answer_new((struct slice){0}, (struct slice){0}, writer_slice(&row->w));
    if (!answer)
        return;
    struct effect *e = effect_push(b, peer, EFF_ROW, 0);
    e->origin = c->origin;
    e->answer = answer;
}

static void done(struct broker *b, struct peer *peer, const struct command *c, lsn_t lsn)
{
    struct effect *e = effect_push(b, peer, EFF_ANSWER, 0);
    e->origin = c->origin;
    e->lsn = lsn;
}

static void refuse(struct broker *b, struct peer *peer, const struct command *c, enum error_code code,
                   const char *format, ...) __attribute__((format(printf, 5, 6)));

static void refuse(struct broker *b, struct peer *peer, const struct command *c, enum error_code code,
                   const char *format, ...)
{
    char text[ERROR_TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    struct answer *answer = answer_new(slice_str(text), (struct slice){0}, (struct slice){0});
    if (answer)
        answer->code = code;
    struct effect *e = effect_push(b, peer, EFF_ERROR, 0);
    e->origin = c->origin;
    e->answer = answer;
}

static struct slice text_arg(const struct command *c, const char *key)
{
    struct amqp_value v;
    return amqp_table_find(c->ask->args, key, &v) && amqp_value_is_str(&v) ? v.s : (struct slice){0};
}

static struct slice table_arg(const struct command *c, const char *key)
{
    struct amqp_value v;
    return amqp_table_find(c->ask->args, key, &v) && v.type == 'F' ? v.s : (struct slice){0};
}

static struct user *need_user(struct broker *b, struct peer *peer, const struct command *c)
{
    struct user *user = user_find(b, c->ask->name);
    if (!user)
        refuse(b, peer, c, ERR_NOT_FOUND, "there is no user '%.*s'", SLICE_ARG(c->ask->name));
    return user;
}

static struct vhost *need_vhost(struct broker *b, struct peer *peer, const struct command *c, struct slice name)
{
    struct vhost *vhost = vhost_find(b, name);
    if (!vhost)
        refuse(b, peer, c, ERR_NOT_FOUND, "there is no vhost '%.*s'", SLICE_ARG(name));
    return vhost;
}

static bool name_fits(struct broker *b, struct peer *peer, const struct command *c, struct slice name)
{
    if (name.len && name.len <= NAME_MAX_BYTES)
        return true;
    refuse(b, peer, c, ERR_PRECONDITION_FAILED, "a name has 1 to %d bytes", NAME_MAX_BYTES);
    return false;
}

typedef void admin_handler(struct broker *b, struct peer *peer, const struct command *c);

/* ---- users ---- */

static void user_put_op(struct broker *b, struct peer *peer, const struct command *c)
{
    struct user *user = user_find(b, c->ask->name);
    if (!name_fits(b, peer, c, c->ask->name))
        return;
    if (c->ask->other.len && !password_valid(c->ask->other)) {
        refuse(b, peer, c, ERR_PRECONDITION_FAILED, "the password verifier of user '%.*s' is malformed",
               SLICE_ARG(c->ask->name));
        return;
    }
    struct slice tags = c->ask->key;
    if (user && tags.len == 0)
        tags = user->tags;
    if (!log_reserve(b, 4096 + tags.len, 1) || !user_put(b, c->ask->name, c->ask->other, tags, true))
        refuse(b, peer, c, ERR_RESOURCE_ERROR, "out of memory");
    else
        done(b, peer, c, log_object(b, &user_find(b, c->ask->name)->object));
}

static void user_tags_op(struct broker *b, struct peer *peer, const struct command *c)
{
    struct user *user = need_user(b, peer, c);
    if (!user)
        return;
    if (!log_reserve(b, 4096 + c->ask->key.len, 1) || !user_put(b, user->name, user->verifier, c->ask->key, true))
        refuse(b, peer, c, ERR_RESOURCE_ERROR, "out of memory");
    else
        done(b, peer, c, log_object(b, &user->object));
}

static void user_delete_op(struct broker *b, struct peer *peer, const struct command *c)
{
    struct user *user = need_user(b, peer, c);
    if (!user)
        return;
    while (!list_empty(&user->permissions)) {
        struct permission *p = CONTAINER_OF(user->permissions.next, struct permission, user_link);
        (void)log_object_gone(b, &p->object);
        permission_delete(b, p);
    }
    lsn_t lsn = log_object_gone(b, &user->object);
    user_delete(b, user);
    done(b, peer, c, lsn);
}

static void user_list_op(struct broker *b, struct peer *peer, const struct command *c)
{
    struct row row;
    MAP_EACH(&b->users, struct user, user)
    {
        row_begin(&row);
        row_slice(&row, "name", user->name);
        row_slice(&row, "tags", user->tags);
        row_slice(&row, "verifier", user->verifier);
        row_emit(b, peer, c, &row);
    }
    done(b, peer, c, 0);
}

/* ---- vhosts ---- */

static void vhost_put_op(struct broker *b, struct peer *peer, const struct command *c)
{
    if (!name_fits(b, peer, c, c->ask->name))
        return;
    if (vhost_is_dying(b, c->ask->name)) {
        refuse(b, peer, c, ERR_RESOURCE_LOCKED, "vhost '%.*s' is being deleted; it can be made again when that is done",
               SLICE_ARG(c->ask->name));
        return;
    }
    struct vhost *vhost = log_reserve(b, 2048, 1) ? vhost_put(b, c->ask->name, c->ask->other) : NULL;
    if (!vhost)
        refuse(b, peer, c, ERR_RESOURCE_ERROR, "out of memory");
    else
        done(b, peer, c, log_object(b, &vhost->object));
}

static void vhost_delete_op(struct broker *b, struct peer *peer, const struct command *c)
{
    struct vhost *vhost = need_vhost(b, peer, c, c->ask->name);
    if (!vhost)
        return;
    lsn_t lsn = log_object_reserve(b, &vhost->object) ? log_object_gone(b, &vhost->object) : 0;
    if (!lsn)
        refuse(b, peer, c, ERR_RESOURCE_ERROR, "out of memory");
    else
        vhost_delete_begin(b, vhost, peer, c->origin, lsn);
}

static void vhost_list_op(struct broker *b, struct peer *peer, const struct command *c)
{
    struct row row;
    MAP_EACH(&b->vhosts, struct vhost, vhost)
    {
        row_begin(&row);
        row_slice(&row, "name", vhost->name);
        row_number(&row, "queues", vhost->queues.count);
        row_number(&row, "exchanges", vhost->exchanges.count);
        row_slice(&row, "default_queue_type", vhost->default_queue_type);
        row_emit(b, peer, c, &row);
    }
    done(b, peer, c, 0);
}

/* ---- permissions ---- */

static void permission_put_op(struct broker *b, struct peer *peer, const struct command *c)
{
    char text[ERROR_TEXT_MAX];
    struct user *user = need_user(b, peer, c);
    struct vhost *vhost = user ? need_vhost(b, peer, c, c->ask->other) : NULL;
    if (!vhost)
        return;
    if (!log_reserve(b, 8192 + c->ask->args.len, 1) ||
        !permission_put(b, user, vhost, text_arg(c, "configure"), text_arg(c, "write"), text_arg(c, "read"), text,
                        sizeof text))
        refuse(b, peer, c, ERR_PRECONDITION_FAILED, "%s", text);
    else
        done(b, peer, c, log_object(b, &permission_find(user, vhost, NULL)->object));
}

static void topic_permission_put_op(struct broker *b, struct peer *peer, const struct command *c)
{
    char text[ERROR_TEXT_MAX];
    struct slice exchange = text_arg(c, "exchange");
    struct user *user = need_user(b, peer, c);
    struct vhost *vhost = user ? need_vhost(b, peer, c, c->ask->other) : NULL;
    if (!vhost)
        return;
    if (!log_reserve(b, 8192 + c->ask->args.len, 1) ||
        !topic_permission_put(b, user, vhost, exchange, text_arg(c, "write"), text_arg(c, "read"), text, sizeof text))
        refuse(b, peer, c, ERR_PRECONDITION_FAILED, "%s", text);
    else
        done(b, peer, c, log_object(b, &permission_find(user, vhost, &exchange)->object));
}

static void permission_gone(struct broker *b, struct peer *peer, const struct command *c, const struct slice *exchange)
{
    struct user *user = need_user(b, peer, c);
    struct vhost *vhost = user ? need_vhost(b, peer, c, c->ask->other) : NULL;
    struct permission *p = vhost ? permission_find(user, vhost, exchange) : NULL;
    if (!vhost)
        return;
    lsn_t lsn = 0;
    if (p) {
        lsn = log_object_gone(b, &p->object);
        permission_delete(b, p);
    }
    done(b, peer, c, lsn);
}

static void permission_delete_op(struct broker *b, struct peer *peer, const struct command *c)
{
    permission_gone(b, peer, c, NULL);
}

static void topic_permission_delete_op(struct broker *b, struct peer *peer, const struct command *c)
{
    permission_gone(b, peer, c, &c->ask->key);
}

static void list_permissions(struct broker *b, struct peer *peer, const struct command *c, bool topic)
{
    struct row row;
    MAP_EACH(&b->users, struct user, user)
    LIST_EACH(&user->permissions, node, after)
    {
        struct permission *p = CONTAINER_OF(node, struct permission, user_link);
        if (p->topic != topic || p->vhost->deleting || (c->ask->name.len && !slice_equal(c->ask->name, user->name)) ||
            (c->ask->other.len && !slice_equal(c->ask->other, p->vhost->name)))
            continue;
        row_begin(&row);
        row_slice(&row, "user", user->name);
        row_slice(&row, "vhost", p->vhost->name);
        if (topic)
            row_slice(&row, "exchange", p->exchange);
        else
            row_slice(&row, "configure", p->patterns[VERB_CONFIGURE].text);
        row_slice(&row, "write", p->patterns[VERB_WRITE].text);
        row_slice(&row, "read", p->patterns[VERB_READ].text);
        row_emit(b, peer, c, &row);
    }
    done(b, peer, c, 0);
}

static void permission_list_op(struct broker *b, struct peer *peer, const struct command *c)
{
    list_permissions(b, peer, c, false);
}

static void topic_permission_list_op(struct broker *b, struct peer *peer, const struct command *c)
{
    list_permissions(b, peer, c, true);
}

/* ---- policies ---- */

static void policy_put_op(struct broker *b, struct peer *peer, const struct command *c)
{
    char text[ERROR_TEXT_MAX];
    struct amqp_value v;
    bool operator_policy = c->ask->flags & ASK_INTERNAL;
    enum apply_to apply_to = APPLY_ALL;
    struct vhost *vhost = need_vhost(b, peer, c, c->ask->other);
    if (!vhost || !name_fits(b, peer, c, c->ask->name))
        return;
    struct slice apply = text_arg(c, "apply-to");
    if (apply.len && !apply_to_parse(apply, &apply_to)) {
        refuse(b, peer, c, ERR_PRECONDITION_FAILED,
               "apply-to '%.*s' is not one of all, queues, classic_queues, quorum_queues, streams, exchanges",
               SLICE_ARG(apply));
        return;
    }
    if (!policy_keys_check(table_arg(c, "definition"), text, sizeof text)) {
        refuse(b, peer, c, ERR_PRECONDITION_FAILED, "%s", text);
        return;
    }
    int64_t priority = amqp_table_find(c->ask->args, "priority", &v) && amqp_value_is_int(&v) ? v.i : 0;
    if (!log_reserve(b, 8192 + c->ask->args.len, 1) ||
        !policy_put(b, vhost, c->ask->name, text_arg(c, "pattern"), apply_to, priority, table_arg(c, "definition"),
                    operator_policy, text, sizeof text))
        refuse(b, peer, c, ERR_PRECONDITION_FAILED, "%s", text);
    else
        done(b, peer, c, log_object(b, &policy_find(vhost, c->ask->name, operator_policy)->object));
}

static void policy_delete_op(struct broker *b, struct peer *peer, const struct command *c)
{
    struct vhost *vhost = need_vhost(b, peer, c, c->ask->other);
    struct policy *p = vhost ? policy_find(vhost, c->ask->name, c->ask->flags & ASK_INTERNAL) : NULL;
    if (!vhost)
        return;
    if (!p) {
        refuse(b, peer, c, ERR_NOT_FOUND, "there is no policy '%.*s' in vhost '%.*s'", SLICE_ARG(c->ask->name),
               SLICE_ARG(vhost->name));
        return;
    }
    lsn_t lsn = log_object_gone(b, &p->object);
    policy_delete(b, p);
    done(b, peer, c, lsn);
}

static bool vhost_wanted(const struct command *c, const struct vhost *vhost)
{
    return c->ask->other.len == 0 || slice_equal(c->ask->other, vhost->name);
}

static void policy_list_op(struct broker *b, struct peer *peer, const struct command *c)
{
    struct row row;
    bool operator_policy = c->ask->flags & ASK_INTERNAL;
    MAP_EACH(&b->vhosts, struct vhost, vhost)
    LIST_EACH(&vhost->policies, node, after)
    {
        struct policy *p = CONTAINER_OF(node, struct policy, vhost_link);
        if (!vhost_wanted(c, vhost) || p->operator_policy != operator_policy)
            continue;
        row_begin(&row);
        row_slice(&row, "vhost", vhost->name);
        row_slice(&row, "name", p->name);
        row_slice(&row, "pattern", p->pattern.text);
        row_slice(&row, "apply-to", slice_str(apply_to_name(p->apply_to)));
        row_signed(&row, "priority", p->priority);
        row_slice(&row, "definition", p->definition);
        row_emit(b, peer, c, &row);
    }
    done(b, peer, c, 0);
}

/* ---- topology, for definitions: additive, what exists stays as it is ---- */

static void exchange_put_op(struct broker *b, struct peer *peer, const struct command *c)
{
    struct vhost *vhost = need_vhost(b, peer, c, c->ask->other);
    struct slice type_name = c->ask->key;
    bool delayed = slice_is(type_name, "x-delayed-message");
    if (!vhost)
        return;
    const struct exchange_type *type = exchange_type_for_clients(delayed ? text_arg(c, "x-delayed-type") : type_name);
    if (!type) {
        refuse(b, peer, c, ERR_PRECONDITION_FAILED, "unknown exchange type '%.*s'", SLICE_ARG(type_name));
        return;
    }
    struct exchange *x = exchange_find(vhost, c->ask->name);
    if (x) {
        done(b, peer, c, 0);
        return;
    }
    uint32_t flags = c->ask->flags;
    if (name_fits(b, peer, c, c->ask->name)) {
        if (log_reserve(b, 4096 + c->ask->args.len, 1))
            x = exchange_make(b, vhost, c->ask->name, type, delayed, flags & ASK_DURABLE, flags & ASK_AUTO_DELETE,
                              flags & ASK_INTERNAL, c->ask->args);
        if (x)
            done(b, peer, c, log_object(b, &x->object));
        else
            refuse(b, peer, c, ERR_RESOURCE_ERROR, "out of memory");
    }
}

static void queue_put_op(struct broker *b, struct peer *peer, const struct command *c)
{
    char text[ERROR_TEXT_MAX];
    struct queue_rules rules;
    struct vhost *vhost = need_vhost(b, peer, c, c->ask->other);
    if (!vhost || !name_fits(b, peer, c, c->ask->name))
        return;
    struct queue *q = queue_find(vhost, c->ask->name);
    if (q) {
        done(b, peer, c, 0);
        return;
    }
    if (!queue_args_check(c->ask->args, c->ask->name, vhost->name, &rules, text, sizeof text)) {
        refuse(b, peer, c, ERR_PRECONDITION_FAILED, "%s", text);
        return;
    }
    if (rules.type != QUEUE_CLASSIC && (!(c->ask->flags & ASK_DURABLE) || (c->ask->flags & ASK_AUTO_DELETE))) {
        refuse(b, peer, c, ERR_PRECONDITION_FAILED, "quorum queues and streams are durable and not auto-delete");
        return;
    }
    if (rules.type == QUEUE_STREAM && !b->options.streams) {
        refuse(b, peer, c, ERR_PRECONDITION_FAILED, "streams are switched off");
        return;
    }
    lsn_t lsn;
    q = queue_create(b, vhost, c->ask->name, c->ask->flags, c->ask->args, NULL, &lsn);
    if (q)
        done(b, peer, c, lsn);
    else
        refuse(b, peer, c, ERR_RESOURCE_ERROR, "out of memory");
}

static void binding_put_op(struct broker *b, struct peer *peer, const struct command *c)
{
    struct vhost *vhost = need_vhost(b, peer, c, c->ask->other);
    if (!vhost)
        return;
    struct slice args = table_arg(c, "arguments"), source_name = text_arg(c, "source");
    bool to_exchange = slice_is(text_arg(c, "destination_type"), "exchange");
    struct exchange *source = exchange_find(vhost, source_name);
    struct queue *q = to_exchange ? NULL : queue_find(vhost, c->ask->name);
    struct exchange *x = to_exchange ? exchange_find(vhost, c->ask->name) : NULL;
    struct binding *fresh;
    if (!source || source->name.len == 0 || (!q && !x)) {
        refuse(b, peer, c, ERR_NOT_FOUND,
               "cannot bind %s '%.*s' to exchange '%.*s' in vhost '%.*s': one of them is missing",
               to_exchange ? "exchange" : "queue", SLICE_ARG(c->ask->name), SLICE_ARG(source_name),
               SLICE_ARG(vhost->name));
        return;
    }
    char why[200];
    if (!stream_bind_allowed(b, source, args, q, why, sizeof why)) {
        refuse(b, peer, c, ERR_PRECONDITION_FAILED, "%s", why);
        return;
    }
    if (!log_reserve(b, 4096 + args.len, 1) || !binding_make(b, source, q, x, c->ask->key, args, &fresh)) {
        refuse(b, peer, c, ERR_RESOURCE_ERROR, "out of memory");
        return;
    }
    lsn_t lsn = fresh ? binding_log(b, fresh) : 0;
    done(b, peer, c, lsn);
}

static void exchange_list_op(struct broker *b, struct peer *peer, const struct command *c)
{
    struct row row;
    MAP_EACH(&b->vhosts, struct vhost, vhost)
    MAP_EACH(&vhost->exchanges, struct exchange, x)
    {
        if (!vhost_wanted(c, vhost) || x->dying)
            continue;
        row_begin(&row);
        row_slice(&row, "vhost", vhost->name);
        row_slice(&row, "name", x->name);
        row_slice(&row, "type", slice_str(x->delayed ? "x-delayed-message" : x->type->name));
        row_bool(&row, "durable", x->durable);
        row_bool(&row, "auto_delete", x->auto_delete);
        row_bool(&row, "internal", x->internal);
        row_slice(&row, "arguments", x->args);
        row_emit(b, peer, c, &row);
    }
    done(b, peer, c, 0);
}

static void queue_list_op(struct broker *b, struct peer *peer, const struct command *c)
{
    struct row row;
    MAP_EACH(&b->vhosts, struct vhost, vhost)
    MAP_EACH(&vhost->queues, struct queue, q)
    {
        if (!vhost_wanted(c, vhost))
            continue;
        row_begin(&row);
        row_slice(&row, "vhost", vhost->name);
        row_slice(&row, "name", q->name);
        row_slice(&row, "type",
                  slice_str(q->stream                        ? "stream"
                            : q->rules->type == QUEUE_QUORUM ? "quorum"
                                                             : "classic"));
        row_bool(&row, "durable", q->durable);
        row_bool(&row, "auto_delete", q->auto_delete);
        row_bool(&row, "exclusive", q->exclusive);
        row_bool(&row, "mqtt", q->mqtt);
        row_slice(&row, "arguments", q->args);
        uint64_t ready = q->stream ? stream_count(q) : q->busy->ready_count;
        uint64_t delayed = q->extra ? q->extra->retry.count : 0;
        row_number(&row, "messages", ready + q->busy->unacked_count + delayed);
        row_number(&row, "messages_ready", ready);
        row_number(&row, "messages_unacknowledged", q->busy->unacked_count);
        row_number(&row, "messages_delayed", delayed);
        row_number(&row, "message_bytes",
                   q->stream ? stream_bytes(q)
                             : q->busy->ready_bytes + q->busy->unacked_bytes + (delayed ? q->extra->retry.bytes : 0));
        row_number(&row, "consumers", q->busy->consumer_count);
        row_number(&row, "duplicates", q->extra ? q->extra->duplicates : 0);
        row_number(&row, "deduplication_keys", q->extra ? q->extra->window.count : 0);
        row_slice(&row, "policy", q->policy ? q->policy->name : (struct slice){0});
        row_slice(&row, "operator_policy", q->operator_policy ? q->operator_policy->name : (struct slice){0});
        row_emit(b, peer, c, &row);
    }
    done(b, peer, c, 0);
}

static void binding_list_op(struct broker *b, struct peer *peer, const struct command *c)
{
    struct row row;
    MAP_EACH(&b->vhosts, struct vhost, vhost)
    MAP_EACH(&vhost->bindings, struct binding, binding)
    {
        if (!vhost_wanted(c, vhost) || binding->audience || binding->source->dying)
            continue;
        row_begin(&row);
        row_slice(&row, "vhost", vhost->name);
        row_slice(&row, "source", binding->source->name);
        row_slice(&row, "destination", binding->queue ? binding->queue->name : binding->exchange->name);
        row_slice(&row, "destination_type", slice_str(binding->queue ? "queue" : "exchange"));
        row_slice(&row, "routing_key", binding->key);
        row_bool(&row, "mqtt", binding->queue && binding->queue->mqtt);
        row_slice(&row, "arguments", binding->args);
        row_emit(b, peer, c, &row);
    }
    done(b, peer, c, 0);
}

/* ---- sessions and the broker itself ---- */

static void session_list_op(struct broker *b, struct peer *peer, const struct command *c)
{
    struct row row;
    LIST_EACH(&b->peers, node, after)
    {
        struct peer *p = CONTAINER_OF(node, struct peer, link);
        if (peer_is_own(p))
            continue;
        row_begin(&row);
        row_number(&row, "id", (uint64_t)p->side->index << 32 | p->number);
        row_slice(&row, "peer", p->address);
        row_slice(&row, "protocol", p->protocol);
        row_slice(&row, "user", p->user ? p->user->name : (struct slice){0});
        row_slice(&row, "vhost", p->vhost ? p->vhost->name : (struct slice){0});
        row_number(&row, "channels", p->channel_count);
        row_bool(&row, "publishes", p->publisher);
        row_bool(&row, "blocked", p->blocked);
        row_emit(b, peer, c, &row);
    }
    done(b, peer, c, 0);
}

static void session_close_op(struct broker *b, struct peer *peer, const struct command *c)
{
    uint64_t id = c->ask->key.len ? 0 : c->ask->number;
    unsigned side = (unsigned)(id >> 32);
    char text[256];
    struct peer *victim = side < b->side_count ? peer_of(b, &b->sides[side], (uint32_t)id) : NULL;
    if (!victim) {
        refuse(b, peer, c, ERR_NOT_FOUND, "there is no connection %llu", (unsigned long long)id);
        return;
    }
    if (peer_is_own(victim)) {
        refuse(b, peer, c, ERR_ACCESS_REFUSED, "%llu is no connection of a client, but the broker's own",
               (unsigned long long)id);
        return;
    }
    snprintf(text, sizeof text, "%.*s",
             SLICE_ARG(c->ask->name.len ? c->ask->name : slice_str("closed by the operator")));
    kick(b, victim, text);
    done(b, peer, c, 0);
}

static void consumer_list_op(struct broker *b, struct peer *peer, const struct command *c)
{
    struct row row;
    MAP_EACH(&b->vhosts, struct vhost, vhost)
    MAP_EACH(&vhost->queues, struct queue, q)
    LIST_EACH(&q->busy->consumers, node, after)
    {
        struct consumer *consumer = CONTAINER_OF(node, struct consumer, queue_link);
        row_begin(&row);
        row_slice(&row, "vhost", vhost->name);
        row_slice(&row, "queue", q->name);
        row_slice(&row, "consumer_tag", consumer->tag);
        row_slice(&row, "peer", consumer->channel->peer->address);
        row_number(&row, "channel", consumer->channel->number);
        row_bool(&row, "ack_required", !consumer->no_ack);
        row_number(&row, "prefetch_count", consumer->prefetch);
        row_number(&row, "unacked", consumer->unacked);
        row_emit(b, peer, c, &row);
    }
    done(b, peer, c, 0);
}

static void mqtt_client_list_op(struct broker *b, struct peer *peer, const struct command *c)
{
    struct row row;
    LIST_EACH(&b->mqtt.clients, node, after)
    {
        const struct mqtt_client *client = CONTAINER_OF(node, struct mqtt_client, link);
        const struct queue *q = client->queue;
        row_begin(&row);
        row_slice(&row, "vhost", client->vhost->name);
        row_slice(&row, "client_id", client->id);
        row_slice(&row, "user", client->user);
        row_bool(&row, "connected", client->peer != NULL);
        row_slice(&row, "peer", client->peer ? client->peer->address : (struct slice){0});
        row_number(&row, "expiry_s", client->expiry_s);
        row_number(&row, "left_at", (uint64_t)client->left_at);
        row_number(&row, "subscriptions", client->sub_count);
        row_number(&row, "messages", q ? q->busy->ready_count + q->busy->unacked_count : 0);
        row_number(&row, "received", client->received.count);
        row_number(&row, "releasing", client->releasing.count);
        row_bool(&row, "will", client->will != NULL);
        row_emit(b, peer, c, &row);
    }
    done(b, peer, c, 0);
}

static void sql_list_op(struct broker *b, struct peer *peer, const struct command *c)
{
    static const char *const states[] = {"running", "paused", "failed"};
    struct row row;
    LIST_EACH(&b->sql.by_id, node, after)
    {
        const struct sql_object *o = CONTAINER_OF(node, struct sql_object, link);
        if (!vhost_wanted(c, o->vhost))
            continue;
        row_begin(&row);
        row_slice(&row, "vhost", o->vhost->name);
        row_slice(&row, "name", o->name);
        row_number(&row, "id", o->id);
        row_slice(&row, "owner", o->owner);
        row_number(&row, "kind", o->kind);
        row_slice(&row, "state", slice_str(states[o->state]));
        row_slice(&row, "reason", o->texts[SQL_REASON]);
        row_number(&row, "steps", o->step);
        row_number(&row, "trail_bytes", o->trail.len);
        row_slice(&row, "text", o->texts[SQL_TEXT]);
        row_emit(b, peer, c, &row);
    }
    done(b, peer, c, 0);
}

struct page_rows {
    struct broker *b;
    struct peer *peer;
    const struct command *c;
};

static int page_row(void *arg, const struct broker_page *page)
{
    struct page_rows *rows = arg;
    struct row row;
    if (page->where.segment != rows->c->ask->number || page->live == 0)
        return 0;
    row_begin(&row);
    row_slice(&row, "vhost", page->vhost);
    row_slice(&row, "queue", page->queue);
    row_number(&row, "queue_id", page->queue_id);
    row_number(&row, "offset", page->where.offset);
    row_number(&row, "bytes", page->where.len);
    row_number(&row, "first_position", page->first);
    row_number(&row, "last_position", page->last);
    row_number(&row, "messages", page->live);
    row_emit(rows->b, rows->peer, rows->c, &row);
    return 0;
}

/* Looks at every page there is: for the rare case that a file is not whole. */
static void page_list_op(struct broker *b, struct peer *peer, const struct command *c)
{
    struct page_rows rows = {b, peer, c};
    int err = broker_pages(b, page_row, &rows);
    CHECK(err == 0); /* no row ends it */
    done(b, peer, c, 0);
}

static void totals_op(struct broker *b, struct peer *peer, const struct command *c)
{
    const struct broker_totals *t = &b->totals;
    const struct {
        const char *name;
        uint64_t value;
    } rows[] = {{"published", t->published},
                {"routed", t->routed},
                {"delivered", t->delivered},
                {"acked", t->acked},
                {"redelivered", t->redelivered},
                {"returned", t->returned},
                {"dropped", t->dropped},
                {"expired", t->expired},
                {"dead_lettered", t->dead_lettered},
                {"rejected", t->rejected},
                {"refused", t->refused},
                {"duplicates", t->duplicates},
                {"messages", t->messages},
                {"message_bytes", t->message_bytes},
                {"unacked", t->unacked},
                {"queues", t->queues},
                {"exchanges", t->exchanges},
                {"bindings", t->bindings},
                {"consumers", t->consumers},
                {"channels", t->channels},
                {"connections", t->connections},
                {"sessions", t->sessions},
                {"mqtt_sessions", b->mqtt.numbers.count},
                {"vhosts", t->vhosts},
                {"users", t->users},
                {"compactions", t->compactions},
                {"fetch_sessions_evicted", t->fetch_sessions_evicted},
                {"transaction_bytes", b->txn_memory.bytes},
                {"transactions_refused", t->transactions_refused},
                {"keyed_passes", t->keyed_passes},
                {"keyed_files", t->keyed_files},
                {"keyed_bytes_before", t->keyed_bytes_before},
                {"keyed_bytes_after", t->keyed_bytes_after},
                {"journal_bytes", b->options.log.live_bytes(b->options.log.self)},
                {"memory_bytes", mem_in_use()}};
    struct row row;
    row_begin(&row);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        row_number(&row, rows[i].name, rows[i].value);
    row_emit(b, peer, c, &row);
    done(b, peer, c, 0);
}

static void check_op(struct broker *b, struct peer *peer, const struct command *c)
{
    broker_check(b);
    done(b, peer, c, 0);
}

static void compact_op(struct broker *b, struct peer *peer, const struct command *c)
{
    compact_start(b);
    done(b, peer, c, 0);
}

static admin_handler *const handlers[ADMIN_COUNT] = {[ADMIN_USER_PUT] = user_put_op,
                                                     [ADMIN_USER_TAGS] = user_tags_op,
                                                     [ADMIN_USER_DELETE] = user_delete_op,
                                                     [ADMIN_USER_LIST] = user_list_op,
                                                     [ADMIN_VHOST_PUT] = vhost_put_op,
                                                     [ADMIN_VHOST_DELETE] = vhost_delete_op,
                                                     [ADMIN_VHOST_LIST] = vhost_list_op,
                                                     [ADMIN_PERMISSION_PUT] = permission_put_op,
                                                     [ADMIN_PERMISSION_DELETE] = permission_delete_op,
                                                     [ADMIN_PERMISSION_LIST] = permission_list_op,
                                                     [ADMIN_TOPIC_PERMISSION_PUT] = topic_permission_put_op,
                                                     [ADMIN_TOPIC_PERMISSION_DELETE] = topic_permission_delete_op,
                                                     [ADMIN_TOPIC_PERMISSION_LIST] = topic_permission_list_op,
                                                     [ADMIN_POLICY_PUT] = policy_put_op,
                                                     [ADMIN_POLICY_DELETE] = policy_delete_op,
                                                     [ADMIN_POLICY_LIST] = policy_list_op,
                                                     [ADMIN_EXCHANGE_PUT] = exchange_put_op,
                                                     [ADMIN_EXCHANGE_LIST] = exchange_list_op,
                                                     [ADMIN_QUEUE_PUT] = queue_put_op,
                                                     [ADMIN_QUEUE_LIST] = queue_list_op,
                                                     [ADMIN_BINDING_PUT] = binding_put_op,
                                                     [ADMIN_BINDING_LIST] = binding_list_op,
                                                     [ADMIN_SESSION_LIST] = session_list_op,
                                                     [ADMIN_SESSION_CLOSE] = session_close_op,
                                                     [ADMIN_CONSUMER_LIST] = consumer_list_op,
                                                     [ADMIN_MQTT_CLIENT_LIST] = mqtt_client_list_op,
                                                     [ADMIN_SQL_LIST] = sql_list_op,
                                                     [ADMIN_PAGE_LIST] = page_list_op,
                                                     [ADMIN_TOTALS] = totals_op,
                                                     [ADMIN_CHECK] = check_op,
                                                     [ADMIN_COMPACT] = compact_op};

void do_admin(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    (void)ch;
    if (!c->ask || c->number >= ADMIN_COUNT) {
        refuse(b, peer, c, ERR_NOT_IMPLEMENTED, "unknown operation %llu", (unsigned long long)c->number);
        return;
    }
    handlers[c->number](b, peer, c);
}
