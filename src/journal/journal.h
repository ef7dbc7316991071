/* journal: the shared journal behind its narrow seam: append, durable, read, trim, claim.
 *
 * Life cycle: journal_open → journal_read (replay, once, before any append) → journal_start (thread) or calls of
 * journal_step (tests, simulator) → journal_append … → journal_stop → journal_close.
 *
 * The core encodes records; the journal sees opaque bytes and gives each a dense lsn. Records are packed into groups
 * (at most about 1 MiB), a group is written with one pwrite and made durable with one fdatasync; what arrives while a
 * sync runs is the next group: there is no timer. Nothing above this folder knows of files, offsets or syncs.
 * Format and invariants: docs/formats/journal.md.
 *
 * Threads: "writer" is the core's thread; "journal" the journal's own thread (or whoever calls journal_step).
 */
#ifndef MILLRACE_JOURNAL_JOURNAL_H
#define MILLRACE_JOURNAL_JOURNAL_H

#include "base/types.h"
#include "os/os.h"

#define JOURNAL_RECORD_BYTES_MAX                                                                                       \
    (512u * 1024) /* payload of one record; longer things are cut into pieces by the core */

struct journal;

enum journal_direct_io { JOURNAL_DIRECT_AUTO, JOURNAL_DIRECT_ON, JOURNAL_DIRECT_OFF };

struct journal_options {
    struct os *os;
    const char *dir; /* data folder; the journal lives in dir/wal and dir/superblock.{a,b} */
    enum journal_direct_io direct_io;
    const uint8_t *uuid;            /* of a journal that is created, 16 bytes; NULL: drawn */
    uint64_t file_bytes;            /* 0: 16 MiB; multiple of 4096 */
    size_t group_bytes_max;         /* 0: 1 MiB */
    size_t staged_bytes_max;        /* 0: 16 MiB; journal_room says no above it; a reservation may overdraw it */
    void (*on_progress)(void *arg); /* called on the journal thread after durable or failed changed; may be NULL */
    void *arg;
};

struct journal_stats {
    lsn_t appended, durable, start;
    uint64_t groups, syncs, bytes_payload, bytes_written;
    uint64_t files; /* that a restart reads */
    uint64_t
        files_pool; /* made ahead, the one that is kept back for a full disk included; 0: the next roll-over may fail */
    uint64_t sync_ns_last, sync_ns_max; /* write and sync of one commit */
    uint64_t tail_zeroed_bytes;         /* at the last open: what lay behind the end and was not zero */
    bool direct_io;
};

/* Opens or creates the journal in dir, finds the valid tail and applies the recovery rule: a torn tail is cut (zeroed and
 * synced), damage below a recorded durable lsn refuses to start. On failure returns a negative errno (-EILSEQ for damage,
 * -EPROTO for a foreign or newer format, -EWOULDBLOCK when another broker has the folder, -EINVAL for options) and a sentence in why that names the file, offset and lsn. Boot thread. */
MUST_USE int journal_open(const struct journal_options *options, struct journal **ret, char *why, size_t why_len);

/* Calls each for every record with start ≤ lsn, in lsn order; stops with each's non-zero answer. Before any append. */
MUST_USE int journal_read(struct journal *journal, int (*each)(void *arg, lsn_t lsn, struct slice record), void *arg,
                          char *why, size_t why_len);

/* Starts the journal's thread. */
MUST_USE int journal_start(struct journal *journal);

/* One turn: seal what is staged, write, sync, publish durable, recycle trimmed files, zero ahead. Returns 1 when it did
 * something, 0 when there was nothing to do, a negative errno when the journal has failed (for good). Journal thread. */
MUST_USE int journal_step(struct journal *journal);

/* Is there room for a new command? False above staged_bytes_max: the core then leaves commands where they are. Writer. */
bool journal_room(const struct journal *journal);

/* Makes sure the next appends of up to bytes payload and count records cannot fail; replaces what is left of an earlier
 * reservation and lasts until the kick. Appends under one reservation of at most group_bytes_max sit in one group: all of
 * them survive a crash or none. False: no memory, and the earlier reservation stands. Writer. */
MUST_USE bool journal_reserve(struct journal *journal, size_t bytes, unsigned count);

/* Copies one record (the parts in order, at most JOURNAL_RECORD_BYTES_MAX) and returns its lsn. Needs a reservation.
 * After the journal has failed the record is dropped and still gets an lsn, which never becomes durable. Writer. */
lsn_t journal_append(struct journal *journal, const struct slice *parts, unsigned count);

/* What is appended from here on will be the beginning after the next trim: it begins a group, and a new file unless the
 * current one is hardly begun, so that the trim gives back everything before it. Ends the reservation. Writer. */
void journal_fresh(struct journal *journal);

/* The writer is done for this tick: wake the journal thread if it sleeps. No system call when it does not. What was
 * appended is written only after a kick (or when its group is full). Writer. */
void journal_kick(struct journal *journal);

/* Everything up to the answer survives a power cut. Any thread. */
lsn_t journal_durable(const struct journal *journal);
lsn_t journal_appended(const struct journal *journal); /* Writer. */

/* 0, or the negative errno that stopped the journal for good. Any thread. */
int journal_failure(const struct journal *journal);
/* What failed, for people; valid once journal_failure is not 0. Any thread. */
const char *journal_failure_text(const struct journal *journal);

/* Records below upto are not needed any more; takes effect in the journal's own time. upto ≤ durable. Writer. */
void journal_trim(struct journal *journal, lsn_t upto);

/* While somebody holds no journal file is removed or used again, though trimmed; each on wants its off. Takes effect when
 * journal_held says so. Any thread. */
void journal_hold(struct journal *journal, bool on);
bool journal_held(const struct journal *journal);

/* Bytes of journal files between start and now: what a restart must read. Any thread. */
uint64_t journal_live_bytes(const struct journal *journal);

/* Bytes that can still be written although the disk has no room for another file; UINT64_MAX: it has. At 0 the journal
 * waits: what is appended becomes durable when there is room again. Any thread. */
uint64_t journal_ready(const struct journal *journal);

/* The disk is nearly full and has that much left: keep few spare files. Any thread. */
void journal_scarce(struct journal *journal, bool scarce, uint64_t disk_free);
/* Bytes that can be written before the journal waits, as far as that is known: while the disk is nearly full, or was found
 * full. Else UINT64_MAX. fresh: less what journal_fresh would leave unused of the current file. Any thread. */
uint64_t journal_capacity(const struct journal *journal, bool fresh);

/* Bytes written to journal files in this run. Any thread. */
uint64_t journal_written(const struct journal *journal);

/* How long commits (write and sync of what is one group, or several) took in this run; a loan for its life. Any thread. */
const struct sync_times *journal_sync_times(const struct journal *journal);
/* 16 bytes that name this journal; a loan for its life. Any thread. */
const uint8_t *journal_uuid(const struct journal *journal);
/* The token of this claim (the epoch): grows with every open. Any thread. */
uint64_t journal_claim(const struct journal *journal);

void journal_stats(const struct journal *journal, struct journal_stats *ret); /* Any thread; appended: the writer's. */

/* Makes everything appended durable and stops the thread. 0 or the failure. Writer. */
int journal_stop(struct journal *journal);

/* Frees all; marks the superblock clean when everything appended is durable. NULLs the pointer. */
void journal_close(struct journal **journal);

#endif
