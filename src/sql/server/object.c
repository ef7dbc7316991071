/* The statements of the catalogue, see server_int.h: read at the start, parsed and planned again, and what depends on what.
 *
 * A statement is planned when everything that it names has been; so a start goes over them until no more can be, whatever their order, and
 * what is left has failed. Of a stream that is fed by a query the columns are those of the query. */
#include "sql/server/server_int.h"

#include "base/check.h"
#include "base/mem.h"
#include "base/reader.h"
#include "sql/language/parse.h"

#include <stdio.h>

#define PARSE_MEMORY_MAX (64u << 20)

/* ---- names and dependencies ---- */

struct server_object *server_object_find(struct sql_server *server, const char *vhost, struct slice name)
{
    struct server_object *found = NULL;
    LIST_EACH(&server->objects, node, after)
    {
        struct server_object *o = CONTAINER_OF(node, struct server_object, link);
        if (strcmp(o->vhost, vhost) != 0 || o->next)
            continue;
        if (slice_equal(slice_str(o->name), name))
            return o;
        if (name_equal(slice_str(o->name), name))
            found = o;
    }
    return found;
}

static bool are_versions(const struct server_object *a, const struct server_object *b)
{
    return a != b && (a->next || b->next) && strcmp(a->vhost, b->vhost) == 0 && strcmp(a->name, b->name) == 0;
}

static struct server_object *other_version(const struct server_object *o)
{
    LIST_EACH(&o->server->objects, node, after)
    if (are_versions(o, CONTAINER_OF(node, struct server_object, link)))
        return CONTAINER_OF(node, struct server_object, link);
    return NULL;
}

struct server_object *server_object_next(const struct server_object *o)
{
    return o->next ? NULL : other_version(o);
}

struct server_object *server_object_replaced(const struct server_object *next)
{
    return next->next ? other_version(next) : NULL;
}

struct server_object *server_object_called(struct sql_server *server, const char *vhost, struct slice name)
{
    size_t next = strlen(SERVER_NEXT);
    if (!slice_starts(name, SERVER_NEXT))
        return server_object_find(server, vhost, name);
    LIST_EACH(&server->objects, node, after)
    {
        struct server_object *o = CONTAINER_OF(node, struct server_object, link);
        if (o->next && strcmp(o->vhost, vhost) == 0 &&
            slice_equal(slice_str(o->name), slice_of(name.ptr + next, name.len - next)))
            return o;
    }
    return NULL;
}

struct slice server_object_snapshots(const struct server_object *o, char room[SQL_NAME_MAX + sizeof SQL_INTERNAL])
{
    if (o->snapshots)
        return slice_str(o->snapshots);
    return slice_of(room, (size_t)snprintf(room, SQL_NAME_MAX + sizeof SQL_INTERNAL, SQL_INTERNAL "%s", o->name));
}

void server_catalog(struct sql_server *server, const char *vhost, const struct server_object *but, struct catalog *ret)
{
    *ret = catalog_init();
    ret->seed = server->options.seed;
    LIST_EACH(&server->objects, node, after)
    {
        struct server_object *o = CONTAINER_OF(node, struct server_object, link);
        if (o != but && !o->hidden && !o->next && !(but && are_versions(o, but)) && o->relation &&
            ret->count < CATALOG_MAX && strcmp(o->vhost, vhost) == 0)
            ret->relations[ret->count++] = o->relation;
    }
}

struct name_search {
    struct slice name;
    bool found;
};

static bool names_it(struct ast_names names, struct slice name)
{
    return names.count && name_equal(names.at[names.count - 1], name);
}

static bool search_name(const struct ast *node, void *arg)
{
    struct name_search *s = arg;
    if (node->kind == AST_RELATION)
        s->found = s->found || names_it(AST_AS(relation, node)->name, s->name);
    else if (node->kind == AST_INSERT)
        s->found = s->found || names_it(AST_AS(insert, node)->name, s->name);
    else if (node->kind == AST_CREATE_SINK)
        s->found = s->found || names_it(AST_AS(create_sink, node)->from, s->name);
    return !s->found && ast_each_child(node, search_name, s) && !s->found;
}

