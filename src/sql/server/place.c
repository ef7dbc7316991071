/* Where a query begins, how it comes back to where it was, and what time does while nothing comes, see server/run.h.
 *
 * A trail begins with the streams by their ids, the place of each partition at which the query begins (RECORDS, nothing of which is taken) and a PLACE; what
 * follows was taken in that order. In a replay rows that were given out are only counted: all of them, unless the trail ends with a PLACE, which says how many. */
#include "sql/server/run.h"

#include "base/mem.h"
#include "sql/query/op_aggregate.h"

#define AGAIN_NS (20 * NS_PER_MS)
#define WAIT_MOST_US                                                                                                   \
    (INT64_MAX / 4000) /* decades: nobody waits for what is further, as an event with a wrong time may be */

/* ---- a beginning ---- */

static void begin_at(struct server_run *run, struct run_partition *p, uint64_t place)
{
    struct trail_entry entry = {
        .kind = TRAIL_RECORDS, .source = p->source->number, .partition = p->number, .offset = place};
    p->place = p->end = p->kept = place;
    if (switch_builds(run))
        output_open(run->output, UINT64_MAX);
    if (run->object && !trail_add(&run->taken, &entry))
        run_fail(run, "no memory for its trail");
}

bool run_name_streams(const struct server_run *run, struct trail *trail)
{
    bool ok = true;
    for (uint32_t i = 0; ok && i < run->source_count; i++) {
        struct trail_entry entry = {.kind = TRAIL_STREAM, .source = i, .offset = run->sources[i].stream};
        ok = trail_add(trail, &entry);
    }
    return ok;
}

static void on_placed(struct server_call *call, struct effect *e)
{
    struct server_run *run = CONTAINER_OF(call, struct server_run, call);
    struct fetch *f = e && e->type == EFF_FETCHED ? e->fetch : NULL;
    struct trail_entry mark = {.kind = TRAIL_PLACE};
    uint32_t i = 0;
    if (!f)
        run_fail(run, "%s", run->session->why);
    else if (run->object && !run_name_streams(run, &run->taken))
        run_fail(run, "no memory for its trail");
    for (uint32_t s = 0; f && s < run->source_count; s++)
        for (uint32_t k = 0; k < run->sources[s].count && !run->failed; k++, i++) {
            const struct fetch_row *row = &f->rows[i];
            if (row->result != FETCH_OK)
                run_fail(run, "%.*s/%u cannot be read", SLICE_ARG(run->sources[s].topic), k);
            else
                begin_at(run, &run->sources[s].partitions[k], row->offset != FETCH_NOWHERE ? row->offset : row->stable);
            if (run->bounded)
                run->sources[s].partitions[k].until = row->stable;
        }
    if (!run->failed && run->object && !trail_add(&run->taken, &mark))
        run_fail(run, "no memory for its trail");
    if (!run->failed)
        run->state = RUN_GOING;
    run->owes_first = query_begins(run->query);
    if (e)
        server_effect_drop(run->server, e);
}

static void ask_fetch_place(struct fetch_row *row, const struct run_partition *p, const struct sql_with *own)
{
    const struct sql_with *with = own && own->start != START_UNSAID ? own : p->source->with;
    row->stream = p->source->stream;
    row->partition = p->number;
    row->at = p->source->whole              ? FETCH_AT_START
              : with->start == START_LATEST ? FETCH_AT_END
              : with->start == START_TIME   ? FETCH_AT_TIME
                                            : FETCH_AT_START;
    row->time = with->start_us / 1000;
}

static void ask_places(struct server_run *run)
{
    uint32_t count = 0, i = 0;
    for (uint32_t s = 0; s < run->source_count; s++) {
        count += run->sources[s].exist;
        if (!run_partition_named(run, s, run->sources[s].exist - 1))
            return;
    }
    struct fetch *f = fetch_new(FETCH_OFFSETS, count);
    struct command *c = f ? server_command(run->session, &run->call, CMD_FETCH, false) : NULL;
    if (!c) {
        fetch_free(&f);
        run_fail(run, "no memory to begin");
        return;
    }
    for (uint32_t s = 0; s < run->source_count; s++)
        for (uint32_t k = 0; k < run->sources[s].count; k++)
            ask_fetch_place(&f->rows[i++], &run->sources[s].partitions[k], run->object ? &run->object->with : NULL);
    f->committed = true;
    c->fetch = f;
    run->call.on_done = on_placed;
    run->state = RUN_PLACING;
}

/* ---- replay ---- */

