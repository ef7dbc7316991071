/* Frames of rows in the order of their times, each used once, when the watermark has passed it; see op_over.h. */
#include "sql/query/op_aggregate.h"
#include "sql/query/over_rows.h"

/* When the row can be used. */
static int64_t end_of(const struct over *o, const struct over_row *row)
{
    return time_plus(row->at, 1 - o->rule.offset);
}

bool over_time_add(struct over *o, struct over_row *row)
{
    ordered_add(&o->pending, &row->node);
    return true;
}

/* -------------------------------------------------------------------------------------------------------------- queues */

static bool sum_front(struct over *o, struct step *step, struct over_row *last)
{
    for (struct over_row *row = last; row; row = over_row_of(row->node.before)) {
        if (!over_add(o, step, row->cells, row))
            return false;
        struct over_row *next = row == last ? NULL : over_row_of(row->node.after);
        if (next && !aggregates_merge(o->aggregates, o->aggregate_count, &o->op.account, row->cells, next->cells))
            return op_fail(step, SQL_FAULT_MEMORY);
    }
    return true;
}

static bool drop_first(struct over *o, struct step *step, struct over_queue *q)
{
    struct over_row *first = q->first;
    if (o->cell_count && !q->front_last) {
        if (!sum_front(o, step, q->last))
            return false;
        q->front_last = q->last;
        aggregates_fini(o->aggregates, o->aggregate_count, &o->op.account, q->back);
    }
    if (first == q->front_last)
        q->front_last = NULL;
    q->first = over_row_of(first->node.after);
    if (q->first)
        q->first->node.before = NULL;
    else
        q->last = NULL;
    q->count--;
    over_row_free(o, first);
    return true;
}

static void append(struct over_queue *q, struct over_row *row)
{
    row->node.before = q->last ? &q->last->node : NULL;
    row->node.after = NULL;
    *(q->last ? &q->last->node.after : (struct ordered_row **)&q->first) = &row->node;
    q->last = row;
    q->count++;
    row->kept = true;
}

/* Whether rows are kept after they have been used, until they leave the frame. */
static bool keeps(const struct over *o)
{
    return !o->rule.unbounded;
}

/* So many rows a partition keeps. */
static uint64_t most_kept(const struct over *o)
{
    return keeps(o) ? UINT32_MAX : o->first_rows;
}

static bool enter(struct over *o, struct step *step, struct over_row *row)
{
    struct over_queue *q = over_queue(row->of);
    if (o->aggregate_count && !over_add(o, step, q->back, row))
        return false;
    if (q->count < most_kept(o))
        append(q, row);
    q->newest = row;
    return true;
}

/* What is in the frame of no later row, nor of this one. */
static bool leave(struct over *o, struct step *step, const struct over_row *row)
{
    struct over_queue *q = over_queue(row->of);
    int64_t least = over_least(o, row->at);
    while (keeps(o) && (o->rule.rows ? q->count > (uint64_t)o->rule.reach + 1 : q->first->at < least))
        if (!drop_first(o, step, q))
            return false;
    return true;
}

static bool emit(struct over *o, struct step *step, uint32_t origin, const struct over_row *row)
{
    struct over_queue *q = over_queue(row->of);
    const struct aggregate *a = o->aggregates;
    const struct over_view view = {.first = q->first, .last = q->newest};
    if (!o->aggregate_count || o->rule.unbounded)
        return over_emit(o, step, origin, 1, row, q->back, &view);
    bool ok = (!q->front_last || aggregates_merge(a, o->aggregate_count, &o->op.account, o->sum, q->first->cells)) &&
              aggregates_merge(a, o->aggregate_count, &o->op.account, o->sum, q->back);
    ok = ok ? over_emit(o, step, origin, 1, row, o->sum, &view) : op_fail(step, SQL_FAULT_MEMORY);
    aggregates_fini(a, o->aggregate_count, &o->op.account, o->sum);
    return ok;
}

