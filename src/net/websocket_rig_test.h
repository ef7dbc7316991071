/* websocket_rig_test: a WebSocket between an engine that keeps and echoes what it hears and a peer that sends bytes as it likes and
 * reads frames. For the tests of websocket. */
#ifndef MILLRACE_NET_WEBSOCKET_RIG_TEST_H
#define MILLRACE_NET_WEBSOCKET_RIG_TEST_H

#include "base/mem.h"
#include "net/websocket.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <zlib.h>

#define SAID_MAX 4000
#define IN_MAX (1u << 20)

/* ---- an inner engine: keeps what it hears, echoes it if it is to ---- */

struct parrot {
    struct engine engine;
    struct rig *rig;
};

struct rig {
    struct engine outer;
    struct websocket *ws;
    struct parrot *parrot; /* NULL: closed */
    struct list dirty;
    struct websocket_options options;
    size_t unit; /* it takes so many bytes at a time only */
    bool echo, shutdown_closes;
    uint8_t *heard;
    size_t heard_len;
    int closed, drained, ticks, released;
    uint8_t *in; /* what the peer sent and nobody consumed */
    size_t in_len;
    char said[SAID_MAX]; /* frames that left, a line each */
    uint8_t *out;        /* what left, not yet parsed */
    size_t out_len;
    uint8_t *payload; /* of data frames that left, unpacked */
    size_t payload_len;
    struct websocket_deflate *deflate; /* NULL: nothing is packed */
    struct websocket_terms terms;
};

static size_t parrot_feed(struct engine *engine, struct slice bytes)
{
    struct parrot *p = CONTAINER_OF(engine, struct parrot, engine);
    size_t unit = p->rig->unit, used = 0;
    while (bytes.len - used >= unit && !engine->paused && !engine->want_close) {
        memcpy(p->rig->heard + p->rig->heard_len, bytes.ptr + used, unit);
        p->rig->heard_len += unit;
        if (p->rig->echo)
            outq_put(&engine->out, bytes.ptr + used, unit);
        engine->want_close |= bytes.ptr[used] == '!';
        engine->paused |= bytes.ptr[used] == '#';
        used += unit;
        engine_dirty(engine);
    }
    return used;
}

static mono_t parrot_tick(struct engine *engine, mono_t now)
{
    CONTAINER_OF(engine, struct parrot, engine)->rig->ticks++;
    return now + 100 * NS_PER_S;
}

static void parrot_drained(struct engine *engine)
{
    CONTAINER_OF(engine, struct parrot, engine)->rig->drained++;
}

static void parrot_shutdown(struct engine *engine, const char *text)
{
    outq_put(&engine->out, text, strlen(text));
    engine->want_close = CONTAINER_OF(engine, struct parrot, engine)->rig->shutdown_closes;
}

static void parrot_closed(struct engine *engine)
{
    struct parrot *p = CONTAINER_OF(engine, struct parrot, engine);
    assert_null(engine->dirty);
    assert_false(engine->in_dirty);
    p->rig->closed++;
    p->rig->parrot = NULL;
    outq_fini(&engine->out);
    mem_free(p);
}

static const struct engine_ops parrot_ops = {.name = "parrot",
                                             .feed = parrot_feed,
                                             .tick = parrot_tick,
                                             .drained = parrot_drained,
                                             .shutdown = parrot_shutdown,
                                             .closed = parrot_closed};

/* ---- the rig ---- */

