/* op_session: GROUP BY SESSION windows: rows of the same keys that are less than a gap apart are one window, which ends a gap after its last row.
 *
 * Columns are those of op_aggregate: keys, time, arguments; out go keys, window_start, window_end, aggregates.
 *
 * A row that joins two sessions makes one of them. A session is complete when the watermark has passed its end; with changes false it is pushed then, with
 * true each change of it is pushed as it comes. A row that would be a session of its own that is complete already is late: counted, and not used.
 */
#ifndef MILLRACE_SQL_QUERY_OP_SESSION_H
#define MILLRACE_SQL_QUERY_OP_SESSION_H

#include "sql/query/op_aggregate.h"

/* The gap is rule->size; rule->kind is SPAN_SESSION. Types: of the output's columns. All is copied. NULL: no memory. */
MUST_USE struct op *op_session_new(struct budget *budget, const struct span_rule *rule, bool changes,
                                   const struct sql_type *types, uint32_t type_count, uint32_t keys,
                                   const struct aggregate *aggregates, uint32_t count);

#endif
