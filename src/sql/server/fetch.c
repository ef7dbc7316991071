/* What a query reads, see server/run.h: one fetch for each partition, parked in the core while there is nothing, in common with the queries that stand at
 * the same place (server/feed.c).
 *
 * While a block is taken the next one is fetched, so that the query does not wait for the core and the disk between any two: where that begins the
 * headers of the batches say. With a block of which not all may be read yet (a transaction is open) there is no next one.
 *
 * Only what is durable and in no open transaction is read, so that what was taken once is there again after a start. What is fetched is copied from
 * the file in one go and then taken run by run; the memory is given back when the last of it was. */
#include "sql/server/run.h"

#include "base/mem.h"
#include "fmt/record_batch.h"
#include "sql/query/input.h"

#define FETCH_BYTES (512u * 1024) /* some record batches, so that a query does not wait for the core between each */
#define FETCH_BYTES_LEAST (128u * 1024) /* while much is held */
#define BLOCKS_MUCH ((size_t)32 << 20)
#define FETCH_WAIT_MS 30000u
#define TROUBLE_NS (100 * NS_PER_MS)
#define UNPACKED_KEPT_MAX ((size_t)4 << 20)

/* ---- fetching ---- */

static void asked_clear(struct run_partition *p)
{
    if (p->asked)
        list_remove(&p->wait);
    feed_block_unref(&p->asked);
}

void run_partition_clear(struct run_partition *p)
{
    asked_clear(p);
    feed_block_unref(&p->got);
    feed_block_unref(&p->next);
}

