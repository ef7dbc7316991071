/* A symmetric hash join, see op_join.h.
 *
 * One table has the keys of both sides: an entry holds two chains of rows, so each row that comes is looked up once, to find its partners
 * and its own place. Pushes only take rows in: they are copied into pieces of memory, which is what keeping them needs anyway. The flush
 * goes through both sides' rows by origin, see op.h. Pairs are collected, and become columns when there are enough. What is let go in a step is
 * freed at its end, since pairs that were not pushed yet point at it.
 */
#include "sql/op_join.h"

#include "base/check.h"
#include "base/mem.h"
#include "sql/due.h"
#include "sql/kept.h"
#include "sql/kernel.h"

#define STEP_MEMORY_MAX (256u << 20)
#define PAIRS 256u
#define AHEAD 8u /* rows whose places in memory are asked for in advance */
#define GONE_MIN 64u

struct chain {
    struct kept *first, *last;
};

/* What an entry of the table holds. */
struct chains {
    struct chain of[2];
};

/* Rows that one push took in; in the step's arena. */
struct taken {
    struct taken *next;
    uint32_t count;
    struct kept **rows;
    struct slice *keys; /* ptr NULL: it matches nothing */
    uint64_t *hashes;
    uint16_t *origins;
    const int8_t *weights; /* NULL: +1 */
};

struct cursor {
    struct taken *t;
    uint32_t i;
};

struct side {
    const struct join_side *rule;
    struct kept_layout layout;
    struct due due;
    uint32_t gone; /* in due, but not in the table */
    bool waits;    /* rows without a partner are given out when they end */
    struct taken *first, *last;
};

struct join;

struct join_input {
    struct op op;
    struct join *join;
    unsigned side;
};

struct join {
    struct op op;
    struct join_input inputs[2];
    const struct join_rule *rule;
    struct side sides[2];
    struct pieces pieces;
    struct table table;
    struct kept *garbage;
    uint64_t number; /* of the next row that is kept */
    bool settles;    /* a left row with a partner needs no more */
    struct arena step, out;
    uint32_t pair_count;
    struct kept *pairs[2][PAIRS];
    uint16_t origins[PAIRS];
    int8_t weights[PAIRS];
};

static struct chains *chains_of(struct entry *e)
{
    return (struct chains *)(void *)e->bytes;
}

static int64_t saturated(int64_t a, int64_t b)
{
    int64_t sum;
    if (__builtin_add_overflow(a, b, &sum))
        return b < 0 ? INT64_MIN : INT64_MAX;
    return sum;
}

/* The clock by which the side's rows end. */
static int64_t clock_of(const struct side *s, uint32_t origin)
{
    return s->rule->clock ? clock_before(s->rule->clock, origin) : TIME_NEVER;
}

