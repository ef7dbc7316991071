/* Functions over frames, see op_over.h: what both ways of using rows share, steps, snapshots. */
#include "sql/query/over_rows.h"

#include "base/check.h"
#include "base/mem.h"
#include "sql/query/op_aggregate.h"

#define SCRATCH_MAX (8u << 20)

/* -------------------------------------------------------------------------------------------------------------- rows */

static size_t row_len(const struct over *o, const struct over_row *row)
{
    return sizeof *row + o->cell_count * sizeof(struct cell) + row->key_len + row->args_len + row->len;
}

struct over_row *over_row_new(struct over *o, struct entry *of, int64_t at, struct slice key, struct slice args,
                              struct slice values)
{
    struct over_row as = {
        .of = of, .at = at, .key_len = (uint32_t)key.len, .args_len = (uint32_t)args.len, .len = (uint32_t)values.len};
    struct over_row *row = pieces_take(&o->pieces, row_len(o, &as));
    if (!row)
        return NULL;
    *row = as;
    memset(row->cells, 0, o->cell_count * sizeof *row->cells);
    uint8_t *bytes = (uint8_t *)(row->cells + o->cell_count);
    struct slice parts[] = {key, args, values};
    row->node.key = bytes;
    row->node.key_len = row->key_len;
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        if (parts[i].len)
            memcpy(bytes, parts[i].ptr, parts[i].len);
        bytes += parts[i].len;
    }
    return row;
}

void over_row_free(struct over *o, struct over_row *row)
{
    aggregates_fini(o->aggregates, o->cell_count, &o->op.account, row->cells);
    pieces_give(&o->pieces, row, row_len(o, row));
}

static void load_args(struct over *o, const struct over_row *row)
{
    const uint8_t *at = over_args(row).ptr;
    for (uint32_t i = 0; i < o->arg_count; i++)
        o->arg_nulls[i] = !key_value(o->args[i].form, &at, &o->arg_room[i]);
}

bool over_add(struct over *o, struct step *step, struct cell *cells, const struct over_row *row)
{
    enum sql_fault fault;
    load_args(o, row);
    return aggregates_add(o->aggregates, o->aggregate_count, &o->op.account, cells, o->args, 0, 1, &fault) ||
           op_fail(step, fault);
}

struct over_row *over_find(const struct ordered *list, const struct entry *of, struct slice key, struct slice args,
                           struct slice values)
{
    struct slice wanted = sort_key_values(key);
    struct ordered_row *below = ordered_at_most(list, wanted);
    for (struct over_row *r = over_row_of(below ? below->after : list->first); r; r = over_row_of(r->node.after)) {
        if (!slice_equal(sort_key_values(ordered_key(&r->node)), wanted))
            break;
        if ((!of || r->of == of) && slice_equal(over_args(r), args) && slice_equal(over_values(r), values))
            return r;
    }
    return NULL;
}

/* NULL: there is none. */
static const struct over_row *picked(const struct over_pick *pick, const struct over_row *row,
                                     const struct over_view *view)
{
    uint32_t n = pick->rows;
    switch (pick->which) {
    case OVER_BEFORE:
        for (; row && n; n--)
            row = over_before(row, view->skip);
        return row;
    case OVER_AFTER:
        for (; row && n; n--)
            row = over_after(row, view->skip);
        return row;
    case OVER_FIRST: return view->first;
    case OVER_LAST: return view->last;
    default: row = view->first;
    }
    for (; row && n > 1; n--)
        row = row == view->last ? NULL : over_after(row, view->skip);
    return row;
}

static bool set_picks(struct over *o, struct step *step, const struct over_row *row, const struct over_view *view)
{
    for (uint32_t i = 0; i < o->pick_count; i++) {
        const struct over_row *from = picked(&o->picks[i], row, view);
        uint32_t arg = from ? o->picks[i].arg : o->picks[i].otherwise;
        if (arg == OVER_NO_ARG)
            continue;
        load_args(o, from ? from : row);
        if (!o->arg_nulls[arg] && !emit_set_copy(&o->m, step, o->aggregate_count + i, &o->arg_room[arg]))
            return false;
    }
    return true;
}

