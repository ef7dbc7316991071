/* Running an expression over a batch, see eval.h. */
#include "sql/language/eval.h"

#include "sql/language/kernel.h"

void *eval_take(struct eval *e, size_t len)
{
    void *got = arena_take(e->arena, len);
    if (!got)
        e->no_memory = true;
    return got;
}

void eval_fault(struct eval *e, uint32_t row, enum sql_fault fault)
{
    if (!e->faults) {
        e->faults = eval_take(e, e->rows ? e->rows : 1);
        if (!e->faults)
            return;
        memset(e->faults, 0, e->rows ? e->rows : 1);
    }
    if (e->faults[row] == SQL_FAULT_NONE) {
        e->faults[row] = (uint8_t)fault;
        e->fault_count++;
    }
}

static uint64_t *nulls_new(struct eval *e)
{
    size_t size = bits_size(e->rows ? e->rows : 1);
    uint64_t *bits = eval_take(e, size);
    if (bits)
        memset(bits, 0, size);
    return bits;
}

void eval_null(struct eval *e, struct column *ret, uint32_t row)
{
    if (!ret->nulls)
        ret->nulls = nulls_new(e);
    if (ret->nulls)
        bit_set(ret->nulls, row);
}

static struct column *column_new(struct eval *e, enum sql_form form)
{
    struct column *c = eval_take(e, sizeof *c);
    void *values = eval_take(e, (e->rows ? e->rows : 1) * form_size(form));
    if (!c || !values)
        return NULL;
    *c = (struct column){.form = form, .values = values};
    return c;
}

/* ------------------------------------------------------------------------------------------------------ selections */

/* Up to two parts of a selection: rows for which `which` says so. */
struct picked {
    uint16_t *at;
    uint32_t count;
};

static bool pick_begin(struct eval *e, struct sel sel, struct picked *ret)
{
    *ret = (struct picked){.at = eval_take(e, (sel.count ? sel.count : 1) * sizeof *ret->at)};
    return ret->at;
}

static inline void pick(struct picked *p, uint32_t row, bool yes)
{
    p->at[p->count] = (uint16_t)row;
    p->count += yes;
}

static struct sel picked_sel(const struct picked *p)
{
    return (struct sel){.at = p->at, .count = p->count};
}

/* -1 NULL, 0 false, 1 true */
static inline int truth(const struct column *c, uint32_t row)
{
    return column_null(c, row) ? -1 : ((const uint8_t *)c->values)[row & column_mask(c)];
}

bool eval_where(struct eval *e, const struct expr *x, struct sel sel, struct sel *ret)
{
    const struct column *c = eval_expr(e, x, sel);
    struct picked p;
    if (!c || !pick_begin(e, sel, &p))
        return false;
    for (uint32_t k = 0; k < sel.count; k++) {
        uint32_t row = sel_row(sel, k);
        pick(&p, row, truth(c, row) == 1);
    }
    *ret = picked_sel(&p);
    return true;
}

/* ----------------------------------------------------------------------------------------------------------- calls */

/* The rows of sel in which no argument is NULL; the others are NULL in ret. */
static bool without_nulls(struct eval *e, const struct column *const *args, uint32_t count, struct column *ret,
                          struct sel *sel)
{
    bool some = false;
    for (uint32_t i = 0; i < count; i++)
        some |= args[i]->nulls != NULL;
    if (!some)
        return true;
    struct picked p;
    if (!pick_begin(e, *sel, &p))
        return false;
    for (uint32_t k = 0; k < sel->count; k++) {
        uint32_t row = sel_row(*sel, k);
        bool null = false;
        for (uint32_t i = 0; i < count; i++)
            null |= column_null(args[i], row);
        pick(&p, row, !null);
        if (null)
            eval_null(e, ret, row);
    }
    *sel = picked_sel(&p);
    return !e->no_memory;
}

static const struct column *const *eval_args(struct eval *e, const struct expr *x, struct sel sel)
{
    const struct column **args = eval_take(e, (x->count ? x->count : 1) * sizeof *args);
    for (uint32_t i = 0; args && i < x->count; i++) {
        args[i] = eval_expr(e, x->args[i], sel);
        if (!args[i])
            return NULL;
    }
    return (const struct column *const *)args;
}

