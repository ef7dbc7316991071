/* tls_server: our side of TLS for all connections: certificates, keys, who signs those of clients, versions, ciphers.
 *
 * Life cycle: tls_server_new at boot → connections take its keys as they begin (tls.h) → tls_server_reload any time: new
 * connections take the new keys, the others keep theirs → tls_server_free when no connection is left. The main thread makes,
 * reloads and frees; any loop's thread takes keys. Certificates come as bytes: whoever has read the files says their names.
 */
#ifndef MILLRACE_NET_TLS_SERVER_H
#define MILLRACE_NET_TLS_SERVER_H

#include "base/types.h"

struct tls_file {
    const char *name;   /* for complaints */
    struct slice bytes; /* PEM */
};

struct tls_pair {
    struct tls_file certificate; /* ours first, then those that have signed it */
    struct tls_file key;         /* may be the same file */
};

/* As the settings list them. */
enum tls_client { TLS_CLIENT_NONE, TLS_CLIENT_REQUEST, TLS_CLIENT_REQUIRE };
enum tls_user_from { TLS_USER_COMMON_NAME, TLS_USER_DISTINGUISHED_NAME, TLS_USER_ALTERNATIVE_NAME };
enum tls_version { TLS_VERSION_1_2, TLS_VERSION_1_3 };

struct tls_options {
    const struct tls_pair *pairs; /* the first is for who names no host, or one that none is for; all loans */
    size_t pair_count;
    struct tls_file client_ca; /* who signs certificates of clients; no bytes: none are asked for */
    enum tls_client client;
    enum tls_user_from user_from;
    enum tls_version min_version;
    const char *ciphers; /* OpenSSL's names with colons, commas or spaces between; empty: ours */
    uint32_t handshake_ms;
    /* What is no error and wants to be known: a certificate that has expired. May be NULL. */
    void (*note)(void *arg, const char *text);
    void *arg;
};

struct tls_server;

/* 0, -ENOMEM, or -EINVAL: why says which file, what is wrong, what to do. */
MUST_USE int tls_server_new(const struct tls_options *options, struct tls_server **ret, char *why, size_t why_len);
/* The same; on an error everything stays as it was. */
MUST_USE int tls_server_reload(struct tls_server *server, const struct tls_options *options, char *why, size_t why_len);
void tls_server_free(struct tls_server **server);

/* Instead of all this: the process will speak no TLS, and OpenSSL, which it still hashes with, need not load the texts of its
 * errors. The main thread, before anything of OpenSSL is used. */
void tls_server_none(void);

/* Who may have signed the certificate of the server that a client reaches. */
enum tls_trust { TLS_TRUST_ANYBODY, TLS_TRUST_CA, TLS_TRUST_SYSTEM };

struct tls_client_options {
    const char *host; /* whom it wants to reach; copied */
    enum tls_trust trust;
    struct tls_file ca;  /* with TLS_TRUST_CA; loans, as the pair's */
    struct tls_pair own; /* what it shows when it is asked; no name: nothing */
};

/* The other side, for tools and tests: what tls_new makes with it speaks first. The same answers; complaints call ca and own
 * --ca, --cert and --key. */
MUST_USE int tls_client_new(const struct tls_client_options *options, struct tls_server **ret, char *why,
                            size_t why_len);

#endif
