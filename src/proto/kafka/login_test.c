/* Logins of Kafka as a client sees them: SCRAM by both hashes and both framings, who is refused and with which words, the
 * mechanisms that are offered, sessions with a lifetime, and what a hostile client may send instead of a token. */
#include "fmt/password.h"
#include "fmt/scram_client_test.h"
#include "proto/kafka/rig_test.h"

#define WRONG "Authentication failed during authentication due to invalid credentials with SASL mechanism "

static void assert_closed(struct krig *k)
{
    krig_settle(k);
    assert_null(k->engine);
    assert_null(krig_take(k));
}

static int16_t shake(struct krig *k, uint8_t version, const char *mechanism)
{
    const struct kafka_sasl_handshake_response *said =
        KASK(k, sasl_handshake, version, .mechanism = slice_str(mechanism));
    assert_non_null(said);
    return said->error_code;
}

static const struct kafka_sasl_authenticate_response *say(struct krig *k, const char *token)
{
    return KASK(k, sasl_authenticate, 2, .auth_bytes = slice_str(token));
}

static struct scram_client guest(unsigned hash, const char *password)
{
    return (struct scram_client){(enum scram_hash)hash, "n,,", "guest", password, NULL, NULL, "", ""};
}

/* The last answer; NULL: none has come. */
static const struct kafka_sasl_authenticate_response *scram(struct krig *k, struct scram_client *c)
{
    assert_int_equal(shake(k, 1, scram_name(c->hash)), 0);
    scram_client_first(c, "from-the-client");
    const struct kafka_sasl_authenticate_response *said = say(k, c->first);
    if (!said || said->error_code)
        return said;
    assert_int_equal(said->session_lifetime_ms, 0);
    scram_client_final(c, said->auth_bytes);
    return say(k, c->last);
}

static bool is_in(struct krig *k)
{
    return KASK(k, init_producer_id, 1, .transaction_timeout_ms = 1) != NULL;
}

static void scram_logs_in(void **state)
{
    (void)state;
    for (unsigned hash = 0; hash < SCRAM_HASHES; hash++) {
        struct krig *k = krig_new();
        struct scram_client c = guest(hash, "guest");
        const struct kafka_sasl_authenticate_response *said = scram(k, &c);
        assert_non_null(said);
        assert_int_equal(said->error_code, 0);
        assert_true(slice_starts(said->auth_bytes, "v="));
        assert_true(is_in(k));
        krig_free(k);
    }
}

static void scram_refuses(void **state)
{
    (void)state;
    for (unsigned hash = 0; hash < SCRAM_HASHES; hash++) {
        struct krig *k = krig_new();
        struct scram_client rows[4] = {guest(hash, "wrong"), guest(hash, "guest"), guest(hash, "guest"),
                                       guest(hash, "guest")};
        rows[1].name = "nobody";
        rows[2].header = "n,a=root,";
        rows[3].header = "p=tls-unique,,";
        for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
            const struct kafka_sasl_authenticate_response *said = scram(k, &rows[i]);
            assert_non_null(said);
            assert_int_equal(said->error_code, KAFKA_ERR_SASL_AUTHENTICATION_FAILED);
            assert_true(slice_is(said->error_message, hash ? WRONG "SCRAM-SHA-512" : WRONG "SCRAM-SHA-256"));
            assert_closed(k);
            krig_open(k);
        }
        krig_free(k);
    }
}

/* guest has to come from the loopback; from elsewhere it is as unknown as anybody, up to the last word. */
static void nobody_can_tell_who_there_is(void **state)
{
    static const char *const names[] = {"nobody", "guest"};
    char salts[2][2][64];
    (void)state;
    struct krig *k = krig_new();
    k->core->b->options.guest_loopback_only = true;
    krig_close(k);
    k->peer.loopback = false;
    for (unsigned round = 0; round < 2; round++)
        for (unsigned i = 0; i < 2; i++) {
            krig_open(k);
            struct scram_client c = guest(SCRAM_SHA512, "guest");
            c.name = names[i];
            assert_int_equal(shake(k, 1, "SCRAM-SHA-512"), 0);
            scram_client_first(&c, "x");
            const struct kafka_sasl_authenticate_response *said = say(k, c.first);
            assert_int_equal(said->error_code, 0);
            const char *salt = memchr(said->auth_bytes.ptr, '=', said->auth_bytes.len);
            salt = strstr(salt, ",s=");
            snprintf(salts[round][i], sizeof salts[round][i], "%.30s", salt);
            scram_client_final(&c, said->auth_bytes);
            assert_int_equal(say(k, c.last)->error_code, KAFKA_ERR_SASL_AUTHENTICATION_FAILED);
            assert_closed(k);
        }
    assert_string_equal(salts[0][0], salts[1][0]);
    assert_string_equal(salts[0][1], salts[1][1]);
    assert_string_not_equal(salts[0][0], salts[0][1]);
    krig_free(k);
}

