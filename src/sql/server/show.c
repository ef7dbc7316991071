/* SHOW, DESCRIBE and EXPLAIN, see server_int.h: what is there, as rows. */
#include "core/stream_admin.h"
#include "sql/server/run.h"

#include <stdio.h>

/* ---- rows ---- */

struct shown {
    struct request *r;
    uint32_t column;
};

static void head(struct request *r, const char *const *names, const char *const *types, uint32_t count)
{
    lines_text(&r->out, "{\"statement\":");
    lines_number(&r->out, r->at);
    lines_text(&r->out, ",\"columns\":[");
    for (uint32_t i = 0; i < count; i++) {
        lines_text(&r->out, i ? ",{\"name\":\"" : "{\"name\":\"");
        lines_text(&r->out, names[i]);
        lines_text(&r->out, "\",\"type\":\"");
        lines_text(&r->out, types[i]);
        lines_text(&r->out, "\"}");
    }
    lines_text(&r->out, "]}\n");
}

static struct shown row_begin(struct request *r)
{
    lines_text(&r->out, "{\"row\":[");
    return (struct shown){.r = r};
}

static void put_text(struct shown *s, struct slice text)
{
    if (s->column++)
        lines_text(&s->r->out, ",");
    if (text.ptr)
        lines_string(&s->r->out, text);
    else
        lines_text(&s->r->out, "null");
}

static void put_number(struct shown *s, uint64_t v)
{
    if (s->column++)
        lines_text(&s->r->out, ",");
    lines_number(&s->r->out, (int64_t)v);
}

static void row_end(struct shown *s)
{
    lines_text(&s->r->out, "]}\n");
    s->r->rows++;
}

static enum verdict end(struct request *r, const char *what)
{
    lines_text(&r->out, "{\"done\":\"");
    lines_text(&r->out, what);
    lines_text(&r->out, "\",\"rows\":");
    lines_number(&r->out, (int64_t)r->rows);
    lines_text(&r->out, "}\n");
    return VERDICT_DONE;
}

/* % is any text, _ any character, as LIKE has it; only ASCII letters are equal regardless of case. */
static bool is_like(struct slice text, struct slice pattern)
{
    size_t t = 0, p = 0, star = SIZE_MAX, mark = 0;
    while (t < text.len) {
        if (p < pattern.len && pattern.ptr[p] == '%') {
            star = p++;
            mark = t;
        } else if (p < pattern.len &&
                   (pattern.ptr[p] == '_' || name_equal(slice_of(text.ptr + t, 1), slice_of(pattern.ptr + p, 1)))) {
            t++;
            p++;
        } else if (star != SIZE_MAX) {
            p = star + 1;
            t = ++mark;
        } else {
            return false;
        }
    }
    while (p < pattern.len && pattern.ptr[p] == '%')
        p++;
    return p == pattern.len;
}

/* ---- SHOW ---- */

static const char *state_of(const struct server_object *o)
{
    static const char *const words[SQL_OBJECT_STATES] = {"RUNNING", "PAUSED", "FAILED"};
    if (o->next && o->state == SQL_RUNNING)
        return "BUILDING";
    if (o->state == SQL_RUNNING && o->run && o->run->state < RUN_GOING)
        return o->run->state == RUN_REPLAYING ? "RECOVERING" : "STARTING";
    return words[o->state];
}

static uint64_t lag_of(const struct server_run *run)
{
    uint64_t lag = run->queue ? run_queue_lag(run) : 0;
    for (uint32_t i = 0; i < run->source_count; i++)
        for (uint32_t k = 0; k < run->sources[i].count; k++) {
            const struct run_partition *p = &run->sources[i].partitions[k];
            lag += p->end > p->place ? p->end - p->place : 0;
        }
    return lag;
}

static struct slice topic_of(const struct server_object *o)
{
    return o->with.topic.len ? o->with.topic : slice_str(o->name);
}

/* Why it does not go on, or what troubles it while it does. */
static struct slice reason_of(const struct server_object *o, char room[SERVER_REASON_MAX])
{
    const struct server_run *run = o->run;
    if (o->reason[0] || !run || !run->snapshot.why)
        return slice_str(o->reason);
    snprintf(room, SERVER_REASON_MAX, "its last snapshot could not be made: %s", run->snapshot.why);
    return slice_str(room);
}

