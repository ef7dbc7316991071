/* answers: what the core says, turned into frames in the right order and not before it is durable. Thread: the loop's. */
#ifndef MILLRACE_PROTO_AMQP091_ANSWERS_H
#define MILLRACE_PROTO_AMQP091_ANSWERS_H

#include "proto/amqp091/amqp091_int.h"

/* struct session's on_effect and on_durable. */
void amqp091_on_effect(struct session *session, struct effect *effect);
bool amqp091_on_durable(struct session *session, lsn_t durable);

/* The core has let go of the session; close-ok, if it is owed, goes out when lsn is durable. */
void amqp091_session_closed(struct amqp091 *a, lsn_t lsn);

/* Frees what a channel holds back, unsaid. */
void amqp091_held_drop(struct amqp091 *a, struct amqp091_channel *ch);

#endif
