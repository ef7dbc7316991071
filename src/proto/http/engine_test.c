/* The HTTP listener: requests cut at every byte, pipelined, with bodies, too slow, malformed; upgrades by every rule; and an
 * engine within a WebSocket that hears and says what it would without one. */
#include "proto/http/engine.h"

#include "base/mem.h"
#include "proto/http/http_int.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define OUT_MAX 200000u

/* ---- an inner engine that sends back what it hears, behind the name it was made by ---- */

struct echo {
    struct engine engine;
    struct rig *rig;
};

struct rig {
    struct engine *engine; /* NULL: closed */
    struct list dirty;
    struct http_options options;
    struct http_protocol protocols[4];
    struct engine_factory factories[2];
    bool full; /* makes no engine */
    int made, closed, shut;
    const struct engine *inner; /* the last that was made */
    char out[OUT_MAX];
    size_t out_len;
    uint8_t in[100000];
    size_t in_len;
};

static size_t echo_feed(struct engine *engine, struct slice bytes)
{
    outq_put(&engine->out, bytes.ptr, bytes.len);
    engine_dirty(engine);
    return bytes.len;
}

static mono_t echo_tick(struct engine *engine, mono_t now)
{
    (void)engine;
    (void)now;
    return MONO_NEVER;
}

static void echo_shutdown(struct engine *engine, const char *text)
{
    (void)text;
    engine->want_close = true;
    CONTAINER_OF(engine, struct echo, engine)->rig->shut++;
}

static void echo_closed(struct engine *engine)
{
    CONTAINER_OF(engine, struct echo, engine)->rig->closed++;
    outq_fini(&engine->out);
    mem_free(CONTAINER_OF(engine, struct echo, engine));
}

static const struct engine_ops echo_ops = {
    .name = "echo", .feed = echo_feed, .tick = echo_tick, .shutdown = echo_shutdown, .closed = echo_closed};

static struct engine *echo_make(void *owner, void *arg, const struct os_peer *peer, mono_t now)
{
    struct rig *rig = owner;
    struct echo *echo = rig->full ? NULL : mem_zalloc(sizeof *echo);
    (void)now;
    if (!echo)
        return NULL;
    assert_string_equal(peer->text, "127.0.0.1:7");
    echo->rig = rig;
    echo->engine.ops = &echo_ops;
    echo->engine.in_max = 1000;
    outq_init(&echo->engine.out);
    outq_put(&echo->engine.out, arg, strlen(arg));
    rig->made++;
    rig->inner = &echo->engine;
    return &echo->engine;
}

static wall_t wall(void *arg)
{
    (void)arg;
    return 784111777000;
}

static struct rig *rig_new(void)
{
    struct rig *rig = calloc(1, sizeof *rig);
    struct os_peer peer = {.text = "127.0.0.1:7", .loopback = true};
    rig->factories[0] = (struct engine_factory){.make = echo_make, .arg = (void *)"A"};
    rig->factories[1] = (struct engine_factory){.make = echo_make, .arg = (void *)"S"};
    rig->protocols[0] = (struct http_protocol){"amqp", &rig->factories[0], false};
    rig->protocols[1] = (struct http_protocol){"v12.stomp", &rig->factories[1], true};
    rig->protocols[2] = (struct http_protocol){"mqtt", NULL, false};
    rig->options = (struct http_options){.protocols = rig->protocols,
                                         .protocol_count = 3,
                                         .protocol = "amqp",
                                         .origins = "",
                                         .handshake_ms = 10000,
                                         .idle_ms = 60000,
                                         .wall = wall,
                                         .websocket = {.message_bytes_max = 50000, .close_ms = 5000}};
    list_init(&rig->dirty);
    rig->engine = http_new(&rig->options, rig, &peer, NS_PER_S);
    if (!rig->engine)
        return rig;
    rig->engine->dirty = &rig->dirty;
    rig->engine->now = NS_PER_S;
    snprintf(rig->engine->peer, sizeof rig->engine->peer, "%s", peer.text);
    rig->engine->next_tick = rig->engine->ops->tick(rig->engine, NS_PER_S);
    return rig;
}

static void rig_close(struct rig *rig)
{
    if (rig->engine)
        rig->engine->ops->closed(rig->engine);
    rig->engine = NULL;
    assert_int_equal(rig->made, rig->closed);
}

static void rig_free(struct rig *rig)
{
    rig_close(rig);
    free(rig);
}

