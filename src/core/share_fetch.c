/* What a share group is given: a fetch looks for the first records that are available, one fetch of a share at a time (S3), the store
 * finds the batches, and what is in them and available is acquired when the answer leaves. Batches are given whole, so a member may
 * see records that are not its own: the answer says which are.
 *
 * A row of a member that finds nothing, or finds that another reads, waits with the share, which is told when its partition grows.
 * So many bytes as a client would like to have at least are not waited for: a record is enough.
 */
#include "core/share_int.h"

/* The first records in [from, last] that are available, or were never given. */
static bool next_free(const struct share_ranges *r, uint64_t from, uint64_t last, struct share_range *ret)
{
    from = from < r->start ? r->start : from;
    uint32_t i = r->available ? share_ranges_find(r, from) : r->count;
    for (; i < r->count && r->at[i].first <= last; i++) {
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

static struct share *make(struct broker *b, struct group *g, struct partition *p, uint64_t start)
{
    CHECK(g->state != GROUP_DEAD); /* nothing would free it */
    return share_make(b, g, p, start > p->start ? start : p->start);
}

/* A share that does not begin at an end of its partition begins with the first record that is not older than so long ago, as Kafka's: the
 * store looks for that, and the share is made when it has. Two members may look at once; who is told first makes it. */
static bool seek(struct broker *b, const struct group_config *config, struct fetch_row *row, const struct partition *p)
{
    if (!config->since_ms || p->start >= p->seen) /* what is not readable yet is young */
        return false;
    row->at = FETCH_AT_TIME;
    row->time = b->wall - config->since_ms;
    row->offset = p->start;
    row->until = p->seen;
    return true;
}

static uint64_t begins_at(const struct group_config *config, const struct fetch_row *row, const struct partition *p)
{
    return config->since_ms ? p->seen : config->earliest ? p->start : row->end;
}

static void forget(struct fetch_row *row)
{
    mem_free(row->runs);
    mem_free(row->aborted);
    row->runs = NULL;
    row->aborted = NULL;
    row->run_count = row->aborted_count = 0;
    row->offset = row->until = row->base = row->next = row->enough = 0;
    row->at = FETCH_AT_START;
}

static bool note_aborted(struct fetch_row *row, const struct partition *p)
{
    uint32_t count = isolation_overlaps(&p->isolation, row->offset, row->until, NULL, 0);
    row->aborted = count ? mem_alloc(count * sizeof *row->aborted) : NULL;
    if (row->aborted)
        row->aborted_count = isolation_overlaps(&p->isolation, row->offset, row->until, row->aborted, count);
    return !count || row->aborted;
}

/* A right may be taken away while a block is parked. */
static bool is_allowed(struct broker *b, struct fetch *f)
{
    if (f->allowed != b->topology_gen && authorise(b, f->peer->user, f->peer->vhost, VERB_READ, f->sharer->name))
        f->allowed = b->topology_gen;
    return f->allowed == b->topology_gen;
}

enum fetch_result share_look(struct broker *b, struct fetch *f, struct fetch_row *row, struct partition *p)
{
    struct group *g = group_find(b, f->peer->vhost, f->sharer->name);
    struct share_range run;
    forget(row);
    if (!is_allowed(b, f))
        return FETCH_GROUP_REFUSED;
    if (!g || !g->sharing || g->state == GROUP_DEAD)
        return FETCH_NO_GROUP;
    const struct group_config *config = group_config_of(g);
    struct share *s = share_find(g, row->stream, row->partition);
    if (!s && seek(b, config, row, p))
        return FETCH_OK;
    if (!s && !(s = make(b, g, p, begins_at(config, row, p))))
        return FETCH_TROUBLE;
    uint64_t until = config->committed && row->stable < p->seen ? row->stable : p->seen;
    share_trim(b, s, p->start); /* what retention has taken */
    f->lsn = s->lsn > f->lsn ? s->lsn : f->lsn;
    f->lock_ms = config->lock_ms;
    row->turn = s->busy ? s->turn - 1 : s->turn;     /* what another reads for is not looked at yet */
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
    if (config->committed && !note_aborted(row, p)) {
        forget(row);
        return FETCH_TROUBLE;
    }
    s->busy = row;
    row->share = s;
    row->moved = false;
    return FETCH_OK;
}

bool share_park(struct broker *b, struct fetch *f)
{
    const struct group *g = group_find(b, f->peer->vhost, f->sharer->name);
    bool again = false;
    for (uint32_t i = 0; i < f->count; i++) {
        struct fetch_row *row = &f->rows[i];
        if (row->result != FETCH_OK)
            continue;
        struct partition *p = fetch_partition_of(b, row->stream, row->partition);
        struct share *s = g ? share_find(g, row->stream, row->partition) : NULL;
        if (!p || !s)
            return false;             /* it went meanwhile */
        row->offset = row->until = 0; /* nothing for the store, when another row has something */
        fetch_see(b, p);
        again = again || row->filled != p->seen_bytes || share_should_look(s, row);
        share_wait(s, row);
        fetch_expect(b, p);
    }
    return !again;
}

/* ---- what the store has found ---- */

/* What it takes of a row. */
struct taking {
    struct share_changes changes;
    struct share_hold *hold; /* NULL: there is nothing to be acquired */
    mono_t until;
    uint64_t left; /* of the records that are wanted, by this row and those behind it */
    bool strict;   /* no more than those; else batches are whole */
};

/* The part of the run, from its beginning on, that is of one kind. True: it is not there for anybody. *dead: of the store's runs. */
static bool is_hole(const struct fetch_row *row, struct share_range *run, uint32_t *dead)
{
    uint64_t base = row->piece.len ? row->base : row->next;
    while (*dead < row->run_count && row->runs[*dead].last < run->first)
        ++*dead;
    const struct offset_run *next = *dead < row->run_count ? &row->runs[*dead] : NULL;
    bool before = run->first < base, within = next && next->first <= run->first;
    uint64_t end = before ? base : within ? next->last + 1 : next ? next->first : UINT64_MAX;
    run->last = run->last < end ? run->last : end - 1;
    return before || within;
}

/* False: no memory. */
static bool sort_out(const struct fetch_row *row, struct taking *t)
{
    const struct share_ranges *r = &row->share->ranges;
    struct share_range run;
    uint64_t got = 0;
    uint32_t dead = 0;
    bool wants = t->hold && t->left;
    for (uint64_t at = row->offset; at < row->next && next_free(r, at, row->next - 1, &run); at = run.last + 1) {
        struct share_change one = {0};
        if (is_hole(row, &run, &dead)) {
            one.to = (struct share_range){.first = run.first, .last = run.last, .state = SHARE_GONE};
        } else {
            if (!wants || (t->strict && got == t->left))
                break;
            if (t->strict && run.last - run.first >= t->left - got)
                run.last = run.first + (t->left - got) - 1;
            one.to = run;
            one.to.state = SHARE_ACQUIRED;
            one.to.count++;
            one.to.holder = t->hold;
            one.to.until = t->until;
            got += run.last - run.first + 1;
        }
        if (!share_changes_add(&t->changes, &one))
            return false;
    }
    t->left -= got < t->left ? got : t->left; /* what is over the wish is given all the same, but nothing more */
    return true;
}

/* What is told of a row. False: no memory. */
static bool tell(struct fetch_row *row, const struct share_changes *changes)
{
    uint32_t count = 0;
    mem_free(row->runs);
    row->runs = NULL;
    row->run_count = 0;
    for (uint32_t i = 0; i < changes->count; i++)
        count += changes->at[i].to.state == SHARE_ACQUIRED;
    row->runs = count ? mem_alloc(count * sizeof *row->runs) : NULL;
    for (uint32_t i = 0; row->runs && i < changes->count; i++) {
        const struct share_range *to = &changes->at[i].to;
        if (to->state == SHARE_ACQUIRED)
            row->runs[row->run_count++] =
                (struct offset_run){.first = to->first, .last = to->last, .deliveries = to->count};
    }
    return row->run_count == count;
}

static void take_row(struct broker *b, struct fetch *f, struct fetch_row *row, struct taking *t)
{
    struct share *s = row->share;
    if (row->result != FETCH_OK || !s) {
        file_piece_fini(&row->piece);
        forget(row); /* the store's runs are not what it was given */
        if (row->result == FETCH_OK)
            row->result = fetch_partition_of(b, row->stream, row->partition) ? FETCH_NO_GROUP : FETCH_UNKNOWN;
        return;
    }
    t->changes.count = 0;
    t->hold = row->piece.len && t->left ? share_hold_make(b, s, f->peer, f->sharer->other) : NULL;
    bool good = t->hold || !row->piece.len || !t->left;
    good = good && sort_out(row, t) && tell(row, &t->changes) && share_apply(b, s, &t->changes);
    if (!good) {
        forget(row);
        row->result = FETCH_TROUBLE;
    }
    row->moved = good && t->changes.count;
    if (t->hold)
        share_hold_tidy(b, t->hold);
    if (!row->run_count)
        file_piece_fini(&row->piece);
}

/* The store has looked where the share begins: at row->offset, which is behind all that it has looked at when nothing there is young enough. */
static enum fetch_result found(struct broker *b, const struct fetch *f, const struct fetch_row *row)
{
    struct group *g = group_find(b, f->peer->vhost, f->sharer->name);
    struct partition *p = fetch_partition_of(b, row->stream, row->partition);
    if (row->result != FETCH_OK)
        return row->result;
    if (!p)
        return FETCH_UNKNOWN;
    if (!g || !g->sharing || g->state == GROUP_DEAD)
        return FETCH_NO_GROUP;
    return share_find(g, row->stream, row->partition) || make(b, g, p, row->offset) ? FETCH_OK : FETCH_TROUBLE;
}

void share_take(struct broker *b, struct fetch *f, bool *ret_more)
{
    struct taking t = {.left = f->sharer->number ? f->sharer->number : 1,
                       .until = b->now + (int64_t)f->lock_ms * NS_PER_MS,
                       .strict = f->sharer->flags & ASK_STRICT};
    *ret_more = false;
    for (uint32_t i = 0; i < f->count; i++) {
        struct fetch_row *row = &f->rows[i];
        bool sought = row->at == FETCH_AT_TIME;
        if (sought) {
            row->result = (uint8_t)found(b, f, row);
            forget(row);
        } else if (row->until > row->offset)
            take_row(b, f, row, &t);
        else
            continue;
        *ret_more = *ret_more || sought || row->moved;
    }
    share_changes_fini(&t.changes);
}

void share_leave(struct broker *b, struct fetch *f)
{
    for (uint32_t i = 0; f->sharer && i < f->count; i++) {
        struct fetch_row *row = &f->rows[i];
        struct share *s = row->share;
        row->share = NULL;
        if (!s)
            continue;
        s->busy = NULL;
        if (b->recovering) /* the broker is being freed */
            continue;
        if (row->moved)
            share_wake(b, s);
        else
            share_pass_on(b, s);
    }
}
