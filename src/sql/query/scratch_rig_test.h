/* scratch_rig_test: a disk in memory for tests of what is spilled; the n-th call to it fails when that is asked for. */
#ifndef MILLRACE_SQL_QUERY_SCRATCH_RIG_TEST_H
#define MILLRACE_SQL_QUERY_SCRATCH_RIG_TEST_H

#include "sql/query/scratch.h"

#include <stdlib.h>

struct memory_disk {
    struct scratch_disk disk;
    uint8_t *bytes;
    size_t len;
    unsigned open;
    uint64_t calls, fail_at; /* 0: never */
    enum sql_fault fault;    /* of a write that fails */
};

static inline bool memory_disk_fails(struct memory_disk *d)
{
    return ++d->calls == d->fail_at;
}

static inline void *memory_disk_open(void *arg)
{
    struct memory_disk *d = arg;
    if (memory_disk_fails(d))
        return NULL;
    d->open++;
    return d;
}

static inline enum sql_fault memory_disk_write(void *file, uint64_t at, const void *bytes, size_t len)
{
    struct memory_disk *d = file;
    if (memory_disk_fails(d))
        return d->fault;
    if (at + len > d->len) {
        d->bytes = realloc(d->bytes, at + len);
        d->len = at + len;
    }
    memcpy(d->bytes + at, bytes, len);
    return SQL_FAULT_NONE;
}

static inline bool memory_disk_read(void *file, uint64_t at, void *ret, size_t len)
{
    struct memory_disk *d = file;
    if (memory_disk_fails(d) || at + len > d->len)
        return false;
    memcpy(ret, d->bytes + at, len);
    return true;
}

static inline void memory_disk_close(void *file)
{
    struct memory_disk *d = file;
    d->open--;
    free(d->bytes);
    d->bytes = NULL;
    d->len = 0;
}

static inline void memory_disk_init(struct memory_disk *d)
{
    *d = (struct memory_disk){.disk = {.arg = d,
                                       .open = memory_disk_open,
                                       .write = memory_disk_write,
                                       .read = memory_disk_read,
                                       .close = memory_disk_close},
                              .fault = SQL_FAULT_SCRATCH_LOST};
}

#endif
