/* Deduplication windows of queues, see dedup.h.
 *
 * Invariants:
 *   D1  a key is accepted with its message in one step and one journal record (KEYED: an ENQUEUE that says when): a crash
 *       leaves both or none, so that what a publisher repeats because it was not confirmed is never taken for a duplicate
 *       of something that is lost.
 *   D2  keys are hashed to 128 bits (XXH3; the classes of AMQP values apart). Two keys of a full window are taken for one
 *       with a chance below 2^-80; who wants to be taken for another can as well send the other's key.
 *   D3  a window has at most x-cache-size keys, oldest first out; keys whose time has come are forgotten on the way.
 *   D4  a key that counts while its message is in the queue goes with it: in backlog_free, or by a purge.
 *   D5  keys of messages that the journal does not know are not in the journal either.
 *
 * The table is a linear hash: it grows by a bucket with each key, so that no publish pays for a table of millions. Its
 * buckets are chosen with the broker's seed; without memory to grow chains are longer for a while.
 */
#include <stdlib.h>

#include "core/core_int.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#define SEGMENT 256u
#define TRIM 8u /* keys forgotten per publish, at most */

/* ---- the table ---- */

static uint64_t mixed(const struct broker *b, const uint64_t hash[2])
{
    uint64_t x = (hash[0] ^ b->seed) * 0x9e3779b97f4a7c15u;
    x ^= x >> 32;
    x = (x + hash[1]) * 0xbf58476d1ce4e5b9u;
    return x ^ x >> 29;
}

static struct key **bucket_number(const struct window *w, uint32_t i)
{
    return &w->segments[i / SEGMENT][i % SEGMENT];
}

static struct key **bucket_of(const struct broker *b, const struct window *w, const uint64_t hash[2])
{
    uint64_t x = mixed(b, hash);
    uint32_t i = (uint32_t)x & (2 * w->base - 1);
    return bucket_number(w, i < w->buckets ? i : i & (w->base - 1));
}

static bool same(const uint64_t a[2], const uint64_t b[2])
{
    return a[0] == b[0] && a[1] == b[1];
}

static struct key *find(const struct broker *b, const struct window *w, const uint64_t hash[2])
{
    struct key *k = *bucket_of(b, w, hash);
    while (k && !same(k->value.hash, hash))
        k = k->next;
    return k;
}

/* False: no memory; the table stays as it is. */
static bool add_segment(struct window *w)
{
    uint32_t i = w->buckets / SEGMENT;
    if (i == w->segment_max) {
        uint32_t max = i ? 2 * i : 2;
        struct key ***grown = mem_realloc(w->segments, max * sizeof *grown);
        if (!grown)
            return false;
        w->segments = grown;
        w->segment_max = max;
    }
    w->segments[i] = mem_zalloc(SEGMENT * sizeof *w->segments[i]);
    return w->segments[i] != NULL;
}

/* One bucket more when there are more keys than buckets; its keys come out of the one it is split from. */
static void grow(const struct broker *b, struct window *w)
{
    if (w->count <= w->buckets || (w->buckets % SEGMENT == 0 && !add_segment(w)))
        return;
    if (w->buckets == 2 * w->base)
        w->base *= 2;
    uint32_t fresh = w->buckets++;
    struct key **from = bucket_number(w, fresh - w->base), **to = bucket_number(w, fresh);
    while (*from) {
        struct key *k = *from;
        if (bucket_of(b, w, k->value.hash) != to) {
            from = &k->next;
            continue;
        }
        *from = k->next;
        k->next = *to;
        *to = k;
    }
}

/* ---- keys ---- */

static void join(struct broker *b, struct window *w, struct key *k)
{
    struct key **bucket = bucket_of(b, w, k->value.hash);
    k->next = *bucket;
    *bucket = k;
    list_insert(&w->keys, &k->link);
    w->count++;
    w->present += k->value.until == WALL_NEVER;
    grow(b, w);
}

