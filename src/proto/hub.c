/* The hub, see hub.h.
 *
 * Sessions are a table by number with a free list threaded through it; a number is used again only after the core's
 * SESSION_CLOSED, so an effect always finds the session it was meant for, or a session whose transport is gone.
 *
 * A turn gives effects first and releases held things afterwards, once per session: so that the thousand confirms of
 * one group leave as one basic.ack, and so that what was held leaves before what came behind it. What became durable
 * since the last turn is released before the effects too, because then deliveries of this turn need not be queued up
 * behind an answer that may leave. Thread: the loop's. */
#include "proto/hub.h"

#include "base/check.h"
#include "base/mem.h"
#include "fmt/compress.h"

#include <stdio.h>

#define SESSIONS_FIRST 64u
#define FORMS_BYTES (64u * 1024) /* what is encoded once for a fan-out: heads, and small messages whole */
#define FANOUT_MEMBERS 16u /* who take as long as another effect: sockets get their turn between long fan-outs, too */
#define TURN_WORK_NS (8u << 20)
#define ROOM_AGAIN 64u /* slots that must be free before those who wait are called: no fighting over single slots */

struct hub {
    struct port *port;
    struct slab_heap *heap;
    struct session **sessions; /* by number; NULL: free */
    uint32_t *free_numbers;    /* stack */
    uint32_t free_count, capacity, max, count;
    lsn_t durable;
    struct list held;    /* sessions with something to release */
    struct list waiting; /* sessions that were refused a command slot … */
    struct list later;   /* … and those that have worked enough in this turn */
    uint64_t worked_ns;  /* in this turn, by all */
    struct compress *codecs;
    uint8_t *forms; /* of the fan-out that is going on; made with the first */
    size_t forms_used;
};

struct hub *hub_new(struct port *port, struct slab_heap *heap, uint32_t sessions_max)
{
    struct hub *hub = mem_zalloc(sizeof *hub);
    if (!hub || !(hub->codecs = compress_new())) {
        mem_free(hub);
        return NULL;
    }
    hub->port = port;
    hub->heap = heap;
    hub->max = sessions_max;
    list_init(&hub->held);
    list_init(&hub->waiting);
    list_init(&hub->later);
    return hub;
}

void hub_free(struct hub **hub)
{
    if (!*hub)
        return;
    CHECK((*hub)->count == 0);
    mem_free_as(MEM_CONNECTIONS, (*hub)->forms);
    mem_free((*hub)->sessions);
    mem_free((*hub)->free_numbers);
    compress_free(&(*hub)->codecs);
    mem_free(*hub);
    *hub = NULL;
}

struct slab_heap *hub_heap(struct hub *hub)
{
    return hub->heap;
}

static bool sessions_grow(struct hub *hub)
{
    uint32_t capacity = hub->capacity ? hub->capacity * 2 : SESSIONS_FIRST;
    if (capacity > hub->max)
        capacity = hub->max;
    if (capacity <= hub->capacity)
        return false;
    struct session **sessions = mem_realloc(hub->sessions, capacity * sizeof *sessions);
    if (!sessions)
        return false;
    hub->sessions = sessions;
    uint32_t *numbers = mem_realloc(hub->free_numbers, capacity * sizeof *numbers);
    if (!numbers)
        return false;
    hub->free_numbers = numbers;
    for (uint32_t i = capacity; i-- > hub->capacity;) {
        sessions[i] = NULL;
        numbers[hub->free_count++] = i;
    }
    hub->capacity = capacity;
    return true;
}

bool hub_attach(struct hub *hub, struct session *session)
{
    if (hub->free_count == 0 && !sessions_grow(hub))
        return false;
    session->hub = hub;
    session->number = hub->free_numbers[--hub->free_count];
    list_init(&session->held_link);
    list_init(&session->wait_link);
    hub->sessions[session->number] = session;
    hub->count++;
    return true;
}

void hub_detach(struct hub *hub, struct session *session)
{
    CHECK(hub->sessions[session->number] == session && !session->core_open);
    list_remove(&session->held_link);
    list_remove(&session->wait_link);
    session->on_held = session->on_wait = false;
    hub->sessions[session->number] = NULL;
    hub->free_numbers[hub->free_count++] = session->number;
    hub->count--;
}

bool session_connect(struct session *session, struct hub *hub, const struct engine_ops *ops, const char *peer,
                     bool peer_loopback, mono_t now)
{
    struct engine *engine = &session->engine;
    if (!hub_attach(hub, session))
        return false;
    engine->ops = ops;
    outq_init(&engine->out);
    list_init(&engine->dirty_link);
    engine->now = now;
    engine->peer_loopback = peer_loopback;
    snprintf(engine->peer, sizeof engine->peer, "%s", peer);
    session->heard_at = now;
    return true;
}