static int64_t clock_after(const struct side *s, const struct step *step)
{
    return clock_of(s, step->rows);
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

static bool give_out(struct join *j, struct step *step, unsigned side, struct kept *own, struct kept *other,
                     uint32_t origin, int weight)
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

/* ----------------------------------------------------------------------------------------------------------- keeping */

static void discard(struct join *j, struct kept *row)
{
    row->next = j->garbage;
    j->garbage = row;
}

static void free_garbage(struct join *j)
{
    while (j->garbage) {
        struct kept *row = j->garbage;
        j->garbage = row->next;
        kept_give(&j->pieces, row);
    }
}

static bool keep(struct join *j, unsigned side, struct kept *row, struct entry *e)
{
    struct side *s = &j->sides[side];
    struct chain *c = &chains_of(e)->of[side];
    row->number = j->number++;
    if (row->end != INT64_MAX &&
        !due_add(&s->due, (struct due_item){.time = row->end, .number = row->number, .what = row}))
        return false;
    row->key = e;
    row->prev = c->last;
    row->next = NULL;
    *(c->last ? &c->last->next : &c->first) = row;
    c->last = row;
    return true;
}

static void unlink_row(unsigned side, struct kept *row)
{
    struct entry *e = row->key;
    struct chain *c = &chains_of(e)->of[side];
    *(row->prev ? &row->prev->next : &c->first) = row->next;
    *(row->next ? &row->next->prev : &c->last) = row->prev;
    row->key = NULL;
}

static void drop_empty(struct join *j, struct entry *e)
{
    if (e && !chains_of(e)->of[0].first && !chains_of(e)->of[1].first)
        table_remove(&j->table, e);
}

static bool collect_gone(void *arg, void *what)
{
    struct kept *row = what;
    if (row->gone)
        discard(arg, row);
    return row->gone;
}

/* Lets go of a row before its end. */
static void let_go(struct join *j, unsigned side, struct kept *row)
{
    struct side *s = &j->sides[side];
    unlink_row(side, row);
    if (row->end == INT64_MAX) {
        discard(j, row);
        return;
    }
    row->gone = true;
    if (++s->gone > GONE_MIN && s->gone > due_count(&s->due) / 2) {
        due_sweep(&s->due, collect_gone, j);
        s->gone = 0;
    }
}

/* The first that ends before the clock has. NULL: none does. */
static struct kept *ended(const struct side *s, int64_t clock)
{
    const struct due_item *first = due_first(&s->due);
    return first && first->time < clock ? first->what : NULL;
}

static void end_row(struct join *j, unsigned side, struct kept *row)
{
    due_drop(&j->sides[side].due);
    if (row->gone) {
        j->sides[side].gone--;
    } else {
        struct entry *e = row->key;
        unlink_row(side, row);
        drop_empty(j, e);
    }
    discard(j, row);
}

/* Gives out what has ended without a partner before the row at `origin`: by origin, of the same one the left side first. */
static bool give_out_ended(struct join *j, struct step *step, uint32_t origin)
{
    for (;;) {
        struct kept *next = NULL;
        unsigned side = 0;
        uint32_t at = 0;
        for (unsigned s = 0; s < 2; s++) {
            struct kept *row = j->sides[s].waits ? ended(&j->sides[s], clock_of(&j->sides[s], origin)) : NULL;
            uint32_t own = row ? clock_origin(j->sides[s].rule->clock, step, row->end + 1) : 0;
            if (row && (!next || own < at)) {
                next = row;
                side = s;
                at = own;
            }
        }
        if (!next)
            return true;
        if (!next->gone && !next->matches && !give_out(j, step, side, next, NULL, at, 1))
            return false;
        end_row(j, side, next);
    }
}

/* ---------------------------------------------------------------------------------------------------------- matching */

static bool holds(enum join_op op, int order)
{
    switch (op) {
    case JOIN_EQ: return order == 0;
    case JOIN_NE: return order != 0;
    case JOIN_LT: return order < 0;
    case JOIN_LE: return order <= 0;
    case JOIN_GT: return order > 0;
    default: return order >= 0;
    }
}

#define ORDER(type) ((*(const type *)a > *(const type *)b) - (*(const type *)a < *(const type *)b))

static bool test(const struct join_test *t, const void *a, const void *b)
{
    switch (t->form) {
    case FORM_BOOL: return holds(t->op, ORDER(uint8_t));
    case FORM_I64: return holds(t->op, ORDER(int64_t));
    case FORM_I128: return holds(t->op, ORDER(decimal_t));
    default: return holds(t->op, text_compare(*(const struct slice *)a, *(const struct slice *)b));
    }
}

static bool passes(const struct join *j, const struct kept *left, const struct kept *right)
{
    const struct kept_layout *l = &j->sides[0].layout, *r = &j->sides[1].layout;
    for (uint32_t i = 0; i < j->rule->test_count; i++) {
        const struct join_test *t = &j->rule->tests[i];
        if (kept_null(left, t->left) || kept_null(right, t->right) ||
            !test(t, kept_value(l, left, t->left), kept_value(r, right, t->right)))
            return false;
    }
    return true;
}

/* A row and what is known of it while it is held against the other side. */
struct coming {
    unsigned side;
    struct kept *row;
    uint32_t origin;
    int weight;
};

/* A partner, `own` being kept, `c` having come or being taken back. */
static bool match(struct join *j, struct step *step, const struct coming *c, struct kept *own)
{
    const struct join_rule *r = j->rule;
    unsigned side = !c->side;
    bool counted = j->sides[side].rule->outer, outer = counted && !r->semi && !r->anti;
    bool first = counted && c->weight > 0 && own->matches++ == 0;
    bool last = counted && c->weight < 0 && own->matches && --own->matches == 0;
    if (r->semi || r->anti) {
        bool tells = r->semi || r->changes;
        if (tells && (first || last) && !give_out(j, step, side, own, NULL, c->origin, first == r->semi ? 1 : -1))
            return false;
        if (first && j->settles)
            let_go(j, side, own);
        return true;
    }
    if (outer && first && r->changes && !give_out(j, step, side, own, NULL, c->origin, -1))
        return false;
    if (!give_out(j, step, c->side, c->row, own, c->origin, c->weight))
        return false;
    return !(outer && last && r->changes) || give_out(j, step, side, own, NULL, c->origin, 1);
}

static bool match_all(struct join *j, struct step *step, const struct coming *c, struct entry *e, uint32_t *ret_matches)
{
    unsigned side = !c->side;
    int64_t clock = clock_of(&j->sides[side], c->origin);
    uint32_t matches = 0;
    for (struct kept *own = e ? chains_of(e)->of[side].first : NULL, *next; own; own = next) {
        next = own->next;
        if (own->end < clock || !passes(j, c->side ? own : c->row, c->side ? c->row : own))
            continue;
        matches++;
        if (!match(j, step, c, own))
            return false;
    }
    *ret_matches = matches;
    return true;
}

/* What a row of a side whose rows are given out without partners, too, tells about itself. */
static bool tell_own(struct join *j, struct step *step, const struct coming *c, uint32_t matches, bool waits)
{
    const struct join_rule *r = j->rule;
    bool alone = matches == 0;
    if (!j->sides[c->side].rule->outer || (r->semi ? alone : !alone || (waits && !r->changes)))
        return true;
    return give_out(j, step, c->side, c->row, NULL, c->origin, c->weight);
}

static struct kept *find_same(const struct side *s, struct entry *e, unsigned side, const struct kept *row)
{
    struct kept *own = e ? chains_of(e)->of[side].first : NULL;
    while (own && !((own->end == row->end || !s->rule->end_count) && kept_same(&s->layout, own, row)))
        own = own->next;
    return own;
}

static bool handle(struct join *j, struct step *step, unsigned side, const struct taken *t, uint32_t i)
{
    struct side *s = &j->sides[side];
    struct coming c = {
        .side = side, .row = t->rows[i], .origin = t->origins[i], .weight = t->weights ? t->weights[i] : 1};
    bool keyed = t->keys[i].ptr != NULL;
    struct entry *e = keyed ? table_find(&j->table, t->keys[i], t->hashes[i]) : NULL;
    struct kept *old = c.weight < 0 ? find_same(s, e, side, c.row) : NULL;
    bool stays = c.weight < 0 ? old != NULL : keyed && c.row->end >= clock_of(s, c.origin);
    uint32_t matches = 0;
    if (!match_all(j, step, &c, e, &matches) || !tell_own(j, step, &c, matches, stays))
        return false;
    if (c.weight > 0 && stays && !(j->settles && side == 0 && matches)) {
        if (!e && !(e = table_add(&j->table, t->keys[i], t->hashes[i])))
            return op_fail(step, SQL_FAULT_MEMORY);
        c.row->matches = matches;
        return keep(j, side, c.row, e) || op_fail(step, SQL_FAULT_MEMORY);
    }
    if (old)
        let_go(j, side, old);
    discard(j, c.row);
    drop_empty(j, e);
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
        if (waits && !give_out_ended(j, step, c->t->origins[c->i]))
            return false;
        if (!handle(j, step, side, c->t, c->i))
            return false;
        step_cursor(c);
    }
    return !waits || give_out_ended(j, step, step->rows);
}

