/* Retained values: the trie, its nodes' table, values, and what the journal knows of them. See retained.h.
 *
 * A million topics with small values are what this is made for, so a value costs one node, one block and one place in a
 * table: about 150 bytes. Nodes know parent and siblings; a child is found by its word in one hash table of all nodes, keyed by
 * (parent, word). The table grows and shrinks by one bucket at a time (linear hashing): no insertion ever waits for a million
 * others to be placed anew. Buckets lie in blocks, so that they do not move either.
 *
 *   V1  every node but a root has a value, a child or a pin.
 *   V2  a value is in the journal unless its exchange is not durable or its key begins with "$SYS.".
 *   V3  count, bytes and expiring are sums over the values; nodes counts those in the table.
 *
 * Values that have expired are not shown; a pass through all of them now and then takes them out. The journal need not know:
 * it has the time.
 */
#include "core/retained_int.h"

#include "core/records.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#define BLOCK_BITS 10u
#define BLOCK (1u << BLOCK_BITS)
#define ALLOC_COST 8u /* of the allocator, for each block */
#define COUNT_MAX_DEFAULT 10000000u
#define BYTES_MAX_DEFAULT (2ull << 30)
#define SWEEP_NS (60 * NS_PER_S)
#define SWEEP_NODES 512u
#define DOOMED_NODES 1024u

/* ---- the table of nodes ---- */

static uint32_t hash_of(const struct retained_store *store, const struct retained_node *parent, struct slice word)
{
    return (uint32_t)XXH3_64bits_withSeed(word.ptr, word.len, store->seed ^ (uintptr_t)parent * 0x9e3779b97f4a7c15u);
}

/* With n buckets those below 2^k ≤ n are split as far as n goes. */
static uint32_t bucket_of(uint32_t hash, uint32_t buckets)
{
    uint32_t high = buckets > 1 ? 1u << (31 - __builtin_clz(buckets)) : 1;
    uint32_t i = hash & (2 * high - 1);
    return i < buckets ? i : hash & (high - 1);
}

static struct retained_node **bucket_at(const struct retained_store *store, uint32_t i)
{
    return &store->table[i >> BLOCK_BITS][i & (BLOCK - 1)];
}

static struct slice word_of(const struct retained_node *node)
{
    return slice_of(node->word, node->len);
}

/* One bucket more, into which half of another's go. False: no memory. */
static bool table_grow(struct retained_store *store)
{
    uint32_t i = store->buckets;
    if ((i & (BLOCK - 1)) == 0) {
        uint32_t block = i >> BLOCK_BITS;
        if (block == store->table_max) {
            uint32_t max = store->table_max ? store->table_max * 2 : 4;
            struct retained_node ***grown = mem_realloc(store->table, max * sizeof(struct retained_node **));
            if (!grown)
                return false;
            store->table = grown;
            store->table_max = max;
        }
        store->table[block] = mem_zalloc(BLOCK * sizeof(struct retained_node *));
        if (!store->table[block])
            return false;
    }
    store->buckets++;
    uint32_t from = i ? bucket_of(i, i) : 0; /* where it would have been found so far */
    struct retained_node **at = bucket_at(store, from), **to = bucket_at(store, i);
    *to = i ? NULL : *to;
    while (i && *at) {
        struct retained_node *node = *at;
        if (bucket_of(hash_of(store, node->parent, word_of(node)), store->buckets) != i) {
            at = &node->chain;
            continue;
        }
        *at = node->chain;
        node->chain = *to;
        *to = node;
    }
    return true;
}

static void table_shrink(struct retained_store *store)
{
    uint32_t i = store->buckets - 1;
    if (i == 0 || store->nodes >= store->buckets / 4)
        return;
    struct retained_node **last = bucket_at(store, i), *node;
    store->buckets--;
    while ((node = *last)) {
        struct retained_node **to = bucket_at(store, bucket_of(hash_of(store, node->parent, word_of(node)), i));
        *last = node->chain;
        node->chain = *to;
        *to = node;
    }
    if ((i & (BLOCK - 1)) == 0)
        mem_free(store->table[i >> BLOCK_BITS]);
}

struct retained_node *retained_child(const struct retained_store *store, struct retained_node *parent,
                                     struct slice word)
{
    if (!parent->children)
        return NULL;
    struct retained_node *node = *bucket_at(store, bucket_of(hash_of(store, parent, word), store->buckets));
    while (node && (node->parent != parent || !slice_equal(word_of(node), word)))
        node = node->chain;
    return node;
}

