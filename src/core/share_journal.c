/* Shares in the journal: whole when one is made, moved by an administrator, or in a snapshot; else what has changed. Whole is a record
 * with the first rows, and others of what has changed with the rest, so that none is long. */
#include "core/records.h"
#include "core/share_int.h"

#define ROW_BYTES 32u
#define ROWS_ONCE 1024u /* of one record of a snapshot */

enum { CHANGED, WHOLE, GONE };

static bool begin(struct broker *b, const struct share *s, uint8_t what, uint64_t start, size_t rows, struct writer *w)
{
    if (!group_record_begin(b, s->group, REC_SHARE, 64 + rows * ROW_BYTES, w))
        return false;
    writer_varint(w, s->key[0]);
    writer_varint(w, s->key[1]);
    writer_u8(w, what);
    writer_varint(w, start);
    return true;
}

static void end(struct broker *b, struct share *s, const struct writer *w)
{
    s->lsn = group_record_end(b, w);
    s->group->journalled = true;
}

static void put(struct writer *w, const struct share_range *range)
{
    writer_varint(w, range->first);
    writer_varint(w, range->last - range->first + 1);
    writer_u8(w, range->state);
    writer_varint(w, range->count);
}

/* What is acquired will be available again after a restart, and was not delivered then (S2). */
static bool log_rows(struct broker *b, struct share *s, uint32_t from, uint32_t until)
{
    struct writer w;
    if (!begin(b, s, from ? CHANGED : WHOLE, s->ranges.start, until - from, &w))
        return false;
    for (uint32_t i = from; i < until; i++) {
        struct share_range range = s->ranges.at[i];
        if (range.state == SHARE_ACQUIRED) {
            range.state = SHARE_AVAILABLE;
            range.count--;
        }
        put(&w, &range);
    }
    end(b, s, &w);
    return true;
}

bool share_log(struct broker *b, struct share *s)
{
    uint32_t done = 0;
    do {
        uint32_t until = s->ranges.count - done < ROWS_ONCE ? s->ranges.count : done + ROWS_ONCE;
        if (!log_rows(b, s, done, until))
            return false; /* who asks again says WHOLE again */
        done = until;
    } while (done < s->ranges.count);
    return true;
}

bool share_log_move(struct broker *b, struct share *s, uint64_t start)
{
    struct writer w;
    if (!begin(b, s, WHOLE, start, 0, &w))
        return false;
    end(b, s, &w);
    return true;
}

bool share_log_gone(struct broker *b, struct share *s)
{
    struct writer w;
    if (!begin(b, s, GONE, 0, 0, &w))
        return false;
    end(b, s, &w);
    return true;
}

bool share_log_changes(struct broker *b, struct share *s, const struct share_changes *changes)
{
    struct writer w;
    size_t rows = 0;
    for (uint32_t i = 0; i < changes->count; i++)
        rows += changes->at[i].to.state != SHARE_ACQUIRED;
    if (!rows)
        return true;
    if (!begin(b, s, CHANGED, s->ranges.start, rows, &w))
        return false;
    for (uint32_t i = 0; i < changes->count; i++)
        if (changes->at[i].to.state != SHARE_ACQUIRED)
            put(&w, &changes->at[i].to);
    end(b, s, &w);
    return true;
}

/* ---- replay ---- */

static bool read_row(struct reader *r, struct share_range *ret)
{
    *ret = (struct share_range){.first = reader_varint(r)};
    uint64_t length = reader_varint(r), count;
    ret->state = reader_u8(r);
    count = reader_varint(r);
    ret->last = ret->first + length - 1;
    ret->count = (uint16_t)count;
    return reader_ok(r) && length && ret->last >= ret->first && ret->last != UINT64_MAX && count <= UINT16_MAX &&
           (ret->state == SHARE_AVAILABLE || (ret->state == SHARE_GONE && !count));
}

static bool read_rows(struct broker *b, struct share *s, struct reader *r)
{
    struct share_changes changes = {0};
    uint64_t behind = 0;
    bool good = true;
    while (good && r->left) {
        struct share_change one = {0};
        good = read_row(r, &one.to) && one.to.first >= behind && share_changes_add(&changes, &one);
        behind = one.to.last + 1;
    }
    good = good && share_apply(b, s, &changes);
    share_changes_fini(&changes);
    return good;
}

/* Of a group or stream that is not there: deleted below, or a snapshot says it again. */
bool replay_share(struct broker *b, struct reader *r)
{
    struct vhost *vhost = vhost_find(b, reader_str8(r));
    struct slice name = reader_str8(r);
    uint64_t id = reader_varint(r);
    uint32_t partition = (uint32_t)reader_varint(r);
    uint8_t what = reader_u8(r);
    uint64_t start = reader_varint(r);
    struct group *g = vhost ? group_find(b, vhost, name) : NULL;
    struct stream *stream = g ? stream_of(b, vhost, id, partition) : NULL;
    struct share *s = g ? share_find(g, id, partition) : NULL;
    if (!reader_ok(r) || what > GONE)
        return false;
    if (what != CHANGED && s) {
        share_free(b, s);
        s = NULL;
    }
    if (what == WHOLE && stream && g->sharing && !(s = share_make(b, g, stream->partitions[partition], start)))
        return false;
    if (what == GONE || !s)
        return true;
    share_trim(b, s, start);
    return read_rows(b, s, r);
}