bool server_statement_names(const struct ast *statement, struct slice name)
{
    struct name_search s = {.name = name};
    (void)search_name(statement, &s);
    return s.found;
}

const struct server_object *server_object_user(const struct server_object *o)
{
    LIST_EACH(&o->server->objects, node, after)
    {
        const struct server_object *other = CONTAINER_OF(node, struct server_object, link);
        if (other != o && other->statement && strcmp(other->vhost, o->vhost) == 0 &&
            server_statement_names(other->statement, slice_str(o->name)))
            return other;
    }
    return NULL;
}

/* ---- from a text ---- */

static enum statement_kind kind_of(const struct ast *statement)
{
    switch (statement->kind) {
    case AST_CREATE_STREAM: return AST_AS(create_stream, statement)->query ? KIND_STREAM_QUERY : KIND_STREAM;
    case AST_CREATE_VIEW: return AST_AS(create_view, statement)->materialized ? KIND_MATERIALIZED : KIND_VIEW;
    case AST_CREATE_SINK: return KIND_SINK;
    case AST_INSERT: return KIND_INSERT;
    default: return STATEMENT_KINDS;
    }
}

bool server_object_runs(const struct server_object *o)
{
    return o->kind == KIND_STREAM_QUERY || o->kind == KIND_SINK || o->kind == KIND_INSERT ||
           o->kind == KIND_MATERIALIZED;
}

bool server_object_is_table(const struct server_object *o)
{
    return o->statement && o->statement->kind == AST_CREATE_STREAM && AST_AS(create_stream, o->statement)->table;
}

bool server_object_is_keyed(const struct server_object *o)
{
    return o->relation && o->relation->kind == AST_CREATE_STREAM && AST_AS(create_stream, o->relation)->table;
}

static void refuse(struct sql_error *error, const struct ast *place, const char *what)
{
    sql_error_set(error, SQL_FAULT_UNBOUNDED, place->at, place->len, "%s", what);
}

static void no_memory(struct sql_error *error)
{
    sql_error_set(error, SQL_FAULT_MEMORY, 0, 0, "no memory for the statement");
}

static struct slice topic_of(const struct server_object *o)
{
    return o->with.topic.len ? o->with.topic : slice_str(o->name);
}

/* The server's sessions may read and write its own streams whoever their user is, so no statement may name one. Of a query's name come those
 * of its dead letters and of its snapshots. */
static bool check_names(const struct server_object *o, struct sql_error *error)
{
    if (!slice_starts(topic_of(o), SQL_INTERNAL) && !slice_starts(slice_str(o->name), SQL_INTERNAL) &&
        !slice_starts(o->with.queue, SQL_INTERNAL))
        return true;
    sql_error_set(error, SQL_FAULT_VALUE, o->statement->at, o->statement->len,
                  "names that begin with " SQL_INTERNAL " are the broker's own");
    return false;
}

static bool read_options(struct server_object *o, struct sql_error *error)
{
    static const struct ast_list none = {0};
    const struct ast_list *options = &none;
    enum with_place place = WITH_STREAM;
    struct slice queue = {0};
    if (o->kind == KIND_STREAM || o->kind == KIND_STREAM_QUERY) {
        options = &AST_AS(create_stream, o->statement)->options;
        queue = AST_AS(create_stream, o->statement)->queue;
        place = o->kind == KIND_STREAM_QUERY ? WITH_STREAM_QUERY : queue.ptr ? WITH_QUEUE : WITH_STREAM;
    } else if (o->kind == KIND_SINK) {
        options = &AST_AS(create_sink, o->statement)->options;
        place = WITH_SINK;
    } else if (o->kind == KIND_INSERT) {
        options = &AST_AS(insert, o->statement)->options;
        place = WITH_INSERT;
    } else if (o->kind == KIND_VIEW || o->kind == KIND_MATERIALIZED) {
        options = &AST_AS(create_view, o->statement)->options;
        place = o->kind == KIND_VIEW ? WITH_VIEW : WITH_MATERIALIZED;
    }
    if (!sql_with_read(options, place, &o->with, error))
        return false;
    if (queue.ptr)
        o->with.queue = queue;
    return check_names(o, error);
}

