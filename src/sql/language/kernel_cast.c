/* Casts: a value of one type as one of another. What cannot be is a fault of the row, or NULL with TRY_CAST. */
#include "fmt/json_scan.h"
#include "sql/language/datetime.h"
#include "sql/language/decimal.h"
#include "sql/language/kernel.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct slice text_t;

static void cannot(struct eval *e, const struct expr *x, struct column *ret, uint32_t i, enum sql_fault fault)
{
    if (x->soft)
        eval_null(e, ret, i);
    else
        eval_fault(e, i, fault);
}

static text_t trimmed(text_t t)
{
    while (t.len && (*t.ptr == ' ' || (*t.ptr >= '\t' && *t.ptr <= '\r')))
        t = slice_of(t.ptr + 1, t.len - 1);
    while (t.len && (t.ptr[t.len - 1] == ' ' || (t.ptr[t.len - 1] >= '\t' && t.ptr[t.len - 1] <= '\r')))
        t.len--;
    return t;
}

bool text_to_int(struct slice text, int64_t *ret, bool *ret_syntax)
{
    text_t t = trimmed(text);
    bool minus = t.len && *t.ptr == '-', fits = true;
    size_t at = t.len && (*t.ptr == '-' || *t.ptr == '+');
    uint64_t n = 0, most = (uint64_t)INT64_MAX + minus;
    *ret_syntax = at < t.len;
    for (; at < t.len; at++) {
        unsigned digit = (unsigned)(t.ptr[at] - '0');
        if (digit > 9) {
            *ret_syntax = false;
            return false;
        }
        fits = fits && (n < most / 10 || (n == most / 10 && digit <= most % 10));
        n = n * 10 + digit;
    }
    *ret = (int64_t)(minus ? 0 - n : n);
    return *ret_syntax && fits;
}

bool text_to_double(struct slice text, double *ret, bool *ret_syntax)
{
    char copy[512], *end;
    text_t t = trimmed(text);
    *ret_syntax = false;
    if (!t.len || t.len >= sizeof copy)
        return false;
    for (size_t i = 0; i < t.len; i++) /* no hexadecimal numbers, no inf, no nan */
        if (!((t.ptr[i] >= '0' && t.ptr[i] <= '9') || memchr("+-.eE", t.ptr[i], 5)))
            return false;
    memcpy(copy, t.ptr, t.len);
    copy[t.len] = 0;
    *ret = strtod(copy, &end);
    *ret_syntax = end == copy + t.len;
    return *ret_syntax && isfinite(*ret);
}

bool text_to_bool(struct slice text, bool *ret)
{
    static const char *const words[] = {"true", "t", "yes", "y", "on", "1", "false", "f", "no", "n", "off", "0"};
    text_t t = trimmed(text);
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (name_equal(t, slice_str(words[i]))) {
            *ret = i < ARRAY_LEN(words) / 2;
            return true;
        }
    return false;
}

/* ------------------------------------------------------------------------------------------------------ to numbers */

static bool int_fits(enum sql_type_kind kind, int64_t v)
{
    return kind == TYPE_BIGINT ||
           (kind == TYPE_INT ? v >= INT32_MIN && v <= INT32_MAX : v >= INT16_MIN && v <= INT16_MAX);
}

/* value is set and `fault` is that of what cannot be; SQL_FAULT_NONE: it can. */
#define CAST_KERNEL(name, A, R, body)                                                                                  \
    static KERNEL(name)                                                                                                \
    {                                                                                                                  \
        ARG(0, A);                                                                                                     \
        R *r = ret->values;                                                                                            \
        EACH_ROW(i)                                                                                                    \
        {                                                                                                              \
            const A a = v0[i & m0];                                                                                    \
            R value = {0};                                                                                             \
            enum sql_fault fault = SQL_FAULT_NONE;                                                                     \
            body;                                                                                                      \
            r[i] = value;                                                                                              \
            if (fault != SQL_FAULT_NONE)                                                                               \
                cannot(e, x, ret, i, fault);                                                                           \
        }                                                                                                              \
    }

