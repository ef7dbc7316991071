/* requests: what clients ask on open channels, turned into the core's commands. Thread: the loop's. */
#ifndef MILLRACE_PROTO_AMQP091_REQUESTS_H
#define MILLRACE_PROTO_AMQP091_REQUESTS_H

#include "proto/amqp091/amqp091_int.h"

/* Handles a method that the driver has found to be in order (decoded, the channel open). One command slot is free. */
void amqp091_request(struct amqp091 *a, struct amqp091_channel *ch, const struct amqp091_row *row,
                     const union amqp091_fields *f);

#endif
