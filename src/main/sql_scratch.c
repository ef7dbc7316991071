/* Files without a name, see sql_scratch.h. How much room the disk has is asked for every 16 MiB that are written. */
#include "main/sql_scratch.h"

#include "base/mem.h"
#include "main/watch.h"

#include <errno.h>
#include <stdio.h>

#define NAME "sql.scratch"
#define PATH_BYTES 4096
#define LOOK_BYTES (16u << 20)

struct file {
    const struct sql_scratch *scratch;
    int fd;
    uint64_t until_look; /* bytes that may be written before the disk is asked */
};

static bool path_of(const struct sql_scratch *s, char ret[PATH_BYTES])
{
    int len = snprintf(ret, PATH_BYTES, "%s/" NAME, s->dir);
    return len > 0 && len < PATH_BYTES;
}

/* One name for all: it is free again before the next file is made. */
static void *scratch_open(void *arg)
{
    const struct sql_scratch *s = arg;
    char path[PATH_BYTES];
    struct file *f = path_of(s, path) ? mem_zalloc(sizeof *f) : NULL;
    if (!f)
        return NULL;
    f->scratch = s;
    if (s->os->open(s->os, path, OS_WRITE | OS_CREATE | OS_TRUNCATE, &f->fd) < 0) {
        mem_free(f);
        return NULL;
    }
    if (s->os->unlink(s->os, path) < 0) {
        s->os->close(s->os, f->fd);
        mem_free(f);
        return NULL;
    }
    return f;
}

static bool disk_has_room(const struct sql_scratch *s)
{
    uint64_t free_bytes, total;
    return s->os->space(s->os, s->dir, &free_bytes, &total) < 0 || free_bytes > watch_disk_soft(s->free_min, total);
}

static enum sql_fault scratch_write(void *file, uint64_t at, const void *bytes, size_t len)
{
    struct file *f = file;
    struct os *os = f->scratch->os;
    if (f->until_look < len) {
        if (!disk_has_room(f->scratch))
            return SQL_FAULT_SCRATCH_FULL;
        f->until_look = LOOK_BYTES;
    }
    f->until_look -= len;
    int err = os->pwrite(os, f->fd, bytes, len, at);
    return err >= 0                           ? SQL_FAULT_NONE
           : err == -ENOSPC || err == -EDQUOT ? SQL_FAULT_SCRATCH_FULL
                                              : SQL_FAULT_SCRATCH_LOST;
}

static bool scratch_read_at(void *file, uint64_t at, void *ret, size_t len)
{
    struct file *f = file;
    struct os *os = f->scratch->os;
    return os->pread(os, f->fd, ret, len, at) == (int64_t)len;
}

static void scratch_close(void *file)
{
    struct file *f = file;
    f->scratch->os->close(f->scratch->os, f->fd);
    mem_free(f);
}

void sql_scratch_init(struct sql_scratch *scratch, struct os *os, const char *dir, uint64_t free_min)
{
    char path[PATH_BYTES];
    *scratch = (struct sql_scratch){.os = os, .dir = dir, .free_min = free_min};
    scratch->disk = (struct scratch_disk){
        .arg = scratch, .open = scratch_open, .write = scratch_write, .read = scratch_read_at, .close = scratch_close};
    if (path_of(scratch, path))
        (void)os->unlink(os, path); /* nearly always there is none */
}

const struct scratch_disk *sql_scratch_disk(const struct sql_scratch *scratch)
{
    return &scratch->disk;
}
