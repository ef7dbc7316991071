/* CREATE and INSERT INTO … SELECT, see server_int.h.
 *
 * What is created is parsed and planned first, so that nothing is made in the broker for a statement that is wrong. Then come, one after another,
 * what it stands on (a stream, its bindings, a queue; all of which may be there already), and the entry in the catalogue, by which it exists. A query that
 * replaces one enters it under another name, and the statement waits until it has taken its place (server/switch.c). */
#include "sql/server/server_int.h"

#include "base/mem.h"
#include "core/stream_admin.h"
#include "fmt/amqp_table.h"

#include <stdio.h>

enum create_step {
    CREATE_BEGIN,
    CREATE_READS, /* may the user read that? */
    CREATE_LOOK,  /* is there such a stream? */
    CREATE_LOOKED,
    CREATE_MADE,   /* the stream */
    CREATE_OPENED, /* a channel, for what follows */
    CREATE_BOUND,  /* part: keys */
    CREATE_FOUND,  /* the queue or exchange of a sink */
    CREATE_REOPENED,
    CREATE_DECLARED,
    CREATE_CLOSED,
    CREATE_PUT,
    CREATE_ENTERED,
    CREATE_BUILDING, /* it replaces a query, and has not taken its place yet */
};

/* ---- names ---- */

static struct ast_names names_of(const struct ast *s)
{
    return s->kind == AST_CREATE_STREAM ? AST_AS(create_stream, s)->name
           : s->kind == AST_CREATE_VIEW ? AST_AS(create_view, s)->name
           : s->kind == AST_CREATE_SINK ? AST_AS(create_sink, s)->name
                                        : AST_AS(insert, s)->name;
}

static bool flag_of(const struct ast *s, bool replace)
{
    return s->kind == AST_CREATE_STREAM
               ? (replace ? AST_AS(create_stream, s)->replace : AST_AS(create_stream, s)->if_absent)
           : s->kind == AST_CREATE_VIEW
               ? (replace ? AST_AS(create_view, s)->replace : AST_AS(create_view, s)->if_absent)
           : s->kind == AST_CREATE_SINK
               ? (replace ? AST_AS(create_sink, s)->replace : AST_AS(create_sink, s)->if_absent)
               : false;
}

static const char *word_of(const struct ast *s)
{
    return s->kind == AST_CREATE_STREAM ? (AST_AS(create_stream, s)->table ? "CREATE TABLE" : "CREATE STREAM")
           : s->kind == AST_CREATE_VIEW
               ? (AST_AS(create_view, s)->materialized ? "CREATE MATERIALIZED VIEW" : "CREATE VIEW")
           : s->kind == AST_CREATE_SINK ? "CREATE SINK"
                                        : "INSERT";
}

/* INSERT INTO t SELECT … is a query without a name: insert_t, insert_t_2 … */
static struct slice name_for(struct request *r, const struct ast *s, char room[SQL_NAME_MAX + 1])
{
    struct ast_names names = names_of(s);
    struct slice name = names.at[names.count - 1];
    if (s->kind != AST_INSERT)
        return name;
    int len = snprintf(room, SQL_NAME_MAX + 1, "insert_%.*s", (int)(name.len < 200 ? name.len : 200), name.ptr);
    for (unsigned i = 2; server_object_find(r->server, r->vhost, slice_of(room, (size_t)len)); i++)
        len = snprintf(room, SQL_NAME_MAX + 1, "insert_%.*s_%u", (int)(name.len < 200 ? name.len : 200), name.ptr, i);
    return slice_of(room, (size_t)len);
}

static bool infers(const struct ast *s)
{
    return s->kind == AST_CREATE_STREAM && AST_AS(create_stream, s)->infer;
}

/* ---- creating ---- */

/* What the statement is made of and will soon be another one; NULL: nothing is. */
static const struct server_object *being_replaced(const struct server_object *o)
{
    LIST_EACH(&o->server->objects, node, after)
    {
        const struct server_object *next = CONTAINER_OF(node, struct server_object, link);
        if (next->next && strcmp(next->vhost, o->vhost) == 0 &&
            server_statement_names(o->statement, slice_str(next->name)))
            return next;
    }
    return NULL;
}

