/* From syntax to typed expressions, see bind.h. */
#include "sql/language/bind_int.h"

#include "sql/language/datetime.h"
#include "sql/language/decimal.h"
#include "sql/language/window_function.h"

/* ----------------------------------------------------------------------------------------------------------- names */

/* Whether the column has that name: 2 exactly, 1 but for the case of letters, 0 not. */
static int name_fits(struct slice wanted, struct slice name)
{
    return slice_equal(wanted, name) ? 2 : name_equal(wanted, name) ? 1 : 0;
}

/* The column that fits best. UINT32_MAX: none does, or (*ret_ambiguous) several do. */
static uint32_t column_find(const struct scope *scope, struct slice table, struct slice name, bool *ret_ambiguous)
{
    uint32_t found = UINT32_MAX;
    int best = 0;
    *ret_ambiguous = false;
    for (uint32_t i = 0; i < scope->count; i++) {
        int by_table = table.ptr ? name_fits(table, scope->columns[i].table) : scope->columns[i].qualified ? 0 : 2;
        int by_name = name_fits(name, scope->columns[i].name), fit = by_table && by_name ? by_table + by_name : 0;
        if (fit && fit == best)
            *ret_ambiguous = true;
        if (fit > best) {
            best = fit;
            found = i;
            *ret_ambiguous = false;
        }
    }
    return found;
}

static struct expr *no_column(struct binder *b, const struct ast *place, struct slice table, struct slice name)
{
    struct nearest nearest = nearest_of(name);
    for (uint32_t i = 0; i < b->scope->count; i++)
        nearest_try(&nearest, b->scope->columns[i].name);
    if (table.ptr)
        bind_fail(b, place, SQL_FAULT_NO_NAME, "there is no column %.*s.%.*s", SLICE_ARG(table), SLICE_ARG(name));
    else
        bind_fail(b, place, SQL_FAULT_NO_NAME, "there is no column %.*s", SLICE_ARG(name));
    if (nearest_found(&nearest))
        sql_error_hint(b->error, "did you mean %.*s?", SLICE_ARG(nearest.best));
    return NULL;
}

/* A field of what a ROW or JSON holds. */
static struct expr *field(struct binder *b, const struct ast *place, struct expr *x, struct slice name)
{
    struct sql_type type = type_of(TYPE_JSON);
    if (!x)
        return NULL;
    if (!type_is_json(x->type.kind))
        return bind_fail(b, place, SQL_FAULT_TYPE, "a value of type %s has no field %.*s", type_text(x->type.kind),
                         SLICE_ARG(name));
    if (x->type.kind == TYPE_ROW) {
        struct nearest nearest = nearest_of(name);
        int best = 0;
        uint32_t at = 0;
        for (uint32_t i = 0; i < x->type.count; i++) {
            int fit = name_fits(name, x->type.fields[i]);
            at = fit > best ? i : at;
            best = fit > best ? fit : best;
            nearest_try(&nearest, x->type.fields[i]);
        }
        if (!best) {
            bind_fail(b, place, SQL_FAULT_NO_NAME, "there is no field %.*s", SLICE_ARG(name));
            if (nearest_found(&nearest))
                sql_error_hint(b->error, "did you mean %.*s?", SLICE_ARG(nearest.best));
            return NULL;
        }
        struct expr *own = b->scope->field ? b->scope->field(b->scope->arg, x, at) : NULL;
        if (own)
            return own;
        type = x->type.args[at];
        name = x->type.fields[at];
    }
    struct expr *args[2] = {x, expr_text(b, place, name, TYPE_TEXT)};
    if (!args[1] || type_is_json(type.kind)) {
        struct expr *got = args[1] ? call(b, place, slice_str("->"), args, 2) : NULL;
        if (got)
            got->type = type;
        return got;
    }
    return coerce(b, call(b, place, slice_str("->>"), args, 2), &type, true, false);
}

