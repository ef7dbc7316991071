/* The worker thread, see worker.h.
 *
 * It sleeps on an event that the core's thread sets, and looks at memory and disk once a second, near a limit ten times.
 * Memory is what we account plus what the process occupies beyond it; before the latter raises an alarm, freed pages are
 * given back, so that memory which malloc merely keeps never blocks anybody. */
#include "main/worker.h"

#include "base/check.h"
#include "base/mem.h"
#include "base/reader.h"
#include "fmt/password.h"
#include "main/watch.h"
#include "os/os_process.h"
#include "os/thread.h"

#include <errno.h>

struct worker {
    struct worker_options options;
    struct os_thread thread;
    struct os_event event;
    _Atomic bool stop;
    _Atomic unsigned forced;
    struct watch watch;
    unsigned told;      /* alarms that the core knows of */
    mono_t measured_at; /* 0: never */
    mono_t trimmed_at;
};

static bool send(struct worker *worker, enum command_type type, uint64_t number, uint32_t flags)
{
    struct command *command = ring_push(&worker->options.port->commands);
    if (!command)
        return false;
    *command = (struct command){.type = (uint8_t)type, .number = number, .flags = flags};
    ring_publish(&worker->options.port->commands);
    worker->options.wake_core(worker->options.arg);
    return true;
}

static bool verified(const struct answer *question)
{
    if (!question)
        return false;
    struct reader r = reader_of(question->fields);
    struct slice secret = reader_str32(&r), verifier = reader_str32(&r);
    return reader_ok(&r) && password_verify(verifier, secret);
}

static void forget(struct answer *question)
{
    if (question && question->fields.len)
        explicit_bzero((void *)(uintptr_t)question->fields.ptr, question->fields.len);
    mem_free(question);
}

/* Answers what is asked; stops when its own ring is full: the rest is answered after the core has taken some. */
static void answer_questions(struct worker *worker)
{
    struct ring *effects = &worker->options.port->effects;
    struct effect *effect;
    while ((effect = ring_peek(effects)) && ring_room(&worker->options.port->commands) > 0) {
        struct effect taken = *effect;
        ring_pop(effects);
        CHECK(taken.type == EFF_VERIFY);
        bool ok = verified(taken.answer);
        forget(taken.answer);
        CHECK(send(worker, CMD_VERIFIED, taken.number, ok ? ASK_VERIFY_OK : 0));
    }
}

static uint64_t memory_used(struct worker *worker, mono_t now)
{
    uint64_t counted = mem_in_use(), resident = os_memory_resident();
    mono_t since = worker->trimmed_at ? now - worker->trimmed_at : MONO_NEVER;
    if (watch_trim_due(&worker->watch, counted, resident, since)) {
        os_allocator_trim();
        worker->trimmed_at = now;
        resident = os_memory_resident();
    }
    return counted > resident ? counted : resident;
}

static void tell(struct worker *worker, unsigned alarms)
{
    if (alarms == worker->told || !send(worker, CMD_ALARM, alarms, 0))
        return;
    for (unsigned alarm = ALARM_MEMORY; alarm <= ALARM_DISK; alarm <<= 1) {
        if ((alarms & alarm) == (worker->told & alarm))
            continue;
        enum log_id id = alarms & alarm ? LOG_alarm_raised : LOG_alarm_cleared;
        log_event(
            worker->options.log, id, log_str("resource", alarm == ALARM_MEMORY ? "memory" : "disk"),
            log_num("memory_in_use", (int64_t)mem_in_use()),
            log_num("limit", (int64_t)(alarm == ALARM_MEMORY ? worker->watch.memory_mark : worker->watch.disk_min)));
    }
    worker->told = alarms;
}

static void measure(struct worker *worker, mono_t now)
{
    struct os *os = worker->options.os;
    uint64_t disk_free, disk_total;
    if (os->space(os, worker->options.dir, &disk_free, &disk_total) < 0)
        disk_free = UINT64_MAX; /* a disk that does not say how full it is raises no alarm */
    worker->measured_at = now;
    watch_measure(&worker->watch, memory_used(worker, now), disk_free);
}

static void worker_run(void *arg)
{
    struct worker *worker = arg;
    struct os *os = worker->options.os;
    while (!atomic_load(&worker->stop)) {
        answer_questions(worker);
        mono_t now = os->now_mono(os);
        if (worker->measured_at == 0 || now - worker->measured_at >= watch_pause(&worker->watch))
            measure(worker, now);
        tell(worker, worker->watch.raised | atomic_load(&worker->forced));
        os_event_wait(&worker->event, watch_pause(&worker->watch));
    }
}

int worker_start(const struct worker_options *options, struct worker **ret)
{
    struct worker *worker = mem_zalloc(sizeof *worker);
    if (!worker)
        return -ENOMEM;
    worker->options = *options;
    uint64_t disk_free = 0, disk_total = 0;
    if (options->os->space(options->os, options->dir, &disk_free, &disk_total) < 0)
        disk_total = 0;
    worker->watch.memory_mark = watch_memory_mark(options->memory_high_watermark, os_memory_total());
    worker->watch.disk_min = watch_disk_min(options->disk_free_min, disk_total);
    int err = os_thread_start(&worker->thread, "worker", worker_run, worker);
    if (err < 0) {
        mem_free(worker);
        return err;
    }
    *ret = worker;
    return 0;
}

void worker_wake(struct worker *worker)
{
    os_event_set(&worker->event);
}

void worker_alarms_force(struct worker *worker, unsigned alarms)
{
    atomic_store(&worker->forced, alarms);
    worker_wake(worker);
}

void worker_stop(struct worker **worker)
{
    struct worker *w = *worker;
    if (!w)
        return;
    *worker = NULL;
    atomic_store(&w->stop, true);
    worker_wake(w);
    os_thread_join(&w->thread);
    mem_free(w);
}
