/* Aggregates, see aggregate.h. What is counted is kept as the bytes of a key, from which the value can be had again. */
#include "sql/aggregate.h"

#include "base/check.h"
#include "base/mem.h"
#include "sql/datetime.h"
#include "sql/decimal.h"
#include "sql/kernel.h"

static const char *const names[AGG_KINDS] = {
    [AGG_COUNT_ALL] = "", [AGG_COUNT] = "count", [AGG_SUM] = "sum",           [AGG_AVG] = "avg",
    [AGG_MIN] = "min",    [AGG_MAX] = "max",     [AGG_BOOL_AND] = "bool_and", [AGG_BOOL_OR] = "bool_or"};

enum aggregate_kind aggregate_find(struct slice name)
{
    unsigned kind = AGG_COUNT;
    while (kind < AGG_KINDS && !name_equal(name, slice_str(names[kind])))
        kind++;
    return (enum aggregate_kind)kind;
}

static bool sum_type(struct aggregate *a)
{
    const struct sql_type *arg = &a->arg;
    bool real = arg->kind == TYPE_REAL || arg->kind == TYPE_DOUBLE, avg = a->kind == AGG_AVG;
    if (!type_is_number(arg->kind))
        return false;
    if (real)
        a->type = avg ? type_of(TYPE_DOUBLE) : *arg;
    else if (arg->kind == TYPE_DECIMAL)
        a->type = type_decimal(DECIMAL_DIGITS_MAX, avg && arg->scale < 6 ? 6 : arg->scale);
    else if (avg)
        a->type = type_decimal(DECIMAL_DIGITS_MAX, 6);
    else
        a->type = arg->kind == TYPE_BIGINT ? type_decimal(DECIMAL_DIGITS_MAX, 0) : type_of(TYPE_BIGINT);
    return true;
}

bool aggregate_type(struct aggregate *a, bool retracts, const char **ret_why)
{
    bool real = a->arg.kind == TYPE_REAL || a->arg.kind == TYPE_DOUBLE,
         extreme = a->kind == AGG_MIN || a->kind == AGG_MAX;
    *ret_why = "takes no argument of that type";
    if (a->distinct && (type_is_json(a->arg.kind) || a->arg.kind == TYPE_INTERVAL))
        return false;
    a->distinct &= !extreme && a->kind < AGG_BOOL_AND;
    a->counted = a->distinct || (extreme && retracts);
    switch (a->kind) {
    case AGG_COUNT_ALL:
    case AGG_COUNT: a->type = type_of(TYPE_BIGINT); return true;
    case AGG_SUM:
    case AGG_AVG:
        if (real && retracts)
            *ret_why =
                "of double precision cannot take rows back without an error in the sum; CAST the argument to NUMERIC";
        return !(real && retracts) && sum_type(a);
    case AGG_BOOL_AND:
    case AGG_BOOL_OR: a->type = type_of(TYPE_BOOL); return a->arg.kind == TYPE_BOOL;
    default:
        a->type = a->arg;
        return a->arg.kind != TYPE_BOOL && !type_is_json(a->arg.kind) && !(a->counted && a->arg.kind == TYPE_INTERVAL);
    }
}

static bool keeps_text(const struct aggregate *a)
{
    return (a->kind == AGG_MIN || a->kind == AGG_MAX) && type_form(a->type.kind) == FORM_TEXT;
}

static const void *extreme_of(const struct aggregate *a, const struct cell *cell, void *room)
{
    if (type_form(a->type.kind) != FORM_TEXT)
        return memcpy(room, cell->v.bytes, sizeof cell->v.bytes);
    struct slice text = slice_of(cell->v.text.ptr, cell->v.text.len);
    return memcpy(room, &text, sizeof text);
}

