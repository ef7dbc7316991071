/* Encoding of what leaves, see out.h.
 *
 * A delivery is three kinds of frames: method, content header, body pieces of at most frame_max. A small message is
 * written by one pass into one piece of out-queue room; a large body is lent to the queue by reference, one reference
 * per piece, and only the frame heads between are copied. Frame layout: type u8, channel u16, size u32, payload, 0xCE
 * (AMQP 0-9-1 section 4.2.3); content header payload: class u16, weight u16, body size u64, properties (4.2.6.1).
 * Thread: the loop's. */
#include "proto/amqp091/out.h"

#include "base/check.h"
#include "base/mem.h"
#include "base/reader.h"
#include "fmt/amqp_props.h"
#include "fmt/amqp_table.h"

#include <endian.h>

#define HEADER_FIXED 12u /* class, weight, body size */
#define DELIVER_MAX (FRAME_OVERHEAD + 4 + 256 + 9 + 512)
#define STREAM_PROPS_MAX (2 + 2 * 256 + 4 + 2 * 32) /* flags, two strings, length and two headers */

static inline uint8_t *put8(uint8_t *at, uint8_t v)
{
    *at = v;
    return at + 1;
}

static inline uint8_t *put16(uint8_t *at, uint16_t v)
{
    v = htobe16(v);
    memcpy(at, &v, sizeof v);
    return at + sizeof v;
}

static inline uint8_t *put32(uint8_t *at, uint32_t v)
{
    v = htobe32(v);
    memcpy(at, &v, sizeof v);
    return at + sizeof v;
}

static inline uint8_t *put64(uint8_t *at, uint64_t v)
{
    v = htobe64(v);
    memcpy(at, &v, sizeof v);
    return at + sizeof v;
}

static inline uint8_t *put_bytes(uint8_t *at, struct slice s)
{
    if (s.len)
        memcpy(at, s.ptr, s.len);
    return at + s.len;
}

static inline uint8_t *put_str8(uint8_t *at, struct slice s)
{
    return put_bytes(put8(at, (uint8_t)s.len), s);
}

static inline uint8_t *put_head(uint8_t *at, uint8_t type, uint16_t channel, uint32_t size)
{
    return put32(put16(put8(at, type), channel), size);
}

static inline struct outq *queue_of(struct amqp091 *a)
{
    return &a->session.engine.out;
}

static uint8_t *room(struct amqp091 *a, size_t len)
{
    uint8_t *at = outq_room(queue_of(a), len);
    if (!at)
        a->session.engine.want_close = true; /* the queue is marked failed: this connection ends, and no other */
    return at;
}

/* Something was put into the queue. */
static void wrote(struct amqp091 *a)
{
    a->wrote = true;
    if (queue_of(a)->failed)
        a->session.engine.want_close = true;
    engine_dirty(&a->session.engine);
}

static void commit(struct amqp091 *a, size_t len)
{
    outq_commit(queue_of(a), len);
    wrote(a);
}

void amqp091_out_method(struct amqp091 *a, uint16_t channel, enum amqp091_method method, const void *fields)
{
    const struct amqp091_row *row = &amqp091_rows[method];
    size_t len = amqp091_encoded_len(row, fields);
    CHECK(len + FRAME_OVERHEAD <= OUTQ_CHUNK_LEN);
    uint8_t *at = room(a, len + FRAME_OVERHEAD);
    if (!at)
        return;
    put_head(at, FRAME_METHOD, channel, (uint32_t)len);
    struct writer w = writer_of(at + FRAME_HEAD, len);
    amqp091_encode(&w, row, fields);
    CHECK(writer_ok(&w) && w.len == len);
    at[FRAME_HEAD + len] = FRAME_END;
    commit(a, len + FRAME_OVERHEAD);
}

void amqp091_out_confirm(struct amqp091 *a, uint16_t channel, uint64_t tag, bool multiple, bool nack)
{
    uint32_t size = 4 + 8 + 1;
    uint8_t *start = room(a, size + FRAME_OVERHEAD);
    if (!start)
        return;
    uint8_t *at = put_head(start, FRAME_METHOD, channel, size);
    at = put32(at, nack ? AMQP091_ORIGIN(60, 120) : AMQP091_ORIGIN(60, 80));
    at = put8(put64(at, tag), multiple);
    at = put8(at, FRAME_END);
    commit(a, (size_t)(at - start));
}

uint16_t amqp091_out_prefix(uint8_t *ret, uint16_t channel, struct slice tag)
{
    uint8_t *at = put_head(ret, FRAME_METHOD, channel, 0);
    at = put32(at, AMQP091_ORIGIN(60, 60));
    at = put_str8(at, tag);
    return (uint16_t)(at - ret);
}

/* The release of a lent body piece. */
static void body_release(void *heap, void *msg)
{
    msg_unref(heap, msg);
}

/* The property list as it leaves: what the broker puts in front, and the rest as it came. */
struct props_out {
    struct slice first, rest;
};

static uint32_t props_len(const struct props_out *props)
{
    return (uint32_t)(props->first.len + props->rest.len);
}

