/* Fuzz target of the HTTP listener's engine and of WebSockets, with an engine in them that sends back what it hears.
 * fuzz: -max_len=6000
 * covers: src/net/websocket.c src/net/websocket_in.c src/net/websocket_deflate.c src/net/websocket_upgrade.c src/net/outq.c
 * covers: src/proto/http/engine.c src/proto/http/routes.c src/proto/http/upgrade.c
 *
 * Input: one byte of modes, then what a client sends. Mode bits: 1 raw bytes instead of framed ones (framed: the frame's first
 * byte, a length u16, payload, which the target masks and gives a head, so that mutations reach past the head); 2 fed in small
 * pieces; 4 what leaves leaves slowly; 8 the inner engine takes some bytes at a time only, and pauses now and then; 16 a text
 * protocol; 32 no handshake: the input begins with a request; 64 packing is agreed: messages whose first frame has RSV1 are packed by
 * the target, so that mutations reach what is in them, but for frames with RSV2 too, whose payload is what the input says.
 * Whatever comes: frames that leave are well-formed and, where they are packed, can be unpacked, text in them is UTF-8, nothing follows a close frame; the inner engine hears
 * the payload and nothing else, and what it says leaves whole and in order; nothing is leaked. */
#include "base/check.h"
#include "base/mem.h"
#include "base/reader.h"
#include "base/utf8.h"
#include "proto/http/engine.h"

#include <stdio.h>
#include <zlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

enum { RAW = 1, PIECES = 2, SLOW = 4, TOUGH = 8, TEXT = 16, EARLY = 32, PACKS = 64 };

#define STREAM_MAX (1u << 16)
#define PACKED_MAX 8000u /* of a frame that the target packs */

struct stream {
    uint8_t bytes[STREAM_MAX];
    size_t len;
};

struct world {
    struct engine *engine; /* NULL: closed */
    struct engine *inner;  /* NULL: closed, or not there yet */
    struct list dirty;
    struct http_options options;
    struct http_protocol protocol;
    struct engine_factory factory;
    uint8_t mode;
    bool upgraded, close_seen;
    bool packing; /* the message that is being sent is packed by the target */
    bool guessed; /* it was packed by the input: nobody knows what is in it */
    struct websocket_deflate *shared;
    unsigned inners, turns;
    unsigned lent;       /* and not given back */
    struct stream in;    /* sent by the peer and not consumed */
    struct stream plain; /* what the peer's data frames hold, in order */
    struct stream heard; /* by the inner engine */
    struct stream said;  /* by it, of which the first said_seen bytes were seen leaving */
    size_t said_seen;
    struct stream out; /* left and not yet parsed */
};

static void put(struct stream *s, const void *bytes, size_t len)
{
    CHECK(len <= STREAM_MAX - s->len);
    if (len)
        memcpy(s->bytes + s->len, bytes, len);
    s->len += len;
}

static void drop(struct stream *s, size_t len)
{
    memmove(s->bytes, s->bytes + len, s->len - len);
    s->len -= len;
}

/* ---- the inner engine ---- */

struct echo {
    struct engine engine;
    struct world *world;
};

static void on_release(void *arg, void *owner)
{
    (void)owner;
    ((struct world *)arg)->lent--;
}

static size_t echo_feed(struct engine *engine, struct slice bytes)
{
    struct world *w = CONTAINER_OF(engine, struct echo, engine)->world;
    size_t unit = w->mode & TOUGH ? 3 : 1, used = 0;
    CHECK(!engine->paused && !engine->want_close);
    while (bytes.len - used >= unit && !engine->paused && !engine->want_close && w->heard.len < STREAM_MAX / 4) {
        const uint8_t *at = bytes.ptr + used;
        put(&w->heard, at, unit);
        put(&w->said, at, unit);
        if (*at % (w->mode & PACKS ? 97 : 5) == 0) { /* lent bytes, which stay where they are in this target */
            w->lent++;
            outq_lend(&engine->out, slice_of(w->said.bytes + w->said.len - unit, unit), on_release, w, NULL);
        } else {
            outq_put(&engine->out, at, unit);
        }
        engine->paused = w->mode & TOUGH && *at == 'p';
        engine->want_close = *at == 0xee;
        used += unit;
    }
    engine_dirty(engine);
    return used;
}