static int compare(enum sql_form form, const void *a, const void *b)
{
    union {
        int64_t i;
        double d;
        decimal_t n;
        struct slice t;
        struct interval v;
    } x, y;
    memcpy(&x, a, form_size(form));
    memcpy(&y, b, form_size(form));
    switch (form) {
    case FORM_I64: return (x.i > y.i) - (x.i < y.i);
    case FORM_F64: return (x.d > y.d || x.d != x.d) - (x.d < y.d || y.d != y.d);
    case FORM_I128: return (x.n > y.n) - (x.n < y.n);
    case FORM_TEXT: return text_compare(x.t, y.t);
    default:
        x.n = interval_order(&x.v);
        y.n = interval_order(&y.v);
        return (x.n > y.n) - (x.n < y.n);
    }
}

static bool set_extreme(const struct aggregate *a, struct account *account, struct cell *cell, const void *value)
{
    enum sql_form form = type_form(a->type.kind);
    struct slice text;
    if (form != FORM_TEXT) {
        memcpy(cell->v.bytes, value, form_size(form));
        return true;
    }
    memcpy(&text, value, sizeof text);
    uint8_t *copy = account_take(account, text.len + 1);
    if (!copy)
        return false;
    if (text.len)
        memcpy(copy, text.ptr, text.len);
    if (cell->v.text.ptr)
        account_give(account, cell->v.text.ptr, cell->v.text.len + 1);
    cell->v.text.ptr = copy;
    cell->v.text.len = text.len;
    return true;
}

static bool offer(const struct aggregate *a, struct account *account, struct cell *cell, const void *value)
{
    uint8_t room[KEY_ROOM];
    enum sql_form form = type_form(a->type.kind);
    if (cell->count > 0) {
        int order = compare(form, value, extreme_of(a, cell, room));
        if (a->kind == AGG_MIN ? order >= 0 : order <= 0)
            return true;
    }
    return set_extreme(a, account, cell, value);
}

static void add_whole(struct cell *cell, decimal_t v)
{
    if (__builtin_add_overflow(cell->v.whole, v, &cell->v.whole))
        cell->carry += v > 0 ? 1 : -1;
}

/* A value comes or goes; which is an extreme only comes here. */
static bool apply(const struct aggregate *a, struct account *account, struct cell *cell, const void *value, int weight)
{
    enum sql_form form = type_form(a->arg.kind);
    decimal_t whole = 0;
    double real;
    int64_t i;
    switch (a->kind) {
    case AGG_SUM:
    case AGG_AVG:
        if (form == FORM_F64) {
            memcpy(&real, value, sizeof real);
            cell->v.real += weight * real;
            break;
        }
        if (form == FORM_I64) {
            memcpy(&i, value, sizeof i);
            whole = i;
        } else {
            memcpy(&whole, value, sizeof whole);
        }
        add_whole(cell, weight < 0 ? -whole : whole);
        break;
    case AGG_BOOL_AND:
    case AGG_BOOL_OR: cell->v.i64 += *(const uint8_t *)value ? weight : 0; break;
    case AGG_MIN:
    case AGG_MAX:
        if (!offer(a, account, cell, value))
            return false;
        break;
    default: break;
    }
    cell->count += weight;
    return true;
}

/* The extreme has gone: all that is left is looked at. */
static bool find_extreme(const struct aggregate *a, struct account *account, struct cell *cell)
{
    cell->count = 0;
    for (const struct entry *e = cell->values->first; e; e = e->newer) {
        const uint8_t *at = entry_key(e).ptr;
        uint8_t room[KEY_ROOM];
        if (!apply(a, account, cell, key_value(type_form(a->arg.kind), &at, room), 1))
            return false;
    }
    return true;
}

