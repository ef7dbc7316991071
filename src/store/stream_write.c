/* Writing stream files, see stream_write.h.
 *
 * A run is what goes to the disk in one write: one job, or several small ones of the same partition, each as batches of its
 * own. It is all written or all undone: after a failure the file ends where it ended before, and so does its index. A job
 * of more than a MiB is written in pieces and undone likewise.
 *
 * A file is sealed only when its successor has been written: what can fail for want of room comes first, and the trailer
 * is the one part that may be missing.
 * Thread: the streams'.
 */
#include "store/stream_write.h"

#include "base/check.h"
#include "base/mem.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#define BUFFER_KEPT (2 * STREAM_RUN_BYTES)

void stream_write_fini(struct stream_write *write)
{
    mem_free(write->out.base);
    stream_scratch_fini(&write->scratch);
    write->out = (struct writer){0};
}

/* ------------------------------------------------------------------------------------------------------------- buffer */

/* Room for more bytes behind what is there. */
static bool out_reserve(struct stream_write *write, uint64_t more)
{
    struct writer *out = &write->out;
    if (more <= out->max - out->len)
        return true;
    size_t max = out->max ? out->max : STREAM_BATCH_BYTES;
    while (max - out->len < more && max <= STREAM_RUN_BYTES)
        max *= 2;
    if (max - out->len < more)
        max = out->len + (size_t)more;
    uint8_t *base = mem_realloc(out->base, max);
    if (!base)
        return false;
    out->base = base;
    out->max = max;
    return true;
}

static void out_release(struct stream_write *write)
{
    write->out.len = 0;
    if (write->out.max <= BUFFER_KEPT)
        return;
    mem_free(write->out.base);
    write->out = (struct writer){0};
}

static int flush(struct stream_write *write)
{
    struct writer *out = &write->out;
    int err = stream_files_append(write->files, write->partition, out->base, out->len);
    write->bytes_written += err ? 0 : out->len;
    out->len = 0;
    return err;
}

/* ------------------------------------------------------------------------------------------------------------ encoding */

static struct stream_index *index_now(struct stream_write *write)
{
    return write->rolled ? &write->fresh : write->partition->indexed ? &write->partition->index : NULL;
}

static int put_record(struct stream_write *write, struct record_batch_writer *batch, const struct stream_item *item)
{
    uint64_t need = stream_record_max(item->msg);
    for (;;) {
        if (!out_reserve(write, need))
            return -ENOMEM;
        int err = stream_record_put(batch, item->timestamp, item->msg, &write->scratch);
        if (err != -EFBIG || need > STREAM_POSITION_MAX)
            return err;
        need *= 2;
        write->out.failed = false;
    }
}

static struct stream_mark mark_here(const struct stream_write *write, uint64_t offset)
{
    const struct stream_extent *extent = &write->extent;
    return (struct stream_mark){
        .delta = (uint32_t)(offset - extent->base), .position = (uint32_t)extent->bytes, .max_before = extent->max_at};
}

static void note_record(struct stream_extent *extent, wall_t came, wall_t timestamp)
{
    if (extent->end == extent->base)
        extent->first_at = came;
    if (timestamp > extent->max_at)
        extent->max_at = timestamp;
}

/* What a Kafka client has sent, as it is. */
static int put_verbatim(struct stream_write *write, const struct stream_item *item)
{
    struct slice bytes = msg_body(item->msg);
    struct stream_extent *extent = &write->extent;
    struct stream_index *index = index_now(write);
    struct record_batch head;
    CHECK(record_batch_peek(bytes, &head) == RECORD_OK && (uint64_t)head.base_offset == item->offset);
    if (!out_reserve(write, bytes.len))
        return -ENOMEM;
    struct stream_mark mark = mark_here(write, item->offset);
    writer_put(&write->out, bytes.ptr, bytes.len);
    note_record(extent, item->timestamp, head.max_timestamp >= 0 ? head.max_timestamp : item->timestamp);
    extent->end = item->offset + msg_offsets(item->msg);
    extent->bytes += bytes.len;
    if (index)
        stream_index_note(index, &mark);
    return 0;
}

