/* What the table of os.h promises of the real calls: an interrupted one is repeated, a short read or write is continued, and
 * every error comes back as it is. Each call of libc that os_posix.c makes is failed here, by functions of its name in this
 * program that come before those of the library. */
#include "os/os.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

enum call {
    NO_CALL,
    OPEN,
    CLOSE,
    PREAD,
    PWRITE,
    FDATASYNC,
    FSYNC,
    FSTAT,
    FTRUNCATE,
    RENAME,
    UNLINK,
    MKDIR,
    OPENDIR,
    READDIR,
    FLOCK,
    STATVFS,
    CALL_COUNT
};

/* These functions may be called before a sanitizer has set itself up, or while it ends. */
#define BARE __attribute__((no_sanitize("address"))) __attribute__((no_sanitize("thread")))

/* What the next calls of one kind do: fail so many times, or read and write so few bytes. */
static enum call failing;
static int fail_errno, fail_times;
static size_t short_bytes;
static unsigned calls[CALL_COUNT];

BARE static bool fails(enum call call)
{
    calls[call]++;
    if (call != failing || fail_times == 0)
        return false;
    fail_times--;
    errno = fail_errno;
    return true;
}

static void fail_next(enum call call, int err, int times)
{
    failing = call;
    fail_errno = err;
    fail_times = times;
}

BARE static size_t part_of(size_t len)
{
    return short_bytes && len > short_bytes ? short_bytes : len;
}

