/* Aggregates, see aggregate.h. Those that count different values of a column share one set of them; a value that comes for the first time for
 * some of them changes these only. */
#include "sql/query/aggregate.h"

#include "base/check.h"
#include "base/mem.h"
#include "sql/language/datetime.h"
#include "sql/language/decimal.h"
#include "sql/language/kernel.h"

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

void aggregate_nearest(struct nearest *nearest)
{
    for (unsigned kind = AGG_COUNT; kind < AGG_KINDS; kind++)
        nearest_try(nearest, slice_str(names[kind]));
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
    a->retracts = retracts;
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

/* -------------------------------------------------------------------------------------------------------------- sets */

void aggregates_share(struct aggregate *all, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t leader = 0;
        if (!all[i].counted)
            continue;
        while (leader < i && !(all[leader].counted && all[leader].leader == leader &&
                               all[leader].column == all[i].column && all[leader].members < VALUE_MEMBERS_MAX))
            leader++;
        all[i].leader = leader;
        if (leader == i)
            all[i].members = 0;
        all[i].bit = all[leader].members++;
    }
}

static bool lets_through(const struct aggregate *a, const struct column *columns, uint32_t row)
{
    if (a->filter == NO_FILTER)
        return true;
    const struct column *c = &columns[a->filter];
    return !column_null(c, row) && ((const uint8_t *)c->values)[row & column_mask(c)];
}

/* Those that share a set, and their cells. */
struct sharers {
    const struct aggregate *all;
    uint32_t leader, count;
    struct account *account;
    struct cell *cells;
    uint32_t which; /* of find_extreme */
};

static bool offer_left(void *arg, const void *value, uint64_t members, const int64_t *weights)
{
    const struct sharers *s = arg;
    const struct aggregate *a = &s->all[s->which];
    (void)weights;
    return !(members >> a->bit & 1) || apply(a, s->account, &s->cells[s->which], value, 1);
}

/* The extreme may have gone: all that is left is looked at. */
static bool find_extreme(struct sharers *s, uint32_t which)
{
    s->cells[which].count = 0;
    s->which = which;
    return value_set_each(s->cells[s->leader].values, offer_left, s);
}

static bool apply_changed(struct sharers *s, const void *value, uint64_t changed, bool comes)
{
    for (uint32_t i = s->leader; changed && i < s->count; i++) {
        const struct aggregate *a = &s->all[i];
        if (!a->counted || a->leader != s->leader || !(changed >> a->bit & 1))
            continue;
        changed &= ~((uint64_t)1 << a->bit);
        bool extreme = a->kind == AGG_MIN || a->kind == AGG_MAX;
        if (!(extreme && !comes ? find_extreme(s, i) : apply(a, s->account, &s->cells[i], value, comes ? 1 : -1)))
            return false;
    }
    return true;
}

static bool change_value(struct sharers *s, const void *value, uint64_t members, int64_t weight,
                         enum sql_fault *ret_fault)
{
    const struct aggregate *a = &s->all[s->leader];
    struct cell *cell = &s->cells[s->leader];
    uint64_t changed;
    *ret_fault = SQL_FAULT_MEMORY;
    if (!cell->values)
        cell->values = value_set_new(s->account, type_form(a->arg.kind), a->members, a->retracts);
    return cell->values && value_set_change(cell->values, value, members, weight, &changed, ret_fault) &&
           apply_changed(s, value, changed, weight > 0);
}

static bool add_counted(struct sharers *s, const struct column *columns, uint32_t row, int weight,
                        enum sql_fault *ret_fault)
{
    const struct column *c = &columns[s->all[s->leader].column];
    uint64_t members = 0;
    if (column_null(c, row))
        return true;
    for (uint32_t i = s->leader; i < s->count; i++)
        if (s->all[i].counted && s->all[i].leader == s->leader && lets_through(&s->all[i], columns, row))
            members |= (uint64_t)1 << s->all[i].bit;
    const void *value = (const uint8_t *)c->values + (row & column_mask(c)) * form_size(c->form);
    return !members || change_value(s, value, members, weight, ret_fault);
}

static bool merge_value(void *arg, const void *value, uint64_t members, const int64_t *weights)
{
    struct sharers *s = arg;
    enum sql_fault fault;
    if (!weights)
        return change_value(s, value, members, 1, &fault);
    for (uint32_t i = 0; i < s->all[s->leader].members; i++)
        if (weights[i] && !change_value(s, value, (uint64_t)1 << i, weights[i], &fault))
            return false;
    return true;
}

/* ------------------------------------------------------------------------------------------------------------- cells */

