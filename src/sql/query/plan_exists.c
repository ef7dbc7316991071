/* WHERE, and in it EXISTS (query) and x IN (query): such a condition is a SEMI join with the query's rows, NOT EXISTS and NOT IN are ANTI joins. They
 * stand by themselves or between ANDs. */
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

/* x IN (query) is a SEMI join by equality, x NOT IN (query) is not the ANTI join alone: it is true only when the query has no row that is equal, and none of
 * which it is not known, that is none at all when x is NULL, and none with a NULL else. */
enum in_part { IN_EQUAL, IN_NULL_THERE, IN_NULL_HERE, IN_PARTS };

/* Known to be no NULL ever. */
static bool is_never_null(const struct node *n, const struct expr *x)
{
    if (x->op == EXPR_CONST)
        return !column_null(&x->constant, 0);
    if (x->op != EXPR_COLUMN)
        return false;
    if (n->source)
        return n->source->columns[x->column].pseudo < 0 && n->source->columns[x->column].path.not_null;
    const struct joining *j = n->join;
    if (!j || (j->kind >= JOIN_LEFT && j->kind <= JOIN_FULL))
        return false;
    const struct join_column *out = &j->outs[x->column];
    return is_never_null(j->sides[out->side].node, out->inner);
}

static struct expr *is_null(struct planner *p, struct expr *x, const struct ast *place)
{
    static const struct scope none = {0};
    struct binder b = plan_binder(p, &none);
    struct expr *test = expr_new(&b, EXPR_TEST, place, 1);
    if (!test)
        return NULL;
    test->number = IS_NULL;
    test->type = type_of(TYPE_BOOL);
    test->args[0] = x;
    return test;
}

/* ret_possible: of which parts there may be a row. */
static bool in_sides(struct planner *p, const struct ast_in *node, enum in_part part, struct stage *ret,
                     bool ret_possible[IN_PARTS])
{
    struct joining *j = ret->node->join;
    struct binder b = plan_binder(p, NULL);
    uint32_t left_count = ret->count;
    struct expr *x = stage_bind(p, ret, node->operand);
    if (!x || !plan_query_stage(p, node->query, &j->sides[1]) || !join_names(p, ret, 1, &node->ast))
        return false;
    if (ret->count != left_count + 1) {
        sql_error_set(p->error, SQL_FAULT_TYPE, node->ast.at, node->ast.len, "the query of IN has one column");
        return false;
    }
    struct expr *y = lazy_expr(p, ret->names[left_count].lazy, &node->ast);
    if (!y)
        return false;
    ret_possible[IN_NULL_THERE] = !is_never_null(ret->node, y);
    ret_possible[IN_NULL_HERE] = !is_never_null(ret->node, x);
    return join_on(p, j,
                   part == IN_EQUAL        ? comparison(&b, &node->ast, AST_OP_EQ, x, y)
                   : part == IN_NULL_THERE ? is_null(p, y, &node->ast)
                                           : is_null(p, x, &node->ast));
}

/* A join with the rows of a query, after which the stage's names are what they were. */
static bool plan_semi(struct planner *p, struct stage *s, const struct ast *node, enum in_part part,
                      bool ret_possible[IN_PARTS])
{
    bool negated;
    const struct ast *query = query_of(node, &negated);
    struct stage joined;
    if (!join_begin(p, negated ? JOIN_ANTI : JOIN_SEMI, node, &joined))
        return false;
    joined.node->join->sides[0] = *s;
    if (!join_names(p, &joined, 0, node))
        return false;
    uint32_t left_count = joined.count;
    bool ok = query->kind == AST_IN ? in_sides(p, AST_AS(in, query), part, &joined, ret_possible)
                                    : exists_sides(p, AST_AS(subquery, query), &joined);
    joined.count = left_count;
    for (uint32_t i = 0; ok && i < left_count; i++)
        joined.names[i].qualified = s->names[i].qualified;
    *s = joined;
    return ok && plan_join_finish(p, s);
}

static bool plan_with_query(struct planner *p, struct stage *s, const struct ast *node)
{
    bool negated, possible[IN_PARTS] = {false};
    const struct ast *query = query_of(node, &negated);
    if (s->windowing)
        return refuse(p, node, "EXISTS or IN with a query over windows without GROUP BY");
    if (!plan_semi(p, s, node, IN_EQUAL, possible))
        return false;
    bool nulls = negated && query->kind == AST_IN;
    return (!nulls || !possible[IN_NULL_THERE] || plan_semi(p, s, node, IN_NULL_THERE, possible)) &&
           (!nulls || !possible[IN_NULL_HERE] || plan_semi(p, s, node, IN_NULL_HERE, possible));
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
    return with_queries ? plan_with_query(p, s, node) : stage_filter(p, s, stage_bind_bool(p, s, node), node);
}

bool plan_where(struct planner *p, struct stage *s, const struct ast *where)
{
    if (where && !has_query(where))
        return stage_filter(p, s, stage_bind_bool(p, s, where), where) && plan_join_finish(p, s);
    return (!where || plan_conditions(p, s, where, false)) && plan_join_finish(p, s) &&
           (!where || plan_conditions(p, s, where, true));
}
