/* Exchanges and bindings: making, finding, deleting (an exchange: exchange_end.c); the index that each exchange type keeps; their four commands.
 *
 * A binding is known by its identity (source, destination, key, arguments) in the vhost's table, stands in its source's
 * and destination's lists, and in its source's index. Adding needs memory in all of them and changes nothing when one is
 * refused. The default exchange has no bindings: its match looks the queue up by name.
 */
#include "core/core_int.h"

#include <stdio.h>

#include "core/hashring.h"
#include "core/headers.h"
#include "core/topic.h"

struct key_bucket {
    struct list bindings;
    struct slice key; /* points behind the struct */
    uint8_t bytes[];
};

/* ---- direct ---- */

static bool direct_add(struct exchange *x, struct binding *binding)
{
    struct key_bucket *bucket = map_get(&x->keys, binding->key);
    if (!bucket) {
        bucket = mem_alloc(sizeof *bucket + binding->key.len);
        if (!bucket)
            return false;
        if (binding->key.len)
            memcpy(bucket->bytes, binding->key.ptr, binding->key.len);
        bucket->key = slice_of(bucket->bytes, binding->key.len);
        list_init(&bucket->bindings);
        if (!map_put(&x->keys, bucket->key, bucket)) {
            mem_free(bucket);
            return false;
        }
    }
    list_insert(&bucket->bindings, &binding->bucket_link);
    return true;
}

static void direct_remove(struct exchange *x, struct binding *binding)
{
    list_remove(&binding->bucket_link);
    struct key_bucket *bucket = map_get(&x->keys, binding->key);
    CHECK(bucket);
    if (list_empty(&bucket->bindings)) {
        map_take(&x->keys, bucket->key);
        mem_free(bucket);
    }
}

static void direct_match(struct broker *b, struct exchange *x, struct slice key, struct slice headers,
                         struct route *route)
{
    (void)headers;
    if (x->name.len == 0) {
        struct queue *q = queue_find(x->vhost, key);
        if (q && route_add(b, route, q))
            route->matched++;
        return;
    }
    struct key_bucket *bucket = map_get(&x->keys, key);
    if (bucket)
        LIST_EACH(&bucket->bindings, node, after)
    route_target(b, route, CONTAINER_OF(node, struct binding, bucket_link));
}

/* ---- fanout, headers, random: the list of bindings is the index ---- */

static bool list_add(struct exchange *x, struct binding *binding)
{
    (void)x;
    (void)binding;
    return true;
}

static void list_drop(struct exchange *x, struct binding *binding)
{
    (void)x;
    (void)binding;
}

static void fanout_match(struct broker *b, struct exchange *x, struct slice key, struct slice headers,
                         struct route *route)
{
    (void)key;
    (void)headers;
    LIST_EACH(&x->sources, node, after)
    route_target(b, route, CONTAINER_OF(node, struct binding, source_link));
}

static void headers_type_match(struct broker *b, struct exchange *x, struct slice key, struct slice headers,
                               struct route *route)
{
    (void)key;
    LIST_EACH(&x->sources, node, after)
    {
        struct binding *binding = CONTAINER_OF(node, struct binding, source_link);
        if (headers_match(binding->args, headers))
            route_target(b, route, binding);
    }
}

static void random_match(struct broker *b, struct exchange *x, struct slice key, struct slice headers,
                         struct route *route)
{
    (void)key;
    (void)headers;
    if (x->binding_count == 0)
        return;
    uint64_t skip = random_u64(b) % x->binding_count;
    LIST_EACH(&x->sources, node, after)
    if (skip-- == 0) {
        route_target(b, route, CONTAINER_OF(node, struct binding, source_link));
        return;
    }
}

/* ---- topic ---- */

static bool topic_type_add(struct exchange *x, struct binding *binding)
{
    if (!x->topic)
        x->topic = topic_new(x->vhost->exchanges.seed);
    return x->topic && topic_add(x->topic, binding->key, binding);
}

static void topic_type_remove(struct exchange *x, struct binding *binding)
{
    topic_remove(x->topic, binding->key, binding);
}

