/* `millrace pub`, `sub` and `tail` over STOMP 1.2, see talk.h. Frames are parsed by proto/stomp, which is pure functions; the socket is
 * the load generator's.
 *
 * Every SEND asks for a receipt, which says that the broker has the message; where it went to, STOMP does not say. Messages are
 * acknowledged one by one, and the farewell waits until the broker has heard of it. */
#include "main/talk/talk.h"

#include "admin/table_json.h"
#include "base/mem.h"
#include "main/client/socket.h"
#include "os/os.h"
#include "proto/stomp/frame.h"

#include <stdio.h>
#include <stdlib.h>

#define ANSWER_MS (BENCH_ANSWER_TIMEOUT_S * 1000)
#define WINDOW 256u
#define WINDOW_BYTES (256u * 1024)
#define PREFETCH 100u
#define IN_BYTES (64u * 1024)
#define HEAD_MAX (64u * 1024)
#define BODY_MAX (512u << 20)

struct talk_stomp {
    struct talk talk; /* first */
    struct client_socket socket;
    struct stomp_parser parser;
    struct stomp_frame frame;
    bool frame_held, is_open, subscribed;
    uint64_t receipts; /* that are waited for */
    size_t window_bytes;
    uint8_t *out;
    size_t out_cap;
    char ack[256]; /* of the message that was given out */
};

static struct talk_stomp *of_talk(struct talk *t)
{
    return CONTAINER_OF(t, struct talk_stomp, talk);
}

static int socket_failed(struct talk_stomp *s)
{
    return talk_fail(&s->talk, "%s", s->socket.error[0] ? s->socket.error : "out of memory");
}

/* ---- frames out ---- */

static void put_text(struct writer *w, const char *text)
{
    writer_slice_put(w, slice_str(text));
}

static void put_header(struct writer *w, struct slice name, struct slice value)
{
    uint8_t *at = writer_room(w, stomp_escaped_len(name, STOMP_12) + 1 + stomp_escaped_len(value, STOMP_12) + 1);
    if (!at)
        return;
    at = stomp_put_escaped(at, name, STOMP_12);
    *at++ = ':';
    at = stomp_put_escaped(at, value, STOMP_12);
    *at = '\n';
}

static void put_pair(struct writer *w, const char *name, const char *value)
{
    put_header(w, slice_str(name), slice_str(value));
}

static int send_frame(struct talk_stomp *s, struct writer *w, struct slice body)
{
    put_text(w, "\n");
    writer_slice_put(w, body);
    writer_u8(w, 0);
    if (!writer_ok(w))
        return talk_fail(&s->talk, "names and headers have more than 64 KiB");
    return client_socket_send(&s->socket, w->base, w->len) == 0 ? 0 : socket_failed(s);
}

/* A frame whose body has at most that many bytes begins in `out`. */
static bool begin(struct talk_stomp *s, struct writer *w, const char *command, size_t body_len)
{
    size_t need = HEAD_MAX + body_len + 2;
    if (need > s->out_cap) {
        uint8_t *grown = mem_realloc(s->out, need);
        if (!grown)
            return talk_fail(&s->talk, "out of memory") == 0;
        s->out = grown;
        s->out_cap = need;
    }
    *w = writer_of(s->out, s->out_cap);
    put_text(w, command);
    put_text(w, "\n");
    return true;
}

/* ---- frames in ---- */

static void release(struct talk_stomp *s)
{
    if (s->frame_held)
        stomp_frame_release(&s->frame);
    s->frame_held = false;
}

static bool is_command(const struct talk_stomp *s, const char *command)
{
    return slice_is(s->frame.command, command);
}

/* What the server says is wrong, on one line. */
static int on_error(struct talk_stomp *s)
{
    struct slice message = slice_str("error");
    char detail[300];
    (void)stomp_header_find(&s->frame, "message", &message);
    snprintf(detail, sizeof detail, "%.*s",
             (int)(s->frame.body.len < sizeof detail ? s->frame.body.len : sizeof detail - 1),
             (const char *)s->frame.body.ptr);
    for (char *c = detail; *c; c++)
        *c = *c == '\n' || *c == '\r' ? ' ' : *c;
    for (size_t len = strlen(detail); len && detail[len - 1] == ' '; len--)
        detail[len - 1] = '\0';
    s->is_open = false;
    return talk_fail(&s->talk, "the server says: %.*s%s%s", SLICE_ARG(message), *detail ? ": " : "", detail);
}