/* out_bits 0: nothing is packed. */
static struct rig *rig_new_packing(bool text, uint8_t in_bits, uint8_t out_bits)
{
    struct rig *rig = calloc(1, sizeof *rig);
    rig->heard = malloc(IN_MAX);
    rig->in = malloc(IN_MAX);
    rig->out = malloc(2 * IN_MAX);
    rig->payload = malloc(2 * IN_MAX);
    rig->unit = 1;
    rig->echo = true;
    rig->options = (struct websocket_options){.message_bytes_max = 300000, .ping_ms = 30000, .close_ms = 5000};
    list_init(&rig->dirty);
    outq_init(&rig->outer.out);
    rig->outer.dirty = &rig->dirty;
    rig->outer.next_tick = MONO_NEVER;
    rig->outer.now = NS_PER_S;
    snprintf(rig->outer.peer, sizeof rig->outer.peer, "127.0.0.1:1");
    rig->outer.peer_loopback = rig->outer.tls = true;
    rig->outer.certified = "anna";
    struct parrot *parrot = mem_zalloc(sizeof *parrot);
    struct engine *inner = &parrot->engine;
    parrot->rig = rig;
    inner->ops = &parrot_ops;
    inner->in_max = 100000;
    outq_init(&inner->out);
    rig->parrot = parrot;
    rig->terms = (struct websocket_terms){.in_bits = in_bits, .out_bits = out_bits};
    rig->deflate = out_bits ? websocket_deflate_new() : NULL;
    rig->outer.deflate = &rig->deflate;
    rig->ws = websocket_open(&rig->options, &rig->outer, &inner, text, &rig->terms, rig->outer.now);
    assert_non_null(rig->ws);
    assert_null(inner);
    assert_string_equal(parrot->engine.peer, "127.0.0.1:1");
    assert_true(parrot->engine.peer_loopback && parrot->engine.tls);
    assert_string_equal(parrot->engine.certified, "anna");
    assert_int_equal(rig->ticks, 1);
    assert_int_equal(rig->outer.next_tick, 31 * NS_PER_S);
    return rig;
}

static inline struct rig *rig_new(bool text)
{
    return rig_new_packing(text, 0, 0);
}

static void rig_free(struct rig *rig)
{
    websocket_closed(&rig->ws);
    websocket_closed(&rig->ws); /* nothing any more */
    assert_int_equal(rig->closed, 1);
    outq_fini(&rig->outer.out);
    websocket_deflate_free(&rig->deflate);
    free(rig->heard);
    free(rig->in);
    free(rig->out);
    free(rig->payload);
    free(rig);
}

static void say(struct rig *rig, const char *kind, const uint8_t *payload, size_t len)
{
    size_t at = strlen(rig->said);
    if (len <= 60)
        snprintf(rig->said + at, SAID_MAX - at, "%s%s%.*s\n", kind, len ? " " : "", (int)len, (const char *)payload);
    else
        snprintf(rig->said + at, SAID_MAX - at, "%s [%zu]\n", kind, len);
}

/* What a client does with a packed message, whose window is as small as it has asked for; returns the length. */
static size_t unpack(const struct rig *rig, const uint8_t *packed, size_t len, uint8_t *to, size_t room)
{
    z_stream z = {
        .next_in = (Bytef *)(uintptr_t)packed, .avail_in = (uInt)len, .next_out = to, .avail_out = (uInt)room};
    assert_int_equal(inflateInit2(&z, -(int)rig->terms.out_bits), Z_OK);
    assert_int_equal(inflate(&z, Z_SYNC_FLUSH), Z_OK);
    assert_int_equal(z.avail_in, 0);
    z.next_in = (Bytef *)(uintptr_t)WEBSOCKET_TAIL;
    z.avail_in = WEBSOCKET_TAIL_LEN;
    assert_int_equal(inflate(&z, Z_SYNC_FLUSH), Z_OK);
    inflateEnd(&z);
    return room - z.avail_out;
}

static void hear_message(struct rig *rig, uint8_t first, const uint8_t *p, size_t len)
{
    uint8_t *to = rig->payload + rig->payload_len;
    char kind[40];
    snprintf(kind, sizeof kind, "%s%s", first & 0x40 ? "packed " : "", (first & 0x0f) == 1 ? "text" : "binary");
    if (first & 0x40)
        len = unpack(rig, p, len, to, 2 * IN_MAX - rig->payload_len);
    else
        memcpy(to, p, len);
    rig->payload_len += len;
    say(rig, kind, to, len);
}