struct topic_walk {
    struct broker *broker;
    struct route *route;
};

static void topic_hit(void *arg, void *target)
{
    struct topic_walk *walk = arg;
    route_target(walk->broker, walk->route, target);
}

static void topic_type_match(struct broker *b, struct exchange *x, struct slice key, struct slice headers,
                             struct route *route)
{
    (void)headers;
    struct topic_walk walk = {b, route};
    if (x->topic)
        topic_match(x->topic, key, topic_hit, &walk);
}

/* ---- consistent hash: the binding key is the weight ---- */

static bool weight_parse(struct slice key, unsigned *ret)
{
    unsigned v = 0;
    for (size_t i = 0; i < key.len; i++) {
        if (key.ptr[i] < '0' || key.ptr[i] > '9' || v > HASHRING_WEIGHT_MAX)
            return false;
        v = v * 10 + (key.ptr[i] - '0');
    }
    *ret = v > HASHRING_WEIGHT_MAX ? HASHRING_WEIGHT_MAX : v;
    return v > 0;
}

static uint64_t stable_id(const struct binding *binding)
{
    struct slice name = binding->queue ? binding->queue->name : binding->exchange->name;
    uint64_t h = binding->queue ? 14695981039346656037u : 1099511628211u; /* FNV-1a: must not change between versions */
    for (size_t i = 0; i < name.len; i++)
        h = (h ^ name.ptr[i]) * 1099511628211u;
    return h;
}

static bool hash_add(struct exchange *x, struct binding *binding)
{
    unsigned weight = 1;
    if (!x->hashring)
        x->hashring = hashring_new();
    return x->hashring && weight_parse(binding->key, &weight) &&
           hashring_add(x->hashring, stable_id(binding), weight, binding);
}

static void hash_remove(struct exchange *x, struct binding *binding)
{
    unsigned weight = 1;
    if (x->hashring && weight_parse(binding->key, &weight)) /* not while the exchange goes */
        hashring_remove(x->hashring, stable_id(binding), weight, binding);
}

/* A property of the message by the name that hash-property may give it. */
static bool property_of(const struct msg *msg, struct slice name, char number[32], struct slice *ret)
{
    struct amqp_props props;
    if (!msg || !amqp_props_parse(msg_props(msg), &props))
        return false;
    if (slice_is(name, "correlation_id"))
        *ret = props.correlation_id;
    else if (slice_is(name, "message_id"))
        *ret = props.message_id;
    else {
        snprintf(number, 32, "%llu", (unsigned long long)(props.present & AMQP_TIMESTAMP ? props.timestamp : 0));
        *ret = slice_str(number);
    }
    return true;
}

static bool property_known(struct slice name)
{
    return slice_is(name, "correlation_id") || slice_is(name, "message_id") || slice_is(name, "timestamp");
}

/* What is hashed: the routing key, or the header or property that the exchange's arguments name. */
static void hash_match(struct broker *b, struct exchange *x, struct slice key, struct slice headers,
                       struct route *route)
{
    struct amqp_value name, value;
    char text[64];
    struct slice what = key;
    if (amqp_table_find(x->args, "hash-property", &name) && amqp_value_is_str(&name)) {
        what = (struct slice){0};
        (void)property_of(route->msg, name.s, text, &what);
    } else if (amqp_table_find(x->args, "hash-header", &name) && amqp_value_is_str(&name)) {
        what = (struct slice){0};
        if (amqp_table_find_slice(headers, name.s, &value)) {
            if (amqp_value_is_str(&value))
                what = value.s;
            else if (amqp_value_is_int(&value)) {
                snprintf(text, sizeof text, "%lld", (long long)value.i);
                what = slice_str(text);
            }
        }
    }
    struct binding *binding = x->hashring ? hashring_pick(x->hashring, what) : NULL;
    if (binding)
        route_target(b, route, binding);
}

static bool headers_valid(struct slice key, struct slice args, char *text, size_t text_len)
{
    (void)key;
    return headers_args_valid(args, text, text_len);
}

