/* engine (MQTT): the factory of the protocol's engines; everything else goes through net/engine.h.
 *
 * Life cycle: mqtt_new → the loop drives it by engine->ops → ops->closed. Thread: the loop's.
 */
#ifndef MILLRACE_PROTO_MQTT_ENGINE_H
#define MILLRACE_PROTO_MQTT_ENGINE_H

#include "proto/hub.h"

#define MQTT_CONNECT_MAX (128u * 1024)    /* the largest first packet */
#define MQTT_INFLIGHT_HIGH (1024u * 1024) /* bytes of publishes not yet durable above which a client is not read */
#define MQTT_INFLIGHT_LOW (512u * 1024)
#define MQTT_UNANSWERED_MAX 4096u /* publishes and requests without an answer above which a client is not read */
#define MQTT_SUBSCRIPTIONS_LIMIT (1u << 20) /* of mqtt_options.subscriptions_max */
#define MQTT_SYS_ID "$SYS"                  /* the client id of sys.h, which nobody else may have */

/* Of all loops together; each is a number that only grows, except clients. */
struct mqtt_totals {
    _Atomic uint64_t clients, clients_max, connects, publishes_in, publishes_out, bytes_in, bytes_out, packets_in,
        packets_out, dropped; /* QoS 0 that found an out-queue full, or was larger than the client takes */
};

struct mqtt_options {
    const char *vhost;     /* of who names none as VHOST:USER */
    const char *exchange;  /* whose routing keys topics are */
    const char *anonymous; /* who a client is without a user name that may be anonymous; empty: nobody */
    const char *response_information;
    const char *refused_filters;   /* separated by blanks: SUBACK 0x80 for them */
    uint32_t message_bytes_max;    /* of a payload */
    uint32_t handshake_ms;         /* from connecting to CONNACK */
    uint32_t session_expiry_max_s; /* MQTT_NEVER: none */
    uint32_t subscriptions_max;    /* of one client */
    uint32_t out_bytes_max;        /* what waits for a client's socket above which QoS 0 is dropped */
    uint16_t keep_alive_max_s;     /* what clients of 5.0 are told when they ask for more; 0: nothing */
    uint16_t receive_max;          /* QoS 1 and 2 under way from a client */
    uint16_t inflight_max;         /* … and to it, if it takes so many */
    uint16_t topic_alias_max;      /* in each direction */
    unsigned mechanisms;           /* of enhanced authentication, 1 << enum scram_hash */
    struct mqtt_totals *totals;
};

/* The defaults of every option; totals must be set. */
struct mqtt_options mqtt_options_default(void);
/* PLAIN names are not among them: a list of SCRAM-SHA-256 and SCRAM-SHA-512. False: something else stands there. */
MUST_USE bool mqtt_mechanisms_parse(const char *names, unsigned *ret);

/* An engine for one accepted connection; options outlive it. peer: printable address, copied. NULL: no memory or too many. */
MUST_USE struct engine *mqtt_new(const struct mqtt_options *options, struct hub *hub, const char *peer,
                                 bool peer_loopback, mono_t now);

#endif
