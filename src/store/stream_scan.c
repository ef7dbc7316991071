/* Reading stream files, see stream_scan.h.
 *
 * A file is walked from batch to batch, in pieces of 256 KiB; a batch that is longer is read whole. What the header of a
 * batch says is believed only so far: it lies within the file's good bytes, and its first offset is the one that has to
 * come (the checksum covers neither offset nor length). Before a record of a batch is looked at, the checksum of the whole
 * batch is made; batches that are stepped over cost their header only.
 *
 * Where to begin an index says: of the open file it is kept up while writing, of a sealed one it is read from the end of
 * the file and kept for the files that were used last. Where there is none it is made from the headers; one that ends at
 * damage is good up to there, and who reads on comes upon the damage itself.
 * Thread: the streams'.
 */
#include "store/stream_scan.h"

#include "base/check.h"
#include "base/mem.h"
#include "core/fetch.h"

#include <errno.h>

#define PIECE_LITTLE (64u * 1024)
#define FETCH_STEP (16u * 1024) /* read at once where only headers are wanted; shorter batches stand in it together */
#define LEAP_MIN (4u * STREAM_INDEX_STRIDE) /* of a run: its middle is not walked through then */
#define WARM_MAX (2u << 20)                 /* of a run that nobody has just written: read ahead of who sends it */
#define BUFFER_KEPT (2 * STREAM_PIECE_BYTES)

void stream_scan_fini(struct stream_scan *scan)
{
    mem_free(scan->buffer);
    stream_scratch_fini(&scan->scratch);
    compress_free(&scan->unpack);
    scan->buffer = NULL;
}

static int fail(struct stream_scan *scan, int err, const char *what)
{
    scan->what = what;
    return err;
}

/* ------------------------------------------------------------------------------------------------------------- batches */

static const struct stream_segment *segment_of(const struct stream_scan *scan)
{
    return &scan->partition->segments[scan->segment];
}

static void scan_begin(struct stream_scan *scan, struct stream_partition *partition,
                       const struct stream_segment *segment, size_t piece)
{
    scan->partition = partition;
    scan->segment = (uint32_t)(segment - partition->segments);
    scan->base = scan->expected = segment->extent.base;
    scan->position = LAYOUT_BLOCK;
    scan->piece = piece;
    scan->buffer_len = 0;
    scan->what = NULL;
}

static void scan_jump(struct stream_scan *scan, const struct stream_mark *mark)
{
    if (!mark || mark->position <= scan->position)
        return;
    scan->position = mark->position;
    scan->expected = scan->base + mark->delta;
}

static bool buffer_reserve(struct stream_scan *scan, size_t len)
{
    size_t cap = len < STREAM_PIECE_BYTES ? STREAM_PIECE_BYTES : len;
    if (len <= scan->buffer_cap)
        return true;
    mem_free(scan->buffer);
    scan->buffer = mem_alloc(cap);
    scan->buffer_cap = scan->buffer ? cap : 0;
    scan->buffer_len = 0;
    return scan->buffer;
}

/* A long buffer, and what a packed batch needed, go back at once. */
static void buffer_release(struct stream_scan *scan)
{
    scan->buffer_len = 0;
    if (scan->buffer_cap > BUFFER_KEPT) {
        mem_free(scan->buffer);
        scan->buffer = NULL;
        scan->buffer_cap = 0;
    }
    if (scan->unpack && compress_kept_bytes(scan->unpack) > BUFFER_KEPT)
        compress_trim(scan->unpack);
}

/* The next len bytes of the file, which has them. */
static int look(struct stream_scan *scan, size_t len, struct slice *ret)
{
    uint64_t at = scan->position, left = segment_of(scan)->extent.bytes - at;
    CHECK(len <= left);
    if (at < scan->buffer_at || at + len > scan->buffer_at + scan->buffer_len || !scan->buffer_len) {
        size_t want = len < scan->piece ? scan->piece : len;
        want = want < left ? want : (size_t)left;
        if (!buffer_reserve(scan, want))
            return fail(scan, -ENOMEM, "no memory");
        scan->buffer_len = 0;
        int err = stream_files_read(scan->files, scan->partition, segment_of(scan), at, scan->buffer, want);
        if (err)
            return fail(scan, err, scan->files->fault);
        scan->bytes_read += want;
        scan->buffer_at = at;
        scan->buffer_len = want;
    }
    *ret = slice_of(scan->buffer + (at - scan->buffer_at), len);
    return 0;
}

