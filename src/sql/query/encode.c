/* Rows as JSON, see encode.h. Written for a million rows a second: names are ready with their quotes and comma, the text of a second is kept, as the
 * next row's is mostly the same, and texts are looked at sixteen bytes at a time. */
#include "sql/query/encode.h"

#include "base/check.h"
#include "base/mem.h"
#include "fmt/base64.h"
#include "sql/language/datetime.h"
#include "sql/language/decimal.h"
#include "sql/language/kernel.h"

#include <math.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define VALUE_MAX (DATETIME_TEXT_MAX + 4) /* of what is no text, with quotes */
#define SECOND_LEN 19u                    /* 2026-01-31T12:00:00 */

struct encoder_column {
    enum sql_type_kind kind;
    uint8_t scale;
    uint32_t at, len; /* of `"name":` in names */
};

struct encoder {
    uint32_t count;
    size_t fixed; /* bytes of a row but for its texts */
    int64_t second;
    uint8_t second_text[SECOND_LEN + 1];
    uint8_t *names;
    struct encoder_column columns[];
};

/* ---------------------------------------------------------------------------------------------------------- writing */

static uint8_t *put(uint8_t *out, const char *text, size_t len)
{
    if (len)
        memcpy(out, text, len);
    return out + len;
}

static const char pairs[] =
    "00010203040506070809101112131415161718192021222324252627282930313233343536373839404142434445464748495051"
    "52535455565758596061626364656667686970717273747576777879808182838485868788899091929394959697989"
    "9";

static uint8_t *put_pair(uint8_t *out, unsigned v)
{
    memcpy(out, pairs + 2 * v, 2);
    return out + 2;
}

/* At least so many digits. */
static uint8_t *put_digits(uint8_t *out, uint64_t v, unsigned least)
{
    uint8_t text[20];
    unsigned at = sizeof text;
    for (; v >= 100; v /= 100) {
        at -= 2;
        memcpy(text + at, pairs + 2 * (v % 100), 2);
    }
    if (v >= 10) {
        at -= 2;
        memcpy(text + at, pairs + 2 * v, 2);
    } else {
        text[--at] = (uint8_t)('0' + v);
    }
    while (sizeof text - at < least)
        text[--at] = '0';
    memcpy(out, text + at, sizeof text - at);
    return out + (sizeof text - at);
}

static uint8_t *put_int(uint8_t *out, int64_t v)
{
    if (v < 0)
        *out++ = '-';
    return put_digits(out, v < 0 ? 0 - (uint64_t)v : (uint64_t)v, 1);
}

static uint8_t *put_decimal(uint8_t *out, decimal_t v, unsigned scale)
{
    if (v > INT64_MAX || v < -INT64_MAX || scale > 18)
        return out + decimal_print(v, scale, (char *)out);
    if (v < 0)
        *out++ = '-';
    uint8_t *end = put_digits(out, (uint64_t)(v < 0 ? -v : v), scale + 1);
    if (!scale)
        return end;
    memmove(end - scale + 1, end - scale, scale);
    end[-(ptrdiff_t)scale] = '.';
    return end + 1;
}

/* Most doubles that people write down are m / 10^k with m below 2^53, and then the division is as exact as reading them is. */
static uint8_t *put_double(uint8_t *out, double v, bool real)
{
    static const double powers[] = {1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};
    if (!isfinite(v)) {
        const char *text = v != v ? "\"NaN\"" : v > 0 ? "\"Infinity\"" : "\"-Infinity\"";
        return put(out, text, strlen(text));
    }
    for (unsigned k = 0; !real && k < ARRAY_LEN(powers) && fabs(v) * powers[k] < 0x1p53 && fabs(v) < 1e15; k++) {
        int64_t m = (int64_t)rint(fabs(v) * powers[k]);
        if ((double)m / powers[k] != fabs(v) || (m == 0 && v != 0))
            continue;
        if (signbit(v))
            *out++ = '-';
        return put_decimal(out, m, k);
    }
    return out + double_print(v, real, (char *)out, VALUE_MAX);
}

static uint8_t *put_clock(uint8_t *out, int64_t second, int64_t us)
{
    out = put_pair(out, (unsigned)(second / 3600));
    *out++ = ':';
    out = put_pair(out, (unsigned)(second / 60 % 60));
    *out++ = ':';
    out = put_pair(out, (unsigned)(second % 60));
    if (!us)
        return out;
    *out++ = '.';
    return us % 1000 ? put_digits(out, (uint64_t)us, 6) : put_digits(out, (uint64_t)us / 1000, 3);
}

