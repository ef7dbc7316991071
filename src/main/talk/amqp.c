/* `millrace pub`, `sub` and `tail` over AMQP 0-9-1, see talk.h. The connection is the load generator's (bench_wire).
 *
 * Publishing: everything is mandatory and confirmed; at most WINDOW messages or WINDOW_BYTES are unconfirmed, so that the
 * broker's answers always fit into the sockets while we write. Consuming: an ack goes out before we wait, for all that was
 * dealt with. With a count that one prefetch can hold nothing more than that is ever taken from the queue. */
#include "main/talk/talk.h"

#include "admin/table_json.h"
#include "base/mem.h"
#include "base/reader.h"
#include "fmt/amqp_props.h"
#include "fmt/amqp_table.h"
#include "main/bench/wire.h"
#include "os/os.h"

#include <stdio.h>
#include <stdlib.h>

#define WINDOW 1024u
#define WINDOW_BYTES (256u * 1024)
#define PREFETCH 100u
#define ASK_MAX 2048u
#define METHOD_MAX 1024u
#define HEADERS_MAX (64u * 1024)
#define ANSWER_MS (BENCH_ANSWER_TIMEOUT_S * 1000)

struct talk_amqp {
    struct talk talk; /* first */
    struct bench_wire wire;
    /* publishing: tags above base were not all confirmed; those in the window that were are marked */
    uint64_t base;
    bool confirmed[WINDOW];
    size_t window_bytes;
    uint8_t *out;
    size_t out_cap;
    uint64_t content_left; /* of a returned message, which nobody wants to see: bytes of its body … */
    bool content_head;     /* … and its header is still to come */
    /* consuming */
    char queue[256];
    uint64_t taken, handled, acked; /* delivery tags: delivered; dealt with; and said so */
    bool keeps_acks;                /* nothing is acknowledged before the end */
    uint8_t *body;
    size_t body_len, body_cap;
};

static struct talk_amqp *of_talk(struct talk *t)
{
    return CONTAINER_OF(t, struct talk_amqp, talk);
}

static int no_stream(struct talk_amqp *a)
{
    return talk_fail(&a->talk, "%s is a queue, whose messages tail would take: see millrace sub --peek", a->queue);
}

/* What the wire says is what went wrong. */
static int wire_failed(struct talk_amqp *a)
{
    const char *hint = "";
    if (a->talk.options->stream_only && strstr(a->wire.socket.error, "x-stream-offset"))
        return no_stream(a);
    bool makes = !a->talk.options->create && !a->talk.options->stream_only; /* a stream is made otherwise */
    if (a->talk.options->name && makes && strstr(a->wire.socket.error, "404"))
        hint = " (--create makes it)";
    return talk_fail(&a->talk, "%s%s", a->wire.socket.error[0] ? a->wire.socket.error : "out of memory", hint);
}

/* ---- frames ---- */

/* 1: a frame; 0: none within wait_ms (negative: for ever). */
static int frame_next(struct talk_amqp *a, int64_t wait_ms, struct bench_frame *ret)
{
    struct os *os = os_posix();
    mono_t until = wait_ms < 0 ? MONO_NEVER : os->now_mono(os) + wait_ms * NS_PER_MS;
    for (;;) {
        int got = bench_wire_frame_next(&a->wire, ret);
        if (got < 0)
            return wire_failed(a);
        if (got > 0 && ret->type != BENCH_FRAME_HEARTBEAT)
            return 1;
        if (got > 0)
            continue;
        int64_t left = until == MONO_NEVER ? 0 : (until - os->now_mono(os)) / NS_PER_MS;
        if (until != MONO_NEVER && left <= 0)
            return 0;
        client_socket_patience(&a->wire.socket, (uint64_t)left);
        if (client_socket_fill(&a->wire.socket) < 0)
            return wire_failed(a);
    }
}

static struct reader arguments_of(const struct bench_frame *frame)
{
    return reader_of(slice_of(frame->payload + 4, frame->len - 4));
}

static uint64_t body_size_of(const struct bench_frame *frame)
{
    return frame->len >= 12 ? bench_get_u64(frame->payload + 4) : 0;
}

/* ---- opening ---- */

