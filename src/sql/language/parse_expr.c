/* Expressions: what begins one (parse_atom and those it calls), and what may follow an operand (the rows of `infixes`), by
 * Pratt's method: a row binds as tightly as its power says, and only rows of at least the asked power are taken. */
#include "sql/language/parse_int.h"

/* ---------------------------------------------------------------------------------------------------------- operands */

static struct ast *literal(struct parser *p, enum ast_literal_kind what)
{
    struct ast_literal *n = NODE_NEW(p, LITERAL, literal);
    n->what = what;
    if (what == LITERAL_NUMBER || what == LITERAL_STRING)
        n->text = p->token.text.ptr ? p->token.text : slice_of("", 0);
    advance(p);
    return node_end(p, n);
}

void parse_exprs(struct parser *p, struct ast_list *list)
{
    do
        list_add(p, list, parse_expr(p));
    while (accept_symbol(p, SYMBOL_COMMA));
}

static struct ast *parse_case(struct parser *p)
{
    struct ast_case *n = NODE_NEW(p, CASE, case);
    advance(p);
    if (!is_keyword(p, KEYWORD_WHEN))
        n->operand = parse_expr(p);
    if (!is_keyword(p, KEYWORD_WHEN))
        fail_expected(p, NULL);
    while (is_keyword(p, KEYWORD_WHEN)) {
        struct ast_when *when = NODE_NEW(p, WHEN, when);
        advance(p);
        when->condition = parse_expr(p);
        expect_keyword(p, KEYWORD_THEN);
        when->value = parse_expr(p);
        list_add(p, &n->whens, node_end(p, when));
    }
    if (accept_keyword(p, KEYWORD_ELSE))
        n->otherwise = parse_expr(p);
    expect_keyword(p, KEYWORD_END);
    return node_end(p, n);
}

static struct ast *parse_cast(struct parser *p)
{
    struct ast_cast *n = NODE_NEW(p, CAST, cast);
    n->soft = p->token.keyword == KEYWORD_TRY_CAST;
    advance(p);
    expect_symbol(p, SYMBOL_LPAREN);
    n->operand = parse_expr(p);
    expect_keyword(p, KEYWORD_AS);
    n->type = parse_type(p);
    expect_symbol(p, SYMBOL_RPAREN);
    return node_end(p, n);
}

/* ARRAY[…], MAP[…], behind the word; the end has been told by the kind. */
static void parse_bracketed(struct parser *p, struct ast_list *items)
{
    expect_symbol(p, SYMBOL_LBRACKET);
    if (!is_symbol(p, SYMBOL_RBRACKET))
        parse_exprs(p, items);
    expect_symbol(p, SYMBOL_RBRACKET);
}

static struct ast *parse_array(struct parser *p)
{
    struct ast_array *n = NODE_NEW(p, ARRAY, array);
    advance(p);
    parse_bracketed(p, &n->items);
    return node_end(p, n);
}

static struct ast *parse_map(struct parser *p)
{
    struct ast_map *n = NODE_NEW(p, MAP, map);
    advance(p);
    parse_bracketed(p, &n->items);
    if (n->items.count % 2)
        fail_at(p, n->ast.at, 3, SQL_FAULT_SYNTAX, "a map has a value for each key: their number must be even");
    return node_end(p, n);
}

static struct ast *parse_row(struct parser *p)
{
    struct ast_row *n = NODE_NEW(p, ROW, row);
    advance(p);
    expect_symbol(p, SYMBOL_LPAREN);
    if (!is_symbol(p, SYMBOL_RPAREN))
        parse_exprs(p, &n->items);
    expect_symbol(p, SYMBOL_RPAREN);
    return node_end(p, n);
}

static struct ast *parse_exists(struct parser *p)
{
    struct ast_subquery *n = NODE_NEW(p, SUBQUERY, subquery);
    n->exists = true;
    advance(p);
    expect_symbol(p, SYMBOL_LPAREN);
    n->query = parse_query(p);
    expect_symbol(p, SYMBOL_RPAREN);
    return node_end(p, n);
}