static struct server_object *object_parse(struct sql_server *server, struct slice text, struct sql_error *error)
{
    struct server_object *o = mem_zalloc(sizeof *o);
    struct ast_list list;
    if (!o) {
        no_memory(error);
        return NULL;
    }
    o->server = server;
    o->refs = 1;
    list_init(&o->link);
    arena_init_small(&o->arena, PARSE_MEMORY_MAX);
    trail_init(&o->trail, SQL_TRAIL_MAX);
    if (!sql_parse(text, &o->arena, &list, error))
        return o;
    if (list.count != 1)
        sql_error_set(error, SQL_FAULT_SYNTAX, 0, 0, "an object is one statement, not %u", (unsigned)list.count);
    else if ((o->kind = (uint8_t)kind_of(list.at[0])) == STATEMENT_KINDS)
        refuse(error, list.at[0], "this is nothing that is kept");
    else
        o->statement = list.at[0];
    return o;
}

static bool object_named(struct server_object *o, const char *vhost, struct slice name, struct slice owner,
                         struct slice text)
{
    o->vhost = mem_strdup(vhost);
    o->name = mem_slicedup(name);
    o->owner = mem_slicedup(owner);
    o->text = mem_slicedup(text);
    return o->vhost && o->name && o->owner && o->text;
}

void server_object_unref(struct server_object **object)
{
    struct server_object *o = *object;
    *object = NULL;
    if (!o || --o->refs)
        return;
    CHECK(list_empty(&o->link) && !o->run);
    arena_fini(&o->arena);
    mem_free(o->vhost);
    mem_free(o->name);
    mem_free(o->owner);
    mem_free(o->text);
    mem_free(o->snapshots);
    trail_fini(&o->trail);
    mem_free(o);
}

struct server_object *server_object_new(struct sql_server *server, const char *vhost, struct slice name,
                                        struct slice owner, struct slice text, struct sql_error *error)
{
    struct server_object *o = object_parse(server, text, error);
    if (o && !object_named(o, vhost, name, owner, text))
        no_memory(error);
    if (o && error->fault == SQL_FAULT_NONE && read_options(o, error) && server_object_bind(o, error)) {
        o->bound = true;
        return o;
    }
    server_object_unref(&o);
    return NULL;
}

/* ---- binding ---- */

/* Of a stream that others write: itself, without what is about the broker only. */
static bool bind_stream(struct server_object *o, struct sql_error *error)
{
    struct catalog catalog = catalog_init();
    struct ast_create_stream *copy = arena_take(&o->arena, sizeof *copy);
    if (!copy) {
        no_memory(error);
        return false;
    }
    *copy = *AST_AS(create_stream, o->statement);
    if (copy->queue.ptr && (copy->table || !copy->queue.len || copy->queue.len > SQL_NAME_MAX)) {
        refuse(error, o->statement,
               copy->table ? "a TABLE is read again and again, which a queue cannot be"
                           : "a queue's name has 1 to 255 bytes");
        return false;
    }
    copy->exchange = copy->queue = (struct slice){0};
    copy->keys = (struct ast_names){0};
    if (!catalog_add(&catalog, &copy->ast, error))
        return false;
    if (copy->elements.count == 0) {
        refuse(error, o->statement, "a stream without columns");
        return false;
    }
    struct query *q = server_plan_in(o->server, &catalog, slice_str(o->name), &o->arena, NULL, error);
    o->relation = q ? &copy->ast : NULL; /* every column, and what WITH says of records, has been looked at */
    query_free(&q);
    return o->relation;
}

