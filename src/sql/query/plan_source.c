/* Streams and what their names mean, see plan_int.h: a column is a path of the scan, and so is a field of one that is a ROW. */
#include "sql/query/plan_int.h"

#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>

#define COLUMNS_FIRST 8u /* of a source; more are made room for */

void *plan_take(struct planner *p, const struct ast *place, size_t len)
{
    void *got = arena_take(p->arena, len);
    if (!got)
        sql_error_set(p->error, SQL_FAULT_MEMORY, place->at, place->len, "no memory for the statement");
    else
        memset(got, 0, len);
    return got;
}

void *plan_refuse(struct planner *p, const struct ast *place, const char *format, ...)
{
    char text[sizeof p->error->message];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    sql_error_set(p->error, SQL_FAULT_UNBOUNDED, place->at, place->len, "%s", text);
    return NULL;
}

struct binder plan_binder(struct planner *p, const struct scope *scope)
{
    return (struct binder){.scope = scope, .arena = p->arena, .error = p->error};
}

static bool columns_grow(struct planner *p, struct source *s, const struct ast *place)
{
    uint32_t room = s->room ? 2 * s->room : COLUMNS_FIRST;
    struct source_column *more = plan_take(p, place, room * sizeof *more);
    if (!more)
        return false;
    if (s->count)
        memcpy(more, s->columns, s->count * sizeof *more);
    s->columns = more;
    s->room = room;
    return true;
}

/* The column of the scan with that path (which is copied) or pseudo-column, which is made when it is not there. */
static struct expr *source_column(struct planner *p, struct source *s, const struct source_column *wanted,
                                  const struct ast *place)
{
    static const struct scope none = {0};
    struct binder b = plan_binder(p, &none);
    for (uint32_t i = 0; i < s->count; i++) {
        const struct source_column *c = &s->columns[i];
        bool same = c->pseudo == wanted->pseudo && c->path.steps == wanted->path.steps &&
                    type_equal(&c->path.type, &wanted->path.type) && c->path.not_null == wanted->path.not_null;
        for (uint32_t k = 0; same && k < c->path.steps; k++)
            same = slice_equal(c->path.path[k].key, wanted->path.path[k].key) &&
                   c->path.path[k].index == wanted->path.path[k].index;
        if (same)
            return c->x;
    }
    if (s->count == SCAN_COLUMNS_MAX) {
        sql_error_set(p->error, SQL_FAULT_LIMIT, place->at, place->len, "more than %u columns of a stream",
                      SCAN_COLUMNS_MAX);
        return NULL;
    }
    struct expr *x = expr_new(&b, EXPR_COLUMN, place, 0);
    if (!x)
        return NULL;
    x->column = s->count;
    x->type = wanted->path.type;
    if (s->count == s->room && !columns_grow(p, s, place))
        return NULL;
    struct json_step *path = plan_take(p, place, (wanted->path.steps + 1) * sizeof *path);
    if (!path)
        return NULL;
    for (uint32_t k = 0; k < wanted->path.steps; k++)
        path[k] = wanted->path.path[k];
    s->columns[s->count] = *wanted;
    s->columns[s->count].path.path = path;
    s->columns[s->count++].x = x;
    s->scanned += wanted->pseudo < 0;
    return x;
}

static const struct {
    const char *name;
    enum sql_type_kind type;
    const char *attribute; /* of a CloudEvent; NULL: the log knows it */
} pseudos[PSEUDOS] = {[PSEUDO_OFFSET] = {"_offset", TYPE_BIGINT, NULL},
                      [PSEUDO_PARTITION] = {"_partition", TYPE_INT, NULL},
                      [PSEUDO_TS] = {"_ts", TYPE_TIMESTAMP, NULL},
                      [PSEUDO_KEY] = {"_key", TYPE_TEXT, NULL},
                      [PSEUDO_HEADERS] = {"_headers", TYPE_JSON, NULL},
                      [PSEUDO_EVENT] = {"_id", TYPE_TEXT, "id"},
                      {"_source", TYPE_TEXT, "source"},
                      {"_type", TYPE_TEXT, "type"},
                      {"_subject", TYPE_TEXT, "subject"},
                      {"_time", TYPE_TIMESTAMP, "time"},
                      {"_data", TYPE_JSON, "data"}};