/* ( expression ), ( query ), ( a, b, … ): at the parenthesis. */
static struct ast *parse_parens(struct parser *p)
{
    struct ast_subquery *sub = NODE_NEW(p, SUBQUERY, subquery);
    advance(p);
    if (at_query(p)) {
        sub->query = parse_query(p);
        expect_symbol(p, SYMBOL_RPAREN);
        return node_end(p, sub);
    }
    struct ast *first = parse_expr(p);
    if (first->kind == AST_SUBQUERY && !AST_AS(subquery, first)->exists && at_query_rest(p)) {
        sub->query = parse_query_rest(p, AST_AS(subquery, first)->query);
        expect_symbol(p, SYMBOL_RPAREN);
        return node_end(p, sub);
    }
    if (!is_symbol(p, SYMBOL_COMMA)) {
        expect_symbol(p, SYMBOL_RPAREN);
        return first;
    }
    struct ast_row *row = NODE_AT(p, ROW, row, &sub->ast);
    list_add(p, &row->items, first);
    while (accept_symbol(p, SYMBOL_COMMA))
        list_add(p, &row->items, parse_expr(p));
    expect_symbol(p, SYMBOL_RPAREN);
    return node_end(p, row);
}

static enum ast_unit accept_unit(struct parser *p)
{
    if (p->token.kind != TOKEN_NAME)
        return UNIT_NONE;
    for (unsigned unit = UNIT_NONE + 1; unit < UNITS; unit++) {
        struct slice word = p->token.text, text = slice_str(ast_unit_text(unit));
        bool plural = word.len == text.len + 1 && (word.ptr[text.len] | 0x20) == 's';
        if (name_equal(plural ? slice_of(word.ptr, text.len) : word, text)) {
            advance(p);
            return (enum ast_unit)unit;
        }
    }
    return UNIT_NONE;
}

/* INTERVAL '10' SECOND, INTERVAL '1 day 2 hours', INTERVAL '1-2' YEAR TO MONTH; at the word. */
static struct ast *parse_interval(struct parser *p)
{
    struct ast_interval *n = NODE_NEW(p, INTERVAL, interval);
    advance(p);
    if (p->token.kind == TOKEN_NUMBER) { /* INTERVAL 10 SECOND, as MySQL has it */
        n->text = p->token.text;
        advance(p);
    } else {
        n->text = parse_string(p, "the interval's text");
    }
    n->from = accept_unit(p);
    if (n->from && accept_keyword(p, KEYWORD_TO)) {
        n->to = accept_unit(p);
        if (!n->to)
            fail_expected(p, "a unit of time");
    }
    return node_end(p, n);
}

/* DATE '…', TIMESTAMP WITH TIME ZONE '…', JSON '…': at a name before which no text stood. */
static bool at_typed_literal(const struct parser *p)
{
    bool time = p->token.keyword == KEYWORD_TIME || p->token.keyword == KEYWORD_TIMESTAMP;
    if (p->token.kind != TOKEN_NAME || (p->token.keyword && !time))
        return false;
    return p->ahead.kind == TOKEN_STRING ||
           (time && (ahead_keyword(p, KEYWORD_WITH) || ahead_keyword(p, KEYWORD_WITHOUT)));
}

static struct ast *parse_typed(struct parser *p)
{
    struct ast_typed *n = NODE_NEW(p, TYPED, typed);
    n->type = parse_type(p);
    n->text = parse_string(p, "the value's text");
    return node_end(p, n);
}

/* A column, t.*, or a call. */
static struct ast *parse_named(struct parser *p)
{
    uint32_t at = p->token.at;
    struct ast_names parts = {0};
    names_add(p, &parts, parse_name(p, "an expression"));
    while (is_symbol(p, SYMBOL_DOT)) {
        if (ahead_symbol(p, SYMBOL_STAR)) {
            struct ast_star *star = node_new(p, AST_STAR, at);
            star->parts = parts;
            advance(p);
            advance(p);
            return node_end(p, star);
        }
        advance(p);
        if (parts.count == SQL_PARTS_MAX)
            fail_at(p, p->token.at, p->token.len, SQL_FAULT_LIMIT, "a name of more than %u parts", SQL_PARTS_MAX);
        names_add(p, &parts, parse_name(p, "a name behind the point"));
    }
    if (is_symbol(p, SYMBOL_LPAREN))
        return parse_call(p, at, parts);
    struct ast_name *n = node_new(p, AST_NAME, at);
    n->parts = parts;
    return node_end(p, n);
}

static struct ast *parse_unary(struct parser *p, enum ast_unary_op op, int power)
{
    struct ast_unary *n = NODE_NEW(p, UNARY, unary);
    n->op = op;
    advance(p);
    n->operand = parse_expr_above(p, power);
    return node_end(p, n);
}

