/* What a query's rows are for who reads them, see server_int.h: a stream of its columns, or a table, when something tells them apart. */
#include "sql/server/server_int.h"

#include "sql/language/parse.h"

static void no_memory(struct sql_error *error)
{
    sql_error_set(error, SQL_FAULT_MEMORY, 0, 0, "no memory for the statement");
}

struct ast *server_relation_of(struct server_object *o, const struct plan *plan, const struct slice *names,
                               const struct slice *keys, uint32_t key_count, struct sql_error *error)
{
    struct lines text;
    struct ast_list list;
    struct ast *relation = NULL;
    lines_init(&text, SQL_TEXT_MAX);
    lines_text(&text, key_count ? "CREATE TABLE " : "CREATE STREAM ");
    lines_name(&text, slice_str(o->name));
    for (uint32_t i = 0; i < plan->column_count; i++) {
        char type[200];
        struct writer w = writer_of(type, sizeof type);
        type_print(&plan->columns[i].type, &w);
        lines_text(&text, i ? ", " : " (");
        lines_name(&text, names ? names[i] : plan->columns[i].name);
        lines_text(&text, " ");
        lines_put(&text, type, w.len);
        if (!writer_ok(&w))
            text.failed = true;
    }
    for (uint32_t i = 0; i < key_count; i++) {
        lines_text(&text, i ? ", " : ", PRIMARY KEY (");
        lines_name(&text, keys[i]);
    }
    lines_text(&text, key_count ? "))" : ")");
    if (text.failed)
        no_memory(error);
    else if (sql_parse(slice_of(text.bytes, text.len), &o->arena, &list, error))
        relation = list.at[0];
    lines_fini(&text);
    return relation;
}

/* What tells the rows of a materialized view apart: what it says; what its query does. No keys: rows that stay are kept as they come. */
static bool view_keys(const struct server_object *o, const struct plan *plan, const struct slice *names,
                      struct output_target *ret, struct sql_error *error)
{
    if (!output_target_of(o->statement, ret, error))
        return false;
    if (ret->key_count || (!plan->keyed && !plan->retracts))
        return true;
    if (!plan->keyed) {
        sql_error_set(error, SQL_FAULT_UNBOUNDED, o->statement->at, o->statement->len,
                      "a MATERIALIZED VIEW of rows that change, and nothing tells them apart");
        sql_error_hint(error, "select the keys of GROUP BY and window_end, or say WITH (key = 'a, b')");
        return false;
    }
    uint32_t count =
        plan->key_count ? plan->key_count : plan->column_count; /* of one row at most all columns are a key */
    if (count > OUTPUT_KEYS_MAX) {
        sql_error_set(error, SQL_FAULT_LIMIT, 0, 0, "a key of more than %u columns", OUTPUT_KEYS_MAX);
        return false;
    }
    for (uint32_t i = 0; i < count; i++)
        ret->keys[ret->key_count++] = names[plan->key_count ? plan->keys[i] : i];
    return true;
}

/* A stream of rows by key, and a table over it. */
bool server_view_bind(struct server_object *o, const struct plan *plan, struct sql_error *error)
{
    const struct ast_create_view *view = AST_AS(create_view, o->statement);
    struct output_target target = {0};
    struct catalog catalog = catalog_init();
    struct slice *names = arena_take(&o->arena, (plan->column_count + 1) * sizeof *names);
    if (view->columns.count && view->columns.count != plan->column_count) {
        sql_error_set(error, SQL_FAULT_VALUE, view->ast.at, view->ast.len, "the view has %u names for %u columns",
                      (unsigned)view->columns.count, plan->column_count);
        return false;
    }
    for (uint32_t i = 0; names && i < plan->column_count; i++)
        names[i] = view->columns.count ? view->columns.at[i] : plan->columns[i].name;
    if (!names)
        no_memory(error);
    struct ast *relation = names && view_keys(o, plan, names, &target, error)
                               ? server_relation_of(o, plan, names, target.keys, target.key_count, error)
                               : NULL;
    if (!relation || !catalog_add(&catalog, relation, error))
        return false;
    struct query *q = server_plan_in(o->server, &catalog, slice_str(o->name), &o->arena, NULL, error);
    o->relation = q ? relation : NULL;
    query_free(&q);
    return o->relation;
}
