/* JSON: parts of it as views of the same text. Texts of type JSON have been checked when they became one. */
#include "fmt/json_scan.h"
#include "sql/language/kernel.h"

#include <stdio.h>

typedef struct slice text_t;

static bool view_of(text_t json, struct json_view *ret)
{
    struct json_fault fault;
    return json_view_of(json, ret, &fault);
}

/* As it stands in the text: a string with its quotes. */
static text_t json_text(const struct json_view *v)
{
    return v->kind == JSON_VIEW_STRING ? slice_of(v->at - 1, v->len + 2u) : slice_of(v->at, v->len);
}

/* What ->> answers: a string's text, anything else as it is; false: NULL. */
static bool plain_text(struct eval *e, const struct json_view *v, text_t *ret)
{
    if (v->kind == JSON_VIEW_NULL || v->kind == JSON_VIEW_ABSENT)
        return false;
    if (v->kind != JSON_VIEW_STRING || !v->escaped) {
        *ret = slice_of(v->at, v->len);
        return true;
    }
    uint8_t *out = eval_take(e, v->len);
    if (out)
        *ret = slice_of(out, json_view_text(v, out));
    return out;
}

typedef bool step_fn(const struct column *step, uint32_t i, const struct json_view *from, struct json_view *ret);

static bool step_name(const struct column *step, uint32_t i, const struct json_view *from, struct json_view *ret)
{
    return json_view_member(from, ((const text_t *)step->values)[i & column_mask(step)], ret);
}

static bool step_index(const struct column *step, uint32_t i, const struct json_view *from, struct json_view *ret)
{
    return json_view_element(from, ((const int64_t *)step->values)[i & column_mask(step)], ret);
}

/* SQL's arrays begin with 1. */
static bool step_subscript(const struct column *step, uint32_t i, const struct json_view *from, struct json_view *ret)
{
    int64_t n = ((const int64_t *)step->values)[i & column_mask(step)];
    return n > 0 && json_view_element(from, n - 1, ret);
}

/* {a,0,"b"}: PostgreSQL's array of texts; a number is a position where there is an array. */
static bool step_path(const struct column *step, uint32_t i, const struct json_view *from, struct json_view *ret)
{
    text_t path = ((const text_t *)step->values)[i & column_mask(step)];
    struct json_view at = *from;
    if (path.len < 2 || path.ptr[0] != '{' || path.ptr[path.len - 1] != '}')
        return false;
    const uint8_t *p = path.ptr + 1, *end = path.ptr + path.len - 1;
    while (p < end) {
        bool quoted = *p == '"';
        const uint8_t *stop = memchr(p + quoted, quoted ? '"' : ',', (size_t)(end - p - quoted));
        text_t name = slice_of(p + quoted, (size_t)((stop ? stop : end) - p - quoted));
        bool number = at.kind == JSON_VIEW_ARRAY;
        int64_t index;
        bool syntax;
        if (number ? !text_to_int(name, &index, &syntax) || !json_view_element(&at, index, &at)
                   : !json_view_member(&at, name, &at))
            return false;
        p = stop ? stop + 1 + quoted : end;
        p += quoted && p < end && p[-1] != ',';
    }
    *ret = at;
    return true;
}

static void get_rows(struct eval *e, const struct column *const *args, struct column *ret, struct sel sel,
                     step_fn *step, bool plain)
{
    ARG(0, text_t);
    text_t *r = ret->values;
    EACH_ROW(i)
    {
        struct json_view whole, found;
        bool is = view_of(v0[i & m0], &whole) && step(args[1], i, &whole, &found);
        if (is && plain)
            is = plain_text(e, &found, &r[i]);
        else if (is)
            r[i] = json_text(&found);
        if (!is)
            eval_null(e, ret, i);
    }
}

#define GET(name, step, plain)                                                                                         \
    KERNEL(name)                                                                                                       \
    {                                                                                                                  \
        (void)x;                                                                                                       \
        get_rows(e, args, ret, sel, step, plain);                                                                      \
    }

GET(json_get, step_name, false)
GET(json_get_text, step_name, true)
GET(json_at, step_index, false)
GET(json_at_text, step_index, true)
GET(json_path, step_path, false)
GET(json_path_text, step_path, true)
GET(json_subscript, step_subscript, false)

