/* Certificates and how they are used, see tls_server.h.
 *
 * One SSL_CTX per certificate, alike but for that; a connection begins with the first and moves to another when the client
 * names a host (SNI) that it is for. All of them, and what clients' names are made from, are one counted generation: a
 * reload makes the next one and lets the last reference free the old, so nobody is dropped. The lock is held for the few
 * instructions in which the pointer is read and counted.
 *
 * What is not there, on purpose: TLS 1.1 and older, renegotiation, compression, ciphers without forward secrecy or without
 * authenticated encryption (a list that has one is refused by name), early data, sessions kept by us (tickets are enough;
 * they die with a reload, so that whoever a new CA does not know cannot come back by an old ticket). */
#include "net/tls_server.h"

#include "base/check.h"
#include "base/mem.h"
#include "net/tls_int.h"
#include "os/thread.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define READ_BUFFER (64 * 1024) /* of one gulp, as for connections without TLS; only while there is something in it */
#define TICKET_LIFE_S 3600
#define VERIFY_DEPTH 10
/* 128 bits are enough, and an eighth cheaper than 256. */
#define CIPHERS_1_2 "ECDHE+AESGCM+AES128:ECDHE+AESGCM:ECDHE+CHACHA20"
#define CIPHERS_1_3 "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
#define CIPHERS_LEN_MAX 2000

struct tls_server {
    struct os_lock lock; /* of `keys`: the pointer and the first reference taken through it */
    struct tls_keys *keys;
    BIO_METHOD *wire;
};

/* What is being made, and where to say what is wrong with it. */
struct making {
    const struct tls_options *options;
    struct tls_keys *keys;
    const char *certificate_said, *key_said; /* what people call them */
    char *why;
    size_t why_len;
};

__attribute__((format(printf, 2, 3))) static int refuse(struct making *m, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(m->why, m->why_len, format, args);
    va_end(args);
    return -EINVAL;
}

static const char *library_says(void)
{
    const char *text = ERR_reason_error_string(ERR_peek_last_error());
    return text ? text : "no reason given";
}

/* ---- files ---- */

static BIO *bio_of(const struct tls_file *file)
{
    return BIO_new_mem_buf(file->bytes.ptr, (int)file->bytes.len);
}

static bool has_text(const struct tls_file *file, const char *text)
{
    return file->bytes.len && memmem(file->bytes.ptr, file->bytes.len, text, strlen(text));
}

/* Never asks anybody at a terminal. */
static int no_passphrase(char *ret, int len, int writing, void *arg)
{
    (void)ret;
    (void)len;
    (void)writing;
    (void)arg;
    return -1;
}

static int complain_of_certificate(struct making *m, const struct tls_file *file, const char *setting)
{
    if (file->bytes.len == 0)
        return refuse(m, "%s: the file %s is empty", setting, file->name);
    if (has_text(file, "-----BEGIN CERTIFICATE-----"))
        return refuse(m, "%s: a certificate in %s cannot be read: %s", setting, file->name, library_says());
    if (has_text(file, "PRIVATE KEY-----"))
        return refuse(m, "%s: %s holds a private key and no certificate: are %s and %s the wrong way round?", setting,
                      file->name, m->certificate_said, m->key_said);
    if (has_text(file, "-----BEGIN CERTIFICATE REQUEST-----"))
        return refuse(m, "%s: %s is a request for a certificate: the certificate is what the CA makes of it", setting,
                      file->name);
    if (!has_text(file, "-----BEGIN"))
        return refuse(m, "%s: %s is no PEM file (if it is DER: openssl x509 -inform DER -in %s -out %s.pem)", setting,
                      file->name, file->name, file->name);
    return refuse(m, "%s: there is no certificate in %s", setting, file->name);
}

/* Every certificate of a file, in order. NULL: why has been said. */
static STACK_OF(X509) * read_certificates(struct making *m, const struct tls_file *file, const char *setting)
{
    BIO *bio = bio_of(file);
    STACK_OF(X509) *all = sk_X509_new_null();
    X509 *one;
    ERR_clear_error();
    while (bio && all && (one = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL)))
        if (sk_X509_push(all, one) <= 0)
            X509_free(one);
    unsigned long error = ERR_peek_last_error();
    bool at_end = ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
    bool good = all && sk_X509_num(all) > 0 && at_end;
    if (!good)
        complain_of_certificate(m, file, setting);
    BIO_free(bio);
    ERR_clear_error();
    if (good)
        return all;
    sk_X509_pop_free(all, X509_free);
    return NULL;
}

