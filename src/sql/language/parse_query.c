/* Queries: WITH, SELECT, VALUES, UNION and its like, ORDER BY, LIMIT; EMIT behind them. */
#include "sql/language/parse_int.h"

bool at_query(struct parser *p)
{
    return is_keyword(p, KEYWORD_SELECT) || is_keyword(p, KEYWORD_WITH) || is_keyword(p, KEYWORD_VALUES);
}

static bool at_setop(struct parser *p)
{
    return is_keyword(p, KEYWORD_UNION) || is_keyword(p, KEYWORD_EXCEPT) || is_keyword(p, KEYWORD_INTERSECT);
}

static bool at_query_end(struct parser *p)
{
    return (is_keyword(p, KEYWORD_ORDER) && ahead_keyword(p, KEYWORD_BY)) || is_keyword(p, KEYWORD_LIMIT) ||
           is_keyword(p, KEYWORD_OFFSET) || is_keyword(p, KEYWORD_FETCH);
}

bool at_query_rest(struct parser *p)
{
    return at_setop(p) || at_query_end(p);
}

void parse_order_list(struct parser *p, struct ast_list *list)
{
    do {
        struct ast_order *n = NODE_NEW(p, ORDER, order);
        n->expr = parse_expr(p);
        n->descending = !accept_keyword(p, KEYWORD_ASC) && accept_keyword(p, KEYWORD_DESC);
        if (accept_keywords(p, KEYWORD_NULLS, KEYWORD_FIRST))
            n->nulls = ORDER_NULLS_FIRST;
        else if (accept_keywords(p, KEYWORD_NULLS, KEYWORD_LAST))
            n->nulls = ORDER_NULLS_LAST;
        list_add(p, list, node_end(p, n));
    } while (accept_symbol(p, SYMBOL_COMMA));
}

static struct slice item_alias(struct parser *p)
{
    if (accept_keyword(p, KEYWORD_AS))
        return parse_name(p, "a name for the column");
    bool bare = p->token.kind == TOKEN_QUOTED ||
                (p->token.kind == TOKEN_NAME && keyword_freedom(p->token.keyword) == KEYWORD_FREE);
    return bare ? parse_name(p, "a name for the column") : (struct slice){0};
}

void parse_items(struct parser *p, struct ast_list *list)
{
    do {
        struct ast_item *n = NODE_NEW(p, ITEM, item);
        if (is_symbol(p, SYMBOL_STAR)) {
            struct ast_star *star = NODE_NEW(p, STAR, star);
            advance(p);
            n->expr = node_end(p, star);
        } else {
            n->expr = parse_expr(p);
            n->alias = item_alias(p);
        }
        list_add(p, list, node_end(p, n));
    } while (accept_symbol(p, SYMBOL_COMMA));
}

/* ------------------------------------------------------------------------------------------------------- GROUP BY */

static void parse_group(struct parser *p, struct ast_list *list);

/* (a, b), (): one set, or an expression in parentheses. */
static struct ast *parse_group_set(struct parser *p)
{
    if (!is_symbol(p, SYMBOL_LPAREN) || !ahead_symbol(p, SYMBOL_RPAREN))
        return parse_expr(p);
    struct ast_row *row = NODE_NEW(p, ROW, row);
    advance(p);
    advance(p);
    return node_end(p, row);
}

static struct ast *parse_grouping(struct parser *p, enum ast_grouping_kind what)
{
    struct ast_grouping *n = NODE_NEW(p, GROUPING, grouping);
    if (!nest(p))
        return node_end(p, n);
    n->what = what;
    advance(p);
    if (what == GROUPING_SETS)
        advance(p);
    expect_symbol(p, SYMBOL_LPAREN);
    parse_group(p, &n->items);
    expect_symbol(p, SYMBOL_RPAREN);
    unnest(p);
    return node_end(p, n);
}

static void parse_group(struct parser *p, struct ast_list *list)
{
    do {
        if (is_keyword(p, KEYWORD_GROUPING) && ahead_keyword(p, KEYWORD_SETS))
            list_add(p, list, parse_grouping(p, GROUPING_SETS));
        else if (is_keyword(p, KEYWORD_ROLLUP) && ahead_symbol(p, SYMBOL_LPAREN))
            list_add(p, list, parse_grouping(p, GROUPING_ROLLUP));
        else if (is_keyword(p, KEYWORD_CUBE) && ahead_symbol(p, SYMBOL_LPAREN))
            list_add(p, list, parse_grouping(p, GROUPING_CUBE));
        else
            list_add(p, list, parse_group_set(p));
    } while (accept_symbol(p, SYMBOL_COMMA));
}

