/* Joins: their names and conditions, see plan_int.h. */
#include "sql/query/plan_int.h"

static const struct scope no_names = {0};

static bool refuse(struct planner *p, const struct ast *place, const char *what)
{
    (void)plan_refuse(p, place, "%s cannot be run yet", what);
    return false;
}

/* Whether the side's rows are given out without a partner, too. */
static bool keeps_all(const struct joining *j, unsigned side)
{
    if (side == 0)
        return j->kind == JOIN_LEFT || j->kind == JOIN_FULL || j->kind == JOIN_ANTI;
    return j->kind == JOIN_RIGHT || j->kind == JOIN_FULL;
}

static bool is_inner(const struct joining *j)
{
    return j->kind == JOIN_INNER || j->kind == JOIN_CROSS || j->kind == JOIN_COMMA;
}

/* ------------------------------------------------------------------------------------------------------------ columns */

struct expr *join_column(struct planner *p, struct node *n, unsigned side, struct expr *inner, const struct ast *place)
{
    struct joining *j = n->join;
    struct binder b = plan_binder(p, &no_names);
    for (uint32_t i = 0; i < j->out_count; i++)
        if (j->outs[i].side == side && j->outs[i].inner == inner)
            return j->outs[i].x;
    struct expr *x = j->out_count < PLAN_COLUMNS_MAX ? expr_new(&b, EXPR_COLUMN, place, 0) : NULL;
    if (!x) {
        sql_error_set(p->error, SQL_FAULT_LIMIT, place->at, place->len, "more than %u columns", PLAN_COLUMNS_MAX);
        return NULL;
    }
    x->column = j->out_count;
    x->type = inner->type;
    j->outs[j->out_count] = (struct join_column){.side = side, .inner = inner, .x = x};
    j->out_count++;
    return !j->finished || plan_out_clock(p, j, &j->outs[j->out_count - 1]) ? x : NULL;
}

/* The sides whose columns are in x: bit 0 the left, bit 1 the right. */
static unsigned sides_of(const struct joining *j, const struct expr *x)
{
    unsigned sides = x->op == EXPR_COLUMN ? 1u << j->outs[x->column].side : 0;
    for (uint32_t i = 0; i < x->count; i++)
        sides |= sides_of(j, x->args[i]);
    return sides;
}

/* The same over the columns of a side. */
static struct expr *on_side(struct planner *p, const struct joining *j, struct expr *x)
{
    if (x->op == EXPR_COLUMN)
        return j->outs[x->column].inner;
    if (!x->count)
        return x;
    struct expr *to = plan_take(p, j->place, sizeof *to);
    struct expr **args = to ? plan_take(p, j->place, x->count * sizeof *args) : NULL;
    if (!args)
        return NULL;
    *to = *x;
    to->args = args;
    for (uint32_t i = 0; i < x->count; i++)
        if (!(args[i] = on_side(p, j, x->args[i])))
            return NULL;
    return to;
}

/* --------------------------------------------------------------------------------------------------------- conditions */

static struct expr *both(struct planner *p, struct expr *a, struct expr *b)
{
    struct binder binder = plan_binder(p, &no_names);
    return a && b ? logic(&binder, EXPR_AND, a, b) : b;
}

/* One more condition on a stage; they are one filter, since there may be many. */
static bool add_condition(struct planner *p, struct stage *s, struct expr *x, const struct ast *place)
{
    if (!x || !s->filter_count)
        return stage_filter(p, s, x, place);
    struct expr *all = both(p, s->filters[s->filter_count - 1], x);
    s->filters[s->filter_count - 1] = all;
    return all != NULL;
}

static bool comparison_of(const struct expr *x, enum join_op *ret)
{
    static const enum ast_op ops[] = {[JOIN_EQ] = AST_OP_EQ, [JOIN_NE] = AST_OP_NE, [JOIN_LT] = AST_OP_LT,
                                      [JOIN_LE] = AST_OP_LE, [JOIN_GT] = AST_OP_GT, [JOIN_GE] = AST_OP_GE};
    if (x->op != EXPR_CALL || x->count != 2 || x->function)
        return false;
    enum sql_form form = type_form(x->args[0]->type.kind);
    if (form != FORM_BOOL && form != FORM_I64 && form != FORM_I128 && form != FORM_TEXT && form != FORM_F64)
        return false;
    for (unsigned op = 0; op < ARRAY_LEN(ops); op++)
        if (x->kernel == kernel_compare(ops[op], form)) {
            *ret = (enum join_op)op;
            return form != FORM_F64 || op == JOIN_EQ; /* what is no number has an order of its own */
        }
    return false;
}

