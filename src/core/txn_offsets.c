/* What consumers have read, committed as part of a transaction: kept with the transaction until it ends (KIP-98, KIP-447).
 *
 * They are made as rows of the group (struct committed) when they come, and stand in no group until then; a commit puts them
 * there within the one record that ends the transaction, an abort forgets them. While they wait, who asks for a stable answer
 * is told to ask again (ASK_STABLE): b->staging counts, per group, the transactions that have some.
 */
#include "core/group_int.h"
#include "core/records.h"
#include "core/stream_int.h"
#include "core/txn_int.h"

#define STAGED_ROW_BYTES 48u /* of a record, without its text */

/* A group with offsets in some transaction. */
struct stager {
    uint32_t count; /* of struct staged */
    uint32_t key_len;
    uint8_t key[]; /* address of the vhost, name */
};

struct staged {
    struct list link;   /* txn->staged */
    struct slice group; /* owned */
    struct stager *stager;
    struct list rows;  /* struct committed, in no group … */
    struct map places; /* … by stream and partition */
    uint32_t count;
    size_t text;
};

/* ---- who has some ---- */

#define STAGER_KEY_MAX (sizeof(void *) + NAME_MAX_BYTES)

static struct slice stager_key(const struct vhost *vhost, struct slice group, uint8_t room[STAGER_KEY_MAX])
{
    size_t len = group.len < NAME_MAX_BYTES ? group.len : NAME_MAX_BYTES;
    memcpy(room, &vhost, sizeof(void *));
    if (len)
        memcpy(room + sizeof(void *), group.ptr, len);
    return slice_of(room, sizeof(void *) + len);
}

static struct slice stager_key_of(const void *value)
{
    const struct stager *stager = value;
    return slice_of(stager->key, stager->key_len);
}

void txn_staging_init(struct broker *b)
{
    map_init_keyed(&b->staging, b->seed ^ 0x737467, stager_key_of);
}

void txn_staging_fini(struct broker *b)
{
    CHECK(b->staging.count == 0);
    map_fini(&b->staging);
}

/* NULL: no memory. */
static struct stager *stager_take(struct broker *b, const struct vhost *vhost, struct slice group)
{
    uint8_t room[STAGER_KEY_MAX];
    struct slice key = stager_key(vhost, group, room);
    struct stager *stager = map_get(&b->staging, key);
    if (!stager) {
        stager = map_reserve(&b->staging) ? mem_alloc(sizeof *stager + key.len) : NULL;
        if (!stager)
            return NULL;
        *stager = (struct stager){.key_len = (uint32_t)key.len};
        memcpy(stager->key, key.ptr, key.len);
        (void)map_put(&b->staging, stager_key_of(stager), stager);
    }
    stager->count++;
    return stager;
}

static void stager_drop(struct broker *b, struct stager *stager)
{
    if (--stager->count)
        return;
    (void)map_take(&b->staging, stager_key_of(stager));
    mem_free(stager);
}

/* ---- rows ---- */

static struct slice place_of(const void *value)
{
    const struct committed *o = value;
    return slice_of(o->key, sizeof o->key);
}

static void rows_free(struct broker *b, struct list *rows)
{
    LIST_EACH(rows, node, after)
    {
        struct committed *o = CONTAINER_OF(node, struct committed, link);
        list_remove(node);
        b->group_bytes -= sizeof *o + o->len;
        mem_free_as(MEM_GROUPS, o);
    }
}

static void staged_free(struct broker *b, struct staged *s)
{
    list_remove(&s->link);
    map_fini(&s->places);
    rows_free(b, &s->rows);
    stager_drop(b, s->stager);
    slice_drop(&s->group);
    mem_free(s);
}

void txn_staged_free(struct broker *b, struct txn *t)
{
    LIST_EACH(&t->staged, node, after)
    staged_free(b, CONTAINER_OF(node, struct staged, link));
}

static struct staged *staged_find(const struct txn *t, struct slice group)
{
    LIST_EACH(&t->staged, node, after)
    if (slice_equal(CONTAINER_OF(node, struct staged, link)->group, group))
        return CONTAINER_OF(node, struct staged, link);
    return NULL;
}

