/* table_json: AMQP tables to JSON and back, as RabbitMQ's management does it: whole numbers become l, fractions d, texts
 * S, objects F, lists A, null V. Pure functions, any thread. A table is its content without the leading length.
 */
#ifndef MILLRACE_ADMIN_TABLE_JSON_H
#define MILLRACE_ADMIN_TABLE_JSON_H

#include "base/types.h"
#include "base/writer.h"

#include <jansson.h>

/* object: a JSON object, or NULL for an empty table. False: it does not fit, or is nested too deep. */
MUST_USE bool table_from_json(struct writer *w, const json_t *object);
/* A new reference; NULL: no memory, or the table is damaged. Bytes that are not UTF-8 become a text of Latin-1. */
MUST_USE json_t *table_to_json(struct slice table);
/* The same for one text. */
MUST_USE json_t *text_to_json(struct slice text);

#endif
