/* From stages to operators, see plan.h. Each operator gets its own copy of its expressions, since sharing parts changes them. */
#include "sql/query/op_session.h"
#include "sql/query/plan_int.h"

#define EXPRESSIONS_MAX 20000u /* nodes of a query, with what views put in their places */

static struct expr *copy(struct build *b, const struct expr *x)
{
    struct expr *to = plan_take(b->p, b->place, sizeof *to);
    if (!to)
        return NULL;
    if (b->copied++ == EXPRESSIONS_MAX)
        return plan_refuse(b->p, b->place, "a query of more than %u parts", EXPRESSIONS_MAX);
    if (x->op == EXPR_COLUMN && x->column == NO_COLUMN)
        return plan_refuse(b->p, b->place, "window_start and window_end without GROUP BY cannot be run yet");
    *to = *x;
    to->memo = 0;
    if (x->op == EXPR_COLUMN && b->joined) {
        struct join_column *c = &b->joined->outs[x->column];
        c->used = c->used ? c->used : ++b->joined->used_count;
        to->column = c->used - 1;
    }
    to->args = plan_take(b->p, b->place, (x->count + 1) * sizeof *to->args);
    for (uint32_t i = 0; to->args && i < x->count; i++) {
        to->args[i] = copy(b, x->args[i]);
        if (!to->args[i])
            return NULL;
    }
    return to->args ? to : NULL;
}

struct op *build_keep(struct build *b, struct op *op)
{
    struct plan *plan = b->p->plan;
    if (!op)
        sql_error_set(b->p->error, SQL_FAULT_MEMORY, b->place->at, b->place->len, "no memory for the query");
    if (op && plan->op_count == PLAN_OPS_MAX) {
        op_free(&op);
        return plan_refuse(b->p, b->place, "a query of more than %u operators", PLAN_OPS_MAX);
    }
    if (op)
        plan->ops[plan->op_count++] = op;
    return op;
}

static bool link_ops(struct build *b, struct op *from, struct op *to)
{
    if (from->output_count == OP_OUTPUTS_MAX)
        return plan_refuse(b->p, b->place, "a stream that is read more than %u times", OP_OUTPUTS_MAX);
    from->outputs[from->output_count++] = to;
    to->input_count++;
    return true;
}

/* What an operator of plan_over.c is made for: the types of its items. */
static struct sql_type *item_types(struct build *b, const struct node *n)
{
    struct sql_type *types = plan_take(b->p, b->place, (n->item_count + 1) * sizeof *types);
    for (uint32_t i = 0; types && i < n->item_count; i++)
        types[i] = n->items[i]->type;
    return types;
}

static struct op *build_rank(struct build *b, struct node *n)
{
    const struct ranking *r = n->rank;
    if (!r->rule.limit)
        return plan_refuse(b->p, r->place, "%s without a condition such as %s <= 10 in the query around it",
                           r->rule.ranking == RANKING_ROW    ? "ROW_NUMBER"
                           : r->rule.ranking == RANKING_RANK ? "RANK"
                                                             : "DENSE_RANK",
                           r->rule.ranking == RANKING_ROW ? "rn" : "rk");
    const struct sql_type *types = item_types(b, n);
    struct op *op = types ? build_keep(b, op_topn_new(&b->p->plan->budget, &r->rule, types, n->item_count, n->keys,
                                                      r->order, r->order_count))
                          : NULL;
    return op && build_stage(b, n->input, n->items, n->item_count, op) ? op : NULL;
}

static struct op *build_frame(struct build *b, struct node *n)
{
    const struct framing *f = n->frame;
    struct over_columns columns = {.keys = n->keys,
                                   .order_count = f->order_count,
                                   .arg_count = f->arg_count,
                                   .order = f->order,
                                   .aggregates = f->aggregates,
                                   .aggregate_count = f->aggregate_count,
                                   .picks = f->picks,
                                   .pick_count = f->pick_count};
    const struct sql_type *types = item_types(b, n);
    struct op *op =
        types ? build_keep(b, op_over_new(&b->p->plan->budget, &f->rule, &columns, types, n->item_count, n->types))
              : NULL;
    return op && build_stage(b, n->input, n->items, n->item_count, op) ? op : NULL;
}

