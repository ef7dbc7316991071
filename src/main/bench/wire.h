/* A minimal AMQP 0-9-1 client connection for the load generator, and for `millrace pub`, `sub` and `tail`: one socket, one channel (number 1), no allocation after
 * opening. It shares nothing with the broker's own protocol code, so a mistake there cannot hide from the measurement.
 *
 * Life cycle: bench_uri_parse → bench_wire_open (connects, logs in, opens the channel; blocking) → the bench_wire_x calls
 * that ask and wait for the answer (blocking) → either more of those, or client_socket_nonblocking, then
 * client_socket_fill / bench_wire_frame_next / client_socket_write by the caller's own loop → bench_wire_close.
 * Thread: one owner. Errors: functions answer -1 and leave a sentence in wire->socket.error.
 * Specification: AMQP 0-9-1, sections 2.3 (framing), 4.2 (wire format); RabbitMQ's confirm.select and blocked extension.
 */
#ifndef MAIN_BENCH_WIRE_H
#define MAIN_BENCH_WIRE_H

#include "main/client/socket.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

enum {
    BENCH_FRAME_METHOD = 1,
    BENCH_FRAME_HEADER = 2,
    BENCH_FRAME_BODY = 3,
    BENCH_FRAME_HEARTBEAT = 8,
    BENCH_FRAME_END = 0xCE,
    BENCH_FRAME_OVERHEAD = 8, /* seven bytes before the payload, one after */
    BENCH_FRAME_MAX = 131072, /* the most we ask for, as most clients do */
};

/* class << 16 | method, as the first four bytes of a method frame read in big endian. */
enum bench_method {
    BENCH_CONNECTION_START = 10 << 16 | 10,
    BENCH_CONNECTION_START_OK = 10 << 16 | 11,
    BENCH_CONNECTION_TUNE = 10 << 16 | 30,
    BENCH_CONNECTION_TUNE_OK = 10 << 16 | 31,
    BENCH_CONNECTION_OPEN = 10 << 16 | 40,
    BENCH_CONNECTION_OPEN_OK = 10 << 16 | 41,
    BENCH_CONNECTION_CLOSE = 10 << 16 | 50,
    BENCH_CONNECTION_CLOSE_OK = 10 << 16 | 51,
    BENCH_CONNECTION_BLOCKED = 10 << 16 | 60,
    BENCH_CONNECTION_UNBLOCKED = 10 << 16 | 61,
    BENCH_CHANNEL_OPEN = 20 << 16 | 10,
    BENCH_CHANNEL_OPEN_OK = 20 << 16 | 11,
    BENCH_CHANNEL_FLOW = 20 << 16 | 20,
    BENCH_CHANNEL_FLOW_OK = 20 << 16 | 21,
    BENCH_CHANNEL_CLOSE = 20 << 16 | 40,
    BENCH_CHANNEL_CLOSE_OK = 20 << 16 | 41,
    BENCH_QUEUE_DECLARE = 50 << 16 | 10,
    BENCH_QUEUE_DECLARE_OK = 50 << 16 | 11,
    BENCH_QUEUE_BIND = 50 << 16 | 20,
    BENCH_QUEUE_BIND_OK = 50 << 16 | 21,
    BENCH_QUEUE_PURGE = 50 << 16 | 30,
    BENCH_QUEUE_PURGE_OK = 50 << 16 | 31,
    BENCH_QUEUE_DELETE = 50 << 16 | 40,
    BENCH_QUEUE_DELETE_OK = 50 << 16 | 41,
    BENCH_BASIC_QOS = 60 << 16 | 10,
    BENCH_BASIC_QOS_OK = 60 << 16 | 11,
    BENCH_BASIC_CONSUME = 60 << 16 | 20,
    BENCH_BASIC_CONSUME_OK = 60 << 16 | 21,
    BENCH_BASIC_CANCEL = 60 << 16 | 30,
    BENCH_BASIC_CANCEL_OK = 60 << 16 | 31,
    BENCH_BASIC_PUBLISH = 60 << 16 | 40,
    BENCH_BASIC_RETURN = 60 << 16 | 50,
    BENCH_BASIC_DELIVER = 60 << 16 | 60,
    BENCH_BASIC_GET = 60 << 16 | 70,
    BENCH_BASIC_GET_OK = 60 << 16 | 71,
    BENCH_BASIC_GET_EMPTY = 60 << 16 | 72,
    BENCH_BASIC_ACK = 60 << 16 | 80,
    BENCH_BASIC_NACK = 60 << 16 | 120,
    BENCH_CONFIRM_SELECT = 85 << 16 | 10,
    BENCH_CONFIRM_SELECT_OK = 85 << 16 | 11,
};

/* ---- bytes ---- */

static inline uint16_t bench_get_u16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}
static inline uint32_t bench_get_u32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof(v));
    return __builtin_bswap32(v);
}
static inline uint64_t bench_get_u64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof(v));
    return __builtin_bswap64(v);
}
static inline void bench_set_u32(uint8_t *p, uint32_t v)
{
    v = __builtin_bswap32(v);
    memcpy(p, &v, sizeof(v));
}
static inline void bench_set_u64(uint8_t *p, uint64_t v)
{
    v = __builtin_bswap64(v);
    memcpy(p, &v, sizeof(v));
}

/* Encodes frames into a caller's buffer; `failed` sticks once something did not fit. */
struct bench_writer {
    uint8_t *bytes;
    size_t at;
    size_t cap;
    size_t frame_at;
    bool failed;
};

