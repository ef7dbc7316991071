/* encode: rows of a batch as JSON objects: what a query gives to streams, queues and people.
 *
 *   encoder_new ▸ { encoder_room ▸ encoder_row | encoder_some | encoder_text }* ▸ encoder_free
 *
 * Numbers and decimals are digits, "NaN", "Infinity" and "-Infinity" strings; dates and times ISO 8601, timestamps in UTC with a Z and with three or six
 * digits of a second if it has any; bytes base64; JSON, arrays, maps and rows as they stand; intervals, texts and all else strings. So our own scan
 * reads each as the value that it was.
 *
 * Nothing is allocated once it is there, and what is written has been made room for by the caller. One thread.
 */
#ifndef MILLRACE_SQL_QUERY_ENCODE_H
#define MILLRACE_SQL_QUERY_ENCODE_H

#include "sql/query/plan.h"

#define ENCODE_SPARE 32u /* bytes that may be written beyond what is answered */

/* The inside of a JSON string, at most six times as long; answers its end. */
uint8_t *encode_escaped(uint8_t *out, struct slice text);

struct encoder;

/* Names are copied. NULL: no memory. */
MUST_USE struct encoder *encoder_new(const struct plan_column *columns, uint32_t count);
void encoder_free(struct encoder **encoder);
/* More than enough bytes for any of the three below. */
size_t encoder_room(const struct encoder *encoder, const struct column *columns, uint32_t row);
/* The object; sign '+' or '-': it begins with "_op", 0: it does not. Answers its length. */
size_t encoder_row(struct encoder *encoder, const struct column *columns, uint32_t row, char sign, uint8_t *out);
/* An object of so many of the columns. */
size_t encoder_some(struct encoder *encoder, const uint32_t *which, uint32_t count, const struct column *columns,
                    uint32_t row, uint8_t *out);
/* One value that is not NULL by itself, without quotes and escapes; bytes as they are: a loan of the value, or of `room`. */
struct slice encoder_text(struct encoder *encoder, uint32_t which, const struct column *columns, uint32_t row,
                          uint8_t *room);

#endif
