/* Compaction of sealed stream files, see stream_compact.h and docs/formats/streams.md section 3.
 *
 * KEYS walks over the part of the stream that is new and remembers the last offset of each key. REWRITE walks over older
 * files and leaves out what has a later record of its key among those, what was aborted, and null values whose time is over. The
 * offsets of a file stay without gaps between its batches: a run of batches of which nothing is left becomes one batch without records.
 *
 * Nothing is written before something is found that can go. The new file is synced on the way, so that the last sync, for
 * which readers wait, is short.
 * Thread: the streams'.
 */
#include "store/stream_compact.h"

#include "base/check.h"
#include "base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define OUT_BYTES (512u * 1024)
#define OUT_KEPT (2u << 20)
#define SYNC_BYTES (4u << 20)
#define RECORD_GROWS 20u /* at most, when its batch's base timestamp changes: its delta, and its length's */

/* -------------------------------------------------------------------------------------------------------------- output */

static int wrong(struct stream_compact *c, const char *what)
{
    c->scan.what = what;
    return -EILSEQ;
}

static int no_memory(struct stream_compact *c)
{
    snprintf(c->files->fault, sizeof c->files->fault, "compact a stream: no memory");
    return -ENOMEM;
}

static bool reserve(struct writer *w, uint64_t more)
{
    if (more <= w->max - w->len)
        return true;
    size_t max = w->len + (size_t)more > OUT_BYTES ? w->len + (size_t)more : OUT_BYTES;
    uint8_t *base = mem_realloc(w->base, max);
    if (!base)
        return false;
    w->base = base;
    w->max = max;
    return true;
}

static void release(struct writer *w)
{
    w->len = 0;
    w->failed = false;
    if (w->max <= OUT_KEPT)
        return;
    mem_free(w->base);
    *w = (struct writer){0};
}

static int failed(struct stream_compact *c, int err, const char *what)
{
    snprintf(c->files->fault, sizeof c->files->fault, "%s a compacted file of a stream: %s", what, strerror(-err));
    return err;
}

static int sync_out(struct stream_compact *c)
{
    int err = c->files->os->fdatasync(c->files->os, c->fd);
    c->synced = c->written;
    return err ? failed(c, err, "sync") : 0;
}

static int flush(struct stream_compact *c)
{
    int err = c->files->os->pwrite(c->files->os, c->fd, c->out.base, c->out.len, c->written);
    if (err)
        return failed(c, err, "write");
    c->written += c->out.len;
    c->out.len = 0;
    return c->written - c->synced >= SYNC_BYTES ? sync_out(c) : 0;
}

static int make_file(struct stream_compact *c)
{
    const struct stream_job *job = c->job;
    struct stream_files *files = c->files;
    c->name = (struct stream_name){
        .stream = job->stream, .partition = job->partition, .base = job->first, .generation = job->sealed.generation};
    if (!reserve(&c->out, LAYOUT_BLOCK))
        return no_memory(c);
    int err = stream_files_make_copy(files, &c->name, &c->fd);
    if (err) {
        c->fd = -1;
        return err;
    }
    struct stream_head head = {.stream = job->stream,
                               .partition = job->partition,
                               .generation = job->sealed.generation,
                               .base = job->first,
                               .wall_ms = files->os->now_wall(files->os)};
    memcpy(head.uuid, files->uuid, LAYOUT_UUID_LEN);
    stream_head_put(writer_room(&c->out, LAYOUT_BLOCK), &head);
    c->made = (struct stream_extent){
        .base = job->first, .end = job->first, .generation = job->sealed.generation, .bytes = LAYOUT_BLOCK};
    return 0;
}

static int too_long(struct stream_compact *c)
{
    snprintf(c->files->fault, sizeof c->files->fault, "compact a stream: the file would be too long");
    return -EFBIG;
}