#define FAULT_UNLESS(condition, kind)                                                                                  \
    if (!(condition))                                                                                                  \
    fault = SQL_FAULT_##kind

CAST_KERNEL(int_int, int64_t, int64_t, {
    value = a;
    FAULT_UNLESS(int_fits(x->type.kind, a), RANGE);
})
CAST_KERNEL(double_int, double, int64_t, {
    double near = rint(a);
    bool inside = near >= -0x1p63 && near < 0x1p63;
    value = inside ? (int64_t)near : 0;
    FAULT_UNLESS(inside && int_fits(x->type.kind, value), RANGE);
})
CAST_KERNEL(decimal_int, decimal_t, int64_t, {
    decimal_t whole = 0;
    bool inside = decimal_rescale(a, x->args[0]->type.scale, 0, &whole) && whole >= INT64_MIN && whole <= INT64_MAX;
    value = inside ? (int64_t)whole : 0;
    FAULT_UNLESS(inside && int_fits(x->type.kind, value), RANGE);
})
CAST_KERNEL(text_int, text_t, int64_t, {
    bool syntax;
    bool ok = text_to_int(a, &value, &syntax);
    FAULT_UNLESS(syntax, TEXT);
    else FAULT_UNLESS(ok && int_fits(x->type.kind, value), RANGE);
})
CAST_KERNEL(bool_int, uint8_t, int64_t, value = a)
CAST_KERNEL(int_bool, int64_t, uint8_t, value = a != 0)
CAST_KERNEL(int_double, int64_t, double, value = x->type.kind == TYPE_REAL ? (double)(float)a : (double)a)
CAST_KERNEL(decimal_double, decimal_t, double, {
    value = decimal_to_double(a, x->args[0]->type.scale);
    if (x->type.kind == TYPE_REAL)
        value = (double)(float)value;
})
CAST_KERNEL(double_double, double, double, {
    value = x->type.kind == TYPE_REAL ? (double)(float)a : a;
    FAULT_UNLESS(isfinite(value), RANGE);
})
CAST_KERNEL(text_double, text_t, double, {
    bool syntax;
    bool ok = text_to_double(a, &value, &syntax);
    if (ok && x->type.kind == TYPE_REAL)
        value = (double)(float)value;
    FAULT_UNLESS(syntax, TEXT);
    else FAULT_UNLESS(ok && isfinite(value), RANGE);
})

#define TO_DECIMAL(ok_expression) FAULT_UNLESS((ok_expression) && decimal_fits(value, x->type.digits), RANGE)
CAST_KERNEL(int_decimal, int64_t, decimal_t, TO_DECIMAL(decimal_rescale(a, 0, x->type.scale, &value)))
CAST_KERNEL(decimal_decimal, decimal_t, decimal_t,
            TO_DECIMAL(decimal_rescale(a, x->args[0]->type.scale, x->type.scale, &value)))
CAST_KERNEL(double_decimal, double, decimal_t, TO_DECIMAL(decimal_from_double(a, x->type.scale, &value)))
CAST_KERNEL(text_decimal, text_t, decimal_t, {
    bool syntax;
    bool ok = decimal_parse(a, x->type.scale, &value, &syntax);
    FAULT_UNLESS(syntax, TEXT);
    else TO_DECIMAL(ok);
})
CAST_KERNEL(text_bool, text_t, uint8_t, {
    bool is = false;
    FAULT_UNLESS(text_to_bool(a, &is), TEXT);
    value = is;
})

/* -------------------------------------------------------------------------------------------------------- to times */

static int64_t day_of(int64_t us)
{
    return us / US_PER_DAY - (us % US_PER_DAY < 0);
}

CAST_KERNEL(text_date, text_t, int64_t, FAULT_UNLESS(date_parse(a, &value), TIME))
CAST_KERNEL(text_time, text_t, int64_t, FAULT_UNLESS(time_parse(a, &value), TIME))
CAST_KERNEL(text_timestamp, text_t, int64_t,
            FAULT_UNLESS(timestamp_parse(a, x->type.kind == TYPE_TIMESTAMPTZ, &value), TIME))
