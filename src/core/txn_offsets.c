/* What consumers have read, committed as part of a transaction: kept with the transaction until it ends (KIP-98, KIP-447).
 *
 * They are made as rows of the group (struct committed) when they come, and stand in no group until then; a commit puts them
 * there within the one record that ends the transaction, an abort forgets them. While they wait, who asks for a stable answer
 * is told to ask again (ASK_STABLE).
 */
#include "core/group_int.h"
#include "core/records.h"
#include "core/stream_int.h"
#include "core/txn_int.h"

#define STAGED_ROW_BYTES 48u /* of a record, without its text */

struct staged {
    struct list link;   /* txn->staged */
    struct slice group; /* owned */
    struct list rows;   /* struct committed, in no group */
    uint32_t count;
    size_t text;
};

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
    rows_free(b, &s->rows);
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

static struct staged *staged_make(struct txn *t, struct slice group)
{
    struct staged *s = mem_zalloc(sizeof *s);
    if (!s || !slice_keep(&s->group, group)) {
        mem_free(s);
        return NULL;
    }
    list_init(&s->rows);
    list_insert(&t->staged, &s->link);
    return s;
}

/* A row takes the place of one for the same partition. */
static void put(struct broker *b, struct staged *s, struct committed *o)
{
    LIST_EACH(&s->rows, node, after)
    {
        struct committed *old = CONTAINER_OF(node, struct committed, link);
        if (old->key[0] != o->key[0] || old->key[1] != o->key[1])
            continue;
        struct list one;
        s->count--;
        s->text -= old->len;
        list_remove(node);
        list_init(&one);
        list_insert(&one, node);
        rows_free(b, &one);
        break;
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
    if (!s && !(s = staged_make(t, group)))
        return false;
    while (r->left) {
        struct group_offset row = {.stream = reader_varint(r)};
        row.partition = (uint32_t)reader_varint(r);
        row.offset = reader_varint(r) - 1;
        row.epoch = (uint32_t)reader_varint(r);
        wall_t when = (wall_t)reader_varint(r);
        row.metadata = reader_str32(r);
        struct committed *o = reader_ok(r) ? committed_make(b, NULL, &row, when) : NULL;
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
                continue; /* it has been deleted */
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
    MAP_EACH(&b->txns, struct txn, t)
    if (t->state == TXN_ONGOING && t->vhost == vhost && !list_empty(&t->staged) && staged_find(t, group))
        return true;
    return false;
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

/* False: no memory, no room; nothing has happened. */
static bool stage(struct broker *b, struct txn *t, struct slice group, struct coming *coming, lsn_t *lsn)
{
    struct staged *s = staged_find(t, group);
    size_t bytes = 400 + coming->count * STAGED_ROW_BYTES + coming->text;
    if (!log_reserve(b, bytes, 1) || !buffer_reserve(&b->scratch, bytes) || (!s && !(s = staged_make(t, group))))
        return false;
    txn_begin(b, t);
    *lsn = log_staged(b, t, group, &coming->rows);
    LIST_EACH(&coming->rows, node, after)
    {
        list_remove(node);
        put(b, s, CONTAINER_OF(node, struct committed, link));
    }
    return true;
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
    bool ok = group_has_room(b, c->ask->args.len + rows * sizeof(struct committed)) &&
              rows_make(b, peer, args, &w, &coming) && (!coming.count || stage(b, t, c->ask->name, &coming, &lsn));
    if (ok)
        group_say(b, peer, c, GROUP_OK, group_block_end(answer, &w), lsn);
    else {
        rows_free(b, &coming.rows);
        mem_free(answer);
        group_say(b, peer, c, GROUP_ERR_NO_MEMORY, NULL, 0);
    }
}
