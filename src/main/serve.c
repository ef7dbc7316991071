/* Boot order, wiring, and the way down, see serve.h.
 *
 * Boot: limits → data folder → journal_open → broker_new → replay → journal thread → worker → loops → control socket →
 * definitions → listeners. Nobody is accepted before everything older has been read; nothing sleeps on the way.
 *
 * loops = 1: the main thread is the loop, and the core is a phase of its tick (turn_alone). loops = N: the main thread is
 * loop 0, N - 1 threads are the others, and the core has a thread of its own (core_run) that sleeps on an event. Whoever
 * publishes into a ring wakes the other side; a wake is one atomic exchange while the other side is awake, and is never
 * lost (os_poll.h, thread.h). The journal's thread wakes everybody who may hold something until durable.
 *
 * The way down is a small state machine in loop 0's turn (stop_advance): RUNNING → CLOSING (listeners closed, clients told)
 * → DRAINING (CMD_DRAIN) → DONE; each step has a deadline, and only the journal's last sync is waited for without one.
 * The journal's failure goes straight to DONE: nothing may be answered any more. */
#include "main/serve.h"

#include "admin/control.h"
#include "admin/import.h"
#include "base/check.h"
#include "base/mem.h"
#include "journal/journal.h"
#include "main/certificates.h"
#include "main/exit_codes.h"
#include "main/pager.h"
#include "main/protocols.h"
#include "main/scrubber.h"
#include "main/sql_engine.h"
#include "main/status.h"
#include "main/stream_pager.h"
#include "main/worker.h"
#include "net/listener.h"
#include "os/os_process.h"
#include "os/thread.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#define COMPACT_SLICE_BYTES (64u * 1024) /* with the pace: 64 MB/s of a snapshot while clients are busy */
#define COMPACT_PACE_NS NS_PER_MS
#define LOOPS_MAX 64
/* Journal files, polls, the control socket; and listeners: without one for its next file the journal would have to stop. */
#define DESCRIPTORS_RESERVED (64 + 2 * PROTOCOLS_LISTENERS_MAX)
#define CLOSING_NS (2 * NS_PER_S)
#define CLOSING_LOOK_NS (10 * NS_PER_MS) /* how often loop 0 looks whether the others' connections are gone */
#define DRAINING_NS (1 * NS_PER_S)
#define CONNS_PER_LOOP_MAX (1u << 20)
#define COMPACT_BYTES_MIN (64u << 20)
#define COMPACT_BYTES_MAX (256u << 20)
#define LOOK_BYTES (8u << 20) /* written to the journal: as much may have gone to pages */
#define STOP_REASON "shutdown"

enum serve_phase { SERVE_RUNNING, SERVE_CLOSING, SERVE_DRAINING, SERVE_DONE };

struct serve;

struct serve_loop {
    struct serve *serve;
    struct loop *loop;
    struct hub *hub;
    struct slab_heap heap; /* loops = N; with one loop the core's heap is used */
    struct os_thread thread;
    unsigned index;
    bool closing; /* has told its clients */
};

struct serve {
    const struct config *config;
    struct os *os;
    struct log log;
    struct journal *journal;
    struct broker *broker;
    struct worker *worker;
    struct port *worker_port, *store_port, *streams_port, *sql_port;
    struct pager *pager;
    struct stream_pager *stream_pager;
    struct sql_engine *sql; /* NULL: there is no continuous SQL */
    bool statements;        /* in the catalogue, when the journal had been read */
    struct scrubber *scrubber;
    struct control *control;
    struct caller drain;
    struct certificates *certificates;
    bool on_terminal;
    struct protocols *protocols; /* NULL: nobody is accepted yet */
    uint32_t conns_max;
    struct serve_loop loops[LOOPS_MAX];
    struct loop *loop_list[LOOPS_MAX];
    unsigned loop_count;
    struct listener *control_listener;
    struct os_event core_event;
    struct os_thread core_thread;
    _Atomic bool core_stop, core_running;
    _Atomic unsigned phase; /* enum serve_phase, written by loop 0 */
    mono_t phase_until;
    bool tight;         /* the core's: what the journal said of the disk then */
    uint64_t looked_at; /* the core's: what the journal had written when memory and disk were last looked at for that */
    bool drained;
    int exit_code;
    char control_path[4200];
    char why[512];
};

static bool is_alone(const struct serve *s)
{
    return s->loop_count == 1;
}

static mono_t sooner(mono_t a, mono_t b)
{
    return a < b ? a : b;
}

/* ---- waking ---- */

static bool has_effects(struct port *port)
{
    return atomic_load_explicit(&port->effects.tail_published, memory_order_relaxed) !=
           atomic_load_explicit(&port->effects.head_published, memory_order_relaxed);
}

