/* POST /sql on a core of the test's own: requests cut at every byte, pipelined, refused for every reason; answers in pieces that follow what
 * the client takes; and every end that a query can come to. */
#include "base/mem.h"
#include "proto/http/http_int.h"
#include "proto/hub.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define OUT_MAX (8u << 20)

struct rig {
    struct engine *engine; /* NULL: closed */
    struct list dirty;
    struct http_options options;
    struct port port;
    struct slab_heap heap;
    struct hub *hub;
    size_t slots;
    uint8_t *in;
    size_t in_len;
    char *out;
    size_t out_len;
    bool deaf; /* takes nothing */
    /* the core */
    bool refuse_login, refuse_vhost, off, slow;
    bool no_answer; /* the engine says nothing by itself */
    uint32_t opened, closed, asked, origin, session, login_flags;
    uint64_t granted, said;
    char user[64], secret[64], vhost[64], text[200], options_text[200];
};

static struct rig *rig_with(size_t slots)
{
    struct rig *rig = calloc(1, sizeof *rig);
    rig->in = malloc(OUT_MAX);
    rig->out = malloc(OUT_MAX);
    rig->options = (struct http_options){
        .origins = "", .handshake_ms = 10000, .idle_ms = 60000, .sql = true, .anonymous = "guest"};
    slab_heap_init(&rig->heap);
    list_init(&rig->dirty);
    assert_true(ring_init(&rig->port.commands, slots, sizeof(struct command)));
    assert_true(ring_init(&rig->port.effects, 256, sizeof(struct effect)));
    rig->hub = hub_new(&rig->port, &rig->heap, 64);
    assert_non_null(rig->hub);
    return rig;
}

static void rig_open(struct rig *rig)
{
    struct os_peer peer = {.text = "127.0.0.1:7", .loopback = true};
    rig->engine = http_new(&rig->options, rig->hub, &peer, NS_PER_S);
    if (!rig->engine)
        return;
    rig->engine->dirty = &rig->dirty;
    rig->engine->now = NS_PER_S;
    snprintf(rig->engine->peer, sizeof rig->engine->peer, "%s", peer.text);
}

static struct rig *rig_new(void)
{
    struct rig *rig = rig_with(256);
    rig_open(rig);
    assert_non_null(rig->engine);
    return rig;
}

/* ---- the core ---- */

static struct effect *emit(struct rig *rig, enum effect_type type, uint32_t session, uint32_t origin)
{
    struct effect *e = ring_push(&rig->port.effects);
    assert_non_null(e);
    *e = (struct effect){.type = (uint8_t)type, .session = session, .origin = origin};
    return e;
}

static struct answer *answer_of(enum error_code code, const char *text, struct slice fields)
{
    struct answer *answer = malloc(sizeof *answer + strlen(text) + fields.len);
    *answer = (struct answer){.code = code};
    answer->text = slice_of(answer->bytes, strlen(text));
    memcpy(answer->bytes, text, strlen(text));
    answer->fields = slice_of(answer->bytes + strlen(text), fields.len);
    if (fields.len)
        memcpy(answer->bytes + strlen(text), fields.ptr, fields.len);
    return answer;
}

/* By the account of memory, which answers are part of. */
static struct answer *answer_new_as(enum error_code code, const char *text, struct slice fields)
{
    struct answer *made = answer_of(code, text, fields);
    size_t len = sizeof *made + strlen(text) + fields.len;
    struct answer *answer = mem_alloc(len);
    if (answer) {
        memcpy(answer, made, len);
        answer->text.ptr = answer->bytes;
        answer->fields.ptr = answer->bytes + strlen(text);
    }
    free(made);
    return answer;
}

static void engine_says(struct rig *rig, struct slice lines, bool last)
{
    struct effect *e = emit(rig, EFF_SQL_SAID, rig->session, rig->origin);
    e->flags = last ? EFFECT_SQL_LAST : 0;
    e->answer = answer_new_as(ERR_NONE, "", lines);
    rig->said += lines.len;
}

