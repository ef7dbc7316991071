/* What a query reads, see server_run.h: one fetch for each partition, parked in the core while there is nothing.
 *
 * While a piece is taken the next one is fetched, so that the query does not wait for the core and the disk between any two: where that begins the
 * headers of the batches say. With a piece of which not all may be read yet (a transaction is open) there is no next one.
 *
 * Only what is durable and in no open transaction is read, so that what was taken once is there again after a start. What is fetched is copied from
 * the file in one go and then taken run by run; the memory is given back when the last of it was. */
#include "sql/server_run.h"

#include "base/mem.h"
#include "fmt/record_batch.h"
#include "sql/input.h"

#define FETCH_BYTES (256u * 1024)
#define FETCH_WAIT_MS 30000u
#define TROUBLE_NS (100 * NS_PER_MS)
#define RUN_ROWS 1024u

/* ---- fetching ---- */

static void fetched_clear(struct run_fetched *f)
{
    mem_free(f->bytes);
    mem_free(f->aborted);
    *f = (struct run_fetched){0};
}

void run_partition_clear(struct run_partition *p)
{
    fetched_clear(&p->got);
    fetched_clear(&p->next);
}

/* All of it is taken, or of no use. */
static void next_piece(struct run_partition *p)
{
    bool follows = p->next.bytes && p->got.until == p->place;
    fetched_clear(&p->got);
    if (!follows)
        fetched_clear(&p->next);
    p->got = p->next;
    p->next = (struct run_fetched){0};
}

static uint64_t end_of(struct slice bytes, uint64_t stable)
{
    struct reader left = reader_of(bytes);
    struct record_batch batch;
    struct slice whole;
    uint64_t end = UINT64_MAX;
    while (record_batch_take(&left, &batch, &whole) == RECORD_OK)
        end = (uint64_t)record_batch_last_offset(&batch) + 1;
    return end <= stable ? end : UINT64_MAX;
}

static void gone(struct run_partition *p, const struct fetch_row *row)
{
    struct server_run *run = p->source->run;
    if (row->start != FETCH_NOWHERE && row->start > p->place)
        run_fail(run, "%.*s/%u: records %llu to %llu are gone", SLICE_ARG(p->source->topic), p->number,
                 (unsigned long long)p->place, (unsigned long long)row->start - 1);
    else
        run_fail(run, "%.*s/%u ends before record %llu, which was read", SLICE_ARG(p->source->topic), p->number,
                 (unsigned long long)p->place);
}

static bool read_piece(struct run_fetched *f, struct fetch_row *row)
{
    struct file_piece *piece = &row->piece;
    f->bytes = mem_alloc(piece->len);
    if (!f->bytes)
        return false;
    int64_t got = piece->file->read(piece->file, f->bytes, piece->len, piece->position);
    if (got < 0 || (size_t)got != piece->len) {
        fetched_clear(f);
        return false;
    }
    f->len = piece->len;
    f->stable = row->stable;
    f->until = end_of(slice_of(f->bytes, f->len), f->stable);
    f->aborted = row->aborted;
    f->aborted_count = row->aborted_count;
    row->aborted = NULL;
    row->aborted_count = 0;
    return true;
}

static void on_fetched(struct server_call *call, struct effect *e)
{
    struct run_partition *p = CONTAINER_OF(call, struct run_partition, call);
    struct server_run *run = p->source->run;
    struct fetch_row *row = e && e->type == EFF_FETCHED ? &e->fetch->rows[0] : NULL;
    p->again_at = 0;
    if (!row) {
        run_fail(run, "%s", run->session->why);
    } else if (row->result == FETCH_OK) {
        p->end = row->end;
        if (row->piece.file)
            p->asked_at = 0;
        bool follows = p->got.bytes || p->asked_from == p->place;
        if (row->piece.file && follows && !read_piece(p->got.bytes ? &p->next : &p->got, row))
            p->again_at = run->server->now + TROUBLE_NS;
    } else if (p->got.bytes) { /* it may be otherwise when its turn has come */
        p->again_at = run->server->now + TROUBLE_NS;
    } else if (row->result == FETCH_OUT_OF_RANGE) {
        gone(p, row);
    } else if (row->result == FETCH_TROUBLE) {
        p->again_at = run->server->now + TROUBLE_NS;
    } else {
        run_fail(run, "%.*s/%u: %s", SLICE_ARG(p->source->topic), p->number,
                 row->result == FETCH_UNKNOWN   ? "there is no such stream any more"
                 : row->result == FETCH_REFUSED ? "its owner may not read it"
                                                : "a record is damaged");
    }
    if (e)
        server_effect_drop(run->server, e);
}

