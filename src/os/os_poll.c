/* epoll and an eventfd, see os_poll.h.
 *
 * The eventfd is edge-triggered and never read: each write is an edge. `state` says whether a write is needed:
 * CLEAR (awake, nothing new) → SLEEPING (about to wait) → CLEAR; a waker exchanges it for SET and writes only when it
 * was SLEEPING. The sleeper goes from CLEAR to SLEEPING by compare-and-swap, so a SET that came first keeps it awake. */
#include "os/os_poll.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define EVENTS_MAX 256

enum { STATE_CLEAR, STATE_SET, STATE_SLEEPING };

int os_poll_open(struct os_poll *ret)
{
    int fd = epoll_create1(EPOLL_CLOEXEC);
    if (fd < 0)
        return -errno;
    int wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.ptr = NULL};
    if (wake_fd < 0 || epoll_ctl(fd, EPOLL_CTL_ADD, wake_fd, &event) < 0) {
        int err = -errno;
        if (wake_fd >= 0)
            close(wake_fd);
        close(fd);
        return err;
    }
    ret->fd = fd;
    ret->wake_fd = wake_fd;
    atomic_init(&ret->state, STATE_CLEAR);
    return 0;
}

void os_poll_close(struct os_poll *poll)
{
    close(poll->wake_fd);
    close(poll->fd);
}

static uint32_t epoll_mask(unsigned flags)
{
    return (flags & OS_POLL_READ ? EPOLLIN : 0u) | (flags & OS_POLL_WRITE ? EPOLLOUT : 0u) |
           (flags & OS_POLL_HANGUP ? EPOLLRDHUP : 0u) | (flags & OS_POLL_EDGE ? EPOLLET : 0u);
}

static int control(struct os_poll *poll, int op, int fd, unsigned flags, struct os_poll_target *target)
{
    struct epoll_event event = {.events = epoll_mask(flags), .data.ptr = target};
    return epoll_ctl(poll->fd, op, fd, &event) < 0 ? -errno : 0;
}

int os_poll_add(struct os_poll *poll, int fd, unsigned flags, struct os_poll_target *target)
{
    return control(poll, EPOLL_CTL_ADD, fd, flags, target);
}

int os_poll_change(struct os_poll *poll, int fd, unsigned flags, struct os_poll_target *target)
{
    return control(poll, EPOLL_CTL_MOD, fd, flags, target);
}

void os_poll_remove(struct os_poll *poll, int fd)
{
    epoll_ctl(poll->fd, EPOLL_CTL_DEL, fd, NULL);
}

static int timeout_ms(int64_t timeout_ns)
{
    if (timeout_ns <= 0)
        return timeout_ns < 0 ? -1 : 0;
    int64_t ms = (timeout_ns + NS_PER_MS - 1) / NS_PER_MS;
    return ms > 3600 * 1000 ? 3600 * 1000 : (int)ms;
}

static unsigned flags_of(uint32_t mask)
{
    return (mask & EPOLLIN ? OS_POLL_READ : 0u) | (mask & EPOLLOUT ? OS_POLL_WRITE : 0u) |
           (mask & (EPOLLRDHUP | EPOLLHUP | EPOLLERR) ? OS_POLL_HANGUP : 0u);
}

int os_poll_wait(struct os_poll *poll, int64_t timeout_ns)
{
    struct epoll_event events[EVENTS_MAX];
    uint32_t seen = STATE_CLEAR;
    if (timeout_ns != 0 && !atomic_compare_exchange_strong(&poll->state, &seen, STATE_SLEEPING))
        timeout_ns = 0;
    int n = epoll_wait(poll->fd, events, EVENTS_MAX, timeout_ms(timeout_ns));
    atomic_exchange(&poll->state, STATE_CLEAR);
    for (int i = 0; i < n; i++) {
        struct os_poll_target *target = events[i].data.ptr;
        if (target)
            target->on_events(target, flags_of(events[i].events));
    }
    return n < 0 ? 0 : n;
}

void os_poll_wake(struct os_poll *poll)
{
    if (atomic_exchange(&poll->state, STATE_SET) != STATE_SLEEPING)
        return;
    uint64_t one = 1;
    ssize_t written = write(poll->wake_fd, &one, sizeof one);
    (void)written; /* cannot fail: the counter would have to overflow */
}