/* All of it is taken, or of no use. */
static void next_block(struct run_partition *p)
{
    bool follows = p->next && p->got->until == p->place;
    feed_block_unref(&p->got);
    if (!follows)
        feed_block_unref(&p->next);
    p->got = p->next;
    p->next = NULL;
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

static bool read_block(struct run_block *b, struct fetch_row *row)
{
    struct file_piece *piece = &row->piece;
    uint8_t *bytes = mem_alloc(piece->len);
    if (!bytes)
        return false;
    int64_t got = piece->file->read(piece->file, bytes, piece->len, piece->position);
    if (got < 0 || (size_t)got != piece->len) {
        mem_free(bytes);
        return false;
    }
    b->bytes = bytes;
    b->len = piece->len;
    b->feed->session->server->block_bytes += b->len;
    b->stable = row->stable;
    b->end = row->end;
    b->until = end_of(slice_of(b->bytes, b->len), b->stable);
    b->aborted = row->aborted;
    b->aborted_count = row->aborted_count;
    row->aborted = NULL;
    row->aborted_count = 0;
    if (b->keeps_place)
        b->piece =
            (struct file_piece){.file = counted_file_ref(piece->file), .position = piece->position, .len = piece->len};
    return true;
}

static void note_start(struct run_partition *p, uint64_t start)
{
    if (start == FETCH_NOWHERE || start == p->start)
        return;
    p->retired = p->start == FETCH_NOWHERE || start < p->start ? 0 : start - p->start;
    p->start = start;
}

/* The block is there, for this one, too. */
static void take_block(struct run_partition *p, struct run_block *b)
{
    p->asked_at = 0;
    p->end = b->end > p->end ? b->end : p->end;
    if (!p->got)
        feed_block_ref(&p->got, b);
    else
        feed_block_ref(&p->next, b);
}

/* What the fetch has come to, for one of those who wait for it. row NULL: its session has ended. */
static void answer(struct run_partition *p, struct run_block *b, const struct fetch_row *row)
{
    struct server_run *run = p->source->run;
    p->again_at = 0;
    if (!row) {
        run_fail(run, "%s", run->session->why);
    } else if (row->result == FETCH_OK) {
        p->end = row->end;
        run_partitions_exist(p->source, row->partitions);
        note_start(p, row->start);
        if (row->piece.file)
            p->asked_at = 0;
        if (row->piece.file && !b->bytes)
            p->again_at = run->server->now + TROUBLE_NS;
        else if (row->piece.file && (p->got || b->from == p->place))
            take_block(p, b);
    } else if (p->got) { /* it may be otherwise when its turn has come */
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
}

static void on_fetched(struct server_call *call, struct effect *e)
{
    struct run_block *b = CONTAINER_OF(call, struct run_block, call), *held = NULL;
    struct sql_server *server = b->feed->session->server;
    struct fetch_row *row = e && e->type == EFF_FETCHED ? &e->fetch->rows[0] : NULL;
    feed_block_ref(&held, b);
    if (row && row->result == FETCH_OK)
        b->known = row->partitions;
    if (row && row->result == FETCH_OK && row->piece.file)
        (void)!read_block(b, row); /* without its bytes it is asked for again */
    LIST_EACH(&b->waiting, node, after)
    {
        struct run_partition *p = CONTAINER_OF(node, struct run_partition, wait);
        answer(p, b, row);
        asked_clear(p);
    }
    feed_block_unref(&held);
    if (e)
        server_effect_drop(server, e);
}

/* NULL: not now. */
static struct run_block *ask_block(struct run_partition *p, uint64_t from, uint32_t bytes)
{
    struct server_run *run = p->source->run;
    struct run_block *b = feed_block_new(p->source->feed, p->number, from);
    struct fetch *f = b ? fetch_new(FETCH_RECORDS, 1) : NULL;
    struct command *c = f ? server_command(run->session, &b->call, CMD_FETCH, false) : NULL;
    if (!c) {
        struct run_block *none = NULL;
        fetch_free(&f);
        if (b) {
            feed_block_ref(&none, b);
            feed_block_unref(&none);
        }
        return NULL;
    }
    f->wait_ms = FETCH_WAIT_MS;
    f->bytes_min = 1;
    f->bytes_max = bytes;
    f->committed = true;
    f->rows[0].stream = p->source->stream;
    f->rows[0].partition = p->number;
    f->rows[0].known = b->known = p->source->exist;
    f->rows[0].offset = from;
    f->rows[0].bytes_max = bytes;
    c->fetch = f;
    b->call.on_done = on_fetched;
    b->keeps_place = p->source->pieces;
    return b;
}

void run_fetch_one(struct server_run *run, struct run_partition *p, uint32_t bytes)
{
    uint64_t from = p->got ? p->got->until : p->place;
    if (p->next || p->asked || from >= p->until || run->server->now < p->again_at)
        return;
    struct run_block *b = NULL;
    if (p->source->feed || feed_join(p->source)) {
        b = p->source->pieces ? NULL
                              : feed_find(p->source->feed, p->number, from); /* which may not know where it is from */
        b = b ? b : ask_block(p, from, bytes);
    }
    if (!b) {
        p->again_at = run->server->now + TROUBLE_NS;
        return;
    }
    run_partitions_exist(p->source, b->known);
    if (b->bytes) {
        take_block(p, b);
        return;
    }
    feed_block_ref(&p->asked, b);
    list_insert(&b->waiting, &p->wait);
    p->asked_at = p->asked_at ? p->asked_at : run->server->now; /* one that found nothing goes on */
}

void run_fetch(struct server_run *run)
{
    uint32_t bytes = run->server->block_bytes < BLOCKS_MUCH ? FETCH_BYTES : FETCH_BYTES_LEAST;
    for (uint32_t i = 0; i < run->source_count && !run->failed; i++)
        for (uint32_t k = 0; k < run->sources[i].count; k++)
            run_fetch_one(run, &run->sources[i].partitions[k], bytes);
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

/* Enough for now: outputs wait for the core, or for who asked. A replay goes on whatever waits: it has no more to give than what waited before, and none of it
 * before its end. */
static bool is_full(const struct server_run *run)
{
    bool waits = run->output && output_bytes(run->output) > RUN_WAITS_MAX && run->state == RUN_GOING;
    return run->failed || run->over || waits || run->dead.w.len > RUN_WAITS_MAX || run->taken.len > SQL_TRAIL_MAX / 8 ||
           (run->request && run_select_full(run));
}

/* server->input in that block, at the partition's place: a batch that was unpacked is so still, if nobody else has read meanwhile. */
static bool open_alone(struct server_run *run, struct run_partition *p, uint64_t until)
{
    struct sql_server *server = run->server;
    const struct run_block *b = p->got;
    if (!run_input(server))
        return false;
    bool valueless = query_deletes(run->query, p->source->number);
    if (!valueless && server->input_block == b->number && server->input_until == until &&
        input_place(server->input) == p->place)
        return true;
    if (compress_kept_bytes(server->codecs) > UNPACKED_KEPT_MAX)
        compress_trim(server->codecs);
    struct input_piece piece = {.bytes = slice_of(b->bytes, b->len),
                                .from = p->place,
                                .until = until,
                                .aborted = b->aborted,
                                .aborted_count = b->aborted_count,
                                .valueless = valueless};
    input_begin(server->input, &piece);
    server->input_block = valueless ? 0 : b->number;
    server->input_until = until;
    return true;
}

/* Runs up to `until`, and where they end. */
static enum input_verdict take_alone(struct server_run *run, struct run_partition *p, uint64_t until,
                                     uint64_t *ret_place)
{
    struct query_input in;
    enum input_verdict v = INPUT_ROWS;
    uint32_t rows = query_rows(run->query, RUN_ROWS);
    *ret_place = p->place;
    if (!open_alone(run, p, until))
        return INPUT_NO_MEMORY;
    while (!is_full(run) && (v = input_next(run->server->input, rows, &in)) == INPUT_ROWS)
        if (!step_records(run, p, &in) || !note(run, p, input_place(run->server->input)))
            break;
    *ret_place = input_place(run->server->input);
    return v;
}

/* One run of those that the others take, too. */
static enum input_verdict take_shared(struct server_run *run, struct run_partition *p, uint64_t *ret_place)
{
    struct query_input in;
    enum input_verdict v = feed_next(p, &in, ret_place);
    if (v == INPUT_ROWS && step_records(run, p, &in))
        (void)note(run, p, *ret_place);
    return v;
}

/* What was passed over behind the last run counts as taken. */
static void pass(struct server_run *run, struct run_partition *p, enum input_verdict v, uint64_t place)
{
    if (v == INPUT_DAMAGED || v == INPUT_TOO_LARGE)
        run_fail(run, "%.*s/%u: the records at offset %llu %s", SLICE_ARG(p->source->topic), p->number,
                 (unsigned long long)place, v == INPUT_DAMAGED ? "are damaged" : "are too large");
    else if (v == INPUT_END && !run->failed && place > p->place)
        (void)note(run, p, place);
}

bool run_take(struct server_run *run, struct run_partition *p, uint64_t until)
{
    uint64_t before = p->place, stable = p->got->stable, place = before, meet = before;
    uint64_t end = stable < until ? stable : until;
    end = p->until < end ? p->until : end;
    enum input_verdict v = INPUT_END;
    bool shared = until == UINT64_MAX && p->until == UINT64_MAX && feed_open(p, &meet);
    if (!shared || before < meet) {
        v = take_alone(run, p, shared ? meet : end, &place);
        pass(run, p, v, place);
    }
    if (shared && v == INPUT_END) {
        v = is_full(run) ? INPUT_ROWS : take_shared(run, p, &place);
        pass(run, p, v, place);
    }
    if (run->failed)
        return true;
    bool whole = shared && p->place == p->got->until, next = false;
    if (whole || (v == INPUT_END && (until == UINT64_MAX || place < until || place >= stable))) {
        next_block(p);
        next = p->got;
    }
    if (v == INPUT_NO_MEMORY)
        p->again_at = run->server->now + TROUBLE_NS; /* nothing else may come that would wake it */
    else if (p->place == before && v == INPUT_END && !p->got)
        p->again_at = run->server->now + NS_PER_MS; /* only a part of it was there: not at once again */
    return p->place > before || next;
}