static EVP_PKEY *read_key(struct making *m, const struct tls_pair *pair)
{
    const struct tls_file *file = &pair->key;
    BIO *bio = bio_of(file);
    ERR_clear_error();
    EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL) : NULL;
    BIO_free(bio);
    bool at_home = file->name == pair->certificate.name;
    if (key)
        return key;
    if (has_text(file, "ENCRYPTED"))
        refuse(m,
               "%s: the key in %s is encrypted, and nobody is there to type its password: openssl pkey -in %s "
               "-out KEY",
               m->key_said, file->name, file->name);
    else if (!has_text(file, "PRIVATE KEY-----"))
        refuse(m, "%s: there is no private key in %s%s%s%s", m->key_said, file->name, at_home ? " (" : "",
               at_home ? m->key_said : "", at_home ? " is empty, so it is looked for there)" : "");
    else
        refuse(m, "%s: the key in %s cannot be read: %s", m->key_said, file->name, library_says());
    ERR_clear_error();
    return NULL;
}

/* ---- a context ---- */

/* Splits the setting: names that begin with TLS_ are suites of TLS 1.3, all others are a list for 1.2. */
static bool split_ciphers(const char *setting, char *ret_old, char *ret_new)
{
    static const char separators[] = ": ,\t";
    *ret_old = *ret_new = '\0';
    if (strlen(setting) >= CIPHERS_LEN_MAX)
        return false;
    for (const char *at = setting + strspn(setting, separators); *at; at += strspn(at, separators)) {
        size_t len = strcspn(at, separators);
        char *to = strncmp(at, "TLS_", 4) == 0 ? ret_new : ret_old;
        size_t end = strlen(to);
        snprintf(to + end, CIPHERS_LEN_MAX + 2 - end, "%s%.*s", end ? ":" : "", (int)len, at);
        at += len;
    }
    return true;
}

static const char *weakness(const SSL_CIPHER *cipher)
{
    int exchange = SSL_CIPHER_get_kx_nid(cipher);
    if (SSL_CIPHER_get_bits(cipher, NULL) < 128)
        return "has a short key";
    if (!SSL_CIPHER_is_aead(cipher))
        return "does not authenticate what it encrypts (no AEAD)";
    if (SSL_CIPHER_get_auth_nid(cipher) == NID_auth_null)
        return "does not say who the server is";
    if (exchange != NID_kx_ecdhe && exchange != NID_kx_dhe && exchange != NID_kx_any)
        return "has no forward secrecy";
    return NULL;
}

static int set_ciphers(struct making *m, SSL_CTX *ctx)
{
    char old[CIPHERS_LEN_MAX + 2], new[CIPHERS_LEN_MAX + 2];
    const char *setting = m->options->ciphers;
    if (!split_ciphers(setting, old, new) || strchr(setting, '@'))
        return refuse(m, "tls.ciphers: only names of ciphers, at most %d characters of them", CIPHERS_LEN_MAX);
    if (SSL_CTX_set_cipher_list(ctx, *old ? old : CIPHERS_1_2) != 1)
        return refuse(m, "tls.ciphers: %s names no cipher that there is (openssl ciphers -s -tls1_2 lists them)", old);
    if (SSL_CTX_set_ciphersuites(ctx, *new ? new : CIPHERS_1_3) != 1)
        return refuse(m, "tls.ciphers: %s is no list of suites of TLS 1.3 (openssl ciphers -s -tls1_3 lists them)",
                      new);
    STACK_OF(SSL_CIPHER) *all = SSL_CTX_get_ciphers(ctx);
    for (int i = 0; i < sk_SSL_CIPHER_num(all); i++) {
        const SSL_CIPHER *cipher = sk_SSL_CIPHER_value(all, i);
        const char *weak = weakness(cipher);
        if (weak)
            return refuse(m, "tls.ciphers: %s is not allowed: it %s", SSL_CIPHER_get_name(cipher), weak);
    }
    return 0;
}