static void copy(char *to, size_t len, struct slice from)
{
    snprintf(to, len, "%.*s", SLICE_ARG(from));
}

#define COLUMNS "{\"statement\":0,\"columns\":[{\"name\":\"a\",\"type\":\"BIGINT\"}]}\n"
#define ROW "{\"row\":[1]}\n"
#define DONE "{\"done\":\"SELECT\",\"rows\":1}\n"

static void on_ask(struct rig *rig, const struct command *c)
{
    rig->asked++;
    rig->origin = c->origin;
    rig->session = c->session;
    rig->granted = c->ask->number ? c->ask->number : SQL_GRANTED_BYTES;
    rig->said = 0;
    copy(rig->text, sizeof rig->text, c->ask->name);
    copy(rig->options_text, sizeof rig->options_text, c->ask->args);
    if (rig->off) {
        struct effect *e = emit(rig, EFF_SQL_SAID, c->session, c->origin);
        e->flags = EFFECT_SQL_LAST;
        e->answer = answer_new_as(ERR_NOT_IMPLEMENTED, "SQL is \"switched\" off", (struct slice){0});
    } else if (!rig->no_answer) {
        engine_says(rig, slice_str(COLUMNS), false);
        engine_says(rig, slice_str(ROW DONE), false);
        engine_says(rig, (struct slice){0}, true);
    }
}

static void obey(struct rig *rig, struct command *c)
{
    switch (c->type) {
    case CMD_SESSION_OPEN:
        assert_true(slice_is(c->ask->other, "HTTP") && c->ask->flags & ASK_LOOPBACK);
        rig->opened++;
        break;
    case CMD_LOGIN:
        copy(rig->user, sizeof rig->user, c->ask->name);
        copy(rig->secret, sizeof rig->secret, c->ask->other);
        rig->login_flags = c->ask->flags;
        if (rig->refuse_login)
            emit(rig, EFF_ERROR, c->session, c->origin)->answer =
                answer_new_as(ERR_ACCESS_REFUSED, "no", slice_str(""));
        else
            emit(rig, EFF_ANSWER, c->session, c->origin);
        break;
    case CMD_ENTER:
        copy(rig->vhost, sizeof rig->vhost, c->ask->name);
        if (rig->refuse_vhost)
            emit(rig, EFF_ERROR, c->session, c->origin)->answer =
                answer_new_as(ERR_NOT_ALLOWED, "vhost 'x' not found", slice_str(""));
        else
            emit(rig, EFF_ANSWER, c->session, c->origin);
        break;
    case CMD_SQL_ASK: on_ask(rig, c); break;
    case CMD_SQL_MORE:
        if (c->origin == rig->origin)
            rig->granted += c->number;
        break;
    case CMD_SESSION_CLOSE:
        rig->closed++;
        emit(rig, EFF_SESSION_CLOSED, c->session, 0);
        break;
    default: fail_msg("command %u", c->type);
    }
    command_drop(&rig->heap, c);
}

/* ---- the loop ---- */

static void flush(struct rig *rig)
{
    struct outq *q = &rig->engine->out;
    struct iovec v;
    rig->engine->ops->gather(rig->engine);
    while (!rig->deaf && outq_peek(q, &v, 1)) {
        assert_true(rig->out_len + v.iov_len < OUT_MAX);
        memcpy(rig->out + rig->out_len, v.iov_base, v.iov_len);
        rig->out_len += v.iov_len;
        outq_consume(q, v.iov_len);
        if (q->len == 0)
            rig->engine->ops->drained(rig->engine);
    }
    rig->out[rig->out_len] = '\0';
}

static void close_it(struct rig *rig)
{
    if (rig->engine)
        rig->engine->ops->closed(rig->engine);
    rig->engine = NULL;
}

