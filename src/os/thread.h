/* thread: the few thread primitives that the broker uses: a thread, a lock, and an event that one thread sleeps on.
 *
 * os_lock    init → take/give … → fini. Not recursive; held for a few instructions only.
 * os_event   zero-initialised. Any thread sets it; exactly one thread waits. Setting costs one atomic exchange, and a
 *            system call only while the waiter sleeps. A set that comes before the wait is not lost.
 * os_thread  start → join. All signals are blocked in it: the main thread takes those.
 */
#ifndef MILLRACE_OS_THREAD_H
#define MILLRACE_OS_THREAD_H

#include "base/types.h"

#include <pthread.h>
#include <stdatomic.h>

struct os_lock {
    pthread_mutex_t mutex;
};

void os_lock_init(struct os_lock *lock);
void os_lock_fini(struct os_lock *lock);
void os_lock_take(struct os_lock *lock);
void os_lock_give(struct os_lock *lock);

struct os_event {
    _Atomic uint32_t state;
};

void os_event_set(struct os_event *event);
/* Waits for a set since the last wait, at most timeout_ns (negative: for ever). True: it was set. */
bool os_event_wait(struct os_event *event, int64_t timeout_ns);

struct os_thread {
    pthread_t id;
};

/* name: at most 15 characters, for ps and perf. 0 or a negative errno. */
MUST_USE int os_thread_start(struct os_thread *ret, const char *name, void (*run)(void *arg), void *arg);
void os_thread_join(struct os_thread *thread);

#endif
