/* One administrative question at a time, see caller.h. The hub's thread.
 *
 * Stop and wait: a question is sent when the one before it is answered. That costs a tick per question and in return an
 * import of any size is sliced by itself, errors need no bookkeeping, and the ring never overflows.
 * The core opens a session for whoever asks first, and is deaf to a session after an error until it is closed; so an
 * error is followed by SESSION_CLOSE, and on_done waits for SESSION_CLOSED. */
#include "admin/caller.h"

#include "base/check.h"
#include "base/mem.h"

static const char *const op_names[ADMIN_COUNT] = {
#define ADMIN(name, operands) [ADMIN_##name] = #name,
#include "core/admin.def"
#undef ADMIN
};

const char *admin_op_name(enum admin_op op)
{
    return op < ADMIN_COUNT ? op_names[op] : "?";
}

enum admin_op admin_op_find(const char *name)
{
    for (unsigned i = 0; i < ADMIN_COUNT; i++)
        if (strcmp(op_names[i], name) == 0)
            return (enum admin_op)i;
    return ADMIN_COUNT;
}

static void finish(struct caller *caller)
{
    struct answer *answer = caller->answer;
    struct call_result result = {.answer = answer};
    if (caller->failed)
        result.code = answer && answer->code ? answer->code : ERR_INTERNAL_ERROR;
    caller->busy = caller->answered = caller->failed = false;
    caller->answer = NULL;
    caller->on_done(caller, &result);
    mem_free(answer);
}

static void on_answer(struct caller *caller, struct effect *effect)
{
    CHECK(caller->busy && !caller->answered);
    caller->answered = true;
    caller->answer = effect->answer;
    caller->lsn = effect->lsn;
    if (effect->type == EFF_ERROR) {
        caller->failed = true;
        hub_close(caller->session.hub, &caller->session); /* finish follows SESSION_CLOSED */
    } else if (caller->wait_durable && caller->lsn > hub_durable(caller->session.hub)) {
        hub_hold(caller->session.hub, &caller->session);
    } else {
        finish(caller);
    }
}

static void take_effect(struct caller *caller, struct effect *effect)
{
    struct session *session = &caller->session;
    switch (effect->type) {
    case EFF_ROW:
        if (caller->on_row)
            caller->on_row(caller, effect->answer);
        hub_drop(session->hub, effect);
        return;
    case EFF_ANSWER:
    case EFF_ERROR: on_answer(caller, effect); return;
    case EFF_SESSION_CLOSED:
        hub_drop(session->hub, effect);
        if (!caller->closing && caller->failed)
            finish(caller);
        return;
    default: hub_drop(session->hub, effect); return;
    }
}

static void on_effect(struct session *session, struct effect *effect)
{
    struct caller *caller = CONTAINER_OF(session, struct caller, session);
    caller->inside = true;
    take_effect(caller, effect);
    caller->inside = false;
}

static bool on_durable(struct session *session, lsn_t durable)
{
    struct caller *caller = CONTAINER_OF(session, struct caller, session);
    if (caller->lsn > durable)
        return true;
    if (caller->answered && !caller->failed)
        finish(caller);
    return false;
}

static void on_free(struct session *session)
{
    struct caller *caller = CONTAINER_OF(session, struct caller, session);
    mem_free(caller->answer);
    caller->answer = NULL;
    if (caller->on_freed)
        caller->on_freed(caller);
}

bool caller_init(struct caller *ret, struct hub *hub)
{
    struct engine engine = ret->session.engine;
    *ret = (struct caller){
        .session = {.engine = engine, .on_effect = on_effect, .on_durable = on_durable, .free = on_free}};
    return hub_attach(hub, &ret->session);
}

bool caller_call(struct caller *caller, enum command_type type, uint64_t number, struct ask *ask, bool wait_durable)
{
    CHECK(!caller->busy && !caller->closing);
    struct command *command = hub_command(caller->session.hub, &caller->session);
    if (!command) {
        hub_wait_room(caller->session.hub, &caller->session);
        return false;
    }
    command->type = (uint8_t)type;
    command->number = number;
    command->ask = ask;
    caller->session.core_open = true;
    caller->busy = true;
    caller->answered = caller->failed = false;
    caller->wait_durable = wait_durable;
    return true;
}

void caller_close(struct caller *caller)
{
    if (caller->closing)
        return;
    caller->closing = true;
    caller->session.gone = true;
    if (!caller->session.core_open && caller->inside)
        return; /* the hub detaches and frees when the effect has been dealt with */
    if (!caller->session.core_open) {
        hub_detach(caller->session.hub, &caller->session);
        on_free(&caller->session);
        return;
    }
    if (!caller->failed) /* else a close is on its way already */
        hub_close(caller->session.hub, &caller->session);
}
