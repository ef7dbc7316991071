/* record_column: the columns _key and _headers: what a record has beside its value.
 *
 * A key that is no UTF-8 is a fault of its row. Headers are a JSON object, in which of two of one name the last one counts; a value that is no UTF-8
 * stands there as base64; what the broker itself put there (mr-amqp, docs/formats/streams.md) is left out. One thread.
 */
#ifndef MILLRACE_SQL_QUERY_RECORD_COLUMN_H
#define MILLRACE_SQL_QUERY_RECORD_COLUMN_H

#include "sql/query/query.h"

/* In the eval's arena; values NULL: no memory. */
struct column record_keys(struct eval *e, const struct query_input *in);
struct column record_headers(struct eval *e, const struct query_input *in);

#endif
