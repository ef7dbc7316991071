/* POST /sql from the other side, see sql_client.h. Chunks are undone by fmt/http; what stops a query is the end of its connection. */
#include "main/client/sql_client.h"

#include "base/mem.h"
#include "fmt/base64.h"
#include "os/os_net.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#define IN_BYTES (256u * 1024)
#define HEAD_MAX 8192u
#define CREDENTIALS_MAX 1400u
#define NAME_MAX_BYTES 255u
#define LOOK_MS 250 /* whether SIGINT has come just before the wait */

__attribute__((format(printf, 2, 3))) static bool fail(struct sql_client *c, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(c->error, sizeof c->error, format, args);
    va_end(args);
    sql_client_stop(c);
    return false;
}

void sql_client_init(struct sql_client *c, const char *host, unsigned port)
{
    *c = (struct sql_client){.host = host, .port = port, .socket = {.fd = -1}};
}

void sql_client_stop(struct sql_client *c)
{
    client_socket_close(&c->socket);
    c->connected = c->asking = false;
    c->line_len = c->line_seen = 0;
}

void sql_client_fini(struct sql_client *c)
{
    sql_client_stop(c);
    mem_free(c->line);
    c->line = NULL;
    c->line_room = 0;
}

/* ---- asking ---- */

/* One that the broker has ended meanwhile is not used again. */
static bool connect_to(struct sql_client *c)
{
    if (c->asking || (c->connected && (!c->keeps || os_wait_readable(c->socket.fd, 0) != 0)))
        sql_client_stop(c);
    c->error[0] = c->socket.error[0] = '\0';
    c->unreachable = false;
    if (c->connected)
        return true;
    if (client_socket_connect(&c->socket, c->host, c->port) != 0 || client_socket_reserve(&c->socket, IN_BYTES) != 0) {
        c->unreachable = true;
        return fail(c, "%s", c->socket.error);
    }
    c->connected = c->reached = true;
    return true;
}

bool sql_client_reach(struct sql_client *c)
{
    return c->reached || connect_to(c);
}

static bool put_authorization(struct sql_client *c, struct writer *w)
{
    char text[CREDENTIALS_MAX + 1], encoded[BASE64_LEN(CREDENTIALS_MAX) + 1];
    int len = snprintf(text, sizeof text, "%s:%s", c->user, c->password ? c->password : "guest");
    if (len > (int)CREDENTIALS_MAX || strchr(c->user, ':'))
        return fail(c, "a user's name has no colon, and with its password at most %u bytes", CREDENTIALS_MAX);
    base64_encode(slice_of(text, (size_t)len), encoded);
    http_put_field(w, "Authorization", slice_str("Basic "));
    w->len -= 2; /* the line's end */
    writer_slice_put(w, slice_str(encoded));
    writer_slice_put(w, slice_str("\r\n"));
    return true;
}

static void put_encoded(struct writer *w, const char *text)
{
    static const char digits[] = "0123456789ABCDEF";
    for (const uint8_t *at = (const uint8_t *)text; *at; at++) {
        writer_u8(w, '%');
        writer_u8(w, (uint8_t)digits[*at >> 4]);
        writer_u8(w, (uint8_t)digits[*at & 15]);
    }
}

static bool put_head(struct sql_client *c, struct writer *w, size_t len)
{
    writer_slice_put(w, slice_str("POST /sql"));
    if (c->vhost) {
        writer_slice_put(w, slice_str("?vhost="));
        put_encoded(w, c->vhost);
    }
    writer_slice_put(w, slice_str(" HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/sql\r\n"));
    if (c->user && !put_authorization(c, w))
        return false;
    http_put_number(w, "Content-Length", len);
    http_put_end(w);
    return writer_ok(w) || fail(c, "the vhost's name is too long");
}

/* ---- the answer ---- */

static bool fill(struct sql_client *c)
{
    ssize_t n = client_socket_fill(&c->socket);
    return n > 0 || fail(c, "%s", n < 0 ? c->socket.error : "the broker does not answer");
}

/* Bytes up to the empty line, it included; 0: it is not there yet. */
static size_t head_len(const struct client_socket *s)
{
    const uint8_t *end = memmem(s->in + s->in_at, s->in_end - s->in_at, "\r\n\r\n", 4);
    return end ? (size_t)(end + 4 - (s->in + s->in_at)) : 0;
}

