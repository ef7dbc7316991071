/* A connection of the HTTP listener, see engine.h and net/engine.h. The loop's thread.
 *
 * States: a head is looked for (it stays with the connection until it is whole) → it is answered at once → its body, which nobody
 * wants, is read over → the next head. Only SQL wants a body: once the core has let the client in (WAIT) it is kept (BODY), then
 * the answer comes in pieces (SAYS), and meanwhile nothing is consumed. An upgrade ends all that: from then on everything belongs to the
 * WebSocket. What was malformed is answered and ends the connection. */
#include "proto/http/engine.h"

#include "base/check.h"
#include "base/mem.h"
#include "proto/http/http_int.h"

#include <stdio.h>

#define HEAD_OUT_MAX 1024u
#define CHUNK_HEAD_MAX 12u

static struct http *of_engine(struct engine *engine)
{
    return CONTAINER_OF(engine, struct http, engine);
}

static void due_by(struct http *h, mono_t due)
{
    h->deadline = due;
    if (due < h->engine.next_tick)
        h->engine.next_tick = due;
}

/* ---- answers ---- */

void http_end(struct http *h)
{
    http_sql_leave(h);
    h->state = HTTP_OVER;
    h->engine.want_close = true;
    engine_dirty(&h->engine);
}

/* pieces: there is no telling how long the body will be. */
static void put_head(struct http *h, const struct http_answer *answer, bool pieces)
{
    uint8_t *room = outq_room(&h->engine.out, HEAD_OUT_MAX);
    if (!room)
        return; /* out of memory: the connection ends by that */
    struct writer w = writer_of(room, HEAD_OUT_MAX);
    http_put_status(&w, answer->status);
    if (h->options->wall)
        http_put_date(&w, h->options->wall(h->options->wall_arg));
    if (answer->type)
        http_put_field(&w, "Content-Type", slice_str(answer->type));
    if (!pieces)
        http_put_number(&w, "Content-Length", answer->body.len);
    else if (h->chunked)
        http_put_field(&w, "Transfer-Encoding", slice_str("chunked"));
    http_put_field(&w, "Cache-Control", slice_str("no-store"));
    http_put_field(&w, "X-Content-Type-Options", slice_str("nosniff"));
    for (size_t i = 0; i < HTTP_EXTRA_MAX && answer->extra[i].name; i++)
        http_put_field(&w, answer->extra[i].name, slice_str(answer->extra[i].value));
    if (!h->keep_alive || h->say_keep_alive)
        http_put_field(&w, "Connection", slice_str(h->keep_alive ? "keep-alive" : "close"));
    http_put_end(&w);
    CHECK(writer_ok(&w)); /* all of it is ours */
    outq_commit(&h->engine.out, w.len);
    engine_dirty(&h->engine);
}

void http_answer(struct http *h, const struct http_answer *answer)
{
    put_head(h, answer, false);
    if (!h->no_body)
        outq_put(&h->engine.out, answer->body.ptr, answer->body.len);
}

/* A client of HTTP/1.0 knows the end by the connection's. */
void http_answer_begin(struct http *h, unsigned status, const char *type)
{
    h->keep_alive &= h->chunked;
    h->say_keep_alive &= h->keep_alive;
    put_head(h,
             &(struct http_answer){.status = status, .type = type, .extra = {{"X-Accel-Buffering", "no"}}}, /* nginx */
             true);
}

static void put_chunk_head(struct http *h, size_t len)
{
    char text[CHUNK_HEAD_MAX + 1];
    if (h->chunked)
        outq_put(&h->engine.out, text, (size_t)snprintf(text, sizeof text, "%zx\r\n", len));
}

static void put_chunk_end(struct http *h)
{
    if (h->chunked)
        outq_put(&h->engine.out, "\r\n", 2);
    engine_dirty(&h->engine);
}

void http_answer_piece(struct http *h, struct slice bytes)
{
    if (!bytes.len)
        return;
    put_chunk_head(h, bytes.len);
    outq_put(&h->engine.out, bytes.ptr, bytes.len);
    put_chunk_end(h);
}

static void release_answer(void *arg, void *owner)
{
    (void)arg;
    mem_free(owner);
}