static struct talk *talk_open(const struct talk_options *o)
{
    struct talk_amqp *a = mem_zalloc(sizeof *a);
    struct bench_uri uri = {.port = o->port, .tls = o->tls, .external = talk_is_certified(o), .tls_options = o->tls};
    struct bench_wire_limits limits = {.channels = 1, .name = "millrace"};
    if (!a)
        return NULL;
    a->talk.protocol = &talk_amqp;
    a->talk.options = o;
    a->wire.socket.fd = -1;
    snprintf(uri.host, sizeof uri.host, "%s", o->host);
    const char *user = o->user ? o->user : "guest", *password = o->password ? o->password : "guest";
    if (strlen(user) >= sizeof uri.user || strlen(password) >= sizeof uri.password ||
        strlen(o->vhost) >= sizeof uri.vhost) {
        talk_fail(&a->talk, "user, password and vhost have at most 127 and 255 bytes here");
        return &a->talk;
    }
    snprintf(uri.user, sizeof uri.user, "%s", user);
    snprintf(uri.password, sizeof uri.password, "%s", password);
    snprintf(uri.vhost, sizeof uri.vhost, "%s", o->vhost);
    if (bench_wire_open(&a->wire, &uri, &limits) != 0)
        wire_failed(a);
    return &a->talk;
}

static void talk_close(struct talk *t)
{
    struct talk_amqp *a = of_talk(t);
    if (t->error[0])
        a->wire.open = false; /* it is not waited for the rest of a conversation that went wrong */
    bench_wire_close(&a->wire);
    mem_free(a->out);
    mem_free(a->body);
    mem_free(a);
}

#define ASK_BEGIN(name, method)                                                                                        \
    uint8_t name##_bytes[ASK_MAX];                                                                                     \
    struct bench_writer name = {.bytes = name##_bytes, .cap = sizeof name##_bytes};                                    \
    struct bench_frame name##_answer;                                                                                  \
    bench_put_method_begin(&name, 1, method)

static int ask(struct talk_amqp *a, struct bench_writer *out, enum bench_method answer, struct bench_frame *ret)
{
    client_socket_patience(&a->wire.socket, ANSWER_MS);
    return bench_wire_ask(&a->wire, out, answer, ret) == 0 ? 0 : wire_failed(a);
}

/* name empty: a queue of our own, which goes with the connection; its name is kept. */
static int declare(struct talk_amqp *a, const char *name)
{
    ASK_BEGIN(out, BENCH_QUEUE_DECLARE);
    bench_put_u16(&out, 0);
    bench_put_shortstr(&out, name);
    bench_put_u8(&out, *name ? 2 : 4 | 8); /* durable, or exclusive and auto-delete */
    bench_put_u32(&out, 0);
    if (ask(a, &out, BENCH_QUEUE_DECLARE_OK, &out_answer) != 0)
        return -1;
    struct reader r = arguments_of(&out_answer);
    struct slice told = reader_str8(&r);
    snprintf(a->queue, sizeof a->queue, "%.*s", SLICE_ARG(told));
    return 0;
}

/* ---- publishing ---- */

/* Members of amqp_props that are texts, and their names in JSON. */
static const struct {
    const char *name;
    uint16_t bit;
    size_t at;
} texts[] = {
    {"content_type", AMQP_CONTENT_TYPE, offsetof(struct amqp_props, content_type)},
    {"content_encoding", AMQP_CONTENT_ENCODING, offsetof(struct amqp_props, content_encoding)},
    {"correlation_id", AMQP_CORRELATION_ID, offsetof(struct amqp_props, correlation_id)},
    {"reply_to", AMQP_REPLY_TO, offsetof(struct amqp_props, reply_to)},
    {"expiration", AMQP_EXPIRATION, offsetof(struct amqp_props, expiration)},
    {"message_id", AMQP_MESSAGE_ID, offsetof(struct amqp_props, message_id)},
    {"type", AMQP_TYPE, offsetof(struct amqp_props, type)},
    {"user_id", AMQP_USER_ID, offsetof(struct amqp_props, user_id)},
    {"app_id", AMQP_APP_ID, offsetof(struct amqp_props, app_id)},
    {"cluster_id", AMQP_CLUSTER_ID, offsetof(struct amqp_props, cluster_id)},
};

static struct slice *text_at(struct amqp_props *props, size_t i)
{
    return (struct slice *)(void *)((char *)props + texts[i].at);
}

/* Persistent unless it is said otherwise: what is published by hand should be there tomorrow. */
static int props_from_json(struct talk_amqp *a, const json_t *json, struct writer *headers, struct amqp_props *ret)
{
    *ret = (struct amqp_props){.present = AMQP_DELIVERY_MODE, .delivery_mode = 2};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        const json_t *value = json_object_get(json, texts[i].name);
        if (!value || json_is_null(value))
            continue;
        if (!json_is_string(value) || json_string_length(value) > 255)
            return talk_fail(&a->talk, "the property %s is a text of at most 255 bytes", texts[i].name);
        ret->present |= texts[i].bit;
        *text_at(ret, i) = slice_of(json_string_value(value), json_string_length(value));
    }
    const json_t *mode = json_object_get(json, "delivery_mode"), *priority = json_object_get(json, "priority"),
                 *timestamp = json_object_get(json, "timestamp"), *table = json_object_get(json, "headers");
    if (mode)
        ret->delivery_mode = (uint8_t)json_integer_value(mode);
    if (priority) {
        ret->present |= AMQP_PRIORITY;
        ret->priority = (uint8_t)json_integer_value(priority);
    }
    if (timestamp) {
        ret->present |= AMQP_TIMESTAMP;
        ret->timestamp = (uint64_t)json_integer_value(timestamp);
    }
    if (json_object_size(table)) {
        if (!table_from_json(headers, table))
            return talk_fail(
                &a->talk,
                "the headers are no AMQP table: an object of texts, numbers, lists and objects, below 64 KiB");
        ret->present |= AMQP_HEADERS;
        ret->headers = writer_slice(headers);
    }
    return 0;
}