/* Everything leaves. */
static void flush(struct rig *rig)
{
    for (int i = 0; i < 3; i++) {
        struct outq *q = &rig->engine->out;
        struct iovec v;
        rig->engine->ops->gather(rig->engine);
        while (outq_peek(q, &v, 1)) {
            assert_true(rig->out_len + v.iov_len < OUT_MAX);
            memcpy(rig->out + rig->out_len, v.iov_base, v.iov_len);
            rig->out_len += v.iov_len;
            outq_consume(q, v.iov_len);
            if (q->len == 0)
                rig->engine->ops->drained(rig->engine);
        }
    }
    rig->out[rig->out_len] = '\0';
}

/* Bytes come in steps; the engine is not fed when it wants to close, as a connection does. */
static void give(struct rig *rig, const void *bytes, size_t len, size_t step)
{
    const uint8_t *at = bytes;
    while (len && !rig->engine->want_close) {
        size_t n = len < step ? len : step;
        memcpy(rig->in + rig->in_len, at, n);
        rig->in_len += n;
        at += n;
        len -= n;
        size_t used = rig->engine->ops->feed(rig->engine, slice_of(rig->in, rig->in_len));
        memmove(rig->in, rig->in + used, rig->in_len - used);
        rig->in_len -= used;
        flush(rig);
    }
}

static void say(struct rig *rig, const char *text, size_t step)
{
    rig->out_len = 0;
    give(rig, text, strlen(text), step);
    flush(rig);
}

static bool begins(const struct rig *rig, const char *text)
{
    return strncmp(rig->out, text, strlen(text)) == 0;
}

/* ---- requests ---- */

#define HOST "Host: h\r\n"

static void paths(void **state)
{
    static const struct {
        const char *request, *begins, *contains;
        bool ends;
    } rows[] = {
        {"GET / HTTP/1.1\r\n" HOST "\r\n", "HTTP/1.1 200 OK\r\n", "This is Millrace", false},
        {"GET /?a=b HTTP/1.1\r\n" HOST "\r\n", "HTTP/1.1 200 OK\r\n", "text/plain; charset=utf-8\r\n", false},
        {"GET /health HTTP/1.1\r\n" HOST "\r\n", "HTTP/1.1 200 OK\r\n", "\r\n\r\n{\"status\":\"ok\"}\n", false},
        {"HEAD /health HTTP/1.1\r\n" HOST "\r\n", "HTTP/1.1 200 OK\r\n", "Content-Length: 16\r\n", false},
        {"GET /health HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n", "HTTP/1.1 200 OK\r\n", "Connection: close\r\n",
         true},
        {"GET /health HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK\r\n", "Connection: close\r\n", true},
        {"GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "HTTP/1.1 200 OK\r\n", "Connection: keep-alive\r\n",
         false},
        {"GET /api HTTP/1.1\r\n" HOST "\r\n", "HTTP/1.1 404 Not Found\r\n", "{\"error\":\"not_found\",", false},
        {"GET /health/ HTTP/1.1\r\n" HOST "\r\n", "HTTP/1.1 404 Not Found\r\n", "application/json\r\n", false},
        {"POST /health HTTP/1.1\r\n" HOST "\r\n", "HTTP/1.1 405 Method Not Allowed\r\n", "Allow: GET, HEAD\r\n", false},
        {"GET /ws HTTP/1.1\r\n" HOST "\r\n", "HTTP/1.1 426 Upgrade Required\r\n", "Upgrade: websocket\r\n", false},
        {"GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n", "{\"error\":\"bad_request\",", true},
        {"GET / HTTP/3.0\r\n" HOST "\r\n", "HTTP/1.1 505 HTTP Version Not Supported\r\n", "Connection: close\r\n",
         true},
        {"POST / HTTP/1.1\r\n" HOST "Content-Length: 65537\r\n\r\n", "HTTP/1.1 413 Content Too Large\r\n",
         "the body is too large", true},
        {"POST / HTTP/1.1\r\n" HOST "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n",
         "HTTP/1.1 405 Method Not Allowed\r\n", "Connection: close\r\n", true},
        {"\x16\x03\x01", "HTTP/1.1 400 Bad Request\r\n", "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n", true},
    };
    size_t before = mem_in_use();
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        for (size_t step = 1; step < 200; step = step * 3 + 1) {
            struct rig *rig = rig_new();
            say(rig, rows[i].request, step);
            if (!begins(rig, rows[i].begins) || !strstr(rig->out, rows[i].contains) ||
                rig->engine->want_close != rows[i].ends)
                fail_msg("%s\n%s", rows[i].request, rig->out);
            assert_null(strstr(rig->out, "\nHTTP/1.1 "));
            if (begins(rig, "HTTP/1.1 200 OK") && *rows[i].request == 'H')
                assert_non_null(strstr(rig->out, "\r\n\r\n") + 4 == rig->out + rig->out_len ? rig : NULL);
            if (!rows[i].ends) {
                say(rig, "GET /health HTTP/1.1\r\n" HOST "\r\n", 1000);
                assert_true(begins(rig, "HTTP/1.1 200 OK\r\n"));
            }
            rig_free(rig);
            assert_int_equal(mem_in_use(), before);
        }
}

