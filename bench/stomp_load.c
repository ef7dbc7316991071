/* A load of STOMP: persistent SENDs with a receipt per 100 on one connection, a subscriber on another, any broker.
 *
 *   stomp_load PORT QUEUE COUNT BODY [WINDOW]       WINDOW: receipts on their way, 10
 *
 * Prints one line of JSON: messages, seconds to the last receipt and to the last message, and both rates. A client of its own: one
 * thread, two sockets, frames made before the clock runs. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PER_RECEIPT 100u

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void stop_with(const char *why, const char *detail)
{
    fprintf(stderr, "stomp_load: %s %s\n", why, detail);
    exit(1);
}

static void put(int fd, const char *bytes, size_t len)
{
    while (len) {
        ssize_t n = write(fd, bytes, len);
        if (n <= 0)
            stop_with("write:", strerror(errno));
        bytes += n;
        len -= (size_t)n;
    }
}

/* Connected and logged in. */
static int log_in(uint16_t port)
{
    static const char frame[] = "CONNECT\naccept-version:1.2\nhost:/\nlogin:guest\npasscode:guest\n\n";
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) < 0)
        stop_with("connect:", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    put(fd, frame, sizeof frame);
    char got[4096];
    ssize_t n = read(fd, got, sizeof got - 1);
    got[n > 0 ? n : 0] = '\0';
    if (!strstr(got, "CONNECTED"))
        stop_with("no CONNECTED:", got);
    return fd;
}

/* Frames that came: their bodies have no NUL. */
static uint64_t frames_in(int fd)
{
    static char buffer[1 << 18];
    uint64_t frames = 0;
    ssize_t n = read(fd, buffer, sizeof buffer);
    if (n <= 0)
        stop_with("read:", n < 0 ? strerror(errno) : "closed");
    if (memmem(buffer, (size_t)n, "ERROR\n", 6))
        stop_with("", buffer);
    for (const char *at = buffer; (at = memchr(at, 0, (size_t)(buffer + n - at))); at++)
        frames++;
    return frames;
}

struct batch { /* PER_RECEIPT SENDs, the last of which asks for a receipt */
    char *bytes;
    size_t len;
};

static struct batch batch_make(const char *queue, size_t body)
{
    struct batch b = {.bytes = malloc(PER_RECEIPT * (body + 200))};
    char *text = malloc(body + 1);
    if (!b.bytes || !text)
        stop_with("no memory", "");
    memset(text, 'x', body);
    text[body] = '\0';
    for (unsigned i = 0; i < PER_RECEIPT; i++)
        b.len += 1u + (size_t)sprintf(b.bytes + b.len,
                                      "SEND\ndestination:/queue/%s\npersistent:true\ncontent-length:%zu\n%s\n%s", queue,
                                      body, i + 1 == PER_RECEIPT ? "receipt:r\n" : "", text);
    free(text);
    return b;
}

int main(int count, char **arguments)
{
    if (count < 5)
        stop_with("usage: stomp_load PORT QUEUE COUNT BODY [WINDOW]", "");
    uint16_t port = (uint16_t)strtoul(arguments[1], NULL, 10);
    uint64_t batches = strtoull(arguments[3], NULL, 10) / PER_RECEIPT,
             window = count > 5 ? strtoull(arguments[5], NULL, 10) : 10;
    struct batch batch = batch_make(arguments[2], strtoul(arguments[4], NULL, 10));
    int sender = log_in(port), reader = log_in(port);
    char subscribe[256];
    int len =
        snprintf(subscribe, sizeof subscribe, "SUBSCRIBE\nid:1\ndestination:/queue/%s\nack:auto\n\n", arguments[2]);
    put(reader, subscribe, (size_t)len + 1);
    fcntl(sender, F_SETFL, O_NONBLOCK);
    uint64_t sent = 0, receipts = 0, messages = 0;
    size_t at = 0;
    double began = now(), confirmed = 0;
    while (messages < batches * PER_RECEIPT || receipts < batches) {
        bool may = sent < batches && sent - receipts < window;
        struct pollfd fds[2] = {{.fd = sender, .events = (short)(POLLIN | (may ? POLLOUT : 0))},
                                {.fd = reader, .events = POLLIN}};
        if (poll(fds, 2, 30000) <= 0)
            stop_with("nothing for 30 s", "");
        if (fds[0].revents & POLLIN)
            receipts += frames_in(sender);
        if (fds[1].revents & POLLIN)
            messages += frames_in(reader);
        if (receipts == batches && confirmed == 0)
            confirmed = now() - began;
        if (!may || !(fds[0].revents & POLLOUT))
            continue;
        ssize_t n = write(sender, batch.bytes + at, batch.len - at);
        at += n > 0 ? (size_t)n : 0;
        if (at == batch.len) {
            at = 0;
            sent++;
        }
    }
    double all = now() - began;
    printf("{\"messages\": %llu, \"confirmed_s\": %.3f, \"delivered_s\": %.3f, \"confirmed_per_s\": %.0f, "
           "\"delivered_per_s\": %.0f}\n",
           (unsigned long long)messages, confirmed, all, (double)messages / confirmed, (double)messages / all);
    free(batch.bytes);
    return 0;
}
