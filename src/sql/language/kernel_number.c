/* Arithmetic. What leaves the range of its type is a fault of the row. */
#include "sql/language/decimal.h"
#include "sql/language/kernel.h"

#include <math.h>

#define INT_MIN_smallint INT16_MIN
#define INT_MAX_smallint INT16_MAX
#define INT_MIN_int INT32_MIN
#define INT_MAX_int INT32_MAX
#define INT_MIN_bigint INT64_MIN
#define INT_MAX_bigint INT64_MAX

#define CHECKED(op, type)                                                                                              \
    static inline int64_t op##_##type(struct eval *e, uint32_t i, int64_t a, int64_t b)                                \
    {                                                                                                                  \
        int64_t r;                                                                                                     \
        if (__builtin_##op##_overflow(a, b, &r) || r < INT_MIN_##type || r > INT_MAX_##type)                           \
            eval_fault(e, i, SQL_FAULT_RANGE);                                                                         \
        return r;                                                                                                      \
    }                                                                                                                  \
    KERNEL_2(op##_##type, int64_t, int64_t, int64_t, op##_##type(e, i, a, b))

CHECKED(add, smallint)
CHECKED(add, int)
CHECKED(add, bigint)
CHECKED(sub, smallint)
CHECKED(sub, int)
CHECKED(sub, bigint)
CHECKED(mul, smallint)
CHECKED(mul, int)
CHECKED(mul, bigint)

static inline int64_t divide(struct eval *e, uint32_t i, int64_t a, int64_t b, int64_t least)
{
    if (b == 0 || (b == -1 && a == least)) {
        eval_fault(e, i, b ? SQL_FAULT_RANGE : SQL_FAULT_ZERO);
        return 0;
    }
    return a / b;
}

static inline int64_t modulo(struct eval *e, uint32_t i, int64_t a, int64_t b)
{
    if (b == 0)
        eval_fault(e, i, SQL_FAULT_ZERO);
    return b == 0 || b == -1 ? 0 : a % b;
}

KERNEL_2(div_smallint, int64_t, int64_t, int64_t, divide(e, i, a, b, INT16_MIN))
KERNEL_2(div_int, int64_t, int64_t, int64_t, divide(e, i, a, b, INT32_MIN))
KERNEL_2(div_bigint, int64_t, int64_t, int64_t, divide(e, i, a, b, INT64_MIN))
KERNEL_2(mod_bigint, int64_t, int64_t, int64_t, modulo(e, i, a, b))

static inline int64_t negate(struct eval *e, const struct expr *x, uint32_t i, int64_t a)
{
    int64_t least = x->type.kind == TYPE_SMALLINT ? INT16_MIN : x->type.kind == TYPE_INT ? INT32_MIN : INT64_MIN;
    if (a == least)
        eval_fault(e, i, SQL_FAULT_RANGE);
    return a == least ? 0 : -a;
}

KERNEL_1(neg_bigint, int64_t, int64_t, negate(e, x, i, a))
KERNEL_1(abs_bigint, int64_t, int64_t, a < 0 ? negate(e, x, i, a) : a)
KERNEL_1(sign_bigint, int64_t, int64_t, (a > 0) - (a < 0))

/* ---------------------------------------------------------------------------------------------------------- double */

static inline double bounded(struct eval *e, uint32_t i, double r)
{
    if (!isfinite(r))
        eval_fault(e, i, SQL_FAULT_RANGE);
    return r;
}

static inline double divisor(struct eval *e, uint32_t i, double b)
{
    if (b != 0)
        return b;
    eval_fault(e, i, SQL_FAULT_ZERO);
    return 1;
}

KERNEL_2(add_double, double, double, double, bounded(e, i, a + b))
KERNEL_2(sub_double, double, double, double, bounded(e, i, a - b))
KERNEL_2(mul_double, double, double, double, bounded(e, i, a *b))
KERNEL_2(div_double, double, double, double, bounded(e, i, a / divisor(e, i, b)))
KERNEL_2(mod_double, double, double, double, fmod(a, divisor(e, i, b)))
KERNEL_1(neg_double, double, double, -a)
KERNEL_1(abs_double, double, double, fabs(a))
KERNEL_1(sign_double, double, double, (a > 0) - (a < 0))
KERNEL_1(ceil_double, double, double, ceil(a))
KERNEL_1(floor_double, double, double, floor(a))
KERNEL_1(round_double, double, double, rint(a))
KERNEL_1(trunc_double, double, double, trunc(a))

/* Domains: PostgreSQL has an error of its own for each; here it is an argument that cannot be used. */
static inline double within(struct eval *e, uint32_t i, bool inside, double r)
{
    if (!inside)
        eval_fault(e, i, SQL_FAULT_ARGUMENT);
    return inside ? bounded(e, i, r) : 0;
}

KERNEL_1(sqrt, double, double, within(e, i, a >= 0, sqrt(a)))
KERNEL_1(exp, double, double, bounded(e, i, exp(a)))
KERNEL_1(ln, double, double, within(e, i, a > 0, log(a)))
KERNEL_1(log10, double, double, within(e, i, a > 0, log10(a)))
KERNEL_1(sin, double, double, sin(a))
KERNEL_1(cos, double, double, cos(a))
KERNEL_2(power, double, double, double, within(e, i, (a != 0 || b >= 0) && (a >= 0 || b == floor(b)), pow(a, b)))

/* --------------------------------------------------------------------------------------------------------- decimal */

static inline decimal_t fits(struct eval *e, const struct expr *x, uint32_t i, bool ok, decimal_t r)
{
    if (ok && decimal_fits(r, x->type.digits))
        return r;
    eval_fault(e, i, SQL_FAULT_RANGE);
    return 0;
}

/* Both have the result's scale, or the binder would have made it so. */
static inline decimal_t add_n(struct eval *e, const struct expr *x, uint32_t i, decimal_t a, decimal_t b)
{
    decimal_t r = 0;
    bool ok = !__builtin_add_overflow(a, b, &r);
    return fits(e, x, i, ok, r);
}

static inline decimal_t sub_n(struct eval *e, const struct expr *x, uint32_t i, decimal_t a, decimal_t b)
{
    decimal_t r = 0;
    bool ok = !__builtin_sub_overflow(a, b, &r);
    return fits(e, x, i, ok, r);
}

static inline decimal_t mul_n(struct eval *e, const struct expr *x, uint32_t i, decimal_t a, decimal_t b)
{
    decimal_t r = 0;
    unsigned scale = x->args[0]->type.scale + x->args[1]->type.scale;
    bool ok = !__builtin_mul_overflow(a, b, &r) && decimal_fits(r, DECIMAL_DIGITS_MAX);
    ok = ok && (scale == x->type.scale || decimal_rescale(r, scale, x->type.scale, &r));
    return fits(e, x, i, ok, r);
}

static inline decimal_t div_n(struct eval *e, const struct expr *x, uint32_t i, decimal_t a, decimal_t b)
{
    decimal_t r = 0;
    if (b == 0) {
        eval_fault(e, i, SQL_FAULT_ZERO);
        return 0;
    }
    bool ok = decimal_divide(a, x->args[0]->type.scale, b, x->args[1]->type.scale, x->type.scale, &r);
    return fits(e, x, i, ok, r);
}

static inline decimal_t mod_n(struct eval *e, uint32_t i, decimal_t a, decimal_t b)
{
    if (b == 0)
        eval_fault(e, i, SQL_FAULT_ZERO);
    return b == 0 ? 0 : a % b;
}

KERNEL_2(add_decimal, decimal_t, decimal_t, decimal_t, add_n(e, x, i, a, b))
KERNEL_2(sub_decimal, decimal_t, decimal_t, decimal_t, sub_n(e, x, i, a, b))
KERNEL_2(mul_decimal, decimal_t, decimal_t, decimal_t, mul_n(e, x, i, a, b))
KERNEL_2(div_decimal, decimal_t, decimal_t, decimal_t, div_n(e, x, i, a, b))
KERNEL_2(mod_decimal, decimal_t, decimal_t, decimal_t, mod_n(e, i, a, b))
KERNEL_1(neg_decimal, decimal_t, decimal_t, -a)
KERNEL_1(abs_decimal, decimal_t, decimal_t, a < 0 ? -a : a)
KERNEL_1(sign_decimal, decimal_t, decimal_t, (a > 0) - (a < 0))

enum rounding { ROUND_DOWN, ROUND_UP, ROUND_NEAREST, ROUND_TO_ZERO };

/* To a whole number; the result's scale is 0. */
static decimal_t whole(const struct expr *x, decimal_t a, enum rounding how)
{
    decimal_t unit = decimal_power(x->args[0]->type.scale), q = a / unit, rest = a % unit;
    if (how == ROUND_DOWN)
        return q - (rest < 0);
    if (how == ROUND_UP)
        return q + (rest > 0);
    decimal_t far = rest < 0 ? -rest : rest;
    return how == ROUND_NEAREST && rest && far >= unit - far ? q + (a < 0 ? -1 : 1) : q;
}

KERNEL_1(ceil_decimal, decimal_t, decimal_t, whole(x, a, ROUND_UP))
KERNEL_1(floor_decimal, decimal_t, decimal_t, whole(x, a, ROUND_DOWN))
KERNEL_1(round_decimal, decimal_t, decimal_t, whole(x, a, ROUND_NEAREST))
KERNEL_1(trunc_decimal, decimal_t, decimal_t, whole(x, a, ROUND_TO_ZERO))

/* To `places` behind the point (before it, when negative); the scale stays that of the argument. */
static decimal_t places_n(struct eval *e, const struct expr *x, uint32_t i, decimal_t a, int64_t places, bool cut)
{
    int64_t off = x->type.scale - places;
    if (off <= 0)
        return a;
    if (off > (int64_t)DECIMAL_DIGITS_MAX)
        return 0;
    decimal_t unit = decimal_power((unsigned)off), rest = a % unit, far = rest < 0 ? -rest : rest, r = a - rest;
    if (!cut && rest && far >= unit - far && __builtin_add_overflow(r, a < 0 ? -unit : unit, &r))
        r = 0;
    return fits(e, x, i, true, r);
}

KERNEL_2(round_places, decimal_t, int64_t, decimal_t, places_n(e, x, i, a, b, false))
KERNEL_2(trunc_places, decimal_t, int64_t, decimal_t, places_n(e, x, i, a, b, true))
