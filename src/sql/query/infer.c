/* Columns of JSON records, see infer.h. */
#include "sql/query/infer.h"

#include "fmt/json_scan.h"
#include "sql/language/datetime.h"
#include "sql/language/error.h"

#include <string.h>

enum seen {
    SEEN_BOOL = 1,
    SEEN_INT = 2,
    SEEN_LARGE = 4, /* a whole number beyond BIGINT */
    SEEN_REAL = 8,
    SEEN_TIME = 16,
    SEEN_ZONED = 32,
    SEEN_TEXT = 64,
    SEEN_OBJECT = 128,
    SEEN_OTHER = 256, /* an array, or an object with too much in it */
};

struct infer_member {
    struct infer_member *next, *first, *last; /* first, last: what is in it */
    struct slice name;
    unsigned seen; /* enum seen, or'ed */
    uint32_t count;
};

void infer_init(struct infer *infer, struct arena *arena)
{
    *infer = (struct infer){.arena = arena, .root = arena_take(arena, sizeof *infer->root)};
    infer->failed = !infer->root;
    if (infer->root)
        *infer->root = (struct infer_member){0};
}

/* NULL: no memory, or one too many. */
static struct infer_member *member_of(struct infer *infer, struct infer_member *of, const struct json_view *name)
{
    for (struct infer_member *m = of->first; m; m = m->next)
        if (json_view_is(name, m->name))
            return m;
    if (of->count == INFER_MEMBERS_MAX)
        return NULL;
    struct infer_member *m = arena_take(infer->arena, sizeof *m);
    uint8_t *copy = m ? arena_take(infer->arena, name->len + 1) : NULL;
    infer->failed = infer->failed || !copy;
    if (!copy)
        return NULL;
    *m = (struct infer_member){.name = slice_of(copy, json_view_text(name, copy))};
    *(of->last ? &of->last->next : &of->first) = m;
    of->last = m;
    of->count++;
    return m;
}

/* 2026-01-02T03:04:05, and what may stand behind it. */
static unsigned seen_in_text(const struct json_view *v)
{
    struct slice text = slice_of(v->at, v->len);
    int64_t us;
    bool shaped = !v->escaped && text.len >= 19 && text.ptr[4] == '-' && text.ptr[13] == ':' &&
                  (text.ptr[10] == 'T' || text.ptr[10] == ' ');
    if (!shaped || !timestamp_parse(text, true, &us))
        return SEEN_TEXT;
    bool offset = memchr(text.ptr + 19, '+', text.len - 19) || memchr(text.ptr + 19, '-', text.len - 19);
    return offset ? SEEN_ZONED : SEEN_TIME;
}

static bool is_whole(const struct json_view *v)
{
    return !memchr(v->at, '.', v->len) && !memchr(v->at, 'e', v->len) && !memchr(v->at, 'E', v->len) && v->len <= 38;
}

static void look(struct infer *infer, struct infer_member *m, const struct json_view *v, unsigned depth)
{
    struct json_view name, value;
    switch ((enum json_view_kind)v->kind) {
    case JSON_VIEW_ABSENT:
    case JSON_VIEW_NULL: break;
    case JSON_VIEW_FALSE:
    case JSON_VIEW_TRUE: m->seen |= SEEN_BOOL; break;
    case JSON_VIEW_INT: m->seen |= SEEN_INT; break;
    case JSON_VIEW_NUMBER: m->seen |= is_whole(v) ? SEEN_LARGE : SEEN_REAL; break;
    case JSON_VIEW_STRING: m->seen |= seen_in_text(v); break;
    case JSON_VIEW_ARRAY: m->seen |= SEEN_OTHER; break;
    case JSON_VIEW_OBJECT:
        m->seen |= depth < INFER_DEPTH_MAX ? SEEN_OBJECT : SEEN_OTHER;
        for (struct json_items items = json_items_of(v);
             depth < INFER_DEPTH_MAX && json_items_next(&items, &name, &value);) {
            struct infer_member *in = name.len ? member_of(infer, m, &name) : NULL;
            if (in)
                look(infer, in, &value, depth + 1);
            else
                m->seen |= SEEN_OTHER; /* a column of all of it still has it */
        }
    }
}

void infer_add(struct infer *infer, struct slice record, struct slice within)
{
    struct json_view whole, data;
    struct json_fault fault;
    if (infer->failed || !json_view_of(record, &whole, &fault) || whole.kind != JSON_VIEW_OBJECT)
        return;
    data = whole;
    if (within.len && (!json_view_member(&whole, within, &data) || data.kind != JSON_VIEW_OBJECT))
        return;
    infer->records++;
    look(infer, infer->root, &data, 0);
}

/* ---- what it comes to ---- */

static bool only(unsigned seen, unsigned of)
{
    return seen && !(seen & ~of);
}

static void put_type(const struct infer_member *m, struct lines *out)
{
    unsigned seen = m->seen;
    if (only(seen, SEEN_OBJECT) && m->first) {
        lines_text(out, "ROW<");
        for (const struct infer_member *in = m->first; in; in = in->next) {
            lines_name(out, in->name);
            lines_text(out, " ");
            put_type(in, out);
            lines_text(out, in->next ? ", " : ">");
        }
        return;
    }
    lines_text(out, only(seen, SEEN_BOOL)                            ? "BOOLEAN"
                    : only(seen, SEEN_INT)                           ? "BIGINT"
                    : only(seen, SEEN_INT | SEEN_LARGE)              ? "DECIMAL(38, 0)"
                    : only(seen, SEEN_INT | SEEN_LARGE | SEEN_REAL)  ? "DOUBLE"
                    : only(seen, SEEN_TIME)                          ? "TIMESTAMP"
                    : only(seen, SEEN_TIME | SEEN_ZONED)             ? "TIMESTAMPTZ"
                    : only(seen, SEEN_TIME | SEEN_ZONED | SEEN_TEXT) ? "TEXT"
                                                                     : "JSON");
}

static bool is_declared(const struct ast_list *declared, struct slice name)
{
    for (size_t i = 0; i < declared->count; i++)
        if (declared->at[i]->kind == AST_COLUMN && name_equal(AST_AS(column, declared->at[i])->name, name))
            return true;
    return false;
}

/* Names that differ by case alone are one column. */
static bool is_repeated(const struct infer *infer, const struct infer_member *m)
{
    for (const struct infer_member *before = infer->root->first; before != m; before = before->next)
        if (name_equal(before->name, m->name))
            return true;
    return false;
}

bool infer_elements(const struct infer *infer, const struct ast_list *declared, struct lines *out)
{
    bool any = false;
    for (const struct infer_member *m = infer->failed ? NULL : infer->root->first; m; m = m->next) {
        if (is_declared(declared, m->name) || is_repeated(infer, m))
            continue;
        lines_text(out, any ? ", " : "");
        lines_name(out, m->name);
        lines_text(out, " ");
        put_type(m, out);
        any = true;
    }
    return any && !out->failed;
}
