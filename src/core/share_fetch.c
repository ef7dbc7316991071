/* What a share group is given: a fetch looks for the first records that are available, one fetch of a share at a time (S3), the store
 * finds the batches, and what is in them and available is acquired when the answer leaves. Batches are given whole, so a member may
 * see records that are not its own: the answer says which are.
 *
 * A row of a member that finds nothing, or finds that another reads, waits with the share, as well as for the partition to grow.
 * So many bytes as a client would like to have at least are not waited for: a record is enough.
 */
#include "core/share_int.h"

/* The first records in [from, last] that are available, or were never given. */
static bool next_free(const struct share_ranges *r, uint64_t from, uint64_t last, struct share_range *ret)
{
    from = from < r->start ? r->start : from;
    for (uint32_t i = share_ranges_find(r, from); i < r->count && r->at[i].first <= last; i++) {
        if (r->at[i].state != SHARE_AVAILABLE)
            continue;
        *ret = r->at[i];
        ret->first = ret->first < from ? from : ret->first;
        ret->last = ret->last > last ? last : ret->last;
        return true;
    }
    from = from < r->end ? r->end : from;
    if (from > last)
        return false;
    *ret = (struct share_range){.first = from, .last = last, .state = SHARE_AVAILABLE};
    return true;
}

static struct share *find_or_make(struct broker *b, struct group *g, const struct fetch_row *row,
                                  const struct partition *p)
{
    struct share *s = share_find(g, row->stream, row->partition);
    if (s)
        return s;
    CHECK(g->state != GROUP_DEAD); /* nothing would free it */
    return share_make(b, g, p->stream, row->partition, group_config_of(g)->earliest ? p->start : row->end);
}

static void forget(struct fetch_row *row)
{
    mem_free(row->runs);
    mem_free(row->aborted);
    row->runs = NULL;
    row->aborted = NULL;
    row->run_count = row->aborted_count = 0;
    row->until = row->base = row->next = row->enough = 0;
}

static bool note_aborted(struct fetch_row *row, const struct partition *p)
{
    uint32_t count = isolation_overlaps(&p->isolation, row->offset, row->until, NULL, 0);
    row->aborted = count ? mem_alloc(count * sizeof *row->aborted) : NULL;
    if (row->aborted)
        row->aborted_count = isolation_overlaps(&p->isolation, row->offset, row->until, row->aborted, count);
    return !count || row->aborted;
}

enum fetch_result share_look(struct broker *b, struct fetch *f, struct fetch_row *row, struct partition *p)
{
    struct group *g = group_find(b, f->peer->vhost, f->sharer->name);
    struct share_range run;
    forget(row);
    f->allowed = f->allowed || authorise(b, f->peer->user, f->peer->vhost, VERB_READ, f->sharer->name);
    if (!f->allowed)
        return FETCH_GROUP_REFUSED;
    if (!g || !g->sharing || g->state == GROUP_DEAD)
        return FETCH_NO_GROUP;
    struct share *s = find_or_make(b, g, row, p);
    if (!s)
        return FETCH_TROUBLE;
    const struct group_config *config = group_config_of(g);
    uint64_t until = config->committed && row->stable < p->seen ? row->stable : p->seen;
    share_trim(b, s, p->start); /* what retention has taken */
    f->lsn = s->lsn > f->lsn ? s->lsn : f->lsn;
    f->lock_ms = config->lock_ms;
    if (share_is_full(s) && timer_is_set(&s->timer)) /* until more of what is acquired is done with */
        return FETCH_OK;
    if (s->busy || s->ranges.start >= until || !next_free(&s->ranges, 0, until - 1, &run))
        return FETCH_OK;
    uint64_t room = s->ranges.live < config->locks_max ? config->locks_max - s->ranges.live : 0;
    if (run.first >= s->ranges.end && !room)
        return FETCH_OK;
    uint64_t most = f->sharer->number ? f->sharer->number : 1;
    uint64_t limit =
        (run.first < s->ranges.end ? s->ranges.end : run.first) + room; /* also when some are given again */
    row->offset = run.first;
    row->until = until;
    row->enough = limit - run.first < most ? limit : run.first + most;
    if (config->committed && !note_aborted(row, p))
        return FETCH_TROUBLE;
    s->busy = row;
    row->share = s;
    return FETCH_OK;
}

void share_wait(struct fetch_row *row, const struct fetch *f, struct broker *b)
{
    struct group *g = group_find(b, f->peer->vhost, f->sharer->name);
    struct share *s = g ? share_find(g, row->stream, row->partition) : NULL;
    if (s)
        list_insert(&s->waiting, &row->share_link);
}

/* ---- what the store has found ---- */

