/* Expressions and types as text, see print.h. An operand that binds less tightly than its operator wants is put in parentheses. */
#include "sql/language/print_int.h"

#include "sql/language/lex.h"

#include <stdio.h>

void put(struct writer *out, const char *text)
{
    writer_put(out, text, strlen(text));
}

void put_number(struct writer *out, int64_t number)
{
    char digits[24];
    snprintf(digits, sizeof digits, "%lld", (long long)number);
    put(out, digits);
}

static void put_quoted(struct writer *out, struct slice text, char quote)
{
    writer_u8(out, (uint8_t)quote);
    for (size_t i = 0; i < text.len; i++) {
        writer_u8(out, text.ptr[i]);
        if (text.ptr[i] == quote)
            writer_u8(out, (uint8_t)quote);
    }
    writer_u8(out, (uint8_t)quote);
}

/* Any word of the language is quoted: some mean something only where a name stands. */
void put_name(struct writer *out, struct slice name)
{
    if (name_needs_quotes(name) || keyword_find(name))
        put_quoted(out, name, '"');
    else
        writer_slice_put(out, name);
}

void put_names(struct writer *out, const struct ast_names *names, const char *between)
{
    for (size_t i = 0; i < names->count; i++) {
        put(out, i ? between : "");
        put_name(out, names->at[i]);
    }
}

void put_string(struct writer *out, struct slice text)
{
    put_quoted(out, text, '\'');
}

void put_list(struct writer *out, const struct ast_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        put(out, i ? ", " : "");
        put_expr(out, list->at[i], POWER_LOWEST);
    }
}

/* ------------------------------------------------------------------------------------------------------------ types */

static void put_precision(struct writer *out, const struct ast_type *n)
{
    if (n->precision < 0)
        return;
    put(out, "(");
    put_number(out, n->precision);
    if (n->scale >= 0) {
        put(out, ", ");
        put_number(out, n->scale);
    }
    put(out, ")");
}

static void put_type_args(struct writer *out, const struct ast_type *n)
{
    put(out, slice_is(n->name, "array") ? "ARRAY<" : slice_is(n->name, "map") ? "MAP<" : "ROW<");
    for (size_t i = 0; i < n->args.count; i++) {
        put(out, i ? ", " : "");
        if (n->fields.count) {
            put_name(out, n->fields.at[i]);
            put(out, " ");
        }
        sql_print(n->args.at[i], out);
    }
    put(out, ">");
}

static void put_type(struct writer *out, const struct ast_type *n)
{
    static const char *const zoned[] = {"timestamp", "time"};
    if (n->args.count) {
        put_type_args(out, n);
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(zoned); i++)
        if (slice_starts(n->name, zoned[i]) &&
            slice_is(slice_of(n->name.ptr + strlen(zoned[i]), n->name.len - strlen(zoned[i])), " with time zone")) {
            put(out, zoned[i]);
            put_precision(out, n);
            put(out, " with time zone");
            return;
        }
    bool words = slice_is(n->name, "double precision") || slice_is(n->name, "character varying");
    if (words || slice_is(n->name, "timestamp") || slice_is(n->name, "time") || slice_is(n->name, "interval"))
        writer_slice_put(out, n->name);
    else
        put_name(out, n->name);
    put_precision(out, n);
}

/* ------------------------------------------------------------------------------------------------------ expressions */

static void put_literal(struct writer *out, const struct ast_literal *n)
{
    switch ((enum ast_literal_kind)n->what) {
    case LITERAL_NULL: put(out, "NULL"); break;
    case LITERAL_TRUE: put(out, "TRUE"); break;
    case LITERAL_FALSE: put(out, "FALSE"); break;
    case LITERAL_NUMBER: writer_slice_put(out, n->text); break;
    case LITERAL_STRING: put_string(out, n->text); break;
    }
}

static void put_interval(struct writer *out, const struct ast_interval *n)
{
    put(out, "INTERVAL ");
    put_string(out, n->text);
    if (n->from) {
        put(out, " ");
        put(out, ast_unit_text((enum ast_unit)n->from));
    }
    if (n->to) {
        put(out, " TO ");
        put(out, ast_unit_text((enum ast_unit)n->to));
    }
}

static void put_binary(struct writer *out, const struct ast_binary *n)
{
    enum ast_op op = (enum ast_op)n->op;
    int power = ast_op_power(op);
    put_expr(out, n->left, ast_op_chained(op) ? power : power + 1);
    put(out, " ");
    put(out, ast_op_text(op));
    put(out, " ");
    put_expr(out, n->right, power + 1);
}

static void put_unary(struct writer *out, const struct ast_unary *n)
{
    static const char *const texts[] = {[UNARY_NOT] = "NOT ", [UNARY_MINUS] = "-", [UNARY_PLUS] = "+"};
    bool sign = n->op != UNARY_NOT,
         another = n->operand->kind == AST_UNARY && AST_AS(unary, n->operand)->op != UNARY_NOT;
    put(out, texts[n->op]);
    put(out, sign && another ? " " : ""); /* two minuses begin a comment; a parenthesis would be a level more */
    put_expr(out, n->operand, sign ? POWER_SIGN : POWER_NOT);
}