/* The value of a field of an answer's head, of which the first line is none. */
static struct slice field_of(struct slice head, const char *name)
{
    size_t len = strlen(name);
    const uint8_t *at = head.ptr, *end = head.ptr + head.len;
    while ((at = memmem(at, (size_t)(end - at), "\r\n", 2))) {
        at += 2;
        if ((size_t)(end - at) > len && at[len] == ':' && http_same(slice_of(at, len), name)) {
            const uint8_t *value = at + len + 1, *stop = memmem(value, (size_t)(end - value), "\r\n", 2);
            while (value < stop && *value == ' ')
                value++;
            return slice_of(value, (size_t)(stop - value));
        }
    }
    return slice_of(NULL, 0);
}

/* When it is there. */
static bool take_head(struct sql_client *c)
{
    struct client_socket *s = &c->socket;
    struct http_request framing = {0};
    size_t len = head_len(s);
    if (!len && s->in_end - s->in_at <= HEAD_MAX)
        return true;
    struct slice head = slice_of(s->in + s->in_at, len);
    if (!slice_starts(head, "HTTP/1.1 "))
        return fail(c, "the answer is no HTTP: is it the broker's HTTP port?");
    if (slice_starts(head, "HTTP/1.1 404"))
        return fail(c, "nobody answers /sql there: is it Millrace's HTTP port?");
    struct slice length = field_of(head, "content-length");
    framing.chunked = http_same(field_of(head, "transfer-encoding"), "chunked");
    for (size_t i = 0; i < length.len && i < 9; i++)
        framing.content_length = framing.content_length * 10 + (uint64_t)(length.ptr[i] - '0');
    http_body_init(&c->body, &framing, UINT64_MAX);
    c->keeps = !http_same(field_of(head, "connection"), "close");
    c->has_head = true;
    s->in_at += len;
    return true;
}

bool sql_client_ask(struct sql_client *c, struct slice text)
{
    uint8_t room[4096];
    struct writer w = writer_of(room, sizeof room);
    if (!connect_to(c) || !put_head(c, &w, text.len))
        return false;
    if (client_socket_send(&c->socket, room, w.len) != 0 || client_socket_send(&c->socket, text.ptr, text.len) != 0)
        return fail(c, "%s", c->socket.error);
    c->asking = true;
    c->has_head = false;
    c->line_len = c->line_seen = 0;
    return true;
}

static bool line_add(struct sql_client *c, struct slice bytes)
{
    size_t need = c->line_len + bytes.len, room = c->line_room ? c->line_room : 4096;
    while (room < need)
        room *= 2;
    uint8_t *grown = room == c->line_room ? c->line : room > SQL_CLIENT_LINE_MAX ? NULL : mem_realloc(c->line, room);
    if (!grown)
        return fail(c, "a row is too long");
    c->line = grown;
    c->line_room = room;
    memcpy(c->line + c->line_len, bytes.ptr, bytes.len);
    c->line_len = need;
    return true;
}

/* The next whole line of what has come of the body. line_seen is what was given out, line feed included. */
static bool line_take(struct sql_client *c, struct slice *ret)
{
    if (c->line_len == c->line_seen)
        return false;
    const uint8_t *from = c->line + c->line_seen, *end = memchr(from, '\n', c->line_len - c->line_seen);
    if (!end)
        return false;
    *ret = slice_of(from, (size_t)(end - from));
    c->line_seen += ret->len + 1;
    return true;
}

static void line_shift(struct sql_client *c)
{
    if (c->line_seen)
        memmove(c->line, c->line + c->line_seen, c->line_len - c->line_seen);
    c->line_len -= c->line_seen;
    c->line_seen = 0;
}

/* What has been read, without what it is framed by. */
static bool take_in(struct sql_client *c)
{
    struct client_socket *s = &c->socket;
    if (!c->has_head && !take_head(c))
        return false;
    while (c->has_head && s->in_at < s->in_end && !c->body.done) {
        struct slice part;
        s->in_at += http_body_take(&c->body, slice_of(s->in + s->in_at, s->in_end - s->in_at), &part);
        if (c->body.status)
            return fail(c, "the broker's answer is damaged");
        if (part.len && !line_add(c, part))
            return false;
    }
    return true;
}

enum sql_client_got sql_client_line(struct sql_client *c, int ms, struct slice *ret)
{
    if (line_take(c, ret))
        return SQL_CLIENT_LINE;
    line_shift(c);
    if (!c->asking)
        return SQL_CLIENT_END;
    for (;;) {
        if (!take_in(c))
            return SQL_CLIENT_FAILED;
        if (line_take(c, ret))
            return SQL_CLIENT_LINE;
        if (c->has_head && c->body.done) {
            c->asking = false;
            return SQL_CLIENT_END;
        }
        int ready = os_wait_readable(c->socket.fd, ms < LOOK_MS ? ms : LOOK_MS);
        if (ready <= 0)
            return SQL_CLIENT_NOTHING;
        if (!fill(c))
            return SQL_CLIENT_FAILED;
    }
}