/* ---- nodes ---- */

static size_t node_bytes(size_t word_len)
{
    return offsetof(struct retained_node, word) + word_len;
}

static struct retained_node *node_add(struct retained_store *store, struct retained_node *parent, struct slice word)
{
    if (store->nodes >= store->buckets && !table_grow(store))
        return NULL;
    struct retained_node *node = mem_zalloc_as(MEM_RETAINED, node_bytes(word.len));
    if (!node)
        return NULL;
    node->parent = parent;
    node->len = (uint8_t)word.len;
    if (word.len)
        memcpy(node->word, word.ptr, word.len);
    node->next = parent->children;
    if (node->next)
        node->next->prev = node;
    parent->children = node;
    struct retained_node **bucket = bucket_at(store, bucket_of(hash_of(store, parent, word), store->buckets));
    node->chain = *bucket;
    *bucket = node;
    store->nodes++;
    store->bytes += node_bytes(word.len) + ALLOC_COST;
    return node;
}

static void node_free(struct retained_store *store, struct retained_node *node)
{
    struct retained_node **at =
        bucket_at(store, bucket_of(hash_of(store, node->parent, word_of(node)), store->buckets));
    while (*at != node)
        at = &(*at)->chain;
    *at = node->chain;
    if (node->prev)
        node->prev->next = node->next;
    else
        node->parent->children = node->next;
    if (node->next)
        node->next->prev = node->prev;
    store->nodes--;
    store->bytes -= node_bytes(node->len) + ALLOC_COST;
    mem_free_as(MEM_RETAINED, node);
    table_shrink(store);
}

/* The node and what stands above it, as far as nothing needs them. */
static void prune(struct retained_store *store, struct retained_node *node)
{
    while (node->parent && !node->value && !node->children && !node->pins) {
        struct retained_node *parent = node->parent;
        node_free(store, node);
        node = parent;
    }
}

void retained_pin(struct retained_node *node)
{
    node->pins++;
}

void retained_unpin(struct retained_store *store, struct retained_node *node)
{
    node->pins--;
    prune(store, node);
}

/* ---- values ---- */

wall_t retained_deadline(const struct retained_value *value)
{
    wall_t deadline = WALL_NEVER;
    if (value->flags & RETAINED_EXPIRES)
        memcpy(&deadline, value->bytes, sizeof deadline);
    return deadline;
}

static size_t time_len(const struct retained_value *value)
{
    return value->flags & RETAINED_EXPIRES ? sizeof(wall_t) : 0;
}

struct slice retained_props(const struct retained_value *value)
{
    return slice_of(value->bytes + time_len(value), value->props_len);
}

struct slice retained_body(const struct retained_value *value)
{
    return slice_of(value->bytes + time_len(value) + value->props_len, value->body_len);
}

static size_t value_bytes(const struct retained_value *value)
{
    return offsetof(struct retained_value, bytes) + time_len(value) + value->props_len + value->body_len;
}

static struct retained_value *value_make(struct slice props, struct slice body, wall_t deadline, uint8_t flags)
{
    struct retained_value head = {.props_len = (uint32_t)props.len, .body_len = (uint32_t)body.len};
    head.flags = (uint8_t)(flags | RETAINED_THERE | (deadline != WALL_NEVER ? RETAINED_EXPIRES : 0));
    struct retained_value *value = mem_alloc_as(MEM_RETAINED, value_bytes(&head));
    if (!value)
        return NULL;
    memcpy(value, &head, offsetof(struct retained_value, bytes));
    if (deadline != WALL_NEVER)
        memcpy(value->bytes, &deadline, sizeof deadline);
    uint8_t *at = value->bytes + time_len(value);
    if (props.len)
        memcpy(at, props.ptr, props.len);
    if (body.len)
        memcpy(at + props.len, body.ptr, body.len);
    return value;
}

static void value_counts(struct retained_store *store, const struct retained_value *value, bool comes)
{
    uint64_t bytes = value_bytes(value) + ALLOC_COST, expires = value->flags & RETAINED_EXPIRES ? 1 : 0;
    store->count += comes ? 1 : -1ull;
    store->bytes += comes ? bytes : -bytes;
    store->expiring += comes ? expires : -expires;
}

static void value_take(struct retained_store *store, struct retained_node *node)
{
    if (!node->value)
        return;
    value_counts(store, node->value, false);
    mem_free_as(MEM_RETAINED, node->value);
    node->value = NULL;
}

