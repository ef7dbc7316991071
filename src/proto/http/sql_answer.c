/* The session of POST /sql and what comes back through it, see sql_int.h. The loop's thread.
 *
 * Lines of JSON come from the SQL engine, as many bytes as were granted: what has left for the socket is granted again, so a client
 * that does not read has at most SQL_GRANTED_BYTES here. The first line decides the status.
 *
 * A session outlives its connection until the core has let go of it; the end of the session is what stops a query. */
#include "base/check.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "proto/http/sql_int.h"

#define COMMANDS_AT_ONCE 2u
#define GRANT_MIN (SQL_GRANTED_BYTES / 4) /* less is granted again only when nothing is left */
#define MESSAGE_MAX 1000u

/* ---- what is wrong ---- */

/* The text within quotes. What is no UTF-8 or a control character is a question mark. */
static void put_escaped(struct writer *w, struct slice text)
{
    bool valid = utf8_valid(text);
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.ptr[i];
        if (c == '"' || c == '\\')
            writer_u8(w, '\\');
        writer_u8(w, c < ' ' || c == 0x7f || (c >= 0x80 && !valid) ? '?' : c);
    }
}

static struct slice error_line(uint8_t *room, size_t len, const char *code, struct slice message)
{
    struct writer w = writer_of(room, len);
    writer_slice_put(&w, slice_str("{\"error\":{\"code\":\""));
    writer_slice_put(&w, slice_str(code));
    writer_slice_put(&w, slice_str("\",\"message\":\""));
    put_escaped(&w, message.len > MESSAGE_MAX ? slice_of(message.ptr, MESSAGE_MAX) : message);
    writer_slice_put(&w, slice_str("\"}}\n"));
    CHECK(writer_ok(&w));
    return writer_slice(&w);
}

/* Of what has gone wrong before an answer has begun. */
void http_sql_wrong(struct http *h, unsigned status, struct slice message)
{
    static const struct {
        unsigned status;
        const char *code; /* SQLSTATE */
    } rows[] = {{400, "08P01"}, {401, "28000"}, {403, "42501"}, {405, "0A000"},
                {413, "54000"}, {415, "0A000"}, {503, "57P03"}, {507, "53000"}};
    uint8_t room[2 * MESSAGE_MAX + 100];
    struct http_answer answer = {.status = status, .type = "application/json"};
    const char *code = "XX000";
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (rows[i].status == status)
            code = rows[i].code;
    answer.body = error_line(room, sizeof room, code, message);
    if (status == 401)
        answer.extra[0].name = "WWW-Authenticate",
        answer.extra[0].value = "Basic realm=\"Millrace\", charset=\"UTF-8\"";
    if (status == 405)
        answer.extra[0].name = "Allow", answer.extra[0].value = "POST";
    http_answer(h, &answer);
    http_answered(h);
}

/* ---- the session ---- */

static void session_free(struct session *session)
{
    struct http_sql *s = CONTAINER_OF(session, struct http_sql, session);
    mem_free_as(MEM_CONNECTIONS, s);
}

void http_sql_leave(struct http *h)
{
    struct http_sql *s = h->sql;
    if (!s)
        return;
    h->sql = NULL;
    s->http = NULL;
    mem_free(s->open);
    mem_free(s->login);
    mem_free(s->enter);
    mem_free(s->ask);
    mem_free_as(MEM_CONNECTIONS, s->body);
    s->open = s->login = s->enter = s->ask = NULL;
    s->body = NULL;
    session_leave(&s->session);
}

static struct command *command_of(struct http_sql *s, enum command_type type, uint32_t origin)
{
    struct command *command = hub_command(s->session.hub, &s->session);
    CHECK(command);
    command->type = (uint8_t)type;
    command->origin = origin;
    return command;
}

static void send_ask(struct http_sql *s, enum command_type type, uint32_t origin, struct ask **ask)
{
    command_of(s, type, origin)->ask = *ask;
    *ask = NULL;
}

void http_sql_send(struct http_sql *s)
{
    bool enter = s->enter && s->state == SQL_ENTER;
    if (!s->open && !enter && !s->ask)
        return;
    if (hub_room(s->session.hub) < COMMANDS_AT_ONCE) {
        hub_wait_room(s->session.hub, &s->session);
        return;
    }
    if (s->open) {
        send_ask(s, CMD_SESSION_OPEN, 0, &s->open);
        s->session.core_open = true;
        send_ask(s, CMD_LOGIN, SQL_CUE_LOGIN, &s->login);
    } else if (enter) {
        send_ask(s, CMD_ENTER, SQL_CUE_ENTER, &s->enter);
    } else {
        send_ask(s, CMD_SQL_ASK, s->request, &s->ask);
    }
}

static void grant(struct http_sql *s)
{
    size_t waiting = s->http->engine.out.len;
    uint64_t left = s->owed > waiting ? s->owed - waiting : 0;
    if (s->state != SQL_RUNS || !left || (left < GRANT_MIN && waiting))
        return;
    struct command *command = hub_command(s->session.hub, &s->session);
    if (!command) {
        hub_wait_room(s->session.hub, &s->session);
        return;
    }
    command->type = CMD_SQL_MORE;
    command->origin = s->request;
    command->number = left;
    s->owed -= left;
}

void http_sql_drained(struct http *h)
{
    grant(h->sql);
}

static void on_room(struct session *session)
{
    struct http_sql *s = CONTAINER_OF(session, struct http_sql, session);
    if (!s->http)
        return;
    http_sql_send(s);
    grant(s);
}