static void feed(struct rig *rig)
{
    if (!rig->engine || rig->engine->want_close || rig->engine->out.failed)
        return;
    size_t used = rig->engine->ops->feed(rig->engine, slice_of(rig->in, rig->in_len));
    memmove(rig->in, rig->in + used, rig->in_len - used);
    rig->in_len -= used;
}

static void turn(struct rig *rig)
{
    struct command *c;
    for (int i = 0; i < 12; i++) {
        hub_publish(rig->hub);
        while (!rig->slow && (c = ring_peek(&rig->port.commands))) {
            struct command taken = *c;
            ring_pop(&rig->port.commands);
            obey(rig, &taken);
        }
        ring_publish(&rig->port.effects);
        hub_turn(rig->hub, 0, 2 * NS_PER_S);
        feed(rig);
        if (rig->engine)
            flush(rig);
    }
}

static void give(struct rig *rig, const char *text, size_t step)
{
    size_t len = strlen(text);
    while (len && rig->engine && !rig->engine->want_close) {
        size_t n = len < step ? len : step;
        memcpy(rig->in + rig->in_len, text, n);
        rig->in_len += n;
        text += n;
        len -= n;
        turn(rig);
    }
    turn(rig);
}

static void say(struct rig *rig, const char *text, size_t step)
{
    rig->out_len = 0;
    give(rig, text, step);
}

static void rig_free(struct rig *rig)
{
    rig->slow = false;
    close_it(rig);
    turn(rig);
    assert_int_equal(rig->opened, rig->closed);
    assert_int_equal(hub_sessions(rig->hub), 0);
    hub_free(&rig->hub);
    ring_fini(&rig->port.commands);
    ring_fini(&rig->port.effects);
    slab_heap_fini(&rig->heap);
    free(rig->in);
    free(rig->out);
    free(rig);
}

/* The content behind the first head, out of its chunks. */
static const char *content(const struct rig *rig)
{
    static char text[OUT_MAX];
    const char *at = strstr(rig->out, "\r\n\r\n");
    size_t len = 0;
    assert_non_null(at);
    at += 4;
    if (!strstr(rig->out, "Transfer-Encoding: chunked"))
        return at;
    for (;;) {
        char *end;
        size_t n = strtoul(at, &end, 16);
        assert_true(end > at && strncmp(end, "\r\n", 2) == 0);
        at = end + 2;
        if (n == 0)
            break;
        memcpy(text + len, at, n);
        len += n;
        assert_memory_equal(at + n, "\r\n", 2);
        at += n + 2;
    }
    text[len] = '\0';
    return text;
}

static bool begins(const struct rig *rig, const char *text)
{
    return strncmp(rig->out, text, strlen(text)) == 0;
}

static unsigned count(const char *text, const char *what)
{
    unsigned n = 0;
    for (; (text = strstr(text, what)); text += strlen(what))
        n++;
    return n;
}

/* ---- requests ---- */

#define HOST "Host: h\r\n"
#define POST "POST /sql HTTP/1.1\r\n" HOST
#define BODY "Content-Length: 8\r\n\r\nSELECT 1"
#define JSON "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
#define ANNA "Authorization: Basic YW5uYTpzZWNyOmV0\r\n" /* anna:secr:et */

