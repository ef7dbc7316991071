/* engine (AMQP 0-9-1): the factory of the protocol's engines; everything else goes through net/engine.h.
 *
 * Life cycle: amqp091_new → the loop drives it by engine->ops → ops->closed. Thread: the loop's.
 */
#ifndef MILLRACE_PROTO_AMQP091_ENGINE_H
#define MILLRACE_PROTO_AMQP091_ENGINE_H

#include "proto/hub.h"

#define AMQP091_FRAME_MIN 4096u    /* the smallest frame_max that may be negotiated (AMQP 0-9-1 section 4.2.3) */
#define AMQP091_FRAME_EARLY 8192u  /* the largest frame before tune-ok */
#define AMQP091_BYTES_EARLY 65536u /* all that a peer may send before it is logged in */
#define AMQP091_HEADERS_MAX 65536u /* bytes of one header table */
#define AMQP091_INFLIGHT_HIGH (1024u * 1024) /* bytes of publishes not yet durable above which a peer is not read */
#define AMQP091_INFLIGHT_LOW (512u * 1024)
#define AMQP091_HELD_MAX 4096u /* answers held until durable above which a peer is not read */

struct amqp091_options {
    const char *version; /* of server-properties: a RabbitMQ-compatible version */
    const char *platform;
    const char *cluster_name;
    uint64_t message_bytes_max;
    uint64_t assembly_bytes_max; /* unfinished bodies of one connection, all channels */
    uint32_t frame_max;          /* what the server offers */
    uint16_t channel_max;
    uint16_t heartbeat_s;
    uint32_t handshake_ms;
};

/* The defaults of every option. */
struct amqp091_options amqp091_options_default(void);

/* An engine for one accepted connection; options outlive it. The caller sets engine->conn and engine->dirty afterwards.
 * peer: printable address, copied. NULL: no memory or too many sessions. */
MUST_USE struct engine *amqp091_new(const struct amqp091_options *options, struct hub *hub, const char *peer,
                                    bool peer_loopback, mono_t now);

#endif
