/* The parser's tokens, errors and nodes, see parse_int.h; and the way in. */
#include "sql/language/parse_int.h"

#include <stdarg.h>
#include <stdio.h>

/* ---------------------------------------------------------------------------------------------------------- tokens */

static void stop(struct parser *p)
{
    p->failed = true;
    p->token = p->ahead = (struct token){.kind = TOKEN_END, .at = p->token.at};
}

void advance(struct parser *p)
{
    if (p->failed)
        return;
    p->last = p->token;
    p->token = p->ahead;
    p->expected_count = 0;
    if (p->token.kind == TOKEN_BAD) {
        stop(p);
        return;
    }
    if (p->token.kind != TOKEN_END)
        p->ahead = lex_next(&p->lexer);
}

static void remember(struct parser *p, enum keyword keyword, enum symbol symbol)
{
    if (p->failed || p->expected_count == EXPECTED_MAX)
        return;
    for (unsigned i = 0; i < p->expected_count; i++)
        if (p->expected[i].keyword == keyword && p->expected[i].symbol == symbol)
            return;
    p->expected[p->expected_count].keyword = keyword;
    p->expected[p->expected_count++].symbol = symbol;
}

bool is_keyword(struct parser *p, enum keyword keyword)
{
    if (p->token.kind == TOKEN_NAME && p->token.keyword == keyword)
        return true;
    remember(p, keyword, SYMBOL_NONE);
    return false;
}

bool is_symbol(struct parser *p, enum symbol symbol)
{
    if (p->token.kind == TOKEN_SYMBOL && p->token.symbol == symbol)
        return true;
    remember(p, KEYWORD_NONE, symbol);
    return false;
}

bool ahead_keyword(const struct parser *p, enum keyword keyword)
{
    return p->ahead.kind == TOKEN_NAME && p->ahead.keyword == keyword;
}

bool ahead_symbol(const struct parser *p, enum symbol symbol)
{
    return p->ahead.kind == TOKEN_SYMBOL && p->ahead.symbol == symbol;
}

bool accept_keyword(struct parser *p, enum keyword keyword)
{
    if (!is_keyword(p, keyword))
        return false;
    advance(p);
    return true;
}

bool accept_symbol(struct parser *p, enum symbol symbol)
{
    if (!is_symbol(p, symbol))
        return false;
    advance(p);
    return true;
}

bool accept_keywords(struct parser *p, enum keyword first, enum keyword second)
{
    if (!is_keyword(p, first) || !ahead_keyword(p, second))
        return false;
    advance(p);
    advance(p);
    return true;
}

void expect_keyword(struct parser *p, enum keyword keyword)
{
    if (!accept_keyword(p, keyword))
        fail_expected(p, NULL);
}

void expect_symbol(struct parser *p, enum symbol symbol)
{
    if (!accept_symbol(p, symbol))
        fail_expected(p, NULL);
}

bool accept_word(struct parser *p, const char *word)
{
    if (p->token.kind != TOKEN_NAME || !name_equal(p->token.text, slice_str(word)))
        return false;
    advance(p);
    return true;
}

/* ---------------------------------------------------------------------------------------------------------- errors */

void fail_at(struct parser *p, uint32_t at, uint32_t len, enum sql_fault fault, const char *format, ...)
{
    if (p->failed)
        return;
    char text[sizeof p->error->message];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    sql_error_set(p->error, fault, at, len, "%s", text);
    stop(p);
}

static const char *expected_text(const struct parser *p, unsigned i)
{
    return p->expected[i].keyword ? keyword_text(p->expected[i].keyword) : symbol_text(p->expected[i].symbol);
}

static void append(char *text, size_t room, size_t *len, const char *more)
{
    int wrote = snprintf(text + *len, room - *len, "%s", more);
    *len += wrote > 0 ? (size_t)wrote : 0;
    if (*len >= room)
        *len = room - 1;
}

