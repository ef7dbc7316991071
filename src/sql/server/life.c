/* DROP, PAUSE and RESUME, and what a statement forgets that comes in the place of another one, see server_int.h.
 *
 * What the core refuses has not happened: nothing is forgotten before it has answered. Its answers may be looked at in another order than that in which it was
 * asked (each request has its own turn), so each state that was asked for has a number, and an older one changes nothing. */
#include "sql/server/server_int.h"

#include <stdio.h>

/* ---- names and answers ---- */

static enum verdict no_such(struct request *r, struct slice name, const char *what)
{
    struct nearest nearest = nearest_of(name);
    LIST_EACH(&r->server->objects, node, after)
    {
        const struct server_object *o = CONTAINER_OF(node, struct server_object, link);
        if (strcmp(o->vhost, r->vhost) == 0)
            nearest_try(&nearest, slice_str(o->name));
    }
    return nearest_found(&nearest) ? request_refuse(r, "42P01", "there is no %s %.*s; did you mean %.*s?", what,
                                                    SLICE_ARG(name), SLICE_ARG(nearest.best))
                                   : request_refuse(r, "42P01", "there is no %s %.*s", what, SLICE_ARG(name));
}

const char *server_result_text(uint64_t result)
{
    static const char *const texts[] = {
        [QUERY_DONE] = "nothing",
        [QUERY_UNKNOWN] = "it is not there any more",
        [QUERY_EXISTS] = "there is something of that name already",
        [QUERY_BAD_NAME] = "a name has 1 to 255 bytes of UTF-8",
        [QUERY_STALE] = "it has been changed meanwhile",
        [QUERY_NO_TARGET] = "there is nothing of that name to write to",
        [QUERY_NO_RIGHT] = "the user may not do it",
        [QUERY_FULL] = "a queue is full",
        [QUERY_NO_ROOM] = "the broker has no room now",
        [QUERY_TOO_MANY] = "there are too many statements, or it is too long",
    };
    return result < ARRAY_LEN(texts) ? texts[result] : "no memory";
}

uint64_t request_result(const struct request *r)
{
    return r->answer.answer && r->answer.type == EFF_ANSWER ? r->answer.answer->number : QUERY_NO_ROOM;
}

/* ---- what goes ---- */

void request_forget_snapshots(struct request *r, const struct server_object *o)
{
    char name[SQL_NAME_MAX + sizeof SQL_INTERNAL];
    struct slice none = {0};
    if (server_object_runs(o))
        (void)server_ask(r->session, NULL, CMD_STREAM_DELETE,
                         ask_new(server_object_snapshots(o, name), none, none, none), 0, 0, false);
}

static struct server_object *object_of(struct sql_server *server, uint64_t id)
{
    LIST_EACH(&server->objects, node, after)
    if (CONTAINER_OF(node, struct server_object, link)->id == id)
        return CONTAINER_OF(node, struct server_object, link);
    return NULL;
}

enum verdict request_next_dropped(struct request *r)
{
    struct server_object *next = r->dropping ? object_of(r->server, r->dropping) : NULL;
    bool asked = r->dropping != 0,
         refused = asked && request_result(r) != QUERY_DONE && request_result(r) != QUERY_UNKNOWN;
    r->dropping = 0;
    if (refused)
        return request_refuse(r, "53000", "what is being built cannot be dropped: %s",
                              server_result_text(request_result(r)));
    if (next) {
        request_forget_snapshots(r, next);
        server_object_remove(next);
    }
    return VERDICT_DONE;
}

enum verdict request_drop_next(struct request *r, const struct server_object *o)
{
    const struct server_object *next = server_object_next(o);
    if (!next)
        return VERDICT_DONE;
    if (server_object_switching(o))
        return VERDICT_WAIT;
    r->channel = 0;
    r->dropping = next->id;
    return request_command(r, CMD_SQL_DROP, next->id);
}

static struct slice topic_of(const struct server_object *o)
{
    return o->with.topic.len ? o->with.topic : slice_str(o->name);
}

static void forget_rows(struct request *r, const struct server_object *o)
{
    struct slice none = {0};
    if (o->kind == KIND_MATERIALIZED && !o->next)
        (void)server_ask(r->session, NULL, CMD_STREAM_DELETE, ask_new(topic_of(o), none, none, none), 0, 0, false);
}

/* ---- DROP ---- */

static enum verdict find_own(struct request *r, struct ast_names names, const char *what, struct server_object **ret)
{
    struct slice name = names.at[names.count - 1];
    struct server_object *o = server_object_called(r->server, r->vhost, name);
    if (!o)
        return no_such(r, name, what);
    if (strcmp(o->owner, r->user) != 0 && !r->administers)
        return request_refuse(r, "42501", "%s belongs to %s", o->name, o->owner);
    *ret = o;
    return VERDICT_DONE;
}

static bool is_a(const struct server_object *o, int64_t what)
{
    switch ((enum ast_object)what) {
    case OBJECT_STREAM: return (o->kind == KIND_STREAM && !server_object_is_table(o)) || o->kind == KIND_STREAM_QUERY;
    case OBJECT_TABLE: return o->kind == KIND_STREAM && server_object_is_table(o);
    case OBJECT_VIEW: return o->kind == KIND_VIEW;
    case OBJECT_MATERIALIZED_VIEW: return o->kind == KIND_MATERIALIZED;
    case OBJECT_SINK: return o->kind == KIND_SINK;
    default: return server_object_runs(o);
    }
}

