/* engine (HTTP): the factory of the HTTP listener's engines; everything else goes through net/engine.h.
 *
 * Life cycle: http_new → the loop drives it by engine->ops → ops->closed. A request that becomes a WebSocket makes the engine of
 * another protocol, which then lives within this one. Thread: the loop's.
 */
#ifndef MILLRACE_PROTO_HTTP_ENGINE_H
#define MILLRACE_PROTO_HTTP_ENGINE_H

#include "net/loop.h"
#include "net/websocket.h"

#define HTTP_BODY_SKIP_MAX 65536u /* of a request whose body nobody wants */

/* A protocol that is spoken within WebSockets. */
struct http_protocol {
    const char *name;                     /* of the subprotocol: "mqtt" */
    const struct engine_factory *factory; /* NULL: it is not spoken in this process */
    bool text;                            /* may come in text frames */
};

struct http_options {
    const struct http_protocol *protocols;
    unsigned protocol_count;
    const char *protocol;  /* the listener's own, of who offers no subprotocol; NULL: such a client is refused */
    bool trusts_visitors;  /* who speaks another one within a WebSocket is not marked as visiting */
    const char *origins;   /* see websocket_origin_allowed */
    bool sql;              /* POST /sql is answered: loop_owner is the loop's hub */
    const char *anonymous; /* who a client is that names nobody and may be anonymous, with SQL; NULL or empty: nobody */
    uint32_t handshake_ms; /* for a head, from its first byte on, and for a body */
    uint32_t idle_ms;      /* between requests */
    wall_t (*wall)(void *arg); /* for the Date of answers; NULL: they have none */
    void *wall_arg;
    struct websocket_options websocket;
};

/* An engine for one accepted connection; options outlive it. With SQL it has a session in the core from the first request for it on,
 * which the hub frees. NULL: no memory. */
MUST_USE struct engine *http_new(const struct http_options *options, void *loop_owner, const struct os_peer *peer,
                                 mono_t now);

#endif