static int out_reserve(struct talk_amqp *a, size_t need)
{
    if (need <= a->out_cap)
        return 0;
    uint8_t *grown = mem_realloc(a->out, need);
    if (!grown)
        return talk_fail(&a->talk, "out of memory");
    a->out = grown;
    a->out_cap = need;
    return 0;
}

static void put_publish(struct talk_amqp *a, struct bench_writer *out, const char *exchange, const char *key,
                        const struct amqp_props *props, struct slice body)
{
    size_t piece = a->wire.frame_max - BENCH_FRAME_OVERHEAD;
    bench_put_method_begin(out, 1, BENCH_BASIC_PUBLISH);
    bench_put_u16(out, 0);
    bench_put_shortstr(out, exchange);
    bench_put_shortstr(out, key);
    bench_put_u8(out, 1); /* mandatory */
    bench_put_frame_end(out);
    bench_put_frame_begin(out, BENCH_FRAME_HEADER, 1);
    bench_put_u32(out, 60u << 16);
    bench_put_u64(out, body.len);
    struct writer w = writer_of(out->bytes + out->at, out->cap - out->at);
    amqp_props_write(&w, props);
    out->failed |= !writer_ok(&w);
    out->at += w.len;
    bench_put_frame_end(out);
    for (size_t at = 0; at < body.len; at += piece) {
        bench_put_frame_begin(out, BENCH_FRAME_BODY, 1);
        bench_put_bytes(out, body.ptr + at, body.len - at < piece ? body.len - at : piece);
        bench_put_frame_end(out);
    }
}

/* Marks what was confirmed and moves the window on. */
static void settled(struct talk_amqp *a, uint64_t tag, bool multiple, bool refused)
{
    uint64_t from = multiple ? a->base + 1 : tag;
    for (uint64_t i = from; i <= tag && i > a->base && i <= a->talk.published; i++) {
        a->talk.refused += refused && !a->confirmed[i % WINDOW];
        a->confirmed[i % WINDOW] = true;
    }
    while (a->base < a->talk.published && a->confirmed[(a->base + 1) % WINDOW])
        a->confirmed[++a->base % WINDOW] = false;
    if (a->base == a->talk.published)
        a->window_bytes = 0;
}

