/* A symmetric hash join, see op_join.h.
 *
 * One table has the keys of both sides: an entry holds two chains of rows, so each row that comes is looked up once, to find its partners
 * and its own place. Pushes only take rows in: they are copied into pieces of memory, which is what keeping them needs anyway. The flush
 * goes through both sides' rows by origin, see op.h. Pairs are collected, and become columns when there are enough.
 */
#include "base/check.h"
#include "base/mem.h"
#include "sql/query/op_join_int.h"

#define STEP_MEMORY_MAX (256u << 20)
#define AHEAD 8u /* rows whose places in memory are asked for in advance */

struct cursor {
    struct taken *t;
    uint32_t i;
};

static int64_t saturated(int64_t a, int64_t b)
{
    int64_t sum;
    if (__builtin_add_overflow(a, b, &sum))
        return b < 0 ? INT64_MIN : INT64_MAX;
    return sum;
}

/* ----------------------------------------------------------------------------------------------------- rows that come */

/* False: the value is NULL. */
static bool bound_value(const struct join_bound *b, const struct batch *batch, uint32_t row, int64_t *ret)
{
    const struct column *c = &batch->columns[b->column];
    if (column_null(c, row))
        return false;
    *ret = saturated(((const int64_t *)c->values)[row & column_mask(c)], b->offset);
    return true;
}

enum arrival { ARRIVES, ARRIVES_ALONE /* it matches nothing */, ARRIVES_LATE };

static enum arrival arrival_of(const struct side *s, const struct batch *b, uint32_t row, int64_t *ret_end)
{
    const struct join_side *r = s->rule;
    uint32_t origin = batch_origin(b, row);
    int64_t end = INT64_MAX, now = clock_of(s, origin), v;
    bool on_time = true, alone = false;
    for (uint32_t i = 0; i < r->key_count; i++)
        alone |= column_null(&b->columns[i], row);
    for (uint32_t i = 0; i < r->end_count; i++) {
        alone |= !bound_value(&r->ends[i], b, row, &v);
        end = alone || end < v ? end : v;
    }
    for (uint32_t i = 0; i < r->promise_count; i++)
        if (!bound_value(&r->promises[i], b, row, &v))
            alone = true;
        else
            on_time &= v >= clock_before(r->promises[i].clock, origin);
    if (!r->end_count && r->clock && now != TIME_NEVER)
        end = saturated(now, r->ttl);
    *ret_end = end;
    return alone ? ARRIVES_ALONE : !on_time && end < now ? ARRIVES_LATE : ARRIVES;
}

static struct taken *taken_new(struct join *j, uint32_t room, bool weighted)
{
    struct taken *t = arena_take(&j->step, sizeof *t);
    if (!t)
        return NULL;
    *t = (struct taken){.rows = arena_take(&j->step, room * sizeof *t->rows),
                        .keys = arena_take(&j->step, room * sizeof *t->keys),
                        .hashes = arena_take(&j->step, room * sizeof *t->hashes),
                        .origins = arena_take(&j->step, room * sizeof *t->origins)};
    int8_t *weights = weighted ? arena_take(&j->step, room) : NULL;
    t->weights = weights;
    return t->rows && t->keys && t->hashes && t->origins && (weights || !weighted) ? t : NULL;
}

static bool take_key(struct join *j, struct taken *t, const struct side *s, const struct batch *b, uint32_t row,
                     struct step *step)
{
    enum sql_fault fault;
    if (!key_of_row(&j->step, b->columns, s->rule->key_count, row, &t->keys[t->count], &fault))
        return op_fail(step, fault);
    t->hashes[t->count] = table_hash(&j->table, t->keys[t->count]);
    return true;
}

