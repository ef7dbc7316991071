/* recover: from a data folder as the last run (or a power cut) left it to a journal that can be appended to.
 *
 * recover_open locks the folder, creates the journal if there is none, finds the tail, applies the recovery rule
 * (docs/formats/journal.md section 4), and fills wal. On failure nothing in the journal was changed, wal is closed, and
 * why holds a sentence: -EILSEQ damage, -EPROTO foreign or newer folder, -EWOULDBLOCK in use, else what the disk said.
 * Thread: boot.
 */
#ifndef MILLRACE_JOURNAL_RECOVER_H
#define MILLRACE_JOURNAL_RECOVER_H

#include "base/types.h"
#include "journal/wal.h"

struct recovered {
    lsn_t next_lsn;     /* the first that the writer will give out */
    uint64_t cut_bytes; /* of a torn tail that were not zero */
};

MUST_USE int recover_open(struct wal *wal, const struct journal_options *options, struct recovered *ret, char *why,
                          size_t why_len);

/* One copy of the superblock as found. */
enum super_state { SUPER_ABSENT, SUPER_GOOD, SUPER_NEWER, SUPER_BROKEN };

/* Reads <dir>/superblock.<letter>. 0 or a negative errno of the disk. */
MUST_USE int recover_super(struct os *os, const char *dir, char letter, enum super_state *ret_state,
                           struct layout_super *ret);

/* The highest lsn that anything but the groups already walked claims to be durable, in any w- file; where: a sentence part,
 * at least 128 bytes. ret_claim is only ever raised. */
MUST_USE int recover_claims(struct walk *walk, lsn_t *ret_claim, char *where, size_t where_len);

#endif