static void set_modes(const struct tls_options *options, SSL_CTX *ctx)
{
    static const uint8_t whose[] = "millrace";
    SSL_CTX_set_security_level(ctx, 2);
    SSL_CTX_set_min_proto_version(ctx, options->min_version == TLS_VERSION_1_3 ? TLS1_3_VERSION : TLS1_2_VERSION);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_mode(ctx, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_dh_auto(ctx, 1);
    SSL_CTX_set_read_ahead(ctx, 1);
    SSL_CTX_set_default_read_buffer_len(ctx, READ_BUFFER);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_timeout(ctx, TICKET_LIFE_S);
    SSL_CTX_set_num_tickets(ctx, 1);
    SSL_CTX_set_session_id_context(ctx, whose, sizeof whose - 1);
}

/* Who may sign certificates of clients; the client is told the names, so that it finds the right one of its own. */
static int set_client_ca(struct making *m, SSL_CTX *ctx)
{
    if (m->options->client == TLS_CLIENT_NONE)
        return 0;
    if (!m->options->client_ca.name)
        return refuse(m, "tls.client_certificates: without tls.client_ca no certificate of a client can be verified");
    STACK_OF(X509) *all = read_certificates(m, &m->options->client_ca, "tls.client_ca");
    if (!all)
        return -EINVAL;
    bool good = true;
    for (int i = 0; i < sk_X509_num(all) && good; i++) {
        X509 *ca = sk_X509_value(all, i);
        good = X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), ca) == 1 && SSL_CTX_add_client_CA(ctx, ca) == 1;
    }
    sk_X509_pop_free(all, X509_free);
    int mode = SSL_VERIFY_PEER | (m->options->client == TLS_CLIENT_REQUIRE ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0);
    SSL_CTX_set_verify(ctx, mode, NULL);
    SSL_CTX_set_verify_depth(ctx, VERIFY_DEPTH);
    return good ? 0 : -ENOMEM;
}

static void note_dates(const struct making *m, const struct tls_file *file, const X509 *certificate)
{
    const char *what = NULL;
    if (X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0)
        what = "has expired: clients will refuse it";
    else if (X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0)
        what = "is not valid yet: clients will refuse it (is the clock right?)";
    if (!what || !m->options->note)
        return;
    char text[600];
    snprintf(text, sizeof text, "the certificate in %s %s", file->name, what);
    m->options->note(m->options->arg, text);
}

static int use_pair(struct making *m, SSL_CTX *ctx, const struct tls_pair *pair)
{
    STACK_OF(X509) *chain = read_certificates(m, &pair->certificate, m->certificate_said);
    EVP_PKEY *key = chain ? read_key(m, pair) : NULL;
    int err = key ? 0 : -EINVAL;
    X509 *ours = chain ? sk_X509_value(chain, 0) : NULL;
    if (key && X509_check_private_key(ours, key) != 1)
        err = refuse(m, "%s: the key in %s is not that of the first certificate in %s", m->key_said, pair->key.name,
                     pair->certificate.name);
    else if (key && (SSL_CTX_use_certificate(ctx, ours) != 1 || SSL_CTX_use_PrivateKey(ctx, key) != 1))
        err = refuse(m, "%s: the certificate in %s is not good enough for TLS: %s (RSA needs 2048 bits, and SHA-256)",
                     m->certificate_said, pair->certificate.name, library_says());
    for (int i = 1; err == 0 && i < sk_X509_num(chain); i++)
        if (SSL_CTX_add1_chain_cert(ctx, sk_X509_value(chain, i)) != 1)
            err = refuse(m, "%s: certificate %d in %s cannot be used: %s", m->certificate_said, i + 1,
                         pair->certificate.name, library_says());
    if (err == 0)
        note_dates(m, &pair->certificate, ours);
    ERR_clear_error();
    EVP_PKEY_free(key);
    sk_X509_pop_free(chain, X509_free);
    return err;
}

/* The certificate for the host that the client has named. */
static int on_server_name(SSL *ssl, int *ret_alert, void *arg)
{
    struct tls_keys *keys = arg;
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    (void)ret_alert;
    for (size_t i = 0; name && i < keys->count; i++) {
        X509 *certificate = SSL_CTX_get0_certificate(keys->contexts[i]);
        if (X509_check_host(certificate, name, strlen(name), 0, NULL) != 1)
            continue;
        if (i > 0)
            SSL_set_SSL_CTX(ssl, keys->contexts[i]);
        return SSL_TLSEXT_ERR_OK;
    }
    return SSL_TLSEXT_ERR_NOACK;
}

static int make_context(struct making *m, const struct tls_pair *pair)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    if (!ctx)
        return -ENOMEM;
    m->keys->contexts[m->keys->count++] = ctx;
    set_modes(m->options, ctx);
    SSL_CTX_set_tlsext_servername_callback(ctx, on_server_name);
    SSL_CTX_set_tlsext_servername_arg(ctx, m->keys);
    int err = set_ciphers(m, ctx);
    if (err == 0)
        err = set_client_ca(m, ctx);
    return err ? err : use_pair(m, ctx, pair);
}

/* ---- generations ---- */

