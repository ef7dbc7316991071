/* What the server asks of the core, and its sessions there, see server_int.h.
 *
 * A command's origin is the number of its call, so that its answer finds who asked; a call whose asker is gone keeps its number until it is
 * answered. An answer that says that something was done is held until it is durable, in order: the broker says nothing that a power
 * cut can take back. A session is opened when it is first wanted and closed when nobody wants it any more. */
#include "sql/server/server_int.h"

#include "base/check.h"
#include "base/mem.h"

#include <stdio.h>

#define CALLS_FIRST 16u
#define SESSIONS_FIRST 8u
#define CHANNELS_MAX 1000u /* below what a session may have; a request has one, for a moment */
#define NONE UINT32_MAX

/* ---- numbers ---- */

static bool calls_grow(struct sql_server *server)
{
    uint32_t room = server->call_room ? 2 * server->call_room : CALLS_FIRST;
    struct call_slot *more = mem_realloc(server->calls, room * sizeof *more);
    if (!more)
        return false;
    server->calls = more;
    for (uint32_t i = server->call_room; i < room; i++)
        more[i] = (struct call_slot){.next = i + 1 < room ? i + 1 : NONE};
    server->call_free = server->call_room;
    server->call_room = room;
    return true;
}

struct command *server_command(struct server_session *session, struct server_call *call, enum command_type type,
                               bool durable)
{
    struct sql_server *server = session->server;
    uint32_t number = 0;
    if (call && server->call_free == NONE && !calls_grow(server))
        return NULL;
    struct command *c = ring_push(&server->port->commands);
    if (!c)
        return NULL;
    if (call) {
        CHECK(call->number == 0);
        number = server->call_free + 1;
        struct call_slot *slot = &server->calls[number - 1];
        server->call_free = slot->next;
        *slot = (struct call_slot){.call = call, .session = session, .used = true, .durable = durable};
        call->number = number;
    }
    *c = (struct command){.type = (uint8_t)type, .session = session->number, .origin = number};
    return c;
}

bool server_ask(struct server_session *session, struct server_call *call, enum command_type type, struct ask *ask,
                uint64_t number, uint32_t flags, bool durable)
{
    struct command *c = ask ? server_command(session, call, type, durable) : NULL;
    if (!c) {
        mem_free(ask);
        return false;
    }
    ask->number = number;
    ask->flags = flags;
    c->number = number;
    c->ask = ask;
    return true;
}

void server_call_forget(struct sql_server *server, struct server_call *call)
{
    if (call->number)
        server->calls[call->number - 1].call = NULL;
    call->number = 0;
}

static struct server_call *call_end(struct sql_server *server, uint32_t number)
{
    struct call_slot *slot = &server->calls[number - 1];
    struct server_call *call = slot->call;
    *slot = (struct call_slot){.next = server->call_free};
    server->call_free = number - 1;
    if (call)
        call->number = 0;
    return call;
}

void server_effect_drop(struct sql_server *server, struct effect *e)
{
    if (e->msg)
        msg_unref(server->heap, e->msg);
    if (e->type == EFF_FETCHED)
        fetch_free(&e->fetch);
    else if (e->type == EFF_QUERY_STEPPED)
        query_step_free(server->heap, &e->query_step);
    else if (e->type == EFF_ANSWER || e->type == EFF_ERROR || e->type == EFF_ROW || e->type == EFF_SESSION_KICK ||
             e->type == EFF_SQL_ASK || e->type == EFF_BLOCKED || e->type == EFF_RETURN)
        mem_free(e->answer);
}

static void call_tell(struct sql_server *server, uint32_t number, struct effect *e)
{
    struct server_call *call = call_end(server, number);
    if (call)
        call->on_done(call, e);
    else
        server_effect_drop(server, e);
}

/* ---- sessions ---- */

static struct server_session *session_of(struct sql_server *server, uint32_t number)
{
    return number && number <= server->session_room ? server->sessions[number - 1] : NULL;
}

