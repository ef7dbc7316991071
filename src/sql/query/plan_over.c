/* Functions OVER windows, and DISTINCT ON, see plan_int.h. Each window that is written makes an operator over what is there; ROW_NUMBER and its like come
 * last, so that the condition outside of the query finds it. */
#include "sql/query/plan_int.h"

/* ------------------------------------------------------------------------------------------------------------- calls */

static bool visit_call(const struct ast *child, void *arg)
{
    (void)arg;
    return !has_window_call(child);
}

bool has_window_call(const struct ast *node)
{
    if (node->kind == AST_SUBQUERY)
        return false;
    return (node->kind == AST_CALL && AST_AS(call, node)->over) || !ast_each_child(node, visit_call, NULL);
}

struct calls {
    struct planner *p;
    const struct ast_call *at[WINDOW_CALLS_MAX];
    const struct ast_window *windows[WINDOW_CALLS_MAX];
    bool done[WINDOW_CALLS_MAX];
    uint32_t count;
    bool failed;
};

static bool collect(const struct ast *node, void *arg)
{
    struct calls *c = arg;
    if (node->kind == AST_SUBQUERY)
        return true;
    if (node->kind != AST_CALL || !AST_AS(call, node)->over)
        return ast_each_child(node, collect, c);
    for (uint32_t i = 0; i < c->count; i++)
        if (ast_equal(&c->at[i]->ast, node))
            return true;
    c->failed = c->count == WINDOW_CALLS_MAX;
    if (c->failed)
        return plan_refuse(c->p, node, "more than %u window functions", WINDOW_CALLS_MAX);
    c->at[c->count++] = AST_AS(call, node);
    return true;
}

/* OVER (…), or OVER name with WINDOW name AS (…). */
static const struct ast_window *window_of(struct planner *p, const struct ast_select *select,
                                          const struct ast_call *call)
{
    const struct ast_window *w = AST_AS(window, call->over);
    struct nearest nearest = nearest_of(w->base);
    if (!w->base.ptr)
        return w;
    for (size_t i = 0; i < select->windows.count; i++) {
        const struct ast_named_window *named = AST_AS(named_window, select->windows.at[i]);
        nearest_try(&nearest, named->name);
        if (!name_equal(named->name, w->base))
            continue;
        if (w->bare && !AST_AS(window, named->window)->base.ptr)
            return AST_AS(window, named->window);
        return plan_refuse(p, call->over, "a window that begins with another one cannot be run yet");
    }
    sql_error_set(p->error, SQL_FAULT_NO_NAME, call->over->at, call->over->len, "there is no window %.*s",
                  SLICE_ARG(w->base));
    if (nearest_found(&nearest))
        sql_error_hint(p->error, "did you mean %.*s?", SLICE_ARG(nearest.best));
    return NULL;
}

enum window_kind plan_window_kind(const struct ast_call *c)
{
    return window_find(c->name.at[c->name.count - 1]);
}

enum window_class plan_window_class(const struct ast_call *c)
{
    const struct window_function *f = window_function(plan_window_kind(c));
    return f ? f->class : WINDOW_AGGREGATE;
}

bool plan_add_call(struct planner *p, struct stage *s, const struct ast *ast, struct expr *x)
{
    struct window_call *more = plan_take(p, ast, (s->call_count + 1) * sizeof *more);
    struct lazy *lazy = more ? plan_take(p, ast, sizeof *lazy) : NULL;
    if (!lazy)
        return false;
    if (s->call_count)
        memcpy(more, s->calls, s->call_count * sizeof *more);
    lazy->x = x;
    more[s->call_count++] = (struct window_call){.ast = ast, .lazy = lazy};
    s->calls = more;
    return true;
}

static bool plan_place(struct planner *p, const struct ast_call *call, const struct ast_window *w, struct stage *s)
{
    enum window_kind kind = plan_window_kind(call);
    enum topn_ranking ranking = kind == WINDOW_RANK         ? RANKING_RANK
                                : kind == WINDOW_DENSE_RANK ? RANKING_DENSE
                                                            : RANKING_ROW;
    if (call->args.count || call->star || call->filter || call->distinct || w->unit != FRAME_NONE)
        return plan_refuse(p, &call->ast, "%.*s has no arguments, no FILTER and no frame",
                           SLICE_ARG(call->name.at[call->name.count - 1]));
    return plan_rank(p, ranking, &call->ast, &w->partition, (const struct ast *const *)w->order.at,
                     (uint32_t)w->order.count, s) &&
           plan_add_call(p, s, &call->ast, s->node->rank->number);
}

