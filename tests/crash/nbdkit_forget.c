/* A disk that keeps what was written since the last flush in memory, and dies at a chosen write, tearing what it kept.
 *
 *     nbdkit -f -U SOCKET nbdkit_forget.so file=DISK control=FILE [report=FILE]
 *
 * control is a file of 16 bytes that the test and this plug-in share: at 0 the writes that are left until the cut (0: none
 * is planned), at 8 the seed. The test sets them at any time. At the cut each 512-byte sector of each unflushed write is
 * applied or forgotten by the seed, in the order of the writes: so a write may be torn, a later one there without an
 * earlier one, and a sector that was written twice may hold either. Then the process ends without answering.
 *
 * Only the first 4096 bytes are never torn: ext4 keeps its own superblock there, in two sectors under one checksum, and does
 * not mount without it.
 *
 * A flush applies everything to the file. The file itself is not synced: this machine does not lose power.
 */
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define THREAD_MODEL NBDKIT_THREAD_MODEL_SERIALIZE_ALL_REQUESTS
#define SECTOR 512u
#define WHOLE 4096u

struct kept {
    struct kept *next;
    uint64_t at;
    uint32_t len;
    unsigned char bytes[];
};

struct control {
    uint64_t left;
    uint64_t seed;
};

static char *disk_path, *control_path, *report_path;
static int disk = -1;
static int64_t disk_bytes;
static volatile struct control *control;
static struct kept *first, **last = &first;

static int forget_config(const char *key, const char *value)
{
    char **path = strcmp(key, "file") == 0      ? &disk_path
                  : strcmp(key, "control") == 0 ? &control_path
                  : strcmp(key, "report") == 0  ? &report_path
                                                : NULL;
    if (!path) {
        nbdkit_error("unknown parameter %s", key);
        return -1;
    }
    *path = nbdkit_absolute_path(value);
    return *path ? 0 : -1;
}

static int forget_get_ready(void)
{
    struct stat st;
    int fd = control_path ? open(control_path, O_RDWR | O_CLOEXEC) : -1;
    disk = disk_path ? open(disk_path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0 || disk < 0 || fstat(disk, &st) < 0) {
        nbdkit_error("file=DISK and control=FILE (16 bytes) are needed: %m");
        return -1;
    }
    void *at = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (at == MAP_FAILED) {
        nbdkit_error("map %s: %m", control_path);
        return -1;
    }
    control = at;
    disk_bytes = st.st_size;
    return 0;
}

static void *forget_open(int readonly)
{
    (void)readonly;
    return NBDKIT_HANDLE_NOT_NEEDED;
}

static int64_t forget_get_size(void *handle)
{
    (void)handle;
    return disk_bytes;
}

static int forget_can_fua(void *handle)
{
    (void)handle;
    return NBDKIT_FUA_EMULATE; /* a flush after the write */
}

static int forget_can_multi_conn(void *handle)
{
    (void)handle;
    return 1; /* one memory for all connections */
}

static int put(uint64_t at, const void *bytes, size_t len)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = pwrite(disk, (const char *)bytes + done, len - done, (off_t)(at + done));
        if (n <= 0) {
            nbdkit_error("write %s: %m", disk_path);
            return -1;
        }
        done += (size_t)n;
    }
    return 0;
}

static uint64_t draw(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u); /* splitmix64 */
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* How much survives is drawn first, per disk and then per write, so that "all but one", "nearly none" and "half" all occur. */
static void cut(void)
{
    static const unsigned shares[] = {0, 5, 50, 95, 100};
    uint64_t state = control->seed, writes = 0, sectors = 0, applied = 0;
    unsigned mode = (unsigned)(draw(&state) % 6);
    for (struct kept *k = first; k; k = k->next) {
        unsigned share = mode < 5 ? shares[mode] : shares[draw(&state) % 5];
        writes++;
        for (uint32_t at = 0, len; at < k->len; at += len) {
            uint32_t unit = k->at + at < WHOLE ? (uint32_t)(WHOLE - k->at - at) : SECTOR;
            len = k->len - at < unit ? k->len - at : unit;
            sectors++;
            if (draw(&state) % 100 < share && put(k->at + at, k->bytes + at, len) == 0)
                applied++;
        }
    }
    if (report_path) {
        FILE *out = fopen(report_path, "a");
        if (out) {
            fprintf(out, "%llu %llu %llu\n", (unsigned long long)writes, (unsigned long long)sectors,
                    (unsigned long long)applied);
            fclose(out);
        }
    }
    _exit(0);
}

static int forget_pread(void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
    (void)handle;
    (void)flags;
    for (uint32_t done = 0; done < count;) {
        ssize_t n = pread(disk, (char *)buf + done, count - done, (off_t)(offset + done));
        if (n <= 0) {
            nbdkit_error("read %s: %m", disk_path);
            return -1;
        }
        done += (uint32_t)n;
    }
    for (const struct kept *k = first; k; k = k->next) {
        uint64_t from = k->at > offset ? k->at : offset;
        uint64_t to = k->at + k->len < offset + count ? k->at + k->len : offset + count;
        if (from < to)
            memcpy((char *)buf + (from - offset), k->bytes + (from - k->at), to - from);
    }
    return 0;
}

static int forget_pwrite(void *handle, const void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
    (void)handle;
    (void)flags;
    struct kept *k = malloc(sizeof *k + count);
    if (!k) {
        nbdkit_error("no memory");
        nbdkit_set_error(ENOMEM);
        return -1;
    }
    *k = (struct kept){.at = offset, .len = count};
    memcpy(k->bytes, buf, count);
    *last = k;
    last = &k->next;
    if (control->left && --control->left == 0)
        cut();
    return 0;
}

static int forget_flush(void *handle, uint32_t flags)
{
    (void)handle;
    (void)flags;
    while (first) {
        struct kept *k = first;
        if (put(k->at, k->bytes, k->len) < 0)
            return -1;
        first = k->next;
        free(k);
    }
    last = &first;
    return 0;
}

static struct nbdkit_plugin plugin = {
    .name = "forget",
    .config = forget_config,
    .get_ready = forget_get_ready,
    .open = forget_open,
    .get_size = forget_get_size,
    .can_fua = forget_can_fua,
    .can_multi_conn = forget_can_multi_conn,
    .pread = forget_pread,
    .pwrite = forget_pwrite,
    .flush = forget_flush,
};

NBDKIT_REGISTER_PLUGIN(plugin)
