/* Frames that leave. Every frame ends with NUL and a line feed, as RabbitMQ's do.
 *
 * A MESSAGE is the beginning that its subscription has ready, its destination (printed once for all messages that were published
 * alike), its id, the properties as lines, and the body. A small one is written by one pass into one piece of the out-queue; a
 * large body is lent with a reference. Thread: the loop's. */
#include "base/check.h"
#include "base/mem.h"
#include "proto/stomp/props.h"
#include "proto/stomp/stomp_int.h"

#include <stdio.h>

static inline struct outq *queue_of(struct stomp *s)
{
    return &s->session.engine.out;
}

/* Something was put into the queue, or could not be: then this connection ends, and no other. */
static void wrote(struct stomp *s)
{
    s->wrote = true;
    if (queue_of(s)->failed)
        s->session.engine.want_close = true;
    engine_dirty(&s->session.engine);
}

static inline uint8_t *put(uint8_t *at, struct slice s)
{
    if (s.len)
        memcpy(at, s.ptr, s.len);
    return at + s.len;
}

static inline uint8_t *put_text(uint8_t *at, const char *text)
{
    return put(at, slice_str(text));
}

static uint8_t *put_number(uint8_t *at, uint64_t value)
{
    uint8_t digits[20];
    size_t n = sizeof digits;
    do
        digits[--n] = (uint8_t)('0' + value % 10);
    while (value /= 10);
    return put(at, slice_of(digits + n, sizeof digits - n));
}

static uint8_t *put_line(uint8_t *at, const char *name, struct slice value, enum stomp_version version)
{
    at = put_text(at, name);
    *at++ = ':';
    at = stomp_put_escaped(at, value, version);
    *at++ = '\n';
    return at;
}

static uint8_t *put_end(uint8_t *at)
{
    *at++ = 0;
    *at++ = '\n';
    return at;
}

/* ---- small frames ---- */

void stomp_out_connected(struct stomp *s)
{
    uint8_t *start = outq_room(queue_of(s), 512), *at = start;
    if (start) {
        char beats[32];
        snprintf(beats, sizeof beats, "%u,%u", s->beat_send_ms, s->beat_expect_ms);
        at = put_text(at, "CONNECTED\n"); /* never escaped (1.2, "Value Encoding") */
        at = put_line(at, "version", slice_str(stomp_version_text((enum stomp_version)s->version)), STOMP_UNKNOWN);
        at = put_line(at, "session", slice_str(s->session_id), STOMP_UNKNOWN);
        at = put_line(at, "heart-beat", slice_str(beats), STOMP_UNKNOWN);
        at = put_line(at, "server", slice_str(s->options->product), STOMP_UNKNOWN);
        *at++ = '\n';
        at = put_end(at);
        outq_commit(queue_of(s), (size_t)(at - start));
    }
    wrote(s);
}

void stomp_out_receipt(struct stomp *s, struct slice id)
{
    uint8_t *start = outq_room(queue_of(s), 64 + 2 * (size_t)STOMP_RECEIPT_MAX), *at = start;
    if (start) {
        at = put_text(at, "RECEIPT\n");
        at = put_line(at, "receipt-id", id, (enum stomp_version)s->version);
        *at++ = '\n';
        at = put_end(at);
        outq_commit(queue_of(s), (size_t)(at - start));
    }
    wrote(s);
}

void stomp_out_error(struct stomp *s, const struct stomp_error_frame *e)
{
    enum stomp_version version = (enum stomp_version)s->version;
    size_t max = 256 + 2 * (e->message.len + e->receipt.len + e->subscription.len) + e->body.len;
    CHECK(max <= OUTQ_CHUNK_LEN);
    uint8_t *start = outq_room(queue_of(s), max), *at = start;
    if (start) {
        at = put_text(at, "ERROR\n");
        at = put_line(at, "message", e->message, version);
        at = put_text(at, "content-type:text/plain\nversion:1.0,1.1,1.2\n");
        if (e->subscription.ptr)
            at = put_line(at, "subscription", e->subscription, version);
        if (e->receipt.ptr)
            at = put_line(at, "receipt-id", e->receipt, version);
        if (e->body.len)
            at = put_number(put_text(at, "content-length:"), e->body.len);
        at = put(put_text(at, e->body.len ? "\n\n" : "\n"), e->body);
        at = put_end(at);
        outq_commit(queue_of(s), (size_t)(at - start));
    }
    wrote(s);
}

void stomp_out_beat(struct stomp *s)
{
    outq_put(queue_of(s), "\n", 1);
    engine_dirty(&s->session.engine);
    if (queue_of(s)->failed)
        s->session.engine.want_close = true;
}

