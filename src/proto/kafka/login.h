/* login: who the peer is: nobody asked on the loopback, or SASL (PLAIN), and the vhost in which its topics are.
 *
 *   NEW ─ SaslHandshake ▸ SASL ─ SaslAuthenticate, or a bare token ▸ LOGIN ▸ ENTER ▸ READY
 *   NEW ─ another request from the loopback ▸ LOGIN (as options->anonymous) ▸ ENTER ▸ READY
 *
 * A refused login is answered (SASL_AUTHENTICATION_FAILED) and ends the connection. Kafka protocol guide, "SASL
 * Authentication Sequence"; RFC 4616. Thread: the loop's.
 */
#ifndef MILLRACE_PROTO_KAFKA_LOGIN_H
#define MILLRACE_PROTO_KAFKA_LOGIN_H

#include "proto/kafka/kafka_int.h"

/* Logs a peer on the loopback in as the anonymous user. False: it may not be. */
bool kafka_login_anonymous(struct kafka *k);
/* A login is not needed to go on. */
bool kafka_login_needless(const struct kafka *k);
/* A token without a request around it, after SaslHandshake 0. */
void kafka_login_token(struct kafka *k, struct slice token);
/* The core's word on a login or a vhost. */
void kafka_login_effect(struct kafka *k, struct effect *e);

#endif