void run_fetch_one(struct server_run *run, struct run_partition *p, uint32_t bytes)
{
    uint64_t from = p->got.bytes ? p->got.until : p->place;
    if (p->next.bytes || p->call.number || from >= p->until || run->server->now < p->again_at)
        return;
    struct fetch *f = fetch_new(FETCH_RECORDS, 1);
    struct command *c = f ? server_command(run->session, &p->call, CMD_FETCH, false) : NULL;
    if (!c) {
        fetch_free(&f);
        p->again_at = run->server->now + TROUBLE_NS;
        return;
    }
    f->wait_ms = FETCH_WAIT_MS;
    f->bytes_min = 1;
    f->bytes_max = bytes;
    f->committed = true;
    f->rows[0].stream = p->source->stream;
    f->rows[0].partition = p->number;
    f->rows[0].offset = from;
    f->rows[0].bytes_max = bytes;
    c->fetch = f;
    p->call.on_done = on_fetched;
    p->asked_from = from;
    p->asked_at = p->asked_at ? p->asked_at : run->server->now; /* one that found nothing goes on */
}

void run_fetch(struct server_run *run)
{
    for (uint32_t i = 0; i < run->source_count && !run->failed; i++)
        for (uint32_t k = 0; k < run->sources[i].count; k++)
            run_fetch_one(run, &run->sources[i].partitions[k], FETCH_BYTES);
}

/* ---- taking ---- */

bool run_input(struct sql_server *server)
{
    if (!server->codecs)
        server->codecs = compress_new();
    if (server->codecs && !server->input)
        server->input = input_new(server->codecs, INPUT_UNPACKED_MAX);
    return server->input != NULL;
}

static bool note(struct server_run *run, struct run_partition *p, uint64_t place)
{
    struct trail_entry entry = {
        .kind = TRAIL_RECORDS, .source = p->source->number, .partition = p->number, .offset = place};
    p->place = place;
    if (!run->object || run->state != RUN_GOING || trail_add(&run->taken, &entry))
        return true;
    run_fail(run, "no memory for its trail");
    return false;
}

static bool step_records(struct server_run *run, struct run_partition *p, struct query_input *in)
{
    enum sql_fault fault;
    in->source = p->source->number;
    in->partition = p->number;
    run->input = in;
    bool ok = query_step(run->query, in, &fault);
    run->input = NULL;
    run->rows_in += in->rows;
    p->idle = false;
    p->source->row_at = run->server->now;
    p->source->advanced_at = 0;
    if (!ok)
        run_fail(run, "%s (at %.*s/%u, offset %llu)", sql_fault_text(fault), SLICE_ARG(p->source->topic), p->number,
                 (unsigned long long)in->offset);
    return ok;
}

/* Enough for now: outputs wait for the core, or for who asked. */
static bool is_full(const struct server_run *run)
{
    return run->failed || run->over || (run->output && output_bytes(run->output) > RUN_WAITS_MAX) ||
           run->dead.w.len > RUN_WAITS_MAX || run->taken.len > SQL_TRAIL_MAX / 8 ||
           (run->request && run_select_full(run));
}

bool run_take(struct server_run *run, struct run_partition *p, uint64_t until)
{
    uint64_t before = p->place;
    enum input_verdict v = INPUT_NO_MEMORY;
    if (!run_input(run->server)) {
        p->again_at = run->server->now + TROUBLE_NS;
        return false;
    }
    uint64_t end = p->got.stable < until ? p->got.stable : until;
    end = p->until < end ? p->until : end;
    struct input_piece piece = {.bytes = slice_of(p->got.bytes, p->got.len),
                                .from = p->place,
                                .until = end,
                                .aborted = p->got.aborted,
                                .aborted_count = p->got.aborted_count,
                                .valueless = query_deletes(run->query, p->source->number)};
    struct query_input in;
    input_begin(run->server->input, &piece);
    while (!is_full(run) && (v = input_next(run->server->input, RUN_ROWS, &in)) == INPUT_ROWS)
        if (!step_records(run, p, &in) || !note(run, p, input_place(run->server->input)))
            return true;
    uint64_t place = input_place(run->server->input);
    if (v == INPUT_DAMAGED || v == INPUT_TOO_LARGE)
        run_fail(run, "%.*s/%u: the records at offset %llu %s", SLICE_ARG(p->source->topic), p->number,
                 (unsigned long long)place, v == INPUT_DAMAGED ? "are damaged" : "are too large");
    if (v == INPUT_END && place > p->place && !note(run, p, place))
        return true;
    if (v == INPUT_END && (until == UINT64_MAX || place < until || place >= p->got.stable))
        next_piece(p);
    if (p->place == before && v == INPUT_END && !p->got.bytes)
        p->again_at = run->server->now + NS_PER_MS; /* only a part of it was there: not at once again */
    return p->place > before;
}
