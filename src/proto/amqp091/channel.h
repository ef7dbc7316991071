/* channel: the life of a channel on the wire, and contents coming in on it (AMQP 0-9-1 sections 4.2.6, 4.3).
 *
 * Life cycle: amqp091_channel_open → contents and requests → a close by either side → the core's CHANNEL_CLOSED → free.
 * Thread: the loop's. After a call that may have failed the connection, look at amqp091_live before going on.
 */
#ifndef MILLRACE_PROTO_AMQP091_CHANNEL_H
#define MILLRACE_PROTO_AMQP091_CHANNEL_H

#include "proto/amqp091/amqp091_int.h"

static inline struct amqp091_channel *amqp091_channel_find(const struct amqp091 *a, uint16_t number)
{
    return number < a->channels_len ? a->channels[number] : NULL;
}

void amqp091_channel_open(struct amqp091 *a, uint16_t number);
/* The client's channel.close. */
void amqp091_channel_leave(struct amqp091 *a, struct amqp091_channel *ch);
/* A method on a channel that throws frames away: only the closes mean something. */
void amqp091_channel_discard(struct amqp091 *a, struct amqp091_channel *ch, const struct amqp091_row *row);
/* The core's CHANNEL_CLOSED, in its turn. May free the channel. */
void amqp091_channel_closed(struct amqp091 *a, struct amqp091_channel *ch);
void amqp091_channels_free(struct amqp091 *a);
/* Sends the CHANNEL_CLOSE commands that found no room. */
void amqp091_channels_pay(struct amqp091 *a);

/* channel.close (soft codes) or connection.close (hard ones), at once: the core said it, or it is its turn. */
void amqp091_channel_fail(struct amqp091 *a, struct amqp091_channel *ch, enum error_code code, uint16_t class_id,
                          uint16_t method_id, struct slice text);
/* The same, found by the engine on an open channel: takes effect after the answers to what the client sent before. */
void amqp091_fault(struct amqp091 *a, struct amqp091_channel *ch, enum error_code code, uint16_t class_id,
                   uint16_t method_id, const char *format, ...) __attribute__((format(printf, 6, 7)));

/* basic.publish. `after` is what follows the frame in the buffer; returns how much of it was consumed as well (header and
 * body frames that stand there complete). */
size_t amqp091_content_method(struct amqp091 *a, struct amqp091_channel *ch, struct slice args, struct slice after);
/* A whole header or body frame. */
void amqp091_content_frame(struct amqp091 *a, uint16_t number, uint8_t type, struct slice payload);
/* A body frame of `size` of which only the beginning is here. Returns what was consumed, 0 to wait for all of it. */
size_t amqp091_content_begin_piece(struct amqp091 *a, uint16_t number, uint32_t size);
/* More of that frame. Returns what was consumed; 0: the end octet is wrong. */
size_t amqp091_content_piece(struct amqp091 *a, struct slice bytes);
/* A method frame came in the middle of a content. */
void amqp091_content_unexpected(struct amqp091 *a, const struct amqp091_channel *ch);

/* Publishes of `bytes` are durable or refused. */
void amqp091_settle(struct amqp091 *a, struct amqp091_channel *ch, uint64_t bytes);

#endif