static void parse_out(struct rig *rig)
{
    size_t at = 0;
    while (rig->out_len - at >= 2) {
        const uint8_t *p = rig->out + at;
        size_t head = p[1] < 126 ? 2 : p[1] == 126 ? 4 : 10;
        uint64_t len = p[1];
        assert_int_equal(p[0] & (rig->deflate && (p[0] & 0x0f) < 3 ? 0xb0 : 0xf0), 0x80);
        assert_int_equal(p[1] & 0x80, 0);
        if (rig->out_len - at < head)
            break;
        if (head > 2)
            len = 0;
        for (size_t i = 2; i < head; i++)
            len = len << 8 | p[i];
        assert_true(head == 2 || (head == 4 && len > 125) || (head == 10 && len > 65535));
        if (rig->out_len - at - head < len)
            break;
        p += head;
        switch (rig->out[at] & 0x0f) {
        case 1:
        case 2: hear_message(rig, rig->out[at], p, len); break;
        case 8: {
            char kind[40];
            snprintf(kind, sizeof kind, len ? "close %u" : "close", p[0] << 8 | p[1]);
            say(rig, kind, p + 2, len > 2 ? 0 : 0);
            break;
        }
        case 9: say(rig, "ping", p, len); break;
        case 10: say(rig, "pong", p, len); break;
        default: fail_msg("opcode %u", rig->out[at] & 0x0f);
        }
        at += head + len;
    }
    memmove(rig->out, rig->out + at, rig->out_len - at);
    rig->out_len -= at;
}

/* What a connection does when it may write: at most max bytes leave. */
static void flush(struct rig *rig, size_t max)
{
    struct outq *q = &rig->outer.out;
    websocket_gather(rig->ws);
    size_t before = q->len;
    if (q->failed)
        return; /* the connection ends, for there is a hole in it */
    while (q->len && max) {
        struct iovec v;
        assert_int_equal(outq_peek(q, &v, 1), 1);
        size_t n = v.iov_len < max ? v.iov_len : max;
        memcpy(rig->out + rig->out_len, v.iov_base, n);
        rig->out_len += n;
        outq_consume(q, n);
        max -= n;
    }
    if (before && q->len == 0)
        websocket_drained(rig->ws);
    parse_out(rig);
}

static void settle(struct rig *rig)
{
    for (int i = 0; i < 50; i++)
        flush(rig, SIZE_MAX);
}

/* The peer sends bytes that come in steps; what is not consumed is offered again with the next ones. */
static void give(struct rig *rig, const void *bytes, size_t len, size_t step)
{
    const uint8_t *at = bytes;
    while (len) {
        size_t n = len < step ? len : step;
        memcpy(rig->in + rig->in_len, at, n);
        rig->in_len += n;
        at += n;
        len -= n;
        if (rig->outer.paused)
            continue;
        size_t used = websocket_feed(rig->ws, slice_of(rig->in, rig->in_len));
        assert_true(used <= rig->in_len);
        memmove(rig->in, rig->in + used, rig->in_len - used);
        rig->in_len -= used;
        assert_true(rig->in_len <= rig->outer.in_max || rig->outer.paused || step > rig->outer.in_max);
    }
}

/* A frame as a client sends it; first: FIN bit and opcode. Returns its length. */
static size_t frame_to(uint8_t *to, uint8_t first, const void *payload, size_t len)
{
    static const uint8_t mask[4] = {0x37, 0xfa, 0x21, 0x3d};
    size_t head = len <= 125 ? 2 : len <= 65535 ? 4 : 10;
    to[0] = first;
    to[1] = (uint8_t)(0x80 | (head == 2 ? len : head == 4 ? 126 : 127));
    for (size_t i = 2; i < head; i++)
        to[i] = (uint8_t)(len >> 8 * (head - 1 - i));
    memcpy(to + head, mask, 4);
    for (size_t i = 0; i < len; i++)
        to[head + 4 + i] = ((const uint8_t *)payload)[i] ^ mask[i % 4];
    return head + 4 + len;
}

static void give_frame(struct rig *rig, uint8_t first, const char *payload, size_t step)
{
    size_t len = strlen(payload);
    uint8_t *bytes = malloc(len + 14);
    give(rig, bytes, frame_to(bytes, first, payload, len), step);
    free(bytes);
}

enum { CONT = 0x00, TEXT = 0x01, BIN = 0x02, FIN = 0x80, CLOSE = 0x88, PING = 0x89, PONG = 0x8a };

#endif