/* Of [first, last] what is not given yet is not there for anybody. False: no memory. */
static bool give_up(struct broker *b, struct share *s, uint64_t first, uint64_t last)
{
    struct share_range run;
    while (next_free(&s->ranges, first, last, &run)) {
        run.state = SHARE_GONE;
        run.count = 0;
        if (!share_reserve(b, s, 1))
            return false;
        share_ranges_set(&s->ranges, &run);
    }
    return true;
}

static bool give_up_holes(struct broker *b, struct share *s, const struct fetch_row *row)
{
    uint64_t base = row->piece.len ? row->base : row->next;
    if (base > row->offset && !give_up(b, s, row->offset, base - 1))
        return false;
    for (uint32_t i = 0; i < row->run_count; i++)
        if (!give_up(b, s, row->runs[i].first, row->runs[i].last))
            return false;
    return true;
}

static bool add_run(struct fetch_row *row, const struct share_range *run)
{
    if (row->run_count && row->runs[row->run_count - 1].last + 1 == run->first &&
        row->runs[row->run_count - 1].deliveries == run->count) {
        row->runs[row->run_count - 1].last = run->last;
        return true;
    }
    if (!(row->run_count & (row->run_count + 1))) {
        struct offset_run *grown = mem_realloc(row->runs, (2 * (size_t)row->run_count + 1) * sizeof *grown);
        if (!grown)
            return false;
        row->runs = grown;
    }
    row->runs[row->run_count++] = (struct offset_run){.first = run->first, .last = run->last, .deliveries = run->count};
    return true;
}

/* left: of the records that are wanted. */
static void acquire(struct broker *b, struct fetch *f, struct fetch_row *row, struct sharer *who, uint64_t *left)
{
    struct share *s = row->share;
    struct share_range run;
    bool strict = f->sharer->flags & ASK_STRICT;
    uint64_t got = 0;
    mono_t until = b->now + (int64_t)f->lock_ms * NS_PER_MS;
    for (uint64_t at = row->offset; at < row->next && *left && next_free(&s->ranges, at, row->next - 1, &run);) {
        if (strict && run.last - run.first >= *left)
            run.last = run.first + *left - 1;
        uint64_t count = run.last - run.first + 1;
        run.state = SHARE_ACQUIRED;
        run.count++;
        run.holder = who;
        run.until = until;
        if (!share_reserve(b, s, 1) || !add_run(row, &run))
            break; /* what has been acquired is given */
        share_ranges_set(&s->ranges, &run);
        who->held += count;
        at = run.last + 1;
        got += count;
        if (strict)
            *left -= count;
    }
    if (!strict) /* batches are whole: what is over the wish is given all the same, but nothing more */
        *left -= got < *left ? got : *left;
    if (row->run_count && !timer_is_set(&s->timer))
        wheel_set(&b->wheel, &s->timer, until);
}

static void take_row(struct broker *b, struct fetch *f, struct fetch_row *row, uint64_t *left, bool *ret_more)
{
    struct share *s = row->share;
    if (row->result != FETCH_OK || !s) {
        file_piece_fini(&row->piece);
        forget(row); /* the store's runs are not what it was given */
        if (row->result == FETCH_OK)
            row->result = fetch_partition_of(b, row->stream, row->partition) ? FETCH_NO_GROUP : FETCH_UNKNOWN;
        return;
    }
    uint64_t start = s->ranges.start, end = s->ranges.end, live = s->ranges.live;
    struct sharer *who = NULL;
    if (!give_up_holes(b, s, row) || !(who = sharer_make(b, s->group, f->peer, f->sharer->other)))
        row->result = FETCH_TROUBLE;
    mem_free(row->runs);
    row->runs = NULL;
    row->run_count = 0;
    if (who && row->piece.len)
        acquire(b, f, row, who, left);
    if (who)
        sharer_tidy(b, who);
    if (!row->run_count)
        file_piece_fini(&row->piece);
    *ret_more = *ret_more || start != s->ranges.start || end != s->ranges.end || live != s->ranges.live;
}

void share_leave(struct broker *b, struct fetch *f)
{
    for (uint32_t i = 0; f->sharer && i < f->count; i++) {
        struct share *s = f->rows[i].share;
        f->rows[i].share = NULL;
        if (!s)
            continue;
        s->busy = NULL;
        if (!b->recovering)
            share_wake(b, s);
    }
}

void share_take(struct broker *b, struct fetch *f, bool *ret_more)
{
    uint64_t left = f->sharer->number ? f->sharer->number : 1;
    *ret_more = false;
    for (uint32_t i = 0; i < f->count; i++)
        if (f->rows[i].until > f->rows[i].offset)
            take_row(b, f, &f->rows[i], &left, ret_more);
}
