/* A server that does the least an AMQP server can do, to know what the load generator itself can do.
 *
 * One thread, level-triggered epoll. After each read it confirms everything published so far with one basic.ack
 * (multiple); consumers get slots of a pre-encoded delivery as long as they have credit and the socket takes them. It
 * answers every question the load generator asks and closes on anything else. It trusts its only clients, which live in
 * the same process, and still never reads past a frame.
 */
#include "sink.h"

#include "main/client/clock.h"
#include "template.h"
#include "wire.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { IN_BYTES = 256 * 1024, OUT_BYTES = 16 * 1024, CLIENTS_MAX = 4096, EVENTS_MAX = 64, PROTOCOL_BYTES = 8 };

struct client {
    struct bench_wire wire;
    bool greeted; /* the protocol header was read */
    bool writable_wanted;
    bool confirms;
    bool consuming;
    bool no_ack;
    uint64_t published;
    uint64_t confirmed;
    uint64_t prefetch;
    uint64_t delivered;
    uint64_t acked;
    struct bench_template deliveries;
    size_t deliver_at, deliver_end; /* the part of the slots still to be written */
    uint8_t out[OUT_BYTES];
    size_t out_at, out_end;
};

struct bench_sink {
    pthread_t thread;
    int listener;
    int epoll;
    int stop; /* eventfd */
    size_t body_bytes;
    uint32_t run_id;
    uint32_t consumer_count;
    uint64_t cpu_ns;
    unsigned client_count;
    struct client *clients[CLIENTS_MAX];
};

/* ---- answers ---- */

static struct bench_writer answer_begin(struct client *c, unsigned channel, enum bench_method method)
{
    if (c->out_at == c->out_end)
        c->out_at = c->out_end = 0;
    struct bench_writer w = {.bytes = c->out, .at = c->out_end, .cap = sizeof(c->out)};
    bench_put_method_begin(&w, channel, method);
    return w;
}

static int answer_end(struct client *c, struct bench_writer *w)
{
    bench_put_frame_end(w);
    if (w->failed)
        return -1;
    c->out_end = w->at;
    return 0;
}

static int answer_start(struct client *c)
{
    struct bench_writer w = answer_begin(c, 0, BENCH_CONNECTION_START);
    bench_put_u8(&w, 0);
    bench_put_u8(&w, 9);
    bench_put_u32(&w, 0); /* no server properties */
    bench_put_longstr(&w, "PLAIN", 5);
    bench_put_longstr(&w, "en_US", 5);
    return answer_end(c, &w);
}

static int answer_tune(struct client *c)
{
    struct bench_writer w = answer_begin(c, 0, BENCH_CONNECTION_TUNE);
    bench_put_u16(&w, 2047);
    bench_put_u32(&w, BENCH_FRAME_MAX);
    bench_put_u16(&w, 0);
    return answer_end(c, &w);
}

static int answer_declare_ok(struct client *c, const struct bench_frame *f)
{
    struct bench_writer w = answer_begin(c, f->channel, BENCH_QUEUE_DECLARE_OK);
    if (f->len < 7 || f->len - 7u < f->payload[6])
        return -1;
    bench_put_bytes(&w, f->payload + 6, f->payload[6] + 1u);
    bench_put_u32(&w, 0);
    bench_put_u32(&w, 0);
    return answer_end(c, &w);
}

static int answer_consume_ok(struct bench_sink *s, struct client *c, const struct bench_frame *f)
{
    const uint8_t *end = f->payload + f->len;
    const uint8_t *tag = f->payload + 6;
    if (tag >= end)
        return -1;
    tag += tag[0] + 1u;
    if (tag >= end || tag + tag[0] + 1u >= end)
        return -1;
    struct bench_writer w = answer_begin(c, f->channel, BENCH_BASIC_CONSUME_OK);
    bench_put_bytes(&w, tag, tag[0] + 1u);
    if (answer_end(c, &w) != 0 || c->consuming)
        return -1;
    c->no_ack = (tag[tag[0] + 1u] & 2) != 0;
    c->consuming = true;
    struct bench_template_body body = {.body_bytes = s->body_bytes,
                                       .frame_max = c->wire.frame_max,
                                       .run_id = s->run_id,
                                       .producer = s->consumer_count++};
    return bench_template_deliver(&c->deliveries, &body);
}

/* Answers that carry nothing but zeros. */
static const struct {
    enum bench_method asked, answer;
    unsigned zero_bytes;
} PLAIN_ANSWERS[] = {
    {BENCH_CONNECTION_OPEN, BENCH_CONNECTION_OPEN_OK, 1},
    {BENCH_CONNECTION_CLOSE, BENCH_CONNECTION_CLOSE_OK, 0},
    {BENCH_CHANNEL_OPEN, BENCH_CHANNEL_OPEN_OK, 4},
    {BENCH_CHANNEL_CLOSE, BENCH_CHANNEL_CLOSE_OK, 0},
    {BENCH_QUEUE_PURGE, BENCH_QUEUE_PURGE_OK, 4},
    {BENCH_QUEUE_DELETE, BENCH_QUEUE_DELETE_OK, 4},
    {BENCH_BASIC_QOS, BENCH_BASIC_QOS_OK, 0},
    {BENCH_CONFIRM_SELECT, BENCH_CONFIRM_SELECT_OK, 0},
    {BENCH_BASIC_GET, BENCH_BASIC_GET_EMPTY, 1},
};