void tls_keys_give(struct tls_keys **keys)
{
    struct tls_keys *k = *keys;
    *keys = NULL;
    if (!k || atomic_fetch_sub_explicit(&k->refs, 1, memory_order_acq_rel) > 1)
        return;
    for (size_t i = 0; i < k->count; i++)
        SSL_CTX_free(k->contexts[i]);
    mem_free(k->host);
    mem_free(k);
}

struct tls_keys *tls_keys_take(struct tls_server *server)
{
    os_lock_take(&server->lock);
    struct tls_keys *keys = server->keys;
    atomic_fetch_add_explicit(&keys->refs, 1, memory_order_relaxed);
    os_lock_give(&server->lock);
    return keys;
}

const BIO_METHOD *tls_wire(const struct tls_server *server)
{
    return server->wire;
}

static int make_keys(const struct tls_options *options, struct tls_keys **ret, char *why, size_t why_len)
{
    struct making m = {.options = options,
                       .certificate_said = "tls.certificate",
                       .key_said = "tls.key",
                       .why = why,
                       .why_len = why_len};
    if (options->pair_count == 0 || options->pair_count > TLS_PAIRS_MAX)
        return refuse(&m, "tls.certificate: 1 to %u files", TLS_PAIRS_MAX);
    m.keys = mem_zalloc(sizeof *m.keys);
    int err = m.keys ? 0 : -ENOMEM;
    if (m.keys) {
        m.keys->refs = 1;
        m.keys->user_from = options->user_from;
        m.keys->handshake_ms = options->handshake_ms;
    }
    for (size_t i = 0; i < options->pair_count && err == 0; i++)
        err = make_context(&m, &options->pairs[i]);
    if (err == -ENOMEM)
        snprintf(why, why_len, "no memory for the certificates");
    if (err < 0)
        tls_keys_give(&m.keys);
    else
        *ret = m.keys;
    return err;
}

/* Takes the keys. */
static int server_of(struct tls_keys *keys, struct tls_server **ret)
{
    struct tls_server *server = mem_zalloc(sizeof *server);
    BIO_METHOD *wire = server ? tls_wire_new() : NULL;
    if (!wire) {
        mem_free(server);
        tls_keys_give(&keys);
        return -ENOMEM;
    }
    *server = (struct tls_server){.keys = keys, .wire = wire};
    os_lock_init(&server->lock);
    *ret = server;
    return 0;
}

int tls_server_new(const struct tls_options *options, struct tls_server **ret, char *why, size_t why_len)
{
    struct tls_keys *keys;
    int err = make_keys(options, &keys, why, why_len);
    if (err == 0)
        err = server_of(keys, ret);
    if (err == -ENOMEM)
        snprintf(why, why_len, "no memory for TLS");
    return err;
}

/* Whom a client believes that the server is the one it wanted. */
static int set_trust(struct making *m, SSL_CTX *ctx, const struct tls_client_options *client)
{
    if (client->trust == TLS_TRUST_ANYBODY)
        return 0;
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    if (client->trust == TLS_TRUST_SYSTEM)
        return SSL_CTX_set_default_verify_paths(ctx) == 1 ? 0 : -ENOMEM;
    STACK_OF(X509) *all = read_certificates(m, &client->ca, "--ca");
    if (!all)
        return -EINVAL;
    bool good = true;
    for (int i = 0; i < sk_X509_num(all) && good; i++)
        good = X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), sk_X509_value(all, i)) == 1;
    sk_X509_pop_free(all, X509_free);
    return good ? 0 : -ENOMEM;
}

/* A client asks for more at a time than it can use, and is woken by its socket alone: so it reads no further than a record. */
static int set_client(struct making *m, const struct tls_client_options *client)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    m->keys->host = mem_strdup(client->host);
    if (!ctx || !m->keys->host) {
        SSL_CTX_free(ctx);
        return -ENOMEM;
    }
    m->keys->contexts[m->keys->count++] = ctx;
    set_modes(m->options, ctx);
    SSL_CTX_set_read_ahead(ctx, 0);
    int err = set_trust(m, ctx, client);
    return err || !client->own.certificate.name ? err : use_pair(m, ctx, &client->own);
}

