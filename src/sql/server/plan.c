/* From statements to queries, see server_int.h: what a query may read, where its rows go, and whether they fit there. */
#include "sql/server/server_int.h"

#include "base/mem.h"
#include "sql/language/parse.h"

#include <stdio.h>

void server_put_type(struct lines *l, const struct sql_type *type)
{
    char text[400];
    struct writer w = writer_of(text, sizeof text);
    type_print(type, &w);
    for (size_t i = 0; i < w.len && !type->count; i++) /* fields of a row have their own case */
        text[i] = (char)(text[i] >= 'a' && text[i] <= 'z' ? text[i] - 'a' + 'A' : text[i]);
    lines_string(l, slice_of(text, w.len));
}

static void no_memory(struct sql_error *error)
{
    sql_error_set(error, SQL_FAULT_MEMORY, 0, 0, "no memory for the statement");
}

static bool nothing(struct op *op, struct step *step, const struct batch *batch)
{
    (void)op, (void)step, (void)batch;
    return true;
}

static struct query *plan_in(struct sql_server *server, const struct catalog *catalog, const struct ast_run *what,
                             size_t state_max, struct arena *arena, struct op *sink, struct sql_error *error)
{
    static const struct op_kind kind = {.name = "nowhere", .push = nothing};
    struct ast_run *run = arena_take(arena, sizeof *run);
    if (!run) {
        no_memory(error);
        return NULL;
    }
    *run = *what;
    run->ast = *what->query;
    run->ast.kind = AST_RUN;
    server->nowhere.kind = &kind;
    return query_new(catalog, &run->ast, state_max ? state_max : server->options.state_memory,
                     sink ? sink : &server->nowhere, error);
}

struct query *server_plan(struct sql_server *server, const char *vhost, const struct server_object *but,
                          const struct ast_run *run, size_t state_max, struct arena *arena, struct op *sink,
                          struct sql_error *error)
{
    struct catalog catalog;
    server_catalog(server, vhost, but, &catalog);
    return plan_in(server, &catalog, run, state_max, arena, sink, error);
}

static struct slice last_of(struct ast_names names)
{
    return names.at[names.count - 1];
}

/* SELECT * FROM name. NULL: the error is set. */
static struct ast *select_all(struct slice name, struct arena *arena, struct sql_error *error)
{
    struct lines text;
    struct ast_list list;
    struct ast *query = NULL;
    lines_init(&text, 4096);
    lines_text(&text, "SELECT * FROM ");
    lines_name(&text, name);
    if (text.failed)
        no_memory(error);
    else if (sql_parse(slice_of(text.bytes, text.len), arena, &list, error))
        query = AST_AS(run, list.at[0])->query;
    lines_fini(&text);
    return query;
}

struct query *server_plan_in(struct sql_server *server, const struct catalog *catalog, struct slice name,
                             struct arena *arena, struct op *sink, struct sql_error *error)
{
    struct ast *query = select_all(name, arena, error);
    struct ast_run run = {.query = query};
    return query ? plan_in(server, catalog, &run, 0, arena, sink, error) : NULL;
}

struct query *server_plan_all(struct sql_server *server, const char *vhost, struct slice name, struct arena *arena,
                              struct sql_error *error)
{
    struct catalog catalog;
    server_catalog(server, vhost, NULL, &catalog);
    return server_plan_in(server, &catalog, name, arena, NULL, error);
}

bool server_statement_run(const struct ast *s, struct arena *arena, struct ast_run *ret, struct sql_error *error)
{
    static const struct ast_list none = {0};
    const struct ast_list *options = &none;
    *ret = (struct ast_run){0};
    switch (s->kind) {
    case AST_RUN: *ret = *AST_AS(run, s); return true;
    case AST_CREATE_STREAM:
        ret->query = AST_AS(create_stream, s)->query;
        ret->emit = AST_AS(create_stream, s)->emit;
        options = &AST_AS(create_stream, s)->options;
        break;
    case AST_CREATE_VIEW:
        ret->query = AST_AS(create_view, s)->query;
        ret->emit = AST_AS(create_view, s)->emit;
        options = &AST_AS(create_view, s)->options;
        break;
    case AST_CREATE_SINK:
        ret->query = AST_AS(create_sink, s)->query;
        ret->emit = AST_AS(create_sink, s)->emit;
        options = &AST_AS(create_sink, s)->options;
        if (!ret->query && !(ret->query = select_all(last_of(AST_AS(create_sink, s)->from), arena, error)))
            return false;
        break;
    case AST_INSERT:
        ret->query = AST_AS(insert, s)->query;
        ret->emit = AST_AS(insert, s)->emit;
        options = &AST_AS(insert, s)->options;
        break;
    default: break;
    }
    if (!ret->query)
        sql_error_set(error, SQL_FAULT_UNBOUNDED, s->at, s->len, "%s is no query", ast_kind_text(s->kind));
    else if (!sql_with_planned(options, arena, &ret->options))
        no_memory(error);
    return ret->query && ret->options.at;
}

struct query *server_object_plan(struct server_object *o, struct op *sink, struct sql_error *error)
{
    struct ast_run run;
    return server_statement_run(o->statement, &o->arena, &run, error)
               ? server_plan(o->server, o->vhost, o, &run, (size_t)o->with.state_memory, &o->arena, sink, error)
               : NULL;
}