static bool hash_valid(struct slice key, struct slice args, char *text, size_t text_len)
{
    unsigned weight;
    bool number = key.len > 0;
    (void)args;
    if (weight_parse(key, &weight))
        return true;
    for (size_t i = 0; i < key.len; i++)
        number = number && ((key.ptr[i] >= '0' && key.ptr[i] <= '9') || (i == 0 && key.ptr[i] == '-' && key.len > 1));
    if (number)
        snprintf(text, text_len, "The binding key must be greater than 0");
    else
        snprintf(text, text_len, "The binding key must be an integer: <<%s%.*s%s>>", key.len ? "\"" : "",
                 SLICE_ARG(key), key.len ? "\"" : "");
    return false;
}

/* ---- the source of a stream: its feeders match (stream_feed.c), nobody publishes to it ---- */

static bool stream_add(struct exchange *x, struct binding *binding)
{
    return binding->key.len == 0 || topic_type_add(x, binding);
}

static void stream_remove(struct exchange *x, struct binding *binding)
{
    if (binding->key.len)
        topic_type_remove(x, binding);
}

static void stream_match(struct broker *b, struct exchange *x, struct slice key, struct slice headers,
                         struct route *route)
{
    (void)b;
    (void)x;
    (void)key;
    (void)headers;
    (void)route;
}

static const struct exchange_type types[] = {
    {"direct", false, direct_add, direct_remove, direct_match, NULL},
    {"fanout", false, list_add, list_drop, fanout_match, NULL},
    {"topic", true, topic_type_add, topic_type_remove, topic_type_match, NULL},
    {"headers", false, list_add, list_drop, headers_type_match, headers_valid},
    {"x-consistent-hash", false, hash_add, hash_remove, hash_match, hash_valid},
    {"x-random", false, list_add, list_drop, random_match, NULL},
    {"x-stream", false, stream_add, stream_remove, stream_match, NULL},
};

const struct exchange_type *exchange_type_find(struct slice name)
{
    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        if (slice_is(name, types[i].name))
            return &types[i];
    return NULL;
}

static const char *type_name(const struct exchange *x)
{
    return x->delayed ? "x-delayed-message" : x->type->name;
}

/* ---- objects ---- */

struct exchange *exchange_find(struct vhost *vhost, struct slice name)
{
    struct exchange *x = map_get(&vhost->exchanges, name);
    return x && !x->dying ? x : NULL;
}

struct exchange *exchange_make(struct broker *b, struct vhost *vhost, struct slice name,
                               const struct exchange_type *type, bool delayed, bool durable, bool auto_delete,
                               bool internal, struct slice args)
{
    struct exchange *old = map_get(&vhost->exchanges, name), *x = mem_zalloc(sizeof *x);
    if (!x)
        return NULL;
    if (old)
        exchange_delete(b, old); /* what is left of it */
    if (!slice_keep(&x->name, name) || !slice_keep(&x->args, args) || !map_put(&vhost->exchanges, x->name, x)) {
        slice_drop(&x->name);
        slice_drop(&x->args);
        mem_free(x);
        return NULL;
    }
    x->vhost = vhost;
    x->type = type;
    x->delayed = delayed;
    x->durable = durable;
    x->auto_delete = auto_delete;
    x->internal = internal;
    list_init(&x->sources);
    list_init(&x->targets);
    list_init(&x->mqtt_clients);
    list_init(&x->dying_link);
    map_init(&x->keys, vhost->exchanges.seed + 1);
    object_add(b, &x->object, OBJ_EXCHANGE, durable);
    b->totals.exchanges++;
    policy_apply_exchange(b, x);
    return x;
}

