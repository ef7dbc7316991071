/* Records to columns, see scan.h. What JSON has no form for comes as text: '2026-01-01', "12.50", bytes as base64; a timestamp may be a number,
 * milliseconds since 1970. A number in quotes is a number, as many producers write large ones so; a field of CSV is such a text. */
#include "sql/query/scan.h"

#include "base/check.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "fmt/base64.h"
#include "sql/language/datetime.h"
#include "sql/language/decimal.h"
#include "sql/language/kernel.h"

#include <math.h>

struct slot {
    struct sql_type type;
    uint32_t view;
    bool not_null;
};

struct scan {
    struct scan_rule rule;
    struct json_scan *json;  /* of JSON */
    struct json_view *views; /* of one record; of CSV: by position */
    uint32_t view_count;
    struct slot *slots;
    uint32_t count;
    uint8_t **apart; /* while faults are by column */
};

static bool want(struct scan *scan, const struct scan_column *column, struct slot *slot)
{
    int view = scan->json ? json_scan_want(scan->json, column->path, column->steps) : (int)column->path[0].index;
    if (view < 0)
        return false;
    *slot = (struct slot){.type = column->type, .view = (uint32_t)view, .not_null = column->not_null};
    scan->view_count = slot->view + 1 > scan->view_count ? slot->view + 1 : scan->view_count;
    return true;
}

struct scan *scan_new_of(const struct scan_rule *rule, const struct scan_column *columns, uint32_t count)
{
    struct scan *scan = mem_zalloc(sizeof *scan);
    if (!scan)
        return NULL;
    scan->rule = *rule;
    scan->json = rule->format == SCAN_JSON ? json_scan_new() : NULL;
    scan->slots = mem_zalloc((count ? count : 1) * sizeof *scan->slots);
    bool ok = (scan->json || rule->format != SCAN_JSON) && scan->slots;
    for (uint32_t i = 0; ok && i < count; i++)
        ok = want(scan, &columns[i], &scan->slots[i]);
    scan->count = count;
    if (ok)
        scan->views = mem_zalloc((scan->view_count + 1) * sizeof *scan->views);
    if (!scan->views)
        scan_free(&scan);
    return scan;
}

struct scan *scan_new(const struct scan_column *columns, uint32_t count)
{
    return scan_new_of(&(struct scan_rule){.format = SCAN_JSON}, columns, count);
}

void scan_free(struct scan **scan)
{
    if (*scan) {
        json_scan_free(&(*scan)->json);
        mem_free((*scan)->views);
        mem_free((*scan)->slots);
    }
    mem_free(*scan);
    *scan = NULL;
}

/* The text of a value: a string's, without its quotes, or as it stands. */
static struct slice plain(struct eval *e, const struct json_view *v)
{
    if (v->kind != JSON_VIEW_STRING || !v->escaped)
        return slice_of(v->at, v->len);
    uint8_t *out = eval_take(e, v->len);
    return slice_of(out, out ? json_view_text(v, out) : 0);
}

static bool in_range(enum sql_type_kind kind, int64_t v)
{
    return kind == TYPE_BIGINT ||
           (kind == TYPE_INT ? v >= INT32_MIN && v <= INT32_MAX : v >= INT16_MIN && v <= INT16_MAX);
}

static enum sql_fault set_int(struct eval *e, enum sql_type_kind kind, const struct json_view *v, int64_t *ret)
{
    bool syntax = true, ok = true;
    double real;
    if (v->kind == JSON_VIEW_INT) {
        *ret = v->number;
    } else if (v->kind == JSON_VIEW_NUMBER) { /* 5.0 and 1e3 are whole numbers; 5.5 is none */
        ok = json_view_double(v, &real) && real >= -0x1p53 && real <= 0x1p53;
        syntax = !ok || real == floor(real);
        *ret = ok ? (int64_t)real : 0;
    } else {
        ok = text_to_int(plain(e, v), ret, &syntax) && v->kind == JSON_VIEW_STRING;
        syntax = syntax && v->kind == JSON_VIEW_STRING;
    }
    return !syntax ? SQL_FAULT_TEXT : ok && in_range(kind, *ret) ? SQL_FAULT_NONE : SQL_FAULT_RANGE;
}

