/* CREATE, ALTER and DROP: streams, tables, views, sinks. */
#include "sql/language/parse_int.h"

/* What behind a column's type, or in place of it, is said about where its values come from. */
static bool accept_column_option(struct parser *p, struct ast_column *n)
{
    if (accept_keywords(p, KEYWORD_NOT, KEYWORD_NULL)) {
        n->not_null = true;
    } else if (accept_keywords(p, KEYWORD_PRIMARY, KEYWORD_KEY)) {
        n->primary = true;
    } else if (accept_keyword(p, KEYWORD_KEY)) {
        n->key = true;
    } else if (accept_keyword(p, KEYWORD_DEFAULT)) {
        n->otherwise = parse_expr_above(p, POWER_BETWEEN + 1); /* NOT NULL may come behind it */
    } else if (accept_keyword(p, KEYWORD_HEADER)) {
        n->header = true;
        if (accept_symbol(p, SYMBOL_LPAREN)) {
            n->header_name = parse_string(p, "a header's name in quotes");
            expect_symbol(p, SYMBOL_RPAREN);
        }
    } else if (accept_keyword(p, KEYWORD_METADATA)) {
        n->metadata = true;
        if (accept_keyword(p, KEYWORD_FROM))
            n->metadata_from = parse_string(p, "the name of the metadata in quotes");
    } else {
        return false;
    }
    return true;
}

static bool accept_computed(struct parser *p, struct ast_column *n)
{
    if (accept_keyword(p, KEYWORD_GENERATED)) {
        expect_keyword(p, KEYWORD_ALWAYS);
        expect_keyword(p, KEYWORD_AS);
    } else if (!accept_keyword(p, KEYWORD_AS)) {
        return false;
    }
    expect_symbol(p, SYMBOL_LPAREN);
    n->computed = parse_expr(p);
    expect_symbol(p, SYMBOL_RPAREN);
    return true;
}

static struct ast *parse_column(struct parser *p)
{
    struct ast_column *n = NODE_NEW(p, COLUMN, column);
    n->name = parse_name(p, "a column's name");
    if (!accept_computed(p, n)) {
        n->type = parse_type(p);
        (void)accept_computed(p, n);
    }
    while (accept_column_option(p, n))
        ;
    return node_end(p, n);
}

static struct ast *parse_primary_key(struct parser *p)
{
    struct ast_primary_key *n = NODE_NEW(p, PRIMARY_KEY, primary_key);
    advance(p);
    advance(p);
    n->columns = parse_names_listed(p, "a column's name");
    n->not_enforced = accept_keywords(p, KEYWORD_NOT, KEYWORD_ENFORCED);
    return node_end(p, n);
}

static struct ast *parse_watermark(struct parser *p)
{
    struct ast_watermark *n = NODE_NEW(p, WATERMARK, watermark);
    advance(p);
    expect_keyword(p, KEYWORD_FOR);
    n->column = parse_name(p, "the column with the time");
    if (accept_keyword(p, KEYWORD_AS))
        n->expr = parse_expr(p);
    if (accept_keywords(p, KEYWORD_IDLE, KEYWORD_AFTER))
        n->idle = parse_expr(p);
    return node_end(p, n);
}

static void parse_elements(struct parser *p, struct ast_list *list)
{
    if (!accept_symbol(p, SYMBOL_LPAREN))
        return;
    do {
        if (is_keyword(p, KEYWORD_PRIMARY) && ahead_keyword(p, KEYWORD_KEY))
            list_add(p, list, parse_primary_key(p));
        else if (is_keyword(p, KEYWORD_WATERMARK) && ahead_keyword(p, KEYWORD_FOR))
            list_add(p, list, parse_watermark(p));
        else
            list_add(p, list, parse_column(p));
    } while (accept_symbol(p, SYMBOL_COMMA));
    expect_symbol(p, SYMBOL_RPAREN);
}

/* FROM EXCHANGE 'amq.topic' KEY 'a.#', 'b.#'; FROM QUEUE 'jobs' */
static void parse_origin(struct parser *p, struct ast_create_stream *n)
{
    if (!accept_keyword(p, KEYWORD_FROM))
        return;
    if (accept_keyword(p, KEYWORD_QUEUE)) {
        n->queue = parse_string(p, "a queue's name in quotes");
        return;
    }
    expect_keyword(p, KEYWORD_EXCHANGE);
    n->exchange = parse_string(p, "an exchange's name in quotes");
    if (accept_keyword(p, KEYWORD_KEY))
        do
            names_add(p, &n->keys, parse_string(p, "a binding key in quotes"));
        while (accept_symbol(p, SYMBOL_COMMA));
}

static bool accept_if_absent(struct parser *p)
{
    if (!accept_keyword(p, KEYWORD_IF))
        return false;
    expect_keyword(p, KEYWORD_NOT);
    expect_keyword(p, KEYWORD_EXISTS);
    return true;
}

static struct ast *create_stream(struct parser *p, uint32_t at, bool replace)
{
    struct ast_create_stream *n = node_new(p, AST_CREATE_STREAM, at);
    n->table = p->token.keyword == KEYWORD_TABLE;
    n->replace = replace;
    advance(p);
    n->if_absent = accept_if_absent(p);
    n->name = parse_names_dotted(p, n->table ? "the table's name" : "the stream's name");
    parse_elements(p, &n->elements);
    n->infer = accept_keyword(p, KEYWORD_INFER);
    parse_origin(p, n);
    parse_options(p, &n->options);
    if (accept_keyword(p, KEYWORD_AS)) {
        n->query = parse_query(p);
        accept_emit(p, &n->emit);
        parse_options(p, &n->options); /* of the query; all of them are one list */
    }
    return node_end(p, n);
}