static void wake_core(void *arg)
{
    struct serve *s = arg;
    if (atomic_load_explicit(&s->core_running, memory_order_acquire))
        os_event_set(&s->core_event);
    else
        loop_wake(s->loops[0].loop);
}

/* The journal's thread: something became durable, or the journal has failed. */
static void on_journal_progress(void *arg)
{
    struct serve *s = arg;
    for (unsigned i = 0; i < s->loop_count; i++)
        loop_wake(s->loops[i].loop);
    if (atomic_load_explicit(&s->core_running, memory_order_acquire))
        os_event_set(&s->core_event);
    if (s->sql)
        sql_engine_durable(s->sql);
}

static void on_first_signal(void *arg)
{
    struct serve *s = arg;
    loop_wake(s->loops[0].loop);
}

/* ---- the core ---- */

/* One tick of the core; true: it wants another one at once. */
static bool core_step(struct serve *s)
{
    bool more = broker_step(s->broker, s->os->now_mono(s->os), s->os->now_wall(s->os), journal_durable(s->journal));
    journal_kick(s->journal);
    uint64_t written = journal_written(s->journal);
    bool tight = journal_ready(s->journal) != UINT64_MAX;
    if (written - s->looked_at >= LOOK_BYTES || tight != s->tight) {
        s->looked_at = written;
        s->tight = tight;
        worker_look(s->worker);
    } else if (has_effects(s->worker_port))
        worker_wake(s->worker);
    if (has_effects(s->store_port))
        pager_wake(s->pager);
    if (has_effects(s->streams_port))
        stream_pager_wake(s->stream_pager);
    if (s->sql && has_effects(s->sql_port))
        sql_engine_wake(s->sql);
    return more;
}

static void core_run(void *arg)
{
    struct serve *s = arg;
    while (!atomic_load(&s->core_stop)) {
        bool more = core_step(s);
        for (unsigned i = 0; i < s->loop_count; i++)
            if (has_effects(broker_port(s->broker, i)))
                loop_wake(s->loops[i].loop);
        if (has_effects(broker_port(s->broker, s->loop_count))) /* the control port is served by loop 0 */
            loop_wake(s->loops[0].loop);
        if (more)
            continue;
        mono_t due = broker_next_due(s->broker);
        int64_t wait = due == MONO_NEVER ? -1 : due - s->os->now_mono(s->os);
        if (due == MONO_NEVER || wait > 0)
            os_event_wait(&s->core_event, wait);
    }
}

/* ---- the way down ---- */

static void phase_enter(struct serve *s, enum serve_phase phase, mono_t until)
{
    s->phase_until = until;
    atomic_store_explicit(&s->phase, phase, memory_order_release);
    for (unsigned i = 1; i < s->loop_count; i++)
        if (s->loops[i].loop)
            loop_wake(s->loops[i].loop);
}

static enum serve_phase phase_of(struct serve *s)
{
    return (enum serve_phase)atomic_load_explicit(&s->phase, memory_order_acquire);
}

static uint32_t conns_left(const struct serve *s)
{
    uint32_t sum = 0;
    for (unsigned i = 0; i < s->loop_count; i++)
        sum += loop_conns(s->loops[i].loop);
    return sum;
}

static void on_drained(struct caller *caller, const struct call_result *result)
{
    (void)result;
    CONTAINER_OF(caller, struct serve, drain)->drained = true;
}

static void start_closing(struct serve *s, mono_t now)
{
    log_event(&s->log, LOG_stopping, log_num("signal", os_signal_caught()), log_num("connections", conns_left(s)));
    listener_close(&s->control_listener);
    protocols_close(s->protocols);
    protocols_leave(s->protocols);
    phase_enter(s, SERVE_CLOSING, now + CLOSING_NS);
}

static void start_draining(struct serve *s, mono_t now)
{
    phase_enter(s, SERVE_DRAINING, now + DRAINING_NS);
    if (s->sql)
        sql_engine_stop(s->sql); /* what its queries have done is a step, or never happened */
    s->drained = !caller_init(&s->drain, control_hub(s->control));
    s->drain.on_done = on_drained;
    if (!s->drained && !caller_call(&s->drain, CMD_DRAIN, 0, NULL, false))
        s->drained = true; /* what is acknowledged is in the journal anyway */
}

/* What is acknowledged is safe in any case: a start finds it. */
static const char *advice(int err)
{
    switch (err) {
    case -ENOSPC:
    case -EDQUOT: return "make room on this disk, then start again";
    case -EROFS: return "mount this disk for writing again, then start again";
    case -EIO: return "look at the disk (kernel log), then start again: what was acknowledged will be found";
    default: return "start again when the reason is gone";
    }
}