static unsigned count(const char *text, const char *what)
{
    unsigned n = 0;
    while ((text = strstr(text, what))) {
        n++;
        text += strlen(what);
    }
    return n;
}

/* One behind the other, with bodies in between that nobody wants. */
static void pipelined(void **state)
{
    static const char text[] =
        "GET /health HTTP/1.1\r\n" HOST "\r\n"
        "POST /health HTTP/1.1\r\n" HOST "Content-Length: 31\r\n\r\nGET /health HTTP/1.1\r\n" HOST
        "POST /x HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n"
        "1b\r\nGET / HTTP/1.1\r\n" HOST "\r\n\r\n0\r\nA: b\r\n\r\n"
        "\r\nGET /health HTTP/1.1\r\n" HOST "\r\n";
    (void)state;
    for (size_t step = 1; step < sizeof text; step++) {
        struct rig *rig = rig_new();
        say(rig, text, step);
        /* the body of the second is as long as it says: what of it looks like a request is none */
        if (count(rig->out, "HTTP/1.1 200") != 2 || count(rig->out, "HTTP/1.1 405") != 1 ||
            count(rig->out, "HTTP/1.1 404") != 1)
            fail_msg("by %zu: %s", step, rig->out);
        assert_false(rig->engine->want_close);
        assert_int_equal(rig->in_len, 0);
        rig_free(rig);
    }
}

static void bodies_that_do_not_end(void **state)
{
    struct rig *rig = rig_new();
    (void)state;
    say(rig, "POST /health HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n8000\r\n", 100);
    assert_true(begins(rig, "HTTP/1.1 405"));
    char *zeros = calloc(1, 0x8000);
    give(rig, zeros, 0x8000, 1000);
    say(rig, "\r\n8001\r\n", 1);
    assert_true(rig->engine->want_close);
    assert_int_equal(rig->out_len, 0); /* it has its answer */
    free(zeros);
    rig_free(rig);
}

/* Who takes no answers gets no more. */
static void answers_are_bounded(void **state)
{
    static const char one[] = "GET / HTTP/1.1\r\n" HOST "\r\n";
    struct rig *rig = rig_new();
    size_t used = 1;
    (void)state;
    for (int i = 0; i < 10000 && used; i++)
        used = rig->engine->ops->feed(rig->engine, slice_str(one));
    assert_int_equal(used, 0);
    assert_true(rig->engine->out.len > OUTQ_HIGH && rig->engine->out.len < OUTQ_HIGH + 2000);
    rig_free(rig);
}

static mono_t tick(struct rig *rig, mono_t seconds)
{
    rig->engine->now = seconds * NS_PER_S;
    mono_t due = rig->engine->ops->tick(rig->engine, rig->engine->now);
    flush(rig);
    return due;
}

static void time_outs(void **state)
{
    (void)state;
    struct rig *rig = rig_new(); /* says nothing */
    assert_int_equal(tick(rig, 10), 11 * NS_PER_S);
    assert_int_equal(tick(rig, 11), MONO_NEVER);
    assert_true(rig->engine->want_close && rig->out_len == 0);
    rig_free(rig);

    rig = rig_new(); /* half a head, a byte now and then */
    rig->engine->now = 5 * NS_PER_S;
    say(rig, "GET /he", 1);
    rig->engine->now = 14 * NS_PER_S;
    say(rig, "al", 1);
    assert_int_equal(tick(rig, 14), 15 * NS_PER_S);
    assert_int_equal(tick(rig, 15), MONO_NEVER);
    assert_true(rig->engine->want_close);
    assert_true(begins(rig, "HTTP/1.1 408 Request Timeout\r\n"));
    rig_free(rig);

    rig = rig_new(); /* between requests there is more time */
    rig->engine->now = 5 * NS_PER_S;
    say(rig, "GET /health HTTP/1.1\r\n" HOST "\r\n", 100);
    assert_int_equal(tick(rig, 64), 65 * NS_PER_S);
    say(rig, "GET ", 1);
    assert_int_equal(rig->engine->next_tick, 11 * NS_PER_S); /* nobody asked for it yet in this rig: earlier is fine */
    assert_int_equal(tick(rig, 73), 74 * NS_PER_S);
    rig_free(rig);

    rig = rig_new(); /* a body that does not come */
    say(rig, "POST /health HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\n", 100);
    assert_int_equal(tick(rig, 10), 11 * NS_PER_S);
    assert_int_equal(tick(rig, 11), MONO_NEVER);
    assert_true(rig->engine->want_close);
    rig_free(rig);

    rig = rig_new();
    rig->engine->ops->shutdown(rig->engine, "shutdown");
    assert_true(rig->engine->want_close);
    rig_free(rig);
}

