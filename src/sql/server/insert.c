/* INSERT INTO a stream VALUES …, see server_int.h: rows of constants, encoded as those of a query are, and produced.
 *
 * The rows of a partition are one batch; each is there as a whole or not at all, and the statement is done when all are durable. */
#include "sql/server/server_int.h"

#include "base/mem.h"
#include "core/stream_admin.h"
#include "sql/language/constant.h"

#define ROWS_MAX 10000u
#define OUTPUT_BYTES_MAX (16u << 20)
#define BATCH_MEMORY_MAX (4u << 20)

enum insert_step { INSERT_BEGIN, INSERT_LOOKED, INSERT_WRITING };

struct server_insert {
    struct output *output;
    struct output_group *group;
    uint32_t at; /* in the group */
};

void server_insert_free(struct sql_server *server, struct server_insert **insert)
{
    struct server_insert *i = *insert;
    *insert = NULL;
    if (!i)
        return;
    output_group_free(server->heap, &i->group);
    output_free(&i->output);
    mem_free(i);
}

static const struct server_object *target_of(struct request *r, const struct ast_insert *s)
{
    struct server_object *o = server_object_find(r->server, r->vhost, s->name.at[s->name.count - 1]);
    bool writes = o && o->relation && o->relation->kind == AST_CREATE_STREAM && o->kind != KIND_MATERIALIZED;
    return writes ? o : NULL;
}

static struct slice topic_of(const struct server_object *o)
{
    return o->with.topic.len ? o->with.topic : slice_str(o->name);
}

static enum verdict begin(struct request *r, const struct ast_insert *s)
{
    uint8_t room[256];
    struct writer w = writer_of(room, sizeof room);
    struct slice none = {0}, name = s->name.at[s->name.count - 1];
    const struct server_object *o = target_of(r, s);
    if (s->options.count)
        return request_refuse(r, "0A000", "INSERT of VALUES has no options");
    if (!o)
        return request_refuse(r, "42P01", "there is no stream %.*s", SLICE_ARG(name));
    if (server_object_is_queue(o))
        return request_refuse(r, "0A000", "INSERT of VALUES is for streams, and %s is a queue", o->name);
    writer_str8(&w, topic_of(o));
    r->step = INSERT_LOOKED;
    return request_ask(r, CMD_STREAM_LIST, ask_new(writer_slice(&w), none, none, none), 0, 0);
}

/* ---- rows ---- */

struct values {
    struct request *r;
    const struct slice *names;
    struct plan_column *columns;
    uint32_t count;
    struct constants constants;
    struct arena batch;
    struct op *sink;
};

/* A row that the stream cannot have is no dead letter here: the statement says so. */
static void on_refused(void *arg, uint32_t origin, enum sql_fault fault)
{
    (void)origin;
    *(enum sql_fault *)arg = fault;
}

static bool put_row(struct values *v, const struct ast_row *row, struct sql_error *error)
{
    struct column columns[512];
    enum sql_fault refused = SQL_FAULT_NONE;
    struct step step = {.rows = 1, .ts_us = &v->constants.now_us, .divert = on_refused, .divert_arg = &refused};
    if (row->items.count != v->count) {
        sql_error_set(error, SQL_FAULT_VALUE, row->ast.at, row->ast.len, "%u columns get the values of %u", v->count,
                      (unsigned)row->items.count);
        return false;
    }
    for (uint32_t i = 0; i < v->count; i++)
        if (!constant_value(&v->constants, row->items.at[i], &v->columns[i].type, &columns[i], error))
            return false;
    struct batch batch = {
        .arena = &v->batch, .columns = columns, .column_count = v->count, .rows = 1, .sel = {.count = 1}};
    bool ok = op_push(v->sink, &step, &batch) && op_flush(v->sink, &step);
    if (!ok || refused != SQL_FAULT_NONE)
        sql_error_set(error, ok ? refused : step.fault, row->ast.at, row->ast.len, "%s",
                      sql_fault_text(ok ? refused : step.fault));
    arena_recycle(&v->batch);
    return ok && refused == SQL_FAULT_NONE;
}

static bool types_of(struct values *v, const struct ast_create_stream *stream, struct sql_error *error)
{
    for (uint32_t i = 0; i < v->count; i++) {
        const struct ast_column *c = server_column_of(stream, v->names[i]);
        v->columns[i].name = v->names[i];
        if (!c->type || !type_of_ast(c->type, &v->r->arena, &v->columns[i].type, error))
            return false;
    }
    return true;
}

static bool put_rows(struct values *v, const struct ast_values *rows, struct output *output, struct sql_error *error)
{
    struct plan plan = {.columns = v->columns, .column_count = v->count};
    v->sink = output_op(output);
    if (!output_bind(output, &plan, error))
        return false;
    for (size_t i = 0; i < rows->rows.count; i++)
        if (!put_row(v, AST_AS(row, rows->rows.at[i]), error))
            return false;
    if (output_cut(output))
        return true;
    sql_error_set(error, SQL_FAULT_MEMORY, rows->ast.at, rows->ast.len, "no memory for the rows");
    return false;
}