static void leave(struct broker *b, struct window *w, struct key *k)
{
    struct key **at = bucket_of(b, w, k->value.hash);
    while (*at != k)
        at = &(*at)->next;
    *at = k->next;
    compact_key_removed(b, k);
    list_remove(&k->link);
    w->count--;
    w->present -= k->value.until == WALL_NEVER;
}

static void forget(struct broker *b, struct window *w, struct key *k)
{
    leave(b, w, k);
    pool_give(&b->keys, k);
}

static bool counts(const struct broker *b, const struct window *w, const struct key *k)
{
    if (k->value.until == WALL_NEVER)
        return k->position >= w->purged_upto || k->kept == w->purges;
    return k->value.until > b->wall;
}

static uint32_t most(const struct queue *q)
{
    return q->rules->cache_size < 0 ? DEDUP_KEYS_DEFAULT : (uint32_t)q->rules->cache_size;
}

static struct window *window_of(const struct queue *q)
{
    return q->extra && q->extra->window.buckets ? &q->extra->window : NULL;
}

static struct slice header_of(const struct queue *q)
{
    return q->rules->dedup_header.len ? q->rules->dedup_header : slice_str(DEDUP_HEADER);
}

static uint64_t header_hash(const struct queue *q)
{
    struct slice name = header_of(q);
    return XXH3_64bits(name.ptr, name.len);
}

static struct window *window_make(struct queue *q)
{
    struct window *w = queue_extra_make(q) ? &q->extra->window : NULL;
    if (!w || w->buckets)
        return w;
    list_init(&w->keys);
    if (!add_segment(w)) {
        mem_free(w->segments);
        *w = (struct window){0};
        return NULL;
    }
    w->buckets = w->base = SEGMENT;
    w->header = header_hash(q);
    return w;
}

/* Values of one class never equal those of another: 5 is not "5". Numbers are equal whatever their width. */
static void hash_value(const struct amqp_value *v, uint64_t ret[2])
{
    struct slice bytes = v->type == 'S' || v->type == 'x' ? v->s : v->raw;
    uint64_t class = (uint8_t)v->type;
    uint64_t number = htobe64((uint64_t)v->i);
    if (amqp_value_is_int(v)) {
        bytes = slice_of(&number, sizeof number);
        class = 'l';
    }
    XXH128_hash_t hash = XXH3_128bits_withSeed(bytes.ptr, bytes.len, class);
    ret[0] = hash.high64;
    ret[1] = hash.low64;
}

static bool hash_of(const struct queue *q, struct slice headers, uint64_t ret[2])
{
    struct amqp_value v;
    if (!amqp_table_find_slice(headers, header_of(q), &v))
        return false;
    hash_value(&v, ret);
    return true;
}

struct key_value dedup_key(const struct queue *q, const struct msg *msg, wall_t at)
{
    struct key_value value = {.until = WALL_NEVER};
    struct amqp_value v;
    if (!q->rules->dedup || !(msg->flags & MSG_HAS_HEADERS))
        return value;
    struct slice headers = msg_headers(msg);
    value.has = hash_of(q, headers, value.hash);
    int64_t ttl = q->rules->cache_ttl_ms;
    if (amqp_table_find(headers, "x-cache-ttl", &v) && amqp_value_is_int(&v) && v.i > 0 && v.i <= TIME_MS_MAX)
        ttl = v.i;
    if (ttl >= 0)
        value.until = at + ttl;
    return value;
}

/* ---- publishing ---- */

/* What is first in line to be forgotten, a few at a time. */
static void trim(struct broker *b, struct queue *q, struct window *w)
{
    for (unsigned n = 0; n < TRIM && !list_empty(&w->keys); n++) {
        struct key *oldest = CONTAINER_OF(w->keys.next, struct key, link);
        if (counts(b, w, oldest) && w->count <= most(q))
            return;
        forget(b, w, oldest);
    }
}

