/* The lexer, see lex.h. */
#include "sql/language/lex.h"

#include <stdio.h>

static const struct {
    const char *text;
    enum keyword_freedom freedom;
} keywords[] = {
    {"", KEYWORD_FREE},
#define KEYWORD(name, freedom) {#name, KEYWORD_##freedom},
#include "sql/language/keywords.def"
#undef KEYWORD
};

static const char *const symbols[] = {
    "",
#define SYMBOL(name, text) text,
#include "sql/language/symbols.def"
#undef SYMBOL
};

const char *keyword_text(enum keyword keyword)
{
    return keywords[keyword].text;
}

const char *symbol_text(enum symbol symbol)
{
    return symbols[symbol];
}

enum keyword_freedom keyword_freedom(enum keyword keyword)
{
    return keywords[keyword].freedom;
}

/* As strcasecmp, of a word that has no end. */
static int compare(struct slice word, const char *keyword)
{
    for (size_t i = 0; i < word.len; i++) {
        int c = word.ptr[i] >= 'a' && word.ptr[i] <= 'z' ? word.ptr[i] - 0x20 : word.ptr[i];
        if (c != (uint8_t)keyword[i])
            return c - (uint8_t)keyword[i];
    }
    return keyword[word.len] ? -1 : 0;
}

enum keyword keyword_find(struct slice text)
{
    size_t low = 1, high = KEYWORDS;
    while (low < high) {
        size_t mid = (low + high) / 2;
        int order = compare(text, keywords[mid].text);
        if (order == 0)
            return (enum keyword)mid;
        if (order < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return KEYWORD_NONE;
}

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static bool starts_name(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c >= 0x80;
}

static bool within_name(uint8_t c)
{
    return starts_name(c) || is_digit(c) || c == '$';
}

bool name_needs_quotes(struct slice name)
{
    if (!name.len || !starts_name(name.ptr[0]) || keyword_freedom(keyword_find(name)) != KEYWORD_FREE)
        return true;
    for (size_t i = 0; i < name.len; i++)
        if (!within_name(name.ptr[i]))
            return true;
    return false;
}

struct lexer lex_of(struct slice text, struct arena *arena, struct sql_error *error)
{
    const uint8_t *begin = text.len ? text.ptr : (const uint8_t *)"";
    return (struct lexer){.begin = begin, .at = begin, .end = begin + text.len, .arena = arena, .error = error};
}

static struct token bad(struct lexer *l, enum sql_fault fault, const uint8_t *at, const uint8_t *end, const char *why)
{
    uint32_t place = (uint32_t)(at - l->begin), len = (uint32_t)(end - at);
    l->at = l->end;
    sql_error_set(l->error, fault, place, len, "%s", why);
    return (struct token){.kind = TOKEN_BAD, .at = place, .len = len};
}

static struct token token(const struct lexer *l, enum token_kind kind, const uint8_t *from, struct slice text)
{
    return (struct token){
        .kind = kind, .at = (uint32_t)(from - l->begin), .len = (uint32_t)(l->at - from), .text = text};
}

/* Behind white space and comments. NULL: a comment that does not end. */
static const uint8_t *skip_space(const uint8_t *p, const uint8_t *end)
{
    unsigned nested = 0;
    while (p < end) {
        bool pair = end - p >= 2;
        if (pair && p[0] == '/' && p[1] == '*') {
            nested++;
            p += 2;
        } else if (nested && pair && p[0] == '*' && p[1] == '/') {
            nested--;
            p += 2;
        } else if (nested || *p == ' ' || (*p >= '\t' && *p <= '\r')) {
            p++;
        } else if (pair && p[0] == '-' && p[1] == '-') {
            const uint8_t *line = memchr(p, '\n', (size_t)(end - p));
            p = line ? line : end;
        } else {
            return p;
        }
    }
    return nested ? NULL : p;
}

/* From behind the opening quote: a doubled quote is one. */
static struct token quoted(struct lexer *l, const uint8_t *from, uint8_t quote, enum token_kind kind)
{
    const uint8_t *p = from + 1, *start = p;
    size_t doubled = 0;
    for (;; p++) {
        p = memchr(p, quote, (size_t)(l->end - p));
        if (!p)
            return bad(l, SQL_FAULT_SYNTAX, from, from + 1,
                       kind == TOKEN_STRING ? "a text that does not end" : "a quoted name that does not end");
        if (p + 1 == l->end || p[1] != quote)
            break;
        p++;
        doubled++;
    }
    struct slice text = slice_of(start, (size_t)(p - start));
    l->at = p + 1;
    if (doubled) {
        uint8_t *copy = arena_take(l->arena, text.len - doubled);
        if (!copy)
            return bad(l, SQL_FAULT_MEMORY, from, p, "no memory for the statement");
        size_t len = 0;
        for (const uint8_t *c = start; c < p; c += 1 + (*c == quote))
            copy[len++] = *c;
        text = slice_of(copy, len);
    }
    if (kind == TOKEN_QUOTED && !text.len)
        return bad(l, SQL_FAULT_SYNTAX, from, l->at, "a name without a letter");
    return token(l, kind, from, text);
}

static int hex_digit(uint8_t c)
{
    if (is_digit(c))
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static size_t put_utf8(uint32_t code, uint8_t *out)
{
    size_t len = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const uint8_t heads[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = len; i-- > 1; code >>= 6)
        out[i] = (uint8_t)(0x80 | (code & 0x3f));
    out[0] = (uint8_t)(heads[len] | code);
    return len;
}

/* The escape whose backslash is at *p: into at most 4 bytes, which is never more than it is long. 0: there is none such. */
static size_t escape(const uint8_t **p, const uint8_t *end, uint8_t *out)
{
    static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
    if (end - *p < 2)
        return 0;
    uint8_t kind = (*p)[1];
    int digits = kind == 'u' ? 4 : kind == 'U' ? 8 : kind == 'x' ? 2 : 0;
    *p += 2;
    if (!digits) {
        const char *found = memchr(from, kind, sizeof from - 1);
        *out = found ? (uint8_t)to[found - from] : kind;
        return kind >= 0x80 || is_digit(kind) ? 0 : 1;
    }
    uint32_t code = 0;
    for (; digits > 0 && *p < end && hex_digit(**p) >= 0; digits--, (*p)++)
        code = code * 16 + (uint32_t)hex_digit(**p);
    /* \xHH is a byte in PostgreSQL; here it is a character, so a text stays UTF-8 */
    if (digits || code == 0 || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
        return 0;
    return put_utf8(code, out);
}

/* E'…' with backslashes; from is at the E. */
static struct token escaped(struct lexer *l, const uint8_t *from)
{
    const uint8_t *p = from + 2, *stop = p;
    while (stop < l->end && (*stop != '\'' || (l->end - stop >= 2 && stop[1] == '\'')))
        stop += l->end - stop >= 2 && (*stop == '\\' || *stop == '\'') ? 2 : 1;
    uint8_t *out = arena_take(l->arena, (size_t)(stop - p)); /* what is decoded is never longer */
    size_t len = 0;
    if (!out)
        return bad(l, SQL_FAULT_MEMORY, from, p, "no memory for the statement");
    while (p < l->end) {
        if (*p == '\'' && (p + 1 == l->end || p[1] != '\'')) {
            l->at = p + 1;
            return token(l, TOKEN_STRING, from, slice_of(out, len));
        }
        if (*p == '\\') {
            const uint8_t *at = p;
            size_t took = escape(&p, l->end, out + len);
            if (!took)
                return bad(l, SQL_FAULT_SYNTAX, at, p < l->end ? p : l->end, "an escape that there is not");
            len += took;
        } else {
            p += *p == '\'';
            out[len++] = *p++;
        }
    }
    return bad(l, SQL_FAULT_SYNTAX, from, from + 2, "a text that does not end");
}

/* $tag$ … $tag$; from is at the first dollar. */
static struct token dollars(struct lexer *l, const uint8_t *from)
{
    const uint8_t *p = from + 1;
    while (p < l->end && within_name(*p) && *p != '$')
        p++;
    if (p == l->end || *p != '$' || is_digit(from[1]))
        return bad(l, SQL_FAULT_SYNTAX, from, from + 1, "a character that has no meaning here");
    size_t tag = (size_t)(p + 1 - from);
    const uint8_t *end = memmem(p + 1, (size_t)(l->end - p - 1), from, tag);
    if (!end)
        return bad(l, SQL_FAULT_SYNTAX, from, p + 1, "a text that does not end");
    l->at = end + tag;
    return token(l, TOKEN_STRING, from, slice_of(p + 1, (size_t)(end - p - 1)));
}

static struct token number(struct lexer *l, const uint8_t *from)
{
    const uint8_t *p = from;
    while (p < l->end && is_digit(*p))
        p++;
    if (p < l->end && *p == '.')
        for (p++; p < l->end && is_digit(*p);)
            p++;
    if (p < l->end && (*p | 0x20) == 'e') {
        const uint8_t *digits = p + 1;
        if (digits < l->end && (*digits == '+' || *digits == '-'))
            digits++;
        if (digits < l->end && is_digit(*digits))
            for (p = digits; p < l->end && is_digit(*p);)
                p++;
    }
    if (p < l->end && within_name(*p))
        return bad(l, SQL_FAULT_SYNTAX, from, p + 1, "a number with letters behind it");
    l->at = p;
    return token(l, TOKEN_NUMBER, from, slice_of(from, (size_t)(p - from)));
}

static struct token name(struct lexer *l, const uint8_t *from)
{
    const uint8_t *p = from;
    while (p < l->end && within_name(*p))
        p++;
    l->at = p;
    struct token t = token(l, TOKEN_NAME, from, slice_of(from, (size_t)(p - from)));
    t.keyword = keyword_find(t.text);
    return t;
}

static struct token symbol(struct lexer *l, const uint8_t *from)
{
    size_t left = (size_t)(l->end - from);
    for (unsigned i = 1; i < SYMBOLS; i++) {
        size_t len = strlen(symbols[i]);
        if (len <= left && memcmp(symbols[i], from, len) == 0) {
            l->at = from + len;
            struct token t = token(l, TOKEN_SYMBOL, from, slice_of(from, len));
            t.symbol = (enum symbol)i;
            return t;
        }
    }
    return bad(l, SQL_FAULT_SYNTAX, from, from + 1, "a character that has no meaning here");
}

struct token lex_next(struct lexer *l)
{
    const uint8_t *p = skip_space(l->at, l->end);
    if (!p)
        return bad(l, SQL_FAULT_SYNTAX, l->at, l->at, "a comment that does not end");
    l->at = p;
    if (p == l->end)
        return token(l, TOKEN_END, p, (struct slice){0});
    if (*p == '\'')
        return quoted(l, p, '\'', TOKEN_STRING);
    if ((*p | 0x20) == 'e' && l->end - p >= 2 && p[1] == '\'')
        return escaped(l, p);
    if (*p == '"' || *p == '`')
        return quoted(l, p, *p, TOKEN_QUOTED);
    if (*p == '$')
        return dollars(l, p);
    if (is_digit(*p) || (*p == '.' && l->end - p >= 2 && is_digit(p[1])))
        return number(l, p);
    return starts_name(*p) ? name(l, p) : symbol(l, p);
}