static enum sql_fault set_double(struct eval *e, const struct json_view *v, double *ret)
{
    bool syntax = true;
    if (v->kind == JSON_VIEW_INT || v->kind == JSON_VIEW_NUMBER)
        return json_view_double(v, ret) ? SQL_FAULT_NONE : SQL_FAULT_RANGE;
    bool ok = v->kind == JSON_VIEW_STRING && text_to_double(plain(e, v), ret, &syntax);
    return ok ? SQL_FAULT_NONE : v->kind == JSON_VIEW_STRING && syntax ? SQL_FAULT_RANGE : SQL_FAULT_TEXT;
}

static enum sql_fault set_decimal(struct eval *e, const struct sql_type *type, const struct json_view *v,
                                  decimal_t *ret)
{
    bool syntax = false,
         number = v->kind == JSON_VIEW_INT || v->kind == JSON_VIEW_NUMBER || v->kind == JSON_VIEW_STRING;
    bool ok = number && decimal_parse(plain(e, v), type->scale, ret, &syntax);
    return !syntax ? SQL_FAULT_TEXT : ok && decimal_fits(*ret, type->digits) ? SQL_FAULT_NONE : SQL_FAULT_RANGE;
}

static enum sql_fault set_time(struct eval *e, enum sql_type_kind kind, const struct json_view *v, int64_t *ret)
{
    bool stamp = kind == TYPE_TIMESTAMP || kind == TYPE_TIMESTAMPTZ, ok;
    if (stamp && v->kind == JSON_VIEW_INT) {
        ok = !__builtin_mul_overflow(v->number, (int64_t)1000, ret) && timestamp_valid(*ret);
    } else {
        struct slice text = plain(e, v);
        ok = v->kind == JSON_VIEW_STRING && (stamp               ? timestamp_parse(text, kind == TYPE_TIMESTAMPTZ, ret)
                                             : kind == TYPE_DATE ? date_parse(text, ret)
                                                                 : time_parse(text, ret));
    }
    return ok ? SQL_FAULT_NONE : SQL_FAULT_TIME;
}

static enum sql_fault set_bool(struct eval *e, const struct json_view *v, uint8_t *ret)
{
    bool is = v->kind == JSON_VIEW_TRUE,
         ok = is || v->kind == JSON_VIEW_FALSE || (v->kind == JSON_VIEW_STRING && text_to_bool(plain(e, v), &is));
    *ret = is;
    return ok ? SQL_FAULT_NONE : SQL_FAULT_TEXT;
}

static enum sql_fault set_bytes(struct eval *e, const struct json_view *v, struct slice *ret)
{
    struct slice text = plain(e, v);
    uint8_t *out = eval_take(e, text.len / 4 * 3 + 3);
    int64_t len = out ? base64_decode(text, out, text.len / 4 * 3 + 3) : 0;
    *ret = slice_of(out, len > 0 ? (size_t)len : 0);
    return len >= 0 && v->kind == JSON_VIEW_STRING ? SQL_FAULT_NONE : SQL_FAULT_TEXT;
}

/* The value of one column of one row, which is not NULL. */
static enum sql_fault set_value(struct eval *e, const struct sql_type *type, const struct json_view *v,
                                struct column *c, uint32_t row)
{
    struct interval interval;
    switch (type->kind) {
    case TYPE_BOOL: return set_bool(e, v, (uint8_t *)c->values + row);
    case TYPE_SMALLINT:
    case TYPE_INT:
    case TYPE_BIGINT: return set_int(e, type->kind, v, (int64_t *)c->values + row);
    case TYPE_DECIMAL: return set_decimal(e, type, v, (decimal_t *)c->values + row);
    case TYPE_REAL:
    case TYPE_DOUBLE: return set_double(e, v, (double *)c->values + row);
    case TYPE_DATE:
    case TYPE_TIME:
    case TYPE_TIMESTAMP:
    case TYPE_TIMESTAMPTZ: return set_time(e, type->kind, v, (int64_t *)c->values + row);
    case TYPE_INTERVAL:
        if (v->kind != JSON_VIEW_STRING || !interval_parse(plain(e, v), UNIT_NONE, UNIT_NONE, &interval))
            return SQL_FAULT_TIME;
        ((struct interval *)c->values)[row] = interval;
        return SQL_FAULT_NONE;
    case TYPE_JSON:
    case TYPE_ARRAY:
    case TYPE_MAP:
    case TYPE_ROW:
        ((struct slice *)c->values)[row] =
            v->kind == JSON_VIEW_STRING ? slice_of(v->at - 1, v->len + 2u) : slice_of(v->at, v->len);
        return SQL_FAULT_NONE;
    case TYPE_BYTES: return set_bytes(e, v, (struct slice *)c->values + row);
    default: ((struct slice *)c->values)[row] = plain(e, v); return SQL_FAULT_NONE;
    }
}

