/* Making typed expressions: constants, casts, comparisons, calls; see bind_int.h. */
#include "sql/language/bind_int.h"

#include "sql/language/decimal.h"

#include <stdarg.h>
#include <stdio.h>

void *bind_fail(struct binder *b, const struct ast *place, enum sql_fault fault, const char *format, ...)
{
    char text[sizeof b->error->message];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    sql_error_set(b->error, fault, place->at, place->len, "%s", text);
    return NULL;
}

const char *type_name(const struct sql_type *type, char *text, size_t room)
{
    struct writer w = writer_of(text, room - 1);
    type_print(type, &w);
    text[w.len] = 0;
    return text;
}

static void *take(struct binder *b, const struct ast *place, size_t len)
{
    void *got = arena_take(b->arena, len);
    return got ? got : bind_fail(b, place, SQL_FAULT_MEMORY, "no memory for the statement");
}

static struct ast place_of(const struct expr *x)
{
    return (struct ast){.at = x->at, .len = x->len};
}

struct expr *expr_new(struct binder *b, enum expr_op op, const struct ast *place, uint32_t count)
{
    struct expr *x = take(b, place, sizeof *x);
    struct expr **args = x ? take(b, place, (count ? count : 1) * sizeof *args) : NULL;
    if (!args)
        return NULL;
    *x = (struct expr){.op = op, .at = place->at, .len = place->len, .args = args, .count = count};
    return x;
}

struct expr *expr_const(struct binder *b, const struct ast *place, struct sql_type type, const void *value)
{
    struct expr *x = expr_new(b, EXPR_CONST, place, 0);
    size_t size = form_size(type_form(type.kind));
    void *copy = x ? take(b, place, size) : NULL;
    if (!copy)
        return NULL;
    memcpy(copy, value, size);
    x->type = type;
    x->constant = (struct column){.form = type_form(type.kind), .constant = true, .values = copy};
    return x;
}

struct expr *expr_null(struct binder *b, const struct ast *place, struct sql_type type)
{
    static const uint8_t nothing[32];
    struct expr *x = expr_const(b, place, type, nothing);
    uint64_t *nulls = x ? take(b, place, sizeof *nulls) : NULL;
    if (!nulls)
        return NULL;
    *nulls = 1;
    x->constant.nulls = nulls;
    return x;
}

struct expr *expr_text(struct binder *b, const struct ast *place, struct slice text, enum sql_type_kind kind)
{
    return expr_const(b, place, type_of(kind), &text);
}

/* Runs a constant expression over one row. NULL: it has a fault, or there is no memory; *ret_fault says which. */
static const struct column *run(struct binder *b, const struct expr *x, enum sql_fault *ret_fault)
{
    struct eval e = eval_begin(b->arena, NULL, 0, 1);
    const struct column *c = eval_expr(&e, x, (struct sel){.count = 1});
    *ret_fault = !c ? SQL_FAULT_MEMORY : e.fault_count ? (enum sql_fault)e.faults[0] : SQL_FAULT_NONE;
    return *ret_fault == SQL_FAULT_NONE ? c : NULL;
}

static struct expr *as_const(struct binder *b, struct expr *x, const struct column *c)
{
    struct ast place = place_of(x);
    return column_null(c, 0) ? expr_null(b, &place, x->type) : expr_const(b, &place, x->type, c->values);
}

/* What has a fault stays as it is: a CASE may never ask for it. */
struct expr *expr_fold(struct binder *b, struct expr *x)
{
    if (!x || x->op == EXPR_CONST || x->op == EXPR_COLUMN || (x->function && function_volatile(x->function)))
        return x;
    for (uint32_t i = 0; i < x->count; i++)
        if (x->args[i]->op != EXPR_CONST)
            return x;
    enum sql_fault fault;
    const struct column *c = run(b, x, &fault);
    return c ? as_const(b, x, c) : x;
}

/* ----------------------------------------------------------------------------------------------------------- casts */

static bool is_unknown(const struct expr *x)
{
    return x->op == EXPR_CONST && x->type.kind == TYPE_NULL;
}

static struct expr *cast_new(struct binder *b, struct expr *x, const struct sql_type *type, bool soft)
{
    bool ok;
    struct ast place = place_of(x);
    kernel_fn *kernel = kernel_cast(&x->type, type, &ok);
    char from[96], to[96];
    if (!ok)
        return bind_fail(b, &place, SQL_FAULT_TYPE, "a value of type %s cannot become one of type %s",
                         type_name(&x->type, from, sizeof from), type_name(type, to, sizeof to));
    struct expr *cast = expr_new(b, EXPR_CALL, &place, 1);
    if (!cast)
        return NULL;
    cast->args[0] = x;
    cast->kernel = kernel;
    cast->type = *type;
    cast->soft = soft;
    return cast;
}

