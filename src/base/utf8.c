/* Checks UTF-8, see utf8.h. What a second byte may be after each first one is table 3-7 of the Unicode standard. */
#include "base/utf8.h"

#define ASCII_MASK 0x8080808080808080u

/* Begins a character by its first byte, which is not ASCII. */
static bool begin(struct utf8 *u, uint8_t c)
{
    u->left = c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
    u->seen = 1;
    u->low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
    u->high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    return c >= 0xc2 && c <= 0xf4;
}

bool utf8_step(struct utf8 *u, struct slice bytes)
{
    for (size_t i = 0; i < bytes.len; i++) {
        uint8_t c = bytes.ptr[i];
        if (u->left) {
            if (c < u->low || c > u->high)
                return false;
            u->low = 0x80;
            u->high = 0xbf;
            u->seen++;
            u->left--;
            continue;
        }
        for (uint64_t eight; bytes.len - i >= sizeof eight; i += sizeof eight) {
            memcpy(&eight, bytes.ptr + i, sizeof eight);
            if (eight & ASCII_MASK)
                break;
        }
        if (i < bytes.len && bytes.ptr[i] >= 0x80 && !begin(u, bytes.ptr[i]))
            return false;
    }
    return true;
}

bool utf8_valid(struct slice text)
{
    struct utf8 u = {0};
    return utf8_step(&u, text) && utf8_whole(&u);
}

size_t utf8_char(struct slice text)
{
    struct utf8 u = {0};
    if (text.len == 0 || text.ptr[0] < 0x80)
        return text.len != 0;
    if (!begin(&u, text.ptr[0]))
        return 0;
    size_t len = 1u + u.left;
    return text.len >= len && utf8_step(&u, slice_of(text.ptr + 1, len - 1)) ? len : 0;
}
