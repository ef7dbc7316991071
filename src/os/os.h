/* os: everything the broker asks of the operating system's files, clocks and random source, as one struct of functions.
 *
 * There are two implementations: os_posix() (os/os_posix.c) and the simulated disk of the tests. Nothing outside os/
 * makes such system calls itself. Functions return 0 or a count on success and a negative errno on failure; short
 * counts are possible for pread only at end of file (pwrite retries until done or failed).
 * Thread: all functions may be called from any thread; one descriptor belongs to one thread at a time, but for pread, which
 * several may call at once (base/file_piece.h).
 */
#ifndef MILLRACE_OS_OS_H
#define MILLRACE_OS_OS_H

#include "base/types.h"

enum os_open {
    OS_READ = 0,
    OS_WRITE = 1,     /* read and write */
    OS_CREATE = 2,    /* create when absent, mode 0600 */
    OS_EXCLUSIVE = 4, /* with OS_CREATE: fail when present */
    OS_DIRECT = 8,    /* O_DIRECT; -EINVAL where the file system has none */
    OS_TRUNCATE = 16,
};

struct os {
    void *self;

    mono_t (*now_mono)(struct os *os);
    wall_t (*now_wall)(struct os *os);
    void (*random)(struct os *os, void *ret, size_t len);

    int (*open)(struct os *os, const char *path, unsigned flags, int *ret_fd);
    int (*close)(struct os *os, int fd);
    int64_t (*pread)(struct os *os, int fd, void *ret, size_t len, uint64_t offset);
    int (*pwrite)(struct os *os, int fd, const void *bytes, size_t len, uint64_t offset); /* all of it, or an error */
    void (*will_read)(struct os *os, int fd, uint64_t offset, uint64_t len);              /* soon: a hint */
    int (*fdatasync)(struct os *os, int fd); /* an error is final for the file's unsynced pages: never retry */
    int (*size)(struct os *os, int fd, uint64_t *ret_size);
    int (*truncate)(struct os *os, int fd, uint64_t size);
    int (*rename)(struct os *os, const char *from, const char *to); /* not durable until sync_dir */
    int (*link)(struct os *os, const char *from, const char *to);   /* a second name; -EXDEV, -EPERM, …: not there */
    int (*unlink)(struct os *os, const char *path);                 /* a file, or (the real one) an empty folder */
    int (*mkdir)(struct os *os, const char *path);                  /* mode 0700; -EEXIST is an error here too */
    int (*sync_dir)(struct os *os, const char *path);
    int (*list)(struct os *os, const char *path, int (*each)(void *arg, const char *name), void *arg);
    int (*lock)(struct os *os, int fd); /* exclusive, non-blocking; -EWOULDBLOCK when held by another process */
    int (*space)(struct os *os, const char *path, uint64_t *ret_free, uint64_t *ret_total); /* bytes for non-root */
};

/* The real one. Never fails; the struct is constant and shared. */
struct os *os_posix(void);

#endif