/* A frame that comes while we publish. */
static int on_answer(struct talk_amqp *a, const struct bench_frame *frame)
{
    if (frame->type == BENCH_FRAME_HEADER && a->content_head) {
        a->content_head = false;
        a->content_left = body_size_of(frame);
        return 0;
    }
    if (frame->type == BENCH_FRAME_BODY && frame->len <= a->content_left) {
        a->content_left -= frame->len;
        return 0;
    }
    if (frame->type != BENCH_FRAME_METHOD)
        return talk_fail(&a->talk, "the server sent a frame that nobody asked for");
    enum bench_method method = bench_frame_method(frame);
    if (method == BENCH_BASIC_RETURN) {
        a->talk.unrouted++;
        a->content_head = true;
        return 0;
    }
    if (method == BENCH_BASIC_ACK || method == BENCH_BASIC_NACK) {
        struct reader r = arguments_of(frame);
        uint64_t tag = reader_u64(&r);
        settled(a, tag ? tag : a->talk.published, reader_u8(&r) & 1, method == BENCH_BASIC_NACK);
        return 0;
    }
    return bench_wire_on_method(&a->wire, method, frame) == 0 ? 0 : wire_failed(a);
}

/* Waits until at most that many are unconfirmed. */
static int await_confirms(struct talk_amqp *a, uint64_t unconfirmed_max)
{
    struct bench_frame frame;
    while (a->talk.published - a->base > unconfirmed_max) {
        int got = frame_next(a, TALK_HELD_MS, &frame);
        if (got == 0) {
            talk_held(&a->talk, a->wire.blocked ? a->wire.blocked_why : NULL);
            got = frame_next(a, a->wire.blocked ? -1 : ANSWER_MS - TALK_HELD_MS, &frame);
        }
        if (got == 0)
            return talk_fail(&a->talk, "the server has not confirmed %llu messages within %d s",
                             (unsigned long long)(a->talk.published - a->base), BENCH_ANSWER_TIMEOUT_S);
        if (got < 0 || on_answer(a, &frame) != 0)
            return -1;
    }
    return 0;
}

static const char *text_of(const json_t *about, const char *name)
{
    return json_string_value(json_object_get(about, name));
}

static int publish_begin(struct talk_amqp *a)
{
    if (a->talk.published)
        return 0;
    const struct talk_options *o = a->talk.options;
    if (o->create && o->name && declare(a, o->name) != 0)
        return -1;
    client_socket_patience(&a->wire.socket, ANSWER_MS);
    return bench_wire_confirm_select(&a->wire) == 0 ? 0 : wire_failed(a);
}

static int talk_publish(struct talk *t, const struct talk_message *message)
{
    struct talk_amqp *a = of_talk(t);
    const struct talk_options *o = t->options;
    uint8_t table[HEADERS_MAX];
    struct writer headers = writer_of(table, sizeof table);
    struct amqp_props props;
    const char *exchange = o->exchange ? o->exchange : "", *key = o->exchange ? o->key : o->name;
    if (o->exchange && !key)
        key = text_of(message->about, "routing_key");
    if (props_from_json(a, json_object_get(message->about, "properties"), &headers, &props) != 0 ||
        publish_begin(a) != 0)
        return -1;
    size_t frames = message->body.len / (a->wire.frame_max - BENCH_FRAME_OVERHEAD) + 3;
    size_t need = METHOD_MAX + amqp_props_len_max(&props) + message->body.len + frames * BENCH_FRAME_OVERHEAD;
    if (out_reserve(a, need) != 0)
        return -1;
    struct bench_writer out = {.bytes = a->out, .cap = a->out_cap};
    put_publish(a, &out, exchange, key ? key : "", &props, message->body);
    if (out.failed)
        return talk_fail(t, "the name of the exchange or the key has more than 255 bytes");
    if (await_confirms(a, a->window_bytes + out.at > WINDOW_BYTES ? 0 : WINDOW - 1) != 0)
        return -1;
    t->published++;
    a->window_bytes += out.at;
    return client_socket_send(&a->wire.socket, out.bytes, out.at) == 0 ? 0 : wire_failed(a);
}

static int talk_flush(struct talk *t)
{
    return await_confirms(of_talk(t), 0);
}

/* ---- consuming ---- */

