/* Frames of a WebSocket around an engine, see websocket.h. The loop's thread.
 *
 * In: a frame's head is read when it is whole, and so is a control frame (125 bytes at most); payload of data frames is taken
 * as it comes, unmasked into a piece of stack and given to the inner engine. What that one leaves is kept here, unmasked, in
 * a buffer that grows with what has come and up to its in_max; with nothing left there is no buffer.
 *
 * Out: whatever stands in the inner outq when the connection writes becomes messages of at most WEBSOCKET_MESSAGE_OUT_MAX
 * bytes, each one frame: a head, and behind it the inner queue's own pieces. Only so much is moved that the peer's slowness
 * stays visible to the inner engine in its own queue. Text leaves in text frames that end between two characters; what is not
 * UTF-8 leaves in a binary one, since a client that was promised text would have to end the connection.
 *
 * Endings (section 7): the peer's close frame is answered and the connection closed; our own close frame waits for the peer's,
 * for close_ms; a peer that breaks the rules is told how and is not listened to any more. The inner engine hears that its
 * transport is gone as soon as nothing more can come from it.
 *
 * Not here: extensions. A peer that uses a reserved bit breaks the rules, because none was agreed. */
#include "net/websocket.h"

#include "base/check.h"
#include "base/mem.h"
#include "base/reader.h"
#include "base/utf8.h"

#include <stdio.h>

#define HEAD_MAX 14u /* two bytes, eight of length, four of mask */
#define HEAD_OUT_MAX 10u
#define CONTROL_MAX 125u
#define IN_MIN (HEAD_MAX + CONTROL_MAX) /* what may have to be left: a control frame but for its last byte */
#define UNMASK_MAX (16u * 1024)         /* at once, on the stack */
#define TEXT_PIECES 64

enum opcode { OP_CONTINUATION = 0, OP_TEXT = 1, OP_BINARY = 2, OP_CLOSE = 8, OP_PING = 9, OP_PONG = 10 };

#define BIT_FIN 0x80u
#define BITS_RESERVED 0x70u
#define BIT_CONTROL 0x08u
#define BIT_MASK 0x80u

enum state {
    OPEN,
    LEAVING, /* the inner engine is done: its last bytes are on their way */
    CLOSING, /* our close frame is out, the peer's is not in */
    CLOSED,  /* nothing is said or heard any more */
};

struct websocket {
    const struct websocket_options *options;
    struct engine *outer;
    struct engine *inner; /* NULL: it has been let go */
    uint8_t *in;          /* unmasked bytes that it left */
    size_t in_len, in_cap;
    uint64_t frame_left;  /* payload of the data frame that is still to come */
    uint64_t message_len; /* of the message, this frame included */
    uint8_t mask[4];
    uint8_t mask_at;
    uint8_t opcode; /* of the message that is coming; 0: none */
    bool fin;       /* its frame is the last one */
    bool text, text_out, going_away;
    uint8_t state;
    struct utf8 utf8; /* of the text message that is coming */
    mono_t deadline;  /* when not OPEN */
    mono_t heard_at, pinged_at;
};

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

static void put_control(struct websocket *ws, uint8_t opcode, struct slice payload)
{
    CHECK(payload.len <= CONTROL_MAX);
    put_head(ws, opcode, payload.len);
    outq_put(&ws->outer->out, payload.ptr, payload.len);
    engine_dirty(ws->outer);
}

/* code 0: the peer said none. */
static void put_close(struct websocket *ws, unsigned code, const char *reason)
{
    uint8_t payload[CONTROL_MAX] = {(uint8_t)(code >> 8), (uint8_t)code};
    size_t len = strlen(reason);
    CHECK(len <= CONTROL_MAX - 2);
    memcpy(payload + 2, reason, len);
    put_control(ws, OP_CLOSE, slice_of(payload, code ? len + 2 : 0));
}

/* ---- the inner engine ---- */

static void in_release(struct websocket *ws)
{
    mem_free_as(MEM_CONNECTIONS, ws->in);
    ws->in = NULL;
    ws->in_len = ws->in_cap = 0;
}