static bool join_flush(struct op *op, struct step *step)
{
    struct join *j = CONTAINER_OF(op, struct join, op);
    if (!handle_all(j, step) || !push_pairs(j, step))
        return false;
    for (unsigned s = 0; s < 2; s++) {
        int64_t clock = clock_after(&j->sides[s], step);
        for (struct kept *row; (row = ended(&j->sides[s], clock));)
            end_row(j, s, row);
        j->sides[s].first = j->sides[s].last = NULL;
    }
    free_garbage(j);
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

static void join_fini(struct op *op)
{
    struct join *j = CONTAINER_OF(op, struct join, op);
    for (unsigned s = 0; s < 2; s++) {
        due_fini(&j->sides[s].due);
        kept_layout_fini(&j->sides[s].layout);
    }
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
    static const struct op_kind kind = {.name = "join", .push = join_push, .flush = join_flush, .fini = join_fini};
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
        j->sides[i].waits = s->outer && !rule->semi && !rule->changes && s->clock;
        due_init(&j->sides[i].due, &j->op.account);
        ok &= kept_layout_init(&j->sides[i].layout, s->kept, s->types, s->kept_count);
        j->inputs[i] = (struct join_input){.join = j, .side = i};
        j->inputs[i].op.kind = &input_kind;
        j->inputs[i].op.account.budget = budget;
        j->inputs[i].op.outputs[0] = &j->op;
        j->inputs[i].op.output_count = 1;
    }
    struct op *op = &j->op;
    if (!ok)
        op_free(&op);
    return op;
}