/* A word that is nearly one of those expected here: the current one, or the one before, which was taken for an alias. */
static void hint_nearest(struct parser *p, const struct token *token)
{
    if (token->kind != TOKEN_NAME || (token->keyword && keyword_freedom(token->keyword) == KEYWORD_RESERVED) ||
        p->error->hint[0])
        return;
    struct nearest nearest = nearest_of(token->text);
    for (unsigned i = 0; i < p->expected_count; i++)
        if (p->expected[i].keyword && !name_equal(slice_str(expected_text(p, i)), token->text))
            nearest_try(&nearest, slice_str(expected_text(p, i)));
    if (nearest_found(&nearest))
        sql_error_hint(p->error, "did you mean %.*s instead of %.*s?", SLICE_ARG(nearest.best),
                       (int)(token->text.len < 40 ? token->text.len : 40), (const char *)token->text.ptr);
}

/* The longest list that helps; more is a page of grammar. */
#define LISTED_MAX 8u

static void expected(struct parser *p, const char *what, unsigned words)
{
    char text[200] = "";
    size_t len = 0;
    unsigned choices = words + (what != NULL), listed = choices < LISTED_MAX ? choices : LISTED_MAX;
    if (what)
        append(text, sizeof text, &len, what);
    for (unsigned i = 0; i < listed - (what != NULL); i++) {
        bool first = len == 0, last = i + 1 == listed - (what != NULL);
        append(text, sizeof text, &len, first ? "" : last && choices == listed ? " or " : ", ");
        append(text, sizeof text, &len, p->expected[i].keyword ? "" : "\"");
        append(text, sizeof text, &len, expected_text(p, i));
        append(text, sizeof text, &len, p->expected[i].keyword ? "" : "\"");
    }
    if (listed < choices)
        append(text, sizeof text, &len, ", …");
    struct token token = p->token, last = p->last;
    struct slice found = slice_of(p->lexer.begin + token.at, token.len < 60 ? token.len : 60);
    if (token.kind == TOKEN_END)
        sql_error_set(p->error, SQL_FAULT_SYNTAX, token.at, 0, "expected %s, but the text ends here", text);
    else if (token.kind == TOKEN_STRING || token.kind == TOKEN_QUOTED)
        sql_error_set(p->error, SQL_FAULT_SYNTAX, token.at, token.len, "expected %s, found %.*s", text,
                      SLICE_ARG(found));
    else
        sql_error_set(p->error, SQL_FAULT_SYNTAX, token.at, token.len, "expected %s, found \"%.*s\"", text,
                      SLICE_ARG(found));
    hint_nearest(p, &token);
    hint_nearest(p, &last);
    stop(p);
}

void fail_expected(struct parser *p, const char *what)
{
    if (!p->failed)
        expected(p, what, p->expected_count);
}

void fail_expected_only(struct parser *p, const char *what)
{
    if (!p->failed)
        expected(p, what, 0);
}

bool nest(struct parser *p)
{
    if (p->nested == SQL_NESTED_MAX)
        fail_at(p, p->token.at, p->token.len, SQL_FAULT_LIMIT, "nested more than %u deep", SQL_NESTED_MAX);
    if (p->failed)
        return false;
    p->nested++;
    return true;
}

void unnest(struct parser *p)
{
    p->nested--;
}

/* ----------------------------------------------------------------------------------------------------------- names */

bool is_name(const struct parser *p)
{
    return p->token.kind == TOKEN_QUOTED ||
           (p->token.kind == TOKEN_NAME &&
            (!p->token.keyword || keyword_freedom(p->token.keyword) != KEYWORD_RESERVED));
}

struct slice parse_name(struct parser *p, const char *what)
{
    struct slice name = p->token.text;
    if (is_name(p)) {
        advance(p);
        return name;
    }
    fail_expected(p, what);
    return slice_of("", 0);
}

struct slice parse_string(struct parser *p, const char *what)
{
    struct slice text = p->token.text;
    if (p->token.kind == TOKEN_STRING) {
        advance(p);
        return text.ptr ? text : slice_of("", 0);
    }
    fail_expected(p, what);
    return slice_of("", 0);
}

