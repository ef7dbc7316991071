/* Frames of a WebSocket around an engine, see websocket.h. The loop's thread.
 *
 * Out: whatever stands in the inner outq when the connection writes becomes messages of at most WEBSOCKET_MESSAGE_OUT_MAX
 * bytes, each one frame: a head, and behind it the inner queue's own pieces. Only so much is moved that the peer's slowness
 * stays visible to the inner engine in its own queue. Text leaves in text frames that end between two characters; what is not
 * UTF-8 leaves in a binary one, since a client that was promised text would have to end the connection. Where it was agreed,
 * messages that are long enough are packed (websocket_deflate.h): one a turn, because that takes some hundred µs, and copied.
 *
 * Endings (section 7): the peer's close frame is answered and the connection closed; our own close frame waits for the peer's,
 * for close_ms; a peer that breaks the rules is told how and is not listened to any more. The inner engine hears that its
 * transport is gone as soon as nothing more can come from it. */
#include "net/websocket_int.h"

#include "base/check.h"
#include "base/mem.h"
#include "base/reader.h"

#include <stdio.h>

#define HEAD_OUT_MAX 10u
#define PIECES 64
#define AS_THEY_ARE 15 /* messages behind one that did not become shorter: those of pictures do not either */

/* ---- saying ---- */

/* The head of a frame of ours: nothing is masked. */
static void put_head(struct websocket *ws, uint8_t opcode, uint64_t len)
{
    uint8_t head[HEAD_OUT_MAX] = {(uint8_t)(BIT_FIN | opcode)};
    size_t size = len <= 125 ? 2 : len <= UINT16_MAX ? 4 : 10;
    head[1] = (uint8_t)(len <= 125 ? len : len <= UINT16_MAX ? 126 : 127);
    for (size_t i = 2; i < size; i++)
        head[i] = (uint8_t)(len >> 8 * (size - 1 - i));
    outq_put(&ws->outer->out, head, size);
}

void websocket_put_control(struct websocket *ws, uint8_t opcode, struct slice payload)
{
    CHECK(payload.len <= WEBSOCKET_CONTROL_MAX);
    put_head(ws, opcode, payload.len);
    outq_put(&ws->outer->out, payload.ptr, payload.len);
    engine_dirty(ws->outer);
}

/* code 0: the peer said none. */
static void put_close(struct websocket *ws, unsigned code, const char *reason)
{
    uint8_t payload[WEBSOCKET_CONTROL_MAX] = {(uint8_t)(code >> 8), (uint8_t)code};
    size_t len = strlen(reason);
    CHECK(len <= WEBSOCKET_CONTROL_MAX - 2);
    memcpy(payload + 2, reason, len);
    websocket_put_control(ws, OP_CLOSE, slice_of(payload, code ? len + 2 : 0));
}

/* ---- the inner engine ---- */

static void inner_release(struct websocket *ws)
{
    struct engine *inner = ws->inner;
    websocket_in_release(ws);
    if (!inner)
        return;
    ws->inner = NULL;
    ws->outer->turned_away |= inner->turned_away;
    if (inner->in_dirty) {
        list_remove(&inner->dirty_link);
        inner->in_dirty = false;
    }
    inner->dirty = NULL;
    inner->conn = NULL;
    inner->now = ws->outer->now;
    inner->ops->closed(inner);
}

/* ---- endings ---- */

static void over(struct websocket *ws)
{
    ws->state = CLOSED;
    ws->outer->want_close = true;
    websocket_message_release(ws);
    inner_release(ws);
    engine_dirty(ws->outer);
}

/* Section 7.1.7: the peer has broken the rules. */
void websocket_fail(struct websocket *ws, enum websocket_code code, const char *reason)
{
    if (ws->state < CLOSING)
        put_close(ws, code, reason);
    over(ws);
}

/* The inner engine wants to close: first its last bytes leave, then our close frame, and then the peer's comes. */
static void leave(struct websocket *ws)
{
    if (ws->state == OPEN) {
        ws->state = LEAVING;
        ws->deadline = ws->outer->now + ws->options->close_ms * NS_PER_MS;
    }
    if (ws->inner->out.len)
        return;
    put_close(ws, ws->going_away ? WEBSOCKET_GOING_AWAY : WEBSOCKET_NORMAL, "");
    ws->state = CLOSING;
    inner_release(ws);
}