static const struct {
    const char *request, *begins, *contains;
    const char *user, *secret, *vhost, *text, *options; /* what the core hears; NULL: nothing */
} rows[] = {
    {POST BODY, "HTTP/1.1 200 OK\r\n", "application/x-ndjson\r\n", "guest", "", "/", "SELECT 1", ""},
    {POST "Content-Type: text/plain; charset=utf-8\r\n" BODY, "HTTP/1.1 200 OK\r\n", "no-store", "guest", "", "/",
     "SELECT 1", ""},
    {POST ANNA "Content-Type: application/sql\r\nX-Vhost: shop\r\n" BODY, "HTTP/1.1 200 OK\r\n", "", "anna", "secr:et",
     "shop", "SELECT 1", ""},
    {"POST /sql?vhost=a%2Fb+c%2b HTTP/1.1\r\n" HOST BODY, "HTTP/1.1 200 OK\r\n", "", "guest", "", "a/b c+", "SELECT 1",
     ""},
    {POST "\r\n", "HTTP/1.1 200 OK\r\n", "", "guest", "", "/", "", ""},
    {POST JSON "1e\r\n{\"sql\":\"SELECT \\\"\\u00e9\\\"\\n;\"}\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\n", "", "guest", "",
     "/", "SELECT \"é\"\n;", ""},
    {POST JSON "27\r\n{\"options\":{\"a\":[1]}, \"sql\":\"SELECT 2\"}\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\n", "", "guest",
     "", "/", "SELECT 2", "{\"a\":[1]}"},
    {POST "Accept: application/json, text/csv;q=0.5\r\n" BODY, "HTTP/1.1 200 OK\r\n", "text/csv; charset=utf-8\r\n",
     "guest", "", "/", "SELECT 1", ""},
    {POST "Origin: http://localhost:3000\r\n" BODY, "HTTP/1.1 200 OK\r\n", "", "guest", "", "/", "SELECT 1", ""},
    {POST "Expect: 100-continue\r\n" BODY, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n", "Connection: close\r\n",
     "guest", "", "/", "SELECT 1", ""},
    {POST JSON "11\r\n{\"sql\":\"SELECT 1\"\r\n0\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n", "no JSON object", NULL, "",
     "", "", ""},
    {POST JSON "9\r\n{\"sql\":1}\r\n0\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n", "{\"error\":{\"code\":\"08P01\",", NULL,
     "", "", "", ""},
    {POST JSON "17\r\n{\"sql\":\"\", \"option\":{}}\r\n0\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n", "", NULL, "", "", "",
     ""},
    {POST JSON "0\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n", "no JSON object", NULL, "", "", "", ""},
    {POST JSON "21\r\n{\"sql\":\"SELECT 3\", \"options\":{ }}\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\n", "", "guest", "",
     "/", "SELECT 3", ""},
    {POST JSON "18\r\n{\"sql\":\"\", \"options\":[]}\r\n0\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n", "options", NULL, "",
     "", "", ""},
    {"POST /sql?vhst=a HTTP/1.1\r\n" HOST BODY, "HTTP/1.1 400 Bad Request\r\n", "?vhost=NAME", NULL, "", "", "", ""},
    {"POST /sql?vhost=%ff HTTP/1.1\r\n" HOST BODY, "HTTP/1.1 400 Bad Request\r\n", "", NULL, "", "", "", ""},
    {"POST /sql?vhost=a HTTP/1.1\r\n" HOST "X-Vhost: b\r\n" BODY, "HTTP/1.1 400 Bad Request\r\n", "", NULL, "", "", "",
     ""},
    {POST "Authorization: Bearer x\r\n" BODY, "HTTP/1.1 401 Unauthorized\r\n", "WWW-Authenticate: Basic ", NULL, "", "",
     "", ""},
    {POST "Authorization: Basic YW5u!\r\n" BODY, "HTTP/1.1 401 Unauthorized\r\n", "\"28000\"", NULL, "", "", "", ""},
    {POST "Origin: https://evil.example\r\n" BODY, "HTTP/1.1 403 Forbidden\r\n", "websocket.origins", NULL, "", "", "",
     ""},
    {POST "Origin: null\r\n" BODY, "HTTP/1.1 403 Forbidden\r\n", "\"42501\"", NULL, "", "", "", ""},
    {"GET /sql HTTP/1.1\r\n" HOST "\r\n", "HTTP/1.1 405 Method Not Allowed\r\n", "Allow: POST\r\n", NULL, "", "", "",
     ""},
    {"GET /sql/x HTTP/1.1\r\n" HOST "\r\n", "HTTP/1.1 404 Not Found\r\n", "not_found", NULL, "", "", "", ""},
    {POST "Content-Type: application/x-www-form-urlencoded\r\n" BODY, "HTTP/1.1 415 Unsupported Media Type\r\n",
     "application/sql", NULL, "", "", "", ""},
    {POST "Content-Length: 1048577\r\n\r\n", "HTTP/1.1 413 Content Too Large\r\n", "too large", NULL, "", "", "", ""},
    {POST "Transfer-Encoding: chunked\r\n\r\n100001\r\n", "HTTP/1.1 413 Content Too Large\r\n", "too large", NULL, "",
     "", "", ""},
    {POST "Transfer-Encoding: chunked\r\n\r\nxyz\r\n", "HTTP/1.1 400 Bad Request\r\n", "malformed", NULL, "", "", "",
     ""},
    {POST "Expect: 100-continue\r\nAuthorization: x\r\nContent-Length: 8\r\n\r\n", "HTTP/1.1 401 Unauthorized\r\n",
     "Connection: close", NULL, "", "", "", ""},
};