static int answer_plain(struct client *c, enum bench_method method, const struct bench_frame *f)
{
    for (unsigned i = 0; i < sizeof(PLAIN_ANSWERS) / sizeof(PLAIN_ANSWERS[0]); i++) {
        if (PLAIN_ANSWERS[i].asked != method)
            continue;
        struct bench_writer w = answer_begin(c, f->channel, PLAIN_ANSWERS[i].answer);
        for (unsigned n = 0; n < PLAIN_ANSWERS[i].zero_bytes; n++)
            bench_put_u8(&w, 0);
        return answer_end(c, &w);
    }
    return -1;
}

static int on_method(struct bench_sink *s, struct client *c, const struct bench_frame *f)
{
    enum bench_method method = bench_frame_method(f);
    switch (method) {
    case BENCH_BASIC_PUBLISH: c->published++; return 0;
    case BENCH_BASIC_ACK:
        if (f->len < 13)
            return -1;
        /* With multiple one ack stands for all before it; single acks come in order from our own consumer. */
        c->acked = bench_get_u64(f->payload + 4);
        return 0;
    case BENCH_CONNECTION_START_OK: return answer_tune(c);
    case BENCH_CONNECTION_TUNE_OK:
        if (f->len < 12)
            return -1;
        c->wire.frame_max = bench_get_u32(f->payload + 6);
        return c->wire.frame_max < 4096 || c->wire.frame_max > BENCH_FRAME_MAX ? -1 : 0;
    case BENCH_QUEUE_DECLARE: return answer_declare_ok(c, f);
    case BENCH_BASIC_CONSUME: return answer_consume_ok(s, c, f);
    case BENCH_BASIC_QOS:
        if (f->len < 11)
            return -1;
        c->prefetch = bench_get_u16(f->payload + 8);
        return answer_plain(c, method, f);
    case BENCH_CONNECTION_CLOSE: c->consuming = false; return answer_plain(c, method, f);
    case BENCH_CONFIRM_SELECT: c->confirms = true; return answer_plain(c, method, f);
    default: return answer_plain(c, method, f);
    }
}

/* ---- one client ---- */

static int client_read(struct bench_sink *s, struct client *c)
{
    struct bench_frame f;
    int got;
    if (client_socket_fill(&c->wire.socket) < 0)
        return -1;
    if (!c->greeted) {
        if (c->wire.socket.in_end < PROTOCOL_BYTES)
            return 0;
        c->wire.socket.in_at = PROTOCOL_BYTES;
        c->greeted = true;
        if (answer_start(c) != 0)
            return -1;
    }
    while ((got = bench_wire_frame_next(&c->wire, &f)) > 0)
        if (f.type == BENCH_FRAME_METHOD && on_method(s, c, &f) != 0)
            return -1;
    if (got < 0)
        return -1;
    if (!c->confirms || c->confirmed == c->published || c->out_end > OUT_BYTES / 2)
        return 0;
    struct bench_writer w = answer_begin(c, 1, BENCH_BASIC_ACK);
    bench_put_u64(&w, c->published);
    bench_put_u8(&w, 1);
    c->confirmed = c->published;
    return answer_end(c, &w);
}

