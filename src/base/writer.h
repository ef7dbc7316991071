/* writer: the mirror of reader: a cursor over a buffer with a maximum, and back-patching.
 *
 * Writing past the end makes the writer fail for good and writes nothing more; check writer_ok once at the end.
 * Numbers are in network order. The buffer is a loan. Any one thread.
 */
#ifndef MILLRACE_BASE_WRITER_H
#define MILLRACE_BASE_WRITER_H

#include "base/types.h"

#include <endian.h>

struct writer {
    uint8_t *base;
    size_t len, max;
    bool failed;
};

static inline struct writer writer_of(void *base, size_t max)
{
    return (struct writer){.base = (uint8_t *)base, .max = max};
}

static inline bool writer_ok(const struct writer *w)
{
    return !w->failed;
}

static inline struct slice writer_slice(const struct writer *w)
{
    return slice_of(w->base, w->len);
}

/* Room for n bytes, to be filled by the caller; NULL when there is none. */
static inline uint8_t *writer_room(struct writer *w, size_t n)
{
    if (w->failed || n > w->max - w->len) {
        w->failed = true;
        return NULL;
    }
    uint8_t *at = w->base ? w->base + w->len : NULL;
    w->len += n;
    return at;
}

static inline void writer_put(struct writer *w, const void *bytes, size_t n)
{
    uint8_t *at = writer_room(w, n);
    if (at && n)
        memcpy(at, bytes, n);
}

static inline void writer_slice_put(struct writer *w, struct slice s)
{
    writer_put(w, s.ptr, s.len);
}

static inline void writer_u8(struct writer *w, uint8_t v)
{
    writer_put(w, &v, sizeof v);
}

static inline void writer_u16(struct writer *w, uint16_t v)
{
    v = htobe16(v);
    writer_put(w, &v, sizeof v);
}

static inline void writer_u32(struct writer *w, uint32_t v)
{
    v = htobe32(v);
    writer_put(w, &v, sizeof v);
}

static inline void writer_u64(struct writer *w, uint64_t v)
{
    v = htobe64(v);
    writer_put(w, &v, sizeof v);
}

static inline void writer_str8(struct writer *w, struct slice s)
{
    if (s.len > 255)
        w->failed = true;
    writer_u8(w, (uint8_t)s.len);
    writer_slice_put(w, s);
}

static inline void writer_str32(struct writer *w, struct slice s)
{
    writer_u32(w, (uint32_t)s.len);
    writer_slice_put(w, s);
}

static inline void writer_varint(struct writer *w, uint64_t v)
{
    while (v >= 0x80) {
        writer_u8(w, (uint8_t)(v | 0x80));
        v >>= 7;
    }
    writer_u8(w, (uint8_t)v);
}

/* Leaves four bytes to be patched: returns their position. */
static inline size_t writer_mark32(struct writer *w)
{
    size_t at = w->len;
    writer_u32(w, 0);
    return at;
}

/* Writes into the mark how many bytes came after it. */
static inline void writer_patch32(struct writer *w, size_t mark)
{
    if (w->failed)
        return;
    uint32_t v = htobe32((uint32_t)(w->len - mark - 4));
    memcpy(w->base + mark, &v, sizeof v);
}

#endif