static void check_row(const struct rig *rig, size_t i)
{
    if (!begins(rig, rows[i].begins) || !strstr(rig->out, rows[i].contains))
        fail_msg("row %zu: %s", i, rig->out);
    assert_int_equal(rig->asked, rows[i].user != NULL);
    if (!rows[i].user)
        return;
    assert_string_equal(rig->user, rows[i].user);
    assert_string_equal(rig->secret, rows[i].secret);
    assert_string_equal(rig->vhost, rows[i].vhost);
    assert_string_equal(rig->text, rows[i].text);
    assert_string_equal(rig->options_text, rows[i].options);
    assert_int_equal(rig->login_flags, strcmp(rig->user, "anna") ? ASK_TRUSTED : 0);
    if (!strstr(rig->out, "100 Continue"))
        assert_string_equal(content(rig), strstr(rig->out, "text/csv") ? "\"a\"\r\n1\r\n" : COLUMNS ROW DONE);
}

static void requests(void **state)
{
    size_t before = mem_in_use();
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        for (size_t step = 1; step <= strlen(rows[i].request); step++) {
            struct rig *rig = rig_new();
            say(rig, rows[i].request, step);
            check_row(rig, i);
            if (!rig->engine->want_close) {
                say(rig, "GET /health HTTP/1.1\r\n" HOST "\r\n", 1000);
                assert_true(begins(rig, "HTTP/1.1 200 OK\r\n") && strstr(rig->out, "{\"status\":\"ok\"}"));
            }
            rig_free(rig);
            assert_int_equal(mem_in_use(), before);
        }
}

/* One behind the other; the second as somebody else. */
static void pipelined(void **state)
{
    static const char text[] =
        POST BODY POST ANNA BODY "GET /health HTTP/1.1\r\n" HOST "\r\n" POST ANNA "Connection: close\r\n" BODY;
    (void)state;
    for (size_t step = 1; step < sizeof text; step++) {
        struct rig *rig = rig_new();
        say(rig, text, step);
        if (count(rig->out, "HTTP/1.1 200") != 4 || count(rig->out, "0\r\n\r\n") != 3 || count(rig->out, ROW) != 3)
            fail_msg("by %zu: %s", step, rig->out);
        assert_true(rig->engine->want_close && rig->asked == 3);
        assert_int_equal(rig->opened, 2);
        assert_string_equal(rig->user, "anna");
        rig_free(rig);
    }
}

/* The end of the connection is that of the answer. */
static void http_10(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    say(rig, "POST /sql HTTP/1.0\r\nConnection: keep-alive\r\n" BODY, 7);
    assert_true(begins(rig, "HTTP/1.1 200 OK\r\n") && strstr(rig->out, "Connection: close\r\n"));
    assert_null(strstr(rig->out, "chunked"));
    assert_string_equal(strstr(rig->out, "\r\n\r\n") + 4, COLUMNS ROW DONE);
    assert_true(rig->engine->want_close);
    rig_free(rig);
}

