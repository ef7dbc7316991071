/* A query replaced in place, see docs/decisions/0015: the new version reads for itself, comes to the place at which the old one stands, and takes it.
 *
 *   BUILDING (never beyond the old one) ▸ ALIGNING (both come to one place, and owe the core nothing) ▸ ASKED (SQL_SWITCH) ▸ it is the query of its name
 *
 * What must hold while the core is asked, so that no row is lost and none comes twice:
 *   S1  of each partition that both read both have taken the same records, and all that the old one gives of these has been accepted.
 *   S2  the new one's trail in the core is all that it has taken.
 *   S3  event time of a stream that both read is not earlier in the new one: what the old one has ended by the clock has ended in it, too. It asks no clock
 *       itself before that.
 *   S4  neither takes anything more before the answer has come. */
#include "sql/server/run.h"

#include "base/mem.h"

#define NEAR 2000u /* records; both stand still while they are read */
#define ROUNDS 4u  /* then it is as near as it gets */
#define AGAIN_NS (20 * NS_PER_MS)
#define SILENT_NS (50 * NS_PER_MS)

enum switch_state { SWITCH_BUILDING, SWITCH_ALIGNING, SWITCH_ASKED };

bool switch_builds(const struct server_run *run)
{
    return run->object && run->object->next;
}

bool switch_hurries(const struct server_run *run)
{
    return run->held || (switch_builds(run) && run->turnover.state != SWITCH_BUILDING);
}

bool server_object_switching(const struct server_object *o)
{
    const struct server_object *next = o->next ? o : server_object_next(o);
    return next && next->run && next->run->turnover.call.number;
}

/* NULL: there are no more. */
static struct run_partition *nth(const struct server_run *run, uint32_t n)
{
    for (uint32_t i = 0; i < run->source_count; n -= run->sources[i++].count)
        if (n < run->sources[i].count)
            return &run->sources[i].partitions[n];
    return NULL;
}

/* The same one, as that source has it; NULL: it has it not. */
static struct run_partition *same_of(const struct run_source *s, const struct run_partition *p)
{
    return s->stream == p->source->stream && p->number < s->count ? &s->partitions[p->number] : NULL;
}

/* ---- where the old one stands ---- */

/* Who has fewer partitions of what both read hears of the others here, and has them soon: what one of them has read, the other one has to read, too. */
static bool have_the_same(struct server_run *run, struct server_run *old)
{
    bool same = true;
    for (uint32_t i = 0; i < run->source_count; i++)
        for (uint32_t k = 0; k < old->source_count; k++) {
            struct run_source *s = &run->sources[i], *t = &old->sources[k];
            if (s->stream != t->stream)
                continue;
            run_partitions_exist(s, t->count);
            run_partitions_exist(t, s->count);
            same = same && s->count == t->count;
        }
    return same;
}

static bool stands_as_it_runs(struct server_run *run, struct server_run *old)
{
    struct run_partition *p;
    const struct run_partition *q;
    for (uint32_t i = 0; (p = nth(run, i)); i++) {
        p->shared = false;
        for (uint32_t k = 0; k < old->source_count; k++)
            if ((q = same_of(&old->sources[k], p))) {
                p->stood = p->shared && p->stood > q->place ? p->stood : q->place;
                p->shared = true;
            }
    }
    return have_the_same(run, old);
}

static bool has_partition(const struct trail_entry *e)
{
    return e->kind == TRAIL_RECORDS || e->kind == TRAIL_IDLE;
}

/* Both ask the same clock of the same stream. */
static bool same_clock(const struct object_clock *a, const struct object_clock *b)
{
    return a->of && a->of == b->of && a->arrival == b->arrival;
}

/* What its trail says of one of its sources, of the new one's source that reads the same stream. A partition that it does not name it has not begun. */
static void stood_by_trail(struct run_source *s, struct slice trail, uint32_t source)
{
    struct trail_reader r;
    struct trail_entry e;
    for (uint32_t i = 0; i < s->count; i++)
        s->partitions[i].goal = 0;
    trail_read_begin(&r, trail);
    while (trail_read(&r, &e)) {
        if (!has_partition(&e) || e.source != source)
            continue;
        run_partitions_exist(s, e.partition + 1);
        if (e.partition >= s->count)
            continue;
        struct run_partition *p = &s->partitions[e.partition];
        p->stood_idle = e.kind == TRAIL_IDLE || (p->stood_idle && e.offset == p->goal);
        p->goal = e.kind == TRAIL_RECORDS ? e.offset : p->goal;
    }
}