/* It is one, and one that a stream can compute. */
static bool check_call(struct planner *p, const struct ast_call *call)
{
    const struct window_function *f = window_function(plan_window_kind(call));
    struct slice name = call->name.at[call->name.count - 1];
    struct nearest nearest = nearest_of(name);
    if (f ? f->class != WINDOW_WHOLE : aggregate_find(name) != AGG_KINDS)
        return true;
    if (f) {
        (void)plan_refuse(p, &call->ast, "%.*s asks how many rows there will be, which a stream does not know",
                          SLICE_ARG(name));
        sql_error_hint(p->error, "%s", f->remark);
        return false;
    }
    sql_error_set(p->error, SQL_FAULT_NO_FUNCTION, call->ast.at, call->ast.len, "there is no window function %.*s",
                  SLICE_ARG(name));
    window_nearest(&nearest);
    aggregate_nearest(&nearest);
    if (nearest_found(&nearest))
        sql_error_hint(p->error, "did you mean %.*s?", SLICE_ARG(nearest.best));
    return false;
}

/* Those of a class over that window come to the calls that one operator computes. */
static uint32_t gather(struct calls *c, uint32_t first, enum window_class class, const struct ast_call **calls,
                       uint32_t count)
{
    for (uint32_t i = first; i < c->count; i++)
        if (!c->done[i] && plan_window_class(c->at[i]) == class &&
            ast_equal(&c->windows[i]->ast, &c->windows[first]->ast)) {
            calls[count++] = c->at[i];
            c->done[i] = true;
        }
    return count;
}

/* That call, and all others of its window and kind: rows that are equal in the order stand in one order for them. */
static bool plan_together(struct planner *p, struct calls *c, uint32_t first, struct stage *s)
{
    const struct ast_call *calls[WINDOW_CALLS_MAX];
    const struct ast_window *w = c->windows[first];
    bool near = plan_window_class(c->at[first]) == WINDOW_NEAR;
    uint32_t count = gather(c, first, near ? WINDOW_NEAR : WINDOW_AGGREGATE, calls, 0);
    if (!near)
        count = gather(c, first, WINDOW_FRAME, calls, count);
    return plan_frame(p, w, calls, count, s);
}

bool plan_window_calls(struct planner *p, const struct ast_select *select, struct stage *s)
{
    struct calls all = {.p = p}, *c = &all;
    for (size_t i = 0; i < select->items.count; i++)
        collect(select->items.at[i], c);
    if (select->qualify)
        collect(select->qualify, c);
    if (c->failed)
        return false;
    if (c->count && s->windowing && s->windowing->rule.kind != SPAN_TUMBLE)
        return plan_refuse(
            p, s->windowing->place,
            "window functions over HOP, CUMULATE and SESSION windows without GROUP BY cannot be run yet");
    for (uint32_t i = 0; i < c->count; i++)
        if (!check_call(p, c->at[i]) || !(c->windows[i] = window_of(p, select, c->at[i])))
            return false;
    for (uint32_t i = 0; i < c->count; i++)
        if (plan_window_class(c->at[i]) != WINDOW_PLACE && !c->done[i] && !plan_together(p, c, i, s))
            return false;
    for (uint32_t i = 0; i < c->count; i++)
        if (plan_window_class(c->at[i]) == WINDOW_PLACE && !plan_place(p, c->at[i], c->windows[i], s))
            return false;
    return true;
}

/* ------------------------------------------------------------------------------------------------------- DISTINCT ON */

static bool among(const struct ast_list *list, const struct ast *node)
{
    for (size_t i = 0; i < list->count; i++)
        if (ast_equal(list->at[i], node))
            return true;
    return false;
}

bool plan_distinct_on(struct planner *p, const struct ast_select *select, const struct ast_list *order, struct stage *s)
{
    size_t keys = select->distinct_on.count, count = order ? order->count : 0;
    for (size_t i = 0; i < count && i < keys; i++)
        if (!among(&select->distinct_on, AST_AS(order, order->at[i])->expr)) {
            sql_error_set(p->error, SQL_FAULT_GROUPING, order->at[i]->at, order->at[i]->len,
                          "ORDER BY begins with what is behind DISTINCT ON");
            return false;
        }
    if (s->windowing && s->windowing->rule.kind != SPAN_TUMBLE)
        return plan_refuse(p, s->windowing->place, "DISTINCT ON over windows without GROUP BY cannot be run yet");
    const struct ast *const *rest = count > keys ? (const struct ast *const *)order->at + keys : NULL;
    if (!plan_rank(p, RANKING_ROW, &select->ast, &select->distinct_on, rest,
                   count > keys ? (uint32_t)(count - keys) : 0, s))
        return false;
    struct node *n = s->node;
    n->rank->rule.limit = 1;
    n->retracts = n->changes && (n->rank->order_count || n->rank->rule.retracts);
    return true;
}
