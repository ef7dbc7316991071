/* The load generator's own AMQP 0-9-1 client.
 *
 * Set-up (login, declare, consume) is blocking and written for clarity; the measured part uses only
 * bench_wire_frame_next, client_socket_fill and the caller's own writes, and allocates nothing. Frames are parsed in place;
 * the input buffer always holds at least one frame of frame_max bytes.
 *
 * What is deliberately not here: several active channels on a connection, SASL mechanisms other than PLAIN.
 */
#include "wire.h"

#include "main/client/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>

enum {
    CLOSE_TIMEOUT_S = 2,
    ASK_BYTES_MAX = 2048,
    FRAME_MIN_MAX = 4096, /* no peer may ask for less, section 4.2.3 of the specification */
};

/* ---- bytes out ---- */

static uint8_t *writer_reserve(struct bench_writer *w, size_t len)
{
    if (w->failed || len > w->cap - w->at) {
        w->failed = true;
        return NULL;
    }
    uint8_t *p = w->bytes + w->at;
    w->at += len;
    return p;
}

void bench_put_bytes(struct bench_writer *w, const void *bytes, size_t len)
{
    uint8_t *p = writer_reserve(w, len);
    if (p != NULL && len > 0)
        memcpy(p, bytes, len);
}

void bench_put_u8(struct bench_writer *w, unsigned v)
{
    uint8_t byte = (uint8_t)v;
    bench_put_bytes(w, &byte, 1);
}

void bench_put_u16(struct bench_writer *w, unsigned v)
{
    bench_put_u8(w, v >> 8);
    bench_put_u8(w, v);
}

void bench_put_u32(struct bench_writer *w, uint32_t v)
{
    uint8_t *p = writer_reserve(w, sizeof(v));
    if (p != NULL)
        bench_set_u32(p, v);
}

void bench_put_u64(struct bench_writer *w, uint64_t v)
{
    uint8_t *p = writer_reserve(w, sizeof(v));
    if (p != NULL)
        bench_set_u64(p, v);
}

void bench_put_shortstr(struct bench_writer *w, const char *text)
{
    size_t len = strlen(text);
    if (len > 255)
        w->failed = true;
    bench_put_u8(w, (unsigned)len);
    bench_put_bytes(w, text, len);
}

void bench_put_longstr(struct bench_writer *w, const void *bytes, size_t len)
{
    bench_put_u32(w, (uint32_t)len);
    bench_put_bytes(w, bytes, len);
}

void bench_put_frame_begin(struct bench_writer *w, unsigned type, unsigned channel)
{
    w->frame_at = w->at;
    bench_put_u8(w, type);
    bench_put_u16(w, channel);
    bench_put_u32(w, 0);
}

void bench_put_method_begin(struct bench_writer *w, unsigned channel, enum bench_method method)
{
    bench_put_frame_begin(w, BENCH_FRAME_METHOD, channel);
    bench_put_u32(w, (uint32_t)method);
}

void bench_put_frame_end(struct bench_writer *w)
{
    if (w->failed)
        return;
    bench_set_u32(w->bytes + w->frame_at + 3, (uint32_t)(w->at - w->frame_at - 7));
    bench_put_u8(w, BENCH_FRAME_END);
}

/* A table whose length is patched when it ends; the place of the length is returned. */
static size_t put_table_begin(struct bench_writer *w)
{
    size_t at = w->at;
    bench_put_u32(w, 0);
    return at;
}

static void put_table_end(struct bench_writer *w, size_t at)
{
    if (!w->failed)
        bench_set_u32(w->bytes + at, (uint32_t)(w->at - at - 4));
}

static void put_field_text(struct bench_writer *w, const char *name, const char *text)
{
    bench_put_shortstr(w, name);
    bench_put_u8(w, 'S');
    bench_put_longstr(w, text, strlen(text));
}

static void put_field_true(struct bench_writer *w, const char *name)
{
    bench_put_shortstr(w, name);
    bench_put_u8(w, 't');
    bench_put_u8(w, 1);
}

/* ---- errors ---- */

#define wire_fail(w, ...) client_socket_fail(&(w)->socket, __VA_ARGS__)

int bench_wire_frame_bad(struct bench_wire *w)
{
    return wire_fail(w, "the server sent bytes that are not an AMQP 0-9-1 frame");
}

