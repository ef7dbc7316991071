/* tls_rig_test: certificates of any kind, and a client's side of TLS over two queues of bytes, for the tests of TLS. */
#ifndef MILLRACE_NET_TLS_RIG_TEST_H
#define MILLRACE_NET_TLS_RIG_TEST_H

#include "base/mem.h"
#include "net/tls.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* ---- certificates ---- */

struct issued {
    X509 *certificate;
    EVP_PKEY *key;
};

struct wanted {
    const char *names[4];    /* common names */
    const char *alternative; /* as openssl.cnf says it; NULL: none */
    const char *kind;        /* "P-256" (NULL), "P-384", "RSA-1024", "RSA-2048" */
    int from_days, to_days;  /* 0, 0: from yesterday to tomorrow */
    bool ca;
};

static inline void extend(X509 *to, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, issuer, to, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    assert_non_null(extension);
    assert_int_equal(X509_add_ext(to, extension, -1), 1);
    X509_EXTENSION_free(extension);
}

static inline struct issued issue(const struct wanted *wanted, const struct issued *by)
{
    struct issued made;
    const char *kind = wanted->kind ? wanted->kind : "P-256";
    made.key = strncmp(kind, "RSA", 3) == 0 ? EVP_RSA_gen((unsigned)strtoul(kind + 4, NULL, 10)) : EVP_EC_gen(kind);
    made.certificate = X509_new();
    X509 *c = made.certificate, *issuer = by ? by->certificate : c;
    X509_set_version(c, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(c), 1);
    for (size_t i = 0; i < ARRAY_LEN(wanted->names) && wanted->names[i]; i++)
        X509_NAME_add_entry_by_txt(X509_get_subject_name(c), "CN", MBSTRING_UTF8,
                                   (const unsigned char *)wanted->names[i], (int)strlen(wanted->names[i]), -1, 0);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(c), "O", MBSTRING_UTF8, (const unsigned char *)"Mill", -1, -1, 0);
    X509_set_issuer_name(c, X509_get_subject_name(issuer));
    X509_gmtime_adj(X509_getm_notBefore(c), (wanted->from_days ? wanted->from_days : -1) * 86400L);
    X509_gmtime_adj(X509_getm_notAfter(c), (wanted->to_days ? wanted->to_days : 1) * 86400L);
    X509_set_pubkey(c, made.key);
    extend(c, issuer, NID_basic_constraints, wanted->ca ? "critical,CA:TRUE" : "critical,CA:FALSE");
    if (wanted->alternative)
        extend(c, issuer, NID_subject_alt_name, wanted->alternative);
    assert_true(X509_sign(c, by ? by->key : made.key, EVP_sha256()) > 0);
    return made;
}

static inline void issued_free(struct issued *issued)
{
    X509_free(issued->certificate);
    EVP_PKEY_free(issued->key);
    *issued = (struct issued){0};
}

/* Certificates, then a key, as PEM; each may be NULL. Freed by free. */
static inline char *pem(const struct issued *first, const struct issued *second, const EVP_PKEY *key)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *at;
    if (first)
        PEM_write_bio_X509(bio, first->certificate);
    if (second)
        PEM_write_bio_X509(bio, second->certificate);
    if (key)
        PEM_write_bio_PrivateKey(bio, (EVP_PKEY *)(uintptr_t)key, NULL, NULL, 0, NULL, NULL);
    long len = BIO_get_mem_data(bio, &at);
    char *text = malloc((size_t)len + 1);
    memcpy(text, at, (size_t)len);
    text[len] = '\0';
    BIO_free(bio);
    return text;
}

static inline struct tls_file file_of(const char *name, const char *text)
{
    return (struct tls_file){.name = name, .bytes = slice_str(text)};
}

/* ---- bytes on their way ---- */

#define QUEUE_MAX (2u << 20)

