/* segments: the files seg/s-<16 hex digits>: which there are, the one that is being written, descriptors for reading.
 *
 * Life cycle: segments_open → segments_keep … → segments_sweep → segments_prepare and segments_append, segments_find and
 * segments_read, segments_drop … → segments_close. What is in the bytes is the business of page_format.
 * Thread: the store's only (boot thread before it starts). Every int is 0 or a negative errno; after one `fault` says
 * what failed, for people. Invariants: docs/formats/segments.md section 2; S2, S3 and S4 are kept here.
 */
#ifndef MILLRACE_STORE_SEGMENTS_H
#define MILLRACE_STORE_SEGMENTS_H

#include "core/page.h"
#include "journal/layout.h"
#include "journal/parking.h"
#include "journal/walk.h"
#include "os/os.h"

#define SEGMENTS_READERS 32 /* descriptors kept for reading: a step of reads comes from few files */

struct segment {
    uint32_t number;
    bool begun;    /* in this run */
    uint64_t size; /* begun: end of the last page that is good; else of the file, as it was found */
};

struct segment_reader {
    uint32_t number; /* 0: unused */
    int fd;
    uint64_t used; /* when, in reads */
};

struct segments {
    struct os *os;
    char dir[WAL_PATH_MAX], folder[WAL_PATH_MAX]; /* data folder; its seg */
    uint8_t uuid[LAYOUT_UUID_LEN];
    uint64_t bytes_max; /* multiple of the block */

    struct segment *files; /* those that are named or were begun; by number once swept */
    size_t files_len, files_cap;
    uint32_t next; /* number of the next new file; 0: there are no more numbers */

    uint32_t open; /* the one being written, the last of files; 0: none */
    int fd;
    uint64_t offset; /* of the next append; multiple of the block */
    bool named;      /* its name is durable */

    struct segment_reader readers[SEGMENTS_READERS];
    uint64_t reads;
    struct parking parking; /* files without use that somebody is copying */
    uint8_t *block;         /* one, for headers */
    char fault[192];
};

MUST_USE int segments_open(struct segments *segments, struct os *os, const char *dir,
                           const uint8_t uuid[LAYOUT_UUID_LEN], uint64_t bytes_max);
/* -EILSEQ: missing, foreign, damaged or shorter than end; -EPROTO: of a newer format. */
MUST_USE int segments_keep(struct segments *segments, uint32_t number, uint64_t end);
MUST_USE int segments_sweep(struct segments *segments);

/* Makes sure that len bytes can be appended in one piece: seals the open file when they do not fit and begins the next. */
MUST_USE int segments_prepare(struct segments *segments, uint64_t len);
/* The same for a page that is to have the file for itself: nothing else is in it, and it is sealed behind the page. */
MUST_USE int segments_prepare_own(struct segments *segments);
void segments_seal(struct segments *segments);
/* How much may be appended to the open file; at least what was prepared. */
uint64_t segments_room(const struct segments *segments);
/* Writes at segments->offset of segments->open; pages: bytes with a meaning, padded with zeros to whole blocks. sync:
 * durable afterwards, with all that was appended to this file before. An error ends the file: nothing more is written to
 * it, and a file without good pages is removed. */
MUST_USE int segments_append(struct segments *segments, const uint8_t *bytes, size_t pages, bool sync);
/* The same for one page in parts, which are not padded. */
MUST_USE int segments_append_parts(struct segments *segments, const struct slice *parts, unsigned count, bool sync);

/* A descriptor for the file that holds where, a loan until the next call of any function here. -EILSEQ: the file is
 * missing or too short. */
MUST_USE int segments_find(struct segments *segments, const struct page_where *where, int *ret_fd);
/* Fills ret with where->len bytes. */
MUST_USE int segments_read(struct segments *segments, int fd, const struct page_where *where, uint8_t *ret);

/* Removes the file, unless a good page ends behind known_end: then nothing happens. */
MUST_USE int segments_drop(struct segments *segments, uint32_t number, uint64_t known_end);

void segments_close(struct segments *segments);

#endif