CAST_KERNEL(text_interval, text_t, struct interval, FAULT_UNLESS(interval_parse(a, UNIT_NONE, UNIT_NONE, &value), TIME))
CAST_KERNEL(date_timestamp, int64_t, int64_t, value = a * US_PER_DAY)
CAST_KERNEL(timestamp_date, int64_t, int64_t, value = day_of(a))
CAST_KERNEL(timestamp_time, int64_t, int64_t, value = a - day_of(a) * US_PER_DAY)
CAST_KERNEL(time_interval, int64_t, struct interval, value = ((struct interval){.us = a}))

/* --------------------------------------------------------------------------------------------------------- to text */

static bool text_put(struct eval *e, const char *text, size_t len, struct slice *ret)
{
    uint8_t *out = eval_take(e, len);
    if (out)
        memcpy(out, text, len);
    *ret = slice_of(out, out ? len : 0);
    return out;
}

size_t double_print(double value, bool real, char *out, size_t room)
{
    for (int digits = real ? 6 : 15; digits <= 17; digits++) {
        int len = snprintf(out, room, "%.*g", digits, value);
        double back = strtod(out, NULL);
        if (digits == 17 || (real ? (float)back == (float)value : back == value))
            return (size_t)len;
    }
    return 0;
}

bool value_text(struct eval *e, const struct sql_type *type, const void *value, struct slice *ret)
{
    char text[DATETIME_TEXT_MAX];
    size_t len = 0;
    int64_t number;
    switch (type->kind) {
    case TYPE_BOOL:
        return text_put(e, *(const uint8_t *)value ? "true" : "false", *(const uint8_t *)value ? 4 : 5, ret);
    case TYPE_SMALLINT:
    case TYPE_INT:
    case TYPE_BIGINT:
        memcpy(&number, value, sizeof number);
        len = (size_t)snprintf(text, sizeof text, "%lld", (long long)number);
        break;
    case TYPE_REAL:
    case TYPE_DOUBLE: len = double_print(*(const double *)value, type->kind == TYPE_REAL, text, sizeof text); break;
    case TYPE_DECIMAL: len = decimal_print(*(const decimal_t *)value, type->scale, text); break;
    case TYPE_DATE: len = date_print(*(const int64_t *)value, text); break;
    case TYPE_TIME: len = time_print(*(const int64_t *)value, text); break;
    case TYPE_TIMESTAMP:
    case TYPE_TIMESTAMPTZ: len = timestamp_print(*(const int64_t *)value, type->kind == TYPE_TIMESTAMPTZ, text); break;
    case TYPE_INTERVAL: len = interval_print(value, text); break;
    default: *ret = *(const struct slice *)value; return true;
    }
    return text_put(e, text, len, ret);
}

bool eval_text(struct eval *e, const struct sql_type *type, const struct column *column, uint32_t row,
               struct slice *ret)
{
    const uint8_t *values = column->values;
    return value_text(e, type, values + (row & column_mask(column)) * form_size(column->form), ret);
}

static KERNEL(any_text)
{
    size_t size = form_size(args[0]->form);
    const uint8_t *values = args[0]->values;
    text_t *r = ret->values;
    EACH_ROW(i)
    {
        r[i] = (text_t){0};
        (void)value_text(e, &x->args[0]->type, values + (i & column_mask(args[0])) * size, &r[i]);
    }
}

/* --------------------------------------------------------------------------------------------------- JSON and others */

static bool is_json(text_t text)
{
    struct json_view view;
    struct json_fault fault;
    return json_view_of(text, &view, &fault);
}

static bool is_uuid(text_t t)
{
    for (size_t i = 0; i < t.len; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        uint8_t c = t.ptr[i] | 0x20;
        if (dash ? t.ptr[i] != '-' : !((t.ptr[i] >= '0' && t.ptr[i] <= '9') || (c >= 'a' && c <= 'f')))
            return false;
    }
    return t.len == 36;
}

