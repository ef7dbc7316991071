/* A row for each key, see op_latest.h. */
#include "sql/query/op_latest.h"

#include "base/check.h"
#include "base/mem.h"
#include "sql/query/kept.h"

#define ROWS 256u
#define KEYS_MEMORY_MAX (256u << 20)
#define VERSION 1u

struct latest {
    struct op op;
    const struct latest_rule *rule;
    struct kept_layout layout;
    struct pieces pieces;
    struct table table; /* an entry holds its row's address */
    struct arena scratch, out;
    uint32_t count;
    struct kept *rows[ROWS], *garbage;
    uint16_t origins[ROWS];
    int8_t weights[ROWS];
};

static struct kept **row_of(struct entry *e)
{
    return (struct kept **)(void *)e->bytes;
}

/* Pushes what is there; then rows that were replaced can go. */
static bool push_rows(struct latest *t, struct step *step)
{
    struct column *columns = arena_take(&t->out, (t->layout.count + 1) * sizeof *columns);
    bool ok = columns != NULL;
    for (uint32_t i = 0; ok && i < t->layout.count; i++)
        ok = kept_gather(&t->layout, i, t->rows, t->count, &t->out, &columns[i]);
    struct batch batch = {.arena = &t->out,
                          .columns = columns,
                          .column_count = t->layout.count,
                          .rows = t->count,
                          .sel = {.count = t->count},
                          .weights = t->weights,
                          .origins = t->origins};
    ok = ok ? !t->count || op_pass(&t->op, step, &batch) : op_fail(step, SQL_FAULT_MEMORY);
    t->count = 0;
    arena_recycle(&t->out);
    while (t->garbage) {
        struct kept *row = t->garbage;
        t->garbage = row->next;
        kept_give(&t->pieces, row);
    }
    return ok;
}

static void give_out(struct latest *t, struct kept *row, uint32_t origin, int weight)
{
    t->rows[t->count] = row;
    t->origins[t->count] = (uint16_t)origin;
    t->weights[t->count++] = (int8_t)weight;
}

static bool replace(struct latest *t, struct step *step, const struct batch *b, uint16_t row, struct slice key)
{
    uint64_t hash = table_hash(&t->table, key);
    struct entry *e = table_find(&t->table, key, hash);
    struct kept *now, *old = e ? *row_of(e) : NULL;
    if (t->count + 2 > ROWS && !push_rows(t, step))
        return false;
    if (!kept_copy(&t->layout, &t->pieces, b, &row, 1, &now))
        return op_fail(step, SQL_FAULT_MEMORY);
    if (old && kept_same(&t->layout, old, now)) {
        kept_give(&t->pieces, now);
        return true;
    }
    if (!e && !(e = table_add(&t->table, key, hash))) {
        kept_give(&t->pieces, now);
        return op_fail(step, SQL_FAULT_MEMORY);
    }
    *row_of(e) = now;
    if (old) {
        give_out(t, old, batch_origin(b, row), -1);
        old->next = t->garbage;
        t->garbage = old;
    }
    give_out(t, now, batch_origin(b, row), 1);
    return true;
}

static bool remove_row(struct latest *t, struct step *step, uint32_t origin, struct slice key)
{
    struct entry *e = table_find(&t->table, key, table_hash(&t->table, key));
    if (!e)
        return true;
    if (t->count + 1 > ROWS && !push_rows(t, step))
        return false;
    struct kept *old = *row_of(e);
    give_out(t, old, origin, -1);
    old->next = t->garbage;
    t->garbage = old;
    table_remove(&t->table, e);
    return true;
}

static bool latest_push(struct op *op, struct step *step, const struct batch *b)
{
    struct latest *t = CONTAINER_OF(op, struct latest, op);
    for (uint32_t k = 0; k < b->sel.count; k++) {
        uint32_t row = sel_row(b->sel, k);
        bool null = false;
        struct slice key;
        enum sql_fault fault;
        for (uint32_t i = 0; i < t->rule->key_count; i++)
            null |= column_null(&b->columns[i], row);
        if (null) {
            op->faults++;
            if (step->divert)
                step->divert(step->divert_arg, batch_origin(b, row), SQL_FAULT_NOT_NULL);
            continue;
        }
        if (!key_of_row(&t->scratch, b->columns, t->rule->key_count, row, &key, &fault))
            return op_fail(step, fault);
        if (!(batch_weight(b, row) < 0 ? remove_row(t, step, batch_origin(b, row), key)
                                       : replace(t, step, b, (uint16_t)row, key)))
            return false;
    }
    arena_recycle(&t->scratch);
    return push_rows(t, step);
}

/* ------------------------------------------------------------------------------------------------------- snapshots */

static void latest_save(const struct op *op, struct state_writer *w)
{
    const struct latest *t = CONTAINER_OF((struct op *)op, struct latest, op);
    state_put_varint(w, VERSION);
    state_put_varint(w, t->table.count);
    for (struct entry *e = t->table.first; e; e = e->newer) {
        state_put_slice(w, entry_key(e));
        kept_save(&t->layout, *row_of(e), w);
    }
}

static bool load_entry(struct latest *t, struct state_reader *r)
{
    size_t len = state_get_len(r, KEY_MAX);
    uint8_t *bytes = arena_take(&t->scratch, len);
    struct kept *row;
    if (!bytes)
        return false;
    state_get(r, bytes, len);
    struct slice key = slice_of(bytes, len);
    uint64_t hash = table_hash(&t->table, key);
    r->failed |= table_find(&t->table, key, hash) != NULL; /* no key stands there twice */
    if (r->failed || !kept_load(&t->layout, &t->pieces, r, &row))
        return false;
    struct entry *e = table_add(&t->table, key, hash);
    arena_recycle(&t->scratch);
    if (e)
        *row_of(e) = row;
    return e != NULL;
}

static bool latest_load(struct op *op, struct state_reader *r)
{
    struct latest *t = CONTAINER_OF(op, struct latest, op);
    if (!state_get_version(r, VERSION))
        return false;
    for (uint64_t count = state_get_varint(r); count; count--)
        if (!load_entry(t, r))
            return false;
    return !r->failed;
}

static void latest_fini(struct op *op)
{
    struct latest *t = CONTAINER_OF(op, struct latest, op);
    table_fini(&t->table);
    pieces_fini(&t->pieces); /* and all rows with it */
    kept_layout_fini(&t->layout);
    arena_fini(&t->scratch);
    arena_fini(&t->out);
}

struct op *op_latest_new(struct budget *budget, const struct latest_rule *rule)
{
    static const struct op_kind kind = {
        .name = "latest", .push = latest_push, .fini = latest_fini, .save = latest_save, .load = latest_load};
    struct latest *t = mem_zalloc(sizeof *t);
    if (!t)
        return NULL;
    t->op.kind = &kind;
    t->op.account.budget = budget;
    t->rule = rule;
    pieces_init(&t->pieces, &t->op.account);
    table_init(&t->table, &t->op.account, sizeof(struct kept *));
    t->table.pieces = &t->pieces;
    arena_init(&t->scratch, KEYS_MEMORY_MAX);
    arena_init(&t->out, KEYS_MEMORY_MAX);
    struct op *op = &t->op;
    if (!kept_layout_init(&t->layout, rule->kept, rule->types, rule->kept_count))
        op_free(&op);
    return op;
}