/* The same of a text that is not in JSON. */
static enum sql_fault set_text(struct eval *e, const struct sql_type *type, const struct json_view *v, struct column *c,
                               uint32_t row)
{
    struct slice text = slice_of(v->at, v->len);
    struct json_view view = *v;
    struct json_fault fault;
    bool syntax;
    if (type->kind == TYPE_BYTES) {
        ((struct slice *)c->values)[row] = text;
        return SQL_FAULT_NONE;
    }
    if (!utf8_valid(text))
        return SQL_FAULT_TEXT;
    if (type_is_json(type->kind)) {
        ((struct slice *)c->values)[row] = text;
        return json_view_of(text, &view, &fault) ? SQL_FAULT_NONE : SQL_FAULT_JSON;
    }
    bool stamp = type->kind == TYPE_TIMESTAMP || type->kind == TYPE_TIMESTAMPTZ;
    if (stamp && text_to_int(text, &view.number, &syntax))
        view.kind = JSON_VIEW_INT;
    return set_value(e, type, &view, c, row);
}

/* ------------------------------------------------------------------------------------------------------------- CSV */

/* A field in quotes, behind the first of them; steps behind the last. Two quotes are one. */
static bool quoted_field(struct eval *e, const uint8_t **at, const uint8_t *end, struct json_view *ret)
{
    const uint8_t *begin = *at, *p = begin;
    size_t doubled = 0;
    for (; p < end && (*p != '"' || (end - p > 1 && p[1] == '"')); p++)
        if (*p == '"') {
            p++;
            doubled++;
        }
    *ret = (struct json_view){.at = begin, .len = (uint32_t)(p - begin), .kind = JSON_VIEW_STRING};
    if (p == end)
        return false;
    *at = p + 1;
    uint8_t *out = doubled ? eval_take(e, ret->len) : NULL;
    if (!out)
        return true;
    ret->at = out;
    for (const uint8_t *from = begin; from < p; from++) {
        *out++ = *from;
        from += *from == '"';
    }
    ret->len -= (uint32_t)doubled;
    return true;
}

/* Fields up to the last one that is wanted. */
static bool csv_read(struct scan *scan, struct eval *e, struct slice record)
{
    const uint8_t *at = record.ptr, *end = record.len ? at + record.len : at;
    end -= end > at && end[-1] == '\n';
    end -= end > at && end[-1] == '\r';
    bool more = true;
    for (uint32_t i = 0; i < scan->view_count; i++) {
        struct json_view *v = &scan->views[i];
        *v = (struct json_view){.kind = JSON_VIEW_ABSENT};
        if (!more)
            continue;
        if (at < end && *at == '"') {
            at++;
            if (!quoted_field(e, &at, end, v))
                return false;
        } else {
            const uint8_t *stop = at < end ? memchr(at, scan->rule.delimiter, (size_t)(end - at)) : NULL;
            stop = stop ? stop : end;
            *v = (struct json_view){
                .at = at, .len = (uint32_t)(stop - at), .kind = stop > at ? JSON_VIEW_STRING : JSON_VIEW_NULL};
            at = stop;
        }
        more = at < end;
        if (more && *at++ != (uint8_t)scan->rule.delimiter)
            return false;
    }
    return true;
}

/* ---------------------------------------------------------------------------------------------------------- batches */

static void mark(const struct scan *scan, struct eval *e, uint32_t column, uint32_t row, enum sql_fault fault)
{
    if (!scan->apart) {
        eval_fault(e, row, fault);
        return;
    }
    uint8_t **faults = &scan->apart[column];
    if (!*faults) {
        *faults = eval_take(e, e->rows);
        if (!*faults)
            return;
        memset(*faults, 0, e->rows);
    }
    (*faults)[row] = (uint8_t)fault;
}