static bool encode(struct request *r, const struct ast_insert *s, const struct server_object *target,
                   const struct stream_row *row, struct sql_error *error)
{
    const struct ast_values *rows = AST_AS(values, AST_AS(query, s->query)->body);
    struct output_target to = {.queue = row->id, .partitions = row->partitions};
    struct values v = {.r = r};
    struct slice *names;
    bool ok = output_target_of(target->statement, &to, error) && server_insert_format(target, s, &to, error) &&
              server_insert_columns(target, s, &r->arena, &names, &v.count, error);
    v.names = ok ? names : NULL;
    v.columns = ok ? arena_take(&r->arena, (v.count + 1) * sizeof *v.columns) : NULL;
    r->insert = v.columns && v.count <= 512 ? mem_zalloc(sizeof *r->insert) : NULL;
    if (r->insert)
        r->insert->output = output_new(r->server->heap, &to, OUTPUT_BYTES_MAX);
    if (!r->insert || !r->insert->output) {
        sql_error_set(error, SQL_FAULT_MEMORY, s->ast.at, s->ast.len, "no memory for the rows");
        return false;
    }
    arena_init(&v.batch, BATCH_MEMORY_MAX);
    v.constants = (struct constants){&r->arena, &v.batch, r->server->wall * 1000};
    ok = types_of(&v, AST_AS(create_stream, target->relation), error) && put_rows(&v, rows, r->insert->output, error);
    arena_fini(&v.batch);
    r->rows = rows->rows.count;
    return ok;
}

/* ---- writing ---- */

static enum verdict write_next(struct request *r, const struct ast_insert *s)
{
    struct server_insert *i = r->insert;
    bool answered = r->answer.type != EFF_NONE;
    if (answered && (r->answer.type != EFF_PRODUCED || r->answer.flags != PRODUCE_OK))
        return request_refuse(r, r->answer.flags == PRODUCE_REFUSED ? "42501" : "53000",
                              r->answer.flags == PRODUCE_REFUSED ? "the user may not write there"
                                                                 : "the broker has no room now");
    while (i->group && i->at == i->group->count) {
        output_group_free(r->server->heap, &i->group);
        i->at = 0;
    }
    if (!i->group)
        i->group = output_take(i->output);
    if (!i->group) {
        lines_text(&r->out, "{\"done\":\"INSERT\",\"name\":");
        lines_string(&r->out, s->name.at[s->name.count - 1]);
        lines_text(&r->out, ",\"rows\":");
        lines_number(&r->out, (int64_t)r->rows);
        lines_text(&r->out, "}\n");
        return VERDICT_DONE;
    }
    struct query_output *o = &i->group->outputs[i->at];
    struct command *c = request_slot(r, CMD_PRODUCE);
    if (!c)
        return VERDICT_FAILED;
    c->number = o->queue;
    c->channel = (uint16_t)o->partition;
    c->msg = o->msg;
    o->msg = NULL;
    i->at++;
    r->part++;
    return VERDICT_WAIT;
}

/* ---- the statement ---- */

static enum verdict looked(struct request *r, const struct ast_insert *s)
{
    struct stream_row row;
    struct sql_error error = {0};
    const struct server_object *o = target_of(r, s);
    struct reader fields = reader_of(r->answer.answer ? r->answer.answer->fields : (struct slice){0});
    if (!o || !stream_row_next(&fields, &row) || row.result != STREAM_DONE)
        return request_refuse(r, "42P01", "the stream %.*s is not there", SLICE_ARG(s->name.at[s->name.count - 1]));
    if (!(row.verbs & STREAM_MAY_WRITE))
        return request_refuse(r, "42501", "the user %s may not write to %.*s", r->user, SLICE_ARG(row.name));
    if (AST_AS(values, AST_AS(query, s->query)->body)->rows.count > ROWS_MAX)
        return request_refuse(r, "54000", "more than %u rows", ROWS_MAX);
    if (!encode(r, s, o, &row, &error))
        return request_error(r, &error, r->text, 0);
    request_answered(r);
    r->step = INSERT_WRITING;
    return VERDICT_WAIT;
}

enum verdict statement_insert_values(struct request *r, const struct ast *s)
{
    const struct ast_insert *insert = AST_AS(insert, s);
    switch ((enum insert_step)r->step) {
    case INSERT_BEGIN: return begin(r, insert);
    case INSERT_LOOKED: return looked(r, insert);
    case INSERT_WRITING: return write_next(r, insert);
    }
    return VERDICT_FAILED;
}
