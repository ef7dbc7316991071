/* Unit test of SCRAM: the exchanges of the RFCs byte for byte, a client of our own for both hashes, and everything that
 * must not be let in: damaged messages, other nonces, other users, keys of nobody. */
#include "base/writer.h"
#include "fmt/scram_client_test.h"

static const uint8_t nonce[SCRAM_NONCE] = "eighteen bytes now";

static struct scram_keys keys_of(enum scram_hash hash, const char *password, const char *salt, unsigned iterations)
{
    struct scram_keys keys = {.hash = hash, .iterations = iterations};
    int64_t len = base64_decode(slice_str(salt), keys.salt, sizeof keys.salt);
    assert_true(len > 0);
    keys.salt_len = (size_t)len;
    assert_true(scram_keys_make(&keys, slice_str(password)));
    return keys;
}

static bool exchange(struct scram_client *c, const struct scram_keys *keys)
{
    struct scram s;
    struct slice reply;
    scram_init(&s, c->hash);
    scram_client_first(c, "client-nonce");
    if (!scram_first(&s, slice_str(c->first)))
        return false;
    scram_client_final(c, scram_reply(&s, keys, nonce));
    return scram_final(&s, slice_str(c->last), &reply) && slice_starts(reply, "v=");
}

/* ---- the RFC's ---- */

