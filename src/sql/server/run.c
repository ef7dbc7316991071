/* Queries that run, see server/run.h: from the start of one to its end, and what each turn of the server does for it. */
#include "sql/server/run.h"

#include "base/check.h"
#include "base/mem.h"
#include "core/stream_admin.h"
#include "sql/language/datetime.h"

#include <stdarg.h>
#include <stdio.h>

#define OUTPUT_BYTES_MAX (64u << 20) /* of what one run of records may cause */
#define TAKEN_MAX (128u * 1024)      /* bytes of the trail between two steps */

void run_fail(struct server_run *run, const char *format, ...)
{
    va_list args;
    if (run->failed)
        return;
    va_start(args, format);
    vsnprintf(run->why, sizeof run->why, format, args);
    va_end(args);
    run->failed = true;
}

/* ---- making and unmaking ---- */

struct server_run *run_new(struct sql_server *server, const char *user, const char *vhost)
{
    struct server_run *run = server->run_count < server->options.queries_max ? mem_zalloc(sizeof *run) : NULL;
    if (!run)
        return NULL;
    run->server = server;
    trail_init(&run->taken, TAKEN_MAX);
    trail_init(&run->steps.trail, SQL_TRAIL_MAX);
    dead_letters_init(&run->dead);
    run->snapshot.made_at = server->now;
    list_insert(&server->runs, &run->link);
    server->run_count++;
    server->news = true;
    run->session = server_session_get(server, user, vhost);
    if (!run->session)
        server_run_stop(&run);
    return run;
}

void server_run_stop(struct server_run **ret)
{
    struct server_run *run = *ret;
    *ret = NULL;
    if (!run)
        return;
    server_call_forget(run->server, &run->call);
    server_call_forget(run->server, &run->dead_call);
    run_steps_fini(run);
    switch_end(run);
    if (run->object)
        snapshot_fini(run);
    for (uint32_t i = 0; i < run->source_count; i++) {
        for (uint32_t k = 0; k < run->sources[i].count; k++)
            run_partition_clear(&run->sources[i].partitions[k]);
        feed_leave(&run->sources[i]);
        mem_free(run->sources[i].partitions);
    }
    mem_free(run->sources);
    run_queue_free(&run->queue);
    query_free(&run->query);
    output_free(&run->output);
    server_select_free(&run->select);
    for (uint32_t i = 0; i < run->use_count; i++)
        server_object_unref(&run->uses[i]);
    mem_free(run->uses);
    if (run->object)
        run->object->run = NULL;
    server_session_put(&run->session);
    list_remove(&run->link);
    run->server->run_count--;
    mem_free(run);
}

void server_run_pause(struct server_run *run, bool pause)
{
    run->last_told = run->last_told && run->pausing && pause;
    run->pausing = pause;
}

/* Everything of the vhost: its plan may point into any of their trees. */
bool run_uses(struct server_run *run, const char *vhost)
{
    uint32_t count = 0;
    LIST_EACH(&run->server->objects, node, after)
    count += CONTAINER_OF(node, struct server_object, link)->relation != NULL;
    run->uses = mem_alloc((count + 1) * sizeof *run->uses);
    if (!run->uses)
        return false;
    LIST_EACH(&run->server->objects, node, after)
    {
        struct server_object *o = CONTAINER_OF(node, struct server_object, link);
        if (o->relation && o != run->object && strcmp(o->vhost, vhost) == 0) {
            run->uses[run->use_count++] = o;
            o->refs++;
        }
    }
    return true;
}

static const struct server_object *object_of_relation(const struct server_run *run, const struct ast *relation)
{
    for (uint32_t i = 0; i < run->use_count; i++)
        if (run->uses[i]->relation == relation)
            return run->uses[i];
    return NULL;
}

bool run_sources(struct server_run *run)
{
    static const struct sql_with unsaid = {0};
    const struct plan *plan = query_plan(run->query);
    run->sources = mem_zalloc((plan->source_count + 1) * sizeof *run->sources);
    if (!run->sources)
        return false;
    for (uint32_t i = 0; i < plan->source_count; i++) {
        const struct server_object *o = object_of_relation(run, &plan->sources[i].stream->ast);
        CHECK(o);
        const struct clock *clock = plan->sources[i].clock;
        run->sources[i] = (struct run_source){
            .run = run,
            .number = i,
            .topic = server_object_is_queue(o) ? o->with.queue
                     : o->with.topic.len       ? o->with.topic
                                               : slice_str(o->name),
            .queue = server_object_is_queue(o),
            .with = o->kind == KIND_STREAM ? &o->with : &unsaid, /* a query's options are about what it reads */
            .whole = plan->sources[i].stream->table,
            .idle_ns = plan->sources[i].idle_us * 1000,
            .timed = (clock && clock->expr) || plan->sources[i].arrival->expr,
        };
    }
    run->source_count = plan->source_count;
    query_divert(run->query, run_divert, run);
    query_lend(run->query, &run->server->scratch);
    return true;
}