static struct expr *bind_name(struct binder *b, const struct ast_name *n)
{
    struct ast_names parts = n->parts;
    bool ambiguous, of_table = false;
    uint32_t found = UINT32_MAX;
    if (parts.count > 1) {
        found = column_find(b->scope, parts.at[0], parts.at[1], &ambiguous);
        of_table = found != UINT32_MAX;
    }
    if (!of_table)
        found = column_find(b->scope, (struct slice){0}, parts.at[0], &ambiguous);
    if (found == UINT32_MAX)
        return parts.count > 1 ? no_column(b, &n->ast, parts.at[0], parts.at[1])
                               : no_column(b, &n->ast, (struct slice){0}, parts.at[0]);
    if (ambiguous)
        return bind_fail(b, &n->ast, SQL_FAULT_AMBIGUOUS,
                         "several columns are called %.*s; say which with a table in front of it",
                         SLICE_ARG(parts.at[of_table]));
    struct expr *x = b->scope->column ? b->scope->column(b->scope->arg, found) : expr_new(b, EXPR_COLUMN, &n->ast, 0);
    if (!x)
        return NULL;
    if (!b->scope->column) {
        x->column = found;
        x->type = b->scope->columns[found].type;
    }
    for (size_t i = of_table ? 2 : 1; i < parts.count && x; i++)
        x = field(b, &n->ast, x, parts.at[i]);
    return x;
}

/* -------------------------------------------------------------------------------------------------------- literals */

static struct expr *bind_number(struct binder *b, const struct ast_literal *n)
{
    int64_t whole;
    double real;
    decimal_t decimal;
    bool syntax;
    unsigned digits, scale;
    if (text_to_int(n->text, &whole, &syntax))
        return expr_const(b, &n->ast, type_of(whole <= INT32_MAX ? TYPE_INT : TYPE_BIGINT), &whole);
    bool exponent = memchr(n->text.ptr, 'e', n->text.len) || memchr(n->text.ptr, 'E', n->text.len);
    if (!exponent && decimal_measure(n->text, &digits, &scale) && decimal_parse(n->text, scale, &decimal, &syntax))
        return expr_const(b, &n->ast, type_decimal(digits, scale), &decimal);
    if (text_to_double(n->text, &real, &syntax))
        return expr_const(b, &n->ast, type_of(TYPE_DOUBLE), &real);
    return bind_fail(b, &n->ast, SQL_FAULT_RANGE, "a number that no type can hold");
}

static struct expr *bind_literal(struct binder *b, const struct ast_literal *n)
{
    uint8_t truth = n->what == LITERAL_TRUE;
    switch ((enum ast_literal_kind)n->what) {
    case LITERAL_NULL: return expr_null(b, &n->ast, type_of(TYPE_NULL));
    case LITERAL_NUMBER: return bind_number(b, n);
    case LITERAL_STRING: return expr_text(b, &n->ast, n->text, TYPE_NULL);
    default: return expr_const(b, &n->ast, type_of(TYPE_BOOL), &truth);
    }
}

static struct expr *bind_typed(struct binder *b, const struct ast_typed *n)
{
    struct sql_type type;
    if (!type_of_ast(n->type, b->arena, &type, b->error))
        return NULL;
    return coerce(b, expr_text(b, &n->ast, n->text, TYPE_NULL), &type, true, false);
}

static struct expr *bind_interval(struct binder *b, const struct ast_interval *n)
{
    struct interval v;
    if (!interval_parse(n->text, (enum ast_unit)n->from, (enum ast_unit)n->to, &v))
        return bind_fail(b, &n->ast, SQL_FAULT_TIME, "'%.*s' is no interval", SLICE_ARG(n->text));
    return expr_const(b, &n->ast, type_of(TYPE_INTERVAL), &v);
}

/* ------------------------------------------------------------------------------------------------------- operators */

struct expr *bind_bool(struct binder *b, const struct ast *node)
{
    struct sql_type type = type_of(TYPE_BOOL);
    return coerce(b, bind_node(b, node), &type, false, false);
}

static struct expr *bind_unary(struct binder *b, const struct ast_unary *n)
{
    struct expr *x = n->op == UNARY_NOT ? bind_bool(b, n->operand) : bind_node(b, n->operand);
    if (!x || n->op == UNARY_PLUS)
        return x;
    return call(b, &n->ast, slice_str(n->op == UNARY_NOT ? "not" : "negative"), &x, 1);
}

static struct expr *bind_binary(struct binder *b, const struct ast_binary *n)
{
    enum ast_op op = (enum ast_op)n->op;
    if (op == AST_OP_AND || op == AST_OP_OR) {
        struct expr *left = bind_bool(b, n->left);
        return logic(b, op == AST_OP_AND ? EXPR_AND : EXPR_OR, left, left ? bind_bool(b, n->right) : NULL);
    }
    struct expr *args[2] = {bind_node(b, n->left), NULL};
    args[1] = args[0] ? bind_node(b, n->right) : NULL;
    if (!args[1])
        return NULL;
    if (ast_op_power(op) == POWER_COMPARE)
        return comparison(b, &n->ast, op, args[0], args[1]);
    return call(b, &n->ast, slice_str(ast_op_text(op)), args, 2);
}

