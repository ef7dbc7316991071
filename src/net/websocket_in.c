/* What a WebSocket hears: frames, see websocket_int.h. The loop's thread.
 *
 * A frame's head is read when it is whole, and so is a control frame (125 bytes at most); payload of data frames is taken as it
 * comes, unmasked into a piece of stack and given to the inner engine. What that one leaves is kept, unmasked, in a buffer that
 * grows with what has come and up to its in_max; with nothing left there is no buffer.
 *
 * A packed message (RFC 7692) is unpacked as far as the inner engine takes it and no further: its packed bytes wait in the socket,
 * and what the inflater holds within it (held). A byte may become a thousand, so no more than WEBSOCKET_UNPACK_NOW_MAX leave the inflater
 * before other connections have had their turn, and the limit of a message counts what comes out. */
#include "net/websocket_int.h"

#include "base/check.h"
#include "base/mem.h"
#include "base/reader.h"

#define PIECE_MAX (16u * 1024) /* unmasked or unpacked at once, on the stack */
#define PACKED_MAX 4096u

/* ---- the inner engine ---- */

void websocket_in_release(struct websocket *ws)
{
    mem_free_as(MEM_CONNECTIONS, ws->in);
    ws->in = NULL;
    ws->in_len = ws->in_cap = 0;
}

bool websocket_may_feed(const struct websocket *ws)
{
    const struct engine *inner = ws->inner;
    return inner && !inner->paused && !inner->want_close && !inner->out.failed;
}

static size_t feed_inner(struct websocket *ws, struct slice bytes)
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
void websocket_feed_kept(struct websocket *ws)
{
    size_t used = feed_inner(ws, slice_of(ws->in, ws->in_len));
    ws->in_len -= used;
    if (ws->in_len == 0)
        websocket_in_release(ws);
    else if (used)
        memmove(ws->in, ws->in + used, ws->in_len);
}

static bool is_full(const struct websocket *ws)
{
    return ws->in_len && ws->in_len >= ws->inner->in_max;
}

/* Is what comes for nobody any more? */
static bool is_deaf(const struct websocket *ws)
{
    return ws->state != OPEN || ws->inner->want_close;
}

/* ---- frames ---- */

struct frame_head {
    uint8_t opcode;
    bool fin, packed;
    uint64_t len;
    uint8_t mask[4];
    size_t size;
};

/* The rule of section 5 that the first two bytes break, or of RFC 7692 section 6: a message says with its first frame that it is
 * packed. NULL: none. */
