/* scratch: the file in which a query keeps what it has no memory for (docs/decisions/0014): blocks, each written once, read, and given back.
 *
 *   scratch_init ▸ { scratch_put ▸ scratch_read* ▸ scratch_give }* ▸ scratch_fini
 *
 * There is no file before the first block and none when no block is out. It means nothing after the query's end. What has failed stays so: fault says
 * how, and the query has ended. One thread.
 */
#ifndef MILLRACE_SQL_QUERY_SCRATCH_H
#define MILLRACE_SQL_QUERY_SCRATCH_H

#include "sql/language/error.h"

#define SCRATCH_BLOCK (64u * 1024)

/* Where files come from: whoever runs the server gives it, since this folder has no files. Called by the server's thread. */
struct scratch_disk {
    void *arg;
    void *(*open)(void *arg); /* an empty file; NULL: there can be none */
    /* SQL_FAULT_NONE, SCRATCH_FULL (the disk is, or has as little room as it may) or SCRATCH_LOST. */
    enum sql_fault (*write)(void *file, uint64_t at, const void *bytes, size_t len);
    bool (*read)(void *file, uint64_t at, void *ret, size_t len); /* all of it, or false */
    void (*close)(void *file);                                    /* and it is gone */
};

struct scratch_file {
    const struct scratch_disk *disk; /* NULL: nothing can be put there */
    void *file;
    uint64_t max; /* bytes */
    uint32_t *free;
    uint32_t free_count, free_room, end; /* end: blocks of the file */
    enum sql_fault fault;
};

/* The disk is a loan until scratch_fini. */
void scratch_init(struct scratch_file *s, const struct scratch_disk *disk, uint64_t max);
void scratch_fini(struct scratch_file *s);
/* SCRATCH_BLOCK bytes into a block that is yours from now on. False: fault says why. */
MUST_USE bool scratch_put(struct scratch_file *s, const void *block, uint32_t *ret_number);
MUST_USE bool scratch_read(struct scratch_file *s, uint32_t number, uint32_t at, void *ret,
                           size_t len); /* within one block */
void scratch_give(struct scratch_file *s, uint32_t number);
bool scratch_fail(struct scratch_file *s, enum sql_fault fault); /* the first one stays; false */

static inline uint64_t scratch_bytes(const struct scratch_file *s)
{
    return (uint64_t)(s->end - s->free_count) * SCRATCH_BLOCK;
}

#endif