/* 1: a frame is held; 0: none came within wait_ms (negative: for ever). */
static int frame_next(struct talk_stomp *s, int64_t wait_ms)
{
    static const struct stomp_limits limits = {.head_bytes_max = HEAD_MAX, .body_bytes_max = BODY_MAX};
    struct os *os = os_posix();
    struct client_socket *in = &s->socket;
    mono_t until = wait_ms < 0 ? MONO_NEVER : os->now_mono(os) + wait_ms * NS_PER_MS;
    release(s);
    for (;;) {
        size_t used = 0;
        const char *why = "";
        enum stomp_parsed parsed = in->in_end > in->in_at
                                       ? stomp_parse(&s->parser, slice_of(in->in + in->in_at, in->in_end - in->in_at),
                                                     STOMP_12, &limits, &s->frame, &used, &why)
                                       : STOMP_PARSED_MORE;
        in->in_at += used;
        if (parsed == STOMP_PARSED_FRAME) {
            s->frame_held = true;
            return is_command(s, "ERROR") ? on_error(s) : 1;
        }
        if (parsed == STOMP_PARSED_EOL)
            continue;
        if (parsed != STOMP_PARSED_MORE)
            return talk_fail(&s->talk, "the server sent something that is not STOMP: %s", why);
        if (in->in_at == 0 && in->in_end == in->in_cap && client_socket_reserve(in, in->in_cap * 2) != 0)
            return socket_failed(s);
        int64_t left = until == MONO_NEVER ? 0 : (until - os->now_mono(os)) / NS_PER_MS;
        if (until != MONO_NEVER && left <= 0)
            return 0;
        client_socket_patience(in, (uint64_t)left);
        if (client_socket_fill(in) < 0)
            return socket_failed(s);
    }
}

/* ---- opening ---- */

static int login(struct talk_stomp *s)
{
    const struct talk_options *o = s->talk.options;
    struct writer w;
    if (!begin(s, &w, "CONNECT", 0))
        return -1;
    put_text(&w, "accept-version:1.2\nheart-beat:0,0\nhost:"); /* no escapes in this frame */
    put_text(&w, o->vhost);
    if (!talk_is_certified(o)) {
        put_text(&w, "\nlogin:");
        put_text(&w, o->user ? o->user : "guest");
        put_text(&w, "\npasscode:");
        put_text(&w, o->password ? o->password : "guest");
    }
    put_text(&w, "\n");
    if (send_frame(s, &w, slice_of(NULL, 0)) != 0)
        return -1;
    int got = frame_next(s, ANSWER_MS);
    if (got <= 0)
        return got < 0
                   ? -1
                   : talk_fail(
                         &s->talk,
                         "no answer within %d s: is this a STOMP listener, and with TLS if and only if --tls is said?",
                         BENCH_ANSWER_TIMEOUT_S);
    s->is_open = is_command(s, "CONNECTED");
    return s->is_open ? 0 : talk_fail(&s->talk, "the server did not say CONNECTED");
}

static struct talk *talk_open(const struct talk_options *o)
{
    struct talk_stomp *s = mem_zalloc(sizeof *s);
    if (!s)
        return NULL;
    s->talk.protocol = &talk_stomp;
    s->talk.options = o;
    s->socket.fd = -1;
    if (talk_connect(&s->socket, o) != 0 || client_socket_reserve(&s->socket, IN_BYTES) != 0)
        socket_failed(s);
    else
        (void)login(s);
    return &s->talk;
}

/* Slashes within a name are no separators. */
static void put_name(struct writer *w, const char *name)
{
    for (; *name; name++) {
        if (*name == '/' || *name == '%')
            put_text(w, *name == '/' ? "%2F" : "%25");
        else
            writer_u8(w, (uint8_t)*name);
    }
}

/* /amq/queue/NAME is a queue that is there, /queue/NAME one that is made. */
static int destination_of(struct talk_stomp *s, char *ret, size_t len)
{
    const struct talk_options *o = s->talk.options;
    struct writer w = writer_of(ret, len - 1);
    put_text(&w, o->exchange ? "/exchange/" : o->create ? "/queue/" : "/amq/queue/");
    put_name(&w, o->exchange ? o->exchange : o->name);
    if (o->exchange && o->key) {
        put_text(&w, "/");
        put_name(&w, o->key);
    }
    ret[w.len] = '\0';
    return writer_ok(&w) ? 0 : talk_fail(&s->talk, "the destination is too long");
}

/* ---- publishing ---- */