/* $.a.b[0]['c']: the simple part of SQL's paths. False: it is none. */
static bool sql_path(text_t path, const struct json_view *from, struct json_view *ret, bool *ret_syntax)
{
    const uint8_t *p = path.ptr, *end = p + path.len;
    struct json_view at = *from;
    bool found = true;
    *ret_syntax = path.len && *p++ == '$';
    while (*ret_syntax && p < end) {
        bool bracket = *p == '[';
        bool quoted = bracket && end - p > 1 && (p[1] == '\'' || p[1] == '"');
        if (!bracket && *p != '.')
            return *ret_syntax = false;
        const uint8_t *name = p + 1 + quoted, *stop = name;
        while (stop < end && (quoted ? *stop != name[-1] : bracket ? *stop != ']' : *stop != '.' && *stop != '['))
            stop++;
        text_t step = slice_of(name, (size_t)(stop - name));
        int64_t index = 0;
        if (!step.len || (bracket && (end - stop < 1 + quoted || stop[quoted] != ']')) ||
            (bracket && !quoted && !text_to_int(step, &index, ret_syntax)))
            return *ret_syntax = false;
        found = found && (bracket && !quoted ? json_view_element(&at, index, &at) : json_view_member(&at, step, &at));
        p = stop + (bracket ? 1 + quoted : 0);
    }
    *ret = at;
    return *ret_syntax && found;
}

KERNEL(json_value)
{
    ARG(0, text_t);
    ARG(1, text_t);
    text_t *r = ret->values;
    (void)x;
    EACH_ROW(i)
    {
        struct json_view whole, found;
        bool syntax = true, is = view_of(v0[i & m0], &whole) && sql_path(v1[i & m1], &whole, &found, &syntax);
        if (!syntax)
            eval_fault(e, i, SQL_FAULT_ARGUMENT);
        bool scalar = is && found.kind != JSON_VIEW_OBJECT && found.kind != JSON_VIEW_ARRAY;
        if (!scalar || !plain_text(e, &found, &r[i]))
            eval_null(e, ret, i);
    }
}

KERNEL(json_exists)
{
    ARG(0, text_t);
    ARG(1, text_t);
    uint8_t *r = ret->values;
    (void)x;
    EACH_ROW(i)
    {
        struct json_view whole, found;
        bool syntax = true;
        r[i] = view_of(v0[i & m0], &whole) && sql_path(v1[i & m1], &whole, &found, &syntax);
        if (!syntax)
            eval_fault(e, i, SQL_FAULT_ARGUMENT);
    }
}

/* A member of that name, or an element that is that text. */
static bool has(text_t json, text_t what)
{
    struct json_view whole, name, value;
    if (!view_of(json, &whole))
        return false;
    if (whole.kind == JSON_VIEW_OBJECT)
        return json_view_member(&whole, what, &value);
    struct json_items items = json_items_of(&whole);
    while (json_items_next(&items, &name, &value))
        if (value.kind == JSON_VIEW_STRING && json_view_is(&value, what))
            return true;
    return whole.kind == JSON_VIEW_STRING && json_view_is(&whole, what);
}

KERNEL_2(json_has, text_t, text_t, uint8_t, has(a, b))

static text_t type_name(text_t json)
{
    static const char *const names[] = {"null",   "null",   "boolean", "boolean", "number",
                                        "number", "string", "array",   "object"};
    struct json_view v = {0};
    (void)view_of(json, &v);
    return slice_str(names[v.kind]);
}

KERNEL_1(json_typeof, text_t, text_t, type_name(a))

static int64_t items_of(struct eval *e, uint32_t i, text_t json)
{
    struct json_view v = {0}, name, value;
    int64_t count = 0;
    if (!view_of(json, &v) || v.kind != JSON_VIEW_ARRAY)
        eval_fault(e, i, SQL_FAULT_ARGUMENT);
    struct json_items items = json_items_of(&v);
    while (json_items_next(&items, &name, &value))
        count++;
    return count;
}

static bool is_json(text_t text)
{
    struct json_view v;
    return view_of(text, &v);
}

KERNEL_1(json_length, text_t, int64_t, items_of(e, i, a))
KERNEL_1(json_valid, text_t, uint8_t, is_json(a))