static enum join_op turned(enum join_op op)
{
    static const enum join_op other[] = {[JOIN_EQ] = JOIN_EQ, [JOIN_NE] = JOIN_NE, [JOIN_LT] = JOIN_GT,
                                         [JOIN_LE] = JOIN_GE, [JOIN_GT] = JOIN_LT, [JOIN_GE] = JOIN_LE};
    return other[op];
}

/* A condition on both sides: a key, a test, or (of an inner join) a filter behind it. */
static bool place_pair(struct planner *p, struct stage *s, struct expr *x, const struct ast *place)
{
    struct joining *j = s->node->join;
    enum join_op op = JOIN_EQ;
    bool compared = comparison_of(x, &op);
    unsigned first = compared ? sides_of(j, x->args[0]) : 3, second = compared ? sides_of(j, x->args[1]) : 3;
    if (!first || !second || first + second != 3) { /* not a side against the other */
        if (is_inner(j))
            return add_condition(p, s, x, place);
        return plan_refuse(p, j->place,
                           "an outer, SEMI or ANTI JOIN compares a value of one side with one of the "
                           "other; any other condition on both cannot be run yet");
    }
    struct expr *left = on_side(p, j, x->args[first == 2]), *right = on_side(p, j, x->args[first != 2]);
    bool equal = op == JOIN_EQ;
    if (!left || !right)
        return false;
    if (equal ? j->key_count == JOIN_KEYS_MAX : j->test_count == JOIN_TESTS_MAX)
        return plan_refuse(p, j->place, "a join with more than %u conditions of a kind", JOIN_KEYS_MAX);
    if (equal) {
        j->keys[j->key_count][0] = left;
        j->keys[j->key_count++][1] = right;
    } else {
        j->tests[j->test_count].op = first == 2 ? turned(op) : op;
        j->tests[j->test_count].x[0] = left;
        j->tests[j->test_count++].x[1] = right;
    }
    return true;
}

static bool is_true(const struct expr *x)
{
    return x->op == EXPR_CONST && !column_null(&x->constant, 0) && *(const uint8_t *)x->constant.values;
}

/* on: it says which rows belong together; else which of the join's rows are wanted. */
static bool place_one(struct planner *p, struct stage *s, struct expr *x, bool on, const struct ast *place)
{
    struct joining *j = s->node->join;
    unsigned sides = sides_of(j, x), side = sides == 2;
    if (is_true(x))
        return true;
    if (!on && !is_inner(j) && (sides == 3 || !sides || !keeps_all(j, side) || keeps_all(j, !side)))
        return add_condition(p, s, x, place);
    if (sides == 3)
        return place_pair(p, s, x, place);
    if (!sides)
        return is_inner(j) ? add_condition(p, s, x, place)
                           : plan_refuse(p, place, "a constant condition of an outer join cannot be run yet") != NULL;
    struct expr *own = on_side(p, j, x);
    if (!own)
        return false;
    if (!on || !keeps_all(j, side))
        return add_condition(p, &j->sides[side], own, place);
    j->guards[side] = both(p, j->guards[side], own);
    return j->guards[side] != NULL;
}

static bool place_all(struct planner *p, struct stage *s, struct expr *x, bool on, const struct ast *place)
{
    if (x->op != EXPR_AND)
        return place_one(p, s, x, on, place);
    for (uint32_t i = 0; i < x->count; i++)
        if (!place_all(p, s, x->args[i], on, place))
            return false;
    return true;
}

/* A row for which the guard is not true gets a key that is NULL, which has no partner. */
static bool guard_keys(struct planner *p, struct joining *j)
{
    struct binder b = plan_binder(p, &no_names);
    int64_t one = 1;
    if (!j->guards[0] && !j->guards[1])
        return true;
    if (!j->key_count) {
        j->keys[0][0] = j->keys[0][1] = expr_const(&b, j->place, type_of(TYPE_INT), &one);
        j->key_count = 1;
    }
    for (unsigned side = 0; side < 2; side++) {
        struct expr *key = j->keys[0][side], *x = j->guards[side] && key ? expr_new(&b, EXPR_CASE, j->place, 3) : key;
        if (!x)
            return false;
        if (!j->guards[side])
            continue;
        x->args[0] = j->guards[side];
        x->args[1] = key;
        x->args[2] = expr_null(&b, j->place, key->type);
        x->type = key->type;
        j->keys[0][side] = x;
        if (!x->args[2])
            return false;
    }
    return true;
}