/* Properties that have a header of their own in STOMP. */
static const struct {
    const char *property, *header;
} names[] = {
    {"content_type", "content-type"},
    {"content_encoding", "content-encoding"},
    {"correlation_id", "correlation-id"},
    {"reply_to", "reply-to"},
    {"expiration", "expiration"},
    {"message_id", "amqp-message-id"},
    {"timestamp", "timestamp"},
    {"type", "type"},
    {"user_id", "user-id"},
    {"app_id", "app-id"},
    {"priority", "priority"},
};

static int put_value(struct talk_stomp *s, struct writer *w, const char *name, const json_t *value)
{
    char number[32];
    snprintf(number, sizeof number, "%lld", (long long)json_integer_value(value));
    if (json_is_string(value))
        put_header(w, slice_str(name), slice_of(json_string_value(value), json_string_length(value)));
    else if (json_is_integer(value) || json_is_boolean(value))
        put_pair(w, name, json_is_true(value) ? "true" : json_is_false(value) ? "false" : number);
    else if (!json_is_null(value))
        return talk_fail(&s->talk, "headers of STOMP are texts, and %s is none", name);
    return 0;
}

static int put_properties(struct talk_stomp *s, struct writer *w, const json_t *properties)
{
    const json_t *mode = json_object_get(properties, "delivery_mode");
    const char *name;
    json_t *value;
    put_pair(w, "persistent", mode && json_integer_value(mode) == 1 ? "false" : "true");
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if ((value = json_object_get(properties, names[i].property)) && put_value(s, w, names[i].header, value) != 0)
            return -1;
    json_object_foreach(json_object_get(properties, "headers"), name, value)
    {
        if (put_value(s, w, name, value) != 0)
            return -1;
    }
    return 0;
}

static int await_receipts(struct talk_stomp *s, uint64_t left_max)
{
    while (s->receipts > left_max) {
        int got = frame_next(s, TALK_HELD_MS);
        if (got == 0) {
            talk_held(&s->talk, NULL);
            got = frame_next(s, ANSWER_MS - TALK_HELD_MS);
        }
        if (got == 0)
            return talk_fail(&s->talk, "the server has not confirmed %llu messages within %d s",
                             (unsigned long long)s->receipts, BENCH_ANSWER_TIMEOUT_S);
        if (got < 0)
            return -1;
        s->receipts -=
            is_command(s, "RECEIPT"); /* what else comes is a message on its way that nobody wants any more */
    }
    s->window_bytes = 0;
    return 0;
}

static int talk_publish(struct talk *t, const struct talk_message *message)
{
    struct talk_stomp *s = of_talk(t);
    char destination[1024], number[32];
    struct writer w;
    if (destination_of(s, destination, sizeof destination) != 0 ||
        await_receipts(s, s->window_bytes + message->body.len > WINDOW_BYTES ? 0 : WINDOW - 1) != 0 ||
        !begin(s, &w, "SEND", message->body.len))
        return -1;
    put_pair(&w, "destination", destination);
    snprintf(number, sizeof number, "%llu", (unsigned long long)t->published + 1);
    put_pair(&w, "receipt", number);
    snprintf(number, sizeof number, "%zu", message->body.len);
    put_pair(&w, "content-length", number);
    if (put_properties(s, &w, json_object_get(message->about, "properties")) != 0 ||
        send_frame(s, &w, message->body) != 0)
        return -1;
    s->receipts++;
    s->window_bytes += message->body.len + HEAD_MAX / 64;
    t->published++;
    return 0;
}

static int talk_flush(struct talk *t)
{
    return await_receipts(of_talk(t), 0);
}

/* ---- reading ---- */

/* As RabbitMQ's STOMP has it. */
static bool put_from(struct writer *w, const char *from)
{
    char text[64], *end;
    wall_t time;
    unsigned long long offset = strtoull(from, &end, 10);
    if (strcmp(from, "first") == 0 || strcmp(from, "last") == 0 || strcmp(from, "next") == 0)
        snprintf(text, sizeof text, "%s", from);
    else if (end != from && *end == '\0')
        snprintf(text, sizeof text, "offset=%llu", offset);
    else if (talk_time_parse(from, os_posix()->now_wall(os_posix()), &time))
        snprintf(text, sizeof text, "timestamp=%lld", (long long)(time / 1000));
    else
        return false;
    put_pair(w, "x-stream-offset", text);
    return true;
}

