/* ROW_NUMBER, RANK and DENSE_RANK with a limit, see plan_int.h. How many rows are wanted stands in a condition outside: it is found when that is bound. */
#include "sql/query/plan_int.h"

bool stage_through(struct planner *p, struct stage *s, struct node *n, const struct ast *place)
{
    struct stage out = {.node = n, .call_count = s->call_count};
    out.calls = plan_take(p, place, (s->call_count + 1) * sizeof *out.calls);
    for (uint32_t i = 0; out.calls && i < s->count + s->call_count; i++) {
        bool call = i >= s->count;
        struct lazy *lazy = plan_take(p, place, sizeof *lazy);
        if (!lazy)
            return false;
        *lazy = (struct lazy){.pass = n, .of = call ? s->calls[i - s->count].lazy : s->names[i].lazy};
        if (call)
            out.calls[i - s->count] = (struct window_call){.ast = s->calls[i - s->count].ast, .lazy = lazy};
        else if (!stage_name(p, &out, s->names[i].table, s->names[i].name, lazy, place))
            return false;
        if (!call)
            out.names[i].hidden = s->names[i].hidden;
    }
    *s = out;
    return out.calls;
}

struct expr *plan_passed(struct planner *p, struct node *n, struct expr *inner, const struct ast *place)
{
    if (!inner || inner->op == EXPR_CONST)
        return inner;
    for (uint32_t i = n->pass_from; i < n->item_count; i++)
        if (n->items[i] == inner)
            return n->passed[i - n->pass_from];
    if (n->item_count == PLAN_COLUMNS_MAX)
        return plan_refuse(p, place, "more than %u columns", PLAN_COLUMNS_MAX);
    struct expr *out = plan_out(p, n, inner->type, place);
    if (!out)
        return NULL;
    n->passed[n->item_count - n->pass_from] = out;
    n->items[n->item_count++] = inner;
    const struct ranking *r = n->rank;
    bool as_it_comes = r && r->rule.limit == 1 && !r->order_count && !n->retracts;
    const struct framing *f = n->frame;
    if (as_it_comes || (f && f->rule.clock && inner == n->items[n->keys])) {
        out->clock = inner->clock;
        out->clock_offset = inner->clock_offset;
    } else if (r) {
        plan_bound(out, n, inner);
    }
    return out;
}

bool plan_order(struct planner *p, struct node *n, const struct ast *const *order, uint32_t count, struct stage *s,
                struct sort_item *ret, uint32_t *at)
{
    if (count > ORDER_ITEMS_MAX)
        return plan_refuse(p, order[0], "ORDER BY more than %u values", ORDER_ITEMS_MAX);
    for (uint32_t i = 0; i < count; i++) {
        const struct ast_order *o = AST_AS(order, order[i]);
        struct expr *x = stage_bind(p, s, o->expr);
        if (!x)
            return false;
        if (type_is_json(x->type.kind))
            return plan_refuse(p, o->expr, "rows cannot be ordered by a value of type %s", type_text(x->type.kind));
        bool first = o->nulls == ORDER_NULLS_DEFAULT ? o->descending : o->nulls == ORDER_NULLS_FIRST;
        ret[i] = (struct sort_item){.descending = o->descending, .nulls_first = first};
        n->items[(*at)++] = x;
    }
    return true;
}

bool plan_rank(struct planner *p, enum topn_ranking ranking, const struct ast *place, const struct ast_list *partition,
               const struct ast *const *order, uint32_t order_count, struct stage *s)
{
    struct node *n = plan_node(p, s, place);
    struct ranking *r = n ? plan_take(p, place, sizeof *r) : NULL;
    uint32_t keys = (uint32_t)partition->count;
    if (!r)
        return false;
    if (ranking != RANKING_ROW && !order_count)
        return plan_refuse(p, place, "RANK and DENSE_RANK without ORDER BY: every row would be a first one");
    if (keys >= PLAN_COLUMNS_MAX / 2)
        return plan_refuse(p, place, "PARTITION BY more than %u values", PLAN_COLUMNS_MAX / 2);
    for (uint32_t i = 0; i < keys; i++) {
        n->items[i] = stage_bind(p, s, partition->at[i]);
        if (!n->items[i] || !plan_check_key(p, n->items[i], partition->at[i]))
            return false;
    }
    if (!plan_rule(p, n, keys, place))
        return false;
    n->pass_from = keys + (n->rule.kind != SPAN_NONE);
    const struct expr *const *first = (const struct expr *const *)n->items + n->pass_from;
    if (!plan_order(p, n, order, order_count, s, r->order, &n->pass_from))
        return false;
    n->item_count = n->pass_from;
    n->retracts = n->changes;
    n->rank = r;
    r->place = place;
    r->order_count = order_count;
    r->rule =
        (struct topn_rule){.ranking = ranking, .span = n->rule, .changes = n->changes, .retracts = s->node->retracts};
    r->rule.newest_first = ranking == RANKING_ROW && order_count && r->order[0].descending && (*first)->clock;
    r->number = plan_out(p, n, type_of(TYPE_BIGINT), place);
    return r->number && stage_through(p, s, n, place);
}

