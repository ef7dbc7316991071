/* What stands behind FROM: streams, queries, windows over them (TUMBLE and its like, in both spellings), UNNEST, VALUES, joins. */
#include "sql/language/parse_int.h"

void parse_alias(struct parser *p, struct slice *alias, struct ast_names *columns)
{
    bool as = accept_keyword(p, KEYWORD_AS);
    bool bare = p->token.kind == TOKEN_QUOTED ||
                (p->token.kind == TOKEN_NAME && keyword_freedom(p->token.keyword) == KEYWORD_FREE);
    if (!as && !bare)
        return;
    *alias = parse_name(p, "an alias");
    if (is_symbol(p, SYMBOL_LPAREN))
        *columns = parse_names_listed(p, "a column's name");
}

static struct ast *relation_named(struct parser *p)
{
    struct ast_relation *n = NODE_NEW(p, RELATION, relation);
    n->name = parse_names_dotted(p, "a stream, table or view");
    return node_end(p, n);
}

static struct ast *parse_relation(struct parser *p)
{
    struct ast_relation *n = AST_AS(relation, relation_named(p));
    if (accept_keyword(p, KEYWORD_FOR)) {
        expect_keyword(p, KEYWORD_SYSTEM_TIME);
        expect_keyword(p, KEYWORD_AS);
        expect_keyword(p, KEYWORD_OF);
        n->as_of = parse_expr_above(p, POWER_BETWEEN + 1);
    }
    parse_alias(p, &n->alias, &n->columns);
    return node_end(p, n);
}

static struct ast *derived(struct parser *p, uint32_t at, struct ast *query)
{
    struct ast_derived *n = node_new(p, AST_DERIVED, at);
    n->query = query;
    return node_end(p, n);
}

/* ---------------------------------------------------------------------------------------------------------- windows */

/* WINDOWED_KINDS: the name is no window's. */
static enum ast_windowed_kind windowed_kind(const struct parser *p)
{
    unsigned what = 0;
    if (p->token.kind != TOKEN_NAME || !ahead_symbol(p, SYMBOL_LPAREN))
        return WINDOWED_KINDS;
    while (what < WINDOWED_KINDS &&
           !name_equal(p->token.text, slice_str(ast_windowed_text((enum ast_windowed_kind)what))))
        what++;
    return (enum ast_windowed_kind)what;
}

/* What the window is over: a name, or a query in parentheses. */
static struct ast *parse_windowed_source(struct parser *p)
{
    uint32_t at = p->token.at;
    if (!accept_symbol(p, SYMBOL_LPAREN))
        return relation_named(p);
    struct ast *query = parse_query(p);
    expect_symbol(p, SYMBOL_RPAREN);
    return derived(p, at, query);
}

/* TUMBLE(t, c, size), HOP(TABLE t PARTITION BY k, DESCRIPTOR(c), slide, size [, offset]); at the name. */
static struct ast *parse_windowed(struct parser *p)
{
    struct ast_windowed *n = NODE_NEW(p, WINDOWED, windowed);
    n->what = windowed_kind(p);
    advance(p);
    expect_symbol(p, SYMBOL_LPAREN);
    bool table = accept_keyword(p, KEYWORD_TABLE);
    n->source = parse_windowed_source(p);
    if ((table || n->what == WINDOWED_SESSION) && accept_keywords(p, KEYWORD_PARTITION, KEYWORD_BY)) {
        bool round = accept_symbol(p, SYMBOL_LPAREN);
        do /* columns: a comma behind one is that of the window's arguments unless there are parentheses */
            list_add(p, &n->partition, parse_expr(p));
        while (round && accept_symbol(p, SYMBOL_COMMA));
        if (round)
            expect_symbol(p, SYMBOL_RPAREN);
    }
    expect_symbol(p, SYMBOL_COMMA);
    if (is_keyword(p, KEYWORD_DESCRIPTOR) && ahead_symbol(p, SYMBOL_LPAREN)) {
        advance(p);
        advance(p);
        n->column = parse_name(p, "the column with the time");
        expect_symbol(p, SYMBOL_RPAREN);
    } else {
        n->column = parse_name(p, "the column with the time");
    }
    expect_symbol(p, SYMBOL_COMMA);
    parse_exprs(p, &n->args);
    expect_symbol(p, SYMBOL_RPAREN);
    static const struct {
        size_t least, most;
        const char *what;
    } counts[WINDOWED_KINDS] = {
        {1, 2, "a size"}, {2, 3, "a slide and a size"}, {2, 3, "a step and a size"}, {1, 1, "a gap"}};
    if (!p->failed && (n->args.count < counts[n->what].least || n->args.count > counts[n->what].most))
        fail_at(p, n->ast.at, p->last.at + p->last.len - n->ast.at, SQL_FAULT_SYNTAX, "%s has %s%s behind the column",
                ast_windowed_text((enum ast_windowed_kind)n->what), counts[n->what].what,
                counts[n->what].most > counts[n->what].least ? ", and may have an offset," : "");
    return node_end(p, n);
}

