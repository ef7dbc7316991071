/* Types, see type.h. */
#include "sql/language/type.h"

#include <stdio.h>

static const struct {
    const char *text, *others;
    enum sql_form form;
    char letter;
} types[] = {
#define TYPE(name, text, form, letter, others) {text, others, FORM_##form, letter},
#include "sql/language/types.def"
#undef TYPE
};

enum sql_form type_form(enum sql_type_kind kind)
{
    return types[kind].form;
}

size_t form_size(enum sql_form form)
{
    static const size_t sizes[FORMS] = {
        [FORM_BOOL] = 1,
        [FORM_I64] = 8,
        [FORM_F64] = 8,
        [FORM_I128] = 16,
        [FORM_TEXT] = sizeof(struct slice),
        [FORM_INTERVAL] = sizeof(struct interval),
    };
    return sizes[form];
}

const char *type_text(enum sql_type_kind kind)
{
    return types[kind].text;
}

enum sql_type_kind type_by_letter(char letter)
{
    unsigned kind = 0;
    while (kind < TYPE_KINDS && types[kind].letter != letter)
        kind++;
    return (enum sql_type_kind)kind;
}

bool type_is_integer(enum sql_type_kind kind)
{
    return kind == TYPE_SMALLINT || kind == TYPE_INT || kind == TYPE_BIGINT;
}

bool type_is_number(enum sql_type_kind kind)
{
    return kind >= TYPE_SMALLINT && kind <= TYPE_DOUBLE;
}

bool type_is_json(enum sql_type_kind kind)
{
    return kind >= TYPE_JSON;
}

bool type_equal(const struct sql_type *a, const struct sql_type *b)
{
    if (a->kind != b->kind || a->count != b->count)
        return false;
    if (a->kind == TYPE_DECIMAL && (a->scale != b->scale || a->digits != b->digits))
        return false;
    for (size_t i = 0; i < a->count; i++)
        if (!type_equal(&a->args[i], &b->args[i]) || (a->fields && !slice_equal(a->fields[i], b->fields[i])))
            return false;
    return true;
}

void type_print(const struct sql_type *type, struct writer *out)
{
    char text[48];
    writer_put(out, types[type->kind].text, strlen(types[type->kind].text));
    if (type->kind == TYPE_DECIMAL) {
        int len = snprintf(text, sizeof text, "(%u,%u)", type->digits, type->scale);
        writer_put(out, text, (size_t)len);
    }
    for (size_t i = 0; i < type->count; i++) {
        writer_put(out, i ? ", " : "<", i ? 2 : 1);
        if (type->fields) {
            writer_slice_put(out, type->fields[i]);
            writer_u8(out, ' ');
        }
        type_print(&type->args[i], out);
    }
    if (type->count)
        writer_u8(out, '>');
}

int type_distance(enum sql_type_kind from, enum sql_type_kind to)
{
    if (from == to)
        return 0;
    if (from == TYPE_NULL) /* a NULL, or a text whose type is yet to be found */
        return to == TYPE_TEXT ? 1 : 2;
    bool numbers = type_is_number(from) && type_is_number(to);
    bool times = (from == TYPE_DATE || from == TYPE_TIMESTAMP) && (to == TYPE_TIMESTAMP || to == TYPE_TIMESTAMPTZ);
    bool json = type_is_json(from) && to == TYPE_JSON;
    if (json)
        return 1;
    return (numbers || times) && from < to ? (int)to - (int)from : -1;
}

struct sql_type type_as_decimal(const struct sql_type *type)
{
    switch (type->kind) {
    case TYPE_SMALLINT: return type_decimal(5, 0);
    case TYPE_INT: return type_decimal(10, 0);
    case TYPE_BIGINT: return type_decimal(19, 0);
    case TYPE_DECIMAL: return *type;
    default: return type_decimal(DECIMAL_DIGITS_MAX, 9);
    }
}

static struct sql_type common_decimal(const struct sql_type *a, const struct sql_type *b)
{
    struct sql_type x = type_as_decimal(a), y = type_as_decimal(b);
    unsigned scale = x.scale > y.scale ? x.scale : y.scale;
    unsigned whole = x.digits - x.scale > y.digits - y.scale ? x.digits - x.scale : y.digits - y.scale;
    if (whole + scale > DECIMAL_DIGITS_MAX) /* digits before the point are worth more */
        scale = whole < DECIMAL_DIGITS_MAX ? DECIMAL_DIGITS_MAX - whole : 0;
    return type_decimal(whole + scale < DECIMAL_DIGITS_MAX ? whole + scale : DECIMAL_DIGITS_MAX, scale);
}

