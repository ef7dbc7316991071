/* tls_throwaway: a CA nobody can use again and what it has signed: a certificate for localhost, one for a client named guest.
 *
 * Life cycle: tls_throwaway_make → the texts → tls_throwaway_free. For development and tests. Any thread.
 */
#ifndef MILLRACE_NET_TLS_THROWAWAY_H
#define MILLRACE_NET_TLS_THROWAWAY_H

#include "base/types.h"

#define TLS_THROWAWAY_DAYS 30

struct tls_throwaway {
    char *ca;              /* PEM: its certificate; its key is gone */
    char *server, *client; /* PEM: key and certificate */
};

/* 0 or -ENOMEM; *ret can be freed in any case. */
MUST_USE int tls_throwaway_make(struct tls_throwaway *ret);
void tls_throwaway_free(struct tls_throwaway *t);
/* Is this certificate one of that CA, and good for another day? */
bool tls_throwaway_is_good(struct slice certificate, struct slice ca);

#endif
