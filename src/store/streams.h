/* streams: carries out stream jobs (core/stream_job.h): writes messages of streams to segment files, reads them back, finds
 * times, syncs, removes files.
 *
 * Life cycle: streams_open → streams_keep for every partition that the replayed journal names → streams_sweep →
 * streams_start (a thread) or calls of streams_step (tests, simulator) → streams_submit, streams_take … → streams_stop →
 * streams_close.
 *
 * Format and invariants: docs/formats/streams.md. Nothing is decided here: which streams there are and where they begin the
 * core says. Every job but STREAM_DROP and STREAM_REPLACE is finished exactly once, in `err` with the reason if it could not be done:
 *   STREAM_WRITE  0: the messages can be read; `tail` is the open segment after them, `sealed` the one before it when this job
 *                 began a new one. A negative errno: nothing of it is to be expected at any place, the messages are
 *                 still the job's, and the same job may be submitted again. What was submitted behind it has then failed too
 *                 (-EINVAL: it does not begin where the partition ends). -EIO: a sync has failed, nothing more is written.
 *                 -EFBIG: more bytes than a file can have. A job without items is answered with the tail.
 *   STREAM_READ   0: items with fresh messages of one reference each, and `next`; no item: there is none below `next`. What was
 *                 dropped meanwhile is stepped over. A negative errno: not one item could be read; -EILSEQ: damage.
 *   STREAM_FETCH  0, and in each row err. 0: `piece`, which is whole batches of one file, not looked into. The first may begin before
 *                 offset; what was dropped meanwhile is stepped over. Without a file: there is no batch, or the next one goes on
 *                 behind until, or has more bytes than there is room. A negative errno as for a read; -EMFILE: the files of too
 *                 many pieces are open. A piece may outlive the streams, not their os.
 *   STREAM_FIND   0: `next`. A negative errno as for a read.
 *   STREAM_SYNC   0: what was written before survives a power cut; `tail` says up to where. A negative errno is final for the
 *                 partition.
 *   STREAM_DROP   not answered, freed here.
 *   STREAM_KEYS, STREAM_REWRITE   as stream_job.h; slowly, beside everything else, one at a time (-EBUSY). -ESTALE: the files are not
 *                 what they were, -ECANCELED: the streams stop; -EILSEQ: one is damaged; nothing has changed then.
 *   STREAM_REPLACE  not answered, freed here.
 * Writes, syncs, drops and replacements of a partition are done in the order they were submitted, so that a drop before a
 * write sees what was then; reads, fetches and finds overtake them all.
 *
 * Threads: as store.h. "owner": the one thread that submits and takes (it may be the streams' own, in on_turn and on_done).
 */
#ifndef MILLRACE_STORE_STREAMS_H
#define MILLRACE_STORE_STREAMS_H

#include "core/stream_job.h"
#include "os/os.h"

#define STREAMS_JOBS_MAX 1024u /* submitted and not taken; also what one streams_submit may find full */
#define STREAMS_UUID_LEN 16

struct streams;

struct streams_options {
    struct os *os;
    const char *dir;                /* data folder; the files live in dir/str */
    uint8_t uuid[STREAMS_UUID_LEN]; /* the journal's */
    uint32_t writers_max;           /* descriptors for writing; 0: 256, which is the most */
    uint32_t lent_max;              /* files of which pieces are lent; 0: 4096, which is the most */
    uint32_t keys_max;              /* places for keys of a compaction, a power of two; 0: 512 Ki */
    uint64_t compact_rate;          /* bytes that a compaction reads in a second; 0: no limit */
    /* All may be NULL; on the streams' thread. As in store.h. */
    void (*on_turn)(void *arg);
    void (*on_done)(void *arg);
    void (*on_fault)(void *arg, int err, const char *sentence);
    void *arg;
};

struct streams_stats {
    uint64_t records_written, records_read, jobs_failed;
    uint64_t bytes_written, bytes_read, syncs;
    uint64_t segments; /* files that exist, as far as is known here */
    uint64_t compact_read, compact_before,
        compact_after; /* bytes: read, of files, and of those that were made of them */
};

/* Makes dir/str when it is absent; dir is there and locked. 0, or a negative errno and a sentence in why. Boot. */
MUST_USE int streams_open(const struct streams_options *options, struct streams **ret, char *why, size_t why_len);

/* The journal names these files of a partition: sealed ones in their order, without gaps, and the tail (base == end: none).
 * Those that end at or below start need not be there. 0; -EILSEQ: a file is missing, not this one or too short (R4);
 * -EPROTO: of a newer format; another negative errno of the disk; with a sentence in why. Once per partition. Boot. */
MUST_USE int streams_keep(struct streams *streams, uint64_t stream, uint32_t partition, uint64_t start,
                          const struct stream_extent *sealed, uint32_t count, const struct stream_extent *tail,
                          char *why, size_t why_len);

/* After the whole journal was read without damage and every partition was kept: cuts the tails to their bytes and removes
 * the other files. 0 or a negative errno with a sentence in why; a file that cannot be removed is no error. Boot. */
MUST_USE int streams_sweep(struct streams *streams, char *why, size_t why_len);

/* Starts the streams' thread. */
MUST_USE int streams_start(struct streams *streams);

/* One turn: all reads that are queued, then about 4 MiB of writes, or one sync, or one file removed; a slice of a compaction. True: it did something. */
bool streams_step(struct streams *streams);

/* Takes the job and NULLs the pointer. False: STREAMS_JOBS_MAX are under way; the job stays the caller's. Owner. */
MUST_USE bool streams_submit(struct streams *streams, struct stream_job **job);
/* The oldest finished job, the caller's; NULL: none. Owner. */
struct stream_job *streams_take(struct streams *streams);

/* While somebody holds no file is removed, though dropped; each on wants its off. Takes effect when streams_held says so. Any
 * thread. */
void streams_hold(struct streams *streams, bool on);
bool streams_held(const struct streams *streams);

/* There may be something to do. No system call when the thread is awake. Any thread. */
void streams_wake(struct streams *streams);

void streams_stats(const struct streams *streams, struct streams_stats *ret); /* Any thread. */

/* Finishes what was submitted and stops the thread; finished jobs can still be taken. Owner. */
void streams_stop(struct streams *streams);

/* Frees all, jobs that nobody took included, and NULLs the pointer. As store_close: messages that were read must be gone. */
void streams_close(struct streams **streams);

#endif
