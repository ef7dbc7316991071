/* SCRAM, see scram.h.
 *
 * The text of an exchange is kept in one buffer: the client's GS2 header, which it repeats in its last message, and then
 *   client-first-bare , server-first , client-final-without-proof
 * which is what both sides sign (AuthMessage). Messages are bounded, so the buffer cannot overrun.
 *
 *   FIRST ─ scram_first ▸ KEYS ─ scram_reply ▸ FINAL ─ scram_final ▸ OVER       whatever fails ▸ OVER
 *
 * Extensions of a client are passed over as the RFC wants, but the mandatory one ("m=") is refused. Comparisons with keys
 * take the same time wherever the first difference is.
 */
#include "fmt/scram.h"

#include "base/check.h"
#include "base/reader.h"
#include "base/writer.h"
#include "fmt/base64.h"

#include <ctype.h>
#include <stdio.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

static const struct hash_row {
    const char *name;
    const EVP_MD *(*digest)(void);
    size_t len;
} rows[SCRAM_HASHES] = {
    [SCRAM_SHA256] = {"SCRAM-SHA-256", EVP_sha256, 32},
    [SCRAM_SHA512] = {"SCRAM-SHA-512", EVP_sha512, 64},
};

const char *scram_name(enum scram_hash hash)
{
    return rows[hash].name;
}

size_t scram_key_len(enum scram_hash hash)
{
    return rows[hash].len;
}

bool scram_named(struct slice name, enum scram_hash *ret)
{
    for (unsigned i = 0; i < SCRAM_HASHES; i++)
        if (slice_is(name, rows[i].name)) {
            *ret = (enum scram_hash)i;
            return true;
        }
    return false;
}

/* ---- keys ---- */

static bool hmac(enum scram_hash hash, const uint8_t *key, struct slice text, uint8_t ret[SCRAM_KEY_MAX])
{
    return HMAC(rows[hash].digest(), key, (int)rows[hash].len, text.ptr, text.len, ret, NULL) != NULL;
}

static bool hash_of(enum scram_hash hash, const uint8_t *key, uint8_t ret[SCRAM_KEY_MAX])
{
    return EVP_Digest(key, rows[hash].len, ret, NULL, rows[hash].digest(), NULL) == 1;
}

/* RFC 5802, section 3. */
bool scram_keys_salted(struct scram_keys *keys, struct slice salted)
{
    uint8_t client[SCRAM_KEY_MAX];
    CHECK(salted.len == rows[keys->hash].len);
    bool ok = hmac(keys->hash, salted.ptr, slice_str("Client Key"), client) &&
              hash_of(keys->hash, client, keys->stored) &&
              hmac(keys->hash, salted.ptr, slice_str("Server Key"), keys->server);
    OPENSSL_cleanse(client, sizeof client);
    return ok;
}

bool scram_keys_make(struct scram_keys *keys, struct slice password)
{
    const struct hash_row *row = &rows[keys->hash];
    uint8_t salted[SCRAM_KEY_MAX];
    CHECK(keys->iterations > 0 && keys->iterations <= SCRAM_ITERATIONS_MAX);
    bool ok =
        password.len <= INT32_MAX &&
        PKCS5_PBKDF2_HMAC(password.ptr ? (const char *)password.ptr : "", (int)password.len, keys->salt,
                          (int)keys->salt_len, (int)keys->iterations, row->digest(), (int)row->len, salted) == 1 &&
        scram_keys_salted(keys, slice_of(salted, row->len));
    OPENSSL_cleanse(salted, sizeof salted);
    return ok;
}

