/* print: a syntax tree as text again, on one line, in the one spelling that each construct has here. Parsing it gives an equal tree.
 * Any one thread; nothing is allocated.
 */
#ifndef MILLRACE_SQL_LANGUAGE_PRINT_H
#define MILLRACE_SQL_LANGUAGE_PRINT_H

#include "base/writer.h"
#include "sql/language/ast.h"

/* Any node: a statement, an expression, a type. Writes behind what `out` holds; check writer_ok. */
void sql_print(const struct ast *node, struct writer *out);

#endif
