/* Functions over frames, see plan_int.h. */
#include "sql/query/plan_int.h"

static bool set_reach(struct planner *p, const struct ast_bound *bound, const struct expr *first, struct framing *f)
{
    struct over_rule *r = &f->rule;
    bool time = first->type.kind == TYPE_TIMESTAMP || first->type.kind == TYPE_TIMESTAMPTZ;
    if (r->rows)
        return plan_whole_number(p, bound->expr, 0, r->clock ? OVER_ROWS_MAX : OVER_CHANGED_ROWS_MAX, &r->reach);
    if (!time)
        return plan_whole_number(p, bound->expr, 0, INT64_MAX, &r->reach);
    if (!plan_duration(p, bound->expr, &r->reach))
        return false;
    if (r->reach < 0)
        sql_error_set(p->error, SQL_FAULT_ARGUMENT, bound->ast.at, bound->ast.len, "a frame begins before its end");
    return r->reach >= 0;
}

/* first: what is ordered by first. */
static bool set_frame(struct planner *p, const struct ast_window *w, const struct expr *first, struct framing *f)
{
    const struct ast_bound *start = AST_AS(bound, w->start), *end = AST_AS(bound, w->end);
    struct over_rule *r = &f->rule;
    r->rows = w->unit == FRAME_ROWS;
    r->descending = f->order[0].descending;
    r->unbounded = w->unit == FRAME_NONE || start->kind == BOUND_ALL_BEFORE;
    if (w->unit == FRAME_GROUPS)
        return plan_refuse(p, &w->ast, "GROUPS frames cannot be run yet");
    if (end && end->kind != BOUND_CURRENT)
        return plan_refuse(p, &end->ast, "a frame that ends elsewhere than with CURRENT ROW cannot be run yet");
    if (w->unit != FRAME_NONE && start->kind > BOUND_CURRENT)
        return plan_refuse(p, &start->ast, "a frame that begins behind CURRENT ROW");
    if (r->unbounded && !r->clock) {
        (void)plan_refuse(p, &w->ast,
                          "a frame from the first row on would change without end: it needs ORDER BY a time with a "
                          "watermark, ascending, and no EMIT CHANGES");
        sql_error_hint(p->error, "or bound it: ROWS 10 PRECEDING behind ORDER BY");
        return false;
    }
    bool whole =
        first->type.kind == TYPE_TIMESTAMP || first->type.kind == TYPE_TIMESTAMPTZ || type_is_integer(first->type.kind);
    if (!r->unbounded && !r->rows && (f->order_count > 1 || !whole))
        return plan_refuse(p, &w->ast, "RANGE is over one timestamp or whole number");
    return r->unbounded || start->kind == BOUND_CURRENT || set_reach(p, start, first, f);
}

static bool add_aggregate(struct planner *p, struct node *n, const struct ast_call *c, struct stage *s,
                          struct sql_type *ret)
{
    struct framing *f = n->frame;
    struct slice name = c->name.at[c->name.count - 1];
    enum aggregate_kind kind = aggregate_find(name);
    struct aggregate a = {.kind = c->star ? AGG_COUNT_ALL : kind, .arg = type_of(TYPE_BOOL), .filter = NO_FILTER};
    const char *why;
    if (c->distinct)
        return plan_refuse(p, &c->ast, "DISTINCT over a frame cannot be run yet");
    if (c->args.count != !c->star || (c->star && kind != AGG_COUNT))
        return plan_refuse(p, &c->ast, "an aggregate takes one argument; only COUNT takes a star");
    if (!c->star) {
        struct expr *x = stage_bind(p, s, c->args.at[0]);
        if (!plan_frame_item(p, n, x, &c->ast, &a.column))
            return false;
        a.arg = x->type;
    }
    if (c->filter && !plan_frame_item(p, n, stage_bind_bool(p, s, c->filter), c->filter, &a.filter))
        return false;
    if (!aggregate_type(&a, false, &why)) {
        sql_error_set(p->error, SQL_FAULT_TYPE, c->ast.at, c->ast.len, "%.*s %s", SLICE_ARG(name), why);
        return false;
    }
    f->aggregates[f->aggregate_count++] = a;
    *ret = a.type;
    return true;
}

