/* sync_times: how long the journal's commits took since its start, as counts by length: four lengths to each doubling, so that a share of them
 * is known within a quarter.
 *
 * Zeroed memory is an empty one. The journal's thread adds; any thread reads, and may see an addition half a moment late.
 */
#ifndef MILLRACE_JOURNAL_SYNC_TIMES_H
#define MILLRACE_JOURNAL_SYNC_TIMES_H

#include "base/types.h"

#include <stdatomic.h>

#define SYNC_TIMES_COUNTS 128u /* up to more than half an hour; what took longer counts as that */

struct sync_times {
    _Atomic uint64_t counts[SYNC_TIMES_COUNTS];
};

/* How many there were. */
uint64_t sync_times_count(const struct sync_times *times);
void sync_times_add(struct sync_times *times, uint64_t ns);
/* So long, or up to a quarter less, took the longest of so many of a thousand; ns, 0: there was none yet. */
uint64_t sync_times_within(const struct sync_times *times, unsigned of_thousand);

#endif
