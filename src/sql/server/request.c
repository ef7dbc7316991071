/* Requests, see server_int.h: statements one after another, answers as lines of JSON (server.h), as many bytes as were granted.
 *
 * A statement is a function that is called again and again: it looks at r->step, asks the core at most one thing at a time, and is called again
 * with the answer. What it says goes into r->out; it is not called while much of that waits. */
#include "sql/server/server_int.h"

#include "base/mem.h"
#include "sql/language/parse.h"

#include <stdarg.h>
#include <stdio.h>

#define OUT_MAX (8u << 20)         /* of one row at most, and what is before it */
#define OUT_WAITS_MAX (64u * 1024) /* that is not said yet: then the statement waits */
#define PARSE_MEMORY_MAX (64u << 20)

/* ---- what is said ---- */

static void line_of(struct slice text, uint32_t at, uint32_t *ret_line, uint32_t *ret_column)
{
    *ret_line = *ret_column = 1;
    for (uint32_t i = 0; i < at && i < text.len; i++) {
        *ret_column += (text.ptr[i] & 0xc0) != 0x80;
        if (text.ptr[i] == '\n') {
            ++*ret_line;
            *ret_column = 1;
        }
    }
}

enum verdict request_error(struct request *r, const struct sql_error *error, struct slice text, uint32_t base)
{
    char shown[1200];
    struct writer w = writer_of(shown, sizeof shown);
    uint32_t line, column;
    sql_error_print(error, text, &w);
    line_of(r->text, base + error->at, &line, &column);
    lines_text(&r->out, "{\"error\":{\"code\":");
    lines_string(&r->out, slice_str(sql_fault_state(error->fault)));
    lines_text(&r->out, ",\"message\":");
    lines_string(&r->out, slice_str(error->message));
    lines_text(&r->out, ",\"line\":");
    lines_number(&r->out, line);
    lines_text(&r->out, ",\"column\":");
    lines_number(&r->out, column);
    if (error->hint[0]) {
        lines_text(&r->out, ",\"hint\":");
        lines_string(&r->out, slice_str(error->hint));
    }
    lines_text(&r->out, ",\"text\":");
    lines_string(&r->out, slice_of(shown, w.len));
    lines_text(&r->out, "}}\n");
    return VERDICT_FAILED;
}

enum verdict request_refuse(struct request *r, const char *state, const char *format, ...)
{
    char text[SERVER_REASON_MAX];
    uint32_t line = 1, column = 1;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (r->at < r->statements.count)
        line_of(r->text, r->statements.at[r->at]->at, &line, &column);
    lines_text(&r->out, "{\"error\":{\"code\":");
    lines_string(&r->out, slice_str(state));
    lines_text(&r->out, ",\"message\":");
    lines_string(&r->out, slice_str(text));
    lines_text(&r->out, ",\"line\":");
    lines_number(&r->out, line);
    lines_text(&r->out, ",\"column\":");
    lines_number(&r->out, column);
    lines_text(&r->out, "}}\n");
    return VERDICT_FAILED;
}

void request_done(struct request *r, const char *what, struct slice name)
{
    lines_text(&r->out, "{\"done\":");
    lines_string(&r->out, slice_str(what));
    if (name.ptr) {
        lines_text(&r->out, ",\"name\":");
        lines_string(&r->out, name);
    }
    lines_text(&r->out, "}\n");
}

/* As much as is granted, whole lines where that can be. False: the ring is full, or no memory. */
static bool say(struct request *r)
{
    struct slice none = {0};
    while (!r->last_said) {
        size_t len = r->out.len < SQL_SAY_MAX ? r->out.len : SQL_SAY_MAX;
        if (len > r->granted)
            len = (size_t)r->granted;
        size_t whole = len;
        while (whole && r->out.bytes[whole - 1] != '\n')
            whole--;
        len = whole ? whole : len;
        bool last = r->ended && len == r->out.len;
        if (!len && !last)
            return true;
        if (!server_ask(r->server->home, NULL, CMD_SQL_SAY, ask_new(slice_of(r->out.bytes, len), none, none, none),
                        r->ticket, last ? ASK_LAST : 0, false))
            return false;
        r->granted -= len;
        lines_drop(&r->out, len);
        r->last_said = last;
    }
    return true;
}

