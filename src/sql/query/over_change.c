/* Frames of rows that come and go in any order, see op_over.h: every row is kept, and a frame is walked when it is asked for. */
#include "sql/query/over_rows.h"

static const struct over_row *frame_begin(const struct over *o, const struct over_row *row, const struct over_row *skip)
{
    const struct over_row *begin = row;
    int64_t least = over_least(o, row->at);
    int64_t left = o->rule.reach;
    for (const struct over_row *b = over_before(row, skip); b; b = over_before(b, skip)) {
        if (o->rule.rows ? left-- <= 0 : b->at < least && !over_peers(b, row))
            break;
        begin = b;
    }
    return begin;
}

/* Its last row: itself, or with RANGE the last that is equal in the order. */
static const struct over_row *frame_end(const struct over *o, const struct over_row *row, const struct over_row *skip)
{
    const struct over_row *end = row, *a = o->rule.rows ? NULL : over_after(row, skip);
    for (; a && over_peers(a, row); a = over_after(a, skip))
        end = a;
    return end;
}

static bool emit(struct over *o, struct step *step, uint32_t origin, int weight, const struct over_row *row,
                 const struct over_row *skip)
{
    bool framed = o->aggregate_count || o->framed, ok = true;
    const struct over_view view = {.first = framed ? frame_begin(o, row, skip) : NULL,
                                   .last = framed ? frame_end(o, row, skip) : NULL,
                                   .skip = skip};
    for (const struct over_row *at = o->aggregate_count ? view.first : NULL; ok && at;
         at = at == view.last ? NULL : over_after(at, skip))
        ok = over_add(o, step, o->sum, at);
    ok = ok && over_emit(o, step, origin, weight, row, o->sum, &view);
    aggregates_fini(o->aggregates, o->aggregate_count, &o->op.account, o->sum);
    return ok;
}

/* A row as it was without the other one, and as it is with it, or the other way round. */
static bool emit_changed(struct over *o, struct step *step, uint32_t origin, const struct over_row *row,
                         const struct over_row *other, int weight)
{
    if (!emit_room(&o->m, step, 2))
        return false;
    uint32_t rows = o->m.rows;
    if (!emit(o, step, origin, -1, row, weight > 0 ? other : NULL) ||
        !emit(o, step, origin, 1, row, weight > 0 ? NULL : other))
        return false;
    if (o->m.rows == rows + 2 && emit_same(&o->m))
        emit_drop(&o->m, 2);
    return true;
}

bool over_change(struct over *o, struct step *step, uint32_t origin, struct over_row *row, int weight)
{
    struct over_row *at = row;
    int64_t left = o->rule.reach;
    for (uint32_t n = o->rule.ahead; n && at->node.before; n--)
        at = over_row_of(at->node.before);
    while (!o->rule.rows && at->node.before && over_peers(over_row_of(at->node.before), row))
        at = over_row_of(at->node.before);
    for (bool passed = false; at; at = over_row_of(at->node.after)) {
        if (passed && (o->rule.rows ? left-- <= 0 : over_least(o, at->at) > row->at && !over_peers(at, row)))
            break;
        bool own = at == row;
        passed |= own;
        if (!(own ? emit(o, step, origin, weight, at, NULL) : emit_changed(o, step, origin, at, row, weight)))
            return false;
    }
    return true;
}