static void journal_is_dead(struct serve *s, int err)
{
    log_event(&s->log, LOG_journal_failed, log_str("error", strerror(-err)),
              log_str("reason", journal_failure_text(s->journal)), log_str("folder", s->config->data),
              log_str("advice", advice(err)));
    s->exit_code = END_JOURNAL;
    phase_enter(s, SERVE_DONE, 0);
}

/* What is in memory of the failed pages nobody knows; the journal has it all. */
static void streams_are_dead(struct serve *s, int err)
{
    log_event(&s->log, LOG_stream_unsynced, log_str("error", strerror(-err)), log_str("advice", advice(err)));
    s->exit_code = END_JOURNAL;
    phase_enter(s, SERVE_DONE, 0);
}

/* SIGHUP: read the certificates again; or the terminal that we were started on is gone, and nobody would ever stop us. */
static bool is_abandoned(struct serve *s)
{
    if (!os_signal_hung_up())
        return false;
    if (s->on_terminal && !os_is_terminal(2))
        return true;
    certificates_ask(s->certificates);
    worker_errand(s->worker);
    return false;
}

/* Loop 0's thread, once a turn. Returns when it wants to be called again. */
static mono_t stop_advance(struct serve *s, mono_t now)
{
    int err = journal_failure(s->journal);
    if (err < 0 && phase_of(s) != SERVE_DONE)
        journal_is_dead(s, err);
    err = stream_pager_failure(s->stream_pager);
    if (err < 0 && phase_of(s) != SERVE_DONE)
        streams_are_dead(s, err);
    switch (phase_of(s)) {
    case SERVE_RUNNING:
        if (os_signal_caught() || is_abandoned(s))
            start_closing(s, now);
        return phase_of(s) == SERVE_RUNNING ? MONO_NEVER : now;
    case SERVE_CLOSING:
        if (conns_left(s) && now < s->phase_until)
            return is_alone(s) ? s->phase_until : sooner(s->phase_until, now + CLOSING_LOOK_NS);
        if (conns_left(s))
            log_event(&s->log, LOG_stop_forced, log_num("connections", conns_left(s)));
        start_draining(s, now);
        return now;
    case SERVE_DRAINING:
        if (!s->drained && now < s->phase_until)
            return s->phase_until;
        phase_enter(s, SERVE_DONE, 0);
        return now;
    case SERVE_DONE: return MONO_NEVER;
    }
    return MONO_NEVER;
}

/* Each loop's own part in it. */
static void loop_follow(struct serve_loop *sl)
{
    enum serve_phase phase = phase_of(sl->serve);
    if (phase == SERVE_CLOSING && !sl->closing) {
        sl->closing = true;
        loop_shutdown(sl->loop, STOP_REASON);
    }
    if (phase == SERVE_DONE)
        loop_stop(sl->loop);
}

/* ---- turns ---- */

/* What else loop 0 has to do, when it is due again. */
static mono_t first_turn(struct serve_loop *sl, mono_t now)
{
    struct serve *s = sl->serve;
    mono_t due = stop_advance(s, now);
    if (s->protocols && phase_of(s) == SERVE_RUNNING)
        due = sooner(due, protocols_turn(s->protocols, sl->hub, now));
    return due;
}

static mono_t turn_alone(void *arg, mono_t now)
{
    struct serve_loop *sl = arg;
    struct serve *s = sl->serve;
    hub_publish(sl->hub);
    hub_publish(control_hub(s->control));
    bool more = core_step(s);
    lsn_t durable = journal_durable(s->journal);
    more |= hub_turn(sl->hub, durable, now);
    more |= hub_turn(control_hub(s->control), durable, now);
    mono_t due = first_turn(sl, now);
    loop_follow(sl);
    return more ? now : sooner(due, broker_next_due(s->broker));
}

static mono_t turn_apart(void *arg, mono_t now)
{
    struct serve_loop *sl = arg;
    struct serve *s = sl->serve;
    bool first = sl->index == 0, published = hub_publish(sl->hub);
    if (first)
        published |= hub_publish(control_hub(s->control));
    if (published)
        os_event_set(&s->core_event);
    lsn_t durable = journal_durable(s->journal);
    bool more = hub_turn(sl->hub, durable, now);
    if (first)
        more |= hub_turn(control_hub(s->control), durable, now);
    slab_heap_drain(&sl->heap);
    mono_t due = first ? first_turn(sl, now) : MONO_NEVER;
    loop_follow(sl);
    return more ? now : due;
}

/* What the flush made engines ask of the core (credit, mostly) must not wait for the next event. */
static bool idle(void *arg)
{
    struct serve_loop *sl = arg;
    struct serve *s = sl->serve;
    bool published = hub_publish(sl->hub);
    if (sl->index == 0)
        published |= hub_publish(control_hub(s->control));
    if (published && !is_alone(s))
        os_event_set(&s->core_event);
    return published && is_alone(s);
}

