/* Snapshots of a query, see server/run.h and docs/decisions/0012: what it remembers, in pieces, as records of an internal stream of its own.
 *
 * One is made when much was taken since the last one, or the trail has become long, and it is small beside that; of little that was taken one is made now and
 * then, and when what a start would read again is about to go by retention. The query stands still meanwhile: what is
 * under way ends first, then its operators are saved, the pieces are produced one after another, and a step says that the trail begins with them. That
 * step stands behind the pieces in the journal, so a trail never names what is not there. What was before is trimmed when the step is accepted.
 * Whatever the state, few pieces are in memory at a time (server/stash.h). One that cannot be made is tried again later: the trail goes on without it. How
 * a start goes on from one: server/snapshot_load.c. */
#include "sql/server/run.h"

#include "base/mem.h"
#include "core/stream_admin.h"
#include "fmt/record_batch.h"

#define SNAPSHOT_NS (30 * NS_PER_S)
#define SNAPSHOT_TRAIL (64u * 1024)
#define SNAPSHOT_ROWS 50000u       /* fewer are read again in no time */
#define SELDOM_NS (300 * NS_PER_S) /* … but may be gone some day; for each … */
#define SELDOM_BYTES (64u << 20)   /* … of so much state */
#define WAIT_FIRST NS_PER_S        /* after one that could not be made; twice as long each time … */
#define WAIT_MOST (64 * NS_PER_S)  /* … up to that */
#define ROOM_NS (100 * NS_PER_MS)  /* after a record that the broker had no room for */

bool snapshot_busy(const struct server_run *run)
{
    return run->snapshot.state != SNAPSHOT_NONE;
}

static void give_up(struct run_snapshot *s)
{
    stash_fini(&s->stash);
    s->piece = (struct slice){0};
    s->count = s->at = 0;
    s->state = SNAPSHOT_NONE;
}

/* The trail goes on without it for a while. */
static void fail(struct server_run *run, const char *why)
{
    struct run_snapshot *s = &run->snapshot;
    give_up(s);
    s->why = why;
    s->wait = s->wait ? 2 * s->wait : WAIT_FIRST;
    s->wait = s->wait < WAIT_MOST ? s->wait : WAIT_MOST;
    s->again_at = run->server->now + s->wait;
}

void snapshot_done(struct server_run *run)
{
    struct run_snapshot *s = &run->snapshot;
    give_up(s);
    s->made_at = run->server->now;
    s->rows = run->rows_in;
    s->why = NULL;
    s->wait = 0;
}

static const char *reason_of(enum sql_fault fault)
{
    return fault == SQL_FAULT_SCRATCH_FULL   ? "the disk has no room for a file of it"
           : fault == SQL_FAULT_SCRATCH_LOST ? "a file of it cannot be written, or read"
                                             : "no memory";
}

void snapshot_fini(struct server_run *run)
{
    server_call_forget(run->server, &run->snapshot.call);
    snapshot_load_fini(run);
    give_up(&run->snapshot);
}

/* ---- making one ---- */

static void on_stream(struct server_call *call, struct effect *e)
{
    struct server_run *run = CONTAINER_OF(call, struct server_run, snapshot.call);
    const struct answer *a = e && e->type == EFF_ANSWER ? e->answer : NULL;
    struct stream_row row = {.result = STREAM_NO_ROOM};
    struct reader fields = reader_of(a ? a->fields : (struct slice){0});
    bool made = run->snapshot.state == SNAPSHOT_MAKING;
    if (a && !made)
        (void)!stream_row_next(&fields, &row);
    if (a && made && (a->number == STREAM_DONE || a->number == STREAM_EXISTS))
        run->snapshot.stream = a->number2;
    else if (!made && row.result == STREAM_DONE)
        run->snapshot.stream = row.id;
    if (run->snapshot.stream && run->state != RUN_LOADING)
        run->snapshot.state = SNAPSHOT_SAVING;
    else if (run->snapshot.stream)
        run->snapshot.state = SNAPSHOT_READING;
    else if (run->state == RUN_LOADING)
        run_fail(run, "its snapshot is gone");
    else if (!made && row.result == STREAM_UNKNOWN)
        run->snapshot.state = SNAPSHOT_MAKING;
    else
        fail(run, "its stream cannot be made, or looked for");
    if (e)
        server_effect_drop(run->server, e);
}

