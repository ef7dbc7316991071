/* What administrators ask of shares: SHARE_OFFSETS, where a group is; SHARE_ALTER, where it shall go on; SHARE_FORGET, that it finds anew
 * where to begin. */
#include "core/share_int.h"

/* Records that are not done with, up to the end: below 0 if the group begins behind it. */
static int64_t lag_of(struct broker *b, const struct share *s)
{
    return (int64_t)(partition_durable(b, s->partition) - s->ranges.end + s->ranges.live);
}

static void put_place(struct writer *w, uint64_t stream, uint32_t partition)
{
    writer_u64(w, stream);
    writer_u32(w, partition);
}

static void put_share(struct broker *b, struct writer *w, const struct share *s)
{
    put_place(w, s->key[0], (uint32_t)s->key[1]);
    writer_u64(w, s->ranges.start + 1);
    writer_u64(w, (uint64_t)lag_of(b, s));
}

/* Nothing was read of it yet. */
static void put_nothing(struct writer *w, uint64_t stream, uint32_t partition)
{
    put_place(w, stream, partition);
    writer_u64(w, 0);
    writer_u64(w, (uint64_t)-1);
}

static struct answer *listed(struct broker *b, const struct group *g, struct reader r)
{
    struct writer w;
    struct answer *answer = group_block(r.left / GROUP_PLACE_BYTES * SHARE_OFFSET_BYTES, &w);
    while (answer && r.left) {
        uint64_t stream = reader_u64(&r);
        uint32_t partition = reader_u32(&r);
        const struct share *s = share_find(g, stream, partition);
        if (s)
            put_share(b, &w, s);
        else
            put_nothing(&w, stream, partition);
    }
    return answer ? group_block_end(answer, &w) : NULL;
}

/* What it reads, and what its members are to read. */
static struct answer *listed_all(struct broker *b, const struct group *g)
{
    struct writer w;
    size_t rows = g->share_map.count;
    LIST_EACH(&g->assignees, node, after)
    rows += CONTAINER_OF(node, struct assignee, link)->assigned.count;
    struct answer *answer = group_block(rows * SHARE_OFFSET_BYTES, &w);
    if (!answer)
        return NULL;
    LIST_EACH(&g->shares, node, after)
    put_share(b, &w, CONTAINER_OF(node, struct share, link));
    LIST_EACH(&g->assignees, node, after)
    {
        const struct portions *mine = &CONTAINER_OF(node, struct assignee, link)->assigned;
        for (uint32_t i = 0; i < mine->count; i++)
            if (!share_find(g, mine->at[i].stream, mine->at[i].partition))
                put_nothing(&w, mine->at[i].stream, mine->at[i].partition);
    }
    return group_block_end(answer, &w);
}

void do_share_offsets(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    (void)ch;
    enum group_error error = group_asked(b, peer, c, VERB_READ);
    const struct group *g = error ? NULL : group_find(b, peer->vhost, c->ask->name);
    bool all = c->ask->flags & ASK_MULTIPLE;
    lsn_t lsn = 0;
    if (!error && c->ask->args.len % GROUP_PLACE_BYTES)
        error = GROUP_ERR_INVALID;
    if (!error && (!g || !g->sharing))
        error = GROUP_ERR_NO_GROUP;
    struct answer *answer = error ? NULL : all ? listed_all(b, g) : listed(b, g, reader_of(c->ask->args));
    if (g) /* what is not durable yet is seen, so it is waited for */
        LIST_EACH(&g->shares, node, after)
        {
            const struct share *s = CONTAINER_OF(node, struct share, link);
            lsn = s->lsn > lsn ? s->lsn : lsn;
        }
    group_say_or(b, peer, c, error, answer, lsn);
}

/* ---- what changes them ---- */

/* A group that shares, and that nobody is in; *g NULL: there is none. */
static enum group_error may_change(struct broker *b, const struct peer *peer, const struct command *c, enum verb verb,
                                   struct group **ret)
{
    enum group_error error = group_asked(b, peer, c, verb);
    struct group *g = *ret = error ? NULL : group_find(b, peer->vhost, c->ask->name);
    if (error || !g)
        return error;
    if (g->state != GROUP_EMPTY && g->sharing)
        return GROUP_ERR_NOT_EMPTY;
    return g->sharing ? GROUP_OK : share_group_may_begin(g) ? GROUP_OK : GROUP_ERR_NO_GROUP;
}