/* Answers 1 when the socket took everything, 0 when it is full, -1 when it is gone. */
static int write_range(struct client *c, const uint8_t *bytes, size_t *at, size_t end)
{
    while (*at < end) {
        ssize_t n = send(c->wire.socket.fd, bytes + *at, end - *at, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN ? 0 : -1;
        *at += (size_t)n;
    }
    return 1;
}

static size_t deliverable(const struct client *c)
{
    if (!c->consuming)
        return 0;
    size_t most = c->deliveries.slot_count;
    if (c->no_ack || c->prefetch == 0)
        return most;
    uint64_t credit = c->prefetch - (c->delivered - c->acked);
    return credit < most ? (size_t)credit : most;
}

static void deliver(struct client *c, size_t count)
{
    struct bench_template *t = &c->deliveries;
    uint64_t now_ns = client_clock_ns();
    for (size_t i = 0; i < count; i++) {
        c->delivered++;
        bench_set_u64(t->slots + i * t->slot_len + t->tag_at, c->delivered);
        bench_template_stamp(t, i, c->delivered, now_ns);
    }
    c->deliver_at = 0;
    c->deliver_end = count * t->slot_len;
}

/* Answers go between whole deliveries only. */
static int client_write(struct client *c)
{
    int done = write_range(c, c->deliveries.slots, &c->deliver_at, c->deliver_end);
    if (done > 0)
        done = write_range(c, c->out, &c->out_at, c->out_end);
    if (done > 0 && deliverable(c) > 0) {
        deliver(c, deliverable(c));
        done = write_range(c, c->deliveries.slots, &c->deliver_at, c->deliver_end);
    }
    return done < 0 ? -1 : 0;
}

static void client_free(struct bench_sink *s, struct client *c)
{
    for (unsigned i = 0; i < s->client_count; i++)
        if (s->clients[i] == c)
            s->clients[i] = s->clients[--s->client_count];
    close(c->wire.socket.fd);
    bench_template_fini(&c->deliveries);
    free(c->wire.socket.in);
    free(c);
}

static void client_watch(struct bench_sink *s, struct client *c, int operation)
{
    bool wanted = c->out_at < c->out_end || c->deliver_at < c->deliver_end || deliverable(c) > 0;
    if (operation == EPOLL_CTL_MOD && wanted == c->writable_wanted)
        return;
    c->writable_wanted = wanted;
    struct epoll_event e = {.events = EPOLLIN | (wanted ? EPOLLOUT : 0u), .data.ptr = c};
    epoll_ctl(s->epoll, operation, c->wire.socket.fd, &e);
}

static void client_accept(struct bench_sink *s)
{
    int fd = accept4(s->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    struct client *c = s->client_count < CLIENTS_MAX ? calloc(1, sizeof(*c)) : NULL;
    uint8_t *in = c != NULL ? malloc(IN_BYTES) : NULL;
    if (in == NULL) {
        free(c);
        close(fd);
        return;
    }
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    c->wire.socket.fd = fd;
    c->wire.socket.in = in;
    c->wire.socket.in_cap = IN_BYTES;
    c->wire.frame_max = BENCH_FRAME_MAX;
    s->clients[s->client_count++] = c;
    client_watch(s, c, EPOLL_CTL_ADD);
}

/* ---- thread ---- */

static void *sink_thread(void *arg)
{
    struct bench_sink *s = arg;
    struct epoll_event events[EVENTS_MAX];
    for (;;) {
        int n = epoll_wait(s->epoll, events, EVENTS_MAX, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr == &s->stop) {
                s->cpu_ns = client_clock_cpu_ns();
                return NULL;
            }
            if (events[i].data.ptr == &s->listener) {
                client_accept(s);
                continue;
            }
            struct client *c = events[i].data.ptr;
            int failed = (events[i].events & ~(uint32_t)EPOLLOUT) != 0 ? client_read(s, c) : 0;
            if (failed != 0 || client_write(c) != 0)
                client_free(s, c);
            else
                client_watch(s, c, EPOLL_CTL_MOD);
        }
    }
}

static int sink_listen(struct bench_sink *s, unsigned *ret_port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t address_len = sizeof(address);
    s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s->listener < 0 || bind(s->listener, (struct sockaddr *)&address, address_len) != 0 ||
        listen(s->listener, 1024) != 0 || getsockname(s->listener, (struct sockaddr *)&address, &address_len) != 0)
        return -1;
    *ret_port = ntohs(address.sin_port);
    return 0;
}

static void sink_free(struct bench_sink *s)
{
    while (s->client_count > 0)
        client_free(s, s->clients[0]);
    if (s->listener >= 0)
        close(s->listener);
    if (s->epoll >= 0)
        close(s->epoll);
    if (s->stop >= 0)
        close(s->stop);
    free(s);
}

struct bench_sink *bench_sink_start(size_t body_bytes, uint32_t run_id, unsigned *ret_port, char *error,
                                    size_t error_cap)
{
    struct bench_sink *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        snprintf(error, error_cap, "out of memory");
        return NULL;
    }
    s->body_bytes = body_bytes;
    s->run_id = run_id;
    s->listener = -1;
    s->epoll = epoll_create1(EPOLL_CLOEXEC);
    s->stop = eventfd(0, EFD_CLOEXEC);
    struct epoll_event on_listener = {.events = EPOLLIN, .data.ptr = &s->listener};
    struct epoll_event on_stop = {.events = EPOLLIN, .data.ptr = &s->stop};
    if (s->epoll < 0 || s->stop < 0 || sink_listen(s, ret_port) != 0 ||
        epoll_ctl(s->epoll, EPOLL_CTL_ADD, s->listener, &on_listener) != 0 ||
        epoll_ctl(s->epoll, EPOLL_CTL_ADD, s->stop, &on_stop) != 0 ||
        pthread_create(&s->thread, NULL, sink_thread, s) != 0) {
        snprintf(error, error_cap, "cannot start the sink: %s", strerror(errno));
        sink_free(s);
        return NULL;
    }
    return s;
}

void bench_sink_stop(struct bench_sink *s, uint64_t *ret_cpu_ns)
{
    uint64_t one = 1;
    if (write(s->stop, &one, sizeof(one)) != (ssize_t)sizeof(one))
        abort();
    pthread_join(s->thread, NULL);
    if (ret_cpu_ns != NULL)
        *ret_cpu_ns = s->cpu_ns;
    sink_free(s);
}
