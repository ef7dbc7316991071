/* Groups in the journal: GROUP when one becomes stable, empty or goes, OFFSETS with each commit; the snapshot; the replay. */
#include "core/group_int.h"
#include "core/records.h"
#include "core/share_int.h"
#include "core/stream_int.h"

#define OFFSETS_RECORD 256u /* rows a record of a snapshot, at most */
#define ROW_BYTES 48u       /* most of one without its text */

/* What a GROUP says of it. */
enum {
    GONE,
    SETTLED /* empty or stable */,
    UNSETTLED /* between two generations: its members must join again */,
    SHARING /* a share group, whose members are not journalled */
};

bool group_record_begin(struct broker *b, const struct group *g, enum record_type type, size_t bytes, struct writer *w)
{
    bytes += 64 + g->key.len;
    if (!log_reserve(b, bytes, 1) || !buffer_reserve(&b->scratch, bytes))
        return false;
    *w = writer_of(b->scratch.bytes, b->scratch.max);
    writer_u8(w, (uint8_t)type);
    writer_str8(w, g->vhost->name);
    writer_str8(w, g->name);
    return true;
}

lsn_t group_record_end(struct broker *b, const struct writer *w)
{
    CHECK(writer_ok(w));
    struct slice part = writer_slice(w);
    return log_record(b, &part, 1);
}

bool group_log(struct broker *b, struct group *g)
{
    struct writer w;
    size_t bytes = 64 + 3 * NAME_MAX_BYTES;
    LIST_EACH(&g->members, node, after)
    bytes += 32 + member_bytes(CONTAINER_OF(node, struct member, link));
    if (!group_record_begin(b, g, REC_GROUP, bytes, &w))
        return false;
    writer_u8(&w, g->sharing ? SHARING : g->state == GROUP_STABLE || g->state == GROUP_EMPTY ? SETTLED : UNSETTLED);
    writer_varint(&w, (uint64_t)g->empty_since);
    writer_varint(&w, g->generation);
    writer_str8(&w, g->type);
    writer_str8(&w, g->protocol);
    writer_str8(&w, g->leader ? g->leader->id : (struct slice){0});
    LIST_EACH(&g->members, node, after)
    {
        const struct member *m = CONTAINER_OF(node, struct member, link);
        writer_str8(&w, m->id);
        writer_str8(&w, m->instance);
        writer_str8(&w, m->client);
        writer_str8(&w, m->host);
        writer_varint(&w, m->session_ms);
        writer_varint(&w, m->rebalance_ms);
        writer_str32(&w, m->protocols);
        writer_str32(&w, m->assignment);
    }
    g->lsn = group_record_end(b, &w);
    g->journalled = true;
    return true;
}

bool group_log_gone(struct broker *b, struct group *g)
{
    struct writer w;
    if (!g->journalled)
        return true;
    if (!group_record_begin(b, g, REC_GROUP, 1, &w))
        return false;
    writer_u8(&w, GONE);
    g->lsn = group_record_end(b, &w);
    return true;
}

bool offsets_log_begin(struct broker *b, const struct group *g, size_t rows, size_t text, struct writer *w)
{
    return group_record_begin(b, g, REC_OFFSETS, rows * ROW_BYTES + text, w);
}

void offsets_log_row(struct writer *w, const struct group_offset *row, wall_t at)
{
    writer_varint(w, row->stream);
    writer_varint(w, row->partition);
    writer_varint(w, row->offset + 1); /* deleted is 0 */
    writer_varint(w, row->epoch);
    writer_varint(w, (uint64_t)at);
    writer_str32(w, row->metadata);
}

void offsets_log_end(struct broker *b, struct group *g, const struct writer *w)
{
    g->offset_lsn = group_record_end(b, w);
    g->journalled = true;
}

/* ---- snapshot ---- */

static bool offsets_slice(struct broker *b, struct group *g, size_t *bytes)
{
    struct compact *k = &b->compact;
    struct writer w;
    size_t text = 0;
    unsigned n = 0;
    for (struct list *at = k->offset; at != &g->offset_list && n < OFFSETS_RECORD; at = at->next, n++)
        text += CONTAINER_OF(at, struct committed, link)->len;
    if (!offsets_log_begin(b, g, n, text, &w))
        return false;
    *bytes += n * ROW_BYTES + text;
    for (; n; n--, k->offset = k->offset->next) {
        const struct committed *o = CONTAINER_OF(k->offset, struct committed, link);
        struct group_offset row = {.stream = o->key[0], .partition = (uint32_t)o->key[1], .epoch = o->epoch};
        row.offset = o->offset;
        row.metadata = slice_of(o->metadata, o->len);
        offsets_log_row(&w, &row, o->at);
    }
    offsets_log_end(b, g, &w);
    return true;
}

