/* See client_socket.h. Input is one flat buffer: one read fills it, the caller parses in place, an incomplete tail moves to
 * the front before the next read, so parsing never needs a second copy. */
#include "socket.h"

#include "clock.h"
#include "net/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define FILL_MAX (256u * 1024) /* of one fill */

int client_socket_fail(struct client_socket *s, const char *format, ...)
{
    va_list args;
    if (s->error[0] != '\0')
        return -1;
    va_start(args, format);
    vsnprintf(s->error, sizeof(s->error), format, args);
    va_end(args);
    return -1;
}

int client_socket_connect(struct client_socket *s, const char *host, unsigned port)
{
    char text[8];
    snprintf(text, sizeof(text), "%u", port);
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *found;
    int problem = getaddrinfo(host, text, &hints, &found);
    if (problem != 0)
        return client_socket_fail(s, "cannot find host %s: %s", host, gai_strerror(problem));
    int why = 0;
    for (struct addrinfo *a = found; a != NULL && s->fd < 0; a = a->ai_next) {
        s->fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
        if (s->fd >= 0 && connect(s->fd, a->ai_addr, a->ai_addrlen) == 0)
            break;
        why = errno;
        if (s->fd >= 0)
            close(s->fd);
        s->fd = -1;
    }
    freeaddrinfo(found);
    if (s->fd < 0)
        return client_socket_fail(s, "cannot connect to %s port %u: %s", host, port, strerror(why));
    s->blocking = true;
    int on = 1;
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    s->patience_ms = BENCH_ANSWER_TIMEOUT_S * 1000;
    struct timeval timeout = {.tv_sec = BENCH_ANSWER_TIMEOUT_S};
    setsockopt(s->fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    return 0;
}

/* ---- TLS, the broker's own code (net/tls.h): what takes the time in it is OpenSSL ---- */

static int64_t pipe_recv(void *arg, void *ret, size_t len)
{
    struct client_socket *s = arg;
    ssize_t n = recv(s->fd, ret, len, MSG_DONTWAIT);
    return n < 0 ? -errno : n;
}

static int64_t pipe_send(void *arg, const void *bytes, size_t len)
{
    struct client_socket *s = arg;
    ssize_t n = send(s->fd, bytes, len, MSG_NOSIGNAL);
    return n < 0 ? -errno : n;
}

/* TLS reads what is there, of which it cannot be told when to stop: a record comes in several reads, and behind it may be
 * nothing. So who blocks does it here, and only with nothing in hand. False: as long as it was let, in vain. */
static bool wait_for_bytes(const struct client_socket *s)
{
    struct pollfd ready = {.fd = s->fd, .events = POLLIN};
    int wait = s->patience_ms == 0 || s->patience_ms > INT_MAX ? -1 : (int)s->patience_ms;
    return poll(&ready, 1, wait) != 0; /* interrupted: another look does no harm */
}

int client_socket_tls(struct client_socket *s, const char *host, const struct tls_client_options *options)
{
    char why[500];
    struct tls_client_options client = options ? *options : (struct tls_client_options){.trust = TLS_TRUST_ANYBODY};
    client.host = host;
    struct tls_pipe pipe = {.recv = pipe_recv, .send = pipe_send, .arg = s};
    if (tls_client_new(&client, &s->tls_side, why, sizeof why) < 0)
        return client_socket_fail(s, "%s", why);
    s->tls_buffers = tls_buffers_new();
    s->tls = s->tls_buffers ? tls_new(s->tls_side, s->tls_buffers, &pipe, (struct slice){0}) : NULL;
    if (s->tls == NULL)
        return client_socket_fail(s, "no memory for TLS");
    int err;
    do
        err = tls_shake(s->tls);
    while (err == -EINTR || (err == -EAGAIN && wait_for_bytes(s)));
    if (err == -EAGAIN)
        return client_socket_fail(s, "no answer within %d s: does the server speak TLS on this port?",
                                  BENCH_ANSWER_TIMEOUT_S);
    if (err == 0)
        return 0;
    bool by_usual = options && options->trust == TLS_TRUST_SYSTEM && err == -EPROTO;
    return client_socket_fail(s, "TLS: %s%s", err == -EPROTO ? tls_failure(s->tls) : strerror(-err),
                              by_usual ? " (--ca says whom to trust, --insecure trusts anybody)" : "");
}

/* As client_socket_write; what is encrypted and does not leave is kept, and counts as not written. */
static int write_tls(struct client_socket *s, const uint8_t *bytes, size_t *at, size_t end)
{
    for (;;) {
        int err = tls_owes(s->tls) ? tls_flush(s->tls) : 0;
        if (err == -EAGAIN)
            return 0;
        for (unsigned i = 0; i < TLS_BATCH_RECORDS && *at < end && err == 0; i++) {
            size_t n = end - *at < TLS_RECORD_MAX ? end - *at : TLS_RECORD_MAX;
            err = tls_put(s->tls, bytes + *at, n);
            *at += n;
        }
        if (err == 0)
            err = tls_flush(s->tls);
        if (err < 0 && err != -EAGAIN)
            return client_socket_fail(s, "cannot send: %s", err == -EPROTO ? tls_failure(s->tls) : strerror(-err));
        if (err == 0 && *at == end)
            return 1;
    }
}

/* Whole records, so that epoll tells of everything that is left: a count, 0 when there is none, -1. */
static ssize_t read_tls(struct client_socket *s)
{
    ssize_t got = 0;
    bool more = true;
    while (more && got < (ssize_t)FILL_MAX) {
        if (s->in_cap - s->in_end < TLS_RECORD_MAX && client_socket_reserve(s, s->in_cap + TLS_RECORD_MAX) != 0)
            return -1;
        int64_t n = tls_read(s->tls, s->in + s->in_end, s->in_cap - s->in_end, &more);
        if (n > 0) {
            s->in_end += (size_t)n;
            got += n;
            if (s->blocking)
                break;
        } else if (n != -EAGAIN && n != -EINTR) {
            return client_socket_fail(s, "cannot receive: %s",
                                      n == 0         ? "the server closed the connection without saying why"
                                      : n == -EPROTO ? tls_failure(s->tls)
                                                     : strerror((int)-n));
        }
    }
    return got;
}

/* As client_socket_fill. */
static ssize_t fill_tls(struct client_socket *s)
{
    ssize_t got;
    do
        got = read_tls(s);
    while (got == 0 && s->blocking && wait_for_bytes(s));
    return got;
}

void client_socket_close(struct client_socket *s)
{
    tls_free(&s->tls);
    tls_buffers_free(&s->tls_buffers);
    tls_server_free(&s->tls_side);
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
    free(s->in);
    s->in = NULL;
    s->in_at = s->in_end = s->in_cap = 0;
}

void client_socket_nonblocking(struct client_socket *s, bool nonblocking)
{
    int flags = fcntl(s->fd, F_GETFL);
    s->blocking = !nonblocking;
    fcntl(s->fd, F_SETFL, nonblocking ? flags | O_NONBLOCK : flags & ~O_NONBLOCK);
}

void client_socket_patience(struct client_socket *s, uint64_t wait_ms)
{
    struct timeval wait = {.tv_sec = (time_t)(wait_ms / 1000), .tv_usec = (suseconds_t)(wait_ms % 1000 * 1000)};
    int on = 1;
    s->patience_ms = wait_ms;
    setsockopt(s->fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
    setsockopt(s->fd, SOL_SOCKET, SO_KEEPALIVE, &on,
               sizeof(on)); /* who waits for long wants to know when nobody is there */
}

int client_socket_reserve(struct client_socket *s, size_t bytes)
{
    if (bytes <= s->in_cap)
        return 0;
    uint8_t *grown = realloc(s->in, bytes);
    if (grown == NULL)
        return client_socket_fail(s, "out of memory for an answer of %zu bytes", bytes);
    s->in = grown;
    s->in_cap = bytes;
    return 0;
}

int client_socket_write(struct client_socket *s, const uint8_t *bytes, size_t *at, size_t end, uint64_t now_ns)
{
    if (s->tls != NULL) {
        int done = *at < end || tls_owes(s->tls) ? write_tls(s, bytes, at, end) : 1;
        s->wrote_at_ns = done > 0 ? now_ns : s->wrote_at_ns;
        return done;
    }
    while (*at < end) {
        ssize_t n = send(s->fd, bytes + *at, end - *at, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return 0;
        if (n < 0)
            return client_socket_fail(s, "cannot send: %s", strerror(errno));
        *at += (size_t)n;
        s->wrote_at_ns = now_ns;
    }
    return 1;
}

int client_socket_send(struct client_socket *s, const void *bytes, size_t len)
{
    size_t at = 0;
    for (;;) {
        int done = client_socket_write(s, bytes, &at, len, client_clock_ns());
        if (done != 0)
            return done > 0 ? 0 : -1;
        struct pollfd ready = {.fd = s->fd, .events = POLLOUT};
        if (poll(&ready, 1, BENCH_ANSWER_TIMEOUT_S * 1000) == 0)
            return client_socket_fail(s, "the server read nothing for %d s", BENCH_ANSWER_TIMEOUT_S);
    }
}

ssize_t client_socket_fill(struct client_socket *s)
{
    if (s->in_at > 0) {
        memmove(s->in, s->in + s->in_at, s->in_end - s->in_at);
        s->in_end -= s->in_at;
        s->in_at = 0;
    }
    if (s->tls != NULL)
        return fill_tls(s);
    for (;;) {
        ssize_t n = recv(s->fd, s->in + s->in_end, s->in_cap - s->in_end, 0);
        if (n > 0) {
            s->in_end += (size_t)n;
            return n;
        }
        if (n == 0)
            return client_socket_fail(s,
                                      "the server closed the TCP connection without saying why: does the port want a "
                                      "login, TLS, or another protocol?");
        if (errno == EAGAIN)
            return 0;
        if (errno != EINTR)
            return client_socket_fail(s, "cannot receive: %s", strerror(errno));
    }
}
