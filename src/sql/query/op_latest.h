/* op_latest: a TABLE: of the rows with the same key the last one, as a changelog: a row that comes takes back the one before, unless it is the same.
 *
 * Input columns: the key, then the rest; output: some of them. A row without a key (NULL) is diverted.
 * A row of weight -1 has nothing but its key: the row of that key goes.
 */
#ifndef MILLRACE_SQL_QUERY_OP_LATEST_H
#define MILLRACE_SQL_QUERY_OP_LATEST_H

#include "sql/query/op.h"

struct latest_rule {
    uint32_t key_count;
    const uint32_t *kept; /* columns of the input that are kept, and are the output, in this order */
    const struct sql_type *types;
    uint32_t kept_count;
};

/* The rule and all it points at must outlive it. NULL: no memory. */
MUST_USE struct op *op_latest_new(struct budget *budget, const struct latest_rule *rule);

#endif
