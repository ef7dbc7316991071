/* constant: values that stand in a statement, and values as those who ask see them: the rows of VALUES, and the answers that they are compared
 * with.
 *
 *   constant_value (a row's values, one by one) ▸ use the columns ▸ arena_recycle(batch)
 *
 * One thread.
 */
#ifndef MILLRACE_SQL_LANGUAGE_CONSTANT_H
#define MILLRACE_SQL_LANGUAGE_CONSTANT_H

#include "sql/language/eval.h"
#include "sql/language/lines.h"

struct constants {
    struct arena *arena; /* of the expressions; as long as the statement */
    struct arena *batch; /* of the values */
    int64_t now_us;      /* what now() answers */
};

/* The expression's value as that type, in a column of one row. False: the error is set, with its place in the statement. */
MUST_USE bool constant_value(const struct constants *c, const struct ast *node, const struct sql_type *type,
                             struct column *ret, struct sql_error *error);
/* A value as JSON, by the rules of server.h. False: no memory for its text. */
MUST_USE bool constant_say(struct lines *l, struct eval *e, const struct sql_type *type, const struct column *column,
                           uint32_t row);

#endif
