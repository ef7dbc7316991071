/* Functions of text. Positions and lengths are characters, as everywhere in SQL; upper and lower know ASCII only, as PostgreSQL with
 * the C locale. What is only a part of an argument is a view of it and copies nothing. */
#include "sql/language/kernel.h"

#include <openssl/evp.h>
#include <stdio.h>

typedef struct slice text_t;

static inline bool starts(uint8_t byte)
{
    return (byte & 0xc0) != 0x80;
}

static int64_t characters(text_t t)
{
    int64_t count = 0;
    for (size_t i = 0; i < t.len; i++)
        count += starts(t.ptr[i]);
    return count;
}

/* Where the n-th character begins, from 0; the length when there are fewer. */
static size_t place_of(text_t t, int64_t n)
{
    size_t at = 0;
    for (; n > 0 && at < t.len; n--)
        for (at++; at < t.len && !starts(t.ptr[at]);)
            at++;
    return at;
}

static text_t part(text_t t, size_t from, size_t to)
{
    return slice_of(t.len ? t.ptr + from : t.ptr, to > from ? to - from : 0);
}

/* Room for a text of that length; a fault of the row when it is too long. */
static uint8_t *room(struct eval *e, uint32_t i, uint64_t len)
{
    if (len <= KERNEL_TEXT_MAX)
        return eval_take(e, (size_t)len);
    eval_fault(e, i, SQL_FAULT_LIMIT);
    return NULL;
}

KERNEL_1(text_length, text_t, int64_t, characters(a))
KERNEL_1(text_octets, text_t, int64_t, (int64_t)a.len)

static text_t mapped(struct eval *e, uint32_t i, text_t a, uint8_t first, uint8_t last)
{
    uint8_t *out = room(e, i, a.len);
    for (size_t k = 0; out && k < a.len; k++)
        out[k] = a.ptr[k] >= first && a.ptr[k] <= last ? a.ptr[k] ^ 0x20 : a.ptr[k];
    return slice_of(out, out ? a.len : 0);
}

KERNEL_1(text_upper, text_t, text_t, mapped(e, i, a, 'a', 'z'))
KERNEL_1(text_lower, text_t, text_t, mapped(e, i, a, 'A', 'Z'))

static text_t initcap(struct eval *e, uint32_t i, text_t a)
{
    uint8_t *out = room(e, i, a.len);
    bool within = false;
    for (size_t k = 0; out && k < a.len; k++) {
        uint8_t c = a.ptr[k], low = c | 0x20;
        bool letter = low >= 'a' && low <= 'z';
        out[k] = letter ? (within ? low : c & 0xdf) : c;
        within = letter || (c >= '0' && c <= '9') || c >= 0x80;
    }
    return slice_of(out, out ? a.len : 0);
}

KERNEL_1(text_initcap, text_t, text_t, initcap(e, i, a))

static text_t concat2(struct eval *e, uint32_t i, text_t a, text_t b)
{
    uint8_t *out = room(e, i, (uint64_t)a.len + b.len);
    if (!out)
        return (text_t){0};
    if (a.len)
        memcpy(out, a.ptr, a.len);
    if (b.len)
        memcpy(out + a.len, b.ptr, b.len);
    return slice_of(out, a.len + b.len);
}

KERNEL_2(text_concat, text_t, text_t, text_t, concat2(e, i, a, b))

/* All arguments from `first` on that are not NULL, with `between` between them. */
static text_t join(struct eval *e, uint32_t i, const struct column *const *args, uint32_t first, uint32_t count,
                   text_t between)
{
    uint64_t len = 0;
    bool some = false;
    for (uint32_t n = first; n < count; n++)
        if (!column_null(args[n], i)) {
            len += ((const text_t *)args[n]->values)[i & column_mask(args[n])].len + (some ? between.len : 0);
            some = true;
        }
    uint8_t *out = room(e, i, len), *p = out;
    for (uint32_t n = first; out && n < count; n++) {
        text_t t = ((const text_t *)args[n]->values)[i & column_mask(args[n])];
        if (column_null(args[n], i))
            continue;
        if (p > out && between.len) {
            memcpy(p, between.ptr, between.len);
            p += between.len;
        }
        if (t.len)
            memcpy(p, t.ptr, t.len);
        p += t.len;
    }
    return slice_of(out, out ? (size_t)(p - out) : 0);
}

