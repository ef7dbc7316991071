/* talk_tls: what --tls, --ca, --cert, --key and --insecure of `millrace pub`, `sub` and `tail` say, with the files read.
 *
 * Life cycle: zeroed → the words are set → talk_tls_read → options are good → talk_tls_fini, when no connection is left. Thread: one
 * owner.
 */
#ifndef MILLRACE_MAIN_TALK_TLS_H
#define MILLRACE_MAIN_TALK_TLS_H

#include "net/tls_server.h"

struct talk_tls {
    bool wanted;                        /* set with any of the words */
    bool insecure;                      /* the server may be anybody */
    const char *ca, *certificate, *key; /* files; NULL: not given. Loans */
    struct tls_client_options options;
    uint8_t *bytes[3];
};

/* 0, or -1: why says which file it is about. Without --ca the machine's own authorities are trusted; without --key it is looked
 * for in --cert. */
MUST_USE int talk_tls_read(struct talk_tls *t, char *why, size_t why_len);
void talk_tls_fini(struct talk_tls *t);

#endif