CAST_KERNEL(text_json, text_t, text_t, {
    value = a;
    FAULT_UNLESS(is_json(a), JSON);
})
CAST_KERNEL(text_uuid, text_t, text_t, {
    uint8_t *out = eval_take(e, 36);
    bool is = out && is_uuid(trimmed(a));
    for (size_t k = 0; is && k < 36; k++)
        out[k] = trimmed(a).ptr[k] >= 'A' && trimmed(a).ptr[k] <= 'F' ? trimmed(a).ptr[k] | 0x20 : trimmed(a).ptr[k];
    value = slice_of(out, is ? 36 : 0);
    FAULT_UNLESS(is, TEXT);
})

/* A text as a JSON string. */
static text_t json_quoted(struct eval *e, text_t t)
{
    static const char digits[] = "0123456789abcdef";
    uint8_t *out = eval_take(e, t.len * 6 + 2), *p = out;
    if (!out)
        return (text_t){0};
    *p++ = '"';
    for (size_t i = 0; i < t.len; i++) {
        uint8_t c = t.ptr[i];
        if (c == '"' || c == '\\') {
            *p++ = '\\';
            *p++ = c;
        } else if (c < ' ') {
            memcpy(p, "\\u00", 4);
            p[4] = (uint8_t)digits[c >> 4];
            p[5] = (uint8_t)digits[c & 15];
            p += 6;
        } else {
            *p++ = c;
        }
    }
    *p++ = '"';
    return slice_of(out, (size_t)(p - out));
}

/* to_json of anything: numbers and booleans as they are, JSON as it is, all else as a string. */
KERNEL(to_json)
{
    const struct sql_type *type = &x->args[0]->type;
    size_t size = form_size(args[0]->form);
    const uint8_t *values = args[0]->values;
    text_t *r = ret->values;
    bool plain = type_is_number(type->kind) || type->kind == TYPE_BOOL || type_is_json(type->kind);
    EACH_ROW(i)
    {
        r[i] = (text_t){0};
        if (value_text(e, type, values + (i & column_mask(args[0])) * size, &r[i]) && !plain)
            r[i] = json_quoted(e, r[i]);
    }
}

/* A scalar of JSON as a value: (payload -> 'price')::int, and a field of a ROW. What is null is NULL. */
static text_t json_scalar(struct eval *e, const struct json_view *v)
{
    if (v->kind != JSON_VIEW_STRING || !v->escaped)
        return slice_of(v->at, v->len);
    uint8_t *out = eval_take(e, v->len);
    return slice_of(out, out ? json_view_text(v, out) : 0);
}

static KERNEL(json_text)
{
    ARG(0, text_t);
    text_t *r = ret->values;
    EACH_ROW(i)
    {
        struct json_view v;
        struct json_fault fault;
        r[i] = (text_t){0};
        if (!json_view_of(v0[i & m0], &v, &fault))
            cannot(e, x, ret, i, SQL_FAULT_JSON);
        else if (v.kind == JSON_VIEW_NULL)
            eval_null(e, ret, i);
        else
            r[i] = json_scalar(e, &v);
    }
}

/* ------------------------------------------------------------------------------------------------------- the table */

enum cast_group {
    GROUP_BOOL,
    GROUP_INT,
    GROUP_DOUBLE,
    GROUP_DECIMAL,
    GROUP_TEXT,
    GROUP_DATE,
    GROUP_TIME,
    GROUP_TIMESTAMP,
    GROUP_INTERVAL,
    GROUP_UUID,
    GROUP_JSON,
    GROUPS
};