static struct staged *staged_make(struct broker *b, struct txn *t, struct slice group)
{
    struct staged *s = mem_zalloc(sizeof *s);
    if (!s || !slice_keep(&s->group, group) || !(s->stager = stager_take(b, t->vhost, group))) {
        if (s)
            slice_drop(&s->group);
        mem_free(s);
        return NULL;
    }
    list_init(&s->rows);
    map_init_keyed(&s->places, b->seed ^ t->producer, place_of);
    list_insert(&t->staged, &s->link);
    return s;
}

/* A row takes the place of one for the same partition. Room is reserved. */
static void put(struct broker *b, struct staged *s, struct committed *o)
{
    struct committed *old = map_swap(&s->places, place_of(o), o);
    if (old) {
        struct list one;
        s->count--;
        s->text -= old->len;
        list_remove(&old->link);
        list_init(&one);
        list_insert(&one, &old->link);
        rows_free(b, &one);
    } else {
        CHECK(map_put(&s->places, place_of(o), o));
    }
    list_insert(&s->rows, &o->link);
    s->count++;
    s->text += o->len;
}

static struct group_offset row_of(const struct committed *o)
{
    return (struct group_offset){.stream = o->key[0],
                                 .partition = (uint32_t)o->key[1],
                                 .epoch = o->epoch,
                                 .offset = o->offset,
                                 .metadata = slice_of(o->metadata, o->len)};
}

/* ---- the journal ---- */

static size_t record_bytes(const struct staged *s)
{
    return 400 + s->count * STAGED_ROW_BYTES + s->text;
}

/* All rows of a group. */
static lsn_t log_staged(struct broker *b, const struct txn *t, struct slice group, const struct list *rows)
{
    struct writer w = writer_of(b->scratch.bytes, b->scratch.max);
    writer_u8(&w, REC_TXN_OFFSETS);
    writer_varint(&w, t->producer);
    writer_varint(&w, (uint64_t)t->started);
    writer_str8(&w, group);
    LIST_EACH(rows, node, after)
    {
        const struct committed *o = CONTAINER_OF(node, struct committed, link);
        struct group_offset row = row_of(o);
        offsets_log_row(&w, &row, o->at);
    }
    CHECK(writer_ok(&w));
    struct slice part = writer_slice(&w);
    return log_record(b, &part, 1);
}

bool txn_staged_snapshot(struct broker *b, const struct txn *t)
{
    LIST_EACH(&t->staged, node, after)
    {
        const struct staged *s = CONTAINER_OF(node, struct staged, link);
        if (!log_reserve(b, record_bytes(s), 1) || !buffer_reserve(&b->scratch, record_bytes(s)) ||
            !log_staged(b, t, s->group, &s->rows))
            return false;
    }
    return true;
}

bool replay_txn_offsets(struct broker *b, struct reader *r)
{
    uint64_t producer = reader_varint(r), at = reader_varint(r);
    struct slice group = reader_str8(r);
    struct txn *t = txn_of_producer(b, producer);
    if (!reader_ok(r))
        return false;
    if (!t)
        return true; /* it is in the snapshot, later on */
    txn_begin(b, t);
    t->started = (wall_t)at;
    struct staged *s = staged_find(t, group);
    if (!s && !(s = staged_make(b, t, group)))
        return false;
    while (r->left) {
        struct group_offset row = {.stream = reader_varint(r)};
        row.partition = (uint32_t)reader_varint(r);
        row.offset = reader_varint(r) - 1;
        row.epoch = (uint32_t)reader_varint(r);
        wall_t when = (wall_t)reader_varint(r);
        row.metadata = reader_str32(r);
        struct committed *o = reader_ok(r) && map_reserve(&s->places) ? committed_make(b, NULL, &row, when) : NULL;
        if (!o)
            return false;
        put(b, s, o);
    }
    return reader_ok(r);
}

/* ---- the end ---- */