/* ---- boot ---- */

__attribute__((format(printf, 3, 4))) static int fail(struct serve *s, enum exit_code code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(s->why, sizeof s->why, format, args);
    va_end(args);
    s->exit_code = code;
    return -1;
}

static int open_folder(struct serve *s)
{
    const char *dir = s->config->data;
    int err = s->os->mkdir(s->os, dir);
    if (err < 0 && err != -EEXIST)
        return fail(s, END_DATA_FOLDER, "the data folder %s cannot be made: %s", dir, strerror(-err));
    return 0;
}

static int open_journal(struct serve *s)
{
    static const enum journal_direct_io direct[] = {JOURNAL_DIRECT_AUTO, JOURNAL_DIRECT_ON, JOURNAL_DIRECT_OFF};
    struct journal_options options = {.os = s->os,
                                      .dir = s->config->data,
                                      .direct_io = direct[s->config->direct_io],
                                      .file_bytes = s->config->journal_file_bytes,
                                      .group_bytes_max = s->config->journal_group_bytes,
                                      .staged_bytes_max = s->config->journal_staged_bytes,
                                      .on_progress = on_journal_progress,
                                      .arg = s};
    char why[400] = "";
    int err = journal_open(&options, &s->journal, why, sizeof why);
    if (err == 0)
        return 0;
    enum exit_code code = err == -EILSEQ                         ? END_DATA_DAMAGED
                          : err == -EPROTO                       ? END_DATA_FOREIGN
                          : err == -EWOULDBLOCK || err == -EBUSY ? END_DATA_BUSY
                          : err == -ENOMEM                       ? END_SYSTEM
                                                                 : END_DATA_FOLDER;
    if (code == END_DATA_BUSY)
        return fail(s, code, "another broker is running on the data folder %s", s->config->data);
    return fail(s, code, "%s", why[0] ? why : strerror(-err));
}

static bool log_room(void *self)
{
    return journal_room(self);
}

static bool log_reserve(void *self, size_t bytes, unsigned count)
{
    return journal_reserve(self, bytes, count);
}

static lsn_t log_append(void *self, const struct slice *parts, unsigned count)
{
    return journal_append(self, parts, count);
}

static void log_fresh(void *self)
{
    journal_fresh(self);
}

static void log_trim(void *self, lsn_t upto)
{
    journal_trim(self, upto);
}

static uint64_t log_ready(void *self, bool fresh)
{
    return journal_capacity(self, fresh);
}

static uint64_t log_live_bytes(void *self)
{
    return journal_live_bytes(self);
}

static void draw(void *arg, void *ret, size_t len)
{
    struct os *os = arg;
    os->random(os, ret, len);
}

struct replay {
    struct serve *serve;
    uint64_t records;
    char why[400];
};

static int replay_one(void *arg, lsn_t lsn, struct slice record)
{
    struct replay *replay = arg;
    replay->records++;
    return broker_replay(replay->serve->broker, lsn, record, replay->why, sizeof replay->why);
}

/* A longer journal is compacted less often, so fewer bytes are written twice; a start has to read it, and it needs room. */
static uint64_t compact_bytes_for(struct serve *s)
{
    uint64_t free_bytes, total;
    if (s->os->space(s->os, s->config->data, &free_bytes, &total) < 0)
        return COMPACT_BYTES_MIN;
    uint64_t share = total / 32;
    return share < COMPACT_BYTES_MIN ? COMPACT_BYTES_MIN : share < COMPACT_BYTES_MAX ? share : COMPACT_BYTES_MAX;
}