static mono_t echo_tick(struct engine *engine, mono_t now)
{
    (void)engine;
    return now + NS_PER_S;
}

static void echo_shutdown(struct engine *engine, const char *text)
{
    (void)text;
    engine->want_close = true;
}

static void echo_closed(struct engine *engine)
{
    struct echo *echo = CONTAINER_OF(engine, struct echo, engine);
    CHECK(!engine->in_dirty && !engine->dirty && echo->world->inner == engine);
    echo->world->inner = NULL;
    outq_fini(&engine->out);
    mem_free(echo);
}

static const struct engine_ops echo_ops = {
    .name = "echo", .feed = echo_feed, .tick = echo_tick, .shutdown = echo_shutdown, .closed = echo_closed};

static struct engine *echo_make(void *owner, void *arg, const struct os_peer *peer, mono_t now)
{
    struct world *w = owner;
    struct echo *echo = mem_zalloc(sizeof *echo);
    (void)arg;
    (void)peer;
    (void)now;
    CHECK(echo && !w->inner && w->inners++ == 0); /* one upgrade is all a connection has */
    *echo = (struct echo){.engine = {.ops = &echo_ops, .in_max = 100}, .world = w};
    outq_init(&echo->engine.out);
    w->inner = &echo->engine;
    return &echo->engine;
}

/* ---- what leaves ---- */

static struct slice unpacked(struct slice payload, uint8_t *to, size_t room)
{
    z_stream z = {.next_in = (Bytef *)(uintptr_t)payload.ptr, .avail_in = (uInt)payload.len};
    z.next_out = to;
    z.avail_out = (uInt)room;
    CHECK(inflateInit2(&z, -(int)WEBSOCKET_BITS_OUT) == Z_OK);
    CHECK(inflate(&z, Z_SYNC_FLUSH) == Z_OK && z.avail_in == 0);
    z.next_in = (Bytef *)(uintptr_t)WEBSOCKET_TAIL;
    z.avail_in = WEBSOCKET_TAIL_LEN;
    CHECK(inflate(&z, Z_SYNC_FLUSH) == Z_OK && z.data_type == 128);
    (void)inflateEnd(&z);
    return slice_of(to, room - z.avail_out);
}

static void check_frame(struct world *w, uint8_t opcode, bool packed, struct slice payload)
{
    uint8_t plain[WEBSOCKET_MESSAGE_OUT_MAX + 1];
    CHECK(!w->close_seen && (!packed || (w->mode & (PACKS | EARLY) && opcode < 8)));
    if (packed)
        payload = unpacked(payload, plain, sizeof plain);
    CHECK(opcode == 1 || opcode == 2 || (opcode >= 8 && opcode <= 10));
    if (opcode >= 8) {
        CHECK(payload.len <= 125);
        w->close_seen = opcode == 8;
        CHECK(opcode != 8 || payload.len != 1);
        return;
    }
    CHECK(payload.len && payload.len <= WEBSOCKET_MESSAGE_OUT_MAX);
    CHECK(opcode == 2 || utf8_valid(payload));
    CHECK(payload.len <= w->said.len - w->said_seen);
    CHECK(memcmp(payload.ptr, w->said.bytes + w->said_seen, payload.len) == 0);
    w->said_seen += payload.len;
}

static void parse_frames(struct world *w)
{
    for (;;) {
        struct reader r = reader_of(slice_of(w->out.bytes, w->out.len));
        uint8_t first = reader_u8(&r), second = reader_u8(&r);
        uint64_t len = second == 126 ? reader_u16(&r) : second == 127 ? reader_u64(&r) : second;
        struct slice payload = reader_take(&r, len);
        if (!reader_ok(&r))
            return;
        CHECK((first & 0xb0) == 0x80 && second < 128);
        CHECK(second < 126 || (second == 126 && len > 125) || (second == 127 && len > 65535));
        check_frame(w, first & 0x0f, first & 0x40, payload);
        drop(&w->out, w->out.len - r.left);
    }
}