bool aggregates_add(const struct aggregate *all, uint32_t count, struct account *account, struct cell *cells,
                    const struct column *columns, uint32_t row, int weight, enum sql_fault *ret_fault)
{
    *ret_fault = SQL_FAULT_MEMORY;
    for (uint32_t i = 0; i < count; i++) {
        const struct aggregate *a = &all[i];
        if (a->counted) {
            struct sharers s = {.all = all, .leader = i, .count = count, .account = account, .cells = cells};
            if (a->leader == i && !add_counted(&s, columns, row, weight, ret_fault))
                return false;
            continue;
        }
        if (!lets_through(a, columns, row))
            continue;
        const struct column *c = &columns[a->column];
        if (a->kind == AGG_COUNT_ALL)
            cells[i].count += weight;
        else if (!column_null(c, row) &&
                 !apply(a, account, &cells[i], (const uint8_t *)c->values + (row & column_mask(c)) * form_size(c->form),
                        weight))
            return false;
    }
    return true;
}

static bool merge_cell(const struct aggregate *a, struct account *account, struct cell *cell, const struct cell *from)
{
    uint8_t room[KEY_ROOM];
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

bool aggregates_merge(const struct aggregate *all, uint32_t count, struct account *account, struct cell *cells,
                      const struct cell *from)
{
    for (uint32_t i = 0; i < count; i++) {
        struct sharers s = {.all = all, .leader = i, .count = count, .account = account, .cells = cells};
        if (!all[i].counted ? !merge_cell(&all[i], account, &cells[i], &from[i])
                            : all[i].leader == i && from[i].values && !value_set_each(from[i].values, merge_value, &s))
            return false;
    }
    return true;
}

void aggregates_fini(const struct aggregate *all, uint32_t count, struct account *account, struct cell *cells)
{
    for (uint32_t i = 0; i < count; i++) {
        if (keeps_text(&all[i]) && cells[i].v.text.ptr)
            account_give(account, cells[i].v.text.ptr, cells[i].v.text.len + 1);
        value_set_free(&cells[i].values);
        cells[i] = (struct cell){.count = 0};
    }
}

/* -------------------------------------------------------------------------------------------------------- snapshots */

static void cell_save(const struct aggregate *a, const struct cell *cell, bool leads, struct state_writer *w)
{
    state_put_signed(w, cell->count);
    if (keeps_text(a)) {
        state_put_varint(w, cell->v.text.ptr != NULL);
        state_put_slice(w, slice_of(cell->v.text.ptr, cell->v.text.ptr ? cell->v.text.len : 0));
    } else if (a->kind > AGG_COUNT) {
        state_put(w, cell->v.bytes, sizeof cell->v.bytes);
        state_put_signed(w, cell->carry);
    }
    if (leads)
        state_put_varint(w, cell->values != NULL);
    if (leads && cell->values)
        value_set_save(cell->values, w);
}

void aggregates_save(const struct aggregate *all, uint32_t count, const struct cell *cells, struct state_writer *w)
{
    for (uint32_t i = 0; i < count; i++)
        cell_save(&all[i], &cells[i], all[i].counted && all[i].leader == i, w);
}

static bool load_text(struct account *account, struct cell *cell, struct state_reader *r)
{
    bool there = state_get_varint(r);
    size_t len = state_get_len(r, account->budget->max);
    if (!there || r->failed) {
        r->failed |= len > 0;
        return !r->failed;
    }
    uint8_t *copy = account_take(account, len + 1);
    if (!copy)
        return false;
    state_get(r, copy, len);
    cell->v.text.ptr = copy;
    cell->v.text.len = len;
    return !r->failed;
}

static bool cell_load(const struct aggregate *a, struct account *account, struct cell *cell, bool leads,
                      struct state_reader *r)
{
    cell->count = state_get_signed(r);
    if (keeps_text(a)) {
        if (!load_text(account, cell, r))
            return false;
        r->failed |= cell->count > 0 && !cell->v.text.ptr;
    } else if (a->kind > AGG_COUNT) {
        state_get(r, cell->v.bytes, sizeof cell->v.bytes);
        cell->carry = state_get_signed(r);
    }
    if (r->failed || !leads || !state_get_varint(r))
        return !r->failed;
    cell->values = value_set_new(account, type_form(a->arg.kind), a->members, a->retracts);
    return cell->values && value_set_load(cell->values, r);
}

bool aggregates_load(const struct aggregate *all, uint32_t count, struct account *account, struct cell *cells,
                     struct state_reader *r)
{
    for (uint32_t i = 0; i < count; i++)
        if (!cell_load(&all[i], account, &cells[i], all[i].counted && all[i].leader == i, r))
            return false;
    return true;
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
