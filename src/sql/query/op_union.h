/* op_union: the rows of two inputs, one behind the other by origin, of the same origin first those of the left one: UNION ALL.
 *
 * When no step can bring rows of both (apart), they are passed as they come; else those of a step are kept until its flush. Between steps it keeps
 * nothing. One thread.
 */
#ifndef MILLRACE_SQL_QUERY_OP_UNION_H
#define MILLRACE_SQL_QUERY_OP_UNION_H

#include "sql/query/op.h"

/* The types of its columns, which are those of both inputs; lent. NULL: no memory. */
struct op *op_union_new(struct budget *budget, const struct sql_type *types, uint32_t count, bool apart);
struct op *op_union_input(struct op *op, unsigned side);

#endif