BARE int open(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
    va_end(args);
    return fails(OPEN) ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

BARE int close(int fd)
{
    return fails(CLOSE) ? -1 : (int)syscall(SYS_close, fd);
}

BARE ssize_t pread(int fd, void *ret, size_t len, off_t offset)
{
    return fails(PREAD) ? -1 : syscall(SYS_pread64, fd, ret, part_of(len), offset);
}

BARE ssize_t pwrite(int fd, const void *bytes, size_t len, off_t offset)
{
    return fails(PWRITE) ? -1 : syscall(SYS_pwrite64, fd, bytes, part_of(len), offset);
}

BARE int fdatasync(int fd)
{
    return fails(FDATASYNC) ? -1 : (int)syscall(SYS_fdatasync, fd);
}

BARE int fsync(int fd)
{
    return fails(FSYNC) ? -1 : (int)syscall(SYS_fsync, fd);
}

BARE int fstat(int fd, struct stat *ret)
{
    return fails(FSTAT) ? -1 : fstatat(fd, "", ret, AT_EMPTY_PATH);
}

BARE int ftruncate(int fd, off_t size)
{
    return fails(FTRUNCATE) ? -1 : (int)syscall(SYS_ftruncate, fd, size);
}

BARE int rename(const char *from, const char *to)
{
    return fails(RENAME) ? -1 : renameat(AT_FDCWD, from, AT_FDCWD, to);
}

BARE int unlink(const char *path)
{
    return fails(UNLINK) ? -1 : unlinkat(AT_FDCWD, path, 0);
}

BARE int mkdir(const char *path, mode_t mode)
{
    return fails(MKDIR) ? -1 : mkdirat(AT_FDCWD, path, mode);
}

BARE DIR *opendir(const char *path)
{
    if (fails(OPENDIR))
        return NULL;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    return fd < 0 ? NULL : fdopendir(fd);
}

BARE struct dirent *readdir(DIR *dir)
{
    return fails(READDIR) ? NULL : (struct dirent *)readdir64(dir);
}

BARE int flock(int fd, int how)
{
    return fails(FLOCK) ? -1 : (int)syscall(SYS_flock, fd, how);
}

BARE int statvfs(const char *path, struct statvfs *ret)
{
    (void)path;
    if (fails(STATVFS))
        return -1;
    *ret = (struct statvfs){.f_frsize = 1, .f_blocks = 9, .f_bavail = 4};
    return 0;
}

/* ---- a folder, and one call of the table by name ---- */

static char folder[64], file[80], other[80];

static int set_up(void **state)
{
    (void)state;
    memset(calls, 0, sizeof calls);
    fail_next(NO_CALL, 0, 0);
    short_bytes = 0;
    snprintf(folder, sizeof folder, "/tmp/mr-os-posix-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    snprintf(file, sizeof file, "%s/file", folder);
    snprintf(other, sizeof other, "%s/other", folder);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    fail_next(NO_CALL, 0, 0);
    (void)unlinkat(AT_FDCWD, file, 0);
    (void)unlinkat(AT_FDCWD, other, AT_REMOVEDIR);
    (void)unlinkat(AT_FDCWD, other, 0);
    return unlinkat(AT_FDCWD, folder, AT_REMOVEDIR);
}

static int count_name(void *arg, const char *name)
{
    (void)name;
    ++*(unsigned *)arg;
    return 0;
}

static int opened(struct os *os)
{
    int fd = -1;
    assert_int_equal(os->open(os, file, OS_WRITE | OS_CREATE, &fd), 0);
    return fd;
}

/* The function of the table that makes this call; its result. */
static int64_t ask(struct os *os, enum call call, int fd)
{
    uint8_t bytes[100] = {1};
    uint64_t n, m;
    unsigned count = 0;
    int ret = -1, err;
    switch (call) {
    case OPEN:
        err = os->open(os, file, OS_WRITE, &ret);
        if (!err)
            (void)syscall(SYS_close, ret);
        return err;
    case CLOSE: return os->close(os, fd);
    case PREAD: return os->pread(os, fd, bytes, sizeof bytes, 0);
    case PWRITE: return os->pwrite(os, fd, bytes, sizeof bytes, 0);
    case FDATASYNC: return os->fdatasync(os, fd);
    case FSYNC: return os->sync_dir(os, folder);
    case FSTAT: return os->size(os, fd, &n);
    case FTRUNCATE: return os->truncate(os, fd, 100);
    case RENAME: return os->rename(os, file, file);
    case UNLINK: return os->unlink(os, file);
    case MKDIR: return os->mkdir(os, other);
    case OPENDIR:
    case READDIR: return os->list(os, folder, count_name, &count);
    case FLOCK: return os->lock(os, fd);
    case STATVFS: return os->space(os, folder, &n, &m);
    default: return -1;
    }
}

/* ---- tests ---- */

static void errors_come_back(void **state)
{
    static const int errors[] = {EIO, ENOSPC, EMFILE, EROFS};
    struct os *os = os_posix();
    (void)state;
    for (int call = OPEN; call < CALL_COUNT; call++)
        for (size_t i = 0; i < ARRAY_LEN(errors); i++) {
            int fd = opened(os);
            unsigned before = calls[call];
            fail_next((enum call)call, errors[i], 1);
            int64_t r = ask(os, (enum call)call, fd);
            if (r != -errors[i] || fail_times || calls[call] != before + 1)
                fail_msg("call %d with %d: %ld after %u calls", call, errors[i], (long)r, calls[call] - before);
            (void)syscall(SYS_close, fd);
        }
}

/* Those that the kernel may interrupt; close is not repeated, since the descriptor is gone. */
static void interrupted_calls_are_repeated(void **state)
{
    static const enum call interruptible[] = {OPEN, PREAD, PWRITE, FDATASYNC, FSYNC, FTRUNCATE};
    struct os *os = os_posix();
    int fd = opened(os);
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(interruptible); i++) {
        enum call call = interruptible[i];
        unsigned before = calls[call];
        fail_next(call, EINTR, 3);
        int64_t r = ask(os, call, fd);
        if (r < 0 || fail_times || calls[call] < before + 4)
            fail_msg("call %d: %ld after %u calls", call, (long)r, calls[call] - before);
    }
    fail_next(OPEN, EINTR, 3); /* of the folder */
    assert_int_equal(os->sync_dir(os, folder), 0);
    fail_next(CLOSE, EINTR, 1);
    assert_int_equal(os->close(os, fd), 0);
    assert_int_equal(fail_times, 0);
    (void)syscall(SYS_close, fd);
}

static void short_ones_are_continued(void **state)
{
    struct os *os = os_posix();
    uint8_t bytes[1000], back[1200];
    int fd = opened(os);
    (void)state;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 7);
    for (short_bytes = 1; short_bytes < 1000; short_bytes = short_bytes * 3 + 1) {
        memset(back, 0, sizeof back);
        assert_int_equal(os->pwrite(os, fd, bytes, sizeof bytes, 50), 0);
        assert_int_equal(os->pread(os, fd, back, sizeof back, 50),
                         sizeof bytes); /* shorter at the end of the file only */
        assert_memory_equal(back, bytes, sizeof bytes);
    }
    /* An error behind a part of it is an error. */
    short_bytes = 10;
    fail_next(PWRITE, ENOSPC, 1);
    calls[PWRITE] = 0;
    assert_int_equal(os->pwrite(os, fd, bytes, sizeof bytes, 0), -ENOSPC);
    (void)syscall(SYS_close, fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(errors_come_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(interrupted_calls_are_repeated, set_up, tear_down),
        cmocka_unit_test_setup_teardown(short_ones_are_continued, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