/* A text in the statement becomes a value at once, or is an error there. */
static struct expr *coerce_unknown(struct binder *b, struct expr *x, const struct sql_type *type, bool soft)
{
    struct ast place = place_of(x);
    if (column_null(&x->constant, 0))
        return expr_null(b, &place, *type);
    struct expr *cast = cast_new(b, x, type, soft);
    enum sql_fault fault;
    const struct column *c = cast ? run(b, cast, &fault) : NULL;
    if (c)
        return as_const(b, cast, c);
    char to[96];
    struct slice text = *(const struct slice *)x->constant.values;
    return cast ? bind_fail(b, &place, fault, "'%.*s' is no value of type %s", (int)(text.len < 60 ? text.len : 60),
                            (const char *)text.ptr, type_name(type, to, sizeof to))
                : NULL;
}

struct expr *coerce(struct binder *b, struct expr *x, const struct sql_type *type, bool explicitly, bool soft)
{
    if (!x || type_equal(&x->type, type))
        return x;
    if (is_unknown(x))
        return coerce_unknown(b, x, type, soft);
    struct ast place = place_of(x);
    char from[96], to[96];
    if (!explicitly && type_distance(x->type.kind, type->kind) < 0)
        return bind_fail(b, &place, SQL_FAULT_TYPE, "expected a value of type %s, found one of type %s",
                         type_name(type, to, sizeof to), type_name(&x->type, from, sizeof from));
    return expr_fold(b, cast_new(b, x, type, soft));
}

bool coerce_all(struct binder *b, struct expr **values, uint32_t count, uint32_t step, const char *what,
                struct sql_type *ret)
{
    struct sql_type common = values[0]->type;
    char one[96], other[96];
    for (uint32_t i = step; i < count; i += step) {
        struct ast place = place_of(values[i]);
        if (!type_common(&common, &values[i]->type, ret)) {
            bind_fail(b, &place, SQL_FAULT_TYPE, "%s of types %s and %s have no type in common", what,
                      type_name(&common, one, sizeof one), type_name(&values[i]->type, other, sizeof other));
            return false;
        }
        common = *ret;
    }
    if (common.kind == TYPE_NULL)
        common = type_of(TYPE_TEXT);
    for (uint32_t i = 0; i < count; i += step) {
        values[i] = coerce(b, values[i], &common, true, false);
        if (!values[i])
            return false;
    }
    *ret = common;
    return true;
}

/* --------------------------------------------------------------------------------------------- logic and comparisons */

struct expr *logic(struct binder *b, enum expr_op op, struct expr *left, struct expr *right)
{
    if (!left || !right)
        return NULL;
    struct ast place = {.at = left->at, .len = right->at + right->len - left->at};
    struct expr *x = expr_new(b, op, &place, 2);
    if (!x)
        return NULL;
    x->args[0] = left;
    x->args[1] = right;
    x->type = type_of(TYPE_BOOL);
    return expr_fold(b, x);
}

struct expr *negation(struct binder *b, const struct ast *place, struct expr *x, bool negated)
{
    return !x || !negated ? x : call(b, place, slice_str("not"), &x, 1);
}

struct expr *comparison(struct binder *b, const struct ast *place, enum ast_op op, struct expr *left,
                        struct expr *right)
{
    struct expr *x = left && right ? expr_new(b, EXPR_CALL, place, 2) : NULL;
    struct sql_type type;
    if (!x)
        return NULL;
    x->args[0] = left;
    x->args[1] = right;
    if (!coerce_all(b, x->args, 2, 1, "values", &type))
        return NULL;
    if (type_is_json(type.kind))
        return bind_fail(b, place, SQL_FAULT_NO_FUNCTION,
                         "values of type %s are not compared; take a part of them with ->>", type_text(type.kind));
    x->kernel = kernel_compare(op, type_form(type.kind));
    x->type = type_of(TYPE_BOOL);
    return expr_fold(b, x);
}

/* ----------------------------------------------------------------------------------------------------------- calls */

/* More digits than there are: places behind the point go first, down to six. */
static struct sql_type capped(unsigned digits, unsigned scale)
{
    if (digits <= DECIMAL_DIGITS_MAX)
        return type_decimal(digits, scale);
    unsigned over = digits - DECIMAL_DIGITS_MAX, least = scale < 6 ? scale : 6;
    return type_decimal(DECIMAL_DIGITS_MAX, scale > over + least ? scale - over : least);
}

