/* Comparisons, NOT, and what picks one of several values. */
#include "sql/language/datetime.h"
#include "sql/language/kernel.h"

int text_compare(struct slice a, struct slice b)
{
    size_t len = a.len < b.len ? a.len : b.len;
    int order = len ? memcmp(a.ptr, b.ptr, len) : 0;
    return order ? order : (a.len > b.len) - (a.len < b.len);
}

static inline int interval_compare(struct interval a, struct interval b)
{
    decimal_t x = interval_order(&a), y = interval_order(&b);
    return (x > y) - (x < y);
}

/* Texts are seldom equal, and then seldom as long. */
static inline bool text_equal(struct slice a, struct slice b)
{
    return a.len == b.len && (!a.len || memcmp(a.ptr, b.ptr, a.len) == 0);
}

#define COMPARE_FORM(form, T)                                                                                          \
    static KERNEL_2(eq_##form, T, T, uint8_t, a == b) static KERNEL_2(                                                 \
        ne_##form, T, T, uint8_t,                                                                                      \
        a != b) static KERNEL_2(lt_##form, T, T, uint8_t,                                                              \
                                a < b) static KERNEL_2(le_##form, T, T, uint8_t,                                       \
                                                       a <= b) static KERNEL_2(gt_##form, T, T, uint8_t,               \
                                                                               a > b) static KERNEL_2(ge_##form, T, T, \
                                                                                                      uint8_t, a >= b)

COMPARE_FORM(bool, uint8_t)
COMPARE_FORM(i64, int64_t)
COMPARE_FORM(f64, double)
COMPARE_FORM(i128, decimal_t)

static KERNEL_2(eq_text, struct slice, struct slice, uint8_t, text_equal(a, b)) static KERNEL_2(
    ne_text, struct slice, struct slice, uint8_t,
    !text_equal(a,
                b)) static KERNEL_2(lt_text, struct slice, struct slice, uint8_t,
                                    text_compare(
                                        a,
                                        b) < 0) static KERNEL_2(le_text, struct slice, struct slice, uint8_t,
                                                                text_compare(a, b) <=
                                                                    0) static KERNEL_2(gt_text, struct slice,
                                                                                       struct slice, uint8_t,
                                                                                       text_compare(a, b) >
                                                                                           0) static KERNEL_2(ge_text,
                                                                                                              struct
                                                                                                              slice,
                                                                                                              struct
                                                                                                              slice,
                                                                                                              uint8_t,
                                                                                                              text_compare(a,
                                                                                                                           b) >= 0) static KERNEL_2(eq_interval, struct interval, struct interval, uint8_t, interval_compare(a, b) == 0) static KERNEL_2(ne_interval, struct interval, struct interval, uint8_t, interval_compare(a, b) != 0) static KERNEL_2(lt_interval,
                                                                                                                                                                                                                                                                                                                                                              struct
                                                                                                                                                                                                                                                                                                                                                              interval,
                                                                                                                                                                                                                                                                                                                                                              struct
                                                                                                                                                                                                                                                                                                                                                              interval,
                                                                                                                                                                                                                                                                                                                                                              uint8_t,
                                                                                                                                                                                                                                                                                                                                                              interval_compare(
                                                                                                                                                                                                                                                                                                                                                                  a,
                                                                                                                                                                                                                                                                                                                                                                  b) < 0) static KERNEL_2(le_interval, struct interval,
                                                                                                                                                                                                                                                                                                                                                                                          struct
                                                                                                                                                                                                                                                                                                                                                                                          interval,
                                                                                                                                                                                                                                                                                                                                                                                          uint8_t,
                                                                                                                                                                                                                                                                                                                                                                                          interval_compare(
                                                                                                                                                                                                                                                                                                                                                                                              a,
                                                                                                                                                                                                                                                                                                                                                                                              b) <=
                                                                                                                                                                                                                                                                                                                                                                                              0) static KERNEL_2(gt_interval,
                                                                                                                                                                                                                                                                                                                                                                                                                 struct interval, struct interval, uint8_t, interval_compare(a, b) > 0) static KERNEL_2(ge_interval,
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                        struct
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                        interval,
                                                                                                                                                                                                                                                                                                                                                                                                                                                                                                        struct interval, uint8_t, interval_compare(a, b) >= 0)

#define COMPARE_ROW(op)                                                                                                \
    {                                                                                                                  \
        [FORM_BOOL] = kernel_##op##_bool, [FORM_I64] = kernel_##op##_i64, [FORM_F64] = kernel_##op##_f64,              \
        [FORM_I128] = kernel_##op##_i128, [FORM_TEXT] = kernel_##op##_text, [FORM_INTERVAL] = kernel_##op##_interval   \
    }

    kernel_fn *kernel_compare(enum ast_op op, enum sql_form form)
{
    static kernel_fn *const kernels[AST_OPS][FORMS] = {
        [AST_OP_EQ] = COMPARE_ROW(eq), [AST_OP_NE] = COMPARE_ROW(ne), [AST_OP_LT] = COMPARE_ROW(lt),
        [AST_OP_LE] = COMPARE_ROW(le), [AST_OP_GT] = COMPARE_ROW(gt), [AST_OP_GE] = COMPARE_ROW(ge),
    };
    return kernels[op][form];
}

KERNEL_1(not, uint8_t, uint8_t, !a)

/* The order of two values of one form. */
static int value_compare(enum sql_form form, const void *a, const void *b)
{
    switch (form) {
    case FORM_BOOL: return *(const uint8_t *)a - *(const uint8_t *)b;
    case FORM_I64: return (*(const int64_t *)a > *(const int64_t *)b) - (*(const int64_t *)a < *(const int64_t *)b);
    case FORM_F64: return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
    case FORM_I128:
        return (*(const decimal_t *)a > *(const decimal_t *)b) - (*(const decimal_t *)a < *(const decimal_t *)b);
    case FORM_TEXT: return text_compare(*(const struct slice *)a, *(const struct slice *)b);
    default: return interval_compare(*(const struct interval *)a, *(const struct interval *)b);
    }
}

/* NULLs are passed over, as in PostgreSQL. */
static void extreme(struct eval *e, const struct expr *x, const struct column *const *args, struct column *ret,
                    struct sel sel, int sign)
{
    size_t size = form_size(ret->form);
    EACH_ROW(i)
    {
        const uint8_t *best = NULL;
        for (uint32_t n = 0; n < x->count; n++) {
            const uint8_t *value = (const uint8_t *)args[n]->values + (i & column_mask(args[n])) * size;
            if (!column_null(args[n], i) && (!best || value_compare(ret->form, value, best) * sign > 0))
                best = value;
        }
        if (best)
            memcpy((uint8_t *)ret->values + i * size, best, size);
        else
            eval_null(e, ret, i);
    }
}

KERNEL(greatest)
{
    extreme(e, x, args, ret, sel, 1);
}

KERNEL(least)
{
    extreme(e, x, args, ret, sel, -1);
}

/* NULL when both are equal, else the first. */
KERNEL(nullif)
{
    size_t size = form_size(ret->form);
    (void)x;
    EACH_ROW(i)
    {
        const uint8_t *a = (const uint8_t *)args[0]->values + (i & column_mask(args[0])) * size;
        const uint8_t *b = (const uint8_t *)args[1]->values + (i & column_mask(args[1])) * size;
        bool null = column_null(args[0], i);
        if (null || (!column_null(args[1], i) && value_compare(ret->form, a, b) == 0))
            eval_null(e, ret, i);
        else
            memcpy((uint8_t *)ret->values + i * size, a, size);
    }
}