static const struct ast_watermark *watermark_of(const struct ast_create_stream *stream)
{
    for (size_t i = 0; i < stream->elements.count; i++)
        if (stream->elements.at[i]->kind == AST_WATERMARK)
            return AST_AS(watermark, stream->elements.at[i]);
    return NULL;
}

static struct expr *pseudo_expr(struct planner *p, struct source *s, enum pseudo which, const struct ast *place)
{
    struct json_step attribute = {0};
    struct source_column c = {.pseudo = (int)which, .path = {.type = type_of(pseudos[which].type)}};
    if (which >= PSEUDO_EVENT) {
        c.pseudo = -1;
        attribute.key = slice_str(pseudos[which].attribute);
        c.path.path = &attribute;
        c.path.steps = 1;
    }
    struct expr *x = source_column(p, s, &c, place);
    if (x && which == PSEUDO_TS) {
        x->clock = s->arrival;
        s->arrival->expr = x;
    }
    return x;
}

/* PRIMARY KEY beside the column, or of the stream. */
static bool in_primary_key(const struct ast_create_stream *stream, const struct ast_column *c)
{
    for (size_t i = 0; i < stream->elements.count; i++) {
        const struct ast_primary_key *key = AST_AS(primary_key, stream->elements.at[i]);
        for (size_t k = 0; key->ast.kind == AST_PRIMARY_KEY && k < key->columns.count; k++)
            if (name_equal(key->columns.at[k], c->name))
                return true;
    }
    return c->primary;
}

/* Where a column of the statement stands in a record: at most two steps. */
static uint32_t column_path(const struct source *s, const struct ast_column *column, struct json_step *ret)
{
    uint32_t steps = 0;
    if (s->events)
        ret[steps++] = (struct json_step){.key = slice_str("data")};
    if (s->rule.format == SCAN_JSON) {
        ret[steps++] = (struct json_step){.key = column->name};
        return steps;
    }
    uint32_t position = 0; /* among those that are not computed */
    for (size_t i = 0; s->stream->elements.at[i] != &column->ast; i++) {
        const struct ast *e = s->stream->elements.at[i];
        position += e->kind == AST_COLUMN && !AST_AS(column, e)->computed;
    }
    ret[steps++] = (struct json_step){.index = position};
    return steps;
}

static struct expr *element_expr(struct planner *p, struct lazy *lazy, const struct ast *place)
{
    struct source *s = lazy->source;
    const struct ast_create_stream *stream = s->stream;
    if (lazy->element >= stream->elements.count)
        return pseudo_expr(p, s, (enum pseudo)(lazy->element - stream->elements.count), place);
    const struct ast_column *c = AST_AS(column, stream->elements.at[lazy->element]);
    struct sql_type type;
    if (c->type && !type_of_ast(c->type, p->arena, &type, p->error))
        return NULL;
    if (!c->computed) {
        struct json_step path[2];
        struct source_column wanted = {.pseudo = -1,
                                       .path = {.path = path,
                                                .steps = column_path(s, c, path),
                                                .type = type,
                                                .not_null = c->not_null || in_primary_key(stream, c)}};
        return source_column(p, s, &wanted, place);
    }
    struct stage own;
    if (!plan_open(p, stream, (struct slice){0}, &own))
        return NULL;
    struct expr *x = stage_bind(p, &own, c->computed);
    static const struct scope none = {0};
    struct binder b = plan_binder(p, &none);
    return c->type ? coerce(&b, x, &type, true, false) : x;
}