void scram_keys_fake(struct scram_keys *ret, enum scram_hash hash, unsigned iterations, struct slice secret,
                     struct slice user)
{
    uint8_t named[SCRAM_KEY_MAX + 1], made[SCRAM_KEY_MAX];
    memset(ret, 0, sizeof *ret);
    /* the name is hashed first, so that no two pairs of hash and name are the same bytes */
    CHECK(HMAC(EVP_sha512(), secret.ptr, (int)secret.len, user.ptr ? user.ptr : made, user.len, named, NULL));
    named[SCRAM_KEY_MAX] = (uint8_t)hash;
    CHECK(HMAC(EVP_sha512(), secret.ptr, (int)secret.len, named, sizeof named, made, NULL));
    ret->hash = hash;
    ret->iterations = iterations;
    ret->salt_len = 16;
    memcpy(ret->salt, made, 16);
    memcpy(ret->stored, made + 16, 32); /* whose hash it would be nobody knows */
    memcpy(ret->server, made + 32, 32);
}

/* ---- keys as text ---- */

/* Takes what stands before the separator; all of it when there is none. */
static struct slice cut(struct reader *r, char separator)
{
    const uint8_t *at = r->left ? memchr(r->at, separator, r->left) : NULL;
    struct slice part = reader_take(r, at ? (size_t)(at - r->at) : r->left);
    if (at)
        (void)reader_u8(r);
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

bool scram_keys_parse(struct slice text, struct scram_keys *ret)
{
    struct scram_keys keys = {0};
    struct reader r = reader_of(text);
    if (!scram_named(cut(&r, '$'), &keys.hash))
        return false;
    int64_t key_len = (int64_t)rows[keys.hash].len;
    struct slice iterations = cut(&r, ':'), salt = cut(&r, '$'), stored = cut(&r, ':'), server = reader_rest(&r);
    int64_t salt_len = base64_decode(salt, keys.salt, sizeof keys.salt);
    bool ok = salt_len > 0 && number_of(iterations, SCRAM_ITERATIONS_MAX, &keys.iterations) &&
              base64_decode(stored, keys.stored, sizeof keys.stored) == key_len &&
              base64_decode(server, keys.server, sizeof keys.server) == key_len;
    if (ok) {
        keys.salt_len = (size_t)salt_len;
        *ret = keys;
    }
    OPENSSL_cleanse(&keys, sizeof keys);
    return ok;
}

size_t scram_keys_print(const struct scram_keys *keys, char ret[SCRAM_TEXT_MAX])
{
    const struct hash_row *row = &rows[keys->hash];
    char salt[BASE64_LEN(SCRAM_SALT_MAX) + 1], stored[BASE64_LEN(SCRAM_KEY_MAX) + 1],
        server[BASE64_LEN(SCRAM_KEY_MAX) + 1];
    base64_encode(slice_of(keys->salt, keys->salt_len), salt);
    base64_encode(slice_of(keys->stored, row->len), stored);
    base64_encode(slice_of(keys->server, row->len), server);
    int len = snprintf(ret, SCRAM_TEXT_MAX, "%s$%u:%s$%s:%s", row->name, keys->iterations, salt, stored, server);
    CHECK(len > 0 && (size_t)len < SCRAM_TEXT_MAX);
    OPENSSL_cleanse(server, sizeof server);
    return (size_t)len;
}

/* ---- the client's messages ---- */

void scram_init(struct scram *s, enum scram_hash hash)
{
    memset(s, 0, sizeof *s);
    s->hash = hash;
}

void scram_clear(struct scram *s)
{
    OPENSSL_cleanse(s, sizeof *s);
    s->step = SCRAM_OVER;
}

struct slice scram_user(const struct scram *s)
{
    return slice_of(s->user, s->user_len);
}

static struct slice attribute(struct reader *r, char name)
{
    if (reader_u8(r) != name || reader_u8(r) != '=') {
        reader_fail(r);
        return (struct slice){0};
    }
    return cut(r, ',');
}

/* saslname: a comma is written =2C and an equals sign =3D; returns its length, 0: malformed, empty or too long. */
static size_t name_of(struct slice text, uint8_t ret[SCRAM_USER_MAX])
{
    struct writer w = writer_of(ret, SCRAM_USER_MAX);
    struct reader r = reader_of(text);
    while (r.left) {
        uint8_t byte = reader_u8(&r);
        if (byte == '=') {
            struct slice code = reader_take(&r, 2);
            byte = slice_is(code, "2C") ? ',' : slice_is(code, "3D") ? '=' : 0;
        }
        if (byte == 0)
            return 0;
        writer_u8(&w, byte);
    }
    return reader_ok(&r) && writer_ok(&w) ? w.len : 0;
}

static bool is_nonce(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] < 0x21 || s.ptr[i] > 0x7e || s.ptr[i] == ',')
            return false;
    return s.len > 0 && s.len <= SCRAM_CLIENT_NONCE_MAX;
}