void bench_put_u8(struct bench_writer *w, unsigned v);
void bench_put_u16(struct bench_writer *w, unsigned v);
void bench_put_u32(struct bench_writer *w, uint32_t v);
void bench_put_u64(struct bench_writer *w, uint64_t v);
void bench_put_bytes(struct bench_writer *w, const void *bytes, size_t len);
void bench_put_shortstr(struct bench_writer *w, const char *text);
void bench_put_longstr(struct bench_writer *w, const void *bytes, size_t len);
void bench_put_frame_begin(struct bench_writer *w, unsigned type, unsigned channel);
void bench_put_method_begin(struct bench_writer *w, unsigned channel, enum bench_method method);
void bench_put_frame_end(struct bench_writer *w);

/* ---- connection ---- */

struct bench_uri {
    char user[128], password[128], host[256], vhost[256];
    unsigned port;
    bool tls;
    bool external;                                /* logs in by the certificate that it shows, and not as user */
    const struct tls_client_options *tls_options; /* as client_socket_tls takes them */
};

/* amqp://user:password@host:port/vhost, or amqps://, every part optional; answers -1 when malformed. No vhost means "/". */
int bench_uri_parse(const char *text, struct bench_uri *ret_uri);

struct bench_frame {
    uint8_t type;
    uint16_t channel;
    uint32_t len;
    const uint8_t *payload; /* lent by the wire's input buffer until the next fill */
};

struct bench_wire {
    struct client_socket socket;
    uint32_t frame_max;
    uint16_t channel_max;
    uint16_t heartbeat_s;
    bool blocked;
    char blocked_why[64]; /* in the server's words */
    bool open;            /* logged in: close politely */
    uint64_t blocked_at_ns;
    uint64_t blocked_ns; /* closed intervals only */
    uint64_t read_at_ns; /* when bytes last came, for heartbeats */
};

struct bench_wire_limits {
    size_t in_bytes;      /* input buffer; raised to hold one frame */
    uint32_t frame_max;   /* 0: BENCH_FRAME_MAX */
    uint16_t heartbeat_s; /* UINT16_MAX: whatever the server proposes */
    unsigned channels;    /* how many channels to open, 0 is allowed; only channel 1 is used afterwards */
    const char *name;     /* of the connection, in listings; NULL: millrace bench */
};

struct bench_queue_kind {
    bool durable;
    const char *type; /* x-queue-type, or NULL for the server's default */
};

int bench_wire_open(struct bench_wire *w, const struct bench_uri *uri, const struct bench_wire_limits *limits);
/* Says connection.close when that is still possible, waits at most 2 s for the answer, frees everything. */
void bench_wire_close(struct bench_wire *w);

/* Ends the method in `out`, sends it, and waits for that answer, which lies in *ret_frame until the next fill. */
int bench_wire_ask(struct bench_wire *w, struct bench_writer *out, enum bench_method answer,
                   struct bench_frame *ret_frame);
/* Asks and waits. */
int bench_wire_confirm_select(struct bench_wire *w);
int bench_wire_queue_declare(struct bench_wire *w, const char *queue, const struct bench_queue_kind *kind);
int bench_wire_queue_delete(struct bench_wire *w, const char *queue);
int bench_wire_queue_purge(struct bench_wire *w, const char *queue);
int bench_wire_qos(struct bench_wire *w, uint16_t prefetch);
/* offset: where to begin in a stream (first, last, next, a number), or NULL. */
int bench_wire_consume(struct bench_wire *w, const char *queue, bool no_ack, const char *offset);

/* Waits for the next frame that is not a heartbeat, blocked or unblocked; a close by the server is an error. */
int bench_wire_receive(struct bench_wire *w, struct bench_frame *ret_frame);
/* Methods any connection may get at any time: close, channel.close, blocked, unblocked, flow, cancel. Answers 0 when it
 * was one of the harmless ones, -1 when the connection or channel is over or the method makes no sense here. */
int bench_wire_on_method(struct bench_wire *w, enum bench_method method, const struct bench_frame *frame);

static inline enum bench_method bench_frame_method(const struct bench_frame *f)
{
    return f->len >= 4 ? (enum bench_method)bench_get_u32(f->payload) : (enum bench_method)0;
}

int bench_wire_frame_bad(struct bench_wire *w); /* sets the error text, answers -1 */

/* Takes the next complete frame out of the input buffer: 1 = got one, 0 = more bytes are needed, -1 = not AMQP.
 * Inline: it runs three times per delivered message. */
static inline int bench_wire_frame_next(struct bench_wire *w, struct bench_frame *ret_frame)
{
    size_t left = w->socket.in_end - w->socket.in_at;
    if (left < BENCH_FRAME_OVERHEAD)
        return 0;
    const uint8_t *p = w->socket.in + w->socket.in_at;
    uint32_t len = bench_get_u32(p + 3);
    if (len > w->frame_max - BENCH_FRAME_OVERHEAD)
        return bench_wire_frame_bad(w);
    if (left - BENCH_FRAME_OVERHEAD < len)
        return 0;
    if (p[7 + len] != BENCH_FRAME_END)
        return bench_wire_frame_bad(w);
    ret_frame->type = p[0];
    ret_frame->channel = bench_get_u16(p + 1);
    ret_frame->len = len;
    ret_frame->payload = p + 7;
    w->socket.in_at += len + BENCH_FRAME_OVERHEAD;
    return 1;
}

#endif