static struct op *build_match(struct build *b, struct node *n)
{
    const struct sql_type *types = item_types(b, n);
    struct op *op =
        types ? build_keep(b, op_match_new(&b->p->plan->budget, &n->match->rule, types, n->item_count, n->types))
              : NULL;
    return op && build_stage(b, n->input, n->items, n->item_count, op) ? op : NULL;
}

static struct op *build_node(struct build *b, struct node *n)
{
    if (n->source) {
        if (!n->source->op)
            n->source->op = build_keep(b, op_scan_new(&b->p->plan->budget));
        return n->source->op;
    }
    if (n->join)
        return build_join(b, n);
    if (n->unite)
        return build_union(b, n);
    if (n->rank)
        return build_rank(b, n);
    if (n->frame)
        return build_frame(b, n);
    if (n->match)
        return build_match(b, n);
    struct op *(*make)(struct budget * budget, const struct span_rule *rule, bool changes, const struct sql_type *types,
                       uint32_t type_count, uint32_t keys, const struct aggregate *aggregates, uint32_t count) =
        n->rule.kind == SPAN_SESSION ? op_session_new : op_aggregate_new;
    struct op *op = build_keep(b, make(&b->p->plan->budget, &n->rule, n->changes, n->types, n->type_count, n->keys,
                                       n->aggregates, n->aggregate_count));
    return op && build_stage(b, n->input, n->items, n->item_count, op) ? op : NULL;
}

bool build_stage(struct build *b, const struct stage *s, struct expr *const *items, uint32_t count, struct op *to)
{
    if (s->windowing && s->windowing->rule.kind != SPAN_TUMBLE)
        return plan_refuse(b->p, s->windowing->place,
                           "HOP, CUMULATE and SESSION windows without GROUP BY cannot be run yet");
    struct expr **all = plan_take(b->p, b->place, (s->filter_count + count + 1) * sizeof *all);
    b->joined = s->node->join;
    for (uint32_t i = 0; all && i < s->filter_count + count; i++) {
        all[i] = copy(b, i < s->filter_count ? s->filters[i] : items[i - s->filter_count]);
        if (!all[i])
            return false;
    }
    if (!all)
        return false;
    struct op *op =
        build_keep(b, op_project_new(&b->p->plan->budget, all, s->filter_count, all + s->filter_count, count));
    if (!op || !link_ops(b, op, to))
        return false;
    plan_rank_used(s->node, s->filters, s->filter_count);
    plan_rank_used(s->node, items, count);
    struct op *from = build_node(b, s->node);
    return from && link_ops(b, from, op);
}

/* Scans feed several chains, so they come behind all of them. */
static void order_ops(struct plan *plan)
{
    for (uint32_t i = 0; i < plan->source_count; i++) {
        struct op *scan = plan->sources[i].op;
        uint32_t at = 0;
        while (at < plan->op_count && plan->ops[at] != scan)
            at++;
        if (at == plan->op_count)
            continue;
        memmove(plan->ops + at, plan->ops + at + 1, (plan->op_count - at - 1) * sizeof *plan->ops);
        plan->ops[plan->op_count - 1] = scan;
    }
}

static bool build_clocks(struct build *b)
{
    struct plan *plan = b->p->plan;
    b->joined = NULL;
    for (uint32_t i = 0; i < plan->source_count; i++) {
        struct clock *clocks[] = {plan->sources[i].clock, plan->sources[i].arrival};
        for (size_t k = 0; k < ARRAY_LEN(clocks); k++)
            if (clocks[k] && clocks[k]->expr && !(clocks[k]->expr = copy(b, clocks[k]->expr)))
                return false;
    }
    return true;
}

