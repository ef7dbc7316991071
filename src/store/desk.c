/* See desk.h. Published atomics: jobs and untaken (both sides), stop (owner). */
#include "store/desk.h"

#include "base/check.h"

#define HAND_OUT_AGAIN_NS NS_PER_MS
#define TAKE_BACK_NS (NS_PER_S / 2)
#define HEAP_LITTLE (2u * 1024 * 1024) /* asleep with so much of messages that were read, or less */

bool desk_init(struct desk *desk, uint32_t jobs_max)
{
    desk->jobs_max = jobs_max;
    return ring_init(&desk->submitted, jobs_max, sizeof(void *)) &&
           ring_init(&desk->finished, jobs_max, sizeof(void *));
}

void desk_fini(struct desk *desk)
{
    CHECK(!desk->threaded);
    ring_fini(&desk->submitted);
    ring_fini(&desk->finished);
}

/* ---- owner ---- */

bool desk_submit(struct desk *desk, void *job)
{
    if (atomic_load_explicit(&desk->jobs, memory_order_relaxed) >= desk->jobs_max)
        return false;
    void **slot = ring_push(&desk->submitted);
    if (!slot)
        return false;
    atomic_fetch_add_explicit(&desk->jobs, 1, memory_order_relaxed);
    *slot = job;
    ring_publish(&desk->submitted);
    return true;
}

static void *pop(struct ring *ring)
{
    void **slot = ring->slots ? ring_peek(ring) : NULL;
    if (!slot)
        return NULL;
    void *job = *slot;
    ring_pop(ring);
    return job;
}

void *desk_take(struct desk *desk)
{
    void *job = pop(&desk->finished);
    if (!job)
        return NULL;
    atomic_fetch_sub_explicit(&desk->untaken, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&desk->jobs, 1, memory_order_relaxed);
    return job;
}

static void run(void *arg)
{
    struct desk *desk = arg;
    for (;;) {
        bool stop = atomic_load_explicit(&desk->stop, memory_order_acquire);
        if (desk->turn(desk->arg))
            continue;
        if (stop) /* set before this turn: nothing was submitted after it */
            break;
        os_event_wait(&desk->work, desk->wait_ns(desk->arg));
    }
}

int desk_start(struct desk *desk, const char *name)
{
    CHECK(!desk->threaded);
    int err = os_thread_start(&desk->thread, name, run, desk);
    desk->threaded = err == 0;
    return err;
}

bool desk_stop(struct desk *desk)
{
    atomic_store_explicit(&desk->stop, true, memory_order_release);
    if (!desk->threaded)
        return false;
    os_event_set(&desk->work);
    os_thread_join(&desk->thread);
    desk->threaded = false;
    return true;
}

/* ---- the desk's thread ---- */

void *desk_next(struct desk *desk)
{
    return pop(&desk->submitted);
}

void desk_finish(struct desk *desk, void *job)
{
    void **slot = ring_push(&desk->finished);
    CHECK(slot); /* jobs is never more than its slots */
    *slot = job;
    atomic_fetch_add_explicit(&desk->untaken, 1, memory_order_relaxed);
    ring_publish(&desk->finished);
}

void desk_drop(struct desk *desk)
{
    atomic_fetch_sub_explicit(&desk->jobs, 1, memory_order_relaxed);
}

int64_t desk_wait_ns(const struct desk *desk, const struct slab_heap *heap)
{
    if (desk_untaken(desk))
        return HAND_OUT_AGAIN_NS;
    return heap->bytes > HEAP_LITTLE ? TAKE_BACK_NS : -1;
}

/* ---- any thread ---- */

void desk_wake(struct desk *desk)
{
    os_event_set(&desk->work);
}

bool desk_untaken(const struct desk *desk)
{
    return atomic_load_explicit(&desk->untaken, memory_order_relaxed) != 0;
}

bool desk_is_stopping(const struct desk *desk)
{
    return atomic_load_explicit(&desk->stop, memory_order_relaxed);
}

void desk_hold(struct desk *desk, bool on)
{
    atomic_fetch_add_explicit(&desk->hold.wanted, on ? 1 : -1, memory_order_acq_rel);
    desk_wake(desk);
}

bool desk_held(const struct desk *desk)
{
    return atomic_load_explicit(&desk->hold.seen, memory_order_acquire);
}