/* ---- messages ---- */

static bool printed_is(const struct stomp_printed *p, struct slice exchange, struct slice key)
{
    return p->exchange_len == exchange.len && p->key_len == key.len &&
           slice_equal(slice_of(p->names, exchange.len), exchange) &&
           slice_equal(slice_of(p->names + exchange.len, key.len), key);
}

/* Where it was published, as text; len 0: no memory. */
static struct slice printed(struct stomp *s, const struct msg *msg)
{
    struct slice exchange = msg_exchange(msg), key = msg_key(msg);
    struct stomp_printed *p = s->printed;
    if (p && printed_is(p, exchange, key))
        return slice_of(p->text, p->len);
    if (!p && !(p = s->printed = mem_alloc(sizeof *p)))
        return (struct slice){0};
    p->exchange_len = (uint8_t)exchange.len;
    p->key_len = (uint8_t)key.len;
    put(put(p->names, exchange), key);
    p->len = (uint16_t)stomp_destination_print(p->text, exchange, key, topic_exchange(s));
    return slice_of(p->text, p->len);
}

static void body_release(void *heap, void *msg)
{
    msg_unref(heap, msg);
}

#define ID_NAME_LEN 11u /* "message-id:" */

static uint8_t *put_head(uint8_t *at, const struct stomp *s, const struct stomp_subscription *sub,
                         const struct effect *e, struct slice destination)
{
    at = put(at, sub->head);
    at = put_text(at, "destination:");
    at = stomp_put_escaped(at, destination, (enum stomp_version)s->version);
    *at++ = '\n';
    at = put_number(put(at, sub->id_head), e->number);
    at = put_text(at, e->flags & EFFECT_REDELIVERED ? "\nredelivered:true\n" : "\nredelivered:false\n");
    if (s->version == STOMP_12 && sub->ack != ACK_AUTO) {
        at = put_text(at, "ack:");
        at = put(at, slice_of(sub->id_head.ptr + ID_NAME_LEN, sub->id_head.len - ID_NAME_LEN));
        at = put_number(at, e->number);
        *at++ = '\n';
    }
    if (e->flags & EFFECT_STREAM) {
        at = put_number(put_text(at, "x-stream-offset:"), e->count);
        *at++ = '\n';
        if (e->origin) {
            at = put_number(put_text(at, "x-stream-partition:"), e->origin - 1);
            *at++ = '\n';
        }
    }
    at = stomp_props_lines(at, msg_props(e->msg), (enum stomp_version)s->version);
    if (e->msg->body_len) {
        at = put_number(put_text(at, "content-length:"), e->msg->body_len);
        *at++ = '\n';
    }
    *at++ = '\n';
    return at;
}

/* A MESSAGE that is too long for one piece of room. False: no memory. */
static bool out_long(struct stomp *s, const struct stomp_subscription *sub, const struct effect *e,
                     struct slice destination, size_t head_max)
{
    struct msg *msg = e->msg;
    struct slice body = msg_body(msg);
    uint8_t *head = mem_alloc(head_max);
    if (!head)
        return false;
    uint8_t *at = put_head(head, s, sub, e, destination);
    outq_put(queue_of(s), head, (size_t)(at - head));
    mem_free(head);
    if (body.len >= OUTQ_LEND_MIN)
        outq_lend(queue_of(s), body, body_release, stomp_heap(s), msg_ref(msg));
    else
        outq_put(queue_of(s), body.ptr, body.len);
    outq_put(queue_of(s), "\0\n", 2);
    return true;
}

void stomp_out_message(struct stomp *s, const struct stomp_subscription *sub, const struct effect *e)
{
    struct msg *msg = e->msg;
    struct slice destination = printed(s, msg);
    size_t head_max =
        sub->head.len + 2 * destination.len + 2 * sub->id_head.len + 256 + stomp_props_lines_max(msg_props(msg));
    bool small = msg->body_len < OUTQ_LEND_MIN && head_max + msg->body_len + 2 <= OUTQ_CHUNK_LEN, ok = destination.len;
    if (ok && small) {
        uint8_t *start = outq_room(queue_of(s), head_max + msg->body_len + 2);
        if (start) {
            uint8_t *at = put_end(put(put_head(start, s, sub, e, destination), msg_body(msg)));
            outq_commit(queue_of(s), (size_t)(at - start));
        }
    } else if (ok)
        ok = out_long(s, sub, e, destination, head_max);
    msg_unref(stomp_heap(s), msg);
    wrote(s);
    if (!ok)
        stomp_fail_memory(s);
}