void retained_value_drop(struct retained_store *store, struct retained_node *node)
{
    value_take(store, node);
    prune(store, node);
}

static void value_put(struct retained_store *store, struct retained_node *node, struct retained_value *value)
{
    value_take(store, node);
    node->value = value;
    value_counts(store, value, true);
}

struct slice retained_key(const struct retained_node *node, uint8_t room[256])
{
    size_t at = 256;
    for (bool last = true; node->parent; node = node->parent, last = false) {
        if (!last)
            room[--at] = '.';
        CHECK(at >= node->len);
        at -= node->len;
        memcpy(room + at, node->word, node->len);
    }
    return slice_of(room + at, 256 - at);
}

struct msg *retained_msg(struct broker *b, const struct retained_tree *tree, const struct retained_node *node)
{
    uint8_t room[256];
    const struct retained_value *value = node->value;
    struct slice body = retained_body(value);
    struct msg *msg =
        msg_new(&b->heap, tree->exchange->name, retained_key(node, room), retained_props(value), body.len);
    if (!msg)
        return NULL;
    wall_t deadline = retained_deadline(value);
    msg->flags = (uint8_t)((value->flags & RETAINED_PERSISTENT ? MSG_PERSISTENT : 0) |
                           (value->flags & RETAINED_HEADERS ? MSG_HAS_HEADERS : 0));
    msg->expiration_ms = deadline == WALL_NEVER ? -1 : deadline > b->wall ? deadline - b->wall : 0;
    if (body.len)
        memcpy(msg_body_room(msg), body.ptr, body.len);
    return msg;
}

/* ---- trees ---- */

/* Words are cut as the topic exchange does. */
static bool next_word(struct slice *rest, bool *more, struct slice *ret)
{
    if (!*more)
        return false;
    const uint8_t *dot = rest->len ? memchr(rest->ptr, '.', rest->len) : NULL;
    size_t len = dot ? (size_t)(dot - rest->ptr) : rest->len;
    *ret = slice_of(rest->ptr, len);
    *more = dot != NULL;
    *rest = dot ? slice_of(dot + 1, rest->len - len - 1) : (struct slice){0};
    return true;
}

static struct retained_node *find(const struct retained_store *store, struct retained_node *node, struct slice key)
{
    struct slice word;
    bool more = key.len > 0;
    while (node && next_word(&key, &more, &word))
        node = retained_child(store, node, word);
    return node;
}

/* The node of the key, with those above it. NULL: no memory, and what was made for it is gone again. */
static struct retained_node *reach(struct retained_store *store, struct retained_node *node, struct slice key)
{
    struct slice word;
    bool more = key.len > 0;
    while (next_word(&key, &more, &word)) {
        struct retained_node *down = retained_child(store, node, word);
        if (!down)
            down = node_add(store, node, word);
        if (!down) {
            prune(store, node);
            return NULL;
        }
        node = down;
    }
    return node;
}

static struct retained_tree *tree_of(struct broker *b, struct exchange *x)
{
    if (x->retained)
        return x->retained;
    struct retained_tree *tree = mem_zalloc_as(MEM_RETAINED, sizeof *tree);
    if (!tree)
        return NULL;
    tree->exchange = x;
    list_insert(&b->mqtt.retained.trees, &tree->link);
    x->retained = tree;
    return tree;
}

/* Some nodes of it; with the last goes the tree. Nobody stands on any. */
void retained_tree_free_some(struct retained_store *store, struct retained_tree *tree, unsigned *budget)
{
    struct retained_node *node = &tree->root;
    while (*budget) {
        while (node->children)
            node = node->children;
        if (!node->parent) {
            value_take(store, node);
            list_remove(&tree->link);
            mem_free_as(MEM_RETAINED, tree);
            return;
        }
        struct retained_node *parent = node->parent;
        value_take(store, node);
        node_free(store, node);
        node = parent;
        --*budget;
    }
}

void retained_exchange_gone(struct broker *b, struct exchange *x)
{
    struct retained_store *store = &b->mqtt.retained;
    struct retained_tree *tree = x->retained;
    if (!tree)
        return;
    x->retained = NULL;
    retained_pass_leaves(store, &store->snapshot, tree);
    retained_pass_leaves(store, &store->sweep, tree);
    tree->exchange = NULL;
    list_remove(&tree->link);
    list_insert(&store->doomed, &tree->link);
}