/* Offsets mean nothing in another stream, whatever its name. */
static bool is_same_stream(struct server_run *run, const struct trail_entry *e)
{
    const struct run_source *s = e->source < run->source_count ? &run->sources[e->source] : NULL;
    run->named = true;
    if (s && s->stream == e->offset)
        return true;
    if (s)
        run_fail(run, "the stream %.*s is another one than that of which it has read: it was deleted, and made again",
                 SLICE_ARG(s->topic));
    else
        run_fail(run, "its trail in the catalogue is damaged");
    return false;
}

/* The places at which it began; what follows is to be taken again. False: the run has failed. */
static bool read_places(struct server_run *run)
{
    struct trail_entry e;
    while (trail_read(&run->replay, &e)) {
        if (e.kind == TRAIL_PLACE) {
            output_seek(run->output, e.offset);
            return true;
        }
        if (e.kind == TRAIL_STREAM) {
            if (!is_same_stream(run, &e))
                return false;
            continue;
        }
        if (e.kind == TRAIL_SNAPSHOT) {
            run->snapshot.first = e.offset;
            run->snapshot.until = e.until;
            continue;
        }
        if (e.kind != TRAIL_RECORDS)
            break;
        struct run_partition *p = run_partition_named(run, e.source, e.partition);
        if (!p)
            return false;
        p->place = p->end = p->kept = e.offset;
    }
    run_fail(run, "its trail in the catalogue is damaged");
    return false;
}

uint64_t run_given_until(struct slice trail)
{
    struct trail_reader r;
    struct trail_entry entry;
    uint64_t place = UINT64_MAX;
    bool begun = false; /* the first PLACE ends the beginning */
    trail_read_begin(&r, trail);
    while (trail_read(&r, &entry)) {
        place = entry.kind == TRAIL_PLACE && begun ? entry.offset : UINT64_MAX;
        begun = begun || entry.kind == TRAIL_PLACE;
    }
    return place;
}

void run_place(struct server_run *run)
{
    if (!run->object || !run->object->step) {
        ask_places(run);
        return;
    }
    struct slice trail = trail_bytes(&run->object->trail);
    trail_read_begin(&run->replay, trail);
    if (!read_places(run))
        return;
    run->replay_open = run_given_until(trail);
    output_open(run->output, run->replay_open);
    run->state = run->snapshot.until ? RUN_LOADING : RUN_REPLAYING;
}

static bool tick(struct server_run *run, const struct trail_entry *entry)
{
    enum sql_fault fault;
    bool ok = entry->kind == TRAIL_IDLE    ? query_idle(run->query, entry->source, entry->partition, &fault)
              : entry->kind == TRAIL_BEGIN ? query_begin(run->query, (int64_t)entry->offset * 1000, &fault)
                                           : query_advance(run->query, entry->source, entry->time, &fault);
    if (!ok)
        run_fail(run, "%s", sql_fault_text(fault));
    return ok;
}

/* Of a trail that says nothing of its first rows they are to be given, unless it has read something: it is from before there were any. */
static bool owes_first(const struct server_run *run)
{
    bool owes = query_begins(run->query) && !run->begun && !run->snapshot.until;
    for (uint32_t i = 0; i < run->source_count; i++)
        for (uint32_t k = 0; k < run->sources[i].count; k++)
            owes = owes && run->sources[i].partitions[k].place == run->sources[i].partitions[k].kept;
    return owes;
}

static void replay_end(struct server_run *run)
{
    if (!trail_read_ok(&run->replay)) {
        run_fail(run, "its trail in the catalogue is damaged");
        return;
    }
    if (run->replay_open == UINT64_MAX && !switch_builds(run))
        output_open(run->output, output_place(run->output));
    if (!run->named && !run_name_streams(run, &run->taken)) { /* its trail is from when they were not */
        run_fail(run, "no memory for its trail");
        return;
    }
    run->given = output_place(run->output);
    if (run->replay_open < run->given)
        run->given = run->replay_open; /* the rows behind it wait to be given */
    for (uint32_t i = 0; i < run->source_count; i++)
        run->sources[i].row_at = run->server->now;
    run->owes_first = owes_first(run);
    run->state = RUN_GOING;
}

bool run_replay(struct server_run *run)
{
    if (!run->entry_there && !trail_read(&run->replay, &run->entry)) {
        replay_end(run);
        return !run->failed;
    }
    run->entry_there = true;
    bool named = run->entry.kind == TRAIL_RECORDS || run->entry.kind == TRAIL_IDLE;
    struct run_partition *p = named ? run_partition_named(run, run->entry.source, run->entry.partition) : NULL;
    if (named && !p)
        return false;
    if (run->entry.kind == TRAIL_RECORDS && p->place < run->entry.offset) {
        bool more = p->got && run_take(run, p, run->entry.offset);
        if (p->place < run->entry.offset)
            return more;
    } else if (run->entry.kind == TRAIL_STREAM && !is_same_stream(run, &run->entry)) {
        return false;
    } else if ((run->entry.kind == TRAIL_IDLE || run->entry.kind == TRAIL_ADVANCE || run->entry.kind == TRAIL_BEGIN) &&
               !tick(run, &run->entry)) {
        return false;
    }
    if (run->entry.kind == TRAIL_IDLE)
        p->idle = true;
    run->begun = run->begun || run->entry.kind == TRAIL_BEGIN;
    run->entry_there = false;
    return true;
}

