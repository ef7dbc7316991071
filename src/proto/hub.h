/* hub: one per network loop: joins the loop's engines to the core's port.
 *
 * It numbers sessions, hands out command slots, takes effects from the port and gives each to its engine, and knows the
 * durable lsn, so that engines can hold what must wait. It does no I/O: the loop, the simulator and the fuzzers call
 * hub_turn alike. Thread: the loop's.
 *
 * Life cycle: hub_new → hub_attach (per session) … hub_turn, hub_publish, again and again … hub_detach → hub_free.
 */
#ifndef MILLRACE_PROTO_HUB_H
#define MILLRACE_PROTO_HUB_H

#include "core/broker.h"
#include "net/engine.h"

/* One message on its way to many sessions of the loop (EFF_FANOUT). What one of them has encoded the next ones find: each form is made once, under a
 * key that the engines agree on (protocol, version, flags …). */
struct fanout {
    struct msg *msg; /* a loan */
    bool any_from;   /* a session of this loop published it: */
    uint32_t from;   /* its number */
    struct hub *hub;
    struct fanout_form {
        uint32_t key, len;
        uint8_t *bytes;
    } forms[8];
    uint32_t count;
};
/* The form of that key; NULL: nobody has made it. */
const struct fanout_form *fanout_find(const struct fanout *fanout, uint32_t key);
/* Room for a form, to be filled; it is there until the last session has had its turn. NULL: no memory, or too many forms: do without. */
uint8_t *fanout_make(struct fanout *fanout, uint32_t key, size_t len);

/* An engine that has a session in the core; embedded first in the protocol's own struct (struct engine first inside). */
struct session {
    struct engine engine;
    struct hub *hub;
    uint32_t number;
    bool core_open;   /* SESSION_OPEN was sent and SESSION_CLOSED has not come; the engine sets it, the hub clears it */
    bool gone;        /* the transport is gone: the engine lives on only for the core's last word */
    bool on_held;     /* is on the hub's list of sessions that hold something until durable */
    bool on_wait;     /* is on one of the hub's lists of sessions that wait, for a command slot or for the next turn */
    bool close_sent;  /* SESSION_CLOSE is in the ring */
    bool owes_close;  /* … must be sent when there is room */
    bool owes_credit; /* … session_credit_return again, then */
    uint8_t pauses;   /* reasons of the engine's own not to read, see session_pause */
    mono_t heard_at;  /* when bytes last came, or could again */
    uint64_t credit_bytes; /* delivered and not yet returned to the core */
    struct list held_link;
    struct list wait_link;
    void (*on_effect)(struct session *session, struct effect *effect); /* takes over msg and answer */
    /* A message for the subscription of that handle (core/mqtt.h); of engines that subscribe, else NULL. */
    void (*on_fanout)(struct session *session, struct fanout *fanout, uint32_t handle);
    /* Once a turn while something is held, after the turn's effects: releases what `durable` allows. True while something
     * is still held. */
    bool (*on_durable)(struct session *session, lsn_t durable);
    /* There are command slots again, or it is the next turn: send what was owed, go on. Called after hub_wait_room and
     * hub_wait_turn, also when the transport is gone. May be NULL. */
    void (*on_room)(struct session *session);
    void (*free)(struct session *session); /* after SESSION_CLOSED and closed */
};

struct hub;

/* ---- what every engine does with its connection ---- */

#define SESSION_CREDIT_STEP (SESSION_CREDIT_BYTES / 4) /* delivered bytes that are returned to the core at once */

/* Attaches the session and makes its engine ready for a connection: all but in_max, next_tick, and the session's
 * functions. False: too many sessions or no memory. */
MUST_USE bool session_connect(struct session *session, struct hub *hub, const struct engine_ops *ops, const char *peer,
                              bool peer_loopback, mono_t now);
/* The transport is gone, in this order: the loop forgets the engine; the engine lets go of what it has; the session is
 * freed, now or when the core has let go of it. */
