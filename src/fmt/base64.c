/* RFC 4648, see base64.h. Decoding is strict: whole groups of four, padding only where it belongs, and unused bits zero,
 * so that every byte string has exactly one text that decodes to it. Pure functions, any thread. */
#include "fmt/base64.h"

static const char plain_alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char url_alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/* Four characters per three bytes; of a last group only those that carry bits. Returns the length. */
static size_t encode(struct slice in, const char *alphabet, char *ret)
{
    char *out = ret;
    for (size_t i = 0; i < in.len; i += 3) {
        size_t have = in.len - i < 3 ? in.len - i : 3;
        uint32_t group = (uint32_t)in.ptr[i] << 16;
        group |= have > 1 ? (uint32_t)in.ptr[i + 1] << 8 : 0;
        group |= have > 2 ? in.ptr[i + 2] : 0;
        for (size_t c = 0; c <= have; c++)
            *out++ = alphabet[(group >> (18 - 6 * c)) & 63];
    }
    return (size_t)(out - ret);
}

void base64_encode(struct slice in, char *ret)
{
    size_t len = encode(in, plain_alphabet, ret);
    while (len % 4)
        ret[len++] = '=';
    ret[len] = '\0';
}

size_t base64_url_encode(struct slice in, char *ret)
{
    size_t len = encode(in, url_alphabet, ret);
    ret[len] = '\0';
    return len;
}

static int value_of(uint8_t c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

int64_t base64_decode(struct slice in, uint8_t *ret, size_t max)
{
    size_t made = 0;
    if (in.len % 4)
        return -1;
    for (size_t i = 0; i < in.len; i += 4) {
        size_t padding = i + 4 < in.len || in.ptr[i + 3] != '=' ? 0 : in.ptr[i + 2] != '=' ? 1 : 2;
        size_t bytes = 3 - padding;
        uint32_t group = 0;
        for (size_t c = 0; c < 4; c++) {
            int value = c < 4 - padding ? value_of(in.ptr[i + c]) : 0;
            if (value < 0)
                return -1;
            group = group << 6 | (uint32_t)value;
        }
        if ((group & ((1u << (8 * padding)) - 1)) != 0 || bytes > max - made)
            return -1;
        for (size_t b = 0; b < bytes; b++)
            ret[made++] = (uint8_t)(group >> (16 - 8 * b));
    }
    return (int64_t)made;
}