/* ------------------------------------------------------------------------------------------------------------ limits */

/* The operator of a comparison of whole numbers with `number` on its left and a constant on its right, however it was written. */
static bool limit_of(const struct expr *x, const struct expr *number, enum ast_op *ret_op, int64_t *ret_value)
{
    static const enum ast_op ops[][2] = {{AST_OP_EQ, AST_OP_EQ},
                                         {AST_OP_LT, AST_OP_GT},
                                         {AST_OP_LE, AST_OP_GE},
                                         {AST_OP_GT, AST_OP_LT},
                                         {AST_OP_GE, AST_OP_LE}};
    if (x->op != EXPR_CALL || x->function || x->count != 2)
        return false;
    unsigned side = x->args[1] == number;
    const struct expr *value = x->args[!side];
    if (x->args[side] != number || value->op != EXPR_CONST || value->constant.form != FORM_I64 ||
        column_null(&value->constant, 0))
        return false;
    for (size_t i = 0; i < ARRAY_LEN(ops); i++)
        if (x->kernel == kernel_compare(ops[i][side], FORM_I64)) {
            *ret_op = ops[i][0];
            memcpy(ret_value, value->constant.values, sizeof *ret_value);
            return true;
        }
    return false;
}

static bool set_limit(struct planner *p, struct node *n, int64_t limit, const struct ast *place)
{
    struct ranking *r = n->rank;
    if (limit > (int64_t)TOPN_MAX)
        return plan_refuse(p, place, "more than the first %u rows of a partition", TOPN_MAX);
    if (limit < 1)
        limit = 1; /* the condition stays, and no row meets it */
    if (!r->rule.limit || limit < r->rule.limit)
        r->rule.limit = (uint32_t)limit;
    if (r->rule.limit == 1 && !r->order_count && r->rule.changes && !r->rule.retracts)
        n->retracts = false; /* what came first stays first */
    return true;
}

bool plan_rank_limit(struct planner *p, struct node *n, struct expr **x, const struct ast *place)
{
    struct expr *c = *x;
    enum ast_op op;
    int64_t v;
    if (c->op == EXPR_AND) {
        if (!plan_rank_limit(p, n, &c->args[0], place) || !plan_rank_limit(p, n, &c->args[1], place))
            return false;
        if (!c->args[0] || !c->args[1])
            *x = c->args[0] ? c->args[0] : c->args[1];
        return true;
    }
    if (!limit_of(c, n->rank->number, &op, &v))
        return true;
    bool said = true; /* by the limit alone */
    switch (op) {
    case AST_OP_LT:
        if (!set_limit(p, n, v > INT64_MIN ? v - 1 : v, place))
            return false;
        said = v > 1;
        break;
    case AST_OP_LE:
    case AST_OP_EQ:
        if (!set_limit(p, n, v, place))
            return false;
        said = op == AST_OP_EQ ? v == 1 : v >= 1;
        break;
    case AST_OP_GT: said = v < 1; break;
    default: said = v <= 1; break;
    }
    if (said)
        *x = NULL;
    return true;
}

static bool uses(const struct expr *x, const struct expr *number)
{
    bool does = x == number;
    for (uint32_t i = 0; i < x->count && !does; i++)
        does = uses(x->args[i], number);
    return does;
}

void plan_rank_used(struct node *n, struct expr *const *items, uint32_t count)
{
    for (uint32_t i = 0; n->rank && i < count; i++)
        n->rank->rule.ranked |= uses(items[i], n->rank->number);
}