/* A login is of the keys that were proven: not of those that came meanwhile. */
static void a_password_that_changes_meanwhile(void **state)
{
    uint8_t salts[PASSWORD_SALTS] = {1};
    char verifier[PASSWORD_VERIFIER_MAX];
    (void)state;
    struct krig *k = krig_new();
    struct scram_client c = guest(SCRAM_SHA256, "guest");
    assert_int_equal(shake(k, 1, "SCRAM-SHA-256"), 0);
    scram_client_first(&c, "x");
    scram_client_final(&c, say(k, c.first)->auth_bytes);
    assert_true(password_make(slice_str("other"), salts, 4096, verifier));
    assert_true(user_put(k->core->b, slice_str("guest"), slice_str(verifier), (struct slice){0}, true));
    assert_int_equal(say(k, c.last)->error_code, KAFKA_ERR_SASL_AUTHENTICATION_FAILED);
    assert_closed(k);
    krig_open(k);
    c = guest(SCRAM_SHA512, "other");
    assert_int_equal(scram(k, &c)->error_code, 0);
    krig_free(k);
}

/* Users of older stores have keys for SHA-256 only. */
static void keys_of_one_hash(void **state)
{
    uint8_t salts[PASSWORD_SALTS] = {1};
    char verifier[PASSWORD_VERIFIER_MAX];
    (void)state;
    struct krig *k = krig_new();
    assert_true(password_make(slice_str("guest"), salts, 4096, verifier));
    *strchr(verifier, ' ') = '\0';
    assert_true(user_put(k->core->b, slice_str("guest"), slice_str(verifier), (struct slice){0}, true));
    struct scram_client c = guest(SCRAM_SHA512, "guest");
    assert_int_equal(scram(k, &c)->error_code, KAFKA_ERR_SASL_AUTHENTICATION_FAILED);
    assert_closed(k);
    krig_open(k);
    c = guest(SCRAM_SHA256, "guest");
    assert_int_equal(scram(k, &c)->error_code, 0);
    krig_free(k);
}

static void bare_put(struct krig *k, struct slice token)
{
    struct writer w = writer_of(k->in + k->in_len, KRIG_BYTES - k->in_len);
    writer_str32(&w, token);
    k->in_len += w.len;
    krig_settle(k);
}

static struct slice bare_take(struct krig *k)
{
    struct reader r = reader_of(slice_of(k->out, k->out_len));
    struct slice token = reader_str32(&r);
    assert_true(reader_done(&r));
    k->out_len = 0;
    return token;
}

static void scram_by_bare_tokens(void **state)
{
    (void)state;
    for (unsigned wrong = 0; wrong < 2; wrong++) {
        struct krig *k = krig_new();
        struct scram_client c = guest(SCRAM_SHA512, wrong ? "gast" : "guest");
        assert_int_equal(shake(k, 0, "SCRAM-SHA-512"), 0);
        scram_client_first(&c, "x");
        bare_put(k, slice_str(c.first));
        scram_client_final(&c, bare_take(k));
        bare_put(k, slice_str(c.last));
        if (wrong) {
            assert_closed(k);
            assert_int_equal(k->out_len, 0);
        } else {
            assert_true(slice_starts(bare_take(k), "v="));
            assert_true(is_in(k));
        }
        krig_free(k);
    }
}

static void mechanisms_as_configured(void **state)
{
    static const struct {
        const char *names;
        int32_t count;
        const char *first;
        int16_t plain;
    } rows[] = {{"PLAIN SCRAM-SHA-256 SCRAM-SHA-512", 3, "PLAIN", 0},
                {"SCRAM-SHA-512,SCRAM-SHA-256", 2, "SCRAM-SHA-256", KAFKA_ERR_UNSUPPORTED_SASL_MECHANISM},
                {" PLAIN ", 1, "PLAIN", 0},
                {"", 0, NULL, KAFKA_ERR_UNSUPPORTED_SASL_MECHANISM}};
    unsigned mask;
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct krig *k = krig_new();
        krig_close(k);
        assert_true(kafka_mechanisms_parse(rows[i].names, &k->options.sasl_mechanisms));
        krig_open(k);
        const struct kafka_sasl_handshake_response *said = KASK(k, sasl_handshake, 1, .mechanism = slice_str("PLAIN"));
        assert_int_equal(said->error_code, rows[i].plain);
        assert_int_equal(said->mechanisms.count, rows[i].count);
        if (rows[i].first)
            assert_true(slice_is(said->mechanisms.at[0], rows[i].first));
        assert_int_equal(k->engine == NULL, rows[i].plain != 0); /* Kafka lets go of who asks for another */
        krig_free(k);
    }
    assert_false(kafka_mechanisms_parse("PLAIN GSSAPI", &mask));
    assert_false(kafka_mechanisms_parse("plain", &mask));
}

