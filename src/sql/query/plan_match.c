/* MATCH_RECOGNIZE, see plan_int.h. What conditions and measures say of rows of the pattern are lookups: an expression over them has a column for each.
 * What is asked of the row itself is a value of the input, and so is a condition that asks for nothing else. */
#include "sql/query/plan_int.h"

struct matcher {
    struct planner *p;
    struct stage *input;
    struct node *node;
    struct matching *m;
    uint32_t own; /* the variable whose condition is bound; MATCH_ANY: it is a measure */
    uint32_t used[MATCH_LOOKUPS_MAX], used_count;
    struct expr *outs[MATCH_LOOKUPS_MAX]; /* of lookups */
};

/* -------------------------------------------------------------------------------------------------------- variables */

/* A.x is of the variable A, whatever columns there are. */
static uint32_t variable_of(const struct matcher *t, const struct ast *node)
{
    const struct ast_names *parts = node->kind == AST_STAR ? &AST_AS(star, node)->parts : &AST_AS(name, node)->parts;
    bool could = node->kind == AST_STAR ? parts->count : node->kind == AST_NAME && parts->count > 1;
    return could ? pattern_variable(&t->m->pattern, parts->at[0]) : MATCH_ANY;
}

/* Which variable the names of an expression are of. */
struct walk {
    const struct matcher *t;
    uint32_t variable;
    bool names, any, several; /* it has names; such without a variable; of several */
};

static bool walk_names(const struct ast *node, void *arg)
{
    struct walk *w = arg;
    if (node->kind != AST_NAME && node->kind != AST_STAR)
        return ast_each_child(node, walk_names, w);
    uint32_t variable = variable_of(w->t, node);
    w->several |= w->names && variable != w->variable;
    w->any |= variable == MATCH_ANY;
    w->names = true;
    w->variable = variable;
    return true;
}

static struct walk walk(const struct matcher *t, const struct ast *node)
{
    struct walk w = {.t = t, .variable = MATCH_ANY};
    walk_names(node, &w);
    return w;
}

static const char *const steps[] = {"first", "last", "prev", "next"};

static int step_of(const struct ast *node)
{
    const struct ast_call *c = AST_AS(call, node);
    for (size_t i = 0; node->kind == AST_CALL && i < ARRAY_LEN(steps); i++)
        if (name_equal(c->name.at[c->name.count - 1], slice_str(steps[i])))
            return (int)i;
    return -1;
}

static bool walk_other(const struct ast *node, void *arg)
{
    const struct matcher *t = arg;
    if (step_of(node) >= 0 || (node->kind == AST_CALL && has_aggregate(node)))
        return false;
    if (node->kind == AST_NAME && variable_of(t, node) != MATCH_ANY && variable_of(t, node) != t->own)
        return false;
    return ast_each_child(node, walk_other, arg);
}

/* ------------------------------------------------------------------------------------------------------------- values */

/* An expression over one row, in which names may have a variable in front. */
static struct expr *bind_inner(struct matcher *t, uint32_t variable, const struct ast *node, bool condition)
{
    struct stage own = *t->input;
    if (variable != MATCH_ANY) {
        own.names = plan_take(t->p, node, (own.count + 1) * sizeof *own.names);
        for (uint32_t i = 0; own.names && i < own.count; i++) {
            own.names[i] = t->input->names[i];
            own.names[i].table = t->m->pattern.names[variable];
            own.names[i].qualified = false;
        }
        if (!own.names)
            return NULL;
    }
    return condition ? stage_bind_bool(t->p, &own, node) : stage_bind(t->p, &own, node);
}

/* The kept value that is this one. MATCH_ANY: the error is set. */
static uint32_t keep_value(struct matcher *t, struct expr *x, const struct ast *place)
{
    struct node *n = t->node;
    uint32_t first = n->keys + t->m->rule.order_count;
    if (!x)
        return MATCH_ANY;
    for (uint32_t i = first; i < n->item_count; i++)
        if (n->items[i] == x)
            return i - first;
    if (n->item_count >= PLAN_COLUMNS_MAX - 1) {
        (void)plan_refuse(t->p, place, "more than %u columns", PLAN_COLUMNS_MAX);
        return MATCH_ANY;
    }
    n->items[n->item_count++] = x;
    return n->item_count - 1 - first;
}