/* connection.close and channel.close start alike: reply code, reply text, then the ids of the failing method. */
static int fail_closed(struct bench_wire *w, const char *what, const struct bench_frame *f)
{
    const uint8_t *p = f->payload + 4;
    size_t left = f->len - 4;
    if (left < 3 || left - 3 < p[2])
        return wire_fail(w, "the server closed the %s", what);
    return wire_fail(w, "the server closed the %s: %u %.*s", what, bench_get_u16(p), (int)p[2], (const char *)p + 3);
}

/* ---- URI ---- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Percent-decodes text[0..len) into out, which holds out_cap bytes with the final zero. */
static int uri_decode(const char *text, size_t len, char *out, size_t out_cap)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (c == '%') {
            if (len - i < 3 || hex_digit(text[i + 1]) < 0 || hex_digit(text[i + 2]) < 0)
                return -1;
            c = (char)(hex_digit(text[i + 1]) << 4 | hex_digit(text[i + 2]));
            i += 2;
        }
        if (n + 1 >= out_cap || c == '\0')
            return -1;
        out[n++] = c;
    }
    out[n] = '\0';
    return 0;
}

static int uri_parse_port(const char *text, size_t len, unsigned *ret_port)
{
    unsigned port = 0;
    if (len == 0 || len > 5)
        return -1;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return -1;
        port = port * 10 + (unsigned)(text[i] - '0');
    }
    if (port == 0 || port > 65535)
        return -1;
    *ret_port = port;
    return 0;
}

static int uri_parse_host(const char *text, size_t len, struct bench_uri *uri)
{
    const char *end = text + len, *port = NULL;
    if (len > 0 && text[0] == '[') {
        const char *close = memchr(text, ']', len);
        if (close == NULL)
            return -1;
        if (close + 1 < end && close[1] == ':')
            port = close + 1;
        if (uri_decode(text + 1, (size_t)(close - text - 1), uri->host, sizeof(uri->host)) != 0)
            return -1;
    } else {
        port = memchr(text, ':', len);
        size_t host_len = port != NULL ? (size_t)(port - text) : len;
        if (host_len > 0 && uri_decode(text, host_len, uri->host, sizeof(uri->host)) != 0)
            return -1;
    }
    return port == NULL ? 0 : uri_parse_port(port + 1, (size_t)(end - port - 1), &uri->port);
}

int bench_uri_parse(const char *text, struct bench_uri *ret_uri)
{
    static const char SCHEME[] = "amqp://", SCHEME_TLS[] = "amqps://";
    struct bench_uri uri = {.user = "guest", .password = "guest", .host = "127.0.0.1", .vhost = "/", .port = 5672};
    uri.tls = strncmp(text, SCHEME_TLS, sizeof(SCHEME_TLS) - 1) == 0;
    if (uri.tls)
        uri.port = 5671;
    else if (strncmp(text, SCHEME, sizeof(SCHEME) - 1) != 0)
        return -1;
    text += uri.tls ? sizeof(SCHEME_TLS) - 1 : sizeof(SCHEME) - 1;
    size_t authority_len = strcspn(text, "/?");
    const char *path = text + authority_len;
    const char *at = memrchr(text, '@', authority_len);
    if (at != NULL) {
        const char *colon = memchr(text, ':', (size_t)(at - text));
        const char *user_end = colon != NULL ? colon : at;
        if (uri_decode(text, (size_t)(user_end - text), uri.user, sizeof(uri.user)) != 0)
            return -1;
        if (colon != NULL && uri_decode(colon + 1, (size_t)(at - colon - 1), uri.password, sizeof(uri.password)) != 0)
            return -1;
        authority_len -= (size_t)(at + 1 - text);
        text = at + 1;
    }
    if (uri_parse_host(text, authority_len, &uri) != 0)
        return -1;
    size_t vhost_len = *path == '/' ? strcspn(path + 1, "?") : 0;
    if (vhost_len > 0 && uri_decode(path + 1, vhost_len, uri.vhost, sizeof(uri.vhost)) != 0)
        return -1;
    *ret_uri = uri;
    return 0;
}

/* ---- asking and waiting ---- */