bool dedup_reserve(struct broker *b, const struct msg *msg, const struct route *route, uint32_t *sum)
{
    uint32_t keys = 0;
    if (!(msg->flags & MSG_HAS_HEADERS))
        return true;
    for (uint32_t i = 0; i < route->count; i++) {
        struct queue *q = route->queues[i];
        if (!q->rules->dedup)
            continue;
        struct window *w = window_make(q);
        if (!w)
            return false;
        if (!b->capturing && !sum)
            trim(b, q, w);
        keys++;
    }
    if (sum) {
        *sum += keys;
        return true;
    }
    return dedup_reserve_keys(b, keys);
}

bool dedup_reserve_keys(struct broker *b, uint32_t sum)
{
    return !sum || pool_reserve_many(&b->keys, sum);
}

static bool died_in(const struct msg *msg, struct slice queue)
{
    struct amqp_value deaths, element, v;
    if (!amqp_table_find(msg_headers(msg), "x-death", &deaths) || deaths.type != 'A')
        return false;
    struct reader r = reader_of(deaths.s);
    while (amqp_array_next(&r, &element))
        if (element.type == 'F' && amqp_table_find(element.s, "queue", &v) && amqp_value_is_str(&v) &&
            slice_equal(v.s, queue))
            return true;
    return false;
}

bool dedup_knows(struct broker *b, struct queue *q, const struct msg *msg, const struct key_value *value,
                 const struct entry *from)
{
    const struct window *w = window_of(q);
    const struct key *k = value->has && w ? find(b, w, value->hash) : NULL;
    return k && counts(b, w, k) && !(from && !from->queue->hidden && died_in(msg, q->name));
}

bool dedup_is_duplicate(struct broker *b, struct queue *q, const struct msg *msg, const struct key_value *value,
                        const struct entry *from)
{
    if (!dedup_knows(b, q, msg, value, from))
        return false;
    q->extra->duplicates++;
    b->totals.duplicates++;
    return true;
}

void dedup_accept(struct broker *b, struct queue *q, const struct key_value *value, uint64_t position, bool journalled)
{
    struct window *w = window_of(q);
    CHECK(w);
    struct key *k = find(b, w, value->hash); /* it counts no more, or its message has come back */
    if (!k && w->count >= most(q))
        k = LIST_FIRST(&w->keys, struct key, link);
    if (k)
        leave(b, w, k);
    else
        k = pool_take(&b->keys);
    CHECK(k);
    *k = (struct key){.value = *value, .position = position, .journalled = journalled};
    list_init(&k->link);
    join(b, w, k);
}

/* ---- messages leave ---- */

void dedup_left(struct broker *b, const struct entry *e)
{
    struct window *w = window_of(e->queue);
    uint64_t hash[2];
    if (!w || !w->present || !(e->msg->flags & MSG_HAS_HEADERS) || !hash_of(e->queue, msg_headers(e->msg), hash))
        return;
    struct key *k = find(b, w, hash);
    if (k && k->value.until == WALL_NEVER && k->position == e->position)
        forget(b, w, k);
}

bool dedup_by_presence(const struct queue *q)
{
    const struct window *w = window_of(q);
    return w && w->present;
}

static void keep(struct broker *b, struct window *w, const struct entry *e)
{
    uint64_t hash[2];
    if (!hash_of(e->queue, msg_headers(e->msg), hash))
        return;
    struct key *k = find(b, w, hash);
    if (k && k->position == e->position)
        k->kept = w->purges;
}

/* Pages were dropped unread, with messages that nobody looked at: their keys are told by their positions. */
void dedup_purged(struct broker *b, struct queue *q)
{
    struct window *w = window_of(q);
    if (!w || !w->present)
        return;
    w->purged_upto = q->next_position;
    w->purges++;
    LIST_EACH(&q->busy->unacked, node, after)
    keep(b, w, CONTAINER_OF(node, struct entry, link));
}