KERNEL(text_concat_all)
{
    text_t *r = ret->values;
    EACH_ROW(i)
    {
        r[i] = join(e, i, args, 0, x->count, (text_t){0});
    }
}

KERNEL(text_concat_ws)
{
    text_t *r = ret->values;
    EACH_ROW(i)
    {
        if (column_null(args[0], i))
            eval_null(e, ret, i);
        else
            r[i] = join(e, i, args, 1, x->count, ((const text_t *)args[0]->values)[i & column_mask(args[0])]);
    }
}

/* From the character `from` (1 is the first) on, `count` of them; below 1 they are counted and not there. */
static text_t substring(struct eval *e, uint32_t i, text_t a, int64_t from, int64_t count)
{
    int64_t to;
    if (count < 0) {
        eval_fault(e, i, SQL_FAULT_ARGUMENT);
        return (text_t){0};
    }
    if (__builtin_add_overflow(from, count, &to))
        to = INT64_MAX;
    from = from < 1 ? 1 : from;
    if (to <= from)
        return slice_of(a.ptr, 0);
    size_t start = place_of(a, from - 1);
    text_t rest = part(a, start, a.len);
    return part(rest, 0, to == INT64_MAX ? rest.len : place_of(rest, to - from));
}

KERNEL_2(text_substring_from, text_t, int64_t, text_t, substring(e, i, a, b < 1 ? 1 : b, INT64_MAX))

KERNEL(text_substring)
{
    ARG(0, text_t);
    ARG(1, int64_t);
    ARG(2, int64_t);
    text_t *r = ret->values;
    (void)x;
    EACH_ROW(i)
    {
        r[i] = substring(e, i, v0[i & m0], v1[i & m1], v2[i & m2]);
    }
}

/* Negative: all but the last so many. */
static text_t left_of(text_t a, int64_t n)
{
    if (n < 0)
        n += characters(a);
    return n <= 0 ? slice_of(a.ptr, 0) : part(a, 0, place_of(a, n));
}

static text_t right_of(text_t a, int64_t n)
{
    int64_t count = characters(a), skip = n < 0 ? -n : count - n;
    return n == INT64_MIN ? slice_of(a.ptr, 0) : part(a, place_of(a, skip), a.len);
}

KERNEL_2(text_left, text_t, int64_t, text_t, left_of(a, b))
KERNEL_2(text_right, text_t, int64_t, text_t, right_of(a, b))

/* Whether the character of t that begins at `at` is one of `set`; its length. */
static size_t in_set(text_t t, size_t at, text_t set)
{
    size_t end = at + 1;
    while (end < t.len && !starts(t.ptr[end]))
        end++;
    return memmem(set.ptr, set.len, t.ptr + at, end - at) ? end - at : 0;
}

static text_t trimmed(text_t t, text_t set, bool left, bool right)
{
    size_t from = 0, to = t.len, step;
    while (left && from < to && (step = in_set(t, from, set)))
        from += step;
    while (right && to > from) {
        size_t at = to - 1;
        while (at > from && !starts(t.ptr[at]))
            at--;
        if (!in_set(part(t, 0, to), at, set))
            break;
        to = at;
    }
    return part(t, from, to);
}

#define BLANK slice_of(" ", 1)
KERNEL_1(text_btrim, text_t, text_t, trimmed(a, BLANK, true, true))
KERNEL_1(text_ltrim, text_t, text_t, trimmed(a, BLANK, true, false))
KERNEL_1(text_rtrim, text_t, text_t, trimmed(a, BLANK, false, true))
KERNEL_2(text_btrim_set, text_t, text_t, text_t, trimmed(a, b, true, true))
KERNEL_2(text_ltrim_set, text_t, text_t, text_t, trimmed(a, b, true, false))
KERNEL_2(text_rtrim_set, text_t, text_t, text_t, trimmed(a, b, false, true))