static struct ast *create_view(struct parser *p, uint32_t at, bool replace)
{
    struct ast_create_view *n = node_new(p, AST_CREATE_VIEW, at);
    n->materialized = accept_keyword(p, KEYWORD_MATERIALIZED);
    n->replace = replace;
    expect_keyword(p, KEYWORD_VIEW);
    n->if_absent = accept_if_absent(p);
    n->name = parse_names_dotted(p, "the view's name");
    if (is_symbol(p, SYMBOL_LPAREN))
        n->columns = parse_names_listed(p, "a column's name");
    parse_options(p, &n->options);
    expect_keyword(p, KEYWORD_AS);
    n->query = parse_query(p);
    if (n->materialized)
        accept_emit(p, &n->emit);
    return node_end(p, n);
}

static struct ast *create_sink(struct parser *p, uint32_t at, bool replace)
{
    struct ast_create_sink *n = node_new(p, AST_CREATE_SINK, at);
    n->replace = replace;
    advance(p);
    n->if_absent = accept_if_absent(p);
    n->name = parse_names_dotted(p, "the sink's name");
    parse_options(p, &n->options);
    if (accept_keyword(p, KEYWORD_FROM)) {
        n->from = parse_names_dotted(p, "a stream, table or view");
    } else {
        expect_keyword(p, KEYWORD_AS);
        n->query = parse_query(p);
    }
    accept_emit(p, &n->emit);
    parse_options(p, &n->options);
    return node_end(p, n);
}

struct ast *parse_create(struct parser *p)
{
    uint32_t at = p->token.at;
    advance(p);
    bool replace = accept_keywords(p, KEYWORD_OR, KEYWORD_REPLACE);
    if (is_keyword(p, KEYWORD_STREAM) || is_keyword(p, KEYWORD_SOURCE) || is_keyword(p, KEYWORD_TABLE))
        return create_stream(p, at, replace);
    if (is_keyword(p, KEYWORD_MATERIALIZED) || is_keyword(p, KEYWORD_VIEW))
        return create_view(p, at, replace);
    if (is_keyword(p, KEYWORD_SINK))
        return create_sink(p, at, replace);
    fail_expected(p, NULL);
    return node_new(p, AST_CREATE_STREAM, at);
}

static struct ast *alter_view(struct parser *p, uint32_t at)
{
    struct ast_alter_view *n = node_new(p, AST_ALTER_VIEW, at);
    expect_keyword(p, KEYWORD_VIEW);
    n->name = parse_names_dotted(p, "the view's name");
    expect_keyword(p, KEYWORD_AS);
    n->query = parse_query(p);
    accept_emit(p, &n->emit);
    parse_options(p, &n->options);
    return node_end(p, n);
}

struct ast *parse_alter(struct parser *p)
{
    uint32_t at = p->token.at;
    advance(p);
    if (accept_keyword(p, KEYWORD_MATERIALIZED))
        return alter_view(p, at);
    struct ast_alter_add *n = node_new(p, AST_ALTER_ADD, at);
    n->table = accept_keyword(p, KEYWORD_TABLE);
    if (!n->table && !accept_keyword(p, KEYWORD_SOURCE))
        expect_keyword(p, KEYWORD_STREAM);
    n->name = parse_names_dotted(p, n->table ? "the table's name" : "the stream's name");
    expect_keyword(p, KEYWORD_ADD);
    if (is_keyword(p, KEYWORD_COLUMN) && (p->ahead.kind == TOKEN_NAME || p->ahead.kind == TOKEN_QUOTED))
        advance(p);
    n->column = parse_column(p);
    return node_end(p, n);
}

struct ast *parse_drop(struct parser *p)
{
    static const struct {
        enum keyword keyword;
        enum ast_object what;
    } rows[] = {{KEYWORD_STREAM, OBJECT_STREAM}, {KEYWORD_SOURCE, OBJECT_STREAM}, {KEYWORD_TABLE, OBJECT_TABLE},
                {KEYWORD_VIEW, OBJECT_VIEW},     {KEYWORD_SINK, OBJECT_SINK},     {KEYWORD_QUERY, OBJECT_QUERY}};
    struct ast_drop *n = NODE_NEW(p, DROP, drop);
    bool found = false;
    advance(p);
    for (size_t i = 0; i < ARRAY_LEN(rows) && !found; i++) {
        found = accept_keyword(p, rows[i].keyword);
        if (found)
            n->what = rows[i].what;
    }
    if (!found) {
        expect_keyword(p, KEYWORD_MATERIALIZED);
        expect_keyword(p, KEYWORD_VIEW);
        n->what = OBJECT_MATERIALIZED_VIEW;
    }
    n->if_exists = accept_keywords(p, KEYWORD_IF, KEYWORD_EXISTS);
    n->name = parse_names_dotted(p, "the name of what is dropped");
    n->cascade = accept_keyword(p, KEYWORD_CASCADE);
    return node_end(p, n);
}