/* ---- sessions that end (KIP-368) ---- */

static void again(struct krig *k, const char *mechanism, const char *password, int16_t want)
{
    char plain[64];
    int len = snprintf(plain, sizeof plain, "%cguest%c%s", 0, 0, password);
    const struct kafka_sasl_authenticate_response *said;
    assert_int_equal(shake(k, 1, mechanism), 0);
    if (strcmp(mechanism, "PLAIN") == 0) {
        said = KASK(k, sasl_authenticate, 1, .auth_bytes = slice_of(plain, (size_t)len));
    } else {
        struct scram_client c = guest(SCRAM_SHA256, password);
        scram_client_first(&c, "y");
        scram_client_final(&c, say(k, c.first)->auth_bytes);
        said = say(k, c.last);
    }
    assert_non_null(said);
    assert_int_equal(said->error_code, want);
    if (!want)
        assert_int_equal(said->session_lifetime_ms, k->options.reauth_ms);
}

static void a_session_is_renewed(void **state)
{
    static const char *const mechanisms[] = {"PLAIN", "SCRAM-SHA-256"};
    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(mechanisms); i++) {
        struct krig *k = krig_new();
        krig_close(k);
        k->options.reauth_ms = 5000;
        krig_open(k);
        again(k, mechanisms[i], "guest", 0);
        for (unsigned round = 0; round < 3; round++) {
            krig_pass(k, 4000);
            assert_true(is_in(k));
            again(k, mechanisms[i], "guest", 0);
            assert_true(is_in(k));
        }
        assert_int_equal(shake(k, 1, mechanisms[i]), KAFKA_ERR_ILLEGAL_SASL_STATE); /* not every moment */
        assert_true(is_in(k));
        krig_pass(k, 4995);
        assert_true(is_in(k));
        krig_pass(k, 10);
        assert_false(is_in(k)); /* over: only a login would have been heard */
        assert_closed(k);
        krig_open(k);
        again(k, mechanisms[i], "guest", 0);
        krig_pass(k, 6000);
        again(k, mechanisms[i], "guest", 0); /* late, and heard */
        assert_true(is_in(k));
        krig_free(k);
    }
}

static void a_session_is_not_renewed(void **state)
{
    (void)state;
    struct krig *k = krig_new();
    k->options.reauth_ms = 5000;
    again(k, "SCRAM-SHA-256", "guest", 0);
    assert_int_equal(shake(k, 1, "PLAIN"), KAFKA_ERR_ILLEGAL_SASL_STATE); /* by another mechanism */
    assert_closed(k);
    krig_open(k);
    again(k, "SCRAM-SHA-256", "guest", 0);
    assert_int_equal(shake(k, 1, "SCRAM-SHA-256"), 0);
    assert_false(is_in(k)); /* between, nothing else is heard */
    assert_closed(k);
    krig_open(k);
    again(k, "SCRAM-SHA-256", "guest", 0);
    krig_pass(k, 2000);
    again(k, "SCRAM-SHA-256", "gast", KAFKA_ERR_SASL_AUTHENTICATION_FAILED);
    assert_closed(k);
    krig_open(k);
    assert_true(is_in(k)); /* who needs no login has no session that ends */
    assert_int_equal(shake(k, 1, "PLAIN"), KAFKA_ERR_ILLEGAL_SASL_STATE);
    krig_pass(k, 6000);
    assert_true(is_in(k));
    krig_free(k);
}