/* Nobody is let in without being known, and what is known once is not asked again. */
static void who(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    rig->refuse_login = true;
    say(rig, POST ANNA BODY, 1000);
    assert_true(begins(rig, "HTTP/1.1 401 Unauthorized\r\n") && strstr(rig->out, "WWW-Authenticate"));
    rig->refuse_login = false;
    rig->refuse_vhost = true;
    say(rig, POST ANNA BODY, 1000);
    assert_true(begins(rig, "HTTP/1.1 403 Forbidden\r\n") && strstr(rig->out, "vhost 'x' not found"));
    rig->refuse_vhost = false;
    for (int i = 0; i < 5; i++) {
        say(rig, POST ANNA BODY, 1000);
        assert_true(begins(rig, "HTTP/1.1 200 OK\r\n"));
    }
    assert_int_equal(rig->opened, 3);
    rig_free(rig);

    rig = rig_new(); /* from elsewhere, or where the settings name nobody */
    struct http *http = CONTAINER_OF(rig->engine, struct http, engine);
    http->peer.loopback = rig->engine->peer_loopback = false;
    say(rig, POST BODY, 1000);
    assert_true(begins(rig, "HTTP/1.1 401 "));
    http->peer.loopback = rig->engine->peer_loopback = true;
    rig->engine->visiting = true; /* on the port of another protocol */
    say(rig, POST BODY, 1000);
    assert_true(begins(rig, "HTTP/1.1 401 "));
    rig->engine->visiting = false;
    rig->options.anonymous = "";
    say(rig, POST BODY, 1000);
    assert_true(begins(rig, "HTTP/1.1 401 ") && rig->opened == 0);
    rig->engine->certified = "cert";
    say(rig, POST BODY, 1000);
    assert_true(begins(rig, "HTTP/1.1 200 ") && rig->login_flags == ASK_CERTIFIED);
    assert_string_equal(rig->user, "cert");
    rig_free(rig);
}

/* What stands in the first line. */
static void statuses(void **state)
{
    static const struct {
        const char *line, *begins;
    } lines[] = {
        {"{\"error\":{\"code\":\"42P01\",\"message\":\"no stream x\"}}\n", "HTTP/1.1 400 "},
        {"{\"error\":{\"code\":\"42501\",\"message\":\"no\"}}\n", "HTTP/1.1 403 "},
        {"{\"error\":{\"code\":\"53200\",\"message\":\"memory\"}}\n", "HTTP/1.1 503 "},
        {"{\"error\":{\"code\":\"XX000\",\"message\":\"bug\"}}\n", "HTTP/1.1 500 "},
        {"{\"done\":\"CREATE STREAM\",\"name\":\"s\"}\n", "HTTP/1.1 200 "},
    };
    (void)state;
    struct rig *rig = rig_new();
    rig->no_answer = true;
    for (size_t i = 0; i < ARRAY_LEN(lines); i++)
        for (int csv = 0; csv < 2; csv++) {
            say(rig, csv ? POST "Accept: text/csv\r\n" BODY : POST BODY, 1000);
            assert_int_equal(rig->out_len, 0);
            engine_says(rig, slice_str(lines[i].line), true);
            turn(rig);
            if (!begins(rig, lines[i].begins))
                fail_msg("%s%s", lines[i].line, rig->out);
            if (!csv || i < 4)
                assert_string_equal(content(rig), lines[i].line);
        }
    assert_false(rig->engine->want_close);
    rig_free(rig);

    rig = rig_new();
    rig->off = true;
    say(rig, POST BODY, 1000);
    assert_true(begins(rig, "HTTP/1.1 503 ") &&
                strstr(rig->out, "{\"error\":{\"code\":\"57P03\",\"message\":\"SQL is \\\"switched\\\" off\"}}\n"));
    assert_false(rig->engine->want_close);
    rig_free(rig);
}

