/* Bytes in the order of values, see sort_key.h. A value: a byte that says whether it is NULL; integers and decimals with the sign turned, the
 * highest byte first; doubles likewise, negative ones with all bits turned, -0.0 as 0.0 and NaN above all; texts with 0x00 as 0x00 0xff, and 0x00
 * 0x00 at the end, so that one that another begins with is before it. What is descending has all bits of its value turned. */
#include "sql/query/sort_key.h"

#include "sql/language/datetime.h"

static void put_high_first(uint8_t *out, unsigned __int128 v, unsigned len)
{
    for (unsigned i = 0; i < len; i++)
        out[i] = (uint8_t)(v >> 8 * (len - 1 - i));
}

void sort_put_i64(uint8_t *out, int64_t v)
{
    uint64_t turned = __builtin_bswap64((uint64_t)v ^ (uint64_t)1 << 63);
    memcpy(out, &turned, sizeof turned);
}

static void put_decimal(uint8_t *out, decimal_t v)
{
    put_high_first(out, (unsigned __int128)v ^ (unsigned __int128)1 << 127, sizeof v);
}

static void put_double(uint8_t *out, double d)
{
    uint64_t bits;
    d = d == 0 ? 0 : d != d ? __builtin_nan("") : d;
    memcpy(&bits, &d, sizeof bits);
    put_high_first(out, bits >> 63 ? ~bits : bits | (uint64_t)1 << 63, sizeof bits);
}

static size_t put_text(uint8_t *out, struct slice text)
{
    size_t len = 0;
    for (size_t i = 0; i < text.len; i++) {
        out[len++] = text.ptr[i];
        if (text.ptr[i] == 0)
            out[len++] = 0xff;
    }
    memset(out + len, 0, 2);
    return len + 2;
}

static size_t size_most(const struct column *c, uint32_t row)
{
    if (c->form == FORM_TEXT && !column_null(c, row))
        return 3 + 2 * ((const struct slice *)c->values)[row & column_mask(c)].len;
    return 1 + sizeof(decimal_t);
}

static uint8_t *put_value(uint8_t *out, const struct column *c, const struct sort_item *item, uint32_t row)
{
    bool null = column_null(c, row);
    uint32_t at = row & column_mask(c);
    size_t len = 0;
    struct interval interval;
    *out++ = null == item->nulls_first ? 0 : 1;
    if (null)
        return out;
    switch (c->form) {
    case FORM_BOOL:
        out[0] = ((const uint8_t *)c->values)[at];
        len = 1;
        break;
    case FORM_I64:
        sort_put_i64(out, ((const int64_t *)c->values)[at]);
        len = sizeof(int64_t);
        break;
    case FORM_F64:
        put_double(out, ((const double *)c->values)[at]);
        len = sizeof(double);
        break;
    case FORM_I128:
        put_decimal(out, ((const decimal_t *)c->values)[at]);
        len = sizeof(decimal_t);
        break;
    case FORM_INTERVAL:
        interval = ((const struct interval *)c->values)[at];
        put_decimal(out, interval_order(&interval));
        len = sizeof(decimal_t);
        break;
    default: len = put_text(out, ((const struct slice *)c->values)[at]);
    }
    for (size_t i = 0; item->descending && i < len; i++)
        out[i] = (uint8_t)~out[i];
    return out + len;
}

bool sort_key(struct arena *arena, const struct column *columns, const struct sort_item *items, uint32_t count,
              uint32_t row, uint64_t number, bool newest_first, struct slice *ret, enum sql_fault *ret_fault)
{
    size_t most = SORT_NUMBER_LEN;
    for (uint32_t i = 0; i < count; i++)
        most += size_most(&columns[i], row);
    uint8_t *begin = most <= SORT_KEY_MAX ? arena_take(arena, most) : NULL, *end = begin;
    *ret_fault = most > SORT_KEY_MAX ? SQL_FAULT_LIMIT : SQL_FAULT_MEMORY;
    if (!begin)
        return false;
    for (uint32_t i = 0; i < count; i++)
        end = put_value(end, &columns[i], &items[i], row);
    put_high_first(end, newest_first ? ~number : number, SORT_NUMBER_LEN);
    *ret = slice_of(begin, (size_t)(end - begin) + SORT_NUMBER_LEN);
    return true;
}
