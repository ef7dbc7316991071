/* The worker thread, see worker.h.
 *
 * It sleeps on an event that the core's thread sets, and looks at memory and disk once a second, near a limit ten times,
 * and whenever so much was written that a limit might have been passed.
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
#include <stdio.h>

struct worker {
    struct worker_options options;
    struct os_thread thread;
    struct os_event event;
    _Atomic bool stop;
    _Atomic bool look;
    _Atomic bool errand;
    _Atomic unsigned forced;
    struct watch watch;
    uint64_t written; /* by the journal, when it was measured last */
    struct os_lock lock;
    struct worker_figures figures; /* under the lock */
    bool stalled;                  /* the journal waits for room, and we have said so */
    unsigned told;                 /* alarms that the core knows of */
    mono_t measured_at;            /* 0: never */
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

static void say_full(const struct worker *worker, const struct answer *full)
{
    char vhost[256], stream[256];
    snprintf(vhost, sizeof vhost, "%.*s", SLICE_ARG(full->name));
    snprintf(stream, sizeof stream, "%.*s", SLICE_ARG(full->fields));
    if (full->fields.len)
        log_event(worker->options.log, LOG_aborted_full, log_str("vhost", vhost), log_str("stream", stream),
                  log_num("bytes", (int64_t)full->number), log_num("limit_of_all", (int64_t)full->number2));
    else
        log_event(worker->options.log, LOG_transactions_full, log_str("vhost", vhost),
                  log_num("bytes", (int64_t)full->number), log_num("limit_of_all", (int64_t)full->number2));
}

/* Answers what is asked; stops when its own ring is full: the rest is answered after the core has taken some. */
static void answer_questions(struct worker *worker)
{
    struct ring *effects = &worker->options.port->effects;
    struct effect *effect;
    while ((effect = ring_peek(effects)) && ring_room(&worker->options.port->commands) > 0) {
        struct effect taken = *effect;
        ring_pop(effects);
        if (taken.type == EFF_TXNS_FULL) {
            say_full(worker, taken.answer);
            mem_free(taken.answer);
            continue;
        }
        CHECK(taken.type == EFF_VERIFY);
        bool ok = verified(taken.answer);
        forget(taken.answer);
        CHECK(send(worker, CMD_VERIFIED, taken.number, ok ? ASK_VERIFY_OK : 0));
    }
}

static uint64_t memory_used(struct worker *worker, mono_t now, bool idle)
{
    uint64_t counted = mem_in_use(), resident = os_memory_resident();
    mono_t since = worker->trimmed_at ? now - worker->trimmed_at : MONO_NEVER;
    if (watch_trim_due(&worker->watch, counted, resident, since, idle)) {
        os_allocator_trim();
        worker->trimmed_at = now;
        resident = os_memory_resident();
    }
    return counted > resident ? counted : resident;
}

static void log_alarm(struct worker *worker, unsigned alarm, bool raised)
{
    static const struct {
        const char *resource;
        enum log_id raised, cleared;
    } rows[] = {[ALARM_MEMORY] = {"memory", LOG_alarm_raised, LOG_alarm_cleared},
                [ALARM_DISK] = {"disk", LOG_alarm_raised, LOG_alarm_cleared},
                [ALARM_MEMORY_HARD] = {"memory", LOG_refusing, LOG_refusing_ended},
                [ALARM_DISK_HARD] = {"disk", LOG_refusing, LOG_refusing_ended}};
    struct worker_figures now;
    worker_figures(worker, &now);
    bool memory = alarm & (ALARM_MEMORY | ALARM_MEMORY_HARD);
    uint64_t mark = alarm == ALARM_MEMORY        ? now.memory_soft
                    : alarm == ALARM_MEMORY_HARD ? now.memory_hard
                    : alarm == ALARM_DISK        ? now.disk_soft
                                                 : now.disk_hard;
    log_event(worker->options.log, raised ? rows[alarm].raised : rows[alarm].cleared,
              log_str("resource", rows[alarm].resource),
              log_num(memory ? "used" : "free", (int64_t)(memory ? now.memory_used : now.disk_free)),
              log_num("limit", (int64_t)mark), log_str("folder", worker->options.dir));
}

static void tell(struct worker *worker, unsigned alarms)
{
    if (alarms == worker->told || !send(worker, CMD_ALARM, alarms, 0))
        return;
    for (unsigned alarm = ALARM_MEMORY; alarm <= ALARM_DISK_HARD; alarm <<= 1)
        if ((alarms & alarm) != (worker->told & alarm))
            log_alarm(worker, alarm, alarms & alarm);
    worker->told = alarms;
}

/* A snapshot of all that lives in the journal, which is no more than the messages in memory, and a file to end and one to
 * begin: with less the journal cannot be made shorter, and a full disk would stay full. */
static uint64_t owed(const struct worker *worker)
{
    uint64_t live = journal_live_bytes(worker->options.journal), messages = mem_in_use_as(MEM_MESSAGES);
    return (live < messages ? live : messages) + 2 * worker->options.journal_file_bytes;
}

