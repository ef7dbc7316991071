/* salvage: copies what is readable of a damaged data folder into a new one, on which a broker starts.
 *
 * The original is read only. What is lost the audit tells, finding by finding; everything else is in the new folder:
 * records of the journal in their order, but for those that are lost or cannot be applied; pages that are whole, at their
 * places; files of streams, with zeros where something is missing. Messages of lost pages are removed by records, so that
 * the new journal names nothing that is not there.
 *
 * Any one thread.
 */
#ifndef MILLRACE_STORE_SALVAGE_H
#define MILLRACE_STORE_SALVAGE_H

#include "store/audit.h"

struct salvage_options {
    struct audit_options audit; /* os; dir: the original; the hooks hear of both folders' parts */
    const char *to;             /* a folder that is absent or empty */
};

struct salvage_result {
    struct audit_totals original, copy; /* what the audit of each came to */
    int original_verdict;               /* of audit_run: 0, -EILSEQ, … */
    uint64_t records, records_left_out, pages, segments, stream_files, bytes;
};

/* 0: copied, and the copy was verified: original_verdict says whether anything is lost. -EILSEQ: the copy is not good, which
 * is a mistake of ours; -EWOULDBLOCK, -ENOENT: as audit_open; another negative errno. why: a sentence. */
MUST_USE int salvage(const struct salvage_options *options, struct salvage_result *ret, char *why, size_t why_len);

#endif