static int talk_subscribe(struct talk *t)
{
    struct talk_stomp *s = of_talk(t);
    const struct talk_options *o = t->options;
    char destination[1024], number[32];
    struct writer w;
    if (o->stream_only && !o->exchange && !o->from)
        return talk_fail(
            t, "over STOMP a stream has to be begun somewhere: --from first, last, next, an offset or an interval");
    if (destination_of(s, destination, sizeof destination) != 0 || !begin(s, &w, "SUBSCRIBE", 0))
        return -1;
    snprintf(number, sizeof number, "%u", o->count && o->count < PREFETCH ? (unsigned)o->count : PREFETCH);
    put_pair(&w, "id", "0");
    put_pair(&w, "destination", destination);
    put_pair(&w, "ack", "client-individual");
    put_pair(&w, "prefetch-count", number);
    if (o->from && !put_from(&w, o->from))
        return talk_fail(t, "%s is not first, last, next, an offset, a time or an interval", o->from);
    s->subscribed = true;
    return send_frame(s, &w, slice_of(NULL, 0));
}

static long long number_of(struct slice digits)
{
    char text[24];
    snprintf(text, sizeof text, "%.*s", SLICE_ARG(digits));
    return strtoll(text, NULL, 10);
}

static json_t *about_message(const struct talk_stomp *s)
{
    json_t *about = json_object(), *properties = json_object(), *headers = json_object();
    for (uint32_t i = 0; i < s->frame.header_count; i++) {
        char name[256];
        struct slice value = s->frame.headers[i].value;
        size_t k = 0;
        snprintf(name, sizeof name, "%.*s", SLICE_ARG(s->frame.headers[i].name));
        while (k < ARRAY_LEN(names) && strcmp(names[k].header, name) != 0)
            k++;
        if (strcmp(name, "destination") == 0)
            json_object_set_new(about, name, text_to_json(value));
        else if (strcmp(name, "redelivered") == 0)
            json_object_set_new(about, name, json_boolean(slice_is(value, "true")));
        else if (strcmp(name, "x-stream-offset") == 0)
            json_object_set_new(about, "offset", json_integer(number_of(value)));
        else if (strcmp(name, "persistent") == 0)
            json_object_set_new(properties, "delivery_mode", json_integer(slice_is(value, "true") ? 2 : 1));
        else if (k < ARRAY_LEN(names))
            json_object_set_new(properties, names[k].property, text_to_json(value));
        else if (strcmp(name, "subscription") != 0 && strcmp(name, "message-id") != 0 && strcmp(name, "ack") != 0 &&
                 strcmp(name, "content-length") != 0)
            json_object_set_new(headers, name, text_to_json(value));
    }
    if (json_object_size(headers))
        json_object_set(properties, "headers", headers);
    json_decref(headers);
    json_object_set_new(about, "properties", properties);
    return about;
}

static int talk_next(struct talk *t, int64_t wait_ms, struct talk_message *ret)
{
    struct talk_stomp *s = of_talk(t);
    struct slice ack;
    int got = frame_next(s, wait_ms);
    if (got <= 0)
        return got;
    if (!is_command(s, "MESSAGE") || !stomp_header_find(&s->frame, "ack", &ack) || ack.len >= sizeof s->ack)
        return talk_fail(t, "the server sent a frame that nobody asked for");
    snprintf(s->ack, sizeof s->ack, "%.*s", SLICE_ARG(ack));
    *ret = (struct talk_message){.about = about_message(s), .body = s->frame.body};
    return 1;
}

static int talk_done(struct talk *t)
{
    struct talk_stomp *s = of_talk(t);
    struct writer w;
    if (t->options->peek)
        return 0;
    if (!begin(s, &w, "ACK", 0))
        return -1;
    put_pair(&w, "id", s->ack);
    return send_frame(s, &w, slice_of(NULL, 0));
}

/* The server has heard everything when it answers this. Who published knows that already, and may be held back. */
static void say_goodbye(struct talk_stomp *s)
{
    struct writer w;
    if (!begin(s, &w, "DISCONNECT", 0))
        return;
    if (s->subscribed) {
        put_pair(&w, "receipt", "bye");
        s->receipts++;
    }
    if (send_frame(s, &w, slice_of(NULL, 0)) == 0)
        (void)await_receipts(s, 0);
}

static void talk_close(struct talk *t)
{
    struct talk_stomp *s = of_talk(t);
    if (s->is_open && !t->error[0])
        say_goodbye(s);
    release(s);
    client_socket_close(&s->socket);
    mem_free(s->out);
    mem_free(s);
}

const struct talk_protocol talk_stomp = {
    .name = "stomp",
    .port = 61613,
    .tls_port = 61614,
    .open = talk_open,
    .publish = talk_publish,
    .flush = talk_flush,
    .subscribe = talk_subscribe,
    .next = talk_next,
    .done = talk_done,
    .close = talk_close,
};
