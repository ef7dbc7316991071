/* stream_files: the files str/<stream>-<partition>-<base>: which there are, the one of each partition that is written,
 * descriptors.
 *
 * Life cycle: stream_files_open → stream_files_keep … → stream_files_sweep → per partition { stream_files_begin?
 * { stream_files_append }* (stream_files_commit | stream_files_cut_back) }*, stream_files_read, stream_files_sync,
 * stream_files_drop … → stream_files_close. What is in the bytes is the business of stream_format and stream_scan.
 * Thread: the streams' only (boot thread before it starts). Every int is 0 or a negative errno; after one `fault` says what
 * failed, for people. Invariants: docs/formats/streams.md section 2; R2, R3 and R4 are kept here.
 */
#ifndef MILLRACE_STORE_STREAM_FILES_H
#define MILLRACE_STORE_STREAM_FILES_H

#include "base/list.h"
#include "base/map.h"
#include "journal/parking.h"
#include "journal/walk.h"
#include "os/os.h"
#include "store/stream_index.h"

#define STREAM_WRITERS_MAX 256u
#define STREAM_READERS_MAX 32u
#define STREAM_LENT_MAX 4096u   /* files of which pieces are lent */
#define STREAM_LENT_KEPT 256u   /* open, above which those that nobody holds make room */
#define STREAM_INDEXES_KEPT 16u /* of sealed files */

struct stream_segment {
    struct stream_extent extent; /* bytes 0: begun, and nothing in it is good yet */
    uint64_t created;            /* in this run: number of its creation; else 0 */
    int16_t writer;              /* its place in files->writers, -1 none */
    int16_t lent;                /* its place in files->lent, -1 none */
    bool dirty;                  /* written since its last sync; then it has a writer */
};

struct stream_partition {
    struct {
        uint64_t stream, partition;
    } key;
    struct stream_segment *segments; /* by base */
    uint32_t len, cap;
    uint32_t dirty; /* segments */
    bool tail;      /* the last of segments is what the core calls the tail; else all are sealed */
    bool open;      /* and it is written on; else the next write begins a file */
    bool indexed;   /* index holds all of the last segment */
    int failed;     /* a sync failed with that: final */
    bool told;      /* and people know */
    bool next_known;
    uint64_t next;             /* offset of the next record, where it is known */
    uint64_t at;               /* open: where the next append goes; before the sweep the size that was found */
    struct stream_index index; /* of the last segment */
    struct {
        uint64_t base, offset, position; /* of its segment; of the batch there. position 0: nowhere */
    } fetched;                           /* where the last fetch ended: a reader at the end begins there */

    /* the queue of streams.c: nothing here reads it */
    uint16_t jobs_first, jobs_last;
    uint32_t jobs_len;
    struct list turn;
};

struct stream_fd {
    struct stream_partition *partition; /* NULL: unused */
    uint64_t base;
    int fd;
    uint64_t used;             /* when, in uses */
    struct counted_file *file; /* lent: fd's owner, of which this has one reference */
};

struct stream_kept_index {
    struct stream_partition *partition;
    uint64_t base, used;
    struct stream_index index;
};

struct stream_files {
    struct os *os;
    char dir[WAL_PATH_MAX], folder[WAL_PATH_MAX]; /* data folder; its str */
    uint8_t uuid[LAYOUT_UUID_LEN];
    struct map partitions;
    struct list turns; /* partitions with jobs: streams.c's */
    uint64_t created;  /* files begun in this run */
    uint64_t named;    /* of these the first so many have durable names */
    int folder_failed; /* the folder's sync failed with that: final for names that were not durable then */
    uint64_t count;    /* of files */

    uint32_t writers_max, lent_max, lent_len;
    struct stream_fd writers[STREAM_WRITERS_MAX], readers[STREAM_READERS_MAX], lent[STREAM_LENT_MAX];
    struct stream_kept_index indexes[STREAM_INDEXES_KEPT];
    uint64_t uses;
    struct parking parking; /* files given up that somebody is copying */
    uint8_t *block;         /* one, for headers */
    char path[WAL_PATH_MAX];
    char fault[256];
};

/* writers_max: descriptors for writing, 0: STREAM_WRITERS_MAX. */
MUST_USE int stream_files_open(struct stream_files *files, struct os *os, const char *dir,
                               const uint8_t uuid[LAYOUT_UUID_LEN], uint32_t writers_max);
/* As streams_keep. */
MUST_USE int stream_files_keep(struct stream_files *files, uint64_t stream, uint32_t partition, uint64_t start,
                               const struct stream_extent *sealed, uint32_t count, const struct stream_extent *tail);
MUST_USE int stream_files_sweep(struct stream_files *files);