/* Heads of answers, until one of them is the agreement to an upgrade. */
static void parse_out(struct world *w)
{
    while (!w->upgraded && w->out.len) {
        const uint8_t *end = memmem(w->out.bytes, w->out.len, "\r\n\r\n", 4);
        if (!end)
            return;
        size_t len = (size_t)(end - w->out.bytes) + 4;
        CHECK(slice_starts(slice_of(w->out.bytes, len), "HTTP/1.1 "));
        w->upgraded = slice_starts(slice_of(w->out.bytes, len), "HTTP/1.1 101 ");
        CHECK(w->upgraded == (w->inners > 0) || w->out.len > len);
        if (!w->upgraded) { /* bodies of answers end with a line end, and have no head in them */
            const uint8_t *next = memmem(w->out.bytes + len, w->out.len - len, "\nHTTP/1.1 ", 10);
            len = next ? (size_t)(next - w->out.bytes) + 1 : w->out.len;
        }
        drop(&w->out, len);
    }
    if (w->upgraded)
        parse_frames(w);
}

static void flush(struct world *w)
{
    struct engine *engine = w->engine;
    struct outq *q = &engine->out;
    engine->ops->gather(engine);
    size_t before = q->len, left = w->mode & SLOW && w->turns % 3 ? 7 : SIZE_MAX;
    struct iovec v;
    while (left && outq_peek(q, &v, 1)) {
        size_t n = v.iov_len < left ? v.iov_len : left;
        put(&w->out, v.iov_base, n);
        outq_consume(q, n);
        left -= n;
    }
    if (before && q->len == 0)
        engine->ops->drained(engine);
    CHECK(!q->failed);
    parse_out(w);
}

/* ---- the connection ---- */

static void close_engine(struct world *w)
{
    struct engine *engine = w->engine;
    if (!engine)
        return;
    w->engine = NULL;
    if (engine->in_dirty) {
        list_remove(&engine->dirty_link);
        engine->in_dirty = false;
    }
    engine->dirty = NULL;
    engine->ops->closed(engine);
    CHECK(!w->inner);
}

static void take_dirty(struct world *w)
{
    while (!list_empty(&w->dirty)) {
        struct engine *engine = CONTAINER_OF(w->dirty.next, struct engine, dirty_link);
        list_remove(&engine->dirty_link);
        engine->in_dirty = false;
    }
}

static void turn(struct world *w)
{
    struct engine *engine = w->engine;
    if (!engine)
        return;
    w->turns++;
    if (w->inner && w->inner->paused && w->turns % 2) {
        w->inner->paused = false;
        engine_dirty(w->inner);
    }
    take_dirty(w);
    if (w->in.len && !engine->paused && !engine->want_close) {
        size_t used = engine->ops->feed(engine, slice_of(w->in.bytes, w->in.len));
        CHECK(used <= w->in.len);
        drop(&w->in, used);
    }
    flush(w);
    if (engine->want_close && engine->out.len == 0)
        close_engine(w);
}

static void settle(struct world *w)
{
    for (int i = 0; i < 20; i++)
        turn(w);
}

static void give(struct world *w, const uint8_t *bytes, size_t len)
{
    while (len && w->engine) {
        size_t n = w->mode & PIECES && len > 5 ? 5 : len;
        if (n > STREAM_MAX / 4 - w->in.len)
            return; /* paused for good */
        put(&w->in, bytes, n);
        bytes += n;
        len -= n;
        turn(w);
    }
}

/* Streams that end at a byte stand behind one another: so do frames of a message, the last without its end. */
static struct slice pack(struct slice plain, bool last, uint8_t *to, size_t room)
{
    z_stream z = {.next_in = (Bytef *)(uintptr_t)plain.ptr, .avail_in = (uInt)plain.len};
    z.next_out = to;
    z.avail_out = (uInt)room;
    CHECK(deflateInit2(&z, 1, Z_DEFLATED, -(int)WEBSOCKET_BITS_IN, 8, Z_DEFAULT_STRATEGY) == Z_OK);
    CHECK(deflate(&z, Z_SYNC_FLUSH) == Z_OK && z.avail_out);
    (void)deflateEnd(&z);
    return slice_of(to, room - z.avail_out - (last ? WEBSOCKET_TAIL_LEN : 0));
}