bool server_run_start(struct server_object *o)
{
    struct sql_error error = {0};
    struct server_run *run = run_new(o->server, o->owner, o->vhost);
    if (!run)
        return false;
    run->object = o;
    o->run = run;
    if (!run_uses(run, o->vhost)) {
        server_run_stop(&run);
        return false;
    }
    if (!server_object_target(o, &run->topic, &run->target, &error))
        run_fail(run, "%s", error.message);
    return true;
}

/* Its target is known: the query is made, with its rows going there. */
static void build(struct server_run *run)
{
    struct sql_error error = {0};
    run->output = output_new(run->server->heap, &run->target, OUTPUT_BYTES_MAX);
    if (run->output)
        run->query = server_object_plan(run->object, output_op(run->output), &error);
    if (run->query)
        query_spill(run->query, run->server->options.disk, run->server->options.scratch_max);
    if (run->query && output_bind(run->output, query_plan(run->query), &error) && run_sources(run) &&
        run_queue_open(run))
        run->state = RUN_LOOKING;
    else
        run_fail(run, "%s", error.fault != SQL_FAULT_NONE ? error.message : "no memory for the query");
}

/* ---- what cannot be used ---- */

static uint8_t on_error_of(const struct server_run *run, const struct run_source *s)
{
    uint8_t own = run->object ? run->object->with.on_error : ON_ERROR_UNSAID;
    own = own != ON_ERROR_UNSAID ? own : s->with->on_error;
    return own != ON_ERROR_UNSAID ? own : run->object ? ON_ERROR_DLQ : ON_ERROR_SKIP;
}

void run_divert(void *arg, uint32_t origin, enum sql_fault fault)
{
    struct server_run *run = arg;
    const struct query_input *in = run->input;
    if (!in || run->failed)
        return;
    const struct run_source *s = &run->sources[in->source];
    struct dead_letter letter = {.query = slice_str(run->object ? run->object->name : ""),
                                 .stream = s->topic,
                                 .partition = in->partition,
                                 .offset = in->offsets ? in->offsets[origin] : in->offset + origin,
                                 .key = in->keys ? in->keys[origin] : (struct slice){0},
                                 .value = in->records[origin],
                                 .headers = in->headers ? in->headers[origin] : (struct slice){0},
                                 .fault = fault,
                                 .at = run->server->wall};
    switch (on_error_of(run, s)) {
    case ON_ERROR_FAIL:
        run_fail(run, "%.*s/%u, offset %llu: %s", SLICE_ARG(s->topic), in->partition, (unsigned long long)letter.offset,
                 sql_fault_text(fault));
        break;
    case ON_ERROR_DLQ:
        run->dead_count++;
        if (run->queue)
            run_queue_letter(run, letter.offset);
        if (run->state == RUN_GOING && !switch_builds(run) && !dead_letters_add(&run->dead, &letter))
            run_fail(run, "no memory for a dead letter");
        break;
    default: run->skipped++;
    }
}

static void on_dead_stream(struct server_call *call, struct effect *e)
{
    struct server_run *run = CONTAINER_OF(call, struct server_run, dead_call);
    const struct answer *a = e && e->type == EFF_ANSWER ? e->answer : NULL;
    struct stream_row row = {.result = STREAM_NO_ROOM};
    struct reader fields = reader_of(a ? a->fields : (struct slice){0});
    if (a && !run->dead_made)
        (void)!stream_row_next(&fields, &row);
    if (a && run->dead_made && a->number != STREAM_DONE && a->number != STREAM_EXISTS)
        run_fail(run, "its dead-letter stream cannot be made: %.*s", SLICE_ARG(a->text));
    else if (a && run->dead_made)
        run->dead_stream = a->number2;
    else if (row.result == STREAM_DONE)
        run->dead_stream = row.id;
    else if (row.result == STREAM_UNKNOWN)
        run->dead_made = true;
    else
        run_fail(run, "its dead-letter stream is no stream, or its owner may not use it");
    if (e)
        server_effect_drop(run->server, e);
}