/* ---- the flow of an answer ---- */

static void engine_says_much(struct rig *rig)
{
    static char line[20000];
    memset(line, 'x', sizeof line);
    line[sizeof line - 1] = '\n';
    while (rig->said + sizeof line <= rig->granted)
        engine_says(rig, slice_of(line, sizeof line), false);
}

/* A client that reads nothing holds what was granted once and no more; one that reads gets all. */
static void granted(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    rig->no_answer = true;
    say(rig, POST BODY, 1000);
    engine_says(rig, slice_str(COLUMNS), false);
    rig->deaf = true;
    for (int i = 0; i < 50; i++) {
        engine_says_much(rig);
        turn(rig);
    }
    assert_int_equal(rig->granted, SQL_GRANTED_BYTES);
    assert_true(rig->engine->out.len > SQL_GRANTED_BYTES - 30000 && rig->engine->out.len < SQL_GRANTED_BYTES + 2000);
    outq_consume(&rig->engine->out, 150000); /* as a socket does */
    turn(rig);
    assert_true(rig->granted > SQL_GRANTED_BYTES + 140000 && rig->granted < SQL_GRANTED_BYTES + 150000);
    rig->deaf = false;
    for (int i = 0; i < 20; i++) {
        engine_says_much(rig);
        turn(rig);
    }
    assert_true(rig->said > 8u * SQL_GRANTED_BYTES);
    engine_says(rig, slice_str(DONE), true);
    turn(rig);
    assert_string_equal(rig->out + rig->out_len - 5, "0\r\n\r\n");
    assert_false(rig->engine->want_close);
    rig_free(rig);
}

static void rows_that_do_not_end(struct rig *rig)
{
    rig->no_answer = true;
    say(rig, POST BODY POST BODY, 1000);
    engine_says(rig, slice_str(COLUMNS ROW), false);
    turn(rig);
    assert_true(begins(rig, "HTTP/1.1 200 "));
    assert_int_equal(rig->asked, 1);
}

/* Who goes away takes its query with it; what was on its way is thrown away. */
static void gone(void **state)
{
    size_t before = mem_in_use();
    (void)state;
    struct rig *rig = rig_new();
    rows_that_do_not_end(rig);
    rig->engine->now = 1000000 * NS_PER_S; /* silence has no end */
    assert_int_equal(rig->engine->ops->tick(rig->engine, rig->engine->now), MONO_NEVER);
    assert_false(rig->engine->want_close);
    rig->slow = true;
    close_it(rig);
    engine_says(rig, slice_str(ROW), false);
    turn(rig);
    assert_int_equal(rig->closed, 0);
    rig->slow = false;
    turn(rig);
    assert_int_equal(rig->closed, 1);
    rig_free(rig);

    rig = rig_new(); /* while it is waited for */
    rig->slow = true;
    say(rig, POST BODY, 1000);
    rig_free(rig);
    assert_int_equal(mem_in_use(), before);

    rig = rig_new(); /* in the middle of its body */
    say(rig, POST "Content-Length: 9000\r\n\r\nSELECT", 1000);
    rig_free(rig);
    assert_int_equal(mem_in_use(), before);
}

