/* LAG, LEAD, FIRST_VALUE, LAST_VALUE and NTH_VALUE: values of one row, see plan_int.h. */
#include "sql/query/plan_int.h"

static const struct scope no_names = {0};

bool plan_whole_number(struct planner *p, const struct ast *node, int64_t least, int64_t most, int64_t *ret)
{
    struct sql_type type = type_of(TYPE_BIGINT);
    struct expr *x = sql_bind_as(node, &type, &no_names, p->arena, p->error);
    if (!x)
        return false;
    if (x->op == EXPR_CONST && !column_null(&x->constant, 0))
        memcpy(ret, x->constant.values, sizeof *ret);
    else
        *ret = least - 1;
    if (*ret < least || *ret > most)
        sql_error_set(p->error, SQL_FAULT_ARGUMENT, node->at, node->len, "this is a number from %lld to %lld",
                      (long long)least, (long long)most);
    return *ret >= least && *ret <= most;
}

bool plan_frame_item(struct planner *p, struct node *n, struct expr *x, const struct ast *place, uint32_t *ret)
{
    struct framing *f = n->frame;
    uint32_t begin = n->keys + f->order_count;
    if (!x)
        return false;
    if (begin + f->arg_count >= PLAN_COLUMNS_MAX - 1)
        return plan_refuse(p, place, "more than %u columns", PLAN_COLUMNS_MAX);
    *ret = f->arg_count;
    n->items[begin + f->arg_count++] = x;
    return true;
}

static bool check_call(struct planner *p, const struct ast_call *c)
{
    const struct window_function *f = window_function(plan_window_kind(c));
    size_t count = c->args.count;
    if (!c->star && !c->filter && !c->distinct && count >= f->args_least && count <= f->args_most)
        return true;
    return plan_refuse(p, &c->ast, "%.*s has %s, and no FILTER", SLICE_ARG(c->name.at[c->name.count - 1]),
                       f->args_most == 1         ? "a value"
                       : f->class == WINDOW_NEAR ? "a value, a number of rows and a default"
                                                 : "a value and a row's number");
}

/* A NULL that is written so has no type of its own, and is what there is without a default. */
static bool has_default(const struct ast_call *c)
{
    const struct ast *node = c->args.count > 2 ? c->args.at[2] : NULL;
    return node && !(node->kind == AST_LITERAL && AST_AS(literal, node)->what == LITERAL_NULL);
}

/* The value, and what it is when there is no such row, as one type. */
static bool values_of(struct planner *p, const struct ast_call *c, struct stage *s, struct expr *ret[2])
{
    struct binder b = plan_binder(p, &no_names);
    struct sql_type type;
    ret[0] = stage_bind(p, s, c->args.at[0]);
    ret[1] = NULL;
    if (!ret[0] || !has_default(c))
        return ret[0] != NULL;
    ret[1] = stage_bind(p, s, c->args.at[2]);
    return ret[1] && coerce_all(&b, ret, 2, 1, "the value and the default", &type);
}

bool plan_pick(struct planner *p, struct node *n, const struct ast_call *c, struct stage *s, struct sql_type *ret)
{
    static const enum over_which which[WINDOW_NONE] = {[WINDOW_LAG] = OVER_BEFORE,
                                                       [WINDOW_LEAD] = OVER_AFTER,
                                                       [WINDOW_FIRST_VALUE] = OVER_FIRST,
                                                       [WINDOW_LAST_VALUE] = OVER_LAST,
                                                       [WINDOW_NTH_VALUE] = OVER_NTH};
    struct framing *f = n->frame;
    enum window_kind kind = plan_window_kind(c);
    struct over_pick pick = {.which = which[kind], .otherwise = OVER_NO_ARG};
    bool near = plan_window_class(c) == WINDOW_NEAR;
    int64_t rows = 1;
    struct expr *values[2];
    if (!check_call(p, c) ||
        (c->args.count > 1 && !plan_whole_number(p, c->args.at[1], near ? 0 : 1, OVER_CHANGED_ROWS_MAX, &rows)))
        return false;
    if (!values_of(p, c, s, values) || !plan_frame_item(p, n, values[0], &c->ast, &pick.arg) ||
        (values[1] && !plan_frame_item(p, n, values[1], c->args.at[2], &pick.otherwise)))
        return false;
    pick.rows = (uint32_t)rows;
    if (kind == WINDOW_LAG && rows > f->rule.reach)
        f->rule.reach = rows;
    if (kind == WINDOW_LEAD && pick.rows > f->rule.ahead)
        f->rule.ahead = pick.rows;
    f->picks[f->pick_count++] = pick;
    *ret = values[0]->type;
    return true;
}
