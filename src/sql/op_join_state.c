/* A join's snapshot: version 1, the number of the next row, how many keys; each key, and for both sides how many rows; each row: number, end,
 * matches, and as kept_save has it. Rows of a key in the order in which they came. Between steps nothing else is there. */
#include "base/check.h"
#include "sql/op_join_int.h"

#define VERSION 1u

static void save_rows(const struct side *s, const struct kept *first, struct state_writer *w)
{
    uint64_t count = 0;
    for (const struct kept *row = first; row; row = row->next)
        count++;
    state_put_varint(w, count);
    for (const struct kept *row = first; row; row = row->next) {
        state_put_varint(w, row->number);
        state_put_signed(w, row->end);
        state_put_varint(w, row->matches);
        kept_save(&s->layout, row, w);
    }
}

void join_save(const struct op *op, struct state_writer *w)
{
    const struct join *j = CONTAINER_OF((struct op *)op, struct join, op);
    CHECK(!j->sides[0].first && !j->sides[1].first && !j->garbage);
    state_put_varint(w, VERSION);
    state_put_varint(w, j->number);
    state_put_varint(w, j->table.count);
    for (struct entry *e = j->table.first; e; e = e->newer) {
        state_put_slice(w, entry_key(e));
        for (unsigned s = 0; s < 2; s++)
            save_rows(&j->sides[s], chains_of(e)->of[s].first, w);
    }
}

static bool load_rows(struct join *j, unsigned side, struct entry *e, struct state_reader *r)
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
        if (!join_keep(j, side, row, e))
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
    struct entry *e = r->failed || table_find(&j->table, key, hash) ? NULL : table_add(&j->table, key, hash);
    if (!e || !load_rows(j, 0, e, r) || !load_rows(j, 1, e, r))
        return false;
    arena_recycle(&j->step);
    return chains_of(e)->of[0].first || chains_of(e)->of[1].first;
}

bool join_load(struct op *op, struct state_reader *r)
{
    struct join *j = CONTAINER_OF(op, struct join, op);
    if (state_get_varint(r) != VERSION)
        return false;
    j->number = state_get_varint(r);
    for (uint64_t count = state_get_varint(r); count; count--)
        if (!load_entry(j, r))
            return false;
    return !r->failed;
}
