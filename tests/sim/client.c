/* The simulator's AMQP client, see client.h. Numbers are laid down byte by byte here on purpose. */
#include "client.h"

#include <stdio.h>
#include <stdlib.h>

#define FRAME_END 0xce

void client_init(struct client *c, void (*on_event)(void *, const struct client_event *), void *arg)
{
    *c = (struct client){.on_event = on_event, .arg = arg};
    c->in = malloc(CLIENT_ROOM);
    c->out = malloc(CLIENT_ROOM);
    c->body = malloc(CLIENT_ROOM);
    if (!c->in || !c->out || !c->body)
        abort();
}

void client_fini(struct client *c)
{
    free(c->in);
    free(c->out);
    free(c->body);
}

void client_reset(struct client *c)
{
    c->in_len = c->out_len = c->body_len = 0;
    c->in_content = false;
}

/* ---- writing ---- */

static void put(struct client *c, const void *bytes, size_t len)
{
    if (len > CLIENT_ROOM - c->in_len)
        abort();
    if (len)
        memcpy(c->in + c->in_len, bytes, len);
    c->in_len += len;
}

static void put_number(struct client *c, uint64_t v, unsigned bytes)
{
    uint8_t b[8];
    for (unsigned i = 0; i < bytes; i++)
        b[i] = (uint8_t)(v >> 8 * (bytes - 1 - i));
    put(c, b, bytes);
}

static void put_short(struct client *c, const char *text)
{
    put_number(c, strlen(text), 1);
    put(c, text, strlen(text));
}

static void put_long(struct client *c, struct slice s)
{
    put_number(c, s.len, 4);
    put(c, s.ptr, s.len);
}

static size_t frame(struct client *c, unsigned type, uint16_t channel)
{
    put_number(c, type, 1);
    put_number(c, channel, 2);
    put_number(c, 0, 4);
    return c->in_len;
}

static void frame_end(struct client *c, size_t start)
{
    size_t len = c->in_len - start;
    for (unsigned i = 0; i < 4; i++)
        c->in[start - 4 + i] = (uint8_t)(len >> 8 * (3 - i));
    put_number(c, FRAME_END, 1);
}

static size_t method(struct client *c, uint16_t channel, uint16_t class_id, uint16_t method_id)
{
    size_t start = frame(c, 1, channel);
    put_number(c, class_id, 2);
    put_number(c, method_id, 2);
    return start;
}

static void plain(struct client *c, uint16_t channel, uint16_t class_id, uint16_t method_id)
{
    frame_end(c, method(c, channel, class_id, method_id));
}

void client_handshake(struct client *c)
{
    put(c, "AMQP\0\0\x09\x01", 8);
    size_t f = method(c, 0, 10, 11);
    put_number(c, 0, 4);
    put_short(c, "PLAIN");
    put_long(c, slice_of("\0guest\0guest", 12));
    put_short(c, "en_US");
    frame_end(c, f);
    f = method(c, 0, 10, 31);
    put_number(c, 2047, 2);
    put_number(c, 131072, 4);
    put_number(c, 0, 2);
    frame_end(c, f);
    f = method(c, 0, 10, 40);
    put_short(c, "/");
    put_short(c, "");
    put_number(c, 0, 1);
    frame_end(c, f);
}

void client_channel_open(struct client *c, uint16_t channel)
{
    size_t f = method(c, channel, 20, 10);
    put_short(c, "");
    frame_end(c, f);
}

static void put_close(struct client *c, uint16_t channel, uint16_t class_id, uint16_t method_id)
{
    size_t f = method(c, channel, class_id, method_id);
    put_number(c, 200, 2);
    put_short(c, "bye");
    put_number(c, 0, 4);
    frame_end(c, f);
}

void client_channel_close(struct client *c, uint16_t channel)
{
    put_close(c, channel, 20, 40);
}

void client_channel_close_ok(struct client *c, uint16_t channel)
{
    plain(c, channel, 20, 41);
}

void client_close(struct client *c)
{
    put_close(c, 0, 10, 50);
}

void client_exchange_declare(struct client *c, uint16_t channel, const char *name, const char *type,
                             const char *delayed_type)
{
    size_t f = method(c, channel, 40, 10);
    put_number(c, 0, 2);
    put_short(c, name);
    put_short(c, type);
    put_number(c, 2, 1); /* durable */
    if (delayed_type) {
        put_number(c, 1 + 14 + 1 + 4 + strlen(delayed_type), 4);
        put_short(c, "x-delayed-type");
        put(c, "S", 1);
        put_long(c, slice_str(delayed_type));
    } else
        put_number(c, 0, 4);
    frame_end(c, f);
}

