/* POST /sql: who asks, and for what; see http_int.h and docs/sql-http.md. The loop's thread.
 *
 * A connection has one session in the core for it, logged in with the first request and used by those that follow as the same user in the
 * same vhost; others get another one. Before the core has let somebody in no byte of a body is kept. */
#include "base/check.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "fmt/base64.h"
#include "fmt/json_scan.h"
#include "net/websocket_upgrade.h"
#include "proto/http/sql_int.h"

#define CREDENTIALS_MAX 1400u
#define VHOST_MAX 255u
#define BODY_FIRST 4096u

/* ---- who asks ---- */

struct client {
    struct slice user, secret;
    uint32_t flags;
    uint8_t bytes[CREDENTIALS_MAX];
};

static bool has_text(const char *text)
{
    return text && *text;
}

/* Basic (RFC 7617), or nobody, who is somebody by a certificate, or where engine_may_be_anonymous. */
static bool client_of(const struct http *h, const struct http_request *request, struct client *ret)
{
    struct slice field = http_field(request, "authorization");
    ret->flags = 0;
    ret->secret = (struct slice){0};
    if (field.ptr) {
        if (http_field_count(request, "authorization") != 1 || field.len < 6 ||
            !http_same(slice_of(field.ptr, 6), "basic "))
            return false;
        int64_t len = base64_decode(slice_of(field.ptr + 6, field.len - 6), ret->bytes, sizeof ret->bytes);
        const uint8_t *colon = len > 0 ? memchr(ret->bytes, ':', (size_t)len) : NULL;
        if (!colon)
            return false;
        ret->user = slice_of(ret->bytes, (size_t)(colon - ret->bytes));
        ret->secret = slice_of(colon + 1, (size_t)len - ret->user.len - 1);
        return true;
    }
    const char *certified = h->engine.certified;
    if (!certified && !(engine_may_be_anonymous(&h->engine) && has_text(h->options->anonymous)))
        return false;
    ret->user = slice_str(certified ? certified : h->options->anonymous);
    ret->flags = certified ? ASK_CERTIFIED : ASK_TRUSTED;
    return ret->user.len <= CREDENTIALS_MAX;
}

static int hex_value(uint8_t c)
{
    return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}

/* As forms write it. */
static bool decode(struct slice text, struct writer *w)
{
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.ptr[i] == '+' ? ' ' : text.ptr[i];
        if (c == '%') {
            int high = text.len - i > 2 ? hex_value(text.ptr[i + 1]) : -1,
                low = high < 0 ? -1 : hex_value(text.ptr[i + 2]);
            if (low < 0)
                return false;
            c = (uint8_t)(high * 16 + low);
            i += 2;
        }
        writer_u8(w, c);
    }
    return writer_ok(w);
}

/* X-Vhost, or ?vhost=, or "/". False: it is no name, or the query asks for something else. */
static bool vhost_of(const struct http_request *request, struct writer *w)
{
    struct slice field = http_field(request, "x-vhost"), query = request->query;
    if (slice_starts(query, "vhost=") && !memchr(query.ptr, '&', query.len) && !field.ptr)
        return decode(slice_of(query.ptr + 6, query.len - 6), w) && utf8_valid(writer_slice(w));
    writer_slice_put(w, field.ptr ? field : slice_str("/"));
    return query.len == 0 && http_field_count(request, "x-vhost") <= 1 && writer_ok(w) && utf8_valid(writer_slice(w));
}

static void digest_of(const struct client *client, struct slice vhost, uint8_t ret[SHA256_DIGEST_LENGTH])
{
    uint8_t text[CREDENTIALS_MAX + VHOST_MAX + 20];
    struct writer w = writer_of(text, sizeof text);
    writer_u32(&w, client->flags);
    writer_str32(&w, client->user);
    writer_str32(&w, client->secret);
    writer_slice_put(&w, vhost);
    CHECK(writer_ok(&w));
    SHA256(text, w.len, ret);
    explicit_bzero(text, sizeof text);
}

static bool make_asks(struct http_sql *s, const struct client *client, struct slice vhost)
{
    struct slice none = {0};
    s->open = ask_new(slice_str(s->http->engine.peer), slice_str("HTTP"), none, none);
    s->login = s->open ? ask_new(client->user, client->secret, slice_str("PLAIN"), none) : NULL;
    s->enter = s->login ? ask_new(vhost, none, none, none) : NULL;
    if (!s->enter)
        return false;
    s->open->flags = s->http->peer.loopback ? ASK_LOOPBACK : 0;
    s->login->flags = client->flags;
    return true;
}

static bool session_begin(struct http *h, const struct client *client, struct slice vhost)
{
    struct http_sql *s = mem_zalloc_as(MEM_CONNECTIONS, sizeof *s);
    if (!s)
        return false;
    if (!hub_attach(h->loop_owner, &s->session)) {
        mem_free_as(MEM_CONNECTIONS, s);
        return false;
    }
    http_sql_init(s);
    s->request = SQL_CUE_REQUESTS;
    s->http = h;
    h->sql = s;
    if (make_asks(s, client, vhost)) {
        digest_of(client, vhost, s->who);
        return true;
    }
    http_sql_leave(h);
    return false;
}

/* Who has been let in, and asks once more, or somebody else, in whose place nothing was promised to anybody. */
static void let_in(struct http *h, const struct client *client, struct slice vhost, bool csv, bool json)
{
    uint8_t who[SHA256_DIGEST_LENGTH];
    digest_of(client, vhost, who);
    if (h->sql && (h->sql->state != SQL_READY || memcmp(h->sql->who, who, sizeof who) != 0))
        http_sql_leave(h);
    bool known = h->sql;
    if (!known && !session_begin(h, client, vhost)) {
        http_sql_wrong(h, 503, slice_str("there is no room for another session"));
        return;
    }
    h->sql->csv = csv;
    h->sql->json = json;
    if (known) {
        http_body_wanted(h);
        return;
    }
    h->state = HTTP_WAIT;
    h->deadline = MONO_NEVER;
    http_sql_send(h->sql);
}