int bench_wire_on_method(struct bench_wire *w, enum bench_method method, const struct bench_frame *f)
{
    switch (method) {
    case BENCH_CONNECTION_CLOSE: w->open = false; return fail_closed(w, "connection", f);
    case BENCH_CHANNEL_CLOSE: return fail_closed(w, "channel", f);
    case BENCH_BASIC_CANCEL: return wire_fail(w, "the server cancelled the consumer");
    case BENCH_CONNECTION_BLOCKED:
        if (!w->blocked)
            w->blocked_at_ns = client_clock_ns();
        w->blocked = true;
        if (f->len > 4 && f->payload[4] <= f->len - 5)
            snprintf(w->blocked_why, sizeof(w->blocked_why), "%.*s", (int)f->payload[4], (const char *)f->payload + 5);
        return 0;
    case BENCH_CONNECTION_UNBLOCKED:
        if (w->blocked)
            w->blocked_ns += client_clock_ns() - w->blocked_at_ns;
        w->blocked = false;
        return 0;
    default:
        return wire_fail(w, "unexpected method %u.%u from the server", (unsigned)method >> 16,
                         (unsigned)method & 0xFFFF);
    }
}

int bench_wire_receive(struct bench_wire *w, struct bench_frame *ret_frame)
{
    for (;;) {
        int got = bench_wire_frame_next(w, ret_frame);
        if (got < 0)
            return -1;
        if (got == 0) {
            ssize_t n = client_socket_fill(&w->socket);
            if (n < 0)
                return -1;
            if (n == 0)
                return wire_fail(w, "no answer within %d s", BENCH_ANSWER_TIMEOUT_S);
            continue;
        }
        if (ret_frame->type == BENCH_FRAME_HEARTBEAT)
            continue;
        if (ret_frame->type != BENCH_FRAME_METHOD)
            return 0;
        switch (bench_frame_method(ret_frame)) {
        case BENCH_CONNECTION_CLOSE:
        case BENCH_CHANNEL_CLOSE:
        case BENCH_CONNECTION_BLOCKED:
        case BENCH_CONNECTION_UNBLOCKED:
        case BENCH_BASIC_CANCEL:
            if (bench_wire_on_method(w, bench_frame_method(ret_frame), ret_frame) != 0)
                return -1;
            continue;
        default: return 0;
        }
    }
}

static int wire_expect(struct bench_wire *w, enum bench_method method, struct bench_frame *ret_frame)
{
    if (bench_wire_receive(w, ret_frame) != 0)
        return -1;
    if (ret_frame->type != BENCH_FRAME_METHOD || bench_frame_method(ret_frame) != method)
        return wire_fail(w, "expected method %u.%u, got frame type %u method %u.%u", (unsigned)method >> 16,
                         (unsigned)method & 0xFFFF, ret_frame->type, (unsigned)bench_frame_method(ret_frame) >> 16,
                         (unsigned)bench_frame_method(ret_frame) & 0xFFFF);
    return 0;
}

int bench_wire_ask(struct bench_wire *w, struct bench_writer *out, enum bench_method answer,
                   struct bench_frame *ret_frame)
{
    bench_put_frame_end(out);
    if (out->failed)
        return wire_fail(w, "a name is too long for AMQP");
    if (client_socket_send(&w->socket, out->bytes, out->at) != 0)
        return -1;
    return wire_expect(w, answer, ret_frame);
}

static int wire_ask(struct bench_wire *w, struct bench_writer *out, enum bench_method answer)
{
    struct bench_frame frame;
    return bench_wire_ask(w, out, answer, &frame);
}