/* The header of the next batch. 1; 0: the segment ends here; a negative errno. */
static int next_head(struct stream_scan *scan, struct record_batch *ret)
{
    const struct stream_extent *extent = &segment_of(scan)->extent;
    uint64_t left = extent->bytes - scan->position;
    struct slice bytes;
    if (!left)
        return scan->expected == extent->end ? 0 : fail(scan, -EILSEQ, "the file ends before its last record");
    if (left < RECORD_BATCH_HEADER)
        return fail(scan, -EILSEQ, "there is no room for a batch");
    int err = look(scan, RECORD_BATCH_HEADER, &bytes);
    if (err)
        return err;
    if (record_batch_peek(bytes, ret) != RECORD_OK)
        return fail(scan, -EILSEQ, "there is no batch of records");
    if (ret->bytes > left || ret->bytes < RECORD_BATCH_HEADER)
        return fail(scan, -EILSEQ, "the batch is longer than the file");
    if (ret->base_offset < 0 || (uint64_t)ret->base_offset != scan->expected)
        return fail(scan, -EILSEQ, "the batch has another offset");
    if (ret->last_offset_delta < 0 || (uint64_t)record_batch_last_offset(ret) >= extent->end)
        return fail(scan, -EILSEQ, "the batch goes on behind the last record of the file");
    return 1;
}

static void step_over(struct stream_scan *scan, const struct record_batch *batch)
{
    scan->position += batch->bytes;
    scan->expected = (uint64_t)record_batch_last_offset(batch) + 1;
}

/* The batch at the position, checked. */
static int open_batch(struct stream_scan *scan, const struct record_batch *head, struct record_reader *ret)
{
    struct slice bytes;
    struct record_batch batch;
    int err = look(scan, head->bytes, &bytes);
    if (err)
        return err;
    if (!record_batch_crc_ok(bytes))
        return fail(scan, -EILSEQ, "the batch does not fit its checksum");
    if (head->compression && !scan->unpack && !(scan->unpack = compress_new()))
        return fail(scan, -ENOMEM, "no memory");
    switch (record_batch_open(bytes, scan->unpack, STREAM_UNPACKED_MAX, &batch, ret)) {
    case RECORD_OK: return 0;
    case RECORD_NO_MEMORY: return fail(scan, -ENOMEM, "no memory");
    case RECORD_BAD_CODEC: return fail(scan, -EILSEQ, "the batch is packed in a way that nobody knows");
    case RECORD_TOO_LARGE: return fail(scan, -EILSEQ, "the batch is too large unpacked");
    default: return fail(scan, -EILSEQ, "the batch cannot be unpacked");
    }
}

/* --------------------------------------------------------------------------------------------------------------- index */

static void walk_headers(struct stream_scan *scan, struct stream_index *ret)
{
    struct record_batch batch;
    wall_t max_before = 0;
    while (next_head(scan, &batch) > 0) {
        struct stream_mark mark = {.delta = (uint32_t)(scan->expected - scan->base),
                                   .position = (uint32_t)scan->position,
                                   .max_before = max_before};
        stream_index_note(ret, &mark);
        if (batch.max_timestamp > max_before)
            max_before = batch.max_timestamp;
        step_over(scan, &batch);
    }
}

void stream_scan_index(struct stream_scan *scan, struct stream_partition *partition)
{
    const struct stream_segment *last = stream_files_last(partition);
    if (!last || partition->indexed)
        return;
    stream_index_fini(&partition->index);
    scan_begin(scan, partition, last, STREAM_PIECE_BYTES);
    walk_headers(scan, &partition->index);
    buffer_release(scan);
    partition->indexed = true;
}