static struct sql_type result_type(const struct function *f, struct expr *const *args)
{
    struct sql_type a = args[0]->type, b = f->args[0] && f->args[1] ? args[1]->type : a;
    unsigned scale;
    switch (f->result[1]) {
    case '+': return type_decimal(a.digits < DECIMAL_DIGITS_MAX ? a.digits + 1u : a.digits, a.scale);
    case '*': return capped(a.digits + b.digits, a.scale + b.scale);
    case '/':
        scale = a.scale + b.digits + 1u > 6 ? a.scale + b.digits + 1u : 6;
        return capped(a.digits - a.scale + b.scale + scale, scale);
    case '0':
        return type_decimal(a.digits - a.scale + 1u < DECIMAL_DIGITS_MAX ? a.digits - a.scale + 1u : DECIMAL_DIGITS_MAX,
                            0);
    case '6': return type_decimal(DECIMAL_DIGITS_MAX, 6);
    default: return a;
    }
}

static struct sql_type target_of(char letter, const struct expr *arg)
{
    struct sql_type type = type_of(type_by_letter(letter));
    if (letter == 'n')
        return arg->type.kind == TYPE_NULL ? type_decimal(DECIMAL_DIGITS_MAX, 9) : type_as_decimal(&arg->type);
    return letter == 'j' && type_is_json(arg->type.kind) ? arg->type : type;
}

static bool coerce_args(struct binder *b, const struct function *f, struct expr **args, uint32_t count,
                        struct sql_type *ret)
{
    bool same = f->args[0] == 'e' || f->result[1] == '+' || f->result[1] == '%';
    for (uint32_t i = 0; i < count && f->args[0] != 'e'; i++) {
        char letter = function_letter(f, i, count);
        struct sql_type type = letter == 'a' ? (args[i]->type.kind == TYPE_NULL ? type_of(TYPE_TEXT) : args[i]->type)
                                             : target_of(letter, args[i]);
        args[i] = coerce(b, args[i], &type, true, false);
        if (!args[i])
            return false;
    }
    return !same || coerce_all(b, args, count, 1, "arguments", ret);
}

static struct expr *no_function(struct binder *b, const struct ast *place, struct slice name, struct expr **args,
                                uint32_t count)
{
    char types[160] = "", one[96];
    size_t len = 0;
    bool exists = false;
    for (uint32_t i = 0; i < count && len < sizeof types - 1; i++) {
        int wrote = snprintf(types + len, sizeof types - len, "%s%s", i ? ", " : "",
                             type_name(&args[i]->type, one, sizeof one));
        len += wrote > 0 ? (size_t)wrote : 0;
    }
    for (size_t i = 0; function_at(i); i++)
        exists |= name_equal(name, slice_str(function_at(i)->name));
    if (!exists) {
        struct nearest nearest = nearest_of(name);
        bind_fail(b, place, SQL_FAULT_NO_FUNCTION, "there is no function %.*s", (int)(name.len < 80 ? name.len : 80),
                  (const char *)name.ptr);
        function_nearest(&nearest);
        if (nearest_found(&nearest))
            sql_error_hint(b->error, "did you mean %.*s?", SLICE_ARG(nearest.best));
        return NULL;
    }
    bind_fail(b, place, SQL_FAULT_NO_FUNCTION, "%.*s takes no arguments of types (%s)",
              (int)(name.len < 80 ? name.len : 80), (const char *)name.ptr, types);
    sql_error_hint(b->error, "a CAST makes one type of another: CAST(a AS type)");
    return NULL;
}

struct expr *call(struct binder *b, const struct ast *place, struct slice name, struct expr **args, uint32_t count)
{
    struct sql_type types[FUNCTION_ARGS_MAX], common = {0};
    types[0] = common; /* of what has no arguments */
    if (count > FUNCTION_ARGS_MAX)
        return bind_fail(b, place, SQL_FAULT_LIMIT, "more than %u arguments", FUNCTION_ARGS_MAX);
    for (uint32_t i = 0; i < count; i++)
        types[i] = args[i]->type;
    const struct function *f = function_find(name, types, count);
    if (!f)
        return no_function(b, place, name, args, count);
    if (b->scope->column && function_volatile(f)) {
        bind_fail(b, place, SQL_FAULT_UNBOUNDED, "%s is not part of a continuous query", f->name);
        sql_error_hint(b->error, "_ts is the time at which the row was appended");
        return NULL;
    }
    struct expr *x = expr_new(b, EXPR_CALL, place, count);
    if (!x)
        return NULL;
    memcpy(x->args, args, count * sizeof *args);
    x->function = f;
    x->kernel = f->kernel;
    x->sees_nulls = f->sees_nulls;
    if (count && !coerce_args(b, f, x->args, count, &common))
        return NULL;
    x->type = f->result[0] == 'e'   ? common
              : f->result[0] == 'n' ? result_type(f, x->args)
                                    : type_of(type_by_letter(f->result[0]));
    return expr_fold(b, x);
}