bool run_dead_stream(struct server_run *run)
{
    char name[SQL_NAME_MAX + sizeof DEAD_LETTER_SUFFIX];
    uint8_t room[sizeof name + 1];
    struct slice none = {0};
    if (run->dead_stream || run->dead_call.number)
        return run->dead_stream;
    struct slice text =
        slice_of(name, (size_t)snprintf(name, sizeof name, "%s%s", run->object->name, DEAD_LETTER_SUFFIX));
    if (text.len > SQL_NAME_MAX)
        run_fail(run, "its name is too long for one of a dead-letter stream");
    struct writer w = writer_of(room, sizeof room);
    writer_str8(&w, text);
    run->dead_call.on_done = on_dead_stream;
    if (!run->failed && run->dead_made)
        (void)server_ask(run->session, &run->dead_call, CMD_STREAM_CREATE, ask_new(text, none, none, none), 0, 0, true);
    else if (!run->failed)
        (void)server_ask(run->session, &run->dead_call, CMD_STREAM_LIST, ask_new(writer_slice(&w), none, none, none), 0,
                         0, false);
    return false;
}

/* ---- LOOKING: which streams, how many partitions ---- */

static bool take_source(struct server_run *run, struct run_source *s, const struct stream_row *row)
{
    if (row->result != STREAM_DONE || !(row->verbs & STREAM_MAY_READ)) {
        bool there = row->result == STREAM_DONE || row->result == STREAM_REFUSED;
        run->code = there ? "42501" : "42P01";
        run_fail(run, there ? "the user may not read the stream %.*s" : "there is no stream %.*s", SLICE_ARG(s->topic));
        return false;
    }
    if (run->object && row->limits.compacts && !s->whole && !query_stateless(run->query)) {
        /* A replay would miss the records that compaction takes, and come to another state than before. */
        run_fail(run,
                 "the stream %.*s is compacted, and a query that remembers what it has read needs all of its records: "
                 "read it by a CREATE TABLE",
                 SLICE_ARG(s->topic));
        return false;
    }
    s->stream = row->id;
    return run_partitions(s, row->partitions);
}

static void on_aimed(struct server_call *call, struct effect *e)
{
    struct server_run *run = CONTAINER_OF(call, struct server_run, call);
    const struct answer *a = e && e->type == EFF_ANSWER ? e->answer : NULL;
    struct reader fields = reader_of(a ? a->fields : (struct slice){0});
    struct stream_row row;
    if (!e)
        run_fail(run, "%s", run->session->why);
    else if (!stream_row_next(&fields, &row))
        run_fail(run, "its target cannot be looked for");
    else if (row.result != STREAM_DONE || !(row.verbs & STREAM_MAY_WRITE))
        run_fail(run,
                 row.result == STREAM_DONE || row.result == STREAM_REFUSED
                     ? "its owner may not write to the stream %.*s"
                     : "there is no stream %.*s",
                 SLICE_ARG(run->topic));
    run->target.queue = run->failed ? 0 : row.id;
    run->target.partitions = run->failed ? 0 : row.partitions;
    if (!run->failed)
        build(run);
    if (e)
        server_effect_drop(run->server, e);
}

static void on_looked(struct server_call *call, struct effect *e)
{
    struct server_run *run = CONTAINER_OF(call, struct server_run, call);
    const struct answer *a = e && e->type == EFF_ANSWER ? e->answer : NULL;
    struct reader fields = reader_of(a ? a->fields : (struct slice){0});
    struct stream_row row;
    if (!e)
        run_fail(run, "%s", run->session->why);
    for (uint32_t i = 0; i < run->source_count && !run->failed; i++)
        if (!stream_row_next(&fields, &row) || !take_source(run, &run->sources[i], &row))
            run_fail(run, "the broker does not know its streams");
    if (!run->failed)
        run_place(run);
    if (e)
        server_effect_drop(run->server, e);
}

static void ask_for_streams(struct server_run *run, struct slice names,
                            void (*on_done)(struct server_call *call, struct effect *e))
{
    struct slice none = {0};
    run->call.on_done = on_done;
    (void)server_ask(run->session, &run->call, CMD_STREAM_LIST, ask_new(names, none, none, none), 0, 0, false);
}

static void look(struct server_run *run)
{
    uint8_t room[PLAN_SOURCES_MAX * 256];
    struct writer w = writer_of(room, sizeof room);
    if (run->call.number || !run->session->ready)
        return;
    if (run->state == RUN_AIMING && !run->topic.len) {
        build(run);
    } else if (run->state == RUN_AIMING) {
        writer_str8(&w, run->topic);
        ask_for_streams(run, writer_slice(&w), on_aimed);
    } else if (run->queue) {
        run_queue_look(run);
    } else {
        for (uint32_t i = 0; i < run->source_count; i++)
            writer_str8(&w, run->sources[i].topic);
        ask_for_streams(run, writer_slice(&w), on_looked);
    }
}

