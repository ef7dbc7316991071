/* Snapshots of a query, see server/run.h and docs/decisions/0012: what it remembers, in pieces, as records of an internal stream of its own.
 *
 * One is made when much was taken since the last one, or the trail has become long, and it is small beside that; of little that was taken one is made now and
 * then, and when what a start would read again is about to go by retention. The query stands still meanwhile: what is
 * under way ends first, then its operators are saved, the pieces are produced one after another, and a step says that the trail begins with them. That
 * step stands behind the pieces in the journal, so a trail never names what is not there. What was before is trimmed when the step is accepted.
 * A start reads the pieces, gives them to a fresh query, and replays from there. */
#include "sql/server/run.h"

#include "base/mem.h"
#include "core/stream_admin.h"
#include "fmt/record_batch.h"
#include "sql/query/input.h"

#define SNAPSHOT_NS (30 * NS_PER_S)
#define SNAPSHOT_TRAIL (64u * 1024)
#define SNAPSHOT_ROWS 50000u          /* fewer are read again in no time */
#define SELDOM_NS (300 * NS_PER_S)    /* … but may be gone some day; for each … */
#define SELDOM_BYTES (64u << 20)      /* … of so much state */
#define WAIT_FIRST NS_PER_S           /* after one that could not be made; twice as long each time … */
#define WAIT_MOST (64 * NS_PER_S)     /* … up to that */
#define SNAPSHOT_BYTES_MAX (1u << 30) /* what is larger stays without */
#define PIECE_FETCH (4 * STATE_PIECE)

bool snapshot_busy(const struct server_run *run)
{
    return run->snapshot.state != SNAPSHOT_NONE;
}

static void give_up(struct server_run *run)
{
    struct run_snapshot *s = &run->snapshot;
    for (uint32_t i = 0; i < s->count; i++)
        mem_free(s->pieces[i].bytes);
    mem_free(s->pieces);
    s->pieces = NULL;
    s->count = s->room = s->at = 0;
    s->bytes = 0;
    s->state = SNAPSHOT_NONE;
    s->made_at = run->server->now;
    s->rows = run->rows_in;
}

/* The trail goes on without it for a while. */
static void fail(struct server_run *run)
{
    struct run_snapshot *s = &run->snapshot;
    give_up(run);
    s->wait = s->wait ? 2 * s->wait : WAIT_FIRST;
    s->wait = s->wait < WAIT_MOST ? s->wait : WAIT_MOST;
    s->again_at = run->server->now + s->wait;
}

void snapshot_fini(struct server_run *run)
{
    server_call_forget(run->server, &run->snapshot.call);
    run_partition_clear(&run->snapshot.partition);
    feed_leave(&run->snapshot.source);
    give_up(run);
}

/* A copy of its own. */
static bool keep_piece(void *arg, struct slice piece)
{
    struct server_run *run = arg;
    struct run_snapshot *s = &run->snapshot;
    if (s->count == s->room) {
        uint32_t room = s->room ? 2 * s->room : 16;
        struct run_piece *more = mem_realloc(s->pieces, room * sizeof *more);
        if (!more)
            return false;
        s->pieces = more;
        s->room = room;
    }
    uint8_t *bytes = s->bytes + piece.len <= SNAPSHOT_BYTES_MAX ? mem_alloc(piece.len + !piece.len) : NULL;
    if (!bytes)
        return false;
    memcpy(bytes, piece.ptr, piece.len);
    s->pieces[s->count++] = (struct run_piece){.bytes = bytes, .len = piece.len};
    s->bytes += piece.len;
    return true;
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
        fail(run);
    if (e)
        server_effect_drop(run->server, e);
}

static void find_stream(struct server_run *run)
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
        fail(run);
    else if (run->snapshot.state == SNAPSHOT_MAKING)
        (void)server_ask(run->session, &run->snapshot.call, CMD_STREAM_CREATE, ask_new(name, none, none, none), 0, 0,
                         false);
    else
        (void)server_ask(run->session, &run->snapshot.call, CMD_STREAM_LIST,
                         ask_new(writer_slice(&w), none, none, none), 0, 0, false);
}