/* ---- requests ---- */

/* False: it is neither text nor JSON. */
static bool is_text_or_json(const struct http_request *request, bool *ret_json)
{
    struct slice type = http_field(request, "content-type");
    const uint8_t *end = type.len ? memchr(type.ptr, ';', type.len) : NULL;
    if (end)
        type.len = (size_t)(end - type.ptr);
    while (type.len && type.ptr[type.len - 1] == ' ')
        type.len--;
    *ret_json = http_same(type, "application/json");
    return *ret_json || !type.ptr || http_same(type, "text/plain") || http_same(type, "application/sql");
}

static bool takes_csv(const struct http_request *request)
{
    struct http_list list = {.name = "accept"};
    struct slice word;
    while (http_list_next(request, &list, &word))
        if (word.len >= 8 && http_same(slice_of(word.ptr, 8), "text/csv"))
            return true;
    return false;
}

void http_sql_begin(struct http *h, const struct http_request *request)
{
    uint8_t room[VHOST_MAX];
    struct writer vhost = writer_of(room, sizeof room);
    struct client client;
    bool json;
    if (!slice_is(request->method, "POST"))
        http_sql_wrong(h, 405, slice_str("statements are sent here with POST"));
    else if (!websocket_origin_allowed(request, h->options->origins, true))
        http_sql_wrong(h, 403,
                       slice_str("pages of this origin may not ask; the setting websocket.origins says which may"));
    else if (!is_text_or_json(request, &json))
        http_sql_wrong(h, 415,
                       slice_str("the body is application/sql, text/plain or application/json: say which, as with curl "
                                 "-H 'Content-Type: application/sql'"));
    else if (!vhost_of(request, &vhost))
        http_sql_wrong(h, 400,
                       slice_str("of what may stand behind /sql only ?vhost=NAME is known, and X-Vhost says the same"));
    else if (!client_of(h, request, &client)) {
        engine_turn_away(&h->engine);
        http_sql_wrong(h, 401, slice_str("who is it? Authorization: Basic is expected"));
    } else
        let_in(h, &client, writer_slice(&vhost), takes_csv(request), json);
    explicit_bzero(&client, sizeof client);
}

static bool body_reserve(struct http_sql *s, size_t need)
{
    size_t room = s->body_room ? s->body_room : BODY_FIRST;
    while (room < need)
        room *= 2;
    if (room == s->body_room)
        return true;
    uint8_t *grown = mem_realloc_as(MEM_CONNECTIONS, s->body, room);
    if (!grown)
        return false;
    s->body = grown;
    s->body_room = room;
    return true;
}

void http_sql_body(struct http *h, struct slice bytes)
{
    struct http_sql *s = h->sql;
    if (!body_reserve(s, s->body_len + bytes.len)) {
        h->engine.out.failed = true;
        return;
    }
    memcpy(s->body + s->body_len, bytes.ptr, bytes.len);
    s->body_len += bytes.len;
}

/* {"sql": text, "options": {…}}. NULL: *ret_why, or no memory. */
static struct ask *ask_of_json(struct slice body, const char **ret_why)
{
    struct json_view whole, name, value, sql = {0}, options = {0};
    struct json_fault fault;
    struct slice none = {0};
    *ret_why = "the body is no JSON object with the texts of the statements as \"sql\"";
    if (!body.len || !json_view_of(body, &whole, &fault) || whole.kind != JSON_VIEW_OBJECT)
        return NULL;
    struct json_items items = json_items_of(&whole);
    while (json_items_next(&items, &name, &value)) {
        if (json_view_is(&name, slice_str("sql")))
            sql = value;
        else if (json_view_is(&name, slice_str("options")))
            options = value;
        else
            return NULL;
    }
    if (sql.kind != JSON_VIEW_STRING)
        return NULL;
    if ((options.kind != JSON_VIEW_ABSENT && options.kind != JSON_VIEW_OBJECT) || options.len > SQL_OPTIONS_MAX) {
        *ret_why = "\"options\" is an object of at most 4 KiB";
        return NULL;
    }
    *ret_why = NULL;
    bool any = false;
    if (options.kind == JSON_VIEW_OBJECT) {
        struct json_items members = json_items_of(&options);
        any = json_items_next(&members, &name, &value);
    }
    struct ask *ask = ask_new(slice_of(sql.at, sql.len), none, none, any ? slice_of(options.at, options.len) : none);
    if (ask) /* escapes make a text only shorter */
        ask->name.len = json_view_text(&sql, (uint8_t *)(uintptr_t)ask->name.ptr);
    return ask;
}

void http_sql_run(struct http *h)
{
    struct http_sql *s = h->sql;
    struct slice none = {0}, body = slice_of(s->body, s->body_len);
    const char *why = NULL;
    s->ask = s->json ? ask_of_json(body, &why) : ask_new(body, none, none, none);
    mem_free_as(MEM_CONNECTIONS, s->body);
    s->body = NULL;
    s->body_len = s->body_room = 0;
    if (!s->ask) {
        http_sql_wrong(h, why ? 400 : 503, slice_str(why ? why : "out of memory"));
        return;
    }
    s->state = SQL_RUNS;
    s->request++;
    s->owed = 0;
    http_sql_send(s);
}
