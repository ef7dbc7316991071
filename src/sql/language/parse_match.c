/* MATCH_RECOGNIZE: rows that follow one another in a pattern. */
#include "sql/language/parse_int.h"

#define REPEAT_MAX 1000000

static struct ast *parse_alternatives(struct parser *p);

static bool at_variable(const struct parser *p)
{
    return is_name(p);
}

/* A variable or a group, and how often it stands there. */
static struct ast *parse_repeated(struct parser *p)
{
    uint32_t at = p->token.at;
    struct ast *item;
    if (accept_symbol(p, SYMBOL_LPAREN)) {
        item = parse_alternatives(p);
        expect_symbol(p, SYMBOL_RPAREN);
    } else {
        struct ast_pattern_var *var = NODE_NEW(p, PATTERN_VAR, pattern_var);
        var->name = parse_name(p, "a variable of the pattern");
        item = node_end(p, var);
    }
    struct ast_pattern_repeat *n = node_new(p, AST_PATTERN_REPEAT, at);
    n->item = item;
    n->most = -1;
    if (accept_symbol(p, SYMBOL_PLUS)) {
        n->least = 1;
    } else if (accept_symbol(p, SYMBOL_QUESTION)) {
        n->most = 1;
    } else if (accept_symbol(p, SYMBOL_LBRACE)) {
        if (!is_symbol(p, SYMBOL_COMMA))
            n->least = n->most = parse_count(p, "how often it is repeated", REPEAT_MAX);
        if (accept_symbol(p, SYMBOL_COMMA))
            n->most = is_symbol(p, SYMBOL_RBRACE) ? -1 : parse_count(p, "how often it is repeated", REPEAT_MAX);
        if (n->most >= 0 && n->most < n->least)
            fail_at(p, at, p->token.at - at, SQL_FAULT_VALUE, "the least number of repetitions is above the most");
        expect_symbol(p, SYMBOL_RBRACE);
    } else if (!accept_symbol(p, SYMBOL_STAR)) {
        return item;
    }
    n->reluctant = accept_symbol(p, SYMBOL_QUESTION);
    return node_end(p, n);
}

static struct ast *parse_sequence(struct parser *p)
{
    struct ast_pattern_seq *n = NODE_NEW(p, PATTERN_SEQ, pattern_seq);
    do
        list_add(p, &n->items, parse_repeated(p));
    while (at_variable(p) || is_symbol(p, SYMBOL_LPAREN));
    return n->items.count == 1 ? n->items.at[0] : node_end(p, n);
}

static struct ast *parse_alternatives(struct parser *p)
{
    struct ast_pattern_alt *n = NODE_NEW(p, PATTERN_ALT, pattern_alt);
    if (!nest(p))
        return node_end(p, n);
    do
        list_add(p, &n->items, parse_sequence(p));
    while (accept_symbol(p, SYMBOL_BAR));
    unnest(p);
    return n->items.count == 1 ? n->items.at[0] : node_end(p, n);
}

/* AFTER MATCH SKIP …, behind SKIP. */
static void parse_skip(struct parser *p, struct ast_match *n)
{
    if (accept_keyword(p, KEYWORD_PAST)) {
        expect_keyword(p, KEYWORD_LAST);
        expect_keyword(p, KEYWORD_ROW);
        n->skip = SKIP_PAST_LAST;
        return;
    }
    expect_keyword(p, KEYWORD_TO);
    if (accept_keywords(p, KEYWORD_NEXT, KEYWORD_ROW)) {
        n->skip = SKIP_NEXT_ROW;
        return;
    }
    n->skip = accept_keyword(p, KEYWORD_FIRST) ? SKIP_TO_FIRST : SKIP_TO_LAST;
    if (n->skip == SKIP_TO_LAST)
        accept_keyword(p, KEYWORD_LAST);
    n->skip_to = parse_name(p, "a variable of the pattern");
}

static void parse_subsets(struct parser *p, struct ast_list *list)
{
    do {
        struct ast_subset *n = NODE_NEW(p, SUBSET, subset);
        n->name = parse_name(p, "a name for the variables");
        expect_symbol(p, SYMBOL_EQ);
        n->members = parse_names_listed(p, "a variable of the pattern");
        list_add(p, list, node_end(p, n));
    } while (accept_symbol(p, SYMBOL_COMMA));
}

static void parse_defines(struct parser *p, struct ast_list *list)
{
    do {
        struct ast_define *n = NODE_NEW(p, DEFINE, define);
        n->name = parse_name(p, "a variable of the pattern");
        expect_keyword(p, KEYWORD_AS);
        n->condition = parse_expr(p);
        list_add(p, list, node_end(p, n));
    } while (accept_symbol(p, SYMBOL_COMMA));
}

static void parse_rows_per_match(struct parser *p, struct ast_match *n)
{
    bool one = accept_keyword(p, KEYWORD_ONE);
    if (!one && !accept_keyword(p, KEYWORD_ALL))
        return;
    if (one)
        expect_keyword(p, KEYWORD_ROW);
    else
        expect_keyword(p, KEYWORD_ROWS);
    expect_keyword(p, KEYWORD_PER);
    expect_keyword(p, KEYWORD_MATCH);
    n->all_rows = !one;
}

struct ast *parse_match(struct parser *p, struct ast *source)
{
    struct ast_match *n = NODE_AT(p, MATCH, match, source);
    advance(p);
    n->source = source;
    expect_symbol(p, SYMBOL_LPAREN);
    if (accept_keywords(p, KEYWORD_PARTITION, KEYWORD_BY))
        parse_exprs(p, &n->partition);
    expect_keyword(p, KEYWORD_ORDER);
    expect_keyword(p, KEYWORD_BY);
    parse_order_list(p, &n->order);
    bool outside = p->matching;
    p->matching = true;
    if (accept_keyword(p, KEYWORD_MEASURES))
        parse_items(p, &n->measures);
    parse_rows_per_match(p, n);
    if (accept_keywords(p, KEYWORD_AFTER, KEYWORD_MATCH)) {
        expect_keyword(p, KEYWORD_SKIP);
        parse_skip(p, n);
    }
    expect_keyword(p, KEYWORD_PATTERN);
    expect_symbol(p, SYMBOL_LPAREN);
    n->pattern = parse_alternatives(p);
    expect_symbol(p, SYMBOL_RPAREN);
    if (accept_keyword(p, KEYWORD_WITHIN))
        n->within = parse_expr(p);
    if (accept_keyword(p, KEYWORD_SUBSET))
        parse_subsets(p, &n->subsets);
    expect_keyword(p, KEYWORD_DEFINE);
    parse_defines(p, &n->defines);
    p->matching = outside;
    expect_symbol(p, SYMBOL_RPAREN);
    parse_alias(p, &n->alias, &n->columns);
    return node_end(p, n);
}