static size_t end_bytes(const struct staged *s)
{
    return 64 + 2 * NAME_MAX_BYTES + 2 + record_bytes(s);
}

/* Groups and room for all that is staged. False: no memory. *ret_bytes: of their records within the one that ends it. */
bool txn_staged_prepare(struct broker *b, struct txn *t, size_t *ret_bytes, size_t *ret_most)
{
    LIST_EACH(&t->staged, node, after)
    {
        struct staged *s = CONTAINER_OF(node, struct staged, link);
        struct group *g = group_find(b, t->vhost, s->group);
        if (!g)
            g = group_make(b, t->vhost, s->group);
        if (!g || !map_reserve_many(&g->offsets, s->count))
            return false;
        *ret_bytes += log_captured_bytes(end_bytes(s), 1);
        *ret_most = end_bytes(s) > *ret_most ? end_bytes(s) : *ret_most;
    }
    return true;
}

/* Within the record that ends the transaction. */
void txn_staged_commit(struct broker *b, struct txn *t)
{
    LIST_EACH(&t->staged, node, after)
    {
        struct staged *s = CONTAINER_OF(node, struct staged, link);
        struct group *g = group_find(b, t->vhost, s->group);
        struct writer w;
        b->promised -= log_captured_bytes(end_bytes(s), 1);
        CHECK(g && offsets_log_begin(b, g, s->count, s->text, &w));
        LIST_EACH(&s->rows, row_node, row_after)
        {
            struct committed *o = CONTAINER_OF(row_node, struct committed, link);
            struct stream *stream = stream_of(b, t->vhost, o->key[0], (uint32_t)o->key[1]);
            struct group_offset row = row_of(o);
            if (!stream)
                continue;    /* it has been deleted */
            o->at = b->wall; /* so it is the youngest of its group, whatever came meanwhile */
            offsets_log_row(&w, &row, o->at);
            if (o->offset == UINT64_MAX) { /* there is none from now on */
                struct committed *old = map_get(&g->offsets, slice_of(o->key, sizeof o->key));
                if (old)
                    committed_free(b, old);
                continue;
            }
            list_remove(row_node);
            o->group = g;
            committed_put(b, g, stream, o);
        }
        offsets_log_end(b, g, &w);
    }
}

/* The record has its lsn. */
void txn_staged_committed(struct broker *b, struct txn *t, lsn_t lsn)
{
    LIST_EACH(&t->staged, node, after)
    {
        struct group *g = group_find(b, t->vhost, CONTAINER_OF(node, struct staged, link)->group);
        if (g) {
            g->offset_lsn = lsn;
            group_rest(b, g);
        }
    }
    txn_staged_free(b, t);
}

bool txn_has_staged(const struct broker *b, const struct vhost *vhost, struct slice group)
{
    uint8_t room[STAGER_KEY_MAX];
    return map_get(&b->staging, stager_key(vhost, group, room)) != NULL;
}

size_t txns_staged_bytes(const struct broker *b)
{
    size_t bytes = 0;
    MAP_EACH(&b->txns, struct txn, t)
    LIST_EACH(&t->staged, node, after)
    {
        const struct staged *s = CONTAINER_OF(node, struct staged, link);
        bytes += s->count * sizeof(struct committed) + s->text;
    }
    return bytes;
}

/* ---- the command ---- */

struct coming {
    struct list rows;
    uint32_t count;
    size_t text;
};

static bool rows_make(struct broker *b, const struct peer *peer, struct reader r, struct writer *answer,
                      struct coming *ret)
{
    uint64_t allowed = 0;
    while (r.left) {
        struct group_offset row = group_offset_read(&r);
        enum group_error error = group_row_check(b, peer, &row, &allowed);
        writer_u8(answer, error);
        struct committed *o = error ? NULL : committed_make(b, NULL, &row, b->wall);
        if (!error && !o)
            return false;
        if (!o)
            continue;
        list_insert(&ret->rows, &o->link);
        ret->count++;
        ret->text += o->len;
    }
    return true;
}

