/* stream_job: what the core asks of the files of streams, and the answer.
 *
 * A partition of a stream is a log: records by offset, from `start` to `end`. The core assigns the offsets and says what is
 * durable (the journal has it); the stream store (store/streams.h) puts runs of messages into segment files as Kafka record
 * batches, on its own thread, and reads them back. The segments are unsynced at first: what is in them since the last
 * STREAM_SYNC the journal can give again.
 *
 * Life cycle of a job: stream_job_new (core) → EFF_STREAM to the streams' port → CMD_STREAMED back → stream_job_free (core).
 * One owner at a time, but for this: while a STREAM_WRITE is on its way both threads may read what was submitted (ids, first,
 * next, count, items); the store writes only err, tail and sealed. Message references in items, the file in piece and the
 * block of a fetch belong to the job; stream_job_free gives back what is left.
 */
#ifndef MILLRACE_CORE_STREAM_JOB_H
#define MILLRACE_CORE_STREAM_JOB_H

#include "core/isolation.h"
#include "core/message.h"

#define STREAM_ITEMS_MAX 4096u            /* of one job */
#define STREAM_PARTITIONS_MAX 1024u       /* of one stream */
#define STREAM_SEGMENT_BYTES (256u << 20) /* a segment begins when the one before has so many bytes */
#define STREAM_SEGMENT_BYTES_MIN (64u * 1024)
#define STREAM_SEGMENT_BYTES_MAX (2000u << 20) /* positions are 31 bits, as Kafka's are */

enum stream_job_type {
    STREAM_WRITE, /* items → behind what is written of the partition. 0: tail (and sealed) filled in, readable by STREAM_READ */
    STREAM_READ, /* from `first` on, below `until` → items, next */
    STREAM_FETCH, /* a part of the block `fetch` (core/fetch.h): for each row that is FETCH_OK, of what it is asked below `until`:
                     whole batches, from the one with `offset` or the next one on → piece (no file: there is nothing); the first
                     offset not below `offset` that is not older than `time` → offset, time (until: there is none) */
    STREAM_FIND, /* the first offset in [first, until) with a timestamp of at least `timestamp` → next; until: there is none */
    STREAM_SYNC, /* what was written before survives a power cut → tail */
    STREAM_DROP, /* files that end at or below `until` go; UINT64_MAX: all, the stream was deleted. Not answered, freed by the store */
    /* Compaction of a keyed stream: one partition at a time, of sealed and synced files only. */
    STREAM_KEYS, /* remembers the last offset of each key in [first, until) → next: up to there they had room; first == until: forgets all */
    STREAM_REWRITE, /* the files that hold exactly [first, until) (so many: segment_bytes; sum of their generations: bytes_max), without what those keys make superfluous → sealed: one file instead,
                       synced and not in use; its generation is asked for; bytes 0: there is nothing to be won */
    STREAM_REPLACE, /* `sealed` is in use instead of those, which go; until 0: it is given up. Not answered, freed by the store */
};

/* A segment file as far as it is good. base == end: there is none, or it is empty. */
struct stream_extent {
    uint64_t base, end;      /* offsets: of its first record; behind its last */
    uint32_t generation;     /* 0: as written; else a compaction has made it */
    uint64_t bytes;          /* of the file up to there, with its header; 0: no file */
    wall_t first_at, max_at; /* timestamps: of the first record, the highest; 0 without records */
};

struct fetch;

struct stream_item {
    uint64_t offset;
    wall_t timestamp; /* UTC ms; of a batch: when it came */
    struct msg *msg;
};

struct stream_job {
    enum stream_job_type type;
    int err;         /* answer: 0, a negative errno, -EILSEQ: damage */
    uint64_t ticket; /* the core's, opaque to the store */
    uint64_t stream; /* id of its queue */
    uint32_t partition;
    uint32_t count, max; /* items; room for items (READ) */
    uint64_t first,
        next; /* WRITE: of items, which join without a gap (an item with MSG_BATCH covers several offsets). READ answer: everything in [first, next) was looked at */
    uint64_t until;
    wall_t timestamp;       /* FIND; REWRITE: now */
    wall_t found_at;        /* FIND answer: the timestamp of next, -1 if there is none */
    int64_t tombstone_ms;   /* REWRITE: how long a null value is kept once older values of its key are gone */
    uint64_t segment_bytes; /* WRITE: the open segment is sealed and the next begun when it has more than that … */
    wall_t seal_before;     /* … or its first record is older than this (0: never) */
    uint32_t bytes_max;     /* READ: of messages; one is given at least */
    struct aborted
        *aborted; /* READ, KEYS, REWRITE: transactions whose records are passed over, or left out; the job's */
    uint32_t aborted_count;
    struct fetch *fetch;         /* FETCH */
    struct stream_extent tail;   /* the open segment */
    struct stream_extent sealed; /* WRITE: the segment before it, when this write began a new one; else base == end */
    struct stream_item items[];
};

/* A job with room for max items, which are zero. NULL: no memory. Any thread. */
MUST_USE struct stream_job *stream_job_new(enum stream_job_type type, uint32_t max);
/* mine: the calling thread's slab heap. NULL is nothing. */
void stream_job_free(struct slab_heap *mine, struct stream_job **job);

#endif
