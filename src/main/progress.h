/* progress: how far long work is: a bar with rate and remaining time on a terminal, else a plain line now and then. Standard
 * error. Life cycle: progress_init → progress_show again and again, progress_clear before other output → progress_end.
 * One thread.
 */
#ifndef MILLRACE_MAIN_PROGRESS_H
#define MILLRACE_MAIN_PROGRESS_H

#include "base/types.h"
#include "os/os.h"

#include <stdio.h>

struct progress {
    struct os *os;
    FILE *to; /* NULL: shows nothing */
    bool bar;
    bool drawn; /* the bar stands on the line */
    char part[32];
    mono_t began, shown;
};

/* quiet: show nothing. */
void progress_init(struct progress *progress, struct os *os, bool quiet);
/* done of total bytes of this part. Draws ten times a second at most; plain lines every five seconds. */
void progress_show(struct progress *progress, const char *part, uint64_t done, uint64_t total);
/* Takes the bar off its line, so that something else can be printed. */
void progress_clear(struct progress *progress);
void progress_end(struct progress *progress);
/* "1.5 GB" */
void progress_bytes(uint64_t bytes, char *ret, size_t len);
/* The line without bar or position, for tests: "journal: 50 MB of 100 MB, 10 MB/s, 5 s left". */
void progress_text(const char *part, uint64_t done, uint64_t total, mono_t took, char *ret, size_t len);

#endif
