/* record_key: the key that a message has as the record of a stream: what chooses its partition, and what Kafka's readers see.
 *
 * The header x-stream-key when it is a string; else the routing key, unless the message came through the default exchange,
 * where the routing key only names a queue. Pure function, any thread; ret points into the message. False: it has none.
 */
#ifndef MILLRACE_CORE_RECORD_KEY_H
#define MILLRACE_CORE_RECORD_KEY_H

#include "core/message.h"

bool record_key(const struct msg *msg, struct slice *ret);

#endif