/* There is a record for all of them when they are committed, which has a limit. */
static bool too_many(const struct staged *s, const struct coming *coming)
{
    uint32_t count = s ? s->count : 0;
    if (count + coming->count <= TXN_PARTITIONS_MAX)
        return false;
    LIST_EACH(&coming->rows, node, after)
    if (!s || !map_get(&s->places, place_of(CONTAINER_OF(node, struct committed, link))))
        count++;
    return count > TXN_PARTITIONS_MAX;
}

/* With an error nothing has happened. */
static enum group_error stage(struct broker *b, struct txn *t, struct slice group, struct coming *coming, lsn_t *lsn)
{
    struct staged *s = staged_find(t, group);
    size_t bytes = 400 + coming->count * STAGED_ROW_BYTES + coming->text;
    if (too_many(s, coming))
        return GROUP_ERR_COMMIT_SIZE;
    if (!log_reserve(b, bytes, 1) || !buffer_reserve(&b->scratch, bytes) || (!s && !(s = staged_make(b, t, group))))
        return GROUP_ERR_NO_MEMORY;
    if (!map_reserve_many(&s->places, coming->count)) {
        if (!s->count)
            staged_free(b, s);
        return GROUP_ERR_NO_MEMORY;
    }
    txn_begin(b, t);
    *lsn = log_staged(b, t, group, &coming->rows);
    LIST_EACH(&coming->rows, node, after)
    {
        list_remove(node);
        put(b, s, CONTAINER_OF(node, struct committed, link));
    }
    return GROUP_OK;
}

static enum group_error check(struct broker *b, struct peer *peer, const struct command *c, struct reader *args,
                              struct txn **ret)
{
    enum group_error error = group_asked(b, peer, c, VERB_READ);
    uint64_t producer = reader_u64(args);
    uint16_t epoch = reader_u16(args);
    struct slice name = reader_str32(args);
    if (error)
        return error;
    if (!reader_ok(args) || c->ask->name.len == 0)
        return reader_ok(args) ? GROUP_ERR_INVALID_ID : GROUP_ERR_INVALID;
    struct txn *t = *ret = map_get(&peer->vhost->txns, name);
    if (!t || t->producer != producer || !txn_may_use(b, peer, name))
        return GROUP_ERR_PRODUCER;
    if (t->epoch != epoch)
        return GROUP_ERR_PRODUCER_EPOCH;
    if (t->state != TXN_ONGOING && !(c->ask->flags & ASK_JOINS))
        return GROUP_ERR_TXN_STATE;
    struct group *g = group_find(b, peer->vhost, c->ask->name);
    /* who names neither member nor generation is not held to any, as in Kafka before KIP-447 */
    bool bound = c->ask->other.len || (int32_t)(uint32_t)c->ask->number >= 0;
    return bound ? group_may_commit(b, g, c) : GROUP_OK;
}

void do_txn_offsets(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    (void)ch;
    struct writer w;
    struct reader args = reader_of(c->ask->args);
    struct txn *t = NULL;
    struct coming coming = {.count = 0};
    size_t rows = 0;
    lsn_t lsn = b->appended;
    list_init(&coming.rows);
    enum group_error error = check(b, peer, c, &args, &t);
    for (struct reader r = args; !error && r.left; rows++) {
        (void)group_offset_read(&r);
        error = reader_ok(&r) ? GROUP_OK : GROUP_ERR_INVALID;
    }
    struct answer *answer = error ? NULL : group_block(rows, &w);
    if (!answer) {
        group_say_or(b, peer, c, error, NULL, 0);
        return;
    }
    bool made =
        group_has_room(b, c->ask->args.len + rows * sizeof(struct committed)) && rows_make(b, peer, args, &w, &coming);
    error = !made ? GROUP_ERR_NO_MEMORY : coming.count ? stage(b, t, c->ask->name, &coming, &lsn) : GROUP_OK;
    if (error) {
        rows_free(b, &coming.rows);
        mem_free(answer);
        group_say(b, peer, c, error, NULL, 0);
    } else {
        group_say(b, peer, c, GROUP_OK, group_block_end(answer, &w), lsn);
    }
}