/* ---- time ---- */

bool run_tell_time(const struct server_run *run, struct trail *trail)
{
    bool ok = true;
    for (uint32_t i = 0; ok && i < run->source_count; i++) {
        struct trail_entry entry = {.kind = TRAIL_ADVANCE, .source = i, .time = query_reached(run->query, i)};
        ok = !run->sources[i].timed || entry.time == TIME_NEVER || trail_add(trail, &entry);
    }
    return ok;
}

/* That a place was read up to, behind all outputs, says that none of them is missing (run_given_until). Neither this nor the time changes anything in a
 * replay. */
void run_tell_last(struct server_run *run)
{
    if (run->last_told || snapshot_busy(run) || !run_steps_idle(run))
        return;
    run->last_told = true;
    if (run->queue || query_stateless(run->query))
        return;
    struct trail_entry entry = {.kind = TRAIL_RECORDS, .offset = run->sources[0].partitions[0].place};
    if (!trail_add(&run->taken, &entry) || !run_tell_time(run, &run->taken))
        run_fail(run, "no memory for its trail");
}

static bool is_silent(const struct server_run *run, const struct run_partition *p)
{
    return !p->got && p->asked && run->server->now - p->asked_at >= p->source->idle_ns;
}

bool run_go(struct server_run *run, const struct trail_entry *entry)
{
    if (!run->object || trail_add(&run->taken, entry))
        return tick(run, entry);
    run_fail(run, "no memory for its trail");
    return false;
}

/* Not before the core has where the query begins, which must not wait for their room, nor before who asked knows the columns. A version that is built gives
 * them when the old one has, and else when it has taken its place. */
static bool may_give_first(const struct server_run *run)
{
    if (!run->owes_first || run->failed || run->pausing)
        return false;
    if (!run->object)
        return !run_select_full(run);
    return run->object->step && (!switch_builds(run) || run->turnover.shares);
}

void run_give_first(struct server_run *run)
{
    struct trail_entry entry = {.kind = TRAIL_BEGIN, .offset = run->server->wall > 0 ? (uint64_t)run->server->wall : 0};
    if (may_give_first(run) && run_go(run, &entry))
        run->owes_first = false;
}

/* Where time has come to in the other sources, the least far of them; TIME_NEVER: nowhere. When rows arrive somewhere is no time of events: whatever comes
 * here would be late by it. */
static int64_t time_elsewhere(const struct server_run *run, const struct run_source *s)
{
    int64_t least = TIME_NEVER;
    bool arrives = query_by_arrival(run->query, s->number);
    for (uint32_t i = 0; i < run->source_count; i++) {
        bool counts = i != s->number && run->sources[i].timed && !query_untimed(run->query, i) &&
                      (arrives || !query_by_arrival(run->query, i));
        int64_t own = counts ? query_watermark(run->query, i) : TIME_NEVER;
        least = own != TIME_NEVER && (least == TIME_NEVER || own < least) ? own : least;
    }
    return least;
}

/* A source that has never had a row knows no time from which it could go on by itself: while it is silent it has that of the others, so that it holds back
 * neither what they give nor what is forgotten. At once when something waits for it, else now and then: each time is an entry of the trail. */
static bool follow(struct server_run *run, struct run_source *s)
{
    if (!query_untimed(run->query, s->number))
        return false;
    int64_t at = query_watermark(run->query, s->number), to = time_elsewhere(run, s);
    bool long_ago = !s->advanced_at || run->server->now - s->advanced_at >= s->idle_ns;
    if (to <= at || (!long_ago && query_due_after(run->query, at) > to))
        return false;
    struct trail_entry entry = {.kind = TRAIL_ADVANCE, .source = s->number, .time = to};
    if (run_go(run, &entry))
        s->advanced_at = run->server->now;
    return true;
}

/* All partitions are silent, and none of them holds back what another one has brought: whichever was the last to be called so, maybe in the same moment, and
 * whether it ever had a row. */
static void catch_up(struct server_run *run, struct run_source *s)
{
    struct trail_entry entry = {.kind = TRAIL_ADVANCE, .source = s->number, .time = query_heard(run->query, s->number)};
    if (entry.time > query_watermark(run->query, s->number))
        (void)run_go(run, &entry);
}

/* All partitions are silent: event time goes on as fast as the broker's does, so that windows end though nothing comes. What is due already waits for
 * another source: going on by itself brings it no nearer. */
