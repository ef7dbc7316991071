/* loop: one network loop: one thread's connections, timers and ticks.
 *
 * Life cycle: loop_new → (listeners, see listener.h) → loop_run on its thread until loop_stop → loop_free.
 * A tick: wait → timers → reads and feeds → turn (main's hook: commands to the core, the core itself when it shares the
 * thread, effects back to the engines) → flush writes → reap. Everything on the loop's own thread, except loop_wake,
 * loop_conns and loop_hand.
 */
#ifndef MILLRACE_NET_LOOP_H
#define MILLRACE_NET_LOOP_H

#include "net/engine.h"
#include "os/log.h"
#include "os/os.h"
#include "os/os_net.h"

struct loop;
struct tls_server;

struct loop_options {
    struct os *os;
    const struct log *log;  /* may be NULL */
    void *owner;            /* given to engine factories: the loop's hub */
    struct tls_server *tls; /* for connections that speak TLS; NULL: none may */
    /* After the reads of a tick. Returns when it wants to be called again (now or earlier: at once; MONO_NEVER). */
    mono_t (*turn)(void *arg, mono_t now);
    /* Before the loop sleeps: true when there is work after all (commands that the flush produced). May be NULL. */
    bool (*idle)(void *arg);
    void *arg;
};

/* What a listener makes for an accepted connection. */
struct engine_factory {
    /* NULL: no memory, or too many. */
    struct engine *(*make)(void *loop_owner, void *arg, const struct os_peer *peer, mono_t now);
    void *arg;
    bool tls; /* the peer begins with TLS; the loop has a tls_server */
};

/* 0 or a negative errno. */
MUST_USE int loop_new(const struct loop_options *options, struct loop **ret);
/* Closes what is still open. */
void loop_free(struct loop **loop);
void loop_run(struct loop *loop);
/* One tick; may_sleep false: looks only. For tests. */
void loop_tick(struct loop *loop, bool may_sleep);
/* Ends loop_run after the current tick. */
void loop_stop(struct loop *loop);
/* Ends the loop's sleep. Any thread and signal handlers. */
void loop_wake(struct loop *loop);

/* Makes fd (non-blocking, taken over) a connection of this loop. False: no memory; fd is closed. */
bool loop_connect(struct loop *loop, int fd, const struct os_peer *peer, const struct engine_factory *factory);
/* The same from another thread (always the same one), without waiting. False: too many wait already; fd is still yours. */
MUST_USE bool loop_hand(struct loop *loop, int fd, const struct os_peer *peer, const struct engine_factory *factory);

/* Tells every engine that the broker stops. */
void loop_shutdown(struct loop *loop, const char *text);
/* Cuts every connection off. */
void loop_close_all(struct loop *loop);
/* Open connections, those included whose engine is done and whose socket lingers. Any thread. */
uint32_t loop_conns(const struct loop *loop);

struct loop_totals {
    uint64_t ticks, reads, writes, bytes_in, bytes_out, accepted;
};
void loop_totals(const struct loop *loop, struct loop_totals *ret);

#endif
