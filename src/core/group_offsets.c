/* What groups have read: COMMIT, OFFSETS and OFFSET_DELETE. */
#include "core/group_int.h"
#include "core/stream_int.h"
#include "core/txn_int.h"

static void unlist(struct broker *b, struct committed *o)
{
    compact_offset_removed(b, &o->link);
    list_remove(&o->link);
    list_remove(&o->stream_link);
    b->group_bytes -= sizeof *o + o->len;
    mem_free_as(MEM_GROUPS, o);
}

void committed_free(struct broker *b, struct committed *o)
{
    (void)map_take(&o->group->offsets, slice_of(o->key, sizeof o->key));
    unlist(b, o);
}

struct committed *committed_make(struct broker *b, struct group *g, const struct group_offset *row, wall_t at)
{
    struct committed *o = mem_zalloc_as(MEM_GROUPS, sizeof *o + row->metadata.len);
    if (!o)
        return NULL;
    o->group = g;
    o->key[0] = row->stream;
    o->key[1] = row->partition;
    o->offset = row->offset;
    o->epoch = row->epoch;
    o->at = at;
    o->len = (uint32_t)row->metadata.len;
    if (o->len)
        memcpy(o->metadata, row->metadata.ptr, o->len);
    list_init(&o->link);
    list_init(&o->stream_link);
    b->group_bytes += sizeof *o + o->len;
    return o;
}

/* The oldest first; it is not the youngest only when the wall's clock was set back, or when a snapshot is read that was written
 * while commits came. */
void committed_put(struct broker *b, struct group *g, struct stream *s, struct committed *o)
{
    struct committed *old = map_swap(&g->offsets, slice_of(o->key, sizeof o->key), o);
    if (old)
        unlist(b, old);
    else
        CHECK(map_put(&g->offsets, slice_of(o->key, sizeof o->key), o));
    struct list *at = &g->offset_list;
    while (at->prev != &g->offset_list && CONTAINER_OF(at->prev, struct committed, link)->at > o->at)
        at = at->prev;
    list_insert(at, &o->link);
    list_insert(&s->offsets, &o->stream_link);
}

/* A stream of the vhost with such a partition; NULL. */
struct stream *stream_of(struct broker *b, const struct vhost *vhost, uint64_t id, uint32_t partition)
{
    struct queue *q = map_get(&b->queues_by_id, map_key_u64(&id));
    return q && q->stream && q->vhost == vhost && partition < q->stream->partition_count ? q->stream : NULL;
}

void groups_stream_gone(struct broker *b, struct stream *s)
{
    while (!list_empty(&s->offsets)) {
        struct committed *o = CONTAINER_OF(s->offsets.next, struct committed, stream_link);
        struct group *g = o->group;
        committed_free(b, o);
        group_rest(b, g);
    }
}

/* ---- COMMIT ---- */

struct commit {
    struct peer *peer;
    uint32_t rows;
    size_t text;
    uint64_t allowed; /* id of the stream that was last found to be readable */
};

static bool commit_read(struct commit *commit, struct reader r)
{
    for (; r.left; commit->rows++)
        commit->text += group_offset_read(&r).metadata.len;
    return reader_ok(&r);
}

/* A consumer, in the epoch that it has heard of. */
static enum group_error assignee_said(const struct group *g, const struct command *c)
{
    struct assignee *who;
    enum group_error error = assignee_check(g, c, &who);
    return error ? error : (uint32_t)c->ask->number != who->epoch ? GROUP_ERR_STALE_EPOCH : GROUP_OK;
}

/* Who follows no group protocol commits without a member's name, while the group has none (the table in group.c). */
enum group_error group_may_commit(struct broker *b, const struct group *g, const struct command *c)
{
    int32_t generation = (int32_t)(uint32_t)c->ask->number;
    struct member *m;
    if (!g)
        return generation < 0 ? GROUP_OK : GROUP_ERR_NO_GROUP;
    if (g->sharing)
        return GROUP_ERR_NO_GROUP;
    if (generation < 0 && g->state == GROUP_EMPTY)
        return GROUP_OK;
    if (g->state == GROUP_CONSUMERS)
        return assignee_said(g, c);
    enum group_error error = member_check(g, c, &m);
    if (error)
        return error;
    if ((uint32_t)generation != g->generation)
        return GROUP_ERR_GENERATION;
    if (g->state == GROUP_COMPLETING)
        return GROUP_ERR_REBALANCE;
    member_alive(b, m);
    return GROUP_OK;
}

