/* out: the frames that leave a connection, written straight into its out-queue. Thread: the loop's.
 *
 * Nothing here fails: when memory is refused the out-queue is marked failed and the connection is closed by its owner.
 */
#ifndef MILLRACE_PROTO_AMQP091_OUT_H
#define MILLRACE_PROTO_AMQP091_OUT_H

#include "proto/amqp091/amqp091_int.h"

/* A method frame. fields: the method's struct; NULL for a method without fields. */
void amqp091_out_method(struct amqp091 *a, uint16_t channel, enum amqp091_method method, const void *fields);

/* basic.ack up to tag, or basic.nack of the one tag. */
void amqp091_out_confirm(struct amqp091 *a, uint16_t channel, uint64_t tag, bool multiple, bool nack);

/* Method, header and body frames. All take the message reference over. */
void amqp091_out_deliver(struct amqp091 *a, uint16_t channel, const struct amqp091_consumer *consumer, uint64_t tag,
                         bool redelivered, struct msg *msg);
/* The record of a stream, with its offset as header x-stream-offset; partition: number + 1, 0 when there is one only. */
void amqp091_out_deliver_stream(struct amqp091 *a, uint16_t channel, const struct amqp091_consumer *consumer,
                                uint64_t tag, uint64_t offset, uint32_t partition, struct msg *msg);
void amqp091_out_get_ok(struct amqp091 *a, uint16_t channel, uint64_t tag, bool redelivered, uint32_t left,
                        struct msg *msg);
void amqp091_out_return(struct amqp091 *a, uint16_t channel, uint16_t code, struct slice text, struct msg *msg);

void amqp091_out_heartbeat(struct amqp091 *a);
/* The protocol header, as an answer to another one (section 4.2.2). */
void amqp091_out_header(struct amqp091 *a);

/* Fills a consumer's prefix; room for 12 + tag.len bytes at least. Returns its length. */
uint16_t amqp091_out_prefix(uint8_t *ret, uint16_t channel, struct slice tag);

#endif
