/* stash: pieces of a snapshot in their order, between the query and its stream (docs/decisions/0014): the first ones in memory, the others in a scratch
 * file, so that memory is bounded whatever the state.
 *
 *   stash_init ▸ stash_put* ▸ stash_next* ▸ stash_fini
 *
 * There is no file as long as all of it is in memory. What was read is as it was put, or the stash has failed: fault says how, for good. One thread.
 */
#ifndef MILLRACE_SQL_SERVER_STASH_H
#define MILLRACE_SQL_SERVER_STASH_H

#include "sql/query/scratch.h"

#define STASH_MEMORY (4u << 20)

struct stash {
    const struct scratch_disk *disk;
    size_t memory;        /* bytes that may be in memory */
    struct slice *pieces; /* those, owned; … */
    uint32_t room;
    size_t bytes;
    void *file; /* the others, in a row; NULL: there is none */
    uint64_t end, at;
    uint8_t *buffer; /* a head, and the piece that is written there, or was read last */
    size_t buffer_len;
    uint32_t in_memory, count, given;
    enum sql_fault fault; /* MEMORY, SCRATCH_FULL or SCRATCH_LOST */
};

/* disk is a loan; NULL: all stays in memory, and what is too much of it fails. */
void stash_init(struct stash *s, const struct scratch_disk *disk, size_t memory);
void stash_fini(struct stash *s); /* of zeroes, or of what has ended, is nothing */
/* A copy. False: it has failed, and holds what was put before. */
MUST_USE bool stash_put(struct stash *s, struct slice piece);
/* The next one, which stays until the next call; it is gone then. False: there is none, or it has failed. */
MUST_USE bool stash_next(struct stash *s, struct slice *ret);

#endif