static enum group_error alter(struct broker *b, const struct peer *peer, struct group *g, struct reader *r,
                              uint64_t *allowed, lsn_t *lsn)
{
    struct group_offset row = {.stream = reader_u64(r), .partition = reader_u32(r)};
    row.offset = reader_u64(r);
    enum group_error error = group_row_check(b, peer, &row, allowed);
    if (error)
        return error;
    struct share *s = share_find(g, row.stream, row.partition);
    bool good = !s && row.offset > INT64_MAX; /* there is nothing to forget */
    if (s && row.offset > INT64_MAX) {
        good = share_log_gone(b, s);
        *lsn = good ? s->lsn : *lsn;
        if (good)
            share_free(b, s);
    } else if (s) {
        good = share_move(b, s, row.offset);
    } else if (!good) {
        struct stream *stream = stream_of(b, g->vhost, row.stream, row.partition);
        s = share_make(b, g, stream->partitions[row.partition], row.offset);
        good = s != NULL;
    }
    if (good && s && row.offset <= INT64_MAX)
        *lsn = s->lsn;
    return good ? GROUP_OK : GROUP_ERR_NO_MEMORY;
}

void do_share_alter(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    (void)ch;
    struct writer w;
    struct group *g;
    struct reader r = reader_of(c->ask->args);
    size_t rows = r.left / SHARE_ALTER_BYTES;
    uint64_t allowed = 0;
    lsn_t lsn = 0;
    enum group_error error = may_change(b, peer, c, VERB_READ, &g);
    if (!error && r.left % SHARE_ALTER_BYTES)
        error = GROUP_ERR_INVALID;
    struct answer *answer = error ? NULL : group_block(rows, &w);
    if (answer && rows && !g)
        g = group_make(b, peer->vhost, c->ask->name);
    if (answer && rows && (!g || !share_group_begin(b, g))) {
        mem_free(answer);
        answer = NULL;
        if (g)
            group_rest(b, g);
    }
    while (answer && r.left)
        writer_u8(&w, (uint8_t)alter(b, peer, g, &r, &allowed, &lsn));
    if (answer && rows)
        group_rest(b, g);
    if (answer && g)
        lsn = g->lsn > lsn ? g->lsn : lsn;
    group_say_or(b, peer, c, error, answer ? group_block_end(answer, &w) : NULL, lsn);
}

/* All partitions of the stream. */
static enum group_error forget(struct broker *b, const struct peer *peer, const struct group *g, uint64_t id,
                               lsn_t *lsn)
{
    const struct stream *stream = stream_of(b, peer->vhost, id, 0);
    bool any = false;
    for (uint32_t i = 0; g && stream && i < stream->partition_count; i++) {
        struct share *s = share_find(g, id, i);
        if (!s)
            continue;
        if (!authorise(b, peer->user, peer->vhost, VERB_READ, stream->queue->name))
            return GROUP_ERR_STREAM_REFUSED;
        if (!share_log_gone(b, s))
            return GROUP_ERR_NO_MEMORY;
        *lsn = s->lsn;
        share_free(b, s);
        any = true;
    }
    return any ? GROUP_OK : GROUP_ERR_NO_STREAM;
}

void do_share_forget(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    (void)ch;
    struct writer w;
    struct group *g;
    struct reader r = reader_of(c->ask->args);
    lsn_t lsn = 0;
    enum group_error error = may_change(b, peer, c, VERB_CONFIGURE, &g);
    if (!error && !g)
        error = GROUP_ERR_NO_GROUP;
    if (!error && r.left % sizeof(uint64_t))
        error = GROUP_ERR_INVALID;
    struct answer *answer = error ? NULL : group_block(r.left / sizeof(uint64_t), &w);
    while (answer && r.left)
        writer_u8(&w, (uint8_t)forget(b, peer, g, reader_u64(&r), &lsn));
    if (answer)
        group_rest(b, g);
    group_say_or(b, peer, c, error, answer ? group_block_end(answer, &w) : NULL, lsn);
}