int tls_client_new(const struct tls_client_options *client, struct tls_server **ret, char *why, size_t why_len)
{
    const struct tls_options options = {.min_version = TLS_VERSION_1_2};
    struct making m = {
        .options = &options, .certificate_said = "--cert", .key_said = "--key", .why = why, .why_len = why_len};
    m.keys = mem_zalloc(sizeof *m.keys);
    int err = m.keys ? 0 : -ENOMEM;
    if (m.keys) {
        m.keys->refs = 1;
        err = set_client(&m, client);
    }
    if (err < 0)
        tls_keys_give(&m.keys);
    else
        err = server_of(m.keys, ret);
    if (err == -ENOMEM)
        snprintf(why, why_len, "no memory for TLS");
    return err;
}

int tls_server_reload(struct tls_server *server, const struct tls_options *options, char *why, size_t why_len)
{
    struct tls_keys *made;
    int err = make_keys(options, &made, why, why_len);
    if (err < 0)
        return err;
    os_lock_take(&server->lock);
    struct tls_keys *before = server->keys;
    server->keys = made;
    os_lock_give(&server->lock);
    tls_keys_give(&before);
    return 0;
}

void tls_server_free(struct tls_server **server)
{
    if (!*server)
        return;
    tls_keys_give(&(*server)->keys);
    BIO_meth_free((*server)->wire);
    os_lock_fini(&(*server)->lock);
    mem_free(*server);
    *server = NULL;
}

/* The first hash loads them otherwise: 0.5 MB of tables, of a broker that would never print one. openssl.cnf is read as ever. That
 * this cannot be done shows again with the first hash. */
void tls_server_none(void)
{
    (void)OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CRYPTO_STRINGS, NULL);
}

/* ---- whose certificate ---- */

/* A name that can be a user's: not empty, no NUL and no control character in it, not too long. */
static bool take_name(const void *bytes, int len, char ret[TLS_USER_MAX])
{
    const uint8_t *at = bytes;
    if (len <= 0 || (unsigned)len >= TLS_USER_MAX)
        return false;
    for (int i = 0; i < len; i++)
        if (at[i] < ' ' || at[i] == 0x7f)
            return false;
    memcpy(ret, bytes, (size_t)len);
    ret[len] = '\0';
    return true;
}

/* Two common names would leave it to us whom to believe. */
static bool common_name(X509 *certificate, char ret[TLS_USER_MAX])
{
    X509_NAME *subject = X509_get_subject_name(certificate);
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    if (at < 0 || X509_NAME_get_index_by_NID(subject, NID_commonName, at) >= 0)
        return false;
    unsigned char *text = NULL;
    int len = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
    bool good = take_name(text, len, ret);
    OPENSSL_free(text);
    return good;
}

static bool distinguished_name(X509 *certificate, char ret[TLS_USER_MAX])
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *text;
    unsigned long flags = XN_FLAG_RFC2253 & ~(unsigned long)ASN1_STRFLGS_ESC_MSB;
    bool good = bio && X509_NAME_print_ex(bio, X509_get_subject_name(certificate), 0, flags) >= 0;
    long len = good ? BIO_get_mem_data(bio, &text) : 0;
    good = good && len < (long)TLS_USER_MAX && take_name(text, (int)len, ret);
    BIO_free(bio);
    return good;
}

/* The first name of a host, else the first mail address, else the first URI. */
static bool alternative_name(X509 *certificate, char ret[TLS_USER_MAX])
{
    static const int types[] = {GEN_DNS, GEN_EMAIL, GEN_URI};
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    bool found = false, good = false;
    for (size_t t = 0; t < ARRAY_LEN(types) && !found; t++)
        for (int i = 0; i < sk_GENERAL_NAME_num(names) && !found; i++) {
            int type;
            const ASN1_STRING *value = GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names, i), &type);
            if (type != types[t])
                continue;
            found = true;
            good = take_name(ASN1_STRING_get0_data(value), ASN1_STRING_length(value), ret);
        }
    GENERAL_NAMES_free(names);
    return good;
}

bool tls_user_of(const struct tls_keys *keys, const SSL *ssl, char ret[TLS_USER_MAX], const char **ret_why)
{
    static bool (*const rows[])(X509 * certificate, char ret[TLS_USER_MAX]) = {
        [TLS_USER_COMMON_NAME] = common_name,
        [TLS_USER_DISTINGUISHED_NAME] = distinguished_name,
        [TLS_USER_ALTERNATIVE_NAME] = alternative_name,
    };
    X509 *certificate = SSL_get0_peer_certificate(ssl);
    *ret_why = NULL;
    if (!certificate || SSL_get_verify_result(ssl) != X509_V_OK)
        return false;
    if (rows[keys->user_from](certificate, ret))
        return true;
    *ret_why = "the client's certificate has no name, or not one only, where tls.user_from looks for it";
    ERR_clear_error();
    return false;
}