struct queue {
    uint8_t *bytes;
    size_t at, len;
    size_t gives, takes; /* at most so much per call; takes 0: full */
    bool ended;
    int error; /* a negative errno instead of anything */
};

static inline void queue_init(struct queue *q)
{
    *q = (struct queue){.bytes = malloc(QUEUE_MAX), .gives = SIZE_MAX, .takes = SIZE_MAX};
}

static inline void queue_free(struct queue *q)
{
    free(q->bytes);
}

static inline int64_t queue_take(struct queue *q, void *ret, size_t len)
{
    size_t n = q->len - q->at;
    n = n < len ? n : len;
    n = n < q->gives ? n : q->gives;
    if (q->error)
        return q->error;
    if (n == 0)
        return q->ended && q->at == q->len ? 0 : -EAGAIN;
    memcpy(ret, q->bytes + q->at, n);
    q->at += n;
    if (q->at == q->len)
        q->at = q->len = 0;
    return (int64_t)n;
}

static inline int64_t queue_put(struct queue *q, const void *bytes, size_t len)
{
    size_t n = len < q->takes ? len : q->takes;
    if (q->error)
        return q->error;
    if (n == 0 || q->len + n > QUEUE_MAX)
        return -EAGAIN;
    memcpy(q->bytes + q->len, bytes, n);
    q->len += n;
    if (q->takes != SIZE_MAX)
        q->takes -= n;
    return (int64_t)n;
}

/* ---- a client ---- */

struct client_wants {
    const char *host;    /* SNI */
    int min, max;        /* versions; 0: any */
    const char *ciphers; /* of TLS 1.2 */
    const struct issued *certificate;
    SSL_SESSION *session;
};

struct client {
    SSL_CTX *ctx;
    SSL *ssl;
    BIO *in, *out; /* memory */
};

static inline struct client client_new(const struct client_wants *wants)
{
    struct client c;
    c.ctx = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_security_level(c.ctx, 0);
    SSL_CTX_set_min_proto_version(c.ctx, wants->min);
    SSL_CTX_set_max_proto_version(c.ctx, wants->max);
    if (wants->ciphers)
        assert_int_equal(SSL_CTX_set_cipher_list(c.ctx, wants->ciphers), 1);
    if (wants->certificate) {
        assert_int_equal(SSL_CTX_use_certificate(c.ctx, wants->certificate->certificate), 1);
        assert_int_equal(SSL_CTX_use_PrivateKey(c.ctx, wants->certificate->key), 1);
    }
    c.ssl = SSL_new(c.ctx);
    c.in = BIO_new(BIO_s_mem());
    c.out = BIO_new(BIO_s_mem());
    BIO_set_mem_eof_return(c.in, -1);
    SSL_set_bio(c.ssl, c.in, c.out);
    if (wants->host)
        SSL_set_tlsext_host_name(c.ssl, wants->host);
    if (wants->session)
        SSL_set_session(c.ssl, wants->session);
    SSL_set_connect_state(c.ssl);
    return c;
}

static inline void client_free(struct client *c)
{
    SSL_set_shutdown(c->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN); /* or its session could not be used again */
    SSL_free(c->ssl);
    SSL_CTX_free(c->ctx);
}

/* What the client has to say goes to q. */
static inline void client_says(struct client *c, struct queue *q)
{
    char *at;
    long len = BIO_get_mem_data(c->out, &at);
    if (len > 0)
        assert_int_equal(queue_put(q, at, (size_t)len), len);
    (void)BIO_reset(c->out);
}

static inline void client_hears(struct client *c, struct queue *q)
{
    uint8_t bytes[4096];
    int64_t n;
    while ((n = queue_take(q, bytes, sizeof bytes)) > 0)
        assert_int_equal(BIO_write(c->in, bytes, (int)n), n);
}

/* The reason of an error that ended a client's call, "" for none. */
static inline const char *client_error(void)
{
    const char *text = ERR_reason_error_string(ERR_peek_last_error());
    return text ? text : "";
}

#endif
