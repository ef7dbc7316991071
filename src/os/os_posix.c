/* The operating system as it is: libc calls behind the table of os.h. Stateless; any thread.
 *
 * Rules kept here so that nobody above has to know them: interrupted calls are repeated, short reads and writes are
 * continued, every descriptor is close-on-exec, and the result of each call is looked at. fdatasync goes through libc on
 * purpose, so that tools which intercept it (libeatmydata, strace, fault injectors) see what we do. It is repeated only
 * after EINTR, when the kernel has neither written nor reported anything.
 */
#include "os/os.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define WILL_READ_STEP (128 * 1024)

static mono_t posix_now_mono(struct os *os)
{
    (void)os;
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (mono_t)ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

static wall_t posix_now_wall(struct os *os)
{
    (void)os;
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (wall_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void posix_random(struct os *os, void *ret, size_t len)
{
    (void)os;
    uint8_t *at = ret;
    while (len) {
        ssize_t n = getrandom(at, len, 0);
        if (n <= 0)
            continue; /* only EINTR is possible with these flags */
        at += n;
        len -= (size_t)n;
    }
}

static int posix_open(struct os *os, const char *path, unsigned flags, int *ret_fd)
{
    (void)os;
    int how = O_CLOEXEC | (flags & OS_WRITE ? O_RDWR : O_RDONLY);
    if (flags & OS_CREATE)
        how |= O_CREAT;
    if (flags & OS_EXCLUSIVE)
        how |= O_EXCL;
    if (flags & OS_DIRECT)
        how |= O_DIRECT;
    if (flags & OS_TRUNCATE)
        how |= O_TRUNC;
    int fd;
    do
        fd = open(path, how, 0600);
    while (fd < 0 && errno == EINTR);
    if (fd < 0)
        return -errno;
    if (!(flags & OS_WRITE))
        (void)posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL); /* who only reads, reads from end to end */
    *ret_fd = fd;
    return 0;
}

/* Not repeated after EINTR: on Linux the descriptor is gone either way. */
static int posix_close(struct os *os, int fd)
{
    (void)os;
    return close(fd) < 0 && errno != EINTR ? -errno : 0;
}

static int64_t posix_pread(struct os *os, int fd, void *ret, size_t len, uint64_t offset)
{
    (void)os;
    uint8_t *at = ret;
    size_t done = 0;
    while (done < len) {
        ssize_t n = pread(fd, at + done, len - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (int64_t)done;
}

static int posix_pwrite(struct os *os, int fd, const void *bytes, size_t len, uint64_t offset)
{
    (void)os;
    const uint8_t *at = bytes;
    while (len) {
        ssize_t n = pwrite(fd, at, len, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        at += n;
        len -= (size_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

/* The kernel takes no more than its read-ahead window at once. */
static void posix_will_read(struct os *os, int fd, uint64_t offset, uint64_t len)
{
    (void)os;
    for (uint64_t at = 0; at < len; at += WILL_READ_STEP)
        (void)posix_fadvise(fd, (off_t)(offset + at), len - at < WILL_READ_STEP ? (off_t)(len - at) : WILL_READ_STEP,
                            POSIX_FADV_WILLNEED); /* without it reading is slower, no more */
}

static int posix_fdatasync(struct os *os, int fd)
{
    (void)os;
    int r;
    do
        r = fdatasync(fd);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : 0;
}

static int posix_size(struct os *os, int fd, uint64_t *ret_size)
{
    (void)os;
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    *ret_size = (uint64_t)st.st_size;
    return 0;
}

static int posix_truncate(struct os *os, int fd, uint64_t size)
{
    (void)os;
    int r;
    do
        r = ftruncate(fd, (off_t)size);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : 0;
}

static int posix_rename(struct os *os, const char *from, const char *to)
{
    (void)os;
    return rename(from, to) < 0 ? -errno : 0;
}

static int posix_link(struct os *os, const char *from, const char *to)
{
    (void)os;
    return link(from, to) < 0 ? -errno : 0;
}

static int posix_unlink(struct os *os, const char *path)
{
    (void)os;
    int r = unlink(path);
    if (r < 0 && errno == EISDIR)
        r = rmdir(path);
    return r < 0 ? -errno : 0;
}

static int posix_mkdir(struct os *os, const char *path)
{
    (void)os;
    return mkdir(path, 0700) < 0 ? -errno : 0;
}

/* A full fsync: what a folder has to make durable is nothing but metadata. */
static int posix_sync_dir(struct os *os, const char *path)
{
    (void)os;
    int fd, r;
    do
        fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    while (fd < 0 && errno == EINTR);
    if (fd < 0)
        return -errno;
    do
        r = fsync(fd);
    while (r < 0 && errno == EINTR);
    int err = r < 0 ? -errno : 0;
    close(fd);
    return err;
}

static int posix_list(struct os *os, const char *path, int (*each)(void *arg, const char *name), void *arg)
{
    (void)os;
    DIR *dir = opendir(path);
    if (!dir)
        return -errno;
    int r = 0;
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (!entry) {
            r = -errno;
            break;
        }
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        r = each(arg, entry->d_name);
        if (r != 0)
            break;
    }
    closedir(dir);
    return r;
}

static int posix_lock(struct os *os, int fd)
{
    (void)os;
    return flock(fd, LOCK_EX | LOCK_NB) < 0 ? -errno : 0;
}

static int posix_space(struct os *os, const char *path, uint64_t *ret_free, uint64_t *ret_total)
{
    (void)os;
    struct statvfs st;
    if (statvfs(path, &st) < 0)
        return -errno;
    *ret_free = (uint64_t)st.f_bavail * st.f_frsize;
    *ret_total = (uint64_t)st.f_blocks * st.f_frsize;
    return 0;
}

struct os *os_posix(void)
{
    static const struct os posix = {
        .now_mono = posix_now_mono,
        .now_wall = posix_now_wall,
        .random = posix_random,
        .open = posix_open,
        .close = posix_close,
        .pread = posix_pread,
        .pwrite = posix_pwrite,
        .will_read = posix_will_read,
        .fdatasync = posix_fdatasync,
        .size = posix_size,
        .truncate = posix_truncate,
        .rename = posix_rename,
        .link = posix_link,
        .unlink = posix_unlink,
        .mkdir = posix_mkdir,
        .sync_dir = posix_sync_dir,
        .list = posix_list,
        .lock = posix_lock,
        .space = posix_space,
    };
    return (struct os *)&posix; /* nobody writes through it: self is NULL and the functions are stateless */
}