/* One batch from item *at on; *at is then behind it. */
static int encode_batch(struct stream_write *write, const struct stream_job *job, uint32_t *at)
{
    struct record_batch_writer batch;
    const struct stream_item *items = job->items;
    struct stream_extent *extent = &write->extent;
    struct stream_index *index = index_now(write);
    struct record_batch head = record_batch_head((int64_t)items[*at].offset, items[*at].timestamp);
    if (!out_reserve(write, RECORD_BATCH_HEADER + STREAM_BATCH_BYTES))
        return -ENOMEM;
    struct stream_mark mark = mark_here(write, items[*at].offset);
    record_batch_begin(&batch, &write->out, &head);
    for (uint32_t first = *at; *at < job->count; ++*at) {
        const struct stream_item *item = &items[*at];
        if (item->msg->flags & MSG_BATCH)
            break;
        if (*at > first && record_batch_len(&batch) + stream_record_max(item->msg) > STREAM_BATCH_BYTES)
            break;
        int err = put_record(write, &batch, item);
        if (err)
            return err;
        note_record(extent, item->timestamp, item->timestamp);
        extent->end++;
    }
    extent->bytes += record_batch_finish(&batch, -1).len;
    if (index)
        stream_index_note(index, &mark);
    return 0;
}

/* in_pieces: what is ready may be written before all is. */
static int encode_job(struct stream_write *write, struct stream_job *job, bool in_pieces)
{
    for (uint32_t at = 0; at < job->count;) {
        bool verbatim = job->items[at].msg->flags & MSG_BATCH;
        int err = verbatim ? put_verbatim(write, &job->items[at]) : encode_batch(write, job, &at);
        at += verbatim && !err;
        if (!err && in_pieces && write->out.len >= STREAM_RUN_BYTES)
            err = flush(write);
        else if (err)
            snprintf(write->files->fault, sizeof write->files->fault, "encode messages: %s", strerror(-err));
        if (err)
            return err;
    }
    job->tail = write->extent;
    return 0;
}

static uint64_t job_bytes_max(const struct stream_job *job)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < job->count; i++)
        bytes += RECORD_BATCH_HEADER + stream_record_max(job->items[i].msg);
    return bytes;
}

/* ------------------------------------------------------------------------------------------------------------- rolling */

static bool must_roll(const struct stream_extent *extent, const struct stream_job *job)
{
    return extent->bytes > job->segment_bytes || (job->seal_before && extent->first_at < job->seal_before) ||
           extent->bytes + job_bytes_max(job) > STREAM_POSITION_MAX;
}

static int roll(struct stream_write *write, uint64_t base)
{
    struct stream_partition *partition = write->partition;
    if (partition->open)
        stream_scan_index(write->scan, partition); /* while it is the last */
    if (!out_reserve(write, LAYOUT_BLOCK)) {
        snprintf(write->files->fault, sizeof write->files->fault, "begin a file: no memory");
        return -ENOMEM;
    }
    int err = stream_files_begin(write->files, partition, base);
    if (err)
        return err;
    write->rolled = true;
    write->extent = (struct stream_extent){.base = base, .end = base, .bytes = LAYOUT_BLOCK};
    stream_files_head(write->files, partition, writer_room(&write->out, LAYOUT_BLOCK));
    return 0;
}

