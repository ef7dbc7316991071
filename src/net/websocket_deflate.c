/* Packing and unpacking the messages of WebSockets, see websocket_deflate.h. The loop's thread.
 *
 * Packing: one zlib state per window that clients have asked for, each of 37 KiB at most, and one buffer. A small window and small
 * tables because they are emptied before every message: against zlib's defaults (256 KiB) a message of 1 KB is as short and as
 * fast, one of 64 KB is packed in half again the time and as short. What does not become shorter is sent as it is.
 *
 * Unpacking: inflate writes into what the caller has room for and keeps at most its window, so a bomb is unpacked only as far as
 * somebody takes it. */
#include "net/websocket_deflate.h"

#include "base/check.h"
#include "base/mem.h"

#include <zlib.h>

#define LEVEL 1 /* half the time of the default, and a fifth longer */
#define TABLES 5

struct websocket_inflate {
    z_stream stream;
    uint64_t taken; /* bytes since the beginning, or since a block that says that it is the last (BFINAL) */
};

struct websocket_deflate {
    z_stream *packers[WEBSOCKET_BITS_OUT - WEBSOCKET_BITS_MIN + 1]; /* by window; NULL: not wanted yet */
    uint8_t *packed;                 /* WEBSOCKET_PACK_MAX bytes, with the first packer */
    struct websocket_inflate *spare; /* the window that it has is the last message's */
};

static void *take_memory(void *opaque, unsigned count, unsigned len)
{
    (void)opaque;
    return mem_alloc_as(MEM_CONNECTIONS, (size_t)count * len);
}

static void give_back(void *opaque, void *ptr)
{
    (void)opaque;
    mem_free_as(MEM_CONNECTIONS, ptr);
}

struct websocket_deflate *websocket_deflate_new(void)
{
    return mem_zalloc_as(MEM_CONNECTIONS, sizeof(struct websocket_deflate));
}

static void inflate_free(struct websocket_inflate *m)
{
    if (!m)
        return;
    (void)inflateEnd(&m->stream);
    mem_free_as(MEM_CONNECTIONS, m);
}

void websocket_deflate_free(struct websocket_deflate **deflate)
{
    struct websocket_deflate *d = *deflate;
    if (!d)
        return;
    *deflate = NULL;
    for (size_t i = 0; i < ARRAY_LEN(d->packers); i++) {
        if (d->packers[i])
            (void)deflateEnd(d->packers[i]); /* its result says only whether there was work in it */
        mem_free_as(MEM_CONNECTIONS, d->packers[i]);
    }
    inflate_free(d->spare);
    mem_free_as(MEM_CONNECTIONS, d->packed);
    mem_free_as(MEM_CONNECTIONS, d);
}

/* ---- packing ---- */

/* NULL: no memory. */
static z_stream *packer_of(struct websocket_deflate *d, unsigned bits)
{
    CHECK(bits >= WEBSOCKET_BITS_MIN && bits <= WEBSOCKET_BITS_OUT);
    z_stream **place = &d->packers[bits - WEBSOCKET_BITS_MIN], *s = *place;
    if (s) {
        (void)deflateReset(s);
        return s;
    }
    if (!d->packed)
        d->packed = mem_alloc_as(MEM_CONNECTIONS, WEBSOCKET_PACK_MAX);
    s = d->packed ? mem_alloc_as(MEM_CONNECTIONS, sizeof *s) : NULL;
    if (!s)
        return NULL;
    *s = (z_stream){.zalloc = take_memory, .zfree = give_back};
    if (deflateInit2(s, LEVEL, Z_DEFLATED, -(int)bits, TABLES, Z_DEFAULT_STRATEGY) == Z_OK)
        return *place = s;
    mem_free_as(MEM_CONNECTIONS, s);
    return NULL;
}

