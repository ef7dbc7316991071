/* The thread of continuous SQL, see sql_engine.h.
 *
 * It sleeps on its event until the core has sent something, an answer that is held has become durable, or a query wants to be called. A broker
 * that is asked nothing has neither the thread nor the server. */
#include "main/sql_engine.h"

#include "main/sql_scratch.h"

#include "base/mem.h"
#include "os/thread.h"
#include "sql/server/server.h"

#include <stdatomic.h>
#include <string.h>

struct sql_engine {
    struct sql_engine_options options;
    struct slab_heap heap;      /* the thread's */
    struct sql_scratch scratch; /* the thread's */
    struct os_thread thread;
    struct os_event event;
    struct os_lock
        lock; /* of starting: at the boot the main thread and the core's come at once; of stopping, with which the core's may meet */
    _Atomic bool started; /* under the lock */
    _Atomic bool stop;
    _Atomic bool holds;
    bool joined;
};

static mono_t clock_of(void *arg)
{
    struct os *os = arg;
    return os->now_mono(os);
}

static void engine_run(void *arg)
{
    struct sql_engine *engine = arg;
    struct os *os = engine->options.os;
    struct sql_server_options options = {.port = engine->options.port,
                                         .heap = &engine->heap,
                                         .snapshot_rows = engine->options.snapshot_rows,
                                         .disk = sql_scratch_disk(&engine->scratch),
                                         .scratch_max = engine->options.scratch_bytes,
                                         .clock = clock_of,
                                         .clock_arg = os};
    struct sql_server *server = NULL;
    os->random(os, &options.seed, sizeof options.seed);
    while (!atomic_load(&engine->stop)) {
        if (!server)
            server = sql_server_new(&options);
        if (!server) { /* no memory: what is asked waits */
            os_event_wait(&engine->event, NS_PER_S);
            continue;
        }
        lsn_t durable = journal_durable(engine->options.journal);
        bool more = sql_server_turn(server, durable, os->now_mono(os), os->now_wall(os));
        atomic_store(&engine->holds, sql_server_holds(server));
        more = more || (sql_server_holds(server) && journal_durable(engine->options.journal) != durable);
        if (sql_server_publish(server))
            engine->options.wake_core(engine->options.arg);
        mono_t due = sql_server_next_due(server), now = os->now_mono(os);
        if (!more && due > now)
            os_event_wait(&engine->event, due == MONO_NEVER ? -1 : due - now);
    }
    sql_server_free(&server);
}

struct sql_engine *sql_engine_open(const struct sql_engine_options *options)
{
    struct sql_engine *engine = mem_zalloc(sizeof *engine);
    if (!engine)
        return NULL;
    engine->options = *options;
    slab_heap_init(&engine->heap);
    sql_scratch_init(&engine->scratch, options->os, options->dir, options->disk_free_min);
    os_lock_init(&engine->lock);
    return engine;
}

void sql_engine_wake(struct sql_engine *engine)
{
    if (atomic_load(&engine->stop))
        return;
    os_event_set(&engine->event);
    if (atomic_load(&engine->started))
        return;
    os_lock_take(&engine->lock);
    bool wanted = !atomic_load(&engine->started) && !atomic_load(&engine->stop);
    int err = wanted ? os_thread_start(&engine->thread, "sql", engine_run, engine) : 0;
    if (wanted && err == 0)
        atomic_store(&engine->started, true);
    os_lock_give(&engine->lock);
    if (err < 0)
        log_event(engine->options.log, LOG_sql_not_started, log_str("error", strerror(-err)));
}

void sql_engine_durable(struct sql_engine *engine)
{
    if (atomic_load(&engine->holds))
        os_event_set(&engine->event);
}

void sql_engine_stop(struct sql_engine *engine)
{
    os_lock_take(&engine->lock);
    atomic_store(&engine->stop, true);
    os_lock_give(&engine->lock);
    os_event_set(&engine->event);
    if (atomic_load(&engine->started) && !engine->joined)
        os_thread_join(&engine->thread);
    engine->joined = true;
}

void sql_engine_close(struct sql_engine **engine)
{
    struct sql_engine *e = *engine;
    *engine = NULL;
    if (!e)
        return;
    slab_heap_drain(&e->heap);
    slab_heap_fini(&e->heap);
    os_lock_fini(&e->lock);
    mem_free(e);
}
