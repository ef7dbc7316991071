/* desk: where an owner's jobs come in and go out, and the thread behind it: of the store and of the streams alike.
 *
 * Jobs are pointers in two rings. No more than `jobs_max` are between submit and take, so what is under way always has a
 * place in the ring of finished ones. What a job is, and what is done in a turn, only the owner of the desk knows.
 *
 * Life cycle: desk_init → desk_submit, desk_start, desk_take … → desk_stop → desk_next, desk_take until nothing is left →
 * desk_fini. Threads: said for each; the one that does the jobs is called the desk's, also where the owner does them itself.
 */
#ifndef MILLRACE_STORE_DESK_H
#define MILLRACE_STORE_DESK_H

#include "base/ring.h"
#include "base/slab.h"
#include "journal/parking.h"
#include "os/thread.h"

struct desk {
    struct os_event work;
    struct os_thread thread;
    bool threaded; /* owner */
    struct ring submitted, finished;
    uint32_t jobs_max;
    _Atomic uint32_t jobs;    /* submitted and neither taken nor dropped */
    _Atomic uint32_t untaken; /* finished and not taken */
    _Atomic bool stop;
    struct hold hold;              /* of any thread */
    bool (*turn)(void *arg);       /* true: it did something */
    int64_t (*wait_ns)(void *arg); /* how long to sleep after a turn that did nothing; -1: until woken */
    void *arg;
};

/* The desk is zeroed, and its functions are set. False: no memory; desk_fini is still right. */
MUST_USE bool desk_init(struct desk *desk, uint32_t jobs_max);
void desk_fini(struct desk *desk);

/* ---- owner ---- */

/* False: there are too many, and the job is still the caller's. Does not wake anybody. */
bool desk_submit(struct desk *desk, void *job);
/* A finished job; NULL: there is none. */
void *desk_take(struct desk *desk);
/* 0, or what the system said. */
int desk_start(struct desk *desk, const char *name);
/* The thread does what was submitted, and ends. False: there is none, and the owner does it itself. */
bool desk_stop(struct desk *desk);

/* ---- the desk's thread ---- */

/* The next that was submitted; NULL: there is none. */
void *desk_next(struct desk *desk);
void desk_finish(struct desk *desk, void *job);
/* A job is over of which nobody is told. */
void desk_drop(struct desk *desk);
/* For wait_ns: nobody wakes the thread for messages that it has read and that others have freed, so while there are many
 * it looks itself. */
int64_t desk_wait_ns(const struct desk *desk, const struct slab_heap *heap);

/* ---- any thread ---- */

void desk_wake(struct desk *desk);
bool desk_untaken(const struct desk *desk);
bool desk_is_stopping(const struct desk *desk);
/* See struct hold: while anybody holds no file is removed. */
void desk_hold(struct desk *desk, bool on);
bool desk_held(const struct desk *desk);

#endif