void dedup_drop(struct broker *b, struct queue *q)
{
    struct window *w = window_of(q);
    if (!w)
        return;
    compact_window_dropped(b, q);
    LIST_EACH(&w->keys, node, after)
    pool_give(&b->keys, CONTAINER_OF(node, struct key, link));
    for (uint32_t i = 0; i * SEGMENT < w->buckets; i++)
        mem_free(w->segments[i]);
    mem_free(w->segments);
    *w = (struct window){0};
}

/* Keys of another header mean nothing. */
void dedup_rules_changed(struct broker *b, struct queue *q)
{
    const struct window *w = window_of(q);
    if (w && (!q->rules->dedup || w->header != header_hash(q)))
        dedup_drop(b, q);
}

/* ---- replay ---- */

bool dedup_restore(struct broker *b, struct queue *q, const struct key_value *value, uint64_t position)
{
    struct window *w = window_make(q);
    if (!w)
        return false;
    struct key *k = find(b, w, value->hash);
    if (k && k->position >= position)
        return true;
    if (k)
        leave(b, w, k);
    else if (!(k = pool_take(&b->keys)))
        return false;
    const struct key *last = list_empty(&w->keys) ? NULL : CONTAINER_OF(w->keys.prev, struct key, link);
    w->unsorted |= last && last->position > position;
    *k = (struct key){.value = *value, .position = position, .journalled = true};
    list_init(&k->link);
    join(b, w, k);
    return true;
}

static int by_position(const void *a, const void *b)
{
    const struct key *x = *(struct key *const *)a, *y = *(struct key *const *)b;
    return x->position < y->position ? -1 : x->position > y->position;
}

static bool sort(struct window *w)
{
    uint32_t n = 0;
    struct key **keys = mem_alloc(w->count * sizeof(struct key *));
    if (!keys)
        return false;
    LIST_EACH(&w->keys, node, after)
    keys[n++] = CONTAINER_OF(node, struct key, link);
    qsort(keys, n, sizeof *keys, by_position);
    list_init(&w->keys);
    for (uint32_t i = 0; i < n; i++)
        list_insert(&w->keys, &keys[i]->link);
    mem_free(keys);
    w->unsorted = false;
    return true;
}

bool dedup_settle(struct broker *b, struct queue *q, bool (*alive)(struct queue *q, uint64_t position))
{
    struct window *w = window_of(q);
    if (!w)
        return true;
    if (w->unsorted && !sort(w))
        return false;
    LIST_EACH(&w->keys, node, after)
    {
        struct key *k = CONTAINER_OF(node, struct key, link);
        bool there = k->value.until != WALL_NEVER || alive(q, k->position);
        if (!there || !counts(b, w, k))
            forget(b, w, k);
    }
    while (w->count > most(q))
        forget(b, w, CONTAINER_OF(w->keys.next, struct key, link));
    return true;
}

/* ---- checking ---- */

void dedup_check(struct broker *b, const struct queue *q)
{
    const struct window *w = window_of(q);
    uint32_t count = 0, present = 0;
    uint64_t last = 0;
    if (!w)
        return;
    LIST_EACH(&w->keys, node, after)
    {
        const struct key *k = CONTAINER_OF(node, struct key, link);
        CHECK(find(b, w, k->value.hash) == k && k->position > last && k->position < q->next_position);
        CHECK(!k->journalled || q->object.journalled);
        last = k->position;
        count++;
        present += k->value.until == WALL_NEVER;
    }
    CHECK(count == w->count && present == w->present && w->header == header_hash(q));
    CHECK(w->base <= w->buckets && w->buckets <= 2 * w->base);
    LIST_EACH(&q->busy->unacked, node, after)
    {
        const struct entry *e = CONTAINER_OF(node, struct entry, link);
        struct key_value value = dedup_key(q, e->msg, 0);
        const struct key *k = value.has ? find(b, w, value.hash) : NULL;
        CHECK(!k || k->value.until != WALL_NEVER || k->position != e->position || counts(b, w, k));
    }
}
