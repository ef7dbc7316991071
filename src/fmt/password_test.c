/* Unit test of verifiers: the exchange of RFC 7677, hashes made by RabbitMQ, and everything that must not log in. */
#include "fmt/password.h"

#include "fmt/base64.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>

/* The example of RabbitMQ's documentation: salt 908dc60a, password "test12". */
#define RABBIT_SHA256 "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"
#define SHA256_NAME "rabbit_password_hashing_sha256"

static uint8_t salt[PASSWORD_SALTS];

/* RFC 7677 section 3: user "user", password "pencil". */
static void rfc_7677_exchange(void **state)
{
    (void)state;
    static const char message[] = "n=user,r=rOprNGfwEbeRWgbNEkqO,"
                                  "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,"
                                  "i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    char verifier[PASSWORD_VERIFIER_MAX], proof_text[64];
    uint8_t made[PASSWORD_SALTS] = {0}, stored[32], server[32], signature[32], proof[32], client[32];
    assert_int_equal(base64_decode(slice_str("W22ZaJ0SNY7soEsUEjb6gQ=="), made, 16), 16);
    assert_true(password_make(slice_str("pencil"), made, 4096, verifier));
    assert_memory_equal(verifier, "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$", 44);
    assert_true(verifier[88] == ':' && verifier[133] == ' ');
    assert_int_equal(base64_decode(slice_of(verifier + 44, 44), stored, 32), 32);
    assert_int_equal(base64_decode(slice_of(verifier + 89, 44), server, 32), 32);
    HMAC(EVP_sha256(), server, 32, (const uint8_t *)message, sizeof message - 1, signature, NULL);
    base64_encode(slice_of(signature, 32), proof_text);
    assert_string_equal(proof_text, "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    /* The client's proof XOR HMAC(StoredKey, message) is ClientKey, whose hash is StoredKey. */
    assert_int_equal(base64_decode(slice_str("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="), proof, 32), 32);
    HMAC(EVP_sha256(), stored, 32, (const uint8_t *)message, sizeof message - 1, signature, NULL);
    for (int i = 0; i < 32; i++)
        client[i] = proof[i] ^ signature[i];
    SHA256(client, 32, signature);
    assert_memory_equal(signature, stored, 32);
    assert_true(password_verify(slice_str(verifier), slice_str("pencil")));
    assert_false(password_verify(slice_str(verifier), slice_str("Pencil")));
    assert_false(password_verify(slice_str(verifier), slice_str("pencil ")));
}

static void own_verifiers_are_valid_and_fit(void **state)
{
    (void)state;
    char verifier[PASSWORD_VERIFIER_MAX], copy[PASSWORD_VERIFIER_MAX];
    static uint8_t secret[1000];
    assert_true(password_make(slice_of(secret, sizeof secret), salt, 1000000, verifier));
    assert_true(password_valid(slice_str(verifier)));
    assert_true(password_make(slice_of(secret, sizeof secret), salt, 3, verifier));
    assert_true(password_verify(slice_str(verifier), slice_of(secret, sizeof secret)));
    assert_false(password_verify(slice_str(verifier), slice_of(secret, sizeof secret - 1)));
    assert_true(password_from_rabbit(slice_str(verifier), slice_str("SCRAM-SHA-256"), copy));
    assert_string_equal(copy, verifier);
    assert_true(password_from_rabbit(slice_str(verifier), slice_str(""), copy));
    assert_string_equal(copy, verifier);
}

static void rabbitmq_hashes_log_in(void **state)
{
    (void)state;
    static const char *const rows[][3] = {
        {"rabbit_password_hashing_sha256", "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR", "test12"},
        {"rabbit_password_hashing_sha512",
         "kI3GChuNuIYf8lRbCCxZjgjKwsY19ns6+uFO0zcXRBGA/XGJPYD8OWMy7EB8TaOmAzjP2azv84GbINYwX2cDWb4DHnc=", "test12"},
        {"rabbit_password_hashing_md5", "kI3GChNpte2FApYFXScl+0dIluk=", "test12"}};
    char verifier[PASSWORD_VERIFIER_MAX];
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_true(password_from_rabbit(slice_str(rows[i][1]), slice_str(rows[i][0]), verifier));
        assert_true(password_valid(slice_str(verifier)));
        assert_true(password_verify(slice_str(verifier), slice_str(rows[i][2])));
        assert_false(password_verify(slice_str(verifier), slice_str("test13")));
    }
    assert_true(password_from_rabbit(slice_str(RABBIT_SHA256), slice_str(""), verifier));
    assert_string_equal(verifier, SHA256_NAME "$" RABBIT_SHA256);
}