/* --------------------------------------------------------------------------------------------------------- one source */

static struct ast *parse_joined(struct parser *p);

static struct ast *parse_unnest(struct parser *p, bool lateral)
{
    struct ast_unnest *n = NODE_NEW(p, UNNEST, unnest);
    advance(p);
    expect_symbol(p, SYMBOL_LPAREN);
    n->lateral = lateral;
    n->expr = parse_expr(p);
    expect_symbol(p, SYMBOL_RPAREN);
    n->ordinality = accept_keywords(p, KEYWORD_WITH, KEYWORD_ORDINALITY);
    parse_alias(p, &n->alias, &n->columns);
    return node_end(p, n);
}

static void alias_of_derived(struct parser *p, struct ast *node, bool lateral)
{
    struct ast_derived *n = AST_AS(derived, node);
    n->lateral = lateral;
    parse_alias(p, &n->alias, &n->columns);
    node_end(p, n);
}

/* ( query ) alias, ( joins ), ((query) UNION …) alias; at the parenthesis. */
static struct ast *parse_parens(struct parser *p, bool lateral)
{
    uint32_t at = p->token.at;
    struct ast *inner;
    advance(p);
    if (at_query(p)) {
        inner = derived(p, at, parse_query(p));
        expect_symbol(p, SYMBOL_RPAREN);
        alias_of_derived(p, inner, lateral);
        return inner;
    }
    if (!nest(p))
        return derived(p, at, NULL);
    inner = parse_joined(p);
    unnest(p);
    const struct ast_derived *d = AST_AS(derived, inner);
    bool query = inner->kind == AST_DERIVED && !d->alias.ptr && !d->lateral;
    if (query && at_query_rest(p))
        inner = derived(p, at, parse_query_rest(p, d->query));
    expect_symbol(p, SYMBOL_RPAREN);
    if (query)
        alias_of_derived(p, inner, lateral);
    return inner;
}

/* (VALUES …) may go without its parentheses. */
static struct ast *parse_values_source(struct parser *p)
{
    struct ast_query *q = NODE_NEW(p, QUERY, query);
    struct ast_values *n = NODE_NEW(p, VALUES, values);
    advance(p);
    do
        list_add(p, &n->rows, parse_values_row(p));
    while (accept_symbol(p, SYMBOL_COMMA));
    q->body = node_end(p, n);
    struct ast *source = derived(p, q->ast.at, node_end(p, q));
    alias_of_derived(p, source, false);
    return source;
}

static struct ast *parse_source(struct parser *p)
{
    bool lateral = accept_keyword(p, KEYWORD_LATERAL),
         table = is_keyword(p, KEYWORD_TABLE) && ahead_symbol(p, SYMBOL_LPAREN);
    if (is_keyword(p, KEYWORD_UNNEST) && ahead_symbol(p, SYMBOL_LPAREN))
        return parse_unnest(p, lateral);
    if (is_symbol(p, SYMBOL_LPAREN))
        return parse_parens(p, lateral);
    if (lateral)
        fail_expected(p, "a query in parentheses");
    if (is_keyword(p, KEYWORD_VALUES))
        return parse_values_source(p);
    if (table) {
        advance(p);
        advance(p);
    }
    if (windowed_kind(p) == WINDOWED_KINDS) {
        if (table)
            fail_expected(p, "TUMBLE, HOP, CUMULATE or SESSION");
        return parse_relation(p);
    }
    struct ast_windowed *n = AST_AS(windowed, parse_windowed(p));
    if (table)
        expect_symbol(p, SYMBOL_RPAREN);
    parse_alias(p, &n->alias, &n->columns);
    return node_end(p, n);
}

