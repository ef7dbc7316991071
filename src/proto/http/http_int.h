/* http_int: what the files of proto/http share: a connection, how it answers, and its session for SQL. The loop's thread. */
#ifndef MILLRACE_PROTO_HTTP_HTTP_INT_H
#define MILLRACE_PROTO_HTTP_HTTP_INT_H

#include "core/broker.h"
#include "fmt/http.h"
#include "proto/http/engine.h"

enum http_state {
    HTTP_HEAD,
    HTTP_WAIT, /* for the core, which decides whether the body is wanted */
    HTTP_BODY, /* read over, or kept for SQL */
    HTTP_SAYS, /* the answer comes in pieces */
    HTTP_WEBSOCKET,
    HTTP_OVER,
};

struct http {
    struct engine engine; /* first */
    const struct http_options *options;
    void *loop_owner;
    struct os_peer peer;
    struct http_scan scan;
    struct http_body body;
    struct websocket *websocket; /* not NULL: it has become one */
    struct http_sql *sql;        /* NULL: nobody has asked for it here */
    mono_t deadline;
    uint8_t state;  /* enum http_state */
    bool begun;     /* the next head is on its way */
    bool keep_body; /* of this request: it is SQL's */
    bool chunked;   /* the answer that comes in pieces */
    bool continues; /* the client holds the body back until it is told to go on */
    bool keep_alive, say_keep_alive, no_body;
};

#define HTTP_EXTRA_MAX 3

struct http_answer {
    unsigned status;
    const char *type;
    struct slice body;
    struct {
        const char *name, *value;
    } extra[HTTP_EXTRA_MAX];
};

void http_answer(struct http *h, const struct http_answer *answer);
/* An answer whose length nobody knows: begin ▸ { piece | lend }* ▸ end, with which the request is answered. */
void http_answer_begin(struct http *h, unsigned status, const char *type);
void http_answer_piece(struct http *h, struct slice bytes);
/* The piece is (*answer)->fields; takes the block and NULLs it. */
void http_answer_lend(struct http *h, struct answer **answer);
void http_answer_end(struct http *h);
/* {"error": "not_found", "reason": …}; the reason needs no escapes. extra: one more field, or NULL. */
void http_answer_error(struct http *h, unsigned status, const char *reason);

/* The core has decided: the body may come. */
void http_body_wanted(struct http *h);
/* The request is answered as far as it ever will be: its body, if some of it is to come, is read over, then comes the next. */
void http_answered(struct http *h);
/* Nobody knows where a next request would begin, or what became of this one: it ends with what has been said. */
void http_end(struct http *h);

/* Answers a request, or makes the connection a WebSocket, or has it wait. */
void http_route(struct http *h, const struct http_request *request);
/* Bytes of a body that this path takes at most. */
uint64_t http_route_body_max(const struct http_request *request);
/* protocol: for who offers none; NULL: the listener's. */
void http_upgrade(struct http *h, const struct http_request *request, const char *protocol);

/* ---- sql.c, sql_answer.c ---- */

#define HTTP_SQL_BODY_MAX (1u << 20)

void http_sql_begin(struct http *h, const struct http_request *request);
/* A piece of the body, and its end. */
void http_sql_body(struct http *h, struct slice bytes);
void http_sql_run(struct http *h);
/* Bytes have left. */
void http_sql_drained(struct http *h);
/* Nobody listens any more. */
void http_sql_leave(struct http *h);

#endif
