/* How a start goes on from a snapshot, see server/snapshot.c: its records are looked for and checked, and where they are in their files is kept; then the query
 * reads them from there, so that few of them are in memory at a time. The files stay open until then, whatever becomes of their names. */
#include "sql/server/run.h"

#include "base/mem.h"
#include "sql/query/input.h"

#define PART_FETCH (4 * STATE_PIECE)

void snapshot_load_fini(struct server_run *run)
{
    struct run_loading *l = &run->snapshot.loading;
    run_partition_clear(&l->partition);
    feed_leave(&l->source);
    for (uint32_t i = 0; i < l->count; i++)
        file_piece_fini(&l->parts[i].piece);
    mem_free(l->parts);
    mem_free(l->bytes);
    *l = (struct run_loading){0};
}

/* ---- where they are ---- */

static bool room_for_part(struct run_loading *l)
{
    if (l->count < l->room)
        return true;
    uint32_t room = l->room ? 2 * l->room : 16;
    struct run_part *more = mem_realloc(l->parts, room * sizeof *more);
    if (!more)
        return false;
    l->parts = more;
    l->room = room;
    return true;
}

static void begin(struct server_run *run, struct slice bytes, uint64_t from)
{
    struct input_piece piece = {.bytes = bytes, .from = from, .until = run->snapshot.until};
    run->server->input_block = 0;
    input_begin(run->server->input, &piece);
}

/* What has come is right, and its place is kept. False: the run has failed, or there is no memory now. */
static bool take_part(struct server_run *run)
{
    struct run_loading *l = &run->snapshot.loading;
    struct run_partition *p = &l->partition;
    struct query_input in;
    enum input_verdict v;
    if (!run_input(run->server) || !room_for_part(l))
        return false;
    begin(run, slice_of(p->got->bytes, p->got->len), p->place);
    while ((v = input_next(run->server->input, BATCH_ROWS_MAX, &in)) == INPUT_ROWS)
        continue;
    if (v == INPUT_NO_MEMORY)
        return false;
    if (v != INPUT_END)
        run_fail(run, "its snapshot is damaged");
    l->parts[l->count++] = (struct run_part){.piece = p->got->piece, .from = p->place};
    p->got->piece = (struct file_piece){0};
    p->place = input_place(run->server->input);
    run_partition_clear(p);
    return !run->failed;
}

/* ---- reading them ---- */

static bool next_part(struct server_run *run)
{
    struct run_loading *l = &run->snapshot.loading;
    const struct run_part *part = l->at < l->count ? &l->parts[l->at++] : NULL;
    if (!part)
        return false;
    if (part->piece.len > l->bytes_room) {
        mem_free(l->bytes);
        l->bytes_room = 0;
        l->bytes = mem_alloc(part->piece.len);
        if (!l->bytes) {
            l->why = "no memory";
            return false;
        }
        l->bytes_room = part->piece.len;
    }
    struct counted_file *file = part->piece.file;
    if (file->read(file, l->bytes, part->piece.len, part->piece.position) != (int64_t)part->piece.len) {
        l->why = "its records cannot be read";
        return false;
    }
    begin(run, slice_of(l->bytes, part->piece.len), part->from);
    return true;
}

static bool give_piece(void *arg, struct slice *ret)
{
    struct server_run *run = arg;
    struct run_loading *l = &run->snapshot.loading;
    while (l->row == l->in.rows) {
        enum input_verdict v = l->at ? input_next(run->server->input, BATCH_ROWS_MAX, &l->in) : INPUT_END;
        l->row = 0;
        if (v == INPUT_ROWS)
            continue;
        l->in.rows = 0;
        if (v != INPUT_END || !next_part(run))
            return false;
    }
    *ret = l->in.records[l->row++];
    return true;
}

static bool load(struct server_run *run)
{
    struct run_loading *l = &run->snapshot.loading;
    struct state_reader r;
    struct sql_error error = {0};
    state_reader_init(&r, give_piece, run);
    bool ok = query_load(run->query, &r, &error);
    if (!ok)
        run_fail(run, "its snapshot cannot be loaded: %s", l->why ? l->why : error.message);
    snapshot_load_fini(run);
    snapshot_done(run);
    return ok;
}

/* True: it is there, and the query goes on from it. */
bool snapshot_load(struct server_run *run)
{
    struct run_snapshot *s = &run->snapshot;
    struct run_partition *p = &s->loading.partition;
    struct run_source *source = &s->loading.source;
    if (s->state == SNAPSHOT_NONE) {
        s->state = SNAPSHOT_FINDING;
        *p = (struct run_partition){.source = source, .place = s->first, .until = s->until};
        *source = (struct run_source){.run = run, .topic = slice_str("snapshot"), .pieces = true};
    }
    if (s->state == SNAPSHOT_FINDING)
        snapshot_find(run);
    source->stream = s->stream;
    if (s->state != SNAPSHOT_READING)
        return false;
    if (p->got && !take_part(run))
        return false;
    if (p->place >= p->until)
        return load(run);
    run_fetch_one(run, p, PART_FETCH);
    return false;
}