static const struct column *eval_call(struct eval *e, const struct expr *x, struct column *ret, struct sel sel)
{
    const struct column *const *args = eval_args(e, x, sel);
    if (!args)
        return NULL;
    if (!x->kernel)
        return args[0];
    if (!ret)
        ret = column_new(e, type_form(x->type.kind));
    if (!ret || (!x->sees_nulls && !without_nulls(e, args, x->count, ret, &sel)))
        return NULL;
    x->kernel(e, x, args, ret, sel);
    return e->no_memory ? NULL : ret;
}

/* Rows that another expression has asked for before are there. */
static const struct column *eval_shared(struct eval *e, const struct expr *x, struct sel sel)
{
    struct memo *m = &e->memos[x->memo - 1];
    struct picked open;
    bool first = !m->column;
    if (first) {
        m->column = column_new(e, type_form(x->type.kind));
        m->done = nulls_new(e);
    }
    if (!m->column || !m->done || !pick_begin(e, sel, &open))
        return NULL;
    for (uint32_t k = 0; k < sel.count; k++) {
        uint32_t row = sel_row(sel, k);
        pick(&open, row, !bit_at(m->done, row));
        bit_set(m->done, row);
    }
    if (open.count && !eval_call(e, x, m->column, first ? sel : picked_sel(&open)))
        return NULL;
    return m->column;
}

bool eval_memos(struct eval *e, uint32_t count)
{
    e->memos = count ? eval_take(e, count * sizeof *e->memos) : NULL;
    if (e->memos)
        memset(e->memos, 0, count * sizeof *e->memos);
    return !count || e->memos;
}

/* What is decided by the left side is not asked of the right one. */
static const struct column *eval_logic(struct eval *e, const struct expr *x, struct sel sel)
{
    int decisive = x->op == EXPR_OR;
    const struct column *left = eval_expr(e, x->args[0], sel);
    struct column *ret = column_new(e, FORM_BOOL);
    struct picked open;
    if (!left || !ret || !pick_begin(e, sel, &open))
        return NULL;
    uint8_t *r = ret->values;
    for (uint32_t k = 0; k < sel.count; k++) {
        uint32_t row = sel_row(sel, k);
        r[row] = (uint8_t)decisive;
        pick(&open, row, truth(left, row) != decisive);
    }
    if (!open.count)
        return ret;
    const struct column *right = eval_expr(e, x->args[1], picked_sel(&open));
    if (!right)
        return NULL;
    for (uint32_t k = 0; k < open.count; k++) {
        uint32_t row = open.at[k];
        int a = truth(left, row), b = truth(right, row);
        r[row] = (uint8_t)(b == decisive ? decisive : !decisive);
        if (b != decisive && (a < 0 || b < 0))
            eval_null(e, ret, row);
    }
    return e->no_memory ? NULL : ret;
}

static void copy_rows(struct eval *e, struct column *to, const struct column *from, struct sel sel)
{
    size_t size = form_size(to->form);
    uint32_t mask = column_mask(from);
    uint8_t *values = to->values;
    const uint8_t *source = from->values;
    for (uint32_t k = 0; k < sel.count; k++) {
        uint32_t row = sel_row(sel, k);
        if (column_null(from, row))
            eval_null(e, to, row);
        else
            memcpy(values + row * size, source + (row & mask) * size, size);
    }
}