/* Each group, then its offsets: what changes behind the cursor has a record of its own, which is younger (compact.c, K10). */
bool groups_snapshot(struct broker *b, size_t *bytes, bool *ret_done)
{
    struct compact *k = &b->compact;
    while (k->group != &b->group_list && *bytes < b->options.compact_slice_bytes) {
        struct group *g = CONTAINER_OF(k->group, struct group, link);
        if (!k->offset) {
            if (g->journalled && !group_log(b, g))
                return false;
            *bytes += 64 + g->bytes;
            k->offset = g->offset_list.next;
        } else if (k->offset != &g->offset_list) {
            if (!offsets_slice(b, g, bytes))
                return false;
        } else if (!k->share) {
            k->share = g->shares.next;
        } else if (k->share != &g->shares) {
            struct share *s = CONTAINER_OF(k->share, struct share, link);
            if (!share_log(b, s))
                return false;
            *bytes += 64 + share_bytes(s);
            k->share = k->share->next;
        } else {
            k->group = g->link.next;
            k->offset = k->share = NULL;
        }
    }
    *ret_done = k->group == &b->group_list;
    return true;
}

/* ---- replay ---- */

static bool read_member(struct broker *b, struct group *g, struct reader *r, struct slice leader)
{
    struct slice id = reader_str8(r), instance = reader_str8(r), client = reader_str8(r), host = reader_str8(r);
    uint64_t session = reader_varint(r), rebalance = reader_varint(r);
    struct join j = {.protocols = reader_str32(r)};
    struct slice assignment = reader_str32(r);
    if (!reader_ok(r) || session > INT32_MAX || rebalance > INT32_MAX)
        return false;
    j.session_ms = (uint32_t)session;
    j.rebalance_ms = (uint32_t)rebalance;
    struct member *m = member_make(b, g, id, instance, client, host);
    if (!m)
        return false;
    member_enlist(g, m); /* which is freed with the group */
    if (slice_equal(id, leader))
        g->leader = m;
    if (!member_update(b, m, &j) || !group_keep(b, &m->assignment, assignment))
        return false;
    g->bytes += assignment.len;
    return true;
}

static bool read_group(struct broker *b, struct group *g, struct reader *r, bool settled)
{
    g->empty_since = (wall_t)reader_varint(r);
    g->generation = (uint32_t)reader_varint(r);
    struct slice type = reader_str8(r), protocol = reader_str8(r), leader = reader_str8(r);
    LIST_EACH(&g->members, node, after)
    member_free(b, CONTAINER_OF(node, struct member, link));
    group_drop(b, &g->type);
    group_drop(b, &g->protocol);
    if (!reader_ok(r) || !group_keep(b, &g->type, type) || !group_keep(b, &g->protocol, protocol))
        return false;
    while (r->left)
        if (!read_member(b, g, r, leader))
            return false;
    g->journalled = true;
    g->revived = !g->member_count && !settled;
    g->state = !g->member_count ? GROUP_EMPTY : settled && g->leader ? GROUP_STABLE : GROUP_PREPARING;
    return reader_ok(r);
}

bool replay_group(struct broker *b, struct reader *r)
{
    struct vhost *vhost = vhost_find(b, reader_str8(r));
    struct slice name = reader_str8(r);
    uint8_t what = reader_u8(r);
    if (!reader_ok(r) || what > SHARING)
        return false;
    struct group *g = vhost ? group_find(b, vhost, name) : NULL;
    if (what == GONE && g)
        group_free(b, g);
    if (what == GONE || !vhost)
        return true;
    if (!g && !(g = group_make(b, vhost, name)))
        return false;
    g->sharing = what == SHARING;
    return read_group(b, g, r, what == SETTLED);
}

static bool replay_row(struct broker *b, struct group *g, const struct group_offset *row, wall_t at)
{
    struct stream *s = stream_of(b, g->vhost, row->stream, row->partition);
    uint64_t key[2] = {row->stream, row->partition};
    if (row->offset == UINT64_MAX) {
        struct committed *old = map_get(&g->offsets, slice_of(key, sizeof key));
        if (old)
            committed_free(b, old);
        return true;
    }
    if (!s)
        return true; /* deleted later on, or a snapshot's record of it comes later */
    struct committed *o = map_reserve(&g->offsets) ? committed_make(b, g, row, at) : NULL;
    if (o)
        committed_put(b, g, s, o);
    return o != NULL;
}

bool replay_offsets(struct broker *b, struct reader *r)
{
    struct vhost *vhost = vhost_find(b, reader_str8(r));
    struct slice name = reader_str8(r);
    struct group *g = vhost ? group_find(b, vhost, name) : NULL;
    if (vhost && !g && !(g = group_make(b, vhost, name)))
        return false;
    if (g)
        g->journalled = true;
    while (r->left) {
        struct group_offset row = {.stream = reader_varint(r)};
        row.partition = (uint32_t)reader_varint(r);
        row.offset = reader_varint(r) - 1;
        row.epoch = (uint32_t)reader_varint(r);
        wall_t at = (wall_t)reader_varint(r);
        row.metadata = reader_str32(r);
        if (!reader_ok(r) || row.metadata.len > GROUP_TEXT_MAX)
            return false;
        if (g && !replay_row(b, g, &row, at))
            return false;
    }
    return reader_ok(r);
}