void session_cut(struct session *session)
{
    struct engine *engine = &session->engine;
    if (engine->in_dirty) {
        list_remove(&engine->dirty_link);
        engine->in_dirty = false;
    }
    engine->dirty = NULL;
    engine->conn = NULL;
}

void session_end(struct session *session)
{
    outq_fini(&session->engine.out);
    session_leave(session);
}

void session_leave(struct session *session)
{
    session->gone = true;
    hub_close(session->hub, session);
    if (session->core_open)
        return; /* the hub frees it with SESSION_CLOSED */
    hub_detach(session->hub, session);
    session->free(session);
}

void session_credit_return(struct session *session)
{
    size_t waiting = session->engine.out.len;
    uint64_t left = session->credit_bytes > waiting ? session->credit_bytes - waiting : 0;
    session->owes_credit = false;
    if (left < SESSION_CREDIT_STEP || !session->core_open || session->close_sent)
        return;
    struct command *command = hub_command(session->hub, session);
    if (!command) {
        session->owes_credit = true;
        hub_wait_room(session->hub, session);
        return;
    }
    command->type = CMD_CREDIT;
    command->number = left;
    session->credit_bytes -= left;
}

uint32_t hub_sessions(const struct hub *hub)
{
    return hub->count;
}

struct command *hub_command(struct hub *hub, struct session *session)
{
    struct command *command = ring_push(&hub->port->commands);
    if (command)
        *command = (struct command){.session = session->number};
    return command;
}

uint32_t hub_room(struct hub *hub)
{
    return ring_room(&hub->port->commands);
}

void hub_wait_room(struct hub *hub, struct session *session)
{
    if (session->on_wait)
        return;
    session->on_wait = true;
    list_insert(&hub->waiting, &session->wait_link);
}

bool hub_may_work(const struct hub *hub)
{
    return hub->worked_ns < TURN_WORK_NS;
}

void hub_worked(struct hub *hub, uint64_t cost_ns)
{
    hub->worked_ns += cost_ns;
}

/* Who waits for a slot as well finds out then that there is none yet. */
void hub_wait_turn(struct hub *hub, struct session *session)
{
    if (session->on_wait)
        list_remove(&session->wait_link);
    session->on_wait = true;
    list_insert(&hub->later, &session->wait_link);
}

struct compress *hub_codecs(struct hub *hub)
{
    return hub->codecs;
}

void hub_close(struct hub *hub, struct session *session)
{
    if (!session->core_open || session->close_sent)
        return;
    struct command *command = hub_command(hub, session);
    session->owes_close = !command;
    if (!command) {
        hub_wait_room(hub, session);
        return;
    }
    command->type = CMD_SESSION_CLOSE;
    session->close_sent = true;
}

void hub_hold(struct hub *hub, struct session *session)
{
    if (session->on_held)
        return;
    session->on_held = true;
    list_insert(&hub->held, &session->held_link);
}

lsn_t hub_durable(const struct hub *hub)
{
    return hub->durable;
}

uint64_t hub_streams_changed(const struct hub *hub)
{
    return atomic_load_explicit(&hub->port->streams_changed, memory_order_acquire);
}

bool hub_publish(struct hub *hub)
{
    if (!ring_dirty(&hub->port->commands))
        return false;
    ring_publish(&hub->port->commands);
    return true;
}

void hub_drop(struct hub *hub, struct effect *effect)
{
    if (effect->msg)
        msg_unref(hub->heap, effect->msg);
    effect->msg = NULL;
    if (effect->type == EFF_CONFIRM || effect->type == EFF_NACK || effect->type == EFF_GET_OK ||
        effect->type == EFF_DELIVER || effect->type == EFF_PRODUCED)
        return; /* the union holds a number */
    if (effect->type == EFF_FETCHED) {
        fetch_free(&effect->fetch);
        return;
    }
    if (effect->type == EFF_FANOUT) {
        audience_unref(effect->audience);
        effect->audience = NULL;
        return;
    }
    mem_free(effect->answer);
    effect->answer = NULL;
}

static void release_held(struct hub *hub, mono_t now)
{
    LIST_EACH(&hub->held, node, after)
    {
        struct session *session = CONTAINER_OF(node, struct session, held_link);
        session->engine.now = now;
        if (session->on_durable(session, hub->durable))
            continue;
        list_remove(&session->held_link);
        session->on_held = false;
    }
}