/* The column that stands for the lookup. */
static struct expr *look_up(struct matcher *t, const struct match_lookup *l, const struct ast *place)
{
    struct matching *m = t->m;
    static const struct scope none = {0};
    struct binder b = plan_binder(t->p, &none);
    uint32_t which = 0, used = 0;
    while (which < m->rule.lookup_count &&
           !(m->lookups[which].from == l->from && m->lookups[which].variable == l->variable &&
             m->lookups[which].offset == l->offset && m->lookups[which].back == l->back &&
             m->lookups[which].kept == l->kept))
        which++;
    if (which == m->rule.lookup_count) {
        if (which == MATCH_LOOKUPS_MAX)
            return plan_refuse(t->p, place, "more than %u values of rows in one MATCH_RECOGNIZE", MATCH_LOOKUPS_MAX);
        if (!(t->outs[which] = expr_new(&b, EXPR_COLUMN, place, 0)))
            return NULL;
        t->outs[which]->column = which;
        t->outs[which]->type = l->type;
        m->lookups[m->rule.lookup_count++] = *l;
        m->rule.back = l->back > m->rule.back ? l->back : m->rule.back;
    }
    while (used < t->used_count && t->used[used] != which)
        used++;
    t->used[used] = which;
    t->used_count += used == t->used_count;
    return t->outs[which];
}

/* The value `node` of the row that l says. */
static struct expr *look_up_value(struct matcher *t, struct match_lookup *l, const struct ast *node)
{
    const struct walk w = walk(t, node);
    if (w.several)
        return plan_refuse(t->p, node, "a value of one row has names of several variables");
    l->variable = w.variable;
    struct expr *x = bind_inner(t, l->variable, node, false);
    l->kept = keep_value(t, x, node);
    if (l->kept == MATCH_ANY)
        return NULL;
    l->type = x->type;
    struct expr *out = look_up(t, l, node);
    const struct match_rule *rule = &t->m->rule;
    if (out && x->clock == rule->clock && x == t->node->items[t->node->keys] && rule->within >= 0 && !l->back) {
        out->clock =
            x->clock; /* a match is known when its time is over, so it has begun no earlier than that before the watermark */
        out->clock_offset = x->clock_offset - rule->within;
    }
    return out;
}

static bool whole_number(struct planner *p, const struct ast *node, uint32_t *ret)
{
    static const struct scope none = {0};
    struct sql_type type = type_of(TYPE_BIGINT);
    struct expr *x = sql_bind_as(node, &type, &none, p->arena, p->error);
    int64_t v = -1;
    if (!x)
        return false;
    if (x->op == EXPR_CONST && !column_null(&x->constant, 0))
        memcpy(&v, x->constant.values, sizeof v);
    if (v < 0 || v > (int64_t)MATCH_OFFSET_MAX)
        sql_error_set(p->error, SQL_FAULT_ARGUMENT, node->at, node->len, "this is a number from 0 to %u",
                      MATCH_OFFSET_MAX);
    *ret = (uint32_t)v;
    return v >= 0 && v <= (int64_t)MATCH_OFFSET_MAX;
}

/* FIRST(x [, n]), LAST(x [, n]), PREV(x [, n]), in which x may be FIRST or LAST. */
static struct expr *look_up_step(struct matcher *t, const struct ast_call *c, int which)
{
    struct match_lookup l = {.from = which == 0 ? MATCH_FIRST : MATCH_LAST};
    bool prev = which == 2;
    uint32_t n = prev;
    if (which == 3)
        return plan_refuse(t->p, &c->ast, "NEXT cannot be run yet");
    if (c->star || c->distinct || c->filter || c->over || c->order.count || c->nulls || c->args.count < 1 ||
        c->args.count > 2)
        return plan_refuse(t->p, &c->ast, "FIRST, LAST and PREV have a value and a number of rows");
    if (c->args.count == 2 && !whole_number(t->p, c->args.at[1], &n))
        return NULL;
    const struct ast *of = c->args.at[0];
    int inner = step_of(of);
    if (prev)
        l.back = n;
    else
        l.offset = n;
    if (prev && (inner == 0 || inner == 1)) {
        const struct ast_call *in = AST_AS(call, of);
        l.from = inner == 0 ? MATCH_FIRST : MATCH_LAST;
        if (in->args.count < 1 || in->args.count > 2 || in->star)
            return plan_refuse(t->p, of, "FIRST, LAST and PREV have a value and a number of rows");
        if (in->args.count == 2 && !whole_number(t->p, in->args.at[1], &l.offset))
            return NULL;
        of = in->args.at[0];
    }
    if (!walk_other(of, &(struct matcher){.m = t->m, .own = walk(t, of).variable}) && !walk(t, of).several)
        return plan_refuse(t->p, of,
                           "FIRST, LAST, PREV and aggregates are not within one another, but for PREV(LAST(…))");
    return look_up_value(t, &l, of);
}

