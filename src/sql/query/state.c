/* Snapshots as bytes, see state.h. */
#include "sql/query/state.h"

#include "base/mem.h"

#include <string.h>

#define VARINT_MAX 10u

bool state_writer_init(struct state_writer *w, state_take take, void *arg)
{
    *w = (struct state_writer){.take = take, .arg = arg, .piece = mem_alloc(STATE_PIECE)};
    w->failed = !w->piece;
    return !w->failed;
}

void state_writer_flush(struct state_writer *w)
{
    if (!w->failed && w->len)
        w->failed = !w->take(w->arg, slice_of(w->piece, w->len));
    w->len = 0;
}

void state_put(struct state_writer *w, const void *bytes, size_t len)
{
    const uint8_t *at = bytes;
    while (len && !w->failed) {
        size_t some = len < STATE_PIECE - w->len ? len : STATE_PIECE - w->len;
        memcpy(w->piece + w->len, at, some);
        w->len += some;
        at += some;
        len -= some;
        if (w->len == STATE_PIECE)
            state_writer_flush(w);
    }
}

void state_put_varint(struct state_writer *w, uint64_t v)
{
    uint8_t bytes[VARINT_MAX];
    size_t len = 0;
    for (; v >= 0x80; v >>= 7)
        bytes[len++] = (uint8_t)(v | 0x80);
    bytes[len++] = (uint8_t)v;
    state_put(w, bytes, len);
}

void state_put_signed(struct state_writer *w, int64_t v)
{
    state_put_varint(w, (uint64_t)v << 1 ^ (uint64_t)(v >> 63));
}

void state_put_slice(struct state_writer *w, struct slice s)
{
    state_put_varint(w, s.len);
    state_put(w, s.ptr, s.len);
}

bool state_writer_end(struct state_writer *w)
{
    state_writer_flush(w);
    mem_free(w->piece);
    w->piece = NULL;
    return !w->failed;
}

void state_reader_init(struct state_reader *r, state_give give, void *arg)
{
    *r = (struct state_reader){.give = give, .arg = arg};
}

void state_get(struct state_reader *r, void *ret, size_t len)
{
    uint8_t *at = ret;
    while (len && !r->failed) {
        if (!r->left.len && (!r->give(r->arg, &r->left) || !r->left.len)) {
            r->failed = true;
            break;
        }
        size_t some = len < r->left.len ? len : r->left.len;
        memcpy(at, r->left.ptr, some);
        r->left = slice_of(r->left.ptr + some, r->left.len - some);
        at += some;
        len -= some;
    }
    if (len)
        memset(at, 0, len);
}

uint64_t state_get_varint(struct state_reader *r)
{
    uint64_t v = 0;
    uint8_t byte;
    for (unsigned i = 0; i < VARINT_MAX; i++) {
        state_get(r, &byte, 1);
        if (i == VARINT_MAX - 1 && byte > 1)
            break;
        v |= (uint64_t)(byte & 0x7f) << 7 * i;
        if (!(byte & 0x80))
            return r->failed ? 0 : v;
    }
    r->failed = true;
    return 0;
}

int64_t state_get_signed(struct state_reader *r)
{
    uint64_t v = state_get_varint(r);
    return (int64_t)(v >> 1 ^ (0 - (v & 1)));
}

uint64_t state_get_version(struct state_reader *r, uint64_t newest)
{
    uint64_t version = state_get_varint(r);
    if (version && version <= newest)
        return version;
    if (!r->failed)
        r->strange = version;
    r->failed = true;
    return 0;
}

size_t state_get_len(struct state_reader *r, size_t max)
{
    uint64_t len = state_get_varint(r);
    if (len <= max)
        return (size_t)len;
    r->failed = true;
    return 0;
}

bool state_reader_end(struct state_reader *r)
{
    struct slice more;
    return !r->failed && !r->left.len && !r->give(r->arg, &more);
}
