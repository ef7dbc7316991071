/* scram: the server's side of SCRAM-SHA-256 and SCRAM-SHA-512 without I/O: keys, their text form, and the exchange.
 *
 * RFC 5802 with RFC 7677's hashes, for every protocol that carries SASL. What a server keeps of a password are keys from
 * which nobody can log in; as text (RFC 5803):
 *   SCRAM-SHA-256$<iterations>:<salt base64>$<StoredKey base64>:<ServerKey base64>
 *
 * An exchange: scram_first (the client's first message) → the user's keys are looked up, or false ones of an unknown user
 * → scram_reply → scram_final → scram_clear. Whoever gets a false must end it and tell the peer no more than that. The
 * cheap side: two HMACs and a hash; only scram_keys_make costs milliseconds by design. Pure functions, any thread.
 *
 * Not offered: channel binding (-PLUS); a client that asks for it is refused. Names and passwords are taken as they come,
 * without SASLprep, as Kafka does and as a PLAIN login here does.
 */
#ifndef MILLRACE_FMT_SCRAM_H
#define MILLRACE_FMT_SCRAM_H

#include "base/types.h"

enum scram_hash { SCRAM_SHA256, SCRAM_SHA512, SCRAM_HASHES };

#define SCRAM_KEY_MAX 64u
#define SCRAM_SALT_MAX 64u
#define SCRAM_TEXT_MAX 300u        /* of keys in their text form, with the NUL */
#define SCRAM_ITERATIONS_MIN 4096u /* what Kafka and RFC 7677 let a new credential have at least */
#define SCRAM_ITERATIONS_MAX 1000000u
#define SCRAM_MESSAGE_MAX 2048u /* longer ones of a client are refused */
#define SCRAM_NONCE 18u         /* random bytes of ours */
#define SCRAM_CLIENT_NONCE_MAX 256u
#define SCRAM_USER_MAX 255u
#define SCRAM_REPLY_MAX 512u

struct scram_keys {
    enum scram_hash hash;
    unsigned iterations;
    size_t salt_len;
    uint8_t salt[SCRAM_SALT_MAX];
    uint8_t stored[SCRAM_KEY_MAX], server[SCRAM_KEY_MAX]; /* as long as the hash; wipe them after use */
};

const char *scram_name(enum scram_hash hash);
size_t scram_key_len(enum scram_hash hash);
/* False: no mechanism of ours. */
bool scram_named(struct slice name, enum scram_hash *ret);

/* Fills in stored and server; hash, iterations and salt are set. False: OpenSSL failed, or the password is absurdly long. */
MUST_USE bool scram_keys_make(struct scram_keys *keys, struct slice password);
/* The same from RFC 5802's SaltedPassword, which has scram_key_len bytes. */
MUST_USE bool scram_keys_salted(struct scram_keys *keys, struct slice salted);
/* False: malformed. ret is written only on success. */
MUST_USE bool scram_keys_parse(struct slice text, struct scram_keys *ret);
/* NUL-terminated; returns its length. */
size_t scram_keys_print(const struct scram_keys *keys, char ret[SCRAM_TEXT_MAX]);
/* Keys that no proof fits, for a user that is not there: the salt is always the same for one secret and name. */
void scram_keys_fake(struct scram_keys *ret, enum scram_hash hash, unsigned iterations, struct slice secret,
                     struct slice user);

struct scram {
    enum { SCRAM_FIRST, SCRAM_KEYS, SCRAM_FINAL, SCRAM_OVER } step;
    enum scram_hash hash;
    struct scram_keys keys;
    uint8_t user[SCRAM_USER_MAX];
    size_t user_len;
    size_t gs2_len, nonce_at, nonce_len; /* in text: the header of the first message; both sides' nonce */
    size_t len;
    uint8_t
        text[2 * SCRAM_MESSAGE_MAX + SCRAM_REPLY_MAX + 2]; /* header, then RFC 5802's AuthMessage as it comes about */
    char reply[96];                                        /* v= and a signature */
};

void scram_init(struct scram *s, enum scram_hash hash);
/* The client's first message. False: refused. */
MUST_USE bool scram_first(struct scram *s, struct slice message);
/* Whose keys are wanted; after scram_first. */
struct slice scram_user(const struct scram *s);
/* What to answer the first message, in s. keys are copied, nonce is random. */
struct slice scram_reply(struct scram *s, const struct scram_keys *keys, const uint8_t nonce[SCRAM_NONCE]);
/* The client's last message. True: it knows the password; ret, which points into s, proves to it that we do. */
MUST_USE bool scram_final(struct scram *s, struct slice message, struct slice *ret);
/* Wipes the keys. */
void scram_clear(struct scram *s);

#endif