/* Section 7.4: what a peer may say, and who registers new codes may. */
static bool code_allowed(unsigned code)
{
    return (code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006) ||
           (code >= 3000 && code <= 4999);
}

void websocket_on_close(struct websocket *ws, struct slice payload)
{
    struct reader r = reader_of(payload);
    unsigned code = reader_u16(&r);
    if (payload.len && (!reader_ok(&r) || !code_allowed(code))) {
        websocket_fail(ws, WEBSOCKET_PROTOCOL_ERROR, "a close frame with a code that does not exist");
        return;
    }
    if (!utf8_valid(slice_of(r.at, r.left))) {
        websocket_fail(ws, WEBSOCKET_NOT_UTF8, "the reason of a close frame is not UTF-8");
        return;
    }
    if (ws->state < CLOSING)
        put_close(ws, payload.len ? code : 0, "");
    over(ws);
}

/* ---- what the inner engine has to say ---- */

/* How many of the first bytes, up to *n, are whole characters; false: they are no text. */
static bool text_len(const struct outq *q, size_t *n)
{
    struct iovec pieces[PIECES];
    struct utf8 u = {0};
    size_t sum = 0;
    int count = outq_peek(q, pieces, PIECES);
    for (int i = 0; i < count && sum < *n; i++) {
        size_t part = pieces[i].iov_len < *n - sum ? pieces[i].iov_len : *n - sum;
        if (!utf8_step(&u, slice_of(pieces[i].iov_base, part)))
            return false;
        sum += part;
    }
    if (u.left)
        sum -= u.seen;
    if (sum == 0)
        return false;
    *n = sum;
    return true;
}

/* The first n bytes as a packed message. False: they are to leave as they are. */
static bool put_packed(struct websocket *ws, uint8_t opcode, size_t n)
{
    struct outq *from = &ws->inner->out;
    struct iovec pieces[PIECES];
    size_t there = 0;
    if (ws->as_they_are) {
        ws->as_they_are--;
        return false;
    }
    int count = outq_peek(from, pieces, PIECES);
    for (int i = 0; i < count; i++)
        there += pieces[i].iov_len;
    struct slice packed = {0};
    if (there >= n)
        packed = websocket_pack(ws->deflate, ws->terms.out_bits, pieces, n);
    if (!packed.len) {
        ws->as_they_are = AS_THEY_ARE;
        return false;
    }
    put_head(ws, BIT_PACKED | opcode, packed.len);
    outq_put(&ws->outer->out, packed.ptr, packed.len);
    outq_consume(from, n);
    return true;
}

static void gather(struct websocket *ws)
{
    struct outq *from = &ws->inner->out, *to = &ws->outer->out;
    bool packed = false;
    to->failed |= from->failed;
    while (from->len && to->len < WEBSOCKET_AHEAD_MAX && !to->failed && !packed) {
        size_t n = from->len < WEBSOCKET_MESSAGE_OUT_MAX ? from->len : WEBSOCKET_MESSAGE_OUT_MAX;
        uint8_t opcode = ws->text_out && text_len(from, &n) ? OP_TEXT : OP_BINARY;
        packed = ws->deflate && n >= WEBSOCKET_PACK_MIN && put_packed(ws, opcode, n);
        if (packed)
            continue;
        put_head(ws, opcode, n);
        outq_move_some(from, to, n);
    }
}

static mono_t sooner(mono_t a, mono_t b)
{
    return a < b ? a : b;
}

static mono_t ping_due(const struct websocket *ws)
{
    mono_t quiet = ws->options->ping_ms * NS_PER_MS,
           since = ws->heard_at > ws->pinged_at ? ws->heard_at : ws->pinged_at;
    return quiet && ws->state == OPEN ? since + quiet : MONO_NEVER;
}

static mono_t next_tick(const struct websocket *ws)
{
    if (ws->state == CLOSED)
        return MONO_NEVER;
    mono_t due = ws->state == OPEN ? ping_due(ws) : ws->deadline;
    return ws->inner ? sooner(due, ws->inner->next_tick) : due;
}

/* After anything that may have changed the inner engine: the connection sees it through the outer one. */
static void mirror(struct websocket *ws)
{
    struct engine *outer = ws->outer;
    const struct engine *inner = ws->inner;
    outer->paused = inner && inner->paused && !inner->want_close;
    outer->in_max = inner && inner->in_max > WEBSOCKET_IN_MIN ? inner->in_max : WEBSOCKET_IN_MIN;
    outer->next_tick = sooner(outer->next_tick, next_tick(ws));
    if (outer->out.len || outer->want_close || outer->out.failed || (inner && (inner->out.len || inner->want_close)) ||
        websocket_unpack_waits_for_its_turn(ws))
        engine_dirty(outer); /* the connection asks for what is to be written: websocket_gather */
}

