/* UTF-8, see utf8.h. ASCII, which is nearly all of it, goes by eight bytes at a time. */
#include "base/utf8.h"

#define HIGH_BITS UINT64_C(0x8080808080808080)

/* What may follow a first byte: RFC 3629 section 4. The second byte's range excludes overlong forms and surrogates. */
static const struct lead {
    uint8_t first, last; /* of the first byte */
    uint8_t low, high;   /* of the second */
    uint8_t len;
} leads[] = {
    {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3}, {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3},
    {0xee, 0xef, 0x80, 0xbf, 3}, {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
};

size_t utf8_char(struct slice s)
{
    if (s.len == 0)
        return 0;
    if (s.ptr[0] < 0x80)
        return 1;
    for (const struct lead *l = leads; l < leads + ARRAY_LEN(leads); l++) {
        if (s.ptr[0] < l->first || s.ptr[0] > l->last)
            continue;
        if (s.len < l->len || s.ptr[1] < l->low || s.ptr[1] > l->high)
            return 0;
        for (size_t i = 2; i < l->len; i++)
            if ((s.ptr[i] & 0xc0) != 0x80)
                return 0;
        return l->len;
    }
    return 0;
}

bool utf8_valid(struct slice s)
{
    size_t at = 0;
    while (at < s.len) {
        uint64_t eight;
        if (s.len - at >= sizeof eight) {
            memcpy(&eight, s.ptr + at, sizeof eight);
            if (!(eight & HIGH_BITS)) {
                at += sizeof eight;
                continue;
            }
        }
        size_t n = utf8_char(slice_of(s.ptr + at, s.len - at));
        if (n == 0)
            return false;
        at += n;
    }
    return true;
}
