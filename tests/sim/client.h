/* client: a small AMQP 0-9-1 client for the simulator: writes frames for an engine, reads the engine's frames.
 *
 * Its codec is its own, so that a mistake of the broker's codec does not cancel out. No sockets: client_bytes go into
 * engine->ops->feed, what the engine says goes through client_read. One thread.
 * Life cycle: client_init → client_handshake, calls … with client_feed and client_read between → client_fini.
 */
#ifndef MILLRACE_TESTS_SIM_CLIENT_H
#define MILLRACE_TESTS_SIM_CLIENT_H

#include "net/engine.h"

#define CLIENT_ROOM (4u << 20)

enum client_event_type {
    EVENT_OK,      /* an answer: method says which */
    EVENT_MESSAGE, /* deliver or get-ok */
    EVENT_EMPTY,   /* get-empty */
    EVENT_ACK,     /* tag, multiple, negative */
    EVENT_CHANNEL_CLOSED,
    EVENT_CLOSED,
};

struct client_event {
    enum client_event_type type;
    uint16_t channel;
    uint32_t method; /* class << 16 | method */
    uint64_t tag;    /* delivery tag */
    uint32_t count;  /* purge-ok, delete-ok */
    bool multiple, negative, redelivered;
    uint64_t offset;       /* x-stream-offset; UINT64_MAX: none */
    uint32_t partition;    /* x-stream-partition */
    const char *queue_tag; /* consumer tag of a delivery; "" for get-ok */
    struct slice body, text;
};

struct client {
    uint8_t *in, *out, *body; /* to the engine; from it, not parsed; the message that is coming */
    size_t in_len, out_len, body_len;
    uint64_t body_size; /* announced */
    struct client_event message;
    char consumer[64];
    bool in_content;
    void (*on_event)(void *arg, const struct client_event *event);
    void *arg;
};

void client_init(struct client *c, void (*on_event)(void *, const struct client_event *), void *arg);
void client_fini(struct client *c);
void client_reset(struct client *c);

/* Everything up to connection.open; answers are not waited for. */
void client_handshake(struct client *c);
void client_channel_open(struct client *c, uint16_t channel);
void client_channel_close(struct client *c, uint16_t channel);
void client_channel_close_ok(struct client *c, uint16_t channel);
void client_close(struct client *c);
void client_exchange_declare(struct client *c, uint16_t channel, const char *name, const char *type,
                             const char *delayed_type);
/* args: a table's content. */
void client_queue_declare(struct client *c, uint16_t channel, const char *name, struct slice args);
/* args: as above. */
void client_queue_bind(struct client *c, uint16_t channel, const char *queue, const char *exchange, const char *key,
                       struct slice args);
void client_exchange_bind(struct client *c, uint16_t channel, const char *to, const char *from, const char *key);
void client_queue_purge(struct client *c, uint16_t channel, const char *name);
void client_queue_delete(struct client *c, uint16_t channel, const char *name);
/* delay_ms, expiration_ms and once (x-deduplication-header): negative for none. */
void client_publish(struct client *c, uint16_t channel, const char *exchange, const char *key, struct slice body,
                    bool persistent, int priority, int delay_ms, int expiration_ms, int once);
/* Persistent; headers: a table's content; the body is not empty and fits into a frame. */
void client_publish_headers(struct client *c, uint16_t channel, const char *exchange, const char *key,
                            struct slice body, struct slice headers);
/* Through the default exchange to the queue and, by the header CC, to another. */
void client_publish_copy(struct client *c, uint16_t channel, const char *queue, const char *other, struct slice body,
                         bool persistent);
void client_consume(struct client *c, uint16_t channel, const char *queue, const char *tag, bool no_ack);
/* args: a table's content. */
void client_consume_from(struct client *c, uint16_t channel, const char *queue, const char *tag, struct slice args);
void client_cancel(struct client *c, uint16_t channel, const char *tag);
void client_qos(struct client *c, uint16_t channel, uint16_t count);
void client_get(struct client *c, uint16_t channel, const char *queue, bool no_ack);
void client_ack(struct client *c, uint16_t channel, uint64_t tag, bool multiple);
void client_nack(struct client *c, uint16_t channel, uint64_t tag, bool multiple, bool requeue);
void client_recover(struct client *c, uint16_t channel, bool requeue);
void client_confirm_select(struct client *c, uint16_t channel);
void client_tx(struct client *c, uint16_t channel, uint16_t method); /* 10 select, 20 commit, 30 rollback */

/* Hands what is waiting to the engine. */
void client_feed(struct client *c, struct engine *engine);
/* Takes what the engine has to say and reports events. */
void client_read(struct client *c, struct engine *engine);

#endif
