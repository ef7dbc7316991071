/* stream_write: puts the messages of write jobs behind what is written of their partition.
 *
 * Zero-initialised with its files and scan ▸ { stream_write_run }* ▸ stream_write_fini. Thread: the streams' only.
 */
#ifndef MILLRACE_STORE_STREAM_WRITE_H
#define MILLRACE_STORE_STREAM_WRITE_H

#include "store/stream_scan.h"

#define STREAM_BATCH_BYTES (256u * 1024) /* a batch ends with the record before it would have more */
#define STREAM_RUN_BYTES (1u << 20)      /* written at once */

struct stream_write {
    struct stream_files *files;
    struct stream_scan *scan; /* for an index that is not there yet */
    uint64_t bytes_written;

    struct writer out; /* what is to be written next */
    struct stream_scratch scratch;

    /* the run */
    struct stream_partition *partition;
    struct stream_extent extent; /* of the last file with all that was encoded */
    bool rolled;
    struct stream_index fresh; /* of a file that was begun */
};

/* Writes as many of the jobs as go together, one at least; count: STREAM_WRITEs of this partition in their order. Returns
 * how many were done, in err, tail and sealed with the same success or the same error: files->fault then says why. */
MUST_USE uint32_t stream_write_run(struct stream_write *write, struct stream_partition *partition,
                                   struct stream_job *const *jobs, uint32_t count);

void stream_write_fini(struct stream_write *write);

#endif