const struct fanout_form *fanout_find(const struct fanout *fanout, uint32_t key)
{
    for (uint32_t i = 0; i < fanout->count; i++)
        if (fanout->forms[i].key == key)
            return &fanout->forms[i];
    return NULL;
}

uint8_t *fanout_make(struct fanout *fanout, uint32_t key, size_t len)
{
    struct hub *hub = fanout->hub;
    if (fanout->count == ARRAY_LEN(fanout->forms) || len > FORMS_BYTES)
        return NULL;
    if (!hub->forms && !(hub->forms = mem_alloc_as(MEM_CONNECTIONS, FORMS_BYTES)))
        return NULL;
    if (len > FORMS_BYTES - hub->forms_used)
        return NULL;
    uint8_t *bytes = hub->forms + hub->forms_used;
    hub->forms_used += len;
    fanout->forms[fanout->count++] = (struct fanout_form){.key = key, .len = (uint32_t)len, .bytes = bytes};
    return bytes;
}

/* To every session that was subscribed when the message came; each is there still, as with any effect. */
static void fan_out(struct hub *hub, struct effect *effect, mono_t now)
{
    const struct audience_part *part = effect->audience;
    struct fanout fanout = {.msg = effect->msg, .hub = hub, .any_from = effect->number > 0};
    fanout.from = effect->number ? (uint32_t)effect->number - 1 : 0;
    hub->forms_used = 0;
    for (uint32_t i = 0; i < effect->consumer; i++) {
        uint32_t number, handle;
        if (!audience_member(part, i, &number, &handle))
            continue;
        struct session *session = number < hub->capacity ? hub->sessions[number] : NULL;
        CHECK(session && session->on_fanout);
        if (session->gone)
            continue;
        session->engine.now = now;
        session->on_fanout(session, &fanout, handle);
    }
    hub_drop(hub, effect);
}

static void give_effect(struct hub *hub, struct effect *effect, mono_t now)
{
    if (effect->type == EFF_FANOUT) {
        fan_out(hub, effect, now);
        return;
    }
    struct session *session = effect->session < hub->capacity ? hub->sessions[effect->session] : NULL;
    CHECK(session); /* numbers are not reused before SESSION_CLOSED, and a session lives until then */
    session->engine.now = now;
    if (effect->type == EFF_SESSION_CLOSED)
        session->core_open = session->close_sent = false;
    session->on_effect(session, effect);
    if (session->gone && !session->core_open) {
        hub_detach(hub, session);
        session->free(session);
    }
}

static void call(struct hub *hub, struct session *session, mono_t now)
{
    list_remove(&session->wait_link);
    session->on_wait = false;
    session->engine.now = now;
    if (session->owes_close)
        hub_close(hub, session);
    if (session->on_room)
        session->on_room(session);
    if (session->owes_credit)
        session_credit_return(session);
    if (!session->gone)
        engine_dirty(&session->engine);
}

static void take_over(struct list *from, struct list *ret)
{
    list_init(ret);
    list_insert(from->next, ret);
    list_remove(from);
}

/* Those who were refused: only as many as there are slots for is no concern here, they ask again when it is not enough. */
static void call_waiting(struct hub *hub, mono_t now)
{
    if (list_empty(&hub->waiting) || hub_room(hub) < ROOM_AGAIN)
        return;
    struct list called;
    take_over(&hub->waiting, &called);
    while (!list_empty(&called))
        call(hub, LIST_FIRST(&called, struct session, wait_link), now);
}

/* A new turn. Who is not reached in it comes first in the next. */
static void call_later(struct hub *hub, mono_t now)
{
    struct list called;
    hub->worked_ns = 0;
    take_over(&hub->later, &called);
    while (!list_empty(&called) && hub_may_work(hub))
        call(hub, LIST_FIRST(&called, struct session, wait_link), now);
    while (!list_empty(&called)) {
        struct list *node = called.prev;
        list_remove(node);
        list_insert(hub->later.next, node);
    }
}

bool hub_turn(struct hub *hub, lsn_t durable, mono_t now)
{
    if (durable > hub->durable) {
        hub->durable = durable;
        release_held(hub, now);
    }
    call_later(hub, now);
    struct effect *effect;
    uint32_t left = hub->port->effects.mask + 1;
    while (left && (effect = ring_peek(&hub->port->effects))) {
        struct effect taken = *effect;
        uint32_t cost = taken.type == EFF_FANOUT ? 1 + taken.consumer / FANOUT_MEMBERS : 1;
        ring_pop(&hub->port->effects);
        left -= cost < left ? cost : left;
        give_effect(hub, &taken, now);
    }
    release_held(hub, now);
    call_waiting(hub, now);
    return left == 0 || !list_empty(&hub->later);
}