void http_answer_lend(struct http *h, struct answer **answer)
{
    struct answer *lent = *answer;
    *answer = NULL;
    if (lent->fields.len < OUTQ_LEND_MIN) {
        http_answer_piece(h, lent->fields);
        mem_free(lent);
        return;
    }
    put_chunk_head(h, lent->fields.len);
    outq_lend(&h->engine.out, lent->fields, release_answer, NULL, lent);
    put_chunk_end(h);
}

void http_answer_end(struct http *h)
{
    if (h->chunked)
        outq_put(&h->engine.out, "0\r\n\r\n", 5);
    http_answered(h);
}

void http_answer_error(struct http *h, unsigned status, const char *reason)
{
    char error[48], body[400];
    size_t len = strlen(http_reason(status));
    for (size_t i = 0; i <= len && i < sizeof error; i++) {
        char c = http_reason(status)[i];
        error[i] = c == ' ' ? '_' : c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
    }
    int n = snprintf(body, sizeof body, "{\"error\":\"%s\",\"reason\":\"%s\"}\n", error, reason);
    CHECK(n > 0 && (size_t)n < sizeof body && len < sizeof error);
    http_answer(h,
                &(struct http_answer){.status = status, .type = "application/json", .body = slice_of(body, (size_t)n)});
}

/* Nobody knows where a next request would begin. */
static void refuse(struct http *h, unsigned status)
{
    static const struct {
        unsigned status;
        const char *reason;
    } rows[] = {
        {408, "the request took too long"},
        {413, "the body is too large"},
        {414, "the request line is too long"},
        {417, "only 100-continue can be expected"},
        {431, "the header fields are too large or too many"},
        {501, "this method or transfer coding is not known here"},
        {505, "only HTTP/1.1 and HTTP/1.0 are spoken here"},
    };
    const char *reason = "the request is malformed";
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (rows[i].status == status)
            reason = rows[i].reason;
    h->keep_alive = h->say_keep_alive = h->no_body = false;
    http_answer_error(h, status, reason);
    http_end(h);
}

/* ---- requests ---- */

static void next_request(struct http *h)
{
    h->begun = false;
    if (!h->keep_alive) {
        http_end(h);
        return;
    }
    h->state = HTTP_HEAD;
    h->scan = (struct http_scan){0};
    due_by(h, h->engine.now + h->options->idle_ms * NS_PER_MS);
    engine_dirty(&h->engine); /* it may be there */
}

void http_answered(struct http *h)
{
    h->keep_body = false;
    if (h->body.done || !h->keep_alive)
        next_request(h);
    else
        h->state = HTTP_BODY;
}

static void body_done(struct http *h)
{
    if (!h->keep_body) {
        next_request(h);
        return;
    }
    h->state = HTTP_SAYS;
    h->deadline = MONO_NEVER; /* a query may be silent for as long as nothing happens */
    http_sql_run(h);
}

void http_body_wanted(struct http *h)
{
    h->keep_body = true;
    h->state = HTTP_BODY;
    due_by(h, h->engine.now + h->options->handshake_ms * NS_PER_MS);
    if (h->continues)
        outq_put(&h->engine.out, "HTTP/1.1 100 Continue\r\n\r\n", 25);
    engine_dirty(&h->engine);
    if (h->body.done)
        body_done(h);
}

static void on_head(struct http *h, struct slice head)
{
    struct http_request request;
    h->no_body = false;
    unsigned bad = http_parse(head, &request);
    if (!bad) {
        http_body_init(&h->body, &request, http_route_body_max(&request));
        bad = h->body.status;
    }
    if (bad) {
        refuse(h, bad);
        return;
    }
    /* Who waits for 100 (Continue) may send the body or not, now that there is an answer: the connection ends with it. */
    h->keep_alive = request.keep_alive && !request.expects_continue;
    h->say_keep_alive = h->keep_alive && request.minor == 0;
    h->no_body = slice_is(request.method, "HEAD");
    h->continues = request.expects_continue;
    h->chunked = request.minor > 0;
    h->keep_body = false;
    h->state = HTTP_BODY;
    due_by(h, h->engine.now + h->options->handshake_ms * NS_PER_MS);
    http_route(h, &request);
    if (h->websocket) {
        h->state = HTTP_WEBSOCKET;
        http_sql_leave(h);
    } else if (h->state == HTTP_BODY && !h->keep_body) {
        http_answered(h);
    }
}

