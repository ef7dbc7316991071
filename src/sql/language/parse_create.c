/* Statements: which one begins here, and those that need no file of their own. */
#include "sql/language/parse_int.h"

/* 'key', key or key.key */
static struct slice parse_option_key(struct parser *p)
{
    if (p->token.kind == TOKEN_STRING)
        return parse_string(p, "an option's name");
    uint32_t from = p->token.at;
    struct ast_names parts = parse_names_dotted(p, "an option's name");
    return parts.count == 1 ? parts.at[0] : slice_of(p->lexer.begin + from, p->last.at + p->last.len - from);
}

void parse_options(struct parser *p, struct ast_list *list)
{
    if (!is_keyword(p, KEYWORD_WITH) || !ahead_symbol(p, SYMBOL_LPAREN))
        return;
    advance(p);
    advance(p);
    do {
        struct ast_option *n = NODE_NEW(p, OPTION, option);
        n->key = parse_option_key(p);
        expect_symbol(p, SYMBOL_EQ);
        n->value = parse_expr(p);
        list_add(p, list, node_end(p, n));
    } while (accept_symbol(p, SYMBOL_COMMA));
    expect_symbol(p, SYMBOL_RPAREN);
}

static struct ast *parse_insert(struct parser *p)
{
    struct ast_insert *n = NODE_NEW(p, INSERT, insert);
    advance(p);
    expect_keyword(p, KEYWORD_INTO);
    n->name = parse_names_dotted(p, "a stream, table or queue");
    if (is_symbol(p, SYMBOL_LPAREN) && !ahead_keyword(p, KEYWORD_SELECT) && !ahead_keyword(p, KEYWORD_VALUES) &&
        !ahead_keyword(p, KEYWORD_WITH))
        n->columns = parse_names_listed(p, "a column's name");
    n->query = parse_query(p);
    accept_emit(p, &n->emit);
    parse_options(p, &n->options);
    return node_end(p, n);
}

static struct ast *parse_show(struct parser *p)
{
    static const struct {
        enum keyword keyword;
        enum ast_show_kind what;
    } rows[] = {{KEYWORD_STREAMS, SHOW_STREAMS},    {KEYWORD_SOURCES, SHOW_STREAMS}, {KEYWORD_TABLES, SHOW_TABLES},
                {KEYWORD_VIEWS, SHOW_VIEWS},        {KEYWORD_SINKS, SHOW_SINKS},     {KEYWORD_QUERIES, SHOW_QUERIES},
                {KEYWORD_FUNCTIONS, SHOW_FUNCTIONS}};
    struct ast_show *n = NODE_NEW(p, SHOW, show);
    bool found = false;
    advance(p);
    for (size_t i = 0; i < ARRAY_LEN(rows) && !found; i++) {
        found = accept_keyword(p, rows[i].keyword);
        if (found)
            n->what = rows[i].what;
    }
    if (!found && accept_keyword(p, KEYWORD_MATERIALIZED)) {
        expect_keyword(p, KEYWORD_VIEWS);
        n->what = SHOW_MATERIALIZED_VIEWS;
        found = true;
    }
    if (found) {
        if (accept_keyword(p, KEYWORD_LIKE))
            n->like = parse_string(p, "a pattern in quotes");
        return node_end(p, n);
    }
    if (accept_keyword(p, KEYWORD_COLUMNS)) {
        n->what = SHOW_COLUMNS;
        if (!accept_keyword(p, KEYWORD_FROM))
            expect_keyword(p, KEYWORD_IN);
    } else {
        n->what = SHOW_CREATE;
        expect_keyword(p, KEYWORD_CREATE);
    }
    n->name = parse_names_dotted(p, "a stream, table, view or sink");
    return node_end(p, n);
}