/* ---- upgrades ---- */

#define ASK "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
#define VERSION "Sec-WebSocket-Version: 13\r\n"
#define HELLO "\x82\x85\0\0\0\0hello"

static void upgrades(void **state)
{
    static const struct {
        const char *path, *fields;
        const char *begins, *contains, *said; /* said: the first frame; NULL: refused */
    } rows[] = {
        {"/ws", ASK VERSION, "HTTP/1.1 101", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
         "\x82\x01"
         "A"},
        {"/", ASK VERSION, "HTTP/1.1 101", "",
         "\x82\x01"
         "A"},
        {"/ws/amqp", ASK VERSION, "HTTP/1.1 101", "",
         "\x82\x01"
         "A"},
        {"/ws/stomp", ASK VERSION, "HTTP/1.1 101", "",
         "\x81\x01"
         "S"},
        {"/ws", ASK VERSION "Sec-WebSocket-Protocol: v12.stomp\r\n", "HTTP/1.1 101", "Protocol: v12.stomp\r\n",
         "\x81\x01"
         "S"},
        {"/ws", ASK VERSION "Sec-WebSocket-Protocol: x, v12.stomp\r\nSec-WebSocket-Protocol: amqp\r\n", "HTTP/1.1 101",
         "Protocol: v12.stomp\r\n",
         "\x81\x01"
         "S"},
        {"/ws/stomp", ASK VERSION "Sec-WebSocket-Protocol: amqp\r\n", "HTTP/1.1 101", "Protocol: amqp\r\n",
         "\x82\x01"
         "A"},
        {"/ws", ASK VERSION "Origin: http://localhost:3000\r\n", "HTTP/1.1 101", "",
         "\x82\x01"
         "A"},
        {"/ws", ASK VERSION "Sec-WebSocket-Protocol: x, AMQP\r\n", "HTTP/1.1 400", "none of these", NULL},
        {"/ws", ASK VERSION "Sec-WebSocket-Protocol: mqtt\r\n", "HTTP/1.1 400", "none of these", NULL},
        {"/ws/mqtt", ASK VERSION, "HTTP/1.1 400", "has to be offered", NULL},
        {"/ws", ASK VERSION "Origin: http://evil.example\r\n", "HTTP/1.1 403", "websocket.origins", NULL},
        {"/ws", ASK, "HTTP/1.1 426", "Sec-WebSocket-Version: 13\r\n", NULL},
        {"/ws", "Upgrade: websocket\r\n" VERSION, "HTTP/1.1 400", "handshake is malformed", NULL},
        {"/health", ASK VERSION, "HTTP/1.1 200", "", NULL},
        {"/wss", ASK VERSION, "HTTP/1.1 404", "", NULL},
    };
    size_t before = mem_in_use();
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        for (size_t step = 1; step < 600; step = step * 5 + 1) {
            struct rig *rig = rig_new();
            char text[800];
            snprintf(text, sizeof text, "GET %s HTTP/1.1\r\n" HOST "%s\r\n", rows[i].path, rows[i].fields);
            say(rig, text, step);
            const char *end = strstr(rig->out, "\r\n\r\n");
            if (!begins(rig, rows[i].begins) || !strstr(rig->out, rows[i].contains) || !end)
                fail_msg("row %zu: %s", i, rig->out);
            assert_int_equal(rig->made, rows[i].said != NULL);
            if (rows[i].said) {
                assert_string_equal(end + 4, rows[i].said);
                assert_int_equal(strstr(rig->out, "Sec-WebSocket-Protocol") != NULL,
                                 strstr(rows[i].fields, "Sec-WebSocket-Protocol") != NULL);
                rig->out_len = 0;
                give(rig, HELLO, sizeof HELLO - 1, step);
                if (step > 11)
                    assert_string_equal(rig->out, "\x82\x05hello");
                assert_false(rig->engine->want_close);
            } else {
                assert_int_equal(rig->engine->want_close, !begins(rig, "HTTP/1.1 404") && !begins(rig, "HTTP/1.1 200"));
            }
            rig_free(rig);
            assert_int_equal(mem_in_use(), before);
        }
}