static int bind(struct talk_amqp *a)
{
    const struct talk_options *o = a->talk.options;
    if (declare(a, "") != 0)
        return -1;
    ASK_BEGIN(out, BENCH_QUEUE_BIND);
    bench_put_u16(&out, 0);
    bench_put_shortstr(&out, a->queue);
    bench_put_shortstr(&out, o->exchange);
    bench_put_shortstr(&out, o->key ? o->key : "#");
    bench_put_u8(&out, 0);
    bench_put_u32(&out, 0);
    return ask(a, &out, BENCH_QUEUE_BIND_OK, &out_answer);
}

/* first, last, next and intervals are texts, offsets numbers, times times. */
static void put_from(struct writer *w, const char *from)
{
    char *end;
    wall_t time;
    unsigned long long offset = strtoull(from, &end, 10);
    if (end != from && *end == '\0')
        amqp_put_long(w, "x-stream-offset", (int64_t)offset);
    else if (strchr(from, '-') && talk_time_parse(from, 0, &time))
        amqp_put_time(w, "x-stream-offset", (uint64_t)(time / 1000));
    else
        amqp_put_str(w, "x-stream-offset", slice_str(from));
}

static int consume(struct talk_amqp *a, const char *from)
{
    uint8_t bytes[400];
    struct writer arguments = writer_of(bytes, sizeof bytes);
    if (from)
        put_from(&arguments, from);
    if (a->talk.options->partition >= 0)
        amqp_put_long(&arguments, "x-stream-partition", a->talk.options->partition);
    ASK_BEGIN(out, BENCH_BASIC_CONSUME);
    bench_put_u16(&out, 0);
    bench_put_shortstr(&out, a->queue);
    bench_put_shortstr(&out, "c");
    bench_put_u8(&out, 0);
    bench_put_longstr(&out, bytes, arguments.len);
    out.failed |= !writer_ok(&arguments);
    return ask(a, &out, BENCH_BASIC_CONSUME_OK, &out_answer);
}

static int cancel(struct talk_amqp *a)
{
    struct bench_frame frame;
    uint8_t bytes[64];
    struct bench_writer out = {.bytes = bytes, .cap = sizeof bytes};
    bench_put_method_begin(&out, 1, BENCH_BASIC_CANCEL);
    bench_put_shortstr(&out, "c");
    bench_put_u8(&out, 0);
    bench_put_frame_end(&out);
    if (client_socket_send(&a->wire.socket, out.bytes, out.at) != 0)
        return wire_failed(a);
    for (;;) { /* what was delivered meanwhile is passed over: it is a stream, and comes again */
        int got = frame_next(a, ANSWER_MS, &frame);
        if (got <= 0)
            return got < 0 ? -1 : talk_fail(&a->talk, "the server does not answer");
        if (frame.type == BENCH_FRAME_METHOD && bench_frame_method(&frame) == BENCH_BASIC_CANCEL_OK)
            return 0;
    }
}

static int qos(struct talk_amqp *a, unsigned prefetch)
{
    client_socket_patience(&a->wire.socket, ANSWER_MS);
    return bench_wire_qos(&a->wire, (uint16_t)prefetch) == 0 ? 0 : wire_failed(a);
}

static int deliver_next(struct talk_amqp *a, int64_t wait_ms, struct talk_message *ret);

/* The last record says its offset; then it is begun so many before it. A stream with several partitions stays where it is: its
 * offsets are each partition's own. */
static int rewind_before_end(struct talk_amqp *a)
{
    struct talk_message message;
    if (qos(a, 1) != 0 || consume(a, "last") != 0 || deliver_next(a, -1, &message) <= 0)
        return -1;
    const json_t *offset = json_object_get(message.about, "offset");
    bool parted = json_object_get(message.about, "partition") && a->talk.options->partition < 0;
    int64_t last = json_integer_value(offset), before = (int64_t)a->talk.options->last - 1;
    bool is_stream = offset != NULL;
    json_decref(message.about);
    if (!is_stream)
        return no_stream(a);
    char from[24];
    snprintf(from, sizeof from, "%lld", (long long)(last > before ? last - before : 0));
    a->taken = a->handled = a->acked = 0;
    if (cancel(a) != 0 || qos(a, PREFETCH) != 0)
        return -1;
    return consume(a, parted ? "last" : from);
}