static bool input_push(struct op *op, struct step *step, const struct batch *b)
{
    struct join_input *in = CONTAINER_OF(op, struct join_input, op);
    struct join *j = in->join;
    struct side *s = &j->sides[in->side];
    uint32_t room = b->sel.count;
    struct taken *t = taken_new(j, room, b->weights != NULL);
    uint16_t *rows = arena_take(&j->step, room * sizeof *rows);
    int64_t *ends = arena_take(&j->step, room * sizeof *ends);
    if (!t || !rows || !ends)
        return op_fail(step, SQL_FAULT_MEMORY);
    j->op.rows_in += room;
    for (uint32_t k = 0; k < room; k++) {
        uint32_t row = sel_row(b->sel, k), n = t->count;
        enum arrival arrival = arrival_of(s, b, row, &ends[n]);
        j->op.late += arrival == ARRIVES_LATE;
        if (arrival == ARRIVES_LATE || (arrival == ARRIVES_ALONE && !s->rule->outer))
            continue;
        t->keys[n] = (struct slice){0};
        if (arrival == ARRIVES && !take_key(j, t, s, b, row, step))
            return false;
        rows[n] = (uint16_t)row;
        t->origins[n] = (uint16_t)batch_origin(b, row);
        if (b->weights)
            ((int8_t *)t->weights)[n] = b->weights[row];
        t->count++;
    }
    if (!t->count)
        return true;
    if (!kept_copy(&s->layout, &j->pieces, b, rows, t->count, t->rows))
        return op_fail(step, SQL_FAULT_MEMORY);
    for (uint32_t k = 0; k < t->count; k++)
        t->rows[k]->end = ends[k];
    *(s->last ? &s->last->next : &s->first) = t;
    s->last = t;
    return true;
}

/* --------------------------------------------------------------------------------------------------------- pairs go out */

static bool push_pairs(struct join *j, struct step *step)
{
    const struct join_rule *r = j->rule;
    struct column *columns = arena_take(&j->out, (r->out_count + 1) * sizeof *columns);
    bool ok = columns != NULL;
    for (uint32_t i = 0; ok && i < r->out_count; i++)
        ok = kept_gather(&j->sides[r->outs[i].side].layout, r->outs[i].kept, j->pairs[r->outs[i].side], j->pair_count,
                         &j->out, &columns[i]);
    struct batch batch = {.arena = &j->out,
                          .columns = columns,
                          .column_count = r->out_count,
                          .rows = j->pair_count,
                          .sel = {.count = j->pair_count},
                          .weights = r->weighted ? j->weights : NULL,
                          .origins = j->origins};
    ok = ok ? !j->pair_count || op_pass(&j->op, step, &batch) : op_fail(step, SQL_FAULT_MEMORY);
    j->pair_count = 0;
    arena_recycle(&j->out);
    return ok;
}

bool join_give(struct join *j, struct step *step, unsigned side, struct kept *own, struct kept *other, uint32_t origin,
               int weight)
{
    if (j->pair_count == PAIRS && !push_pairs(j, step))
        return false;
    uint32_t n = j->pair_count++;
    j->pairs[side][n] = own;
    j->pairs[!side][n] = other;
    j->origins[n] = (uint16_t)origin;
    j->weights[n] = (int8_t)weight;
    return true;
}

/* ------------------------------------------------------------------------------------------------------------- steps */

/* Asks for what a row to come will look at. */
static void look_ahead(const struct join *j, const struct cursor *c)
{
    const struct table *table = &j->table;
    if (!table->slots)
        return;
    if (c->i + AHEAD < c->t->count)
        __builtin_prefetch(&table->slots[(uint32_t)c->t->hashes[c->i + AHEAD] & table->mask]);
    if (c->i + AHEAD / 2 < c->t->count) {
        const struct entry *e = table->slots[(uint32_t)c->t->hashes[c->i + AHEAD / 2] & table->mask];
        if (e)
            __builtin_prefetch(e);
    }
}

static void step_cursor(struct cursor *c)
{
    if (++c->i == c->t->count)
        *c = (struct cursor){.t = c->t->next};
}

