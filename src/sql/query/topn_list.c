/* Partitions of several rows in their order, see op_topn.h: which of them are the first ones, by their place (ROW_NUMBER) or by what the order says of them
 * (RANK, DENSE_RANK); what comes and goes when a row does. */
#include "sql/query/op_topn_int.h"

/* ---------------------------------------------------------------------------------------------------------- by place */

/* 0 …; the limit: it is not among the first ones. */
static uint32_t place_of(const struct topn *t, const struct ordered *rows, const struct ordered_row *row)
{
    uint32_t place = 0;
    for (const struct ordered_row *r = rows->first; r != row && place < t->rule.limit; r = r->after)
        place++;
    return place;
}

/* From that place on, each row has made room for the one before it (weight 1: `row` has come), or has followed it (-1: it is going). */
static bool emit_moved(struct topn *t, struct step *step, uint32_t origin, struct ordered_row *row, uint32_t place,
                       int weight)
{
    for (; row && place < t->rule.limit; row = row->after, place++) {
        struct ordered_row *goes = weight > 0 ? row->after : row, *comes = weight > 0 ? row : row->after;
        if (goes && !topn_emit(t, step, origin, -1, topn_row_of(goes), place + 1))
            return false;
        if (comes && !topn_emit(t, step, origin, 1, topn_row_of(comes), place + 1))
            return false;
    }
    return true;
}

/* A row has come, or is going, that is among the first ones; all are in the list. */
static bool change_places(struct topn *t, struct step *step, uint32_t origin, struct ordered_row *row, uint32_t place,
                          int weight)
{
    if (t->rule.ranked)
        return emit_moved(t, step, origin, row, place, weight);
    struct ordered_row *next = row; /* the first one that is not among them */
    for (; next && place < t->rule.limit; place++)
        next = next->after;
    struct ordered_row *goes = weight > 0 ? next : row, *comes = weight > 0 ? row : next;
    if (goes && !topn_emit(t, step, origin, -1, topn_row_of(goes), 0))
        return false;
    return !comes || topn_emit(t, step, origin, 1, topn_row_of(comes), 0);
}

/* A row has come, or is going; all are in the list. */
static bool change_by_place(struct topn *t, struct step *step, uint32_t origin, const struct ordered *rows,
                            struct ordered_row *row, int weight)
{
    uint32_t place = place_of(t, rows, row);
    return place >= t->rule.limit || change_places(t, step, origin, row, place, weight);
}

/* ----------------------------------------------------------------------------------------------------------- by rank */

static struct slice order_of(const struct ordered_row *row)
{
    return sort_key_values(ordered_key(row));
}

/* Whether ORDER BY takes them for equal: then they have the same rank. */
static bool are_peers(const struct ordered_row *a, const struct ordered_row *b)
{
    return slice_equal(order_of(a), order_of(b));
}

/* The last row before those that are equal to this one. */
static struct ordered_row *before_peers(const struct ordered *rows, const struct ordered_row *row)
{
    return ordered_at_most(rows, order_of(row));
}

/* Of the row behind `before`, which is the first of its peers; beyond the limit it is only known that it is. */
static uint64_t rank_behind(const struct topn *t, const struct ordered *rows, const struct ordered_row *before)
{
    uint64_t rank = 1;
    for (; before && rank <= t->rule.limit; rank++)
        before = t->rule.ranking == RANKING_DENSE ? before_peers(rows, before) : before->before;
    return rank;
}

/* The ranks of rows one behind the other. */
struct ranks {
    uint64_t rank, rows; /* rows: up to this one */
    const struct ordered_row *row;
};

static void rank_next(const struct topn *t, struct ranks *at, const struct ordered_row *row)
{
    bool same = at->row && are_peers(at->row, row) && t->rule.ranking != RANKING_ROW;
    at->rows++;
    if (!same)
        at->rank = t->rule.ranking == RANKING_DENSE ? at->rank + 1 : at->rows;
    at->row = row;
}

/* A row whose rank was, and is now, one of these; the other one it has without the row that comes or goes. */
static bool emit_ranked(struct topn *t, struct step *step, uint32_t origin, const struct ordered_row *row, uint64_t was,
                        uint64_t is)
{
    bool goes = was <= t->rule.limit, comes = is <= t->rule.limit;
    if (goes && comes && !t->rule.ranked)
        return true;
    return (!goes || topn_emit(t, step, origin, -1, topn_row_of(row), was)) &&
           (!comes || topn_emit(t, step, origin, 1, topn_row_of(row), is));
}