static struct ast *parse_symbol(struct parser *p)
{
    switch (p->token.symbol) {
    case SYMBOL_LPAREN: return parse_parens(p);
    case SYMBOL_MINUS: return parse_unary(p, UNARY_MINUS, POWER_SIGN);
    case SYMBOL_PLUS: return parse_unary(p, UNARY_PLUS, POWER_SIGN);
    default: break;
    }
    fail_expected_only(p, "an expression");
    return node_new(p, AST_LITERAL, p->token.at);
}

/* A word that begins an expression; NULL: it is a name like any other. */
static struct ast *parse_word(struct parser *p)
{
    bool call = ahead_symbol(p, SYMBOL_LPAREN);
    switch (p->token.keyword) {
    case KEYWORD_NULL: return literal(p, LITERAL_NULL);
    case KEYWORD_TRUE: return literal(p, LITERAL_TRUE);
    case KEYWORD_FALSE: return literal(p, LITERAL_FALSE);
    case KEYWORD_CASE: return parse_case(p);
    case KEYWORD_NOT: return parse_unary(p, UNARY_NOT, POWER_NOT);
    case KEYWORD_CAST: return parse_cast(p);
    case KEYWORD_TRY_CAST: return call ? parse_cast(p) : NULL;
    case KEYWORD_ARRAY: return parse_array(p);
    case KEYWORD_MAP: return ahead_symbol(p, SYMBOL_LBRACKET) ? parse_map(p) : NULL;
    case KEYWORD_ROW: return call ? parse_row(p) : NULL;
    case KEYWORD_EXISTS: return call ? parse_exists(p) : NULL;
    case KEYWORD_INTERVAL:
        return p->ahead.kind == TOKEN_STRING || p->ahead.kind == TOKEN_NUMBER ? parse_interval(p) : NULL;
    default: break;
    }
    struct ast *special = parse_special_call(p);
    if (special)
        return special;
    return at_typed_literal(p) ? parse_typed(p) : NULL;
}

static struct ast *parse_atom(struct parser *p)
{
    struct ast *word;
    switch (p->token.kind) {
    case TOKEN_NUMBER: return literal(p, LITERAL_NUMBER);
    case TOKEN_STRING: return literal(p, LITERAL_STRING);
    case TOKEN_QUOTED: return parse_named(p);
    case TOKEN_SYMBOL: return parse_symbol(p);
    case TOKEN_NAME:
        word = parse_word(p);
        if (word)
            return word;
        if (is_name(p))
            return parse_named(p);
        break;
    default: break;
    }
    fail_expected_only(p, "an expression");
    return node_new(p, AST_LITERAL, p->token.at);
}

/* ----------------------------------------------------------------------------------------------- behind an operand */

static struct ast *infix_quantified(struct parser *p, struct ast *left, enum ast_op op)
{
    struct ast_quantified *n = NODE_AT(p, QUANTIFIED, quantified, left);
    n->op = op;
    n->left = left;
    n->all = p->token.keyword == KEYWORD_ALL;
    advance(p);
    expect_symbol(p, SYMBOL_LPAREN);
    if (at_query(p)) {
        struct ast_subquery *sub = NODE_NEW(p, SUBQUERY, subquery);
        sub->query = parse_query(p);
        n->right = node_end(p, sub);
    } else {
        n->right = parse_expr(p);
    }
    expect_symbol(p, SYMBOL_RPAREN);
    return node_end(p, n);
}

static struct ast *infix_operator(struct parser *p, struct ast *left, int which)
{
    enum ast_op op = (enum ast_op)which;
    advance(p);
    bool compares = ast_op_power(op) == POWER_COMPARE;
    if (compares && ahead_symbol(p, SYMBOL_LPAREN) &&
        (is_keyword(p, KEYWORD_ANY) || is_keyword(p, KEYWORD_ALL) || is_keyword(p, KEYWORD_SOME)))
        return infix_quantified(p, left, op);
    struct ast_binary *n = NODE_AT(p, BINARY, binary, left);
    n->op = op;
    n->left = left;
    n->right = parse_expr_above(p, ast_op_power(op) + 1);
    return node_end(p, n);
}

static struct ast *infix_cast(struct parser *p, struct ast *left, int unused)
{
    (void)unused;
    struct ast_cast *n = NODE_AT(p, CAST, cast, left);
    advance(p);
    n->operand = left;
    n->type = parse_type(p);
    return node_end(p, n);
}

