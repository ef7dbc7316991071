/* Steps of a query, see server/run.h: what was taken and what came of it, to the core, all or nothing.
 *
 * One step is with the core at a time; meanwhile the query goes on, and what it takes is the next one, which is the larger the longer that lasts.
 * When there is more than one step holds, the first of several carries all that was taken, and each says how many rows have been given out
 * by then (PLACE): a restart takes it again and gives out the rest. Records that could not be used go first, alone.
 *
 * A queue that refuses what is beyond its limit refuses a step as a whole. What of it has room goes as a step of its own: a limit that is below what one step
 * holds would never be met else.
 *
 * A query that remembers nothing has no trail but where it stands; each of its steps begins it anew. The trail of any other is begun
 * anew, shorter and with the same meaning, when the core has much more of it than need be. */
#include "sql/server/run.h"

#include "base/check.h"
#include "base/mem.h"

#define AGAIN_NS (20 * NS_PER_MS)
#define QUIET_NS (200 * NS_PER_MS)       /* so long may be taken without outputs before the core hears of it */
#define TRAIL_REPLAYED_MAX SQL_TRAIL_MAX /* of what the core keeps */
#define TRAIL_ANEW (32u * 1024)

static bool have_steps(const struct server_run *run)
{
    return run->steps.groups || run->steps.dead || run->steps.trail.len || run->steps.acks;
}

static bool has_taken(const struct server_run *run)
{
    return run->taken.len || (run->queue && run_queue_untold(run));
}

bool run_steps_idle(const struct server_run *run)
{
    return !run->step && !run->step_call.number && !have_steps(run) && !has_taken(run) && !run->dead.count &&
           (!run->output || !output_bytes(run->output));
}

/* ---- what came back ---- */

static const char *too_many(const struct server_run *run, const struct query_step *step)
{
    size_t kept = step->restart ? 0 : run->object->core_trail;
    if (kept + step->trail.len > SQL_TRAIL_MAX)
        return "its trail is too long";
    return step->failed < step->count ? "a row is longer than a message may be, or goes to too many queues"
                                      : "the statements and trails of all queries are too long together";
}

static const char *reason_of(const struct server_run *run, const struct query_step *step)
{
    switch ((enum query_result)step->result) {
    case QUERY_UNKNOWN: return "it is not in the catalogue any more";
    case QUERY_STALE: return "another engine has gone on with it";
    case QUERY_NO_TARGET: return "what it writes to is not there any more";
    case QUERY_NO_RIGHT: return "its owner may not write there";
    case QUERY_TOO_MANY: return too_many(run, step);
    case QUERY_NO_ACK: return "a message that it has used was given to somebody else";
    default: return "the core refuses its step";
    }
}

static void step_done(struct server_run *run, struct query_step *step)
{
    struct server_object *o = run->object;
    bool damaged;
    o->step = step->number;
    if (step->restart)
        trail_clear(&o->trail);
    o->core_trail = step->restart ? step->trail.len : o->core_trail + step->trail.len;
    bool ok = trail_append(&o->trail, step->trail, &damaged);
    CHECK(ok); /* there is the room that it had to have before the step went to the core */
    trail_clear(&run->steps.trail);
    output_group_free(run->server->heap, &run->steps.sent);
    if (run->snapshot.state == SNAPSHOT_WRITTEN)
        snapshot_named(run);
    if (query_stateless(run->query) && !have_steps(run) && !trail_flatten(&o->trail))
        run_fail(run, "no memory for its trail");
}

static void move_outputs(struct query_output *to, struct query_output *from, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        to[i] = from[i];
        from[i].msg = NULL;
    }
}

/* What the step was to acknowledge, each half acknowledges of what is in it. */
static void split_acks(struct query_step *step, struct output_group *group, uint64_t *rest)
{
    uint32_t count = 0;
    while (count < step->ack_count && step->acks[count] < group->until)
        count++;
    mem_free(group->acks);
    group->acks = step->acks;
    group->ack_count = count;
    group->next->acks = rest;
    group->next->ack_count = step->ack_count - count;
    memcpy(rest, step->acks + count, group->next->ack_count * sizeof *rest);
    group->is_half = group->next->is_half = true;
    step->acks = NULL;
    step->ack_count = 0;
}