static void show_query(struct request *r, const struct server_object *o)
{
    const struct server_run *run = o->run;
    struct shown s = row_begin(r);
    char name[SQL_NAME_MAX + sizeof SERVER_NEXT], room[SERVER_REASON_MAX];
    struct slice reason = reason_of(o, room);
    snprintf(name, sizeof name, "%s%s", o->next ? SERVER_NEXT : "", o->name);
    put_text(&s, slice_str(name));
    put_text(&s, slice_str(state_of(o)));
    put_number(&s, run ? lag_of(run) : 0);
    put_number(&s, run ? run->rows_in : 0);
    put_number(&s, run && run->output ? output_place(run->output) : 0);
    put_number(&s, run && run->query ? query_late(run->query) : 0);
    put_number(&s, run && run->query ? query_faults(run->query) : 0);
    put_number(&s, run && run->query ? query_state_bytes(run->query) : 0);
    put_number(&s, run && run->query ? query_spilled_bytes(run->query) : 0);
    put_text(&s, slice_str(o->owner));
    put_text(&s, reason.len ? reason : (struct slice){0});
    row_end(&s);
}

static void show_stream(struct request *r, const struct server_object *o)
{
    static const char *const formats[] = {
        [FORMAT_JSON] = "json", [FORMAT_RAW] = "raw", [FORMAT_CSV] = "csv", [FORMAT_CLOUDEVENTS] = "cloudevents"};
    struct shown s = row_begin(r);
    put_text(&s, slice_str(o->name));
    put_text(&s, server_object_is_queue(o) ? o->with.queue : topic_of(o));
    put_text(&s, slice_str(formats[o->with.format]));
    put_text(&s, slice_str(o->owner));
    row_end(&s);
}

static void show_plain(struct request *r, const struct server_object *o)
{
    struct shown s = row_begin(r);
    put_text(&s, slice_str(o->name));
    put_text(&s, slice_str(o->owner));
    row_end(&s);
}

static bool is_stream(const struct server_object *o)
{
    return (o->kind == KIND_STREAM || o->kind == KIND_STREAM_QUERY) && !server_object_is_table(o);
}

static bool is_view(const struct server_object *o)
{
    return o->kind == KIND_VIEW;
}

static bool is_materialized(const struct server_object *o)
{
    return o->kind == KIND_MATERIALIZED;
}

static bool is_sink(const struct server_object *o)
{
    return o->kind == KIND_SINK;
}

static const char *const query_names[] = {"name",   "state",       "lag",           "rows_in", "rows_out", "late",
                                          "faults", "state_bytes", "spilled_bytes", "owner",   "reason"};
static const char *const query_types[] = {"TEXT",   "TEXT",   "BIGINT", "BIGINT", "BIGINT", "BIGINT",
                                          "BIGINT", "BIGINT", "BIGINT", "TEXT",   "TEXT"};
static const char *const stream_names[] = {"name", "topic", "format", "owner"};
static const char *const plain_names[] = {"name", "owner"};
static const char *const texts[] = {"TEXT", "TEXT", "TEXT", "TEXT"};

static const struct list_row {
    enum ast_show_kind what;
    const char *done;
    bool (*has)(const struct server_object *o);
    void (*show)(struct request *r, const struct server_object *o);
    const char *const *names, *const *types;
    uint32_t count;
} lists[] = {
    {SHOW_STREAMS, "SHOW STREAMS", is_stream, show_stream, stream_names, texts, 4},
    {SHOW_TABLES, "SHOW TABLES", server_object_is_table, show_stream, stream_names, texts, 4},
    {SHOW_VIEWS, "SHOW VIEWS", is_view, show_plain, plain_names, texts, 2},
    {SHOW_MATERIALIZED_VIEWS, "SHOW MATERIALIZED VIEWS", is_materialized, show_plain, plain_names, texts, 2},
    {SHOW_SINKS, "SHOW SINKS", is_sink, show_plain, plain_names, texts, 2},
    {SHOW_QUERIES, "SHOW QUERIES", server_object_runs, show_query, query_names, query_types, 11},
};

static enum verdict show_list(struct request *r, const struct list_row *list, struct slice like)
{
    head(r, list->names, list->types, list->count);
    LIST_EACH(&r->server->objects, node, after)
    {
        const struct server_object *o = CONTAINER_OF(node, struct server_object, link);
        if (strcmp(o->vhost, r->vhost) == 0 && list->has(o) && (!o->next || list->what == SHOW_QUERIES) &&
            (!like.ptr || is_like(slice_str(o->name), like)))
            list->show(r, o);
    }
    return end(r, list->done);
}

static const struct server_object *find(struct request *r, struct ast_names names, enum verdict *ret)
{
    struct slice name = names.at[names.count - 1];
    const struct server_object *o = server_object_find(r->server, r->vhost, name);
    if (!o)
        *ret = request_refuse(r, "42P01", "there is no stream, view, sink or query %.*s", SLICE_ARG(name));
    return o;
}