static uint8_t *put_date(uint8_t *out, int64_t days)
{
    if (days < DATE_MIN || days > DATE_MAX) /* the edge of a window may be there */
        return out + date_print(days, (char *)out);
    struct civil c = civil_from_us(days * US_PER_DAY);
    out = put_pair(put_pair(out, (unsigned)c.year / 100), (unsigned)c.year % 100);
    *out++ = '-';
    out = put_pair(out, (unsigned)c.month);
    *out++ = '-';
    return put_pair(out, (unsigned)c.day);
}

static uint8_t *put_timestamp(struct encoder *e, uint8_t *out, int64_t us)
{
    int64_t second = us / US_PER_S - (us % US_PER_S < 0), rest = us - second * US_PER_S;
    if (!timestamp_valid(us))
        return out + timestamp_print(us, true, (char *)out);
    if (second != e->second) {
        int64_t days = second / 86400 - (second % 86400 < 0);
        uint8_t *at = put_date(e->second_text, days);
        *at++ = 'T';
        (void)put_clock(at, second - days * 86400, 0);
        e->second = second;
    }
    memcpy(out, e->second_text, SECOND_LEN);
    out += SECOND_LEN;
    if (rest) {
        *out++ = '.';
        out = rest % 1000 ? put_digits(out, (uint64_t)rest, 6) : put_digits(out, (uint64_t)rest / 1000, 3);
    }
    *out++ = 'Z';
    return out;
}

static uint8_t *put_escape(uint8_t *out, uint8_t c)
{
    static const char digits[] = "0123456789abcdef", shorts[] = "btn\vfr";
    *out++ = '\\';
    if (c >= 0x20 || (c >= 8 && c <= 13 && c != 11)) {
        *out++ = c >= 0x20 ? c : (uint8_t)shorts[c - 8];
        return out;
    }
    out = put(out, "u00", 3);
    *out++ = (uint8_t)digits[c >> 4];
    *out++ = (uint8_t)digits[c & 15];
    return out;
}

uint8_t *encode_escaped(uint8_t *out, struct slice t)
{
    const uint8_t *at = t.ptr, *end = t.len ? at + t.len : at;
#ifdef __SSE2__
    const __m128i quote = _mm_set1_epi8('"'), slash = _mm_set1_epi8('\\'), control = _mm_set1_epi8(0x1f);
    while (end - at >= 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)at);
        __m128i special = _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(v, quote), _mm_cmpeq_epi8(v, slash)),
                                       _mm_cmpeq_epi8(_mm_min_epu8(v, control), v));
        unsigned mask = (unsigned)_mm_movemask_epi8(special), good = mask ? (unsigned)__builtin_ctz(mask) : 16;
        _mm_storeu_si128((__m128i *)(void *)out, v);
        at += good;
        out += good;
        if (mask)
            out = put_escape(out, *at++);
    }
#endif
    for (; at < end; at++)
        if (*at < 0x20 || *at == '"' || *at == '\\')
            out = put_escape(out, *at);
        else
            *out++ = *at;
    return out;
}

/* ----------------------------------------------------------------------------------------------------------- values */

static const uint8_t *value_at(const struct column *c, uint32_t row)
{
    return (const uint8_t *)c->values + (row & column_mask(c)) * form_size(c->form);
}

/* What stands between quotes, but for strings. */
static uint8_t *put_quoted(struct encoder *e, const struct encoder_column *own, const uint8_t *value, uint8_t *out)
{
    struct slice bytes;
    int64_t v;
    memcpy(&v, value, sizeof v);
    switch (own->kind) {
    case TYPE_DATE: return put_date(out, v);
    case TYPE_TIME: return put_clock(out, v / US_PER_S, v % US_PER_S);
    case TYPE_TIMESTAMP:
    case TYPE_TIMESTAMPTZ: return put_timestamp(e, out, v);
    case TYPE_INTERVAL: return out + interval_print((const struct interval *)(const void *)value, (char *)out);
    default:
        memcpy(&bytes, value, sizeof bytes);
        base64_encode(bytes, (char *)out);
        return out + BASE64_LEN(bytes.len);
    }
}