static bool build_all(struct planner *p, const struct ast *query, struct stage *s, struct op *sink)
{
    struct plan *plan = p->plan;
    struct build b = {.p = p, .place = query};
    struct expr **items = plan_take(p, query, (s->count + 1) * sizeof *items);
    plan->columns = plan_take(p, query, (s->count + 1) * sizeof *plan->columns);
    if (!items || !plan->columns)
        return false;
    for (uint32_t i = 0; i < s->count; i++) {
        items[i] = lazy_expr(p, s->names[i].lazy, query);
        if (!items[i])
            return false;
        plan->columns[i] = (struct plan_column){.name = s->names[i].name, .type = items[i]->type};
    }
    plan->column_count = s->count;
    plan->retracts = s->node->retracts;
    plan_key(plan, s->node, items, s->count);
    struct op *every = p->every ? build_every(&b, s, items) : NULL;
    if (p->every && (!every || !link_ops(&b, every, sink)))
        return false;
    bool ok = build_stage(&b, s, items, s->count, every ? every : sink) && build_clocks(&b);
    order_ops(plan);
    return ok;
}

/* EMIT ON WINDOW CLOSE WITH DELAY: all watermarks are so much less, so rows that are no later than that are still used. */
static bool plan_delay(struct planner *p, const struct ast_emit *e, int64_t *ret)
{
    if (!e || !e->interval)
        return true;
    if (e->kind == EMIT_EVERY)
        return plan_every(p, e);
    if (!plan_duration(p, e->interval, ret))
        return false;
    if (*ret < 0)
        sql_error_set(p->error, SQL_FAULT_ARGUMENT, e->interval->at, e->interval->len, "a delay is not below zero");
    return *ret >= 0;
}

bool plan_options(struct planner *p, const struct ast_list *options)
{
    static const struct scope none = {0};
    struct sql_type type = type_of(TYPE_INTERVAL);
    for (size_t i = 0; i < options->count; i++) {
        const struct ast_option *o = AST_AS(option, options->at[i]);
        const struct ast_literal *l = AST_AS(literal, o->value);
        if (!name_equal(o->key, slice_str("state_ttl"))) {
            sql_error_set(p->error, SQL_FAULT_ARGUMENT, o->ast.at, o->ast.len, "a query has no setting %.*s",
                          SLICE_ARG(o->key));
            sql_error_hint(p->error, "there is state_ttl");
            return false;
        }
        p->plan->hash = ast_hash(&o->ast, p->plan->hash);
        if (o->value->kind == AST_LITERAL && l->what == LITERAL_STRING && name_equal(l->text, slice_str("none"))) {
            p->state_ttl = JOIN_TTL_NONE;
            continue;
        }
        struct expr *x = sql_bind_as(o->value, &type, &none, p->arena, p->error);
        if (!x)
            return false;
        if (!interval_us(x, &p->state_ttl) || p->state_ttl < 0) {
            sql_error_set(p->error, SQL_FAULT_ARGUMENT, o->ast.at, o->ast.len,
                          "state_ttl is 'none' or an interval of days, hours or less");
            return false;
        }
    }
    return true;
}

bool plan_query(const struct catalog *catalog, const struct ast_run *run, struct op *sink, struct arena *arena,
                struct plan *ret, struct sql_error *error)
{
    const struct ast *query = run->query, *emit = run->emit;
    const struct ast_emit *e = AST_AS(emit, emit);
    struct planner p = {.plan = ret,
                        .catalog = catalog,
                        .arena = arena,
                        .error = error,
                        .emit = emit ? (int)e->kind : -1,
                        .state_ttl = -1};
    struct stage s;
    int64_t delay = 0;
    size_t max = ret->budget.max;
    *ret = (struct plan){.budget = {.max = max, .seed = catalog->seed}};
    ret->hash = ast_hash(emit, ast_hash(query, 0));
    bool ok = plan_delay(&p, e, &delay) && plan_options(&p, &run->options) && plan_query_stage(&p, query, &s);
    if (ok && p.emit == EMIT_CLOSE && s.node->retracts) {
        plan_refuse(&p, emit, "EMIT ON WINDOW CLOSE cannot be: the query changes rows that it has given out");
        ok = false;
    }
    ok = ok && build_all(&p, query, &s, sink);
    for (uint32_t i = 0; i < ret->source_count; i++) {
        ret->sources[i].arrival->delay = delay;
        if (ret->sources[i].clock)
            ret->sources[i].clock->delay = delay;
    }
    if (!ok)
        plan_free(ret);
    return ok;
}

void plan_free(struct plan *plan)
{
    for (uint32_t i = 0; i < plan->op_count; i++)
        op_free(&plan->ops[i]);
    plan->op_count = 0;
}