void server_put_columns(struct request *r, const struct plan *plan)
{
    static const char *const names[] = {"column", "type"};
    head(r, names, texts, 2);
    for (uint32_t i = 0; i < plan->column_count; i++) {
        struct shown s = row_begin(r);
        put_text(&s, plan->columns[i].name);
        lines_text(&r->out, ",");
        server_put_type(&r->out, &plan->columns[i].type);
        row_end(&s);
    }
}

/* ---- what the user may see ---- */

static struct slice read_topic(const struct request *r, const struct source *s)
{
    LIST_EACH(&r->server->objects, node, after)
    {
        const struct server_object *o = CONTAINER_OF(node, struct server_object, link);
        if (o->relation == &s->stream->ast)
            return server_object_is_queue(o) ? o->with.queue : topic_of(o);
    }
    return catalog_name(&s->stream->ast);
}

enum verdict request_ask_rights(struct request *r, const struct plan *plan)
{
    uint8_t room[PLAN_SOURCES_MAX * 256];
    struct writer w = writer_of(room, sizeof room);
    struct slice none = {0};
    for (uint32_t i = 0; i < plan->source_count; i++)
        writer_str8(&w, read_topic(r, &plan->sources[i]));
    return request_ask(r, CMD_STREAM_LIST, ask_new(writer_slice(&w), none, none, none), 0, 0);
}

/* As of a SELECT: what a query reads the user may read, whether it is there or not. DONE, FAILED and said, or WAIT: it is planned once more. */
static enum verdict may_read(struct request *r, const struct plan *plan)
{
    struct slice none = {0};
    struct reader fields = reader_of(r->answer.answer ? r->answer.answer->fields : none);
    struct stream_row row;
    if (plan->source_count && !r->step) {
        r->step = 1;
        return request_ask_rights(r, plan);
    }
    for (uint32_t i = 0; i < plan->source_count; i++) {
        struct slice topic = read_topic(r, &plan->sources[i]);
        if (!stream_row_next(&fields, &row))
            return request_refuse(r, "53200", "what it reads cannot be looked for now");
        if (!slice_equal(row.name, topic))
            return request_refuse(r, "55006", "what it reads has just become another one: say it again");
        if (!(row.verbs & STREAM_MAY_READ))
            return request_refuse(r, "42501", "the user may not read %.*s", SLICE_ARG(topic));
    }
    return VERDICT_DONE;
}

/* The query that has an object's columns, if the user may see them. */
static enum verdict plan_shown(struct request *r, const struct server_object *o, struct query **ret)
{
    struct sql_error error = {0};
    struct query *q = o->relation ? server_plan_all(r->server, r->vhost, slice_str(o->name), &r->arena, &error)
                      : o->bound  ? server_object_plan((struct server_object *)o, NULL, &error)
                                  : NULL;
    enum verdict v =
        q ? may_read(r, query_plan(q))
          : request_refuse(r, "55000", "%s has no columns: %s", o->name, o->bound ? error.message : o->reason);
    if (v != VERDICT_DONE)
        query_free(&q);
    *ret = q;
    return v;
}

static bool is_own(const struct request *r, const struct server_object *o)
{
    return strcmp(o->owner, r->user) == 0 || r->administers;
}

static enum verdict show_create(struct request *r, struct ast_names names)
{
    static const char *const column[] = {"statement"};
    enum verdict v = VERDICT_FAILED;
    struct query *q = NULL;
    const struct server_object *o = find(r, names, &v);
    if (!o)
        return v;
    v = is_own(r, o) ? VERDICT_DONE : plan_shown(r, o, &q);
    query_free(&q);
    if (v != VERDICT_DONE)
        return v;
    head(r, column, texts, 1);
    struct shown s = row_begin(r);
    put_text(&s, slice_str(o->text));
    row_end(&s);
    return end(r, "SHOW CREATE");
}

/* What SELECT * would give of it. */
static enum verdict show_columns(struct request *r, struct ast_names names, const char *done)
{
    enum verdict v = VERDICT_FAILED;
    struct query *q;
    const struct server_object *o = find(r, names, &v);
    if (o)
        v = plan_shown(r, o, &q);
    if (v != VERDICT_DONE)
        return v;
    server_put_columns(r, query_plan(q));
    query_free(&q);
    return end(r, done);
}

enum verdict statement_show(struct request *r, const struct ast *s)
{
    const struct ast_show *show = AST_AS(show, s);
    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        if (lists[i].what == (enum ast_show_kind)show->what)
            return show_list(r, &lists[i], show->like);
    if (show->what == SHOW_CREATE)
        return show_create(r, show->name);
    if (show->what == SHOW_COLUMNS)
        return show_columns(r, show->name, "SHOW COLUMNS");
    return request_refuse(r, "0A000", "this SHOW cannot be run yet");
}

/* ---- DESCRIBE, EXPLAIN ---- */