#define ASK_BEGIN(name, channel, method)                                                                               \
    uint8_t name##_bytes[ASK_BYTES_MAX];                                                                               \
    struct bench_writer name = {.bytes = name##_bytes, .cap = sizeof(name##_bytes)};                                   \
    bench_put_method_begin(&name, (channel), (method))

/* ---- login (specification section 2.2.4) ---- */

static int login_start_ok(struct bench_wire *w, const struct bench_uri *uri, const char *name)
{
    char response[260];
    size_t user_len = strlen(uri->user), password_len = strlen(uri->password);
    response[0] = '\0';
    memcpy(response + 1, uri->user, user_len + 1);
    memcpy(response + 2 + user_len, uri->password, password_len);

    ASK_BEGIN(out, 0, BENCH_CONNECTION_START_OK);
    size_t properties = put_table_begin(&out);
    put_field_text(&out, "product", name != NULL ? name : "millrace bench");
    put_field_text(&out, "connection_name", name != NULL ? name : "millrace bench");
    bench_put_shortstr(&out, "capabilities");
    bench_put_u8(&out, 'F');
    size_t capabilities = put_table_begin(&out);
    put_field_true(&out, "publisher_confirms");
    put_field_true(&out, "basic.nack");
    put_field_true(&out, "connection.blocked");
    put_field_true(&out, "consumer_cancel_notify");
    put_field_true(&out, "authentication_failure_close");
    put_table_end(&out, capabilities);
    put_table_end(&out, properties);
    bench_put_shortstr(&out, uri->external ? "EXTERNAL" : "PLAIN");
    bench_put_longstr(&out, response, uri->external ? 0 : user_len + password_len + 2);
    bench_put_shortstr(&out, "en_US");
    bench_put_frame_end(&out);
    return client_socket_send(&w->socket, out.bytes, out.at);
}

/* The agreed value of a limit where 0 means "no limit". */
static uint32_t agree(uint32_t offered, uint32_t asked)
{
    if (offered == 0 || asked == 0)
        return offered == 0 ? asked : offered;
    return offered < asked ? offered : asked;
}

static int login_tune(struct bench_wire *w, const struct bench_wire_limits *limits)
{
    struct bench_frame f;
    if (wire_expect(w, BENCH_CONNECTION_TUNE, &f) != 0)
        return -1;
    if (f.len < 12)
        return bench_wire_frame_bad(w);
    w->channel_max = (uint16_t)agree(bench_get_u16(f.payload + 4), 0);
    uint32_t frame_max =
        agree(bench_get_u32(f.payload + 6), limits->frame_max > 0 ? limits->frame_max : BENCH_FRAME_MAX);
    uint16_t heartbeat_s = bench_get_u16(f.payload + 10);
    w->heartbeat_s = limits->heartbeat_s == UINT16_MAX ? heartbeat_s : limits->heartbeat_s;
    if (frame_max < FRAME_MIN_MAX)
        return wire_fail(w, "frame_max %u is below the %d that AMQP guarantees", frame_max, FRAME_MIN_MAX);
    if (frame_max > w->socket.in_cap)
        return wire_fail(w, "frame_max %u is larger than the input buffer", frame_max);
    w->frame_max = frame_max;

    ASK_BEGIN(out, 0, BENCH_CONNECTION_TUNE_OK);
    bench_put_u16(&out, w->channel_max);
    bench_put_u32(&out, frame_max);
    bench_put_u16(&out, w->heartbeat_s);
    bench_put_frame_end(&out);
    return client_socket_send(&w->socket, out.bytes, out.at);
}

static int login(struct bench_wire *w, const struct bench_uri *uri, const struct bench_wire_limits *limits)
{
    static const uint8_t PROTOCOL[8] = {'A', 'M', 'Q', 'P', 0, 0, 9, 1};
    struct bench_frame f;
    if (client_socket_send(&w->socket, PROTOCOL, sizeof(PROTOCOL)) != 0 ||
        wire_expect(w, BENCH_CONNECTION_START, &f) != 0)
        return -1;
    if (login_start_ok(w, uri, limits->name) != 0 || login_tune(w, limits) != 0)
        return -1;
    ASK_BEGIN(out, 0, BENCH_CONNECTION_OPEN);
    bench_put_shortstr(&out, uri->vhost);
    bench_put_shortstr(&out, "");
    bench_put_u8(&out, 0);
    return wire_ask(w, &out, BENCH_CONNECTION_OPEN_OK);
}

static int channel_open(struct bench_wire *w, unsigned channel)
{
    ASK_BEGIN(out, channel, BENCH_CHANNEL_OPEN);
    bench_put_shortstr(&out, "");
    return wire_ask(w, &out, BENCH_CHANNEL_OPEN_OK);
}

int bench_wire_open(struct bench_wire *w, const struct bench_uri *uri, const struct bench_wire_limits *limits)
{
    memset(w, 0, sizeof(*w));
    w->socket.fd = -1;
    w->frame_max = BENCH_FRAME_MAX; /* until tuned; a server may greet with a large property table */
    uint32_t frame_max = limits->frame_max > 0 ? limits->frame_max : BENCH_FRAME_MAX;
    if (client_socket_reserve(&w->socket, limits->in_bytes > frame_max ? limits->in_bytes : frame_max) != 0)
        return -1;
    if (client_socket_connect(&w->socket, uri->host, uri->port) != 0 ||
        (uri->tls && client_socket_tls(&w->socket, uri->host, uri->tls_options) != 0) || login(w, uri, limits) != 0)
        return -1;
    w->open = true;
    w->read_at_ns = client_clock_ns();
    for (unsigned channel = 1; channel <= limits->channels; channel++)
        if (channel_open(w, channel) != 0)
            return -1;
    return 0;
}

static void say_goodbye(struct bench_wire *w)
{
    w->socket.patience_ms = CLOSE_TIMEOUT_S * 1000;
    struct timeval timeout = {.tv_sec = CLOSE_TIMEOUT_S};
    uint64_t until_ns = client_clock_ns() + CLOSE_TIMEOUT_S * BENCH_NS_PER_S;
    client_socket_nonblocking(&w->socket, false);
    setsockopt(w->socket.fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    setsockopt(w->socket.fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
    ASK_BEGIN(out, 0, BENCH_CONNECTION_CLOSE);
    bench_put_u16(&out, 200);
    bench_put_shortstr(&out, "bye");
    bench_put_u32(&out, 0);
    bench_put_frame_end(&out);
    struct bench_frame f;
    if (client_socket_send(&w->socket, out.bytes, out.at) != 0)
        return;
    while (client_clock_ns() < until_ns && bench_wire_receive(w, &f) == 0)
        if (f.type == BENCH_FRAME_METHOD && bench_frame_method(&f) == BENCH_CONNECTION_CLOSE_OK)
            return;
}

void bench_wire_close(struct bench_wire *w)
{
    if (w->socket.fd >= 0 && w->open)
        say_goodbye(w);
    client_socket_close(&w->socket);
}

/* ---- methods ---- */

int bench_wire_confirm_select(struct bench_wire *w)
{
    ASK_BEGIN(out, 1, BENCH_CONFIRM_SELECT);
    bench_put_u8(&out, 0);
    return wire_ask(w, &out, BENCH_CONFIRM_SELECT_OK);
}

int bench_wire_queue_declare(struct bench_wire *w, const char *queue, const struct bench_queue_kind *kind)
{
    ASK_BEGIN(out, 1, BENCH_QUEUE_DECLARE);
    bench_put_u16(&out, 0);
    bench_put_shortstr(&out, queue);
    bench_put_u8(&out, kind->durable ? 2 : 0);
    size_t arguments = put_table_begin(&out);
    if (kind->type != NULL)
        put_field_text(&out, "x-queue-type", kind->type);
    put_table_end(&out, arguments);
    return wire_ask(w, &out, BENCH_QUEUE_DECLARE_OK);
}

int bench_wire_queue_delete(struct bench_wire *w, const char *queue)
{
    ASK_BEGIN(out, 1, BENCH_QUEUE_DELETE);
    bench_put_u16(&out, 0);
    bench_put_shortstr(&out, queue);
    bench_put_u8(&out, 0);
    return wire_ask(w, &out, BENCH_QUEUE_DELETE_OK);
}

int bench_wire_queue_purge(struct bench_wire *w, const char *queue)
{
    ASK_BEGIN(out, 1, BENCH_QUEUE_PURGE);
    bench_put_u16(&out, 0);
    bench_put_shortstr(&out, queue);
    bench_put_u8(&out, 0);
    return wire_ask(w, &out, BENCH_QUEUE_PURGE_OK);
}

int bench_wire_qos(struct bench_wire *w, uint16_t prefetch)
{
    ASK_BEGIN(out, 1, BENCH_BASIC_QOS);
    bench_put_u32(&out, 0);
    bench_put_u16(&out, prefetch);
    bench_put_u8(&out, 0);
    return wire_ask(w, &out, BENCH_BASIC_QOS_OK);
}

static void put_offset(struct bench_writer *w, const char *offset)
{
    char *end;
    unsigned long long number = strtoull(offset, &end, 10);
    if (*end != '\0' || end == offset) {
        put_field_text(w, "x-stream-offset", offset);
        return;
    }
    bench_put_shortstr(w, "x-stream-offset");
    bench_put_u8(w, 'l');
    bench_put_u64(w, number);
}

int bench_wire_consume(struct bench_wire *w, const char *queue, bool no_ack, const char *offset)
{
    ASK_BEGIN(out, 1, BENCH_BASIC_CONSUME);
    bench_put_u16(&out, 0);
    bench_put_shortstr(&out, queue);
    bench_put_shortstr(&out, "c"); /* short, so that deliveries stay small */
    bench_put_u8(&out, no_ack ? 2 : 0);
    size_t arguments = put_table_begin(&out);
    if (offset != NULL)
        put_offset(&out, offset);
    put_table_end(&out, arguments);
    return wire_ask(w, &out, BENCH_BASIC_CONSUME_OK);
}
