/* Names of streams and views, see catalog.h. */
#include "sql/language/catalog.h"

struct slice catalog_name(const struct ast *relation)
{
    const struct ast_names *names = relation->kind == AST_CREATE_VIEW ? &AST_AS(create_view, relation)->name
                                                                      : &AST_AS(create_stream, relation)->name;
    return names->at[names->count - 1];
}

const struct ast *catalog_find(const struct catalog *catalog, struct slice name, struct nearest *nearest)
{
    const struct ast *found = NULL;
    for (uint32_t i = 0; i < catalog->count; i++) {
        struct slice own = catalog_name(catalog->relations[i]);
        if (slice_equal(own, name))
            return catalog->relations[i];
        if (name_equal(own, name))
            found = catalog->relations[i];
        nearest_try(nearest, own);
    }
    return found;
}

static bool refuse(const struct ast *place, struct sql_error *error, const char *what)
{
    sql_error_set(error, SQL_FAULT_UNBOUNDED, place->at, place->len, "%s cannot be run yet", what);
    return false;
}

static bool check_column(const struct ast_column *c, struct sql_error *error)
{
    if (c->header || c->metadata)
        return refuse(&c->ast, error, "a column of HEADER or METADATA");
    return !c->otherwise || refuse(&c->ast, error, "a DEFAULT");
}

static bool has_primary_key(const struct ast_create_stream *s)
{
    for (size_t i = 0; i < s->elements.count; i++) {
        const struct ast *e = s->elements.at[i];
        if (e->kind == AST_PRIMARY_KEY || (e->kind == AST_COLUMN && AST_AS(column, e)->primary))
            return true;
    }
    return false;
}

static const struct ast_column *column_of(const struct ast_create_stream *s, struct slice name, struct nearest *nearest)
{
    for (size_t i = 0; i < s->elements.count; i++) {
        const struct ast_column *c = AST_AS(column, s->elements.at[i]);
        if (c->ast.kind != AST_COLUMN)
            continue;
        if (name_equal(c->name, name))
            return c;
        nearest_try(nearest, c->name);
    }
    return NULL;
}

/* PRIMARY KEY and WATERMARK are of columns that there are. */
static bool check_names(const struct ast_create_stream *s, const struct ast *element, struct sql_error *error)
{
    const struct ast_names *key = &AST_AS(primary_key, element)->columns,
                           one = {.at = (struct slice *)&AST_AS(watermark, element)->column, .count = 1};
    if (element->kind != AST_PRIMARY_KEY && element->kind != AST_WATERMARK)
        return true;
    const struct ast_names *names = element->kind == AST_PRIMARY_KEY ? key : &one;
    for (size_t i = 0; i < names->count; i++) {
        struct nearest nearest = nearest_of(names->at[i]);
        if (column_of(s, names->at[i], &nearest))
            continue;
        sql_error_set(error, SQL_FAULT_NO_NAME, element->at, element->len, "there is no column %.*s",
                      SLICE_ARG(names->at[i]));
        if (nearest_found(&nearest))
            sql_error_hint(error, "did you mean %.*s?", SLICE_ARG(nearest.best));
        return false;
    }
    return true;
}

static bool check_stream(const struct ast_create_stream *s, struct sql_error *error)
{
    if (s->table && !has_primary_key(s))
        return refuse(&s->ast, error, "CREATE TABLE without a PRIMARY KEY");
    if (s->exchange.ptr || s->queue.ptr || s->infer || s->query)
        return refuse(&s->ast, error,
                      s->infer          ? "INFER"
                      : s->query        ? "a stream AS a query"
                      : s->exchange.ptr ? "FROM EXCHANGE"
                                        : "FROM QUEUE");
    for (size_t i = 0; i < s->elements.count; i++) {
        if (s->elements.at[i]->kind == AST_COLUMN && !check_column(AST_AS(column, s->elements.at[i]), error))
            return false;
        if (!check_names(s, s->elements.at[i], error))
            return false;
    }
    return true;
}

bool catalog_add(struct catalog *catalog, const struct ast *statement, struct sql_error *error)
{
    struct nearest nearest = nearest_of((struct slice){0});
    if (statement->kind != AST_CREATE_STREAM && statement->kind != AST_CREATE_VIEW)
        return refuse(statement, error, ast_kind_text(statement->kind));
    if (statement->kind == AST_CREATE_STREAM && !check_stream(AST_AS(create_stream, statement), error))
        return false;
    if (statement->kind == AST_CREATE_VIEW && AST_AS(create_view, statement)->materialized)
        return refuse(statement, error, "a MATERIALIZED VIEW as a source");
    if (catalog_find(catalog, catalog_name(statement), &nearest)) {
        sql_error_set(error, SQL_FAULT_AMBIGUOUS, statement->at, statement->len, "there is a %.*s already",
                      SLICE_ARG(catalog_name(statement)));
        return false;
    }
    if (catalog->count == CATALOG_MAX) {
        sql_error_set(error, SQL_FAULT_LIMIT, statement->at, statement->len, "more than %u streams and views",
                      CATALOG_MAX);
        return false;
    }
    catalog->relations[catalog->count++] = statement;
    return true;
}