static const uint8_t *find(text_t t, text_t what)
{
    return what.len ? memmem(t.ptr, t.len, what.ptr, what.len) : NULL;
}

static int64_t position(text_t a, text_t b)
{
    const uint8_t *at = find(a, b);
    return !b.len ? 1 : at ? characters(slice_of(a.ptr, (size_t)(at - a.ptr))) + 1 : 0;
}

KERNEL_2(text_position, text_t, text_t, int64_t, position(a, b))

static int64_t occurrences(text_t text, text_t part)
{
    int64_t count = 0;
    if (!part.len)
        return 0;
    for (const uint8_t *at; text.len >= part.len; text = slice_of(at + part.len, text.len)) {
        at = memmem(text.ptr, text.len, part.ptr, part.len);
        if (!at)
            break;
        count++;
        text.len -= (size_t)(at - text.ptr) + part.len;
    }
    return count;
}

KERNEL_2(text_count, text_t, text_t, int64_t, occurrences(a, b))
KERNEL_2(text_starts, text_t, text_t, uint8_t, a.len >= b.len && (!b.len || memcmp(a.ptr, b.ptr, b.len) == 0))
KERNEL_2(text_ends, text_t, text_t, uint8_t,
         a.len >= b.len && (!b.len || memcmp(a.ptr + a.len - b.len, b.ptr, b.len) == 0))

static text_t replaced(struct eval *e, uint32_t i, text_t t, text_t from, text_t to)
{
    uint64_t count = 0;
    for (text_t rest = t; find(rest, from);) {
        size_t past = (size_t)(find(rest, from) - rest.ptr) + from.len;
        rest = part(rest, past, rest.len);
        count++;
    }
    if (!count)
        return t;
    uint8_t *out = room(e, i, t.len - count * from.len + count * to.len), *p = out;
    for (text_t rest = t; out;) {
        const uint8_t *at = find(rest, from);
        size_t plain = at ? (size_t)(at - rest.ptr) : rest.len;
        if (plain)
            memcpy(p, rest.ptr, plain);
        p += plain;
        if (!at)
            return slice_of(out, (size_t)(p - out));
        if (to.len)
            memcpy(p, to.ptr, to.len);
        p += to.len;
        rest = part(rest, plain + from.len, rest.len);
    }
    return (text_t){0};
}

/* Each character of `from` becomes the one at its place in `to`, or nothing. */
static text_t translated(struct eval *e, uint32_t i, text_t t, text_t from, text_t to)
{
    uint8_t *out = room(e, i, (uint64_t)t.len * 4), *p = out;
    for (size_t at = 0; out && at < t.len;) {
        size_t len = place_of(part(t, at, t.len), 1);
        const uint8_t *found = memmem(from.ptr, from.len, t.ptr + at, len);
        text_t put = slice_of(t.ptr + at, len);
        if (found) {
            size_t place = place_of(to, characters(slice_of(from.ptr, (size_t)(found - from.ptr))));
            text_t rest = part(to, place, to.len);
            put = part(rest, 0, place_of(rest, 1));
        }
        if (put.len)
            memcpy(p, put.ptr, put.len);
        p += put.len;
        at += len;
    }
    return slice_of(out, out ? (size_t)(p - out) : 0);
}

#define KERNEL_TTT(name, call)                                                                                         \
    KERNEL(name)                                                                                                       \
    {                                                                                                                  \
        ARG(0, text_t);                                                                                                \
        ARG(1, text_t);                                                                                                \
        ARG(2, text_t);                                                                                                \
        text_t *r = ret->values;                                                                                       \
        (void)x;                                                                                                       \
        EACH_ROW(i)                                                                                                    \
        {                                                                                                              \
            r[i] = call(e, i, v0[i & m0], v1[i & m1], v2[i & m2]);                                                     \
        }                                                                                                              \
    }

KERNEL_TTT(text_replace, replaced)
KERNEL_TTT(text_translate, translated)