static void put_quantified(struct writer *out, const struct ast_quantified *n)
{
    bool query = n->right->kind == AST_SUBQUERY && !AST_AS(subquery, n->right)->exists;
    put_expr(out, n->left, POWER_COMPARE + 1);
    put(out, " ");
    put(out, ast_op_text((enum ast_op)n->op));
    put(out, n->all ? " ALL " : " ANY ");
    put(out, query ? "" : "(");
    put_expr(out, n->right, POWER_LOWEST);
    put(out, query ? "" : ")");
}

static void put_between(struct writer *out, const struct ast_between *n)
{
    put_expr(out, n->operand, POWER_BETWEEN + 1);
    put(out, n->negated ? " NOT BETWEEN " : " BETWEEN ");
    put(out, n->symmetric ? "SYMMETRIC " : "");
    put_expr(out, n->low, POWER_BETWEEN + 1);
    put(out, " AND ");
    put_expr(out, n->high, POWER_BETWEEN + 1);
}

static void put_in(struct writer *out, const struct ast_in *n)
{
    put_expr(out, n->operand, POWER_BETWEEN + 1);
    put(out, n->negated ? " NOT IN (" : " IN (");
    if (n->query)
        put_query(out, n->query);
    else
        put_list(out, &n->items);
    put(out, ")");
}

static void put_like(struct writer *out, const struct ast_like *n)
{
    static const char *const texts[] = {
        [LIKE_CASE] = " LIKE ", [LIKE_NOCASE] = " ILIKE ", [LIKE_SIMILAR] = " SIMILAR TO "};
    put_expr(out, n->operand, POWER_BETWEEN + 1);
    put(out, n->negated ? " NOT" : "");
    put(out, texts[n->how]);
    put_expr(out, n->pattern, POWER_BETWEEN + 1);
    if (n->escape) {
        put(out, " ESCAPE ");
        put_expr(out, n->escape, POWER_BETWEEN + 1);
    }
}

static void put_is(struct writer *out, const struct ast_is *n)
{
    static const char *const texts[] = {[IS_NULL] = "NULL",
                                        [IS_TRUE] = "TRUE",
                                        [IS_FALSE] = "FALSE",
                                        [IS_UNKNOWN] = "UNKNOWN",
                                        [IS_DISTINCT] = "DISTINCT FROM "};
    put_expr(out, n->operand, POWER_IS + 1);
    put(out, n->negated ? " IS NOT " : " IS ");
    put(out, texts[n->what]);
    if (n->right)
        put_expr(out, n->right, POWER_IS + 1);
}

static void put_case(struct writer *out, const struct ast_case *n)
{
    put(out, "CASE");
    if (n->operand) {
        put(out, " ");
        put_expr(out, n->operand, POWER_LOWEST);
    }
    for (size_t i = 0; i < n->whens.count; i++) {
        const struct ast_when *when = AST_AS(when, n->whens.at[i]);
        put(out, " WHEN ");
        put_expr(out, when->condition, POWER_LOWEST);
        put(out, " THEN ");
        put_expr(out, when->value, POWER_LOWEST);
    }
    if (n->otherwise) {
        put(out, " ELSE ");
        put_expr(out, n->otherwise, POWER_LOWEST);
    }
    put(out, " END");
}

static void put_cast(struct writer *out, const struct ast_cast *n)
{
    put(out, n->soft ? "TRY_CAST(" : "CAST(");
    put_expr(out, n->operand, POWER_LOWEST);
    put(out, " AS ");
    sql_print(n->type, out);
    put(out, ")");
}

/* Functions that have a word's name, and mean nothing else before a parenthesis. */
static bool is_plain_function(const struct ast_names *name)
{
    enum keyword word = name->count == 1 ? keyword_find(name->at[0]) : KEYWORD_NONE;
    return word == KEYWORD_FIRST || word == KEYWORD_LAST || word == KEYWORD_NEXT || word == KEYWORD_REPLACE ||
           word == KEYWORD_LEFT || word == KEYWORD_RIGHT;
}

static void put_call(struct writer *out, const struct ast_call *n)
{
    if (n->bare) {
        writer_slice_put(out, n->name.at[0]);
        return;
    }
    if (is_plain_function(&n->name))
        writer_slice_put(out, n->name.at[0]);
    else
        put_names(out, &n->name, ".");
    put(out, n->star ? "(*" : n->distinct ? "(DISTINCT " : "(");
    put_list(out, &n->args);
    put_order(out, &n->order);
    put(out, ")");
    if (n->filter) {
        put(out, " FILTER (WHERE ");
        put_expr(out, n->filter, POWER_LOWEST);
        put(out, ")");
    }
    if (n->nulls != NULLS_DEFAULT)
        put(out, n->nulls == NULLS_IGNORE ? " IGNORE NULLS" : " RESPECT NULLS");
    if (n->over) {
        put(out, " OVER ");
        put_window(out, n->over);
    }
}