/* Those behind the row's peers: each has one more before it when the row is there. `before` is in front of the peers, `rank` theirs. */
static bool move_behind(struct topn *t, struct step *step, uint32_t origin, const struct ordered *rows,
                        const struct ordered_row *row, const struct ordered_row *before, uint64_t rank, int weight)
{
    const struct ordered_row *next = before ? before->after : rows->first;
    struct ranks at = {.rank = rank, .rows = rank - 1, .row = row};
    bool dense = t->rule.ranking == RANKING_DENSE;
    if (dense && next == row)
        next = row->after;
    for (; next && are_peers(next, row); next = next->after, at.rows++)
        if (dense ||
            at.rows > t->rule.limit) /* it has its rank by others, too; or all behind it are beyond the limit */
            return true;
    for (; next; next = next->after) {
        rank_next(t, &at, next);
        if (at.rank - 1 > t->rule.limit)
            return true;
        if (!emit_ranked(t, step, origin, next, weight > 0 ? at.rank - 1 : at.rank, weight > 0 ? at.rank : at.rank - 1))
            return false;
    }
    return true;
}

/* A row has come, or is going; all are in the list. What falls out does so before it comes. */
static bool change_by_rank(struct topn *t, struct step *step, uint32_t origin, const struct ordered *rows,
                           struct ordered_row *row, int weight)
{
    const struct ordered_row *before = before_peers(rows, row);
    uint64_t rank = rank_behind(t, rows, before);
    if (rank > t->rule.limit)
        return true;
    if (weight < 0 && !topn_emit(t, step, origin, -1, topn_row_of(row), rank))
        return false;
    return move_behind(t, step, origin, rows, row, before, rank, weight) &&
           (weight < 0 || topn_emit(t, step, origin, 1, topn_row_of(row), rank));
}

/* -------------------------------------------------------------------------------------------------------------- both */

static bool change(struct topn *t, struct step *step, uint32_t origin, const struct ordered *rows,
                   struct ordered_row *row, int weight)
{
    if (!t->rule.changes)
        return true;
    return (t->rule.ranking == RANKING_ROW ? change_by_place : change_by_rank)(t, step, origin, rows, row, weight);
}

/* Whether a row with that key would be behind the first ones for ever; not all that would be are known. */
static bool is_behind(const struct topn *t, const struct ordered *rows, struct slice key)
{
    if (t->rule.retracts || t->rule.ranking == RANKING_DENSE || rows->count < t->rule.limit)
        return false;
    if (t->rule.ranking == RANKING_ROW)
        return ordered_compare(key, ordered_key(rows->last)) > 0;
    return ordered_compare(sort_key_values(key), order_of(rows->last)) > 0;
}

static void drop_last(struct topn *t, struct ordered *rows)
{
    struct row *last = topn_row_of(rows->last);
    ordered_remove(rows, topn_node_of(last));
    topn_row_free(t, last);
}

/* What is behind the first ones since a row has come, which may be that row. */
static void drop_behind(struct topn *t, struct ordered *rows)
{
    if (t->rule.retracts || rows->count <= t->rule.limit)
        return;
    const struct ordered_row *before = rows->last->before;
    if (t->rule.ranking != RANKING_ROW) {
        before = before_peers(rows, rows->last);
        if (rank_behind(t, rows, before) <= t->rule.limit)
            return;
    }
    while (rows->last != before)
        drop_last(t, rows);
}

bool topn_list_add(struct topn *t, struct step *step, const struct batch *b, uint32_t at, struct ordered *rows,
                   struct slice key)
{
    bool ok;
    if (is_behind(t, rows, key))
        return true;
    struct row *row = topn_row_make(t, step, b, at, key, &ok);
    if (!row)
        return ok;
    ordered_add(rows, topn_node_of(row));
    if (!change(t, step, batch_origin(b, at), rows, topn_node_of(row), 1))
        return false;
    drop_behind(t, rows);
    return true;
}

/* The oldest row with these values; NULL: it is not there. */
static struct ordered_row *find_row(const struct topn *t, const struct ordered *rows, struct slice key,
                                    struct slice values)
{
    struct slice wanted = sort_key_values(key);
    struct ordered_row *before = ordered_at_most(rows, wanted), *found = NULL;
    for (struct ordered_row *r = before ? before->after : rows->first; r; r = r->after) {
        if (!slice_equal(sort_key_values(ordered_key(r)), wanted))
            break;
        if (slice_equal(topn_row_values(topn_row_of(r)), values)) {
            found = r;
            if (!t->rule.newest_first)
                break;
        }
    }
    return found;
}

bool topn_list_take_back(struct topn *t, struct step *step, const struct batch *b, uint32_t at, struct ordered *rows,
                         struct slice key)
{
    struct slice values;
    bool ok;
    if (!topn_values_of(t, step, b, at, &values, &ok))
        return ok;
    struct ordered_row *row = find_row(t, rows, key, values);
    if (!row)
        return true;
    if (!change(t, step, batch_origin(b, at), rows, row, -1))
        return false;
    ordered_remove(rows, row);
    topn_row_free(t, topn_row_of(row));
    return true;
}

bool topn_list_emit(struct topn *t, struct step *step, uint32_t origin, const struct ordered *rows)
{
    struct ranks at = {0};
    for (const struct ordered_row *r = rows->first; r; r = r->after) {
        rank_next(t, &at, r);
        if (at.rank > t->rule.limit)
            break;
        if (!topn_emit(t, step, origin, 1, topn_row_of(r), at.rank))
            return false;
    }
    return true;
}
