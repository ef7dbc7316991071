/* wal: the journal's files while they are written: current file, the next one, the pool, trimming, the superblock.
 *
 * Life cycle: recover_open (recover.h) fills it → wal_group_write, wal_sync, wal_trim, wal_tend … → wal_close.
 * Thread: the journal's only (boot thread before it starts). Every int is 0 or a negative errno unless said otherwise; an
 * error of group_write, sync or trim is final: the caller stops the journal. Crash tables: docs/formats/journal.md 5, 6.
 */
#ifndef MILLRACE_JOURNAL_WAL_H
#define MILLRACE_JOURNAL_WAL_H

#include "base/types.h"
#include "journal/journal.h"
#include "journal/layout.h"
#include "journal/parking.h"
#include "journal/walk.h"

#define WAL_POOL_MAX 64
#define WAL_FILES_MAX 65536

struct wal_file {
    uint64_t seq;
    lsn_t start_lsn;
    uint64_t used, size; /* of the current file: see struct wal */
};

struct wal {
    struct os *os;
    char dir[WAL_PATH_MAX], folder[WAL_PATH_MAX]; /* data folder; its wal */
    uint64_t file_bytes;
    bool direct;
    int lock_fd;

    struct layout_super super; /* as last written */
    uint32_t epoch;

    struct wal_file *files; /* oldest first; the last is the current one */
    size_t files_len, files_cap;
    int fd;
    uint64_t offset, size; /* next group; length of the file (beyond it a write grows the file) */
    uint32_t chain;
    bool unsynced, no_fill;
    bool final;  /* a sync failed, or a write to blocks that were there: nothing more may be written (J9) */
    bool tight;  /* the disk had no room the last time */
    bool scarce; /* set by the caller: keep no more spares than are needed */

    int next_fd; /* renamed and its name synced; -1: none */
    uint64_t next_size;

    uint64_t pool[WAL_POOL_MAX]; /* numbers of f- files */
    unsigned pool_len;
    uint64_t pool_number; /* next unused */
    int fill_fd;          /* a spare being zero-filled; -1: none */
    uint64_t fill_number, fill_size;
    unsigned rolled; /* files begun since the last trim: how many spares are worth keeping */
    mono_t tend_after;

    struct parking parking; /* files below the start that somebody is copying */
    uint8_t *block;         /* one aligned block for headers and notes */
    uint8_t *zeros;         /* only while filling */
    uint64_t bytes_written, live_bytes;
    bool wrote;      /* a group, in this run */
    char fault[192]; /* what failed last, for people */
};

/* The disk was full, and all is as before the call: the same may be tried again. */
bool wal_may_retry(const struct wal *wal, int err);
/* Bytes that the files at hand still take. */
uint64_t wal_spare(const struct wal *wal);
/* Bytes that can be written although the disk has no room; UINT64_MAX: it has. */
uint64_t wal_ready(const struct wal *wal);
/* A new file may be begun without touching the last spare. */
bool wal_has_spare(const struct wal *wal);

void wal_init(struct wal *wal, const struct journal_options *options);
/* Opens or creates a journal file for writing, by the direct I/O setting. */
MUST_USE int wal_open_file(struct wal *wal, const char *path, unsigned flags, int *ret_fd);
/* Writes super (generation filled in) to the copy whose turn it is, and syncs it. */
MUST_USE int wal_super_write(struct wal *wal, struct layout_super *super);
/* Begins the file after the current one (the first: seq = super.start_seq). must_fit: never one that still has to grow. */
MUST_USE int wal_roll(struct wal *wal, lsn_t start_lsn, bool must_fit);
MUST_USE int wal_file_add(struct wal *wal, const struct wal_file *file);

/* Seals the group in bytes (lsn, len, nrec, durable, note are given) and writes it, rolling over first if need be. bytes has
 * layout_group_bytes(len) of room; what is behind the body is zeroed. Not durable before wal_sync. */
MUST_USE int wal_group_write(struct wal *wal, uint8_t *bytes, struct layout_group *group);
MUST_USE int wal_sync(struct wal *wal);
/* Records the new start, then recycles what is wholly below it. durable: true now. */
MUST_USE int wal_trim(struct wal *wal, lsn_t upto, lsn_t durable);
/* One small step of making files ahead. 1: did something; 0: nothing to do now. Never fails: it tries again later. */
int wal_tend(struct wal *wal);
/* When wal_tend wants to be called again although nothing happens; MONO_NEVER: not. */
mono_t wal_tend_at(const struct wal *wal);
/* Idle: gives one surplus pool file back to the file system. False: there was none. */
bool wal_shrink(struct wal *wal);

/* clean: everything up to durable is synced and nothing else was written. Best effort. */
void wal_close(struct wal *wal, bool clean, lsn_t durable);

#endif