/* As another user: whoever has the connection keeps it. */
static void a_session_stays_its_users(void **state)
{
    uint8_t salts[PASSWORD_SALTS] = {1};
    char verifier[PASSWORD_VERIFIER_MAX];
    (void)state;
    for (unsigned plain = 0; plain < 2; plain++) {
        struct krig *k = krig_new();
        assert_true(password_make(slice_str("guest"), salts, 4096, verifier));
        assert_true(user_put(k->core->b, slice_str("other"), slice_str(verifier), (struct slice){0}, true));
        again(k, plain ? "PLAIN" : "SCRAM-SHA-256", "guest", 0);
        if (plain) {
            assert_int_equal(shake(k, 1, "PLAIN"), 0);
            assert_int_equal(KASK(k, sasl_authenticate, 1, .auth_bytes = slice_of("\0other\0guest", 12))->error_code,
                             KAFKA_ERR_SASL_AUTHENTICATION_FAILED);
        } else {
            struct scram_client c = guest(SCRAM_SHA256, "guest");
            c.name = "other";
            assert_int_equal(scram(k, &c)->error_code, KAFKA_ERR_SASL_AUTHENTICATION_FAILED);
        }
        assert_closed(k);
        krig_free(k);
    }
}

/* ---- trouble ---- */

static void storm(struct krig *k)
{
    krig_put(k, KAFKA_API_sasl_handshake, 1,
             &(struct kafka_sasl_handshake_request){.mechanism = slice_str("SCRAM-SHA-512")});
    krig_put(k, KAFKA_API_sasl_authenticate, 2,
             &(struct kafka_sasl_authenticate_request){.auth_bytes = slice_str("n,,n=guest,r=nonce")});
    krig_put(k, KAFKA_API_sasl_authenticate, 2,
             &(struct kafka_sasl_authenticate_request){.auth_bytes = slice_str("c=biws,r=nonce,p=AAAA")});
}

static void damaged(void **state)
{
    (void)state;
    krig_damage(storm, 3000);
}

/* Every allocation of one of the two steps fails once: 1: the first token, 2: the last. */
static bool without_memory(unsigned step, uint64_t n)
{
    struct krig *k = krig_new();
    struct scram_client c = guest(SCRAM_SHA256, "guest");
    assert_int_equal(shake(k, 1, "SCRAM-SHA-256"), 0);
    scram_client_first(&c, "x");
    if (step == 1)
        mem_fail_at(n, false);
    const struct kafka_sasl_authenticate_response *said = say(k, c.first);
    if (step == 2) {
        scram_client_final(&c, said->auth_bytes);
        mem_fail_at(n, false);
        said = say(k, c.last);
    }
    bool hit = mem_failures_hit();
    mem_fail_at(0, false);
    if (!hit)
        assert_true(said && said->error_code == 0);
    krig_close(k);
    krig_settle(k);
    k->out_len = 0;
    krig_open(k); /* the next one is not harmed */
    c = guest(SCRAM_SHA512, "guest");
    assert_int_equal(scram(k, &c)->error_code, 0);
    krig_free(k);
    return hit;
}

static void each_allocation(void **state)
{
    (void)state;
    for (unsigned step = 1; step <= 2; step++) {
        uint64_t n = 1;
        while (without_memory(step, n))
            n++;
        assert_true(n > 3);
    }
}

/* A certificate is a login; the user must be there, and guest still has to come from the loopback. */
static void certificates_log_in(void **state)
{
    static const struct {
        const char *certified;
        bool loopback, guest_near, in;
    } rows[] = {{"guest", true, true, true},   {"guest", false, false, true},   {"guest", false, true, false},
                {"nobody", true, true, false}, {"nobody", false, false, false}, {NULL, true, true, true},
                {NULL, false, false, false}};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct krig *k = krig_new();
        k->core->b->options.guest_loopback_only = rows[i].guest_near;
        krig_close(k);
        k->peer.loopback = rows[i].loopback;
        krig_open(k);
        k->engine->certified = rows[i].certified;
        assert_int_equal(is_in(k) ? 10 + i : i, rows[i].in ? 10 + i : i);
        krig_free(k);
    }
    struct krig *k = krig_new(); /* and SASL within TLS says otherwise */
    k->engine->certified = "nobody";
    struct scram_client c = guest(SCRAM_SHA512, "guest");
    assert_int_equal(scram(k, &c)->error_code, 0);
    assert_true(is_in(k));
    krig_free(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scram_logs_in),
        cmocka_unit_test(scram_refuses),
        cmocka_unit_test(nobody_can_tell_who_there_is),
        cmocka_unit_test(a_password_that_changes_meanwhile),
        cmocka_unit_test(keys_of_one_hash),
        cmocka_unit_test(scram_by_bare_tokens),
        cmocka_unit_test(mechanisms_as_configured),
        cmocka_unit_test(a_session_is_renewed),
        cmocka_unit_test(a_session_is_not_renewed),
        cmocka_unit_test(a_session_stays_its_users),
        cmocka_unit_test(damaged),
        cmocka_unit_test(each_allocation),
        cmocka_unit_test(certificates_log_in),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
