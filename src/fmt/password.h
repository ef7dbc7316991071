/* password: verifiers of passwords: SCRAM keys for our own, RabbitMQ's salted hashes kept and usable.
 *
 * The text form of a verifier, one line, is what the journal keeps and definitions carry: SCRAM keys as scram.h prints
 * them, for SHA-256, SHA-512, or both with a space between, in this order; or
 *   rabbit_password_hashing_sha256$<base64 of 4-byte salt ‖ SHA-256(salt ‖ password)>  (also sha512, md5)
 * An empty verifier, and an empty password, never match. A password that is said itself (PLAIN) is held against the first
 * keys: the two may be of different passwords, when one alone was changed. password_verify of SCRAM costs milliseconds by design: run it
 * on the worker. Pure functions, any thread.
 */
#ifndef MILLRACE_FMT_PASSWORD_H
#define MILLRACE_FMT_PASSWORD_H

#include "fmt/scram.h"

#define PASSWORD_VERIFIER_MAX 600
#define PASSWORD_SALTS (16 * SCRAM_HASHES)
#define PASSWORD_ITERATIONS 32768u

/* Makes a verifier with keys of every hash, whose salts are cut from the bytes given. NUL-terminated. False: OpenSSL failed. */
MUST_USE bool password_make(struct slice password, const uint8_t salts[PASSWORD_SALTS], unsigned iterations,
                            char ret[PASSWORD_VERIFIER_MAX]);
/* Turns a definitions file's password_hash + hashing_algorithm into a verifier. False: malformed. */
MUST_USE bool password_from_rabbit(struct slice hash_base64, struct slice algorithm, char ret[PASSWORD_VERIFIER_MAX]);
MUST_USE bool password_verify(struct slice verifier, struct slice password);
/* A well-formed verifier? */
bool password_valid(struct slice verifier);
/* The keys of one hash in a verifier. False: it has none. */
MUST_USE bool password_scram(struct slice verifier, enum scram_hash hash, struct scram_keys *ret);
/* The verifier with these keys for their hash, instead of those it had or of RabbitMQ's hash. */
void password_scram_put(struct slice verifier, const struct scram_keys *keys, char ret[PASSWORD_VERIFIER_MAX]);
/* The verifier without the keys of one hash; it may be empty then. */
void password_scram_take(struct slice verifier, enum scram_hash hash, char ret[PASSWORD_VERIFIER_MAX]);
/* HMAC-SHA-256 for the cache of verified logins. */
void password_digest(const uint8_t key[32], struct slice user, struct slice secret, struct slice verifier,
                     uint8_t ret[32]);

#endif
