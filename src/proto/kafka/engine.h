/* engine (Kafka): the factory of the protocol's engines; everything else goes through net/engine.h.
 *
 * Life cycle: kafka_new → the loop drives it by engine->ops → ops->closed. Thread: the loop's.
 */
#ifndef MILLRACE_PROTO_KAFKA_ENGINE_H
#define MILLRACE_PROTO_KAFKA_ENGINE_H

#include "proto/hub.h"

#include <stdio.h>

#define KAFKA_REQUEST_EARLY 65536u             /* the largest request before a login */
#define KAFKA_REQUESTS_MAX 64u                 /* unanswered ones, above which a peer is not read */
#define KAFKA_INFLIGHT_HIGH (8u * 1024 * 1024) /* bytes of batches not yet durable above which a peer is not read */

struct kafka_options {
    const char *cluster_id;      /* 22 characters, as Kafka's are */
    const uint8_t *uuid;         /* the store's, 16 bytes */
    const char *advertised_host; /* NULL: the address that the client has connected to */
    uint16_t advertised_port;    /* with advertised_host */
    int32_t node_id;
    const char *log_dir;      /* the data folder, as tools are told */
    const char *vhost;        /* where the topics are */
    const char *anonymous;    /* who a peer is without a login that may be anonymous; empty: nobody */
    unsigned sasl_mechanisms; /* kafka_mechanisms_parse */
    uint32_t reauth_ms;       /* how long a login by SASL holds; 0: for ever */
    uint32_t request_bytes_max;
    uint32_t batch_bytes_max;    /* of a topic that says nothing else (max.message.bytes) */
    uint32_t unpacked_bytes_max; /* of a batch, unpacked */
    uint32_t handshake_ms;       /* for a login, where one is needed */
    uint32_t idle_ms;            /* a peer that says nothing for so long is let go; 0: never */
    uint32_t partitions;         /* of a topic that is made without saying how many */
    bool auto_create;            /* a topic that is asked for is made */
    bool share_groups;           /* are offered (KIP-932) */
    wall_t (*wall)(void *arg);   /* UTC ms */
    void *wall_arg;
    /* The disk that log_dir is on: bytes, and those that are free; UINT64_MAX: not known. Any thread. NULL: nobody knows. */
    void (*disk)(void *arg, uint64_t *ret_total, uint64_t *ret_free);
    void *disk_arg;
};

/* The defaults of every option, without cluster_id, uuid and wall. */
struct kafka_options kafka_options_default(void);

/* Names of SASL mechanisms with spaces or commas between. False: one of them is not spoken here. */
MUST_USE bool kafka_mechanisms_parse(const char *names, unsigned *ret);

/* Where a peer comes from and where it has connected to; copied. */
struct kafka_peer {
    const char *address;    /* printable */
    const char *local_host; /* numeric, without brackets */
    uint16_t local_port;
    bool loopback;
};

/* For `millrace reference`: a Markdown table of the requests that are answered. */
void kafka_print_requests(FILE *to);

/* An engine for one accepted connection; options outlive it. The caller sets engine->conn and engine->dirty afterwards.
 * NULL: no memory or too many sessions. */
MUST_USE struct engine *kafka_new(const struct kafka_options *options, struct hub *hub, const struct kafka_peer *peer,
                                  mono_t now);

#endif
