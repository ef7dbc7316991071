/* SELECT and FROM as stages, see plan_int.h. */
#include "sql/query/plan_int.h"

static bool refuse(struct planner *p, const struct ast *place, const char *what)
{
    (void)plan_refuse(p, place, "%s cannot be run yet", what);
    return false;
}

/* ------------------------------------------------------------------------------------------------------------- FROM */

static bool rename_stage(struct planner *p, struct stage *s, struct slice table, const struct ast_names *columns,
                         const struct ast *place)
{
    uint32_t named = 0;
    for (uint32_t i = 0; i < s->count; i++) {
        s->names[i].table = table.ptr ? table : s->names[i].table;
        if (!s->names[i].hidden && named < columns->count)
            s->names[i].name = columns->at[named++];
    }
    if (named < columns->count)
        sql_error_set(p->error, SQL_FAULT_NO_NAME, place->at, place->len, "more names than columns");
    return named == columns->count;
}

/* What it says of its joins is about no others. */
static bool plan_view(struct planner *p, const struct ast_create_view *view, struct stage *ret)
{
    int64_t outside = p->state_ttl;
    bool ok = plan_options(p, &view->options) && plan_query_stage(p, view->query, ret);
    p->state_ttl = outside;
    return ok;
}

bool plan_named(struct planner *p, const struct ast_relation *r, struct stage *ret)
{
    struct slice name = r->name.at[r->name.count - 1], alias = r->alias.ptr ? r->alias : name;
    struct nearest nearest = nearest_of(name);
    const struct ast *found = catalog_find(p->catalog, name, &nearest);
    if (!found) {
        sql_error_set(p->error, SQL_FAULT_NO_NAME, r->ast.at, r->ast.len, "there is no stream or view %.*s",
                      SLICE_ARG(name));
        if (nearest_found(&nearest))
            sql_error_hint(p->error, "did you mean %.*s?", SLICE_ARG(nearest.best));
        return false;
    }
    const struct ast_create_stream *stream = AST_AS(create_stream, found);
    if (found->kind == AST_CREATE_STREAM)
        return (stream->table ? plan_latest : plan_open)(p, stream, alias, ret) &&
               rename_stage(p, ret, alias, &r->columns, &r->ast);
    const struct ast_create_view *view = AST_AS(create_view, found);
    p->plan->hash = ast_hash(view->query, p->plan->hash);
    for (size_t i = 0; i < view->columns.count; i++)
        p->plan->hash = key_hash(view->columns.at[i], 0) ^ p->plan->hash * 31;
    return plan_view(p, view, ret) && rename_stage(p, ret, alias, &view->columns, found) &&
           rename_stage(p, ret, alias, &r->columns, &r->ast);
}

static bool plan_relation(struct planner *p, const struct ast_relation *r, struct stage *ret)
{
    if (r->as_of)
        return plan_refuse(p, &r->ast, "FOR SYSTEM_TIME is for the right side of a JOIN or LEFT JOIN");
    return plan_named(p, r, ret);
}

bool plan_from(struct planner *p, const struct ast *from, struct stage *ret)
{
    const struct ast_derived *d = AST_AS(derived, from);
    switch (from->kind) {
    case AST_RELATION: return plan_relation(p, AST_AS(relation, from), ret);
    case AST_DERIVED:
        if (d->lateral)
            return refuse(p, from, "LATERAL");
        return plan_query_stage(p, d->query, ret) && rename_stage(p, ret, d->alias, &d->columns, from);
    case AST_WINDOWED:
        return plan_from(p, AST_AS(windowed, from)->source, ret) && plan_windowed(p, AST_AS(windowed, from), ret) &&
               rename_stage(p, ret, AST_AS(windowed, from)->alias, &AST_AS(windowed, from)->columns, from);
    case AST_JOIN: return plan_join(p, AST_AS(join, from), ret);
    case AST_UNNEST: return refuse(p, from, "UNNEST");
    case AST_MATCH:
        return plan_from(p, AST_AS(match, from)->source, ret) && plan_match(p, AST_AS(match, from), ret) &&
               rename_stage(p, ret, AST_AS(match, from)->alias, &AST_AS(match, from)->columns, from);
    default: return refuse(p, from, "this source");
    }
}

/* ----------------------------------------------------------------------------------------------------------- SELECT */

struct slice plan_own_name(const struct ast *x)
{
    const struct ast_names *names = x->kind == AST_NAME   ? &AST_AS(name, x)->parts
                                    : x->kind == AST_CALL ? &AST_AS(call, x)->name
                                                          : NULL;
    if (x->kind == AST_FIELD)
        return AST_AS(field, x)->name;
    if (x->kind == AST_CAST)
        return plan_own_name(AST_AS(cast, x)->operand);
    return names ? names->at[names->count - 1] : slice_str(x->kind == AST_CASE ? "case" : "?column?");
}

static bool plan_star(struct planner *p, const struct ast_star *star, const struct stage *s, struct stage *ret)
{
    uint32_t before = ret->count;
    struct slice table = star->parts.count ? star->parts.at[star->parts.count - 1] : (struct slice){0};
    for (uint32_t i = 0; i < s->count; i++) {
        const struct named *n = &s->names[i];
        bool in = !n->hidden && (!table.ptr || name_equal(table, n->table));
        if (in && !stage_name(p, ret, (struct slice){0}, n->name, n->lazy, &star->ast))
            return false;
    }
    if (ret->count == before)
        sql_error_set(p->error, SQL_FAULT_NO_NAME, star->ast.at, star->ast.len, "there are no columns here");
    return ret->count > before;
}

