/* A connection of the HTTP listener, see engine.h and net/engine.h. The loop's thread.
 *
 * States: a head is looked for (it stays with the connection until it is whole) → it is answered at once → its body, which no
 * route wants yet, is read over → the next head. An upgrade ends that: from then on everything belongs to the WebSocket.
 * What was malformed is answered and ends the connection. */
#include "proto/http/engine.h"

#include "base/check.h"
#include "base/mem.h"
#include "proto/http/http_int.h"

#include <stdio.h>

#define HEAD_OUT_MAX 1024u

enum http_state { STATE_HEAD, STATE_BODY, STATE_WEBSOCKET, STATE_OVER };

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

static void end(struct http *h)
{
    h->state = STATE_OVER;
    h->engine.want_close = true;
    engine_dirty(&h->engine);
}

void http_answer(struct http *h, const struct http_answer *answer)
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
    http_put_number(&w, "Content-Length", answer->body.len);
    http_put_field(&w, "Cache-Control", slice_str("no-store"));
    http_put_field(&w, "X-Content-Type-Options", slice_str("nosniff"));
    for (size_t i = 0; i < HTTP_EXTRA_MAX && answer->extra[i].name; i++)
        http_put_field(&w, answer->extra[i].name, slice_str(answer->extra[i].value));
    if (!h->keep_alive || h->say_keep_alive)
        http_put_field(&w, "Connection", slice_str(h->keep_alive ? "keep-alive" : "close"));
    http_put_end(&w);
    CHECK(writer_ok(&w)); /* all of it is ours */
    outq_commit(&h->engine.out, w.len);
    if (!h->no_body)
        outq_put(&h->engine.out, answer->body.ptr, answer->body.len);
    engine_dirty(&h->engine);
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
    end(h);
}

/* ---- requests ---- */

static void next_request(struct http *h)
{
    h->begun = false;
    if (!h->keep_alive) {
        end(h);
        return;
    }
    h->state = STATE_HEAD;
    h->scan = (struct http_scan){0};
    due_by(h, h->engine.now + h->options->idle_ms * NS_PER_MS);
}

static void on_head(struct http *h, struct slice head)
{
    struct http_request request;
    h->no_body = false;
    unsigned bad = http_parse(head, &request);
    if (!bad) {
        http_body_init(&h->body, &request, HTTP_BODY_SKIP_MAX);
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
    h->state = STATE_BODY;
    due_by(h, h->engine.now + h->options->handshake_ms * NS_PER_MS);
    http_route(h, &request);
    if (h->websocket)
        h->state = STATE_WEBSOCKET;
    else if (h->body.done || !h->keep_alive)
        next_request(h);
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
    struct slice unwanted;
    size_t used = http_body_take(&h->body, bytes, &unwanted);
    if (h->body.status)
        end(h); /* it has its answer */
    else if (h->body.done)
        next_request(h);
    return used;
}

static size_t http_feed(struct engine *engine, struct slice bytes)
{
    struct http *h = of_engine(engine);
    size_t used = 0, n = 1;
    while (used < bytes.len && n && h->state < STATE_WEBSOCKET && engine->out.len <= OUTQ_HIGH && !engine->out.failed) {
        struct slice rest = slice_of(bytes.ptr + used, bytes.len - used);
        n = h->state == STATE_HEAD ? feed_head(h, rest) : feed_body(h, rest);
        used += n;
    }
    if (h->state == STATE_OVER)
        return bytes.len;
    if (h->state == STATE_WEBSOCKET && used < bytes.len)
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
    if (h->state == STATE_OVER)
        return MONO_NEVER;
    if (now < h->deadline)
        return h->deadline;
    if (h->state == STATE_HEAD && h->begun)
        refuse(h, 408);
    else
        end(h);
    return MONO_NEVER;
}

static void http_gather(struct engine *engine)
{
    struct http *h = of_engine(engine);
    if (h->websocket)
        websocket_gather(h->websocket);
}

static void http_drained(struct engine *engine)
{
    struct http *h = of_engine(engine);
    if (h->websocket)
        websocket_drained(h->websocket);
}

static void http_shutdown(struct engine *engine, const char *text)
{
    struct http *h = of_engine(engine);
    if (h->websocket)
        websocket_shutdown(h->websocket, text);
    else
        end(h);
}

static void http_closed(struct engine *engine)
{
    struct http *h = of_engine(engine);
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