/* From the end of a sealed file. False: there is no good one. */
static bool load_index(struct stream_scan *scan, const struct stream_segment *segment, struct stream_index *ret)
{
    uint8_t bytes[STREAM_TRAILER];
    struct stream_trailer trailer;
    uint32_t crc;
    uint64_t size, end = segment->extent.bytes;
    if (stream_files_size(scan->files, scan->partition, segment, &size) || size < end + STREAM_TRAILER ||
        stream_files_read(scan->files, scan->partition, segment, size - STREAM_TRAILER, bytes, sizeof bytes) ||
        stream_trailer_get(bytes, &trailer, &crc) != LAYOUT_GOOD)
        return false;
    size_t len = (size_t)trailer.count * STREAM_INDEX_ENTRY;
    if (trailer.bytes != end || trailer.end != segment->extent.end || size != end + stream_trailer_len(trailer.count) ||
        !trailer.count || !buffer_reserve(scan, len))
        return false;
    scan->buffer_len = 0;
    struct stream_mark *marks = mem_alloc(trailer.count * sizeof *marks);
    bool good = marks && stream_files_read(scan->files, scan->partition, segment, end, scan->buffer, len) == 0 &&
                stream_marks_get(slice_of(scan->buffer, len), crc, end, marks);
    if (!good) {
        mem_free(marks);
        return false;
    }
    *ret = (struct stream_index){.marks = marks, .count = trailer.count, .cap = trailer.count};
    return true;
}

/* The index of the segment at whose beginning the scan is; a loan until files are touched. */
static const struct stream_index *index_of(struct stream_scan *scan)
{
    struct stream_partition *partition = scan->partition;
    const struct stream_segment *segment = segment_of(scan);
    if (segment == stream_files_last(partition) && (partition->open || partition->indexed)) {
        if (!partition->indexed) {
            stream_scan_index(scan, partition);
            scan_begin(scan, partition, segment, STREAM_PIECE_BYTES);
        }
        return &partition->index;
    }
    struct stream_index *index = stream_files_index(scan->files, partition, scan->base);
    if (index)
        return index;
    struct stream_index made = {0};
    if (!load_index(scan, segment, &made)) {
        scan->piece = STREAM_PIECE_BYTES;
        walk_headers(scan, &made);
        scan_begin(scan, partition, segment, STREAM_PIECE_BYTES);
    }
    return stream_files_keep_index(scan->files, partition, scan->base, &made);
}

/* ---------------------------------------------------------------------------------------------------------------- read */

enum more { MORE, FULL };

/* Is there room for this record? One there always is. */
static bool fits(const struct stream_job *job, uint64_t bytes, const struct record *record)
{
    uint64_t more = record->key.len + record->value.len + record->headers.len;
    return job->count == 0 || (job->count < job->max && bytes < job->bytes_max && more <= job->bytes_max - bytes);
}

/* Takes what is wanted of a batch; job->next is behind the last that was looked at. */
static int take_records(struct stream_scan *scan, const struct record_batch *batch, struct stream_job *job,
                        uint64_t *bytes, enum more *ret_more)
{
    struct record_reader reader;
    struct record record;
    uint64_t behind = (uint64_t)record_batch_last_offset(batch) + 1, at = (uint64_t)batch->base_offset;
    if (batch->transactional && aborted_has(job->aborted, job->aborted_count, batch->producer_id, at)) {
        job->next = behind < job->until ? behind : job->until;
        *ret_more = job->next < job->until ? MORE : FULL;
        return 0;
    }
    int err = open_batch(scan, batch, &reader);
    if (err)
        return err;
    *ret_more = FULL;
    while (record_next(&reader, &record)) {
        uint64_t offset = (uint64_t)record.offset;
        if (record.offset < 0 || offset < at || offset >= behind)
            return fail(scan, -EILSEQ, "a record in the batch has an offset that is not of the batch");
        at = offset + 1;
        if (offset < job->next || batch->control)
            continue;
        if (offset >= job->until || !fits(job, *bytes, &record))
            return 0;
        struct stream_item *item = &job->items[job->count];
        *item = (struct stream_item){.offset = offset, .timestamp = record.timestamp};
        err = stream_record_get(&record, scan->heap, &scan->scratch, &item->msg);
        if (err)
            return fail(scan, err, err == -ENOMEM ? "no memory" : "a record in the batch has no valid form");
        job->count++;
        job->next = at;
        *bytes += msg_size(item->msg);
    }
    if (!record_reader_ok(&reader))
        return fail(scan, -EILSEQ, "a record in the batch has no valid form");
    job->next = behind < job->until ? behind : job->until;
    *ret_more = job->next < job->until && job->count < job->max ? MORE : FULL;
    return 0;
}

