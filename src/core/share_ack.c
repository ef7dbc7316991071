/* SHARE_ACK: what a member says of the records that it has acquired, partition by partition: all of what it says of one, or nothing. */
#include "core/share_int.h"

struct said { /* of a partition */
    uint64_t stream;
    uint32_t partition, batches;
};

static bool read_said(struct reader *r, struct said *ret)
{
    ret->stream = reader_u64(r);
    ret->partition = reader_u32(r);
    ret->batches = reader_u32(r);
    return reader_ok(r);
}

static struct slice read_batch(struct reader *r, uint64_t *first, uint64_t *last)
{
    *first = reader_u64(r);
    *last = reader_u64(r);
    return reader_str32(r);
}

/* How many partitions; -1: it is no such block. */
static int64_t count_said(struct reader r)
{
    struct said said;
    int64_t n = 0;
    for (; r.left; n++) {
        if (!read_said(&r, &said))
            return -1;
        for (uint32_t i = 0; i < said.batches; i++) {
            uint64_t first, last;
            (void)read_batch(&r, &first, &last);
            if (!reader_ok(&r))
                return -1;
        }
    }
    return n;
}

static struct share_range becomes(struct broker *b, const struct share *s, const struct share_range *range, uint8_t ack)
{
    struct share_range to = {.first = range->first, .last = range->last, .state = SHARE_GONE};
    if (ack == SHARE_ACK_RELEASE)
        return share_given_back(s, range);
    if (ack != SHARE_ACK_RENEW)
        return to;
    to = *range;
    to.until = b->now + (int64_t)group_config_of(s->group)->lock_ms * NS_PER_MS;
    return to;
}

/* Neighbours that become the same are one change, so more changes than these are more ranges than a share may have. */
static bool are_too_many(const struct share *s, const struct share_changes *changes)
{
    return changes->count > share_ranges_max(s) + (uint64_t)s->ranges.count + 4;
}

/* One word for the records first to last, which are its own. who NULL: it has none. */
static enum group_error say(struct broker *b, const struct share *s, const struct sharer *who, uint64_t first,
                            uint64_t last, uint8_t ack, struct share_changes *changes)
{
    const struct share_ranges *r = &s->ranges;
    if (last < r->start)
        return GROUP_OK; /* the start has moved over it */
    if (last >= r->end)  /* nobody was given that */
        return GROUP_ERR_INVALID;
    first = first < r->start ? r->start : first;
    for (uint32_t i = share_ranges_find(r, first); i < r->count && r->at[i].first <= last; i++) {
        struct share_range part = r->at[i];
        if (part.state != SHARE_ACQUIRED || part.holder->who != who)
            return GROUP_ERR_RECORD_STATE;
        if (ack == SHARE_ACK_RENEW && group_config_of(s->group)->no_renewal)
            return GROUP_ERR_RECORD_STATE;
        part.first = part.first < first ? first : part.first;
        part.last = part.last > last ? last : part.last;
        struct share_change one = {.to = becomes(b, s, &part, ack), .from = part.holder};
        if (!share_changes_add(changes, &one) || are_too_many(s, changes))
            return GROUP_ERR_NO_MEMORY;
    }
    return GROUP_OK;
}

/* Words for each record, or one for all. Neighbours that hear the same are one. */
static enum group_error say_batch(struct broker *b, const struct share *s, const struct sharer *who, struct reader *r,
                                  struct share_changes *changes, uint64_t *behind)
{
    uint64_t first, last;
    struct slice acks = read_batch(r, &first, &last);
    enum group_error error = GROUP_OK;
    if (last < first || last > INT64_MAX || !acks.len || (acks.len > 1 && acks.len != last - first + 1))
        return GROUP_ERR_INVALID;
    if (first < *behind) /* the one before has said of them already */
        return GROUP_ERR_RECORD_STATE;
    *behind = last + 1;
    for (size_t i = 0; i < acks.len; i++)
        if (acks.ptr[i] >= SHARE_ACKS)
            return GROUP_ERR_INVALID;
    if (acks.len == 1)
        return say(b, s, who, first, last, acks.ptr[0], changes);
    for (size_t from = 0, i = 1; !error && i <= acks.len; i++) {
        if (i < acks.len && acks.ptr[i] == acks.ptr[from])
            continue;
        error = say(b, s, who, first + from, first + i - 1, acks.ptr[from], changes);
        from = i;
    }
    return error;
}

static enum group_error say_all(struct broker *b, struct share *s, const struct sharer *who, uint32_t batches,
                                struct reader *r)
{
    struct share_changes changes = {0};
    enum group_error error = GROUP_OK;
    uint64_t behind = 0;
    for (uint32_t i = 0; i < batches; i++) {
        struct reader rest = *r;
        uint64_t first, last;
        (void)read_batch(&rest, &first, &last); /* each is read, whatever becomes of it */
        if (!error)
            error = say_batch(b, s, who, r, &changes, &behind);
        *r = rest;
    }
    if (!error && share_would_burst(s, &changes))
        error = GROUP_ERR_NO_MEMORY;
    if (!error && changes.count && !share_commit(b, s, &changes))
        error = GROUP_ERR_NO_MEMORY;
    bool any = !error && changes.count;
    share_changes_fini(&changes);
    if (any)
        share_wake(b, s);
    return error;
}

static void skip(struct reader *r, uint32_t batches)
{
    uint64_t first, last;
    for (uint32_t i = 0; i < batches; i++)
        (void)read_batch(r, &first, &last);
}

void do_share_ack(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    (void)ch;
    struct writer w;
    struct said said;
    struct reader r = reader_of(c->ask->args);
    enum group_error error = group_asked(b, peer, c, VERB_READ);
    struct group *g = error ? NULL : group_find(b, peer->vhost, c->ask->name);
    int64_t count = count_said(r);
    lsn_t lsn = 0;
    if (!error)
        error = count < 0 ? GROUP_ERR_INVALID : !g || !g->sharing ? GROUP_ERR_NO_GROUP : GROUP_OK;
    struct answer *answer = error ? NULL : group_block((size_t)count, &w);
    while (answer && r.left && read_said(&r, &said)) {
        struct share *s = share_find(g, said.stream, said.partition);
        if (!s) {
            skip(&r, said.batches);
            writer_u8(&w, GROUP_ERR_NO_STREAM);
            continue;
        }
        /* he is gone with the last record that he has */
        writer_u8(&w, (uint8_t)say_all(b, s, sharer_find(g, c->ask->other), said.batches, &r));
        lsn = s->lsn > lsn ? s->lsn : lsn;
    }
    if (answer && c->ask->flags & ASK_MULTIPLE) /* its session is over */
        sharer_release(b, g, c->ask->other);
    group_say_or(b, peer, c, error, answer ? group_block_end(answer, &w) : NULL, lsn);
}