/* The n-th part (from 0); false: there are not so many. */
static bool nth_part(text_t t, text_t between, int64_t n, text_t *ret)
{
    if (n < 0)
        return false;
    for (;; n--) {
        const uint8_t *at = find(t, between);
        size_t len = at ? (size_t)(at - t.ptr) : t.len;
        if (n == 0) {
            *ret = part(t, 0, len);
            return true;
        }
        if (!at)
            return false;
        t = part(t, len + between.len, t.len);
    }
}

static int64_t parts_of(text_t t, text_t between)
{
    int64_t count = 1;
    for (const uint8_t *at; (at = find(t, between)); count++)
        t = part(t, (size_t)(at - t.ptr) + between.len, t.len);
    return count;
}

KERNEL(text_split_part)
{
    ARG(0, text_t);
    ARG(1, text_t);
    ARG(2, int64_t);
    text_t *r = ret->values;
    (void)x;
    EACH_ROW(i)
    {
        int64_t n = v2[i & m2];
        if (n == 0)
            eval_fault(e, i, SQL_FAULT_ARGUMENT);
        if (n < 0) /* from the end */
            n += parts_of(v0[i & m0], v1[i & m1]) + 1;
        if (!nth_part(v0[i & m0], v1[i & m1], n - 1, &r[i]))
            r[i] = slice_of("", 0);
    }
}

/* Flink's: from 0, and NULL when there is none. */
KERNEL(text_split_index)
{
    ARG(0, text_t);
    ARG(1, text_t);
    ARG(2, int64_t);
    text_t *r = ret->values;
    (void)x;
    EACH_ROW(i)
    {
        if (!nth_part(v0[i & m0], v1[i & m1], v2[i & m2], &r[i]))
            eval_null(e, ret, i);
    }
}

static text_t repeated(struct eval *e, uint32_t i, text_t a, int64_t n)
{
    uint64_t len = n > 0 && a.len ? (n > (int64_t)KERNEL_TEXT_MAX ? UINT64_MAX : (uint64_t)n * a.len) : 0;
    uint8_t *out = room(e, i, len);
    for (uint64_t at = 0; out && at < len; at += a.len)
        memcpy(out + at, a.ptr, a.len);
    return slice_of(out, out ? (size_t)len : 0);
}

KERNEL_2(text_repeat, text_t, int64_t, text_t, repeated(e, i, a, b))

static text_t reversed(struct eval *e, uint32_t i, text_t a)
{
    uint8_t *out = room(e, i, a.len);
    for (size_t at = 0; out && at < a.len;) {
        size_t len = place_of(part(a, at, a.len), 1);
        memcpy(out + a.len - at - len, a.ptr + at, len);
        at += len;
    }
    return slice_of(out, out ? a.len : 0);
}

KERNEL_1(text_reverse, text_t, text_t, reversed(e, i, a))

/* Filled up, or cut, to n characters. */
static text_t padded(struct eval *e, uint32_t i, text_t t, int64_t n, text_t fill, bool left)
{
    int64_t have = characters(t), missing = n - have;
    if (n <= 0)
        return slice_of("", 0);
    if (missing <= 0 || !fill.len)
        return missing < 0 ? part(t, 0, place_of(t, n)) : t;
    if (missing > (int64_t)KERNEL_TEXT_MAX)
        missing = KERNEL_TEXT_MAX + 1; /* refused by room() */
    int64_t each = characters(fill), times = missing / each;
    size_t rest = place_of(fill, missing % each);
    uint64_t filling = (uint64_t)times * fill.len + rest;
    uint8_t *out = room(e, i, filling + t.len);
    if (!out)
        return (text_t){0};
    uint8_t *p = left ? out : out + t.len;
    for (; times > 0; times--, p += fill.len)
        memcpy(p, fill.ptr, fill.len);
    memcpy(p, fill.ptr, rest);
    if (t.len)
        memcpy(left ? out + filling : out, t.ptr, t.len);
    return slice_of(out, (size_t)filling + t.len);
}

