/* What the disk itself can do: one 4 KiB pwrite + fdatasync at a time on a zero-filled file, as a journal would write.
 *
 * Life cycle: bench_probe_open → bench_probe_sync … → bench_probe_close (the file has no name and vanishes).
 * Thread: one owner; sync blocks. Units: nanoseconds. Errors: -1 with errno set.
 */
#ifndef MAIN_BENCH_PROBE_H
#define MAIN_BENCH_PROBE_H

#include <stdint.h>

struct bench_probe {
    int fd;
    uint64_t at;
};

int bench_probe_open(struct bench_probe *p, const char *dir);
int bench_probe_sync(struct bench_probe *p, uint64_t *ret_took_ns);
void bench_probe_close(struct bench_probe *p);

#endif