/* AVG(A.x): over the rows of A so far; AVG(x): over all of them. */
static struct expr *look_up_aggregate(struct matcher *t, const struct ast_call *c)
{
    struct planner *p = t->p;
    struct match_rule *rule = &t->m->rule;
    bool all_of = c->args.count == 1 && c->args.at[0]->kind == AST_STAR, star = c->star || all_of;
    struct slice name = c->name.at[c->name.count - 1];
    enum aggregate_kind kind = aggregate_find(name);
    struct aggregate a = {.kind = star ? AGG_COUNT_ALL : kind, .arg = type_of(TYPE_BOOL), .filter = NO_FILTER};
    const struct walk w = walk(t, &c->ast);
    const char *why;
    if (kind == AGG_KINDS || c->over || c->distinct || c->order.count || c->nulls)
        return plan_refuse(p, &c->ast, "%.*s with DISTINCT, an order or a window cannot be run over rows of a pattern",
                           SLICE_ARG(name));
    if (c->args.count != !c->star || (star && kind != AGG_COUNT) || (all_of && w.any))
        return plan_refuse(p, &c->ast, "an aggregate takes one argument; only COUNT takes a star");
    if (w.several)
        return plan_refuse(p, &c->ast, "an aggregate has names of several variables");
    if (rule->aggregate_count == WINDOW_CALLS_MAX)
        return plan_refuse(p, &c->ast, "more than %u aggregates", WINDOW_CALLS_MAX);
    if (!star) {
        struct expr *x = bind_inner(t, w.variable, c->args.at[0], false);
        if ((a.column = keep_value(t, x, &c->ast)) == MATCH_ANY)
            return NULL;
        a.arg = x->type;
    }
    if (c->filter && (a.filter = keep_value(t, bind_inner(t, w.variable, c->filter, true), c->filter)) == MATCH_ANY)
        return NULL;
    if (!aggregate_type(&a, false, &why)) {
        sql_error_set(p->error, SQL_FAULT_TYPE, c->ast.at, c->ast.len, "%.*s %s", SLICE_ARG(name), why);
        return NULL;
    }
    uint32_t which = 0;
    while (which < rule->aggregate_count &&
           !(t->m->aggregates[which].kind == a.kind && t->m->aggregates[which].column == a.column &&
             t->m->aggregates[which].filter == a.filter && t->m->aggregate_of[which] == w.variable))
        which++;
    t->m->aggregates[which] = a;
    t->m->aggregate_of[which] = w.variable;
    rule->aggregate_count += which == rule->aggregate_count;
    struct match_lookup l = {.from = MATCH_AGGREGATE, .variable = w.variable, .offset = which, .type = a.type};
    return look_up(t, &l, &c->ast);
}

/* MATCH_ROWTIME(): the time of the last row. */
static struct expr *look_up_time(struct matcher *t, const struct ast_call *c)
{
    struct expr *time = t->node->items[t->node->keys];
    struct match_lookup l = {.from = MATCH_LAST, .variable = MATCH_ANY, .type = time->type};
    if (c->args.count)
        return plan_refuse(t->p, &c->ast, "MATCH_ROWTIME() is the time that rows are ordered by: it has no argument");
    l.kept = keep_value(t, time, &c->ast);
    struct expr *out = l.kept == MATCH_ANY ? NULL : look_up(t, &l, &c->ast);
    if (out && t->m->rule.within >= 0) {
        out->clock = time->clock;
        out->clock_offset = time->clock_offset - t->m->rule.within;
    }
    return out;
}