/* False: another source stands elsewhere in the same stream. */
static bool stands_by_trail(struct server_run *run, struct slice trail, uint32_t source, uint64_t stream)
{
    bool even = true;
    for (uint32_t i = 0; i < run->source_count; i++) {
        struct run_source *s = &run->sources[i];
        if (s->stream != stream)
            continue;
        stood_by_trail(s, trail, source);
        for (uint32_t k = 0; k < s->count; k++) {
            struct run_partition *p = &s->partitions[k];
            even = even && (!p->shared || p->stood == p->goal);
            p->shared = true;
            p->stood = p->goal;
        }
    }
    return even;
}

static void stood_at(struct server_run *run, const struct object_clock *clock, int64_t time)
{
    for (uint32_t i = 0; i < run->source_count; i++)
        if (same_clock(&run->object->clocks[i], clock) && time > run->sources[i].stood_at)
            run->sources[i].stood_at = time;
}

static bool has_all(const struct server_run *run)
{
    for (uint32_t i = 0; i < run->source_count; i++)
        if (run->sources[i].count < run->sources[i].exist)
            return false;
    return true;
}

/* False: it has some partitions not yet. */
static bool stands_as_it_stopped(struct server_run *run, const struct server_object *old)
{
    struct slice trail = trail_bytes(&old->trail);
    uint64_t streams[TRAIL_SOURCES_MAX] = {0};
    struct trail_reader r;
    struct trail_entry e;
    struct run_partition *p;
    if (run->turnover.looked == old->step + 1 && has_all(run))
        return true;
    for (uint32_t i = 0; (p = nth(run, i)); i++)
        p->shared = p->stood_idle = false;
    for (uint32_t i = 0; i < run->source_count; i++)
        run->sources[i].stood_at = TIME_NEVER;
    trail_read_begin(&r, trail);
    while (trail_read(&r, &e))
        if (e.kind == TRAIL_STREAM)
            streams[e.source] = e.offset;
        else if (e.kind == TRAIL_ADVANCE)
            stood_at(run, &old->clocks[e.source], e.time);
    for (uint32_t i = 0; i < TRAIL_SOURCES_MAX; i++)
        if (streams[i] && !stands_by_trail(run, trail, i, streams[i]))
            run_fail(
                run,
                "the query that it is to replace reads a stream twice, and has not come as far in both: RESUME it");
    if (old->damaged)
        run_fail(run, "nobody knows where the query that it is to replace stands (%s): DROP that one first",
                 old->reason);
    else if (run_given_until(trail) != UINT64_MAX)
        run_fail(run, "the query that it is to replace has stopped amid rows that it has to give out: RESUME it, and "
                      "replace it again, or DROP it first");
    run->turnover.looked = old->step + 1;
    return has_all(run);
}

/* Its trail has where it began: no snapshot stands in its place. */
static bool beginning_is_known(const struct server_run *run)
{
    struct trail_reader r;
    struct trail_entry e;
    trail_read_begin(&r, trail_bytes(&run->object->trail));
    return !trail_read(&r, &e) || e.kind != TRAIL_SNAPSHOT;
}

/* It has read for the time behind the old version, of which nothing is left: what it has read nobody has given out. */
static void check_begun(struct server_run *run, const struct server_object *old)
{
    const struct run_partition *p;
    bool moved = !beginning_is_known(run) || (query_begins(run->query) && !run->owes_first);
    for (uint32_t i = 0; (p = nth(run, i)); i++)
        moved = moved || p->place > p->kept;
    if (moved && !old->step)
        run_fail(run, "the query that it is to replace has ended before anything of it was there: replace it again");
}

/* What lies between them nobody would give out; but for who was told to begin behind it. */
static void check_behind(struct server_run *run)
{
    const struct run_partition *p;
    bool told =
        (run->object->with.start == START_LATEST || run->object->with.start == START_TIME) && beginning_is_known(run);
    for (uint32_t i = 0; (p = nth(run, i)); i++)
        if (p->shared && p->place > p->stood && !(told && p->place == p->kept))
            run_fail(run,
                     "the query that it is to replace has stopped at %.*s/%u, offset %llu, before the place where this "
                     "one is: RESUME that one, or replace it again",
                     SLICE_ARG(p->source->topic), p->number, (unsigned long long)p->stood);
}