/* What is within a WebSocket visits when it is not the listener's own protocol, or when HTTP itself is a visitor there. */
static void visitors_are_marked(void **state)
{
    static const struct {
        const char *own, *path;
        bool outer, trusts, visiting;
    } rows[] = {
        {"amqp", "/ws", false, false, false},          {"amqp", "/ws/stomp", false, false, true},
        {"amqp", "/ws/stomp", false, true, false},     {"v12.stomp", "/ws", false, false, false},
        {"v12.stomp", "/ws/stomp", true, false, true}, {NULL, "/ws/amqp", false, false, true},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct rig *rig = rig_new();
        char text[400];
        rig->options.protocol = rows[i].own;
        rig->options.trusts_visitors = rows[i].trusts;
        rig->engine->visiting = rows[i].outer;
        snprintf(text, sizeof text, "GET %s HTTP/1.1\r\n" HOST ASK VERSION "\r\n", rows[i].path);
        say(rig, text, 1000);
        if (!begins(rig, "HTTP/1.1 101") || rig->inner->visiting != rows[i].visiting)
            fail_msg("row %zu: %s", i, rig->out);
        rig_free(rig);
    }
}

/* A page from anywhere must not use what needs no password: this machine, or the certificate that the browser shows. */
static void pages_from_elsewhere(void **state)
{
    static const char text[] = "GET /ws HTTP/1.1\r\n" HOST ASK VERSION "Origin: https://evil.example\r\n\r\n";
    static const struct {
        bool loopback;
        const char *certified, *begins;
    } rows[] = {{true, NULL, "HTTP/1.1 403"}, {false, NULL, "HTTP/1.1 101"}, {false, "alice", "HTTP/1.1 403"}};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct rig *rig = rig_new();
        CONTAINER_OF(rig->engine, struct http, engine)->peer.loopback = rows[i].loopback;
        rig->engine->certified = rows[i].certified;
        say(rig, text, sizeof text);
        if (!begins(rig, rows[i].begins))
            fail_msg("row %zu: %s", i, rig->out);
        rig_free(rig);
    }
}

/* Frames in the same packet as the request; the broker stops; nobody answers. */
static void within_a_websocket(void **state)
{
    static const char text[] = "GET /ws HTTP/1.1\r\n" HOST ASK VERSION "\r\n";
    struct rig *rig = rig_new();
    uint8_t bytes[sizeof text + sizeof HELLO];
    (void)state;
    memcpy(bytes, text, sizeof text - 1);
    memcpy(bytes + sizeof text - 1, HELLO, sizeof HELLO - 1);
    give(rig, bytes, sizeof text - 1 + sizeof HELLO - 1, sizeof bytes);
    assert_string_equal(strstr(rig->out, "\r\n\r\n") + 4, "\x82\x06"
                                                          "Ahello");
    assert_int_equal(rig->engine->in_max, 1000);
    assert_int_equal(tick(rig, 1000), MONO_NEVER); /* the time-outs of requests are over */
    assert_false(rig->engine->want_close);
    rig->out_len = 0;
    rig->engine->ops->shutdown(rig->engine, "shutdown");
    flush(rig);
    assert_int_equal(rig->shut, 1);
    assert_memory_equal(rig->out, "\x88\x02\x03\xe9", 4);
    assert_int_equal(rig->closed, 1);
    assert_int_equal(tick(rig, 1004), 1005 * NS_PER_S);
    assert_int_equal(tick(rig, 1005), MONO_NEVER);
    assert_true(rig->engine->want_close);
    rig_free(rig);
}