int64_t parse_count(struct parser *p, const char *what, int64_t most)
{
    struct token token = p->token;
    int64_t number = 0;
    if (token.kind != TOKEN_NUMBER) {
        fail_expected(p, what);
        return 0;
    }
    for (size_t i = 0; i < token.text.len; i++) {
        uint8_t digit = (uint8_t)(token.text.ptr[i] - '0');
        if (digit > 9 || number > most) {
            number = most + 1;
            break;
        }
        number = number * 10 + digit;
    }
    if (number > most)
        fail_at(p, token.at, token.len, SQL_FAULT_VALUE, "%s must be a whole number of at most %lld", what,
                (long long)most);
    advance(p);
    return number;
}

struct ast_names parse_names_dotted(struct parser *p, const char *what)
{
    struct ast_names names = {0};
    names_add(p, &names, parse_name(p, what));
    while (accept_symbol(p, SYMBOL_DOT)) {
        if (names.count == SQL_PARTS_MAX)
            fail_at(p, p->token.at, p->token.len, SQL_FAULT_LIMIT, "a name of more than %u parts", SQL_PARTS_MAX);
        names_add(p, &names, parse_name(p, "a name behind the point"));
    }
    return names;
}

struct ast_names parse_names_listed(struct parser *p, const char *what)
{
    struct ast_names names = {0};
    expect_symbol(p, SYMBOL_LPAREN);
    do
        names_add(p, &names, parse_name(p, what));
    while (accept_symbol(p, SYMBOL_COMMA));
    expect_symbol(p, SYMBOL_RPAREN);
    return names;
}

/* ----------------------------------------------------------------------------------------------------------- nodes */

static void no_memory(struct parser *p)
{
    fail_at(p, p->token.at, p->token.len, SQL_FAULT_MEMORY, "no memory for the statement");
}

void *node_new(struct parser *p, enum ast_kind kind, uint32_t at)
{
    size_t size = ast_size(kind);
    struct ast *node = p->failed ? NULL : arena_take(p->arena, size);
    if (!node) {
        no_memory(p);
        _Static_assert(sizeof p->scrap >= sizeof(struct ast_match), "scrap holds any node");
        node = (struct ast *)p->scrap;
    }
    memset(node, 0, size);
    node->kind = (uint16_t)kind;
    node->at = at;
    return node;
}

struct ast *node_end(struct parser *p, void *made)
{
    struct ast *node = made;
    if (p->failed)
        return node;
    node->len = p->last.at + p->last.len - node->at;
    if (!ast_measure(node, SQL_DEPTH_MAX))
        fail_at(p, node->at, 1, SQL_FAULT_LIMIT, "an expression of more than %u steps", SQL_DEPTH_MAX);
    return node;
}

/* A list grows when its length is a power of two; what it grows out of stays in the arena. */
static void *list_room(struct parser *p, void *items, size_t count, size_t size)
{
    if (p->failed || (count && (count & (count - 1))))
        return items;
    void *more = arena_take(p->arena, (count ? 2 * count : 1) * size);
    if (!more) {
        no_memory(p);
        return items;
    }
    if (count)
        memcpy(more, items, count * size);
    return more;
}

void list_add(struct parser *p, struct ast_list *list, struct ast *node)
{
    list->at = list_room(p, list->at, list->count, sizeof *list->at);
    if (!p->failed)
        list->at[list->count++] = node;
}

void names_add(struct parser *p, struct ast_names *names, struct slice name)
{
    names->at = list_room(p, names->at, names->count, sizeof *names->at);
    if (!p->failed)
        names->at[names->count++] = name;
}

/* ---------------------------------------------------------------------------------------------------------- the way in */