/* With RANGE, rows that are equal in the order are used together, else each by itself. */
static bool settle_some(struct over *o, struct step *step)
{
    struct over_row *all = over_row_of(o->pending.first), *last = NULL;
    uint32_t origin = clock_origin(o->rule.clock, step, end_of(o, all));
    bool ok = true;
    for (struct over_row *row = all; row && (!last || (!o->rule.rows && over_peers(row, last)));
         row = over_row_of(o->pending.first)) {
        ordered_remove(&o->pending, &row->node);
        row->next = NULL;
        if (last)
            last->next = row;
        last = row;
    }
    for (struct over_row *row = all, *next; row; row = next) {
        next = row->next;
        if (!ok)
            over_row_free(o, row);
        else if (!(ok = enter(o, step, row)))
            over_row_free(o, row);
    }
    for (struct over_row *row = all, *next; ok && row; row = next) {
        next = row->next;
        ok = leave(o, step, row) && emit(o, step, origin, row);
        if (!row->kept)
            over_row_free(o, row);
    }
    return ok;
}

bool over_time_settle(struct over *o, struct step *step, int64_t watermark)
{
    while (o->pending.first && end_of(o, over_row_of(o->pending.first)) <= watermark)
        if (!settle_some(o, step))
            return false;
    return true;
}

/* --------------------------------------------------------------------------------------------------------- snapshots */

static uint32_t front_count(const struct over_queue *q)
{
    uint32_t count = 0;
    for (const struct over_row *row = q->front_last ? q->first : NULL; row; row = over_row_of(row->node.after)) {
        count++;
        if (row == q->front_last)
            break;
    }
    return count;
}

/* Of each partition its rows, how many are the front, and the running sums when no rows are kept; then rows that have not been used. */
void over_time_save(const struct over *o, struct state_writer *w)
{
    for (struct entry *e = o->parts.first; e; e = e->newer) {
        const struct over_queue *q = over_queue(e);
        state_put_slice(w, entry_key(e));
        state_put_varint(w, q->count);
        state_put_varint(w, front_count(q));
        for (const struct over_row *row = q->first; row; row = over_row_of(row->node.after))
            over_save_row(row, w);
        if (!keeps(o))
            aggregates_save(o->aggregates, o->aggregate_count, q->back, w);
    }
    state_put_varint(w, o->pending.count);
    for (const struct over_row *row = over_row_of(o->pending.first); row; row = over_row_of(row->node.after)) {
        state_put_slice(w, entry_key(row->of));
        over_save_row(row, w);
    }
}

static bool load_queue(struct over *o, struct state_reader *r)
{
    struct entry *e = over_load_part(o, true, r);
    struct step step = {.rows = 1};
    if (!e)
        return false;
    uint64_t count = state_get_varint(r), front = state_get_varint(r);
    struct over_queue *q = over_queue(e);
    r->failed |= front > count || count > most_kept(o);
    for (uint64_t i = 0; i < count && !r->failed; i++) {
        struct over_row *row = over_load_row(o, e, r);
        if (!row)
            return false;
        append(q, row);
        if (i + 1 == front)
            q->front_last = o->cell_count ? row : NULL;
        if (i >= front && o->aggregate_count && !over_add(o, &step, q->back, row))
            return false;
    }
    if (r->failed || (q->front_last && !sum_front(o, &step, q->front_last)))
        return false;
    return keeps(o) || aggregates_load(o->aggregates, o->aggregate_count, &o->op.account, q->back, r);
}

bool over_time_load(struct over *o, struct state_reader *r)
{
    uint64_t parts = state_get_varint(r);
    for (uint64_t i = 0; i < parts && !r->failed; i++)
        if (!load_queue(o, r))
            return false;
    uint64_t pending = state_get_varint(r);
    for (uint64_t i = 0; i < pending && !r->failed; i++) {
        struct entry *e = over_load_part(o, false, r);
        struct over_row *row = e ? over_load_row(o, e, r) : NULL, *last = over_row_of(o->pending.last);
        if (!row)
            return false;
        if (last && ordered_compare(ordered_key(&row->node), ordered_key(&last->node)) <= 0) {
            over_row_free(o, row);
            r->failed = true;
            return false;
        }
        ordered_add(&o->pending, &row->node);
    }
    return !r->failed;
}

void over_time_fini(struct over *o)
{
    for (struct over_row *row = over_row_of(o->pending.first), *next; row; row = next) {
        next = over_row_of(row->node.after);
        over_row_free(o, row);
    }
    for (struct entry *e = o->parts.first; e; e = e->newer) {
        for (struct over_row *row = over_queue(e)->first, *next; row; row = next) {
            next = over_row_of(row->node.after);
            over_row_free(o, row);
        }
        aggregates_fini(o->aggregates, o->aggregate_count, &o->op.account, over_queue(e)->back);
    }
}
