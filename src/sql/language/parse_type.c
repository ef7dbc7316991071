/* Types, as they are written: DECIMAL(10, 2), TIMESTAMP(3) WITH TIME ZONE, ARRAY<INT>, INT[], ROW<a INT, b TEXT>. Whether there is
 * such a type is not known here. */
#include "sql/language/parse_int.h"

#define TYPE_NUMBER_MAX 1000000

static struct slice lower_copy(struct parser *p, struct slice text)
{
    uint8_t *copy = arena_take(p->arena, text.len);
    if (!copy) {
        fail_at(p, p->token.at, 0, SQL_FAULT_MEMORY, "no memory for the statement");
        return slice_of("", 0);
    }
    for (size_t i = 0; i < text.len; i++)
        copy[i] = text.ptr[i] >= 'A' && text.ptr[i] <= 'Z' ? text.ptr[i] | 0x20 : text.ptr[i];
    return slice_of(copy, text.len);
}

static void parse_numbers(struct parser *p, struct ast_type *n)
{
    if (!accept_symbol(p, SYMBOL_LPAREN))
        return;
    n->precision = parse_count(p, "the precision", TYPE_NUMBER_MAX);
    if (accept_symbol(p, SYMBOL_COMMA))
        n->scale = parse_count(p, "the scale", TYPE_NUMBER_MAX);
    expect_symbol(p, SYMBOL_RPAREN);
}

/* <type, type>, <name type, …>, or the same in parentheses. */
static void parse_args(struct parser *p, struct ast_type *n, bool named)
{
    bool round = is_symbol(p, SYMBOL_LPAREN);
    if (!round)
        expect_symbol(p, SYMBOL_LT);
    else
        advance(p);
    do {
        if (named) {
            names_add(p, &n->fields, parse_name(p, "a field's name"));
            accept_symbol(p, SYMBOL_COLON);
        }
        list_add(p, &n->args, parse_type(p));
    } while (accept_symbol(p, SYMBOL_COMMA));
    expect_symbol(p, round ? SYMBOL_RPAREN : SYMBOL_GT);
}

/* Types of several words become one name. */
static void parse_words(struct parser *p, struct ast_type *n)
{
    bool time = slice_is(n->name, "timestamp") || slice_is(n->name, "time");
    if (slice_is(n->name, "double") && accept_keyword(p, KEYWORD_PRECISION))
        n->name = slice_str("double precision");
    else if ((slice_is(n->name, "character") || slice_is(n->name, "char")) && accept_word(p, "varying"))
        n->name = slice_str("character varying");
    parse_numbers(p, n);
    if (!time)
        return;
    bool timestamp = slice_is(n->name, "timestamp");
    bool with = is_keyword(p, KEYWORD_WITH) && (ahead_keyword(p, KEYWORD_TIME) || ahead_keyword(p, KEYWORD_LOCAL));
    if (!with && !(is_keyword(p, KEYWORD_WITHOUT) && ahead_keyword(p, KEYWORD_TIME)))
        return;
    advance(p);
    if (with)
        accept_keyword(p, KEYWORD_LOCAL);
    expect_keyword(p, KEYWORD_TIME);
    expect_keyword(p, KEYWORD_ZONE);
    if (with)
        n->name = slice_str(timestamp ? "timestamp with time zone" : "time with time zone");
}

static struct ast *parse_one(struct parser *p)
{
    struct ast_type *n = NODE_NEW(p, TYPE, type);
    bool array = is_keyword(p, KEYWORD_ARRAY), map = is_keyword(p, KEYWORD_MAP);
    bool row = is_keyword(p, KEYWORD_ROW) || is_keyword(p, KEYWORD_STRUCT);
    n->precision = n->scale = -1;
    if (array || map || row) {
        n->name = slice_str(array ? "array" : map ? "map" : "row");
        advance(p);
        parse_args(p, n, row);
        if (!p->failed && n->args.count != (map ? 2u : 1u) && !row)
            fail_at(p, n->ast.at, p->last.at + p->last.len - n->ast.at, SQL_FAULT_SYNTAX, "%s",
                    map ? "a map has two types, of its keys and of its values"
                        : "an array has one type, that of its elements");
        return node_end(p, n);
    }
    if (!is_name(p)) {
        fail_expected_only(p, "a type");
        return node_end(p, n);
    }
    n->name = lower_copy(p, p->token.text);
    advance(p);
    parse_words(p, n);
    return node_end(p, n);
}

struct ast *parse_type(struct parser *p)
{
    if (!nest(p))
        return node_new(p, AST_TYPE, p->token.at);
    struct ast *type = parse_one(p);
    while (is_symbol(p, SYMBOL_LBRACKET) && ahead_symbol(p, SYMBOL_RBRACKET)) {
        struct ast_type *n = NODE_AT(p, TYPE, type, type);
        advance(p);
        advance(p);
        n->name = slice_str("array");
        n->precision = n->scale = -1;
        list_add(p, &n->args, type);
        type = node_end(p, n);
    }
    unnest(p);
    return type;
}
