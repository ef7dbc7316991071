/* The MQTT of the load generator: logins and subscriptions, which wait for their answers, and packets as bytes for what
 * must be quick.
 *
 * Life cycle: bench_mqtt_open → bench_mqtt_subscribe … → { bench_mqtt_next: packets out of what client_socket_fill has read,
 * in place; bench_mqtt_template_put and bench_mqtt_ack_put: packets into somebody's buffer }* → bench_mqtt_close.
 * Thread: one owner. Errors: -1, and a sentence in socket.error. PUBLISH and its acknowledgements are read and written here
 * by hand; the packets of a login are those of proto/mqtt, which are pure functions.
 */
#ifndef MAIN_BENCH_MQTT_WIRE_H
#define MAIN_BENCH_MQTT_WIRE_H

#include "base/types.h"
#include "main/client/socket.h"

enum { BENCH_MQTT_ACK_BYTES = 4, BENCH_MQTT_HOST_BYTES = 256 };

struct bench_mqtt_server {
    char host[BENCH_MQTT_HOST_BYTES];
    unsigned port;
    const char *user, *password; /* NULL: none */
    bool tls;
    uint8_t version; /* 4: 3.1.1, 5: 5.0 */
};

/* Who logs in. A session that is `kept` outlives its connection; `clean` begins a new one. */
struct bench_mqtt_session {
    const char *client_id; /* "": the server makes one up, which then must not be kept */
    bool clean, kept;
};

struct bench_mqtt_wire {
    struct client_socket socket;
    uint8_t version;
    bool open;             /* logged in, and nobody has said goodbye */
    bool session_present;  /* as CONNACK says */
    uint16_t receive_max;  /* publishes of QoS 1 and 2 that the server takes at once */
    uint16_t keep_alive_s; /* that the server asks for; 0: none */
};

struct bench_mqtt_packet {
    uint8_t first; /* type << 4 | flags */
    const uint8_t *body;
    size_t len;
};

enum bench_mqtt_type {
    BENCH_MQTT_CONNACK = 2,
    BENCH_MQTT_PUBLISH = 3,
    BENCH_MQTT_PUBACK = 4,
    BENCH_MQTT_PUBREC = 5,
    BENCH_MQTT_PUBREL = 6,
    BENCH_MQTT_PUBCOMP = 7,
    BENCH_MQTT_SUBACK = 9,
    BENCH_MQTT_PINGRESP = 13,
    BENCH_MQTT_DISCONNECT = 14,
};

static inline enum bench_mqtt_type bench_mqtt_type(const struct bench_mqtt_packet *p)
{
    return (enum bench_mqtt_type)(p->first >> 4);
}

struct bench_mqtt_message {
    uint8_t qos;
    bool dup, retain;
    uint16_t id; /* 0 with QoS 0 */
    struct slice topic, payload;
};

/* Connects and logs in; in_bytes is what one read may bring. Blocking, as everything up to client_socket_nonblocking. */
int bench_mqtt_open(struct bench_mqtt_wire *w, const struct bench_mqtt_server *server,
                    const struct bench_mqtt_session *session, size_t in_bytes);
/* The two halves of the first, for many at once: connects and sends CONNECT and what else is in `more`; waits for CONNACK. */
int bench_mqtt_open_ask(struct bench_mqtt_wire *w, const struct bench_mqtt_server *server,
                        const struct bench_mqtt_session *session, size_t in_bytes, struct slice more);
int bench_mqtt_open_answer(struct bench_mqtt_wire *w);
/* A SUBSCRIBE with one filter; ret has room for 300 + the filter's length. Answers its length. */
size_t bench_mqtt_subscribe_put(uint8_t *ret, size_t cap, uint8_t version, const char *filter, uint8_t qos);
/* Waits for SUBACK, and a subscription of that QoS. */
int bench_mqtt_subscribe_answer(struct bench_mqtt_wire *w, uint8_t qos);
int bench_mqtt_subscribe(struct bench_mqtt_wire *w, const char *filter, uint8_t qos);
int bench_mqtt_ping(struct bench_mqtt_wire *w);
/* Says goodbye, if it is open, and closes. */
void bench_mqtt_close(struct bench_mqtt_wire *w);

/* 1: a packet, which lies in the socket's buffer until the next fill; 0: it is not all there; -1: no MQTT, or the server
 * says goodbye. */
int bench_mqtt_next(struct bench_mqtt_wire *w, struct bench_mqtt_packet *ret);
/* Waits for one; -1 also when none comes. */
int bench_mqtt_receive(struct bench_mqtt_wire *w, struct bench_mqtt_packet *ret);
int bench_mqtt_message_read(struct bench_mqtt_wire *w, const struct bench_mqtt_packet *p,
                            struct bench_mqtt_message *ret);
/* PUBACK, PUBREC, PUBREL, PUBCOMP. ret_reason: 0 where there is none. */
int bench_mqtt_ack_read(struct bench_mqtt_wire *w, const struct bench_mqtt_packet *p, uint16_t *ret_id,
                        uint8_t *ret_reason);
/* A sentence about a packet that nobody asked for; -1. */
int bench_mqtt_unasked(struct bench_mqtt_wire *w, const struct bench_mqtt_packet *p);

static inline void bench_mqtt_ack_put(uint8_t *ret, enum bench_mqtt_type type, uint16_t id)
{
    ret[0] = (uint8_t)(type << 4 | (type == BENCH_MQTT_PUBREL ? 2 : 0));
    ret[1] = 2;
    ret[2] = (uint8_t)(id >> 8);
    ret[3] = (uint8_t)id;
}

/* A PUBLISH, encoded once: only id and stamp differ from message to message. */
struct bench_mqtt_template {
    uint8_t *bytes;
    size_t len, id_at, payload_at; /* id_at 0: none */
};

struct bench_mqtt_shape {
    const char *topic;
    uint8_t version, qos;
    bool retain;
    size_t payload_bytes; /* from BENCH_STAMP_BYTES on there is a stamp at its beginning */
    uint32_t run_id, publisher;
};

/* -1: it would be larger than a packet may be, or there is no memory. */
int bench_mqtt_template_init(struct bench_mqtt_template *t, const struct bench_mqtt_shape *shape);
void bench_mqtt_template_fini(struct bench_mqtt_template *t);
/* Copies it to ret, which has room for t->len, as message seq. */
void bench_mqtt_template_put(const struct bench_mqtt_template *t, uint8_t *ret, uint16_t id, uint64_t seq,
                             uint64_t sent_ns);

#endif
