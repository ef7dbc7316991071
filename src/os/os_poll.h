/* os_poll: waiting for many descriptors (epoll), and a way for other threads to end the wait.
 *
 * Life cycle: os_poll_open → add/change/remove and wait … → os_poll_close. Everything on the waiting thread, except
 * os_poll_wake. Functions return 0 or a count, or a negative errno.
 *
 * Waking: os_poll_wake costs one atomic exchange, and a system call only while the other side sleeps. A wake that comes
 * between the sleeper's last look at its work and its sleep is not lost: the sleep then returns at once.
 */
#ifndef MILLRACE_OS_POLL_H
#define MILLRACE_OS_POLL_H

#include "base/types.h"

#include <stdatomic.h>

enum os_poll_flag {
    OS_POLL_READ = 1,
    OS_POLL_WRITE = 2,
    OS_POLL_HANGUP = 4, /* the peer has closed, or the socket has failed */
    OS_POLL_EDGE = 8,   /* of add: say each change once */
};

/* What a descriptor's events are given to; the owner embeds it. */
struct os_poll_target {
    void (*on_events)(struct os_poll_target *target, unsigned events);
};

struct os_poll {
    int fd, wake_fd;
    _Atomic uint32_t state;
};

MUST_USE int os_poll_open(struct os_poll *ret);
void os_poll_close(struct os_poll *poll);
MUST_USE int os_poll_add(struct os_poll *poll, int fd, unsigned flags, struct os_poll_target *target);
MUST_USE int os_poll_change(struct os_poll *poll, int fd, unsigned flags, struct os_poll_target *target);
void os_poll_remove(struct os_poll *poll, int fd);

/* Waits at most timeout_ns (negative: for ever; 0: only looks), then calls the targets. Returns how many had events. */
int os_poll_wait(struct os_poll *poll, int64_t timeout_ns);

/* Any thread, and signal handlers. */
void os_poll_wake(struct os_poll *poll);

#endif