/* Versions take turns between two streams for their snapshots. */
static bool become_next(struct server_object *o, const struct server_object *old)
{
    char room[SQL_NAME_MAX + sizeof SQL_INTERNAL], own[SQL_NAME_MAX + 2 * sizeof SQL_INTERNAL];
    size_t usual = (size_t)snprintf(own, sizeof own, SQL_INTERNAL "%s", old->name);
    if (slice_equal(server_object_snapshots(old, room), slice_of(own, usual)))
        usual = (size_t)snprintf(own, sizeof own, SQL_INTERNAL SQL_INTERNAL "%s", old->name);
    o->snapshots = usual <= SQL_NAME_MAX ? mem_strdup(own) : NULL;
    o->next = o->snapshots != NULL;
    return o->next;
}

/* What was found, as DESCRIBE has it. */
static void show_inferred(struct request *r)
{
    struct sql_error error = {0};
    struct query *q = server_plan_all(r->server, r->vhost, slice_str(r->object->name), &r->arena, &error);
    if (q)
        server_put_columns(r, query_plan(q));
    query_free(&q);
}

/* Whether the statement may replace that one, which has its name. */
static enum verdict check_replaced(struct request *r, const struct ast *s, const struct server_object *old)
{
    if (!flag_of(s, true))
        return request_refuse(r, "42P07", "there is a %s already", old->name);
    if (strcmp(old->owner, r->user) != 0)
        return request_refuse(r, "42501", "%s belongs to %s", old->name, old->owner);
    if (old->kind == KIND_MATERIALIZED || (s->kind == AST_CREATE_VIEW && AST_AS(create_view, s)->materialized))
        return request_refuse(r, "0A000", "a MATERIALIZED VIEW cannot be replaced yet, nor replace: drop it first");
    const struct server_object *user = server_object_user(old);
    if (user)
        return request_refuse(r, "2BP01", "%s cannot be replaced: %s is made of it", old->name, user->name);
    return VERDICT_DONE;
}

/* Behind what it reads comes what it stands on. */
static enum create_step first_step(const struct server_object *o)
{
    if (o->kind == KIND_VIEW || o->kind == KIND_INSERT)
        return CREATE_PUT;
    return o->kind == KIND_SINK && (o->with.queue.len || o->with.exchange.len) ? CREATE_MADE : CREATE_LOOK;
}

/* old: which has its name now, and is not there for it; NULL: nobody has it. */
static enum verdict ask_reads(struct request *r, struct server_object *old)
{
    struct sql_error error = {0};
    if (old)
        old->hidden = true;
    struct query *q = server_object_plan(r->object, NULL, &error);
    if (old)
        old->hidden = false;
    r->step = CREATE_READS;
    enum verdict v = q ? request_ask_rights(r, query_plan(q)) : request_refuse(r, "53200", "%s", error.message);
    query_free(&q);
    return v;
}

static enum verdict create_begin(struct request *r, const struct ast *s)
{
    struct sql_error error = {0};
    char room[SQL_NAME_MAX + 1];
    struct slice name = name_for(r, s, room), text = slice_of(r->text.ptr + s->at, s->len);
    struct server_object *old = server_object_find(r->server, r->vhost, name);
    if (old && flag_of(s, false)) {
        request_done(r, word_of(s), name);
        return VERDICT_DONE;
    }
    enum verdict v = old ? check_replaced(r, s, old) : VERDICT_DONE;
    if (v == VERDICT_DONE && infers(s))
        v = server_infer(r, AST_AS(create_stream, s), &text);
    if (v != VERDICT_DONE)
        return v;
    if (old)
        old->hidden = true; /* the new one is planned as if it were not there */
    r->object = server_object_new(r->server, r->vhost, name, slice_str(r->user), text, &error);
    if (old)
        old->hidden = false;
    if (!r->object)
        return request_error(r, &error, text, s->at);
    const struct server_object *replaced = being_replaced(r->object);
    if (replaced)
        return request_refuse(r, "55006",
                              "%s is being replaced: wait for that, or give it up by DROP QUERY \"" SERVER_NEXT "%s\"",
                              replaced->name, replaced->name);
    if (server_object_runs(r->object))
        return ask_reads(r, old);
    r->step = first_step(r->object);
    return VERDICT_WAIT;
}

