/* http_int: what the files of proto/http share: a connection, and how it answers. The loop's thread. */
#ifndef MILLRACE_PROTO_HTTP_HTTP_INT_H
#define MILLRACE_PROTO_HTTP_HTTP_INT_H

#include "fmt/http.h"
#include "proto/http/engine.h"

struct http {
    struct engine engine; /* first */
    const struct http_options *options;
    void *loop_owner;
    struct os_peer peer;
    struct http_scan scan;
    struct http_body body;
    struct websocket *websocket; /* not NULL: it has become one */
    mono_t deadline;
    uint8_t state; /* enum http_state */
    bool begun;    /* the next head is on its way */
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
/* {"error": "not_found", "reason": …}; the reason needs no escapes. extra: one more field, or NULL. */
void http_answer_error(struct http *h, unsigned status, const char *reason);

/* Answers a request, or makes the connection a WebSocket. */
void http_route(struct http *h, const struct http_request *request);
/* protocol: for who offers none; NULL: the listener's. */
void http_upgrade(struct http *h, const struct http_request *request, const char *protocol);

#endif
