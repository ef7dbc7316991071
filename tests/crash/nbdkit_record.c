/* A disk that keeps a log of all that was done to it: each write with its bytes, each flush, in their order.
 *
 *     nbdkit -f -U SOCKET nbdkit_record.so file=DISK log=LOG count=FILE
 *
 * The log is entries back to back: u64 offset, u32 bytes, u32 kind (1 a write, 2 a flush), then a write's bytes; numbers are in
 * this machine's order. count is a file of 24 bytes shared with the test: at 0 the entries that are in the log, at 8 how many of
 * them are flushes, at 16 what the test sets: not 0, and each flush fails (which does nothing and is not logged). Both counts grow before the client hears of the end of its request. So what somebody saw when the count stood at N is
 * a consequence of the first N entries, and a disk on which those happened owes it.
 *
 * DISK itself is written at once. A state of the disk as a power cut leaves it is made afterwards, from its first bytes and the
 * log: all up to some flush, and of the writes behind it any part (tests/crash/replay).
 */
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define THREAD_MODEL NBDKIT_THREAD_MODEL_SERIALIZE_ALL_REQUESTS

enum { ENTRY_WRITE = 1, ENTRY_FLUSH = 2 };

struct entry {
    uint64_t at;
    uint32_t len;
    uint32_t kind;
};

struct count {
    uint64_t entries;
    uint64_t flushes;
    uint64_t failing;
};

static char *disk_path, *log_path, *count_path;
static int disk = -1, log_fd = -1;
static int64_t disk_bytes;
static volatile struct count *count;

static int record_config(const char *key, const char *value)
{
    char **path = strcmp(key, "file") == 0    ? &disk_path
                  : strcmp(key, "log") == 0   ? &log_path
                  : strcmp(key, "count") == 0 ? &count_path
                                              : NULL;
    if (!path) {
        nbdkit_error("unknown parameter %s", key);
        return -1;
    }
    *path = nbdkit_absolute_path(value);
    return *path ? 0 : -1;
}

static int record_get_ready(void)
{
    struct stat st;
    int fd = count_path ? open(count_path, O_RDWR | O_CLOEXEC) : -1;
    disk = disk_path ? open(disk_path, O_RDWR | O_CLOEXEC) : -1;
    log_fd = log_path ? open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    if (fd < 0 || disk < 0 || log_fd < 0 || fstat(disk, &st) < 0) {
        nbdkit_error("file=DISK, log=LOG and count=FILE (24 bytes) are needed: %m");
        return -1;
    }
    void *at = mmap(NULL, sizeof *count, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (at == MAP_FAILED) {
        nbdkit_error("map %s: %m", count_path);
        return -1;
    }
    count = at;
    disk_bytes = st.st_size;
    return 0;
}

static void *record_open(int readonly)
{
    (void)readonly;
    return NBDKIT_HANDLE_NOT_NEEDED;
}

static int64_t record_get_size(void *handle)
{
    (void)handle;
    return disk_bytes;
}

static int record_can_fua(void *handle)
{
    (void)handle;
    return NBDKIT_FUA_EMULATE; /* a flush after the write */
}

static int record_can_multi_conn(void *handle)
{
    (void)handle;
    return 1; /* one log for all connections */
}

/* A log that lacks an entry would make states that never were: it ends here and the test sees a dead disk. */
static int note(uint32_t kind, uint64_t at, const void *bytes, uint32_t len)
{
    struct entry entry = {.at = at, .len = len, .kind = kind};
    struct iovec parts[2] = {{&entry, sizeof entry}, {(void *)bytes, len}};
    if (writev(log_fd, parts, 2) != (ssize_t)(sizeof entry + len)) {
        nbdkit_error("write %s: %m", log_path);
        _exit(1);
    }
    count->flushes += kind == ENTRY_FLUSH;
    count->entries++;
    return 0;
}

static int record_pread(void *handle, void *buf, uint32_t len, uint64_t offset, uint32_t flags)
{
    (void)handle;
    (void)flags;
    if (pread(disk, buf, len, (off_t)offset) != (ssize_t)len) {
        nbdkit_error("read %s: %m", disk_path);
        return -1;
    }
    return 0;
}

static int record_pwrite(void *handle, const void *buf, uint32_t len, uint64_t offset, uint32_t flags)
{
    (void)handle;
    (void)flags;
    if (pwrite(disk, buf, len, (off_t)offset) != (ssize_t)len) {
        nbdkit_error("write %s: %m", disk_path);
        return -1;
    }
    return note(ENTRY_WRITE, offset, buf, len);
}

static int record_flush(void *handle, uint32_t flags)
{
    (void)handle;
    (void)flags;
    if (count->failing) {
        nbdkit_error("a flush fails, as the test wants it");
        nbdkit_set_error(EIO);
        return -1;
    }
    return note(ENTRY_FLUSH, 0, NULL, 0);
}

static struct nbdkit_plugin plugin = {
    .name = "record",
    .config = record_config,
    .get_ready = record_get_ready,
    .open = record_open,
    .get_size = record_get_size,
    .can_fua = record_can_fua,
    .can_multi_conn = record_can_multi_conn,
    .pread = record_pread,
    .pwrite = record_pwrite,
    .flush = record_flush,
};

NBDKIT_REGISTER_PLUGIN(plugin)