/* The core ends the session: the line says why, and nothing more is expected on this connection. */
static void kicked(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    rows_that_do_not_end(rig);
    emit(rig, EFF_SESSION_KICK, rig->session, 0)->answer =
        answer_new_as(ERR_CONNECTION_FORCED, "user was deleted", slice_str(""));
    turn(rig);
    assert_string_equal(content(rig),
                        COLUMNS ROW "{\"error\":{\"code\":\"57P01\",\"message\":\"user was deleted\"}}\n");
    assert_true(rig->engine->want_close);
    rig_free(rig);

    rig = rig_new(); /* between two requests nobody notices */
    say(rig, POST BODY, 1000);
    emit(rig, EFF_SESSION_KICK, rig->session, 0)->answer = answer_new_as(ERR_CONNECTION_FORCED, "moved", slice_str(""));
    say(rig, POST BODY, 1000);
    assert_true(begins(rig, "HTTP/1.1 200 ") && rig->opened == 2);
    rig_free(rig);

    rig = rig_new(); /* a table has no place for it */
    rig->no_answer = true;
    say(rig, POST "Accept: text/csv\r\n" BODY, 1000);
    engine_says(rig, slice_str(COLUMNS ROW "{\"error\":{\"code\":\"22012\",\"message\":\"x\"}}\n"), true);
    turn(rig);
    assert_null(strstr(rig->out, "0\r\n\r\n"));
    assert_true(rig->engine->want_close && strstr(rig->out, "\"a\"\r\n1\r\n"));
    rig_free(rig);

    rig = rig_new();
    rows_that_do_not_end(rig);
    rig->engine->ops->shutdown(rig->engine, "shutdown");
    turn(rig);
    assert_true(rig->engine->want_close && rig->closed == 1);
    rig_free(rig);
}

/* A body that does not come. */
static void too_slow(void **state)
{
    (void)state;
    struct rig *rig = rig_new();
    say(rig, POST "Content-Length: 9\r\n\r\nSELECT", 1000);
    rig->engine->now = 13 * NS_PER_S;
    assert_int_equal(rig->engine->ops->tick(rig->engine, rig->engine->now), MONO_NEVER);
    turn(rig);
    assert_true(begins(rig, "HTTP/1.1 408 ") && rig->engine->want_close && rig->asked == 0);
    rig_free(rig);
}

/* Every command waits for a slot. */
static void full_ring(void **state)
{
    (void)state;
    struct rig *rig = rig_with(128);
    struct session other = {.on_effect = NULL};
    rig_open(rig);
    rig->slow = true;
    assert_true(hub_attach(rig->hub, &other));
    unsigned filled = 0;
    for (struct command *c; (c = hub_command(rig->hub, &other)); filled++)
        c->type = CMD_SQL_MORE;
    say(rig, POST BODY, 1000);
    assert_int_equal(rig->opened, 0);
    rig->slow = false;
    turn(rig);
    assert_true(begins(rig, "HTTP/1.1 200 OK\r\n"));
    hub_detach(rig->hub, &other);
    rig_free(rig);
}

/* Every allocation fails once. */
static void refused_memory(void **state)
{
    size_t before = mem_in_use();
    bool hit = true;
    (void)state;
    for (uint64_t n = 1; hit; n++) {
        struct rig *rig = rig_with(256);
        mem_fail_at(n, false);
        rig_open(rig);
        if (rig->engine)
            say(rig, POST BODY POST ANNA JSON "d\r\n{\"sql\":\"A;B\"}\r\n0\r\n\r\n", 40);
        hit = mem_failures_hit() > 0;
        mem_fail_at(0, false);
        if (rig->engine && !rig->engine->out.failed && !rig->engine->want_close && rig->in_len == 0)
            assert_int_equal(count(rig->out, "HTTP/1.1 200 ") + count(rig->out, "HTTP/1.1 503 "), 2);
        rig_free(rig);
        assert_int_equal(mem_in_use(), before);
        assert_true(n < 100);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests),  cmocka_unit_test(pipelined),      cmocka_unit_test(http_10),
        cmocka_unit_test(who),       cmocka_unit_test(statuses),       cmocka_unit_test(granted),
        cmocka_unit_test(gone),      cmocka_unit_test(kicked),         cmocka_unit_test(too_slow),
        cmocka_unit_test(full_ring), cmocka_unit_test(refused_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