/* attr-val with a name of any length, as Kafka's clients have them. */
static bool is_extension(struct slice s)
{
    size_t name = 0;
    while (name < s.len && isalnum(s.ptr[name]))
        name++;
    return name > 0 && name < s.len && s.ptr[name] == '=';
}

static bool extensions_pass(struct reader *r)
{
    while (r->left)
        if (!is_extension(cut(r, ',')))
            return false;
    return reader_ok(r);
}

/* gs2-header: n or y (the client knows of channel binding and has seen that we do not), and as whom it wants to act. */
static bool header_passes(struct reader *r, struct slice *ret_as)
{
    uint8_t flag = reader_u8(r);
    bool ok = (flag == 'n' || flag == 'y') && reader_u8(r) == ',';
    *ret_as = (struct slice){0};
    if (ok && r->left && *r->at == 'a')
        *ret_as = attribute(r, 'a');
    else
        ok = ok && reader_u8(r) == ',';
    return ok && reader_ok(r);
}

static bool first_passes(struct scram *s, struct slice message)
{
    struct reader r = reader_of(message);
    struct slice as;
    uint8_t identity[SCRAM_USER_MAX];
    if (message.len > SCRAM_MESSAGE_MAX || !header_passes(&r, &as))
        return false;
    struct slice bare = slice_of(r.at, r.left), name = attribute(&r, 'n');
    s->gs2_len = message.len - bare.len;
    s->user_len = name_of(name, s->user);
    struct slice nonce = attribute(&r, 'r');
    if (!reader_ok(&r) || !s->user_len || !is_nonce(nonce) || !extensions_pass(&r))
        return false;
    if (as.len && !slice_equal(slice_of(identity, name_of(as, identity)), scram_user(s)))
        return false; /* another identity than the user's own is not granted */
    struct writer w = writer_of(s->text, sizeof s->text);
    writer_slice_put(&w, message);
    writer_u8(&w, ',');
    s->nonce_at = w.len + 2; /* behind "r=" of our reply */
    s->nonce_len = nonce.len;
    s->len = w.len;
    memcpy(s->text + s->nonce_at, nonce.ptr, nonce.len); /* there is room: the reply's own */
    return true;
}

bool scram_first(struct scram *s, struct slice message)
{
    bool ok = s->step == SCRAM_FIRST && first_passes(s, message);
    s->step = ok ? SCRAM_KEYS : SCRAM_OVER;
    return ok;
}

struct slice scram_reply(struct scram *s, const struct scram_keys *keys, const uint8_t nonce[SCRAM_NONCE])
{
    char salt[BASE64_LEN(SCRAM_SALT_MAX) + 1], ours[BASE64_LEN(SCRAM_NONCE) + 1], tail[sizeof salt + 32];
    CHECK(s->step == SCRAM_KEYS && keys->hash == s->hash);
    base64_encode(slice_of(nonce, SCRAM_NONCE), ours);
    base64_encode(slice_of(keys->salt, keys->salt_len), salt);
    int tail_len = snprintf(tail, sizeof tail, ",s=%s,i=%u", salt, keys->iterations);
    struct writer w = writer_of(s->text, sizeof s->text);
    (void)writer_room(&w, s->len);
    writer_slice_put(&w, slice_str("r="));
    (void)writer_room(&w, s->nonce_len); /* scram_first has put it here */
    writer_slice_put(&w, slice_str(ours));
    writer_put(&w, tail, (size_t)tail_len);
    CHECK(writer_ok(&w));
    struct slice reply = slice_of(s->text + s->len, w.len - s->len);
    s->keys = *keys;
    s->nonce_len += strlen(ours);
    s->len = w.len;
    s->step = SCRAM_FINAL;
    return reply;
}