/* ---- changes ---- */

/* The properties without MQTT_HEADER_RETAIN, which would say again what is known. False: no memory. */
static bool props_without_retain(const struct msg *msg, uint8_t *small, size_t small_len, uint8_t **ret_owned,
                                 struct slice *ret, bool *ret_headers)
{
    struct amqp_props props;
    struct amqp_value v;
    *ret_owned = NULL;
    *ret = msg_props(msg);
    *ret_headers = msg->flags & MSG_HAS_HEADERS;
    if (!*ret_headers || !amqp_props_parse(*ret, &props) || !amqp_table_find(props.headers, MQTT_HEADER_RETAIN, &v))
        return true;
    size_t max = props.headers.len + amqp_props_len_max(&props);
    uint8_t *raw = max <= small_len ? small : (*ret_owned = mem_alloc(max));
    if (!raw)
        return false;
    struct writer w = writer_of(raw, props.headers.len);
    struct reader r = reader_of(props.headers);
    struct amqp_field field;
    while (amqp_table_next(&r, &field))
        if (!slice_is(field.name, MQTT_HEADER_RETAIN))
            amqp_put_field(&w, field.name, &field.value);
    props.headers = writer_slice(&w);
    *ret_headers = w.len > 0;
    if (!w.len)
        props.present &= (uint16_t)~AMQP_HEADERS;
    struct writer all = writer_of(raw + w.len, max - w.len);
    amqp_props_write(&all, &props);
    CHECK(writer_ok(&w) && writer_ok(&all));
    *ret = writer_slice(&all);
    return true;
}

static enum retained_result make_value(struct broker *b, struct exchange *x, const struct msg *msg,
                                       struct retained_value **ret)
{
    uint8_t small[512], *owned;
    struct slice props;
    bool headers, said = x->durable && !slice_starts(msg_key(msg), "$SYS.");
    if (!props_without_retain(msg, small, sizeof small, &owned, &props, &headers))
        return RETAINED_NO_MEMORY;
    uint8_t flags = (uint8_t)((msg->flags & MSG_PERSISTENT ? RETAINED_PERSISTENT : 0) |
                              (headers ? RETAINED_HEADERS : 0) | (said ? 0 : RETAINED_UNSAID));
    wall_t deadline = msg->expiration_ms < 0 ? WALL_NEVER : b->wall + msg->expiration_ms;
    *ret = value_make(props, msg_body(msg), deadline, flags);
    mem_free(owned);
    return *ret ? RETAINED_OK : RETAINED_NO_MEMORY;
}

enum retained_result retained_prepare(struct broker *b, struct exchange *x, const struct msg *msg,
                                      struct retained_change *ret)
{
    struct retained_store *store = &b->mqtt.retained;
    *ret = (struct retained_change){0};
    if (!msg->key_len)
        return RETAINED_OK;
    if (!msg->body_len) {
        struct retained_node *node = x->retained ? find(store, &x->retained->root, msg_key(msg)) : NULL;
        if (node && node->value)
            *ret = (struct retained_change){.exchange = x, .node = node};
        return RETAINED_OK;
    }
    struct retained_tree *tree = tree_of(b, x);
    struct retained_value *value;
    if (!tree || make_value(b, x, msg, &value))
        return RETAINED_NO_MEMORY;
    struct retained_node *node = reach(store, &tree->root, msg_key(msg));
    if (!node) {
        mem_free_as(MEM_RETAINED, value);
        return RETAINED_NO_MEMORY;
    }
    *ret = (struct retained_change){.exchange = x, .node = node, .value = value};
    uint64_t old = node->value ? value_bytes(node->value) : 0, fresh = value_bytes(value);
    if ((!node->value && store->count >= b->options.retained_max) ||
        (fresh > old && store->bytes + fresh - old > b->options.retained_bytes_max)) {
        retained_abort(b, ret);
        return RETAINED_FULL;
    }
    return RETAINED_OK;
}

void retained_abort(struct broker *b, struct retained_change *change)
{
    mem_free_as(MEM_RETAINED, change->value);
    if (change->node)
        prune(&b->mqtt.retained, change->node);
    *change = (struct retained_change){0};
}

size_t retained_record_bytes(const struct exchange *x, const struct retained_value *value)
{
    return 64 + x->vhost->name.len + x->name.len + 256 + (value ? value->props_len + (size_t)value->body_len : 0);
}