void snapshot_find(struct server_run *run)
{
    char text[SQL_NAME_MAX + sizeof SQL_INTERNAL];
    uint8_t room[256];
    struct slice none = {0}, name = server_object_snapshots(run->object, text);
    struct writer w = writer_of(room, sizeof room);
    if (run->snapshot.call.number)
        return;
    writer_str8(&w, name);
    run->snapshot.call.on_done = on_stream;
    if (name.len > SQL_NAME_MAX)
        fail(run, "the query's name is too long for that of its stream");
    else if (run->snapshot.state == SNAPSHOT_MAKING)
        (void)server_ask(run->session, &run->snapshot.call, CMD_STREAM_CREATE, ask_new(name, none, none, none), 0, 0,
                         false);
    else
        (void)server_ask(run->session, &run->snapshot.call, CMD_STREAM_LIST,
                         ask_new(writer_slice(&w), none, none, none), 0, 0, false);
}

static bool keep_piece(void *arg, struct slice piece)
{
    return stash_put(arg, piece);
}

static void save(struct server_run *run)
{
    struct run_snapshot *s = &run->snapshot;
    struct state_writer w;
    stash_init(&s->stash, run->server->options.disk, run->server->options.snapshot_memory);
    bool ok = state_writer_init(&w, keep_piece, &s->stash);
    if (ok)
        query_save(run->query, &w);
    if (!ok || !state_writer_end(&w)) {
        enum sql_fault spilled = query_spill_fault(run->query);
        fail(run, s->stash.fault == SQL_FAULT_NONE && spilled != SQL_FAULT_NONE ? sql_fault_text(spilled)
                                                                                : reason_of(s->stash.fault));
        return;
    }
    s->count = s->stash.count;
    s->state = SNAPSHOT_WRITING;
}

static void on_produced(struct server_call *call, struct effect *e)
{
    struct server_run *run = CONTAINER_OF(call, struct server_run, snapshot.call);
    struct run_snapshot *s = &run->snapshot;
    bool there = e && e->type == EFF_PRODUCED, ok = there && e->flags == PRODUCE_OK;
    bool later = there && (e->flags == PRODUCE_NO_ROOM || e->flags == PRODUCE_NO_MEMORY);
    if (ok && s->at == 0)
        s->first = e->number;
    ok = ok && e->number == s->first + s->at; /* nobody else writes there */
    if (ok)
        s->piece = (struct slice){0};
    if (ok && ++s->at == s->count) {
        s->state = SNAPSHOT_WRITTEN;
        stash_fini(&s->stash);
    }
    if (later)
        s->again_at = run->server->now + ROOM_NS;
    else if (!ok)
        fail(run, "the broker refuses its records");
    if (e)
        server_effect_drop(run->server, e);
}

static struct msg *piece_msg(struct server_run *run, struct slice value)
{
    size_t room = value.len + RECORD_BATCH_HEADER + 64;
    struct slice none = {0};
    struct record_batch head = record_batch_head(0, run->server->wall);
    struct record_batch_writer b;
    uint8_t *bytes = mem_alloc(room);
    struct msg *msg = NULL;
    if (!bytes)
        return NULL;
    struct writer w = writer_of(bytes, room);
    record_batch_begin(&b, &w, &head);
    if (record_batch_put(&b, run->server->wall, NULL, &value, NULL, 0)) {
        struct slice batch = record_batch_finish(&b, -1);
        msg = msg_new(run->server->heap, none, none, none, batch.len);
        if (msg) {
            memcpy(msg_body_room(msg), batch.ptr, batch.len);
            msg->flags = MSG_BATCH;
            msg->expiration_ms = -1;
        }
    }
    mem_free(bytes);
    return msg;
}