static void set_row(struct scan *scan, struct eval *e, struct column *columns, uint32_t row)
{
    for (uint32_t i = 0; i < scan->count; i++) {
        const struct slot *slot = &scan->slots[i];
        const struct json_view *v = &scan->views[slot->view];
        enum sql_fault fault = SQL_FAULT_NONE;
        bool null = v->kind == JSON_VIEW_ABSENT || v->kind == JSON_VIEW_NULL;
        if (null)
            fault = slot->not_null ? SQL_FAULT_NOT_NULL : SQL_FAULT_NONE;
        else
            fault = (scan->json ? set_value : set_text)(e, &slot->type, v, &columns[i], row);
        if (null || fault != SQL_FAULT_NONE)
            eval_null(e, &columns[i], row);
        if (fault != SQL_FAULT_NONE)
            mark(scan, e, i, row, fault);
    }
}

static enum sql_fault read_record(struct scan *scan, struct eval *e, struct slice record)
{
    struct json_fault fault;
    if (scan->json)
        return json_scan_read(scan->json, record, scan->views, &fault) ? SQL_FAULT_NONE : SQL_FAULT_JSON;
    if (record.len > UINT32_MAX)
        return SQL_FAULT_LIMIT;
    if (scan->rule.format == SCAN_CSV)
        return csv_read(scan, e, record) ? SQL_FAULT_NONE : SQL_FAULT_TEXT;
    scan->views[0] = (struct json_view){.at = record.ptr, .len = (uint32_t)record.len, .kind = JSON_VIEW_STRING};
    return SQL_FAULT_NONE;
}

bool scan_batch(struct scan *scan, const struct slice *records, uint32_t rows, struct arena *arena, struct eval *ret)
{
    CHECK(rows <= BATCH_ROWS_MAX);
    *ret = eval_begin(arena, NULL, scan->count, rows);
    struct column *columns = eval_take(ret, (scan->count ? scan->count : 1) * sizeof *columns);
    for (uint32_t i = 0; columns && i < scan->count; i++) {
        enum sql_form form = type_form(scan->slots[i].type.kind);
        columns[i] = (struct column){.form = form, .values = eval_take(ret, (rows ? rows : 1) * form_size(form))};
    }
    ret->columns = columns;
    for (uint32_t row = 0; row < rows && !ret->no_memory; row++) {
        enum sql_fault fault = read_record(scan, ret, records[row]);
        if (fault == SQL_FAULT_NONE) {
            set_row(scan, ret, columns, row);
            continue;
        }
        eval_fault(ret, row, fault);
        for (uint32_t i = 0; i < scan->count; i++)
            eval_null(ret, &columns[i], row);
    }
    return !ret->no_memory;
}

bool scan_apart(struct scan *scan, const struct slice *records, uint32_t rows, struct arena *arena,
                struct scan_columns *ret)
{
    struct eval e;
    CHECK(scan->json && rows);
    uint8_t **faults = arena_take(arena, (scan->count + 1) * sizeof *faults);
    if (!faults)
        return false;
    memset(faults, 0, (scan->count + 1) * sizeof *faults);
    scan->apart = faults;
    bool ok = scan_batch(scan, records, rows, arena, &e);
    scan->apart = NULL;
    *ret = (struct scan_columns){.columns = e.columns,
                                 .count = scan->count,
                                 .rows = rows,
                                 .bad = e.fault_count ? e.faults : NULL,
                                 .faults = (const uint8_t *const *)faults};
    return ok;
}

static void pick_faults(struct eval *e, const uint8_t *faults)
{
    for (uint32_t row = 0; faults && row < e->rows; row++)
        if (faults[row] != SQL_FAULT_NONE)
            eval_fault(e, row, (enum sql_fault)faults[row]);
}

bool scan_pick(const struct scan_columns *from, const uint16_t *picks, uint32_t count, struct arena *arena,
               struct eval *ret)
{
    *ret = eval_begin(arena, NULL, count, from->rows);
    struct column *columns = eval_take(ret, (count ? count : 1) * sizeof *columns);
    ret->columns = columns;
    pick_faults(ret, from->bad);
    for (uint32_t i = 0; columns && i < count; i++) { /* in this order: a row's fault is the first one */
        columns[i] = from->columns[picks[i]];
        pick_faults(ret, from->faults[picks[i]]);
    }
    return !ret->no_memory;
}