static bool plan_items(struct planner *p, const struct ast_select *select, struct stage *s, struct stage *ret)
{
    for (size_t i = 0; i < select->items.count; i++) {
        const struct ast_item *item = AST_AS(item, select->items.at[i]);
        if (item->expr->kind == AST_STAR) {
            if (!plan_star(p, AST_AS(star, item->expr), s, ret))
                return false;
            continue;
        }
        struct expr *x = stage_bind(p, s, item->expr);
        if (!x || !stage_name_expr(p, ret, (struct slice){0}, item->alias.ptr ? item->alias : plan_own_name(item->expr),
                                   x, item->expr))
            return false;
    }
    return true;
}

bool stage_filter(struct planner *p, struct stage *s, struct expr *x, const struct ast *place)
{
    if (x && s->node->rank) {
        if (!plan_rank_limit(p, s->node, &x, place))
            return false;
        if (!x)
            return true;
    }
    if (x && s->filter_count == ARRAY_LEN(s->filters))
        (void)plan_refuse(p, place, "conditions in more than %zu queries within one another", ARRAY_LEN(s->filters));
    if (!x || s->filter_count == ARRAY_LEN(s->filters))
        return false;
    s->filters[s->filter_count++] = x;
    return true;
}

static bool unbuilt(struct planner *p, const struct ast_select *s)
{
    if (!s->from)
        return refuse(p, &s->ast, "a SELECT without FROM");
    return true;
}

/* What a SELECT without GROUP BY computes. */
static bool plan_rows(struct planner *p, const struct ast_select *select, const struct ast_list *order, struct stage *s,
                      struct stage *ret)
{
    if (select->having)
        return refuse(p, select->having, "HAVING without an aggregate");
    if (!plan_window_calls(p, select, s))
        return false;
    if (select->qualify && !stage_filter(p, s, stage_bind_bool(p, s, select->qualify), select->qualify))
        return false;
    if (select->distinct_on.count && !plan_distinct_on(p, select, order, s))
        return false;
    *ret = *s;
    ret->names = NULL;
    ret->calls = NULL;
    ret->count = ret->room = ret->call_count = 0;
    return plan_items(p, select, s, ret);
}

/* Rows in groups have no windows and no DISTINCT ON: these belong around the query. */
static bool unbuilt_grouped(struct planner *p, const struct ast_select *s)
{
    for (size_t i = 0; i < s->items.count; i++)
        if (has_window_call(s->items.at[i]))
            return refuse(p, s->items.at[i], "a window function beside GROUP BY (put the GROUP BY in a query of FROM)");
    if (s->qualify)
        return refuse(p, s->qualify, "QUALIFY beside GROUP BY");
    return !s->distinct_on.count || refuse(p, &s->ast, "DISTINCT ON beside GROUP BY");
}

/* order: of DISTINCT ON. */
static bool plan_select(struct planner *p, const struct ast_select *select, const struct ast_list *order,
                        struct stage *ret)
{
    struct stage s;
    bool grouped = select->group.count > 0 || (select->having && has_aggregate(select->having));
    if (!unbuilt(p, select) || !plan_from(p, select->from, &s))
        return false;
    if (!plan_where(p, &s, select->where))
        return false;
    for (size_t i = 0; i < select->items.count; i++)
        grouped |= has_aggregate(select->items.at[i]);
    if (grouped) {
        if (!unbuilt_grouped(p, select) || !plan_grouped(p, select, &s, ret))
            return false;
    } else if (!plan_rows(p, select, order, &s, ret)) {
        return false;
    }
    /* DISTINCT ON has chosen its rows: two of them may be equal in what is selected. */
    return !select->distinct || select->distinct_on.count || plan_distinct(p, &select->ast, ret);
}

static bool distinct_on(const struct ast *body)
{
    return body->kind == AST_SELECT && AST_AS(select, body)->distinct_on.count;
}

bool plan_query_stage(struct planner *p, const struct ast *query, struct stage *ret)
{
    const struct ast_query *q = AST_AS(query, query);
    const struct ast *body = query->kind == AST_QUERY ? q->body : query;
    const struct ast_setop *setop = body->kind == AST_SETOP ? AST_AS(setop, body) : NULL;
    if (query->kind == AST_QUERY) {
        if (q->ctes.count)
            return refuse(p, q->ctes.at[0], "WITH");
        if (q->order.count && !distinct_on(body))
            return refuse(p, q->order.at[0], "ORDER BY over a stream");
        if (q->limit || q->offset)
            return refuse(p, q->limit ? q->limit : q->offset, "LIMIT over a stream");
    }
    if (p->nested++ == PLAN_VIEWS_MAX) {
        sql_error_set(p->error, SQL_FAULT_LIMIT, query->at, query->len, "views and queries nested more than %u deep",
                      PLAN_VIEWS_MAX);
        return false;
    }
    bool ok = body->kind == AST_SELECT
                  ? plan_select(p, AST_AS(select, body), query->kind == AST_QUERY ? &q->order : NULL, ret)
              : body->kind == AST_QUERY    ? plan_query_stage(p, body, ret)
              : !setop                     ? refuse(p, body, "VALUES")
              : setop->what == SETOP_UNION ? plan_union(p, setop, ret)
                                           : refuse(p, body, setop->what == SETOP_EXCEPT ? "EXCEPT" : "INTERSECT");
    p->nested--;
    return ok;
}