static int make_broker(struct serve *s)
{
    const struct config *c = s->config;
    struct broker_options options = {
        .log = {.self = s->journal,
                .room = log_room,
                .reserve = log_reserve,
                .append = log_append,
                .fresh = log_fresh,
                .trim = log_trim,
                .live_bytes = log_live_bytes,
                .ready = log_ready},
        .random = draw,
        .random_arg = s->os,
        .ports = s->loop_count + 1,
        .message_bytes_max = c->message_bytes_max,
        .channel_consumers_max = (unsigned)c->channel_consumers_max,
        .tx_bytes_max = c->tx_bytes_max,
        .compact_slice_bytes = COMPACT_SLICE_BYTES,
        .compact_pace_ns = COMPACT_PACE_NS,
        .compact_bytes = c->compact_bytes ? c->compact_bytes : compact_bytes_for(s),
        .compact_every = c->compact_every,
        .keyed_every_ms = (int64_t)c->keyed_every_s * 1000,
        .group_delay_ms = c->kafka_group_delay_ms ? (int64_t)c->kafka_group_delay_ms : -1,
        .group_session_min_ms = (int64_t)c->kafka_group_session_min_ms,
        .group_session_max_ms = (int64_t)c->kafka_group_session_max_ms,
        .group_consumer_session_ms = (int64_t)c->kafka_consumer_session_ms,
        .group_consumer_beat_ms = (int64_t)c->kafka_consumer_beat_ms,
        .group_members_max = (uint32_t)c->kafka_group_members_max,
        .groups_bytes_max = c->kafka_groups_bytes_max,
        .fetch_sessions_bytes_max = c->kafka_fetch_sessions_bytes_max,
        .txn_retention_ms = (int64_t)c->kafka_txn_retention_s * 1000,
        .txns_bytes_max = c->kafka_txns_bytes_max,
        .retained_max = c->mqtt_retained_max,
        .retained_bytes_max = c->mqtt_retained_bytes_max,
        .mqtt_sessions_max = (uint32_t)c->mqtt_sessions_max,
        .group_retention_ms = (int64_t)c->kafka_offsets_retention_s * 1000,
        .paging_bytes = c->paging_bytes,
        .page_bytes = c->page_bytes,
        .consumer_timeout_ms = (int64_t)c->consumer_timeout_ms,
        .default_user = slice_str(c->default_user),
        .default_pass = slice_str(c->default_pass),
        .default_vhost = slice_str(c->default_vhost),
        .guest_loopback_only = c->guest_loopback_only,
        .streams = true,
        .sql = c->sql,
    };
    s->broker = broker_new(&options);
    if (!s->broker)
        return fail(s, END_SYSTEM, "no memory for the broker");
    s->worker_port = broker_port(s->broker, s->loop_count + 1);
    s->store_port = broker_port(s->broker, s->loop_count + 2);
    s->streams_port = broker_port(s->broker, s->loop_count + 3);
    s->sql_port = broker_port(s->broker, s->loop_count + 4);
    return 0;
}

static int open_certificates(struct serve *s)
{
    enum exit_code code = certificates_open(s->config, s->os, &s->log, &s->certificates, s->why, sizeof s->why);
    s->exit_code = code;
    return code == END_OK ? 0 : -1;
}

static int open_store(struct serve *s)
{
    struct pager_options options = {.os = s->os,
                                    .log = &s->log,
                                    .dir = s->config->data,
                                    .uuid = journal_uuid(s->journal),
                                    .port = s->store_port,
                                    .wake_core = wake_core,
                                    .arg = s};
    char why[400] = "";
    int err = pager_open(&options, &s->pager, why, sizeof why);
    options.port = s->streams_port;
    options.compact_rate = s->config->keyed_rate;
    if (err >= 0)
        err = stream_pager_open(&options, &s->stream_pager, why, sizeof why);
    return err < 0 ? fail(s, err == -ENOMEM ? END_SYSTEM : END_DATA_FOLDER, "%s", why) : 0;
}

static int open_sql(struct serve *s)
{
    struct sql_engine_options options = {.os = s->os,
                                         .log = &s->log,
                                         .port = s->sql_port,
                                         .journal = s->journal,
                                         .snapshot_rows = s->config->sql_snapshot_rows,
                                         .dir = s->config->data,
                                         .scratch_bytes = s->config->sql_scratch_bytes,
                                         .disk_free_min = s->config->disk_free_min,
                                         .wake_core = wake_core,
                                         .arg = s};
    if (s->config->sql && !(s->sql = sql_engine_open(&options)))
        return fail(s, END_SYSTEM, "no memory for continuous SQL");
    return 0;
}

static int recover(struct serve *s)
{
    mono_t began = s->os->now_mono(s->os);
    struct replay replay = {.serve = s};
    int err = journal_read(s->journal, replay_one, &replay, replay.why, sizeof replay.why);
    if (err == 0)
        err = broker_replayed(s->broker, began, s->os->now_wall(s->os), replay.why, sizeof replay.why);
    if (err == 0)
        err = pager_keep(s->pager, s->broker, replay.why, sizeof replay.why);
    if (err == 0)
        err = stream_pager_keep(s->stream_pager, s->broker, replay.why, sizeof replay.why);
    if (err != 0)
        return fail(s, err == -ENOMEM ? END_SYSTEM : END_DATA_DAMAGED, "%s",
                    replay.why[0] ? replay.why : strerror(-err));
    s->statements = s->sql && broker_statements(s->broker);
    log_event(&s->log, LOG_recovered, log_num("records", (int64_t)replay.records),
              log_num("ms", (s->os->now_mono(s->os) - began) / NS_PER_MS));
    return 0;
}