bool plan_join_finish(struct planner *p, struct stage *s)
{
    struct joining *j = s->node->join;
    if (!j || j->finished)
        return true;
    uint32_t filters = s->filter_count;
    struct expr *where[ARRAY_LEN(s->filters)];
    memcpy(where, s->filters, filters * sizeof *where);
    s->filter_count = 0;
    for (uint32_t i = 0; i < j->on_count; i++)
        if (!place_all(p, s, j->on[i], true, j->place))
            return false;
    for (uint32_t i = 0; i < filters; i++)
        if (!place_all(p, s, where[i], false, j->place))
            return false;
    for (unsigned side = 0; side < 2; side++)
        if (!plan_join_finish(p, &j->sides[side]))
            return false;
    if ((!j->lookup && !plan_bounds(p, j)) || !guard_keys(p, j))
        return false;
    if (j->lookup && j->sides[0].node->retracts)
        return plan_refuse(p, j->place, "looking into a table for rows that may be taken back cannot be run yet");
    for (unsigned side = 0; side < 2; side++)
        j->changes |= !j->lookup && keeps_all(j, side) && (p->emit == EMIT_CHANGES || !j->end_count[side]);
    s->node->retracts = j->sides[0].node->retracts || (j->sides[1].node->retracts && !j->lookup) || j->changes;
    j->finished = true;
    for (uint32_t i = 0; i < j->out_count; i++)
        if (!plan_out_clock(p, j, &j->outs[i]))
            return false;
    return true;
}

/* -------------------------------------------------------------------------------------------------------------- names */

bool join_names(struct planner *p, struct stage *ret, unsigned side, const struct ast *place)
{
    const struct stage *s = &ret->node->join->sides[side];
    for (uint32_t i = 0; i < s->count; i++) {
        struct lazy *lazy = plan_take(p, place, sizeof *lazy);
        if (!lazy)
            return false;
        *lazy = (struct lazy){.join = ret->node, .side = side, .of = s->names[i].lazy};
        if (!stage_name(p, ret, s->names[i].table, s->names[i].name, lazy, place))
            return false;
        ret->names[ret->count - 1].hidden = s->names[i].hidden;
        ret->names[ret->count - 1].qualified = s->names[i].qualified;
    }
    return true;
}

bool join_on(struct planner *p, struct joining *j, struct expr *x)
{
    if (x && j->on_count == JOIN_CONDITIONS_MAX)
        return plan_refuse(p, j->place, "a join with more than %u conditions", JOIN_CONDITIONS_MAX);
    if (x)
        j->on[j->on_count++] = x;
    return x != NULL;
}

/* The column of a side that USING names. NULL: there is none, or there are several. */
static struct named *using_name(struct planner *p, struct stage *s, unsigned from, uint32_t to, struct slice name,
                                const struct ast *place)
{
    struct named *found = NULL;
    for (uint32_t i = from; i < to; i++)
        if (name_equal(s->names[i].name, name) && !s->names[i].qualified) {
            if (found && (found->hidden || !slice_equal(s->names[i].name, name)))
                continue;
            found = &s->names[i];
        }
    if (!found)
        sql_error_set(p->error, SQL_FAULT_NO_NAME, place->at, place->len, "USING %.*s: a side has no such column",
                      SLICE_ARG(name));
    return found;
}

/* USING (k): both are equal, and k is one column. Without a table in front it is the one that cannot be NULL for want of a partner. */
static bool add_using(struct planner *p, struct stage *ret, uint32_t left_count, struct slice name,
                      const struct ast *place)
{
    struct joining *j = ret->node->join;
    struct binder b = plan_binder(p, &no_names);
    struct named *left = using_name(p, ret, 0, left_count, name, place),
                 *right = left ? using_name(p, ret, left_count, ret->count, name, place) : NULL;
    struct expr *x = right ? lazy_expr(p, left->lazy, place) : NULL, *y = x ? lazy_expr(p, right->lazy, place) : NULL;
    if (!y || !join_on(p, j, comparison(&b, place, AST_OP_EQ, x, y)))
        return false;
    struct named *second = j->kind == JOIN_RIGHT ? left : right;
    second->qualified = second->hidden = true;
    if (j->kind != JOIN_FULL)
        return true;
    struct expr *either = expr_new(&b, EXPR_COALESCE, place, 2);
    if (!either)
        return false;
    either->args[0] = x;
    either->args[1] = y;
    if (!coerce_all(&b, either->args, 2, 1, "columns", &either->type))
        return false;
    left->qualified = left->hidden = true;
    return stage_name_expr(p, ret, (struct slice){0}, name, either, place);
}

/* --------------------------------------------------------------------------------------------------------------- time */