/* Of a match that is one row, what is so far at its last row is what is at the end. */
static struct expr *look_up_moment(struct matcher *t, const struct ast_moment *n)
{
    const struct ast_call *c = AST_AS(call, n->call);
    if (n->final && t->own != MATCH_ANY)
        return plan_refuse(t->p, &n->ast, "FINAL is for MEASURES: in DEFINE rows are still being looked for");
    if (step_of(n->call) >= 0)
        return look_up_step(t, c, step_of(n->call));
    if (has_aggregate(n->call))
        return look_up_aggregate(t, c);
    return plan_refuse(t->p, &n->ast, "FINAL and RUNNING stand in front of FIRST, LAST and aggregates");
}

static bool match_replace(void *arg, const struct ast *node, struct expr **ret)
{
    static const char *const unbuilt[] = {"classifier", "match_number", "match_proctime"};
    struct matcher *t = arg;
    struct match_lookup last = {.from = MATCH_LAST};
    const struct ast_call *c = AST_AS(call, node);
    int which = step_of(node);
    if (node->kind == AST_NAME) {
        *ret = look_up_value(t, &last, node);
        return true;
    }
    if (node->kind == AST_MOMENT)
        *ret = look_up_moment(t, AST_AS(moment, node));
    if (node->kind != AST_CALL)
        return node->kind == AST_MOMENT;
    struct slice name = c->name.at[c->name.count - 1];
    for (size_t i = 0; i < ARRAY_LEN(unbuilt); i++)
        if (name_equal(name, slice_str(unbuilt[i]))) {
            *ret = plan_refuse(t->p, node, "%.*s cannot be run yet", SLICE_ARG(name));
            return true;
        }
    bool aggregate = c->star || c->distinct || c->filter || aggregate_find(name) != AGG_KINDS;
    if (which >= 0)
        *ret = look_up_step(t, c, which);
    else if (name_equal(name, slice_str("match_rowtime")))
        *ret = look_up_time(t, c);
    else if (aggregate)
        *ret = look_up_aggregate(t, c);
    return which >= 0 || name_equal(name, slice_str("match_rowtime")) || aggregate;
}

/* Names are replaced before they are looked for. */
static struct expr *match_column(void *arg, uint32_t column)
{
    (void)arg, (void)column;
    return NULL;
}

static bool bind_value(struct matcher *t, const struct ast *node, bool condition, struct match_value *ret)
{
    struct scope scope = {.column = match_column, .replace = match_replace, .arg = t};
    struct sql_type type = type_of(TYPE_BOOL);
    t->used_count = 0;
    ret->x = condition ? sql_bind_as(node, &type, &scope, t->p->arena, t->p->error)
                       : sql_bind(node, &scope, t->p->arena, t->p->error);
    uint32_t *used = ret->x ? plan_take(t->p, node, (t->used_count + 1) * sizeof *used) : NULL;
    if (!used)
        return false;
    memcpy(used, t->used, t->used_count * sizeof *used);
    ret->lookups = used;
    ret->count = t->used_count;
    return true;
}

/* ------------------------------------------------------------------------------------------------------------- clauses */

static bool refuse_unbuilt(struct planner *p, const struct ast_match *ast, const struct stage *s)
{
    if (ast->all_rows)
        return plan_refuse(p, &ast->ast, "ALL ROWS PER MATCH cannot be run yet");
    if (ast->subsets.count)
        return plan_refuse(p, ast->subsets.at[0], "SUBSET cannot be run yet");
    if (s->windowing)
        return plan_refuse(p, s->windowing->place, "MATCH_RECOGNIZE over windows without GROUP BY cannot be run yet");
    if (s->node->retracts)
        return plan_refuse(p, &ast->ast, "MATCH_RECOGNIZE over rows that are taken back cannot be run yet");
    return true;
}