static enum cast_group group_of(enum sql_type_kind kind)
{
    switch (kind) {
    case TYPE_BOOL: return GROUP_BOOL;
    case TYPE_SMALLINT:
    case TYPE_INT:
    case TYPE_BIGINT: return GROUP_INT;
    case TYPE_DECIMAL: return GROUP_DECIMAL;
    case TYPE_REAL:
    case TYPE_DOUBLE: return GROUP_DOUBLE;
    case TYPE_DATE: return GROUP_DATE;
    case TYPE_TIME: return GROUP_TIME;
    case TYPE_TIMESTAMP:
    case TYPE_TIMESTAMPTZ: return GROUP_TIMESTAMP;
    case TYPE_INTERVAL: return GROUP_INTERVAL;
    case TYPE_UUID: return GROUP_UUID;
    case TYPE_JSON:
    case TYPE_ARRAY:
    case TYPE_MAP:
    case TYPE_ROW: return GROUP_JSON;
    default: return GROUP_TEXT;
    }
}

kernel_fn *kernel_cast(const struct sql_type *from, const struct sql_type *to, bool *ret_ok)
{
    static kernel_fn *const kernels[GROUPS][GROUPS] = {
        [GROUP_BOOL] = {[GROUP_INT] = kernel_bool_int, [GROUP_TEXT] = kernel_any_text},
        [GROUP_INT] = {[GROUP_BOOL] = kernel_int_bool,
                       [GROUP_INT] = kernel_int_int,
                       [GROUP_DOUBLE] = kernel_int_double,
                       [GROUP_DECIMAL] = kernel_int_decimal,
                       [GROUP_TEXT] = kernel_any_text},
        [GROUP_DOUBLE] = {[GROUP_INT] = kernel_double_int,
                          [GROUP_DOUBLE] = kernel_double_double,
                          [GROUP_DECIMAL] = kernel_double_decimal,
                          [GROUP_TEXT] = kernel_any_text},
        [GROUP_DECIMAL] = {[GROUP_INT] = kernel_decimal_int,
                           [GROUP_DOUBLE] = kernel_decimal_double,
                           [GROUP_DECIMAL] = kernel_decimal_decimal,
                           [GROUP_TEXT] = kernel_any_text},
        [GROUP_TEXT] = {[GROUP_BOOL] = kernel_text_bool,
                        [GROUP_INT] = kernel_text_int,
                        [GROUP_DOUBLE] = kernel_text_double,
                        [GROUP_DECIMAL] = kernel_text_decimal,
                        [GROUP_DATE] = kernel_text_date,
                        [GROUP_TIME] = kernel_text_time,
                        [GROUP_TIMESTAMP] = kernel_text_timestamp,
                        [GROUP_INTERVAL] = kernel_text_interval,
                        [GROUP_UUID] = kernel_text_uuid,
                        [GROUP_JSON] = kernel_text_json},
        [GROUP_DATE] = {[GROUP_TIMESTAMP] = kernel_date_timestamp, [GROUP_TEXT] = kernel_any_text},
        [GROUP_TIME] = {[GROUP_TEXT] = kernel_any_text, [GROUP_INTERVAL] = kernel_time_interval},
        [GROUP_TIMESTAMP] = {[GROUP_DATE] = kernel_timestamp_date,
                             [GROUP_TIME] = kernel_timestamp_time,
                             [GROUP_TEXT] = kernel_any_text},
        [GROUP_INTERVAL] = {[GROUP_TEXT] = kernel_any_text},
        [GROUP_JSON] = {[GROUP_TEXT] = kernel_json_text},
    };
    enum cast_group a = group_of(from->kind), b = group_of(to->kind);
    bool decimals = a == GROUP_DECIMAL && b == a && (from->scale != to->scale || from->digits > to->digits);
    bool narrower = a == GROUP_INT && b == a && to->kind < from->kind;
    bool real = a == GROUP_DOUBLE && b == a && to->kind == TYPE_REAL && from->kind == TYPE_DOUBLE;
    *ret_ok = true;
    if (a == b && !decimals && !narrower && !real)
        return NULL;
    if (a == GROUP_UUID && b == GROUP_TEXT)
        return NULL;
    *ret_ok = kernels[a][b] != NULL;
    return kernels[a][b];
}