static unsigned loops_wanted(const struct config *config)
{
    unsigned processors = os_processors();
    if (config->loops)
        return (unsigned)config->loops;
    return processors <= 2 ? 1 : processors / 2 > 8 ? 8 : processors / 2;
}

static int make_loop(struct serve *s, unsigned index)
{
    struct serve_loop *sl = &s->loops[index];
    *sl = (struct serve_loop){.serve = s, .index = index};
    struct slab_heap *heap = broker_heap(s->broker);
    if (!is_alone(s)) {
        slab_heap_init(&sl->heap);
        heap = &sl->heap;
    }
    sl->hub = hub_new(broker_port(s->broker, index), heap, CONNS_PER_LOOP_MAX);
    struct loop_options options = {.os = s->os,
                                   .log = &s->log,
                                   .owner = sl->hub,
                                   .tls = certificates_server(s->certificates),
                                   .turn = is_alone(s) ? turn_alone : turn_apart,
                                   .idle = idle,
                                   .arg = sl};
    int err = sl->hub ? loop_new(&options, &sl->loop) : -ENOMEM;
    if (err < 0)
        return fail(s, END_SYSTEM, "a network loop cannot be made: %s", strerror(-err));
    s->loop_list[index] = sl->loop;
    return 0;
}

static void reload_certificates(void *arg)
{
    certificates_reload(((struct serve *)arg)->certificates);
}

static uint64_t ask_reload(void *arg)
{
    struct serve *s = arg;
    uint64_t ticket = certificates_ask(s->certificates);
    worker_errand(s->worker);
    return ticket;
}

static bool reloaded(void *arg, uint64_t ticket, char *ret_why, size_t why_len)
{
    return certificates_asked(((struct serve *)arg)->certificates, ticket, ret_why, why_len);
}

static void force_alarms(void *arg, unsigned alarms)
{
    worker_alarms_force(((struct serve *)arg)->worker, alarms);
}

static json_t *status(void *arg)
{
    struct serve *s = arg;
    return status_json(s->worker, s->journal, s->scrubber);
}

/* A backup copies files: none that the journal names may go meanwhile. */
static void hold_files(void *arg, unsigned what, bool on)
{
    struct serve *s = arg;
    if (what & HOLD_JOURNAL)
        journal_hold(s->journal, on);
    if (!(what & HOLD_OTHERS))
        return;
    pager_hold(s->pager, on);
    stream_pager_hold(s->stream_pager, on);
}

/* The end of the journal is looked at last: what it names is there, and stays. */
static bool files_held(void *arg, lsn_t *ret_durable)
{
    struct serve *s = arg;
    if (!journal_held(s->journal) || !pager_held(s->pager) || !stream_pager_held(s->stream_pager))
        return false;
    *ret_durable = journal_durable(s->journal);
    return true;
}

static int make_loops(struct serve *s)
{
    for (unsigned i = 0; i < s->loop_count; i++)
        if (make_loop(s, i) < 0)
            return -1;
    struct control_options options = {.port = broker_port(s->broker, s->loop_count),
                                      .heap = is_alone(s) ? broker_heap(s->broker) : &s->loops[0].heap,
                                      .log = &s->log,
                                      .force_alarms = force_alarms,
                                      .reload = ask_reload,
                                      .reloaded = reloaded,
                                      .status = status,
                                      .hold_files = hold_files,
                                      .files_held = files_held,
                                      .arg = s};
    s->control = control_new(&options);
    return s->control ? 0 : fail(s, END_SYSTEM, "no memory for the control socket");
}

static void loop_thread(void *arg)
{
    struct serve_loop *sl = arg;
    loop_run(sl->loop);
}

static int start_threads(struct serve *s)
{
    struct worker_options options = {.os = s->os,
                                     .log = &s->log,
                                     .port = s->worker_port,
                                     .dir = s->config->data,
                                     .journal = s->journal,
                                     .journal_file_bytes = s->config->journal_file_bytes,
                                     .memory_high_watermark = s->config->memory_high_watermark,
                                     .memory_hard_watermark = s->config->memory_hard_watermark,
                                     .disk_free_min = s->config->disk_free_min,
                                     .disk_free_hard = s->config->disk_free_hard,
                                     .wake_core = wake_core,
                                     .errand = reload_certificates,
                                     .arg = s};
    int err = journal_start(s->journal);
    if (err == 0)
        err = worker_start(&options, &s->worker);
    if (err == 0)
        err = pager_start(s->pager);
    if (err == 0)
        err = stream_pager_start(s->stream_pager);
    if (err == 0 && !is_alone(s)) {
        atomic_store(&s->core_running, true);
        err = os_thread_start(&s->core_thread, "core", core_run, s);
        atomic_store(&s->core_running, err == 0);
    }
    for (unsigned i = 1; i < s->loop_count && err == 0; i++) {
        char name[16];
        snprintf(name, sizeof name, "loop-%u", i);
        err = os_thread_start(&s->loops[i].thread, name, loop_thread, &s->loops[i]);
    }
    if (err == 0 && s->statements)
        sql_engine_wake(s->sql); /* their queries go on */
    return err < 0 ? fail(s, END_SYSTEM, "a thread cannot be started: %s", strerror(-err)) : 0;
}