struct expr *lazy_expr(struct planner *p, struct lazy *lazy, const struct ast *place)
{
    if (lazy->x)
        return lazy->x;
    if (p->nested == PLAN_VIEWS_MAX) /* each opens the stream anew, so a circle is no more than depth */
        return plan_refuse(p, place, "a computed column that is computed from itself, or more than %u deep",
                           PLAN_VIEWS_MAX);
    p->nested++;
    if (lazy->join) {
        struct expr *inner = lazy_expr(p, lazy->of, place);
        lazy->x = inner ? join_column(p, lazy->join, lazy->side, inner, place) : NULL;
        p->nested--;
        return lazy->x;
    }
    if (lazy->pass) {
        lazy->x = plan_passed(p, lazy->pass, lazy_expr(p, lazy->of, place), place);
        p->nested--;
        return lazy->x;
    }
    lazy->x = element_expr(p, lazy, place);
    p->nested--;
    const struct ast_watermark *w = watermark_of(lazy->source->stream);
    bool column = lazy->x && lazy->element < lazy->source->stream->elements.count;
    if (column && w && name_equal(w->column, AST_AS(column, lazy->source->stream->elements.at[lazy->element])->name)) {
        if (lazy->x->type.kind != TYPE_TIMESTAMP)
            return bind_fail(&(struct binder){.error = p->error}, &w->ast, SQL_FAULT_TYPE,
                             "a watermark is for a column of type timestamp");
        lazy->x->clock = lazy->source->clock;
    }
    return lazy->x;
}

bool stage_name(struct planner *p, struct stage *s, struct slice table, struct slice name, struct lazy *lazy,
                const struct ast *place)
{
    if (s->count == s->room) {
        uint32_t room = s->room ? 2 * s->room : 16;
        struct named *more = s->count < PLAN_COLUMNS_MAX ? plan_take(p, place, room * sizeof *more) : NULL;
        if (!more) {
            sql_error_set(p->error, SQL_FAULT_LIMIT, place->at, place->len, "more than %u columns", PLAN_COLUMNS_MAX);
            return false;
        }
        if (s->count)
            memcpy(more, s->names, s->count * sizeof *more);
        s->names = more;
        s->room = room;
    }
    s->names[s->count++] = (struct named){.table = table, .name = name, .lazy = lazy};
    return true;
}

bool stage_name_expr(struct planner *p, struct stage *s, struct slice table, struct slice name, struct expr *x,
                     const struct ast *place)
{
    struct lazy *lazy = x ? plan_take(p, place, sizeof *lazy) : NULL;
    if (!lazy)
        return false;
    lazy->x = x;
    return stage_name(p, s, table, name, lazy, place);
}

/* ---------------------------------------------------------------------------------------------------------- binding */

struct staged {
    struct planner *p;
    struct stage *s;
    const struct ast *place;
    struct scope_column *columns; /* of the bind, to be freed */
};

static struct expr *staged_column(void *arg, uint32_t column)
{
    struct staged *st = arg;
    return lazy_expr(st->p, st->s->names[column].lazy, st->place);
}

/* A field of a ROW that the scan reads is a longer path; through a join and what passes it on, too. */
static struct expr *node_field(struct planner *p, struct node *n, struct expr *row, uint32_t field,
                               const struct ast *place)
{
    struct source *s = n->source;
    if (n->join && row->op == EXPR_COLUMN && row->column < n->join->out_count) {
        const struct join_column *out = &n->join->outs[row->column];
        unsigned side = out->side;
        struct expr *inner = node_field(p, n->join->sides[side].node, out->inner, field, place);
        return inner ? join_column(p, n, side, inner, place) : NULL;
    }
    for (uint32_t i = n->pass_from; n->passed && i < n->item_count; i++)
        if (n->passed[i - n->pass_from] == row) {
            struct expr *inner = node_field(p, n->input->node, n->items[i], field, place);
            return inner ? plan_passed(p, n, inner, place) : NULL;
        }
    if (!s || row->op != EXPR_COLUMN || row->column >= s->count || s->columns[row->column].x != row)
        return NULL;
    struct source_column c = s->columns[row->column];
    if (c.pseudo >= 0 || c.path.steps == JSON_SCAN_STEPS_MAX || s->rule.format != SCAN_JSON)
        return NULL;
    struct json_step longer[JSON_SCAN_STEPS_MAX];
    memcpy(longer, c.path.path, c.path.steps * sizeof *longer);
    longer[c.path.steps++] = (struct json_step){.key = row->type.fields[field]};
    c.path.path = longer;
    c.path.type = row->type.args[field];
    c.path.not_null = false;
    return source_column(p, s, &c, place);
}

