/* message_rows: messages of a queue as the records of a step (docs/decisions/0016).
 *
 *   message_rows_new ▸ { message_rows_begin ▸ message_rows_add … ▸ message_rows_input ▸ query_step }* ▸ message_rows_free
 *
 * The body is the record; its time is the property `timestamp`, else when it is taken; its key is that of core/record_key.h; its headers are those that
 * are texts, numbers or booleans, as texts. One serves all queries of a thread in turn. One thread.
 */
#ifndef MILLRACE_SQL_QUERY_MESSAGE_ROWS_H
#define MILLRACE_SQL_QUERY_MESSAGE_ROWS_H

#include "core/message.h"
#include "sql/query/query.h"

struct message_rows;

struct message_rows *message_rows_new(void); /* NULL: no memory */
void message_rows_free(struct message_rows **rows);
/* number: of the first message, as an offset. */
void message_rows_begin(struct message_rows *rows, uint64_t number);
/* So many are enough for a step, by number or by bytes. */
bool message_rows_full(const struct message_rows *rows);
/* What is in the message is lent until the next message_rows_begin. False: no memory for its headers; it is not there. */
MUST_USE bool message_rows_add(struct message_rows *rows, const struct msg *msg, wall_t now);
/* All but the source, which is 0, as the partition. */
struct query_input message_rows_input(const struct message_rows *rows);

#endif
