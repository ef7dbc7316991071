/* op_every: EMIT EVERY: changes are gathered, and what they come to is given out when the clock passes the next whole interval: rows that are gone, then
 * rows that have come. What came and went in between is not said at all.
 *
 * The clock is that of rows (arrival, or the watermark), so a replay gives the same. One thread.
 */
#ifndef MILLRACE_SQL_QUERY_OP_EVERY_H
#define MILLRACE_SQL_QUERY_OP_EVERY_H

#include "sql/query/op.h"

/* The types of its columns, which are those of its input; copied. us: the interval, above 0. NULL: no memory. */
struct op *op_every_new(struct budget *budget, const struct clock *clock, int64_t us, const struct sql_type *types,
                        uint32_t count);

#endif
