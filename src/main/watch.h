/* watch: when memory and disk are too full: pure arithmetic over measurements, with hysteresis. One thread.
 *
 * Memory is raised above the mark and ends below 95 % of it; disk is raised below the minimum and ends above 105 % of it.
 */
#ifndef MILLRACE_MAIN_WATCH_H
#define MILLRACE_MAIN_WATCH_H

#include "base/types.h"

struct watch {
    uint64_t memory_mark, disk_min; /* bytes */
    unsigned raised;                /* enum alarm */
    bool near;                      /* a limit may be reached before long: look more often */
};

/* level: a share of total up to 1, or bytes above it. */
uint64_t watch_memory_mark(double level, uint64_t memory_total);
/* 0 asks for the rule: 5 % of the disk, at least 64 MiB and at most 4 GiB. */
uint64_t watch_disk_min(uint64_t setting, uint64_t disk_total);
/* Shall malloc give freed pages back now? counted: bytes in use by our own account; since: ns since the last
 * time. Near the mark every ten seconds, and every quarter of a second while nothing but such pages keeps the alarm up. */
bool watch_trim_due(const struct watch *watch, uint64_t counted, uint64_t resident, mono_t since);
/* Returns the alarms that hold now. */
unsigned watch_measure(struct watch *watch, uint64_t memory_used, uint64_t disk_free);

/* Until the next measurement: publishers can take hundreds of megabytes in the second that is enough far from a limit. */
mono_t watch_pause(const struct watch *watch);

#endif
