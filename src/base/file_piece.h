/* file_piece: a run of bytes of an open file, which its holder keeps open: a counted handle, a position, a length.
 *
 * Life cycle of a handle: made with one reference by whoever opens the file (os/os_file.h) → counted_file_ref |
 * counted_file_unref …, on any thread; the last one closes the file. The file may have lost its name meanwhile. A piece owns one
 * reference: file_piece_fini gives it back, and a piece without file has none.
 */
#ifndef MILLRACE_BASE_FILE_PIECE_H
#define MILLRACE_BASE_FILE_PIECE_H

#include "base/check.h"
#include "base/types.h"

#include <stdatomic.h>

struct counted_file {
    _Atomic uint32_t refs;
    _Atomic bool orphan; /* it has no name any more: its room on the disk is free when nobody holds it */
    int fd;              /* the system's, for sendfile; -1: the file is not one of the system's, only `read` reads it */
    /* At most len bytes from `at` on, fewer only at the end of the file; or a negative errno. Any thread, several at once. */
    int64_t (*read)(struct counted_file *handle, void *ret, size_t len, uint64_t at);
    void (*close)(struct counted_file *handle); /* frees it, too */
};

struct file_piece {
    struct counted_file *file; /* NULL: no piece */
    uint64_t position;
    size_t len;
};

static inline struct counted_file *counted_file_ref(struct counted_file *handle)
{
    uint32_t before = atomic_fetch_add_explicit(&handle->refs, 1, memory_order_relaxed);
    CHECK(before > 0 && before < UINT32_MAX);
    return handle;
}

/* NULL is nothing. */
static inline void counted_file_unref(struct counted_file *handle)
{
    if (handle && atomic_fetch_sub_explicit(&handle->refs, 1, memory_order_acq_rel) == 1)
        handle->close(handle);
}

/* Does anybody but the caller, who has one reference, hold it? */
static inline bool counted_file_shared(const struct counted_file *handle)
{
    return atomic_load_explicit(&handle->refs, memory_order_acquire) > 1;
}

static inline void file_piece_fini(struct file_piece *piece)
{
    counted_file_unref(piece->file);
    *piece = (struct file_piece){0};
}

#endif
