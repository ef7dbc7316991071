/* handshake: from the protocol header to connection.open-ok: what the server offers, what the client asked, what was
 * agreed (AMQP 0-9-1 section 4.2.2, 1.4.2). Thread: the loop's. */
#ifndef MILLRACE_PROTO_AMQP091_HANDSHAKE_H
#define MILLRACE_PROTO_AMQP091_HANDSHAKE_H

#include "proto/amqp091/amqp091_int.h"

/* The first bytes. Returns how many were consumed: 0 when more are needed. */
size_t amqp091_handshake_header(struct amqp091 *a, struct slice bytes);

/* Handlers of the client's methods, called by the driver when the rules of the row hold. */
void amqp091_on_start_ok(struct amqp091 *a, const struct amqp091_connection_start_ok *f);
void amqp091_on_tune_ok(struct amqp091 *a, const struct amqp091_connection_tune_ok *f);
void amqp091_on_open(struct amqp091 *a, const struct amqp091_connection_open *f);
void amqp091_on_update_secret(struct amqp091 *a, const struct amqp091_connection_update_secret *f);

/* The core's answers to LOGIN and ENTER. */
void amqp091_logged_in(struct amqp091 *a);
void amqp091_login_refused(struct amqp091 *a, const struct answer *answer);
void amqp091_entered(struct amqp091 *a);

#endif