static bool same(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static void session_free(struct server_session *session)
{
    session->server->sessions[session->number - 1] = NULL;
    mem_free(session->user);
    mem_free(session->vhost);
    mem_free(session);
}

static struct server_session **session_place(struct sql_server *server)
{
    for (uint32_t i = 0; i < server->session_room; i++)
        if (!server->sessions[i])
            return &server->sessions[i];
    uint32_t room = server->session_room ? 2 * server->session_room : SESSIONS_FIRST;
    struct server_session **more = mem_realloc(server->sessions, room * sizeof *more);
    if (!more)
        return NULL;
    memset(more + server->session_room, 0, (room - server->session_room) * sizeof *more);
    server->sessions = more;
    server->session_room = room;
    return &more[room / 2 < SESSIONS_FIRST ? 0 : room / 2];
}

static void session_fail(struct server_session *session, struct slice why)
{
    if (!session->failed && why.len)
        snprintf(session->why, sizeof session->why, "%.*s", SLICE_ARG(why));
    session->failed = true;
    session->ready = false;
    session->close_wanted = true;
}

static void on_login(struct server_call *call, struct effect *e)
{
    struct server_session *session = CONTAINER_OF(call, struct server_session, login);
    if (e)
        server_effect_drop(session->server, e);
}

static void on_enter(struct server_call *call, struct effect *e)
{
    struct server_session *session = CONTAINER_OF(call, struct server_session, enter);
    if (!e)
        return;
    session->ready = e->type == EFF_ANSWER && !session->failed;
    server_effect_drop(session->server, e);
}

/* All at once: the core takes them in order, and refuses what comes behind one that was refused. */
static void session_open(struct server_session *session)
{
    struct slice none = {0};
    if (ring_room(&session->server->port->commands) < 4 ||
        !server_ask(session, NULL, CMD_SESSION_OPEN, ask_new(slice_str("sql"), slice_str("SQL"), none, none), 0,
                    ASK_LOOPBACK | ASK_INTERNAL | (session->own ? ASK_CAN_CANCEL : 0), false))
        return;
    session->opened = true;
    session->ready = !session->user;
    if (session->user && (!server_ask(session, &session->login, CMD_LOGIN,
                                      ask_new(slice_str(session->user), none, slice_str("SQL"), none), 0,
                                      ASK_LOOPBACK | ASK_CERTIFIED, false) ||
                          !server_ask(session, &session->enter, CMD_ENTER,
                                      ask_new(slice_str(session->vhost), none, none, none), 0, 0, false)))
        session_fail(session, slice_str("no memory"));
}

static struct server_session *session_new(struct sql_server *server, const char *user, const char *vhost, bool own)
{
    struct server_session **place = session_place(server), *s = place ? mem_zalloc(sizeof *s) : NULL;
    if (!s)
        return NULL;
    *s = (struct server_session){.server = server,
                                 .number = (uint32_t)(place - server->sessions) + 1,
                                 .refs = 1,
                                 .own = own,
                                 .login.on_done = on_login,
                                 .enter.on_done = on_enter};
    *place = s;
    s->user = user ? mem_strdup(user) : NULL;
    s->vhost = vhost ? mem_strdup(vhost) : NULL;
    if ((user && !s->user) || (vhost && !s->vhost)) {
        session_free(s);
        return NULL;
    }
    session_open(s);
    return s;
}

struct server_session *server_session_get(struct sql_server *server, const char *user, const char *vhost)
{
    for (uint32_t i = 0; i < server->session_room; i++) {
        struct server_session *s = server->sessions[i];
        if (s && !s->own && !s->failed && !s->close_wanted && same(s->user, user) && same(s->vhost, vhost)) {
            s->refs++;
            return s;
        }
    }
    return session_new(server, user, vhost, false);
}

struct server_session *server_session_new(struct sql_server *server, const char *user, const char *vhost)
{
    return session_new(server, user, vhost, true);
}

void server_session_put(struct server_session **session)
{
    struct server_session *s = *session;
    *session = NULL;
    if (s && --s->refs == 0)
        s->close_wanted = true;
}

uint16_t server_session_channel(struct server_session *session)
{
    return session->channels = (uint16_t)(session->channels % CHANNELS_MAX + 1);
}

/* Whoever still waits for an answer of it gets none. */
static void session_closed(struct sql_server *server, struct server_session *session)
{
    session_fail(session, slice_str("the session was closed"));
    session->closing = true;
    session->opened = false;
    for (uint32_t i = 0; i < server->call_room; i++) {
        struct call_slot *slot = &server->calls[i];
        bool waits = slot->used && slot->session == session && !slot->held.type; /* its answer has come else */
        struct server_call *call = waits ? call_end(server, i + 1) : NULL;
        if (call)
            call->on_done(call, NULL);
    }
}

static void session_turn(struct sql_server *server, struct server_session *session)
{
    if (!session->opened && !session->closing && !session->close_wanted)
        session_open(session);
    if (session->close_wanted && session->opened && !session->closing)
        session->closing = server_command(session, NULL, CMD_SESSION_CLOSE, false) != NULL;
    if (session->refs == 0 && !session->opened)
        session_free(session);
    (void)server;
}

/* ---- effects ---- */

/* Where the call is known anyway, so that what was done is not forgotten for want of memory. */
static void hold(struct sql_server *server, struct effect *e)
{
    struct call_slot *slot = &server->calls[e->origin - 1];
    slot->held = *e;
    slot->next = 0;
    if (server->held_first)
        server->calls[server->held_last - 1].next = e->origin;
    else
        server->held_first = e->origin;
    server->held_last = e->origin;
}

static void release(struct sql_server *server)
{
    uint32_t number = server->held_first;
    struct effect e = server->calls[number - 1].held;
    server->held_first = server->calls[number - 1].next;
    call_tell(server, number, &e);
}

static void take_answer(struct sql_server *server, struct effect *e)
{
    struct call_slot *slot = e->origin && e->origin <= server->call_room ? &server->calls[e->origin - 1] : NULL;
    bool known = slot && slot->used && slot->session->number == e->session;
    if (!known)
        server_effect_drop(server, e);
    else if (slot->durable && e->lsn > server->durable)
        hold(server, e);
    else
        call_tell(server, e->origin, e);
}

/* An error of the session, or of a channel: its call hears it; the session is done for when it is not a channel's. */
static void take_error(struct sql_server *server, struct effect *e)
{
    struct server_session *session = session_of(server, e->session);
    if (session && (e->channel == 0 || e->type == EFF_SESSION_KICK))
        session_fail(session, e->answer ? e->answer->text : (struct slice){0});
    if (e->type == EFF_SESSION_KICK)
        server_effect_drop(server, e);
    else if (session && session->consumer && !e->origin)
        run_queue_effect(session->consumer, e);
    else
        take_answer(server, e);
}

static void take(struct sql_server *server, struct effect *e)
{
    struct server_session *session = session_of(server, e->session);
    switch ((enum effect_type)e->type) {
    case EFF_SQL_ASK:
    case EFF_SQL_MORE:
    case EFF_SQL_STOP: server_request_effect(server, e); return;
    case EFF_SQL_GONE: server_object_gone(server, e->number); return;
    case EFF_ERROR:
    case EFF_SESSION_KICK: take_error(server, e); return;
    case EFF_SESSION_CLOSED:
        if (session)
            session_closed(server, session);
        return;
    case EFF_ROW: server_object_row(server, e); return;
    case EFF_DELIVER:
    case EFF_CONSUMER_GONE:
        if (session && session->consumer)
            run_queue_effect(session->consumer, e);
        else
            server_effect_drop(server, e);
        return;
    case EFF_ANSWER:
    case EFF_FETCHED:
    case EFF_QUERY_STEPPED:
    case EFF_CHANNEL_CLOSED:
    case EFF_PRODUCED: take_answer(server, e); return;
    default: server_effect_drop(server, e);
    }
}

void server_effects(struct sql_server *server)
{
    struct effect *e;
    while ((e = ring_peek(&server->port->effects))) {
        struct effect taken = *e;
        ring_pop(&server->port->effects);
        take(server, &taken);
    }
}

void server_calls_turn(struct sql_server *server)
{
    while (server->held_first && server->calls[server->held_first - 1].held.lsn <= server->durable)
        release(server);
    for (uint32_t i = 0; i < server->session_room; i++)
        if (server->sessions[i])
            session_turn(server, server->sessions[i]);
}

void server_calls_fini(struct sql_server *server)
{
    while (server->held_first) {
        server->calls[server->held_first - 1].call = NULL;
        release(server);
    }
    for (uint32_t i = 0; i < server->session_room; i++)
        if (server->sessions[i])
            session_free(server->sessions[i]);
    mem_free(server->sessions);
    mem_free(server->calls);
}
