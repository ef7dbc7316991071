/* Calls: f(DISTINCT a, b ORDER BY c) FILTER (…) OVER (…), and the forms of SQL that are calls spelled in words. */
#include "sql/language/parse_int.h"

static struct ast *parse_bound(struct parser *p)
{
    struct ast_bound *n = NODE_NEW(p, BOUND, bound);
    if (accept_keyword(p, KEYWORD_CURRENT)) {
        expect_keyword(p, KEYWORD_ROW);
        n->kind = BOUND_CURRENT;
        return node_end(p, n);
    }
    bool all = accept_keyword(p, KEYWORD_UNBOUNDED);
    if (!all)
        n->expr = parse_expr(p);
    if (accept_keyword(p, KEYWORD_PRECEDING))
        n->kind = all ? BOUND_ALL_BEFORE : BOUND_BEFORE;
    else if (accept_keyword(p, KEYWORD_FOLLOWING))
        n->kind = all ? BOUND_ALL_AFTER : BOUND_AFTER;
    else
        fail_expected(p, NULL);
    return node_end(p, n);
}

static void parse_frame(struct parser *p, struct ast_window *n)
{
    if (accept_keyword(p, KEYWORD_ROWS))
        n->unit = FRAME_ROWS;
    else if (accept_keyword(p, KEYWORD_RANGE))
        n->unit = FRAME_RANGE;
    else if (accept_keyword(p, KEYWORD_GROUPS))
        n->unit = FRAME_GROUPS;
    else
        return;
    bool both = accept_keyword(p, KEYWORD_BETWEEN);
    n->start = parse_bound(p);
    if (both) {
        expect_keyword(p, KEYWORD_AND);
        n->end = parse_bound(p);
    }
}

struct ast *parse_window(struct parser *p)
{
    struct ast_window *n = NODE_NEW(p, WINDOW, window);
    expect_symbol(p, SYMBOL_LPAREN);
    bool clause = is_keyword(p, KEYWORD_PARTITION) || (is_keyword(p, KEYWORD_ORDER) && ahead_keyword(p, KEYWORD_BY)) ||
                  is_keyword(p, KEYWORD_ROWS) || is_keyword(p, KEYWORD_RANGE) || is_keyword(p, KEYWORD_GROUPS);
    if (!clause && is_name(p))
        n->base = parse_name(p, "a window's name");
    if (accept_keywords(p, KEYWORD_PARTITION, KEYWORD_BY))
        parse_exprs(p, &n->partition);
    if (accept_keywords(p, KEYWORD_ORDER, KEYWORD_BY))
        parse_order_list(p, &n->order);
    parse_frame(p, n);
    expect_symbol(p, SYMBOL_RPAREN);
    return node_end(p, n);
}

static void parse_behind_call(struct parser *p, struct ast_call *n)
{
    if (is_keyword(p, KEYWORD_FILTER) && ahead_symbol(p, SYMBOL_LPAREN)) {
        advance(p);
        advance(p);
        expect_keyword(p, KEYWORD_WHERE);
        n->filter = parse_expr(p);
        expect_symbol(p, SYMBOL_RPAREN);
    }
    if (accept_keywords(p, KEYWORD_IGNORE, KEYWORD_NULLS))
        n->nulls = NULLS_IGNORE;
    else if (accept_keywords(p, KEYWORD_RESPECT, KEYWORD_NULLS))
        n->nulls = NULLS_RESPECT;
    if (!accept_keyword(p, KEYWORD_OVER))
        return;
    if (is_symbol(p, SYMBOL_LPAREN)) {
        n->over = parse_window(p);
        return;
    }
    struct ast_window *window = NODE_NEW(p, WINDOW, window);
    window->bare = true;
    window->base = parse_name(p, "a window's name");
    n->over = node_end(p, window);
}

struct ast *parse_call(struct parser *p, uint32_t at, struct ast_names name)
{
    struct ast_call *n = node_new(p, AST_CALL, at);
    n->name = name;
    expect_symbol(p, SYMBOL_LPAREN);
    if (is_symbol(p, SYMBOL_STAR) && ahead_symbol(p, SYMBOL_RPAREN)) {
        n->star = true;
        advance(p);
    } else if (!is_symbol(p, SYMBOL_RPAREN)) {
        n->distinct = accept_keyword(p, KEYWORD_DISTINCT);
        if (!n->distinct)
            accept_keyword(p, KEYWORD_ALL);
        parse_exprs(p, &n->args);
        if (accept_keywords(p, KEYWORD_ORDER, KEYWORD_BY))
            parse_order_list(p, &n->order);
    }
    expect_symbol(p, SYMBOL_RPAREN);
    parse_behind_call(p, n);
    return node_end(p, n);
}

/* ------------------------------------------------------------------------------------------------- calls in words */

static struct ast_call *call_named(struct parser *p, uint32_t at, const char *name)
{
    struct ast_call *n = node_new(p, AST_CALL, at);
    names_add(p, &n->name, slice_str(name));
    return n;
}

static struct ast *parse_extract(struct parser *p)
{
    struct ast_extract *n = NODE_NEW(p, EXTRACT, extract);
    advance(p);
    expect_symbol(p, SYMBOL_LPAREN);
    n->field = p->token.kind == TOKEN_STRING ? parse_string(p, "a field") : parse_name(p, "a field such as HOUR");
    expect_keyword(p, KEYWORD_FROM);
    n->operand = parse_expr(p);
    expect_symbol(p, SYMBOL_RPAREN);
    return node_end(p, n);
}