enum verdict statement_describe(struct request *r, const struct ast *s)
{
    const struct ast_describe *describe = AST_AS(describe, s);
    if (describe->extended)
        return request_refuse(r, "0A000", "DESCRIBE EXTENDED cannot be run yet");
    return show_columns(r, describe->name, "DESCRIBE");
}

/* Where its state may be. */
static struct slice keeps_of(const struct op *op)
{
    return !op->kind->save ? (struct slice){0} : slice_str(op->spill ? "in memory or on disk" : "in memory");
}

static enum verdict explain(struct request *r, const struct plan *plan)
{
    static const char *const names[] = {"operator", "reads", "keeps"};
    head(r, names, texts, 3);
    for (uint32_t i = 0; i < plan->source_count; i++) {
        struct shown s = row_begin(r);
        put_text(&s, slice_str("scan"));
        put_text(&s, catalog_name(&plan->sources[i].stream->ast));
        put_text(&s, (struct slice){0});
        row_end(&s);
    }
    for (uint32_t i = plan->op_count; i-- > 0;) {
        bool scans = false;
        for (uint32_t k = 0; k < plan->source_count; k++)
            scans = scans || plan->sources[k].op == plan->ops[i];
        if (scans)
            continue;
        struct shown s = row_begin(r);
        put_text(&s, slice_str(plan->ops[i]->kind->name));
        put_text(&s, (struct slice){0});
        put_text(&s, keeps_of(plan->ops[i]));
        row_end(&s);
    }
    return end(r, "EXPLAIN");
}

#define ANALYZE_NS NS_PER_S

static void analyze_row(struct request *r, const struct op *op, struct slice reads)
{
    struct shown s = row_begin(r);
    put_text(&s, slice_str(op->kind->name));
    put_text(&s, reads);
    put_number(&s, op->rows_in);
    put_number(&s, op->rows_out);
    put_number(&s, (uint64_t)(op->ns > 0 ? op->ns : 0));
    put_number(&s, op->account.used);
    row_end(&s);
}

static enum verdict analyzed(struct request *r, const struct server_run *run)
{
    static const char *const names[] = {"operator", "reads", "rows_in", "rows_out", "ns", "state_bytes"};
    static const char *const types[] = {"TEXT", "TEXT", "BIGINT", "BIGINT", "BIGINT", "BIGINT"};
    const struct plan *plan = query_plan(run->query);
    head(r, names, types, 6);
    for (uint32_t i = plan->op_count; i-- > 0;) {
        struct slice reads = {0};
        for (uint32_t k = 0; k < plan->source_count; k++)
            if (plan->sources[k].op == plan->ops[i])
                reads = catalog_name(&plan->sources[k].stream->ast);
        analyze_row(r, plan->ops[i], reads);
    }
    analyze_row(r, output_op(run->output), (struct slice){0});
    return end(r, "EXPLAIN");
}

/* What a query that runs has done since it was started, and where a second of its time goes. */
static enum verdict analyze(struct request *r, struct ast_names names)
{
    enum verdict v = VERDICT_FAILED;
    const struct server_object *o = find(r, names, &v);
    if (!o)
        return v;
    if (strcmp(o->owner, r->user) != 0 && !r->administers)
        return request_refuse(r, "42501", "%s belongs to %s", o->name, o->owner);
    if (!server_object_runs(o))
        return request_refuse(r, "42809", "%s is no query", o->name);
    if (!o->run || o->run->state != RUN_GOING)
        return request_refuse(r, "55000", "%s does not run now", o->name);
    if (r->step == 0) {
        run_time(o->run, ANALYZE_NS);
        r->until = r->server->now + ANALYZE_NS;
        r->step = 1;
    }
    r->server->again = true; /* it looks at the clock */
    return r->server->now < r->until ? VERDICT_WAIT : analyzed(r, o->run);
}

/* Operators in the order in which rows pass them. */
enum verdict statement_explain(struct request *r, const struct ast *s)
{
    const struct ast_explain *x = AST_AS(explain, s);
    struct sql_error error = {0};
    struct ast_run run;
    if (x->name.count)
        return analyze(r, x->name);
    if (x->analyze) {
        return request_refuse(r, "0A000",
                              "EXPLAIN ANALYZE of a statement cannot be run yet: EXPLAIN ANALYZE QUERY name "
                              "is about one that runs");
    }
    if (!server_statement_run(x->statement, &r->arena, &run, &error))
        return request_refuse(r, "0A000", "only queries can be explained");
    struct query *q = server_plan(r->server, r->vhost, NULL, &run, 0, &r->arena, NULL, &error);
    if (!q)
        return request_error(r, &error, r->text, 0);
    enum verdict v = may_read(r, query_plan(q));
    v = v == VERDICT_DONE ? explain(r, query_plan(q)) : v;
    query_free(&q);
    return v;
}
