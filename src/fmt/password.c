/* Verifiers of passwords, see password.h.
 *
 * Our own are SCRAM-SHA-256 keys in the text form of RFC 5803: they serve a PLAIN login (the keys are derived again and
 * compared) and a SCRAM exchange without ever knowing the password. RabbitMQ's are one salted hash, kept as they came
 * with its definitions, so that users log in with their old passwords. Passwords are bytes: SASLprep is not applied, as
 * RabbitMQ does not, and both sides of a PLAIN login see the same bytes anyway.
 *
 * Every verifier is parsed by the same function before use; iterations are bounded, because a definitions file is not
 * to keep the worker busy for hours. Comparisons take the same time wherever the first difference is, and derived keys
 * are wiped. Pure functions, any thread.
 */
#include "fmt/password.h"

#include "base/check.h"
#include "base/writer.h"
#include "fmt/base64.h"

#include <stdio.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>

#define SCRAM_NAME "SCRAM-SHA-256"
#define SCRAM_PREFIX SCRAM_NAME "$"
#define KEY_LEN SHA256_DIGEST_LENGTH
#define SALT_MAX 64
#define RABBIT_SALT 4
#define ITERATIONS_MAX 1000000u
#define RABBIT_DEFAULT "rabbit_password_hashing_sha256"

static const struct rabbit_row {
    const char *name;
    const EVP_MD *(*digest)(void);
    size_t len;
} rabbit_rows[] = {
    {RABBIT_DEFAULT, EVP_sha256, SHA256_DIGEST_LENGTH},
    {"rabbit_password_hashing_sha512", EVP_sha512, SHA512_DIGEST_LENGTH},
    {"rabbit_password_hashing_md5", EVP_md5, 16},
};

struct verifier {
    const struct rabbit_row *rabbit; /* NULL: SCRAM */
    unsigned iterations;
    size_t salt_len;
    uint8_t salt[SALT_MAX];
    uint8_t hash[SHA512_DIGEST_LENGTH];               /* RabbitMQ */
    uint8_t stored_key[KEY_LEN], server_key[KEY_LEN]; /* SCRAM */
};

/* ------------------------------------------------------------------------------------------------------- deriving */

static bool hmac(const uint8_t key[KEY_LEN], const char *text, uint8_t ret[KEY_LEN])
{
    return HMAC(EVP_sha256(), key, KEY_LEN, (const uint8_t *)text, strlen(text), ret, NULL) != NULL;
}

/* RFC 5802, section 3: SaltedPassword, then StoredKey and ServerKey. */
static bool scram_keys(struct slice password, struct slice salt, unsigned iterations, uint8_t stored[KEY_LEN],
                       uint8_t server[KEY_LEN])
{
    uint8_t salted[KEY_LEN], client[KEY_LEN];
    bool ok = password.len <= INT32_MAX &&
              PKCS5_PBKDF2_HMAC(password.ptr ? (const char *)password.ptr : "", (int)password.len, salt.ptr,
                                (int)salt.len, (int)iterations, EVP_sha256(), KEY_LEN, salted) == 1 &&
              hmac(salted, "Client Key", client) && SHA256(client, KEY_LEN, stored) != NULL &&
              hmac(salted, "Server Key", server);
    OPENSSL_cleanse(salted, sizeof salted);
    OPENSSL_cleanse(client, sizeof client);
    return ok;
}

static bool salted_hash(const struct rabbit_row *row, struct slice salt, struct slice password,
                        uint8_t ret[SHA512_DIGEST_LENGTH])
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    unsigned len = 0;
    bool ok = md && EVP_DigestInit_ex(md, row->digest(), NULL) == 1 && EVP_DigestUpdate(md, salt.ptr, salt.len) == 1 &&
              EVP_DigestUpdate(md, password.ptr, password.len) == 1 && EVP_DigestFinal_ex(md, ret, &len) == 1 &&
              len == row->len;
    EVP_MD_CTX_free(md);
    return ok;
}

/* -------------------------------------------------------------------------------------------------------- parsing */

/* Takes what stands before the separator; all of it when there is none. */
static struct slice cut(struct slice *rest, char separator)
{
    const uint8_t *at = rest->len ? memchr(rest->ptr, separator, rest->len) : NULL;
    size_t n = at ? (size_t)(at - rest->ptr) : rest->len;
    struct slice part = slice_of(rest->ptr, n);
    *rest = at ? slice_of(at + 1, rest->len - n - 1) : slice_of(NULL, 0);
    return part;
}

static bool number_of(struct slice text, unsigned max, unsigned *ret)
{
    unsigned number = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9' || i >= 7)
            return false;
        number = number * 10 + (text.ptr[i] - '0');
    }
    if (number == 0 || number > max)
        return false;
    *ret = number;
    return true;
}

static bool parse_scram(struct slice text, struct verifier *v)
{
    struct slice rest = slice_of(text.ptr + strlen(SCRAM_PREFIX), text.len - strlen(SCRAM_PREFIX));
    struct slice iterations = cut(&rest, ':'), salt = cut(&rest, '$'), stored = cut(&rest, ':');
    int64_t salt_len = base64_decode(salt, v->salt, sizeof v->salt);
    v->salt_len = salt_len > 0 ? (size_t)salt_len : 0;
    return v->salt_len > 0 && number_of(iterations, ITERATIONS_MAX, &v->iterations) &&
           base64_decode(stored, v->stored_key, KEY_LEN) == KEY_LEN &&
           base64_decode(rest, v->server_key, KEY_LEN) == KEY_LEN;
}