/* ---- INSERT INTO ---- */

const struct ast_column *server_column_of(const struct ast_create_stream *stream, struct slice name)
{
    const struct ast_column *found = NULL;
    for (size_t i = 0; i < stream->elements.count; i++) {
        const struct ast_column *c = AST_AS(column, stream->elements.at[i]);
        if (c->ast.kind == AST_COLUMN && !c->computed && name_equal(c->name, name))
            found = !found || slice_equal(c->name, name) ? c : found;
    }
    return found;
}

bool server_insert_columns(const struct server_object *target, const struct ast_insert *insert, struct arena *arena,
                           struct slice **ret_names, uint32_t *ret_count, struct sql_error *error)
{
    const struct ast_create_stream *stream = AST_AS(create_stream, target->relation);
    size_t most = insert->columns.count ? insert->columns.count : stream->elements.count;
    struct slice *names = arena_take(arena, (most + 1) * sizeof *names);
    uint32_t count = 0;
    if (!names) {
        no_memory(error);
        return false;
    }
    for (size_t i = 0; i < most; i++) {
        const struct ast_column *c = AST_AS(column, insert->columns.count ? NULL : stream->elements.at[i]);
        if (insert->columns.count)
            c = server_column_of(stream, insert->columns.at[i]);
        else if (c->ast.kind != AST_COLUMN || c->computed)
            continue;
        if (!c) {
            sql_error_set(error, SQL_FAULT_NO_NAME, insert->ast.at, insert->ast.len,
                          "%s has no column %.*s that could be written", target->name,
                          SLICE_ARG(insert->columns.at[i]));
            return false;
        }
        names[count++] = c->name;
    }
    *ret_names = names;
    *ret_count = count;
    return true;
}

bool server_insert_format(const struct server_object *target, const struct ast_insert *insert,
                          struct output_target *ret, struct sql_error *error)
{
    ret->bare = target->with.format == FORMAT_RAW && !target->with.queue.len; /* messages say that they are JSON */
    if (ret->bare || target->with.format == FORMAT_JSON)
        return true;
    sql_error_set(error, SQL_FAULT_UNBOUNDED, insert->ast.at, insert->ast.len,
                  "INSERT writes streams of the formats json and raw, and %s has another one", target->name);
    return false;
}

bool server_insert_fits(const struct server_object *target, const struct slice *names, uint32_t count,
                        const struct plan *plan, struct arena *arena, struct sql_error *error)
{
    const struct ast_create_stream *stream = AST_AS(create_stream, target->relation);
    for (uint32_t i = 0; i < count; i++) {
        const struct ast_column *c = server_column_of(stream, names[i]);
        struct sql_type type;
        char from[100], to[100];
        struct writer w = writer_of(from, sizeof from - 1), v = writer_of(to, sizeof to - 1);
        if (!c->type || !type_of_ast(c->type, arena, &type, error))
            return !c->type;
        if (type_distance(plan->columns[i].type.kind, type.kind) >= 0)
            continue;
        type_print(&plan->columns[i].type, &w);
        type_print(&type, &v);
        sql_error_set(error, SQL_FAULT_TYPE, 0, 0, "column %.*s is %.*s, and its value would be %.*s",
                      SLICE_ARG(names[i]), (int)v.len, to, (int)w.len, from);
        sql_error_hint(error, "a CAST says how it is to be turned");
        return false;
    }
    return true;
}

/* ---- targets ---- */

/* All columns of a materialized view, by the names that it has for them. */
static bool all_columns(struct server_object *o, struct output_target *ret, struct sql_error *error)
{
    static const struct ast_insert all = {0};
    struct slice *names;
    if (!server_insert_columns(o, &all, &o->arena, &names, &ret->name_count, error))
        return false;
    ret->names = names;
    return true;
}

bool server_object_target(struct server_object *o, struct slice *ret_topic, struct output_target *ret,
                          struct sql_error *error)
{
    struct server_object *declared = o;
    *ret_topic = o->with.topic.len ? o->with.topic : slice_str(o->name);
    if (o->kind == KIND_INSERT) {
        const struct ast_insert *insert = AST_AS(insert, o->statement);
        struct slice *names;
        declared = server_object_find(o->server, o->vhost, insert->name.at[insert->name.count - 1]);
        if (!declared || !declared->relation) {
            sql_error_set(error, SQL_FAULT_NO_NAME, insert->ast.at, insert->ast.len, "its target is gone");
            return false;
        }
        if (!server_insert_columns(declared, insert, &o->arena, &names, &ret->name_count, error) ||
            !server_insert_format(declared, insert, ret, error))
            return false;
        ret->names = names;
        *ret_topic = declared->with.topic.len ? declared->with.topic : slice_str(declared->name);
    }
    if (o->kind == KIND_MATERIALIZED && o->relation && !all_columns(o, ret, error))
        return false;
    if (!output_target_of(o->kind == KIND_MATERIALIZED && o->relation ? o->relation : declared->statement, ret, error))
        return false;
    if (declared->with.queue.len) { /* the default exchange has every queue by its name */
        ret->exchange = (struct slice){.ptr = (const uint8_t *)""};
        ret->routing_key = declared->with.queue;
    }
    if (declared->with.queue.len || o->with.exchange.len)
        *ret_topic = (struct slice){0};
    return true;
}
