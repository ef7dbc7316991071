/* password: verifiers of passwords: SCRAM-SHA-256 keys for our own, RabbitMQ's salted hashes kept and usable.
 *
 * The text form of a verifier, one line, is what the journal keeps and definitions carry:
 *   SCRAM-SHA-256$<iterations>:<salt base64>$<StoredKey base64>:<ServerKey base64>     (RFC 5803)
 *   rabbit_password_hashing_sha256$<base64 of 4-byte salt ‖ SHA-256(salt ‖ password)>  (also sha512, md5)
 * An empty verifier, and an empty password, never match. password_verify of SCRAM costs milliseconds by design: run it
 * on the worker. Pure functions, any thread.
 */
#ifndef MILLRACE_FMT_PASSWORD_H
#define MILLRACE_FMT_PASSWORD_H

#include "base/types.h"

#define PASSWORD_VERIFIER_MAX 512
#define PASSWORD_ITERATIONS 32768u

/* Makes a SCRAM-SHA-256 verifier with the given 16-byte salt. NUL-terminated. False: OpenSSL failed. */
MUST_USE bool password_make(struct slice password, const uint8_t salt[16], unsigned iterations,
                            char ret[PASSWORD_VERIFIER_MAX]);
/* Turns a definitions file's password_hash + hashing_algorithm into a verifier. False: malformed. */
MUST_USE bool password_from_rabbit(struct slice hash_base64, struct slice algorithm, char ret[PASSWORD_VERIFIER_MAX]);
MUST_USE bool password_verify(struct slice verifier, struct slice password);
/* A well-formed verifier? */
bool password_valid(struct slice verifier);
/* HMAC-SHA-256 for the cache of verified logins. */
void password_digest(const uint8_t key[32], struct slice user, struct slice secret, struct slice verifier,
                     uint8_t ret[32]);

#endif