static bool bind_view(struct server_object *o, struct sql_error *error)
{
    struct catalog catalog = catalog_init();
    if (!catalog_add(&catalog, o->statement, error))
        return false;
    const struct ast_create_view *view = AST_AS(create_view, o->statement);
    struct query *q = server_object_plan(o, NULL, error);
    bool ok = q != NULL;
    if (ok && view->columns.count && view->columns.count != query_plan(q)->column_count) {
        sql_error_set(error, SQL_FAULT_VALUE, view->ast.at, view->ast.len, "the view has %u names for %u columns",
                      (unsigned)view->columns.count, query_plan(q)->column_count);
        ok = false;
    }
    query_free(&q);
    o->relation = ok ? o->statement : NULL;
    return ok;
}

/* By position, as in every SQL: the target's columns, or those that are named, get the values of the select list. */
static bool check_insert(struct server_object *o, const struct plan *plan, struct sql_error *error)
{
    const struct ast_insert *insert = AST_AS(insert, o->statement);
    struct slice name = insert->name.at[insert->name.count - 1];
    struct server_object *target = server_object_find(o->server, o->vhost, name);
    if (!target || !target->relation || target->relation->kind != AST_CREATE_STREAM ||
        target->kind == KIND_MATERIALIZED) {
        sql_error_set(error, SQL_FAULT_NO_NAME, insert->ast.at, insert->ast.len, "there is no stream %.*s",
                      SLICE_ARG(name));
        return false;
    }
    struct slice *names;
    uint32_t count;
    if (!server_insert_columns(target, insert, &o->arena, &names, &count, error))
        return false;
    if (count != plan->column_count) {
        sql_error_set(error, SQL_FAULT_VALUE, insert->ast.at, insert->ast.len, "%u columns get the values of %u", count,
                      plan->column_count);
        return false;
    }
    return server_insert_fits(target, names, count, plan, &o->arena, error);
}

static bool keep_name(struct server_object *o, struct slice name, struct slice *ret, struct sql_error *error)
{
    uint8_t *copy = arena_take(&o->arena, name.len + 1);
    if (!copy) {
        no_memory(error);
        return false;
    }
    memcpy(copy, name.len ? name.ptr : (const uint8_t *)"", name.len);
    *ret = slice_of(copy, name.len);
    return true;
}

static bool reads(const struct server_object *o, struct slice topic)
{
    for (uint32_t i = 0; i < o->read_count; i++)
        if (slice_equal(o->reads[i], topic))
            return true;
    return false;
}

static struct object_clock clock_of(const struct source *s)
{
    bool event = s->clock && s->clock->expr;
    return (struct object_clock){.of = event || s->arrival->expr ? &s->stream->ast : NULL, .arrival = !event};
}

/* The streams of a query, whatever they are called in statements. */
static bool note_streams(struct server_object *o, const struct plan *plan, struct sql_error *error)
{
    struct output_target target = {0};
    struct slice topic;
    o->read_count = 0;
    if (!server_object_target(o, &topic, &target, error))
        return false;
    if (target.exchange.ptr && !target.exchange.len)
        topic = target.routing_key; /* a queue */
    if (!keep_name(o, topic, &o->writes, error))
        return false;
    for (uint32_t i = 0; i < plan->source_count; i++) {
        o->clocks[i] = clock_of(&plan->sources[i]);
        LIST_EACH(&o->server->objects, node, after)
        {
            const struct server_object *source = CONTAINER_OF(node, struct server_object, link);
            if (source->relation != &plan->sources[i].stream->ast)
                continue;
            o->takes = server_object_is_queue(source);
            if (!keep_name(o, o->takes ? source->with.queue : topic_of(source), &o->reads[o->read_count++], error))
                return false;
        }
    }
    return true;
}

