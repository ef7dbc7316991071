/* Statements as text. */
#include "sql/language/print_int.h"

#include "sql/language/lex.h"

static void put_option(struct writer *out, const struct ast_option *n)
{
    if (name_needs_quotes(n->key))
        put_string(out, n->key);
    else
        put_name(out, n->key);
    put(out, " = ");
    put_expr(out, n->value, POWER_LOWEST);
}

static void put_options(struct writer *out, const struct ast_list *options)
{
    if (!options->count)
        return;
    put(out, " WITH (");
    put_list(out, options);
    put(out, ")");
}

static void put_columns(struct writer *out, const struct ast_names *columns)
{
    if (!columns->count)
        return;
    put(out, " (");
    put_names(out, columns, ", ");
    put(out, ")");
}

static void put_emitting(struct writer *out, const struct ast *emit)
{
    if (!emit)
        return;
    put(out, " ");
    put_emit(out, emit);
}

static void put_as(struct writer *out, const struct ast *query)
{
    if (!query)
        return;
    put(out, " AS ");
    put_query(out, query);
}

void put_emit(struct writer *out, const struct ast *node)
{
    static const char *const texts[] = {
        [EMIT_CHANGES] = "EMIT CHANGES", [EMIT_CLOSE] = "EMIT ON WINDOW CLOSE", [EMIT_EVERY] = "EMIT EVERY "};
    const struct ast_emit *n = AST_AS(emit, node);
    put(out, texts[n->kind]);
    if (n->interval) {
        put(out, n->kind == EMIT_CLOSE ? " WITH DELAY " : "");
        put_expr(out, n->interval, POWER_LOWEST);
    }
}

static void put_create(struct writer *out, bool replace, const char *what, bool if_absent, const struct ast_names *name)
{
    put(out, replace ? "CREATE OR REPLACE " : "CREATE ");
    put(out, what);
    put(out, if_absent ? " IF NOT EXISTS " : " ");
    put_names(out, name, ".");
}

static void put_create_stream(struct writer *out, const struct ast_create_stream *n)
{
    put_create(out, n->replace, n->table ? "TABLE" : "STREAM", n->if_absent, &n->name);
    if (n->elements.count) {
        put(out, " (");
        put_list(out, &n->elements);
        put(out, ")");
    }
    put(out, n->infer ? " INFER" : "");
    if (n->exchange.ptr) {
        put(out, " FROM EXCHANGE ");
        put_string(out, n->exchange);
        for (size_t i = 0; i < n->keys.count; i++) {
            put(out, i ? ", " : " KEY ");
            put_string(out, n->keys.at[i]);
        }
    }
    if (n->queue.ptr) {
        put(out, " FROM QUEUE ");
        put_string(out, n->queue);
    }
    put_options(out, &n->options);
    put_as(out, n->query);
    put_emitting(out, n->emit);
}

static void put_column(struct writer *out, const struct ast_column *n)
{
    put_name(out, n->name);
    if (n->type) {
        put(out, " ");
        sql_print(n->type, out);
    }
    if (n->computed) {
        put(out, " AS (");
        put_expr(out, n->computed, POWER_LOWEST);
        put(out, ")");
    }
    if (n->otherwise) {
        put(out, " DEFAULT ");
        put_expr(out, n->otherwise, POWER_BETWEEN + 1);
    }
    put(out, n->not_null ? " NOT NULL" : "");
    put(out, n->primary ? " PRIMARY KEY" : "");
    put(out, n->key ? " KEY" : "");
    put(out, n->header ? " HEADER" : "");
    if (n->header_name.ptr) {
        put(out, "(");
        put_string(out, n->header_name);
        put(out, ")");
    }
    put(out, n->metadata ? " METADATA" : "");
    if (n->metadata_from.ptr) {
        put(out, " FROM ");
        put_string(out, n->metadata_from);
    }
}

static void put_watermark(struct writer *out, const struct ast_watermark *n)
{
    put(out, "WATERMARK FOR ");
    put_name(out, n->column);
    if (n->expr) {
        put(out, " AS ");
        put_expr(out, n->expr, POWER_LOWEST);
    }
    if (n->idle) {
        put(out, " IDLE AFTER ");
        put_expr(out, n->idle, POWER_LOWEST);
    }
}

static void put_create_view(struct writer *out, const struct ast_create_view *n)
{
    put_create(out, n->replace, n->materialized ? "MATERIALIZED VIEW" : "VIEW", n->if_absent, &n->name);
    put_columns(out, &n->columns);
    put_options(out, &n->options);
    put_as(out, n->query);
    put_emitting(out, n->emit);
}

static void put_create_sink(struct writer *out, const struct ast_create_sink *n)
{
    put_create(out, n->replace, "SINK", n->if_absent, &n->name);
    put_options(out, &n->options);
    if (n->from.count) {
        put(out, " FROM ");
        put_names(out, &n->from, ".");
    }
    put_as(out, n->query);
    put_emitting(out, n->emit);
}