static uint8_t *put_header(uint8_t *at, uint16_t channel, const struct msg *msg, const struct props_out *props)
{
    at = put_head(at, FRAME_HEADER, channel, HEADER_FIXED + props_len(props));
    at = put64(put32(at, AMQP091_ORIGIN(60, 0)), msg->body_len);
    at = put_bytes(put_bytes(at, props->first), props->rest);
    return put8(at, FRAME_END);
}

/* A header too large for one piece of room. */
static void copy_header(struct amqp091 *a, uint16_t channel, const struct msg *msg, const struct props_out *props)
{
    uint8_t head[FRAME_HEAD + HEADER_FIXED], end = FRAME_END;
    uint8_t *at = put_head(head, FRAME_HEADER, channel, HEADER_FIXED + props_len(props));
    put64(put32(at, AMQP091_ORIGIN(60, 0)), msg->body_len);
    outq_put(queue_of(a), head, sizeof head);
    outq_put(queue_of(a), props->first.ptr, props->first.len);
    outq_put(queue_of(a), props->rest.ptr, props->rest.len);
    outq_put(queue_of(a), &end, 1);
}

/* Body frames whose bytes stay where they are. */
static void lend_body(struct amqp091 *a, uint16_t channel, struct msg *msg)
{
    struct slice body = msg_body(msg);
    uint32_t piece_max = a->agreed.frame_max - FRAME_OVERHEAD;
    uint8_t end = FRAME_END;
    for (size_t sent = 0; sent < body.len;) {
        uint32_t piece = body.len - sent < piece_max ? (uint32_t)(body.len - sent) : piece_max;
        uint8_t head[FRAME_HEAD];
        put_head(head, FRAME_BODY, channel, piece);
        outq_put(queue_of(a), head, sizeof head);
        outq_lend(queue_of(a), slice_of(body.ptr + sent, piece), body_release, amqp091_heap(a), msg_ref(msg));
        outq_put(queue_of(a), &end, 1);
        sent += piece;
    }
}

/* Method frame (already in `method`, complete), header frame and body frames; takes the reference. */
static void out_content(struct amqp091 *a, uint16_t channel, const uint8_t *method, size_t method_len, struct msg *msg,
                        const struct props_out *props)
{
    size_t header_len = FRAME_OVERHEAD + HEADER_FIXED + props_len(props);
    bool small = msg->body_len < OUTQ_LEND_MIN && msg->body_len <= a->agreed.frame_max - FRAME_OVERHEAD;
    size_t body_len = small && msg->body_len ? FRAME_OVERHEAD + msg->body_len : 0;
    size_t len = method_len + header_len + body_len;
    if (len <= OUTQ_CHUNK_LEN) {
        uint8_t *start = room(a, len);
        if (start) {
            uint8_t *at = put_header(put_bytes(start, slice_of(method, method_len)), channel, msg, props);
            if (body_len)
                at = put8(put_bytes(put_head(at, FRAME_BODY, channel, msg->body_len), msg_body(msg)), FRAME_END);
            commit(a, (size_t)(at - start));
        }
    } else {
        outq_put(queue_of(a), method, method_len);
        copy_header(a, channel, msg, props);
        small = false; /* cannot be both: a body below OUTQ_LEND_MIN behind a huge header is lent as well */
    }
    if (!small && msg->body_len)
        lend_body(a, channel, msg);
    wrote(a);
    msg_unref(amqp091_heap(a), msg);
}

static size_t put_deliver(uint8_t *method, const struct amqp091_consumer *consumer, uint64_t tag, bool redelivered,
                          const struct msg *msg)
{
    uint8_t *at = put_bytes(method, slice_of(consumer->prefix, consumer->prefix_len));
    at = put8(put64(at, tag), redelivered);
    at = put_str8(put_str8(at, msg_exchange(msg)), msg_key(msg));
    put32(method + 3, (uint32_t)(at - method) - FRAME_HEAD);
    at = put8(at, FRAME_END);
    return (size_t)(at - method);
}

void amqp091_out_deliver(struct amqp091 *a, uint16_t channel, const struct amqp091_consumer *consumer, uint64_t tag,
                         bool redelivered, struct msg *msg)
{
    uint8_t method[DELIVER_MAX];
    size_t len = put_deliver(method, consumer, tag, redelivered, msg);
    out_content(a, channel, method, len, msg, &(struct props_out){.rest = msg_props(msg)});
}

static uint8_t *put_long(uint8_t *at, const char *name, uint64_t value)
{
    at = put_str8(at, slice_str(name));
    return put64(put8(at, 'l'), value);
}

static bool is_ours(struct slice header)
{
    return slice_is(header, "x-stream-offset") || slice_is(header, "x-stream-partition");
}

/* What a publisher named like our headers, who read it from another stream as a rule, is left out: clients take one of two
 * equal names, not all the same one. NULL: there is none, or no memory to leave it out. */