/* --------------------------------------------------------------------------------------------------------- bodies */

static void parse_windows(struct parser *p, struct ast_list *list)
{
    do {
        struct ast_named_window *n = NODE_NEW(p, NAMED_WINDOW, named_window);
        n->name = parse_name(p, "a window's name");
        expect_keyword(p, KEYWORD_AS);
        n->window = parse_window(p);
        list_add(p, list, node_end(p, n));
    } while (accept_symbol(p, SYMBOL_COMMA));
}

static struct ast *parse_select(struct parser *p)
{
    struct ast_select *n = NODE_NEW(p, SELECT, select);
    advance(p);
    n->distinct = accept_keyword(p, KEYWORD_DISTINCT);
    if (!n->distinct)
        accept_keyword(p, KEYWORD_ALL);
    else if (accept_keyword(p, KEYWORD_ON)) {
        expect_symbol(p, SYMBOL_LPAREN);
        parse_exprs(p, &n->distinct_on);
        expect_symbol(p, SYMBOL_RPAREN);
    }
    parse_items(p, &n->items);
    if (accept_keyword(p, KEYWORD_FROM))
        n->from = parse_from(p);
    if (accept_keyword(p, KEYWORD_WHERE))
        n->where = parse_expr(p);
    if (accept_keyword(p, KEYWORD_GROUP)) {
        expect_keyword(p, KEYWORD_BY);
        parse_group(p, &n->group);
    }
    if (accept_keyword(p, KEYWORD_HAVING))
        n->having = parse_expr(p);
    if (accept_keyword(p, KEYWORD_WINDOW))
        parse_windows(p, &n->windows);
    if (accept_keyword(p, KEYWORD_QUALIFY))
        n->qualify = parse_expr(p);
    return node_end(p, n);
}

struct ast *parse_values_row(struct parser *p)
{
    struct ast_row *n = NODE_NEW(p, ROW, row);
    (void)accept_keyword(p, KEYWORD_ROW);
    expect_symbol(p, SYMBOL_LPAREN);
    parse_exprs(p, &n->items);
    expect_symbol(p, SYMBOL_RPAREN);
    return node_end(p, n);
}

static struct ast *parse_values(struct parser *p)
{
    struct ast_values *n = NODE_NEW(p, VALUES, values);
    advance(p);
    do
        list_add(p, &n->rows, parse_values_row(p));
    while (accept_symbol(p, SYMBOL_COMMA));
    return node_end(p, n);
}

/* A query with nothing around its body is its body: (SELECT 1) and SELECT 1 are the same. */
static struct ast *unwrapped(struct ast *node)
{
    const struct ast_query *q = AST_AS(query, node);
    if (node->kind != AST_QUERY || !q->body || q->ctes.count || q->order.count || q->limit || q->offset)
        return node;
    return q->body;
}

static struct ast *parse_body_part(struct parser *p)
{
    if (accept_symbol(p, SYMBOL_LPAREN)) {
        struct ast *query = unwrapped(parse_query(p));
        expect_symbol(p, SYMBOL_RPAREN);
        return query;
    }
    if (is_keyword(p, KEYWORD_SELECT))
        return parse_select(p);
    if (is_keyword(p, KEYWORD_VALUES))
        return parse_values(p);
    fail_expected(p, NULL);
    return node_new(p, AST_VALUES, p->token.at);
}

/* INTERSECT binds more tightly than the other two. */
static struct ast *parse_setops(struct parser *p, struct ast *left, int least)
{
    static const enum keyword words[] = {
        [SETOP_UNION] = KEYWORD_UNION, [SETOP_EXCEPT] = KEYWORD_EXCEPT, [SETOP_INTERSECT] = KEYWORD_INTERSECT};
    for (;;) {
        unsigned what = 0;
        while (what < ARRAY_LEN(words) && !is_keyword(p, words[what]))
            what++;
        int power = what == SETOP_INTERSECT ? 2 : 1;
        if (what == ARRAY_LEN(words) || power < least)
            return left;
        struct ast_setop *n = NODE_AT(p, SETOP, setop, left);
        advance(p);
        n->what = what;
        n->left = left;
        n->all = accept_keyword(p, KEYWORD_ALL);
        if (!n->all)
            accept_keyword(p, KEYWORD_DISTINCT);
        n->right = parse_setops(p, parse_body_part(p), power + 1);
        left = node_end(p, n);
    }
}