static struct expr *staged_field(void *arg, struct expr *row, uint32_t field)
{
    struct staged *st = arg;
    return node_field(st->p, st->s->node, row, field, st->place);
}

/* PROCTIME() is when the row was appended. */
static bool staged_proctime(struct staged *st, const struct ast *node, struct expr **ret)
{
    const struct ast_call *c = AST_AS(call, node);
    struct source *s = st->s->node->source;
    if (node->kind != AST_CALL || c->over || c->args.count || !s ||
        !name_equal(c->name.at[c->name.count - 1], slice_str("proctime")))
        return false;
    *ret = pseudo_expr(st->p, s, PSEUDO_TS, node);
    return true;
}

static bool staged_replace(void *arg, const struct ast *node, struct expr **ret)
{
    struct staged *st = arg;
    for (uint32_t i = 0; i < st->s->call_count; i++)
        if (ast_equal(st->s->calls[i].ast, node)) {
            *ret = lazy_expr(st->p, st->s->calls[i].lazy, node);
            return true;
        }
    return staged_proctime(st, node, ret);
}

/* For the time of one bind, so not in the plan's arena. Columns NULL: no memory, and the error is set. */
static struct scope scope_of(struct planner *p, struct stage *s, struct staged *st, const struct ast *node)
{
    struct scope_column *columns = mem_alloc((s->count + 1) * sizeof *columns);
    if (!columns)
        sql_error_set(p->error, SQL_FAULT_MEMORY, node->at, node->len, "no memory for the statement");
    for (uint32_t i = 0; columns && i < s->count; i++)
        columns[i] = (struct scope_column){
            .table = s->names[i].table, .name = s->names[i].name, .qualified = s->names[i].qualified};
    *st = (struct staged){.p = p, .s = s, .place = node, .columns = columns};
    return (struct scope){.columns = columns,
                          .count = s->count,
                          .column = staged_column,
                          .field = staged_field,
                          .replace = staged_replace,
                          .arg = st};
}

struct expr *stage_bind(struct planner *p, struct stage *s, const struct ast *node)
{
    struct staged st;
    struct scope scope = scope_of(p, s, &st, node);
    struct expr *x = scope.columns ? sql_bind(node, &scope, p->arena, p->error) : NULL;
    mem_free(st.columns);
    return x;
}

struct expr *stage_bind_bool(struct planner *p, struct stage *s, const struct ast *node)
{
    struct staged st;
    struct scope scope = scope_of(p, s, &st, node);
    struct sql_type type = type_of(TYPE_BOOL);
    struct expr *x = scope.columns ? sql_bind_as(node, &type, &scope, p->arena, p->error) : NULL;
    mem_free(st.columns);
    return x;
}

/* ---------------------------------------------------------------------------------------------------------- streams */

static bool set_format(struct planner *p, struct source *s, struct slice name, const struct ast *place)
{
    static const struct {
        const char *name;
        enum scan_format format;
        bool events;
    } formats[] = {{"json", SCAN_JSON, false},
                   {"raw", SCAN_RAW, false},
                   {"csv", SCAN_CSV, false},
                   {"cloudevents", SCAN_JSON, true}};
    size_t i = 0;
    while (i < ARRAY_LEN(formats) && !name_equal(name, slice_str(formats[i].name)))
        i++;
    if (i == ARRAY_LEN(formats))
        return plan_refuse(p, place, "the format %.*s cannot be read yet: json, raw, csv and cloudevents can",
                           SLICE_ARG(name));
    s->rule.format = formats[i].format;
    s->events = formats[i].events;
    return true;
}