/* A "Hello" that is packed is heard, and who may pack is a matter of the setting, of TLS, and of memory. */
static void packing(void **state)
{
    static const struct {
        enum websocket_packs packs;
        bool tls, loop, said;
        const char *fields;
    } rows[] = {
#define OFFER "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
        {WEBSOCKET_PACKS_WITHOUT_TLS, false, true, true, OFFER},
        {WEBSOCKET_PACKS_WITHOUT_TLS, false, true, false, ""},
        {WEBSOCKET_PACKS_WITHOUT_TLS, false, false, false, OFFER},
        {WEBSOCKET_PACKS_WITHOUT_TLS, true, true, false, OFFER},
        {WEBSOCKET_PACKS_WITHOUT_TLS, false, true, false, OFFER "X-Forwarded-Proto: https\r\n"},
        {WEBSOCKET_PACKS_WITHOUT_TLS, false, true, true, OFFER "X-Forwarded-Proto: http\r\n"},
        {WEBSOCKET_PACKS_NEVER, false, true, false, OFFER},
        {WEBSOCKET_PACKS_ALWAYS, true, true, true, OFFER},
        {WEBSOCKET_PACKS_ALWAYS, false, true, true, OFFER "X-Forwarded-Proto: https\r\n"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct rig *rig = rig_new();
        struct websocket_deflate *shared = NULL;
        char text[600];
        rig->options.websocket.packs = rows[i].packs;
        rig->engine->tls = rows[i].tls;
        rig->engine->deflate = rows[i].loop ? &shared : NULL;
        snprintf(text, sizeof text, "GET /ws HTTP/1.1\r\n" HOST ASK VERSION "%s\r\n", rows[i].fields);
        say(rig, text, 1000);
        assert_true(begins(rig, "HTTP/1.1 101"));
        const char *answer = "\r\nSec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; "
                             "client_no_context_takeover; client_max_window_bits=12\r\n";
        if ((strstr(rig->out, "Sec-WebSocket-Extensions") != NULL) != rows[i].said ||
            (strstr(rig->out, answer) != NULL) != rows[i].said || (shared != NULL) != rows[i].said)
            fail_msg("row %zu: %s", i, rig->out);
        rig->out_len = 0;
        give(rig, "\xc2\x87\0\0\0\0\xf2\x48\xcd\xc9\xc9\x07\0", 13, 13);
        assert_memory_equal(rig->out, rows[i].said ? "\x82\x05Hello" : "\x88\x34\x03\xea", rows[i].said ? 7 : 4);
        rig_free(rig);
        websocket_deflate_free(&shared);
    }
}

static void no_room(void **state)
{
    struct rig *rig = rig_new();
    (void)state;
    rig->full = true;
    say(rig, "GET /ws HTTP/1.1\r\n" HOST ASK VERSION "\r\n", 1000);
    assert_true(begins(rig, "HTTP/1.1 503 Service Unavailable\r\n"));
    assert_true(rig->engine->want_close);
    rig_free(rig);
}

/* Every allocation fails once. */
static void refused_memory(void **state)
{
    size_t before = mem_in_use();
    (void)state;
    for (uint64_t n = 1; n < 100; n++) {
        struct websocket_deflate *shared = NULL;
        mem_fail_at(n, false);
        struct rig *rig = rig_new();
        if (rig->engine) {
            rig->options.websocket.packs = WEBSOCKET_PACKS_ALWAYS;
            rig->engine->deflate = &shared;
            say(rig, "GET /health HTTP/1.1\r\n" HOST "\r\nGET /ws HTTP/1.1\r\n" HOST ASK VERSION OFFER "\r\n", 40);
            give(rig, HELLO, sizeof HELLO - 1, 3);
        }
        bool hit = mem_failures_hit() > 0;
        mem_fail_at(0, false);
        if (rig->engine && hit && !rig->engine->out.failed)
            assert_true(strstr(rig->out, "HTTP/1.1 503") || /* the inner engine was not made */
                        !strstr(rig->out, "permessage-deflate"));
        rig_free(rig);
        websocket_deflate_free(&shared);
        assert_int_equal(mem_in_use(), before);
        if (!hit)
            return;
    }
    fail_msg("a hundred allocations for one connection");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths),
        cmocka_unit_test(pipelined),
        cmocka_unit_test(bodies_that_do_not_end),
        cmocka_unit_test(answers_are_bounded),
        cmocka_unit_test(time_outs),
        cmocka_unit_test(upgrades),
        cmocka_unit_test(visitors_are_marked),
        cmocka_unit_test(pages_from_elsewhere),
        cmocka_unit_test(within_a_websocket),
        cmocka_unit_test(packing),
        cmocka_unit_test(no_room),
        cmocka_unit_test(refused_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