void session_cut(struct session *session);
void session_end(struct session *session);
/* The last of these, of a session without a connection. */
void session_leave(struct session *session);
/* Gives back to the core the credit of what was delivered and has left, once that is worth a command; without a slot the
 * hub calls it again when there is one. */
void session_credit_return(struct session *session);

static inline void session_tick_by(struct session *session, mono_t due)
{
    if (due < session->engine.next_tick)
        session->engine.next_tick = due;
    engine_dirty(&session->engine);
}

/* why: one bit; reading goes on when there is none left. */
static inline void session_pause(struct session *session, unsigned why)
{
    if (session->pauses & why)
        return;
    session->pauses |= (uint8_t)why;
    session->engine.paused = true;
    engine_dirty(&session->engine);
}

static inline void session_resume(struct session *session, unsigned why)
{
    if (!(session->pauses & why))
        return;
    session->pauses &= (uint8_t)~why;
    session->engine.paused = session->pauses != 0;
    session->heard_at = session->engine.now; /* the peer could not be heard while it was not read */
    engine_dirty(&session->engine);
}

/* What comes from now on is thrown away, and the peer's end must be seen. */
static inline void session_unpause(struct session *session)
{
    session->pauses = 0;
    session->engine.paused = false;
    engine_dirty(&session->engine);
}

/* heap: the slab heap of the loop's thread. The port and the heap outlive the hub. NULL: no memory. */
MUST_USE struct hub *hub_new(struct port *port, struct slab_heap *heap, uint32_t sessions_max);
/* Every session must have been detached. */
void hub_free(struct hub **hub);
struct slab_heap *hub_heap(struct hub *hub);

/* Gives the session a number and sends nothing yet. False: too many sessions or no memory. */
MUST_USE bool hub_attach(struct hub *hub, struct session *session);
/* The session's number is free again; the caller has seen SESSION_CLOSED (or never sent SESSION_OPEN). Does not free. */
void hub_detach(struct hub *hub, struct session *session);

/* The next command slot (zeroed, session set) or NULL: the ring is full, stop parsing and call hub_wait_room. */
struct command *hub_command(struct hub *hub, struct session *session);
/* Free command slots: an engine checks this before it starts on a frame that needs several. */
uint32_t hub_room(struct hub *hub);
/* Remembers that the session was refused a slot, so that hub_turn calls on_room and makes it dirty when there is room. */
void hub_wait_room(struct hub *hub, struct session *session);

/* Work that takes more of the loop's time than moving bytes (unpacking, say) has a share in each turn, about 8 ms. An engine
 * looks before each piece of it, says afterwards what it was, in about ns, and waits for the next turn when nothing is left:
 * whoever waits is called in the order in which they came. */
bool hub_may_work(const struct hub *hub);
void hub_worked(struct hub *hub, uint64_t cost_ns);
void hub_wait_turn(struct hub *hub, struct session *session);
/* The loop's codecs; lent for one call, what is unpacked stays until somebody's next. */
struct compress *hub_codecs(struct hub *hub);

/* Asks the core to let go of the session, once, as soon as there is a slot; nothing if it never was open. */
void hub_close(struct hub *hub, struct session *session);

/* The session holds something: on_durable is called at the end of this turn and of every later one. */
void hub_hold(struct hub *hub, struct session *session);

lsn_t hub_durable(const struct hub *hub);
/* See port.streams_changed. */
uint64_t hub_streams_changed(const struct hub *hub);
uint32_t hub_sessions(const struct hub *hub);

/* Publishes commands; returns true if there were any (the core wants a step). */
bool hub_publish(struct hub *hub);
/* Takes the durable lsn, gives all effects to their engines, releases what was held. Returns true when effects are left
 * (a turn takes at most one ring full, so that sockets get their turn too), or work. */
bool hub_turn(struct hub *hub, lsn_t durable, mono_t now);

/* Frees what an effect carries, for engines that have no use for it. */
void hub_drop(struct hub *hub, struct effect *effect);

#endif