/* The statement goes; the stream with its records stays, but for that of a materialized view, which is nothing but its rows. */
enum verdict statement_drop(struct request *r, const struct ast *s)
{
    static const char *const words[OBJECTS] = {"STREAM", "TABLE", "VIEW", "MATERIALIZED VIEW", "SINK", "QUERY"};
    const struct ast_drop *drop = AST_AS(drop, s);
    struct slice name = drop->name.at[drop->name.count - 1];
    struct server_object *o = server_object_called(r->server, r->vhost, name);
    char done[40];
    snprintf(done, sizeof done, "DROP %s", words[drop->what]);
    enum verdict v = request_next_dropped(r);
    if (v != VERDICT_DONE)
        return v;
    if (drop->cascade)
        return request_refuse(r, "0A000", "CASCADE cannot be run yet: drop what is made of it first");
    if (r->step && o != r->object) /* it went with its vhost while it was asked, or another one has its name */
        o = NULL;
    if (!o && (drop->if_exists || r->step)) {
        request_done(r, done, name);
        return VERDICT_DONE;
    }
    if (r->step && request_result(r) != QUERY_DONE && request_result(r) != QUERY_UNKNOWN)
        return request_refuse(r, "53000", "%s cannot be dropped: %s", o->name, server_result_text(request_result(r)));
    if (r->step) {
        request_forget_snapshots(r, o);
        forget_rows(r, o);
        server_object_remove(o);
        request_done(r, done, name);
        return VERDICT_DONE;
    }
    v = find_own(r, drop->name, "statement", &o);
    if (v != VERDICT_DONE)
        return v;
    if (!is_a(o, drop->what))
        return request_refuse(r, "42809", "%s is no %s", o->name, words[drop->what]);
    const struct server_object *user = o->next ? NULL : server_object_user(o);
    if (user)
        return request_refuse(r, "2BP01", "%s is needed by %s", o->name, user->name);
    if (server_object_switching(o))
        return VERDICT_WAIT;
    v = request_drop_next(r, o);
    if (v != VERDICT_DONE)
        return v;
    r->object = o;
    o->refs++;
    r->step = 1;
    return request_command(r, CMD_SQL_DROP, o->id);
}

/* ---- PAUSE and RESUME ---- */

/* Which one of those that were asked for it is, is in r->part: answers may be looked at in another order. */
static enum verdict request_state(struct request *r, struct server_object *o, enum sql_object_state state)
{
    struct slice none = {0};
    struct ask *ask = ask_new(none, none, none, none);
    enum verdict v = request_ask(r, CMD_SQL_STATE, ask, o->id, 0);
    if (v == VERDICT_WAIT) {
        ask->number = state;
        r->part = ++o->states_asked;
    }
    return v;
}

/* A paused query keeps its trail and nothing else; resumed, it goes on as after a start. */
static enum verdict pause_end(struct request *r, struct server_object *o, bool resume)
{
    const char *done = resume ? "RESUME" : "PAUSE";
    struct sql_error error = {0};
    if (request_result(r) != QUERY_DONE)
        return request_refuse(r, "53000", "%s: %s", o->name, server_result_text(request_result(r)));
    bool newest = r->part > o->state_known;
    if (newest) {
        o->state = resume ? SQL_RUNNING : SQL_PAUSED;
        o->state_known = r->part;
        o->reason[0] = '\0';
    }
    resume = resume && newest;
    if (resume && !o->bound && !(o->bound = o->statement && server_object_bind(o, &error)))
        server_object_state(o, SQL_FAILED, error.message);
    else if (resume && !o->run && !server_run_start(o))
        server_object_state(o, SQL_FAILED, "no memory to start it");
    if (o->state == SQL_FAILED)
        return request_refuse(r, "55000", "%s: %s", o->name, o->reason);
    request_done(r, done, slice_str(o->name));
    return VERDICT_DONE;
}

/* A version that has the name now, and had not when the core was asked, is asked for by itself. */
enum verdict statement_pause(struct request *r, const struct ast *s)
{
    const struct ast_pause *pause = AST_AS(pause, s);
    struct server_object *o;
    enum verdict v = find_own(r, pause->name, "query", &o);
    if (v != VERDICT_DONE)
        return v;
    if (r->step == 1 && (o != r->object || (!pause->resume && o->run && r->part > o->state_known)))
        r->step = 0; /* RESUME was asked for before this */
    if (!server_object_runs(o))
        return request_refuse(r, "42809", "%s is no query", o->name);
    if (o->damaged)
        return request_refuse(r, "55000", "%s: %s", o->name, o->reason);
    if (r->step == 1)
        return pause_end(r, o, pause->resume);
    if (server_object_switching(o))
        return VERDICT_WAIT;
    if (!pause->resume && o->run) { /* what it has under way ends first */
        server_run_pause(o->run, true);
        return VERDICT_WAIT;
    }
    if (o->run)
        server_run_pause(o->run, false);
    server_object_unref(&r->object);
    r->object = o;
    o->refs++;
    r->step = 1;
    return request_state(r, o, pause->resume ? SQL_RUNNING : SQL_PAUSED);
}