static void malformed_verifiers_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "$",
        "guest",
        SHA256_NAME,
        (SHA256_NAME "$"),
        (SHA256_NAME "$kI3GCg=="),
        (SHA256_NAME "$" RABBIT_SHA256 "AAAA"),
        ("rabbit_password_hashing_sha1$" RABBIT_SHA256),
        "SCRAM-SHA-256$",
        "SCRAM-SHA-256$1:AAAA$AAAA:AAAA",
    };
    char verifier[PASSWORD_VERIFIER_MAX], copy[PASSWORD_VERIFIER_MAX + 8];
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_false(password_valid(slice_str(bad[i])));
        assert_false(password_verify(slice_str(bad[i]), slice_str("guest")));
        assert_false(password_verify(slice_str(bad[i]), slice_str("")));
    }
    assert_true(password_make(slice_str("a"), salt, 9, verifier));
    size_t first = (size_t)(strchr(verifier, ' ') - verifier);
    for (size_t len = 0; len < strlen(verifier); len++)
        assert_int_equal(password_valid(slice_of(verifier, len)), len == first); /* keys of the first hash alone */
    static const char *const iterations[] = {"0",  "",  "-1", "1000001", "4294967297", "99999999999999999999",
                                             "1x", " 1"};
    for (size_t i = 0; i < ARRAY_LEN(iterations); i++) {
        snprintf(copy, sizeof copy, "SCRAM-SHA-256$%s%s", iterations[i], strchr(verifier, ':'));
        assert_false(password_valid(slice_str(copy)));
    }
}

static void malformed_imports_are_refused(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {RABBIT_SHA256, "rabbit_password_hashing_sha512"},
        {RABBIT_SHA256, "rabbit_password_hashing_crc"},
        {"not base64", SHA256_NAME},
        {"AAAA", SHA256_NAME},
        {RABBIT_SHA256, "SCRAM-SHA-256"},
        {"", "nonsense"},
    };
    static char long_text[PASSWORD_VERIFIER_MAX + 8];
    char verifier[PASSWORD_VERIFIER_MAX] = "kept";
    memset(long_text, 'A', sizeof long_text - 1);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_false(password_from_rabbit(slice_str(bad[i][0]), slice_str(bad[i][1]), verifier));
    assert_false(password_from_rabbit(slice_str(long_text), slice_str(SHA256_NAME), verifier));
    assert_string_equal(verifier, "kept");
}

static void empty_passwords_and_verifiers_never_match(void **state)
{
    (void)state;
    char verifier[PASSWORD_VERIFIER_MAX] = "x";
    assert_true(password_from_rabbit(slice_str(""), slice_str(SHA256_NAME), verifier)); /* a user without a password */
    assert_string_equal(verifier, "");
    assert_false(password_verify(slice_str(verifier), slice_str("")));
    assert_false(password_verify(slice_str(verifier), slice_str("a")));
    assert_true(password_make(slice_str(""), salt, 5, verifier));
    assert_false(password_verify(slice_str(verifier), slice_str("")));
    assert_false(password_verify(slice_str(verifier), (struct slice){0}));
}

static void digests_keep_the_parts_apart(void **state)
{
    (void)state;
    static const char *const rows[][3] = {
        {"ab", "c", "v"}, {"a", "bc", "v"}, {"ab", "cv", ""}, {"", "", "abcv"}, {"c", "ab", "v"}};
    uint8_t key[32] = {1}, other[32] = {2}, made[ARRAY_LEN(rows) + 1][32], again[32];
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        password_digest(key, slice_str(rows[i][0]), slice_str(rows[i][1]), slice_str(rows[i][2]), made[i]);
    password_digest(other, slice_str("ab"), slice_str("c"), slice_str("v"), made[ARRAY_LEN(rows)]);
    for (size_t i = 0; i < ARRAY_LEN(made); i++)
        for (size_t j = 0; j < i; j++)
            assert_memory_not_equal(made[i], made[j], 32);
    password_digest(key, slice_str("ab"), slice_str("c"), slice_str("v"), again);
    assert_memory_equal(again, made[0], 32);
    password_digest(key, (struct slice){0}, (struct slice){0}, (struct slice){0}, again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rfc_7677_exchange),
        cmocka_unit_test(own_verifiers_are_valid_and_fit),
        cmocka_unit_test(rabbitmq_hashes_log_in),
        cmocka_unit_test(malformed_verifiers_are_refused),
        cmocka_unit_test(malformed_imports_are_refused),
        cmocka_unit_test(empty_passwords_and_verifiers_never_match),
        cmocka_unit_test(digests_keep_the_parts_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