static int talk_subscribe(struct talk *t)
{
    struct talk_amqp *a = of_talk(t);
    const struct talk_options *o = t->options;
    if (o->exchange) {
        if (bind(a) != 0)
            return -1;
    } else {
        if (strlen(o->name) >= sizeof a->queue)
            return talk_fail(t, "the name of the queue has more than 255 bytes");
        snprintf(a->queue, sizeof a->queue, "%s", o->name);
        if (o->create && declare(a, o->name) != 0)
            return -1;
    }
    if (o->stream_only && !o->exchange && o->last && !o->from)
        return rewind_before_end(a);
    a->keeps_acks = o->count && o->count <= PREFETCH;
    if (qos(a, a->keeps_acks ? (unsigned)o->count : o->peek ? 0 : PREFETCH) != 0)
        return -1;
    return consume(a, o->from);
}

static int ack(struct talk_amqp *a)
{
    uint8_t bytes[64];
    struct bench_writer out = {.bytes = bytes, .cap = sizeof bytes};
    if (a->acked == a->handled || a->talk.options->peek)
        return 0;
    bench_put_method_begin(&out, 1, BENCH_BASIC_ACK);
    bench_put_u64(&out, a->handled);
    bench_put_u8(&out, 1); /* it and all before */
    bench_put_frame_end(&out);
    a->acked = a->handled;
    return client_socket_send(&a->wire.socket, out.bytes, out.at) == 0 ? 0 : wire_failed(a);
}

static json_t *props_to_json(const struct amqp_props *props)
{
    json_t *json = json_object();
    struct amqp_props copy = *props;
    for (size_t i = 0; json && i < ARRAY_LEN(texts); i++)
        if (props->present & texts[i].bit)
            json_object_set_new(json, texts[i].name, text_to_json(*text_at(&copy, i)));
    if (props->present & AMQP_DELIVERY_MODE)
        json_object_set_new(json, "delivery_mode", json_integer(props->delivery_mode));
    if (props->present & AMQP_PRIORITY)
        json_object_set_new(json, "priority", json_integer(props->priority));
    if (props->present & AMQP_TIMESTAMP)
        json_object_set_new(json, "timestamp", json_integer((json_int_t)props->timestamp));
    if (props->present & AMQP_HEADERS)
        json_object_set_new(json, "headers", table_to_json(props->headers));
    return json;
}

/* Place in a stream, which the broker says in headers. */
static void set_place(json_t *about, const struct amqp_props *props, const char *header, const char *name)
{
    struct amqp_value value;
    if (props->present & AMQP_HEADERS && amqp_table_find(props->headers, header, &value) && amqp_value_is_int(&value))
        json_object_set_new(about, name, json_integer(value.i));
}

/* The frame of basic.deliver → what it says, without properties. */
static json_t *about_delivery(struct talk_amqp *a, const struct bench_frame *frame)
{
    struct reader r = arguments_of(frame);
    (void)reader_str8(&r); /* consumer tag */
    a->taken = reader_u64(&r);
    bool redelivered = reader_u8(&r) & 1;
    struct slice exchange = reader_str8(&r), key = reader_str8(&r);
    json_t *about = reader_ok(&r) ? json_object() : NULL;
    if (about) {
        json_object_set_new(about, "exchange", text_to_json(exchange));
        json_object_set_new(about, "routing_key", text_to_json(key));
        json_object_set_new(about, "redelivered", json_boolean(redelivered));
    }
    return about;
}

static int take_header(struct talk_amqp *a, const struct bench_frame *frame, json_t *about, uint64_t *ret_size)
{
    struct amqp_props props;
    *ret_size = body_size_of(frame);
    if (frame->type != BENCH_FRAME_HEADER || frame->len < 12 ||
        !amqp_props_parse(slice_of(frame->payload + 12, frame->len - 12), &props))
        return talk_fail(&a->talk, "the server sent a message without a proper header");
    set_place(about, &props, "x-stream-partition", "partition");
    set_place(about, &props, "x-stream-offset", "offset");
    json_object_set_new(about, "properties", props_to_json(&props));
    if (*ret_size <= a->body_cap)
        return 0;
    uint8_t *grown = mem_realloc(a->body, *ret_size);
    if (!grown)
        return talk_fail(&a->talk, "out of memory for a message of %llu bytes", (unsigned long long)*ret_size);
    a->body = grown;
    a->body_cap = *ret_size;
    return 0;
}