static int listen_control(struct serve *s)
{
    int len = snprintf(s->control_path, sizeof s->control_path, "%s/" CONTROL_SOCKET, s->config->data);
    CHECK(len > 0 && (size_t)len < sizeof s->control_path);
    struct listener_options options = {.loop = s->loops[0].loop, .factory = control_factory(s->control)};
    int err = listener_open_unix(&options, s->control_path, &s->control_listener);
    if (err < 0) {
        s->control_path[0] = '\0';
        return fail(s, END_DATA_FOLDER, "the control socket in %s cannot be made: %s", s->config->data, strerror(-err));
    }
    return 0;
}

static uint32_t conns_max(struct serve *s)
{
    uint64_t descriptors = os_descriptors_raise();
    uint64_t room = descriptors > 2 * DESCRIPTORS_RESERVED ? descriptors - DESCRIPTORS_RESERVED : descriptors / 2;
    if (s->config->connections_max == 0)
        return (uint32_t)(room > UINT32_MAX ? UINT32_MAX : room);
    if (s->config->connections_max > room)
        log_event(&s->log, LOG_limit_descriptors, log_num("connections", (int64_t)room));
    return (uint32_t)(s->config->connections_max < room ? s->config->connections_max : room);
}

/* From here on clients are served. */
static int listen_clients(struct serve *s)
{
    s->conns_max = conns_max(s);
    struct protocols_options options = {.config = s->config,
                                        .os = s->os,
                                        .log = &s->log,
                                        .uuid = journal_uuid(s->journal),
                                        .loops = s->loop_list,
                                        .loop_count = s->loop_count,
                                        .conns_max = s->conns_max,
                                        .worker = s->worker,
                                        .tls = certificates_server(s->certificates)};
    enum exit_code code = protocols_listen(&options, &s->protocols, s->why, sizeof s->why);
    s->exit_code = code;
    return code == END_OK ? 0 : -1;
}

static void note_definitions(void *arg, const char *text)
{
    log_event(&((struct serve *)arg)->log, LOG_definitions_note, log_str("note", text));
}

/* Before anybody is accepted; the loop turns meanwhile, and a signal or a dead journal ends it. */
static int import_definitions(struct serve *s)
{
    if (s->config->definitions[0] == '\0')
        return 0;
    json_t *json;
    if (definitions_load(s->os, s->config->definitions, &json, s->why, sizeof s->why) < 0) {
        s->exit_code = END_DEFINITIONS;
        return -1;
    }
    struct definitions *definitions = definitions_new(json, note_definitions, s, s->why, sizeof s->why);
    json_decref(json);
    size_t count = definitions ? definitions_count(definitions) : 0;
    struct import *import = definitions ? import_start(&definitions, control_hub(s->control)) : NULL;
    while (import && !import_done(import) && phase_of(s) == SERVE_RUNNING)
        loop_tick(s->loops[0].loop, true);
    const char *failure = import ? import_failure(import) : NULL;
    int err = 0;
    if (failure || (!import && s->why[0] == '\0'))
        err = fail(s, END_DEFINITIONS, "%s", failure ? failure : "out of memory");
    else if (!import)
        err = -1; /* definitions_new has said why */
    if (!import)
        s->exit_code = END_DEFINITIONS;
    import_free(&import);
    if (err == 0)
        log_event(&s->log, LOG_definitions_imported, log_str("file", s->config->definitions),
                  log_num("objects", (int64_t)count));
    return err;
}

static int boot(struct serve *s)
{
    const struct config *c = s->config;
    os_dumpable_set(c->dumpable);
    s->on_terminal = os_is_terminal(2);
    s->loop_count = loops_wanted(c);
    if (open_folder(s) < 0 || open_journal(s) < 0 || open_certificates(s) < 0 || make_broker(s) < 0 ||
        open_store(s) < 0 || open_sql(s) < 0 || recover(s) < 0 || make_loops(s) < 0)
        return -1;
    os_signals_catch(on_first_signal, s);
    if (start_threads(s) < 0 || listen_control(s) < 0 || import_definitions(s) < 0)
        return -1;
    int err = scrubber_start(s->os, s->config, &s->log, s->journal, &s->scrubber);
    if (err < 0)
        return fail(s, END_SYSTEM, "a thread cannot be started: %s", strerror(-err));
    return phase_of(s) == SERVE_RUNNING ? listen_clients(s) : 0; /* a signal may have come by now */
}