static int read_segment(struct stream_scan *scan, struct stream_job *job, uint64_t *bytes, enum more *ret_more)
{
    struct record_batch batch;
    scan_jump(scan, stream_index_find(index_of(scan), job->next - scan->base));
    for (;;) {
        int err = next_head(scan, &batch);
        if (err <= 0)
            return err;
        if ((uint64_t)record_batch_last_offset(&batch) >= job->next) {
            err = take_records(scan, &batch, job, bytes, ret_more);
            if (err || *ret_more == FULL)
                return err;
        }
        step_over(scan, &batch);
    }
}

int stream_scan_read(struct stream_scan *scan, struct stream_partition *partition, struct stream_job *job)
{
    uint64_t bytes = 0;
    enum more more = MORE;
    int err = 0;
    CHECK(job->max);
    job->next = job->first;
    while (more == MORE && job->next < job->until && !err) {
        const struct stream_segment *segment = stream_files_at(partition, job->next);
        if (!segment || segment->extent.base >= job->until)
            break;
        if (segment->extent.base > job->next)
            job->next = segment->extent.base; /* what was before is gone */
        scan_begin(scan, partition, segment, job->bytes_max < PIECE_LITTLE ? PIECE_LITTLE : STREAM_PIECE_BYTES);
        err = read_segment(scan, job, &bytes, &more);
    }
    buffer_release(scan);
    return job->count ? 0 : err; /* who asks for what comes then is told */
}

/* ---------------------------------------------------------------------------------------------------------- compaction */

void stream_scan_at(struct stream_scan *scan, struct stream_partition *partition, const struct stream_segment *segment,
                    uint64_t position, uint64_t expected)
{
    scan_begin(scan, partition, segment, STREAM_PIECE_BYTES);
    scan->position = position;
    scan->expected = expected;
}

int stream_scan_next(struct stream_scan *scan, struct record_batch *ret, struct slice *ret_bytes)
{
    int err = next_head(scan, ret);
    if (err <= 0)
        return err;
    err = look(scan, ret->bytes, ret_bytes);
    if (err)
        return err;
    return record_batch_crc_ok(*ret_bytes) ? 1 : fail(scan, -EILSEQ, "the batch does not fit its checksum");
}

int stream_scan_open(struct stream_scan *scan, const struct record_batch *batch, struct record_reader *ret)
{
    return open_batch(scan, batch, ret);
}

void stream_scan_step(struct stream_scan *scan, const struct record_batch *batch)
{
    step_over(scan, batch);
}

void stream_scan_release(struct stream_scan *scan)
{
    buffer_release(scan);
}

/* --------------------------------------------------------------------------------------------------------------- fetch */

/* To the first batch that is not below run->first, or one shortly before it. */
static void fetch_jump(struct stream_scan *scan, const struct stream_run *run)
{
    const struct stream_partition *partition = scan->partition;
    if (partition->fetched.position && partition->fetched.base == scan->base &&
        partition->fetched.offset == run->first) {
        scan->position = partition->fetched.position;
        scan->expected = partition->fetched.offset;
    } else if (run->first > scan->base)
        scan_jump(scan, stream_index_find(index_of(scan), run->first - scan->base));
}