/* The file before the one that was begun gets its trailer, and the index of the new one is the partition's. */
static void seal_before_last(struct stream_write *write, struct stream_extent *ret_sealed)
{
    struct stream_partition *partition = write->partition;
    struct stream_segment *old = partition->len > 1 ? &partition->segments[partition->len - 2] : NULL;
    if (old && partition->tail)
        *ret_sealed = old->extent;
    if (old && partition->open && partition->index.count) {
        struct stream_trailer trailer = {.count = partition->index.count,
                                         .bytes = old->extent.bytes,
                                         .end = old->extent.end,
                                         .first_at = old->extent.first_at,
                                         .max_at = old->extent.max_at};
        size_t len = stream_trailer_len(trailer.count);
        if (out_reserve(write, len)) {
            stream_trailer_put(write->out.base, &trailer, partition->index.marks);
            stream_files_seal(write->files, partition, old, write->out.base, len);
        }
        (void)stream_files_keep_index(write->files, partition, old->extent.base, &partition->index);
    }
    stream_index_fini(&partition->index);
    partition->index = write->fresh;
    partition->indexed = true;
    write->fresh = (struct stream_index){0};
}

/* ---------------------------------------------------------------------------------------------------------------- runs */

static int begin_run(struct stream_write *write, const struct stream_job *job)
{
    struct stream_partition *partition = write->partition;
    const struct stream_segment *last = stream_files_last(partition);
    char *fault = write->files->fault;
    if (partition->failed) {
        snprintf(fault, sizeof write->files->fault, "write after a sync of the partition has failed");
        return -EIO;
    }
    if (partition->next_known && job->first != partition->next) {
        snprintf(fault, sizeof write->files->fault, "write from offset %" PRIu64 " on: the file ends at %" PRIu64,
                 job->first, partition->next);
        return -EINVAL;
    }
    partition->next_known = true;
    partition->next = job->first;
    if (job_bytes_max(job) > STREAM_POSITION_MAX - LAYOUT_BLOCK) {
        snprintf(fault, sizeof write->files->fault, "write a job that is larger than a file can be");
        return -EFBIG;
    }
    write->extent = last ? last->extent : (struct stream_extent){0};
    return partition->open && !must_roll(&write->extent, job) ? 0 : roll(write, job->first);
}

/* Encodes small jobs that go with the first; how many there are then. */
static uint32_t join(struct stream_write *write, struct stream_job *const *jobs, uint32_t count)
{
    uint32_t done = 1;
    for (; done < count; done++) {
        struct stream_job *job = jobs[done];
        struct stream_extent before = write->extent;
        size_t len = write->out.len;
        if (!job->count || job->first != before.end || must_roll(&before, job) || len >= STREAM_RUN_BYTES / 2 ||
            job_bytes_max(job) > STREAM_RUN_BYTES)
            break;
        if (encode_job(write, job, false)) { /* it begins the next run, and fails there if it must */
            write->extent = before;
            write->out.len = len;
            write->out.failed = false;
            if (index_now(write))
                stream_index_cut(index_now(write), before.bytes);
            break;
        }
    }
    return done;
}

static void undo(struct stream_write *write)
{
    struct stream_partition *partition = write->partition;
    write->out.failed = false;
    stream_index_fini(&write->fresh);
    stream_files_cut_back(write->files, partition);
    if (!write->rolled && partition->indexed)
        stream_index_cut(&partition->index, partition->at);
}

uint32_t stream_write_run(struct stream_write *write, struct stream_partition *partition,
                          struct stream_job *const *jobs, uint32_t count)
{
    uint32_t done = 1;
    write->partition = partition;
    write->rolled = false;
    write->out.len = 0;
    int err = begin_run(write, jobs[0]);
    if (!err) {
        err = encode_job(write, jobs[0], true);
        if (!err)
            done = join(write, jobs, count);
        if (!err && write->out.len)
            err = flush(write);
        if (err)
            undo(write);
    }
    if (!err && write->rolled)
        seal_before_last(write, &jobs[0]->sealed);
    if (!err)
        stream_files_commit(write->files, partition, &write->extent);
    for (uint32_t i = 0; i < done; i++) {
        jobs[i]->err = err;
        if (err)
            jobs[i]->tail = (struct stream_extent){0};
    }
    out_release(write);
    return done;
}