void client_queue_declare(struct client *c, uint16_t channel, const char *name, struct slice args)
{
    size_t f = method(c, channel, 50, 10);
    put_number(c, 0, 2);
    put_short(c, name);
    put_number(c, 2, 1); /* durable */
    put_long(c, args);
    frame_end(c, f);
}

void client_queue_bind(struct client *c, uint16_t channel, const char *queue, const char *exchange, const char *key,
                       struct slice args)
{
    size_t f = method(c, channel, 50, 20);
    put_number(c, 0, 2);
    put_short(c, queue);
    put_short(c, exchange);
    put_short(c, key);
    put_number(c, 0, 1);
    put_number(c, args.len, 4);
    put(c, args.ptr, args.len);
    frame_end(c, f);
}

void client_exchange_bind(struct client *c, uint16_t channel, const char *to, const char *from, const char *key)
{
    size_t f = method(c, channel, 40, 30);
    put_number(c, 0, 2);
    put_short(c, to);
    put_short(c, from);
    put_short(c, key);
    put_number(c, 0, 1);
    put_number(c, 0, 4);
    frame_end(c, f);
}

void client_queue_purge(struct client *c, uint16_t channel, const char *name)
{
    size_t f = method(c, channel, 50, 30);
    put_number(c, 0, 2);
    put_short(c, name);
    put_number(c, 0, 1);
    frame_end(c, f);
}

void client_queue_delete(struct client *c, uint16_t channel, const char *name)
{
    size_t f = method(c, channel, 50, 40);
    put_number(c, 0, 2);
    put_short(c, name);
    put_number(c, 0, 1);
    frame_end(c, f);
}

/* A table with one number. */
static void put_headers(struct client *c, const char *name, int value)
{
    put_number(c, 1 + strlen(name) + 1 + 4, 4);
    put_short(c, name);
    put(c, "I", 1);
    put_number(c, (uint64_t)value, 4);
}

static void put_body(struct client *c, uint16_t channel, struct slice body)
{
    for (size_t at = 0; at < body.len;) {
        size_t part = body.len - at < 100000 ? body.len - at : 100000;
        size_t f = frame(c, 3, channel);
        put(c, body.ptr + at, part);
        frame_end(c, f);
        at += part;
    }
}

void client_publish(struct client *c, uint16_t channel, const char *exchange, const char *key, struct slice body,
                    bool persistent, int priority, int delay_ms, int expiration_ms, int once)
{
    size_t f = method(c, channel, 60, 40);
    put_number(c, 0, 2);
    put_short(c, exchange);
    put_short(c, key);
    put_number(c, 0, 1);
    frame_end(c, f);
    f = frame(c, 2, channel);
    put_number(c, 60, 2);
    put_number(c, 0, 2);
    put_number(c, body.len, 8);
    put_number(c, 0x1800u | (delay_ms >= 0 || once >= 0 ? 0x2000u : 0) | (expiration_ms >= 0 ? 0x100u : 0), 2);
    if (delay_ms >= 0)
        put_headers(c, "x-delay", delay_ms);
    if (once >= 0)
        put_headers(c, "x-deduplication-header", once);
    put_number(c, persistent ? 2 : 1, 1);
    put_number(c, (uint64_t)priority, 1);
    if (expiration_ms >= 0) {
        char text[16];
        snprintf(text, sizeof text, "%d", expiration_ms);
        put_short(c, text);
    }
    frame_end(c, f);
    put_body(c, channel, body);
}

void client_publish_copy(struct client *c, uint16_t channel, const char *queue, const char *other, struct slice body,
                         bool persistent)
{
    size_t f = method(c, channel, 60, 40);
    put_number(c, 0, 2);
    put_short(c, "");
    put_short(c, queue);
    put_number(c, 0, 1);
    frame_end(c, f);
    f = frame(c, 2, channel);
    put_number(c, 60, 2);
    put_number(c, 0, 2);
    put_number(c, body.len, 8);
    put_number(c, 0x3000, 2);
    put_number(c, 3 + 1 + 4 + 1 + 4 + strlen(other), 4);
    put_short(c, "CC");
    put(c, "A", 1);
    put_number(c, 1 + 4 + strlen(other), 4);
    put(c, "S", 1);
    put_long(c, slice_str(other));
    put_number(c, persistent ? 2 : 1, 1);
    frame_end(c, f);
    put_body(c, channel, body);
}

