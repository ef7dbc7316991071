/* engine (STOMP 1.0, 1.1, 1.2): the factory of the protocol's engines; everything else goes through net/engine.h.
 *
 * Life cycle: stomp_new → the loop drives it by engine->ops → ops->closed. Thread: the loop's.
 */
#ifndef MILLRACE_PROTO_STOMP_ENGINE_H
#define MILLRACE_PROTO_STOMP_ENGINE_H

#include "proto/hub.h"

#define STOMP_HEAD_EARLY 8192u         /* command and headers of CONNECT */
#define STOMP_HEAD_MAX (64u * 1024)    /* of any other frame */
#define STOMP_RECEIPT_MAX 1024u        /* bytes of a receipt's id */
#define STOMP_INFLIGHT_HIGH (1u << 20) /* bytes of SENDs not yet durable above which a peer is not read */
#define STOMP_INFLIGHT_LOW (512u * 1024)
#define STOMP_TRANSACTIONS_MAX 256u /* open at a time */
#define STOMP_QUEUES_KNOWN 1024u    /* queues that a connection remembers to have declared */
#define STOMP_TEMPS_MAX 4096u       /* temporary names of one connection */
#define STOMP_TARGETS_MAX 16u       /* destinations of one frame (ActiveMQ's commas) */

enum stomp_dialect { STOMP_AS_RABBITMQ, STOMP_AS_ACTIVEMQ };

struct stomp_options {
    const char *product;        /* the header `server` */
    const char *vhost;          /* where a client is that names no host */
    const char *anonymous;      /* who a client is without a login that may be anonymous; NULL or empty: nobody */
    const char *topic_exchange; /* of /topic/… */
    uint32_t frame_bytes_max;   /* body of one frame */
    uint32_t handshake_ms;
    uint64_t tx_bytes_max; /* of all open transactions of a connection */
    bool stays_open;       /* after errors that RabbitMQ does not close the connection for, against the specification */
    enum stomp_dialect dialect;
    void (*random)(void *arg, void *ret, size_t len);
    void *random_arg;
    wall_t (*wall)(void *arg);
    void *wall_arg;
};

/* The defaults of every option but random and wall, which have none. */
struct stomp_options stomp_options_default(void);

/* An engine for one accepted connection; options outlive it. The caller sets engine->conn and engine->dirty afterwards.
 * peer: printable address, copied. NULL: no memory or too many sessions. */
MUST_USE struct engine *stomp_new(const struct stomp_options *options, struct hub *hub, const char *peer,
                                  bool peer_loopback, mono_t now);

#endif