/* Header and body of a delivery. */
static int take_content(struct talk_amqp *a, json_t *about)
{
    struct bench_frame frame;
    uint64_t size = 0;
    a->body_len = 0;
    int got = frame_next(a, ANSWER_MS, &frame);
    if (got > 0 && take_header(a, &frame, about, &size) != 0)
        return -1;
    while (got > 0 && a->body_len < size) {
        got = frame_next(a, ANSWER_MS, &frame);
        if (got <= 0)
            break;
        if (frame.type != BENCH_FRAME_BODY || frame.len > size - a->body_len)
            return talk_fail(&a->talk, "the server sent a body that is longer than it said");
        memcpy(a->body + a->body_len, frame.payload, frame.len);
        a->body_len += frame.len;
    }
    return got > 0 ? 0 : got < 0 ? -1 : talk_fail(&a->talk, "the server stopped within a message");
}

static int deliver_next(struct talk_amqp *a, int64_t wait_ms, struct talk_message *ret)
{
    struct bench_frame frame;
    for (;;) {
        int got = frame_next(a, wait_ms, &frame);
        if (got <= 0)
            return got;
        if (frame.type != BENCH_FRAME_METHOD)
            return talk_fail(&a->talk, "the server sent a frame that nobody asked for");
        if (bench_frame_method(&frame) == BENCH_BASIC_DELIVER)
            break;
        if (bench_wire_on_method(&a->wire, bench_frame_method(&frame), &frame) != 0)
            return wire_failed(a);
    }
    json_t *about = about_delivery(a, &frame);
    if (!about)
        return talk_fail(&a->talk, "the server sent a delivery that cannot be read");
    if (take_content(a, about) != 0) {
        json_decref(about);
        return -1;
    }
    *ret = (struct talk_message){.about = about, .body = slice_of(a->body, a->body_len)};
    return 1;
}

static int talk_next(struct talk *t, int64_t wait_ms, struct talk_message *ret)
{
    struct talk_amqp *a = of_talk(t);
    bool buffered = a->wire.socket.in_end > a->wire.socket.in_at;
    if (!buffered && !a->keeps_acks && ack(a) != 0)
        return -1;
    int got = deliver_next(a, wait_ms, ret);
    if (got == 1 && t->options->stream_only && !t->options->exchange && !json_object_get(ret->about, "offset")) {
        json_decref(ret->about);
        return no_stream(a);
    }
    return got;
}

/* It is said before we wait, or at the end. */
static int talk_done(struct talk *t)
{
    struct talk_amqp *a = of_talk(t);
    a->handled = a->taken;
    return a->handled - a->acked >= PREFETCH / 2 && !a->keeps_acks ? ack(a) : 0;
}

/* Nothing more is to be delivered when room is made by the last acknowledgement. */
static void stop_deliveries(struct talk_amqp *a)
{
    uint8_t bytes[64];
    struct bench_writer out = {.bytes = bytes, .cap = sizeof bytes};
    bench_put_method_begin(&out, 1, BENCH_BASIC_CANCEL);
    bench_put_shortstr(&out, "c");
    bench_put_u8(&out, 1); /* without an answer */
    bench_put_frame_end(&out);
    if (client_socket_send(&a->wire.socket, out.bytes, out.at) == 0)
        (void)ack(a);
}

static void talk_end(struct talk *t)
{
    struct talk_amqp *a = of_talk(t);
    if (!t->error[0] && a->queue[0] && !t->published)
        stop_deliveries(a);
    talk_close(t);
}

const struct talk_protocol talk_amqp = {
    .name = "amqp",
    .port = 5672,
    .tls_port = 5671,
    .open = talk_open,
    .publish = talk_publish,
    .flush = talk_flush,
    .subscribe = talk_subscribe,
    .next = talk_next,
    .done = talk_done,
    .close = talk_end,
};