void client_publish_headers(struct client *c, uint16_t channel, const char *exchange, const char *key,
                            struct slice body, struct slice headers)
{
    size_t f = method(c, channel, 60, 40);
    put_number(c, 0, 2);
    put_short(c, exchange);
    put_short(c, key);
    put_number(c, 0, 1);
    frame_end(c, f);
    f = frame(c, 2, channel);
    put_number(c, 60, 2);
    put_number(c, 0, 2);
    put_number(c, body.len, 8);
    put_number(c, 0x3000, 2);
    put_number(c, headers.len, 4);
    put(c, headers.ptr, headers.len);
    put_number(c, 2, 1);
    frame_end(c, f);
    f = frame(c, 3, channel);
    put(c, body.ptr, body.len);
    frame_end(c, f);
}

void client_consume(struct client *c, uint16_t channel, const char *queue, const char *tag, bool no_ack)
{
    size_t f = method(c, channel, 60, 20);
    put_number(c, 0, 2);
    put_short(c, queue);
    put_short(c, tag);
    put_number(c, no_ack ? 2 : 0, 1);
    put_number(c, 0, 4);
    frame_end(c, f);
}

void client_consume_from(struct client *c, uint16_t channel, const char *queue, const char *tag, struct slice args)
{
    size_t f = method(c, channel, 60, 20);
    put_number(c, 0, 2);
    put_short(c, queue);
    put_short(c, tag);
    put_number(c, 0, 1);
    put_long(c, args);
    frame_end(c, f);
}

void client_cancel(struct client *c, uint16_t channel, const char *tag)
{
    size_t f = method(c, channel, 60, 30);
    put_short(c, tag);
    put_number(c, 0, 1);
    frame_end(c, f);
}

void client_qos(struct client *c, uint16_t channel, uint16_t count)
{
    size_t f = method(c, channel, 60, 10);
    put_number(c, 0, 4);
    put_number(c, count, 2);
    put_number(c, 0, 1);
    frame_end(c, f);
}

void client_get(struct client *c, uint16_t channel, const char *queue, bool no_ack)
{
    size_t f = method(c, channel, 60, 70);
    put_number(c, 0, 2);
    put_short(c, queue);
    put_number(c, no_ack, 1);
    frame_end(c, f);
}

void client_ack(struct client *c, uint16_t channel, uint64_t tag, bool multiple)
{
    size_t f = method(c, channel, 60, 80);
    put_number(c, tag, 8);
    put_number(c, multiple, 1);
    frame_end(c, f);
}

void client_nack(struct client *c, uint16_t channel, uint64_t tag, bool multiple, bool requeue)
{
    size_t f = method(c, channel, 60, 120);
    put_number(c, tag, 8);
    put_number(c, (multiple ? 1u : 0u) | (requeue ? 2u : 0u), 1);
    frame_end(c, f);
}

void client_recover(struct client *c, uint16_t channel, bool requeue)
{
    size_t f = method(c, channel, 60, 110);
    put_number(c, requeue, 1);
    frame_end(c, f);
}

void client_confirm_select(struct client *c, uint16_t channel)
{
    size_t f = method(c, channel, 85, 10);
    put_number(c, 0, 1);
    frame_end(c, f);
}

void client_tx(struct client *c, uint16_t channel, uint16_t method_id)
{
    plain(c, channel, 90, method_id);
}

void client_feed(struct client *c, struct engine *engine)
{
    if (!c->in_len || engine->paused || engine->want_close)
        return;
    size_t used = engine->ops->feed(engine, slice_of(c->in, c->in_len));
    memmove(c->in, c->in + used, c->in_len - used);
    c->in_len -= used;
}

/* ---- reading ---- */

struct cursor {
    const uint8_t *at;
    size_t left;
};

static uint64_t number(struct cursor *r, unsigned bytes)
{
    uint64_t v = 0;
    if (bytes > r->left) {
        fprintf(stderr, "simulator: a frame of the broker is too short\n");
        abort();
    }
    for (unsigned i = 0; i < bytes; i++)
        v = v << 8 | r->at[i];
    r->at += bytes;
    r->left -= bytes;
    return v;
}

static struct slice text(struct cursor *r)
{
    size_t len = number(r, 1);
    if (len > r->left)
        abort();
    struct slice s = slice_of(r->at, len);
    r->at += len;
    r->left -= len;
    return s;
}

