/* print_int: what the files of the printer share. */
#ifndef MILLRACE_SQL_LANGUAGE_PRINT_INT_H
#define MILLRACE_SQL_LANGUAGE_PRINT_INT_H

#include "sql/language/print.h"

/* print.c */
void put(struct writer *out, const char *text);
void put_number(struct writer *out, int64_t number);
void put_name(struct writer *out, struct slice name);
void put_names(struct writer *out, const struct ast_names *names, const char *between);
void put_string(struct writer *out, struct slice text);
/* a, b, c: expressions that bind at least that tightly */
void put_list(struct writer *out, const struct ast_list *list);
/* In parentheses when it binds less tightly than `least`. */
void put_expr(struct writer *out, const struct ast *node, int least);

/* print_query.c; false: the node is of another kind */
bool print_query(struct writer *out, const struct ast *node);
void put_query(struct writer *out, const struct ast *node);
void put_window(struct writer *out, const struct ast *node);
void put_order(struct writer *out, const struct ast_list *list);
void put_row(struct writer *out, const struct ast *node); /* without the word ROW */
void put_emit(struct writer *out, const struct ast *node);

/* print_statement.c */
bool print_statement(struct writer *out, const struct ast *node);

#endif
