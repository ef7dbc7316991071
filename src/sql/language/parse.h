/* parse: from the text of statements to syntax trees. The dialect is docs/sql.md's: PostgreSQL's expressions, Flink's windows, watermarks and
 * patterns, EMIT.
 *
 *   arena_init ▸ sql_parse ▸ use the trees ▸ arena_fini (or arena_reset)
 *
 * Whatever the text, it ends with trees or with one error that has a place in the text. The trees are in the arena, and so is a
 * copy of the text, so the text need not outlive the call. Any one thread.
 */
#ifndef MILLRACE_SQL_LANGUAGE_PARSE_H
#define MILLRACE_SQL_LANGUAGE_PARSE_H

#include "base/arena.h"
#include "sql/language/ast.h"
#include "sql/language/error.h"

#define SQL_TEXT_MAX (1u << 20)
#define SQL_NESTED_MAX 200u /* parentheses within parentheses, and the like */
#define SQL_DEPTH_MAX 1000u /* of a tree: also a + b + c … */
#define SQL_PARTS_MAX 8u    /* of a.b.c */
/* What an arena must be able to hold for any text of SQL_TEXT_MAX bytes to be parsed, or refused for what it says. */
#define SQL_PARSE_MEMORY_MAX (256u << 20)

/* Statements with semicolons between them; none at all is fine. */
MUST_USE bool sql_parse(struct slice text, struct arena *arena, struct ast_list *ret, struct sql_error *ret_error);
/* One expression and nothing behind it. */
MUST_USE bool sql_parse_expression(struct slice text, struct arena *arena, struct ast **ret,
                                   struct sql_error *ret_error);
/* One type and nothing behind it. */
MUST_USE bool sql_parse_type(struct slice text, struct arena *arena, struct ast **ret, struct sql_error *ret_error);

#endif
