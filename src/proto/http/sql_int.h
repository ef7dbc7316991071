/* sql_int: what the two files of POST /sql share: the session that a connection has in the core for it. The loop's thread. */
#ifndef MILLRACE_PROTO_HTTP_SQL_INT_H
#define MILLRACE_PROTO_HTTP_SQL_INT_H

#include "proto/http/http_int.h"
#include "proto/http/sql_csv.h"
#include "proto/hub.h"

#include <openssl/sha.h>

enum sql_state { SQL_LOGIN, SQL_ENTER, SQL_READY, SQL_RUNS };
enum { SQL_CUE_LOGIN = 1, SQL_CUE_ENTER, SQL_CUE_REQUESTS };

struct http_sql {
    struct session session;                 /* first; its engine is what the hub looks at, the bytes are http's */
    struct http *http;                      /* NULL: nobody listens any more */
    uint8_t state;                          /* enum sql_state */
    bool csv, json;                         /* what the client takes; what its body is */
    bool says;                              /* the answer has begun */
    uint32_t request;                       /* origin of the one that goes on */
    uint64_t owed;                          /* bytes that were said and not granted again */
    struct ask *open, *login, *enter, *ask; /* not sent yet */
    uint8_t who[SHA256_DIGEST_LENGTH];      /* of credentials and vhost */
    uint8_t *body;
    size_t body_len, body_room;
    struct sql_csv table;
};

/* The session's calls; it is attached to its hub already. */
void http_sql_init(struct http_sql *s);
/* What has been made and waits for a slot. */
void http_sql_send(struct http_sql *s);
/* The request's answer, of what has gone wrong before another has begun: a status and a sentence. */
void http_sql_wrong(struct http *h, unsigned status, struct slice message);

#endif