/* The step is to be made again, of what has room, and another one of the rest. False: it is to be told again as it is. */
static bool split(struct server_run *run, struct query_step *step)
{
    struct output_group *group = run->steps.sent;
    if (step->result != QUERY_FULL || !step->failed || !group)
        return false;
    uint64_t *rest = run->queue ? mem_alloc((step->ack_count + 1) * sizeof *rest) : NULL;
    if (run->queue && !rest)
        return false;
    move_outputs(group->outputs, step->outputs, step->count);
    if (!output_group_split(group, step->failed)) {
        move_outputs(step->outputs, group->outputs, step->count);
        mem_free(rest);
        return false;
    }
    if (rest)
        split_acks(step, group, rest);
    group->next->next = run->steps.groups;
    run->steps.groups = group;
    run->steps.sent = NULL;
    run->steps.several = true;
    return true;
}

static void on_stepped(struct server_call *call, struct effect *e)
{
    struct server_run *run = CONTAINER_OF(call, struct server_run, step_call);
    struct query_step *step = e && e->type == EFF_QUERY_STEPPED ? e->query_step : NULL;
    if (!step) {
        if (e)
            server_effect_drop(run->server, e);
        run_fail(run, "%s", run->session->why);
        return;
    }
    if ((step->result == QUERY_FULL || step->result == QUERY_NO_ROOM) && !split(run, step)) {
        run->step = step;
        run->again_at = run->server->now + AGAIN_NS;
        return;
    }
    if (step->result == QUERY_DONE)
        step_done(run, step);
    else if (step->result != QUERY_FULL)
        run_fail(run, "%s", reason_of(run, step));
    query_step_free(run->server->heap, &step);
}

static void send_step(struct server_run *run)
{
    struct command *c = server_command(run->session, &run->step_call, CMD_QUERY_STEP, false);
    run->again_at = c ? 0 : run->server->now + NS_PER_MS;
    if (!c)
        return;
    run->step_call.on_done = on_stepped;
    c->query_step = run->step;
    run->step = NULL;
}

/* ---- making them ---- */

/* The messages that are in this step, or in none but the last. */
static bool tell_queue(struct server_run *run, const struct output_group *group, bool last)
{
    uint64_t until = group && !last ? group->until : run->steps.until;
    if (group && group->is_half)
        return run_queue_tell_half(run->step, group->acks, group->ack_count);
    if (!run_queue_tell(run, run->step, until, run->steps.dead && !last))
        return false;
    run->steps.acks = run->steps.acks && !last;
    return true;
}

/* What the next step says of the input: all of the trail with the first, the place with each of several. */
static bool step_trail(struct server_run *run, uint64_t place, bool last, bool *ret_restart, struct trail *ret)
{
    if (run->snapshot.state == SNAPSHOT_WRITTEN) { /* nothing was taken since it was saved */
        *ret_restart = true;
        return snapshot_trail(run, ret);
    }
    struct server_object *o = run->object;
    bool damaged, stateless = query_stateless(run->query);
    struct trail_entry mark = {.kind = TRAIL_PLACE, .offset = place};
    if (run->queue) { /* each step is complete in itself, and nothing is read again */
        *ret_restart = true;
        return trail_add(ret, &mark);
    }
    *ret_restart = last && (stateless || o->core_trail > TRAIL_ANEW || !o->step) &&
                   (stateless || !o->step || o->core_trail > 2 * o->trail.len);
    if (*ret_restart && !trail_append(ret, trail_bytes(&o->trail), &damaged))
        return false;
    if (run->steps.trail.len && !trail_append(ret, trail_bytes(&run->steps.trail), &damaged))
        return false;
    if (stateless && last) { /* the place stands behind where it is */
        return trail_add(ret, &mark) && trail_flatten(ret);
    }
    return !run->steps.several || trail_add(ret, &mark);
}

