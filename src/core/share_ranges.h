/* share_ranges: what of a partition a share group has in flight: from `start`, below which everything is done with, to `end`, behind
 * which nobody was given anything, as runs of offsets in the same state, without a gap between them.
 *
 * What is done with is one state whatever the reason, so that a hole costs a range and a span of holes no more than one. No range is
 * done with at the start. Life cycle: share_ranges_init → { share_ranges_reserve ▸ share_ranges_set } … → share_ranges_fini.
 * Core thread. Memory is MEM_GROUPS; who owns the ranges counts it: share_ranges_bytes.
 */
#ifndef MILLRACE_CORE_SHARE_RANGES_H
#define MILLRACE_CORE_SHARE_RANGES_H

#include "base/types.h"

struct sharer;

enum share_state {
    SHARE_AVAILABLE,
    SHARE_ACQUIRED, /* by `holder`, until `until` */
    SHARE_GONE,     /* accepted, rejected, given up, or not there at all */
};

struct share_range {
    uint64_t first, last;
    struct sharer *holder; /* of ACQUIRED; else NULL */
    mono_t until;          /* of ACQUIRED; else 0 */
    uint16_t count;        /* deliveries; of GONE 0 */
    uint8_t state;         /* enum share_state */
};

struct share_ranges {
    struct share_range *at;
    uint32_t count, max;
    uint64_t start, end;
    uint64_t live; /* records that are not GONE */
};

void share_ranges_init(struct share_ranges *r, uint64_t start);
void share_ranges_fini(struct share_ranges *r);
size_t share_ranges_bytes(const struct share_ranges *r);
/* Room for so many sets. False: no memory. */
MUST_USE bool share_ranges_reserve(struct share_ranges *r, uint32_t sets);
/* Offsets below the start are left out; those between the end and `first` are AVAILABLE then. */
void share_ranges_set(struct share_ranges *r, const struct share_range *range);
/* Everything below is done with. Takes no memory. */
void share_ranges_trim(struct share_ranges *r, uint64_t start);
/* The range with the offset, which is in [start, end), or the first one if it is below; count: behind the last. */
uint32_t share_ranges_find(const struct share_ranges *r, uint64_t offset);
bool share_ranges_alike(const struct share_range *a, const struct share_range *b); /* but for their places */
void share_ranges_check(const struct share_ranges *r);

#endif