static void pad_rows(struct eval *e, const struct expr *x, const struct column *const *args, struct column *ret,
                     struct sel sel, bool left)
{
    ARG(0, text_t);
    ARG(1, int64_t);
    text_t *r = ret->values;
    EACH_ROW(i)
    {
        text_t fill = x->count > 2 ? ((const text_t *)args[2]->values)[i & column_mask(args[2])] : BLANK;
        r[i] = padded(e, i, v0[i & m0], v1[i & m1], fill, left);
    }
}

KERNEL(text_lpad)
{
    pad_rows(e, x, args, ret, sel, true);
}

KERNEL(text_rpad)
{
    pad_rows(e, x, args, ret, sel, false);
}

KERNEL(text_overlay)
{
    ARG(0, text_t);
    ARG(1, text_t);
    ARG(2, int64_t);
    text_t *r = ret->values;
    EACH_ROW(i)
    {
        text_t t = v0[i & m0], by = v1[i & m1];
        int64_t from = v2[i & m2],
                count = x->count > 3 ? ((const int64_t *)args[3]->values)[i & column_mask(args[3])] : characters(by);
        if (from < 1 || count < 0) {
            eval_fault(e, i, SQL_FAULT_ARGUMENT);
            continue;
        }
        size_t start = place_of(t, from - 1);
        text_t rest = part(t, start, t.len);
        text_t head = concat2(e, i, part(t, 0, start), by);
        r[i] = concat2(e, i, head, part(rest, place_of(rest, count), rest.len));
    }
}

static int64_t code_of(text_t t)
{
    if (!t.len)
        return 0;
    uint32_t c = t.ptr[0];
    if (c < 0x80)
        return c;
    size_t len = place_of(t, 1);
    c &= 0x7fu >> len;
    for (size_t i = 1; i < len; i++)
        c = c << 6 | (t.ptr[i] & 0x3f);
    return c;
}

static text_t character(struct eval *e, uint32_t i, int64_t code)
{
    static const uint8_t heads[] = {0, 0, 0xc0, 0xe0, 0xf0};
    if (code <= 0 || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) {
        eval_fault(e, i, SQL_FAULT_ARGUMENT);
        return (text_t){0};
    }
    size_t len = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    uint8_t *out = room(e, i, len);
    for (size_t k = len; out && k-- > 1; code >>= 6)
        out[k] = (uint8_t)(0x80 | (code & 0x3f));
    if (out)
        out[0] = (uint8_t)(heads[len] | code);
    return slice_of(out, out ? len : 0);
}

KERNEL_1(text_ascii, text_t, int64_t, code_of(a))
KERNEL_1(text_chr, int64_t, text_t, character(e, i, a))

static text_t hex_of(struct eval *e, uint32_t i, const uint8_t *bytes, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    uint8_t *out = room(e, i, 2 * len);
    for (size_t k = 0; out && k < len; k++) {
        out[2 * k] = (uint8_t)digits[bytes[k] >> 4];
        out[2 * k + 1] = (uint8_t)digits[bytes[k] & 15];
    }
    return slice_of(out, out ? 2 * len : 0);
}

static text_t digest(struct eval *e, uint32_t i, text_t a, const EVP_MD *kind)
{
    uint8_t hash[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    if (EVP_Digest(a.len ? a.ptr : (const uint8_t *)"", a.len, hash, &len, kind, NULL))
        return hex_of(e, i, hash, len);
    e->no_memory = true; /* all that can be wrong with a digest of bytes in memory */
    return (text_t){0};
}

KERNEL_1(text_md5, text_t, text_t, digest(e, i, a, EVP_md5()))
KERNEL_1(text_sha256, text_t, text_t, digest(e, i, a, EVP_sha256()))

static text_t hex_number(struct eval *e, uint32_t i, int64_t a)
{
    char text[24];
    int len = snprintf(text, sizeof text, "%llx", (unsigned long long)a);
    uint8_t *out = room(e, i, (uint64_t)len);
    if (out)
        memcpy(out, text, (size_t)len);
    return slice_of(out, out ? (size_t)len : 0);
}

KERNEL_1(text_to_hex, int64_t, text_t, hex_number(e, i, a))