/* 0: more bytes are needed. */
static size_t feed_head(struct http *h, struct slice bytes)
{
    size_t len = 0;
    unsigned found = http_scan(&h->scan, bytes, &len);
    if (found == HTTP_MORE) {
        if (!h->begun)
            due_by(h, h->engine.now + h->options->handshake_ms * NS_PER_MS);
        h->begun = true;
        return 0;
    }
    if (found == HTTP_WHOLE)
        on_head(h, slice_of(bytes.ptr, len));
    else
        refuse(h, found);
    return len;
}

static size_t feed_body(struct http *h, struct slice bytes)
{
    struct slice part;
    size_t used = http_body_take(&h->body, bytes, &part);
    if (h->body.status && h->keep_body)
        refuse(h, h->body.status);
    else if (h->body.status)
        http_end(h); /* it has its answer */
    else if (h->keep_body && part.len)
        http_sql_body(h, part);
    if (h->state == HTTP_BODY && h->body.done)
        body_done(h);
    return used;
}

static size_t http_feed(struct engine *engine, struct slice bytes)
{
    struct http *h = of_engine(engine);
    size_t used = 0, n = 1;
    while (used < bytes.len && n && (h->state == HTTP_HEAD || h->state == HTTP_BODY) && engine->out.len <= OUTQ_HIGH &&
           !engine->out.failed) {
        struct slice rest = slice_of(bytes.ptr + used, bytes.len - used);
        n = h->state == HTTP_HEAD ? feed_head(h, rest) : feed_body(h, rest);
        used += n;
    }
    if (h->state == HTTP_OVER)
        return bytes.len;
    if (h->state == HTTP_WEBSOCKET && used < bytes.len)
        used += websocket_feed(h->websocket, slice_of(bytes.ptr + used, bytes.len - used));
    return used;
}

/* ---- the loop's other calls ---- */

static mono_t http_tick(struct engine *engine, mono_t now)
{
    struct http *h = of_engine(engine);
    engine->now = now;
    if (h->websocket)
        return websocket_tick(h->websocket, now);
    if (h->state == HTTP_OVER)
        return MONO_NEVER;
    if (now < h->deadline)
        return h->deadline;
    if ((h->state == HTTP_HEAD && h->begun) || h->keep_body)
        refuse(h, 408);
    else
        http_end(h);
    return MONO_NEVER;
}

static void http_gather(struct engine *engine)
{
    struct http *h = of_engine(engine);
    if (h->websocket)
        websocket_gather(h->websocket);
    else if (h->sql)
        http_sql_drained(h); /* what left in the last round */
}

static void http_drained(struct engine *engine)
{
    struct http *h = of_engine(engine);
    if (h->websocket)
        websocket_drained(h->websocket);
    else if (h->sql)
        http_sql_drained(h);
}

static void http_shutdown(struct engine *engine, const char *text)
{
    struct http *h = of_engine(engine);
    if (h->websocket)
        websocket_shutdown(h->websocket, text);
    else
        http_end(h);
}

static void http_closed(struct engine *engine)
{
    struct http *h = of_engine(engine);
    http_sql_leave(h);
    websocket_closed(&h->websocket);
    outq_fini(&engine->out);
    mem_free_as(MEM_CONNECTIONS, h);
}

static const struct engine_ops ops = {
    .name = "HTTP",
    .feed = http_feed,
    .tick = http_tick,
    .gather = http_gather,
    .drained = http_drained,
    .shutdown = http_shutdown,
    .closed = http_closed,
};

struct engine *http_new(const struct http_options *options, void *loop_owner, const struct os_peer *peer, mono_t now)
{
    struct http *h = mem_zalloc_as(MEM_CONNECTIONS, sizeof *h);
    if (!h)
        return NULL;
    h->options = options;
    h->loop_owner = loop_owner;
    h->peer = *peer;
    h->engine = (struct engine){.ops = &ops, .now = now, .next_tick = MONO_NEVER, .in_max = HTTP_HEAD_MAX};
    h->engine.peer_loopback = peer->loopback;
    outq_init(&h->engine.out);
    list_init(&h->engine.dirty_link);
    due_by(h, now + options->handshake_ms * NS_PER_MS);
    return &h->engine;
}