/* May this batch be a part of the piece? */
static bool fetchable(const struct stream_run *run, const struct record_batch *batch)
{
    size_t have = run->piece.len;
    if ((uint64_t)record_batch_last_offset(batch) >= run->until)
        return false;
    if (have && run->enough && (uint64_t)batch->base_offset >= run->enough)
        return false;
    if (have)
        return have < run->bytes_max && batch->bytes <= run->bytes_max - have;
    return run->one_at_least || batch->bytes <= run->bytes_max;
}

/* Of a batch that a share group gets: control batches, and those of aborted transactions, have nothing for its members. */
static int note_dead(struct stream_run *run, const struct record_batch *batch)
{
    uint64_t first = (uint64_t)batch->base_offset, last = (uint64_t)record_batch_last_offset(batch);
    bool dead = batch->control ||
                (batch->transactional && aborted_has(run->aborted, run->aborted_count, batch->producer_id, first));
    if (!dead)
        return 0;
    if (run->dead_count && run->dead[run->dead_count - 1].last + 1 == first) {
        run->dead[run->dead_count - 1].last = last;
        return 0;
    }
    if (!(run->dead_count & (run->dead_count + 1))) { /* 0, 1, 3, 7 …: it is full */
        struct offset_run *grown = mem_realloc(run->dead, (2 * (size_t)run->dead_count + 1) * sizeof *grown);
        if (!grown)
            return -ENOMEM;
        run->dead = grown;
    }
    run->dead[run->dead_count++] = (struct offset_run){.first = first, .last = last};
    return 0;
}

/* Behind a batch of the piece is none: is its length to blame, which no checksum covers? Then it is not given. The only body
 * that a fetch ever reads. */
static int fetch_doubted(struct stream_scan *scan, struct stream_run *run, const struct record_batch *last)
{
    struct slice bytes;
    const char *what = scan->what;
    uint64_t position = scan->position, expected = scan->expected;
    scan->position -= last->bytes;
    scan->expected = (uint64_t)last->base_offset;
    int err = look(scan, last->bytes, &bytes);
    if (err || !record_batch_crc_ok(bytes)) {
        run->piece.len -= last->bytes;
        return err ? err : fail(scan, -EILSEQ, "the batch does not fit its checksum");
    }
    scan->position = position;
    scan->expected = expected;
    return fail(scan, -EILSEQ, what);
}

/* The first batch of a long run is known: over those of which the index says that they all belong to it. */
static bool fetch_leap(struct stream_scan *scan, struct stream_run *run)
{
    uint64_t position = scan->position, expected = scan->expected;
    uint64_t left = segment_of(scan)->extent.bytes - position;
    if (run->bytes_max < LEAP_MIN || left < LEAP_MIN)
        return false;
    const struct stream_index *index = index_of(scan); /* which may have moved the scan */
    const struct stream_mark *mark =
        stream_index_find_within(index, run->until - scan->base, run->piece.position + run->bytes_max);
    scan->position = position;
    scan->expected = expected;
    scan_jump(scan, mark);
    run->piece.len = (size_t)(scan->position - run->piece.position);
    return scan->position > position;
}

/* Headers only: what is behind them the reader of the piece will see. 0: the segment ends here; 1: enough. */
static int fetch_segment(struct stream_scan *scan, struct stream_run *run, bool leaps)
{
    struct record_batch batch, last = {0};
    bool leapt = false;
    int err;
    fetch_jump(scan, run);
    scan->piece = FETCH_STEP;
    while ((err = next_head(scan, &batch)) > 0) {
        if ((uint64_t)record_batch_last_offset(&batch) >= run->first) {
            if (!fetchable(run, &batch))
                return 1;
            if (run->enough && note_dead(run, &batch))
                return -ENOMEM;
            if (!run->piece.len) {
                run->piece.position = scan->position;
                run->base = (uint64_t)batch.base_offset;
            }
            run->piece.len += batch.bytes;
            last = batch;
        }
        step_over(scan, &batch);
        if (leaps && run->piece.len && !run->enough) {
            leapt = fetch_leap(scan, run);
            leaps = false;
            if (leapt)
                last.bytes = 0;
        }
        scan->piece = batch.bytes < FETCH_STEP ? FETCH_STEP : RECORD_BATCH_HEADER;
    }
    if (err == -EILSEQ && leapt && !last.bytes) { /* damage where the leap ended: step by step, then */
        run->piece.len = 0;
        stream_scan_at(scan, scan->partition, segment_of(scan), LAYOUT_BLOCK, scan->base);
        return fetch_segment(scan, run, false);
    }
    if (err == -EILSEQ && run->piece.len)
        err = fetch_doubted(scan, run, &last);
    return err;
}