static struct expr *within(struct binder *b, const struct ast *place, struct expr *x, struct expr *low,
                           struct expr *high)
{
    struct expr *above = comparison(b, place, AST_OP_GE, x, low);
    return logic(b, EXPR_AND, above, above ? comparison(b, place, AST_OP_LE, x, high) : NULL);
}

static struct expr *bind_between(struct binder *b, const struct ast_between *n)
{
    struct expr *x = bind_node(b, n->operand), *low = x ? bind_node(b, n->low) : NULL,
                *high = low ? bind_node(b, n->high) : NULL;
    struct expr *is = high ? within(b, &n->ast, x, low, high) : NULL;
    if (is && n->symmetric)
        is = logic(b, EXPR_OR, is, within(b, &n->ast, x, high, low));
    return negation(b, &n->ast, is, n->negated);
}

/* A tree of ORs that is as flat as can be: lists may be long. */
static struct expr *one_of(struct binder *b, const struct ast_in *n, struct expr *x, size_t from, size_t to)
{
    if (to - from == 1) {
        struct expr *item = bind_node(b, n->items.at[from]);
        return item ? comparison(b, n->items.at[from], AST_OP_EQ, x, item) : NULL;
    }
    size_t mid = from + (to - from) / 2;
    struct expr *left = one_of(b, n, x, from, mid);
    return left ? logic(b, EXPR_OR, left, one_of(b, n, x, mid, to)) : NULL;
}

static struct expr *bind_in(struct binder *b, const struct ast_in *n)
{
    if (n->query)
        return bind_fail(b, &n->ast, SQL_FAULT_UNBOUNDED, "IN with a query can stand in WHERE only");
    struct expr *x = bind_node(b, n->operand);
    return negation(b, &n->ast, x ? one_of(b, n, x, 0, n->items.count) : NULL, n->negated);
}

static struct expr *bind_like(struct binder *b, const struct ast_like *n)
{
    struct expr *args[3] = {bind_node(b, n->operand), NULL, NULL};
    args[1] = args[0] ? bind_node(b, n->pattern) : NULL;
    args[2] = args[1] && n->escape ? bind_node(b, n->escape) : NULL;
    if (!args[1] || (n->escape && !args[2]))
        return NULL;
    if (n->how == LIKE_SIMILAR) {
        bind_fail(b, &n->ast, SQL_FAULT_UNBOUNDED, "SIMILAR TO is not part of the language");
        sql_error_hint(b->error, "a ~ 'expression' matches regular expressions");
        return NULL;
    }
    struct expr *is = call(b, &n->ast, slice_str(n->how == LIKE_CASE ? "like" : "ilike"), args, n->escape ? 3 : 2);
    return negation(b, &n->ast, is, n->negated);
}

static struct expr *bind_is(struct binder *b, const struct ast_is *n)
{
    bool distinct = n->what == IS_DISTINCT;
    struct expr *x = expr_new(b, distinct ? EXPR_DISTINCT : EXPR_TEST, &n->ast, distinct ? 2 : 1);
    struct sql_type type;
    if (!x)
        return NULL;
    x->negated = n->negated;
    x->number = n->what;
    x->type = type_of(TYPE_BOOL);
    x->args[0] = n->what == IS_NULL || distinct ? bind_node(b, n->operand) : bind_bool(b, n->operand);
    if (!x->args[0])
        return NULL;
    if (distinct) {
        x->args[1] = bind_node(b, n->right);
        if (!x->args[1] || !coerce_all(b, x->args, 2, 1, "values", &type))
            return NULL;
        x->kernel = kernel_compare(AST_OP_EQ, type_form(type.kind));
    }
    return expr_fold(b, x);
}