static bool handle_all(struct join *j, struct step *step)
{
    struct cursor at[2] = {{.t = j->sides[0].first}, {.t = j->sides[1].first}};
    bool waits = j->sides[0].waits || j->sides[1].waits;
    while (at[0].t || at[1].t) {
        unsigned side = !at[0].t || (at[1].t && at[1].t->origins[at[1].i] < at[0].t->origins[at[0].i]);
        struct cursor *c = &at[side];
        look_ahead(j, c);
        if (waits && !join_give_ended(j, step, c->t->origins[c->i]))
            return false;
        if (!join_handle(j, step, side, c->t, c->i))
            return false;
        step_cursor(c);
    }
    return !waits || join_give_ended(j, step, step->rows);
}

static bool join_flush(struct op *op, struct step *step)
{
    struct join *j = CONTAINER_OF(op, struct join, op);
    if (!handle_all(j, step) || !push_pairs(j, step))
        return false;
    for (unsigned s = 0; s < 2; s++)
        j->sides[s].first = j->sides[s].last = NULL;
    join_drop_ended(j, step);
    join_free_garbage(j);
    if (!j->table.count)
        table_fini(&j->table);
    arena_recycle(&j->step);
    return true;
}

static bool join_push(struct op *op, struct step *step, const struct batch *b)
{
    (void)op, (void)step, (void)b;
    CHECK(!"rows come by the inputs");
    return false;
}

static int64_t join_due(const struct op *op)
{
    const struct join *j = CONTAINER_OF(op, const struct join, op);
    int64_t due = INT64_MAX;
    for (unsigned s = 0; s < 2; s++) {
        const struct due_item *first = j->sides[s].waits ? due_first(&j->sides[s].due) : NULL;
        due = first && first->time < due ? first->time + 1 : due;
    }
    return due;
}

static void join_fini(struct op *op)
{
    struct join *j = CONTAINER_OF(op, struct join, op);
    for (unsigned s = 0; s < 2; s++) {
        due_fini(&j->sides[s].due);
        kept_layout_fini(&j->sides[s].layout);
    }
    spill_fini(&j->spill);
    table_fini(&j->table);
    pieces_fini(&j->pieces); /* and all rows with it */
    arena_fini(&j->step);
    arena_fini(&j->out);
}

struct op *op_join_input(struct op *join, unsigned side)
{
    return &CONTAINER_OF(join, struct join, op)->inputs[side].op;
}

struct op *op_join_new(struct budget *budget, const struct join_rule *rule)
{
    static const struct op_kind kind = {.name = "join",
                                        .push = join_push,
                                        .flush = join_flush,
                                        .fini = join_fini,
                                        .save = join_save,
                                        .load = join_load,
                                        .due = join_due};
    static const struct op_kind input_kind = {.name = "join's input", .push = input_push};
    struct join *j = mem_zalloc(sizeof *j);
    if (!j)
        return NULL;
    j->op.kind = &kind;
    j->op.account.budget = budget;
    j->op.input_count = 2;
    j->rule = rule;
    pieces_init(&j->pieces, &j->op.account);
    table_init(&j->table, &j->op.account, sizeof(struct chains));
    j->table.pieces = &j->pieces;
    arena_init(&j->step, STEP_MEMORY_MAX);
    arena_init(&j->out, STEP_MEMORY_MAX);
    j->settles = (rule->semi || (rule->anti && !rule->changes)) && !rule->sides[1].retracts;
    bool ok = true;
    for (unsigned i = 0; i < 2; i++) {
        const struct join_side *s = &rule->sides[i];
        j->sides[i].rule = s;
        j->sides[i].waits = s->outer && !rule->semi && !rule->changes && s->clock && !rule->lookup;
        due_init(&j->sides[i].due, &j->op.account);
        ok &= kept_layout_init(&j->sides[i].layout, s->kept, s->types, s->kept_count);
        j->inputs[i] = (struct join_input){.join = j, .side = i};
        j->inputs[i].op.kind = &input_kind;
        j->inputs[i].op.account.budget = budget;
        j->inputs[i].op.outputs[0] = &j->op;
        j->inputs[i].op.output_count = 1;
    }
    struct op *op = &j->op;
    spill_init(&j->spill, op, &j->table, j->sides[0].waits || j->sides[1].waits ? NULL : &join_spill_kind);
    if (!ok)
        op_free(&op);
    return op;
}