/* Each value is computed for the rows that reach it. */
static const struct column *eval_case(struct eval *e, const struct expr *x, struct sel sel)
{
    struct column *ret = column_new(e, type_form(x->type.kind));
    struct sel left = sel;
    for (uint32_t i = 0; ret && i + 1 < x->count && left.count; i += 2) {
        const struct column *condition = eval_expr(e, x->args[i], left);
        struct picked yes, no;
        if (!condition || !pick_begin(e, left, &yes) || !pick_begin(e, left, &no))
            return NULL;
        for (uint32_t k = 0; k < left.count; k++) {
            uint32_t row = sel_row(left, k);
            bool is = truth(condition, row) == 1;
            pick(&yes, row, is);
            pick(&no, row, !is);
        }
        left = picked_sel(&no);
        const struct column *value = yes.count ? eval_expr(e, x->args[i + 1], picked_sel(&yes)) : NULL;
        if (yes.count && !value)
            return NULL;
        if (value)
            copy_rows(e, ret, value, picked_sel(&yes));
    }
    const struct column *last = ret && left.count ? eval_expr(e, x->args[x->count - 1], left) : NULL;
    if (!ret || (left.count && !last))
        return NULL;
    if (last)
        copy_rows(e, ret, last, left);
    return e->no_memory ? NULL : ret;
}

static const struct column *eval_coalesce(struct eval *e, const struct expr *x, struct sel sel)
{
    struct column *ret = column_new(e, type_form(x->type.kind));
    struct sel left = sel;
    for (uint32_t i = 0; ret && i < x->count && left.count; i++) {
        const struct column *value = eval_expr(e, x->args[i], left);
        struct picked yes, no;
        if (!value || !pick_begin(e, left, &yes) || !pick_begin(e, left, &no))
            return NULL;
        for (uint32_t k = 0; k < left.count; k++) {
            uint32_t row = sel_row(left, k);
            bool null = column_null(value, row);
            pick(&yes, row, !null);
            pick(&no, row, null);
        }
        copy_rows(e, ret, value, picked_sel(&yes));
        left = picked_sel(&no);
    }
    for (uint32_t k = 0; ret && k < left.count; k++)
        eval_null(e, ret, sel_row(left, k));
    return e->no_memory ? NULL : ret;
}

static const struct column *eval_test(struct eval *e, const struct expr *x, struct sel sel)
{
    const struct column *c = eval_expr(e, x->args[0], sel);
    struct column *ret = column_new(e, FORM_BOOL);
    if (!c || !ret)
        return NULL;
    uint8_t *r = ret->values;
    for (uint32_t k = 0; k < sel.count; k++) {
        uint32_t row = sel_row(sel, k);
        bool null = column_null(c, row), is = null;
        if (x->number == IS_TRUE || x->number == IS_FALSE)
            is = !null && truth(c, row) == (x->number == IS_TRUE);
        r[row] = is != x->negated;
    }
    return ret;
}

/* NULL is distinct from everything but NULL. */
static const struct column *eval_distinct(struct eval *e, const struct expr *x, struct sel sel)
{
    const struct column *const *args = eval_args(e, x, sel);
    struct column *ret = column_new(e, FORM_BOOL);
    struct picked both;
    if (!args || !ret || !pick_begin(e, sel, &both))
        return NULL;
    uint8_t *r = ret->values;
    for (uint32_t k = 0; k < sel.count; k++) {
        uint32_t row = sel_row(sel, k);
        bool a = column_null(args[0], row), b = column_null(args[1], row);
        pick(&both, row, !a && !b);
        r[row] = (a != b) != x->negated;
    }
    x->kernel(e, x, args, ret, picked_sel(&both));
    for (uint32_t k = 0; k < both.count; k++) /* the kernel said whether they are equal */
        r[both.at[k]] = !r[both.at[k]] != x->negated;
    return e->no_memory ? NULL : ret;
}

const struct column *eval_expr(struct eval *e, const struct expr *x, struct sel sel)
{
    switch (x->op) {
    case EXPR_CONST: return &x->constant;
    case EXPR_COLUMN: return &e->columns[x->column];
    case EXPR_CALL: return x->memo && e->memos ? eval_shared(e, x, sel) : eval_call(e, x, NULL, sel);
    case EXPR_AND:
    case EXPR_OR: return eval_logic(e, x, sel);
    case EXPR_CASE: return eval_case(e, x, sel);
    case EXPR_COALESCE: return eval_coalesce(e, x, sel);
    case EXPR_TEST: return eval_test(e, x, sel);
    case EXPR_DISTINCT: return eval_distinct(e, x, sel);
    }
    return NULL;
}