struct slice websocket_pack(struct websocket_deflate *d, unsigned bits, const struct iovec *pieces, size_t n)
{
    CHECK(n <= WEBSOCKET_PACK_MAX);
    z_stream *s = n ? packer_of(d, bits) : NULL;
    if (!s)
        return (struct slice){0};
    s->next_out = d->packed;
    s->avail_out = (uInt)n;
    for (; n && s->avail_out; pieces++) {
        size_t part = pieces->iov_len < n ? pieces->iov_len : n;
        n -= part;
        s->next_in = pieces->iov_base;
        s->avail_in = (uInt)part;
        (void)deflate(s, n ? Z_NO_FLUSH : Z_SYNC_FLUSH); /* cannot fail: whether there was room is seen below */
    }
    size_t len = (size_t)(s->next_out - d->packed);
    if (!s->avail_out) /* some may be missing */
        return (struct slice){0};
    CHECK(len > WEBSOCKET_TAIL_LEN &&
          memcmp(s->next_out - WEBSOCKET_TAIL_LEN, WEBSOCKET_TAIL, WEBSOCKET_TAIL_LEN) == 0);
    return slice_of(d->packed, len - WEBSOCKET_TAIL_LEN);
}

/* ---- unpacking ---- */

struct websocket_inflate *websocket_inflate_begin(struct websocket_deflate *d, unsigned bits)
{
    struct websocket_inflate *m = d->spare;
    if (m) {
        d->spare = NULL;
        m->taken = 0;
        int result = inflateReset2(&m->stream, -(int)bits); /* gives back a window of another size */
        CHECK(result == Z_OK);
        return m;
    }
    m = mem_alloc_as(MEM_CONNECTIONS, sizeof *m);
    if (!m)
        return NULL;
    *m = (struct websocket_inflate){.stream = {.zalloc = take_memory, .zfree = give_back}};
    if (inflateInit2(&m->stream, -(int)bits) == Z_OK)
        return m;
    mem_free_as(MEM_CONNECTIONS, m);
    return NULL;
}

enum websocket_inflated websocket_inflate_step(struct websocket_inflate *m, struct slice *packed, uint8_t *to,
                                               size_t *len)
{
    z_stream *s = &m->stream;
    int result;
    CHECK(packed->len <= UINT32_MAX && *len && *len <= UINT32_MAX);
    s->next_in = (Bytef *)(uintptr_t)packed->ptr;
    s->avail_in = (uInt)packed->len;
    s->next_out = to;
    s->avail_out = (uInt)*len;
    do {
        uInt before = s->avail_in;
        result = inflate(s, Z_SYNC_FLUSH);
        m->taken += before - s->avail_in;
        if (result == Z_STREAM_END) { /* section 7.2.3.4: another block may begin with the next byte */
            m->taken = 0;
            (void)inflateReset(s);
        }
    } while (result == Z_STREAM_END && s->avail_in && s->avail_out);
    *packed = slice_of(s->next_in, s->avail_in);
    *len -= s->avail_out;
    if (result == Z_MEM_ERROR)
        return WEBSOCKET_NO_MEMORY;
    bool fine =
        result == Z_OK || result == Z_STREAM_END || result == Z_BUF_ERROR; /* the last: there was nothing to do */
    return fine ? WEBSOCKET_INFLATED : WEBSOCKET_DAMAGED;
}

/* The tail ends a block, and then inflate waits for the type of the next with no bit left (zlib.h: data_type is 128). Behind a last
 * block, and in a message of no bytes at all, there is nothing that it had to end. */
bool websocket_inflate_whole(const struct websocket_inflate *m)
{
    return m->stream.data_type == 128 || m->taken == WEBSOCKET_TAIL_LEN;
}

void websocket_inflate_end(struct websocket_deflate *d, struct websocket_inflate **message)
{
    struct websocket_inflate *m = *message;
    *message = NULL;
    if (!m)
        return;
    if (d->spare)
        inflate_free(m);
    else
        d->spare = m;
}