bool exchange_make_defaults(struct broker *b, struct vhost *vhost)
{
    static const struct {
        const char *name, *type;
        bool internal;
    } defaults[] = {{"", "direct", false},
                    {"amq.direct", "direct", false},
                    {"amq.fanout", "fanout", false},
                    {"amq.topic", "topic", false},
                    {"amq.headers", "headers", false},
                    {"amq.match", "headers", false},
                    {"amq.rabbitmq.trace", "topic", true}};
    for (size_t i = 0; i < ARRAY_LEN(defaults); i++) {
        struct slice name = slice_str(defaults[i].name);
        const struct exchange_type *type = exchange_type_find(slice_str(defaults[i].type));
        if (exchange_find(vhost, name))
            continue;
        struct exchange *x =
            exchange_make(b, vhost, name, type, false, true, false, defaults[i].internal, (struct slice){0});
        if (!x)
            return false;
        x->object.journalled = false; /* they come with the vhost */
    }
    return true;
}

/* ---- bindings ---- */

static bool identity_write(struct writer *w, const struct exchange *source, const struct queue *queue,
                           const struct exchange *exchange, struct slice key, struct slice args)
{
    writer_str8(w, source->name);
    writer_u8(w, queue ? 'q' : exchange ? 'x' : 't'); /* an audience has no name: there is one for each pattern */
    writer_str8(w, queue ? queue->name : exchange ? exchange->name : (struct slice){0});
    writer_str8(w, key);
    writer_slice_put(w, args);
    return writer_ok(w);
}

bool binding_find(struct vhost *vhost, struct exchange *source, struct queue *queue, struct exchange *exchange,
                  struct slice key, struct slice args, struct binding **ret)
{
    size_t max = 4 * 256 + 1 + args.len;
    uint8_t small[2048], *raw = max <= sizeof small ? small : mem_alloc(max);
    if (!raw)
        return false;
    struct writer w = writer_of(raw, max);
    *ret = NULL;
    if (identity_write(&w, source, queue, exchange, key, args))
        *ret = map_get(&vhost->bindings, writer_slice(&w));
    if (raw != small)
        mem_free(raw);
    return true;
}

bool binding_make(struct broker *b, struct exchange *source, struct queue *queue, struct exchange *exchange,
                  struct slice key, struct slice args, struct binding **ret_new)
{
    struct vhost *vhost = source->vhost;
    struct binding *there;
    *ret_new = NULL;
    if (!binding_find(vhost, source, queue, exchange, key, args, &there))
        return false;
    if (there)
        return true;
    size_t target_len = queue ? queue->name.len : exchange ? exchange->name.len : 0;
    size_t len = 4 + source->name.len + target_len + key.len + args.len;
    struct binding *binding = mem_alloc(sizeof *binding + len);
    if (!binding || !map_reserve(&vhost->bindings)) {
        mem_free(binding);
        return false;
    }
    *binding = (struct binding){.source = source, .queue = queue, .exchange = exchange};
    struct writer w = writer_of(binding + 1, len);
    CHECK(identity_write(&w, source, queue, exchange, key, args) && w.len == len);
    binding->identity = writer_slice(&w);
    binding->key = slice_of(w.base + len - args.len - key.len, key.len);
    binding->args = slice_of(w.base + len - args.len, args.len);
    list_init(&binding->bucket_link);
    if (!source->type->index_add(source, binding)) {
        mem_free(binding);
        return false;
    }
    if (!stream_bound(b, binding)) {
        source->type->index_remove(source, binding);
        mem_free(binding);
        return false;
    }
    char why[ERROR_TEXT_MAX]; /* of who binds it has been asked; what the journal says was right then */
    if (selector_of(binding->args, &binding->selector, why, sizeof why) == SELECTOR_NO_MEMORY) {
        stream_unbound(b, binding);
        source->type->index_remove(source, binding);
        mem_free(binding);
        return false;
    }
    CHECK(map_put(&vhost->bindings, binding->identity, binding));
    list_insert(&source->sources, &binding->source_link);
    list_init(&binding->target_link);
    if (queue || exchange)
        list_insert(queue ? &queue->targets : &exchange->targets, &binding->target_link);
    source->binding_count++;
    source->selecting += binding->selector != NULL;
    source->was_bound = true;
    bool target_durable = queue ? queue->object.journalled : exchange && exchange->durable;
    list_init(&binding->object.link);
    binding->object.kind = OBJ_BINDING;
    if (queue || exchange)
        object_add(b, &binding->object, OBJ_BINDING, source->durable && target_durable);
    b->totals.bindings++;
    *ret_new = binding;
    return true;
}