/* CASE a WHEN b … is CASE WHEN a = b … */
static struct expr *bind_case(struct binder *b, const struct ast_case *n)
{
    uint32_t whens = (uint32_t)n->whens.count, count = 2 * whens + 1;
    struct expr *x = expr_new(b, EXPR_CASE, &n->ast, count), *operand = n->operand ? bind_node(b, n->operand) : NULL;
    if (!x || (n->operand && !operand))
        return NULL;
    for (uint32_t i = 0; i < whens; i++) {
        const struct ast_when *when = AST_AS(when, n->whens.at[i]);
        struct expr *value = operand ? bind_node(b, when->condition) : NULL;
        x->args[2 * i] = operand ? (value ? comparison(b, when->condition, AST_OP_EQ, operand, value) : NULL)
                                 : bind_bool(b, when->condition);
        x->args[2 * i + 1] = x->args[2 * i] ? bind_node(b, when->value) : NULL;
        if (!x->args[2 * i + 1])
            return NULL;
    }
    x->args[count - 1] = n->otherwise ? bind_node(b, n->otherwise) : expr_null(b, &n->ast, type_of(TYPE_NULL));
    if (!x->args[count - 1])
        return NULL;
    /* the values are every second argument, the last one among them moved behind a condition that is not there */
    struct expr *values[2 * 64], **all = whens < 64 ? values : arena_take(b->arena, (whens + 1) * sizeof *all);
    if (!all)
        return bind_fail(b, &n->ast, SQL_FAULT_MEMORY, "no memory for the statement");
    for (uint32_t i = 0; i <= whens; i++)
        all[i] = x->args[i < whens ? 2 * i + 1 : count - 1];
    if (!coerce_all(b, all, whens + 1, 1, "the values of a CASE", &x->type))
        return NULL;
    for (uint32_t i = 0; i <= whens; i++)
        x->args[i < whens ? 2 * i + 1 : count - 1] = all[i];
    return expr_fold(b, x);
}

static struct expr *bind_cast(struct binder *b, const struct ast_cast *n)
{
    struct sql_type type;
    struct expr *x = bind_node(b, n->operand);
    if (!x || !type_of_ast(n->type, b->arena, &type, b->error))
        return NULL;
    return coerce(b, x, &type, true, n->soft);
}

static struct expr *bind_extract(struct binder *b, const struct ast_extract *n)
{
    struct expr *args[2] = {expr_text(b, &n->ast, n->field, TYPE_TEXT), bind_node(b, n->operand)};
    if (!args[0] || !args[1])
        return NULL;
    if (time_field_find(n->field) == TIME_FIELDS)
        return bind_fail(b, &n->ast, SQL_FAULT_ARGUMENT, "a time has no field %.*s", SLICE_ARG(n->field));
    return call(b, &n->ast, slice_str("extract"), args, 2);
}

static struct expr *bind_zone(struct binder *b, const struct ast_at_zone *n)
{
    struct expr *args[2] = {bind_node(b, n->zone), NULL};
    args[1] = args[0] ? bind_node(b, n->operand) : NULL;
    return args[1] ? call(b, &n->ast, slice_str("timezone"), args, 2) : NULL;
}

static struct expr *bind_subscript(struct binder *b, const struct ast_subscript *n)
{
    struct expr *args[2] = {bind_node(b, n->operand), NULL};
    args[1] = args[0] ? bind_node(b, n->index) : NULL;
    if (!args[1])
        return NULL;
    struct sql_type of = args[0]->type, type = of.kind == TYPE_ARRAY ? of.args[0]
                                               : of.kind == TYPE_MAP ? of.args[1]
                                                                     : type_of(TYPE_JSON);
    struct expr *x = call(b, &n->ast, slice_str(of.kind == TYPE_MAP ? "->" : "subscript"), args, 2);
    if (x && type_is_json(type.kind))
        x->type = type;
    if (!x || type_is_json(type.kind))
        return x;
    struct sql_type text = type_of(TYPE_TEXT);
    return coerce(b, coerce(b, x, &text, true, false), &type, true, false);
}

/* ------------------------------------------------------------------------------------------------------------ calls */

static struct expr *bind_coalesce(struct binder *b, const struct ast_call *n, struct expr **args, uint32_t count)
{
    struct expr *x = expr_new(b, EXPR_COALESCE, &n->ast, count);
    if (!x)
        return NULL;
    memcpy(x->args, args, count * sizeof *args);
    return coerce_all(b, x->args, count, 1, "arguments", &x->type) ? expr_fold(b, x) : NULL;
}