/* ---- asking the core ---- */

static void on_answer(struct server_call *call, struct effect *e)
{
    struct request *r = CONTAINER_OF(call, struct request, call);
    r->lost = !e;
    r->answer = e ? *e : (struct effect){.type = EFF_ANSWER};
}

void request_answered(struct request *r)
{
    if (r->answer.type)
        server_effect_drop(r->server, &r->answer);
    r->answer = (struct effect){0};
}

enum verdict request_ask(struct request *r, enum command_type type, struct ask *ask, uint64_t number, uint32_t flags)
{
    request_answered(r);
    uint16_t channel = r->channel;
    if (!ask)
        return request_refuse(r, "53200", "no memory");
    struct command *c = server_command(r->session, &r->call, type, true);
    if (!c) {
        mem_free(ask);
        return request_refuse(r, "53000", "the broker has too much to do");
    }
    ask->number = number;
    ask->flags = flags;
    c->number = number;
    c->channel = channel;
    c->ask = ask;
    return VERDICT_WAIT;
}

struct command *request_slot(struct request *r, enum command_type type)
{
    request_answered(r);
    struct command *c = server_command(r->session, &r->call, type, true);
    if (!c)
        (void)request_refuse(r, "53000", "the broker has too much to do");
    return c;
}

enum verdict request_command(struct request *r, enum command_type type, uint64_t number)
{
    struct command *c = request_slot(r, type);
    if (!c)
        return VERDICT_FAILED;
    c->number = number;
    c->channel = r->channel;
    return VERDICT_WAIT;
}

enum verdict request_session(struct request *r)
{
    if (r->session->ready)
        return VERDICT_DONE;
    if (r->session->failed)
        return request_refuse(r, "28000", "%s",
                              r->session->why[0] ? r->session->why : "the user may not use this vhost");
    return VERDICT_WAIT;
}

/* ---- statements ---- */

static const struct {
    uint16_t kind;
    enum verdict (*run)(struct request *r, const struct ast *s);
} rows[] = {
    {AST_CREATE_STREAM, statement_create},
    {AST_CREATE_VIEW, statement_create},
    {AST_CREATE_SINK, statement_create},
    {AST_INSERT, statement_create},
    {AST_DROP, statement_drop},
    {AST_PAUSE, statement_pause},
    {AST_SHOW, statement_show},
    {AST_DESCRIBE, statement_describe},
    {AST_EXPLAIN, statement_explain},
    {AST_RUN, statement_select},
};

static enum verdict run_statement(struct request *r)
{
    const struct ast *s = r->statements.at[r->at];
    enum verdict session = request_session(r);
    if (session != VERDICT_DONE)
        return session;
    if (r->lost)
        return request_refuse(r, "57P01", "%s", r->session->why);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (rows[i].kind == s->kind)
            return rows[i].run(r, s);
    return request_refuse(r, "0A000", "%s cannot be run yet", ast_kind_text(s->kind));
}

static void statement_end(struct request *r)
{
    request_answered(r);
    server_object_unref(&r->object);
    server_run_stop(&r->run);
    server_insert_free(r->server, &r->insert);
    server_infer_free(&r->infer);
    r->step = r->part = 0;
    r->channel = 0;
    r->rows = 0;
}

static void request_end(struct request *r)
{
    statement_end(r);
    server_call_forget(r->server, &r->call);
    r->ended = true;
    if (!r->out.failed)
        return;
    lines_fini(&r->out);
    lines_init(&r->out, OUT_MAX);
    (void)request_refuse(r, "53200", "no memory for the answer, or a row of more than %u bytes", OUT_MAX);
}

static void request_free(struct request *r)
{
    list_remove(&r->link);
    r->server->request_count--;
    statement_end(r);
    server_call_forget(r->server, &r->call);
    server_session_put(&r->session);
    lines_fini(&r->out);
    arena_fini(&r->arena);
    mem_free(r->user);
    mem_free(r->vhost);
    mem_free(r);
}