static const char *first_bytes_wrong(const struct websocket *ws, uint8_t first, uint8_t second)
{
    uint8_t opcode = first & 0x0f;
    if ((first & BITS_RESERVED) && !ws->deflate)
        return "a reserved bit is set, and no extension was agreed";
    if ((first & BITS_RESERVED) && ((first & BITS_RESERVED) != BIT_PACKED || (opcode & BIT_CONTROL) || opcode == 0))
        return "a reserved bit is set that means nothing here";
    if (!(second & BIT_MASK))
        return "a client's frames have to be masked";
    if (opcode & BIT_CONTROL) {
        if (opcode > OP_PONG)
            return "a reserved opcode";
        if (!(first & BIT_FIN))
            return "a control frame in parts";
        return (second & 0x7f) > WEBSOCKET_CONTROL_MAX ? "a control frame of more than 125 bytes" : NULL;
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
    *ret = (struct frame_head){.opcode = first & 0x0f, .fin = first & BIT_FIN, .packed = first & BIT_PACKED};
    ret->len = form == 126 ? reader_u16(&r) : form == 127 ? reader_u64(&r) : form;
    if (!wrong && reader_ok(&r) && ((form == 126 && ret->len <= 125) || (form == 127 && ret->len <= UINT16_MAX)))
        wrong = "a length in more bytes than it needs";
    if (!wrong && ret->len >> 63)
        wrong = "a length with its highest bit set";
    if (wrong) {
        websocket_fail(ws, WEBSOCKET_PROTOCOL_ERROR, wrong);
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
    uint8_t payload[WEBSOCKET_CONTROL_MAX];
    struct websocket frame = {.mask_at = 0}; /* the mask of a data frame around it stays */
    memcpy(frame.mask, head->mask, sizeof frame.mask);
    unmask(&frame, payload, masked.ptr, masked.len);
    if (head->opcode == OP_CLOSE)
        websocket_on_close(ws, slice_of(payload, masked.len));
    else if (head->opcode == OP_PING && ws->state < CLOSING)
        websocket_put_control(ws, OP_PONG, slice_of(payload, masked.len));
}

/* ---- messages ---- */

void websocket_message_release(struct websocket *ws)
{
    if (ws->inflate)
        websocket_inflate_end(ws->deflate, &ws->inflate);
    ws->opcode = 0;
    ws->message_len = ws->unpacked_len = 0;
    ws->ends = ws->held = false;
}

static void message_ends(struct websocket *ws)
{
    bool text = ws->opcode == OP_TEXT;
    websocket_message_release(ws);
    if (text && !is_deaf(ws) && !utf8_whole(&ws->utf8))
        websocket_fail(ws, WEBSOCKET_NOT_UTF8, "a text ends within a character");
}

static bool text_goes_on(struct websocket *ws, struct slice plain)
{
    if (ws->opcode != OP_TEXT || utf8_step(&ws->utf8, plain))
        return true;
    websocket_fail(ws, WEBSOCKET_NOT_UTF8, "a text that is not UTF-8");
    return false;
}

/* Bytes of a message, behind what the engine left. */
static void give(struct websocket *ws, struct slice plain)
{
    if (!text_goes_on(ws, plain))
        return;
    size_t used = ws->in_len ? 0 : feed_inner(ws, plain);
    if (used == plain.len || !in_reserve(ws, plain.len - used))
        return;
    bool more = ws->in_len > 0;
    memcpy(ws->in + ws->in_len, plain.ptr + used, plain.len - used);
    ws->in_len += plain.len - used;
    if (more)
        websocket_feed_kept(ws);
}

/* The same of bytes that need not be unpacked: what stands in the buffer is unmasked there. */
static void give_masked(struct websocket *ws, const uint8_t *masked, size_t n)
{
    uint8_t plain[PIECE_MAX];
    if (!ws->in_len) {
        unmask(ws, plain, masked, n);
        give(ws, slice_of(plain, n));
        return;
    }
    if (!in_reserve(ws, n))
        return;
    uint8_t *to = ws->in + ws->in_len;
    unmask(ws, to, masked, n);
    if (!text_goes_on(ws, slice_of(to, n)))
        return;
    ws->in_len += n;
    websocket_feed_kept(ws);
}

/* ---- packed messages ---- */

static bool may_unpack(const struct websocket *ws)
{
    return ws->held && ws->state == OPEN && websocket_may_feed(ws) && !ws->outer->out.failed && !is_full(ws);
}

bool websocket_unpack_waits_for_its_turn(const struct websocket *ws)
{
    return may_unpack(ws) && ws->unpack_now == 0;
}

/* At most `room` bytes. */
static void unpack_piece(struct websocket *ws, struct slice *packed, size_t room)
{
    uint8_t plain[PIECE_MAX];
    size_t n = room < sizeof plain ? room : sizeof plain, len = n;
    enum websocket_inflated result = websocket_inflate_step(ws->inflate, packed, plain, &len);
    ws->held = len == n;
    ws->unpack_now -= (uint32_t)len;
    ws->unpacked_len += len;
    if (result == WEBSOCKET_NO_MEMORY)
        ws->outer->out.failed = true;
    else if (result == WEBSOCKET_DAMAGED)
        websocket_fail(ws, WEBSOCKET_PROTOCOL_ERROR, "a packed message that cannot be unpacked");
    else if (ws->unpacked_len > ws->options->message_bytes_max)
        websocket_fail(ws, WEBSOCKET_TOO_BIG, "the message is too big, unpacked");
    else if (len)
        give(ws, slice_of(plain, len));
}

/* What is held, and packed bytes behind it, as far as the inner engine takes it. Returns how many were taken; all, or some is held. */
static size_t unpack(struct websocket *ws, struct slice packed)
{
    size_t before = packed.len;
    ws->held = true;
    while (may_unpack(ws) && ws->unpack_now)
        unpack_piece(ws, &packed, ws->unpack_now);
    if (is_deaf(ws))
        ws->held = false;
    return before - packed.len;
}

/* All of the packed message is here: what its sender has left off is put behind it. */
static void unpack_end(struct websocket *ws)
{
    ws->ends = true;
    struct slice tail = slice_of(&WEBSOCKET_TAIL[WEBSOCKET_TAIL_LEN - ws->tail_left], ws->tail_left);
    ws->tail_left -= (uint8_t)unpack(ws, tail);
    if (ws->held)
        return;
    if (!is_deaf(ws) && !websocket_inflate_whole(ws->inflate))
        websocket_fail(ws, WEBSOCKET_PROTOCOL_ERROR, "a packed message that is cut off");
    else
        message_ends(ws);
}

bool websocket_unpack_held(struct websocket *ws)
{
    if (ws->ends)
        unpack_end(ws);
    else if (ws->held)
        unpack(ws, (struct slice){0});
    return !ws->held;
}

static size_t take_packed(struct websocket *ws, const uint8_t *masked, size_t n)
{
    uint8_t packed[PACKED_MAX], at = ws->mask_at;
    n = n < sizeof packed ? n : sizeof packed;
    unmask(ws, packed, masked, n);
    n = unpack(ws, slice_of(packed, n));
    ws->mask_at = (uint8_t)((at + n) % 4);
    return n;
}

/* ---- frames of data ---- */

static void frame_ends(struct websocket *ws)
{
    if (!ws->fin)
        return;
    if (ws->inflate)
        unpack_end(ws);
    else
        message_ends(ws);
}

static void message_begins(struct websocket *ws, const struct frame_head *head)
{
    ws->opcode = head->opcode;
    ws->utf8 = (struct utf8){0};
    ws->text_out = head->opcode == OP_TEXT;
    if (!head->packed || is_deaf(ws))
        return;
    ws->tail_left = WEBSOCKET_TAIL_LEN;
    ws->inflate = websocket_inflate_begin(ws->deflate, ws->terms.in_bits);
    ws->outer->out.failed |= !ws->inflate;
}

static void data_begins(struct websocket *ws, const struct frame_head *head)
{
    if (head->opcode == OP_TEXT && !ws->text) {
        websocket_fail(ws, WEBSOCKET_NOT_ACCEPTED, "this protocol is a binary one");
        return;
    }
    if (head->len > ws->options->message_bytes_max - ws->message_len) {
        websocket_fail(ws, WEBSOCKET_TOO_BIG, "the message is too big");
        return;
    }
    if (head->opcode != OP_CONTINUATION)
        message_begins(ws, head);
    ws->fin = head->fin;
    ws->message_len += head->len;
    ws->frame_left = head->len;
    ws->mask_at = 0;
    memcpy(ws->mask, head->mask, sizeof ws->mask);
    if (ws->frame_left == 0)
        frame_ends(ws);
}

size_t websocket_take_payload(struct websocket *ws, struct slice bytes)
{
    size_t n = bytes.len < ws->frame_left ? bytes.len : (size_t)ws->frame_left;
    if (!is_deaf(ws)) {
        if (is_full(ws))
            return 0;
        n = n < PIECE_MAX ? n : PIECE_MAX;
        if (ws->inflate)
            n = take_packed(ws, bytes.ptr, n);
        else
            give_masked(ws, bytes.ptr, n);
    }
    ws->frame_left -= n;
    if (ws->frame_left == 0)
        frame_ends(ws);
    return n;
}

size_t websocket_take_head(struct websocket *ws, struct slice bytes)
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
