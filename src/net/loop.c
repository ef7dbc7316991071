/* A network loop, see loop.h.
 *
 * The tick's phases are those of the architecture: completions (what other threads handed over) → timers → reads → turn
 * (core, durable lsn, effects) → flush → reap. A connection is read at most READ_CONN_MAX bytes a tick and all together
 * READ_TICK_MAX; who has more stands on the ready list and comes first next time, so one bulk publisher does not own
 * everybody's latency. Engines that become dirty while others are flushed are flushed in the same tick, once more; what
 * is dirty after that makes the next tick come at once.
 *
 * The loop sleeps only when nothing is ready, nothing is dirty and the idle hook has nothing: wakes from other threads
 * cannot be lost in between, see os_poll.h. */
#include "net/loop.h"

#include "base/check.h"
#include "base/mem.h"
#include "net/net_int.h"
#include "net/tls.h"
#include "net/websocket_deflate.h"

#include <errno.h>

#define TIMERS_PER_TICK 1024
#define FLUSH_ROUNDS 2

int loop_new(const struct loop_options *options, struct loop **ret)
{
    struct loop *loop = mem_zalloc(sizeof *loop);
    if (!loop)
        return -ENOMEM;
    loop->options = *options;
    loop->scratch = mem_alloc_as(MEM_CONNECTIONS, TAIL_COPY_MAX + READ_GULP);
    bool ring = ring_init(&loop->handed, HANDED_MAX, sizeof(struct handed));
    int err = loop->scratch && ring ? os_poll_open(&loop->poll) : -ENOMEM;
    if (err < 0) {
        ring_fini(&loop->handed);
        mem_free_as(MEM_CONNECTIONS, loop->scratch);
        mem_free(loop);
        return err;
    }
    loop->now = options->os->now_mono(options->os);
    loop->due = loop->now;
    wheel_init(&loop->wheel, loop->now);
    list_init(&loop->conns);
    list_init(&loop->ready);
    list_init(&loop->dirty);
    list_init(&loop->dead);
    list_init(&loop->listeners);
    *ret = loop;
    return 0;
}

static void reap(struct loop *loop)
{
    LIST_EACH(&loop->dead, node, after)
    conn_free(conn_of_link(node));
}

void loop_free(struct loop **loop)
{
    struct loop *l = *loop;
    if (!l)
        return;
    *loop = NULL;
    struct handed *handed;
    while ((handed = ring_peek(&l->handed))) {
        os_socket_close(handed->fd);
        ring_pop(&l->handed);
    }
    loop_close_all(l);
    listener_free_all(l);
    os_poll_close(&l->poll);
    ring_fini(&l->handed);
    mem_free_as(MEM_CONNECTIONS, l->scratch);
    tls_buffers_free(&l->tls_buffers);
    websocket_deflate_free(&l->deflate);
    mem_free(l);
}

bool loop_connect(struct loop *loop, int fd, const struct os_peer *peer, const struct engine_factory *factory)
{
    if (conn_open(loop, fd, peer, factory))
        return true;
    log_event(loop->options.log, LOG_connection_memory, log_str("peer", peer->text));
    return false;
}

bool loop_hand(struct loop *loop, int fd, const struct os_peer *peer, const struct engine_factory *factory)
{
    struct handed *handed = ring_push(&loop->handed);
    if (!handed)
        return false;
    *handed = (struct handed){.fd = fd, .peer = *peer, .factory = factory};
    ring_publish(&loop->handed);
    loop_wake(loop);
    return true;
}

static void take_handed(struct loop *loop)
{
    struct handed *handed;
    while ((handed = ring_peek(&loop->handed))) {
        struct handed copy = *handed;
        ring_pop(&loop->handed);
        loop_connect(loop, copy.fd, &copy.peer, copy.factory);
    }
}

/* Those who wait the longest first; who is ready again goes to the end. */
static void read_ready(struct loop *loop)
{
    struct list batch;
    list_init(&batch);
    size_t left = READ_TICK_MAX;
    while (!list_empty(&loop->ready)) {
        struct list *node = loop->ready.next;
        list_remove(node);
        list_insert(&batch, node);
    }
    while (!list_empty(&batch) && left) {
        struct conn *conn = conn_of_ready(batch.next);
        list_remove(batch.next);
        size_t n = conn_read(conn, left < READ_CONN_MAX ? left : READ_CONN_MAX);
        left -= n < left ? n : left;
    }
    while (!list_empty(&batch)) { /* not reached in this tick: in front of the others, in order */
        struct list *node = batch.prev;
        list_remove(node);
        list_insert(loop->ready.next, node);
    }
}

static void flush_dirty(struct loop *loop)
{
    for (int round = 0; round < FLUSH_ROUNDS && !list_empty(&loop->dirty); round++) {
        struct list batch;
        list_init(&batch);
        while (!list_empty(&loop->dirty)) {
            struct list *node = loop->dirty.next;
            list_remove(node);
            list_insert(&batch, node);
        }
        while (!list_empty(&batch)) {
            struct engine *engine = CONTAINER_OF(batch.next, struct engine, dirty_link);
            list_remove(&engine->dirty_link);
            engine->in_dirty = false;
            if (engine->conn)
                conn_flush(engine->conn);
        }
    }
}

static mono_t sooner(mono_t a, mono_t b)
{
    return a < b ? a : b;
}

static int64_t sleep_ns(struct loop *loop, bool may_sleep)
{
    if (!may_sleep || loop->stopped || !list_empty(&loop->ready) || !list_empty(&loop->dirty))
        return 0;
    if (loop->options.idle && loop->options.idle(loop->options.arg))
        return 0;
    mono_t due = sooner(loop->due, wheel_next(&loop->wheel));
    if (due == MONO_NEVER)
        return -1;
    struct os *os = loop->options.os;
    mono_t now = os->now_mono(os);
    return due > now ? due - now : 0;
}

void loop_tick(struct loop *loop, bool may_sleep)
{
    struct os *os = loop->options.os;
    int64_t timeout_ns = sleep_ns(loop, may_sleep);
    os_poll_wait(&loop->poll, timeout_ns);
    loop->now = os->now_mono(os);
    loop->totals.ticks++;
    take_handed(loop);
    wheel_turn(&loop->wheel, loop->now, loop, TIMERS_PER_TICK);
    read_ready(loop);
    loop->due = loop->options.turn ? loop->options.turn(loop->options.arg, loop->now) : MONO_NEVER;
    flush_dirty(loop);
    reap(loop);
}

void loop_run(struct loop *loop)
{
    while (!loop->stopped)
        loop_tick(loop, true);
}

void loop_stop(struct loop *loop)
{
    loop->stopped = true;
}

void loop_wake(struct loop *loop)
{
    os_poll_wake(&loop->poll);
}

void loop_shutdown(struct loop *loop, const char *text)
{
    LIST_EACH(&loop->conns, node, after)
    {
        struct engine *engine = conn_engine(conn_of_link(node));
        if (!engine)
            continue;
        engine->now = loop->now;
        engine->ops->shutdown(engine, text);
        engine_dirty(engine);
    }
}

void loop_close_all(struct loop *loop)
{
    LIST_EACH(&loop->conns, node, after)
    conn_close(conn_of_link(node));
    reap(loop);
}

uint32_t loop_conns(const struct loop *loop)
{
    return atomic_load_explicit(&loop->conn_count, memory_order_relaxed);
}

void loop_totals(const struct loop *loop, struct loop_totals *ret)
{
    *ret = loop->totals;
}