static bool set_keys(struct planner *p, struct node *n, const struct ast_window *w, struct stage *s)
{
    struct framing *f = n->frame;
    if (w->partition.count >= PLAN_COLUMNS_MAX / 2)
        return plan_refuse(p, &w->ast, "PARTITION BY more than %u values", PLAN_COLUMNS_MAX / 2);
    for (size_t i = 0; i < w->partition.count; i++) {
        n->items[i] = stage_bind(p, s, w->partition.at[i]);
        if (!n->items[i] || !plan_check_key(p, n->items[i], w->partition.at[i]))
            return false;
    }
    n->keys = n->pass_from = (uint32_t)w->partition.count;
    if (!w->order.count)
        return plan_refuse(p, &w->ast, "OVER without ORDER BY cannot be run yet");
    f->order_count = (uint32_t)w->order.count;
    return plan_order(p, n, (const struct ast *const *)w->order.at, f->order_count, s, f->order, &n->pass_from);
}

static bool has_lead(const struct ast_call *const *calls, uint32_t count)
{
    while (count && plan_window_kind(calls[count - 1]) != WINDOW_LEAD)
        count--;
    return count;
}

/* By which clock rows are used, if by any. leads: a row changes with one that comes behind it. */
static bool set_clock(struct planner *p, struct node *n, const struct ast_window *w, bool leads)
{
    struct framing *f = n->frame;
    const struct expr *first = n->items[n->keys];
    if (leads && p->emit == EMIT_CLOSE) {
        (void)plan_refuse(p, &w->ast, "EMIT ON WINDOW CLOSE cannot be: LEAD is of a row that may never come");
        sql_error_hint(p->error, "LAG in the later row says the same once and for all; or EMIT CHANGES");
        return false;
    }
    if (!leads && first->clock && !f->order[0].descending && p->emit != EMIT_CHANGES) {
        f->rule.clock = first->clock;
        f->rule.offset = first->clock_offset;
        return plan_use_clock(p, first->clock, &w->ast);
    }
    if (p->emit == EMIT_CLOSE)
        return plan_refuse(p, &w->ast,
                           "EMIT ON WINDOW CLOSE cannot be: OVER is not ordered by a time with a watermark");
    n->changes = n->retracts = true;
    return true;
}

/* So many of the first ones. */
static uint32_t of_one_class(const struct ast_call *const *calls, uint32_t count)
{
    uint32_t n = 1;
    while (n < count && plan_window_class(calls[n]) == plan_window_class(calls[0]))
        n++;
    return n;
}

bool plan_frame(struct planner *p, const struct ast_window *w, const struct ast_call *const *calls, uint32_t count,
                struct stage *s)
{
    struct node *n = plan_node(p, s, &w->ast);
    struct sql_type types[WINDOW_CALLS_MAX];
    struct expr *outs[WINDOW_CALLS_MAX];
    bool near = plan_window_class(calls[0]) == WINDOW_NEAR;
    uint32_t own = count;
    if (!n || !(n->frame = plan_take(p, &w->ast, sizeof *n->frame)))
        return false;
    if (!set_keys(p, n, w, s) || !set_clock(p, n, w, has_lead(calls, count)))
        return false;
    if (n->frame->rule.clock) /* one operator for each class: ties stand as they came in all of them */
        own = of_one_class(calls, count);
    n->frame->rule.rows = near;
    if (near && w->unit != FRAME_NONE)
        return plan_refuse(p, &w->ast, "LAG and LEAD have no frame");
    for (uint32_t i = 0; i < own; i++) {
        if (calls[i]->order.count || calls[i]->nulls)
            return plan_refuse(p, &calls[i]->ast, "ORDER BY and NULLS in a window function's arguments");
        bool sums = plan_window_class(calls[i]) == WINDOW_AGGREGATE;
        if (!(sums ? add_aggregate : plan_pick)(p, n, calls[i], s, &types[i]))
            return false;
    }
    if (!near && !set_frame(p, w, n->items[n->keys], n->frame))
        return false;
    n->pass_from = n->item_count = n->keys + n->frame->order_count + n->frame->arg_count;
    for (uint32_t i = 0; i < own; i++)
        if (!(outs[i] = plan_out(p, n, types[i], &calls[i]->ast)))
            return false;
    if (!stage_through(p, s, n, &w->ast))
        return false;
    for (uint32_t i = 0; i < own; i++)
        if (!plan_add_call(p, s, &calls[i]->ast, outs[i]))
            return false;
    return own == count || plan_frame(p, w, calls + own, count - own, s);
}