/* RFC 7677 section 3. Its server's nonce is not base64 of 18 bytes, so the last step is put together by hand. */
static void rfc_7677(void **state)
{
    static const char last[] = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
                               "p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    static const char text[] = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
                               "s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    struct scram s;
    struct slice reply;
    (void)state;
    for (unsigned wrong = 0; wrong < 2; wrong++) {
        struct scram_keys keys = keys_of(SCRAM_SHA256, wrong ? "pencil " : "pencil", "W22ZaJ0SNY7soEsUEjb6gQ==", 4096);
        scram_init(&s, SCRAM_SHA256);
        assert_true(scram_first(&s, slice_str("n,,n=user,r=rOprNGfwEbeRWgbNEkqO")));
        assert_true(slice_is(scram_user(&s), "user"));
        struct slice ours = scram_reply(&s, &keys, nonce);
        assert_true(slice_starts(ours, "r=rOprNGfwEbeRWgbNEkqO"));
        memcpy(s.text, text, sizeof text - 1);
        s.len = sizeof text - 1;
        s.nonce_len = strlen("rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0");
        assert_int_equal(scram_final(&s, slice_str(last), &reply), !wrong);
    }
    struct scram_keys keys = keys_of(SCRAM_SHA256, "pencil", "W22ZaJ0SNY7soEsUEjb6gQ==", 4096);
    scram_init(&s, SCRAM_SHA256);
    assert_true(scram_first(&s, slice_str("n,,n=user,r=rOprNGfwEbeRWgbNEkqO")));
    (void)scram_reply(&s, &keys, nonce);
    memcpy(s.text, text, sizeof text - 1);
    s.len = sizeof text - 1;
    s.nonce_len = strlen("rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0");
    assert_true(scram_final(&s, slice_str(last), &reply));
    assert_true(slice_is(reply, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
}

/* SHA-512 has no RFC of its own: keys made by Python's hashlib for the same password, salt and iterations. */
static void keys_as_text(void **state)
{
    static const char *const texts[] = {
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
        "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
        "SCRAM-SHA-512$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
        "6AAub3065EYRmyFpM2RNwqK+eGnrkYuEWbXn19LsEmBqzu8QaCXNc1FwpnX9NhH2hK/60dzj9DoO5DvVkOHbvg==:"
        "jZHbYjC1aHh0/hKbxyBuGFjDrgjgKTT1esA7awWiKcRZ0o/0b1yWEebBeSVkkCFewf91nLDfKF24mvD5nmE6rA=="};
    (void)state;
    for (unsigned i = 0; i < SCRAM_HASHES; i++) {
        struct scram_keys keys = keys_of((enum scram_hash)i, "pencil", "W22ZaJ0SNY7soEsUEjb6gQ==", 4096), again;
        char text[SCRAM_TEXT_MAX];
        assert_int_equal(scram_keys_print(&keys, text), strlen(texts[i]));
        assert_string_equal(text, texts[i]);
        assert_true(scram_keys_parse(slice_str(text), &again));
        assert_memory_equal(&again, &keys, sizeof keys);
        for (size_t len = 0; len < strlen(text); len++)
            assert_false(scram_keys_parse(slice_of(text, len), &again));
        assert_true(strcmp(scram_name((enum scram_hash)i), i ? "SCRAM-SHA-512" : "SCRAM-SHA-256") == 0);
    }
}

static void keys_from_salted_passwords(void **state)
{
    (void)state;
    for (unsigned i = 0; i < SCRAM_HASHES; i++) {
        uint8_t salted[64];
        struct scram_keys keys = keys_of((enum scram_hash)i, "pencil", "W22ZaJ0SNY7soEsUEjb6gQ==", 4096), other = keys;
        PKCS5_PBKDF2_HMAC("pencil", 6, keys.salt, (int)keys.salt_len, 4096, scram_client_digest(keys.hash),
                          (int)scram_key_len(keys.hash), salted);
        memset(other.stored, 0, sizeof other.stored);
        memset(other.server, 0, sizeof other.server);
        assert_true(scram_keys_salted(&other, slice_of(salted, scram_key_len(keys.hash))));
        assert_memory_equal(&other, &keys, sizeof keys);
    }
}

/* ---- who is let in ---- */

static void who_knows_the_password(void **state)
{
    static const struct {
        const char *header, *name, *password;
        bool in;
    } rows[] = {
        {"n,,", "alice", "secret", true},
        {"y,,", "alice", "secret", true},
        {"n,a=alice,", "alice", "secret", true},
        {"n,,", "a=2Cb=3Dc", "secret", true},
        {"n,,", "alice", "Secret", false},
        {"n,a=bob,", "alice", "secret", false},
        {"p=tls-unique,,", "alice", "secret", false},
        {"n,,m=1,", "alice", "secret", false},
        {"n,,", "", "secret", false},
        {"n,,", "a=2cb", "secret", false},
        {"n,,", "a=", "secret", false},
        {"", "alice", "secret", false},
        {"x,,", "alice", "secret", false},
        {"n,", "alice", "secret", false},
    };
    (void)state;
    for (unsigned hash = 0; hash < SCRAM_HASHES; hash++) {
        struct scram_keys keys = keys_of((enum scram_hash)hash, "secret", "c2FsdHNhbHRzYWx0", 4096);
        for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
            struct scram_client c = {
                (enum scram_hash)hash, rows[i].header, rows[i].name, rows[i].password, NULL, NULL, "", ""};
            assert_int_equal(exchange(&c, &keys), rows[i].in);
        }
    }
    for (unsigned i = 0; i < 2; i++) {
        struct scram_keys keys = keys_of(SCRAM_SHA256, "secret", "c2FsdHNhbHRzYWx0", 4096);
        struct scram_client c = {SCRAM_SHA256, "n,,", "alice", i ? "wrong" : "secret", "client-nonce", NULL, "", ""};
        assert_int_equal(exchange(&c, &keys), !i);
        c.instead = "client-nonce"; /* without ours, or with another: refused, whatever is signed */
        assert_false(exchange(&c, &keys));
        c.instead = "client-nonceZWlnaHRlZW4gYnl0ZXMgbm9";
        assert_false(exchange(&c, &keys));
    }
    struct scram s;
    scram_init(&s, SCRAM_SHA256);
    assert_true(scram_first(&s, slice_str("n,,n=a=2Cb=3Dc,r=x,tokenauth=true")));
    assert_true(slice_is(scram_user(&s), "a,b=c"));
    scram_init(&s, SCRAM_SHA256);
    assert_false(scram_first(&s, slice_str("n,,n=a,r=x,=")));
}

static void nobody_has_false_keys(void **state)
{
    struct scram_keys one, again, other, longer;
    struct slice secret = slice_str("0123456789abcdef0123456789abcdef");
    (void)state;
    scram_keys_fake(&one, SCRAM_SHA256, 4096, secret, slice_str("nobody"));
    scram_keys_fake(&again, SCRAM_SHA256, 4096, secret, slice_str("nobody"));
    scram_keys_fake(&other, SCRAM_SHA256, 4096, secret, slice_str("nobody2"));
    scram_keys_fake(&longer, SCRAM_SHA512, 4096, secret, slice_str("nobody"));
    assert_memory_equal(&one, &again, sizeof one);
    assert_memory_not_equal(one.salt, other.salt, 16);
    assert_memory_not_equal(one.salt, longer.salt, 16);
    scram_keys_fake(&again, SCRAM_SHA256, 4096, slice_str("another secret of this process.."), slice_str("nobody"));
    assert_memory_not_equal(one.salt, again.salt, 16);
    scram_keys_fake(&again, SCRAM_SHA256, 4096, secret, (struct slice){0});
    struct scram_client c = {SCRAM_SHA256, "n,,", "nobody", "", NULL, NULL, "", ""};
    assert_false(exchange(&c, &one));
}

static void names_and_nonces_have_limits(void **state)
{
    struct scram s;
    char name[SCRAM_USER_MAX * 3 + 4], message[SCRAM_MESSAGE_MAX + 64];
    struct scram_keys keys = keys_of(SCRAM_SHA512, "x", "c2FsdHNhbHRzYWx0", 4096);
    (void)state;
    name[0] = '\0';
    for (unsigned len = 1; len <= SCRAM_USER_MAX + 1; len++) {
        memcpy(name + 3 * (len - 1), "=2C", 4);
        snprintf(message, sizeof message, "n,,n=%s,r=x", name);
        scram_init(&s, SCRAM_SHA512);
        assert_int_equal(scram_first(&s, slice_str(message)), len <= SCRAM_USER_MAX);
    }
    for (unsigned len = 0; len <= SCRAM_CLIENT_NONCE_MAX + 1; len++) {
        snprintf(message, sizeof message, "n,,n=u,r=%0*d", (int)len, 7);
        if (len == 0)
            *strrchr(message, '7') = '\0';
        scram_init(&s, SCRAM_SHA512);
        assert_int_equal(scram_first(&s, slice_str(message)), len > 0 && len <= SCRAM_CLIENT_NONCE_MAX);
        if (len > 0 && len <= SCRAM_CLIENT_NONCE_MAX)
            assert_true(scram_reply(&s, &keys, nonce).len < SCRAM_REPLY_MAX);
    }
    memset(message, 'a', sizeof message - 1);
    message[sizeof message - 1] = '\0';
    memcpy(message, "n,,n=u,r=x,a=", 13);
    scram_init(&s, SCRAM_SHA512);
    assert_true(scram_first(&s, slice_of(message, SCRAM_MESSAGE_MAX)));
    (void)scram_reply(&s, &keys, nonce);
    scram_init(&s, SCRAM_SHA512);
    assert_false(scram_first(&s, slice_of(message, SCRAM_MESSAGE_MAX + 1)));
}

/* Every step once, in its order, and no way back. */
static void steps_come_in_their_order(void **state)
{
    struct scram_keys keys = keys_of(SCRAM_SHA256, "secret", "c2FsdHNhbHRzYWx0", 4096);
    struct scram_client c = {SCRAM_SHA256, "n,,", "alice", "secret", NULL, NULL, "", ""};
    struct scram s;
    struct slice reply;
    (void)state;
    scram_init(&s, SCRAM_SHA256);
    scram_client_first(&c, "abc");
    assert_true(scram_first(&s, slice_str(c.first)));
    scram_client_final(&c, scram_reply(&s, &keys, nonce));
    assert_true(scram_final(&s, slice_str(c.last), &reply));
    assert_false(scram_final(&s, slice_str(c.last), &reply)); /* nor a second time */
    assert_false(scram_first(&s, slice_str(c.first)));
    scram_init(&s, SCRAM_SHA256);
    assert_false(scram_final(&s, slice_str(c.last), &reply));
    scram_init(&s, SCRAM_SHA256);
    assert_true(scram_first(&s, slice_str(c.first)));
    struct scram_keys unknown = keys;
    uint8_t other[SCRAM_NONCE] = {1};
    (void)scram_reply(&s, &unknown, other); /* what was overheard does not fit another nonce */
    assert_false(scram_final(&s, slice_str(c.last), &reply));
    scram_init(&s, SCRAM_SHA256);
    assert_true(scram_first(&s, slice_str(c.first)));
    (void)scram_reply(&s, &keys, nonce);
    assert_false(scram_final(&s, slice_str("nonsense"), &reply)); /* one try */
    assert_false(scram_final(&s, slice_str(c.last), &reply));
    scram_clear(&s);
    assert_false(scram_first(&s, slice_str(c.first)));
}

/* Any byte of either message changed, cut anywhere: nobody is let in but by the same messages. */
static void damage(void **state)
{
    struct scram_keys keys = keys_of(SCRAM_SHA512, "secret", "c2FsdHNhbHRzYWx0", 4096);
    struct scram_client c = {SCRAM_SHA512, "n,a=alice,", "alice", "secret", NULL, NULL, "", ""};
    struct scram s, begun;
    struct slice reply;
    (void)state;
    scram_init(&begun, SCRAM_SHA512);
    scram_client_first(&c, "client-nonce,x=1");
    assert_true(scram_first(&begun, slice_str(c.first)));
    scram_client_final(&c, scram_reply(&begun, &keys, nonce));
    for (size_t at = 0; at < strlen(c.last); at++)
        for (unsigned byte = 0; byte < 256; byte++) {
            char changed[sizeof c.last];
            memcpy(changed, c.last, sizeof changed);
            changed[at] = (char)byte;
            s = begun;
            if (changed[at] != c.last[at])
                assert_false(scram_final(&s, slice_of(changed, strlen(c.last)), &reply));
        }
    for (size_t len = 0; len < strlen(c.last); len++) {
        s = begun;
        uint8_t *exact = malloc(len + 1);
        memcpy(exact, c.last, len);
        assert_false(scram_final(&s, slice_of(exact, len), &reply));
        free(exact);
    }
    s = begun;
    assert_true(scram_final(&s, slice_str(c.last), &reply));
    for (size_t at = 0; at < strlen(c.first); at++)
        for (unsigned byte = 0; byte < 256; byte++) {
            char changed[sizeof c.first];
            memcpy(changed, c.first, sizeof changed);
            changed[at] = (char)byte;
            scram_init(&s, SCRAM_SHA512);
            if (changed[at] == c.first[at] || !scram_first(&s, slice_of(changed, strlen(c.first))))
                continue;
            (void)scram_reply(&s, &keys, nonce);
            assert_false(scram_final(&s, slice_str(c.last), &reply)); /* it was signed */
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rfc_7677),
        cmocka_unit_test(keys_as_text),
        cmocka_unit_test(keys_from_salted_passwords),
        cmocka_unit_test(who_knows_the_password),
        cmocka_unit_test(nobody_has_false_keys),
        cmocka_unit_test(names_and_nonces_have_limits),
        cmocka_unit_test(steps_come_in_their_order),
        cmocka_unit_test(damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