/* Kafka asks for no more, and librdkafka before 2.6.1 says its own nonce twice. What counts is that ours is signed. */
static bool ends_with(struct slice nonce, struct slice ours)
{
    return nonce.len >= ours.len && memcmp(nonce.ptr + nonce.len - ours.len, ours.ptr, ours.len) == 0;
}

/* The proof, which stands last, and what comes before it. */
static bool final_passes(struct scram *s, struct slice message, uint8_t ret_proof[SCRAM_KEY_MAX])
{
    uint8_t header[SCRAM_MESSAGE_MAX];
    size_t at = message.len;
    while (at && message.ptr[at - 1] != ',')
        at--;
    if (message.len > SCRAM_MESSAGE_MAX || at == 0)
        return false;
    struct slice signed_part = slice_of(message.ptr, at - 1);
    struct reader last = reader_of(slice_of(message.ptr + at, message.len - at)), r = reader_of(signed_part);
    struct slice proof = attribute(&last, 'p'), binding = attribute(&r, 'c'), nonce = attribute(&r, 'r');
    int64_t header_len = base64_decode(binding, header, sizeof header);
    if (!reader_done(&last) || !reader_ok(&r) || !extensions_pass(&r) ||
        base64_decode(proof, ret_proof, SCRAM_KEY_MAX) != (int64_t)rows[s->hash].len || header_len < 0 ||
        !slice_equal(slice_of(header, (size_t)header_len), slice_of(s->text, s->gs2_len)) ||
        !ends_with(nonce, slice_of(s->text + s->nonce_at, s->nonce_len)))
        return false;
    struct writer w = writer_of(s->text, sizeof s->text);
    (void)writer_room(&w, s->len);
    writer_u8(&w, ',');
    writer_slice_put(&w, signed_part);
    CHECK(writer_ok(&w));
    s->len = w.len;
    return true;
}

/* The client's proof is its key under its signature, and the key's hash is what we have. */
static bool proven(const struct scram *s, struct slice said, uint8_t proof[SCRAM_KEY_MAX])
{
    uint8_t signature[SCRAM_KEY_MAX], hash[SCRAM_KEY_MAX];
    size_t len = rows[s->hash].len;
    if (!hmac(s->hash, s->keys.stored, said, signature))
        return false;
    for (size_t i = 0; i < len; i++)
        proof[i] ^= signature[i];
    return hash_of(s->hash, proof, hash) && CRYPTO_memcmp(hash, s->keys.stored, len) == 0;
}

static bool sign(struct scram *s, struct slice said, struct slice *ret)
{
    uint8_t signature[SCRAM_KEY_MAX];
    if (!hmac(s->hash, s->keys.server, said, signature))
        return false;
    memcpy(s->reply, "v=", 2);
    base64_encode(slice_of(signature, rows[s->hash].len), s->reply + 2);
    *ret = slice_str(s->reply);
    return true;
}

bool scram_final(struct scram *s, struct slice message, struct slice *ret)
{
    uint8_t proof[SCRAM_KEY_MAX];
    bool ok = s->step == SCRAM_FINAL && final_passes(s, message, proof);
    struct slice said = slice_of(s->text + s->gs2_len, s->len - s->gs2_len);
    ok = ok && proven(s, said, proof) && sign(s, said, ret);
    OPENSSL_cleanse(proof, sizeof proof);
    OPENSSL_cleanse(s->keys.server, sizeof s->keys.server);
    s->step = SCRAM_OVER;
    return ok;
}