static void save(struct server_run *run)
{
    struct state_writer w;
    bool ok = state_writer_init(&w, keep_piece, run);
    if (ok)
        query_save(run->query, &w);
    if (!ok || !state_writer_end(&w) || !run->snapshot.count)
        fail(run);
    else
        run->snapshot.state = SNAPSHOT_WRITING;
}

static void on_produced(struct server_call *call, struct effect *e)
{
    struct server_run *run = CONTAINER_OF(call, struct server_run, snapshot.call);
    struct run_snapshot *s = &run->snapshot;
    bool ok = e && e->type == EFF_PRODUCED && e->flags == PRODUCE_OK;
    if (ok && s->at == 0)
        s->first = e->number;
    ok = ok && e->number == s->first + s->at; /* nobody else writes there */
    if (ok && ++s->at == s->count)
        s->state = SNAPSHOT_WRITTEN;
    if (!ok)
        fail(run);
    if (e)
        server_effect_drop(run->server, e);
}

static struct msg *piece_msg(struct server_run *run, const struct run_piece *piece)
{
    size_t room = piece->len + RECORD_BATCH_HEADER + 64;
    struct slice none = {0}, value = slice_of(piece->bytes, piece->len);
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

static void write_next(struct server_run *run)
{
    struct run_snapshot *s = &run->snapshot;
    if (s->call.number)
        return;
    struct msg *msg = piece_msg(run, &s->pieces[s->at]);
    struct command *c = msg ? server_command(run->session, &s->call, CMD_PRODUCE, false) : NULL;
    if (!c) {
        if (msg)
            msg_unref(run->server->heap, msg);
        fail(run);
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
    run->snapshot.wait = 0;
    give_up(run);
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
        find_stream(run);
    if (s->state == SNAPSHOT_SAVING && run_steps_idle(run))
        save(run);
    if (s->state == SNAPSHOT_WRITING)
        write_next(run);
}

/* ---- reading one ---- */

static bool give_piece(void *arg, struct slice *ret)
{
    struct run_snapshot *s = &((struct server_run *)arg)->snapshot;
    if (s->at == s->count)
        return false;
    *ret = slice_of(s->pieces[s->at].bytes, s->pieces[s->at].len);
    s->at++;
    return true;
}

static bool load(struct server_run *run)
{
    struct state_reader r;
    struct sql_error error = {0};
    run->snapshot.at = 0;
    state_reader_init(&r, give_piece, run);
    bool ok = query_load(run->query, &r, &error);
    if (!ok)
        run_fail(run, "its snapshot cannot be loaded: %s", error.message);
    give_up(run);
    return ok;
}

static bool take_pieces(struct server_run *run)
{
    struct run_partition *p = &run->snapshot.partition;
    struct input_piece piece = {.bytes = slice_of(p->got->bytes, p->got->len), .from = p->place, .until = p->until};
    struct query_input in;
    enum input_verdict v;
    if (!run_input(run->server))
        return false;
    run->server->input_block = 0;
    input_begin(run->server->input, &piece);
    while ((v = input_next(run->server->input, BATCH_ROWS_MAX, &in)) == INPUT_ROWS)
        for (uint32_t i = 0; i < in.rows; i++)
            if (!keep_piece(run, in.records[i]))
                run_fail(run, "no memory for its snapshot");
    if (v != INPUT_END)
        run_fail(run, "its snapshot is damaged");
    p->place = input_place(run->server->input);
    run_partition_clear(p);
    return !run->failed;
}

/* True: it is there, and the query goes on from it. */
bool snapshot_load(struct server_run *run)
{
    struct run_snapshot *s = &run->snapshot;
    struct run_partition *p = &s->partition;
    if (s->state == SNAPSHOT_NONE) {
        s->state = SNAPSHOT_FINDING;
        *p = (struct run_partition){.source = &s->source, .place = s->first, .until = s->until};
        s->source = (struct run_source){.run = run, .topic = slice_str("snapshot")};
    }
    if (s->state == SNAPSHOT_FINDING)
        find_stream(run);
    s->source.stream = s->stream;
    if (s->state != SNAPSHOT_READING)
        return false;
    if (p->got && !take_pieces(run))
        return false;
    if (p->place >= p->until) {
        feed_leave(&s->source);
        return load(run);
    }
    run_fetch_one(run, p, PIECE_FETCH);
    return false;
}
