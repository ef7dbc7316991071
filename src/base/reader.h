/* reader: the one cursor through which all untrusted bytes are read. It cannot overrun.
 *
 * A failed read makes the reader fail for good: numbers come back 0 and slices empty, and the parser checks
 * reader_ok once at the end of the message. Numbers are in network order. The bytes are a loan. Any one thread.
 */
#ifndef MILLRACE_BASE_READER_H
#define MILLRACE_BASE_READER_H

#include "base/types.h"

#include <endian.h>

struct reader {
    const uint8_t *at;
    size_t left;
    bool failed;
};

static inline struct reader reader_of(struct slice s)
{
    return (struct reader){.at = s.ptr, .left = s.len};
}

static inline bool reader_ok(const struct reader *r)
{
    return !r->failed;
}

/* Nothing failed and nothing is left over. */
static inline bool reader_done(const struct reader *r)
{
    return !r->failed && r->left == 0;
}

static inline void reader_fail(struct reader *r)
{
    r->failed = true;
    r->left = 0;
}

static inline struct slice reader_take(struct reader *r, size_t n)
{
    if (n > r->left) {
        reader_fail(r);
        return (struct slice){0};
    }
    struct slice s = {.ptr = r->at, .len = n};
    if (n == 0) /* nothing may be added to a NULL pointer, not even 0 */
        return s;
    r->at += n;
    r->left -= n;
    return s;
}

static inline uint8_t reader_u8(struct reader *r)
{
    struct slice s = reader_take(r, 1);
    return s.len ? s.ptr[0] : 0;
}

static inline uint16_t reader_u16(struct reader *r)
{
    uint16_t v = 0;
    struct slice s = reader_take(r, sizeof v);
    if (s.len)
        memcpy(&v, s.ptr, sizeof v);
    return be16toh(v);
}

static inline uint32_t reader_u32(struct reader *r)
{
    uint32_t v = 0;
    struct slice s = reader_take(r, sizeof v);
    if (s.len)
        memcpy(&v, s.ptr, sizeof v);
    return be32toh(v);
}

static inline uint64_t reader_u64(struct reader *r)
{
    uint64_t v = 0;
    struct slice s = reader_take(r, sizeof v);
    if (s.len)
        memcpy(&v, s.ptr, sizeof v);
    return be64toh(v);
}

/* One length byte, then that many bytes. */
static inline struct slice reader_str8(struct reader *r)
{
    return reader_take(r, reader_u8(r));
}

/* Four length bytes, then that many bytes. */
static inline struct slice reader_str32(struct reader *r)
{
    return reader_take(r, reader_u32(r));
}

static inline struct slice reader_rest(struct reader *r)
{
    return reader_take(r, r->left);
}

/* Unsigned LEB128, at most 10 bytes. */
uint64_t reader_varint(struct reader *r);

#endif
