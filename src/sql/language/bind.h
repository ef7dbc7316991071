/* bind: from what was written to what it means: names become columns, every expression gets its type, what has to be turned into
 * another type is, by PostgreSQL's rules, and what is constant is computed once.
 *
 * The expression is in the arena and ends with it. Any one thread.
 */
#ifndef MILLRACE_SQL_LANGUAGE_BIND_H
#define MILLRACE_SQL_LANGUAGE_BIND_H

#include "sql/language/eval.h"

struct scope_column {
    struct slice table, name; /* table empty: it has none */
    struct sql_type type;
    bool qualified; /* it is found with its table in front only */
};

/* What names can mean. Column i is column i of the batch. */
struct scope {
    const struct scope_column *columns;
    uint32_t count;
    /* What a planner puts in the place of columns, fields of a column that is a ROW, and any node; all NULL: nothing. column answers NULL
     * with the error set, field NULL when it has nothing, replace whether *ret (NULL: the error is set) is the node's meaning. */
    struct expr *(*column)(void *arg, uint32_t column);
    struct expr *(*field)(void *arg, struct expr *row, uint32_t field);
    bool (*replace)(void *arg, const struct ast *node, struct expr **ret);
    void *arg;
};

/* NULL: the error is set, with its place in the statement. */
MUST_USE struct expr *sql_bind(const struct ast *node, const struct scope *scope, struct arena *arena,
                               struct sql_error *error);
/* The same, turned into a type by itself: a condition is a BOOL. */
MUST_USE struct expr *sql_bind_as(const struct ast *node, const struct sql_type *type, const struct scope *scope,
                                  struct arena *arena, struct sql_error *error);

#endif