/* A query that reads, if by way of others, what it writes would never come to an end. */
static bool check_circle(struct server_object *o, struct sql_error *error)
{
    struct list *objects = &o->server->objects;
    bool circle = o->writes.len && reads(o, o->writes);
    struct server_object *to_do = o->writes.len ? o : NULL;
    LIST_EACH(objects, node, after)
    CONTAINER_OF(node, struct server_object, link)->reached = false;
    o->to_do = NULL;
    while (to_do && !circle) {
        const struct server_object *at = to_do;
        to_do = at->to_do;
        LIST_EACH(objects, node, after)
        {
            struct server_object *next = CONTAINER_OF(node, struct server_object, link);
            if (next->reached || next == o || next->hidden || are_versions(next, o) || !reads(next, at->writes) ||
                strcmp(next->vhost, o->vhost))
                continue;
            circle = circle || (next->writes.len && reads(o, next->writes));
            next->reached = true;
            next->to_do = to_do;
            to_do = next->writes.len ? next : to_do;
        }
    }
    if (circle)
        refuse(error, o->statement, "a query that reads the stream it writes to");
    return !circle;
}

static bool bind_query(struct server_object *o, struct sql_error *error)
{
    if (server_object_is_table(o)) {
        refuse(error, o->statement, "CREATE TABLE AS a query cannot be run yet");
        return false;
    }
    const struct ast_create_stream *made = o->kind == KIND_STREAM_QUERY ? AST_AS(create_stream, o->statement) : NULL;
    if (made && (made->queue.ptr || made->exchange.ptr)) {
        refuse(error, o->statement,
               made->queue.ptr ? "FROM QUEUE beside AS: what the query reads stands in it"
                               : "FROM EXCHANGE beside AS: what the query reads stands in it");
        return false;
    }
    struct query *q = server_object_plan(o, NULL, error);
    bool ok = q != NULL;
    if (ok && o->kind == KIND_MATERIALIZED)
        ok = server_view_bind(o, query_plan(q), error);
    if (ok && o->kind == KIND_INSERT)
        ok = check_insert(o, query_plan(q), error);
    ok = ok && server_queue_allowed(o, q, error) && note_streams(o, query_plan(q), error) && check_circle(o, error);
    if (ok && o->kind == KIND_STREAM_QUERY && AST_AS(create_stream, o->statement)->elements.count) {
        refuse(error, o->statement, "columns beside AS: they are those of the query");
        ok = false;
    }
    if (ok && o->kind == KIND_STREAM_QUERY) {
        o->relation = server_relation_of(o, query_plan(q), NULL, NULL, 0, error);
        ok = o->relation != NULL;
    }
    query_free(&q);
    return ok;
}

bool server_object_bind(struct server_object *o, struct sql_error *error)
{
    switch ((enum statement_kind)o->kind) {
    case KIND_STREAM: return bind_stream(o, error);
    case KIND_VIEW: return bind_view(o, error);
    default: return bind_query(o, error);
    }
}

/* ---- the catalogue ---- */

void server_object_add(struct server_object *o, uint64_t id)
{
    o->id = id;
    o->refs++;
    list_insert(&o->server->objects, &o->link);
}

void server_object_remove(struct server_object *o)
{
    server_run_stop(&o->run);
    list_remove(&o->link);
    server_object_unref(&o);
}

void server_object_gone(struct sql_server *server, uint64_t id)
{
    LIST_EACH(&server->objects, node, after)
    if (CONTAINER_OF(node, struct server_object, link)->id == id)
        server_object_remove(CONTAINER_OF(node, struct server_object, link));
}

void server_object_state(struct server_object *o, enum sql_object_state state, const char *why)
{
    struct slice none = {0};
    o->state = (uint8_t)state;
    o->state_known = ++o->states_asked;
    if (why != o->reason)
        snprintf(o->reason, sizeof o->reason, "%s", why);
    struct ask *ask = ask_new(slice_str(o->reason), none, none, none);
    if (server_ask(o->server->home, NULL, CMD_SQL_STATE, ask, o->id, 0, false))
        ask->number = state; /* not published yet */
}

