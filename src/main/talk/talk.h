/* talk: what `millrace pub`, `sub` and `tail` need of a protocol: one connection, messages in or out.
 *
 * Life cycle: protocol->open → { publish }* → flush, or subscribe → { next → done }* → protocol->close. Blocking. Errors: functions
 * answer -1 and leave a sentence in talk->error. Thread: one owner.
 *
 * A message is its body and what is about it, as JSON with the names of RabbitMQ's management: exchange, routing_key, properties
 * (content_type, …, headers); records of streams and topics have partition, offset, timestamp and key.
 */
#ifndef MILLRACE_MAIN_TALK_TALK_H
#define MILLRACE_MAIN_TALK_TALK_H

#include "base/types.h"

#include <jansson.h>

struct client_socket;
struct tls_client_options; /* net/tls_server.h */

struct talk_options {
    char host[256];
    unsigned port;
    const struct tls_client_options *tls; /* NULL: without TLS */
    const char *user, *password,
        *vhost;       /* user NULL: whom a certificate of ours names, else the protocol's usual one */
    const char *name; /* of a queue, a stream, a Kafka topic; NULL: an exchange is meant */
    const char *exchange;
    const char *topic; /* as MQTT writes it; exchange and key are then what it is elsewhere */
    const char *key;   /* routing key or binding key, key of records; NULL: none was given */
    const char *from;  /* first, last, next, an offset, a time, an interval; NULL: the usual */
    int64_t partition; /* -1: any */
    uint64_t count;    /* messages that are wanted; 0: all that come */
    unsigned last;     /* tail: begin so many records before the end */
    bool create;       /* what is not there */
    bool peek;         /* give everything back */
    bool stream_only;  /* tail: not from a queue whose messages it would take */
    bool retain;       /* pub: the topic keeps the message for who subscribes later */
    /* What people should know meanwhile. */
    void (*say)(const char *sentence);
};

#define TALK_HELD_MS 2000 /* who waits longer for a confirmation is told so */

struct talk_message {
    json_t *about;     /* next: the caller's */
    struct slice body; /* next: a loan until done */
};

struct talk_protocol;

struct talk {
    const struct talk_protocol *protocol;
    const struct talk_options *options;
    uint64_t published;
    uint64_t unrouted;  /* of those: nobody was there to take them */
    uint64_t refused;   /* of those: not accepted (a queue is full) */
    unsigned held_told; /* that the broker holds publishers back: 1 perhaps, 2 why */
    char error[800];
};

struct talk_protocol {
    const char *name;
    unsigned port, tls_port;
    bool retains;
    /* What of the options means nothing in this protocol, a sentence; NULL: nothing. May be NULL. */
    const char *(*misused)(const struct talk_options *options);
    /* Connects and logs in. NULL: no memory. A talk whose error is not empty is of no use but to be closed. */
    struct talk *(*open)(const struct talk_options *options);
    int (*publish)(struct talk *t, const struct talk_message *message);
    /* Waits until everything that was published is confirmed. */
    int (*flush)(struct talk *t);
    int (*subscribe)(struct talk *t);
    /* 1: a message; 0: none came within wait_ms (negative: waits for ever). */
    int (*next)(struct talk *t, int64_t wait_ms, struct talk_message *ret);
    /* The message was dealt with. */
    int (*done)(struct talk *t);
    void (*close)(struct talk *t);
};

/* The socket of a protocol that has no connection of the load generator's: with TLS, where it is wanted. As client_socket_connect. */
int talk_connect(struct client_socket *s, const struct talk_options *o);
/* The login is the certificate's that we show. */
bool talk_is_certified(const struct talk_options *o);

extern const struct talk_protocol talk_amqp, talk_kafka, talk_mqtt, talk_stomp;

__attribute__((format(printf, 2, 3))) int talk_fail(struct talk *t, const char *format, ...);
/* Says, once, that the broker holds publishers back. why: in its words; NULL: it has said nothing. */
void talk_held(struct talk *t, const char *why);
/* A point in time as milliseconds since 1970: 2026-11-26, 2026-11-26T13:05:09, with or without Z at the end (UTC); or an
 * interval before now: 10s, 5m, 1h, 2D. False: it is none. */
bool talk_time_parse(const char *text, wall_t now, wall_t *ret);

#endif