/* ---- answers ---- */

static void request_over(struct http_sql *s)
{
    s->state = SQL_READY;
    s->says = false;
    http_answer_end(s->http);
}

/* The line that says what is wrong with the first statement is the whole answer. The code has five characters. */
static unsigned status_of(struct slice lines)
{
    static const char begins[] = "{\"error\":{\"code\":\"";
    static const struct {
        const char *code; /* or how it begins */
        unsigned status;
    } rows[] = {{"42501", 403}, {"28", 403}, {"53", 503}, {"57P", 503}, {"58", 500}, {"XX", 500}};
    if (!slice_starts(lines, begins))
        return 200;
    struct slice code = slice_of(lines.ptr + sizeof begins - 1, lines.len - (sizeof begins - 1));
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (slice_starts(code, rows[i].code))
            return rows[i].status;
    return 400;
}

static void begin(struct http_sql *s, struct slice lines)
{
    unsigned status = status_of(lines);
    s->csv = s->csv && status == 200;
    s->table = (struct sql_csv){0};
    s->says = true;
    http_answer_begin(s->http, status,
                      s->csv          ? "text/csv; charset=utf-8"
                      : status == 200 ? "application/x-ndjson"
                                      : "application/json");
}

static void say_csv(struct http_sql *s, struct slice lines)
{
    uint8_t room[4096];
    while (lines.len) {
        struct writer w = writer_of(room, sizeof room);
        size_t used = sql_csv_step(&s->table, lines, &w);
        lines = slice_of(lines.ptr + used, lines.len - used);
        http_answer_piece(s->http, writer_slice(&w));
    }
}

/* There is no place in a table for what ends it early: its end is missing, which clients see. */
static void end_broken(struct http_sql *s)
{
    s->http->keep_alive = false;
    http_end(s->http);
}

/* The core, and not the engine, says why it ends. */
static void end_because(struct http_sql *s, enum error_code code, struct slice text)
{
    struct http *h = s->http;
    uint8_t room[2 * MESSAGE_MAX + 100];
    unsigned status = error_row(code)->http;
    s->state = SQL_READY;
    if (!s->says) {
        http_sql_wrong(h, status == 501 || status == 507 ? 503 : status, text);
    } else if (s->csv) {
        end_broken(s);
    } else {
        http_answer_piece(h, error_line(room, sizeof room, code == ERR_ACCESS_REFUSED ? "42501" : "57P01", text));
        request_over(s);
    }
}

static void on_said(struct http_sql *s, struct effect *e)
{
    struct slice none = {0}, lines = e->answer ? e->answer->fields : none;
    bool last = e->flags & EFFECT_SQL_LAST;
    enum error_code code = e->answer ? e->answer->code : ERR_RESOURCE_ERROR;
    if (lines.len && !s->says)
        begin(s, lines);
    s->owed += lines.len;
    if (lines.len && s->csv)
        say_csv(s, lines);
    else if (lines.len && last)
        http_answer_piece(s->http, lines);
    else if (lines.len)
        http_answer_lend(s->http, &e->answer);
    if (s->csv && s->table.error)
        end_broken(s);
    else if (!last)
        grant(s);
    else if (code != ERR_NONE)
        end_because(s, code, e->answer ? e->answer->text : slice_str("out of memory"));
    else {
        if (!s->says)
            begin(s, lines); /* there were no statements */
        request_over(s);
    }
}

/* The core has done with the session. */
static void on_failed(struct http_sql *s, const struct answer *answer)
{
    struct http *h = s->http;
    enum error_code code = answer ? answer->code : ERR_RESOURCE_ERROR;
    struct slice text = answer ? answer->text : slice_str("out of memory");
    if (s->state == SQL_RUNS) {
        h->keep_alive = h->keep_alive && !s->says;
        end_because(s, code, text);
        http_sql_leave(h);
        return;
    }
    bool asked = h->state == HTTP_WAIT || h->keep_body; /* else nobody is waiting for an answer */
    bool login = s->state == SQL_LOGIN && code == ERR_ACCESS_REFUSED;
    unsigned status = error_row(code)->http;
    http_sql_leave(h);
    if (asked)
        http_sql_wrong(h,
                       login           ? 401
                       : status == 507 ? 503
                                       : status,
                       login ? slice_str("this user is not known, or the password is wrong") : text);
}

static void on_effect(struct session *session, struct effect *e)
{
    struct http_sql *s = CONTAINER_OF(session, struct http_sql, session);
    struct http *h = s->http;
    if (h) {
        h->engine.now = session->engine.now;
        if (e->type == EFF_ERROR || e->type == EFF_SESSION_KICK) {
            on_failed(s, e->answer);
        } else if (e->type == EFF_SQL_SAID && s->state == SQL_RUNS && e->origin == s->request) {
            on_said(s, e);
        } else if (e->type == EFF_ANSWER && e->origin == SQL_CUE_LOGIN) {
            s->state = SQL_ENTER;
            http_sql_send(s);
        } else if (e->type == EFF_ANSWER && e->origin == SQL_CUE_ENTER) {
            s->state = SQL_READY;
            http_body_wanted(h);
        }
    }
    hub_drop(session->hub, e);
}

void http_sql_init(struct http_sql *s)
{
    outq_init(&s->session.engine.out);
    list_init(&s->session.engine.dirty_link);
    s->session.on_effect = on_effect;
    s->session.on_room = on_room;
    s->session.free = session_free;
}