static bool is_aggregate(struct slice name)
{
    static const char *const names[] = {"count",     "sum",        "avg",      "min",    "max",
                                        "array_agg", "string_agg", "bool_and", "bool_or"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (name_equal(name, slice_str(names[i])))
            return true;
    return false;
}

static struct expr *bind_call(struct binder *b, const struct ast_call *n)
{
    struct slice name = n->name.at[n->name.count - 1];
    uint32_t count = (uint32_t)n->args.count;
    if (n->over)
        return bind_fail(b, &n->ast, SQL_FAULT_WINDOWING, "a window function cannot stand here");
    if (is_aggregate(name) || n->star || n->distinct || n->filter || n->order.count)
        return bind_fail(b, &n->ast, SQL_FAULT_GROUPING, "the aggregate %.*s cannot stand here", SLICE_ARG(name));
    if (window_find(name) != WINDOW_NONE)
        return bind_fail(b, &n->ast, SQL_FAULT_WINDOWING, "%.*s is a window function: it needs OVER (ORDER BY …)",
                         SLICE_ARG(name));
    if (count > FUNCTION_ARGS_MAX)
        return bind_fail(b, &n->ast, SQL_FAULT_LIMIT, "more than %u arguments", FUNCTION_ARGS_MAX);
    struct expr *args[FUNCTION_ARGS_MAX];
    for (uint32_t i = 0; i < count; i++) {
        args[i] = bind_node(b, n->args.at[i]);
        if (!args[i])
            return NULL;
    }
    if (name_equal(name, slice_str("coalesce")) && count)
        return bind_coalesce(b, n, args, count);
    return call(b, &n->ast, function_name(name), args, count);
}

/* One row for each kind of node; that is why it is long. */
struct expr *bind_node(struct binder *b, const struct ast *node)
{
    struct expr *other;
    if (b->scope->replace && b->scope->replace(b->scope->arg, node, &other))
        return other;
    switch (node->kind) {
    case AST_LITERAL: return bind_literal(b, AST_AS(literal, node));
    case AST_TYPED: return bind_typed(b, AST_AS(typed, node));
    case AST_INTERVAL: return bind_interval(b, AST_AS(interval, node));
    case AST_NAME: return bind_name(b, AST_AS(name, node));
    case AST_UNARY: return bind_unary(b, AST_AS(unary, node));
    case AST_BINARY: return bind_binary(b, AST_AS(binary, node));
    case AST_BETWEEN: return bind_between(b, AST_AS(between, node));
    case AST_IN: return bind_in(b, AST_AS(in, node));
    case AST_LIKE: return bind_like(b, AST_AS(like, node));
    case AST_IS: return bind_is(b, AST_AS(is, node));
    case AST_CASE: return bind_case(b, AST_AS(case, node));
    case AST_CAST: return bind_cast(b, AST_AS(cast, node));
    case AST_EXTRACT: return bind_extract(b, AST_AS(extract, node));
    case AST_AT_ZONE: return bind_zone(b, AST_AS(at_zone, node));
    case AST_SUBSCRIPT: return bind_subscript(b, AST_AS(subscript, node));
    case AST_FIELD: return field(b, node, bind_node(b, AST_AS(field, node)->operand), AST_AS(field, node)->name);
    case AST_CALL: return bind_call(b, AST_AS(call, node));
    case AST_MOMENT: return bind_fail(b, node, SQL_FAULT_SYNTAX, "FINAL and RUNNING are for rows of a pattern");
    case AST_STAR: return bind_fail(b, node, SQL_FAULT_SYNTAX, "a star cannot be an operand");
    default:
        return bind_fail(b, node, SQL_FAULT_UNBOUNDED, "%s cannot stand in an expression here",
                         node->kind == AST_SUBQUERY     ? "a query"
                         : node->kind == AST_QUANTIFIED ? "ANY or ALL"
                                                        : "a ROW, ARRAY or MAP");
    }
}

struct expr *sql_bind(const struct ast *node, const struct scope *scope, struct arena *arena, struct sql_error *error)
{
    struct binder b = {.scope = scope, .arena = arena, .error = error};
    struct expr *x = bind_node(&b, node);
    struct sql_type text = type_of(TYPE_TEXT);
    return x && x->type.kind == TYPE_NULL ? coerce(&b, x, &text, true, false) : x;
}

struct expr *sql_bind_as(const struct ast *node, const struct sql_type *type, const struct scope *scope,
                         struct arena *arena, struct sql_error *error)
{
    struct binder b = {.scope = scope, .arena = arena, .error = error};
    return coerce(&b, bind_node(&b, node), type, false, false);
}
