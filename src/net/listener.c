/* Accepting, see listener.h. The thread of the loop that serves it.
 *
 * Level-triggered with a budget per tick: a herd of reconnecting clients is let in bit by bit, live connections go on.
 * Out of descriptors: the one spare descriptor is given up to accept and close one connection, so that the peer hears
 * of it instead of hanging in the backlog, and the listener rests for 100 ms; accepting at full speed in order to close
 * would be a busy loop. */
#include "net/listener.h"

#include "base/mem.h"
#include "net/net_int.h"

#include <errno.h>

#define ACCEPTS_PER_TICK 64
#define REST_NS (100 * NS_PER_MS)
#define COMPLAIN_EVERY_NS (1 * NS_PER_S)

struct listener {
    struct os_poll_target target; /* first */
    struct list link;
    struct listener_options options;
    struct timer rest;
    mono_t complained_at;
    unsigned next_loop;
    int fd, spare_fd;
};

static void complain(struct listener *listener, enum log_id id, int err)
{
    mono_t now = listener->options.loop->now;
    if (now - listener->complained_at < COMPLAIN_EVERY_NS)
        return;
    listener->complained_at = now;
    log_event(listener->options.loop->options.log, id, log_str("error", err ? strerror(-err) : "limit"));
}

static uint32_t conns_now(const struct listener *listener)
{
    if (listener->options.loop_count == 0)
        return loop_conns(listener->options.loop);
    uint32_t sum = 0;
    for (unsigned i = 0; i < listener->options.loop_count; i++)
        sum += loop_conns(listener->options.loops[i]);
    return sum;
}

static void place(struct listener *listener, int fd, const struct os_peer *peer)
{
    const struct listener_options *o = &listener->options;
    struct loop *loop = o->loop_count ? o->loops[listener->next_loop++ % o->loop_count] : o->loop;
    if (loop == o->loop)
        loop_connect(loop, fd, peer, o->factory);
    else if (!loop_hand(loop, fd, peer, o->factory))
        os_socket_close(fd);
}

static void rest(struct listener *listener)
{
    struct loop *loop = listener->options.loop;
    if (os_poll_change(&loop->poll, listener->fd, 0, &listener->target) == 0)
        wheel_set(&loop->wheel, &listener->rest, loop->now + REST_NS);
}

static void on_rested(void *arg, struct timer *timer)
{
    struct loop *loop = arg;
    struct listener *listener = CONTAINER_OF(timer, struct listener, rest);
    if (os_poll_change(&loop->poll, listener->fd, OS_POLL_READ, &listener->target) < 0)
        wheel_set(&loop->wheel, &listener->rest, loop->now + REST_NS);
}

static void out_of_descriptors(struct listener *listener, int err)
{
    complain(listener, LOG_descriptors_out, err);
    if (listener->spare_fd >= 0) {
        os_socket_close(listener->spare_fd);
        listener->spare_fd = -1;
        struct os_peer peer;
        int fd;
        if (os_accept(listener->fd, &fd, &peer) == 0)
            os_socket_close(fd);
    }
    if (os_spare_open(&listener->spare_fd) < 0)
        listener->spare_fd = -1;
    rest(listener);
}

/* Errors of the connection that was waiting, not of the listener: accept(2) says to go on. */
static bool is_passing(int err)
{
    switch (-err) {
    case EINTR:
    case ECONNABORTED:
    case EPROTO:
    case ENETDOWN:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case EOPNOTSUPP:
    case ENETUNREACH:
    case EPERM: return true;
    default: return false;
    }
}

static void on_listener(struct os_poll_target *target, unsigned events)
{
    struct listener *listener = CONTAINER_OF(target, struct listener, target);
    (void)events;
    for (int i = 0; i < ACCEPTS_PER_TICK; i++) {
        struct os_peer peer;
        int fd, err = os_accept(listener->fd, &fd, &peer);
        if (err == -EAGAIN)
            return;
        if (err < 0 && is_passing(err))
            continue;
        if (err == -EMFILE || err == -ENFILE) {
            out_of_descriptors(listener, err);
            return;
        }
        if (err < 0) {
            complain(listener, LOG_accept_failed, err);
            rest(listener);
            return;
        }
        if (listener->options.conns_max && conns_now(listener) >= listener->options.conns_max) {
            complain(listener, LOG_connections_full, 0);
            os_socket_close(fd);
            continue;
        }
        place(listener, fd, &peer);
    }
}

static int listener_new(const struct listener_options *options, int fd, struct listener **ret)
{
    struct listener *listener = mem_zalloc(sizeof *listener);
    if (!listener)
        return -ENOMEM;
    *listener = (struct listener){.target.on_events = on_listener,
                                  .options = *options,
                                  .complained_at = options->loop->now - COMPLAIN_EVERY_NS,
                                  .fd = fd,
                                  .spare_fd = -1};
    timer_init(&listener->rest, on_rested);
    int err = os_spare_open(&listener->spare_fd);
    if (err == 0)
        err = os_poll_add(&options->loop->poll, fd, OS_POLL_READ, &listener->target);
    if (err < 0) {
        if (listener->spare_fd >= 0)
            os_socket_close(listener->spare_fd);
        mem_free(listener);
        return err;
    }
    list_insert(&options->loop->listeners, &listener->link);
    *ret = listener;
    return 0;
}

static int listener_wrap(const struct listener_options *options, int fd, struct listener **ret)
{
    int err = listener_new(options, fd, ret);
    if (err < 0)
        os_socket_close(fd);
    return err;
}

int listener_open_tcp(const struct listener_options *options, const char *host, uint16_t port, struct listener **ret)
{
    int fd, err = os_tcp_listen(host, port, &fd);
    return err < 0 ? err : listener_wrap(options, fd, ret);
}

int listener_open_unix(const struct listener_options *options, const char *path, struct listener **ret)
{
    int fd, err = os_unix_listen(path, &fd);
    return err < 0 ? err : listener_wrap(options, fd, ret);
}

uint16_t listener_port(const struct listener *listener)
{
    return os_socket_port(listener->fd);
}

void listener_close(struct listener **listener)
{
    struct listener *l = *listener;
    if (!l)
        return;
    *listener = NULL;
    wheel_cancel(&l->options.loop->wheel, &l->rest);
    list_remove(&l->link);
    os_socket_close(l->fd);
    if (l->spare_fd >= 0)
        os_socket_close(l->spare_fd);
    mem_free(l);
}

void listener_free_all(struct loop *loop)
{
    while (!list_empty(&loop->listeners)) {
        struct listener *listener = CONTAINER_OF(loop->listeners.next, struct listener, link);
        listener_close(&listener);
    }
}
