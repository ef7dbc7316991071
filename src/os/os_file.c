/* Counted handles, see os_file.h. Any thread: a handle does not change between its birth and its last unref. */
#include "os/os_file.h"

#include "base/mem.h"

struct os_file {
    struct counted_file handle; /* first */
    struct os *os;
    int fd;
};

static int64_t file_read(struct counted_file *handle, void *ret, size_t len, uint64_t at)
{
    const struct os_file *file = (const struct os_file *)handle;
    return file->os->pread(file->os, file->fd, ret, len, at);
}

static void file_close(struct counted_file *handle)
{
    struct os_file *file = (struct os_file *)handle;
    file->os->close(file->os, file->fd); /* it was only read: there is nothing that an error could mean */
    mem_free(file);
}

struct counted_file *os_file_new(struct os *os, int fd)
{
    struct os_file *file = mem_alloc(sizeof *file);
    if (!file)
        return NULL;
    *file = (struct os_file){
        .handle = {.refs = 1, .fd = os == os_posix() ? fd : -1, .read = file_read, .close = file_close},
        .os = os,
        .fd = fd};
    return &file->handle;
}
