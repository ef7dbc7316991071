/* What the journal costs by itself, on the disk under a given folder: appended records a second with the thread running, and
 * the latency of one record at a time against a raw 4 KiB pwrite + fdatasync on a zero-filled file, interleaved.
 *
 *     journal_speed [DIR] [SECONDS] [MB]   MB: journal kept before it is trimmed (64). DIR: a folder that may be made (default ./journal-speed), removed by the caller
 *
 * A measurement, not a test; figures hold for the machine they were taken on.
 */
#include "journal/journal.h"

#include "os/thread.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#define RECORD_BYTES 150
#define KICK_RECORDS 64
#define LATENCY_TRIES 4000

struct bench {
    struct os *os;
    struct journal *journal;
    struct os_event progress;
    uint64_t live_max;
    uint8_t record[RECORD_BYTES];
};

static void on_progress(void *arg)
{
    os_event_set(&((struct bench *)arg)->progress);
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void print_latency(const char *name, int64_t *ns, size_t count)
{
    qsort(ns, count, sizeof *ns, compare);
    printf("%-34s p50 %7.1f us  p99 %7.1f us  max %8.1f us\n", name, (double)ns[count / 2] / 1e3,
           (double)ns[count * 99 / 100] / 1e3, (double)ns[count - 1] / 1e3);
}

static void die(const char *what, int err)
{
    fprintf(stderr, "%s: %s\n", what, strerror(-err));
    exit(1);
}

static void open_journal(struct bench *bench, const char *dir)
{
    char why[512];
    struct journal_options options = {.os = bench->os, .dir = dir, .on_progress = on_progress, .arg = bench};
    if (journal_open(&options, &bench->journal, why, sizeof why)) {
        fprintf(stderr, "%s\n", why);
        exit(1);
    }
}

/* One raw commit: what nobody can beat. */
static int64_t raw_commit(struct bench *bench, int fd, const uint8_t *block, uint64_t offset)
{
    mono_t began = bench->os->now_mono(bench->os);
    int err = bench->os->pwrite(bench->os, fd, block, 4096, offset);
    err = err ? err : bench->os->fdatasync(bench->os, fd);
    if (err)
        die("raw write", err);
    return bench->os->now_mono(bench->os) - began;
}

static int64_t one_commit(struct bench *bench)
{
    struct slice part = slice_of(bench->record, RECORD_BYTES);
    mono_t began = bench->os->now_mono(bench->os);
    if (!journal_reserve(bench->journal, RECORD_BYTES, 1))
        die("reserve", -ENOMEM);
    lsn_t lsn = journal_append(bench->journal, &part, 1);
    journal_kick(bench->journal);
    while (journal_durable(bench->journal) < lsn)
        os_event_wait(&bench->progress, -1);
    return bench->os->now_mono(bench->os) - began;
}

static int raw_file(struct bench *bench, const char *dir, bool direct, uint64_t bytes)
{
    char path[512];
    snprintf(path, sizeof path, "%s/raw-%d", dir, direct);
    int fd, err = bench->os->open(bench->os, path, OS_WRITE | OS_CREATE | (direct ? OS_DIRECT : 0), &fd);
    if (err)
        die(path, err);
    uint8_t *zeros = aligned_alloc(4096, 1 << 20);
    memset(zeros, 0, 1 << 20);
    for (uint64_t at = 0; at < bytes && !err; at += 1 << 20)
        err = bench->os->pwrite(bench->os, fd, zeros, 1 << 20, at);
    err = err ? err : bench->os->fdatasync(bench->os, fd);
    if (err)
        die(path, err);
    free(zeros);
    return fd;
}

static void measure_latency(struct bench *bench, const char *dir)
{
    static int64_t ours[LATENCY_TRIES], direct[LATENCY_TRIES], buffered[LATENCY_TRIES];
    uint64_t bytes = 16u << 20;
    int direct_fd = raw_file(bench, dir, true, bytes), buffered_fd = raw_file(bench, dir, false, bytes);
    uint8_t *block = aligned_alloc(4096, 4096);
    memset(block, 7, 4096);
    for (size_t i = 0; i < LATENCY_TRIES; i++) {
        uint64_t offset = i * 4096 % bytes;
        direct[i] = raw_commit(bench, direct_fd, block, offset);
        ours[i] = one_commit(bench);
        buffered[i] = raw_commit(bench, buffered_fd, block, offset);
    }
    print_latency("raw pwrite + fdatasync, direct", direct, LATENCY_TRIES);
    print_latency("raw pwrite + fdatasync, buffered", buffered, LATENCY_TRIES);
    print_latency("journal, one record at a time", ours, LATENCY_TRIES);
    free(block);
    close(direct_fd);
    close(buffered_fd);
}

static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_utime.tv_sec + (double)usage.ru_stime.tv_sec +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* window 0: as fast as staged_bytes_max lets it; else at most so many records not yet durable. */
static void measure_rate(struct bench *bench, double seconds, lsn_t window)
{
    struct slice part = slice_of(bench->record, RECORD_BYTES);
    struct journal_stats before, after;
    journal_stats(bench->journal, &before);
    double cpu = cpu_seconds();
    mono_t began = bench->os->now_mono(bench->os), end = began + (mono_t)(seconds * 1e9);
    lsn_t trimmed = 0;
    while (bench->os->now_mono(bench->os) < end) {
        while (!journal_room(bench->journal) ||
               (window && journal_appended(bench->journal) + KICK_RECORDS > journal_durable(bench->journal) + window))
            os_event_wait(&bench->progress, -1);
        if (!journal_reserve(bench->journal, KICK_RECORDS * RECORD_BYTES, KICK_RECORDS))
            die("reserve", -ENOMEM);
        for (int i = 0; i < KICK_RECORDS; i++)
            journal_append(bench->journal, &part, 1);
        journal_kick(bench->journal);
        if (journal_live_bytes(bench->journal) > bench->live_max &&
            journal_durable(bench->journal) > trimmed + 400000) {
            trimmed = journal_durable(bench->journal);
            journal_trim(bench->journal, trimmed);
        }
    }
    double took = (double)(bench->os->now_mono(bench->os) - began) / 1e9;
    journal_stats(bench->journal, &after);
    lsn_t done = after.durable - before.durable;
    printf("window %-7lu %9.0f records/s durable  %6.1f MB/s payload  %6.0f syncs/s  %6.0f records/sync  cpu %.0f "
           "ns/record\n",
           (unsigned long)window, (double)done / took,
           (double)(after.bytes_payload - before.bytes_payload) / took / 1e6,
           (double)(after.syncs - before.syncs) / took, (double)done / (double)(after.syncs - before.syncs),
           (cpu_seconds() - cpu) / (double)done * 1e9);
}

static int count_bytes(void *arg, lsn_t lsn, struct slice record)
{
    (void)lsn;
    *(uint64_t *)arg += record.len;
    return 0;
}

static void measure_reading(struct bench *bench, const char *dir)
{
    char why[512];
    uint64_t bytes = 0;
    mono_t t0 = bench->os->now_mono(bench->os);
    open_journal(bench, dir);
    mono_t t1 = bench->os->now_mono(bench->os);
    uint64_t live = journal_live_bytes(bench->journal);
    if (journal_read(bench->journal, count_bytes, &bytes, why, sizeof why))
        fprintf(stderr, "%s\n", why);
    mono_t t2 = bench->os->now_mono(bench->os);
    printf("restart: %.1f MB of journal, open %.1f ms, read %.1f ms (%.0f MB/s together)\n", (double)live / 1e6,
           (double)(t1 - t0) / 1e6, (double)(t2 - t1) / 1e6, (double)live / ((double)(t2 - t0) / 1e9) / 1e6);
    journal_close(&bench->journal);
}

int main(int argc, char **argv)
{
    static struct bench bench;
    const char *dir = argc > 1 ? argv[1] : "journal-speed";
    double seconds = argc > 2 ? atof(argv[2]) : 2;
    bench.live_max = (uint64_t)(argc > 3 ? atoi(argv[3]) : 64) << 20;
    bench.os = os_posix();
    mono_t began = bench.os->now_mono(bench.os);
    open_journal(&bench, dir);
    printf("open %.2f ms\n", (double)(bench.os->now_mono(bench.os) - began) / 1e6);
    int err = journal_start(bench.journal);
    if (err)
        die("start", err);
    for (int i = 0; i < 100; i++)
        one_commit(&bench);
    usleep(1500000); /* files are made ahead meanwhile */
    measure_latency(&bench, dir);
    measure_rate(&bench, seconds, 1000);
    measure_rate(&bench, seconds, 10000);
    measure_rate(&bench, seconds, 0);
    err = journal_stop(bench.journal);
    if (err)
        die("stop", err);
    journal_close(&bench.journal);
    measure_reading(&bench, dir);
    return 0;
}