/* Or who may not read a stream would learn its columns from a query that fails. */
static enum verdict may_read(struct request *r)
{
    struct reader fields = reader_of(r->answer.answer ? r->answer.answer->fields : (struct slice){0});
    struct stream_row row;
    if (!fields.left)
        return request_refuse(r, "53200", "what it reads cannot be looked for now");
    while (stream_row_next(&fields, &row))
        if (!(row.verbs & STREAM_MAY_READ))
            return request_refuse(r, "42501", "the user may not read %.*s", SLICE_ARG(row.name));
    request_answered(r);
    r->step = first_step(r->object);
    return VERDICT_WAIT;
}

static struct slice topic_of(const struct server_object *o)
{
    return o->with.topic.len ? o->with.topic : slice_str(o->name);
}

static enum verdict look(struct request *r)
{
    uint8_t room[256];
    struct writer w = writer_of(room, sizeof room);
    struct slice none = {0};
    writer_str8(&w, server_object_is_queue(r->object) ? r->object->with.queue : topic_of(r->object));
    r->step = CREATE_LOOKED;
    return request_ask(r, CMD_STREAM_LIST, ask_new(writer_slice(&w), none, none, none), 0, ASK_SIZES);
}

/* As one that was made for a statement which did not come to its end. */
static bool is_empty(const struct stream_row *row)
{
    struct reader sizes = reader_of(row->sizes);
    struct stream_partition_row partition;
    while (stream_row_sizes(&sizes, &partition))
        if (partition.end)
            return false;
    return reader_ok(&sizes);
}

/* Of a table the last record of each key is all that counts: the stream that is made for it is compacted. */
static enum verdict make_stream(struct request *r)
{
    uint8_t room[64];
    struct writer args = writer_of(room, sizeof room);
    struct slice none = {0};
    if (server_object_is_keyed(r->object))
        amqp_put_str(&args, "x-cleanup-policy", slice_str("compact"));
    return request_ask(r, CMD_STREAM_CREATE, ask_new(topic_of(r->object), none, none, writer_slice(&args)),
                       r->object->with.partitions, 0);
}

/* It may be there, or is made; a stream is no queue. */
static enum verdict looked_queue(struct request *r, const struct stream_row *row)
{
    struct slice queue = r->object->with.queue;
    if (row->result == STREAM_DONE)
        return request_refuse(r, "42809", "%.*s is a stream, and no queue", SLICE_ARG(queue));
    if (row->result == STREAM_REFUSED || !(row->verbs & STREAM_MAY_READ))
        return request_refuse(r, "42501", "the user %s may not read %.*s", r->user, SLICE_ARG(queue));
    request_answered(r);
    r->step = CREATE_MADE;
    return VERDICT_WAIT;
}

static enum verdict looked(struct request *r)
{
    struct stream_row row = {.result = STREAM_NO_ROOM};
    struct slice topic = topic_of(r->object);
    struct reader fields = reader_of(r->answer.answer ? r->answer.answer->fields : (struct slice){0});
    bool reads = r->object->kind == KIND_STREAM;
    if (!stream_row_next(&fields, &row) && row.result != STREAM_DONE)
        return request_refuse(r, "53200", "the stream %.*s cannot be looked for now", SLICE_ARG(topic));
    if (server_object_is_queue(r->object))
        return looked_queue(r, &row);
    if (row.result == STREAM_IS_QUEUE)
        return request_refuse(r, "42809", "%.*s is a queue, and no stream", SLICE_ARG(topic));
    if (row.result == STREAM_REFUSED ||
        (row.result == STREAM_DONE && !(row.verbs & (reads ? STREAM_MAY_READ : STREAM_MAY_WRITE))))
        return request_refuse(r, "42501", "the user %s may not %s %.*s", r->user, reads ? "read" : "write to",
                              SLICE_ARG(topic));
    if (row.result == STREAM_DONE && r->object->with.partitions && r->object->with.partitions != row.partitions)
        return request_refuse(r, "42P16", "the stream %.*s has %u partitions", SLICE_ARG(topic), row.partitions);
    if (row.result == STREAM_DONE && r->object->kind == KIND_MATERIALIZED &&
        (!is_empty(&row) || row.limits.compacts != server_object_is_keyed(r->object)))
        return request_refuse(r, "42P07", "there is a stream %.*s already, whose records would be rows of the view",
                              SLICE_ARG(topic));
    r->step = CREATE_MADE;
    if (row.result == STREAM_DONE) {
        request_answered(r);
        return VERDICT_WAIT;
    }
    return make_stream(r);
}