bool over_emit(struct over *o, struct step *step, uint32_t origin, int weight, const struct over_row *row,
               const struct cell *cells, const struct over_view *view)
{
    const uint8_t *at = over_values(row).ptr;
    uint8_t room[KEY_ROOM];
    uint32_t column = 0;
    if (!emit_row(&o->m, step, origin, weight))
        return false;
    if (!set_picks(o, step, row, view))
        return false;
    for (; column < o->aggregate_count; column++) {
        enum sql_fault fault;
        const void *value = aggregate_value(&o->aggregates[column], &cells[column], room, &fault);
        if (fault != SQL_FAULT_NONE) {
            emit_drop(&o->m, 1);
            o->op.faults += weight > 0;
            if (weight > 0 && step->divert)
                step->divert(step->divert_arg, origin, fault);
            return true;
        }
        if (value && !emit_set_copy(&o->m, step, column, value))
            return false;
    }
    for (uint32_t i = 0; i < o->pass_count; i++) {
        const void *value = key_value(type_form(o->types[o->result_count + i].kind), &at, room);
        if (value && !emit_set_copy(&o->m, step, o->result_count + i, value))
            return false;
    }
    return true;
}

/* ------------------------------------------------------------------------------------------------------------- steps */

static bool divert(struct over *o, struct step *step, uint32_t origin, enum sql_fault fault)
{
    o->op.faults++;
    if (step->divert)
        step->divert(step->divert_arg, origin, fault);
    return true;
}

/* What a row is in bytes. */
struct bytes {
    struct slice part, key, args, values;
    int64_t at;
};

/* False: what is too long; or no memory. */
static bool encode(struct over *o, const struct batch *b, uint32_t row, struct bytes *ret, enum sql_fault *ret_fault)
{
    const struct column *order = b->columns + o->keys, *args = order + o->order_count;
    return key_of_row(&o->scratch, b->columns, o->keys, row, &ret->part, ret_fault) &&
           sort_key(&o->scratch, order, o->order, o->order_count, row, o->number, false, &ret->key, ret_fault) &&
           key_of_row(&o->scratch, args, o->arg_count, row, &ret->args, ret_fault) &&
           key_of_row(&o->scratch, args + o->arg_count, o->pass_count, row, &ret->values, ret_fault);
}

static bool push_time(struct over *o, struct step *step, const struct bytes *x, struct entry *e, int weight)
{
    struct over_row *row;
    if (weight < 0) {
        row = over_find(&o->pending, e, x->key, x->args, x->values);
        if (row) {
            ordered_remove(&o->pending, &row->node);
            over_row_free(o, row);
        }
        return true;
    }
    row = over_row_new(o, e, x->at, x->key, x->args, x->values);
    return row ? over_time_add(o, row) : op_fail(step, SQL_FAULT_MEMORY);
}

static bool push_change(struct over *o, struct step *step, uint32_t origin, const struct bytes *x, struct entry *e,
                        int weight)
{
    struct ordered *list = over_list(e);
    struct over_row *row = weight > 0 ? over_row_new(o, e, x->at, x->key, x->args, x->values)
                                      : over_find(list, e, x->key, x->args, x->values);
    if (!row)
        return weight < 0 || op_fail(step, SQL_FAULT_MEMORY);
    if (weight > 0)
        ordered_add(list, &row->node);
    if (!over_change(o, step, origin, row, weight))
        return false;
    if (weight < 0) {
        ordered_remove(list, &row->node);
        over_row_free(o, row);
        if (!list->count)
            table_remove(&o->parts, e);
    }
    return true;
}

static bool push_row(struct over *o, struct step *step, const struct batch *b, uint32_t row)
{
    uint32_t origin = batch_origin(b, row);
    int weight = batch_weight(b, row);
    const struct column *first = &b->columns[o->keys];
    struct bytes x = {.at = 0};
    enum sql_fault fault;
    bool measured = o->rule.clock || !o->rule.rows;
    int64_t watermark = o->rule.clock ? clock_before(o->rule.clock, origin) : 0;
    if (o->rule.clock && !over_time_settle(o, step, watermark))
        return false;
    if (measured && first->form == FORM_I64 && o->order_count) {
        if (column_null(first, row))
            return divert(o, step, origin, SQL_FAULT_NOT_NULL);
        x.at = ((const int64_t *)first->values)[row & column_mask(first)];
        x.at = o->rule.descending ? -1 - x.at : x.at;
    }
    if (o->rule.clock && time_plus(x.at, 1 - o->rule.offset) <= watermark) {
        o->op.late++;
        return true;
    }
    if (!encode(o, b, row, &x, &fault))
        return fault == SQL_FAULT_LIMIT ? divert(o, step, origin, fault) : op_fail(step, fault);
    uint64_t hash = table_hash(&o->parts, x.part);
    struct entry *e = table_find(&o->parts, x.part, hash);
    if (!e && weight < 0)
        return true;
    if (!e && !(e = table_add(&o->parts, x.part, hash)))
        return op_fail(step, SQL_FAULT_MEMORY);
    o->number += weight > 0;
    return o->rule.clock ? push_time(o, step, &x, e, weight) : push_change(o, step, origin, &x, e, weight);
}