/* False: it is not known yet, as the old one has not begun, or not both have the same partitions. */
static bool stands(struct server_run *run, const struct server_object *old)
{
    struct run_partition *p;
    bool any = false, known = !old->run || (old->run->state == RUN_GOING && !old->run->owes_first);
    if (known)
        known = old->run ? stands_as_it_runs(run, old->run) : stands_as_it_stopped(run, old);
    for (uint32_t i = 0; (p = nth(run, i)); i++)
        any = any || (known && p->shared);
    for (uint32_t i = 0; (p = nth(run, i)); i++)
        p->limit = !any ? p->place : !p->shared ? UINT64_MAX : p->stood > p->place ? p->stood : p->place;
    run->turnover.shares = any;
    run->turnover.looked = old->run ? 0 : run->turnover.looked;
    if (!old->run)
        check_begun(run, old);
    if (!old->run)
        check_behind(run);
    return known && !run->failed;
}

/* ---- event time ---- */

/* Its time in that source's stream; TIME_NEVER: it has none. */
static int64_t time_of(const struct server_run *run, uint32_t source, const struct server_object *old)
{
    int64_t time = old->run ? TIME_NEVER : run->sources[source].stood_at;
    for (uint32_t k = 0; old->run && k < old->run->source_count; k++)
        if (same_clock(&run->object->clocks[source], &old->clocks[k])) {
            int64_t own = query_watermark(old->run->query, k);
            time = own > time ? own : time;
        }
    return time;
}

static bool was_idle(const struct run_partition *p, const struct server_object *old)
{
    const struct run_partition *q;
    if (!old->run)
        return p->shared && p->stood_idle && p->place >= p->stood;
    for (uint32_t k = 0; k < old->run->source_count; k++)
        if ((q = same_of(&old->run->sources[k], p)) && q->idle && p->place >= q->place)
            return true;
    return false;
}

/* A partition that is silent for the old one is so for the new one, when it has read all of it, and time is as late at least. */
static void follow_time(struct server_run *run, const struct server_object *old, bool advance)
{
    struct run_partition *p;
    for (uint32_t i = 0; (p = nth(run, i)) && !run->failed; i++) {
        struct trail_entry e = {.kind = TRAIL_IDLE, .source = p->source->number, .partition = p->number};
        if (p->source->timed && !p->idle && was_idle(p, old) && run_go(run, &e))
            p->idle = true;
    }
    for (uint32_t i = 0; advance && i < run->source_count && !run->failed; i++) {
        struct trail_entry e = {.kind = TRAIL_ADVANCE, .source = i, .time = time_of(run, i, old)};
        if (e.time != TIME_NEVER && e.time > query_watermark(run->query, i))
            (void)run_go(run, &e);
    }
}

/* ---- building ---- */

/* All of it that is there now has been read, or nearly. */
static bool is_at_end(const struct server_run *run, const struct run_partition *p)
{
    bool silent = p->asked && run->server->now - p->asked_at >= SILENT_NS;
    return p->place + NEAR >= p->end && (p->start != FETCH_NOWHERE || silent);
}

static bool is_near(struct server_run *run)
{
    struct run_partition *p;
    uint64_t lag = 0;
    bool round = true, any = false;
    for (uint32_t i = 0; (p = nth(run, i)); i++) {
        any = any || p->shared;
        lag += p->shared ? p->limit - p->place : 0;
        round = round && (!p->shared || p->place >= p->goal);
    }
    for (uint32_t i = 0; any && (p = nth(run, i)); i++)
        if (!p->shared && !is_at_end(run, p))
            return false;
    run->turnover.rounds += round;
    for (uint32_t i = 0; round && (p = nth(run, i)); i++)
        p->goal = p->limit;
    return lag <= NEAR || run->turnover.rounds > ROUNDS;
}

/* ---- one place ---- */

static void let_go(struct server_run *old)
{
    struct run_partition *p;
    if (old)
        old->held = false;
    for (uint32_t i = 0; old && (p = nth(old, i)); i++)
        p->limit = UINT64_MAX;
}