static enum verdict made(struct request *r)
{
    const struct answer *a = r->answer.answer;
    const struct server_object *o = r->object;
    struct slice topic = topic_of(o);
    if (r->answer.type && (!a || (a->number != STREAM_DONE && a->number != STREAM_EXISTS)))
        return request_refuse(r, a && a->number == STREAM_REFUSED ? "42501" : "53000",
                              "the stream %.*s cannot be made: %.*s", SLICE_ARG(topic),
                              SLICE_ARG(a ? a->text : slice_str("no memory")));
    bool binds = o->kind == KIND_STREAM && AST_AS(create_stream, o->statement)->exchange.ptr;
    if (!binds && !o->with.queue.len && !o->with.exchange.len) {
        r->step = CREATE_PUT;
        return VERDICT_WAIT;
    }
    r->step = CREATE_OPENED;
    r->channel = server_session_channel(r->session);
    return request_command(r, CMD_CHANNEL_OPEN, 0);
}

static bool failed(const struct request *r)
{
    return r->answer.type == EFF_ERROR;
}

static enum verdict close_channel(struct request *r)
{
    r->step = CREATE_CLOSED;
    return request_command(r, CMD_CHANNEL_CLOSE, 0);
}

/* The channel has failed: it goes, and the request with it. */
static enum verdict core_refuses(struct request *r)
{
    enum verdict v = request_refuse(r, "42501", "%.*s",
                                    SLICE_ARG(r->answer.answer ? r->answer.answer->text : slice_str("no memory")));
    request_answered(r);
    struct command *c = server_command(r->session, NULL, CMD_CHANNEL_CLOSE, false);
    if (c)
        c->channel = r->channel;
    return v;
}

static enum verdict bind(struct request *r)
{
    const struct server_object *o = r->object;
    struct slice none = {0};
    if (failed(r))
        return core_refuses(r);
    if (o->with.queue.len || o->with.exchange.len) {
        bool queue = o->with.queue.len;
        r->step = CREATE_FOUND;
        return request_ask(r, queue ? CMD_QUEUE_DECLARE : CMD_EXCHANGE_DECLARE,
                           ask_new(queue ? o->with.queue : o->with.exchange, none, none, none), 0, ASK_PASSIVE);
    }
    const struct ast_create_stream *stream = AST_AS(create_stream, o->statement);
    size_t keys = stream->keys.count ? stream->keys.count : 1;
    if (r->part == keys)
        return close_channel(r);
    struct slice key = stream->keys.count ? stream->keys.at[r->part] : none;
    r->part++;
    return request_ask(r, CMD_QUEUE_BIND, ask_new(topic_of(o), stream->exchange, key, none), 0, 0);
}

static enum verdict found(struct request *r)
{
    if (!failed(r))
        return close_channel(r);
    if (!r->object->with.queue.len || !r->answer.answer || r->answer.answer->code != ERR_NOT_FOUND)
        return core_refuses(r);
    request_answered(r);
    r->step = CREATE_REOPENED;
    struct command *c = server_command(r->session, NULL, CMD_CHANNEL_CLOSE, false);
    if (!c)
        return request_refuse(r, "53000", "the broker has too much to do");
    c->channel = r->channel;
    r->channel = server_session_channel(r->session); /* the old one's last effect has not come yet */
    return request_command(r, CMD_CHANNEL_OPEN, 0);
}

static enum verdict declare(struct request *r)
{
    struct slice none = {0};
    if (failed(r))
        return core_refuses(r);
    r->step = CREATE_DECLARED;
    return request_ask(r, CMD_QUEUE_DECLARE, ask_new(r->object->with.queue, none, none, none), 0, ASK_DURABLE);
}

/* It is built beside the old one. What one of them has taken from a queue goes back to it, and to the other: then there is nothing to build from. */
static bool is_built(const struct server_object *o, const struct server_object *old)
{
    return old && server_object_runs(old) && server_object_runs(o) && !old->takes && !o->takes;
}