/* WITH (format = 'csv', delimiter = ';') */
static bool read_options(struct planner *p, struct source *s)
{
    uint32_t columns = 0;
    s->rule = (struct scan_rule){.format = SCAN_JSON, .delimiter = ','};
    for (size_t i = 0; i < s->stream->options.count; i++) {
        const struct ast_option *o = AST_AS(option, s->stream->options.at[i]);
        const struct ast_literal *text = AST_AS(literal, o->value);
        bool format = name_equal(o->key, slice_str("format")), delimiter = name_equal(o->key, slice_str("delimiter"));
        if (!format && !delimiter)
            continue;
        if (o->value->kind != AST_LITERAL || text->what != LITERAL_STRING)
            return plan_refuse(p, &o->ast, "%.*s is a text in quotes", SLICE_ARG(o->key));
        if (delimiter && (text->text.len != 1 || strchr("\"\r\n", text->text.ptr[0])))
            return plan_refuse(p, &o->ast, "a delimiter is one character, and no quote");
        if (delimiter)
            s->rule.delimiter = (char)text->text.ptr[0];
        else if (!set_format(p, s, text->text, &o->ast))
            return false;
    }
    for (size_t i = 0; i < s->stream->elements.count; i++) {
        const struct ast *e = s->stream->elements.at[i];
        columns += e->kind == AST_COLUMN && !AST_AS(column, e)->computed;
    }
    return s->rule.format != SCAN_RAW || columns == 1 ||
           plan_refuse(p, &s->stream->ast, "a stream of the format raw has one column, and any that are computed");
}

static struct source *source_of(struct planner *p, const struct ast_create_stream *stream)
{
    struct plan *plan = p->plan;
    for (uint32_t i = 0; i < plan->source_count; i++)
        if (plan->sources[i].stream == stream)
            return &plan->sources[i];
    if (plan->source_count == PLAN_SOURCES_MAX)
        return plan_refuse(p, &stream->ast, "a query over more than %u streams", PLAN_SOURCES_MAX);
    struct source *s = &plan->sources[plan->source_count];
    s->stream = stream;
    s->node = plan_take(p, &stream->ast, sizeof *s->node);
    s->clock = plan_take(p, &stream->ast, sizeof *s->clock);
    s->arrival = plan_take(p, &stream->ast, sizeof *s->arrival);
    if (!s->node || !s->clock || !s->arrival || !read_options(p, s))
        return NULL;
    s->node->source = s;
    const struct ast_watermark *w = watermark_of(stream);
    s->idle_us = IDLE_DEFAULT_US;
    if (w && w->idle && !plan_duration(p, w->idle, &s->idle_us))
        return NULL;
    if (s->idle_us <= 0)
        return bind_fail(&(struct binder){.error = p->error}, w->idle, SQL_FAULT_ARGUMENT, "IDLE AFTER is above zero");
    s->clock->source = s->arrival->source = plan->source_count++;
    s->clock->now = s->arrival->now = TIME_NEVER;
    if (!w)
        s->clock = NULL;
    return s;
}