/* Whether it has a watermark; nothing is read for the question. */
static bool is_time(const struct planner *p, const struct lazy *lazy)
{
    while (lazy->join && !lazy->x)
        lazy = lazy->of;
    const struct expr *x = lazy->x;
    if (x)
        return x->clock && x->clock_offset == 0 && x->clock == p->plan->sources[x->clock->source].clock;
    if (lazy->element >= lazy->source->stream->elements.count)
        return false;
    for (size_t i = 0; i < lazy->source->stream->elements.count; i++) {
        const struct ast *e = lazy->source->stream->elements.at[i];
        const struct ast *column = lazy->source->stream->elements.at[lazy->element];
        if (e->kind == AST_WATERMARK && column->kind == AST_COLUMN &&
            name_equal(AST_AS(watermark, e)->column, AST_AS(column, column)->name))
            return true;
    }
    return false;
}

/* The only column of a side that has a watermark. */
static struct expr *time_of_side(struct planner *p, struct stage *s, uint32_t from, uint32_t to,
                                 const struct ast *place)
{
    struct lazy *found = NULL;
    for (uint32_t i = from; i < to; i++) {
        if (s->names[i].hidden || !is_time(p, s->names[i].lazy->of))
            continue;
        if (found)
            return plan_refuse(p, place, "WITHIN is for sides that have one time with a watermark each");
        found = s->names[i].lazy;
    }
    return found ? lazy_expr(p, found, place)
                 : plan_refuse(p, place, "WITHIN is for sides that have one time with a watermark each");
}

/* to op from + | - interval */
static bool add_reach(struct planner *p, struct joining *j, struct expr *from, struct expr *to, const char *sign,
                      const struct ast *reach)
{
    struct binder b = plan_binder(p, &no_names);
    struct sql_type type = type_of(TYPE_INTERVAL);
    struct expr *x = sql_bind_as(reach, &type, &no_names, p->arena, p->error);
    int64_t us;
    if (!x)
        return false;
    if (!interval_us(x, &us) || us < 0) {
        sql_error_set(p->error, SQL_FAULT_ARGUMENT, reach->at, reach->len,
                      "WITHIN has a constant interval of days, hours or less, or two of them");
        return false;
    }
    struct expr *args[2] = {from, x}, *edge = call(&b, reach, slice_str(sign), args, 2);
    return join_on(p, j, edge ? comparison(&b, reach, *sign == '+' ? AST_OP_LE : AST_OP_GE, to, edge) : NULL);
}

/* WITHIN (before, after): the right row is at most so much before, or after, the left one. */
static bool add_within(struct planner *p, struct stage *ret, uint32_t left_count, const struct ast_join *ast)
{
    struct joining *j = ret->node->join;
    if (!ast->before)
        return true;
    struct expr *left = time_of_side(p, ret, 0, left_count, ast->before),
                *right = left ? time_of_side(p, ret, left_count, ret->count, ast->before) : NULL;
    return right && add_reach(p, j, left, right, "-", ast->before) &&
           add_reach(p, j, left, right, "+", ast->after ? ast->after : ast->before);
}

/* --------------------------------------------------------------------------------------------------------------- FROM */

bool join_begin(struct planner *p, enum ast_join_kind kind, const struct ast *place, struct stage *ret)
{
    struct node *n = plan_take(p, place, sizeof *n);
    struct joining *j = n ? plan_take(p, place, sizeof *j) : NULL;
    if (!j)
        return false;
    j->outs = plan_take(p, place, PLAN_COLUMNS_MAX * sizeof *j->outs);
    j->kind = kind;
    j->place = place;
    n->join = j;
    *ret = (struct stage){.node = n};
    return j->outs != NULL;
}

bool plan_join(struct planner *p, const struct ast_join *ast, struct stage *ret)
{
    const struct ast *place = &ast->ast;
    enum ast_join_kind kind = (enum ast_join_kind)ast->kind;
    if (kind == JOIN_ASOF || kind == JOIN_LEFT_ASOF)
        return refuse(p, place, "ASOF JOIN");
    if (!join_begin(p, kind, place, ret))
        return false;
    struct joining *j = ret->node->join;
    const struct ast_relation *table = AST_AS(relation, ast->right);
    bool lookup = ast->right->kind == AST_RELATION && table->as_of;
    if (!plan_from(p, ast->left, &j->sides[0]) ||
        !(lookup ? plan_lookup(p, table, j) : plan_from(p, ast->right, &j->sides[1])) || !join_names(p, ret, 0, place))
        return false;
    uint32_t left_count = ret->count;
    if (!join_names(p, ret, 1, place))
        return false;
    for (size_t i = 0; i < ast->using.count; i++)
        if (!add_using(p, ret, left_count, ast->using.at[i], place))
            return false;
    if (ast->on && !join_on(p, j, stage_bind_bool(p, ret, ast->on)))
        return false;
    if (!add_within(p, ret, left_count, ast))
        return false;
    if (kind == JOIN_SEMI || kind == JOIN_ANTI)
        ret->count = left_count;
    return true;
}