/* A batch of so many bytes has been put into `out`. */
static int put(struct stream_compact *c, uint64_t base, uint64_t last, size_t len)
{
    struct stream_mark mark = {
        .delta = (uint32_t)(base - c->made.base), .position = (uint32_t)c->made.bytes, .max_before = c->made.max_at};
    if (base != c->made.end || c->made.bytes + len > STREAM_POSITION_MAX)
        return too_long(c);
    stream_index_note(&c->index, &mark);
    c->made.bytes += len;
    c->made.end = last + 1;
    return c->out.len >= OUT_BYTES ? flush(c) : 0;
}

static void took(struct stream_compact *c, wall_t first_at, wall_t max_at)
{
    if (!c->made.first_at)
        c->made.first_at = first_at;
    if (max_at > c->made.max_at)
        c->made.max_at = max_at;
}

/* Batches of which nothing is left, as one without records. */
static int close_gap(struct stream_compact *c, uint64_t until)
{
    struct record_batch_writer batch;
    struct record_batch head = record_batch_head((int64_t)c->gap, 0);
    if (!c->gapped || until == c->gap)
        return 0;
    if (until - c->gap > INT32_MAX)
        return too_long(c);
    c->gapped = false;
    if (!reserve(&c->out, RECORD_BATCH_HEADER))
        return no_memory(c);
    record_batch_begin(&batch, &c->out, &head);
    return put(c, c->gap, until - 1, record_batch_finish(&batch, (int64_t)until - 1).len);
}

static int copy_batch(struct stream_compact *c, const struct record_batch *batch, struct slice bytes)
{
    int err = close_gap(c, (uint64_t)batch->base_offset);
    if (err)
        return err;
    if (!reserve(&c->out, bytes.len))
        return no_memory(c);
    writer_slice_put(&c->out, bytes);
    return put(c, (uint64_t)batch->base_offset, (uint64_t)record_batch_last_offset(batch), bytes.len);
}

static void drop_batch(struct stream_compact *c, const struct record_batch *batch)
{
    if (!c->gapped)
        c->gap = (uint64_t)batch->base_offset;
    c->gapped = true;
}

/* ------------------------------------------------------------------------------------------------------------- records */

/* 1; 0: no more; -EILSEQ. */
static int next_record(struct stream_compact *c, struct record_reader *reader, const struct record_batch *batch,
                       int64_t *behind, struct record *ret)
{
    if (!record_next(reader, ret))
        return record_reader_ok(reader) ? 0 : wrong(c, "a record in the batch has no valid form");
    if (ret->offset < *behind || ret->offset > record_batch_last_offset(batch))
        return wrong(c, "a record in the batch has an offset that is not of the batch");
    *behind = ret->offset + 1;
    return 1;
}

static int by_producer(const void *a, const void *b)
{
    const struct aborted *x = a, *y = b;
    if (x->producer != y->producer)
        return x->producer < y->producer ? -1 : 1;
    return x->last < y->last ? -1 : x->last > y->last;
}

/* Below what the job is about all transactions have ended. Those of a producer follow each other: so the batch is of the first that
 * ended at it or behind, or of none; of how many were open at one time it does not matter. */