static const struct rabbit_row *rabbit_named(struct slice name)
{
    for (size_t i = 0; i < ARRAY_LEN(rabbit_rows); i++)
        if (slice_is(name, rabbit_rows[i].name))
            return &rabbit_rows[i];
    return NULL;
}

static bool parse_rabbit(struct slice text, struct verifier *v)
{
    uint8_t bytes[RABBIT_SALT + SHA512_DIGEST_LENGTH];
    v->rabbit = rabbit_named(cut(&text, '$'));
    int64_t len = v->rabbit ? base64_decode(text, bytes, sizeof bytes) : -1;
    if (len < 0 || (size_t)len != RABBIT_SALT + v->rabbit->len)
        return false;
    v->salt_len = RABBIT_SALT;
    memcpy(v->salt, bytes, RABBIT_SALT);
    memcpy(v->hash, bytes + RABBIT_SALT, v->rabbit->len);
    return true;
}

static bool parse(struct slice text, struct verifier *ret)
{
    memset(ret, 0, sizeof *ret);
    if (text.len >= PASSWORD_VERIFIER_MAX)
        return false;
    return slice_starts(text, SCRAM_PREFIX) ? parse_scram(text, ret) : parse_rabbit(text, ret);
}

bool password_valid(struct slice verifier)
{
    struct verifier v;
    return parse(verifier, &v);
}

/* --------------------------------------------------------------------------------------------------------- making */

bool password_make(struct slice password, const uint8_t salt[16], unsigned iterations, char ret[PASSWORD_VERIFIER_MAX])
{
    uint8_t stored[KEY_LEN], server[KEY_LEN];
    char salt_text[BASE64_LEN(16) + 1], stored_text[BASE64_LEN(KEY_LEN) + 1], server_text[BASE64_LEN(KEY_LEN) + 1];
    CHECK(iterations > 0 && iterations <= ITERATIONS_MAX);
    if (!scram_keys(password, slice_of(salt, 16), iterations, stored, server))
        return false;
    base64_encode(slice_of(salt, 16), salt_text);
    base64_encode(slice_of(stored, KEY_LEN), stored_text);
    base64_encode(slice_of(server, KEY_LEN), server_text);
    snprintf(ret, PASSWORD_VERIFIER_MAX, SCRAM_PREFIX "%u:%s$%s:%s", iterations, salt_text, stored_text, server_text);
    OPENSSL_cleanse(server, sizeof server);
    OPENSSL_cleanse(server_text, sizeof server_text);
    return true;
}

/* A definitions file of ours carries the whole verifier as the hash; one of RabbitMQ names the algorithm beside it, or
 * nothing, which since its 3.6 means SHA-256. A user without a password has an empty hash there and verifier here. */
bool password_from_rabbit(struct slice hash_base64, struct slice algorithm, char ret[PASSWORD_VERIFIER_MAX])
{
    char text[PASSWORD_VERIFIER_MAX];
    struct writer w = writer_of(text, sizeof text - 1);
    if (algorithm.len == 0)
        algorithm = slice_str(RABBIT_DEFAULT);
    if (!slice_is(algorithm, SCRAM_NAME) && !rabbit_named(algorithm) && !slice_starts(hash_base64, SCRAM_PREFIX))
        return false;
    if (hash_base64.len && !slice_starts(hash_base64, SCRAM_PREFIX)) {
        writer_slice_put(&w, algorithm);
        writer_u8(&w, '$');
    }
    writer_slice_put(&w, hash_base64);
    if (!writer_ok(&w) || (w.len && !password_valid(writer_slice(&w))))
        return false;
    memcpy(ret, text, w.len);
    ret[w.len] = '\0';
    return true;
}

/* ------------------------------------------------------------------------------------------------------ verifying */

bool password_verify(struct slice verifier, struct slice password)
{
    struct verifier v;
    uint8_t made[SHA512_DIGEST_LENGTH] = {0}, server[KEY_LEN] = {0};
    if (password.len == 0 || !parse(verifier, &v))
        return false;
    struct slice salt = slice_of(v.salt, v.salt_len);
    bool same =
        v.rabbit
            ? salted_hash(v.rabbit, salt, password, made) && CRYPTO_memcmp(made, v.hash, v.rabbit->len) == 0
            : scram_keys(password, salt, v.iterations, made, server) && CRYPTO_memcmp(made, v.stored_key, KEY_LEN) == 0;
    OPENSSL_cleanse(&v, sizeof v);
    OPENSSL_cleanse(made, sizeof made);
    OPENSSL_cleanse(server, sizeof server);
    return same;
}

/* The digest of the three parts' digests, so that no two triples give the same bytes. */
void password_digest(const uint8_t key[32], struct slice user, struct slice secret, struct slice verifier,
                     uint8_t ret[32])
{
    const struct slice parts[] = {user, secret, verifier};
    uint8_t inner[3][KEY_LEN];
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        CHECK(HMAC(EVP_sha256(), key, KEY_LEN, parts[i].ptr ? parts[i].ptr : key, parts[i].len, inner[i], NULL));
    CHECK(HMAC(EVP_sha256(), key, KEY_LEN, inner[0], sizeof inner, ret, NULL));
    OPENSSL_cleanse(inner, sizeof inner);
}
