/* From stages to operators, see plan.h. Each operator gets its own copy of its expressions, since sharing parts changes them. */
#include "sql/plan_int.h"

#define EXPRESSIONS_MAX 20000u /* nodes of a query, with what views put in their places */

struct build {
    struct planner *p;
    const struct ast *place;
    uint32_t copied;
};

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
    to->args = plan_take(b->p, b->place, (x->count + 1) * sizeof *to->args);
    for (uint32_t i = 0; to->args && i < x->count; i++) {
        to->args[i] = copy(b, x->args[i]);
        if (!to->args[i])
            return NULL;
    }
    return to->args ? to : NULL;
}

static struct op *keep(struct build *b, struct op *op)
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
    return true;
}

static bool build_stage(struct build *b, const struct stage *s, struct expr *const *items, uint32_t count,
                        struct op *to);

static struct op *build_node(struct build *b, struct node *n)
{
    if (n->source) {
        if (!n->source->op)
            n->source->op = keep(b, op_scan_new(&b->p->plan->budget));
        return n->source->op;
    }
    struct op *op = keep(b, op_aggregate_new(&b->p->plan->budget, &n->rule, n->changes, n->types, n->type_count,
                                             n->keys, n->aggregates, n->aggregate_count));
    return op && build_stage(b, n->input, n->items, n->item_count, op) ? op : NULL;
}

static bool build_stage(struct build *b, const struct stage *s, struct expr *const *items, uint32_t count,
                        struct op *to)
{
    if (s->windowing && s->windowing->rule.kind != SPAN_TUMBLE)
        return plan_refuse(b->p, s->windowing->place, "HOP and CUMULATE windows without GROUP BY cannot be run yet");
    struct expr **all = plan_take(b->p, b->place, (s->filter_count + count + 1) * sizeof *all);
    for (uint32_t i = 0; all && i < s->filter_count + count; i++) {
        all[i] = copy(b, i < s->filter_count ? s->filters[i] : items[i - s->filter_count]);
        if (!all[i])
            return false;
    }
    if (!all)
        return false;
    struct op *op = keep(b, op_project_new(&b->p->plan->budget, all, s->filter_count, all + s->filter_count, count));
    if (!op || !link_ops(b, op, to))
        return false;
    struct op *from = build_node(b, s->node);
    return from && link_ops(b, from, op);
}

static bool build_clocks(struct build *b)
{
    struct plan *plan = b->p->plan;
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
    return build_stage(&b, s, items, s->count, sink) && build_clocks(&b);
}

bool plan_query(const struct catalog *catalog, const struct ast *query, const struct ast *emit, struct op *sink,
                struct arena *arena, struct plan *ret, struct sql_error *error)
{
    const struct ast_emit *e = AST_AS(emit, emit);
    struct planner p = {
        .plan = ret, .catalog = catalog, .arena = arena, .error = error, .emit = emit ? (int)e->kind : -1};
    struct stage s;
    size_t max = ret->budget.max;
    *ret = (struct plan){.budget = {.max = max}};
    if (emit && e->interval)
        plan_refuse(&p, emit, e->kind == EMIT_EVERY ? "EMIT EVERY cannot be run yet" : "WITH DELAY cannot be run yet");
    bool ok = !(emit && e->interval) && plan_query_stage(&p, query, &s);
    if (ok && p.emit == EMIT_CLOSE && s.node->retracts) {
        plan_refuse(&p, emit, "EMIT ON WINDOW CLOSE cannot be: the query changes rows that it has given out");
        ok = false;
    }
    ok = ok && build_all(&p, query, &s, sink);
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