/* The place of the first byte that is no UTF-8, or is zero; the length: none is. */
static size_t check_utf8(struct slice text)
{
    static const struct {
        uint8_t first, last, least, most; /* of the second byte */
        uint8_t more;
    } forms[] = {{0xc2, 0xdf, 0x80, 0xbf, 1}, {0xe0, 0xe0, 0xa0, 0xbf, 2}, {0xe1, 0xec, 0x80, 0xbf, 2},
                 {0xed, 0xed, 0x80, 0x9f, 2}, {0xee, 0xef, 0x80, 0xbf, 2}, {0xf0, 0xf0, 0x90, 0xbf, 3},
                 {0xf1, 0xf3, 0x80, 0xbf, 3}, {0xf4, 0xf4, 0x80, 0x8f, 3}};
    for (size_t i = 0; i < text.len;) {
        const uint8_t *c = text.ptr + i;
        if (*c && *c < 0x80) {
            i++;
            continue;
        }
        size_t form = 0;
        while (form < ARRAY_LEN(forms) && (*c < forms[form].first || *c > forms[form].last))
            form++;
        if (form == ARRAY_LEN(forms) || text.len - i <= forms[form].more || c[1] < forms[form].least ||
            c[1] > forms[form].most)
            return i;
        for (unsigned k = 2; k <= forms[form].more; k++)
            if ((c[k] & 0xc0) != 0x80)
                return i;
        i += forms[form].more + 1u;
    }
    return text.len;
}

/* False: there is nothing to parse, the error is set. The text is copied, so that the tree needs nobody else. */
static bool begin(struct parser *p, struct slice text, struct arena *arena, struct sql_error *error)
{
    *error = (struct sql_error){0};
    *p = (struct parser){.arena = arena, .error = error};
    if (text.len > SQL_TEXT_MAX) {
        sql_error_set(error, SQL_FAULT_LIMIT, 0, 0, "a text of more than %u bytes", SQL_TEXT_MAX);
        return false;
    }
    size_t valid = check_utf8(text);
    if (valid < text.len) {
        sql_error_set(error, SQL_FAULT_SYNTAX, (uint32_t)valid, 1, "a byte that is no character in UTF-8");
        return false;
    }
    uint8_t *copy = arena_take(arena, text.len);
    if (!copy) {
        sql_error_set(error, SQL_FAULT_MEMORY, 0, 0, "no memory for the statement");
        return false;
    }
    if (text.len)
        memcpy(copy, text.ptr, text.len);
    p->lexer = lex_of(slice_of(copy, text.len), arena, error);
    p->ahead = lex_next(&p->lexer);
    advance(p);
    return true;
}

static void expect_end(struct parser *p)
{
    if (!p->failed && p->token.kind != TOKEN_END)
        fail_expected(p, "the end");
}

bool sql_parse(struct slice text, struct arena *arena, struct ast_list *ret, struct sql_error *ret_error)
{
    struct parser p;
    struct ast_list list = {0};
    if (!begin(&p, text, arena, ret_error))
        return false;
    while (!p.failed && p.token.kind != TOKEN_END) {
        if (accept_symbol(&p, SYMBOL_SEMICOLON))
            continue;
        list_add(&p, &list, parse_statement(&p));
        if (p.token.kind != TOKEN_END && !accept_symbol(&p, SYMBOL_SEMICOLON))
            fail_expected(&p, NULL);
    }
    if (p.failed)
        return false;
    *ret = list;
    return true;
}

bool sql_parse_expression(struct slice text, struct arena *arena, struct ast **ret, struct sql_error *ret_error)
{
    struct parser p;
    if (!begin(&p, text, arena, ret_error))
        return false;
    struct ast *node = parse_expr(&p);
    expect_end(&p);
    if (p.failed)
        return false;
    *ret = node;
    return true;
}

bool sql_parse_type(struct slice text, struct arena *arena, struct ast **ret, struct sql_error *ret_error)
{
    struct parser p;
    if (!begin(&p, text, arena, ret_error))
        return false;
    struct ast *node = parse_type(&p);
    expect_end(&p);
    if (p.failed)
        return false;
    *ret = node;
    return true;
}