static bool count_value(const struct aggregate *a, struct account *account, struct cell *cell, struct slice key,
                        int64_t weight)
{
    uint64_t hash = key_hash(key, account->budget->seed);
    int64_t before = 0, after;
    if (!cell->values) {
        cell->values = account_take(account, sizeof *cell->values);
        if (!cell->values)
            return false;
        table_init(cell->values, account, sizeof before);
    }
    struct entry *e = table_find(cell->values, key, hash);
    if (!e && !(e = table_add(cell->values, key, hash)))
        return false;
    memcpy(&before, e->bytes, sizeof before);
    after = before + weight;
    memcpy(e->bytes, &after, sizeof after);
    uint8_t room[KEY_ROOM];
    const uint8_t *at = key.ptr;
    bool comes = before <= 0 && after > 0, goes = before > 0 && after <= 0;
    if (after == 0)
        table_remove(cell->values, e);
    if (goes && (a->kind == AGG_MIN || a->kind == AGG_MAX))
        return find_extreme(a, account, cell);
    return (!comes && !goes) || apply(a, account, cell, key_value(type_form(a->arg.kind), &at, room), comes ? 1 : -1);
}

bool aggregate_add(const struct aggregate *a, struct account *account, struct cell *cell, const struct column *c,
                   uint32_t row, int weight)
{
    if (a->kind == AGG_COUNT_ALL) {
        cell->count += weight;
        return true;
    }
    if (column_null(c, row))
        return true;
    if (!a->counted)
        return apply(a, account, cell, (const uint8_t *)c->values + (row & column_mask(c)) * form_size(c->form),
                     weight);
    struct arena arena;
    struct slice key;
    enum sql_fault fault;
    arena_init(&arena, 2 * KEY_MAX);
    bool ok = key_of_row(&arena, c, 1, row, &key, &fault) && count_value(a, account, cell, key, weight);
    arena_fini(&arena);
    return ok;
}

bool aggregate_merge(const struct aggregate *a, struct account *account, struct cell *cell, const struct cell *from)
{
    uint8_t room[KEY_ROOM];
    if (a->counted) {
        for (const struct entry *e = from->values ? from->values->first : NULL; e; e = e->newer) {
            int64_t weight;
            memcpy(&weight, e->bytes, sizeof weight);
            if (!count_value(a, account, cell, entry_key(e), weight))
                return false;
        }
        return true;
    }
    bool real = type_form(a->arg.kind) == FORM_F64;
    switch (a->kind) {
    case AGG_SUM:
    case AGG_AVG:
        if (real)
            cell->v.real += from->v.real;
        else
            add_whole(cell, from->v.whole);
        cell->carry += real ? 0 : from->carry;
        break;
    case AGG_MIN:
    case AGG_MAX:
        if (from->count > 0 && !offer(a, account, cell, extreme_of(a, from, room)))
            return false;
        break;
    case AGG_BOOL_AND:
    case AGG_BOOL_OR: cell->v.i64 += from->v.i64; break;
    default: break;
    }
    cell->count += from->count;
    return true;
}

void aggregate_fini(const struct aggregate *a, struct account *account, struct cell *cell)
{
    if (keeps_text(a) && cell->v.text.ptr)
        account_give(account, cell->v.text.ptr, cell->v.text.len + 1);
    if (cell->values) {
        table_fini(cell->values);
        account_give(account, cell->values, sizeof *cell->values);
    }
    *cell = (struct cell){.count = 0};
}

/* -------------------------------------------------------------------------------------------------------- snapshots */

void aggregate_save(const struct aggregate *a, const struct cell *cell, struct state_writer *w)
{
    state_put_signed(w, cell->count);
    if (keeps_text(a)) {
        state_put_varint(w, cell->v.text.ptr != NULL);
        state_put_slice(w, slice_of(cell->v.text.ptr, cell->v.text.ptr ? cell->v.text.len : 0));
    } else if (a->kind > AGG_COUNT) {
        state_put(w, cell->v.bytes, sizeof cell->v.bytes);
        state_put_signed(w, cell->carry);
    }
    if (!a->counted)
        return;
    state_put_varint(w, cell->values ? cell->values->count : 0);
    for (const struct entry *e = cell->values ? cell->values->first : NULL; e; e = e->newer) {
        int64_t weight;
        memcpy(&weight, e->bytes, sizeof weight);
        state_put_slice(w, entry_key(e));
        state_put_signed(w, weight);
    }
}

