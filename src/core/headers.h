/* headers: matching of the headers exchange (reference queues.md 1.4): x-match all | any | all-with-x | any-with-x.
 *
 * Keys starting with "x-" are ignored except by the -with-x forms; a void value tests existence; an empty "any" never
 * matches, an empty "all" always. Pure functions, core thread.
 */
#ifndef MILLRACE_CORE_HEADERS_H
#define MILLRACE_CORE_HEADERS_H

#include "base/types.h"

/* False: x-match has a wrong type or value (PRECONDITION_FAILED); ret_text then says why in RabbitMQ's words. */
MUST_USE bool headers_args_valid(struct slice args, char *ret_text, size_t text_len);
/* Does a message with these headers (table content, may be empty) match a binding with these arguments? */
bool headers_match(struct slice args, struct slice headers);

#endif