enum group_error group_row_check(struct broker *b, const struct peer *peer, const struct group_offset *row,
                                 uint64_t *allowed)
{
    const struct stream *s = stream_of(b, peer->vhost, row->stream, row->partition);
    if (!s)
        return GROUP_ERR_NO_STREAM;
    if (*allowed != row->stream && !authorise(b, peer->user, peer->vhost, VERB_READ, s->queue->name))
        return GROUP_ERR_STREAM_REFUSED;
    *allowed = row->stream;
    return row->metadata.len > GROUP_TEXT_MAX ? GROUP_ERR_METADATA : GROUP_OK;
}

static void rows_drop(struct broker *b, struct list *made)
{
    LIST_EACH(made, node, after)
    {
        struct committed *o = CONTAINER_OF(node, struct committed, link);
        list_remove(node);
        b->group_bytes -= sizeof *o + o->len;
        mem_free_as(MEM_GROUPS, o);
    }
}

/* All of them are made before any is put, so that the record and memory say the same. What each is answered goes into answer. */
static bool rows_make(struct broker *b, struct group *g, struct commit *commit, struct reader r, struct writer *answer,
                      struct list *ret)
{
    while (r.left) {
        struct group_offset row = group_offset_read(&r);
        enum group_error error = group_row_check(b, commit->peer, &row, &commit->allowed);
        writer_u8(answer, error);
        struct committed *o = error ? NULL : committed_make(b, g, &row, b->wall);
        if (!error && !o)
            return false;
        if (o)
            list_insert(ret, &o->link);
    }
    return true;
}

static bool commit_rows(struct broker *b, struct group *g, struct commit *commit, struct reader r,
                        struct writer *answer)
{
    struct writer w;
    struct list made;
    list_init(&made);
    if (!group_has_room(b, commit->text + commit->rows * sizeof(struct committed)) ||
        !rows_make(b, g, commit, r, answer, &made) || !map_reserve_many(&g->offsets, commit->rows) ||
        !offsets_log_begin(b, g, commit->rows, commit->text, &w)) {
        rows_drop(b, &made);
        return false;
    }
    if (list_empty(&made))
        return true;
    LIST_EACH(&made, node, after)
    {
        struct committed *o = CONTAINER_OF(node, struct committed, link);
        struct group_offset row = {.stream = o->key[0], .partition = (uint32_t)o->key[1], .epoch = o->epoch};
        row.offset = o->offset;
        row.metadata = slice_of(o->metadata, o->len);
        offsets_log_row(&w, &row, o->at);
        if (o->offset == UINT64_MAX) {
            struct committed *old = map_get(&g->offsets, slice_of(o->key, sizeof o->key));
            if (old)
                committed_free(b, old);
            continue;
        }
        list_remove(node);
        committed_put(b, g, stream_of(b, g->vhost, o->key[0], (uint32_t)o->key[1]), o);
    }
    offsets_log_end(b, g, &w);
    rows_drop(b, &made); /* those that say there is none */
    return true;
}

void do_group_commit(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    (void)ch;
    struct writer w;
    struct commit commit = {.peer = peer};
    struct reader r = reader_of(c->ask->args);
    enum group_error error = group_asked(b, peer, c, VERB_READ);
    struct group *g = error ? NULL : group_find(b, peer->vhost, c->ask->name);
    if (!error)
        error = commit_read(&commit, r) ? group_may_commit(b, g, c) : GROUP_ERR_INVALID;
    struct answer *answer = error ? NULL : group_block(commit.rows, &w);
    if (!answer) {
        group_say_or(b, peer, c, error, NULL, 0);
        return;
    }
    bool made = !g;
    if (made)
        g = group_make(b, peer->vhost, c->ask->name);
    lsn_t lsn = 0;
    if (g && commit_rows(b, g, &commit, r, &w)) {
        lsn = g->offset_lsn;
        group_say(b, peer, c, GROUP_OK, group_block_end(answer, &w), lsn);
    } else {
        mem_free(answer);
        group_say(b, peer, c, GROUP_ERR_NO_MEMORY, NULL, 0);
    }
    if (made && g && list_empty(&g->offset_list))
        group_free(b, g);
    else if (g)
        group_rest(b, g);
}

/* ---- OFFSETS ---- */

static void put_committed(struct writer *w, const struct committed *o)
{
    struct group_offset row = {.stream = o->key[0], .partition = (uint32_t)o->key[1], .epoch = o->epoch};
    row.offset = o->offset;
    row.metadata = slice_of(o->metadata, o->len);
    group_offset_put(w, &row);
}