static bool is_aborted(const struct stream_compact *c, const struct record_batch *batch)
{
    const struct aborted *list = c->job->aborted;
    struct aborted sought = {.producer = batch->producer_id, .last = (uint64_t)batch->base_offset};
    uint32_t low = 0, high = c->job->aborted_count;
    if (!batch->transactional || batch->control)
        return false;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (by_producer(&list[middle], &sought) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low < c->job->aborted_count && list[low].producer == sought.producer && list[low].first <= sought.last;
}

enum fate {
    FATE_KEPT,
    FATE_GONE,
    FATE_TOMBSTONE,      /* kept for now; older values of its key are gone when this pass is over */
    FATE_TOMBSTONE_YOUNG /* kept, and older values may still be there */
};

static enum fate fate_of(const struct stream_compact *c, const struct record_batch *batch, const struct record *record)
{
    if (!record->has_key)
        return FATE_KEPT;
    uint64_t last = stream_keys_find(&c->keys, record->key), offset = (uint64_t)record->offset;
    if (last != STREAM_KEY_NONE && last > offset)
        return FATE_GONE;
    if (record->has_value)
        return FATE_KEPT;
    if (batch->delete_horizon)
        return batch->base_timestamp <= c->job->timestamp ? FATE_GONE : FATE_KEPT;
    return last == offset ? FATE_TOMBSTONE : FATE_TOMBSTONE_YOUNG;
}

struct tally {
    uint32_t kept, tombstones, young;
    wall_t first_at, max_at; /* of what is kept */
};

/* reader: a copy, so that the records can be read again. */
static int count_records(struct stream_compact *c, const struct record_batch *batch, struct record_reader reader,
                         struct tally *ret)
{
    struct record record;
    int64_t behind = batch->base_offset;
    int more;
    *ret = (struct tally){0};
    while ((more = next_record(c, &reader, batch, &behind, &record)) > 0) {
        enum fate fate = fate_of(c, batch, &record);
        if (fate == FATE_GONE)
            continue;
        if (!ret->kept++)
            ret->first_at = record.timestamp;
        ret->max_at = record.timestamp > ret->max_at ? record.timestamp : ret->max_at;
        ret->tombstones += fate == FATE_TOMBSTONE;
        ret->young += fate == FATE_TOMBSTONE_YOUNG;
    }
    return more;
}

/* As batch->compression says, into `out`; ret: its length there. */
static int pack(struct stream_compact *c, const struct record_batch *batch, struct slice plain, size_t *ret)
{
    enum compress_kind kind = (enum compress_kind)batch->compression;
    size_t before = c->out.len;
    if (!reserve(&c->out, RECORD_BATCH_HEADER + compress_pack_max(kind, plain.len)))
        return no_memory(c);
    enum record_verdict verdict =
        record_batch_repack(plain, kind, COMPRESS_LEVEL_DEFAULT, c->scan.unpack, STREAM_UNPACKED_MAX, &c->out);
    if (verdict == RECORD_NO_MEMORY)
        return no_memory(c);
    *ret = c->out.len - before;
    return verdict == RECORD_OK ? 0 : wrong(c, "the batch cannot be packed again");
}

/* What is left of the batch, at its offsets; horizon: from then on its null values can go, else 0. */
static int write_batch(struct stream_compact *c, const struct record_batch *batch, struct record_reader *reader,
                       wall_t horizon)
{
    struct record_batch_writer writer;
    struct record_batch head = *batch;
    struct record record;
    struct writer *to = batch->compression ? &c->plain : &c->out;
    int64_t behind = batch->base_offset;
    int more, err = close_gap(c, (uint64_t)batch->base_offset);
    if (err)
        return err;
    if (!reserve(to, RECORD_BATCH_HEADER + reader->bytes.left + (uint64_t)batch->count * RECORD_GROWS))
        return no_memory(c);
    head.compression = COMPRESS_NONE;
    if (horizon) {
        head.delete_horizon = true;
        head.base_timestamp = horizon;
    }
    record_batch_begin(&writer, to, &head);
    while ((more = next_record(c, reader, batch, &behind, &record)) > 0)
        if (fate_of(c, batch, &record) != FATE_GONE && !record_batch_add(&writer, &record))
            return wrong(c, "a record in the batch does not fit into it");
    if (more)
        return more;
    struct slice plain = record_batch_finish(&writer, record_batch_last_offset(batch));
    size_t len = plain.len;
    if (batch->compression && (err = pack(c, batch, plain, &len)) != 0)
        return err;
    release(&c->plain);
    return put(c, (uint64_t)batch->base_offset, (uint64_t)record_batch_last_offset(batch), len);
}

/* ------------------------------------------------------------------------------------------------------------- batches */

static int keys_of_batch(struct stream_compact *c, const struct record_batch *batch, bool *ret_full)
{
    struct record_reader reader;
    struct record record;
    int64_t behind = batch->base_offset;
    int more;
    if (batch->control || (uint64_t)record_batch_last_offset(batch) < c->job->first || is_aborted(c, batch))
        return 0;
    if (!stream_keys_has_room(&c->keys, batch->count) && c->keys.count) {
        *ret_full = true;
        return 0;
    }
    int err = stream_scan_open(&c->scan, batch, &reader);
    if (err)
        return err;
    while ((more = next_record(c, &reader, batch, &behind, &record)) > 0)
        if (record.has_key)
            (void)stream_keys_put(&c->keys, record.key, (uint64_t)record.offset); /* what has no room goes later */
    return more;
}

/* While looking: *ret_gain when something can go, and nothing is written. */
static int rewrite_batch(struct stream_compact *c, const struct record_batch *batch, struct slice bytes, bool *ret_gain)
{
    struct record_reader reader;
    struct tally tally;
    if (batch->control) { /* readers of committed records need the ends of what was aborted */
        if (!c->looking)
            took(c, batch->base_timestamp, batch->max_timestamp);
        return c->looking ? 0 : copy_batch(c, batch, bytes);
    }
    if (!batch->count || is_aborted(c, batch)) {
        if (c->looking)
            *ret_gain = batch->count > 0;
        else
            drop_batch(c, batch);
        return 0;
    }
    int err = stream_scan_open(&c->scan, batch, &reader);
    if (!err)
        err = count_records(c, batch, reader, &tally);
    if (err)
        return err;
    bool horizon = tally.tombstones && !tally.young;
    bool same = tally.kept == batch->count && !horizon;
    if (c->looking) {
        *ret_gain = !same;
        return 0;
    }
    if (tally.kept)
        took(c, tally.first_at, tally.max_at);
    if (same)
        return copy_batch(c, batch, bytes);
    if (tally.kept)
        return write_batch(c, batch, &reader, horizon ? c->job->timestamp + c->job->tombstone_ms : 0);
    drop_batch(c, batch);
    return 0;
}

/* --------------------------------------------------------------------------------------------------------------- steps */

static void start_over(struct stream_compact *c)
{
    c->now = (struct stream_extent){0};
    c->expected = c->job->first;
}

void stream_compact_begin(struct stream_compact *c, struct stream_job *job)
{
    CHECK(!c->job && c->fd < 0);
    c->job = job;
    c->scan.files = c->files;
    c->begun = false;
    c->looking = job->type == STREAM_REWRITE;
    if (job->aborted_count)
        qsort(job->aborted, job->aborted_count, sizeof *job->aborted, by_producer);
    start_over(c);
}

static void end(struct stream_compact *c)
{
    c->job = NULL;
    c->gapped = false;
    c->written = c->synced = 0;
    release(&c->out);
    release(&c->plain);
    stream_index_fini(&c->index);
    stream_scan_release(&c->scan);
}

void stream_compact_cancel(struct stream_compact *c)
{
    if (c->fd >= 0) {
        c->files->os->close(c->files->os, c->fd);
        c->fd = -1;
        stream_files_give_up_copy(c->files, &c->name);
    }
    end(c);
}

void stream_compact_fini(struct stream_compact *c)
{
    if (c->fd >= 0)
        c->files->os->close(c->files->os, c->fd); /* the next start removes it */
    c->fd = -1;
    end(c);
    mem_free(c->out.base);
    mem_free(c->plain.base);
    c->out = c->plain = (struct writer){0};
    stream_keys_end(&c->keys);
    stream_scan_fini(&c->scan);
}

/* Are these the files that the core means? A replacement that it has sent may still wait. */
static bool are_meant(const struct stream_partition *partition, const struct stream_job *job)
{
    uint32_t count, generations = 0;
    const struct stream_segment *run = stream_files_run(partition, job->first, job->until, &count);
    for (uint32_t i = 0; run && i < count; i++)
        generations += run[i].extent.generation;
    return run && count == job->segment_bytes && generations == job->bytes_max;
}

/* Where the last step ended. 1; 0: there is nothing more; -ESTALE. */
static int go_on(struct stream_compact *c)
{
    const struct stream_job *job = c->job;
    struct stream_partition *partition = stream_files_find(c->files, job->stream, job->partition);
    if (!partition || (job->type == STREAM_REWRITE && !are_meant(partition, job)))
        return -ESTALE;
    const struct stream_segment *segment = stream_files_at(partition, c->expected);
    if (!segment || segment->extent.base >= job->until)
        return 0;
    if (segment->extent.base != c->now.base || segment->extent.generation != c->now.generation || !c->now.bytes) {
        c->now = segment->extent;
        c->position = LAYOUT_BLOCK;
        c->expected = c->now.base;
    }
    stream_scan_at(&c->scan, partition, segment, c->position, c->expected);
    return 1;
}

/* Index and trailer, and all of it durable, its name too. */
static int finish_file(struct stream_compact *c)
{
    struct stream_trailer trailer = {.count = c->index.count,
                                     .bytes = c->made.bytes,
                                     .end = c->made.end,
                                     .first_at = c->made.first_at,
                                     .max_at = c->made.max_at};
    size_t len = stream_trailer_len(trailer.count);
    if (!reserve(&c->out, len))
        return no_memory(c);
    stream_trailer_put(writer_room(&c->out, len), &trailer, c->index.marks);
    int err = flush(c);
    if (!err)
        err = sync_out(c);
    return err ? err : stream_files_sync_folder(c->files);
}

static int done(struct stream_compact *c)
{
    struct stream_job *job = c->job;
    if (job->type == STREAM_KEYS) {
        job->next = c->expected > job->first ? c->expected : job->first;
    } else if (c->fd >= 0) {
        int err = close_gap(c, job->until);
        if (!err)
            err = finish_file(c);
        if (err)
            return err;
        c->files->os->close(c->files->os, c->fd);
        c->fd = -1;
        job->sealed = c->made;
    } else
        job->sealed = (struct stream_extent){0};
    end(c);
    return 1;
}

/* Of the segment that go_on has found, up to a slice. 1: the job is done. */
static int walk(struct stream_compact *c)
{
    uint64_t before = c->scan.bytes_read;
    struct record_batch batch;
    struct slice bytes;
    int more;
    bool full = false, gain = false;
    while (c->scan.bytes_read - before < STREAM_COMPACT_SLICE &&
           (more = stream_scan_next(&c->scan, &batch, &bytes)) != 0) {
        if (more < 0)
            return more;
        if (c->job->type == STREAM_KEYS && c->scan.expected >= c->job->until)
            return 1;
        int err =
            c->job->type == STREAM_KEYS ? keys_of_batch(c, &batch, &full) : rewrite_batch(c, &batch, bytes, &gain);
        if (err)
            return err;
        if (full)
            return 1;
        if (gain) {
            c->looking = false;
            start_over(c);
            return make_file(c);
        }
        stream_scan_step(&c->scan, &batch);
        c->position = c->scan.position;
        c->expected = c->scan.expected;
    }
    return 0;
}

/* What a job needs before its first batch. 1: that was all. */
static int first_step(struct stream_compact *c)
{
    struct stream_job *job = c->job;
    if (job->type == STREAM_KEYS) {
        stream_keys_end(&c->keys);
        if (job->first == job->until)
            return 1;
        if (!stream_keys_begin(&c->keys, c->files->os, c->keys_max ? c->keys_max : STREAM_KEYS_PLACES))
            return no_memory(c);
        c->keys_stream = job->stream;
        c->keys_partition = job->partition;
        return 0;
    }
    if (!c->keys.places || c->keys_stream != job->stream || c->keys_partition != job->partition)
        return -ESTALE;
    struct stream_partition *partition = stream_files_find(c->files, job->stream, job->partition);
    if (!partition || !are_meant(partition, job))
        return -ESTALE;
    if (job->segment_bytes == 1)
        return 0;
    c->looking = false; /* fewer files are a gain */
    return make_file(c);
}

int stream_compact_step(struct stream_compact *c)
{
    int more = c->begun ? 0 : first_step(c);
    c->begun = true;
    if (!more) {
        more = go_on(c);
        more = more > 0 ? walk(c) : more == 0 ? 1 : more;
    }
    if (more == 0 && c->job->type == STREAM_REWRITE && c->expected >= c->job->until)
        more = 1;
    if (more > 0)
        more = done(c);
    if (more < 0)
        stream_compact_cancel(c);
    return more;
}