/* The next of run->steps; takes what it carries. False: no memory now. */
static bool make_step(struct server_run *run)
{
    struct output_group *group = run->steps.dead ? NULL : run->steps.groups;
    bool last = run->steps.dead ? !run->steps.groups : !group || !group->next;
    uint32_t count = run->steps.dead ? 1 : group ? group->count : 0;
    uint64_t place = group ? group->place : last ? run->given : run->steps.place;
    struct trail trail;
    bool restart;
    trail_init(&trail, TRAIL_REPLAYED_MAX);
    bool ok = step_trail(run, place, last, &restart, &trail);
    if (!ok || !trail_room(&run->object->trail, (restart ? 0 : run->object->trail.len) + trail.len)) {
        trail_fini(&trail);
        return false;
    }
    run->step = query_step_new(run->object->id, run->object->step + 1, trail_bytes(&trail), count);
    trail_fini(&trail);
    if (run->step && run->queue && !tell_queue(run, group, last))
        query_step_free(run->server->heap, &run->step);
    if (!run->step)
        return false;
    run->step->restart = restart;
    if (run->steps.dead) {
        run->step->outputs[0] = (struct query_output){.queue = run->dead_stream, .msg = run->steps.dead};
        run->steps.dead = NULL;
    } else if (group) {
        run->steps.groups = group->next;
        move_outputs(run->step->outputs, group->outputs, count);
        group->next = NULL;
        run->steps.sent = group;
    }
    return true;
}

/* All that was taken, and all outputs of it. */
static bool cut(struct server_run *run)
{
    struct output_group **end = &run->steps.groups;
    bool damaged;
    if (!output_cut(run->output)) {
        run_fail(run, "no memory for its outputs");
        return false;
    }
    if (!trail_append(&run->steps.trail, trail_bytes(&run->taken), &damaged) ||
        !dead_letters_take(&run->dead, run->server->heap, &run->steps.dead)) {
        trail_clear(&run->steps.trail); /* or a step would say of it what was read, and not what came of that */
        return false;
    }
    trail_clear(&run->taken);
    run->steps.acks = has_taken(run);
    run->steps.until = run->queue ? run_queue_taken(run) : 0;
    while ((*end = output_take(run->output)))
        end = &(*end)->next;
    run->steps.several = run->steps.groups && (run->steps.groups->next || run->steps.dead);
    run->steps.place = run->given;
    run->given = output_place(run->output);
    return true;
}

/* Something is to be said now: outputs, or what was taken a while ago. */
static bool is_due(struct server_run *run)
{
    if (output_bytes(run->output) || run->dead.count || run->snapshot.state == SNAPSHOT_WRITTEN)
        return true;
    if (!has_taken(run))
        return false;
    if (run->pausing || switch_hurries(run) || run_queue_presses(run) || snapshot_busy(run) || !run->object->step ||
        run->taken.len > 1024)
        return true;
    if (!run->quiet_until)
        run->quiet_until = run->server->now + QUIET_NS;
    return run->server->now >= run->quiet_until;
}

void run_steps(struct server_run *run)
{
    if (run->step_call.number || run->state < RUN_REPLAYING)
        return;
    if (!run->step && !have_steps(run)) {
        if (run->state == RUN_REPLAYING || !is_due(run))
            return;
        run->quiet_until = run->server->now + AGAIN_NS; /* for what cannot be had now */
        if ((run->dead.count && !run_dead_stream(run)) || !cut(run))
            return;
        run->quiet_until = 0;
    }
    if (!run->step && !make_step(run)) {
        run->again_at = run->server->now + AGAIN_NS;
        return;
    }
    if (run->server->now >= run->again_at)
        send_step(run);
}

void run_steps_fini(struct server_run *run)
{
    server_call_forget(run->server, &run->step_call);
    query_step_free(run->server->heap, &run->step);
    output_group_free(run->server->heap, &run->steps.sent);
    while (run->steps.groups) {
        struct output_group *group = run->steps.groups;
        run->steps.groups = group->next;
        output_group_free(run->server->heap, &group);
    }
    if (run->steps.dead)
        msg_unref(run->server->heap, run->steps.dead);
    trail_fini(&run->steps.trail);
    trail_fini(&run->taken);
    dead_letters_fini(&run->dead);
}
