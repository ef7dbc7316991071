/* The fdatasync probe.
 *
 * A confirm can not be faster than the sync under it, so latency is reported beside the sync time of the same disk in
 * the same minute. The file is written full of zeros and synced first: overwriting allocated blocks changes no metadata,
 * which is the cheapest sync a file system offers and what a journal of recycled files does. Writes go to the next 4 KiB
 * each time and wrap around.
 */
#include "probe.h"

#include "main/client/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FILE_BYTES = 16 << 20, BLOCK_BYTES = 4096 };

static int write_block(int fd, unsigned char fill, uint64_t at)
{
    unsigned char block[BLOCK_BYTES];
    memset(block, fill, sizeof(block));
    ssize_t n = pwrite(fd, block, sizeof(block), (off_t)at);
    if (n >= 0 && n != (ssize_t)sizeof(block))
        errno = ENOSPC;
    return n == (ssize_t)sizeof(block) ? 0 : -1;
}

int bench_probe_open(struct bench_probe *p, const char *dir)
{
    char path[4096];
    if (snprintf(path, sizeof(path), "%s/bench-probe-XXXXXX", dir) >= (int)sizeof(path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    p->at = 0;
    p->fd = mkostemp(path, O_CLOEXEC);
    if (p->fd < 0)
        return -1;
    unlink(path);
    for (uint64_t at = 0; at < FILE_BYTES; at += BLOCK_BYTES)
        if (write_block(p->fd, 0, at) != 0) {
            bench_probe_close(p);
            return -1;
        }
    if (fsync(p->fd) != 0) {
        bench_probe_close(p);
        return -1;
    }
    return 0;
}

int bench_probe_sync(struct bench_probe *p, uint64_t *ret_took_ns)
{
    uint64_t from_ns = client_clock_ns();
    if (write_block(p->fd, (unsigned char)(1 + p->at / BLOCK_BYTES % 255), p->at) != 0 || fdatasync(p->fd) != 0)
        return -1;
    *ret_took_ns = client_clock_ns() - from_ns;
    p->at = (p->at + BLOCK_BYTES) % FILE_BYTES;
    return 0;
}

void bench_probe_close(struct bench_probe *p)
{
    int problem = errno;
    if (p->fd >= 0)
        close(p->fd);
    p->fd = -1;
    errno = problem;
}