static bool set_keys(struct planner *p, const struct ast_match *ast, struct stage *s, struct node *n)
{
    struct match_rule *rule = &n->match->rule;
    uint32_t at = (uint32_t)ast->partition.count;
    if (at >= PLAN_COLUMNS_MAX / 2)
        return plan_refuse(p, &ast->ast, "PARTITION BY more than %u values", PLAN_COLUMNS_MAX / 2);
    for (uint32_t i = 0; i < at; i++) {
        n->items[i] = stage_bind(p, s, ast->partition.at[i]);
        if (!n->items[i] || !plan_check_key(p, n->items[i], ast->partition.at[i]))
            return false;
    }
    n->keys = rule->keys = at;
    rule->order_count = (uint32_t)ast->order.count;
    if (!plan_order(p, n, (const struct ast *const *)ast->order.at, rule->order_count, s, rule->order, &at))
        return false;
    const struct expr *time = n->items[n->keys];
    n->item_count = at;
    if (!time->clock || time->type.kind != TYPE_TIMESTAMP || rule->order[0].descending) {
        (void)plan_refuse(p, ast->order.at[0],
                          "MATCH_RECOGNIZE is ordered by a time with a watermark first, ascending");
        sql_error_hint(p->error, "WATERMARK FOR in CREATE STREAM makes one; _ts has one always");
        return false;
    }
    rule->clock = time->clock;
    rule->offset = time->clock_offset;
    return plan_use_clock(p, time->clock, &ast->ast);
}

static bool set_pattern(struct planner *p, const struct ast_match *ast, struct matching *m)
{
    struct match_rule *rule = &m->rule;
    rule->within = -1;
    if (ast->within && !plan_duration(p, ast->within, &rule->within))
        return false;
    if (ast->within && rule->within < 0) {
        sql_error_set(p->error, SQL_FAULT_ARGUMENT, ast->within->at, ast->within->len, "WITHIN is not below zero");
        return false;
    }
    if (!plan_pattern(p, ast->pattern, &m->pattern))
        return false;
    rule->code = m->pattern.code;
    rule->code_count = m->pattern.code_count;
    rule->variables = m->pattern.count;
    if (!m->pattern.endless || ast->within || p->state_ttl == JOIN_TTL_NONE)
        return true;
    (void)plan_refuse(p, m->pattern.endless, "the pattern may keep rows for ever: this is repeated without end");
    sql_error_hint(p->error,
                   "say WITHIN an interval behind PATTERN, or {n,m}, or WITH (state_ttl = 'none') at the end");
    return false;
}

static bool set_skip(struct planner *p, const struct ast_match *ast, struct matching *m)
{
    static const enum match_skip kinds[] = {[SKIP_DEFAULT] = MATCH_SKIP_PAST,
                                            [SKIP_PAST_LAST] = MATCH_SKIP_PAST,
                                            [SKIP_NEXT_ROW] = MATCH_SKIP_NEXT,
                                            [SKIP_TO_FIRST] = MATCH_SKIP_FIRST,
                                            [SKIP_TO_LAST] = MATCH_SKIP_LAST};
    struct match_rule *rule = &m->rule;
    rule->skip = kinds[ast->skip];
    rule->skip_to = ast->skip_to.ptr ? pattern_variable(&m->pattern, ast->skip_to) : MATCH_ANY;
    if (!ast->skip_to.ptr)
        return true;
    if (rule->skip_to == MATCH_ANY) {
        sql_error_set(p->error, SQL_FAULT_NO_NAME, ast->ast.at, ast->ast.len, "the pattern has no variable %.*s",
                      SLICE_ARG(ast->skip_to));
        return false;
    }
    if (!(m->pattern.always >> rule->skip_to & 1))
        return plan_refuse(p, &ast->ast, "AFTER MATCH SKIP to a row that a match may not have: %.*s",
                           SLICE_ARG(ast->skip_to));
    if (rule->skip == MATCH_SKIP_FIRST && m->pattern.first >> rule->skip_to & 1)
        return plan_refuse(p, &ast->ast, "AFTER MATCH SKIP to the row that a match may begin with: %.*s",
                           SLICE_ARG(ast->skip_to));
    return true;
}