lsn_t binding_log(struct broker *b, struct binding *fresh)
{
    lsn_t lsn = log_object(b, &fresh->object), cursor = stream_log_cursor(b, fresh);
    return cursor ? cursor : lsn;
}

void binding_delete(struct broker *b, struct binding *binding, bool may_delete)
{
    struct exchange *source = binding->source;
    stream_unbound(b, binding);
    audience_binding_gone(b, binding);
    source->type->index_remove(source, binding);
    map_take(&source->vhost->bindings, binding->identity);
    list_remove(&binding->source_link);
    list_remove(&binding->target_link);
    source->binding_count--;
    source->selecting -= binding->selector != NULL;
    object_remove(b, &binding->object);
    selector_free(&binding->selector);
    mem_free(binding);
    b->totals.bindings--;
    if (may_delete && source->auto_delete && list_empty(&source->sources))
        exchange_unbound(b, source);
}

/* ---- commands ---- */

static bool is_default(struct broker *b, struct peer *peer, struct command *c, struct slice name)
{
    if (name.len)
        return false;
    fail(b, peer, c->channel, c->origin, ERR_ACCESS_REFUSED, "operation not permitted on the default exchange");
    return true;
}

static bool differs(struct broker *b, struct peer *peer, struct command *c, const char *what, const char *asked,
                    const char *current)
{
    if (strcmp(asked, current) == 0)
        return false;
    fail(b, peer, c->channel, c->origin, ERR_PRECONDITION_FAILED,
         "inequivalent arg '%s' for exchange '%.*s' in vhost '%.*s': received '%s' but current is '%s'", what,
         SLICE_ARG(c->ask->name), SLICE_ARG(peer->vhost->name), asked, current);
    return true;
}

static const char *yes_no(bool value)
{
    return value ? "true" : "false";
}

static bool equivalent(struct broker *b, struct peer *peer, struct command *c, struct exchange *x, const char *type)
{
    char text[ERROR_TEXT_MAX];
    uint32_t flags = c->ask->flags;
    if (differs(b, peer, c, "type", type, type_name(x)) ||
        differs(b, peer, c, "durable", yes_no(flags & ASK_DURABLE), yes_no(x->durable)) ||
        differs(b, peer, c, "auto_delete", yes_no(flags & ASK_AUTO_DELETE), yes_no(x->auto_delete)) ||
        differs(b, peer, c, "internal", yes_no(flags & ASK_INTERNAL), yes_no(x->internal)))
        return false;
    if (args_equivalent("exchange", x->name, x->vhost->name, c->ask->args, x->args, exchange_arg_keys, text,
                        sizeof text))
        return true;
    fail(b, peer, c->channel, c->origin, ERR_PRECONDITION_FAILED, "%s", text);
    return false;
}

/* The source of a stream comes with it. */
const struct exchange_type *exchange_type_for_clients(struct slice name)
{
    const struct exchange_type *type = exchange_type_find(name);
    return type && type->match == stream_match ? NULL : type;
}

/* The type that routes, and whether messages are delayed first. NULL: reported. */
static const struct exchange_type *type_of_declare(struct broker *b, struct peer *peer, struct command *c,
                                                   bool *ret_delayed)
{
    struct amqp_value v;
    *ret_delayed = slice_is(c->ask->other, "x-delayed-message");
    if (!*ret_delayed) {
        const struct exchange_type *type = exchange_type_for_clients(c->ask->other);
        if (!type)
            fail(b, peer, c->channel, c->origin, ERR_PRECONDITION_FAILED, "unknown exchange type '%.*s'",
                 SLICE_ARG(c->ask->other));
        return type;
    }
    const struct exchange_type *type = NULL;
    if (amqp_table_find(c->ask->args, "x-delayed-type", &v) && amqp_value_is_str(&v))
        type = exchange_type_for_clients(v.s);
    if (!type)
        fail(b, peer, c->channel, c->origin, ERR_PRECONDITION_FAILED,
             "Invalid argument, 'x-delayed-type' must be an existing exchange type");
    return type;
}

