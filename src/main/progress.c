/* Progress of long work, see progress.h. One thread. */
#include "main/progress.h"

#include "os/os_process.h"

#include <inttypes.h>

#define BAR_CELLS 30u
#define BAR_EVERY (NS_PER_S / 10)
#define LINE_EVERY (5 * NS_PER_S)

void progress_bytes(uint64_t bytes, char *ret, size_t len)
{
    static const char *const units[] = {"B", "KB", "MB", "GB", "TB"};
    double value = (double)bytes;
    unsigned unit = 0;
    while (value >= 1000 && unit + 1 < ARRAY_LEN(units)) {
        value /= 1000;
        unit++;
    }
    snprintf(ret, len, unit && value < 10 ? "%.1f %s" : "%.0f %s", value, units[unit]);
}

static void left_text(uint64_t seconds, char *ret, size_t len)
{
    if (seconds < 60)
        snprintf(ret, len, "%" PRIu64 " s", seconds);
    else if (seconds < 3600)
        snprintf(ret, len, "%" PRIu64 " min %" PRIu64 " s", seconds / 60, seconds % 60);
    else
        snprintf(ret, len, "%" PRIu64 " h %" PRIu64 " min", seconds / 3600, seconds / 60 % 60);
}

void progress_text(const char *part, uint64_t done, uint64_t total, mono_t took, char *ret, size_t len)
{
    char have[32], all[32], rate[32], left[48];
    double seconds = (double)took / (double)NS_PER_S;
    double per_second = seconds > 0 ? (double)done / seconds : 0;
    uint64_t remaining = per_second > 0 && total > done ? (uint64_t)((double)(total - done) / per_second + 0.5) : 0;
    progress_bytes(done, have, sizeof have);
    progress_bytes(total, all, sizeof all);
    progress_bytes((uint64_t)per_second, rate, sizeof rate);
    left_text(remaining, left, sizeof left);
    snprintf(ret, len, "%s: %s of %s, %s/s, %s left", part, have, all, rate, left);
}

void progress_init(struct progress *progress, struct os *os, bool quiet)
{
    *progress = (struct progress){.os = os, .to = quiet ? NULL : stderr, .bar = os_is_terminal(2)};
}

static void draw(struct progress *progress, const char *text, uint64_t done, uint64_t total)
{
    unsigned full = total ? (unsigned)(BAR_CELLS * (done < total ? done : total) / total) : BAR_CELLS;
    fputs("\r[", progress->to);
    for (unsigned i = 0; i < BAR_CELLS; i++)
        fputc(i < full ? '#' : '.', progress->to);
    fprintf(progress->to, "] %s\033[K", text);
    fflush(progress->to);
    progress->drawn = true;
}

void progress_show(struct progress *progress, const char *part, uint64_t done, uint64_t total)
{
    if (!progress->to)
        return;
    mono_t now = progress->os->now_mono(progress->os);
    if (strcmp(part, progress->part) != 0) {
        snprintf(progress->part, sizeof progress->part, "%s", part);
        progress->began = progress->shown = now;
    }
    if (now < progress->shown + (progress->bar ? BAR_EVERY : LINE_EVERY))
        return;
    char text[200];
    progress->shown = now;
    progress_text(part, done, total, now - progress->began, text, sizeof text);
    if (progress->bar)
        draw(progress, text, done, total);
    else
        fprintf(progress->to, "%s\n", text);
}

void progress_clear(struct progress *progress)
{
    if (!progress->drawn)
        return;
    fputs("\r\033[K", progress->to);
    fflush(progress->to);
    progress->drawn = false;
}

void progress_end(struct progress *progress)
{
    progress_clear(progress);
    progress->to = NULL;
}