int stream_scan_fetch(struct stream_scan *scan, struct stream_partition *partition, struct stream_run *run)
{
    int done = 0;
    run->next = run->first;
    while (done == 0 && run->next < run->until) {
        struct stream_segment *segment = stream_files_at(partition, run->next);
        if (!segment || segment->extent.base >= run->until)
            break;
        scan_begin(scan, partition, segment, FETCH_STEP);
        done = stream_files_lend(scan->files, partition, segment, &run->piece.file);
        if (done) {
            scan->what = scan->files->fault;
            break;
        }
        counted_file_ref(run->piece.file); /* now: reading may need its descriptor */
        done = fetch_segment(scan, run, true);
        if (run->piece.len) {
            if (partition->segments[scan->segment].writer < 0)
                stream_files_warm(scan->files, segment, run->piece.position,
                                  run->piece.len < WARM_MAX ? run->piece.len : WARM_MAX);
            partition->fetched.base = scan->base;
            partition->fetched.offset = run->next = scan->expected;
            partition->fetched.position = scan->position;
            done = 1; /* who asks for what comes then is told of damage */
            break;
        }
        file_piece_fini(&run->piece);
        if (done == 0)
            run->next = segment->extent.end < run->until ? segment->extent.end : run->until;
    }
    buffer_release(scan);
    return done < 0 ? done : 0;
}

/* ---------------------------------------------------------------------------------------------------------------- find */

/* The first record of the batch that is wanted: its offset in job->next, else as it was. */
static int find_in_batch(struct stream_scan *scan, const struct record_batch *batch, struct stream_job *job)
{
    struct record_reader reader;
    struct record record;
    int err = open_batch(scan, batch, &reader);
    if (err)
        return err;
    while (record_next(&reader, &record)) {
        bool wanted = record.offset >= 0 && (uint64_t)record.offset >= job->first && record.timestamp >= job->timestamp;
        if (!wanted)
            continue;
        if ((uint64_t)record.offset < job->until) {
            job->next = (uint64_t)record.offset;
            job->found_at = record.timestamp;
        }
        return 1;
    }
    return record_reader_ok(&reader) ? 0 : fail(scan, -EILSEQ, "a record in the batch has no valid form");
}

/* 1: found, or behind until; 0: not in this segment. */
static int find_in_segment(struct stream_scan *scan, struct stream_job *job)
{
    struct record_batch batch;
    const struct stream_index *index = index_of(scan);
    int err;
    scan_jump(scan, stream_index_find_time(index, job->timestamp));
    if (job->first > scan->base)
        scan_jump(scan, stream_index_find(index, job->first - scan->base));
    while ((err = next_head(scan, &batch)) > 0) {
        if (scan->expected >= job->until)
            return 1;
        if (batch.max_timestamp >= job->timestamp && (uint64_t)record_batch_last_offset(&batch) >= job->first)
            err = find_in_batch(scan, &batch, job);
        else
            err = 0;
        if (err)
            return err;
        step_over(scan, &batch);
    }
    return err;
}

int stream_scan_find(struct stream_scan *scan, struct stream_partition *partition, struct stream_job *job)
{
    uint64_t at = job->first;
    int found = 0;
    job->next = job->until;
    job->found_at = -1;
    while (found == 0 && at < job->until) {
        const struct stream_segment *segment = stream_files_at(partition, at);
        if (!segment)
            break;
        at = segment->extent.end;
        if (segment->extent.max_at < job->timestamp)
            continue;
        scan_begin(scan, partition, segment, PIECE_LITTLE);
        found = find_in_segment(scan, job);
    }
    buffer_release(scan);
    return found < 0 ? found : 0;
}