static bool alternate_allowed(struct broker *b, struct peer *peer, struct command *c)
{
    struct amqp_value v;
    if (!amqp_table_find(c->ask->args, "alternate-exchange", &v))
        return true;
    if (!amqp_value_is_str(&v)) {
        fail(b, peer, c->channel, c->origin, ERR_PRECONDITION_FAILED,
             "invalid type '%s' for arg 'alternate-exchange' in exchange '%.*s' in vhost '%.*s'",
             amqp_type_name(v.type), SLICE_ARG(c->ask->name), SLICE_ARG(peer->vhost->name));
        return false;
    }
    return allowed(b, peer, c, VERB_READ, "exchange", c->ask->name) && allowed(b, peer, c, VERB_WRITE, "exchange", v.s);
}

static bool hash_args_right(struct broker *b, struct peer *peer, struct command *c, const struct exchange_type *type)
{
    struct amqp_value header, property;
    bool has_header = amqp_table_find(c->ask->args, "hash-header", &header);
    bool has_property = amqp_table_find(c->ask->args, "hash-property", &property);
    if (type->match != hash_match || !has_property)
        return true;
    if (has_header)
        fail(b, peer, c->channel, c->origin, ERR_PRECONDITION_FAILED,
             "hash-header and hash-property are mutually exclusive");
    else if (!amqp_value_is_str(&property) || !property_known(property.s))
        fail(b, peer, c->channel, c->origin, ERR_PRECONDITION_FAILED, "Unsupported property: %.*s",
             SLICE_ARG(amqp_value_is_str(&property) ? property.s : slice_str("not a string")));
    else
        return true;
    return false;
}

static void declare_new(struct broker *b, struct peer *peer, struct command *c, const struct exchange_type *type,
                        bool delayed)
{
    if (!hash_args_right(b, peer, c, type))
        return;
    struct slice name = c->ask->name;
    uint32_t flags = c->ask->flags;
    if (slice_starts(name, "amq.")) {
        fail(b, peer, c->channel, c->origin, ERR_ACCESS_REFUSED,
             "exchange name '%.*s' contains reserved prefix 'amq.*'", SLICE_ARG(name));
        return;
    }
    if (!alternate_allowed(b, peer, c))
        return;
    struct exchange *x = log_reserve(b, name.len + c->ask->args.len + 1024, 1)
                             ? exchange_make(b, peer->vhost, name, type, delayed, flags & ASK_DURABLE,
                                             flags & ASK_AUTO_DELETE, flags & ASK_INTERNAL, c->ask->args)
                             : NULL;
    if (!x) {
        no_memory(b, peer, c->channel, c->origin);
        return;
    }
    answer_ok(b, peer, c, log_object(b, &x->object), (struct slice){0}, 0, 0);
}

void do_exchange_declare(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    (void)ch;
    struct slice name = c->ask->name;
    struct exchange *x = exchange_find(peer->vhost, name);
    if (is_default(b, peer, c, name))
        return;
    if (c->ask->flags & ASK_PASSIVE) {
        if (!x)
            fail(b, peer, c->channel, c->origin, ERR_NOT_FOUND, "no exchange '%.*s' in vhost '%.*s'", SLICE_ARG(name),
                 SLICE_ARG(peer->vhost->name));
        else
            answer_ok(b, peer, c, 0, (struct slice){0}, 0, 0);
        return;
    }
    bool delayed = false;
    const struct exchange_type *type = type_of_declare(b, peer, c, &delayed);
    if (!type || !allowed(b, peer, c, VERB_CONFIGURE, "exchange", name))
        return;
    if (!x)
        declare_new(b, peer, c, type, delayed);
    else if (equivalent(b, peer, c, x, delayed ? "x-delayed-message" : type->name))
        answer_ok(b, peer, c, 0, (struct slice){0}, 0, 0);
}

