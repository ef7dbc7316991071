/* stream_compact: makes one smaller file of sealed files of a keyed stream, a slice at a time.
 *
 * Zero-initialised with its files, fd -1 ▸ { stream_compact_begin ▸ { stream_compact_step }* until it is not 0 | stream_compact_cancel
 * }* ▸ stream_compact_fini. Thread: the streams' only. What a compaction takes away and what it never does is in
 * docs/formats/streams.md section 3 (invariants C1–C6).
 */
#ifndef MILLRACE_STORE_STREAM_COMPACT_H
#define MILLRACE_STORE_STREAM_COMPACT_H

#include "store/stream_keys.h"
#include "store/stream_scan.h"

#define STREAM_COMPACT_SLICE (512u * 1024) /* read in one step, or a batch if that is longer */

struct stream_compact {
    struct stream_files *files;
    struct stream_scan scan;
    uint32_t keys_max; /* places of the map; 0: STREAM_KEYS_PLACES */

    struct stream_keys keys;
    uint64_t keys_stream; /* whose they are */
    uint32_t keys_partition;

    /* the job under way */
    struct stream_job *job;   /* NULL: none; a loan */
    struct stream_extent now; /* the file that is read; bytes 0: none yet */
    uint64_t position, expected;
    bool begun, looking; /* is there anything to be won? */

    /* the file that is made */
    int fd;
    struct stream_name name;
    struct writer out, plain;
    uint64_t written, synced;
    bool gapped;
    uint64_t gap; /* offsets from here on are in no batch yet */
    struct stream_extent made;
    struct stream_index index;
};

/* job: a STREAM_KEYS or STREAM_REWRITE. */
void stream_compact_begin(struct stream_compact *compact, struct stream_job *job);
/* 1: done; 0: more to do; a negative errno: it failed, and what was made of it is gone. -ESTALE: the files are not what they
 * were; -EILSEQ: one is damaged, scan.what says how; else files->fault says what failed. */
MUST_USE int stream_compact_step(struct stream_compact *compact);
void stream_compact_cancel(struct stream_compact *compact);
void stream_compact_fini(struct stream_compact *compact);

#endif
