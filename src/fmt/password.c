/* Verifiers of passwords, see password.h.
 *
 * Our own are SCRAM keys in the text form of RFC 5803: they serve a PLAIN login (the keys are derived again and
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

#define SCRAM_PREFIX "SCRAM-"
#define DIGEST_LEN SHA256_DIGEST_LENGTH
#define RABBIT_SALT 4
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
    uint8_t salt[RABBIT_SALT], hash[SHA512_DIGEST_LENGTH];
    bool has[SCRAM_HASHES];
    struct scram_keys keys[SCRAM_HASHES];
};

/* ------------------------------------------------------------------------------------------------------- deriving */

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

/* Keys in the order of their hashes, each once. */
static bool parse_scram(struct slice text, struct verifier *v)
{
    for (unsigned next = 0; text.len; next++) {
        struct scram_keys keys;
        if (!scram_keys_parse(cut(&text, ' '), &keys) || keys.hash < next || (text.ptr && !text.len))
            return false;
        next = keys.hash;
        v->has[next] = true;
        v->keys[next] = keys;
    }
    return true;
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

bool password_scram(struct slice verifier, enum scram_hash hash, struct scram_keys *ret)
{
    struct verifier v;
    bool ok = parse(verifier, &v) && v.has[hash];
    if (ok)
        *ret = v.keys[hash];
    OPENSSL_cleanse(&v, sizeof v);
    return ok;
}

/* --------------------------------------------------------------------------------------------------------- making */

static void print_scram(const struct verifier *v, char ret[PASSWORD_VERIFIER_MAX])
{
    size_t len = 0;
    _Static_assert(SCRAM_HASHES * SCRAM_TEXT_MAX <= PASSWORD_VERIFIER_MAX, "a verifier has room for every hash");
    ret[0] = '\0';
    for (unsigned i = 0; i < SCRAM_HASHES; i++) {
        if (!v->has[i])
            continue;
        if (len)
            ret[len++] = ' ';
        len += scram_keys_print(&v->keys[i], ret + len);
    }
}

bool password_make(struct slice password, const uint8_t salts[PASSWORD_SALTS], unsigned iterations,
                   char ret[PASSWORD_VERIFIER_MAX])
{
    struct verifier v = {0};
    bool ok = true;
    for (unsigned i = 0; i < SCRAM_HASHES; i++) {
        struct scram_keys *keys = &v.keys[i];
        *keys = (struct scram_keys){.hash = (enum scram_hash)i, .iterations = iterations, .salt_len = 16};
        memcpy(keys->salt, salts + 16 * i, 16);
        v.has[i] = true;
        ok = ok && scram_keys_make(keys, password);
    }
    if (ok)
        print_scram(&v, ret);
    OPENSSL_cleanse(&v, sizeof v);
    return ok;
}

/* A verifier that cannot be read, as an empty one, has no keys that could be kept. */
static void change_scram(struct slice verifier, enum scram_hash hash, const struct scram_keys *keys,
                         char ret[PASSWORD_VERIFIER_MAX])
{
    struct verifier v;
    if (!parse(verifier, &v))
        memset(&v, 0, sizeof v);
    v.has[hash] = keys != NULL;
    if (keys)
        v.keys[hash] = *keys;
    print_scram(&v, ret);
    OPENSSL_cleanse(&v, sizeof v);
}

void password_scram_put(struct slice verifier, const struct scram_keys *keys, char ret[PASSWORD_VERIFIER_MAX])
{
    change_scram(verifier, keys->hash, keys, ret);
}

void password_scram_take(struct slice verifier, enum scram_hash hash, char ret[PASSWORD_VERIFIER_MAX])
{
    CHECK(!slice_starts(verifier, "rabbit")); /* has none to be taken */
    change_scram(verifier, hash, NULL, ret);
}

/* A definitions file of ours carries the whole verifier as the hash; one of RabbitMQ names the algorithm beside it, or
 * nothing, which since its 3.6 means SHA-256. A user without a password has an empty hash there and verifier here. */
bool password_from_rabbit(struct slice hash_base64, struct slice algorithm, char ret[PASSWORD_VERIFIER_MAX])
{
    char text[PASSWORD_VERIFIER_MAX];
    struct writer w = writer_of(text, sizeof text - 1);
    if (algorithm.len == 0)
        algorithm = slice_str(RABBIT_DEFAULT);
    enum scram_hash hash;
    if (!scram_named(algorithm, &hash) && !rabbit_named(algorithm) && !slice_starts(hash_base64, SCRAM_PREFIX))
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

static bool same_keys(const struct scram_keys *kept, struct slice password)
{
    struct scram_keys made = *kept;
    bool same =
        scram_keys_make(&made, password) && CRYPTO_memcmp(made.stored, kept->stored, scram_key_len(kept->hash)) == 0;
    OPENSSL_cleanse(&made, sizeof made);
    return same;
}

static bool same_hash(const struct verifier *v, struct slice password)
{
    uint8_t made[SHA512_DIGEST_LENGTH] = {0};
    bool same = salted_hash(v->rabbit, slice_of(v->salt, RABBIT_SALT), password, made) &&
                CRYPTO_memcmp(made, v->hash, v->rabbit->len) == 0;
    OPENSSL_cleanse(made, sizeof made);
    return same;
}

bool password_verify(struct slice verifier, struct slice password)
{
    struct verifier v;
    if (password.len == 0 || !parse(verifier, &v))
        return false;
    unsigned first = 0;
    while (first + 1 < SCRAM_HASHES && !v.has[first])
        first++;
    bool same = v.rabbit ? same_hash(&v, password) : same_keys(&v.keys[first], password);
    OPENSSL_cleanse(&v, sizeof v);
    return same;
}

/* The digest of the three parts' digests, so that no two triples give the same bytes. */
void password_digest(const uint8_t key[32], struct slice user, struct slice secret, struct slice verifier,
                     uint8_t ret[32])
{
    const struct slice parts[] = {user, secret, verifier};
    uint8_t inner[3][DIGEST_LEN];
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        CHECK(HMAC(EVP_sha256(), key, DIGEST_LEN, parts[i].ptr ? parts[i].ptr : key, parts[i].len, inner[i], NULL));
    CHECK(HMAC(EVP_sha256(), key, DIGEST_LEN, inner[0], sizeof inner, ret, NULL));
    OPENSSL_cleanse(inner, sizeof inner);
}