/* ---- end ---- */

static void join_threads(struct serve *s)
{
    for (unsigned i = 1; i < s->loop_count; i++)
        if (s->loops[i].thread.id) {
            loop_wake(s->loops[i].loop);
            os_thread_join(&s->loops[i].thread);
        }
    if (atomic_load(&s->core_running)) {
        atomic_store(&s->core_stop, true);
        os_event_set(&s->core_event);
        os_thread_join(&s->core_thread);
        atomic_store(&s->core_running, false);
    }
    if (s->scrubber)
        scrubber_stop(s->scrubber);
    if (s->sql)
        sql_engine_stop(s->sql);
    worker_stop(&s->worker);
    if (s->pager)
        pager_stop(s->pager, broker_heap(s->broker));
    if (s->stream_pager)
        stream_pager_stop(s->stream_pager);
}

/* The loops' threads are gone: lets the sockets go, and the sessions that the core still has to confirm. */
static void let_go(struct serve *s)
{
    protocols_leave(s->protocols);
    for (unsigned i = 0; i < s->loop_count; i++)
        if (s->loops[i].loop)
            loop_close_all(s->loops[i].loop);
    if (s->drain.session.hub)
        caller_close(&s->drain);
    for (int round = 0; round < 1000; round++) {
        uint32_t left = hub_sessions(control_hub(s->control));
        hub_publish(control_hub(s->control));
        for (unsigned i = 0; i < s->loop_count; i++) {
            hub_publish(s->loops[i].hub);
            left += hub_sessions(s->loops[i].hub);
        }
        if (left == 0)
            return;
        mono_t now = s->os->now_mono(s->os);
        lsn_t durable = journal_durable(s->journal);
        broker_step(s->broker, now, s->os->now_wall(s->os), durable);
        hub_turn(control_hub(s->control), durable, now);
        for (unsigned i = 0; i < s->loop_count; i++)
            hub_turn(s->loops[i].hub, durable, now);
    }
}

/* Frees everything in a clean end. When sessions are left (they cannot be) the memory is left to the system. */
static void tear_down(struct serve *s)
{
    join_threads(s);
    bool clean = true;
    if (s->control)
        let_go(s);
    scrubber_join(&s->scrubber);
    if (s->journal) {
        int err = journal_stop(s->journal);
        if (err < 0 && s->exit_code == END_OK) {
            log_event(&s->log, LOG_journal_failed, log_str("error", strerror(-err)),
                      log_str("reason", journal_failure_text(s->journal)), log_str("folder", s->config->data),
                      log_str("advice", advice(err)));
            s->exit_code = END_JOURNAL;
        }
    }
    if (s->control_path[0])
        (void)s->os->unlink(s->os, s->control_path);
    clean = !s->control || hub_sessions(control_hub(s->control)) == 0;
    for (unsigned i = 0; i < s->loop_count; i++)
        clean = clean && (!s->loops[i].hub || hub_sessions(s->loops[i].hub) == 0);
    if (clean) {
        control_free(&s->control);
        for (unsigned i = 0; i < s->loop_count; i++) {
            loop_free(&s->loops[i].loop);
            hub_free(&s->loops[i].hub);
        }
        protocols_free(&s->protocols);
        certificates_close(&s->certificates);
        broker_free(&s->broker);
        pager_close(&s->pager);
        stream_pager_close(&s->stream_pager);
        sql_engine_close(&s->sql);
        for (unsigned i = 0; !is_alone(s) && i < s->loop_count; i++)
            if (s->loops[i].serve) {
                slab_heap_drain(&s->loops[i].heap);
                slab_heap_fini(&s->loops[i].heap);
            }
    }
    journal_close(&s->journal);
}

int serve_run(const struct config *config)
{
    struct serve *s = mem_zalloc(sizeof *s);
    if (!s)
        return END_SYSTEM;
    s->config = config;
    s->os = os_posix();
    log_init(&s->log, config->log_format == 1);
    s->log.level = (enum log_level)config->log_level;
    mono_t began = s->os->now_mono(s->os);
    if (boot(s) == 0) {
        log_event(&s->log, LOG_ready, log_num("us", (s->os->now_mono(s->os) - began) / 1000));
        if (!s->log.json)
            protocols_banner(s->protocols, stdout);
        loop_run(s->loops[0].loop);
    } else {
        log_event(&s->log, LOG_start_failed, log_str("reason", s->why));
        phase_enter(s, SERVE_DONE, 0);
    }
    tear_down(s);
    int code = s->exit_code;
    if (code == END_OK)
        log_event(&s->log, LOG_stopped, log_num("code", code));
    mem_free(s);
    return code;
}
