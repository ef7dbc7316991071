/* A join's snapshot: version 1, the number of the next row, how many keys; each key, and for both sides how many rows; each row: number, end,
 * matches, and as kept_save has it. Rows of a key in the order in which they came. Between steps nothing else is there. Of keys that are in the scratch
 * file (sql/query/spill.h) the same bytes are there, without the key; a row that ends meanwhile is dropped when it comes back. */
#include "base/check.h"
#include "sql/query/op_join_int.h"

#define VERSION 1u

/* The end of the last one that ends; TIME_NEVER: there is no row. */
static int64_t save_rows(const struct side *s, const struct kept *first, struct state_writer *w)
{
    uint64_t count = 0;
    int64_t until = TIME_NEVER;
    for (const struct kept *row = first; row; row = row->next) {
        until = row->end > until ? row->end : until;
        count++;
    }
    state_put_varint(w, count);
    for (const struct kept *row = first; row; row = row->next) {
        state_put_varint(w, row->number);
        state_put_signed(w, row->end);
        state_put_varint(w, row->matches);
        kept_save(&s->layout, row, w);
    }
    return until;
}

void join_save(const struct op *op, struct state_writer *w)
{
    const struct join *j = CONTAINER_OF((struct op *)op, struct join, op);
    CHECK(!j->sides[0].first && !j->sides[1].first && !j->garbage);
    state_put_varint(w, VERSION);
    state_put_varint(w, j->number);
    state_put_varint(w, j->table.count + spill_count(&j->spill));
    for (struct entry *e = j->table.first; e; e = e->newer) {
        state_put_slice(w, entry_key(e));
        for (unsigned s = 0; s < 2; s++)
            (void)save_rows(&j->sides[s], chains_of(e)->of[s].first, w);
    }
    spill_save((struct spill *)&j->spill, w);
}

/* But for those that have ended by then. */
static bool load_rows(struct join *j, unsigned side, struct entry *e, int64_t clock, struct state_reader *r)
{
    for (uint64_t count = state_get_varint(r); count; count--) {
        struct kept head = {.number = state_get_varint(r)}, *row;
        head.end = state_get_signed(r);
        uint64_t matches = state_get_varint(r);
        r->failed |= head.number >= j->number || matches > UINT32_MAX;
        if (!kept_load(&j->sides[side].layout, &j->pieces, r, &row))
            return false;
        row->number = head.number;
        row->end = head.end;
        row->matches = (uint32_t)matches;
        if (row->end < clock)
            kept_give(&j->pieces, row);
        else if (!join_keep(j, side, row, e))
            return false;
    }
    return !r->failed;
}

static bool load_entry(struct join *j, struct state_reader *r)
{
    size_t len = state_get_len(r, KEY_MAX);
    uint8_t *bytes = arena_take(&j->step, len);
    if (!bytes)
        return false;
    state_get(r, bytes, len);
    struct slice key = slice_of(bytes, len);
    uint64_t hash = table_hash(&j->table, key);
    r->failed |= table_find(&j->table, key, hash) != NULL; /* no key stands there twice */
    struct entry *e = r->failed ? NULL : table_add(&j->table, key, hash);
    if (!e || !load_rows(j, 0, e, TIME_NEVER, r) || !load_rows(j, 1, e, TIME_NEVER, r))
        return false;
    arena_recycle(&j->step);
    r->failed |= !chains_of(e)->of[0].first && !chains_of(e)->of[1].first; /* nor one without rows */
    return !r->failed;
}

bool join_load(struct op *op, struct state_reader *r)
{
    struct join *j = CONTAINER_OF(op, struct join, op);
    if (!state_get_version(r, VERSION))
        return false;
    j->number = state_get_varint(r);
    enum sql_fault fault;
    for (uint64_t count = state_get_varint(r); count; count--)
        if (!load_entry(j, r) || !spill_relieve(op->account.budget, &fault))
            return false;
    return !r->failed;
}

/* ---------------------------------------------------------------------------------------------------------- spilling */

static void entry_save(struct op *op, struct entry *e, struct state_writer *w, int64_t until[RUN_UNTIL])
{
    struct join *j = CONTAINER_OF(op, struct join, op);
    for (unsigned s = 0; s < 2; s++)
        until[s] = save_rows(&j->sides[s], chains_of(e)->of[s].first, w);
}

/* What had ended before this step is what would not be there any more. */
static bool entry_load(struct op *op, struct entry *e, struct state_reader *r)
{
    struct join *j = CONTAINER_OF(op, struct join, op);
    for (unsigned s = 0; s < 2; s++)
        if (!load_rows(j, s, e, clock_of(&j->sides[s], 0), r))
            return false;
    return true;
}

static void entry_drop(struct op *op, struct entry *e)
{
    struct join *j = CONTAINER_OF(op, struct join, op);
    for (unsigned s = 0; s < 2; s++)
        for (struct kept *row = chains_of(e)->of[s].first, *next; row; row = next) {
            next = row->next;
            kept_give(&j->pieces, row);
        }
}

static bool free_gone(void *arg, void *what)
{
    struct kept *row = what;
    if (row->gone)
        kept_give(arg, row);
    return true;
}

/* No end of a row is waited for any more: those that come back bring theirs. */
static void rows_leave(struct op *op)
{
    struct join *j = CONTAINER_OF(op, struct join, op);
    for (unsigned s = 0; s < 2; s++) {
        due_sweep(&j->sides[s].due, free_gone, &j->pieces);
        j->sides[s].gone = 0;
    }
}

static bool rows_over(const struct op *op, const int64_t until[RUN_UNTIL])
{
    const struct join *j = CONTAINER_OF(op, const struct join, op);
    return until[0] < clock_of(&j->sides[0], 0) && until[1] < clock_of(&j->sides[1], 0);
}

const struct spill_kind join_spill_kind = {
    .save = entry_save, .load = entry_load, .drop = entry_drop, .leave = rows_leave, .over = rows_over};