/* SUBSTRING(a FROM b [FOR c]) | (a, b [, c]) */
static struct ast *parse_substring(struct parser *p)
{
    struct ast_call *n = call_named(p, p->token.at, "substring");
    advance(p);
    expect_symbol(p, SYMBOL_LPAREN);
    list_add(p, &n->args, parse_expr(p));
    if (accept_keyword(p, KEYWORD_FROM)) {
        list_add(p, &n->args, parse_expr(p));
        if (accept_keyword(p, KEYWORD_FOR))
            list_add(p, &n->args, parse_expr(p));
    } else if (accept_symbol(p, SYMBOL_COMMA)) {
        parse_exprs(p, &n->args);
    } else {
        fail_expected(p, NULL);
    }
    expect_symbol(p, SYMBOL_RPAREN);
    return node_end(p, n);
}

/* POSITION(a IN b): strpos(b, a) */
static struct ast *parse_position(struct parser *p)
{
    struct ast_call *n = call_named(p, p->token.at, "strpos");
    advance(p);
    expect_symbol(p, SYMBOL_LPAREN);
    struct ast *part = parse_expr_above(p, POWER_BETWEEN + 1);
    expect_keyword(p, KEYWORD_IN);
    list_add(p, &n->args, parse_expr(p));
    list_add(p, &n->args, part);
    expect_symbol(p, SYMBOL_RPAREN);
    return node_end(p, n);
}

/* TRIM([LEADING | TRAILING | BOTH] [a] FROM b) | (b [, a]) */
static struct ast *parse_trim(struct parser *p)
{
    uint32_t at = p->token.at;
    const char *name = "btrim";
    advance(p);
    expect_symbol(p, SYMBOL_LPAREN);
    if (accept_keyword(p, KEYWORD_LEADING))
        name = "ltrim";
    else if (accept_keyword(p, KEYWORD_TRAILING))
        name = "rtrim";
    else
        accept_keyword(p, KEYWORD_BOTH);
    struct ast_call *n = call_named(p, at, name);
    struct ast *first = is_keyword(p, KEYWORD_FROM) ? NULL : parse_expr(p);
    if (accept_keyword(p, KEYWORD_FROM)) {
        list_add(p, &n->args, parse_expr(p));
        if (first)
            list_add(p, &n->args, first);
    } else {
        list_add(p, &n->args, first);
        if (accept_symbol(p, SYMBOL_COMMA))
            list_add(p, &n->args, parse_expr(p));
    }
    expect_symbol(p, SYMBOL_RPAREN);
    return node_end(p, n);
}

/* OVERLAY(a PLACING b FROM c [FOR d]) */
static struct ast *parse_overlay(struct parser *p)
{
    struct ast_call *n = call_named(p, p->token.at, "overlay");
    advance(p);
    expect_symbol(p, SYMBOL_LPAREN);
    list_add(p, &n->args, parse_expr(p));
    if (accept_keyword(p, KEYWORD_PLACING)) {
        list_add(p, &n->args, parse_expr(p));
        expect_keyword(p, KEYWORD_FROM);
        list_add(p, &n->args, parse_expr(p));
        if (accept_keyword(p, KEYWORD_FOR))
            list_add(p, &n->args, parse_expr(p));
    } else {
        expect_symbol(p, SYMBOL_COMMA);
        parse_exprs(p, &n->args);
    }
    expect_symbol(p, SYMBOL_RPAREN);
    return node_end(p, n);
}

/* CURRENT_TIMESTAMP and its like, without parentheses. */
static struct ast *parse_bare(struct parser *p)
{
    struct ast_call *n = NODE_NEW(p, CALL, call);
    n->bare = true;
    names_add(p, &n->name, slice_str(keyword_text(p->token.keyword)));
    advance(p);
    return node_end(p, n);
}

/* FINAL LAST(x), RUNNING SUM(x); FINAL AS x and FINAL > 1 are a column. */
static struct ast *parse_moment(struct parser *p)
{
    struct ast_moment *n = NODE_NEW(p, MOMENT, moment);
    n->final = p->token.keyword == KEYWORD_FINAL;
    advance(p);
    uint32_t at = p->token.at;
    struct ast_names name = {0};
    names_add(p, &name, parse_name(p, "a function"));
    n->call = parse_call(p, at, name);
    return node_end(p, n);
}

struct ast *parse_special_call(struct parser *p)
{
    bool call =
        p->ahead.kind == TOKEN_NAME && (!p->ahead.keyword || keyword_freedom(p->ahead.keyword) != KEYWORD_RESERVED);
    switch (p->token.keyword) {
    case KEYWORD_CURRENT_DATE:
    case KEYWORD_CURRENT_TIME:
    case KEYWORD_CURRENT_TIMESTAMP:
    case KEYWORD_LOCALTIMESTAMP: return parse_bare(p);
    case KEYWORD_FINAL:
    case KEYWORD_RUNNING: return p->matching && call ? parse_moment(p) : NULL;
    default: break;
    }
    if (!ahead_symbol(p, SYMBOL_LPAREN))
        return NULL;
    switch (p->token.keyword) {
    case KEYWORD_EXTRACT: return parse_extract(p);
    case KEYWORD_SUBSTRING: return parse_substring(p);
    case KEYWORD_POSITION: return parse_position(p);
    case KEYWORD_TRIM: return parse_trim(p);
    case KEYWORD_OVERLAY: return parse_overlay(p);
    default: return NULL;
    }
}