/* What replaces another one has no part in its trail, and takes its place in one step. Which one has the name now is looked at here: that may have changed since
 * the statement was begun. */
static enum verdict put(struct request *r, const struct ast *s)
{
    struct server_object *o = r->object, *old = server_object_find(r->server, r->vhost, slice_str(o->name));
    char name[SQL_NAME_MAX + sizeof SERVER_NEXT];
    struct slice none = {0};
    enum verdict v = request_next_dropped(r);
    if (v != VERDICT_DONE)
        return v;
    if (old && server_object_switching(old))
        return VERDICT_WAIT;
    if (old && check_replaced(r, s, old) != VERDICT_DONE)
        return VERDICT_FAILED;
    if (is_built(o, old) && !become_next(o, old))
        return request_refuse(r, "54000", "%s: its name is too long for a query that is to be replaced, or no memory",
                              old->name);
    v = !o->next && old ? request_drop_next(r, old) : VERDICT_DONE;
    if (v != VERDICT_DONE)
        return v;
    old = o->next ? server_object_next(old) : old; /* whose name it gets in the catalogue; NULL: nobody has it */
    r->channel = 0;
    r->step = CREATE_ENTERED;
    snprintf(name, sizeof name, "%s%s", o->next ? SERVER_NEXT : "", o->name);
    struct ask *ask = ask_new(slice_str(name), slice_str(o->text), none, server_text(o->snapshots));
    v = request_ask(r, CMD_SQL_PUT, ask, old ? old->id : 0, old && server_object_runs(old) ? ASK_ANEW : 0);
    if (v == VERDICT_WAIT) /* not published yet */
        ask->number = o->kind;
    return v;
}

static enum verdict entered(struct request *r, const struct ast *s)
{
    struct server_object *o = r->object, *old = server_object_find(r->server, r->vhost, slice_str(o->name));
    if (o->next && old)
        old = server_object_next(old);
    if (request_result(r) != QUERY_DONE)
        return request_refuse(r, request_result(r) == QUERY_EXISTS ? "42P07" : "53000", "%s cannot be made: %s",
                              r->object->name, server_result_text(request_result(r)));
    if (old) {
        request_forget_snapshots(r, old);
        server_object_remove(old);
    }
    server_object_add(r->object, r->answer.answer->number2);
    if (server_object_runs(r->object) && !server_run_start(r->object))
        server_object_state(r->object, SQL_FAILED, "no memory to start it");
    if (r->object->next) {
        request_answered(r);
        r->step = CREATE_BUILDING;
        return VERDICT_WAIT;
    }
    if (infers(s))
        show_inferred(r);
    request_done(r, word_of(s), slice_str(r->object->name));
    return VERDICT_DONE;
}

/* Whoever does not wait any more leaves it to itself. */
static enum verdict built(struct request *r, const struct ast *s)
{
    const struct server_object *o = r->object;
    if (list_empty(&o->link))
        return request_refuse(r, "57014", "%s: what was to replace it was dropped", o->name);
    if (o->state == SQL_FAILED)
        return request_refuse(r, "55000", "%s is not replaced: %s", o->name, o->reason);
    if (o->next)
        return VERDICT_WAIT;
    request_done(r, word_of(s), slice_str(o->name));
    return VERDICT_DONE;
}

enum verdict statement_create(struct request *r, const struct ast *s)
{
    if (s->kind == AST_INSERT && AST_AS(query, AST_AS(insert, s)->query)->body->kind == AST_VALUES)
        return statement_insert_values(r, s);
    switch ((enum create_step)r->step) {
    case CREATE_BEGIN: return create_begin(r, s);
    case CREATE_READS: return may_read(r);
    case CREATE_LOOK: return look(r);
    case CREATE_LOOKED: return looked(r);
    case CREATE_MADE: return made(r);
    case CREATE_OPENED:
    case CREATE_BOUND: return bind(r);
    case CREATE_FOUND: return found(r);
    case CREATE_REOPENED: return declare(r);
    case CREATE_DECLARED: return failed(r) ? core_refuses(r) : close_channel(r);
    case CREATE_CLOSED:
    case CREATE_PUT: return put(r, s);
    case CREATE_ENTERED: return entered(r, s);
    case CREATE_BUILDING: return built(r, s);
    }
    return VERDICT_FAILED;
}