/* ---- time of operators ---- */

void run_time(struct server_run *run, mono_t ns)
{
    run->timer = (struct op_timer){.now = run->server->options.clock, .arg = run->server->options.clock_arg};
    if (!run->timed_until && run->timer.now)
        query_time(run->query, &run->timer);
    run->timed_until = run->server->now + ns;
}

static void time_ends(struct server_run *run)
{
    if (!run->timed_until || run->server->now <= run->timed_until)
        return;
    run->timed_until = 0;
    query_time(run->query, NULL);
}

/* ---- a turn ---- */

/* One piece of one partition, in turn. False: nothing is there. */
static bool take_next(struct server_run *run)
{
    uint32_t all = 0, i = 0;
    for (uint32_t s = 0; s < run->source_count; s++)
        all += run->sources[s].count;
    for (uint32_t tried = 0; tried < all; tried++) {
        run->turn = (run->turn + 1) % all;
        i = run->turn;
        uint32_t s = 0;
        for (; i >= run->sources[s].count; s++)
            i -= run->sources[s].count;
        struct run_partition *p = &run->sources[s].partitions[i];
        if (p->got && p->place < p->limit && run_take(run, p, p->limit))
            return true;
    }
    return false;
}

bool run_has_room(const struct server_run *run)
{
    return !run->failed && !run->over && !run->pausing && !run->owes_first && !snapshot_busy(run) &&
           (!run->request || !run_select_full(run)) &&
           (!run->output || (output_bytes(run->output) < RUN_WAITS_MAX && run->dead.w.len < RUN_WAITS_MAX &&
                             run->taken.len < TAKEN_MAX / 2));
}

static bool run_turn(struct server_run *run)
{
    bool more = false;
    if (run->session->failed)
        run_fail(run, "%s", run->session->why);
    if (run->failed)
        return false;
    time_ends(run);
    if (run->state <= RUN_LOOKING)
        look(run);
    if (run->state == RUN_REPLAYING)
        more = run_replay(run);
    if (run->state == RUN_GOING && run_has_room(run))
        run_join(run);
    if (run->state == RUN_GOING && switch_builds(run))
        switch_turn(run);
    if (run->state == RUN_GOING)
        run_give_first(run);
    if (run->state == RUN_GOING && run_has_room(run)) {
        more = run->queue ? run_queue_take(run) : take_next(run);
        if (!more && !run->queue)
            run_idle(run);
    }
    if (run->state == RUN_LOADING && snapshot_load(run))
        run->state = RUN_REPLAYING;
    if (run->object && run->state == RUN_GOING && !run->failed)
        snapshot_turn(run);
    if (run->pausing && run->state == RUN_GOING && !run->failed)
        run_tell_last(run);
    if (run->object && !run->failed)
        run_steps(run);
    if (run->state >= RUN_REPLAYING && !run->pausing)
        run_fetch(run);
    return more;
}

/* It has ended: its object says why, also when nobody waits for the PAUSE any more. A request looks at its own run. */
static void run_end(struct server_run *run, enum sql_object_state state)
{
    struct server_object *o = run->object;
    char why[SERVER_REASON_MAX];
    memcpy(why, run->why, sizeof why);
    server_run_stop(&run);
    server_object_state(o, state, why);
}

bool server_runs_turn(struct sql_server *server)
{
    bool more = false;
    LIST_EACH(&server->runs, node, after)
    {
        struct server_run *run = CONTAINER_OF(node, struct server_run, link);
        more = run_turn(run) || more;
        if (!run->object || run->turnover.call.number) /* or it may be the query of its name already */
            continue;
        if (run->failed && run->step_call.number) /* whether it was accepted says from where another one goes on */
            continue;
        if (run->failed)
            run_end(run, SQL_FAILED);
        else if (run->pausing && (run->state < RUN_GOING || (run->last_told && run_steps_idle(run))))
            run_end(run, SQL_PAUSED);
    }
    return more;
}

mono_t server_runs_due(const struct sql_server *server)
{
    mono_t due = MONO_NEVER;
    LIST_EACH(&server->runs, node, after)
    {
        mono_t own = run_due(CONTAINER_OF(node, struct server_run, link));
        due = own < due ? own : due;
    }
    return due;
}
