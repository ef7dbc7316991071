/* table_record: records without a value (tombstones), by which a row of a TABLE goes: as objects that have their key and nothing else.
 *
 * What sql/query/output.h writes as a key is read: the text of one column, or an object of several. Any thread.
 */
#ifndef MILLRACE_SQL_QUERY_TABLE_RECORD_H
#define MILLRACE_SQL_QUERY_TABLE_RECORD_H

#include "sql/query/query.h"

/* *ret_records: those of the input, with an object in the place of each that has no value; a row of such a one has the weight -1. *ret_weights NULL: all
 * have values. Both are the input's or the arena's. False: no memory. */
MUST_USE bool table_records(const struct source *source, const struct query_input *in, struct arena *arena,
                            const struct slice **ret_records, const int8_t **ret_weights);
/* A row that goes has its key: that other columns are missing is no fault of it. */
void table_forgive(struct eval *e, const int8_t *weights, uint32_t rows);

#endif
