/* backup: copies the data folder of a running broker, as of a moment, into a new one that a broker can start from.
 *
 * The caller has the broker hold its files (control.h). The journal is read group by group from its start up to an lsn that
 * is durable after the start was read, verified on the way, and written anew byte by byte; superblocks come last, so
 * that nothing is taken for a store before all of it is there. Segments of pages are written once, so those that are no
 * longer written get a second name where the file system can do that, and are copied where it cannot; everything else is
 * copied. See docs/decisions/0003.
 *
 * Any one thread; of another process than the broker's.
 */
#ifndef MILLRACE_STORE_BACKUP_H
#define MILLRACE_STORE_BACKUP_H

#include "base/types.h"
#include "os/os.h"

struct backup_options {
    struct os *os;
    const char *dir, *to; /* the broker's data folder; an empty folder */
    /* Called once, when the superblock has been read: an lsn that is durable now. 0, or a negative errno. What the superblock
     * says of the beginning is true at that lsn only: an earlier one may lie in the middle of the snapshot that begins there. */
    int (*durable)(void *arg, lsn_t *ret);
    bool copy;                 /* no second names: everything is copied */
    uint64_t bytes_per_second; /* 0: as fast as it goes */
    /* done of total bytes; may be NULL */
    void (*on_progress)(void *arg, const char *part, uint64_t done, uint64_t total);
    void (*on_journal)(void *arg); /* the journal is copied: its files need not be held any longer; may be NULL */
    void *arg;
};

struct backup_result {
    uint64_t journal_files, journal_bytes, records;
    uint64_t files_linked, files_copied, bytes_copied;
};

/* 0: all of it is in `to`, synced; -EILSEQ: the broker's journal is damaged; another negative errno. why: a sentence. */
MUST_USE int backup(const struct backup_options *options, struct backup_result *ret, char *why, size_t why_len);

#endif
