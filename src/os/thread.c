/* Threads, locks and events over pthreads and futexes. Any thread.
 *
 * The event is a futex of its own instead of a condition variable: setting it while the waiter is awake (the usual
 * case under load) is one exchange, and the waiter needs no mutex to go to sleep.
 */
#include "os/thread.h"

#include "base/check.h"
#include "base/mem.h"

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum event_state { EVENT_CLEAR = 0, EVENT_SET = 1, EVENT_SLEEPING = 2 };

void os_lock_init(struct os_lock *lock)
{
    CHECK(pthread_mutex_init(&lock->mutex, NULL) == 0);
}

void os_lock_fini(struct os_lock *lock)
{
    CHECK(pthread_mutex_destroy(&lock->mutex) == 0);
}

void os_lock_take(struct os_lock *lock)
{
    CHECK(pthread_mutex_lock(&lock->mutex) == 0);
}

void os_lock_give(struct os_lock *lock)
{
    CHECK(pthread_mutex_unlock(&lock->mutex) == 0);
}

static void futex(struct os_event *event, int op, uint32_t value, const struct timespec *timeout)
{
    syscall(SYS_futex, &event->state, op | FUTEX_PRIVATE_FLAG, value, timeout, NULL, 0);
}

void os_event_set(struct os_event *event)
{
    if (atomic_exchange_explicit(&event->state, EVENT_SET, memory_order_acq_rel) == EVENT_SLEEPING)
        futex(event, FUTEX_WAKE, 1, NULL);
}

bool os_event_wait(struct os_event *event, int64_t timeout_ns)
{
    uint32_t seen = EVENT_CLEAR;
    if (atomic_compare_exchange_strong(&event->state, &seen, EVENT_SLEEPING)) {
        struct timespec ts = {.tv_sec = timeout_ns / NS_PER_S, .tv_nsec = timeout_ns % NS_PER_S};
        futex(event, FUTEX_WAIT, EVENT_SLEEPING, timeout_ns < 0 ? NULL : &ts);
    }
    /* A wake-up for no reason is reported as a time-out; callers look for work either way. */
    return atomic_exchange_explicit(&event->state, EVENT_CLEAR, memory_order_acq_rel) == EVENT_SET;
}

struct start {
    void (*run)(void *arg);
    void *arg;
};

static void *thread_main(void *arg)
{
    struct start start = *(struct start *)arg;
    mem_free(arg);
    start.run(start.arg);
    return NULL;
}

int os_thread_start(struct os_thread *ret, const char *name, void (*run)(void *arg), void *arg)
{
    struct start *start = mem_alloc(sizeof *start);
    if (!start)
        return -ENOMEM;
    *start = (struct start){.run = run, .arg = arg};
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int err = pthread_create(&ret->id, NULL, thread_main, start);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err) {
        mem_free(start);
        return -err;
    }
    pthread_setname_np(ret->id, name);
    return 0;
}

void os_thread_join(struct os_thread *thread)
{
    CHECK(pthread_join(thread->id, NULL) == 0);
}