static uint8_t *without_ours(struct slice table, struct slice behind, size_t *ret_table_len)
{
    struct reader r = reader_of(table);
    struct amqp_field field;
    bool found = false;
    while (!found && amqp_table_next(&r, &field))
        found = is_ours(field.name);
    uint8_t *copy = found ? mem_alloc(table.len + behind.len) : NULL, *at = copy;
    if (!copy)
        return NULL;
    r = reader_of(table);
    for (const uint8_t *begin = r.at; amqp_table_next(&r, &field); begin = r.at)
        if (!is_ours(field.name))
            at = put_bytes(at, slice_of(begin, (size_t)(r.at - begin)));
    *ret_table_len = (size_t)(at - copy);
    put_bytes(at, behind);
    return copy;
}

/* x-stream-offset (and x-stream-partition) as the first headers, before those that the message has. The properties were
 * validated when it came in. ret_copy is to be freed when they are no longer needed. */
static struct props_out stream_props(uint8_t first[STREAM_PROPS_MAX], const struct msg *msg, uint64_t offset,
                                     uint32_t partition, uint8_t **ret_copy)
{
    struct slice props = msg_props(msg);
    uint16_t flags = (uint16_t)(props.ptr[0] << 8 | props.ptr[1]);
    size_t from = 2;
    uint8_t *at = put16(first, flags | AMQP_HEADERS);
    static const uint16_t before[] = {AMQP_CONTENT_TYPE, AMQP_CONTENT_ENCODING};
    for (size_t i = 0; i < ARRAY_LEN(before); i++)
        if (flags & before[i]) {
            size_t len = 1u + props.ptr[from];
            at = put_bytes(at, slice_of(props.ptr + from, len));
            from += len;
        }
    uint32_t table = 0;
    if (flags & AMQP_HEADERS) {
        memcpy(&table, props.ptr + from, sizeof table);
        table = be32toh(table);
        from += sizeof table;
    }
    struct slice rest = slice_of(props.ptr + from, props.len - from),
                 behind = slice_of(rest.ptr + table, rest.len - table);
    size_t table_len = table;
    *ret_copy = without_ours(slice_of(rest.ptr, table), behind, &table_len);
    if (*ret_copy)
        rest = slice_of(*ret_copy, table_len + behind.len);
    uint8_t *len_at = at;
    at = put_long(at + sizeof table, "x-stream-offset", offset);
    if (partition)
        at = put_long(at, "x-stream-partition", partition - 1);
    put32(len_at, (uint32_t)(table_len + (size_t)(at - len_at) - sizeof table));
    return (struct props_out){.first = slice_of(first, (size_t)(at - first)), .rest = rest};
}

void amqp091_out_deliver_stream(struct amqp091 *a, uint16_t channel, const struct amqp091_consumer *consumer,
                                uint64_t tag, uint64_t offset, uint32_t partition, struct msg *msg)
{
    uint8_t method[DELIVER_MAX], first[STREAM_PROPS_MAX], *copy;
    size_t len = put_deliver(method, consumer, tag, false, msg);
    struct props_out props = stream_props(first, msg, offset, partition, &copy);
    out_content(a, channel, method, len, msg, &props);
    mem_free(copy);
}

void amqp091_out_get_ok(struct amqp091 *a, uint16_t channel, uint64_t tag, bool redelivered, uint32_t left,
                        struct msg *msg)
{
    uint8_t method[FRAME_OVERHEAD + 4 + 9 + 512 + 4];
    uint8_t *at = put_head(method, FRAME_METHOD, channel, 0);
    at = put8(put64(put32(at, AMQP091_ORIGIN(60, 71)), tag), redelivered);
    at = put32(put_str8(put_str8(at, msg_exchange(msg)), msg_key(msg)), left);
    put32(method + 3, (uint32_t)(at - method) - FRAME_HEAD);
    at = put8(at, FRAME_END);
    out_content(a, channel, method, (size_t)(at - method), msg, &(struct props_out){.rest = msg_props(msg)});
}

void amqp091_out_return(struct amqp091 *a, uint16_t channel, uint16_t code, struct slice text, struct msg *msg)
{
    uint8_t method[FRAME_OVERHEAD + 4 + 2 + 3 * 256];
    if (text.len > 255)
        text.len = 255;
    uint8_t *at = put_head(method, FRAME_METHOD, channel, 0);
    at = put_str8(put16(put32(at, AMQP091_ORIGIN(60, 50)), code), text);
    at = put_str8(put_str8(at, msg_exchange(msg)), msg_key(msg));
    put32(method + 3, (uint32_t)(at - method) - FRAME_HEAD);
    at = put8(at, FRAME_END);
    out_content(a, channel, method, (size_t)(at - method), msg, &(struct props_out){.rest = msg_props(msg)});
}

void amqp091_out_heartbeat(struct amqp091 *a)
{
    uint8_t *start = room(a, FRAME_OVERHEAD);
    if (!start)
        return;
    put8(put_head(start, FRAME_HEARTBEAT, 0, 0), FRAME_END);
    commit(a, FRAME_OVERHEAD);
}

void amqp091_out_header(struct amqp091 *a)
{
    outq_put(queue_of(a), "AMQP\0\0\x09\x01", 8);
    wrote(a);
}