static void publish_figures(struct worker *worker, uint64_t used, uint64_t disk_free)
{
    os_lock_take(&worker->lock);
    struct worker_figures *figures = &worker->figures;
    figures->memory_used = used;
    figures->disk_free = disk_free == UINT64_MAX ? 0 : disk_free;
    figures->disk_hard = watch_disk_hard(&worker->watch);
    figures->alarms = worker->watch.raised;
    os_lock_give(&worker->lock);
}

/* Even the spare journal files are used up. */
static void say_whether_stalled(struct worker *worker)
{
    bool stalled = journal_ready(worker->options.journal) == 0;
    if (stalled && !worker->stalled)
        log_event(worker->options.log, LOG_journal_waits, log_str("folder", worker->options.dir));
    worker->stalled = stalled;
}

/* Times of messages and records are what it said; whoever wonders about them finds it here. */
static void look_at_clock(struct worker *worker)
{
    struct os *os = worker->options.os;
    mono_t before = os->now_mono(os);
    wall_t wall = os->now_wall(os);
    int64_t jump = watch_clock(&worker->watch, before, wall, os->now_mono(os));
    if (jump)
        log_event(worker->options.log, LOG_clock_jumped, log_num("ms", jump));
}

static void measure(struct worker *worker, mono_t now)
{
    struct os *os = worker->options.os;
    uint64_t disk_free, disk_total, written = journal_written(worker->options.journal);
    if (os->space(os, worker->options.dir, &disk_free, &disk_total) < 0)
        disk_free = UINT64_MAX; /* a disk that does not say how full it is raises no alarm */
    if (journal_ready(worker->options.journal) != UINT64_MAX)
        disk_free = 0; /* whatever it is out of, blocks or names: it makes no files any more */
    bool idle = worker->measured_at && written == worker->written;
    worker->measured_at = now;
    worker->written = written;
    worker->watch.owed = owed(worker);
    uint64_t used = memory_used(worker, now, idle);
    watch_measure(&worker->watch, used, disk_free);
    publish_figures(worker, used, disk_free);
    journal_scarce(worker->options.journal, worker->watch.raised & ALARM_DISK, disk_free);
    say_whether_stalled(worker);
    look_at_clock(worker);
}

static void worker_run(void *arg)
{
    struct worker *worker = arg;
    struct os *os = worker->options.os;
    while (!atomic_load(&worker->stop)) {
        answer_questions(worker);
        if (atomic_exchange(&worker->errand, false))
            worker->options.errand(worker->options.arg);
        mono_t now = os->now_mono(os);
        if (worker->measured_at == 0 || atomic_exchange(&worker->look, false) ||
            now - worker->measured_at >= watch_pause(&worker->watch))
            measure(worker, now);
        tell(worker, worker->watch.raised | atomic_load(&worker->forced));
        os_event_wait(&worker->event, watch_pause(&worker->watch));
    }
}

static void set_marks(struct worker *worker)
{
    const struct worker_options *options = &worker->options;
    struct watch *watch = &worker->watch;
    uint64_t disk_free = 0, disk_total = 0, memory_total = os_memory_total();
    if (options->os->space(options->os, options->dir, &disk_free, &disk_total) < 0)
        disk_total = 0;
    watch->memory_soft = watch_memory_mark(options->memory_high_watermark, memory_total);
    watch->memory_hard = watch_memory_mark(options->memory_hard_watermark, memory_total);
    if (watch->memory_hard < watch->memory_soft)
        watch->memory_hard = watch->memory_soft;
    watch->disk_soft = watch_disk_soft(options->disk_free_min, disk_total);
    watch->disk_hard = options->disk_free_hard ? options->disk_free_hard : watch->disk_soft / 2;
    worker->figures = (struct worker_figures){.memory_soft = watch->memory_soft,
                                              .memory_hard = watch->memory_hard,
                                              .memory_total = memory_total,
                                              .disk_soft = watch->disk_soft,
                                              .disk_total = disk_total};
}

int worker_start(const struct worker_options *options, struct worker **ret)
{
    struct worker *worker = mem_zalloc(sizeof *worker);
    if (!worker)
        return -ENOMEM;
    worker->options = *options;
    os_lock_init(&worker->lock);
    set_marks(worker);
    measure(worker, options->os->now_mono(options->os)); /* on a full disk the first client finds the alarm raised */
    tell(worker, worker->watch.raised);
    int err = os_thread_start(&worker->thread, "worker", worker_run, worker);
    if (err < 0) {
        os_lock_fini(&worker->lock);
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

void worker_look(struct worker *worker)
{
    atomic_store(&worker->look, true);
    worker_wake(worker);
}

void worker_errand(struct worker *worker)
{
    atomic_store(&worker->errand, true);
    worker_wake(worker);
}

void worker_figures(struct worker *worker, struct worker_figures *ret)
{
    os_lock_take(&worker->lock);
    *ret = worker->figures;
    os_lock_give(&worker->lock);
    ret->alarms |= atomic_load(&worker->forced);
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
    os_lock_fini(&w->lock);
    mem_free(w);
}