static uint8_t *put_value(struct encoder *e, const struct encoder_column *own, const struct column *c, uint32_t row,
                          uint8_t *out)
{
    if (column_null(c, row))
        return put(out, "null", 4);
    const uint8_t *value = value_at(c, row);
    const struct slice *text = (const void *)value;
    switch (own->kind) {
    case TYPE_BOOL: return *value ? put(out, "true", 4) : put(out, "false", 5);
    case TYPE_SMALLINT:
    case TYPE_INT:
    case TYPE_BIGINT: return put_int(out, *(const int64_t *)(const void *)value);
    case TYPE_DECIMAL: return put_decimal(out, *(const decimal_t *)(const void *)value, own->scale);
    case TYPE_REAL:
    case TYPE_DOUBLE: return put_double(out, *(const double *)(const void *)value, own->kind == TYPE_REAL);
    case TYPE_JSON:
    case TYPE_ARRAY:
    case TYPE_MAP:
    case TYPE_ROW: return put(out, (const char *)text->ptr, text->len);
    case TYPE_BYTES:
    case TYPE_DATE:
    case TYPE_TIME:
    case TYPE_TIMESTAMP:
    case TYPE_TIMESTAMPTZ:
    case TYPE_INTERVAL:
        *out++ = '"';
        out = put_quoted(e, own, value, out);
        *out++ = '"';
        return out;
    default:
        *out++ = '"';
        out = encode_escaped(out, *text);
        *out++ = '"';
        return out;
    }
}

size_t encoder_row(struct encoder *e, const struct column *columns, uint32_t row, char sign, uint8_t *out)
{
    uint8_t *at = out;
    *at++ = '{';
    if (sign) {
        at = put(at, "\"_op\":\"+\",", 10);
        at[-3] = (uint8_t)sign;
    }
    for (uint32_t i = 0; i < e->count; i++) {
        const struct encoder_column *own = &e->columns[i];
        at = put(at, (const char *)e->names + own->at, own->len);
        at = put_value(e, own, &columns[i], row, at);
        *at++ = ',';
    }
    at[-1] = '}';
    return (size_t)(at - out);
}

size_t encoder_some(struct encoder *e, const uint32_t *which, uint32_t count, const struct column *columns,
                    uint32_t row, uint8_t *out)
{
    uint8_t *at = out;
    *at++ = '{';
    for (uint32_t i = 0; i < count; i++) {
        const struct encoder_column *own = &e->columns[which[i]];
        at = put(at, (const char *)e->names + own->at, own->len);
        at = put_value(e, own, &columns[which[i]], row, at);
        *at++ = ',';
    }
    at[-1] = '}';
    return (size_t)(at - out);
}

struct slice encoder_text(struct encoder *e, uint32_t which, const struct column *columns, uint32_t row, uint8_t *room)
{
    const struct column *c = &columns[which];
    if (c->form == FORM_TEXT)
        return *(const struct slice *)(const void *)value_at(c, row);
    uint8_t *end = put_value(e, &e->columns[which], c, row, room);
    bool quoted = *room == '"';
    return slice_of(room + quoted, (size_t)(end - room) - 2u * quoted);
}

size_t encoder_room(const struct encoder *e, const struct column *columns, uint32_t row)
{
    size_t room = e->fixed;
    for (uint32_t i = 0; i < e->count; i++)
        if (columns[i].form == FORM_TEXT && !column_null(&columns[i], row))
            room += 6 * ((const struct slice *)(const void *)value_at(&columns[i], row))->len;
    return room;
}

/* ------------------------------------------------------------------------------------------------------- life cycle */

struct encoder *encoder_new(const struct plan_column *columns, uint32_t count)
{
    struct encoder *e = mem_zalloc(sizeof *e + count * sizeof e->columns[0]);
    size_t names = 0;
    for (uint32_t i = 0; i < count; i++)
        names += 6 * columns[i].name.len + ENCODE_SPARE;
    if (e)
        e->names = mem_alloc(names + ENCODE_SPARE);
    if (!e || !e->names) {
        encoder_free(&e);
        return NULL;
    }
    CHECK(count > 0);
    e->count = count;
    e->second = INT64_MIN;
    e->fixed = ENCODE_SPARE;
    uint8_t *at = e->names;
    for (uint32_t i = 0; i < count; i++) {
        struct encoder_column *own = &e->columns[i];
        *own = (struct encoder_column){
            .kind = columns[i].type.kind, .scale = columns[i].type.scale, .at = (uint32_t)(at - e->names)};
        *at++ = '"';
        at = encode_escaped(at, columns[i].name);
        at = put(at, "\":", 2);
        own->len = (uint32_t)(at - e->names) - own->at;
        e->fixed += own->len + VALUE_MAX + ENCODE_SPARE;
    }
    return e;
}

void encoder_free(struct encoder **encoder)
{
    if (*encoder)
        mem_free((*encoder)->names);
    mem_free(*encoder);
    *encoder = NULL;
}