static bool over_push(struct op *op, struct step *step, const struct batch *b)
{
    struct over *o = CONTAINER_OF(op, struct over, op);
    for (uint32_t k = 0; k < b->sel.count; k++) {
        if (!push_row(o, step, b, sel_row(b->sel, k)))
            return false;
        if (o->scratch.used > SCRATCH_MAX / 4)
            arena_recycle(&o->scratch);
    }
    arena_recycle(&o->scratch);
    return emit_end(&o->m, step);
}

static bool over_flush(struct op *op, struct step *step)
{
    struct over *o = CONTAINER_OF(op, struct over, op);
    const struct clock *c = o->rule.clock;
    if (!c || !c->at || !step->rows)
        return true;
    return over_time_settle(o, step, c->at[step->rows]) && emit_end(&o->m, step);
}

/* --------------------------------------------------------------------------------------------------------- snapshots */

#define OVER_VERSION 1u

void over_save_row(const struct over_row *row, struct state_writer *w)
{
    state_put_signed(w, row->at);
    state_put_slice(w, ordered_key(&row->node));
    state_put_slice(w, over_args(row));
    state_put_slice(w, over_values(row));
}

struct over_row *over_load_row(struct over *o, struct entry *of, struct state_reader *r)
{
    int64_t at = state_get_signed(r);
    size_t len = state_get_len(r, SORT_KEY_MAX);
    uint8_t *key = arena_take(&o->scratch, len);
    struct slice args, values;
    struct over_row *row = NULL;
    if (key) {
        state_get(r, key, len);
        if (key_load(&o->scratch, o->arg_types, o->arg_count, r, &args) &&
            key_load(&o->scratch, o->types + o->result_count, o->pass_count, r, &values))
            row = over_row_new(o, of, at, slice_of(key, len), args, values);
    }
    arena_recycle(&o->scratch);
    return row;
}

/* The partition that comes next; make: it has to be new, else it has to be there. NULL: no memory, or the reader has failed. */
struct entry *over_load_part(struct over *o, bool make, struct state_reader *r)
{
    struct slice key;
    bool ok = key_load(&o->scratch, o->key_types, o->keys, r, &key);
    uint64_t hash = ok ? table_hash(&o->parts, key) : 0;
    struct entry *e = ok ? table_find(&o->parts, key, hash) : NULL;
    if (ok && make != !e) {
        r->failed = true;
        e = NULL;
    } else if (ok && make) {
        e = table_add(&o->parts, key, hash);
    }
    arena_recycle(&o->scratch);
    return e;
}

static void over_save(const struct op *op, struct state_writer *w)
{
    const struct over *o = CONTAINER_OF(op, const struct over, op);
    state_put_varint(w, OVER_VERSION);
    state_put_varint(w, o->number);
    state_put_varint(w, o->parts.count);
    if (o->rule.clock) {
        over_time_save(o, w);
        return;
    }
    for (struct entry *e = o->parts.first; e; e = e->newer) {
        state_put_slice(w, entry_key(e));
        state_put_varint(w, over_list(e)->count);
        for (struct ordered_row *row = over_list(e)->first; row; row = row->after)
            over_save_row(over_row_of(row), w);
    }
}

static bool load_list(struct over *o, struct state_reader *r)
{
    struct entry *e = over_load_part(o, true, r);
    uint64_t count = e ? state_get_varint(r) : 0;
    for (uint64_t i = 0; i < count && !r->failed; i++) {
        struct over_row *row = over_load_row(o, e, r), *last = over_row_of(over_list(e)->last);
        if (!row)
            return false;
        if (last && ordered_compare(ordered_key(&row->node), ordered_key(&last->node)) <= 0) {
            over_row_free(o, row);
            r->failed = true;
            return false;
        }
        ordered_add(over_list(e), &row->node);
    }
    return e && !r->failed;
}

static bool over_load(struct op *op, struct state_reader *r)
{
    struct over *o = CONTAINER_OF(op, struct over, op);
    (void)state_get_version(r, OVER_VERSION);
    o->number = state_get_varint(r);
    if (o->rule.clock)
        return over_time_load(o, r);
    uint64_t parts = state_get_varint(r);
    for (uint64_t i = 0; i < parts && !r->failed; i++)
        if (!load_list(o, r))
            return false;
    return !r->failed;
}

/* -------------------------------------------------------------------------------------------------------------- life */

static void over_fini(struct op *op)
{
    struct over *o = CONTAINER_OF(op, struct over, op);
    if (o->rule.clock)
        over_time_fini(o);
    table_fini(&o->parts);
    pieces_fini(&o->pieces);
    pieces_fini(&o->entries);
    emit_fini(&o->m);
    arena_fini(&o->scratch);
    void *taken[] = {o->aggregates, o->picks, o->order,    o->key_types, o->arg_types,
                     o->types,      o->args,  o->arg_room, o->arg_nulls, o->sum};
    for (size_t i = 0; i < ARRAY_LEN(taken); i++)
        mem_free(taken[i]);
}