static struct ast *parse_matched(struct parser *p)
{
    struct ast *source = parse_source(p);
    while (is_keyword(p, KEYWORD_MATCH_RECOGNIZE))
        source = parse_match(p, source);
    return source;
}

/* -------------------------------------------------------------------------------------------------------------- joins */

/* JOIN_KINDS: there is no join here. Steps behind the word JOIN. */
static enum ast_join_kind accept_join(struct parser *p)
{
    enum ast_join_kind kind = JOIN_INNER;
    bool word = true;
    if (accept_keyword(p, KEYWORD_LEFT)) {
        kind = accept_keyword(p, KEYWORD_ASOF)   ? JOIN_LEFT_ASOF
               : accept_keyword(p, KEYWORD_SEMI) ? JOIN_SEMI
               : accept_keyword(p, KEYWORD_ANTI) ? JOIN_ANTI
                                                 : JOIN_LEFT;
        if (kind == JOIN_LEFT)
            accept_keyword(p, KEYWORD_OUTER);
    } else if (accept_keyword(p, KEYWORD_RIGHT)) {
        kind = JOIN_RIGHT;
        accept_keyword(p, KEYWORD_OUTER);
    } else if (accept_keyword(p, KEYWORD_FULL)) {
        kind = JOIN_FULL;
        accept_keyword(p, KEYWORD_OUTER);
    } else if (accept_keyword(p, KEYWORD_CROSS)) {
        kind = JOIN_CROSS;
    } else if (accept_keyword(p, KEYWORD_SEMI)) {
        kind = JOIN_SEMI;
    } else if (accept_keyword(p, KEYWORD_ANTI)) {
        kind = JOIN_ANTI;
    } else if (accept_keyword(p, KEYWORD_ASOF)) {
        kind = JOIN_ASOF;
    } else {
        word = accept_keyword(p, KEYWORD_INNER);
    }
    if (word)
        expect_keyword(p, KEYWORD_JOIN);
    else if (!accept_keyword(p, KEYWORD_JOIN))
        return JOIN_KINDS;
    return kind;
}

static bool accept_within(struct parser *p, struct ast_join *n)
{
    if (n->before || !accept_keyword(p, KEYWORD_WITHIN))
        return false;
    struct ast *bound = parse_expr_above(p, POWER_BETWEEN + 1);
    n->before = bound;
    if (bound->kind == AST_ROW && AST_AS(row, bound)->items.count == 2) {
        n->before = AST_AS(row, bound)->items.at[0];
        n->after = AST_AS(row, bound)->items.at[1];
    }
    return true;
}

static bool accept_condition(struct parser *p, struct ast_join *n)
{
    if (n->kind == JOIN_CROSS || n->on || n->using.count)
        return false;
    if (accept_keyword(p, KEYWORD_ON)) {
        n->on = parse_expr(p);
        return true;
    }
    if (!accept_keyword(p, KEYWORD_USING))
        return false;
    n->using = parse_names_listed(p, "a column's name");
    return true;
}

static struct ast *parse_joined(struct parser *p)
{
    struct ast *left = parse_matched(p);
    for (;;) {
        struct ast_join *n = NODE_AT(p, JOIN, join, left);
        enum ast_join_kind kind = accept_join(p);
        if (kind == JOIN_KINDS)
            return left;
        n->kind = kind;
        n->left = left;
        n->right = parse_matched(p);
        while (accept_within(p, n) || accept_condition(p, n))
            ;
        if (!n->on && !n->using.count && kind != JOIN_CROSS)
            fail_expected(p, NULL);
        left = node_end(p, n);
    }
}

struct ast *parse_from(struct parser *p)
{
    struct ast *left = parse_joined(p);
    while (accept_symbol(p, SYMBOL_COMMA)) {
        struct ast_join *n = NODE_AT(p, JOIN, join, left);
        n->kind = JOIN_COMMA;
        n->left = left;
        n->right = parse_joined(p);
        left = node_end(p, n);
    }
    return left;
}
