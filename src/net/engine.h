/* engine: what a protocol implements and a connection drives. Engines do no I/O: bytes in by feed, bytes out by the outq.
 *
 * Life cycle: a listener's factory makes the engine when a connection is accepted (or a test makes one) → feed / tick /
 * drained … → closed (the transport is gone). After closed the connection forgets the engine; the engine frees itself as
 * soon as the core has let go of its session. Everything on the loop's thread.
 *
 * Handing over: an engine that has seen that another protocol is spoken (sniff.h, an HTTP upgrade) makes the other engine
 * by its factory and sets `successor` in feed. When feed returns the connection is the successor's: with what is in the old
 * one's outq (it leaves first) and the bytes that feed has not consumed; the old engine is told `closed`.
 */
#ifndef MILLRACE_NET_ENGINE_H
#define MILLRACE_NET_ENGINE_H

#include "base/list.h"
#include "base/types.h"
#include "net/outq.h"

struct engine;
struct conn;
struct websocket_deflate;

struct engine_ops {
    const char *name;
    /* Consumes bytes of the peer; returns how many. It may leave some: an incomplete frame (wants more bytes), or the
     * core's command ring is full or engine->paused is set (will be fed again when that changes). */
    size_t (*feed)(struct engine *engine, struct slice bytes);
    /* Heartbeats and time-outs; returns when it wants to be called next (MONO_NEVER: not). Called at the returned time
     * or earlier, and once after creation. */
    mono_t (*tick)(struct engine *engine, mono_t now);
    /* Before `out` is written: an engine around another one takes over what that one has to say. May be NULL. */
    void (*gather)(struct engine *engine);
    /* Written bytes brought the outq below half of OUTQ_HIGH or to empty: return credit, go on. */
    void (*drained)(struct engine *engine);
    /* The broker is stopping: say so to the peer (AMQP: connection.close 320) and set want_close when done. */
    void (*shutdown)(struct engine *engine, const char *text);
    /* The transport is gone (peer closed, error, or want_close was flushed). */
    void (*closed)(struct engine *engine);
};

struct engine {
    const struct engine_ops *ops;
    struct outq out;
    bool paused;     /* do not read or feed */
    bool want_close; /* close the transport once out is flushed */
    bool in_dirty;
    mono_t next_tick; /* when ops->tick wants to be called; an engine may lower it any time */
    size_t in_max; /* the largest number of unconsumed bytes the connection must be able to hold for feed (a frame) */
    struct list dirty_link;
    struct list *dirty; /* the loop's list of engines with something to flush or to be re-fed; may be NULL in tests */
    struct conn *conn;  /* NULL in tests, and after closed */
    struct websocket_deflate *
        *deflate;  /* the loop's, made for the first WebSocket that packs; NULL in tests: none may */
    mono_t now;    /* time of the current tick, set by the loop before every call */
    char peer[64]; /* printable address of the peer, for logs and listings */
    bool peer_loopback;
    bool visiting;    /* it speaks another protocol than the port's own; set before the first feed */
    bool turned_away; /* set by the engine: it is nobody because it is visiting, and was refused; the log hears of it */
    bool tls;         /* nobody between can read it; set before the first feed */
    bool begin_tls;   /* set by feed: what it has left is the beginning of TLS, and what is in that is to be fed */
    const char
        *certified; /* who a verified client certificate says the peer is; NULL: nobody. Set before the first feed */
    struct engine *successor; /* set by feed: takes the connection over */
};

/* May the peer be whom the settings say, without a login? On the loopback, and on a port of its own protocol: a proxy on this
 * machine makes everybody come from the loopback, and who lets AMQP through it has not asked for MQTT's way of logging in. */
static inline bool engine_may_be_anonymous(const struct engine *engine)
{
    return engine->peer_loopback && !engine->visiting;
}

/* It has been refused because it has not said who it is: on another port it need not have said it. */
static inline void engine_turn_away(struct engine *engine)
{
    engine->turned_away = engine->peer_loopback && engine->visiting;
}

/* Puts the engine on its loop's dirty list: it has output, changed paused or want_close, or can be fed again. */
static inline void engine_dirty(struct engine *engine)
{
    if (engine->in_dirty || !engine->dirty)
        return;
    engine->in_dirty = true;
    list_insert(engine->dirty, &engine->dirty_link);
}

#endif