bool plan_use_clock(struct planner *p, const struct clock *clock, const struct ast *place)
{
    struct source *s = &p->plan->sources[clock->source];
    const struct ast_watermark *w = watermark_of(s->stream);
    struct ast_names parts = {.at = w ? (struct slice *)&w->column : NULL, .count = 1};
    struct ast_name name = {.ast = {.kind = AST_NAME, .at = place->at, .len = place->len}, .parts = parts};
    struct stage own;
    if (clock->of[0])
        return plan_use_clock(p, clock->of[0], place) && plan_use_clock(p, clock->of[1], place);
    if (clock == s->arrival || s->clock->expr)
        return true;
    if (!plan_open(p, s->stream, (struct slice){0}, &own))
        return false;
    struct expr *x = stage_bind(p, &own, w->expr ? w->expr : &name.ast);
    if (x && x->type.kind != TYPE_TIMESTAMP)
        sql_error_set(p->error, SQL_FAULT_TYPE, w->ast.at, w->ast.len, "a watermark is a timestamp");
    if (!x || x->type.kind != TYPE_TIMESTAMP)
        return false;
    s->clock->expr = x;
    return true;
}

const struct clock *plan_joint_clock(struct planner *p, const struct clock *a, const struct clock *b,
                                     const struct ast *place)
{
    struct plan *plan = p->plan;
    if (a == b)
        return a;
    for (uint32_t i = 0; i < plan->joint_count; i++) {
        struct clock *c = plan->joint[i];
        if ((c->of[0] == a && c->of[1] == b) || (c->of[0] == b && c->of[1] == a))
            return c;
    }
    if (plan->joint_count == PLAN_JOINT_MAX)
        return plan_refuse(p, place, "more than %u pairs of watermarks", PLAN_JOINT_MAX);
    struct clock *c = plan_take(p, place, sizeof *c);
    if (!c)
        return NULL;
    *c = (struct clock){.source = a->source, .now = TIME_NEVER, .of = {a, b}};
    plan->joint[plan->joint_count++] = c;
    return c;
}

bool plan_open(struct planner *p, const struct ast_create_stream *stream, struct slice alias, struct stage *ret)
{
    struct source *s = source_of(p, stream);
    if (!s)
        return false;
    *ret = (struct stage){.node = s->node};
    for (uint32_t i = 0; i < stream->elements.count + PSEUDOS; i++) {
        bool pseudo = i >= stream->elements.count;
        if (pseudo ? i - stream->elements.count >= PSEUDO_EVENT && !s->events
                   : stream->elements.at[i]->kind != AST_COLUMN)
            continue;
        struct slice name =
            pseudo ? slice_str(pseudos[i - stream->elements.count].name) : AST_AS(column, stream->elements.at[i])->name;
        struct lazy *lazy = plan_take(p, &stream->ast, sizeof *lazy);
        if (!lazy)
            return false;
        lazy->source = s;
        lazy->element = i;
        if (!stage_name(p, ret, alias, name, lazy, &stream->ast))
            return false;
        ret->names[ret->count - 1].hidden = pseudo;
    }
    return true;
}

static uint64_t type_hash(const struct sql_type *type, uint64_t h)
{
    h = (h ^ ((uint64_t)type->kind << 16 | (uint64_t)type->digits << 8 | type->scale)) * 31 + type->count;
    for (uint16_t i = 0; i < type->count; i++) {
        h = type_hash(&type->args[i], h);
        if (type->fields)
            h = (h ^ key_hash(type->fields[i], 0)) * 31;
    }
    return h;
}

uint64_t plan_source_hash(const struct source *source)
{
    uint64_t h = source->count + ((uint64_t)source->rule.format << 16 | (uint64_t)source->events << 24 |
                                  (uint64_t)(uint8_t)source->rule.delimiter << 32);
    for (uint32_t i = 0; i < source->count; i++) {
        const struct source_column *c = &source->columns[i];
        h = type_hash(&c->path.type, h * 31 + (uint64_t)(c->pseudo + 1)) * 2 + c->path.not_null;
        for (uint32_t k = 0; k < c->path.steps; k++)
            h = (h ^ key_hash(c->path.path[k].key, 0)) * 31 + c->path.path[k].index;
    }
    for (size_t i = 0; i < source->stream->elements.count; i++) {
        const struct ast *e = source->stream->elements.at[i];
        if (e->kind != AST_COLUMN || AST_AS(column, e)->computed)
            h = ast_hash(e, h);
    }
    return h;
}