void do_exchange_delete(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    (void)ch;
    struct slice name = c->ask->name;
    if (is_default(b, peer, c, name))
        return;
    if (slice_starts(name, "amq.")) {
        fail(b, peer, c->channel, c->origin, ERR_ACCESS_REFUSED,
             "deletion of system exchange '%.*s' in vhost '%.*s' not allowed", SLICE_ARG(name),
             SLICE_ARG(peer->vhost->name));
        return;
    }
    if (!allowed(b, peer, c, VERB_CONFIGURE, "exchange", name))
        return;
    struct exchange *x = exchange_find(peer->vhost, name);
    lsn_t lsn = 0;
    if (x && (c->ask->flags & ASK_IF_UNUSED) && !list_empty(&x->sources)) {
        fail(b, peer, c->channel, c->origin, ERR_PRECONDITION_FAILED, "exchange '%.*s' in vhost '%.*s' in use",
             SLICE_ARG(name), SLICE_ARG(peer->vhost->name));
        return;
    }
    if (x) {
        if (!log_object_reserve(b, &x->object)) {
            no_memory(b, peer, c->channel, c->origin);
            return;
        }
        lsn = log_object_gone(b, &x->object);
        exchange_delete_begin(b, x);
    }
    answer_ok(b, peer, c, lsn, (struct slice){0}, 0, 0);
}

/* ---- bind and unbind, of queues and of exchanges ---- */

struct bind_call {
    struct broker *b;
    struct peer *peer;
    struct channel *ch;
    struct command *c;
    bool to_queue, add;
    struct slice target, source, key;
    struct exchange *x, *dest;
    struct queue *q;
    struct binding *binding; /* that is there already */
};

static bool target_is_named(struct bind_call *call)
{
    if (!call->to_queue || call->target.len)
        return true;
    if (call->ch->last_queue.len == 0) {
        fail(call->b, call->peer, call->c->channel, call->c->origin, ERR_NOT_FOUND, "no previously declared queue");
        return false;
    }
    call->target = call->ch->last_queue;
    if (call->key.len == 0)
        call->key = call->target;
    return true;
}

static bool target_is_writable(struct bind_call *call)
{
    return allowed(call->b, call->peer, call->c, VERB_WRITE, call->to_queue ? "queue" : "exchange", call->target) &&
           (call->to_queue || !is_default(call->b, call->peer, call->c, call->target));
}

static bool source_is_readable(struct bind_call *call)
{
    return !is_default(call->b, call->peer, call->c, call->source) &&
           allowed(call->b, call->peer, call->c, VERB_READ, "exchange", call->source);
}

static bool topic_is_readable(struct bind_call *call)
{
    struct peer *peer = call->peer;
    call->x = exchange_find(peer->vhost, call->source);
    if (!call->x || !call->x->type->by_topic || authorise_topic(call->b, peer->user, call->x, VERB_READ, call->key))
        return true;
    fail(call->b, peer, call->c->channel, call->c->origin, ERR_ACCESS_REFUSED,
         "read access to topic '%.*s' in exchange '%.*s' in vhost '%.*s' refused for user '%.*s'", SLICE_ARG(call->key),
         SLICE_ARG(call->source), SLICE_ARG(peer->vhost->name), SLICE_ARG(peer->user->name));
    return false;
}

/* What is not bound needs no unbinding, whatever else is wrong. */
static bool unbinding_has_an_object(struct bind_call *call)
{
    struct vhost *vhost = call->peer->vhost;
    call->q = call->to_queue ? queue_find(vhost, call->target) : NULL;
    call->dest = call->to_queue ? NULL : exchange_find(vhost, call->target);
    bool both = call->x && (call->q || call->dest);
    if (both && !binding_find(vhost, call->x, call->q, call->dest, call->key, call->c->ask->args, &call->binding)) {
        no_memory(call->b, call->peer, call->c->channel, call->c->origin);
        return false;
    }
    if (call->add || call->binding)
        return true;
    answer_ok(call->b, call->peer, call->c, 0, (struct slice){0}, 0, 0);
    return false;
}