size_t retained_log_bytes(const struct retained_change *change)
{
    return change->node ? retained_record_bytes(change->exchange, change->value) : 0;
}

/* value NULL: it is gone. */
lsn_t retained_log(struct broker *b, const struct exchange *x, struct slice key, const struct retained_value *value)
{
    if (b->recovering || !log_reserve(b, retained_record_bytes(x, value), 1))
        return 0;
    struct writer w = writer_of(b->scratch.bytes, b->scratch.max);
    writer_u8(&w, REC_RETAINED);
    writer_str8(&w, x->vhost->name);
    writer_str8(&w, x->name);
    writer_str8(&w, key);
    wall_t deadline = value ? retained_deadline(value) : WALL_NEVER;
    writer_varint(&w, deadline == WALL_NEVER ? 0 : (uint64_t)deadline);
    writer_u8(&w, value ? value->flags & (RETAINED_THERE | RETAINED_PERSISTENT | RETAINED_HEADERS) : 0);
    if (value)
        writer_u32(&w, value->props_len);
    CHECK(writer_ok(&w));
    struct slice parts[] = {writer_slice(&w), value ? retained_props(value) : (struct slice){0},
                            value ? retained_body(value) : (struct slice){0}};
    return log_record(b, parts, 3);
}

lsn_t retained_commit(struct broker *b, struct retained_change *change)
{
    struct retained_store *store = &b->mqtt.retained;
    struct retained_node *node = change->node;
    uint8_t room[256];
    if (!node)
        return 0;
    const struct retained_value *said = change->value ? change->value : node->value;
    lsn_t lsn =
        said->flags & RETAINED_UNSAID ? 0 : retained_log(b, change->exchange, retained_key(node, room), change->value);
    if (change->value)
        value_put(store, node, change->value);
    else
        retained_value_drop(store, node);
    if (store->expiring && !timer_is_set(&store->sweep_timer) && !store->sweep.tree)
        wheel_set(&b->wheel, &store->sweep_timer, b->now + SWEEP_NS);
    *change = (struct retained_change){0};
    return lsn;
}

/* ---- journal ---- */

void retained_snapshot_begin(struct broker *b)
{
    retained_pass_begin(&b->mqtt.retained, &b->mqtt.retained.snapshot);
}

static bool write_value(struct broker *b, struct retained_tree *tree, struct retained_node *node, void *arg)
{
    size_t *bytes = arg;
    uint8_t room[256];
    if (*bytes >= b->options.compact_slice_bytes)
        return false;
    *bytes += 4;
    if (node->value->flags & RETAINED_UNSAID)
        return true;
    *bytes += 32 + node->value->props_len + node->value->body_len;
    return retained_log(b, tree->exchange, retained_key(node, room), node->value) != 0;
}

bool retained_snapshot(struct broker *b, size_t *bytes, bool *ret_done)
{
    struct retained_pass *pass = &b->mqtt.retained.snapshot;
    bool full = false;
    while (pass->tree && !full) {
        if (!retained_pass(b, pass, SWEEP_NODES, write_value, bytes)) {
            if (*bytes < b->options.compact_slice_bytes)
                return false;
            full = true;
        }
        *bytes += SWEEP_NODES / 8;
    }
    *ret_done = !pass->tree;
    return true;
}

/* Of an exchange that is not there: deleted below, or a snapshot says it again. */
bool replay_retained(struct broker *b, struct reader *r)
{
    struct retained_store *store = &b->mqtt.retained;
    struct vhost *vhost = vhost_find(b, reader_str8(r));
    struct slice exchange = reader_str8(r), key = reader_str8(r);
    uint64_t deadline = reader_varint(r);
    uint8_t flags = reader_u8(r);
    struct exchange *x = vhost ? exchange_find(vhost, exchange) : NULL;
    if (!reader_ok(r) || !key.len || deadline > INT64_MAX || flags > 7)
        return false;
    if (!flags) {
        struct retained_node *node = x && x->retained ? find(store, &x->retained->root, key) : NULL;
        if (node)
            retained_value_drop(store, node);
        return reader_done(r);
    }
    struct slice props = reader_str32(r), body = reader_rest(r);
    if (!reader_ok(r) || !body.len)
        return false;
    if (!x)
        return true;
    struct retained_tree *tree = tree_of(b, x);
    struct retained_value *value =
        tree ? value_make(props, body, deadline ? (wall_t)deadline : WALL_NEVER, flags) : NULL;
    struct retained_node *node = value ? reach(store, &tree->root, key) : NULL;
    if (!node) {
        mem_free_as(MEM_RETAINED, value);
        return false;
    }
    value_put(store, node, value);
    return true;
}