/* Statement by statement, as far as that goes now. */
static void request_advance(struct request *r)
{
    while (!r->ended && !r->call.number && r->out.len <= OUT_WAITS_MAX && !r->out.failed) {
        if (r->at == r->statements.count) {
            request_end(r);
            return;
        }
        uint32_t step = r->step, part = r->part;
        enum verdict v = run_statement(r);
        if (v == VERDICT_FAILED) {
            request_end(r);
        } else if (v == VERDICT_DONE) {
            statement_end(r);
            r->at++;
        } else if (step == r->step && part == r->part) {
            return;
        }
    }
    if (r->out.failed && !r->ended)
        request_end(r);
}

void server_requests_turn(struct sql_server *server)
{
    LIST_EACH(&server->requests, node, after)
    {
        struct request *r = CONTAINER_OF(node, struct request, link);
        if (server->listed == LIST_READ && !r->stopped)
            request_advance(r);
        server->again = (!r->stopped && !say(r)) || server->again;
        if (r->stopped || r->last_said)
            request_free(r);
    }
}

/* ---- from the core ---- */

static struct request *request_of(struct sql_server *server, uint64_t ticket)
{
    LIST_EACH(&server->requests, node, after)
    if (CONTAINER_OF(node, struct request, link)->ticket == ticket)
        return CONTAINER_OF(node, struct request, link);
    return NULL;
}

/* NULL: no memory. */
static struct request *request_new(struct sql_server *server, const struct answer *asked, const struct sql_asked *what,
                                   uint64_t ticket)
{
    struct request *r = mem_zalloc(sizeof *r);
    if (!r)
        return NULL;
    r->server = server;
    r->ticket = ticket;
    r->granted = asked->number;
    r->administers = what->administers;
    r->call.on_done = on_answer;
    arena_init(&r->arena, PARSE_MEMORY_MAX);
    lines_init(&r->out, OUT_MAX);
    list_insert(&server->requests, &r->link);
    server->request_count++;
    r->user = mem_slicedup(asked->name);
    r->vhost = mem_slicedup(what->vhost);
    uint8_t *copy = arena_take(&r->arena, what->text.len);
    r->session = r->user && r->vhost && copy ? server_session_get(server, r->user, r->vhost) : NULL;
    if (!r->session) {
        request_free(r);
        return NULL;
    }
    if (what->text.len)
        memcpy(copy, what->text.ptr, what->text.len);
    r->text = slice_of(copy, what->text.len);
    return r;
}

/* Nothing can be said of a request that there is no memory for: it ends without a word. */
static void refuse_bare(struct sql_server *server, uint64_t ticket, const char *code, const char *message)
{
    char text[300];
    struct slice none = {0};
    int len = snprintf(text, sizeof text, "{\"error\":{\"code\":\"%s\",\"message\":\"%s\",\"line\":1,\"column\":1}}\n",
                       code, message);
    (void)server_ask(server->home, NULL, CMD_SQL_SAY, ask_new(slice_of(text, (size_t)len), none, none, none), ticket,
                     ASK_LAST, false);
}

static void take_ask(struct sql_server *server, const struct effect *e)
{
    struct sql_asked what;
    struct sql_error error = {0};
    if (!e->answer || !sql_asked_read(e->answer->fields, &what)) {
        refuse_bare(server, e->number, "XX000", "the request cannot be read");
    } else if (what.options.len) {
        refuse_bare(server, e->number, "0A000", "options of a request are not known here");
    } else if (server->request_count >= server->options.requests_max) {
        refuse_bare(server, e->number, "53300", "too many requests at a time");
    } else {
        struct request *r = request_new(server, e->answer, &what, e->number);
        if (!r)
            refuse_bare(server, e->number, "53200", "no memory for the request");
        else if (!sql_parse(r->text, &r->arena, &r->statements, &error)) {
            r->statements = (struct ast_list){0};
            (void)request_error(r, &error, r->text, 0);
            request_end(r);
        }
    }
}

void server_request_effect(struct sql_server *server, struct effect *e)
{
    struct request *r = e->type == EFF_SQL_ASK ? NULL : request_of(server, e->number);
    if (e->type == EFF_SQL_ASK)
        take_ask(server, e);
    else if (r && e->type == EFF_SQL_MORE)
        r->granted += e->count;
    else if (r)
        r->stopped = true;
    if (e->type == EFF_SQL_ASK)
        server_effect_drop(server, e);
}

void server_requests_fini(struct sql_server *server)
{
    while (!list_empty(&server->requests))
        request_free(CONTAINER_OF(server->requests.next, struct request, link));
}