struct stream_partition *stream_files_find(const struct stream_files *files, uint64_t stream, uint32_t partition);
/* Found or made; NULL: no memory. */
struct stream_partition *stream_files_make(struct stream_files *files, uint64_t stream, uint32_t partition);
/* Frees a partition that has no files. */
void stream_files_forget(struct stream_files *files, struct stream_partition *partition);

/* The segment that holds the offset, else the first behind it; NULL: there is none. */
struct stream_segment *stream_files_at(const struct stream_partition *partition, uint64_t offset);
static inline struct stream_segment *stream_files_last(const struct stream_partition *partition)
{
    return partition->len ? &partition->segments[partition->len - 1] : NULL;
}
/* For sentences: the file's name below the data folder; a loan until the next call. */
const char *stream_files_name(struct stream_files *files, const struct stream_partition *partition, uint64_t base);

/* A file for records from base on, which is now the partition's last: the next append is its beginning, header first. The one
 * before stays as it is until commit. */
MUST_USE int stream_files_begin(struct stream_files *files, struct stream_partition *partition, uint64_t base);
void stream_files_head(const struct stream_files *files, const struct stream_partition *partition,
                       uint8_t ret[LAYOUT_BLOCK]);
MUST_USE int stream_files_append(struct stream_files *files, struct stream_partition *partition, const void *bytes,
                                 size_t len);
/* All that was appended is good: the last segment is this now. */
void stream_files_commit(struct stream_files *files, struct stream_partition *partition,
                         const struct stream_extent *extent);
/* What was appended since the last commit is cut off, a file that was begun is removed. Where that fails nothing more is
 * written to the file. */
void stream_files_cut_back(struct stream_files *files, struct stream_partition *partition);
/* Index and trailer behind the end of a file that is not the last, or will not be; a failure costs nothing but the trailer. */
void stream_files_seal(struct stream_files *files, struct stream_partition *partition, struct stream_segment *segment,
                       const void *trailer, size_t len);

/* Bytes of a segment below extent.bytes, or of its trailer. -EILSEQ: missing, or too short. */
MUST_USE int stream_files_read(struct stream_files *files, struct stream_partition *partition,
                               const struct stream_segment *segment, uint64_t at, void *ret, size_t len);
MUST_USE int stream_files_size(struct stream_files *files, struct stream_partition *partition,
                               const struct stream_segment *segment, uint64_t *ret);

/* The segment's file as a counted handle, which is the same while anybody holds it; a loan until the next call of any function
 * here. The file may be dropped, the handle goes on. -EILSEQ: missing; -EMFILE: as many files as may be are being sent. */
MUST_USE int stream_files_lend(struct stream_files *files, struct stream_partition *partition,
                               struct stream_segment *segment, struct counted_file **ret);

/* Somebody will send these bytes of a file that was lent: they are read from the disk from now on, if they have to be. */
void stream_files_warm(struct stream_files *files, const struct stream_segment *segment, uint64_t at, size_t len);

/* The kept index of a sealed segment, a loan until the next call of any function here; NULL: none is kept. */
struct stream_index *stream_files_index(struct stream_files *files, const struct stream_partition *partition,
                                        uint64_t base);
/* Keeps it and takes what is in it; returns where it is, a loan as above. */
struct stream_index *stream_files_keep_index(struct stream_files *files, struct stream_partition *partition,
                                             uint64_t base, struct stream_index *index);

/* All that was appended to the partition is durable, names included. *ret_syncs counts. A failure is final: partition->failed. */
MUST_USE int stream_files_sync(struct stream_files *files, struct stream_partition *partition, uint64_t *ret_syncs);
/* Removes the first segment if it ends at or below until. *ret_more: it did, and there may be another. */
MUST_USE int stream_files_drop(struct stream_files *files, struct stream_partition *partition, uint64_t until,
                               bool *ret_more);

/* The names of all files that exist are durable. A failure is final for those that are not yet. */
MUST_USE int stream_files_sync_folder(struct stream_files *files);

/* What a compaction makes beside the files that are in use: nothing here knows of it until it replaces them. The name has a
 * generation that no file had before in this run. */
MUST_USE int stream_files_make_copy(struct stream_files *files, const struct stream_name *name, int *ret_fd);
void stream_files_give_up_copy(struct stream_files *files, const struct stream_name *name);
/* The segments that hold exactly [base, end), a loan; NULL: there are none such. */
struct stream_segment *stream_files_run(const struct stream_partition *partition, uint64_t base, uint64_t end,
                                        uint32_t *ret_count);
/* Instead of the segments from extent->base to extent->end this one is read from now on; they are removed (R3). -EINVAL: they
 * are not there; another negative errno: a file could not be removed. */
MUST_USE int stream_files_replace(struct stream_files *files, struct stream_partition *partition,
                                  const struct stream_extent *extent);

void stream_files_close(struct stream_files *files);

#endif