/* What expired while the broker was down goes with the first pass. */
void retained_recovered(struct broker *b)
{
    if (b->mqtt.retained.expiring)
        wheel_set(&b->wheel, &b->mqtt.retained.sweep_timer, b->now + NS_PER_S);
}

/* ---- life cycle ---- */

static void sweep_begins(void *arg, struct timer *timer)
{
    struct retained_store *store = CONTAINER_OF(timer, struct retained_store, sweep_timer);
    (void)arg;
    retained_pass_begin(store, &store->sweep);
}

void retained_init(struct broker *b)
{
    struct retained_store *store = &b->mqtt.retained;
    list_init(&store->trees);
    list_init(&store->doomed);
    list_init(&store->walking);
    timer_init(&store->sweep_timer, sweep_begins);
    store->seed = b->seed + 41;
    if (!b->options.retained_max)
        b->options.retained_max = COUNT_MAX_DEFAULT;
    if (!b->options.retained_bytes_max)
        b->options.retained_bytes_max = BYTES_MAX_DEFAULT;
}

void retained_fini(struct broker *b)
{
    struct retained_store *store = &b->mqtt.retained;
    unsigned budget = UINT32_MAX;
    wheel_cancel(&b->wheel, &store->sweep_timer);
    while (!list_empty(&store->trees))
        retained_exchange_gone(b, CONTAINER_OF(store->trees.next, struct retained_tree, link)->exchange);
    while (!list_empty(&store->doomed))
        retained_tree_free_some(store, CONTAINER_OF(store->doomed.next, struct retained_tree, link), &budget);
    for (uint32_t i = 0; i < (store->buckets + BLOCK - 1) >> BLOCK_BITS; i++)
        mem_free(store->table[i]);
    mem_free(store->table);
}

static bool sweep(struct broker *b, struct retained_tree *tree, struct retained_node *node, void *arg)
{
    (void)tree;
    (void)arg;
    if (retained_deadline(node->value) <= b->wall) {
        value_take(&b->mqtt.retained, node); /* the pass stands on the node */
        b->totals.expired++;
    }
    return true;
}

bool retained_turn(struct broker *b)
{
    struct retained_store *store = &b->mqtt.retained;
    unsigned budget = DOOMED_NODES;
    if (!list_empty(&store->doomed))
        retained_tree_free_some(store, CONTAINER_OF(store->doomed.next, struct retained_tree, link), &budget);
    if (store->sweep.tree) {
        (void)retained_pass(b, &store->sweep, SWEEP_NODES, sweep, NULL);
        if (!store->sweep.tree && store->expiring)
            wheel_set(&b->wheel, &store->sweep_timer, b->now + SWEEP_NS);
    }
    bool more = !list_empty(&store->walking) && retained_walks_turn(b);
    return more || store->sweep.tree || !list_empty(&store->doomed);
}

/* ---- invariants ---- */

static void check_tree(const struct retained_store *store, struct retained_tree *tree, struct retained_store *sums)
{
    struct retained_node *node = &tree->root;
    CHECK(tree->exchange && tree->exchange->retained == tree);
    for (;;) {
        CHECK(!node->parent || node->value || node->children || node->pins);
        CHECK(!node->parent || retained_child(store, node->parent, word_of(node)) == node);
        CHECK(!node->next || node->next->prev == node);
        sums->nodes += node->parent != NULL;
        if (node->parent)
            sums->bytes += node_bytes(node->len) + ALLOC_COST;
        if (node->value)
            value_counts(sums, node->value, true);
        if (node->children) {
            node = node->children;
            continue;
        }
        while (node->parent && !node->next)
            node = node->parent;
        if (!node->parent)
            return;
        node = node->next;
    }
}

void retained_check(struct broker *b)
{
    const struct retained_store *store = &b->mqtt.retained;
    struct retained_store sums = {0};
    if (!list_empty(&store->doomed))
        return; /* what is left of those is still in the sums */
    LIST_EACH(&store->trees, node, after)
    check_tree(store, CONTAINER_OF(node, struct retained_tree, link), &sums);
    CHECK(sums.count == store->count && sums.bytes == store->bytes && sums.expiring == store->expiring &&
          sums.nodes == store->nodes);
}