static void put_insert(struct writer *out, const struct ast_insert *n)
{
    put(out, "INSERT INTO ");
    put_names(out, &n->name, ".");
    put_columns(out, &n->columns);
    put(out, " ");
    put_query(out, n->query);
    put_emitting(out, n->emit);
    put_options(out, &n->options);
}

static void put_alter_view(struct writer *out, const struct ast_alter_view *n)
{
    put(out, "ALTER MATERIALIZED VIEW ");
    put_names(out, &n->name, ".");
    put_as(out, n->query);
    put_emitting(out, n->emit);
    put_options(out, &n->options);
}

static void put_drop(struct writer *out, const struct ast_drop *n)
{
    static const char *const texts[OBJECTS] = {"STREAM", "TABLE", "VIEW", "MATERIALIZED VIEW", "SINK", "QUERY"};
    put(out, "DROP ");
    put(out, texts[n->what]);
    put(out, n->if_exists ? " IF EXISTS " : " ");
    put_names(out, &n->name, ".");
    put(out, n->cascade ? " CASCADE" : "");
}

static void put_show(struct writer *out, const struct ast_show *n)
{
    static const char *const texts[SHOW_KINDS] = {"STREAMS", "TABLES",    "VIEWS",   "MATERIALIZED VIEWS", "SINKS",
                                                  "QUERIES", "FUNCTIONS", "CREATE ", "COLUMNS FROM "};
    put(out, "SHOW ");
    put(out, texts[n->what]);
    put_names(out, &n->name, ".");
    if (n->like.ptr) {
        put(out, " LIKE ");
        put_string(out, n->like);
    }
}

static void put_assert(struct writer *out, const struct ast_assertion *n)
{
    put(out, n->none ? "ASSERT NULL VALUES " : "ASSERT VALUES ");
    put_names(out, &n->name, ".");
    put_columns(out, &n->columns);
    for (size_t i = 0; i < n->rows.count; i++) {
        put(out, i ? ", " : " VALUES ");
        put_row(out, n->rows.at[i]);
    }
}

static void put_primary_key(struct writer *out, const struct ast_primary_key *n)
{
    put(out, "PRIMARY KEY (");
    put_names(out, &n->columns, ", ");
    put(out, n->not_enforced ? ") NOT ENFORCED" : ")");
}

bool print_statement(struct writer *out, const struct ast *node)
{
    switch (node->kind) {
    case AST_CREATE_STREAM: put_create_stream(out, AST_AS(create_stream, node)); break;
    case AST_COLUMN: put_column(out, AST_AS(column, node)); break;
    case AST_PRIMARY_KEY: put_primary_key(out, AST_AS(primary_key, node)); break;
    case AST_WATERMARK: put_watermark(out, AST_AS(watermark, node)); break;
    case AST_OPTION: put_option(out, AST_AS(option, node)); break;
    case AST_CREATE_VIEW: put_create_view(out, AST_AS(create_view, node)); break;
    case AST_CREATE_SINK: put_create_sink(out, AST_AS(create_sink, node)); break;
    case AST_INSERT: put_insert(out, AST_AS(insert, node)); break;
    case AST_ALTER_ADD:
        put(out, AST_AS(alter_add, node)->table ? "ALTER TABLE " : "ALTER STREAM ");
        put_names(out, &AST_AS(alter_add, node)->name, ".");
        put(out, " ADD COLUMN ");
        sql_print(AST_AS(alter_add, node)->column, out);
        break;
    case AST_ALTER_VIEW: put_alter_view(out, AST_AS(alter_view, node)); break;
    case AST_DROP: put_drop(out, AST_AS(drop, node)); break;
    case AST_SHOW: put_show(out, AST_AS(show, node)); break;
    case AST_DESCRIBE:
        put(out, AST_AS(describe, node)->extended ? "DESCRIBE EXTENDED " : "DESCRIBE ");
        put_names(out, &AST_AS(describe, node)->name, ".");
        break;
    case AST_EXPLAIN:
        put(out, AST_AS(explain, node)->analyze ? "EXPLAIN ANALYZE " : "EXPLAIN ");
        if (AST_AS(explain, node)->name.count) {
            put(out, "QUERY ");
            put_names(out, &AST_AS(explain, node)->name, ".");
        } else {
            sql_print(AST_AS(explain, node)->statement, out);
        }
        break;
    case AST_RUN:
        put_query(out, AST_AS(run, node)->query);
        put_emitting(out, AST_AS(run, node)->emit);
        put_options(out, &AST_AS(run, node)->options);
        break;
    case AST_PAUSE:
        put(out, AST_AS(pause, node)->resume ? "RESUME " : "PAUSE ");
        put_names(out, &AST_AS(pause, node)->name, ".");
        break;
    case AST_ASSERT: put_assert(out, AST_AS(assertion, node)); break;
    case AST_ADVANCE:
        put(out, "ADVANCE TIME BY ");
        sql_print(AST_AS(advance, node)->interval, out);
        break;
    case AST_EMIT: put_emit(out, node); break;
    default: return false;
    }
    return true;
}
