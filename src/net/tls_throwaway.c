/* Certificates for trying out, see tls_throwaway.h. Any thread.
 *
 * Keys are on the curve P-256: made in a fraction of a millisecond, and known to every client. */
#include "net/tls_throwaway.h"

#include "base/mem.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#define DAY_S (24 * 3600L)

struct row {
    const char *name, *constraints, *usage, *extended, *alternative;
};

static const struct row ca_row = {"Millrace throw-away CA", "critical,CA:TRUE,pathlen:0",
                                  "critical,keyCertSign,cRLSign", NULL, NULL};
static const struct row server_row = {"localhost", "critical,CA:FALSE", "critical,digitalSignature", "serverAuth",
                                      "DNS:localhost,IP:127.0.0.1,IP:::1"};
static const struct row client_row = {"guest", "critical,CA:FALSE", "critical,digitalSignature", "clientAuth",
                                      "DNS:guest"};

static bool add_extension(X509 *to, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX context;
    if (!value)
        return true;
    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, issuer, to, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    bool good = extension && X509_add_ext(to, extension, -1) == 1;
    X509_EXTENSION_free(extension);
    return good;
}

static bool set_serial(X509 *to)
{
    uint64_t serial;
    return RAND_bytes((unsigned char *)&serial, sizeof serial) == 1 &&
           ASN1_INTEGER_set_uint64(X509_get_serialNumber(to), serial >> 1) == 1;
}

static bool set_name(X509 *to, const char *name)
{
    return X509_NAME_add_entry_by_txt(X509_get_subject_name(to), "CN", MBSTRING_UTF8, (const unsigned char *)name, -1,
                                      -1, 0) == 1;
}

/* issuer NULL: signs itself. */
static X509 *certificate_new(const struct row *row, EVP_PKEY *key, X509 *issuer, EVP_PKEY *issuer_key)
{
    X509 *made = X509_new();
    X509 *by = issuer ? issuer : made;
    bool good = made && X509_set_version(made, 2) == 1 && set_serial(made) && set_name(made, row->name) &&
                X509_gmtime_adj(X509_getm_notBefore(made), -DAY_S) &&
                X509_gmtime_adj(X509_getm_notAfter(made), TLS_THROWAWAY_DAYS * DAY_S) &&
                X509_set_pubkey(made, key) == 1 && X509_set_issuer_name(made, X509_get_subject_name(by)) == 1 &&
                add_extension(made, by, NID_basic_constraints, row->constraints) &&
                add_extension(made, by, NID_key_usage, row->usage) &&
                add_extension(made, by, NID_ext_key_usage, row->extended) &&
                add_extension(made, by, NID_subject_alt_name, row->alternative) &&
                add_extension(made, by, NID_subject_key_identifier, "hash") &&
                add_extension(made, by, NID_authority_key_identifier, "keyid:always") &&
                X509_sign(made, issuer_key, EVP_sha256()) > 0;
    if (good)
        return made;
    X509_free(made);
    return NULL;
}

/* key may be NULL: only the certificate. */
static char *pem_of(X509 *certificate, EVP_PKEY *key)
{
    BIO *bio = BIO_new(BIO_s_mem());
    bool good = bio && (!key || PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) == 1) &&
                PEM_write_bio_X509(bio, certificate) == 1;
    char *text = NULL, *at;
    long len = good ? BIO_get_mem_data(bio, &at) : 0;
    if (len > 0)
        text = mem_slicedup(slice_of(at, (size_t)len));
    BIO_free(bio);
    return text;
}

static char *signed_by(const struct row *row, X509 *ca, EVP_PKEY *ca_key)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = key ? certificate_new(row, key, ca, ca_key) : NULL;
    char *text = certificate ? pem_of(certificate, key) : NULL;
    X509_free(certificate);
    EVP_PKEY_free(key);
    return text;
}

int tls_throwaway_make(struct tls_throwaway *ret)
{
    *ret = (struct tls_throwaway){0};
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *ca = key ? certificate_new(&ca_row, key, NULL, key) : NULL;
    if (ca) {
        ret->ca = pem_of(ca, NULL);
        ret->server = signed_by(&server_row, ca, key);
        ret->client = signed_by(&client_row, ca, key);
    }
    X509_free(ca);
    EVP_PKEY_free(key);
    ERR_clear_error();
    return ret->ca && ret->server && ret->client ? 0 : -ENOMEM;
}

static void text_free(char **text)
{
    if (*text)
        explicit_bzero(*text, strlen(*text));
    mem_free(*text);
    *text = NULL;
}

void tls_throwaway_free(struct tls_throwaway *t)
{
    text_free(&t->ca);
    text_free(&t->server);
    text_free(&t->client);
}

static X509 *parse(struct slice text)
{
    BIO *bio = BIO_new_mem_buf(text.ptr, (int)text.len);
    X509 *certificate = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
    BIO_free(bio);
    return certificate;
}

bool tls_throwaway_is_good(struct slice certificate, struct slice ca)
{
    X509 *leaf = parse(certificate), *root = parse(ca);
    int days = 0, seconds = 0;
    bool good = leaf && root && X509_verify(leaf, X509_get0_pubkey(root)) == 1 &&
                ASN1_TIME_diff(&days, &seconds, NULL, X509_get0_notAfter(leaf)) == 1 && days >= 1;
    X509_free(leaf);
    X509_free(root);
    ERR_clear_error();
    return good;
}