/* What cannot be written for want of room waits for it, as the query's steps do then: begun anew, it would leave another part in its stream. */
static void write_next(struct server_run *run)
{
    struct run_snapshot *s = &run->snapshot;
    if (s->call.number || run->server->now < s->again_at)
        return;
    if (!s->piece.ptr && !stash_next(&s->stash, &s->piece)) {
        fail(run, reason_of(s->stash.fault));
        return;
    }
    struct msg *msg = piece_msg(run, s->piece);
    struct command *c = msg ? server_command(run->session, &s->call, CMD_PRODUCE, false) : NULL;
    if (!c) {
        if (msg)
            msg_unref(run->server->heap, msg);
        s->again_at = run->server->now + ROOM_NS;
        return;
    }
    c->number = s->stream;
    c->msg = msg;
    s->call.on_done = on_produced;
}

/* SNAPSHOT, the streams, where each partition is, and the place: what a trail begins with. And what time it is. */
bool snapshot_trail(struct server_run *run, struct trail *ret)
{
    const struct run_snapshot *s = &run->snapshot;
    struct trail_entry entry = {.kind = TRAIL_SNAPSHOT, .offset = s->first, .until = s->first + s->count};
    bool ok = trail_add(ret, &entry) && run_name_streams(run, ret);
    for (uint32_t i = 0; i < run->source_count; i++)
        for (uint32_t k = 0; ok && k < run->sources[i].count; k++) {
            entry = (struct trail_entry){
                .kind = TRAIL_RECORDS, .source = i, .partition = k, .offset = run->sources[i].partitions[k].place};
            ok = trail_add(ret, &entry);
        }
    entry = (struct trail_entry){.kind = TRAIL_PLACE, .offset = output_place(run->output)};
    return ok && trail_add(ret, &entry) && run_tell_time(run, ret);
}

void snapshot_named(struct server_run *run)
{
    char text[SQL_NAME_MAX + sizeof SQL_INTERNAL];
    struct slice none = {0};
    (void)server_ask(run->session, NULL, CMD_STREAM_TRIM,
                     ask_new(server_object_snapshots(run->object, text), none, none, none), run->snapshot.first, 0,
                     false);
    for (uint32_t i = 0; i < run->source_count; i++)
        for (uint32_t k = 0; k < run->sources[i].count; k++)
            run->sources[i].partitions[k].kept = run->sources[i].partitions[k].place;
    snapshot_done(run);
}

/* Retention has begun to take records, and the next time it takes as many some that a start would read again are among them. */
static bool oldest_goes(const struct server_run *run)
{
    for (uint32_t i = 0; i < run->source_count; i++)
        for (uint32_t k = 0; k < run->sources[i].count; k++) {
            const struct run_partition *p = &run->sources[i].partitions[k];
            if (p->retired && p->place > p->kept && p->start + p->retired >= p->kept)
                return true;
        }
    return false;
}

static bool is_due(const struct server_run *run)
{
    const struct run_snapshot *s = &run->snapshot;
    uint64_t rows = run->rows_in - s->rows, every = run->server->options.snapshot_rows;
    if (run->pausing || switch_hurries(run) || query_stateless(run->query) || !rows || !run->object->step ||
        run->server->now < s->again_at)
        return false;
    if (every)
        return rows >= every;
    if (run->object->core_trail > SNAPSHOT_TRAIL)
        return true;
    mono_t since = run->server->now - s->made_at;
    uint64_t bytes = query_state_bytes(run->query) + query_spilled_bytes(run->query);
    return (rows >= SNAPSHOT_ROWS && since >= SNAPSHOT_NS && rows * 64 > bytes) ||
           since / SELDOM_NS > (mono_t)(bytes / SELDOM_BYTES) || oldest_goes(run);
}

void snapshot_turn(struct server_run *run)
{
    struct run_snapshot *s = &run->snapshot;
    if (s->state == SNAPSHOT_NONE && is_due(run))
        s->state = s->stream ? SNAPSHOT_SAVING : SNAPSHOT_FINDING;
    if (s->state == SNAPSHOT_FINDING || s->state == SNAPSHOT_MAKING)
        snapshot_find(run);
    if (s->state == SNAPSHOT_SAVING && run_steps_idle(run))
        save(run);
    if (s->state == SNAPSHOT_WRITING)
        write_next(run);
}