static struct committed *asked(const struct group *g, struct reader *r, uint64_t key[2])
{
    key[0] = reader_u64(r);
    key[1] = reader_u32(r);
    return g ? map_get(&g->offsets, slice_of(key, 2 * sizeof key[0])) : NULL;
}

static struct answer *offsets_listed(const struct group *g, const struct ask *ask)
{
    struct reader r = reader_of(ask->args), again = r;
    size_t bytes = 0;
    struct writer w;
    uint64_t key[2];
    while (r.left) {
        const struct committed *o = asked(g, &r, key);
        bytes += GROUP_OFFSET_BYTES + (o ? o->len : 0);
    }
    struct answer *answer = group_block(bytes, &w);
    while (answer && again.left) {
        const struct committed *o = asked(g, &again, key);
        struct group_offset none = {
            .stream = key[0], .partition = (uint32_t)key[1], .offset = UINT64_MAX, .epoch = UINT32_MAX};
        if (o)
            put_committed(&w, o);
        else
            group_offset_put(&w, &none);
    }
    return answer ? group_block_end(answer, &w) : NULL;
}

static struct answer *offsets_all(const struct group *g)
{
    static const struct list nothing = {(struct list *)&nothing, (struct list *)&nothing};
    const struct list *rows = g ? &g->offset_list : &nothing;
    size_t bytes = 0;
    struct writer w;
    LIST_EACH(rows, node, after)
    bytes += GROUP_OFFSET_BYTES + CONTAINER_OF(node, struct committed, link)->len;
    struct answer *answer = group_block(bytes, &w);
    if (!answer)
        return NULL;
    LIST_EACH(rows, node, after)
    put_committed(&w, CONTAINER_OF(node, struct committed, link));
    return group_block_end(answer, &w);
}

void do_group_offsets(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    (void)ch;
    enum group_error error = group_asked(b, peer, c, VERB_READ);
    const struct group *g = error ? NULL : group_find(b, peer->vhost, c->ask->name);
    bool all = c->ask->flags & ASK_MULTIPLE;
    if (!error && !all && c->ask->args.len % GROUP_PLACE_BYTES)
        error = GROUP_ERR_INVALID;
    if (!error && g && g->sharing)
        error = GROUP_ERR_NO_GROUP;
    if (!error && c->ask->flags & ASK_STABLE && txn_has_staged(b, peer->vhost, c->ask->name))
        error = GROUP_ERR_UNSTABLE;
    if (!error && g && g->state == GROUP_CONSUMERS && c->ask->other.len)
        error = assignee_said(g, c);
    struct answer *answer = error ? NULL : all ? offsets_all(g) : offsets_listed(g, c->ask);
    group_say_or(b, peer, c, error, answer,
                 g ? g->offset_lsn : 0); /* what is not durable yet is seen, so it is waited for */
}

/* ---- OFFSET_DELETE ---- */

void do_group_offset_delete(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    (void)ch;
    struct writer w, log;
    struct reader r = reader_of(c->ask->args);
    uint64_t key[2];
    size_t rows = c->ask->args.len / GROUP_PLACE_BYTES;
    enum group_error error = group_asked(b, peer, c, VERB_CONFIGURE);
    struct group *g = error ? NULL : group_find(b, peer->vhost, c->ask->name);
    if (!error)
        error = !g ? GROUP_ERR_NO_GROUP : c->ask->args.len % GROUP_PLACE_BYTES ? GROUP_ERR_INVALID : GROUP_OK;
    if (!error && g->state != GROUP_EMPTY && (uint32_t)c->ask->number != g->generation)
        error = GROUP_ERR_NOT_EMPTY;
    struct answer *answer = error ? NULL : group_block(rows, &w);
    if (!answer || !offsets_log_begin(b, g, rows, 0, &log)) {
        mem_free(answer);
        group_say_or(b, peer, c, error, NULL, 0);
        return;
    }
    while (r.left) {
        struct committed *o = asked(g, &r, key);
        struct group_offset gone = {.stream = key[0], .partition = (uint32_t)key[1], .offset = UINT64_MAX};
        writer_u8(&w, stream_of(b, peer->vhost, key[0], (uint32_t)key[1]) ? GROUP_OK : GROUP_ERR_NO_STREAM);
        offsets_log_row(&log, &gone, b->wall);
        if (o)
            committed_free(b, o);
    }
    offsets_log_end(b, g, &log);
    group_rest(b, g);
    group_say(b, peer, c, GROUP_OK, group_block_end(answer, &w), g->offset_lsn);
}