static void begin_message(struct client *c, uint16_t channel, struct cursor *r, bool deliver)
{
    c->message = (struct client_event){.type = EVENT_MESSAGE, .channel = channel, .queue_tag = c->consumer};
    c->consumer[0] = '\0';
    if (deliver) {
        struct slice tag = text(r);
        snprintf(c->consumer, sizeof c->consumer, "%.*s", SLICE_ARG(tag));
    }
    c->message.tag = number(r, 8);
    c->message.redelivered = number(r, 1);
    c->message.method = deliver ? 60u << 16 | 60 : 60u << 16 | 71;
    c->in_content = true;
}

static void on_method(struct client *c, uint16_t channel, struct cursor r)
{
    uint32_t name = (uint32_t)number(&r, 4);
    struct client_event e = {.type = EVENT_OK, .channel = channel, .method = name, .queue_tag = ""};
    switch (name) {
    case 60u << 16 | 60: begin_message(c, channel, &r, true); return;
    case 60u << 16 | 71: begin_message(c, channel, &r, false); return;
    case 60u << 16 | 72: e.type = EVENT_EMPTY; break;
    case 60u << 16 | 80:
    case 60u << 16 | 120:
        e.type = EVENT_ACK;
        e.tag = number(&r, 8);
        e.multiple = number(&r, 1) & 1;
        e.negative = name == (60u << 16 | 120);
        break;
    case 20u << 16 | 40:
    case 10u << 16 | 50:
        e.type = name == (20u << 16 | 40) ? EVENT_CHANNEL_CLOSED : EVENT_CLOSED;
        e.tag = number(&r, 2);
        e.text = text(&r);
        break;
    case 50u << 16 | 31:
    case 50u << 16 | 41: e.count = (uint32_t)number(&r, 4); break;
    case 10u << 16 | 10:
    case 10u << 16 | 30: return; /* answered in advance */
    default: break;
    }
    c->on_event(c->arg, &e);
}

/* The number of a header of type l, wherever it stands in the content header. */
static uint64_t header_number(struct cursor r, const char *name, uint64_t otherwise)
{
    size_t len = strlen(name);
    const uint8_t *at = memmem(r.at, r.left, name, len);
    if (!at || at + len + 9 > r.at + r.left || at[len] != 'l')
        return otherwise;
    r.left -= (size_t)(at - r.at) + len + 1;
    r.at = at + len + 1;
    return number(&r, 8);
}

static void content_done(struct client *c)
{
    c->in_content = false;
    c->message.body = slice_of(c->body, c->body_len);
    c->on_event(c->arg, &c->message);
}

static void on_frame(struct client *c, uint8_t type, uint16_t channel, struct cursor r)
{
    if (type == 1)
        on_method(c, channel, r);
    else if (type == 2) {
        (void)number(&r, 4);
        c->body_size = number(&r, 8);
        c->body_len = 0;
        c->message.offset = header_number(r, "x-stream-offset", UINT64_MAX);
        c->message.partition = (uint32_t)header_number(r, "x-stream-partition", 0);
        if (c->body_size > CLIENT_ROOM || !c->in_content)
            abort();
        if (c->body_size == 0)
            content_done(c);
    } else if (type == 3) {
        if (r.left > c->body_size - c->body_len)
            abort();
        memcpy(c->body + c->body_len, r.at, r.left);
        c->body_len += r.left;
        if (c->body_len == c->body_size)
            content_done(c);
    }
}

void client_read(struct client *c, struct engine *engine)
{
    struct iovec v[16];
    size_t took = 0;
    int n;
    while ((n = outq_peek(&engine->out, v, 16)) > 0) {
        size_t sum = 0;
        for (int i = 0; i < n; i++) {
            if (v[i].iov_len > CLIENT_ROOM - c->out_len)
                abort();
            memcpy(c->out + c->out_len, v[i].iov_base, v[i].iov_len);
            c->out_len += v[i].iov_len;
            sum += v[i].iov_len;
        }
        outq_consume(&engine->out, sum);
        took += sum;
    }
    if (!took)
        return;
    struct cursor r = {c->out, c->out_len};
    while (r.left >= 8) {
        struct cursor whole = r;
        uint8_t type = (uint8_t)number(&r, 1);
        uint16_t channel = (uint16_t)number(&r, 2);
        size_t len = number(&r, 4);
        if (r.left < len + 1) {
            r = whole;
            break;
        }
        struct cursor payload = {r.at, len};
        if (r.at[len] != FRAME_END)
            abort();
        r.at += len + 1;
        r.left -= len + 1;
        on_frame(c, type, channel, payload);
    }
    memmove(c->out, r.at, r.left);
    c->out_len = r.left;
    engine->ops->drained(engine);
}
