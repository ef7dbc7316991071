/* watch: when memory and disk are too full, and whether the wall clock jumps: pure arithmetic over measurements. One thread.
 *
 * Two marks each. Soft: publishers wait. Hard: publishes, and for memory new connections too, are refused. A memory mark is
 * raised above it and ends below 95 % of it; a disk mark is raised below it and ends above 105 % of it.
 */
#ifndef MILLRACE_MAIN_WATCH_H
#define MILLRACE_MAIN_WATCH_H

#include "base/types.h"

struct watch {
    uint64_t memory_soft, memory_hard; /* bytes */
    uint64_t disk_soft, disk_hard;     /* bytes, before what is owed */
    uint64_t owed;   /* bytes of disk that emptying the journal needs: beyond that there is nothing for publishers */
    unsigned raised; /* enum alarm */
    bool near;       /* a limit may be reached before long: look more often */
    int64_t clocks_apart; /* ms, the wall clock's from the monotonic one's; when clocks_seen */
    bool clocks_seen;
};

/* level: a share of total up to 1, or bytes above it. */
uint64_t watch_memory_mark(double level, uint64_t memory_total);
/* 0 asks for the rule: 5 % of the disk, at least 64 MiB and at most 4 GiB. */
uint64_t watch_disk_soft(uint64_t setting, uint64_t disk_total);
/* Below them publishes are refused; what is owed is in them. */
uint64_t watch_disk_hard(const struct watch *watch);
/* Shall malloc give freed pages back now? counted: bytes in use by our own account; since: ns since the last
 * time; idle: nothing was journalled between two measurements. Near the mark every ten seconds, and every quarter of a
 * second while nothing but such pages keeps the alarm up; far from it when there is nothing else to do. */
bool watch_trim_due(const struct watch *watch, uint64_t counted, uint64_t resident, mono_t since, bool idle);
/* Returns the alarms that hold now. */
unsigned watch_measure(struct watch *watch, uint64_t memory_used, uint64_t disk_free);

/* By how many ms the wall clock has jumped since the last time, forward or back; 0: it has not. It was read between these two times: when
 * they are far apart nothing is known. */
int64_t watch_clock(struct watch *watch, mono_t before, wall_t wall, mono_t after);

/* Until the next measurement: publishers can take hundreds of megabytes in the second that is enough far from a limit. */
mono_t watch_pause(const struct watch *watch);

#endif