/* A masked frame of data or control. */
static void give_frame(struct world *w, uint8_t first, struct slice payload)
{
    uint8_t packed[PACKED_MAX + 100];
    static const uint8_t mask[4] = {0x11, 0x22, 0x44, 0x88};
    uint8_t frame[8 + 65536];
    if (w->mode & PACKS && payload.len > PACKED_MAX)
        payload.len = PACKED_MAX;
    bool data = (first & 0x0f) < 3, begins = data && (first & 0x0f), guess = (first & 0x60) == 0x60 && w->mode & PACKS;
    if (data)
        put(&w->plain, payload.ptr, payload.len);
    if (begins)
        w->packing = (first & 0x40) && w->mode & PACKS;
    if (guess)
        first &= (uint8_t)~0x20;
    w->guessed |= guess;
    if (data && w->packing && !guess)
        payload = pack(payload, first & 0x80, packed, sizeof packed);
    size_t head = payload.len < 126 ? 2 : 4;
    frame[0] = first;
    frame[1] = (uint8_t)(0x80 | (head == 2 ? payload.len : 126));
    frame[2] = (uint8_t)(payload.len >> 8);
    frame[3] = (uint8_t)payload.len;
    memcpy(frame + head, mask, 4);
    for (size_t i = 0; i < payload.len; i++)
        frame[head + 4 + i] = payload.ptr[i] ^ mask[i % 4];
    give(w, frame, head + 4 + payload.len);
}

static void play(struct world *w, struct slice bytes)
{
    if (w->mode & (RAW | EARLY)) {
        give(w, bytes.ptr, bytes.len);
        return;
    }
    struct reader r = reader_of(bytes);
    while (r.left && w->engine) {
        uint8_t first = reader_u8(&r);
        size_t n = reader_u16(&r);
        give_frame(w, first, reader_take(&r, n < r.left ? n : r.left));
    }
    if (!w->guessed)
        CHECK(w->heard.len <= w->plain.len && memcmp(w->heard.bytes, w->plain.bytes, w->heard.len) == 0);
}

static struct world *world_new(uint8_t mode)
{
    struct world *w = mem_zalloc(sizeof *w);
    struct os_peer peer = {.text = "127.0.0.1:1", .loopback = true};
    CHECK(w);
    w->mode = mode;
    list_init(&w->dirty);
    w->factory = (struct engine_factory){.make = echo_make};
    w->protocol = (struct http_protocol){.name = "echo", .factory = &w->factory, .text = mode & TEXT};
    w->options = (struct http_options){
        .protocols = &w->protocol,
        .protocol_count = 1,
        .protocol = "echo",
        .origins = "",
        .handshake_ms = 1000,
        .idle_ms = 1000,
        .websocket = {.message_bytes_max = 4000, .ping_ms = 500, .close_ms = 300, .packs = WEBSOCKET_PACKS_ALWAYS}};
    w->engine = http_new(&w->options, w, &peer, NS_PER_S);
    CHECK(w->engine);
    w->engine->dirty = &w->dirty;
    w->engine->deflate = &w->shared;
    w->engine->now = NS_PER_S;
    w->engine->ops->tick(w->engine, NS_PER_S);
    return w;
}

/* Time goes on until nothing is left to wait for. */
static void let_time_pass(struct world *w)
{
    for (mono_t now = NS_PER_S; w->engine && now < 6 * NS_PER_S; now += 200 * NS_PER_MS) {
        w->engine->now = now;
        if (w->engine->next_tick <= now)
            w->engine->next_tick = w->engine->ops->tick(w->engine, now);
        if (now > 3 * NS_PER_S && now < 3200 * NS_PER_MS)
            w->engine->ops->shutdown(w->engine, "shutdown");
        settle(w);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    static const char hello[] = "GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n",
                      offer[] = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    if (len == 0)
        return 0;
    size_t before = mem_in_use();
    struct world *w = world_new(bytes[0]);
    if (!(w->mode & EARLY)) {
        give(w, (const uint8_t *)hello, sizeof hello - 1);
        if (w->mode & PACKS)
            give(w, (const uint8_t *)offer, sizeof offer - 1);
        give(w, (const uint8_t *)"\r\n", 2);
        settle(w);
        CHECK(w->inner && w->upgraded);
    }
    play(w, slice_of(bytes + 1, len - 1));
    settle(w);
    let_time_pass(w);
    close_engine(w);
    websocket_deflate_free(&w->shared);
    CHECK(w->lent == 0);
    mem_free(w);
    CHECK(mem_in_use() == before);
    return 0;
}
