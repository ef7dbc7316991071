/* parse_int: what the files of the parser share.
 *
 * Failure is sticky, as with base/reader: the first error stays, from then on the current token is TOKEN_END, accept_* say no and
 * every function answers some node, so nobody checks in between; sql_parse looks once at the end. Loops end since they go on only
 * after an accept. A function answers the node it made, never NULL.
 */
#ifndef MILLRACE_SQL_LANGUAGE_PARSE_INT_H
#define MILLRACE_SQL_LANGUAGE_PARSE_INT_H

#include "sql/language/lex.h"
#include "sql/language/parse.h"

#define EXPECTED_MAX 24u

struct parser {
    struct lexer lexer;
    struct arena *arena;
    struct sql_error *error;
    struct token token, ahead; /* the current one, and the one behind it */
    struct token last;         /* the one before the current */
    unsigned nested;
    bool failed;
    bool matching; /* in MEASURES or DEFINE, where FINAL and RUNNING may stand in front of a call */
    /* What was asked for at the current token and was not it: an error lists these. */
    struct {
        enum keyword keyword;
        enum symbol symbol;
    } expected[EXPECTED_MAX];
    unsigned expected_count;
    uint64_t scrap[64]; /* a node when there is no memory for one */
};

/* parse.c */
void advance(struct parser *p);
bool is_keyword(struct parser *p, enum keyword keyword); /* remembered as expected when not */
bool is_symbol(struct parser *p, enum symbol symbol);
bool ahead_keyword(const struct parser *p, enum keyword keyword);
bool ahead_symbol(const struct parser *p, enum symbol symbol);
bool accept_keyword(struct parser *p, enum keyword keyword);
bool accept_symbol(struct parser *p, enum symbol symbol);
bool accept_keywords(struct parser *p, enum keyword first, enum keyword second); /* both or none */
void expect_keyword(struct parser *p, enum keyword keyword);
void expect_symbol(struct parser *p, enum symbol symbol);
/* The word is not in the table of keywords, as it is one in this place only. */
bool accept_word(struct parser *p, const char *word);
void fail_at(struct parser *p, uint32_t at, uint32_t len, enum sql_fault fault, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
/* `expected WHAT or one of what was asked for, found …` at the current token. */
void fail_expected(struct parser *p, const char *what);
/* The same, but what was asked for only helps to find a word that was mistyped. */
void fail_expected_only(struct parser *p, const char *what);
bool is_name(const struct parser *p);
struct slice parse_name(struct parser *p, const char *what);
struct slice parse_string(struct parser *p, const char *what);
int64_t parse_count(struct parser *p, const char *what, int64_t most);
/* a.b.c; the first part has been looked at, or is an error. */
struct ast_names parse_names_dotted(struct parser *p, const char *what);
/* ( a, b, c ) */
struct ast_names parse_names_listed(struct parser *p, const char *what);
bool nest(struct parser *p); /* false, and failed, when too deep; else unnest */
void unnest(struct parser *p);

void *node_new(struct parser *p, enum ast_kind kind, uint32_t at);
struct ast *node_end(struct parser *p, void *node); /* its length and depth are known now */
void list_add(struct parser *p, struct ast_list *list, struct ast *node);
void names_add(struct parser *p, struct ast_names *names, struct slice name);
/* struct ast_binary *n = NODE_NEW(p, BINARY, binary); begins at the current token. */
#define NODE_NEW(p, KIND, name) ((struct ast_##name *)node_new(p, AST_##KIND, (p)->token.at))
#define NODE_AT(p, KIND, name, from) ((struct ast_##name *)node_new(p, AST_##KIND, (from)->at))

/* parse_expr.c */
struct ast *parse_expr(struct parser *p);
struct ast *parse_expr_above(struct parser *p, int least);
void parse_exprs(struct parser *p, struct ast_list *list); /* a, b, c: at least one */
struct ast *parse_window(struct parser *p);                /* ( … ) */

/* parse_call.c */
struct ast *parse_call(struct parser *p, uint32_t at, struct ast_names name);
/* Special forms that begin with a word: EXTRACT, TRIM …; NULL: it is none. */
struct ast *parse_special_call(struct parser *p);

/* parse_type.c */
struct ast *parse_type(struct parser *p);

/* parse_query.c */
struct ast *parse_query(struct parser *p);
bool at_query(struct parser *p);
/* What stood in parentheses was a query and is the first part of a longer one: ((SELECT 1) UNION SELECT 2). */
bool at_query_rest(struct parser *p);
struct ast *parse_query_rest(struct parser *p, struct ast *first);
void parse_order_list(struct parser *p, struct ast_list *list);
void parse_items(struct parser *p, struct ast_list *list);
struct ast *parse_values_row(struct parser *p);
bool accept_emit(struct parser *p, struct ast **ret);

/* parse_from.c */
struct ast *parse_from(struct parser *p);
void parse_alias(struct parser *p, struct slice *alias, struct ast_names *columns);

/* parse_match.c */
struct ast *parse_match(struct parser *p, struct ast *source);

/* parse_create.c: a statement that begins at the current token */
struct ast *parse_statement(struct parser *p);
void parse_options(struct parser *p, struct ast_list *list); /* WITH ( … ), or nothing */

/* parse_object.c */
struct ast *parse_create(struct parser *p);
struct ast *parse_alter(struct parser *p);
struct ast *parse_drop(struct parser *p);

#endif
