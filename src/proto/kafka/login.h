/* login: who the peer is: by its certificate, nobody asked on the loopback, or SASL, and the vhost in which its topics are.
 *
 *   NEW ─ SaslHandshake ▸ SASL ─ SaslAuthenticate, or a bare token ▸ LOGIN ▸ ENTER ▸ READY
 *         SCRAM: SASL ─ first token ▸ LOGIN (its keys are asked for) ▸ SASL ─ second token ▸ LOGIN …
 *   NEW ─ another request, with a certificate (TLS) ▸ LOGIN (as engine.certified) ▸ ENTER ▸ READY
 *   NEW ─ another request, where engine_may_be_anonymous ▸ LOGIN (as options->anonymous) ▸ ENTER ▸ READY
 *   READY ─ SaslHandshake ▸ SASL ─ … ▸ LOGIN ▸ READY: the same user again (KIP-368), where a session has a lifetime
 *
 * A refused login is answered (SASL_AUTHENTICATION_FAILED) and ends the connection. Kafka protocol guide, "SASL
 * Authentication Sequence"; RFC 4616, RFC 5802 (fmt/scram.h). Thread: the loop's.
 */
#ifndef MILLRACE_PROTO_KAFKA_LOGIN_H
#define MILLRACE_PROTO_KAFKA_LOGIN_H

#include "proto/kafka/kafka_int.h"

/* Logs a peer in as whom its certificate names, or one that may be anonymous as that user. False: it has to say who it is. */
bool kafka_login_without(struct kafka *k);
/* A login is not needed to go on. */
bool kafka_login_needless(const struct kafka *k);
/* A token without a request around it, after SaslHandshake 0. */
void kafka_login_token(struct kafka *k, struct slice token);
/* The core's word on a login or a vhost. */
void kafka_login_effect(struct kafka *k, struct effect *e);
/* Its session is over, and nothing but a new login may come. */
bool kafka_login_expired(const struct kafka *k);
/* Frees what an unfinished login holds. */
void kafka_login_fini(struct kafka *k);

#endif