static void inner_release(struct websocket *ws)
{
    struct engine *inner = ws->inner;
    in_release(ws);
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

static bool may_feed(const struct websocket *ws)
{
    const struct engine *inner = ws->inner;
    return inner && !inner->paused && !inner->want_close && !inner->out.failed;
}

static size_t inner_feed(struct websocket *ws, struct slice bytes)
{
    ws->inner->now = ws->outer->now;
    size_t used = ws->inner->ops->feed(ws->inner, bytes);
    CHECK(used <= bytes.len);
    return used;
}

/* Room for more bytes behind those that are kept. */
static bool in_reserve(struct websocket *ws, size_t more)
{
    size_t need = ws->in_len + more, cap = ws->in_cap * 2;
    if (need <= ws->in_cap)
        return true;
    if (cap < need)
        cap = need;
    uint8_t *grown = mem_realloc_as(MEM_CONNECTIONS, ws->in, cap);
    if (!grown) {
        ws->outer->out.failed = true; /* the connection goes: bytes of it would be missing */
        return false;
    }
    ws->in = grown;
    ws->in_cap = cap;
    return true;
}

/* Lets the engine have what it left. */
static void feed_kept(struct websocket *ws)
{
    size_t used = inner_feed(ws, slice_of(ws->in, ws->in_len));
    ws->in_len -= used;
    if (ws->in_len == 0)
        in_release(ws);
    else if (used)
        memmove(ws->in, ws->in + used, ws->in_len);
}

/* ---- endings ---- */

static void over(struct websocket *ws)
{
    ws->state = CLOSED;
    ws->outer->want_close = true;
    inner_release(ws);
    engine_dirty(ws->outer);
}

/* Section 7.1.7: the peer has broken the rules. */
static void fail(struct websocket *ws, enum websocket_code code, const char *reason)
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

static void on_close(struct websocket *ws, struct slice payload)
{
    struct reader r = reader_of(payload);
    unsigned code = reader_u16(&r);
    if (payload.len && (!reader_ok(&r) || !code_allowed(code))) {
        fail(ws, WEBSOCKET_PROTOCOL_ERROR, "a close frame with a code that does not exist");
        return;
    }
    if (!utf8_valid(slice_of(r.at, r.left))) {
        fail(ws, WEBSOCKET_NOT_UTF8, "the reason of a close frame is not UTF-8");
        return;
    }
    if (ws->state < CLOSING)
        put_close(ws, payload.len ? code : 0, "");
    over(ws);
}

/* ---- hearing ---- */

struct frame_head {
    uint8_t opcode;
    bool fin;
    uint64_t len;
    uint8_t mask[4];
    size_t size;
};

/* The rule of section 5 that the first two bytes break; NULL: none. */
static const char *first_bytes_wrong(const struct websocket *ws, uint8_t first, uint8_t second)
{
    uint8_t opcode = first & 0x0f;
    if (first & BITS_RESERVED)
        return "a reserved bit is set, and no extension was agreed";
    if (!(second & BIT_MASK))
        return "a client's frames have to be masked";
    if (opcode & BIT_CONTROL) {
        if (opcode > OP_PONG)
            return "a reserved opcode";
        if (!(first & BIT_FIN))
            return "a control frame in parts";
        return (second & 0x7f) > CONTROL_MAX ? "a control frame of more than 125 bytes" : NULL;
    }
    if (opcode > OP_BINARY)
        return "a reserved opcode";
    if (opcode == OP_CONTINUATION)
        return ws->opcode ? NULL : "nothing is there to be continued";
    return ws->opcode ? "a message begins within another" : NULL;
}

/* True: the head is there and its rules are kept. False: more bytes are needed, or it failed. */
static bool read_head(struct websocket *ws, struct slice bytes, struct frame_head *ret)
{
    struct reader r = reader_of(bytes);
    uint8_t first = reader_u8(&r), second = reader_u8(&r);
    if (!reader_ok(&r))
        return false;
    const char *wrong = first_bytes_wrong(ws, first, second);
    unsigned form = second & 0x7f;
    *ret = (struct frame_head){.opcode = first & 0x0f, .fin = first & BIT_FIN};
    ret->len = form == 126 ? reader_u16(&r) : form == 127 ? reader_u64(&r) : form;
    if (!wrong && reader_ok(&r) && ((form == 126 && ret->len <= 125) || (form == 127 && ret->len <= UINT16_MAX)))
        wrong = "a length in more bytes than it needs";
    if (!wrong && ret->len >> 63)
        wrong = "a length with its highest bit set";
    if (wrong) {
        fail(ws, WEBSOCKET_PROTOCOL_ERROR, wrong);
        return false;
    }
    struct slice mask = reader_take(&r, sizeof ret->mask);
    if (!reader_ok(&r))
        return false;
    memcpy(ret->mask, mask.ptr, sizeof ret->mask);
    ret->size = bytes.len - r.left;
    return true;
}

/* Goes on with the frame's mask. */
static void unmask(struct websocket *ws, uint8_t *to, const uint8_t *from, size_t n)
{
    uint8_t key[8];
    uint64_t eight, key_eight;
    size_t i = 0;
    for (size_t k = 0; k < sizeof key; k++)
        key[k] = ws->mask[(ws->mask_at + k) % 4];
    memcpy(&key_eight, key, sizeof key_eight);
    for (; n - i >= sizeof eight; i += sizeof eight) {
        memcpy(&eight, from + i, sizeof eight);
        eight ^= key_eight;
        memcpy(to + i, &eight, sizeof eight);
    }
    for (; i < n; i++)
        to[i] = from[i] ^ key[i % 8];
    ws->mask_at = (uint8_t)((ws->mask_at + n) % 4);
}

static void take_control(struct websocket *ws, const struct frame_head *head, struct slice masked)
{
    uint8_t payload[CONTROL_MAX];
    struct websocket frame = {.mask_at = 0}; /* the mask of a data frame around it stays */
    memcpy(frame.mask, head->mask, sizeof frame.mask);
    unmask(&frame, payload, masked.ptr, masked.len);
    if (head->opcode == OP_CLOSE)
        on_close(ws, slice_of(payload, masked.len));
    else if (head->opcode == OP_PING && ws->state < CLOSING)
        put_control(ws, OP_PONG, slice_of(payload, masked.len));
}

static void message_ends(struct websocket *ws)
{
    bool text = ws->opcode == OP_TEXT;
    ws->opcode = 0;
    ws->message_len = 0;
    if (text && ws->state == OPEN && !ws->inner->want_close && !utf8_whole(&ws->utf8))
        fail(ws, WEBSOCKET_NOT_UTF8, "a text ends within a character");
}

static void data_begins(struct websocket *ws, const struct frame_head *head)
{
    if (head->opcode == OP_TEXT && !ws->text) {
        fail(ws, WEBSOCKET_NOT_ACCEPTED, "this protocol is a binary one");
        return;
    }
    if (head->len > ws->options->message_bytes_max - ws->message_len) {
        fail(ws, WEBSOCKET_TOO_BIG, "the message is too big");
        return;
    }
    if (head->opcode != OP_CONTINUATION) {
        ws->opcode = head->opcode;
        ws->utf8 = (struct utf8){0};
        ws->text_out = head->opcode == OP_TEXT;
    }
    ws->fin = head->fin;
    ws->message_len += head->len;
    ws->frame_left = head->len;
    ws->mask_at = 0;
    memcpy(ws->mask, head->mask, sizeof ws->mask);
    if (ws->frame_left == 0 && ws->fin)
        message_ends(ws);
}

/* Takes a head, and the payload of a control frame with it. 0: more bytes are needed. */
static size_t take_head(struct websocket *ws, struct slice bytes)
{
    struct frame_head head;
    if (!read_head(ws, bytes, &head))
        return 0;
    if (!(head.opcode & BIT_CONTROL)) {
        data_begins(ws, &head);
        return head.size;
    }
    if (bytes.len - head.size < head.len)
        return 0;
    take_control(ws, &head, slice_of(bytes.ptr + head.size, (size_t)head.len));
    return head.size + (size_t)head.len;
}

static bool text_goes_on(struct websocket *ws, struct slice plain)
{
    if (ws->opcode != OP_TEXT || utf8_step(&ws->utf8, plain))
        return true;
    fail(ws, WEBSOCKET_NOT_UTF8, "a text that is not UTF-8");
    return false;
}

/* Nothing was left of what came before. */
static void give_new(struct websocket *ws, const uint8_t *masked, size_t n)
{
    uint8_t plain[UNMASK_MAX];
    unmask(ws, plain, masked, n);
    if (!text_goes_on(ws, slice_of(plain, n)))
        return;
    size_t used = inner_feed(ws, slice_of(plain, n));
    if (used < n && in_reserve(ws, n - used)) {
        memcpy(ws->in, plain + used, n - used);
        ws->in_len = n - used;
    }
}

static void give_more(struct websocket *ws, const uint8_t *masked, size_t n)
{
    if (!in_reserve(ws, n))
        return;
    uint8_t *plain = ws->in + ws->in_len;
    unmask(ws, plain, masked, n);
    if (!text_goes_on(ws, slice_of(plain, n)))
        return;
    ws->in_len += n;
    feed_kept(ws);
}

/* Takes payload of a data frame. 0: the inner engine takes no more for now. */
static size_t take_payload(struct websocket *ws, struct slice bytes)
{
    size_t n = bytes.len < ws->frame_left ? bytes.len : (size_t)ws->frame_left;
    if (ws->state == OPEN && !ws->inner->want_close) {
        if (ws->in_len && ws->in_len >= ws->inner->in_max)
            return 0;
        n = n < UNMASK_MAX ? n : UNMASK_MAX;
        if (ws->in_len)
            give_more(ws, bytes.ptr, n);
        else
            give_new(ws, bytes.ptr, n);
    }
    ws->frame_left -= n;
    if (ws->frame_left == 0 && ws->fin)
        message_ends(ws);
    return n;
}

/* ---- what the inner engine has to say ---- */

/* How many of the first bytes, up to *n, are whole characters; false: they are no text. */
static bool text_len(const struct outq *q, size_t *n)
{
    struct iovec pieces[TEXT_PIECES];
    struct utf8 u = {0};
    size_t sum = 0;
    int count = outq_peek(q, pieces, TEXT_PIECES);
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

static void gather(struct websocket *ws)
{
    struct outq *from = &ws->inner->out, *to = &ws->outer->out;
    to->failed |= from->failed;
    while (from->len && to->len < WEBSOCKET_AHEAD_MAX && !to->failed) {
        size_t n = from->len < WEBSOCKET_MESSAGE_OUT_MAX ? from->len : WEBSOCKET_MESSAGE_OUT_MAX;
        uint8_t opcode = ws->text_out && text_len(from, &n) ? OP_TEXT : OP_BINARY;
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
    outer->in_max = inner && inner->in_max > IN_MIN ? inner->in_max : IN_MIN;
    outer->next_tick = sooner(outer->next_tick, next_tick(ws));
    if (outer->out.len || outer->want_close || outer->out.failed || (inner && (inner->out.len || inner->want_close)))
        engine_dirty(outer); /* the connection asks for what is to be written: websocket_gather */
}

/* ---- the outer engine's calls ---- */

struct websocket *websocket_open(const struct websocket_options *options, struct engine *outer, struct engine **inner,
                                 bool text, mono_t now)
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
    while (used < bytes.len && may_go_on(ws)) {
        struct slice rest = slice_of(bytes.ptr + used, bytes.len - used);
        size_t n = ws->frame_left ? take_payload(ws, rest) : take_head(ws, rest);
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
        put_control(ws, OP_PING, slice_of(NULL, 0));
    }
    mirror(ws);
    if ((ws->state == LEAVING || ws->state == CLOSING) && ws->deadline <= now)
        over(ws);
    return next_tick(ws);
}

void websocket_gather(struct websocket *ws)
{
    if (ws->in_len && may_feed(ws))
        feed_kept(ws);
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
    inner_release(ws);
    mem_free_as(MEM_CONNECTIONS, ws);
}