static bool both_exist(struct bind_call *call)
{
    if (call->x && (call->q || call->dest))
        return true;
    fail(call->b, call->peer, call->c->channel, call->c->origin, ERR_NOT_FOUND, "no %s '%.*s' in vhost '%.*s'",
         call->x && call->to_queue ? "queue" : "exchange", SLICE_ARG(call->x ? call->target : call->source),
         SLICE_ARG(call->peer->vhost->name));
    return false;
}

static bool target_is_not_locked(struct bind_call *call)
{
    if (!call->q || !queue_locked(call->q, call->peer))
        return true;
    fail_locked(call->b, call->peer, call->c, call->target);
    return false;
}

static bool type_takes_it(struct bind_call *call)
{
    char text[ERROR_TEXT_MAX];
    const struct exchange_type *type = call->x->type;
    if (!call->add || !type->binding_valid || type->binding_valid(call->key, call->c->ask->args, text, sizeof text))
        return true;
    fail(call->b, call->peer, call->c->channel, call->c->origin, ERR_PRECONDITION_FAILED, "%s", text);
    return false;
}

static bool stream_takes_it(struct bind_call *call)
{
    char text[ERROR_TEXT_MAX];
    if (!call->add || stream_bind_allowed(call->b, call->x, call->c->ask->args, call->q, text, sizeof text))
        return true;
    fail(call->b, call->peer, call->c->channel, call->c->origin, ERR_PRECONDITION_FAILED, "%s", text);
    return false;
}

static bool selector_is_one(struct bind_call *call)
{
    char why[ERROR_TEXT_MAX];
    struct selector *s;
    enum selector_found found = call->add ? selector_of(call->c->ask->args, &s, why, sizeof why) : SELECTOR_NONE;
    if (found == SELECTOR_OK)
        selector_free(&s);
    if (found == SELECTOR_OK && !call->binding && call->x->selecting >= SELECTING_MAX)
        snprintf(why, sizeof why, "the exchange has %u with one", SELECTING_MAX);
    else if (found != SELECTOR_WRONG)
        return true; /* without memory binding_make says so */
    fail(call->b, call->peer, call->c->channel, call->c->origin, ERR_PRECONDITION_FAILED,
         "invalid arg '" SELECTOR_ARG "' of a binding: %s", why);
    return false;
}

/* In the order in which RabbitMQ finds fault. Each answers when it says no. */
static bool (*const bind_checks[])(struct bind_call *call) = {
    target_is_named, target_is_writable,   source_is_readable, topic_is_readable, unbinding_has_an_object,
    both_exist,      target_is_not_locked, type_takes_it,      stream_takes_it,   selector_is_one,
};

static void binding_command(struct broker *b, struct peer *peer, struct channel *ch, struct command *c, bool to_queue,
                            bool add)
{
    struct bind_call call = {.b = b,
                             .peer = peer,
                             .ch = ch,
                             .c = c,
                             .to_queue = to_queue,
                             .add = add,
                             .target = c->ask->name,
                             .source = c->ask->other,
                             .key = c->ask->key};
    for (size_t i = 0; i < ARRAY_LEN(bind_checks); i++)
        if (!bind_checks[i](&call))
            return;
    struct binding *fresh = NULL;
    struct slice args = c->ask->args;
    if (!log_reserve(b, call.key.len + args.len + 2048 + 64 * stream_cursor_records(call.x),
                     2 + stream_cursor_records(call.x)) ||
        (add && !call.binding && !binding_make(b, call.x, call.q, call.dest, call.key, args, &fresh))) {
        no_memory(b, peer, c->channel, c->origin);
        return;
    }
    lsn_t lsn = fresh ? binding_log(b, fresh) : 0;
    if (!add) {
        lsn = log_object_gone(b, &call.binding->object);
        binding_delete(b, call.binding, true);
    }
    answer_ok(b, peer, c, lsn, (struct slice){0}, 0, 0);
}

void do_queue_bind(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    binding_command(b, peer, ch, c, true, true);
}

void do_queue_unbind(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    binding_command(b, peer, ch, c, true, false);
}

void do_exchange_bind(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    binding_command(b, peer, ch, c, false, true);
}

void do_exchange_unbind(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    binding_command(b, peer, ch, c, false, false);
}
