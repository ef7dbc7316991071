/* WHERE, and in it EXISTS (query) and x IN (query): such a condition is a SEMI join with the query's rows, NOT EXISTS an ANTI join. They stand by
 * themselves or between ANDs. */
#include "sql/query/plan_int.h"

static bool refuse(struct planner *p, const struct ast *place, const char *what)
{
    (void)plan_refuse(p, place, "%s cannot be run yet", what);
    return false;
}

/* The EXISTS or IN that a condition is. NULL: it is another condition. */
static const struct ast *query_of(const struct ast *node, bool *ret_negated)
{
    *ret_negated = false;
    for (; node->kind == AST_UNARY && AST_AS(unary, node)->op == UNARY_NOT; node = AST_AS(unary, node)->operand)
        *ret_negated = !*ret_negated;
    if (node->kind == AST_SUBQUERY && AST_AS(subquery, node)->exists)
        return node;
    if (node->kind != AST_IN || !AST_AS(in, node)->query)
        return NULL;
    *ret_negated ^= AST_AS(in, node)->negated;
    return node;
}

static bool is_and(const struct ast *node)
{
    return node->kind == AST_BINARY && AST_AS(binary, node)->op == AST_OP_AND;
}

static bool has_query(const struct ast *node)
{
    bool negated;
    if (is_and(node))
        return has_query(AST_AS(binary, node)->left) || has_query(AST_AS(binary, node)->right);
    return query_of(node, &negated) != NULL;
}

/* Names of the query hide those around it, unless these have their table in front. */
static void hide_outer(struct stage *s, uint32_t left_count)
{
    for (uint32_t i = 0; i < left_count; i++)
        for (uint32_t k = left_count; k < s->count; k++)
            s->names[i].qualified |= name_equal(s->names[i].name, s->names[k].name);
}

static bool exists_sides(struct planner *p, const struct ast_subquery *node, struct stage *ret)
{
    const struct ast_query *q = AST_AS(query, node->query);
    const struct ast *body = node->query->kind == AST_QUERY ? q->body : node->query;
    const struct ast_select *select = AST_AS(select, body);
    struct joining *j = ret->node->join;
    bool whole = node->query->kind == AST_QUERY && (q->ctes.count || q->limit || q->offset);
    if (whole || body->kind != AST_SELECT || !select->from || select->group.count || select->having || select->qualify)
        return refuse(p, &node->ast, "EXISTS with more than SELECT, FROM and WHERE");
    for (size_t i = 0; i < select->items.count; i++)
        if (has_aggregate(select->items.at[i]))
            return refuse(p, &node->ast, "EXISTS with an aggregate, of which there is always a row,");
    uint32_t left_count = ret->count;
    if (!plan_from(p, select->from, &j->sides[1]) || !plan_join_finish(p, &j->sides[1]) ||
        !join_names(p, ret, 1, &node->ast))
        return false;
    hide_outer(ret, left_count);
    return !select->where || join_on(p, j, stage_bind_bool(p, ret, select->where));
}

static bool in_sides(struct planner *p, const struct ast_in *node, bool negated, struct stage *ret)
{
    struct joining *j = ret->node->join;
    struct binder b = plan_binder(p, NULL);
    uint32_t left_count = ret->count;
    if (negated)
        return plan_refuse(p, &node->ast,
                           "NOT IN with a query is false for ever once the query has given a NULL: "
                           "NOT EXISTS says what is meant");
    struct expr *x = stage_bind(p, ret, node->operand);
    if (!x || !plan_query_stage(p, node->query, &j->sides[1]) || !join_names(p, ret, 1, &node->ast))
        return false;
    if (ret->count != left_count + 1) {
        sql_error_set(p->error, SQL_FAULT_TYPE, node->ast.at, node->ast.len, "the query of IN has one column");
        return false;
    }
    struct expr *y = lazy_expr(p, ret->names[left_count].lazy, &node->ast);
    return y && join_on(p, j, comparison(&b, &node->ast, AST_OP_EQ, x, y));
}

static bool plan_semi(struct planner *p, struct stage *s, const struct ast *node)
{
    bool negated;
    const struct ast *query = query_of(node, &negated);
    struct stage joined;
    if (s->windowing)
        return refuse(p, node, "EXISTS or IN with a query over windows without GROUP BY");
    if (!join_begin(p, negated ? JOIN_ANTI : JOIN_SEMI, node, &joined))
        return false;
    joined.node->join->sides[0] = *s;
    if (!join_names(p, &joined, 0, node))
        return false;
    uint32_t left_count = joined.count;
    bool ok = query->kind == AST_IN ? in_sides(p, AST_AS(in, query), negated, &joined)
                                    : exists_sides(p, AST_AS(subquery, query), &joined);
    joined.count = left_count;
    for (uint32_t i = 0; ok && i < left_count; i++)
        joined.names[i].qualified = s->names[i].qualified;
    *s = joined;
    return ok && plan_join_finish(p, s);
}

/* Conditions with queries, or those without. */
static bool plan_conditions(struct planner *p, struct stage *s, const struct ast *node, bool with_queries)
{
    bool negated;
    if (is_and(node))
        return plan_conditions(p, s, AST_AS(binary, node)->left, with_queries) &&
               plan_conditions(p, s, AST_AS(binary, node)->right, with_queries);
    if ((query_of(node, &negated) != NULL) != with_queries)
        return true;
    return with_queries ? plan_semi(p, s, node) : stage_filter(p, s, stage_bind_bool(p, s, node), node);
}

bool plan_where(struct planner *p, struct stage *s, const struct ast *where)
{
    if (where && !has_query(where))
        return stage_filter(p, s, stage_bind_bool(p, s, where), where) && plan_join_finish(p, s);
    return (!where || plan_conditions(p, s, where, false)) && plan_join_finish(p, s) &&
           (!where || plan_conditions(p, s, where, true));
}