static void advance(struct server_run *run, struct run_source *s)
{
    int64_t at = query_watermark(run->query, s->number);
    mono_t since = s->advanced_at ? s->advanced_at : s->row_at, now = run->server->now;
    if (at == TIME_NEVER || !since || at + (now - since) / 1000 < query_due_after(run->query, at))
        return;
    struct trail_entry entry = {.kind = TRAIL_ADVANCE, .source = s->number, .time = at + (now - since) / 1000};
    if (run_go(run, &entry))
        s->advanced_at = now;
}

/* While one takes the place of another, neither does; the one that is built follows the other one's time (server/switch.c). */
static bool asks_time(const struct server_run *run)
{
    return !run->held && !switch_builds(run);
}

void run_idle(struct server_run *run)
{
    for (uint32_t i = 0; i < run->source_count && asks_time(run); i++) {
        struct run_source *s = &run->sources[i];
        bool all = s->timed;
        for (uint32_t k = 0; s->timed && k < s->count && !run->failed; k++) {
            struct run_partition *p = &s->partitions[k];
            struct trail_entry entry = {.kind = TRAIL_IDLE, .source = i, .partition = k};
            bool silent = is_silent(run, p);
            all = all && silent;
            if (silent && !p->idle && s->count > 1 && run_go(run, &entry))
                p->idle = true;
        }
        if (all && !run->failed)
            catch_up(run, s);
        if (all && !run->failed && !follow(run, s))
            advance(run, s);
    }
}

/* From when on nothing has come for long enough, if nothing comes; MONO_NEVER: something is there, or nobody asks. */
static mono_t silent_from(const struct run_source *s)
{
    mono_t from = 0;
    for (uint32_t k = 0; k < s->count; k++) {
        const struct run_partition *p = &s->partitions[k];
        mono_t own = p->got || !p->asked ? MONO_NEVER : p->asked_at + s->idle_ns;
        from = own > from ? own : from;
    }
    return from;
}

/* When a source without a time of its own takes that of the others. */
static mono_t follow_due(const struct server_run *run, const struct run_source *s)
{
    bool behind = s->timed && query_untimed(run->query, s->number) &&
                  time_elsewhere(run, s) > query_watermark(run->query, s->number);
    mono_t silent = behind ? silent_from(s) : MONO_NEVER, again = s->advanced_at ? s->advanced_at + s->idle_ns : 0;
    return silent > again ? silent : again;
}

/* When time, going on, brings something out. */
static mono_t advance_due(const struct server_run *run, const struct run_source *s)
{
    int64_t at = query_watermark(run->query, s->number), due = query_due_after(run->query, at);
    mono_t since = s->advanced_at ? s->advanced_at : s->row_at;
    if (!s->timed || !since || at == TIME_NEVER || due == INT64_MAX || due > time_plus(at, WAIT_MOST_US))
        return MONO_NEVER;
    mono_t then = since + (due - at) * 1000 + 1000, silent = silent_from(s);
    return then > silent ? then : silent;
}

static mono_t idle_due(const struct server_run *run)
{
    mono_t due = MONO_NEVER;
    bool asks = asks_time(run);
    for (uint32_t i = 0; i < run->source_count; i++) {
        const struct run_source *s = &run->sources[i];
        mono_t own = asks ? advance_due(run, s) : MONO_NEVER, follows = asks ? follow_due(run, s) : MONO_NEVER;
        due = own < due ? own : due;
        due = follows < due ? follows : due;
        for (uint32_t k = 0; k < s->count; k++) {
            const struct run_partition *p = &s->partitions[k];
            own = p->again_at > run->server->now                             ? p->again_at
                  : asks && s->timed && s->count > 1 && p->asked && !p->idle ? p->asked_at + s->idle_ns
                                                                             : MONO_NEVER;
            due = own < due ? own : due;
        }
    }
    return due;
}

mono_t run_due(const struct server_run *run)
{
    mono_t due = run->state == RUN_GOING && !run->queue && run_has_room(run) ? idle_due(run) : MONO_NEVER,
           now = run->server->now;
    if (run->failed)
        return now + AGAIN_NS;
    if (run->state < RUN_GOING ||
        snapshot_busy(run)) /* what could not be asked for want of memory or room is asked again */
        due = now + AGAIN_NS;
    if (switch_builds(run) && now + AGAIN_NS < due) /* the old version has gone on */
        due = now + AGAIN_NS;
    if (run->quiet_until && run->quiet_until < due)
        due = run->quiet_until;
    if ((run->step || run->steps.groups || run->steps.dead || run->steps.trail.len || run->steps.acks) &&
        !run->step_call.number)
        due = run->again_at < due ? run->again_at : due;
    return due;
}