static struct ast *parse_describe(struct parser *p)
{
    struct ast_describe *n = NODE_NEW(p, DESCRIBE, describe);
    advance(p);
    if (is_keyword(p, KEYWORD_EXTENDED) && p->ahead.kind != TOKEN_END && !ahead_symbol(p, SYMBOL_SEMICOLON) &&
        !ahead_symbol(p, SYMBOL_DOT)) {
        n->extended = true;
        advance(p);
    }
    n->name = parse_names_dotted(p, "a stream, table, view or sink");
    return node_end(p, n);
}

static struct ast *parse_explain(struct parser *p)
{
    struct ast_explain *n = NODE_NEW(p, EXPLAIN, explain);
    advance(p);
    n->analyze = accept_keyword(p, KEYWORD_ANALYZE);
    if (n->analyze && accept_keyword(p, KEYWORD_QUERY)) {
        n->name = parse_names_dotted(p, "a query's name");
        return node_end(p, n);
    }
    if (!nest(p))
        return node_end(p, n);
    n->statement = parse_statement(p);
    unnest(p);
    return node_end(p, n);
}

static struct ast *parse_pause(struct parser *p)
{
    struct ast_pause *n = NODE_NEW(p, PAUSE, pause);
    n->resume = p->token.keyword == KEYWORD_RESUME;
    advance(p);
    n->name = parse_names_dotted(p, "a query's name");
    return node_end(p, n);
}

static struct ast *parse_assert(struct parser *p)
{
    struct ast_assertion *n = NODE_NEW(p, ASSERT, assertion);
    advance(p);
    n->none = accept_keyword(p, KEYWORD_NULL);
    expect_keyword(p, KEYWORD_VALUES);
    n->name = parse_names_dotted(p, "a stream, table or view");
    if (is_symbol(p, SYMBOL_LPAREN))
        n->columns = parse_names_listed(p, "a column's name");
    if (n->none && !n->columns.count && !is_keyword(p, KEYWORD_VALUES))
        return node_end(p, n);
    expect_keyword(p, KEYWORD_VALUES);
    do
        list_add(p, &n->rows, parse_values_row(p));
    while (accept_symbol(p, SYMBOL_COMMA));
    return node_end(p, n);
}

/* ADVANCE TIME BY INTERVAL '2' SECOND */
static struct ast *parse_advance(struct parser *p)
{
    struct ast_advance *n = NODE_NEW(p, ADVANCE, advance);
    advance(p);
    expect_keyword(p, KEYWORD_TIME);
    expect_keyword(p, KEYWORD_BY);
    n->interval = parse_expr(p);
    return node_end(p, n);
}

static struct ast *parse_run(struct parser *p)
{
    struct ast_run *n = NODE_NEW(p, RUN, run);
    n->query = parse_query(p);
    accept_emit(p, &n->emit);
    parse_options(p, &n->options);
    return node_end(p, n);
}

struct ast *parse_statement(struct parser *p)
{
    static const struct {
        enum keyword keyword;
        struct ast *(*parse)(struct parser *p);
    } rows[] = {
        {KEYWORD_SELECT, parse_run},    {KEYWORD_CREATE, parse_create},   {KEYWORD_INSERT, parse_insert},
        {KEYWORD_DROP, parse_drop},     {KEYWORD_SHOW, parse_show},       {KEYWORD_DESCRIBE, parse_describe},
        {KEYWORD_DESC, parse_describe}, {KEYWORD_EXPLAIN, parse_explain}, {KEYWORD_ALTER, parse_alter},
        {KEYWORD_PAUSE, parse_pause},   {KEYWORD_RESUME, parse_pause},    {KEYWORD_ASSERT, parse_assert},
        {KEYWORD_WITH, parse_run},      {KEYWORD_VALUES, parse_run},      {KEYWORD_ADVANCE, parse_advance},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (is_keyword(p, rows[i].keyword))
            return rows[i].parse(p);
    if (is_symbol(p, SYMBOL_LPAREN))
        return parse_run(p);
    fail_expected_only(p, "a statement");
    return node_new(p, AST_RUN, p->token.at);
}