/* `a.b` is a name of two parts, so the field of a column needs parentheses. */
static void put_field(struct writer *out, const struct ast_field *n)
{
    bool plain = n->operand->kind == AST_SUBSCRIPT || n->operand->kind == AST_FIELD || n->operand->kind == AST_CALL;
    put(out, plain ? "" : "(");
    put_expr(out, n->operand, POWER_LOWEST);
    put(out, plain ? "." : ").");
    put_name(out, n->name);
}

static void put_bracketed(struct writer *out, const char *begin, const struct ast_list *items, const char *end)
{
    put(out, begin);
    put_list(out, items);
    put(out, end);
}

static int power_of(const struct ast *node)
{
    switch (node->kind) {
    case AST_BINARY: return ast_op_power((enum ast_op)AST_AS(binary, node)->op);
    case AST_UNARY: return AST_AS(unary, node)->op == UNARY_NOT ? POWER_NOT : POWER_SIGN;
    case AST_QUANTIFIED: return POWER_COMPARE;
    case AST_BETWEEN:
    case AST_IN:
    case AST_LIKE: return POWER_BETWEEN;
    case AST_IS: return POWER_IS;
    case AST_AT_ZONE: return POWER_ZONE;
    case AST_SUBSCRIPT: return POWER_SUBSCRIPT;
    case AST_FIELD: return POWER_FIELD;
    default: return POWER_ATOM;
    }
}

/* False: the node is no expression. One row for each kind; that is why it is long. */
static bool print_expr(struct writer *out, const struct ast *node)
{
    switch (node->kind) {
    case AST_LITERAL: put_literal(out, AST_AS(literal, node)); break;
    case AST_TYPED:
        sql_print(AST_AS(typed, node)->type, out);
        put(out, " ");
        put_string(out, AST_AS(typed, node)->text);
        break;
    case AST_INTERVAL: put_interval(out, AST_AS(interval, node)); break;
    case AST_NAME: put_names(out, &AST_AS(name, node)->parts, "."); break;
    case AST_STAR:
        put_names(out, &AST_AS(star, node)->parts, ".");
        put(out, AST_AS(star, node)->parts.count ? ".*" : "*");
        break;
    case AST_UNARY: put_unary(out, AST_AS(unary, node)); break;
    case AST_BINARY: put_binary(out, AST_AS(binary, node)); break;
    case AST_QUANTIFIED: put_quantified(out, AST_AS(quantified, node)); break;
    case AST_BETWEEN: put_between(out, AST_AS(between, node)); break;
    case AST_IN: put_in(out, AST_AS(in, node)); break;
    case AST_LIKE: put_like(out, AST_AS(like, node)); break;
    case AST_IS: put_is(out, AST_AS(is, node)); break;
    case AST_CASE: put_case(out, AST_AS(case, node)); break;
    case AST_CAST: put_cast(out, AST_AS(cast, node)); break;
    case AST_EXTRACT:
        put(out, "EXTRACT(");
        put_name(out, AST_AS(extract, node)->field);
        put(out, " FROM ");
        put_expr(out, AST_AS(extract, node)->operand, POWER_LOWEST);
        put(out, ")");
        break;
    case AST_AT_ZONE:
        put_expr(out, AST_AS(at_zone, node)->operand, POWER_ZONE);
        put(out, " AT TIME ZONE ");
        put_expr(out, AST_AS(at_zone, node)->zone, POWER_ZONE + 1);
        break;
    case AST_ROW: put_bracketed(out, "ROW(", &AST_AS(row, node)->items, ")"); break;
    case AST_ARRAY: put_bracketed(out, "ARRAY[", &AST_AS(array, node)->items, "]"); break;
    case AST_MAP: put_bracketed(out, "MAP[", &AST_AS(map, node)->items, "]"); break;
    case AST_SUBSCRIPT:
        put_expr(out, AST_AS(subscript, node)->operand, POWER_SUBSCRIPT);
        put_bracketed(out, "[", &(struct ast_list){.at = &AST_AS(subscript, node)->index, .count = 1}, "]");
        break;
    case AST_FIELD: put_field(out, AST_AS(field, node)); break;
    case AST_CALL: put_call(out, AST_AS(call, node)); break;
    case AST_MOMENT:
        put(out, AST_AS(moment, node)->final ? "FINAL " : "RUNNING ");
        put_expr(out, AST_AS(moment, node)->call, POWER_ATOM);
        break;
    case AST_SUBQUERY:
        put(out, AST_AS(subquery, node)->exists ? "EXISTS (" : "(");
        put_query(out, AST_AS(subquery, node)->query);
        put(out, ")");
        break;
    default: return false;
    }
    return true;
}

void put_expr(struct writer *out, const struct ast *node, int least)
{
    bool parens = power_of(node) < least;
    put(out, parens ? "(" : "");
    sql_print(node, out);
    put(out, parens ? ")" : "");
}

void sql_print(const struct ast *node, struct writer *out)
{
    if (node->kind == AST_TYPE)
        put_type(out, AST_AS(type, node));
    else if (!print_expr(out, node) && !print_query(out, node))
        (void)print_statement(out, node);
}
