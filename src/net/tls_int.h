/* tls_int: what tls.c and tls_server.c share: one generation of keys, which its connections keep alive. */
#ifndef MILLRACE_NET_TLS_INT_H
#define MILLRACE_NET_TLS_INT_H

#include "net/tls_server.h"

#include <openssl/ssl.h>
#include <stdatomic.h>

#define TLS_USER_MAX 256u /* with the NUL; longer names are nobody's */
#define TLS_PAIRS_MAX 64u

struct tls_keys {
    _Atomic uint32_t refs;
    size_t count;
    SSL_CTX *contexts[TLS_PAIRS_MAX]; /* one per certificate; a connection begins with the first */
    enum tls_user_from user_from;
    uint32_t handshake_ms;
    char *host; /* a client's: whom it wants; NULL: we are the server */
};

/* A reference to the newest ones; any thread. */
struct tls_keys *tls_keys_take(struct tls_server *server);
void tls_keys_give(struct tls_keys **keys);
/* What the library calls to move bytes; one for all connections. */
const BIO_METHOD *tls_wire(const struct tls_server *server);

/* Who the peer's verified certificate says it is; false: nobody, and *ret_why says why (NULL: it has none). */
bool tls_user_of(const struct tls_keys *keys, const SSL *ssl, char ret[TLS_USER_MAX], const char **ret_why);

/* tls.c: the functions behind tls_wire. */
BIO_METHOD *tls_wire_new(void);

#endif