/* The furthest that either has read is where both go to. */
static void align(struct server_run *run, struct server_run *old)
{
    struct run_partition *p, *q;
    for (uint32_t i = 0; (p = nth(run, i)); i++)
        for (uint32_t k = 0; k < run->source_count; k++)
            if (p->shared && (q = same_of(&run->sources[k], p)) && q->limit < p->limit)
                q->limit = p->limit;
    for (uint32_t i = 0; (p = nth(run, i)); i++)
        p->limit = p->shared ? p->limit : p->place;
    for (uint32_t k = 0; old && (q = nth(old, k)); k++) {
        q->limit = q->place;
        for (uint32_t i = 0; i < run->source_count; i++)
            if ((p = same_of(&run->sources[i], q)))
                q->limit = p->limit;
    }
    if (old)
        old->held = true;
    run->turnover.with = old;
    run->turnover.state = SWITCH_ALIGNING;
}

static bool has_come(const struct server_run *run)
{
    const struct run_partition *p;
    for (uint32_t i = 0; (p = nth(run, i)); i++)
        if (p->place < p->limit)
            return false;
    return true;
}

/* ---- the switch ---- */

static void switched(struct server_run *run)
{
    struct server_object *o = run->object, *old = server_object_replaced(o);
    char room[SQL_NAME_MAX + sizeof SQL_INTERNAL];
    struct slice none = {0};
    struct run_partition *p;
    if (old) {
        (void)server_ask(run->session, NULL, CMD_STREAM_DELETE,
                         ask_new(server_object_snapshots(old, room), none, none, none), 0, 0, false);
        server_object_remove(old);
    }
    o->next = false;
    run->given = output_place(run->output);
    output_open(run->output, run->given);
    for (uint32_t i = 0; (p = nth(run, i)); i++)
        p->limit = UINT64_MAX;
    run->server->news = true;
}

static void on_switched(struct server_call *call, struct effect *e)
{
    struct server_run *run = CONTAINER_OF(call, struct server_run, turnover.call);
    uint64_t result = e && e->type == EFF_ANSWER && e->answer ? e->answer->number : QUERY_NO_ROOM;
    if (!e)
        run_fail(run, "%s", run->session->why);
    else if (result == QUERY_DONE)
        switched(run);
    else if (result != QUERY_NO_ROOM)
        run_fail(run, "the core lets it not take its place");
    run->turnover.state = SWITCH_ALIGNING;
    run->turnover.again_at = run->server->now + AGAIN_NS;
    if (e)
        server_effect_drop(run->server, e);
}

static void ask(struct server_run *run, const struct server_object *old)
{
    struct slice none = {0};
    struct ask *ask = ask_new(none, none, none, none);
    const struct server_object *user = server_object_user(old);
    run->turnover.again_at = run->server->now + AGAIN_NS;
    run->turnover.call.on_done = on_switched;
    if (user) {
        mem_free(ask);
        run_fail(run, "%s is made of %s meanwhile", user->name, old->name);
    } else if (server_ask(run->session, &run->turnover.call, CMD_SQL_SWITCH, ask, run->object->id, 0, true)) {
        ask->number = old->id; /* not published yet */
        run->turnover.state = SWITCH_ASKED;
    }
}

void switch_turn(struct server_run *run)
{
    struct server_object *old = server_object_replaced(run->object);
    if (!old) {
        run_fail(run, "the query that it is to replace is not there any more");
        return;
    }
    if (run->turnover.state == SWITCH_ASKED || run->pausing)
        return;
    if (run->turnover.state == SWITCH_ALIGNING &&
        old->run != run->turnover.with) /* it has failed, or was paused or resumed */
        run->turnover.state = SWITCH_BUILDING;
    bool building = run->turnover.state == SWITCH_BUILDING, known = !building || stands(run, old);
    bool saved = snapshot_busy(run); /* what is taken meanwhile neither it nor the trail would have */
    if (building && known && !saved)
        follow_time(run, old, false);
    if (building && known && !run->failed && is_near(run))
        align(run, old->run);
    bool owes = run->owes_first && run->turnover.shares; /* the old one has given it */
    if (run->turnover.state != SWITCH_ALIGNING || run->failed || saved || owes || !has_come(run) ||
        (old->run && !has_come(old->run)))
        return;
    follow_time(run, old, true);
    if (!run->failed && run->object->step && run_steps_idle(run) && (!old->run || run_steps_idle(old->run)) &&
        run->server->now >= run->turnover.again_at)
        ask(run, old);
}

void switch_end(struct server_run *run)
{
    struct server_object *old = run->object && run->object->next ? server_object_replaced(run->object) : NULL;
    server_call_forget(run->server, &run->turnover.call);
    if (old && run->turnover.state != SWITCH_BUILDING)
        let_go(old->run);
}