static bool load_text(struct account *account, struct cell *cell, struct state_reader *r)
{
    bool there = state_get_varint(r);
    size_t len = state_get_len(r, account->budget->max);
    if (!there || r->failed)
        return !r->failed && !len;
    uint8_t *copy = account_take(account, len + 1);
    if (!copy)
        return false;
    state_get(r, copy, len);
    cell->v.text.ptr = copy;
    cell->v.text.len = len;
    return !r->failed;
}

static bool load_value(const struct aggregate *a, struct cell *cell, struct state_reader *r)
{
    struct arena arena;
    struct slice key;
    arena_init(&arena, 2 * KEY_MAX);
    bool ok = key_load(&arena, &a->arg, 1, r, &key);
    int64_t weight = state_get_signed(r);
    uint64_t hash = ok ? table_hash(cell->values, key) : 0;
    ok = ok && !r->failed && !table_find(cell->values, key, hash);
    struct entry *e = ok ? table_add(cell->values, key, hash) : NULL;
    if (e)
        memcpy(e->bytes, &weight, sizeof weight);
    arena_fini(&arena);
    return e != NULL;
}

bool aggregate_load(const struct aggregate *a, struct account *account, struct cell *cell, struct state_reader *r)
{
    cell->count = state_get_signed(r);
    if (keeps_text(a)) {
        if (!load_text(account, cell, r))
            return false;
    } else if (a->kind > AGG_COUNT) {
        state_get(r, cell->v.bytes, sizeof cell->v.bytes);
        cell->carry = state_get_signed(r);
    }
    uint64_t values = a->counted ? state_get_varint(r) : 0;
    if (values) {
        cell->values = account_take(account, sizeof *cell->values);
        if (!cell->values)
            return false;
        table_init(cell->values, account, sizeof(int64_t));
    }
    for (uint64_t i = 0; i < values; i++)
        if (!load_value(a, cell, r))
            return false;
    return !r->failed;
}

/* ----------------------------------------------------------------------------------------------------------- values */

static const void *sum_value(const struct aggregate *a, const struct cell *cell, void *room, enum sql_fault *ret_fault)
{
    decimal_t whole = cell->v.whole;
    if (type_form(a->arg.kind) == FORM_F64) {
        double real = a->kind == AGG_AVG ? cell->v.real / (double)cell->count : cell->v.real;
        return memcpy(room, &real, sizeof real);
    }
    unsigned scale = a->arg.kind == TYPE_DECIMAL ? a->arg.scale : 0;
    bool ok = cell->carry == 0;
    if (ok && a->kind == AGG_AVG)
        ok = decimal_divide(whole, scale, cell->count, 0, a->type.scale, &whole);
    if (a->type.kind == TYPE_BIGINT) {
        int64_t i = (int64_t)whole;
        if (ok && i == whole)
            return memcpy(room, &i, sizeof i);
        ok = false;
    }
    if (!ok || !decimal_fits(whole, DECIMAL_DIGITS_MAX)) {
        *ret_fault = SQL_FAULT_RANGE;
        return NULL;
    }
    return memcpy(room, &whole, sizeof whole);
}

const void *aggregate_value(const struct aggregate *a, const struct cell *cell, void *room, enum sql_fault *ret_fault)
{
    uint8_t truth;
    *ret_fault = SQL_FAULT_NONE;
    if (a->kind == AGG_COUNT_ALL || a->kind == AGG_COUNT)
        return memcpy(room, &cell->count, sizeof cell->count);
    if (cell->count <= 0)
        return NULL;
    switch (a->kind) {
    case AGG_BOOL_AND:
    case AGG_BOOL_OR:
        truth = a->kind == AGG_BOOL_AND ? cell->v.i64 == cell->count : cell->v.i64 > 0;
        return memcpy(room, &truth, sizeof truth);
    case AGG_SUM:
    case AGG_AVG: return sum_value(a, cell, room, ret_fault);
    default: return extreme_of(a, cell, room);
    }
}