/* ---- the outer engine's calls ---- */

struct websocket *websocket_open(const struct websocket_options *options, struct engine *outer, struct engine **inner,
                                 bool text, const struct websocket_terms *terms, mono_t now)
{
    struct websocket *ws = mem_zalloc_as(MEM_CONNECTIONS, sizeof *ws);
    if (!ws)
        return NULL;
    struct engine *e = *inner;
    *inner = NULL;
    *ws = (struct websocket){.options = options,
                             .outer = outer,
                             .inner = e,
                             .text = text,
                             .text_out = text,
                             .deflate = terms->in_bits ? *outer->deflate : NULL,
                             .terms = *terms,
                             .heard_at = now,
                             .pinged_at = now};
    e->conn = outer->conn;
    e->dirty = outer->dirty;
    e->now = now;
    snprintf(e->peer, sizeof e->peer, "%s", outer->peer);
    e->peer_loopback = outer->peer_loopback;
    e->tls = outer->tls;
    e->certified = outer->certified;
    e->next_tick = e->ops->tick(e, now);
    mirror(ws);
    return ws;
}

/* Pings without end get pongs as fast as the peer takes them. */
static bool may_go_on(const struct websocket *ws)
{
    if (ws->state == CLOSED)
        return false;
    if (ws->outer->out.len > OUTQ_HIGH || ws->outer->out.failed)
        return false;
    return ws->state != OPEN || !ws->inner->paused;
}

size_t websocket_feed(struct websocket *ws, struct slice bytes)
{
    size_t used = 0;
    ws->heard_at = ws->outer->now;
    ws->unpack_now = WEBSOCKET_UNPACK_NOW_MAX;
    while (used < bytes.len && websocket_unpack_held(ws) && may_go_on(ws)) {
        struct slice rest = slice_of(bytes.ptr + used, bytes.len - used);
        size_t n = ws->frame_left ? websocket_take_payload(ws, rest) : websocket_take_head(ws, rest);
        used += n;
        if (n == 0)
            break;
    }
    mirror(ws);
    return ws->state == CLOSED ? bytes.len : used;
}

mono_t websocket_tick(struct websocket *ws, mono_t now)
{
    struct engine *inner = ws->inner;
    if (inner && inner->next_tick <= now) {
        inner->now = now;
        inner->next_tick = inner->ops->tick(inner, now);
    }
    if (ws->state == OPEN && ws->outer->paused)
        ws->heard_at = now; /* it cannot be heard */
    if (ping_due(ws) <= now) {
        ws->pinged_at = now;
        websocket_put_control(ws, OP_PING, slice_of(NULL, 0));
    }
    mirror(ws);
    if ((ws->state == LEAVING || ws->state == CLOSING) && ws->deadline <= now)
        over(ws);
    return next_tick(ws);
}

void websocket_gather(struct websocket *ws)
{
    if (ws->in_len && websocket_may_feed(ws))
        websocket_feed_kept(ws);
    ws->unpack_now = WEBSOCKET_UNPACK_NOW_MAX;
    (void)websocket_unpack_held(ws);
    if (ws->inner)
        gather(ws);
    if (ws->inner && ws->inner->want_close)
        leave(ws);
    mirror(ws);
}

void websocket_drained(struct websocket *ws)
{
    struct engine *inner = ws->inner;
    if (inner && inner->ops->drained) { /* what it lent has left; what has not is still in its queue */
        inner->now = ws->outer->now;
        inner->ops->drained(inner);
    }
    websocket_gather(ws);
}

void websocket_shutdown(struct websocket *ws, const char *text)
{
    ws->going_away = true;
    if (ws->inner) {
        ws->inner->now = ws->outer->now;
        ws->inner->ops->shutdown(ws->inner, text);
    }
    mirror(ws);
}

void websocket_closed(struct websocket **websocket)
{
    struct websocket *ws = *websocket;
    if (!ws)
        return;
    *websocket = NULL;
    websocket_message_release(ws);
    inner_release(ws);
    mem_free_as(MEM_CONNECTIONS, ws);
}