static struct ast *infix_subscript(struct parser *p, struct ast *left, int unused)
{
    (void)unused;
    struct ast_subscript *n = NODE_AT(p, SUBSCRIPT, subscript, left);
    advance(p);
    n->operand = left;
    n->index = parse_expr(p);
    expect_symbol(p, SYMBOL_RBRACKET);
    return node_end(p, n);
}

static struct ast *infix_field(struct parser *p, struct ast *left, int unused)
{
    (void)unused;
    struct ast_field *n = NODE_AT(p, FIELD, field, left);
    advance(p);
    n->operand = left;
    n->name = parse_name(p, "a field's name");
    return node_end(p, n);
}

static struct ast *infix_zone(struct parser *p, struct ast *left, int unused)
{
    (void)unused;
    struct ast_at_zone *n = NODE_AT(p, AT_ZONE, at_zone, left);
    advance(p);
    expect_keyword(p, KEYWORD_TIME);
    expect_keyword(p, KEYWORD_ZONE);
    n->operand = left;
    n->zone = parse_expr_above(p, POWER_ZONE + 1);
    return node_end(p, n);
}

static struct ast *is_node(struct parser *p, struct ast *left, bool negated, enum ast_is_kind what)
{
    struct ast_is *n = NODE_AT(p, IS, is, left);
    n->operand = left;
    n->negated = negated;
    n->what = what;
    return node_end(p, n);
}

/* a ISNULL, a NOTNULL */
static struct ast *infix_null(struct parser *p, struct ast *left, int negated)
{
    advance(p);
    return is_node(p, left, negated, IS_NULL);
}

static struct ast *infix_is(struct parser *p, struct ast *left, int unused)
{
    static const struct {
        enum keyword keyword;
        enum ast_is_kind what;
    } rows[] = {
        {KEYWORD_NULL, IS_NULL}, {KEYWORD_TRUE, IS_TRUE}, {KEYWORD_FALSE, IS_FALSE}, {KEYWORD_UNKNOWN, IS_UNKNOWN}};
    (void)unused;
    advance(p);
    bool negated = accept_keyword(p, KEYWORD_NOT);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (accept_keyword(p, rows[i].keyword))
            return is_node(p, left, negated, rows[i].what);
    struct ast_is *n = NODE_AT(p, IS, is, left);
    expect_keyword(p, KEYWORD_DISTINCT);
    expect_keyword(p, KEYWORD_FROM);
    n->operand = left;
    n->negated = negated;
    n->what = IS_DISTINCT;
    n->right = parse_expr_above(p, POWER_IS + 1);
    return node_end(p, n);
}

static struct ast *infix_between(struct parser *p, struct ast *left, int unused)
{
    (void)unused;
    struct ast_between *n = NODE_AT(p, BETWEEN, between, left);
    n->operand = left;
    n->negated = accept_keyword(p, KEYWORD_NOT);
    advance(p);
    n->symmetric = accept_keyword(p, KEYWORD_SYMMETRIC);
    n->low = parse_expr_above(p, POWER_BETWEEN + 1);
    expect_keyword(p, KEYWORD_AND);
    n->high = parse_expr_above(p, POWER_BETWEEN + 1);
    return node_end(p, n);
}

static struct ast *infix_in(struct parser *p, struct ast *left, int unused)
{
    (void)unused;
    struct ast_in *n = NODE_AT(p, IN, in, left);
    n->operand = left;
    n->negated = accept_keyword(p, KEYWORD_NOT);
    advance(p);
    expect_symbol(p, SYMBOL_LPAREN);
    if (at_query(p))
        n->query = parse_query(p);
    else
        parse_exprs(p, &n->items);
    struct ast *only = n->items.count == 1 ? n->items.at[0] : NULL;
    if (only && only->kind == AST_SUBQUERY && !AST_AS(subquery, only)->exists && at_query_rest(p)) {
        n->query = parse_query_rest(p, AST_AS(subquery, only)->query); /* IN ((SELECT 1) UNION …) */
        n->items = (struct ast_list){0};
    }
    expect_symbol(p, SYMBOL_RPAREN);
    return node_end(p, n);
}

