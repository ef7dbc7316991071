/* stream_scan: reads a partition's files: batch by batch, messages from an offset on, where batches stand, the offset of a
 * time, an index.
 *
 * Zero-initialised with its heap ▸ { stream_scan_read | stream_scan_fetch | stream_scan_find | stream_scan_index }* ▸ stream_scan_fini.
 * Thread: the streams' only. After an error `what` says what is wrong at `position` of the file that begins at `base`.
 */
#ifndef MILLRACE_STORE_STREAM_SCAN_H
#define MILLRACE_STORE_STREAM_SCAN_H

#include "base/file_piece.h"
#include "store/stream_files.h"

#define STREAM_PIECE_BYTES (256u * 1024)         /* read at once */
#define STREAM_UNPACKED_MAX (128u * 1024 * 1024) /* of a packed batch */

/* Whole batches of one file, as they stand there. */
struct stream_run {
    uint64_t first, until; /* offsets: from the batch that holds it, or the next; no batch that goes on there */
    size_t bytes_max;
    uint64_t enough;               /* not 0: a batch that begins there or behind is not wanted any more; then: */
    const struct aborted *aborted; /* transactions, aborted_count */
    uint32_t aborted_count;
    bool one_at_least;       /* the first batch though it has more bytes than bytes_max */
    struct file_piece piece; /* answer; without file: there is no batch in [first, next) */
    uint64_t next;           /* answer: behind the last batch */
    uint64_t base;           /* answer: where the first begins */
    struct offset_run *dead; /* answer, with `enough`: where there is nothing for a client, ascending; the caller's */
    uint32_t dead_count;
};

struct stream_scan {
    struct stream_files *files;
    struct slab_heap *heap; /* of the messages */
    uint64_t bytes_read;

    uint8_t *buffer; /* bytes [buffer_at, buffer_at + buffer_len) of the file */
    size_t buffer_cap, buffer_len;
    uint64_t buffer_at;
    struct stream_scratch scratch;
    struct compress *unpack; /* once needed */

    /* where it is */
    struct stream_partition *partition;
    uint32_t segment;  /* among the partition's */
    uint64_t base;     /* of it */
    uint64_t position; /* of the next batch */
    uint64_t expected; /* its base offset */
    size_t piece;
    const char *what;
};

/* Fills items, count and next of a STREAM_READ. 0, -EILSEQ, or another negative errno; an error only where nothing at all
 * could be read, then count is 0. */
MUST_USE int stream_scan_read(struct stream_scan *scan, struct stream_partition *partition, struct stream_job *job);
/* Fills piece and next. As above: an error only where there is no piece. */
MUST_USE int stream_scan_fetch(struct stream_scan *scan, struct stream_partition *partition, struct stream_run *run);
/* Fills next and found_at of a STREAM_FIND. As above. */
MUST_USE int stream_scan_find(struct stream_scan *scan, struct stream_partition *partition, struct stream_job *job);
/* The partition's index of its last segment is whole afterwards, or as whole as memory and disk allow. */
void stream_scan_index(struct stream_scan *scan, struct stream_partition *partition);

/* Batch by batch, for a compaction: stream_scan_at → { stream_scan_next (stream_scan_open?) stream_scan_step }*. The scan is at
 * `position` of the segment, where a batch with the offset `expected` has to begin. */
void stream_scan_at(struct stream_scan *scan, struct stream_partition *partition, const struct stream_segment *segment,
                    uint64_t position, uint64_t expected);
/* 1: its bytes, a loan until the next call, with a good checksum; 0: the segment ends here; a negative errno. */
MUST_USE int stream_scan_next(struct stream_scan *scan, struct record_batch *ret, struct slice *ret_bytes);
MUST_USE int stream_scan_open(struct stream_scan *scan, const struct record_batch *batch, struct record_reader *ret);
void stream_scan_step(struct stream_scan *scan, const struct record_batch *batch);
/* Gives back buffers that a long batch needed. */
void stream_scan_release(struct stream_scan *scan);

void stream_scan_fini(struct stream_scan *scan);

#endif