bool type_common(const struct sql_type *a, const struct sql_type *b, struct sql_type *ret)
{
    if (type_equal(a, b)) {
        *ret = *a;
        return true;
    }
    if (type_distance(a->kind, b->kind) < 0 && type_distance(b->kind, a->kind) < 0) {
        *ret = type_of(TYPE_JSON);
        return type_is_json(a->kind) && type_is_json(b->kind);
    }
    bool to_b = type_distance(a->kind, b->kind) >= 0;
    *ret = to_b ? *b : *a;
    if (ret->kind == TYPE_DECIMAL && a->kind != TYPE_NULL && b->kind != TYPE_NULL)
        *ret = common_decimal(a, b);
    else if (a->kind == b->kind && a->count) /* arrays of different elements */
        *ret = type_of(TYPE_JSON);
    return true;
}

/* --------------------------------------------------------------------------------------------------- as it is written */

static bool among(struct slice name, const char *others)
{
    while (*others) {
        size_t len = strcspn(others, " ");
        if (slice_equal(name, slice_of(others, len)))
            return true;
        others += len + (others[len] == ' ');
    }
    return false;
}

static enum sql_type_kind find(struct slice name, struct nearest *nearest)
{
    for (unsigned kind = TYPE_NULL + 1; kind < TYPE_KINDS; kind++) {
        if (slice_is(name, types[kind].text) || among(name, types[kind].others))
            return (enum sql_type_kind)kind;
        nearest_try(nearest, slice_str(types[kind].text));
        for (const char *p = types[kind].others; *p; p += strcspn(p, " ") + (p[strcspn(p, " ")] == ' '))
            nearest_try(nearest, slice_of(p, strcspn(p, " ")));
    }
    return slice_is(name, "character varying") ? TYPE_TEXT : TYPE_KINDS;
}

static bool decimal_of(const struct ast_type *n, struct sql_type *ret, struct sql_error *error)
{
    /* NUMERIC without digits holds anything in PostgreSQL; here it is the middle of what fits */
    *ret = n->precision < 0 ? type_decimal(DECIMAL_DIGITS_MAX, 9) : type_decimal(1, 0);
    if (n->precision < 0)
        return true;
    if (n->precision < 1 || n->precision > DECIMAL_DIGITS_MAX || n->scale > n->precision) {
        sql_error_set(error, SQL_FAULT_TYPE, n->ast.at, n->ast.len,
                      "a decimal has 1 to %u digits, and no more behind the point than that", DECIMAL_DIGITS_MAX);
        return false;
    }
    *ret = type_decimal((unsigned)n->precision, n->scale < 0 ? 0 : (unsigned)n->scale);
    return true;
}

static bool args_of(const struct ast_type *n, struct arena *arena, struct sql_type *ret, struct sql_error *error)
{
    struct sql_type *args = arena_take(arena, n->args.count * sizeof *args);
    if (!args || n->args.count > UINT16_MAX) {
        sql_error_set(error, args ? SQL_FAULT_LIMIT : SQL_FAULT_MEMORY, n->ast.at, n->ast.len,
                      "a type of too many fields");
        return false;
    }
    for (size_t i = 0; i < n->args.count; i++)
        if (!type_of_ast(n->args.at[i], arena, &args[i], error))
            return false;
    ret->args = args;
    ret->count = (uint16_t)n->args.count;
    ret->fields = n->fields.count ? n->fields.at : NULL;
    return true;
}

bool type_of_ast(const struct ast *node, struct arena *arena, struct sql_type *ret, struct sql_error *error)
{
    const struct ast_type *n = AST_AS(type, node);
    struct nearest nearest = nearest_of(n->name);
    enum sql_type_kind kind = find(n->name, &nearest);
    if (kind == TYPE_KINDS || (kind >= TYPE_ARRAY && !n->args.count)) {
        sql_error_set(error, SQL_FAULT_NO_TYPE, node->at, node->len, "there is no type %.*s", SLICE_ARG(n->name));
        if (nearest_found(&nearest))
            sql_error_hint(error, "did you mean %.*s?", SLICE_ARG(nearest.best));
        return false;
    }
    *ret = type_of(kind);
    if (kind == TYPE_DECIMAL)
        return decimal_of(n, ret, error);
    return !n->args.count || args_of(n, arena, ret, error);
}