static int64_t over_due(const struct op *op)
{
    const struct over *o = CONTAINER_OF(op, const struct over, op);
    const struct over_row *first = over_row_of(o->pending.first);
    return first ? time_plus(first->at, 1 - o->rule.offset) : INT64_MAX;
}

/* NULL: no memory. Of no elements, too. */
static void *copy(const void *from, uint32_t count, size_t size)
{
    void *to = mem_zalloc((count + 1) * size);
    if (to && count && from)
        memcpy(to, from, count * size);
    return to;
}

static bool copy_all(struct over *o, const struct over_columns *c, const struct sql_type *types,
                     const struct sql_type *results)
{
    uint32_t args = c->keys + c->order_count;
    o->aggregates = copy(c->aggregates, c->aggregate_count, sizeof *o->aggregates);
    o->picks = copy(c->picks, c->pick_count, sizeof *o->picks);
    o->order = copy(c->order, c->order_count, sizeof *o->order);
    o->key_types = copy(types, c->keys, sizeof *types);
    o->arg_types = copy(types + args, c->arg_count, sizeof *types);
    o->types = copy(NULL, o->result_count + o->pass_count, sizeof *types);
    o->args = copy(NULL, c->arg_count, sizeof *o->args);
    o->arg_room = copy(NULL, c->arg_count, sizeof *o->arg_room);
    o->arg_nulls = copy(NULL, c->arg_count, sizeof *o->arg_nulls);
    o->sum = copy(NULL, c->aggregate_count, sizeof *o->sum);
    if (!o->aggregates || !o->picks || !o->order || !o->key_types || !o->arg_types || !o->types || !o->args ||
        !o->arg_room || !o->arg_nulls || !o->sum)
        return false;
    memcpy(o->types, results, o->result_count * sizeof *types);
    memcpy(o->types + o->result_count, types + args + c->arg_count, o->pass_count * sizeof *types);
    for (uint32_t i = 0; i < c->arg_count; i++)
        o->args[i] = (struct column){.form = type_form(o->arg_types[i].kind),
                                     .constant = true,
                                     .values = &o->arg_room[i],
                                     .nulls = &o->arg_nulls[i]};
    aggregates_share(o->aggregates, o->aggregate_count);
    return true;
}

struct op *op_over_new(struct budget *budget, const struct over_rule *rule, const struct over_columns *columns,
                       const struct sql_type *types, uint32_t type_count, const struct sql_type *results)
{
    static const struct op_kind kind = {.name = "over",
                                        .push = over_push,
                                        .flush = over_flush,
                                        .fini = over_fini,
                                        .due = over_due,
                                        .save = over_save,
                                        .load = over_load};
    struct over *o = mem_zalloc(sizeof *o);
    CHECK(rule->clock ? !rule->ahead : !rule->unbounded);
    CHECK(!rule->clock || !columns->aggregate_count || !columns->pick_count);
    if (!o)
        return NULL;
    o->op.kind = &kind;
    o->op.account.budget = budget;
    o->rule = *rule;
    o->keys = columns->keys;
    o->order_count = columns->order_count;
    o->arg_count = columns->arg_count;
    o->pass_count = type_count - columns->keys - columns->order_count - columns->arg_count;
    o->aggregate_count = columns->aggregate_count;
    o->pick_count = columns->pick_count;
    o->result_count = o->aggregate_count + o->pick_count;
    for (uint32_t i = 0; i < o->pick_count; i++) {
        const struct over_pick *pick = &columns->picks[i];
        uint32_t rows = pick->which == OVER_FIRST ? 1 : pick->which == OVER_NTH ? pick->rows : 0;
        o->first_rows = rows > o->first_rows ? rows : o->first_rows;
        o->framed |= pick->which >= OVER_FIRST;
    }
    o->cell_count = rule->clock && !rule->unbounded ? columns->aggregate_count : 0;
    pieces_init(&o->pieces, &o->op.account);
    pieces_init(&o->entries, &o->op.account);
    table_init(&o->parts, &o->op.account,
               (uint32_t)(rule->clock ? sizeof(struct over_queue) + columns->aggregate_count * sizeof(struct cell)
                                      : sizeof(struct ordered)));
    o->parts.pieces = &o->entries;
    arena_init(&o->scratch, SCRATCH_MAX);
    bool ok = copy_all(o, columns, types, results);
    emit_init(&o->m, &o->op, o->types, o->result_count + o->pass_count, !rule->clock);
    struct op *op = &o->op;
    if (!ok)
        op_free(&op);
    return op;
}