/* Nothing of it is known but its text: it is shown, and can be dropped. */
static void add_row(struct sql_server *server, const struct sql_object_row *row)
{
    struct sql_error error = {0};
    size_t next = slice_starts(row->name, SERVER_NEXT) ? strlen(SERVER_NEXT) : 0;
    struct slice name = slice_of(row->name.ptr + next, row->name.len - next);
    bool settings = slice_starts(row->settings, SQL_INTERNAL);
    char *vhost = mem_slicedup(row->vhost);
    struct server_object *o = vhost ? object_parse(server, row->text, &error) : NULL;
    bool ok = o && object_named(o, vhost, name, row->owner, row->text) &&
              (!settings || (o->snapshots = mem_slicedup(row->settings)));
    o = ok ? o : (server_object_unref(&o), NULL);
    mem_free(vhost);
    if (!o) {
        server->list_failed = true; /* no memory: the whole is read again */
        return;
    }
    o->next = next != 0;
    o->kind = o->statement ? o->kind : row->kind;
    o->state = row->state;
    o->step = row->step;
    snprintf(o->reason, sizeof o->reason, "%.*s", SLICE_ARG(row->reason));
    if (error.fault != SQL_FAULT_NONE)
        snprintf(o->reason, sizeof o->reason, "%s", error.message);
    bool damaged = false;
    if (!trail_append(&o->trail, row->trail, &damaged) && !damaged)
        server->list_failed = true;
    if (damaged)
        snprintf(o->reason, sizeof o->reason, "its trail in the catalogue is damaged");
    o->damaged = damaged;
    o->core_trail = row->trail.len;
    server_object_add(o, row->id);
    server_object_unref(&o);
}

void server_object_row(struct sql_server *server, struct effect *e)
{
    struct sql_object_row row;
    struct reader r = reader_of(e->answer ? e->answer->fields : (struct slice){0});
    if (server->listed == LIST_ASKED && sql_object_row_next(&r, &row))
        add_row(server, &row);
    server_effect_drop(server, e);
}

static void forget_objects(struct sql_server *server)
{
    while (!list_empty(&server->objects))
        server_object_remove(CONTAINER_OF(server->objects.next, struct server_object, link));
}

/* Whatever their order: what names others is bound when those are. */
static void bind_all(struct sql_server *server)
{
    for (bool more = true, last = false; more || !last;) {
        last = !more;
        more = false;
        LIST_EACH(&server->objects, node, after)
        {
            struct server_object *o = CONTAINER_OF(node, struct server_object, link);
            struct sql_error error = {0};
            if (o->bound || !o->statement)
                continue;
            if (read_options(o, &error) && server_object_bind(o, &error))
                more = o->bound = true;
            else if (last)
                server_object_state(o, SQL_FAILED, error.message);
        }
    }
    LIST_EACH(&server->objects, node, after)
    {
        struct server_object *o = CONTAINER_OF(node, struct server_object, link);
        if (o->damaged)
            server_object_state(o, SQL_FAILED, o->reason);
        else if (o->bound && server_object_runs(o) && o->state == SQL_RUNNING && !server_run_start(o))
            server_object_state(o, SQL_FAILED, "no memory to start it");
    }
}

static void on_listed(struct server_call *call, struct effect *e)
{
    struct sql_server *server = CONTAINER_OF(call, struct sql_server, list_call);
    server->listed = LIST_OPENING;
    if (!e)
        return;
    bool ok = e->type == EFF_ANSWER && e->answer && !server->list_failed;
    server->list_from = ok && e->answer->number ? e->answer->number2 : 0;
    if (!ok)
        forget_objects(server);
    else if (!e->answer->number) {
        server->listed = LIST_READ;
        bind_all(server);
    }
    server_effect_drop(server, e);
}

void server_objects_turn(struct sql_server *server)
{
    if (server->listed != LIST_OPENING || server->list_call.number)
        return;
    server->list_call.on_done = on_listed;
    server->list_failed = false;
    struct command *c = server_command(server->home, &server->list_call, CMD_SQL_LIST, false);
    if (!c)
        return;
    c->number = server->list_from;
    server->listed = LIST_ASKED;
}

void server_objects_fini(struct sql_server *server)
{
    forget_objects(server);
}
