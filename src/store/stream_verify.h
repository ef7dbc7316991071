/* stream_verify: one file of a stream from end to end: header, every batch with its checksum and offsets, index and trailer.
 *
 * Reads in pieces, so that no length from a file asks for more memory than a batch may have. Used by the audit and by the
 * scrub. Any one thread.
 */
#ifndef MILLRACE_STORE_STREAM_VERIFY_H
#define MILLRACE_STORE_STREAM_VERIFY_H

#include "core/stream_job.h"
#include "journal/layout.h"
#include "os/os.h"

struct stream_verify {
    struct os *os;
    const uint8_t *uuid; /* the store's, a loan */
    uint64_t stream;
    uint32_t partition;
    struct stream_extent extent; /* what the journal names */
    bool sealed;
    void (*on_bytes)(void *arg, uint64_t bytes); /* may be NULL: so many more were read; may wait */
    void *arg;
    /* answers */
    uint64_t position; /* in the file, of what is wrong */
    uint64_t offset;   /* records from here on */
    uint64_t records;  /* before: fewer than offsets where a compaction was */
    bool head_bad;     /* a start refuses: header, or too short */
    const char *what;
};

/* 0: good; -EILSEQ: damaged; another negative errno: not readable. fd is the file's. */
MUST_USE int stream_verify(struct stream_verify *verify, int fd);

#endif