static struct ast *infix_like(struct parser *p, struct ast *left, int unused)
{
    (void)unused;
    struct ast_like *n = NODE_AT(p, LIKE, like, left);
    n->operand = left;
    n->negated = accept_keyword(p, KEYWORD_NOT);
    n->how = p->token.keyword == KEYWORD_LIKE    ? LIKE_CASE
             : p->token.keyword == KEYWORD_ILIKE ? LIKE_NOCASE
                                                 : LIKE_SIMILAR;
    advance(p);
    if (n->how == LIKE_SIMILAR)
        expect_keyword(p, KEYWORD_TO);
    n->pattern = parse_expr_above(p, POWER_BETWEEN + 1);
    if (accept_keyword(p, KEYWORD_ESCAPE))
        n->escape = parse_expr_above(p, POWER_BETWEEN + 1);
    return node_end(p, n);
}

struct infix {
    enum keyword keyword;
    enum symbol symbol;
    int power;
    bool chained;
    struct ast *(*parse)(struct parser *p, struct ast *left, int argument);
    int argument;
    bool negatable; /* NOT may stand before it */
};

static const struct infix infixes[] = {
#define OPERATOR(name, keyword, symbol, text, power, chained)                                                          \
    {keyword, symbol, power, chained, infix_operator, AST_OP_##name, false},
#include "sql/language/operators.def"
#undef OPERATOR
    {KEYWORD_NONE, SYMBOL_NOT_EQUAL, POWER_COMPARE, false, infix_operator, AST_OP_NE, false},
    {KEYWORD_IS, SYMBOL_NONE, POWER_IS, false, infix_is, 0, false},
    {KEYWORD_ISNULL, SYMBOL_NONE, POWER_IS, false, infix_null, false, false},
    {KEYWORD_NOTNULL, SYMBOL_NONE, POWER_IS, false, infix_null, true, false},
    {KEYWORD_BETWEEN, SYMBOL_NONE, POWER_BETWEEN, false, infix_between, 0, true},
    {KEYWORD_IN, SYMBOL_NONE, POWER_BETWEEN, false, infix_in, 0, true},
    {KEYWORD_LIKE, SYMBOL_NONE, POWER_BETWEEN, false, infix_like, 0, true},
    {KEYWORD_ILIKE, SYMBOL_NONE, POWER_BETWEEN, false, infix_like, 0, true},
    {KEYWORD_SIMILAR, SYMBOL_NONE, POWER_BETWEEN, false, infix_like, 0, true},
    {KEYWORD_AT, SYMBOL_NONE, POWER_ZONE, true, infix_zone, 0, false},
    {KEYWORD_NONE, SYMBOL_LBRACKET, POWER_SUBSCRIPT, true, infix_subscript, 0, false},
    {KEYWORD_NONE, SYMBOL_CAST, POWER_CAST, true, infix_cast, 0, false},
    {KEYWORD_NONE, SYMBOL_DOT, POWER_FIELD, true, infix_field, 0, false},
};

/* The row of the current token; NULL: it ends the expression. */
static const struct infix *infix_of(const struct parser *p)
{
    bool negated = p->token.kind == TOKEN_NAME && p->token.keyword == KEYWORD_NOT;
    const struct token *token = negated ? &p->ahead : &p->token;
    if ((token->kind != TOKEN_NAME || !token->keyword) && token->kind != TOKEN_SYMBOL)
        return NULL;
    for (size_t i = 0; i < ARRAY_LEN(infixes); i++) {
        const struct infix *row = &infixes[i];
        bool is = row->keyword ? token->kind == TOKEN_NAME && token->keyword == row->keyword
                               : token->kind == TOKEN_SYMBOL && token->symbol == row->symbol;
        if (is)
            return negated && !row->negatable ? NULL : row;
    }
    return NULL;
}

struct ast *parse_expr_above(struct parser *p, int least)
{
    if (!nest(p))
        return node_new(p, AST_LITERAL, p->token.at);
    struct ast *left = parse_atom(p);
    int most = POWER_ATOM;
    for (;;) {
        const struct infix *row = infix_of(p);
        if (!row || row->power < least || row->power > most)
            break;
        if (left->kind == AST_STAR) /* a star is no operand, wherever it stands */
            fail_at(p, left->at, left->len, SQL_FAULT_SYNTAX, "a star cannot be an operand");
        left = row->parse(p, left, row->argument);
        most = row->chained ? POWER_ATOM : row->power - 1; /* a < b < c is no expression */
    }
    unnest(p);
    return left;
}

struct ast *parse_expr(struct parser *p)
{
    return parse_expr_above(p, POWER_LOWEST + 1);
}
