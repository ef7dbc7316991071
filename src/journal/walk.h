/* walk: reads the journal's groups in order, across files, until they stop continuing each other.
 *
 * Life cycle: walk_open → walk_next … → walk_close. Reads only; one group's worth of memory (1 MiB, up to 4 MiB for
 * such a group). Used by recovery, replay and inspection. Thread: the caller's.
 */
#ifndef MILLRACE_JOURNAL_WALK_H
#define MILLRACE_JOURNAL_WALK_H

#include "base/types.h"
#include "journal/layout.h"
#include "os/os.h"

#define WAL_PATH_MAX 512

struct walk {
    struct os *os;
    const char *wal; /* folder of the files; a loan */
    uint8_t uuid[LAYOUT_UUID_LEN];

    bool in_file;       /* false: there is no valid first file */
    uint64_t first_seq; /* where it began */
    uint64_t seq;       /* file being read; the tail's file at the end */
    uint64_t offset;    /* of the next group; the tail at the end */
    uint64_t size;      /* of the file */
    lsn_t lsn;          /* expected next */
    uint32_t chain;
    uint32_t epoch; /* highest seen */
    struct layout_file head;
    char reason[96]; /* why it ended here */

    /* called with every file whose header was accepted, before its groups; may be NULL */
    int (*on_file)(void *arg, const struct walk *walk);
    void *arg;

    int fd;
    uint8_t *buf; /* bytes [buf_at, buf_at + buf_len) of the file */
    size_t buf_cap, buf_len;
    uint64_t buf_at;
};

/* wal/w-<seq>, wal/f-<number>: writes the path, false when it is too long. */
bool wal_path(char ret[WAL_PATH_MAX], const char *wal, char kind, uint64_t number);
/* The number in such a name; false: it is not one of that kind. */
bool wal_name(const char *name, char kind, uint64_t *ret_number);

/* Starts at file seq, which must hold start_lsn or begin at it. A missing or invalid first file is no error: the walk
 * ends at once. 0 or a negative errno. */
MUST_USE int walk_open(struct walk *walk, struct os *os, const char *wal, const uint8_t uuid[LAYOUT_UUID_LEN],
                       uint64_t seq, lsn_t start_lsn, int (*on_file)(void *arg, const struct walk *walk), void *arg);
/* 1: the next valid group and a loan of its body until the next call; 0: the end; a negative errno of the disk, or
 * on_file's non-zero answer. */
MUST_USE int walk_next(struct walk *walk, struct layout_group *ret, struct slice *ret_body);
/* Makes bytes [offset, offset + len) of the file readable: 1 and a loan until the next call, 0 when the file is shorter, or
 * a negative errno. */
MUST_USE int walk_bytes(struct walk *walk, uint64_t offset, size_t len, const uint8_t **ret);
/* The block at offset, as walk_bytes: 1, 0 at the end of the file, or a negative errno. For looking behind the end. */
MUST_USE int walk_block(struct walk *walk, uint64_t offset, const uint8_t **ret);
void walk_close(struct walk *walk);

#endif