static bool set_condition(struct matcher *t, const struct ast_define *d, struct match_condition *c)
{
    t->own = pattern_variable(&t->m->pattern, d->name);
    c->of_row = walk_other(d->condition, t);
    if (!c->of_row)
        return bind_value(t, d->condition, true, &c->value);
    c->kept = keep_value(t, bind_inner(t, t->own, d->condition, true), d->condition);
    return c->kept != MATCH_ANY;
}

static bool set_conditions(struct matcher *t, const struct ast_match *ast)
{
    struct planner *p = t->p;
    struct pattern *pattern = &t->m->pattern;
    struct match_condition *all = plan_take(p, &ast->ast, (pattern->count + 1) * sizeof *all);
    uint64_t said = 0;
    if (!all)
        return false;
    for (uint32_t i = 0; i < pattern->count; i++)
        all[i].always = true;
    for (size_t i = 0; i < ast->defines.count; i++) {
        const struct ast_define *d = AST_AS(define, ast->defines.at[i]);
        uint32_t which = pattern_variable(pattern, d->name);
        struct nearest nearest = nearest_of(d->name);
        for (uint32_t k = 0; k < pattern->count; k++)
            nearest_try(&nearest, pattern->names[k]);
        if (which == MATCH_ANY || said >> which & 1) {
            sql_error_set(p->error, SQL_FAULT_NO_NAME, d->ast.at, d->ast.len,
                          which == MATCH_ANY ? "the pattern has no variable %.*s" : "%.*s is defined twice",
                          SLICE_ARG(d->name));
            if (which == MATCH_ANY && nearest_found(&nearest))
                sql_error_hint(p->error, "did you mean %.*s?", SLICE_ARG(nearest.best));
            return false;
        }
        said |= (uint64_t)1 << which;
        all[which].always = false;
        if (!set_condition(t, d, &all[which]))
            return false;
    }
    t->m->rule.conditions = all;
    return true;
}

static bool set_measures(struct matcher *t, const struct ast_match *ast, struct stage *out)
{
    uint32_t count = (uint32_t)ast->measures.count;
    struct match_value *all = plan_take(t->p, &ast->ast, (count + 1) * sizeof *all);
    struct node *n = t->node;
    if (!all)
        return false;
    t->own = MATCH_ANY;
    for (uint32_t i = 0; i < n->keys; i++)
        if (!stage_name_expr(t->p, out, (struct slice){0}, plan_own_name(ast->partition.at[i]),
                             plan_out(t->p, n, n->items[i]->type, ast->partition.at[i]), ast->partition.at[i]))
            return false;
    for (uint32_t i = 0; i < count; i++) {
        const struct ast_item *item = AST_AS(item, ast->measures.at[i]);
        if (item->expr->kind == AST_STAR)
            return plan_refuse(t->p, item->expr, "a star among MEASURES");
        struct expr *x =
            bind_value(t, item->expr, false, &all[i]) ? plan_out(t->p, n, all[i].x->type, item->expr) : NULL;
        if (!x || !stage_name_expr(t->p, out, (struct slice){0},
                                   item->alias.ptr ? item->alias : plan_own_name(item->expr), x, item->expr))
            return false;
        x->clock = all[i].x->clock;
        x->clock_offset = all[i].x->clock_offset;
    }
    t->m->rule.measures = all;
    t->m->rule.measure_count = count;
    return true;
}

bool plan_match(struct planner *p, const struct ast_match *ast, struct stage *s)
{
    struct matcher *t = plan_take(p, &ast->ast, sizeof *t);
    struct node *n = t && refuse_unbuilt(p, ast, s) ? plan_node(p, s, &ast->ast) : NULL;
    struct matching *m = n ? plan_take(p, &ast->ast, sizeof *m) : NULL;
    struct stage out = {.node = n};
    if (!m)
        return false;
    n->match = m;
    *t = (struct matcher){.p = p, .input = n->input, .node = n, .m = m};
    if (!set_keys(p, ast, s, n) || !set_pattern(p, ast, m) || !set_skip(p, ast, m) || !set_conditions(t, ast) ||
        !set_measures(t, ast, &out))
        return false;
    m->rule.kept_count = n->item_count - n->keys - m->rule.order_count;
    m->rule.lookups = m->lookups;
    m->rule.aggregates = m->aggregates;
    m->rule.aggregate_of = m->aggregate_of;
    *s = out;
    return true;
}