static void parse_query_end(struct parser *p, struct ast_query *n)
{
    if (accept_keyword(p, KEYWORD_ORDER)) {
        expect_keyword(p, KEYWORD_BY);
        parse_order_list(p, &n->order);
    }
    for (;;) {
        if (!n->limit && accept_keyword(p, KEYWORD_LIMIT)) {
            if (!accept_keyword(p, KEYWORD_ALL))
                n->limit = parse_expr(p);
        } else if (!n->limit && accept_keyword(p, KEYWORD_FETCH)) {
            if (!accept_keyword(p, KEYWORD_FIRST))
                expect_keyword(p, KEYWORD_NEXT);
            n->limit = parse_expr(p);
            if (!accept_keyword(p, KEYWORD_ROW))
                expect_keyword(p, KEYWORD_ROWS);
            expect_keyword(p, KEYWORD_ONLY);
        } else if (!n->offset && accept_keyword(p, KEYWORD_OFFSET)) {
            n->offset = parse_expr(p);
            if (!accept_keyword(p, KEYWORD_ROWS))
                accept_keyword(p, KEYWORD_ROW);
        } else {
            return;
        }
    }
}

static struct ast *parse_cte(struct parser *p)
{
    struct ast_cte *n = NODE_NEW(p, CTE, cte);
    n->name = parse_name(p, "a name for the query");
    if (is_symbol(p, SYMBOL_LPAREN))
        n->columns = parse_names_listed(p, "a column's name");
    expect_keyword(p, KEYWORD_AS);
    expect_symbol(p, SYMBOL_LPAREN);
    n->query = parse_query(p);
    expect_symbol(p, SYMBOL_RPAREN);
    return node_end(p, n);
}

struct ast *parse_query(struct parser *p)
{
    struct ast_query *n = NODE_NEW(p, QUERY, query);
    if (!nest(p))
        return node_end(p, n);
    if (accept_keyword(p, KEYWORD_WITH)) {
        n->recursive = accept_keyword(p, KEYWORD_RECURSIVE);
        do
            list_add(p, &n->ctes, parse_cte(p));
        while (accept_symbol(p, SYMBOL_COMMA));
    }
    n->body = parse_setops(p, parse_body_part(p), 1);
    parse_query_end(p, n);
    unnest(p);
    struct ast *whole = node_end(p, n);
    /* (… LIMIT 1) with nothing outside of the parentheses is the query inside */
    return n->body->kind == AST_QUERY && unwrapped(whole) != whole ? n->body : whole;
}

struct ast *parse_query_rest(struct parser *p, struct ast *first)
{
    struct ast_query *n = NODE_AT(p, QUERY, query, first);
    n->body = parse_setops(p, unwrapped(first), 1);
    parse_query_end(p, n);
    return node_end(p, n);
}

bool accept_emit(struct parser *p, struct ast **ret)
{
    struct ast_emit *n = NODE_NEW(p, EMIT, emit);
    if (!accept_keyword(p, KEYWORD_EMIT))
        return false;
    if (accept_keyword(p, KEYWORD_CHANGES) || accept_keywords(p, KEYWORD_ON, KEYWORD_UPDATE)) {
        n->kind = EMIT_CHANGES;
    } else if (accept_keyword(p, KEYWORD_EVERY)) {
        n->kind = EMIT_EVERY;
        n->interval = parse_expr(p);
    } else if (accept_keyword(p, KEYWORD_FINAL)) {
        n->kind = EMIT_CLOSE;
    } else if (accept_keyword(p, KEYWORD_ON) || accept_keyword(p, KEYWORD_AFTER)) {
        n->kind = EMIT_CLOSE;
        expect_keyword(p, KEYWORD_WINDOW);
        expect_keyword(p, KEYWORD_CLOSE);
        if (accept_keywords(p, KEYWORD_WITH, KEYWORD_DELAY))
            n->interval = parse_expr(p);
    } else {
        fail_expected(p, NULL);
    }
    *ret = node_end(p, n);
    return true;
}
