/* A client of SCRAM for tests, of this folder's codec and of the protocols that carry it; written from the RFC and not from
 * our code. */
#ifndef MILLRACE_FMT_SCRAM_CLIENT_TEST_H
#define MILLRACE_FMT_SCRAM_CLIENT_TEST_H

#include "fmt/base64.h"
#include "fmt/scram.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#define CLIENT_FN static __attribute__((unused))

struct scram_client {
    enum scram_hash hash;
    const char *header, *name, *password;
    const char *twice;   /* librdkafka's slip: its own nonce before both */
    const char *instead; /* of both nonces, and signed */
    char first[1024], last[2048];
};

CLIENT_FN const EVP_MD *scram_client_digest(enum scram_hash hash)
{
    return hash == SCRAM_SHA256 ? EVP_sha256() : EVP_sha512();
}

CLIENT_FN void scram_client_first(struct scram_client *c, const char *client_nonce)
{
    snprintf(c->first, sizeof c->first, "%sn=%s,r=%s", c->header, c->name, client_nonce);
}

CLIENT_FN void scram_client_final(struct scram_client *c, struct slice reply)
{
    char said[1024], binding[128], bare[1024], all[4096], proof_text[128];
    uint8_t salted[64], client_key[64], stored[64], signature[64], salt[64];
    unsigned iterations = 0, len = (unsigned)EVP_MD_size(scram_client_digest(c->hash));
    snprintf(said, sizeof said, "%.*s", SLICE_ARG(reply));
    char *salt_text = strstr(said, ",s="), *count_text = strstr(said, ",i=");
    assert_true(salt_text && count_text && strncmp(said, "r=", 2) == 0);
    iterations = (unsigned)strtoul(count_text + 3, NULL, 10);
    int64_t salt_len = base64_decode(slice_of(salt_text + 3, (size_t)(count_text - salt_text - 3)), salt, sizeof salt);
    PKCS5_PBKDF2_HMAC(c->password, (int)strlen(c->password), salt, (int)salt_len, (int)iterations,
                      scram_client_digest(c->hash), (int)len, salted);
    HMAC(scram_client_digest(c->hash), salted, (int)len, (const uint8_t *)"Client Key", 10, client_key, NULL);
    EVP_Digest(client_key, len, stored, NULL, scram_client_digest(c->hash), NULL);
    base64_encode(slice_str(c->header), binding);
    char nonces[512];
    snprintf(nonces, sizeof nonces, "%s%.*s", c->twice ? c->twice : "", (int)(salt_text - said - 2), said + 2);
    snprintf(bare, sizeof bare, "c=%s,r=%s", binding, c->instead ? c->instead : nonces);
    int all_len = snprintf(all, sizeof all, "%s,%s,%s", c->first + strlen(c->header), said, bare);
    HMAC(scram_client_digest(c->hash), stored, (int)len, (const uint8_t *)all, (size_t)all_len, signature, NULL);
    for (unsigned i = 0; i < len; i++)
        client_key[i] ^= signature[i];
    base64_encode(slice_of(client_key, len), proof_text);
    snprintf(c->last, sizeof c->last, "%s,p=%s", bare, proof_text);
}

#endif
