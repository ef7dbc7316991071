/* lex: the text of a statement, token by token, by PostgreSQL's rules: names fold no case here, "quoted" or `quoted` names, 'texts',
 * E'texts with escapes', $tag$texts$tag$, numbers, symbols, -- and nested comments.
 *
 *   lex_of ▸ lex_next … until TOKEN_END or TOKEN_BAD
 *
 * The text must outlive the tokens: what needed no decoding is a view into it, the rest is in the arena. Any one thread.
 */
#ifndef MILLRACE_SQL_LANGUAGE_LEX_H
#define MILLRACE_SQL_LANGUAGE_LEX_H

#include "base/arena.h"
#include "sql/language/error.h"

enum keyword {
    KEYWORD_NONE,
#define KEYWORD(name, freedom) KEYWORD_##name,
#include "sql/language/keywords.def"
#undef KEYWORD
    KEYWORDS
};

enum symbol {
    SYMBOL_NONE,
#define SYMBOL(name, text) SYMBOL_##name,
#include "sql/language/symbols.def"
#undef SYMBOL
    SYMBOLS
};

enum keyword_freedom { KEYWORD_FREE, KEYWORD_NO_ALIAS, KEYWORD_RESERVED };

enum token_kind {
    TOKEN_END,
    TOKEN_NAME,   /* without quotes; keyword says whether it is a word of the language */
    TOKEN_QUOTED, /* a name in quotes */
    TOKEN_STRING,
    TOKEN_NUMBER, /* digits, point and exponent as written */
    TOKEN_SYMBOL,
    TOKEN_BAD, /* the error is set; there is nothing behind it */
};

struct token {
    enum token_kind kind;
    enum keyword keyword;
    enum symbol symbol;
    uint32_t at, len; /* in the text, quotes included */
    struct slice text;
};

struct lexer {
    const uint8_t *begin, *at, *end;
    struct arena *arena;
    struct sql_error *error;
};

struct lexer lex_of(struct slice text, struct arena *arena, struct sql_error *error);
struct token lex_next(struct lexer *lexer);

const char *keyword_text(enum keyword keyword);
const char *symbol_text(enum symbol symbol);
enum keyword_freedom keyword_freedom(enum keyword keyword);
/* KEYWORD_NONE: it is no word of the language. */
enum keyword keyword_find(struct slice text);
/* Whether a name must be quoted to be read back as the same name. */
bool name_needs_quotes(struct slice name);

#endif
